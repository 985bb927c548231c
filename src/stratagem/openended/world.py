"""The world of a goal policy: tasks of a universe, batches of whole episodes, trials for a curriculum, and scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from stratagem.control.inputs import ControlInputs
from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.openended.coplayers import CoPlayers, Episodes, Player, Table
from stratagem.openended.grid import Grid
from stratagem.openended.metagames import MetagameBook
from stratagem.openended.policy import GoalPolicy, Shape
from stratagem.openended.task import ACTIONS, OpenEndedTask, Tasks
from stratagem.partition import Partition
from stratagem.parts import Sampler
from stratagem.prompts import Probed
from stratagem.recipe import Recipe
from stratagem.sampling import Planned, Rollouts, kept_groups
from stratagem.seeding import derive, generator
from stratagem.tasks.task import Split, state_key
from stratagem.training.statistics import evaluation
from stratagem.training.world import PROBED, Collected, Evaluation

ACTOR_CRITIC = {
    "sampler.prompts_per_step": 128,
    "sampler.group_size": 1,
    "optimization.learning_rate": 1e-3,
    "optimization.max_grad_norm": 0.5,
    "optimization.epochs": 4,
    "optimization.minibatches": 4,
    "optimization.shuffle": "turns",
}
"""What a recipe with a critic is set to for these universes."""

CRITIC_FREE = {"optimization.learning_rate": 1e-3}
"""What any other recipe is set to."""

DISCOUNT = 0.97


class OpenEndedWorld:
    """A goal policy acting in tasks of a universe: one task for each group, an episode for each trajectory of it.

    A curriculum may try tasks first, by the policy as it is and by one that acts at random; all steps count. Scores of
    a task are shares of its steps with a reward.

    In a task of several players the policy has the first seat, and only what happens there is learned from. Who has the
    others follows from the number of the task and the pool ``coplayers``, so that trials and episodes of a batch are
    against the same ones. They always sample their actions. Before every ``snapshot_every``-th batch the policy itself,
    as it is then, joins the pool.

    policy: None for a fresh one.  seed: of everything random.

    Raises :class:`InputError` when the policy does not fit the universe, or a sampler asks for what it cannot do.
    """

    def __init__(self, task: OpenEndedTask, seed: int, policy: GoalPolicy | None = None) -> None:
        self.task, self.task_name, self._seed = task, task.name, seed
        needed = Shape.of(task)
        self.policy = GoalPolicy(needed, derive(seed, "policy")) if policy is None else policy
        shape = self.policy.shape
        if (shape.state, shape.option, shape.options) != (needed.state, needed.option, needed.options):
            raise InputError(f"task {task.name} needs a policy with {needed}; this one has {shape}")
        self._served, self._version = self.policy.frozen(), 0
        self.coplayers = CoPlayers(task)
        self._next_task = self._episodes = 0

    def adapt(self, recipe: Recipe) -> Recipe:
        """The recipe as these universes need it.

        With a critic: 128 tasks a batch with an episode each, four epochs of four mini-batches of single turns, a
        learning rate of 1e-3, gradients of at most 0.5, and a discount of 0.97 where the advantage has one of 1.
        """
        if "value" not in recipe.experience_needs():
            return recipe.with_values(CRITIC_FREE)
        undiscounted = [
            path
            for path, value in recipe.flat().items()
            if path.startswith("advantage.") and path.endswith(".discount") and value == 1
        ]
        return recipe.with_values({**ACTOR_CRITIC, **dict.fromkeys(undiscounted, DISCOUNT)})

    def serve(self, version: int) -> None:
        """Act with the policy's present weights from now on."""
        self._served.load_state_dict(self.policy.state_dict())
        self._version = version

    # ---- collecting ------------------------------------------------------------------------------------------------

    def collect(self, sampler: Sampler, step: int) -> Collected:
        """Groups of whole episodes. Groups the sampler rejects are replaced, up to ``refill_rounds`` times."""
        if not isinstance(sampler, Rollouts):
            raise InputError(f"sampler {sampler.part_name()}: an open-ended task takes rollouts")
        sampler.check_asked("a goal policy", "curricula")
        if sampler.demonstrations:
            raise InputError(f"sampler {sampler.part_name()}: an open-ended task has no demonstrator")
        every = self.task.snapshot_every
        # What is measured beside the batches has higher numbers.
        if self.task.players > 1 and every and 0 < step < PROBED and step % every == 0:
            self.coplayers.remember(f"step-{step}", self._served)
        rounds: list[Experience] = []
        tried = [0]

        def probe(numbers: Tensor, episodes: int) -> Probed:
            tried[0] += 2 * len(numbers) * episodes
            source, company = (generator(self._seed, of, step, len(rounds)) for of in ("probe", "probe company"))
            return Probed(
                self.scores("train", numbers.tolist(), episodes, source, self._served, company),
                self.scores("train", numbers.tolist(), episodes, source, None, company),
            )

        def roll(groups: int, attempt: int) -> Experience:
            numbers = range(self._next_task, self._next_task + groups)
            self._next_task += groups
            chance = partial(generator, self._seed, "curriculum", step, attempt)
            planned = sampler.planned(numbers, chance, step, None, None, probe)
            source, company = (generator(self._seed, of, step, attempt) for of in ("act", "company"))
            rounds.append(self._rolled(planned, sampler.temperature, source, company))
            return rounds[-1]

        kept = kept_groups(sampler, roll, step)
        metrics = self._metrics(rounds) | kept.metrics | {"episodes/tried": float(tried[0])}
        spent = sum(x.tokens for x in rounds) + tried[0] * self.task.horizon
        return Collected(kept.x, spent, metrics, self._samples(rounds[0]))

    def _rolled(
        self, planned: Sequence[Planned], temperature: float, source: torch.Generator, company: torch.Generator
    ) -> Experience:
        """One episode for each trajectory, all steps side by side."""
        sizes = torch.tensor([group.size for group in planned])
        numbers = torch.tensor([group.start for group in planned])
        episode = self._begun("train", numbers.tolist(), sizes, company)
        seen, acted, paid = [], [], []
        while not episode.grid.done:
            seen.append(episode.observation())
            acted.append(self._served.draw(seen[-1], source, temperature))
            paid.append(episode.step(acted[-1]))
        observation, action, reward = (torch.stack(rows, 1).flatten(0, 1) for rows in (seen, acted, paid))
        episodes, horizon = int(sizes.sum()), self.task.horizon
        first, self._episodes = self._episodes, self._episodes + episodes
        trajectory_of_turn = Partition.from_sizes(torch.full((episodes,), horizon))
        tokens = torch.ones(len(action), dtype=torch.int64)
        state = torch.tensor([state_key(self.task.name, number) for number in numbers.tolist()])
        x = Experience(
            turn_of_token=Partition.from_sizes(tokens),
            trajectory_of_turn=trajectory_of_turn,
            group_of_trajectory=Partition.from_sizes(sizes),
            domain_of_group=Partition.whole(len(planned)),
            action=action,
            version=tokens * self._version,
            turn_reward=reward,
            turn_state=state.repeat_interleave(sizes).repeat_interleave(horizon),
            turn_done=trajectory_of_turn.is_last(),
            reward=trajectory_of_turn.sum(reward),
            finished=torch.ones(episodes, dtype=torch.bool),
            truncated=torch.zeros(episodes, dtype=torch.bool),
            episode=torch.arange(first, first + episodes),
            seed=torch.tensor([derive(self._seed, "episode", number) for number in range(first, first + episodes)]),
            task_id=numbers,
            inputs=ControlInputs(observation, torch.full((episodes,), horizon)),
        )
        with torch.no_grad():
            said = self._served(x.to(self._served.device), temperature=temperature, also=("entropy", "value"))
        return x.replace(
            behavior_logp=said.logp.cpu(),
            entropy=None if said.entropy is None else said.entropy.cpu(),
            value=None if said.value is None else said.value.cpu(),
            final_value=torch.zeros(episodes),
        )

    def scores(
        self,
        split: Split,
        numbers: Sequence[int],
        episodes: int,
        source: torch.Generator | None,
        policy: Player | None,
        company: torch.Generator | None = None,
    ) -> Float64[Tensor, "tasks episodes"]:
        """Share of the steps with a reward, by task and episode.

        policy: in the first seat; None acts at random.  source: None takes the likeliest actions.
        company: of what co-players draw; None for the same whenever it is asked.
        """
        company = generator(self._seed, "company of scores") if company is None else company
        episode = self._begun(split, numbers, torch.full((len(numbers),), episodes), company)
        total = torch.zeros(len(numbers) * episodes, dtype=torch.float64)
        while not episode.grid.done:
            if policy is None:
                action = torch.randint(len(ACTIONS), (len(total),), generator=source)
            else:
                action = policy.draw(episode.observation(), source)
            total += episode.step(action)
        return (total / self.task.horizon).view(len(numbers), episodes)

    def _begun(
        self, split: Split, numbers: Sequence[int], sizes: Int64[Tensor, " tasks"], company: torch.Generator
    ) -> Episodes:
        """So many episodes of each task, with its co-players."""
        tasks, pool = self.task.tasks(split, numbers), self.coplayers
        rows = torch.arange(len(tasks)).repeat_interleave(sizes)
        others = pool.seated(split, numbers)[rows]
        return Episodes(Grid(self.task, tasks.at(rows)), Table(pool.players(split), others, company))

    def held_out(self, numbers: Sequence[int], episodes: int = 1) -> Float64[np.ndarray, " tasks"]:
        """Mean scores of the policy on held-out tasks, sampled, in the first seat; the same chance whenever asked."""
        source = generator(self._seed, "held out")
        return np.asarray(self.scores("test", numbers, episodes, source, self.policy).mean(1).numpy())

    @property
    def players(self) -> int:
        """In each task."""
        return self.task.players

    def meet(self, name: str, policy: GoalPolicy) -> None:
        """This policy, as it is now, is one of those that play along; with one player nobody does."""
        if self.task.players > 1:
            self.coplayers.remember(name, policy)

    def matched(self, numbers: Sequence[int], agents: Mapping[str, Player]) -> MetagameBook:
        """What every profile of these agents earns on held-out tasks of several players."""
        book = MetagameBook(len(numbers), self.task.players)
        book.play(self.task, "test", numbers, agents, self._seed)
        return book

    def _metrics(self, rounds: Sequence[Experience]) -> dict[str, float]:
        returns = torch.cat([x.returns for x in rounds])
        several = {"coplayers": float(len(self.coplayers.names("train")))} if self.task.players > 1 else {}
        return {
            "episodes": float(len(returns)),
            "reward": float(returns.mean()),
            "reward_std": float(returns.std(correction=0)),
            "participation": float((returns > 0).double().mean()),
            **several,
        }

    def _samples(self, x: Experience, count: int = 3) -> list[dict[str, Any]]:
        """The first episodes of a batch: goals, who had the other seats, and return."""
        assert x.task_id is not None and x.episode is not None
        numbers = x.task_id[:count].tolist()
        tasks, names = self.task.tasks("train", numbers), self.coplayers.names("train")
        seated = self.coplayers.seated("train", numbers).tolist()
        rows = x.group_of_trajectory.first()[:count].tolist()
        return [
            {
                "episode": int(x.episode[row]),
                "task": int(tasks.number[place]),
                "goal": tasks.goals.text(place * tasks.players, self.task.predicates),
                **self._met(tasks, place, [names[number] for number in seated[place]]),
                "return": float(x.returns[row]),
            }
            for place, row in enumerate(rows)
        ]

    def _met(self, tasks: Tasks, place: int, names: Sequence[str]) -> dict[str, Any]:
        """Names and goals of the co-players, each goal in the eyes of its player; nothing where there are none."""
        seats = range(place * tasks.players + 1, (place + 1) * tasks.players)
        goals = [tasks.goals.text(seat, self.task.predicates) for seat in seats]
        return {"coplayers": list(names), "goals of coplayers": goals} if names else {}

    # ---- evaluating ------------------------------------------------------------------------------------------------

    def evaluate(self, episodes: int, mode: Literal["sampled", "greedy"], first: int = 0) -> Evaluation:
        """``episodes`` held-out tasks from number ``first`` on, once each. A return counts steps with a reward.

        Co-players are those that stay, and always sample, so that evaluations of a run compare.
        """
        source = generator(self._seed, "evaluate", first) if mode == "sampled" else None
        scores = self.scores("test", range(first, first + episodes), 1, source, self._served)
        returns = (scores.squeeze(1) * self.task.horizon).tolist()
        return evaluation(mode, returns, [self.task.horizon] * episodes, None)

    # ---- state -----------------------------------------------------------------------------------------------------

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Counters, and the pool of co-players; everything random follows from seed and step."""
        plain = {"next_task": self._next_task, "episodes": self._episodes}
        if self.task.players == 1:
            return {}, plain
        tensors, pool = self.coplayers.state_dict()
        return tensors, {**plain, "coplayers": pool}

    def load_state_dict(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Restore the counters and the pool."""
        self._next_task, self._episodes = int(plain["next_task"]), int(plain["episodes"])
        if self.task.players > 1:
            self.coplayers.load_state_dict(tensors, plain["coplayers"])

    def close(self) -> None:
        """Nothing to release."""
