"""The PAC-Bayes bound: numbers worked by hand, its terms, and that it holds."""

from __future__ import annotations

import math

import pytest
import torch

from stratagem.errors import InputError
from stratagem.lab import gaussian_kl, pac_bayes_bound


def test_the_bound_by_hand():
    """100 tasks, delta 1/20: ln(2 * 10 * 20) = ln 400."""
    assert pac_bayes_bound(0.0, 5.0, 100).value == pytest.approx(0.234430, abs=1e-6)
    assert pac_bayes_bound(0.0, 0.0, 100).value == pytest.approx(math.sqrt(math.log(400) / 200), abs=1e-12)
    assert pac_bayes_bound(0.0, 0.0, 100).complexity == pytest.approx(0.173082, abs=1e-6)


def test_its_terms_add_up():
    bound = pac_bayes_bound(0.2, 5.0, 100, shift=0.1)
    assert bound.value == pytest.approx(0.2 + bound.complexity + 0.1)
    assert (bound.empirical, bound.kl, bound.tasks, bound.shift) == (0.2, 5.0, 100, 0.1)
    assert not bound.vacuous


def test_it_falls_with_tasks_and_rises_with_distance_and_certainty():
    values = [pac_bayes_bound(0.1, 2.0, tasks).value for tasks in (10, 100, 1000)]
    assert values == sorted(values, reverse=True)
    assert pac_bayes_bound(0.1, 3.0, 10).value > pac_bayes_bound(0.1, 2.0, 10).value
    assert pac_bayes_bound(0.1, 2.0, 10, delta=0.01).value > pac_bayes_bound(0.1, 2.0, 10, delta=0.1).value


def test_a_bound_of_one_and_more_is_called_vacuous():
    assert pac_bayes_bound(0.5, 100.0, 10).vacuous
    assert not pac_bayes_bound(0.0, 0.0, 10).vacuous


def test_it_holds_for_a_posterior_chosen_after_the_data():
    """Two hypotheses of true loss 0.3 and 0.5 and a uniform prior; the posterior takes the better looking one."""
    source = torch.Generator().manual_seed(0)
    losses = torch.rand((5000, 20, 2), generator=source) < torch.tensor([0.3, 0.5])
    seen = losses.double().mean(1)
    chosen = seen.argmin(1)
    true = torch.tensor([0.3, 0.5])[chosen]
    complexity = pac_bayes_bound(0.0, math.log(2), 20, delta=0.2).complexity
    failures = true > seen.gather(1, chosen.unsqueeze(1)).squeeze(1) + complexity
    assert float(failures.double().mean()) <= 0.2


def test_the_divergence_of_gaussians_is_the_squared_distance():
    now = [torch.tensor([1.0, 2.0]), torch.tensor([[3.0]])]
    before = [torch.tensor([0.0, 0.0]), torch.tensor([[1.0]])]
    assert gaussian_kl(now, before, 1.0) == pytest.approx((1 + 4 + 4) / 2)
    assert gaussian_kl(now, before, 3.0) == pytest.approx(0.5)
    assert gaussian_kl(now, now, 0.1) == 0


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"tasks": 1}, "tasks = 1: must be at least 2"),
        ({"delta": 0.0}, "delta = 0.0: must be between 0 and 1"),
        ({"delta": 1.0}, "delta = 1.0"),
        ({"kl": -1.0}, "kl = -1.0"),
        ({"kl": math.inf}, "kl = inf"),
        ({"empirical": 1.5}, r"empirical = 1.5: must be in \[0, 1\]"),
        ({"shift": -0.1}, "shift = -0.1"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments, problem):
    with pytest.raises(InputError, match=f"pac_bayes_bound: {problem}"):
        pac_bayes_bound(**{"empirical": 0.1, "kl": 1.0, "tasks": 10, **arguments})
    with pytest.raises(InputError, match="sigma = 0: must be above 0"):
        gaussian_kl([torch.ones(1)], [torch.ones(1)], 0)
