"""What the policy says of the answers in a batch, and what the trainer asks of it."""

from __future__ import annotations

import pytest
import torch

from stratagem.diffusion import DiffusionInputs, DiffusionPolicy, Shape
from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.sampling import MaskedElbo

LENGTHS = [3, 1, 2]


def batch(views: int = 3, seed: int = 0) -> Experience:
    """Three answers of 3, 1 and 2 tokens on a canvas of 3 after a prompt of 2."""
    source = torch.Generator().manual_seed(seed)
    place = torch.arange(5) - 2
    lengths = torch.tensor(LENGTHS).unsqueeze(1)
    response = (place >= 0) & (place < lengths)
    tokens = torch.randint(3, (3, 5), generator=source).masked_fill(place >= lengths, 3)
    likelihood = MaskedElbo("gauss", views)
    chance, clock = torch.rand(3, views, 5, generator=source), torch.rand(3, views, generator=source)
    drawn = likelihood.views(response, chance, clock)
    return Experience.from_lengths(
        LENGTHS,
        [1] * 3,
        [3],
        action=tokens[response],
        inputs=DiffusionInputs(tokens, response, drawn.hidden, drawn.weight),
    )


def test_a_token_is_credited_with_its_weighted_log_probability_in_every_view_that_hides_it(policy):
    x = batch()
    said, row = policy(x).logp.tolist(), 0
    for answer, length in enumerate(LENGTHS):
        for token in range(length):
            share = 0.0
            for view in range(3):
                if x.inputs.hidden[answer, view, 2 + token]:
                    shown = x.inputs.tokens[answer].masked_fill(x.inputs.hidden[answer, view], policy.mask)
                    logp = policy.logits(shown.unsqueeze(0))[0, 2 + token].log_softmax(-1)
                    share += (x.inputs.weight[answer, view] * logp[x.inputs.tokens[answer, 2 + token]]).item()
            assert said[row] == pytest.approx(share, abs=1e-5)
            row += 1
    assert row == len(said)


def test_what_is_past_the_end_of_an_answer_is_never_seen(policy):
    assert bool((batch().inputs.tokens[1, 3:] == policy.mask).all())
    shares = policy(batch()).logp
    assert shares.isfinite().all() and len(shares) == 6


def test_gradients_change_no_digit_of_what_is_said(policy):
    x = batch()
    with torch.no_grad():
        silent = policy(x).logp
    assert torch.equal(policy(x).logp.detach(), silent) and torch.equal(policy.frozen()(x).logp, silent)


def test_micro_batches_and_selections_say_the_same(policy):
    x = batch()
    whole = policy(x).logp.split(LENGTHS)
    for answer in range(3):
        assert torch.allclose(policy(x.microbatch(torch.tensor([answer]))).logp, whole[answer], atol=1e-6)
    assert torch.allclose(policy(x.select(torch.tensor([2, 0]))).logp, torch.cat([whole[2], whole[0]]), atol=1e-6)
    joined = Experience.concatenate([x, x])
    assert torch.allclose(policy(joined).logp, torch.cat([*whole, *whole]), atol=1e-6)
    assert x.inputs.lengths.tolist() == [15, 15, 15]


def test_an_empty_batch_says_nothing(policy):
    nothing = batch().select(torch.zeros(3, dtype=torch.bool))
    out = policy(nothing, also=("entropy", "value"))
    assert out.logp.shape == out.entropy.shape == out.value.shape == (0,)


def test_temperature_flattens_what_is_said(policy):
    x = batch()
    hot = policy(x, temperature=1e6).logp
    uniform = -torch.tensor(3.0).log() * (x.inputs.weight.unsqueeze(-1) * x.inputs.hidden).sum(1)[x.inputs.response]
    assert hot.tolist() == pytest.approx(uniform.tolist(), abs=1e-4)


def test_the_entropy_of_a_uniform_policy_is_the_log_of_its_vocabulary(policy):
    with torch.no_grad():
        policy.head.weight.zero_(), policy.head.bias.zero_()
    x = batch()
    out = policy(x, also=["entropy"])
    assert torch.allclose(out.entropy, -out.logp)


def test_the_critic_reads_the_prompt_alone_and_starts_at_zero(policy):
    x = batch()
    assert policy(x, also=["value"]).value.tolist() == [0.0] * 6
    with torch.no_grad():
        policy.critic.weight.normal_()
    value = policy(x, also=["value"]).value
    assert value[:3].unique().numel() == 1 and value.isfinite().all()
    other = x.inputs.tokens.clone()
    other[:, 2] = (other[:, 2] + 1) % 3
    changed = x.replace(inputs=DiffusionInputs(other, x.inputs.response, x.inputs.hidden, x.inputs.weight))
    assert torch.equal(policy(changed, also=["value"]).value, value)


def test_the_critics_parameters_are_not_the_policys(policy):
    mine, theirs = list(policy.policy_parameters()), list(policy.critic_parameters())
    assert len(mine) + len(theirs) == len(list(policy.parameters())) and len(theirs) == 2


def test_a_saved_policy_is_read_back_equal(policy, tmp_path):
    policy.save(tmp_path / "model", "card")
    again = DiffusionPolicy.from_directory(tmp_path / "model")
    assert again.shape == policy.shape and torch.equal(again(batch()).logp, policy(batch()).logp)
    (tmp_path / "model" / "policy.json").write_text("{}")
    for path in (tmp_path / "model", tmp_path / "nothing"):
        with pytest.raises(InputError, match="no readable diffusion policy"):
            DiffusionPolicy.from_directory(path)


def test_weights_follow_from_the_seed_and_leave_torchs_own_generator_alone():
    shape = Shape(3, 4)
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    one, same, other = (DiffusionPolicy(shape, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(one.head.weight, same.head.weight) and not torch.equal(one.head.weight, other.head.weight)


def test_bad_input_is_refused(policy):
    with pytest.raises(ValueError, match="reads DiffusionInputs, not NoneType"):
        policy(Experience.from_lengths([1], [1], [1]))
    with pytest.raises(InputError, match="layers = 0: must be at least 1"):
        Shape(3, 4, layers=0)
    with pytest.raises(InputError, match="width = 30: must be a multiple of heads, 4"):
        Shape(3, 4, width=30, heads=4)
