"""The world of a control policy: a Gymnasium task, and the batches and evaluations that come of acting in it."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stratagem.control.acting import EPISODES_AT_ONCE, ActingWorld, state_keys
from stratagem.control.episodes import Act, Lane, Recording, Start, play
from stratagem.control.inputs import ControlInputs
from stratagem.control.policy import ControlPolicy
from stratagem.control.task import GymTask
from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.partition import Partition
from stratagem.sampling import Rollouts, Segments
from stratagem.seeding import derive, numpy_generator


class ControlWorld(ActingWorld[ControlPolicy, Recording]):
    """A control policy acting in a Gymnasium environment.

    ``Segments`` runs its environments on across steps. A checkpoint holds the seed and the commands of every running
    episode and a resumed run replays them, which is exact for environments that depend on nothing else and costs, for
    each environment, the turns played since its last reset (at most one episode). ``Rollouts`` plays whole episodes;
    those of a group start in the same state.

    policy: None for a fresh one.  seed: of everything random.

    Raises :class:`InputError` when the policy does not fit the task, or a sampler asks for what control cannot do.
    """

    def __init__(self, task: GymTask, seed: int, policy: ControlPolicy | None = None) -> None:
        super().__init__(task, seed)
        self.task = task
        self.policy = ControlPolicy.for_task(task, derive(seed, "policy")) if policy is None else policy
        fresh = ControlPolicy.for_task(task)
        if (self.policy.kind, self.policy.features, self.policy.actions) != (fresh.kind, fresh.features, fresh.actions):
            raise InputError(
                f"task {task.name} needs a {fresh.kind} policy of {fresh.features} features and {fresh.actions} "
                f"actions; this one is {self.policy.kind} of {self.policy.features} and {self.policy.actions}"
            )
        self._served = self.policy.frozen()
        self._running: list[Lane] = []
        self._spare: list[Lane] = []

    def serve(self, version: int) -> None:
        """Act with the policy's present weights from now on."""
        self._served.load_state_dict(self.policy.state_dict())
        self._version = version

    # ---- playing ---------------------------------------------------------------------------------------------------

    def _play_segments(self, sampler: Segments, starts: Callable[[int], Start], step: int) -> Recording:
        self._resize(self._running, sampler.prompts_per_step)
        return play(self.task, self._running, starts, self._act(1.0, step, 0), sampler.turns)

    def _play_whole(self, starts: Sequence[Start], sampler: Rollouts, step: int, attempt: int) -> Recording:
        return self._play(starts, self._act(sampler.temperature, step, attempt))

    def _play_held_out(self, starts: Sequence[Start], noise: np.random.Generator | None) -> Recording:
        act = self._served.acting()
        return self._play(starts, lambda observation: act(observation, noise))

    def _play(self, starts: Sequence[Start], act: Act) -> Recording:
        self._resize(self._spare, max(len(self._spare), min(len(starts), EPISODES_AT_ONCE)))
        queue = iter(starts)
        return play(self.task, self._spare[: len(starts)], lambda lane: next(queue, None), act)

    def _act(self, temperature: float, step: int, attempt: int) -> Act:
        act, noise = self._served.acting(temperature), numpy_generator(self._seed, "act", step, attempt)
        return lambda observation: act(observation, noise)

    def _resize(self, lanes: list[Lane], count: int) -> None:
        for lane in lanes[count:]:
            lane.close()
        lanes[count:] = [Lane(self.task, number) for number in range(len(lanes), count)]

    # ---- what it comes to ------------------------------------------------------------------------------------------

    def _experience(self, recording: Recording, temperature: float, by_number: bool = False) -> Experience | None:
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
            task_id=torch.tensor([ending.start.number if by_number else ending.start.seed for ending in endings])[
                groups.first()
            ],
            inputs=ControlInputs(torch.from_numpy(observation), lengths),
        )
        left = torch.from_numpy(np.concatenate([ending.observation for ending in endings], axis=None)).float()
        with torch.no_grad():
            said = self._served(x, temperature=temperature, also=("entropy", "value"))
            final_value = self._served.values(left.view(len(endings), -1)).masked_fill(terminal, 0.0)
        return x.replace(behavior_logp=said.logp, entropy=said.entropy, value=said.value, final_value=final_value)

    # ---- state -----------------------------------------------------------------------------------------------------

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Counters, recent returns, and seed and commands of every running episode."""
        commands = [command for lane in self._running for command in lane.commands]
        lanes = [[*lane.start, len(lane.commands)] for lane in self._running if lane.start is not None]
        plain = {**self._counters(), "lanes": lanes}
        observations = [torch.from_numpy(np.array(lane.observation).reshape(-1)) for lane in self._running]
        tensors = {"commands": torch.from_numpy(np.array(commands))} if commands else {}
        return tensors | {f"observation.{number}": row for number, row in enumerate(observations)}, plain

    def load_state_dict(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Restore the counters and replay the running episodes; warns when one does not come out where it was."""
        self._restore_counters(plain)
        self._resize(self._running, 0)
        self._resize(self._running, len(plain["lanes"]))
        commands = iter(tensors["commands"].numpy() if "commands" in tensors else ())
        for lane, (*start, turns) in zip(self._running, plain["lanes"], strict=True):
            lane.replay(Start(*start), list(itertools.islice(commands, turns)))
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
