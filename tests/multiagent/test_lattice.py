"""The lattice dilemma: payoffs worked by hand, its symmetry, and groups of cooperators."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stratagem.errors import InputError
from stratagem.multiagent.lattice import BITS, COOPERATING, Lattice, payoffs


def rewards(actions, temptation=0.2):
    lattice = Lattice(int(actions.shape[-1] ** 0.5))
    return lattice.rewards(actions.view(1, -1), temptation)[0]


def test_neighbours_are_up_right_down_left_on_a_torus():
    assert Lattice(30).neighbours[0].tolist() == [29 * 30, 1, 30, 29]
    assert Lattice(30).neighbours[899].tolist() == [28 * 30 + 29, 29 * 30, 29, 29 * 30 + 28]


def test_every_agent_is_the_neighbour_of_four():
    counts = Lattice(5).neighbours.flatten().bincount()
    assert counts.tolist() == [4] * 25


def test_where_all_cooperate_all_earn_one_and_where_all_defect_nothing():
    assert torch.equal(rewards(torch.zeros(25, dtype=torch.int64)), torch.ones(25))
    assert torch.equal(rewards(torch.ones(25, dtype=torch.int64)), torch.zeros(25))


def test_one_defector_gains_the_temptation_and_its_neighbours_lose_by_it():
    actions = torch.zeros(25, dtype=torch.int64)
    actions[12] = 1
    earned = rewards(actions)
    expected = torch.ones(25)
    expected[12] = 1.2
    expected[[7, 13, 17, 11]] = 0.7
    torch.testing.assert_close(earned, expected)


def test_a_checkerboard_pays_defectors_what_it_takes():
    row, column = torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")
    defects = ((row + column) % 2).flatten()
    torch.testing.assert_close(rewards(defects), torch.where(defects == 1, 1.2, -0.2))


@given(st.integers(3, 6), st.integers(0, 2**32 - 1), st.integers(0, 5), st.integers(0, 5))
def test_rewards_move_with_the_lattice(side, seed, down, right):
    actions = torch.randint(2, (side, side), generator=torch.Generator().manual_seed(seed))
    moved = actions.roll((down, right), (0, 1)).flatten()
    expected = rewards(actions.flatten()).view(side, side).roll((down, right), (0, 1)).flatten()
    assert torch.equal(rewards(moved), expected)


@given(st.integers(3, 5), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_rewards_are_the_mean_of_four_games_of_two(side, seed, temptation):
    lattice = Lattice(side)
    actions = torch.randint(2, (lattice.agents,), generator=torch.Generator().manual_seed(seed))
    game = torch.tensor([[1.0, -temptation], [1.0 + temptation, 0.0]])
    expected = game[actions[:, None], actions[lattice.neighbours]].mean(-1)
    torch.testing.assert_close(rewards(actions, temptation), expected)


def test_an_observation_holds_four_neighbours_and_oneself():
    lattice = Lattice(4)
    actions = torch.randint(2, (3, 16), generator=torch.Generator().manual_seed(0))
    seen = BITS[lattice.observations(actions)]
    assert torch.equal(seen[..., :4], actions[:, lattice.neighbours])
    assert torch.equal(seen[..., 4], actions)
    assert COOPERATING[0b01111] == 0 and COOPERATING[0b10000] == 4


def test_worlds_may_have_temptations_of_their_own():
    tempted = payoffs([0.1, 0.4], 2)
    torch.testing.assert_close(tempted[:, 16], torch.tensor([1.1, 1.4]))
    assert torch.equal(payoffs(0.3, 2)[0], payoffs([0.3, 0.3], 2)[1])


def test_clusters_go_around_the_edge_of_the_torus():
    actions = np.ones((5, 5), dtype=np.int64)
    actions[0, 0] = actions[0, 4] = actions[4, 0] = actions[2, 2] = 0
    assert Lattice(5).clusters(actions.ravel()).tolist() == [3, 1]
    assert Lattice(5).clusters(np.ones(25, dtype=np.int64)).tolist() == []
    assert Lattice(5).clusters(np.zeros(25, dtype=np.int64)).tolist() == [25]


def test_a_lattice_whose_neighbours_coincide_is_refused():
    with pytest.raises(InputError, match=r"lattice: side=2 is not allowed"):
        Lattice(2)


@pytest.mark.parametrize("temptation", [-0.1, float("nan"), float("inf"), [0.1, -1.0]])
def test_a_temptation_that_is_none_is_refused(temptation):
    with pytest.raises(InputError, match="must be finite and at least 0"):
        payoffs(temptation, 2)


def test_as_many_temptations_as_worlds():
    with pytest.raises(InputError, match="3 values for 2 worlds"):
        payoffs([0.1, 0.2, 0.3], 2)
