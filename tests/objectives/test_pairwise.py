"""Gates over pairs of answers: numbers worked by hand, exact expectations, and what they refuse."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stratagem.advantages import GroupCentered, LeaveOneOut
from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.objectives import (
    GeometricMeanRatio,
    PairwiseClip,
    PairwiseJointClip,
    PolicyGradient,
    ProductRatio,
    SequenceMean,
    SequenceSum,
    TokenRatio,
    Unclipped,
)
from stratagem.parts import Gate

GATES = [PairwiseClip(), PairwiseJointClip()]
WIDE = [PairwiseClip(1.0, 1e9), PairwiseJointClip(1e9)]


def objective(gate: Gate) -> PolicyGradient:
    return PolicyGradient(ProductRatio(), gate, SequenceMean())


def pair(returns: tuple[float, float], log_ratios: tuple[float, float], gate: Gate) -> tuple[float, list[float]]:
    """What a pair of one-token answers adds to the objective, and its derivatives by their log-probabilities."""
    x = Experience.from_lengths([1, 1], [1, 1], [2], reward=list(returns), old_logp=torch.zeros(2))
    logp = torch.tensor(log_ratios, requires_grad=True)
    loss = objective(gate)(PolicyOutput(logp), x.replace(advantage=LeaveOneOut()(x))).loss
    loss.backward()
    return -loss.item(), (-logp.grad).tolist()


# ---- worked by hand -------------------------------------------------------------------------------------------------


def test_ratios_clipped_apart_worked_by_hand():
    # d = 1/2 for the first, -1/2 for the second; ratios 1.5 and 1. The first's term is clipped at 1.2 * 0.5 and has no
    # slope; the second's is -0.5 with the weight 1.5 of the first.
    value, slope = pair((1.0, 0.0), (math.log(1.5), 0.0), PairwiseClip())
    assert value == pytest.approx(0.6 - 0.75)
    assert slope == pytest.approx([0.0, -0.75])


def test_each_side_of_a_pair_is_clipped_only_where_it_has_already_gone_far_enough():
    # The worse answer at a ratio of 0.5: its term is clipped at 0.8 * -0.5, the other's weighs 0.5.
    value, slope = pair((1.0, 0.0), (0.0, math.log(0.5)), PairwiseClip())
    assert value == pytest.approx(0.5 * 0.5 - 0.4)
    assert slope == pytest.approx([0.25, 0.0])
    # Moved the wrong way, nothing is clipped: rho_1 = 0.5, rho_2 = 2.
    value, slope = pair((1.0, 0.0), (math.log(0.5), math.log(2)), PairwiseClip())
    assert value == pytest.approx(2 * 0.25 - 0.5 * 1)
    assert slope == pytest.approx([0.5, -0.5])


@pytest.mark.parametrize(("apart", "surrogate", "slope"), [(0.3, 0.1, 0.0), (-0.3, -0.15, 0.5), (0.1, 0.05, 0.5)])
def test_ratios_clipped_together_worked_by_hand(apart, surrogate, slope):
    # d = 1/2 and a product of ratios of 1: min(d l, d clip(l)).
    value, slopes = pair((1.0, 0.0), (apart / 2, -apart / 2), PairwiseJointClip())
    assert value == pytest.approx(surrogate)
    assert slopes == pytest.approx([slope, -slope])


def test_a_pair_clipped_together_weighs_the_product_of_its_ratios():
    value, slopes = pair((1.0, 0.0), (0.7, 0.6), PairwiseJointClip())
    assert value == pytest.approx(math.exp(1.3) * 0.05)
    assert slopes == pytest.approx([math.exp(1.3) / 2, -math.exp(1.3) / 2])


def test_the_weight_of_a_far_off_partner_is_capped():
    log_ratios = (0.0, math.log(50))
    assert pair((1.0, 0.0), log_ratios, PairwiseClip(1.0, 1e9))[1][0] == pytest.approx(25)
    assert pair((1.0, 0.0), log_ratios, PairwiseClip(1.0, 1e9, cap=3.0))[1][0] == pytest.approx(1.5)
    assert pair((1.0, 0.0), log_ratios, PairwiseJointClip(10.0))[1] == pytest.approx([25, -25])
    assert pair((1.0, 0.0), log_ratios, PairwiseJointClip(10.0, cap=3.0))[1] == pytest.approx([1.5, -1.5])
    # And what no cap bounds is finite still.
    for gate in GATES:
        value, slopes = pair((1.0, 0.0), (500.0, 500.0), gate)
        assert all(map(math.isfinite, [value, *slopes]))


@pytest.mark.parametrize("gate", GATES, ids=lambda gate: gate.part_name())
def test_exchanging_the_answers_exchanges_the_slopes_and_nothing_else(gate):
    value, slopes = pair((1.0, -0.5), (0.4, -0.1), gate)
    exchanged, other = pair((-0.5, 1.0), (-0.1, 0.4), gate)
    assert (exchanged, other) == (pytest.approx(value), pytest.approx(slopes[::-1]))


@pytest.mark.parametrize("gate", GATES, ids=lambda gate: gate.part_name())
def test_answers_of_equal_reward_teach_nothing(gate):
    assert pair((0.3, 0.3), (0.4, -0.3), gate)[1] == [0.0, 0.0]


# ---- against loops --------------------------------------------------------------------------------------------------


def batch(seed: int, masked: bool = False) -> tuple[Experience, Tensor]:
    """Groups of one to five answers of up to four tokens, some apart from the rest of their group, in float64."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(1, 6, (4,), generator=generator)
    count = int(sizes.sum())
    lengths = torch.randint(0 if masked else 1, 5, (count,), generator=generator)
    tokens = int(lengths.sum())
    old = -torch.rand(tokens, generator=generator, dtype=torch.float64)
    x = Experience.from_lengths(
        lengths, [1] * count, sizes, old_logp=old,
        reward=torch.randn(count, generator=generator, dtype=torch.float64),
        mask=torch.rand(tokens, generator=generator) < 0.6 if masked else None,
    )  # fmt: skip
    x = x.select(torch.randperm(count, generator=generator))
    logp = x.old_logp + 0.3 * torch.randn(tokens, generator=generator, dtype=torch.float64)
    return x.replace(advantage=GroupCentered()(x)), logp


