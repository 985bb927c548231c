"""Progress is shown to people and to nobody else."""

from __future__ import annotations

import sys

from stratagem.cli.progress import counting_bar, progress_bar

METRICS = {"reward": 0.5, "loss": -1.25, "something": 3.0}


def test_nothing_is_written_where_nobody_watches(capfd):
    with progress_bar("training") as progress:
        progress(1, METRICS)
    assert capfd.readouterr() == ("", "")


def test_on_a_terminal_the_newest_figures_are_shown(monkeypatch, capfd):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    with progress_bar("training") as progress:
        progress(7, METRICS)
    shown = capfd.readouterr().err
    assert "training: step 7  reward 0.500  loss -1.250" in shown and "something" not in shown


def test_a_counting_bar_is_silent_when_nobody_watches(capsys):
    for total in (10, None):
        with counting_bar(total) as show:
            show("[name]", 3)
    assert capsys.readouterr() == ("", "")
