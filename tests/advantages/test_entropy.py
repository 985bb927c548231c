"""Advantages modulated by the entropy of turns: numbers worked by hand, identities, and what is passed over."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stratagem.advantages import EntropyModulated, GroupCentered, TotalReturn
from stratagem.distribution import score
from stratagem.errors import InputError
from stratagem.experience import Experience

PLAIN = TotalReturn()
SPREAD = (0.2, 0.6, 1.0)
SCALES = (1.519441, 0.921588, 0.558971)


def turns(*trajectories: tuple[float, ...], returns: list[float], **fields) -> Experience:
    """One group of trajectories whose turns, of one token each, have these entropies."""
    entropy = [h for trajectory in trajectories for h in trajectory]
    return Experience.from_lengths(
        [1] * len(entropy),
        [len(trajectory) for trajectory in trajectories],
        [len(trajectories)],
        reward=torch.tensor(returns, dtype=torch.float64),
        entropy=torch.tensor(entropy, dtype=torch.float64),
        **fields,
    )


def centered(values: list[float]) -> list[float]:
    return [value - sum(values) / len(values) for value in values]


# ---- by hand --------------------------------------------------------------------------------------------------------


def test_turns_the_policy_was_sure_of_count_more_and_one_on_average():
    x = turns(SPREAD, returns=[1.0])
    found = EntropyModulated(PLAIN, bonus=0.0)(x)
    assert (found + 1).tolist() == pytest.approx(SCALES, abs=1e-6)
    assert sum(SCALES) / 3 == pytest.approx(1, abs=1e-6)


def test_a_success_with_its_bonus_for_clear_futures():
    found = EntropyModulated(PLAIN)(turns(SPREAD, returns=[1.0]))
    assert found.tolist() == pytest.approx([0.547614, -0.074105, -0.473509], abs=2e-6)
    before_centering = [1.580094, 0.958376, 0.558971]
    assert found.tolist() == pytest.approx(centered(before_centering), abs=1e-6)


def test_a_confident_error_is_punished_most():
    found = EntropyModulated(PLAIN)(turns(SPREAD, returns=[-1.0])).tolist()
    before_centering = [-1.519441 + 0.0606531, -0.921588 + 0.0367879, -0.558971]
    assert found == pytest.approx(centered(before_centering), abs=2e-6)
    assert found[0] == min(found)


def test_a_turns_entropy_is_the_mean_of_its_tokens():
    long = Experience.from_lengths(
        [2, 1, 3],
        [3],
        [1],
        reward=torch.tensor([1.0], dtype=torch.float64),
        entropy=torch.tensor([0.1, 0.3, 0.6, 0.5, 1.0, 1.5], dtype=torch.float64),
    )
    by_turn = EntropyModulated(PLAIN)(turns(SPREAD, returns=[1.0]))
    # Every turn counts once in the mean that is taken off, however many tokens it has.
    torch.testing.assert_close(EntropyModulated(PLAIN)(long), by_turn[[0, 0, 1, 2, 2, 2]])


# ---- what it comes down to ------------------------------------------------------------------------------------------


def test_without_scaling_and_bonus_it_is_the_advantage_less_its_mean_over_turns():
    x = turns((0.1, 0.9), (0.5,), (0.3, 0.2, 0.7), returns=[1.0, 0.0, 3.0])
    expected = PLAIN(x) - (2 * 1 + 0 + 3 * 3) / 6
    torch.testing.assert_close(EntropyModulated(PLAIN, scaling=0.0, bonus=0.0)(x), expected, rtol=0, atol=1e-7)


def test_where_all_turns_are_alike_only_last_turns_lack_the_bonus():
    # Tokens of one entropy, in turns of unequal length: rounding must not make them differ.
    x = Experience.from_lengths([3, 1, 7, 5], [2, 2], [2], reward=[1.0, -1.0], entropy=torch.full((16,), 0.7))
    found = EntropyModulated(PLAIN)(x)
    bonus = torch.tensor([0.1, 0.0, 0.1, 0.0])[x.turn_of_token.labels]
    torch.testing.assert_close(found, PLAIN(x) + bonus - 0.05, rtol=0, atol=1e-6)


def test_single_turns_are_scaled_and_get_no_bonus():
    x = turns((0.2,), (0.6,), (1.0,), returns=[1.0, 1.0, 1.0])
    assert (EntropyModulated(PLAIN, bonus=9.0)(x) + 1).tolist() == pytest.approx(SCALES, abs=1e-6)


def test_the_bonus_looks_ahead_within_a_trajectory_only():
    x = turns((0.5, 0.5), (0.0, 1.0), returns=[0.0, 0.0])
    before_centering = [0.1 * math.exp(-0.5), 0.0, 0.1 * math.exp(-1.0), 0.0]
    assert EntropyModulated(PLAIN)(x).tolist() == pytest.approx(centered(before_centering), abs=1e-7)


LENGTHS = st.lists(st.integers(1, 4), min_size=1, max_size=4)


def random_batch(lengths: list[int], seed: int) -> Experience:
    source = torch.Generator().manual_seed(seed)
    tokens = torch.randint(1, 4, (sum(lengths),), generator=source)
    return Experience.from_lengths(
        tokens,
        lengths,
        [len(lengths)],
        reward=torch.randn(len(lengths), generator=source, dtype=torch.float64),
        entropy=torch.rand(int(tokens.sum()), generator=source, dtype=torch.float64),
    )


@settings(deadline=None, max_examples=30)
@given(LENGTHS, st.integers(0, 99), st.floats(0.1, 10), st.floats(-5, 5))
def test_entropies_are_only_compared_so_their_unit_and_origin_say_nothing(lengths, seed, unit, origin):
    x = random_batch(lengths, seed)
    moved = x.replace(entropy=unit * x.entropy + origin)
    torch.testing.assert_close(EntropyModulated(PLAIN)(moved), EntropyModulated(PLAIN)(x), rtol=1e-5, atol=1e-5)


@settings(deadline=None, max_examples=30)
@given(LENGTHS, st.integers(0, 99), st.floats(0, 3), st.floats(0, 3))
def test_over_turns_it_adds_up_to_nothing(lengths, seed, scaling, bonus):
    x = random_batch(lengths, seed)
    found = EntropyModulated(PLAIN, scaling=scaling, bonus=bonus)(x)
    assert float(x.turn_of_token.mean(found).sum()) == pytest.approx(0, abs=1e-9)


def test_the_score_of_an_action_has_the_square_norm_that_entropy_suggests():
    logp = torch.randn(7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64).log_softmax(-1)
    squares = torch.stack([score(logp, torch.full((7,), a)).square().sum(1) for a in range(5)], 1)
    expected = 1 - logp.exp().square().sum(1)
    torch.testing.assert_close((logp.exp() * squares).sum(1), expected, rtol=0, atol=1e-12)


# ---- what is passed over, and what is refused -----------------------------------------------------------------------


def test_tokens_that_may_not_train_count_nowhere_whatever_they_hold():
    whole = Experience.from_lengths(
        [1, 2, 1, 1],
        [4],
        [1],
        reward=torch.tensor([1.0], dtype=torch.float64),
        entropy=torch.tensor([0.2, 0.6, math.nan, math.inf, 1.0], dtype=torch.float64),
        mask=[True, True, False, False, True],
    )
    by_hand = EntropyModulated(PLAIN)(turns(SPREAD, returns=[1.0])).tolist()
    # The third turn is passed over: the second one leads to the fourth.
    assert EntropyModulated(PLAIN)(whole).tolist() == pytest.approx([*by_hand[:2], 0.0, 0.0, by_hand[2]])


def test_a_batch_without_a_token_that_may_train_gets_nothing():
    x = turns(SPREAD, returns=[1.0], mask=[False] * 3)
    assert EntropyModulated(PLAIN)(x).tolist() == [0, 0, 0]
    assert EntropyModulated(PLAIN)(x.select(torch.tensor([False]))).tolist() == []


def test_entropies_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match=r"x\.entropy: turn 1 has one that is not finite"):
        EntropyModulated(PLAIN)(turns((0.2, math.nan), returns=[1.0]))
    with pytest.raises(ValueError, match=r"needs x\.entropy"):
        EntropyModulated(PLAIN)(turns(SPREAD, returns=[1.0]).replace(entropy=None))
    for field in ("scaling", "clarity", "bonus"):
        with pytest.raises(InputError, match=rf"entropy_modulated\.{field} = -1\.0"):
            EntropyModulated(PLAIN, **{field: -1.0})


def test_what_it_modulates_still_says_how_many_it_compares_and_what_it_reads():
    assert EntropyModulated(GroupCentered()).least_group() == 2
    assert EntropyModulated(GroupCentered()).needs() == {"entropy"}
