"""``align``: what a model can do in a task before it is trained there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from stratagem.cli.progress import progress_bar
from stratagem.cli.run_commands import Precision, Seed, parse_numbers, parse_precision
from stratagem.errors import InputError

if TYPE_CHECKING:
    from stratagem.estimate import Estimate
    from stratagem.study.alignment import Alignment

KS = (1, 8, 64)
"""Those of pass@k unless others are asked for; a number beyond the samples is left out."""


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(align)


def align(
    task: Annotated[str, typer.Option(help="What the model would be trained on, such as key_door or lab:prompts.")],
    model: Annotated[
        str | None, typer.Option(help="Model folder or hub name; default: what a run starts with.")
    ] = None,
    prompts: Annotated[int, typer.Option(min=1, help="Prompts (start states) to sample from.")] = 32,
    samples: Annotated[int, typer.Option(min=1, help="Episodes from each prompt.")] = 64,
    k: Annotated[str | None, typer.Option("--k", help="Comma-separated k of pass@k; default 1,8,64.")] = None,
    seed: Seed = 0,
    aligned_from: Annotated[float, typer.Option(min=0, max=1, help="pass@8 from which a task is aligned.")] = 0.5,
    contaminated_from: Annotated[float, typer.Option(min=0, max=1, help="Contamination from which it counts.")] = 0.2,
    at_least: Annotated[int, typer.Option(min=0, help="Right samples of a prompt to train on.")] = 1,
    at_most: Annotated[int | None, typer.Option(min=0, help="No more than these; default: any number.")] = None,
    precision: Precision = "auto",
    concurrency: Annotated[int, typer.Option(min=1, help="Episodes played side by side.")] = 256,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds an environment may take for a step.")] = 30.0,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto (cuda where there is one).")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:
    """Measure model-task alignment: pass@k before training, groups that can teach, prompts known by heart."""
    from stratagem import run

    ks = [number for number in KS if number <= samples] if k is None else parse_numbers(k, "--k")
    if at_most is not None and at_most < at_least:
        raise InputError(f"--at-most {at_most}: must be no less than --at-least {at_least}")
    with progress_bar("sampling") as progress:
        found = run.align(
            task,
            model,
            prompts=prompts,
            samples=samples,
            ks=ks,
            seed=seed,
            aligned_from=aligned_from,
            contaminated_from=contaminated_from,
            precision=parse_precision(precision),
            concurrency=concurrency,
            timeout=timeout,
            device=device,
            progress=progress,
        )
    passes = {number: found.estimate(number) for number in ks}
    # A prompt that came several times counts when one of them does.
    solved = sorted(set(found.solved(at_least, at_most)))
    if as_json:
        print(
            json.dumps(
                {"task": task, "model": model, "seed": seed, **_plain(found, passes), "start_states": solved}, indent=2
            )
        )
        return
    console = Console(highlight=False)
    console.print(f"[bold]{len(found.prompts)} prompts, {samples} samples of each[/bold]{_failed(found)}")
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in _rows(found, passes):
        table.add_row(name, value)
    console.print(table)
    console.print(found.reading, markup=False)
    chosen = f"--set 'sampler.start_states={solved}'" if solved else "none"
    console.print(
        f"to train on those with {_between(at_least, at_most)} right samples: {chosen}", markup=False, soft_wrap=True
    )


def _between(at_least: int, at_most: int | None) -> str:
    return f"at least {at_least}" if at_most is None else f"{at_least} to {at_most}"


def _failed(found: Alignment) -> str:
    return f" ({found.failed} episodes failed)" if found.failed else ""


def _rows(found: Alignment, passes: Mapping[int, Estimate]) -> list[tuple[str, str]]:
    place = found.reward_variances.index(max(found.reward_variances))
    contamination = "not measured" if found.contamination is None else f"{found.contamination:.2f}"
    return [
        *((f"pass@{k}", f"{p.value:.3f} \\[{p.low:.3f}, {p.high:.3f}]") for k, p in passes.items()),
        ("never right", f"{100 * found.none_correct:.0f} % of the prompts"),
        ("right and wrong", f"{100 * found.mixed:.0f} %"),
        ("always right", f"{100 * found.all_correct:.0f} %"),
        ("contamination", contamination),
        ("zone", f"{found.zone} (pass@{found.zone_pass_k} {found.pass_at(found.zone_pass_k):.3f})"),
        ("most varied prompt", f"{found.prompts[place]} ({found.correct[place]} of {found.samples[place]} right)"),
    ]


def _plain(found: Alignment, passes: Mapping[int, Estimate]) -> dict[str, Any]:
    counts = zip(found.prompts, found.samples, found.correct, strict=True)
    return {
        "pass_at": {str(k): {"value": p.value, "low": p.low, "high": p.high} for k, p in passes.items()},
        "none_correct": found.none_correct,
        "mixed": found.mixed,
        "all_correct": found.all_correct,
        "contamination": found.contamination,
        "zone": found.zone,
        "zone_k": found.zone_pass_k,
        "most_varied": found.most_varied()[0],
        "failed": found.failed,
        "reading": found.reading,
        "prompts": [{"prompt": p, "samples": n, "correct": c} for p, n, c in counts],
    }
