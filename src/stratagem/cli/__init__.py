"""The command line: ``stratagem COMMAND``. Exit codes: 0 done, 1 a verdict is "fails", 2 wrong input, 3 broken run."""

from stratagem.cli.app import main

__all__ = ["main"]
