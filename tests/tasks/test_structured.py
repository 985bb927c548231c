"""Turns of several parts around any text task: what is read, what the environment is shown, what is counted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stratagem.errors import InputError
from stratagem.spans import Span
from stratagem.tasks import CalculatorTask, KeyDoorTask, StructuredTask, Task, make
from stratagem.tasks.structured import read_plan

WHOLE = "<switch>SWITCH</switch><subgoal>fetch the key</subgoal><action>go north</action>"


def parts(text: str) -> dict[Span, str]:
    return {span: text[begin:end] for span, (begin, end) in read_plan(text).parts.items()}


def test_a_whole_plan_is_read_to_the_character():
    plan = read_plan(f"Well. {WHOLE} so be it")
    assert parts(f"Well. {WHOLE} so be it") == {
        Span.SWITCH: "SWITCH",
        Span.SUBGOAL: "fetch the key",
        Span.ACTION: "go north",
    }
    assert (plan.switches, plan.action, plan.complete(first=True)) == (True, "go north", True)


def test_space_around_a_part_belongs_to_it_and_is_not_shown():
    text = "<switch> KEEP\n</switch><action> north </action>"
    assert parts(text) == {Span.SWITCH: " KEEP\n", Span.ACTION: " north "}
    plan = read_plan(text)
    assert (plan.switches, plan.action) == (False, "north")
    assert plan.complete() and not plan.complete(first=True)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("", set()),
        ("north", set()),
        (WHOLE.replace("</subgoal>", ""), {Span.SWITCH, Span.ACTION}),
        (WHOLE.replace("SWITCH", "MAYBE"), {Span.SUBGOAL, Span.ACTION}),
        (WHOLE.replace("fetch the key", "  "), {Span.SWITCH, Span.ACTION}),
        (WHOLE + "<action>south</action>", {Span.SWITCH, Span.SUBGOAL}),
        ("<action>north</action><switch>KEEP</switch>", {Span.SWITCH}),
        ("<subgoal>a<action>north</action></subgoal>", {Span.SUBGOAL}),
        ("</action>north<action>", set()),
    ],
)
def test_a_part_that_is_not_well_formed_is_as_if_it_were_not_there(text, read):
    assert set(parts(text)) == read
    assert not read_plan(text).complete()


@given(st.text(alphabet="<>/acdeghilnostuwKEPSWITCH ", max_size=60))
def test_no_text_is_too_strange(text):
    plan = read_plan(text)
    assert all(0 <= begin < end <= len(text) for begin, end in plan.parts.values())
    assert (plan.action is None) == (Span.ACTION not in plan.parts)


def test_the_environment_is_shown_the_action_alone():
    task, plain = StructuredTask(KeyDoorTask()), KeyDoorTask()
    structured, bare = task.environment("train", 3), plain.environment("train", 3)
    assert structured.reset() == bare.reset()
    for action in plain.solution("train", 3):
        found = structured.step(f"<switch>SWITCH</switch><subgoal>x</subgoal><action>{action}</action>")
        assert found == bare.step(action)
    structured.close()


def test_malformed_turns_take_their_turn_and_are_counted():
    task = StructuredTask(KeyDoorTask())
    environment = task.environment("train", 3)
    before = environment.reset()
    keeps = "<switch>KEEP</switch><action>nothing</action>"
    steps = [environment.step(text) for text in (keeps, keeps, "north", WHOLE)]
    counted = [step.components for step in steps]
    assert [step.well_formed for step in steps] == [False, True, False, True]
    # The first turn has to state a sub-goal, later ones may keep it without a word.
    assert counted == [{"malformed": 1.0}, {}, {"malformed": 1.0}, {}]
    assert before.text == task.environment("train", 3).reset().text
    assert (task.reward_names, task.reward_weights) == (("reward", "malformed"), (1.0, 0.0))


@pytest.mark.parametrize("of", [KeyDoorTask(), CalculatorTask()])
def test_a_structured_task_proves_its_verifier(of: Task):
    report = StructuredTask(of).check(episodes=5)
    assert (report.solutions_accepted, report.corruptions_rejected) == (5, 5)
    said = [read_plan(text) for text in StructuredTask(of).solution("train", 0)]
    assert all(plan.complete(first=True) for plan in said)


def test_solutions_switch_when_their_sub_goal_is_reached():
    of = KeyDoorTask()
    said = list(StructuredTask(of).solution("train", 0))
    goals = [text.split("<subgoal>")[1].split("</subgoal>")[0] for text in said]
    actions = [plan.action for plan in map(read_plan, said)]
    take, unlock = actions.index("take") + 1, actions.index("open") + 1
    wanted = ["take the key"] * take + ["open the door"] * (unlock - take)
    assert goals == [*wanted, *["reach the goal"] * (len(said) - unlock)]
    switches = [turn for turn, text in enumerate(said) if read_plan(text).switches]
    assert switches == [0, take, unlock]
    # A task without sub-goals of its own names one.
    calculated = [read_plan(text).switches for text in StructuredTask(CalculatorTask()).solution("train", 0)]
    assert calculated == [True] + [False] * (len(calculated) - 1)


def test_a_demonstrator_with_a_habit_keeps_it_in_structured_turns():
    of, structured = KeyDoorTask(), StructuredTask(KeyDoorTask())
    for habit in (0.0, 1.0):
        said = [read_plan(text).action for text in structured.demonstration("train", 1, habit, 0)]
        assert said == list(of.demonstration("train", 1, habit, 0))
    plain = StructuredTask(CalculatorTask())
    assert list(plain.demonstration("train", 1, 1.0, 0)) == list(plain.solution("train", 1))


def test_the_answer_is_that_of_the_action():
    task = StructuredTask(CalculatorTask())
    assert task.answer("<action>answer: 7</action>") == CalculatorTask().answer("answer: 7")
    assert task.answer("answer: 7") is None


def test_the_system_message_explains_the_form():
    task = StructuredTask(KeyDoorTask())
    assert task.system is not None and KeyDoorTask.system is not None
    assert task.system.startswith(KeyDoorTask.system) and "<subgoal>" in task.system
    assert task.max_new_tokens == KeyDoorTask.max_new_tokens + 64 and task.stop == ("</action>",)


def test_a_structured_task_is_made_with_the_options_of_the_other():
    task = make("structured:key_door:size=8,max_turns=40")
    assert isinstance(task, StructuredTask) and task.of == KeyDoorTask(size=8, max_turns=40)
    assert task.name == "structured:key_door"
    assert make("structured:key_door").max_turns == 32


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("structured", "needs another task"),
        ("structured:no_such_task", "unknown task"),
        ("structured:key_door,sizes=8", "unknown option of task 'key_door'"),
        ("structured:structured:key_door", "already has a reward 'malformed'"),
        ("structured:lab:corridor", "is not played in text"),
    ],
)
def test_what_cannot_be_structured_is_refused(spec, message):
    with pytest.raises(InputError, match=message):
        make(spec)
