"""The generated pages say what the catalogue and the records say, claims that fail included, and nothing else."""

from __future__ import annotations

import dataclasses
import html
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup
from technique_pages import Evidence, comparisons, lab_overview, pages, prose, seeds, technique, text

from stratagem import catalogue
from stratagem.catalogue import Card
from stratagem.errors import InputError
from stratagem.estimate import Estimate
from stratagem.lab import Diagnosis
from stratagem.study import claims
from stratagem.study.claims import Claim, Expect, Record, run_claim, write_record
from stratagem.study.comparison import Contest, to_json

NOTHING = Evidence({}, {}, {})
BELOW_ONE = Expect("noise", below=1)


def plain(page: str) -> str:
    """A page without its tags and entities, on one line."""
    return " ".join(html.unescape(re.sub(r"</?(code|span|br)[^>]*>", "", page)).split())


def section(page: str, heading: str) -> str:
    """What stands below a heading."""
    return page.split(f"\n## {heading}", 1)[1].split("\n## ", 1)[0]


def a_claim(values=(0.4, 0.5, 0.6), rule=(BELOW_ONE,), **changes) -> Claim:
    fields = {"technique": "rloo", "statement": "Less noise.", "source": "figure 3", "baseline": "reinforce"}
    fields |= {"scale": "One tabular policy.", **changes}
    return Claim(**fields, rule=tuple(rule), experiment=lambda seed: {"noise": values[seed % 10]})


def a_record(*spans, **claim) -> Record:
    """Measured once for each span of seeds; seeds of 10 and more repeat those of the first ten."""
    made = a_claim(**claim)
    record = Record.of(made)
    for span in spans or [range(3)]:
        record = record.adding(run_claim(made, span, command=f"stratagem claim rloo --first-seed {span[0]}"))
    return record


def with_record(record: Record) -> str:
    return technique(catalogue.card("rloo"), Evidence({"rloo": record}, {}, {}))


@pytest.fixture
def no_claims(monkeypatch):
    """A catalogue in which nothing is claimed."""
    monkeypatch.setattr("technique_pages._claims", dict)


# ---- what a technique is --------------------------------------------------------------------------------------------


def test_a_page_opens_with_the_card():
    page = plain(technique(catalogue.card("rloo"), NOTHING))
    assert page.startswith("# rloo **Back to Basics: Revisiting REINFORCE Style Optimization")
    assert (
        "[arXiv 2402.14740](https://arxiv.org/abs/2402.14740) · 2024 · family [baselines](baselines/index.md)" in page
    )
    assert "changes advantage · base [reinforce](reinforce.md) · claim [not measured](#claim)" in page


def test_every_part_has_its_formula_its_values_and_a_link_to_the_reference():
    parts = section(technique(catalogue.card("grpo"), NOTHING), "Parts")
    assert "[stratagem.objectives.gates.Clip]" in html.unescape(parts)
    assert "min(rho A, clip(rho, 1 - low, 1 + high) A)" in parts
    assert "low = 0.2 high = 0.2" in plain(parts)
    assert [line for line in plain(parts).split("- ") if line.startswith("objective.gate: [clip]")]


def test_parts_within_parts_are_found_by_their_path():
    parts = plain(section(technique(catalogue.card("ppo"), NOTHING), "Parts"))
    assert "advantage: [batch_whitened]" in parts and "advantage.of: [gae]" in parts


def test_the_difference_from_the_base_is_the_recipes_own():
    rows = plain(section(technique(catalogue.card("rloo"), NOTHING), "Against reinforce"))
    assert "| advantage | moving_average_baseline | leave_one_out |" in rows
    assert "| advantage.decay | 0.9 | — |" in rows


def test_fields_arguments_and_commands_are_there():
    page = technique(catalogue.card("grpo"), NOTHING)
    assert "| kl_coefficient | float | 0.0 |" in plain(section(page, "Arguments"))
    assert "| sampler.group_size | 8 |" in plain(page)
    assert catalogue.card("grpo").recipe().to_yaml().splitlines()[1] in page
    assert "stratagem train grpo --task key_door\n" in page and "stratagem lab grpo\n" in page


def test_the_lab_is_not_advised_where_it_cannot_judge():
    assert "stratagem lab" not in technique(catalogue.card("sft"), NOTHING)


