"""Likelihoods by every mask, against formulas worked by hand, brute force, and the estimators they judge."""

from __future__ import annotations

import math
from itertools import permutations, product

import pytest
import torch

from stratagem.diffusion import Countdown, DiffusionInputs, MaskTable, mask_table, pretrain
from stratagem.diffusion.pretrain import canvases
from stratagem.errors import InputError
from stratagem.sampling import MaskedElbo, OneStep


def random_table(length: int, seed: int = 0) -> MaskTable:
    return MaskTable(-torch.rand(2, 1 << length, length, generator=torch.Generator().manual_seed(seed)).double())


def every_answer(policy) -> tuple[torch.Tensor, torch.Tensor]:
    """All 27 answers to one prompt."""
    tokens = torch.tensor([(0, 1, *answer) for answer in product(range(3), repeat=3)])
    return tokens, (torch.arange(5) >= 2).expand_as(tokens)


def quadrature(table: MaskTable, points: int) -> torch.Tensor:
    times, weights = MaskedElbo("gauss", points).quadrature()
    return sum(w * table.integrand(t) for t, w in zip(times.tolist(), weights.tolist(), strict=True))


def draws(likelihood, table: MaskTable, repeats: int) -> torch.Tensor:
    source = torch.Generator().manual_seed(0)
    chance = torch.rand(repeats, likelihood.evaluations, table.length, generator=source)
    clock = torch.rand(repeats, likelihood.evaluations, generator=source)
    response = torch.ones(repeats, table.length, dtype=torch.bool)
    return table.estimates(likelihood.views(response, chance, clock))


# ---- the ELBO -------------------------------------------------------------------------------------------------------


def two_tokens(a1: float, a2: float, b1: float, b2: float) -> MaskTable:
    """``a``: both hidden; ``b``: the other shown. What is not hidden is never read."""
    return MaskTable(torch.tensor([[[math.nan, math.nan], [b1, math.nan], [math.nan, b2], [a1, a2]]]))


def test_the_elbo_of_two_tokens_worked_by_hand():
    table = two_tokens(-1.0, -2.0, -0.25, -0.5)
    for time in (0.0, 0.3, 1.0):
        assert table.integrand(time).item() == pytest.approx((1 - time) * (-0.25 - 0.5) + time * (-1 - 2))
    # The mean over the two orders of generation: -1 - 0.5, and -2 - 0.25.
    assert table.elbo().item() == pytest.approx((-1.5 - 2.25) / 2)
    assert table.log_likelihood().item() == pytest.approx(math.log((math.exp(-1.5) + math.exp(-2.25)) / 2))
    for points in (1, 2, 3):
        assert quadrature(table, points).item() == pytest.approx(table.elbo().item())


@pytest.mark.parametrize(("points", "length"), [(1, 2), (2, 3), (2, 4), (3, 5), (3, 6)])
def test_n_nodes_are_exact_for_answers_of_up_to_2n_tokens_given_exact_masks(points, length):
    table = random_table(length)
    assert quadrature(table, points).tolist() == pytest.approx(table.elbo().tolist(), abs=1e-12)


@pytest.mark.parametrize(("points", "length"), [(1, 3), (2, 5), (3, 7)])
def test_n_nodes_are_not_exact_for_longer_answers(points, length):
    table = random_table(length)
    assert bool(((quadrature(table, points) - table.elbo()).abs() > 1e-6).all())


def test_the_likelihood_is_the_mean_over_all_orders():
    table = random_table(4)
    for answer in range(2):
        orders = []
        for order in permutations(range(4)):
            hidden, total = 15, 0.0
            for token in order:
                total += table.logp[answer, hidden, token].item()
                hidden -= 1 << token
            orders.append(math.exp(total))
        assert table.log_likelihood()[answer].item() == pytest.approx(math.log(sum(orders) / 24))


def test_the_elbo_of_a_policy_is_a_lower_bound_of_a_proper_likelihood(policy):
    table = mask_table(policy, *every_answer(policy))
    likelihood = table.log_likelihood()
    assert likelihood.exp().sum().item() == pytest.approx(1.0, abs=1e-5)
    assert bool((table.elbo() <= likelihood).all()) and bool((likelihood - table.elbo() > 1e-3).any())


