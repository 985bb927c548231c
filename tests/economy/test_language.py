"""Workers and planners that speak: what they are told, how they are read, and what is refused."""

from __future__ import annotations

import re

import numpy as np
import pytest

from stratagem.economy import (
    FLAT,
    BestResponse,
    FixedRates,
    LanguagePlanner,
    LanguageWorkers,
    TaxEconomy,
    read_hours,
    read_moves,
)
from stratagem.errors import InputError

SKILLS = np.array([1000.0, 3000.0])


@pytest.mark.parametrize(
    ("answer", "hours"),
    [
        ('{"LABOR": 40}', 40),
        ('I think {"LABOR": 10} is little. {"thought": "more", "LABOR": "55.5"}', 55.5),
        ('```json\n{"LABOR": 0}\n```', 0),
    ],
)
def test_hours_are_read_from_the_last_object_that_has_them(answer, hours):
    assert read_hours(answer) == hours


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("40", "no JSON object with the key"),
        ('{"HOURS": 40}', "no JSON object with the key"),
        ('{"LABOR": 40', "no JSON object with the key"),
        ('{"LABOR": 101}', "LABOR = 101: must be from 0 to 100"),
        ('{"LABOR": -1}', "LABOR = -1: must be from 0 to 100"),
        ('{"LABOR": "X"}', "LABOR: 'X' is not a number"),
        ('{"LABOR": true}', "LABOR: True is not a number"),
        ('{"LABOR": NaN}', "LABOR: nan is not a number"),
        ('{"LABOR": null}', "LABOR: None is not a number"),
    ],
)
def test_hours_that_cannot_be_are_refused(answer, said):
    with pytest.raises(InputError, match=said):
        read_hours(answer)


def test_moves_are_read():
    assert read_moves('{"DELTA": [10, -20, "0"]}', 3) == (10, -20, 0)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ('{"DELTA": [10, -20]}', "must be a list of 3"),
        ('{"DELTA": 10}', "must be a list of 3"),
        ('{"DELTA": [0.1, 0, 0]}', "0.1 must be one of -20, -10, 0, 10, 20"),
        ('{"DELTA": [15, 0, 0]}', "15 must be one of"),
        ("", "no JSON object"),
    ],
)
def test_moves_that_cannot_be_are_refused(answer, said):
    with pytest.raises(InputError, match=re.escape(said)):
        read_moves(answer, 3)


def test_speaking_workers_are_told_their_skill_the_tax_and_what_came_of_their_choices():
    prompts = []

    def ask(asked):
        prompts.append(list(asked))
        return ['{"LABOR": 40}', '{"LABOR": 50}']

    workers = LanguageWorkers(ask, personas=("You bake.", "You paint."))
    played = TaxEconomy().run(SKILLS, workers, FixedRates((10, 20, 30)), 2)
    assert [outcome.hours.tolist() for outcome in played] == [[40, 50], [40, 50]]
    baker, painter = prompts[1]
    assert baker.startswith("You bake.\n") and painter.startswith("You paint.\n")
    assert "$3,000.00 a year for every weekly hour" in painter
    assert "50 % above $0, 50 % above $90,000, 50 % above $159,100" in painter
    # 3000 x 50 taxed by half, and half of 20,000 + 75,000 back.
    assert "- 50 hours: income $150,000, tax $75,000, rebate $47,500" in painter
    assert "latest choices" not in prompts[0][0]


def test_only_those_whose_answer_cannot_be_read_are_asked_again_and_told_why():
    asked_for = []

    def ask(asked):
        asked_for.append(list(asked))
        return ['{"LABOR": 40}', "no idea"] if len(asked) == 2 else ['{"LABOR": 60}']

    hours = LanguageWorkers(ask).hours(TaxEconomy(), SKILLS, np.array([50.0, 50, 50]), [])
    assert hours.tolist() == [40, 60]
    assert len(asked_for) == 2 and len(asked_for[1]) == 1
    assert asked_for[1][0].startswith(asked_for[0][1])
    assert 'Your last answer could not be read: no JSON object with the key "LABOR"' in asked_for[1][0]


def test_a_worker_who_never_answers_ends_the_run():
    workers = LanguageWorkers(lambda asked: ["no idea"] * len(asked), attempts=2)
    with pytest.raises(InputError, match="prompt 0, asked 2 times: no JSON object"):
        TaxEconomy().run(SKILLS, workers, FixedRates((0, 0, 0)), 1)


def test_a_speaking_planner_moves_rates_and_is_told_the_best_so_far():
    prompts = []
    answers = iter(('{"DELTA": [-20]}', '{"DELTA": [10]}', '{"DELTA": [20]}'))

    def ask(asked):
        prompts.extend(asked)
        return [next(answers)]

    economy = TaxEconomy(FLAT, every=2, weighting="equal", cost=0.026)
    played = economy.run(SKILLS, BestResponse(), LanguagePlanner(ask), 7)
    assert [outcome.rates[0] for outcome in played] == [50, 50, 30, 30, 40, 40, 60]
    assert "Tax now: 40 % above $0" in prompts[2]
    # Without weights less tax is better, so that the best of 50, 30 and 40 is 30.
    assert "Best so far: 30 %: " in prompts[2]
    assert "Workers by bracket: 2" in prompts[2]


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda: LanguageWorkers(list, attempts=0), "attempts = 0: must be at least 1"),
        (lambda: TaxEconomy().run(SKILLS, LanguageWorkers(lambda p: []), FixedRates((0, 0, 0)), 1), "0 answers to 2"),
        (lambda: TaxEconomy().run(SKILLS, LanguageWorkers(list, ("a",)), FixedRates((0, 0, 0)), 1), "1 personas for 2"),
        (lambda: TaxEconomy().run(SKILLS[None], LanguageWorkers(list), FixedRates((0, 0, 0)), 1), "a single economy"),
    ],
)
def test_wrong_speakers_are_refused(ask, said):
    with pytest.raises(InputError, match=said):
        ask()
