"""The least output of a ReLU network over feasible actions: as a mixed-integer program, and by counting."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated, Any, Protocol

import numpy as np
from annotated_types import Gt
from jaxtyping import Float64

from stratagem.bandits.feasible import Actions, Feasible, infeasible
from stratagem.errors import BrokenRunError, InputError
from stratagem.seeding import numpy_generator
from stratagem.validation import validate_fields

States = Float64[np.ndarray, "batch features"]

OPTIONS = {
    "output_flag": False,
    "threads": 1,
    "mip_rel_gap": 0.0,
    "mip_abs_gap": 1e-7,
    "mip_feasibility_tolerance": 1e-8,
    "primal_feasibility_tolerance": 1e-8,
    # Programs of this size are solved within a few nodes: heuristics and symmetry cost more than they save.
    "mip_heuristic_effort": 0.0,
    "mip_heuristic_run_rens": False,
    "mip_heuristic_run_rins": False,
    "mip_detect_symmetry": False,
    "mip_allow_restart": False,
}


@dataclass(frozen=True, eq=False)
class ReluNetwork:
    """Linear layers with ReLU between them and one output; the inputs are an action and then a state.

    No hidden layer is allowed: the output is linear then.
    Raises :class:`InputError` for layers that do not fit each other or hold numbers that are not finite.
    """

    weights: tuple[Float64[np.ndarray, "outputs inputs"], ...]
    biases: tuple[Float64[np.ndarray, " outputs"], ...]

    def __post_init__(self) -> None:
        sizes = [layer.shape for layer in self.weights]
        fits = all(after[1] == before[0] for before, after in pairwise(sizes))
        if not sizes or not fits or [bias.shape for bias in self.biases] != [(size[0],) for size in sizes]:
            raise InputError(f"network: layers of the shapes {sizes} do not fit each other or their biases")
        if sizes[-1][0] != 1:
            raise InputError(f"network: has {sizes[-1][0]} outputs; must have 1")
        if not all(np.isfinite(values).all() for values in (*self.weights, *self.biases)):
            raise InputError("network: weights and biases must be finite")

    def each(self, states: States, actions: Actions) -> Float64[np.ndarray, "batch actions"]:
        """The output for each state with each action."""
        entries = actions.shape[-1]
        first = self.weights[0]
        values = (states @ first[:, entries:].T)[:, None] + (actions @ first[:, :entries].T) + self.biases[0]
        return self._from_first(values)

    def pairs(self, states: States, actions: Actions) -> Float64[np.ndarray, " batch"]:
        """The output for each state with the action beside it."""
        inputs = np.concatenate([actions, states], -1, dtype=np.float64)
        return self._from_first(inputs @ self.weights[0].T + self.biases[0])

    def given(self, state: Float64[np.ndarray, " features"]) -> ReluNetwork:
        """The network of the action alone: a state only moves the first biases."""
        first = self.weights[0]
        entries = first.shape[1] - len(state)
        return ReluNetwork(
            (first[:, :entries], *self.weights[1:]), (self.biases[0] + first[:, entries:] @ state, *self.biases[1:])
        )

    def _from_first(self, values: np.ndarray) -> np.ndarray:
        for layer, bias in zip(self.weights[1:], self.biases[1:], strict=True):
            values = np.maximum(values, 0) @ layer.T + bias
        return np.asarray(values[..., 0])


class Minimizer(Protocol):
    """Finds the feasible action of least output in each state."""

    def least(
        self, network: ReluNetwork, states: States, feasible: Feasible
    ) -> tuple[Actions, Float64[np.ndarray, " batch"]]:
        """Actions, and the network's output for them. Raises :class:`InputError` where no action is feasible."""
        ...


@dataclass(frozen=True)
class Counted:
    """Tries all feasible actions: exact, and faster than a program where they are few. The first of several."""

    def least(
        self, network: ReluNetwork, states: States, feasible: Feasible
    ) -> tuple[Actions, Float64[np.ndarray, " batch"]]:
        """Raises :class:`InputError` as :attr:`Feasible.every` does."""
        values = network.each(states, feasible.every)
        best = values.argmin(-1)
        return feasible.every[best], values[np.arange(len(values)), best]


