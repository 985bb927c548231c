"""Everything that can be said exactly about a policy on a tree: returns, gradient, values, entropy, optimal play."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import torch
from jaxtyping import Float, Float64, Shaped
from torch import Tensor

from stratagem.errors import InputError
from stratagem.lab.mdp import soft_maximum
from stratagem.lab.tree import Tree, added

DEMONSTRATOR_ERROR = 0.1
"""Of the demonstrator's tokens, one in so many is drawn from the whole vocabulary instead of the best ones."""


@dataclass(frozen=True, eq=False)
class Exact:
    """A softmax policy on a tree, solved in float64. Logits of ``-inf`` are actions never taken.

    With ``P`` the probability of a leaf, ``R`` its return and ``(n, a)`` the tokens on the way to it:
    ``J = sum P R`` and ``dJ/dlogits[n, a] = C[n, a] - pi(a | n) sum_b C[n, b]`` with ``C[n, a] = sum_{leaves via n, a}
    P R``.

    logits: [nodes, vocabulary].
    """

    tree: Tree
    logits: Float[Tensor, "nodes vocabulary"]

    @classmethod
    def greedy(cls, tree: Tree, logits: Float[Tensor, "nodes vocabulary"]) -> Exact:
        """The policy that takes the likeliest token, the first one on a tie."""
        best = torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).bool()
        return cls(tree, torch.where(best, 0.0, -torch.inf))

    # ---- probabilities ---------------------------------------------------------------------------------------------

    @cached_property
    def logp(self) -> Float64[Tensor, "nodes vocabulary"]:
        """``log pi(a | n)``."""
        return torch.log_softmax(self.logits.double(), -1)

    @cached_property
    def leaf_probability(self) -> Float64[Tensor, " leaves"]:
        """Probability of every complete trajectory; they add up to 1."""
        return self.tree.chance * self.tree.leaves.trajectory_of_token.sum(self.tree.chosen(self.logp)).exp()

    @cached_property
    def node_probability(self) -> Float64[Tensor, " nodes"]:
        """Probability that an episode comes by a node."""
        return added(self.tree.node, self._of_token(self.leaf_probability), self.tree.nodes)

    @cached_property
    def start_probability(self) -> Float64[Tensor, " starts"]:
        """Probability of every start."""
        return self.tree.leaves.group_of_trajectory.sum(self.leaf_probability)

    # ---- expectations ----------------------------------------------------------------------------------------------

    def expected(self, values: Shaped[Tensor, " leaves"]) -> float:
        """Expectation of a figure of whole trajectories."""
        return float((self.leaf_probability * values).sum())

    @cached_property
    def expected_return(self) -> float:
        """``J``."""
        return self.expected(self.tree.leaves.returns)

    @cached_property
    def return_std(self) -> float:
        """Standard deviation of the return over episodes."""
        return math.sqrt(self.expected((self._returns - self.expected_return).square()))

    @property
    def success(self) -> float:
        """Probability of success."""
        assert self.tree.leaves.success is not None
        return self.expected(self.tree.leaves.success)

    @property
    def length(self) -> float:
        """Expected tokens of an episode."""
        return self.expected(self.tree.leaves.trajectory_of_token.size())

    @property
    def turns(self) -> float:
        """Expected turns of an episode."""
        return self.expected(self.tree.leaves.trajectory_of_turn.size())

    @cached_property
    def node_entropy(self) -> Float64[Tensor, " nodes"]:
        """Entropy of every node's distribution, in nats."""
        return _entr(self.logp.exp()).sum(-1)

    @property
    def entropy(self) -> float:
        """Mean entropy of the tokens of an episode: each node counts as often as it is met."""
        return float((self.node_probability @ self.node_entropy) / self.node_probability.sum())

    @cached_property
    def value(self) -> Float64[Tensor, " nodes"]:
        """``V(n)``: expected reward still to come at a node; 0 where the policy never is."""
        still_to_come = _reward_to_go(self.tree) * self._of_token(self.leaf_probability)
        total = added(self.tree.node, still_to_come, self.tree.nodes)
        return torch.where(self.node_probability > 0, total / self.node_probability, 0.0)

    @cached_property
    def action_value(self) -> Float64[Tensor, "nodes vocabulary"]:
        """``Q(n, a)``: expected reward still to come after a token; 0 where the policy never is."""
        probability = self._of_token(self.leaf_probability)
        reached = self.tree.total(probability)
        return torch.where(reached > 0, self.tree.total(_reward_to_go(self.tree) * probability) / reached, 0.0)

    @cached_property
    def median(self) -> Float64[Tensor, " nodes"]:
        """Least ``Q(n, a)`` that at least half of the policy's choices in ``n`` do not exceed."""
        values, order = self.action_value.sort(-1)
        below = self.logp.exp().gather(-1, order).cumsum(-1)
        return values.gather(-1, (below < 0.5 - 1e-12).sum(-1, keepdim=True)).squeeze(-1)

    # ---- the gradient ----------------------------------------------------------------------------------------------

    @cached_property
    def gradient(self) -> Float64[Tensor, "nodes vocabulary"]:
        """``dJ / dlogits``."""
        return self.through_softmax(self.tree.total(self._of_token(self.leaf_probability * self._returns)))

    def through_softmax(
        self, by_logp: Float64[Tensor, "... nodes vocabulary"]
    ) -> Float64[Tensor, "... nodes vocabulary"]:
        """Derivatives by ``log pi`` as derivatives by the logits: ``C - pi sum_b C``."""
        return by_logp - self.logp.exp() * by_logp.sum(-1, keepdim=True)

    @property
    def entropy_slope(self) -> Float64[Tensor, "nodes vocabulary"]:
        """Derivative of every node's entropy by its logits: ``-pi (log pi + H)``."""
        probability = self.logp.exp()
        return _entr(probability) - probability * self.node_entropy.unsqueeze(-1)

    def reinforce_noise(self, group_size: int) -> float:
        """``tr Cov`` of REINFORCE's update from one group, with the expected return as its baseline.

        The update is the mean over ``group_size`` trajectories from one start of ``(R - J) sum_t grad log pi``.
        """
        probability = self.logp.exp()
        score = 1 - 2 * self.tree.chosen(probability) + probability.square().sum(-1)[self.tree.node]
        length = self.tree.leaves.trajectory_of_token.sum(score)
        single = self.expected((self._returns - self.expected_return).square() * length)
        start_of_node = torch.zeros(self.tree.nodes, dtype=torch.int64)
        start_of_node[self.tree.node] = self.tree.leaves.group_of_token.labels
        # The starts share no node, so the gradient's rows of one start are p_s times its own gradient.
        own = added(start_of_node, self.gradient.square().sum(-1), self.tree.starts) / self.start_probability
        between = float(own.sum())
        return single / group_size + (1 - 1 / group_size) * between - float(self.gradient.square().sum())

    # ---- helpers ---------------------------------------------------------------------------------------------------

    @property
    def _returns(self) -> Float64[Tensor, " leaves"]:
        return self.tree.leaves.returns.double()

    def _of_token(self, values: Float64[Tensor, " leaves"]) -> Float64[Tensor, " tokens"]:
        return self.tree.leaves.to_tokens(trajectory=values)


