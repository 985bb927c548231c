"""The weight of a blend, moved by measured gradients and by entropy."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from stratagem.errors import InputError
from stratagem.schedules import GradientProbe, MetaWeight


def measured(imitation: float, exploration: float, rate: float = 0.1, **more: float) -> dict[str, float]:
    """Metrics of a step whose gradients, validation's included, are the numbers of one parameter."""
    validation = more.pop("validation", -1.0)

    def sign(value: float) -> float:
        return math.copysign(1, value * validation) if value * validation else 0.0

    return {
        "gradient/learning_rate": rate,
        "gradient/norm/validation": abs(validation),
        "gradient/product/imitation": validation * imitation,
        "gradient/product/exploration": validation * exploration,
        "gradient/cosine/imitation": sign(imitation),
        "gradient/cosine/exploration": sign(exploration),
        **more,
    }


def controller(**fields) -> MetaWeight:
    return MetaWeight(**({"begin": 0, "initial": 0.5, "meta_rate": 1.0, "entropy_rate": 0.0, "most": 1.0} | fields))


def weight(schedule: MetaWeight, step: int, metrics: dict[str, float]) -> float:
    return schedule(step, metrics)["objective.weight"]


# ---- the meta-gradient ----------------------------------------------------------------------------------------------


def test_it_rises_when_imitation_lowers_the_validation_loss_more():
    # L_S = (theta - 1)^2 / 2, L_R = (theta + 1)^2 / 2, L_V = L_S, theta = 0: dU/dmu = 2 a.
    assert weight(controller(), 1, measured(-1.0, 1.0)) == pytest.approx(0.5 + 2 * 0.1)


def test_the_released_sign_does_the_opposite():
    assert weight(controller(sign="released"), 1, measured(-1.0, 1.0)) == pytest.approx(0.5 - 2 * 0.1)


def test_the_derivative_is_that_of_the_validation_loss_one_step_ahead():
    """In the quadratic at mu = 1/2 the step leads nowhere, so here and ahead are the same place."""

    def gain(mu: float) -> float:
        theta = 0.0 - 0.1 * ((1 - mu) * 1.0 + mu * -1.0)
        return -((theta - 1) ** 2) / 2

    difference = (gain(0.5 + 1e-4) - gain(0.5 - 1e-4)) / 2e-4
    assert difference == pytest.approx(0.2, rel=1e-6)
    assert weight(controller(), 1, measured(-1.0, 1.0)) - 0.5 == pytest.approx(difference)


def test_equal_gradients_leave_it_alone():
    assert weight(controller(), 1, measured(0.7, 0.7)) == 0.5


def test_a_part_with_nothing_to_learn_from_has_no_gradient():
    assert weight(controller(), 1, measured(0.0, 1.0)) == pytest.approx(0.5 + 0.1)
    assert weight(controller(normalized=True), 1, measured(0.0, 1.0)) == pytest.approx(1.0 - 0.05)


def test_cosines_do_not_know_the_scale_of_a_loss_or_the_learning_rate():
    small, large = measured(-1e-6, 1e-9, rate=1e-6), measured(-1e6, 1e3)
    for metrics in (small, large):
        assert weight(controller(normalized=True, meta_rate=0.1), 1, metrics) == pytest.approx(0.5 + 0.1 * 2)


@pytest.mark.parametrize(("goal", "bound", "place"), [(1.0, 0.95, 0.9), (-1.0, 0.05, -0.9)])
def test_on_the_quadratic_it_goes_to_the_bound_and_the_parameter_to_its_mixture(goal, bound, place):
    schedule, theta, mu = controller(), 0.0, 0.5
    metrics: dict[str, float] = {}
    for step in range(400):
        mu = weight(schedule, step, metrics)
        imitation, exploration = theta - 1, theta + 1
        metrics = measured(imitation, exploration, validation=theta - goal)
        theta -= 0.1 * ((1 - mu) * exploration + mu * imitation)
    assert mu == pytest.approx(bound)
    assert theta == pytest.approx(place, abs=1e-6)


# ---- entropy --------------------------------------------------------------------------------------------------------


def noted(schedule: MetaWeight, entropy: float, batches: int = 1) -> None:
    for step in range(1, batches + 1):
        schedule(step, {"entropy": entropy})


