"""The weight of every token in the loss."""

from __future__ import annotations

import math

import pytest
import torch

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.objectives import (
    Credited,
    FixedLength,
    LengthPower,
    SequenceMean,
    SequenceSum,
    TokenMean,
    TurnMean,
    TurnSum,
)

ALL = [TokenMean(), SequenceMean(), TurnMean(), SequenceSum(), LengthPower(), FixedLength(10), TurnSum()]


def batch(**fields) -> Experience:
    """Trajectories of 2, 0 and 4 tokens."""
    return Experience.from_lengths([2, 0, 4], [1, 1, 1], [3], **fields)


@pytest.mark.parametrize(
    ("aggregation", "short", "long"),
    [
        (TokenMean(), 1 / 6, 1 / 6),
        (SequenceMean(), 1 / 4, 1 / 8),
        (SequenceSum(), 1 / 2, 1 / 2),
        (LengthPower(2), 1 / 8, 1 / 32),
        (LengthPower(0.5), 1 / 2 / math.sqrt(2), 1 / 4),
        (FixedLength(10), 1 / 20, 1 / 20),
        (TurnSum(), 1 / 2, 1 / 2),
    ],
)
def test_weights_of_two_sequences_worked_by_hand(aggregation, short, long):
    assert aggregation.weights(batch()).tolist() == pytest.approx([short] * 2 + [long] * 4)


def test_turns_count_the_same_wherever_they_are():
    x = Experience.from_lengths([2, 1, 3], [2, 1], [2], mask=[True, True, True, False, False, False])
    assert TurnSum().weights(x).tolist() == [0.5, 0.5, 0.5, 0, 0, 0]


@pytest.mark.parametrize(
    ("aggregation", "expected"),
    [
        (TokenMean(), [0.5, 0, 0, 0, 0, 0.5]),
        (SequenceMean(), [0.5, 0, 0, 0, 0, 0.5]),
        (SequenceSum(), [0.5, 0, 0, 0, 0, 0.5]),
        (LengthPower(), [0.5, 0, 0, 0, 0, 0.5]),
        (FixedLength(10), [0.05, 0, 0, 0, 0, 0.05]),
        (TurnSum(), [0.5, 0, 0, 0, 0, 0.5]),
    ],
)
def test_masked_tokens_have_no_weight_and_are_not_counted(aggregation, expected):
    x = batch(mask=[True, False, False, False, False, True])
    assert aggregation.weights(x).tolist() == pytest.approx(expected)


@pytest.mark.parametrize(("power", "known"), [(0, SequenceSum()), (1, SequenceMean())])
def test_powers_of_the_length_that_have_a_name(power, known):
    assert torch.equal(LengthPower(power).weights(batch()), known.weights(batch()))


def test_with_one_surrogate_per_trajectory_the_square_counts_it_once_divided_by_its_length():
    surrogate = torch.tensor([3.0, 3, 5, 5, 5, 5])
    assert LengthPower(2)(surrogate, batch()).item() == pytest.approx((3 / 2 + 5 / 4) / 2)


def test_a_negative_power_is_refused():
    with pytest.raises(InputError, match=r"length_power.power = -1: "):
        LengthPower(-1)


@pytest.mark.parametrize("aggregation", ALL)
def test_a_trajectory_that_is_masked_whole_is_excluded_from_the_mean(aggregation):
    x = batch(mask=[False, False, True, True, True, True])
    alone = Experience.from_lengths([4], [1], [1])
    assert aggregation.weights(x)[2:].tolist() == pytest.approx(aggregation.weights(alone).tolist())


@pytest.mark.parametrize("aggregation", ALL)
def test_a_batch_in_which_nothing_may_train_has_loss_zero(aggregation):
    x = batch(mask=torch.zeros(6, dtype=torch.bool))
    assert aggregation(torch.full((6,), math.nan), x).item() == 0.0
    assert aggregation(torch.zeros(0), batch().select(torch.zeros(3, dtype=torch.bool))).item() == 0.0


