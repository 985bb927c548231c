"""Verdicts: the innocent are acquitted, the guilty convicted, and a mere change of length is told from both."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from functools import cache

import pytest
import torch
from torch import Tensor

from stratagem import recipes
from stratagem.advantages import Constant, LeaveOneOut
from stratagem.catalogue import card
from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.lab import GAMES, Diagnosis, TokenGame, diagnose, over
from stratagem.lab.diagnosis import objection, zero_mean_p_value
from stratagem.objectives import LogLikelihood, PolicyGradient, SequenceSum
from stratagem.partition import Partition
from stratagem.parts import Advantage, Gate
from stratagem.recipe import Recipe
from stratagem.sampling import Rollouts
from stratagem.seeding import generator

FEW = 16_384


def policy_gradient(name: str, advantage: Advantage, gate: Gate | None = None) -> Recipe:
    gate = LogLikelihood() if gate is None else gate
    return Recipe(name, Rollouts(), advantage, PolicyGradient(gate=gate, aggregation=SequenceSum()))


@cache
def of(name: str, game: str) -> Diagnosis:
    return diagnose(card(name).recipe(), game, groups=FEW)


@pytest.mark.parametrize("game", GAMES)
@pytest.mark.parametrize("name", ["reinforce", "rloo"])
def test_unbiased_estimators_are_acquitted(name, game):
    found = of(name, game)
    assert found.verdict == "not shown biased"
    assert found.gain == pytest.approx(found.exact_gain, rel=0.02)


@pytest.mark.parametrize("game", GAMES)
def test_dr_grpo_is_the_gradient_times_a_known_factor(game):
    """Its own reward is in the baseline of each of eight, and it divides by 1024 tokens."""
    found = of("dr_grpo", game)
    assert found.verdict == "rescaled"
    # Of eight 95 % intervals one may miss; twice as wide none does.
    assert abs(found.scale.value - 7 / 8 / 1024) <= found.scale.high - found.scale.low
    assert found.bias.value == pytest.approx(1 - 7 / 8 / 1024, abs=1e-4)


@pytest.mark.parametrize("game", ["graded", "length", "corridor", "stopping"])
def test_grpo_is_biased_where_lengths_or_grades_differ(game):
    found = of("grpo", game)
    assert found.verdict == "biased" and found.direction.low > 0.03 and found.cosine.high < 0.999
    assert found.gain < found.exact_gain


@pytest.mark.parametrize("game", ["four_by_four", "windy"])
def test_of_one_start_and_one_length_with_two_rewards_grpo_only_rescales(game):
    assert of("grpo", game).verdict == "rescaled"


@pytest.mark.parametrize("game", ["four_by_four", "graded", "prompts", "windy"])
def test_ppo_with_exact_values_points_along_the_gradient_where_lengths_are_fixed(game):
    found = of("ppo", game)
    assert found.verdict == "rescaled" and found.cosine.value > 0.999


# ---- the turn-wise baseline -----------------------------------------------------------------------------------------


def _by_turn(x: Experience) -> tuple[Tensor, Partition]:
    """Reward still to come of every turn, and turns by group and place in their trajectory."""
    return x.discounted_returns(), Partition.by(x.trajectory_of_turn.position(), within=x.group_of_turn)


@dataclass(frozen=True)
class _AliveBaseline(Advantage):
    """``G_iu - mean_{j alive at u} G_ju``: the mean's number of terms depends on where the policy stops."""

    def __call__(self, x: Experience) -> Tensor:
        to_come, turn = _by_turn(x)
        return x.to_tokens(turn=turn.center(to_come))


@dataclass(frozen=True)
class _OthersBaseline(Advantage):
    """``G_iu - sum_{j != i} G_ju / (K - 1)``, with 0 for those that have stopped."""

    def __call__(self, x: Experience) -> Tensor:
        to_come, turn = _by_turn(x)
        others = x.group_of_turn.spread(x.group_of_trajectory.size()) - 1
        return x.to_tokens(turn=to_come - (turn.spread(turn.sum(to_come)) - to_come) / others)


def test_a_baseline_over_those_still_alive_is_convicted_and_one_over_all_others_acquitted():
    alive = diagnose(policy_gradient("alive", _AliveBaseline()), "stopping", groups=FEW)
    assert alive.verdict == "biased" and alive.direction.low > 0.02
    others = diagnose(policy_gradient("others", _OthersBaseline()), "stopping", groups=FEW)
    assert others.verdict == "not shown biased" and others.bias.low < 0.01


# ---- off policy -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _WholeWeight(Gate):
    """``sg(prod_t rho_t) A log pi``: the importance weight of the whole trajectory, which leaves no bias."""

    def __call__(self, ratio: Tensor, advantage: Tensor, out: PolicyOutput, x: Experience) -> Tensor:
        whole = x.trajectory_of_token
        weight = whole.spread(whole.sum(out.logp.detach() - x.behavior_logp)).exp()
        return weight * advantage * out.logp


def test_what_ignores_that_the_policy_moved_is_convicted_and_the_full_weight_acquitted():
    on_policy = of("rloo", "windy")
    ignorant = diagnose(card("rloo").recipe(), "windy", groups=FEW, drift=0.5)
    weighted = diagnose(policy_gradient("weighted", LeaveOneOut(), _WholeWeight()), "windy", groups=FEW, drift=0.5)
    assert ignorant.expected_return == weighted.expected_return != on_policy.expected_return
    assert ignorant.verdict == "biased"
    assert weighted.verdict == "not shown biased"


