"""Exploitability curves as one page that can be zoomed: by iteration and by second, both axes logarithmic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

LEAST = 1e-16
"""Exploitability that is drawn for less: float64 knows no smaller differences."""


def curves_page(title: str, curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Exploitability curves as HTML with all it needs.

    curves: rows of metrics by name, with ``step``, ``seconds``, ``exploitability`` and ``exploitability/current``; the
    current strategies are drawn dotted.
    """
    from plotly.colors import qualitative
    from plotly.graph_objects import Scatter
    from plotly.subplots import make_subplots

    figure = make_subplots(cols=2, shared_yaxes=True, horizontal_spacing=0.04)
    for place, (name, rows) in enumerate(curves.items()):
        for column, across in ((1, "step"), (2, "seconds")):
            for key, label, dash in (("exploitability", name, "solid"), ("exploitability/current", "current", "dot")):
                line = Scatter(
                    x=[row[across] for row in rows],
                    y=[max(row[key], LEAST) for row in rows],
                    name=label if key == "exploitability" else f"{name}, {label}",
                    mode="lines+markers" if dash == "solid" else "lines",
                    line={"color": qualitative.Safe[place % len(qualitative.Safe)], "dash": dash},
                    legendgroup=f"{name} {key}",
                    showlegend=column == 1,
                )
                figure.add_trace(line, row=1, col=column)
    figure.update_xaxes(type="log", title_text="iterations", row=1, col=1)
    figure.update_xaxes(type="log", title_text="seconds of iterating", row=1, col=2)
    figure.update_yaxes(type="log", exponentformat="power", title_text="exploitability", row=1, col=1)
    figure.update_yaxes(type="log", row=1, col=2)
    figure.update_layout(title=title, template="plotly_white", height=520)
    page: str = figure.to_html(include_plotlyjs=True, full_html=True)
    return page
