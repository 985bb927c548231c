"""Agents that learn in one game: actors on what each sees, critics on that or on the state, weights shared or not."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int
from torch import Tensor, nn

from stratagem.control.policy import CategoricalPolicy, ControlPolicy, GaussianPolicy, gaussian
from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.multiagent.episodes import Acted
from stratagem.multiagent.fronts import FrontName, form_of, make_front
from stratagem.multiagent.game import Frame, MultiAgentTask
from stratagem.multiagent.inputs import AgentInputs
from stratagem.multiagent.recurrence import RecurrenceName, Sequences, answers, of_members, with_memory
from stratagem.multiagent.stacked import ILLEGAL, StackedNetworks, carried, masked, told_apart
from stratagem.partition import rows_of
from stratagem.parts import Sampler, View
from stratagem.seeding import derive, generator
from stratagem.training.module_policy import ModulePolicy, read_policy
from stratagem.training.world import Policy, check_asked

Weights = Literal["shared", "separate"]
Critic = Literal["observation", "state", "both"]

NETWORKS = ("actor", "critic", "median_critic")
"""Of every member."""


class Acting(Protocol):
    """What agents do given what there is to see; without a generator, what they most likely do.

    memory: what each remembered before; None: nothing, as an episode begins. What they remember from then on is in
    :class:`~stratagem.multiagent.episodes.Acted`, and is for who lets them act to give them again.
    """

    def __call__(
        self,
        frame: Frame,
        noise: np.random.Generator | None,
        memory: Float32[np.ndarray, "copies agents memory"] | None = None,
        /,
    ) -> Acted: ...


Chances = Callable[[Frame], np.ndarray]
"""From what there is to see to how likely every agent takes each action [copies, agents, actions]."""


class AgentsPolicy(ModulePolicy):
    """A policy of all agents of a game, which acts in all copies of it at once.

    agents, features, state_features, actions, continuous: as of the task.  any_number: whether it acts as well for
    another number of agents.  memory_width: numbers that each agent carries from turn to turn, 0 for one that
    remembers nothing.  acting_width: how many of them, the first ones, acting carries itself; the others are critics'.
    """

    any_number: bool = False
    memory_width: int = 0
    acting_width: int = 0

    agents: int
    features: int
    state_features: int
    actions: int
    continuous: bool

    @abstractmethod
    def acting(self, sampler: Sampler | None = None) -> Acting:
        """How agents act with the present weights.

        sampler: how it is asked to act in training; None: as in evaluation.
        """

    def chances(self) -> Chances:
        """A function that says how likely every action is, as agents act in evaluation by its present weights.

        Raises :class:`InputError` for agents that cannot say it: with continuous actions, or with a memory, whose
        actions do not follow from what there is to see.
        """
        raise InputError(f"{self.kind}: does not say how likely each action is")

    def _check_no_memory(self) -> None:
        """Refuse a memory where single turns are asked about."""
        if self.memory_width:
            raise InputError(
                f"{self.kind}: what these agents do depends on what they remember; train them with "
                "architecture.recurrence=none"
            )

    def values(
        self,
        observation: Float[Tensor, "rows features"],
        state: Float[Tensor, "rows state_features"],
        agent: Int[Tensor, " rows"],
        memory: Float[Tensor, "rows memory"] | None = None,
    ) -> Float[Tensor, " rows"]:
        """The critic's estimate of what these agents will earn, who remembered this before; None: nothing.

        Raises ``ValueError`` for agents that learn what actions are worth instead.
        """
        raise ValueError(f"{self.kind}: has no critic of what agents will earn, whatever they do")

    def remembered(self, x: Experience) -> Float[Tensor, "trajectories memory"] | None:
        """What critics remember after the last turn of every trajectory; None where they remember nothing.

        The columns that acting carries are 0.
        """
        return None

    @abstractmethod
    def policy_parameters(self) -> Iterator[Tensor]:
        """All that decides how agents act."""

    @abstractmethod
    def critic_parameters(self) -> Iterator[Tensor]:
        """All that only the critic uses."""

    @abstractmethod
    def hidden_matrices(self) -> list[Tensor]:
        """Weights of linear maps between hidden features of what decides how agents act."""

    def begin_batch(self, version: int) -> None:
        """Another batch is about to be collected with the weights of ``version``, the optimizer steps so far."""

    def sizes(self) -> dict[str, int | bool]:
        """Those of the game."""
        names = ("agents", "features", "state_features", "actions", "continuous")
        return {name: getattr(self, name) for name in names}

    def design(self) -> dict[str, Any]:
        """Its arguments without sizes of the game that may differ where it is trained further."""
        ours = ("agents", "state_features") if self.any_number else ()
        return {name: value for name, value in self.arguments().items() if name not in ours}

    @staticmethod
    def from_directory(directory: str | Path) -> AgentsPolicy:
        """Read what :meth:`save` wrote. Raises :class:`InputError` when the directory is missing or damaged."""
        from stratagem.multiagent import KINDS  # Each of them derives from this class.

        return read_policy(directory, "policy of several agents", KINDS)


class ActorCritics(AgentsPolicy):
    """An actor and a critic for all agents (``shared``), or for each of its own (``separate``).

    Each is a :class:`ControlPolicy`: with one agent and a critic on its observation this is the policy of
    :class:`~stratagem.control.world.ControlWorld`, number for number. Shared weights are told who acts by a one-hot
    number beside what they read, unless there is one agent alone or ``told`` is False. Who are not told, and whose
    critic reads the observation, are the same policy for any number of agents.

    critic: what it reads: the ``observation``, the ``state``, or ``both``.  hidden: width of each hidden layer.
    front: what stands before every perceptron (:mod:`stratagem.multiagent.fronts`); only for one that any number of
    agents share.  form: of the observations, for the front.  width: of the front.
    recurrence: ``gru`` puts a GRU of ``hidden`` units before the last layer of the actor, and one of its own into each
    critic that reads the observation; one that reads the state alone has none. What an agent carries is all of them,
    actor first. A batch is read trajectory by trajectory from what was remembered when it began, whoever learns; that
    stays what the policy at the time made of it.
    """

    kind: ClassVar[str] = "actor_critics"
    says: ClassVar[frozenset[str]] = frozenset({"entropy", "value", "median"})

    def __init__(
        self,
        agents: int,
        features: int,
        state_features: int,
        actions: int,
        continuous: bool = False,
        weights: Weights = "shared",
        critic: Critic = "observation",
        hidden: int = 64,
        seed: int = 0,
        told: bool = True,
        front: FrontName | None = None,
        form: Sequence[int] = (),
        width: int = 16,
        recurrence: RecurrenceName = "none",
    ) -> None:
        super().__init__()
        self.agents, self.features, self.state_features = agents, features, state_features
        self.actions, self.continuous = actions, continuous
        self.weights_of, self.critic_reads, self.hidden = weights, critic, hidden
        self.told, self.front_name, self.form, self.width = told, front, tuple(form), width
        self.recurrence_name = recurrence
        self._told = agents if told and weights == "shared" and agents > 1 else 0
        self.any_number = not told and weights == "shared" and critic == "observation"
        read = {"observation": features, "state": state_features, "both": features + state_features}[critic]
        member = GaussianPolicy if continuous else CategoricalPolicy
        seeds = [seed] if weights == "shared" or agents == 1 else [derive(seed, "agent", n) for n in range(agents)]
        fronts = [None if front is None else make_front(front, form, width, seed, place) for place in NETWORKS]
        if fronts[0] is not None:
            features = read = fronts[0].outputs
        sizes = (features + self._told, actions, hidden)
        self._members = nn.ModuleList(member(*sizes, one, critic_features=read + self._told) for one in seeds)
        for place, before in zip(NETWORKS, fronts, strict=True):
            if before is not None:
                setattr(self._members[0], place, nn.Sequential(before, *getattr(self._members[0], place)))
        remembering = () if recurrence == "none" else NETWORKS[:1] if critic == "state" else NETWORKS
        self.memory_width, self.acting_width = hidden * len(remembering), hidden if remembering else 0
        self._columns = {place: slice(hidden * n, hidden * (n + 1)) for n, place in enumerate(remembering)}
        for one, own in zip(self.actors, seeds, strict=True):
            for place in remembering:
                setattr(one, place, with_memory(getattr(one, place), hidden, generator(own, "memory", place)))

    @staticmethod
    def for_task(
        task: MultiAgentTask,
        weights: Weights = "shared",
        critic: Critic = "observation",
        hidden: int = 64,
        seed: int = 0,
        told: bool = True,
        front: FrontName | None = None,
        width: int = 16,
        recurrence: RecurrenceName = "none",
    ) -> ActorCritics:
        """A fresh policy whose actions the task takes.

        Raises :class:`InputError` for a front that cannot read what agents see in this task.
        """
        sizes = (task.agents, task.features, task.state_features, task.actions, task.continuous)
        form = () if front is None else form_of(task, front)
        return ActorCritics(*sizes, weights, critic, hidden, seed, told, front, form, width, recurrence)

    # ---- learning --------------------------------------------------------------------------------------------------

    @property
    def actors(self) -> Sequence[ControlPolicy]:
        """One policy, or one of each agent."""
        return cast(list[ControlPolicy], list(self._members))

    @property
    def members(self) -> Sequence[Policy]:
        """What learns by itself: policies that share no parameter."""
        return self.actors

    def forward(
        self, x: Experience, *, temperature: float = 1.0, also: Collection[str] = (), view: View | None = None
    ) -> PolicyOutput:
        """Log-probability of every action of ``x``, and ``also`` what ``says`` lists. All with gradients.

        Raises ``ValueError`` when the inputs are not :class:`AgentInputs`, :class:`InputError` for what it cannot say.
        """
        check_asked(self, also, view)
        if not isinstance(x.inputs, AgentInputs) or x.action is None:
            raise ValueError(f"agents read AgentInputs and actions, not {type(x.inputs).__name__}")
        read, action = x.inputs, x.action
        seen = self._with_agent(read.observation, read.agent)
        judged = self._judged(read.observation, read.state, read.agent) if {"value", "median"} & set(also) else seen
        heard, sequences = self._heard(x, read), self._sequences(read.lengths, read.agent, read.memory)

        def ask(number: int, rows: Tensor | slice) -> dict[str, Tensor]:
            member, turns = self.actors[number], sequences[number]
            outputs = allowed(self._outputs(number, seen[rows], heard[rows], turns), read.legal[rows])
            logp, entropy = member.score(outputs, action[rows], temperature, "entropy" in also)
            said = {"logp": logp} if entropy is None else {"logp": logp, "entropy": entropy}
            for name, place in (("value", "critic"), ("median", "median_critic")):
                if name in also:
                    said[name] = self._said(number, place, judged[rows], turns)[0].squeeze(-1)
            return said

        return PolicyOutput(**self._by_member(read.agent, ask))

    def values(
        self,
        observation: Float[Tensor, "rows features"],
        state: Float[Tensor, "rows state_features"],
        agent: Int[Tensor, " rows"],
        memory: Float[Tensor, "rows memory"] | None = None,
    ) -> Float[Tensor, " rows"]:
        judged = self._judged(observation, state, agent)
        begin = judged.new_zeros(len(agent), self.memory_width) if memory is None else memory
        sequences = self._sequences(torch.ones_like(agent), agent, begin)

        def ask(number: int, rows: Tensor | slice) -> dict[str, Tensor]:
            return {"value": self._said(number, "critic", judged[rows], sequences[number])[0].squeeze(-1)}

        return self._by_member(agent, ask)["value"]

    @torch.no_grad()
    def remembered(self, x: Experience) -> Float[Tensor, "trajectories memory"] | None:
        read = x.inputs
        if self.memory_width == self.acting_width or not isinstance(read, AgentInputs):
            return None
        judged = self._judged(read.observation, read.state, read.agent)
        sequences = self._sequences(read.lengths, read.agent, read.memory)

        def ask(number: int, trajectories: Tensor | slice) -> dict[str, Tensor]:
            rows = trajectories if isinstance(trajectories, slice) else rows_of(read.lengths, trajectories)
            turns, mine = sequences[number], judged[rows]
            last = [cast(Tensor, self._said(number, place, mine, turns)[1]) for place in NETWORKS[1:]]
            return {"memory": torch.cat([torch.zeros_like(last[0]), *last], 1)}

        return self._by_member(read.agent[read.lengths.cumsum(0) - 1], ask)["memory"]

    def _sequences(
        self, lengths: Int[Tensor, " trajectories"], agent: Int[Tensor, " rows"], memory: Tensor | None
    ) -> Sequence[Sequences | None]:
        """For every member the trajectories of its agents; without a memory, None."""
        if not self.memory_width or memory is None:
            return [None] * len(self.actors)
        return of_members(lengths, agent[lengths.cumsum(0) - 1], memory, len(self.actors))

    def _said(
        self, number: int, place: str, rows: Tensor, turns: Sequences | None
    ) -> tuple[Float[Tensor, "rows outputs"], Tensor | None]:
        """The outputs of a network of the member of this number, and what it remembers in the end."""
        return answers(getattr(self.actors[number], place), rows, turns, self._columns.get(place, slice(None)))

    def _heard(self, x: Experience, read: AgentInputs) -> Float[Tensor, "rows heard"]:
        """What agents knew of each other as they acted: nothing."""
        return read.observation[:, :0]

    def _outputs(
        self,
        number: int,
        seen: Float[Tensor, "rows told"],
        heard: Float[Tensor, "rows heard"],
        turns: Sequences | None = None,
    ) -> Tensor:
        """The outputs of the actor of this number."""
        return self._said(number, "actor", seen, turns)[0]

    def _by_member(
        self, agent: Int[Tensor, " rows"], ask: Callable[[int, Tensor | slice], dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """What every row's own member says, in the order of rows."""
        if len(self.actors) == 1:
            return ask(0, slice(None))
        order = agent.argsort(stable=True)
        rows = order.split(torch.bincount(agent, minlength=self.agents).tolist())
        said = [ask(number, mine) for number, mine in enumerate(rows)]
        back = order.argsort()
        return {name: torch.cat([one[name] for one in said])[back] for name in said[0]}

    def _with_agent(self, seen: Float[Tensor, "rows read"], agent: Int[Tensor, " rows"]) -> Float[Tensor, "rows told"]:
        if not self._told:
            return seen
        return torch.cat([seen, nn.functional.one_hot(agent, self.agents).to(seen.dtype)], 1)

    def _judged(self, observation: Tensor, state: Tensor, agent: Tensor) -> Tensor:
        """What the critic reads."""
        read = {"observation": (observation,), "state": (state,), "both": (observation, state)}[self.critic_reads]
        return self._with_agent(torch.cat(read, 1), agent)

    # ---- acting ----------------------------------------------------------------------------------------------------

    def acting(self, sampler: Sampler | None = None) -> Acting:
        answer = self._answering()
        choose = self._chooser(1.0 if sampler is None else sampler.policy_temperature)

        def act(frame: Frame, noise: np.random.Generator | None, memory: np.ndarray | None = None, /) -> Acted:
            outputs, kept = answer(frame.observation, memory)
            action = choose(outputs if self.continuous else masked(outputs, frame.legal), noise)
            return Acted(action, memory=None if kept is None else carried(memory, kept, frame.alive, self.memory_width))

        return act

    def chances(self) -> Chances:
        if self.continuous:
            raise InputError(f"{self.kind}: continuous actions have densities, and no probabilities")
        self._check_no_memory()
        outputs_of = self.outputs()

        def said(frame: Frame) -> np.ndarray:
            logits = masked(outputs_of(frame.observation), frame.legal)
            weights = np.exp(logits - logits.max(-1, keepdims=True), dtype=np.float64)
            return np.asarray(weights / weights.sum(-1, keepdims=True))

        return said

    def outputs(self) -> Callable[[np.ndarray], np.ndarray]:
        """A function from observations [copies, agents, features] to the actors' outputs, of its present weights.

        Of actors with a memory it is what they say as an episode begins.
        """
        answer = self._answering()
        return lambda observation: answer(observation, None)[0]

    def _answering(self) -> Callable[[np.ndarray, np.ndarray | None], tuple[np.ndarray, np.ndarray | None]]:
        """The actors' outputs given observations and memory, and what actors remember from then on."""
        networks = StackedNetworks([member.actor for member in self.actors])
        front = None if self.front_name is None else self.actors[0].actor[0]
        own = self._columns.get("actor")

        def read(observation: np.ndarray) -> np.ndarray:
            if front is None:
                return told_apart(observation, bool(self._told))
            with torch.no_grad():
                features: Tensor = front(torch.from_numpy(observation).flatten(0, 1))
            return features.view(*observation.shape[:2], -1).numpy()

        return lambda observation, memory: networks(
            read(observation), None if memory is None or own is None else memory[..., own]
        )

    def _chooser(self, temperature: float) -> Callable[[np.ndarray, np.random.Generator | None], np.ndarray]:
        """Actions given outputs [copies, agents, outputs]."""
        if not self.continuous:
            return self.actors[0].chooser(temperature)
        spread = torch.stack([cast(GaussianPolicy, member).log_std for member in self.actors]).detach().numpy()
        std = np.exp(spread) * np.float32(math.sqrt(temperature))
        return lambda mean, noise: gaussian(mean, std, noise)

    # ---- the trainer's contract ------------------------------------------------------------------------------------

    def policy_parameters(self) -> Iterator[Tensor]:
        return chain.from_iterable(member.policy_parameters() for member in self.actors)

    def critic_parameters(self) -> Iterator[Tensor]:
        return chain.from_iterable(member.critic_parameters() for member in self.actors)

    def hidden_matrices(self) -> list[Tensor]:
        return [matrix for member in self.actors for matrix in member.hidden_matrices()]

    def arguments(self) -> dict[str, Any]:
        """Sizes, whose weights they are, what the critic reads, what stands before, and what remembers."""
        own: dict[str, Any] = {
            "weights": self.weights_of,
            "critic": self.critic_reads,
            "hidden": self.hidden,
            "told": self.told,
        }
        if self.front_name is not None:
            own |= {"front": self.front_name, "form": list(self.form), "width": self.width}
        return {**self.sizes(), **own} | (
            {} if self.recurrence_name == "none" else {"recurrence": self.recurrence_name}
        )


def allowed(logits: Float[Tensor, "*rows actions"], legal: Bool[Tensor, "*rows actions"]) -> Tensor:
    """Logits with those of actions that may not be taken replaced. Continuous actions have no columns to forbid.

    Raises ``ValueError`` for a row in which nothing may be done.
    """
    if not legal.shape[-1]:
        return logits
    if not bool(legal.any(-1).all()):
        raise ValueError("an agent has no legal action; one that is not alive has at least one, whatever it does")
    return logits.masked_fill(~legal, ILLEGAL)
