"""Latent types of users: divergences by hand, opposite users told apart, and what is worth asking."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stratagem.errors import InputError
from stratagem.preferences.learned import (
    Belief,
    Comparisons,
    LatentUsers,
    RewardModel,
    UserModel,
    choose,
    fit_comparisons,
)
from stratagem.preferences.learned.queries import mutual_information, variance_information

QUICK = LatentUsers(latent=2, hidden=32, kl_weight=0.01, steps=200, batch=64, learning_rate=5e-3)


def opposite_users(sets: int, pairs: int, seed: int) -> Comparisons:
    """Half of the users like a large feature, half a small one; all answer the same kind of questions."""
    source = torch.Generator().manual_seed(seed)
    first, second = (torch.randn(sets, pairs, 1, 1, generator=source) for _ in range(2))
    like = torch.where(torch.rand(sets, 1, generator=source) < 0.5, 1.0, -1.0)
    return Comparisons(first, second, (like * (first - second).squeeze() > 0).float())


@pytest.fixture(scope="module", params=["flat", "set"])
def fitted(request) -> UserModel:
    return dataclasses.replace(QUICK, encoder=request.param).fit(opposite_users(400, 8, 1000))


def zeros(model: UserModel, pairs: int = 8) -> Tensor:
    return torch.zeros(1, pairs, model.steps, model.features)


# ---- beliefs --------------------------------------------------------------------------------------------------------


def test_divergences_by_hand():
    normal = Belief(torch.zeros(2), torch.zeros(2))
    assert float(Belief(torch.tensor([1.0, 0.0]), torch.zeros(2)).divergence(normal)) == pytest.approx(0.5)
    wide = Belief(torch.zeros(1), torch.tensor([math.log(4)]))
    assert float(wide.divergence(Belief(torch.zeros(1), torch.zeros(1)))) == pytest.approx(0.806853, abs=1e-6)
    assert float(normal.divergence(normal)) == 0
    assert float(normal.entropy()) == pytest.approx(math.log(2 * math.pi * math.e))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(-3, 3), min_size=8, max_size=8))
def test_divergences_are_those_of_torch(numbers):
    values = torch.tensor(numbers, dtype=torch.float64).view(4, 2)
    one, other = Belief(values[0], values[1]), Belief(values[2], values[3])
    normals = [torch.distributions.Normal(b.mean, (b.log_variance / 2).exp()) for b in (one, other)]
    expected = torch.distributions.kl_divergence(*normals).sum()
    torch.testing.assert_close(one.divergence(other), expected)


def test_huge_variances_are_kept_within_what_exp_can_say(fitted):
    far = Comparisons(zeros(fitted) + 1e12, zeros(fitted), torch.ones(1, 8))
    belief = fitted.belief(far)
    assert bool((belief.log_variance.abs() <= 10).all())
    assert bool(belief.divergence(fitted.prior).isfinite().all())


def test_of_somebody_who_has_answered_nothing_the_prior_is_believed():
    model = dataclasses.replace(QUICK, encoder="set", prior="learned", steps=5).fit(opposite_users(8, 4, 1000))
    nothing = Comparisons(zeros(model, 0), zeros(model, 0), torch.ones(1, 0))
    belief = model.belief(nothing)
    assert float(belief.divergence(model.prior).detach()) == 0
    assert torch.equal(belief.entropy().squeeze(), model.prior.entropy())
    assert bool(model.prior_mean.any())


# ---- learning -------------------------------------------------------------------------------------------------------


def test_the_loss_is_the_evidence_bound_written_out():
    model = UserModel(QUICK, 4, 1, 1, seed=3)
    data, noise = opposite_users(5, 4, 1001), torch.randn(5, 2, generator=torch.Generator().manual_seed(1))
    belief = model.belief(data)
    latent = belief.mean + (belief.log_variance / 2).exp() * noise
    total = torch.zeros(())
    for user in range(5):
        for pair in range(4):
            rewards = [model._decoded(s[user, pair, 0], latent=latent[user]) for s in (data.first, data.second)]
            total = total + comparison(rewards[0] - rewards[1], float(data.label[user, pair]))
        total = total + 0.3 * belief.divergence(model.prior)[user]
    torch.testing.assert_close(model.loss(data, noise, 0.3), total / 5)


def comparison(logit: Tensor, label: float) -> Tensor:
    return -torch.nn.functional.logsigmoid(logit if label else -logit)


def test_without_a_type_it_is_ordinary_reward_learning():
    model = UserModel(dataclasses.replace(QUICK, latent=0), 4, 1, 1, seed=3)
    data = opposite_users(5, 4, 1001)
    ordinary = RewardModel(1, 32)
    ordinary.members[0] = model.decoder
    said = ordinary.probability(data.first, data.second)
    expected = torch.nn.functional.binary_cross_entropy(said, data.label)
    torch.testing.assert_close(model.loss(data, torch.zeros(5, 0), 0.0), 4 * expected)
    assert torch.equal(model.probability(data, data.first, data.second), said)


def test_opposite_users_are_told_apart_where_one_reward_cannot(fitted):
    fresh, further = opposite_users(200, 8, 1002), opposite_users(200, 8, 1002)
    figures = fitted.figures(fresh, further)
    assert figures["accuracy"] > 0.95
    assert abs(figures["accuracy_as_another"] - 0.5) < 0.12
    assert figures["kl"] > 0.1
    pooled = RewardModel(1, 32)
    loss = fit_comparisons(pooled, opposite_users(400, 8, 1000), 200, 5e-3)
    assert loss == pytest.approx(math.log(2), abs=0.02)


def test_a_set_is_known_whatever_the_order_and_however_many_it_has():
    model = dataclasses.replace(QUICK, encoder="set", steps=5).fit(opposite_users(8, 4, 1000))
    data = opposite_users(3, 4, 1003)
    order = torch.tensor([2, 0, 3, 1])
    turned = Comparisons(data.first[:, order], data.second[:, order], data.label[:, order])
    torch.testing.assert_close(model.belief(data).mean, model.belief(turned).mean)
    assert model.belief(opposite_users(3, 9, 1003)).mean.shape == (3, 2)


def test_the_same_seed_learns_the_same():
    short = dataclasses.replace(QUICK, steps=5)
    one, other = (short.fit(opposite_users(100, 4, 1000), seed=7) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_the_weight_of_the_divergence_rises_again_in_every_cycle():
    config = LatentUsers(steps=400, cycles=4)
    assert [config.ramp(step) for step in (0, 50, 100, 350)] == pytest.approx([0, 0.5, 0, 0.5])
    assert config.ramp(99) > 0.999


# ---- rewards --------------------------------------------------------------------------------------------------------


def test_expected_win_rates_are_of_one_scale_and_keep_the_order(fitted):
    states = torch.linspace(-2, 2, 9).unsqueeze(-1)
    latent = fitted.belief(opposite_users(6, 8, 1004)).mean.detach().unsqueeze(1)
    raw, rate = fitted.reward(states, latent), fitted.reward(states, latent, among=states)
    assert raw.shape == rate.shape == (6, 9)
    assert bool(((rate > 0) & (rate < 1)).all())
    torch.testing.assert_close(rate.mean(-1), torch.full((6,), 0.5))
    assert torch.equal(raw.argsort(-1), rate.argsort(-1))
    with torch.no_grad():
        fitted.decoder[-1].weight.mul_(5)
        stretched = fitted.reward(states, latent, among=states)
        fitted.decoder[-1].weight.div_(5)
    assert torch.equal(stretched.argsort(-1), rate.argsort(-1))
    assert bool(((stretched > 0) & (stretched < 1)).all())


def test_a_classifier_says_both_orders_consistently():
    config = dataclasses.replace(QUICK, decoder="classifier")
    model = config.fit(opposite_users(400, 8, 1000))
    data = opposite_users(200, 8, 1005)
    there, back = (model.probability(data, *sides) for sides in ((data.first, data.second), (data.second, data.first)))
    torch.testing.assert_close(there + back, torch.ones_like(there))
    assert model.figures(data, data)["accuracy"] > 0.95
    latent = model.belief(data).mean[0].detach()
    states = torch.linspace(-2, 2, 9).unsqueeze(-1)
    assert model.reward(states, latent, among=states).shape == (9,)
    with pytest.raises(InputError, match="among which states"):
        model.reward(states, latent)


# ---- what to ask ----------------------------------------------------------------------------------------------------


def test_questions_tell_what_users_disagree_on():
    two_users = torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]]])
    assert float(mutual_information(two_users)) == pytest.approx(0, abs=1e-12)
    assert float(mutual_information(torch.tensor([[[1.0]], [[0.0]]]))) == pytest.approx(math.log(2))
    # Asking twice what splits two users tells no more.
    assert float(mutual_information(torch.tensor([[[1.0, 1.0]], [[0.0, 0.0]]]))) == pytest.approx(math.log(2))
    # Both toss a coin: uncertain, and nothing to learn.
    assert float(mutual_information(torch.full((2, 1, 3), 0.5))) == pytest.approx(0, abs=1e-12)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(0, 1), min_size=12, max_size=12))
def test_information_is_at_least_nothing_and_at_most_the_types(numbers):
    found = float(mutual_information(torch.tensor(numbers, dtype=torch.float64).view(3, 2, 2)).max())
    assert -1e-12 <= found <= math.log(3) + 1e-12


def test_the_question_users_differ_on_is_chosen(fitted):
    pairs = 1 if fitted.config.encoder == "set" else 8
    same = torch.zeros(1, pairs, 1, 1)
    candidates = Comparisons(torch.cat([same, same + 2]), torch.cat([same, same - 2]), torch.zeros(2, pairs))
    assert choose(fitted, candidates) == 1
    score = variance_information(fitted, candidates)
    assert score.shape == (2,)
    assert choose(fitted, candidates, criterion="variance") == int(score.argmax())


def test_bad_input_is_refused_in_one_line(fitted):
    for call, problem in (
        (lambda: LatentUsers(latent=-1), "vpl: latent=-1 is not allowed"),
        (lambda: QUICK.fit(opposite_users(4, 4, 1).pooled()), r"must be \(sets, pairs\)"),
        (lambda: fitted.belief(Comparisons(*[torch.zeros(1, 8, 2, 1)] * 2, torch.ones(1, 8))), "this model reads 1"),
        (lambda: mutual_information(torch.full((2, 13), 0.5)), "must have 1 to 12"),
        (lambda: choose(fitted, opposite_users(4, 4, 1).pooled()), "candidates must be"),
        (lambda: UserModel(QUICK, 8, 1, 1).belief(opposite_users(4, 3, 1)), "a flat encoder reads 8"),
    ):
        with pytest.raises(InputError, match=problem):
            call()
