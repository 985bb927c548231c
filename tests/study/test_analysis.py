"""What runs come to, by hand-made runs whose figures can be worked out."""

from __future__ import annotations

import dataclasses
import random

import pytest

from stratagem.errors import InputError
from stratagem.study.analysis import analyse
from stratagem.study.comparison import Analysis, Contrast, MeasureName, Plan, Point, Summary, Trial

BUDGET = 1000


def plan(arms: str = "ab", tasks: tuple[str, ...] = ("t",), seeds: tuple[int, ...] = (0, 1, 2, 3, 4)) -> Plan:
    return Plan(
        arms=dict.fromkeys(arms, ""),
        from_catalogue=(),
        tasks=tasks,
        seeds=seeds,
        budget=BUDGET,
        model=None,
        values={},
        evaluations=2,
        episodes=100,
        precision="float32",
        device="cpu",
        threads=1,
    )


def trial(
    arm: str,
    seed: int,
    last: float,
    task: str = "t",
    measure: MeasureName = "success",
    tokens: tuple[int, ...] = (0, 500, 1000),
    greedy: float = 1.0,
) -> Trial:
    """Sampled scores rise in a straight line over evaluations from 0 to ``last``; a minute for every 100 tokens."""
    rise = [last * place / (len(tokens) - 1) for place in range(len(tokens))]
    points = tuple(
        Point(n, at, 0.6 * at, score, greedy) for n, (at, score) in enumerate(zip(tokens, rise, strict=True))
    )
    return Trial(arm, task, seed, measure, points, tokens[-1], 0.6 * tokens[-1], 20, 500.0 + seed, 0)


def runs(arm: str, lasts: list[float], task: str = "t", measure: MeasureName = "success") -> list[Trial]:
    return [trial(arm, seed, last, task, measure) for seed, last in enumerate(lasts)]


def summary(analysis: Analysis, arm: str, task: str | None = "t") -> Summary:
    (found,) = (s for s in analysis.summaries if (s.arm, s.task) == (arm, task))
    return found


def contrast(analysis: Analysis, arm: str, quantity: str = "final", task: str | None = "t") -> Contrast:
    (found,) = (c for c in analysis.contrasts if (c.arm, c.quantity, c.task) == (arm, quantity, task))
    return found


LOW, HIGH = [0.2, 0.4, 0.4, 0.4, 0.6], [0.8, 0.9, 0.95, 0.85, 1.0]


# ---- summaries ------------------------------------------------------------------------------------------------------


def test_a_straight_climb_has_half_its_final_score_as_area() -> None:
    said = summary(analyse(plan(), runs("a", LOW) + runs("b", HIGH)), "b")
    assert said.seeds == 5
    assert said.final.value == pytest.approx(0.9)  # the middle three: 0.85, 0.9, 0.95
    assert said.area.value == pytest.approx(0.45)
    assert (said.greedy.value, said.greedy.low, said.greedy.high) == (1.0, 1.0, 1.0)
    assert (said.tokens, said.seconds, said.peak_memory) == (1000.0, 600.0, 504.0)


def test_only_the_budget_counts_of_a_run_that_oversteps_it() -> None:
    over = [trial("a", seed, 0.6, tokens=(0, 500, 1500)) for seed in (0, 1)]
    said = summary(analyse(plan("a", seeds=(0, 1)), over), "a")
    # 0, 0.3 at 500 and 0.6 at 1500, so 0.45 at 1000; the area is 0.15 over the first half and 0.375 over the second.
    assert said.final.value == pytest.approx(0.45)
    assert said.area.value == pytest.approx(0.2625)
    assert said.tokens == 1500.0


