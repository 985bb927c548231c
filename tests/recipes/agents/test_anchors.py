"""Recipes that compare turns which share a state: what they are made of, and where they are another recipe."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from stratagem import catalogue, recipes
from stratagem.advantages import GroupCentered, LoneTrajectories
from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.lab import Exact, Tree, diagnose, find_game
from stratagem.lab.draw import collect
from stratagem.recipe import Recipe
from stratagem.seeding import generator


def drawn(game: str = "corridor", groups: int = 64) -> Experience:
    """Groups of eight by a random table."""
    tree = Tree.enumerate(find_game(game))
    policy = Exact(tree, tree.normal_logits(1000))
    leaves = tree.leaves.replace(behavior_logp=tree.chosen(policy.logp).float())
    sampler = recipes.grpo().sampler.replace(prompts_per_step=groups)
    return collect(leaves, policy.leaf_probability, sampler, partial(generator, 1000, "batch")).kept


def unshared(x: Experience) -> Experience:
    """The same batch with a state of its own for every turn."""
    return x.replace(turn_state=torch.arange(x.turns))


def test_the_catalogue_has_them_as_differences_from_their_bases():
    grpo, gigpo, hgpo = (catalogue.card(name).recipe() for name in ("grpo", "gigpo", "hgpo"))
    assert {change.path.split(".")[0] for change in gigpo.diff(grpo)} == {"advantage", "objective"}
    assert {change.path.split(".")[0] for change in hgpo.diff(gigpo)} == {"advantage"}
    assert gigpo.flat()["objective.regularizer.factor"] == hgpo.flat()["objective.regularizer.factor"] == 0.01
    assert Recipe.from_yaml(hgpo.to_yaml()) == hgpo and Recipe.from_yaml(gigpo.to_yaml()) == gigpo


def test_no_state_shared_or_no_weight_of_steps_is_grpo():
    x, grpo = drawn(), recipes.grpo()
    assert torch.equal(recipes.gigpo(step_weight=0.0).advantage(x), grpo.advantage(x))
    for weight in (0.5, 3.0):
        assert torch.equal(recipes.gigpo(step_weight=weight).advantage(unshared(x)), grpo.advantage(x))
    assert not torch.allclose(recipes.gigpo().advantage(x), grpo.advantage(x))


def test_states_with_a_time_stamp_still_share_their_start():
    """Time alone does not part two trajectories: where nothing else repeats, the start counts twice."""
    x = Experience.from_lengths([1] * 6, [2] * 3, [3], turn_reward=[0.0, 1, 0, 0, 0, 0], turn_state=[0, 1, 0, 2, 0, 3])
    plain = recipes.gigpo(discount=1.0, standardize=False)
    assert plain.advantage(x).tolist() == pytest.approx([4 / 3, 2 / 3, -2 / 3, -1 / 3, -2 / 3, -1 / 3])


def test_the_weight_of_steps_is_a_knob():
    x = drawn()
    once, thrice = recipes.gigpo().advantage(x), recipes.gigpo(step_weight=3.0).advantage(x)
    torch.testing.assert_close(thrice - once, 2 * (once - recipes.grpo().advantage(x)), atol=1e-5, rtol=1e-5)


def test_without_history_the_windows_are_the_step_term():
    x = drawn()
    steps = recipes.gigpo().advantage(x) - recipes.grpo().advantage(x)
    windows = recipes.hgpo(history=0).with_values({"advantage.correction": 1})
    torch.testing.assert_close(windows.advantage(x), steps, atol=1e-5, rtol=1e-5)


def test_the_episode_term_over_turns_is_the_released_codes():
    x = drawn("stopping")
    plain, over_turns = recipes.gigpo(), recipes.gigpo(over_turns=True)
    assert not torch.allclose(plain.advantage(x), over_turns.advantage(x), atol=1e-3)
    episode = over_turns.advantage(x) - (plain.advantage(x) - recipes.grpo().advantage(x))
    by_turn = episode[x.turn_of_token.last()]
    torch.testing.assert_close(x.group_of_turn.sum(by_turn), torch.zeros(x.groups), atol=1e-4, rtol=0)


def test_an_episode_term_gives_credit_where_no_window_is_shared():
    x = unshared(drawn())
    assert not recipes.hgpo().advantage(x).any()
    assert torch.equal(recipes.hgpo(with_episode=True).advantage(x), recipes.gigpo(0.0, over_turns=True).advantage(x))
    silent = recipes.hgpo(kl_coefficient=0.0)
    assert not silent.objective.has_signal(silent.prepare(x)) and silent.objective.has_signal(silent.prepare(drawn()))


def test_a_lone_trajectory_is_dropped_unless_it_may_stay():
    x = drawn(groups=2)
    left = x.select(torch.tensor([0, *range(8, 16)]))
    plain = recipes.gigpo(kl_coefficient=0.0, standardize=False)
    assert plain.credit(left).trajectories == 8
    steps = plain.advantage.terms[1]
    kept = plain.replace(advantage=LoneTrajectories(GroupCentered(), earns="return") + steps).credit(left)
    assert kept.trajectories == 9
    own = kept.trajectory_of_token.labels == 0
    torch.testing.assert_close(kept.advantage[own], left.returns[0] + steps(left)[own])


def test_groups_of_one_are_refused_where_episodes_are_compared():
    with pytest.raises(InputError, match="group_size = 1"):
        recipes.gigpo(group_size=1)


# ---- where states look alike ----------------------------------------------------------------------------------------


def always(token: int) -> Experience:
    """Straight to the junction, where this token follows either sign, four times each."""
    x = Tree.enumerate(find_game("cue")).leaves
    ways = x.action.view(-1, 1).split(x.trajectory_of_token.size().tolist())
    straight = [number for number, way in enumerate(ways) if way.flatten().tolist() == [0, 1, token]]
    x = x.select(torch.tensor(straight * 4))
    return x.replace(group_of_trajectory=type(x.group_of_trajectory).whole(x.trajectories))


def test_at_the_junction_the_state_alone_credits_the_sign_and_the_way_there_does_not():
    x = always(0)
    junction = x.trajectory_of_turn.last()
    won = x.returns > 0
    assert won.sum() == 4
    options = {"discount": 1.0, "standardize": False}
    alone = recipes.hgpo(history=0, **options).advantage(x)[junction]
    assert alone[won].tolist() == [0.5] * 4 and alone[~won].tolist() == [-0.5] * 4
    # The longer windows say rightly that there is nothing to learn here; their mixture keeps a share of the error.
    longest = recipes.hgpo(history=1, sharpness=100.0, **options).advantage(x)[junction]
    assert longest.abs().max() < 1e-15
    mixed = recipes.hgpo(history=1, **options).advantage(x)[junction]
    assert mixed[won].tolist() == pytest.approx([0.2] * 4)
    # Dropping what is exactly right gives the error its whole weight back.
    dropped = recipes.hgpo(history=1, drop_zero=True, **options).advantage(x)[junction]
    assert torch.equal(dropped, alone)


def test_in_large_groups_the_longest_window_has_the_exact_advantage_and_the_state_alone_has_not():
    """Token 1 is taken three times in four at the junction: it is worth 1/4 or 3/4, by the sign, and 1/2 by itself."""
    tree = Tree.enumerate(find_game("cue"))
    logits = torch.zeros(tree.nodes, 2, dtype=torch.float64)
    logits[[state[0] == "junction" for state in tree.states], 1] = math.log(3)
    policy = Exact(tree, logits)
    exact = tree.chosen(policy.action_value - policy.value.unsqueeze(1))
    leaves = tree.leaves.replace(behavior_logp=exact)
    sampler = recipes.grpo(group_size=4096).sampler.replace(prompts_per_step=8)
    x = collect(leaves, policy.leaf_probability, sampler, partial(generator, 1000, "batch")).kept
    options = {"discount": 1.0, "standardize": False}
    # Mean over the returns that follow an action: what is left is bias.
    place = x.inputs.node * 2 + x.action
    errors = []
    for recipe in (
        recipes.hgpo(0, **options),
        recipes.hgpo(1, **options),
        recipes.hgpo(2, **options),
        recipes.hgpo(2, 100.0, **options),
    ):
        error = recipe.advantage(x).double() - x.behavior_logp
        mean = torch.bincount(place, weights=error) / torch.bincount(place).clamp(min=1)
        errors.append(float(mean[place].square().mean().sqrt()))
    print(errors)
    assert errors[0] > errors[1] > errors[2] > 4 * errors[3]


def test_the_lab_judges_them_in_games_whose_states_look_alike():
    for game in ("cue", "fetch"):
        for recipe in (recipes.gigpo(), recipes.hgpo()):
            found = diagnose(recipe, game, groups=256, seed=1000)
            assert found.gain > 0 and found.cosine.low > 0
