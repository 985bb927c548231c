"""The Markdown of the site's generated pages: techniques and their families, with what is recorded of each."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any, get_args

import yaml
from interval_figure import interval_figure, number
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from stratagem import catalogue
from stratagem.catalogue import Card
from stratagem.estimate import Estimate
from stratagem.lab import Diagnosis, objection
from stratagem.lab.record import LabRecord, read_lab_record
from stratagem.objectives import AnswerHead
from stratagem.part import Part
from stratagem.recipe import Recipe
from stratagem.sampling import Guided, Improving, ProbedTasks
from stratagem.study.claims import FOLDER, Claim, Expect, Record, Verdict, claims, read_record
from stratagem.study.comparison import Comparison, Quantity, Summary, read_comparison
from stratagem.study.comparison_report import finding, judgement, measure_on, overview, question, score_text
from stratagem.study.contest_text import sentences as of_contest
from stratagem.study.page import shown
from stratagem.study.stress import Stress, read_stress
from stratagem.study.stress_report import sentences

# ---- what is recorded -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Evidence:
    """All that is recorded: claims and lab verdicts by technique, comparisons and stress by the name of the folder."""

    records: Mapping[str, Record]
    labs: Mapping[str, LabRecord]
    comparisons: Mapping[str, Comparison]
    stress: Mapping[str, Stress] = field(default_factory=dict)

    @classmethod
    def read(cls, results: Path) -> Evidence:
        """What the folder ``results`` holds. Raises :class:`InputError` naming a file that is broken."""
        names = [card.name for card in catalogue.cards()]
        records = {name: read_record(name, results / FOLDER.name) for name in names}
        labs = {name: read_lab_record(results / "lab" / f"{name}.json") for name in names}
        comparisons = sorted(results.glob("compare/*/results.json"))
        return cls(
            {name: record for name, record in records.items() if record is not None},
            {name: lab for name, lab in labs.items() if lab is not None},
            {path.parent.name: read_comparison(path) for path in comparisons},
            {path.parent.name: _stress(path) for path in sorted(results.glob("stress/*/results.json"))},
        )


# ---- pages ----------------------------------------------------------------------------------------------------------


def pages(evidence: Evidence) -> dict[str, str]:
    """Every generated page by its address in the site."""
    families = [family for family in catalogue.FAMILIES if catalogue.cards(family)]
    return {
        "methods/index.md": _methods(families, evidence),
        **{family_page(family): _family(family, evidence) for family in families},
        **{f"methods/{card.name}.md": technique(card, evidence) for card in catalogue.cards()},
        "comparisons.md": comparisons(evidence),
        "lab.md": lab_overview(evidence),
    }


def family_page(family: str) -> str:
    """The address of a family's page."""
    return f"methods/{family}/index.md"


def family_title(family: str) -> str:
    """What a family is called in headings."""
    return family.capitalize()


def technique(card: Card, evidence: Evidence) -> str:
    """The page of a technique: card, parts, difference from its base, claim, lab, comparisons, commands, all fields."""
    recipe = _recipe(card)
    base = _recipe(catalogue.card(card.base)) if card.base and recipe else None
    claim, record, judged = _claims().get(card.name), evidence.records.get(card.name), evidence.labs.get(card.name)
    return _render(
        "technique.md.jinja",
        card=card,
        description=Markup(inspect.getdoc(card.build) or ""),
        recipe=recipe,
        parts=list(_parts(recipe)) if recipe else [],
        changes=recipe.diff(base) if recipe and base else [],
        derived=[other.name for other in catalogue.cards() if other.base == card.name],
        claim=record or claim,
        record=record,
        outdated=claim is not None and record is not None and not record.describes(claim),
        readings=list(_readings(record)) if record else [],
        lab=judged,
        standings=list(_standings(card, evidence)),
        commands=list(_commands(card, recipe, claim, judged=card.name in evidence.labs)),
        arguments=list(inspect.signature(card.build).parameters.values()),
    )


def _stress(path: Path) -> Stress:
    found = read_stress(path)
    assert found is not None
    return found


