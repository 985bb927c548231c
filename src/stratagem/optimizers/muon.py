"""Muon: hidden matrices step along the orthogonal factor of their momentum, by a size one can measure and transfer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Lt
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize
from torch.optim.adamw import adamw

from stratagem.optimizers.adam import AdamW
from stratagem.shards import divided_like, whole

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic Newton-Schulz iteration."""

LEAST_NORM = 0.6
"""A spectral norm of an orthogonal factor that is measured as less is an error of the measurement."""

SCALES: dict[str, Callable[[int, int], float]] = {
    "spectral": lambda outputs, inputs: math.sqrt(outputs / inputs),
    "tall": lambda outputs, inputs: math.sqrt(max(1.0, outputs / inputs)),
    "adam": lambda outputs, inputs: 0.2 * math.sqrt(max(outputs, inputs)),
}
"""Size of a step of learning rate 1, by name."""


@dataclass(frozen=True)
class Muon(AdamW):
    """Muon for hidden weight matrices, AdamW for everything else.

    For a matrix ``W [outputs, inputs]`` with gradient ``g`` (a convolution is flattened to [outputs, rest])::

        M <- momentum M + g        B = g + momentum M (with nesterov, else M)
        O = orthogonal factor of B
        W <- (1 - rate weight_decay) W - rate * scale * O / norm

    ``norm`` is 1, or with ``power_iterations`` the measured ``|O|_2``, so that the step has spectral norm
    ``rate * scale`` and not 0.68 to 1.2 times as much. What is no hidden matrix is stepped by AdamW with the fields
    inherited from it: embeddings, tables, heads, norms, biases, matrices with one row or column, and the critic.

    matrix_learning_rate: ``rate``; ``learning_rate`` is AdamW's. A schedule moves each by its own path.
    momentum: in [0, 1).  nesterov: look one gradient ahead.
    newton_schulz_steps: iterations for ``O`` (:func:`orthogonal_factor`); None takes the exact factor, by singular
    value decomposition, which is slow.
    scale: ``spectral``, ``sqrt(outputs / inputs)``, the size muP asks of weights and updates (arXiv 2310.17813);
    ``tall``, ``sqrt(max(1, outputs / inputs))``, as Muon was first published; ``adam``,
    ``0.2 sqrt(max(outputs, inputs))``, the size of Adam's usual updates (arXiv 2502.16982), which grows with width.
    power_iterations: to measure ``|O|_2``, from the last step's singular vector and from the largest row of ``O``; the
    larger result counts, and at least 0.6. It errs downwards, since the singular values of ``O`` lie close together:
    a step is never shorter than ``rate * scale``, and for random gradients longer by 13 percent with one iteration, 8
    with two, 2 with ten. 0 does not measure.
    precision: of the Newton-Schulz iteration; scaling and steps keep the precision of the weights.

    With ``scale="spectral"``, a measured norm and steps ``rate_t``, ``|W_T|_2 <= |W_0|_2 + s sum_t rate_t`` without
    decay and ``|W_T|_2 <= max(|W_0|_2, s / weight_decay)`` with it, up to the error of the measurement.
    A matrix whose gradient is exactly zero makes no step, since its momentum alone would be blown up to a full one.
    """

    matrix_learning_rate: Annotated[float, Ge(0)] = 0.02
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.95
    nesterov: bool = True
    newton_schulz_steps: Annotated[int, Ge(1)] | None = 5
    scale: Literal["spectral", "tall", "adam"] = "tall"
    power_iterations: Annotated[int, Ge(0)] = 0
    precision: Literal["float32", "bfloat16"] = "float32"

    def optimizer(self, policy: Iterable[Tensor], critic: Iterable[Tensor], hidden: Iterable[Tensor] = ()) -> MuonAdamW:
        matrices = {id(p): p for p in hidden if p.ndim >= 2 and min(_sides(p)) > 1}
        others = [p for p in policy if id(p) not in matrices]
        adam: dict[str, Any] = {"matrices": False, "betas": (self.beta1, self.beta2), "eps": self.eps, "fused": True}
        muon: dict[str, Any] = {
            "matrices": True,
            "momentum": self.momentum,
            "nesterov": self.nesterov,
            "newton_schulz_steps": self.newton_schulz_steps,
            "scale": self.scale,
            "power_iterations": self.power_iterations,
            "precision": self.precision,
        }
        members = (others, critic, matrices.values())
        return MuonAdamW(
            [
                {"params": list(params), "lr": rate, "weight_decay": self.weight_decay, **rule}
                for params, rate, rule in zip(members, self.learning_rates(), (adam, adam, muon), strict=True)
            ]
        )

    def learning_rates(self) -> tuple[float, ...]:
        return *super().learning_rates(), self.matrix_learning_rate


