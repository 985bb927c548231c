"""Memory in three layers: a ring of events, a record of episodes, and insights that a reflector makes of events."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from stratagem.blueprint.schema import MemorySpec
from stratagem.errors import InputError
from stratagem.memory import Embedding, Item, Store
from stratagem.training.run_directory import whole_directory


@dataclass(frozen=True)
class Event:
    """Something that happened.  number: of its own, in order.  importance: in [0, 1]."""

    number: int
    text: str
    importance: float = 0.0


@dataclass(frozen=True)
class Insight:
    """What is to be remembered of events.  importance: ``w``, finite and above 0.  sources: numbers of the events."""

    text: str
    importance: float
    sources: tuple[int, ...] = ()


@dataclass(frozen=True)
class Episode:
    """What is left of an episode: its goal, its outcome, and its events."""

    goal: str
    outcome: str
    events: tuple[Event, ...]


@dataclass(frozen=True)
class Recalled:
    """A retrieved insight.  ``score = weight * similarity * recency``."""

    text: str
    score: float
    weight: float
    similarity: float
    recency: float
    sources: tuple[int, ...]


Reflector = Callable[[Sequence[Event]], Sequence[Insight]]


def important(events: Sequence[Event]) -> list[Insight]:
    """The default reflector: every event of importance 0.5 or more is an insight, word for word. It needs no model."""
    return [Insight(event.text, event.importance, (event.number,)) for event in events if event.importance >= 0.5]


class LayeredMemory:
    """Events, episodes and insights (arXiv 2602.23720).

    Events go to a ring of ``spec.events``. When more than that have not been reflected on, and at the end of an
    episode, the reflector makes insights of them; each event is reflected on once, and none leaves the ring before.
    An insight whose cosine with a known one is at least ``spec.merge_from`` is merged into that, which keeps its text,
    the larger of both weights, and all sources; others are inserted. Weights decay, ``w <- w exp(-dt / decay)`` with
    ``dt`` counted in events, and beyond ``spec.insights`` the one of smallest weight is evicted, the oldest of equals.
    Retrieval scores ``w * similarity * recency`` with ``recency = exp(-age / spec.recency)``, ``age`` the events since
    it was written or merged; a similarity below 0 is 0.

    The paper's own equations were not available: this is a reconstruction of its description. Insights are kept in a
    :class:`stratagem.memory.Store` (text as intent, weight as utility), as learned utilities are.

    reflector: one that raises, or gives an insight of no finite positive weight, is counted in ``faults``; the events
    stay in ring and record.  embedding: as of the store.
    """

    def __init__(
        self,
        spec: MemorySpec | None = None,
        reflector: Reflector = important,
        embedding: Embedding | None = None,
    ) -> None:
        self.spec = MemorySpec() if spec is None else spec
        self.reflector = reflector
        self.events: deque[Event] = deque(maxlen=self.spec.events)
        self.episodes: deque[Episode] = deque(maxlen=self.spec.episodes)
        self.insights = Store(embedding)
        self.sources: dict[int, tuple[int, ...]] = {}
        self.faults = 0
        self._waiting: list[Event] = []
        self._episode: list[Event] = []
        self._decayed = 0

    def note(self, text: str, importance: float = 0.0) -> Event:
        """Something has happened. Raises :class:`InputError` for an importance outside [0, 1]."""
        if not 0 <= importance <= 1:
            raise InputError(f"memory: importance = {importance}: must be in [0, 1]")
        if len(self._waiting) >= self.spec.events:
            self.consolidate()
        event = Event(self.insights.clock, text, importance)
        self.insights.clock += 1
        self.events.append(event)
        self._waiting.append(event)
        self._episode.append(event)
        return event

    def end_episode(self, goal: str, outcome: str) -> Episode:
        """Reflect on what has not been, and put the episode on record."""
        self.consolidate()
        episode = Episode(goal, outcome, tuple(self._episode))
        self.episodes.append(episode)
        self._episode = []
        return episode

    def consolidate(self) -> list[Item]:
        """Decay, then insights from the events that wait; returns what they were inserted as or merged into."""
        self._decay()
        events, self._waiting = tuple(self._waiting), []
        if not events:
            return []
        try:
            insights = list(self.reflector(events))
            return [self.insert(insight) for insight in insights]
        except Exception:
            self.faults += 1
            return []

    def insert(self, insight: Insight) -> Item:
        """Remember an insight, merged or new. Raises :class:`InputError` for a weight not finite and above 0."""
        if not 0 < insight.importance < math.inf:
            raise InputError(f"memory: insight of importance {insight.importance}: must be finite and above 0")
        self._decay()
        store = self.insights
        nearest = store.nearest(insight.text)
        if nearest is not None and nearest[1] >= self.spec.merge_from:
            [item] = store.filed_under(nearest[0])
            item.utility = max(item.utility, insight.importance)
            item.visits += 1
            item.used = store.clock
        else:
            item = store.add(insight.text, insight.text, insight.importance)
        self.sources[item.number] = tuple(dict.fromkeys((*self.sources.get(item.number, ()), *insight.sources)))
        while len(store) > self.spec.insights:
            worst = min(store.items.values(), key=lambda one: (one.utility, one.number))
            store.remove(worst.number)
            del self.sources[worst.number]
        return item

    def retrieve(self, query: str, count: int | None = None) -> list[Recalled]:
        """The insights of largest score, best first, oldest of equals; none of score 0. Nothing changes."""
        store = self.insights
        similarities = dict(zip(store.intents, store.similarities(query).nan_to_num(nan=0.0).tolist(), strict=True))
        passed = math.exp(-(store.clock - self._decayed) / self.spec.decay)
        found = []
        for item in store.items.values():
            weight, similarity = item.utility * passed, max(0.0, similarities[item.intent])
            recency = math.exp(-(store.clock - item.used) / self.spec.recency)
            sources = self.sources[item.number]
            found.append(Recalled(item.intent, weight * similarity * recency, weight, similarity, recency, sources))
        best = sorted((one for one in found if one.score > 0), key=lambda one: -one.score)
        return best[: self.spec.retrieved if count is None else count]

    def _decay(self) -> None:
        """All weights, by the events since they last decayed."""
        passed = self.insights.clock - self._decayed
        for item in self.insights.items.values():
            item.utility *= math.exp(-passed / self.spec.decay)
        self._decayed = self.insights.clock

    # ---- the folder ------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> Path:
        """Write a folder, whole or not at all; what waits for reflection is reflected on first. Returns the folder.

        Raises :class:`InputError` when something else is there.
        """
        path = Path(path)
        if path.exists() and not (path.is_dir() and (not any(path.iterdir()) or (path / "memory.json").is_file())):
            raise InputError(f"memory {path}: exists and holds no memory")
        self.consolidate()
        state = {
            "events": [asdict(event) for event in self.events],
            "episode": [asdict(event) for event in self._episode],
            "episodes": [asdict(episode) for episode in self.episodes],
            "sources": {str(number): list(sources) for number, sources in self.sources.items()},
            "faults": self.faults,
        }
        with whole_directory(path) as directory:
            (directory / "memory.json").write_text(json.dumps(state, allow_nan=False), encoding="utf-8")
            self.insights.save(directory / "insights")
        return path

    def load(self, path: str | Path) -> None:
        """Take over what :meth:`save` wrote; spec, reflector and embedding stay. Raises :class:`InputError`."""
        path = Path(path)
        insights = Store.load(path / "insights", self.insights.embedding)
        try:
            state = json.loads((path / "memory.json").read_text(encoding="utf-8"))
            events, episode = _events(state["events"]), _events(state["episode"])
            episodes = [Episode(one["goal"], one["outcome"], _events(one["events"])) for one in state["episodes"]]
            sources = {int(number): tuple(map(int, found)) for number, found in state["sources"].items()}
            faults = int(state["faults"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise InputError(f"memory {path}: memory.json is missing or damaged") from None
        if sources.keys() != insights.items.keys():
            raise InputError(f"memory {path}: memory.json and its insights do not fit together")
        self.insights, self.sources, self.faults = insights, sources, faults
        self.events, self.episodes = (
            deque(events, maxlen=self.spec.events),
            deque(episodes, maxlen=self.spec.episodes),
        )
        self._waiting, self._episode, self._decayed = [], list(episode), insights.clock


def _events(rows: Iterable[dict[str, object]]) -> tuple[Event, ...]:
    return tuple(Event(int(str(row["number"])), str(row["text"]), float(str(row["importance"]))) for row in rows)
