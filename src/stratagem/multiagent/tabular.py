"""Cooperative Markov games small enough to write down, and joint policies along a graph with exact gradients."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from stratagem.errors import InputError
from stratagem.multiagent.games import CoordinationGame


@dataclass(frozen=True, eq=False)
class TeamModel:
    """A cooperative game in full: what leads where, what it pays the team, where it begins.

    transition: ``P(s' | s, a)`` over joint actions, numbered with agent 0's slowest.  reward: ``r(s, a)``.
    start: of the first state.  agents, actions: there are ``actions ** agents`` joint actions.  discount: in [0, 1).
    """

    transition: Float[Tensor, "states joint states"]
    reward: Float[Tensor, "states joint"]
    start: Float[Tensor, " states"]
    agents: int
    actions: int
    discount: float

    def __post_init__(self) -> None:
        if not 0 <= self.discount < 1:
            raise InputError(f"discount = {self.discount}: must be at least 0 and less than 1")
        if self.reward.shape[1] != self.actions**self.agents:
            raise InputError(f"{self.reward.shape[1]} joint actions: must be {self.actions} ** {self.agents}")

    @classmethod
    def coordination(cls, agents: int, discount: float = 0.95, flip: float = 0.1) -> TeamModel:
        """:class:`CoordinationGame` without an end; states are its bits, agent 0's slowest, as actions are."""
        game = CoordinationGame(agents=agents, flip=flip)
        bits = _digits(agents, 2)
        unlike = (bits[:, None] != bits).double()
        leads = (unlike * flip + (1 - unlike) * (1 - flip)).prod(-1)
        states = len(bits)
        paid = torch.from_numpy(game.pay(bits.numpy()))[:, None].expand(states, states)
        start = torch.full((states,), 1 / states, dtype=torch.float64)
        return cls(leads.expand(states, states, states), paid, start, agents, 2, discount)

    @cached_property
    def joint_actions(self) -> Int[Tensor, "joint agents"]:
        """What each agent does in every joint action."""
        return _digits(self.agents, self.actions)

    def value(self, policy: Float[Tensor, "*batch states joint"]) -> Float[Tensor, "*batch states"]:
        """``V = (1 - discount P_pi)^-1 r_pi``."""
        leads = torch.einsum("...sa,sat->...st", policy, self.transition)
        here = torch.eye(leads.shape[-1], dtype=leads.dtype) - self.discount * leads
        found: Tensor = torch.linalg.solve(here, (policy * self.reward).sum(-1))
        return found

    def worth(self, policy: Float[Tensor, "*batch states joint"]) -> Float[Tensor, "*batch"]:
        """``J``, the value of the first state on average."""
        return self.value(policy) @ self.start

    def action_value(self, value: Float[Tensor, "*batch states"]) -> Float[Tensor, "*batch states joint"]:
        """``Q(s, a) = r(s, a) + discount E V(s')``."""
        return self.reward + self.discount * torch.einsum("sat,...t->...sa", self.transition, value)

    def visits(self, policy: Float[Tensor, "*batch states joint"]) -> Float[Tensor, "*batch states"]:
        """``d(s) / (1 - discount)``: discounted number of visits of each state."""
        leads = torch.einsum("...sa,sat->...st", policy, self.transition)
        here = torch.eye(leads.shape[-1], dtype=leads.dtype) - self.discount * leads.mT
        found: Tensor = torch.linalg.solve(here, self.start.expand(leads.shape[:-1]))
        return found

    def optimum(self) -> float:
        """``J`` of the best joint policy, by value iteration to float accuracy."""
        value = torch.zeros(len(self.start), dtype=self.reward.dtype)
        while True:
            better = self.action_value(value).amax(-1)
            if bool(((better - value).abs() <= 1e-13 * better.abs().clamp(min=1)).all()):
                return float(better @ self.start)
            value = better


@dataclass(frozen=True, eq=False)
class GraphPolicies:
    """Tabular joint policies ``prod_i softmax(theta_i(s, a_parents))_{a_i}`` along a graph (arXiv 2306.01920).

    A batch of them is one list of tables, agent ``i``'s of shape [*batch, states, seen, actions]; ``seen`` numbers what
    its parents do, in the order of agents, each an action or, as the last digit, not to be seen.

    edges: ``edges[k, j] = 1``: agent ``j`` sees what ``k`` is about to do; agents are in an order in which that is
    before. Raises :class:`InputError` for an edge to an earlier agent.
    """

    model: TeamModel
    edges: Float[Tensor, "agents agents"]

    def __post_init__(self) -> None:
        if bool(self.edges.tril().any()):
            raise InputError("edges of a graph over agents lead from earlier to later ones")

    def shapes(self) -> list[tuple[int, int, int]]:
        """Of every agent's table."""
        parents = self.edges.sum(0).int().tolist()
        return [(len(self.model.start), (self.model.actions + 1) ** count, self.model.actions) for count in parents]

    def log_joint(
        self,
        tables: Sequence[Float[Tensor, "*batch states seen actions"]],
        kept: Float[Tensor, "agents agents"] | None = None,
    ) -> Float[Tensor, "*batch states joint"]:
        """``log pi(a | s)`` of every joint action. kept: edges along which agents see; None: all there are."""
        terms = [
            torch.log_softmax(table, -1)[..., self._seen(agent, kept), self.model.joint_actions[:, agent]]
            for agent, table in enumerate(tables)
        ]
        return torch.stack(terms).sum(0)

    def thinned(
        self, tables: Sequence[Float[Tensor, "*batch states seen actions"]], dependence: float
    ) -> Float[Tensor, "*batch states joint"]:
        """``pi(a | s)`` when each edge is kept with this probability, drawn anew in every turn."""
        places = torch.nonzero(self.edges).tolist()
        total = torch.zeros(())
        for mask in itertools.product((0.0, 1.0), repeat=len(places)):
            chance = math.prod(dependence if one else 1 - dependence for one in mask)
            if chance == 0:
                continue
            kept = torch.zeros_like(self.edges)
            for (parent, child), one in zip(places, mask, strict=True):
                kept[parent, child] = one
            total = total + chance * self.log_joint(tables, kept).exp()
        return total

    def gradient(self, tables: Sequence[Float[Tensor, "*batch states seen actions"]]) -> list[Tensor]:
        """``dJ / d theta_i(s, a_P, a_i) = d(s) / (1 - discount) pi(a_P | s) pi_i(a_i | s, a_P) A_i(s, a_P, a_i)``.

        ``A_i = E[Q | s, a_P, a_i] - E[Q | s, a_P]``, over the other agents' actions under the policy.
        """
        model, policy = self.model, self.log_joint(tables).exp()
        worth = model.visits(policy).unsqueeze(-1) * policy * model.action_value(model.value(policy))
        found = []
        for agent, table in enumerate(tables):
            mine = self._by_own(agent, worth, table)
            found.append(mine - torch.softmax(table, -1) * mine.sum(-1, keepdim=True))
        return found

    def gap(self, tables: Sequence[Float[Tensor, "*batch states seen actions"]]) -> Float[Tensor, "*batch"]:
        """``max_i`` of what agent ``i`` gains by its best deviation, which may look at what its parents do.

        For each agent the others' policies make a decision problem whose states are those of the game and its parents'
        actions; it is solved by policy iteration.
        """
        worth = self.model.worth(self.log_joint(tables).exp())
        return torch.stack([self._best(agent, list(tables)) - worth for agent in range(self.model.agents)]).amax(0)

    def _best(self, agent: int, tables: list[Tensor]) -> Float[Tensor, "*batch"]:
        """``J`` with the best response of one agent."""
        seen, does = self._seen(agent), self.model.joint_actions[:, agent]
        best: Tensor | None = None
        while True:
            logp = self.log_joint(tables)
            worth = self.model.worth(logp.exp())
            if best is not None and not bool((worth > best + 1e-10).any()):
                return torch.maximum(worth, best)
            best = worth
            others = (logp - torch.log_softmax(tables[agent], -1)[..., seen, does]).exp()
            value = self.model.action_value(self.model.value(logp.exp()))
            chosen = self._by_own(agent, others * value, tables[agent]).argmax(-1)
            tables[agent] = (nn.functional.one_hot(chosen, self.model.actions) - 1.0).to(value.dtype) * CERTAIN

    def _by_own(self, agent: int, rows: Float[Tensor, "*batch states joint"], like: Tensor) -> Tensor:
        """Sums over the joint actions in which an agent sees and does the same, in the shape of its table."""
        place = self._seen(agent) * self.model.actions + self.model.joint_actions[:, agent]
        sums = torch.zeros(*rows.shape[:-1], like.shape[-2] * like.shape[-1], dtype=rows.dtype)
        return sums.index_add(-1, place, rows).view(like.shape)

    def _seen(self, agent: int, kept: Float[Tensor, "agents agents"] | None = None) -> Int[Tensor, " joint"]:
        """The number of what an agent sees of its parents in every joint action."""
        joint, unseen = self.model.joint_actions, self.model.actions
        number = torch.zeros(len(joint), dtype=torch.int64)
        for parent in torch.nonzero(self.edges[:, agent]).flatten().tolist():
            sees = kept is None or bool(kept[parent, agent])
            number = number * (unseen + 1) + (joint[:, parent] if sees else unseen)
        return number


CERTAIN = 1e4
"""How far below the chosen action's logit the others' lie in a policy that is certain: their probability is 0."""


def _digits(count: int, base: int) -> Int[Tensor, "numbers digits"]:
    """All numbers of ``count`` digits, in their order."""
    return torch.cartesian_prod(*[torch.arange(base)] * count).view(-1, count)
