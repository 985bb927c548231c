"""The segment algebra against plain loops over rows."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from stratagem.partition import CACHED, Partition

FLOATS = (np.float32, np.float64)
INTEGERS = (np.int32, np.int64, np.bool_)


@st.composite
def labelled_rows(draw, dtypes=FLOATS, columns=True, least_rows=0):
    """A partition, its labels as numpy, and values of any of the dtypes, one- or two-dimensional."""
    rows, count = draw(st.integers(least_rows, 24)), draw(st.integers(1, 6))
    labels = draw(hnp.arrays(np.int64, rows, elements=st.integers(0, count - 1)))
    if draw(st.booleans()):
        labels = np.sort(labels)
    dtype = draw(st.sampled_from(dtypes))
    shape = (rows, draw(st.integers(1, 3))) if columns and draw(st.booleans()) else (rows,)
    if dtype in FLOATS:
        elements = st.floats(-100, 100, width=32, allow_subnormal=False)
    elif dtype is np.bool_:
        elements = st.booleans()
    else:
        elements = st.integers(-1000, 1000)
    values = draw(hnp.arrays(dtype, shape, elements=elements))
    return Partition(torch.from_numpy(labels), count), labels, values


def by_segment(labels, count, values, of, empty):
    """``of`` applied to the float64 rows of each segment, with ``empty`` for a segment without rows."""
    wide = values.astype(np.float64)
    return np.stack(
        [of(wide[labels == s]) if (labels == s).any() else np.full(values.shape[1:], empty) for s in range(count)]
    )


def same(actual: Tensor, expected, atol=2e-4, rtol=1e-5):
    np.testing.assert_allclose(actual.double().numpy(), expected, rtol=rtol, atol=atol)


def variance(correction):
    return lambda rows: rows.var(0) * len(rows) / (len(rows) - correction) if len(rows) > correction else 0 * rows[0]


# ---- reductions -----------------------------------------------------------------------------------------------------


@given(labelled_rows(dtypes=FLOATS + INTEGERS))
def test_sums_means_and_extremes_equal_those_of_a_loop(case):
    partition, labels, values = case
    tensor = torch.from_numpy(values)
    same(partition.sum(tensor), by_segment(labels, partition.count, values, lambda r: r.sum(0), 0.0))
    same(partition.mean(tensor), by_segment(labels, partition.count, values, lambda r: r.mean(0), 0.0))
    filled = np.bincount(labels, minlength=partition.count) > 0
    same(partition.max(tensor)[filled], by_segment(labels, partition.count, values, lambda r: r.max(0), 0.0)[filled])
    same(partition.min(tensor)[filled], by_segment(labels, partition.count, values, lambda r: r.min(0), 0.0)[filled])


@given(labelled_rows(dtypes=FLOATS + INTEGERS), st.sampled_from([0, 1]))
def test_variances_equal_those_of_a_loop(case, correction):
    partition, labels, values = case
    expected = by_segment(labels, partition.count, values, variance(correction), 0.0)
    same(partition.var(torch.from_numpy(values), correction), expected, rtol=1e-4)
    same(partition.std(torch.from_numpy(values), correction), np.sqrt(expected), rtol=1e-4)


@given(labelled_rows())
def test_logsumexp_equals_that_of_a_loop(case):
    partition, labels, values = case
    expected = by_segment(labels, partition.count, values, lambda r: np.logaddexp.reduce(r, 0), -np.inf)
    same(partition.logsumexp(torch.from_numpy(values)), expected)


@given(labelled_rows(columns=False), st.floats(0, 1))
def test_quantiles_equal_those_of_a_loop(case, level):
    partition, labels, values = case
    expected = by_segment(labels, partition.count, values, lambda rows: np.quantile(rows, level), 0.0)
    same(partition.quantile(torch.from_numpy(values), level), expected)


def test_the_quantile_of_equal_values_is_that_value_and_of_a_level_outside_is_refused():
    third = torch.full((7,), 1 / 3)
    assert Partition.whole(7).quantile(third, 0.37).tolist() == third[:1].tolist()
    assert Partition.whole(0).quantile(torch.zeros(0)).tolist() == [0.0]
    with pytest.raises(ValueError, match=r"level must lie in \[0, 1\], got 1\.5"):
        Partition.whole(7).quantile(third, 1.5)


def test_logsumexp_of_minus_infinities_is_minus_infinity_and_does_not_poison_the_gradient():
    values = torch.tensor([-math.inf, -math.inf, 0.0, 0.0], requires_grad=True)
    result = Partition.from_sizes([2, 2]).logsumexp(values)
    assert result.tolist() == [-math.inf, pytest.approx(math.log(2))]
    result[1].backward()
    assert values.grad.tolist() == [0.0, 0.0, 0.5, 0.5]


def test_logsumexp_does_not_overflow():
    assert Partition.from_sizes([2]).logsumexp(torch.tensor([1000.0, 1000.0])).item() == pytest.approx(
        1000 + math.log(2)
    )


def test_results_are_float32_but_for_float64_and_for_integer_sums():
    partition = Partition.from_sizes([2, 1])
    for given_dtype, statistic in (
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
        (torch.int32, torch.float32),
    ):
        values = torch.tensor([1, 2, 3], dtype=given_dtype)
        for name in ("mean", "var", "std", "center", "standardize"):
            assert getattr(partition, name)(values).dtype == statistic, (name, given_dtype)
        for name in ("sum", "min", "max"):
            expected = torch.int64 if given_dtype == torch.int32 else statistic
            assert getattr(partition, name)(values).dtype == expected, (name, given_dtype)


def test_integer_sums_are_exact_beyond_the_digits_of_float64():
    large = 2**60
    assert Partition.from_sizes([2, 0, 1]).sum(torch.tensor([large, 1, -large])).tolist() == [large + 1, 0, -large]


def test_an_empty_segment_sums_to_zero_and_has_no_extreme():
    partition, nothing = Partition.from_sizes([0, 0]), torch.zeros(0)
    assert partition.sum(nothing).tolist() == [0.0, 0.0]
    assert partition.mean(nothing).tolist() == [0.0, 0.0]
    assert partition.std(nothing).tolist() == [0.0, 0.0]
    assert partition.max(nothing).tolist() == [-math.inf] * 2
    assert partition.min(nothing).tolist() == [math.inf] * 2
    assert partition.max(nothing.long()).tolist() == [torch.iinfo(torch.int64).min] * 2


def test_a_float32_sum_of_many_rows_is_accumulated_in_float64():
    # Added one by one in float32, 16,777,216 would swallow every further 1.
    values = torch.ones(200)
    values[0] = 2.0**24
    assert Partition.from_sizes([200]).sum(values).item() == 2.0**24 + 200
    assert Partition.from_sizes([200, 0]).sum(values)[0].item() == 2.0**24 + 200


# ---- rows to rows ---------------------------------------------------------------------------------------------------


@given(labelled_rows(dtypes=FLOATS + INTEGERS), st.sampled_from([0, 1]))
def test_centering_and_standardizing_equal_those_of_a_loop(case, correction):
    partition, labels, values = case
    tensor = torch.from_numpy(values)
    mean = by_segment(labels, partition.count, values, lambda r: r.mean(0), 0.0)[labels]
    deviation = values.astype(np.float64) - mean
    std = np.sqrt(by_segment(labels, partition.count, values, variance(correction), 0.0))[labels]
    same(partition.center(tensor), deviation)
    same(partition.standardize(tensor, correction, eps=0.1), deviation / (std + 0.1), rtol=1e-4, atol=1e-3)


@given(labelled_rows(dtypes=FLOATS + INTEGERS))
def test_spread_gives_each_row_the_value_of_its_segment(case):
    partition, labels, _ = case
    per_segment = torch.arange(partition.count * 2).reshape(partition.count, 2)
    assert partition.spread(per_segment).tolist() == per_segment[torch.from_numpy(labels)].tolist()
    with pytest.raises(ValueError, match="one value for each of"):
        partition.spread(torch.zeros(partition.count + 1))


@given(labelled_rows(least_rows=1))
def test_leave_one_out_is_the_mean_of_the_others(case):
    partition, labels, values = case
    expected = np.stack(
        [
            values.astype(np.float64)[(labels == labels[i]) & (np.arange(len(labels)) != i)].mean(0)
            if (labels == labels[i]).sum() > 1
            else np.full(values.shape[1:], 7.0)
            for i in range(len(labels))
        ]
    )
    same(partition.leave_one_out(torch.from_numpy(values), alone=7.0), expected)


def test_leave_one_out_of_a_row_that_is_alone_raises_unless_told_what_to_give():
    partition = Partition.from_sizes([2, 1])
    with pytest.raises(ValueError, match="segment 1 has 1"):
        partition.leave_one_out(torch.ones(3))
    assert partition.leave_one_out(torch.tensor([1.0, 3.0, 9.0]), alone=0.0).tolist() == [3.0, 1.0, 0.0]


def test_a_large_common_offset_costs_no_digits():
    small = torch.tensor([0.0, 0.25, 0.5, 1.25])
    partition = Partition.from_sizes([4])
    assert partition.center(small + 1e6).tolist() == [-0.5, -0.25, 0.0, 0.75]
    assert partition.mean(small + 1e6).item() == 1e6 + 0.5
    assert partition.var(small + 1e6).item() == pytest.approx(0.875 / 3, rel=1e-6)
    assert partition.standardize(small + 1e6).tolist() == pytest.approx(partition.standardize(small).tolist(), abs=1e-6)
    two = Partition.from_sizes([2, 2])
    assert two.center(small + 1e6).tolist() == [-0.125, 0.125, -0.375, 0.375]


@given(
    st.floats(-(2.0**60), 2.0**60, width=32, allow_subnormal=False),
    st.integers(1, 50),
    st.sampled_from([0, 1]),
    st.booleans(),
)
def test_equal_values_have_exactly_no_spread(value, rows, correction, double):
    values = torch.full((rows + 3,), value, dtype=torch.float64 if double else torch.float32)
    values = values / 3 if double else values  # a float64 that needs all its digits
    partition = Partition.from_sizes([rows, 3])
    assert partition.center(values).abs().max() == 0
    assert partition.var(values, correction).abs().max() == 0
    assert partition.standardize(values, correction, eps=0.0).abs().max() == 0
    assert torch.equal(partition.mean(values), values[:2])
    whole = Partition.whole(rows + 3)
    assert whole.standardize(values, correction, eps=0.0).abs().max() == 0


@given(labelled_rows())
def test_pairs_are_every_row_with_every_row_of_its_segment(case):
    partition, labels, _ = case
    first, second = partition.pairs()
    places = [np.flatnonzero(labels == segment) for segment in range(partition.count)]
    expected = [(one, other) for rows in places for one in rows for other in rows]
    assert list(zip(first.tolist(), second.tolist(), strict=True)) == expected


@given(labelled_rows(dtypes=FLOATS + INTEGERS, columns=False), st.booleans())
def test_rank_orders_each_segment_and_breaks_ties_by_row(case, descending):
    partition, labels, values = case
    expected = np.zeros(len(labels), dtype=np.int64)
    for segment in range(partition.count):
        rows = np.flatnonzero(labels == segment)
        order = sorted(rows, key=lambda i: (-float(values[i]) if descending else float(values[i]), i))
        expected[order] = np.arange(len(rows))
    assert partition.rank(torch.from_numpy(values), descending).tolist() == expected.tolist()


# ---- scans ----------------------------------------------------------------------------------------------------------


def scanned(labels, values, discount):
    result, following = np.zeros(len(values)), {}
    for row in range(len(values) - 1, -1, -1):
        result[row] = values[row] + discount[row] * following.get(labels[row], 0.0)
        following[labels[row]] = result[row]
    return result


def estimated_advantage(labels, rewards, values, discount, trace, final_value):
    """GAE by its definition, one row at a time."""
    result, later = np.zeros(len(values)), {}
    for row in range(len(values) - 1, -1, -1):
        next_value, next_advantage = later.get(labels[row], (final_value[labels[row]], 0.0))
        delta = rewards[row] + discount * next_value - values[row]
        result[row] = delta + discount * trace * next_advantage
        later[labels[row]] = (values[row], result[row])
    return result


@given(labelled_rows(columns=False), st.floats(0, 1))
def test_discounted_scan_equals_that_of_a_loop(case, discount):
    partition, labels, values = case
    expected = scanned(labels, values, np.full(len(labels), discount))
    same(partition.discounted_scan(torch.from_numpy(values), discount), expected, atol=2e-3)


@settings(deadline=None, max_examples=30)
@given(
    st.sampled_from([1, 2, 63, 64, 65, 127, 128, 129, 4095, 4096, 4097, 4160, 8192, 10007]),
    st.sampled_from(["one segment", "sorted", "mixed"]),
    st.integers(0, 2**20),
)
def test_scans_cross_the_block_boundaries(rows, layout, seed):
    rng = np.random.default_rng(seed)
    count = 1 if layout == "one segment" else 7
    labels = rng.integers(0, count, rows)
    labels = labels if layout == "mixed" else np.sort(labels)
    partition = Partition(torch.from_numpy(labels), count)
    values, rewards = rng.normal(size=rows), rng.normal(size=rows)
    per_row = rng.uniform(0.5, 1.0, rows)
    same(
        partition.discounted_scan(torch.from_numpy(values), torch.from_numpy(per_row)),
        scanned(labels, values, per_row),
        atol=1e-9,
    )
    final = rng.normal(size=count)
    same(
        partition.gae(torch.from_numpy(rewards), torch.from_numpy(values), 0.99, 0.95, torch.from_numpy(final)),
        estimated_advantage(labels, rewards, values, 0.99, 0.95, final),
        atol=1e-9,
    )


def test_an_undiscounted_scan_keeps_float32_digits_over_ten_thousand_rows():
    returns = Partition.from_sizes([10_000]).discounted_scan(torch.ones(10_000))
    assert returns.tolist() == list(range(10_000, 0, -1))


def test_gae_of_three_rewards_worked_by_hand():
    # delta = [.6-.5, .8-.6, 1-.8] = [.1, .2, .2]; A3 = .2, A2 = .2+.95*.2 = .39, A1 = .1+.95*.39 = .4705.
    partition, rewards, values = Partition.from_sizes([3]), torch.tensor([0.0, 0, 1]), torch.tensor([0.5, 0.6, 0.8])
    assert partition.gae(rewards, values, 1.0, 0.95).tolist() == pytest.approx([0.4705, 0.39, 0.2])
    # Cut instead of ended, in a state worth 2: the last delta is 2 higher, and .95 and .9025 of it reach the others.
    cut = partition.gae(rewards, values, 1.0, 0.95, final_value=torch.tensor([2.0]))
    assert cut.tolist() == pytest.approx([0.4705 + 2 * 0.9025, 0.39 + 2 * 0.95, 2.2])


def test_gae_takes_one_discount_and_trace_for_each_row():
    partition, rewards, values = Partition.from_sizes([2, 1]), torch.tensor([1.0, 2, 3]), torch.tensor([0.5, 1, 2])
    rates = torch.tensor([0.5, 0.9, 0.9])
    # A2 = 2 - 1 = 1; A1 = 1 + .5*1 - .5 + .5*.5*1 = 1.25; the segment's last discount has nothing to discount.
    assert partition.gae(rewards, values, rates, torch.tensor([0.5, 1, 1])).tolist() == pytest.approx([1.25, 1.0, 1.0])


def test_segments_of_no_rows_are_skipped_by_scans():
    partition = Partition.from_sizes([0, 2, 0])
    assert partition.discounted_scan(torch.tensor([1.0, 2.0]), 0.5).tolist() == [2.0, 2.0]
    assert partition.gae(torch.zeros(2), torch.zeros(2), final_value=torch.tensor([9.0, 1.0, 9.0]))[1].item() == 1.0
    assert Partition.from_sizes([0]).discounted_scan(torch.zeros(0)).tolist() == []


# ---- gradients ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [[0, 0, 0, 2, 2], [2, 0, 2, 0, 0], [0, 0, 0, 0, 0]])
@pytest.mark.parametrize(
    "operation",
    ["sum", "mean", "var", "std", "min", "max", "quantile", "logsumexp", "center", "standardize", "discounted_scan"],
)
def test_derivatives_equal_finite_differences(labels, operation):
    partition = Partition(torch.tensor(labels), 1 + max(labels))
    values = torch.tensor([0.3, -1.2, 0.8, 2.0, 0.1], dtype=torch.float64, requires_grad=True)
    # An empty segment has an infinite extreme, of which there are no finite differences.
    rows = slice(None) if operation in ("center", "standardize", "discounted_scan") else partition.size() > 0
    assert torch.autograd.gradcheck(lambda v: getattr(partition, operation)(v)[rows], values)


def test_derivatives_of_spread_leave_one_out_and_two_column_sums():
    partition = Partition(torch.tensor([1, 0, 1, 0]), 2)
    columns = torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(partition.sum, columns)
    assert torch.autograd.gradcheck(partition.leave_one_out, columns)
    assert torch.autograd.gradgradcheck(lambda v: partition.spread(partition.sum(v).square()), columns)
    assert torch.autograd.gradcheck(partition.spread, columns.detach()[:2].requires_grad_())


def test_derivatives_of_the_scan_by_its_rates_and_of_gae_by_its_values():
    generator = torch.Generator().manual_seed(0)
    partition = Partition(torch.sort(torch.randint(0, 3, (70,), generator=generator)).values, 3)
    values, rewards = torch.randn(2, 70, dtype=torch.float64, generator=generator)
    rate = torch.rand(70, dtype=torch.float64, generator=generator)
    arguments = (values.requires_grad_(), rate.requires_grad_())
    assert torch.autograd.gradcheck(partition.discounted_scan, arguments)
    assert torch.autograd.gradcheck(
        lambda r, v, d, f: partition.gae(r, v, d, 0.9, f),
        (rewards.requires_grad_(), *arguments, torch.ones(3, dtype=torch.float64, requires_grad=True)),
    )


@pytest.mark.parametrize("operation", ["std", "standardize", "var"])
def test_gradients_are_finite_where_nothing_varies(operation):
    values = torch.tensor([2.0, 2.0, 2.0, 1.0, 3.0], requires_grad=True)
    getattr(Partition.from_sizes([3, 2]), operation)(values).square().sum().backward()
    assert bool(values.grad.isfinite().all())
    if operation != "standardize":
        assert values.grad[:3].tolist() == [0.0, 0.0, 0.0]


# ---- building -------------------------------------------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(st.integers(-3, 3), st.sampled_from("abc"), st.integers(0, 2)),
        min_size=1,
        max_size=30,
    )
)
def test_by_joins_rows_that_agree_in_every_key_and_numbers_them_in_order(rows):
    integers, strings, group = (list(column) for column in zip(*rows, strict=True))
    partition = Partition.by(torch.tensor(integers), strings, within=Partition(torch.tensor(group), 4))
    keys = [(g, i, s) for i, s, g in rows]
    distinct = sorted(set(keys))
    assert partition.count == len(distinct)
    assert partition.labels.tolist() == [distinct.index(key) for key in keys]


def test_by_takes_large_keys_and_booleans_and_no_rows():
    hashes = torch.tensor([2**62, -(2**62), 2**62])
    assert Partition.by(hashes, torch.tensor([True, True, False])).labels.tolist() == [2, 0, 1]
    assert Partition.by(torch.zeros(0, dtype=torch.int64)).count == 0
    assert Partition.by(within=Partition(torch.tensor([3, 1, 3]), 9)).labels.tolist() == [1, 0, 1]


def test_by_refuses_keys_that_are_no_keys():
    with pytest.raises(ValueError, match="at least one key"):
        Partition.by()
    with pytest.raises(ValueError, match="one length"):
        Partition.by(torch.tensor([1, 2]), torch.tensor([1]))
    with pytest.raises(ValueError, match=r"float32 of shape \(2,\)"):
        Partition.by(torch.tensor([1.0, 2.0]))


@given(labelled_rows(columns=False), st.integers(1, 4), st.integers(0, 99))
def test_composition_is_one_labelling_after_the_other(case, outer, seed):
    partition, labels, values = case
    coarse = torch.randint(0, outer, (partition.count,), generator=torch.Generator().manual_seed(seed))
    composed = partition.then(Partition(coarse, outer))
    assert composed.labels.tolist() == coarse[torch.from_numpy(labels)].tolist()
    assert composed.size().tolist() == np.bincount(composed.labels.numpy(), minlength=outer).tolist()
    same(composed.sum(torch.from_numpy(values)), by_segment(composed.labels.numpy(), outer, values, np.sum, 0.0))
    with pytest.raises(ValueError, match="cannot compose"):
        partition.then(Partition(torch.zeros(partition.count + 1, dtype=torch.int64), 1))


@given(labelled_rows(columns=False))
def test_select_keeps_numbers_and_compact_drops_empty_segments(case):
    partition, labels, values = case
    kept = values > 0
    selected = partition.select(torch.from_numpy(kept))
    assert selected.count == partition.count
    assert selected.labels.tolist() == labels[kept].tolist()
    compacted, old = selected.compact()
    assert old.tolist() == sorted(set(labels[kept].tolist()))
    assert old[compacted.labels].tolist() == labels[kept].tolist()
    assert bool((compacted.size() > 0).all())


@given(labelled_rows(columns=False), labelled_rows(columns=False))
def test_concatenated_partitions_reduce_like_their_parts(first, second):
    (one, _, a), (two, _, b) = first, second
    both = Partition.concatenate([one, two])
    values = torch.cat([torch.from_numpy(a).double(), torch.from_numpy(b).double()])
    separately = torch.cat([one.sum(torch.from_numpy(a).double()), two.sum(torch.from_numpy(b).double())])
    assert torch.allclose(both.sum(values), separately)
    assert both.size().tolist() == one.size().tolist() + two.size().tolist()


@given(labelled_rows(columns=False))
def test_first_last_and_position_follow_row_order(case):
    partition, labels, _ = case
    rows = [np.flatnonzero(labels == s) for s in range(partition.count)]
    assert partition.first().tolist() == [r[0] for r in rows if len(r)]
    assert partition.last().tolist() == [r[-1] for r in rows if len(r)]
    assert torch.nonzero(partition.is_last()).squeeze(1).tolist() == sorted(r[-1] for r in rows if len(r))
    expected = np.zeros(len(labels), dtype=np.int64)
    for r in rows:
        expected[r] = np.arange(len(r))
    assert partition.position().tolist() == expected.tolist()
    assert partition.is_sorted() == bool((np.diff(labels) >= 0).all())


def test_labels_out_of_range_or_of_another_kind_are_refused():
    with pytest.raises(ValueError, match=r"\[0, 2\), got \[0, 2\]"):
        Partition(torch.tensor([0, 2]), 2)
    with pytest.raises(ValueError, match="1-d integer tensor"):
        Partition(torch.tensor([0.0]), 1)
    with pytest.raises(ValueError, match="1-d integer tensor"):
        Partition(torch.tensor([True]), 1)
    with pytest.raises(ValueError, match="count must be >= 0"):
        Partition(torch.zeros(0, dtype=torch.int64), -1)
    with pytest.raises(ValueError, match="integers >= 0"):
        Partition.from_sizes([1, -1])
    with pytest.raises(ValueError, match="one value for each of 2 rows"):
        Partition.from_sizes([2]).sum(torch.ones(3))


def test_a_partition_moved_to_where_it_is_stays_the_same():
    partition = Partition(torch.tensor([1, 0, 1]), 3)
    moved = partition.to("cpu")
    assert (moved.labels.tolist(), moved.count, moved.size().tolist()) == ([1, 0, 1], 3, [1, 2, 0])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_every_operation_gives_the_same_on_a_gpu():
    generator = torch.Generator().manual_seed(0)
    labels, values = torch.randint(0, 50, (5000,), generator=generator), torch.randn(5000, generator=generator)
    here, there = Partition(labels, 50), Partition(labels, 50).to("cuda")
    for name in ("sum", "mean", "var", "std", "min", "max", "logsumexp", "center", "standardize", "leave_one_out"):
        expected, actual = getattr(here, name)(values), getattr(there, name)(values.cuda()).cpu()
        assert torch.allclose(expected, actual, atol=1e-5), name
    assert torch.equal(here.rank(values), there.rank(values.cuda()).cpu())
    assert torch.allclose(here.discounted_scan(values, 0.9), there.discounted_scan(values.cuda(), 0.9).cpu(), atol=1e-4)
    assert torch.allclose(here.gae(values, values), there.gae(values.cuda(), values.cuda()).cpu(), atol=1e-4)


def test_singletons_behave_like_a_partition_into_segments_of_one():
    quick, plain = Partition.singletons(5), Partition(torch.arange(5), 5)
    values, coarser = torch.randn(5), Partition(torch.tensor([2, 0, 1, 0, 2]), 3)
    assert quick.size().tolist() == [1] * 5
    assert torch.equal(quick.spread(values), plain.spread(values))
    assert torch.equal(quick.sum(values), plain.sum(values))
    assert torch.equal(quick.then(coarser).labels, plain.then(coarser).labels)


@pytest.mark.parametrize("single", [True, False])
def test_pick_gives_the_rows_of_segments_and_their_partition(single):
    partition = Partition.singletons(4) if single else Partition.from_sizes([2, 0, 3, 1])
    rows, picked = partition.pick(torch.tensor([2, 0]))
    assert rows.tolist() == ([2, 0] if single else [2, 3, 4, 0, 1])
    assert picked.size().tolist() == ([1, 1] if single else [3, 2])
    assert picked.labels.tolist() == ([0, 1] if single else [0, 0, 0, 1, 1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("longest", [9, 5_000])
@pytest.mark.parametrize("level", [0.0, 0.3, 0.95, 1.0])
def test_quantiles_from_rows_of_a_matrix_are_those_from_all_values_sorted(dtype, longest, level):
    random = torch.Generator().manual_seed(1000)
    sizes = torch.tensor([3, 0, 9, 1, 7, longest])
    labels = torch.repeat_interleave(torch.arange(6), sizes)
    values = torch.randn(len(labels), generator=random).to(dtype)
    values[4], values[13] = math.nan, math.inf
    for order in (torch.arange(len(labels)), torch.randperm(len(labels), generator=random)):
        by = Partition(labels[order], 6)
        found = by.quantile(values[order], level)
        # With a derivative all values are sorted.
        expected = by.quantile(values[order].requires_grad_(), level)
        assert found.dtype == expected.dtype and torch.equal(found.isnan(), expected.isnan())
        assert torch.equal(found.nan_to_num(9.0), expected.detach().nan_to_num(9.0))


def test_a_quantile_has_a_derivative():
    values = torch.tensor([3.0, 1.0, 2.0, 5.0], requires_grad=True)
    Partition.from_sizes([3, 1]).quantile(values, 0.75).sum().backward()
    assert values.grad.tolist() == [0.5, 0.0, 0.5, 1.0]


@pytest.mark.parametrize("dtype", [torch.bool, torch.int32, torch.int64])
@pytest.mark.parametrize("columns", [(), (2,)])
def test_sums_of_integers_are_those_from_a_running_sum_of_all_rows(dtype, columns):
    random = torch.Generator().manual_seed(1000)
    sizes = torch.tensor([0, 3, 0, 9, 1, 7, 0])
    by = Partition.from_sizes(sizes)
    most = 2 if dtype == torch.bool else 2**31 - 1
    values = torch.randint(most, (len(by), *columns), generator=random).to(dtype)
    running = torch.cat([values.new_zeros((1, *columns)).long(), values.long().cumsum(0)])
    ends = sizes.cumsum(0)
    expected = running[ends] - running[ends - sizes]
    assert torch.equal(by.sum(values), expected) and expected.dtype == by.sum(values).dtype
    mixed = torch.randperm(len(by), generator=random)
    assert torch.equal(Partition(by.labels[mixed], 7).sum(values[mixed]), expected)


def test_a_table_is_read_by_position_over_more_rows_than_a_block_has():
    random = torch.Generator().manual_seed(1000)
    sizes = torch.tensor([3, 0, CACHED + 5, 1, CACHED - 9, 40])
    by = Partition.from_sizes(sizes)
    table = torch.randint(-(2**62), 2**62, (int(sizes.max()),), generator=random)
    assert torch.equal(by.by_position(table), table[by.position()])
    mixed = Partition(torch.tensor([1, 0, 1, 1, 0]), 2)
    assert mixed.by_position(torch.tensor([7, 8, 9])).tolist() == [7, 7, 8, 9, 8]


def test_rows_kept_by_a_mask_stay_sorted():
    by = Partition.from_sizes([3, 2, 0, 2])
    kept = by.select(torch.tensor([True, False, True, False, False, True, True]))
    assert kept.is_sorted() and kept.size().tolist() == [2, 0, 0, 2]
    assert not by.select(torch.tensor([4, 0])).is_sorted()
