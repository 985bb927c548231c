"""The loss of a policy and of a critic."""

from __future__ import annotations

import math

import pytest
import torch

from stratagem.experience import Experience, PolicyOutput
from stratagem.objectives import (
    KL,
    BlendedPenalty,
    CenteredClip,
    Clip,
    ClippedWeight,
    EntropyBonus,
    GeometricMeanRatio,
    LogLikelihood,
    MaskedImportance,
    PolicyGradient,
    Restricted,
    SequenceMean,
    TokenMean,
    TokenRatio,
    TruncatedImportance,
    ValueLoss,
)


def batch(**fields) -> Experience:
    """Trajectories of one and three tokens."""
    given = {
        "old_logp": torch.full((4,), -1.0),
        "behavior_logp": torch.full((4,), -1.0),
        "ref_logp": torch.full((4,), -1.5),
        "previous_logp": torch.full((4,), -1.1),
        "advantage": torch.tensor([1.0, -1.0, 2.0, 0.5]),
        "value": torch.tensor([0.0, 0.5, 1.0, 1.5]),
        "value_target": torch.ones(4),
    }
    return Experience.from_lengths([1, 3], [1, 1], [2], **(given | fields))


def test_loss_and_metrics_worked_by_hand():
    # Ratios 1.5, 1, 1, 0.5 under a clip of 0.2 and weights 1/2, 1/6, 1/6, 1/6:
    # surrogates 1.2, -1, 2, 0.25, and 0.6 + (-1 + 2 + 0.25) / 6 = 0.808333.
    logp = (torch.tensor([1.5, 1.0, 1.0, 0.5]).log() - 1).requires_grad_()
    out = PolicyOutput(logp, entropy=torch.tensor([1.0, 2.0, 3.0, 4.0]))
    result = PolicyGradient()(out, batch())
    assert result.loss.item() == pytest.approx(-0.8083333)
    expected = {"policy_loss": -0.8083333, "ratio": 1.0, "entropy": 2.5}
    expected |= {"clip_fraction": 0.25, "clip_fraction_positive": 0.25, "active_fraction": 0.75}
    # k3 of the four: 1/1.5 - 1 + log 1.5, 0, 0, 2 - 1 - log 2.
    expected["kl_old"] = (1 / 1.5 - 1 + math.log(1.5) + 1 - math.log(2)) / 4
    # And to the reference at -1.5, with d larger by 0.5: exp(-d) is 1/1.5, 1, 1, 2 times exp(-0.5).
    shrink = math.exp(-0.5)
    expected["kl"] = (shrink * (1 / 1.5 + 1 + 1 + 2) - 4 + 4 * 0.5 + math.log(1.5) + math.log(0.5)) / 4
    assert {name: value.item() for name, value in result.metrics.items()} == pytest.approx(expected)
    result.loss.backward()
    assert logp.grad.tolist() == pytest.approx([0.0, 1 / 6, -2 / 6, -0.5 * 0.5 / 6])


def test_penalty_and_correction_enter_the_loss():
    x = batch(behavior_logp=torch.tensor([-1.0, -1 - math.log(2), -1.0, -1.0]))
    out = PolicyOutput(torch.full((4,), -1.0))
    objective = PolicyGradient(aggregation=TokenMean(), correction=TruncatedImportance(), regularizer=0.1 * KL("k1"))
    result = objective(out, x)
    # Weights 1, 2, 1, 1 on the advantages: (1 - 2 + 2 + 0.5) / 4 = 0.375; KL 0.5 at every token.
    assert result.loss.item() == pytest.approx(-0.375 + 0.05)
    assert result.metrics["correction"].item() == pytest.approx(1.25)
    assert result.metrics["regularizer"].item() == pytest.approx(0.05)


def test_what_a_masking_correction_removes_is_still_counted_by_the_normaliser():
    x = batch(behavior_logp=torch.tensor([-1.0, -9.0, -1.0, -1.0]))
    objective = PolicyGradient(aggregation=TokenMean(), correction=MaskedImportance())
    assert objective(PolicyOutput(torch.full((4,), -1.0)), x).loss.item() == pytest.approx(-(1 + 2 + 0.5) / 4)


