"""DPO, IPO and KTO on labelled answers, held against numbers by hand and against tables."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from stratagem import catalogue
from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.objectives import ProspectUtility
from stratagem.preferences import BradleyTerry, Noisy
from stratagem.preferences.solvers import Exact, OnlineDPO, OnlineIPO, solve
from stratagem.recipe import Recipe
from stratagem.recipes import dpo, ipo, kto

from .conftest import expected_batch, gradient, loss_of, oracle

WINS = torch.tensor([[0.5, 0.7, 0.2], [0.3, 0.5, 0.9], [0.8, 0.1, 0.5]], dtype=torch.float64)
POLICY = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
REFERENCE = torch.tensor([0.4, 0.4, 0.2], dtype=torch.float64)


def labelled(*rewards: float, groups: int = 1, ref: float = -1.0, **fields: object) -> Experience:
    """Groups of answers of one token each, with what labels pay."""
    size = len(rewards) // groups
    ones = [1] * len(rewards)
    reference = torch.full((len(rewards),), ref, dtype=torch.float64)
    return Experience.from_lengths(
        ones,
        ones,
        [size] * groups,
        **{"reward": torch.tensor(rewards, dtype=torch.float64), "ref_logp": reference, **fields},
    )


def loss(recipe: Recipe, x: Experience, logp: list[float]) -> float:
    out = PolicyOutput(torch.tensor(logp, dtype=torch.float64))
    return float(recipe.objective(out, recipe.prepare(x)).loss)


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


@pytest.mark.parametrize("name", ["dpo", "ipo", "kto"])
def test_they_are_in_the_catalogue(name):
    card = catalogue.card(name)
    assert card.family == "preferences" and card.recipe().name == name
    assert Recipe.from_yaml(card.recipe().to_yaml()) == card.recipe()
    assert not card.recipe().needs() & {"behavior_logp"}, "labelled answers were sampled by nobody in particular"


# ---- DPO ------------------------------------------------------------------------------------------------------------


def test_the_loss_of_dpo_worked_by_hand():
    """``h`` is 0.5 for the chosen and -1 for the rejected answer, so ``-log sigmoid(0.4 * 1.5) = 0.437488``."""
    x = labelled(1.0, 0.0)
    assert loss(dpo(0.4), x, [-0.5, -2.0]) == pytest.approx(0.437488, abs=1e-6)
    assert loss(dpo(0.4), x, [-1.0, -1.0]) == pytest.approx(math.log(2))


def test_a_tie_pulls_the_answers_together():
    x = labelled(0.5, 0.5)
    expected = -(math.log(sigmoid(0.6)) + math.log(sigmoid(-0.6))) / 2
    assert loss(dpo(0.4), x, [-0.5, -2.0]) == pytest.approx(expected)
    assert loss(dpo(0.4), x, [-1.3, -1.3]) == pytest.approx(math.log(2))


def test_wrong_labels_and_margins_are_a_matter_of_the_oracle():
    x = labelled(1.0, 0.0)
    chosen, rejected = -math.log(sigmoid(0.6)), -math.log(sigmoid(-0.6))
    smoothed = dpo(0.4, Noisy(BradleyTerry(0), 0.1))
    assert loss(smoothed, x, [-0.5, -2.0]) == pytest.approx(0.9 * chosen + 0.1 * rejected)
    columns = torch.tensor([[1.0, 1.5], [0.0, -1.5]], dtype=torch.float64)
    x = x.replace(reward=columns, reward_names=("reward", "margin"), reward_weights=(1.0, 0.0))
    p = sigmoid(3.0)
    by_margin = dpo(0.4, BradleyTerry(1, reward="margin"))
    assert loss(by_margin, x, [-0.5, -2.0]) == pytest.approx(p * chosen + (1 - p) * rejected)


def test_the_least_loss_of_dpo_is_the_best_policy_for_the_likeliest_scores():
    asked = Exact(WINS)
    least = solve(OnlineDPO(0.5, every_time=False), asked, REFERENCE, 1).last
    # Pairs of the reference: five answers, as often as it gives them.
    x = expected_batch(REFERENCE, REFERENCE, copies=5)
    found = gradient(dpo(0.5, oracle(WINS)), x, least.log())
    torch.testing.assert_close(found, torch.zeros(3).double(), atol=1e-9, rtol=0)


# ---- IPO ------------------------------------------------------------------------------------------------------------


def test_the_loss_of_ipo_worked_by_hand():
    """``(1.5 - 1 / (2 * 0.25))^2 = 0.25``; a tie has the target 0."""
    assert loss(ipo(0.25), labelled(1.0, 0.0), [-0.5, -2.0]) == pytest.approx(0.25)
    assert loss(ipo(0.25), labelled(0.5, 0.5), [-0.5, -2.0]) == pytest.approx(2.25)


def test_the_least_loss_of_ipo_is_the_best_answer_to_who_gave_the_pairs():
    least = solve(OnlineIPO(0.25), Exact(WINS), REFERENCE, 1, POLICY).last
    x = expected_batch(POLICY, REFERENCE)
    recipe = ipo(0.25, oracle(WINS))
    torch.testing.assert_close(gradient(recipe, x, least.log()), torch.zeros(3).double(), atol=1e-12, rtol=0)
    assert float(loss_of(recipe, x, least.log())) == pytest.approx(0, abs=1e-24)


def test_where_labels_are_certain_ipo_stops_and_dpo_does_not():
    x = labelled(1.0, 0.0)
    apart = [(gap, loss(ipo(0.5), x, [gap / 2, -gap / 2]), loss(dpo(0.5), x, [gap / 2, -gap / 2])) for gap in range(40)]
    assert min(apart, key=lambda row: row[1])[0] == 1
    assert [row[2] for row in apart] == sorted((row[2] for row in apart), reverse=True)


def test_a_strength_of_zero_is_refused():
    with pytest.raises(InputError, match="strength = 0: must be above 0"):
        ipo(0)


# ---- KTO ------------------------------------------------------------------------------------------------------------


def test_the_loss_of_kto_worked_by_hand():
    """Log-ratios 0.5 and -1: the points are max(0, -1) = 0 for the good and 0.5 for the bad answer."""
    x = labelled(1.0, 0.0)
    logp = [-0.5, -2.0]
    expected = ((1 - sigmoid(0.4 * 0.5)) + (1 - sigmoid(0.4 * 1.5))) / 2
    assert loss(kto(0.4), x, logp) == pytest.approx(expected)
    assert expected == pytest.approx(0.402255, abs=1e-6)
    weighed = (1.5 * (1 - sigmoid(0.4 * 0.5)) + 0.5 * (1 - sigmoid(0.4 * 1.5))) / 2
    assert loss(kto(0.4, 1.5, 0.5), x, logp) == pytest.approx(weighed)
    without = ((1 - sigmoid(0.4 * 0.5)) + (1 - sigmoid(0.4 * 1.0))) / 2
    assert loss(kto(0.4, point="zero"), x, logp) == pytest.approx(without)


def test_the_points_are_of_the_policy_as_the_update_starts_and_of_the_whole_batch():
    old = torch.tensor([-0.2, -0.4, -0.8, -1.5], dtype=torch.float64)
    x = labelled(1.0, 0.0, 1.0, 0.0, groups=2, old_logp=old)
    recipe = kto(1.0)
    prepared = recipe.prepare(x)
    logp = torch.tensor([-0.5, -2.0, -0.1, -3.0], dtype=torch.float64)
    good = max(0.0, (0.6 - 0.5) / 2)
    bad = max(0.0, (0.8 + 0.2) / 2)
    h = [0.5, -1.0, 0.9, -2.0]
    expected = [1 - sigmoid(h[0] - good), 1 - sigmoid(bad - h[1]), 1 - sigmoid(h[2] - good), 1 - sigmoid(bad - h[3])]
    found = recipe.objective(PolicyOutput(logp), prepared)
    assert float(found.loss) == pytest.approx(sum(expected) / 4)
    assert float(found.metrics["point_desirable"]) == pytest.approx(good)
    assert float(found.metrics["point_undesirable"]) == pytest.approx(bad)
    piece = prepared.microbatch(torch.tensor([0, 1]))
    part = recipe.objective(PolicyOutput(logp[:2]), piece)
    assert float(part.loss) == pytest.approx(sum(expected[:2]) / 4)
    with pytest.raises(ValueError, match=r"needs old_logp: proximal = IterationStart\(1\) sets it"):
        recipe.objective(PolicyOutput(logp[:2]), prepared.replace(old_logp=None).microbatch(torch.tensor([0, 1])))


def test_answers_without_a_counterpart_count_and_ties_do_not():
    alone = labelled(1.0, 1.0, 0.5, groups=3)
    assert loss(kto(0.4), alone, [-0.5, -2.0, -9.0]) == pytest.approx(((1 - sigmoid(0.2)) + (1 - sigmoid(-0.4))) / 2)


def test_where_policies_agree_the_gradient_raises_good_answers_by_a_quarter_of_the_strength():
    x = labelled(1.0, 0.0)
    recipe = kto(0.4)
    logp = torch.full((2,), -1.0, dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad(recipe.objective(PolicyOutput(logp), recipe.prepare(x)).loss, logp)
    assert found.tolist() == pytest.approx([-0.4 / 4 / 2, 0.4 / 4 / 2])


def table_loss(part: ProspectUtility, log_ratio: Tensor, good: Tensor) -> Tensor:
    """By hand: of answers that are labelled good with these chances, without a point."""
    u = part.strength * log_ratio
    return (good * torch.sigmoid(-u) + (1 - good) * torch.sigmoid(u)).mean()


def test_contradictory_labels_count_by_their_share():
    """Ten labels of two answers, seven times one way: the loss is that of the shares."""
    rewards = [1.0, 0.0] * 7 + [0.0, 1.0] * 3
    x = labelled(*rewards, groups=10)
    h = torch.tensor([0.8, -0.5], dtype=torch.float64)
    expected = table_loss(ProspectUtility(strength=0.4), h, torch.tensor([0.7, 0.3], dtype=torch.float64))
    logp = (h - 1).repeat(10).tolist()
    assert loss(kto(0.4, point="zero"), x, logp) == pytest.approx(float(expected))
