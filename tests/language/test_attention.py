from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel, MambaConfig, MambaForCausalLM, PreTrainedModel

from stratagem.errors import InputError
from stratagem.language import attention
from stratagem.language.attention import PackedSequences, enable_packing, run_trunk

MakeModel = Callable[..., PreTrainedModel]
ARCHITECTURES = ["qwen3", "tied", "llama", "qwen2", "mistral"]
OPENINGS = {
    "a group": ([5, 6, 7, 8, 9, 1, 2], [5, 6, 7, 8, 3, 4], [5, 6, 7, 8, 3, 9, 9]),
    "two groups": ([5, 6, 1], [5, 6, 2], [5, 7, 1], [5, 7, 1, 8]),
    "openings of one another": ([5, 6, 7, 8], [5, 6], [5, 6, 7], [5, 6, 7]),
    "uneven": (list(range(1, 40)), [1, 2, 9], [1], list(range(1, 38))),
}
LENGTHS = {"similar": [9, 12, 10], "equal": [8, 8], "uneven": [40, 3, 5, 38, 1, 2], "single": [7]}


def logits_and_gradients(
    model: PreTrainedModel, run: Callable[[], torch.Tensor]
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    model.zero_grad()
    logits = run()
    torch.manual_seed(1)
    (logits * torch.randn(logits.shape)).mean().backward()
    return logits.detach(), [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
def test_packed_equals_each_sequence_alone(make_model: MakeModel, kind: str, lengths: list[int]) -> None:
    model = make_model(kind)
    token_ids = torch.randint(320, (sum(lengths),), generator=torch.Generator().manual_seed(2))
    alone = logits_and_gradients(
        model, lambda: torch.cat([model(row[None], use_cache=False).logits[0] for row in token_ids.split(lengths)])
    )
    enable_packing(model)
    layout = PackedSequences(lengths, "cpu")
    packed = logits_and_gradients(
        model, lambda: model.get_output_embeddings()(run_trunk(model, token_ids, layout.positions, layout))
    )
    torch.testing.assert_close(packed[0], alone[0], atol=1e-5, rtol=1e-5)
    assert len(packed[1]) == len(alone[1])
    for ours, theirs in zip(packed[1], alone[1], strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("rows", OPENINGS.values(), ids=OPENINGS.keys())
def test_shared_openings_equal_each_sequence_alone(
    make_model: MakeModel, kind: str, rows: tuple[list[int], ...]
) -> None:
    model, token_ids = make_model(kind), torch.tensor([token for row in rows for token in row])
    alone = logits_and_gradients(
        model, lambda: torch.cat([model(torch.tensor([row]), use_cache=False).logits[0] for row in rows])
    )
    enable_packing(model)
    layout = PackedSequences([len(row) for row in rows], "cpu", token_ids)
    assert len(layout.computed) < len(token_ids)

    def shared() -> torch.Tensor:
        hidden = run_trunk(model, token_ids[layout.computed], layout.positions, layout)
        return model.get_output_embeddings()(hidden[layout.source])

    together = logits_and_gradients(model, shared)
    torch.testing.assert_close(together[0], alone[0], atol=1e-5, rtol=1e-5)
    for ours, theirs in zip(together[1], alone[1], strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_each_opening_is_computed_in_the_first_sequence_that_has_it() -> None:
    rows = [[5, 6, 7, 8], [5, 6, 9], [5, 6, 9, 4], [1, 6, 9]]
    layout = PackedSequences([4, 3, 4, 3], "cpu", torch.tensor([token for row in rows for token in row]))
    assert layout.computed.tolist() == [0, 1, 2, 3, 6, 10, 11, 12, 13]
    assert layout.positions.tolist() == [0, 1, 2, 3, 2, 3, 0, 1, 2]
    assert layout.source.tolist() == [0, 1, 2, 3, 0, 1, 4, 0, 1, 4, 5, 6, 7, 8]


def test_only_neighbours_share() -> None:
    layout = PackedSequences([3, 2, 3], "cpu", torch.tensor([5, 6, 7, 5, 6, 5, 6, 7]))
    assert layout.computed.tolist() == [0, 1, 2, 7]
    assert layout.source.tolist() == [0, 1, 2, 0, 1, 0, 1, 3]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=6), min_size=1, max_size=9))
def test_a_token_takes_its_state_from_one_that_saw_the_same(rows: list[list[int]]) -> None:
    seen = [row[: end + 1] for row in rows for end in range(len(row))]
    layout = PackedSequences([len(row) for row in rows], "cpu", torch.tensor([row[-1] for row in seen]))
    assert [seen[token] for token in layout.computed[layout.source].tolist()] == seen
    in_common = [sum(a[:end] == b[:end] for end in range(1, min(len(a), len(b)) + 1)) for a, b in pairwise(rows)]
    assert len(layout.computed) == len(seen) - sum(in_common)


def test_buckets_bound_the_padding() -> None:
    lengths = [1000, 4, 3, 600, 2, 4, 1, 501, 0]
    buckets, starts = attention._buckets(lengths)
    assert sum(bucket.sequences * bucket.longest for bucket in buckets) < 2 * sum(lengths)
    taken = [slot for start, length in zip(starts, lengths, strict=True) for slot in range(start, start + length)]
    assert len(set(taken)) == sum(lengths)


def test_learned_positions_work_too() -> None:
    enable_packing(GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=16, n_layer=2, n_head=2, n_positions=32)))


def test_a_model_without_attention_is_refused() -> None:
    model = MambaForCausalLM(MambaConfig(vocab_size=64, hidden_size=16, num_hidden_layers=1, state_size=4))
    with pytest.raises(InputError, match="MambaForCausalLM cannot run on packed sequences") as caught:
        enable_packing(model)
    assert "\n" not in str(caught.value)


def test_a_model_whose_logits_are_more_than_its_head_is_refused() -> None:
    from transformers import CohereConfig, CohereForCausalLM

    config = CohereConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        logit_scale=0.1,
        initializer_range=0.5,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    with pytest.raises(InputError, match="sharing a row changes its logits"):
        enable_packing(CohereForCausalLM(config))


def test_a_model_called_past_its_policy_says_so(make_model: MakeModel) -> None:
    model = make_model()
    enable_packing(model)
    with pytest.raises(InputError, match="did not receive the packed layout"):
        model(torch.tensor([[1, 2]]), use_cache=False)
