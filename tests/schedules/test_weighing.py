"""Rewards weighed by the front that was reached, and by their gradients."""

from __future__ import annotations

import math

import pytest
import torch

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.schedules import FrontGain, GradientInfluence

SCALE = "rewards.reward_weights.scale"


def scales(schedule: FrontGain, *points: tuple[float, ...]) -> list[float]:
    """The knob after each measurement."""
    found = []
    for point in points:
        schedule.judge(point)
        found.append(schedule(0, {})[SCALE])
    return found


class Answers:
    """A gauge whose fresh batches have these mean rewards, one after the other."""

    def __init__(self, points: list[tuple[float, ...] | None]) -> None:
        self.points = points

    def sampled(self, sampler: object) -> Experience | None:
        point = self.points.pop(0)
        if point is None:
            return None
        x = Experience.from_lengths([1], [1], [1])
        return x.replace(reward=torch.tensor([point]), reward_names=("a", "b"), reward_weights=(1.0, 1.0))


def products(*gradients: tuple[float, ...]) -> torch.Tensor:
    rows = torch.tensor(gradients, dtype=torch.float64)
    return rows @ rows.T


def influence(weights: tuple[float, ...], **fields: object) -> GradientInfluence:
    schedule = GradientInfluence(**{"max_norm": None, **fields})
    schedule.begin(weights)
    return schedule


# ---- by the front ---------------------------------------------------------------------------------------------------


def test_the_scale_follows_what_a_point_adds_to_the_front():
    found = scales(FrontGain(), (0.1, 0.1), (0.3, 0.4), (0.3, 0.4), (0.2, 0.3), (0.4, 0.2), (0.05, 0.9))
    tanh = [1.5 * math.tanh(gain) for gain in (0.06, 0.0, 0.0, 0.01, 0.0)]
    assert found == pytest.approx([1.0, *(0.5 + value for value in tanh)])
    assert found[1] == pytest.approx(0.58989, abs=1e-5)


def test_the_scale_is_at_most_2_and_only_points_that_gain_are_kept():
    schedule = FrontGain()
    assert scales(schedule, (0, 0), (1, 1), (1e3, 1e3))[-1] == 2
    assert schedule.memory()["points"].tolist() == [[0, 0], [1, 1], [1e3, 1e3]]
    assert scales(schedule, (0.5, 0.5)) == [0.5] and len(schedule.memory()["points"]) == 3


def test_between_measurements_the_scale_stays_and_what_is_no_number_is_ignored():
    schedule = FrontGain(every=3, begin=2)
    assert [step for step in range(9) if schedule.due(step)] == [2, 5, 8]
    gauge = Answers([(0.0, 0.0), (0.5, 0.5), (math.nan, 1.0)])
    measured = [dict(schedule.before_batch(step, gauge)) for step in range(10)]
    names = ("validation/a", "validation/b")
    assert measured[2] == dict.fromkeys(names, 0.0) and measured[5] == dict.fromkeys(names, 0.5)
    assert all(measured[step] == {} for step in (0, 1, 3, 4, 6, 7, 9))
    raised = 0.5 + 1.5 * math.tanh(0.25)
    assert schedule(9, {"validation/a": 9.0, "validation/b": 9.0})[SCALE] == pytest.approx(raised)
    assert schedule.memory()["points"].tolist() == [[0, 0], [0.5, 0.5]]


def test_without_a_token_nothing_is_measured():
    schedule = FrontGain()
    assert schedule.before_batch(0, Answers([None])) == {} and not schedule.memory()["points"].numel()


def test_the_front_outlives_a_change_of_fields_and_a_checkpoint():
    schedule = FrontGain()
    scales(schedule, (0.0, 0.0), (0.5, 0.2), (0.2, 0.5))
    for restored in (schedule.replace(low=0.4), FrontGain()):
        restored.load_state_dict({name: tensor.clone() for name, tensor in schedule.state_dict().items()})
        assert torch.equal(restored.memory()["points"], schedule.memory()["points"])
        assert scales(restored, (0.5, 0.2)) == [restored.low]


