"""Queries and programs that run while a policy thinks: what they are paid, and which failed call trains what."""

from __future__ import annotations

import pytest
import torch

from stratagem import recipes
from stratagem.experience import Experience, PolicyOutput
from stratagem.sampling import BeforeFailedCall, Branching
from stratagem.sampling.branching import as_branches, as_roots

# ---- reex_sql -------------------------------------------------------------------------------------------------------

NAMES = ("reward", "format", "execution", "exploration")


def answered(*rows: tuple[float, float, float, float], success: list[bool]) -> Experience:
    """Rollouts of one group with accuracy, format, execution and exploration."""
    count = len(rows)
    return Experience.from_lengths(
        [2] * count,
        [1] * count,
        [count],
        reward=torch.tensor(rows),
        reward_names=NAMES,
        reward_weights=(1.0, 0.0, 0.0, 0.0),
        success=success,
        seed=torch.arange(count) + 1000,
    )


def returns(recipe: recipes.Recipe, x: Experience) -> list[float]:
    for part in recipe.rewards:
        x = part(x)
    return x.returns.tolist()


def test_a_right_query_after_one_useful_look_of_two_earns_nine_tenths():
    x = answered((1.0, 1.0, 1.0, 0.5), (1.0, 0.0, 1.0, 0.5), success=[True, True])
    assert returns(recipes.reex_sql(), x) == pytest.approx([0.9, 0.0])


def test_looks_on_a_wrong_way_count_a_half_at_most():
    x = answered((0.25, 1.0, 1.0, 1.0), (0.25, 1.0, 0.0, 0.25), success=[False, False])
    assert returns(recipes.reex_sql(), x) == pytest.approx([(0.5 + 0.5 + 0.75 + 0.5) / 5, (0.5 + 0.75 + 0.25) / 5])
    assert returns(recipes.reex_sql(wrong_exploration=0.0), x) == pytest.approx([1.75 / 5, 1.25 / 5])
    assert returns(recipes.reex_sql(exploration_weight=0.0), x) == pytest.approx([1.75 / 5, 1.25 / 5])


def test_without_the_terms_it_is_grpo_of_three_fifths_of_the_reward():
    x = Experience.from_lengths([2] * 4, [1] * 4, [4], reward=[1.0, 0.0, 0.5, 0.0], success=[True, False, False, False])
    credited = recipes.reex_sql(kl_coefficient=0.0).prepare(x.replace(seed=torch.arange(4)))
    plain = recipes.grpo().prepare(x.replace(seed=torch.arange(4)))
    assert credited.returns.tolist() == pytest.approx([0.6, 0.0, 0.3, 0.0])
    torch.testing.assert_close(credited.advantage, plain.advantage, atol=1e-5, rtol=1e-5)


# ---- thor -----------------------------------------------------------------------------------------------------------


def tried_again(calls: list[int], kept: int = 2) -> Experience:
    """A group of branches with three tokens each, the first ``kept`` of them taken over; their calls ran or not."""
    count = len(calls)
    x = Experience.from_lengths(
        [3] * count,
        [1] * count,
        [count],
        reward=torch.full((count,), 7.0),
        turn_call=torch.tensor(calls),
        answer=torch.full((count,), -1),
        seed=torch.arange(count) + 1000,
        behavior_logp=torch.zeros(3 * count),
    )
    return as_branches(x, torch.full((count,), kept), 1)


def solved(rewards: list[float], calls: list[int]) -> Experience:
    """A group of rollouts with an answer each."""
    count = len(rewards)
    x = Experience.from_lengths(
        [3] * count,
        [1] * count,
        [count],
        reward=rewards,
        turn_call=torch.tensor(calls),
        answer=torch.arange(count),
        seed=torch.arange(count) + 2000,
        behavior_logp=torch.zeros(3 * count),
    )
    return as_roots(x)


def gradient(recipe: recipes.Recipe, x: Experience) -> torch.Tensor:
    logp = torch.zeros(x.tokens, requires_grad=True)
    recipe.objective(PolicyOutput(logp=logp), x).loss.backward()
    assert logp.grad is not None
    return logp.grad


def test_branches_are_compared_by_whether_their_call_ran():
    x = recipes.thor().prepare(tried_again([1, 0, 0, 0]))
    own = x.advantage[x.mask]
    torch.testing.assert_close(own, torch.tensor([1.5, -0.5, -0.5, -0.5]), atol=1e-5, rtol=0)


def test_what_branches_took_over_has_no_gradient():
    x = recipes.thor().prepare(tried_again([1, 0, 0, 0]))
    slope = gradient(recipes.thor(), x)
    assert (slope[~x.mask] == 0).all() and (slope[x.mask] != 0).all()


def test_rollouts_and_branches_learn_in_one_batch_each_by_its_own():
    both = Experience.concatenate([solved([1.0, 0.0], [1, 1]), tried_again([1, 0])])
    x = recipes.thor().prepare(both)
    assert x.groups == 2 and x.returns.tolist() == [1.0, 0.0, 1.0, 0.0]
    expected = 0.5**0.5
    assert x.advantage[x.mask].tolist() == pytest.approx(
        [expected] * 3 + [-expected] * 3 + [expected, -expected], abs=1e-5
    )


@pytest.mark.parametrize(("fit", "kept"), [(7, 0), (8, 8)])
def test_a_problem_is_dropped_when_less_than_half_of_its_rollouts_are_fit(fit, kept):
    x = solved([float(number % 2) for number in range(16)], [1] * fit + [0] * (16 - fit))
    assert recipes.thor().prepare(x).trajectories == kept


def test_groups_that_agree_are_gone():
    assert recipes.thor().prepare(solved([1.0, 1.0], [1, 1])).trajectories == 0
    assert recipes.thor().prepare(tried_again([0, 0, 0])).trajectories == 0


def test_without_imitation_the_loss_is_the_clipped_one():
    alone = recipes.thor(imitation=0.0)
    x = alone.prepare(solved([1.0, 0.0], [1, 1]))
    with_it = recipes.thor(imitation=0.5)
    slope, more = gradient(alone, x), gradient(with_it, x)
    torch.testing.assert_close(slope, -x.advantage / 6, atol=1e-6, rtol=0)
    # Half of the mean surprisal of the three tokens whose advantage is positive.
    torch.testing.assert_close(more - slope, torch.tensor([-0.5 / 3] * 3 + [0.0] * 3), atol=1e-6, rtol=0)


def test_nothing_is_imitated_where_no_advantage_is_positive():
    alone, with_it = recipes.thor(imitation=0.0), recipes.thor(imitation=0.5)
    x = solved([1.0, 0.0], [1, 1]).replace(advantage=torch.full((6,), -1.0))
    slope = gradient(with_it, x)
    assert slope.isfinite().all() and torch.equal(slope, gradient(alone, x))


def test_the_recipe_forks_before_failed_calls_for_one_turn():
    sampler = recipes.thor(branches=4, back=7, call="last").sampler
    assert sampler == Branching(group_size=16, at=BeforeFailedCall(7, "last"), branches=4, branch_turns=1)
