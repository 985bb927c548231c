"""Convex sets that continuous actions are projected on: the nearest point of the set."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from annotated_types import Gt, MinLen
from jaxtyping import Float64
from pydantic import Field, model_validator

from stratagem.blueprint.declared import Declared
from stratagem.errors import InputError

Point = Float64[np.ndarray, " dimensions"]
Row = Annotated[tuple[float, ...], MinLen(1)]


class ConvexSet(Declared):
    """A closed convex set of points; its Euclidean projection is ``argmin_{x in set} |x - y|``, which is unique."""

    @property
    @abstractmethod
    def dimensions(self) -> int:
        """Numbers of a point."""

    @abstractmethod
    def nearest(self, point: Point) -> Point:
        """The projection of a finite point."""

    def project(self, point: Sequence[float]) -> Point:
        """The nearest point of the set. Raises :class:`InputError` for another number of coordinates, or NaN or inf."""
        given = np.asarray(point, dtype=np.float64)
        if given.shape != (self.dimensions,) or not np.isfinite(given).all():
            raise InputError(f"point {list(point)}: must be {self.dimensions} finite numbers")
        return self.nearest(given)


class Box(ConvexSet):
    """``low <= x <= high``, coordinate by coordinate."""

    kind: Literal["box"] = "box"
    low: Row
    high: Row

    @model_validator(mode="after")
    def _ordered(self) -> Box:
        if len(self.low) != len(self.high) or any(a > b for a, b in zip(self.low, self.high, strict=True)):
            raise ValueError("low and high need as many numbers, none of low above that of high")
        return self

    @property
    def dimensions(self) -> int:
        return len(self.low)

    def nearest(self, point: Point) -> Point:
        return np.asarray(np.clip(point, self.low, self.high))


class Ball(ConvexSet):
    """``|x - center| <= radius``."""

    kind: Literal["ball"] = "ball"
    center: Row
    radius: Annotated[float, Gt(0)]

    @property
    def dimensions(self) -> int:
        return len(self.center)

    def nearest(self, point: Point) -> Point:
        away = point - np.asarray(self.center)
        scale = max(1.0, math.hypot(*away) / self.radius)
        return np.asarray(self.center + away / scale)


class Polytope(ConvexSet):
    """``normals x <= offsets``: as many half-spaces as there are rows. One row is a half-space.

    One row is projected on in closed form, ``y - max(0, a y - b) a / |a|^2``; several by least-distance programming,
    which is a non-negative least squares problem (Lawson and Hanson 1974, chapter 23) and ends after finitely many
    steps.
    """

    kind: Literal["polytope"] = "polytope"
    normals: Annotated[tuple[Row, ...], MinLen(1)]
    offsets: Row

    @model_validator(mode="after")
    def _fits(self) -> Polytope:
        widths = {len(row) for row in self.normals}
        if len(widths) > 1 or len(self.normals) != len(self.offsets):
            raise ValueError("normals need one row for each offset, all of one length")
        if not all(any(row) for row in self.normals):
            raise ValueError("a row of normals is zero")
        if self._infeasible():
            raise ValueError("no point satisfies all half-spaces")
        return self

    @property
    def dimensions(self) -> int:
        return len(self.normals[0])

    def _infeasible(self) -> bool:
        if len(self.normals) == 1:
            return False
        from scipy.optimize import linprog

        none = np.zeros(self.dimensions)
        return bool(linprog(none, np.asarray(self.normals), np.asarray(self.offsets), bounds=(None, None)).status == 2)

    def nearest(self, point: Point) -> Point:
        lengths = np.linalg.norm(self.normals, axis=1)
        normals, offsets = np.asarray(self.normals) / lengths[:, None], np.asarray(self.offsets) / lengths
        excess = normals @ point - offsets
        if excess.max() <= 0:
            return point
        if len(normals) == 1:
            return np.asarray(point - excess[0] * normals[0])
        from scipy.optimize import nnls

        # The shortest z with -normals z >= excess; scaled so that the problem is of size 1.
        scale = float(np.abs(excess).max())
        system = np.vstack([-normals.T, excess[None, :] / scale])
        target = np.append(np.zeros(self.dimensions), 1.0)
        residual = system @ nnls(system, target)[0] - target
        return np.asarray(point - scale * residual[:-1] / residual[-1])


Region = Annotated[Box | Ball | Polytope, Field(discriminator="kind")]
