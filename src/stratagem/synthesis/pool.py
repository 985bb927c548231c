"""The environments that are trained on: which there are, at which level, and which go."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from stratagem.errors import InputError
from stratagem.synthesis.gates import Likeness, Measure, Rate, Verdict
from stratagem.synthesis.programs import Program, ProgramError, seed_programs
from stratagem.training.run_directory import RunDirectory


@dataclass(frozen=True)
class Member:
    """An environment of a pool.

    program: its text.  level, highest: at which it is trained on, and the highest it can be.  right, tried: answers of
    the solver there, when it was last measured.  step: when it came in.  seed: it was written by hand, and stays.
    """

    program: Program
    level: int = 1
    highest: int = 5
    right: float = 0.0
    tried: int = 0
    step: int = 0
    seed: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.level <= self.highest:
            raise InputError(f"pool: level {self.level}: must be from 1 to the highest, {self.highest}")

    @property
    def rate(self) -> Rate:
        """Success of the solver, when it was last measured."""
        return Rate(self.right, self.tried)

    def measured(self, level: int, rate: Rate) -> Member:
        """The same at a level, where the solver has this success."""
        return replace(self, level=level, right=rate.right, tried=rate.tried)


class EnvironmentPool:
    """Environments to train on, in the order in which they came; at most ``capacity`` of them.

    members: to begin with.  capacity: at least 1 and at least as many as there are.
    Raises :class:`InputError` for a capacity that is too small, or a program that comes twice.
    """

    def __init__(self, members: Iterable[Member], capacity: int = 200) -> None:
        self.members: tuple[Member, ...] = tuple(members)
        self.capacity = capacity
        if capacity < max(len(self.members), 1):
            raise InputError(f"pool: capacity {capacity} is too small for {len(self.members)} environments")
        if len({one.program.key for one in self.members}) < len(self.members):
            raise InputError("pool: an environment comes twice")

    @classmethod
    def of_seeds(cls, level: int = 1, capacity: int = 200) -> EnvironmentPool:
        """The ten environments that ship with the package."""
        return cls([Member(program, level, seed=True) for program in seed_programs().values()], capacity)

    def __len__(self) -> int:
        return len(self.members)

    def likenesses(self) -> list[Likeness]:
        """What new ones are compared with; found by running the members, once each in a process."""
        return [Likeness.of_program(one.program) for one in self.members]

    def examples(self, count: int, source: Random) -> list[Program]:
        """So many different members, or all, in an order at random."""
        return [one.program for one in source.sample(self.members, min(count, len(self)))]

    # ---- coming and going -------------------------------------------------------------------------------------------

    def admit(self, verdicts: Sequence[Verdict], step: int) -> list[Member]:
        """Take in what passed all gates, and say what was taken in and is still there.

        In a full pool each takes the place of the member that teaches least: whose rate is farthest from a half, the
        oldest of equals. Those written by hand stay, so that a pool of nothing else takes none.
        """
        admitted = [one for one in verdicts if one.admitted]
        for verdict in admitted:
            if any(one.program.key == verdict.program.key for one in self.members):
                continue
            kept = list(self.members)
            if len(kept) >= self.capacity:
                movable = [one for one in kept if not one.seed]
                if not movable:
                    break
                kept.remove(max(movable, key=lambda one: abs(one.rate.mean - 0.5) if one.tried else 0.5))
            rate = verdict.rate or Rate(0.0, 0)
            new = Member(verdict.program, verdict.level or 1, max(verdict.levels), rate.right, rate.tried, step)
            self.members = (*kept, new)
        keys = {one.program.key for one in admitted}
        return [one for one in self.members if one.program.key in keys and one.step == step]

    def rotate(self, measure: Measure, low: float = 0.1, high: float = 0.9, hard: float = 0.02, easy: float = 0.95,
               ) -> list[Member]:  # fmt: skip
        """Measure every member again, move it to another level where it has become too easy or is too hard, and retire
        what is solved more than ``easy`` or less than ``hard`` of the time even so; says what went.

        low, high: beyond these another level is tried. One that fails is retired; those written by hand stay anyway. So
        does the one that is solved nearest to half of the time, when all would go: a pool is not emptied.
        """
        stay: list[Member] = []
        gone: list[Member] = []
        for one in self.members:
            try:
                changed = _adjusted(one, measure, low, high)
                retired = not hard <= changed.rate.mean <= easy
            except ProgramError:
                changed, retired = one, True
            (gone if retired and not one.seed else stay).append(changed)
        if not stay and gone:
            stay.append(min(gone, key=lambda one: abs(one.rate.mean - 0.5)))
            gone.remove(stay[0])
        self.members = tuple(stay)
        return gone

    # ---- state ------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """All of it, as plain data."""
        return {"capacity": self.capacity, "members": [_plain(one) for one in self.members]}

    def load_state_dict(self, plain: Mapping[str, Any]) -> None:
        """Become what :meth:`state_dict` told of."""
        other = EnvironmentPool([_member(one) for one in plain["members"]], plain["capacity"])
        self.members, self.capacity = other.members, other.capacity

    def save(self, path: str | Path) -> Path:
        """Write the members as JSON lines, to train on with ``environments:PATH``."""
        path = Path(path)
        RunDirectory(path.parent).write_text(path.name, "".join(json.dumps(_plain(one)) + "\n" for one in self.members))
        return path

    @classmethod
    def load(cls, path: str | Path, capacity: int = 200) -> EnvironmentPool:
        """Read what :meth:`save` wrote. Raises :class:`InputError` naming the line that is wrong."""
        try:
            lines = Path(path).read_text("utf-8").splitlines()
        except OSError as error:
            raise InputError(f"pool {path}: cannot be read ({type(error).__name__})") from None
        members = []
        for number, line in enumerate(lines, 1):
            try:
                members.append(_member(json.loads(line)))
            except (ValueError, TypeError, KeyError, AttributeError):
                raise InputError(f"pool {path}, line {number}: is no environment") from None
        if not members:
            raise InputError(f"pool {path}: holds no environment")
        return cls(members, max(capacity, len(members)))


def _adjusted(one: Member, measure: Measure, low: float, high: float) -> Member:
    """Measured at its level, and from there on at harder or easier ones as long as that helps."""
    one = one.measured(one.level, measure(one.program, one.level))
    step = 1 if one.rate.mean > high else -1 if one.rate.mean < low else 0
    while step and 1 <= one.level + step <= one.highest:
        one = one.measured(one.level + step, measure(one.program, one.level + step))
        if (one.rate.mean - (high if step > 0 else low)) * step <= 0:
            break
    return one


def _plain(one: Member) -> dict[str, Any]:
    return {**vars(one), "program": one.program.source}


def _member(plain: Mapping[str, Any]) -> Member:
    fields = {**plain, "program": Program(str(plain["program"]))}
    for name in ("level", "highest", "tried", "step"):
        fields[name] = int(fields[name])
    return Member(**{**fields, "right": float(fields["right"]), "seed": bool(fields["seed"])})
