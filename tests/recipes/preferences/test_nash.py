"""Nash-MD and mirror prox, held against their tables."""

from __future__ import annotations

import pytest
import torch

from stratagem import catalogue
from stratagem.errors import InputError
from stratagem.objectives import IterationStart, MovingAverage
from stratagem.preferences.measures import kl, win_rates
from stratagem.preferences.solvers import Exact, NashMP, mixture, solve
from stratagem.recipe import Recipe
from stratagem.recipes import inpo, nash_md, nash_mp

from .conftest import expected_batch, gradient, oracle

ROCK = torch.tensor([[0.5, 0, 1], [1, 0.5, 0], [0, 1, 0.5]], dtype=torch.float64)
POLICY = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
REFERENCE = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)


@pytest.mark.parametrize("name", ["nash_md", "nash_mp"])
def test_they_are_in_the_catalogue(name):
    card = catalogue.card(name)
    assert card.family == "preferences" and card.recipe().name == name
    assert Recipe.from_yaml(card.recipe().to_yaml()) == card.recipe()


@pytest.mark.parametrize("mixing", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("strength", [0.0, 0.3])
def test_the_expected_gradient_of_nash_md_is_that_of_the_regularised_preference(mixing, strength):
    """``E g = grad P(pi > sg(pi')) - tau grad KL(pi || mu)`` by enumeration of a table of three answers."""
    recipe = nash_md(strength, mixing, preference=oracle(ROCK), group_size=10)
    x = expected_batch(POLICY, REFERENCE, copies=1000)
    logits = POLICY.log().clone().requires_grad_()
    pi = torch.softmax(logits, -1)
    opponent = mixture([(1 - mixing, POLICY.log()), (mixing, REFERENCE.log())]).exp()
    value = (pi * win_rates(ROCK, opponent)).sum() - strength * kl(pi, REFERENCE)
    expected = torch.autograd.grad(-value, logits)[0]
    # A thousand answers play the 999 others.
    torch.testing.assert_close(gradient(recipe, x, POLICY.log()), expected, atol=2e-3, rtol=0)


def test_nash_ema_plays_an_average_and_is_pulled_by_the_policy_itself():
    recipe = nash_md(0.3, average=8.0, preference=oracle(ROCK))
    assert recipe.proximal == MovingAverage(8.0, reset_below=0.0)
    averaged = torch.tensor([0.1, 0.1, 0.8], dtype=torch.float64)
    x = expected_batch(POLICY, REFERENCE, copies=1000)
    x = x.replace(old_logp=averaged.log()[x.action])
    logits = POLICY.log().clone().requires_grad_()
    pi = torch.softmax(logits, -1)
    value = (pi * win_rates(ROCK, averaged)).sum() - 0.3 * kl(pi, REFERENCE)
    expected = torch.autograd.grad(-value, logits)[0]
    torch.testing.assert_close(gradient(recipe, x, POLICY.log()), expected, atol=2e-3, rtol=0)


def test_the_kl_may_be_taken_token_by_token():
    assert nash_md(0.3, unit="token").flat()["advantage.terms.scaled_advantage.term.unit"] == "token"


def test_numbers_outside_their_range_are_refused():
    with pytest.raises(InputError, match=r"mixing = 1.5: must be in \[0, 1\]"):
        nash_md(mixing=1.5)
    with pytest.raises(InputError, match="strength = 0: must be above 0"):
        nash_mp(strength=0)
    with pytest.raises(InputError, match="step_size = -1: must be above 0"):
        nash_mp(step_size=-1)


# ---- mirror prox ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step_size", [None, 0.05])
def test_both_steps_of_mirror_prox_are_least_losses(step_size):
    """From ``pi_k``: the first batch's least loss is the half step, and the second's the full one of the table."""
    strength = 0.1
    recipe = nash_mp(strength, step_size, oracle(ROCK))
    assert recipe.proximal == IterationStart(2)
    half = after(POLICY, strength, step_size)
    first = expected_batch(POLICY, REFERENCE)
    torch.testing.assert_close(gradient(recipe, first, half.log()), torch.zeros(3).double(), atol=1e-12, rtol=0)
    # The second batch is of the policy by then, here of one near it, which copies of answers can stand for.
    near = (half * 2000).round() / 2000
    near[0] += 1 - near.sum()
    full = after(near, strength, step_size)
    second = expected_batch(near, REFERENCE, copies=2000)
    second = second.replace(old_logp=POLICY.log()[second.action])
    torch.testing.assert_close(gradient(recipe, second, full.log()), torch.zeros(3).double(), atol=1e-12, rtol=0)
    table = solve(NashMP(strength, step_size), Exact(ROCK), REFERENCE, 1, POLICY).last
    torch.testing.assert_close(full, table, atol=1e-3, rtol=0)


def after(opponent: torch.Tensor, strength: float, step_size: float | None) -> torch.Tensor:
    """``argmax_pi P(pi > q) - beta KL(pi || mu) - (beta / eta) KL(pi || pi_k)``."""
    eta = 2 * strength if step_size is None else step_size
    anchor = mixture([(eta / (1 + eta), REFERENCE.log()), (1 / (1 + eta), POLICY.log())])
    return torch.softmax(anchor + eta / (strength * (1 + eta)) * win_rates(ROCK, opponent), -1)


def test_a_step_of_mirror_prox_is_one_of_inpo_with_another_clock():
    """Nash-MP differs from INPO by what ``pi_k`` is in every second batch, and by how the step is written."""
    strength, eta = 0.1, 0.2
    ours, theirs = nash_mp(strength), inpo(strength * (1 + eta) / eta, strength, epochs=4, minibatches=2)
    changed = {change.path for change in ours.diff(theirs)}
    assert changed <= {
        "optimization.learning_rate",
        "proximal",
        "proximal.every",
        "objective.anchor.reference",
        "objective.gain",
    }
    assert ours.objective.gain == pytest.approx(theirs.objective.gain)
    assert ours.objective.anchor.reference == pytest.approx(theirs.objective.anchor.reference)
