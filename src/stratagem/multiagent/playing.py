"""Players compared by name in a repeated game or on a lattice: courses with intervals, and a run directory."""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from stratagem.errors import BrokenRunError, InputError, unknown
from stratagem.multiagent.boltzmann import Annealing
from stratagem.multiagent.collapse import SharedPolicyCollapse
from stratagem.multiagent.governance import BodyGovernance
from stratagem.multiagent.repeated import (
    Constant,
    Phase,
    Player,
    Schedule,
    SmoothedTitForTat,
    TitForTat,
    interrupted,
    play_repeated,
)
from stratagem.multiagent.reservoir import Reservoir
from stratagem.multiagent.shared_learners import Learner, NetworkLearner, TableLearner
from stratagem.tasks.registry import parse
from stratagem.training.run_directory import RunDirectory, environment, file_name

POINTS = 200
"""Windows of a course that are kept, at most."""

Progress = Callable[[str, int], None]


# ---- by name --------------------------------------------------------------------------------------------------------


def _brg(size: int = 30, noise: float = 0.15, radius: float = 0.9) -> Player:
    return BodyGovernance(Reservoir(size=size, noise=noise, radius=radius))


def _static(alpha: float = 0.85, size: int = 30, noise: float = 0.15, radius: float = 0.9) -> Player:
    return BodyGovernance(Reservoir(size=size, noise=noise, radius=radius), alpha=alpha)


PLAYERS: Mapping[str, Callable[..., Player]] = {
    "brg": _brg,
    "static_body": _static,
    "tit_for_tat": TitForTat,
    "smoothed_tit_for_tat": SmoothedTitForTat,
    "always_cooperate": partial(Constant, 1.0),
    "always_defect": partial(Constant, 0.0),
}
"""Players of the repeated game, made from options of their own."""


def _shared_network(hidden: int = 96, batch: int = 256, learning_rate: float = 1e-4, steps: int = 5) -> Learner:
    return NetworkLearner(hidden=hidden, batch=batch, learning_rate=learning_rate, steps=steps)


def _identified_network(hidden: int = 96, batch: int = 256, learning_rate: float = 1e-4, steps: int = 5) -> Learner:
    return NetworkLearner(identified=True, hidden=hidden, batch=batch, learning_rate=learning_rate, steps=steps)


def _grouped_networks(
    groups: int = 10, hidden: int = 96, batch: int = 256, learning_rate: float = 1e-4, steps: int = 5
) -> Learner:
    return NetworkLearner(groups=groups, hidden=hidden, batch=batch, learning_rate=learning_rate, steps=steps)


def _own_networks(hidden: int = 96, batch: int = 256, learning_rate: float = 1e-4, steps: int = 5) -> Learner:
    return NetworkLearner(groups=None, hidden=hidden, batch=batch, learning_rate=learning_rate, steps=steps)


def _shared_table(rate: float = 0.05, discount: float = 0.99, updates: str = "each") -> Learner:
    return TableLearner(True, rate, discount, updates)  # type: ignore[arg-type]  # validated where it is built


def _own_tables(rate: float = 0.05, discount: float = 0.99) -> Learner:
    return TableLearner(False, rate, discount)


LEARNERS: Mapping[str, Callable[..., Learner]] = {
    "shared_network": _shared_network,
    "identified_network": _identified_network,
    "grouped_networks": _grouped_networks,
    "own_networks": _own_networks,
    "shared_table": _shared_table,
    "own_tables": _own_tables,
}
"""What the agents of a lattice may be, made from options of their own."""


@dataclass(frozen=True)
class LatticeTask:
    """The dilemma on a lattice; ``start`` and ``end`` are temperatures of exploration."""

    side: int = 10
    temptation: float = 0.2
    start: float = 0.4
    end: float = 0.1
    evaluation: int = 1000


OPPONENTS: Mapping[str, Callable[..., Schedule | Player]] = {
    "interrupted": interrupted,
    "noisy": lambda rounds=2000, defects=0.1: Schedule((Phase(rounds, defects),)),
    "tit_for_tat": TitForTat,
    "smoothed_tit_for_tat": SmoothedTitForTat,
}
"""Opponents of the repeated game: two schedules, who do not react, and two who do."""

REACTING_ROUNDS = 1000
"""Of a game against an opponent who reacts, unless the rounds are given; a schedule has its own."""

LEARNING_STEPS = 20_000
"""Of a lattice, unless the rounds are given."""


def made(kind: str, make: Callable[..., Any], options: Mapping[str, str]) -> Any:
    """Call with options given as text. Raises :class:`InputError` for one there is not, and for a wrong value."""
    known = {name: parameter.default for name, parameter in _parameters(make).items()}
    given: dict[str, Any] = {}
    for option, text in options.items():
        if option not in known:
            raise unknown(f"option of {kind}", option, known)
        try:
            given[option] = type(known[option])(text)
        except ValueError:
            what = "a whole number" if isinstance(known[option], int) else "a number"
            raise InputError(f"{kind}: {option}={text} must be {what}") from None
    return make(**given)


