"""Which tokens an estimate hides and what each counts, worked by hand."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch

from stratagem.errors import InputError
from stratagem.sampling import Likelihood, MaskedElbo, OneStep, Views


def views(
    likelihood: Likelihood, length: int, chance: list | None = None, clock: float = 0.5, prompt: int = 0
) -> Views:
    """Of one answer of this length after a prompt; ``chance`` is of every view alike."""
    positions = prompt + length
    row = torch.linspace(0.05, 0.95, positions) if chance is None else torch.tensor(chance)
    response = torch.arange(positions) >= prompt
    return likelihood.views(
        response.unsqueeze(0),
        row.expand(1, likelihood.evaluations, positions),
        torch.full((1, likelihood.evaluations), clock),
    )


# ---- rules in time --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("points", "degree"), [(1, 1), (2, 3), (3, 5), (4, 7)])
def test_gauss_nodes_integrate_polynomials_up_to_degree_2n_minus_1_and_no_further(points, degree):
    times, weights = MaskedElbo("gauss", points).quadrature()
    for power in range(degree + 1):
        assert (weights * times**power).sum() == pytest.approx(1 / (power + 1), abs=1e-12)
    assert (weights * times ** (degree + 1)).sum() != pytest.approx(1 / (degree + 2), abs=1e-5)


def test_the_nodes_of_two_and_three_points_worked_by_hand():
    times, weights = MaskedElbo("gauss", 2).quadrature()
    assert times == pytest.approx([0.211325, 0.788675], abs=1e-6) and weights == pytest.approx([0.5, 0.5])
    assert (weights * times**4).sum() == pytest.approx(0.194444, abs=1e-6)
    times, weights = MaskedElbo("gauss", 3).quadrature()
    assert times == pytest.approx([0.112702, 0.5, 0.887298], abs=1e-6)
    assert weights == pytest.approx([5 / 18, 8 / 18, 5 / 18])


def test_simpsons_times_and_weights():
    times, weights = MaskedElbo("simpson").quadrature()
    assert times.tolist() == [0.1, 0.5, 1.0] and weights == pytest.approx([1 / 6, 4 / 6, 1 / 6])


# ---- independent masks ----------------------------------------------------------------------------------------------


def test_a_token_is_hidden_when_its_chance_is_below_the_time():
    said = views(MaskedElbo("gauss", 2), 4, [0.1, 0.3, 0.7, 0.9])
    assert said.hidden[0].tolist() == [[True, False, False, False], [True, True, True, False]]
    assert said.weight[0].tolist() == pytest.approx([0.5 / 0.211325, 0.5 / 0.788675], rel=1e-5)


def test_a_view_that_hides_nothing_counts_nothing():
    said = views(MaskedElbo("gauss", 1), 2, [0.6, 0.9])
    assert not said.hidden.any() and said.weight.isfinite().all()


def test_several_masks_at_one_time_share_its_weight():
    said = views(MaskedElbo("gauss", 2, samples=3), 2)
    assert said.weight[0].tolist() == pytest.approx([0.5 / 0.211325 / 3] * 3 + [0.5 / 0.788675 / 3] * 3, rel=1e-5)


def test_random_times_lie_between_the_least_and_one_and_their_masks_share_them():
    likelihood = MaskedElbo("random", points=2, samples=2, least_time=0.2)
    clock = torch.tensor([[0.0, 0.9, 0.5, 0.1]])
    said = likelihood.views(torch.ones(1, 3, dtype=torch.bool), torch.rand(1, 4, 3), clock)
    assert said.weight[0].tolist() == pytest.approx([0.25 / 0.2] * 2 + [0.25 / 0.6] * 2)


def test_no_prompt_token_is_ever_hidden_by_the_elbo():
    for masks in ("independent", "count"):
        said = views(MaskedElbo("gauss", 3, masks=masks), 4, [0.0] * 7, prompt=3)
        assert not said.hidden[..., :3].any() and said.hidden[..., 3:].any()


# ---- a fixed number of masks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("points", "rounding", "counts"),
    [
        (2, "nearest", [2, 8]),
        (2, "down", [2, 7]),
        (2, "up", [3, 8]),
        (3, "nearest", [1, 5, 9]),
        (3, "down", [1, 5, 8]),
        (3, "up", [2, 5, 9]),
    ],
)
def test_how_many_of_ten_tokens_each_node_hides(points, rounding, counts):
    said = views(MaskedElbo("gauss", points, masks="count", rounding=rounding), 10)
    assert said.hidden[0].sum(-1).tolist() == counts


def test_the_tokens_of_smallest_chance_are_hidden_and_at_least_one_is():
    said = views(MaskedElbo("gauss", 2, masks="count", rounding="down"), 4, [0.8, 0.2, 0.4, 0.6])
    # 0.21 * 4 and 0.79 * 4 round down to 0, of which one is made, and 3.
    assert said.hidden[0].tolist() == [[False, True, False, False], [False, True, True, True]]
    assert said.weight[0].tolist() == pytest.approx([0.5 * 4, 0.5 * 4 / 3])


@pytest.mark.parametrize("length", [1, 2])
def test_of_a_short_answer_no_more_than_all_is_hidden(length):
    for rounding in ("up", "nearest", "down"):
        said = views(MaskedElbo("gauss", 3, masks="count", rounding=rounding), length)
        assert bool((said.hidden.sum(-1) >= 1).all()) and bool((said.hidden.sum(-1) <= length).all())


@pytest.mark.parametrize("rule", ["gauss", "simpson", "random"])
@pytest.mark.parametrize("rounding", ["up", "nearest", "down"])
def test_without_context_the_mean_over_masks_is_the_likelihood_whatever_the_rule(rule, rounding):
    likelihood = MaskedElbo(rule, 3, masks="count", rounding=rounding)
    logp = torch.tensor([-0.1, -0.7, -1.5, -2.0])
    estimates = []
    for chance in permutations([0.1, 0.2, 0.3, 0.4]):
        said = views(likelihood, 4, list(chance), clock=0.3)
        estimates.append((said.weight * (said.hidden * logp).sum(-1)).sum())
    assert torch.stack(estimates).mean().item() == pytest.approx(logp.sum().item(), rel=1e-6)


@pytest.mark.parametrize(
    ("points", "rounding", "factor"),
    [(2, "nearest", 0.980385), (3, "nearest", 0.972670), (2, "down", 0.916986), (3, "down", 0.941363)],
)
def test_weighted_by_the_time_a_fixed_count_is_off_by_a_constant_factor(points, rounding, factor):
    said = views(MaskedElbo("gauss", points, masks="count_by_time", rounding=rounding), 10)
    assert (said.weight * said.hidden.sum(-1)).sum().item() / 10 == pytest.approx(factor, abs=2e-6)


def test_a_time_that_gives_an_integer_count_gives_it_under_every_rounding():
    for rounding in ("up", "nearest", "down"):
        said = views(MaskedElbo("simpson", masks="count", rounding=rounding), 30)
        assert said.hidden[0].sum(-1).tolist() == [3, 15, 30]


# ---- one step -------------------------------------------------------------------------------------------------------


def test_one_step_hides_the_whole_answer_and_some_of_the_prompt():
    said = views(OneStep(prompt=0.15, samples=2), 2, [0.1, 0.2, 0.1, 0.9], prompt=2)
    assert said.hidden[0].tolist() == [[True, False, True, True]] * 2 and said.weight[0].tolist() == [0.5, 0.5]
    assert not views(OneStep(prompt=0.0), 2, [0.0] * 4, prompt=2).hidden[..., :2].any()


# ---- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MaskedElbo("simpson", points=2), r"masked_elbo.points = 2: the rule simpson has 3"),
        (lambda: MaskedElbo("gauss", points=0), r"masked_elbo.points = 0: "),
        (lambda: MaskedElbo(samples=0), r"masked_elbo.samples = 0: "),
        (lambda: MaskedElbo(least_time=0.0), r"masked_elbo.least_time = 0.0: "),
        (lambda: MaskedElbo("monte_carlo"), r"masked_elbo.rule = 'monte_carlo': "),
        (lambda: OneStep(prompt=1.0), r"one_step.prompt = 1.0: "),
    ],
)
def test_a_value_out_of_range_is_refused_in_one_line(build, message):
    with pytest.raises(InputError, match=message):
        build()
