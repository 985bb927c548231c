"""``methods``, ``show`` and ``tasks``: what there is."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from stratagem import catalogue
from stratagem.cli.claim_command import measured_rows, summary
from stratagem.recipe import Recipe
from stratagem.slots import by_slot
from stratagem.study.claims import Record, recorded, shipped
from stratagem.study.entropy_law import EntropyCourse
from stratagem.study.roadmap import Roadmap
from stratagem.tasks import registry
from stratagem.taxonomy import VERSION, covers
from stratagem.training.ledger import Audit, audit_run
from stratagem.training.run_directory import RunDirectory

LAB = Path("results/lab")
"""Where what the lab found is recorded, and looked for first."""

Json = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(methods)
    app.command()(show)
    app.command()(tasks)


def methods(
    family: Annotated[list[str] | None, typer.Option(help="Only this family; repeat for more.")] = None,
    role: Annotated[
        list[str] | None, typer.Option(help="Only techniques that change this part; repeat for more.")
    ] = None,
    slot: Annotated[
        list[str] | None,
        typer.Option(
            help="Only techniques in this slot: search, or more closely search.structure.tree; repeat for more."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the techniques that work."""
    slots = slot or []
    cards = catalogue.cards(family or [], role or [], slots)
    if as_json:
        print(json.dumps([_entry(card) for card in cards], indent=2))
        return
    tables = {shown: _methods(members, slots) for shown, members in groupby(cards, key=lambda card: card.family)}
    console = Console(highlight=False)
    for shown, table in tables.items():
        console.print(f"[bold]{shown}[/bold]")
        console.print(table)


