"""Keys and values of many sessions, one row each, and attention of new tokens over them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from stratagem.language.attention import Packed, PackedSequences
from stratagem.language.explicit import explicit_attention, prefers_explicit, visibility_mask


class KVCache:
    """Keys and values [layers, rows, heads, capacity, dim]. Rows and capacity grow by doubling.

    What lies beyond a row's length is finite but meaningless.
    """

    def __init__(self, layers: int, heads: int, dim: int, dtype: torch.dtype, device: torch.device) -> None:
        self.keys = torch.zeros(layers, 0, heads, 0, dim, dtype=dtype, device=device)
        self.values = self.keys.clone()

    @property
    def rows(self) -> int:
        """Sessions there is room for."""
        return self.keys.shape[1]

    @property
    def capacity(self) -> int:
        """Tokens there is room for in every row."""
        return self.keys.shape[3]

    def reserve(self, rows: int, capacity: int) -> None:
        """Make room for at least this many rows of at least this many tokens."""
        if rows <= self.rows and capacity <= self.capacity:
            return
        layers, held, heads, tokens, dim = self.keys.shape
        shape = (layers, _doubled(held, rows), heads, _doubled(tokens, capacity), dim)
        for name in ("keys", "values"):
            grown = getattr(self, name).new_zeros(shape)
            grown[:, :held, :, :tokens] = getattr(self, name)
            setattr(self, name, grown)

    def move(self, sources: Sequence[int], targets: Sequence[int], length: int) -> None:
        """Row ``targets[i]`` becomes what ``sources[i]`` was, for the first ``length`` tokens."""
        for store in (self.keys, self.values):
            store[:, list(targets), :, :length] = store[:, list(sources), :, :length]

    def free(self) -> None:
        """Give the memory back."""
        self.keys = self.keys[:, :0, :, :0].clone()
        self.values = self.keys.clone()


class CachedSequences:
    """Attention of the tokens appended to some rows of a cache over all that these rows then hold.

    ``starts``: tokens each row holds already.  ``counts``: tokens appended to each, packed one row after the other.
    Writes the new keys and values into the cache, layer by layer. Gradients do not pass.
    """

    def __init__(self, cache: KVCache, rows: Sequence[int], starts: Sequence[int], counts: Sequence[int]) -> None:
        device = cache.keys.device
        self._cache = cache
        # Sequences without a past attend to one another's tokens only inside the packed row: nothing to read back.
        self._fresh = PackedSequences(counts, device) if not any(starts) else None
        self._first, self._count = rows[0], len(rows)
        contiguous = list(rows) == list(range(rows[0], rows[0] + len(rows)))
        self._rows = None if contiguous else torch.tensor(rows, device=device)
        self._longest = max(counts)
        self._visible = max(start + count for start, count in zip(starts, counts, strict=True))
        start, count = torch.tensor(starts, device=device), torch.tensor(counts, device=device)
        step = torch.arange(int(sum(counts)), device=device) - torch.repeat_interleave(count.cumsum(0) - count, count)
        self.positions: Int[Tensor, " positions"] = torch.repeat_interleave(start, count) + step
        self._query_positions = start.unsqueeze(1) + torch.arange(self._longest, device=device)
        self._slots = torch.repeat_interleave(torch.arange(len(rows), device=device) * self._longest, count) + step
        row = torch.repeat_interleave(torch.tensor(rows, device=device), count)
        self._targets = _targets(cache, row, self.positions)
        self._masks: dict[int | None, Tensor] = {}

    def attend(
        self, layer: int, query: Packed, key: Packed, value: Packed, scaling: float, window: int | None
    ) -> Packed:
        """Causal attention over the row's past and its new tokens (see :class:`~.attention.Layout`)."""
        _write(self._cache, layer, self._targets, key, value)
        if self._fresh is not None:
            return self._fresh.attend_padded(query, key, value, scaling, window)
        padded = query.new_zeros((self._count * self._longest, *query.shape[1:])).index_copy_(0, self._slots, query)
        keys, values = self._past(self._cache.keys[layer]), self._past(self._cache.values[layer])
        output = _attention(
            padded.view(self._count, self._longest, *query.shape[1:]), keys, values, self._mask(window), scaling
        )
        return output.flatten(0, 1).index_select(0, self._slots)

    def _past(self, store: Tensor) -> Float[Tensor, "rows heads visible dim"]:
        rows = store[self._first : self._first + self._count] if self._rows is None else store[self._rows]
        return rows[:, :, : self._visible]

    def _mask(self, window: int | None) -> Tensor:
        if window not in self._masks:
            every = torch.arange(self._visible, device=self._query_positions.device)
            self._masks[window] = visibility_mask(self._query_positions, every, window)[:, None, None]
        return self._masks[window]


class NextTokens:
    """Attention of one more token in each of the first ``len(lengths)`` rows: :class:`CachedSequences`, made lean.

    ``lengths``: tokens each row holds before; ``longest``: the largest of them.
    """

    def __init__(self, cache: KVCache, lengths: Int[Tensor, " rows"], longest: int) -> None:
        self._cache = cache
        self._count, self._visible = len(lengths), longest + 1
        self.positions = lengths
        self._targets = _targets(cache, torch.arange(len(lengths), device=lengths.device), lengths)
        self._masks: dict[int | None, Tensor] = {}

    def attend(
        self, layer: int, query: Packed, key: Packed, value: Packed, scaling: float, window: int | None
    ) -> Packed:
        """Attention over each row's past and its new token (see :class:`~.attention.Layout`)."""
        _write(self._cache, layer, self._targets, key, value)
        keys = self._cache.keys[layer][: self._count, :, : self._visible]
        values = self._cache.values[layer][: self._count, :, : self._visible]
        return _attention(query.unsqueeze(1), keys, values, self._mask(window), scaling).squeeze(1)

    def _mask(self, window: int | None) -> Tensor:
        if window not in self._masks:
            every = torch.arange(self._visible, device=self.positions.device)
            self._masks[window] = visibility_mask(self.positions[:, None, None, None], every, window)
        return self._masks[window]


def _attention(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, scaling: float) -> Tensor:
    """[rows, queries, heads, dim] over [rows, kv, keys, dim] with a mask [rows, 1, 1, queries, keys]."""
    if prefers_explicit(query, keys):
        return explicit_attention(query, keys, values, mask, scaling)
    output = scaled_dot_product_attention(
        query.transpose(1, 2),
        keys.to(query.dtype),
        values.to(query.dtype),
        attn_mask=mask[:, 0].to(query.dtype),
        scale=scaling,
        enable_gqa=True,
    )
    return output.transpose(1, 2)


def _targets(cache: KVCache, rows: Tensor, positions: Tensor) -> Int[Tensor, " positions_by_heads"]:
    """Where each new token's heads go in a layer's store seen as [rows * heads * capacity, dim]."""
    heads, capacity = cache.keys.shape[2], cache.capacity
    head_starts = torch.arange(heads, device=rows.device) * capacity
    return ((rows * (heads * capacity) + positions).unsqueeze(1) + head_starts).flatten()


def _write(cache: KVCache, layer: int, targets: Tensor, key: Packed, value: Packed) -> None:
    for store, new in ((cache.keys[layer], key), (cache.values[layer], value)):
        dim = store.shape[-1]
        store.view(-1, dim).index_copy_(0, targets, new.reshape(-1, dim).to(store.dtype))


def _doubled(held: int, needed: int) -> int:
    """``held``, doubled (from at least 16) until it covers ``needed``."""
    size = max(held, 16)
    while size < needed:
        size *= 2
    return size
