"""Agents that are helped by what is not trained: sub-questions for a solver, and whom to believe or to ask."""

from __future__ import annotations

from stratagem.advantages import GAE, BatchWhitened
from stratagem.catalogue import paper
from stratagem.objectives import Clip, PolicyGradient, TokenMean, ValueLoss
from stratagem.optimizers import AdamW
from stratagem.recipe import Recipe
from stratagem.rewards import KLPenalty
from stratagem.sampling import BelowReward, Rollouts

__all__ = ["daslam"]


@paper(
    "2310.18338",
    title="Small Language Models Fine-tuned to Coordinate Larger Language Models improve Complex Reasoning",
    family="agents",
    roles=("reward", "selection"),
    year=2023,
    base="ppo",
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
