"""Rewards learned from comparisons and scores: what they recover, and how reliable they say they are."""

from __future__ import annotations

import math

import pytest
import torch

from stratagem.errors import BrokenRunError, InputError
from stratagem.preferences.learned import (
    Comparisons,
    RewardModel,
    Scores,
    fit_comparisons,
    fit_scores,
    reliability,
    reliability_page,
)
from stratagem.preferences.learned.reward_models import comparison_loss, minimise, perceptron


def segments(count: int, seed: int = 1000) -> tuple[torch.Tensor, torch.Tensor]:
    """Segments of five steps of three features, the first of which is what the reward is."""
    features = torch.randn(count, 5, 3, generator=torch.Generator().manual_seed(seed))
    return features, features[..., 0].mean(-1)


def ranks_agree(one: torch.Tensor, other: torch.Tensor) -> float:
    """Spearman's correlation."""
    ranks = torch.stack([each.argsort().argsort().double() for each in (one, other)])
    return float(torch.corrcoef(ranks)[0, 1])


def test_the_loss_of_a_pair_by_hand():
    loss = comparison_loss(torch.tensor([0.6, 0.6, 0.0]), torch.tensor([1.0, 0.0, 0.5]))
    torch.testing.assert_close(loss, torch.tensor([0.437488, 1.037488, math.log(2)]), atol=1e-6, rtol=0)


def test_scores_and_comparisons_recover_one_ranking():
    known, score = segments(50)
    fresh, truth = segments(200, seed=1001)
    by_score, by_pairs = RewardModel(3, 32, seed=1), RewardModel(3, 32, seed=1)
    fit_scores(by_score, Scores(known, score), 300, 1e-2)
    fit_comparisons(by_pairs, Scores(known, score).compared(), 150, 1e-2)
    said = [model(fresh).mean(-1).detach() for model in (by_score, by_pairs)]
    assert ranks_agree(said[0], truth) > 0.95
    assert ranks_agree(said[1], truth) > 0.95
    assert float(((said[0] - said[0].mean()).sign() == (said[1] - said[1].mean()).sign()).float().mean()) > 0.9


def test_scores_of_weight_zero_are_not_learned_from():
    known, score = segments(20)
    spoiled = torch.where(torch.arange(20) < 10, score, 1e6)
    weight = (torch.arange(20) < 10).float()
    one, other = RewardModel(3, 8), RewardModel(3, 8)
    fit_scores(one, Scores(known, spoiled, weight), 20)
    fit_scores(other, Scores(known, torch.where(weight > 0, score, 0.0), weight), 20)
    assert torch.equal(one(known), other(known))


def test_members_of_an_ensemble_differ_most_where_nothing_was_seen():
    known, score = segments(50)
    model = RewardModel(3, 32, members=3)
    fit_scores(model, Scores(known, score), 300, 1e-2)
    assert float(model.spread(known).mean()) < 0.2 * float(model.spread(20 * known).mean())
    assert torch.equal(RewardModel(3, 8).spread(known), torch.zeros(50, 5))


def test_equal_scores_make_no_comparison():
    known, _ = segments(3)
    assert Scores(known, torch.tensor([1.0, 1.0, 2.0])).compared().label.tolist() == [1.0, 1.0]
    with pytest.raises(InputError, match="nothing to learn from"):
        fit_comparisons(RewardModel(3), Scores(known, torch.ones(3)).compared())


def test_contradictions_are_counted_in_either_order():
    known, _ = segments(4)
    first, second = known[[0, 0, 1, 2]], known[[1, 1, 0, 3]]
    said = Comparisons(first, second, torch.tensor([1.0, 1.0, 0.0, 1.0]))
    assert said.contradictions() == 0
    assert Comparisons(first, second, torch.tensor([1.0, 0.0, 1.0, 1.0])).contradictions() == 2
    assert said.swapped().contradictions() == 0
    # What two people say is no contradiction.
    apart = Comparisons(first[:2].unsqueeze(1), second[:2].unsqueeze(1), torch.tensor([[1.0], [0.0]]))
    assert apart.contradictions() == 0
    assert apart.pooled().contradictions() == 1


def test_bad_data_is_refused_in_one_line():
    known, score = segments(4)
    for build, problem in (
        (lambda: Comparisons(known, known[:3], torch.ones(4)), "shapes are"),
        (lambda: Comparisons(known, known, torch.full((4,), 1.5)), r"labels must be in \[0, 1\]"),
        (lambda: Comparisons(known * math.nan, known, torch.ones(4)), "features must be finite"),
        (lambda: Scores(known, score[:2]), "segments have shape"),
        (lambda: Scores(known, score, -torch.ones(4)), "weights at least 0"),
        (lambda: fit_scores(RewardModel(3), Scores(known, score, torch.zeros(4))), "at least one weight"),
        (lambda: RewardModel(0), "at least 1"),
    ):
        with pytest.raises(InputError, match=problem):
            build()


def test_a_loss_that_is_not_finite_breaks_the_run():
    weight = torch.nn.Parameter(torch.ones(1))
    with pytest.raises(BrokenRunError, match="step 0 is nan"):
        minimise(lambda _: (weight * math.nan).sum(), [weight], 3, 0.1)


def test_a_network_whose_last_layer_is_silenced_says_nothing():
    network = perceptron((3, 8, 2), torch.Generator().manual_seed(1000), last=0.0)
    assert torch.equal(network(torch.ones(4, 3)), torch.zeros(4, 2))


# ---- calibration ----------------------------------------------------------------------------------------------------


def test_reliability_by_hand():
    found = reliability(torch.tensor([0.2, 0.2, 0.9, 0.9]), torch.tensor([0.0, 1.0, 1.0, 1.0]), bins=5)
    torch.testing.assert_close(found.said, torch.tensor([0.2, 0.9], dtype=torch.float64))
    torch.testing.assert_close(found.held, torch.tensor([0.5, 1.0], dtype=torch.float64))
    assert found.comparisons.tolist() == [2, 2]
    assert found.brier == pytest.approx((0.04 + 0.64 + 0.01 + 0.01) / 4)
    assert found.log_loss == pytest.approx(-(math.log(0.8) + math.log(0.2) + 2 * math.log(0.9)) / 4)
    assert found.ece == pytest.approx((2 * 0.3 + 2 * 0.1) / 4)
    assert found.accuracy == pytest.approx(0.75)


def test_who_says_what_happens_is_calibrated():
    said = torch.rand(20_000, generator=torch.Generator().manual_seed(1000))
    came = (torch.rand(20_000, generator=torch.Generator().manual_seed(1001)) < said).float()
    assert reliability(said, came).ece < 0.02
    assert reliability(1 - said, came).ece > 0.3
    assert reliability(torch.full((10,), 0.5), torch.ones(10)).accuracy == 0.5


def test_the_plot_shows_every_bin_with_its_count():
    found = reliability(torch.tensor([0.2, 0.9]), torch.tensor([0.0, 1.0]))
    page = reliability_page("Preferences", {"pooled": found})
    assert "pooled: error 0.150, accuracy 1.000" in page
    assert '"customdata":[1,1]' in page.replace(" ", "")


def test_reliability_of_nonsense_is_refused():
    for said, held, bins in ((torch.tensor([1.2]), torch.ones(1), 10), (torch.ones(0), torch.ones(0), 10),
                             (torch.ones(2), torch.ones(1), 10), (torch.ones(1), torch.ones(1), 0)):  # fmt: skip
        with pytest.raises(InputError, match="reliability"):
            reliability(said, held, bins)
