"""Value learners on a lattice: what is shared, targets, ties, and tables against plain Q-learning."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from stratagem.errors import InputError
from stratagem.multiagent.lattice import BITS, OBSERVATIONS, Lattice, payoffs
from stratagem.multiagent.shared_learners import NetworkLearner, TableLearner

LATTICE = Lattice(3)
KINDS = {
    "shared": NetworkLearner(),
    "identified": NetworkLearner(identified=True),
    "groups": NetworkLearner(groups=3),
    "identified groups": NetworkLearner(groups=3, identified=True),
    "own": NetworkLearner(groups=None),
}


def one_step(learning, worlds=2, seed=0, lattice=LATTICE):
    """A random step of all agents, learned from."""
    draw = torch.Generator().manual_seed(seed)
    before, actions = torch.randint(2, (2, worlds, lattice.agents), generator=draw)
    seen, following = lattice.observations(before), lattice.observations(actions)
    rewards = payoffs(0.2, worlds).gather(1, following)
    learning.learn(seen, actions, rewards, following)
    return seen, actions, rewards, following


def by_hand(weights, network, inputs):
    """Output of one of the networks, as torch.nn has it."""
    first, first_bias, second, second_bias = (weight[network].detach() for weight in weights)
    return (inputs @ first + first_bias[0]).relu() @ second + second_bias[0]


@pytest.mark.parametrize("kind", KINDS)
def test_every_agent_is_answered_by_the_network_of_its_group(kind):
    how = KINDS[kind]
    learning = how.start(LATTICE, 2, 0)
    for seed in range(8):
        one_step(learning, seed=seed)
    seen = torch.randint(OBSERVATIONS, (2, 9), generator=torch.Generator().manual_seed(9))
    said = learning.values(seen)
    for world in range(2):
        for agent in range(9):
            inputs = BITS[seen[world, agent]].float()
            if how.identified:
                inputs = torch.cat([inputs, torch.eye(9)[agent]])
            network = world * learning.groups + int(learning.group[agent])
            torch.testing.assert_close(said[world, agent], by_hand(learning.weights, network, inputs))


@pytest.mark.parametrize("kind", KINDS)
def test_groups_are_equally_large(kind):
    learning = KINDS[kind].start(LATTICE, 1, 3)
    assert set(learning.group.bincount().tolist()) == {learning.members}
    assert learning.members * learning.groups == 9


@pytest.mark.parametrize("kind", KINDS)
def test_networks_learn_from_their_own_agents_alone(kind):
    learning = KINDS[kind].start(LATTICE, 2, 1)
    for seed in range(5):
        one_step(learning, seed=seed)
    places = learning.drawn(200)
    owners = learning.group[places % 9]
    assert torch.equal(owners, torch.arange(learning.groups).repeat(2)[:, None].expand(-1, 200))
    assert len(places.unique()) == 45


@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_those_of_double_q_learning_over_n_steps(kind):
    learning = KINDS[kind].start(LATTICE, 2, 2)
    steps = [one_step(learning, seed=seed) for seed in range(7)]
    learning.target = [weight.detach() + 0.1 for weight in learning.weights]
    places = learning.drawn(64)
    found = learning.losses(places)
    for network in range(0, learning.networks, 2):
        world = network // learning.groups
        for place, loss in zip(places[network, :10].tolist(), found[network, :10].tolist(), strict=True):
            step, agent = divmod(place, 9)
            length = 5 if step + 5 <= 7 else 1
            returns = sum(0.99**k * float(steps[step + k][2][world, agent]) for k in range(length))

            def inputs(seen, world=world, agent=agent):
                bits = BITS[seen[world, agent]].float()
                return torch.cat([bits, torch.eye(9)[agent]]) if learning.how.identified else bits

            later = inputs(steps[step + length - 1][3])
            best = int(by_hand(learning.weights, network, later).argmax())
            target = returns + 0.99**length * float(by_hand(learning.target, network, later)[best])
            said = by_hand(learning.weights, network, inputs(steps[step][0]))[int(steps[step][1][world, agent])]
            error = abs(float(said) - target)
            assert loss == pytest.approx(error**2 / 2 if error < 1 else error - 0.5, abs=1e-5)


@pytest.mark.parametrize("kind", ["shared", "own"])
def test_an_update_is_a_clipped_step_of_adamw(kind):
    how = NetworkLearner(groups=KINDS[kind].groups, batch=8, every=1)
    learning, twin = how.start(LATTICE, 1, 4), how.start(LATTICE, 1, 4)
    # What the twin learns from is put into its memory by hand, so that its update can be done by torch's own means.
    twin.memory.add(*one_step(learning, worlds=1))
    losses = twin.losses(twin.drawn(8))
    for network in range(twin.networks):
        weights = [weight[network].detach().clone().requires_grad_() for weight in twin.weights]
        gradients = torch.autograd.grad(losses[network].mean(), twin.weights, retain_graph=True)
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient[network]
        torch.nn.utils.clip_grad_norm_(weights, 0.5)
        torch.optim.AdamW(weights, lr=1e-4, weight_decay=1e-4).step()
        for weight, moved in zip(weights, learning.weights, strict=True):
            torch.testing.assert_close(weight.detach(), moved[network].detach(), atol=1e-7, rtol=1e-5)


def test_updates_and_copies_come_when_they_should():
    learning = NetworkLearner(every=3, copied=6).start(LATTICE, 1, 0)
    begun = learning.weights[0].detach().clone()
    for step in range(1, 7):
        one_step(learning, worlds=1, seed=step)
        assert torch.equal(learning.weights[0], begun) == (step < 3)
        assert torch.equal(learning.target[0], begun) == (step < 6)
    assert torch.equal(learning.target[0], learning.weights[0])


def test_ties_are_broken_at_random_and_nothing_else_is():
    learning = NetworkLearner().start(LATTICE, 1, 0)
    chosen = learning.greedy(torch.tensor([[1.0, 1.0], [0.0, 2.0], [3.0, 0.0]]).repeat(2000, 1)).view(2000, 3)
    assert abs(chosen[:, 0].float().mean() - 0.5) < 0.05
    assert chosen[:, 1].eq(1).all() and chosen[:, 2].eq(0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_table_is_the_mean_over_agents(kind):
    learning = KINDS[kind].start(LATTICE, 2, 0)
    asked = torch.stack([learning.values(torch.full((2, 9), seen)).mean(1) for seen in range(OBSERVATIONS)], 1)
    torch.testing.assert_close(learning.table(), asked)


@pytest.mark.parametrize("kind", KINDS)
def test_interference_is_a_cosine(kind):
    learning = KINDS[kind].start(LATTICE, 2, 0)
    assert learning.interference().isnan().all()
    for seed in range(30):
        one_step(learning, seed=seed)
    found = learning.interference()
    assert found.shape == (2,) and (found.abs() <= 1 + 1e-6).all()


def test_interference_of_neighbourhoods_with_opposite_errors_is_negative():
    learning = NetworkLearner(steps=1, discount=0.0, batch=500).start(Lattice(3), 1, 0)
    seen = torch.tensor([[0, 0, 0, 0, 15, 15, 15, 15, 15]])
    rewards = torch.where(seen == 0, 5.0, -5.0)
    learning.learn(seen, torch.zeros_like(seen), rewards, seen)
    assert float(learning.interference()) < -0.5


@pytest.mark.parametrize("kind", KINDS)
def test_seeds_decide_everything(kind):
    def weights(seed):
        learning = KINDS[kind].start(LATTICE, 1, seed)
        for step in range(8):
            one_step(learning, worlds=1, seed=step)
        return learning.weights[2].detach()

    assert torch.equal(weights(1), weights(1)) and not torch.equal(weights(1), weights(2))


# ---- tables ---------------------------------------------------------------------------------------------------------


def test_own_tables_are_plain_q_learning():
    learning, tables = TableLearner(rate=0.1, discount=0.9).start(LATTICE, 2, 0), np.zeros((2, 9, 32, 2))
    for seed in range(6):
        seen, actions, rewards, following = (one.numpy() for one in one_step(learning, seed=seed))
        for world in range(2):
            for agent in range(9):
                own = tables[world, agent]
                target = rewards[world, agent] + 0.9 * own[following[world, agent]].max()
                cell = seen[world, agent], actions[world, agent]
                own[cell] += 0.1 * (target - own[cell])
    np.testing.assert_allclose(learning.tables.numpy(), tables, atol=1e-6)


def test_a_shared_table_moves_as_if_agents_with_one_target_took_turns():
    learning = TableLearner(shared=True, rate=0.1, discount=0.0).start(LATTICE, 1, 0)
    zero = torch.zeros(1, 9, dtype=torch.int64)
    learning.learn(zero, zero, torch.ones(1, 9), zero)
    assert float(learning.tables[0, 0, 0, 0]) == pytest.approx(1 - 0.9**9, abs=1e-6)
    assert float(learning.tables.abs().sum()) == pytest.approx(1 - 0.9**9, abs=1e-6)


def test_a_shared_table_may_move_once_a_step_to_the_mean():
    learning = TableLearner(shared=True, rate=0.1, discount=0.0, updates="mean").start(LATTICE, 1, 0)
    zero = torch.zeros(1, 9, dtype=torch.int64)
    learning.learn(zero, zero, torch.arange(9.0)[None], zero)
    assert float(learning.tables[0, 0, 0, 0]) == pytest.approx(0.4)


def test_tables_know_no_interference():
    assert all(math.isnan(one) for one in TableLearner().start(LATTICE, 2, 0).interference().tolist())


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: NetworkLearner(groups=2).start(LATTICE, 1, 0), "9 agents cannot be dealt into 2 equal groups"),
        (lambda: NetworkLearner(groups=0), "network learner: groups=0"),
        (lambda: NetworkLearner(discount=1.5), "network learner: discount=1.5"),
        (lambda: NetworkLearner(batch=0), "network learner: batch=0"),
        (lambda: TableLearner(rate=0.0), "table learner: rate=0.0"),
        (lambda: TableLearner(updates="all"), "table learner: updates='all'"),
    ],
)
def test_wrong_values_are_refused(make, expected):
    with pytest.raises(InputError, match=expected):
        make()
