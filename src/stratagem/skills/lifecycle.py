"""The life of skills: audits by leaving one out, and what follows: keep, lay aside, create or bring back."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Le

from stratagem.catalogue import paper
from stratagem.errors import InputError
from stratagem.part import Part
from stratagem.skills.bank import Attempts, Entry, Skill, SkillBank
from stratagem.skills.retrieval import Retriever, TypeMatch

Fate = Literal["external", "internalised", "harmful", "idle", "on trial"]


@dataclass(frozen=True)
class Case:
    """A task to be solved: its number, its type, and the text by which skills are found for it."""

    number: int
    kind: str
    text: str


@dataclass(frozen=True)
class Trial:
    """A case to be played with these skills, and no others, shown."""

    case: Case
    shown: tuple[Skill, ...]


Play = Callable[[Sequence[Trial]], Sequence[float | None]]
"""Plays trials, those of one case with the same random numbers; success of each, None for one that says nothing."""

Create = Callable[[str, Sequence[str], Sequence[str]], Skill | None]
"""Writes a skill for a task type from traces of failures and of successes; None when it has nothing to say."""


@dataclass(frozen=True)
class Marginal:
    """What a skill added: mean paired difference, its standard error (None for one pair), pairs, success without."""

    difference: float
    error: float | None
    pairs: int
    without: float


@dataclass
class Audit:
    """What an audit saw and did; names of skills, task types for ``uncovered``.

    success: mean over the cases with the skills in use, NaN without any case that says something.  trials: played.
    marginals: of skills that some case would be shown.  uncovered: types that fail and got no skill.
    """

    success: float
    trials: int
    marginals: dict[str, Marginal]
    retired: list[str] = field(default_factory=list)
    harmful: list[str] = field(default_factory=list)
    created: list[str] = field(default_factory=list)
    brought_back: list[str] = field(default_factory=list)
    uncovered: list[str] = field(default_factory=list)


@paper(
    "2605.10923",
    title="Dynamic Skill Lifecycle Management for Agentic Reinforcement Learning",
    family="agents",
    roles=("memory", "curriculum"),
    year=2026,
    name="slim",
)
@dataclass(frozen=True)
class SkillLifecycle(Part):
    """SLIM: skills in the prompt are kept by what they add, ``Delta_j = Perf(A) - Perf(A without j)``.

    The set ``A`` of skills in use changes between policy updates. An audit plays validation tasks twice with the same
    seeds, with ``A`` and without skill ``j``, those alone that would be shown ``j``. The mean difference is smoothed,
    ``D_j <- (1 - rho) D_j + rho Delta_j``, the first one taken as it is. Then, in this order, a skill is

    - **retained** when ``D_j >= keep``;
    - **harmful**, and laid aside at once, when ``D_j < -keep`` and ``D_j + deviations * spread_j < 0``;
    - **retired** when it was shown in ``exposure`` training rollouts and ``D_j <= retire`` in ``patience`` audits in a
      row; else it is on probation.

    At most one skill of a task type goes at an audit, and what the others of that type are worth is found out anew: of
    two that say the same, each alone adds nothing. A skill that no validation task would be shown stays as it is.

    **Expansion.** A task type whose last ``window`` training rollouts failed in a share of ``failure_rate`` or more,
    and that no skill in use names, gets back the best skill that was laid aside for it without being harmful, else a
    new one, if somebody is there to write one and there is room in ``cap``. Its rollouts are then counted from 0. A
    general skill does not stand in the way.

    >>> from stratagem.skills import Case, Skill, SkillBank, SkillLifecycle
    >>> bank = SkillBank([Skill("good", "Look first."), Skill("bad", "Run.")])
    >>> def play(trials):
    ...     names = [{skill.name for skill in trial.shown} for trial in trials]
    ...     return [0.4 + 0.3 * ("good" in shown) - 0.1 * ("bad" in shown) for shown in names]
    >>> SkillLifecycle().audit(bank, [Case(n, "doors", "open it") for n in range(10)], play).harmful
    ['bad']
    >>> [(entry.skill.name, entry.state) for entry in bank.entries.values()]
    [('good', 'retained'), ('bad', 'archived')]

    every: policy steps between audits.  validation: tasks an audit plays.  temperature: it samples at; None: greedily.
    shown: skills a task is shown at most.  retriever: finds them.
    keep, retire: thresholds in success.  smoothing: ``rho`` in (0, 1].  exposure: rollouts, at least 0.
    patience: audits in a row; twice as many where fewer than ``few`` pairs say so, and with so few no skill is harmful.
    deviations: standard errors.  failure_rate: in (0, 1].  window: rollouts; before there are so many nothing expands.
    cap: most skills in use.

    Source: abstract and secondary accounts of the paper; its formulas and its code were not available. The audits, the
    three outcomes and that exposure comes before retirement are the paper's. Smoothing, thresholds and every default
    are a reconstruction; a port by others retires below 0.02 after 5 uses and expands after 3 failures in a row.
    """

    kind: ClassVar[str] = "skill_lifecycle"

    every: Annotated[int, Ge(1)] = 20
    validation: Annotated[int, Ge(1)] = 64
    temperature: Annotated[float, Gt(0)] | None = 1.0
    shown: Annotated[int, Ge(1)] = 3
    retriever: Retriever = field(default_factory=TypeMatch)
    keep: float = 0.02
    retire: float = 0.01
    smoothing: Annotated[float, Gt(0), Le(1)] = 0.5
    exposure: Annotated[int, Ge(0)] = 200
    patience: Annotated[int, Ge(1)] = 2
    few: Annotated[int, Ge(2)] = 8
    deviations: Annotated[float, Ge(0)] = 1.96
    failure_rate: Annotated[float, Gt(0), Le(1)] = 0.6
    window: Annotated[int, Ge(1)] = 50
    cap: Annotated[int, Ge(1)] = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("keep", "retire"):
            if math.isnan(getattr(self, name)) or getattr(self, name) == math.inf:
                raise InputError(f"skill_lifecycle.{name} = {getattr(self, name)}: must be a number or -inf")

    def check(self, bank: SkillBank) -> None:
        """Raise :class:`InputError` when more skills are in use than ``cap``."""
        if len(bank.active) > self.cap:
            raise InputError(f"skill_lifecycle.cap = {self.cap}: {len(bank.active)} skills are in use")

    # ---- showing ---------------------------------------------------------------------------------------------------

    def retrieve(self, bank: SkillBank, case: Case, without: str | None = None) -> tuple[Skill, ...]:
        """Skills that a task is shown, best first; ``without`` the one of this name, whose place another may take."""
        skills = [entry.skill for entry in bank.active]
        scores = self.retriever(case.text, case.kind, skills)
        fitting = [place for place, score in enumerate(scores) if score > 0 and skills[place].name != without]
        best = sorted(fitting, key=lambda place: (-scores[place], place))[: self.shown]
        return tuple(skills[place] for place in best)

    def note(
        self, bank: SkillBank, kind: str, success: bool, shown: Sequence[Skill] = (), trace: str | None = None
    ) -> None:
        """Enter a training rollout: a task of this type, what it was shown, and how it went (``trace``: as text)."""
        for skill in shown:
            bank.entry(skill.name).exposure += 1
        bank.attempts.setdefault(kind, Attempts()).note(success, trace, self.window)

    # ---- auditing --------------------------------------------------------------------------------------------------

    def audit(self, bank: SkillBank, cases: Sequence[Case], play: Play, create: Create | None = None) -> Audit:
        """Find out what each skill in use adds on these cases, and change the bank accordingly.

        All trials are played in one call: every case with the skills in use, then for each skill, oldest first, the
        cases that would be shown it, without it. Raises :class:`InputError` when another number of results comes back
        or one is not finite, and when more skills are in use than ``cap``.
        """
        self.check(bank)
        whole = [Trial(case, self.retrieve(bank, case)) for case in cases]
        users = {
            entry.skill.name: [place for place, trial in enumerate(whole) if entry.skill in trial.shown]
            for entry in bank.active
        }
        less = [
            Trial(cases[place], self.retrieve(bank, cases[place], name))
            for name, places in users.items()
            for place in places
        ]
        results = _checked(play([*whole, *less]), len(whole) + len(less))
        left_out = iter(results[len(whole) :])
        marginals: dict[str, Marginal] = {}
        kinds: dict[str, set[str]] = {}
        for name, places in users.items():
            pairs = [(place, results[place], next(left_out)) for place in places]
            told = [(cases[place].kind, a, b) for place, a, b in pairs if a is not None and b is not None]
            kinds[name] = {kind for kind, _, _ in told}
            marginal = _marginal([(with_it, without) for _, with_it, without in told])
            if marginal is not None:
                marginals[name] = marginal
            self._learn(bank.entry(name), marginal)
        known = [result for result in results[: len(whole)] if result is not None]
        audit = Audit(fmean(known) if known else math.nan, len(results), marginals)
        bank.audits += 1
        self._lay_aside(bank, kinds, audit)
        self._expand(bank, create, audit)
        return audit

    def _learn(self, entry: Entry, marginal: Marginal | None) -> None:
        """Take in what an audit found, and say whether the skill is retained or on probation."""
        if marginal is None:
            entry.silent += 1
            return
        rho = self.smoothing if entry.value is not None else 1.0
        entry.value = (1 - rho) * (entry.value or 0.0) + rho * marginal.difference
        if marginal.error is not None:
            before = marginal.error if entry.spread is None else entry.spread
            entry.spread = math.hypot((1 - rho) * before, rho * marginal.error)
        entry.first_without = marginal.without if entry.first_without is None else entry.first_without
        entry.last_without = marginal.without
        entry.audits += 1
        entry.low = entry.low + 1 if entry.value <= self.retire else 0
        entry.state = "retained" if entry.value >= self.keep else "probation"

    def _lay_aside(self, bank: SkillBank, kinds: dict[str, set[str]], audit: Audit) -> None:
        going = [
            (not self._harms(entry, audit.marginals[entry.skill.name]), entry.value or 0.0, entry.number, entry)
            for entry in bank.active
            if entry.skill.name in audit.marginals
            and (
                self._harms(entry, audit.marginals[entry.skill.name])
                or self._worthless(entry, audit.marginals[entry.skill.name])
            )
        ]
        touched: set[str] = set()
        for idle, _, _, entry in sorted(going, key=lambda one: one[:3]):
            name = entry.skill.name
            if not kinds[name] & touched:
                touched |= kinds[name]
                entry.state, entry.harmful = "archived", not idle
                (audit.retired if idle else audit.harmful).append(name)
        for name, types in kinds.items():
            if types & touched:
                bank.entry(name).low = 0

    def _harms(self, entry: Entry, marginal: Marginal) -> bool:
        if entry.value is None or entry.spread is None or entry.state == "retained" or marginal.pairs < self.few:
            return False
        return entry.value < -self.keep and entry.value + self.deviations * entry.spread < 0

    def _worthless(self, entry: Entry, marginal: Marginal) -> bool:
        needed = self.patience * (1 if marginal.pairs >= self.few else 2)
        return entry.state != "retained" and entry.exposure >= self.exposure and entry.low >= needed

    def _expand(self, bank: SkillBank, create: Create | None, audit: Audit) -> None:
        for kind, attempts in bank.attempts.items():
            failing = len(attempts.outcomes) >= self.window and (
                fmean(not success for success in attempts.outcomes) >= self.failure_rate
            )
            if not failing or any(kind in entry.skill.types for entry in bank.active):
                continue
            entry = self._found(bank, kind, attempts, create, audit)
            if entry is None:
                audit.uncovered.append(kind)
            else:
                attempts.outcomes = []

    def _found(
        self, bank: SkillBank, kind: str, attempts: Attempts, create: Create | None, audit: Audit
    ) -> Entry | None:
        """A skill for this type, put to use on probation: one laid aside, else a new one; None without either."""
        if len(bank.active) >= self.cap:
            return None
        gone = set(audit.retired)
        aside = [
            entry
            for entry in bank.archived
            if kind in entry.skill.types and not entry.harmful and entry.skill.name not in gone
        ]
        if aside:
            best = max(aside, key=lambda entry: (entry.value or 0.0, -entry.number))
            best.put_to_use()
            audit.brought_back.append(best.skill.name)
            return best
        skill = None if create is None else create(kind, tuple(attempts.failed), tuple(attempts.succeeded))
        if skill is None:
            return None
        audit.created.append(skill.name)
        return bank.add(skill)

    # ---- what became of them ---------------------------------------------------------------------------------------

    def fate(self, entry: Entry) -> Fate:
        """What became of a skill.

        ``external``: retained, the policy still needs it.  ``harmful``: laid aside for that.  ``internalised``: laid
        aside, and success without it rose by more than ``keep`` between its first and its last audit.  ``idle``: laid
        aside without such a rise.  ``on trial``: still on probation.
        """
        if entry.state == "retained":
            return "external"
        if entry.state == "probation":
            return "on trial"
        if entry.harmful:
            return "harmful"
        rise = (entry.last_without or 0.0) - (entry.first_without or 0.0)
        return "internalised" if rise > self.keep else "idle"

    def fates(self, bank: SkillBank) -> dict[str, Fate]:
        """What became of every skill, by name, oldest first."""
        return dict(self._fates(bank))

    def _fates(self, bank: SkillBank) -> Iterator[tuple[str, Fate]]:
        return ((name, self.fate(entry)) for name, entry in bank.entries.items())


def _checked(results: Sequence[float | None], expected: int) -> Sequence[float | None]:
    if len(results) != expected:
        raise InputError(f"skill_lifecycle.audit: {len(results)} results for {expected} trials")
    for result in results:
        if result is not None and not math.isfinite(result):
            raise InputError(f"skill_lifecycle.audit: result {result} is not finite; None is for one that says nothing")
    return results


def _marginal(pairs: Sequence[tuple[float, float]]) -> Marginal | None:
    if not pairs:
        return None
    differences = [with_it - without for with_it, without in pairs]
    error = stdev(differences) / math.sqrt(len(pairs)) if len(pairs) > 1 else None
    return Marginal(fmean(differences), error, len(pairs), fmean(without for _, without in pairs))
