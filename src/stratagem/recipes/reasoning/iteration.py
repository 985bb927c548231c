"""A recipe that trains single steps of self-improvement, for a policy that improves its answers many times in a row."""

from __future__ import annotations

from stratagem.advantages import DiversityBonus, GroupStandardized
from stratagem.catalogue import paper
from stratagem.objectives import PolicyGradient, SequenceMean
from stratagem.recipe import Recipe
from stratagem.sampling import Improving

__all__ = ["exit_exploratory_iteration"]


@paper(
    "2509.04575",
    title="Bootstrapping Task Spaces for Self-Improvement",
    family="reasoning",
    roles=("sampler", "advantage"),
    year=2025,
    base="grpo",
)
def exit_exploratory_iteration(share: float = 0.5, diversity: float = 0.1, group_size: int = 8) -> Recipe:
    """GRPO on single attempts, a share of which improve earlier ones, from a buffer ranked by ``S = var(R_1 .. R_G)``.

    What a group was shown grows by one of its own attempts and comes back where the group's returns differed
    (:class:`~stratagem.sampling.Improving`), so histories get as long as they teach anything, while no episode is
    longer than one attempt and the loss is over that one alone. Good answers that differ from the rest of their group
    gain more (:class:`~stratagem.advantages.DiversityBonus`).

    In text it takes a task ``improve:TASK``, whose option ``divergence`` asks for a different answer behind a share of
    the histories, and whose test episodes are many attempts, judged by the best or the last. Games of the lab have no
    attempts; there it is GRPO with the bonus. With ``share`` and ``diversity`` at 0 it is GRPO on the task itself. What
    it is compared with: ``diversity=0`` and ``divergence=0`` (the ordering alone), and ``sampler.priority=none``
    (histories without an order).

    share: of groups that begin behind earlier attempts, in [0, 1].  diversity: strength of the bonus.
    group_size: attempts of a group.

    Only summaries of the paper were available: ``share``, the size of the buffer, how it is drawn from, the strength
    and the embedding of the bonus, the share of divergence and the wording of the prompts are reconstructions.
    """
    return Recipe(
        name="exit_exploratory_iteration",
        base="grpo",
        sampler=Improving(group_size=group_size, share=share),
        advantage=DiversityBonus(GroupStandardized(), diversity),
        objective=PolicyGradient(aggregation=SequenceMean()),
    )
