"""Promotion: each question at the easiest format that it has not passed, and never down."""

from __future__ import annotations

from math import comb

import pytest
import torch

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.prompts import Pool, PromptHistory
from stratagem.sampling import Promoting, Rollouts
from stratagem.seeding import generator


def numbers(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64)


def played(*returns: float, success: list[bool] | None = None) -> Experience:
    return Experience.from_lengths(
        [1] * len(returns), [1] * len(returns), [len(returns)], reward=list(returns), success=success
    )


def visits(start: int, *rounds: Experience) -> PromptHistory:
    kept = PromptHistory.blank(numbers(), 4)
    for step, x in enumerate(rounds):
        kept = kept.noted(numbers(start), x, step)
    return kept


def asked(rule: Promoting, kept: PromptHistory, pool: tuple[int, ...] = (0, 1, 2, 3)) -> int:
    """The format that the one question of a pool is asked in."""
    number = numbers(*pool)
    return int(number[rule.choose(Pool(number, kept.at(number), kept), 1, generator(0))])


def test_a_mean_above_the_threshold_promotes_and_one_at_it_does_not():
    good = played(1.2, 1.2, 0.2, 0.2, 0.2, 0.2, 1.2, 1.2)
    assert float(good.returns.mean()) == pytest.approx(0.7)
    assert asked(Promoting(), PromptHistory.blank(numbers())) == 0
    assert asked(Promoting(), visits(0, good)) == 1
    assert asked(Promoting(), visits(0, played(0.5, 0.5))) == 0
    assert asked(Promoting(), visits(0, played(1.0, 0.0))) == 0


def test_formats_that_are_not_there_are_skipped_and_the_last_one_stays():
    good = played(1.0)
    assert asked(Promoting(), visits(0, good), (0, 3)) == 3
    assert asked(Promoting(), visits(3, good, good), (3,)) == 3
    assert asked(Promoting(), PromptHistory.blank(numbers()), (2, 3)) == 2


def test_with_a_window_the_mean_need_not_be_full_unless_it_is_asked_for():
    rounds = [played(0.9), played(0.2), played(0.2)]
    rule, full = Promoting(window=3), Promoting(window=3, require_full=True)
    assert asked(rule, visits(0, rounds[0])) == 1 and asked(full, visits(0, rounds[0])) == 0
    assert asked(full, visits(0, *rounds)) == 0
    assert float(full.mean(visits(0, *rounds))) == pytest.approx(0.4333333)
    assert asked(full, visits(0, *[played(0.9)] * 3)) == 1
    # The mean is over the last three: 0.2, 0.9, 0.9.
    assert asked(full, visits(0, played(0.0), played(0.2), played(0.9), played(0.9))) == 1


def test_a_question_twice_in_a_batch_is_one_visit_and_counts_together():
    x = Experience.from_lengths([1] * 4, [1] * 4, [2, 2], reward=[1.0, 1.0, 0.0, 0.0])
    kept = PromptHistory.blank(numbers(), 4).noted(numbers(0, 0), x, 0)
    assert kept.visits.tolist() == [1] and asked(Promoting(), kept) == 0


def test_it_never_goes_down_and_begins_anew_in_the_next_format():
    kept = visits(0, played(1.0)).noted(numbers(1), played(0.0), 1).noted(numbers(1), played(0.0), 2)
    assert asked(Promoting(), kept) == 1
    assert asked(Promoting(), kept.noted(numbers(1), played(1.0), 3)) == 2


def test_below_every_return_each_visit_promotes():
    rule, sampler = Promoting(threshold=-1.0), None
    sampler = Rollouts(prompts_per_step=2, group_size=2, start_states=tuple(range(8)), curriculum=rule)
    seen = []
    for step in range(5):
        planned = sampler.planned(range(2), lambda step=step: generator(step), step)
        starts = numbers(*(group.start for group in planned))
        x = Experience.from_lengths([1] * 4, [1] * 4, [2, 2], reward=[0.0] * 4, task_id=starts)
        sampler.note(x, step)
        seen.append(sorted(starts.tolist()))
    assert seen == [[0, 4], [1, 5], [2, 6], [3, 7], [3, 7]]


def test_a_guesser_of_perfect_form_is_promoted_in_a_third_of_its_visits():
    promoted = {
        right: asked(Promoting(), visits(0, played(*[1.2] * right, *[0.2] * (8 - right)))) for right in range(9)
    }
    assert promoted == {right: int(right >= 3) for right in range(9)}
    lucky = sum(comb(8, right) * 0.25**right * 0.75 ** (8 - right) * promoted[right] for right in range(9))
    assert lucky == pytest.approx(0.3215, abs=5e-5)


def test_success_can_be_what_counts_and_corrected_for_guessing():
    x = played(1.2, 1.2, 0.2, 0.2, success=[True, True, False, False])
    assert asked(Promoting(), visits(0, x)) == 1
    assert asked(Promoting(by="success"), visits(0, x)) == 0
    assert asked(Promoting(by="success", threshold=0.4), visits(0, x)) == 1
    guarded = Promoting(by="success", threshold=0.4, chance=(0.25, 0.1, 0, 0))
    assert float(guarded.mean(visits(0, x))) == pytest.approx((0.5 - 0.25) / 0.75)
    assert asked(guarded, visits(0, x)) == 0


def test_every_question_comes_once_before_one_comes_again_in_whatever_format():
    sampler = Rollouts(prompts_per_step=2, group_size=2, curriculum=Promoting(prompts=24, threshold=0.5))
    counts = torch.zeros(6)
    for step in range(9):
        planned = sampler.planned(range(2), lambda step=step: generator(step), step)
        starts = numbers(*(group.start for group in planned))
        counts += torch.bincount(starts // 4, minlength=6)
        good = [float(start // 4 < 3) for start in starts.tolist() for _ in range(2)]
        sampler.note(Experience.from_lengths([1] * 4, [1] * 4, [2, 2], reward=good, task_id=starts), step)
        assert counts.max() - counts.min() <= 1
    figures = sampler.figures(starts, 8)
    at = [figures[f"curriculum/level_{level}/questions"] for level in range(4)]
    assert at == [3, 0, 0, 3] and sum(at) == 6
    assert figures["curriculum/upgrades"] == sum(int(start) // 4 < 3 for start in starts)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"threshold": 1.2}, r"promoting.threshold = 1.2: must be below 1.2"),
        ({"threshold": 1.0, "by": "success"}, r"promoting.threshold = 1.0: must be below 1,"),
        ({"chance": (0.25, 0.1)}, r"promoting.chance = \(0.25, 0.1\): must be one number for each of 4 levels"),
        ({"chance": (0.25, 0.1, 0, 0)}, "with by = success"),
        ({"levels": 0}, "promoting.levels = 0"),
    ],
)
def test_rules_that_cannot_be_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        Promoting(**values)
