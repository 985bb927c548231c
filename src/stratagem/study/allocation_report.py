"""The page of a comparison of allocators: what they earned, how long they took, and one allocation of each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stratagem.errors import BrokenRunError
from stratagem.study.curve import COLORS
from stratagem.study.page import origin, write_page

if TYPE_CHECKING:
    from stratagem.allocation import Allocated, Comparison, Instances

PATIENCE = 2.0
"""Seconds in which the optimum of the instance that is shown is looked for."""


def write_allocation_report(found: Comparison, path: Path, *, single: bool, seed: int) -> Path:
    """Write the page to ``path`` and return it. Raises :class:`InputError` when it cannot be written.

    single: whether an episode is one allocation, so that ``exact`` is the optimum of all.
    """
    against = reference(found.results)
    bars = [_bar(one, against, COLORS[place % len(COLORS)]) for place, one in enumerate(found.results)]
    best = _optimum(found.instance)
    return write_page(
        "allocation.html.jinja",
        path,
        f"Allocators in {found.task}",
        # Lists, since JSON in a page is sorted by name.
        {"bars": bars, "pictures": [_picture(found.instance, one) for one in found.results]},
        found=found,
        against=against.name,
        optimal=single and against.name == "exact",
        episodes=len(against.returns),
        rows=_rows(bars),
        columns=["task", "value", "demands", *(_brought(found.instance, one) for one in found.results)],
        tasks=_tasks(found.instance, found.results),
        choices=[(str(place), one.name) for place, one in enumerate(found.results)],
        best=best,
        **origin(seed=seed),
    )


def reference(results: Sequence[Allocated]) -> Allocated:
    """With whose return the others are compared: ``exact`` where it is among them, else the one that earned most."""
    return next((one for one in results if one.name == "exact"), max(results, key=lambda one: one.mean))


def share(one: Allocated, against: Allocated) -> tuple[float, float]:
    """``r``, ratio of mean returns on the same episodes, and half of its 95 % interval; nan where there is none.

    The interval is that of the mean of ``a - r b`` over episodes, divided by the mean of ``b``.
    """
    if against.mean <= 0:
        return math.nan, math.nan
    ratio = one.mean / against.mean
    if len(one.returns) < 2:
        return ratio, math.nan
    spread = float((one.returns - ratio * against.returns).std()) / len(one.returns) ** 0.5
    return ratio, 1.96 * spread / against.mean


def _bar(one: Allocated, against: Allocated, color: str) -> dict[str, Any]:
    ratio, half = share(one, against)
    figures = {"return": one.mean, "return/half": one.half, "share": ratio, "share/half": half}
    plain = {name: None if math.isnan(value) else value for name, value in figures.items()}
    return {"name": one.name, "color": color, **plain, "milliseconds": 1000 * one.decision, "learning": one.seconds}


def mean(one: Allocated) -> str:
    """Mean return with its interval: ``22.5 [17.7, 27.3]``."""
    return _text(one.mean, None if math.isnan(one.half) else one.half)


def _text(value: float | None, half: float | None) -> str:
    if value is None:
        return "—"
    return f"{value:.4g}" + ("" if half is None else f" [{value - half:.4g}, {value + half:.4g}]")


def _rows(bars: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Of the table: figures with their intervals."""
    return [
        (
            bar["name"],
            *(_text(bar[name], bar[f"{name}/half"]) for name in ("return", "share")),
            f"{bar['learning']:.1f}" if bar["learning"] else "—",
            f"{bar['milliseconds']:.3g}",
        )
        for bar in bars
    ]


def _optimum(instance: Instances) -> str:
    """What the best allocation of the instance brings, as far as it is known; empty where nothing was found."""
    from stratagem.allocation.optimum import optimum

    try:
        best = optimum(instance, 0.0, PATIENCE)
    except BrokenRunError:
        return ""
    value, bound = float(best.value[0]), float(best.bound[0])
    known = bound - value <= 1e-6 * max(1.0, bound)
    return f"The best there is brings {value:.2f}." if known else f"The best brings {value:.2f} to {bound:.2f}."


def _picture(instance: Instances, one: Allocated) -> dict[str, Any]:
    """Where every entity stands: at the task it serves, in vain at the one it volunteered for, or nowhere (-1)."""
    serves = one.sample.allocation
    wanted = serves if one.sample.volunteered is None else one.sample.volunteered
    paid = instance.covered(instance.members(serves.unsqueeze(0)))[0]
    vectors = [[f"{number:.3g}" for number in row] for row in instance.entity_vectors[0].tolist()]
    return {
        "name": one.name,
        "task": [int(mine) if mine >= 0 else int(other) for mine, other in zip(serves, wanted, strict=True)],
        "serves": (serves >= 0).tolist(),
        "about": [f"cost {row[0]}, capacities {', '.join(row[1:])}" for row in vectors],
        "ticks": [
            f"task {number + 1}, {value:.1f}, {'paid' if pays else 'not paid'}"
            for number, (value, pays) in enumerate(zip(instance.value[0].tolist(), paid.tolist(), strict=True))
        ],
    }


def _brought(instance: Instances, one: Allocated) -> str:
    return f"{one.name}, {float(instance.worth(one.sample.allocation.unsqueeze(0)).sum()):.2f} in all"


def _tasks(instance: Instances, results: Sequence[Allocated]) -> list[list[str]]:
    """Every open task: its value, its demands, and what each allocator gave it."""
    return [
        [
            str(number + 1),
            f"{float(instance.value[0, number]):.2f}",
            " ".join(f"{demand:.3g}" for demand in instance.demand[0, number].tolist()),
            *(_given(instance, one, number) for one in results),
        ]
        for number in instance.open[0].nonzero().flatten().tolist()
    ]


def _given(instance: Instances, one: Allocated, number: int) -> str:
    """``8.61 by 3 entities``."""
    allocation = one.sample.allocation.unsqueeze(0)
    count = int((allocation == number).sum())
    brings = float(instance.worth(allocation)[0, number])
    return f"{brings:.2f} by {count} {'entity' if count == 1 else 'entities'}" if brings > 0 else "—"
