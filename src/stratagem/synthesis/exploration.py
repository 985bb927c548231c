"""Exploring an environment that sets no task: what is remembered of it, and what to try next."""

from __future__ import annotations

import math
import re
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge

from stratagem.errors import InputError
from stratagem.part import Part
from stratagem.tasks.splits import seeded

SUMMARIZED, CUT, WORDS, HISTORY = 50, 200, 500, 3
"""Latest triplets a summary is of, characters kept of an observation, words of a summary, entries an explorer sees."""

Summarize = Callable[[str, Sequence[str]], str]
"""Writes a summary of an environment from the one before and what was done since; cut at ``WORDS`` words."""


@dataclass(frozen=True)
class Triplet:
    """One action: what was seen before, what was done, what was seen then, and how it was come to.

    environment, rollout: numbers.  path: all actions of the rollout since the reset, this one last.
    effective: those of them after which the state was another one.  opening: what the reset showed.
    history: the last entries before it.  state, next_state: keys before and after.
    """

    environment: int
    rollout: int
    opening: str
    before: str
    action: str
    observation: str
    reward: float
    done: bool
    state: int
    next_state: int
    path: tuple[str, ...]
    effective: tuple[str, ...]
    history: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.action} -> {' / '.join(self.observation[:CUT].splitlines())}"


class EnvironmentMemory:
    """What was tried in one environment, over all rollouts there.

    ``tree``: visits of every sequence of actions since a reset (a prefix tree, by path).  ``tried``: how often an
    action was taken in a state.  ``led_to``: what was seen then, the last time.  ``seen``: how often a text was seen.
    """

    def __init__(self, summarize: Summarize | None = None) -> None:
        self.tree: Counter[tuple[str, ...]] = Counter()
        self.tried: Counter[tuple[int, str]] = Counter()
        self.led_to: dict[tuple[int | tuple[str, ...], str], str] = {}
        self.seen: Counter[str] = Counter()
        self._latest: deque[str] = deque(maxlen=SUMMARIZED)
        self._since = 0
        self._summarize, self._written = summarize, ""

    def begin(self, observation: str) -> None:
        """A reset, and what it showed."""
        self.tree[()] += 1
        self.seen[observation] += 1

    def note(self, triplet: Triplet) -> None:
        """An action."""
        self.tree[triplet.path] += 1
        self.tried[triplet.state, triplet.action] += 1
        self.led_to[triplet.state, triplet.action] = triplet.observation
        self.led_to[triplet.path[:-1], triplet.action] = triplet.observation
        self.seen[triplet.observation] += 1
        self._latest.append(str(triplet))
        self._since += 1

    def end(self) -> None:
        """The end of a rollout: bring a written summary up to date."""
        if self._summarize is not None and self._since:
            new = list(self._latest)[-self._since :]
            self._written = _cut(self._summarize(self._written, new), first=True)
        self._since = 0

    @property
    def summary(self) -> str:
        """At most ``WORDS`` words: as written, else the latest triplets, a line each, the oldest cut first."""
        return self._written if self._summarize is not None else _cut("\n".join(self._latest), first=False)


def _cut(text: str, first: bool) -> str:
    """The first or last ``WORDS`` words of a text, with the space between them as it was."""
    words = list(re.finditer(r"\S+", text))
    if len(words) <= WORDS:
        return text
    return text[: words[WORDS - 1].end()] if first else text[words[-WORDS].start() :]


@dataclass(frozen=True)
class Look:
    """What an explorer sees before it acts.

    observation, state: now.  path: actions since the reset.  history: the last entries.  memory: of this environment.
    concepts: starting points of this rollout.  principles: what is wanted, in words.  choice: numbers of this choice,
    which with a seed decide what is random in it.
    """

    observation: str
    state: int
    path: tuple[str, ...]
    history: tuple[str, ...]
    memory: EnvironmentMemory
    concepts: tuple[str, ...] = ()
    principles: str = ""
    choice: tuple[int, ...] = ()

    def prompt(self) -> str:
        """The same for a language model, which is asked for an action that was not tried yet."""
        tried = sorted(action for state, action in self.memory.tried if state == self.state)
        parts = (
            self.principles,
            f"Possible starting points: {', '.join(self.concepts)}" if self.concepts else "",
            f"What is known of this environment:\n{self.memory.summary}" if self.memory.summary else "",
            "\n".join(("What you did last:", *self.history)) if self.history else "",
            f"Now you see:\n{self.observation}",
            f"Already tried here: {', '.join(tried)}" if tried else "",
            "Say one action that has not been tried yet and may show something new.",
        )
        return "\n\n".join(part for part in parts if part)