def optimal_values(
    tree: Tree, returns: Float[Tensor, "leaves ..."] | None = None, temperature: float = 0.0
) -> Float64[Tensor, "nodes vocabulary ..."]:
    """``Q*(n, a)``: expected reward still to come after a token when all that follow are the best ones.

    returns: other returns of the leaves, one or several at once; values then are of whole episodes, what was earned on
    the way to a node included.
    temperature: ``alpha``; above 0, the values of a player who is also paid ``alpha`` per nat of entropy at every node,
    ``V(n) = alpha log sum_a exp(Q(n, a) / alpha)``.
    """
    x, depth = tree.leaves, tree.leaves.trajectory_of_token.position()
    # Of the leaves via a node and token, those beyond each answer of the game weigh as much as that answer is likely,
    # whatever the policy; so any one with full support serves.
    weight = x.to_tokens(trajectory=Exact(tree, torch.zeros(tree.nodes, tree.game.vocabulary)).leaf_probability)
    share = (weight / tree.chosen(tree.total(weight))).unsqueeze(1)
    last = x.trajectory_of_token.is_last()
    earned = _earned(tree, returns)
    best = torch.zeros(tree.nodes, earned.shape[1], dtype=torch.float64)
    values = torch.zeros(tree.nodes * tree.game.vocabulary, earned.shape[1], dtype=torch.float64)
    places = tree.node * tree.game.vocabulary + tree.action
    following = tree.node.roll(-1)
    for level in range(int(depth.max()), -1, -1):
        here = torch.nonzero(depth == level).squeeze(1)
        still = earned[here] + torch.where(last[here].unsqueeze(1), 0.0, best[following[here]])
        values.index_add_(0, places[here], share[here] * still)
        nodes = tree.node[here].unique()
        best[nodes] = soft_maximum(values.view(tree.nodes, -1, earned.shape[1])[nodes].transpose(1, 2), temperature)
    columns = () if returns is None else returns.shape[1:]
    return values.view(tree.nodes, tree.game.vocabulary, *columns)


