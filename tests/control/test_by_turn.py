from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stratagem.control import ControlInputs
from stratagem.experience import Experience


def experience(turns: list[int], groups: list[int]) -> Experience:
    rows = sum(turns)
    return Experience.from_lengths(
        [1] * rows,
        turns,
        groups,
        behavior_logp=-torch.arange(rows, dtype=torch.float32),
        turn_reward=torch.arange(rows, dtype=torch.float32),
        advantage=10.0 * torch.arange(rows),
        final_value=torch.arange(len(turns), dtype=torch.float32),
        truncated=[index % 2 == 0 for index in range(len(turns))],
        inputs=ControlInputs(torch.arange(rows, dtype=torch.float32).unsqueeze(1), torch.tensor(turns)),
    )


def test_every_turn_becomes_a_trajectory_of_its_group_and_keeps_what_was_known_of_the_old_one() -> None:
    x = experience([2, 1, 3], [2, 1]).by_turn()
    assert x.trajectories == x.turns == x.tokens == 6
    assert x.group_of_trajectory.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert x.final_value is not None and x.final_value.tolist() == [0, 0, 1, 2, 2, 2]
    assert x.truncated is not None and x.truncated.tolist() == [True, True, False, True, True, True]
    assert x.trajectory_of_token.labels.tolist() == [0, 1, 2, 3, 4, 5]


def test_a_selection_then_mixes_turns_of_different_trajectories() -> None:
    x = experience([2, 1, 3], [2, 1]).by_turn().select(torch.tensor([5, 0, 2]))
    assert x.advantage is not None and x.advantage.tolist() == [50, 0, 20]
    assert isinstance(x.inputs, ControlInputs) and x.inputs.observation.squeeze(1).tolist() == [5, 0, 2]
    assert x.final_value is not None and x.final_value.tolist() == [2, 0, 1]
    assert x.group_of_trajectory.labels.tolist() == [1, 0, 0]


@given(st.lists(st.integers(1, 4), min_size=1, max_size=6))
def test_rows_per_token_and_turn_do_not_move(turns: list[int]) -> None:
    x = experience(turns, [len(turns)])
    apart = x.by_turn()
    for name in ("behavior_logp", "turn_reward", "advantage"):
        assert torch.equal(getattr(apart, name), getattr(x, name))
    assert apart.returns.tolist() == x.turn_rewards().tolist()


@dataclass(frozen=True)
class Remembering:
    lengths: torch.Tensor


def test_inputs_of_a_policy_with_memory_cannot_be_taken_apart() -> None:
    x = experience([2], [1]).replace(inputs=Remembering(torch.tensor([2])))
    with pytest.raises(ValueError, match="Remembering cannot be taken apart by turn; shuffle trajectories instead"):
        x.by_turn()