def test_the_last_score_stands_for_the_end_of_a_budget_not_reached_and_a_note_says_so() -> None:
    short = [trial("a", seed, 0.6, tokens=(0, 400, 800)) for seed in (0, 1)]
    analysis = analyse(plan("a", seeds=(0, 1)), short)
    assert summary(analysis, "a").final.value == pytest.approx(0.6)
    # 0.3 up to 800 and 0.6 from there on.
    assert summary(analysis, "a").area.value == pytest.approx(0.8 * 0.3 + 0.2 * 0.6)
    note = "a on t, seed 0: its last score, after 800 of 1,000 tokens, stands for the end of the budget"
    assert analysis.notes[0] == note and len(analysis.notes) == 2


def test_the_threshold_is_what_the_reference_came_to() -> None:
    analysis = analyse(plan(), runs("a", LOW) + runs("b", HIGH))
    assert analysis.thresholds == {"t": pytest.approx(0.4)}
    # Climbing to 0.9 in 1000 tokens passes 0.4 after 444; one run of the reference ends below it, three right at it.
    assert summary(analysis, "b").tokens_to_threshold == pytest.approx(1000 * 0.4 / 0.9)
    assert (summary(analysis, "b").reached, summary(analysis, "a").reached) == (5, 4)


@pytest.mark.parametrize(
    ("lasts", "reached", "tokens"),
    [
        ([0.5, 0.8, 1.0, 0.0], 3, 625.0),  # after 1000, 625 and 500: two of four are there after 625
        ([0.5, 1.0, 0.0, 0.0], 2, 1000.0),
        ([1.0, 0.0, 0.0, 0.0], 1, None),
    ],
)
def test_tokens_to_threshold_are_those_by_which_half_of_the_runs_are_there(
    lasts: list[float], reached: int, tokens: float | None
) -> None:
    said = summary(analyse(plan("a", seeds=(0, 1, 2, 3)), runs("a", lasts), threshold=0.5), "a")
    assert (said.reached, said.tokens_to_threshold) == (reached, tokens)


def test_a_threshold_is_no_percentage() -> None:
    with pytest.raises(InputError, match=r"threshold = 90: t is judged by success, a share from 0 to 1"):
        analyse(plan(), runs("a", LOW) + runs("b", HIGH), threshold=90)
    by_return = runs("a", LOW, measure="mean return") + runs("b", HIGH, measure="mean return")
    assert analyse(plan(), by_return, threshold=90).thresholds == {"t": 90}


# ---- contrasts ------------------------------------------------------------------------------------------------------


def test_an_arm_that_is_clearly_ahead_is_better_and_the_other_way_round_worse() -> None:
    trials = runs("a", LOW) + runs("b", HIGH)
    for arms, arm, said, sign in (("ab", "b", "better", 1), ("ba", "a", "worse", -1)):
        found = contrast(analyse(plan(arms), trials), arm)
        assert found.verdict == said
        # Differences 0.6, 0.5, 0.55, 0.45, 0.4.
        assert found.difference.value == pytest.approx(sign * 0.5)
        assert found.probability_of_improvement.value == (sign == 1)


def test_identical_runs_do_not_differ() -> None:
    for found in analyse(plan(), runs("a", HIGH) + runs("b", HIGH)).contrasts:
        assert (found.p, found.adjusted_p, found.verdict) == (1.0, 1.0, "no difference")
        assert (found.difference.value, found.difference.low, found.difference.high) == (0.0, 0.0, 0.0)


def test_runs_are_paired_by_seed() -> None:
    """A small lead with every seed shows, though the seeds differ by far more."""
    trials = runs("a", [0.1, 0.3, 0.5, 0.7, 0.9]) + runs("b", [0.15, 0.36, 0.55, 0.76, 0.95])
    found = contrast(analyse(plan(), trials), "b")
    assert found.verdict == "better"
    assert found.probability_of_improvement.value == pytest.approx(0.6)  # 15 of 25: ahead of itself, else as ranked


