"""Gradients that are measured while a recipe runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from stratagem.advantages import GroupCentered
from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.lab import GAMES, TabularPolicy
from stratagem.lab.world import LabTask, LabWorld
from stratagem.objectives import LogLikelihood, PolicyGradient, SequenceSum
from stratagem.recipe import Recipe
from stratagem.recipes import amft, grpo, hpt
from stratagem.sampling import Demonstrations, Rollouts
from stratagem.schedules import GradientProbe
from stratagem.training.loop import Settings, Trainer
from stratagem.training.probes import RunGauge
from stratagem.training.run_directory import RunDirectory

RETURN = GradientProbe(
    every=2,
    sampler=Rollouts(prompts_per_step=64, group_size=8),
    advantage=GroupCentered(),
    objective=PolicyGradient(gate=LogLikelihood(), aggregation=SequenceSum()),
)


def trainer(folder: Path, recipe: Recipe, **settings: Any) -> Trainer:
    world = LabWorld(LabTask(GAMES["prompts"]), seed=0)
    settings = {"steps": 4, "evaluation_episodes": 0, **settings}
    return Trainer(world.adapt(recipe), world, RunDirectory.create(folder), Settings(**settings))


def batches(recipe: Recipe) -> tuple[TabularPolicy, Experience, Experience]:
    """A policy, a batch to learn from, credited, and demonstrations to validate on."""
    world = LabWorld(LabTask(GAMES["prompts"]), seed=0)
    x = world.collect(recipe.sampler, 0).x
    x = recipe.prepare(x.replace(value=torch.zeros(x.tokens)))
    return world.policy, x, world.collect(Demonstrations(held_out=True), 0).x


def gauge(recipe: Recipe, policy: TabularPolicy) -> RunGauge:
    return RunGauge(recipe, policy, lambda sampler: None, lambda x: x)


def test_products_are_the_derivative_of_the_validation_loss_through_one_step():
    """The weight is moved a little either way, the step taken, and the validation loss compared."""
    recipe = amft(initial=0.3)
    policy, x, validation = batches(recipe)
    recipe = recipe.with_values({"optimization.learning_rate": 0.5})
    probe = GradientProbe(ahead=True)
    found = probe.measured(x, validation, gauge(recipe, policy))
    judged = validation.replace(advantage=torch.ones(validation.tokens))
    needs = recipe.output_needs()

    def loss_ahead(weight: float) -> float:
        objective = recipe.with_values({"objective.weight": weight}).objective
        loss = objective(policy.double()(x, also=needs), x).loss
        (gradient,) = torch.autograd.grad(loss, [policy.logits])
        moved = TabularPolicy(policy.logits).double()
        with torch.no_grad():
            moved.logits.copy_(policy.logits - 0.5 * gradient)
        return float(probe.objective(moved(judged), judged).loss.detach())

    derivative = (loss_ahead(0.31) - loss_ahead(0.29)) / 0.02
    product = found["gradient/product/imitation"] - found["gradient/product/exploration"]
    assert found["gradient/learning_rate"] * product == pytest.approx(-derivative, rel=2e-3)
    here = GradientProbe().measured(x, validation, gauge(recipe, policy.float()))
    assert here["gradient/product/imitation"] != pytest.approx(found["gradient/product/imitation"], rel=1e-3)


def test_measuring_leaves_the_policy_as_it_is():
    recipe = amft()
    policy, x, validation = batches(recipe)
    before = policy.logits.detach().clone()
    for ahead in (False, True):
        GradientProbe(ahead=ahead).measured(x, validation, gauge(recipe, policy))
        assert torch.equal(policy.logits, before) and policy.logits.grad is None


def test_pieces_of_a_batch_have_the_figures_of_the_whole():
    recipe = amft()
    policy, x, validation = batches(recipe)
    whole = GradientProbe().measured(x, validation, gauge(recipe, policy))
    cut = recipe.with_values({"optimization.microbatch_tokens": 7})
    assert GradientProbe().measured(x, validation, gauge(cut, policy)) == pytest.approx(whole, rel=1e-4)
    assert set(whole) == {
        "gradient/learning_rate",
        "gradient/norm/validation",
        *(f"gradient/{kind}/{term}" for kind in ("norm", "product", "cosine") for term in ("imitation", "exploration")),
    }


def test_a_term_without_anything_to_learn_from_has_gradient_zero():
    recipe = amft()
    policy, x, validation = batches(recipe)
    found = GradientProbe().measured(x.select(x.played()), validation, gauge(recipe, policy))
    assert [found[f"gradient/{kind}/imitation"] for kind in ("norm", "product", "cosine")] == [0, 0, 0]
    assert found["gradient/norm/exploration"] > 0


def test_figures_that_are_not_finite_are_left_out():
    recipe = amft()
    policy, x, validation = batches(recipe)
    advantage = x.advantage.clone()
    advantage[~x.trajectory_of_token.spread(x.demonstrated)] = float("nan")
    found = GradientProbe().measured(x.replace(advantage=advantage), validation, gauge(recipe, policy))
    assert "gradient/product/exploration" not in found and "gradient/product/imitation" in found


def test_any_sum_can_be_watched_and_learns_as_if_it_were_not(tmp_path):
    quiet = trainer(tmp_path / "quiet", hpt(gate=0.5))
    watched = trainer(tmp_path / "watched", hpt(gate=0.5).replace(schedules=(GradientProbe(every=2),)))
    rows = [(quiet.step(), watched.step())[1] for _ in range(4)]
    assert torch.equal(quiet.policy.logits, watched.policy.logits)
    assert ["gradient/norm/terms.restricted" in row for row in rows] == [False, True, False, True]
    assert rows[1]["tokens/total"] == rows[1]["tokens/sampled"] * 2, "demonstrations are not sampled"


def test_a_validation_that_is_sampled_costs_tokens(tmp_path):
    run = trainer(tmp_path, hpt().replace(schedules=(RETURN,)), steps=2)
    rows = [run.step(), run.step()]
    assert rows[0]["tokens/sampled"] == 8 * 8 * 3
    assert rows[1]["tokens/sampled"] == 8 * 8 * 3 + 64 * 8 * 3


def test_an_objective_without_terms_is_refused(tmp_path):
    with pytest.raises(InputError, match="schedule gradient_probe: objective policy_gradient has no terms"):
        trainer(tmp_path, grpo().replace(schedules=(GradientProbe(every=1),))).step()


def test_a_fixed_weight_is_the_fixed_mixture_bit_for_bit(tmp_path):
    measured = amft(initial=0.5, meta_rate=0.0, entropy_rate=0.0, every=1, warm_up=0)
    fixed = measured.replace(schedules=())
    first, second = trainer(tmp_path / "first", measured), trainer(tmp_path / "second", fixed)
    for _ in range(4):
        assert "gradient/cosine/imitation" in first.step()
        second.step()
    assert torch.equal(first.policy.logits, second.policy.logits)
    assert torch.equal(first.policy.values, second.policy.values)


def test_the_weight_moves_is_logged_and_survives_a_resume(tmp_path):
    def fresh(name: str) -> Trainer:  # A recipe of its own for each, since it remembers the weight.
        recipe = amft(every=2, warm_up=1, normalized=True, meta_rate=0.02, entropy_rate=0.01)
        return trainer(tmp_path / name, recipe, steps=9)

    whole, first = fresh("whole"), fresh("first")
    rows = [whole.step() for _ in range(9)]
    weights = [row["knob/objective.weight"] for row in rows]
    assert weights[:3] == [1.0, 0.8, 0.8]
    moved = [step for step in range(3, 9) if weights[step] != weights[step - 1]]
    assert moved == [3, 5, 7], "after every second batch from the first that is no warm-up"
    for _ in range(4):
        first.step()
    first.checkpoint()
    second = fresh("second")
    second.resume(first.run_directory.load())
    again = [second.step()["knob/objective.weight"] for _ in range(5)]
    assert again == weights[4:]
    assert torch.equal(second.policy.logits, whole.policy.logits)


def test_a_language_policy_is_measured_on_start_states_it_never_trains_on(make_trainer, small, chatter, make_world):
    task = chatter()
    recipe = small("amft").replace(schedules=amft(every=1, warm_up=0).schedules)
    run = make_trainer(recipe, world=make_world(task))
    rows = [run.step(), run.step()]
    assert all(-1 <= row["gradient/cosine/imitation"] <= 1 and row["gradient/norm/exploration"] > 0 for row in rows)
    trained = {index for _, index, _ in task.calls if index >= 0}
    validated = {index for _, index, _ in task.calls if index < 0}
    assert trained == set(range(6)) and len(validated) == 2 * 32 and max(validated) < -(2**20)
