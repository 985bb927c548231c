"""A progress line for long work; silent when nobody watches."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console

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