@pytest.mark.parametrize("aggregation", ALL)
def test_the_values_of_micro_batches_add_up_to_that_of_the_batch(aggregation):
    x = batch(mask=[True, True, True, False, True, True])
    values = torch.arange(6.0)
    whole = aggregation(values, x)
    pieces = [x.microbatch(torch.tensor([t])) for t in (2, 0, 1)]
    assert sum(aggregation(p.piece_of(values), p) for p in pieces).item() == pytest.approx(whole.item())


@pytest.mark.parametrize("aggregation", ALL)
def test_what_is_masked_cannot_poison_the_value(aggregation):
    x = batch(mask=[True, False, True, True, True, False])
    values = torch.tensor([1.0, -math.inf, 1.0, 1.0, 1.0, math.nan])
    finite = torch.where(x.mask, values, 0.0)
    assert aggregation(values, x).item() == pytest.approx(aggregation(finite, x).item())


def test_the_weights_of_a_whole_are_computed_once_for_all_its_pieces(monkeypatch):
    computed = []

    def weights(self: TokenMean, x: Experience) -> torch.Tensor:
        computed.append(x)
        return torch.full((x.tokens,), 0.5)

    monkeypatch.setattr(TokenMean, "weights", weights)
    x = batch()
    for trajectory in range(3):
        TokenMean().at(x.microbatch(torch.tensor([trajectory])))
    assert computed == [x]


@pytest.mark.parametrize("of", ALL, ids=lambda part: part.part_name())
def test_credited_counts_only_tokens_with_an_advantage(of):
    advantage = torch.tensor([0.0, 0.0, 0.0, -0.5, 0.5, 1.0])
    x = batch(advantage=advantage)
    torch.testing.assert_close(Credited(of).weights(x), of.weights(batch(mask=advantage != 0)))


def test_credited_leaves_out_what_may_not_train():
    nan, mask = float("nan"), [False, True, True, True, True, True]
    x = batch(advantage=torch.tensor([nan, 0.0, 1.0, 1.0, 0.0, 1.0]), mask=mask)
    third = 1 / 3
    torch.testing.assert_close(Credited().weights(x), torch.tensor([0.0, 0.0, third, third, 0.0, third]))


def test_credited_without_advantages_is_zero_and_not_a_number_divided_by_none():
    assert Credited().weights(batch(advantage=torch.zeros(6))).tolist() == [0.0] * 6
    with pytest.raises(ValueError, match="advantage"):
        Credited().weights(batch())


def test_every_turn_counts_the_same_whatever_its_length_and_its_trajectory():
    x = Experience.from_lengths([4, 1, 2], [2, 1], [2])
    assert TurnMean().weights(x).tolist() == pytest.approx([1 / 12] * 4 + [1 / 3] + [1 / 6] * 2)
    masked = x.replace(mask=torch.tensor([True, False, True, False, False, True, True]))
    assert TurnMean().weights(masked).tolist() == pytest.approx([1 / 4, 0, 1 / 4, 0, 0, 1 / 4, 1 / 4])


def test_of_trajectories_of_one_turn_the_mean_over_turns_is_that_over_sequences():
    assert torch.equal(TurnMean().weights(batch()), SequenceMean().weights(batch()))


def test_tokens_credited_above_a_threshold_alone_may_count():
    x = batch(advantage=[2.0, -1.0, 0.5, 0.0, 1.0, -3.0])
    assert Credited(TokenMean(), above=0.5).weights(x).tolist() == pytest.approx([0.5, 0, 0, 0, 0.5, 0])
    assert Credited(TokenMean(), above=0.0).weights(x).tolist() == pytest.approx([1 / 3, 0, 1 / 3, 0, 1 / 3, 0])
    assert Credited(TokenMean()).weights(x).tolist() == pytest.approx([0.2, 0.2, 0.2, 0, 0.2, 0.2])
