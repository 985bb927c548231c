from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.language.inputs import TokenInputs
from stratagem.language.policy import LanguagePolicy, LoRA
from stratagem.objectives import RoutingReplay

MakeModel = Callable[..., PreTrainedModel]


def batch() -> Experience:
    """Two trajectories of 9 and 6 tokens; the first has two turns (tokens 3, 4 and 7, 8), the second one (2 to 5)."""
    inputs = TokenInputs(
        token_ids=torch.randint(320, (15,), generator=torch.Generator().manual_seed(3)),
        lengths=torch.tensor([9, 6]),
        action_positions=torch.tensor([3, 4, 7, 8, 11, 12, 13, 14]),
    )
    return Experience.from_lengths([2, 2, 4], [2, 1], [2], inputs=inputs)


def groups() -> Experience:
    """Two groups of three trajectories that begin alike, as turns of (what is read, the actions).

    In the first group all share the first turn with its actions, and one trajectory is the opening of another. The
    prompt of the second group begins like that of the first; two of its trajectories are the same.
    """
    trajectories = [
        [([1, 2, 3, 4], [5, 6]), ([7, 8], [9, 10])],
        [([1, 2, 3, 4], [5, 6]), ([7, 8], [9, 10, 11, 12]), ([13], [])],
        [([1, 2, 3, 4], [5, 6]), ([8], [9])],
        [([1, 2, 7], [7, 7, 7])],
        [([1, 2, 7], [8, 8, 8, 8, 8])],
        [([1, 2, 7], [8, 8, 8, 8, 8])],
    ]
    turns = [turn for trajectory in trajectories for turn in trajectory]
    acted = [flag for read, actions in turns for flag in [False] * len(read) + [True] * len(actions)]
    inputs = TokenInputs(
        token_ids=torch.tensor([token for turn in turns for part in turn for token in part]),
        lengths=torch.tensor([sum(len(part) for turn in row for part in turn) for row in trajectories]),
        action_positions=torch.tensor(acted).nonzero().squeeze(1),
    )
    counts = [len(actions) for _, actions in turns]
    return Experience.from_lengths(counts, [len(row) for row in trajectories], [3, 3], inputs=inputs)


