"""``train``, ``eval`` and ``pretrain``: what runs."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
import yaml
from rich.console import Console
from rich.table import Table

from stratagem.cli.progress import progress_bar
from stratagem.errors import InputError

if TYPE_CHECKING:
    from stratagem.cluster.plan import Cluster

Seed = Annotated[int, typer.Option(min=0, help="Seed of every random choice.")]
Precision = Annotated[str, typer.Option(help="float32, bfloat16, or auto (bfloat16 where it is native).")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(train)
    app.command("eval")(evaluate)
    app.command()(pretrain)


def train(
    context: typer.Context,
    recipe: Annotated[str | None, typer.Argument(help="A technique of the catalogue, or a YAML file.")] = None,
    task: Annotated[str | None, typer.Option(help="What to train on, such as key_door or gym:CartPole-v1.")] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="Model folder or hub name (default: the tiny model); ROLE=PATH, repeated, for a team."),
    ] = None,
    engine: Annotated[str, typer.Option(help="What samples text: hf, or vllm (an extra).")] = "hf",
    steps: Annotated[int | None, typer.Option(min=1, help="Batches to learn from.")] = None,
    budget: Annotated[int | None, typer.Option(min=1, help="Tokens to sample, instead of --steps.")] = None,
    seed: Seed = 0,
    values: Annotated[list[str] | None, typer.Option("--set", help="FIELD=VALUE; see stratagem show.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run directory.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Continue the run in this directory.")] = None,
    precision: Precision = "auto",
    lora: Annotated[int | None, typer.Option(min=1, help="Rank of low-rank adapters.")] = None,
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="Compute layers twice rather than keep their activations.")
    ] = False,
    evaluate_every: Annotated[int, typer.Option(min=0, help="Batches between evaluations.")] = 10,
    episodes: Annotated[int, typer.Option(min=0, help="Held-out episodes of an evaluation, in each mode.")] = 100,
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Batches between checkpoints.")] = 10,
    concurrency: Annotated[int, typer.Option(min=1, help="Episodes played side by side.")] = 256,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds an environment may take for a step.")] = 30.0,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto (cuda where there is one).")] = "auto",
    cluster: Annotated[
        str | None, typer.Option(help="Run on Ray: local, HOST:PORT, auto; with --resume also none, for this process.")
    ] = None,
    learners: Annotated[int, typer.Option(min=1, help="On a cluster: processes that share the learning.")] = 1,
    rollout_workers: Annotated[int, typer.Option(min=1, help="On a cluster: processes that sample text.")] = 1,
    environment_workers: Annotated[
        int, typer.Option(min=0, help="On a cluster: processes that hold environments (0: the first learner does).")
    ] = 0,
    staleness: Annotated[int, typer.Option(min=0, help="On a cluster: batches rollouts may be ahead.")] = 0,
    slice_tokens: Annotated[
        int | None, typer.Option(min=1, help="On a cluster: tokens between which new weights may come into a turn.")
    ] = None,
    restarts: Annotated[int, typer.Option(min=0, help="On a cluster: restarts of dead processes of each kind.")] = 3,
    silence: Annotated[
        float, typer.Option(min=0.001, help="On a cluster: seconds without an answer that make a process dead.")
    ] = 600.0,
    offload: Annotated[bool, typer.Option("--offload", help="On GPUs of a cluster: weights in main memory.")] = False,
    wandb: Annotated[str | None, typer.Option(help="Weights & Biases project.")] = None,
) -> None:
    """Train a policy with a recipe on a task, or continue a run."""
    from stratagem import run

    workers = {
        "learners": learners,
        "rollout_workers": rollout_workers,
        "environment_workers": environment_workers,
        "staleness": staleness,
        "slice_tokens": slice_tokens,
        "restarts": restarts,
        "silence": silence,
        "offload": offload,
    }
    place = _cluster(context, cluster, workers)
    if resume is not None:
        _only(context, "resume", "steps", "cluster", *workers)
        with progress_bar("training") as progress:
            where: Cluster | Literal["as before"] | None = "as before" if cluster is None else place
            result = run.resume(resume, steps=steps, cluster=where, progress=progress)
    else:
        if recipe is None or task is None:
            raise InputError("train needs a recipe and --task, or --resume with a run directory")
        from stratagem.language.team import read_models

        with progress_bar("training") as progress:
            result = run.train(
                recipe,
                task,
                model=read_models(model or []),
                engine=engine,
                precision=parse_precision(precision),
                lora=lora,
                gradient_checkpointing=gradient_checkpointing,
                values=parse_values(values or []),
                out=out,
                steps=steps,
                budget=budget,
                seed=seed,
                evaluate_every=evaluate_every,
                evaluation_episodes=episodes,
                checkpoint_every=checkpoint_every,
                concurrency=concurrency,
                timeout=timeout,
                device=device,
                cluster=place,
                wandb=wandb,
                progress=progress,
            )
    console = Console(highlight=False)
    if result.evaluations:
        console.print(before_and_after([(result.directory.name, result.evaluations)]))
    console.print(f"run: {result.directory}   report: {result.directory / 'report.html'}", markup=False)


def evaluate(
    source: Annotated[str, typer.Argument(help="Run directory, model folder, hub name, or tiny.")],
    task: Annotated[str | None, typer.Option(help="By default the run's own.")] = None,
    episodes: Annotated[int, typer.Option(min=1, help="Held-out episodes, in each mode.")] = 200,
    seed: Seed = 0,
    precision: Precision = "auto",
    pass_at: Annotated[
        str | None, typer.Option(help="Comma-separated k of pass@k, over as many start states as --episodes.")
    ] = None,
    animate: Annotated[
        Path | None, typer.Option(help="Also write an episode as a page that shows agents move (HTML).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:
    """Evaluate a run's best policy, or a model, on held-out episodes: sampled and greedy, or pass@k."""
    from stratagem import run

    if animate is not None:
        run.animate(source, animate, task, seed=seed)
    if pass_at is not None:
        passes = run.pass_at(
            source,
            parse_numbers(pass_at, "--pass-at"),
            task,
            prompts=episodes,
            seed=seed,
            precision=parse_precision(precision),
        )
        if as_json:
            print(json.dumps({f"pass@{k}": None if math.isnan(p) else p for k, p in passes.items()}, indent=2))
        else:
            for k, value in passes.items():
                print(f"pass@{k}: {value:.3f}")
        return
    results = run.evaluate(source, task, episodes=episodes, seed=seed, precision=parse_precision(precision))
    if as_json:
        print(json.dumps([dataclasses.asdict(result) for result in results], indent=2))
        return
    from stratagem.study.outcome import MEAN_RETURN, measure_of

    rows = [dataclasses.asdict(result) for result in results]
    judged = measure_of(rows)
    # Where the mean return is what counts, it stands there with its interval and not once more.
    also = () if judged is MEAN_RETURN else (MEAN_RETURN.name,)
    table = Table("mode", "episodes", judged.name, *also, "mean length", box=None, pad_edge=False)
    for result, row in zip(results, rows, strict=True):
        failed = f" ({result.failed} failed)" if result.failed else ""
        returns = [f"{result.mean_return:.3f}" for _ in also]
        table.add_row(
            result.mode, f"{result.episodes}{failed}", success_cell(row), *returns, f"{result.mean_length:.1f}"
        )
    console = Console(highlight=False)
    console.print(table)
    if animate is not None:
        console.print(f"animation: {animate}", markup=False)


