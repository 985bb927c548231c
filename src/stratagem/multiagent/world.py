"""The world of several agents: a game they act in at once, and the batches and evaluations that come of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from stratagem.architectures import Agents
from stratagem.control.acting import EPISODES_AT_ONCE, ActingWorld, state_keys
from stratagem.control.episodes import Start
from stratagem.errors import BrokenRunError, InputError
from stratagem.experience import Experience
from stratagem.multiagent.episodes import Act, Lanes, Rows, TeamRecording, play, rows_of
from stratagem.multiagent.exploration import exploring
from stratagem.multiagent.game import Frame, MultiAgentTask, check_actions
from stratagem.multiagent.inputs import AgentInputs
from stratagem.multiagent.policy import AgentsPolicy
from stratagem.multiagent.sketch import Drawable, Trajectory
from stratagem.partition import Partition
from stratagem.parts import Architecture, Sampler
from stratagem.recipe import Recipe
from stratagem.sampling import EpsilonGreedy, Rollouts, Segments
from stratagem.seeding import derive, numpy_generator
from stratagem.training.world import PROBED, Collected


class MultiAgentWorld(ActingWorld[AgentsPolicy, TeamRecording]):
    """Agents acting in copies of a game.

    What one agent did in one episode is a trajectory, so that every advantage and every objective reads it as it reads
    any other. ``turn_role`` is the agent, ``episode`` is shared by the agents of an episode, and a group holds all
    agents of all episodes from its start state: group-relative advantages compare a team with itself, and
    :class:`~stratagem.advantages.RoleStandardized` each agent with itself. Trajectories are in the order of group,
    episode and agent, and those of an episode have the same length: an agent whose own episode is over stays in the
    batch, sees zeros, and is not trained (``mask``), while a critic learns what its team still earns.

    A Gymnasium task is the case of one agent; :class:`~stratagem.control.world.ControlWorld` plays those, since an
    environment that is one object is stepped and replayed as such.

    ``reward`` and returns in metrics and evaluations are means over agents; where all are paid the same that is what
    the team earned. A checkpoint holds the state of running episodes, so a resumed run is exact.

    policy: None for a fresh one, of the recipe's architecture.  seed: of everything random.

    Raises :class:`InputError` when the policy does not fit the task, or a sampler asks for what it cannot do.
    """

    can = ("curricula", "dependence", "exploration")
    who = "agents that act at once"
    kind = "a task of several agents"

    def __init__(self, task: MultiAgentTask, seed: int, policy: AgentsPolicy | None = None) -> None:
        super().__init__(task, seed)
        self.task = task
        self._given = policy is not None
        self._architecture: Architecture = Agents()
        self.policy = self._built(self._architecture) if policy is None else policy
        check_actions(task, self.policy)
        self._served = self.policy.frozen()
        self._running: Lanes | None = None
        self._spare: Lanes | None = None

    def build_policy(self, recipe: Recipe) -> None:
        """Take the architecture of the recipe.

        Raises :class:`InputError` when a given policy is of another one, and where agents with a memory were to learn
        from single turns.
        """
        wanted = recipe.architecture
        if wanted is None or (wanted == self._architecture and not self._given):
            self._check_whole(recipe)
            return
        fresh = self._built(wanted)
        if not self._given:
            self._architecture, self.policy, self._served = wanted, fresh, fresh.frozen()
            self.close()  # Those who remember more are carried by other lanes.
        elif (self.policy.kind, self.policy.design()) != (fresh.kind, fresh.design()):
            raise InputError(
                f"recipe {recipe.name} asks for {fresh.kind} of {fresh.design()}; the policy that was given is "
                f"{self.policy.kind} of {self.policy.design()}"
            )
        self._check_whole(recipe)

    def _check_whole(self, recipe: Recipe) -> None:
        """Refuse a recipe that would have agents with a memory learn from single turns."""
        if self.policy.memory_width and recipe.optimization.shuffle == "turns":
            raise InputError(
                f"recipe {recipe.name}: optimization.shuffle = turns: must be trajectories or groups, since agents "
                "with a memory learn from whole trajectories"
            )

    def _built(self, architecture: Architecture) -> AgentsPolicy:
        built: AgentsPolicy = architecture.build(self.task, derive(self._seed, "policy"))
        return built

    def adapt(self, recipe: Recipe) -> Recipe:
        """One that names an architecture was written for several agents and stays as it is; others as for control.

        Mini-batches of agents with a memory are of whole trajectories, not of single turns.
        """
        if recipe.architecture is not None:
            return recipe
        adapted = super().adapt(recipe)
        if self.policy.memory_width and adapted.optimization.shuffle == "turns" != recipe.optimization.shuffle:
            return adapted.with_values({"optimization.shuffle": "trajectories"})
        return adapted

    def serve(self, version: int) -> None:
        """Act with the policy's present weights from now on."""
        self._served.load_state_dict(self.policy.state_dict())
        self._version = version

    def collect(self, sampler: Sampler, step: int) -> Collected:
        """As of every such world. Raises :class:`InputError` for exploring agents with continuous actions."""
        if isinstance(sampler, EpsilonGreedy) and self.task.continuous:
            raise InputError(f"sampler {sampler.part_name()}: task {self.task_name} has continuous actions")
        if step < PROBED:
            self.policy.begin_batch(self._version)
        return super().collect(sampler, step)

    # ---- playing ---------------------------------------------------------------------------------------------------

    def _play_segments(self, sampler: Segments, starts: Callable[[int], Start], step: int) -> TeamRecording:
        if self._running is None or self._running.count != sampler.prompts_per_step:
            self._running = self._lanes(sampler.prompts_per_step)
        return play(self._running, starts, self._act(sampler, step, 0), sampler.turns)

    def _play_whole(self, starts: Sequence[Start], sampler: Rollouts, step: int, attempt: int) -> TeamRecording:
        return self._play(starts, self._act(sampler, step, attempt))

    def _play_held_out(self, starts: Sequence[Start], noise: np.random.Generator | None) -> TeamRecording:
        act = self._served.acting()
        return self._play(starts, lambda frame, memory: act(frame, noise, memory))

    def _play(self, starts: Sequence[Start], act: Act) -> TeamRecording:
        count = min(len(starts), EPISODES_AT_ONCE)
        if self._spare is None or self._spare.count < count:
            self._spare = self._lanes(count)
        queue = iter(starts)
        return play(self._spare, lambda lane: next(queue, None), act)

    def _lanes(self, count: int) -> Lanes:
        return Lanes(self.task, count, self._served.memory_width)

    def _act(self, sampler: Sampler, step: int, attempt: int) -> Act:
        act, noise = self._served.acting(sampler), numpy_generator(self._seed, "act", step, attempt)
        if isinstance(sampler, EpsilonGreedy):
            return exploring(act, sampler.epsilon, noise)
        return lambda frame, memory: act(frame, noise, memory)

    def watch(self, number: int, mode: Literal["sampled", "greedy"] = "sampled") -> Trajectory:
        """A held-out episode as it can be drawn. Raises :class:`InputError` for a task that has no picture."""
        noise = numpy_generator(self._seed, "watch") if mode == "sampled" else None
        copies, one, act = self.task.copies(1), np.array([0]), self._served.acting()
        try:
            if not isinstance(copies, Drawable):
                raise InputError(f"task {self.task_name} cannot be drawn: it does not say where its agents are")
            failures = copies.reset(one, np.array([self.task.start_seed("test", number)], dtype=np.int64))
            if failures:
                raise BrokenRunError(f"task {self.task_name}: the episode could not be started: {failures[0]}")
            sketches, rewards = [copies.sketch(0)], []
            frame, left, memory = copies.observe(one), np.zeros(self.task.agents, dtype=bool), None
            while not left.all():
                acted = act(frame, noise, memory)
                out, memory = copies.step(one, acted.action), acted.memory
                if out.failures:
                    raise BrokenRunError(f"task {self.task_name}: the episode broke: {out.failures[0]}")
                sketches.append(copies.sketch(0))
                rewards.append(out.reward[0])
                frame, left = out.frame, left | out.terminated[0] | out.truncated[0]
        finally:
            copies.close()
        return Trajectory(sketches, np.stack(rewards))

    # ---- what it comes to ------------------------------------------------------------------------------------------

    def _experience(self, recording: TeamRecording, temperature: float, by_number: bool = False) -> Experience | None:
        """The recording as a batch, in the order of group, episode and agent; None without a whole turn."""
        rows = rows_of(recording)
        if rows is None:
            return None
        agents, endings = self.task.agents, rows.endings
        turns = torch.from_numpy(rows.turns)
        lengths = turns.repeat_interleave(agents)
        trajectory_of_turn = Partition.from_sizes(lengths)
        groups = Partition.by(torch.tensor([ending.start.group for ending in endings]).repeat_interleave(agents))
        tokens = torch.ones(len(rows.agent), dtype=torch.int64)
        how = [ending.how for ending in endings]
        running = torch.tensor([one == "cut" for one in how]).repeat_interleave(agents)
        terminal = torch.from_numpy(np.concatenate([ending.terminal for ending in endings]))
        final = Frame(*(np.stack(parts) for parts in zip(*(ending.frame[:4] for ending in endings), strict=True)))
        agent, alive = torch.from_numpy(rows.agent), torch.from_numpy(rows.alive)
        inputs = AgentInputs(
            torch.from_numpy(rows.observation),
            lengths,
            torch.from_numpy(rows.state),
            agent,
            torch.from_numpy(rows.legal),
            None if rows.noted is None else torch.from_numpy(rows.noted).float(),
            torch.from_numpy(final.observation).flatten(0, 1),
            torch.from_numpy(final.state).repeat_interleave(agents, 0),
            torch.from_numpy(final.legal).flatten(0, 1),
            self._memory_of(rows),
        )
        episodes = torch.tensor([ending.start.episode for ending in endings]).repeat_interleave(agents)
        numbers = [ending.start.number if by_number else ending.start.seed for ending in endings]
        seeds = [derive(self._seed, "chance", ending.start.episode, a) for ending in endings for a in range(agents)]
        x = Experience(
            turn_of_token=Partition.from_sizes(tokens),
            trajectory_of_turn=trajectory_of_turn,
            group_of_trajectory=groups,
            domain_of_group=Partition.whole(groups.count),
            action=torch.from_numpy(rows.action),
            version=tokens * self._version,
            mask=alive if self.task.mortal else None,
            critic_mask=torch.ones_like(alive) if self.task.mortal else None,
            turn_reward=torch.from_numpy(rows.reward),
            turn_state=state_keys(np.concatenate([rows.agent[:, None], rows.observation], 1)),
            turn_role=agent,
            turn_duration=None if rows.duration is None else torch.from_numpy(rows.duration),
            turn_done=trajectory_of_turn.is_last() & trajectory_of_turn.spread(~running),
            reward=trajectory_of_turn.sum(torch.from_numpy(rows.reward)),
            finished=terminal,
            truncated=~terminal,
            running=running,
            episode=episodes,
            seed=torch.tensor(seeds),
            task_id=torch.tensor(numbers).repeat_interleave(agents)[groups.first()],
            inputs=inputs,
        )
        with torch.no_grad():
            also = {"entropy", "value"} & self._served.says
            said = self._served(x, temperature=temperature, also=also)
            x = x.replace(
                behavior_logp=said.logp if rows.logp is None else torch.from_numpy(rows.logp).float(),
                entropy=said.entropy,
            )
            if said.value is None:
                return x
            assert inputs.final_observation is not None and inputs.final_state is not None
            own, remembered = torch.arange(agents).repeat(len(endings)), self._served.remembered(x)
            left_with = self._served.values(inputs.final_observation, inputs.final_state, own, remembered)
            if remembered is not None and self._running is not None:
                # Critics are not asked while agents act: what they remember of a segment is known now.
                of_episode = zip(
                    episodes[::agents].tolist(), remembered.unflatten(0, (-1, agents)).numpy(), strict=True
                )
                self._running.remember(dict(of_episode), self._served.acting_width)
        return x.replace(value=said.value, final_value=left_with.masked_fill(terminal, 0.0))

    def _memory_of(self, rows: Rows) -> Tensor | None:
        """What agents remembered before the first turn of every trajectory; None for those who remember nothing."""
        width = self._served.memory_width
        if not width:
            return None
        nothing = np.zeros((self.task.agents, width), dtype=np.float32)
        begun = [rows.memory.get(ending.start.episode, nothing) for ending in rows.endings]
        return torch.from_numpy(np.stack(begun)).flatten(0, 1)

    # ---- state -----------------------------------------------------------------------------------------------------

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Counters, recent returns, and the state of every running episode."""
        if self._running is None:
            return {}, {**self._counters(), "lanes": None}
        arrays, starts = self._running.state_dict()
        tensors = {name: torch.from_numpy(np.ascontiguousarray(rows)) for name, rows in arrays.items()}
        return tensors, {**self._counters(), "lanes": starts}

    def load_state_dict(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Restore the counters and the running episodes."""
        self._restore_counters(plain)
        self._running = None
        if plain["lanes"] is not None:
            self._running = self._lanes(len(plain["lanes"]))
            self._running.load_state_dict({name: rows.numpy() for name, rows in tensors.items()}, plain["lanes"])

    def close(self) -> None:
        """Close all environments."""
        for lanes in (self._running, self._spare):
            if lanes is not None:
                lanes.close()
        self._running = self._spare = None
