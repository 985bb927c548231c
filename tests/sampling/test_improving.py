"""A buffer of histories: what enters, what stays, how it is drawn from, and that a resumed run knows it."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.sampling import History, Improving, Rollouts, Shuffled
from stratagem.seeding import generator


def batch(starts: list[int], returns: list[list[float]], tokens: int = 2, base: int = 0) -> Experience:
    """Groups of single attempts; every attempt has tokens and a seed of its own."""
    sizes = [len(group) for group in returns]
    count = sum(sizes)
    return Experience.from_lengths(
        [tokens] * count,
        [1] * count,
        sizes,
        action=torch.arange(count * tokens) + base,
        reward=[value for group in returns for value in group],
        seed=torch.arange(count).flip(0) + base,
        task_id=torch.tensor(starts),
    )


def noted(sampler: Improving, starts: list[int], returns: list[list[float]], step: int = 0, base: int = 0) -> Improving:
    sampler.note(batch(starts, returns, base=base), step)
    return sampler


def scores(sampler: Improving) -> list[float]:
    return [one.variance for one in sampler.histories]


def test_a_history_is_worth_the_variance_of_its_group_and_one_of_equal_returns_is_not_kept():
    sampler = noted(Improving(), [0, 1, 2], [[1, 0, 1, 0], [1, 1, 1, 0], [1, 1, 1, 1]])
    assert [(one.problem, one.depth, one.variance) for one in sampler.histories] == [(0, 1, 0.25), (1, 1, 0.1875)]
    # Seeds fall: the last rollout of a group has the smallest, so it is gone on with.
    assert [one.attempts for one in sampler.histories] == [((6, 7),), ((14, 15),)]
    assert [one.number for one in sampler.histories] == [0, 1]


def test_equal_returns_have_no_variance_whatever_rounding_says():
    sampler = noted(Improving(), [0], [[0.1] * 3])
    assert sampler.histories == [] and 0.1 + 0.1 + 0.1 != 0.3


def test_a_full_buffer_keeps_the_largest_variances():
    groups = [[0.0, 2 * score**0.5] for score in (0.1, 0.25, 0.2)]
    assert scores(noted(Improving(capacity=2, per_problem=1.0), [0, 1, 2], groups)) == pytest.approx([0.25, 0.2])


def test_of_equal_variances_the_newer_stays():
    sampler = noted(Improving(capacity=1), [0, 1], [[0, 1], [1, 0]])
    assert [one.problem for one in sampler.histories] == [1]
    noted(sampler, [2], [[0, 1]], step=1, base=50)
    assert [one.problem for one in sampler.histories] == [2]


def test_no_problem_fills_the_buffer():
    sampler = noted(Improving(capacity=8), [0, 0, 0, 1], [[0, 1], [0, 2], [0, 3], [0, 1]])
    assert [(one.problem, one.variance) for one in sampler.histories] == [(0, 1.0), (0, 2.25), (1, 0.25)]
    # A share below one history is one.
    alone = noted(Improving(capacity=2, per_problem=0.01), [0, 0], [[0, 1], [0, 2]])
    assert scores(alone) == [1.0]


def test_a_history_that_is_replayed_is_measured_anew_and_extended():
    sampler = noted(Improving(), [4], [[0, 1]])
    noted(sampler, [-1], [[0, 3]], step=5, base=100)
    parent, child = sampler.histories
    assert (parent.variance, parent.step, parent.depth) == (2.25, 5, 1)
    assert (child.problem, child.depth, child.variance) == (4, 2, 2.25)
    assert child.attempts == (*parent.attempts, (102, 103))


def test_a_history_whose_groups_are_equal_twice_in_a_row_is_dropped():
    sampler = noted(Improving(), [4], [[0, 1]])
    assert scores(noted(sampler, [-1], [[1, 1]])) == [0.0]
    assert scores(noted(sampler, [-1], [[0, 1]], base=9))[0] == 0.25
    noted(sampler, [-1], [[1, 1]])
    assert [one.number for one in noted(sampler, [-1], [[0, 0]]).histories] == [1]


def test_depth_grows_by_one_attempt_a_round_without_a_bound_and_only_the_last_are_kept():
    sampler = noted(Improving(remembered=2), [0], [[0, 1]])
    for step in range(1, 30):
        newest = max(one.number for one in sampler.histories)
        noted(sampler, [-newest - 1], [[0, 1]], step, base=1000 * step)
    depths = [one.depth for one in sampler.histories]
    assert depths == list(range(1, 31))
    assert {len(one.attempts) for one in sampler.histories[1:]} == {2}
    assert sampler.figures(torch.tensor([0, -1]))["improving/max_depth"] == 30
    assert sampler.figures(torch.tensor([0, -1]))["improving/share"] == 0.5


def test_equal_histories_are_one():
    sampler = noted(Improving(), [3, 3, 4], [[0, 1], [0, 1], [0, 1]])
    assert len(sampler.histories) == 3
    again = Improving()
    x = batch([3, 3, 4], [[0, 1]] * 3)
    again.note(x.replace(action=torch.tensor([7, 8] * 6)), 0)
    assert [(one.problem, one.attempts) for one in again.histories] == [(3, ((7, 8),)), (4, ((7, 8),))]


def test_returns_that_are_no_number_do_not_count():
    nan, inf = float("nan"), float("inf")
    sampler = noted(Improving(), [0, 1], [[0, 1, nan], [inf, nan, -inf]])
    assert [(one.problem, one.variance, one.attempts) for one in sampler.histories] == [(0, 0.25, ((2, 3),))]


def test_odds_are_the_variance_and_the_floor():
    sampler = Improving(per_problem=1.0)
    flat = [History(n, n, ((n,),), 1, 0.0 if n else 0.25) for n in range(10)]
    odds = sampler.odds(flat)
    assert float(odds[0]) == pytest.approx(0.251 / 0.26, abs=1e-12) and round(float(odds[0]), 4) == 0.9654
    ranks = Improving(priority="rank").odds(flat[:1] + flat[2:4])
    torch.testing.assert_close(ranks, torch.tensor([6.0, 2.0, 3.0]).double() / 11)
    assert Improving(priority="none").odds(flat).unique().tolist() == pytest.approx([0.1])


def test_groups_begin_at_histories_as_often_as_asked_and_by_their_odds():
    sampler = noted(Improving(share=0.25), [0, 1], [[0, 2], [0, 1]])
    starts = [group.start for group in sampler.planned(range(4000), lambda: generator(1000, "choice"))]
    counts = Counter(min(start, 0) for start in starts)
    assert abs(counts[-1] + counts[-2] - 1000) < 5 * (4000 * 0.25 * 0.75) ** 0.5
    assert abs(counts[-1] / (counts[-1] + counts[-2]) - 1.001 / 1.252) < 0.07
    # Elsewhere the order is that of plain rollouts.
    assert all(start == number for number, start in enumerate(starts) if start >= 0)


def test_without_a_share_or_histories_it_plans_what_rollouts_plan_and_asks_for_no_chance():
    def never() -> torch.Generator:
        raise AssertionError("nothing is left to chance")

    plain = Rollouts(start_states=(5, 6)).planned(range(4), never)
    assert Improving(start_states=(5, 6)).planned(range(4), never) == plain
    still = noted(Improving(share=0.0, start_states=(5, 6)), [0], [[0, 1]])
    assert still.planned(range(4), never) == plain and still.histories == []


def test_the_control_without_an_order_keeps_the_newest_whatever_came_of_them():
    sampler = noted(Improving(priority="none", capacity=2, per_problem=1.0), [0, 1, 2], [[0, 9], [1, 1], [0, 1]])
    assert [one.problem for one in sampler.histories] == [1, 2]


def test_histories_that_were_not_measured_for_long_are_dropped():
    sampler = noted(Improving(max_age=3), [0], [[0, 1]], step=2)
    assert any(group.start < 0 for group in sampler.planned(range(20), lambda: generator(1000), 5))
    assert all(group.start >= 0 for group in sampler.planned(range(20), lambda: generator(1000), 6))
    assert [one.problem for one in noted(sampler, [1], [[0, 1]], step=6).histories] == [1]


def test_the_buffer_is_memory_that_outlives_a_replacement_and_a_checkpoint():
    sampler = noted(Improving(), [0, 1], [[0, 1], [0, 2]])
    noted(sampler, [-2], [[0, 5]], step=3, base=40)
    fresh = Improving()
    fresh.load_state_dict({name: value.clone() for name, value in sampler.state_dict().items()})
    assert fresh.histories == sampler.histories == sampler.replace(share=0.9).histories
    for one in (sampler, fresh):
        noted(one, [-3, 7], [[0, 1], [0, 1]], step=4, base=80)
    assert fresh.histories == sampler.histories and len(fresh.histories) == 5
    assert sorted(sampler.begun()) == [-5, -4, -3, -2, -1]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"share": 1.5}, "share"),
        ({"capacity": 0}, "capacity"),
        ({"floor": 0.0}, "floor"),
        ({"per_problem": 0.0}, "per_problem"),
        ({"remembered": 0}, "remembered"),
        ({"priority": "best"}, "priority"),
        ({"curriculum": Shuffled()}, "curriculum = shuffled: must be None"),
        ({"demonstrations": 1}, "demonstrations = 1: must be 0"),
    ],
)
def test_wrong_settings_are_named(values, message):
    with pytest.raises(InputError, match=message):
        Improving(**values)
