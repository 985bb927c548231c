"""Recipes: validated as a whole, written, read, compared and changed by path."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch

from stratagem import recipes
from stratagem.advantages import (
    GAE,
    Constant,
    GroupCentered,
    GroupQuantileTarget,
    LeaveOneOut,
    MovingAverageBaseline,
    WithDemonstrations,
)
from stratagem.catalogue import cards
from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.objectives import KL, Clip, EntropyBonus, PolicyGradient, TokenMean, TowardsTarget
from stratagem.recipe import Recipe
from stratagem.rewards import OverlongPenalty
from stratagem.sampling import AboveReturn, Rollouts
from stratagem.schedules import LinearRamp

IN_CATALOGUE = [entry for entry in cards() if not isinstance(entry.build, type)]


def rich() -> Recipe:
    """A recipe with something in every place."""
    return Recipe(
        name="rich",
        sampler=Rollouts(temperature=0.7),
        advantage=0.5 * GroupCentered() + MovingAverageBaseline(0.8) + Constant(-math.inf),
        objective=PolicyGradient(gate=Clip(dual=3.0), regularizer=0.1 * KL("k2") + EntropyBonus()),
        rewards=(OverlongPenalty(100, 20), OverlongPenalty(50, 10)),
        selections=(AboveReturn(-math.inf),),
        schedules=(LinearRamp("optimization.learning_rate", 1e-3, 1e-4, 10),),
    )


def groups(rewards: list[list[float]]) -> Experience:
    """Groups of trajectories of two tokens."""
    flat = [r for group in rewards for r in group]
    return Experience.from_lengths(
        [2] * len(flat), [1] * len(flat), [len(group) for group in rewards], reward=torch.tensor(flat)
    )


# ---- YAML -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", IN_CATALOGUE, ids=lambda entry: entry.name)
def test_every_recipe_of_the_catalogue_is_read_back_equal(entry):
    recipe = entry.build()
    if isinstance(recipe, Recipe):
        assert recipe.name == entry.name
        assert recipe.base == entry.base
        assert Recipe.from_yaml(recipe.to_yaml()) == recipe


def test_nested_parts_and_infinities_are_read_back_equal(tmp_path):
    assert Recipe.from_yaml(rich().to_yaml()) == rich()
    file = tmp_path / "recipe.yaml"
    file.write_text(rich().to_yaml())
    assert Recipe.load(file) == rich()
    assert recipes.decoupled_ppo().objective.correction.high == math.inf


def test_a_part_may_be_written_as_its_name_alone():
    recipe = Recipe.from_yaml("{name: short, sampler: rollouts, advantage: leave_one_out, objective: policy_gradient}")
    assert recipe == Recipe("short", Rollouts(), LeaveOneOut(), PolicyGradient())


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("name: rich", "name: rich\n  : ["), r"^my\.yaml, line \d+: not valid YAML$"),
        (("temperature: 0.7", "temperature: -1"), r"^my\.yaml: rollouts\.temperature = -1: .*greater than 0$"),
        (("temperature: 0.7", "temperatur: 1"), r"^my\.yaml: unknown field of rollouts at sampler: 'temperatur'; did"),
        (("part: rollouts", "part: rollout"), r"^my\.yaml: unknown sampler 'rollout'; did you mean 'rollouts'\?$"),
        (("part: rollouts", "kind: rollouts"), r"^my\.yaml: sampler = .*a mapping with its name under 'part'$"),
        (("name: rich\n", ""), r"^my\.yaml: recipe: name is missing$"),
        (("    factor: 0.5\n", ""), r"^my\.yaml: scaled_advantage at advantage\.terms\.0: factor is missing$"),
        (
            ("selections:\n- part: above_return\n  threshold: -.inf", "selections: 3"),
            r"selections = 3: .* list of parts",
        ),
    ],
)
def test_a_wrong_file_says_where_and_what_is_allowed(change, expected):
    text = rich().to_yaml()
    assert text.count(change[0]) == 1
    broken = text.replace(*change)
    with pytest.raises(InputError, match=expected) as caught:
        Recipe.from_yaml(broken, "my.yaml")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_missing_or_no_mapping_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match=r"cannot be read \(FileNotFoundError\)"):
        Recipe.load(tmp_path / "nothing.yaml")
    with pytest.raises(InputError, match="a recipe is a mapping"):
        Recipe.from_yaml("- 1")


# ---- paths ----------------------------------------------------------------------------------------------------------


def test_a_diff_names_what_was_before_and_what_is_after():
    changes = {change.path: (change.before, change.after) for change in recipes.dapo().diff(recipes.grpo())}
    assert changes == {
        "sampler": ("rollouts", "dynamic_sampling"),
        "sampler.refill_rounds": (1, 3),
        "rewards.overlong_penalty": (None, "overlong_penalty"),
        "rewards.overlong_penalty.limit": (None, 1024),
        "rewards.overlong_penalty.buffer": (None, 256),
        "rewards.overlong_penalty.scale": (None, 1.0),
        "objective.gate.high": (0.2, 0.28),
        "objective.aggregation": ("sequence_mean", "token_mean"),
    }
    assert recipes.grpo().diff(recipes.grpo()) == []


def test_fields_are_changed_by_path():
    recipe = rich().with_values(
        {
            "sampler.group_size": 4,
            "objective.gate.low": "0.1",
            "advantage.terms.moving_average_baseline.decay": 0.5,
            "rewards.0.limit": 200,
            "schedules.linear_ramp.steps": 99,
            "objective.aggregation": "token_mean",
        }
    )
    assert recipe.sampler == Rollouts(temperature=0.7, group_size=4)
    assert recipe.objective.gate == Clip(0.1, dual=3.0)
    assert recipe.objective.aggregation == TokenMean()
    assert recipe.advantage.terms[1].decay == 0.5
    assert recipe.rewards == (OverlongPenalty(200, 20), OverlongPenalty(50, 10))
    assert recipe.schedules[0].steps == 99
    assert rich() == rich().with_values({})


def test_every_number_and_choice_of_the_flat_view_can_be_set_to_what_it_is():
    for recipe in (rich(), recipes.ppo(), recipes.decoupled_ppo(), recipes.reinforce_pp()):
        flat = recipe.flat()
        for path, value in flat.items():
            of_a_part = any(other.startswith(f"{path}.") for other in flat) or path.rpartition(".")[0].endswith("terms")
            if not of_a_part:
                assert recipe.with_values({path: value}) == recipe, path


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("sampler.group_sise", 4, r"unknown field of rollouts in 'sampler\.group_sise': 'group_sise'; did you mean"),
        ("samplr.group_size", 4, r"'samplr'; did you mean 'sampler'\?"),
        ("sampler.group_size", 0, r"rollouts\.group_size = 0: .*greater than or equal to 1"),
        ("sampler.group_size", 1, r"recipe rich: sampler\.group_size = 1: advantage .* needs at least 2"),
        ("sampler.group_size.low", 1, r"sampler\.group_size\.low: group_size of rollouts has no field 'low'"),
        ("advantage.terms.constantt.value", 1, r"'constantt'; did you mean 'constant'\?"),
        ("advantage.terms.constant", 1, r"name a field of constant: value"),
        ("advantage", "leave_one_outt", r"unknown advantage 'leave_one_outt'; did you mean 'leave_one_out'\?"),
        ("objective.gate", 3, r"objective\.gate = 3: must be a gate part"),
        ("objective.critic.clip", 1, r"critic of policy_gradient has no field 'clip'"),
    ],
)
def test_a_wrong_path_or_value_says_what_is_allowed(path, value, expected):
    with pytest.raises(InputError, match=expected) as caught:
        rich().with_values({path: value})
    assert "\n" not in str(caught.value)


def test_memory_survives_changed_values_and_restores_through_the_recipe():
    recipe = recipes.reinforce(baseline_decay=0.5)
    recipe.advantage(groups([[4.0, 0.0]]))
    changed = recipe.with_values({"advantage.decay": 0.9, "sampler.group_size": 2, "optimization.learning_rate": 1e-3})
    assert float(changed.state_dict()["advantage.average"]) == 1.0
    fresh = recipes.reinforce()
    fresh.load_state_dict(changed.state_dict())
    assert float(fresh.advantage.memory()["batches"]) == 1.0


# ---- validation and preparation -------------------------------------------------------------------------------------


def test_a_group_of_one_is_refused_for_an_advantage_that_compares():
    expected = r"^recipe rloo: sampler\.group_size = 1: advantage leave_one_out .* needs at least 2$"
    with pytest.raises(InputError, match=expected):
        recipes.rloo().with_values({"sampler.group_size": 1})
    assert recipes.reinforce().with_values({"sampler.group_size": 1}).sampler.group_size == 1


def test_a_recipe_states_what_it_reads():
    assert recipes.grpo().experience_needs() == set()
    assert recipes.grpo(kl_coefficient=0.04).experience_needs() == {"ref_logp"}
    assert recipes.ppo(entropy_weight=0.01).output_needs() == {"value", "entropy"}
    assert recipes.ppo().experience_needs() == {"value"}


def test_preparing_shapes_rewards_selects_and_credits():
    recipe = rich().replace(
        advantage=GroupCentered(), rewards=(OverlongPenalty(2, 2),), selections=(AboveReturn(0.0),), schedules=()
    )
    # Two tokens of at most two cost 1: returns 2, 0, -1 and 1, 3 - of which -1 is not selected.
    ready = recipe.replace(objective=PolicyGradient()).prepare(groups([[3.0, 1.0, 0.0], [2.0, 4.0]]))
    assert ready.returns.tolist() == [2.0, 0.0, 1.0, 3.0]
    assert ready.advantage.tolist() == [1, 1, -1, -1, -1, -1, 1, 1]
    assert ready.value_target is None


def test_groups_too_small_to_compare_are_gone_after_preparation():
    ready = recipes.rloo().prepare(groups([[1.0], [2.0, 0.0]]))
    assert ready.returns.tolist() == [2.0, 0.0]
    assert ready.advantage.tolist() == [2.0, 2.0, -2.0, -2.0]


def test_preparing_a_batch_that_lacks_a_field_or_a_finite_return_names_it():
    with pytest.raises(ValueError, match="recipe grpo reads ref_logp, which this experience does not have"):
        recipes.grpo(kl_coefficient=0.1).prepare(groups([[1.0, 0.0]]))
    with pytest.raises(ValueError, match="recipe grpo: trajectory 1 has return nan"):
        recipes.grpo().prepare(groups([[1.0, math.nan]]))
    with pytest.raises(ValueError, match="recipe grpo: trajectory 0 has return inf"):
        recipes.grpo().prepare(groups([[math.inf, 0.0]]))


@pytest.mark.parametrize("name", ["grpo", "rloo", "reinforce", "reinforce_pp_baseline", "dapo", "rejection_sft"])
def test_a_batch_of_which_nothing_is_selected_is_empty_and_harmless(name):
    recipe = getattr(recipes, name)()
    recipe = recipe.replace(selections=(AboveReturn(math.inf),))
    x = groups([[1.0, 0.0]])
    x = x.replace(**{field: torch.zeros(x.tokens) for field in recipe.experience_needs()})
    ready = recipe.prepare(x)
    assert (ready.tokens, ready.trajectories) == (0, 0)
    assert ready.advantage.tolist() == []
    assert not recipe.replace(objective=PolicyGradient()).objective.has_signal(ready)
    assert all(bool(tensor.isfinite().all()) for tensor in recipe.state_dict().values())


def test_the_value_target_is_set_for_a_critic():
    x = groups([[1.0, 0.0]]).replace(value=torch.zeros(4))
    ready = recipes.ppo().with_values({"advantage.of.trace": 1.0}).prepare(x)
    assert ready.value_target.tolist() == [1.0, 1.0, 0.0, 0.0]
    assert isinstance(recipes.ppo().advantage.of, GAE)


# ---- what the recipe notes of a batch before it is cut ---------------------------------------------------------------


def test_pass_rates_are_noted_for_whole_groups_before_anything_is_selected():
    @dataclass(frozen=True)
    class _ReadsPassRates(PolicyGradient):
        requires = frozenset({"pass_rate"})

    recipe = Recipe("r", Rollouts(), Constant(), _ReadsPassRates(), selections=(AboveReturn(1.0),))
    x = groups([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0], [0.0, 0.0]])
    assert recipe.experience_needs() == {"success"}
    with pytest.raises(ValueError, match="reads success"):
        recipe.prepare(x)
    x = x.replace(success=x.returns > 0)
    ready = recipe.prepare(x)
    assert ready.trajectories == 3
    assert ready.pass_rate.tolist() == [0.25, 0.5]
    assert ready.select(torch.tensor([2])).pass_rate.tolist() == [0.5]


def test_an_objective_that_pulls_to_a_target_needs_an_advantage_that_sets_one():
    pulls = PolicyGradient(gate=TowardsTarget())
    with pytest.raises(InputError, match="recipe r: the objective pulls ratios to a target, which advantage constant"):
        Recipe("r", Rollouts(), Constant(), pulls)
    Recipe("r", Rollouts(), 0.5 * GroupQuantileTarget() + Constant(0.0), pulls)


# ---- demonstrations -------------------------------------------------------------------------------------------------


def test_the_pass_rate_is_that_of_rollouts_and_small_groups_keep_their_demonstrations():
    """Groups of two rollouts, of one, and of none; each has a demonstration that succeeds."""
    x = Experience.from_lengths(
        [1] * 6,
        [1] * 6,
        [3, 2, 1],
        reward=[1.0, 0.0, 1.0, 1.0, 1.0, 1.0],
        success=[True, False, True, True, True, True],
        demonstrated=[False, False, True, False, True, True],
        action=torch.arange(6),
    )
    recipe = Recipe(
        "mixed",
        Rollouts(demonstrations=1),
        WithDemonstrations(GroupCentered(), blend="linear"),
        PolicyGradient(),
    )
    ready = recipe.prepare(x)
    assert ready.pass_rate.tolist() == [0.5, 1.0, 0.0]
    assert ready.action.tolist() == [0, 1, 2, 4, 5]
    assert ready.advantage.tolist() == [0.25, -0.25, 0.5, 0.0, 1.0]