def outputs_and_gradients(policy: LanguagePolicy, x: Experience, sizes: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probs, entropies, values and medians [tokens, 4] and all gradients, from pieces of so many trajectories."""
    pieces = [x.microbatch(chosen) for chosen in torch.arange(x.trajectories).split(sizes)]
    outputs = [policy(piece, temperature=0.8, also=("entropy", "value", "median")) for piece in pieces]
    columns = torch.cat([torch.stack((out.logp, out.entropy, out.value, out.median), dim=1) for out in outputs])
    (columns * torch.randn(columns.shape, generator=torch.Generator().manual_seed(4))).mean().backward()
    trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    return columns.detach(), torch.cat([parameter.grad.flatten() for parameter in trained])


def policy_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, **options: Any) -> LanguagePolicy:
    return LanguagePolicy(model, tokenizer, **({"dtype": "float32"} | options))


def test_the_log_probabilities_of_prompts_are_the_model_s_own(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    x, model = groups(), make_model()
    prompts = [[1, 2, 3, 4], [1, 2, 7]]
    with torch.no_grad():
        logits = [model(torch.tensor([prompt]), use_cache=False).logits[0, :-1] / 0.7 for prompt in prompts]
    expected = [
        row.log_softmax(-1).gather(1, torch.tensor(prompt[1:])[:, None])[:, 0]
        for row, prompt in zip(logits, prompts, strict=True)
    ]
    said = policy_of(model, tokenizer).prompt_logp(x, temperature=0.7)
    torch.testing.assert_close(said.logp.detach(), torch.cat(expected), atol=1e-5, rtol=0)
    assert said.prompt_of_token.size().tolist() == [3, 2]
    assert said.prompt_of_trajectory.tolist() == [0, 0, 0, 1, 1, 1]


def test_prompts_of_one_token_say_nothing(make_model: MakeModel, tokenizer: PreTrainedTokenizerFast) -> None:
    inputs = TokenInputs(torch.tensor([5, 6, 7]), torch.tensor([3]), torch.tensor([1, 2]))
    x = Experience.from_lengths([2], [1], [1], inputs=inputs)
    said = policy_of(make_model(), tokenizer).prompt_logp(x)
    assert len(said.logp) == 0 and said.prompt_of_token.count == 1 and said.prompt_of_trajectory.tolist() == [0]


def test_logp_and_entropy_are_those_of_each_sequence_alone(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    x, model = batch(), make_model()
    ids = x.inputs.token_ids
    with torch.no_grad():
        logits = [model(row[None], use_cache=False).logits[0] for row in ids.split([9, 6])]
    distributions = (torch.cat([logits[0][[2, 3, 6, 7]], logits[1][[1, 2, 3, 4]]]) / 0.7).log_softmax(-1)
    output = policy_of(model, tokenizer)(x, temperature=0.7, also=["entropy"])
    torch.testing.assert_close(output.logp, distributions.gather(1, x.inputs.actions[:, None])[:, 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(output.entropy, torch.distributions.Categorical(logits=distributions).entropy())
    assert output.value is None


@pytest.mark.parametrize("kind", ["qwen3", "tied"])
def test_chunked_equals_unchunked(make_model: MakeModel, tokenizer: PreTrainedTokenizerFast, kind: str) -> None:
    outputs, gradients = [], []
    for budget in (2**25, 320 * 3):
        policy = policy_of(make_model(kind), tokenizer, logits_budget=budget)
        output = policy(batch(), temperature=1.3, also=["entropy"])
        (output.logp * torch.arange(8) + output.entropy).sum().backward()
        outputs.append(torch.cat((output.logp, output.entropy)).detach())
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in policy.parameters()]))
    torch.testing.assert_close(outputs[0], outputs[1], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("lora", [None, LoRA(rank=2, target_modules=("q_proj",))])
def test_gradient_checkpointing_changes_nothing(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerFast, lora: LoRA | None
) -> None:
    gradients = []
    for checkpointing in (False, True):
        policy = moved(policy_of(make_model(), tokenizer, gradient_checkpointing=checkpointing, lora=lora).train())
        policy(batch()).logp.sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in policy.parameters() if p.requires_grad]))
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-5, rtol=1e-4)


def test_selecting_trajectories_selects_their_outputs(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    x, policy = batch(), policy_of(make_model(), tokenizer)
    whole = policy(x).logp
    torch.testing.assert_close(policy(x.select(torch.tensor([1]))).logp, whole[4:], atol=1e-6, rtol=1e-6)
    both_ways = policy(Experience.concatenate([x.select(torch.tensor([1])), x.select(torch.tensor([0]))])).logp
    torch.testing.assert_close(both_ways, torch.cat((whole[4:], whole[:4])), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("options", [{}, {"gradient_checkpointing": True}, {"lora": LoRA(rank=2)}], ids=str)
@pytest.mark.parametrize("kind", ["qwen3", "llama"])
@pytest.mark.parametrize("sizes", [[6], [2, 3, 1]], ids=str)
def test_trajectories_that_share_their_opening_act_as_each_alone(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerFast, kind: str, options: dict[str, Any], sizes: list[int]
) -> None:
    results = []
    for pieces in (sizes, [1] * 6):
        policy = moved(policy_of(make_model(kind), tokenizer, value_head=True, **options).train())
        results.append(outputs_and_gradients(policy, groups(), pieces))
    torch.testing.assert_close(results[0][0], results[1][0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(results[0][1], results[1][1], atol=1e-5, rtol=1e-5)


def test_a_shared_opening_runs_once_and_what_follows_the_last_action_never(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    policy, ran = policy_of(make_model(), tokenizer), []
    policy.model.get_input_embeddings().register_forward_pre_hook(lambda _, given: ran.extend(given[0].flatten()))
    policy(groups())
    # What each trajectory adds; the sixth repeats the fifth.
    added = [[1, 2, 3, 4, 5, 6, 7, 8, 9], [10, 11], [8], [7, 7, 7], [8, 8, 8, 8], []]
    assert [int(token) for token in ran] == [token for tokens in added for token in tokens]


@pytest.mark.parametrize("value_gradient", [True, False])
def test_the_critic_starts_at_zero_and_trains_the_trunk_only_if_asked(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerFast, value_gradient: bool
) -> None:
    policy = policy_of(make_model(), tokenizer, value_head=True, value_gradient=value_gradient)
    values = policy(batch(), also=["value"]).value
    assert values.shape == (8,) and bool((values == 0).all())
    torch.nn.init.ones_(policy.value_head.weight)
    policy(batch(), also=["value"]).value.sum().backward()
    assert policy.value_head.weight.grad.abs().sum() > 0
    trained = any(p.grad is not None and p.grad.abs().sum() > 0 for p in policy.model.parameters())
    assert trained == value_gradient


def test_the_value_before_an_action_does_not_know_the_action(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    policy = policy_of(make_model(), tokenizer, value_head=True)
    torch.nn.init.ones_(policy.value_head.weight)
    x = batch()
    other_ids = x.inputs.token_ids.clone()
    other_ids[7] = (other_ids[7] + 1) % 320
    other = x.replace(inputs=TokenInputs(other_ids, x.inputs.lengths, x.inputs.action_positions))
    first, second = policy(x, also=["value"]).value, policy(other, also=["value"]).value
    torch.testing.assert_close(first[:3], second[:3])
    assert not torch.allclose(first[3], second[3])


def test_a_reference_stays_when_the_policy_moves(make_model: MakeModel, tokenizer: PreTrainedTokenizerFast) -> None:
    policy, x = policy_of(make_model(), tokenizer), batch()
    before = policy(x).logp.detach()
    reference = policy.frozen()
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(1.1)
    assert not torch.allclose(policy(x).logp, before, atol=1e-3)
    output = reference(x)
    torch.testing.assert_close(output.logp, before)
    assert not output.logp.requires_grad


def test_an_empty_batch_gives_empty_outputs(make_model: MakeModel, tokenizer: PreTrainedTokenizerFast) -> None:
    inputs = TokenInputs(torch.tensor([1, 2]), torch.tensor([2]), torch.tensor([], dtype=torch.int64))
    x = Experience.from_lengths([0], [1], [1], inputs=inputs)
    output = policy_of(make_model(), tokenizer, value_head=True)(x, also=("entropy", "value"))
    assert output.logp.shape == output.entropy.shape == output.value.shape == (0,)


def test_bfloat16_stays_close_and_keeps_float32_weights(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    exact = policy_of(make_model(initializer_range=0.05), tokenizer)(batch()).logp
    policy = policy_of(make_model(initializer_range=0.05), tokenizer, dtype="bfloat16")
    low = policy(batch()).logp
    assert low.dtype == torch.float32 and next(policy.parameters()).dtype == torch.float32
    torch.testing.assert_close(low, exact, atol=0.03, rtol=0)


@pytest.mark.parametrize("kind", ["qwen3", "tied"])
def test_saved_models_load_as_they_were(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path, kind: str
) -> None:
    policy = policy_of(make_model(kind), tokenizer)
    policy.save(tmp_path)
    again = LanguagePolicy.from_path(tmp_path, dtype="float32")
    torch.testing.assert_close(again(batch()).logp, policy(batch()).logp, atol=1e-6, rtol=0)
    assert again.tokenizer.chat_template == tokenizer.chat_template
    plain = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert plain.generate(torch.tensor([[1, 2]]), max_new_tokens=2, do_sample=False).shape == (1, 4)


@pytest.mark.parametrize("kind", ["qwen3", "tied", "qwen2"])
def test_hidden_matrices_are_the_projections_and_neither_embedding_nor_head(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerFast, kind: str
) -> None:
    policy = policy_of(make_model(kind), tokenizer, value_head=True)
    hidden = {id(p) for p in policy.hidden_matrices()}
    named = [name for name, p in policy.model.named_parameters() if id(p) in hidden]
    projections = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    assert sorted(name.split(".")[-2] for name in named) == sorted(projections * 2)
    assert all(name.endswith(".weight") for name in named)


class TestLoRA:
    def test_hidden_matrices_are_the_adapters(self, make_model: MakeModel, tokenizer: PreTrainedTokenizerFast) -> None:
        policy = policy_of(make_model(), tokenizer, lora=LoRA(rank=2, target_modules=("q_proj",)))
        assert [tuple(p.shape) for p in policy.hidden_matrices()] == [(2, 32), (64, 2)] * 2

    def test_adapters_start_as_the_model_and_alone_are_trained(
        self, make_model: MakeModel, tokenizer: PreTrainedTokenizerFast
    ) -> None:
        plain = policy_of(make_model(), tokenizer)(batch()).logp
        policy = policy_of(make_model(), tokenizer, lora={"rank": 2, "alpha": 4.0})
        torch.testing.assert_close(policy(batch()).logp, plain, atol=1e-6, rtol=0)
        assert {"lora_" in name for name, p in policy.named_parameters() if p.requires_grad} == {True}

    def test_reference_is_the_model_without_adapters_and_merging_keeps_the_policy(
        self, make_model: MakeModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
    ) -> None:
        policy = moved(policy_of(make_model(), tokenizer, lora=LoRA(rank=2, target_modules=("q_proj", "down_proj"))))
        plain = policy_of(make_model(), tokenizer)(batch()).logp
        current = policy(batch()).logp
        assert not torch.allclose(current, plain, atol=1e-2)
        torch.testing.assert_close(policy.frozen()(batch()).logp, plain, atol=1e-6, rtol=0)
        torch.testing.assert_close(policy(batch()).logp, current)
        policy.save(tmp_path)
        merged = LanguagePolicy.from_path(tmp_path, dtype="float32")(batch()).logp
        torch.testing.assert_close(merged, current, atol=1e-4, rtol=0)

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"rank": 0}, "lora.rank must be at least 1"),
            ({"alpha": -1.0}, "lora.alpha must be above 0"),
            ({"rnak": 2}, "unknown lora option 'rnak'; did you mean 'rank'"),
            ({"target_modules": ("nothing",)}, "lora.target_modules"),
        ],
    )
    def test_wrong_options_are_refused(
        self, make_model: MakeModel, tokenizer: PreTrainedTokenizerFast, wrong: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(InputError, match=message):
            policy_of(make_model(), tokenizer, lora=wrong)


class TestLoadingErrors:
    def test_missing_folder(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no such folder"):
            LanguagePolicy.from_path(tmp_path / "nothing")

    def test_folder_without_a_model(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="cannot be loaded") as caught:
            LanguagePolicy.from_path(tmp_path)
        assert "\n" not in str(caught.value)

    def test_corrupt_weights(self, make_model: MakeModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
        policy_of(make_model(), tokenizer).save(tmp_path)
        weights = tmp_path / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:1000])
        with pytest.raises(InputError, match="cannot be loaded") as caught:
            LanguagePolicy.from_path(tmp_path)
        assert "\n" not in str(caught.value)

    def test_incomplete_weights(
        self, make_model: MakeModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
    ) -> None:
        from safetensors.torch import load_file, save_file

        policy_of(make_model(), tokenizer).save(tmp_path)
        tensors = load_file(tmp_path / "model.safetensors")
        del tensors["model.norm.weight"]
        save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(
            InputError, match=r"weights lack 1 tensors that the config asks for, first model\.norm\.weight"
        ):
            LanguagePolicy.from_path(tmp_path)

    def test_no_tokenizer(self, make_model: MakeModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
        policy_of(make_model(), tokenizer).save(tmp_path)
        for path in tmp_path.glob("tokenizer*"):
            path.unlink()
        with pytest.raises(InputError, match="no readable tokenizer") as caught:
            LanguagePolicy.from_path(tmp_path)
        assert "\n" not in str(caught.value)


def test_wrong_calls_are_refused(make_model: MakeModel, tokenizer: PreTrainedTokenizerFast) -> None:
    policy = policy_of(make_model(), tokenizer)
    with pytest.raises(InputError, match="temperature must be above 0"):
        policy(batch(), temperature=0.0)
    with pytest.raises(InputError, match="no critic"):
        policy(batch(), also=["value"])
    with pytest.raises(InputError, match="reads TokenInputs, this experience has NoneType"):
        policy(batch().replace(inputs=None))
    with pytest.raises(InputError, match="unknown dtype 'float16'"):
        policy_of(make_model(), tokenizer, dtype="float16")


def test_a_dense_model_has_no_routing_to_replay_and_a_mixture_of_experts_is_refused(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    policy = policy_of(make_model(), tokenizer)
    assert torch.equal(policy(batch(), view=RoutingReplay()).logp, policy(batch()).logp)
    policy.model.config.num_local_experts = 8
    with pytest.raises(InputError, match=r"mixture of experts \(num_local_experts = 8\)"):
        policy(batch(), view=RoutingReplay())
    policy(batch())


def moved(policy: LanguagePolicy) -> LanguagePolicy:
    """The policy after a step that every trainable weight takes part in."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return policy
