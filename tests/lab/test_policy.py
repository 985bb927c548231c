"""The tabular policy says of a batch what its table says."""

from __future__ import annotations

import pytest
import torch

from stratagem.lab import Exact, SharedPolicy, TabularPolicy, Tree, find_game
from stratagem.lab.draw import draw
from stratagem.lab.policy import NodeInputs
from stratagem.seeding import generator


def test_it_says_log_probability_entropy_and_value_of_every_token(both):
    policy, x = TabularPolicy(both.logits), both.tree.leaves
    with torch.no_grad():
        policy.values.copy_(torch.tensor([1.0, 2.0, 3.0]))
    out = policy(x, also=("entropy", "value"))
    torch.testing.assert_close(out.logp.double(), both.tree.chosen(both.logp))
    torch.testing.assert_close(out.entropy.double(), both.node_entropy[both.tree.node])
    assert out.value.tolist() == [1, 2, 1, 2, 1, 3, 1, 3]
    plain = policy(x)
    assert plain.entropy is plain.value is None


def test_its_gradient_of_the_expected_return_is_the_exact_one(both):
    policy, x = TabularPolicy(both.logits), both.tree.leaves
    weight = x.to_tokens(trajectory=both.leaf_probability * x.returns)
    (policy(x).logp * weight).sum().backward()
    torch.testing.assert_close(policy.logits.grad.double(), both.gradient, atol=1e-7, rtol=0)


def test_a_frozen_copy_stays_where_it_was(both):
    policy = TabularPolicy(both.logits)
    frozen = policy.frozen()
    with torch.no_grad():
        policy.logits.add_(1.0)
    assert torch.equal(frozen.logits, both.logits)
    assert not frozen(both.tree.leaves).logp.requires_grad


def test_the_critic_has_parameters_of_its_own(both):
    policy = TabularPolicy(both.logits)
    assert [p.shape for p in policy.policy_parameters()] == [(3, 2)]
    assert [p.shape for p in policy.critic_parameters()] == [(3,), (3,)]


def test_a_table_has_no_hidden_matrix(both):
    assert list(TabularPolicy(both.logits).hidden_matrices()) == []


def test_inputs_follow_their_trajectories(arms):
    x = draw(arms.tree.leaves, arms.leaf_probability, 4, 2, generator(0))
    kept = x.inputs.select(torch.tensor([5, 0]))
    assert kept.node.tolist() == [int(x.inputs.node[5]), int(x.inputs.node[0])] and kept.lengths.tolist() == [1, 1]
    both_halves = kept.concatenate([kept])
    assert both_halves.node.tolist() == kept.node.tolist() * 2
    with pytest.raises(ValueError, match="NodeInputs"):
        TabularPolicy(torch.zeros(2, 2))(x.replace(inputs=None))
    assert isinstance(x.inputs.to("cpu"), NodeInputs)


def test_nodes_that_look_alike_share_their_logits():
    tree = Tree.enumerate(find_game("windy"))
    policy = SharedPolicy.uniform(tree.states, 2, lambda state: state[1])
    places = {state[1] for state in tree.states}
    assert policy.logits.shape == (len(places), 2)
    with torch.no_grad():
        policy.logits.copy_(torch.randn(policy.logits.shape, generator=generator(1000)))
    table, by_place = policy.table(), {}
    for node, state in enumerate(tree.states):
        assert torch.equal(by_place.setdefault(state[1], table[node]), table[node])
    out, exact = policy(tree.leaves, also=("entropy",)), Exact(tree, table)
    torch.testing.assert_close(out.logp.double(), tree.chosen(exact.logp), check_dtype=False)
    torch.testing.assert_close(out.entropy.double(), exact.node_entropy[tree.node], check_dtype=False)
    out.logp.sum().backward()
    assert policy.logits.grad.shape == policy.logits.shape and list(policy.policy_parameters()) == [policy.logits]
    assert policy.arguments() == {"nodes": tree.nodes, "kinds": len(places), "vocabulary": 2}
    with pytest.raises(ValueError, match="reads NodeInputs"):
        policy(tree.leaves.replace(inputs=None))