def test_the_value_loss_worked_by_hand():
    out = PolicyOutput(torch.zeros(4), value=torch.tensor([1.0, 0.5, 2.0, 3.0]))
    # Squared errors 0, 0.25, 1, 4: mean 1.3125, half of it 0.65625.
    result = ValueLoss(weight=0.5)(out, batch())
    assert result.metrics["value_loss"].item() == pytest.approx(0.65625)
    assert result.loss.item() == pytest.approx(0.328125)
    # Moves bounded to 0.5: values 0.5, 0.5, 1.5, 2; squared 0.25, 0.25, 0.25, 1; the greater 0.25, 0.25, 1, 4.
    clipped = ValueLoss(weight=1.0, clip=0.5)(out, batch())
    assert clipped.loss.item() == pytest.approx(5.5 / 8)
    assert clipped.metrics["value_clip_fraction"].item() == 0.25


POISON = {"old_logp": math.nan, "previous_logp": -math.inf, "ref_logp": math.nan, "behavior_logp": math.inf,
          "advantage": math.nan, "value": math.nan, "value_target": math.nan}  # fmt: skip


@pytest.mark.parametrize("poison", [-math.inf, math.inf, math.nan])
@pytest.mark.parametrize(
    "objective",
    [
        PolicyGradient(),
        PolicyGradient(gate=LogLikelihood()),
        PolicyGradient(gate=ClippedWeight()),
        PolicyGradient(gate=Clip(dual=3.0), correction=TruncatedImportance("trajectory")),
        PolicyGradient(ratio=GeometricMeanRatio(), aggregation=SequenceMean(), correction=MaskedImportance()),
        PolicyGradient(regularizer=0.1 * KL("k1") + 0.1 * KL("k2") + KL("k3") + EntropyBonus(), critic=ValueLoss()),
        PolicyGradient(critic=ValueLoss(clip=0.1)),
        PolicyGradient(
            ratio=TokenRatio("behavior"), gate=CenteredClip(), regularizer=BlendedPenalty(KL(), KL(to="previous"), 0.3)
        ),
        ValueLoss(),
    ],
    ids=lambda objective: type(objective).__name__,
)
def test_whatever_masked_tokens_hold_poisons_neither_loss_nor_metrics_nor_gradient(objective, poison):
    mask = torch.tensor([True, False, True, False])

    def learned(x: Experience, fill: float):
        said = torch.tensor([-1.2, -0.8, -0.9, -1.1])
        outputs = [torch.where(mask, said, fill).requires_grad_() for _ in range(3)]
        result = objective(PolicyOutput(*outputs), x)
        result.loss.backward()
        return result, [output.grad for output in outputs if output.grad is not None]

    clean, expected = learned(batch(mask=mask), -1.0)
    fields = {name: torch.where(mask, getattr(batch(), name), value) for name, value in POISON.items()}
    result, actual = learned(batch(mask=mask, **fields), poison)
    assert result.loss.item() == pytest.approx(clean.loss.item())
    for name, value in result.metrics.items():
        assert value.item() == pytest.approx(clean.metrics[name].item()), name
    for one, other in zip(actual, expected, strict=True):
        assert bool(one.isfinite().all())
        assert torch.allclose(one, other)
        assert one[~mask].tolist() == [0.0, 0.0]


def test_no_gradient_and_no_signal_where_nobody_is_credited():
    x = batch(advantage=torch.zeros(4))
    assert not PolicyGradient().has_signal(x)
    assert PolicyGradient(regularizer=KL()).has_signal(x)
    assert PolicyGradient().has_signal(batch())
    assert not PolicyGradient().has_signal(batch(mask=torch.zeros(4, dtype=torch.bool)))
    logp = torch.full((4,), -1.2, requires_grad=True)
    PolicyGradient()(PolicyOutput(logp), x).loss.backward()
    assert logp.grad.tolist() == [0.0] * 4


