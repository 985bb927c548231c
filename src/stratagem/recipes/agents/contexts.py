"""Agents whose context is theirs to change: what they drop or summarise is an action like any other."""

from __future__ import annotations

from stratagem.advantages import GroupStandardized
from stratagem.catalogue import paper
from stratagem.objectives import KL, Clip, PolicyGradient, SequenceMean
from stratagem.recipe import Recipe
from stratagem.sampling import DrawnContexts, Rollouts

__all__ = ["memact"]


@paper(
    "2510.12635",
    title="Memory as Action: Autonomous Context Curation for Long-Horizon Agentic Tasks",
    family="agents",
    roles=("selection", "advantage"),
    year=2025,
    base="grpo",
)
def memact(
    segments: int | None = 12,
    clip: float = 0.2,
    kl_coefficient: float = 0.001,
    group_size: int = 8,
) -> Recipe:
    """Dynamic context policy optimization: after an edit of its memory a policy acts in a new context, tokens train in
    the one they were sampled in, and all contexts of a trajectory share ``A_r = (R_r - mean R) / (std R + 1e-6)``.

    Mean and deviation are over the trajectories of a group, however many contexts each has. Of the contexts of a group
    ``segments`` are drawn (:class:`~stratagem.sampling.DrawnContexts`; None: all of them train). Without an edit this
    is GRPO with the same KL term. Contexts are the task's (``Observation.context``); ``memory`` is such a task.

    Numbers are those of the released code. A group with fewer contexts than ``segments`` trains each once, where the
    code repeats some. In the last context the code also trains tokens of earlier ones that are left in it; here they
    are read there, and train once, where they were sampled. How the code adds up tokens was not looked up: the mean
    over trajectories of token means is GRPO's. ``kl_coefficient = 0`` needs no reference model.

    The code samples at ``sampler.temperature = 0.7`` and ``sampler.top_p = 0.95``, starts from demonstrations, and
    hides the tool from a policy in half of its rollouts; none of that is part of the recipe. A group of one, for which
    the code takes ``A = R``, is refused with :class:`InputError`.
    """
    return Recipe(
        name="memact",
        base="grpo",
        sampler=Rollouts(group_size=group_size),
        selections=() if segments is None else (DrawnContexts(segments),),
        advantage=GroupStandardized(),
        objective=PolicyGradient(
            gate=Clip(clip, clip),
            aggregation=SequenceMean(),
            regularizer=kl_coefficient * KL("k3") if kl_coefficient else None,
        ),
    )
