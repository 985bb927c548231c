"""The page of a stress: which recipes survive what, as words, tables and two maps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stratagem.study.outcome import Direction
from stratagem.study.page import environment_facts, write_page
from stratagem.study.stress import KEPT, Endured, Fate, Stress

DIRECTIONS: dict[Fate, Direction] = {"survives": "rose", "breaks": "fell", "unclear": "unchanged"}


@dataclass(frozen=True)
class Cell:
    """One recipe under one condition, in words."""

    success: str
    interval: str
    ratio: str
    fate: Fate | None
    direction: Direction


def write_stress_report(stress: Stress, path: Path) -> Path:
    """Write the page to ``path`` and return it. Raises :class:`InputError` when it cannot be written."""
    plan = stress.plan
    return write_page(
        "stress.html.jinja",
        path,
        "What survives stale batches and another engine?",
        {
            "conditions": [condition.name for condition in plan.conditions],
            "arms": list(stress.endured),
            "success": [
                [stress.success(arm, place).value for place in range(len(plan.conditions))] for arm in stress.endured
            ],
            "ratio": [[_log10(endured) for endured in rows] for rows in stress.endured.values()],
        },
        stress=stress,
        plan=plan,
        sentences=list(sentences(stress)),
        rows=[(arm, cells(stress, arm)) for arm in stress.endured],
        kept=f"{KEPT:.0%}",
        facts=list(environment_facts(stress.environment)),
    )


def sentences(stress: Stress) -> Iterator[str]:
    """For every condition but the first: how many recipes survive it, and which do not."""
    for place, condition in enumerate(stress.plan.conditions[1:], 1):
        fates = {arm: stress.fate(arm, place) for arm in stress.endured}
        survivors = sum(fate == "survives" for fate in fates.values())
        named = [
            f"{word} {', '.join(arm for arm, fate in fates.items() if fate == kind)}"
            for kind, word in (("breaks", "broken:"), ("unclear", "unclear:"))
            if kind in fates.values()
        ]
        yield f"{condition.name}: {survivors} of {len(fates)} survive" + "".join(f"; {part}" for part in named)


def cells(stress: Stress, arm: str) -> list[Cell]:
    """The arm under every condition."""
    found = []
    for place, endured in enumerate(stress.endured[arm]):
        success, fate = stress.success(arm, place), stress.fate(arm, place) if place else None
        found.append(
            Cell(
                f"{success.value:.2f}",
                f"[{success.low:.2f}, {success.high:.2f}]",
                ratio_text(endured),
                fate,
                DIRECTIONS[fate] if fate else "unchanged",
            )
        )
    return found


def ratio_text(endured: Endured) -> str:
    """The largest importance ratio, median over seeds: ``4.1``, ``150``, ``3e+05``, ``not finite``."""
    ratio = endured.largest_ratio
    if not math.isfinite(ratio):
        return "not finite"
    return f"{ratio:.0f}" if 10 <= ratio < 1e4 else f"{ratio:.2g}"


def _log10(endured: Endured) -> float | None:
    return math.log10(endured.largest_ratio) if 0 < endured.largest_ratio < math.inf else None
