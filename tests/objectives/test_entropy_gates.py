"""Gates by entropy: what becomes of ratio and advantage at each place of the scale, by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.objectives import Clip, EntropyClip, Redistributed
from stratagem.parts import Gate

PLACES = (-1.0, -0.5, 0.0, 0.5, 1.0)
"""Scaled entropies of the five tokens of :func:`batch` when the pivot is the median."""


def batch() -> Experience:
    entropy = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0], dtype=torch.float64).exp()
    return Experience.from_lengths([2, 3], [1, 1], [2], entropy=entropy)


def surrogate(gate: Gate, ratio: float, advantage: float) -> list[float]:
    """Of the five tokens, all with this ratio and advantage."""
    rho, credit = (torch.full((5,), value, dtype=torch.float64) for value in (ratio, advantage))
    return gate(rho, credit, PolicyOutput(rho.log()), batch()).tolist()


CLIP = EntropyClip(quantile=0.5)


def test_bounds_are_widened_on_one_side_by_the_size_of_the_scaled_entropy():
    low, high = CLIP.widths(batch())
    assert low.tolist() == pytest.approx([0.4, 0.3, 0.2, 0.2, 0.2])
    assert high.tolist() == pytest.approx([0.2, 0.2, 0.2, 0.3, 0.4])


def test_good_tokens_are_clipped_above_and_bad_ones_below_at_their_own_bound():
    assert surrogate(CLIP, 3.0, 1.0) == pytest.approx([1.2, 1.2, 1.2, 1.3, 1.4])
    assert surrogate(CLIP, 0.1, -1.0) == pytest.approx([-0.6, -0.7, -0.8, -0.8, -0.8])
    assert surrogate(CLIP, 0.1, 1.0) == pytest.approx([0.1] * 5)
    assert surrogate(EntropyClip(quantile=0.5, dual=2.0), 3.0, -1.0) == pytest.approx([-2.0] * 5)


def test_the_released_sign_widens_above_alone():
    low, high = EntropyClip(quantile=0.5, below="positive").widths(batch())
    assert low.tolist() == pytest.approx([0.2] * 5)
    assert high.tolist() == pytest.approx([0.4, 0.3, 0.2, 0.3, 0.4])


@pytest.mark.parametrize("below", ["negative", "positive"])
def test_a_token_that_moves_counts_more_where_unsure_and_one_that_does_not_less_where_sure(below):
    gate = Redistributed(EntropyClip(quantile=0.5, widening=0.0), quantile=0.5, below=below)
    still, moving = surrogate(gate, 1.0, 1.0), surrogate(gate, 1.15, 1.0)
    if below == "negative":
        assert still == pytest.approx([0.0, 0.5, 1.0, 1.0, 1.0])
        assert moving == pytest.approx([1.15, 1.15, 1.15, 1.15 * 1.5, 1.15 * 2])
    else:
        assert still == pytest.approx([1.0] * 5)
        assert moving == pytest.approx([1.15 * 2, 1.15 * 1.5, 1.15, 1.15 * 1.5, 1.15 * 2])


def test_a_ratio_at_the_clip_counts_the_redistributed_advantage():
    gate = Redistributed(Clip(), quantile=0.5)
    assert surrogate(gate, 1.2, 1.0) == pytest.approx([1.2, 1.2, 1.2, 1.8, 2.4])
    assert surrogate(gate, 1.0, -1.0) == pytest.approx([0.0, -0.5, -1.0, -1.0, -1.0])


def test_a_token_moves_outside_the_inner_half_of_its_own_clip():
    # The fourth token has an upper bound of 1.3 and moves from 1.15 on; a plain clip's moves from 1.1 on.
    adapted, plain = (Redistributed(of, quantile=0.5) for of in (CLIP, Clip()))
    assert surrogate(adapted, 1.12, 1.0)[3] == pytest.approx(1.12)
    assert surrogate(plain, 1.12, 1.0)[3] == pytest.approx(1.12 * 1.5)
    assert surrogate(adapted, 1.16, 1.0)[3] == pytest.approx(1.16 * 1.5)
    # The first has a lower bound of 0.6 and moves at 0.8 and below.
    assert surrogate(adapted, 0.81, -1.0)[0] == 0.0
    assert surrogate(adapted, 0.79, -1.0)[0] == pytest.approx(-0.79)


def test_binds_says_where_the_clip_holds():
    x, credit = batch(), torch.ones(5, dtype=torch.float64)
    rho = torch.full((5,), 1.25, dtype=torch.float64)
    gate = Redistributed(CLIP, quantile=0.5)
    assert gate.binds(rho, credit, PolicyOutput(rho.log()), x).tolist() == [True, True, True, False, False]


def random(seed: int) -> tuple[Tensor, Tensor, PolicyOutput, Experience]:
    source = torch.Generator().manual_seed(seed)
    log_ratio, advantage, entropy = (torch.randn(60, generator=source, dtype=torch.float64) for _ in range(3))
    x = Experience.from_lengths([60], [1], [1], entropy=entropy.exp())
    return log_ratio.exp(), advantage, PolicyOutput(log_ratio), x


@pytest.mark.parametrize("dual", [None, 3.0])
def test_at_strength_zero_they_are_the_clip_to_the_last_bit(dual):
    for seed in range(5):
        arguments, plain = random(seed), Clip(0.1, 0.3, dual)
        off = Redistributed(EntropyClip(0.1, 0.3, dual, widening=0.0), strength=0.0)
        assert torch.equal(off(*arguments), plain(*arguments))
        assert torch.equal(off.binds(*arguments), plain.binds(*arguments))


def test_no_factor_has_a_gradient():
    ratio, advantage, out, x = random(7)
    rho = ratio.clone().requires_grad_()
    gate = Redistributed(EntropyClip(quantile=0.5), quantile=0.5)
    total = gate(rho, advantage, out, x)
    found = torch.autograd.grad(total.sum(), rho)[0]
    held = gate.binds(ratio, advantage, out, x)
    assert torch.equal(found[held], torch.zeros_like(found[held]))
    torch.testing.assert_close(found[~held] * ratio[~held], total[~held].detach())


def test_strengths_out_of_range_and_missing_entropies_are_refused():
    with pytest.raises(InputError, match=r"redistributed\.strength = 1\.5"):
        Redistributed(strength=1.5)
    with pytest.raises(InputError, match=r"entropy_clip\.widening = -1"):
        EntropyClip(widening=-1.0)
    bare = Experience.from_lengths([1], [1], [1])
    one = torch.ones(1)
    with pytest.raises(ValueError, match=r"needs x\.entropy"):
        EntropyClip()(one, one, PolicyOutput(one), bare)
