"""Tasks that are tried before they are rolled out."""

from __future__ import annotations

import pytest
import torch

from stratagem.errors import InputError
from stratagem.prompts import Pool, Probed, PromptHistory
from stratagem.sampling import ProbedTasks, Rollouts
from stratagem.seeding import generator

RULE = ProbedTasks(easy=0.5, easy_share=0.5, margin=0.5, margin_share=0.1, trivial=0.5, trivial_share=0.1)


def _probed(agent: list[float], control: list[float] | None = None) -> Probed:
    agent_row = torch.tensor([agent], dtype=torch.float64)
    return Probed(agent_row, torch.zeros_like(agent_row) if control is None else torch.tensor([control]).double())


@pytest.mark.parametrize(
    ("agent", "control", "passed"),
    [
        ([1, 1, 0, 0, 0, 0, 0, 0, 0, 0], None, [True, True, True]),
        ([1] * 10, None, [False, True, True]),
        ([0] * 10, None, [True, False, True]),
        ([1, 1, 0, 0, 0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0, 0, 0], [True, False, False]),
        ([0.5] * 10, None, [True, False, True]),
        ([1, 1, 1, 1, 1, 0, 0, 0, 0, 0], None, [False, True, True]),
    ],
    ids=["accepted", "too easy", "no better", "trivial", "ties are no excess", "half is not below a half"],
)
def test_the_three_tests(agent, control, passed):
    assert RULE.tests(_probed(agent, control)).squeeze(1).tolist() == passed


def _pool(prompts: int, good: set[int], asked: list[int] | None = None) -> Pool:
    """Tasks of which the agent solves two trials in ten if they are good, and all otherwise."""

    def probe(number: torch.Tensor, episodes: int) -> Probed:
        if asked is not None:
            asked.extend([*number.tolist(), episodes])
        agent = torch.ones(len(number), episodes, dtype=torch.float64)
        agent[torch.tensor([one in good for one in number.tolist()]), 2:] = 0
        return Probed(agent, torch.zeros_like(agent))

    number = torch.arange(prompts)
    blank = PromptHistory.blank(number)
    return Pool(number, blank, blank, probe=probe)


def test_only_accepted_tasks_are_rolled_out_once_there_are_enough():
    asked: list[int] = []
    rule, pool = ProbedTasks(proposals=6, least=2, episodes=10, buffer=5), _pool(12, {1, 4, 5, 8, 10}, asked)
    for step in range(8):
        chosen = rule.choose(pool, 20, generator(step))
        if len(rule.accepted) >= 2:
            assert set(pool.number[chosen].tolist()) <= {1, 4, 5, 8, 10}
            assert rule.figures(pool)["filtered"] == 1
    assert asked.count(10) >= 8 and len(rule.accepted) == 5


def test_without_enough_of_them_tasks_are_drawn_at_random_and_that_is_said():
    rule, pool = ProbedTasks(proposals=4, least=1), _pool(50, set())
    chosen = rule.choose(pool, 200, generator(0))
    figures = rule.figures(pool)
    assert len(chosen.unique()) > 40
    assert figures["filtered"] == 0 and figures["accepted"] == 0 and figures["passed/not_easy"] == 0
    assert figures["passed/beats_control"] == 1 and figures["held"] == 0


def test_what_was_accepted_is_remembered_in_checkpoints_and_through_changes_of_thresholds():
    rule, pool = ProbedTasks(proposals=12, least=1), _pool(12, {3, 7})
    rule.choose(pool, 1, generator(0))
    assert set(rule.accepted.tolist()) == {3, 7}
    assert set(rule.replace(easy=0.3).accepted.tolist()) == {3, 7}
    again = Rollouts(curriculum=ProbedTasks())
    again.load_state_dict(Rollouts(curriculum=rule).state_dict())
    assert set(again.curriculum.accepted.tolist()) == {3, 7}


def test_the_newest_take_the_place_of_the_oldest():
    rule = ProbedTasks(proposals=4, buffer=3, least=1)
    rule.choose(_pool(4, {0, 1, 2, 3}), 1, generator(0))
    assert len(rule.accepted) == 3
    pool = _pool(9, {8})
    for step in range(20):
        rule.choose(pool, 1, generator(step))
    assert set(rule.accepted.tolist()) == {8}


def test_accepted_tasks_that_are_no_longer_there_are_left_out():
    rule = ProbedTasks(proposals=8, least=1)
    rule.choose(_pool(8, {7}), 1, generator(0))
    small = _pool(3, set())
    assert rule.choose(small, 30, generator(1)).max() <= 2


def test_wrong_settings_and_worlds_that_try_nothing_are_refused():
    with pytest.raises(InputError, match=r"probed_tasks\.least = 9: must be at most buffer = 4"):
        ProbedTasks(least=9, buffer=4)
    number = torch.arange(3)
    blank = PromptHistory.blank(number)
    with pytest.raises(InputError, match="tries no start states"):
        ProbedTasks().choose(Pool(number, blank, blank), 1, generator(0))
