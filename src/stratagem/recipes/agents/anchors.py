"""Recipes that compare turns which share a state."""

from __future__ import annotations

from stratagem.advantages import GroupCentered, GroupStandardized, OverTurns, SharedStates
from stratagem.catalogue import paper
from stratagem.parts import Advantage
from stratagem.recipe import Recipe
from stratagem.recipes.baselines import grpo

__all__ = ["gigpo", "hgpo"]


@paper(
    "2505.10978",
    title="Group-in-Group Policy Optimization for LLM Agent Training",
    family="agents",
    roles=("advantage",),
    year=2025,
    base="grpo",
)
def gigpo(
    step_weight: float = 1.0,
    discount: float = 0.95,
    standardize: bool = True,
    over_turns: bool = False,
    clip: float = 0.2,
    kl_coefficient: float = 0.01,
    group_size: int = 8,
) -> Recipe:
    """GRPO plus credit among turns of a group that were in the same state, ``A_u = A_i + step_weight * A^S_u``.

    ``A^S_u = (G_u - mean G) / (std G + eps)`` over the turns of the group with the state of turn ``u``, ``G`` the
    discounted return from a turn on (:class:`stratagem.advantages.SharedStates`). A turn whose state nobody shares has
    only ``A_i``. But all trajectories of a group share their start state; so this is GRPO only with ``step_weight = 0``
    or where even the start is keyed apart.

    step_weight: ``omega``.  discount: ``gamma``, per turn.
    standardize: divide both terms by the standard deviation; without, both are centered (the paper reports both).
    over_turns: take mean and deviation of ``A_i`` over turns, each with the return of its trajectory, as the released
    code does by default; otherwise over trajectories.
    clip, kl_coefficient (k3, to the reference), group_size: as GRPO's.
    """
    episode = _episode(standardize, over_turns)
    steps = SharedStates(discount, standardize=standardize)
    return grpo(clip, kl_coefficient, group_size).replace(
        name="gigpo",
        base="grpo",
        advantage=episode + step_weight * steps if step_weight else episode,
    )


@paper(
    "2602.22817",
    title="Hierarchy-of-Groups Policy Optimization for Long-Horizon Agentic Tasks",
    family="agents",
    roles=("advantage",),
    year=2026,
    base="gigpo",
)
def hgpo(
    history: int = 2,
    sharpness: float = 1.0,
    discount: float = 0.95,
    standardize: bool = True,
    drop_zero: bool = False,
    with_episode: bool = False,
    clip: float = 0.2,
    kl_coefficient: float = 0.01,
    group_size: int = 8,
) -> Recipe:
    """GiGPO's step term over windows of the last states, ``A_u = sum_k w_k a_k(u)``, ``w_k ~ (k + 1)^sharpness``.

    ``a_k`` compares turns of a group whose last ``k`` states agree, ``k = 1 .. history + 1``, over the standard
    deviation of the population; windows that nobody shares are left out. Longer windows mix fewer histories and have
    fewer members (:class:`stratagem.advantages.SharedStates`). There is no episode term.

    history: states before the present one, the length of the agent's memory (the released code: 2 and 4).
    sharpness: ``alpha``; 0 weighs all windows alike.  discount: per turn.  standardize: otherwise ``a_k`` is centered.
    drop_zero: leave out windows in which a turn is exactly average, as the released code does.
    with_episode: GRPO's advantage, with its statistics over turns, joins as a window ``k = 0`` (an option of the
    released code).
    clip, kl_coefficient (k3, to the reference), group_size: as GRPO's.
    """
    windows = SharedStates(
        discount,
        history,
        sharpness,
        standardize,
        correction=0,
        drop_zero=drop_zero,
        base=_episode(standardize, over_turns=True) if with_episode else None,
    )
    recipe = gigpo(clip=clip, kl_coefficient=kl_coefficient, group_size=group_size)
    return recipe.replace(name="hgpo", base="gigpo", advantage=windows)


def _episode(standardize: bool, over_turns: bool) -> Advantage:
    compared = GroupStandardized() if standardize else GroupCentered()
    return OverTurns(compared) if over_turns else compared
