"""Attention without padding: an emulated kernel against the padded path, and kernels that are wrong."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from stratagem.language import attention, unpadded
from stratagem.language.attention import PackedSequences, enable_packing, run_trunk
from stratagem.language.kv_cache import CachedSequences, KVCache
from stratagem.language.unpadded import unpadded_kernel

HEADS, KV_HEADS, DIM = 4, 2, 8
CASE = (torch.device("cpu"), torch.float32, HEADS, KV_HEADS, DIM)


def emulated(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor | None,
    max_q: int,
    max_k: int,
    *,
    return_aux: Any = None,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
    enable_gqa: bool = False,
    aligned_at_the_end: bool = True,
) -> Tensor:
    """``torch.nn.attention.varlen.varlen_attn`` as its documentation has it, one sequence after the other."""
    assert cu_seq_k is not None and cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
    assert query.dtype == key.dtype == value.dtype
    assert max_q == int(cu_seq_q.diff().max()) and max_k == int(cu_seq_k.diff().max())
    assert int(cu_seq_q[-1]) == len(query) and int(cu_seq_k[-1]) == len(key) == len(value)
    left, right = window_size
    outputs = []
    for number in range(len(cu_seq_q) - 1):
        q = query[cu_seq_q[number] : cu_seq_q[number + 1]]
        k, v = (tensor[cu_seq_k[number] : cu_seq_k[number + 1]] for tensor in (key, value))
        place = torch.arange(len(q))[:, None] + (len(k) - len(q) if aligned_at_the_end else 0)
        other = torch.arange(len(k))
        early = other < place - left if left >= 0 else torch.zeros(len(q), len(k), dtype=torch.bool)
        late = other > place + right if right >= 0 else torch.zeros_like(early)
        attended = scaled_dot_product_attention(
            q.transpose(0, 1)[None],
            k.transpose(0, 1)[None],
            v.transpose(0, 1)[None],
            attn_mask=~(early | late),
            scale=scale,
            enable_gqa=enable_gqa,
        )
        outputs.append(attended[0].transpose(0, 1))
    return torch.cat(outputs)


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Make a kernel the installed one, here on CPU, for these types."""

    def put(kernel: Callable[..., Tensor], kinds: tuple[torch.dtype, ...] = (torch.float32,)) -> None:
        unpadded_kernel.cache_clear()
        monkeypatch.setitem(unpadded._UNPADDED, "cpu", kinds)
        monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", kernel)

    yield put
    unpadded_kernel.cache_clear()


def attended(layout: PackedSequences, window: int | None, padded: bool) -> list[Tensor]:
    """Output, and gradients of queries, keys and values."""
    source = torch.Generator().manual_seed(3)
    count = len(layout.computed)
    leaves = [
        torch.randn(count, heads, DIM, generator=source).requires_grad_() for heads in (HEADS, KV_HEADS, KV_HEADS)
    ]
    along = torch.randn(count, HEADS, DIM, generator=source)
    run = layout.attend_padded if padded else partial(layout.attend, 0)
    output = run(*leaves, 0.41, window)
    return [output.detach(), *torch.autograd.grad(output, leaves, along)]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=9), min_size=1, max_size=7),
    window=st.sampled_from([None, 1, 2, 5]),
    shared=st.booleans(),
)
def test_without_padding_attention_and_gradients_are_the_same(
    install: Any, rows: list[list[int]], window: int | None, shared: bool
) -> None:
    calls = list[int]()
    install(lambda *args, **options: (calls.append(1), emulated(*args, **options))[1])
    tokens = torch.tensor([token for row in rows for token in row])
    layout = PackedSequences([len(row) for row in rows], "cpu", tokens if shared else None)
    ours = attended(layout, window, padded=False)
    assert len(calls) == 3  # two of the proof
    for mine, theirs in zip(ours, attended(layout, window, padded=True), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-5)


