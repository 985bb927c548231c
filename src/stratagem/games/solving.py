"""Solve a game: exploitability by iteration and by second, and a run directory with curves and strategies."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stratagem.errors import BrokenRunError, InputError
from stratagem.games.flat import LIMIT, FlatGame, Strategy
from stratagem.games.play import Play, Solver
from stratagem.games.population import Population
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

    game: that was solved.  strategies: of the players, by sequence.  averaged: whether they are the average; the
    current ones otherwise.  rows: what was measured, as ``metrics.jsonl`` has it.  directory: of the run, if any.
    """

    solver: Solver
    game: FlatGame
    strategies: tuple[Strategy, ...]
    averaged: bool
    rows: list[dict[str, Any]]
    directory: Path | None

    @property
    def exploitability(self) -> float:
        """Of the strategies, in units of utility."""
        return float(self.game.exploitability(self.strategies))

    @property
    def value(self) -> float:
        """What the first player earns when both play them."""
        return float(self.game.values(self.strategies)[0])

    def table(self) -> list[dict[str, dict[str, float]]]:
        """For every player the probability of each action by information state, as plain data."""
        return [
            {
                state: dict(zip(actions, strategy[low:high].tolist(), strict=True))
                for state, actions, low, high in zip(
                    player.states, player.actions, player.first[:-1], player.first[1:], strict=True
                )
            }
            for player, strategy in zip(self.game.players, self.strategies, strict=True)
        ]


def solve(
    variant: str | Solver,
    task: str | FlatGame,
    *,
    iterations: int = 1000,
    arguments: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    histories: int = LIMIT,
    progress: Progress | None = None,
) -> Solution:
    """Solve a game and measure on the way how exploitable the average strategy is.

    Measured after 1, 2, 3, 4, 6, ... iterations, evenly spaced on a logarithmic axis. Seconds are those of iterating
    alone, without compiling and measuring.

    variant: a name such as ``dcfr``, with ``arguments`` of its own, or a solver.  task: a game of OpenSpiel such as
    ``spiel:leduc_poker``, or a compiled game.  out: a directory for ``run.json``, ``environment.json``,
    ``metrics.jsonl``, ``strategy.json``, ``checkpoints/step-N`` and ``report.html``; without it nothing is written.
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
    game = compile_game(_spiel_name(task), histories) if isinstance(task, str) else task
    play = solver.start(game)
    play.advance(0)  # Compiles.
    run = None
    if out is not None:
        run = RunDirectory.create(out)
        asked = {"command": "solve", "variant": name, "arguments": dict(arguments or {}), "task": game.name}
        run.write_json("run.json", {**asked, "iterations": iterations, **_facts(game)})
        run.write_json("environment.json", environment(0))
    rows: list[dict[str, Any]] = []
    try:
        for row in _measured(play, iterations, progress):
            rows.append(row)
            if run is not None:
                run.append("metrics.jsonl", row)
    except KeyboardInterrupt:
        if run is None:
            raise
        _finish(run, name, solver, play, rows)
        raise BrokenRunError(f"stopped after {play.iteration} iterations; what they found is in {run.path}") from None
    return _finish(run, name, solver, play, rows)


def measured_at(iterations: int) -> list[int]:
    """Iterations at which a run of this length is measured: the first, the last, and ``PER_DECADE`` to each decade."""
    points = int(np.ceil(PER_DECADE * np.log10(iterations))) + 1
    return sorted({*np.geomspace(1, iterations, points).round().astype(int).tolist(), iterations})


def _measured(play: Play, iterations: int, progress: Progress | None) -> Iterator[dict[str, Any]]:
    """A row of metrics at each iteration that is measured."""
    seconds = 0.0
    row: dict[str, Any] = {}
    for target in measured_at(iterations):
        while play.iteration < target and not play.finished:
            rate = play.iteration / seconds if seconds else 1.0
            piece = min(target - play.iteration, max(1, int(rate * PIECE)))
            began = time.perf_counter()
            play.advance(piece)
            seconds += time.perf_counter() - began
            if progress is not None:
                progress(play.iteration, row)
        row = _row(play, seconds)
        if progress is not None:
            progress(play.iteration, row)
        yield row
        if play.finished:
            return


def _row(play: Play, seconds: float) -> dict[str, Any]:
    """How good the strategies are now."""
    average = play.average()
    return {
        "step": play.iteration,
        "seconds": seconds,
        "exploitability": float(play.game.exploitability(average)),
        "exploitability/current": float(play.game.exploitability(play.current())),
        "value": float(play.game.values(average)[0]),
        "averaged": play.averaged,
        **play.figures(),
    }


def _finish(run: RunDirectory | None, name: str, solver: Solver, play: Play, rows: list[dict[str, Any]]) -> Solution:
    """The solution as it stands, written down where there is a directory."""
    from stratagem.study.solving_report import write_solving_report

    game, found = play.game, play.average()
    solution = Solution(solver, game, found, play.averaged, rows, run.path if run else None)
    if run is not None:
        run.write_json("strategy.json", {"averaged": play.averaged, "players": solution.table()})
        tensors = {"average": _tensors(found), "current": _tensors(play.current()), **play.tensors()}
        run.save(f"step-{play.iteration}", Checkpoint({"iteration": play.iteration, **_facts(game)}, tensors))
        population = (play.metagame, play.final_mixtures()) if isinstance(play, Population) else None
        path = run.path / "report.html"
        write_solving_report(name, game.name, rows, path, facts=_facts(game), population=population)
    return solution


def _tensors(strategies: tuple[Strategy, ...]) -> dict[str, Tensor]:
    return {f"player{number}": torch.from_numpy(one) for number, one in enumerate(strategies)}


def _facts(game: FlatGame) -> dict[str, Any]:
    """How large a game is."""
    sizes = {"states": [len(one.parent) for one in game.players], "sequences": [p.sequences for p in game.players]}
    return {"game": game.name, "histories": game.histories, **sizes}


def _spiel_name(task: str) -> str:
    if not task.startswith(PREFIX) or task == PREFIX:
        raise InputError(f"task {task!r}: write {PREFIX}NAME, such as {PREFIX}leduc_poker")
    return task


def run_name(variant: str, task: str) -> str:
    """Of the directory a run is written to unless another is named."""
    return f"{variant}-{file_name(task)}"
