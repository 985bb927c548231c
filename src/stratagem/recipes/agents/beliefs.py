"""Agents that say what they believe: one role writes beliefs, another acts on them, and each has credit of its own."""

from __future__ import annotations

from stratagem.advantages import GAE, BatchWhitened, RoleCredit, StandardizedTurnReturn
from stratagem.catalogue import paper
from stratagem.objectives import Clip, PolicyGradient, RoleLosses, TokenMean, ValueLoss
from stratagem.optimizers import AdamW
from stratagem.recipe import Recipe
from stratagem.rewards import KLPenalty
from stratagem.sampling import Rollouts

__all__ = ["agent_brace"]


@paper(
    "2605.11436",
    title="Agent-BRACE: Decoupling Beliefs from Actions via Verbalized State Uncertainty",
    family="agents",
    roles=("advantage", "reward", "objective"),
    year=2026,
    base="ppo",
)
def agent_brace(
    clip: float = 0.2,
    dual_clip: float = 3.0,
    kl_coefficient: float = 0.01,
    trace: float = 1.0,
    value_weight: float = 0.5,
) -> Recipe:
    """PPO for two roles: a belief's advantage is its own reward, ``(r_k - mean r) / (std r + eps)`` over the beliefs of
    the batch; the policy's is GAE with ``gamma = 1`` over its own turns alone, whitened, with
    ``r_t - beta (log pi - log ref)`` for reward.

    Role 0 writes beliefs ``- claim: label``, role 1 acts on the last one and never sees the history; the task
    ``belief:TASK`` is played like this, and pays every belief its gated mean of four terms. Both losses are means over
    their own tokens with clip 0.2; the belief's has the dual clip 3. Roles may be models of their own, as in the paper
    (``--model role0=PATH --model role1=PATH``), or share one. A batch without roles is the policy's alone, and this is
    PPO with KL in the reward.

    ``trace`` (lambda) and ``value_weight`` were not available, nor was how often a batch is passed over for the policy:
    ``trace`` is ours, and the others are this library's. The released code has
    learning rates of 1e-6 for the policy and 1e-5 for belief and critic: ``optimization.learning_rate = 1e-5``,
    ``optimization.member_rates = [1, 0.1]``, where the critic's rate is that of its member times
    ``critic_learning_rate``. Its models are first taught, by ``sft``, on beliefs that a stronger model labelled. It
    samples at a temperature of 0.7.

    Raises :class:`InputError` for a number out of range.
    """
    return Recipe(
        name="agent_brace",
        base="ppo",
        sampler=Rollouts(),
        rewards=(KLPenalty(kl_coefficient),) if kl_coefficient else (),
        advantage=RoleCredit(
            (StandardizedTurnReturn(among="batch", discount=0.0), BatchWhitened(GAE(1.0, trace))),
        ),
        objective=RoleLosses(
            (
                PolicyGradient(gate=Clip(clip, clip, dual_clip), aggregation=TokenMean()),
                PolicyGradient(gate=Clip(clip, clip), aggregation=TokenMean(), critic=ValueLoss(value_weight)),
            )
        ),
        optimization=AdamW(),
    )
