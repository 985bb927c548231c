"""The reading task: what is shown and remembered, what is malformed, and that the evidence is enough."""

from __future__ import annotations

import pytest

from stratagem.errors import InputError
from stratagem.tasks import ReadingTask, Step, make
from stratagem.tasks.mixture import Mixture, domain_of, owner
from stratagem.tasks.reading import KINDS, Document, ReadingEnvironment, written

DOCUMENT = Document(("a = 1", "b = 2", "c = 3"), "What is c?", "Answer with a digit.", "3", ("c = 3",))
TASK = ReadingTask(lines=6, part=2, room=12)


def play(*actions: str, document: Document = DOCUMENT, task: ReadingTask = TASK) -> list[Step]:
    environment = ReadingEnvironment(document, task)
    environment.reset()
    return [environment.step(action) for action in actions]


def told(step: Step) -> list[str]:
    return step.observation.text.split("\n")


def test_each_part_is_read_with_the_question_the_memory_and_the_plan_before_it():
    first = ReadingEnvironment(DOCUMENT, TASK).reset()
    assert first.text.split("\n") == [
        "Question: What is c?",
        "Memory: (empty)",
        "Plan: (none)",
        "Part 1 of 2:",
        "a = 1",
        "b = 2",
    ]
    second, asked, end = play(written("no c yet", "look for c"), written("c = 3", ""), "<answer> 3 </answer>")
    assert told(second) == ["Question: What is c?", "Memory: no c yet", "Plan: look for c", "Part 2 of 2:", "c = 3"]
    assert told(asked) == ["Question: What is c? Answer with a digit.", "Memory: c = 3"]
    assert [step.observation.context for step in (second, asked)] == [1, 2]
    assert (end.reward, end.done, end.success, end.well_formed) == (1, True, True, True)


@pytest.mark.parametrize("action", ["c", "<memory>x", "<memory>x</memory><memory>y</memory>", "<answer>3</answer>"])
def test_a_malformed_turn_leaves_memory_and_plan_as_they_were(action):
    second, asked = play(written("old", "older"), action)
    assert second.well_formed and not asked.well_formed and not asked.done
    assert told(asked)[1] == "Memory: old"


def test_a_memory_that_is_too_long_loses_its_end_and_is_not_well_formed():
    words = [str(number) for number in range(13)]
    second, third = play(written(" ".join(words), "x"), written(" ".join(words[:12]), " ".join(words)))
    assert told(second)[1] == f"Memory: {' '.join(words[:12])}" and not second.well_formed
    assert told(third)[1] == f"Memory: {' '.join(words[:12])}" and not third.well_formed


@pytest.mark.parametrize(
    "said", ["<answer>4</answer>", "3", "<answer>3</answer><answer>3</answer>", "<answer></answer>"]
)
def test_anything_but_one_right_answer_earns_nothing(said):
    *_, end = play(written("", ""), written("c = 3", ""), said)
    assert (end.reward, end.done, end.success) == (0, True, False)


def test_an_empty_document_is_answered_from_an_empty_memory():
    first = ReadingEnvironment(DOCUMENT._replace(lines=()), TASK).reset()
    assert first.text.split("\n") == ["Question: What is c? Answer with a digit.", "Memory: (empty)"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("parts", [1, 5, 50])
def test_who_remembers_the_evidence_is_right_however_many_parts_and_reads_little_at_once(kind, parts):
    task = ReadingTask(kind=kind, lines=6 * parts, part=6, room=12)
    for index in range(4):
        environment = task.environment("test", index)
        shown = [environment.reset().text]
        for action in task.solution("test", index):
            step = environment.step(action)
            assert step.well_formed
            shown.append(step.observation.text)
        assert step.success and len(shown) == parts + 2
        # Question, memory, plan, the number of the part, and six lines, whatever the length of the document.
        assert max(len(text.split()) for text in shown) <= 25 + 12 + 12 + 7 + 6 * 4


def test_whole_documents_are_shown_at_once_and_answered():
    task = ReadingTask(lines=6, whole=True)
    environment = task.environment("train", 0)
    assert environment.reset().text.split("\n")[:6] == list(task.document("train", 0).lines)
    assert task.max_turns == 1 and len(list(task.solution("train", 0))) == 1


def test_the_last_value_of_a_name_is_the_answer_and_the_format_is_not_told_while_reading():
    task = ReadingTask(kind="latest", part=5)
    for index in range(5):
        document = task.document("train", index)
        name = document.evidence[0].split()[0]
        of_name = [line for line in document.lines if line.startswith(f"{name} ")]
        assert of_name == list(document.evidence) and document.answer == of_name[-1].split()[-1]
        assert document.format not in task.environment("train", index).reset().text


def test_every_kind_proves_itself_and_a_mixture_of_all_has_a_domain_for_each():
    for kind in KINDS:
        for split in ("train", "test"):
            make(f"reading:kind={kind}").check(6, split)
    mixed = make("reading:kind=mixed,lines=12")
    mixed.check(10)
    assert [owner(mixed, index).kind for index in range(7)] == [*KINDS, *KINDS[:2]]
    assert [domain_of(mixed, index) for index in range(7)] == [0, 1, 2, 3, 4, 0, 1]


def test_options_out_of_range_are_refused():
    with pytest.raises(InputError, match="task 'reading'"):
        ReadingTask(lines=5)
    with pytest.raises(InputError, match="task 'reading'"):
        make("reading:kind=poem")


# ---- balance --------------------------------------------------------------------------------------------------------


def test_every_batch_of_a_mixture_has_as_many_episodes_of_each_task_and_each_in_its_own_order():
    mixture = Mixture([ReadingTask(kind=kind) for kind in KINDS])
    seen = {kind: [] for kind in KINDS}
    for step in range(1000):
        batch = [mixture.member(index) for index in range(20 * step, 20 * (step + 1))]
        counts = [sum(task.kind == kind for task, _ in batch) for kind in KINDS]
        assert counts == [4] * 5
        for task, inner in batch:
            seen[task.kind].append(inner)
    # A task of n episodes is read modulo n: none comes again before all have come.
    assert all(numbers == list(range(4000)) for numbers in seen.values())
    odd = [domain_of(mixture, index) for index in range(24)]
    assert [odd[:12].count(task) for task in range(5)] == [3, 3, 2, 2, 2]
    assert [odd.count(task) for task in range(5)] == [5, 5, 5, 5, 4]


def test_an_episode_of_no_mixture_is_of_the_first_domain():
    assert domain_of(TASK, 3) == 0
    assert domain_of(Mixture([TASK, Mixture([TASK, TASK])]), 3) == 1
