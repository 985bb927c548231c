"""SPPO and INPO, held against their tables."""

from __future__ import annotations

import pytest
import torch

from stratagem import catalogue
from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.preferences import BradleyTerry, SingleVote
from stratagem.preferences.measures import win_rates
from stratagem.preferences.solvers import INPO, Exact, solve
from stratagem.recipe import Recipe
from stratagem.recipes import inpo, sppo

from .conftest import expected_batch, gradient, loss_of, oracle

WINS = torch.tensor([[0.5, 0.7, 0.2], [0.3, 0.5, 0.9], [0.8, 0.1, 0.5]], dtype=torch.float64)
POLICY = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
REFERENCE = torch.tensor([0.4, 0.4, 0.2], dtype=torch.float64)
TWO = torch.tensor([[0.5, 0.8], [0.2, 0.5]], dtype=torch.float64)
EVEN = torch.tensor([0.5, 0.5], dtype=torch.float64)


def some_policies(responses: int = 3) -> torch.Tensor:
    source = torch.Generator().manual_seed(3)
    return torch.log_softmax(torch.randn(3, responses, generator=source, dtype=torch.float64), -1)


@pytest.mark.parametrize("name", ["sppo", "inpo"])
def test_they_are_in_the_catalogue(name):
    card = catalogue.card(name)
    assert card.family == "preferences" and card.recipe().name == name
    assert Recipe.from_yaml(card.recipe().to_yaml()) == card.recipe()


# ---- SPPO -----------------------------------------------------------------------------------------------------------


def test_the_loss_of_sppo_worked_by_hand():
    x = expected_batch(EVEN, EVEN, copies=2)
    recipe = sppo(1.0, oracle(TWO), group_size=2)
    assert recipe.advantage(x).tolist() == pytest.approx([0.15, -0.15])
    assert float(loss_of(recipe, x, EVEN.log())) == pytest.approx(0.0225)