def lab_overview(evidence: Evidence) -> str:
    """The page with one row for every technique the lab has judged."""
    judged = {card.name: evidence.labs[card.name] for card in catalogue.cards() if card.name in evidence.labs}
    games = list(dict.fromkeys(game for record in judged.values() for game in record.games))
    steps = max((d.stale_steps for record in judged.values() for d in record.diagnoses), default=0)
    absent = [(card.name, _why_absent(card)) for card in catalogue.cards() if card.name not in judged]
    rows = [_lab_row(name, record) for name, record in judged.items()]
    return _render("lab_overview.md.jinja", rows=rows, games=games, steps=steps, absent=absent)


def _lab_row(name: str, record: LabRecord) -> dict[str, str]:
    fresh = [diagnosis for diagnosis in record.diagnoses if diagnosis.stale_steps == 0]
    stale = [diagnosis for diagnosis in record.diagnoses if diagnosis.stale_steps]
    verdicts = Counter(diagnosis.verdict for diagnosis in fresh)
    noises = [diagnosis.noise.value for diagnosis in fresh if diagnosis.noise is not None]

    def least_cosine(diagnoses: Sequence[Diagnosis]) -> str:
        cosines = [diagnosis.cosine.value for diagnosis in diagnoses if diagnosis.cosine is not None]
        return f"{min(cosines):.3f}" if cosines else "—"

    return {
        "name": name,
        "verdicts": ", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common()),
        "bias": f"{max(diagnosis.bias.value for diagnosis in fresh):.2f}",
        "noise": f"{median(noises):.2f}" if noises else "—",
        "cosine": least_cosine(fresh),
        "stale": least_cosine(stale),
    }


def _why_absent(card: Card) -> str:
    recipe = _recipe(card)
    return "no recipe" if recipe is None else objection(recipe) or "not recorded"


def comparisons(evidence: Evidence) -> str:
    """The page that lists the recorded comparisons: what was asked, and what came out for every arm."""
    listed = [
        {
            "name": name,
            "question": question(comparison.plan),
            "answer": _answer(comparison),
            "plan": comparison.plan,
            "contests": [(contest.task, " ".join(of_contest(contest))) for contest in comparison.analysis.contests],
        }
        for name, comparison in evidence.comparisons.items()
    ]
    stressed = {name: list(sentences(stress)) for name, stress in evidence.stress.items()}
    return _render("comparisons.md.jinja", comparisons=listed, stress=evidence.stress, sentences=stressed)


def _answer(comparison: Comparison) -> str:
    """What came out: a sentence for a single arm, else the arms by what was shown of them."""
    judgements = [judgement(comparison, arm) for arm in list(comparison.plan.arms)[1:]]
    return judgements[0].headline if len(judgements) == 1 else overview(judgements)


def _methods(families: Sequence[str], evidence: Evidence) -> str:
    counts = {family: Counter(_verdict(card, evidence) for card in catalogue.cards(family)) for family in families}
    return _render("methods.md.jinja", counts=counts)


def _family(family: str, evidence: Evidence) -> str:
    listed = [(card, _verdict(card, evidence)) for card in catalogue.cards(family)]
    return _render("family.md.jinja", family=family, listed=listed)


def _verdict(card: Card, evidence: Evidence) -> Verdict | None:
    record = evidence.records.get(card.name)
    return record.verdict if record else None


# ---- what a technique is --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Piece:
    """A part of a recipe: the path under which it is found, its class, its formula, and its own values by field."""

    path: str
    part: Part
    formula: Markup
    values: dict[str, Any]

    @property
    def reference(self) -> Markup | None:
        """Where the reference describes it, for a part of ours."""
        return reference(type(self.part))


def reference(target: Any) -> Markup | None:
    """The name under which the reference describes a class or function, None when it is not one of ours."""
    ours = target.__module__.split(".")[0] == "stratagem"
    return Markup(f"{target.__module__}.{target.__qualname__}") if ours else None


def _recipe(card: Card) -> Recipe | None:
    """The recipe of a technique that is one; a class of another kind is not built, for that may take arguments."""
    built = None if inspect.isclass(card.build) else card.build()
    return built if isinstance(built, Recipe) else None


