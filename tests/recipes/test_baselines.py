"""The baselines through a recipe's public interface: numbers worked by hand, identities, exactness and invariance."""

from __future__ import annotations

import math
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stratagem import recipes
from stratagem.experience import Experience, PolicyOutput
from stratagem.objectives import Clip, LogLikelihood, SequenceSum
from stratagem.recipe import Recipe

EVERY = [getattr(recipes, name) for name in recipes.baselines.__all__]
GROUP_RELATIVE = ["grpo", "dapo", "gspo", "cispo", "decoupled_ppo"]


def gradient(recipe: Recipe, x: Experience, logp: Tensor) -> Tensor:
    """Of the loss by every log-probability."""
    logp = logp.detach().clone().requires_grad_()
    loss = recipe.objective(PolicyOutput(logp), x).loss
    return torch.autograd.grad(loss, logp)[0]


def one_success_in_four(**fields) -> Experience:
    return Experience.from_lengths([1, 2, 3, 1], [1] * 4, [4], reward=[1.0, 0, 0, 0], **fields)


# ---- advantages -----------------------------------------------------------------------------------------------------


def test_advantages_of_one_success_in_four_worked_by_hand():
    x = one_success_in_four()
    third = 1 / 3
    for name, success, failure in (
        *((name, 1.5, -0.5) for name in GROUP_RELATIVE),
        ("rloo", 1.0, -third),
        ("dr_grpo", 0.75, -0.25),
        ("reinforce", 1.0, 0.0),
        ("sft", 1.0, 1.0),
    ):
        credit = getattr(recipes, name)().advantage(x)
        assert credit.tolist() == pytest.approx([success] + [failure] * 6, abs=1e-5), name


def test_the_population_standard_deviation_is_a_choice():
    credit = recipes.grpo().with_values({"advantage.correction": 0}).advantage(one_success_in_four())
    assert credit[:2].tolist() == pytest.approx([1.732051, -0.577350], abs=1e-5)


def test_reinforce_pp_whitens_over_tokens_and_charges_kl_to_each():
    # Two trajectories of one and three tokens, returns 1 and 0, k1 of 0.1 at the second token of the second only.
    logp, ref = torch.tensor([-1.0, -1, -1, -1]), torch.tensor([-1.0, -1, -1.1, -1])
    x = Experience.from_lengths([1, 3], [1, 1], [2], reward=[1.0, 0.0], behavior_logp=logp, ref_logp=ref)
    ready = recipes.reinforce_pp(kl_coefficient=1.0).prepare(x)
    # Reward-to-go 1, -0.1, -0.1, 0: mean 0.2, population variance (0.64 + 0.09 + 0.09 + 0.04) / 4 = 0.215.
    root = math.sqrt(0.215)
    assert ready.advantage.tolist() == pytest.approx([0.8 / root, -0.3 / root, -0.3 / root, -0.2 / root], abs=1e-5)


def test_reinforce_pp_baseline_centers_by_group_and_whitens_over_tokens():
    x = Experience.from_lengths([1, 1, 1, 1], [1] * 4, [2, 2], reward=[1.0, 0.0, 5.0, 4.0])
    # Centered by group: +-1/2, whose standard deviation is 1/2.
    credit = recipes.reinforce_pp_baseline().advantage(x)
    assert credit.tolist() == pytest.approx([1.0, -1.0, 1.0, -1.0])


def test_ppo_estimates_advantages_by_gae_and_whitens_them():
    x = Experience.from_lengths([3], [1], [1], reward=[1.0], value=torch.tensor([0.5, 0.6, 0.8]))
    raw = torch.tensor([0.4705, 0.39, 0.2])
    ready = recipes.ppo().prepare(x)
    whitened = (raw - raw.mean()) / raw.std(correction=0)
    assert ready.advantage.tolist() == pytest.approx(whitened.tolist(), abs=1e-5)
    assert ready.value_target.tolist() == pytest.approx([0.9705, 0.99, 1.0])


def test_dapo_punishes_length_before_it_compares():
    x = Experience.from_lengths([80, 90, 100, 120], [1] * 4, [4], reward=[1.0] * 4)
    ready = recipes.dapo(overlong_limit=100, overlong_buffer=20).prepare(x)
    assert ready.returns.tolist() == [1.0, 0.5, 0.0, 0.0]
    # Sample variance of 1, 0.5, 0, 0 about 0.375: (0.390625 + 0.015625 + 2 * 0.140625) / 3 = 0.2291667.
    assert ready.advantage[0].item() == pytest.approx(0.625 / math.sqrt(0.2291667), abs=1e-5)