def pretrain(
    out: Annotated[Path, typer.Option(help="Folder for the model.")] = Path("tiny"),
    steps: Annotated[int, typer.Option(min=1, help="Batches of demonstrations.")] = 1000,
    seed: Seed = 0,
    habit: Annotated[float, typer.Option(min=0, max=1, help="Share of demonstrations with a bad habit.")] = 0.55,
    tasks: Annotated[list[str] | None, typer.Option("--task", help="What to demonstrate; may be repeated.")] = None,
    others: Annotated[list[str] | None, typer.Option("--other", help="What else to score it on.")] = None,
    episodes: Annotated[int, typer.Option(min=1, help="Held-out episodes to score each task on.")] = 200,
) -> None:
    """Make the tiny base model: train it on generated demonstrations, score it, and write its model card."""
    from stratagem.language import warm_start

    with progress_bar("demonstrating") as progress:
        scores = warm_start.make(
            out,
            tasks or list(warm_start.TASKS),
            steps=steps,
            seed=seed,
            habit=habit,
            others=list(warm_start.OTHERS) if tasks is None and others is None else others or [],
            episodes=episodes,
            progress=progress,
        )
    table = Table("task", "sampled", "greedy", box=None, pad_edge=False)
    for task, score in scores.items():
        table.add_row(task, *(success_cell(dataclasses.asdict(evaluation)) for evaluation in score))
    Console(highlight=False).print(table)
    print(f"model: {out}")