def _parts(recipe: Recipe) -> Iterator[Piece]:
    """All parts, outer ones first."""
    values = recipe.flat()
    for path, part in _nested("", recipe):
        own = {key.rpartition(".")[2]: value for key, value in values.items() if key.rpartition(".")[0] == path}
        children = {name.split(".")[0] for name, _ in part.children()}
        numbers = {name: value for name, value in own.items() if name not in children and value is not None}
        yield Piece(path, part, Markup((inspect.getdoc(part) or "").split("\n\n")[0].replace("\n", " ")), numbers)


def _nested(path: str, part: Part) -> Iterator[tuple[str, Part]]:
    for name, child in part.children():
        where = f"{path}.{name}" if path else name
        yield where, child
        yield from _nested(where, child)


def _commands(card: Card, recipe: Recipe | None, claim: Claim | None, judged: bool) -> Iterator[str]:
    """What a reader may try. judged: whether the lab has judged the technique, so that it can."""
    yield f"stratagem show {card.name}"
    if recipe is not None:
        yield f"stratagem train {card.name} --task {_task(recipe)}"
    if claim is not None:
        yield f"stratagem claim {card.name}"
    if judged or (recipe is not None and objection(recipe) is None):
        yield f"stratagem lab {card.name}"


def _task(recipe: Recipe) -> str:
    """One that a recipe can be tried on."""
    if recipe.architecture is not None:
        fronts = {"convolution": "pathfinding", "messages": "discs"}
        return fronts.get(getattr(recipe.architecture, "front", None) or "", "meeting")
    if isinstance(getattr(recipe.sampler, "curriculum", None), ProbedTasks):
        return "openended:grid"
    if isinstance(recipe.view, AnswerHead):
        return "pairs:labels.jsonl"
    if isinstance(recipe.sampler, Guided):
        return "guided:key_door"
    if isinstance(recipe.sampler, Improving):
        return "improve:routes"
    return "structured:key_door" if "span" in recipe.needs() else "key_door"


# ---- claims ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reading:
    """One measured quantity of a claim; ``expect`` is None where the rule does not speak of it.

    estimate: over all seeds.  values: of every seed.
    """

    quantity: str
    estimate: Estimate
    values: tuple[float, ...]
    expect: Expect | None

    @property
    def text(self) -> str:
        """``0.43 [0.4, 0.46]``; without an interval where every seed agrees."""
        return interval(self.estimate)

    @property
    def sentence(self) -> str:
        """What was measured and how it lies to the region the rule asks for, in plain words."""
        if self.expect is None:
            return f"{self.quantity} is {self.text}."
        region = self.expect.region
        if self.estimate.low == self.estimate.high:
            word = "" if self.expect.verdict(self.estimate) == "holds" else "not "
            return f"{self.quantity} is {self.text} with every seed, which is {word}{region}."
        words = {
            "holds": f"and all of its interval is {region}.",
            "fails": f"and none of its interval is {region}, as the claim needs.",
            "inconclusive": f"and only some of its interval is {region}, as the claim needs.",
        }
        return f"{self.quantity} is {self.text}, {words[self.expect.verdict(self.estimate)]}"

    @property
    def figure(self) -> Markup:
        """The quantity as a picture, with the sentence in its place for those who do not see it."""
        assert self.expect is not None
        return Markup(interval_figure(self.expect, self.estimate, self.values, text(self.sentence)))


def _readings(record: Record) -> Iterator[Reading]:
    """Those the rule speaks of, in its order, then the others."""
    rule = {expect.quantity: expect for expect in record.rule}
    estimates = record.estimates
    for quantity in [*rule, *(quantity for quantity in estimates if quantity not in rule)]:
        by_seed: dict[int, float] = {}
        for measurement in record.measurements:
            by_seed.update(zip(measurement.seeds, measurement.values.get(quantity, ()), strict=False))
        yield Reading(quantity, estimates[quantity], tuple(by_seed.values()), rule.get(quantity))


