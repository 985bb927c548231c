"""The band around usual entropies: what is usual, who is outside, and which way a penalty pulls."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.objectives import EntropyBand, EntropyBonus, EntropyRange, Penalty, PolicyGradient, TokenMean

NARROW = {"low": 0.8, "high": 1.2, "penalty": 0.1, "turns": 1}


def batch(*trajectories: tuple[float, ...], **fields) -> Experience:
    """Trajectories of turns of one token, sampled with these entropies."""
    entropy = [h for trajectory in trajectories for h in trajectory]
    lengths = [len(trajectory) for trajectory in trajectories]
    return Experience.from_lengths(
        [1] * len(entropy), lengths, [len(lengths)], entropy=torch.tensor(entropy, dtype=torch.float64), **fields
    )


def said(*entropy: float) -> PolicyOutput:
    return PolicyOutput(torch.zeros(len(entropy)), entropy=torch.tensor(entropy, dtype=torch.float64))


# ---- what is usual --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("current", "expected"), [(True, [1.0, 2.0]), (False, [0.0, 1.0])])
def test_usual_is_the_mean_over_batches_with_or_without_the_one_at_hand(current, expected):
    band = EntropyBand(turns=1, include_current=current)
    assert [band.before_steps(batch((h,))).usual_entropy.item() for h in (1.0, 3.0)] == expected


def test_every_turn_number_has_its_own_and_counts_the_batches_that_got_there():
    band = EntropyBand(turns=2)
    first = band.before_steps(batch((1.0, 0.5), (3.0,)))
    assert first.usual_entropy.tolist() == [2.0, 0.5, 2.0]
    assert band.before_steps(batch((4.0,), (4.0,))).usual_entropy.tolist() == [0, 0]  # Too short to be judged.
    third = band.before_steps(batch((0.0, 1.5, 0.25)))
    assert third.usual_entropy.tolist() == [2.0, 1.0, 0.25]


def test_tokens_count_alike_and_those_that_may_not_train_do_not():
    x = Experience.from_lengths(
        [2, 3], [1, 1], [2], entropy=[1.0, 2.0, 6.0, math.nan, 3.0], mask=[True, True, True, False, True]
    )
    assert EntropyBand(turns=1).before_steps(x).usual_entropy.tolist() == [3.0, 3.0]
    nothing = x.replace(mask=torch.zeros(5, dtype=torch.bool))
    band = EntropyBand(turns=1)
    assert band.before_steps(nothing).usual_entropy.tolist() == [0, 0]
    assert band.memory()["batches"].tolist() == [0]


def test_pieces_of_a_batch_and_turns_on_their_own_keep_what_is_usual():
    x = EntropyBand(turns=2).before_steps(batch((1.0, 0.5), (3.0, 1.5)))
    assert x.microbatch(torch.tensor([1])).usual_entropy.tolist() == [2.0, 1.0]
    alone = x.by_turn()
    assert alone.usual_entropy.tolist() == [2.0, 1.0, 2.0, 1.0]
    assert not alone.trajectory_of_turn.position().any()


def test_calling_it_on_pieces_remembers_nothing():
    band = EntropyBand(turns=1)
    x = band.before_steps(batch((1.0,), (3.0,)))
    for _ in range(3):
        band(said(5.0, 5.0), x)
    assert band.memory()["total"].tolist() == [2.0]
    assert band.memory()["batches"].tolist() == [1.0]


def test_what_is_remembered_survives_a_checkpoint_and_a_change_of_the_band():
    band = EntropyBand(turns=2)
    band.before_steps(batch((1.0, 3.0)))
    restored = EntropyBand(turns=2)
    restored.load_state_dict({name: tensor.clone() for name, tensor in band.state_dict().items()})
    for again in (restored, band.replace(high=3.0)):
        assert again.before_steps(batch((3.0, 5.0))).usual_entropy.tolist() == [2.0, 4.0]


def test_a_batch_without_turns_changes_nothing():
    empty = batch((1.0,)).select(torch.tensor([False]))
    assert EntropyBand().before_steps(empty).usual_entropy.tolist() == []


# ---- who is outside -------------------------------------------------------------------------------------------------


def at_one(entropy: tuple[float, ...], **fields) -> Tensor:
    """The penalty where usual is 1."""
    band = EntropyBand(**{**NARROW, **fields})
    x = band.before_steps(batch(*[(1.0,)] * len(entropy)))
    return band(said(*entropy), x)


def test_an_entropy_on_an_edge_is_outside():
    assert at_one((0.7, 0.8, 1.0, 1.19, 1.5)).tolist() == pytest.approx([0.1, 0.1, 0, 0, 0.1])
    assert at_one((0.7, 0.8, 1.0, 1.5), penalty=0.0).tolist() == [0] * 4


def test_the_hinge_is_how_far_outside():
    assert at_one((0.7, 0.8, 1.0, 1.5), form="hinge").tolist() == pytest.approx([0.1, 0, 0, 0.3], abs=1e-7)


def test_where_nothing_is_usual_nothing_is_penalised():
    band = EntropyBand(**NARROW, include_current=False)
    first = band.before_steps(batch((1.0,)))
    assert band(said(9.0), first).item() == 0
    below = EntropyBand(**NARROW)
    assert below(said(9.0), below.before_steps(batch((-1.0,)))).item() == 0


@pytest.mark.parametrize(("length", "penalised"), [(1, False), (2, False), (3, True)])
def test_only_batches_that_reach_the_second_half_are_penalised(length, penalised):
    band = EntropyBand("constant", 0.8, 1.2, 0.1, turns=4)
    x = band.before_steps(batch((1.0,), (1.0,) * length))
    assert bool(band(said(*[9.0] * (1 + length)), x).any()) == penalised


def test_by_turn_its_mean_is_judged_and_all_its_tokens_pay():
    band = EntropyBand(**NARROW, unit="turn")
    x = Experience.from_lengths(
        [2, 3], [1, 1], [2], entropy=torch.ones(5, dtype=torch.float64), mask=[True, True, True, False, True]
    )
    x = band.before_steps(x)
    # Means are 1 and 2; the masked token says nothing.
    penalty = band(said(0.5, 1.5, 2.0, math.nan, 2.0), x)
    assert penalty.tolist() == pytest.approx([0, 0, 0.1, 0.1, 0.1])
    assert EntropyBand(**NARROW)(said(0.5, 1.5, 2.0, 1.0, 2.0), x).tolist() == pytest.approx([0.1, 0.1, 0.1, 0, 0.1])


# ---- which way it pulls ---------------------------------------------------------------------------------------------


def entropy_of(logits: Tensor) -> Tensor:
    return torch.distributions.Categorical(logits=logits).entropy()


@pytest.mark.parametrize("unit", ["token", "turn"])
@pytest.mark.parametrize(("usual", "sign"), [(2.0, -1), (0.1, 1), (0.8, 0)])
def test_the_hinge_pulls_entropy_into_the_band(unit, usual, sign):
    band = EntropyBand("hinge", 0.8, 1.2, unit=unit, turns=1)
    x = band.before_steps(batch((usual,)))
    logits = torch.tensor([[0.3, -0.5, 1.1]], dtype=torch.float64, requires_grad=True)

    def penalty(at: Tensor) -> Tensor:
        return band(PolicyOutput(torch.zeros(1), entropy=entropy_of(at)), x).sum()

    found = torch.autograd.grad(penalty(logits), logits)[0]
    assert torch.autograd.gradcheck(penalty, logits)
    (slope,) = torch.autograd.grad(entropy_of(logits).sum(), logits)
    torch.testing.assert_close(found, sign * slope)


@pytest.mark.parametrize("form", ["constant", "hinge"])
def test_only_the_hinge_changes_what_a_bonus_teaches(form):
    band = EntropyBand(form, 0.8, 1.2, 0.1, turns=1)
    x = band.before_steps(batch((1.0,), (1.0,)).replace(advantage=torch.tensor([1.0, -1.0])))
    bonus = PolicyGradient(aggregation=TokenMean(), regularizer=0.5 * EntropyBonus())
    banded = bonus.replace(regularizer=0.5 * (EntropyBonus() + 2.0 * band))
    gradients, losses = [], []
    for objective in (bonus, banded):
        entropy = torch.tensor([0.2, 1.0], requires_grad=True)
        loss = objective(PolicyOutput(torch.zeros(2), entropy=entropy), x).loss
        gradients.append(torch.autograd.grad(loss, entropy)[0])
        losses.append(loss.item())
    # One token of two is below the band: 0.5 * 2 * 0.1 / 2, or its distance 0.6 in place of 0.1.
    distance = {"constant": 0.1, "hinge": 0.6}[form]
    assert losses[1] - losses[0] == pytest.approx(distance / 2, abs=1e-6)
    assert torch.equal(gradients[0], gradients[1]) == (form == "constant")


def test_tokens_that_may_not_train_reach_neither_loss_nor_gradient():
    band = EntropyBand("hinge", 0.8, 1.2, turns=1, unit="turn")
    x = Experience.from_lengths([2], [1], [1], entropy=torch.tensor([1.0, math.inf]), mask=[True, False])
    x = band.before_steps(x).replace(advantage=torch.zeros(2))
    entropy = torch.tensor([0.5, math.nan], requires_grad=True)
    loss = PolicyGradient(aggregation=TokenMean(), regularizer=1.0 * band)(PolicyOutput(torch.zeros(2), entropy), x)
    assert loss.loss.item() == pytest.approx(0.3)
    assert torch.autograd.grad(loss.loss, entropy)[0].tolist() == [-1, 0]


# ---- what is refused ------------------------------------------------------------------------------------------------


def test_what_the_band_lacks_is_named():
    with pytest.raises(InputError, match=r"entropy_band\.low = 1\.2: must be below high = 1\.2"):
        EntropyBand(low=1.2, high=1.2)
    with pytest.raises(InputError, match=r"entropy_band\.form = 'soft'"):
        EntropyBand("soft")
    with pytest.raises(ValueError, match=r"x\.entropy: turn 1 has one that is not finite"):
        EntropyBand().before_steps(batch((1.0, math.nan)))
    with pytest.raises(ValueError, match=r"needs x\.entropy"):
        EntropyBand().before_steps(batch((1.0,)).replace(entropy=None))
    with pytest.raises(ValueError, match=r"x\.usual_entropy; recipe\.credit"):
        EntropyBand()(said(1.0), batch((1.0,)))


# ---- between fixed edges --------------------------------------------------------------------------------------------


def ranged(x: Experience, entropy: list[float], **chosen) -> tuple[float, list[float]]:
    """Penalty of a batch by the mean over its tokens, and its gradient by every token's entropy."""
    leaf = torch.tensor(entropy, dtype=torch.float64, requires_grad=True)
    penalty = Penalty(EntropyRange(**{"low": 0.5, "high": 1.0, **chosen}), TokenMean())
    loss = penalty(PolicyOutput(torch.zeros(len(entropy)), entropy=leaf), x).loss
    (gradient,) = torch.autograd.grad(loss, leaf)
    return loss.item(), gradient.tolist()


