"""A penalty by difficulty: where buckets end, and how its strength follows the KL."""

from __future__ import annotations

import math

import pytest
import torch

from stratagem.experience import Experience, PolicyOutput
from stratagem.objectives import KL, ControlledByDifficulty, difficulty

PRESENT = torch.zeros(3)


def batch(kl: float) -> tuple[PolicyOutput, Experience]:
    """An easy, a medium and a hard group of one token each, of which the last may not train; k1 is ``kl``."""
    x = Experience.from_lengths(
        [1] * 3,
        [1] * 3,
        [1] * 3,
        ref_logp=torch.tensor([-1.0, -1.0, math.nan]),
        pass_rate=torch.tensor([2 / 3, 1 / 3, 0.0]),
        mask=[True, True, False],
    )
    return PolicyOutput(torch.full((3,), -1.0 + kl)), x


def run(part: ControlledByDifficulty, kl: float, steps: int) -> list[list[float]]:
    found = []
    for _ in range(steps):
        part(*batch(kl))
        part.after_step(taken=True)
        found.append(part.memory()["log_beta"].tolist())
    return found


def test_thresholds_of_difficulty_are_inclusive():
    rates = torch.tensor([1.0, 2 / 3, 0.6666, 1 / 3, 0.3332, 0.0])
    assert difficulty(rates).tolist() == [0, 0, 1, 1, 2, 2]
    assert difficulty(rates.double()).tolist() == [0, 0, 1, 1, 2, 2]


def test_twice_the_budget_raises_the_strength_slowly_and_no_faster_than_allowed():
    logs = run(ControlledByDifficulty(KL("k1"), every=1), 0.02, 60)
    easy, medium, hard = zip(*logs, strict=True)
    assert easy == medium
    assert set(hard) == {0.0}, "a bucket without a token that may train keeps what it has"
    assert easy[0] == pytest.approx(0.05 * 0.03, rel=1e-4)
    steps = [b - a for a, b in zip((0.0, *easy), easy, strict=False)]
    assert min(steps) > 0
    assert max(steps) == pytest.approx(0.05 * 0.2)


def test_at_the_budget_nothing_moves_and_below_it_the_strength_falls():
    assert run(ControlledByDifficulty(KL("k1"), every=1), 0.01, 5)[-1] == [0, 0, 0]
    assert run(ControlledByDifficulty(KL("k1"), every=1), 0.0101, 5)[-1] == [0, 0, 0]
    assert run(ControlledByDifficulty(KL("k1"), every=1), 0.005, 5)[-1][0] < 0


def test_the_strength_moves_every_so_many_steps_that_were_taken():
    part = ControlledByDifficulty(KL("k1"), every=3)
    logs = [row[0] for row in run(part, 0.02, 6)]
    assert logs[0] == logs[1] == 0 < logs[2] == logs[3] < logs[5]
    before = part.memory()["log_beta"].clone()
    for _ in range(6):
        part(*batch(0.02))
        part.after_step(taken=False)
    assert torch.equal(part.memory()["log_beta"], before)


def test_each_bucket_is_penalised_by_its_own_strength_within_bounds():
    part = ControlledByDifficulty(KL("k1"), rate=50.0, every=1, most=5.0)
    out, x = batch(0.5)
    assert part(out, x)[:2].tolist() == pytest.approx([0.5, 0.5])
    part.after_step(taken=True)
    assert part(out, x)[:2].tolist() == pytest.approx([50.0, 50.0])
    part.memory()["log_beta"].copy_(torch.tensor([0.0, math.log(3.0), 0.0]))
    assert part(out, x)[:2].tolist() == pytest.approx([0.5, 1.5])


def test_pieces_of_a_batch_are_one_step():
    source = torch.Generator().manual_seed(0)
    x = Experience.from_lengths(
        [3] * 8, [1] * 8, [2] * 4, ref_logp=torch.randn(24, generator=source), pass_rate=torch.tensor([0.0, 0.5, 1, 0])
    )
    logp = torch.randn(24, generator=source)
    whole, cut = ControlledByDifficulty(every=1), ControlledByDifficulty(every=1)
    whole(PolicyOutput(logp), x)
    for rows in (torch.arange(3), torch.arange(3, 8)):
        cut(PolicyOutput(logp[3 * rows[0] : 3 * rows[-1] + 3]), x.microbatch(rows))
    for part in (whole, cut):
        part.after_step(taken=True)
    for name, value in whole.memory().items():
        torch.testing.assert_close(value, cut.memory()[name])


def test_no_rate_is_the_plain_penalty_and_a_batch_without_pass_rates_is_refused():
    part = ControlledByDifficulty(KL("k3"), rate=0.0, every=1)
    run(part, 0.5, 3)
    out, x = batch(0.3)
    assert torch.equal(part(out, x)[:2], KL("k3")(out, x)[:2])
    with pytest.raises(ValueError, match=r"x\.pass_rate"):
        part(out, x.replace(pass_rate=None))
