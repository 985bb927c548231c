"""Groups in which everything failed, sampled once more under a perturbed prompt, and what comes of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Le
from jaxtyping import Bool, Int
from torch import Tensor

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.sampling.nonsense import Family, nonsense
from stratagem.sampling.samplers import Rollouts
from stratagem.seeding import derive, numpy_generator


@dataclass(frozen=True)
class Resampled(Rollouts):
    """Rollouts; of a group that failed as a whole, more under a prompt that begins with nonsense (arXiv 2605.05566).

    Successes among them take the places of failures, as many as leave one failure in the group, and are learned from as
    answers to the prompt as it is: ``behavior_logp`` is of the prompt they were sampled under, what the learner says of
    the clean one. ``resampled`` marks them.

    The whole group stays in the batch, ``group_size + resamples`` trajectories, so that an advantage compares with all
    rewards; what lost its place, or found none, has ``mask`` False. So the credit of what is learned from does not add
    up to 0. A group of which the new trajectories fail, too, stays as it was. Metrics count groups that failed and that
    were rescued, and trajectories resampled and swapped; ``success`` is that of the clean prompt.

    resamples: trajectories under perturbed prompts, of each failed group.
    words: what the nonsense is made of (:func:`~stratagem.sampling.nonsense.nonsense`); None: there is none, which is
    to sample again.
    fewest, most: its length in words, uniform between them.
    each: whether every ``rollout`` has nonsense of its own, or all of a ``group`` have the same. The source says
    neither of the two.
    boundary: what stands between it and the question; the published one asks for an answer in a box.
    longest: tokens that a perturbed prompt may have; words are left out until it fits. None: any number.
    mixture: in the lab, which reads no prompts, a perturbed policy takes a uniformly random token so often.

    Raises :class:`InputError` for ``fewest`` above ``most``, and for demonstrations.
    """

    resamples: Annotated[int, Ge(1)] = 24
    words: Family | None = "lorem"
    fewest: Annotated[int, Ge(0)] = 100
    most: Annotated[int, Ge(0)] = 300
    each: Literal["rollout", "group"] = "rollout"
    boundary: str = "Please reason step by step, and put your final answer within \\boxed{}."
    longest: Annotated[int, Ge(1)] | None = None
    mixture: Annotated[float, Ge(0), Le(1)] = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fewest > self.most:
            raise InputError(f"{self.part_name()}.fewest = {self.fewest}: must be at most most = {self.most}")
        if self.demonstrations:
            raise InputError(
                f"{self.part_name()}.demonstrations = {self.demonstrations}: must be 0, a group that is resampled has "
                "no demonstrations"
            )

    @property
    def asks(self) -> dict[str, str]:
        return super().asks | {"perturbation": "{who} reads no prompt that could be perturbed"}

    def nonsense(self, seed: int) -> str:
        """What a prompt is perturbed with: nothing where ``words`` is None. Its seed is nobody else's."""
        if self.words is None:
            return ""
        count = int(numpy_generator(seed, "length").integers(self.fewest, self.most + 1))
        return nonsense(self.words, count, derive(seed, "words"))

    def before(self, words: str) -> str:
        """All that stands before a question: nonsense and boundary, each followed by an empty line."""
        return "".join(f"{text}\n\n" for text in (words, self.boundary if words else "") if text)


@dataclass(frozen=True, eq=False)
class Regrouped:
    """A batch some of whose groups were sampled once more.

    failed: groups without a success.  rescued: those that have one now.  drawn: trajectories sampled once more.
    tokens: in them.  succeeded: of them.  swapped: those that took the place of another.
    """

    x: Experience
    failed: int = 0
    rescued: int = 0
    drawn: int = 0
    tokens: int = 0
    succeeded: int = 0
    swapped: int = 0

    @property
    def metrics(self) -> dict[str, float]:
        """Groups failed and rescued, trajectories resampled and swapped, and how many of the resampled succeeded."""
        return {
            "groups/failed": float(self.failed),
            "groups/rescued": float(self.rescued),
            "resampled/trajectories": float(self.drawn),
            "resampled/swapped": float(self.swapped),
            "resampled/success": self.succeeded / max(self.drawn, 1),
        }


def failed_groups(x: Experience) -> Bool[Tensor, " groups"]:
    """Groups without a success."""
    assert x.success is not None
    return x.group_of_trajectory.sum(x.success.long()) == 0


def regrouped(x: Experience, fresh: Experience, group: Int[Tensor, " fresh_groups"]) -> Regrouped:
    """``x`` with what was sampled once more for the failed groups of these numbers, one group of ``fresh`` for each.

    Of the groups with a success, ``min(successes, size - 1)`` of the first ones take the places of as many failures.
    """
    assert fresh.success is not None
    failed = int(failed_groups(x).sum())
    of, tokens = fresh.group_of_trajectory, fresh.tokens
    successes = of.sum(fresh.success.long())
    found = successes > 0
    count = Regrouped(x, failed, int(found.sum()), fresh.trajectories, tokens, int(successes.sum()))
    if not count.rescued:
        return count
    moved = torch.zeros(x.groups, dtype=torch.int64)
    moved[group] = successes.minimum(x.group_of_trajectory.size()[group] - 1)
    displaced = x.group_of_trajectory.position() < x.group_of_trajectory.spread(moved)
    kept = fresh.success & (of.rank(-fresh.success.long()) < of.spread(moved[group]))
    marked = [_marked(x, ~displaced, False), _marked(fresh, kept, True).select(of.spread(found))]
    together = marked[0].with_others(marked[1], of.spread(group)[of.spread(found)])
    return Regrouped(
        together, count.failed, count.rescued, count.drawn, tokens, count.succeeded, swapped=int(kept.sum())
    )


def _marked(x: Experience, kept: Bool[Tensor, " trajectories"], resampled: bool) -> Experience:
    return x.replace(
        mask=x.learnable() & x.to_tokens(trajectory=kept),
        resampled=torch.full((x.trajectories,), resampled),
    )
