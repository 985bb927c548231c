"""Stale batches and mismatched engines: every variant by hand, and the token-level loss against the exact gradient."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from stratagem.claims.objectives.stale import TOKEN_LEVEL
from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.lab import GAMES, Exact, Tree
from stratagem.lab.world import LabTask, LabWorld
from stratagem.objectives import LogLikelihood, PolicyGradient, SequenceMean, SequenceSum, TruncatedImportance
from stratagem.recipe import Recipe
from stratagem.recipes import decoupled_ppo, grpo, minirl, missing_old_logits
from stratagem.study.experiments import expected_update, learn
from stratagem.training.companions import Companions
from stratagem.training.loop import Settings, Trainer
from stratagem.training.run_directory import RunDirectory

# ---- one token under every variant ----------------------------------------------------------------------------------

MU, START, AVERAGE, VERSION, NOW = (math.log(p) for p in (0.4, 0.6, 0.55, 0.5, 0.66))
"""Probability of a token: as sampled, under the policy at the update's start, the average, its own version, and now."""

VARIANTS: dict[str, tuple[Recipe, float, float]] = {
    "ppo clip": (missing_old_logits("update_start", corrected=False), 1.0, 0.66 / 0.6),
    "train infer": (grpo().with_values({"objective.ratio.denominator": "behavior"}), 1.0, 0.66 / 0.4),
    "decoupled": (missing_old_logits("update_start"), 0.6 / 0.4, 0.66 / 0.6),
    "ppo ewma": (missing_old_logits("average", corrected=False), 1.0, 0.66 / 0.55),
    "ewma and train infer": (missing_old_logits("average"), 0.55 / 0.4, 0.66 / 0.55),
    "linear": (missing_old_logits("interpolated", alpha=0.25), (0.66 / 0.4) ** 0.75, (0.66 / 0.4) ** 0.25),
    "exact, snapshots": (missing_old_logits("snapshots"), 0.5 / 0.4, 0.66 / 0.5),
    "exact, recorded": (missing_old_logits("recorded"), 0.5 / 0.4, 0.66 / 0.5),
}
"""Recipe, discrepancy and staleness."""

OLD = {"update_start": START, "average": AVERAGE, "version": VERSION}


def token(recipe: Recipe, advantage: float) -> Experience:
    """What the companions would make of the token: ``old_logp`` of the recipe's proximal policy."""
    name = {"moving_average": "average", "sampling_version": "version"}.get(
        "" if recipe.proximal is None else recipe.proximal.part_name(), "update_start"
    )
    return Experience.from_lengths(
        [1], [1], [1],
        behavior_logp=torch.tensor([MU], dtype=torch.float64), old_logp=torch.tensor([OLD[name]], dtype=torch.float64),
        advantage=torch.tensor([advantage], dtype=torch.float64),
    )  # fmt: skip


def loss_and_slope(recipe: Recipe, x: Experience, logp: float = NOW) -> tuple[float, float]:
    said = torch.tensor([logp], dtype=torch.float64, requires_grad=True)
    loss = recipe.objective(PolicyOutput(said), x).loss
    loss.backward()
    return loss.item(), said.grad.item()


@pytest.mark.parametrize("advantage", [1.0, -1.0])
@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_of_the_table_worked_by_hand(name, advantage):
    recipe, discrepancy, staleness = VARIANTS[name]
    loss, slope = loss_and_slope(recipe, token(recipe, advantage))
    clipped = advantage > 0 and staleness > 1.2
    surrogate = discrepancy * min(staleness * advantage, min(max(staleness, 0.8), 1.2) * advantage)
    assert loss == pytest.approx(-surrogate, rel=1e-6)
    if staleness != pytest.approx(1.2):
        # The discrepancy is a weight; the gradient is by the staleness alone.
        assert slope == pytest.approx(0 if clipped else -discrepancy * staleness * advantage, rel=1e-6)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_two_factors_make_up_the_whole_ratio_unless_one_of_them_is_left_out(name):
    _, discrepancy, staleness = VARIANTS[name]
    whole = discrepancy * staleness
    assert (whole == pytest.approx(0.66 / 0.4, rel=1e-9)) == (name not in ("ppo clip", "ppo ewma"))


def test_in_a_batch_of_several_versions_the_factors_make_up_the_whole_ratio():
    """Without clip and band the loss is the mean of ``-pi / mu A``, whichever policy stands between."""
    wide = {"objective.gate": "unclipped", "objective.correction": TruncatedImportance(high=math.inf)}
    for proximal in ("average", "snapshots", "recorded", "update_start"):
        recipe = missing_old_logits(proximal).with_values(wide)
        x, out = _asynchronous(recipe)
        expected = -((out.logp - x.behavior_logp).exp() * x.advantage).mean()
        assert recipe.objective(out, x).loss.item() == pytest.approx(expected.item(), abs=1e-6)
        without = recipe.with_values({"objective.correction": None})
        assert abs(without.objective(out, x).loss.item() - expected.item()) > 1e-3


