"""Calls of tools: how like another one is, and what each of some calls is worth beside those that were wanted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float64

Assignment = Literal["hard", "greedy", "soft"]
"""How calls and references are matched; see :func:`matched`."""

_TIE = 1e-9
_ROUNDS = 10_000
_CONVERGED = 1e-10


class ToolCall(NamedTuple):
    """A tool by name, and its arguments by theirs (values as JSON has them)."""

    name: str
    arguments: Mapping[str, Any]


def read_call(text: str) -> ToolCall:
    """``NAME {"argument": value, ...}``. Arguments that are no JSON object are none."""
    name, brace, rest = text.strip().partition("{")
    try:
        arguments = json.loads(brace + rest)
    except (ValueError, RecursionError):
        arguments = None
    return ToolCall(name.strip(), arguments if isinstance(arguments, dict) else {})


def similarity(predicted: ToolCall, reference: ToolCall) -> float:
    """``(1 + J + n) / (2 + |reference's arguments|)``, in [0, 1]; 0 for another tool (arXiv 2601.10712).

    ``J``: Jaccard index of the arguments' names, 1 when neither call has any. ``n``: of the reference's arguments,
    those that the prediction gives the same value. Names of tools are compared without regard to case.
    """
    if predicted.name.casefold() != reference.name.casefold():
        return 0.0
    given, wanted = predicted.arguments, reference.arguments
    names = given.keys() | wanted.keys()
    jaccard = len(given.keys() & wanted.keys()) / len(names) if names else 1.0
    equal = sum(bool(name in given and given[name] == value) for name, value in wanted.items())
    return float(1 + jaccard + equal) / (2 + len(wanted))


def matched(
    similarities: Float64[np.ndarray, "predicted references"],
    assignment: Assignment = "hard",
    unmatched: float = 0.0,
    regularization: float = 0.1,
) -> Float64[np.ndarray, " predicted"]:
    """What every predicted call is worth (arXiv 2601.10712). similarities: in [0, 1], at least 0.

    ``hard``: the one-to-one assignment of the largest total similarity; a call is worth its similarity to what it is
    assigned to. ``greedy``: pairs in order of falling similarity, as long as both are free, which is what the released
    code does. In both a similarity of 0 is no match, and of calls that are worth the same the first is matched; those
    left over are worth ``unmatched`` (the released function's own default is -0.5, training passes 0).
    ``soft``: ``sum_j T_ij S_ij`` with ``T`` the entropic optimal transport between uniform marginals at cost ``-S``;
    all calls together are worth at most 1, so each is about a ``predicted``-th of its hard worth, and there are no
    unmatched ones. ``regularization``: of ``T``, above 0.

    Without references nothing matches; without predictions the answer is empty.
    """
    count = len(similarities)
    if not similarities.size:
        return np.full(count, 0.0 if assignment == "soft" else unmatched)
    if assignment == "soft":
        plan: Float64[np.ndarray, "predicted references"] = transport(-similarities, regularization)
        return np.asarray((plan * similarities).sum(1))
    worth = np.full(count, unmatched)
    pairs = _greedy(similarities) if assignment == "greedy" else _best(similarities)
    for predicted, reference in pairs:
        if similarities[predicted, reference] > 0:
            worth[predicted] = similarities[predicted, reference]
    return worth


def transport(
    cost: Float64[np.ndarray, "rows columns"], regularization: float = 0.1
) -> Float64[np.ndarray, "rows columns"]:
    """The plan ``T`` that minimises ``<T, cost> - regularization * H(T)`` with uniform marginals (by Sinkhorn).

    Worked in logarithms, so that no regularization above 0 underflows. Rows and columns: at least one of each. Sums of
    rows are exact; those of columns come near it in a bounded number of rounds, slowly where little is regularised.
    """
    rows, columns = cost.shape
    kernel = -cost / regularization
    row_mass, column_mass = -np.log(rows), -np.log(columns)
    row = np.zeros((rows, 1))
    for _ in range(_ROUNDS):
        column = column_mass - _log_sum(kernel + row, axis=0)
        row = row_mass - _log_sum(kernel + column, axis=1)
        plan = np.exp(kernel + row + column)
        if np.abs(plan.sum(0) * columns - 1).max() < _CONVERGED:
            break
    return np.asarray(plan)


def turn_worth(
    turns: Sequence[Sequence[ToolCall]],
    reference: Sequence[ToolCall],
    assignment: Assignment = "hard",
    unmatched: float = 0.0,
    regularization: float = 0.1,
) -> list[float]:
    """What every turn's calls are worth: their mean by :func:`matched` over all calls of the episode; 0 without any."""
    calls = [call for turn in turns for call in turn]
    similarities = np.zeros((len(calls), len(reference)))
    for row, call in enumerate(calls):
        similarities[row] = [similarity(call, wanted) for wanted in reference]
    worth = iter(matched(similarities, assignment, unmatched, regularization).tolist())
    by_turn = [[next(worth) for _ in turn] for turn in turns]
    return [sum(values) / len(values) if values else 0.0 for values in by_turn]


def _best(similarities: Float64[np.ndarray, "predicted references"]) -> list[tuple[int, int]]:
    """The pairs of the assignment with the largest total similarity."""
    from scipy.optimize import linear_sum_assignment  # It takes a while to import, and most tasks do without it.

    # A shade less for later calls, or which of two equal calls is matched would be the solver's whim.
    preferred = similarities - _TIE * np.arange(len(similarities))[:, None] / len(similarities)
    predicted, reference = linear_sum_assignment(preferred, maximize=True)
    return list(zip(predicted.tolist(), reference.tolist(), strict=True))


def _greedy(similarities: Float64[np.ndarray, "predicted references"]) -> list[tuple[int, int]]:
    """Pairs in order of falling similarity, each with a call and a reference that no earlier pair has."""
    columns = similarities.shape[1]
    pairs: list[tuple[int, int]] = []
    for place in np.argsort(-similarities, axis=None, kind="stable").tolist():
        predicted, reference = divmod(place, columns)
        if all(predicted != row and reference != column for row, column in pairs):
            pairs.append((predicted, reference))
    return pairs


def _log_sum(values: Float64[np.ndarray, "rows columns"], axis: int) -> Float64[np.ndarray, "rows columns"]:
    """``log sum exp`` along an axis, which is kept with length 1."""
    most = values.max(axis=axis, keepdims=True)
    return np.asarray(most + np.log(np.exp(values - most).sum(axis=axis, keepdims=True)))
