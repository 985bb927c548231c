"""Learning from demonstrations and from the policy's own trajectories in one stage."""

from __future__ import annotations

from typing import Literal

from stratagem.advantages import GAE, BatchWhitened, GroupCentered, WithDemonstrations
from stratagem.catalogue import paper
from stratagem.errors import unknown
from stratagem.objectives import (
    Blend,
    Clip,
    EntropyBonus,
    FixedLength,
    LogLikelihood,
    PolicyGradient,
    Restricted,
    SequenceSum,
    TokenMean,
    Unclipped,
    ValueLoss,
)
from stratagem.optimizers import AdamW
from stratagem.recipe import Recipe
from stratagem.sampling import ByPassRate, Rollouts
from stratagem.schedules import MetaWeight

__all__ = ["amft", "hpt"]


@paper(
    "2509.04419",
    title="Towards a Unified View of Large Language Model Post-Training",
    family="objectives",
    roles=("sampler", "selection", "advantage", "objective"),
    year=2025,
    base="dr_grpo",
)
def hpt(
    gate: float = 0.0,
    coefficient: float = 1.0,
    length: int = 1024,
    entropy: float = 0.001,
    blend: Literal["none", "linear", "sigmoid"] = "none",
    max_grad_norm: float = 80.0,
) -> Recipe:
    """Hybrid post-training: a prompt whose pass rate is at most ``gate`` is shown its demonstration, others explore.

    Explored prompts have a centred group reward, ``-(1 / L) sum_t rho_t A_t`` without clip or deviation, and an entropy
    bonus; shown ones lose their rollouts and have ``-coefficient mean_t log pi``. In the paper ``gate`` is 0 or 2 of 8,
    ``coefficient`` 1 (0.3 for a model of 1.5 billion parameters), ``length`` the limit on tokens, a batch 128 prompts
    in two optimizer steps, gradients are cut at a norm of 80 and the learning rate is 5e-6; batch size and learning
    rate are left at the library's here. The two losses have different scales, a mean over tokens and a sum over a
    constant, so ``coefficient`` means something else for another ``length``.

    gate: share of the group, in [-1, 1]: below 0 nothing is shown (Dr. GRPO without clip), at 1 everything is
    (supervised learning).
    blend: ``linear`` or ``sigmoid`` weigh both losses of every prompt by its pass rate instead of choosing one; with
    ``sigmoid``, around ``gate``. The paper leaves these weights open, so the blends are a reconstruction.

    Raises :class:`InputError` for a gate out of range.
    """
    hard = ByPassRate(gate)  # Refuses a gate out of range, whatever the blend.
    weighed = WithDemonstrations(GroupCentered(), blend=blend, gate=gate if blend == "sigmoid" else 0.0)
    explored = PolicyGradient(
        gate=Unclipped(),
        aggregation=FixedLength(length),
        regularizer=entropy * EntropyBonus() if entropy else None,
    )
    shown = PolicyGradient(gate=LogLikelihood(), aggregation=TokenMean())
    return Recipe(
        name="hpt",
        base="dr_grpo",
        sampler=Rollouts(demonstrations=1),
        selections=(hard,) if blend == "none" else (),
        advantage=weighed,
        objective=Restricted(explored, "rollouts") + coefficient * Restricted(shown, "demonstrations"),
        optimization=AdamW(max_grad_norm=max_grad_norm, minibatches=2),
    )


@paper(
    "2508.06944",
    title="AMFT: Aligning LLM Reasoners by Meta-Learning the Optimal Imitation-Exploration Balance",
    family="objectives",
    roles=("sampler", "advantage", "objective", "schedule"),
    year=2025,
    base="ppo",
)
def amft(
    initial: float = 0.8,
    meta_rate: float = 1e-4,
    entropy_rate: float = 5e-4,
    every: int = 20,
    warm_up: int = 50,
    sign: Literal["ascent", "released"] = "ascent",
    normalized: bool = False,
    validation: Literal["likelihood", "return"] = "likelihood",
) -> Recipe:
    """Adaptive fine-tuning: ``(1 - mu) L_PPO + mu L_SFT``, with ``mu`` moved by a meta-gradient and an entropy target.

    Every ``every`` batches ``mu`` moves up the derivative of a validation measure through one step of learning, and up
    where entropy is below its first level; see :class:`~stratagem.schedules.MetaWeight`, which also holds what else may
    be set. The first ``warm_up`` batches are supervised. Numbers are those of the released
    configuration: PPO with clip 0.2, value loss 0.1, entropy bonus 0.01, trace 0.95, gradients cut at 1, policy and
    critic learning rates 1e-6 and 5e-6 (left at the library's here, the critic's 5 times the policy's).

    sign: ``released`` is what the released code does, whose meta-gradient has the wrong sign.
    validation: ``likelihood`` of held-out demonstrations, as in the released code; or the ``return`` of a fresh batch
    of rollouts, estimated by REINFORCE with a group baseline (a reconstruction: the paper speaks of performance).
    normalized: compare cosines instead of products; see there. With the published rates ``mu`` hardly moves at all.

    Raises :class:`InputError` for a number out of range.
    """
    exploration = PolicyGradient(
        gate=Clip(),
        aggregation=TokenMean(),
        regularizer=0.01 * EntropyBonus(),
        critic=ValueLoss(0.1),
    )
    imitation = PolicyGradient(gate=LogLikelihood(), aggregation=TokenMean())
    weight = MetaWeight(
        initial=initial,
        meta_rate=meta_rate,
        entropy_rate=entropy_rate,
        every=every,
        begin=warm_up,
        sign=sign,
        normalized=normalized,
    )
    if validation == "return":
        by_return = PolicyGradient(gate=LogLikelihood(), aggregation=SequenceSum())
        weight = weight.replace(sampler=Rollouts(), advantage=GroupCentered(), objective=by_return)
    elif validation != "likelihood":
        raise unknown("validation", validation, ("likelihood", "return"))
    optimization = AdamW()
    return Recipe(
        name="amft",
        base="ppo",
        sampler=Rollouts(demonstrations=1),
        advantage=WithDemonstrations(BatchWhitened(GAE(1.0, 0.95))),
        objective=Blend(
            imitation=Restricted(imitation, "demonstrations"),
            exploration=Restricted(exploration, "rollouts"),
            weight=initial,
        ),
        optimization=optimization.replace(critic_learning_rate=5 * optimization.learning_rate),
        schedules=(weight,),
    )
