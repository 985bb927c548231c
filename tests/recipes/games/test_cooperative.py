from __future__ import annotations

import pytest
import torch

from stratagem.advantages import NormalizedValues
from stratagem.catalogue import card, cards
from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.recipe import Recipe


def batch() -> Experience:
    source = torch.Generator().manual_seed(0)
    drawn = {name: torch.randn(12, generator=source) for name in ("behavior_logp", "old_logp", "value", "turn_reward")}
    return Experience.from_lengths(
        [1] * 12, [3, 3, 3, 3], [2, 2], **drawn, final_value=torch.randn(4, generator=source), finished=[False] * 4
    )


@pytest.mark.parametrize("name", ["ippo", "mappo", "vdn", "qmix", "bn_policy", "mra"])
def test_a_recipe_is_written_and_read_back_equal(name: str) -> None:
    recipe = card(name).recipe()
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe and recipe.architecture is not None
    assert name in {found.name for found in cards("games")}


def test_ippo_credits_and_learns_as_ppo_does() -> None:
    ours = card("ippo").recipe()
    ppo = card("ppo").recipe(discount=0.99, value_weight=1.0, value_clip=0.2, entropy_weight=0.01)
    assert (ours.advantage, ours.objective) == (ppo.advantage, ppo.objective)
    out = PolicyOutput(torch.zeros(12), entropy=torch.ones(12), value=torch.zeros(12))
    losses = [recipe.objective(out, recipe.credit(batch())).loss for recipe in (ours, ppo)]
    assert torch.equal(*losses)


def test_mappo_is_ippo_with_a_critic_that_sees_more_and_values_on_their_own_scale() -> None:
    changes = {change.path: change.after for change in card("mappo").recipe().diff(card("ippo").recipe())}
    assert changes["architecture.critic"] == "both" and changes["advantage.of"] == "normalized_values"
    assert {path.split(".")[0] for path in changes} == {"architecture", "advantage"}
    plain = card("mappo").recipe(normalize_values=False).with_values({"architecture.critic": "observation"})
    assert not plain.diff(card("ippo").recipe())


def test_the_mixer_is_all_in_which_vdn_and_qmix_differ() -> None:
    [change] = card("qmix").recipe().diff(card("vdn").recipe())
    assert (change.path, change.before, change.after) == ("architecture.mixer", "sum", "monotone")


def test_a_critic_of_mappo_learns_targets_near_zero_whatever_the_rewards_are_paid_in() -> None:
    x, recipe = batch(), card("mappo").recipe()
    x = x.replace(turn_reward=1000 * x.turn_reward)
    normalized = recipe.advantage.of
    assert isinstance(normalized, NormalizedValues)
    target = recipe.credit(x).value_target
    assert target is not None and abs(float(target.mean())) < 1e-4 and abs(float(target.std(correction=0)) - 1) < 1e-4


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("ippo", "architecture.weights", "own"),
        ("qmix", "architecture.mixer", "mean"),
        ("qmix", "sampler.epsilon", 2),
        ("bn_policy", "architecture.edges", "ring"),
        ("bn_policy", "sampler.dependence", -1),
        ("mra", "architecture.codes", 0),
        ("mra", "architecture.credit", "all"),
        ("mra", "architecture.resamples", 0),
    ],
)
def test_values_out_of_range_are_refused(name: str, path: str, value: object) -> None:
    with pytest.raises(InputError, match=path.split(".")[1]):
        card(name).recipe().with_values({path: value})


def test_mra_with_one_code_is_the_learner_without_what_codes_are_told() -> None:
    one, several = card("mra").recipe(codes=1), card("mra").recipe()
    assert {"code_logp", "task_logp"} == several.output_needs() - one.output_needs()
    assert card("mra").recipe(credit="team").rewards and not one.rewards
    assert one.architecture.temperature == card("mra").recipe(scale=30.0).objective.terms[1].temperature
