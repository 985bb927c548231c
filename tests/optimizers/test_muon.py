"""Muon: the numbers of the iteration, the size of a step, what it bounds, and who is stepped by which rule."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stratagem.errors import InputError
from stratagem.optimizers import AdamW, Muon, orthogonal_factor, rescale_to_spectral_size, spectral_size

MEASURED: dict[str, Any] = {"scale": "spectral", "power_iterations": 10}
"""Of Muon++."""

RATE = 0.1


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def norm(matrix: Tensor) -> float:
    return float(torch.linalg.matrix_norm(matrix.detach().double().flatten(1), ord=2))


def parameter(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape, generator=source(seed)).to(dtype))


def steps(weight: nn.Parameter, gradients: list[Tensor], **options: Any) -> list[Tensor]:
    """The change of a hidden matrix in each of the steps that these gradients make."""
    optimizer = Muon(matrix_learning_rate=RATE, **options).optimizer([weight], [], [weight])
    changes = []
    for gradient in gradients:
        before = weight.detach().clone()
        weight.grad = gradient.to(weight.dtype).clone()
        optimizer.step()
        changes.append(weight.detach() - before)
    return changes


def rank_one(outputs: int, inputs: int, seed: int = 0) -> Tensor:
    """``u v^T`` of unit vectors, in float64."""
    u, v = (torch.randn(n, generator=source(seed + n), dtype=torch.float64) for n in (outputs, inputs))
    return torch.outer(u / u.norm(), v / v.norm())


# ---- the orthogonal factor ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "becomes"), [(1.0, 0.696436), (0.01, 0.698917), (0.001, 0.470544)])
def test_newton_schulz_maps_singular_values_as_worked_by_hand(value, becomes):
    # A second value fills the Frobenius norm up to one, which leaves this one as it is.
    pair = torch.diag(torch.tensor([value, math.sqrt(1 - value**2)], dtype=torch.float64))
    assert orthogonal_factor(pair)[0, 0].item() == pytest.approx(becomes, abs=1e-6)


def test_newton_schulz_keeps_singular_values_from_a_hundredth_on_within_its_range():
    values = torch.linspace(0.0101, 0.9999, 2000, dtype=torch.float64)
    rotation = torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64)
    found = []
    for value in values:
        factor = orthogonal_factor(rotation @ torch.diag(torch.stack((value, (1 - value**2).sqrt()))) @ rotation.mT)
        found.append((rotation.mT @ factor @ rotation)[0, 0])
    assert min(found).item() == pytest.approx(0.6818, abs=1e-4)
    assert max(found).item() == pytest.approx(1.1344, abs=1e-4)


@pytest.mark.parametrize("shape", [(5, 5), (7, 3), (3, 7)])
def test_the_exact_factor_has_singular_values_one_and_the_matrix_its_directions(shape):
    matrix = torch.randn(*shape, generator=source(), dtype=torch.float64)
    factor = orthogonal_factor(matrix, None)
    torch.testing.assert_close(torch.linalg.svdvals(factor), torch.ones(min(shape), dtype=torch.float64))
    # matrix = U S V^T, so factor^T matrix = V S V^T: symmetric, with the matrix's singular values.
    stretch = factor.mT @ matrix
    torch.testing.assert_close(stretch, stretch.mT)


def test_the_exact_factor_leaves_out_directions_a_matrix_does_not_have():
    torch.testing.assert_close(orthogonal_factor(5 * rank_one(4, 6), None), rank_one(4, 6))


@pytest.mark.parametrize("steps", [5, None])
def test_a_zero_matrix_has_a_factor_of_zero(steps):
    assert orthogonal_factor(torch.zeros(3, 4), steps).tolist() == torch.zeros(3, 4).tolist()


@pytest.mark.parametrize("size", [1e-38, 1e-20, 1e20, 1e37])
def test_the_factor_knows_no_scale_even_at_the_ends_of_float32(size):
    matrix = torch.randn(4, 6, generator=source())
    torch.testing.assert_close(orthogonal_factor(matrix * size), orthogonal_factor(matrix), atol=1e-4, rtol=0)


def test_half_precision_comes_close_and_is_scaled_in_full():
    matrix = torch.randn(16, 8, generator=source())
    half = orthogonal_factor(matrix, precision="bfloat16")
    assert half.dtype == torch.float32
    assert 0 < float((half - orthogonal_factor(matrix)).abs().max()) < 0.05


# ---- the size of a step ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "size"), [((64, 64), 1.0), ((256, 64), 2.0), ((64, 256), 0.5)])
def test_a_measured_step_has_the_spectral_size(shape, size):
    weight = parameter(*shape)
    gradient = torch.randn(*shape, generator=source(1))
    [change] = steps(weight, [gradient], scale="spectral", power_iterations=3000)
    assert spectral_size(weight) == size
    assert norm(change) == pytest.approx(RATE * size, rel=1e-5)


@pytest.mark.parametrize("iterations", [1, 2, 10])
def test_the_measurement_errs_downwards_so_that_no_step_is_too_short(iterations):
    weight = parameter(48, 32)
    gradients = [torch.randn(48, 32, generator=source(seed)) for seed in range(20)]
    changes = steps(weight, gradients, scale="spectral", power_iterations=iterations)
    excess = [norm(change) / (RATE * spectral_size(weight)) for change in changes]
    assert min(excess) > 1 - 1e-5
    assert max(excess) < {1: 1.25, 2: 1.18, 10: 1.08}[iterations]


def test_iterating_for_the_norm_goes_on_from_the_last_step():
    # The second step finds the norm of the same factor with a vector that has been turned twice.
    gradient = torch.randn(32, 32, generator=source(3))
    options = {"scale": "spectral", "momentum": 0.0}
    once, again = (norm(c) for c in steps(parameter(32, 32), [gradient] * 2, power_iterations=1, **options))
    [twice] = steps(parameter(32, 32), [gradient], power_iterations=2, **options)
    assert RATE < again < once
    assert again == pytest.approx(norm(twice), rel=1e-5)


def test_a_vector_that_lost_its_direction_is_replaced():
    # What the first gradient left behind is orthogonal to all the second has.
    first, second = torch.zeros(4, 4), torch.zeros(4, 4)
    first[0, 0] = second[1, 1] = 1.0
    for change in steps(parameter(4, 4), [first, second], **MEASURED, momentum=0.0):
        assert norm(change) == pytest.approx(RATE, rel=1e-5)


def test_plain_muon_misses_the_size_and_a_rank_one_gradient_shows_by_how_much():
    weight = parameter(8, 32, dtype=torch.float64)
    for options, size in (({"scale": "spectral"}, 0.696436), (MEASURED, 1.0)):
        [change] = steps(weight, [rank_one(8, 32)], **options)
        assert norm(change) == pytest.approx(size * RATE * 0.5, rel=1e-6)


def test_with_the_exact_factor_measuring_changes_nothing():
    for shape in ((6, 6), (12, 6), (6, 12)):
        gradients = [torch.randn(*shape, generator=source(seed), dtype=torch.float64) for seed in range(4)]
        exact = {"scale": "spectral", "newton_schulz_steps": None}
        plain = steps(parameter(*shape, dtype=torch.float64), gradients, **exact)
        measured = steps(parameter(*shape, dtype=torch.float64), gradients, **exact, power_iterations=1)
        torch.testing.assert_close(plain, measured)
        assert norm(plain[0]) == pytest.approx(RATE * math.sqrt(shape[0] / shape[1]))


@pytest.mark.parametrize(
    ("scale", "shape", "size"),
    [
        ("spectral", (4, 16), 0.5), ("spectral", (16, 4), 2.0), ("tall", (4, 16), 1.0), ("tall", (16, 4), 2.0),
        ("adam", (4, 16), 0.8), ("adam", (16, 4), 0.8),
    ],
)  # fmt: skip
def test_the_scales(scale, shape, size):
    gradient = torch.randn(*shape, generator=source(), dtype=torch.float64)
    [change] = steps(parameter(*shape, dtype=torch.float64), [gradient], scale=scale, newton_schulz_steps=None)
    assert norm(change) == pytest.approx(RATE * size)


@pytest.mark.parametrize("factor", [1000.0, 1e-25])
def test_the_scale_of_the_gradients_does_not_matter(factor):
    gradients = [torch.randn(6, 9, generator=source(seed)) for seed in range(3)]
    plain = steps(parameter(6, 9), gradients, **MEASURED)
    scaled = steps(parameter(6, 9), [factor * gradient for gradient in gradients], **MEASURED)
    torch.testing.assert_close(plain, scaled, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("scale", ["tall", "adam"])
def test_plain_muon_is_that_of_torch(nesterov, scale):
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("this torch has no Muon to compare with")
    gradients = [torch.randn(24, 16, generator=source(seed)) for seed in range(5)]
    ours, theirs = parameter(24, 16), parameter(24, 16)
    changes = steps(ours, gradients, nesterov=nesterov, scale=scale, weight_decay=0.5, precision="bfloat16")
    adjust = {"tall": "original", "adam": "match_rms_adamw"}[scale]
    reference = torch.optim.Muon(
        [theirs], lr=RATE, weight_decay=0.5, momentum=0.95, nesterov=nesterov, adjust_lr_fn=adjust
    )
    for gradient, change in zip(gradients, changes, strict=True):
        before = theirs.detach().clone()
        theirs.grad = gradient.clone()
        reference.step()
        # Both iterate in bfloat16, on momenta that differ by a factor, so they round differently.
        assert float((theirs.detach() - before - change).norm() / change.norm()) < 0.02


# ---- what it bounds -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_weights_stay_within_the_bound_over_a_thousand_steps(decay):
    weight = parameter(12, 6)
    rescale_to_spectral_size([weight])
    start, size = norm(weight), spectral_size(weight)
    optimizer = Muon(matrix_learning_rate=RATE, weight_decay=decay, **MEASURED).optimizer([weight], [], [weight])
    generator = source(5)
    for number in range(1, 1001):
        weight.grad = torch.randn(12, 6, generator=generator)
        optimizer.step()
        if number % 50 == 0:
            bound = max(start, size / decay) if decay else start + size * RATE * number
            assert norm(weight) <= bound


def test_a_constant_gradient_against_the_weight_attains_the_bound():
    direction = rank_one(4, 16)
    for decay, expected in ((0.0, 0.5 + 0.5 * RATE * 30), (0.1, None)):
        weight = nn.Parameter(-0.5 * direction)
        steps(weight, [direction] * 30, **MEASURED, weight_decay=decay)
        if expected is None:
            # w <- (1 - rate decay) w + s rate tends to s / decay from below.
            expected = 5.0 - 4.5 * (1 - RATE * decay) ** 30
        assert norm(weight) == pytest.approx(expected, rel=1e-6)


def test_the_norm_grows_to_first_order_by_what_the_step_does_to_the_top_pair():
    start = torch.randn(10, 8, generator=source(2), dtype=torch.float64)
    gradient = torch.randn(10, 8, generator=source(3), dtype=torch.float64)
    left, values, right = torch.linalg.svd(start)
    [full] = steps(nn.Parameter(start.clone()), [gradient], **MEASURED)

    def error(step: Tensor) -> float:
        return abs(norm(start + step) - float(values[0]) - float(left[:, 0] @ step @ right[0]))

    assert error(full / 8) / error(full / 16) == pytest.approx(4.0, rel=0.1)


def hidden_change(width: int, optimizer_of: Any) -> float:
    """Root mean square by which one step changes the second hidden features of a perceptron."""
    generator = source(7)
    x = torch.randn(32, 16, generator=generator)
    y = torch.randn(32, 1, generator=generator)
    first, hidden, last = (
        nn.Parameter(torch.randn(n, m, generator=generator) / math.sqrt(m))
        for n, m in ((width, 16), (width, width), (1, width))
    )
    features = torch.tanh(x @ first.mT).detach()
    loss = (torch.tanh(features @ hidden.mT) @ last.mT - y).square().mean()
    before = hidden.detach().clone()
    hidden.grad = torch.autograd.grad(loss, hidden)[0]
    optimizer_of(hidden).step()
    return float((features @ (hidden.detach() - before).mT).square().mean().sqrt())


WIDTHS = (64, 128, 256, 512, 1024)


def test_hidden_features_change_by_as_much_at_every_width():
    changes = [hidden_change(n, lambda p: Muon(matrix_learning_rate=RATE, **MEASURED).optimizer([p], [], [p]))
               for n in WIDTHS]  # fmt: skip
    assert max(changes) / min(changes) < 1.2


@pytest.mark.parametrize("other", [torch.optim.SGD, torch.optim.Adam])
def test_with_sgd_or_adam_the_change_depends_on_the_width(other):
    changes = [hidden_change(n, lambda p: other([p], lr=1e-3)) for n in (WIDTHS[0], WIDTHS[-1])]
    assert max(changes) / min(changes) > 2


# ---- the initial size -----------------------------------------------------------------------------------------------


def test_matrices_are_brought_to_their_spectral_size_once_and_zeros_stay():
    square, wide, kernel = parameter(6, 6), parameter(4, 16), parameter(8, 2, 3)
    nothing = nn.Parameter(torch.zeros(3, 3))
    direction = square.detach() / square.detach().norm()
    rescale_to_spectral_size([square, wide, kernel, nothing], 0.5)
    assert norm(square) == pytest.approx(0.5, rel=1e-5)
    assert norm(wide) == pytest.approx(0.25, rel=1e-5)
    assert norm(kernel) == pytest.approx(0.5 * math.sqrt(8 / 6), rel=1e-5)
    assert nothing.abs().max() == 0
    torch.testing.assert_close(square.detach() / square.detach().norm(), direction)


# ---- who is stepped how ---------------------------------------------------------------------------------------------


def test_only_hidden_matrices_are_stepped_by_muon_and_the_rest_by_adamw():
    hidden, embedding, bias, row = parameter(4, 4), parameter(5, 4), parameter(4), parameter(1, 4)
    head = parameter(1, 4)
    part = Muon(learning_rate=0.01, critic_learning_rate=0.02, matrix_learning_rate=0.03, beta1=0.8, weight_decay=0.1)
    optimizer = part.optimizer([hidden, embedding, bias, row], [head], [hidden, row])
    assert [group["lr"] for group in optimizer.param_groups] == list(part.learning_rates()) == [0.01, 0.02, 0.03]
    assert [[p.shape for p in group["params"]] for group in optimizer.param_groups] == [
        [(5, 4), (4,), (1, 4)], [(1, 4)], [(4, 4)]
    ]  # fmt: skip
    copies = [nn.Parameter(p.detach().clone()) for p in (embedding, bias, row, head)]
    adam = AdamW(learning_rate=0.01, critic_learning_rate=0.02, beta1=0.8, weight_decay=0.1)
    reference = adam.optimizer(copies[:3], copies[3:])
    for seed in range(3):
        hidden.grad = torch.randn(4, 4, generator=source(seed))
        for ours, theirs in zip((embedding, bias, row, head), copies, strict=True):
            ours.grad = torch.randn(ours.shape, generator=source(seed + 9))
            theirs.grad = ours.grad.clone()
        optimizer.step(), reference.step()
    for ours, theirs in zip((embedding, bias, row, head), copies, strict=True):
        assert torch.equal(ours, theirs)


def test_a_convolution_is_stepped_as_the_matrix_it_is():
    kernel, matrix = parameter(6, 2, 3), parameter(6, 6)
    with torch.no_grad():
        matrix.copy_(kernel.flatten(1))
    gradients = [torch.randn(6, 2, 3, generator=source(seed)) for seed in range(3)]
    whole = steps(kernel, gradients, **MEASURED)
    flat = steps(matrix, [gradient.flatten(1) for gradient in gradients], **MEASURED)
    assert torch.equal(torch.stack(whole).flatten(2), torch.stack(flat))


def test_a_zero_gradient_makes_no_step_and_the_momentum_decays():
    weight = parameter(4, 4)
    optimizer = Muon(momentum=0.9).optimizer([weight], [], [weight])
    gradient = torch.randn(4, 4, generator=source())
    for given in (gradient, torch.zeros(4, 4)):
        before = weight.detach().clone()
        weight.grad = given.clone()
        optimizer.step()
    assert torch.equal(weight, before)
    torch.testing.assert_close(optimizer.state[weight]["momentum"], 0.9 * gradient)


def test_parameters_without_a_gradient_stay_where_they_are():
    weight, bias = parameter(4, 4), parameter(4)
    Muon(weight_decay=1.0).optimizer([weight, bias], [], [weight]).step()
    assert torch.equal(weight, parameter(4, 4)) and torch.equal(bias, parameter(4))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_is_refused_before_anything_moves(bad):
    first, second, bias = parameter(3, 3), parameter(3, 5), parameter(3)
    optimizer = Muon().optimizer([first, second, bias], [], [first, second])
    for p in (first, second, bias):
        p.grad = torch.ones_like(p)
    second.grad[1, 2] = bad
    with pytest.raises(ValueError, match=r"^muon: the gradient of a matrix of shape \(3, 5\) is not finite$"):
        optimizer.step()
    assert torch.equal(first, parameter(3, 3)) and torch.equal(bias, parameter(3))
    assert not optimizer.state


def test_a_closure_says_the_loss():
    weight = parameter(3, 3)

    def closure() -> float:
        weight.grad = None
        loss = weight.square().sum()
        loss.backward()
        return loss.item()

    optimizer = Muon().optimizer([weight], [], [weight])
    first = optimizer.step(closure)
    assert optimizer.step(closure) < first


def test_state_saved_as_tensors_and_json_goes_on_exactly():
    gradients = [torch.randn(8, 4, generator=source(seed)) for seed in range(6)]
    unbroken = parameter(8, 4)
    steps(unbroken, gradients, **MEASURED)
    weight = parameter(8, 4)
    part = Muon(matrix_learning_rate=RATE, **MEASURED)
    optimizer = part.optimizer([weight], [], [weight])
    for number, gradient in enumerate(gradients):
        if number == 3:
            state = optimizer.state_dict()
            kept = {index: {k: v.clone() for k, v in values.items()} for index, values in state["state"].items()}
            optimizer = part.optimizer([weight], [], [weight])
            optimizer.load_state_dict({"state": kept, "param_groups": json.loads(json.dumps(state["param_groups"]))})
        weight.grad = gradient.clone()
        optimizer.step()
    assert torch.equal(weight, unbroken)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("matrix_learning_rate", -0.1), ("momentum", 1.0), ("newton_schulz_steps", 0), ("power_iterations", -1),
        ("scale", "wide"), ("precision", "float16"),
    ],
)  # fmt: skip
def test_fields_out_of_range_are_refused_by_name(field, value):
    with pytest.raises(InputError, match=rf"^muon\.{field} = {value!r}: "):
        Muon(**{field: value})
