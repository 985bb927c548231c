"""How much memory a training run will take at most, part by part, and which settings would make it take less.

Pure arithmetic: bytes from the shape of a model and the settings of a run. Nothing is loaded and nothing is measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

Phase = Literal["start", "rollouts", "update"]
PHASES: tuple[Phase, ...] = ("start", "rollouts", "update")
_LATER: tuple[Phase, ...] = ("rollouts", "update")

FLOAT, HALF = 4, 2
"""Bytes of a float32 and of a bfloat16."""

PREFILL_TOKENS = 2**14
"""Most new tokens that the engine reads at once."""

FINGERPRINT = 2**22, 32
"""Weights whose fingerprint is taken at once, and bytes each of them needs for it."""

LEAST_HELP = 0.01
"""A setting helps when the total falls by at least this share."""


@dataclass(frozen=True)
class ModelShape:
    """What memory depends on of a decoder with rotary or learned positions and one kind of layer.

    parameters: weights, tied ones once.  linear: weights of its linear layers, the output layer's among them (once
    more where it is tied).  hidden: weights of the linear layers but the output layer.  largest: weights of the
    largest tensor.  ends: inputs plus outputs, summed over the linear layers but the output layer: adapters of rank r
    have ``r * ends`` weights.  adapted: how many linear layers a layer of the decoder has.
    gated: whether the feed-forward network multiplies two projections.  head_norms: whether queries and keys are
    normalised.  context: most positions.
    """

    parameters: int
    linear: int
    hidden: int
    largest: int
    ends: int
    adapted: int
    layers: int
    width: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    gated: bool
    head_norms: bool
    context: int


@dataclass(frozen=True)
class Workload:
    """What memory depends on of a run.

    sequence: tokens of the longest episode.  prompt: of them, those read before the first turn.
    episodes: in a batch.  evaluation: played side by side in an evaluation, as far as ``concurrency`` lets them.
    minibatches: optimizer steps a pass over the batch is cut into.  together: episodes that a micro-batch must not cut.
    microbatch_tokens: most positions in one forward pass, None: no bound.
    bfloat16: whether matrices are multiplied in it.  lora: rank of adapters, None: all weights are trained.
    checkpointing: whether activations of a layer are computed again instead of kept.
    grouped_on_cuda: whether the run is on CUDA, where attention with fewer key heads than query heads writes out its
    scores in float32 (torch's fused kernels take such heads only in half precision and without a mask).
    states: optimizer state, in floats for a weight of a hidden matrix and for any other.
    references: copies of the weights as they were, of which adapters need none.  copies: of all weights, adapters
    included (averages, earlier policies).  snapshots: of the trained weights, in main memory.
    read_figures: whether figures of the whole distribution carry gradients.  wide: floats that are kept for every
    token of a micro-batch beyond a few numbers.  wide_batch: the same for every token of the batch.
    filtered: whether top-k or top-p cut the distribution.  kept_sessions: closed sessions whose cache stays.
    logits_budget: most logits held at once.
    """

    sequence: int
    prompt: int
    episodes: int
    evaluation: int = 0
    concurrency: int = 256
    minibatches: int = 1
    together: int = 1
    microbatch_tokens: int | None = None
    bfloat16: bool = False
    lora: int | None = None
    checkpointing: bool = False
    cuda: bool = False
    states: tuple[int, int] = (2, 2)
    references: int = 0
    copies: int = 0
    snapshots: int = 0
    read_figures: bool = False
    wide: int = 0
    wide_batch: int = 0
    filtered: bool = False
    kept_sessions: bool = False
    logits_budget: int = 2**25

    @property
    def batch_tokens(self) -> int:
        """Positions of a batch of longest episodes."""
        return self.episodes * self.sequence

    @property
    def piece_tokens(self) -> int:
        """Positions of the largest micro-batch."""
        minibatch = math.ceil(self.episodes / self.minibatches) * self.sequence
        if self.microbatch_tokens is None:
            return minibatch
        least = self.together * self.sequence
        return min(minibatch, max(self.microbatch_tokens // self.sequence * self.sequence, least))

    @property
    def sessions(self) -> int:
        """Episodes side by side."""
        return min(self.concurrency, max(self.episodes, self.evaluation))


@dataclass(frozen=True)
class MemoryPart:
    """Bytes of one part, and the phases of a run in which it is held."""

    name: str
    size: int
    phases: tuple[Phase, ...] = PHASES


@dataclass(frozen=True)
class MemoryPlan:
    """Parts of a run's memory; the total is that of the phase that needs most."""

    parts: tuple[MemoryPart, ...]

    def in_phase(self, phase: Phase) -> int:
        """Bytes held in this phase."""
        return sum(part.size for part in self.parts if phase in part.phases)

    @property
    def peak_phase(self) -> Phase:
        """The phase that needs most, the first of several."""
        return max(PHASES, key=self.in_phase)

    @property
    def total(self) -> int:
        """Bytes held in it."""
        return self.in_phase(self.peak_phase)


def memory_plan(shape: ModelShape, work: Workload, base: int = 0) -> MemoryPlan:
    """The parts of a run's memory. base: what Python and torch (on CUDA: its context) take by themselves.

    It is an upper bound where a run decides: all episodes are as long as they may be, and share no opening.
    """
    trained = _trained(shape, work)
    critic = 2 * (shape.width + 1)
    adapters = 0 if work.lora is None else trained
    moments = _moments(shape, work, trained) + 2 * critic
    served = HALF if work.bfloat16 else FLOAT
    references = 0 if work.lora is not None else work.references
    frozen = references * shape.parameters + work.copies * (shape.parameters + adapters)
    parts = [
        MemoryPart("Python and torch", base),
        MemoryPart("weights, float32", FLOAT * (shape.parameters + critic)),
        MemoryPart("adapters", FLOAT * adapters),
        MemoryPart("engine's copy while it is made", FLOAT * shape.parameters, ("start",)),
        MemoryPart("engine's copy of the weights", served * shape.parameters, _LATER),
        MemoryPart("frozen copies the recipe needs", FLOAT * frozen, _LATER),
        MemoryPart("snapshots the recipe keeps", 0 if work.cuda else FLOAT * work.snapshots * trained, _LATER),
        MemoryPart("gradients", FLOAT * (trained + critic), _LATER),
        MemoryPart("optimizer state", FLOAT * moments, _LATER),
        MemoryPart("figures kept for the batch", FLOAT * work.wide_batch * work.batch_tokens, ("update",)),
        MemoryPart("KV cache", _cache(shape, work), ("rollouts",)),
        MemoryPart("decoding and reading prompts", _decoding(shape, work, served), ("rollouts",)),
        MemoryPart("bfloat16 working weights", _cast(shape, adapters) if work.bfloat16 else 0, ("update",)),
        MemoryPart("activations kept for the backward pass", _kept(shape, work), ("update",)),
        MemoryPart("the largest step of the backward pass", _step(shape, work), ("update",)),
    ]
    return MemoryPlan(tuple(part for part in parts if part.size))


def layer_bytes(shape: ModelShape, work: Workload) -> int:
    """What one layer keeps of a token for the backward pass, in bytes, as torch's autograd does.

    With H the width, I that of the feed-forward network, Q and K the widths of all query and all key heads, in floats:
    two norms with input, normalised input and output, 6 H; the feed-forward network with both projections, the
    activation and their product, 4 I (without a gate, 5 I); attention with queries, output, keys and values,
    2 Q + 2 K; where queries and keys are normalised by head, both before and after, 2 Q + 2 K; and the norms' and
    attention's scale of each row. In bfloat16 norms and attention stay in float32, the rest halves, and each of the
    projections that share an input keeps its own copy. With adapters a frozen norm does not keep what it normalised,
    and each adapter keeps what lies between its halves. Where attention is written out, its weights of all positions
    and the keys and values repeated for every query head are kept, too.
    """
    q, k = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    frozen = work.lora is not None
    size = HALF if work.bfloat16 else FLOAT
    norms = FLOAT * (2 if frozen else 4) * shape.width + size * (5 if work.bfloat16 else 2) * shape.width
    forward = size * (4 if shape.gated else 5) * shape.intermediate
    attention = FLOAT * 2 * (q + k) + (HALF * q if work.bfloat16 else 0)
    if shape.head_norms:
        attention += FLOAT * (q + k) + (0 if frozen else size * (q + k))
    scales = FLOAT * (2 + shape.heads + (shape.heads + shape.kv_heads if shape.head_norms else 0))
    adapters = size * shape.adapted * work.lora if work.lora is not None else 0
    written_out = 0
    if _writes_out(shape, work):
        # Its output is then kept only as what the next projection reads.
        written_out = FLOAT * (shape.heads * work.sequence + 2 * (q - k) - (q if work.bfloat16 else 0))
    return norms + forward + attention + scales + adapters + written_out


def _writes_out(shape: ModelShape, work: Workload) -> bool:
    return work.cuda and shape.kv_heads < shape.heads


def _trained(shape: ModelShape, work: Workload) -> int:
    return shape.parameters if work.lora is None else work.lora * shape.ends


def _moments(shape: ModelShape, work: Workload, trained: int) -> int:
    of_matrix, of_other = work.states
    matrices = shape.hidden if work.lora is None else trained
    return of_matrix * matrices + of_other * (trained - matrices)


def _cast(shape: ModelShape, adapters: int) -> int:
    return HALF * (shape.linear + adapters)


def _kept(shape: ModelShape, work: Workload) -> int:
    """Activations of all layers, or of each only its input; and final norm, selection and rotations."""
    per_layer = FLOAT * shape.width if work.checkpointing else layer_bytes(shape, work)
    rest = FLOAT * (4 * shape.width + 2 * shape.head_dim + work.wide)
    return work.piece_tokens * (shape.layers * per_layer + rest)


def _step(shape: ModelShape, work: Workload) -> int:
    """What is held beside it at once: the logits of a chunk, or one layer with its gradients; and sums of gradients.

    Of logits three buffers (log-probabilities, and their gradient twice), six with figures of the distribution.
    """
    rows = max(1, work.logits_budget // shape.vocabulary)
    logits = min(work.piece_tokens, rows) * shape.vocabulary * FLOAT * (6 if work.read_figures else 3)
    size = HALF if work.bfloat16 else FLOAT
    layer = work.piece_tokens * (size * 4 * shape.intermediate + FLOAT * 3 * shape.width)
    if work.checkpointing:
        layer += work.piece_tokens * layer_bytes(shape, work)
    if _writes_out(shape, work):
        layer += work.piece_tokens * FLOAT * 3 * shape.heads * work.sequence
    largest = shape.largest if work.lora is None else 0
    return max(logits, layer) + FLOAT * 2 * largest


def _cache(shape: ModelShape, work: Workload) -> int:
    """Keys and values, and while they grow a quarter more.

    Rows and positions double from 16 on. float32 on a processor, which computes attention in it.
    """
    rows = doubled(work.sessions * (2 if work.kept_sessions else 1))
    size = HALF if work.bfloat16 and work.cuda else FLOAT
    cache = shape.layers * rows * doubled(work.sequence) * shape.kv_heads * shape.head_dim * 2 * size
    return cache * 5 // 4


def _decoding(shape: ModelShape, work: Workload, size: int) -> int:
    """Beside the cache: the next token's distributions and attention, or one layer of the prompts; or a fingerprint.

    Of distributions five buffers, eleven where the likeliest tokens are sorted out. Where attention is written out,
    keys and values of one layer are repeated for every query head.
    """
    q, k = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    logits = work.sessions * shape.vocabulary * FLOAT * (11 if work.filtered else 5)
    attention = work.sessions * work.sequence * shape.heads * FLOAT * 3
    if _writes_out(shape, work):
        attention += work.sessions * work.sequence * 2 * q * size
    tokens = min(max(PREFILL_TOKENS, work.prompt), work.sessions * work.prompt)
    prompts = tokens * size * (4 * shape.width + 3 * shape.intermediate + 3 * q + 4 * k)
    at_once, each = FINGERPRINT
    return max(logits + attention, prompts, min(shape.largest, at_once) * each)


def doubled(needed: int) -> int:
    """16, doubled until it is at least ``needed``."""
    return max(16, 1 << (needed - 1).bit_length())


# ---- what would help ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    """One way to need less, as it is written on the command line.

    alone: bytes in all with it and nothing else changed.  together: on top of the settings before it that have this
    figure; None where the run fitted already, or where it does not help.  helps: whether it does, alone or on top.
    """

    option: str
    note: str
    alone: int
    together: int | None
    helps: bool


def settings_that_help(
    shape: ModelShape, work: Workload, available: int, base: int = 0, *, native_bfloat16: bool = True
) -> list[Setting]:
    """What could be set otherwise, first what changes no number of the training, and what each would bring.

    Values are the mildest with which the run fits, on top of the settings before, and the strongest where none is
    enough. What is set already is left out.
    """

    def total(with_it: Workload) -> int:
        return memory_plan(shape, with_it, base).total

    slow = "" if native_bfloat16 else "; not native on this machine, so slow"
    ways: list[tuple[str, str, str, Callable[[Workload], list[Any]]]] = [
        ("microbatch_tokens", "--set optimization.microbatch_tokens={}", "same numbers, more passes", _smaller_pieces),
        ("checkpointing", "--gradient-checkpointing", "same numbers, each layer computed twice", _checkpointing),
        ("concurrency", "--concurrency {}", "same numbers, slower rollouts", _fewer_sessions),
        ("bfloat16", "--precision bfloat16", f"rounds more{slow}", _bfloat16),
        ("lora", "--lora {}", "trains adapters only", _adapters),
    ]
    before = best = total(work)
    with_best, found = work, list[Setting]()
    for field, option, note, values_of in ways:
        values = values_of(with_best)
        if not values:
            continue
        tried = [(value, replace(with_best, **{field: value})) for value in values]
        value, with_it = next((one for one in tried if total(one[1]) <= available), tried[-1])
        alone, stacked = total(replace(work, **{field: value})), total(with_it)
        on_top = stacked <= (1 - LEAST_HELP) * best
        needed = best > available and on_top
        helps = on_top or alone <= (1 - LEAST_HELP) * before
        found.append(Setting(option.format(value), note, alone, stacked if needed else None, helps))
        if needed:
            best, with_best = stacked, with_it
    return found


def _smaller_pieces(work: Workload) -> list[int]:
    """Half the micro-batch, a quarter and so on, down to what must not be cut."""
    least, size, sizes = work.together * work.sequence, work.piece_tokens // 2, list[int]()
    while size > least:
        sizes.append(size)
        size //= 2
    return [*sizes, least] if work.piece_tokens > least else []


def _checkpointing(work: Workload) -> list[bool]:
    return [] if work.checkpointing else [True]


def _fewer_sessions(work: Workload) -> list[int]:
    """Half the sessions, a quarter and so on, down to 16, below which the cache does not get smaller."""
    sizes, size = list[int](), work.sessions // 2
    while size >= 16:
        sizes.append(size)
        size //= 2
    return sizes


def _bfloat16(work: Workload) -> list[bool]:
    return [] if work.bfloat16 else [True]


def _adapters(work: Workload) -> list[int]:
    return [8] if work.lora is None else []
