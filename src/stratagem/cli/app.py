"""The entry point: commands by name, one line for every error, and the exit code that goes with it."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence

import typer
from rich.console import Console

from stratagem.cli import catalogue_commands, demo, doctor, run_commands
from stratagem.errors import BrokenRunError, InputError

DONE, WRONG_INPUT, BROKEN = 0, 2, 3

app = typer.Typer(
    name="stratagem",
    help="Policy optimization in which papers are recipes and parts are concepts.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
catalogue_commands.register(app)
run_commands.register(app)
doctor.register(app)
demo.register(app)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    sys.exit(run(sys.argv[1:] if arguments is None else list(arguments)))


def run(arguments: Sequence[str]) -> int:
    """Run the command line; returns the exit code."""
    errors = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    try:
        code = app(list(arguments), standalone_mode=False)
        return code if isinstance(code, int) else DONE
    except InputError as error:
        errors.print(f"error: {error}")
        return WRONG_INPUT
    except BrokenRunError as error:
        errors.print(f"error: {error}")
        return BROKEN
    except BrokenPipeError:
        # Whoever read our output (head, less) has seen enough.
        sys.stderr.close()
        return DONE
    except Exception as error:
        # What the command-line parser raises says so by this method.
        message = getattr(error, "format_message", None)
        if message is not None:
            errors.print(f"error: {' '.join(message().split()) or 'nothing to do'}")
            return WRONG_INPUT
        traceback.print_exc()
        errors.print(f"error: {type(error).__name__}: {error}")
        return BROKEN