def looped(gate: Gate, x: Experience, logp: Tensor) -> Tensor:
    """The loss, pair by pair: the mean over answers that may train of the mean over those of their group."""
    may = x.learnable()
    of_token = x.trajectory_of_token.labels
    rows = [torch.nonzero((of_token == i) & may).squeeze(1) for i in range(x.trajectories)]
    answers = [i for i in range(x.trajectories) if len(rows[i])]
    log_ratio = {i: (logp - x.old_logp)[rows[i]].sum() for i in answers}
    credit = {i: x.advantage[rows[i][0]] for i in answers}
    total = logp.sum() * 0
    for i in answers:
        partners = [j for j in answers if x.group_of_trajectory.labels[j] == x.group_of_trajectory.labels[i]]
        for j in partners:
            d, mine, theirs = credit[i] - credit[j], log_ratio[i], log_ratio[j]
            if isinstance(gate, PairwiseClip):
                ratio = mine.exp()
                clipped = ratio.clamp(1 - gate.low, 1 + gate.high)
                term = theirs.exp().detach() * torch.minimum(ratio * d, clipped * d)
            else:
                apart, weight = mine - theirs, (mine + theirs).exp().detach()
                term = weight * torch.minimum(d * apart, d * apart.clamp(-gate.clip, gate.clip)) / 2
            total = total + term / len(partners)
    return -total / max(len(answers), 1)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000), st.sampled_from(GATES + WIDE), st.booleans())
def test_loss_and_gradient_equal_those_of_a_loop_over_pairs(seed, gate, masked):
    x, logp = batch(seed, masked)
    logp.requires_grad_()
    found = objective(gate)(PolicyOutput(logp), x)
    expected = looped(gate, x, logp)
    # Weights of an aggregation are in float32.
    assert found.loss.item() == pytest.approx(expected.item(), rel=1e-6, abs=1e-7)
    mine, theirs = [torch.autograd.grad(loss, logp)[0] for loss in (found.loss, expected)]
    torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-7)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.sampled_from(GATES))
