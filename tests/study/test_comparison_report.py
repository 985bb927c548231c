"""The comparison's page: it claims no more than its contrasts show, holds every number, and escapes everything."""

from __future__ import annotations

import dataclasses
import html
import itertools
import json
import math
import re
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from stratagem.errors import InputError
from stratagem.estimate import Estimate
from stratagem.study.comparison import Comparison, Verdict, read_comparison, to_json
from stratagem.study.comparison_report import (
    finding,
    judgement,
    overview,
    question,
    with_fresh_seeds,
    write_comparison_report,
)
from stratagem.study.outcome import MEAN_RETURN, SUCCESS

MakeComparison = Callable[..., Comparison]


def source_of(comparison: Comparison, tmp_path: Path) -> str:
    return write_comparison_report(comparison, tmp_path / "report.html").read_text(encoding="utf-8")


def text_of(comparison: Comparison, tmp_path: Path) -> str:
    """What a person reads."""
    seen = re.sub(r"<(script|style).*?</\1>", "", source_of(comparison, tmp_path), flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", seen)).split())


def charts_of(comparison: Comparison, tmp_path: Path) -> dict[str, Any]:
    """What the page's script draws, read as strictly as a browser does."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    (data,) = re.findall(r'id="curves">(.*?)</script>', source_of(comparison, tmp_path), re.DOTALL)
    found: dict[str, Any] = json.loads(data, parse_constant=refuse)
    return found


class Tags(HTMLParser):
    """The elements a browser finds in a page."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append(tag)


def with_verdicts(comparison: Comparison, verdicts: Sequence[Verdict]) -> Comparison:
    changed = [
        dataclasses.replace(contrast, verdict=verdict)
        for contrast, verdict in zip(comparison.analysis.contrasts, verdicts, strict=True)
    ]
    return dataclasses.replace(comparison, analysis=dataclasses.replace(comparison.analysis, contrasts=tuple(changed)))


# ---- the question and its answer -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arms", "tasks", "asked"),
    [
        (("grpo",), ("key_door",), "How does grpo do on key_door?"),
        (("grpo", "rloo"), ("key_door",), "Does rloo beat grpo on key_door?"),
        (("grpo", "rloo", "dapo"), ("key_door", "sokoban"), "Do rloo and dapo beat grpo on key_door and sokoban?"),
        (("grpo", "rloo", "dapo", "gspo", "ppo"), ("a", "b", "c"), "Which of 4 recipes beat grpo on a, b and c?"),
    ],
)
def test_asks_its_question_in_words(
    make_comparison: MakeComparison, arms: tuple[str, ...], tasks: tuple[str, ...], asked: str
) -> None:
    assert question(make_comparison(arms=arms, tasks=tasks).plan) == asked


def test_a_difference_in_everything_is_told_without_reserve(make_comparison: MakeComparison) -> None:
    assert judgement(make_comparison(lead=0.1), "rloo").headline == "rloo beats grpo."
    assert judgement(make_comparison(lead=-0.1), "rloo").headline == "rloo does worse than grpo."


def test_no_difference_is_said_to_be_one_not_shown(make_comparison: MakeComparison, tmp_path: Path) -> None:
    text = text_of(make_comparison(lead=0.02), tmp_path)
    assert "No difference between rloo and grpo was shown with 5 seeds." in text
    assert "final success, key_door +2.0 points [-3.0, +7.0], adjusted p 0.500: no difference shown" in text
    assert "“No difference shown” is not “equal”" in text


@pytest.mark.parametrize(
    ("verdicts", "headline", "direction"),
    [
        (
            ("better", "no difference"),
            "Of 2 measurements against grpo, rloo is better in 1; no difference was shown in 1.",
            "rose",
        ),
        (
            ("no difference", "worse"),
            "Of 2 measurements against grpo, rloo is worse in 1; no difference was shown in 1.",
            "fell",
        ),
        (
            ("worse", "better"),
            "Of 2 measurements against grpo, rloo is better in 1 and worse in 1.",
            "mixed",
        ),
    ],
)
def test_a_headline_claims_no_more_than_the_contrasts_show(
    make_comparison: MakeComparison, verdicts: tuple[Verdict, ...], headline: str, direction: str
) -> None:
    judged = judgement(with_verdicts(make_comparison(), verdicts), "rloo")
    assert (judged.headline, judged.direction) == (headline, direction)


def test_an_arm_without_contrasts_could_not_be_compared(make_comparison: MakeComparison) -> None:
    assert judgement(with_verdicts(make_comparison(arms=("grpo",)), ()), "grpo").headline.endswith("with grpo.")


