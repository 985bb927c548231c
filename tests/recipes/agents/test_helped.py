"""Recipes of helped agents: what is left out of an update, what is never trained, and what is learned."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch

from stratagem import recipes
from stratagem.claims.agents.helped import COSTS, CREATE, DEFER, Splits, Whom
from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.helpers import Counted, Scripted
from stratagem.lab import Exact
from stratagem.lab.exact import optimal_values
from stratagem.lab.game import TokenGame, over
from stratagem.lab.tree import Tree
from stratagem.lab.world import LabTask, LabWorld
from stratagem.language.hf_engine import HFEngine
from stratagem.language.policy import LanguagePolicy
from stratagem.language.pretrain import tiny_model_path
from stratagem.language.world import LanguageWorld
from stratagem.objectives import FullKL, GeometricMeanRatio, GroupEntropy
from stratagem.rewards import RewardWeights
from stratagem.sampling import BelowReward, Candidates
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


def test_the_best_splits_of_a_chain_are_those_of_dynamic_programming():
    splits = Splits(((1, 2, 1, 2, 2, 1), (2, 2, 2, 1, 1, 1)), 0.01)

    def best(chain: int, first: int, left: int) -> float:
        """Accuracy from a place on, with so many sub-questions left."""
        ends = range(first + 1, min(first + 4, 6) + 1) if left else []
        taken = [(1 - splits.error(chain, first, end)) * best(chain, end, left - 1) for end in ends]
        return 1.0 if first == 6 else max([1 - splits.error(chain, first, 6), *taken])

    tree = Tree.enumerate(splits.game())
    found = Exact.greedy(tree, optimal_values(tree)).success
    alone = [1 - splits.error(chain, 0, 6) for chain in range(2)]
    # Whoever asks nothing gets the first attempt again.
    asked = [max((1 - splits.error(c, 0, e)) * best(c, e, 2) for e in range(1, 5)) for c in range(2)]
    expected = sum(right + (1 - right) * later for right, later in zip(alone, asked, strict=True)) / 2
    assert found == pytest.approx(expected)


# ---- hila -----------------------------------------------------------------------------------------------------------


def group(correct: list[float], costs: Sequence[float] = COSTS, tokens: int = 2, **fields) -> Experience:
    """One candidate group, all candidates of so many tokens."""
    size = len(correct)
    return Experience.from_lengths(
        [tokens] * size,
        [1] * size,
        [size],
        reward=torch.tensor([[right, cost] for right, cost in zip(correct, costs, strict=True)]),
        reward_names=("correct", "cost"),
        reward_weights=(1.0, 0.0),
        ref_logp=torch.full((tokens * size,), -1.0),
        ref_log_probs=torch.full((tokens * size, 3), 1 / 3).log(),
        **fields,
    )


def advantages(x: Experience) -> list[float]:
    prepared = recipes.hila().prepare(x)
    return prepared.advantage.view(prepared.trajectories, -1)[:, 0].tolist()


def test_a_group_is_standardised_by_the_populations_deviation_after_costs():
    x = group([0.0, 1.0, 0.0, 1.0])
    assert recipes.hila().shape(x).returns.tolist() == pytest.approx([0, 1, -0.1, 0.7])
    assert advantages(x) == pytest.approx([-0.862663, 1.293994, -1.078328, 0.646997], abs=5e-6)


def test_the_expert_is_preferred_where_nobody_else_is_right_and_not_where_create_is():
    only_expert = advantages(group([0.0, 0.0, 0.0, 1.0]))
    assert only_expert[DEFER] > 0 and max(only_expert[:DEFER]) < 0
    create = advantages(group([0.0, 0.0, 1.0, 1.0]))
    assert create[CREATE] > create[DEFER]
    assert advantages(group([0.0, 0.0], [0.1, 0.1])) == [0, 0]


def test_alone_there_is_nobody_to_believe():
    assert len(advantages(group([0.0, 1.0], [0.1, 0.3]))) == 2


def test_at_the_initial_policy_only_the_entropy_is_left_of_the_loss():
    x = group([0.0, 1.0, 0.0, 1.0])
    recipe = recipes.hila()
    logp = x.ref_logp.clone().requires_grad_()
    out = PolicyOutput(logp, log_probs=x.ref_log_probs.clone())
    loss = recipe.objective(out, recipe.prepare(x)).loss.detach()
    assert float(loss) == pytest.approx(-0.001 * math.log(4), abs=1e-6)
    silent = recipes.hila(entropy_weight=0.0)
    assert float(silent.objective(out, silent.prepare(x)).loss.detach()) == pytest.approx(0, abs=1e-6)


def test_the_ratio_is_of_mean_log_probabilities_to_the_reference_whoever_sampled():
    x = group([0.0, 1.0], [0.0, 0.0], tokens=3, behavior_logp=torch.full((6,), -9.0), old_logp=torch.full((6,), -5.0))
    logp = torch.tensor([-1.0, -1.3, -0.4, -1.0, -1.0, -1.3])
    ratio = GeometricMeanRatio(denominator="reference")(PolicyOutput(logp), x)
    expected = [math.exp(0.1)] * 3 + [math.exp(-0.1)] * 3
    torch.testing.assert_close(ratio, torch.tensor(expected))
    assert recipes.hila().objective.needs() >= {"ref_logp", "ref_log_probs", "output.log_probs"}
    with pytest.raises(ValueError, match="the ratio to the reference policy needs ref_logp"):
        GeometricMeanRatio(denominator="reference")(PolicyOutput(logp), x.replace(ref_logp=None))


def test_the_full_kl_is_that_of_the_distributions_and_never_asks_what_was_chosen():
    mine, theirs = torch.tensor([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]]), torch.tensor([[0.25, 0.5, 0.25]] * 2)
    x = group([0.0], [0.0]).replace(ref_log_probs=theirs.log())
    logits = mine.log().requires_grad_()
    penalty = FullKL()(PolicyOutput(torch.zeros(2), log_probs=logits), x)
    assert penalty.tolist() == pytest.approx([0.5 * math.log(2) - 0.25 * math.log(2), math.log(4)])
    penalty.sum().backward()
    assert bool(logits.grad.isfinite().all())
    with pytest.raises(ValueError, match="full KL needs"):
        FullKL()(PolicyOutput(torch.zeros(2)), x)


def test_group_entropy_is_over_the_candidates_scores_and_masked_tokens_reach_nothing():
    x = Experience.from_lengths([1, 2, 1, 1, 3], [1] * 5, [3, 2], mask=torch.tensor([1, 1, 0, 1, 1, 0, 0, 0]).bool())
    logp = torch.tensor([-1.0, -1.0, math.nan, -2.0, -0.5, -1.0, -math.inf, 0.0], requires_grad=True)
    odds = torch.softmax(torch.tensor([-1.0, -1.0, -2.0]), 0)
    expected = float(torch.special.entr(odds).sum()) / 2
    loss = GroupEntropy()(PolicyOutput(logp), x)
    assert float(loss.metrics["group_entropy"]) == pytest.approx(expected)
    loss.loss.backward()
    assert bool(logp.grad.isfinite().all()) and float(logp.grad[2]) == 0 and bool((logp.grad[:2] != 0).all())


def meta_game(chances: list[float], costs: tuple[float, ...] = COSTS) -> TokenGame:
    """Types of questions by the chance that CREATE is right; of two peers the first is never right, the second half."""
    return Whom(tuple((0.0, 0.5, chance, 1.0) for chance in chances), costs).game()


def trained(game: TokenGame, batches: int = 60, **options) -> Exact:
    return learn(recipes.hila(loop=5, **options), LabTask(game, spread=0.0), 1000, batches).last


def test_every_candidate_of_a_start_is_tried_once():
    world = LabWorld(LabTask(meta_game([0.2, 0.9]), spread=3.0), 1000)
    x = world.collect(Candidates(prompts_per_step=64), 0).x
    assert x.groups == 64 and bool((x.group_of_trajectory.size() == 4).all())
    assert x.action.view(64, 4).tolist() == [[0, 1, 2, 3]] * 64
    starts = x.inputs.node.view(64, 4)
    assert bool((starts == starts[:, :1]).all()) and starts.unique().numel() == 2
    right = x.success.view(64, 4).double().mean(0)
    assert right[0] == 0 and right[3] == 1 and 0.3 < right[1] < 0.7
    alone = world.collect(Candidates(prompts_per_step=8, without=(DEFER,)), 1).x
    assert alone.action.view(8, 3).tolist() == [[0, 1, 2]] * 8
    with pytest.raises(InputError, match="leaves 1 of 4 candidates"):
        world.collect(Candidates(without=(0, 1, 2)), 2)


def test_a_policy_defers_where_create_is_right_less_often_than_costs_allow():
    chances = [0.1, 0.3, 0.5, 0.7, 0.9, 1.0]
    chosen = trained(meta_game(chances)).logits.argmax(-1).tolist()
    assert chosen == [DEFER, DEFER, DEFER, DEFER, CREATE, CREATE]


def test_nobody_defers_at_a_high_cost_and_everybody_when_it_is_free():
    chances = [0.3, 0.6]

    def deferred(cost: float) -> float:
        policy = trained(meta_game(chances, costs=(0.0, 0.0, 0.1, cost)))
        return float(policy.logp[:, DEFER].exp().mean())

    assert deferred(5.0) < 0.02 and deferred(0.0) > 0.9


def test_what_the_expert_taught_is_not_deferred_again():
    start = Whom(((0.0, 0.5, 0.6, 1.0), (0.0, 0.5, 0.85, 1.0)))
    before = learn(recipes.hila(loop=5), LabTask(start.game(), spread=0.0), 1000, 60).last
    assert before.logits.argmax(-1).tolist() == [DEFER, CREATE]
    taught = start.taught(before.logp.exp())
    # Types that were asked about are solved better, and nothing else changes.
    assert taught.right[0][CREATE] > 0.82 and taught.right[1][CREATE] > 0.85
    assert start.taught(torch.eye(4)[[CREATE, DEFER]]).right[0] == pytest.approx(start.right[0])
    assert [right[:CREATE] for right in taught.right] == [right[:CREATE] for right in start.right]
    after = learn(recipes.hila(loop=5), LabTask(taught.game(), spread=0.0), 1000, 60, start=before).last
    assert after.logits.argmax(-1).tolist() == [CREATE, CREATE]


def test_the_reference_moves_with_every_loop_and_never_without():
    moves = [recipes.hila(loop=3).schedules[0](step, {})["reference_from"] for step in range(8)]
    assert moves == [0, 3, 3, 3, 6, 6, 6, 9]
    assert recipes.hila().schedules == ()
    with pytest.raises(InputError, match=r"hila\.loop = 0"):
        recipes.hila(loop=0)
