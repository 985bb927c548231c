"""Where a policy's episodes are played: a task, an engine, and what numbers and seeds are used up."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from stratagem.errors import BrokenRunError
from stratagem.experience import Experience
from stratagem.language.chat import ChatFormat
from stratagem.language.engine import Engine
from stratagem.language.episodes import Episode, to_experience
from stratagem.language.journaled import Diary
from stratagem.language.plans import plan_reader
from stratagem.language.rollout import first_observation, play
from stratagem.language.sampling import SamplingParams
from stratagem.language.wording import worded
from stratagem.parts import Tempering
from stratagem.sampling import Branching, Planned, Resampled, Rollouts
from stratagem.seeding import derive, generator
from stratagem.tasks.mixture import domain_of
from stratagem.tasks.task import Split, Task
from stratagem.training.journal import Journal
from stratagem.training.ledger import PER_GROUP
from stratagem.training.world import PROBED
from stratagem.watched import Watch

_One = TypeVar("_One")


@dataclass(eq=False)
class Stage:
    """A task, who acts in it, and how far its start states are used up.

    tokenize: text as tokens, without special ones.  concurrency: episodes side by side.
    played: told of all episodes that were played from a start, with their split.
    entered: told of all episodes that became part of a batch.
    next_index: number of the next start state.  forks: places from which episodes were gone on with.
    openings: what start states show first, as far as anybody asked.
    journal: where episodes are entered that have ended; None: nowhere.  interrupted: play no further.
    """

    task: Task
    engine: Engine
    chat: ChatFormat
    watch: Watch
    seed: int
    concurrency: int
    tokenize: Callable[[str], list[int]]
    played: Callable[[Split, Sequence[Episode]], None] | None = None
    entered: Callable[[Iterable[Episode]], None] | None = None
    next_index: int = 0
    forks: int = 0
    openings: dict[int, str] = field(default_factory=dict)
    journal: Journal | None = None
    interrupted: bool = False

    def __post_init__(self) -> None:
        self.plans = plan_reader(self.task, self.chat.said)

    def take(self, count: int) -> range:
        """Numbers of the next start states, which are used up by that."""
        self.next_index += count
        return range(self.next_index - count, self.next_index)

    def planned(self, count: int, sampler: Rollouts, step: int, attempt: int) -> dict[int, Planned]:
        """The next groups, by their running numbers."""
        numbers = self.take(count)
        source = partial(generator, self.seed, "curriculum", step, attempt)
        planned = sampler.planned(numbers, source, step, self.task.start_states("train"), self._read)
        return dict(zip(numbers, planned, strict=True))

    def _read(self, indices: Sequence[int]) -> list[str]:
        """What start states show first, as text."""
        for index in indices:
            if index not in self.openings:
                self.openings[index] = first_observation(self.task, "train", index).text
        return [self.openings[index] for index in indices]

    def episode(self, start: int, group: int, sample: int) -> Episode:
        """An episode of training that is to be played."""
        return Episode(start, sample, derive(self.seed, "episode", group, sample), group=group)

    def side_by_side(self, ones: Sequence[_One]) -> Iterator[Sequence[_One]]:
        """As many at a time as are played side by side."""
        for start in range(0, len(ones), self.concurrency):
            yield ones[start : start + self.concurrency]

    def diary(self, step: int) -> Diary | None:
        """Where episodes of batch ``step`` are noted that have ended, if anywhere."""
        return None if self.journal is None or step >= PROBED else Diary(self.journal, step)

    def play(
        self, split: Split, episodes: Sequence[Episode], params: SamplingParams, diary: Diary | None = None
    ) -> None:
        """Play these episodes to their ends, those that are in the diary excepted.

        Raises :class:`BrokenRunError` once the stage was interrupted.
        """

        def ended(some: Sequence[Episode]) -> None:
            if diary is not None:
                diary.write(some)
            if self.interrupted:
                raise BrokenRunError(f"{self.task.name}: what was being collected was given up")

        unknown = episodes if diary is None else diary.taken(episodes)
        for some in self.side_by_side(unknown):
            play(self.task, split, some, self.engine, self.chat, params, self.watch, ended)
        if self.played is not None:
            self.played(split, episodes)

    def params(
        self,
        temperature: float,
        top_p: float = 1.0,
        top_k: int = 0,
        greedy: bool = False,
        tempering: Tempering | None = None,
    ) -> SamplingParams:
        """How a turn of this task is sampled."""
        return SamplingParams(
            max_new_tokens=self.task.max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            stop=self.task.stop,
            stop_token_ids=self.chat.end_token_ids,
            greedy=greedy,
            tempering=tempering,
        )

    def packed(self, groups: Sequence[Sequence[Episode]], sampler: Rollouts | None = None) -> Experience:
        """These groups as a batch. sampler: says what to note of the wording."""
        if self.entered is not None:
            self.entered(episode for group in groups for episode in group)
        x = to_experience(
            groups,
            self.task.reward_names,
            PER_GROUP,
            self.task.reward_weights,
            similar_states=None if sampler is None else sampler.similar_states,
            plans=self.plans,
            domain=partial(domain_of, self.task),
        )
        return x if sampler is None else worded(x, groups, sampler, self.task, self.chat.said)


def numbers(episodes: Iterable[Episode]) -> list[int]:
    """Of these episodes in the run, as a batch has them."""
    return [(e.index if e.group is None else e.group) * PER_GROUP + e.sample for e in episodes]


def lost(episodes: Iterable[Episode]) -> list[Episode]:
    """Those of these episodes that failed."""
    return [episode for episode in episodes if episode.failure is not None]


def most_samples(sampler: Rollouts) -> int:
    """Episodes a group may have in all, failed ones and demonstrations included."""
    most = sampler.largest_group * (sampler.refill_rounds + 1) + sampler.demonstrations
    if isinstance(sampler, Resampled):
        most += sampler.resamples
    if isinstance(sampler, Branching):
        return max(most, sampler.branches * (sampler.depth if sampler.together else 1))
    return most