def test_the_share_of_bound_tokens_is_that_of_a_loop(seed, gate):
    x, logp = batch(seed)
    log_ratio = x.trajectory_of_token.sum(logp - x.old_logp)
    credit = x.advantage[x.trajectory_of_token.first()]
    bound = torch.zeros(x.trajectories)
    for i, j in itertools.product(range(x.trajectories), repeat=2):
        if x.group_of_trajectory.labels[i] == x.group_of_trajectory.labels[j]:
            d = float(credit[i] - credit[j])
            if isinstance(gate, PairwiseClip):
                ratio = float(log_ratio[i].exp())
                clipped = (d > 0 and ratio > 1.2) or (d < 0 and ratio < 0.8)
            else:
                apart = float(log_ratio[i] - log_ratio[j])
                clipped = abs(apart) > 0.2 and apart * d > 0
            bound[i] = max(float(bound[i]), float(clipped))
    found = objective(gate)(PolicyOutput(logp), x).metrics["clip_fraction"]
    assert found.item() == pytest.approx(x.to_tokens(trajectory=bound).mean().item())


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.sampled_from(GATES))
def test_at_ratio_one_the_gradient_is_that_without_a_gate(seed, gate):
    x, _ = batch(seed)
    logp = x.old_logp.clone().requires_grad_()
    for where in (x, x.replace(old_logp=None)):
        mine, plain = [
            torch.autograd.grad(objective(g)(PolicyOutput(logp), where).loss, logp)[0] for g in (gate, Unclipped())
        ]
        torch.testing.assert_close(mine, plain, rtol=0, atol=1e-7)


def test_what_is_added_to_the_rewards_of_a_prompt_changes_nothing():
    generator = torch.Generator().manual_seed(0)
    x, logp = batch(1)
    offsets = 1e3 * torch.randn(x.groups, generator=generator, dtype=torch.float64)
    shifted = x.replace(reward=x.reward + x.group_of_trajectory.spread(offsets).unsqueeze(1))
    for gate in GATES + WIDE:
        gradients = []
        for variant in (x, shifted):
            here = logp.clone().requires_grad_()
            ready = variant.replace(advantage=GroupCentered()(variant))
            objective(gate)(PolicyOutput(here), ready).loss.backward()
            gradients.append(here.grad)
        assert (gradients[0] - gradients[1]).abs().max() < 1e-9
        assert gradients[0].abs().max() > 0.01


# ---- exact expectations ---------------------------------------------------------------------------------------------

POLICY, REWARDS = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), torch.tensor([1.0, 0.0, 2.0], dtype=torch.float64)
GRADIENT = [0.05, -0.27, 0.22]
"""``pi_k (r_k - 0.9)``, the gradient of the expected reward by the logits."""


def expected_update(gate: Gate, behavior: Tensor) -> Tensor:
    """Minus the gradient of the loss by the logits of POLICY, over all pairs of answers ``behavior`` may give."""
    logits = POLICY.log().requires_grad_()
    said = logits.log_softmax(0)
    update = torch.zeros(3, dtype=torch.float64)
    for answers in itertools.product(range(3), repeat=2):
        chosen = torch.tensor(answers)
        x = Experience.from_lengths([1, 1], [1, 1], [2], reward=REWARDS[chosen], old_logp=behavior.log()[chosen])
        loss = objective(gate)(PolicyOutput(said[chosen]), x.replace(advantage=LeaveOneOut()(x))).loss
        update -= behavior[chosen].prod() * torch.autograd.grad(loss, logits, retain_graph=True)[0]
    return update


@pytest.mark.parametrize("gate", GATES + WIDE, ids=str)
def test_on_policy_the_update_is_the_exact_gradient(gate):
    assert expected_update(gate, POLICY).tolist() == pytest.approx(GRADIENT)


@pytest.mark.parametrize("gate", WIDE, ids=lambda gate: gate.part_name())
def test_off_policy_and_unclipped_the_update_is_the_exact_gradient(gate):
    assert expected_update(gate, torch.full((3,), 1 / 3, dtype=torch.float64)).tolist() == pytest.approx(GRADIENT)


def test_off_policy_an_answers_own_ratio_alone_is_unbiased_too():
    # What the partner earned is a baseline, and E[rho_i grad log pi] = 0; its ratio changes the noise, not the mean.
    uniform = torch.full((3,), 1 / 3, dtype=torch.float64)
    assert expected_update(Unclipped(), uniform).tolist() == pytest.approx(GRADIENT)


# ---- tokens and trajectories ----------------------------------------------------------------------------------------


