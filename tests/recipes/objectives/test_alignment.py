"""The protocol of model-task alignment: every arm builds, is written, trains, and does what its name says."""

from __future__ import annotations

import itertools
import math
from typing import get_args, get_type_hints

import pytest
import torch

from stratagem.advantages import Signed
from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.lab import GAMES, Exact, Tree
from stratagem.lab.updates import sample_updates
from stratagem.lab.world import LabTask, LabWorld
from stratagem.recipe import Recipe
from stratagem.recipes import alignment_protocol, dapo
from stratagem.recipes.objectives.alignment import SIGNALS
from stratagem.study.experiments import learn
from stratagem.training.loop import Settings, Trainer
from stratagem.training.run_directory import RunDirectory

SIGNS = ("both", "positive", "negative")
SMALL = {"sampler.prompts_per_step": 4, "sampler.group_size": 4}


def test_every_signal_of_the_signature_has_a_reward():
    assert get_args(get_type_hints(alignment_protocol)["signal"]) == tuple(SIGNALS)
    assert get_args(get_type_hints(alignment_protocol)["signs"]) == SIGNS


@pytest.mark.parametrize("example", [None, 1])
@pytest.mark.parametrize("signs", SIGNS)
@pytest.mark.parametrize("signal", SIGNALS)
def test_every_arm_builds_is_written_and_trains(signal, signs, example):
    recipe = alignment_protocol(signal, signs, example)
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe
    assert recipe.sampler.judged_by == recipe.rewards[0] == SIGNALS[signal]
    run = learn(
        recipe.with_values(SMALL), LabTask(GAMES["length"]) if example is None else LabTask(GAMES["prompts"]), 0, 1
    )
    before, after = run.policies
    moved = float((after.logits - before.logits).abs().max())
    assert (moved > 0) == (run.metrics[0]["batch/skipped"] == 0.0)
    if signal in ("random", "entropy"):
        assert moved > 0


def test_all_arms_have_one_trainer():
    for signal, signs in itertools.product(SIGNALS, SIGNS):
        recipe = alignment_protocol(signal, signs)
        assert recipe.objective == dapo().objective
        assert recipe.sampler.group_size == 16 and recipe.optimization.minibatches == 2
        core = recipe.advantage.of if isinstance(recipe.advantage, Signed) else recipe.advantage
        assert core == dapo().advantage and isinstance(recipe.advantage, Signed) == (signs != "both")


def test_an_example_is_the_only_start_state():
    run_of = alignment_protocol(example=2).with_values({"sampler.prompts_per_step": 3, "optimization.minibatches": 1})
    run = learn(run_of, LabTask(GAMES["prompts"]), 0, 3)
    moved = (run.last.logits - run.policies[0].logits).abs().amax(-1) > 0
    tree = run.last.tree
    start_of_node = torch.zeros(tree.nodes, dtype=torch.int64)
    start_of_node[tree.node] = tree.leaves.group_of_token.labels
    assert bool(moved.any()) and set(start_of_node[moved].tolist()) == {2}


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"signal": "correctt"}, r"unknown signal 'correctt'; did you mean 'correct'\?"),
        ({"signs": "none"}, r"unknown signs 'none'"),
        ({"example": -1}, r"dynamic_sampling.start_states"),
        ({"group_size": 1}, r"needs at least 2"),
    ],
)
def test_a_wrong_argument_is_refused(arguments, error):
    with pytest.raises(InputError, match=error):
        alignment_protocol(**arguments)


# ---- what the signals do --------------------------------------------------------------------------------------------


def gradient(recipe: Recipe, x: Experience, logits: torch.Tensor) -> torch.Tensor:
    """Of the loss by the logits of a single choice between as many actions."""
    logits = logits.clone().requires_grad_()
    loss = recipe.objective(PolicyOutput(torch.log_softmax(logits, 0)[x.action].float()), recipe.prepare(x)).loss
    return torch.autograd.grad(loss, logits)[0] if loss.requires_grad else torch.zeros_like(logits)


def choices(success: list[bool], action: list[int]) -> Experience:
    ones = [1] * len(action)
    return Experience.from_lengths(
        ones, ones, [len(action)], action=action, success=success, answer=torch.tensor(action),
        seed=torch.arange(len(action)), reward=[float(s) for s in success],
    )  # fmt: skip


def test_on_policy_the_wrong_reward_is_the_opposite_gradient():
    x = choices([True, False, False, True], [0, 1, 2, 0])
    logits = torch.tensor([0.3, -0.2, 0.5])
    right, wrong = (gradient(alignment_protocol(signal), x, logits) for signal in ("correct", "incorrect"))
    assert float(right.abs().max()) > 0.01
    torch.testing.assert_close(wrong, -right, rtol=0, atol=1e-6)