@given(st.lists(st.floats(-10, 10, width=32), min_size=2, max_size=10))
def test_rloo_is_a_multiple_of_dr_grpo(rewards):
    ones = [1] * len(rewards)
    x = Experience.from_lengths(ones, ones, [len(rewards)], reward=torch.tensor(rewards))
    factor = len(rewards) / (len(rewards) - 1)
    assert torch.allclose(recipes.rloo().advantage(x), factor * recipes.dr_grpo().advantage(x), atol=1e-5)


@pytest.mark.parametrize("name", [*GROUP_RELATIVE, "dr_grpo", "rloo", "reinforce_pp_baseline"])
def test_a_group_of_equal_rewards_teaches_exactly_nothing(name):
    recipe = getattr(recipes, name)()
    x = Experience.from_lengths([1, 2, 3], [1] * 3, [3], reward=[0.3] * 3, behavior_logp=-torch.ones(6))
    x = x.replace(old_logp=-torch.ones(6), ref_logp=-torch.ones(6))
    ready = recipe.prepare(x)
    assert ready.advantage.tolist() == [0.0] * 6
    assert gradient(recipe, ready, -1.1 * torch.ones(6)).abs().max() == (0 if name != "reinforce_pp_baseline" else
        pytest.approx(0.01 * 0.1 / 6))  # fmt: skip


# ---- objectives -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratio", "advantage", "surrogate", "slope"),
    [(1.5, 1, 1.2, 0), (1.5, -1, -1.5, -1), (0.5, 1, 0.5, 1), (0.5, -1, -0.8, 0)],
)
@pytest.mark.parametrize("name", ["grpo", "ppo", "decoupled_ppo"])
def test_the_clip_table_worked_by_hand(name, ratio, advantage, surrogate, slope):
    x = Experience.from_lengths(
        [1], [1], [1], advantage=torch.tensor([float(advantage)]),
        old_logp=torch.zeros(1), behavior_logp=torch.zeros(1), value=torch.zeros(1), value_target=torch.zeros(1),
    )  # fmt: skip
    logp = torch.tensor([math.log(ratio)], requires_grad=True)
    loss = getattr(recipes, name)().objective(PolicyOutput(logp, value=torch.zeros(1)), x).loss
    assert loss.item() == pytest.approx(-surrogate)
    loss.backward()
    # The table's slope is by the ratio; by the log-probability it is the ratio's multiple.
    assert logp.grad.item() == pytest.approx(-slope * ratio)


def test_the_dual_clip_worked_by_hand():
    recipe = recipes.grpo().with_values({"objective.gate.dual": 3.0})
    x = Experience.from_lengths([1], [1], [1], advantage=torch.tensor([-1.0]), old_logp=torch.zeros(1))
    logp = torch.tensor([math.log(5)])
    assert recipe.objective(PolicyOutput(logp), x).loss.item() == pytest.approx(3.0)
    assert gradient(recipe, x, logp).tolist() == [0.0]


def test_gspo_weighs_every_token_by_its_sequences_length():
    credit = torch.tensor([2.0, 2.0, -1.0, -1.0, -1.0, -1.0])
    x = Experience.from_lengths([2, 4], [1, 1], [2], advantage=credit, old_logp=torch.zeros(6))
    actual = gradient(recipes.gspo(), x, torch.zeros(6))
    assert actual.tolist() == pytest.approx([-2 / (2 * 2)] * 2 + [1 / (2 * 4)] * 4)
    # Mean log-ratios 0.1 and 0: s = 1.105171 and 1. The first is above 1 + 4e-4 with a positive advantage: clipped.
    moved = torch.tensor([0.2, 0.0, 0.1, -0.1, 0.3, -0.3])
    loss = recipes.gspo().objective(PolicyOutput(moved), x).loss
    assert loss.item() == pytest.approx(-(2 * 1.0004 - 1) / 2)
    wide = recipes.gspo(low=0.5, high=0.5)
    assert wide.objective(PolicyOutput(moved), x).loss.item() == pytest.approx(-(2 * 1.105171 - 1) / 2, abs=1e-6)
    assert gradient(wide, x, moved)[:2].tolist() == pytest.approx([-2 * 1.105171 / 4] * 2, abs=1e-6)


def test_grpo_adds_k3_to_the_reference_inside_the_loss():
    recipe = recipes.grpo(kl_coefficient=0.5)
    x = Experience.from_lengths(
        [1, 1], [1, 1], [2], advantage=torch.zeros(2), old_logp=-torch.ones(2), ref_logp=torch.tensor([-1.2, -1.0])
    )
    loss = recipe.objective(PolicyOutput(-torch.ones(2)), x).loss
    assert loss.item() == pytest.approx(0.5 * 0.0187308 / 2, abs=1e-7)


