"""Losses of another shape: numbers worked by hand, and what they come to on policy."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from stratagem import recipes
from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.lab import GAMES, Exact, TokenGame, over
from stratagem.lab.exact import random_policy_values
from stratagem.lab.tree import Tree
from stratagem.objectives import ImplicitNegative, LogLikelihood, PolicyGradient, RandomPolicyRegression, TokenMean
from stratagem.recipe import Recipe
from stratagem.seeding import generator


def group(successes: list[int], lengths: list[int] | None = None, **fields) -> Experience:
    """One group of answers of one token each, or of these lengths."""
    lengths = lengths or [1] * len(successes)
    reward = torch.tensor(successes, dtype=torch.float32)
    return Experience.from_lengths(
        lengths, [1] * len(lengths), [len(lengths)], reward=reward, success=reward > 0, **fields
    )


def ascent(recipe: Recipe, x: Experience, logp: Tensor | None = None, **said: Tensor) -> list[float]:
    """Minus the gradient by every log-probability, for weights of 1."""
    x = recipe.prepare(x)
    logp = (torch.full((x.tokens,), -1.0) if logp is None else logp).double().requires_grad_()
    recipe.objective(PolicyOutput(logp, **said), x).loss.backward()
    return (-logp.grad).tolist()


# ---- negative-aware fine-tuning --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weight", "right", "wrong"),
    [("centered", 0.75, -0.25), ("standardized", 1.732051, -0.577350), ("equal", 1.0, -1 / 3)],
)
def test_on_policy_it_is_the_policy_gradient_with_centered_or_standardized_rewards(weight, right, wrong):
    found = ascent(recipes.nft(weight, length=1), group([1, 0, 0, 0]))
    assert [4 * value for value in found] == pytest.approx([right] + [wrong] * 3, abs=1e-6)
    if weight != "equal":
        assert sum(found) == pytest.approx(0, abs=1e-7)


def test_centered_weights_on_policy_are_dr_grpo_bit_for_bit_close():
    x = group([1, 1, 0, 0, 0, 1, 0, 0], [1, 5, 2, 3, 4, 1, 2, 6])
    assert ascent(recipes.nft(), x) == pytest.approx(ascent(recipes.dr_grpo(), x), rel=1e-6)


@pytest.mark.parametrize(
    ("ratio", "floor", "value", "slope"),
    [(1.2, 0.1, 0.0689929, 0.357143), (1.2, 1.0, 0.0, 0.333333), (0.5, 1.0, -0.1541507, 0.285714)],
)
def test_the_likelihood_of_a_wrong_answer_worked_by_hand(ratio, floor, value, slope):
    x = group([1, 0, 0, 0], pass_rate=[0.25])
    rho = torch.full((4,), ratio, dtype=torch.float64, requires_grad=True)
    gate = ImplicitNegative(weight="equal", floor=floor)
    surrogate = gate(rho, torch.zeros(4), PolicyOutput(rho.log()), x)
    loss = -surrogate[1]
    loss.backward()
    assert loss.item() == pytest.approx(value, abs=1e-6)
    assert rho.grad[1].item() == pytest.approx(slope, abs=1e-6)
    assert surrogate[0].item() == pytest.approx(math.log(ratio))


def test_a_wrong_answer_that_became_impossible_still_has_a_gradient():
    # r R = 2: the implied ratio is negative, cut at the floor, and passes the derivative on.
    x = group([1, 1, 0, 0], pass_rate=[0.5])
    rho = torch.full((4,), 4.0, requires_grad=True)
    surrogate = ImplicitNegative(weight="equal", floor=0.1)(rho, torch.zeros(4), PolicyOutput(rho.log()), x)
    surrogate[2].backward()
    assert surrogate[2].item() == pytest.approx(math.log(0.1))
    assert rho.grad[2].item() == pytest.approx(-1 / 0.1)


def test_without_negatives_it_is_fine_tuning_on_right_answers():
    found = ascent(recipes.nft(negative=0.0, length=1), group([1, 0, 0, 0]))
    assert found == [pytest.approx(0.75 / 4), 0.0, 0.0, 0.0]


def test_groups_without_contrast_weigh_nothing():
    for successes in ([1, 1, 1, 1], [0, 0, 0, 0]):
        x = group(successes)
        assert ascent(recipes.nft().replace(sampler=recipes.dr_grpo().sampler), x) == [0.0] * 4


def test_its_population_optimum_is_the_right_part_of_the_old_policy():
    old, right = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), torch.tensor([True, False, False])
    gate, logits = ImplicitNegative(weight="equal", floor=1e-3), old.log().requires_grad_()
    # Every answer once, weighted by how likely the old policy gives it; a pass rate of one half.
    x = Experience.from_lengths([1] * 3, [1] * 3, [3], success=right, pass_rate=torch.tensor([0.5]))
    optimizer = torch.optim.Adam([logits], lr=0.05)
    for _ in range(600):
        optimizer.zero_grad()
        logp = torch.log_softmax(logits, 0)
        surrogate = gate((logp - old.log()).exp(), torch.zeros(3), PolicyOutput(logp), x)
        (-(old * surrogate).sum()).backward()
        optimizer.step()
    assert torch.softmax(logits, 0)[0].item() > 0.99


@pytest.mark.parametrize("field", [{"negative": -1.0}, {"floor": 0.0}, {"weight": "odd"}])
def test_bad_values_are_refused(field):
    with pytest.raises(InputError, match=rf"implicit_negative\.{next(iter(field))}"):
        ImplicitNegative(**field)
    with pytest.raises(ValueError, match="needs success and pass_rate"):
        ImplicitNegative()(
            torch.ones(1), torch.ones(1), PolicyOutput(torch.zeros(1)), Experience.from_lengths([1], [1], [1])
        )


# ---- values of the random policy -------------------------------------------------------------------------------------


def test_on_policy_the_loss_is_the_mean_square_of_the_credit_and_the_gradient_reinforce():
    x = group([1, 0, 0, 0], [2, 1, 3, 1])
    recipe = recipes.rover(scale=0.7)
    ready = recipe.prepare(x)
    logp = torch.full((7,), -1.0, requires_grad=True)
    result = recipe.objective(PolicyOutput(logp, mean_logp=torch.full((7,), -2.0)), ready)
    assert result.loss.item() == pytest.approx(float(ready.advantage.square().mean()))
    result.loss.backward()
    reinforce = PolicyGradient(gate=LogLikelihood(), aggregation=TokenMean())
    plain = torch.full((7,), -1.0, requires_grad=True)
    reinforce(PolicyOutput(plain), ready).loss.backward()
    torch.testing.assert_close(logp.grad, 2 * 0.7 * plain.grad)


def test_the_next_state_is_valued_by_the_mean_log_probability_and_the_last_token_by_nothing():
    # Two trajectories of two and one tokens; logits (1, 2, 3) have mean log-softmax -1.4076060.
    mean = float(torch.log_softmax(torch.tensor([1.0, 2.0, 3.0]), 0).mean())
    assert mean == pytest.approx(-1.4076060, abs=1e-6)
    x = Experience.from_lengths(
        [2, 1], [1, 1], [2],
        old_logp=torch.tensor([-1.0, -1.0, -1.0]),
        old_mean_logp=torch.tensor([-2.0, -2.0, -2.0]),
        advantage=torch.tensor([0.5, 0.5, -0.5]),
    )  # fmt: skip
    logp = torch.tensor([-0.9, -1.2, -1.0], requires_grad=True)
    out = PolicyOutput(logp, mean_logp=torch.tensor([9.0, mean, 9.0]))
    result = RandomPolicyRegression()(out, x)
    # Q = .1, -.2, 0; targets .5 + (mean + 2), .5, -.5.
    errors = [0.1 - (0.5 + mean + 2), -0.2 - 0.5, 0.0 + 0.5]
    assert result.loss.item() == pytest.approx(sum(error**2 for error in errors) / 3)
    result.loss.backward()
    assert logp.grad.tolist() == pytest.approx([2 * error / 3 for error in errors])


def test_the_target_carries_no_gradient_and_a_constant_added_to_the_logits_changes_nothing():
    x = group([1, 0], [2, 2], old_logp=torch.full((4,), -1.0), old_mean_logp=torch.full((4,), -1.5))
    logits = torch.randn(4, 3, generator=generator(0, "logits"), dtype=torch.float64)
    recipe, losses = recipes.rover(), []
    for shift in (0.0, 5.0):
        logp = torch.log_softmax(logits + shift, -1)
        mean = logp.mean(-1).requires_grad_()
        chosen = logp[:, 0].detach().requires_grad_()
        loss = recipe.objective(PolicyOutput(chosen, mean_logp=mean), recipe.prepare(x)).loss
        losses.append(loss.item())
        loss.backward()
        assert mean.grad is None
    assert losses[0] == pytest.approx(losses[1])


def test_a_group_of_equal_rewards_is_no_division_by_zero():
    x = group([1, 1, 1], old_logp=torch.full((3,), -1.0), old_mean_logp=torch.full((3,), -2.0))
    assert ascent(recipes.rover(), x, mean_logp=torch.full((3,), -2.0)) == [0.0] * 3


# ---- the exact algorithm --------------------------------------------------------------------------------------------


def tree_of(leaves: dict[tuple[int, ...], float], vocabulary: int, depth: int) -> Tree:
    def act(state, tokens):
        return over(leaves.get(tokens, 0.0)) if len(tokens) == depth else None

    return Tree.enumerate(TokenGame("by hand", "", vocabulary, ((1.0, "start"),), act))


def test_values_of_the_random_policy_worked_by_hand():
    tree = tree_of({(0, 0): 1.0, (1, 0): 1.0, (1, 1): 1.0}, 2, 2)
    values = random_policy_values(tree)
    assert values[0].tolist() == pytest.approx([0.5, 1.0])
    policy = Exact(tree, values / 0.5)
    assert policy.logp[0].exp()[0].item() == pytest.approx(0.268941, abs=1e-6)
    after_zero = int(tree.node[1])
    assert policy.logp[after_zero].exp()[0].item() == pytest.approx(0.880797, abs=1e-6)
    # The bound of theorem 2 is met with equality: one node on the way has both kinds of actions.
    bound = 1 - 0.268941 * 1 / (1 + math.exp(1.0 / 0.5))
    assert policy.expected_return == pytest.approx(0.967941, abs=1e-6)
    assert policy.expected_return == pytest.approx(bound, abs=1e-5)


def test_acting_greedily_on_them_is_optimal_in_any_tree_with_one_reward():
    for seed in range(200):
        source = generator(seed, "tree")
        vocabulary, depth = (
            int(torch.randint(2, 5, (), generator=source)),
            int(torch.randint(1, 5, (), generator=source)),
        )
        count = vocabulary**depth
        paid = torch.rand(count, generator=source) < 0.2
        paid[int(torch.randint(count, (), generator=source))] = True

        def place(tokens: tuple[int, ...], base: int = vocabulary) -> int:
            return sum(token * base**power for power, token in enumerate(tokens))

        def act(state, tokens, paid=paid, depth=depth, place=place):
            return over(float(paid[place(tokens)])) if len(tokens) == depth else None

        tree = Tree.enumerate(TokenGame(f"tree {seed}", "", vocabulary, ((1.0, "start"),), act))
        assert Exact.greedy(tree, random_policy_values(tree)).expected_return == 1.0


def test_a_cool_softmax_on_them_finds_all_four_ways_alike():
    letters = {letter: place for place, letter in enumerate("ABCD")}
    ways = [tuple(letters[letter] for letter in word) for word in ("ACD", "BDC", "CAB", "DBA")]
    tree = tree_of(dict.fromkeys(ways, 1.0), 4, 3)
    values = random_policy_values(tree)
    assert values[0].tolist() == pytest.approx([1 / 16] * 4)
    policy = Exact(tree, values / 1e-3)
    found = policy.leaf_probability[tree.leaves.returns > 0]
    assert found.tolist() == pytest.approx([0.25] * 4, abs=1e-6)


def test_games_in_which_that_does_not_hold_are_refused():
    # Leaves (1, 0) and (.6, .6): the random policy is better off with the second action, the best way is the first.
    with pytest.raises(InputError, match="pays more than 0 or one reward"):
        random_policy_values(tree_of({(0, 0): 1.0, (1, 0): 0.6, (1, 1): 0.6}, 2, 2))
    with pytest.raises(InputError, match="has chance"):
        random_policy_values(Tree.enumerate(GAMES["windy"]))
    with pytest.raises(InputError, match="pays more than 0 or one reward"):
        random_policy_values(Tree.enumerate(GAMES["stopping"]))
