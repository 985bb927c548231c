"""The search task: its world and documents, what a search finds, what answers earn, and what is counted."""

from __future__ import annotations

import builtins
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stratagem.errors import InputError
from stratagem.tasks import SearchTask, make
from stratagem.tasks.answers import answer_f1, equals_any, holds_any
from stratagem.tasks.corpus import Passage, documents, found, made_up
from stratagem.tasks.search import KINDS, Question, SearchEnvironment
from stratagem.tasks.tags import contents, first_tag, in_form

OPENED = "<think>a</think>"


def outcome(answers: tuple[str, ...], *actions: str, **options: Any):
    """The last step of an episode with these right answers."""
    question = Question("one", "Where?", answers, (), (Passage("Ada", "Ada was born in Oslo."),))
    environment = SearchEnvironment(question, SearchTask(**options))
    environment.reset()
    return [environment.step(action) for action in actions]


# ---- answers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("response", "references", "score"),
    [
        ("the eiffel tower", ["Eiffel Tower"], 1),
        ("tower", ["Eiffel Tower"], 2 / 3),
        ("yes", ["no"], 0),
        ("yes", ["Yes."], 1),
        ("yes it was", ["yes"], 0),
        ("yes", ["yes it was"], 0),
        ("", ["Eiffel Tower"], 0),
        ("the", ["a"], 0),
        ("Oslo Oslo", ["Oslo"], 2 / 3),
        ("Oslo", ["Rome", "Oslo, Norway"], 2 / 3),
        ("Oslo", [], 0),
    ],
)
def test_an_answers_f1_is_that_of_the_reference_it_fits_best(response, references, score):
    assert answer_f1(response, references) == pytest.approx(score)


@given(st.text(max_size=20), st.text(max_size=20))
def test_f1_lies_between_nothing_and_equal_and_does_not_care_which_is_which(first, second):
    score = answer_f1(first, [second])
    assert 0 <= score <= 1 and score == pytest.approx(answer_f1(second, [first]))
    assert not equals_any(first, [second]) or score in (0, 1)


def test_an_answer_is_held_as_whole_words_one_after_the_other():
    assert holds_any("It was the Eiffel Tower, I think", ["Rome", "Eiffel Tower"])
    assert not holds_any("the tower of Eiffel", ["Eiffel Tower"])
    assert not holds_any("towers", ["tower"])
    assert not holds_any("anything", ["", "the"])


# ---- tags -----------------------------------------------------------------------------------------------------------


def test_the_first_closed_tag_is_what_a_turn_does():
    assert first_tag("<answer>a<search> b </search></answer>", "search", "answer") == (
        "answer",
        "a<search> b </search>",
    )
    assert first_tag("<search>a<answer>b</answer>", "search", "answer") == ("answer", "b")
    assert first_tag("<think>a</think>", "search", "answer") is first_tag("", "search") is None
    assert contents("<refine>a</refine> <refine>b\n</refine><refine>c", "refine") == ["a", "b\n"]


@pytest.mark.parametrize(
    ("said", "formed"),
    [
        (["<a>1</a><b>2</b>"], True),
        (["<a>1</a>", "<b>2</b><b>3</b>"], True),
        (["<a>1", "</a><b></b>"], True),
        (["<a>1</a>"], False),
        (["<a>1</a><b>2"], False),
        (["<a>1</a><b>2</b></b>"], False),
        (["<a>1</a><b>2</b><told>3"], False),
        ([], False),
    ],
)
def test_in_form_each_wanted_tag_is_there_and_closed_as_often_as_opened(said, formed):
    assert in_form(said, ("a", "b"), forbidden=("told",)) is formed


# ---- the world ------------------------------------------------------------------------------------------------------


def test_most_people_share_a_name_with_others():
    world = made_up(Random(1), 12)
    assert len(set(world.people)) == 12
    first, last = zip(*(name.split() for name in world.people), strict=True)
    shared = sum(first.count(name.split()[0]) > 1 or last.count(name.split()[1]) > 1 for name in world.people)
    assert shared >= 10
    assert all(world.facts["mentor"][name] != name for name in world.people)


@pytest.mark.parametrize("people", [4, 5, 100])
@pytest.mark.parametrize("length", [1, 16, 256])
def test_documents_tell_all_facts_and_are_as_long_as_they_are_asked_to_be(people, length):
    world = made_up(Random(2), people)
    told = documents(world, length, Random(3))
    assert [passage.title for passage in told] == list(world.subjects)
    for passage in told:
        facts = [objects[passage.title] for objects in world.facts.values() if passage.title in objects]
        assert facts and all(fact in passage.text for fact in facts)
        words = len(passage.text.split())
        assert words >= length and (length == 1 or words < length + 20)


def test_the_document_of_a_full_name_is_found_among_those_that_share_it():
    for length in (1, 24, 256):
        task = SearchTask(length=length)
        for index in range(12):
            question = task.question("train", index)
            for step in question.steps:
                assert found(question.passages, step.subject, 3)[0].title == step.subject
                assert step.answer in found(question.passages, step.subject, 1)[0].text


def test_a_search_finds_what_fits_best_and_nothing_without_a_word_in_common():
    texts = ("red fox", "red red fox den", "blue whale", "red fox")
    passages = tuple(Passage(str(number), text) for number, text in enumerate(texts))
    assert [passage.title for passage in found(passages, "WHALE!", 3)] == ["2"]
    assert [passage.title for passage in found(passages, "fox", 2)] == ["0", "3"]
    assert found(passages, "den", 3)[0].title == "1"
    assert found(passages, "zebra", 3) == found(passages, "?!", 3) == []
    assert len(found(passages, "red zebra blue", 10)) == 4


