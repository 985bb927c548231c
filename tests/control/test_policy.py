from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from stratagem.control import CategoricalPolicy, ControlInputs, ControlPolicy, GaussianPolicy, GymTask
from stratagem.errors import InputError
from stratagem.experience import Experience


def batch(observation: torch.Tensor, action: torch.Tensor) -> Experience:
    rows = len(observation)
    inputs = ControlInputs(observation, torch.tensor([rows]))
    return Experience.from_lengths([1] * rows, [rows], [1], action=action, inputs=inputs)


def with_outputs(policy: ControlPolicy, outputs: list[float]) -> ControlPolicy:
    """The policy with these actor outputs at every observation."""
    last = policy.actor[-1]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(torch.tensor(outputs))
    return policy


def test_categorical_log_probabilities_and_entropy_by_hand() -> None:
    policy = with_outputs(CategoricalPolicy(3, 2), [math.log(3.0), 0.0])
    out = policy(batch(torch.randn(2, 3), torch.tensor([0, 1])), also=["entropy"])
    assert out.logp.tolist() == pytest.approx([math.log(0.75), math.log(0.25)])
    entropy = -0.75 * math.log(0.75) - 0.25 * math.log(0.25)
    assert out.entropy.tolist() == pytest.approx([entropy] * 2)
    assert out.value is None


def test_gaussian_log_probabilities_and_entropy_by_hand() -> None:
    policy = with_outputs(GaussianPolicy(3, 2), [1.0, -1.0])
    assert isinstance(policy, GaussianPolicy)
    with torch.no_grad():
        policy.log_std.copy_(torch.tensor([0.0, math.log(2.0)]))
    out = policy(batch(torch.randn(2, 3), torch.tensor([[1.0, -1.0], [2.0, 3.0]])), also=["entropy"])
    at_mean = -math.log(2 * math.pi) - math.log(2.0)
    # One standard deviation off in the first dimension, two in the second.
    assert out.logp.tolist() == pytest.approx([at_mean, at_mean - 0.5 - 2.0])
    assert out.entropy.tolist() == pytest.approx([1 + math.log(2 * math.pi) + math.log(2.0)] * 2)


def test_temperature_is_a_power_of_the_density() -> None:
    categorical = with_outputs(CategoricalPolicy(1, 2), [math.log(9.0), 0.0])
    logp = categorical(batch(torch.zeros(1, 1), torch.tensor([0])), temperature=2.0).logp
    assert logp.exp().tolist() == pytest.approx([0.75])
    gaussian = with_outputs(GaussianPolicy(1, 1), [0.0])
    logp = gaussian(batch(torch.zeros(1, 1), torch.tensor([[2.0]])), temperature=4.0).logp
    assert logp.tolist() == pytest.approx([-0.5 - math.log(2.0) - 0.5 * math.log(2 * math.pi)])


@pytest.mark.parametrize("kind", [CategoricalPolicy, GaussianPolicy])
def test_greedy_acting_in_numpy_agrees_with_the_network_in_torch(kind: type[ControlPolicy]) -> None:
    policy = kind(5, 3, seed=1)
    with torch.no_grad():
        policy.actor[-1].weight.mul_(100)
    observation = torch.randn(200, 5, generator=torch.Generator().manual_seed(0))
    outputs = policy.actor(observation).detach()
    acted = policy.acting()(observation.numpy(), None)
    if kind is CategoricalPolicy:
        assert acted.tolist() == outputs.argmax(-1).tolist()
    else:
        np.testing.assert_allclose(acted, outputs.numpy(), rtol=1e-5, atol=1e-6)


def test_categorical_actions_are_drawn_with_their_probabilities() -> None:
    policy = with_outputs(CategoricalPolicy(1, 3), [math.log(0.7), math.log(0.2), math.log(0.1)])
    drawn = policy.acting()(np.zeros((20_000, 1), np.float32), np.random.default_rng(0))
    share = np.bincount(drawn, minlength=3) / len(drawn)
    # Four standard errors of a share of 0.7 in 20,000 draws are 0.013.
    np.testing.assert_allclose(share, [0.7, 0.2, 0.1], atol=0.013)


