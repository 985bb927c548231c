"""MNPO, APO and SPO, held against numbers by hand and against their tables."""

from __future__ import annotations

import pytest
import torch

from stratagem import catalogue
from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.preferences import BradleyTerry, SingleVote
from stratagem.preferences.acceleration import APO
from stratagem.preferences.populations import MNPO
from stratagem.preferences.solvers import Exact, mixture
from stratagem.recipe import Recipe
from stratagem.recipes import apo, inpo, ipo, mnpo, spo

from .conftest import expected_batch, gradient, loss_of, oracle

WINS = torch.tensor([[0.5, 0.7, 0.2], [0.3, 0.5, 0.9], [0.8, 0.1, 0.5]], dtype=torch.float64)
POLICY = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
REFERENCE = torch.tensor([0.4, 0.4, 0.2], dtype=torch.float64)
BEFORE = torch.tensor([0.3, 0.3, 0.4], dtype=torch.float64)
EARLIER = torch.tensor([0.6, 0.1, 0.3], dtype=torch.float64)


@pytest.mark.parametrize("name", ["mnpo", "apo", "spo"])
def test_they_are_in_the_catalogue(name):
    card = catalogue.card(name)
    assert card.family == "preferences" and card.recipe().name == name
    assert Recipe.from_yaml(card.recipe().to_yaml()) == card.recipe()


# ---- MNPO -----------------------------------------------------------------------------------------------------------


def pair(**fields: object) -> Experience:
    """A chosen and a rejected answer of one token each."""
    known = {"action": [0, 1], "seed": [5, 7], "behavior_logp": [-1.0, -2.0], "reward": [1.0, 0.0]}
    return Experience.from_lengths([1, 1], [1, 1], [2], **known | fields)


def numbers() -> Experience:
    """Reference (-2, -2.5), the present policy (-1.5, -2.5) and the one before (-1.2, -2.2)."""
    return pair(
        ref_logp=torch.tensor([-2.0, -2.5]).double(),
        old_logp=torch.tensor([-1.5, -2.5]).double(),
        past_logp=torch.tensor([[-1.2], [-2.2]]).double(),
    )


def test_the_loss_of_mnpo_worked_by_hand():
    """``2 - 1/6 - 2/3 = 1.166667``, and ``(1.166667 - 66.666667)^2 = 4290.25``."""
    recipe = mnpo(preference=BradleyTerry(0), group_size=2)
    logp = torch.tensor([-1.0, -3.0], dtype=torch.float64)
    assert float(loss_of(recipe, numbers(), logp)) == pytest.approx(4290.25, rel=1e-6)


def test_opponents_change_places_with_their_shares():
    recipe = mnpo(0.5, shares=(0.2, 0.8), preference=BradleyTerry(0), group_size=2)
    turned = mnpo(0.5, shares=(0.8, 0.2), preference=BradleyTerry(0), group_size=2)
    x = numbers().replace(past_logp=torch.tensor([[-0.3], [-2.2]]).double())
    logp = torch.tensor([-1.0, -3.0], dtype=torch.float64)
    other = x.replace(old_logp=x.past_logp[:, 0], past_logp=x.old_logp.unsqueeze(1))
    assert float(loss_of(recipe, x, logp)) == pytest.approx(float(loss_of(turned, other, logp)))
    assert float(loss_of(recipe, x, logp)) != pytest.approx(float(loss_of(turned, x, logp)))


def test_with_the_reference_alone_it_is_ipo_and_with_one_opponent_inpo():
    logp = torch.tensor([-1.0, -3.0], dtype=torch.float64)
    alone = mnpo(0.25, reference=1.0, preference=BradleyTerry(0), group_size=2)
    assert float(loss_of(alone, numbers(), logp)) == pytest.approx(float(loss_of(ipo(0.25), numbers(), logp)))
    two = mnpo(0.5, reference=0.4, players=2, preference=BradleyTerry(0), group_size=2)
    theirs = inpo(0.5, 0.2, BradleyTerry(0), group_size=2)
    assert float(loss_of(two, numbers(), logp)) == pytest.approx(float(loss_of(theirs, numbers(), logp)))


@pytest.mark.parametrize("players", [2, 3, 5])
def test_opponents_that_are_the_same_count_as_one(players):
    logp = torch.tensor([-1.0, -3.0], dtype=torch.float64)
    x = numbers()
    same = x.replace(past_logp=x.old_logp.unsqueeze(1).expand(-1, players))
    recipe = mnpo(0.5, players=players, preference=BradleyTerry(0), group_size=2)
    expected = mnpo(0.5, players=2, preference=BradleyTerry(0), group_size=2)
    assert float(loss_of(recipe, same, logp)) == pytest.approx(float(loss_of(expected, x, logp)))


