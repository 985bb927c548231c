"""Episodic memory with learned utilities: what is shown to a frozen solver, and how outcomes move what is shown."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, ClassVar, Generic, Literal, TypeVar

import torch
from annotated_types import Ge, Gt, Le

from stratagem.catalogue import paper
from stratagem.errors import InputError
from stratagem.memory.store import Item, Store
from stratagem.part import Part
from stratagem.seeding import generator

T = TypeVar("T")


@dataclass(frozen=True)
class Found:
    """A candidate: its number and text, how similar its intent is, its utility, and the score it was ranked by."""

    number: int
    experience: str
    similarity: float
    utility: float
    score: float


@dataclass(frozen=True)
class Retrieval:
    """What was found for a task.

    selected: to be shown, best first.  candidates: all that passed the first phase, best first.
    explored: whether the selection is random.
    """

    selected: tuple[Found, ...] = ()
    candidates: tuple[Found, ...] = ()
    explored: bool = False

    @property
    def experiences(self) -> tuple[str, ...]:
        """Texts to be shown."""
        return tuple(found.experience for found in self.selected)

    @property
    def numbers(self) -> tuple[int, ...]:
        """Of the experiences to be shown."""
        return tuple(found.number for found in self.selected)

    @property
    def best_utility(self) -> float:
        """Largest utility among the candidates, 0 without any: what ``discount`` counts of a following task."""
        return max((found.utility for found in self.candidates), default=0.0)


@dataclass(frozen=True)
class Attempt:
    """What came of a task: its reward, None when the attempt says nothing, and an experience to write, if any."""

    reward: float | None
    experience: str | None = None


@dataclass(frozen=True)
class Solved(Generic[T]):
    """A task of a stream, what was found for it, and what came of it."""

    task: T
    retrieval: Retrieval
    attempt: Attempt


@paper(
    "2601.03192",
    title="MemRL: Self-Evolving Agents via Runtime Reinforcement Learning on Episodic Memory",
    family="agents",
    roles=("memory", "sampler", "policy"),
    year=2026,
    name="memrl",
)
@dataclass(frozen=True)
class EpisodicMemory(Part):
    """MemRL: experiences a frozen solver is shown, by similarity first and by learned utility ``Q`` second.

    No weight changes; what is learned is ``Q <- (1 - alpha) Q + alpha (r + discount Q')`` of the experiences that were
    shown, from the reward ``r`` of the task (1 for success and -1 for failure in the paper's experiments).

    First phase: the ``nearest`` intents whose cosine with the task is at least ``threshold``; their experiences are the
    candidates, none of them no experience is shown. Second phase: the ``selected`` candidates of the highest score,
    ``w_sim (sim - mean) / std + w_q clip((Q - mean_C Q) / sd_C Q, -3, 3)``, with fixed statistics of similarity and
    those of the candidates' utilities (population standard deviation, 1 where it is 0). Ties go to the more similar,
    then to the older. Of candidates that say the same word for word the most visited one stands for all.

    >>> from stratagem.memory import Attempt, EpisodicMemory, Store
    >>> memory, store = EpisodicMemory(threshold=0.5), Store()
    >>> def solve(task, experiences):  # a model that is asked with the experiences in its prompt
    ...     return Attempt(reward=1.0, experience="sort the list first")
    >>> tasks = ["median of a list", "the median of a list"]
    >>> [solved.retrieval.experiences for solved in memory.play(store, tasks, solve)]
    [(), ('sort the list first',)]
    >>> [(item.utility, item.visits) for item in store.items.values()]
    [(0.3, 1), (0.0, 0)]

    threshold: least similarity, in [-1, 1].  nearest: intents of the first phase, at least 1.  selected: experiences
    shown, at least 1.  ranking: ``mixture`` as above, ``utility`` by ``Q`` alone.
    similarity_weight, utility_weight: ``w_sim`` and ``w_q``, at least 0.
    similarity_mean, similarity_std: of similarities between tasks; they depend on the embedding
    (:meth:`calibrated` measures them).  epsilon: probability that the selection is drawn at random from the candidates.
    alpha: step size in [0, 1].  discount: of the next task's best utility; 0, for tasks are single steps.
    initial_utility: of a new experience.  floor: utilities count and stay at least this.  least_utility: candidates
    below are not shown.
    near_from: a task this similar to a known intent is no new one.  near: its experience is filed under that intent
    beside the others (``join``), or not written (``merge``).  merge_gain: ``merge`` moves the most visited experience
    of that intent as if it had been shown and earned ``merge_gain r``; None: it does not.
    capacity: most experiences; beyond, the one of lowest utility among those visited at least ``evict_after`` times is
    forgotten, among all but the new one when there are none.  seed: of random selections.

    Source: the paper's abstract and the released code (memory_service.py, value_driven.py); equations were not
    available. Defaults are the code's configurations: ``alpha`` 0.3 (its class has 0.1), ``epsilon`` 0 (0.1), the
    threshold of its class (0.62 for ALFWorld, 0.25 for HLE), similarity statistics of HLE (0.5187 and 0.1203 for
    ALFWorld), ``near_from`` 0.9. ``merge`` with a gain of 0.1 from 0.85 on is what the code calls a curator, which
    nothing there calls; as the gain is a reward like any other, it draws a high utility down. ``capacity`` and the rule
    for experiences that say the same are ours.
    """

    kind: ClassVar[str] = "memory"

    threshold: Annotated[float, Ge(-1), Le(1)] = 0.35
    nearest: Annotated[int, Ge(1)] = 5
    selected: Annotated[int, Ge(1)] = 3
    ranking: Literal["mixture", "utility"] = "mixture"
    similarity_weight: Annotated[float, Ge(0)] = 0.5
    utility_weight: Annotated[float, Ge(0)] = 0.5
    similarity_mean: Annotated[float, Ge(-1), Le(1)] = 0.1857
    similarity_std: Annotated[float, Gt(0)] = 0.0941
    epsilon: Annotated[float, Ge(0), Le(1)] = 0.0
    alpha: Annotated[float, Ge(0), Le(1)] = 0.3
    discount: Annotated[float, Ge(0), Le(1)] = 0.0
    initial_utility: float = 0.0
    floor: float | None = None
    least_utility: float | None = None
    near_from: Annotated[float, Ge(-1), Le(1)] = 0.9
    near: Literal["join", "merge"] = "join"
    merge_gain: Annotated[float, Ge(0), Le(1)] | None = None
    capacity: Annotated[int, Ge(1)] | None = None
    evict_after: Annotated[int, Ge(0)] = 1
    seed: Annotated[int, Ge(0)] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in (
            "initial_utility",
            "floor",
            "least_utility",
            "similarity_weight",
            "utility_weight",
            "similarity_std",
        ):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise InputError(f"episodic_memory.{name} = {value}: must be finite")
        if self.merge_gain is not None and self.near != "merge":
            raise InputError(
                "episodic_memory.merge_gain: is for near = 'merge'; with 'join' every experience is written"
            )

    # ---- retrieving ------------------------------------------------------------------------------------------------

    def retrieve(self, store: Store, task: str, explore: bool = True) -> Retrieval:
        """What to show for a task. With ``explore=False`` nothing is drawn at random.

        The store does not change, except that it counts the random draws. An empty store, and a task whose similarities
        are not numbers, give an empty retrieval.
        """
        candidates = self._ranked(self._candidates(store, task))
        if explore and self.epsilon > 0:
            source = generator(self.seed, "retrieval", store.draws)
            store.draws += 1
            if float(torch.rand((), generator=source)) < self.epsilon:
                order = torch.randperm(len(candidates), generator=source)[: self.selected].tolist()
                return Retrieval(tuple(candidates[place] for place in order), candidates, explored=bool(candidates))
        return Retrieval(candidates[: self.selected], candidates)

    def _candidates(self, store: Store, task: str) -> list[tuple[Item, float]]:
        """First phase: items with their similarity, most similar first."""
        similarities = store.similarities(task)
        near = (similarities >= self.threshold).nonzero()[:, 0]  # NaN is not
        order = near[similarities[near].sort(descending=True, stable=True).indices][: self.nearest].tolist()
        found: dict[str, tuple[Item, float]] = {}
        intents = store.intents
        for place in order:
            for item in store.filed_under(intents[place]):
                same = found.get(item.experience)
                if same is None or item.visits > same[0].visits:
                    found[item.experience] = item, float(similarities[place])
        least = -math.inf if self.least_utility is None else self.least_utility
        return [(item, similarity) for item, similarity in found.values() if self._floored(item.utility) >= least]

    def _ranked(self, candidates: Sequence[tuple[Item, float]]) -> tuple[Found, ...]:
        """Second phase: candidates with their scores, best first."""
        if not candidates:
            return ()
        similarity = torch.tensor([similarity for _, similarity in candidates], dtype=torch.float64)
        utility = torch.tensor([self._floored(item.utility) for item, _ in candidates], dtype=torch.float64)
        scores = utility if self.ranking == "utility" else self.scores(similarity, utility)
        found = [
            Found(item.number, item.experience, near, float(value), float(score))
            for (item, near), value, score in zip(candidates, utility, scores, strict=True)
        ]
        return tuple(sorted(found, key=lambda one: (-one.score, -one.similarity, one.number)))

    def scores(self, similarity: torch.Tensor, utility: torch.Tensor) -> torch.Tensor:
        """The mixture for candidates of these similarities and utilities, both ``[candidates]``."""
        spread = utility.std(correction=0)
        standard = (utility - utility.mean()) / (spread if spread > 1e-9 else 1.0)
        near = (similarity - self.similarity_mean) / self.similarity_std
        return self.similarity_weight * near + self.utility_weight * standard.clamp(-3, 3)

    def _floored(self, utility: float) -> float:
        return utility if self.floor is None else max(self.floor, utility)

    def calibrated(self, store: Store) -> EpisodicMemory:
        """The same with mean and standard deviation of the cosines between the store's intents, every pair once.

        Raises :class:`InputError` with fewer than three intents: a single pair has no spread.
        """
        count = len(store.intents)
        if count < 3:
            raise InputError(f"episodic_memory.calibrated: needs at least three intents, the store has {count}")
        rows, columns = torch.triu_indices(count, count, 1)
        cosines = (store.embeddings @ store.embeddings.T)[rows, columns].double()
        spread = float(cosines.std(correction=0))
        mean = min(1.0, max(-1.0, float(cosines.mean())))
        return self.replace(similarity_mean=mean, similarity_std=spread if spread > 1e-9 else 1.0)

    # ---- learning --------------------------------------------------------------------------------------------------

    def reinforce(self, store: Store, numbers: Sequence[int], reward: float, next_utility: float = 0.0) -> None:
        """Move the utilities of the experiences that a task was shown. No other one changes.

        next_utility: ``Q'``, which counts ``discount``. Experiences evicted since are passed over. Raises
        :class:`InputError` for a reward that is not finite and a number that never was; then nothing has changed.
        """
        if not math.isfinite(reward) or not math.isfinite(next_utility):
            raise InputError(f"episodic_memory: reward = {reward}, next_utility = {next_utility}: must be finite")
        for item in [store.known(number) for number in numbers]:
            if item is not None:
                self._move(store, item, reward, next_utility)

    def _move(self, store: Store, item: Item, reward: float, next_utility: float = 0.0) -> None:
        target = reward + self.discount * next_utility
        item.utility = self._floored((1 - self.alpha) * item.utility + self.alpha * target)
        item.reward_average = (1 - self.alpha) * item.reward_average + self.alpha * reward
        item.visits += 1
        item.used = store.clock

    def write(self, store: Store, intent: str, experience: str, reward: float = 0.0) -> Item | None:
        """Remember an experience; returns the item that holds it, None when it was merged into another.

        One that the intent holds word for word is not written again. reward: of the task, for ``merge_gain``.
        Raises :class:`InputError` when the intent has no finite embedding or the reward is not finite; then nothing
        has changed.
        """
        if not math.isfinite(reward):
            raise InputError(f"episodic_memory.write: reward = {reward}: must be finite")
        nearest = store.nearest(intent)
        known = nearest is not None and nearest[1] >= self.near_from
        filed = nearest[0] if nearest is not None and known else intent
        if known and self.near == "merge":
            if self.merge_gain is not None:
                self._move(store, max(store.filed_under(filed), key=lambda item: item.visits), self.merge_gain * reward)
            return None
        for item in store.filed_under(filed):
            if item.experience == experience:
                return item
        written = store.add(filed, experience, self.initial_utility)
        self._evict(store, written)
        return written

    def _evict(self, store: Store, newest: Item) -> None:
        if self.capacity is None:
            return
        while len(store) > self.capacity:
            others = [item for item in store.items.values() if item is not newest]
            tried = [item for item in others if item.visits >= self.evict_after]
            worst = min(tried or others, key=lambda item: (item.utility, item.used, item.number))
            store.remove(worst.number)

    # ---- a stream of tasks -----------------------------------------------------------------------------------------

    def play(
        self,
        store: Store,
        tasks: Iterable[T],
        solve: Callable[[T, Sequence[str]], Attempt | float],
        *,
        intent: Callable[[T], str] = str,
        batch_size: int = 1,
        learn: bool = True,
    ) -> Iterator[Solved[T]]:
        """Solve tasks one after another, learning from each; yields each when its outcome has been learned.

        Nothing happens before the result is iterated over, so a stream may be endless, and the store saved on the way.

        solve: the frozen solver; it is given a task and the experiences, and returns the reward or an :class:`Attempt`.
        intent: text of a task, by default the task itself.  batch_size: tasks for which is retrieved before the first
        of them is solved; utilities still move one task after the other, in their order.
        learn: False to measure only: nothing is written, moved or explored.

        Utilities move before the experience is written, so a write that fails loses none. Tasks of a stream do not
        follow from each other: ``discount`` counts 0 of the next one; call :meth:`reinforce` for those that do.
        """
        if batch_size < 1:
            raise InputError(f"episodic_memory.play: batch_size = {batch_size}: must be at least 1")
        return self._play(store, iter(tasks), solve, intent, batch_size, learn)

    def _play(
        self,
        store: Store,
        waiting: Iterator[T],
        solve: Callable[[T, Sequence[str]], Attempt | float],
        intent: Callable[[T], str],
        batch_size: int,
        learn: bool,
    ) -> Iterator[Solved[T]]:
        while batch := list(islice(waiting, batch_size)):
            texts = [intent(task) for task in batch]
            found = [self.retrieve(store, text, explore=learn) for text in texts]
            for task, text, retrieval in zip(batch, texts, found, strict=True):
                outcome = solve(task, retrieval.experiences)
                attempt = outcome if isinstance(outcome, Attempt) else Attempt(float(outcome))
                if learn:
                    self._learn(store, text, retrieval, attempt)
                yield Solved(task, retrieval, attempt)

    def _learn(self, store: Store, text: str, retrieval: Retrieval, attempt: Attempt) -> None:
        if attempt.reward is None:
            return
        self.reinforce(store, retrieval.numbers, attempt.reward)
        store.clock += 1
        if attempt.experience is not None:
            self.write(store, text, attempt.experience, attempt.reward)

    # ---- where utilities go ----------------------------------------------------------------------------------------

    def expected_utility(self, moves: int, mean_reward: float, start: float | None = None) -> float:
        """``beta + (1 - alpha)^n (Q_0 - beta)``: expected after ``n`` rewards of mean ``beta``; no discount, no floor.

        start: ``Q_0``, by default that of a new experience.
        """
        begin = self.initial_utility if start is None else start
        return mean_reward + (1 - self.alpha) ** moves * (begin - mean_reward)

    def limit_variance(self, reward_variance: float) -> float:
        """``alpha / (2 - alpha) Var r``: of a utility in the long run, for independent rewards."""
        return self.alpha / (2 - self.alpha) * reward_variance