def test_gaussian_actions_have_the_mean_and_spread_of_the_density() -> None:
    policy = with_outputs(GaussianPolicy(1, 1), [3.0])
    drawn = policy.acting(temperature=4.0)(np.zeros((20_000, 1), np.float32), np.random.default_rng(0))
    assert drawn.mean() == pytest.approx(3.0, abs=4 * 2 / math.sqrt(20_000))
    assert drawn.std() == pytest.approx(2.0, abs=0.04)


def test_a_fresh_policy_is_nearly_uniform_and_orthogonal() -> None:
    policy = CategoricalPolicy(4, 2, seed=3)
    logp = policy(batch(torch.randn(50, 4), torch.zeros(50, dtype=torch.int64))).logp
    assert logp.detach().exp().sub(0.5).abs().max() < 0.02
    weight = policy.actor[2].weight
    torch.testing.assert_close(weight @ weight.T, 2 * torch.eye(64), atol=1e-5, rtol=0)


def test_every_parameter_belongs_to_the_policy_or_the_critic() -> None:
    policy = GaussianPolicy(4, 2)
    owned = [id(p) for p in (*policy.policy_parameters(), *policy.critic_parameters())]
    assert sorted(owned) == sorted(id(p) for p in policy.parameters())
    x = batch(torch.randn(3, 4), torch.zeros(3, 2))
    out = policy(x, also=["value", "median"])
    (out.value + out.median).sum().backward()
    assert all(p.grad is None for p in policy.policy_parameters())
    assert all(p.grad is not None for p in policy.critic_parameters())


def test_the_hidden_matrix_is_the_one_between_the_actors_hidden_layers() -> None:
    policy = GaussianPolicy(4, 2, hidden=8)
    assert [p is policy.actor[2].weight for p in policy.hidden_matrices()] == [True]


def test_a_frozen_copy_does_not_move() -> None:
    policy = CategoricalPolicy(2, 2)
    frozen = policy.frozen()
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(1.0)
    assert not any(p.requires_grad for p in frozen.parameters())
    assert frozen.actor[-1].bias.tolist() == [0.0, 0.0]


def test_the_seed_decides_the_weights_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, again, other = (CategoricalPolicy(4, 2, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.actor[0].weight, again.actor[0].weight)
    assert not torch.equal(first.actor[0].weight, other.actor[0].weight)


def test_saved_policies_come_back_equal(tmp_path: Path) -> None:
    policy = GaussianPolicy(4, 2, hidden=16, seed=5)
    policy.save(tmp_path / "model", "# A card\n")
    loaded = ControlPolicy.from_directory(tmp_path / "model")
    assert isinstance(loaded, GaussianPolicy)
    assert all(torch.equal(a, b) for a, b in zip(policy.parameters(), loaded.parameters(), strict=True))
    assert (tmp_path / "model" / "README.md").read_text() == "# A card\n"


def test_a_damaged_or_missing_policy_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no readable control policy"):
        ControlPolicy.from_directory(tmp_path / "nowhere")
    CategoricalPolicy(4, 2).save(tmp_path / "model", "")
    (tmp_path / "model" / "policy.safetensors").write_bytes(b"broken")
    with pytest.raises(InputError, match="no readable control policy"):
        ControlPolicy.from_directory(tmp_path / "model")


def test_the_task_decides_the_kind() -> None:
    assert isinstance(ControlPolicy.for_task(GymTask("CartPole-v1")), CategoricalPolicy)
    pendulum = ControlPolicy.for_task(GymTask("Pendulum-v1"))
    assert isinstance(pendulum, GaussianPolicy) and (pendulum.features, pendulum.actions) == (3, 1)


def test_inputs_of_another_kind_are_refused() -> None:
    x = Experience.from_lengths([1], [1], [1], action=torch.tensor([0]))
    with pytest.raises(ValueError, match="reads ControlInputs and actions, not NoneType"):
        CategoricalPolicy(1, 2)(x)
