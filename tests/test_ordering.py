"""Order statistics against torch's own."""

from __future__ import annotations

import math

import pytest
import torch

from stratagem.ordering import all_finite, order_statistic, sorted_rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_selecting_and_sorting_agree_with_torch(dtype):
    values = torch.randn(101, generator=torch.Generator().manual_seed(1000)).to(dtype)
    for place in (0, 37, 100):
        found = order_statistic(values, place)
        assert found.dtype == dtype and torch.equal(found, values.sort().values[place])
    rows = values[:100].view(4, 25).clone()
    rows[1, 3] = rows[2, 0] = math.nan
    rows[2, 1] = math.inf
    found = sorted_rows(rows)
    assert found.dtype == dtype and torch.equal(found.isnan(), rows.sort(1).values.isnan())
    assert torch.equal(found.nan_to_num(9.0), rows.sort(1).values.nan_to_num(9.0))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_number_that_is_not_finite_is_found(bad):
    values = 3e38 * torch.linspace(-1, 1, 50)
    assert all_finite(values) and all_finite(values[:0])
    values[20] = bad
    assert not all_finite(values)
