"""The world of a control policy: a Gymnasium task, and the batches and evaluations that come of acting in it."""

from __future__ import annotations

import itertools
import warnings
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from stratagem.control.episodes import Act, Lane, Recording, Start, play
from stratagem.control.inputs import ControlInputs
from stratagem.control.policy import ControlPolicy
from stratagem.control.task import GymTask
from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.partition import Partition
from stratagem.parts import Sampler
from stratagem.recipe import Recipe
from stratagem.sampling import Rollouts, Segments, kept_groups
from stratagem.seeding import derive, numpy_generator
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


class ControlWorld:
    """A control policy acting in a Gymnasium environment.

    ``Segments`` runs its environments on across steps. A checkpoint holds the seed and the commands of every running
    episode and a resumed run replays them, which is exact for environments that depend on nothing else and costs, for
    each environment, the turns played since its last reset (at most one episode). ``Rollouts`` plays whole episodes;
    those of a group start in the same state.

    policy: None for a fresh one.  seed: of everything random.

    Raises :class:`InputError` when the policy does not fit the task, or a sampler asks for what control cannot do.
    """

    def __init__(self, task: GymTask, seed: int, policy: ControlPolicy | None = None) -> None:
        self.task, self.task_name, self._seed = task, task.name, seed
        self.policy = ControlPolicy.for_task(task, derive(seed, "policy")) if policy is None else policy
        fresh = ControlPolicy.for_task(task)
        if (self.policy.kind, self.policy.features, self.policy.actions) != (fresh.kind, fresh.features, fresh.actions):
            raise InputError(
                f"task {task.name} needs a {fresh.kind} policy of {fresh.features} features and {fresh.actions} "
                f"actions; this one is {self.policy.kind} of {self.policy.features} and {self.policy.actions}"
            )
        self._served, self._version = self.policy.frozen(), 0
        self._running: list[Lane] = []
        self._spare: list[Lane] = []
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

    def serve(self, version: int) -> None:
        """Act with the policy's present weights from now on."""
        self._served.load_state_dict(self.policy.state_dict())
        self._version = version

    # ---- collecting ------------------------------------------------------------------------------------------------

    def collect(self, sampler: Sampler, step: int) -> Collected:
        """Segments of running episodes, or groups of whole ones.

        Failed episodes are left out and counted. Groups that lost all of theirs and groups the sampler rejects are
        replaced by fresh ones, up to ``refill_rounds`` times.
        """
        if isinstance(sampler, Segments):
            return self._segments(sampler, step)
        if not isinstance(sampler, Rollouts):
            raise InputError(f"sampler {sampler.part_name()}: a control task takes segments or rollouts")
        sampler.check_no_text("a control policy")
        sampler.check_no_exploration("a control policy")
        sampler.check_from_start("a control policy")
        if sampler.demonstrations:
            raise InputError(
                f"sampler {sampler.part_name()}: demonstrations = {sampler.demonstrations}: "
                "a control task has no demonstrator"
            )
        return self._rollouts(sampler, step)

    def _segments(self, sampler: Segments, step: int) -> Collected:
        self._resize(self._running, sampler.prompts_per_step)

        def next_start(lane: int) -> Start:
            return self._start(lane, self._take_start_state())

        recording = play(self.task, self._running, next_start, self._act(1.0, step, 0), sampler.turns)
        x = self._experience(recording, 1.0)
        return Collected(x, _turns([recording]), self._metrics([recording]), _samples(recording))

    def _rollouts(self, sampler: Rollouts, step: int) -> Collected:
        recordings: list[Recording] = []

        def roll(groups: int, attempt: int) -> Experience | None:
            act = self._act(sampler.temperature, step, attempt)
            recordings.append(self._play_whole(self._group_starts(groups, sampler), act))
            return self._experience(recordings[-1], sampler.temperature)

        kept = kept_groups(sampler, roll)
        return Collected(kept.x, _turns(recordings), self._metrics(recordings) | kept.metrics, _samples(recordings[0]))

    def _play_whole(self, starts: Sequence[Start], act: Act) -> Recording:
        self._resize(self._spare, max(len(self._spare), min(len(starts), EPISODES_AT_ONCE)))
        queue = iter(starts)
        return play(self.task, self._spare[: len(starts)], lambda lane: next(queue, None), act)

    def _group_starts(self, groups: int, sampler: Rollouts) -> list[Start]:
        states = [self._take_start_state(sampler) for _ in range(groups)]
        return [self._start(group, state) for group, state in enumerate(states) for _ in range(sampler.group_size)]

    def _take_start_state(self, sampler: Rollouts | None = None) -> int:
        number = self._start_states
        self._start_states += 1
        return derive(self._seed, "start", number if sampler is None else sampler.start_state(number)) >> 33

    def _start(self, group: int, state: int) -> Start:
        self._episodes += 1
        return Start(self._episodes - 1, group, self.task.start_seed("train", state))

    def _act(self, temperature: float, step: int, attempt: int) -> Act:
        act, noise = self._served.acting(temperature), numpy_generator(self._seed, "act", step, attempt)
        return lambda observation: act(observation, noise)

    def _resize(self, lanes: list[Lane], count: int) -> None:
        for lane in lanes[count:]:
            lane.close()
        lanes[count:] = [Lane(self.task, number) for number in range(len(lanes), count)]

    # ---- what it comes to ------------------------------------------------------------------------------------------

    def _experience(self, recording: Recording, temperature: float) -> Experience | None:
        """The recording as a batch, trajectories in the order of group and episode; None without a whole turn."""
        rows = _rows(recording)
        if rows is None:
            return None
        episode, observation, action, reward = rows
        first = np.flatnonzero(np.diff(episode, prepend=-1))
        endings = [recording.endings[number] for number in episode[first].tolist()]
        lengths = torch.from_numpy(np.diff(first, append=len(episode)))
        trajectory_of_turn = Partition.from_sizes(lengths)
        groups = Partition.by(torch.tensor([ending.start.group for ending in endings]))
        tokens = torch.ones(len(episode), dtype=torch.int64)
        terminal = torch.tensor([ending.how == "terminal" for ending in endings])
        running = torch.tensor([ending.how == "cut" for ending in endings])
        x = Experience(
            turn_of_token=Partition.from_sizes(tokens),
            trajectory_of_turn=trajectory_of_turn,
            group_of_trajectory=groups,
            domain_of_group=Partition.whole(groups.count),
            action=torch.from_numpy(action),
            version=tokens * self._version,
            turn_reward=torch.from_numpy(reward),
            turn_state=state_keys(observation),
            turn_done=trajectory_of_turn.is_last() & trajectory_of_turn.spread(~running),
            reward=trajectory_of_turn.sum(torch.from_numpy(reward)),
            finished=terminal,
            truncated=~terminal,
            running=running,
            episode=torch.tensor([ending.start.episode for ending in endings]),
            seed=torch.tensor([derive(self._seed, "chance", ending.start.episode) for ending in endings]),
            task_id=torch.tensor([ending.start.seed for ending in endings])[groups.first()],
            inputs=ControlInputs(torch.from_numpy(observation), lengths),
        )
        left = torch.from_numpy(np.concatenate([ending.observation for ending in endings], axis=None)).float()
        with torch.no_grad():
            said = self._served(x, temperature=temperature, also=("entropy", "value"))
            final_value = self._served.values(left.view(len(endings), -1)).masked_fill(terminal, 0.0)
        return x.replace(behavior_logp=said.logp, entropy=said.entropy, value=said.value, final_value=final_value)

    def _metrics(self, recordings: Sequence[Recording]) -> dict[str, float]:
        """Of the episodes that ended in this batch; ``rollout/ep_*`` are means over the last 100 of the run."""
        ended = [ending for recording in recordings for ending in recording.ended("terminal", "limit")]
        self._recent.extend((ending.total, ending.turns) for ending in ended)
        metrics = {
            "episodes": float(len(ended)),
            "episodes/failed": float(sum(len(recording.ended("failed")) for recording in recordings)),
        }
        if ended:
            totals = np.array([ending.total for ending in ended])
            metrics |= {"reward": float(totals.mean()), "reward_std": float(totals.std())}
        if self._recent:
            returns, lengths = zip(*self._recent, strict=True)
            metrics |= {"rollout/ep_rew_mean": float(np.mean(returns)), "rollout/ep_len_mean": float(np.mean(lengths))}
        return metrics

    # ---- evaluating ------------------------------------------------------------------------------------------------

    def evaluate(self, episodes: int, mode: Literal["sampled", "greedy"], first: int = 0) -> Evaluation:
        """``episodes`` held-out start states from number ``first`` on, sampled at temperature 1 or greedily."""
        act = self._served.acting()
        noise = numpy_generator(self._seed, "evaluate") if mode == "sampled" else None
        starts = [
            Start(number, number, self.task.start_seed("test", number)) for number in range(first, first + episodes)
        ]
        recording = self._play_whole(starts, lambda observation: act(observation, noise))
        ended = recording.ended("terminal", "limit")
        return evaluation(
            mode,
            [ending.total for ending in ended],
            [ending.turns for ending in ended],
            None,
            failed=len(recording.ended("failed")),
            samples=_samples(recording),
        )

    # ---- state -----------------------------------------------------------------------------------------------------

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Counters, recent returns, and seed and commands of every running episode."""
        commands = [command for lane in self._running for command in lane.commands]
        lanes = [[*lane.start, len(lane.commands)] for lane in self._running if lane.start is not None]
        plain = {
            "episodes": self._episodes,
            "start_states": self._start_states,
            "recent": [list(entry) for entry in self._recent],
            "lanes": lanes,
        }
        observations = [torch.from_numpy(np.array(lane.observation).reshape(-1)) for lane in self._running]
        tensors = {"commands": torch.from_numpy(np.array(commands))} if commands else {}
        return tensors | {f"observation.{number}": row for number, row in enumerate(observations)}, plain

    def load_state_dict(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Restore the counters and replay the running episodes; warns when one does not come out where it was."""
        self._episodes, self._start_states = int(plain["episodes"]), int(plain["start_states"])
        self._recent = deque(((total, turns) for total, turns in plain["recent"]), maxlen=100)
        self._resize(self._running, 0)
        self._resize(self._running, len(plain["lanes"]))
        commands = iter(tensors["commands"].numpy() if "commands" in tensors else ())
        for lane, (episode, group, seed, turns) in zip(self._running, plain["lanes"], strict=True):
            lane.replay(Start(episode, group, seed), list(itertools.islice(commands, turns)))
            was = tensors[f"observation.{lane.number}"].numpy()
            if lane.ending is not None or not np.array_equal(lane.observation.reshape(-1), was):
                warnings.warn(
                    f"{self.task_name}: an environment did not replay to where it was; "
                    "this run will differ from an unbroken one",
                    stacklevel=2,
                )

    def close(self) -> None:
        """Close all environments."""
        self._resize(self._running, 0)
        self._resize(self._spare, 0)


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


def _turns(recordings: Sequence[Recording]) -> int:
    return sum(len(row) for recording in recordings for row in recording.episode)


def _rows(recording: Recording) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
    """Episode, observation, action and reward of every turn of episodes that did not fail, in batch order."""
    if not recording.reward:
        return None
    episode = np.concatenate(recording.episode)
    groups = {number: ending.start.group for number, ending in recording.endings.items()}
    known, place = np.unique(episode, return_inverse=True)
    group = np.array([groups[number] for number in known.tolist()])[place]
    order = np.lexsort((episode, group))
    failed = [ending.start.episode for ending in recording.ended("failed")]
    if failed:
        order = order[~np.isin(episode[order], failed)]
    if len(order) == 0:
        return None
    reward = np.concatenate(recording.reward).astype(np.float32)
    return (
        episode[order],
        np.concatenate(recording.observation)[order],
        np.concatenate(recording.action)[order],
        reward[order],
    )


def _samples(recording: Recording) -> list[dict[str, Any]]:
    """A few episodes as plain data: failed ones first, then by number, since the first to end are the worst."""
    endings = sorted(recording.endings.values(), key=lambda ending: (ending.how != "failed", ending.start.episode))
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
        for ending in endings[:3]
    ]
