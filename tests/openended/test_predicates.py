"""Predicates among players: what they are called, and what they are in the eyes of another player."""

from __future__ import annotations

import torch

from stratagem.openended import OpenEndedTask
from stratagem.openended.predicates import perspectives, predicates, word


def _named(universe: OpenEndedTask, seat: int, name: str) -> str:
    """What the player in that seat calls so, in the eyes of seat 0."""
    number = universe.predicates.index(name)
    return universe.predicates[int(universe.perspectives[seat, number])]


def test_those_of_one_player_come_first_and_are_what_they_were():
    one, two, three = (OpenEndedTask(players=players).predicates for players in (1, 2, 3))
    assert two[: len(one)] == three[: len(one)] == one
    assert one[:9] == (
        *("near agent ball", "near agent box", "near agent cone"),
        *("near ball box", "near ball cone", "near box cone"),
        *("hold ball", "hold box", "hold cone"),
    )
    assert len(one) == 24 and len(two) == 24 + 14 and len(three) == 24 + 30
    assert len(set(three)) == len(three)
    assert two[24:] == (
        "near agent player1",
        *("near player1 ball", "near player1 box", "near player1 cone"),
        *("hold player1 ball", "hold player1 box", "hold player1 cone"),
        "see player1",
        *("see player1 ball", "see player1 box", "see player1 cone"),
        *("on player1 red", "on player1 green", "on player1 blue"),
    )
    assert {"near player1 player2", "see player1 player2", "hold player2 ball"} <= set(three)


def test_what_another_player_calls_itself_is_a_co_player_to_the_first():
    two, three = OpenEndedTask(players=2), OpenEndedTask(players=3)
    for name, seen in (
        ("hold ball", "hold player1 ball"),
        ("hold player1 ball", "hold ball"),
        ("near agent player1", "near agent player1"),
        ("on agent red", "on player1 red"),
        ("near ball box", "near ball box"),
        ("see player1", "see player1"),
    ):
        assert _named(two, 1, name) == seen and _named(two, 0, name) == name
    for seat, name, seen in (
        (1, "near agent player1", "near player1 player2"),
        (1, "near agent player2", "near agent player1"),
        (2, "near agent player1", "near agent player2"),
        (2, "see player1 box", "see box"),
        (1, "hold player2 cone", "hold cone"),
    ):
        assert _named(three, seat, name) == seen


def test_names_in_the_eyes_of_others_are_a_rearrangement_and_go_round():
    for players in (1, 2, 3):
        found, count = perspectives(players, 3), len(predicates(players, 3))
        assert torch.equal(found[0], torch.arange(count))
        assert torch.equal(found.sort(1).values, torch.arange(count).expand(players, -1))
        turned = torch.arange(count)
        for _ in range(players):
            turned = found[1 % players][turned]
        assert torch.equal(turned, torch.arange(count)), "after as many turns as players all is as it was"


def test_the_subject_of_seeing_and_holding_is_left_out_for_oneself():
    assert [word(one) for one in (("see", 0, 1), ("see", 1, 2), ("hold", 0, "ball"), ("near", 0, "ball"))] == [
        "see player1",
        "see player1 player2",
        "hold ball",
        "near agent ball",
    ]