def _only(context: typer.Context, *allowed: str) -> None:
    """Refuse what a run that goes on cannot take up, rather than pass over it in silence."""
    for name in _given(context):
        if name not in allowed:
            raise InputError(f"--resume continues a run as it was started, but for --steps: leave out {_shown(name)}")


def _cluster(context: typer.Context, address: str | None, workers: dict[str, Any]) -> Cluster | None:
    """The cluster that is asked for. Raises :class:`InputError` for workers of none."""
    from stratagem.cluster.plan import Cluster

    if address is not None and address != "none":
        return Cluster(address, **workers)
    for name in workers.keys() & set(_given(context)):
        raise InputError(f"{_shown(name)}: is of a run on a cluster; name it with --cluster local or HOST:PORT")
    return None


def _given(context: typer.Context) -> list[str]:
    """Parameters that the command line names."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]


def _shown(name: str) -> str:
    return {"recipe": "the recipe", "values": "--set"}.get(name, f"--{name.replace('_', '-')}")


def parse_numbers(text: str, option: str) -> list[int]:
    """The whole numbers in ``1,8,64``. Raises :class:`InputError`, which names the option, for anything else."""
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise InputError(f"{option} {text}: must be whole numbers with commas between them, such as 1,8,64") from None


def parse_values(pairs: list[str]) -> dict[str, Any]:
    """``FIELD=VALUE`` pairs, values read as YAML. Raises :class:`InputError` for anything else."""
    values = {}
    for pair in pairs:
        field, sign, text = pair.partition("=")
        if not sign or not field:
            raise InputError(f"--set {pair}: write FIELD=VALUE, such as sampler.group_size=4")
        try:
            values[field] = _number(yaml.safe_load(text))
        except yaml.YAMLError:
            raise InputError(f"--set {pair}: the value is not valid YAML") from None
    return values


def _number(value: object) -> object:
    """YAML reads ``1e-3`` as text; people mean a number."""
    if isinstance(value, list):
        return [_number(item) for item in value]
    if isinstance(value, dict):
        return {name: _number(item) for name, item in value.items()}
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def before_and_after(runs: list[tuple[str, list[dict[str, Any]]]]) -> Table:
    """Held-out results before and after training, sampled and greedy, with 95 % intervals."""
    table = Table("run", "mode", "before", "after", box=None, pad_edge=False)
    for name, evaluations in runs:
        for mode in ("sampled", "greedy"):
            rows = [row for row in evaluations if row["mode"] == mode]
            table.add_row(name, mode, success_cell(rows[0]), success_cell(rows[-1]))
    return table


def success_cell(row: dict[str, Any]) -> str:
    """``0.47 [0.40, 0.54]``: what the evaluation is judged by, with its interval: win rate, success or mean return."""
    from stratagem.study.outcome import MEASURES

    low, high = row["interval"]
    value = next(row[measure.field] for measure in MEASURES if row.get(measure.field) is not None)
    if math.isnan(low):
        return f"{value:.3g}"
    digits = 1 if abs(value) >= 10 else 2
    return f"{value:.{digits}f} \\[{low:.{digits}f}, {high:.{digits}f}]"


def parse_precision(name: str) -> Any:
    """The precision of this name. Raises :class:`InputError` for another."""
    if name not in ("auto", "float32", "bfloat16"):
        raise InputError(f"--precision {name}: must be auto, float32 or bfloat16")
    return name