def _asynchronous(recipe: Recipe, **options: Any) -> tuple[Experience, PolicyOutput]:
    """The fourth batch of a run whose policy drifts, credited, and what the policy says of it after an update."""
    world = LabWorld(LabTask(GAMES["corridor"], staleness=2, partial=2, mismatch=0.2, **options), 0)
    recipe = recipe.with_values({"optimization.minibatches": 2})
    companions, source = Companions(world.policy, recipe), torch.Generator().manual_seed(0)
    for step in range(4):
        world.serve(step)
        companions.served(recipe, step)
        x = world.collect(recipe.sampler, step).x
        x = recipe.prepare(companions.complete(recipe, x))
        with torch.no_grad():
            for weights in world.policy.policy_parameters():
                weights.add_(0.2 * torch.randn(weights.shape, generator=source))
        companions.moved(recipe, {})
    with torch.no_grad():
        return x, world.policy(x, view=recipe.view)


def test_outside_the_band_of_discrepancy_a_token_is_removed_and_still_counted():
    recipe = missing_old_logits("snapshots", low=0.9, high=1.1)
    x = Experience.from_lengths(
        [2], [1], [1], behavior_logp=torch.tensor([-1.0, -1.0]), old_logp=torch.tensor([-1.05, -0.8]),
        advantage=torch.ones(2),
    )  # fmt: skip
    out = PolicyOutput(x.old_logp)
    assert recipe.objective(out, x).loss.item() == pytest.approx(-math.exp(-0.05) / 2)


def test_the_naive_old_policy_lets_the_wrong_gate_mask():
    """One engine, a policy that has moved by a factor of 2.5: the band removes what only the clip should judge."""
    x = token(missing_old_logits(), 1.0).replace(behavior_logp=torch.tensor([math.log(0.2)]))
    naive, exact = missing_old_logits("update_start"), missing_old_logits("snapshots")
    start = x.replace(old_logp=torch.tensor([math.log(0.5)]))
    version = x.replace(old_logp=torch.tensor([math.log(0.2)]))
    back = math.log(0.22)
    assert loss_and_slope(naive, start, back) == (0.0, 0.0)
    assert loss_and_slope(exact, version, back) == (pytest.approx(-1.1), pytest.approx(-1.1))


def test_its_difference_from_decoupled_ppo_is_the_policy_between_and_the_band():
    changes = {change.path for change in missing_old_logits("update_start").diff(decoupled_ppo())}
    assert changes == {
        "objective.aggregation",
        "objective.correction",
        "objective.correction.high",
        "objective.correction.numerator",
    }
    more = {change.path for change in missing_old_logits().diff(missing_old_logits("update_start"))}
    assert more == {"proximal", "proximal.window", "proximal.reset_below"}


def test_an_unknown_proximal_is_answered_with_the_nearest_one():
    with pytest.raises(InputError, match="did you mean 'snapshots'"):
        missing_old_logits("snapshot")
    with pytest.raises(InputError, match=r"masked_importance.low = 3.0: must be at most"):
        missing_old_logits(low=3.0)


@pytest.mark.parametrize("proximal", ["average", "snapshots", "recorded", "interpolated", "update_start"])
def test_every_variant_learns_from_stale_partial_rollouts_of_another_engine(proximal):
    task = LabTask(GAMES["graded"], staleness=2, partial=1, mismatch=0.1)
    recipe = missing_old_logits(proximal).with_values({"optimization.minibatches": 2})
    run = learn(recipe, task, 0, 15)
    assert run.last.expected_return > run.policies[0].expected_return + 0.2
    error = run.mean_metric("proximal_error")
    assert error < 1e-6 if proximal in ("snapshots", "recorded") else error > 0.01


# ---- the token-level loss against the exact gradient ----------------------------------------------------------------

GRADED, LENGTH = (Tree.enumerate(GAMES[name]) for name in ("graded", "length"))


def moved(exact: Exact, step: float, seed: int = 0) -> Exact:
    source = torch.Generator().manual_seed(seed)
    along = torch.randn(exact.logits.shape, generator=source, dtype=torch.float64)
    return Exact(exact.tree, exact.logits + step * along)


def test_three_small_deviations_worked_by_hand():
    d = 0.01
    assert (1 + d) ** 3 == pytest.approx(1.030301, abs=1e-12)
    assert (1 + d) ** 3 - (1 + 3 * d) == pytest.approx(3 * d**2 + d**3, abs=1e-15)


@pytest.mark.parametrize("tree", [GRADED, LENGTH], ids=["graded", "length"])
def test_where_the_policies_agree_the_token_level_gradient_is_that_of_the_expected_return(tree):
    policy = Exact(tree, tree.normal_logits(0))
    assert float((expected_update(TOKEN_LEVEL, policy, policy) - policy.gradient).abs().max()) < 1e-12


