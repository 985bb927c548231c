"""What a language policy says when it is asked in another way than it acted."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.language import LanguagePolicy, LoRA, entropy_by_layer, noise_levels
from stratagem.language.inputs import TokenInputs
from stratagem.objectives import InternalLayer, Perturbed, ResponseOnly


def conversations(*turns: list[tuple[list[int], list[int]]]) -> Experience:
    """One group of trajectories, each a list of turns of (what is read, the actions)."""
    flat = [turn for trajectory in turns for turn in trajectory]
    acted = [flag for read, actions in flat for flag in [False] * len(read) + [True] * len(actions)]
    inputs = TokenInputs(
        token_ids=torch.tensor([token for turn in flat for part in turn for token in part]),
        lengths=torch.tensor([sum(len(part) for turn in row for part in turn) for row in turns]),
        action_positions=torch.tensor(acted).nonzero().squeeze(1),
    )
    counts = [len(actions) for _, actions in flat]
    return Experience.from_lengths(counts, [len(row) for row in turns], [len(turns)], inputs=inputs)


@pytest.fixture
def policy(make_policy) -> LanguagePolicy:
    """Two layers, with weights wide enough for distributions that are far from uniform."""
    made = make_policy()
    with torch.no_grad():
        for parameter in made.model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(10)
    return made


# ---- responses alone ------------------------------------------------------------------------------------------------


def test_a_response_alone_is_the_same_after_any_prompt(policy):
    response = [50, 51, 52]
    x = conversations([([1, 2, 3, 4], response)], [([9], response)], [([8, 7], response)])
    plain, alone = policy(x).logp.view(3, 3), policy(x, view=ResponseOnly()).logp.view(3, 3)
    assert (plain[0] - plain[1]).abs().min() > 1e-3
    torch.testing.assert_close(alone, alone[:1].expand(3, 3), rtol=0, atol=1e-6)


def test_behind_the_prefix_alone_nothing_is_left_out(policy):
    begin = policy.tokenizer.eos_token_id
    x = conversations([([begin], [50, 51]), ([60], [52])], [([begin], [53])])
    torch.testing.assert_close(policy(x, view=ResponseOnly()).logp, policy(x).logp)


def test_what_is_read_between_turns_is_seen_and_the_opening_is_not(policy):
    def said(opening: int, between: int) -> torch.Tensor:
        x = conversations([([opening, 5], [50, 51]), ([between], [52])])
        return policy(x, view=ResponseOnly()).logp

    assert torch.equal(said(1, 60), said(2, 60))
    assert torch.equal(said(1, 60)[:2], said(1, 61)[:2])
    assert said(1, 60)[2] != said(1, 61)[2]


def test_the_prefix_is_the_first_special_token_the_tokenizer_has(policy):
    x = conversations([([1, 2], [50, 51])])
    policy.tokenizer = copy.deepcopy(policy.tokenizer)
    names = ("bos_token", "eos_token", "pad_token")
    for name, token in zip(names, (70, 71, 72), strict=True):
        setattr(policy.tokenizer, name, policy.tokenizer.convert_ids_to_tokens(token))
    for name, token in zip(names, (70, 71, 72), strict=True):
        expected = policy(conversations([([token], [50, 51])])).logp
        torch.testing.assert_close(policy(x, view=ResponseOnly()).logp, expected)
        setattr(policy.tokenizer, name, None)
    with pytest.raises(InputError, match="bos, eos or pad"):
        policy(x, view=ResponseOnly())


def test_frozen_policies_answer_in_the_same_view(policy):
    x = conversations([([1, 2, 3], [50, 51])], [([4], [52])])
    expected = policy(x, view=ResponseOnly()).logp.detach()
    assert torch.equal(policy.frozen()(x, view=ResponseOnly()).logp, expected)
    assert torch.equal(policy.copy()(x, view=ResponseOnly()).logp, expected)


def test_a_critic_is_not_asked_about_responses_alone(policy):
    x = conversations([([1, 2, 3], [50, 51])])
    with pytest.raises(InputError, match="does not say value in the view response_only"):
        policy(x, also=("value",), view=ResponseOnly())
    assert policy(x, also=("entropy",), view=ResponseOnly()).entropy is not None


def test_a_model_that_sees_one_token_back_has_the_same_gradient_without_the_prompt(policy):
    """But for the first action, whose one token back is the prompt's last; attention is what would see further."""
    layers = policy.model.get_decoder().layers
    with torch.no_grad():
        for layer in layers:
            layer.self_attn.o_proj.weight.zero_()
    x = conversations([([1, 2, 3, 4], [50, 51, 52, 53])])
    gradients = []
    for view in (None, ResponseOnly()):
        policy.zero_grad()
        policy(x, view=view).logp[1:].sum().backward()
        seen = [p.grad.flatten() for n, p in policy.model.named_parameters() if "self_attn" not in n]
        gradients.append(torch.cat(seen))
    torch.testing.assert_close(*gradients)
    assert policy(x).logp[0] != policy(x, view=ResponseOnly()).logp[0]


