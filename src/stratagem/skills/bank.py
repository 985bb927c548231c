"""The bank of skills: what each says, whether it is in use, and what audits found out about it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Self

from stratagem.errors import InputError, unknown
from stratagem.training.run_directory import RunDirectory

VERSION = 1
"""Of the file's format; another one is refused."""

TRACES, TRACE_LENGTH = 4, 4_000
"""Failed and successful traces kept of every task type, and characters kept of each."""

State = Literal["probation", "retained", "archived"]


@dataclass(frozen=True)
class Skill:
    """A piece of advice that can be put into a prompt.

    name: of its own.  text: what the policy reads.  types: of the tasks it is for; none: it is general.
    Raises :class:`InputError` for a name or text without a sign in it.
    """

    name: str
    text: str
    types: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for entry in ("name", "text"):
            value = getattr(self, entry)
            if not isinstance(value, str) or not value.strip():
                raise InputError(f"skill.{entry} = {value!r}: must be text and not empty")
        types: Any = self.types
        if isinstance(types, str) or not all(isinstance(kind, str) for kind in types):
            raise InputError(f"skill {self.name!r}: types = {self.types!r}: must be a tuple of names")
        object.__setattr__(self, "types", tuple(self.types))

    def serves(self, kind: str) -> bool:
        """Whether it is for tasks of this type: it names the type, or is general."""
        return not self.types or kind in self.types


@dataclass
class Entry:
    """A skill and what became of it.

    number: it came as so many-th.  exposure: training rollouts it was shown in since it was last put to use.
    value: smoothed marginal contribution, None before the first evidence.  spread: its standard error, None if unknown.
    audits: with evidence.  silent: audits without.  low: audits in a row that found it worth nothing.
    first_without, last_without: success without it, where it would have been shown, at the first and last audit.
    harmful: whether it was retired for doing harm.
    """

    skill: Skill
    number: int = 0
    state: State = "probation"
    exposure: int = 0
    value: float | None = None
    spread: float | None = None
    audits: int = 0
    silent: int = 0
    low: int = 0
    first_without: float | None = None
    last_without: float | None = None
    harmful: bool = False

    def put_to_use(self) -> None:
        """On probation, as a new skill is: whatever was found out before counts no more."""
        fresh = Entry(self.skill, self.number)
        for entry in fields(self):
            setattr(self, entry.name, getattr(fresh, entry.name))


@dataclass
class Attempts:
    """The latest training episodes of a task type: whether they succeeded, and a few as text."""

    outcomes: list[bool] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    succeeded: list[str] = field(default_factory=list)

    def note(self, success: bool, trace: str | None, window: int) -> None:
        """Enter one more; only the last ``window`` outcomes and ``TRACES`` traces stay."""
        self.outcomes = [*self.outcomes, success][-window:]
        if trace is not None:
            kept = self.succeeded if success else self.failed
            kept.append(trace[-TRACE_LENGTH:])
            del kept[:-TRACES]


class SkillBank:
    """Skills in use and skills laid aside, oldest first.

    >>> from stratagem.skills import Skill, SkillBank
    >>> bank = SkillBank([Skill("check", "Check your answer."), Skill("keys", "Keys open doors.", ("doors",))])
    >>> [entry.skill.name for entry in bank.active]
    ['check', 'keys']

    skills: to begin with, all in use and on probation. ``entries``: by name.  ``attempts``: by task type.
    ``audits``: made so far. Raises :class:`InputError` for two skills of one name.
    """

    def __init__(self, skills: Iterable[Skill] = ()) -> None:
        self.entries: dict[str, Entry] = {}
        self.attempts: dict[str, Attempts] = {}
        self.audits = 0
        for skill in skills:
            self.add(skill)

    def __len__(self) -> int:
        """Number of skills, those laid aside included."""
        return len(self.entries)

    @property
    def active(self) -> tuple[Entry, ...]:
        """Those in use, oldest first."""
        return tuple(entry for entry in self.entries.values() if entry.state != "archived")

    @property
    def archived(self) -> tuple[Entry, ...]:
        """Those laid aside, oldest first."""
        return tuple(entry for entry in self.entries.values() if entry.state == "archived")

    def add(self, skill: Skill) -> Entry:
        """Put a new skill to use, on probation. Raises :class:`InputError` when there is one of its name."""
        if skill.name in self.entries:
            raise InputError(f"skill {skill.name!r}: is in the bank already; names must differ")
        self.entries[skill.name] = Entry(skill, len(self.entries))
        return self.entries[skill.name]

    def entry(self, name: str) -> Entry:
        """The skill of this name. Raises :class:`InputError` naming the nearest one."""
        if name not in self.entries:
            raise unknown("skill", name, self.entries)
        return self.entries[name]

    # ---- the file --------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything, as plain JSON data."""
        return {
            "version": VERSION,
            "audits": self.audits,
            "entries": [asdict(entry) for entry in self.entries.values()],
            "attempts": {kind: asdict(attempts) for kind, attempts in self.attempts.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned. Raises :class:`InputError` when it is something else."""
        if not isinstance(state, Mapping) or state.get("version") != VERSION:
            raise InputError(f"skills: the state is not of version {VERSION}")
        try:
            entries = [_entry(row) for row in state["entries"]]
            attempts = {str(kind): Attempts(**row) for kind, row in state["attempts"].items()}
            audits = int(state["audits"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"skills: the state is damaged ({type(error).__name__}: {error})") from None
        if len({entry.skill.name for entry in entries}) < len(entries):
            raise InputError("skills: the state is damaged (two skills of one name)")
        self.entries = {entry.skill.name: entry for entry in entries}
        self.attempts, self.audits = attempts, audits

    def save(self, path: str | Path) -> Path:
        """Write a JSON file, whole or not at all; returns its path."""
        path = Path(path)
        RunDirectory(path.parent).write_text(path.name, json.dumps(self.state_dict(), indent=2, allow_nan=False) + "\n")
        return path

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """The bank of a file that :meth:`save` wrote, of a list of skills in JSON, or of a run directory.

        A list looks like ``[{"name": "keys", "text": "Keys open doors.", "types": ["doors"]}]``. Of a run, the bank of
        its newest complete checkpoint is taken. Raises :class:`InputError` when there is none that can be read.
        """
        path, bank = Path(path), cls()
        if path.is_dir():
            state = RunDirectory.existing(path).load().state["world"].get("skills")
            if state is None:
                raise InputError(f"run {path}: was not trained with skills")
            bank.load_state_dict(state)
            return bank
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"skills {path}: cannot be read ({type(error).__name__})") from None
        if isinstance(state, list):
            return cls(_skills(state, path))
        bank.load_state_dict(state)
        return bank


def _skills(rows: Sequence[Any], path: Path) -> list[Skill]:
    try:
        return [Skill(**row) for row in rows]
    except TypeError:
        raise InputError(f"skills {path}: a skill has a name, a text, and types if it is for some only") from None


def _entry(row: Mapping[str, Any]) -> Entry:
    entry = Entry(**{**row, "skill": Skill(**row["skill"])})
    if entry.state not in ("probation", "retained", "archived"):
        raise ValueError(f"state {entry.state!r}")
    if any(value is not None and not math.isfinite(value) for value in (entry.value, entry.spread)):
        raise ValueError("a value is not finite")
    return entry
