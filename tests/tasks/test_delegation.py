"""Delegation: who reads what, what a planner is told, what is noted of whom, and which tasks it is for."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import pytest

from stratagem.errors import InputError
from stratagem.tasks import DelegatedTask, SearchTask, Split, Step, make
from stratagem.tasks.corpus import Passage
from stratagem.tasks.delegation import LONGEST_RESULT, NO_RESULT
from stratagem.tasks.search import Question

MARK = "xq7"
"""Stands in every document and nowhere else."""

TASK = "<think>a</think><task>find it</task>"
SEARCH = "<think>a</think><search>mark</search>"
RESULT = "<refine>it is there</refine><answer>a result</answer>"


@dataclass(frozen=True)
class MarkedTask(SearchTask):
    """Documents of words that are marked."""

    def question(self, split: Split, index: int) -> Question:
        question = super().question(split, index)
        marked = (f"mark {' '.join(f'{MARK}{number}' for number in range(self.length))}",)
        return question._replace(answers=("Oslo",), passages=tuple(Passage("mark", text) for text in marked))


def played(*actions: str, planner_turns: int = 6, index: int = 0, **options) -> list[Step]:
    task = DelegatedTask(MarkedTask(**options), planner_turns)
    environment = task.environment("train", index)
    environment.reset()
    return [environment.step(action) for action in actions]


def noted(steps: list[Step], name: str) -> float:
    return sum(step.components.get(name, 0.0) for step in steps)


# ---- contexts and roles ---------------------------------------------------------------------------------------------


def test_every_call_is_a_conversation_of_its_own_that_opens_with_its_task_alone():
    steps = played(TASK, SEARCH, RESULT, "<task>again</task>", RESULT, "<answer>Oslo</answer>")
    seen = [(step.observation.role, step.observation.context) for step in steps]
    assert seen == [(1, 1), (1, 1), (0, 0), (1, 2), (0, 0), (0, 0)]
    opened = steps[0].observation
    assert [message["content"] for message in opened.opening][1] == "find it" == opened.text
    assert opened.opening[0]["role"] == "system" and "<refine>" in opened.opening[0]["content"]
    assert steps[1].observation.opening == ()
    assert MARK in steps[1].observation.text
    assert steps[2].observation.text == "<result>a result</result>"


def test_a_planner_never_reads_a_document_whatever_is_done():
    """Random actions, malformed ones and searches of the planner among them."""
    source = Random(7)
    choices = [
        *(TASK, SEARCH, RESULT, "", "<answer>no", "<task></task>", "<refine>mark</refine>", "<result>a</result>"),
        *(f"{SEARCH}<answer>x</answer>", "<search>mark</search><task>mark</task>", "mark"),
    ]
    read = 0
    for episode in range(40):
        environment = DelegatedTask(MarkedTask(max_turns=3)).environment("train", episode)
        observations = [environment.reset()]
        for _ in range(30):
            step = environment.step(source.choice(choices))
            observations.append(step.observation)
            if step.done:
                break
        else:
            raise AssertionError("the episode must end")
        assert not any(MARK in o.text or MARK in str(o.opening) for o in observations if o.role == 0)
        assert all((o.role == 0) == (o.context == 0) for o in observations)
        read += sum(MARK in o.text for o in observations if o.role == 1)
    assert read > 10


@pytest.mark.parametrize("length", [16, 256])
def test_what_a_planner_reads_grows_with_tasks_and_results_alone(length):
    sizes = []
    for calls in (1, 2, 3):
        actions = [TASK, SEARCH, RESULT] * calls
        steps = played(*actions, length=length)
        says = [action for action in actions if action == TASK]
        sizes.append(sum(map(len, says)) + sum(len(s.observation.text) for s in steps if s.observation.role == 0))
    slope = len(TASK) + len("<result>a result</result>")
    assert sizes == [slope, 2 * slope, 3 * slope]


def test_an_executor_is_not_told_the_question_and_states_say_what_each_knows():
    task = DelegatedTask(SearchTask())
    first, second = (task.environment("train", 1) for _ in range(2))
    question = first.reset().text
    assert second.reset().text == question
    ours, theirs = first.step(TASK).observation, second.step(f"{TASK} and more").observation
    assert ours.state_key == theirs.state_key and question not in str(ours)
    assert first.step(RESULT).observation.state_key == second.step(RESULT).observation.state_key
    assert first.step(TASK).observation.state_key == ours.state_key  # The same task, begun anew.


# ---- results --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("executor", "result"),
    [
        ([SEARCH] * 3, NO_RESULT),
        ([SEARCH, "", "nothing"], NO_RESULT),
        (["<answer> </answer>"], NO_RESULT),
        ([SEARCH, SEARCH, "<search>a</search><answer>late</answer>"], NO_RESULT),
        ([SEARCH, "<answer>\n found </answer>"], "found"),
        ([f"<answer>{'long ' * 200}</answer>"], ("long " * 200)[:LONGEST_RESULT]),
    ],
)
def test_an_executor_that_does_not_answer_within_its_turns_has_no_result(executor, result):
    steps = played(TASK, *executor, max_turns=3)
    assert steps[-1].observation.text == f"<result>{result}</result>" and not steps[-1].done


def test_an_executors_answer_pays_nothing_though_it_is_right():
    steps = played(TASK, "<answer>Oslo</answer>", "<answer>Rome</answer>")
    assert [step.reward for step in steps] == [0, 0, 0] and not steps[-1].success
    assert noted(steps, "exact") == 0


# ---- what is noted --------------------------------------------------------------------------------------------------


def test_formats_are_means_over_calls_and_refine_is_whether_any_call_noted_the_answer():
    right = "<refine>so it is Oslo</refine><answer>Oslo</answer>"
    steps = played(TASK, SEARCH, right, TASK, "<answer>a</answer>", "<think>b</think><answer>Oslo</answer>")
    assert steps[-1].components == {
        "exact": 1, "format": 0, "planner_format": 1, "executor_format": 0.5, "refine": 1, "delegations": 2,
    }  # fmt: skip
    assert noted(steps, "calls") == 1
    without = played(TASK, SEARCH, RESULT, "<answer>Oslo</answer>")[-1].components
    assert (without["refine"], without["executor_format"], without["format"]) == (0, 1, 1)


def test_an_answer_without_a_call_has_no_executor_format():
    last = played("<think>a</think><answer>Oslo</answer>")[-1]
    assert (last.reward, last.success) == (1, True)
    assert [last.components[name] for name in ("planner_format", "executor_format", "refine", "delegations")] == [0] * 4


def test_malformed_turns_are_counted_whoever_makes_them_and_pay_nothing():
    steps = played("", "<task> </task>", SEARCH, TASK, "hm", "<search></search>", RESULT, "<answer>Rome</answer>")
    assert [step.components.get("malformed", 0) for step in steps] == [1, 1, 1, 0, 1, 1, 0, 0]
    assert [step.observation.role for step in steps] == [0, 0, 0, 1, 1, 1, 0, 0]
    assert steps[0].observation.text.startswith("error: write <task>")


def test_a_planner_out_of_turns_earns_nothing():
    steps = played(TASK, RESULT, TASK, planner_turns=2)
    assert (steps[-1].done, steps[-1].truncated, steps[-1].reward) == (True, True, 0)
    assert steps[-1].components["delegations"] == 1 and noted(steps, "malformed") == 0
    wrong = played("", "", planner_turns=2)
    assert wrong[-1].truncated and noted(wrong, "malformed") == 2


def test_every_reward_that_a_step_names_is_one_of_the_task():
    for spec in ("delegated:search", "delegated:toolbox", "delegated:experts"):
        task = make(spec)
        assert isinstance(task, DelegatedTask)
        assert task.reward_weights == (1.0, *[0.0] * (len(task.reward_names) - 1))
        for index in range(4):
            environment = task.environment("train", index)
            environment.reset()
            for action in ["x", *task.solution("train", index)]:
                assert set(environment.step(action).components) <= set(task.reward_names)


# ---- the task -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["search", "search,planner_turns=2", "search,planner_turns=1", "toolbox", "experts"])
def test_the_task_proves_its_verifier_whatever_is_delegated(spec):
    task = make(f"delegated:{spec}")
    assert isinstance(task, DelegatedTask)
    assert task.check(12).corruptions_rejected == 12 and task.check(8, "test").solutions_accepted == 8


def test_a_solution_hands_out_one_sub_task_for_every_step():
    task = DelegatedTask(SearchTask())
    for index in range(8):
        environment = task.environment("train", index)
        environment.reset()
        last = [environment.step(action) for action in task.solution("train", index)][-1]
        assert last.reward == 1 and last.components == {
            "exact": 1, "format": 1, "planner_format": 1, "executor_format": 1, "refine": last.components["refine"],
            "delegations": len(SearchTask().question("train", index).steps),
        }  # fmt: skip
        # Whether two were born in the same city stands in no note.
        assert last.components["refine"] == (SearchTask().question("train", index).kind != "compare")


def test_an_episode_ends_within_the_turns_of_the_task():
    task = make("delegated:search,planner_turns=3,max_turns=4")
    environment = task.environment("train", 0)
    environment.reset()
    turns = 0
    while True:
        turns += 1
        if environment.step("<task>a</task>").done:
            break
    assert turns == task.max_turns == 3 + 2 * 4
    environment.close()


def test_an_episode_can_be_closed_and_begun_again_in_the_middle_of_a_call():
    environment = DelegatedTask(MarkedTask()).environment("train", 0)
    first = environment.reset()
    environment.step(TASK)
    assert environment.reset() == first
    assert environment.step(TASK).observation.context == 1
    environment.close()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("delegated", "needs another task"),
        ("delegated:no_such_task", "unknown task"),
        ("delegated:key_door", "cannot be delegated"),
        ("delegated:delegated:search", "cannot be delegated"),
        ("delegated:lab:corridor", "is not played in text"),
        ("delegated:search,planner_turns=0", "planner_turns=0 is not allowed"),
        ("delegated:search,planner_turns=x", "planner_turns='x' is not allowed"),
        ("delegated:search,lengths=8", "unknown option of task 'search'"),
    ],
)
def test_what_cannot_be_delegated_is_refused(spec, message):
    with pytest.raises(InputError, match=message):
        make(spec)
