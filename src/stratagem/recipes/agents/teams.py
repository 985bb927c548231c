"""Teams: several roles act in one episode, each with credit, and if wanted a policy, of its own."""

from __future__ import annotations

from typing import Literal

from stratagem.advantages import AlignedCalls, RoleStandardized
from stratagem.catalogue import paper
from stratagem.errors import unknown
from stratagem.objectives import KL, ByRole, Clip, PolicyGradient
from stratagem.parts import Reward
from stratagem.recipe import Recipe
from stratagem.rewards import GradedOutcome
from stratagem.sampling import Rollouts

__all__ = ["mgrpo", "videochat_m1"]


@paper(
    "2511.13288",
    title="Multi-Agent Deep Research: Training Multi-Agent Systems with M-GRPO",
    family="agents",
    roles=("advantage", "reward", "aggregation"),
    year=2025,
    base="grpo",
)
def mgrpo(
    rewards: Literal["task", "released", "weighted"] = "task",
    slots: int | None = None,
    reweight: bool = False,
    main_weights: tuple[float, float] = (0.1, 0.9),
    call_weights: tuple[float, float, float] = (0.1, 0.9, 0.0),
    group_size: int = 8,
) -> Recipe:
    """GRPO in two tiers: ``A_i = (R_i - mean R) / (std R + eps)`` over rollouts for the main agent (role 0), and the
    same over all calls of sub-agents (roles from 1 on) in the group, aligned to ``slots`` calls of every rollout.

    A call is a conversation of its own (:class:`~stratagem.advantages.AlignedCalls` has formulas and the alignment).
    Every role's loss is a mean over its own conversations (:class:`~stratagem.objectives.ByRole`). Roles may be played
    by models of their own, as in the paper (``--model role0=PATH --model role1=PATH``), or share one, by default;
    ``optimization.member_rates`` makes some learn slower, or not at all. The paper trains them on two servers that
    share rewards; here they learn from the same batch, and no call is older than its rollout. Without sub-agents this
    is GRPO with clip 0.2 and 0.28, and without KL, as in the released code.

    ``rewards``: of rollout and call. ``task``: both get what the task pays. ``released``, as the released code: a
    rollout 1 when right, 0.1 when wrong, 0 in a broken format; a call at least 0.1, 1 where the rollout is right.
    ``weighted``, as the paper: a rollout ``a_1 + a_2`` or ``a_1`` by ``main_weights``, 0 in a broken format; a call
    ``b_1 + b_2 correct + b_3 e`` by ``call_weights``, with ``e``, what its own turns earned (an expert's judgement, in
    the paper). The paper's weights were not available; these are not the authors'. A call is broken, and gets 0, where
    its turns earned less than 0; with ``task`` none is.

    ``slots``: None: as many as the rollout with most calls has.  ``reweight``: a repeated call weighs as any other.

    Raises :class:`InputError` for other rewards than these, and numbers out of range.
    """
    a_1, a_2 = main_weights
    b_1, b_2, b_3 = call_weights
    shaped: dict[str, tuple[Reward, ...]] = {
        "task": (),
        "released": (GradedOutcome(1.0, 0.1, 0.0),),
        "weighted": (GradedOutcome(a_1 + a_2, a_1, 0.0),),
    }
    if rewards not in shaped:
        raise unknown("rewards of mgrpo", rewards, shaped)
    credit = {
        "task": AlignedCalls(slots, reweight),
        "released": AlignedCalls(slots, reweight, least=0.1, gated=True),
        "weighted": AlignedCalls(slots, reweight, b_2, "success", valid=b_1, earned=b_3, gated=True),
    }
    return Recipe(
        name="mgrpo",
        base="grpo",
        sampler=Rollouts(group_size=group_size),
        rewards=shaped[rewards],
        advantage=credit[rewards],
        objective=PolicyGradient(gate=Clip(0.2, 0.28), aggregation=ByRole("conversation")),
    )


@paper(
    "2511.19524",
    title="VideoChat-M1: Collaborative Policy Planning for Video Understanding via Multi-Agent Reinforcement Learning",
    family="agents",
    roles=("advantage", "aggregation"),
    year=2025,
    base="grpo",
    tags=("limits.question.multimodality",),
)
def videochat_m1(kl_coefficient: float = 0.01, clip: float = 0.2, group_size: int = 8) -> Recipe:
    """Agents that plan, tell each other what they saw, and vote: each role has GRPO's advantage within its group,
    ``A_ir = (R_ir - mean_g R_r) / (std_g R_r + eps)``, and a loss of its own.

    ``R_ir`` is what the turns of agent ``r`` earned in rollout ``i``; the task ``video`` pays each agent ``0.5 team +
    0.3 own + 0.1 format + 0.1 collaboration`` and plays rounds of planning, execution and communication. An agent that
    was left out of a rollout neither counts in its mean nor learns from it; one left out of a whole group is skipped
    there. Agents may be models of their own (``--model role0=PATH --model role1=PATH ...``) or share one; then every
    role adds a loss. With one agent this is GRPO with a KL term.

    The paper has four agents, three stages, several rewards and dropout of agents; its formulas were not available, so
    advantage, rewards and their weights, clip and KL coefficient are reconstructions. ``kl_coefficient = 0`` needs no
    reference model.

    Raises :class:`InputError` for a group of one and numbers out of range.
    """
    return Recipe(
        name="videochat_m1",
        base="grpo",
        sampler=Rollouts(group_size=group_size),
        advantage=RoleStandardized(),
        objective=PolicyGradient(
            gate=Clip(clip, clip),
            aggregation=ByRole("trajectory"),
            regularizer=kl_coefficient * KL("k3") if kl_coefficient else None,
        ),
    )
