"""What a game must say of itself to be enumerated: where it starts, and what answers to the policy's tokens."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stratagem.parts import Preference


@dataclass(frozen=True)
class Outcome:
    """One way a turn may end.

    state: the policy's next turn begins in it; None ends the episode.  probability: of this way, given the turn.
    reward: of the turn.  success: of the episode.  truncated: the episode was cut by a limit of the game.
    executed: False when the game could not carry the turn's action out.
    components: further named rewards of the whole episode, added up over its turns.
    ran: whether the tool call of the turn was carried out; None: it made none.
    earlier: what the turn before this one earns once this one is known, beside its own reward.
    """

    state: Hashable | None = None
    probability: float = 1.0
    reward: float = 0.0
    success: bool = False
    truncated: bool = False
    executed: bool = True
    components: Mapping[str, float] = field(default_factory=dict)
    ran: bool | None = None
    earlier: float = 0.0


Act = Callable[[Any, tuple[int, ...]], "Sequence[Outcome] | None"]
Shown = Callable[[Any], Hashable]
Seat = Callable[[Any], tuple[int, int]]

Marks = Callable[[Any, tuple[int, ...]], Sequence[bool]]
Structure = Callable[[Any, tuple[int, ...]], tuple[Sequence[int], bool]]


@dataclass(frozen=True)
class TokenGame:
    """A game between a policy that speaks in tokens and a world that answers with states.

    Each turn begins in a state, which the policy sees; it then writes tokens until ``act(state, tokens)`` says that the
    turn is over. What an act leads to depends on nothing else, and every episode ends.

    name: how it is called.  description: one line.  vocabulary: number of tokens, at least 2.
    starts: probability and state of every start (what a prompt is to a language model).
    act: None while the turn goes on, else its outcomes, whose probabilities add up to 1.
    reward_names: columns of the reward; the first is the sum of the turns' rewards, the others are ``components``.
    reward_weights: what each column counts in the return; None: 1 each.
    shown: what of a state ``turn_state`` is the key of, where several states look alike; None: all of it. A policy of
    the lab is a table over histories, so it may still tell them apart.
    structure: of a whole turn, given its state and tokens: the span of each token, and whether a segment begins with
    the turn; None: turns have no structure.
    planning: of a whole turn, given its state and tokens: which of them plan; None: nothing is said of any.
    steps: likewise, which of them begin a step, beside the first, which always does; None: a turn is one step.
    oracle: who says which of two answers is preferred, where that and no reward is what an answer is worth.
    seat: the role that acts in a state, and the number of the conversation it acts in; None: always 0
    and 0. A policy of the lab has parameters of its own in every history, so roles share none.
    domains: of every start, the number of the task that it is of, from 0; none: all are of one.
    """

    name: str
    description: str
    vocabulary: int
    starts: tuple[tuple[float, Hashable], ...]
    act: Act
    reward_names: tuple[str, ...] = ("reward",)
    reward_weights: tuple[float, ...] | None = None
    shown: Shown | None = None
    structure: Structure | None = None
    seat: Seat | None = None
    domains: tuple[int, ...] = ()
    planning: Marks | None = None
    steps: Marks | None = None
    oracle: Preference | None = None

    def looks(self, state: Any) -> Hashable:
        """What the state looks like."""
        return state if self.shown is None else self.shown(state)


def over(reward: float, success: bool | None = None, truncated: bool = False, **components: float) -> list[Outcome]:
    """The episode ends for sure; unless told otherwise, with success when the reward is positive."""
    won = reward > 0 if success is None else success
    return [Outcome(reward=reward, success=won, truncated=truncated, components=components)]
