"""The entry point: help, one line for every error, and the exit code that goes with it."""

from __future__ import annotations

import pytest
import typer

from stratagem.cli import app as entry
from stratagem.errors import BrokenRunError, InputError

COMMANDS = ("methods", "show", "tasks", "train", "eval", "compare", "report", "claim", "pretrain", "doctor", "demo")


@pytest.mark.parametrize("arguments", [(), ("--help",)])
def test_help_names_every_command(stratagem, arguments):
    said = stratagem(*arguments)
    assert said.code == 0 and said.err == ""
    assert said.out.startswith("Usage: stratagem ")
    assert all(command in said.out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(stratagem, command):
    said = stratagem(command, "--help")
    assert said.code == 0 and said.out.startswith(f"Usage: stratagem {command}")


@pytest.mark.parametrize(
    "arguments",
    [
        ("trian",),
        ("train", "grpo", "--taks", "key_door"),
        ("train", "grpo", "--task", "key_door", "--steps", "0"),
        ("train", "grpo", "--task", "key_door", "--steps", "many"),
        ("train", "grpo", "--task", "key_door", "--seed", "-1"),
        ("train", "grpo", "--task"),
        ("show",),
        ("methods", "too", "many"),
        ("eval",),
        ("pretrain", "--habit", "2"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_code_2(stratagem, arguments):
    said = stratagem(*arguments)
    assert said.code == 2 and said.out == ""
    assert said.err.startswith("error: ") and said.err.count("\n") == 1


@pytest.fixture
def raising(monkeypatch: pytest.MonkeyPatch):
    """Make ``methods`` raise this."""

    def arrange(error: BaseException) -> None:
        def cards(*_: object) -> None:
            raise error

        monkeypatch.setattr("stratagem.catalogue.cards", cards)

    return arrange


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("this is wrong"), 2, "error: this is wrong\n"),
        (InputError("this is\n  wrong [bold]"), 2, "error: this is wrong [bold]\n"),
        (BrokenRunError("saved in runs/x"), 3, "error: saved in runs/x\n"),
        (KeyboardInterrupt(), 130, ""),
        (typer.Exit(1), 1, ""),
    ],
)
def test_every_way_to_end_has_its_code(stratagem, raising, error, code, line):
    raising(error)
    said = stratagem("methods")
    assert (said.code, said.out, said.err) == (code, "", line)


def test_an_error_of_ours_shows_where_and_ends_with_its_line(stratagem, raising):
    raising(ZeroDivisionError("a bug"))
    said = stratagem("methods")
    assert said.code == 3 and "Traceback" in said.err
    assert said.err.splitlines()[-1] == "error: ZeroDivisionError: a bug"


def test_a_very_long_error_stays_one_line(stratagem, raising):
    raising(InputError("word " * 200))
    assert stratagem("methods").err.count("\n") == 1


def test_main_exits_with_the_code(monkeypatch):
    with pytest.raises(SystemExit) as caught:
        entry.main(["methods", "--family", "nonsense"])
    assert caught.value.code == 2
