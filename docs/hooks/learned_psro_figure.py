"""Populations by responses that are learned and by exact ones, as ``benchmarks.learned_psro`` recorded them, as SVG."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from panels import Axis, Panel, Point

from stratagem.errors import InputError
from stratagem.study.curve import COLORS

PLACE = "<!-- learned responses figure -->"
"""The line of a page that the figure takes the place of."""

LEFT, TOP, WIDTH, HEIGHT, GAP = 48, 46, 300, 170, 60
"""Pixels: of the first panel's corner, a panel's size, and what lies between the two."""

TITLES = {"exploitability": "exploitability, exact", "share": "gain, as a share of the best response's"}


def learned_psro_figure(path: Path) -> str:
    """The figure with its caption, as HTML. Raises :class:`InputError` for a file that is missing or broken."""
    try:
        recorded = json.loads(path.read_text(encoding="utf-8"))
        return f'<figure class="panels">{_svg(recorded)}{_caption(recorded)}</figure>'
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        broken = f"{type(error).__name__}: {error}"
        raise InputError(f"{path}: is no recorded run of benchmarks.learned_psro ({broken})") from None


def _svg(recorded: Mapping[str, Any]) -> str:
    colors = dict(zip((curve["oracle"] for curve in recorded["curves"]), COLORS, strict=False))
    marks = list(_legend(colors))
    most = max(recorded["start"], *(max(run) for curve in recorded["curves"] for run in curve["exploitability"]))
    highs = {"exploitability": most, "share": 1.0}
    for number, (name, title) in enumerate(TITLES.items()):
        x = LEFT + number * (WIDTH + GAP)
        panel = Panel(x, TOP, WIDTH, HEIGHT, Axis(0, recorded["iterations"]), Axis(0, highs[name]))
        ticks = [highs[name] * part / 4 for part in range(5)]
        marks += panel.frame(title, ticks, [f"{tick:.2g}" for tick in ticks])
        for curve in recorded["curves"]:
            for run in curve[name]:
                line = panel.points(_points(run, recorded["start"] if name == "exploitability" else None))
                marks.append(f'<polyline stroke="{colors[curve["oracle"]]}" points="{line}"/>')
        marks += panel.below("0", f"{recorded['iterations']} iterations")
    label = escape("; ".join(_sentences(recorded)), quote=True)
    size = f"0 0 {LEFT + 2 * WIDTH + GAP + 12} {TOP + HEIGHT + 26}"
    return f'<svg role="img" aria-label="{label}" viewBox="{size}">{"".join(marks)}</svg>'


def _legend(colors: Mapping[str, str]) -> Iterator[str]:
    x = LEFT
    for oracle, color in colors.items():
        yield f'<line class="solver" stroke="{color}" x1="{x}" x2="{x + 22}" y1="10" y2="10"/>'
        yield f'<text x="{x + 28}" y="14">{escape(oracle)} responses</text>'
        x += 170


def _points(run: Sequence[float], start: float | None) -> list[Point]:
    """By iteration; exploitability has a value before the first one."""
    return [*([] if start is None else [(0, start)]), *enumerate(run, start=1)]


def _sentences(recorded: Mapping[str, Any]) -> Iterator[str]:
    for curve in recorded["curves"]:
        ends = ", ".join(f"{run[-1]:.2f}" for run in curve["exploitability"])
        yield f"{curve['oracle']} responses: exploitability {ends} after {recorded['iterations']} iterations"


def _caption(recorded: Mapping[str, Any]) -> str:
    seeds = len(recorded["seeds"])
    return (
        f"<figcaption>PSRO on <code>{escape(recorded['game'])}</code> with mixtures by "
        f"<code>{escape(recorded['meta'])}</code>; a line for each of {seeds} seeds where responses are learned, in "
        f"{recorded['steps']} batches each. Exact responses draw nothing; their gain is the best there is. Recorded "
        f"by <code>{escape(' '.join(recorded['command']))}</code>.</figcaption>"
    )
