"""A figure with its interval: what every comparison, claim and diagnosis is made of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval, ``low`` to ``high``; how that was made is said where one is made."""

    value: float
    low: float
    high: float
