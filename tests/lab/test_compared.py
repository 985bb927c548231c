"""Games whose answers are compared: the circle, the ladder, and how a policy is judged in them."""

from __future__ import annotations

import pytest
import torch

from stratagem import catalogue
from stratagem.lab import GAMES, SPECIAL_GAMES, Exact, TabularPolicy, Tree, find_game
from stratagem.lab.compared import CIRCLE, COMPARED_GAMES, LADDER
from stratagem.lab.world import LabTask, LabWorld
from stratagem.parts import Preference
from stratagem.preferences import BradleyTerry, win_matrix
from stratagem.preferences.contests import JudgedTask, JudgedWorld, exploitability
from stratagem.preferences.measures import minimax_winner
from stratagem.preferences.solvers import fitted_scores
from stratagem.recipe import Recipe

TABLES = {"circle": CIRCLE, "ladder": LADDER}
NAMES = [game.name for game in COMPARED_GAMES]
UNIFORM = torch.full((3,), 1 / 3, dtype=torch.float64)


def world(name: str, *logits: float, seed: int = 0) -> LabWorld:
    task = LabTask(find_game(name))
    return LabWorld(task, seed, TabularPolicy(torch.tensor([logits])) if logits else None)


def test_they_are_special_games():
    assert set(NAMES) == set(TABLES) <= SPECIAL_GAMES.keys() - GAMES.keys()


@pytest.mark.parametrize("name", NAMES)
def test_the_oracle_is_the_table(name):
    game = find_game(name)
    assert game.oracle is not None
    torch.testing.assert_close(win_matrix(game.oracle, Tree.enumerate(game).leaves)[0], TABLES[name], atol=1e-7, rtol=0)


def test_the_winners_are_those_of_the_descriptions():
    torch.testing.assert_close(minimax_winner(CIRCLE), torch.tensor([0.3, 0.3, 0.4], dtype=torch.float64))
    assert minimax_winner(LADDER).tolist() == [1, 0, 0]
    assert exploitability(find_game("circle").oracle, world("circle", 0.3, 0.3, 0.4).answers(1)) > 0.01
    winner = torch.tensor([0.3, 0.3, 0.4]).log().tolist()
    assert exploitability(find_game("circle").oracle, world("circle", *winner).answers(1)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_rewards_order_answers_as_the_likeliest_scores_do(name):
    scores = fitted_scores(TABLES[name], UNIFORM)
    rewards = Tree.enumerate(find_game(name)).leaves.returns
    assert rewards.argsort().tolist() == scores.argsort().tolist()
    assert Exact.greedy(Tree.enumerate(find_game(name)), rewards.unsqueeze(0)).success == 1


def test_scores_lead_to_an_answer_that_is_beaten_in_a_circle_and_to_the_winner_on_a_ladder():
    gaps = {}
    for name in NAMES:
        best = 100 * (fitted_scores(TABLES[name], UNIFORM) == fitted_scores(TABLES[name], UNIFORM).max())
        gaps[name] = exploitability(find_game(name).oracle, world(name, *best.tolist()).answers(1))
    assert gaps["circle"] == pytest.approx(0.3, abs=1e-6) and gaps["ladder"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_policy_is_judged_against_the_one_it_began_as(name):
    found = world(name, seed=3)
    start = found.evaluate(1, "sampled")
    assert start.success is None and start.win_rate == pytest.approx(0.5, abs=1e-6) == start.score
    began = torch.softmax(found.policy.table()[0].double(), 0)
    with torch.no_grad():
        found.policy.logits[0] = torch.tensor([0.0, 50.0, 0.0])
    assert found.evaluate(1, "sampled").win_rate == pytest.approx(0.5, abs=1e-6)
    found.serve(1)
    for mode in ("sampled", "greedy"):
        expected = float(TABLES[name][1] @ began)
        after = found.evaluate(1, mode)
        assert after.win_rate == pytest.approx(expected, abs=1e-6)
        assert after.interval == (after.win_rate, after.win_rate)


def test_answers_are_of_the_policy_last_served_and_every_one_there_is():
    found = world("circle", 1.0, 0.0, -1.0)
    assert isinstance(found, JudgedWorld) and isinstance(found.task, JudgedTask)
    answers = found.answers(100)
    assert answers.complete and answers.prompt.tolist() == [pytest.approx(1)]
    torch.testing.assert_close(answers.share, torch.tensor([1.0, 0.0, -1.0]).double().softmax(0))


def test_a_game_of_rewards_has_no_oracle_and_is_judged_by_success():
    found = world("prompts")
    assert found.task.oracle is None
    evaluation = found.evaluate(1, "sampled")
    assert evaluation.win_rate is None and evaluation.score == evaluation.success


ASKING = [
    card.name
    for card in catalogue.cards("preferences")
    if isinstance(recipe := card.build() if callable(card.build) and not isinstance(card.build, type) else None, Recipe)
    and recipe != recipe.asking(BradleyTerry(7.0))
]


def test_the_recipes_that_learn_from_comparisons_ask_an_oracle():
    assert {"sppo", "inpo", "nash_md", "nash_mp", "mnpo", "apo", "spo", "online_dpo", "dpo", "ipo"} <= set(ASKING)


@pytest.mark.parametrize("name", ASKING)
def test_in_the_lab_they_ask_the_game_where_it_compares_answers(name):
    recipe = catalogue.card(name).recipe()
    oracle = find_game("circle").oracle
    adapted = world("circle").adapt(recipe)
    assert set(_oracles(adapted)) == {oracle} and Recipe.from_yaml(adapted.to_yaml()) == adapted
    assert set(_oracles(world("prompts").adapt(recipe))) == set(_oracles(recipe)) != {oracle}


def _oracles(part):
    for _, child in part.children():
        if isinstance(child, Preference):
            yield child
        else:
            yield from _oracles(child)


def test_a_recipe_that_asks_nobody_stays_as_it_is():
    recipe = catalogue.card("grpo").recipe()
    assert recipe.asking(BradleyTerry()) == recipe
