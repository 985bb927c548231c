"""The house task: what commands do and cost, what cannot be done, what is remembered, and how houses are made."""

from __future__ import annotations

import pytest

from stratagem.errors import InputError
from stratagem.tasks import HouseTask, Step, make
from stratagem.tasks.house import HouseEnvironment, Prices
from stratagem.tasks.house_plan import ENTRANCE, House, Sighting, Thing

WAYS = ((ENTRANCE, "kitchen", 1.0), ("kitchen", "kitchen shelf", 1.0), ("kitchen", "kitchen box", 3.0))
THINGS = (
    Thing("mug", "red", "small", "kitchen shelf"),
    Thing("mug", "blue", "small", "kitchen box"),
    Thing("book", "red", "large", "kitchen shelf"),
)
HOUSE = House(WAYS, THINGS, 1, (Sighting("small blue mug", "kitchen shelf", 4), Sighting("large red book", "attic", 1)))


def play(*actions: str, house: House = HOUSE, max_turns: int = 12) -> list[Step]:
    environment = HouseEnvironment(house, Prices(), max_turns)
    assert environment.reset().text == (
        "Bring the mug. You are at the entrance. Metres to: kitchen box 4, kitchen shelf 2."
    )
    return [environment.step(action) for action in actions]


def totals(steps: list[Step]) -> dict[str, float]:
    """What the components of all steps add up to."""
    sums: dict[str, float] = {}
    for step in steps:
        for name, value in step.components.items():
            sums[name] = sums.get(name, 0.0) + value
    return sums


def told(step: Step) -> str:
    return step.observation.text


# ---- commands and costs ---------------------------------------------------------------------------------------------


def test_a_look_back_two_questions_and_four_metres_cost_what_they_cost_by_hand():
    steps = play("memory: mug", "ask: which colour?", "ask: which size?", "navigate: kitchen box", "select: blue mug")
    assert [told(step) for step in steps] == [
        "small blue mug: kitchen shelf, 4 days ago",
        "It is blue.",
        "It is small.",
        "You are at the kitchen box. Here: small blue mug. Metres to: kitchen shelf 4.",
        "the end",
    ]
    noted = totals(steps)
    assert noted == pytest.approx(
        {
            "cost": 0.46,
            "remembering": 0.01,
            "asking": 0.25,
            "walking": 0.2,
            "questions": 2.0,
            "format": 1.0,
            "spl": 1.0,
        }
    )
    last = steps[-1]
    assert last.done and last.success and last.reward == 1 and 1 - noted["cost"] == pytest.approx(0.54)
    assert not any(step.done or step.reward for step in steps[:-1])


def test_a_question_grows_dearer_with_every_earlier_one_whatever_it_was():
    steps = play("ask: ", "ask: how are you?", "ask: where is it?")
    assert [told(step) for step in steps] == ["I do not know that.", "I do not know that.", "It is in the kitchen."]
    assert [step.components["asking"] for step in steps] == pytest.approx([0.1, 0.15, 0.2])


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Which COLOR?", "It is blue."),
        ("is it big, and which colour?", "It is small."),
        ("colourful or not", "I do not know that."),
        ("its place", "It is in the kitchen."),
    ],
)
def test_the_first_attribute_a_question_names_is_answered(question, answer):
    assert told(play(f"ask: {question}")[0]) == answer


def test_the_wrong_thing_ends_the_episode_and_earns_nothing():
    steps = play("navigate: kitchen shelf", "select: mug")
    assert steps[-1].done and not steps[-1].success and steps[-1].reward == 0 and not steps[-1].truncated
    assert totals(steps) == pytest.approx({"walking": 0.1, "cost": 0.1, "format": 1.0, "spl": 0.0})


def test_path_efficiency_is_the_shortest_way_over_the_one_that_was_gone():
    steps = play("navigate: kitchen shelf", "navigate: kitchen box", "select: mug")
    assert totals(steps)["spl"] == pytest.approx(4 / 6) and totals(steps)["walking"] == pytest.approx(0.3)


def test_staying_where_one_is_costs_nothing():
    steps = play("navigate: kitchen box", "navigate: Kitchen Box")
    assert steps[1].components["walking"] == 0


# ---- what cannot be done --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "error"),
    [
        ("", "write navigate"),
        ("I go to the kitchen box", "write navigate"),
        ("fly: kitchen box", "write navigate"),
        ("navigate: kitchen", "no such place, but kitchen box, kitchen shelf"),
        ("navigate: attic shelf", "no such place"),
        ("select: small blue mug", "no such thing here"),
        ("select:", "no such thing here"),
    ],
)
def test_what_cannot_be_done_changes_and_costs_nothing_but_breaks_the_format(action, error):
    steps = play(action, "navigate: kitchen box", "select: mug")
    assert error in told(steps[0]) and not steps[0].components and not steps[0].done
    assert told(steps[1]) == told(play("navigate: kitchen box")[0])
    assert steps[-1].success and totals(steps)["format"] == 0 and totals(steps)["cost"] == pytest.approx(0.2)


