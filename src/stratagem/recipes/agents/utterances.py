"""Recipes whose critics judge whole utterances, and whose policy gradient works inside them."""

from __future__ import annotations

from typing import Literal

from stratagem.advantages import Exponential, TurnCriticAdvantage
from stratagem.catalogue import paper
from stratagem.errors import InputError
from stratagem.estimators import TurnCritics
from stratagem.objectives import Clip, LogLikelihood, PolicyGradient, TruncatedImportance, TurnSum, ValueLoss
from stratagem.optimizers import AdamW
from stratagem.recipe import Recipe
from stratagem.sampling import RecentBatches, Rollouts
from stratagem.schedules import Switch

__all__ = ["archer"]


@paper(
    "2402.19446",
    title="ArCHer: Training Language Model Agents via Hierarchical Multi-Turn RL",
    family="agents",
    roles=("advantage", "objective", "schedule"),
    year=2024,
    base="reinforce",
)
def archer(
    actor: Literal["reinforce", "ppo", "awr"] = "reinforce",
    token_baseline: bool = False,
    discount: float = 0.95,
    rate: float = 0.1,
    critic_steps: int = 50,
    warmup: int = 20,
    replayed: float = 0.5,
    expectile: float = 0.5,
    clip: float = 0.2,
    temperature: float = 1.0,
) -> Recipe:
    """Critics of whole utterances beside a policy gradient inside them: ``L = -mean_u A_u sum_t log pi(a_ut)``.

    ``A_u = min_i Q_i - min_i V_i`` of twin critics, learned by temporal differences with slow copies
    (:class:`stratagem.estimators.TurnCritics`: ``discount`` per turn, ``rate`` of the copies, ``critic_steps`` on each
    batch). An utterance is a turn. The first ``warmup`` batches teach the critics alone.

    Of all trajectories learned from, the share ``replayed`` is of the last eight batches. The authors draw a new
    utterance at each state of their buffer. Here the utterances are those of the buffer, weighted by ``pi / mu`` of the
    turn, at most 10 for the critics and 2 for the policy: the same mean for both with more variance, but for the
    bounds. With ``replayed = 0`` every utterance is of the present policy. The authors' critic is an encoder of its
    own; here it is heads on the policy's body, which they never move.

    ``actor``: ``reinforce``; ``ppo``, two epochs with the clip of ``clip``; or ``awr``, likelihood weighted by
    ``exp(A_u / temperature)``, which with ``expectile`` above 0.5 is the authors' way of learning from fixed data
    (their values for both were not available); the utterances then count alike.
    ``token_baseline``: the policy's value head, fitted to ``A_u`` before each token, is taken from it.

    128 trajectories in a batch, the discount, the rate, the warm-up and the steps are the released code's.

    Raises :class:`InputError` for a token baseline of a likelihood that has no use for one.
    """
    if token_baseline and actor == "awr":
        raise InputError(
            "archer: token_baseline = True with actor = awr: a weight takes no baseline; use reinforce or ppo"
        )
    offline = actor == "awr"
    credit = Exponential(TurnCriticAdvantage(), temperature) if offline else TurnCriticAdvantage(token_baseline)
    old = None if offline or not replayed else TruncatedImportance(unit="turn")
    return Recipe(
        name="archer",
        base="reinforce",
        sampler=Rollouts(prompts_per_step=128, group_size=1),
        replay=RecentBatches(batches=8, share=replayed) if replayed else None,
        estimator=TurnCritics(
            steps=critic_steps,
            hidden=128,
            discount=discount,
            rate=rate,
            expectile=expectile,
            actions="as_sampled" if offline else "weighted",
        ),
        advantage=1.0 * credit,
        objective=PolicyGradient(
            gate=Clip(clip, clip) if actor == "ppo" else LogLikelihood(),
            aggregation=TurnSum(),
            correction=old,
            critic=ValueLoss() if token_baseline else None,
        ),
        optimization=AdamW(epochs=2 if actor == "ppo" else 1),
        schedules=(Switch("advantage.factor", 0.0, 0), Switch("advantage.factor", 1.0, warmup)) if warmup else (),
    )