def test_a_ratio_per_token_is_clipped_by_token_and_the_partner_weighed_as_a_whole():
    # Answers of two tokens and one; ratios 1.5, 0.9 and 2; returns 1 and 0.
    logs = torch.tensor([1.5, 0.9, 2.0]).log()
    x = Experience.from_lengths([2, 1], [1, 1], [2], reward=[1.0, 0.0], old_logp=torch.zeros(3))
    x = x.replace(advantage=LeaveOneOut()(x))
    logp = logs.clone().requires_grad_()
    loss = PolicyGradient(TokenRatio(), PairwiseClip(), SequenceSum())(PolicyOutput(logp), x).loss
    # The first's tokens, at 1.2 and 0.9, weigh the second's ratio of 2; the second's token, at 2 of d = -1, weighs
    # 1.5 * 0.9 = 1.35.
    assert -loss.item() == pytest.approx((2 * (1.2 + 0.9) - 1.35 * 2) / 2)
    loss.backward()
    assert (-logp.grad).tolist() == pytest.approx([0.0, 2 * 0.9 / 2, -1.35 * 2 / 2])


def test_what_differs_within_an_answer_is_refused():
    x = Experience.from_lengths([2, 1], [1, 1], [2], old_logp=torch.zeros(3), advantage=torch.tensor([1.0, 1.0, -1.0]))
    out = PolicyOutput(torch.tensor([0.1, 0.2, 0.0]))
    with pytest.raises(InputError, match="gate pairwise_joint_clip with ratio token_ratio: compares whole answers"):
        PolicyGradient(TokenRatio(), PairwiseJointClip(), SequenceSum())
    with pytest.raises(ValueError, match="the partner's ratio must not change within a trajectory"):
        objective(PairwiseClip(partner=TokenRatio()))(out, x)
    uneven = x.replace(advantage=torch.tensor([1.0, 2.0, -1.0]))
    for gate in GATES:
        with pytest.raises(ValueError, match="the advantage must not change within a trajectory"):
            objective(gate)(out, uneven)
        # Tokens that may not train may hold anything.
        masked = uneven.replace(mask=torch.tensor([True, False, True]))
        assert bool(objective(gate)(out, masked).loss.isfinite())
    longer = PolicyGradient(GeometricMeanRatio(), PairwiseJointClip(), SequenceMean())
    assert bool(longer(out, x).loss.isfinite())


@pytest.mark.parametrize("gate", GATES, ids=lambda gate: gate.part_name())
def test_pieces_of_whole_groups_add_up_and_cut_groups_are_refused(gate):
    x, logp = batch(5, masked=True)
    whole = objective(gate)(PolicyOutput(logp), x)
    group = x.group_of_trajectory.labels
    pieces = [x.microbatch(torch.isin(group, torch.tensor(groups))) for groups in ([0, 3], [1], [2])]
    results = [objective(gate)(PolicyOutput(piece.piece_of(logp)), piece) for piece in pieces]
    assert sum(result.loss.item() for result in results) == pytest.approx(whole.loss.item(), abs=1e-12)
    for name, value in whole.metrics.items():
        assert sum(result.metrics[name].item() for result in results) == pytest.approx(value.item(), abs=1e-6), name
    large = int(x.group_of_trajectory.size().argmax())
    one = x.microbatch(torch.nonzero((group == large) & (x.trajectory_of_token.size() > 0)).squeeze(1)[:1])
    with pytest.raises(ValueError, match=rf"only some of group {large}; cut batches between groups"):
        objective(gate)(PolicyOutput(one.piece_of(logp)), one)


@pytest.mark.parametrize("gate", GATES, ids=lambda gate: gate.part_name())
def test_an_answer_alone_in_its_group_and_an_empty_batch_teach_nothing(gate):
    x = Experience.from_lengths(
        [2, 1], [1, 1], [1, 1], advantage=torch.tensor([1.0, 1.0, -1.0]), old_logp=torch.zeros(3)
    )
    logp = torch.full((3,), 0.1, requires_grad=True)
    objective(gate)(PolicyOutput(logp), x).loss.backward()
    assert logp.grad.tolist() == [0.0] * 3
    empty = x.select(torch.zeros(2, dtype=torch.bool))
    assert objective(gate)(PolicyOutput(logp[:0]), empty).loss.item() == 0
    nothing = x.microbatch(torch.zeros(2, dtype=torch.bool))
    assert objective(gate)(PolicyOutput(logp[:0]), nothing).loss.item() == 0


def test_bounds_out_of_range_are_refused():
    for build in (lambda: PairwiseClip(low=-0.1), lambda: PairwiseJointClip(clip=-1.0), lambda: PairwiseClip(cap=0.0)):
        with pytest.raises(InputError, match=r"pairwise_(joint_)?clip\.(low|clip|cap)"):
            build()
