"""ReMix and T-PPO through their recipes: hand-worked numbers, identities, whole runs, and runs that were stopped."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from stratagem import recipes
from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.lab import GAMES, Exact
from stratagem.lab.tree import Tree
from stratagem.lab.world import LabTask, LabWorld
from stratagem.recipe import Recipe
from stratagem.sampling import Windows
from stratagem.training.loop import Interrupted, Settings, Trainer
from stratagem.training.run_directory import RunDirectory

MIXED_ONLY = recipes.remix(kl_coefficient=0, reincarnate=None)


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., Trainer]:
    """``train(recipe, game="length", name="run", steps=6)``: a trainer in the lab."""

    def make(recipe: Recipe, game: str = "length", name: str = "run", steps: int = 6) -> Trainer:
        world = LabWorld(LabTask(GAMES[game]), 0)
        settings = Settings(steps, evaluation_episodes=0, checkpoint_every=100)
        return Trainer(world.adapt(recipe), world, RunDirectory.create(tmp_path / name), settings)

    return make


def rows(trainer: Trainer) -> list[dict[str, Any]]:
    logged = trainer.run_directory.rows("metrics.jsonl")
    return [{key: row[key] for key in row if not key.startswith(("timing/", "memory/"))} for row in logged]


def learned(recipe: Recipe, x: Experience, logp: torch.Tensor, value: torch.Tensor | None = None) -> list[torch.Tensor]:
    """Loss and its derivatives by log-probability and value."""
    said = [tensor.detach().clone().requires_grad_() for tensor in (logp, value) if tensor is not None]
    loss = recipe.objective(PolicyOutput(said[0], value=said[1] if value is not None else None), x).loss
    return [loss.detach(), *torch.autograd.grad(loss, said)]


# ---- ReMix: the objective --------------------------------------------------------------------------------------------


def test_the_clip_is_around_where_the_update_starts_and_not_around_1():
    ratio, center = torch.tensor([1.6, 1.45, 1.0]), torch.full((3,), 1.3)
    x = Experience.from_lengths(
        [3], [1], [1], advantage=torch.tensor([1.0, 1.0, -1.0]), old_logp=center.log(), behavior_logp=torch.zeros(3),
        value=torch.zeros(3), value_target=torch.zeros(3),
    )  # fmt: skip
    loss, slope, _ = learned(MIXED_ONLY, x, ratio.log(), torch.zeros(3))
    assert loss.item() == pytest.approx(-(1.5 + 1.45 - 1.1) / 3)
    assert slope.tolist() == pytest.approx([0.0, -1.45 / 3, 0.0])


def test_old_samples_of_a_bandit_give_the_gradient_of_the_present_policy():
    """Old policy (.5, .5), present one (.7, .3), rewards 1 and 0: .21 by the difference of the logits."""
    now = torch.tensor([0.7, 0.3])
    x = Experience.from_lengths(
        [1, 1], [1, 1], [2], advantage=torch.tensor([0.3, -0.7]),
        old_logp=now.log(), behavior_logp=torch.full((2,), 0.5).log(),
    )  # fmt: skip
    difference = torch.tensor(math.log(0.7 / 0.3), requires_grad=True)
    logp = torch.stack([difference / 2, -difference / 2]).log_softmax(0)
    recipes.remix(on="grpo", kl_coefficient=0).objective(PolicyOutput(logp), x).loss.backward()
    assert difference.grad.item() == pytest.approx(-0.21)
    on_policy = torch.tensor([0.7 * 0.3 * 0.3, 0.3 * 0.7 * 0.7]).sum()
    assert on_policy.item() == pytest.approx(0.21)


@pytest.mark.parametrize(("on", "plain"), [("ppo", recipes.ppo(epochs=1)), ("grpo", recipes.grpo())])
def test_without_old_samples_and_with_one_pass_it_is_what_it_is_built_on_to_the_last_bit(on, plain):
    recipe = recipes.remix(on=on, share=0.0, epochs=1, kl_coefficient=0, reincarnate=None)
    generator = torch.Generator().manual_seed(0)
    old = -torch.rand(60, generator=generator)
    x = Experience.from_lengths(
        [5] * 12, [1] * 12, [4] * 3, old_logp=old, behavior_logp=old, reward=torch.randn(12, generator=generator),
        value=torch.randn(60, generator=generator),
    )  # fmt: skip
    logp, value = old + 0.3 * torch.randn(60, generator=generator), torch.randn(60, generator=generator)
    value = value if on == "ppo" else None
    ours, theirs = (learned(recipe, recipe.prepare(x), logp, value) for recipe in (recipe, plain))
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
    same = recipe.replace(name=plain.name, base=plain.base, replay=None, objective=plain.objective)
    assert same == plain


def test_it_can_be_built_on_ppo_or_on_grpo():
    assert recipes.remix().advantage == recipes.ppo().advantage and recipes.remix().base == "ppo"
    on_grpo = recipes.remix(on="grpo")
    assert on_grpo.advantage == recipes.grpo().advantage and on_grpo.base == "grpo"
    assert (recipes.remix().replay.batches, recipes.remix().replay.share) == (2, 0.4)
    assert recipes.remix().optimization.epochs == on_grpo.optimization.epochs == 2


# ---- ReMix: what changes over a run ----------------------------------------------------------------------------------


def at_step(recipe: Recipe, step: int) -> Recipe:
    """The recipe as the trainer has it in this step of a run."""
    for earlier in range(step + 1):
        changes: dict[str, Any] = {}
        for schedule in recipe.schedules:
            changes |= schedule(earlier, {})
        recipe = recipe.with_values(changes)
    return recipe


@pytest.mark.parametrize("entropy_weight", [0.0, 0.01])
def test_the_kl_moves_from_the_base_towards_the_previous_policy_in_stairs(entropy_weight):
    recipe = recipes.remix(entropy_weight=entropy_weight, kl_coefficient=1.0, reincarnate=None)
    knob = recipe.schedules[0].knob
    x = Experience.from_lengths(
        [1], [1], [1], advantage=torch.zeros(1), old_logp=-torch.ones(1), behavior_logp=-torch.ones(1),
        ref_logp=torch.tensor([-1.2]), previous_logp=-torch.ones(1), value=torch.zeros(1), value_target=torch.zeros(1),
    )  # fmt: skip
    out = PolicyOutput(-torch.ones(1), entropy=torch.ones(1), value=torch.zeros(1))
    for step, share in {0: 1, 50: 1, 51: 0.9, 55: 0.9, 60: 0.9, 61: 0.8, 100: 0.5, 101: 0.5, 200: 0.5}.items():
        now = recipe.with_values(recipe.schedules[0](step, {}))
        assert now.flat()[knob] == pytest.approx(share)
        assert now.objective(out, x).loss.item() == pytest.approx(share * 0.0187308 - entropy_weight, abs=1e-7)


def test_from_its_reincarnation_on_it_is_what_it_is_built_on():
    before, after = (
        at_step(recipes.remix(reincarnate=5, clip=0.3), 4),
        at_step(recipes.remix(reincarnate=5, clip=0.3), 5),
    )
    assert before.replay is not None and before.optimization.epochs == 2
    plain = recipes.ppo(clip=0.3, epochs=1)
    assert (after.replay, after.optimization) == (None, plain.optimization)
    assert after.objective.replace(regularizer=None) == plain.objective and after.objective.regularizer is not None
    assert at_step(recipes.remix(reincarnate=None), 80).replay == recipes.remix().replay
    with pytest.raises(InputError, match=r"switch\.at = -1"):
        recipes.remix(reincarnate=-1)


def test_at_its_reincarnation_the_kl_begins_at_exactly_0_and_old_batches_are_gone(train):
    recipe = recipes.remix(on="grpo", epochs=1, reincarnate=3, kl_coefficient=0.01)
    trainer = train(recipe, "four_by_four")
    found = [trainer.step() for _ in range(6)]
    assert [row["kl"] == 0 for row in found] == [True, False, False, True, False, False]
    assert ["replay/share" in row for row in found] == [False, True, True, False, False, False]
    assert all(row["batch/trajectories"] == row["episodes"] for row in found[3:])
    assert trainer._replay.state_dict() == ({}, [])


def test_a_mixed_batch_is_credited_within_one_prompt_and_one_version(train):
    recipe = recipes.remix(on="grpo", kl_coefficient=0, reincarnate=None)
    trainer = train(recipe, "prompts")
    for _ in range(3):
        trainer.step()
    trainer._batch = trainer._collect()
    x = trainer._batch.x
    by_group = x.group_of_trajectory
    version = x.version[x.trajectory_of_token.first()]
    assert torch.equal(by_group.min(version), by_group.max(version)) and len(version.unique()) == 3
    credit = x.advantage[x.trajectory_of_token.first()]
    assert float(by_group.mean(credit).abs().max()) < 1e-5


@pytest.mark.parametrize(
    ("recipe", "stop"),
    [
        (recipes.remix(reincarnate=4), (3, 1)),
        (recipes.remix(reincarnate=4), (4, 0)),
        (recipes.remix(reincarnate=4), (5, 0)),
        (recipes.remix(on="grpo", reincarnate=3), (2, 0)),
        (recipes.tppo(window=2, slots=16), (3, 0)),
        (recipes.tppo(window=1, slots=16), (2, 3)),
    ],
    ids=lambda value: value.name if isinstance(value, Recipe) else f"{value[0]}-{value[1]}",
)
def test_a_run_that_was_stopped_goes_on_with_the_same_numbers(train, recipe, stop):
    unbroken = train(recipe, name="unbroken", steps=7)
    unbroken.run()
    steps, updates = stop
    broken = train(recipe, name="broken", steps=7)
    for _ in range(steps):
        broken.step()
    if updates:
        take, left = broken._optimizer.step, [updates]

        def counted(*arguments: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                broken.stop()
            return take(*arguments)

        broken._optimizer.step = counted
        with pytest.raises(Interrupted):
            broken.step()
    else:
        broken.checkpoint()
    resumed = train(recipe, name="broken", steps=7)
    resumed.resume(broken.run_directory.load())
    resumed.run()
    assert rows(resumed) == rows(unbroken)
    assert torch.equal(resumed.policy.logits, unbroken.policy.logits)
    assert torch.equal(resumed.policy.values, unbroken.policy.values)


# ---- T-PPO: the numbers ----------------------------------------------------------------------------------------------


def windows(game: str, tokens: int, steps: int = 4, slots: int = 64) -> list[Experience]:
    """Windows of a policy that does not move, with random values for the critic to have said."""
    world = LabWorld(LabTask(GAMES[game]), seed=0)
    generator = torch.Generator().manual_seed(1)
    found = []
    for step in range(steps):
        x = world.collect(Windows(prompts_per_step=slots, tokens=tokens), step).x
        found.append(x.replace(value=torch.rand(x.tokens, generator=generator), old_logp=x.behavior_logp))
    return found


def test_advantages_of_a_cut_response_are_neutral_where_it_was_cut():
    recipe = recipes.tppo().with_values({"advantage.of.trace": 0.95})
    credit = recipe.advantage.of
    x = Experience.from_lengths([3], [1], [1], reward=[0.0], value=torch.tensor([0.5, 0.6, 0.8]), running=[True])
    assert credit(x).tolist() == pytest.approx([0.29, 0.20, 0.0])
    ended = x.replace(running=torch.tensor([False]), reward=torch.ones(1, 1))
    assert credit(ended).tolist() == pytest.approx([0.4705, 0.39, 0.20])


def test_with_a_window_wider_than_all_responses_it_is_ppo_with_a_critic_of_whole_returns():
    [x] = windows("length", 99, steps=1)
    ours, theirs = recipes.tppo(), recipes.ppo().with_values({"advantage.of.critic_trace": 1.0})
    generator = torch.Generator().manual_seed(2)
    logp = x.old_logp + 0.3 * torch.randn(x.tokens, generator=generator)
    value = torch.randn(x.tokens, generator=generator)
    plain = x.replace(mask=None, critic_mask=None, running=None, final_value=None)
    results = learned(ours, ours.prepare(x), logp, value), learned(theirs, theirs.prepare(plain), logp, value)
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("tokens", [1, 2, 3])
def test_the_policy_learns_from_the_window_and_the_critic_from_whole_responses_on_their_returns(tokens):
    recipe = recipes.tppo()
    for x in windows("length", tokens):
        ready = recipe.prepare(x)
        whitened = ready.advantage[x.mask]
        assert float(whitened.mean()) == pytest.approx(0, abs=1e-5)
        assert float(whitened.std(correction=0)) == pytest.approx(1, abs=1e-4)
        expected = x.trajectory_of_token.spread(x.returns)[x.critic_mask]
        torch.testing.assert_close(ready.value_target[x.critic_mask], expected)
        _, by_logp, by_value = learned(recipe, ready, x.old_logp, torch.full((x.tokens,), 9.0))
        assert torch.equal(by_logp != 0, x.mask & (ready.advantage != 0)) and bool((by_logp != 0).any())
        assert torch.equal(by_value != 0, x.critic_mask)


@pytest.mark.parametrize("trace", [0.0, 0.6, 0.95])
@pytest.mark.parametrize("cut", [1, 2, 3, 4])
def test_with_exact_values_the_bias_is_the_change_of_value_at_the_cut_and_fades_with_the_distance(trace, cut):
    """``E[A_t] - (Q - V) = trace^(cut - 1 - t) E[V(s_{cut-1}) - V(s_cut)]``, the ended ones having none."""
    tree = Tree.enumerate(GAMES["length"])
    policy = Exact(tree, tree.normal_logits(0))
    by, leaves = tree.leaves.trajectory_of_token, tree.leaves
    length, place = by.size(), by.position()
    kept = place < cut
    sizes = length.clamp(max=cut)
    running = length > cut
    x = Experience.from_lengths(
        sizes, [1] * len(sizes), [len(sizes)], value=policy.value[tree.node][kept], running=running,
        reward=torch.where(running, 0.0, leaves.returns.double()),
    )  # fmt: skip
    estimate = torch.zeros(len(place), dtype=torch.float64)
    estimate[kept] = recipes.tppo(trace=trace).advantage.of(x)
    weight = by.spread(policy.leaf_probability) * kept

    def mean(values: torch.Tensor) -> torch.Tensor:
        """By node and token, over all that may follow."""
        met = tree.total(weight)
        return torch.where(met > 0, tree.total(weight * values) / met.clamp(min=1e-300), 0.0)

    true = mean(by.spread(leaves.returns.double()) - policy.value[tree.node])
    value = policy.value[tree.node]
    change = torch.zeros(len(length), dtype=torch.float64)
    first = by.first()
    change[running] = value[first[running] + cut - 1] - value[first[running] + cut]
    predicted = mean(trace ** (cut - 1 - place).clamp(min=0).double() * by.spread(change))
    bias = mean(estimate) - true
    torch.testing.assert_close(bias, predicted, rtol=0, atol=1e-12)
    depth = torch.zeros(tree.nodes, dtype=torch.int64)
    depth[tree.node] = place
    for t in range(cut):
        assert float(bias[depth == t].abs().max()) <= trace ** (cut - 1 - t) * float(change.abs().max()) + 1e-12
    assert cut > 1 or float(bias.abs().max()) > 0.01


def test_a_critic_that_knows_nothing_has_nothing_to_say_of_cut_responses():
    [x] = windows("four_by_four", 2, steps=1)
    credit = recipes.tppo().advantage.of(x.replace(value=torch.full((x.tokens,), 0.3)))
    assert credit.tolist() == [0.0] * x.tokens
    assert recipes.tppo().advantage(x.replace(value=torch.full((x.tokens,), 0.3))).tolist() == [0.0] * x.tokens


# ---- T-PPO: whole runs -----------------------------------------------------------------------------------------------


def test_over_a_run_every_token_teaches_the_policy_in_one_batch_and_the_critic_when_it_is_complete(train):
    trainer = train(recipes.tppo(window=2, slots=16), steps=9)
    fresh: dict[tuple[int, int], int] = {}
    judged: dict[tuple[int, int], int] = {}
    sampled = 0
    for _ in range(9):
        trainer._batch = trainer._collect()
        x = trainer._batch.x
        by = x.trajectory_of_token
        for place, new, known in zip(
            zip(by.spread(x.episode).tolist(), by.position().tolist(), strict=True),
            x.mask.tolist(),
            x.critic_mask.tolist(),
            strict=True,
        ):
            fresh[place] = fresh.get(place, 0) + new
            judged[place] = judged.get(place, 0) + known
        row = trainer.step()
        sampled += int(row["tokens/sampled"])
        running = set(x.episode[x.running].tolist())
    assert set(fresh.values()) == {1} and len(fresh) == sampled
    assert all(count == (episode not in running) for (episode, _), count in judged.items())
    assert running and len(running) < 16


def test_it_learns_what_ppo_learns(train):
    trainer = train(recipes.tppo(window=2), steps=25)
    trainer.recipe = trainer.recipe.with_values({"optimization.learning_rate": 0.2})
    before = trainer.world.evaluate(1, "sampled").mean_return
    trainer.run()
    assert before < 0.5 and trainer.world.evaluate(1, "sampled").mean_return > 0.95


def test_it_trains_a_language_model_and_goes_on_where_it_was_stopped(make_trainer, make_world, chatter):
    recipe = recipes.tppo(window=3, slots=4)

    def trainer(name: str, steps: int) -> Any:
        return make_trainer(recipe, name, make_world(chatter(turns=2, max_new_tokens=7)), steps=steps)

    unbroken = trainer("unbroken", 5)
    unbroken.run()
    trainer("stopped", 2).run()
    resumed = trainer("stopped", 5)
    resumed.resume(resumed.run_directory.load())
    resumed.run()
    assert rows(resumed) == rows(unbroken)
    assert all(row["updates/not_finite"] == 0 for row in rows(unbroken))


def test_it_mixes_old_batches_of_a_language_model_and_goes_on_where_it_was_stopped(make_trainer, small):
    def recipe() -> Recipe:
        return small("remix", sampler__group_size=2).replace(schedules=recipes.remix(reincarnate=4).schedules)

    unbroken = make_trainer(recipe(), "unbroken", steps=5)
    unbroken.run()
    make_trainer(recipe(), "stopped", steps=2).run()
    resumed = make_trainer(recipe(), "stopped", steps=5)
    resumed.resume(resumed.run_directory.load())
    resumed.run()
    assert rows(resumed) == rows(unbroken)
    assert ["replay/share" in row for row in rows(unbroken)] == [False, True, True, True, False]
    assert all(row["replay/center"] > 0 for row in rows(unbroken)[1:4])


def test_it_mixes_old_segments_of_a_control_task(tmp_path):
    from stratagem.control.task import GymTask
    from stratagem.control.world import ControlWorld

    world = ControlWorld(GymTask("CartPole-v1"), 0)
    recipe = world.adapt(recipes.remix()).with_values({"sampler.turns": 16, "optimization.epochs": 2})
    trainer = Trainer(recipe, world, RunDirectory.create(tmp_path / "run"), Settings(3, evaluation_episodes=0))
    found = [trainer.step() for _ in range(3)]
    world.close()
    assert found[2]["replay/share"] > 0.2 and found[2]["tokens/sampled"] == 128
    assert all(row["updates/not_finite"] == 0 and math.isfinite(row["value_loss"]) for row in found)


def test_windows_where_they_cannot_be_are_refused(make_trainer, make_world, chatter):
    from stratagem.control.task import GymTask
    from stratagem.control.world import ControlWorld

    world = ControlWorld(GymTask("CartPole-v1"), 0)
    with pytest.raises(InputError, match="sampler windows: a control task takes segments or rollouts"):
        world.collect(recipes.tppo().sampler, 0)
    world.close()
    with pytest.raises(InputError, match="compares within a group and needs at least 2"):
        recipes.grpo().replace(sampler=Windows())
    terminal = recipes.ppo().replace(sampler=Windows(prompts_per_step=4, tokens=2))
    with pytest.raises(ValueError, match="final_value of trajectories that are running, or bootstrap='last_value'"):
        make_trainer(terminal, world=make_world(chatter(max_new_tokens=7))).step()


@pytest.mark.parametrize("build", [recipes.remix, recipes.tppo])
def test_recipes_survive_yaml(build):
    assert Recipe.from_yaml(build().to_yaml()) == build()
