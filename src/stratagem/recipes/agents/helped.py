"""Agents that are helped by what is not trained: sub-questions for a solver, and whom to believe or to ask."""

from __future__ import annotations

from stratagem.advantages import GAE, BatchWhitened, GroupStandardized
from stratagem.catalogue import paper
from stratagem.errors import InputError
from stratagem.objectives import (
    Clip,
    FullKL,
    GeometricMeanRatio,
    GroupEntropy,
    PolicyGradient,
    SequenceMean,
    TokenMean,
    ValueLoss,
)
from stratagem.optimizers import AdamW
from stratagem.parts import Objective
from stratagem.recipe import Recipe
from stratagem.rewards import CostPenalty, KLPenalty
from stratagem.sampling import BelowReward, Candidates, Rollouts
from stratagem.schedules import LinearRamp

__all__ = ["daslam", "hila"]


@paper(
    "2310.18338",
    title="Small Language Models Fine-tuned to Coordinate Larger Language Models improve Complex Reasoning",
    family="agents",
    roles=("reward", "selection"),
    year=2023,
    base="ppo",
    tags=("initialisation.behaviour.task_decomposition",),
)
def daslam(kl_coefficient: float = 0.01, clip: float = 0.2, value_weight: float = 0.5) -> Recipe:
    """PPO for a policy that asks sub-questions of a frozen solver, ``R = R1 + R2 + R3 + R4 + R5 - beta KL(pi || ref)``.

    The five rewards are the task's, columns with weights (``decompose`` is a task of this kind): nouns covered,
    answers that fit sub-questions, the right answer, reasoning nearer to the gold one, the same operations. A question
    that the solver gets right before anything is asked (column ``solved_at_once``) teaches nothing: it is left out of
    the update and counts in evaluation. Nothing of the solver is needed but its text, so it can be another one at test
    time.

    ``kl_coefficient``: ``beta`` of the penalty on every token, fixed; the released code begins with 0.01 and adapts it
    towards 4 nats a response. ``clip`` and ``value_weight``, and passes over a batch, are this library's PPO: the
    paper's values were not available. The supervised stage before is ``sft`` on (question, attempt) with sub-questions
    as the answer.
    """
    return Recipe(
        name="daslam",
        base="ppo",
        sampler=Rollouts(),
        rewards=(KLPenalty(kl_coefficient),) if kl_coefficient else (),
        selections=(BelowReward("solved_at_once"),),
        advantage=BatchWhitened(GAE(1.0, 0.95)),
        objective=PolicyGradient(gate=Clip(clip, clip), aggregation=TokenMean(), critic=ValueLoss(value_weight)),
        optimization=AdamW(epochs=2, minibatches=2),
    )


@paper(
    "2603.07972",
    title=(
        "Adaptive Collaboration with Humans: Metacognitive Policy Optimization for Multi-Agent LLMs with Continual "
        "Learning"
    ),
    family="agents",
    roles=("sampler", "reward", "ratio", "objective"),
    year=2026,
    base="grpo",
)
def hila(
    clip: float = 0.2,
    kl_coefficient: float = 0.02,
    entropy_weight: float = 0.001,
    cost_weight: float = 1.0,
    loop: int | None = None,
) -> Recipe:
    """GRPO on complete groups of meta-actions (believe a peer, solve anew, ask the expert), ``R = correct - C(m)``.

    ``L = -mean min(rho A, clip(rho) A) + 0.02 KL(pi || ref) - 0.001 H(softmax of the group's scores)``. The score of a
    candidate is the mean log-probability of its tokens, ``rho = exp(score - score of the frozen initial policy)``, and
    ``A`` is standardised within the group with the population's deviation. Every candidate is tried once, whatever the
    policy would do (``collaborate`` is a task of this kind), so the ratio is not to whoever sampled. The KL is over the
    whole vocabulary. As the released code has it; what it keeps of a ratio to the *initial* policy is that no candidate
    gets much likelier than ``1 + clip`` times what it was, or less likely than ``1 - clip`` times.

    This is the inner loop. The outer one is supervised: the expert's right answers, which the task writes to a file
    (``taught=PATH``), are learned by ``sft(learning_rate=1e-4)`` on ``jsonl:PATH``; then the inner loop runs again, its
    initial policy being what came out.

    ``cost_weight``: what the task's costs count.  ``loop``: batches after which the present policy becomes the initial
    one, as when loops follow each other; None: never, as in a single one.

    Raises :class:`InputError` for a number out of range, and in training for a task that notes no cost or lists no
    candidates.
    """
    objective: Objective = PolicyGradient(
        ratio=GeometricMeanRatio(denominator="reference"),
        gate=Clip(clip, clip),
        aggregation=SequenceMean(),
        regularizer=kl_coefficient * FullKL() if kl_coefficient else None,
    )
    if entropy_weight:
        objective = objective + entropy_weight * GroupEntropy()
    return Recipe(
        name="hila",
        base="grpo",
        sampler=Candidates(),
        rewards=(CostPenalty(cost_weight),),
        advantage=GroupStandardized(correction=0),
        objective=objective,
        optimization=AdamW(learning_rate=5e-5, epochs=2, shuffle="groups"),
        schedules=() if loop is None else (_loops(loop),),
    )


def _loops(batches: int) -> LinearRamp:
    """The reference moves to every so many batches; stairs of which each step is exact in floating point."""
    if batches < 1:
        raise InputError(f"hila.loop = {batches}: must be at least 1")
    most = batches * 2**20
    return LinearRamp("reference_from", 0, most, most, every=batches)
