"""Learning from comparisons on the command line: every wrong label, oracle and reference is one line."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from stratagem.errors import BrokenRunError
from stratagem.experience import Experience
from stratagem.parts import Preference

FIRST = {"prompt": "2 + 3?", "chosen": "5", "rejected": "6"}
OTHERS = [{"prompt": f"{n} + 1?", "chosen": f"{n + 1}", "rejected": f"{n}"} for n in range(3)]
QUICK = ("--precision", "float32", "--steps", "1", "--episodes", "2", "--out", "run")


@pytest.fixture
def labels(tmp_path: Path) -> Any:
    """Writes lines to ``labels.jsonl``, in the folder the command is called in."""

    def write(*lines: object) -> None:
        texts = (line if isinstance(line, str) else json.dumps(line) for line in (*lines, *OTHERS))
        (tmp_path / "labels.jsonl").write_text("".join(f"{text}\n" for text in texts))

    return write


def refused(said: Any, *words: str) -> None:
    """Exit code 2, and one line that has these words."""
    assert said.code == 2, said
    assert said.out == "" and said.err.startswith("error: ") and said.err.count("\n") == 1
    assert all(word in said.err for word in words), said.err


# ---- labels ---------------------------------------------------------------------------------------------------------


TURNED = {"prompt": "2 + 3?", "chosen": "6", "rejected": "5"}
BROKEN: dict[str, tuple[tuple[object, ...], tuple[str, ...]]] = {
    "identical answers": (
        (FIRST, {"prompt": "2 + 3?", "chosen": "5", "rejected": " 5 "}),
        ("labels.jsonl, line 2: chosen and rejected are the same answer", "a line looks like"),
    ),
    "one-sided": (
        ({"prompt": "2 + 3?", "chosen": "5"},),
        ("labels.jsonl, line 1: rejected is missing: a pair has two answers", "one_sided=keep"),
    ),
    "one-sided, the other side": (
        (FIRST, "", {"prompt": "2 + 3?", "rejected": "5"}),
        ("labels.jsonl, line 3: chosen is missing", "one_sided=keep"),
    ),
    "no answer": (({"prompt": "2 + 3?"},), ("labels.jsonl, line 1: chosen and rejected are missing",)),
    "a tie with a margin": (({**FIRST, "tie": True, "margin": 2},), ("line 1: margin is 2 beside a tie",)),
    "no JSON": ((FIRST, '{"prompt": '), ("labels.jsonl, line 2: not JSON",)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_label_that_cannot_be_used_is_one_line_with_its_place(stratagem, labels, tmp_path, name):
    lines, words = BROKEN[name]
    labels(*lines)
    refused(stratagem("train", "dpo", "--task", "pairs:labels.jsonl", *QUICK), *words)
    assert not (tmp_path / "run").exists()


def test_labels_both_ways_are_refused_by_both_lines_where_that_is_asked_for(stratagem, labels):
    labels(FIRST, TURNED)
    said = stratagem("train", "dpo", "--task", "pairs:labels.jsonl,inconsistent=refuse", *QUICK)
    refused(said, "labels.jsonl, line 2: labels the pair of line 1 the other way round", "inconsistent = refuse")


def test_labels_that_all_contradict_each_other_leave_nothing(stratagem, tmp_path):
    (tmp_path / "labels.jsonl").write_text(f"{json.dumps(FIRST)}\n{json.dumps(TURNED)}\n")
    said = stratagem("train", "dpo", "--task", "pairs:labels.jsonl,inconsistent=drop", *QUICK)
    refused(said, "labels.jsonl: all pairs are labelled both ways, and inconsistent = drop leaves nothing")


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("inconsistent=average", ("inconsistent='average' is not allowed", "'keep', 'drop' or 'refuse'")),
        ("one_sided=drop", ("one_sided='drop' is not allowed", "'refuse' or 'keep'")),
        ("annotator=Ada", ("labels.jsonl: no label by annotator 'Ada'", "its lines name nobody")),
        ("anotator=Ada", ("unknown option of task 'pairs' 'anotator'", "did you mean 'annotator'?")),
    ],
)
def test_an_option_that_is_not_allowed_says_which_are(stratagem, labels, option, words):
    labels(FIRST)
    refused(stratagem("train", "dpo", "--task", f"pairs:labels.jsonl,test_share=0,{option}", *QUICK), *words)


@pytest.mark.parametrize(("task", "words"), [("pairs:gone.jsonl", ("cannot read gone.jsonl",)),
                                             ("pairs", ("task 'pairs' needs a file: pairs:PATH",))])  # fmt: skip
def test_a_file_that_is_not_there_is_named(stratagem, task, words):
    refused(stratagem("train", "dpo", "--task", task, *QUICK), *words)


def test_one_sided_labels_teach_a_recipe_for_single_answers_and_no_recipe_for_pairs(
    stratagem, labels, model_folder, tmp_path
):
    labels({"prompt": "2 + 3?", "chosen": "5"}, {"prompt": "2 + 4?", "rejected": "5"})
    options = ("--task", "pairs:labels.jsonl,one_sided=keep,test_share=0.5", "--model", str(model_folder))
    said = stratagem("train", "kto", *options, *QUICK)
    assert (said.code, said.err) == (0, "")


# ---- pages for people -----------------------------------------------------------------------------------------------


def test_two_answers_that_are_the_same_are_not_shown_to_a_person(stratagem, tmp_path):
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "2 + 3?", "first": "5", "second": "5"}\n')
    refused(stratagem("label", "pairs.jsonl", "--no-open"), "pairs.jsonl, line 1: first and second are the same answer")


# ---- references -----------------------------------------------------------------------------------------------------


def test_a_reference_that_is_not_there_is_named(stratagem, labels):
    labels(FIRST)
    said = stratagem("train", "dpo", "--task", "pairs:labels.jsonl,test_share=0.5", *QUICK, "--model", "./nowhere")
    refused(said, "model ./nowhere: no such folder")


def test_a_reference_that_is_gone_when_a_run_goes_on_is_named(stratagem, labels, model_folder, tmp_path):
    labels(FIRST)
    shutil.copytree(model_folder, tmp_path / "reference")
    options = ("--task", "pairs:labels.jsonl,test_share=0.5", "--model", "./reference")
    assert stratagem("train", "dpo", *options, *QUICK).code == 0
    shutil.rmtree(tmp_path / "reference")
    refused(stratagem("train", "--resume", "run", "--steps", "2"), "model ./reference: no such folder")


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("key_door", ("task 'key_door' does not list what there is to do", "pairs:FILE lists answers")),
        ("gym:CartPole-v1", ("sampler candidates: a control task takes segments or rollouts",)),
    ],
)
def test_a_task_without_labelled_answers_has_nothing_for_a_recipe_that_learns_from_them(
    stratagem, model_folder, task, words
):
    model = () if task.startswith("gym") else ("--model", str(model_folder))
    refused(stratagem("train", "dpo", "--task", task, *QUICK, *model), *words)


# ---- oracles --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Unplugged(Preference):
    """An oracle nobody can ask. how: ``down`` says so itself, ``raises`` does not, ``contradicts`` or says 2."""

    how: str = "down"

    def __call__(self, x: Experience, first: Tensor, second: Tensor) -> Float[Tensor, " pairs"]:
        if self.how == "down":
            raise BrokenRunError("the judge did not answer: ConnectionError: connection refused")
        if self.how == "raises":
            raise ConnectionError("connection refused")
        return torch.full((len(first),), 2.0 if self.how == "two" else 0.9)


@pytest.fixture
def asks_unplugged(tmp_path: Path) -> Any:
    """A recipe file that asks it."""

    def write(how: str) -> str:
        from stratagem import recipes

        recipe = recipes.sppo(preference=Unplugged(how), group_size=2)
        (tmp_path / "mine.yaml").write_text(recipe.to_yaml())
        return "mine.yaml"

    return write


@pytest.mark.parametrize(
    ("how", "code", "words"),
    [
        ("down", 3, ("the judge did not answer: ConnectionError: connection refused", "what was saved is in run")),
        ("raises", 3, ("ConnectionError: connection refused", "what was saved is in run")),
        ("contradicts", 2, ("unplugged", "P(i > j) + P(j > i) must be 1")),
        ("two", 2, ("unplugged", "must say probabilities in [0, 1]")),
    ],
)
def test_an_oracle_that_is_down_or_wrong_is_one_line(stratagem, asks_unplugged, how, code, words):
    said = stratagem("train", asks_unplugged(how), "--task", "lab:circle", "--steps", "2", "--out", "run")
    assert said.code == code, said
    assert said.err.startswith("error: ") and said.err.count("\n") == 1
    assert all(word in said.err for word in words), said.err


def test_an_oracle_that_was_down_is_asked_again_when_the_run_goes_on(stratagem, asks_unplugged, monkeypatch):
    assert stratagem("train", asks_unplugged("down"), "--task", "lab:circle", "--steps", "2", "--out", "run").code == 3
    monkeypatch.setattr(Unplugged, "__call__", lambda self, x, first, second: torch.full((len(first),), 0.5))
    said = stratagem("train", "--resume", "run")
    assert (said.code, said.err) == (0, "")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (("advantage.preference=human_labels",), ("path",)),
        (("advantage.preference={part: human_labels, path: gone.jsonl}",), ("cannot read gone.jsonl",)),
        (("advantage.preference=human_label",), ("unknown preference 'human_label'", "did you mean 'human_labels'?")),
        (("advantage.preference.temperature=-1",), ("bradley_terry.temperature = -1", "greater than or equal to 0")),
        (("advantage.preference.reward=style",), ("bradley_terry.reward = 'style'", "must be a reward of the task")),
        (("advantage.preference={part: noisy, of: bradley_terry, flip: 0.6}",), ("noisy.flip = 0.6",)),
    ],
)
def test_an_oracle_that_cannot_be_made_says_what_is_allowed(stratagem, model_folder, values, words):
    changes = [word for value in values for word in ("--set", value)]
    said = stratagem(
        "train", "sppo", "--task", "key_door:max_turns=8", "--model", str(model_folder), *QUICK,
        "--set", "sampler.prompts_per_step=1", "--set", "sampler.group_size=2", *changes,
    )  # fmt: skip
    assert said.code == 2 and said.err.startswith("error: ") and said.err.count("\n") == 1, said
    assert all(word in said.err for word in words), said.err
