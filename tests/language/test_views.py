"""What a language policy says when it is asked in another way than it acted."""

from __future__ import annotations

import copy

import pytest
import torch

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.language.inputs import TokenInputs
from stratagem.language.policy import LanguagePolicy
from stratagem.objectives import ResponseOnly


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
