"""Recipes of helped agents: what is left out of an update, what is never trained, and what is learned."""

from __future__ import annotations

import pytest
import torch

from stratagem import recipes
from stratagem.experience import Experience
from stratagem.helpers import Counted, Scripted
from stratagem.lab.game import TokenGame, over
from stratagem.lab.world import LabTask
from stratagem.language.hf_engine import HFEngine
from stratagem.language.policy import LanguagePolicy
from stratagem.language.pretrain import tiny_model_path
from stratagem.language.world import LanguageWorld
from stratagem.rewards import RewardWeights
from stratagem.sampling import BelowReward
from stratagem.study.experiments import learn
from stratagem.tasks import DecomposeTask
from stratagem.tasks.noisy_solver import NoisySolver
from stratagem.training.loop import Settings, Trainer
from stratagem.training.run_directory import RunDirectory

# ---- daslam ---------------------------------------------------------------------------------------------------------


def noted(solved: list[float]) -> Experience:
    """A group of trajectories of two tokens, solved at once where 1."""
    return Experience.from_lengths(
        [2] * len(solved),
        [1] * len(solved),
        [len(solved)],
        reward=torch.tensor([[1.0 - one, one] for one in solved]),
        reward_names=("correct", "solved_at_once"),
        reward_weights=(1.0, 0.0),
        value=torch.zeros(2 * len(solved)),
        behavior_logp=torch.full((2 * len(solved),), -1.0),
        ref_logp=torch.full((2 * len(solved),), -1.0),
    )


def test_questions_solved_at_once_are_left_out_of_the_update():
    x = recipes.daslam().prepare(noted([1.0, 0.0, 1.0, 0.0, 0.0]))
    assert x.trajectories == 3 and x.returns.tolist() == [1, 1, 1]
    assert BelowReward("solved_at_once")(noted([1.0, 0.0])).tolist() == [False, True]
    assert BelowReward("other")(noted([1.0, 0.0])).tolist() == [True, True]


def bandit() -> TokenGame:
    """Four questions; the solver is right iff the sub-question that helps is asked; the last token asks nothing."""

    def act(question: int, tokens: tuple[int, ...]):
        right = tokens[0] == question % 3
        return over(float(right), coverage=0.5 if tokens[0] < 3 else 0.0)

    starts = tuple((0.25, question) for question in range(4))
    return TokenGame("sub_questions", "which sub-question helps", 4, starts, act, ("correct", "coverage"))


def test_a_policy_learns_to_ask_what_helps():
    run = learn(recipes.daslam(), LabTask(bandit(), spread=0.1), 1000, 60)
    assert run.policies[0].success < 0.4
    assert run.last.success > 0.95


def test_without_its_rewards_nothing_is_learned():
    recipe = recipes.daslam()
    silent = recipe.replace(rewards=(RewardWeights((0.0, 0.0)), *recipe.rewards))
    run = learn(silent, LabTask(bandit(), spread=0.1), 1000, 5)
    torch.testing.assert_close(run.last.logits, run.policies[0].logits, atol=1e-6, rtol=0)
    assert run.last.success == pytest.approx(run.policies[0].success, abs=1e-6)


def test_an_update_trains_the_policy_and_asks_the_solver_nothing(monkeypatch, tmp_path):
    calls: list[int] = []
    solver = NoisySolver()

    def counting(messages, seed):
        calls.append(len(messages))
        return solver(messages, seed)

    made = Counted(Scripted(counting, "counting"), "counting")
    monkeypatch.setattr("stratagem.tasks.decomposition.helper", lambda spec: made)
    task = DecomposeTask(solver="python:x:counting", max_new_tokens=4)
    policy = LanguagePolicy.from_path(tiny_model_path(), value_head=True)
    world = LanguageWorld(task, policy, HFEngine(policy), seed=1000)
    recipe = recipes.daslam().with_values({"sampler.prompts_per_step": 2, "sampler.group_size": 2})
    collected: list[int] = []
    collect = world.collect

    def noting(sampler, step):
        got = collect(sampler, step)
        collected.append(len(calls))
        return got

    monkeypatch.setattr(world, "collect", noting)
    before = [parameter.detach().clone() for parameter in policy.parameters()]
    settings = Settings(1, 1000, evaluation_episodes=0, sample_episodes=0)
    metrics = Trainer(recipe, world, RunDirectory.create(tmp_path / "run"), settings).step()
    assert collected[0] >= 8 and len(calls) == collected[0]
    assert metrics["grad_norm"] > 0
    assert any(not torch.equal(old, new) for old, new in zip(before, policy.parameters(), strict=True))


