"""CANON through its recipe: what it changes, what its weights follow, and that it can be trained and judged."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from stratagem import catalogue
from stratagem.advantages import GroupHalves
from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.lab import diagnose, find_game
from stratagem.lab.world import LabTask
from stratagem.recipe import Recipe
from stratagem.recipes import canon, dr_grpo
from stratagem.study.experiments import learn


def sections(recipe: Recipe, base: Recipe) -> set[str]:
    return {change.path.split(".")[0] for change in recipe.diff(base)} - {"name", "base"}


# ---- canon ----------------------------------------------------------------------------------------------------------


def test_canon_is_dr_grpo_with_another_baseline():
    assert sections(canon(high=0.2, group_size=8), dr_grpo()) == {"advantage"}
    assert catalogue.card("canon").base == "dr_grpo"
    assert catalogue.card("canon").family == "reasoning"


def test_with_both_comparisons_alike_it_learns_as_dr_grpo_does():
    task = LabTask(find_game("length"))
    ours = learn(canon(across=0.5, high=0.2, group_size=8), task, 1000, 3)
    theirs = learn(dr_grpo(), task, 1000, 3)
    torch.testing.assert_close(ours.last.logits, theirs.last.logits, rtol=1e-4, atol=1e-5)
    other = learn(canon(high=0.2, group_size=8), task, 1000, 3)
    assert float((other.last.logits - theirs.last.logits).abs().max()) > 1e-3


def test_short_responses_are_favored_by_length_and_uncertain_ones_by_entropy():
    assert canon("length", worth=0.9).advantage == GroupHalves("length", favored="low", worth=0.9)
    assert canon(worth=0.9).advantage == GroupHalves("entropy", favored="high", worth=0.9)


def test_among_right_answers_alone_the_short_ones_are_learned():
    x = Experience.from_lengths([1, 5, 2, 4], [1] * 4, [4], reward=[1.0] * 4)
    found = x.trajectory_of_token.mean(canon("length", worth=0.5).advantage(x))
    assert found.tolist() == pytest.approx([0.5, -0.5, 0.5, -0.5])
    assert not canon("length").advantage(x).any()


@pytest.mark.parametrize(
    ("across", "expected"),
    [("restarts_within", [1, 0.7, 0.4, 0.7, 1]), ("restarts_across", [0, 0.5, 1, 0.7, 0.4])],
)
def test_restarts_follow_the_released_weights(across, expected):
    [schedule] = canon(across=across).schedules
    found = [schedule(step, {})["advantage.across"] for step in (0, 15, 30, 50, 69)]
    assert found == pytest.approx(expected, abs=2e-3)
    assert schedule(70, {}) == schedule(30, {})


def test_the_weight_follows_the_batches_while_it_is_trained():
    run = learn(canon(across="restarts_across", batches=5), LabTask(find_game("length")), 1000, 3)
    assert [row["knob/advantage.across"] for row in run.metrics] == pytest.approx([0, 1, 1])


def test_restarts_need_batches():
    with pytest.raises(InputError, match=r"cosine_restarts\.batches = 2"):
        canon(across="restarts_within", batches=2)


@pytest.mark.parametrize("across", [0.25, "accuracy", "error", "restarts_within"])
def test_canon_survives_yaml(across):
    recipe = canon(across=across)
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe


def test_a_group_of_one_is_refused():
    with pytest.raises(InputError, match=r"sampler\.group_size = 1.*group_halves"):
        canon(group_size=1)


@pytest.mark.parametrize("recipe", [canon(), canon("length", worth=0.9)], ids=["entropy", "length"])
def test_the_lab_can_judge_it(recipe):
    assert diagnose(dataclasses.replace(recipe, name="canon"), "corridor", groups=256).bias is not None


def test_a_language_policy_says_what_canon_reads(make_trainer, small):
    metrics = make_trainer(small("canon"), steps=1).step()
    assert metrics["updates/not_finite"] == 0
    assert metrics["batch/skipped"] == 0