def _parameters(make: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    if isinstance(make, partial):
        return {}
    return dict(inspect.signature(make).parameters)


# ---- what is found --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Course:
    """How one player fared. rounds: the last of each window.  measures: by name, mean over each window, by run.

    totals: one number for each run, by name.
    """

    player: str
    rounds: Int64[np.ndarray, " windows"]
    measures: Mapping[str, Float64[np.ndarray, "windows runs"]]
    totals: Mapping[str, Float64[np.ndarray, " runs"]]
    seconds: float

    def rows(self) -> list[dict[str, Any]]:
        """As ``metrics.jsonl`` has it: every measure with its mean over runs and the bounds of its interval."""
        columns: dict[str, list[float | None]] = {}
        for name, values in self.measures.items():
            bounds = zip(("", "/low", "/high"), interval(values), strict=True)
            columns |= {f"{name}{ending}": _numbers(bound) for ending, bound in bounds}
        return [
            {"player": self.player, "step": step, **{name: column[place] for name, column in columns.items()}}
            for place, step in enumerate(self.rounds.tolist())
        ]

    def summary(self) -> dict[str, list[float | None]]:
        """Totals as mean, low and high."""
        return {name: [_numbers(bound[None])[0] for bound in interval(each)] for name, each in self.totals.items()}


def interval(
    values: Float64[np.ndarray, "*of runs"],
) -> tuple[Float64[np.ndarray, "*of"], Float64[np.ndarray, "*of"], Float64[np.ndarray, "*of"]]:
    """Mean over runs and its 95 % Student interval, which is nan for a single run."""
    from scipy.special import stdtrit

    mean, runs = np.asarray(values.mean(-1)), values.shape[-1]
    half = np.full_like(mean, np.nan)
    if runs > 1:
        half = stdtrit(runs - 1, 0.975) * values.std(-1, ddof=1) / np.sqrt(runs)
    return mean, mean - half, mean + half


def _numbers(values: Float64[np.ndarray, " of"]) -> list[float | None]:
    """JSON has no nan."""
    return [value if np.isfinite(value) else None for value in values.tolist()]


@dataclass(frozen=True, eq=False)
class Played:
    """A comparison. about: what was measured, in words.  directory: of the run, if any."""

    task: str
    about: str
    courses: tuple[Course, ...]
    directory: Path | None


# ---- playing --------------------------------------------------------------------------------------------------------


def play(
    players: Sequence[str],
    task: str,
    *,
    rounds: int | None = None,
    runs: int = 5,
    seed: int = 0,
    out: str | Path | None = None,
    progress: Progress = lambda name, number: None,
) -> Played:
    """Let players play, all runs side by side, and measure cooperation, payoffs and what they say of themselves.

    players: ``NAME[,option=value...]``, of ``PLAYERS`` or ``LEARNERS``; all meet the same draws.
    task: ``lattice[,option=value...]``, on which all agents are of one kind; or
    ``repeated:OPPONENT[,option=value...]``, one of ``OPPONENTS``.
    rounds: of learning, before evaluation, or of the game.
    out: a directory for ``run.json``, ``environment.json``, ``metrics.jsonl`` and ``report.html``.
    progress: called with a player and the number of rounds it has played.

    Raises :class:`InputError` for wrong input, :class:`BrokenRunError` when it is interrupted between two players,
    naming the directory, which then holds those that are done.
    """
    if not players:
        raise InputError("players: name at least one")
    names = list(dict.fromkeys(players))
    game = find_game(task, names, rounds, runs, seed)
    if out is not None and (Path(out) / "run.json").exists():
        raise InputError(f"run directory {out}: holds a run already; name another with --out")
    asked = {"command": "play", "players": names, "task": task, "rounds": game.rounds, "runs": runs, "seed": seed}
    courses: list[Course] = []
    try:
        for name in names:
            began = time.perf_counter()
            measures, totals = game.play(name, partial(progress, name))
            courses.append(Course(name, game.windows, measures, totals, time.perf_counter() - began))
    except KeyboardInterrupt:
        if out is None or not courses:
            raise
        _written(Played(task, game.about, tuple(courses), Path(out)), asked)
        raise BrokenRunError(f"stopped after {len(courses)} of {len(names)} players, which are in {out}") from None
    return _written(Played(task, game.about, tuple(courses), None if out is None else Path(out)), asked)


def _written(played: Played, asked: Mapping[str, Any]) -> Played:
    """What was found, written down where there is a directory."""
    if played.directory is None:
        return played
    from stratagem.study.play_report import write_play_report

    run = RunDirectory.create(played.directory)
    run.write_json("run.json", asked)
    run.write_json("environment.json", environment(asked["seed"]))
    rows = (row for course in played.courses for row in course.rows())
    run.write_text("metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    write_play_report(played, run.path / "report.html", runs=asked["runs"], seed=asked["seed"])
    return played


def run_name(players: Sequence[str], task: str, seed: int) -> str:
    """Of the directory a comparison is written to unless another is named."""
    return file_name(f"{'-'.join(dict.fromkeys(players))}-{task}-seed{seed}")


Measured = tuple[dict[str, Float64[np.ndarray, "windows runs"]], dict[str, Float64[np.ndarray, " runs"]]]


@dataclass(frozen=True, eq=False)
class Game:
    """A game ready for players by name."""

    about: str
    rounds: int
    windows: Int64[np.ndarray, " windows"]
    play: Callable[[str, Callable[[int], None]], Measured]


def find_game(task: str, players: Sequence[str], rounds: int | None, runs: int, seed: int) -> Game:
    """The game of a task, once all players are known to fit. Raises :class:`InputError`."""
    kind, name, options = parse(task)
    if kind == "lattice" and name is None:
        return _lattice(made(kind, LatticeTask, options), players, rounds, runs, seed)
    if kind == "repeated" and name is not None:
        if name not in OPPONENTS:
            raise unknown("opponent", name, OPPONENTS)
        return _repeated(made(f"{kind}:{name}", OPPONENTS[name], options), players, rounds, runs, seed)
    raise InputError(
        f"task {task!r}: write lattice[,option=value...] or repeated:OPPONENT[,option=value...], "
        f"OPPONENT one of {', '.join(OPPONENTS)}"
    )


def _found(
    players: Sequence[str], known: Mapping[str, Callable[..., Any]], others: Mapping[str, Any]
) -> dict[str, Any]:
    found = {}
    for spec in players:
        name, argument, options = parse(spec)
        if argument is not None or name not in known:
            if name in others:
                raise InputError(f"player {name!r}: cannot play this game; there are {', '.join(known)}")
            raise unknown("player", spec if argument is not None else name, known)
        found[spec] = made(name, known[name], options)
    return found


def _ends(rounds: int) -> Int64[np.ndarray, " windows"]:
    return np.linspace(0, rounds, min(POINTS, rounds) + 1).round().astype(np.int64)[1:]


def _lattice(task: LatticeTask, players: Sequence[str], rounds: int | None, runs: int, seed: int) -> Game:
    learners = _found(players, LEARNERS, PLAYERS)
    steps = LEARNING_STEPS if rounds is None else rounds
    if runs < 1 or steps < 1:
        raise InputError(f"lattice: runs = {runs}, rounds = {steps}: both must be at least 1")
    annealing = Annealing(task.start, task.end, steps)
    ends = _ends(steps)
    studies = {
        spec: SharedPolicyCollapse(learner, task.side, task.temptation, annealing, task.evaluation)
        for spec, learner in learners.items()
    }
    for study in studies.values():
        study.learner.start(study.lattice, 1, seed)

    def course(spec: str, progress: Callable[[int], None]) -> Measured:
        found = studies[spec].play(seed, runs=runs, windows=len(ends), progress=progress)
        gap = (found.gaps * found.seen).sum(-1)
        largest = np.array([sizes[0] if len(sizes) else 0 for sizes in found.clusters], dtype=np.float64)
        measures = {"cooperation": found.cooperation, "value of cooperating": gap}
        return measures, {
            "cooperation after learning": found.evaluation,
            "while learning": found.cooperation.mean(0),
            "largest cluster": largest / found.lattice.agents,
        }

    about = (
        f"share of {task.side**2} agents who cooperate, by round of learning; temptation {task.temptation:g}, "
        f"exploration index {annealing.index:.3f}"
    )
    return Game(about, steps, ends, course)


def _repeated(opponent: Schedule | Player, players: Sequence[str], rounds: int | None, runs: int, seed: int) -> Game:
    chosen = _found(players, PLAYERS, LEARNERS)
    length = opponent.rounds if isinstance(opponent, Schedule) else REACTING_ROUNDS
    length = length if rounds is None else rounds
    if runs < 1 or length < 1:
        raise InputError(f"repeated game: runs = {runs}, rounds = {length}: both must be at least 1")
    if isinstance(opponent, Schedule) and length > opponent.rounds:
        raise InputError(f"repeated game: rounds = {length}: the schedule has {opponent.rounds}")
    ends = _ends(length)
    starts = np.concatenate([[0], ends[:-1]])

    def windowed(values: Float64[np.ndarray, "rounds runs"]) -> Float64[np.ndarray, "windows runs"]:
        return np.asarray(np.add.reduceat(values, starts, 0) / (ends - starts)[:, None])

    def course(spec: str, progress: Callable[[int], None]) -> Measured:
        match = play_repeated(chosen[spec], opponent, runs, seed, rounds=length, progress=progress)
        measures = {"payoff": windowed(match.payoffs), "cooperation": windowed(match.mine)}
        said = {name: match.figures[name] for name in ("alpha", "discomfort") if name in match.figures}
        measures |= {name: windowed(values) for name, values in said.items()}
        totals = {
            "payoff": match.payoffs.mean(0),
            "cooperation": match.mine.mean(0),
            "variance of actions": match.mine.var(0),
        }
        return measures, totals

    reacts = "who does not react" if isinstance(opponent, Schedule) else "who reacts"
    return Game(f"payoff by round against an opponent {reacts}", length, ends, course)
