"""The ring buffer: who an entry belongs to, which sequences are whole, and returns worked by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stratagem.multiagent.stride_replay import StrideReplay

AGENTS, SWEEPS = 3, 7


def filled(steps, reward=1.0, sweeps=SWEEPS):
    """A memory whose observations are ``10 step + agent``."""
    memory = StrideReplay(1, AGENTS, sweeps)
    for step in range(steps):
        seen = 10 * step + torch.arange(AGENTS)[None]
        memory.add(seen, torch.zeros_like(seen), torch.full((1, AGENTS), reward), seen + 10)
    return memory


def test_entries_a_stride_apart_belong_to_one_agent():
    memory = filled(11)
    agents = memory.observations[0] % 10
    assert torch.equal(agents[:-AGENTS], agents[AGENTS:])
    assert agents.tolist() == [0, 1, 2] * SWEEPS


@given(st.integers(1, 30), st.integers(1, 6))
def test_a_sequence_is_whole_where_its_time_stamps_are_consecutive(steps, length):
    memory = filled(steps)
    first = torch.arange(memory.filled * AGENTS)
    places, whole = memory.sequences(first, length)
    stamps = memory.stamps[places]
    in_order = (stamps == stamps[:, :1] + torch.arange(length)).all(-1)
    assert torch.equal(whole, in_order)
    assert (places % AGENTS == first[:, None] % AGENTS).all()


def test_sequences_across_the_pen_are_rejected():
    memory = filled(SWEEPS + 2)
    newest = AGENTS  # the second sweep was written last, in step 8
    assert memory.stamps[newest] == 8
    assert memory.sequences(torch.tensor([newest]), 2)[1].tolist() == [False]
    assert memory.sequences(torch.tensor([0]), 2)[1].tolist() == [True]
    assert memory.sequences(torch.tensor([2 * AGENTS]), SWEEPS)[1].tolist() == [True]
    assert memory.sequences(torch.tensor([0]), 3)[1].tolist() == [False]


def test_what_was_never_written_is_no_sequence():
    assert filled(2).sequences(torch.tensor([5, 6]), 1)[1].tolist() == [True, False]


def test_five_rewards_of_one_discounted_by_99_percent():
    returns, later, discount = filled(6).targets(torch.tensor([[1]]), 5, 0.99)
    assert float(returns) == pytest.approx(4.90099501, abs=1e-6)
    assert float(discount) == pytest.approx(0.99**5)
    assert int(later) == 51


def test_too_short_a_sequence_falls_back_to_one_step():
    for memory in (filled(4), filled(SWEEPS + 2)):
        newest = int(memory.stamps.argmax())
        returns, later, discount = memory.targets(torch.tensor([[newest]]), 5, 0.99)
        assert (float(returns), float(discount)) == (1.0, pytest.approx(0.99))
        assert int(later) == int(memory.following[0, newest])


def test_returns_of_different_rewards():
    memory = StrideReplay(2, 1, 4)
    for reward in (1.0, 10.0, 100.0):
        zero = torch.zeros(2, 1, dtype=torch.int64)
        memory.add(zero, zero, torch.tensor([[reward], [2 * reward]]), zero)
    returns, _, discounts = memory.targets(torch.tensor([[0, 2], [0, 2]]), 3, 0.5)
    assert returns.tolist() == [[1 + 5 + 25, 100], [2 + 10 + 50, 200]]
    assert discounts.tolist() == [[0.125, 0.5]] * 2
