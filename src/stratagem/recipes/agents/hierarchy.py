"""Recipes with credit at more than one level: tokens of an action, and actions of a sub-goal."""

from __future__ import annotations

from stratagem.advantages import GAE, BatchWhitened, HierarchicalGAE
from stratagem.catalogue import paper
from stratagem.objectives import KL, Clip, EntropyBonus, PolicyGradient, TokenMean, ValueLoss
from stratagem.optimizers import AdamW
from stratagem.recipe import Recipe
from stratagem.rewards import PlanPenalty
from stratagem.sampling import Rollouts

__all__ = ["hiper", "poad"]


@paper(
    "2405.15821",
    title="Reinforcing Language Agents via Policy Optimization with Action Decomposition",
    family="agents",
    roles=("advantage", "objective"),
    year=2024,
    base="ppo",
)
def poad(
    discount: float = 0.95,
    trace: float = 0.95,
    clip: float = 0.2,
    value_clip: float | None = 0.2,
    entropy_weight: float = 0.01,
    minibatches: int = 4,
) -> Recipe:
    """PPO on tokens with the discount between actions only: ``delta = V_{j+1} - V_j`` inside an action, and ``r_t +
    discount V(o_{t+1}) - V_j`` at its last token.

    So the best policy over tokens is the best one over actions, however many tokens say an action, and each token has
    credit of its own. Naive flattening, the paper's control, is ``{"advantage.of.step": "token"}``.

    discount: between turns.  trace: lambda, between tokens.  value_clip: the released code clips the value loss; that
    its range is the policy's is our reading. The code also leaves out the policy's step when the approximate KL of a
    mini-batch exceeds 0.02; no figure of a whole mini-batch is known while its pieces are computed, and it is left out
    here. Its learning rates (1e-6, and 5e-5 for the critic) are those of a 7B model.
    """
    bonus = entropy_weight * EntropyBonus() if entropy_weight else None
    return Recipe(
        name="poad",
        base="ppo",
        sampler=Rollouts(),
        advantage=BatchWhitened(GAE(discount, trace, step="decomposed")),
        objective=PolicyGradient(
            gate=Clip(clip, clip),
            aggregation=TokenMean(),
            regularizer=bonus,
            critic=ValueLoss(0.5, value_clip),
        ),
        optimization=AdamW(minibatches=minibatches, max_grad_norm=0.5),
    )


@paper(
    "2602.16165",
    title="HiPER: Hierarchical Reinforcement Learning with Explicit Credit Assignment for Large Language Model Agents",
    family="agents",
    roles=("advantage", "reward"),
    year=2026,
    base="ppo",
)
def hiper(
    discount: float = 1.0,
    turn_trace: float = 1.0,
    segment_trace: float = 0.95,
    whiten: bool = True,
    keep: float = 0.3,
    inconsistent: float = 0.3,
    invalid: float = 0.1,
    kl_coefficient: float = 0.01,
    clip: float = 0.2,
) -> Recipe:
    """PPO with hierarchical advantage estimation: actions get ``GAE(discount, turn_trace)`` within a sub-goal, which
    gets ``GAE(discount^d, segment_trace)`` over segments of ``d`` turns; the choice to switch has its own advantage.

    It needs turns whose tokens are labelled as switch, sub-goal and action: ``structured:TASK`` for a language model.
    ``discount``, traces, whitening, charges and the weight of the KL (k3, which is our reading) are those of the
    released code's run on ALFWorld; its learning rates (1e-6, and 1e-5 for the critic) are those of a 7B model.

    keep, inconsistent, invalid: charges of :class:`PlanPenalty`.
    """
    charged = any((keep, inconsistent, invalid))
    return Recipe(
        name="hiper",
        base="ppo",
        sampler=Rollouts(),
        rewards=(PlanPenalty(keep, inconsistent, invalid),) if charged else (),
        advantage=HierarchicalGAE(discount, turn_trace, segment_trace, whiten),
        objective=PolicyGradient(
            gate=Clip(clip, clip),
            aggregation=TokenMean(),
            regularizer=kl_coefficient * KL("k3") if kl_coefficient else None,
            critic=ValueLoss(),
        ),
    )
