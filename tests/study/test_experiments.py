"""What claims are measured with: runs in the lab, and figures of them worked by hand."""

from __future__ import annotations

import pytest
import torch

from stratagem.lab import Exact, Tree, find_game
from stratagem.lab.world import LabTask
from stratagem.objectives import LogLikelihood, PolicyGradient, ProductRatio, SequenceSum, Unclipped
from stratagem.recipes import baselines
from stratagem.seeding import derive
from stratagem.study.experiments import (
    Run,
    Runs,
    batches_until,
    expected_update,
    learn,
    learn_all,
    noise_ratio,
    score,
    sine,
    wrong_length,
)

FOUR = Tree.enumerate(find_game("four_by_four"))
LENGTH = Tree.enumerate(find_game("length"))


def leaning(share: float) -> Exact:
    """A policy of ``four_by_four`` that puts every token where it belongs with this probability."""
    logits = torch.full((FOUR.nodes, 4), (1 - share) / 3).double()
    place = FOUR.leaves.trajectory_of_token.position()
    logits[FOUR.node, place] = share
    return Exact(FOUR, logits.log())


def run_of(*shares: float) -> Run:
    return Run([leaning(share) for share in shares], [])


def at_least_two_of_four(share: float) -> float:
    return 1 - (1 - share) ** 4 - 4 * share * (1 - share) ** 3


def test_a_wrong_answer_of_uniform_bits_is_as_long_as_counting_says():
    # Ending after n < 4 bits has probability (2/3)^n / 3, and half of such answers are even for n > 0, all for n = 0;
    # an answer of four bits and a token to end is wrong when even, one of five bits is cut off and always wrong.
    short = [(1 / 3, 1)] + [((2 / 3) ** n / 3 / 2, n + 1) for n in (1, 2, 3, 4)]
    cut = ((2 / 3) ** 5, 5)
    expected = sum(p * tokens for p, tokens in [*short, cut]) / sum(p for p, _ in [*short, cut])
    assert wrong_length(Exact(LENGTH, torch.zeros(LENGTH.nodes, 3))) == pytest.approx(expected)


def test_the_score_is_the_share_of_the_way_to_the_best_return():
    first, last = at_least_two_of_four(0.25), at_least_two_of_four(0.5)
    assert score(run_of(0.25, 0.9, 0.5)) == pytest.approx((last - first) / (1 - first))


def test_batches_are_counted_between_evaluations_and_to_the_end_when_the_level_is_never_reached():
    halfway = (at_least_two_of_four(0.25) + at_least_two_of_four(0.5)) / 2
    assert batches_until(run_of(0.25, 0.5, 0.9), halfway) == pytest.approx(0.5)
    assert batches_until(run_of(0.25, 0.5, 0.9), 1.0) == 2


def test_a_metric_is_averaged_over_the_batches_that_have_it_and_every_run_counts_the_same():
    runs = Runs([Run([], [{"a": 1.0}, {}, {"a": 3.0}]), Run([], [{"a": 6.0}])])
    assert runs.mean_metric("a") == 4


def test_a_run_begins_where_another_ended_and_repeats_with_its_seed():
    task = LabTask(find_game("prompts"))
    first = learn(baselines.rloo(), task, 3, 2)
    second, again = [learn(baselines.rloo(), task, 3, 2, first.last) for _ in range(2)]
    assert torch.equal(second.policies[0].logits, first.last.logits)
    assert torch.equal(second.last.logits, again.last.logits)
    assert not torch.equal(second.last.logits, first.last.logits)


def test_without_a_learning_rate_nothing_is_learned():
    run = learn(baselines.grpo(), LabTask(find_game("prompts")), 0, 2, learning_rate=0.0)
    assert run.last.expected_return == run.policies[0].expected_return
    assert len(run.policies) == 3


def test_policies_of_several_seeds_are_trained_under_the_options_of_the_task():
    options = {"experts": 3, "mismatch": 0.2}
    runs = learn_all(baselines.grpo(), ["prompts"], 0, 1, tables=2, learning_rate=0.0, **options).runs
    assert not torch.equal(runs[0].last.logits, runs[1].last.logits)
    alone = learn(baselines.grpo(), LabTask(find_game("prompts"), **options), derive(0, "table", 1), 1)
    assert torch.equal(alone.policies[0].logits, runs[1].last.logits)
    assert runs[1].metrics[0]["reward"] == alone.metrics[0]["reward"]


def test_the_expected_update_of_the_log_likelihood_is_the_exact_gradient_and_off_policy_needs_the_whole_weight():
    behavior = Exact(LENGTH, LENGTH.normal_logits(0))
    score = PolicyGradient(gate=LogLikelihood(), aggregation=SequenceSum())
    torch.testing.assert_close(expected_update(score, behavior, behavior), behavior.gradient)
    policy = Exact(LENGTH, LENGTH.normal_logits(1))
    whole = PolicyGradient(ratio=ProductRatio(), gate=Unclipped(), aggregation=SequenceSum())
    per_token = LENGTH.leaves.trajectory_of_token.size().double()
    assert float((expected_update(score, policy, behavior) - policy.gradient).norm()) > 0.01
    # The product of ratios stands on every token, so that each trajectory counts once for each of them.
    expected = policy.through_softmax(
        LENGTH.total(LENGTH.leaves.to_tokens(trajectory=policy.leaf_probability * LENGTH.leaves.returns * per_token))
    )
    torch.testing.assert_close(expected_update(whole, policy, behavior), expected, rtol=1e-6, atol=1e-9)


def test_a_recipe_is_as_noisy_as_itself_and_the_exact_direction_is_found():
    rloo = baselines.rloo()
    assert noise_ratio((rloo, rloo), ["prompts"], 0, tables=1) == 1
    assert sine(rloo, ["prompts"], 0) < 0.02