def test_a_name_that_several_things_have_takes_none_of_them():
    steps = play("navigate: kitchen shelf", "select: red")
    assert "several things" in told(steps[-1]) and not steps[-1].done


def test_who_runs_out_of_turns_is_cut_and_pays_for_what_was_done():
    *before, cut = play("navigate: kitchen shelf", "ask: colour", "hm", max_turns=3)
    assert not any(step.done for step in before)
    assert cut.done and cut.truncated and not cut.success and cut.components == {"format": 0.0, "spl": 0.0}
    assert totals([*before, cut])["cost"] == pytest.approx(0.2)
    in_time = play("navigate: kitchen box", "select: mug", max_turns=2)[-1]
    assert in_time.success and not in_time.truncated


def test_memory_tells_what_it_saw_even_if_that_is_no_longer_so():
    steps = play("memory: blue mug", "memory: red", "memory: lamp", "memory:")
    assert [told(step) for step in steps] == [
        "small blue mug: kitchen shelf, 4 days ago",
        "large red book: attic, 1 days ago",
        "nothing remembered",
        "nothing remembered",
    ]
    assert all(step.components["cost"] == 0.01 for step in steps)


def test_states_are_equal_where_one_has_been_asked_and_remembered_the_same():
    one, other = play("ask: size", "memory: mug"), play("memory: mug", "ask: size", "memory: mug")
    assert one[-1].observation.state_key == other[-1].observation.state_key
    assert one[-1].observation.state_key != play("memory: mug")[-1].observation.state_key


# ---- houses ---------------------------------------------------------------------------------------------------------


def test_a_candidate_out_of_reach_is_refused():
    apart = (Thing("mug", "red", "large", "attic box"), *THINGS)
    with pytest.raises(InputError, match="the large red mug is at attic box, which no way leads to"):
        House((*WAYS, ("attic", "attic box", 1.0)), apart, 2)
    # What is not wanted may lie wherever it does.
    book = Thing("book", "blue", "large", "attic box")
    assert len(House((*WAYS, ("attic", "attic box", 1.0)), (*THINGS, book), 0).places) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ways": (*WAYS, ("kitchen", "study", -1.0))}, "has -1.0 metres"),
        ({"ways": (*WAYS, ("kitchen", "study", float("inf")))}, "has inf metres"),
        ({"target": 3}, "target = 3"),
        ({"things": (*THINGS, THINGS[0])}, "same name"),
    ],
)
def test_a_house_that_cannot_be_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        House(**({"ways": WAYS, "things": THINGS, "target": 0} | arguments))


@pytest.mark.parametrize("distractors", [0, 2, 4])
def test_houses_have_as_many_candidates_as_asked_for_all_different_and_in_reach(distractors):
    task = HouseTask(distractors=distractors, rooms=2)
    for index in range(20):
        house = task.house("train", index)
        assert len(house.candidates) == distractors + 1 and len(house.places) == 6
        assert len({thing.name for thing in house.candidates}) == distractors + 1
        assert len({thing.place for thing in house.candidates}) == distractors + 1
        assert all(house.metres[ENTRANCE][thing.place] < 20 for thing in house.candidates)


def test_memories_are_as_stale_as_asked_for():
    for share, expected in ((0.0, 0), (1.0, 5)):
        house = HouseTask(staleness=share).house("train", 0)
        where = {thing.name: thing.place for thing in house.things}
        assert sum(where[seen.name] != seen.place for seen in house.memory) == expected == round(share * len(where))


def test_equal_numbers_are_equal_houses_and_the_splits_share_none():
    task = HouseTask()
    assert task.house("train", 3) == HouseTask().house("train", 3) != task.house("train", 4)
    train, test = ({task.house(split, index) for index in range(30)} for split in ("train", "test"))
    assert len(train) == 30 and not train & test


@pytest.mark.parametrize("distractors", [0, 2])
@pytest.mark.parametrize("split", ["train", "test"])
def test_solutions_are_accepted_and_corruptions_rejected(distractors, split):
    HouseTask(distractors=distractors).check(30, split)


def test_it_is_made_from_its_specification():
    task = make("house:distractors=4,ask_cost=0.3,fatigue=0")
    environment = task.environment("train", 0)
    environment.reset()
    asked = [environment.step("ask: size").components["asking"] for _ in range(2)]
    assert asked == [0.3, 0.3] and task.reward_weights == (1, 0, 0, 0, 0, 0, 0, 0)
    assert len(task.reward_names) == len(task.reward_weights)
    assert (task.answer("select: Red Mug"), task.answer("navigate: box"), task.answer("select:")) == (
        "red mug",
        None,
        None,
    )


@pytest.mark.parametrize(
    "option", ["distractors=5", "rooms=1", "staleness=2", "walk_cost=-1", "ask_cost=-1", "memory_cost=-0.1", "tips=1"]
)
def test_an_option_out_of_range_is_refused(option):
    with pytest.raises(InputError, match=option.split("=")[0]):
        make(f"house:{option}")
