"""Recipes that learn from another view of the policy: the loss, the phases, and what a phase may not touch."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.lab import diagnose, find_game
from stratagem.lab.world import LabTask
from stratagem.objectives import InternalLayer, Perturbed, ResponseOnly, TokenRatio, TruncatedImportance
from stratagem.recipe import Recipe
from stratagem.recipes import alp, bupo, grpo, ppo, prerl
from stratagem.schedules import Switch
from stratagem.study.experiments import learn
from stratagem.training.loop import Interrupted

MEASURED = ("timing/", "memory/")


def rewarded(*rewards: float, lengths: tuple[int, ...] = (1, 1, 1, 1)) -> Experience:
    """One group of single-turn trajectories."""
    return Experience.from_lengths(lengths, [1] * len(lengths), [len(lengths)], reward=list(rewards))


def loss_and_gradient(recipe: Recipe, x: Experience, logp: Tensor | None = None) -> tuple[float, Tensor]:
    """Of a credited batch, by the log-probabilities; without ``logp`` the ratio is 1."""
    logp = (torch.full((x.tokens,), -1.0) if logp is None else logp).clone().requires_grad_()
    loss = recipe.objective(PolicyOutput(logp), x).loss
    loss.backward()
    return float(loss.detach()), logp.grad


def logged(trainer) -> list[dict]:
    rows = trainer.run_directory.rows("metrics.jsonl")
    return [{key: value for key, value in row.items() if not key.startswith(MEASURED)} for row in rows]


def stopping_after(trainer, updates: int):
    """The trainer, told to stop when it has taken so many optimizer steps."""
    step = trainer._optimizer.step
    done = 0

    def counted(*arguments, **options):
        nonlocal done
        done += 1
        if done == updates:
            trainer.stop()
        return step(*arguments, **options)

    trainer._optimizer.step = counted
    return trainer


# ---- responses alone ------------------------------------------------------------------------------------------------


def test_one_right_answer_of_four_worked_by_hand():
    for signs, advantage, loss in (
        ("negative", [0.0, -0.25, -0.25, -0.25], 0.0025),
        ("positive", [0.75, 0.0, 0.0, 0.0], -0.0075),
        ("both", [0.75, -0.25, -0.25, -0.25], 0.0),
    ):
        recipe = prerl(signs=signs)
        x = recipe.prepare(rewarded(1, 0, 0, 0))
        torch.testing.assert_close(x.advantage, 0.01 * torch.tensor(advantage))
        found, gradient = loss_and_gradient(recipe, x)
        assert found == pytest.approx(loss, abs=1e-8)
        counted = 4 if signs == "both" else sum(value != 0 for value in advantage)
        torch.testing.assert_close(gradient, -0.01 * torch.tensor(advantage) / counted)


def test_the_mean_is_over_the_tokens_of_the_samples_that_count():
    recipe = prerl()
    x = recipe.prepare(rewarded(1, 0, 1, 0, lengths=(5, 1, 2, 3)))
    _, gradient = loss_and_gradient(recipe, x)
    expected = torch.tensor([0.0] * 5 + [1.0] + [0.0] * 2 + [1.0] * 3) * 0.01 * 0.5 / 4
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize(("signs", "untouched"), [("negative", 0), ("positive", 1)])
def test_samples_of_the_other_sign_do_not_matter(signs, untouched):
    recipe = prerl(signs=signs)
    x = recipe.prepare(rewarded(1, 0, 1, 0)).replace(old_logp=torch.full((4,), -1.0))
    logp = torch.tensor([-1.1, -0.9, -1.05, -1.2])
    changed = logp.clone()
    changed[[untouched, untouched + 2]] = -30.0
    first, gradient = loss_and_gradient(recipe, x, logp)
    other, same = loss_and_gradient(recipe, x, changed)
    assert first == other
    assert torch.equal(gradient, same)
    assert bool((gradient != 0).any())


def test_with_a_common_count_the_signs_add_up_to_all_samples():
    x = rewarded(1, 0, 1, 0, 0, lengths=(1, 2, 3, 1, 2))
    logp = torch.linspace(-1.4, -0.6, 9)
    gradients = {}
    for signs in ("negative", "positive", "both"):
        recipe = prerl(signs=signs).with_values({"objective.aggregation": "token_mean"})
        credited = recipe.prepare(x).replace(old_logp=torch.full((9,), -1.0))
        gradients[signs] = loss_and_gradient(recipe, credited, logp)[1]
    torch.testing.assert_close(gradients["negative"] + gradients["positive"], gradients["both"])


def test_a_batch_without_wrong_answers_has_no_signal():
    recipe = prerl()
    assert not recipe.objective.has_signal(recipe.prepare(rewarded(1, 1, 1, 1)))
    assert recipe.objective.has_signal(recipe.prepare(rewarded(1, 0, 1, 1)))


def at_step(recipe: Recipe, step: int) -> Recipe:
    for schedule in recipe.schedules:
        recipe = recipe.with_values(schedule(step, {}))
    return recipe


def test_the_last_batch_without_the_prompt_is_the_nineteenth():
    recipe = prerl()
    assert at_step(recipe, 19) == recipe and recipe.view == ResponseOnly()
    after = at_step(recipe, 20)
    assert after.view is None
    assert after.advantage == grpo().advantage
    assert after.diff(grpo()) == [
        change
        for change in after.diff(grpo())
        if change.path in ("objective.gate.dual", "objective.aggregation") or change.path.startswith("schedules")
    ]
    assert at_step(prerl(steps=0), 0).view is None


def test_the_ablation_keeps_the_prompt():
    assert prerl(space="conditional").view is None
    for arguments in ({"signs": "wrong"}, {"space": "pretrain"}):
        with pytest.raises(InputError, match="unknown"):
            prerl(**arguments)


def test_the_phases_survive_a_resume(make_trainer, small):
    def started(name: str):
        recipe = small("prerl", sampler__group_size=6, optimization__minibatches=2)
        schedules = tuple(dataclasses.replace(schedule, at=2) for schedule in recipe.schedules)
        return make_trainer(recipe.replace(schedules=schedules), name, steps=4)

    unbroken = started("unbroken")
    unbroken.run()
    assert unbroken.recipe.view is None
    assert logged(unbroken)[3]["optimizer_steps"] >= 6
    for updates in (3, 5):
        with pytest.raises(Interrupted):
            stopping_after(started(f"stopped-{updates}"), updates).run()
        resumed = started(f"stopped-{updates}")
        resumed.resume(resumed.run_directory.load())
        resumed.run()
        assert logged(resumed) == logged(unbroken)


def test_a_ratio_to_the_sampler_makes_no_sense_without_the_prompt():
    recipe = prerl()
    for objective in (
        recipe.objective.replace(ratio=TokenRatio("behavior")),
        recipe.objective.replace(correction=TruncatedImportance()),
    ):
        with pytest.raises(InputError, match="view = response_only: advantage or objective reads behavior_logp"):
            recipe.replace(objective=objective)
    with pytest.raises(InputError, match=r"reads output\.value, value"):
        ppo().replace(view=ResponseOnly())


# ---- internal layers ------------------------------------------------------------------------------------------------


def test_the_last_batch_of_an_internal_layer_is_the_twenty_ninth():
    recipe = bupo()
    assert at_step(recipe, 29).view == InternalLayer(6)
    assert at_step(recipe, 30).view is None
    assert at_step(bupo(layer=2, steps=0), 0).view is None
    changed = {change.path for change in at_step(recipe, 30).diff(grpo())}
    assert {path for path in changed if not path.startswith("schedules")} == {
        "objective.gate.dual",
        "objective.aggregation",
    }


def weights(policy) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in policy.model.named_parameters()}


def test_layers_above_do_not_move_whatever_the_optimizer_remembers(make_trainer, small):
    """The first batch is of the whole model, so that there is momentum everywhere; weights decay all the while."""
    recipe = small("bupo", optimization__weight_decay=0.1, sampler__group_size=6)
    trainer = make_trainer(recipe.replace(view=None, schedules=()), steps=3)
    trainer.step()
    before = weights(trainer.policy)
    trainer.recipe = trainer.recipe.replace(view=InternalLayer(1))
    trainer.step()
    after = weights(trainer.policy)
    still = {name for name in before if torch.equal(before[name], after[name])}
    assert still == {name for name in before if ".layers.1." in name or name == "model.norm.weight"}


def test_the_first_update_of_an_internal_layer_has_ratio_one(make_trainer, small):
    """Old log-probabilities are of the layer too: those of the sampler would be far from it."""
    trainer = make_trainer(small("bupo", view__layer=1, optimization__minibatches=2, sampler__group_size=6))
    trainer.recipe = trainer.recipe.with_values({"optimization.learning_rate": 0.0})
    metrics = trainer.step()
    assert metrics["ratio"] == pytest.approx(1.0, abs=1e-5)
    assert metrics["kl_old"] == pytest.approx(0.0, abs=1e-6)
    assert metrics["grad_norm"] > 0


def test_a_layer_the_model_does_not_have_is_named_when_the_run_begins(make_trainer, small):
    with pytest.raises(InputError, match=r"internal_layer.layer = 6: this model has 2 layers"):
        make_trainer(small("bupo", sampler__group_size=6)).step()


# ---- perturbed layers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["token", "trajectory"])
def test_one_ratio_to_the_sampler_and_nothing_else(unit):
    recipe = alp(unit)
    assert recipe.needs() & {"old_logp", "behavior_logp"} == {"behavior_logp"}
    assert recipe.objective.correction is None
    assert recipe.with_values({"view": None}).experience_needs() == recipe.experience_needs()


def test_a_response_may_be_half_to_three_times_as_likely():
    recipe = alp("trajectory")
    x = recipe.prepare(rewarded(1, 0, 1, 0, lengths=(2, 1, 2, 1)).replace(behavior_logp=torch.full((6,), -1.0)))
    for log_ratio, passes in ((math.log(2.9) / 2, True), (math.log(3.1) / 2, False)):
        logp = torch.full((6,), -1.0)
        logp[:2] += log_ratio
        assert bool(loss_and_gradient(recipe, x, logp)[1][:2].all()) == passes
    for log_ratio, passes in ((math.log(0.51), True), (math.log(0.49), False)):
        logp = torch.full((6,), -1.0)
        logp[2] += log_ratio
        assert bool(loss_and_gradient(recipe, x, logp)[1][2]) == passes


@pytest.mark.parametrize(
    ("arguments", "initial", "rate"),
    [({}, 1e-5, 1e-6), ({"unit": "trajectory"}, 1e-6, 5e-4), ({"initial": 0.5, "noise_learning_rate": 0.0}, 0.5, 0.0)],
)
def test_the_noise_of_the_released_scripts(arguments, initial, rate):
    assert alp(**arguments).view == Perturbed(initial=initial, learning_rate=rate)
    with pytest.raises(InputError, match="unknown unit 'sequence'"):
        alp("sequence")


def test_without_noise_it_is_the_bypass(make_trainer, small):
    found = []
    for name, view in (("silent", Perturbed(initial=0.0)), ("bypass", None)):
        recipe = small("alp", sampler__group_size=6, optimization__minibatches=2, optimization__weight_decay=0.1)
        trainer = make_trainer(recipe.replace(view=view), name)
        trainer.run()
        found.append((weights(trainer.policy), logged(trainer)))
    assert found[0][1] == found[1][1]
    assert all(torch.equal(found[0][0][name], found[1][0][name]) for name in found[1][0])


def loud(small, **values):
    """Noise one notices, and learns fast."""
    options = {"sampler__group_size": 6, "view__initial": 0.01, "view__learning_rate": 0.1}
    return small("alp", optimization__minibatches=2, **(options | values))


def test_widths_are_learned_at_their_own_rate_and_do_not_decay(make_trainer, small):
    for rate in (0.0, 0.1):
        trainer = make_trainer(loud(small, view__learning_rate=rate, optimization__weight_decay=0.5), f"rate-{rate}")
        [widths] = trainer.policy.view_parameters(trainer.recipe.view)
        before = widths.detach().clone()
        trainer.step()
        steps = (widths.detach() - before).abs()
        # Adam's first steps are about as long as its learning rate.
        assert bool((steps == 0).all()) if rate == 0 else bool(((steps > 0.01) & (steps < 0.21)).all())


def test_old_log_probabilities_are_not_perturbed(make_trainer, small):
    """They are asked for before two optimizer steps; with a policy that does not move they are those of the sampler."""
    trainer = make_trainer(loud(small, optimization__learning_rate=0.0, view__initial=1.0, view__learning_rate=0.0))
    trainer.recipe = trainer.recipe.with_values({"objective.ratio.denominator": "old"})
    collected = trainer.world.collect(trainer.recipe.sampler, 0).x
    with torch.no_grad():
        plain = trainer.policy(collected).logp
    completed = trainer._companions.complete(trainer.recipe, collected)
    torch.testing.assert_close(completed.old_logp, plain)
    assert trainer.step()["kl_old"] > 1e-3


def test_the_widths_and_what_the_optimizer_knows_of_them_survive_a_resume(make_trainer, small):
    unbroken = make_trainer(loud(small), "unbroken", steps=3)
    unbroken.run()
    with pytest.raises(Interrupted):
        stopping_after(make_trainer(loud(small), "stopped", steps=3), 3).run()
    resumed = make_trainer(loud(small), "stopped", steps=3)
    resumed.resume(resumed.run_directory.load())
    resumed.run()
    assert logged(resumed) == logged(unbroken)
    assert torch.equal(resumed.policy.log_noise, unbroken.policy.log_noise)


def test_noise_can_be_switched_off_and_not_on(make_trainer, small):
    off = loud(small).replace(schedules=(Switch("view", None, 1),))
    trainer = make_trainer(off, "off")
    trainer.step()
    widths = trainer.policy.log_noise.detach().clone()
    trainer.step()
    assert torch.equal(trainer.policy.log_noise.detach(), widths)
    on = loud(small).replace(view=None, schedules=(Switch("view", "perturbed", 1),))
    trainer = make_trainer(on, "on")
    trainer.step()
    with pytest.raises(InputError, match="view = perturbed: has parameters of its own; a run must begin with it"):
        trainer.step()


def test_noise_is_the_same_for_the_same_seed_in_the_lab():
    found = [learn(alp(initial=0.5), LabTask(find_game("four_by_four"), staleness=1), 1000, 3) for _ in range(2)]
    assert torch.equal(found[0].last.logits, found[1].last.logits)
    plain = learn(alp(initial=0.0), LabTask(find_game("four_by_four"), staleness=1), 1000, 3)
    assert not torch.equal(found[0].last.logits, plain.last.logits)
    diagnoses = [diagnose(alp(initial=0.5), "four_by_four", groups=1024, seed=1000) for _ in range(2)]
    assert diagnoses[0].direction == diagnoses[1].direction


@pytest.mark.parametrize("layers", [(), (0,)])
def test_noise_needs_a_layer_counted_from_one(layers):
    with pytest.raises(InputError, match=r"perturbed\.layers = "):
        alp(layers=layers)
    assert Recipe.from_yaml(alp(layers=(1, 3)).to_yaml()) == alp(layers=(1, 3))
