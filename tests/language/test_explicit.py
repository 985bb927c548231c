"""Attention written out, against torch's own."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from stratagem.language.attention import PackedSequences
from stratagem.language.explicit import explicit_attention, visibility_mask


@pytest.mark.parametrize("window", [None, 4])
def test_fused_kernel_and_explicit_attention_agree(window: int | None) -> None:
    torch.manual_seed(0)
    lengths = [9, 6, 5]
    query, key, value = (torch.randn(20, heads, 8) for heads in (4, 2, 2))
    fused = PackedSequences(lengths, "cpu").attend(0, query, key, value, 0.3, window)
    for q, k, v, ours in zip(*(tensor.split(lengths) for tensor in (query, key, value, fused)), strict=True):
        mask = visibility_mask(torch.arange(len(q)), torch.arange(len(q)), window)
        explicit = explicit_attention(q[None], k[None].transpose(1, 2), v[None].transpose(1, 2), mask, 0.3)
        torch.testing.assert_close(ours, explicit[0], atol=1e-6, rtol=1e-5)


def test_explicit_attention_is_softmax_attention_with_shared_keys() -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(1, 6, 4, 8), torch.randn(1, 2, 6, 8), torch.randn(1, 2, 6, 8)
    mask = visibility_mask(torch.arange(6), torch.arange(6), None)
    expected = scaled_dot_product_attention(
        query.transpose(1, 2), key.repeat_interleave(2, 1), value.repeat_interleave(2, 1), is_causal=True, scale=0.5
    )
    ours = explicit_attention(query, key, value, mask, 0.5)
    torch.testing.assert_close(ours, expected.transpose(1, 2), atol=1e-6, rtol=1e-5)


def test_visibility_mask_is_causal_and_windowed() -> None:
    mask = visibility_mask(torch.tensor([0, 2]), torch.arange(4), window=2)
    assert torch.isfinite(mask).tolist() == [[True, False, False, False], [False, True, True, False]]
