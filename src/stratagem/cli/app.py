"""The entry point: commands by name, one line for every error, and the exit code that goes with it."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

import typer
from rich.console import Console

from stratagem.cli import (
    align_command,
    allocate_command,
    blueprint_command,
    catalogue_commands,
    claim_command,
    compare_commands,
    demo,
    doctor,
    evolve_command,
    grams_command,
    guide_command,
    lab_command,
    label_command,
    merge_command,
    play_command,
    pull_command,
    run_commands,
    solve_command,
    stress_command,
)
from stratagem.errors import BrokenRunError, InputError

DONE, WRONG_INPUT, BROKEN = 0, 2, 3

app = typer.Typer(
    name="stratagem",
    help="Policy optimization in which papers are recipes and parts are concepts.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
catalogue_commands.register(app)
run_commands.register(app)
align_command.register(app)
guide_command.register(app)
compare_commands.register(app)
lab_command.register(app)
solve_command.register(app)
stress_command.register(app)
claim_command.register(app)
merge_command.register(app)
grams_command.register(app)
blueprint_command.register(app)
pull_command.register(app)
play_command.register(app)
allocate_command.register(app)
evolve_command.register(app)
label_command.register(app)
doctor.register(app)
demo.register(app)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    sys.exit(run(sys.argv[1:] if arguments is None else list(arguments)))


def run(arguments: Sequence[str]) -> int:
    """Run the command line; returns the exit code."""

    def say(error: object) -> None:
        line = " ".join(str(error).split())
        Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(f"error: {line}")

    if not sys.stderr.isatty():
        # Read by transformers when a command first imports it: its bars, like ours, are for people who watch.
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        code = app(list(arguments) or ["--help"], prog_name="stratagem", standalone_mode=False)
        return code if isinstance(code, int) else DONE
    except InputError as error:
        say(error)
        return WRONG_INPUT
    except BrokenRunError as error:
        say(error)
        return BROKEN
    except BrokenPipeError:
        # Whoever read our output (head, less) has seen enough.
        sys.stderr.close()
        return DONE
    except Exception as error:
        # What the command-line parser raises says so by this method.
        message = getattr(error, "format_message", None)
        if message is not None:
            say(message() or "nothing to do")
            return WRONG_INPUT
        traceback.print_exc()
        say(f"{type(error).__name__}: {error}")
        return BROKEN