def test_a_technique_that_is_no_recipe_has_its_card_and_its_claim():
    class Solver:
        """Counterfactual regret: `r+`."""

        def __init__(self, game: str) -> None: ...

    card = Card("solver", "A solver", "games", ("solver",), None, 2020, None, Solver)
    page = technique(card, NOTHING)
    assert "Counterfactual regret: `r+`." in page and "no arXiv identifier" in page
    assert "There is no claim about this technique yet." in section(page, "Claim")
    assert "| game | str | required |" in plain(page)
    assert not re.search("## (Parts|Against|All fields)", page) and "stratagem train" not in page


# ---- claims ---------------------------------------------------------------------------------------------------------


def test_a_claim_that_nobody_measured_says_so_with_its_rule(monkeypatch):
    monkeypatch.setattr("technique_pages._claims", lambda: {"rloo": a_claim()})
    found = plain(section(technique(catalogue.card("rloo"), NOTHING), "Claim"))
    assert "No measurement of this claim is recorded." in found
    assert "Less noise. (figure 3)" in found and "The rule: noise below 1." in found


@pytest.mark.usefixtures("no_claims")
@pytest.mark.parametrize(
    ("values", "kind", "words"),
    [
        ((0.4, 0.5, 0.6), 'success "The claim holds"', "and all of its interval is below 1."),
        ((2.4, 2.5, 2.6), 'failure "The claim fails"', "and none of its interval is below 1, as the claim needs."),
        ((0.5, 1.0, 1.5), 'info "The claim is neither', "and only some of its interval is below 1, as the claim"),
        ((0.5, 0.5, 0.5), 'success "The claim holds"', "noise is 0.5 with every seed, which is below 1."),
        ((1.0, 1.0, 1.0), 'failure "The claim fails"', "noise is 1 with every seed, which is not below 1."),
    ],
)
def test_the_verdict_is_said_in_plain_words(values, kind, words):
    found = section(with_record(a_record(values=values)), "Claim")
    assert f"!!! {kind}" in found
    assert words in plain(found)


@pytest.mark.usefixtures("no_claims")
def test_measurement_scale_seeds_and_command_stand_beside_the_verdict():
    record = a_record()
    found = plain(section(with_record(record), "Claim"))
    # Mean 0.5, standard error 0.1 / sqrt(3), Student's quantile 4.303 at two degrees: 0.5 plus or minus 0.248.
    assert "noise is 0.5 [0.252, 0.748]," in found
    assert "Compared with reinforce. One tabular policy." in found
    assert "3 seeds (0 to 2): holds, in" in found and ": stratagem claim rloo --first-seed 0" in found
    assert found.count('class="seed"') == 3


@pytest.mark.usefixtures("no_claims")
def test_a_verdict_that_flips_with_fresh_seeds_is_shown_as_open():
    record = a_record(range(3), range(3, 6), values=(0.4, 0.5, 0.6, 1.4, 1.5, 1.6))
    found = section(with_record(record), "Claim")
    assert '!!! info "The claim is neither confirmed nor refuted"' in found
    assert "With fresh seeds the verdict turned around (holds, fails)" in plain(found)
    assert found.count('class="seed"') == 6


@pytest.mark.usefixtures("no_claims")
def test_what_the_rule_does_not_speak_of_is_listed_without_a_picture():
    record = a_record()
    beside = {"steps": (10.0, 20.0, 30.0)}, {"steps": Estimate(20.0, 15.0, 25.0)}
    measurement = record.measurements[0]
    measurement = dataclasses.replace(
        measurement, values=measurement.values | beside[0], estimates=measurement.estimates | beside[1]
    )
    found = with_record(dataclasses.replace(record, measurements=(measurement,)))
    assert "| steps | 20 [15, 25] |" in plain(found) and found.count("<svg") == 1


@pytest.mark.parametrize(("statement", "due"), [("Less noise.", False), ("Far less noise.", True)])
def test_a_record_of_a_claim_that_changed_is_marked(monkeypatch, statement, due):
    monkeypatch.setattr("technique_pages._claims", lambda: {"rloo": a_claim(statement=statement)})
    assert ("Due to be measured again" in with_record(a_record())) == due


