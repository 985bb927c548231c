"""Covariance of likelihood and advantage: numbers worked by hand, which tokens are held back, and how."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.objectives import (
    KL,
    AtLargestCovariance,
    Clip,
    CovarianceMask,
    EntropyBonus,
    PolicyGradient,
    TokenMean,
    Unclipped,
    token_covariance,
)


def batch(probability: list[float], advantage: list[float], **fields) -> Experience:
    """One answer of these tokens."""
    logp = torch.tensor(probability, dtype=torch.float64).log()
    return Experience.from_lengths(
        [len(probability)],
        [1],
        [1],
        old_logp=logp,
        behavior_logp=logp,
        advantage=torch.tensor(advantage, dtype=torch.float64),
        seed=[5],
        **fields,
    )


def many(answers: int = 40, length: int = 10) -> Experience:
    """Many answers of tokens with all kinds of advantages and likelihoods."""
    source = torch.Generator().manual_seed(3)
    tokens = answers * length
    logp, advantage = (torch.randn(tokens, generator=source, dtype=torch.float64) for _ in range(2))
    return Experience.from_lengths(
        [length] * answers,
        [1] * answers,
        [answers],
        old_logp=logp,
        behavior_logp=logp,
        advantage=advantage,
        seed=torch.arange(answers) + 11,
    )


FOUR = batch([0.9, 0.5, 0.1, 0.8], [1.0, 1.0, -1.0, -1.0])


def gradient(objective: PolicyGradient, x: Experience, logp: Tensor) -> Tensor:
    logp = logp.clone().requires_grad_()
    return torch.autograd.grad(objective(PolicyOutput(logp), x).loss, logp)[0]


def test_covariances_are_those_worked_by_hand():
    assert token_covariance(FOUR).tolist() == pytest.approx([0.72570, 0.13791, 1.47153, -0.60792], abs=1e-5)


def test_covariances_are_of_tokens_that_may_train_and_of_the_policy_before_the_update():
    wide = batch([0.9, 0.5, 0.1, 0.8, 0.3], [1.0, 1.0, -1.0, -1.0, math.nan], mask=[True] * 4 + [False])
    assert torch.equal(token_covariance(wide)[:4], token_covariance(FOUR))
    assert token_covariance(wide)[4] == 0
    unmoved = FOUR.replace(old_logp=None)
    assert torch.equal(token_covariance(unmoved), token_covariance(FOUR))
    assert token_covariance(batch([0.3], [2.0])).item() == 0


@pytest.mark.parametrize("field", ["advantage", "old_logp"])
def test_covariances_of_what_is_no_number_are_refused(field):
    poisoned = getattr(FOUR, field).clone()
    poisoned[1] = math.nan
    with pytest.raises(ValueError, match="not finite"):
        token_covariance(FOUR.replace(**{field: poisoned}))
    with pytest.raises(ValueError, match=r"needs x\.advantage"):
        token_covariance(FOUR.replace(advantage=None))


# ---- a penalty at the largest ---------------------------------------------------------------------------------------


def penalised(part: AtLargestCovariance, x: Experience, moved: Tensor) -> list[bool]:
    assert x.old_logp is not None
    return (part(PolicyOutput(x.old_logp + moved), x) != 0).tolist()


def test_the_largest_covariance_of_the_four_is_the_rare_bad_token():
    moved = torch.full((4,), 0.1, dtype=torch.float64)
    assert penalised(AtLargestCovariance(), FOUR, moved) == [False, False, True, False]
    assert penalised(AtLargestCovariance(share=0.5), FOUR, moved) == [True, False, True, False]
    assert penalised(AtLargestCovariance(least=0), FOUR, moved) == [False] * 4


def test_no_token_is_picked_where_nothing_varies_together():
    moved = torch.full((3,), 0.1, dtype=torch.float64)
    assert not any(penalised(AtLargestCovariance(share=1.0), batch([0.2, 0.5, 0.6], [1.0, 1.0, 1.0]), moved))
    # Of these only the first two are above 0.
    x = batch([0.9, 0.1, 0.9, 0.1], [2.0, -2.0, -1.0, 1.0])
    assert penalised(AtLargestCovariance(share=1.0), x, torch.ones(4)) == [True, True, False, False]


@pytest.mark.parametrize(("ratio", "advantage", "slope"), [(1.1, 1.0, -0.1), (0.9, 1.0, -1.9), (1.0, 1.0, -1.0)])
def test_the_penalty_pulls_back_with_one_strength_and_not_before_the_policy_has_moved(ratio, advantage, slope):
    # The first token has the largest covariance: likely and good.
    x = batch([0.9, 0.2, 0.5], [advantage, -0.5, -0.5])
    logp = x.old_logp.clone()
    logp[0] += math.log(ratio)
    objective = PolicyGradient(gate=Unclipped(), aggregation=TokenMean(), regularizer=AtLargestCovariance())
    found = 3 * gradient(objective, x, logp)
    assert found.tolist() == pytest.approx([slope, 0.5, 0.5])


def test_any_penalty_can_be_kept_to_those_tokens_and_infinities_elsewhere_do_no_harm():
    entropy = torch.tensor([math.inf, math.nan, 0.7, math.inf], dtype=torch.float64, requires_grad=True)
    penalty = AtLargestCovariance(EntropyBonus())(PolicyOutput(FOUR.old_logp, entropy=entropy), FOUR)
    assert penalty.tolist() == pytest.approx([0, 0, -0.7, 0])
    penalty.sum().backward()
    assert entropy.grad.tolist() == [0, 0, -1, 0]
    assert "output.entropy" in AtLargestCovariance(EntropyBonus()).needs()


def test_penalties_to_the_old_policy_are_0_where_it_is_the_present_one():
    for estimator in ("k1", "k2", "k3", "abs"):
        kl = KL(estimator, to="old")
        assert not kl(PolicyOutput(FOUR.old_logp), FOUR.replace(old_logp=None)).any()
    moved = torch.tensor([0.1, -0.2, 0.3, 0.0], dtype=torch.float64)
    distance = KL("abs", to="old")(PolicyOutput(FOUR.old_logp + moved), FOUR)
    assert distance.tolist() == pytest.approx([0.1, 0.2, 0.3, 0.0])


# ---- a mask at random from a band -----------------------------------------------------------------------------------


def removed(mask: CovarianceMask, x: Experience) -> Tensor:
    return mask(PolicyOutput(x.old_logp), x) == 0


def test_tokens_of_the_band_are_removed_up_to_the_share():
    x = many()
    band = (token_covariance(x) > 0.5) & (token_covariance(x) < 2.0)
    assert 20 < band.sum() < 200
    for share, count in ((0.05, 20), (0.01, 4), (1e-4, 1), (1.0, int(band.sum()))):
        gone = removed(CovarianceMask(share, 0.5, 2.0), x)
        assert gone.sum() == count
        assert not (gone & ~band).any()
    assert not removed(CovarianceMask(1e-4, 0.5, 2.0, least=0), x).any()


def test_nothing_is_removed_where_the_band_is_empty():
    assert not removed(CovarianceMask(1.0, 1.5, 5.0), FOUR).any()
    assert removed(CovarianceMask(1.0, 1.0, 5.0), FOUR).tolist() == [False, False, True, False]
    assert not removed(CovarianceMask(1.0, math.inf, math.inf), many()).any()


def test_the_draw_follows_from_the_seeds_and_nothing_else():
    mask, x = CovarianceMask(0.02, 0.0, 9.0), many()
    gone = removed(mask, x)
    assert torch.equal(removed(mask, x.replace()), gone)
    assert not torch.equal(removed(mask, x.replace(seed=x.seed + 1)), gone)
    order = torch.arange(x.trajectories).flip(0)
    assert torch.equal(removed(mask, x.select(order)).view(40, 10), gone.view(40, 10).flip(0))
    piece = x.microbatch(torch.arange(7, 19))
    assert torch.equal(removed(mask, piece), gone[70:190])


def test_the_draw_is_the_same_with_tokens_between_that_may_not_train():
    mask, x = CovarianceMask(0.02, 0.0, 9.0), many()
    real = torch.arange(x.tokens + 40) % 11 != 3

    def padded(values: Tensor) -> Tensor:
        return torch.full((len(real),), math.nan, dtype=values.dtype).masked_scatter(real, values)

    figures = {name: padded(getattr(x, name)) for name in ("old_logp", "behavior_logp", "advantage")}
    wide = Experience.from_lengths([11] * 40, [1] * 40, [40], mask=real, seed=x.seed, **figures)
    gone = removed(mask, wide)
    assert torch.equal(gone[real], removed(mask, x))
    assert not gone[~real].any()


def test_the_draw_favours_no_place():
    x = many(400)
    gone = removed(CovarianceMask(0.1, 0.0, 9.0), x)
    band = (token_covariance(x) > 0).view(400, 10).sum(0)
    share = gone.view(400, 10).sum(0) / band
    assert gone.sum() == 400
    assert share.min() > 0.5 * share.mean()
    assert share.max() < 1.5 * share.mean()


def test_a_removed_token_has_no_gradient_and_is_still_counted():
    logp = FOUR.old_logp + torch.tensor([0.1, -0.1, 0.05, 0.3], dtype=torch.float64)
    plain = PolicyGradient(gate=Clip(), aggregation=TokenMean())
    masked = plain.replace(correction=CovarianceMask())
    expected = gradient(plain, FOUR, logp)
    expected[2] = 0
    torch.testing.assert_close(gradient(masked, FOUR, logp), expected)
    never = plain.replace(correction=CovarianceMask(low=math.inf, high=math.inf))
    assert torch.equal(gradient(never, FOUR, logp), gradient(plain, FOUR, logp))


def test_a_band_without_an_inside_and_a_batch_without_seeds_are_refused():
    with pytest.raises(InputError, match="must be below high"):
        CovarianceMask(low=2.0, high=1.0)
    with pytest.raises(InputError, match=r"covariance_mask\.share"):
        CovarianceMask(share=1.5)
    with pytest.raises(ValueError, match=r"x\.seed"):
        removed(CovarianceMask(0.01, 0.0, 9.0), many().replace(seed=None))
