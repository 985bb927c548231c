"""``doctor``: what this machine can run."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

EXTRAS = {
    "text": ("textworld", "textarena"),
    "control": ("mujoco",),
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


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False) -> None:
    """Say what this machine can run and what is missing for the rest."""
    findings = _findings()
    if as_json:
        Console().print_json(data=findings)
        return
    table = Table("what", "here", box=None, pad_edge=False)
    for name, finding in findings.items():
        table.add_row(name, finding.replace("[", "\\["))
    Console(highlight=False).print(table)


def _findings() -> dict[str, str]:
    import torch

    from stratagem.errors import InputError
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
