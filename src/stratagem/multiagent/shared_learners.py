"""Value learners on a lattice that share one set of weights or have one each: networks with replay, and tables."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Le
from jaxtyping import Float, Int64
from torch import Tensor

from stratagem.errors import InputError
from stratagem.multiagent.lattice import BITS, COOPERATING, OBSERVATIONS, Lattice
from stratagem.multiagent.stride_replay import StrideReplay
from stratagem.seeding import generator
from stratagem.validation import validate_fields

ACTIONS = 2


_INPUTS = BITS.float()


class Learning(ABC):
    """Learners at work in worlds side by side."""

    @abstractmethod
    def values(self, observations: Int64[Tensor, "worlds agents"]) -> Float[Tensor, "worlds agents actions"]:
        """What every agent expects of its actions."""

    @abstractmethod
    def learn(
        self,
        observations: Int64[Tensor, "worlds agents"],
        actions: Int64[Tensor, "worlds agents"],
        rewards: Float[Tensor, "worlds agents"],
        following: Int64[Tensor, "worlds agents"],
    ) -> None:
        """Learn from one step of all agents."""

    @abstractmethod
    def table(self) -> Float[Tensor, "worlds observations actions"]:
        """Values of every observation, mean over agents."""

    def interference(self) -> Float[Tensor, " worlds"]:
        """Cosine between updates for cooperating and for defecting neighbourhoods; nan where it has no meaning."""
        return torch.full((len(self.table()),), math.nan)


class Learner(ABC):
    """A way to learn values, ready to be started anywhere."""

    @abstractmethod
    def start(self, lattice: Lattice, worlds: int, seed: int) -> Learning:
        """In worlds side by side; all that is drawn follows from the seed."""


# ---- tables ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TableLearner(Learner):
    """Q-learning of one step on tables of 32 observations and 2 actions, from zero.

    shared: one table for all agents, or one each.  rate: at which a value moves to ``r + discount max Q'``.
    updates: of a shared table; ``"each"`` agent's step moves it, ``1 - (1 - rate)^n`` of the way to the mean of n
    targets, or their ``"mean"`` does once, so that a value moves as often as in a table of one agent.

    Raises :class:`InputError` for values out of range.
    """

    shared: bool = False
    rate: Annotated[float, Gt(0), Le(1)] = 0.05
    discount: Annotated[float, Ge(0), Le(1)] = 0.99
    updates: Literal["each", "mean"] = "each"

    def __post_init__(self) -> None:
        validate_fields(self, "table learner")

    def start(self, lattice: Lattice, worlds: int, seed: int) -> Learning:
        """Nothing is drawn."""
        return _Tables(self, worlds, lattice.agents)


class _Tables(Learning):
    def __init__(self, how: TableLearner, worlds: int, agents: int) -> None:
        self.how = how
        self.tables = torch.zeros(worlds, 1 if how.shared else agents, OBSERVATIONS, ACTIONS)
        self.offsets = torch.zeros(1, dtype=torch.int64) if how.shared else torch.arange(agents) * OBSERVATIONS

    def values(self, observations: Int64[Tensor, "worlds agents"]) -> Float[Tensor, "worlds agents actions"]:
        return _rows(self.tables.flatten(1, 2), observations + self.offsets)

    def learn(
        self,
        observations: Int64[Tensor, "worlds agents"],
        actions: Int64[Tensor, "worlds agents"],
        rewards: Float[Tensor, "worlds agents"],
        following: Int64[Tensor, "worlds agents"],
    ) -> None:
        cells = self.tables.flatten(1)
        places = (observations + self.offsets) * ACTIONS + actions
        errors = rewards + self.how.discount * self.values(following).amax(-1) - cells.gather(1, places)
        totals = torch.zeros_like(cells).scatter_add_(1, places, errors)
        counts = torch.zeros_like(cells).scatter_add_(1, places, torch.ones_like(errors))
        times = counts.clamp(max=1) if self.how.updates == "mean" else counts
        cells += (1 - (1 - self.how.rate) ** times) * totals / counts.clamp(min=1)

    def table(self) -> Float[Tensor, "worlds observations actions"]:
        return self.tables.mean(1)


# ---- networks -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NetworkLearner(Learner):
    """Double DQN with returns of several steps, on networks ``5 - hidden - 2`` with ReLU (arXiv 2601.05509).

    The target is ``sum_{k<n} discount^k r_k + discount^n Q_target(s_n, argmax Q(s_n))``, where a sequence of n steps of
    the same agent lies in the replay, and that of one step elsewhere; Huber loss, AdamW, ties broken at random.

    groups: into which agents are dealt at random, equally large, with a network each that learns from the steps of its
    own group alone; 1: all share one; None: every agent has its own. The paper has 1, and 10 for 900 agents, with the
    same constants (``batch`` steps for each update of each network included).
    identified: whether a network is told who it acts for, by one more input for every agent; an arm of ours.
    replay: sweeps over the lattice that are kept.  every: steps between updates.  copied: steps between copies to
    the target network.  clip: of the norm of each network's gradient.

    Raises :class:`InputError` for values out of range.
    """

    groups: Annotated[int, Ge(1)] | None = 1
    identified: bool = False
    hidden: Annotated[int, Ge(1)] = 96
    steps: Annotated[int, Ge(1)] = 5
    discount: Annotated[float, Ge(0), Le(1)] = 0.99
    learning_rate: Annotated[float, Gt(0)] = 1e-4
    weight_decay: Annotated[float, Ge(0)] = 1e-4
    clip: Annotated[float, Gt(0)] = 0.5
    replay: Annotated[int, Ge(1)] = 100
    batch: Annotated[int, Ge(1)] = 256
    every: Annotated[int, Ge(1)] = 4
    copied: Annotated[int, Ge(1)] = 2000

    def __post_init__(self) -> None:
        validate_fields(self, "network learner")

    def start(self, lattice: Lattice, worlds: int, seed: int) -> NetworkLearning:
        """Weights as ``torch.nn.Linear`` draws them. Raises :class:`InputError` for groups of different sizes."""
        if lattice.agents % (self.groups or 1):
            dealt = f"{lattice.agents} agents cannot be dealt into {self.groups} equal groups"
            raise InputError(f"network learner: {dealt}")
        return NetworkLearning(self, worlds, lattice.agents, seed)


Weights = Sequence[Tensor]
"""Of networks side by side, of shapes [inputs, hidden], [1, hidden], [hidden, 2] and [1, 2] each."""


class NetworkLearning(Learning):
    """Networks at work. weights: that act and learn.  target: their last copy.  memory: what they learn from.

    group: of each agent.  networks: of all worlds, group by group in each.
    """

    def __init__(self, how: NetworkLearner, worlds: int, agents: int, seed: int) -> None:
        self.how, self.worlds, self.agents = how, worlds, agents
        self.draw = generator(seed, "lattice", "network learner")
        self.groups = agents if how.groups is None else how.groups
        self.networks, self.members = worlds * self.groups, agents // self.groups
        dealt = torch.randperm(agents, generator=self.draw)
        self.group = dealt % self.groups
        self._who = self.group.argsort(stable=True).view(self.groups, -1).repeat(worlds, 1)
        inputs = BITS.shape[1] + (agents if how.identified else 0)
        self.weights = [
            self._drawn(inputs, inputs, how.hidden),
            self._drawn(inputs, 1, how.hidden),
            self._drawn(how.hidden, how.hidden, ACTIONS),
            self._drawn(how.hidden, 1, ACTIONS),
        ]
        self.optimizer = torch.optim.AdamW(
            self.weights, lr=how.learning_rate, weight_decay=how.weight_decay, fused=True
        )
        self.memory = StrideReplay(worlds, agents, how.replay)
        self.learned = 0
        self._changed()
        self.target = self._copy()

    def values(self, observations: Int64[Tensor, "worlds agents"]) -> Float[Tensor, "worlds agents actions"]:
        with torch.no_grad():
            if self.how.identified:
                rows = observations.gather(1, self._who.view(self.worlds, -1)).view(self.networks, -1)
                said = _outputs(self.weights, rows, self._who).view(self.worlds, self.agents, ACTIONS)
                return said[:, self._who[: self.groups].flatten().argsort()]
            rows = observations + self.group * OBSERVATIONS
            return _rows(self._now.view(self.worlds, -1, ACTIONS), rows)

    def learn(
        self,
        observations: Int64[Tensor, "worlds agents"],
        actions: Int64[Tensor, "worlds agents"],
        rewards: Float[Tensor, "worlds agents"],
        following: Int64[Tensor, "worlds agents"],
    ) -> None:
        self.memory.add(observations, actions, rewards, following)
        self.learned += 1
        if self.learned % self.how.every == 0:
            self._clipped_step(self.losses(self.drawn(self.how.batch)).mean(-1).sum())
        if self.learned % self.how.copied == 0:
            self.target = self._copy()

    def table(self) -> Float[Tensor, "worlds observations actions"]:
        if not self.how.identified:
            return self._now.view(self.worlds, -1, OBSERVATIONS, ACTIONS).mean(1)
        with torch.no_grad():
            seen = torch.arange(OBSERVATIONS).repeat(self.members).expand(self.networks, -1)
            said = _outputs(self.weights, seen, self._who.repeat_interleave(OBSERVATIONS, 1))
            return said.view(self.worlds, -1, OBSERVATIONS, ACTIONS).mean(1)

    def interference(self) -> Float[Tensor, " worlds"]:
        """Of the gradients of steps seen with at least three cooperating neighbours, and with at most one.

        Mean over networks; nan where a draw of ``4 batch`` steps lacks one kind.
        """
        if not self.memory.filled:
            return torch.full((self.worlds,), math.nan)
        places = self.drawn(4 * self.how.batch)
        losses = self.losses(places)
        around = COOPERATING[self._remembered(self.memory.observations, places)]

        def gradient(kind: Tensor) -> Tensor:
            loss = (losses * kind).sum(-1) / kind.sum(-1)
            found = torch.autograd.grad(loss.sum(), self.weights, retain_graph=True)
            return torch.cat([each.flatten(1) for each in found], 1)

        cosines = torch.cosine_similarity(gradient(around >= 3), gradient(around <= 1), dim=1)
        return cosines.view(self.worlds, -1).nanmean(-1)

    def drawn(self, count: int) -> Int64[Tensor, "networks count"]:
        """Entries of the memory to learn from, by network."""
        shape = (self.networks, count)
        sweeps = torch.randint(self.memory.filled, shape, generator=self.draw)
        members = torch.randint(self.members, shape, generator=self.draw)
        return sweeps * self.agents + self._who.gather(1, members)

    def losses(self, places: Int64[Tensor, "networks batch"]) -> Float[Tensor, "networks batch"]:
        """Huber losses of these entries."""
        how, here = self.how, places.view(self.worlds, -1)
        seen, actions = (self._remembered(what, places) for what in (self.memory.observations, self.memory.actions))
        returns, later, discounts = (
            one.view(places.shape) for one in self.memory.targets(here, how.steps, how.discount)
        )
        said, online, target = self._answers(seen, later, places % self.agents)
        best = _chosen(target, self.greedy(online))
        return torch.nn.functional.huber_loss(_chosen(said, actions), returns + discounts * best, reduction="none")

    def greedy(self, values: Float[Tensor, "*batch actions"]) -> Int64[Tensor, "*batch"]:
        """The better action; of equal ones either, at random."""
        coins = torch.randint(ACTIONS, values.shape[:-1], generator=self.draw)
        return torch.where(values[..., 0] == values[..., 1], coins, values.argmax(-1))

    def _answers(
        self,
        seen: Int64[Tensor, "networks rows"],
        later: Int64[Tensor, "networks rows"],
        who: Int64[Tensor, "networks rows"],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Values of what was seen, and of what came later by the networks and by their last copies."""
        if self.how.identified:
            with torch.no_grad():
                online, target = (_outputs(weights, later, who) for weights in (self.weights, self.target))
            return _outputs(self.weights, seen, who), online, target
        # There are but 32 observations: networks are asked once for each, not once for each row.
        table = self._every(self.weights)
        return _rows(table, seen), _rows(table.detach(), later), _rows(self._every(self.target), later)

    def _every(self, weights: Weights) -> Float[Tensor, "networks observations actions"]:
        return _outputs(weights, torch.arange(OBSERVATIONS).expand(self.networks, -1), None)

    def _changed(self) -> None:
        """Keep what networks say of every observation, until they change again."""
        if not self.how.identified:
            with torch.no_grad():
                self._now = self._every(self.weights)

    def _remembered(
        self, what: Int64[Tensor, "worlds entries"], places: Int64[Tensor, "networks batch"]
    ) -> Int64[Tensor, "networks batch"]:
        return what.gather(1, places.view(self.worlds, -1)).view(places.shape)

    def _clipped_step(self, loss: Tensor) -> None:
        self.optimizer.zero_grad()
        loss.backward()
        gradients = [weight.grad for weight in self.weights if weight.grad is not None]
        norms = torch.stack([gradient.square().sum((1, 2)) for gradient in gradients]).sum(0).sqrt()
        scale = (self.how.clip / (norms + 1e-6)).clamp(max=1)[:, None, None]
        for gradient in gradients:
            gradient *= scale
        self.optimizer.step()
        self._changed()

    def _drawn(self, fan_in: int, *shape: int) -> Tensor:
        bound = fan_in**-0.5
        drawn = torch.rand(self.networks, *shape, generator=self.draw)
        weights: Tensor = drawn * 2 * bound - bound
        return weights.requires_grad_()

    def _copy(self) -> list[Tensor]:
        return [weight.detach().clone() for weight in self.weights]


def _rows(
    tables: Float[Tensor, "tables entries actions"], places: Int64[Tensor, "tables rows"]
) -> Float[Tensor, "tables rows actions"]:
    return tables.gather(1, places[..., None].expand(-1, -1, ACTIONS))


def _chosen(values: Float[Tensor, "*batch actions"], actions: Int64[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    return values.gather(-1, actions[..., None])[..., 0]


def _outputs(
    weights: Weights, observations: Int64[Tensor, "networks rows"], who: Int64[Tensor, "networks rows"] | None
) -> Float[Tensor, "networks rows actions"]:
    """Outputs of networks side by side; inputs beyond the five of an observation say who asks."""
    first, first_bias, second, second_bias = weights
    seen, named = first[:, : BITS.shape[1]], first[:, BITS.shape[1] :]
    hidden = torch.baddbmm(first_bias, _INPUTS[observations], seen)
    if who is not None:
        hidden = hidden + named.gather(1, who[..., None].expand(-1, -1, named.shape[-1]))
    return torch.baddbmm(second_bias, hidden.relu(), second)
