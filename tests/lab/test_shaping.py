"""Shaping by a potential."""

from __future__ import annotations

import pytest
import torch

from stratagem.errors import InputError
from stratagem.lab import TabularMDP, best_actions, keeps_best_actions, potential_shaped


def chain() -> TabularMDP:
    """Four states in a row: action 1 goes on, 0 stays; going on from the last one pays 1 and ends."""
    transition = torch.zeros(4, 2, 4)
    for state in range(4):
        transition[state, 0, state] = 1
        if state < 3:
            transition[state, 1, state + 1] = 1
    reward = torch.zeros(4, 2)
    reward[3, 1] = 1
    return TabularMDP(transition, reward, 0.9)


@pytest.mark.parametrize("seed", range(5))
def test_any_potential_keeps_the_best_actions_of_a_chain(seed):
    potential = 3 * torch.randn(4, generator=torch.Generator().manual_seed(seed))
    shaped = potential_shaped(chain(), potential)
    assert not torch.equal(shaped.reward, chain().reward)
    assert keeps_best_actions(chain(), shaped)


def test_a_bonus_that_is_no_potential_changes_them():
    mdp = chain()
    bonus = mdp.reward.clone()
    bonus[1, 0] += 0.2
    assert not keeps_best_actions(mdp, TabularMDP(mdp.transition, bonus, mdp.discount))
    assert best_actions(mdp)[:, 1].all() and not best_actions(mdp)[:, 0].any()


def test_values_are_lower_by_the_potential():
    mdp, potential = TabularMDP.random(3), torch.arange(5.0)
    shaped = potential_shaped(mdp, potential)
    expected = mdp.optimal_values() - potential.double().unsqueeze(1)
    torch.testing.assert_close(shaped.optimal_values(), expected)
    assert keeps_best_actions(mdp, shaped)


@pytest.mark.parametrize("potential", [torch.zeros(3), torch.zeros(4, 1), torch.full((4,), float("nan"))])
def test_a_potential_is_one_finite_number_per_state(potential):
    with pytest.raises(InputError, match=r"^potential of shape .*: must be 4 finite numbers$"):
        potential_shaped(chain(), potential)
