"""Agents that learn in one game: actors on what each sees, critics on that or on the state, weights shared or not."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from stratagem.control.policy import CategoricalPolicy, ControlPolicy, GaussianPolicy, gaussian, linear_layers
from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.multiagent.episodes import Acted
from stratagem.multiagent.fronts import FrontName, form_of, make_front
from stratagem.multiagent.game import Frame, MultiAgentTask
from stratagem.multiagent.inputs import AgentInputs
from stratagem.parts import Sampler, View
from stratagem.seeding import derive
from stratagem.training.module_policy import ModulePolicy, read_policy
from stratagem.training.world import Policy, check_asked

Weights = Literal["shared", "separate"]
Critic = Literal["observation", "state", "both"]

NETWORKS = ("actor", "critic", "median_critic")
"""Of every member."""

ILLEGAL = -1e9
"""What stands for the logit of an action that may not be taken: its probability is 0, and so is its gradient."""

Acting = Callable[[Frame, np.random.Generator | None], Acted]

Chances = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From observations [copies, agents, features] and legal actions [copies, agents, actions] to how likely each is."""


class AgentsPolicy(ModulePolicy):
    """A policy of all agents of a game, which acts in all copies of it at once.

    agents, features, state_features, actions, continuous: as of the task.  any_number: whether it acts as well for
    another number of agents.
    """

    any_number: bool = False

    agents: int
    features: int
    state_features: int
    actions: int
    continuous: bool

    @abstractmethod
    def acting(self, sampler: Sampler | None = None) -> Acting:
        """A function from what there is to see to what the agents do; without a generator, what they most likely do.

        sampler: how it is asked to act in training; None: as in evaluation.
        """

    def chances(self) -> Chances:
        """A function that says how likely every action is, as agents act in evaluation by its present weights.

        Raises :class:`InputError` for agents that cannot say it: those with continuous actions, for instance.
        """
        raise InputError(f"{self.kind}: does not say how likely each action is")

    @abstractmethod
    def values(
        self,
        observation: Float[Tensor, "rows features"],
        state: Float[Tensor, "rows state_features"],
        agent: Int[Tensor, " rows"],
    ) -> Float[Tensor, " rows"]:
        """The critic's estimate of what these agents will earn."""

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
    ) -> None:
        super().__init__()
        self.agents, self.features, self.state_features = agents, features, state_features
        self.actions, self.continuous = actions, continuous
        self.weights_of, self.critic_reads, self.hidden = weights, critic, hidden
        self.told, self.front_name, self.form, self.width = told, front, tuple(form), width
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
    ) -> ActorCritics:
        """A fresh policy whose actions the task takes.

        Raises :class:`InputError` for a front that cannot read what agents see in this task.
        """
        sizes = (task.agents, task.features, task.state_features, task.actions, task.continuous)
        form = () if front is None else form_of(task, front)
        return ActorCritics(*sizes, weights, critic, hidden, seed, told, front, form, width)

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
        heard = self._heard(x, read)

        def ask(number: int, rows: Tensor | slice) -> dict[str, Tensor]:
            member = self.actors[number]
            outputs = allowed(self._outputs(number, seen[rows], heard[rows]), read.legal[rows])
            logp, entropy = member.score(outputs, action[rows], temperature, "entropy" in also)
            said = {"logp": logp} if entropy is None else {"logp": logp, "entropy": entropy}
            for name, critic in (("value", member.critic), ("median", member.median_critic)):
                if name in also:
                    said[name] = critic(judged[rows]).squeeze(-1)
            return said

        return PolicyOutput(**self._by_member(read.agent, ask))

    def values(
        self,
        observation: Float[Tensor, "rows features"],
        state: Float[Tensor, "rows state_features"],
        agent: Int[Tensor, " rows"],
    ) -> Float[Tensor, " rows"]:
        judged = self._judged(observation, state, agent)
        return self._by_member(agent, lambda number, rows: {"value": self.actors[number].values(judged[rows])})["value"]

    def _heard(self, x: Experience, read: AgentInputs) -> Float[Tensor, "rows heard"]:
        """What agents knew of each other as they acted: nothing."""
        return read.observation[:, :0]

    def _outputs(self, number: int, seen: Float[Tensor, "rows told"], heard: Float[Tensor, "rows heard"]) -> Tensor:
        """The outputs of the actor of this number."""
        outputs: Tensor = self.actors[number].actor(seen)
        return outputs

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
        outputs_of = self.outputs()
        choose = self._chooser(1.0 if sampler is None else sampler.policy_temperature)

        def act(frame: Frame, noise: np.random.Generator | None) -> Acted:
            outputs = outputs_of(frame.observation)
            return Acted(choose(outputs if self.continuous else masked(outputs, frame.legal), noise))

        return act

    def chances(self) -> Chances:
        if self.continuous:
            raise InputError(f"{self.kind}: continuous actions have densities, and no probabilities")
        outputs_of = self.outputs()

        def said(observation: np.ndarray, legal: np.ndarray) -> np.ndarray:
            logits = masked(outputs_of(observation), legal)
            weights = np.exp(logits - logits.max(-1, keepdims=True), dtype=np.float64)
            return np.asarray(weights / weights.sum(-1, keepdims=True))

        return said

    def outputs(self) -> Callable[[np.ndarray], np.ndarray]:
        """A function from observations [copies, agents, features] to the actors' outputs, of its present weights."""
        actors = [linear_layers(member.actor) for member in self.actors]
        layers = [
            (
                np.stack([layer.weight.detach().numpy().T for layer in same]),
                np.stack([layer.bias.detach().numpy() for layer in same])[:, None],
            )
            for same in zip(*actors, strict=True)
        ]
        front = None if self.front_name is None else self.actors[0].actor[0]

        def read(observation: np.ndarray) -> np.ndarray:
            if front is None:
                return told_apart(observation, bool(self._told))
            with torch.no_grad():
                features: Tensor = front(torch.from_numpy(observation).flatten(0, 1))
            return features.view(*observation.shape[:2], -1).numpy()

        def outputs_of(observation: np.ndarray) -> np.ndarray:
            # By agent first, so that one matrix product a layer does for all copies and all agents.
            outputs = network_outputs(layers, read(observation).swapaxes(0, 1))
            return outputs.swapaxes(0, 1)

        return outputs_of

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
        """Sizes, whose weights they are, what the critic reads, and what stands before."""
        own = {"weights": self.weights_of, "critic": self.critic_reads, "hidden": self.hidden, "told": self.told}
        if self.front_name is None:
            return {**self.sizes(), **own}
        return {**self.sizes(), **own, "front": self.front_name, "form": list(self.form), "width": self.width}