class MuonAdamW(torch.optim.Optimizer):
    """The optimizer :class:`Muon` makes: each group says in ``matrices`` by which of the two rules it is stepped.

    Raises ``ValueError`` when the gradient of a matrix is not finite; then nothing has moved.
    """

    def __init__(self, groups: Sequence[dict[str, Any]]) -> None:
        super().__init__(groups, {})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        moving = [(group, [p for p in group["params"] if p.grad is not None]) for group in self.param_groups]
        largest = {id(p): peak for group, ps in moving if group["matrices"] for p, peak in _largest(ps)}
        for group, parameters in moving:
            if not parameters:
                continue
            if not group["matrices"]:
                self._step_by_adam(group, parameters)
                continue
            for p in parameters:
                self._step_matrix(group, p, still=largest[id(p)] == 0)
        return loss

    def _step_by_adam(self, group: Mapping[str, Any], parameters: list[Tensor]) -> None:
        states = [self._adam_state(p) for p in parameters]
        adamw(
            parameters,
            [_gradient(p) for p in parameters],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=group["fused"],
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )

    def _adam_state(self, p: Tensor) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[p]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=p.device)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
        return state

    def _step_matrix(self, group: Mapping[str, Any], p: Tensor, still: bool) -> None:
        state, gradient = self.state[p], _gradient(p)
        if not state:
            state["momentum"] = torch.zeros_like(p)
        momentum = state["momentum"].mul_(group["momentum"]).add_(gradient)
        p.mul_(1 - group["lr"] * group["weight_decay"])
        if still:
            return
        blend = gradient.add(momentum, alpha=group["momentum"]) if group["nesterov"] else momentum
        factor = orthogonal_factor(whole(blend).flatten(1), group["newton_schulz_steps"], group["precision"])
        size = group["lr"] * SCALES[group["scale"]](*factor.shape)
        if group["power_iterations"]:
            norm, direction = _spectral_norm(factor, state.get("direction"), group["power_iterations"])
            state["direction"] = direction.to(p.dtype)
            factor = factor / norm.clamp_min(LEAST_NORM)
        p.sub_(divided_like(factor.view(p.shape).to(p.dtype), p), alpha=size)


def spectral_size(matrix: Tensor) -> float:
    """``sqrt(outputs / inputs)`` of a weight [outputs, inputs, ...]: what muP asks of its spectral norm."""
    return SCALES["spectral"](*_sides(matrix))


@torch.no_grad()
def rescale_to_spectral_size(matrices: Iterable[Tensor], size: float = 1.0) -> None:
    """Once, before training from scratch: ``W <- W * size * sqrt(outputs / inputs) / |W|_2``, in place.

    Matrices that are zero stay zero. A trained model computes something else afterwards, so this is not for it.
    """
    for matrix in matrices:
        norm = float(torch.linalg.matrix_norm(matrix.flatten(1), ord=2))
        if norm > 0:
            matrix.mul_(size * spectral_size(matrix) / norm)


def orthogonal_factor(
    matrix: Float[Tensor, "outputs inputs"],
    newton_schulz_steps: int | None = 5,
    precision: Literal["float32", "bfloat16"] = "float32",
) -> Float[Tensor, "outputs inputs"]:
    """``U V^T`` of ``matrix = U S V^T``, or nearly so, of any scale; at least float32. Zero for a zero matrix.

    Newton-Schulz repeats ``X <- a X + b X X^T X + c (X X^T)^2 X`` from ``X = matrix / |matrix|_F``. Five steps leave
    singular values of 0.68 to 1.13 where those of ``X`` were 0.01 to 1, at most 1.2 of smaller ones (at 0.004), and
    well below 0.68 of the smallest (0.47 of 0.001).
    Without ``newton_schulz_steps`` it is exact, and directions the matrix does not have are left out.
    """
    x = matrix.to(torch.promote_types(matrix.dtype, torch.float32))
    # The largest entry comes first, so that the squares of very small or large ones do not leave the range of floats.
    x = x / x.abs().amax().clamp_min(torch.finfo(x.dtype).tiny)
    if newton_schulz_steps is None:
        return _polar(x)
    accurate = x.dtype
    x = x / x.norm().clamp_min(1.0)
    if precision == "bfloat16":
        x = x.bfloat16()
    tall = x.shape[0] > x.shape[1]
    x = x.mT if tall else x
    a, b, c = COEFFICIENTS
    for _ in range(newton_schulz_steps):
        gram = x @ x.mT
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(accurate)


def _polar(x: Float[Tensor, "outputs inputs"]) -> Float[Tensor, "outputs inputs"]:
    left, values, right = torch.linalg.svd(x, full_matrices=False)
    present = values > values[0] * max(x.shape) * torch.finfo(x.dtype).eps
    factor: Tensor = (left * present) @ right
    return factor


def _spectral_norm(
    matrix: Float[Tensor, "outputs inputs"], warm: Float[Tensor, " inputs"] | None, iterations: int
) -> tuple[Float[Tensor, ""], Float[Tensor, " inputs"]]:
    """``|matrix|_2`` from below, and the right singular vector it was found with.

    From ``warm`` and from the largest row, which unlike any other start cannot be orthogonal to all the rows.
    """
    row = matrix[matrix.norm(dim=1).argmax()]
    starts = row.unsqueeze(1) if warm is None else torch.stack((row, warm.to(row.dtype)), 1)
    for _ in range(iterations - 1):
        starts = normalize(matrix.mT @ (matrix @ starts), dim=0)
    ends = matrix.mT @ normalize(matrix @ starts, dim=0)
    norms = ends.norm(dim=0)
    best = norms.argmax()
    return norms[best], normalize(ends[:, best], dim=0)


def _largest(parameters: Sequence[Tensor]) -> list[tuple[Tensor, float]]:
    """Each parameter with the largest absolute entry of its gradient. Raises ``ValueError`` for one not finite."""
    if not parameters:
        return []
    peaks = torch.stack([whole(_gradient(p)).abs().amax() for p in parameters]).tolist()
    for p, peak in zip(parameters, peaks, strict=True):
        if not math.isfinite(peak):
            raise ValueError(f"muon: the gradient of a matrix of shape {tuple(p.shape)} is not finite")
    return list(zip(parameters, peaks, strict=True))


def _gradient(p: Tensor) -> Tensor:
    assert p.grad is not None
    return p.grad


def _sides(p: Tensor) -> tuple[int, int]:
    """Outputs, and inputs times what a kernel covers."""
    return p.shape[0], p.shape[1:].numel()
