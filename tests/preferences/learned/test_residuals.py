"""Graded residuals: weights by hand, grades with gaps, a base that stays as it is."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from stratagem.errors import InputError
from stratagem.preferences.learned import GradedResidual, Grades, ResidualPolicy, exponential_weights, grade
from stratagem.preferences.learned.residuals import weighted_cloning

NAN = math.nan
QUICK = GradedResidual(hidden=16, members=1, reward_steps=200, steps=200, learning_rate=1e-2)
SOME = st.lists(st.floats(-5, 5), min_size=6, max_size=6)


@pytest.fixture
def base() -> nn.Module:
    torch.manual_seed(1000)
    return nn.Linear(3, 2)


def drawn(*shape: int, seed: int = 1000) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# ---- weights --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("beta", "expected"), [(1.0, 0.731059), (3.0, 0.952574), (0.0, 0.5)])
def test_the_best_constant_is_the_weighted_mean_of_actions(beta, expected):
    constant = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    actions = torch.tensor([[0.0], [1.0]] * 4, dtype=torch.float64)
    optimizer = torch.optim.SGD([constant], lr=0.5)
    for _ in range(200):
        optimizer.zero_grad()
        weighted_cloning(constant.expand(8, 1), actions, actions[:, 0], beta).backward()
        optimizer.step()
    assert float(constant.detach()) == pytest.approx(expected, abs=1e-6)


@settings(deadline=None)
@given(SOME, st.floats(-100, 100), st.floats(0, 3), st.floats(0.1, 4))
def test_shifts_change_nothing_and_scales_are_another_beta(rewards, shift, beta, scale):
    reward = torch.tensor(rewards, dtype=torch.float64)
    weight = exponential_weights(reward, beta)
    assert float(weight.mean()) == pytest.approx(1)
    torch.testing.assert_close(exponential_weights(reward + shift, beta), weight)
    torch.testing.assert_close(exponential_weights(scale * reward, beta), exponential_weights(reward, beta * scale))


def test_no_weight_is_above_the_largest_and_no_reward_too_large():
    weight = exponential_weights(torch.tensor([1e30, 0.0, -1e30, 0.0]), 3.0, largest=1.0)
    assert weight.tolist() == [1.0, 0.0, 0.0, 0.0]
    assert exponential_weights(torch.full((5,), 7.0), 10.0).tolist() == pytest.approx([1.0] * 5)


def test_what_is_masked_reaches_neither_loss_nor_gradient():
    predicted, target = drawn(4, 2).requires_grad_(), drawn(4, 2, seed=1001)
    reward, mask = drawn(4), torch.tensor([True, True, False, True])
    spoiled = target.masked_fill(~mask.unsqueeze(1), NAN)
    loss = weighted_cloning(predicted, spoiled, reward.masked_fill(~mask, NAN), 1.0, mask=mask)
    assert float(loss.detach()) == pytest.approx(
        float(weighted_cloning(predicted[mask], target[mask], reward[mask], 1.0).detach())
    )
    loss.backward()
    assert bool(predicted.grad.isfinite().all()) and not bool(predicted.grad[2].any())
    nothing = weighted_cloning(predicted, target, reward, 1.0, mask=torch.zeros(4, dtype=torch.bool))
    assert float(nothing.detach()) == 0


# ---- grades ---------------------------------------------------------------------------------------------------------


def test_grades_by_hand():
    found = grade(torch.tensor([0.0, 2.0]), torch.tensor([[4.0, 2.0], [1.0, 1.0]]), 0.25)
    torch.testing.assert_close(found.worth, torch.tensor([-0.25 + 0.75, 0.25 - 0.75]))
    # Ratings 4, 2, 1, 1 have variance 1.5; the first two variance 1.
    torch.testing.assert_close(found.weight, torch.tensor([1 / (1 + 1 / 1.5), 1.0]))


def test_where_something_is_missing_the_other_counts_alone():
    metric = torch.tensor([0.0, 2.0, NAN, NAN])
    ratings = torch.tensor([[NAN, NAN], [3.0, NAN], [5.0, 5.0], [NAN, NAN]])
    found = grade(metric, ratings)
    torch.testing.assert_close(found.worth, torch.tensor([-1.0, 0.5 - 0.5, 1.0, 0.0]))
    assert found.measured.tolist() == [True, True, False, False]
    assert found.rated.tolist() == [False, True, True, False]
    assert found.weight.tolist() == [1.0, 1.0, 1.0, 0.0]
    # A measure that is to count for nothing does not count where it is alone, either.
    assert grade(metric, ratings, 0.0).weight.tolist() == [0.0, 1.0, 1.0, 0.0]


def test_equal_grades_make_plain_cloning(base):
    found = grade(torch.full((4,), 0.1), torch.full((4, 1), 3.0))
    assert found.worth.tolist() == [0.0] * 4
    seen, done = drawn(4, 5, 3), drawn(4, 5, 2, seed=1001)
    plain, graded = (QUICK.fit(base, seen, done, reward) for reward in (torch.zeros(4, 5), torch.full((4, 5), 0.1)))
    assert torch.equal(plain(seen), graded(seen))


# ---- learning -------------------------------------------------------------------------------------------------------


def test_a_fresh_residual_is_the_base_exactly_and_its_change_is_bounded(base):
    seen = drawn(50, 3)
    policy = ResidualPolicy(base, 3, 2, 16, 0.1)
    assert torch.equal(policy(seen), base(seen))
    with torch.no_grad():
        policy.residual[-1].weight.fill_(1e3)
    change = (policy(seen) - base(seen)).detach().abs()
    assert 0.09 < float(change.max()) <= 0.1 + 1e-6


def test_the_base_stays_as_it_is(base):
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    policy = QUICK.fit(base, drawn(40, 3), drawn(40, 2, seed=1001), drawn(40, seed=1002))
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.state_dict().items())
    assert all(torch.equal(tensor, before[name]) for name, tensor in policy.base.state_dict().items())
    assert bool(policy.residual[-1].weight.any())


def test_without_beta_it_is_cloning_of_what_the_base_leaves(base):
    seen, done, reward = drawn(40, 3), drawn(40, 2, seed=1001), drawn(40, seed=1002)
    policy = ResidualPolicy(base, 3, 2, 16, 0.5, seed=3)
    with torch.no_grad():
        policy.residual[-1].weight.copy_(drawn(2, 16))
    gradients = []
    for loss in (
        weighted_cloning(policy(seen), done, reward, 0.0),
        (policy.change(seen, base(seen).detach()) - (done - base(seen).detach())).square().sum(-1).mean(),
    ):
        policy.zero_grad()
        loss.backward()
        gradients.append([p.grad.clone() for p in policy.residual.parameters()])
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("kind", ["scores", "comparisons"])
def test_rewards_of_steps_follow_from_grades_of_segments(kind):
    seen, done = drawn(50, 4, 3), drawn(50, 4, 2, seed=1001)
    worth = -done[..., 0].mean(-1)
    grades = grade(worth, torch.full((50, 1), NAN))
    model = GradedResidual(reward=kind, hidden=32, members=1, reward_steps=300, learning_rate=1e-2).fit_reward(
        seen, done, grades
    )
    told = torch.cat([drawn(200, 4, 3, seed=1003), drawn(200, 4, 2, seed=1004)], -1)
    said = model(told).mean(-1).detach()
    ranks = torch.stack([each.argsort().argsort().double() for each in (said, -told[..., 3].mean(-1))])
    assert float(torch.corrcoef(ranks)[0, 1]) > 0.95


def test_good_steps_are_cloned_and_bad_ones_are_not():
    seen = torch.zeros(100, 1)
    done = torch.where(torch.arange(100) % 2 == 0, 1.0, -1.0).unsqueeze(1)
    base = nn.Linear(1, 1)
    nn.init.zeros_(base.weight)
    nn.init.zeros_(base.bias)
    policy = GradedResidual(hidden=8, largest_change=2.0, learning_rate=1e-2, steps=500).fit(
        base, seen, done, done[:, 0]
    )
    # Standardised rewards are 1 and -1: the weighted mean is tanh(beta).
    assert float(policy(seen[:1]).detach()) == pytest.approx(math.tanh(3), abs=0.02)


def test_steps_and_segments_that_are_not_finite_are_left_out(base):
    seen, done, reward = drawn(40, 3), drawn(40, 2, seed=1001), drawn(40, seed=1002)
    spoiled = torch.cat([seen, torch.full((3, 3), NAN)]), torch.cat([done, drawn(3, 2)])
    with_gaps = QUICK.fit(base, *spoiled, torch.cat([reward, drawn(3)]))
    assert torch.equal(with_gaps(seen), QUICK.fit(base, seen, done, reward)(seen))
    segments = seen.view(8, 5, 3).clone(), done.view(8, 5, 2)
    segments[0][0, 0, 0] = math.inf
    grades = grade(drawn(8), torch.full((8, 1), NAN))
    fewer = Grades(*(figure[1:] for figure in grades))
    one, other = QUICK.fit_reward(*segments, grades), QUICK.fit_reward(segments[0][1:], segments[1][1:], fewer)
    told = torch.cat([seen, done], -1)
    assert torch.equal(one(told), other(told))


def test_bad_input_is_refused_in_one_line(base):
    nobody = torch.full((4, 1), NAN)
    for call, problem in (
        (lambda: GradedResidual(beta=-1), "peel: beta=-1 is not allowed"),
        (lambda: grade(torch.zeros(4), nobody, 1.5), r"metric_share = 1.5: must be in \[0, 1\]"),
        (lambda: grade(torch.zeros(3), nobody), "ratings"),
        (lambda: exponential_weights(torch.zeros(2), -1.0), "beta = -1.0 must be at least 0"),
        (lambda: QUICK.fit_reward(drawn(4, 2, 3), drawn(4, 2, 2), grade(nobody[:, 0], nobody)), "no segment"),
        (lambda: QUICK.fit(base, drawn(4, 3) * NAN, drawn(4, 2), drawn(4)), "no step"),
    ):
        with pytest.raises(InputError, match=problem):
            call()
