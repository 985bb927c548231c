"""Labels of people as an oracle, and recipes on labelled pairs with a language model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.preferences import BradleyTerry, HumanLabels, win_matrix
from stratagem.tasks.task import answer_key, state_key

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


def batch(*answers: str, prompt: str = PROMPT) -> Experience:
    ones = [1] * len(answers)
    return Experience.from_lengths(
        ones,
        ones,
        [len(answers)],
        answer=torch.tensor([answer_key(answer) for answer in answers]),
        turn_state=torch.full((len(answers),), state_key("jsonl", prompt)),
        reward=torch.zeros(len(answers)),
    )


def test_it_says_the_share_of_labels_and_may_go_in_circles(path: str) -> None:
    wins = win_matrix(HumanLabels(path), batch("5", "6", "7"))[0]
    expected = torch.tensor([[0.5, 2 / 3, 0.0], [1 / 3, 0.5, 0.5], [1.0, 0.5, 0.5]]).double()
    torch.testing.assert_close(wins, expected, atol=1e-6, rtol=0)


def test_one_person_may_be_asked_alone(path: str) -> None:
    carl = HumanLabels(path, annotator="carl")
    assert win_matrix(carl, batch("5", "6"))[0, 0, 1] == 0
    with pytest.raises(InputError, match="no label by annotator 'dora'"):
        win_matrix(HumanLabels(path, annotator="dora"), batch("5", "6"))


def test_a_pair_without_a_label_is_refused_or_ties(path: str) -> None:
    for x in (batch("5", "8"), batch("5", "6", prompt="1 + 1?")):
        with pytest.raises(InputError, match="has no label of the answers of trajectories 0 and 1; with unlabelled"):
            win_matrix(HumanLabels(path), x)
        assert win_matrix(HumanLabels(path, unlabelled="tie"), x).tolist() == [[[0.5, 0.5], [0.5, 0.5]]]
    assert win_matrix(HumanLabels(path), batch("8", "8")).tolist() == [[[0.5, 0.5], [0.5, 0.5]]]


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*gone\.jsonl"):
        win_matrix(HumanLabels(str(tmp_path / "gone.jsonl")), batch("5", "6"))
    with pytest.raises(ValueError, match=r"need x\.answer and x\.turn_state"):
        HumanLabels("labels.jsonl")(batch("5").replace(answer=None), torch.tensor([0]), torch.tensor([0]))


def test_on_pairs_of_one_label_it_agrees_with_what_they_earn(path: str) -> None:
    x = batch("5", "7").replace(reward=torch.tensor([[0.0], [1.0]]))
    assert torch.equal(win_matrix(HumanLabels(path), x), win_matrix(BradleyTerry(0.0), x))


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
