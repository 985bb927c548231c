from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stratagem.multiagent import Monotone, Sum


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(2, 4))
def test_the_best_joint_action_is_that_of_each_agents_own_best(seed: int, agents: int, actions: int) -> None:
    source = torch.Generator().manual_seed(seed)
    utilities = torch.randn(agents, actions, generator=source)
    state = 3 * torch.randn(1, 5, generator=source)
    joint = list(itertools.product(range(actions), repeat=agents))
    table = torch.stack([utilities[torch.arange(agents), torch.tensor(one)] for one in joint])
    for mixer in (Sum(), Monotone(agents, 5, 8, seed)):
        total = mixer(table, state.expand(len(joint), -1)).detach()
        own = joint.index(tuple(utilities.argmax(1).tolist()))
        assert float(total[own]) >= float(total.max()) - 1e-5


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000))
def test_a_value_never_falls_when_a_utility_rises(seed: int) -> None:
    source = torch.Generator().manual_seed(seed)
    mixer = Monotone(3, 4, seed=seed)
    utilities = (2 * torch.randn(16, 3, generator=source)).requires_grad_()
    gradient = torch.autograd.grad(mixer(utilities, torch.randn(16, 4, generator=source)).sum(), utilities)[0]
    assert bool((gradient >= 0).all()) and bool((gradient > 0).any())


def test_the_monotone_mixer_is_its_formula() -> None:
    mixer, q, s = Monotone(2, 3, 4, seed=1), torch.tensor([[1.0, -2.0]]), torch.tensor([[0.5, -1.0, 2.0]])
    source = torch.Generator().manual_seed(2)
    for layer in (mixer.first_bias, mixer.last_bias[2]):
        layer.weight.data.normal_(generator=source)
        layer.bias.data.normal_(generator=source)
    first = mixer.first_weight(s).abs().reshape(2, 4)
    hidden = q @ first + mixer.first_bias(s)
    hidden = torch.where(hidden > 0, hidden, hidden.exp() - 1)
    last = mixer.last_bias
    bias = last[2](torch.relu(last[0](s)))
    expected = (hidden * mixer.last_weight(s).abs()).sum() + bias.sum()
    assert float(mixer(q, s).detach()) == pytest.approx(float(expected.detach()), abs=1e-6)


def test_a_team_of_no_utility_begins_with_the_value_0_and_utilities_count_at_once() -> None:
    mixer, states = Monotone(3, 4, seed=5), 3 * torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    utilities = torch.zeros(64, 3, requires_grad=True)
    value = mixer(utilities, states)
    assert value.tolist() == [0.0] * 64
    value.sum().backward()
    assert utilities.grad is not None and bool((utilities.grad > 0.1).all())
    mixer(torch.ones(64, 3), states).sum().backward()
    grown = (mixer.first_bias.weight, mixer.last_bias[2].weight, mixer.first_weight.weight, mixer.last_weight.weight)
    assert all(one.grad is not None and bool(one.grad.any()) for one in grown)


def test_the_sum_adds_up_and_does_not_look_at_the_state() -> None:
    assert Sum()(torch.tensor([[1.0, 2.0], [3.0, -4.0]]), torch.randn(2, 9)).tolist() == [3.0, -1.0]


def test_the_same_seed_gives_the_same_mixer() -> None:
    one, same, other = (Monotone(2, 3, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one.first_weight.weight, same.first_weight.weight)
    assert not torch.equal(one.first_weight.weight, other.first_weight.weight)
