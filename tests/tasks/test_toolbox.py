"""The toolbox task: the grammar of its tags, what tools return, scores by kind of question, and what is counted."""

from __future__ import annotations

import pytest

from stratagem.errors import InputError
from stratagem.tasks import ToolboxTask, make
from stratagem.tasks.toolbox import KINDS, Question, ToolboxEnvironment, well_formed

FACT = "Warehouse 318 is in Lima and holds 4172 crates."
LOOKUP = Question("lookup", "In which city is warehouse 318?", "Lima", {"warehouse 318": FACT}, ())
PRODUCT = Question("product", "What is 12*7?", "84", {}, ())
WORTH = Question("worth", "What are its crates worth at 10 each?", "41720", {"warehouse 318": FACT}, ())


def last(question: Question, *actions: str, max_turns: int = 4):
    environment = ToolboxEnvironment(question, max_turns)
    environment.reset()
    return [environment.step(action) for action in actions][-1]


# ---- grammar --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("turns", "formed"),
    [
        (["<think>a</think><answer>3</answer>"], True),
        (["<think>a</think>\n<code>1+2</code>\n", " <answer>3</answer>"], True),
        (["<answer>3</answer> done"], False),
        (["so <answer>3</answer>"], False),
        (["<answer>3</answer><think>a</think>"], False),
        (["<answer>3</answer><answer>4</answer>"], False),
        (["<code>1+2</code>"], False),
        (["<think>a<answer>3</answer>"], False),
        (["<think>a</think><answer>3"], False),
        (["<response>3</response><answer>3</answer>"], False),
        (["<code>1</code> hm", "<answer>3</answer>"], False),
        ([""], False),
        ([], False),
    ],
)
def test_a_well_formed_episode_is_nothing_but_tags_with_the_answer_last(turns, formed):
    assert well_formed(turns) is formed


@pytest.mark.parametrize(
    ("actions", "reward", "formed", "calls"),
    [
        (["<code>12*7</code>", "<answer>84</answer>"], 1, 1, 1),
        (["<code>12*7</code><search>seven</search>", "<answer>84</answer>"], 1, 1, 2),
        (["<answer>84</answer>"], 1, 1, 0),
        (["<answer>84</answer> I think"], 1, 0, 0),
        (["<code>12*7</code> hm", "<answer>84</answer>"], 1, 0, 1),
        (["84"], 0, 0, 0),
        (["<think>84</think>"], 0, 0, 0),
        (["<answer>85</answer><code>12*7</code>"], 0, 0, 0),
    ],
)
def test_score_format_and_calls_are_told_apart(actions, reward, formed, calls):
    step = last(PRODUCT, *actions)
    assert (step.reward, step.done, step.truncated) == (reward, True, False)
    assert step.components == {"format": formed, "calls": calls}
    assert step.success == bool(reward and formed)
    assert list(step.components) == list(ToolboxTask.reward_names[1:])


def test_format_and_calls_count_nothing_in_the_return():
    assert ToolboxTask().reward_weights == (1.0, 0.0, 0.0)


# ---- tools and scores -----------------------------------------------------------------------------------------------


def test_tools_answer_one_after_the_other_between_response_tags():
    told = last(WORTH, "<search>Warehouse 318?</search><code>4172*10</code><code>1/0</code>").observation.text
    assert told.splitlines() == [
        f"<response>{FACT}</response>",
        "<response>41720</response>",
        "<response>error: division by zero</response>",
    ]
    assert last(LOOKUP, "<search>warehouse 31</search>").observation.text == "<response>nothing found</response>"


@pytest.mark.parametrize(
    ("question", "answer", "score"),
    [
        (PRODUCT, "84.0005", 1),
        (PRODUCT, "84.002", 0),
        (PRODUCT, "eighty-four", 0),
        (LOOKUP, "It is Lima, Peru", 1),
        (LOOKUP, "Limo", 0.75),
        (LOOKUP, "Rome", 0),
        (LOOKUP, "", 0),
        (WORTH, "41000", 1),
        (WORTH, "39000", 0),
    ],
)
def test_answers_are_scored_by_the_kind_of_question(question, answer, score):
    step = last(question, f"<answer>{answer}</answer>")
    assert (step.reward, step.success) == (score, score > 0.9)


def test_calls_without_an_answer_run_out_of_turns():
    step = last(PRODUCT, "<code>1</code>", "<code>2</code>", max_turns=2)
    assert (step.done, step.truncated, step.success, step.reward) == (True, True, False, 0)
    assert step.components == {"format": 0, "calls": 2}


# ---- the task -------------------------------------------------------------------------------------------------------


def test_the_task_proves_its_verifier_for_every_kind_and_wrong_answer():
    assert ToolboxTask().check(24).corruptions_rejected == 24
    for kind in KINDS:
        assert make(f"toolbox:kind={kind},max_turns=1").check(6, "test").solutions_accepted == 6


def test_solutions_call_no_tool_that_is_not_needed():
    calls = [len(list(ToolboxTask(kind=kind).solution("train", 0))) - 1 for kind in KINDS]
    assert calls == [0, 1, 1, 2]
    kinds = [ToolboxTask().question("train", index).kind for index in range(8)]
    assert kinds == [*KINDS, *KINDS]


def test_no_test_question_is_a_train_question():
    texts = [{ToolboxTask().question(split, index).text for index in range(100)} for split in ("train", "test")]
    assert not texts[0] & texts[1]


def test_an_answer_is_what_its_tag_holds():
    assert ToolboxTask().answer("<think>a</think><answer> Lima. </answer>") == "lima"
    assert ToolboxTask().answer("Lima") is ToolboxTask().answer("<answer></answer>") is None


@pytest.mark.parametrize("options", ["kind=riddle", "max_turns=0", "tools=3"])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(InputError, match="toolbox"):
        make(f"toolbox:{options}")
