"""Groups that begin behind earlier attempts at a problem, kept where what came of them differed most."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import islice
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Le
from jaxtyping import Float64, Int
from torch import Tensor

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.partition import Partition
from stratagem.prompts import Prober, Reader
from stratagem.sampling.samplers import Planned, Rollouts


@dataclass(frozen=True)
class History:
    """Attempts at a problem, behind which a group may begin.

    number: from 0, never used again.  problem: number of its start state.
    attempts: the tokens of each, the newest last; of many only the last ones.  depth: how many there were.
    variance: of the returns of the last group that began here, or of the group it came from before there is one.
    idle: groups in a row whose returns were all the same.  step: when the variance was measured.
    """

    number: int
    problem: int
    attempts: tuple[tuple[int, ...], ...]
    depth: int
    variance: float
    idle: int = 0
    step: int = 0


@dataclass(frozen=True)
class Improving(Rollouts):
    """Rollouts of single attempts, of which some begin behind earlier ones that are to be improved (arXiv 2509.04575).

    With probability ``share`` a group begins at a history from the buffer, elsewhere at a problem as it is. What was
    attempted before is prompt: it trains nothing. Of every group one rollout, drawn at random, is added to the attempts
    it began behind, and this longer history enters the buffer with the group's variance ``S = mean (R - mean R)^2``. So
    histories grow as long as they teach something, by one attempt at a time, though no episode is longer than one.

    The buffer holds ``capacity`` histories, those of largest ``S``, of equals the newest. A group with ``S = 0`` adds
    none. A group that begins at a history measures its ``S`` anew; after two in a row with ``S = 0`` it is dropped.
    Returns that are not finite do not count, and their rollouts are never gone on with. Histories that are equal are
    one. The buffer is part memory: checkpointed, and kept over :meth:`replace`.

    In the batch a group that began at history ``n`` has ``task_id = -(n + 1)``, one at a problem that problem's number.
    In text the task is one with attempts, ``improve:TASK`` (:class:`~stratagem.tasks.improve.ImproveTask`). Games of
    the lab have none, and are rolled out as ever.

    share: in [0, 1]; 0 is :class:`Rollouts`.
    priority: a history is drawn in proportion to ``S + floor`` (``variance``) or ``1 / rank`` of ``S`` (``rank``), with
    replacement. ``none``: each as likely; ``S`` then says nothing, groups with ``S = 0`` add histories, too, and the
    newest stay: the control that knows no ranking.
    capacity: histories held, at least 1.  floor: above 0.
    per_problem: largest share of the capacity that histories of one problem take, in (0, 1], but one at least.
    remembered: attempts of a history that are kept, its last ones; at least as many as the task shows.
    max_age: batches after which a history is dropped whose variance was not measured again; None: never.

    Only summaries of the paper were available. They say that the task space is histories of attempts with feedback,
    ordered by the variance of a group's returns, that training is of single steps and that histories are extended.
    Every number here and the rules about ties, drops and shares are reconstructions.

    Raises :class:`InputError` together with a curriculum or demonstrations.
    """

    share: Annotated[float, Ge(0), Le(1)] = 0.5
    priority: Literal["variance", "rank", "none"] = "variance"
    capacity: Annotated[int, Ge(1)] = 512
    floor: Annotated[float, Gt(0)] = 1e-3
    per_problem: Annotated[float, Gt(0), Le(1)] = 0.25
    remembered: Annotated[int, Ge(1)] = 3
    max_age: Annotated[int, Ge(1)] | None = None
    _held: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        name = self.part_name()
        if self.curriculum is not None:
            raise InputError(f"{name}.curriculum = {self.curriculum.part_name()}: must be None, the buffer is one")
        if self.demonstrations:
            raise InputError(
                f"{name}.demonstrations = {self.demonstrations}: must be 0, a solver improves nobody's attempt"
            )
        self._held.update(_packed([], 0))

    def memory(self) -> dict[str, Tensor]:
        return self._held

    @property
    def histories(self) -> list[History]:
        """What the buffer holds, by number."""
        return _unpacked(self._held)

    def begun(self) -> dict[int, History]:
        """The histories, by the start that a group is planned with which begins there."""
        return {-one.number - 1: one for one in self.histories}

    def planned(
        self,
        numbers: range,
        source: Callable[[], torch.Generator],
        step: int = 0,
        known: int | None = None,
        read: Reader | None = None,
        probe: Prober | None = None,
    ) -> list[Planned]:
        groups = super().planned(numbers, source, step, known, read, probe)
        held = [one for one in self.histories if not self._stale(one, step)] if self.share else []
        if not held or not groups:
            return groups
        chance = source()
        led = torch.rand(len(groups), dtype=torch.float64, generator=chance) < self.share
        drawn = torch.multinomial(self.odds(held), len(groups), replacement=True, generator=chance)
        return [
            Planned(-held[place].number - 1, group.size) if begins else group
            for group, begins, place in zip(groups, led.tolist(), drawn.tolist(), strict=True)
        ]

    def odds(self, held: Sequence[History]) -> Float64[Tensor, " histories"]:
        """Probability of each history to be drawn."""
        score = torch.tensor([one.variance for one in held], dtype=torch.float64)
        if self.priority == "none":
            weight = torch.ones_like(score)
        elif self.priority == "rank":
            # The newer of equals comes first, as it does in the buffer.
            order = sorted(range(len(held)), key=lambda place: _worth(held[place]), reverse=True)
            weight = torch.empty_like(score)
            weight[order] = 1 / torch.arange(1, len(held) + 1, dtype=torch.float64)
        else:
            weight = score + self.floor
        return weight / weight.sum()

    def note(self, x: Experience, step: int) -> Experience:
        """Measure histories anew that groups began at, and add what they grew to; one for which ``share`` is 0 does
        not remember."""
        if not self.share:
            return x
        assert x.task_id is not None, "who rolls out says from which start states"
        held = {one.number: one for one in self.histories}
        parents, fresh = dict(held), int(self._held["next"][0])
        same = {(one.problem, one.attempts): number for number, one in held.items()}
        for start, grown in zip(x.task_id.tolist(), _grown(x), strict=True):
            parent = parents.get(-start - 1) if start < 0 else History(-1, start, (), 0, 0.0)
            if parent is None or grown is None:
                continue
            variance, said = grown
            if parent.number in held:
                idle = 0 if variance else held[parent.number].idle + 1
                held[parent.number] = replace(held[parent.number], variance=variance, idle=idle, step=step)
            if variance or self.priority == "none":
                attempts = (*parent.attempts, said)[-self.remembered :]
                key = parent.problem, attempts
                number = same.setdefault(key, fresh)
                fresh += number == fresh
                held[number] = History(number, parent.problem, attempts, parent.depth + 1, variance, step=step)
        self._held.update(_packed(self._kept(list(held.values()), step), fresh))
        return x

    def figures(self, start: Int[Tensor, " groups"], step: int = 0) -> dict[str, float]:
        """``improving/share``: of groups that began behind attempts; ``buffer``: histories held; ``depth``: their mean
        and ``max_depth`` their largest number of attempts; ``variance``: their mean ``S``."""
        held = self.histories
        named = {"share": float((start < 0).double().mean()) if len(start) else 0.0, "buffer": float(len(held))}
        if held:
            depth = torch.tensor([one.depth for one in held], dtype=torch.float64)
            named |= {
                "depth": float(depth.mean()),
                "max_depth": float(depth.max()),
                "variance": sum(one.variance for one in held) / len(held),
            }
        return {f"improving/{name}": value for name, value in named.items()}

    def from_problems(self) -> Rollouts:
        """The same rollouts without histories, for games that know no attempts."""
        return Rollouts(**{one.name: getattr(self, one.name) for one in fields(Rollouts) if one.init})

    @property
    def asks(self) -> dict[str, str]:
        return super().asks | {"attempts": "{who} cannot begin behind earlier attempts"}

    def _stale(self, history: History, step: int) -> bool:
        return self.max_age is not None and step - history.step > self.max_age

    def _kept(self, held: list[History], step: int) -> list[History]:
        """Those that stay, by number."""
        ranked = self.priority != "none"
        live = [one for one in held if not self._stale(one, step) and not (ranked and one.idle > 1)]
        live.sort(key=_worth if ranked else _age, reverse=True)
        most, taken, kept = max(1, int(self.per_problem * self.capacity)), dict[int, int](), list[History]()
        for one in live:
            if len(kept) < self.capacity and taken.get(one.problem, 0) < most:
                kept.append(one)
                taken[one.problem] = taken.get(one.problem, 0) + 1
        return sorted(kept, key=lambda one: one.number)


def _age(history: History) -> tuple[int, int]:
    return history.step, history.number


def _worth(history: History) -> tuple[float, int, int]:
    return history.variance, *_age(history)


def _grown(x: Experience) -> list[tuple[float, tuple[int, ...]] | None]:
    """Of every group the variance of its returns, and the tokens of one of its rollouts; None where none counts."""
    assert x.action is not None and x.seed is not None, "rollouts say what they did, and by which seed"
    returns, group = x.returns.double().cpu(), x.group_of_trajectory.labels.cpu()
    counted = returns.isfinite()
    seeds, lengths = x.seed.cpu(), x.trajectory_of_token.size().cpu()
    ends = lengths.cumsum(0)
    actions = x.action.cpu()
    by = Partition(group[counted], x.groups)
    earned = returns[counted]
    # By comparison: the variance of equal numbers may be a rounding away from 0.
    variance = by.var(earned, correction=0).where(by.max(earned) > by.min(earned), 0.0).tolist()
    # Seeds are hashes, so the smallest is anybody's, and a resumed run finds the same.
    chosen = torch.nonzero(counted).squeeze(1)[by.rank(seeds[counted]) == 0]
    found: list[tuple[float, tuple[int, ...]] | None] = [None] * x.groups
    for one, number in zip(chosen.tolist(), group[chosen].tolist(), strict=True):
        end = int(ends[one])
        found[number] = variance[number], tuple(actions[end - int(lengths[one]) : end].tolist())
    return found


_WHOLE = ("number", "problem", "depth", "idle", "step")


def _packed(histories: Sequence[History], fresh: int) -> dict[str, Tensor]:
    """Flat tensors: a row for every history, attempt and token, and the next number."""
    attempts = [attempt for one in histories for attempt in one.attempts]
    rows = {name: [getattr(one, name) for one in histories] for name in _WHOLE}
    rows["attempts"] = [len(one.attempts) for one in histories]
    rows["tokens"] = [len(attempt) for attempt in attempts]
    rows["token"] = [token for attempt in attempts for token in attempt]
    rows["next"] = [fresh]
    packed = {name: torch.tensor(column, dtype=torch.int64) for name, column in rows.items()}
    return packed | {"variance": torch.tensor([one.variance for one in histories], dtype=torch.float64)}


def _unpacked(packed: dict[str, Tensor]) -> list[History]:
    said = iter(packed["token"].tolist())
    lengths = iter(packed["tokens"].tolist())
    columns = [packed[name].tolist() for name in (*_WHOLE, "attempts", "variance")]
    histories = []
    for number, problem, depth, idle, step, attempts, variance in zip(*columns, strict=True):
        tokens = tuple(tuple(islice(said, next(lengths))) for _ in range(attempts))
        histories.append(History(number, problem, tokens, depth, variance, idle, step))
    return histories