# ---- by their gradients ---------------------------------------------------------------------------------------------


def test_weight_goes_to_the_reward_whose_gradient_helps_all():
    schedule = influence((0.5, 0.5))
    found = schedule.move(products((1, 0), (1, 1)), 1.0)
    assert found.tolist() == [2, 3]
    assert schedule.weights == pytest.approx((0.47502, 0.52498), abs=1e-5)


@pytest.mark.parametrize("gradients", [((1, 2), (-1, -2)), ((3, 0), (0, 3)), ((0, 0), (0, 0))])
def test_opposed_orthogonal_and_missing_gradients_leave_the_weights(gradients):
    schedule = influence((0.3, 0.7))
    schedule.move(products(*gradients), 1.0)
    assert schedule.weights == pytest.approx((0.3, 0.7), abs=1e-12)


def test_weights_stay_on_the_simplex_above_the_floor_and_a_step_of_0_moves_nothing():
    schedule, still = influence((1, 2, 1), step=50.0), influence((1, 2, 1), step=0.0)
    for _ in range(5):
        for moved in (schedule, still):
            moved.move(products((1, 0), (1, 1), (5, 9)), 1.0)
    assert sum(schedule.weights) == pytest.approx(1) and min(schedule.weights) == pytest.approx(1e-4, rel=1e-3)
    assert still.weights == pytest.approx((0.25, 0.5, 0.25))


def test_a_reward_of_weight_0_keeps_it():
    schedule = influence((1.0, 0.0, 1.0))
    schedule.move(products((1, 0), (0, 0), (1, 1)), 1.0)
    assert schedule.weights == pytest.approx((0.47502, 0.0, 0.52498), abs=1e-5)


def test_the_step_may_follow_the_learning_rate():
    """In the released scripts it is the learning rate over 1e-5."""
    given, follows = influence((0.5, 0.5)), influence((0.5, 0.5), step=7.0, regularization=1e-5)
    given.move(products((1, 0), (1, 1)), 3.0)
    follows.move(products((1, 0), (1, 1)), 1e-6)
    assert follows.weights == pytest.approx(given.weights)


def test_long_gradients_are_scaled_down_to_the_largest_length_as_released():
    clipped = influence((0.5, 0.5), max_norm=1.0).move(products((0.5, 0), (30, 40)), 1.0)
    assert clipped.tolist() == pytest.approx([0.25 + 0.3, 0.3 + 1.0])


def test_normalised_gradients_do_not_depend_on_the_scale_of_all():
    small, large = (
        influence((0.5, 0.5), normalized=True).move(products((scale, 0), (scale, scale)), 1.0) for scale in (1e-4, 10.0)
    )
    assert small.tolist() == pytest.approx(large.tolist())
    mean = (1 + math.sqrt(2)) / 2
    assert small.tolist() == pytest.approx([2 / mean**2, 3 / mean**2])


def test_influences_are_averaged_over_the_batches_of_a_move():
    schedule = influence((0.5, 0.5), accumulation=2)
    schedule.move(products((1, 0), (1, 1)), 1.0)
    assert schedule.weights == (0.5, 0.5)
    schedule.move(products((0, 0), (0, 0)), 1.0)
    assert schedule.weights == pytest.approx(torch.softmax(torch.tensor([0.1, 0.15]), 0).tolist(), abs=1e-6)


def test_a_gradient_that_is_not_finite_leaves_the_weights_with_a_warning():
    schedule = influence((0.5, 0.5))
    with pytest.warns(UserWarning, match="a gradient is not finite; the weights stay"):
        schedule.move(products((math.nan, 0), (1, 1)), 1.0)
    assert schedule.weights == (0.5, 0.5)


@pytest.mark.parametrize("weights", [(1.0, -1.0), (0.0, 0.0)])
def test_weights_it_cannot_begin_with_are_refused(weights):
    with pytest.raises(InputError, match="must be at least 0, not all 0"):
        GradientInfluence().begin(weights)