# ---- internal layers ------------------------------------------------------------------------------------------------


@pytest.fixture
def deep(make_model, tokenizer) -> LanguagePolicy:
    """Four layers, an output embedding of its own."""
    return LanguagePolicy(make_model(num_hidden_layers=4), tokenizer, dtype="float32")


def one_conversation() -> Experience:
    return conversations([([1, 2, 3], [50, 51]), ([4, 5], [52])])


def seen_by_hooks(policy: LanguagePolicy, x: Experience) -> dict[str, torch.Tensor]:
    """Hidden states of the whole model at every place before an action, by module name."""
    found = {}

    def reader(name):
        def read(module, arguments, output):
            found[name] = (output[0] if isinstance(output, tuple) else output)[0][[2, 3, 6]]

        return read

    decoder = policy.model.get_decoder()
    hooks = [decoder.embed_tokens.register_forward_hook(reader("H0"))]
    for number, layer in enumerate(decoder.layers, 1):
        for name, module in ((f"H{number}", layer), (f"A{number}", layer.self_attn), (f"F{number}", layer.mlp)):
            hooks.append(module.register_forward_hook(reader(name)))
    policy(x)
    for hook in hooks:
        hook.remove()
    return found


def said_of(policy: LanguagePolicy, hidden: torch.Tensor) -> torch.Tensor:
    logits = policy.model.get_output_embeddings()(hidden)
    return logits.log_softmax(-1)[torch.arange(3), torch.tensor([50, 51, 52])]


@pytest.mark.parametrize("layer", range(4))
def test_an_internal_policy_is_the_output_embedding_of_what_leaves_its_layer(deep, layer):
    x = one_conversation()
    expected = said_of(deep, seen_by_hooks(deep, x)[f"H{layer}"])
    torch.testing.assert_close(deep(x, view=InternalLayer(layer)).logp, expected)


def test_the_last_layer_behind_the_final_norm_is_the_policy(deep):
    x = one_conversation()
    assert torch.equal(deep(x, view=InternalLayer(4)).logp, deep(x).logp)
    assert not torch.allclose(said_of(deep, seen_by_hooks(deep, x)["H4"]), deep(x).logp)


def test_the_residual_stream_is_the_sum_of_all_modules_before(deep):
    found = seen_by_hooks(deep, one_conversation())
    total = found["H0"]
    for layer in range(1, 5):
        total = total + found[f"A{layer}"] + found[f"F{layer}"]
        torch.testing.assert_close(total, found[f"H{layer}"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("layer", [1, 3, 4])
def test_modular_policies_are_of_what_leaves_the_module(deep, layer):
    x = one_conversation()
    found = seen_by_hooks(deep, x)
    for stream, name in (("attention", "A"), ("feed_forward", "F")):
        logp = deep(x, view=InternalLayer(layer, stream)).logp
        torch.testing.assert_close(logp, said_of(deep, found[f"{name}{layer}"]))


def test_modular_policies_of_the_inputs_are_of_what_the_norms_give(deep):
    x = one_conversation()
    found, layer = seen_by_hooks(deep, x), deep.model.get_decoder().layers[1]
    logp = deep(x, view=InternalLayer(2, "attention_input")).logp
    torch.testing.assert_close(logp, said_of(deep, layer.input_layernorm(found["H1"])))
    logp = deep(x, view=InternalLayer(2, "feed_forward_input")).logp
    torch.testing.assert_close(logp, said_of(deep, layer.post_attention_layernorm(found["H1"] + found["A2"])))


@pytest.mark.parametrize("options", [{}, {"gradient_checkpointing": True}], ids=str)
@pytest.mark.parametrize("stream", ["residual", "feed_forward"])
def test_only_what_lies_below_the_layer_has_a_gradient(make_model, tokenizer, stream, options):
    policy = LanguagePolicy(make_model(num_hidden_layers=4), tokenizer, dtype="float32", **options).train()
    policy(one_conversation(), view=InternalLayer(2, stream)).logp.sum().backward()
    decoder = policy.model.get_decoder()
    for number, layer in enumerate(decoder.layers, 1):
        gradients = [p.grad for p in layer.parameters()]
        assert all(g is None for g in gradients) if number > 2 else any(g is not None and g.any() for g in gradients)
    assert decoder.norm.weight.grad is None
    assert decoder.embed_tokens.weight.grad.any() and policy.model.lm_head.weight.grad.any()


def test_checkpointing_changes_no_gradient_of_an_internal_policy(make_model, tokenizer):
    gradients = []
    for checkpointing in (False, True):
        model = make_model(num_hidden_layers=4)
        policy = LanguagePolicy(model, tokenizer, dtype="float32", gradient_checkpointing=checkpointing).train()
        policy(one_conversation(), view=InternalLayer(3, "attention")).logp.sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in policy.model.parameters() if p.grad is not None]))
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


