"""Q-learning whose greedy action is an optimum over a combinatorial set, for coupled restless bandits."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Gt, Le
from jaxtyping import Bool, Float64
from torch import Tensor, nn

from stratagem.bandits.coupled import ArmStates, CoupledBandit, CoupledPolicy
from stratagem.bandits.feasible import Actions, of_each
from stratagem.bandits.network_program import Minimizer, MixedInteger, ReluNetwork
from stratagem.catalogue import paper
from stratagem.errors import InputError
from stratagem.seeding import numpy_generator, seed_torch
from stratagem.validation import validate_fields

Score = Callable[[ArmStates, Actions], Float64[np.ndarray, " batch"]]
"""What an action costs in the state beside it."""


@dataclass
class ByNetwork(CoupledPolicy):
    """The feasible action of least expected cost to come, as a network has it."""

    bandit: CoupledBandit
    network: ReluNetwork
    minimizer: Minimizer = field(default_factory=MixedInteger)

    def choose(self, states: ArmStates) -> Actions:
        """Raises :class:`InputError` as the minimizer does."""
        return self.minimizer.least(self.network, states.astype(np.float64), self.bandit.feasible)[0]


@dataclass
class Learned(ByNetwork):
    """What training found.

    first: the network before Q-learning, fitted to the cost of one step.  losses: of the updates after that.
    """

    first: ReluNetwork = field(kw_only=True, repr=False)
    losses: list[float] = field(kw_only=True, repr=False)


@dataclass
class OneByOne(CoupledPolicy):
    """Builds an action entry by entry, each time the one that lowers a score most, as long as it can be completed.

    It ends where the action is feasible and no entry lowers the score. The score is a network's output, or minus the
    mean reward of the next step.
    """

    bandit: CoupledBandit
    score: Score

    @classmethod
    def myopic(cls, bandit: CoupledBandit) -> OneByOne:
        """By the next reward."""
        return cls(bandit, lambda states, actions: -_next_reward(bandit, states, actions))

    @classmethod
    def by_network(cls, policy: ByNetwork) -> OneByOne:
        """By the output of a learned network."""
        network = policy.network
        return cls(policy.bandit, lambda states, actions: network.pairs(states.astype(np.float64), actions))

    def choose(self, states: ArmStates) -> Actions:
        """All states at once. Raises :class:`InputError` where no entry can be added to an infeasible action."""
        feasible = self.bandit.feasible
        actions = np.zeros((len(states), feasible.entries), dtype=bool)
        now = self.score(states, actions)
        rows = np.arange(len(states))
        for _ in range(feasible.entries):
            scores = np.full(actions.shape, np.inf)
            for entry in range(feasible.entries):
                more = actions.copy()
                more[:, entry] = True
                fits = ~actions[:, entry] & of_each(feasible.extendable, more)
                scores[fits, entry] = self.score(states[fits], more[fits])
            best = scores.argmin(-1)
            after = scores[rows, best]
            goes = np.isfinite(after) & ((after < now) | ~of_each(feasible.contains, actions))
            if not goes.any():
                break
            actions[rows[goes], best[goes]] = True
            now = np.where(goes, after, now)
        if not of_each(feasible.contains, actions).all():
            raise InputError(f"one_by_one: {type(feasible).__name__} left an action that cannot be completed")
        return actions


@paper(
    "2503.01919",
    title="Reinforcement Learning with Combinatorial Actions for Coupled Restless Bandits",
    family="bandits",
    roles=("policy", "planner", "environment", "objective"),
    year=2025,
    name="sequoia",
    tags=("learning",),
)
@dataclass(frozen=True)
class Sequoia:
    """Deep Q-learning of costs, ``Q(a, s)``, in which ``min_a Q`` is an optimum over all feasible actions.

    The network is fitted first to the exact mean cost of the next step: of states of zeros, of ones, of one that
    differs, and at random with some arms at the top; with actions of zeros, of ones, of one that differs, of those arms
    (where entries are arms), and random feasible ones. Then it is fitted to ``cost + discount min_a Q'(a, s')`` with
    Huber loss on prioritised replay, with ``cost`` the negative mean reward given state and action, and ``Q'`` a slow
    average of ``Q``. Minimising actions are kept by next state for some episodes.

    Constants are those of the authors' code. With them ``Q'`` hardly leaves the first fit (``polyak=1e-6``), so that at
    most two steps are looked ahead, and ``decay`` ends learning after a few hundred updates; a larger ``polyak``,
    ``decay`` and ``updates`` look further. ``kept`` is what their code names; it forgets after one episode in effect.
    Their optional swaps of stored actions for more data are left out.

    hidden: units of the layers.  episodes, horizon: of training.
    epsilon_first, epsilon_last, epsilon_rate: chance of a random feasible action,
    ``last + (first - last) exp(-step / rate)``.
    learning_rate, decay: of AdamW, and its factor every episode.  clip: of each entry of the gradient.
    alpha, beta: of the prioritised replay.  prefilled: transitions of the first fit that are put in before.
    updates: a step.  kept: episodes for which a minimum is remembered.
    states_per_step: random states of the first fit, times the horizon.  top_arms: of them that are at the top.
    random_actions: feasible ones for each state.  first_epochs, first_learning_rate, first_batch: of the first fit.

    Raises :class:`InputError` for values out of range.
    """

    hidden: tuple[Annotated[int, Ge(1)], ...] = (16, 32)
    episodes: Annotated[int, Ge(1)] = 100
    horizon: Annotated[int, Ge(1)] = 20
    discount: Annotated[float, Ge(0), Le(1)] = 0.99
    epsilon_first: Annotated[float, Ge(0), Le(1)] = 0.9
    epsilon_last: Annotated[float, Ge(0), Le(1)] = 0.05
    epsilon_rate: Annotated[float, Gt(0)] = 1000.0
    learning_rate: Annotated[float, Gt(0)] = 2.5e-4
    decay: Annotated[float, Gt(0), Le(1)] = 0.9
    clip: Annotated[float, Gt(0)] = 5.0
    batch: Annotated[int, Ge(1)] = 32
    polyak: Annotated[float, Ge(0), Le(1)] = 1e-6
    alpha: Annotated[float, Ge(0)] = 0.6
    beta: Annotated[float, Ge(0)] = 0.4
    prefilled: Annotated[int, Ge(0)] = 1000
    updates: Annotated[int, Ge(1)] = 1
    kept: Annotated[int, Ge(1)] = 5
    states_per_step: Annotated[int, Ge(1)] = 50
    top_arms: Annotated[int, Ge(0)] = 2
    random_actions: Annotated[int, Ge(0)] = 10
    first_epochs: Annotated[int, Ge(0)] = 300
    first_learning_rate: Annotated[float, Gt(0)] = 2.5e-4
    first_batch: Annotated[int, Ge(1)] = 32

    def __post_init__(self) -> None:
        validate_fields(self, "sequoia")

    def fit(self, bandit: CoupledBandit, seed: int, minimizer: Minimizer | None = None) -> Learned:
        """Learn in a bandit. minimizer: a new :class:`MixedInteger` by default; it also acts for the learned policy.

        Raises :class:`InputError` as the minimizer does.
        """
        return _Learner(self, bandit, seed, minimizer or MixedInteger()).run()


@dataclass
class _Replay:
    """Transitions with priorities; nothing is dropped."""

    inputs: Float64[np.ndarray, "room inputs"]
    costs: Float64[np.ndarray, " room"]
    then: ArmStates
    priorities: Float64[np.ndarray, " room"]
    count: int = 0

    def add(self, inputs: np.ndarray, cost: float, then: np.ndarray) -> None:
        place, self.count = self.count, self.count + 1
        self.inputs[place], self.costs[place], self.then[place] = inputs, cost, then
        self.priorities[place] = self.priorities[:place].max(initial=1.0)


class _Learner:
    """One run of training."""

    def __init__(self, how: Sequoia, bandit: CoupledBandit, seed: int, minimizer: Minimizer) -> None:
        self.how, self.bandit, self.minimizer = how, bandit, minimizer
        self.source = numpy_generator(seed, "sequoia")
        self.entries = bandit.feasible.entries
        seed_torch(seed, "sequoia")
        sizes = [self.entries + bandit.arms, *how.hidden]
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes):
            layers += [nn.Linear(inputs, outputs, dtype=torch.float64), nn.ReLU()]
        self.network = nn.Sequential(*layers, nn.Linear(sizes[-1], 1, dtype=torch.float64))
        self.minima: dict[bytes, tuple[int, Bool[np.ndarray, " entries"]]] = {}
        self.losses: list[float] = []

    def run(self) -> Learned:
        inputs, costs = self.first_data()
        self.first_fit(inputs, costs)
        first = said_by(self.network)
        before = min(self.how.prefilled, len(inputs))
        room = before + self.how.episodes * self.how.horizon
        replay = _Replay(
            np.zeros((room, inputs.shape[1])),
            np.zeros(room),
            np.zeros((room, self.bandit.arms), dtype=np.int64),
            np.zeros(room),
        )
        for one in self.source.permutation(len(inputs))[:before]:
            state, action = inputs[one, self.entries :].astype(np.int64), inputs[one, : self.entries] > 0.5
            replay.add(inputs[one], costs[one], self.bandit.step(state, action, self.source))
        self.learn(replay)
        return Learned(self.bandit, said_by(self.network), self.minimizer, first=first, losses=self.losses)

    def first_data(self) -> tuple[np.ndarray, np.ndarray]:
        """States and actions, and the mean cost of the next step."""
        arms, how, entries = self.bandit.arms, self.how, self.entries
        plain = np.minimum(_plain(arms).astype(np.int64), self.bandit.states - 1)
        drawn = self.source.integers(self.bandit.states, size=(how.states_per_step * how.horizon, arms))
        at_top = self.source.permuted(np.tile(np.arange(arms) < how.top_arms, (len(drawn), 1)), axis=1)
        drawn = np.where(at_top, self.bandit.states - 1, drawn)
        states = np.concatenate([plain, drawn])
        common = np.broadcast_to(_plain(entries), (len(states), 2 * entries + 2, entries))
        some = self.bandit.feasible.draw(self.source, len(states) * how.random_actions)
        own = some.reshape(len(states), how.random_actions, entries)
        pieces = [common, own]
        if entries == arms:
            pieces.append(np.concatenate([np.zeros(plain.shape, dtype=bool), at_top])[:, None])
        actions = np.concatenate(pieces, 1)
        states = np.repeat(states, actions.shape[1], 0)
        actions = actions.reshape(-1, entries)
        return np.concatenate([actions, states], -1, dtype=np.float64), -_next_reward(self.bandit, states, actions)

    def first_fit(self, inputs: np.ndarray, costs: np.ndarray) -> None:
        optimizer = self.optimizer(self.how.first_learning_rate)
        slower = torch.optim.lr_scheduler.ExponentialLR(optimizer, self.how.decay)
        said, right = torch.from_numpy(inputs), torch.from_numpy(costs)
        for _ in range(self.how.first_epochs):
            for rows in torch.from_numpy(self.source.permutation(len(inputs))).split(self.how.first_batch):
                optimizer.zero_grad()
                nn.functional.mse_loss(self.network(said[rows])[:, 0], right[rows]).backward()
                optimizer.step()
            slower.step()

    def optimizer(self, rate: float) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.network.parameters(), lr=rate, eps=1.5e-4, amsgrad=True)

    def learn(self, replay: _Replay) -> None:
        how = self.how
        optimizer = self.optimizer(how.learning_rate)
        slower = torch.optim.lr_scheduler.ExponentialLR(optimizer, how.decay)
        slow = [values.detach().clone() for values in self.network.parameters()]
        step = 0
        for episode in range(how.episodes):
            self.minima = {key: kept for key, kept in self.minima.items() if episode - kept[0] < how.kept}
            state = self.bandit.start(self.source)
            for _ in range(how.horizon):
                action = self.act(state, step)
                cost = -float(_next_reward(self.bandit, state[None], action[None])[0])
                then = self.bandit.step(state, action, self.source)
                replay.add(np.concatenate([action, state]), cost, then)
                for _ in range(how.updates):
                    self.update(replay, optimizer, slow, episode)
                state, step = then, step + 1
            slower.step()

    def act(self, state: np.ndarray, step: int) -> Bool[np.ndarray, " entries"]:
        how = self.how
        chance = how.epsilon_last + (how.epsilon_first - how.epsilon_last) * math.exp(-step / how.epsilon_rate)
        if self.source.random() < chance:
            return np.asarray(self.bandit.feasible.draw(self.source)[0])
        best, _ = self.minimizer.least(said_by(self.network), state[None].astype(np.float64), self.bandit.feasible)
        return np.asarray(best[0])

    def update(self, replay: _Replay, optimizer: torch.optim.Optimizer, slow: list[Tensor], episode: int) -> None:
        how, count = self.how, replay.count
        weight = replay.priorities[:count] ** how.alpha
        edges = np.cumsum(weight)
        rows = np.minimum(np.searchsorted(edges, self.source.random(how.batch) * edges[-1], "right"), count - 1)
        importance = (count * weight[rows] / edges[-1]) ** -how.beta
        then = how.discount * self.least(replay.then[rows], slow, episode)
        target = torch.from_numpy(replay.costs[rows] + then)
        said = self.network(torch.from_numpy(replay.inputs[rows]))[:, 0]
        each = nn.functional.smooth_l1_loss(said, target, reduction="none")
        loss = (torch.from_numpy(importance / importance.max()) * each).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_value_(self.network.parameters(), how.clip)
        optimizer.step()
        replay.priorities[rows] = (target - said.detach()).abs().numpy() + 1e-5
        self.losses.append(float(loss.detach()))
        for kept, values in zip(slow, self.network.parameters(), strict=True):
            kept.lerp_(values.detach(), how.polyak)

    def least(self, states: ArmStates, slow: list[Tensor], episode: int) -> Float64[np.ndarray, " batch"]:
        """The least cost to come of the slow network, with minimising actions from memory where they are there."""
        keys = [state.tobytes() for state in states]
        missing = {key: place for place, key in enumerate(keys) if key not in self.minima}
        network, asked = _network([values.numpy() for values in slow]), states.astype(np.float64)
        if missing:
            found, _ = self.minimizer.least(network, asked[list(missing.values())], self.bandit.feasible)
            self.minima.update({key: (episode, action) for key, action in zip(missing, found, strict=True)})
        return network.pairs(asked, np.array([self.minima[key][1] for key in keys]))


def _plain(size: int) -> Bool[np.ndarray, "rows size"]:
    """All zeros, all ones, and all that differ from these in one place."""
    one = np.eye(size, dtype=bool)
    return np.concatenate([np.zeros((1, size), dtype=bool), np.ones((1, size), dtype=bool), one, ~one])


def said_by(network: nn.Module) -> ReluNetwork:
    """The numbers of a network of linear layers with ReLU between them, as they are now."""
    return _network([values.detach().numpy().copy() for values in network.parameters()])


def _network(values: list[np.ndarray]) -> ReluNetwork:
    return ReluNetwork(tuple(values[::2]), tuple(values[1::2]))


def _next_reward(bandit: CoupledBandit, states: ArmStates, actions: Actions) -> Float64[np.ndarray, " batch"]:
    """Mean, for each state with the action beside it."""
    below, above = bandit.neighbours(states)
    return np.asarray((below + bandit.effect(actions) * (above - below)).sum(-1))
