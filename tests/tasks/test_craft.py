"""The crafting task: its thirty recipes, its solver, and what is told."""

from __future__ import annotations

from collections import Counter

import pytest

from stratagem.errors import InputError
from stratagem.tasks import CheckReport, CraftTask, make
from stratagem.tasks.craft import ACTIONS, RECIPES, TOOL_OF_MATERIAL, CraftEnvironment, Start, carried_out, steps_to


def test_there_are_thirty_recipes_of_things_that_there_are():
    assert len(RECIPES) == 30 and len(ACTIONS) == 38
    things = {*TOOL_OF_MATERIAL, *RECIPES}
    assert all({*recipe.parts} <= things and recipe.tool in {None, *RECIPES} for recipe in RECIPES.values())


@pytest.mark.parametrize("item", RECIPES)
def test_every_item_can_be_made_from_nothing_and_nothing_is_left_but_tools(item):
    steps, have = steps_to(item, Counter()), Counter()
    for action in steps:
        _, changed = carried_out(action, have)
        assert changed, action
    assert have[item] == 1
    tools = {recipe.tool for recipe in RECIPES.values()} | {"pickaxe"}
    assert {thing for thing, number in have.items() if number} <= {item, *tools}


def test_the_verifier_is_right_and_solutions_take_the_turns_there_are():
    assert CraftTask().check(100) == CheckReport(100, 100, 100)
    assert CraftTask(most=0, max_turns=8).check(50, "test") == CheckReport(50, 50, 50)
    lengths = [len(list(CraftTask(max_turns=8).solution("train", index))) for index in range(50)]
    assert max(lengths) <= 8 and min(lengths) >= 1


def test_an_episode_tells_what_happened_and_what_one_has():
    environment = CraftEnvironment(Start((("plank", 1), ("stone", 2)), "torch"), max_turns=9)
    assert environment.reset().text == "goal: torch\nhave: 1 plank, 2 stone"
    told = {
        "make torch": "torch needs stick + coal\nhave: 1 plank, 2 stone",
        "gather iron": "iron needs a pickaxe\nhave: 1 plank, 2 stone",
        "make arrow": "arrow needs stick + stone with axe\nhave: 1 plank, 2 stone",
        "sing": "nothing happened\nhave: 1 plank, 2 stone",
        " Make  STICK\n": "made stick\nhave: 1 stick, 2 stone",
        "gather coal": "gathered coal\nhave: 1 coal, 1 stick, 2 stone",
    }
    for action, expected in told.items():
        step = environment.step(action)
        assert (step.observation.text, step.reward, step.done) == (expected, 0, False)
    last = environment.step("make torch")
    assert (last.reward, last.done, last.success, last.truncated) == (1, True, True, False)


def test_a_state_is_what_one_has_and_the_goal():
    environment = CraftEnvironment(Start((), None), max_turns=4)
    first = environment.reset().state_key
    assert environment.step("nothing").observation.state_key == first
    assert environment.step("gather wood").observation.state_key != first
    assert CraftEnvironment(Start((), "plank"), 4).reset().state_key != first


def test_without_goals_it_goes_on_to_its_last_turn_and_pays_nothing():
    task = CraftTask(free=True, max_turns=5)
    environment = task.environment("train", 3)
    assert environment.reset().text.startswith("nothing happened yet\nhave: ")
    steps = [environment.step("gather wood") for _ in range(5)]
    assert [step.done for step in steps] == [False] * 4 + [True] and steps[-1].truncated
    assert not any(step.reward or step.success for step in steps)
    with pytest.raises(NotImplementedError, match="has no goal"):
        task.solution("train", 3)


def test_equal_numbers_are_equal_episodes_and_splits_share_none():
    task = CraftTask()
    train, test = ({task.start(split, index) for index in range(200)} for split in ("train", "test"))
    assert not train & test and task.start("train", 7) == CraftTask().start("train", 7)


def test_options_are_checked():
    assert make("craft:free=true,most=0").start("train", 0) == Start((), None)
    with pytest.raises(InputError, match=r"most='9' is not allowed"):
        make("craft:most=9")