def show(
    name: Annotated[str, typer.Argument(help="A technique of the catalogue, or the directory of a run.")],
    entropy: Annotated[
        bool, typer.Option("--entropy", help="How a run's entropy fell, and what it earned by.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show a technique (its card, slots, claim, parts, difference from its base), or which slots a run fills."""
    if entropy:
        _show_entropy(EntropyCourse.of_run(name), as_json)
        return
    if (Path(name) / "run.json").is_file():
        _show_run(Roadmap.of_run(name), audit_run(RunDirectory(Path(name))), as_json)
        return
    card = catalogue.card(name)
    record = recorded(name)
    built = None if inspect.isclass(card.build) else card.build()
    recipe = built if isinstance(built, Recipe) else None
    base = catalogue.card(card.base).recipe() if card.base and recipe else None
    changes = recipe.diff(base) if recipe and base else []
    if as_json:
        parts = recipe.flat() if recipe else {}
        differences = [{"path": c.path, "before": c.before, "after": c.after} for c in changes]
        details = {"record": dataclasses.asdict(record) if record else None, "parts": parts, "diff": differences}
        print(json.dumps({**_entry(card), "summary": card.summary, **details}, indent=2))
        return
    console = Console(highlight=False)
    source = f"arXiv {card.arxiv}" if card.arxiv else "no arXiv identifier"
    console.print(f"[bold]{card.name}[/bold]: {card.title} ({card.year}, {source})")
    console.print(card.summary, markup=False)
    _show_slots(card.tags, console)
    if record is None:
        console.print("\n[bold]Claim[/bold]: not measured")
    else:
        _show_claim(record, console)
    _show_lab(name, console)
    if base is not None:
        console.print(f"\n[bold]Against {card.base}[/bold]")
        table = Table("field", str(card.base), card.name, box=None, pad_edge=False)
        for change in changes:
            table.add_row(change.path, _cell(change.before), _cell(change.after))
        console.print(table)
    if recipe is not None:
        console.print("\n[bold]Parts[/bold] (change any with --set FIELD=VALUE)")
        table = Table("field", "value", box=None, pad_edge=False)
        for path, value in recipe.flat().items():
            table.add_row(path, _cell(value))
        console.print(table)


def tasks(as_json: Json = False) -> None:
    """List the tasks a policy can be trained on."""
    cards = registry.known()
    if as_json:
        keys = ("name", "pattern", "description", "extra")
        print(json.dumps([{key: getattr(card, key) for key in keys} for card in cards], indent=2))
        return
    table = Table("specification", "what", "needs", box=None, pad_edge=False)
    for card in cards:
        table.add_row(_cell(card.pattern), card.description, f"stratagem\\[{card.extra}]" if card.extra else "")
    Console().print(table)


def _methods(cards: Iterable[catalogue.Card], slots: Sequence[str]) -> Table:
    """Name, verdict of the claim, what the technique is, and, where slots were asked for, its tags there."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for column, wraps in (("name", False), ("claim", False), ("what", True), ("slot", True))[: 3 + bool(slots)]:
        table.add_column(column, no_wrap=not wraps)
    for card in cards:
        record = recorded(card.name)
        source = f"{card.year}, arXiv {card.arxiv}" if card.arxiv else str(card.year)
        what = f"{card.title} ({source}), changes {', '.join(card.roles)}"
        there = [", ".join(tag for tag in card.tags if any(covers(slot, [tag]) for slot in slots))] if slots else []
        table.add_row(card.name, record.verdict if record else "", _cell(what), *there)
    return table


def _show_slots(tags: Sequence[str], console: Console) -> None:
    """What is in each of the four slots of arXiv 2412.14135, and which open questions are touched."""
    console.print(f"\n[bold]Slots[/bold] (taxonomy {VERSION})")
    table = Table(box=None, pad_edge=False, show_header=False)
    for slot, there in by_slot(tags).items():
        table.add_row(slot, ", ".join(tag.removeprefix(f"{slot}.") for tag in there) or "-")
    limits = [tag.removeprefix("limits.question.") for tag in tags if tag.startswith("limits.")]
    if limits:
        table.add_row("limits", ", ".join(limits))
    console.print(table)


def _show_run(roadmap: Roadmap, ledger: Audit, as_json: bool) -> None:
    if as_json:
        episodes = {**dataclasses.asdict(ledger), "proved": ledger.proved} if ledger.steps else None
        print(json.dumps({**roadmap.to_json(), "episodes": episodes}, indent=2))
        return
    console = Console(highlight=False)
    sampled = "no tokens yet" if roadmap.tokens is None else f"{roadmap.tokens} tokens in training, all of them counted"
    console.print(f"[bold]{roadmap.recipe}[/bold]: sampled {sampled}")
    if ledger.steps:
        console.print(f"[bold]Episodes[/bold]: {_accounted(ledger)}")
    _show_slots(roadmap.tags, console)
    found = roadmap.behaviours
    if not found.rollouts:
        console.print("\n[bold]Behaviours[/bold]: no rollout with text in samples.jsonl")
        return
    console.print(f"\n[bold]Behaviours[/bold] (phrases and events in {found.rollouts} rollouts of samples.jsonl)")
    table = Table("behaviour", "per rollout", "in rollouts", box=None, pad_edge=False)
    for name in found.counts:
        table.add_row(name, f"{found.per_rollout(name):.2f}", str(found.shown[name]))
    console.print(table)


def _accounted(ledger: Audit) -> str:
    """What the ledger of a run says, in a line."""
    fates = "".join(f", {count} {fate}" for fate, count in ledger.left_out.items())
    counted = f"{ledger.begun} begun, {ledger.learned} learned from once{fates}"
    if ledger.proved:
        return f"{counted}; all are accounted for"
    return f"{counted}; NOT accounted for: {ledger.violation or f'{ledger.missing} groups are missing'}"


def _show_entropy(course: EntropyCourse, as_json: bool) -> None:
    if as_json:
        print(json.dumps(course.to_json(), indent=2))
        return
    console = Console(highlight=False)
    table = Table("batches", "entropy, nats", course.measure, box=None, pad_edge=False)
    for first, last, entropy, earned in course.pieces():
        table.add_row(f"{first} to {last}", f"{entropy:.4f}", f"{earned:.4f}")
    console.print(table)
    console.print(f"entropy used up: {100 * course.used_up:.0f} % (first of these rows to the last)")
    if course.law is None:
        console.print(f"no law: {course.why_no_law}", markup=False)
        return
    law = course.law
    console.print(
        f"{course.measure} = {-law.a:.4g} exp(entropy) + {law.b:.4g}, explains {100 * law.r_squared:.0f} % of its "
        f"variance; at no entropy {law.ceiling:.4g}"
    )
    foretold = course.foretold()
    if foretold is not None:
        console.print(
            f"the first quarter foretells {foretold[0]:.4g} for the last tenth, which earned {foretold[1]:.4g}"
        )


def _show_claim(record: Record, console: Console) -> None:
    seeds = f"{len(record.seeds)} seeds, {record.seconds:.1f} s"
    console.print(f"\n[bold]Claim[/bold]: {record.verdict} ({seeds})")
    console.print(f"{record.statement} ({record.source})", markup=False)
    console.print(f"Compared with {record.baseline}. {record.scale}", markup=False)
    table = Table("measured", "mean", "expected", box=None, pad_edge=False)
    for row in measured_rows(record):
        table.add_row(*row)
    console.print(table)
    if len(record.measurements) > 1:
        for measurement in record.measurements:
            console.print(f"seeds {', '.join(map(str, measurement.seeds))}: {measurement.verdict}")


def _show_lab(name: str, console: Console) -> None:
    """What the lab found, where it is recorded: here, or with Stratagem."""
    places = [LAB / f"{name}.json", shipped(LAB) / f"{name}.json"]
    if not any(place.is_file() for place in places):
        return
    from stratagem.cli.lab_command import diagnosis_table
    from stratagem.lab.record import read_lab_record  # brings in the lab, for which no listing of tasks should wait

    record = read_lab_record(places[0]) or read_lab_record(places[1])
    assert record is not None
    console.print("\n[bold]Lab[/bold] (stratagem lab explains the columns)")
    for steps in dict.fromkeys(diagnosis.stale_steps for diagnosis in record.diagnoses):
        if steps:
            console.print(f"\nafter {steps} steps since sampling")
        rows = [(diagnosis.game, diagnosis) for diagnosis in record.diagnoses if diagnosis.stale_steps == steps]
        console.print(diagnosis_table(rows, "game"))


def _entry(card: catalogue.Card) -> dict[str, Any]:
    record = recorded(card.name)
    return {
        "name": card.name,
        "title": card.title,
        "family": card.family,
        "roles": list(card.roles),
        "arxiv": card.arxiv,
        "year": card.year,
        "base": card.base,
        "tags": list(card.tags),
        "claim": summary(record) if record else None,
    }


def _cell(value: object) -> str:
    return "-" if value is None else str(value).replace("[", "\\[")
