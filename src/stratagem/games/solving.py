"""Solve a game: how good the strategies are by iteration and by second, and a run directory with all that was found."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stratagem.errors import BrokenRunError, InputError
from stratagem.games.flat import LIMIT, FlatGame, NotEnumerable, Strategy
from stratagem.games.metagame import Metagame
from stratagem.games.play import Play, Solver
from stratagem.games.played import PlayedGame
from stratagem.games.population import PSRO, Population
from stratagem.games.rosters import POPULATION, PlayedRoster, read_actors
from stratagem.games.spiel import PREFIX, compile_game
from stratagem.games.variants import find_solver
from stratagem.training.run_directory import Checkpoint, RunDirectory, environment, file_name

Progress = Callable[[int, Mapping[str, float]], None]

PER_DECADE = 8
"""Measurements between an iteration and ten times as many."""

PIECE = 0.25
"""Seconds of iterations between two reports of progress."""


@dataclass(frozen=True, eq=False)
class Solution:
    """What a solver found.

    game: that was solved.  strategies: of the players: by sequence where the game is enumerated; otherwise mixtures
    over actors (:class:`~stratagem.games.rosters.Mixed`).  averaged: whether they are the average; the current ones
    otherwise.  rows: what was measured, as ``metrics.jsonl`` has it.  directory: of the run, if any.
    """

    solver: Solver
    game: FlatGame | PlayedGame
    strategies: tuple[Any, ...]
    averaged: bool
    rows: list[dict[str, Any]]
    directory: Path | None

    @property
    def exploitability(self) -> float | None:
        """Of the strategies, in units of utility; None where the game is played, since it is not known there."""
        return float(self.game.exploitability(self.strategies)) if isinstance(self.game, FlatGame) else None

    @property
    def value(self) -> float:
        """What the first player earns when both play them, as it was measured last."""
        return float(self.rows[-1]["value"])

    def table(self) -> list[dict[str, dict[str, float]]]:
        """For every player the probability of each action by information state, as plain data.

        Where the game is played: for every player the probability of each of its actors, by where it is saved.
        """
        if isinstance(self.game, FlatGame):
            return _by_state(self.game, self.strategies)
        return [
            {"actors": {_place(player, number): chance for number, chance in enumerate(mixed.mixture.tolist())}}
            for player, mixed in enumerate(self.strategies)
        ]


def _by_state(game: FlatGame, strategies: tuple[Strategy, ...]) -> list[dict[str, dict[str, float]]]:
    return [
        {
            state: dict(zip(actions, strategy[low:high].tolist(), strict=True))
            for state, actions, low, high in zip(
                player.states, player.actions, player.first[:-1], player.first[1:], strict=True
            )
        }
        for player, strategy in zip(game.players, strategies, strict=True)
    ]


def _place(player: int, number: int) -> str:
    """Where an actor is saved; the first of each player is the uniform one, which needs no file."""
    return f"{POPULATION}/player{player}/{number}" if number else "uniform"


def solve(
    variant: str | Solver,
    task: str | FlatGame | PlayedGame,
    *,
    iterations: int = 1000,
    arguments: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    histories: int = LIMIT,
    progress: Progress | None = None,
) -> Solution:
    """Solve a game and measure on the way how good the average strategy is.

    Measured after 1, 2, 3, 4, 6, ... iterations, evenly spaced on a logarithmic axis, or after each one where responses
    are learned. Seconds are those of iterating alone, without compiling and measuring.

    A game that cannot be enumerated is played by solvers that can do so, populations whose responses are learned; then
    payoffs, values and gains are estimates with standard errors, and exploitability is not known.

    variant: a name such as ``dcfr``, with ``arguments`` of its own, or a solver.  task: a game of OpenSpiel such as
    ``spiel:leduc_poker``, a compiled game, or one that is played.  out: a directory for ``run.json``,
    ``environment.json``, ``metrics.jsonl``, ``strategy.json``, ``checkpoints/step-N``, ``report.html``, and
    ``population`` with the networks of a game that is played; without it nothing is written.
    histories: of the largest game that is enumerated.  progress: called with iteration and newest figures.

    Raises :class:`InputError` for wrong input, :class:`BrokenRunError` naming the directory when it is interrupted
    after something was written there.
    """
    if iterations < 1:
        raise InputError(f"iterations = {iterations}: must be at least 1")
    solver = find_solver(variant, **arguments or {}) if isinstance(variant, str) else variant
    name = variant if isinstance(variant, str) else solver.part_name()
    if out is not None and (Path(out) / "run.json").exists():
        raise InputError(f"run directory {out}: holds a run already; name another with --out")
    game = _game(solver, _spiel_name(task), histories) if isinstance(task, str) else task
    play = solver.start_playing(game) if isinstance(game, PlayedGame) else solver.start(game)
    play.advance(0)  # Compiles.
    run = None
    if out is not None:
        run = RunDirectory.create(out)
        named = {"variant": name, "arguments": dict(arguments or {}), "solver_is_named": isinstance(variant, str)}
        asked = {"command": "solve", **named, "task": game.name}
        run.write_json("run.json", {**asked, "iterations": iterations, **_facts(game)})
        run.write_json("environment.json", environment(int((arguments or {}).get("seed", 0))))
    return _Run(run, name, solver, play, []).finished(iterations, progress)


def resume(directory: str | Path, *, iterations: int | None = None, progress: Progress | None = None) -> Solution:
    """Go on with a population on a game that is played, from the last iteration that was complete.

    Numbers are those of an unbroken run. iterations: a new total, if it is to go on for longer.

    Raises :class:`InputError` for a directory without such a run, and :class:`BrokenRunError` as :func:`solve` does.
    """
    run = RunDirectory.existing(directory)
    asked = run.read_json("run.json")
    if asked.get("command") != "solve" or not asked.get("played"):
        raise InputError(f"run {run.path}: is no population on a game that is played; only those are resumed")
    if not asked["solver_is_named"]:
        raise InputError(f"run {run.path}: was started with a solver of its own; only named ones are made again")
    game, solver = PlayedGame(asked["task"]), find_solver(asked["variant"], **asked["arguments"])
    assert isinstance(solver, PSRO)
    saved, total = run.load(), asked["iterations"] if iterations is None else iterations
    done = int(saved.state["iteration"])
    if total < done:
        raise InputError(f"iterations = {total}: run {run.path} has done {done} already")
    known = saved.tensors["metagame"]
    metagame = Metagame(known["payoffs"].numpy(), known["errors"].numpy())
    actors = read_actors(run.path / POPULATION, saved.state["members"])
    population = Population(solver, PlayedRoster.restored(game, solver.trials, actors, metagame))
    population.load(done, saved.state)
    run.sweep()
    run.forget_after("metrics.jsonl", done)
    run.write_json("run.json", {**asked, "iterations": total})
    return _Run(run, asked["variant"], solver, population, run.rows("metrics.jsonl")).finished(total, progress)


class _Run:
    """A solver at work and where it writes. rows: measured so far.  seconds: of iterating."""

    def __init__(
        self, directory: RunDirectory | None, name: str, solver: Solver, play: Play, rows: list[dict[str, Any]]
    ) -> None:
        self.directory, self.name, self.solver, self.play, self.rows = directory, name, solver, play, rows
        self.seconds = float(rows[-1]["seconds"]) if rows else 0.0

    def finished(self, iterations: int, progress: Progress | None) -> Solution:
        """The solution after so many iterations in all."""
        play = self.play
        every = range(1, iterations + 1) if play.slow else measured_at(iterations)
        if play.slow and self.directory is not None and not play.iteration:
            self._checkpoint(self.directory)  # So that a run that is killed in its first iteration can begin again.
        try:
            for target in every:
                if target > play.iteration and not play.finished:
                    self._advance(target, progress)
                    self._measure()
                    if progress is not None:
                        progress(play.iteration, self.rows[-1])
        except KeyboardInterrupt:
            if self.directory is None:
                raise
            if not self.rows or self.rows[-1]["step"] < play.iteration:
                self._measure()
            self._found()
            done = f"stopped after {play.iteration} iterations; what they found is in {self.directory.path}"
            played = isinstance(play.game, PlayedGame)
            more = f"; go on with: stratagem solve --resume {self.directory.path}" if played else ""
            raise BrokenRunError(done + more) from None
        return self._found()

    def _advance(self, target: int, progress: Progress | None) -> None:
        """Iterate up to this number, in pieces between which progress is told."""
        play, row = self.play, self.rows[-1] if self.rows else {}
        while play.iteration < target and not play.finished:
            rate = play.iteration / self.seconds if self.seconds else 1.0
            piece = min(target - play.iteration, max(1, int(rate * PIECE)))
            began = time.perf_counter()
            play.advance(piece)
            self.seconds += time.perf_counter() - began
            if progress is not None:
                progress(play.iteration, row)

    def _measure(self) -> None:
        """Another row of metrics: how good the strategies are now."""
        play = self.play
        row = {
            "step": play.iteration,
            "seconds": self.seconds,
            **play.measured(),
            "averaged": play.averaged,
            **play.figures(),
        }
        self.rows.append(row)
        if self.directory is not None:
            self.directory.append("metrics.jsonl", row)
            if play.slow:
                self._checkpoint(self.directory)

    def _checkpoint(self, run: RunDirectory) -> None:
        play = self.play
        state = {"iteration": play.iteration, **_facts(play.game), **play.save(run.path / POPULATION)}
        tensors = play.tensors()
        if isinstance(play.game, FlatGame):
            tensors = {"average": _tensors(play.average()), "current": _tensors(play.current()), **tensors}
        run.save(f"step-{play.iteration}", Checkpoint(state, tensors))

    def _found(self) -> Solution:
        """The solution as it stands, written down where there is a directory."""
        from stratagem.study.solving_report import write_solving_report

        play, run = self.play, self.directory
        path = run.path if run else None
        solution = Solution(self.solver, play.game, play.average(), play.averaged, self.rows, path)
        if run is not None:
            run.write_json("strategy.json", {"averaged": play.averaged, "players": solution.table()})
            self._checkpoint(run)
            population = (play.metagame, play.final_mixtures()) if isinstance(play, Population) else None
            page, facts = run.path / "report.html", _facts(play.game)
            write_solving_report(self.name, play.game.name, self.rows, page, facts=facts, population=population)
        return solution


def _game(solver: Solver, task: str, histories: int) -> FlatGame | PlayedGame:
    """The game enumerated, or else as it is played where the solver can play."""
    try:
        return compile_game(task, histories)
    except NotEnumerable:
        if not solver.plays:
            raise
        return PlayedGame(task)


def measured_at(iterations: int) -> list[int]:
    """Iterations at which a run of this length is measured: the first, the last, and ``PER_DECADE`` to each decade."""
    points = int(np.ceil(PER_DECADE * np.log10(iterations))) + 1
    return sorted({*np.geomspace(1, iterations, points).round().astype(int).tolist(), iterations})


def _tensors(strategies: tuple[Strategy, ...]) -> dict[str, Tensor]:
    return {f"player{number}": torch.from_numpy(one) for number, one in enumerate(strategies)}


def _facts(game: FlatGame | PlayedGame) -> dict[str, Any]:
    """How large a game is."""
    if isinstance(game, PlayedGame):
        sizes = {"played": True, "players": game.players, "features": game.features, "actions": game.actions}
        return {"game": game.name, **sizes, "longest": game.spiel.max_game_length()}
    states = {"states": [len(one.parent) for one in game.players], "sequences": [p.sequences for p in game.players]}
    return {"game": game.name, "histories": game.histories, **states}


def _spiel_name(task: str) -> str:
    if not task.startswith(PREFIX) or task == PREFIX:
        raise InputError(f"task {task!r}: write {PREFIX}NAME, such as {PREFIX}leduc_poker")
    return task


def run_name(variant: str, task: str) -> str:
    """Of the directory a run is written to unless another is named."""
    return f"{variant}-{file_name(task)}"
