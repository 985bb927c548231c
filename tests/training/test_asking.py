"""What a policy can be asked for, by name; what it cannot say is refused in one line."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from stratagem.errors import InputError
from stratagem.lab import GAMES, TabularPolicy
from stratagem.lab.tree import Tree
from stratagem.parts import View


@dataclass(frozen=True)
class _Upside(View):
    """No policy knows it."""


@pytest.fixture
def tree() -> Tree:
    return Tree.enumerate(GAMES["graded"])


def test_a_policy_says_no_more_than_it_is_asked_for(tree):
    policy = TabularPolicy(tree.normal_logits(0))
    assert vars(policy(tree.leaves)).keys() >= {"logp", "entropy", "value", "median"}
    assert policy(tree.leaves).entropy is None
    said = policy(tree.leaves, also=["median", "entropy"])
    assert said.median.shape == said.entropy.shape == said.logp.shape
    assert said.value is None


def test_what_it_cannot_say_and_views_it_does_not_know_are_refused(tree):
    policy = TabularPolicy(tree.normal_logits(0))
    with pytest.raises(InputError, match="TabularPolicy does not say mood; it says"):
        policy(tree.leaves, also=["mood"])
    with pytest.raises(InputError, match="TabularPolicy has no view _upside"):
        policy(tree.leaves, view=_Upside())


def test_a_copy_no_longer_moves(tree, make_policy):
    for policy in (TabularPolicy(tree.normal_logits(0)), make_policy(seed=1)):
        copied = policy.copy()
        before = {name: tensor.clone() for name, tensor in copied.state_dict().items()}
        assert before.keys() == policy.state_dict().keys()
        with torch.no_grad():
            for parameter in policy.policy_parameters():
                parameter.add_(1.0)
        assert all(torch.equal(tensor, before[name]) for name, tensor in copied.state_dict().items())
        assert not any(parameter.requires_grad for parameter in copied.policy_parameters())