# ---- lab and comparisons --------------------------------------------------------------------------------------------


def a_diagnosis(**changes) -> Diagnosis:
    """A biased update whose step gains 0.03 where the gradient's gains 0.04."""
    given = dict.fromkeys((field.name for field in dataclasses.fields(Diagnosis)), 1)
    given |= {"recipe": "rloo", "game": "rare", "drift": 0.0, "verdict": "biased", "groups": 4096, "gain": 0.03}
    given |= {"stale_steps": 0}
    given |= {"exact_gain": 0.04, "bias": Estimate(0.25, 0.2, 0.3), "scale": Estimate(1, 1, 1)}
    given |= {"direction": Estimate(0.125, 0.1, 0.15), "cosine": None, "noise": Estimate(0.5, 0.4, 0.6)}
    return Diagnosis(**{**given, **changes})


def lab_file(results, *diagnoses: Diagnosis, version: int = 1) -> None:
    (results / "lab").mkdir()
    found = {"version": version, "games": {"rare": "One of `256` is right."}}
    found["diagnoses"] = [dataclasses.asdict(diagnosis) for diagnosis in diagnoses]
    (results / "lab" / "rloo.json").write_text(json.dumps(found))


def test_the_lab_table_has_a_row_for_each_game(tmp_path):
    still = {"verdict": "no update shown", "direction": None, "direction_p": None, "noise": None, "gain": None}
    lab_file(tmp_path, a_diagnosis(), a_diagnosis(game="still", **still), a_diagnosis(recipe="grpo", game="other"))
    found = plain(section(technique(catalogue.card("rloo"), Evidence.read(tmp_path)), "In the lab"))
    assert "| rare | biased | 0.25 [0.2, 0.3] | 0.125 [0.1, 0.15] | 0.5 [0.4, 0.6] | 75 % |" in found
    assert "| still | no update shown | 0.25 [0.2, 0.3] | — | — | — |" in found
    assert "other" not in found and "rare: One of 256 is right." in found
    assert "since the batch was sampled" not in found


def test_updates_some_steps_after_sampling_have_a_table_of_their_own_and_the_overview_a_column(tmp_path):
    apart = a_diagnosis(stale_steps=8, cosine=Estimate(0.5, 0.4, 0.6))
    lab_file(tmp_path, a_diagnosis(cosine=Estimate(0.9, 0.8, 1.0)), apart)
    evidence = Evidence.read(tmp_path)
    found = plain(section(technique(catalogue.card("rloo"), evidence), "In the lab"))
    assert "After 8 steps along the exact gradient since the batch was sampled" in found
    assert "| rare | biased | 0.25 [0.2, 0.3] | 0.125 [0.1, 0.15] | 0.5 [0.4, 0.6] |" in found
    row = next(line for line in plain(lab_overview(evidence)).splitlines() if "rloo" in line)
    assert "1 biased | 0.25 | 0.50 | 0.900 | 0.500 |" in row


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [({"version": 2}, "is of version 2"), ({"verdict": "guilty"}, "diagnoses.0.verdict: ")],
)
def test_a_broken_lab_file_is_named(tmp_path, spoil, complaint):
    version = spoil.pop("version", 1)
    lab_file(tmp_path, a_diagnosis(**spoil), version=version)
    with pytest.raises(InputError, match=rf"rloo\.json: {complaint}"):
        Evidence.read(tmp_path)


def test_a_technique_lists_the_comparisons_it_was_in(tmp_path, a_comparison):
    (tmp_path / "compare" / "on key_door").mkdir(parents=True)
    (tmp_path / "compare" / "on key_door" / "results.json").write_text(to_json(a_comparison()))
    evidence = Evidence.read(tmp_path)
    found = plain(section(technique(catalogue.card("rloo"), evidence), "Comparisons"))
    assert "[Does rloo beat grpo on key_door?](../comparisons/on%20key_door.html) | key_door |" in found
    assert "| 80 % [75, 85], better than grpo (+10.0 points) | 80 % [75, 85] |" in found
    assert "| 70 % [65, 75] |" in plain(technique(catalogue.card("grpo"), evidence))
    assert "## Comparisons" not in technique(catalogue.card("ppo"), evidence)


