"""A progress line for long work; silent when nobody watches."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

SHOWN = ("success", "reward", "loss", "entropy")


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, Mapping[str, float]], None]]:
    """A callback for each step: a spinner with the newest figures on a terminal, nothing elsewhere.

    Transformers draws bars of its own for every file it reads or writes; they are switched off.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()
    if not sys.stderr.isatty():
        yield lambda step, metrics: None
        return
    console = Console(stderr=True)
    with console.status(f"{title} ...") as status:

        def show(step: int, metrics: Mapping[str, float]) -> None:
            figures = "  ".join(f"{name} {metrics[name]:.3f}" for name in SHOWN if name in metrics)
            status.update(f"{title}: step {step}  {figures}")

        yield show


@contextmanager
def counting_bar(total: int | None) -> Iterator[Callable[[str, int], None]]:
    """A callback for what is at work and how much of it is done: a bar on a terminal, nothing elsewhere.

    total: how much there is; None: not known.
    """
    console = Console(stderr=True)
    count = TextColumn("{task.completed:,}") if total is None else MofNCompleteColumn()
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), count, TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total)
        yield lambda name, number: bar.update(task, completed=number, description=name)
