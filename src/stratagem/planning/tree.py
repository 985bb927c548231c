"""Search trees over steps: their nodes, and the rules by which they are grown."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Annotated, Any, ClassVar, Generic, TypeVar

from annotated_types import Ge, Le

from stratagem.errors import InputError
from stratagem.part import Part
from stratagem.planning.steps import Ask, Kind, Place, Reward, Solution, Step
from stratagem.seeding import derive

S = TypeVar("S")


@dataclass(eq=False, slots=True)
class Node(Generic[S]):
    """A step in a tree, and what is known of it.

    depth: steps up to it, 0 for the root.  seed: of all that is random here.  kind: what the step was to do.
    visits: values that were backed up through it.  total: their sum, where the rule keeps one.  value: what they make
    of it, 0 before the first.  judged: values that were found here itself.
    lost: nothing can follow, and there is no answer.  closed: there is nothing more to find below it.
    reopened: its answer was refused, and it goes on.
    """

    step: Step[S]
    parent: Node[S] | None
    depth: int
    seed: int
    kind: Kind = "reason"
    children: list[Node[S]] = field(default_factory=list)
    visits: int = 0
    total: float = 0.0
    value: float = 0.0
    judged: list[float] = field(default_factory=list)
    lost: bool = False
    closed: bool = False
    reopened: bool = False

    @classmethod
    def root(cls, state: S, seed: int) -> Node[S]:
        """A question, before the first step."""
        return cls(Step(None, state), None, 0, seed)

    @property
    def state(self) -> S:
        """The one it leads to."""
        assert self.step.state is not None, "a lost step has no state"
        return self.step.state

    @property
    def ended(self) -> bool:
        """Whether the path ends here, with an answer or lost."""
        return self.lost or (self.step.ended and not self.reopened)

    @property
    def place(self) -> Place[S]:
        """What a judge is given."""
        return Place(self.state, self.depth, derive(self.seed, "judge"))

    def ask(self, number: int, kind: Kind = "reason") -> Ask[S]:
        """What a policy is given."""
        return Ask(self.state, self.depth, derive(self.seed, "steps"), number, kind)

    def add(self, steps: Sequence[Step[S]], kind: Kind, depth: int, distinct: bool) -> list[Node[S]]:
        """Children for these steps; one that goes on after ``depth`` steps, or cannot be read, is lost."""
        seen = {child.step.said for child in self.children} if distinct else set()
        added = []
        for step in steps:
            if step.said in seen:
                continue
            if distinct:
                seen.add(step.said)
            number = len(self.children)
            child = Node(step, self, self.depth + 1, derive(self.seed, number), kind)
            child.lost = step.state is None or (not step.ended and child.depth >= depth)
            self.children.append(child)
            added.append(child)
        return added

    def path(self) -> list[Node[S]]:
        """From the root to this node, both included."""
        nodes: list[Node[S]] = []
        node: Node[S] | None = self
        while node is not None:
            nodes.append(node)
            node = node.parent
        return nodes[::-1]

    def walk(self) -> Iterator[Node[S]]:
        """This node and all below it, parents first."""
        waiting = [self]
        while waiting:
            node = waiting.pop()
            yield node
            waiting.extend(reversed(node.children))

    def close(self) -> None:
        """There is nothing more to find here; nor above, where all children say so."""
        node: Node[S] | None = self
        while node is not None:
            node.closed = True
            node = node.parent
            if node is not None and not all(child.closed for child in node.children):
                return

    def solution(self, reward: Reward[S] | None) -> Solution[S]:
        """The path to this node, where an answer was given."""
        nodes = self.path()[1:]
        earned = None if reward is None else reward(self.state)
        return Solution(tuple(node.step for node in nodes), tuple(node.value for node in nodes), self.value, earned)


@dataclass(eq=False)
class Tree(Generic[S]):
    """A tree that grows. nodes: besides the root.  right: answers found that are worth at least ``LEAST``."""

    root: Node[S]
    chance: Random
    simulations: int = 0
    nodes: int = 0
    right: int = 0
    proposed_tokens: int = 0
    judged_tokens: int = 0

    @classmethod
    def of(cls, state: S, seed: int) -> Tree[S]:
        """A tree with a root alone."""
        return cls(Node.root(state, seed), Random(seed))

    @property
    def tokens(self) -> int:
        """Sampled for it."""
        return self.proposed_tokens + self.judged_tokens


LEAST = 1.0
"""A reward of this much is that of a right answer."""


# ---- which child to look into ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ChildRule(Part):
    """Which child a simulation goes on with: the one with the highest score, ties at random."""

    kind: ClassVar[str] = "child_rule"

    def score(self, child: Node[Any], parent: Node[Any]) -> float:
        """Of a child."""
        raise NotImplementedError


@dataclass(frozen=True)
class PUCT(ChildRule):
    """``Q + exploration * prior * sqrt(N_parent) / (1 + N)``; ``Q`` of an unvisited child is 0.

    exploration: at least 0.
    """

    exploration: Annotated[float, Ge(0)] = 1.5

    def score(self, child: Node[Any], parent: Node[Any]) -> float:
        return child.value + self.exploration * child.step.prior * math.sqrt(parent.visits) / (1 + child.visits)


@dataclass(frozen=True)
class UCB(ChildRule):
    """``Q + exploration * sqrt(ln N_parent / N)``, and ``unvisited`` for a child without visits.

    A finite ``unvisited`` lets a good child be looked into once more before all its siblings were seen.
    """

    exploration: Annotated[float, Ge(0)] = 2.0
    unvisited: float = 5.0

    def score(self, child: Node[Any], parent: Node[Any]) -> float:
        if child.visits == 0:
            return self.unvisited
        return child.value + self.exploration * math.sqrt(math.log(max(parent.visits, 1)) / child.visits)


# ---- what a value does to the nodes above it ------------------------------------------------------------------------


@dataclass(frozen=True)
class Backup(Part):
    """What a value found at the end of a path does to the nodes on it. No sign changes and nothing is discounted."""

    kind: ClassVar[str] = "backup"

    def __call__(self, path: Sequence[Node[Any]], value: float) -> None:
        """Enter a value that was found at the last node of a path from the root."""
        raise NotImplementedError


@dataclass(frozen=True)
class MeanBackup(Backup):
    """``N <- N + 1``, ``W <- W + value``, ``Q = W / N`` for every node of the path."""

    def __call__(self, path: Sequence[Node[Any]], value: float) -> None:
        for node in path:
            node.visits += 1
            node.total += value
            node.value = node.total / node.visits


@dataclass(frozen=True)
class ChildrenBackup(Backup):
    """``Q <- keep Q + (1 - keep) sum_c N_c Q_c / sum_c N_c`` from the last node's parent up, ``N <- N + 1``.

    The last node takes the value itself, or its mean with what it took before. So each visit moves a node's value
    towards that of its children, and recent ones count more than in a mean over all of them.

    keep: of the old value, in [0, 1]; 0: the mean of the children alone.
    """

    keep: Annotated[float, Ge(0), Le(1)] = 0.5

    def __call__(self, path: Sequence[Node[Any]], value: float) -> None:
        *above, last = path
        last.visits += 1
        last.value += (value - last.value) / last.visits
        for node in reversed(above):
            node.visits += 1
            visits = sum(child.visits for child in node.children)
            mean = sum(child.visits * child.value for child in node.children) / visits
            node.value = self.keep * node.value + (1 - self.keep) * mean


# ---- what is asked for at a leaf ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Expansion(Part):
    """How many steps a policy is asked for from a node, and what they are to do. width: how many, as a rule."""

    kind: ClassVar[str] = "expansion"

    width: Annotated[int, Ge(1)] = 5

    def plan(self, node: Node[Any]) -> tuple[int, Kind]:
        """Number and kind of the steps."""
        return self.width, "reason"

    def reopens(self, node: Node[Any]) -> bool:
        """Whether an answer is refused, so that the path goes on from it."""
        return False


@dataclass(frozen=True)
class Fixed(Expansion):
    """The same number from every node."""


@dataclass(frozen=True)
class Staged(Expansion):
    """Steps that go on; one that ends where the policy is sure to be right; one that looks again at a wrong answer.

    From a node that was judged at ``sure`` or more, a single ``finish`` step is asked for, except from the question.
    An answer valued below ``refused`` is taken as a step like others, from which a single ``reflect`` step goes on, at
    most ``refinements`` times on a path.

    Whose limit it is, a path's or a tree's, was not available; a path's is a reconstruction.
    """

    width: Annotated[int, Ge(1)] = 3
    sure: float = 0.9
    refused: float = 0.5
    refinements: Annotated[int, Ge(0)] = 1

    def plan(self, node: Node[Any]) -> tuple[int, Kind]:
        if node.reopened:
            return 1, "reflect"
        if node.depth > 0 and node.judged and node.judged[0] >= self.sure:
            return 1, "finish"
        return self.width, "reason"

    def reopens(self, node: Node[Any]) -> bool:
        if node.lost or node.reopened or not node.step.ended:
            return False
        return node.judged[0] < self.refused and sum(one.reopened for one in node.path()) < self.refinements


# ---- when it is enough ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Limits(Part):
    """When a tree has grown enough: at any of these numbers; and always once there is nothing more to find.

    simulations: rounds.  nodes: besides the root.  right: answers found that are right (a reward of at least 1).

    Raises :class:`InputError` when there is no limit at all.
    """

    kind: ClassVar[str] = "limits"

    simulations: Annotated[int, Ge(0)] | None = 40
    nodes: Annotated[int, Ge(1)] | None = None
    right: Annotated[int, Ge(1)] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.simulations is None and self.nodes is None:
            raise InputError("limits.simulations = None: must be a number, or limits.nodes must")

    def reached(self, tree: Tree[Any]) -> bool:
        """Whether it has."""
        pairs = (
            (tree.simulations, self.simulations),
            (tree.nodes, self.nodes),
            (tree.right, self.right),
        )
        return any(limit is not None and number >= limit for number, limit in pairs)