def test_many_arms_are_told_in_one_line(make_comparison: MakeComparison) -> None:
    compared = make_comparison(arms=("grpo", "rloo", "dapo", "gspo"))
    verdicts: list[Verdict] = ["better", "no difference", "no difference", "no difference", "worse", "worse"]
    judgements = [judgement(with_verdicts(compared, verdicts), arm) for arm in ("rloo", "dapo", "gspo")]
    assert overview(judgements) == "Better: rloo (1 of 2). Worse: gspo (2 of 2). No difference shown: dapo."


def test_shares_differ_in_points_and_returns_in_their_own_unit(make_comparison: MakeComparison) -> None:
    contrast = make_comparison(lead=0.1).analysis.contrasts[0]
    share = finding(contrast, SUCCESS)
    assert (share.name, share.difference) == ("final success, key_door", "+10.0 points")
    assert share.grounds == "[+5.0, +15.0], adjusted p 0.004: better"
    longer = dataclasses.replace(contrast, difference=Estimate(-1250.4, -2000.0, -3.25), task=None, adjusted_p=1e-5)
    returns = finding(longer, MEAN_RETURN)
    assert (returns.name, returns.difference) == ("final mean return, all tasks together", "-1,250")
    assert returns.grounds == "[-2,000, -3.25], adjusted p < 0.001: better"


# ---- tables ----------------------------------------------------------------------------------------------------------


def test_tables_hold_scores_costs_and_contrasts(make_comparison: MakeComparison, tmp_path: Path) -> None:
    text = text_of(make_comparison(lead=0.1), tmp_path)
    assert "rloo 80 % [75, 85] 85 % [80, 90] 60 % [55, 65] 1,000 (5 of 5) 1,010 60 512" in text
    assert "rloo final success +10.0 [+5.0, +15.0] 0.90 [0.70, 1.00] 0.002 0.004 better" in text
    assert "tokens to 70 %" in text


def test_a_threshold_few_seeds_reached_has_no_tokens(make_comparison: MakeComparison, tmp_path: Path) -> None:
    compared = make_comparison()
    summaries = [dataclasses.replace(s, tokens_to_threshold=None, reached=2) for s in compared.analysis.summaries]
    analysis = dataclasses.replace(compared.analysis, summaries=tuple(summaries))
    assert "not reached (2 of 5)" in text_of(dataclasses.replace(compared, analysis=analysis), tmp_path)


def test_all_tasks_together_come_first(make_comparison: MakeComparison, tmp_path: Path) -> None:
    text = text_of(make_comparison(tasks=("key_door", "sokoban")), tmp_path)
    headings = [text.index(f"{heading} Scores and what") for heading in ("All tasks together", "key_door", "sokoban")]
    assert headings == sorted(headings)


def test_says_what_was_the_same_for_all_arms(make_comparison: MakeComparison, tmp_path: Path) -> None:
    text = text_of(make_comparison(), tmp_path)
    assert "budget 1,000 tokens (actions, for control) a run seeds 0, 1, 2, 3, 4" in text
    assert "optimization.learning_rate 0.001" in text


def test_notes_and_failed_episodes_are_told(make_comparison: MakeComparison, tmp_path: Path) -> None:
    compared = make_comparison()
    first, *others = compared.trials
    compared = dataclasses.replace(
        compared,
        trials=(dataclasses.replace(first, failed_episodes=3), *others),
        analysis=dataclasses.replace(compared.analysis, notes=("seed 7 left out",)),
    )
    text = text_of(compared, tmp_path)
    assert "seed 7 left out training episodes that failed and taught nothing: grpo 3 and rloo 0" in text


# ---- curves and seeds ------------------------------------------------------------------------------------------------


def test_curves_hold_every_axis_mode_and_arm(make_comparison: MakeComparison, tmp_path: Path) -> None:
    (chart,) = charts_of(make_comparison(), tmp_path)["curves"]
    assert sorted(chart["bands"]) == ["minutes", "tokens"]
    for modes in chart["bands"].values():
        assert {mode: [curve["arm"] for curve in curves] for mode, curves in modes.items()} == {
            "sampled": ["grpo", "rloo"],
            "greedy": ["grpo", "rloo"],
        }
    final = chart["bands"]["tokens"]["sampled"][1]
    ends = [final[line][-1] for line in ("x", "low", "value", "high")]
    assert ends == pytest.approx([1000, 0.75, 0.8, 0.85])