def test_the_token_level_gradient_errs_in_first_order():
    behavior = Exact(GRADED, GRADED.normal_logits(0))

    def gap(step: float) -> float:
        policy = moved(behavior, step)
        return float((expected_update(TOKEN_LEVEL, policy, behavior) - policy.gradient).norm())

    steps = [1e-1, 1e-2, 1e-3]
    slopes = [math.log10(gap(large) / gap(small)) for large, small in pairwise(steps)]
    assert slopes == [pytest.approx(1, abs=0.05)] * 2


def test_the_token_level_objective_errs_in_second_order():
    """Up to a constant: its derivative is right where the policies agree, so its own error is of second order."""
    behavior = Exact(GRADED, GRADED.normal_logits(0))
    chosen, returns = GRADED.chosen(behavior.logp), GRADED.leaves.returns.double()

    def gap(step: float) -> float:
        policy = moved(behavior, step)
        ratio = (GRADED.chosen(policy.logp) - chosen).exp()
        surrogate = behavior.expected(GRADED.leaves.trajectory_of_token.sum(ratio - 1) * returns)
        return abs(surrogate + behavior.expected_return - policy.expected_return)

    assert math.log10(gap(1e-2) / gap(1e-3)) == pytest.approx(2, abs=0.1)


def test_division_by_length_is_another_direction_even_where_the_policies_agree():
    policy = Exact(LENGTH, LENGTH.normal_logits(0))
    normalised = expected_update(TOKEN_LEVEL.replace(aggregation=SequenceMean()), policy, policy)
    cosine = float((normalised * policy.gradient).sum() / normalised.norm() / policy.gradient.norm())
    assert 0 < cosine < 0.995
    # Where all answers are equally long it is the same one.
    same = Exact(GRADED, GRADED.normal_logits(0))
    scaled = expected_update(TOKEN_LEVEL.replace(aggregation=SequenceMean()), same, same)
    torch.testing.assert_close(scaled / scaled.norm(), same.gradient / same.gradient.norm(), rtol=0, atol=1e-12)


# ---- MiniRL ---------------------------------------------------------------------------------------------------------


def minirl_slope(mu: float, old: float, now: float, advantage: float, recipe: Recipe | None = None) -> float:
    x = Experience.from_lengths(
        [1], [1], [1], advantage=torch.tensor([advantage]),
        behavior_logp=torch.tensor([math.log(mu)]), old_logp=torch.tensor([math.log(old)]),
    )  # fmt: skip
    logp = torch.tensor([math.log(now)], requires_grad=True)
    (minirl() if recipe is None else recipe).objective(PolicyOutput(logp), x).loss.backward()
    return logp.grad.item()


@pytest.mark.parametrize(
    ("mu", "old", "now", "advantage", "slope"),
    [
        (0.4, 0.5, 0.6, 2.0, -2 * 1.5),  # The weight holds both factors, 5/4 and 6/5.
        (0.4, 0.5, 0.64, 2.0, 0.0),  # The mask looks at 1.28 alone,
        (0.4, 0.5, 0.63, 2.0, -2 * 1.575),  # and lets 1.26 pass.
        (0.9, 0.5, 0.39, -1.0, 0.0),
        (0.9, 0.5, 0.41, -1.0, 0.41 / 0.9),
        (0.05, 0.5, 0.5, 1.0, -5.0),  # Ten is cut off at five.
    ],
)
def test_weight_and_mask_worked_by_hand(mu, old, now, advantage, slope):
    assert minirl_slope(mu, old, now, advantage) == pytest.approx(slope, rel=1e-5)


def test_its_numbers_are_arguments():
    recipe = minirl(low=0.1, high=0.5, cap=2.0, minibatches=4)
    assert minirl_slope(0.05, 0.5, 0.7, 1.0, recipe) == pytest.approx(-2.0)
    assert minirl_slope(0.5, 0.5, 0.44, -1.0, recipe) == 0.0
    assert recipe.optimization.minibatches == 4


def test_on_policy_it_is_reinforce_with_the_groups_mean_for_a_baseline():
    """Summed over tokens, whatever the length; groups that are all alike teach nothing."""
    x = Experience.from_lengths(
        [3, 1, 2, 2], [1] * 4, [2, 2], reward=[1.0, 0.0, 1.0, 1.0], behavior_logp=-torch.ones(8)
    )
    plain = PolicyGradient(gate=LogLikelihood(), aggregation=SequenceSum())
    found, expected = [], []
    for objective, into in ((minirl().objective, found), (plain, expected)):
        logp = torch.full((8,), -1.0, requires_grad=True)
        ready = minirl().prepare(x)
        objective(PolicyOutput(logp), ready).loss.backward()
        into += logp.grad.tolist()
    assert found == pytest.approx(expected)
    assert found == pytest.approx([-0.125] * 3 + [0.125] + [0.0] * 4)


