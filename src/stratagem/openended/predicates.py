"""Predicates: what may be true of a world, what it is called, and which is which in the eyes of another player."""

from __future__ import annotations

from itertools import combinations

import torch
from jaxtyping import Int64
from torch import Tensor

OBJECTS = ("ball", "box", "cone", "disc")
FLOORS = ("red", "green", "blue")

SIGHT = 2
"""Cells at most, along rows and along columns, at which an object or a player is seen."""

Predicate = tuple[str, int | str, int | str]
"""Kind and what it is about: a player by how many seats it is further on, 0 being oneself, anything else by name."""


def predicates(players: int, objects: int) -> list[Predicate]:
    """All of a universe: those of a universe with one player, then those about co-players."""
    names, others = OBJECTS[:objects], range(1, players)
    pairs = list(combinations(range(players), 2))
    return [
        *(("near", 0, one) for one in names),
        *(("near", one, other) for one, other in combinations(names, 2)),
        *(("hold", 0, one) for one in names),
        *(("see", 0, one) for one in names),
        *(("on", 0, floor) for floor in FLOORS),
        *(("on", one, floor) for one in names for floor in FLOORS),
        *(("near", one, other) for one, other in pairs),
        *(("near", player, one) for player in others for one in names),
        *(("hold", player, one) for player in others for one in names),
        *(("see", one, other) for one, other in pairs),
        *(("see", player, one) for player in others for one in names),
        *(("on", player, floor) for player in others for floor in FLOORS),
    ]


def word(predicate: Predicate) -> str:
    """As a goal names it: ``near agent ball``, ``hold ball``, ``hold player1 ball``, ``see player1``."""
    kind, *about = predicate
    if kind in ("hold", "see") and about[0] == 0:
        about = about[1:]
    return " ".join([kind, *(_called(one) for one in about)])


def perspectives(players: int, objects: int) -> Int64[Tensor, "players predicates"]:
    """For every seat and predicate, which one it is in the eyes of seat 0.

    To every player ``player1`` is the one in the next seat, and the seats go round: turning all players one seat on
    changes nothing for anybody, and neither does, with two of them, exchanging them.
    """
    known = predicates(players, objects)
    number = {predicate: place for place, predicate in enumerate(known)}
    return torch.tensor([[number[_seen_from(seat, one, players)] for one in known] for seat in range(players)])


def _called(one: int | str) -> str:
    return one if isinstance(one, str) else f"player{one}" if one else "agent"


def _seen_from(seat: int, predicate: Predicate, players: int) -> Predicate:
    kind, *about = predicate
    first, second = ((one + seat) % players if isinstance(one, int) else one for one in about)
    if isinstance(first, int) and isinstance(second, int):
        # To be near and to be seen are mutual.
        first, second = sorted((first, second))
    return kind, first, second
