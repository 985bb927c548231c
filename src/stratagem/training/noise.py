"""Noise that is drawn again rather than kept: the same in the backward pass as in the forward one."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


def with_noise(
    signal: Float[Tensor, "*shape"], log_scale: Float[Tensor, ""], largest: float, seed: int
) -> Float[Tensor, "*shape"]:
    """``signal + sigma xi`` with ``xi ~ N(0, I)`` of this seed and ``sigma = min(e^log_scale, largest * rms(signal))``.

    Differentiable by signal and ``log_scale``; the bound counts as a constant. Nothing but the seed is kept.
    """
    bound = largest * signal.detach().float().square().mean().sqrt()
    noisy: Tensor = _Noise.apply(signal, torch.minimum(log_scale.exp(), bound), seed)  # type: ignore[no-untyped-call]
    return noisy


class _Noise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, signal: Tensor, scale: Tensor, seed: int) -> Tensor:
        ctx.save_for_backward(scale)
        ctx.seed = seed
        return signal + (scale * _drawn(signal, seed)).to(signal.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        (gradient,) = gradients
        return gradient, (gradient.float() * _drawn(gradient, ctx.seed)).sum(), None


def _drawn(like: Tensor, seed: int) -> Tensor:
    source = torch.Generator(like.device).manual_seed(seed)
    return torch.randn(like.shape, generator=source, device=like.device)


def fresh_seed() -> int:
    """A seed from torch's own generator, which the trainer sets anew for every optimizer step."""
    return int(torch.randint(2**62, ()))
