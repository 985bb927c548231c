"""Monte-Carlo tree search over steps, many questions side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from stratagem.errors import InputError
from stratagem.planning.steps import Found, Reward, Search, StepJudge, StepPolicy
from stratagem.planning.tree import LEAST, PUCT, Backup, ChildRule, Expansion, Fixed, Limits, MeanBackup, Node, Tree
from stratagem.seeding import derive

S = TypeVar("S")


@dataclass(frozen=True)
class TreeSearch(Search):
    """Simulation after simulation: go down by ``rule``, expand a leaf, value it, and back its value up.

    A leaf is valued by the judge; one with an answer by the reward, where the truth is known; a lost one is worth
    ``lost``, and so is one for which the policy has no steps. In the end the path of the best children is followed from
    the root to an answer; where the tree ends before that, the policy is asked for further steps, and the one with the
    highest prior is taken. So without simulations the solution is the greedy one.

    rule: which child to go on with.  backup: what a value does to the nodes above.  expansion: what is asked for at a
    leaf.  limits: when it is enough.
    expand: ``at_once``: a leaf is valued and expanded in the same simulation, and answers among its children are
    valued and backed up at once, each as a visit of its own. ``when_visited``: a leaf is valued first, and expanded
    when it is come to again; one of its children is then valued.
    ends: a path with an answer (or a lost one) is looked into ``once``, or ``again`` as often as the rule chooses it;
    its value then counts again.
    follow: the best child has the highest ``value``, the most ``visits``, or the highest ``prior``; ties by the other
    figures, and then the first. Only children that were visited are compared, unless none was.

    Raises :class:`InputError` for ends that are looked into again without a limit on simulations.

    Statistics: ``simulations``, ``nodes``, ``answers``, ``right``, ``depth`` (of the deepest), ``exhausted`` (1: there
    was nothing more to find), ``policy_tokens``, ``judge_tokens``.
    """

    rule: ChildRule = PUCT()
    backup: Backup = MeanBackup()
    expansion: Expansion = Fixed()
    limits: Limits = Limits()
    expand: Literal["at_once", "when_visited"] = "at_once"
    ends: Literal["once", "again"] = "once"
    lost: float = -1.0
    follow: Literal["value", "visits", "prior"] = "value"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ends == "again" and self.limits.simulations is None:
            raise InputError("tree_search.ends = 'again': needs limits.simulations, or it may never stop")

    def __call__(
        self,
        roots: Sequence[S],
        policy: StepPolicy[S],
        judge: StepJudge[S] | None = None,
        reward: Reward[S] | None = None,
        seed: int = 0,
        tokens: int | None = None,
    ) -> list[Found[S]]:
        trees = self.grow(roots, policy, judge, reward, seed, tokens)
        exhausted = [tree.root.closed for tree in trees]
        chosen = self._followed(trees, policy)
        return [_found(tree, node, done, reward) for tree, node, done in zip(trees, chosen, exhausted, strict=True)]

    def grow(
        self,
        roots: Sequence[S],
        policy: StepPolicy[S],
        judge: StepJudge[S] | None = None,
        reward: Reward[S] | None = None,
        seed: int = 0,
        tokens: int | None = None,
    ) -> list[Tree[S]]:
        """The trees alone; arguments and errors as of a call."""
        self._check(judge, self.limits.simulations != 0, tokens)
        trees = [Tree.of(root, derive(seed, "question", number)) for number, root in enumerate(roots)]
        while growing := [
            tree
            for tree in trees
            if not tree.root.closed and not self.limits.reached(tree) and (tokens is None or tree.tokens < tokens)
        ]:
            self._simulate(growing, policy, judge, reward)
        return trees

    # ---- one simulation of every tree ------------------------------------------------------------------------------

    def _simulate(
        self, trees: Sequence[Tree[S]], policy: StepPolicy[S], judge: StepJudge[S] | None, reward: Reward[S] | None
    ) -> None:
        leaves = [self._descended(tree) for tree in trees]
        due = [(tree, leaf) for tree, leaf in zip(trees, leaves, strict=True) if self._to_expand(leaf)]
        self._expanded(due, policy)
        found = [(tree, node) for tree, leaf in zip(trees, leaves, strict=True) for node in self._to_value(tree, leaf)]
        self._value(found, judge, reward)
        for tree, node in found:
            self.backup(node.path(), node.judged[-1])
            self._settle(tree, node)
        for tree in trees:
            tree.simulations += 1

    def _descended(self, tree: Tree[S]) -> Node[S]:
        node = tree.root
        while node.children:
            node = self._best(tree, node)
        return node

    def _best(self, tree: Tree[S], node: Node[S]) -> Node[S]:
        """The child the rule goes on with."""
        open_ones = [child for child in node.children if not child.closed]
        scores = [self.rule.score(child, node) for child in open_ones]
        highest = max(scores)
        tied = [child for child, score in zip(open_ones, scores, strict=True) if score == highest]
        return tied[0] if len(tied) == 1 else tree.chance.choice(tied)

    def _to_expand(self, leaf: Node[Any]) -> bool:
        return not leaf.ended and (self.expand == "at_once" or leaf.visits > 0)

    def _expanded(self, due: Sequence[tuple[Tree[S], Node[S]]], policy: StepPolicy[S]) -> None:
        """Give these leaves children. One without any is lost."""
        if not due:
            return
        plans = [self.expansion.plan(node) for _, node in due]
        said = policy.propose([node.ask(*plan) for (_, node), plan in zip(due, plans, strict=True)])
        for (tree, node), (_, kind), steps in zip(due, plans, said, strict=True):
            tree.proposed_tokens += sum(step.tokens for step in steps)
            tree.nodes += len(node.add(steps, kind, self.depth, self.distinct))
            node.lost = not node.children

    def _to_value(self, tree: Tree[S], leaf: Node[S]) -> list[Node[S]]:
        """What of a leaf and its fresh children is valued now."""
        if self.expand == "at_once":
            return [leaf, *(child for child in leaf.children if child.ended)]
        return [self._best(tree, leaf)] if leaf.children else [leaf]

    def _value(
        self, found: Sequence[tuple[Tree[S], Node[S]]], judge: StepJudge[S] | None, reward: Reward[S] | None
    ) -> None:
        """Enter a value in every one of these nodes; an end that was valued before keeps its value."""
        asked = []
        for tree, node in found:
            if node.lost:
                node.judged.append(self.lost)
            elif node.ended and node.judged:
                node.judged.append(node.judged[-1])
            elif node.ended and reward is not None:
                node.judged.append(reward(node.state))
                tree.right += node.judged[0] >= LEAST
            else:
                asked.append((tree, node))
        if asked:
            assert judge is not None
            said = judge.judge([node.place for _, node in asked])
            for (tree, node), judged in zip(asked, said, strict=True):
                node.judged.append(float(judged.value))
                tree.judged_tokens += judged.tokens

    def _settle(self, tree: Tree[S], node: Node[S]) -> None:
        """Take back an answer that is refused, and close a path that has ended."""
        if not node.ended:
            if node.children and all(child.closed for child in node.children):
                node.close()
        elif node.depth < self.depth and self.expansion.reopens(node):
            node.reopened = True
        elif self.ends == "once":
            node.close()

    # ---- the solution ------------------------------------------------------------------------------------------------

    def _followed(self, trees: Sequence[Tree[S]], policy: StepPolicy[S]) -> list[Node[S]]:
        """The end of the path of best children in every tree, gone on with where the tree ends before."""
        ends = [self._preferred(tree.root) for tree in trees]
        while due := [number for number, node in enumerate(ends) if not node.ended]:
            self._expanded([(trees[number], ends[number]) for number in due], policy)
            for number in due:
                ends[number] = self._preferred(ends[number])
        return ends

    def _preferred(self, node: Node[S]) -> Node[S]:
        """The end of the path of best children."""
        while node.children:
            visited = [child for child in node.children if child.visits]
            alive = [child for child in visited or node.children if not child.lost]
            node = max(alive or visited or node.children, key=self._figures)
        return node

    def _figures(self, node: Node[Any]) -> tuple[float, ...]:
        value, visits, prior = node.value, float(node.visits), node.step.prior
        orders = {"value": (value, visits, prior), "visits": (visits, value, prior), "prior": (prior, value, visits)}
        return orders[self.follow]


def _found(tree: Tree[S], chosen: Node[S], exhausted: bool, reward: Reward[S] | None) -> Found[S]:
    nodes = list(tree.root.walk())
    answers = [node for node in nodes if node.step.ended and node.step.state is not None]
    solutions = {id(node): node.solution(reward) for node in answers}
    statistics = {
        "simulations": float(tree.simulations),
        "nodes": float(tree.nodes),
        "answers": float(len(answers)),
        "right": float(tree.right),
        "depth": float(max(node.depth for node in nodes)),
        "exhausted": float(exhausted),
        "policy_tokens": float(tree.proposed_tokens),
        "judge_tokens": float(tree.judged_tokens),
    }
    return Found(tuple(solutions.values()), solutions.get(id(chosen)), tree.tokens, statistics)
