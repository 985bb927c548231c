"""Diffusion of vectors: schedules, exact denoisers, and samples that look like the data."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from stratagem.diffusion.gaussian import Denoiser, NoiseSchedule, fit
from stratagem.errors import InputError


class ExactDenoiser(Denoiser):
    """The best prediction there is for normal data of this mean and deviation."""

    def __init__(self, mean: Tensor, deviation: float, schedule: NoiseSchedule) -> None:
        super().__init__(len(mean), schedule)
        self.mean, self.deviation = mean, deviation

    def forward(self, noised: Tensor, time: Tensor) -> Tensor:
        signal = self.schedule.signal()[time].unsqueeze(-1)
        spread = signal * self.deviation**2 + 1 - signal
        return (1 - signal).sqrt() * (noised - signal.sqrt() * self.mean) / spread


def test_signal_falls_from_nearly_all_to_nearly_none():
    signal = NoiseSchedule(50).signal()
    assert bool((signal.diff() < 0).all())
    assert float(signal[0]) > 0.99 and float(signal[-1]) < 1e-3
    assert float(NoiseSchedule(1).signal()) == pytest.approx(1e-3)


def test_noised_data_keep_their_variance():
    source = torch.Generator().manual_seed(1000)
    data, noise = torch.randn(2, 20_000, 1, generator=source)
    for step in (0, 10, 49):
        noised = NoiseSchedule(50).noised(data, torch.full((20_000,), step), noise)
        assert float(noised.var()) == pytest.approx(1, abs=0.03)


def test_an_exact_denoiser_samples_from_its_distribution():
    model = ExactDenoiser(torch.tensor([1.0, -2.0]), 0.3, NoiseSchedule(100))
    drawn = model.sample(5000, torch.Generator().manual_seed(1000))
    torch.testing.assert_close(drawn.mean(0), torch.tensor([1.0, -2.0]), atol=0.03, rtol=0)
    torch.testing.assert_close(drawn.std(0), torch.tensor([0.3, 0.3]), atol=0.03, rtol=0)


def test_no_prediction_has_less_error_than_the_exact_one():
    mean, schedule = torch.tensor([1.0]), NoiseSchedule(20)
    source = torch.Generator().manual_seed(1000)
    data, noise = mean + 0.3 * torch.randn(4000, 1, generator=source), torch.randn(4000, 1, generator=source)
    time = torch.randint(20, (4000,), generator=source)
    best = ExactDenoiser(mean, 0.3, schedule).errors(data, time, noise).mean()
    for other in (ExactDenoiser(mean + 0.1, 0.3, schedule), ExactDenoiser(mean, 0.5, schedule), Denoiser(1, schedule)):
        assert bool(other.errors(data, time, noise).mean() > best)


def test_what_is_learned_is_sampled():
    data = torch.tensor([[2.0, 0.0], [-2.0, 0.0]]).repeat(100, 1)
    model = Denoiser(2, NoiseSchedule(25), hidden=32, seed=1)
    fit(model, data, 600, 3e-3)
    drawn = model.sample(500, torch.Generator().manual_seed(1000))
    assert float((torch.cdist(drawn, data[:2]).amin(1) < 0.5).float().mean()) > 0.8
    assert 0.3 < float((drawn[:, 0] > 0).float().mean()) < 0.7


def test_the_same_seed_is_the_same_model_and_a_frozen_one_stays():
    schedule, data = NoiseSchedule(5), torch.randn(20, 2, generator=torch.Generator().manual_seed(1))
    one, other = Denoiser(2, schedule, seed=3), Denoiser(2, schedule, seed=3)
    kept = one.frozen()
    for model in (one, other):
        fit(model, data, 3)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(one.parameters(), kept.parameters(), strict=True))
    assert not any(parameter.requires_grad for parameter in kept.parameters())


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="steps = 0: must be at least 1"):
        NoiseSchedule(0)
    with pytest.raises(InputError, match="no data"):
        fit(Denoiser(2, NoiseSchedule(2)), torch.zeros(0, 2), 1)
