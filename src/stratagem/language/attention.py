"""Attention over packed sequences, so that any Hugging Face causal model reads one row of tokens without padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

from stratagem.errors import InputError

ATTENTION = "stratagem_packed"

# For a few queries over cached keys on CPU, written-out attention in float32 takes half the time of torch's fused
# kernel; beyond this many scores its memory is the greater worry.
_EXPLICIT_SCORES = 2**25
# Padding may cost this factor before sequences are split into buckets of similar length.
_TOLERATED_PADDING = 1.5

Packed = Float[Tensor, "positions heads dim"]


class Layout(Protocol):
    """How the tokens of one packed row belong to sequences. Prepared once per forward pass, used by every layer."""

    def attend(
        self, layer: int, query: Packed, key: Packed, value: Packed, scaling: float, window: int | None
    ) -> Packed:
        """Attention output of every packed position. ``window``: how many last tokens a token sees (None: all)."""


def run_trunk(
    model: PreTrainedModel, token_ids: Int[Tensor, " positions"], positions: Int[Tensor, " positions"], layout: Layout
) -> Float[Tensor, "positions hidden"]:
    """Last hidden states of one packed row. The model must have been given to :func:`enable_packing` before."""
    decoder: Any = model.get_decoder()
    output = decoder(input_ids=token_ids[None], position_ids=positions[None], use_cache=False, packing=layout)
    hidden: Tensor = output.last_hidden_state[0]
    return hidden


def enable_packing(model: PreTrainedModel) -> None:
    """Switch ``model`` to packed attention and prove that it then computes what it did before.

    Two short sequences packed in one row must give the logits that each gives alone. Raises :class:`InputError` for
    models that cannot do this: no attention through transformers' interface, no position ids, logits that are more
    than the output embedding of the last hidden state.
    """
    name = type(model).__name__
    for kind in set(getattr(model.config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}:
        raise InputError(f"{name} cannot run on packed sequences: it has {kind} layers")
    vocabulary = cast(nn.Embedding, model.get_input_embeddings()).num_embeddings
    lengths = torch.tensor([5, 4], device=model.device)
    token_ids = (torch.arange(9, device=model.device) * 7 + 1) % vocabulary
    layout = PackedSequences(lengths.tolist(), model.device)
    mode = model.training
    model.eval()
    try:
        with torch.no_grad():
            alone = torch.cat([model(row[None], use_cache=False).logits[0] for row in token_ids.split([5, 4])])
            model.set_attn_implementation(ATTENTION)
            hidden = run_trunk(model, token_ids, layout.positions, layout)
            packed = cast(nn.Linear, model.get_output_embeddings())(hidden)
    except Exception as error:
        raise InputError(f"{name} cannot run on packed sequences: {str(error).splitlines()[0]}") from error
    finally:
        model.train(mode)
    difference, scale = float((packed - alone).abs().max()), float(alone.abs().max())
    if not difference <= 1e-3 * (1.0 + scale):
        raise InputError(
            f"{name} cannot run on packed sequences: sharing a row changes its logits by {difference:.2g}; "
            "causal models with position ids and attention through transformers' AttentionInterface can"
        )


@dataclass(frozen=True)
class _Bucket:
    """Sequences padded to a common length: ``sequences * longest`` slots from ``start`` on."""

    start: int
    sequences: int
    longest: int


class PackedSequences:
    """Causal self-attention inside each of several complete sequences, packed one after the other.

    The model need not run over all *tokens* that are given. With ``token_ids``, the opening that a sequence shares
    with the one before it is *computed* there only: what a causal model makes of a token does not depend on what
    follows. In attention every sequence is whole again: queries, keys and values are gathered from the computed tokens
    into *slots*, [sequences, longest] in a few buckets of similar length. Padding exists only there.

    computed: which of the tokens the model runs over, ascending.  positions: where each of these is in its sequence.
    source: from which of the computed tokens each token takes its hidden state.
    """

    def __init__(
        self, lengths: Sequence[int], device: torch.device | str, token_ids: Int[Tensor, " tokens"] | None = None
    ) -> None:
        sizes = torch.tensor(lengths, device=device)
        every = torch.arange(int(sum(lengths)), device=device)
        positions = every - torch.repeat_interleave(sizes.cumsum(0) - sizes, sizes)
        alike = every if token_ids is None else _first_alike(token_ids, sizes, positions)
        own = alike == every
        self.computed: Int[Tensor, " computed"] = torch.nonzero(own).squeeze(1)
        self.positions: Int[Tensor, " computed"] = positions[self.computed]
        self.source: Int[Tensor, " tokens"] = (own.cumsum(0) - 1)[alike]
        self._buckets, starts = _buckets(lengths)
        total = sum(bucket.sequences * bucket.longest for bucket in self._buckets)
        slots = torch.repeat_interleave(torch.tensor(starts, device=device), sizes) + positions
        self._slot_of_computed = slots[self.computed]
        # Padding repeats the first token: nothing sees it, and it gets no gradient.
        self._source_of_slot = torch.zeros(total, dtype=torch.int64, device=device)
        self._source_of_slot[slots] = self.source
        # Equal lengths with nothing shared need no copying: the computed tokens already are the slots.
        self._dense = len(self._buckets) <= 1 and total == len(self.computed)
        self._masks: dict[tuple[int, int | None], Tensor] = {}

    def attend(
        self, layer: int, query: Packed, key: Packed, value: Packed, scaling: float, window: int | None
    ) -> Packed:
        """Causal attention within each sequence (see :class:`Layout`)."""
        # torch's fused CPU kernel is several times slower in bfloat16 than in float32.
        given, kind = query.dtype, torch.float32 if query.is_cpu else query.dtype
        query, key, value = (self._to_slots(tensor).to(kind) for tensor in (query, key, value))
        outputs = [
            self._attend_bucket(_cut(query, b), _cut(key, b), _cut(value, b), scaling, window) for b in self._buckets
        ]
        output = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
        return (output if self._dense else output.index_select(0, self._slot_of_computed)).to(given)

    def _to_slots(self, computed: Packed) -> Float[Tensor, "slots heads dim"]:
        # In float32 because, on the way back, the gradients of a shared token add up here.
        return computed if self._dense else computed.float().index_select(0, self._source_of_slot)

    def _attend_bucket(self, query: Tensor, key: Tensor, value: Tensor, scaling: float, window: int | None) -> Packed:
        query, key, value = (tensor.transpose(1, 2) for tensor in (query, key, value))
        longest = query.shape[2]
        bounded = window is not None and window < longest
        with torch.autocast(query.device.type, enabled=False):
            output = scaled_dot_product_attention(
                query,
                key,
                value,
                attn_mask=self._mask(longest, window, query.device).to(query.dtype) if bounded else None,
                is_causal=not bounded,
                scale=scaling,
                enable_gqa=True,
            )
        return output.transpose(1, 2).flatten(0, 1)

    def _mask(self, longest: int, window: int | None, device: torch.device) -> Float[Tensor, "longest longest"]:
        if (longest, window) not in self._masks:
            every = torch.arange(longest, device=device)
            self._masks[longest, window] = visibility_mask(every, every, window)
        return self._masks[longest, window]


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


def _attention_interface(
    module: nn.Module,
    query: Float[Tensor, "1 heads positions dim"],
    key: Float[Tensor, "1 kv positions dim"],
    value: Float[Tensor, "1 kv positions dim"],
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    packing: Layout | None = None,
    **other: Any,
) -> tuple[Float[Tensor, "1 positions heads dim"], None]:
    """What transformers calls in every layer. Dropout is not applied: a policy must be what sampled its actions."""
    if packing is None:
        raise InputError(f"{type(module).__name__} did not receive the packed layout; run the model through its policy")
    for name in ("softcap", "s_aux", "position_bias"):
        if other.get(name) is not None:
            raise InputError(f"{type(module).__name__} needs attention with {name}, which packed attention does not do")
    output = packing.attend(
        int(module.layer_idx),  # type: ignore[arg-type]
        query[0].transpose(0, 1),
        key[0].transpose(0, 1),
        value[0].transpose(0, 1),
        query.shape[-1] ** -0.5 if scaling is None else scaling,
        sliding_window,
    )
    return output.unsqueeze(0), None


AttentionInterface.register(ATTENTION, _attention_interface)


def _buckets(lengths: Sequence[int]) -> tuple[list[_Bucket], list[int]]:
    """Buckets of similar length, and the slot at which each sequence starts.

    One bucket when that costs little padding; otherwise each holds lengths down to half of its longest.
    """
    if not lengths:
        return [], []
    longest = max(lengths)
    if len(lengths) * longest <= _TOLERATED_PADDING * sum(lengths):
        return [_Bucket(0, len(lengths), longest)], [row * longest for row in range(len(lengths))]
    buckets: list[_Bucket] = []
    starts = [0] * len(lengths)
    remaining = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    slot = 0
    while remaining:
        longest = lengths[remaining[0]]
        if longest == 0:
            break
        members = [row for row in remaining if 2 * lengths[row] > longest]
        for place, row in enumerate(members):
            starts[row] = slot + place * longest
        buckets.append(_Bucket(slot, len(members), longest))
        slot += len(members) * longest
        remaining = remaining[len(members) :]
    return buckets, starts


def _first_alike(
    token_ids: Int[Tensor, " tokens"], sizes: Int[Tensor, " sequences"], positions: Int[Tensor, " tokens"]
) -> Int[Tensor, " tokens"]:
    """For every token the first one that sees the same: itself, or one at its position in an earlier sequence.

    Only neighbours are compared, so between the two all sequences begin alike, up to and including this position.
    """
    every = torch.arange(len(token_ids), device=token_ids.device)
    sequence = torch.repeat_interleave(torch.arange(len(sizes), device=sizes.device), sizes)
    previous_size = torch.cat((sizes.new_zeros(1), sizes[:-1]))[sequence]
    above = every - previous_size  # the same position in the previous sequence
    differs = (positions >= previous_size) | (token_ids != token_ids[above])
    common = sizes.scatter_reduce(0, sequence, torch.where(differs, positions, sizes[sequence]), "amin")
    first = torch.where(positions < common[sequence], above, every)
    for _ in range(len(sizes).bit_length()):  # each time, twice as many sequences back
        first = first[first]
    return first


def _cut(slots: Float[Tensor, "slots heads dim"], bucket: _Bucket) -> Float[Tensor, "sequences longest heads dim"]:
    end = bucket.start + bucket.sequences * bucket.longest
    return slots[bucket.start : end].view(bucket.sequences, bucket.longest, *slots.shape[1:])
