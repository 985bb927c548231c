"""A batch taken apart for a checkpoint is put together again as it was."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from torch import Tensor

from stratagem.control.inputs import ControlInputs
from stratagem.experience import Experience
from stratagem.language.inputs import TokenInputs
from stratagem.training.batch_storage import pack, unpack


def batch() -> Experience:
    return Experience.from_lengths(
        tokens_per_turn=[2, 0, 1],
        turns_per_trajectory=[2, 1],
        trajectories_per_group=[1, 1],
        groups_per_domain=[1, 1],
        action=[5, 6, 7],
        behavior_logp=torch.tensor([-0.5, -1e-30, -2.0]),
        mask=[True, False, True],
        span=[2, -1, 0],
        turn_state=[2**63 - 1, -(2**63), 0],
        segment_start=[True, False, True],
        reward=[[1.0, 0.5], [0.0, 0.25]],
        reward_names=("reward", "style"),
        reward_weights=(1.0, 0.1),
        truncated=[True, False],
        task_id=[3, 9],
        inputs=TokenInputs(torch.arange(6), torch.tensor([4, 2]), torch.tensor([1, 2, 5])),
    )


def stored(x: Experience) -> Experience:
    tensors, plain = pack(x)
    return unpack(tensors, json.loads(json.dumps(plain)))


def test_every_field_comes_back_with_type_and_bits():
    x, again = batch(), stored(batch())
    for entry in dataclasses.fields(Experience):
        before, after = getattr(x, entry.name), getattr(again, entry.name)
        if isinstance(before, Tensor):
            assert before.dtype == after.dtype and torch.equal(before, after), entry.name
        elif hasattr(before, "labels"):
            assert torch.equal(before.labels, after.labels) and before.count == after.count, entry.name
    assert again.reward_names == ("reward", "style") and again.reward_weights == (1.0, 0.1)
    assert again.value is None and again.parent is None
    assert torch.equal(again.inputs.action_positions, x.inputs.action_positions)


def test_groups_in_any_order_and_single_turns_come_back():
    x = Experience.from_lengths([1] * 6, [1] * 6, [3, 3], reward=list(range(6)), inputs=None)
    x = x.select(torch.tensor([4, 0, 5, 1])).by_turn()
    again = stored(x)
    assert again.group_of_trajectory.labels.tolist() == x.group_of_trajectory.labels.tolist()
    assert torch.equal(again.returns, x.returns)


def test_inputs_of_control_come_back():
    x = Experience.from_lengths([1, 1], [2], [1], inputs=ControlInputs(torch.eye(2), torch.tensor([2])))
    assert torch.equal(stored(x).inputs.observation, torch.eye(2))


def test_no_module_is_imported_because_a_checkpoint_says_so(tmp_path, monkeypatch):
    (tmp_path / "malice.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    tensors, plain = pack(batch())
    with pytest.raises(KeyError):
        unpack(tensors, {**plain, "inputs": ["malice", "Inputs"]})


@pytest.mark.parametrize("named", [["os", "system"], ["stratagem.errors", "InputError"], ["stratagem.partition", "no"]])
def test_nothing_but_inputs_is_built_because_a_checkpoint_says_so(named):
    tensors, plain = pack(batch())
    with pytest.raises(ValueError, match="is no class of inputs"):
        unpack(tensors, {**plain, "inputs": named})