def test_the_model_is_whole_again_after_a_view_and_after_an_error(deep):
    x, expected = one_conversation(), deep(one_conversation()).logp
    for view in (InternalLayer(1), InternalLayer(2, "attention")):
        deep(x, view=view)
        assert torch.equal(deep(x).logp, expected)
    with pytest.raises(InputError, match="this model has 4 layers"):
        deep(x, view=InternalLayer(5))
    assert torch.equal(deep(x).logp, expected)
    assert all(not module._forward_hooks for module in deep.model.modules())


def test_a_tied_embedding_learns_at_both_ends(make_model, tokenizer):
    policy = LanguagePolicy(make_model("tied", num_hidden_layers=3), tokenizer, dtype="float32")
    policy(one_conversation(), view=InternalLayer(1)).logp.sum().backward()
    weight = policy.model.get_output_embeddings().weight
    assert weight is policy.model.get_input_embeddings().weight and weight.grad.any()


def test_adapters_and_frozen_policies_have_internal_layers_too(make_model, tokenizer):
    policy = LanguagePolicy(make_model(num_hidden_layers=3), tokenizer, dtype="float32", lora=LoRA(rank=2))
    x, view = one_conversation(), InternalLayer(2)
    policy(x, view=view).logp.sum().backward()
    moved = {n for n, p in policy.model.named_parameters() if p.grad is not None}
    assert any("layers.1" in name for name in moved) and not any("layers.2" in name for name in moved)
    assert torch.equal(policy.frozen()(x, view=view).logp, policy(x, view=view).logp.detach())


def test_models_of_another_build_have_no_internal_policies(tokenizer):
    gpt = GPT2LMHeadModel(GPT2Config(vocab_size=320, n_embd=16, n_layer=2, n_head=2, n_positions=64))
    with pytest.raises(InputError, match=r"GPT2LMHeadModel cannot be taken apart: its decoder is not \.layers"):
        LanguagePolicy(gpt, tokenizer, dtype="float32")(one_conversation(), view=InternalLayer(1))


def test_a_layer_that_is_no_sum_has_no_modular_policies(deep):
    layer = deep.model.get_decoder().layers[1]
    inner = layer.forward
    layer.forward = lambda hidden, *others, **named: 0.5 * inner(hidden, *others, **named)
    deep(one_conversation(), view=InternalLayer(2))
    with pytest.raises(InputError, match="not the sum of its input, its attention and its feed-forward network"):
        deep(one_conversation(), view=InternalLayer(2, "attention"))


def test_embeddings_have_no_modules():
    with pytest.raises(InputError, match="layer = 0: has no attention; the first layer is 1"):
        InternalLayer(0, "attention")


def test_entropies_by_layer_worked_by_hand(deep):
    """A hidden state of 0 says nothing; logits (2, 0, 0, 0) have entropy 0.918284."""
    x = one_conversation()
    with torch.no_grad():
        deep.model.get_output_embeddings().weight.zero_()
    profile = entropy_by_layer(deep, x)
    torch.testing.assert_close(profile, torch.full((5,), math.log(320)))
    with torch.no_grad():
        deep.model.get_decoder().embed_tokens.weight.fill_(1.0)
        deep.model.get_output_embeddings().weight[4:] = -1e4
        deep.model.get_output_embeddings().weight[0] = 2 / 32
    assert float(entropy_by_layer(deep, x)[0]) == pytest.approx(0.918284, abs=1e-6)


def test_the_profile_counts_tokens_that_may_train_and_ends_with_the_policy(deep):
    x = one_conversation()
    masked = x.replace(mask=torch.tensor([True, False, True]))
    entropy = deep(x, also=("entropy",)).entropy.detach()
    assert float(entropy_by_layer(deep, x)[-1]) == pytest.approx(float(entropy.mean()))
    assert float(entropy_by_layer(deep, masked)[-1]) == pytest.approx(float(entropy[[0, 2]].mean()))
    assert len(entropy_by_layer(deep, x, "attention")) == 4


# ---- perturbed layers -----------------------------------------------------------------------------------------------


