"""A labelling of rows and its segment algebra: the one primitive from which every level of a batch is built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from stratagem.ordering import sorted_rows


@dataclass(frozen=True, eq=False)
class Partition:
    """Rows divided into ``count`` segments; row ``i`` belongs to segment ``labels[i]``.

    Rows of one segment need not be neighbours, and a segment may be empty. All operations are free of Python loops
    over rows, work along the first dimension of ``values`` (further dimensions are columns), and run on the device
    of ``labels``. Sums are accumulated in float64 and returned in float32 (float64 for float64 input, int64 sums,
    minima and maxima for integer input). A large common offset costs no digits, and equal values have a spread of
    exactly zero.

    labels: segment of each row, int64, each in ``[0, count)``.
    count:  number of segments, empty ones included.

    Raises ``ValueError`` when labels are not a one-dimensional integer tensor within range.
    """

    labels: Int[Tensor, " rows"]
    count: int

    def __post_init__(self) -> None:
        labels = self.labels
        if labels.ndim != 1 or labels.is_floating_point() or labels.dtype == torch.bool:
            raise ValueError(f"labels must be a 1-d integer tensor, got {labels.dtype} of shape {tuple(labels.shape)}")
        if labels.dtype != torch.int64:
            object.__setattr__(self, "labels", labels.long())
        if self.count < 0:
            raise ValueError(f"count must be >= 0, got {self.count}")
        if len(labels):
            low, high = torch.aminmax(self.labels)
            if low < 0 or high >= self.count:
                raise ValueError(f"labels must lie in [0, {self.count}), got [{int(low)}, {int(high)}]")

    # ---- building -------------------------------------------------------------------------------------------------

    @classmethod
    def from_sizes(cls, sizes: Int[Tensor, " segments"] | Sequence[int]) -> Partition:
        """Consecutive segments of the given sizes (zeros allowed)."""
        sizes = torch.as_tensor(sizes, dtype=torch.int64)
        if sizes.ndim != 1 or bool((sizes < 0).any()):
            raise ValueError(f"sizes must be a 1-d list of integers >= 0, got {sizes.tolist()}")
        labels = torch.repeat_interleave(torch.arange(len(sizes), device=sizes.device), sizes)
        built = cls._trusted(labels, len(sizes))
        built.__dict__["_sizes"], built.__dict__["_order"] = sizes, None
        return built

    @classmethod
    def by(cls, *keys: Tensor | Sequence[Any], within: Partition | None = None) -> Partition:
        """Rows that agree in every key (and lie in one segment of ``within``) form a segment.

        Keys are integer or boolean tensors, or sequences of strings or integers, of one length. Segments are numbered
        in ascending order of ``(within, *keys)``; none is empty.
        """
        if not keys and within is None:
            raise ValueError("Partition.by needs at least one key or within=")
        device = within.labels.device if within is not None else None
        columns = [] if within is None else [within.labels]
        columns += [_key_column(key, device) for key in keys]
        if len({len(column) for column in columns}) > 1:
            raise ValueError(f"keys must have one length, got {[len(column) for column in columns]}")
        values, labels = torch.unique(columns[0], return_inverse=True)
        for column in columns[1:]:
            further, codes = torch.unique(column, return_inverse=True)
            values, labels = torch.unique(labels * max(len(further), 1) + codes, return_inverse=True)
        return cls._trusted(labels, len(values))

    @classmethod
    def whole(cls, rows: int, device: torch.device | str | None = None) -> Partition:
        """All rows in one segment."""
        return cls.from_sizes(torch.tensor([rows], device=device))

    @classmethod
    def singletons(cls, rows: int, device: torch.device | str | None = None) -> Partition:
        """Every row in a segment of its own."""
        built = cls._trusted(torch.arange(rows, device=device), rows)
        built.__dict__["_sizes"], built.__dict__["_order"] = torch.ones_like(built.labels), None
        built.__dict__["_single"] = True
        return built

    @classmethod
    def _trusted(cls, labels: Tensor, count: int) -> Partition:
        """A partition whose labels are right by construction; skips the range check and its pass over the rows."""
        built = object.__new__(cls)
        object.__setattr__(built, "labels", labels)
        object.__setattr__(built, "count", count)
        return built

    def then(self, coarser: Partition) -> Partition:
        """The composed partition: rows by the segment in which ``coarser`` puts their segment of this partition."""
        if len(coarser) != self.count:
            raise ValueError(f"cannot compose: {self.count} segments here, {len(coarser)} rows there")
        if self._single:
            return coarser
        composed = self._trusted(self.spread(coarser.labels), coarser.count)
        if self._order is None and coarser._order is None:
            composed.__dict__["_order"] = None
            composed.__dict__["_sizes"] = coarser.sum(self._sizes)
        return composed

    def to(self, device: torch.device | str) -> Partition:
        """The same partition on another device."""
        moved = self._trusted(self.labels.to(device), self.count)
        for name in ("_sizes", "_order"):
            if name in self.__dict__:
                cached = self.__dict__[name]
                moved.__dict__[name] = None if cached is None else cached.to(device)
        return moved

    def select(self, rows: Int[Tensor, " kept"] | Bool[Tensor, " rows"]) -> Partition:
        """The partition of the kept rows, in the given order; segments keep their numbers and may become empty."""
        kept = self._trusted(self.labels[rows], self.count)
        if rows.dtype == torch.bool and self._order is None:
            kept.__dict__["_order"] = None
        return kept

    def pick(self, segments: Int[Tensor, " kept"]) -> tuple[Int[Tensor, " rows"], Partition]:
        """Rows of the given segments, segment after segment in the given order, and the partition of those rows.

        The partition must be sorted.
        """
        if self._single:
            return segments, Partition.singletons(len(segments), segments.device)
        return rows_of(self._sizes, segments), Partition.from_sizes(self._sizes[segments])

    def compact(self) -> tuple[Partition, Int[Tensor, " kept"]]:
        """The partition without empty segments, and the old number of each segment that is left."""
        kept = torch.nonzero(self._sizes).squeeze(1)
        renumbered = torch.zeros(self.count, dtype=torch.int64, device=self.labels.device)
        renumbered[kept] = torch.arange(len(kept), device=kept.device)
        return self._trusted(renumbered[self.labels], len(kept)), kept

    @classmethod
    def concatenate(cls, partitions: Sequence[Partition]) -> Partition:
        """Rows and segments of several partitions, one after the other."""
        offset, labels = 0, []
        for partition in partitions:
            labels.append(partition.labels + offset)
            offset += partition.count
        built = cls._trusted(torch.cat(labels), offset)
        if all(partition._order is None for partition in partitions):
            built.__dict__["_order"] = None
        return built

    # ---- reading --------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.labels)

    def size(self) -> Int[Tensor, " segments"]:
        """Number of rows in each segment."""
        return self._sizes

    def is_sorted(self) -> bool:
        """Whether segments follow each other in order, so that the rows of each are neighbours."""
        return self._order is None

    def first(self) -> Int[Tensor, " filled"]:
        """Index of the first row of every non-empty segment, in segment order."""
        starts = (self._sizes.cumsum(0) - self._sizes)[self._sizes > 0]
        return starts if self._order is None else self._order[starts]

    def last(self) -> Int[Tensor, " filled"]:
        """Index of the last row of every non-empty segment, in segment order."""
        return self._ends() if self._order is None else self._order[self._ends()]

    def is_last(self) -> Bool[Tensor, " rows"]:
        """Whether a row is the last of its segment."""
        mask = torch.zeros(len(self), dtype=torch.bool, device=self.labels.device)
        mask[self.last()] = True
        return mask

    def position(self) -> Int[Tensor, " rows"]:
        """Place of each row in its segment, from 0, in row order."""
        starts = self._sizes.cumsum(0) - self._sizes
        rows = torch.arange(len(self), device=self.labels.device)
        return self._unsorted(rows.sub_(torch.repeat_interleave(starts, self._sizes, output_size=len(self))))

    def by_position(self, table: Shaped[Tensor, " places"]) -> Shaped[Tensor, " rows"]:
        """``table[position()]``, whose first entry is for the first row of each segment, and so on.

        Of a sorted partition in blocks that the cache has room for, so that positions of all rows need no memory.
        """
        if self._order is not None:
            return table.index_select(0, self.position())
        chosen, starts = table.new_empty(len(self)), self._sizes.cumsum(0) - self._sizes
        for begin in range(0, len(self), CACHED):
            labels = self.labels[begin : begin + CACHED]
            rows = torch.arange(begin, begin + len(labels), device=labels.device)
            chosen[begin : begin + CACHED] = table.index_select(0, rows.sub_(starts.index_select(0, labels)))
        return chosen

    # ---- reductions: rows -> segments -----------------------------------------------------------------------------

    def sum(self, values: Tensor) -> Tensor:
        """Sum of each segment; 0 for an empty one."""
        if values.is_floating_point():
            return self._wide_sum(values).to(_statistic_dtype(values))
        self._one_for_each_row(values)
        total = torch.zeros((self.count, *values.shape[1:]), dtype=torch.int64, device=values.device)
        return total.index_add_(0, self.labels, values.long())

    def mean(self, values: Tensor) -> Tensor:
        """Mean of each segment; 0 for an empty one."""
        return self._wide_mean(_as_accurate(values)).to(_statistic_dtype(values))

    def var(self, values: Tensor, correction: int = 1) -> Tensor:
        """Variance of each segment, divided by ``size - correction`` (1: unbiased, as in torch; 0: population).

        Segments of at most ``correction`` rows, which show no spread, have variance 0.
        """
        return self._wide_var(self._deviation(values), correction).to(_statistic_dtype(values))

    def std(self, values: Tensor, correction: int = 1) -> Tensor:
        """Square root of :meth:`var`, with derivative 0 where the variance is 0."""
        return _safe_sqrt(self._wide_var(self._deviation(values), correction)).to(_statistic_dtype(values))

    def min(self, values: Tensor) -> Tensor:
        """Least value of each segment; +inf for an empty one (the largest integer for integer input)."""
        return self._extreme(values, "min")

    def max(self, values: Tensor) -> Tensor:
        """Greatest value of each segment; -inf for an empty one (the least integer for integer input)."""
        return self._extreme(values, "max")

    def quantile(self, values: Float[Tensor, " rows"], level: float = 0.5) -> Float[Tensor, " segments"]:
        """The ``level`` quantile of each segment, between two rows by linear interpolation; 0 for an empty one.

        ``level = 0.5`` is the median. Exactly the common value where the two rows are equal.
        """
        if not 0 <= level <= 1:
            raise ValueError(f"level must lie in [0, 1], got {level}")
        if len(self) == 0:
            return torch.zeros(self.count, dtype=_statistic_dtype(values), device=values.device)
        ordered, starts = self._ordered(_as_statistic(values))
        place = level * (self._sizes - 1).clamp(min=0).double()
        below, above = [ordered[(starts + p.long()).clamp(max=len(ordered) - 1)] for p in (place.floor(), place.ceil())]
        between = below + (place - place.floor()).to(below.dtype) * (above - below)
        return torch.where(self._sizes > 0, between, 0.0)

    def logsumexp(self, values: Tensor) -> Tensor:
        """``log(sum(exp(values)))`` of each segment without overflow; -inf for an empty one."""
        values = _as_statistic(values)
        peak = self.max(values.detach())
        peak = torch.where(peak.isfinite(), peak, 0.0)
        total = self._wide_sum((values - self.spread(peak)).exp())
        # A segment whose values are all -inf has no slope; the infinite one of log(0) would become NaN.
        positive = total > 0
        log_total = torch.where(positive, total.where(positive, 1.0).log(), -torch.inf)
        return (log_total + peak).to(values.dtype)

    # ---- rows -> rows ---------------------------------------------------------------------------------------------

    def spread(self, values: Tensor) -> Tensor:
        """Give each row the value of its segment: ``values[labels]``, the way back from a reduction."""
        if len(values) != self.count:
            raise ValueError(f"spread needs one value for each of {self.count} segments, got {len(values)}")
        spread: Tensor = _Spread.apply(values, self)  # type: ignore[no-untyped-call]
        return spread

    def center(self, values: Tensor) -> Tensor:
        """``values - mean``. Exactly 0 where all values of the segment are equal."""
        return self._deviation(values).to(_statistic_dtype(values))

    def standardize(self, values: Tensor, correction: int = 1, eps: float = 1e-6) -> Tensor:
        """``(values - mean) / (std + eps)``. Exactly 0 where all values of the segment are equal."""
        deviation = self._deviation(values)
        scale = _safe_sqrt(self._wide_var(deviation, correction)) + eps
        return (deviation / self._broadcast(torch.where(scale > 0, scale, 1.0), deviation)).to(_statistic_dtype(values))

    def leave_one_out(self, values: Tensor, alone: float | None = None) -> Tensor:
        """Mean of the *other* rows of the segment, ``(sum - values) / (size - 1)``.

        A row that is alone in its segment has no others: it gets ``alone``, or ``ValueError`` is raised when that is
        None.
        """
        others = self._sizes - 1
        if alone is None and bool((others == 0).any()):
            single = int(torch.nonzero(others == 0)[0])
            raise ValueError(f"leave-one-out needs at least 2 rows per segment; segment {single} has 1")
        # values - size/(size-1) * (values - mean) keeps the digits that (sum - values) would lose to a large offset.
        factor = _column(self._sizes.double() / others.clamp(min=1), values)
        baseline = values.double() - self.spread(factor) * self._deviation(values)
        if alone is not None:
            baseline = torch.where(_column(self.spread(others) == 0, values), alone, baseline)
        return baseline.to(_statistic_dtype(values))

    def rank(self, values: Tensor, descending: bool = False) -> Int[Tensor, " rows"]:
        """Place of each row in its segment when ordered by value, from 0; equal values in row order."""
        by_segment = self._ranked(values, descending)
        starts = self._sizes.cumsum(0) - self._sizes
        place = torch.arange(len(self), device=values.device) - torch.repeat_interleave(starts, self._sizes)
        return torch.empty_like(place).scatter_(0, by_segment, place)

    def pairs(self) -> tuple[Int[Tensor, " pairs"], Int[Tensor, " pairs"]]:
        """Every row with every row of its segment, itself included: the first and the second row of each pair.

        A segment of ``n`` rows has ``n * n`` pairs; those of one segment are neighbours, by first and then by second.
        """
        segment = self._sorted(self.labels)
        second = rows_of(self._sizes, segment)
        first = torch.repeat_interleave(torch.arange(len(self), device=segment.device), self._sizes[segment])
        return (first, second) if self._order is None else (self._order[first], self._order[second])

    def discounted_scan(self, values: Tensor, discount: float | Tensor = 1.0) -> Tensor:
        """Reverse discounted sum within each segment, in row order: ``y_t = values_t + discount_t * y_{t+1}``.

        ``discount`` is one number or one for each row (applied between row ``t`` and the next of its segment).
        ``values`` [rows], finite. Differentiable in ``values`` and in a tensor ``discount``.
        """
        ordered = self._sorted(_as_statistic(values))
        return self._unsorted(self._scan(ordered, self._sorted_rate(discount, ordered)))

    def gae(
        self,
        rewards: Float[Tensor, " rows"],
        values: Float[Tensor, " rows"],
        discount: float | Tensor = 1.0,
        trace: float | Tensor = 0.95,
        final_value: Float[Tensor, " segments"] | None = None,
    ) -> Float[Tensor, " rows"]:
        """Generalized advantage estimation within each segment, in row order (arXiv 1506.02438).

        ``delta_t = r_t + discount * V_{t+1} - V_t`` and ``A_t = delta_t + discount * trace * A_{t+1}``.
        After the last row ``V`` is ``final_value`` of the segment (default 0: a true end).
        ``discount`` and ``trace`` are one number or one for each row.
        """
        rewards, values = self._sorted(_as_statistic(rewards)), self._sorted(_as_statistic(values))
        discount, trace = self._sorted_rate(discount, values), self._sorted_rate(trace, values)
        filled = self._sizes > 0
        after = values.new_zeros(self.count) if final_value is None else final_value.to(values)
        following = values.roll(-1).index_copy_(0, self._ends(), after[filled])
        delta = rewards - values + discount * following
        return self._unsorted(self._scan(delta, discount * trace))

    # ---- helpers --------------------------------------------------------------------------------------------------

    @cached_property
    def _sizes(self) -> Int[Tensor, " segments"]:
        return torch.bincount(self.labels, minlength=self.count)

    @cached_property
    def _single(self) -> bool:
        """Whether every row is known to be a segment of its own, which makes most operations trivial."""
        return False

    @cached_property
    def _order(self) -> Int[Tensor, " rows"] | None:
        """Rows in segment order, or None when they already are."""
        if len(self) < 2 or bool((self.labels[1:] >= self.labels[:-1]).all()):
            return None
        return torch.argsort(self.labels, stable=True)

    def _ranked(self, values: Tensor, descending: bool = False) -> Int[Tensor, " rows"]:
        """Rows by segment, and within it by value."""
        by_value = torch.argsort(values, stable=True, descending=descending)
        return by_value[torch.argsort(self.labels[by_value], stable=True)]

    def _ordered(self, values: Float[Tensor, " rows"]) -> tuple[Float[Tensor, " places"], Int[Tensor, " segments"]]:
        """Values by segment and within it by size, NaN last; and the place at which each segment begins.

        As rows of a matrix, filled up with NaN, unless that would be much larger than the values or have no derivative:
        to sort many short rows is faster than to sort all values twice.
        """
        longest = int(self._sizes.max())
        if values.requires_grad or self.count * longest > _FILLED_UP * len(self):
            return values[self._ranked(values)], self._sizes.cumsum(0) - self._sizes
        rows = values.new_full((self.count, longest), torch.nan)
        places = torch.arange(longest, device=values.device)
        rows.masked_scatter_(places < self._sizes.unsqueeze(1), self._sorted(values))
        return sorted_rows(rows).flatten(), longest * torch.arange(self.count, device=values.device)

    def _ends(self) -> Int[Tensor, " filled"]:
        """Last row of every non-empty segment when rows are in segment order."""
        return (self._sizes.cumsum(0) - 1)[self._sizes > 0]

    def _one_for_each_row(self, values: Tensor) -> None:
        if len(values) != len(self):
            raise ValueError(f"needs one value for each of {len(self)} rows, got {len(values)}")

    def _sorted(self, values: Tensor) -> Tensor:
        self._one_for_each_row(values)
        return values if self._order is None else values[self._order]

    def _unsorted(self, ordered: Tensor) -> Tensor:
        if self._order is None:
            return ordered
        inverse = torch.empty_like(self._order)
        inverse[self._order] = torch.arange(len(self), device=inverse.device)
        return ordered[inverse]

    def _sorted_rate(self, rate: float | Tensor, like: Tensor) -> float | Tensor:
        return self._sorted(rate.to(like.dtype)) if isinstance(rate, Tensor) and rate.ndim else rate

    def _scan(self, ordered: Tensor, decay: float | Tensor) -> Tensor:
        """Reverse linear recurrence over rows in segment order; nothing is carried from a segment to the one before."""
        if isinstance(decay, Tensor):
            decay = decay.expand(len(ordered)).index_fill(0, self._ends(), 0.0)
        else:
            decay = torch.full_like(ordered, decay, requires_grad=False).index_fill_(0, self._ends(), 0.0)
        scanned: Tensor = _ReverseLinearRecurrence.apply(ordered, decay)  # type: ignore[no-untyped-call]
        return scanned

    def _broadcast(self, per_segment: Tensor, like: Tensor) -> Tensor:
        """What ``like`` can be combined with row by row; one segment needs no copy for every row."""
        per_segment = per_segment.to(like.dtype)
        return per_segment if self.count == 1 else self.spread(per_segment)

    def _wide_sum(self, values: Tensor) -> Tensor:
        self._one_for_each_row(values)
        total: Tensor = _SegmentSum.apply(values, self)  # type: ignore[no-untyped-call]
        return total

    def _reduce(self, values: Tensor, reduction: str, initial: float) -> Tensor:
        reduced: Tensor = torch.segment_reduce(
            self._sorted(values), reduction, lengths=self._sizes, initial=initial, unsafe=True
        )
        return reduced

    def _extreme(self, values: Tensor, reduction: str) -> Tensor:
        if values.is_floating_point():
            initial = float("inf") if reduction == "min" else float("-inf")
            return self._reduce(_as_statistic(values), reduction, initial)
        limits = torch.iinfo(torch.int64)
        initial_int = limits.max if reduction == "min" else limits.min
        index = _column(self.labels, values).expand_as(values)
        start = torch.full((self.count, *values.shape[1:]), initial_int, device=values.device)
        return start.scatter_reduce(0, index, values.long(), "a" + reduction)

    def _wide_mean(self, values: Tensor) -> Tensor:
        """Mean in float64. Float64 values are summed as differences from the first, so that equal ones have their mean.

        Of narrower values up to 2^29 equal ones add up exactly as they are.
        """
        if values.dtype != torch.float64:
            return self._quotient(self._wide_sum(values))
        anchor = self._anchor(values)
        return anchor + self._quotient(self._wide_sum(values - self._broadcast(anchor, values)))

    def _deviation(self, values: Tensor) -> Tensor:
        """``values - mean`` with all digits of the values' own precision, without a float64 copy of narrow values."""
        values = _as_accurate(values)
        if values.dtype == torch.float64:
            values = values - self._broadcast(self._anchor(values), values)
            return values - self._broadcast(self._quotient(self._wide_sum(values)), values)
        mean = self._wide_mean(values)
        near = mean.to(values.dtype)
        # The first difference is exact where values lie close to their mean; the second is what rounding took from it.
        return values - self._broadcast(near, values) - self._broadcast(mean - near, values)

    def _quotient(self, total: Tensor) -> Tensor:
        return total / _column(self._sizes.clamp(min=1), total)

    def _wide_var(self, deviation: Tensor, correction: int) -> Tensor:
        total = self._wide_sum(deviation * deviation)
        freedom = _column(self._sizes - correction, total)
        return torch.where(freedom > 0, total / freedom.clamp(min=1), 0.0)

    def _anchor(self, values: Tensor) -> Tensor:
        """The first value of each segment (0 for an empty one): deviations are taken from it to keep their digits."""
        anchor = torch.zeros((self.count, *values.shape[1:]), dtype=torch.float64, device=values.device)
        anchor[self._sizes > 0] = values.detach()[self.first()].double()
        return anchor


