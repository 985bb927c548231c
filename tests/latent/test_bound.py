"""How well latent states explain a trace."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stratagem.errors import InputError
from stratagem.latent import elbo, exact_posterior, log_likelihood, mean_field

START = torch.tensor([0.7, 0.3], dtype=torch.float64)
TRANSITION = torch.tensor([[0.9, 0.1], [0.4, 0.6]], dtype=torch.float64)
EMISSION = torch.tensor([[0.5, 0.1], [0.2, 0.7], [0.3, 0.4]], dtype=torch.float64).log()


def enumerated() -> float:
    total = 0.0
    for path in product(range(2), repeat=3):
        odds = 1.0
        for step, state in enumerate(path):
            odds *= float(START[state] if step == 0 else TRANSITION[path[step - 1], state])
            odds *= float(EMISSION[step, state].exp())
        total += odds
    return float(torch.tensor(total, dtype=torch.float64).log())


def test_the_likelihood_is_that_of_all_eight_paths():
    assert float(log_likelihood(EMISSION, START, TRANSITION)) == pytest.approx(enumerated())


@given(st.lists(st.floats(0.01, 0.99), min_size=3, max_size=3))
def test_the_bound_is_never_above_the_likelihood(odds):
    q = torch.tensor([[p, 1 - p] for p in odds], dtype=torch.float64)
    assert float(elbo(EMISSION, START, TRANSITION, mean_field(q))) <= enumerated() + 1e-12


def test_the_bound_is_the_likelihood_for_the_exact_posterior():
    posterior = exact_posterior(EMISSION, START, TRANSITION)
    torch.testing.assert_close(posterior.sum(-1), torch.ones(3, 2, dtype=torch.float64))
    assert float(elbo(EMISSION, START, TRANSITION, posterior)) == pytest.approx(enumerated())


def test_a_posterior_that_is_only_marginally_right_leaves_a_gap():
    posterior = exact_posterior(EMISSION, START, TRANSITION)
    marginals, held = [], posterior[0, 0]
    for step in range(3):
        held = posterior[0, 0] if step == 0 else held @ posterior[step]
        marginals.append(held)
    gap = enumerated() - float(elbo(EMISSION, START, TRANSITION, mean_field(torch.stack(marginals))))
    assert gap > 1e-3


def test_naming_the_states_otherwise_changes_nothing():
    order = torch.tensor([1, 0])
    posterior = exact_posterior(EMISSION, START, TRANSITION)
    q = mean_field(torch.tensor([[0.3, 0.7], [0.5, 0.5], [0.9, 0.1]], dtype=torch.float64))
    renamed = (EMISSION[:, order], START[order], TRANSITION[order][:, order])
    assert float(log_likelihood(*renamed)) == pytest.approx(enumerated())
    assert float(elbo(*renamed, posterior[:, order][:, :, order])) == pytest.approx(enumerated())
    expected = float(elbo(EMISSION, START, TRANSITION, q))
    assert float(elbo(*renamed, q[:, order][:, :, order])) == pytest.approx(expected)


def test_a_trace_without_steps_has_no_bound():
    nothing = torch.zeros(0, 2, dtype=torch.float64)
    assert float(log_likelihood(nothing, START, TRANSITION)) == 0
    assert exact_posterior(nothing, START, TRANSITION).shape == (0, 2, 2)
    assert float(elbo(nothing, START, TRANSITION, torch.zeros(0, 2, 2, dtype=torch.float64))) == 0


def test_a_transition_ruled_out_costs_much_and_not_everything():
    never = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64, requires_grad=True)
    q = mean_field(torch.tensor([[0.0, 1.0]] * 3, dtype=torch.float64))
    bound = elbo(EMISSION, START, never, q)
    assert bound.isfinite() and float(bound.detach()) < 2 * float(torch.tensor(1e-6).log())
    bound.backward()
    assert never.grad is not None and never.grad.isfinite().all()


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match=r"^latent states: emission has shape"):
        log_likelihood(EMISSION, START, TRANSITION[:1])
    with pytest.raises(InputError, match=r"^elbo: posterior has shape"):
        elbo(EMISSION, START, TRANSITION, mean_field(torch.full((2, 2), 0.5)))
