import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.language.sampling import Sampler, SamplingParams, inverse_cdf, keep_likeliest
from stratagem.sampling import EntropyTempering

HALVES = torch.tensor([[0.5, 0.25, 0.125, 0.125]]).log()


def test_inverse_cdf_takes_the_token_whose_interval_holds_the_number() -> None:
    probabilities = HALVES.exp().expand(6, 4)
    numbers = torch.tensor([0.0, 0.499, 0.5, 0.7499, 0.75, 0.9999], dtype=torch.float64)
    assert inverse_cdf(probabilities, numbers).tolist() == [0, 0, 1, 1, 2, 3]


def test_inverse_cdf_never_takes_an_impossible_token() -> None:
    certain = torch.tensor([[0.0, 1.0, 0.0]]).expand(3, 3)
    assert inverse_cdf(certain, torch.tensor([0.0, 0.5, 1 - 2**-53], dtype=torch.float64)).tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("top_k", "top_p", "kept"),
    [
        (0, 1.0, [0, 1, 2, 3]),
        (2, 1.0, [0, 1]),
        (0, 0.5, [0]),
        (0, 0.6, [0, 1]),
        (2, 0.5, [0]),
        (0, 1e-9, [0]),
        (9, 1.0, [0, 1, 2, 3]),
    ],
)
def test_likeliest_tokens_are_kept(top_k: int, top_p: float, kept: list[int]) -> None:
    logits = keep_likeliest(HALVES, torch.tensor([[top_k]]), torch.tensor([[top_p]]))
    assert torch.isfinite(logits[0]).nonzero().squeeze(1).tolist() == kept


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**40), st.integers(0, 12), st.floats(0.05, 1.0), st.floats(0.2, 3.0))
def test_returned_logp_are_of_a_normalised_distribution(
    seed: int, top_k: int, top_p: float, temperature: float
) -> None:
    """Sampling every interval of the unit line once: the distinct tokens' probabilities sum to one."""
    logits = torch.randn(1, 10, generator=torch.Generator().manual_seed(seed % 2**31)).mul(2).expand(1000, 10)
    params = SamplingParams(1, temperature=temperature, top_k=top_k, top_p=top_p)
    sampler = Sampler([params] * 1000, list(range(seed, seed + 1000)), "cpu")
    tokens, logp = sampler.sample(logits, 0)
    found = {token: value for token, value in zip(tokens.tolist(), logp.tolist(), strict=True)}
    kept = keep_likeliest(logits[:1] / temperature, torch.tensor([[top_k]]), torch.tensor([[top_p]]))
    exact = kept.softmax(-1)[0]
    assert sum(math.exp(value) for value in found.values()) == pytest.approx(exact[list(found)].sum().item(), abs=1e-5)
    assert exact[list(found)].sum().item() > 0.98


def test_frequencies_match_probabilities() -> None:
    probabilities = torch.tensor([0.4, 0.3, 0.15, 0.1, 0.05])
    sampler = Sampler([SamplingParams(64)] * 300, list(range(300)), "cpu")
    counts = torch.zeros(5)
    for index in range(64):
        tokens, _ = sampler.sample(probabilities.log().expand(300, 5), index)
        counts += torch.bincount(tokens, minlength=5)
    assert (
        chisquare(counts.numpy(), (probabilities / probabilities.sum() * 64 * 300).numpy(), sum_check=False).pvalue
        > 0.01
    )


def test_top_p_frequencies_match_the_renormalised_nucleus() -> None:
    sampler = Sampler([SamplingParams(1, top_p=0.7)] * 20_000, list(range(20_000)), "cpu")
    tokens, logp = sampler.sample(HALVES.expand(20_000, 4), 0)
    counts = torch.bincount(tokens, minlength=4)
    assert counts[2:].tolist() == [0, 0]
    assert chisquare(counts[:2].numpy(), [20_000 * 2 / 3, 20_000 / 3]).pvalue > 0.01
    assert logp[tokens == 0][0].item() == pytest.approx(math.log(2 / 3), abs=1e-6)


