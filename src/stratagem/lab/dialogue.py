"""A talk with a user whose mood follows from what is said: rewards on the way, chance, and talks of unequal length."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import partial

from stratagem.lab.game import Outcome, TokenGame

COMFORT, ADVICE, CHAT = range(3)
"""What can be said in a turn."""

UPSET, CALM, GLAD = range(3)
"""Moods of the user; each is better by 1 than the one before."""


def mood_game(turns: int = 8) -> TokenGame:
    """A talk of up to so many turns, each of one token.

    Comfort calms an upset user and changes nothing otherwise. Advice makes a calm user glad or upset, both as likely,
    and a glad one calm; an upset one does not listen. Chat makes every mood worse by one, and an upset user leaves for
    a reward of -1. Every turn earns the change of mood. The user begins upset or calm; a talk that ends with a glad
    user is a success. The histories of which a policy of the lab is a table show the mood, so it is no secret.
    """
    description = (
        f"Up to {turns} turns: comfort, advise or chat; each earns the change of the user's mood, which only comfort "
        "and then advice make good. Who chats with an upset user is left alone."
    )
    starts: tuple[tuple[float, Hashable], ...] = ((0.5, (0, UPSET)), (0.5, (0, CALM)))
    return TokenGame("mood", description, 3, starts, partial(_answer, turns))


def _answer(turns: int, state: tuple[int, int], tokens: tuple[int, ...]) -> Sequence[Outcome]:
    turn, mood = state
    last = turn == turns - 1

    def becomes(new: int, probability: float = 1.0) -> Outcome:
        return Outcome(None if last else (turn + 1, new), probability, float(new - mood), last and new == GLAD)

    said = tokens[0]
    if said == CHAT:
        return [Outcome(reward=-1.0)] if mood == UPSET else [becomes(mood - 1)]
    if said == COMFORT or mood == UPSET:
        return [becomes(CALM if said == COMFORT and mood == UPSET else mood)]
    return [becomes(CALM)] if mood == GLAD else [becomes(GLAD, 0.5), becomes(UPSET, 0.5)]
