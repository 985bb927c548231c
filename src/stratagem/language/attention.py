"""Attention over packed sequences, so that any Hugging Face causal model reads one row of tokens without padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

from stratagem.errors import InputError
from stratagem.language.explicit import visibility_mask
from stratagem.language.unpadded import Spans, attend_unpadded, unpadded_kernel

ATTENTION = "stratagem_packed"

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

    On CUDA in half precision sequences are not padded, where :func:`~.unpadded.unpadded_kernel` proved a kernel for
    that; tests emulate it, and it never ran on a GPU. Elsewhere they are padded to common lengths.

    The model need not run over all *tokens* that are given. With ``token_ids``, the opening that a sequence shares
    with the one before it is *computed* there only: what a causal model makes of a token does not depend on what
    follows. In attention every sequence is whole again. Without padding, the queries of a sequence are its computed
    tokens and its keys all of its tokens. With it, queries, keys and values are gathered from the computed tokens into
    *slots*, [sequences, longest] in a few buckets of similar length. Padding exists only there.

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
        self._sizes, self._own = sizes, own
        self._masks: dict[tuple[int, int | None], Tensor] = {}

    def attend(
        self, layer: int, query: Packed, key: Packed, value: Packed, scaling: float, window: int | None
    ) -> Packed:
        """Causal attention within each sequence (see :class:`Layout`), computed in the :func:`compute_type`."""
        kernel = unpadded_kernel(query.device, compute_type(query), query.shape[1], key.shape[1], query.shape[2])
        if kernel is None:
            return self.attend_padded(query, key, value, scaling, window)
        given, kind = query.dtype, compute_type(query)
        spans, source = self._spans
        if source is not None:
            key, value = (_gathered(tensor, source) for tensor in (key, value))
        output = attend_unpadded(kernel, query.to(kind), key.to(kind), value.to(kind), spans, scaling, window)
        return output.to(given)

    def attend_padded(self, query: Packed, key: Packed, value: Packed, scaling: float, window: int | None) -> Packed:
        """The same with sequences padded to the longest of their bucket."""
        given, kind = query.dtype, compute_type(query)
        query, key, value = (self._to_slots(tensor).to(kind) for tensor in (query, key, value))
        outputs = [
            self._attend_bucket(_cut(query, b), _cut(key, b), _cut(value, b), scaling, window) for b in self._buckets
        ]
        output = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
        return (output if self._dense else output.index_select(0, self._slot_of_computed)).to(given)

    def _to_slots(self, computed: Packed) -> Float[Tensor, "slots heads dim"]:
        return computed if self._dense else _gathered(computed, self._source_of_slot)

    @cached_property
    def _spans(self) -> tuple[Spans, Int[Tensor, " keys"] | None]:
        """Where queries and keys of each sequence lie, and the computed token that each key is of (None: the same).

        A sequence without a token of its own has no queries, so that nothing needs its keys.
        """
        sequence = torch.repeat_interleave(torch.arange(len(self._sizes), device=self._sizes.device), self._sizes)
        queries = torch.zeros_like(self._sizes).index_add_(0, sequence, self._own.to(self._sizes.dtype))
        asking = queries > 0
        shared = len(self.computed) < len(self.source)
        return Spans.of(queries[asking], self._sizes[asking]), self.source[asking[sequence]] if shared else None

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


def compute_type(query: Tensor) -> torch.dtype:
    """The type attention is computed in: on CPU float32, else what autocast would take, without it that of the query.

    Under autocast queries and keys arrive in float32, which rotary embeddings promote them to.
    """
    if query.is_cpu:  # torch's fused CPU kernel is several times slower in bfloat16 than in float32.
        return torch.float32
    device = query.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else query.dtype


def _gathered(computed: Packed, source: Int[Tensor, " rows"]) -> Float[Tensor, "rows heads dim"]:
    # In float32 because, on the way back, the gradients of a shared token add up here.
    return computed.float().index_select(0, source)


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
