"""Winning samples alone: losses by hand, which side a checkpoint's sample is on, and the pool of checkpoints."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor

from stratagem.diffusion.gaussian import Denoiser, NoiseSchedule
from stratagem.errors import BrokenRunError, InputError
from stratagem.preferences.learned.semi_policy import Errors, SemiPolicy, semi_policy_loss

QUICK = SemiPolicy(updates=6, every=2, batch=16)
FOUR = st.lists(st.floats(0, 3), min_size=4, max_size=4)


def errors(*numbers: float) -> Errors:
    return Errors(*torch.tensor(numbers, dtype=torch.float64).unsqueeze(1))


@pytest.fixture
def model() -> Denoiser:
    return Denoiser(2, NoiseSchedule(5), hidden=8, seed=1)


@pytest.fixture
def winners() -> Tensor:
    return torch.randn(30, 2, generator=torch.Generator().manual_seed(1000))


@pytest.mark.parametrize(
    ("numbers", "side", "expected"),
    [
        ((0.8, 1.0, 0.9, 0.5), "sign", 0.437488),
        ((1.0, 0.8, 0.9, 0.5), "sign", 1.037488),
        ((1.0, 0.8, 0.9, 0.5), "losing", -math.log(1 / (1 + math.exp(-0.2)))),
        ((1.0, 0.8, 0.9, 0.5), "indicator", -math.log(1 / (1 + math.exp(0.2)))),
        ((1.0, 1.0, 0.9, 0.5), "sign", -math.log(1 / (1 + math.exp(-0.4)))),
    ],
)
def test_losses_by_hand(numbers, side, expected):
    assert float(semi_policy_loss(errors(*numbers), 1.0, side)) == pytest.approx(expected, abs=1e-6)


@given(FOUR, st.floats(0.1, 5))
def test_the_loss_is_preference_optimisation_wherever_the_model_is_ahead(numbers, strength):
    found = errors(*numbers)
    dpo = -torch.nn.functional.logsigmoid(-strength * ((found[0] - found[1]) - (found[2] - found[3])))
    torch.testing.assert_close(semi_policy_loss(found, strength, "losing"), dpo)
    if numbers[0] <= numbers[1]:
        torch.testing.assert_close(semi_policy_loss(found, strength), dpo)
        torch.testing.assert_close(semi_policy_loss(found, strength, "indicator"), dpo)


@given(FOUR)
def test_gradients_are_those_of_the_loss_at_a_fixed_side(numbers):
    if abs(numbers[0] - numbers[1]) < 1e-3:
        return
    found = Errors(*(each.requires_grad_() for each in errors(*numbers)))
    semi_policy_loss(found, 2.0).sum().backward()
    side = 1.0 if numbers[0] < numbers[1] else -1.0

    def at(*moved: float) -> float:
        return math.log1p(math.exp(2.0 * ((moved[0] - moved[1]) - side * (moved[2] - moved[3]))))

    for place in range(4):
        up, down = list(numbers), list(numbers)
        up[place] += 1e-6
        down[place] -= 1e-6
        assert float(found[place].grad) == pytest.approx((at(*up) - at(*down)) / 2e-6, abs=1e-6)


def test_the_checkpoints_sample_is_unlearned_only_while_it_is_losing():
    for numbers, expected in (((0.8, 1.0, 0.9, 0.5), -1), ((1.0, 0.8, 0.9, 0.5), 1)):
        found = Errors(*(each.requires_grad_() for each in errors(*numbers)))
        semi_policy_loss(found, 1.0).sum().backward()
        assert float(found.winner.grad) > 0
        assert math.copysign(1, float(found.sample.grad)) == expected


def test_a_sample_that_is_the_winner_says_nothing():
    found = errors(0.8, 1.0, 0.8, 1.0)
    assert float(semi_policy_loss(found, 3.0)) == pytest.approx(math.log(2))


def test_in_the_first_update_the_loss_is_log_two_and_still_has_a_gradient(model, winners):
    found = QUICK.errors(model, model.frozen(), winners, winners + 1, torch.Generator().manual_seed(1))
    loss = semi_policy_loss(found, 10.0)
    torch.testing.assert_close(loss.detach(), torch.full((30,), math.log(2)))
    loss.mean().backward()
    assert any(bool(parameter.grad.any()) for parameter in model.parameters())


def test_the_side_flips_where_the_model_comes_nearer_to_the_winner_than_the_checkpoint():
    schedule, winner = NoiseSchedule(20), torch.zeros(1, 1)

    class Point(Denoiser):
        """The exact denoiser of normal data around a point."""

        def __init__(self, mean: float) -> None:
            super().__init__(1, schedule)
            self.mean = mean

        def forward(self, noised: Tensor, time: Tensor) -> Tensor:
            signal = self.schedule.signal()[time].unsqueeze(-1)
            return (1 - signal).sqrt() * (noised - signal.sqrt() * self.mean) / (signal * 0.25 + 1 - signal)

    many = SemiPolicy(draws=20_000)
    for mean, losing in ((0.5, True), (0.9, True), (1.1, False), (-0.9, True), (-1.1, False)):
        found = many.errors(Point(mean), Point(1.0), winner, winner, torch.Generator().manual_seed(1000))
        assert bool(found.winner < found.winner_reference) is losing
        assert bool(many._losing(found)) is losing


def test_model_and_checkpoint_see_the_same_noise(model, winners):
    found = QUICK.errors(model, model, winners, winners, torch.Generator().manual_seed(1))
    assert torch.equal(found.winner, found.winner_reference)
    assert torch.equal(found.sample, found.sample_reference)
    assert not torch.equal(found.winner, found.sample)


# ---- checkpoints ----------------------------------------------------------------------------------------------------


def test_checkpoints_are_drawn_uniformly_and_the_first_is_the_initial_model(model):
    pool = [model, model.frozen(), model.frozen()]
    drawn = [pool.index(SemiPolicy().chosen(pool, 1000, update)) for update in range(9000)]
    counts = torch.bincount(torch.tensor(drawn), minlength=3)
    assert chisquare(counts.numpy()).pvalue > 1e-3
    assert SemiPolicy(reference="initial").chosen(pool, 1, 5) is pool[0]
    assert SemiPolicy(reference="latest").chosen(pool, 1, 5) is pool[2]


def test_a_checkpoint_is_saved_after_every_so_many_updates(model, winners):
    figures = QUICK.fit(model, winners)
    assert figures["checkpoints"] == 4
    assert figures["left_out"] == 0
    assert 0 <= figures["losing"] <= 1


def test_the_same_seed_trains_the_same(winners):
    trained = [Denoiser(2, NoiseSchedule(5), hidden=8, seed=1) for _ in range(2)]
    for each in trained:
        QUICK.fit(each, winners, seed=5)
    assert all(torch.equal(a, b) for a, b in zip(*(each.parameters() for each in trained), strict=True))


class Faulty(Denoiser):
    """Samples of which some, or all, are not numbers."""

    good = 10

    def sample(self, rows: int, source: torch.Generator) -> Tensor:
        drawn = super().sample(rows, source)
        drawn[self.good :] = math.nan
        return drawn


def test_samples_that_are_not_finite_are_passed_over_and_counted(winners):
    model = Faulty(2, NoiseSchedule(5), hidden=8)
    assert QUICK.fit(model, winners)["left_out"] == 6 / 16
    assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())
    model.good = 0
    with pytest.raises(BrokenRunError, match="no sample of update 0 is finite"):
        QUICK.fit(model, winners)


def test_bad_input_is_refused_in_one_line(model):
    for call, problem in (
        (lambda: SemiPolicy(strength=0), "seppo: strength=0 is not allowed"),
        (lambda: QUICK.fit(model, torch.zeros(0, 2)), "at least one"),
        (lambda: QUICK.fit(model, torch.full((3, 2), math.nan)), "finite"),
    ):
        with pytest.raises(InputError, match=problem):
            call()