@cache
def _claims() -> dict[str, Claim]:
    return {claim.technique: claim for claim in claims()}


# ---- comparisons ----------------------------------------------------------------------------------------------------


AGAINST = {"better": "better than", "worse": "worse than", "no difference": "no difference shown to"}


@dataclass(frozen=True)
class Standing:
    """How a technique did in a comparison, on one task or all together.

    final, area: score at the end of the budget and over all of it, with what the difference from the reference shows;
    without that where the technique is itself the reference.
    """

    comparison: str
    question: str
    task: str
    final: str
    area: str


def _standings(card: Card, evidence: Evidence) -> Iterator[Standing]:
    for name, comparison in evidence.comparisons.items():
        plan = comparison.plan
        arms = [arm for arm in plan.from_catalogue if _recipe_name(plan.arms[arm]) == card.name]
        for summary in comparison.analysis.summaries:
            if summary.arm in arms:
                cells = (_cell(comparison, summary, quantity) for quantity in get_args(Quantity))
                yield Standing(name, question(plan), summary.task or "all tasks together", *cells)


@cache
def _recipe_name(text: str) -> str:
    """The name in a recipe's YAML."""
    name: str = yaml.safe_load(text)["name"]
    return name


def _cell(comparison: Comparison, summary: Summary, quantity: Quantity) -> str:
    """``80 % [75, 85], better than grpo (+10.0 points)``."""
    measure = measure_on(comparison, summary.task)
    cell = score_text(getattr(summary, quantity), measure)
    for contrast in comparison.analysis.contrasts:
        if (contrast.arm, contrast.task, contrast.quantity) == (summary.arm, summary.task, quantity):
            difference = finding(contrast, measure).difference
            cell += f", {AGAINST[contrast.verdict]} {contrast.reference} ({difference})"
    return cell


# ---- words and text -------------------------------------------------------------------------------------------------


def text(value: object) -> Markup:
    """A value as text that neither Markdown nor HTML reads anything into, on one line."""
    if isinstance(value, Markup):
        return value
    plain = re.sub(r"\s+", " ", str(value))
    return Markup(re.sub(r"[\\`*_{}\[\]<>&|#+\-.!:~\"'$^=]", lambda sign: f"&#{ord(sign[0])};", plain))


def code(value: object) -> Markup:
    """A value as code; a dash where there is none."""
    return text(shown(value)) if value is None else Markup(f"<code>{text(value)}</code>")


def prose(value: str) -> Markup:
    """A sentence as text, with what stands between backticks as code."""
    pieces = value.split("`")
    if len(pieces) % 2 == 0:
        return text(value)
    return Markup("").join(code(piece) if place % 2 else text(piece) for place, piece in enumerate(pieces))


def listed(values: Iterable[object], between: str = ", ") -> Markup:
    """Values as text, one after the other."""
    return text(between).join(map(text, values))


def interval(estimate: Estimate | None) -> str:
    """``0.43 [0.4, 0.46]``, without the interval where it has no width; a dash for None."""
    if estimate is None:
        return "—"
    value, low, high = (number(bound) for bound in (estimate.value, estimate.low, estimate.high))
    return f"{value} [{low}, {high}]" if estimate.low < estimate.high else value


def seeds(numbers: Sequence[int]) -> str:
    """``5 seeds (0 to 4)``."""
    ordered = sorted(numbers)
    whole = ordered == list(range(ordered[0], ordered[0] + len(ordered)))
    which = f"{ordered[0]} to {ordered[-1]}" if whole and len(ordered) > 2 else ", ".join(map(str, ordered))
    return f"{len(ordered)} seeds ({which})"


def annotation(argument: inspect.Parameter) -> str:
    """The type of an argument as its signature has it."""
    given = argument.annotation
    return given if isinstance(given, str) else inspect.formatannotation(given)


def _render(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    """Every value of a template is inert text unless it is already marked up."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=text,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    filters = (code, prose, listed, interval, seeds, annotation)
    environment.filters |= {function.__name__: function for function in filters}
    environment.globals |= {"family_title": family_title, "reference": reference}
    return environment