def test_decoupled_ppo_weighs_by_the_behaviour_policy_and_clips_by_the_old_one():
    x = Experience.from_lengths(
        [1], [1], [1], advantage=torch.ones(1), old_logp=torch.zeros(1), behavior_logp=torch.tensor([-math.log(3)])
    )
    logp = torch.tensor([math.log(1.1)])
    assert recipes.decoupled_ppo().objective(PolicyOutput(logp), x).loss.item() == pytest.approx(-3 * 1.1)
    assert gradient(recipes.decoupled_ppo(), x, logp).item() == pytest.approx(-3 * 1.1)
    assert gradient(recipes.decoupled_ppo(cap=2.0), x, logp).item() == pytest.approx(-2 * 1.1)
    assert gradient(recipes.decoupled_ppo(), x, torch.tensor([math.log(1.3)])).item() == 0.0


def test_dr_grpo_divides_by_a_constant_length():
    x = Experience.from_lengths([1, 3], [1, 1], [2], advantage=torch.ones(4), old_logp=torch.zeros(4))
    assert gradient(recipes.dr_grpo(length=10), x, torch.zeros(4)).tolist() == pytest.approx([-1 / 20] * 4)


def test_reinforce_and_sft_ascend_the_log_likelihood():
    x = Experience.from_lengths([1, 3], [1, 1], [2], advantage=torch.tensor([2.0, 1, 1, 1]))
    assert gradient(recipes.reinforce(), x, -torch.ones(4)).tolist() == pytest.approx([-1, -0.5, -0.5, -0.5])
    assert gradient(recipes.sft(), x, -torch.ones(4)).tolist() == pytest.approx([-0.5, -0.25, -0.25, -0.25])


# ---- identities -----------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_where_the_policy_has_not_moved_all_ratios_have_the_same_gradient(seed):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 6, (4,), generator=generator)
    tokens = int(lengths.sum())
    logp = -torch.rand(tokens, generator=generator)
    by_trajectory = torch.randn(4, generator=generator)
    x = Experience.from_lengths(lengths, [1] * 4, [4], old_logp=logp, behavior_logp=logp)
    x = x.replace(advantage=x.to_tokens(trajectory=by_trajectory))
    same = {"objective.aggregation": "sequence_mean"}
    expected = -x.advantage / (4 * x.trajectory_of_token.spread(lengths))
    for name in ("grpo", "dapo", "cispo", "decoupled_ppo", "gspo", "reinforce", "rloo", "dr_grpo"):
        recipe = getattr(recipes, name)().with_values(same)
        assert torch.allclose(gradient(recipe, x, logp), expected, atol=1e-6), name
        unmoved = x.replace(old_logp=None)
        if name != "decoupled_ppo":
            assert torch.allclose(gradient(recipe, unmoved, logp), expected, atol=1e-6), name


# ---- edges ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", EVERY, ids=lambda build: build.__name__)
def test_trajectories_without_tokens_and_masked_rows_leave_loss_and_gradient_finite(build):
    recipe = build()
    generator = torch.Generator().manual_seed(0)
    fields = {name: -torch.rand(6, generator=generator) for name in ("behavior_logp", "old_logp", "ref_logp", "value")}
    x = Experience.from_lengths(
        [2, 0, 3, 1], [1] * 4, [2, 2], reward=[1.0, 2.0, 3.0, 1.0],
        mask=[True, False, True, True, False, False], **fields,
    )  # fmt: skip
    ready = recipe.replace(selections=()).prepare(x)
    masked = torch.tensor([-1.0, -math.inf, -1.0, -1.0, math.nan, -math.inf]).requires_grad_()
    out = PolicyOutput(masked, entropy=masked.detach(), value=masked)
    result = recipe.objective(out, ready)
    result.loss.backward()
    assert bool(result.loss.isfinite())
    assert all(bool(metric.isfinite()) for metric in result.metrics.values())
    assert bool(masked.grad.isfinite().all())
    assert masked.grad[~ready.mask].tolist() == [0.0] * 3


# ---- micro-batches --------------------------------------------------------------------------------------------------


