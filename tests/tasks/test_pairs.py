"""Labelled pairs: what a line must hold, what becomes of contradictions, and what candidates earn."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stratagem.errors import InputError
from stratagem.tasks import PairsTask, make
from stratagem.tasks.labels import read_labels
from stratagem.tasks.task import state_key

GOOD = {"prompt": "2 + 3?", "chosen": "5", "rejected": "6"}
TURNED = {"prompt": "2 + 3?", "chosen": "6", "rejected": "5"}


def write(folder: Path, *lines: object) -> str:
    path = folder / "labels.jsonl"
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return str(path)


def task(folder: Path, *lines: object, **options: object) -> PairsTask:
    return PairsTask(write(folder, *lines), test_share=0, **options)


def earned(of: PairsTask, index: int, answer: str) -> tuple[float, float, bool]:
    step = of.environment("train", index).step(answer)
    return step.reward, step.components["margin"], step.success


# ---- lines ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "not JSON"),
        ({**GOOD, "prompt": None}, "prompt is missing"),
        ({"prompt": "a"}, "chosen and rejected are missing"),
        ({"prompt": "a", "chosen": "b"}, "rejected is missing: a pair has two answers"),
        ({"prompt": "a", "rejected": "b"}, "chosen is missing: a pair has two answers"),
        ({"prompt": "a", "chosen": " ", "rejected": "b"}, "chosen must be text and not empty"),
        ({"prompt": "a", "chosen": "b", "rejected": 3}, "rejected must be text and not empty"),
        ({"prompt": "a", "chosen": "b", "rejected": " b\n"}, "chosen and rejected are the same answer"),
        ({**GOOD, "tie": 1}, "tie must be true or false, not 1"),
        ({**GOOD, "margin": -1}, "margin must be a number, at least 0, not -1"),
        ({**GOOD, "margin": "much"}, "margin must be a number, at least 0, not 'much'"),
        ({**GOOD, "margin": float("nan")}, "margin must be a number, at least 0, not nan"),
        ({**GOOD, "tie": True, "margin": 2}, "margin is 2 beside a tie"),
        ({**GOOD, "annotator": 7}, "annotator must be text and not empty"),
        (
            {**GOOD, "chosen": [{"role": "user", "content": "5"}]},
            "chosen must be text, or a list of one message by the assistant",
        ),
    ],
)
def test_a_broken_line_is_named_with_path_number_and_reason(tmp_path: Path, line: object, reason: str) -> None:
    path = write(tmp_path, GOOD, "", line)
    with pytest.raises(InputError) as caught:
        PairsTask(path)
    assert str(caught.value).startswith(f"{path}, line 3: ")
    assert reason in str(caught.value) and "\n" not in str(caught.value)


def test_an_answer_may_be_a_message_of_the_assistant(tmp_path: Path) -> None:
    said = {"prompt": [{"role": "user", "content": "2 + 3?"}], "chosen": [{"role": "assistant", "content": "5"}]}
    [label] = read_labels(write(tmp_path, {**said, "rejected": "6"})).labels
    assert (label.prompt, label.chosen, label.rejected, label.line) == ("2 + 3?", "5", "6", 1)


def test_a_file_that_is_not_there_or_empty_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        PairsTask(str(tmp_path / "none.jsonl"))
    with pytest.raises(InputError, match=r'is empty; it needs a line such as \{"prompt"'):
        PairsTask(write(tmp_path))
    with pytest.raises(InputError, match="needs a file: pairs:PATH"):
        make("pairs")
    with pytest.raises(InputError, match="verifier"):
        make(f"pairs:{write(tmp_path, GOOD)},verifier=exact")


# ---- contradictions -------------------------------------------------------------------------------------------------


def test_pairs_labelled_both_ways_are_counted_and_kept_unless_asked_otherwise(tmp_path: Path) -> None:
    other = {"prompt": "1 + 1?", "chosen": "2", "rejected": "3"}
    tie = {**GOOD, "tie": True}
    kept = task(tmp_path, GOOD, other, TURNED, GOOD, tie)
    assert (kept.size("train"), kept.labels_inconsistent, kept.labels_dropped) == (5, 1, 0)
    assert "1 pairs are labelled both ways" in kept.description
    dropped = task(tmp_path, GOOD, other, TURNED, GOOD, tie, inconsistent="drop")
    assert (dropped.size("train"), dropped.labels_inconsistent, dropped.labels_dropped) == (1, 1, 4)
    path = write(tmp_path, GOOD, other, TURNED)
    with pytest.raises(InputError, match=r"line 3: labels the pair of line 1 the other way round; 1 pairs"):
        make(f"pairs:{path},inconsistent=refuse")
    with pytest.raises(InputError, match="inconsistent = drop leaves nothing"):
        task(tmp_path, GOOD, TURNED, inconsistent="drop")
    with pytest.raises(InputError, match="inconsistent"):
        task(tmp_path, GOOD, inconsistent="maybe")


def test_a_tie_contradicts_nobody(tmp_path: Path) -> None:
    assert task(tmp_path, GOOD, {**TURNED, "tie": True}, inconsistent="refuse").labels_inconsistent == 0


def test_what_one_annotator_repeats_counts_once_and_what_others_say_counts_again(tmp_path: Path) -> None:
    anna, ben = {**GOOD, "annotator": "anna"}, {**GOOD, "annotator": "ben"}
    said = task(tmp_path, anna, ben, anna, GOOD, GOOD)
    assert (said.size("train"), said.labels_repeated) == (4, 1)
    alone = task(tmp_path, anna, ben, {**TURNED, "annotator": "ben"}, annotator="anna")
    assert (alone.size("train"), alone.labels_inconsistent) == (1, 0)
    with pytest.raises(InputError, match="no label by annotator 'carl': it has anna, ben"):
        task(tmp_path, anna, ben, annotator="carl")


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans(), st.booleans()), min_size=1, max_size=12))
def test_every_label_is_kept_or_counted(tmp_path_factory: pytest.TempPathFactory, said: list[tuple[int, bool, bool]]):
    lines = [{**(TURNED if turned else GOOD), "prompt": f"{number}", "tie": tie} for number, turned, tie in said]
    path = write(tmp_path_factory.mktemp("labels"), *lines)
    ways = {number: {turned for n, turned, tie in said if n == number and not tie} for number, _, _ in said}
    both = {number for number, seen in ways.items() if len(seen) == 2}
    kept = read_labels(path)
    assert len(kept.labels) == len(said) and kept.inconsistent == len(both)
    if both < set(ways):
        dropped = read_labels(path, inconsistent="drop")
        assert {int(label.prompt) for label in dropped.labels} == set(ways) - both
        assert len(dropped.labels) + dropped.dropped == len(said)


# ---- episodes -------------------------------------------------------------------------------------------------------


def test_candidates_are_the_two_answers_and_earn_what_the_label_says(tmp_path: Path) -> None:
    of = task(tmp_path, {**GOOD, "margin": 3}, {**GOOD, "tie": True})
    assert [list(actions) for actions in of.candidates("train", 0)] == [["5"], ["6"]]
    assert earned(of, 0, " 5\n") == (1.0, 1.5, True) and earned(of, 0, "6") == (0.0, -1.5, False)
    assert earned(of, 1, "5") == earned(of, 1, "6") == (0.5, 0.0, False)
    assert earned(of, 0, "nobody said this") == (0.0, 0.0, False)


def test_lines_with_one_answer_are_kept_where_that_is_asked_for(tmp_path: Path) -> None:
    lines = {"prompt": "a", "chosen": "b"}, {"prompt": "a", "rejected": "c"}
    of = task(tmp_path, *lines, one_sided="keep")
    assert [of.candidates("train", index) for index in (0, 1)] == [[("b",)], [("c",)]]
    assert earned(of, 0, "b")[0] == 1 and earned(of, 1, "c")[0] == 0
    with pytest.raises(InputError, match="chosen and rejected are missing"):
        task(tmp_path, {"prompt": "a"}, one_sided="keep")
    with pytest.raises(InputError, match="rejected is missing"):
        task(tmp_path, {"prompt": "a", "chosen": "b", "tie": True}, one_sided="keep")


def test_it_proves_itself_by_chosen_and_rejected_answers(tmp_path: Path) -> None:
    of = task(tmp_path, {**GOOD, "tie": True}, *[{**GOOD, "prompt": f"{n}?"} for n in range(20)])
    assert of.check(20).solutions_accepted == 20
    with pytest.raises(NotImplementedError, match="line 1: no answer was preferred"):
        of.solution("train", 0)


def test_prompts_are_on_one_side_of_the_split(tmp_path: Path) -> None:
    lines = [{**GOOD, "prompt": f"{n % 40}?", "rejected": f"{n}x"} for n in range(120)]
    of = PairsTask(write(tmp_path, *lines), test_share=0.3)
    sides = [{of.label(split, n).prompt for n in range(of.size(split))} for split in ("train", "test")]
    assert not sides[0] & sides[1] and len(sides[0] | sides[1]) == 40
    assert of.size("train") + of.size("test") == 120 == of.start_states("train") + of.start_states("test")
    with pytest.raises(InputError, match="falls into the test split"):
        PairsTask(write(tmp_path, GOOD), test_share=0.01)
    with pytest.raises(InputError, match="leaves no test prompts"):
        task(tmp_path, GOOD).environment("test", 0)


def test_a_prompt_has_the_key_that_it_has_in_the_task_of_prompts(tmp_path: Path) -> None:
    assert task(tmp_path, GOOD).environment("train", 0).reset().state_key == state_key("jsonl", "2 + 3?")
