"""Recipes that learn what every turn contributed to the outcome, and pay it."""

from __future__ import annotations

from typing import Literal

from stratagem.advantages import GAE, BatchWhitened
from stratagem.catalogue import paper
from stratagem.errors import InputError
from stratagem.estimators import ReturnDecomposition
from stratagem.objectives import Clip, PolicyGradient, TokenMean, ValueLoss
from stratagem.optimizers import AdamW
from stratagem.parts import Schedule
from stratagem.recipe import Recipe
from stratagem.rewards import KLPenalty, TurnProgress
from stratagem.sampling import Rollouts
from stratagem.schedules import Switch

__all__ = ["spa_rl"]


@paper(
    "2505.20732",
    title="SPA-RL: Reinforcing LLM Agents via Stepwise Progress Attribution",
    family="agents",
    roles=("reward", "schedule"),
    year=2025,
    base="ppo",
)
def spa_rl(
    scale: float = 1.0,
    grounding: float = 0.5,
    source: Literal["estimate", "leave_one_out"] = "estimate",
    warmup: int = 10,
    refit: bool = True,
    kl_coefficient: float = 0.01,
    clip: float = 0.2,
) -> Recipe:
    """PPO on rewards of turns, ``r_u = scale c_u + grounding g_u``, where ``c_u`` are learned to add up to the return.

    An estimator reads the policy's last hidden state at the last token of every turn and minimises ``(sum_u c_u -
    R)^2``; ``g_u`` is 1 where the environment carried the action out. ``r_u`` is paid at the turn's last token; every
    token is charged ``kl_coefficient`` times the KL to the reference (0 needs none).

    During the first ``warmup`` batches the estimator learns alone, beside PPO's critic. In the paper it is a language
    model of its own, trained before PPO and fixed then; here it is a head on the policy's body, which it never moves
    and which goes on moving, so by default it goes on learning. ``refit = False`` fixes it after the warm-up.
    ``source = "leave_one_out"`` needs no estimator: the released code overwrites its contributions with the return less
    the mean of the group's others, the same in every turn.

    ``scale``, ``grounding`` and the loss are the paper's and its code's. The length of the warm-up, the steps of the
    estimator and ``kl_coefficient`` are choices of this library.

    Raises :class:`InputError` for an estimator that would never learn.
    """
    if not refit and not warmup:
        raise InputError("spa_rl: refit = False with warmup = 0: the estimator would never learn; set warmup above 0")
    estimated, schedules = source == "estimate", list[Schedule]()
    if estimated and warmup:
        schedules += [Switch("advantage.factor", 0.0, 0), Switch("advantage.factor", 1.0, warmup)]
    if estimated and not refit:
        schedules.append(Switch("estimator.steps", 0, warmup))
    progress = TurnProgress(scale, grounding, source)
    return Recipe(
        name="spa_rl",
        base="ppo",
        sampler=Rollouts(),
        estimator=ReturnDecomposition() if estimated else None,
        rewards=(progress, KLPenalty(kl_coefficient)) if kl_coefficient else (progress,),
        advantage=1.0 * BatchWhitened(GAE()),
        objective=PolicyGradient(gate=Clip(clip, clip), aggregation=TokenMean(), critic=ValueLoss()),
        optimization=AdamW(epochs=2, minibatches=2),
        schedules=tuple(schedules),
    )
