"""Von Mises-Fisher directions: values worked by hand, agreement with Bessel functions, samples, and the KL."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.special import ive

from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.objectives import (
    Clip,
    DirectionKL,
    Penalty,
    TokenMean,
    TokenRatio,
    direction_kl,
    direction_logp,
    mean_cosine,
    sample_directions,
    unit,
)
from stratagem.seeding import generator

KAPPAS = [0.01, 1.0, 10.0, 1000.0]


# ---- the mean cosine -------------------------------------------------------------------------------------------------


def test_mean_cosines_by_hand():
    assert mean_cosine(3, 1.0) == pytest.approx(1 / math.tanh(1) - 1, abs=1e-15)
    assert mean_cosine(3, 1.0) == pytest.approx(0.3130353, abs=5e-8)
    assert mean_cosine(3, 10.0) == pytest.approx(0.9, abs=1e-8)
    assert mean_cosine(2, 1.0) == pytest.approx(0.4463900, abs=5e-8)
    assert mean_cosine(32, 0.01) == pytest.approx(3.125e-4, rel=1e-5)


@pytest.mark.parametrize("kappa", [0.0, 0.3, 20.0, 1e9])
def test_on_a_line_it_is_the_hyperbolic_tangent(kappa):
    assert mean_cosine(1, kappa) == pytest.approx(math.tanh(kappa), abs=1e-11)


@pytest.mark.parametrize("dims", [2, 3, 8, 33, 128])
@pytest.mark.parametrize("kappa", [0.5, 7.0, 200.0, 1e5])
def test_it_is_the_quotient_of_bessel_functions(dims, kappa):
    assert mean_cosine(dims, kappa) == pytest.approx(ive(dims / 2, kappa) / ive(dims / 2 - 1, kappa), rel=1e-12)


@pytest.mark.parametrize("dims", [8, 3584, 10**6])
def test_where_bessel_functions_underflow_it_is_its_limits(dims):
    assert mean_cosine(dims, 1e-3) == pytest.approx(1e-3 / dims, rel=1e-6)
    kappa = 1e4 * dims
    assert mean_cosine(dims, kappa) == pytest.approx(1 - (dims - 1) / (2 * kappa), abs=1e-8)


def test_without_concentration_there_is_no_direction():
    assert mean_cosine(5, 0.0) == 0


@pytest.mark.parametrize(("dims", "kappa"), [(0, 1.0), (3, -1.0), (3, math.inf), (3, math.nan)])
def test_what_is_no_distribution_is_refused(dims, kappa):
    with pytest.raises(InputError, match="needs at least 1 dimension and a concentration >= 0"):
        mean_cosine(dims, kappa)


# ---- samples ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dims", [1, 2, 3, 8, 64])
@pytest.mark.parametrize("kappa", KAPPAS)
def test_samples_have_the_mean_cosine(dims, kappa):
    mean = unit(torch.randn(dims, generator=generator(0, "mean"), dtype=torch.float64)).expand(20_000, dims)
    drawn = sample_directions(mean, kappa, generator(1, "draws"))
    cosine = (mean * drawn).sum(-1)
    expected = mean_cosine(dims, kappa)
    variance = max(1 - expected**2 - (dims - 1) * expected / kappa, 0.0)
    assert abs(float(cosine.mean()) - expected) < 3 * math.sqrt(variance / len(cosine)) + 1e-12
    assert float(cosine.var()) == pytest.approx(variance, rel=0.05, abs=1e-7)
    torch.testing.assert_close(drawn.norm(dim=-1), torch.ones(len(drawn), dtype=torch.float64))


def test_samples_are_even_around_their_mean():
    mean = torch.tensor([0.0, 0.0, 1.0]).expand(20_000, 3)
    drawn = sample_directions(mean, 5.0, generator(2, "draws"))
    across = drawn[:, :2]
    assert (across.mean(0).abs() < 4 * across.std(0) / math.sqrt(len(across))).all()
    assert float((across[:, 0] * across[:, 1]).mean().abs()) < 0.01
    assert float(across[:, 0].var() / across[:, 1].var()) == pytest.approx(1, abs=0.06)


def test_cosines_in_three_dimensions_have_their_exponential_density():
    # In D = 3 the cosine w has density proportional to exp(kappa w) on [-1, 1].
    kappa = 2.0
    mean = torch.tensor([[1.0, 0.0, 0.0]]).expand(20_000, 3)
    cosine = sample_directions(mean, kappa, generator(3, "draws"))[:, 0]
    for level in (-0.5, 0.0, 0.5, 0.9):
        share = (math.exp(kappa * level) - math.exp(-kappa)) / (math.exp(kappa) - math.exp(-kappa))
        assert float((cosine < level).float().mean()) == pytest.approx(share, abs=4 * math.sqrt(0.25 / 20_000))


def test_equal_seeds_give_equal_samples_of_the_dtype_of_the_mean():
    mean = unit(torch.ones(50, 4))
    first, second = (sample_directions(mean, 3.0, generator(4, "draws")) for _ in range(2))
    assert torch.equal(first, second) and first.dtype == torch.float32


@pytest.mark.parametrize("dims", [2, 100])
def test_a_large_concentration_stays_at_the_mean(dims):
    mean = unit(torch.ones(1000, dims, dtype=torch.float64))
    drawn = sample_directions(mean, 1e10, generator(5, "draws"))
    assert float((drawn - mean).norm(dim=-1).max()) < 1e-3
    assert float((drawn - mean).norm(dim=-1).min()) > 0


# ---- unit vectors ----------------------------------------------------------------------------------------------------


def test_scale_says_nothing():
    vectors = torch.randn(6, 5, generator=generator(6, "vectors"), dtype=torch.float64)
    torch.testing.assert_close(unit(3 * vectors), unit(vectors))


def test_a_vector_without_direction_is_refused():
    with pytest.raises(ValueError, match="has no direction"):
        unit(torch.tensor([[1.0, 0.0], [0.0, 5e-9]]))


# ---- the KL ----------------------------------------------------------------------------------------------------------


def test_the_kl_by_hand():
    other = torch.tensor([0.5, math.sqrt(0.75), 0.0], dtype=torch.float64)
    mean = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    assert float(direction_kl(mean, other, 10.0)) == pytest.approx(4.5, abs=1e-7)
    assert float(direction_kl(mean, mean, 10.0)) == 0


def test_the_kl_is_the_mean_log_ratio_of_samples():
    mean, other = torch.tensor([[1.0, 0.0, 0.0]]).double(), torch.tensor([[0.5, math.sqrt(0.75), 0.0]]).double()
    drawn = sample_directions(mean.expand(1_000_000, 3), 10.0, generator(7, "draws"))
    ratio = direction_logp(mean, drawn, 10.0) - direction_logp(other, drawn, 10.0)
    assert float(ratio.mean()) == pytest.approx(float(direction_kl(mean, other, 10.0)[0]), rel=0.01)


def latents(*flags: bool, **fields) -> Experience:
    return Experience.from_lengths([len(flags)], [1], [1], latent=list(flags), **fields)


def test_the_penalty_is_the_kl_at_latents_and_nothing_at_tokens():
    mean = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]], requires_grad=True)
    reference = torch.tensor([[0.5, math.sqrt(0.75), 0.0], [0.0, 0.0, 0.0]])
    out = PolicyOutput(torch.zeros(2), direction=mean)
    penalty = DirectionKL(10.0)(out, latents(True, False, ref_direction=reference))
    assert penalty.tolist() == pytest.approx([4.5, 0], abs=1e-6)
    penalty.sum().backward()
    assert mean.grad.tolist() == [pytest.approx([-4.5, -9 * math.sqrt(0.75), 0], abs=1e-5), [0, 0, 0]]


def test_the_released_form_looks_at_the_latent_taken_and_lacks_a_factor():
    mean, taken = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[0.5, math.sqrt(0.75), 0.0]])
    penalty = DirectionKL(10.0, "rollout")(PolicyOutput(torch.zeros(1), direction=mean), latents(True, action=taken))
    assert penalty.tolist() == pytest.approx([5.0])
    assert "ref_direction" not in DirectionKL(10.0, "rollout").needs()


def test_a_batch_that_marks_no_latents_has_none():
    x = latents(True, False, ref_direction=torch.ones(2, 3)).replace(latent=None)
    assert DirectionKL(1.0)(PolicyOutput(torch.zeros(2), direction=torch.ones(2, 3)), x).tolist() == [0, 0]


def test_what_the_penalty_lacks_is_named():
    with pytest.raises(ValueError, match=r"output\.direction and ref_direction"):
        DirectionKL()(PolicyOutput(torch.zeros(1)), latents(True))


def test_a_penalty_may_be_a_loss_of_its_own():
    mean = torch.tensor([[1.0, 0.0, 0.0], [float("nan")] * 3, [0.0, 1.0, 0.0]], requires_grad=True)
    reference = torch.tensor([[0.0, 1.0, 0.0], [float("nan")] * 3, [0.0, 1.0, 0.0]])
    x = latents(True, True, True, ref_direction=reference, mask=[True, False, True])
    loss = Penalty(2.0 * DirectionKL(10.0), TokenMean())(PolicyOutput(torch.zeros(3), direction=mean), x)
    assert loss.loss.item() == pytest.approx(2 * 9 / 2, rel=1e-6)
    assert loss.metrics["regularizer"].item() == pytest.approx(9, rel=1e-6)
    loss.loss.backward()
    assert mean.grad[1].tolist() == [0, 0, 0]


# ---- ratios ----------------------------------------------------------------------------------------------------------


def test_the_ratio_of_a_latent_and_its_clip_by_hand():
    kappa, taken = 2.0, torch.tensor([[1.0, 0.0, 0.0]])
    new = torch.tensor([[1.0, 0.0, 0.0]], requires_grad=True)
    old = direction_logp(torch.tensor([[0.0, 1.0, 0.0]]), taken, kappa)
    out = PolicyOutput(direction_logp(new, taken, kappa))
    x = latents(True, old_logp=old)
    ratio = TokenRatio()(out, x)
    assert ratio.item() == pytest.approx(math.exp(2), rel=1e-6)
    surrogate = Clip(0.1, 0.1, 3.0)(ratio, torch.ones(1), out, x)
    assert surrogate.item() == pytest.approx(1.1)
    surrogate.sum().backward()
    assert new.grad.tolist() == [[0, 0, 0]]


def test_at_the_released_concentration_no_ratio_reaches_the_clip():
    kappa, pole = 0.01, torch.tensor([[1.0, 0.0]])
    for new, old in ((pole, -pole), (-pole, pole)):
        x = latents(True, old_logp=direction_logp(old, pole, kappa))
        out = PolicyOutput(direction_logp(new, pole, kappa))
        ratio = TokenRatio()(out, x)
        assert 0.9801 < float(ratio) < 1.0203
        assert not Clip(0.1, 0.1, 3.0).binds(ratio, torch.ones(1), out, x).any()