def _earned(tree: Tree, returns: Tensor | None) -> Float64[Tensor, "tokens columns"]:
    """Rewards of the leaves' tokens: the game's own, or these returns on the last ones."""
    if returns is None:
        return tree.leaves.token_rewards().double().unsqueeze(1)
    by_leaf = returns.double().reshape(len(returns), -1)
    earned = torch.zeros(tree.leaves.tokens, by_leaf.shape[1], dtype=torch.float64)
    earned[tree.leaves.trajectory_of_token.last()] = by_leaf
    return earned


@cache
def demonstrator(tree: Tree) -> Exact:
    """Who takes the best tokens, any of them alike, but for the share ``DEMONSTRATOR_ERROR``."""
    values = optimal_values(tree)
    best = (values >= values.amax(-1, keepdim=True) - 1e-9).double()
    share = (1 - DEMONSTRATOR_ERROR) * best / best.sum(-1, keepdim=True)
    return Exact(tree, (share + DEMONSTRATOR_ERROR / values.shape[-1]).log())


def led_policy(policy: Exact, choices: Sequence[int]) -> Exact:
    """The policy, after the first ``choices`` tokens of every start were the best ones, the first of equals.

    choices: one number for each start.
    """
    tree = policy.tree
    depth = torch.zeros(tree.nodes, dtype=torch.int64)
    depth[tree.node] = tree.leaves.trajectory_of_token.position()
    limit = torch.zeros_like(depth)
    limit[tree.node] = torch.tensor(list(choices))[tree.leaves.group_of_token.labels]
    return Exact(tree, torch.where((depth < limit).unsqueeze(1), _best(tree).logits, policy.logits.double()))


@cache
def _best(tree: Tree) -> Exact:
    return Exact.greedy(tree, optimal_values(tree))


def random_policy_values(tree: Tree) -> Float64[Tensor, "nodes vocabulary"]:
    """``Q^u(n, a)``: expected reward still to come after a token when all that follow are drawn uniformly.

    In a deterministic tree whose only reward is 0 or one positive number at the end, the greedy policy on these values
    is optimal, and ``softmax(Q^u / rho)`` is near it for a small ``rho`` (arXiv 2509.24981, theorems 1 and 2).

    Raises :class:`InputError` for a game where that does not hold: one with chance, or with other rewards.
    """
    leaves = tree.leaves
    alike = tree.chance == leaves.group_of_trajectory.spread(leaves.group_of_trajectory.max(tree.chance))
    rewards = leaves.turn_rewards()
    early = rewards[~leaves.trajectory_of_turn.is_last()]
    paid = leaves.returns[leaves.returns != 0].unique()
    why = None if bool(alike.all()) else "has chance"
    if bool((early != 0).any()) or bool((paid < 0).any()) or len(paid) > 1:
        why = "pays more than 0 or one reward at the end"
    if why is not None:
        raise InputError(f"game {tree.game.name}: {why}; values of the random policy need not show the best action")
    return Exact(tree, torch.zeros(tree.nodes, tree.game.vocabulary)).action_value


def _entr(probability: Tensor) -> Tensor:
    """``-p log p``, 0 at 0."""
    result: Tensor = torch.special.entr(probability)
    return result


def _reward_to_go(tree: Tree) -> Float64[Tensor, " tokens"]:
    """Reward from each token of the leaves to the end."""
    x = tree.leaves
    return x.trajectory_of_token.discounted_scan(x.token_rewards().double(), 1.0)
