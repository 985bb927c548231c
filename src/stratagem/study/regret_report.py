"""The page of a comparison of bandit policies: regret by round, with bands, and a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stratagem.study.curve import COLORS
from stratagem.study.page import origin, write_page

if TYPE_CHECKING:
    from stratagem.bandits import Curve, Pulled


def write_regret_report(pulled: Pulled, path: Path, *, runs: int, seed: int) -> Path:
    """Write the page to ``path`` and return it. Raises :class:`InputError` when it cannot be written."""
    curves = [
        {
            "policy": curve.policy,
            "color": COLORS[place % len(COLORS)],
            "rounds": curve.rounds.tolist(),
            "regret": curve.regret.tolist(),
            "low": [row["low"] for row in curve.rows()],
            "high": [row["high"] for row in curve.rows()],
            "bound": None if curve.bound is None else curve.bound.tolist(),
        }
        for place, curve in enumerate(pulled.curves)
    ]
    return write_page(
        "regret.html.jinja",
        path,
        f"Regret in {pulled.task}",
        {"curves": curves},
        pulled=pulled,
        runs=runs,
        rows=[(curve.policy, last(curve), proved(curve), f"{curve.seconds:.1f}") for curve in pulled.curves],
        **origin(seed=seed),
    )


def last(curve: Curve) -> str:
    """Regret at the end with its interval: ``41.3 [38.0, 44.6]``."""
    value, low, high = (float(column[-1]) for column in (curve.regret, curve.low, curve.high))
    return f"{value:.4g}" + (f" [{low:.4g}, {high:.4g}]" if low == low else "")


def proved(curve: Curve) -> str:
    """What theory says the expected regret is at most in the end; a dash where it says nothing."""
    return "-" if curve.bound is None else f"{curve.bound[-1]:.4g}"