class SmallPolicy(torch.nn.Module):
    """A softmax policy and a critic over 9 observations and 5 actions."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.body = torch.nn.Parameter(torch.randn(9, 16, generator=generator))
        self.head = torch.nn.Parameter(0.3 * torch.randn(16, 6, generator=generator))

    def forward(self, x: Experience) -> PolicyOutput:
        # Which observation a token answers is kept in the one field of integers that no part reads.
        said = self.body[x.version].tanh() @ self.head
        logps = said[:, :5].log_softmax(1)
        entropy = -(logps.exp() * logps).sum(1)
        return PolicyOutput(logps.gather(1, x.action.unsqueeze(1)).squeeze(1), entropy, said[:, 5])


def sampled() -> Experience:
    """Twelve trajectories of up to three turns in three groups, some tokens masked, policies slightly apart."""
    generator = torch.Generator().manual_seed(2)
    turns = torch.randint(1, 4, (12,), generator=generator)
    lengths = torch.randint(0, 6, (int(turns.sum()),), generator=generator)
    tokens = int(lengths.sum())
    x = Experience.from_lengths(
        lengths, turns, [4, 4, 4],
        action=torch.randint(0, 5, (tokens,), generator=generator),
        version=torch.randint(0, 9, (tokens,), generator=generator),
        reward=torch.randn(12, generator=generator),
        mask=torch.rand(tokens, generator=generator) < 0.8,
    )  # fmt: skip
    with torch.no_grad():
        now = SmallPolicy()(x)
    apart = {
        name: now.logp + 0.1 * torch.randn(tokens, generator=generator)
        for name in ("old_logp", "behavior_logp", "ref_logp")
    }
    return x.replace(value=now.value + 0.1 * torch.randn(tokens, generator=generator), **apart)


def learned(recipe: Recipe, ready: Experience, pieces: list[Tensor]) -> tuple[float, dict[str, float], Tensor]:
    """Loss, metrics and gradient of the policy, added up over the pieces."""
    policy, loss, metrics = SmallPolicy(), 0.0, {}
    for rows in pieces:
        piece = ready.microbatch(rows)
        result = recipe.objective(policy(piece), piece)
        result.loss.backward()
        loss += result.loss.item()
        for name, value in result.metrics.items():
            metrics[name] = metrics.get(name, 0.0) + value.item()
    return loss, metrics, torch.cat([parameter.grad.flatten() for parameter in policy.parameters()])


@pytest.mark.parametrize("build", EVERY, ids=lambda build: build.__name__)
def test_loss_metrics_and_gradient_do_not_depend_on_how_the_batch_is_cut(build):
    def prepared(order: Tensor) -> tuple[Recipe, Experience]:
        recipe = build().replace(selections=())
        return recipe, recipe.prepare(sampled().select(order))

    everything = torch.arange(12)
    recipe, ready = prepared(everything)
    loss, metrics, expected = learned(recipe, ready, [everything])
    assert expected.abs().max() > 1e-4
    shuffled = torch.randperm(12, generator=torch.Generator().manual_seed(3))
    for order, pieces in (
        (everything, everything.chunk(2)),
        (everything, everything.tensor_split(8)),
        (everything, [everything[i : i + 1] for i in range(12)]),
        (everything, shuffled.tensor_split(8)),
        (shuffled, [everything]),
        (shuffled, everything.chunk(2)),
    ):
        other_recipe, other = prepared(order)
        other_loss, other_metrics, actual = learned(other_recipe, other, list(pieces))
        assert torch.allclose(actual, expected, rtol=0, atol=1e-6)
        assert other_loss == pytest.approx(loss, abs=1e-6)
        assert other_metrics == pytest.approx(metrics, abs=1e-6)


# ---- exactness on a tree that can be enumerated ---------------------------------------------------------------------

SAMPLES, GROUP, ACTIONS = 200_000, 4, 4


class Tree:
    """Three steps of four actions: 21 histories with a softmax each, and a return at each of the 64 leaves."""

    def __init__(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.logits = 0.7 * torch.randn(21, ACTIONS, generator=generator, dtype=torch.float64)
        self.rewards = torch.randn(64, generator=generator, dtype=torch.float64)
        self.generator = generator

    def true_gradient(self) -> Tensor:
        """Of the expected return by the logits, by enumeration of all leaves."""
        logits = self.logits.clone().requires_grad_()
        logp = logits.log_softmax(1)
        leaf = torch.arange(64)
        first, second, third = leaf // 16, leaf // 4 % 4, leaf % 4
        path = logp[0, first] + logp[1 + first, second] + logp[5 + leaf // 4, third]
        return torch.autograd.grad((path.exp() * self.rewards).sum(), logits)[0]

    def sample(self) -> tuple[Experience, Tensor]:
        """On-policy groups, and the history each token was chosen in."""
        probabilities = self.logits.softmax(1)
        place, histories, actions = torch.zeros(SAMPLES, dtype=torch.int64), [], []
        for offset in (0, 1, 5):
            histories.append(offset + place)
            chosen = torch.multinomial(probabilities[histories[-1]], 1, generator=self.generator).squeeze(1)
            actions.append(chosen)
            place = place * ACTIONS + chosen
        x = Experience.from_lengths(
            torch.full((SAMPLES,), 3), torch.ones(SAMPLES, dtype=torch.int64), torch.full((SAMPLES // GROUP,), GROUP),
            action=torch.stack(actions, 1).flatten(), reward=self.rewards[place].float(),
        )  # fmt: skip
        return x, torch.stack(histories, 1).flatten()

    def estimate(self, recipe: Recipe) -> tuple[Tensor, Tensor]:
        """Mean of the recipe's ascent direction over the samples, and its standard error over independent groups."""
        x, history = self.sample()
        logits = self.logits.clone().requires_grad_()
        logp = logits.log_softmax(1)[history, x.action]
        ready = recipe.prepare(x)
        (by_autograd,) = torch.autograd.grad(recipe.objective(PolicyOutput(logp), ready).loss, logits)
        # The same, group by group: A (onehot(a) - pi) at the history of each token, averaged over its group.
        score = torch.nn.functional.one_hot(x.action, ACTIONS) - self.logits.softmax(1)[history]
        weight = recipe.objective.aggregation.weights(ready) * len(ready.returns) / GROUP
        at = ready.group_of_token.labels * 21 + history
        groups = torch.zeros(ready.groups * 21, ACTIONS, dtype=torch.float64)
        groups.index_add_(0, at, (weight * ready.advantage).unsqueeze(1) * score)
        groups = groups.view(ready.groups, 21, ACTIONS)
        assert torch.allclose(groups.mean(0), -by_autograd, atol=1e-6)
        return -by_autograd, groups.std(0) / math.sqrt(ready.groups)


