"""Control barrier functions for discs on a plane, and the nearest safe velocity in closed form."""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

TOLERANCE = 1e-9
"""By how much a constraint may be missed and still hold, relative to the size of its bound."""


class Nearest(NamedTuple):
    """velocity: the nearest one that is allowed; 0 where there is none.  feasible: whether there is one."""

    velocity: Float[np.ndarray, "rows 2"]
    feasible: Bool[np.ndarray, " rows"]


def nearest(
    wanted: Float[np.ndarray, "rows 2"],
    normal: Float[np.ndarray, "rows constraints 2"],
    bound: Float[np.ndarray, "rows constraints"],
) -> Nearest:
    """``argmin |u - wanted|^2`` subject to ``normal_k . u >= bound_k`` for all k, of every row.

    In the plane the solution is ``wanted`` itself, its projection ``u + max(0, b - a.u) a / |a|^2`` onto one line, or
    the crossing of two: all of these are tried and the nearest that breaks no constraint is it. A constraint whose
    normal is 0 allows everything or nothing; a bound of minus infinity is none.
    """
    rows, count = bound.shape
    empty = np.isneginf(bound)
    limit = np.where(empty, 0.0, bound)
    slope = np.where(empty[..., None], 0.0, normal)
    square = (slope**2).sum(-1)
    missing = limit - (slope * wanted[:, None]).sum(-1)
    scale = np.divide(missing, square, out=np.zeros_like(missing), where=square > 0)
    on_lines = wanted[:, None] + scale[..., None] * slope
    pairs = np.array(list(combinations(range(count), 2)), dtype=np.int64).reshape(-1, 2)
    first, second = pairs[:, 0], pairs[:, 1]
    a, b = slope[:, first], slope[:, second]
    cross = a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
    sizes = np.sqrt(square[:, first] * square[:, second])
    apart = np.abs(cross) > 1e-12 * np.maximum(sizes, 1e-300)
    turned = np.stack(
        [
            limit[:, first] * b[..., 1] - limit[:, second] * a[..., 1],
            limit[:, second] * a[..., 0] - limit[:, first] * b[..., 0],
        ],
        -1,
    )
    corners = np.divide(turned, cross[..., None], out=np.full_like(turned, np.nan), where=apart[..., None])
    tried = np.concatenate([wanted[:, None], on_lines, corners], 1)
    kept = (tried[:, :, None] * slope[:, None]).sum(-1) - limit[:, None]
    margin = TOLERANCE * (1.0 + np.abs(limit) + np.sqrt(square))
    allowed = np.isfinite(tried).all(-1) & (kept >= -margin[:, None]).all(-1)
    distance = np.where(allowed, ((tried - wanted[:, None]) ** 2).sum(-1), np.inf)
    best = distance.argmin(1)
    feasible = allowed.any(1)
    chosen = tried[np.arange(rows), best]
    return Nearest(np.where(feasible[:, None], chosen, 0.0), feasible)


def signed_power(value: Float[np.ndarray, "..."], exponent: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """``sign(h) |h|^eta``: a power that asks barriers below 0 to grow, whatever the exponent."""
    powered: np.ndarray = np.sign(value) * np.abs(value) ** exponent
    return powered


class Constraints(NamedTuple):
    """Velocities ``u`` with ``normal . u >= bound``."""

    normal: Float[np.ndarray, "rows constraints 2"]
    bound: Float[np.ndarray, "rows constraints"]


def barrier_constraints(
    away: Float[np.ndarray, "rows others 2"],
    apart: Float[np.ndarray, "#rows others"],
    share: Float[np.ndarray, "#rows others"],
    there: Bool[np.ndarray, "rows others"],
    zeta: Float[np.ndarray, " rows"],
    eta: Float[np.ndarray, " rows"],
    unit: float = 1.0,
) -> Constraints:
    """``2 (p_i - p_j) . u_i + share zeta_i unit^2 sign(h) |h / unit^2|^eta_i >= 0``.

    The barrier is ``h = |p_i - p_j|^2 - apart^2``.

    away: ``p_i - p_j``.  apart: the least distance of centres.  share: of the responsibility: 1 for an obstacle, 1/2
    between agents that obey the same rule.  there: which of the others count.  zeta, eta: above 0; small ``zeta`` is
    cautious.  unit: a length; ``h`` is taken in its square, so that ``eta`` means the same at every scale.
    """
    h = ((away**2).sum(-1) - apart**2) / unit**2
    bound = -share * zeta[:, None] * unit**2 * signed_power(h, eta[:, None])
    return Constraints(2 * away, np.where(there, bound, -np.inf))


def box_constraints(rows: int, most: float) -> Constraints:
    """``|u_x| <= most`` and ``|u_y| <= most``."""
    sides = np.array([(1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0)])
    return Constraints(np.broadcast_to(sides, (rows, 4, 2)), np.full((rows, 4), -most))
