"""Win rates as rewards: numbers by hand, what adds up to nothing, and where it is paid."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.preferences import BradleyTerry, Noisy
from stratagem.preferences.measures import minimax_winner, win_rates
from stratagem.preferences.oracles import table
from stratagem.rewards import WinRateReward

WINS = torch.tensor(
    [[0.5, 0.8, 0.3, 0.9], [0.2, 0.5, 0.7, 0.9], [0.7, 0.3, 0.5, 0.9], [0.1, 0.1, 0.1, 0.5]], dtype=torch.float64
)


def group(*returns: float, turns: int = 1, sizes: tuple[int, ...] = ()) -> Experience:
    count = len(returns)
    return Experience.from_lengths(
        [1] * (count * turns),
        [turns] * count,
        list(sizes) or [count],
        reward=torch.tensor(returns, dtype=torch.float64),
        answer=torch.arange(count),
    )


def test_four_options_worked_by_hand():
    oracle = table(range(4), WINS)
    unit = WinRateReward(oracle, "unit")(group(0, 0, 0, 0)).returns
    assert unit.tolist() == pytest.approx([2 / 3, 0.6, 1.9 / 3, 0.1])
    signed = WinRateReward(oracle)(group(0, 0, 0, 0)).returns
    assert signed.tolist() == pytest.approx([1 / 3, 0.2, 0.8 / 3, -0.8])


def test_the_winner_of_these_options_by_hand():
    winner = minimax_winner(WINS)
    assert winner.tolist() == pytest.approx([2 / 7, 2 / 7, 3 / 7, 0])
    assert (1 - win_rates(WINS, winner)).tolist() == pytest.approx([0.5, 0.5, 0.5, 0.9])


@given(st.lists(st.floats(-3, 3), min_size=2, max_size=8), st.floats(0, 0.4))
def test_rewards_of_a_group_add_up_to_nothing_and_noise_scales_them(returns: list[float], flip: float):
    x = group(*returns)
    plain, noised = (WinRateReward(oracle)(x).returns for oracle in (BradleyTerry(), Noisy(BradleyTerry(), flip)))
    assert float(plain.sum()) == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(noised, (1 - 2 * flip) * plain)
    unit = WinRateReward(BradleyTerry(), "unit")(x).returns
    assert float(unit.sum()) == pytest.approx(len(returns) / 2)
    order = torch.tensor(returns).argsort(stable=True)
    assert bool((plain[order].diff() >= -1e-9).all())


def test_what_the_task_paid_is_noted_and_pays_nothing():
    x = WinRateReward()(group(3.0, 1.0))
    assert x.reward_names == ("win_rate", "reward") and x.reward_weights == (1.0, 0.0)
    assert x.reward[:, 1].tolist() == [3.0, 1.0] and x.turn_reward is None


def test_it_may_be_paid_turn_by_turn():
    x = WinRateReward(BradleyTerry(0.0), over="turns")(group(1.0, 0.0, turns=4))
    assert x.turn_reward.tolist() == [0.25] * 4 + [-0.25] * 4
    torch.testing.assert_close(x.trajectory_of_turn.sum(x.turn_reward), x.returns)


def test_ties_are_worth_nothing_and_so_is_one_that_lost_all_others():
    assert WinRateReward(BradleyTerry(0.0))(group(1.0, 1.0, 1.0)).returns.tolist() == [0, 0, 0]
    assert WinRateReward(BradleyTerry(0.0))(group(5.0, 1.0, 0.0, sizes=(1, 2))).returns.tolist() == [0, 1, -1]
    with pytest.raises(InputError, match=r"sampler\.group_size must be at least 2"):
        WinRateReward()(group(1.0, 0.0, sizes=(1, 1)))
