"""Feasible actions of coupled arms: what a mixed-integer program sees, and the same by counting."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
from jaxtyping import Bool, Float64
from numpy.typing import ArrayLike

from stratagem.errors import InputError

Actions = Bool[np.ndarray, "actions entries"]

MOST_COUNTED = 16
"""Entries of the longest action whose feasible ones are counted."""


@dataclass(frozen=True, eq=False)
class Constraints:
    """``lower <= rows @ (action, helpers) <= upper``, helpers being further variables in [0, ``largest``].

    An action of zeros and ones is feasible when there are helpers for it.  whole: which helpers are integers.
    """

    rows: Float64[np.ndarray, "rows variables"]
    lower: Float64[np.ndarray, " rows"]
    upper: Float64[np.ndarray, " rows"]
    largest: Float64[np.ndarray, " helpers"]
    whole: Bool[np.ndarray, " helpers"]

    @property
    def helpers(self) -> int:
        """How many further variables there are."""
        return len(self.largest)


class Feasible(ABC):
    """A set of actions, vectors of ``entries`` zeros and ones, said in two ways that tests hold to be one."""

    entries: int

    @abstractmethod
    def constraints(self) -> Constraints:
        """For a mixed-integer program."""

    @abstractmethod
    def contains(self, actions: Actions) -> Bool[np.ndarray, " actions"]:
        """Which actions are feasible, without a program."""

    def extendable(self, actions: Actions) -> Bool[np.ndarray, " actions"]:
        """Which are feasible or become so with further ones. Here: the feasible, of which a part is feasible, too."""
        return self.contains(actions)

    @cached_property
    def every(self) -> Actions:
        """All feasible actions, by counting.

        Raises :class:`InputError` where actions are longer than ``MOST_COUNTED``, and where none is feasible.
        """
        if self.entries > MOST_COUNTED:
            raise InputError(
                f"actions of {self.entries} entries: more than {MOST_COUNTED} are not counted; use a program"
            )
        everything = np.array(list(product((False, True), repeat=self.entries)))
        found = self.contains(everything)
        if not found.any():
            raise infeasible(self)
        return np.asarray(everything[found])

    def draw(self, generator: np.random.Generator, count: int = 1) -> Actions:
        """Random feasible actions: entries join in a random order while they can. Not uniform over actions.

        Raises :class:`InputError` where that leads to none.
        """
        actions = np.zeros((count, self.entries), dtype=bool)
        order = generator.permuted(np.tile(np.arange(self.entries), (count, 1)), axis=1)
        rows = np.arange(count)
        for entries in order.T:
            actions[rows, entries] = True
            actions[rows, entries] = of_each(self.extendable, actions)
        if not of_each(self.contains, actions).all():
            raise infeasible(self)
        return actions


def of_each(ask: Callable[[Actions], Bool[np.ndarray, " actions"]], actions: Actions) -> Bool[np.ndarray, " actions"]:
    """Ask once for actions that occur several times."""
    if not len(actions):
        return np.empty(0, dtype=bool)
    different, places = np.unique(actions, axis=0, return_inverse=True)
    return np.asarray(ask(different)[places.reshape(-1)])


def infeasible(actions: Feasible) -> InputError:
    """Said where a set is empty."""
    return InputError(f"{type(actions).__name__}: no action fulfils the constraints; at least one must")


class LinearConstraints(Feasible):
    """``lower <= rows @ action <= upper``. Bounds may be infinite.

    Raises :class:`InputError` for rows and bounds that do not fit or are nan.
    """

    def __init__(self, rows: ArrayLike, lower: ArrayLike, upper: ArrayLike) -> None:
        self.rows = np.asarray(rows, dtype=np.float64)
        if self.rows.ndim != 2 or not self.rows.shape[1]:
            raise InputError("rows: must be a table with one column for each entry of an action")
        self.lower, self.upper = (np.asarray(bound, dtype=np.float64) for bound in (lower, upper))
        if self.lower.shape != (len(self.rows),) or self.upper.shape != self.lower.shape:
            raise InputError(f"lower and upper: must have one number for each of the {len(self.rows)} rows")
        if not np.isfinite(self.rows).all() or np.isnan(self.lower).any() or np.isnan(self.upper).any():
            raise InputError("rows must be finite, and no bound may be nan")
        self.entries = self.rows.shape[1]

    def constraints(self) -> Constraints:
        """As they are."""
        return Constraints(self.rows, self.lower, self.upper, np.empty(0), np.empty(0, dtype=bool))

    def contains(self, actions: Actions) -> Bool[np.ndarray, " actions"]:
        """By the rows, up to 1e-9."""
        values = actions @ self.rows.T
        return np.asarray(((values >= self.lower - 1e-9) & (values <= self.upper + 1e-9)).all(-1))

    def extendable(self, actions: Actions) -> Bool[np.ndarray, " actions"]:
        """Whether a feasible action has all of these ones, by counting."""
        return np.array([bool((self.every >= action).all(-1).any()) for action in actions], dtype=bool)


class Interventions(LinearConstraints):
    """Exactly ``budget`` of the entries are one; all of them where the budget is larger."""

    def __init__(self, entries: int, budget: int) -> None:
        _counts(entries=entries, budget=budget + 1)
        self.budget = min(budget, entries)
        super().__init__(np.ones((1, entries)), [self.budget], [self.budget])

    def extendable(self, actions: Actions) -> Bool[np.ndarray, " actions"]:
        """Up to the budget."""
        return np.asarray(actions.sum(-1) <= self.budget)


class Walk(Feasible):
    """Arms are the nodes of a graph; at most ``budget`` may be pulled of those that a closed walk visits.

    The walk begins and ends at ``source`` and makes ``2 budget`` steps, each along an edge or none.
    As a program: one node at a time, the next one beside it. Raises :class:`InputError` for nodes there are not.
    """

    def __init__(self, nodes: int, edges: Iterable[tuple[int, int]], source: int, budget: int) -> None:
        _counts(nodes=nodes, budget=budget + 1)
        self.entries, self.budget, self.source = nodes, budget, source
        self.beside = np.eye(nodes, dtype=bool)
        for edge in edges:
            if not all(0 <= node < nodes for node in edge):
                raise InputError(f"edge {edge}: nodes must be from 0 to {nodes - 1}")
            self.beside[edge] = self.beside[edge[::-1]] = True
        if not 0 <= source < nodes:
            raise InputError(f"source = {source}: must be from 0 to {nodes - 1}")

    def constraints(self) -> Constraints:
        """Helpers: whether the walk is at a node, after each number of steps."""
        nodes, moments = self.entries, 2 * self.budget + 1
        rows: list[np.ndarray] = []
        lower: list[float] = []
        upper: list[float] = []

        def place(moment: int) -> slice:
            return slice(nodes * (1 + moment), nodes * (2 + moment))

        for moment in range(moments):
            row = np.zeros(nodes * (1 + moments))
            row[place(moment)] = 1
            rows, lower, upper = [*rows, row], [*lower, 1.0], [*upper, 1.0]
            for node in range(nodes if moment else 0):
                row = np.zeros(nodes * (1 + moments))
                row[place(moment - 1)] = self.beside[node]
                row[place(moment)][node] = -1
                rows, lower, upper = [*rows, row], [*lower, 0.0], [*upper, np.inf]
        for node in range(nodes):
            row = np.zeros(nodes * (1 + moments))
            row[node], row[node + nodes :: nodes] = -1, 1
            rows, lower, upper = [*rows, row], [*lower, 0.0], [*upper, np.inf]
        total = np.zeros(nodes * (1 + moments))
        total[:nodes] = 1
        largest = np.ones((moments, nodes))
        largest[[0, -1]] = np.arange(nodes) == self.source
        return Constraints(
            np.array([*rows, total]),
            np.array([*lower, 0.0]),
            np.array([*upper, self.budget]),
            largest.ravel(),
            np.ones(largest.size, dtype=bool),
        )

    def contains(self, actions: Actions) -> Bool[np.ndarray, " actions"]:
        """Whether some closed walk visits them all."""
        enough = (actions[:, None] <= self._tours).all(-1).any(-1)
        return np.asarray(enough & (actions.sum(-1) <= self.budget))

    @cached_property
    def _tours(self) -> Bool[np.ndarray, "tours nodes"]:
        """What closed walks visit."""
        reached = {(self.source, 1 << self.source)}
        for _ in range(2 * self.budget):
            reached = {
                (int(then), seen | 1 << int(then))
                for node, seen in reached
                for then in np.flatnonzero(self.beside[node])
            }
        home = sorted({seen for node, seen in reached if node == self.source})
        return np.array([[bool(seen >> node & 1) for node in range(self.entries)] for seen in home])


class Slots(Feasible):
    """An arm is pulled by two assignments of a worker, each in a time slot in which both are there.

    At most ``budget`` arms are pulled; a worker does one thing in a slot, and two workers may share an arm and a slot.
    available: of arms, by slot.  working: of workers, by slot.
    Raises :class:`InputError` for tables that do not fit.
    """

    def __init__(
        self, available: Bool[np.ndarray, "arms slots"], working: Bool[np.ndarray, "workers slots"], budget: int
    ) -> None:
        self.available, self.working = np.asarray(available, dtype=bool), np.asarray(working, dtype=bool)
        if self.available.ndim != 2 or self.working.ndim != 2 or self.available.shape[1] != self.working.shape[1]:
            raise InputError("available and working: must be tables with the same slots")
        _counts(arms=len(self.available), slots=self.available.shape[1], budget=budget + 1)
        self.entries, self.budget = len(self.available), budget
        self.workers = self.working.sum(0)

    def constraints(self) -> Constraints:
        """Helpers: how many workers an arm has in a slot. They need not be integers: the program finds whole ones."""
        arms, slots = self.available.shape
        rows = np.zeros((arms + slots + 1, arms + arms * slots))
        for arm in range(arms):
            rows[arm, arm] = -2
            rows[arm, arms + arm * slots : arms + (arm + 1) * slots] = 1
        for slot in range(slots):
            rows[arms + slot, arms + slot :: slots] = 1
        rows[-1, :arms] = 1
        return Constraints(
            rows,
            np.zeros(len(rows)),
            np.concatenate([np.zeros(arms), self.workers, [self.budget]]),
            2.0 * self.available.ravel(),
            np.zeros(arms * slots, dtype=bool),
        )

    def contains(self, actions: Actions) -> Bool[np.ndarray, " actions"]:
        """Hall's condition: no set of slots is needed more than it has workers."""
        sets = np.array(list(product((False, True), repeat=len(self.workers))))
        inside = (self.available[:, None] <= sets).all(-1)
        return np.asarray(((2.0 * actions) @ inside <= sets @ self.workers).all(-1) & (actions.sum(-1) <= self.budget))


