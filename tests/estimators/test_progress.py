"""Contributions of turns that add up to the return: the loss, its gradient, and what it can tell apart."""

from __future__ import annotations

import math

import pytest
import torch

from stratagem.errors import InputError
from stratagem.estimators import ReturnDecomposition
from stratagem.experience import Experience


def said(*contributions: float) -> dict[str, torch.Tensor]:
    return {"progress": torch.tensor(contributions, dtype=torch.float64).unsqueeze(1).requires_grad_()}


def episodes(turns: list[int], returns: list[float], **fields: object) -> Experience:
    """One token for each turn, one group of all trajectories."""
    return Experience.from_lengths([1] * sum(turns), turns, [len(turns)], reward=torch.tensor(returns), **fields)


def test_the_loss_is_the_mean_square_of_what_the_sums_miss():
    x = episodes([2, 1], [1.0, 0.0])
    loss = ReturnDecomposition().loss(said(0.2, 0.3, 0.1), {}, x)
    assert loss.item() == pytest.approx((0.5**2 + 0.1**2) / 2)


def test_every_turn_of_a_trajectory_gets_twice_the_error_as_its_gradient():
    x, spoken = episodes([4], [1.0]), said(0.1, 0.4, 0.5, 0.3)
    ReturnDecomposition().loss(spoken, {}, x).backward()
    torch.testing.assert_close(spoken["progress"].grad, torch.full((4, 1), 2 * (1.3 - 1.0), dtype=torch.float64))


def test_counts_of_events_that_vary_tell_their_contributions_apart():
    """With ``R = 0.3 keys + 0.7 doors`` least squares have one solution, (0.3, 0.7), and the loss is 0 there."""
    source = torch.Generator().manual_seed(0)
    counts = torch.randint(0, 4, (50, 2), generator=source)
    turns = counts.sum(1) + 1
    event = [kind for keys, doors in counts.tolist() for kind in [0] * keys + [1] * doors + [2]]
    x = episodes(turns.tolist(), (counts.double() @ torch.tensor([0.3, 0.7]).double()).tolist())
    x = x.replace(reward=x.reward.double())
    occurred = torch.nn.functional.one_hot(torch.tensor(event), 3)[:, :2].double()
    weights = torch.zeros(2, dtype=torch.float64, requires_grad=True)

    def loss(at: torch.Tensor) -> torch.Tensor:
        return ReturnDecomposition().loss({"progress": (occurred @ at).unsqueeze(1)}, {}, x)

    slope = torch.autograd.grad(loss(weights), weights)[0]
    curvature = torch.autograd.functional.hessian(loss, weights)
    found = -torch.linalg.solve(curvature, slope)
    torch.testing.assert_close(found, torch.tensor([0.3, 0.7], dtype=torch.float64), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("left_out", "expected"), [("running", (1 + 4) / 2), ("truncated", 1.0)])
def test_what_was_cut_is_left_out_as_far_as_is_asked_for(left_out, expected):
    x = episodes([1, 1, 1], [1.0, 2.0, 5.0], truncated=[False, True, True], running=[False, False, True])
    loss = ReturnDecomposition(left_out=left_out).loss(said(0.0, 0.0, 0.0), {}, x)
    assert loss.item() == pytest.approx(expected)


def test_a_trajectory_without_a_token_is_no_lesson():
    x = Experience.from_lengths([1, 0], [1, 0, 1], [3], reward=torch.tensor([1.0, 9.0, 9.0]))
    assert ReturnDecomposition().loss(said(0.0, 0.0), {}, x).item() == 1.0


def test_a_single_turn_has_to_be_the_return():
    spoken = said(0.25)
    ReturnDecomposition().loss(spoken, {}, episodes([1], [1.0])).backward()
    assert float(spoken["progress"].grad) == -1.5


def test_figures_say_how_near_the_sums_are_and_whether_there_was_anything_to_learn():
    x = episodes([2, 1, 1], [1.0, 0.0, 2.0])
    figures = ReturnDecomposition().figures(said(0.5, 0.55, 0.5, 2.0), x)
    assert figures == pytest.approx(
        {"mse": (0.05**2 + 0.25) / 3, "mae": 0.55 / 3, "near": 2 / 3, "outside": 1 / 3, "uninformative": 0.0}
    )
    alike = ReturnDecomposition().figures(said(0.5, 0.5), episodes([1, 1], [1.0, 1.0]))
    assert alike["uninformative"] == 1.0
    cut = episodes([1], [1.0], running=[True])
    assert ReturnDecomposition().figures(said(0.5), cut) == {"uninformative": 1.0}
    assert ReturnDecomposition().loss(said(0.5), {}, cut).item() == 0.0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_return_that_is_no_number_is_named(bad):
    with pytest.raises(ValueError, match=r"return_decomposition: trajectory 1 has return (nan|inf): must be finite"):
        ReturnDecomposition().loss(said(0.0, 0.0), {}, episodes([1, 1], [0.0, bad]))


def test_numbers_out_of_range_are_refused():
    with pytest.raises(InputError, match=r"return_decomposition.steps = -1"):
        ReturnDecomposition(steps=-1)
    with pytest.raises(InputError, match=r"return_decomposition.left_out = 'all'"):
        ReturnDecomposition(left_out="all")
