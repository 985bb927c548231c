"""How much memory a training run will take at most, part by part.

Pure arithmetic: bytes from the shape of a model and the settings of a run. Nothing is loaded and nothing is measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Phase = Literal["start", "rollouts", "update", "saving"]
PHASES: tuple[Phase, ...] = ("start", "rollouts", "update", "saving")
_LATER: tuple[Phase, ...] = ("rollouts", "update", "saving")
_AROUND: tuple[Phase, ...] = ("rollouts", "saving")

FLOAT, HALF = 4, 2
"""Bytes of a float32 and of a bfloat16."""

PREFILL_TOKENS = 2**14
"""Most new tokens that the engine reads at once."""

FINGERPRINT = 2**22, 32
"""Weights whose fingerprint is taken at once, and bytes each of them needs for it."""

HELD_BACK = 2 / 3
"""Of what an update with adapters takes on a processor, what the C library's heap takes beside it.

Adapters make many short-lived results between those that are kept, and glibc gives such holes not back: measured were
1.65 times (27 million weights, rank 8) and 1.5 times (0.8 million), where without adapters it was 1.2 times at most.
"""


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
    cuda: whether the run is on CUDA, where attention with fewer key heads than query heads writes out its scores in
    float32 (torch's fused kernels take such heads only in half precision, and padded sequences only without a window).
    states: optimizer state, in floats for a weight of a hidden matrix and for any other.
    references: copies of the weights as they were, of which adapters need none.  copies: of all weights, adapters
    included (averages, earlier policies).  snapshots: of the trained weights, in main memory.
    read_figures: whether figures of the whole distribution carry gradients.  wide: floats that are kept for every
    token of a micro-batch beyond a few numbers.  wide_batch: the same for every token of the batch.
    filtered: whether top-k or top-p cut the distribution.  kept_sessions: closed sessions whose cache stays.
    logits_budget: most logits held at once.
    learners: processes that weights, gradients, optimizer state and every micro-batch are divided among (FSDP).
    rollout_workers: processes that hold the engines instead of the learners; 0: the one learner has its own.
    offload: whether the learners' weights, gradients and optimizer state are in main memory.
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
    learners: int = 1
    rollout_workers: int = 0
    offload: bool = False

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
    def share_tokens(self) -> int:
        """Positions of it that a learner computes: whole episodes."""
        return math.ceil(self.piece_tokens / self.sequence / self.learners) * self.sequence

    @property
    def sessions(self) -> int:
        """Episodes side by side, in each engine."""
        every = min(self.concurrency, max(self.episodes, self.evaluation))
        return math.ceil(every / max(self.rollout_workers, 1))

    @property
    def divided(self) -> bool:
        """Whether layers are brought together before they compute."""
        return self.learners > 1 or self.offload


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
    """The parts of the memory of the process that learns, or of each of them.

    base: what Python and torch (on CUDA: its context) take by themselves. It is an upper bound where a run decides: all
    episodes are as long as they may be, and share no opening. With ``offload`` it is the device's memory, and
    :func:`offloaded_bytes` are in main memory.
    """
    trained = _trained(shape, work)
    critic = 2 * (shape.width + 1)
    adapters = 0 if work.lora is None else trained
    own_engine = work.rollout_workers == 0
    served = HALF if work.bfloat16 else FLOAT
    references = 0 if work.lora is not None else work.references
    frozen = references * shape.parameters + work.copies * (shape.parameters + adapters)
    kept, step = _kept(shape, work), _step(shape, work)
    held_back = int(HELD_BACK * (kept + step)) if work.lora is not None and not work.cuda else 0
    here = 0 if work.offload else FLOAT
    # On CUDA they stay in main memory until a layer, or what is outside of the layers, is brought to be divided.
    layer = math.ceil((shape.hidden + adapters) / shape.layers)
    largest = max(layer, shape.parameters - shape.hidden + critic)
    before = FLOAT * (largest if work.cuda else shape.parameters + critic + adapters)

    def share(count: int) -> int:
        return math.ceil(count / work.learners)

    parts = [
        MemoryPart("Python and torch", base),
        MemoryPart("whole weights before they are divided", before if work.divided else 0, ("start",)),
        MemoryPart("weights, float32", here * share(shape.parameters + critic)),
        MemoryPart("adapters", here * share(adapters)),
        *([] if not own_engine else _engine(shape, work)),
        MemoryPart("frozen copies the recipe needs", here * share(frozen), _LATER),
        MemoryPart("snapshots the recipe keeps", 0 if work.cuda else FLOAT * work.snapshots * share(trained), _LATER),
        MemoryPart("gradients", here * share(trained + critic), ("update",)),
        MemoryPart("optimizer state", here * share(_moments(shape, work)), _LATER),
        MemoryPart("layers brought together", _together(shape, work), ("update",)),
        MemoryPart("figures kept for the batch", FLOAT * work.wide_batch * work.batch_tokens, ("update",)),
        MemoryPart("bfloat16 working weights", _cast(shape, adapters) if work.bfloat16 else 0, ("update",)),
        MemoryPart("activations kept for the backward pass", kept, ("update",)),
        MemoryPart("the largest step of the backward pass", step, ("update",)),
        MemoryPart("freed memory that the C library keeps", held_back, ("update",)),
        MemoryPart("memory of the update that the C library keeps", held_back and held_back + kept + step, _AROUND),
        MemoryPart("adapters merged into weights", FLOAT * shape.hidden if adapters and own_engine else 0, ("saving",)),
        MemoryPart("a tensor brought together", 0 if own_engine else 2 * FLOAT * shape.largest, ("saving", "rollouts")),
    ]
    if own_engine:
        parts.append(MemoryPart("KV cache", _cache(shape, work), ("rollouts",)))
        parts.append(MemoryPart("decoding and reading prompts", _decoding(shape, work, served), ("rollouts",)))
    return MemoryPlan(tuple(part for part in parts if part.size))


def rollout_plan(shape: ModelShape, work: Workload, base: int = 0) -> MemoryPlan:
    """The parts of the memory of each process that samples text for others that learn; on CUDA that of the device."""
    served = HALF if work.bfloat16 else FLOAT
    arriving = FLOAT * shape.largest * (1 if work.lora is None else 2)
    parts = [
        MemoryPart("Python and torch", base),
        MemoryPart("weights the engine is made from", 0 if work.cuda else FLOAT * shape.parameters, ("start",)),
        *_engine(shape, work),
        MemoryPart("a tensor of new weights", arriving, ("rollouts",)),
        MemoryPart("KV cache", _cache(shape, work), ("rollouts",)),
        MemoryPart("decoding and reading prompts", _decoding(shape, work, served), ("rollouts",)),
    ]
    return MemoryPlan(tuple(part for part in parts if part.size))


def offloaded_bytes(shape: ModelShape, work: Workload) -> int:
    """What each learner keeps in main memory instead of on its device."""
    if not work.offload:
        return 0
    trained, critic = _trained(shape, work), 2 * (shape.width + 1)
    adapters = 0 if work.lora is None else trained
    copies = work.copies + (work.references if work.lora is None else 0)
    held = (1 + copies) * (shape.parameters + adapters) + critic + trained + critic + _moments(shape, work)
    return FLOAT * math.ceil(held / work.learners)


def layer_bytes(shape: ModelShape, work: Workload) -> int:
    """What one layer keeps of a token for the backward pass, in bytes, as torch's autograd does.

    With H the width, I that of the feed-forward network, Q and K the widths of all query and all key heads, in floats:
    two norms with input, normalised input and output, 6 H; the feed-forward network with both projections, the
    activation and their product, 4 I (without a gate, 5 I); attention with queries, output, keys and values,
    2 Q + 2 K; where queries and keys are normalised by head, both before and after, 2 Q + 2 K; and the norms' and
    attention's scale of each row. In bfloat16 norms stay in float32, and on a processor attention does; the rest
    halves, and each of the projections that share an input keeps its own copy. With adapters a frozen norm does not
    keep what it normalised, and each adapter keeps what lies between its halves. Where attention is written out, its
    weights of all positions and the keys and values repeated for every query head are kept, too.
    """
    q, k = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    frozen = work.lora is not None
    size = HALF if work.bfloat16 else FLOAT
    norms = FLOAT * (2 if frozen else 4) * shape.width + size * (5 if work.bfloat16 else 2) * shape.width
    forward = size * (4 if shape.gated else 5) * shape.intermediate
    attention = (HALF if work.bfloat16 and work.cuda else FLOAT) * 2 * (q + k) + (HALF * q if work.bfloat16 else 0)
    if shape.head_norms:
        attention += FLOAT * (q + k) + (0 if frozen else size * (q + k))
    scales = FLOAT * (2 + shape.heads + (shape.heads + shape.kv_heads if shape.head_norms else 0))
    adapters = size * shape.adapted * work.lora if work.lora is not None else 0
    written_out = 0
    if _writes_out(shape, work):
        written_out = FLOAT * (shape.heads * work.sequence + 2 * (q - k))
    return norms + forward + attention + scales + adapters + written_out


def _writes_out(shape: ModelShape, work: Workload) -> bool:
    return work.cuda and not work.bfloat16 and shape.kv_heads < shape.heads


def _trained(shape: ModelShape, work: Workload) -> int:
    return shape.parameters if work.lora is None else work.lora * shape.ends


def _moments(shape: ModelShape, work: Workload) -> int:
    """Floats of the optimizer's state, the critic's included."""
    of_matrix, of_other = work.states
    trained = _trained(shape, work)
    matrices = shape.hidden if work.lora is None else trained
    return of_matrix * matrices + of_other * (trained - matrices) + 2 * 2 * (shape.width + 1)


def _engine(shape: ModelShape, work: Workload) -> list[MemoryPart]:
    served = HALF if work.bfloat16 else FLOAT
    return [MemoryPart("engine's copy of the weights", served * shape.parameters)]


def _together(shape: ModelShape, work: Workload) -> int:
    """Where weights are divided: those outside the layers, one layer and the next; and gradients of all but the next.

    With adapters only these have gradients, of which a layer's are few.
    """
    if not work.divided:
        return 0
    layer, adapters = math.ceil(shape.hidden / shape.layers), 0
    outside = shape.parameters - shape.hidden
    gradients = outside + layer
    if work.lora is not None:
        adapters = gradients = math.ceil(work.lora * shape.ends / shape.layers)
    return FLOAT * (outside + 2 * (layer + adapters) + gradients)


def _cast(shape: ModelShape, adapters: int) -> int:
    return HALF * (shape.linear + adapters)


def _kept(shape: ModelShape, work: Workload) -> int:
    """Activations of all layers, or of each only its input; and final norm, selection and rotations."""
    per_layer = FLOAT * shape.width if work.checkpointing else layer_bytes(shape, work)
    rest = FLOAT * (4 * shape.width + 2 * shape.head_dim + work.wide)
    return work.share_tokens * (shape.layers * per_layer + rest)


def _step(shape: ModelShape, work: Workload) -> int:
    """What is held beside it at once: the logits of a chunk, or one layer with its gradients; and sums of gradients.

    Of logits three buffers (log-probabilities, and their gradient twice), six with figures of the distribution.
    """
    rows = max(1, work.logits_budget // shape.vocabulary)
    logits = min(work.share_tokens, rows) * shape.vocabulary * FLOAT * (6 if work.read_figures else 3)
    size = HALF if work.bfloat16 else FLOAT
    layer = work.share_tokens * (size * 4 * shape.intermediate + FLOAT * 3 * shape.width)
    if work.checkpointing:
        layer += work.share_tokens * layer_bytes(shape, work)
    if _writes_out(shape, work):
        layer += work.share_tokens * FLOAT * 3 * shape.heads * work.sequence
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
    if work.cuda and shape.kv_heads < shape.heads:
        attention += work.sessions * work.sequence * 2 * q * size
    tokens = min(max(PREFILL_TOKENS, work.prompt), work.sessions * work.prompt)
    prompts = tokens * size * (4 * shape.width + 3 * shape.intermediate + 3 * q + 4 * k)
    at_once, each = FINGERPRINT
    return max(logits + attention, prompts, min(shape.largest, at_once) * each)


def doubled(needed: int) -> int:
    """16, doubled until it is at least ``needed``."""
    return max(16, 1 << (needed - 1).bit_length())