@dataclass
class MixedInteger:
    """Solves a mixed-integer program with HiGHS: exact, and no action is counted.

    A hidden unit ``y = max(v, 0)`` with ``v = W x + b`` in ``[l, u]`` is ``y >= v``, ``y <= v - l (1 - t)``,
    ``0 <= y <= u t`` with binary ``t``. ``l`` and ``u`` come from the layer before by interval arithmetic, so that no
    constant is larger than it must be; units with ``u <= 0`` or ``l >= 0`` need no ``t``.

    A solution is rounded, checked to be feasible, and the network's output for it compared with the program's. Where
    time runs out a random feasible action is taken instead, and ``fallbacks`` counts it.

    time_limit: seconds for one program, positive.
    Raises :class:`InputError` for a limit out of range. Needs highspy (``stratagem[bandits]``).
    """

    time_limit: Annotated[float, Gt(0)] = 30.0
    solved: int = field(init=False, default=0)
    fallbacks: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        validate_fields(self, "mixed_integer")

    def least(
        self, network: ReluNetwork, states: States, feasible: Feasible
    ) -> tuple[Actions, Float64[np.ndarray, " batch"]]:
        """One program a state.

        Raises :class:`InputError` where no action is feasible or highspy is missing, and :class:`BrokenRunError` where
        the program's optimum is not what the network says.
        """
        actions = np.array([self._solve(network.given(state), feasible) for state in states])
        return actions, network.pairs(states, actions)

    def _solve(self, network: ReluNetwork, feasible: Feasible) -> np.ndarray:
        highspy = _highspy()
        solver = highspy.Highs()
        for name, value in {**OPTIONS, "time_limit": self.time_limit}.items():
            solver.setOptionValue(name, value)
        solver.passModel(_program(highspy, network, feasible))
        solver.run()
        self.solved += 1
        status = solver.getModelStatus()
        if status in (highspy.HighsModelStatus.kInfeasible, highspy.HighsModelStatus.kUnboundedOrInfeasible):
            raise infeasible(feasible)
        if status == highspy.HighsModelStatus.kOptimal:
            action = np.array(solver.getSolution().col_value[: feasible.entries]) > 0.5
            if feasible.contains(action[None])[0]:
                _compare(float(network.pairs(np.empty((1, 0)), action[None])[0]), solver.getObjectiveValue())
                return action
        self.fallbacks += 1
        return np.asarray(feasible.draw(numpy_generator(self.fallbacks, "fallback"))[0])


def _compare(output: float, optimum: float) -> None:
    if abs(output - optimum) > 1e-5 * (1 + abs(output)):
        raise BrokenRunError(f"mixed_integer: the program's optimum is {optimum:g}, the network says {output:g}")


def _highspy() -> Any:
    try:
        import highspy
    except ImportError:
        raise InputError("mixed_integer needs highspy: pip install 'stratagem[bandits]'") from None
    return highspy


class _Rows:
    """A program that grows by columns and rows."""

    def __init__(self) -> None:
        self.low: list[float] = []
        self.high: list[float] = []
        self.whole: list[bool] = []
        self.places: list[np.ndarray] = []
        self.entries: list[np.ndarray] = []
        self.least: list[float] = []
        self.most: list[float] = []

    def column(self, low: float, high: float, whole: bool) -> int:
        self.low, self.high, self.whole = [*self.low, low], [*self.high, high], [*self.whole, whole]
        return len(self.low) - 1

    def row(self, places: np.ndarray, entries: np.ndarray, least: float, most: float) -> None:
        kept = entries != 0
        self.places.append(places[kept])
        self.entries.append(entries[kept])
        self.least.append(least)
        self.most.append(most)


def _program(highspy: Any, network: ReluNetwork, feasible: Feasible) -> Any:
    """Columns: the action, its helpers, then the hidden units and their binaries."""
    rows, limits = _Rows(), feasible.constraints()
    for _ in range(feasible.entries):
        rows.column(0, 1, True)
    for high, whole in zip(limits.largest, limits.whole, strict=True):
        rows.column(0, high, bool(whole))
    everything = np.arange(feasible.entries + limits.helpers)
    for values, least, most in zip(limits.rows, limits.lower, limits.upper, strict=True):
        rows.row(everything, values, least, most)
    places, low, high = np.arange(feasible.entries), np.zeros(feasible.entries), np.ones(feasible.entries)
    for layer, bias in zip(network.weights[:-1], network.biases[:-1], strict=True):
        up, down = np.maximum(layer, 0), np.minimum(layer, 0)
        least, most = up @ low + down @ high + bias, up @ high + down @ low + bias
        places = np.array([_unit(rows, *unit, places) for unit in zip(layer, bias, least, most, strict=True)])
        low, high = np.maximum(least, 0), np.maximum(most, 0)
    program = highspy.HighsLp()
    program.num_col_, program.num_row_ = len(rows.low), len(rows.least)
    costs = np.zeros(len(rows.low))
    costs[places] = network.weights[-1][0]
    program.col_cost_, program.offset_ = costs, float(network.biases[-1][0])
    program.col_lower_, program.col_upper_ = np.array(rows.low), np.array(rows.high)
    program.row_lower_, program.row_upper_ = np.array(rows.least), np.array(rows.most)
    kinds = (highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger)
    program.integrality_ = [kinds[whole] for whole in rows.whole]
    program.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    sizes = [len(one) for one in rows.places]
    program.a_matrix_.start_ = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    program.a_matrix_.index_ = np.concatenate([np.empty(0), *rows.places]).astype(np.int32)
    program.a_matrix_.value_ = np.concatenate([np.empty(0), *rows.entries])
    return program


def _unit(rows: _Rows, weights: np.ndarray, bias: float, least: float, most: float, inputs: np.ndarray) -> int:
    """A hidden unit whose input lies in ``[least, most]``; its column."""
    output = rows.column(max(least, 0.0), max(most, 0.0), False)
    if most <= 0:
        return output
    linear = np.append(inputs, output)
    if least >= 0:
        rows.row(linear, np.append(-weights, 1.0), bias, bias)
        return output
    active = rows.column(0, 1, True)
    rows.row(linear, np.append(-weights, 1.0), bias, np.inf)
    rows.row(np.append(linear, active), np.concatenate([-weights, [1.0, -least]]), -np.inf, bias - least)
    rows.row(np.array([output, active]), np.array([1.0, -most]), -np.inf, 0.0)
    return output
