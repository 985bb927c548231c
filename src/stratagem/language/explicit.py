"""Attention written out: what fused kernels are measured by, and the faster choice for a few queries on CPU."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

# For a few queries over cached keys on CPU, written-out attention in float32 takes half the time of torch's fused
# kernel; beyond this many scores its memory is the greater worry.
_EXPLICIT_SCORES = 2**25


def visibility_mask(
    query_positions: Int[Tensor, "*batch queries"], key_positions: Int[Tensor, " keys"], window: int | None
) -> Float[Tensor, "*batch queries keys"]:
    """Additive mask: 0 where a query may see a key, -inf where the key is later or ``window`` or more tokens back."""
    distance = query_positions.unsqueeze(-1) - key_positions
    hidden = distance < 0 if window is None else (distance < 0) | (distance >= window)
    return torch.zeros(distance.shape, device=distance.device).masked_fill_(hidden, float("-inf"))


def prefers_explicit(query: Float[Tensor, "rows queries heads dim"], key: Float[Tensor, "rows kv keys dim"]) -> bool:
    """Whether :func:`explicit_attention` is the faster choice for these shapes on this device."""
    rows, queries, heads, _ = query.shape
    return query.is_cpu and rows * queries * heads * key.shape[2] <= _EXPLICIT_SCORES


def explicit_attention(
    query: Float[Tensor, "rows queries heads dim"],
    key: Float[Tensor, "rows kv keys dim"],
    value: Float[Tensor, "rows kv keys dim"],
    mask: Float[Tensor, "... queries keys"],
    scaling: float,
) -> Float[Tensor, "rows queries heads dim"]:
    """softmax(scaling * Q K^T + mask) V in float32; several query heads may share a key head (GQA)."""
    rows, queries, heads, dim = query.shape
    kv, keys = key.shape[1], key.shape[2]
    # Query heads that share a key head become further queries, so that keys and values are never repeated.
    shared = (query.float() * scaling).view(rows, queries, kv, heads // kv, dim).permute(0, 2, 3, 1, 4)
    scores = shared.reshape(rows, kv, -1, dim) @ key.float().transpose(-1, -2)
    weights = torch.softmax(scores.view(rows, kv, -1, queries, keys) + mask, dim=-1)
    output = weights.view(rows, kv, -1, keys) @ value.float()
    output = output.view(rows, kv, -1, queries, dim).permute(0, 3, 1, 2, 4).reshape(rows, queries, heads, dim)
    return output.to(query.dtype)
