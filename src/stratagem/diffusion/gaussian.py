"""Diffusion of vectors: noise is added step by step, and a small network predicts it."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from stratagem.errors import InputError
from stratagem.seeding import generator


@dataclass(frozen=True)
class NoiseSchedule:
    """``x_t = alpha_t x_0 + sigma_t eps``, ``alpha_t^2 + sigma_t^2 = 1``, ``alpha_t = cos(pi/2 (t + s) / (1 + s))``.

    The cosine schedule (arXiv 2102.09672) with ``t`` the share of steps done and ``s`` 0.008; no step adds more than
    0.999 of the variance.

    steps: from data to noise, at least 1. Raises :class:`InputError` for fewer.
    """

    steps: int = 50

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"noise schedule: steps = {self.steps}: must be at least 1")

    def signal(self) -> Float[Tensor, " steps"]:
        """``alpha_t^2`` after step 1, 2, ..., the last."""
        share = torch.arange(self.steps + 1, dtype=torch.float64) / self.steps
        curve = torch.cos(math.pi / 2 * (share + 0.008) / 1.008).square()
        kept = (curve[1:] / curve[:-1]).clamp(min=1e-3)
        return kept.cumprod(0).float()

    def noised(
        self, data: Float[Tensor, "rows numbers"], time: Int[Tensor, " rows"], noise: Float[Tensor, "rows numbers"]
    ) -> Float[Tensor, "rows numbers"]:
        """``x_t``; ``time`` counts from 0, the first step."""
        signal = self.signal()[time].unsqueeze(-1)
        return signal.sqrt() * data + (1 - signal).sqrt() * noise


class Denoiser(nn.Module):
    """``eps(x_t, t)``: the noise that was added, predicted by three hidden layers.

    numbers: of a vector.  hidden: width.  seed: of the weights.
    """

    def __init__(self, numbers: int, schedule: NoiseSchedule, hidden: int = 64, seed: int = 0) -> None:
        super().__init__()
        self.numbers, self.schedule = numbers, schedule
        self.frequencies = 8
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            widths = (numbers + 2 * self.frequencies, hidden, hidden, hidden)
            inner = [layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.SiLU())]
            self.network = nn.Sequential(*inner, nn.Linear(hidden, numbers))

    def forward(
        self, noised: Float[Tensor, "rows numbers"], time: Int[Tensor, " rows"]
    ) -> Float[Tensor, "rows numbers"]:
        """The predicted noise; ``time`` counts from 0."""
        angle = (time + 1).unsqueeze(-1) / self.schedule.steps * math.pi * 2.0 ** torch.arange(self.frequencies) / 2
        said: Tensor = self.network(torch.cat([noised, angle.sin(), angle.cos()], -1))
        return said

    def errors(
        self, data: Float[Tensor, "rows numbers"], time: Int[Tensor, " rows"], noise: Float[Tensor, "rows numbers"]
    ) -> Float[Tensor, " rows"]:
        """``||eps - eps(x_t, t)||^2``, the mean over numbers."""
        said: Tensor = self(self.schedule.noised(data, time, noise), time)
        return (noise - said).square().mean(-1)

    def frozen(self) -> Self:
        """A copy that no longer learns."""
        return copy.deepcopy(self).requires_grad_(False)

    @torch.no_grad()
    def sample(self, rows: int, source: torch.Generator) -> Float[Tensor, "rows numbers"]:
        """Vectors by ancestral sampling (DDPM, arXiv 2006.11239), from noise and one step after the other."""
        signal = self.schedule.signal()
        before = torch.cat([torch.ones(1), signal[:-1]])
        x = torch.randn(rows, self.numbers, generator=source)
        for step in reversed(range(self.schedule.steps)):
            time = torch.full((rows,), step)
            kept = signal[step] / before[step]
            mean = (x - (1 - kept) / (1 - signal[step]).sqrt() * self(x, time)) / kept.sqrt()
            variance = (1 - before[step]) / (1 - signal[step]) * (1 - kept)
            x = mean + variance.sqrt() * torch.randn(rows, self.numbers, generator=source)
        return x


def fit(
    model: Denoiser,
    data: Float[Tensor, "rows numbers"],
    steps: int,
    learning_rate: float = 1e-3,
    batch: int = 256,
    seed: int = 0,
) -> None:
    """Learn to predict the noise of these data. Raises :class:`InputError` without any."""
    if not len(data):
        raise InputError("diffusion: there are no data to learn from")
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    for step in range(steps):
        source = generator(seed, "noise", step)
        rows = torch.randint(len(data), (batch,), generator=source)
        time = torch.randint(model.schedule.steps, (batch,), generator=source)
        noise = torch.randn(batch, model.numbers, generator=source)
        optimizer.zero_grad(set_to_none=True)
        model.errors(data[rows], time, noise).mean().backward()
        optimizer.step()
