"""Groups that begin part of the way along a reference solution, beside groups that begin where evaluation does."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le
from jaxtyping import Bool
from torch import Tensor

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.sampling.samplers import Rollouts


@dataclass(frozen=True)
class Guided(Rollouts):
    """Rollouts of which some groups are led the first part of a reference solution (arXiv 2601.18779).

    What a group is led by is part of its prompt: it trains nothing, and no ratio is of it. A guided and an unguided
    copy of a problem are groups of their own, so none is the other's baseline, and come in the same batch. Evaluation
    knows no guidance. ``success/guided`` and ``success/unguided`` are logged.

    In text the problems, and how far each is led, are those of a task ``guided:TASK``
    (:class:`~stratagem.tasks.guided.GuidedTask`); ``start_states`` are then numbers of its problems.

    unguided_every: of so many guided problems the first one has an unguided copy; 1: each, the published mixture.
    0: none has.
    choices: in the lab, how many of the best tokens every start state is led by, in their order; the last number
    is that of all that follow. Of several best tokens it is the first. 0: not at all.

    Raises :class:`InputError` for a number of prompts that would part a problem from its copy.
    """

    unguided_every: Annotated[int, Ge(0)] = 1
    choices: tuple[Annotated[int, Ge(0)], ...] = (1,)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.choices:
            raise InputError(f"{self.part_name()}.choices = (): must hold a number")
        if self.curriculum is not None:
            name = self.curriculum.part_name()
            raise InputError(
                f"{self.part_name()}.curriculum = {name}: must be None, a problem's copies come side by side"
            )
        if self.prompts_per_step % self._block:
            raise InputError(
                f"{self.part_name()}.prompts_per_step = {self.prompts_per_step}: must be a multiple of {self._block}, "
                f"for with unguided_every = {self.unguided_every} so many groups belong together"
            )

    @property
    def _block(self) -> int:
        """Guided groups and the unguided one that stands beside them."""
        return self.unguided_every + 1

    def copy(self, group: int) -> tuple[int, bool]:
        """The problem of a group, counted over the whole run, and whether it is led there."""
        if not self.unguided_every:
            return group, True
        block, place = divmod(group, self._block)
        first = block * self.unguided_every
        return (first, False) if place == self.unguided_every else (first + place, True)

    def start_state(self, group: int) -> int:
        """That of a guided task: twice the problem's number, and one more for the unguided copy."""
        problem, guided = self.copy(group)
        return 2 * super().start_state(problem) + (not guided)

    @property
    def asks(self) -> dict[str, str]:
        return super().asks | {"guidance": "{who} cannot begin with part of a solution"}


def guided_metrics(success: Bool[Tensor, " trajectories"], guided: Bool[Tensor, " trajectories"]) -> dict[str, float]:
    """Share of successes with and without guidance, as far as there are such trajectories."""
    kinds = {"success/guided": success[guided], "success/unguided": success[~guided]}
    return {name: float(solved.float().mean()) for name, solved in kinds.items() if len(solved)}


def led(x: Experience, tokens: Tensor) -> Experience:
    """A batch whose trajectories begin with so many tokens of a solution, which train nothing.

    tokens: Int [trajectories]; of a trajectory that has fewer, all of them.
    """
    taken = tokens.minimum(x.trajectory_of_token.size())
    own = x.trajectory_of_token.position() >= x.to_tokens(trajectory=taken)
    return x.replace(taken_over=taken, mask=own if x.mask is None else x.mask & own)


# ---- how far ---------------------------------------------------------------------------------------------------------

Search = Literal["scan", "bisection"]


@dataclass(frozen=True)
class Prefix:
    """How far a problem is led.

    length: steps of its solution; 0: it is solved without.  solved: whether it is solved from there.
    """

    length: int
    solved: bool


def prefix_lengths(
    steps: int, share: Annotated[float, Gt(0), Le(1)] = 0.25, increment: Annotated[float, Gt(0), Le(1)] = 0.05
) -> list[int]:
    """Lengths to try for a solution of so many steps, shortest first: multiples of ``increment`` up to ``share``.

    Rounded up to whole steps, so that every solution of two steps or more has one, and never the whole of it.

    Raises :class:`InputError` for shares out of range.
    """
    if not (0 < increment <= 1 and 0 < share <= 1):
        raise InputError(f"prefix lengths: share = {share}, increment = {increment}: must be in (0, 1]")
    count = int(share / increment + 1e-9)
    shares = [*(increment * n for n in range(1, count + 1)), share]
    # A share of a number of steps may be a whole number and miss it by a rounding.
    lengths = {min(-int(-steps * part * (1 - 1e-12) // 1), steps - 1) for part in shares}
    return sorted(length for length in lengths if length > 0)


def minimal_prefixes(
    solves: Callable[[Sequence[tuple[int, int]]], Sequence[bool]],
    lengths: Mapping[int, Sequence[int]],
    search: Search = "scan",
) -> dict[int, Prefix]:
    """For every problem the shortest of its ``lengths`` (in order) from which it is solved.

    0 where no guidance is needed, and the last where none helps.

    solves: of problems, each with a length, whether they are solved from there; asked for all problems side by side.
    search: ``scan`` tries one length after the other; ``bisection`` tries fewer, and finds the same where a longer
    prefix never helps less.
    """
    searches = {problem: _search(tried, search) for problem, tried in lengths.items()}
    asked = {problem: next(one) for problem, one in searches.items()}
    found: dict[int, Prefix] = {}
    while asked:
        answers = solves(list(asked.items()))
        following = {}
        for problem, solved in zip(asked, answers, strict=True):
            try:
                following[problem] = searches[problem].send(solved)
            except StopIteration as end:
                found[problem] = end.value
        asked = following
    return {problem: found[problem] for problem in lengths}


def _search(lengths: Sequence[int], search: Search) -> Generator[int, bool, Prefix]:
    """Lengths to try, given whether the one before solved the problem."""
    if (yield 0):
        return Prefix(0, True)
    if not lengths:
        return Prefix(0, False)
    if search == "scan":
        for length in lengths:
            if (yield length):
                return Prefix(length, True)
        return Prefix(lengths[-1], False)
    if not (yield lengths[-1]):
        return Prefix(lengths[-1], False)
    low, high = 0, len(lengths) - 1
    while low < high:
        middle = (low + high) // 2
        if (yield lengths[middle]):
            high = middle
        else:
            low = middle + 1
    return Prefix(lengths[high], True)
