"""The household task: what commands do, what is seen, goals and their progress, phases, and how households are made."""

from __future__ import annotations

import pytest

from stratagem.errors import InputError
from stratagem.tasks import HouseholdTask, Step, make
from stratagem.tasks.household import HouseholdEnvironment
from stratagem.tasks.household_world import KINDS, Goal, Household, State, kind_of, solve

THINGS = ("mug 1", "egg 1", "mug 2")
WHERE = ("cabinet 1", "countertop 1", "bed 1")
NOTHING = "Nothing happens."


def household(goal: Goal) -> Household:
    start = State("kitchen", "", WHERE, (), (False,) * 3, ("",) * 3)
    return Household(("kitchen", "bedroom"), THINGS, goal, start)


CLEAN = household(Goal("clean", "mug", "desk"))
FETCHED = ("go to cabinet 1", "open cabinet 1", "take mug 1 from cabinet 1")
WASHED = ("go to sink 1", "clean mug 1 with sink 1")
PLACED = ("go to bedroom", "go to desk 1", "put mug 1 in/on desk 1")


def play(*actions: str, of: Household = CLEAN, max_turns: int = 50) -> list[Step]:
    environment = HouseholdEnvironment(of, max_turns)
    assert environment.reset().text.startswith(
        f"Your task: {of.goal.text}. You are in the kitchen. Here: countertop 1,"
    )
    return [environment.step(action) for action in actions]


def told(*actions: str, of: Household = CLEAN) -> list[str]:
    return [step.observation.text for step in play(*actions, of=of)]


def noted(steps: list[Step], name: str) -> list[float]:
    return [step.components.get(name, 0.0) for step in steps]


# ---- what commands do and what is seen -------------------------------------------------------------------------------


def test_a_clean_mug_on_the_desk_step_by_step():
    steps = play(*FETCHED, *WASHED, *PLACED)
    assert [step.observation.text for step in steps] == [
        "The cabinet 1 is closed.",
        "You open the cabinet 1. In/on the cabinet 1: mug 1.",
        "You take the mug 1 from the cabinet 1.",
        "In/on the sink 1: nothing.",
        "You clean the mug 1 with the sink 1.",
        "You are in the bedroom. Here: desk 1, bed 1, drawer 1, drawer 2. Other rooms: kitchen.",
        "In/on the desk 1: desk lamp.",
        "You put the mug 1 in/on the desk 1.",
    ]
    assert [step.reward for step in steps] == [0] * 7 + [1] and steps[-1].success and not steps[-1].truncated
    assert noted(steps, "progress") == pytest.approx([0, 0, 1 / 3, 0, 1 / 3, 0, 0, 1 / 3])
    assert not any(noted(steps, "invalid"))


def test_what_a_closed_receptacle_holds_is_seen_when_it_is_opened_and_no_longer_when_it_is_closed():
    texts = told(
        "go to cabinet 1", "open cabinet 1", "close cabinet 1", "look", "go to countertop 1", "go to cabinet 1"
    )
    assert texts[2:4] == ["You close the cabinet 1.", "The cabinet 1 is closed."] and texts[-1] == texts[3]
    left_open = told("go to cabinet 1", "open cabinet 1", "go to sink 1", "go to cabinet 1")
    assert left_open[-1] == "In/on the cabinet 1: mug 1."


def test_what_has_been_done_to_a_thing_is_told():
    heated = (*FETCHED, "inventory", "go to microwave 1", "heat mug 1 with microwave 1", *WASHED, "Inventory")
    assert (told(*heated)[3], told(*heated)[-1]) == ("You carry: mug 1.", "You carry: mug 1 (clean, hot).")
    cooled = (*heated, "go to fridge 1", "cool mug 1 with fridge 1", "inventory")
    assert told(*cooled)[-1] == "You carry: mug 1 (clean, cold)."
    assert told("inventory") == ["You carry: nothing."]


@pytest.mark.parametrize(
    "wording", ["put the mug 1 in the desk 1", "Put mug 1 on desk 1.", "> put mug 1  in/on desk 1"]
)
def test_case_articles_and_prepositions_do_not_matter(wording):
    assert play(*FETCHED, *WASHED, *PLACED[:2], wording)[-1].success


