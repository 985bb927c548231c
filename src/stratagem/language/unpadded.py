"""Attention over packed sequences without padding, by a kernel that is proved before it is trusted."""

from __future__ import annotations

import functools
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, Self, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stratagem.language.explicit import explicit_attention, visibility_mask

# Devices and types that torch's variable-length attention is for.
_UNPADDED: dict[str, tuple[torch.dtype, ...]] = {"cuda": (torch.float16, torch.bfloat16)}
# A kernel is trusted while no token is off by a larger share of its size: rounding to bfloat16 comes to 0.004 to 0.008.
_TRUSTED_ERROR = 0.03

Packed = Float[Tensor, "rows heads dim"]


class Kernel(Protocol):
    """What is asked of ``torch.nn.attention.varlen.varlen_attn``."""

    def __call__(
        self,
        query: Packed,
        key: Packed,
        value: Packed,
        cu_seq_q: Int[Tensor, " starts"],
        cu_seq_k: Int[Tensor, " starts"],
        max_q: int,
        max_k: int,
        *,
        scale: float,
        window_size: tuple[int, int],
        enable_gqa: bool,
    ) -> Packed: ...


@functools.cache
def unpadded_kernel(device: torch.device, kind: torch.dtype, heads: int, kv_heads: int, dim: int) -> Kernel | None:
    """Attention that needs no padding, once it was proved for this device, type and shape of heads; None without.

    That is torch's flash attention over sequences of different lengths (torch >= 2.12 for all that is asked of it),
    compared with :func:`explicit_attention` on a small random case, output and gradients. Warns, once for each case,
    when it raises or differs. Tests emulate it on CPU; it never ran on a GPU.
    """
    if kind not in _UNPADDED.get(device.type, ()):
        return None
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:  # torch before 2.10
        return None
    kernel = cast(Kernel, varlen_attn)
    try:
        # In a thread of its own, since here there may be autocast, no gradients, or a checkpoint that counts tensors.
        with ThreadPoolExecutor(1) as thread:
            error = thread.submit(_largest_error, kernel, device, kind, heads, kv_heads, dim).result()
        if error <= _TRUSTED_ERROR:
            return kernel
        reason = f"it is off by {error:.2g} of a token's size"
    except Exception as raised:
        reason = next(iter(str(raised).splitlines()), type(raised).__name__)
    warnings.warn(
        f"variable-length attention is not used on {device} in {kind} for {heads} heads over {kv_heads} of {dim}: "
        f"{reason}; sequences are padded",
        stacklevel=2,
    )
    return None


@dataclass(frozen=True)
class Spans:
    """Which rows of packed queries and of packed keys belong to the same sequence; its queries are its last tokens.

    queries, keys: where each sequence starts, and the last one ends.  most_queries, most_keys: of one sequence.
    """

    queries: Int[Tensor, " starts"]
    keys: Int[Tensor, " starts"]
    most_queries: int
    most_keys: int

    @classmethod
    def of(cls, queries: Int[Tensor, " sequences"], keys: Int[Tensor, " sequences"]) -> Self:
        """Sequences of so many queries over so many keys."""
        return cls(_starts(queries), _starts(keys), int(queries.max()), int(keys.max()))


def _starts(sizes: Int[Tensor, " sequences"]) -> Int[Tensor, " starts"]:
    return torch.cat((sizes.new_zeros(1), sizes.cumsum(0))).int()


def attend_unpadded(
    kernel: Kernel, query: Packed, key: Packed, value: Packed, spans: Spans, scaling: float, window: int | None
) -> Packed:
    """Causal attention of the queries of each sequence, over its ``window`` last keys or all (None)."""
    return kernel(
        query,
        key,
        value,
        spans.queries,
        spans.keys,
        spans.most_queries,
        spans.most_keys,
        scale=scaling,
        window_size=(-1 if window is None else window - 1, 0),
        enable_gqa=True,
    )


def _largest_error(
    kernel: Kernel, device: torch.device, kind: torch.dtype, heads: int, kv_heads: int, dim: int
) -> float:
    """How far outputs and gradients are from the explicit ones at most: ``|error| / (|token| + typical |token|)``."""
    random, sizes = torch.Generator().manual_seed(0), ((70, 1, 33, 2), (70, 1, 130, 9))
    queries, keys = (torch.tensor(lengths, device=device) for lengths in sizes)
    spans, scaling, largest = Spans.of(queries, keys), 0.7 * dim**-0.5, 0.0
    rows = ((sum(sizes[0]), heads), (sum(sizes[1]), kv_heads), (sum(sizes[1]), kv_heads), (sum(sizes[0]), heads))
    *given, along = (torch.randn(*shape, dim, generator=random).to(device, kind) for shape in rows)
    for window in (None, 5):
        leaves = [tensor.clone().requires_grad_() for tensor in given]
        output = attend_unpadded(kernel, leaves[0], leaves[1], leaves[2], spans, scaling, window)
        found = (output, *torch.autograd.grad(output, leaves, along))
        leaves = [tensor.float().requires_grad_() for tensor in given]
        output = _one_by_one(leaves[0], leaves[1], leaves[2], spans, scaling, window)
        expected = (output, *torch.autograd.grad(output, leaves, along.float()))
        for ours, theirs in zip(found, expected, strict=True):
            size = theirs.flatten(1).norm(dim=1)
            error = (ours.float() - theirs).flatten(1).norm(dim=1) / (size + size.square().mean().sqrt())
            largest = max(largest, float(error.detach().nan_to_num(torch.inf).max()))
    return largest


def _one_by_one(query: Packed, key: Packed, value: Packed, spans: Spans, scaling: float, window: int | None) -> Packed:
    """Explicit attention of each sequence alone."""
    outputs = []
    counts, lengths = spans.queries.diff().tolist(), spans.keys.diff().tolist()
    for q, k, v in zip(query.split(counts), key.split(lengths), value.split(lengths), strict=True):
        every = torch.arange(len(k), device=query.device)
        mask = visibility_mask(every[len(k) - len(q) :], every, window)
        outputs.append(explicit_attention(q[None], k[None].transpose(1, 2), v[None].transpose(1, 2), mask, scaling)[0])
    return torch.cat(outputs)