def allowed(logits: Float[Tensor, "*rows actions"], legal: Bool[Tensor, "*rows actions"]) -> Tensor:
    """Logits with those of actions that may not be taken replaced. Continuous actions have no columns to forbid.

    Raises ``ValueError`` for a row in which nothing may be done.
    """
    if not legal.shape[-1]:
        return logits
    if not bool(legal.any(-1).all()):
        raise ValueError("an agent has no legal action; one that is not alive has at least one, whatever it does")
    return logits.masked_fill(~legal, ILLEGAL)


def masked(logits: np.ndarray, legal: np.ndarray) -> np.ndarray:
    """The same in numpy, for acting."""
    if not legal.any(-1).all():
        raise ValueError("an agent has no legal action; one that is not alive has at least one, whatever it does")
    return np.where(legal, logits, np.float32(ILLEGAL))


def told_apart(observation: np.ndarray, tell: bool) -> np.ndarray:
    """Observations [copies, agents, features], with a one-hot number of the agent beside each if that is asked for."""
    if not tell:
        return observation
    copies, agents, _ = observation.shape
    numbers = np.broadcast_to(np.eye(agents, dtype=np.float32), (copies, agents, agents))
    return np.concatenate([observation, numbers], -1)


def network_outputs(layers: Sequence[tuple[np.ndarray, np.ndarray]], seen: np.ndarray) -> np.ndarray:
    """Outputs [agents, copies, outputs] of tanh networks given inputs [agents, copies, inputs].

    layers: weights [networks, inputs, outputs] and biases [networks, 1, outputs]; one network is for all agents.
    """
    hidden = seen
    for weight, bias in layers[:-1]:
        hidden = np.tanh(hidden @ weight + bias)
    weight, bias = layers[-1]
    outputs: np.ndarray = hidden @ weight + bias
    return outputs
