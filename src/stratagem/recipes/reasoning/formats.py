"""Questions that are made easier first: the same answer, chosen, filled in, and at last found."""

from __future__ import annotations

from typing import Literal

from stratagem.catalogue import paper
from stratagem.objectives import KL, Clip, PolicyGradient, SequenceMean
from stratagem.parts import Curriculum
from stratagem.recipe import Recipe
from stratagem.recipes.baselines import grpo
from stratagem.sampling import Promoting, Rollouts

__all__ = ["cog_drift"]


@paper(
    "2604.04767",
    title="Cog-DRIFT: Exploration on Adaptively Reformulated Instances Enables Learning from Hard Reasoning Problems",
    family="reasoning",
    roles=("environment", "curriculum"),
    year=2026,
    base="grpo",
)
def cog_drift(
    threshold: float = 0.5,
    window: int = 1,
    by: Literal["return", "success"] = "return",
    questions: int = 256,
    promote: bool = True,
) -> Recipe:
    """GRPO on questions asked in easier formats first, each promoted when its mean return exceeds ``threshold``.

    The formats are those of the task ``formats:TASK``: choose of four, choose of ten, fill in, open
    (:class:`~stratagem.tasks.formats.FormatsTask`); the curriculum is :class:`~stratagem.sampling.Promoting`. The
    objective is GRPO's with clipping at 0.2 and 0.28 and a k3 KL of 0.01, groups of 8, 8 questions a batch.

    threshold, window, by: of a promotion. The return counts 0.2 for the answer's form, so 0.5 asks for an accuracy
    above 0.3 where the form is always right. One lucky group promotes for good: a policy that guesses among four with
    perfect form is promoted in a third of its visits (0.32). ``window=3`` or ``by="success"`` ask for more.
    questions: the first so many of the task are trained on.  promote: False is the static mixture of all formats.

    Formats, promotion rule and constants are those of the released code as reported; the paper has the variants
    written by a language model, the task makes them by rule.
    """
    curriculum: Curriculum | None = None
    if promote:
        curriculum = Promoting(prompts=4 * questions, threshold=threshold, window=window, by=by)
    numbers = () if promote else tuple(range(4 * questions))
    return grpo().replace(
        name="cog_drift",
        base="grpo",
        sampler=Rollouts(prompts_per_step=8, group_size=8, start_states=numbers, curriculum=curriculum),
        objective=PolicyGradient(gate=Clip(0.2, 0.28), aggregation=SequenceMean(), regularizer=0.01 * KL("k3")),
    )
