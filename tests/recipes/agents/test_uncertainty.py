"""EMPG and EPO through their recipes: what they change, who says their entropies, and what EPO remembers when."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from stratagem import catalogue
from stratagem.advantages import GroupStandardized
from stratagem.experience import Experience
from stratagem.lab import Exact, Tree, diagnose, find_game
from stratagem.lab.world import LabTask, LabWorld
from stratagem.objectives import EntropyBand
from stratagem.recipe import Recipe
from stratagem.recipes import empg, epo, grpo, ppo
from stratagem.study.experiments import learn
from stratagem.training.loop import Settings, Trainer
from stratagem.training.run_directory import RunDirectory

FACTOR = "objective.regularizer.term.terms.scaled_regularizer.factor"
BAND = "objective.regularizer.term.terms.scaled_regularizer.term"


def changed(recipe: Recipe, base: Recipe) -> set[str]:
    return {change.path for change in recipe.diff(base)}


def trainer(recipe: Recipe, folder, game: str = "errand", seed: int = 0) -> Trainer:
    world = LabWorld(LabTask(find_game(game)), seed)
    return Trainer(world.adapt(recipe), world, RunDirectory.create(folder), Settings(9, seed, evaluation_episodes=0))


def band_of(recipe: Recipe) -> EntropyBand:
    band = recipe.objective.regularizer.term.terms[1].term
    assert isinstance(band, EntropyBand)
    return band


# ---- empg -----------------------------------------------------------------------------------------------------------


def test_empg_is_grpo_with_another_advantage():
    assert {path.split(".")[0] for path in changed(empg(), grpo())} == {"advantage"}
    assert catalogue.card("empg").base == "grpo"


def test_empg_without_scaling_and_bonus_is_grpo_less_the_mean_over_turns():
    x = Experience.from_lengths(
        [2, 1, 3, 1, 1], [2, 2, 1], [3], reward=[1.0, 0.0, 0.0], entropy=torch.rand(8), behavior_logp=torch.zeros(8)
    )
    plain = GroupStandardized()(x)
    found = empg(scaling=0.0, bonus=0.0).prepare(x).advantage
    torch.testing.assert_close(found, plain - x.turn_of_token.mean(plain).mean())


def test_empg_learns_from_the_entropies_of_the_policy_that_sampled(tmp_path):
    run = trainer(empg().with_values({"optimization.minibatches": 2, "optimization.epochs": 2}), tmp_path / "run")
    for _ in range(2):
        before = Exact(run.world.tree, run.policy.table())
        batch = run._collect()
        expected = before.node_entropy[batch.x.inputs.node]
        torch.testing.assert_close(batch.x.entropy.double(), expected, rtol=1e-5, atol=1e-6)
        run._batch = batch
        run.step()


@pytest.mark.parametrize("name", ["empg", "epo"])
def test_language_policies_say_what_the_recipes_read(name, make_trainer, small):
    metrics = make_trainer(small(name), steps=1).step()
    assert metrics["updates/not_finite"] == 0
    assert metrics["batch/skipped"] == 0


@pytest.mark.parametrize("recipe", [empg(), epo("hinge", 0.1, turns=4)], ids=["empg", "epo"])
def test_the_lab_can_judge_them(recipe):
    found = diagnose(recipe, "corridor", groups=256)
    assert found.bias is not None


# ---- epo ------------------------------------------------------------------------------------------------------------


def test_epo_without_its_terms_is_ppo():
    def named(recipe: Recipe) -> Recipe:
        return dataclasses.replace(recipe, name="ppo", base=None)

    assert named(epo(entropy_weight=0.0)) == ppo()
    assert named(epo(entropy_weight=0.3, smoothing=0.0)) == ppo(entropy_weight=0.3)
    assert {path.split(".")[0] for path in changed(epo(), ppo())} == {"objective", "schedules"}


def test_epo_survives_yaml_with_its_schedule():
    recipe = epo("hinge", smoothing=2.0, turns=7)
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe
    [schedule] = recipe.schedules
    moved = recipe.with_values(schedule(75, {})).flat()
    assert moved[FACTOR] == pytest.approx(2 * 0.827067, abs=1e-6)
    assert moved["objective.regularizer.factor"] == 0.001


def test_published_epo_learns_exactly_as_ppo_with_its_bonus_and_only_its_loss_differs():
    task = LabTask(find_game("errand"))
    options = {"low": 0.9, "high": 1.1, "penalty": 1.0, "turns": 6, "batches": 4}
    bonus, published, hinge = (
        learn(recipe, task, 1000, 4)
        for recipe in (ppo(entropy_weight=0.1), epo("constant", 0.1, **options), epo("hinge", 0.1, **options))
    )
    assert torch.equal(published.last.logits, bonus.last.logits)
    assert not torch.equal(hinge.last.logits, bonus.last.logits)
    assert published.mean_metric("regularizer") > bonus.mean_metric("regularizer") + 0.01


def test_the_weight_of_the_penalty_follows_the_batches(tmp_path):
    run = trainer(epo(batches=4), tmp_path / "run")
    logged = [run.step()[f"knob/{FACTOR}"] for _ in range(4)]
    assert logged == pytest.approx([1.0, 0.8 + 0.2 * 2.718281828**-1, 0.827067, 0.178504], abs=1e-6)


def test_a_batch_is_remembered_once_however_often_it_is_learned_from(tmp_path):
    recipe = epo(turns=6).with_values({"optimization.epochs": 3, "optimization.minibatches": 2})
    run = trainer(recipe, tmp_path / "run")
    expected = []
    for number in range(3):
        batch = run._collect()
        first = torch.zeros(batch.x.turns, dtype=torch.bool)
        first[batch.x.trajectory_of_turn.first()] = True
        expected.append(float(batch.x.entropy.double()[first[batch.x.turn_of_token.labels]].mean()))
        run._batch = batch
        run.step()
        memory = band_of(run.recipe).memory()
        assert memory["batches"][0] == number + 1
        assert float(memory["total"][0]) == pytest.approx(sum(expected), rel=1e-6)
    assert band_of(recipe).memory()["batches"].numel() == 0


def test_an_interrupted_run_goes_on_with_what_was_usual(tmp_path):
    def metrics(run: Trainer) -> dict[str, float]:
        return {name: value for name, value in run.step().items() if not name.startswith(("timing/", "memory/"))}

    recipe = epo("hinge", 0.1, low=0.9, high=1.1, turns=6)
    unbroken = trainer(recipe, tmp_path / "unbroken")
    for _ in range(3):
        unbroken.step()
    unbroken.checkpoint()
    resumed = trainer(recipe, tmp_path / "resumed")
    resumed.resume(unbroken.run_directory.load())
    assert torch.equal(band_of(resumed.recipe).memory()["total"], band_of(unbroken.recipe).memory()["total"])
    assert metrics(resumed) == metrics(unbroken)


def test_what_is_usual_is_noted_before_turns_are_taken_apart(tmp_path):
    class ByTurn(type(Tree.enumerate(find_game("errand")).leaves.inputs)):
        """Node inputs can be taken apart, since a table remembers no turns."""

        def by_turn(self):
            return type(self)(self.node, torch.ones_like(self.node))

    run = trainer(epo(turns=6), tmp_path / "run")
    x = run._collect().x
    parted = x.replace(inputs=ByTurn(x.inputs.node, x.inputs.lengths)).by_turn()
    assert torch.equal(parted.usual_entropy, x.usual_entropy)
    assert len(x.usual_entropy.unique()) > 1