def test_the_list_of_comparisons_gives_the_question_and_what_came_out(a_comparison):
    found = plain(comparisons(Evidence({}, {}, {"one": a_comparison("no difference", 0.01)})))
    assert "## Does rloo beat grpo on key_door?" in found
    assert "No difference between rloo and grpo was shown with 2 seeds." in found
    assert "[The report](comparisons/one.html)" in found
    assert "2 seeds (0, 1), 40,000 tokens a run, on key_door" in found


def test_the_list_of_comparisons_says_who_is_preferred_where_answers_are_compared(a_comparison):
    compared = a_comparison("no difference", 0.01)
    sure, tie = Estimate(0.9, 0.8, 1.0), Estimate(0.5, 0.5, 0.5)
    lost = Estimate(0.1, 0.0, 0.2)
    wins = ((tie, lost, sure), (sure, tie, sure), (lost, lost, tie))
    contest = Contest("lab:circle", "table", ("grpo", "rloo", "before training"), (0, 1), 1, True, wins, None, ())
    analysis = dataclasses.replace(compared.analysis, contests=(contest,))
    found = plain(comparisons(Evidence({}, {}, {"one": dataclasses.replace(compared, analysis=analysis)})))
    assert (
        "Policies against each other on lab:circle: rloo is preferred to the final policy of every other arm." in found
    )


def test_an_empty_list_of_comparisons_says_so():
    assert "No comparison is on record yet." in comparisons(NOTHING)


# ---- all pages ------------------------------------------------------------------------------------------------------


def test_every_technique_and_family_has_a_page_that_its_family_links_to():
    written = pages(NOTHING)
    for card in catalogue.cards():
        assert f"methods/{card.name}.md" in written
        assert f"](../{card.name}.md)" in written[f"methods/{card.family}/index.md"]
        assert f"]({card.family}/index.md)" in written["methods/index.md"]


def test_the_families_count_their_verdicts(tmp_path):
    write_record(a_record(values=(2.4, 2.5, 2.6)), tmp_path / claims.FOLDER.name)
    written = pages(Evidence.read(tmp_path))
    listed = len(catalogue.cards("baselines"))
    assert f"| [Baselines](baselines/index.md) | {listed} | 0 | 1 | 0 | {listed - 1} |" in written["methods/index.md"]
    row = next(line for line in written["methods/baselines/index.md"].splitlines() if "(../rloo.md)" in line)
    assert '<span class="verdict fails">fails</span>' in row


def test_a_record_that_cannot_be_read_is_named(tmp_path):
    folder = tmp_path / claims.FOLDER.name
    folder.mkdir()
    (folder / "rloo.json").write_text("{")
    with pytest.raises(InputError, match=r"rloo\.json: is not the record of a claim"):
        Evidence.read(tmp_path)


# ---- text -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_claims")
def test_what_a_record_says_is_text_and_never_markup():
    hostile = '<script>alert("*x*")</script> [a](javascript:b) | ![c](d)\n\n# e {.f}'
    page = with_record(a_record(statement=hostile, scale=hostile))
    assert "<script" not in page and "](javascript" not in page and "\n# e" not in page
    assert " ".join(hostile.split()) in plain(page)


@given(st.text(st.characters(exclude_categories=("C",))) | st.text("ab1 *_`[](){}<>&|#!~:;.+-=^$\"'\\/@\n"))
def test_text_reads_the_same_after_markdown_has_seen_it(sentence):
    markdown = pytest.importorskip("markdown")
    pytest.importorskip("pymdownx")
    page = markdown.markdown(text(sentence), extensions=["tables", "attr_list", "admonition", "pymdownx.details"])
    assert html.unescape(page.removeprefix("<p>").removesuffix("</p>")).strip() == " ".join(sentence.split())


def test_backticks_in_a_sentence_mark_code_and_a_lone_one_is_a_backtick():
    assert prose("noise of `a*b`") == Markup("noise of <code>a&#42;b</code>")
    assert html.unescape(prose("5` long")) == "5` long"


def test_seeds_are_written_short():
    assert [seeds(numbers) for numbers in ([0, 1, 2, 3], [5, 7], [9, 8, 7])] == [
        "4 seeds (0 to 3)", "2 seeds (5, 7)", "3 seeds (7 to 9)",
    ]  # fmt: skip
