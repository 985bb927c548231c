from __future__ import annotations

import pytest
import torch

from stratagem.control import ControlInputs


def inputs(*lengths: int) -> ControlInputs:
    turns = sum(lengths)
    return ControlInputs(torch.arange(turns, dtype=torch.float32).unsqueeze(1), torch.tensor(lengths))


def test_selects_whole_trajectories_in_the_given_order() -> None:
    chosen = inputs(2, 1, 3).select(torch.tensor([2, 0]))
    assert chosen.observation.squeeze(1).tolist() == [3, 4, 5, 0, 1]
    assert chosen.lengths.tolist() == [3, 2]


def test_concatenates_one_after_the_other() -> None:
    joined = inputs(2).concatenate([inputs(1, 1)])
    assert joined.observation.squeeze(1).tolist() == [0, 1, 0, 1]
    assert joined.lengths.tolist() == [2, 1, 1]


def test_by_turn_keeps_the_observations_and_makes_every_turn_a_trajectory() -> None:
    apart = inputs(2, 1).by_turn()
    assert apart.observation.squeeze(1).tolist() == [0, 1, 2]
    assert apart.lengths.tolist() == [1, 1, 1]


def test_single_turns_are_selected_one_by_one() -> None:
    chosen = inputs(2, 1).by_turn().select(torch.tensor([2, 0]))
    assert chosen.observation.squeeze(1).tolist() == [2, 0]
    assert chosen.lengths.tolist() == [1, 1]


def test_a_trajectory_without_turns_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one turn"):
        ControlInputs(torch.zeros(2, 1), torch.tensor([2, 0]))


def test_lengths_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(ValueError, match="lengths add up to 3, there are 2 observations"):
        ControlInputs(torch.zeros(2, 1), torch.tensor([3]))