# ---- calibration ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spectrum", [[1.0], [1.0] * 50, [1.0] + [0.1] * 90, [2.0**-k for k in range(20)]])
def test_p_values_of_true_zeros_are_uniform_whatever_the_covariance(spectrum):
    """Of 200, 10 are expected below 0.05; more than 22 come once in ten thousand."""
    draws = (
        torch.randn(200, 32, len(spectrum), dtype=torch.float64, generator=generator(0)) * torch.tensor(spectrum).sqrt()
    )
    values = torch.tensor([zero_mean_p_value(rows, 0.0, seed) for seed, rows in enumerate(draws)])
    assert int((values < 0.05).sum()) <= 22 and int((values < 0.5).sum()) >= 70
    shifted = zero_mean_p_value(draws[0] + 10 * torch.tensor(spectrum).sqrt(), 0.0, 0)
    assert shifted < 0.001


def test_an_innocent_is_acquitted_with_every_seed_and_intervals_hold_the_truth():
    """20 seeds: one p-value below 0.05 is expected, and more than 5 come three times in ten thousand; so do misses."""
    found = [diagnose(card("rloo").recipe(), "stopping", groups=2048, seed=seed) for seed in range(20)]
    moved = [diagnosis for diagnosis in found if diagnosis.verdict != "no update shown"]
    assert len(moved) >= 15 and all(diagnosis.verdict == "not shown biased" for diagnosis in moved)
    assert sum(diagnosis.bias_p < 0.05 for diagnosis in found) <= 5
    assert sum(not diagnosis.scale.low <= 1 <= diagnosis.scale.high for diagnosis in found) <= 5
    assert sum(diagnosis.bias.low > 0 for diagnosis in found) <= 5


def test_reinforce_is_as_noisy_as_the_formula_says():
    for game in ("prompts", "windy", "stopping"):
        found = diagnose(card("reinforce").recipe(), game, groups=FEW, seed=1)
        assert found.noise.value == pytest.approx(1, abs=0.25)


# ---- what is said ---------------------------------------------------------------------------------------------------


def test_no_update_is_called_no_update():
    found = diagnose(policy_gradient("constant", Constant()), "graded", groups=FEW)
    assert found.verdict == "no update shown"
    assert found.direction is found.cosine is found.noise is found.gain is None
    assert found.bias.value == pytest.approx(1, abs=0.2)


def test_an_update_without_noise_is_judged_up_to_rounding():
    """Right answers of ``rare`` are all the same, so that to imitate them is the gradient over the success."""
    found = diagnose(card("rejection_sft").recipe(), "rare", groups=FEW)
    assert found.verdict == "rescaled" and found.direction.value < 1e-4
    token_mean = 4
    assert found.scale.value == pytest.approx(1 / found.expected_return / token_mean, rel=1e-4)


def test_equal_seeds_give_equal_diagnoses_and_json_takes_them():
    plain = [dataclasses.asdict(diagnose(card("ppo").recipe(), "graded", groups=256, seed=3)) for _ in range(2)]
    for found in plain:
        assert found.pop("groups_per_second") > 0
    assert plain[0] == plain[1]
    json.dumps(plain, allow_nan=False)


def test_a_temperature_divides_the_logits():
    hot = card("rloo").recipe().with_values({"sampler.temperature": 2.0})
    logits = torch.randn(13, 3, generator=generator(0))
    cool = diagnose(card("rloo").recipe(), "graded", groups=256, logits=logits / 2)
    assert diagnose(hot, "graded", groups=256, logits=logits).expected_return == cool.expected_return


@pytest.mark.parametrize(
    ("recipe", "game", "options", "problem"),
    [
        ("sft", "graded", {}, "recipe sft: the lab cannot judge it: sampler demonstrations"),
        ("rloo", "gradde", {}, "did you mean 'graded'"),
        ("rloo", "graded", {"groups": 0}, "at least 1"),
        ("rloo", "graded", {"drift": -1.0}, "drift"),
        ("rloo", "graded", {"stale_steps": -1}, "stale_steps"),
        ("rloo", "graded", {"logits": torch.zeros(2, 2)}, r"shape \(13, 3\)"),
        ("rloo", TokenGame("flat", "", 2, ((1.0, 0),), lambda state, tokens: over(1.0)), {}, "gradient is zero"),
    ],
)
def test_what_cannot_be_judged_is_said_in_one_line(recipe, game, options, problem):
    with pytest.raises(InputError, match=problem) as caught:
        diagnose(card(recipe).recipe(), game, **options)
    assert "\n" not in str(caught.value)


def test_a_recipe_that_reads_what_a_tree_lacks_is_refused():
    @dataclass(frozen=True)
    class _Difficult(Constant):
        requires = frozenset({"final_value"})

    with pytest.raises(InputError, match="reads final_value"):
        diagnose(policy_gradient("difficult", _Difficult()), "graded", groups=1)


def test_stale_steps_move_the_policy_along_the_gradient_and_away_from_the_batch():
    fresh = diagnose(card("grpo").recipe(), "four_by_four", groups=FEW)
    stale = diagnose(card("grpo").recipe(), "four_by_four", groups=FEW, stale_steps=8)
    assert (fresh.stale_steps, stale.stale_steps) == (0, 8)
    assert stale.expected_return > fresh.expected_return
    unclipped = card("grpo").recipe().with_values({"objective.gate": "unclipped"})
    assert diagnose(unclipped, "four_by_four", groups=FEW, stale_steps=8).cosine.value > stale.cosine.value


def test_whether_a_recipe_can_be_judged_is_known_after_one_small_batch():
    assert objection(recipes.grpo()) is None
    refused = objection(recipes.gigpo().replace(optimization=recipes.gigpo().optimization.replace(shuffle="turns")))
    assert refused == "it learns from single turns"