@pytest.mark.parametrize("shares", [(), (0.5, 0.3, 0.2)])
def test_the_least_loss_of_mnpo_is_the_step_of_the_table(shares):
    recipe = mnpo(0.5, players=4, shares=shares, preference=oracle(WINS))
    x = expected_batch(POLICY, REFERENCE)
    past = torch.stack([BEFORE.log(), EARLIER.log()], 1)
    x = x.replace(past_logp=past[x.action])
    solver = MNPO(0.5, 1 / 3, shares or (1.0, 1.0, 1.0))
    memory = torch.stack([POLICY.log(), BEFORE.log(), EARLIER.log()])
    following = solver.step(POLICY.log(), REFERENCE.log(), Exact(WINS), memory)
    torch.testing.assert_close(gradient(recipe, x, following), torch.zeros(3).double(), atol=1e-12, rtol=0)


def test_numbers_of_players_and_shares_outside_their_range_are_refused():
    with pytest.raises(InputError, match=r"players = 1, shares = \(\): must be at least 2"):
        mnpo(players=1)
    with pytest.raises(InputError, match="a share for all but one"):
        mnpo(players=3, shares=(1.0,))
    with pytest.raises(InputError, match="at least one must be above 0"):
        mnpo(players=3, shares=(0.0, 0.0))
    with pytest.raises(InputError, match="shares"):
        mnpo(players=3, shares=(1.0, -0.5))
    with pytest.raises(InputError, match=r"reference = 1\.5"):
        mnpo(reference=1.5)


# ---- APO ------------------------------------------------------------------------------------------------------------


def test_without_momentum_it_is_iterated_dpo_to_the_bit():
    x = expected_batch(POLICY, REFERENCE).replace(previous_logp=BEFORE.log()[expected_batch(POLICY, REFERENCE).action])
    recipe = apo(0.5, 0.0, preference=oracle(WINS))
    assert recipe.objective.anchor.needs() == frozenset()
    logp = EARLIER.log()
    h = 0.5 * (logp - POLICY.log())[x.action]
    label, apart = WINS[x.action][:, x.action], h.unsqueeze(1) - h
    pairs = torch.nn.functional.softplus(-apart) * label + torch.nn.functional.softplus(apart) * (1 - label)
    expected = pairs[~torch.eye(10, dtype=torch.bool)].mean()
    torch.testing.assert_close(loss_of(recipe, x, logp), expected)


@pytest.mark.parametrize("loss", ["logistic", "squared"])
def test_the_least_loss_of_apo_is_the_step_of_the_table(loss):
    """With pairs of ``pi^_t`` in place of ``pi_t``: the same where scores exist."""
    scores = torch.tensor([0.3, -0.4, 1.0], dtype=torch.float64)
    wins = torch.sigmoid(scores.unsqueeze(1) - scores) if loss == "logistic" else WINS
    x = expected_batch(POLICY, REFERENCE)
    x = x.replace(previous_logp=BEFORE.log()[x.action])
    recipe = apo(0.5, 0.3, loss, oracle(wins))
    carried = mixture([(1.3, POLICY.log()), (-0.3, BEFORE.log())])
    torch.testing.assert_close(APO(0.5).follow(BEFORE.log(), BEFORE.log(), POLICY.log()), carried)
    if loss == "logistic":
        following = APO(0.5).step(POLICY.log(), REFERENCE.log(), Exact(wins), carried)
    else:
        following = mixture([(1.0, carried), (1.0, WINS @ POLICY / 0.5)])
    torch.testing.assert_close(gradient(recipe, x, following), torch.zeros(3).double(), atol=1e-9, rtol=0)


def test_a_momentum_of_one_is_refused():
    with pytest.raises(InputError, match=r"momentum = 1: must be at least 0 and below 1"):
        apo(momentum=1)
    with pytest.raises(InputError, match="strength = 0: must be above 0"):
        apo(0)


# ---- SPO ------------------------------------------------------------------------------------------------------------


def test_the_expected_gradient_of_spo_is_that_of_the_win_rate_against_itself():
    """``E g = grad 2 P(pi > sg(pi))`` by enumeration of a table of three answers."""
    x = expected_batch(POLICY, REFERENCE, copies=1000)
    recipe = spo(oracle(WINS))
    logits = POLICY.log().clone().requires_grad_()
    value = 2 * (torch.softmax(logits, -1) * (WINS @ POLICY)).sum()
    expected = torch.autograd.grad(-value, logits)[0]
    torch.testing.assert_close(gradient(recipe, x, POLICY.log()), expected, atol=5e-3, rtol=0)


def test_any_credit_and_any_loss_may_follow_it():
    recipe = spo(SingleVote(BradleyTerry())).with_values({"advantage": "group_standardized"})
    assert recipe.advantage.part_name() == "group_standardized"
    x = expected_batch(POLICY, REFERENCE)
    assert bool(recipe.prepare(x).advantage.isfinite().all())
