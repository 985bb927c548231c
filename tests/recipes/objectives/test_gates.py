"""DISPO, LUSPO, Lite PPO and P3O through their recipes: numbers worked by hand and identities."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from stratagem import recipes
from stratagem.advantages import ClippedAdvantage, NormalizedReturn
from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.objectives import GeometricMeanRatio, SequenceSum
from stratagem.recipe import Recipe
from stratagem.sampling import Masked, Untruncated


def gradient(recipe: Recipe, x: Experience, logp: Tensor) -> Tensor:
    """Of the loss by every log-probability."""
    logp = logp.detach().clone().requires_grad_()
    return torch.autograd.grad(recipe.objective(PolicyOutput(logp), x).loss, logp)[0]


def loss(recipe: Recipe, x: Experience, logp: Tensor) -> float:
    return recipe.objective(PolicyOutput(logp), x).loss.item()


def answers(lengths: list[int], advantage: list[float], **fields) -> Experience:
    """One group of answers of these lengths with these advantages, at an old log-probability of -1 for each token."""
    tokens = sum(lengths)
    x = Experience.from_lengths(lengths, [1] * len(lengths), [len(lengths)], old_logp=-torch.ones(tokens), **fields)
    return x.replace(advantage=x.to_tokens(trajectory=torch.tensor(advantage)))


# ---- dispo ----------------------------------------------------------------------------------------------------------

RATIOS = torch.tensor([0.5, 1.0, 20.0, 200.0, 0.001])
RIGHT = [0.8, 1.0, 11.0, 11.0, 0.8]
WRONG = [0.5, 1.0, 20.0, 101.0, 0.001]


@pytest.mark.parametrize(("advantage", "weights"), [(1.0, RIGHT), (-1.0, WRONG)])
def test_dispos_gradient_is_the_clipped_weight_however_far_the_token_went(advantage, weights):
    x = answers([5], [advantage])
    expected = [-weight * advantage / 5 for weight in weights]
    assert gradient(recipes.dispo(), x, RATIOS.log() - 1).tolist() == pytest.approx(expected, rel=1e-5)
    # PPO's clip leaves the tokens that went far in the advantage's direction without any.
    clipped = gradient(recipes.dapo(), x, RATIOS.log() - 1)
    assert (clipped[2:4].abs().max() == 0) == (advantage > 0)
    assert (clipped[4] == 0) == (advantage < 0)


def test_dispo_with_equal_bounds_is_cispo_to_the_last_bit():
    x = answers([3, 2], [1.0, -1.0])
    logp = RATIOS.log() - 1
    mine, theirs = recipes.dispo(1.0, 4.0, 1.0, 4.0), recipes.cispo(high=4.0)
    assert loss(mine, x, logp) == loss(theirs, x, logp)
    assert torch.equal(gradient(mine, x, logp), gradient(theirs, x, logp))


@pytest.mark.parametrize("bounds", [(0.2, 10.0, 1.0, 100.0), (0.0, 0.0, 0.0, 0.0), (1.0, 1.0, 0.5, 3.0)])
def test_on_policy_dispo_is_reinforce_with_the_token_mean_whatever_its_bounds(bounds):
    x = answers([3, 2], [1.0, -2.0])
    for where in (x, x.replace(old_logp=None)):
        assert torch.equal(gradient(recipes.dispo(*bounds), where, -torch.ones(5)), -x.advantage / 5)


def test_dispos_weight_is_no_part_of_its_slope():
    x, logp, step = answers([1], [1.0]), torch.tensor([-0.7]), 1e-3

    def slope(frozen: bool) -> float:
        def surrogate(at: float) -> float:
            weight = math.exp(-0.7 + 1) if frozen else math.exp(at + 1)
            return -weight * at

        return (surrogate(-0.7 + step) - surrogate(-0.7 - step)) / (2 * step)

    actual = gradient(recipes.dispo(), x, logp).item()
    assert actual == pytest.approx(slope(frozen=True), rel=1e-5)
    assert actual != pytest.approx(slope(frozen=False), rel=0.1)


def test_dispo_counts_apart_how_many_right_and_wrong_weights_it_clips():
    x = answers([3, 2], [1.0, -1.0])
    out = PolicyOutput(torch.tensor([0.5, 1.0, 20.0, 200.0, 0.001]).log() - 1)
    metrics = recipes.dispo().objective(out, x).metrics
    assert metrics["clip_fraction"].item() == pytest.approx(3 / 5)
    assert metrics["clip_fraction_positive"].item() == pytest.approx(2 / 5)


# ---- luspo ----------------------------------------------------------------------------------------------------------


def test_luspo_multiplies_an_answers_surrogate_by_its_length():
    x = answers([2, 4], [1.0, -1.0])
    assert loss(recipes.gspo(), x, -torch.ones(6)) == pytest.approx(0)
    assert loss(recipes.luspo(), x, -torch.ones(6)) == pytest.approx(1)


def test_luspo_moves_every_token_of_answers_of_any_length_alike():
    x = answers([1, 7, 100], [1.0, -0.5, 2.0])
    logp = -torch.ones(108)
    torch.testing.assert_close(gradient(recipes.luspo(), x, logp), -x.advantage / 3)
    by_length = x.to_tokens(trajectory=torch.tensor([1.0, 7.0, 100.0]))
    torch.testing.assert_close(gradient(recipes.gspo(), x, logp), -x.advantage / 3 / by_length)


@pytest.mark.parametrize("drift", [0.001, 0.1, -0.1])
def test_among_answers_of_one_length_luspo_is_gspo_times_it(drift):
    x = answers([5, 5], [1.0, -1.0])
    logp = -1 + drift * torch.arange(10.0)
    mine, theirs = recipes.luspo(), recipes.gspo(2e-3, 2.5e-3)
    assert loss(mine, x, logp) == pytest.approx(5 * loss(theirs, x, logp), abs=1e-5)
    torch.testing.assert_close(gradient(mine, x, logp), 5 * gradient(theirs, x, logp))


@pytest.mark.parametrize(("advantage", "term", "slope"), [(1.0, -3 * 1.0025, 0.0), (-1.0, 3 * 1.003, 1.003)])
def test_luspo_clips_whole_answers(advantage, term, slope):
    x = answers([3], [advantage])
    logp = -1 + math.log(1.003) * torch.tensor([0.0, 1.0, 2.0])
    assert loss(recipes.luspo(), x, logp) == pytest.approx(term)
    assert gradient(recipes.luspo(), x, logp).tolist() == pytest.approx([slope] * 3, rel=1e-5)


def test_tokens_of_one_answer_never_get_different_weights_as_they_would_with_a_ratio_for_each():
    x, logp = answers([4], [1.0]), torch.tensor([-0.9, -1.1, -1.3, -0.8])
    luspo = recipes.luspo(0.5, 0.5)
    mean_ratio = math.exp((0.1 - 0.1 - 0.3 + 0.2) / 4)
    assert gradient(luspo, x, logp).tolist() == pytest.approx([-mean_ratio] * 4)
    by_token = gradient(luspo.with_values({"objective.ratio": "token_ratio"}), x, logp)
    assert by_token.tolist() == pytest.approx([-math.exp(log_ratio) for log_ratio in (0.1, -0.1, -0.3, 0.2)])


def test_masked_tokens_and_answers_without_any_add_nothing_to_luspo():
    x = answers([2, 4], [1.0, -1.0])
    logp = torch.tensor([-1.0, -0.999, -1.0, -1.001, -1.0, -1.0])
    padded = answers([4, 4, 2], [1.0, -1.0, 3.0], mask=[True, True, False, False] + [True] * 4 + [False] * 2)
    nan = torch.tensor([math.nan, -math.inf])
    longer = torch.cat([logp[:2], nan, logp[2:], nan])
    recipe = recipes.luspo()
    assert loss(recipe, padded, longer) == pytest.approx(loss(recipe, x, logp), abs=1e-6)
    torch.testing.assert_close(gradient(recipe, padded, longer)[padded.mask], gradient(recipe, x, logp))


def test_on_policy_luspo_is_a_multiple_of_the_token_mean():
    x = answers([2, 4, 3], [1.0, -1.0, 0.5])
    token_mean = recipes.luspo().with_values({"objective.aggregation": "token_mean"})
    luspo, dapo = gradient(recipes.luspo(), x, -torch.ones(9)), gradient(recipes.dapo(), x, -torch.ones(9))
    torch.testing.assert_close(luspo, 9 / 3 * dapo)
    # Divided by the mean length it is that very mean.
    torch.testing.assert_close(gradient(token_mean, x, -torch.ones(9)), dapo)


@pytest.mark.parametrize(
    ("name", "falls_with_length"),
    [("grpo", True), ("gspo", True), ("luspo", False), ("dapo", False), ("dr_grpo", False), ("lite_ppo", False)],
)
def test_the_weight_of_a_token_as_a_function_of_the_length_of_its_answer(name, falls_with_length):
    lengths = [1, 2, 5, 30]
    x = answers(lengths, [1.0] * 4)
    weight = -gradient(getattr(recipes, name)(), x, -torch.ones(38))[x.trajectory_of_token.first()]
    expected = [1 / length if falls_with_length else 1.0 for length in lengths]
    assert (weight / weight[0]).tolist() == pytest.approx(expected)


# ---- lite_ppo -------------------------------------------------------------------------------------------------------


def test_lite_ppo_centers_by_group_divides_by_the_batch_and_averages_over_tokens():
    x = Experience.from_lengths([1] * 7 + [3], [1] * 8, [4, 4], reward=[1.0, 0, 0, 0, 1, 1, 1, 0])
    ready = recipes.lite_ppo().prepare(x)
    credit = [1.403122] + [-0.467707] * 3 + [0.467707] * 3 + [-1.403122] * 3
    assert ready.advantage.tolist() == pytest.approx(credit, abs=1e-5)
    slopes = gradient(recipes.lite_ppo(), ready, -torch.ones(10))
    assert slopes.tolist() == pytest.approx([-a / 10 for a in credit], abs=1e-6)


def test_on_policy_lite_ppo_is_reinforce_with_the_groups_mean_up_to_one_scale():
    x = Experience.from_lengths([2, 3, 1, 4], [1] * 4, [2, 2], reward=[1.0, 0.0, 3.0, 4.0])
    lite, plain = recipes.lite_ppo(), recipes.dr_grpo().with_values({"objective.aggregation": "token_mean"})
    mine, theirs = [gradient(recipe, recipe.prepare(x), -torch.ones(10)) for recipe in (lite, plain)]
    torch.testing.assert_close(mine, theirs / x.returns.std(), rtol=1e-4, atol=1e-7)


def test_token_mean_and_sequence_mean_of_a_short_and_a_long_answer():
    x = answers([1, 3], [1.0, 0.0])
    logp = -torch.ones(4)
    by_answer = recipes.lite_ppo().with_values({"objective.aggregation": "sequence_mean"})
    assert -loss(recipes.lite_ppo(), x, logp) == pytest.approx(0.25)
    assert -loss(by_answer, x, logp) == pytest.approx(0.5)


def test_pieces_have_the_advantage_of_the_whole_batch():
    x = Experience.from_lengths([1] * 8, [1] * 8, [4, 4], reward=[1.0, 0, 0, 0, 1, 1, 1, 0])
    ready = recipes.lite_ppo().prepare(x)
    pieces = [ready.microbatch(torch.arange(4)), ready.microbatch(torch.arange(4, 8))]
    assert torch.equal(torch.cat([piece.advantage for piece in pieces]), ready.advantage)
    logp = -1 + torch.linspace(-0.5, 0.5, 8)
    ready = ready.replace(old_logp=-torch.ones(8))
    pieces = [ready.microbatch(torch.arange(4)), ready.microbatch(torch.arange(4, 8))]
    cut = [loss(recipes.lite_ppo(), piece, piece.piece_of(logp)) for piece in pieces]
    assert sum(cut) == pytest.approx(loss(recipes.lite_ppo(), ready, logp))


def test_overlong_filtering_takes_cut_answers_from_the_loss_and_its_normaliser_but_not_from_the_statistics():
    # One of four is right and one of the wrong ones was cut after six tokens.
    fields = {"reward": [1.0, 0, 0, 0], "truncated": [False, False, False, True], "old_logp": -torch.ones(9)}
    x = Experience.from_lengths([1, 1, 1, 6], [1] * 4, [4], **fields)
    masking = recipes.lite_ppo().with_values({"selections": [{"part": "masked", "of": "untruncated"}]})
    assert masking.selections == (Masked(Untruncated()),)
    ready = masking.prepare(x)
    # Mean 1/4 and sample deviation 1/2, as if nothing had been cut; three tokens share the loss.
    assert ready.advantage[:3].tolist() == pytest.approx([1.5, -0.5, -0.5], abs=1e-5)
    slopes = gradient(masking, ready, -torch.ones(9)).tolist()
    assert slopes == pytest.approx([-0.5, 1 / 6, 1 / 6] + [0.0] * 6, abs=1e-5)
    without = masking.replace(selections=(Untruncated(),)).prepare(x)
    # Mean 1/3 and sample deviation sqrt(1/3) of the three that are left.
    root = math.sqrt(3)
    assert without.advantage.tolist() == pytest.approx([2 / root, -1 / root, -1 / root], abs=1e-5)


def test_every_trick_of_the_paper_is_a_value_of_the_recipe():
    clipped = ClippedAdvantage(NormalizedReturn(), 2.0)
    for values in (
        {"advantage.scale": "group"},
        {"advantage.scale": None},
        {"advantage.center": "batch"},
        {"advantage.spread_of": "centered"},
        {"advantage": clipped},
        {"objective.gate.high": 0.28},
        {"objective.gate.dual": 3.0},
        {"objective.aggregation": "sequence_mean"},
        {"selections": (Masked(Untruncated()),)},
    ):
        changed = recipes.lite_ppo().with_values(values)
        assert changed != recipes.lite_ppo()
        assert Recipe.from_yaml(changed.to_yaml()) == changed


# ---- p3o ------------------------------------------------------------------------------------------------------------


def pairs(returns: list[float], groups: list[int] | None = None, **fields) -> Experience:
    """Answers of two tokens; by default one group of them."""
    count = len(returns)
    sizes = [count] if groups is None else groups
    return Experience.from_lengths(
        [2] * count, [1] * count, sizes, reward=torch.tensor(returns, dtype=torch.float64), **fields
    )


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("sizes", [[2, 2, 2], [3, 3], [6]])
def test_on_policy_both_versions_of_p3o_are_rloo(joint, sizes):
    x = pairs([1.0, 0.0, -2.0, 0.5, 3.0, 0.25], sizes)
    logp = -torch.ones(12, dtype=torch.float64)
    mine, rloo = recipes.p3o(joint=joint), recipes.rloo()
    found, expected = [gradient(recipe, recipe.prepare(x), logp) for recipe in (mine, rloo)]
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("joint", [False, True])
def test_p3o_sees_no_reward_that_all_answers_to_a_prompt_get_and_ppo_does(joint):
    generator = torch.Generator().manual_seed(0)
    sizes = [2] * 8
    old = -torch.rand(32, generator=generator, dtype=torch.float64)
    x = pairs(torch.randn(16, generator=generator).tolist(), sizes, old_logp=old, value=torch.zeros(32))
    logp = old + 0.2 * torch.randn(32, generator=generator, dtype=torch.float64)
    offsets = 1e3 * torch.randn(8, generator=generator, dtype=torch.float64)
    shifted = x.replace(reward=x.reward + x.group_of_trajectory.spread(offsets).unsqueeze(1))
    recipe = recipes.p3o(joint=joint)
    mine = [gradient(recipe, recipe.prepare(variant), logp) for variant in (x, shifted)]
    assert mine[0].abs().max() > 1e-3
    assert (mine[0] - mine[1]).abs().max() < 1e-9
    ppo = recipes.ppo().with_values({"objective.critic": None})
    theirs = [gradient(ppo, ppo.prepare(variant), logp) for variant in (x, shifted)]
    assert (theirs[0] - theirs[1]).norm() > 0.1 * theirs[0].norm()


def test_p3o_takes_the_kl_of_an_answer_from_its_reward():
    recipe = recipes.p3o(kl_coefficient=0.5)
    behavior, ref = -torch.ones(4), torch.tensor([-1.2, -1.0, -0.9, -0.9])
    ready = recipe.prepare(pairs([1.0, 0.0], behavior_logp=behavior, ref_logp=ref))
    # log(pi / ref) is 0.2 and -0.2: rewards 0.9 and 0.1.
    assert ready.advantage.tolist() == pytest.approx([0.8, 0.8, -0.8, -0.8])
    assert "ref_logp" not in recipes.p3o().needs()


def test_p3o_steps_over_whole_groups_of_at_least_two():
    assert recipes.p3o().optimization.shuffle == "groups"
    with pytest.raises(InputError, match=r"group_size = 1: advantage leave_one_out compares within a group"):
        recipes.p3o(group_size=1)
    with pytest.raises(InputError, match=r"recipe p3o: optimization\.shuffle = trajectories: must be groups"):
        recipes.p3o().with_values({"optimization.shuffle": "trajectories"})
    with pytest.raises(InputError, match=r"recipe grpo: optimization\.shuffle = trajectories: must be groups"):
        recipes.grpo().with_values({"objective.gate": "pairwise_clip"})


def test_p3o_may_have_a_ratio_for_each_token():
    by_token = recipes.p3o().with_values({"objective.ratio": "token_ratio", "objective.aggregation": "sequence_sum"})
    x = pairs([1.0, 0.0], old_logp=torch.zeros(4, dtype=torch.float64))
    logp = torch.tensor([1.5, 0.9, 1.0, 1.0], dtype=torch.float64).log()
    # The first token is clipped; the partner's ratio is 1, and the first's, for the other, 1.35.
    found = gradient(by_token, by_token.prepare(x), logp)
    assert found.tolist() == pytest.approx([0.0, -0.45, 0.675, 0.675])
    with pytest.raises(InputError, match="pairwise_joint_clip with ratio token_ratio: compares whole answers"):
        recipes.p3o(joint=True).with_values({"objective.ratio": "token_ratio"})


def test_luspos_parts_are_those_of_others():
    objective = recipes.luspo().objective
    assert (objective.ratio, objective.aggregation) == (GeometricMeanRatio(), SequenceSum())