def test_p_is_adjusted_for_all_contrasts_of_the_comparison() -> None:
    """Benjamini and Yekutieli by hand: times number over rank and 1 + 1/2 + 1/3 + 1/4, monotone from the top."""
    trials = [
        t for arm, lasts in zip("abc", (LOW, HIGH, [0.3, 0.2, 0.6, 0.3, 0.7]), strict=True) for t in runs(arm, lasts)
    ]
    found = sorted(analyse(plan("abc"), trials).contrasts, key=lambda c: c.p)
    assert len(found) == 4
    for place, c in enumerate(found):
        assert c.adjusted_p == pytest.approx(
            min(1.0, *(d.p * 4 / rank * 25 / 12 for rank, d in enumerate(found, 1) if rank > place))
        )


def test_equal_leads_of_two_seeds_may_be_chance() -> None:
    """One success more of 100 with both seeds has no spread, and shows nothing."""
    two = plan(seeds=(0, 1))
    trials = [trial(arm, seed, last) for arm, last in (("a", 0.50), ("b", 0.51)) for seed in (0, 1)]
    assert {c.verdict for c in analyse(two, trials).contrasts} == {"no difference"}


def test_all_against_nothing_with_every_seed_is_better() -> None:
    found = analyse(plan(), runs("a", [0.0] * 5) + runs("b", [1.0] * 5)).contrasts
    assert {c.verdict for c in found} == {"better"}


# ---- several tasks --------------------------------------------------------------------------------------------------


def test_all_tasks_together_pool_their_runs_and_average_their_differences() -> None:
    two = plan(tasks=("t", "u"))
    trials = runs("a", LOW) + runs("b", HIGH) + runs("a", [0.5] * 5, "u") + runs("b", [0.6] * 5, "u")
    analysis = analyse(two, trials)
    assert len(analysis.contrasts) == 6 and len(analysis.summaries) == 6
    # The middle six of 0.4, 0.45, 0.5, 0.55, 0.6 and five times 0.1: three of 0.1, then 0.4, 0.45, 0.5.
    assert contrast(analysis, "b", task=None).difference.value == pytest.approx((0.3 + 1.35) / 6)
    assert contrast(analysis, "b", task=None).probability_of_improvement.value == 1.0
    assert summary(analysis, "b", None).seeds == 5
    assert summary(analysis, "b", None).reached == 10
    assert analysis.notes == ()


def test_mean_returns_have_no_scale_in_common() -> None:
    trials = [t for arm in "ab" for t in runs(arm, LOW) + runs(arm, [200.0] * 5, "cart", "mean return")]
    analysis = analyse(plan(tasks=("t", "cart")), trials)
    assert {c.task for c in analysis.contrasts} == {s.task for s in analysis.summaries} == {"t", "cart"}
    (note,) = analysis.notes
    assert note.endswith("cart (mean return)")


# ---- bands ----------------------------------------------------------------------------------------------------------


def test_bands_lie_on_one_grid_over_tokens_and_end_with_the_shortest_run_over_minutes() -> None:
    trials = [trial("a", 0, 0.4, tokens=(0, 500, 1000)), trial("a", 1, 0.8, tokens=(0, 600, 1200))]
    bands = analyse(plan("a", seeds=(0, 1)), trials).bands
    assert {(b.mode, b.axis) for b in bands} == {(m, x) for m in ("sampled", "greedy") for x in ("tokens", "minutes")}
    for band in bands:
        assert len(band.x) == len(band.value) == len(band.low) == len(band.high) == 41
        assert (band.x[0], band.x[-1]) == (0.0, {"tokens": 1000.0, "minutes": 10.0}[band.axis])
    (sampled,) = (b for b in bands if (b.mode, b.axis) == ("sampled", "tokens"))
    # Half way: 0.2 and 0.8 * 500 / 1200. The interval of two seeds reaches from one to the other.
    assert sampled.low[20] == pytest.approx(0.2) and sampled.high[20] == pytest.approx(1 / 3)
    assert sampled.value[20] == pytest.approx((0.2 + 1 / 3) / 2)