def test_an_all_wrong_group_moves_nothing():
    x = choices([False] * 4, [1, 2, 1, 2])
    for signal, signs in itertools.product(("correct", "incorrect", "format"), SIGNS):
        assert gradient(alignment_protocol(signal, signs), x, torch.zeros(3)).tolist() == [0.0] * 3


def test_positive_and_negative_samples_share_out_the_gradient():
    x = choices([True, False, False, True, False, False], [0, 1, 2, 0, 1, 2])
    both, positive, negative = (gradient(alignment_protocol(signs=signs), x, torch.zeros(3)) for signs in SIGNS)
    torch.testing.assert_close(positive + negative, both)
    assert float(positive.abs().max()) > 0.01 and float(negative.abs().max()) > 0.01


def test_on_policy_a_random_reward_moves_the_policy_nowhere_on_average():
    tree = Tree.enumerate(GAMES["graded"])
    policy = Exact(tree, tree.normal_logits(0))
    found = sample_updates(alignment_protocol("random", group_size=8), policy, policy, 16_384, 128, 0)
    error = found.blocks.std(0) / len(found.blocks) ** 0.5
    assert float(error.max()) > 1e-5, "it moves in every single batch"
    # 39 coordinates: 4 standard errors are exceeded by chance in one of 400 such tests.
    assert bool((found.mean.abs() <= 4 * error + 1e-9).all())
    rewarded = sample_updates(alignment_protocol("correct", group_size=8), policy, policy, 16_384, 128, 0)
    error = rewarded.blocks.std(0) / len(rewarded.blocks) ** 0.5
    assert bool((rewarded.mean.abs() > 4 * error).any()), "a right reward does"


def drift(likely: float, steps: int, clipped: bool, size: int = 3) -> float:
    """Expected move of ``logit_0 - logit_1`` by steps on one group, over all its answers and all its coins."""
    recipe = alignment_protocol("random", group_size=size)
    recipe = (
        recipe.replace(rewards=()) if clipped else recipe.with_values({"rewards": [], "objective.gate": "unclipped"})
    )
    start = torch.tensor([likely, 1 - likely], dtype=torch.float64).log()
    expected = torch.zeros(2, dtype=torch.float64)
    for actions in itertools.product(range(2), repeat=size):
        probability = math.prod((likely, 1 - likely)[action] for action in actions) * 2.0**-size
        for coins in itertools.product((0.0, 1.0), repeat=size):
            x = choices([False] * size, list(actions)).replace(reward=torch.tensor(coins).unsqueeze(1))
            x = x.replace(old_logp=torch.log_softmax(start, 0)[x.action].float())
            logits = start.clone()
            for _ in range(steps):
                logits = logits - 0.5 * gradient(recipe, x, logits)
            expected += probability * (logits - start)
    return float(expected[0] - expected[1])


def test_several_steps_on_random_rewards_do_move_it_and_the_clip_sides_with_what_is_likely():
    """One step moves nothing in expectation. Several on one batch favour the unlikely action, and the clip, which ends
    them early, favours the likely one by comparison."""
    assert drift(0.8, 1, clipped=True) == pytest.approx(0, abs=1e-7)
    clipped, unclipped = drift(0.8, 3, clipped=True), drift(0.8, 3, clipped=False)
    assert unclipped < clipped < -1e-3
    assert drift(0.2, 3, clipped=True) == pytest.approx(-clipped, rel=1e-4)


def test_a_resumed_run_draws_the_same_random_rewards(tmp_path):
    def trainer(name: str, steps: int) -> Trainer:
        world = LabWorld(LabTask(GAMES["graded"]), seed=3)
        recipe = world.adapt(alignment_protocol("random").with_values(SMALL))
        settings = Settings(steps=steps, seed=3, checkpoint_every=1, evaluation_episodes=0)
        return Trainer(recipe, world, RunDirectory.create(tmp_path / name), settings)

    whole, first = trainer("whole", 4), trainer("first", 2)
    whole.run(), first.run()
    second = trainer("second", 4)
    second.resume(first.run_directory.load())
    second.run()
    assert torch.equal(second.policy.logits, whole.policy.logits)
    assert not torch.equal(first.policy.logits, whole.policy.logits)


# ---- a task out of reach --------------------------------------------------------------------------------------------


def test_a_task_out_of_reach_is_resampled_so_often_and_no_more():
    tree = Tree.enumerate(GAMES["rare"])
    hopeless = Exact(tree, torch.tensor([[-30.0, 0, 0, 0]]).expand(tree.nodes, 4))
    run = learn(alignment_protocol().with_values(SMALL), LabTask(GAMES["rare"]), 0, 2, hopeless)
    for row in run.metrics:
        assert (row["groups/kept"], row["groups/rejected"], row["batch/skipped"]) == (0, 4 * 4, 1)
    assert torch.equal(run.last.logits, run.policies[0].logits)