@pytest.mark.parametrize(
    ("before", "action"),
    [
        ((), ""),
        ((), "sing"),
        ((), "go to attic"),
        ((), "go to desk 1"),
        ((), "go to kitchen"),
        (("go to sink 1",), "go to sink 1"),
        ((), "open cabinet 1"),
        (("go to sink 1",), "open sink 1"),
        (("go to cabinet 1",), "close cabinet 1"),
        (FETCHED[:2], "open cabinet 1"),
        (("go to cabinet 1",), "take mug 1 from cabinet 1"),
        (FETCHED[:2], "take egg 1 from cabinet 1"),
        (FETCHED[:2], "take mug 1 from countertop 1"),
        (FETCHED[:2], "take hat 1 from cabinet 1"),
        ((*FETCHED, "go to countertop 1"), "take egg 1 from countertop 1"),
        (("go to countertop 1",), "put mug 1 in/on countertop 1"),
        ((*FETCHED, "go to cabinet 2"), "put mug 1 in/on cabinet 2"),
        (FETCHED, "clean mug 1 with cabinet 1"),
        (FETCHED, "clean mug 1 with sink 1"),
        ((*FETCHED, "go to sink 1"), "heat mug 1 with sink 1"),
        (("go to sink 1",), "clean mug 1 with sink 1"),
        (("go to bedroom",), "use desk lamp"),
        (("go to bedroom", "go to desk 1"), "use mug 1"),
    ],
)
def test_nothing_happens_where_something_is_impossible(before, action):
    *steps, last = play(*before, action)
    assert last.observation.text == NOTHING and last.components == {"invalid": 1}
    assert last.reward == 0 and not last.done and not any(noted(steps, "invalid"))
    assert not last.executed and last.well_formed is (action not in ("", "sing")) and all(s.executed for s in steps)
    reached = steps[-1].observation if steps else HouseholdEnvironment(CLEAN).reset()
    assert last.observation.state_key == reached.state_key


def test_the_state_is_where_things_are_and_not_how_it_came_to_that():
    one = play("go to cabinet 1", "open cabinet 1", "go to fridge 1", "open fridge 1", "look")[-1]
    other = play("go to fridge 1", "open fridge 1", "go to cabinet 1", "open cabinet 1", "go to fridge 1")[-1]
    assert one.observation.state_key == other.observation.state_key
    assert one.observation.state_key != play("go to fridge 1", "open fridge 1")[-1].observation.state_key


def test_who_runs_out_of_turns_is_cut_but_not_who_is_done_with_the_last_one():
    actions = (*FETCHED, *WASHED, *PLACED)
    assert play(*actions, max_turns=8)[-1].success and not play(*actions, max_turns=8)[-1].truncated
    cut = play(*actions[:-1], max_turns=7)[-1]
    assert cut.done and cut.truncated and not cut.success and cut.reward == 0


# ---- goals ----------------------------------------------------------------------------------------------------------


def test_a_mug_that_is_not_clean_does_not_do():
    steps = play(*FETCHED, *PLACED)
    assert not steps[-1].done and sum(noted(steps, "progress")) == pytest.approx(1 / 3)


def test_an_egg_that_was_cooled_again_is_not_hot():
    of = household(Goal("heat", "egg", "bed"))
    heated = ("go to countertop 1", "take egg 1 from countertop 1", "go to microwave 1", "heat egg 1 with microwave 1")
    brought = ("go to bedroom", "go to bed 1", "put egg 1 in/on bed 1")
    assert of.goal.text == "put a hot egg in/on the bed"
    assert play(*heated, *brought, of=of)[-1].success
    assert not play(*heated, "go to fridge 1", "cool egg 1 with fridge 1", *brought, of=of)[-1].success


def test_a_thing_is_looked_at_under_the_lamp_while_it_is_carried():
    of = household(Goal("look", "egg", ""))
    lamp = ("go to bedroom", "go to desk 1", "use desk lamp")
    empty = play(*lamp, of=of)[-1]
    assert not empty.done and empty.observation.text == "You use the desk lamp." and empty.components == {"progress": 0}
    assert of.goal.text == "look at an egg under the desk lamp"
    steps = play("go to countertop 1", "take egg 1 from countertop 1", *lamp, of=of)
    assert steps[-1].success and noted(steps, "progress") == [0, 0.5, 0, 0, 0.5]
    assert not play(*FETCHED, *lamp, of=of)[-1].done


