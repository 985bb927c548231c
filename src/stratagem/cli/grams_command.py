"""``grams``: the phrases that plan, mined from what was said in a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from stratagem.errors import InputError


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(grams)


def grams(
    run: Annotated[Path, typer.Argument(help="Run directory, or a file of JSON lines as its samples.jsonl.")],
    out: Annotated[Path, typer.Option(help="File for the phrases; --set sampler.phrases=FILE names it.")],
    share: Annotated[float, typer.Option(help="Share of the clusters of phrases that is kept.")] = 0.2,
    least: Annotated[int, typer.Option(help="A phrase is in at least so many solutions.")] = 5,
    distance: Annotated[float, typer.Option(help="Phrases no further apart say the same, in (0, 1).")] = 0.3,
    without: Annotated[str, typer.Option(help="Comma-separated words of the domain; phrases have none.")] = "",
) -> None:
    """Mine the phrases that plan (hicra) from the successful episodes of a run."""
    from stratagem.grams import mine

    path = run / "samples.jsonl" if run.is_dir() else run
    solutions = successful(path)
    if not solutions:
        raise InputError(f"{path}: holds no successful episode, and phrases are mined from those")
    words = [word.strip() for word in without.split(",") if word.strip()]
    found = mine(solutions, share=share, least=least, distance=distance, without=words)
    found.save(out)
    phrases = sum(map(len, found.strategies))
    print(f"{phrases} phrases of {len(found.strategies)} strategies, from {len(solutions)} solutions")
    print(f"phrases: {out}")


def successful(path: Path) -> list[str]:
    """What the policy said in each successful episode, as a text. Raises :class:`InputError` for another file."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({type(error).__name__})") from None
    texts = []
    for number, line in enumerate(lines, 1):
        try:
            sample: Any = json.loads(line)
            said = [str(message["content"]) for message in sample["messages"] if message["role"] == "assistant"]
            succeeded = bool(sample["success"])
        except (ValueError, TypeError, KeyError):
            raise InputError(f"{path}, line {number}: is no episode with 'success' and 'messages'") from None
        if succeeded:
            texts.append("\n.\n".join(said))  # So that no phrase runs on from one turn into the next.
    return texts
