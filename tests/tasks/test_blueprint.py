"""Blueprints: how a plan is read, who reads what, when a sub-goal ends, and what a plan that is none costs."""

from __future__ import annotations

import pytest

from stratagem.errors import InputError
from stratagem.tasks import BlueprintTask, KeyDoorTask, Step, make
from stratagem.tasks.blueprint import DONE, read_blueprint

PLAN = "<blueprint>\n1. take the key\n2. open the door\n3. reach the goal\n</blueprint>"


def played(*actions: str, **options) -> list[Step]:
    environment = BlueprintTask(KeyDoorTask(), **options).environment("train", 0)
    environment.reset()
    return [environment.step(action) for action in actions]


def noted(steps: list[Step], name: str) -> float:
    return sum(step.components.get(name, 0.0) for step in steps)


def test_a_plan_is_read_line_by_line_without_numbers_and_bullets():
    assert read_blueprint(PLAN) == ["take the key", "open the door", "reach the goal"]
    assert read_blueprint("so: <blueprint>- one\n\n * two\n3) three</blueprint> <blueprint>x</blueprint>") == [
        "one",
        "two",
        "three",
    ]
    for none in ("", "1. take the key", "<blueprint>\n1. \n-\n</blueprint>", "<blueprint>take the key"):
        assert read_blueprint(none) == []


def test_the_planner_reads_what_the_task_shows_and_the_executor_plan_sub_goal_and_observation():
    task = BlueprintTask(KeyDoorTask())
    environment = task.environment("train", 0)
    first = environment.reset()
    plain = KeyDoorTask().environment("train", 0).reset()
    assert (first.text, first.role, first.context) == (plain.text, 0, 0)
    told = environment.step(PLAN).observation
    assert (told.role, told.context) == (1, 1)
    assert told.text == f"sub-goal 1 of 3: take the key\n{plain.text}"
    system, user = told.opening
    assert "open the door" in system["content"] and KeyDoorTask.system in system["content"]
    assert user["content"] == told.text


def test_sub_done_moves_on_to_a_conversation_of_the_next_sub_goal_and_the_last_one_stays():
    steps = played(PLAN, "north", f"south {DONE}", DONE, DONE, "north")
    seen = [(step.observation.context, bool(step.observation.opening)) for step in steps]
    assert seen == [(1, True), (1, False), (2, True), (3, True), (3, False), (3, False)]
    assert noted(steps, "declared") == 3 and noted(steps, "expired") == 0
    # A turn of the word alone is no move: the task was asked three times.
    assert steps[3].observation.text.split("\n")[1] == steps[2].observation.text.split("\n")[1]


def test_a_sub_goal_that_is_never_declared_done_ends_with_its_turns():
    steps = played(PLAN, *["north", "south"] * 3, subgoal_turns=2)
    assert [step.observation.context for step in steps] == [1, 1, 2, 2, 3, 3, 3]
    assert noted(steps, "expired") == 2


def test_without_declaring_only_turns_move_on():
    steps = played(PLAN, f"north {DONE}", f"south {DONE}", "north", subgoal_turns=2, declared=False)
    assert [step.observation.context for step in steps] == [1, 1, 2, 2]
    assert noted(steps, "declared") == 0


@pytest.mark.parametrize("text", ["", "north", "<blueprint></blueprint>", "<blueprint>1. take the key"])
def test_a_plan_that_cannot_be_read_ends_the_episode_with_a_penalty(text):
    [step] = played(text)
    assert step.done and not step.success and step.reward == pytest.approx(-0.1)
    assert step.components["unplanned"] == 1
    assert played(text, penalty=0)[0].reward == 0


def test_a_plan_that_is_too_long_is_shortened_and_flagged():
    long = "<blueprint>" + "\n".join(f"{n}. goal {n}" for n in range(1, 13)) + "</blueprint>"
    [step] = played(long)
    assert step.components["shortened"] == 1 and step.components["subgoals"] == 10
    assert "goal 10" in step.observation.opening[0]["content"]
    assert "goal 11" not in step.observation.opening[0]["content"]
    assert noted(played(PLAN), "shortened") == 0


def test_solutions_state_the_sub_goals_of_the_task_and_declare_each_done():
    task = BlueprintTask(KeyDoorTask())
    plan, *actions = task.solution("train", 0)
    assert read_blueprint(plan) == ["take the key", "open the door", "reach the goal"]
    assert next(action for action in actions if DONE in action) == f"take {DONE}"
    steps = played(plan, *actions)
    assert steps[-1].success and noted(steps, "declared") == 3
    assert [step.observation.context for step in steps] == sorted(step.observation.context for step in steps)


@pytest.mark.parametrize("spec", ["blueprint:key_door", "blueprint:calculator", "blueprint:app,screens=6,buttons=3"])
def test_solutions_are_accepted_and_corrupted_ones_are_not(spec):
    make(spec).check(6)


def test_equal_plans_and_places_have_equal_states():
    first, second = played(PLAN, "north"), played(PLAN, "north")
    other = played(PLAN.replace("take", "find"), "north")
    assert [step.observation.state_key for step in first] == [step.observation.state_key for step in second]
    assert first[1].observation.state_key != other[1].observation.state_key


def test_options_go_to_the_blueprint_or_to_the_task():
    task = make("blueprint:key_door,size=5,most=4,declared=false,subgoal_turns=7")
    assert (task.of.size, task.most, task.declared, task.subgoal_turns) == (5, 4, False, 7)
    assert task.max_turns == 33 and task.reward_weights == (1.0, 0, 0, 0, 0, 0)
    for spec, said in {
        "blueprint": "needs another task",
        "blueprint:key_door,most=0": "most='0' is not allowed",
        "blueprint:key_door,declared=perhaps": "declared",
        "blueprint:blueprint:key_door": "blueprint",
        "blueprint:lab:corridor": "not played in text",
    }.items():
        with pytest.raises(InputError, match=said):
            make(spec)
