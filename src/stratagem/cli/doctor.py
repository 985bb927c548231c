"""``doctor``: what this machine can run, and whether a training run fits into it."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from stratagem.cli.memory_command import Asked, plan
from stratagem.cli.run_commands import Precision, parse_precision, parse_values
from stratagem.errors import InputError

EXTRAS = {
    "text": ("textworld", "textarena"),
    "games": ("pyspiel", "numba"),
    "multiagent": ("pettingzoo", "mpe2"),
    "bandits": ("highspy",),
    "control": ("mujoco",),
    "cluster": ("ray",),
    "agents": ("bm25s", "mcp", "sklearn", "sqlglot"),
    "lora": ("peft",),
    "math": ("math_verify",),
    "vllm": ("vllm",),
    "environments": ("verifiers", "openenv"),
    "wandb": ("wandb",),
}


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(doctor)


def doctor(
    context: typer.Context,
    model: Annotated[
        str | None, typer.Option(help="Plan the memory of training this folder, hub name, or tiny.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="With --model: what to train on.")] = None,
    recipe: Annotated[str, typer.Option(help="A technique of the catalogue, or a YAML file.")] = "grpo",
    values: Annotated[list[str] | None, typer.Option("--set", help="FIELD=VALUE; see stratagem show.")] = None,
    precision: Precision = "auto",
    lora: Annotated[int | None, typer.Option(min=1, help="Rank of low-rank adapters.")] = None,
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="Compute layers twice rather than keep their activations.")
    ] = False,
    concurrency: Annotated[int, typer.Option(min=1, help="Episodes played side by side.")] = 256,
    episodes: Annotated[int, typer.Option(min=0, help="Held-out episodes of an evaluation, in each mode.")] = 100,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto (cuda where there is one).")] = "auto",
    device_memory: Annotated[float | None, typer.Option(help="GiB there are; by default what is here.")] = None,
    episode_tokens: Annotated[int | None, typer.Option(help="Tokens of the longest episode you expect.")] = None,
    learners: Annotated[
        int | None, typer.Option(min=1, help="On a cluster: processes that share the learning.")
    ] = None,
    rollout_workers: Annotated[
        int | None, typer.Option(min=1, help="On a cluster: processes that sample text.")
    ] = None,
    offload: Annotated[bool, typer.Option("--offload", help="On GPUs of a cluster: weights in main memory.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> int:
    """Say what this machine can run; with --model and --task, whether a training run fits into its memory.

    With --model the exit code is 1 when it does not fit. With --learners, --rollout-workers or --offload the plan is of
    a run on a cluster.
    """
    if model is not None:
        if task is None:
            raise InputError("doctor --model needs --task: memory depends on how long episodes get")
        asked = Asked(
            model=model,
            task=task,
            recipe=recipe,
            values=parse_values(values or []),
            precision=parse_precision(precision),
            lora=lora,
            gradient_checkpointing=gradient_checkpointing,
            concurrency=concurrency,
            episodes=episodes,
            device=device,
            device_memory=device_memory,
            episode_tokens=episode_tokens,
            learners=learners,
            rollout_workers=rollout_workers,
            offload=offload,
        )
        return plan(asked, as_json)
    for name in context.params:
        source = context.get_parameter_source(name)
        if name != "as_json" and source is not None and source.name == "COMMANDLINE":
            raise InputError(
                f"doctor: --{'set' if name == 'values' else name.replace('_', '-')} is for a plan: add --model"
            )
    findings = _findings()
    if as_json:
        Console().print_json(data=findings)
        return 0
    table = Table("what", "here", box=None, pad_edge=False)
    for name, finding in findings.items():
        table.add_row(name, finding.replace("[", "\\["))
    Console(highlight=False).print(table)
    return 0


def _findings() -> dict[str, str]:
    import torch

    from stratagem.language.policy import native_bfloat16
    from stratagem.language.pretrain import tiny_model_path
    from stratagem.sandbox import sandbox

    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        tiny = str(tiny_model_path())
    except InputError as error:
        tiny = str(error)
    findings = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "processor": f"{os.cpu_count()} cores, {torch.get_num_threads()} threads used by torch",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "accelerator": torch.cuda.get_device_name() if device == "cuda" else "none: training runs on the processor",
        "bfloat16": "native: used by --precision auto" if native_bfloat16(device) else "not native: float32 is used",
        "base model": tiny,
        "sandbox": str(sandbox()),
    }
    for extra, modules in EXTRAS.items():
        missing = [module for module in modules if find_spec(module) is None]
        findings[f"extra {extra}"] = "installed" if not missing else f"pip install 'stratagem[{extra}]'"
    try:
        findings["stratagem"] = version("stratagem")
    except PackageNotFoundError:
        findings["stratagem"] = "not installed as a package"
    return findings
