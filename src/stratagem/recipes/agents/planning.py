"""Agents of two roles, one that says what to go for and one that does it, compared where they act."""

from __future__ import annotations

from stratagem.advantages import GroupStandardized, LoneTrajectories, StandardizedContext, StandardizedTurnReturn
from stratagem.catalogue import paper
from stratagem.objectives import KL, Clip, PolicyGradient, SequenceMean
from stratagem.parts import Advantage
from stratagem.recipe import Recipe
from stratagem.sampling import AtTurns, Branching, ComparedRole, OfBest
from stratagem.schedules import Cycle

__all__ = ["hi_agent", "himac"]

HIGH, LOW = 0, 1
"""Roles (``turn_role``): who plans or chooses a sub-goal, and who carries it out."""


@paper(
    "2603.00977",
    title="HiMAC: Hierarchical Macro-Micro Learning for Long-Horizon LLM Agents",
    family="agents",
    roles=("sampler", "advantage", "schedule"),
    year=2026,
    base="grpo",
)
def himac(
    blueprints: int = 8,
    executions: int = 8,
    macro_batches: int = 1,
    micro_batches: int = 1,
    stray: float = 0.0,
    refine: float = 0.0,
    kl_coefficient: float = 0.01,
    clip: float = 0.2,
) -> Recipe:
    """GRPO at two levels by turns: blueprints under one execution each, ``A_k = (R_k - mean R) / (std R + 1e-6)``, and
    executions under the best of those blueprints, with the same formula; only whom a group compares is trained.

    Role 0 writes a blueprint in the first turn, role 1 carries it out: ``blueprint:TASK`` for a language model. In a
    macro batch a group is so many episodes, and the tokens of role 0 learn. In a micro batch, such episodes show which
    blueprint returned most, the first of equals; ``executions`` new ones begin behind it, and they alone learn. So
    executions are never compared across blueprints. A blueprint or execution that is alone in its group earns nothing.

    blueprints, executions: of a group, the latter at least 1.  macro_batches, micro_batches: how many of each follow
    one another, 1:1 by default.  stray: probability that executions are under a blueprint at random.  refine: adds so
    much times the reward of each sub-goal's conversation, standardised over the executions that came to it
    (:class:`~stratagem.advantages.StandardizedContext`); 0: nothing.

    The two levels under one set of weights, the alternation, the good blueprint for executions and the KL coefficient
    of 0.01 are from summaries of the paper; sizes of groups, normalisers (the sample's deviation), ``stray`` and
    ``refine`` are reconstructions, as is the estimator k3. Micro batches score blueprints of their own with the present
    weights, for a macro batch was of other tasks. A role that does not learn has no gradient, KL included, but what an
    optimizer remembers may still move it: AdamW's moments are not reset between phases.
    """
    compared: Advantage = LoneTrajectories(GroupStandardized())
    if refine:
        compared = compared + refine * StandardizedContext(LOW)
    return Recipe(
        name="himac",
        base="grpo",
        sampler=Branching(
            group_size=blueprints,
            at=OfBest(AtTurns(role=LOW, first=True), any_of=stray),
            branches=0,
            train_roots=False,
        ),
        selections=(ComparedRole(),),
        advantage=compared,
        objective=PolicyGradient(
            gate=Clip(clip, clip),
            aggregation=SequenceMean(),
            regularizer=kl_coefficient * KL("k3") if kl_coefficient else None,
        ),
        schedules=(Cycle("sampler.branches", (0, executions), (macro_batches, micro_batches)),),
    )


@paper(
    "2510.14388",
    title="Hi-Agent: Hierarchical Vision-Language Agents for Mobile Device Control",
    family="agents",
    roles=("sampler", "advantage", "reward", "schedule"),
    year=2025,
    base="grpo",
)
def hi_agent(
    group_size: int = 8,
    high_batches: int = 1,
    low_batches: int = 1,
    kl_coefficient: float = 0.01,
    clip: float = 0.2,
) -> Recipe:
    """GRPO of single turns in two roles: in each state ``G`` sub-goals, each carried out by one action and paid by what
    that achieved, ``A_i = (r_i - mean r) / (std r + 1e-6)``; and by turns ``G`` actions for each state and sub-goal.

    One episode shows ``n`` states. Each is gone on with ``G`` times: for role 0, with a sub-goal and the action for it;
    for role 1, with an action for the sub-goal of the episode. So an episode of ``n`` steps costs ``n G`` samples of a
    role beside the ``n`` of the episode, and not ``G^n``. The turn in which branches part learns, by its own
    reward, which a task may set once the action is done, as ``app`` does: a foresight score of format, execution and
    progress for a sub-goal, format, kind and target for an action. A branch that is lost leaves its group, and the
    others are compared.

    group_size: ``G``; 1 earns nothing.  high_batches, low_batches: how many batches of each role follow one another.

    The hierarchy, foresight by execution feedback, the cost ``n G`` and GRPO are the paper's, by summaries of it; its
    formulas were not available. The alternation (roles learn by turns, each beside the newest other), the sample's
    deviation and the estimator k3 are reconstructions. The warm start on demonstrations is left to the user.
    """
    return Recipe(
        name="hi_agent",
        base="grpo",
        sampler=Branching(
            group_size=1,
            at=AtTurns(role=HIGH, from_start=True),
            branches=group_size,
            branch_turns=2,
            train_roots=False,
        ),
        selections=(ComparedRole(once=True),),
        advantage=LoneTrajectories(StandardizedTurnReturn(discount=0.0)),
        objective=PolicyGradient(
            gate=Clip(clip, clip),
            aggregation=SequenceMean(),
            regularizer=kl_coefficient * KL("k3") if kl_coefficient else None,
        ),
        schedules=(
            Cycle("sampler.at.role", (HIGH, LOW), (high_batches, low_batches)),
            Cycle("sampler.branch_turns", (2, 1), (high_batches, low_batches)),
        ),
    )
