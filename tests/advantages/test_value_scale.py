from __future__ import annotations

import pytest
import torch

from stratagem.advantages import GAE, BatchWhitened, NormalizedValues
from stratagem.experience import Experience


def batch(scale: float = 1.0, **fields: object) -> Experience:
    """Two trajectories of two turns with one token each; the first ended, the second was cut."""
    given = {
        "turn_reward": torch.tensor([1.0, 2.0, 3.0, 4.0]) * scale,
        "value": torch.tensor([0.5, -0.5, 1.0, 0.0]),
        "finished": [True, False],
        "final_value": torch.tensor([0.0, 2.0]),
        **fields,
    }
    return Experience.from_lengths([1] * 4, [2, 2], [1, 1], **given)  # type: ignore[arg-type]


def test_before_the_first_batch_values_are_as_the_critic_says_them() -> None:
    x, part = batch(), NormalizedValues(GAE(0.9, 0.8))
    assert torch.equal(part(x), GAE(0.9, 0.8)(x))
    assert part.scale == (0.0, 1.0)


def test_targets_are_given_out_with_mean_0_and_deviation_1_of_all_so_far() -> None:
    part = NormalizedValues(GAE(1.0, 1.0), decay=0.5)
    first = GAE(1.0, 1.0).value_target(batch())
    assert first.tolist() == [3, 2, 9, 6]
    said = part.value_target(batch())
    assert part.scale == pytest.approx((5, float(first.std(correction=0))))
    assert torch.allclose(said, (first - 5) / first.std(correction=0))
    # The second batch counts twice the first one: targets of 0 and 10 times the first.
    mean, deviation = part.scale
    x = batch(10.0)
    restored = x.replace(value=mean + deviation * x.value, final_value=torch.tensor([0.0, mean + 2 * deviation]))
    raw = GAE(1.0, 1.0).value_target(restored)
    said = part.value_target(x)
    both = (first.double().mean() + 2 * raw.double().mean()) / 3
    squares = (first.double().square().mean() + 2 * raw.double().square().mean()) / 3
    assert part.scale == pytest.approx((float(both), float((squares - both**2).sqrt())))
    assert torch.allclose(said.double(), (raw.double() - both) / (squares - both**2).sqrt(), atol=1e-5)


def test_the_advantage_reads_values_on_the_scale_of_returns_and_0_after_an_end() -> None:
    part = NormalizedValues(GAE(0.9, 0.7))
    part.value_target(batch())
    mean, deviation = part.scale
    x = batch()
    restored = x.replace(value=mean + deviation * x.value, final_value=torch.tensor([0.0, mean + deviation * 2.0]))
    assert torch.allclose(part(x), GAE(0.9, 0.7)(restored))


def test_a_spread_of_nothing_is_bounded() -> None:
    part = NormalizedValues(GAE(1.0, 1.0))
    part.value_target(batch(turn_reward=torch.tensor([0.0, 5.0, 5.0, 0.0]), final_value=torch.tensor([0.0, 0.0])))
    assert part.scale[1] >= 0.1


def test_tokens_the_critic_does_not_learn_from_do_not_count() -> None:
    part, mask = NormalizedValues(GAE(1.0, 1.0)), torch.tensor([True, True, False, False])
    part.value_target(batch(mask=mask))
    assert part.scale[0] == pytest.approx(2.5)
    part = NormalizedValues(GAE(1.0, 1.0))
    part.value_target(batch(mask=mask, critic_mask=torch.ones(4, dtype=torch.bool)))
    assert part.scale[0] == pytest.approx(5.0)


def test_what_was_counted_is_memory_of_the_recipe() -> None:
    part, other = (BatchWhitened(NormalizedValues(GAE())) for _ in range(2))
    part.value_target(batch())
    other.load_state_dict(part.state_dict())
    assert torch.equal(other(batch()), part(batch())) and part.state_dict()["of.sums"].count_nonzero() == 3


def test_a_batch_without_values_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"normalized_values needs x\.value"):
        NormalizedValues(GAE())(batch(value=None))