def noisy(policy: LanguagePolicy, view: Perturbed, seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    return policy(one_conversation(), view=view).logp


def gradients(policy: LanguagePolicy, view: Perturbed | None) -> dict[str, torch.Tensor]:
    policy.zero_grad()
    torch.manual_seed(0)
    policy(one_conversation(), view=view).logp.sum().backward()
    return {name: p.grad for name, p in policy.named_parameters() if p.grad is not None}


def test_noise_of_no_width_changes_no_bit_of_output_or_gradient(deep):
    silent, plain = gradients(deep, Perturbed(initial=0.0)), gradients(deep, None)
    assert torch.equal(noisy(deep, Perturbed(initial=0.0)), deep(one_conversation()).logp)
    assert float(silent.pop("log_noise").abs().max()) == 0.0
    assert silent.keys() == plain.keys()
    assert all(torch.equal(silent[name], plain[name]) for name in plain)


def test_noise_follows_from_torchs_seed_and_differs_between_passes(deep):
    view = Perturbed(initial=0.1)
    assert torch.equal(noisy(deep, view), noisy(deep, view))
    assert not torch.equal(noisy(deep, view), noisy(deep, view, seed=1))
    torch.manual_seed(0)
    first, second = (deep(one_conversation(), view=view).logp for _ in range(2))
    assert not torch.equal(first, second)


def test_there_is_no_noise_without_gradients(deep):
    x, view = one_conversation(), Perturbed(initial=0.5)
    with torch.no_grad():
        plain = deep(x).logp
        assert torch.equal(deep(x, view=view).logp, plain)
    assert torch.equal(deep.frozen()(x, view=view).logp, plain)
    assert not torch.allclose(noisy(deep, view), plain)


@pytest.mark.parametrize("layers", [None, (2,)])
def test_checkpointing_draws_the_same_noise_again(make_model, tokenizer, layers):
    view, found = Perturbed(initial=0.3, layers=layers), []
    for checkpointing in (False, True):
        model = make_model(num_hidden_layers=3)
        policy = LanguagePolicy(model, tokenizer, dtype="float32", gradient_checkpointing=checkpointing).train()
        found.append(gradients(policy, view))
    assert found[0].keys() == found[1].keys()
    for name in found[0]:
        torch.testing.assert_close(found[1][name], found[0][name], rtol=1e-6, atol=1e-6)


def test_the_slope_by_every_width_is_that_of_differences(make_model, tokenizer):
    policy = LanguagePolicy(make_model(num_hidden_layers=3), tokenizer, dtype="float32")
    view, step = Perturbed(initial=0.1), 1e-2
    found = gradients(policy, view)["log_noise"]
    assert found.shape == (3,) and bool((found != 0).all())
    for layer in range(3):
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                policy.log_noise[layer] += sign * step
            values.append(float(noisy(policy, view).detach().sum()))
            with torch.no_grad():
                policy.log_noise[layer] -= sign * step
        assert (values[0] - values[1]) / (2 * step) == pytest.approx(float(found[layer]), rel=2e-3, abs=5e-4)


def test_noise_enters_at_the_layers_it_is_asked_for(deep):
    def inputs_of_layers(view: Perturbed | None) -> list[torch.Tensor]:
        found = []
        layers = deep.model.get_decoder().layers
        hooks = [layer.register_forward_pre_hook(lambda m, a: found.append(a[0].detach())) for layer in layers]
        torch.manual_seed(0)
        deep(one_conversation(), view=view)
        for hook in hooks:
            hook.remove()
        return found

    plain = inputs_of_layers(None)
    for layers, first in (((4,), 3), ((2, 3), 1), ((1,), 0), (None, 0)):
        found = inputs_of_layers(Perturbed(initial=0.1, layers=layers))
        same = [torch.equal(one, other) for one, other in zip(found, plain, strict=True)]
        assert same == [place < first for place in range(4)]
    with pytest.raises(InputError, match=r"perturbed.layers = \(5,\): this model has 4 layers"):
        deep(one_conversation(), view=Perturbed(layers=(5,)))


def test_noise_levels_are_absolute_and_in_units_of_the_signal(deep):
    with pytest.raises(InputError, match="never asked in the view perturbed"):
        noise_levels(deep, one_conversation())
    deep.view_parameters(Perturbed(initial=0.25))
    levels = noise_levels(deep, one_conversation())
    torch.testing.assert_close(levels.sigma, torch.full((4,), 0.25))
    embedded = deep.model.get_input_embeddings().weight.detach()[torch.tensor([1, 2, 3, 50, 51, 4, 5])]
    assert float(levels.relative[0]) == pytest.approx(0.25 / float(embedded.square().mean().sqrt()), rel=1e-5)


def test_the_widths_are_part_of_what_was_learned_and_not_of_what_is_saved(deep, tmp_path):
    noisy(deep, Perturbed(initial=0.1))
    assert "log_noise" in deep.state_dict()
    assert torch.equal(deep.copy().log_noise, deep.log_noise)
    deep.save(tmp_path)
    x = one_conversation()
    torch.testing.assert_close(LanguagePolicy.from_path(tmp_path, dtype="float32")(x).logp, deep(x).logp)
