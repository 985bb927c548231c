"""Policies of several agents, as a recipe asks for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge

from stratagem.errors import InputError
from stratagem.parts import Architecture


@dataclass(frozen=True)
class Agents(Architecture):
    """Actors that see what their agent sees, and a critic that may see more, since it is not asked when agents act.

    weights: ``shared`` by all agents, who are told which of them they are, or ``separate``.
    critic: reads an agent's ``observation``, as an independent learner does; the ``state`` of the whole game; or
    ``both``, the agent-specific state of arXiv 2103.01955.
    hidden: width of the two hidden layers of every network.
    told: whether agents that share weights are told which of them they are; if not, and with a critic that reads the
    observation, the policy is one for any number of agents.
    front: what stands before every perceptron: a ``convolution`` over a window, ``messages`` of neighbours, or None.
    Only where agents share weights, are not told apart, and the critic reads the observation.
    width: of the front.
    recurrence: ``gru``, with which an actor remembers earlier turns of the episode by a GRU of ``hidden`` units before
    its last layer, and a critic that reads the observation by one of its own, while one on the state alone remembers
    nothing; or ``none``. Agents with a memory learn from whole trajectories: ``optimization.shuffle`` is to be
    ``trajectories`` or ``groups``.

    Raises :class:`InputError` for a front where there cannot be one.
    """

    weights: Literal["shared", "separate"] = "shared"
    critic: Literal["observation", "state", "both"] = "observation"
    hidden: Annotated[int, Ge(1)] = 64
    told: bool = True
    front: Literal["convolution", "messages"] | None = None
    width: Annotated[int, Ge(1)] = 16
    recurrence: Literal["none", "gru"] = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.front is not None and (self.told or self.weights != "shared" or self.critic != "observation"):
            raise InputError(
                f"architecture agents: front = {self.front}: needs weights = shared, told = false and "
                f"critic = observation; here they are {self.weights}, {str(self.told).lower()} and {self.critic}"
            )

    def build(self, task: Any, seed: int) -> Any:
        from stratagem.multiagent.policy import ActorCritics

        own = (self.told, self.front, self.width, self.recurrence)
        return ActorCritics.for_task(task, self.weights, self.critic, self.hidden, seed, *own)


@dataclass(frozen=True)
class MixedValues(Architecture):
    """Utilities of agents that act greedily by them, mixed to the value of what the team does.

    mixer: ``sum`` (VDN), ``monotone`` (QMIX), or None: each agent learns the value of its own action.
    double: the online utilities choose what the target network judges (double Q-learning).
    target_every: optimizer steps after which the target network is a fresh copy, at the beginning of a batch.
    hidden: width of the utilities' two hidden layers.  width: of the monotone mixer's.
    recurrence: ``gru``, with which a GRU of ``hidden`` units stands in the place of the second of them; or ``none``.
    """

    mixer: Literal["sum", "monotone"] | None = "monotone"
    double: bool = True
    target_every: Annotated[int, Ge(1)] = 200
    hidden: Annotated[int, Ge(1)] = 64
    width: Annotated[int, Ge(1)] = 32
    recurrence: Literal["none", "gru"] = "none"

    def build(self, task: Any, seed: int) -> Any:
        from stratagem.multiagent.values import ValueAgents

        own = {"mixer": self.mixer, "double": self.double, "target_every": self.target_every}
        sizes = {"hidden": self.hidden, "width": self.width}
        return ValueAgents.for_task(task, **own, **sizes, seed=seed, recurrence=self.recurrence)


@dataclass(frozen=True)
class DependentActors(Architecture):
    """Actors of which some see what others are about to do while they learn (arXiv 2306.01920).

    weights, critic, hidden: as of :class:`Agents`.
    edges: who sees whom: ``learned`` and drawn anew in each turn; ``full``, where every agent sees all those before it;
    ``line``, where it sees the one before it; or ``none``.
    """

    weights: Literal["shared", "separate"] = "shared"
    critic: Literal["observation", "state", "both"] = "observation"
    hidden: Annotated[int, Ge(1)] = 64
    edges: Literal["learned", "full", "line", "none"] = "learned"

    def build(self, task: Any, seed: int) -> Any:
        from stratagem.multiagent.dependent import DependentAgents

        sizes = (task.agents, task.features, task.state_features, task.actions, task.continuous)
        return DependentAgents(*sizes, self.weights, self.critic, self.hidden, seed, self.edges)


@dataclass(frozen=True)
class RelationalActors(Architecture):
    """Actors that attend to others by a latent code, and a critic of their joint actions (arXiv 2108.12988).

    For tasks in which agents see a row of numbers for every other agent, such as ``resources``; one policy for any
    number of agents.

    codes: latent codes, and heads of the relations; 1: none to choose from.
    credit: the critic learns the value of each agent's ``own`` reward, or that of the ``team``, which a recipe has to
    pay alike then (:class:`~stratagem.rewards.TeamReward`).
    resamples: codes drawn to estimate the information of an action.
    temperature: of the entropy in later values, in units of reward per nat.
    hidden: width of the hidden layers.  heads: width of a head.  width: of features and messages.
    target_every: optimizer steps after which targets are fresh copies, at the beginning of a batch.
    """

    codes: Annotated[int, Ge(1)] = 6
    credit: Literal["team", "own"] = "own"
    resamples: Annotated[int, Ge(1)] = 5
    temperature: Annotated[float, Ge(0)] = 1 / 30
    hidden: Annotated[int, Ge(1)] = 64
    heads: Annotated[int, Ge(1)] = 16
    width: Annotated[int, Ge(1)] = 64
    target_every: Annotated[int, Ge(1)] = 1

    def build(self, task: Any, seed: int) -> Any:
        from stratagem.multiagent.relational import RelationalAgents

        names = ("codes", "credit", "resamples", "temperature", "hidden", "heads", "width", "target_every")
        return RelationalAgents.for_task(task, **{name: getattr(self, name) for name in names}, seed=seed)
