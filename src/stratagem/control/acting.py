"""What worlds share in which small policies act in many environments side by side: batches, counters, evaluation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Generic, Literal, Protocol, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from stratagem.control.episodes import Ending, Start
from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.parts import Sampler
from stratagem.recipe import Recipe
from stratagem.sampling import Rollouts, Segments, kept_groups
from stratagem.seeding import derive, generator, numpy_generator
from stratagem.tasks.task import Split
from stratagem.training.statistics import evaluation
from stratagem.training.world import Collected, Evaluation

EPISODES_AT_ONCE = 64
"""Whole episodes are played in at most so many environments side by side."""

ACTOR_CRITIC = {
    "sampler": "segments",
    "sampler.prompts_per_step": 8,
    "sampler.turns": 128,
    "optimization.learning_rate": 1e-3,
    "optimization.max_grad_norm": 0.5,
    "optimization.epochs": 10,
    "optimization.minibatches": 4,
    "optimization.shuffle": "turns",
}
"""What a recipe with a critic is set to for control."""

CRITIC_FREE = {"optimization.learning_rate": 1e-2}
"""What any other recipe is set to for control: these networks are small and start from nothing."""

CONTROL_DISCOUNT = 0.99


class ActingTask(Protocol):
    """What such a world asks of a task."""

    @property
    def name(self) -> str: ...
    def start_seed(self, split: Split, number: int, /) -> int: ...


class Recorded(Protocol):
    """What happened in some episodes."""

    @property
    def endings(self) -> Mapping[int, Ending]: ...
    @property
    def actions(self) -> int: ...


_Recording = TypeVar("_Recording", bound=Recorded)
_Policy = TypeVar("_Policy")


class ActingWorld(ABC, Generic[_Policy, _Recording]):
    """Segments of running episodes and groups of whole ones, numbered start states, and how episodes ended.

    Who derives from it says how episodes are played (:meth:`_play_segments`, :meth:`_play_whole`) and what batch comes
    of a recording (:meth:`_experience`).

    can: abilities samplers may ask for (:meth:`Rollouts.check_asked`).  who: acts here, in words.  seed: of everything
    random.
    """

    can: tuple[str, ...] = ("curricula",)
    who: str = "a control policy"
    kind: str = "a control task"

    policy: _Policy

    def __init__(self, task: ActingTask, seed: int) -> None:
        self.task_name, self._acting_task, self._seed = task.name, task, seed
        self._version = 0
        self._episodes = self._start_states = 0
        self._recent: deque[tuple[float, int]] = deque(maxlen=100)

    def adapt(self, recipe: Recipe) -> Recipe:
        """The recipe as control needs it; one whose sampler is ``Segments`` was written for control and stays as it is.

        With a critic: segments of 8 environments by 128 turns instead of whole episodes, ten epochs of four
        mini-batches of single turns, learning rate 1e-3, gradients of at most 0.5, and a discount of 0.99 where the
        advantage has one of 1. Without: whole episodes, learning rate 1e-2.
        """
        if isinstance(recipe.sampler, Segments):
            return recipe
        if "value" not in recipe.experience_needs():
            return recipe.with_values(CRITIC_FREE)
        undiscounted = [
            path
            for path, value in recipe.flat().items()
            if path.startswith("advantage.") and path.endswith(".discount") and value == 1
        ]
        return recipe.with_values({**ACTOR_CRITIC, **dict.fromkeys(undiscounted, CONTROL_DISCOUNT)})

    # ---- what is played --------------------------------------------------------------------------------------------

    @abstractmethod
    def _play_segments(self, sampler: Segments, starts: Callable[[int], Start], step: int) -> _Recording:
        """So many turns of running episodes, each environment a group."""

    @abstractmethod
    def _play_whole(self, starts: Sequence[Start], sampler: Rollouts, step: int, attempt: int) -> _Recording:
        """These episodes from start to end."""

    @abstractmethod
    def _play_held_out(self, starts: Sequence[Start], noise: np.random.Generator | None) -> _Recording:
        """These episodes; without noise the most likely actions."""

    @abstractmethod
    def _experience(self, recording: _Recording, temperature: float, by_number: bool = False) -> Experience | None:
        """The recording as a batch; None without a whole turn.

        by_number: ``task_id`` is the number of the start state, which means something in this run alone, and not its
        seed.
        """

    # ---- collecting ------------------------------------------------------------------------------------------------

    def collect(self, sampler: Sampler, step: int) -> Collected:
        """Segments of running episodes, or groups of whole ones.

        Failed episodes are left out and counted. Groups that lost all of theirs and groups the sampler rejects are
        replaced by fresh ones, up to ``refill_rounds`` times.
        """
        if isinstance(sampler, Segments):
            recording = self._play_segments(sampler, lambda lane: self._start(lane, self._take_start_state()), step)
            x = self._experience(recording, 1.0)
            return Collected(x, recording.actions, self._metrics([recording]), samples(recording.endings))
        if not isinstance(sampler, Rollouts):
            raise InputError(f"sampler {sampler.part_name()}: {self.kind} takes segments or rollouts")
        sampler.check_asked(self.who, *self.can)
        if sampler.demonstrations:
            raise InputError(
                f"sampler {sampler.part_name()}: demonstrations = {sampler.demonstrations}: "
                f"{self.kind} has no demonstrator"
            )
        return self._rollouts(sampler, step)

    def _rollouts(self, sampler: Rollouts, step: int) -> Collected:
        recordings: list[_Recording] = []

        def roll(groups: int, attempt: int) -> Experience | None:
            starts = self._group_starts(groups, sampler, step, attempt)
            recordings.append(self._play_whole(starts, sampler, step, attempt))
            return self._experience(recordings[-1], sampler.temperature, by_number=sampler.curriculum is not None)

        kept = kept_groups(sampler, roll, step)
        actions = sum(recording.actions for recording in recordings)
        return Collected(kept.x, actions, self._metrics(recordings) | kept.metrics, samples(recordings[0].endings))

    def _group_starts(self, groups: int, sampler: Rollouts, step: int, attempt: int) -> list[Start]:
        numbers = range(self._start_states, self._start_states + groups)
        self._start_states += groups
        planned = sampler.planned(numbers, partial(generator, self._seed, "curriculum", step, attempt), step)
        return [self._start(group, start) for group, (start, size) in enumerate(planned) for _ in range(size)]

    def _take_start_state(self) -> int:
        self._start_states += 1
        return self._start_states - 1

    def _start(self, group: int, number: int) -> Start:
        """The next episode, from the start state of this number."""
        self._episodes += 1
        state = derive(self._seed, "start", number) >> 33
        return Start(self._episodes - 1, group, self._acting_task.start_seed("train", state), number)

    # ---- what it comes to ------------------------------------------------------------------------------------------

    def _metrics(self, recordings: Sequence[_Recording]) -> dict[str, float]:
        """Of the episodes that ended in this batch; ``rollout/ep_*`` are means over the last 100 of the run."""
        endings = [recording.endings for recording in recordings]
        ended = [ending for one in endings for ending in left(one, "terminal", "limit")]
        self._recent.extend((ending.total, ending.turns) for ending in ended)
        metrics = {
            "episodes": float(len(ended)),
            "episodes/failed": float(sum(len(left(one, "failed")) for one in endings)),
        }
        if ended:
            totals = np.array([ending.total for ending in ended])
            metrics |= {"reward": float(totals.mean()), "reward_std": float(totals.std())}
        if self._recent:
            returns, lengths = zip(*self._recent, strict=True)
            metrics |= {"rollout/ep_rew_mean": float(np.mean(returns)), "rollout/ep_len_mean": float(np.mean(lengths))}
        return metrics

    def evaluate(self, episodes: int, mode: Literal["sampled", "greedy"], first: int = 0) -> Evaluation:
        """``episodes`` held-out start states from number ``first`` on, sampled at temperature 1 or greedily."""
        noise = numpy_generator(self._seed, "evaluate") if mode == "sampled" else None
        starts = [
            Start(number, number, self._acting_task.start_seed("test", number), number)
            for number in range(first, first + episodes)
        ]
        recording = self._play_held_out(starts, noise)
        ended = left(recording.endings, "terminal", "limit")
        return evaluation(
            mode,
            [ending.total for ending in ended],
            [ending.turns for ending in ended],
            None,
            failed=len(left(recording.endings, "failed")),
            samples=samples(recording.endings),
        )

    # ---- state -----------------------------------------------------------------------------------------------------

    def _counters(self) -> dict[str, Any]:
        """What is counted, as plain data."""
        recent = [list(entry) for entry in self._recent]
        return {"episodes": self._episodes, "start_states": self._start_states, "recent": recent}

    def _restore_counters(self, plain: Mapping[str, Any]) -> None:
        self._episodes, self._start_states = int(plain["episodes"]), int(plain["start_states"])
        self._recent = deque(((total, turns) for total, turns in plain["recent"]), maxlen=100)


def left(endings: Mapping[int, Ending], *how: str) -> list[Ending]:
    """The episodes left in one of these ways, in the order in which they were left."""
    return [ending for ending in endings.values() if ending.how in how]


def state_keys(observation: Float[np.ndarray, "turns features"]) -> Int64[Tensor, " turns"]:
    """A stable 64-bit key of every observation: equal ones (0 and -0 are equal) have equal keys in every process."""
    bits = (observation.astype(np.float32) + np.float32(0)).view(np.uint32).astype(np.uint64)
    factors = _mixed(np.arange(1, bits.shape[1] + 1, dtype=np.uint64)) | np.uint64(1)
    return torch.from_numpy(_mixed(_mixed(bits + factors).astype(np.uint64) @ factors).view(np.int64))


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """The finalizer of splitmix64, modulo 2**64."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = numbers ^ (numbers >> np.uint64(31))
    return mixed


def samples(endings: Mapping[int, Ending]) -> list[dict[str, Any]]:
    """A few episodes as plain data: failed ones first, then by number, since the first to end are the worst."""
    chosen = sorted(endings.values(), key=lambda ending: (ending.how != "failed", ending.start.episode))
    return [
        {
            "episode": ending.start.episode,
            "seed": ending.start.seed,
            "return": ending.total,
            "turns": ending.turns,
            "left": ending.how,
            "last_observation": [float(number) for number in ending.observation.reshape(-1)[:16]],
            **({} if ending.failure is None else {"failure": ending.failure}),
        }
        for ending in chosen[:3]
    ]