Explorer = Callable[[Look], str]
"""Chooses the next action; a language model is one that is asked :meth:`Look.prompt`."""


@dataclass(frozen=True)
class RandomWalk:
    """Any of these actions with equal probability."""

    actions: Sequence[str]
    seed: int = 0

    def __call__(self, look: Look) -> str:
        return seeded("random walk", self.seed, *look.choice).choice(list(self.actions))


@dataclass(frozen=True)
class Curiosity(Part):
    """The action of the highest ``1 / sqrt(1 + N) + novelty [new] + concept [named]``, ties at random.

    ``N``: how often the action was taken here before. ``new``: it was not, or what it led to was seen once only.
    ``named``: it names a concept of the rollout that no action of the rollout has named, for they are where to start.

    actions: those there are, at least one.  novelty, concept: weights, at least 0.  here: ``state`` by the key of the
    state; ``path`` by all actions since the reset, which after the first few is a random walk, as no path comes again.
    seed: of ties.

    A reconstruction: in the paper a language model is asked for what was not tried yet; there is no formula.
    """

    kind: ClassVar[str] = "explorer"

    actions: tuple[str, ...]
    novelty: Annotated[float, Ge(0)] = 0.5
    concept: Annotated[float, Ge(0)] = 0.25
    here: Literal["state", "path"] = "state"
    seed: Annotated[int, Ge(0)] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.actions:
            raise InputError("curiosity.actions: needs at least one action")
        for name in ("novelty", "concept"):
            if not math.isfinite(getattr(self, name)):
                raise InputError(f"curiosity.{name} = {getattr(self, name)}: must be finite")

    def __call__(self, look: Look) -> str:
        scores = [self.score(look, action) for action in self.actions]
        best = max(scores)
        tied = [action for action, score in zip(self.actions, scores, strict=True) if score == best]
        return seeded("curiosity", self.seed, *look.choice).choice(tied)

    def score(self, look: Look, action: str) -> float:
        """What this action promises."""
        memory = look.memory
        if self.here == "state":
            visits, led_to = memory.tried[look.state, action], memory.led_to.get((look.state, action))
        else:
            visits, led_to = memory.tree[(*look.path, action)], memory.led_to.get((look.path, action))
        new = led_to is None or memory.seen[led_to] == 1
        named = bool((set(look.concepts) - words(" ".join(look.path))) & words(action))
        return 1 / math.sqrt(1 + visits) + self.novelty * new + self.concept * named


def words(text: str) -> frozenset[str]:
    """The words of a text in lower case, without signs."""
    return frozenset(re.findall(r"\w+", text.lower()))


_COMMON = words("a an and any are as at be by can do does for from has have if in into is it its of on one or say so "
                "some than that the then there these they this to use was what when which with you your")  # fmt: skip


def concept_pool(*texts: str) -> tuple[str, ...]:
    """Words of a description, wishes and examples that may name something, each once, in order; a rule of ours."""
    found: dict[str, None] = {}
    for text in texts:
        for word in re.findall(r"[^\W\d_]{3,}", text.lower()):
            if word not in _COMMON:
                found.setdefault(word)
    return tuple(found)


def chosen_concepts(pool: Sequence[str], most: int, seed: int, *numbers: int) -> tuple[str, ...]:
    """At most so many of the pool, in random order, for the rollout of these numbers."""
    shuffled = list(pool)
    seeded("concepts", seed, *numbers).shuffle(shuffled)
    return tuple(shuffled[:most])
