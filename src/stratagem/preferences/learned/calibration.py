"""Whether stated preferences come true as often as they say: reliability by bins, its errors, and its plot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from stratagem.errors import InputError
from stratagem.partition import Partition
from stratagem.seeding import generator


class Reliability(NamedTuple):
    """Bins in which something was said: mean probability, share that came true, how many; and figures of all.

    brier: ``mean (p - y)^2``.  log_loss: ``mean -y log p - (1 - y) log(1 - p)``, nats.
    ece: ``sum_b n_b / n |mean_b p - mean_b y|``.  accuracy: share on the label's side of 1/2; where either is 1/2 it
    counts as half.
    """

    said: Float64[Tensor, " bins"]
    held: Float64[Tensor, " bins"]
    comparisons: Int[Tensor, " bins"]
    brier: float
    log_loss: float
    ece: float
    accuracy: float


def reliability(probability: Float[Tensor, "*pairs"], label: Float[Tensor, "*pairs"], bins: int = 10) -> Reliability:
    """How reliable probabilities of preferences are, in bins of equal width, the last one with 1.

    label: in [0, 1], 1 where the first was preferred. Raises :class:`InputError` for numbers outside [0, 1], other
    shapes, nothing at all, and fewer than one bin.
    """
    if probability.shape != label.shape or not probability.numel() or bins < 1:
        raise InputError(
            f"reliability: {probability.numel()} probabilities, {label.numel()} labels and {bins} bins; there must be "
            "as many of both, and at least one, and at least one bin"
        )
    said, held = probability.flatten().double(), label.flatten().double()
    if not bool(((said >= 0) & (said <= 1) & (held >= 0) & (held <= 1)).all()):
        raise InputError("reliability: probabilities and labels must be in [0, 1]")
    binned = Partition.by((said * bins).long().clamp(max=bins - 1))
    log_loss = -(torch.special.xlogy(held, said) + torch.special.xlogy(1 - held, 1 - said))
    sides = ((said - 0.5).sign() * (held - 0.5).sign() + 1) / 2
    gap = binned.sum(said - held).abs().sum() / len(said)
    return Reliability(
        said=binned.mean(said).double(),
        held=binned.mean(held).double(),
        comparisons=binned.size(),
        brier=float((said - held).square().mean()),
        log_loss=float(log_loss.mean()),
        ece=float(gap),
        accuracy=float(sides.mean()),
    )


def calibration(
    probability: Float[Tensor, " pairs"], label: Float[Tensor, " pairs"], bins: int = 10, resamples: int = 1000
) -> dict[str, Any]:
    """Reliability of a model as plain data: its figures, each with a 95 % interval, and the bins.

    ``error`` is the expected calibration error, beside ``brier`` and ``log_loss``, with ``error_interval`` and so on.
    Bins are ``said``, ``held`` with its Wilson interval from ``low`` to ``high``, and ``comparisons``.

    Pairs have no first and second by themselves, so each counts in both orders, and bins lie around 1/2 alike.
    Intervals are those of a bootstrap over pairs, always the same one. The error is never below 0, so that of few pairs
    it is too large even of a model that is calibrated, and its interval as well.
    """
    p, y = (torch.cat([values, 1 - values]).double() for values in (probability, label))
    found, pairs = reliability(p, y, bins), len(label)
    drawn = torch.randint(pairs, (resamples, pairs), generator=generator(0, "calibration"))
    bin_of = (p * bins).long().clamp(max=bins - 1)
    counts = torch.zeros(resamples, pairs, dtype=torch.float64).scatter_add_(
        1, drawn, torch.ones(resamples, pairs, dtype=torch.float64)
    )
    weight = counts.repeat(1, 2)
    gaps = torch.zeros(resamples, bins, dtype=torch.float64).index_add_(1, bin_of, weight * (p - y))
    log_loss = -(torch.special.xlogy(y, p) + torch.special.xlogy(1 - y, 1 - p))
    drawn_figures = {
        "error": (found.ece, gaps.abs().sum(1)),
        "brier": (found.brier, weight @ (p - y).square()),
        "log_loss": (found.log_loss, weight @ log_loss),
    }
    figures: dict[str, Any] = {}
    for name, (value, resampled) in drawn_figures.items():
        bounds = torch.quantile(resampled / (2 * pairs), torch.tensor([0.025, 0.975], dtype=torch.float64))
        figures |= {name: value, f"{name}_interval": bounds.tolist()}
    middle, half = _wilson(found)
    return figures | {
        "said": found.said.tolist(),
        "held": found.held.tolist(),
        "low": (middle - half).tolist(),
        "high": (middle + half).tolist(),
        "comparisons": found.comparisons.tolist(),
    }


def reliability_page(title: str, curves: Mapping[str, Reliability]) -> str:
    """Reliability diagrams as HTML with all it needs: said against held, with 95 % Wilson bars, by name."""
    from plotly.colors import qualitative
    from plotly.graph_objects import Figure, Scatter

    figure = Figure(Scatter(x=[0, 1], y=[0, 1], mode="lines", name="calibrated", line={"dash": "dot", "color": "gray"}))
    for place, (name, found) in enumerate(curves.items()):
        middle, half = _wilson(found)
        color = qualitative.Safe[place % len(qualitative.Safe)]
        line = Scatter(
            x=found.said.tolist(),
            y=found.held.tolist(),
            customdata=found.comparisons.tolist(),
            hovertemplate="said %{x:.3f}, held %{y:.3f}, %{customdata} comparisons",
            error_y={
                "type": "data",
                "symmetric": False,
                "array": (middle + half - found.held).clamp(min=0).tolist(),
                "arrayminus": (found.held - middle + half).clamp(min=0).tolist(),
            },
            mode="lines+markers",
            name=f"{name}: error {found.ece:.3f}, accuracy {found.accuracy:.3f}",
            line={"color": color},
        )
        figure.add_trace(line)
    figure.update_xaxes(title_text="probability said", range=[0, 1])
    figure.update_yaxes(title_text="share that was preferred", range=[0, 1])
    figure.update_layout(title=title, template="plotly_white", height=560)
    page: str = figure.to_html(include_plotlyjs=True, full_html=True)
    return page


def _wilson(found: Reliability) -> tuple[Tensor, Tensor]:
    """Middle and half width of the 95 % interval of every bin's share."""
    z, n = 1.959963984540054, found.comparisons.double()
    middle = (found.held + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (found.held * (1 - found.held) / n + z * z / (4 * n * n)).sqrt()
    return middle, half