def test_a_search_without_its_library_says_how_to_install_it(monkeypatch):
    imported = builtins.__import__

    def refuse(name: str, *rest: Any, **options: Any) -> Any:
        if name.startswith("bm25s"):
            raise ImportError("No module named 'bm25s'")
        return imported(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    monkeypatch.setattr("importlib.import_module", refuse)
    with pytest.raises(InputError, match=r"pip install 'stratagem\[agents\]'"):
        found((Passage("a", "words no other test searches"),), "words", 1)


# ---- the task -------------------------------------------------------------------------------------------------------


def test_the_task_proves_its_verifier_for_every_kind_of_question():
    assert SearchTask().check(24).corruptions_rejected == 24
    for kind in KINDS:
        for reward in ("f1", "exact", "contains"):
            assert make(f"search:kind={kind},max_turns=1,reward={reward}").check(12, "test").solutions_accepted == 12


def test_questions_of_one_to_three_steps_name_only_where_they_start():
    for index, hops in enumerate([1, 2, 3, 2]):
        question = SearchTask().question("train", index)
        assert (question.kind, len(question.steps)) == (KINDS[index], hops)
        assert question.steps[0].subject in question.text
        if question.kind != "compare":
            assert all(step.answer == then.subject for step, then in pairwise(question.steps))
            assert question.answers[0] == question.steps[-1].answer
    yes_or_no = {SearchTask(kind="compare").question("train", index).answers for index in range(20)}
    assert yes_or_no == {("yes",), ("no",)}


def test_solutions_are_in_form_and_search_once_for_every_step():
    for index in range(8):
        environment = SearchTask().environment("train", index)
        environment.reset()
        steps = [environment.step(action) for action in SearchTask().solution("train", index)]
        assert (steps[-1].reward, steps[-1].success) == (1, True)
        assert steps[-1].components == {"exact": 1, "format": 1}
        assert sum(step.components.get("calls", 0) for step in steps) == len(environment.question.steps)


def test_no_question_of_the_test_is_one_of_training_and_episodes_repeat():
    texts = [{SearchTask().question(split, index).text for index in range(60)} for split in ("train", "test")]
    assert not texts[0] & texts[1]
    first = SearchTask(length=20).question("train", 3)
    assert first == SearchTask(length=20).question("train", 3)
    assert first.text == SearchTask(length=21).question("train", 3).text  # Longer documents of the same world.


@pytest.mark.parametrize(
    ("reward", "earned"), [("f1", [1, 0.5, 2 / 3, 0]), ("exact", [1, 0, 0, 0]), ("contains", [1, 1, 1, 0])]
)
def test_what_an_answer_earns(reward, earned):
    said = ["oslo.", "it is Oslo", "Oslo city", "Rome"]
    steps = [outcome(("Oslo",), f"<answer>{answer}</answer>", reward=reward)[-1] for answer in said]
    assert [step.reward for step in steps] == pytest.approx(earned)
    assert [step.success for step in steps] == [True, False, False, False]
    assert [step.components["exact"] for step in steps] == [1, 0, 0, 0]
    assert outcome(("yes",), "<answer>yes or no</answer>", reward=reward)[-1].reward == 0


def test_malformed_calls_are_counted_never_fatal_and_never_rewarded():
    actions = ["", "Oslo", "<search> </search>", "<search>x", "<answer>", "<information>Oslo</information>"]
    steps = outcome(("Oslo",), *actions, f"{OPENED}<search>Ada</search>", "<answer>Oslo</answer>", max_turns=10)
    assert [step.components.get("malformed", 0) for step in steps] == [1] * 6 + [0, 0]
    assert [step.reward for step in steps] == [0] * 7 + [1]
    assert all(step.observation.text.startswith("error: ") for step in steps[:6])
    assert "born in Oslo" in steps[6].observation.text
    assert steps[-1].components["format"] == 0  # It wrote what only a search says.


def test_an_episode_out_of_turns_is_truncated_and_earns_nothing():
    *_, last = outcome(("Oslo",), "<search>Ada</search>", "<search>zebra</search>", max_turns=2)
    assert last.observation.text == "<information>nothing found</information>"
    assert (last.done, last.truncated, last.success, last.reward) == (True, True, False, 0)
    assert last.components == {"exact": 0, "format": 0, "calls": 1}


def test_a_state_is_the_question_and_what_was_searched_for():
    def keys(*actions: str) -> list[int]:
        return [step.observation.state_key for step in outcome(("Oslo",), *actions)]

    assert keys("<search>Ada</search>") == keys(f"{OPENED}<search>Ada</search>")
    assert keys("<search>Ada</search>") != keys("<search>Ada Oslo</search>")


def test_an_answer_is_what_its_tag_holds():
    task = SearchTask()
    assert task.answer("<think>a</think><answer>The Oslo.</answer>") == "oslo"
    assert task.answer("Oslo") is task.answer("<answer></answer>") is task.answer("<search>a</search>") is None


def test_what_is_noted_counts_nothing_in_the_return():
    assert SearchTask().reward_weights == (1.0, 0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize("options", ["kind=four", "people=3", "length=0", "top_k=0", "reward=bleu", "pages=3"])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(InputError, match="search"):
        make(f"search:{options}")
