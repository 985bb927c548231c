"""Training in the lab: the same numbers from the same seed, stale policies, demonstrations, exact evaluation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from stratagem.catalogue import card
from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.lab import GAMES, Exact, ExpertsPolicy, TabularPolicy
from stratagem.lab.exact import optimal_values
from stratagem.lab.experts import read_node_policy
from stratagem.lab.world import LabTask, LabWorld, from_spec
from stratagem.sampling import Demonstrations, DynamicSampling, Rollouts, Segments
from stratagem.training.loop import Settings, Trainer
from stratagem.training.run_directory import RunDirectory

Train = Callable[..., Trainer]


@pytest.fixture
def trainer(tmp_path: Path) -> Train:
    """``trainer(recipe, spec, name="run", seed=0, values={}, **settings)``."""

    def make(recipe: str, task: LabTask, name: str = "run", seed: int = 0, **settings: Any) -> Trainer:
        world = LabWorld(task, seed)
        adapted = world.adapt(card(recipe).recipe())
        settings = {"steps": 6, "checkpoint_every": 100, **settings}
        return Trainer(adapted, world, RunDirectory.create(tmp_path / name), Settings(seed=seed, **settings))

    return make


def rows(trainer: Trainer) -> list[dict[str, Any]]:
    logged = trainer.run_directory.rows("metrics.jsonl")
    of_this_machine = ("timing/", "memory/")
    return [{name: value for name, value in row.items() if not name.startswith(of_this_machine)} for row in logged]


def collected(world: LabWorld, sampler: Any, step: int = 0) -> Experience:
    x = world.collect(sampler, step).x
    assert x is not None
    return x


# ---- batches --------------------------------------------------------------------------------------------------------


def test_a_batch_is_whole_groups_with_the_log_probabilities_of_the_policy_served():
    world = LabWorld(LabTask(GAMES["prompts"]), seed=0)
    x = collected(world, Rollouts(prompts_per_step=5, group_size=3))
    assert x.group_of_trajectory.size().tolist() == [3] * 5
    torch.testing.assert_close(x.behavior_logp, world.policy(x).logp.detach())
    assert x.version.unique().tolist() == [0]


def test_temperature_is_that_of_sampling_and_of_the_log_probabilities():
    world = LabWorld(LabTask(GAMES["graded"]), seed=0)
    x = collected(world, Rollouts(temperature=0.5))
    torch.testing.assert_close(x.behavior_logp, world.policy(x, temperature=0.5).logp.detach())


def test_metrics_count_what_was_sampled_rejected_groups_included():
    world = LabWorld(LabTask(GAMES["four_by_four"]), seed=0)
    found = world.collect(DynamicSampling(prompts_per_step=16, group_size=2), 0)
    assert found.metrics["groups/rejected"] > 0 and found.metrics["groups/kept"] == found.x.groups
    drawn = found.metrics["groups/kept"] + found.metrics["groups/rejected"]
    assert found.metrics["episodes"] == 2 * drawn and found.tokens == 8 * drawn
    assert found.metrics["completions/mean_length"] == 4
    assert set(found.metrics) >= {"reward", "reward_std", "success", "entropy"}


def test_each_component_of_a_composite_reward_is_a_metric():
    found = LabWorld(from_spec("tools", {}), seed=0).collect(Rollouts(), 0)
    parts = [found.metrics[f"reward/{name}"] for name in ("accuracy", "format", "executability")]
    assert parts == pytest.approx(found.x.reward.mean(0).tolist())
    assert sum(parts) == pytest.approx(found.metrics["reward"])
    single = LabWorld(from_spec("graded", {}), seed=0).collect(Rollouts(), 0)
    assert not [name for name in single.metrics if name.startswith("reward/")]


def test_a_batch_whose_groups_are_all_rejected_is_empty_and_takes_no_step(trainer):
    """A policy that is always right has nothing to compare; that must not end a run."""
    run = trainer("dapo", LabTask(GAMES["graded"]), evaluation_episodes=0)
    with torch.no_grad():
        run.policy.logits.copy_(100 * optimal_values(run.world.tree))
    for _ in range(5):
        assert run.step()["batch/skipped"] == 1


def test_demonstrations_err_in_one_token_of_ten():
    """Of the errors one in four is right by chance: 0.925 of the tokens stand where they belong."""
    world = LabWorld(LabTask(GAMES["rare"]), seed=0)
    x = collected(world, Demonstrations(prompts_per_step=5000))
    assert x.groups == x.trajectories == 5000 and x.behavior_logp is None
    assert float(x.success.double().mean()) == pytest.approx(0.925**4, abs=0.035)


def test_every_group_gets_demonstrations_of_its_own_start_beside_the_same_rollouts():
    plain = LabWorld(LabTask(GAMES["prompts"]), seed=0).collect(Rollouts(prompts_per_step=60, group_size=3), 4)
    found = LabWorld(LabTask(GAMES["prompts"]), seed=0).collect(
        Rollouts(prompts_per_step=60, group_size=3, demonstrations=2), 4
    )
    x, own = found.x, found.x.select(found.x.played())
    assert x.demonstrated.tolist() == [False, False, False, True, True] * 60
    assert torch.equal(own.inputs.node, plain.x.inputs.node) and torch.equal(own.action, plain.x.action)
    assert x.task_id.tolist() == plain.x.task_id.tolist()
    root = {0: set(), 1: set(), 2: set()}
    for start, node in zip(
        x.task_id.repeat_interleave(5).tolist(), x.inputs.node[x.trajectory_of_token.first()].tolist(), strict=True
    ):
        root[start].add(node)
    assert all(len(nodes) == 1 for nodes in root.values())
    shown = x.select(x.demonstrated)
    assert shown.behavior_logp.tolist() == [0.0] * shown.tokens
    assert float(shown.success.float().mean()) > 0.75 > float(own.success.float().mean())
    # They are no rollouts: neither the budget nor any figure of episodes knows of them.
    assert found.tokens == plain.tokens and found.metrics == plain.metrics


def test_a_batch_whose_groups_are_all_rejected_is_shown_nothing():
    world = LabWorld(LabTask(GAMES["rare"]), seed=0)
    found = world.collect(DynamicSampling(prompts_per_step=2, group_size=2, refill_rounds=0, demonstrations=1), 0)
    assert found.x.trajectories == 0


def test_held_out_demonstrations_are_not_those_of_training():
    world = LabWorld(LabTask(GAMES["four_by_four"]), seed=0)
    trained, held = (collected(world, Demonstrations(held_out=flag), step=3) for flag in (False, True))
    assert not torch.equal(trained.action, held.action)
    assert torch.equal(held.action, collected(world, Demonstrations(held_out=True), step=3).action)


def test_samples_can_be_read():
    found = LabWorld(LabTask(GAMES["corridor"]), seed=0).collect(Rollouts(), 0).samples
    assert len(found) == 3
    first = found[0]["messages"]
    assert first[0] == {"role": "user", "content": "state (0, 0)"}
    assert first[1]["role"] == "assistant" and first[1]["content"] in {"0 0", "0 1", "1 0", "1 1"}
    assert sum(message.get("reward", 0) for message in first) == found[0]["reward"]


@pytest.mark.parametrize("sampler", [Segments(), Rollouts(top_p=0.5)])
def test_other_samplers_are_refused(sampler):
    with pytest.raises(InputError, match=f"sampler {sampler.part_name()}"):
        LabWorld(LabTask(GAMES["graded"]), seed=0).collect(sampler, 0)


# ---- staleness ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("staleness", [0, 1, 3])
def test_a_stale_policy_acts_with_the_weights_of_so_many_batches_ago(staleness):
    world = LabWorld(LabTask(GAMES["graded"], staleness=staleness), seed=0)
    served = []
    for step in range(6):
        with torch.no_grad():
            world.policy.logits.copy_(
                torch.randn(world.policy.logits.shape, generator=torch.Generator().manual_seed(step))
            )
        for _ in range(2):  # An evaluation serves once more; that makes no policy older.
            world.serve(10 * step)
        served.append(world.policy.frozen())
        x, old = collected(world, Rollouts(), step), max(0, step - staleness)
        assert x.version.unique().tolist() == [10 * old]
        torch.testing.assert_close(x.behavior_logp, served[old](x).logp)


def test_evaluation_is_of_the_newest_weights():
    world = LabWorld(LabTask(GAMES["graded"], staleness=3), seed=0)
    collected(world, Rollouts())
    with torch.no_grad():
        world.policy.logits.copy_(100 * optimal_values(world.tree))
    world.serve(1)
    collected(world, Rollouts(), 1)
    assert world.evaluate(1, "sampled").mean_return == pytest.approx(1)


# ---- another engine, and weights that change during a rollout -------------------------------------------------------


def moving(world: LabWorld, batches: int, sampler: Any = None) -> list[tuple[Experience, Any]]:
    """Batches of a policy that moves between them, each with the policy as it was served."""
    found = []
    for step in range(batches):
        world.serve(step)
        found.append((collected(world, Rollouts() if sampler is None else sampler, step), world.policy.copy()))
        with torch.no_grad():
            for number, weights in enumerate(world.policy.policy_parameters()):
                source = torch.Generator().manual_seed(100 * step + number)
                weights.add_(torch.randn(weights.shape, generator=source, dtype=weights.dtype))
    return found


def test_a_mismatched_sampler_acts_with_rounded_weights_and_the_batch_says_what_the_policy_would():
    world = LabWorld(LabTask(GAMES["graded"], mismatch=0.5), seed=0)
    for x, served in moving(world, 3, Rollouts(prompts_per_step=64, temperature=0.8)):
        rounded = TabularPolicy(2 * served.logits)
        with torch.no_grad():
            rounded.logits.round_().div_(2)
        torch.testing.assert_close(x.behavior_logp, rounded(x, temperature=0.8).logp.detach())
        torch.testing.assert_close(x.version_logp, served(x, temperature=0.8).logp)
        assert 0.05 < float((x.behavior_logp - x.version_logp).abs().mean()) < 0.5


def test_a_mismatched_sampler_acts_as_it_says():
    """Its share of right answers is that of the rounded logits: what the policy prefers is rounded away here."""
    world = LabWorld(LabTask(GAMES["windy"], mismatch=3.0), seed=0)
    with torch.no_grad():
        world.policy.logits.copy_(1.4 * (optimal_values(world.tree).argmax(-1, keepdim=True) == torch.arange(2)))
    world.serve(0)
    rounded = Exact(world.tree, torch.zeros(world.tree.nodes, 2))
    own = Exact(world.tree, world.policy.table())
    assert own.expected_return - rounded.expected_return > 0.1
    found = world.collect(Rollouts(prompts_per_step=2000), 0).metrics["reward"]
    # The standard error of 16000 bits is at most 0.004; 5 of those.
    assert found == pytest.approx(rounded.expected_return, abs=0.02)
    assert world.evaluate(1, "sampled").mean_return == pytest.approx(own.expected_return)


def test_without_a_mismatch_engine_and_policy_say_the_same():
    for x, served in moving(LabWorld(LabTask(GAMES["corridor"]), seed=0), 2):
        assert torch.equal(x.behavior_logp, x.version_logp) and x.experts is None
        torch.testing.assert_close(x.version_logp, served(x).logp)


@pytest.mark.parametrize(("partial", "mismatch"), [(1, 0.0), (3, 0.25)])
def test_a_partial_rollout_goes_on_under_younger_weights(partial, mismatch):
    """After every so many tokens by the next version, until the newest has been reached."""
    task = LabTask(GAMES["corridor"], staleness=2, partial=partial, mismatch=mismatch)
    batches = moving(LabWorld(task, seed=0), 5)
    for step, (x, _) in enumerate(batches):
        place = x.trajectory_of_token.position()
        oldest = max(0, step - 2)
        assert torch.equal(x.version, (oldest + place // partial).clamp(max=step))
        for version in x.version.unique().tolist():
            wrote, policy = x.version == version, batches[version][1].copy()
            torch.testing.assert_close(x.version_logp[wrote], policy(x).logp[wrote])
            if mismatch:
                with torch.no_grad():
                    policy.logits.div_(mismatch).round_().mul_(mismatch)
            torch.testing.assert_close(x.behavior_logp[wrote], policy(x).logp[wrote])
            if mismatch:
                assert float((x.behavior_logp - x.version_logp).abs()[wrote].max()) > 1e-3


def test_the_tokens_of_a_partial_rollout_come_as_often_as_their_versions_say():
    """Two versions that agree on nothing: the first token is always the old one's, all others the new one's."""
    world = LabWorld(LabTask(GAMES["four_by_four"], staleness=1, partial=1), seed=0)
    for step, token in enumerate((1, 2)):
        with torch.no_grad():
            world.policy.logits.zero_()
            world.policy.logits[:, token] = 50.0
        world.serve(step)
        x = collected(world, Rollouts(), step)
    assert x.action.view(-1, 4).unique(dim=0).tolist() == [[1, 2, 2, 2]]
    torch.testing.assert_close(x.behavior_logp, torch.zeros(x.tokens))


def test_all_options_together_are_resumed_exactly(trainer):
    task = LabTask(GAMES["corridor"], staleness=3, partial=2, mismatch=0.1, experts=3)
    unbroken, broken = trainer("ppo", task, "unbroken"), trainer("ppo", task, "broken")
    unbroken.run()
    for _ in range(4):
        broken.step()
    broken.checkpoint()
    resumed = Trainer(broken.recipe, LabWorld(task, 0), broken.run_directory, broken.settings)
    resumed.resume(broken.run_directory.load())
    resumed.run()
    assert rows(resumed) == rows(unbroken)
    assert torch.equal(resumed.policy.table(), unbroken.policy.table())


# ---- evaluation -----------------------------------------------------------------------------------------------------


def test_evaluation_is_exact():
    world = LabWorld(LabTask(GAMES["stopping"]), seed=0)
    sampled, greedy = (world.evaluate(10, mode) for mode in ("sampled", "greedy"))
    policy = Exact(world.tree, world.policy.logits.detach())
    assert sampled.mean_return == pytest.approx(policy.expected_return)
    assert sampled.interval == (sampled.success, sampled.success) and 0 < sampled.success < 1
    assert sampled.mean_length == pytest.approx(policy.turns) and sampled.episodes == 10
    assert greedy.success in (0.0, 1.0) and greedy.std_return == 0


# ---- whole runs -----------------------------------------------------------------------------------------------------


def test_the_trainer_brings_rloo_near_the_optimum(trainer):
    run = trainer("rloo", LabTask(GAMES["windy"]), steps=150)
    before = run.world.evaluate(1, "sampled").mean_return
    run.run()
    after = run.world.evaluate(1, "sampled").mean_return
    assert before < 0.5 and after > 0.78  # The best there is: 0.8192.


@pytest.mark.parametrize("recipe", ["ppo", "dapo", "sft"])
def test_the_same_seed_gives_the_same_numbers(trainer, recipe):
    task = LabTask(GAMES["corridor"], staleness=1)
    first, again = trainer(recipe, task, "first"), trainer(recipe, task, "again")
    other = trainer(recipe, task, "other", seed=1)
    for run in (first, again, other):
        run.run()
    assert rows(first) == rows(again) != rows(other)
    assert torch.equal(first.policy.logits, again.policy.logits)


def test_runs_of_one_seed_start_alike_whatever_the_recipe(trainer):
    first, second = (trainer(name, LabTask(GAMES["graded"]), name, steps=1) for name in ("grpo", "rloo"))
    assert torch.equal(first.policy.logits, second.policy.logits)
    first.run()
    second.run()
    assert rows(first)[0]["reward"] == rows(second)[0]["reward"]


@pytest.mark.parametrize("stopped_after", [0, 1])
def test_a_resumed_run_repeats_an_unbroken_one(trainer, stopped_and_resumed, stopped_after):
    """Stopped between batches, or after the first of the four optimizer steps of a batch of ``ppo``."""
    task = LabTask(GAMES["graded"], staleness=2)
    unbroken = trainer("ppo", task, "unbroken", evaluate_every=2)
    unbroken.run()
    broken = trainer("ppo", task, "broken", evaluate_every=2)
    broken._evaluate(0)
    resumed = stopped_and_resumed(broken, LabWorld(task, 0), 3, bool(stopped_after))
    assert rows(resumed) == rows(unbroken)
    assert torch.equal(resumed.policy.logits, unbroken.policy.logits)
    evaluations = [run.run_directory.rows("evaluations.jsonl") for run in (resumed, unbroken)]
    assert evaluations[0] == evaluations[1]


# ---- the task and its policy ----------------------------------------------------------------------------------------


def test_a_specification_names_the_game_and_what_differs():
    task = from_spec("windy", {"spread": "0.5", "staleness": "2"})
    assert task.name == "lab:windy,spread=0.5,staleness=2" and task.description == GAMES["windy"].description
    assert from_spec("windy", {}).name == "lab:windy" and task.family == "lab"
    assert from_spec("rare", {"spread": "0"}).spread == 0
    far = from_spec("rare", {"mismatch": "0.25", "partial": "2", "experts": "4"})
    assert far.name == "lab:rare,mismatch=0.25,partial=2,experts=4"
    assert isinstance(LabWorld(far, 0).policy, ExpertsPolicy) and len(LabWorld(far, 0).policy.experts) == 4
    assert isinstance(LabWorld(from_spec("rare", {}), 0).policy, TabularPolicy)


@pytest.mark.parametrize(
    ("argument", "options", "problem"),
    [
        (None, {}, "needs a game, such as lab:four_by_four"),
        ("windi", {}, "did you mean 'windy'"),
        ("windy", {"spred": "1"}, "did you mean 'spread'"),
        ("windy", {"spread": "wide"}, "spread=wide"),
        ("windy", {"spread": "nan"}, "finite"),
        ("windy", {"staleness": "-1"}, "at least 0"),
        ("windy", {"staleness": "1.5"}, "an integer"),
        ("windy", {"mismatch": "-0.1"}, "at least 0"),
        ("windy", {"mismatch": "inf"}, "finite"),
        ("windy", {"partial": "some"}, "partial=some: must be an integer"),
        ("windy", {"experts": "1"}, "experts 0 or at least 2"),
    ],
)
def test_a_wrong_specification_is_answered_in_one_line(argument, options, problem):
    with pytest.raises(InputError, match=problem) as caught:
        from_spec(argument, options)
    assert "\n" not in str(caught.value)


def test_a_saved_policy_is_read_back_and_must_fit_the_game(tmp_path):
    world = LabWorld(LabTask(GAMES["graded"]), seed=3)
    world.policy.save(tmp_path / "model", "# card")
    again = read_node_policy(tmp_path / "model")
    assert torch.equal(again.logits, world.policy.logits)
    with pytest.raises(InputError, match=r"needs logits of shape \(85, 4\), not \(13, 3\)"):
        LabWorld(LabTask(GAMES["rare"]), 0, again)
    with pytest.raises(InputError, match="no readable policy of the lab"):
        read_node_policy(tmp_path)


# ---- start states, seeds and answers --------------------------------------------------------------------------------


def test_named_start_states_follow_each_other_across_batches():
    world = LabWorld(LabTask(GAMES["prompts"]), seed=0)
    named = Rollouts(prompts_per_step=2, group_size=3, start_states=(2, 0, 1))
    assert [collected(world, named, step).task_id.tolist() for step in range(3)] == [[2, 0], [1, 2], [0, 1]]
    x = collected(world, Rollouts(prompts_per_step=4, group_size=2, start_states=(1,)))
    roots = x.inputs.node[x.trajectory_of_token.first()]
    assert x.task_id.tolist() == [1] * 4 and len(roots.unique()) == 1


def test_a_start_state_that_the_game_lacks_is_refused():
    world = LabWorld(LabTask(GAMES["prompts"]), seed=0)
    with pytest.raises(InputError, match=r"start_states = \(0, 3\): the game has only the start states 0 to 2"):
        collected(world, Rollouts(start_states=(0, 3)))


def test_trajectories_have_seeds_of_their_own_that_the_runs_seed_decides():
    def seeds(seed: int, step: int) -> set[int]:
        return set(collected(LabWorld(LabTask(GAMES["prompts"]), seed), Rollouts(8, 8), step).seed.tolist())

    assert seeds(0, 0) == seeds(0, 0) and len(seeds(0, 0)) == 64
    assert not seeds(0, 0) & seeds(0, 1) and not seeds(0, 0) & seeds(1, 0)


def test_answers_are_what_the_last_turn_said():
    x = collected(LabWorld(LabTask(GAMES["length"]), seed=0), Rollouts(16, 4))
    said = [tuple(tokens.tolist()) for tokens in x.action.split(x.turn_of_token.size().tolist())]
    known: dict[int, tuple[int, ...]] = {}
    for answer, tokens, cut in zip(x.answer.tolist(), said, x.truncated.tolist(), strict=True):
        assert (answer == -1) == cut
        if not cut:
            assert known.setdefault(answer, tokens) == tokens
    assert len(set(known.values())) == len(known) > 3
    windy = collected(LabWorld(LabTask(GAMES["windy"]), seed=0), Rollouts(16, 4))
    assert len(windy.answer.unique()) == 2, "each turn says left or right"
