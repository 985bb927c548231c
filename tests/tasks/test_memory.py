"""The memory task: what edits leave in the context, edits that come to nothing, limits, and what an answer earns."""

from __future__ import annotations

import pytest

from stratagem.errors import InputError
from stratagem.tasks import MemoryTask, Step, make
from stratagem.tasks.memory import MemoryEnvironment, Stream

STREAM = Stream((("cow", 3), ("fox", 7), ("ash", 4), ("hat", 1)), ("fox", "ash"))
TASK = MemoryTask(notes=4, wanted=2, room=4)


def play(*actions: str, task: MemoryTask = TASK) -> list[Step]:
    environment = MemoryEnvironment(STREAM, task)
    assert environment.reset().text == "Remember ash and fox."
    return [environment.step(action) for action in actions]


def told(step: Step) -> str:
    return step.observation.text


def messages(step: Step) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in step.observation.opening]


# ---- edits ----------------------------------------------------------------------------------------------------------


def test_without_an_edit_the_conversation_goes_on():
    steps = play("next", "Next ", "sing", "next")
    assert [told(step) for step in steps] == ["[1] cow = 3", "[2] fox = 7", "[3] error: no such command", "[4] ash = 4"]
    assert all(step.observation.context == 0 and not step.observation.opening for step in steps)


def test_after_an_edit_a_new_conversation_opens_with_what_is_left_and_the_edit_itself():
    *_, kept = play("next", "next", "keep 2")
    assert kept.observation.context == 1
    assert messages(kept) == [
        ("system", TASK.system),
        ("user", "Remember ash and fox."),
        ("assistant", "next"),
        ("user", "[2] fox = 7"),
        ("assistant", "keep 2"),
        ("user", "[3] removed 1"),
    ]
    assert "room for 4 results" in TASK.system


def test_a_prune_leaves_its_text_and_can_be_removed_by_a_later_edit():
    *_, pruned, _, again = play("next", "next", "prune 1, 2: fox is 7", "next", "drop 3")
    assert messages(pruned)[2:] == [("assistant", "prune 1, 2: fox is 7"), ("user", "[3] removed 1 2")]
    assert messages(again)[2:] == [
        ("assistant", "next"),
        ("user", "[4] ash = 4"),
        ("assistant", "drop 3"),
        ("user", "[5] removed 3"),
    ]
    assert (pruned.observation.context, again.observation.context) == (1, 2)


@pytest.mark.parametrize(
    ("edit", "result"),
    [
        ("drop 5", "error: there is no result 5"),
        ("drop 1 5", "error: there is no result 5"),
        ("drop 2", "error: there is no result 2"),
        ("keep 0 1", "error: there is no result 0"),
        ("prune 9: cow", "error: there is no result 9"),
        ("drop", "error: name the results"),
        ("prune : cow", "error: name the results"),
        ("prune 1", "error: prune needs a text"),
        ("prune 1: ", "error: prune needs a text"),
        ("keep 1", "error: nothing to remove"),
    ],
)
def test_an_edit_that_comes_to_nothing_says_so_and_opens_no_conversation(edit, result):
    _, failed, following = play("next", edit, "next")
    assert told(failed) == f"[2] {result}" and told(following) == "[3] fox = 7"
    assert failed.observation.context == following.observation.context == 0
    assert not failed.observation.opening and not failed.done


def test_states_are_equal_where_the_same_was_read_and_stands_in_the_context():
    first, second = play("next", "next", "drop 1"), play("next", "next", "drop 1")
    other = play("next", "next", "drop 2")
    assert first[-1].observation.state_key == second[-1].observation.state_key != other[-1].observation.state_key


# ---- limits and answers ---------------------------------------------------------------------------------------------


def test_who_never_edits_runs_out_of_room_and_earns_nothing():
    *before, cut = play(*["next"] * 5)
    assert not any(step.done for step in before)
    assert cut.done and cut.truncated and cut.reward == 0 and not cut.success
    assert not any(step.done for step in play(*["next"] * 5, task=MemoryTask(notes=4, editing=False)))


def test_who_runs_out_of_turns_earns_nothing_even_by_an_edit():
    task = MemoryTask(notes=4, room=4, max_turns=11)
    *_, cut = play(*["next", "drop 1"], *[f"drop {number}" for number in range(2, 11)], task=task)
    assert cut.done and cut.truncated and cut.reward == 0


@pytest.mark.parametrize(
    ("answer", "reward"),
    [
        ("answer: 7 4", 1.0),
        (" Answer: 7, 4 ", 1.0),
        ("answer: 4 7", 0.0),
        ("answer: 7 5", 0.5),
        ("answer: 7", 0.0),
        ("answer: 7 4 4", 0.0),
        ("answer:", 0.0),
    ],
)
def test_an_answer_earns_the_share_of_values_that_are_right_in_their_order(answer, reward):
    read = ["next", "next", "drop 1", "next", "keep 2 4", "next", "keep 2 4"]
    *_, question, answered = play(*read, "next", answer)
    assert told(question) == "[8] What are fox and ash?"
    assert answered.done and not answered.truncated
    assert (answered.reward, answered.success) == (reward, reward == 1)


def test_an_answer_before_the_question_earns_nothing_and_there_is_nothing_after_the_question():
    assert play("next", "answer: 7 4")[-1].reward == 0
    *_, after = play(*["next"] * 6, task=MemoryTask(notes=4, editing=False))
    assert told(after) == "[6] error: the question has been asked"


def test_without_editing_no_edit_can_be_read_and_nothing_is_said_of_one():
    task = MemoryTask(notes=4, editing=False)
    assert told(play("next", "drop 1", task=task)[-1]) == "[2] error: no such command"
    assert "drop" not in task.system


def test_what_an_action_answers():
    assert MemoryTask().answer("answer: 7, 4") == MemoryTask().answer("ANSWER: 7 4") == "7 4"
    assert MemoryTask().answer("answer: none") is MemoryTask().answer("next") is MemoryTask().answer("7 4") is None


# ---- episodes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        "",
        ":wanted=1,room=3,notes=3",
        ":notes=16,wanted=5,room=7,max_turns=40",
        ":notes=5,wanted=3,room=5",
        ":editing=no",
    ],
)
@pytest.mark.parametrize("split", ["train", "test"])
def test_the_task_accepts_its_solutions_and_no_corrupted_one(options, split):
    make(f"memory{options}").check(30, split)


def test_without_a_limit_reading_on_solves_the_task():
    task = make("memory:editing=no")
    task.check(30)
    assert list(task.solution("train", 0))[:-1] == ["next"] * 7


def test_a_solution_edits_whenever_room_runs_out_and_never_exceeds_it():
    task = MemoryTask(notes=12, wanted=2, room=4, max_turns=40)
    for index in range(10):
        environment = task.environment("train", index)
        environment.reset()
        contexts = []
        for action in task.solution("train", index):
            contexts.append(environment.step(action).observation.context)
            assert len(environment.entries) <= 4
        assert contexts[-1] >= 4


def test_no_test_stream_is_a_train_stream():
    streams = [
        {MemoryTask(notes=2, wanted=1, editing=False).stream(s, n) for n in range(100)} for s in ("train", "test")
    ]
    assert not streams[0] & streams[1]


@pytest.mark.parametrize(
    "options",
    ["room=3", "room=7", "notes=2,wanted=2", "notes=17", "wanted=0", "max_turns=14", "max_new_tokens=0", "tools=1"],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(InputError, match="memory"):
        make(f"memory:{options}")
