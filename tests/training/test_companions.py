"""The policies a batch is judged by: as it is, as it was one batch before, and as it was when the reference was set."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch

from stratagem import recipes
from stratagem.advantages import GroupStandardized
from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.lab import GAMES, TabularPolicy
from stratagem.lab.tree import Tree
from stratagem.objectives import KL, BlendedPenalty
from stratagem.partition import Partition
from stratagem.recipe import Recipe
from stratagem.sampling import Rollouts
from stratagem.training.companions import Companions
from stratagem.training.world import Prompts

PLAIN = recipes.grpo()
BOTH = PLAIN.replace(objective=PLAIN.objective.replace(regularizer=BlendedPenalty(KL(), KL(to="previous"))))


@pytest.fixture
def tree() -> Tree:
    return Tree.enumerate(GAMES["graded"])


def moved(policy: TabularPolicy, step: int) -> None:
    with torch.no_grad():
        policy.logits.add_(torch.randn(policy.logits.shape, generator=torch.Generator().manual_seed(step)))


def asked(companions: Companions, recipe: Recipe, tree: Tree, policy: TabularPolicy, steps: range) -> list[Experience]:
    """Batches completed one after the other, with the policy moving after each."""
    batches = []
    for step in steps:
        batches.append(companions.complete(recipe, tree.leaves, step))
        moved(policy, step)
    return batches


def path(tree: Tree, policy: TabularPolicy, steps: int) -> list[torch.Tensor]:
    """What the policy says when each batch arrives."""
    walker, said = policy.copy(), []
    for step in range(steps):
        said.append(walker(tree.leaves).logp)
        moved(walker, step)
    return said


def test_the_previous_policy_is_that_of_the_batch_before_and_at_first_the_present_one(tree):
    policy = TabularPolicy(tree.normal_logits(0))
    said = path(tree, policy, 4)
    batches = asked(Companions(policy, BOTH), BOTH, tree, policy, range(4))
    for step, x in enumerate(batches):
        assert torch.equal(x.previous_logp, said[max(step - 1, 0)])
        assert torch.equal(x.ref_logp, said[0])


def test_from_a_batch_on_the_reference_is_the_policy_as_it_was_then(tree):
    policy, recipe = TabularPolicy(tree.normal_logits(0)), BOTH.replace(reference_from=2)
    said = path(tree, policy, 5)
    batches = asked(Companions(policy, recipe), recipe, tree, policy, range(5))
    expected = [said[0], said[0], said[2], said[2], said[2]]
    assert all(torch.equal(x.ref_logp, logp) for x, logp in zip(batches, expected, strict=True))


def test_a_batch_that_never_came_does_not_keep_the_reference_from_moving(tree):
    policy, recipe = TabularPolicy(tree.normal_logits(0)), BOTH.replace(reference_from=2)
    companions = Companions(policy, recipe)
    companions.complete(recipe, tree.leaves, 0)
    moved(policy, 0)
    late = companions.complete(recipe, tree.leaves, 3)
    assert torch.equal(late.ref_logp, policy(tree.leaves).logp.detach())
    again = recipe.replace(reference_from=5)
    moved(policy, 1)
    assert torch.equal(companions.complete(again, tree.leaves, 4).ref_logp, late.ref_logp)
    assert not torch.equal(companions.complete(again, tree.leaves, 5).ref_logp, late.ref_logp)


@pytest.mark.parametrize("stop", [1, 3])
def test_restored_companions_say_the_same(tree, stop):
    policy, recipe = TabularPolicy(tree.normal_logits(0)), BOTH.replace(reference_from=2)
    walker = TabularPolicy(policy.logits)
    expected = asked(Companions(walker, recipe), recipe, tree, walker, range(5))
    companions = Companions(policy, recipe)
    asked(companions, recipe, tree, policy, range(stop))
    state = {name: tensor.clone() for name, tensor in companions.state_dict().items()}
    other = TabularPolicy(tree.normal_logits(0))
    restored = Companions(other, recipe)
    other.load_state_dict(policy.state_dict())
    restored.load_state_dict(state)
    for ours, theirs in zip(asked(restored, recipe, tree, other, range(stop, 5)), expected[stop:], strict=True):
        assert torch.equal(ours.previous_logp, theirs.previous_logp) and torch.equal(ours.ref_logp, theirs.ref_logp)


def test_a_recipe_that_reads_neither_keeps_no_copy(tree):
    companions = Companions(TabularPolicy(tree.normal_logits(0)), recipes.grpo().replace(reference_from=1))
    x = companions.complete(recipes.grpo().replace(reference_from=1), tree.leaves, 1)
    assert x is tree.leaves and companions.state_dict() == {}
    with pytest.raises(KeyError, match="previous"):
        Companions(TabularPolicy(tree.normal_logits(0)), BOTH).load_state_dict({})


def test_a_language_policy_has_companions_as_well(make_policy: Callable[..., Any], make_world: Callable[..., Any]):
    policy = make_policy()
    world, recipe = make_world(policy=policy), BOTH.replace(reference_from=1)
    companions, said = Companions(policy, recipe), []
    x = world.collect(Rollouts(prompts_per_step=2, group_size=2), 0).x
    for step in range(2):
        said.append(policy(x).logp.detach())
        last = companions.complete(recipe, x, step)
        with torch.no_grad():
            for parameter in policy.policy_parameters():
                parameter.mul_(1.1)
    torch.testing.assert_close(last.previous_logp, said[0])
    torch.testing.assert_close(last.ref_logp, said[1])
    assert float((said[1] - said[0]).abs().max()) > 1e-3


# ---- prompts --------------------------------------------------------------------------------------------------------


class Reads(TabularPolicy):
    """Answers to three starts, of which the second has a prompt of one token; it notes how it was asked."""

    asked: ClassVar[list[tuple[int, float]]] = []

    def prompt_logp(self, x: Experience, *, temperature: float = 1.0) -> Prompts:
        self.asked.append((x.trajectories, temperature))
        logp = torch.tensor([0.9] * 8 + [0.25, 0.16] + [0.5, 0.25]).log() + self.logits[0, 0]
        return Prompts(logp, Partition.from_sizes([10, 0, 2]), x.group_of_trajectory.labels % 3)


def test_the_confidence_in_prompts_is_of_the_least_likely_share_of_their_tokens():
    tree = Tree.enumerate(GAMES["prompts"])
    policy = Reads(torch.zeros_like(tree.normal_logits(0)))
    recipe = recipes.progrpo_arm().with_values({"sampler.temperature": 0.7})
    Reads.asked.clear()
    x = Companions(policy, recipe).complete(recipe, tree.leaves)
    assert Reads.asked == [(tree.leaves.trajectories, 0.7)]
    by_start = x.prompt_confidence[x.group_of_trajectory.first()]
    assert by_start.tolist() == pytest.approx([0.2, math.nan, 0.25], nan_ok=True)
    assert torch.equal(x.prompt_confidence.isnan(), x.group_of_trajectory.labels == 1)
    # It is that of the policy as it is when the batch arrives, and is not asked for twice.
    with torch.no_grad():
        policy.logits[0, 0] = math.log(0.5)
    assert Companions(policy, recipe).complete(recipe, x).prompt_confidence is x.prompt_confidence
    later = Companions(policy, recipe).complete(recipe, tree.leaves)
    assert float(later.prompt_confidence[0]) == pytest.approx(0.1)
    every = recipe.with_values({"advantage.share": 1.0})
    mean = (0.9**8 * 0.25 * 0.16) ** 0.1 / 2
    assert float(Companions(policy, every).complete(every, tree.leaves).prompt_confidence[0]) == pytest.approx(mean)


@pytest.mark.parametrize("choice", [None, 0.4])
def test_nobody_asks_for_prompts_that_are_not_read(choice):
    tree = Tree.enumerate(GAMES["prompts"])
    recipe = recipes.progrpo_arm(prompt=choice)
    Reads.asked.clear()
    x = Companions(Reads(tree.normal_logits(0)), recipe).complete(recipe, tree.leaves)
    assert x.prompt_confidence is None and Reads.asked == []


def test_prompts_are_asked_for_wherever_the_advantage_that_reads_them_stands():
    tree = Tree.enumerate(GAMES["prompts"])
    recipe = recipes.progrpo_arm()
    wrapped = recipe.replace(advantage=0.5 * recipe.advantage + GroupStandardized())
    policy = Reads(tree.normal_logits(0))
    assert Companions(policy, wrapped).complete(wrapped, tree.leaves).prompt_confidence is not None
    two = recipe.replace(advantage=recipe.advantage + recipe.advantage.replace(share=0.5))
    with pytest.raises(InputError, match=r"of one share of tokens, not of \[0\.2, 0\.5\]"):
        Companions(policy, two).complete(two, tree.leaves)


def test_a_policy_that_reads_no_prompt_is_refused_only_where_nothing_may_stand_in_for_it(tree):
    policy, recipe = TabularPolicy(tree.normal_logits(0)), recipes.progrpo_arm()
    assert Companions(policy, recipe).complete(recipe, tree.leaves).prompt_confidence is None
    strict = recipes.progrpo_arm(prompt="policy")
    with pytest.raises(InputError, match="TabularPolicy does not say how likely prompts are"):
        Companions(policy, strict).complete(strict, tree.leaves)


# ---- a population of past policies ----------------------------------------------------------------------------------

MANY = recipes.mnpo(players=4)


def test_past_policies_are_those_of_the_batches_before_the_latest_first(tree):
    policy = TabularPolicy(tree.normal_logits(0))
    said = path(tree, policy, 4)
    batches = asked(Companions(policy, MANY), MANY, tree, policy, range(4))
    for step, x in enumerate(batches):
        assert torch.equal(x.past_logp, torch.stack([said[max(step - age, 0)] for age in (1, 2)], 1))


@pytest.mark.parametrize("stop", [1, 3])
def test_restored_past_policies_say_the_same(tree, stop):
    policy = TabularPolicy(tree.normal_logits(0))
    walker = TabularPolicy(policy.logits)
    expected = asked(Companions(walker, MANY), MANY, tree, walker, range(5))
    companions = Companions(policy, MANY)
    asked(companions, MANY, tree, policy, range(stop))
    state = {name: tensor.clone() for name, tensor in companions.state_dict().items()}
    other = TabularPolicy(tree.normal_logits(0))
    restored = Companions(other, MANY)
    other.load_state_dict(policy.state_dict())
    restored.load_state_dict(state)
    for ours, theirs in zip(asked(restored, MANY, tree, other, range(stop, 5)), expected[stop:], strict=True):
        assert torch.equal(ours.past_logp, theirs.past_logp)
