"""``label``: a page on which a person compares answers or trajectories."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(label)


def label(
    file: Annotated[Path, typer.Argument(help='Lines of {"prompt": text, "first": answer, "second": answer}.')],
    out: Annotated[Path | None, typer.Option(help="File of labels; default: FILE with .labels.jsonl.")] = None,
    annotator: Annotated[str, typer.Option(help="Whose labels they are.")] = "me",
    port: Annotated[int, typer.Option(help="Of the page; 0: any that is free.", min=0, max=65535)] = 0,
    browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")] = True,
) -> None:
    """Compare pairs of answers on a page of this machine, by keyboard; stop with Ctrl-C and go on whenever you like."""
    from stratagem.preferences.labelling import Labelling, serve

    labelling = Labelling(file, out or file.with_suffix(".labels.jsonl"), annotator)
    if labelling.torn:
        print("a line that had been cut short was removed; that pair is asked again")
    with serve(labelling, port) as server:
        address = f"http://127.0.0.1:{server.server_address[1]}/"
        print(f"{labelling.done} of {len(labelling.questions)} labelled; page: {address}", flush=True)
        if browser:
            webbrowser.open(address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print(f"\n{labelling.done} of {len(labelling.questions)} labelled: {labelling.path}")
