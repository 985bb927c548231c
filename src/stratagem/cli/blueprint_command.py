"""``blueprint``: declared agents, checked and run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from stratagem.errors import BrokenRunError

File = Annotated[Path, typer.Argument(help="A blueprint, YAML or .json.")]

blueprint = typer.Typer(help="Check or run an agent that is declared in a file.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.add_typer(blueprint, name="blueprint")


@blueprint.command()
def check(file: File) -> int:
    """Read a blueprint and say its hash, or one line for each fault. Nothing it refers to is imported or started."""
    from stratagem.blueprint.schema import Blueprint, BlueprintError
    from stratagem.cli.app import WRONG_INPUT

    try:
        found = Blueprint.load(file)
    except BlueprintError as error:
        for line in str(error).splitlines():
            Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(f"error: {line}")
        return WRONG_INPUT
    parts = (
        f"{found.identity.name} {found.identity.version}",
        f"{len(found.tools)} tools",
        f"{len(found.constraints)} constraints",
        f"{len(found.workflow)} nodes",
    )
    print(", ".join(parts))
    print(f"hash: {found.hash}")
    return 0


@blueprint.command()
def run(
    file: File,
    observation: Annotated[str, typer.Argument(help="What the agent is told beside its goal.")] = "",
    seed: Annotated[int, typer.Option(min=0, help="Seed of every random choice.")] = 0,
    workflow: Annotated[
        bool, typer.Option(help="Make the calls of the workflow instead of asking the policy.")
    ] = False,
    audit: Annotated[Path | None, typer.Option(help="File the audit log is added to.")] = None,
    memory: Annotated[Path | None, typer.Option(help="Folder of the memory that the run goes on from.")] = None,
) -> None:
    """Run a blueprint. This imports and calls the code it refers to: run only blueprints you trust."""
    from stratagem.blueprint import Blueprint, BlueprintAgent

    agent = BlueprintAgent(Blueprint.load(file), folder=file.parent)
    remembered = agent.memory()
    if memory is not None and memory.exists():
        remembered.load(memory)
    report = agent.run(observation, seed=seed, memory=remembered, audit=audit, workflow=workflow)
    if memory is not None:
        remembered.save(memory)
    print(json.dumps(report.answer, ensure_ascii=False))
    counts = ", ".join(f"{count} {name}" for name, count in report.counts.items() if count)
    ending = f"{report.status} ({report.message})" if report.message else report.status
    summary = f"{ending}: {report.turns} turns, {report.calls} calls ({counts or 'none'}), {report.tokens} tokens"
    Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(summary)
    if report.status == "failed":
        raise BrokenRunError(report.message)
