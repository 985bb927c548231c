"""Losses of log-ratios between whole answers."""

from __future__ import annotations

import math

import pytest
import torch

from stratagem.experience import Experience, PolicyOutput
from stratagem.objectives import LogisticComparison, LogRatioRegression
from stratagem.preferences import GeometricMixture

EITHER = (LogRatioRegression(compared=True), LogisticComparison())


def batch(sizes: tuple[int, ...] = (2, 3), **fields: object) -> Experience:
    """Answers of two tokens with random figures; win rates of a group add up to 0."""
    source = torch.Generator().manual_seed(0)
    count = sum(sizes)

    def noise(rows: int) -> torch.Tensor:
        return torch.randn(rows, generator=source, dtype=torch.float64)

    x = Experience.from_lengths([2] * count, [1] * count, list(sizes), reward=noise(count))
    known = {"old_logp": noise(2 * count) - 1, "ref_logp": noise(2 * count) - 1, "previous_logp": noise(2 * count) - 1}
    credit = x.to_tokens(trajectory=0.1 * x.group_of_trajectory.center(x.returns))
    return x.replace(**{"advantage": credit, **known, **fields})


def said(x: Experience, seed: int = 1) -> PolicyOutput:
    source = torch.Generator().manual_seed(seed)
    return PolicyOutput(torch.randn(x.tokens, generator=source, dtype=torch.float64, requires_grad=True))


def by_answer(values: torch.Tensor) -> torch.Tensor:
    return values.view(-1, 2).sum(1)


def test_log_ratios_are_sums_over_answers_to_the_mixture():
    x = batch()
    out = said(x)
    anchor = GeometricMixture(reference=0.3, previous=0.2)
    mixed = 0.5 * x.old_logp + 0.3 * x.ref_logp + 0.2 * x.previous_logp
    h = by_answer(out.logp - mixed)
    expected = (h - 2 * x.advantage[::2]).square().mean()
    found = LogRatioRegression(anchor=anchor, gain=2.0)(out, x)
    torch.testing.assert_close(found.loss, expected)
    torch.testing.assert_close(found.metrics["log_ratio"], h.mean().detach())
    torch.testing.assert_close(found.metrics["log_ratio_size"], h.abs().mean().detach())
    torch.testing.assert_close(found.metrics["target_size"], 2 * x.advantage[::2].abs().mean())


def test_compared_it_is_the_mean_over_pairs_of_the_group():
    x = batch()
    out = said(x)
    h, a = by_answer(out.logp - x.old_logp), x.advantage[::2]
    of_group = []
    for rows in ((0, 1), (2, 3, 4)):
        pairs = [(h[i] - h[j] - 2 * (a[i] - a[j])).square() for i in rows for j in rows if i != j]
        of_group.append(len(rows) * torch.stack(pairs).mean())
    torch.testing.assert_close(
        LogRatioRegression(gain=2.0, compared=True)(out, x).loss, torch.stack(of_group).sum() / 5
    )


def test_without_old_log_probabilities_the_policy_has_not_moved():
    x = batch().replace(old_logp=None)
    out = said(x)
    found = LogRatioRegression(gain=2.0)(out, x)
    torch.testing.assert_close(found.loss.detach(), (2 * x.advantage[::2]).square().mean())
    found.loss.backward()
    torch.testing.assert_close(out.logp.grad, -4 * x.advantage / 5)


@pytest.mark.parametrize("objective", EITHER)
def test_an_answer_alone_has_nothing_to_compare(objective):
    x = batch((1, 2))
    out = said(x)
    objective(out, x).loss.backward()
    assert not out.logp.grad[:2].any() and out.logp.grad[2:].all()


@pytest.mark.parametrize("objective", [*EITHER, LogRatioRegression(), LogRatioRegression(answers="extremes")])
def test_an_answer_that_may_not_train_does_not_count(objective):
    """As if it had never been there, whatever its tokens hold."""
    x = batch((3, 2))
    gone = torch.ones(10, dtype=torch.bool)
    gone[2:4] = False
    without = x.select(torch.tensor([0, 2, 3, 4]))
    without_out = said(x)
    logp = without_out.logp.detach().clone()
    logp[2:4] = -math.inf
    figures = {name: getattr(x, name).clone() for name in ("advantage", "old_logp", "ref_logp")}
    for values in figures.values():
        values[2:4] = math.nan
    masked = objective(PolicyOutput(logp), x.replace(mask=gone, **figures)).loss
    torch.testing.assert_close(masked, objective(PolicyOutput(without_out.logp[gone]), without).loss)


@pytest.mark.parametrize("objective", EITHER)
def test_a_group_that_was_cut_is_refused(objective):
    x = batch()
    piece = x.microbatch(torch.tensor([0, 1, 2]))
    with pytest.raises(ValueError, match="only some of group 1"):
        objective(said(piece), piece)


def test_answers_by_themselves_may_be_cut_anywhere():
    x = batch()
    out = said(x)
    for objective in (LogRatioRegression(), LogRatioRegression(answers="extremes")):
        pieces = [x.microbatch(torch.tensor(rows)) for rows in ([0, 3], [1, 2, 4])]
        losses = [objective(PolicyOutput(out.logp[piece.parent[1]]), piece).loss for piece in pieces]
        torch.testing.assert_close(sum(losses), objective(out, x).loss)
        assert not objective.needs_whole_groups()


def test_extremes_are_two_answers_of_a_group_even_where_some_tie():
    credit = torch.tensor([0.2, 0.2, -0.2, -0.2, 0.0, 0.0])
    x = Experience.from_lengths(
        [1] * 6, [1] * 6, [4, 2], advantage=credit, old_logp=torch.zeros(6), reward=torch.zeros(6)
    )
    logp = torch.tensor([0.1, 5, 0.3, 5, 5, 5])
    found = LogRatioRegression(answers="extremes")(PolicyOutput(logp), x)
    assert float(found.loss) == pytest.approx((0.01 + 0.25) / 2)


def test_agreement_is_of_signs():
    x = Experience.from_lengths(
        [1, 1], [1, 1], [2], advantage=torch.tensor([0.2, -0.2]), old_logp=torch.zeros(2), reward=torch.zeros(2)
    )
    assert LogRatioRegression()(PolicyOutput(torch.tensor([0.1, 0.1])), x).metrics["agreement"] == 0.5


def test_what_is_missing_is_named():
    x = batch()
    with pytest.raises(ValueError, match=r"needs x\.advantage"):
        LogRatioRegression()(said(x), x.replace(advantage=None))
    with pytest.raises(ValueError, match=r"needs x\.ref_logp"):
        LogisticComparison(GeometricMixture(1.0))(said(x), x.replace(ref_logp=None))


def test_a_batch_without_a_token_that_may_train_has_no_signal():
    x = batch()
    assert LogRatioRegression().has_signal(x)
    assert not LogRatioRegression().has_signal(x.replace(mask=torch.zeros(x.tokens, dtype=torch.bool)))
