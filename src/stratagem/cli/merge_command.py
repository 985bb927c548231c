"""``merge``: three models into the one that reinforcement learning starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(merge)


def merge(
    distilled: Annotated[Path, typer.Argument(help="Folder of the model fine-tuned on long reasoning.")],
    instructed: Annotated[Path, typer.Argument(help="Folder of the model fine-tuned to follow instructions.")],
    pretrained: Annotated[Path, typer.Argument(help="Folder of the model both were made from.")],
    out: Annotated[Path, typer.Option(help="Folder for the merged model.")],
    a: Annotated[float, typer.Option("--a", help="Share of the distilled model in the first stage.")] = 0.5,
    b: Annotated[float, typer.Option("--b", help="Share of the first stage in the second.")] = 0.5,
) -> None:
    """Merge three models in two stages (bai): b (a DISTILLED + (1 - a) INSTRUCTED) + (1 - b) PRETRAINED."""
    from stratagem.merging import TwoStageMerge

    stages = TwoStageMerge(a, b)
    stages.merge_folders(distilled, instructed, pretrained, out)
    shares = dict(zip(("distilled", "instructed", "pretrained"), stages.shares, strict=True))
    print(", ".join(f"{share:g} {name}" for name, share in shares.items()))
    print(f"model: {out}")