def test_an_objective_without_what_it_reads_says_so():
    with pytest.raises(ValueError, match=r"needs x\.advantage"):
        PolicyGradient()(PolicyOutput(torch.zeros(4)), batch(advantage=None))
    with pytest.raises(ValueError, match="value loss needs"):
        ValueLoss()(PolicyOutput(torch.zeros(4)), batch())


# ---- a critic that learns from other tokens than the policy ----------------------------------------------------------

SPLIT = {"mask": [True, False, True, True], "critic_mask": [False, True, True, False]}


def test_policy_and_critic_learn_from_tokens_of_their_own_and_normalise_by_them():
    logp, value = torch.full((4,), -1.0, requires_grad=True), torch.tensor([1.0, 0.5, 2.0, 3.0], requires_grad=True)
    objective = PolicyGradient(aggregation=TokenMean(), critic=ValueLoss(1.0))
    objective(PolicyOutput(logp, value=value), batch(**SPLIT)).loss.backward()
    assert logp.grad.tolist() == pytest.approx([-1 / 3, 0, -2 / 3, -0.5 / 3])
    # Of two tokens with errors -0.5 and 1.
    assert value.grad.tolist() == pytest.approx([0, -0.25, 0.5, 0])


@pytest.mark.parametrize("poison", [-math.inf, math.nan])
def test_what_the_critic_may_not_see_poisons_nothing_and_what_the_policy_may_not_see_still_teaches_the_critic(poison):
    mask, critic_mask = torch.tensor(SPLIT["mask"]), torch.tensor(SPLIT["critic_mask"])
    x = batch(**SPLIT)
    spoiled = {"old_logp": mask, "advantage": mask, "value": critic_mask, "value_target": critic_mask}
    x = x.replace(**{name: torch.where(seen, getattr(x, name), poison) for name, seen in spoiled.items()})
    logp = torch.where(mask, -1.0, poison).requires_grad_()
    value = torch.where(critic_mask, torch.tensor([1.0, 0.5, 2.0, 3.0]), poison).requires_grad_()
    result = PolicyGradient(aggregation=TokenMean(), critic=ValueLoss(1.0))(PolicyOutput(logp, value=value), x)
    result.loss.backward()
    assert bool(result.loss.isfinite()) and all(bool(metric.isfinite()) for metric in result.metrics.values())
    assert logp.grad.tolist() == pytest.approx([-1 / 3, 0, -2 / 3, -0.5 / 3])
    assert value.grad.tolist() == pytest.approx([0, -0.25, 0.5, 0])


def test_two_masks_do_not_depend_on_how_the_batch_is_cut():
    out = PolicyOutput(torch.full((4,), -1.2), value=torch.tensor([1.0, 0.5, 2.0, 3.0]))
    objective, x = PolicyGradient(aggregation=TokenMean(), critic=ValueLoss()), batch(**SPLIT)
    whole = objective(out, x)
    pieces = []
    for rows, tokens in ((torch.tensor([1]), slice(1, 4)), (torch.tensor([0]), slice(0, 1))):
        pieces.append(objective(PolicyOutput(out.logp[tokens], value=out.value[tokens]), x.microbatch(rows)))
    assert sum(piece.loss.item() for piece in pieces) == pytest.approx(whole.loss.item())
    for name, value in whole.metrics.items():
        assert sum(piece.metrics[name].item() for piece in pieces) == pytest.approx(value.item()), name


def test_a_loss_restricted_to_a_part_restricts_its_critic_as_well():
    x = batch(**SPLIT, demonstrated=[True, False])
    value = torch.tensor([1.0, 0.5, 2.0, 3.0], requires_grad=True)
    Restricted(ValueLoss(1.0), "demonstrations")(PolicyOutput(torch.zeros(4), value=value), x).loss.backward()
    assert value.grad.tolist() == [0.0] * 4
    Restricted(ValueLoss(1.0), "rollouts")(PolicyOutput(torch.zeros(4), value=value), x).loss.backward()
    assert value.grad.tolist() == pytest.approx([0, -0.25, 0.5, 0])
