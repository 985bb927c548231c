"""``compare`` and ``report``: techniques against each other, and the pages that show it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from stratagem.cli.run_commands import Precision, parse_precision, parse_values
from stratagem.errors import InputError

if TYPE_CHECKING:
    from stratagem.estimate import Estimate
    from stratagem.study.comparison import Analysis, Comparison, Contest, Contrast, Summary
    from stratagem.study.trials import Progress as Advance


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(compare)
    app.command()(report)


def compare(
    arms: Annotated[list[str], typer.Argument(help="Techniques or YAML files; the first is the reference.")],
    tasks: Annotated[list[str], typer.Option("--task", help="What to train on; may be repeated.")],
    seeds: Annotated[int, typer.Option(help="Runs of each arm on each task.")] = 5,
    first_seed: Annotated[int, typer.Option(min=0, help="The first of the seeds; the others follow.")] = 0,
    budget: Annotated[int | None, typer.Option(help="Tokens (actions, for control) a run may sample.")] = None,
    model: Annotated[str | None, typer.Option(help="Model folder or hub name; default: the tiny model.")] = None,
    values: Annotated[list[str] | None, typer.Option("--set", help="FIELD=VALUE, changed in every arm.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the comparison; one that is there goes on.")] = None,
    evaluations: Annotated[int, typer.Option(help="Evaluations over the budget, beside the first.")] = 8,
    episodes: Annotated[int, typer.Option(help="Held-out episodes of an evaluation, in each mode.")] = 100,
    threshold: Annotated[float | None, typer.Option(help="Score to count tokens to.")] = None,
    pass_at: Annotated[int, typer.Option(help="k of pass@k, measured of every run's best policy.")] = 0,
    jobs: Annotated[int | None, typer.Option(help="Runs side by side; default: one for each core.")] = None,
    threads: Annotated[int, typer.Option(help="Threads of each run.")] = 1,
    precision: Precision = "auto",
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto (cuda where there is one).")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the analysis as JSON.")] = False,
) -> None:
    """Compare techniques: the same model, task, seeds and tokens for each; a table with intervals, and a report."""
    import dataclasses

    from stratagem.study import compare as comparing

    with _progress() as progress:
        result = comparing.compare(
            arms,
            tasks,
            seeds=range(first_seed, first_seed + seeds),
            budget=budget,
            model=model,
            values=parse_values(values or []),
            out=out,
            evaluations=evaluations,
            episodes=episodes,
            threshold=threshold,
            precision=parse_precision(precision),
            device=device,
            threads=threads,
            pass_at=pass_at,
            jobs=jobs,
            progress=progress,
        )
    if as_json:
        print(json.dumps(dataclasses.asdict(result.analysis), indent=1))
        return
    console = Console(highlight=False)
    show_comparison(result, console)
    folder = out or comparing.default_folder(result.plan)
    console.print(f"results: {folder}/results.json   report: {folder}/report.html", markup=False, soft_wrap=True)


def report(
    source: Annotated[Path, typer.Argument(help="Run directory, comparison folder, or results.json.")],
    out: Annotated[Path | None, typer.Option(help="The page; default: report.html beside what it shows.")] = None,
) -> None:
    """Write the report page of a run or of a comparison anew."""
    from stratagem.study.comparison import read_comparison
    from stratagem.study.comparison_report import write_comparison_report
    from stratagem.study.report import write_report
    from stratagem.training.run_directory import RunDirectory

    if (source / "run.json").is_file():
        page = write_report([RunDirectory(source)], out or source / "report.html", "Training run")
    else:
        if not source.exists():
            raise InputError(
                f"report {source}: there is nothing; name a run directory, a comparison or its results.json"
            )
        folder = source if source.is_dir() else source.parent
        page = write_comparison_report(read_comparison(source), out or folder / "report.html")
    print(f"report: {page}")


# ---- what is shown ---------------------------------------------------------------------------------------------------


@contextmanager
def _progress() -> Iterator[Advance | None]:
    """A bar over the runs on a terminal, nothing elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
        runs = bar.add_task("runs", total=None)

        def advance(done: int, total: int, line: str) -> None:
            bar.update(runs, completed=done, total=total)
            bar.console.print(line, markup=False, highlight=False)

        yield advance


