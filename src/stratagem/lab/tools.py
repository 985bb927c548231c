"""Games in which a policy may call tools a bounded number of times before it answers, with a composite reward."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import NamedTuple

from stratagem.errors import InputError
from stratagem.lab.game import Outcome, TokenGame

REWARDS = ("accuracy", "format", "executability")
"""Components of the reward of a tool game, each in [0, 1]."""


class Conversation(NamedTuple):
    """What the policy sees before a turn: the prompt's number, what its calls returned, and calls that were refused.

    results: tool and value of every call that was carried out, in order; the value is None where the call failed and
    -1 where the tool has nothing to say.
    """

    prompt: int
    results: tuple[tuple[int, int | None], ...] = ()
    refused: int = 0

    def __str__(self) -> str:
        said = {None: "failed", -1: "is silent"}
        results = [f"tool {tool} {said.get(value, f'says {value}')}" for tool, value in self.results]
        return "; ".join([f"prompt {self.prompt}", *results, *["a call is refused"] * self.refused])

    @property
    def calls(self) -> int:
        """Calls so far, each of them a turn."""
        return len(self.results) + self.refused

    @property
    def errors(self) -> int:
        """Calls that failed or were refused."""
        return sum(value is None for _, value in self.results) + self.refused


@dataclass(frozen=True)
class ToolRules:
    """Bounded tool use: a tool-augmented decision process (TA-MDP, arXiv 2604.19857) of one token per turn.

    The paper's own formal definition was not available; this is a reconstruction from its abstract, which has tool
    calls of bounded depth and rewards for format, accuracy and executability.

    With ``k`` tools and ``m`` answers, tokens ``0 .. k-1`` call a tool, ``k .. k+m-1`` are answers, and the last is
    text that cannot be read. An answer or unreadable text ends the episode, and so does the last turn of the horizon.
    The right answer to prompt ``i`` is ``i + sum(hidden) mod m``. Its ``needs[i]`` hidden values, uniform at first, are
    told by tools ``i, i+1, ... mod k``, one each; other tools have nothing to say.

    Rewards: ``accuracy`` is 1 for the right answer; ``format`` 1 for one that can be read; ``executability`` the
    share of calls that ran without error. A call after ``depth`` others is refused: it is not carried out, counts as an
    error, and takes its turn. (Masking such calls, the other choice, would need a policy that knows the rules.)

    needs: hidden values of each prompt, from 0 to the number of tools; prompts are of equal odds.
    success: probability that a call of each tool runs without error.  depth: most calls carried out, at least 0.
    horizon: most turns, at least 1; None: ``depth + 1``.  answers: number of answers, at least 2.
    noise: probability that a tool tells a wrong value, all wrong ones being as likely.
    without_calls: executability of an episode without calls, in [0, 1].

    Raises :class:`InputError` for a number out of range.
    """

    needs: tuple[int, ...] = (0, 1, 2)
    success: tuple[float, ...] = (0.8, 0.8, 0.8)
    depth: int = 2
    horizon: int | None = None
    answers: int = 2
    noise: float = 0.0
    without_calls: float = 1.0

    def __post_init__(self) -> None:
        allowed = {
            "success": (all(0 <= odds <= 1 for odds in self.success) and self.success, "one or more numbers in [0, 1]"),
            "needs": (
                all(0 <= n <= self.tools for n in self.needs) and self.needs,
                f"from 0 to {self.tools}, the tools",
            ),
            "depth": (self.depth >= 0, "at least 0"),
            "horizon": (self.turns >= 1, "at least 1"),
            "answers": (self.answers >= 2, "at least 2"),
            "noise": (0 <= self.noise <= 1, "in [0, 1]"),
            "without_calls": (0 <= self.without_calls <= 1, "in [0, 1]"),
        }
        for name, (right, must) in allowed.items():
            if not right:
                raise InputError(f"tool_rules.{name} = {getattr(self, name)}: must be {must}")

    @property
    def tools(self) -> int:
        """Number of tools."""
        return len(self.success)

    @property
    def turns(self) -> int:
        """Most turns."""
        return self.depth + 1 if self.horizon is None else self.horizon

    def act(self, state: Conversation, tokens: tuple[int, ...]) -> list[Outcome]:
        """What a token leads to."""
        token = tokens[0]
        if token >= self.tools:
            return self._answered(state, token - self.tools)
        if len(state.results) == self.depth:
            return [self._called(state._replace(refused=state.refused + 1), 1.0)]
        told = [(value, odds) for value, odds in self._told(state, token) if odds > 0]
        return [self._called(state._replace(results=(*state.results, (token, value))), odds) for value, odds in told]

    def _called(self, state: Conversation, odds: float) -> Outcome:
        """The turn after a call, unless there is none."""
        if state.calls < self.turns:
            return Outcome(state, odds)
        return Outcome(None, odds, truncated=True, components={"executability": self._executability(state)})

    def _answered(self, state: Conversation, answer: int) -> list[Outcome]:
        components = {"executability": self._executability(state)}
        if answer == self.answers:
            return [Outcome(components=components)]
        components["format"] = 1.0
        right = sum(odds for hidden, odds in self._belief(state) if self.answer(state.prompt, hidden) == answer)
        return [
            Outcome(None, odds, float(success), success, components=components)
            for success, odds in ((True, right), (False, 1 - right))
            if odds > 0
        ]

    def answer(self, prompt: int, hidden: tuple[int, ...]) -> int:
        """The right answer to a prompt with these hidden values."""
        return (prompt + sum(hidden)) % self.answers

    def _executability(self, state: Conversation) -> float:
        return 1 - state.errors / state.calls if state.calls else self.without_calls

    def _told(self, state: Conversation, tool: int) -> list[tuple[int | None, float]]:
        """What a call may return, each with its probability."""
        place, runs = self._place(state.prompt, tool), self.success[tool]
        if place is None:
            return [(None, 1 - runs), (-1, runs)]
        belief = self._belief(state)
        heard = [sum(odds * self._likelihood(h[place], value) for h, odds in belief) for value in range(self.answers)]
        return [(None, 1 - runs), *((value, runs * odds) for value, odds in enumerate(heard))]

    def _belief(self, state: Conversation) -> list[tuple[tuple[int, ...], float]]:
        """The hidden values there may be, each with its probability given the results."""
        found = []
        for hidden in product(range(self.answers), repeat=self.needs[state.prompt]):
            odds = 1.0
            for tool, value in state.results:
                place = self._place(state.prompt, tool)
                if place is not None and value is not None:
                    odds *= self._likelihood(hidden[place], value)
            found.append((hidden, odds))
        total = sum(odds for _, odds in found)
        return [(hidden, odds / total) for hidden, odds in found if odds > 0]

    def _place(self, prompt: int, tool: int) -> int | None:
        """Which hidden value of the prompt the tool tells; None when it has nothing to say."""
        place = (tool - prompt) % self.tools
        return place if place < self.needs[prompt] else None

    def _likelihood(self, hidden: int, told: int) -> float:
        return 1 - self.noise if hidden == told else self.noise / (self.answers - 1)


@cache
def tool_game(
    rules: ToolRules, weights: tuple[float, float, float] = (1.0, 1.0, 1.0), name: str = "tools"
) -> TokenGame:
    """The token game of these rules. weights: of accuracy, format and executability in the return."""
    description = (
        f"{len(rules.needs)} prompts, {rules.tools} tools that tell what an answer rests on, at most {rules.depth} "
        f"calls before it; one token per turn. Rewards: {', '.join(REWARDS)}."
    )
    starts = tuple((1 / len(rules.needs), Conversation(prompt)) for prompt in range(len(rules.needs)))
    return TokenGame(name, description, rules.tools + rules.answers + 1, starts, rules.act, REWARDS, weights)