def test_without_the_probabilities_of_the_sampler_it_refuses():
    x = Experience.from_lengths([1, 1], [1, 1], [2], reward=[1.0, 0.0])
    with pytest.raises(ValueError, match="minirl reads behavior_logp"):
        minirl().prepare(x)


def test_its_weight_on_a_long_answer_is_taken_token_by_token():
    """A product over 2000 tokens of ratio 1.01 would be 4e8."""
    x = Experience.from_lengths([2000], [1], [1], behavior_logp=torch.full((2000,), -1.0), advantage=torch.ones(2000))
    weight = minirl().objective.correction(PolicyOutput(torch.full((2000,), -1 + math.log(1.01))), x)
    assert weight.tolist() == pytest.approx([1.01] * 2000)


# ---- routing replay -------------------------------------------------------------------------------------------------


def completed(recipe: Recipe, **options: Any) -> tuple[LabWorld, Experience]:
    """A first batch of a mixture of experts, as the trainer completes it before the first mini-batch."""
    world = LabWorld(LabTask(GAMES["corridor"], experts=4, **options), 0)
    companions = Companions(world.policy, recipe)
    world.serve(0)
    companions.served(recipe, 0)
    return world, companions.complete(recipe, world.collect(recipe.sampler, 0).x)


def said(world: LabWorld, x: Experience, recipe: Recipe) -> Tensor:
    with torch.no_grad():
        return world.policy(x, view=recipe.view).logp


def test_the_first_mini_batch_sees_the_policy_itself_when_its_own_experts_are_replayed():
    recipe = minirl(replay="training", minibatches=2)
    world, x = completed(recipe, mismatch=0.3)
    assert torch.equal(x.experts, world.policy.routes()[x.inputs.node])
    assert torch.equal(said(world, x, recipe), x.old_logp)
    assert torch.equal(x.old_logp, world.policy(x).logp.detach())


def test_and_another_policy_when_those_of_a_mismatched_engine_are():
    recipe = minirl(replay="rollout", minibatches=2)
    world, x = completed(recipe, mismatch=0.3)
    own = world.policy.routes()[x.inputs.node]
    differ = (x.experts.sort(-1).values != own.sort(-1).values).any(1)
    assert 0.05 < float(differ.float().mean()) < 0.9
    free = said(world, x, recipe.with_values({"view": None}))
    assert torch.equal(said(world, x, recipe), x.old_logp)
    torch.testing.assert_close(x.old_logp[~differ], free[~differ])
    assert float((x.old_logp - free)[differ].abs().min()) > 1e-6
    same_world, same = completed(recipe)
    torch.testing.assert_close(same.old_logp, said(same_world, same, recipe.with_values({"view": None})))


def test_replay_brings_the_engines_nearer_to_each_other():
    distance = {}
    for replay in ("training", "rollout"):
        _, x = completed(minirl(replay=replay, minibatches=2), mismatch=0.3)
        distance[replay] = float((x.old_logp - x.behavior_logp).abs().mean())
    assert distance["rollout"] < 0.9 * distance["training"]


def test_after_an_update_replay_keeps_the_experts_of_before():
    recipe = minirl(replay="training", minibatches=2)
    world, x = completed(recipe)
    with torch.no_grad():
        world.policy.router.add_(torch.randn(world.policy.router.shape, generator=torch.Generator().manual_seed(0)))
    replayed = world.policy(x, view=recipe.view, also=("experts",)).experts
    assert torch.equal(replayed, x.experts)
    assert not torch.equal(world.policy(x, also=("experts",)).experts, x.experts)


@pytest.mark.parametrize("replay", ["training", "rollout"])
def test_runs_with_replay_say_how_much_was_recorded_and_dense_policies_do_not_mind(tmp_path, replay):
    tables, unrecorded = [], {}
    for name, task, chosen in (
        ("experts", LabTask(GAMES["graded"], mismatch=0.2, experts=3), replay),
        ("dense", LabTask(GAMES["graded"], mismatch=0.2), replay),
        ("plain", LabTask(GAMES["graded"], mismatch=0.2), None),
    ):
        world = LabWorld(task, 0)
        recipe = world.adapt(minirl(replay=chosen, minibatches=2))
        run = Trainer(recipe, world, RunDirectory.create(tmp_path / name), Settings(3, 0, evaluation_episodes=0))
        unrecorded[name] = [run.step().get("routing/unrecorded") for _ in range(3)]
        tables.append(world.policy.table())
    assert unrecorded == {"experts": [0.0] * 3, "dense": [1.0] * 3, "plain": [None] * 3}
    assert torch.equal(tables[1], tables[2])
