"""The report of a solved game as one page that can be zoomed: exploitability curves, and payoffs of a population."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stratagem.games.metagame import Metagame, Mixture

LEAST = 1e-16
"""Exploitability that is drawn for less: float64 knows no smaller differences."""


def curves_page(title: str, curves: Mapping[str, Sequence[Mapping[str, Any]]], charts: Sequence[Any] = ()) -> str:
    """Exploitability curves as HTML with all it needs.

    curves: rows of metrics by name, with ``step``, ``seconds``, ``exploitability`` and ``exploitability/current``; the
    current strategies are drawn dotted. Both axes are logarithmic.  charts: figures of plotly that follow.
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
    more = "".join(chart.to_html(include_plotlyjs=False, full_html=False) for chart in charts)
    return page.replace("</body>", f"{more}</body>")


def payoffs_chart(game: Metagame, mixtures: Sequence[Mixture]) -> Any:
    """What the first player's strategies earn against the second's, as a heat map, with the mixtures at its sides.

    Strategies are numbered in the order they were found. Where there are more players, they play their mixtures; where
    there are several worlds, payoffs are means.
    """
    from plotly.graph_objects import Bar, Heatmap
    from plotly.subplots import make_subplots

    payoffs = game.expected[0]
    for mixture in reversed(mixtures[2:]):
        payoffs = payoffs @ mixture
    most = float(abs(payoffs).max()) or 1.0
    figure = make_subplots(
        rows=2, cols=2, row_heights=[0.2, 0.8], column_widths=[0.8, 0.2], shared_xaxes=True, shared_yaxes=True
    )
    colors = {"colorscale": "RdBu", "zmin": -most, "zmax": most, "colorbar": {"title": "payoff"}}
    figure.add_trace(Heatmap(z=payoffs, **colors), row=2, col=1)
    figure.add_trace(Bar(y=mixtures[1], marker_color="#44aa99", showlegend=False), row=1, col=1)
    figure.add_trace(Bar(x=mixtures[0], orientation="h", marker_color="#88ccee", showlegend=False), row=2, col=2)
    figure.update_xaxes(title_text="strategies of the second player", row=2, col=1)
    figure.update_yaxes(title_text="strategies of the first player", autorange="reversed", row=2, col=1)
    title = "Payoffs of the first player in the population, and how likely each strategy is"
    figure.update_layout(title=title, template="plotly_white", height=620)
    return figure
