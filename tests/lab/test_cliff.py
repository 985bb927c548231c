"""Policy cliffs: the theorems over random processes, numbers worked by hand, and flips against brute force."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stratagem.errors import InputError
from stratagem.lab import PolicyCliff, TabularMDP, TokenGame, find_game, over
from stratagem.lab.cliff import optimal_actions, total_variation
from stratagem.lab.mdp import choice
from stratagem.lab.problems import GameProblem, MDPProblem, combined

SEEDS = st.integers(0, 2**31)


def bandit(*reward: float) -> TabularMDP:
    return TabularMDP.bandit(torch.tensor(reward, dtype=torch.float64))


def table(*rows: list[float]) -> torch.Tensor:
    return torch.tensor([list(row) for row in rows], dtype=torch.float64)


def noise(seed: int, count: int = 20, shape: tuple[int, ...] = (5, 3)) -> torch.Tensor:
    """Uniform in [-1, 1]."""
    source = torch.Generator().manual_seed(seed)
    return 2 * torch.rand((count, *shape), generator=source, dtype=torch.float64) - 1


# ---- theorems -------------------------------------------------------------------------------------------------------


def test_two_hundredths_of_reward_turn_the_hard_policy_around_and_hardly_move_the_soft_one():
    """Soft odds are exp(10.1) and exp(9.9) to exp(10): 0.524979 and 0.475021."""
    first, second = bandit(1, 1.01), bandit(1, 0.99)
    best = [choice(mdp.optimal_values(), 0.0) for mdp in (first, second)]
    assert float(total_variation(*best)) == 1
    soft = [choice(mdp.optimal_values(temperature=0.1), 0.1) for mdp in (first, second)]
    torch.testing.assert_close(soft[0], table([0.475021, 0.524979]), atol=1e-6, rtol=0)
    torch.testing.assert_close(soft[1], table([0.524979, 0.475021]), atol=1e-6, rtol=0)
    assert float(total_variation(*soft)) == pytest.approx(0.049958, abs=1e-6)
    assert float(total_variation(*soft)) <= 0.02 / (2 * 0.1)


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, size=st.sampled_from([0.001, 0.1, 10.0]))
def test_values_move_no_farther_than_the_reward_times_the_longest_way(seed, size):
    """Proposition 2.1, with and without entropy bonus."""
    mdp = TabularMDP.random(seed)
    others = mdp.reward + size * noise(seed)
    apart = (others - mdp.reward).abs().amax((-2, -1))
    for temperature in (0.0, 0.1):
        moved = mdp.optimal_values(others, temperature) - mdp.optimal_values(temperature=temperature)
        assert bool((moved.abs().amax((-2, -1)) <= apart / (1 - 0.9) * (1 + 1e-9)).all())


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS, shift=st.floats(-5, 5))
def test_a_constant_shift_attains_the_bound_and_changes_no_policy(seed, shift):
    mdp = TabularMDP.random(seed)
    before, after = mdp.optimal_values(), mdp.optimal_values(mdp.reward + shift)
    torch.testing.assert_close(after - before, torch.full_like(before, shift / (1 - 0.9)), atol=1e-8, rtol=1e-9)
    assert torch.equal(before.argmax(-1), after.argmax(-1))


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, size=st.sampled_from([1e-4, 0.01, 1.0]), temperature=st.sampled_from([1e-3, 0.1, 1.0]))
def test_an_entropy_bonus_makes_the_policy_lipschitz(seed, size, temperature):
    """Proposition 4.5, for perturbations and as the report has it."""
    mdp = TabularMDP.random(seed)
    others = mdp.reward + size * noise(seed)
    apart = (others - mdp.reward).abs().amax((-2, -1))
    one, other = (choice(mdp.optimal_values(r, temperature), temperature) for r in (mdp.reward, others))
    bound = apart / (2 * temperature * (1 - 0.9))
    assert bool((total_variation(one, other).amax(-1) <= bound + 1e-9).all())
    moved = PolicyCliff(temperature=temperature, epsilon=size, draws=8, seed=1).of_mdp(mdp).perturbation
    assert moved.soft_bound == pytest.approx(min(1, size / (2 * temperature * (1 - 0.9))))
    assert moved.soft <= moved.soft_most <= moved.soft_bound + 1e-9


def test_the_lipschitz_bound_is_attained_in_the_limit():
    """Rewards (e, -e) and (-e, e): TV is tanh(e / alpha), the bound e / alpha."""
    first, second = (choice(bandit(e, -e).optimal_values(temperature=1.0), 1.0) for e in (1e-4, -1e-4))
    assert float(total_variation(first, second)) == pytest.approx(2e-4 / 2, rel=1e-6)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, share=st.sampled_from([0.5, 0.999]))
def test_within_the_radius_the_best_policy_is_constant(seed, share):
    """Theorem 2.3: every state keeps its best action while the reward moves by less than its radius."""
    mdp = TabularMDP.random(seed)
    report = PolicyCliff(draws=1).of_mdp(mdp)
    assert not bool(report.ties.any())
    torch.testing.assert_close(report.radius, report.gap * (1 - 0.9) / 2)
    # The least perturbation that could do it, and random ones.
    worst = torch.where(report.best, -1.0, 1.0).unsqueeze(0)
    for state, radius in enumerate(report.radius.tolist()):
        values = mdp.optimal_values(mdp.reward + share * radius * torch.cat([worst, noise(seed).sign()]))
        assert bool((values[:, state].argmax(-1) == report.best[state].long().argmax()).all())


def test_the_radius_is_attained_where_two_ways_part_for_good():
    """Two ways, of rewards 0.1 and 0 forever; with discount 1/2 they are worth 0.2 and 0."""
    transition = torch.zeros(3, 2, 3)
    transition[0, 0, 1] = transition[0, 1, 2] = 1
    transition[1, :, 1] = transition[2, :, 2] = 1
    mdp = TabularMDP(transition, table([0.1, 0], [0.1, -0.9], [0, -1]), 0.5)
    report = PolicyCliff().of_mdp(mdp)
    assert report.gap.tolist() == pytest.approx([0.2, 1, 1])
    assert float(report.radius[0]) == pytest.approx(0.05)
    push = table([-1, 1], [-1, -1], [1, 1])
    for size, best in ((0.0499, 0), (0.0501, 1)):
        assert int(mdp.optimal_values(mdp.reward + size * push)[0].argmax()) == best


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, temperature=st.sampled_from([0.01, 0.1, 1.0]))
def test_the_soft_policy_loses_no_more_than_its_price(seed, temperature):
    mdp = TabularMDP.random(seed)
    soft = choice(mdp.optimal_values(temperature=temperature), temperature)
    price = temperature * math.log(3) / (1 - 0.9)
    lost = mdp.optimal_values().amax(-1) - mdp.policy_values(soft)
    assert bool((lost >= -1e-9).all() and (lost <= price).all())
    report = PolicyCliff(temperature=temperature, draws=1).of_mdp(mdp)
    assert report.soft_loss == pytest.approx(float(lost.mean()))
    assert report.soft_loss_bound == pytest.approx(price)


def test_near_a_tie_best_actions_may_vanish_but_none_appears():
    """Lemma 2.2: the best actions of R_n -> R are among those of R in the end; the reverse fails."""
    tied = PolicyCliff().of_mdp(bandit(1, 1, 0.5))
    assert tied.best.tolist() == [[True, True, False]] and tied.ties.tolist() == [True]
    assert (tied.gap.item(), tied.margin.item(), tied.radius.item()) == (0, 0.5, 0)
    assert tied.settled.item() == 0.25
    for number in range(5, 12):
        near = optimal_actions(bandit(1, 1 + 2.0**-number, 0.5).optimal_values(), 1e-9)
        assert near.tolist() == [[False, True, False]]


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_no_action_becomes_best_while_the_reward_is_settled(seed):
    """Two actions of every state are the same one, so that all states tie."""
    plain = TabularMDP.random(seed, actions=2)
    mdp = TabularMDP(plain.transition[:, [0, 0, 1]], plain.reward[:, [0, 0, 1]], 0.9)
    report = PolicyCliff(draws=1).of_mdp(mdp)
    within = 0.999 * float(report.settled.min())
    values = mdp.optimal_values(mdp.reward + within * noise(seed).sign())
    assert bool((report.best | ~optimal_actions(values, 1e-9)).all())
    assert bool(report.ties.any() or (report.best.sum(-1) == 1).all())


# ---- weights --------------------------------------------------------------------------------------------------------


def test_two_rewards_flip_where_they_weigh_the_same():
    """w (1, 0) + (1 - w) (0, 0.8) ties at w = 0.8 / 1.8."""
    first, second = table([1, 0]), table([0, 0.8])
    report = PolicyCliff().of_mdp(bandit(0, 0), {"base": second, "towards": first - second}, {"towards": 0.3})
    [flip] = [flip for flip in report.flips if flip.component == "towards"]
    assert flip.weight == pytest.approx(0.8 / 1.8)
    assert flip.states == (0,)
    assert flip.before == pytest.approx({"base": 0.8, "towards": -0.8})
    assert flip.after == pytest.approx({"base": 0, "towards": 1})


def test_a_small_second_reward_breaks_a_tie_and_a_large_one_overrules_the_first():
    """(1, 1, 0) + w (0, 1, 5): the second action from 0 on, the third from w = 1/4 on."""
    rewards = {"first": table([1, 1, 0]), "second": table([0, 1, 5])}
    for weight, best in ((0.01, 1), (0.3, 2)):
        report = PolicyCliff().of_mdp(bandit(0, 0, 0), rewards, {"second": weight})
        assert report.best.tolist() == [[action == best for action in range(3)]]
        turns = [flip.weight for flip in report.flips if flip.component == "second"]
        assert turns == pytest.approx([0, 0.25], abs=1e-9)


@settings(max_examples=12, deadline=None)
@given(seed=SEEDS)
def test_the_best_policy_changes_at_the_flips_and_nowhere_between(seed):
    mdp, other = TabularMDP.random(seed), TabularMDP.random(seed + 1)
    rewards = {"one": mdp.reward, "two": other.reward}
    report = PolicyCliff(draws=1, span=2.0).of_mdp(mdp, rewards, {"two": 0.0})
    turns = [flip.weight for flip in report.flips if flip.component == "two"]
    assert turns == sorted(turns) and report.scanned["two"] == (-2, 2)
    grid = torch.linspace(-2, 2, 401, dtype=torch.float64)
    best = mdp.optimal_values(mdp.reward + grid.view(-1, 1, 1) * other.reward).argmax(-1)
    changed = (best[1:] != best[:-1]).any(-1)
    for low, high, differs in zip(grid[:-1].tolist(), grid[1:].tolist(), changed.tolist(), strict=True):
        assert differs == any(low < turn < high for turn in turns), (low, high)


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS)
def test_a_component_counts_more_above_a_flip_than_below(seed):
    rewards = {"one": TabularMDP.random(seed).reward, "two": TabularMDP.random(seed + 1).reward}
    report = PolicyCliff(draws=1, span=3.0).of_mdp(TabularMDP.random(seed), rewards)
    for flip in report.flips:
        assert flip.states
        assert flip.after[flip.component] > flip.before[flip.component]


def test_returns_that_cancel_over_the_starts_do_not_blur_the_flips():
    """Two rooms with opposite rewards: from one start the best return rises by what it falls from the other."""
    mdp = TabularMDP(torch.zeros(2, 2, 2), torch.zeros(2, 2))
    rewards = {"one": table([0.3, 0.1], [-0.3, -0.5]), "two": table([-1, 1], [0.5, -0.5])}
    report = PolicyCliff(draws=1, span=3.0).of_mdp(mdp, rewards, {"two": 0.0})
    found = [(flip.weight, flip.states) for flip in report.flips if flip.component == "two"]
    # Room 0 ties where 0.3 - w = 0.1 + w, room 1 where -0.3 + w / 2 = -0.5 - w / 2.
    assert found == [(pytest.approx(-0.2), (1,)), (pytest.approx(0.1), (0,))]


# ---- games ----------------------------------------------------------------------------------------------------------


def test_two_right_answers_tie_until_brevity_counts():
    game = find_game("styles")
    tied = PolicyCliff().of_game(game)
    assert tied.best.tolist() == [[True, True, False]] and tied.radius.tolist() == [0]
    [flip] = [flip for flip in tied.flips if flip.component == "brevity"]
    assert flip.weight == pytest.approx(0, abs=1e-9)
    assert (flip.before["brevity"], flip.after["brevity"]) == (0, 1)
    brief = PolicyCliff().of_game(game, {"brevity": 0.01})
    assert brief.best.tolist() == [[True, False, False]]
    assert brief.gap.item() == pytest.approx(0.01) and brief.radius.item() == pytest.approx(0.005)


def test_random_changes_flip_as_often_as_arithmetic_says():
    """Returns 1.01 and 1, each moved by up to 0.01: the lower one ends on top with odds (1/2)^2 / 2."""
    moved = PolicyCliff(draws=20_000).of_game(find_game("styles"), {"brevity": 0.01}).perturbation
    assert moved.changed == pytest.approx(1 / 8, abs=0.01)
    assert moved.hard == pytest.approx(moved.changed, abs=1e-3)
    assert moved.soft_most <= moved.soft_bound == pytest.approx(0.05)


def test_a_game_of_one_token_is_reported_as_the_bandit_it_is():
    reward = [0.25, 0.75, 0.5]
    game = TokenGame("bandit", "", 3, ((1.0, "start"),), lambda state, tokens: over(reward[tokens[0]]))
    one, other = PolicyCliff().of_game(game), PolicyCliff().of_mdp(bandit(*reward))
    for name in ("best", "gap", "margin", "radius", "settled"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name))
    assert one.perturbation == other.perturbation
    assert (one.soft_loss, one.soft_loss_bound) == pytest.approx((other.soft_loss, other.soft_loss_bound))


def test_values_of_a_game_are_those_of_the_tree_as_a_process():
    """``windy``, whose nodes are states and whose chances are transitions; every return is earned on the last token."""
    problem = GameProblem.of(find_game("windy"))
    tree = problem.tree
    x, last = tree.leaves, tree.leaves.trajectory_of_token.is_last()
    transition = torch.zeros(tree.nodes, 2, tree.nodes, dtype=torch.float64)
    reward = torch.zeros(tree.nodes, 2, dtype=torch.float64)
    for row in range(x.tokens):
        node, token = int(tree.node[row]), int(tree.action[row])
        if not bool(last[row]):
            there = int(tree.node[row + 1])
            went_right = tree.states[there][1] > tree.states[node][1]
            transition[node, token, there] = 0.8 if went_right == bool(token) else 0.2
    returns = x.to_tokens(trajectory=x.returns)
    for node in tree.node[last].unique().tolist():
        right, left = (
            float(returns[(tree.node == node) & last].max()),
            float(returns[(tree.node == node) & last].min()),
        )
        place = tree.states[node][1]
        right, left = float(place + 1 >= 2), float(place - 1 >= 2)
        reward[node] = table([0.2 * right + 0.8 * left, 0.8 * right + 0.2 * left])[0]
    mdp = TabularMDP(transition, reward)
    for temperature in (0.0, 0.1):
        found = problem.optimal_values(combined(problem).unsqueeze(0), temperature)[0]
        torch.testing.assert_close(found, mdp.optimal_values(temperature=temperature))


def test_states_no_best_policy_comes_by_are_left_out():
    report = PolicyCliff().of_game(find_game("four_by_four"))
    on_the_way = report.plain()["closest"]
    assert len(on_the_way) == int(report.visited.sum()) < len(report.visited)
    assert on_the_way[0]["state"].startswith("start")
    wrong_from_the_start = [state for state in on_the_way if state["state"] == "start after 1 0 0"]
    assert wrong_from_the_start == []


def test_a_report_is_data_without_infinities():
    """Every answer of a state ties, or there is nothing behind the best."""
    always = TokenGame("always", "", 2, ((1.0, "start"),), lambda state, tokens: over(1.0))
    plain = PolicyCliff().of_game(always).plain()
    assert plain["closest"] == [
        {"state": "start", "best": [0, 1], "gap": 0, "margin": None, "radius": 0, "settled": None}
    ]
    assert plain["flips"] == [] and plain["tied"] == 1


def test_without_entropy_bonus_soft_is_hard():
    report = PolicyCliff(temperature=0.0).of_mdp(bandit(1, 0.5))
    assert report.soft_loss == 0 and report.soft_loss_bound == 0
    assert report.perturbation.soft_bound == 1


# ---- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ask", "problem"),
    [
        (lambda: PolicyCliff(temperature=-1), r"policy_cliff\.temperature = -1"),
        (lambda: PolicyCliff(draws=0), r"policy_cliff\.draws = 0"),
        (lambda: PolicyCliff().of_mdp(bandit(1, 0), {"a": table([1, math.nan])}), "reward 'a': must be finite"),
        (lambda: PolicyCliff().of_mdp(bandit(1, 0), {"a": table([1, 0, 0])}), r"of shape \(1, 2\)"),
        (lambda: PolicyCliff().of_mdp(bandit(1, 0), weights={"rewart": 1}), "did you mean 'reward'"),
        (lambda: MDPProblem.of(bandit(1, 0), weights={"reward": math.inf}), "must be finite"),
        (lambda: PolicyCliff().of_game(find_game("styles"), {"brevety": 1}), "did you mean 'brevity'"),
    ],
)
def test_what_cannot_be_reported_on_is_one_line(ask, problem):
    with pytest.raises(InputError, match=problem) as caught:
        ask()
    assert "\n" not in str(caught.value)


def test_a_game_with_an_infinite_reward_is_refused():
    endless = TokenGame("endless", "", 2, ((1.0, "start"),), lambda state, tokens: over(math.inf))
    with pytest.raises(InputError, match="game endless: rewards must be finite"):
        PolicyCliff().of_game(endless)