def test_the_least_loss_of_sppo_worked_by_hand():
    x = expected_batch(EVEN, EVEN, copies=2)
    recipe = sppo(1.0, oracle(TWO), group_size=2)
    least = torch.tensor([0.573652, 1 - 0.573652], dtype=torch.float64).log()
    torch.testing.assert_close(gradient(recipe, x, least), torch.zeros(2).double(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("step_size", [0.3, 1000.0])
def test_where_an_iteration_begins_the_gradient_is_that_of_the_expected_win_rate(step_size):
    x = expected_batch(POLICY, REFERENCE)
    found = gradient(sppo(step_size, oracle(WINS)), x, POLICY.log())
    logits = POLICY.log().clone().requires_grad_()
    value = (torch.softmax(logits, -1) * win_rates(WINS, POLICY)).sum()
    expected = torch.autograd.grad(-2 * step_size * value, logits)[0]
    torch.testing.assert_close(found, expected)


def test_the_loss_of_sppo_is_least_at_multiplicative_weights_but_for_their_constant():
    """Unnormalised: the log-ratios of the table's step less the 1/2 that stands for ``log Z / eta`` leave no loss."""
    x = expected_batch(POLICY, REFERENCE)
    recipe = sppo(0.7, oracle(WINS))
    fitted = POLICY.log() + 0.7 * (win_rates(WINS, POLICY) - 0.5)
    assert float(loss_of(recipe, x, fitted)) == pytest.approx(0, abs=1e-24)
    assert float(loss_of(recipe, x, fitted + 0.1)) == pytest.approx(0.01)


def test_the_extremes_alone_are_fitted_to_their_win_rates_over_the_group():
    scores = torch.tensor([2.0, 1.0, 0.0, -1.0, -2.0], dtype=torch.float64)
    ones = [1] * 10
    x = Experience.from_lengths(ones, ones, [5, 5], reward=torch.cat([scores, torch.zeros(5)]), action=torch.arange(10))
    recipe = sppo(1.0, answers="extremes")
    found = recipe.objective(PolicyOutput(torch.full((10,), -1.0)), recipe.prepare(x))
    # Two answers of the first group count; in the second all have won the same.
    assert float(found.loss) == pytest.approx(0.30929**2, abs=1e-5)
    assert float(sppo(1.0).objective(PolicyOutput(torch.full((10,), -1.0)), recipe.prepare(x)).loss) == pytest.approx(
        (2 * 0.30929**2 + 2 * 0.16667**2) / 10, abs=1e-5
    )


# ---- INPO -----------------------------------------------------------------------------------------------------------


def test_the_least_loss_of_inpo_is_the_step_of_the_table():
    x = expected_batch(POLICY, REFERENCE)
    recipe = inpo(0.5, 0.2, oracle(WINS))
    following = solve(INPO(0.2, 0.5), Exact(WINS), REFERENCE, 1, POLICY).last
    expected = torch.tensor([0.269590, 0.537365, 0.193045], dtype=torch.float64)
    torch.testing.assert_close(following, expected, atol=1e-6, rtol=0)
    assert float(loss_of(recipe, x, following.log())) == pytest.approx(0, abs=1e-24)
    assert min(float(loss_of(recipe, x, logp)) for logp in some_policies()) > 0.01


def test_votes_have_the_loss_of_win_rates_but_for_a_constant():
    """Over all ordered pairs and both votes, ``E (h - 1 / (2 eta))^2`` is 0.9272 above the loss of win rates."""
    eta, tau = 0.5, 0.2
    recipe = inpo(eta, tau, oracle(WINS))
    copies = 10
    x = expected_batch(POLICY, REFERENCE, copies)
    for logp in some_policies():
        h = logp - tau / eta * REFERENCE.log() - (1 - tau / eta) * POLICY.log()
        apart = h.unsqueeze(1) - h
        pairs = POLICY.unsqueeze(1) * POLICY
        votes = WINS * (apart - 1 / (2 * eta)).square() + (1 - WINS) * (-apart - 1 / (2 * eta)).square()
        binary = (pairs * votes).sum()
        # Of pairs drawn without replacement; with replacement some are of a copy with itself, and have no loss.
        ours = loss_of(recipe, x, logp) * (copies - 1) / copies
        assert float(binary - ours) == pytest.approx(0.9272, abs=1e-4)


def test_with_equal_numbers_it_is_ipo():
    """One anchor, the reference, and targets of ``1 / (2 tau)`` on votes, whatever the last policy was."""
    tau, ones = 0.25, [1, 1]
    x = Experience.from_lengths(
        ones,
        ones,
        [2],
        reward=[1.0, 0.0],
        action=[0, 1],
        seed=[5, 7],
        behavior_logp=[-1.0, -2.0],
        ref_logp=[-1.5, -0.5],
    )
    recipe = inpo(tau, tau, SingleVote(BradleyTerry(0)), group_size=2)
    logp = torch.tensor([-0.3, -1.1])
    apart = (-0.3 + 1.5) - (-1.1 + 0.5)
    assert float(loss_of(recipe, x, logp)) == pytest.approx((apart - 1 / (2 * tau)) ** 2, rel=1e-5)


def test_a_constant_of_the_prompt_changes_inpo_nothing_and_sppo_something():
    x = expected_batch(POLICY, REFERENCE)
    logp = some_policies()[0]
    for recipe, same in ((inpo(0.5, 0.2, oracle(WINS)), True), (sppo(1.0, oracle(WINS)), False)):
        plain, moved = loss_of(recipe, x, logp), loss_of(recipe, x, logp + 0.3)
        assert torch.isclose(plain, moved) == same
    shifted = x.replace(ref_logp=x.ref_logp + 0.7)
    recipe = inpo(0.5, 0.2, oracle(WINS))
    torch.testing.assert_close(loss_of(recipe, shifted, logp), loss_of(recipe, x, logp))


def test_votes_point_where_probabilities_do():
    """Many groups of answers drawn by the policy, one vote on each pair: the gradient is that of the table's loss."""
    source = torch.Generator().manual_seed(1)
    groups = 60_000
    action = torch.multinomial(POLICY, 2 * groups, replacement=True, generator=source)
    ones = torch.ones(2 * groups, dtype=torch.int64)
    x = Experience.from_lengths(
        ones,
        ones,
        torch.full((groups,), 2),
        action=action,
        answer=action,
        reward=torch.zeros(2 * groups, dtype=torch.float64),
        seed=torch.arange(2 * groups),
        behavior_logp=POLICY.log()[action],
        old_logp=POLICY.log()[action],
        ref_logp=REFERENCE.log()[action],
    )
    logp = some_policies()[1]
    found = gradient(inpo(0.5, 0.2, SingleVote(oracle(WINS)), group_size=2), x, logp)
    exact = gradient(inpo(0.5, 0.2, oracle(WINS)), expected_batch(POLICY, REFERENCE), logp) * 9 / 10
    torch.testing.assert_close(found, exact, atol=0.05 * float(exact.norm()), rtol=0)


def test_numbers_outside_their_range_are_refused():
    with pytest.raises(InputError, match=r"strength = 0\.6: must be at least 0 and at most inverse_step = 0\.5"):
        inpo(0.5, 0.6)
    with pytest.raises(InputError, match="gain = -1"):
        sppo(-1)