class Capacities(Feasible):
    """An arm is pulled by a worker, whose arms may not cost more than they can bear in sum.

    Raises :class:`InputError` for costs or capacities that are negative.
    """

    def __init__(self, costs: Sequence[float], capacities: Sequence[float]) -> None:
        self.costs, self.capacities = np.asarray(costs, dtype=np.float64), np.asarray(capacities, dtype=np.float64)
        _counts(arms=self.costs.size)
        if not (np.all(self.costs >= 0) and np.all(self.capacities >= 0)):
            raise InputError("costs and capacities: must be at least 0")
        self.entries = len(self.costs)

    def constraints(self) -> Constraints:
        """Helpers: whether a worker pulls an arm."""
        arms, workers = self.entries, len(self.capacities)
        rows = np.zeros((arms + workers, arms * (1 + workers)))
        for arm in range(arms):
            rows[arm, arm], rows[arm, arms + arm :: arms] = -1, 1
        for worker in range(workers):
            rows[arms + worker, arms * (1 + worker) : arms * (2 + worker)] = self.costs
        return Constraints(
            rows,
            np.concatenate([np.zeros(arms), np.full(workers, -np.inf)]),
            np.concatenate([np.zeros(arms), self.capacities]),
            np.ones(arms * workers),
            np.ones(arms * workers, dtype=bool),
        )

    def contains(self, actions: Actions) -> Bool[np.ndarray, " actions"]:
        """Whether the arms fit, by trying, the most costly first."""
        order = np.argsort(-self.costs, kind="stable")
        return np.array(
            [self._fit(self.costs[order][action[order]].tolist(), self.capacities.tolist()) for action in actions],
            dtype=bool,
        )

    def _fit(self, costs: list[float], left: list[float]) -> bool:
        if not costs:
            return True
        return any(
            costs[0] <= room and self._fit(costs[1:], [*left[:worker], room - costs[0], *left[worker + 1 :]])
            for worker, room in enumerate(left)
        )


def _counts(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            least, value = (0, count - 1) if name == "budget" else (1, count)
            raise InputError(f"{name} = {value}: must be at least {least}")