def test_low_entropy_raises_it():
    schedule = controller(meta_rate=0.0, entropy_rate=0.01, entropy_batches=1)
    noted(schedule, 1.0)
    assert weight(schedule, 2, measured(-1.0, 1.0, entropy=0.5)) == pytest.approx(0.505)


def test_or_lowers_it_with_the_other_sign():
    schedule = controller(meta_rate=0.0, entropy_rate=0.01, entropy_batches=1, entropy_sign=-1)
    noted(schedule, 1.0)
    assert weight(schedule, 2, measured(-1.0, 1.0, entropy=0.5)) == pytest.approx(0.495)


def test_the_target_is_the_mean_of_the_first_batches_after_the_warm_up():
    schedule = controller(begin=10, meta_rate=0.0, entropy_rate=0.1, entropy_batches=3)
    for step in range(11):  # What is said at step 10 is of the warm-up's last batch.
        schedule(step, {"entropy": 100.0})
    for step, entropy in enumerate((1.0, 2.0, 3.0, 50.0), 11):
        schedule(step, {"entropy": entropy})
    assert weight(schedule, 15, measured(0, 0, entropy=1.0)) == pytest.approx(0.5 + 0.1 * (2.0 - 1.0))


# ---- phases, bounds, faults -----------------------------------------------------------------------------------------


def test_the_warm_up_is_imitation_alone():
    schedule = MetaWeight(begin=3, initial=0.8)
    assert [weight(schedule, step, {}) for step in range(5)] == [1, 1, 1, 0.8, 0.8]


def test_gradients_are_measured_in_the_last_of_so_many_batches():
    due = [step for step in range(100) if MetaWeight(begin=50, every=20).due(step)]
    assert due == [69, 89]
    assert [step for step in range(6) if GradientProbe(every=2).due(step)] == [1, 3, 5]
    assert GradientProbe()(0, {}) == {}


def test_it_stays_within_its_bounds_and_remembers_nothing_beyond_them():
    schedule, source = controller(most=0.3), torch.Generator().manual_seed(0)
    seen = []
    for step, draw in enumerate(torch.randn(10_000, 2, generator=source).tolist(), 1):
        seen.append(weight(schedule, step, measured(100 * draw[0], 100 * draw[1])))
    assert min(seen) == 0.05 and max(seen) == 0.95
    up = controller()
    for step in range(1, 50):
        weight(up, step, measured(-1.0, 1.0))
    assert weight(up, 50, measured(-1.0, 1.0)) == 0.95
    assert weight(up, 51, measured(1.0, -1.0)) == pytest.approx(0.75)


def test_one_move_is_bounded():
    assert weight(controller(most=0.05), 1, measured(-1e9, 1e9)) == pytest.approx(0.55)


@pytest.mark.parametrize(
    "metrics",
    [
        {},
        {"entropy": 0.3},
        measured(math.nan, 1.0),
        measured(1.0, math.inf),
        {"gradient/learning_rate": 0.1},
        measured(-1.0, 1.0, entropy=math.nan),
    ],
)
def test_what_was_not_measured_or_is_not_finite_leaves_it_alone(metrics):
    schedule = controller(entropy_rate=0.0 if "entropy" not in metrics else 1.0)
    noted(schedule, 1.0)
    assert weight(schedule, 2, metrics) == 0.5
    assert weight(schedule, 3, measured(-1.0, 1.0, entropy=0.1)) > 0.5


def test_rates_of_zero_fix_it():
    schedule = controller(meta_rate=0.0)
    assert {weight(schedule, step, measured(-step, step, entropy=step)) for step in range(1, 50)} == {0.5}


def test_it_is_remembered():
    first, second = controller(entropy_rate=0.1), controller(entropy_rate=0.1)
    noted(first, 1.0, batches=3)
    weight(first, 4, measured(-1.0, 1.0, entropy=0.9))
    second.load_state_dict(first.state_dict())
    changed = first.replace(every=3)
    after: Callable[[MetaWeight], float] = lambda s: weight(s, 5, measured(0.1, 0.2, entropy=0.5))  # noqa: E731
    assert after(first) == after(second) == after(changed) != 0.5


@pytest.mark.parametrize("fields", [{"initial": 0.01}, {"initial": 0.99}, {"low": 0.9, "high": 0.1}, {"most": 0.0}])
def test_numbers_out_of_range_are_refused(fields):
    with pytest.raises(InputError, match="meta_weight"):
        MetaWeight(**fields)
