"""Expected updates of real recipes, against sums over every group and against their known direction."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy import stats

from stratagem.advantages import Constant, GroupCentered
from stratagem.catalogue import card
from stratagem.experience import Experience, PolicyOutput
from stratagem.lab import Exact, Outcome, TokenGame, Tree, over
from stratagem.lab.updates import Updates, sample_updates
from stratagem.objectives import EntropyBonus, LogLikelihood, PolicyGradient, SequenceMean, SequenceSum
from stratagem.partition import Partition
from stratagem.parts import Advantage
from stratagem.recipe import Recipe
from stratagem.sampling import Rollouts


def updates(recipe: Recipe, policy: Exact, groups: int = 65_536, batch_groups: int = 256, seed: int = 0) -> Updates:
    return sample_updates(recipe, policy, policy, groups, batch_groups, seed)


def close_by_blocks(sampled: Updates, expected: torch.Tensor, errors: float = 5) -> None:
    """Every coordinate within so many of its own standard errors."""
    spread = sampled.blocks.std(0) / len(sampled.blocks) ** 0.5
    assert bool(((sampled.mean - expected).abs() <= errors * spread + 1e-7).all())


@pytest.mark.parametrize("name", ["rloo", "grpo", "dr_grpo"])
def test_the_expected_update_is_the_sum_over_all_groups_of_two(both, name):
    recipe = card(name).recipe().with_values({"sampler.group_size": 2})
    tree, odds = both.tree, both.leaf_probability
    expected = torch.zeros(3, 2, dtype=torch.float64)
    for pair in itertools.product(range(4), repeat=2):
        x = tree.leaves.select(torch.tensor(pair)).replace(group_of_trajectory=Partition.whole(2))
        x = recipe.prepare(x)
        logits = both.logits.double().requires_grad_()
        logp = torch.log_softmax(logits, -1)[x.inputs.node, x.action]
        recipe.objective(PolicyOutput(logp.float()), x).loss.backward()
        expected -= odds[pair[0]] * odds[pair[1]] * logits.grad
    close_by_blocks(updates(recipe, both), expected)


def test_scaling_by_the_standard_deviation_overweights_starts_of_extreme_success(arms):
    """Others of the group being independent of an action, the factor of a start of success p is a(1) - a(0).

    a(r) is the expected advantage of a reward r among seven others, of which a binomial number succeeds.
    """

    def factor(success: float) -> float:
        others = np.arange(8)
        odds = stats.binom.pmf(others, 7, success)

        def advantage(reward: int) -> float:
            wins = others + reward
            spread = np.sqrt(wins * (8 - wins) / 8 / 7)
            return float(odds @ np.divide(reward - wins / 8, spread, out=np.zeros(8), where=spread > 0))

        return advantage(1) - advantage(0)

    sampled = updates(card("grpo").recipe(), arms)
    factors = torch.tensor([[factor(0.5)], [factor(0.05)]], dtype=torch.float64)
    close_by_blocks(sampled, factors * arms.gradient)
    measured = (sampled.mean / arms.gradient)[:, 1]
    assert measured[1] > 1.1 * measured[0]


def _choose(state: str, tokens: tuple[int, ...]) -> list[Outcome] | None:
    """The first token decides: 0 right and short, 1 right and long, 2 wrong and short, 3 wrong and long."""
    return over(float(tokens[0] < 2)) if tokens[0] % 2 == 0 or len(tokens) == 4 else None


def test_division_by_length_favours_short_right_and_long_wrong_answers():
    """Of eight, a right answer has the advantage 7/16 and a wrong one -7/16; a long one's is divided by four."""
    tree = Tree.enumerate(TokenGame("choose", "", 4, ((1.0, "start"),), _choose))
    uniform = Exact(tree, torch.zeros(tree.nodes, 4))
    expected = torch.zeros(tree.nodes, 4, dtype=torch.float64)
    expected[0] = 7 / 64 * torch.tensor([1, 1 / 4, -1, -1 / 4])
    assert uniform.gradient[0].tolist() == pytest.approx([1 / 8, 1 / 8, -1 / 8, -1 / 8])
    by_length = PolicyGradient(gate=LogLikelihood(), aggregation=SequenceMean())
    close_by_blocks(updates(Recipe("by_length", Rollouts(), GroupCentered(), by_length), uniform), expected)


def test_an_entropy_bonus_moves_the_logits_up_the_entropy(arms):
    """One token an episode: the bonus of a node is its entropy times how often it is met."""
    policy = Exact(arms.tree, torch.tensor([[0.0, 1.0], [0.5, -1.0]]))
    bonus = PolicyGradient(gate=LogLikelihood(), aggregation=SequenceSum(), regularizer=2.0 * EntropyBonus())
    sampled = updates(Recipe("bonus", Rollouts(), Constant(0.0), bonus), policy)
    close_by_blocks(sampled, 2.0 * 0.5 * policy.entropy_slope)


@dataclass(frozen=True)
class _Spy(Advantage):
    """What the recipe is shown."""

    def __call__(self, x: Experience) -> torch.Tensor:
        seen.append(x)
        return torch.zeros(x.tokens)


seen: list[Experience] = []


def test_a_batch_has_the_size_asked_for_and_one_more_warms_up_the_memory(both):
    seen.clear()
    recipe = Recipe("spy", Rollouts(group_size=3), _Spy(), PolicyGradient(gate=LogLikelihood()))
    sampled = updates(recipe, both, groups=1000, batch_groups=5)
    assert {x.groups for x in seen} == {5} and {x.trajectories for x in seen} == {15}
    assert sampled.groups == 5 * 256 and len(seen) == 1 + 256
    assert sampled.mean.abs().max() == 0


def test_the_critic_is_exact_and_the_reference_is_the_behaviour_policy(both):
    seen.clear()
    ppo = card("ppo").recipe().with_values({"objective.aggregation": "token_mean"})
    reads_all = ppo.replace(advantage=_Spy() + 0.0 * ppo.advantage, rewards=card("reinforce_pp").recipe().rewards)
    updates(reads_all, both, groups=1, batch_groups=4)
    x = seen[0]
    torch.testing.assert_close(x.value, both.value[x.inputs.node].float())
    torch.testing.assert_close(x.behavior_logp, both.logp[x.inputs.node, x.action].float())
    assert torch.equal(x.ref_logp, x.behavior_logp) and x.old_logp is None


def test_the_recipe_given_remembers_nothing(both):
    recipe = card("reinforce").recipe()
    updates(recipe, both, groups=1, batch_groups=4)
    assert all(float(tensor) == 0 for tensor in recipe.state_dict().values()) and recipe.state_dict()


def test_equal_seeds_give_equal_updates(both):
    recipe = card("dapo").recipe()
    first, again, other = (updates(recipe, both, 1, 8, seed).blocks for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
