"""The words of the taxonomy, and which of them a recipe gets from its parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest

from stratagem import catalogue
from stratagem.advantages import Constant, GroupCentered, StandardizedTurnReturn
from stratagem.errors import InputError
from stratagem.objectives import Clip, LogLikelihood, PolicyGradient, Restricted
from stratagem.parts import Reward
from stratagem.recipe import Recipe
from stratagem.rewards import Confidence, Majority, OverlongPenalty, RandomSignal
from stratagem.sampling import AboveReturn, AtTurns, Branching, Demonstrations, Rollouts, Segments
from stratagem.slots import by_slot, recipe_tags, role_tags
from stratagem.taxonomy import SLOTS, TAGS, check_tags, covers, in_order


def recipe(**changes) -> Recipe:
    parts = {"sampler": Rollouts(), "advantage": GroupCentered(), "objective": PolicyGradient(gate=Clip())}
    return Recipe(name="made", **{**parts, **changes})


# ---- words ----------------------------------------------------------------------------------------------------------


def test_a_tag_there_is_not_gives_the_nearest():
    with pytest.raises(InputError, match=r"^unknown tag 'search\.structure\.beem'; did you mean"):
        check_tags(["search", "search.structure.beem"])
    check_tags(TAGS)


def test_tags_come_in_the_order_of_the_taxonomy_and_only_as_closely_as_they_are_known():
    assert in_order(["search", "reward", "search.structure.mcts", "reward"]) == ("reward", "search.structure.mcts")
    assert in_order(["search.structure", "search"]) == ("search.structure",)


def test_a_tag_covers_all_that_begins_with_it_and_nothing_that_only_looks_so():
    assert covers("search", ["search.structure.mcts"]) and covers("search.structure", ["search.structure.mcts"])
    assert not covers("search.structure.mcts", ["search.structure"]) and not covers("sea", ["search"])


def test_a_part_with_a_tag_there_is_not_cannot_be_defined():
    with pytest.raises(InputError, match=r"^unknown tag 'reward\.source\.oracle'"):

        @dataclass(frozen=True)
        class _Oracle(Reward):
            tags: ClassVar[frozenset[str]] = frozenset({"reward.source.oracle"})


def test_a_technique_with_a_tag_there_is_not_cannot_enter_the_catalogue():
    with pytest.raises(InputError, match=r"^unknown tag 'serach'"):
        catalogue.paper(None, title="", family="reasoning", roles=(), year=2026, tags=("serach",))


# ---- recipes --------------------------------------------------------------------------------------------------------


def test_group_policy_gradient_searches_by_sampling_and_learns_from_every_sign():
    assert recipe_tags(recipe()) == (
        "reward.granularity.outcome",
        "reward.source.environment",
        "search.guidance.external",
        "search.structure.best_of_n",
        "search.action.solution",
        "search.phase.training",
        "learning.family.policy_gradient",
        "learning.data.all_solutions",
        "learning.off_policy.importance_weights",
    )


def test_a_single_trajectory_per_start_is_no_search():
    from stratagem.advantages import TotalReturn

    assert not covers("search", recipe_tags(recipe(sampler=Segments(), advantage=TotalReturn())))
    one = recipe(sampler=Rollouts(group_size=1), advantage=TotalReturn())
    assert not covers("search", recipe_tags(one))


def test_a_constant_advantage_clones_the_best_and_demonstrations_need_no_reward():
    likelihood = PolicyGradient(gate=LogLikelihood())
    rejection = recipe(advantage=Constant(), objective=likelihood, selections=(AboveReturn(),))
    assert {"learning.family.cloning", "learning.data.best_only", "reward.granularity.outcome"} <= set(
        recipe_tags(rejection)
    )
    assert not covers("learning.family.policy_gradient", recipe_tags(rejection))
    taught = recipe_tags(recipe(sampler=Demonstrations(), advantage=Constant(), objective=likelihood))
    assert not covers("reward", taught) and covers("initialisation.stage.instruction_tuning", taught)


def test_a_loss_on_demonstrations_beside_another_is_both_families():
    both = PolicyGradient(gate=Clip()) + 0.5 * Restricted(PolicyGradient(gate=LogLikelihood()), "demonstrations")
    tags = recipe_tags(recipe(sampler=Rollouts(demonstrations=1), objective=both))
    assert {"learning.family.policy_gradient", "learning.family.cloning"} <= set(tags)
    assert "initialisation.stage.instruction_tuning" in tags


def test_rewards_say_where_they_come_from():
    for reward, source in ((Majority(), "policy"), (Confidence(), "policy"), (RandomSignal(), "chance")):
        tags = recipe_tags(recipe(rewards=(reward,)))
        assert f"reward.source.{source}" in tags and "reward.source.environment" not in tags
        assert "search.guidance.external" not in tags
    charged = recipe_tags(recipe(rewards=(OverlongPenalty(8, 4),)))
    assert {"reward.shaping.added", "reward.source.environment", "limits.question.overthinking"} <= set(charged)


def test_credit_by_turn_is_of_the_process_and_branches_are_a_tree_of_steps():
    tags = recipe_tags(recipe(advantage=StandardizedTurnReturn()))
    assert "reward.granularity.process" in tags
    tree = recipe_tags(recipe(sampler=Branching(at=AtTurns())))
    assert {"search.structure.tree", "search.action.step"} <= set(tree)


def test_a_part_of_another_package_is_tagged_by_what_it_is():
    @dataclass(frozen=True)
    class _Elsewhere(Reward):
        pass

    assert "reward.shaping.added" in recipe_tags(recipe(rewards=(_Elsewhere(),)))


def test_roles_place_what_is_no_recipe():
    assert role_tags(("planner", "metric")) == ("search",)
    assert role_tags(("metric", "diagnostic")) == ()


# ---- the catalogue --------------------------------------------------------------------------------------------------


def test_every_technique_has_a_tag_and_a_role():
    missing = [card.name for card in catalogue.cards() if not card.tags or not card.roles]
    assert not missing, "say with @paper(tags=...) what these are in the taxonomy"
    for card in catalogue.cards():
        check_tags(card.tags)
        assert any(by_slot(card.tags).values()), f"{card.name} is in none of the four slots"


@pytest.mark.parametrize("slot", SLOTS)
def test_every_slot_has_at_least_three_techniques(slot):
    there = catalogue.cards(slot=slot)
    assert len(there) >= 3
    assert all(by_slot(card.tags)[slot] for card in there)


def test_techniques_are_found_by_slot_as_closely_as_asked():
    trees = {card.name for card in catalogue.cards(slot="search.structure.tree")}
    assert {"hi_agent", "himac", "thor"} <= trees and "grpo" not in trees
    cloning = {card.name for card in catalogue.cards(slot="learning.family.cloning")}
    assert {"sft", "rejection_sft", "hpt", "amft"} <= cloning and "grpo" not in cloning
    with pytest.raises(InputError, match=r"^unknown slot 'serch'; did you mean 'search'\?$"):
        catalogue.cards(slot="serch")


def test_tags_that_do_not_follow_from_the_recipe_stand_beside_those_that_do():
    tags = catalogue.card("daslam").tags
    assert "initialisation.behaviour.task_decomposition" in tags and "learning.family.policy_gradient" in tags