def test_two_have_to_be_brought_and_progress_is_never_taken_back():
    of = household(Goal("two", "mug", "desk"))
    first, second = (*FETCHED, *PLACED), ("go to bed 1", "take mug 2 from bed 1", "go to desk 1", "put mug 2 on desk 1")
    undone = ("take mug 1 from desk 1", "put mug 1 on desk 1")
    steps = play(*first, *undone, *second, of=of)
    assert of.goal.text == "put two mugs in/on the desk" and steps[-1].success and not any(s.done for s in steps[:-1])
    assert noted(steps, "progress") == [0, 0, 0.25, 0, 0, 0.25, 0, 0, 0, 0.25, 0, 0.25]


def test_the_demonstrator_looks_into_one_receptacle_after_the_other():
    assert solve(CLEAN) == [
        *("go to countertop 1", "go to sink 1", "go to fridge 1", "open fridge 1", "go to microwave 1"),
        *("open microwave 1", *FETCHED, *WASHED, *PLACED),
    ]


@pytest.mark.parametrize(
    ("goal", "phases"),
    [
        (Goal("clean", "mug", "desk"), ["find a mug", "take a mug", "clean the mug", "place the mug in/on the desk"]),
        (Goal("put", "egg", "bed"), ["find an egg", "take an egg", "place the egg in/on the bed"]),
        (Goal("look", "egg", ""), ["find an egg", "take an egg", "look at the egg under the desk lamp"]),
        (
            Goal("two", "mug", "desk"),
            [
                *("find a mug", "take a mug", "place the mug in/on the desk"),
                *("find another mug", "take another mug", "place the mug in/on the desk"),
            ],
        ),
    ],
)
def test_a_demonstrator_says_its_phases(monkeypatch, goal, phases):
    monkeypatch.setattr(HouseholdTask, "household", lambda self, split, index: household(goal))
    task = HouseholdTask()
    said = task.subgoals("train", 0, list(task.solution("train", 0)))
    assert [one for one, before in zip(said, [None, *said], strict=False) if one != before] == phases
    assert task.subgoals("train", 0, ["sing"]) == phases[:1]


# ---- households -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "task",
    [HouseholdTask(), HouseholdTask(rooms=2, objects=2), HouseholdTask(rooms=4, objects=40), HouseholdTask(goal="two")],
    ids=repr,
)
@pytest.mark.parametrize("split", ["train", "test"])
def test_check_passes(task, split):
    assert task.check(24, split).corruptions_rejected == 24


def test_households_are_as_asked_for_and_their_goal_is_still_to_be_reached():
    for index in range(30):
        house = HouseholdTask(rooms=2, objects=9).household("train", index)
        assert house.rooms == ("kitchen", "bedroom") and len(house.things) == len(set(house.things)) == 9
        assert house.goal.kind == KINDS[index % 6] and len(house.wanted) == house.needed
        assert not house.solved(house.start) and house.progress(house.start) == 0
        assert all(kind_of(house.start.where[thing]) != house.goal.target for thing in house.wanted)


def test_households_take_no_more_turns_than_there_are():
    task = HouseholdTask(max_turns=10)
    assert all(len(list(task.solution("train", index))) <= 10 for index in range(12))


def test_equal_numbers_are_equal_households_and_the_splits_share_none():
    task = HouseholdTask()
    assert task.household("train", 3) == HouseholdTask().household("train", 3) != task.household("train", 9)
    train, test = ({task.household(split, index) for index in range(60)} for split in ("train", "test"))
    assert len(train) == 60 and not train & test


def test_it_can_be_structured_and_is_made_from_its_specification():
    make("structured:household").check(6)
    assert make("household:goal=heat,rooms=4,objects=12,max_turns=60") == HouseholdTask("heat", 4, 12, 60)


@pytest.mark.parametrize("option", ["goal=fly", "rooms=1", "rooms=5", "objects=1", "max_turns=9", "pets=1"])
def test_an_option_out_of_range_is_refused(option):
    with pytest.raises(InputError, match=option.split("=")[0]):
        make(f"household:{option}")
