"""Labels of people as an oracle, and recipes on labelled pairs with a language model."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.preferences import BradleyTerry, HumanLabels, win_matrix
from stratagem.readings import Texts, with_readings

PROMPT = "2 + 3?"
LINES = [
    {"prompt": PROMPT, "chosen": "5", "rejected": "6", "annotator": "anna"},
    {"prompt": PROMPT, "chosen": "5", "rejected": "6", "annotator": "ben"},
    {"prompt": PROMPT, "chosen": "6", "rejected": "5", "annotator": "carl"},
    {"prompt": PROMPT, "chosen": "6", "rejected": "7", "tie": True},
    {"prompt": PROMPT, "chosen": "7", "rejected": "5"},
]


@pytest.fixture
def path(tmp_path: Path) -> str:
    file = tmp_path / "labels.jsonl"
    file.write_text("\n".join(map(json.dumps, LINES)))
    return str(file)


def batch(*answers: str, part: HumanLabels, prompt: str = PROMPT) -> Experience:
    """A group of these answers, as the labels have read it."""
    ones = [1] * len(answers)
    x = Experience.from_lengths(ones, ones, [len(answers)], reward=torch.zeros(len(answers)))
    texts = Texts([prompt] * len(answers), answers, x.group_of_trajectory)
    return with_readings(x, [(part, part.read(texts, {}))])


def wins(part: HumanLabels, *answers: str, prompt: str = PROMPT) -> Any:
    return win_matrix(part, batch(*answers, part=part, prompt=prompt))[0]


def test_it_says_the_share_of_labels_and_may_go_in_circles(path: str) -> None:
    expected = torch.tensor([[0.5, 2 / 3, 0.0], [1 / 3, 0.5, 0.5], [1.0, 0.5, 0.5]]).double()
    torch.testing.assert_close(wins(HumanLabels(path), "5", "6", "7"), expected, atol=1e-6, rtol=0)


def test_space_around_an_answer_does_not_count(path: str) -> None:
    assert wins(HumanLabels(path), " 5", "7\n").tolist() == [[0.5, 0.0], [1.0, 0.5]]
    assert wins(HumanLabels(path), " 8", "8\n").tolist() == [[0.5, 0.5], [0.5, 0.5]]


def test_one_person_may_be_asked_alone(path: str) -> None:
    assert wins(HumanLabels(path, annotator="carl"), "5", "6")[0, 1] == 0
    with pytest.raises(InputError, match="no label by annotator 'dora'"):
        HumanLabels(path, annotator="dora").check_ready()


def test_a_pair_without_a_label_is_refused_or_ties_or_is_lost(path: str) -> None:
    for answers, prompt in ((("5", "8"), PROMPT), (("5", "6"), "1 + 1?")):
        with pytest.raises(InputError, match=rf"has no label of '5' and '\d' as answers to '{re.escape(prompt)}'"):
            wins(HumanLabels(path), *answers, prompt=prompt)
        assert wins(HumanLabels(path, unlabelled="tie"), *answers, prompt=prompt).tolist() == [[0.5, 0.5], [0.5, 0.5]]
        lost = HumanLabels(path, unlabelled="lose")
        x = batch(*answers, part=lost, prompt=prompt)
        assert bool(lost(x, torch.tensor([0, 1]), torch.tensor([1, 0])).isnan().all())
    assert wins(HumanLabels(path), "8", "8").tolist() == [[0.5, 0.5], [0.5, 0.5]]


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*gone\.jsonl"):
        HumanLabels(str(tmp_path / "gone.jsonl")).check_ready()


def test_on_pairs_of_one_label_it_agrees_with_what_they_earn(path: str) -> None:
    labels = HumanLabels(path)
    x = batch("5", "7", part=labels).replace(reward=torch.tensor([[0.0], [1.0]]))
    assert torch.equal(win_matrix(labels, x), win_matrix(BradleyTerry(0.0), x))


def test_what_was_labelled_on_the_page_is_an_oracle(tmp_path: Path) -> None:
    from stratagem.preferences.labelling import Labelling

    questions = tmp_path / "questions.jsonl"
    questions.write_text(json.dumps({"prompt": PROMPT, "first": "5", "second": "6"}))
    page = Labelling(questions, tmp_path / "labels.jsonl", "anna")
    shown = page.state()["question"]
    page.label(shown["key"], "left" if shown["left"] == "5" else "right")
    assert wins(HumanLabels(str(tmp_path / "labels.jsonl")), "5", "6").tolist() == [[0.5, 1.0], [0.0, 0.5]]


@pytest.mark.parametrize("name", ["dpo", "ipo", "kto"])
def test_a_language_model_learns_what_was_chosen(name: str, tmp_path: Path, make_trainer: Any, make_world: Any) -> None:
    from stratagem.catalogue import card
    from stratagem.tasks import PairsTask

    lines = [{"prompt": f"say {word}", "chosen": "yes", "rejected": "no"} for word in "abcd"]
    (tmp_path / "yes.jsonl").write_text("\n".join(map(json.dumps, lines)))
    world = make_world(PairsTask(str(tmp_path / "yes.jsonl"), test_share=0))
    changes = {"sampler.prompts_per_step": 4, "optimization.learning_rate": 3e-3}
    trainer = make_trainer(card(name).recipe().with_values(changes), world=world, steps=8)
    seen = [trainer.step() for _ in range(8)]
    assert seen[0]["batch/trajectories"] == 8 and seen[0]["log_ratio_size"] == 0
    assert seen[-1]["loss"] < seen[0]["loss"] and seen[-1]["log_ratio_size"] > 0.1


def test_lines_with_one_answer_are_for_kto_and_counted_by_dpo(tmp_path: Path, make_world: Callable[..., Any]) -> None:
    from stratagem.recipes import dpo, kto
    from stratagem.tasks import PairsTask

    lines = [{"prompt": "say a", "chosen": "yes"}, {"prompt": "say a", "chosen": "yes", "rejected": "no"}]
    (tmp_path / "some.jsonl").write_text("\n".join(map(json.dumps, lines)))
    world = make_world(PairsTask(str(tmp_path / "some.jsonl"), one_sided="keep", test_share=0))
    few = {"sampler.prompts_per_step": 2}
    taken = world.collect(kto().with_values(few).sampler, 0)
    assert taken.x.group_of_trajectory.size().tolist() == [1, 2]
    taken = world.collect(dpo().with_values(few).sampler, 1)
    assert taken.x.groups == 1 and taken.metrics["groups/rejected"] == 1