def show_comparison(comparison: Comparison, console: Console) -> None:
    """A table for each task, and one for all together where there is more than one."""
    plan, analysis = comparison.plan, comparison.analysis
    console.print(
        f"{len(plan.seeds)} seeds, {plan.budget:,} tokens a run, {plan.episodes} held-out episodes an evaluation; "
        f"interquartile means with 95 % intervals, judged against {plan.reference}"
    )
    for task in dict.fromkeys(summary.task for summary in analysis.summaries):
        console.print()
        console.print(f"[bold]{_escaped(task or 'all tasks together')}[/bold]")
        console.print(_table(analysis, task))
        figures = _figures(analysis, task)
        if figures is not None:
            console.print(figures)
        for contest in analysis.contests:
            if contest.task == task:
                _show_contest(contest, console)
    for note in analysis.notes:
        console.print(note, markup=False)


def _table(analysis: Analysis, task: str | None) -> Table:
    """A row for each arm; under a score, what the comparison with the reference says of it."""
    threshold = analysis.thresholds.get(task or "")
    reach = "tokens to threshold" if threshold is None else f"tokens to {threshold:.2f}"
    table = Table("", "at the end", "over the budget", "greedy, at the end", reach, "cost", box=None, pad_edge=False)
    verdicts = {(c.arm, c.quantity): _verdict(c) for c in analysis.contrasts if c.task == task}
    for summary in analysis.summaries:
        if summary.task != task:
            continue
        cells = (
            summary.arm,
            f"{_estimate(summary.final)}\n{verdicts.get((summary.arm, 'final'), 'reference')}",
            f"{_estimate(summary.area)}\n{verdicts.get((summary.arm, 'area'), 'reference')}",
            _estimate(summary.greedy),
            _reached(summary),
            f"{summary.tokens:,.0f} tokens\n{summary.seconds:.1f} s, {summary.peak_memory:,.0f} MiB",
        )
        table.add_row(*map(_escaped, cells))
    return table


def _figures(analysis: Analysis, task: str | None) -> Table | None:
    """What else was measured of each arm; None where nothing was."""
    summaries = [summary for summary in analysis.summaries if summary.task == task]
    names = list(dict.fromkeys(name for summary in summaries for name in summary.figures))
    if not names:
        return None
    table = Table("", *names, box=None, pad_edge=False)
    for summary in summaries:
        cells = (_estimate(summary.figures[name]) if name in summary.figures else "" for name in names)
        table.add_row(summary.arm, *map(_escaped, cells))
    return table


def _show_contest(contest: Contest, console: Console) -> None:
    """Who is preferred to whom, a row for each player, and how exploitable each is where that is known."""
    from stratagem.study.contest_text import cell, gap, judged, sentences

    console.print()
    console.print(
        f"final policies against each other, judged {judged(contest)}: how often a row is preferred to a "
        f"column, ties half; means over {len(contest.seeds)} seeds with 95 % intervals",
        markup=False,
    )
    gaps = contest.exploitability
    table = Table(box=None, pad_edge=False)
    for name in ("", *contest.players, *([] if gaps is None else ["exploitability"])):
        table.add_column(_escaped(name), overflow="fold")
    for row, player in enumerate(contest.players):
        cells = [cell(contest, row, column).text.replace(" % ", " %\n") for column in range(len(contest.players))]
        cells += [] if gaps is None else [gap(gaps[row]).replace(" ", "\n", 1)]
        table.add_row(*map(_escaped, [player, *cells]))
    console.print(table)
    for sentence in sentences(contest):
        console.print(sentence, markup=False)


def _estimate(estimate: Estimate) -> str:
    return f"{estimate.value:.3g} [{estimate.low:.3g}, {estimate.high:.3g}]"


def _verdict(contrast: Contrast) -> str:
    p = "p < 0.001" if contrast.adjusted_p < 0.001 else f"p = {contrast.adjusted_p:.3f}"
    return f"{contrast.verdict}: {contrast.difference.value:+.3g}, {p}"


def _reached(summary: Summary) -> str:
    tokens = summary.tokens_to_threshold
    if tokens is None:
        return f"most did not ({summary.reached} did)"
    return f"{tokens:,.0f}" if summary.reached == summary.runs else f"{tokens:,.0f} ({summary.reached} did)"


def _escaped(text: str) -> str:
    return text.replace("[", "\\[")