def test_requests_keep_their_numbers_when_others_leave() -> None:
    logits = torch.randn(5, 50, generator=torch.Generator().manual_seed(0))
    params = [SamplingParams(200, temperature=0.5 + place / 4) for place in range(5)]
    together, alone = Sampler(params, [7, 8, 9, 10, 11], "cpu"), Sampler([params[3]], [10], "cpu")
    for index in range(3):
        together.sample(logits, index)
        alone.sample(logits[3:4], index)
    together.keep(torch.tensor([3, 1]))
    for index in range(3, 140):
        assert together.sample(logits[[3, 1]], index)[0][0] == alone.sample(logits[3:4], index)[0][0]


def test_greedy_rows_take_the_mode_beside_sampled_rows() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0]]).expand(2, 3)
    tokens, logp = Sampler([SamplingParams(1, greedy=True, temperature=9.0), SamplingParams(1)], [0, 1], "cpu").sample(
        logits, 0
    )
    assert tokens[0] == 1 and logp[0] == 0.0
    assert logp[1].item() == pytest.approx(logits[1].log_softmax(0)[tokens[1]].item())


def tempering(strength: float, *entropy: float) -> EntropyTempering:
    part = EntropyTempering(strength, quantile=0.5)
    part.before_steps(Experience.from_lengths([len(entropy)], [1], [1], entropy=torch.tensor(entropy)))
    return part


def test_each_request_has_its_own_tempering_and_keeps_it_when_others_leave() -> None:
    logits = torch.randn(4, 30, generator=torch.Generator().manual_seed(1)) * torch.tensor([[0.2], [1.0], [2.0], [4.0]])
    # Equal parts that remember different batches.
    hooks = [None, tempering(0.9, 0.1, 1.0, 3.0), tempering(0.9, 2.0, 3.0, 3.4), None]
    params = [SamplingParams(9, temperature=0.7, tempering=hook) for hook in hooks]
    sampler, seeds = Sampler(params, [1, 2, 3, 4], "cpu"), [1, 2, 3, 4]
    kept = torch.arange(4)
    for index, keep in enumerate(([0, 1, 2, 3], [3, 1, 2], [2, 0])):
        keep = torch.tensor(keep)
        if index:
            sampler.keep(keep)
            kept = kept[keep]
        tokens, logp = sampler.sample(logits[kept], index)
        for row, request in enumerate(kept.tolist()):
            own = logits[request : request + 1] / 0.7
            expected = own if hooks[request] is None else hooks[request].tempered(own)
            alone = Sampler([SamplingParams(9)], [seeds[request]], "cpu").sample(expected, index)
            assert tokens[row] == alone[0][0]
            assert logp[row].item() == pytest.approx(alone[1].item(), abs=1e-6)
            assert hooks[request] is None or not torch.allclose(own, expected)


def test_the_nucleus_is_cut_from_what_was_tempered() -> None:
    warm = tempering(0.9, 0.01, 0.02, 0.03)
    params = SamplingParams(1, top_p=0.7, tempering=warm)
    _, logp = Sampler([params] * 200, list(range(200)), "cpu").sample(HALVES.expand(200, 4), 0)
    # At 1.9 times the temperature the first two hold less than 0.7 and a third is kept.
    tempered = torch.softmax(HALVES / 1.9, -1)[0]
    assert tempered[:2].sum() < 0.7
    assert logp.exp().max().item() == pytest.approx((tempered[0] / tempered[:3].sum()).item(), abs=1e-5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(max_new_tokens=0), "max_new_tokens must be at least 1, got 0"),
        (dict(max_new_tokens=1, temperature=0.0), "temperature must be above 0"),
        (dict(max_new_tokens=1, temperature=math.nan), "temperature must be above 0"),
        (dict(max_new_tokens=1, top_p=0.0), r"top_p must lie in \(0, 1\]"),
        (dict(max_new_tokens=1, top_k=-1), "top_k must be at least 0"),
        (dict(max_new_tokens=1, stop=("",)), "stop must be a tuple"),
        (dict(max_new_tokens=1, stop="end"), "stop must be a tuple"),
    ],
)
def test_wrong_parameters_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SamplingParams(**wrong)  # type: ignore[arg-type]