# ---- which runs count -----------------------------------------------------------------------------------------------


def test_a_seed_counts_when_every_arm_finished_every_task_with_it() -> None:
    trials = [t for t in runs("a", LOW) + runs("b", HIGH) if (t.arm, t.seed) != ("b", 3)]
    analysis = analyse(plan(), trials)
    assert {s.seeds for s in analysis.summaries} == {4}
    assert analysis.notes == ("seed 3 left out: no finished run with a score of b on t",)
    counted = [t for t in trials if t.seed != 3]
    assert analyse(plan(seeds=(0, 1, 2, 4)), counted).contrasts == analysis.contrasts


def test_a_run_without_any_score_does_not_count() -> None:
    empty = dataclasses.replace(trial("b", 1, 0.5), points=())
    trials = [empty if (t.arm, t.seed) == ("b", 1) else t for t in runs("a", LOW) + runs("b", HIGH)]
    assert analyse(plan(), trials).notes == ("seed 1 left out: no finished run with a score of b on t",)


def test_one_whole_seed_is_not_enough() -> None:
    with pytest.raises(InputError, match="seeds: 1 of 5 were finished by every arm on every task"):
        analyse(plan(), [*runs("a", LOW), trial("b", 2, 0.5)])


def test_neither_the_order_of_runs_nor_that_of_seeds_matters() -> None:
    trials = runs("a", LOW) + runs("b", HIGH)
    shuffled = random.Random(0).sample(trials, len(trials))
    assert analyse(plan(seeds=(4, 2, 0, 1, 3)), shuffled) == analyse(plan(), trials)


def test_an_arm_more_changes_no_others_figures_but_its_adjusted_p() -> None:
    trials = runs("a", LOW) + runs("b", HIGH)
    two, three = analyse(plan(), trials), analyse(plan("abc"), trials + runs("c", LOW))
    assert contrast(three, "b").difference == contrast(two, "b").difference
    assert summary(three, "b") == summary(two, "b")


def test_the_same_constant_for_both_arms_changes_no_contrast() -> None:
    here, there = (
        analyse(plan(), runs("a", [x + c for x in LOW], measure="mean return")
                + runs("b", [x + c for x in HIGH], measure="mean return"))
        for c in (0.0, 8.0)
    )  # fmt: skip
    for before, after in zip(here.contrasts, there.contrasts, strict=True):
        assert after.difference.low == pytest.approx(before.difference.low)
        assert after.p == pytest.approx(before.p)
        assert (after.probability_of_improvement, after.verdict) == (before.probability_of_improvement, before.verdict)


def test_what_else_was_measured_is_an_interquartile_mean_where_every_run_has_it() -> None:
    def measured(arm: str, name: str, values: list[float]) -> list[Trial]:
        found = runs(arm, [0.5] * len(values))
        return [
            dataclasses.replace(run, figures={name: v, "length": 3.0}) for run, v in zip(found, values, strict=True)
        ]

    trials = measured("a", "pass@16", [0.0, 0.5, 0.6, 0.7, 1.0]) + measured("b", "pass@16", [0.1, 0.1, 0.1, 0.1, 0.1])
    analysis = analyse(plan(), trials)
    assert summary(analysis, "a").figures["pass@16"].value == pytest.approx(0.6)
    assert summary(analysis, "b").figures["pass@16"].value == pytest.approx(0.1)
    assert summary(analysis, "b").figures["length"].value == 3.0
    bare = [dataclasses.replace(trials[0], figures={}), *trials[1:]]
    assert summary(analyse(plan(), bare), "a").figures == {}


def test_a_figure_that_is_no_number_in_a_run_is_left_out() -> None:
    trials = [dataclasses.replace(run, figures={"pass@2": float("nan")}) for run in runs("a", [0.5] * 5)]
    assert summary(analyse(plan(), trials + runs("b", [0.5] * 5)), "a").figures == {}