def test_the_lengths_a_kernel_is_given_leave_out_what_nobody_asks_for() -> None:
    # The third sequence is the second one again, and the fourth has no token at all.
    layout = PackedSequences([3, 4, 4, 0, 2], "cpu", torch.tensor([5, 6, 7, 5, 6, 8, 9, 5, 6, 8, 9, 1, 2]))
    spans, source = layout._spans
    assert spans.queries.tolist() == [0, 3, 5, 7] and spans.keys.tolist() == [0, 3, 7, 9]
    assert (spans.most_queries, spans.most_keys) == (3, 4)
    assert source is not None and source.tolist() == [0, 1, 2, 0, 1, 3, 4, 5, 6]
    assert PackedSequences([3, 4], "cpu")._spans[1] is None


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", ["qwen3", "mistral"])
def test_a_model_computes_the_same_and_learns_the_same(
    make_model: Any, install: Any, kind: str, checkpointing: bool
) -> None:
    rows = ([5, 6, 7, 8, 9, 1, 2], [5, 6, 7, 8, 3, 4], [5, 6, 7, 8, 3, 9, 9], [2])
    token_ids, model = torch.tensor([token for row in rows for token in row]), make_model(kind)
    enable_packing(model)
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.train()
    found = []
    for kernel in (None, emulated):
        if kernel is not None:
            install(kernel)
        layout = PackedSequences([len(row) for row in rows], "cpu", token_ids)
        model.zero_grad()
        # The proof runs inside a checkpointed layer.
        hidden = run_trunk(model, token_ids[layout.computed], layout.positions, layout)
        (hidden * torch.randn(hidden.shape, generator=torch.Generator().manual_seed(1))).mean().backward()
        found.append([hidden.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
    assert unpadded_kernel.cache_info().currsize == 1
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-4)


def off_by_one(*args: Any, window_size: tuple[int, int], **options: Any) -> Tensor:
    left = window_size[0] + 1 if window_size[0] >= 0 else -1
    return emulated(*args, window_size=(left, 0), **options)


def half_gradient(query: Tensor, *args: Any, **options: Any) -> Tensor:
    return emulated((query + query.detach()) / 2, *args, **options)


def swapped_heads(query: Tensor, *args: Any, **options: Any) -> Tensor:
    return emulated(query.flip(1), *args, **options).flip(1)


LIES = {
    "sees one key more": off_by_one,
    "ignores the scale": lambda *args, scale, **options: emulated(*args, **options),
    "sees the future": lambda *args, window_size, **options: emulated(*args, window_size=(-1, -1), **options),
    "aligns at the start": partial(emulated, aligned_at_the_end=False),
    "heads share other keys": swapped_heads,
    "half of a gradient": half_gradient,
    "not a number": lambda *args, **options: emulated(*args, **options) * torch.nan,
}


@pytest.mark.parametrize("kernel", LIES.values(), ids=LIES.keys())
def test_a_kernel_that_lies_is_refused_once_and_nothing_changes(install: Any, kernel: Callable[..., Tensor]) -> None:
    install(kernel)
    layout = PackedSequences([9, 6, 5], "cpu")
    expected = attended(layout, 3, padded=True)
    with pytest.warns(UserWarning, match=r"not used on cpu in torch.float32 for 4 heads over 2 of 8: it is off by"):
        found = attended(layout, 3, padded=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = attended(layout, 3, padded=False)
    for ours, repeated, theirs in zip(found, again, expected, strict=True):
        assert torch.equal(ours, theirs) and torch.equal(repeated, theirs)


def raises(*args: Any, **options: Any) -> Tensor:
    raise RuntimeError("head dimension 8 is not taken\nand more")


def of_an_older_torch(query: Tensor, key: Tensor, value: Tensor, cu_seq_q: Tensor, cu_seq_k: Tensor, max_q: int, max_k: int, is_causal: bool = False) -> Tensor:  # fmt: skip  # noqa: E501
    raise AssertionError("called")


def without_gradient(*args: Any, **options: Any) -> Tensor:
    return emulated(*args, **options).detach()


@pytest.mark.parametrize(
    ("kernel", "said"),
    [
        (raises, "head dimension 8 is not taken; sequences are padded"),
        (of_an_older_torch, "unexpected keyword argument"),
        (without_gradient, "does not require grad"),
    ],
)
def test_a_kernel_that_raises_is_refused(install: Any, kernel: Callable[..., Tensor], said: str) -> None:
    install(kernel)
    with pytest.warns(UserWarning, match=said):
        assert unpadded_kernel(*CASE) is None


def test_types_and_devices_that_no_kernel_is_for_are_not_asked_about(install: Any) -> None:
    install(raises, kinds=(torch.float16,))
    assert unpadded_kernel(*CASE) is None
    assert unpadded_kernel(torch.device("meta"), torch.bfloat16, HEADS, KV_HEADS, DIM) is None


def test_rounding_to_half_precision_is_no_lie(install: Any) -> None:
    for kind in (torch.float16, torch.bfloat16):
        install(emulated, kinds=(kind,))
        assert unpadded_kernel(CASE[0], kind, HEADS, KV_HEADS, 64) is emulated


@pytest.mark.parametrize("unpadded_too", [False, True])
def test_the_compute_type_is_half_and_gradients_of_a_shared_token_add_up_in_float32(
    install: Any, monkeypatch: pytest.MonkeyPatch, unpadded_too: bool
) -> None:
    monkeypatch.setattr(attention, "compute_type", lambda query: torch.bfloat16)
    install(emulated, kinds=(torch.bfloat16,) if unpadded_too else ())
    count = 1000
    # All begin with token 0, which is half of what each says: 500 in all, but 256 when added up in bfloat16.
    tokens = torch.stack((torch.zeros(count), torch.arange(1, count + 1)), dim=1).flatten().long()
    layout = PackedSequences([2] * count, "cpu", tokens)
    query, key = torch.zeros(count + 1, 1, DIM), torch.zeros(count + 1, 1, DIM)
    value = torch.zeros(count + 1, 1, DIM, requires_grad=True)
    output = layout.attend(0, query, key, value, 1.0, None)
    assert output.dtype == torch.float32
    output[1:].sum().backward()
    assert value.grad is not None and value.grad[0].tolist() == [[pytest.approx(count / 2)] * DIM]


def test_under_autocast_the_compute_type_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = torch.zeros(1, 1, 1, device="meta")
    monkeypatch.setattr(torch, "get_autocast_dtype", lambda device: torch.bfloat16)
    for enabled, kind in ((False, torch.float32), (True, torch.bfloat16)):
        monkeypatch.setattr(torch, "is_autocast_enabled", lambda device, enabled=enabled: enabled)
        assert attention.compute_type(elsewhere) == kind
        assert attention.compute_type(torch.zeros(1).bfloat16()) == torch.float32  # on CPU always


def test_the_engine_reads_prompts_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    query, key, value = (torch.randn(7, heads, DIM) for heads in (HEADS, KV_HEADS, KV_HEADS))
    expected = PackedSequences([3, 4], "cpu").attend_padded(query, key, value, 0.3, None)
    monkeypatch.setattr(PackedSequences, "attend", raises)
    cache = KVCache(1, KV_HEADS, DIM, torch.float32, torch.device("cpu"))
    cache.reserve(2, 4)
    found = CachedSequences(cache, [0, 1], [0, 0], [3, 4]).attend(0, query, key, value, 0.3, None)
    assert torch.equal(found, expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch's variable-length attention needs a CUDA device")
@pytest.mark.parametrize("window", [None, 5])
def test_the_true_kernel_agrees_with_the_padded_path(window: int | None) -> None:
    device, source = torch.device("cuda", torch.cuda.current_device()), torch.Generator().manual_seed(3)
    assert unpadded_kernel(device, torch.bfloat16, HEADS, KV_HEADS, 64) is not None
    rows = [[1] * 70 + list(range(60)), [1] * 70 + list(range(9, 40)), [2] * 33, [2] * 33]
    layout = PackedSequences(
        [len(row) for row in rows], device, torch.tensor([token for row in rows for token in row], device=device)
    )
    shapes = [(len(layout.computed), heads, 64) for heads in (HEADS, KV_HEADS, KV_HEADS)]
    given = [torch.randn(shape, generator=source).to(device, torch.bfloat16) for shape in shapes]
    found = []
    for run in (partial(layout.attend, 0), layout.attend_padded):
        leaves = [tensor.clone().requires_grad_() for tensor in given]
        output = run(*leaves, 0.1, window)
        found.append([output.detach(), *torch.autograd.grad(output.float().square().sum(), leaves)])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=0.02 * float(theirs.abs().max()), rtol=0.05)
