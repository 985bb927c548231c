"""What a model can do in a task before it is trained there, and what a result on that task can then show."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import Literal

import numpy as np

from stratagem.catalogue import paper
from stratagem.errors import InputError
from stratagem.estimate import Estimate

Zone = Literal["red", "green", "gray", "aligned"]

_READINGS: dict[Zone, str] = {
    "red": "The model solves this task and completes its prompts from memory: random, wrong or negative-only rewards "
    "may raise accuracy here, and so may recall. A gain says little of a method without a run on a random reward "
    "beside it and a task that was not seen in pretraining.",
    "green": "The model solves this task already, and not from memory: random, wrong or negative-only rewards may "
    "raise accuracy here. A gain says little of a method without a run on a random reward beside it and a task the "
    "model is weak at.",
    "aligned": "The model solves this task already: random, wrong or negative-only rewards may raise accuracy here. A "
    "gain says little of a method without a run on a random reward beside it and a task the model is weak at.",
    "gray": "The model is weak at this task: weak rewards, a single example and negative samples alone are not "
    "expected to teach it. Groups that are all wrong teach nothing, whatever the reward makes of right and wrong.",
}


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """Probability that ``k`` of the samples, drawn without replacement, hold a correct one.

    ``1 - C(samples - correct, k) / C(samples, k)``, the unbiased estimate of pass@k (arXiv 2107.03374): 1 when fewer
    than ``k`` are wrong. It is a product of ``min(k, correct)`` factors, exact to rounding for any number of samples.

    Raises :class:`InputError` for ``k`` beyond the samples and for counts that cannot be.
    """
    if not 1 <= k <= samples:
        raise InputError(f"pass@k with k = {k}: must be from 1 to the number of samples, {samples}")
    if not 0 <= correct <= samples:
        raise InputError(f"pass@{k}: {correct} of {samples} samples correct: must be from 0 to {samples}")
    if samples - correct < k:
        return 1.0
    # C(n - c, k) / C(n, k) is the same with c and k exchanged, so the shorter of the two products will do.
    few, many = sorted((k, correct))
    return float(-np.expm1(np.log1p(-many / (samples - np.arange(few))).sum())) + 0.0


@paper(
    "2508.21188",
    title="Model-Task Alignment Drives Distinct RL Outcomes",
    family="objectives",
    roles=("metric", "reward", "advantage", "sampler"),
    year=2025,
    name="model_task_alignment",
    tags=("initialisation.stage.pretraining", "reward", "learning"),
)
@dataclass(frozen=True)
class Alignment:
    """Model-task alignment: pass@k before training, ``mean over prompts of 1 - C(n - c, k) / C(n, k)``.

    The paper's finding is that surprising results (a random reward helps, one example is enough, negative samples are
    enough) hold only where pass@k is high before training, and that correct rewards teach everywhere. ``stratagem align
    --task T --model M`` measures it; :func:`~stratagem.recipes.objectives.alignment.alignment_protocol` makes the
    recipes to compare: signals, signs and a single example.

    samples, correct: ``n`` and ``c`` of every prompt.
    prompts: their numbers as start states; by default 0, 1, ...
    contamination: share of prompts the model completes word for word from their beginning, in [0, 1]; None when it was
    not measured.
    failed: episodes that failed. They are played again; a prompt that still lacks some is left out.
    zone_k, aligned_from, contaminated_from: the task is aligned when pass@``zone_k`` is at least ``aligned_from`` (with
    fewer samples, pass@k of as many as there are), and contaminated when ``contamination`` is at least
    ``contaminated_from``. The paper names the zones but we have not seen it give thresholds: these are ours.

    Raises :class:`InputError` for counts that cannot be, no prompt at all, and a share outside [0, 1].
    """

    samples: tuple[int, ...]
    correct: tuple[int, ...]
    prompts: tuple[int, ...] = ()
    contamination: float | None = None
    failed: int = 0
    zone_k: int = 8
    aligned_from: float = 0.5
    contaminated_from: float = 0.2

    def __post_init__(self) -> None:
        if not self.prompts:
            object.__setattr__(self, "prompts", tuple(range(len(self.samples))))
        if not len(self.samples) == len(self.correct) == len(self.prompts) > 0:
            raise InputError(
                f"alignment: {len(self.samples)} numbers of samples, {len(self.correct)} of correct ones and "
                f"{len(self.prompts)} prompts: must be as many of each, at least one"
            )
        for samples, correct in zip(self.samples, self.correct, strict=True):
            if samples < 1 or not 0 <= correct <= samples:
                raise InputError(
                    f"alignment: {correct} of {samples} samples correct: must be from 0 to all, at least 1"
                )
        for name in ("contamination", "aligned_from", "contaminated_from"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise InputError(f"alignment: {name} = {value}: must be in [0, 1]")
        if self.zone_k < 1 or self.failed < 0:
            raise InputError(f"alignment: zone_k = {self.zone_k}, failed = {self.failed}: must be at least 1 and 0")

    # ---- pass@k ----------------------------------------------------------------------------------------------------

    def pass_at(self, k: int) -> float:
        """Mean of :func:`pass_at_k` over prompts. Raises :class:`InputError` when a prompt has fewer samples."""
        return fmean(self._by_prompt(k))

    def estimate(self, k: int) -> Estimate:
        """The same with its 95 % Student interval over prompts, within [0, 1]; all of [0, 1] for a single prompt."""
        from stratagem.training.statistics import mean_interval  # brings in scipy, for which no listing should wait

        values = self._by_prompt(k)
        low, high = mean_interval(values) if len(values) > 1 else (0.0, 1.0)
        return Estimate(fmean(values), max(low, 0.0), min(high, 1.0))

    def _by_prompt(self, k: int) -> list[float]:
        return [pass_at_k(samples, correct, k) for samples, correct in zip(self.samples, self.correct, strict=True)]

    # ---- prompts ---------------------------------------------------------------------------------------------------

    @property
    def none_correct(self) -> float:
        """Share of prompts of which every sample is wrong."""
        return fmean(correct == 0 for correct in self.correct)

    @property
    def all_correct(self) -> float:
        """Share of prompts of which every sample is right."""
        return fmean(correct == samples for samples, correct in zip(self.samples, self.correct, strict=True))

    @property
    def mixed(self) -> float:
        """Share of prompts with right and wrong samples: those a group-relative method can learn from."""
        return fmean(0 < correct < samples for samples, correct in zip(self.samples, self.correct, strict=True))

    @property
    def reward_variances(self) -> tuple[float, ...]:
        """``c / n (1 - c / n)`` of every prompt: the variance of its reward of 0 or 1."""
        rates = [correct / samples for samples, correct in zip(self.samples, self.correct, strict=True)]
        return tuple(rate * (1 - rate) for rate in rates)

    def most_varied(self, count: int = 1) -> tuple[int, ...]:
        """The prompts with the most varied reward, most varied first, earlier ones first among equals.

        What to train on when it is to be a single example (``Rollouts.start_states``). The paper chooses its example by
        reward variance; we have not seen over what it takes it, and this one is over the samples counted here.
        """
        variances = self.reward_variances
        order = sorted(range(len(variances)), key=lambda place: -variances[place])
        return tuple(self.prompts[place] for place in order[:count])

    def solved(self, at_least: int = 1, at_most: int | None = None) -> tuple[int, ...]:
        """The prompts with so many right samples, in their order: those to train on (``Rollouts.start_states``).

        arXiv 2505.16282 trains on tasks that the model solves at least once before; where all fail, a group can teach
        nothing. ``at_most`` leaves out what is solved too often to teach anything, such as ``samples - 1``; None: no
        such bound.

        Raises :class:`InputError` for bounds that no count lies between.
        """
        if at_least < 0 or (at_most is not None and at_most < at_least):
            raise InputError(
                f"prompts with {at_least} to {at_most} right samples: must be at least 0, and the second no less than "
                "the first"
            )
        return tuple(
            prompt
            for prompt, correct in zip(self.prompts, self.correct, strict=True)
            if at_least <= correct and (at_most is None or correct <= at_most)
        )

    # ---- what it comes to ------------------------------------------------------------------------------------------

    @property
    def zone_pass_k(self) -> int:
        """The ``k`` that decides the zone: ``zone_k``, or as many samples as every prompt has."""
        return min(self.zone_k, *self.samples)

    @property
    def zone(self) -> Zone:
        """``red``: aligned and contaminated.  ``green``: aligned and clean.  ``gray``: not aligned.

        ``aligned``: red or green, for contamination was not measured.
        """
        if self.pass_at(self.zone_pass_k) < self.aligned_from:
            return "gray"
        if self.contamination is None:
            return "aligned"
        return "red" if self.contamination >= self.contaminated_from else "green"

    @property
    def reading(self) -> str:
        """What a result on this task can show, in plain words."""
        return _READINGS[self.zone]