def test_every_arm_of_eight_is_drawn_its_own_way(make_comparison: MakeComparison, tmp_path: Path) -> None:
    """Not by colour alone: no two share dash or marker and colour, and neighbours differ in all three."""
    eight = ("grpo", "rloo", "dapo", "gspo", "ppo", "cispo", "dr_grpo", "reinforce")
    arms = charts_of(make_comparison(arms=eight, tasks=("key_door", "sokoban")), tmp_path)["arms"]
    assert [arm["name"] for arm in arms] == list(eight)
    assert len({arm["symbol"] for arm in arms}) == 8
    assert len({(arm["color"], arm["dash"]) for arm in arms}) == 8
    assert all(a[cue] != b[cue] for a, b in itertools.pairwise(arms) for cue in ("color", "dash", "symbol"))


def test_seeds_lie_at_the_end_of_the_budget(make_comparison: MakeComparison, tmp_path: Path) -> None:
    """A budget half-way between evaluations at 500 tokens (0.5) and 1000 (0.7 + 0.01 (seed - 2))."""
    compared = make_comparison()
    compared = dataclasses.replace(compared, plan=dataclasses.replace(compared.plan, budget=750))
    (chart,) = charts_of(compared, tmp_path)["finals"]
    assert chart["rows"][0]["scores"] == pytest.approx([0.59, 0.595, 0.6, 0.605, 0.61])


def test_differences_are_between_runs_of_equal_seed(make_comparison: MakeComparison, tmp_path: Path) -> None:
    compared = make_comparison(lead=0.1)
    compared = dataclasses.replace(compared, trials=compared.trials[::-1])
    (chart,) = charts_of(compared, tmp_path)["differences"]
    (row,) = chart["rows"]
    assert row["seeds"] == [0, 1, 2, 3, 4]
    assert row["scores"] == pytest.approx([0.1] * 5)


def test_a_seed_that_one_arm_did_not_finish_is_not_drawn(make_comparison: MakeComparison, tmp_path: Path) -> None:
    compared = make_comparison(seeds=(0, 1, 2))
    kept = tuple(trial for trial in compared.trials if (trial.arm, trial.seed) != ("rloo", 1))
    (chart,) = charts_of(dataclasses.replace(compared, trials=kept), tmp_path)["finals"]
    assert [row["seeds"] for row in chart["rows"]] == [[0, 2], [0, 2]]


def test_what_is_not_finite_is_left_out_of_the_charts(make_comparison: MakeComparison, tmp_path: Path) -> None:
    compared = make_comparison()
    nothing = Estimate(math.nan, math.nan, math.nan)
    analysis = dataclasses.replace(
        compared.analysis,
        summaries=tuple(dataclasses.replace(s, final=nothing) for s in compared.analysis.summaries),
        bands=tuple(dataclasses.replace(b, low=(math.nan,) * 41) for b in compared.analysis.bands),
    )
    charts = charts_of(dataclasses.replace(compared, analysis=analysis), tmp_path)
    assert charts["finals"][0]["rows"][0]["value"] is None
    assert charts["curves"][0]["bands"]["tokens"]["sampled"][0]["low"] == [None] * 41


# ---- recipes and episodes --------------------------------------------------------------------------------------------


def test_recipes_stand_side_by_side_where_they_differ(make_comparison: MakeComparison, tmp_path: Path) -> None:
    text = text_of(make_comparison(arms=("grpo", "rloo", "dr_grpo")), tmp_path)
    assert "field grpo rloo dr_grpo" in text
    assert "advantage group_standardized leave_one_out group_centered" in text
    assert "advantage. eps 1e-06 — —" in text  # may be broken after the dot
    assert "sampler.group_size" not in text.split("Fields in which")[1].split("the whole recipe")[0]


def test_a_recipe_that_cannot_be_built_here_is_shown_as_text(make_comparison: MakeComparison, tmp_path: Path) -> None:
    known = make_comparison().plan.arms["grpo"]
    text = text_of(make_comparison(arms={"grpo": known, "mine": "name: mine\nadvantage: secret_sauce\n"}), tmp_path)
    assert "mine cannot be compared field by field here: mine: unknown advantage 'secret_sauce'" in text
    assert "the whole recipe of mine name: mine advantage: secret_sauce" in text


def test_equal_recipes_are_said_to_be_equal(make_comparison: MakeComparison, tmp_path: Path) -> None:
    grpo = make_comparison().plan.arms["grpo"]
    assert "The recipes are equal in every field." in text_of(make_comparison(arms={"a": grpo, "b": grpo}), tmp_path)