@pytest.mark.parametrize(
    ("entropy", "penalty", "slope"),
    [
        ([0.2, 0.6], 0.1, -0.5),
        ([1.6, 0.8], 0.2, 0.5),
        ([0.1, 1.1], 0.0, 0.0),
        ([0.5, 0.5], 0.0, 0.0),
        ([1.0, 1.0], 0.0, 0.0),
    ],
)
def test_a_mean_entropy_out_of_the_range_is_pulled_to_its_edge(entropy, penalty, slope):
    loss, gradient = ranged(batch(tuple(entropy)), entropy)
    assert loss == pytest.approx(penalty) and gradient == [slope] * 2


def test_the_side_is_that_of_the_sampled_batch():
    loss, gradient = ranged(batch((0.2, 0.6)), [0.6, 0.8])
    assert loss == pytest.approx(-0.2) and gradient == [-0.5] * 2


def test_every_domain_has_its_own_mean_or_only_one_is_charged():
    x = Experience.from_lengths(
        [1] * 4, [1] * 4, [2, 2], groups_per_domain=[1, 1], entropy=torch.tensor([0.1, 0.3, 1.5, 2.5])
    )
    loss, gradient = ranged(x, [0.1, 0.3, 1.5, 2.5])
    assert loss == pytest.approx((0.3 + 1.0) / 2) and gradient == [-0.25, -0.25, 0.25, 0.25]
    assert ranged(x, [0.1, 0.3, 1.5, 2.5], domain=0)[1] == [-0.25, -0.25, 0, 0]
    assert ranged(x, [0.1, 0.3, 1.5, 2.5], domain=2)[1] == [0] * 4


def test_a_range_sees_the_whole_from_each_piece_and_nothing_of_masked_tokens():
    entropy = [0.1, math.nan, 0.9, 0.2]
    x = Experience.from_lengths(
        [1] * 4, [1] * 4, [4], entropy=torch.tensor(entropy), mask=torch.tensor([True, False, True, True])
    )
    loss, gradient = ranged(x, entropy)
    assert loss == pytest.approx(0.1) and gradient == pytest.approx([-1 / 3, 0, -1 / 3, -1 / 3])
    pieces = [ranged(x.microbatch(torch.tensor([row])), [entropy[row]]) for row in range(4)]
    assert sum(piece[0] for piece in pieces) == pytest.approx(0.1)
    assert [piece[1][0] for piece in pieces] == pytest.approx(gradient)


def test_a_range_without_room_and_a_batch_without_entropies_are_refused():
    with pytest.raises(InputError, match=r"entropy_range\.low = 2\.0: must be at most high = 1\.0"):
        EntropyRange(2.0, 1.0)
    with pytest.raises(ValueError, match=r"needs the policy's entropy and x\.entropy"):
        EntropyRange(0.5, 1.0)(said(0.1), batch((0.1,)).replace(entropy=None))
