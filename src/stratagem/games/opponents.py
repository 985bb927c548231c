"""Who plays the other seats: actors and mixtures read from runs that solved a game or trained a policy for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stratagem.errors import InputError
from stratagem.games.metagame import Mixture
from stratagem.games.played import Actors, NetworkActor, PlayedGame, TableActor
from stratagem.games.rosters import POPULATION, read_actors
from stratagem.games.spiel import compile_game
from stratagem.training.run_directory import Checkpoint, RunDirectory


def read_opponents(folder: str | Path, game: PlayedGame) -> tuple[Actors, tuple[Mixture, ...]]:
    """By player the actors of a run, and how often each of them plays.

    folder: a run of ``stratagem solve`` on this game, whose final strategies play; a run of ``stratagem train`` on a
    seat of it, or the policy one saved, which then plays every seat.

    Raises :class:`InputError` for a folder that holds none of these, or one of another game.
    """
    path = Path(folder)
    asked = RunDirectory(path).read_json("run.json") if (path / "run.json").is_file() else {}
    if asked.get("command") != "solve":
        return _policy(path / "model" if (path / "model").is_dir() else path, game)
    if asked["game"] != game.name:
        raise InputError(f"run {path}: solved {asked['game']}, not {game.name}")
    saved = RunDirectory(path).load()
    return _population(path, saved) if asked.get("played") else _average(saved, game)


def _population(path: Path, saved: Checkpoint) -> tuple[Actors, tuple[Mixture, ...]]:
    """The networks of a population and its final mixtures."""
    mixtures = [saved.tensors["mixture"][f"player{player}"].numpy() for player in range(len(saved.state["members"]))]
    return read_actors(path / POPULATION, saved.state["members"]), tuple(mixtures)


def _average(saved: Checkpoint, game: PlayedGame) -> tuple[Actors, tuple[Mixture, ...]]:
    """The strategies that were found for an enumerated game."""
    players = compile_game(game.name, int(saved.state["histories"])).players
    rows = [saved.tensors["average"][f"player{number}"].numpy() for number in range(len(players))]
    return tuple((TableActor(tree, row),) for tree, row in zip(players, rows, strict=True)), (np.ones(1),) * len(rows)


def _policy(path: Path, game: PlayedGame) -> tuple[Actors, tuple[Mixture, ...]]:
    """One policy at every seat."""
    from stratagem.games.task import SeatTask
    from stratagem.multiagent.game import check_actions
    from stratagem.multiagent.policy import AgentsPolicy

    policy = AgentsPolicy.from_directory(path).frozen()
    check_actions(SeatTask(game), policy)
    return ((NetworkActor(policy),),) * game.players, (np.ones(1),) * game.players
