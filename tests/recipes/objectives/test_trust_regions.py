"""Budgets by level, masks by discrepancy and the bounded ratio, through whole recipes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from stratagem import recipes
from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.lab import find_game
from stratagem.lab.world import LabTask
from stratagem.recipe import Recipe
from stratagem.study.experiments import learn


def gradient(recipe: Recipe, x: Experience, logp: Tensor) -> Tensor:
    """Of minus the loss by every log-probability."""
    logp = logp.detach().clone().requires_grad_()
    return -torch.autograd.grad(recipe.objective(PolicyOutput(logp), x).loss, logp)[0]


def single(advantage: float, **fields) -> Experience:
    return Experience.from_lengths(
        [1], [1], [1], advantage=torch.tensor([advantage]), old_logp=torch.zeros(1),
        **{"behavior_logp": torch.zeros(1)} | fields,
    )  # fmt: skip


# ---- fiberpo --------------------------------------------------------------------------------------------------------


def test_fiberpo_weighs_gated_ratios_by_trajectory():
    # log G of the first trajectory is (0.08, -0.02), worked by hand in the tests of the gate; the second did not move.
    x = Experience.from_lengths([2, 1], [1, 1], [2], advantage=torch.tensor([2.0, 1.0, -3.0]), old_logp=torch.zeros(3))
    loss = recipes.fiberpo().objective(PolicyOutput(torch.tensor([0.1, -0.04, 0.0])), x).loss
    assert loss.item() == pytest.approx(-((2 * 1.083287 + 0.980199) / 2 - 3) / 2, abs=1e-5)


def test_fiberpo_starts_where_grpo_does_and_with_open_gates_is_the_plain_ratio():
    x = Experience.from_lengths([2, 3, 1, 2], [1] * 4, [2, 2], reward=[1.0, 0, 2, 5], old_logp=-torch.ones(8))
    ready, logp = recipes.fiberpo().prepare(x), -torch.ones(8)
    expected = gradient(recipes.grpo(), ready, logp)
    for levels in ("trajectory", "domain"):
        assert torch.allclose(gradient(recipes.fiberpo(levels), ready, logp), expected, atol=1e-6)
    moved = logp + torch.tensor([0.3, -0.5, 0.0, 0.8, -0.2, 0.4, 0.1, -0.9])
    plain = recipes.grpo().with_values({"objective.gate": "unclipped"})
    for levels in ("trajectory", "domain"):
        opened = recipes.fiberpo(levels, math.inf, math.inf, math.inf)
        assert torch.allclose(gradient(opened, ready, moved), gradient(plain, ready, moved), atol=1e-5)


def test_fiberpo_pulls_a_drifted_trajectory_back_where_grpo_only_stops():
    # Both tokens of a good trajectory rose by 0.26; of two tokens the way back has the slope 2.
    x = Experience.from_lengths([2], [1], [1], advantage=torch.ones(2), old_logp=torch.zeros(2))
    moved = torch.tensor([0.26, 0.26])
    pull = gradient(recipes.fiberpo(up=0.25), x, moved)
    assert pull.tolist() == pytest.approx([-math.exp(0.23)] * 2, abs=1e-5)
    assert gradient(recipes.grpo(), x, moved).tolist() == [0.0, 0.0]
    assert gradient(recipes.fiberpo(), x, torch.tensor([0.3, 0.3])).tolist() == pytest.approx([0.0, 0.0])


def test_fiberpo_over_domains_has_a_budget_for_each_level_and_refuses_parts_of_a_domain():
    recipe = recipes.fiberpo("domain", up=0.2, down=0.1)
    assert recipe.flat()["objective.gate.levels"] == ("trajectory", "group", "domain")
    assert recipe.flat()["objective.gate.up"] == (0.2, 0.2, 0.2)
    x = Experience.from_lengths([2, 1], [1, 1], [1, 1], advantage=torch.ones(3), old_logp=torch.zeros(3))
    for piece in (x.microbatch(torch.tensor([0])), x.microbatch(torch.tensor([1]))):
        with pytest.raises(InputError, match=r"part of a domain.*optimization\.microbatch_tokens"):
            recipe.objective(PolicyOutput(torch.zeros(piece.tokens)), piece)
    # By trajectory any piece will do.
    piece = x.microbatch(torch.tensor([1]))
    assert recipes.fiberpo().objective(PolicyOutput(torch.zeros(1)), piece).loss.item() == pytest.approx(-0.5)


def test_the_trust_region_of_the_paper_is_a_gate_of_its_own():
    recipe = recipes.fiberpo().with_values({"objective.gate": "shared_budget"})
    x = Experience.from_lengths([2], [1], [1], advantage=torch.tensor([1.0, 2.0]), old_logp=torch.zeros(2))
    loss = recipe.objective(PolicyOutput(torch.tensor([1.3, 1.05]).log()), x).loss
    assert loss.item() == pytest.approx(-(1.15 + 2 * 1.0) / 2)


# ---- hispo ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratio", "advantage", "surrogate", "slope"),
    [
        (6.0, -1, -5.0, 0.0),  # PPO: -6 with a gradient
        (4.9, -1, -4.9, -1.0),
        (0.5, -1, -0.8, 0.0),
        (0.5, 1, 0.5, 1.0),
        (1.25, 1, 1.25, 1.0),
        (1.5, 1, 1.28, 0.0),
    ],
)
def test_the_triplet_clip_worked_by_hand(ratio, advantage, surrogate, slope):
    recipe = recipes.hispo(length=1)
    x = single(float(advantage))
    logp = torch.tensor([math.log(ratio)])
    assert recipe.objective(PolicyOutput(logp), x).loss.item() == pytest.approx(-surrogate, abs=1e-5)
    assert gradient(recipe, x, logp).item() == pytest.approx(slope * ratio, abs=1e-5)


def test_inside_the_clip_the_gradient_is_the_whole_ratio_times_the_advantage():
    # pi_old / mu = 0.9 and pi / pi_old = 1.2.
    x = single(2.0, behavior_logp=torch.tensor([-math.log(0.9)]))
    recipe = recipes.hispo(trajectory=0.5, length=1)
    assert gradient(recipe, x, torch.tensor([math.log(1.2)])).item() == pytest.approx(0.9 * 1.2 * 2)
    # The same gap is too much for the default bound on the trajectory.
    assert gradient(recipes.hispo(length=1), x, torch.tensor([math.log(1.2)])).item() == 0.0


def test_every_token_counts_the_same_in_trajectories_of_any_length():
    x = Experience.from_lengths([10, 100], [1, 1], [2], advantage=torch.ones(110), old_logp=torch.zeros(110))
    x = x.replace(behavior_logp=torch.zeros(110))
    assert gradient(recipes.hispo(length=200), x, torch.zeros(110)).tolist() == pytest.approx([1 / (2 * 200)] * 110)


def test_what_the_engines_disagree_on_adds_nothing_but_is_counted():
    gap = torch.tensor([1.01, 1.01, 1.0, 1.8])  # the first trajectory on the whole, the last token by itself
    x = Experience.from_lengths([2, 2], [1, 1], [2], advantage=torch.ones(4), old_logp=gap.log())
    x = x.replace(behavior_logp=torch.zeros(4))
    for bound, kept in ((0.005, [0, 0, 0, 0]), (0.4, [1, 1, 1, 0])):
        recipe = recipes.hispo(trajectory=bound, length=4, high=9)
        expected = (gap * torch.tensor(kept) / 8).tolist()
        assert gradient(recipe, x, gap.log()).tolist() == pytest.approx(expected)


def test_with_open_bounds_and_one_engine_it_is_ppos_clip_over_a_constant_length():
    generator = torch.Generator().manual_seed(0)
    old, moved = torch.randn(2, 9, generator=generator)
    x = Experience.from_lengths([2, 3, 4], [1] * 3, [3], old_logp=old, behavior_logp=old)
    x = x.replace(advantage=torch.randn(9, generator=generator))
    ours = recipes.hispo(math.inf, math.inf, 0.2, 0.2, negative_high=math.inf, length=7)
    theirs = recipes.dr_grpo(length=7)
    assert torch.allclose(gradient(ours, x, moved), gradient(theirs, x, moved))


def test_hispo_needs_the_sampling_engines_probabilities_and_a_group_with_a_difference():
    x = Experience.from_lengths([1, 1], [1, 1], [2], reward=[1.0, 1.0])
    with pytest.raises(ValueError, match=r"hispo reads behavior_logp"):
        recipes.hispo().prepare(x)
    ready = recipes.hispo().prepare(x.replace(behavior_logp=torch.zeros(2), old_logp=torch.zeros(2)))
    assert gradient(recipes.hispo(), ready, torch.tensor([0.1, -0.1])).tolist() == [0.0, 0.0]
    for wrong in ({"trajectory": 0.0}, {"token": -1.0}):
        with pytest.raises(InputError, match="discrepancy_mask"):
            recipes.hispo(**wrong)


# ---- bpo ------------------------------------------------------------------------------------------------------------


def test_one_success_in_four_raises_it_and_holds_the_others():
    recipe = recipes.bpo("group")
    x = Experience.from_lengths([1] * 4, [1] * 4, [4], reward=[1.0, 0, 0, 0], old_logp=-torch.ones(4))
    ready = recipe.prepare(x)
    assert ready.advantage.tolist() == pytest.approx([1.5, -0.5, -0.5, -0.5], abs=1e-5)
    assert ready.target.tolist() == pytest.approx([1.3, 1, 1, 1])
    loss = recipe.objective(PolicyOutput(-torch.ones(4)), ready).loss
    assert loss.item() == pytest.approx((0.3 * 1.5 + 0 + 0 + 0) / 4, abs=1e-5)
    # GRPO would push the others down; here they are pulled back to where they were.
    assert gradient(recipe, ready, -torch.ones(4)).tolist() == pytest.approx([1.5 / 4, 0, 0, 0], abs=1e-5)
    moved = gradient(recipe, ready, -torch.ones(4) + torch.tensor([0.5, 0.1, -0.1, 0.0]))
    assert moved.sign().tolist() == [-1.0, -1.0, 1.0, 0.0]


def test_every_token_counts_the_same_and_a_group_of_equals_nothing():
    recipe = recipes.bpo("group")
    x = Experience.from_lengths([1, 3, 2, 2], [1] * 4, [2, 2], reward=[1.0, 0, 1, 1], old_logp=torch.zeros(8))
    ready = recipe.prepare(x)
    root = math.sqrt(0.5)
    actual = gradient(recipe, ready, torch.zeros(8)).tolist()
    assert actual == pytest.approx([root / 8, *[-root / 8] * 3, 0, 0, 0, 0], abs=1e-5)
    equal = ready.select(torch.tensor([2, 3]))
    assert recipe.objective(PolicyOutput(torch.randn(4)), equal).loss.item() == 0.0
    assert not recipe.objective.has_signal(equal)


def test_with_a_critic_credit_is_the_lambda_return_and_the_policy_must_say_a_median():
    recipe = recipes.bpo(discount=1.0)
    x = Experience.from_lengths([3], [1], [1], reward=[1.0], value=torch.tensor([0.5, 0.6, 0.8]))
    ready = recipe.prepare(x).replace(old_logp=torch.zeros(3))
    assert ready.value_target.tolist() == pytest.approx([0.9705, 0.99, 1.0])
    assert recipe.output_needs() == {"value", "median"}
    logp = torch.zeros(3, requires_grad=True)
    out = PolicyOutput(logp, value=torch.tensor([0.5, 0.6, 0.8]), median=torch.full((3,), 0.98))
    recipe.objective(out, ready).loss.backward()
    # All returns lie above the value; the first lies below the median and is made less likely.
    assert logp.grad.tolist() == pytest.approx([0.4705 / 3, -0.39 / 3, -0.2 / 3])
    with pytest.raises(ValueError, match="value and median"):
        recipe.objective(PolicyOutput(logp, value=out.value), ready)


def test_published_temperatures_and_sizes_are_the_defaults():
    critic, group = recipes.bpo(), recipes.bpo("group")
    assert (critic.objective.bound, critic.objective.temperature) == (0.3, 1e-3)
    assert (critic.optimization.epochs, critic.optimization.minibatches) == (10, 32)
    assert (group.advantage.low, group.advantage.high, group.advantage.temperature) == (0.3, 0.3, 1e-4)
    assert (group.sampler.group_size, group.optimization.epochs) == (32, 10)
    assert recipes.bpo("group", temperature=0.5).advantage.temperature == 0.5


def test_an_unknown_variant_gives_the_nearest():
    with pytest.raises(InputError, match=r"^unknown variant of bpo 'groups'; did you mean 'group'\?$"):
        recipes.bpo("groups")
    with pytest.raises(InputError, match=r"^unknown levels of fiberpo 'domains'; did you mean 'domain'\?$"):
        recipes.fiberpo("domains")
    with pytest.raises(InputError, match=r"bounded_ratio\.bound = 1"):
        recipes.bpo(bound=1.0)


# ---- in a run -------------------------------------------------------------------------------------------------------


IN_THE_LAB = {
    "fiberpo": recipes.fiberpo(),
    "fiberpo over domains": recipes.fiberpo("domain"),
    "hispo": recipes.hispo(trajectory=0.5),
    "bpo by group": recipes.bpo("group", group_size=8),
    "bpo by mean": recipes.bpo().with_values({"objective.center": "mean", "optimization.minibatches": 2}),
}


@pytest.mark.parametrize("recipe", IN_THE_LAB.values(), ids=IN_THE_LAB)
def test_they_learn_in_the_lab(recipe):
    run = learn(recipe, LabTask(find_game("four_by_four"), staleness=1), 1000, 25)
    assert run.last.expected_return > run.policies[0].expected_return + 0.05
    assert all(row["updates/not_finite"] == 0 for row in run.metrics if "updates/not_finite" in row)