def unit(direction: Tensor) -> Tensor:
    return direction / direction.norm()


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", ["reinforce", "rloo", "grpo at the policy-gradient theorem's weight"])
def test_unbiased_estimators_match_the_enumerated_gradient(name, seed):
    if name.startswith("grpo"):
        # GRPO's ratio and clip with the leave-one-out advantage and the sum over tokens are RLOO again.
        recipe = recipes.rloo().with_values({"objective.gate": "clip"})
        assert (recipe.objective.gate, recipe.objective.aggregation) == (Clip(), SequenceSum())
    else:
        recipe = getattr(recipes, name)()
        assert recipe.objective.gate == LogLikelihood()
    tree = Tree(seed)
    estimate, error = tree.estimate(recipe)
    truth = tree.true_gradient()
    deviations = (estimate - truth) / error
    # 84 numbers at once: the root of their mean square is 1 when the error is chance alone, and none is far out.
    assert deviations.square().mean().sqrt().item() < 1.3
    assert deviations.abs().max().item() < 4
    # Along the true gradient, within three standard errors (an upper bound of the error of the projection).
    along = ((estimate - truth) * unit(truth)).sum().abs().item()
    assert along < 3 * (error * unit(truth).abs()).sum().item()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_grpo_is_biased_by_design_even_when_its_scale_is_forgiven(seed):
    tree = Tree(seed)
    recipe = recipes.grpo()
    estimate, error = tree.estimate(recipe)
    truth = tree.true_gradient()
    scale = (estimate * truth).sum() / truth.square().sum()
    bias = estimate - scale * truth
    relative = (bias.norm() / (scale * truth).norm()).item()
    print(f"GRPO: scale {scale:.3f}, bias {relative:.1%} of the scaled gradient")
    assert scale > 0
    # Chance alone leaves the root of the mean square near 1.
    assert (bias / error).square().mean().sqrt().item() > 3
    assert relative > 0.02


# ---- speed ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["grpo", "ppo", "reinforce_pp"])
def test_credit_for_four_million_tokens_takes_a_moment(name):
    """Promised are 50 ms on one core; four times that leaves room for a busy machine."""
    recipe, tokens, trajectories = getattr(recipes, name)(), 4_000_000, 4_096
    generator = torch.Generator().manual_seed(0)
    lengths = torch.full((trajectories,), tokens // trajectories)
    lengths[0] += tokens - lengths.sum()
    x = Experience.from_lengths(
        lengths, torch.ones(trajectories, dtype=torch.int64), torch.full((trajectories // 8,), 8),
        reward=torch.randn(trajectories, generator=generator), value=torch.randn(tokens, generator=generator),
    )  # fmt: skip
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        recipe.advantage(x)
        times = []
        for _ in range(5):
            start = time.process_time()
            recipe.advantage(x)
            times.append(time.process_time() - start)
    finally:
        torch.set_num_threads(threads)
    assert min(times) < 0.2
