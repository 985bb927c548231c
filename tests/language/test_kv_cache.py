import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from stratagem.language.kv_cache import CachedSequences, KVCache, NextTokens


def cache_of(rows: int = 4, capacity: int = 20) -> KVCache:
    cache = KVCache(layers=1, heads=2, dim=8, dtype=torch.float32, device=torch.device("cpu"))
    cache.reserve(rows, capacity)
    return cache


def test_rows_and_capacity_double_and_keep_what_is_held() -> None:
    cache = cache_of(3, 5)
    assert (cache.rows, cache.capacity) == (16, 16)
    cache.keys[0, 2, 1, 4] = 7.0
    cache.reserve(17, 40)
    assert (cache.rows, cache.capacity) == (32, 64)
    assert cache.keys[0, 2, 1, 4].tolist() == [7.0] * 8
    assert cache.keys.sum() == 7.0 * 8


def test_move_exchanges_rows() -> None:
    cache = cache_of()
    cache.values[0, :4] = torch.arange(4.0)[:, None, None, None]
    cache.move([0, 3], [3, 0], cache.capacity)
    assert cache.values[0, :4, 0, 0, 0].tolist() == [3.0, 1.0, 2.0, 0.0]


def test_free_gives_the_memory_back() -> None:
    cache = cache_of()
    cache.free()
    assert cache.keys.numel() == 0 and (cache.rows, cache.capacity) == (0, 0)
    cache.reserve(1, 1)
    assert cache.keys.shape == (1, 16, 2, 16, 8)


@pytest.mark.parametrize("explicit", [True, False])
@pytest.mark.parametrize("rows", [[0, 1, 2], [2, 0, 3]])
@pytest.mark.parametrize("window", [None, 3])
def test_appending_in_pieces_equals_attention_over_the_whole(
    monkeypatch: pytest.MonkeyPatch, rows: list[int], window: int | None, explicit: bool
) -> None:
    if not explicit:
        monkeypatch.setattr("stratagem.language.explicit._EXPLICIT_SCORES", 0)
    torch.manual_seed(0)
    lengths = [7, 11, 5]
    query, key, value = ([torch.randn(n, heads, 8) for n in lengths] for heads in (4, 2, 2))
    cache, done, outputs = cache_of(), [0, 0, 0], [[], [], []]
    for counts in ([3, 1, 2], [2, 5, 1]):
        layout = CachedSequences(cache, rows, done, counts)
        new = [torch.cat([t[i][done[i] : done[i] + counts[i]] for i in range(3)]) for t in (query, key, value)]
        for i, piece in enumerate(layout.attend(0, *new, 0.4, window).split(counts)):
            outputs[i].append(piece)
        done = [d + c for d, c in zip(done, counts, strict=True)]
    if rows == [0, 1, 2]:
        layout = NextTokens(cache, torch.tensor(done), max(done))
        new = [torch.stack([t[i][done[i]] for i in range(3)]) for t in (query, key, value)]
        for i, piece in enumerate(layout.attend(0, *new, 0.4, window)):
            outputs[i].append(piece[None])
    for i in range(3):
        got = torch.cat(outputs[i])
        n = len(got)
        distance = torch.arange(n)[:, None] - torch.arange(n)
        visible = (distance >= 0) & (distance < (window or n))
        expected = scaled_dot_product_attention(
            query[i][:n].transpose(0, 1)[None],
            key[i][:n].transpose(0, 1).repeat_interleave(2, 0)[None],
            value[i][:n].transpose(0, 1).repeat_interleave(2, 0)[None],
            attn_mask=visible,
            scale=0.4,
        )[0].transpose(0, 1)
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)
