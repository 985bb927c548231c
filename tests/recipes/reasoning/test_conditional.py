"""CANON and ADORA through their recipes: what they change, that they reduce to their bases, train and are judged."""

from __future__ import annotations

import pytest
import torch

from stratagem import catalogue
from stratagem.advantages import GroupHalves, GroupStandardized, LongerSuccess, PassRateBand, WeighedGroups
from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.lab import diagnose, find_game
from stratagem.lab.world import LabTask
from stratagem.recipe import Recipe
from stratagem.recipes import adora, canon, dr_grpo, grpo
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


# ---- adora ----------------------------------------------------------------------------------------------------------

GROUP = {
    "tokens_per_turn": [300, 100, 250, 150],
    "turns_per_trajectory": [1] * 4,
    "trajectories_per_group": [4],
    "reward": [2.0, 2.0, -1.0, -1.0],
    "truncated": [False] * 4,
}
"""Rewards and lengths of which the rule says yes; with a longest success of 120 tokens it says no."""


def test_adora_is_grpo_with_groups_weighed():
    assert sections(adora(kl_coefficient=0.0, group_size=8), grpo()) == {"advantage"}
    assert sections(adora(group_size=8), grpo(kl_coefficient=0.001)) == {"advantage"}
    assert catalogue.card("adora").base == "grpo"
    assert catalogue.card("adora").arxiv == "2602.10019"


@pytest.mark.parametrize(("longest", "weight"), [(300, 1.0), (120, 0.1)])
def test_adora_damps_a_group_whose_successes_are_short(longest, weight):
    x = Experience.from_lengths(**GROUP | {"tokens_per_turn": [longest, 100, 250, 150]})
    found = adora(threshold=1.01).advantage(x)[x.trajectory_of_token.first()]
    assert found.tolist() == pytest.approx([weight * 0.866025 * sign for sign in (1, 1, -1, -1)], abs=1e-6)


@pytest.mark.parametrize("form", ["text", "vision"])
def test_undamped_adora_learns_as_grpo_does_to_the_last_bit(form):
    task = LabTask(find_game("length"))
    ours = learn(adora(form, others=1.0, kl_coefficient=0.0, group_size=8), task, 1000, 3)
    theirs = learn(grpo(), task, 1000, 3)
    assert torch.equal(ours.last.logits, theirs.last.logits)
    damped = learn(adora(form, others=0.0, kl_coefficient=0.0, group_size=8), task, 1000, 3)
    assert not torch.equal(damped.last.logits, theirs.last.logits)


def test_the_releases_differ_in_groups_without_failures_and_without_successes():
    text, vision = adora().advantage.rule, adora("vision").advantage.rule
    assert (text.without_failures, text.without_successes) == (True, False)
    assert (vision.without_failures, vision.without_successes) == (False, True)
    graded = Experience.from_lengths(**GROUP | {"reward": [2.0, 1.5, 2.0, 1.5]})
    ratio = adora("vision").advantage(graded) / GroupStandardized()(graded)
    torch.testing.assert_close(ratio, torch.full_like(ratio, 0.1))
    torch.testing.assert_close(adora().advantage(graded), GroupStandardized()(graded))


def test_another_rule_and_another_estimate_are_a_change_of_fields():
    recipe = adora().with_values({"advantage.rule": "pass_rate_band", "advantage.of": "leave_one_out"})
    assert recipe.advantage.rule == PassRateBand()
    assert adora(promising=2.0, others=0.5, threshold=1.01, limit=3900).advantage == WeighedGroups(
        rule=LongerSuccess(1.01, 3900), promising=2.0, others=0.5
    )
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe
    assert Recipe.from_yaml(adora("vision", limit=9).to_yaml()) == adora("vision", limit=9)


def test_adora_needs_a_group():
    with pytest.raises(InputError, match=r"sampler\.group_size = 1"):
        adora(group_size=1)


# ---- both -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "recipe", [canon(), canon("length", worth=0.9), adora()], ids=["canon", "canon by length", "adora"]
)
def test_the_lab_can_judge_them(recipe):
    assert diagnose(recipe, "corridor", groups=256).bias is not None


@pytest.mark.parametrize("name", ["adora", "canon"])
def test_language_policies_say_what_they_read(name, make_trainer, small):
    metrics = make_trainer(small(name), steps=1).step()
    assert metrics["updates/not_finite"] == 0
    assert metrics["batch/skipped"] == 0