class _Spread(torch.autograd.Function):
    """Segments to rows; its derivative is the sum of each segment."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, partition: Partition) -> Tensor:
        ctx.partition = partition
        return values.index_select(0, partition.labels)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.partition.sum(gradients[0]).to(gradients[0].dtype), None


class _SegmentSum(torch.autograd.Function):
    """Sum of each segment in float64; its derivative gives each row that of its segment."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, partition: Partition) -> Tensor:
        ctx.partition, ctx.dtype = partition, values.dtype
        if partition.count == 1:
            return values.sum(0, keepdim=True, dtype=torch.float64)
        return partition._reduce(values.double(), "sum", 0.0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.partition.spread(gradients[0].to(ctx.dtype)), None


def rows_of(sizes: Int[Tensor, " segments"], segments: Int[Tensor, " kept"]) -> Int[Tensor, " rows"]:
    """Row numbers of the given consecutive segments, segment after segment in the given order."""
    kept = sizes[segments]
    starts = (sizes.cumsum(0) - sizes)[segments]
    shift = starts - (kept.cumsum(0) - kept)
    return torch.repeat_interleave(shift, kept) + torch.arange(int(kept.sum()), device=sizes.device)


class _ReverseLinearRecurrence(torch.autograd.Function):
    """``y_t = x_t + a_t * y_{t+1}`` over flat tensors, with the forward recurrence as its derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, a: Tensor) -> Tensor:
        y = _reverse_recurrence(x, a)
        ctx.save_for_backward(a, y)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None]:
        a, y = ctx.saved_tensors
        # dL/dx obeys g_t = dL/dy_t + a_{t-1} g_{t-1}: the same recurrence run the other way.
        previous = torch.roll(a, 1)
        previous[:1] = 0
        g = _reverse_recurrence(gradients[0].flip(0), previous.flip(0)).flip(0)
        if not ctx.needs_input_grad[1]:
            return g, None
        following = torch.roll(y, -1)
        following[-1:] = 0
        return g, g * following


CACHED = 2**16
"""Rows in a block of which a processor's cache holds a few columns."""

_FILLED_UP = 4
"""How many times the values a matrix with a row for each segment may hold, for the sake of sorting."""

_BLOCK = 64
"""Rows per block of the recurrence: columns of a [block, rows / block] view are scanned at once, then their carries."""


def _reverse_recurrence(x: Tensor, a: Tensor) -> Tensor:
    rows = len(x)
    if rows == 0:
        return x.clone()
    y, decay = _block_columns(x.detach()), _block_columns(a.detach())
    for row in range(_BLOCK - 2, -1, -1):
        y[row].addcmul_(decay[row], y[row + 1])
        decay[row].mul_(decay[row + 1])
    if rows > _BLOCK:
        start = _reverse_recurrence(y[0], decay[0])
        carry = torch.cat([start[1:], start.new_zeros(1)])
        y.addcmul_(decay, carry)
    return y.t().reshape(-1)[:rows]


def _block_columns(x: Tensor) -> Tensor:
    """``x`` as columns of ``_BLOCK`` rows, the last one filled up with zeros."""
    whole = len(x) // _BLOCK
    columns = x.new_zeros(_BLOCK, -(-len(x) // _BLOCK))
    columns[:, :whole] = x[: whole * _BLOCK].view(whole, _BLOCK).t()
    columns[: len(x) - whole * _BLOCK, whole:] = x[whole * _BLOCK :].unsqueeze(1)
    return columns


def _statistic_dtype(values: Tensor) -> torch.dtype:
    return torch.float64 if values.dtype == torch.float64 else torch.float32


def _as_statistic(values: Tensor) -> Tensor:
    return values.to(_statistic_dtype(values))


def _as_accurate(values: Tensor) -> Tensor:
    """Float32, or float64 for values that may not fit into it."""
    return values.float() if values.is_floating_point() and values.dtype != torch.float64 else values.double()


def _safe_sqrt(variance: Tensor) -> Tensor:
    """Square root whose derivative at 0 is 0 instead of infinite."""
    positive = variance > 0
    return torch.where(positive, variance.where(positive, 1.0).sqrt(), 0.0)


def _column(segment: Tensor, like: Tensor) -> Tensor:
    """``segment`` with trailing dimensions of one, to broadcast against the columns of ``like``."""
    return segment.reshape(-1, *([1] * (like.ndim - 1)))


def _key_column(key: Tensor | Sequence[Any], device: torch.device | None) -> Tensor:
    if not isinstance(key, Tensor):
        codes = {value: code for code, value in enumerate(sorted(set(key)))}
        key = torch.tensor([codes[value] for value in key], dtype=torch.int64)
    if key.is_floating_point() or key.ndim != 1:
        raise ValueError(f"a key must be a 1-d integer or boolean tensor, got {key.dtype} of shape {tuple(key.shape)}")
    return key.to(device=device, dtype=torch.int64) if device is not None else key.long()