def test_tasks_that_change_the_recipes_have_tables_of_their_own(
    make_comparison: MakeComparison, tmp_path: Path
) -> None:
    compared = make_comparison(tasks=("key_door", "sokoban", "textworld"))
    assert source_of(compared, tmp_path).count("recipes side by side") == 1
    adapted = {arm: text.replace("group_size: 8", "group_size: 16") for arm, text in compared.plan.arms.items()}
    compared = dataclasses.replace(compared, recipes={**compared.recipes, "sokoban": adapted})
    assert source_of(compared, tmp_path).count("recipes side by side") == 2
    assert "key_door and textworld Fields in which" in text_of(compared, tmp_path)


def test_shows_episodes_of_the_first_seed_before_and_after(make_comparison: MakeComparison, tmp_path: Path) -> None:
    def played(success: bool) -> dict[str, Any]:
        messages = [{"role": "user", "content": "A door."}, {"role": "assistant", "content": "go east", "reward": 1.0}]
        return {"success": success, "reward": float(success), "messages": messages}

    meeting = {"mode": "greedy", "episode": 7, "before": played(False), "after": played(True)}
    text = text_of(make_comparison(meetings=[meeting]), tmp_path)
    assert "grpo, seed 0 greedy, held-out episode 7: no success, reward 0 → success, reward 1" in text
    assert "environment A door. policy reward 1 go east" in text


def test_episodes_that_were_not_kept_are_said_to_be_missing(make_comparison: MakeComparison, tmp_path: Path) -> None:
    assert "No held-out episode was kept." in text_of(make_comparison(), tmp_path)


# ---- how to argue ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "again"),
    [
        (
            "stratagem compare grpo rloo --task 'key_door:size=6' --seeds 3 --out runs/mine",
            "stratagem compare grpo rloo --task key_door:size=6 --seeds 3 --out runs/mine-again --first-seed 3",
        ),
        (
            "stratagem compare grpo rloo --task sums --first-seed 1",
            "stratagem compare grpo rloo --task sums --first-seed 3 --seeds 3 --out runs/compare-again",
        ),
        ("python study.py", ""),
    ],
)
def test_the_command_for_fresh_seeds_uses_none_again(command: str, again: str) -> None:
    assert with_fresh_seeds(command, (0, 1, 2)) == again


def test_says_its_rule_and_what_p_is_corrected_for(make_comparison: MakeComparison, tmp_path: Path) -> None:
    text = text_of(make_comparison(arms=("grpo", "rloo", "dapo"), tasks=("a", "b")), tmp_path)
    assert "adjusted (Benjamini and Yekutieli) for all 12 contrasts" in text  # 2 arms, 2 tasks and both, 2 quantities
    assert "--first-seed 5" in text


# ---- the file --------------------------------------------------------------------------------------------------------


def test_everything_is_escaped(make_comparison: MakeComparison, tmp_path: Path) -> None:
    evil, worse = "<img src=x onerror=alert(1)>", "</script><script>alert(1)</script>"
    said = {"messages": [{"role": "assistant", "content": evil}]}
    meeting = {"mode": evil, "episode": worse, "before": said, "after": None}
    compared = make_comparison(
        arms={evil: "name: <b>", worse: worse}, tasks=(worse,), meetings=[meeting], command=f"echo {evil}"
    )
    tags = Tags(source_of(compared, tmp_path)).found
    assert not {"img", "b"} & set(tags)
    assert tags.count("script") == 3  # plotly, the data and the page's own
    assert f"Does {worse} beat {evil} on {worse}?" in text_of(compared, tmp_path)
    assert [arm["name"] for arm in charts_of(compared, tmp_path)["arms"]] == [evil, worse]


def test_asks_the_network_for_nothing(make_comparison: MakeComparison, tmp_path: Path) -> None:
    source = source_of(make_comparison(), tmp_path)
    assert "default-src 'none'; script-src 'unsafe-inline'" in source
    assert source.count("* plotly.js v") == 1
    assert not re.search(r"<(link|img|iframe|script src)", source.split("<script>")[0])


def test_the_page_of_a_comparison_read_from_its_file_is_the_same(
    make_comparison: MakeComparison, tmp_path: Path
) -> None:
    compared = make_comparison(tasks=("key_door", "sokoban"))
    (tmp_path / "results.json").write_text(to_json(compared), encoding="utf-8")
    assert source_of(read_comparison(tmp_path), tmp_path) == source_of(compared, tmp_path)


def test_a_page_that_cannot_be_written_is_an_input_error(make_comparison: MakeComparison, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(InputError, match="cannot be written"):
        write_comparison_report(make_comparison(), tmp_path / "file" / "report.html")