def test_without_context_the_bound_is_tight():
    logp = torch.tensor([-0.5, -1.0, -2.0]).expand(1, 8, 3)
    assert MaskTable(logp).elbo().item() == pytest.approx(-3.5)
    assert MaskTable(logp).log_likelihood().item() == pytest.approx(-3.5)


# ---- estimates ------------------------------------------------------------------------------------------------------


def test_the_one_step_estimate_is_the_integrand_at_time_one_and_its_bias_is_known(policy):
    table = mask_table(policy, *every_answer(policy))
    estimate = draws(OneStep(prompt=0.0), table, 1).squeeze(1)
    assert estimate.tolist() == pytest.approx(table.integrand(1.0).tolist())
    assert estimate.tolist() == pytest.approx(table.logp[:, -1].sum(-1).tolist())
    assert bool(((table.integrand(1.0) - table.elbo()).abs() > 1e-3).any())


def test_counts_of_random_times_rounded_up_are_unbiased():
    table, estimates = random_table(4), []
    likelihood = MaskedElbo("random", 1, masks="count")
    for clock in (0.1, 0.3, 0.6, 0.9):  # One time for every count.
        for chance in permutations([0.1, 0.2, 0.3, 0.4]):
            views = likelihood.views(
                torch.ones(1, 4, dtype=torch.bool), torch.tensor([[chance]]), torch.tensor([[clock]])
            )
            estimates.append(table.estimates(views))
    assert torch.cat(estimates, 1).mean(1).tolist() == pytest.approx(table.elbo().tolist(), rel=1e-6)


@pytest.mark.parametrize("points", [1, 2])
def test_independent_masks_average_to_the_quadrature_of_the_integrand(points):
    table = random_table(4)
    estimates = draws(MaskedElbo("gauss", points), table, 20_000)
    error = estimates.std(1) / math.sqrt(20_000)
    assert bool(((estimates.mean(1) - quadrature(table, points)).abs() < 4 * error).all())


def test_two_nodes_have_less_error_than_two_random_times_on_a_trained_policy():
    task = Countdown(numbers=2)
    policy = pretrain(task, 1000, steps=60, demonstrations=256)
    tokens = canvases(task, "test", range(8))
    table = mask_table(policy, tokens, (torch.arange(8) >= task.prompt_length).expand_as(tokens))
    truth = table.elbo().unsqueeze(1)

    def error(rule: str) -> torch.Tensor:
        return (draws(MaskedElbo(rule, 2), table, 10_000) - truth).square().mean()

    assert error("gauss") < 0.9 * error("random")


def test_the_policy_and_the_table_agree_on_every_estimate(policy):
    tokens, response = every_answer(policy)
    table = mask_table(policy, tokens, response)
    likelihood = MaskedElbo("gauss", 3)
    chance, clock = torch.rand(27, 3, 5), torch.rand(27, 3)
    views = likelihood.views(response, chance, clock)
    said = policy.token_logp(DiffusionInputs(tokens, response, views.hidden, views.weight))
    by_policy = (views.weight.unsqueeze(-1) * said).sum((1, 2))
    own = likelihood.views(response[:, 2:], chance[:, :, 2:], clock)
    assert by_policy.tolist() == pytest.approx(table.estimates(own).diagonal().tolist(), abs=1e-4)


# ---- bad input ------------------------------------------------------------------------------------------------------


def test_a_table_needs_answers_of_one_length_that_can_be_enumerated(policy):
    tokens, response = every_answer(policy)
    uneven = response.clone()
    uneven[0, 4] = False
    with pytest.raises(InputError, match=r"lengths \[2, 3\]; it takes one length"):
        mask_table(policy, tokens, uneven)
    long = torch.zeros(1, 20, dtype=torch.int64)
    with pytest.raises(InputError, match=r"lengths \[20\]; it takes one length, from 1 to 12"):
        mask_table(policy, long, long == 0)
    with pytest.raises(InputError, match="3 tokens have 8 masks, not 7"):
        MaskTable(torch.zeros(1, 7, 3))
