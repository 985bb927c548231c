"""What every report page shares: how it is written, episodes a person can read, and the words for single values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from stratagem.study.curve import write_whole
from stratagem.training.run_directory import command_line, machine

DASHES = ("solid", "dash", "dot", "dashdot")


def write_page(template: str, path: Path, title: str, charts: Mapping[str, Any], **values: Any) -> Path:
    """Fill a template of this folder and write it to ``path``: one file with plotly inside, all text escaped.

    charts: what the page's script draws, as plain data. Raises :class:`InputError` when ``path`` cannot be written.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(ending=ending, shown=shown)
    page = environment.get_template(template).render(title=title, charts=charts, plotly=get_plotlyjs(), **values)
    return write_whole(path, page)


@dataclass(frozen=True)
class Meeting:
    """The same start state played before and after training; one of them None where it was not kept."""

    mode: str
    episode: Any
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None

    @property
    def summary(self) -> str:
        """How it ended, before and after."""
        if self.before is not None and self.after is not None:
            return f"{ending(self.before)} → {ending(self.after)}"
        return f"{ending(self.before)} (before)" if self.before is not None else f"{ending(self.after or {})} (after)"


def ending(transcript: Mapping[str, Any]) -> str:
    """How an episode ended, in a few words: ``success, reward 1``."""
    if transcript.get("failure"):
        return f"failed ({transcript['failure']})"
    words = []
    if "success" in transcript:
        words.append("success" if transcript["success"] else "no success")
    words += [f"{name} {transcript[name]:.3g}" for name in ("reward", "return") if name in transcript]
    words += ["cut by a limit"] if transcript.get("truncated") else []
    return ", ".join(words) or "played"


def origin(**asked: Any) -> dict[str, Any]:
    """What a page says of how it was made: the command, what was asked for, machine and versions."""
    facts = [(name, str(value)) for name, value in asked.items()]
    return {"command": " ".join(command_line()), "facts": [*facts, *environment_facts(machine())]}


def environment_facts(environment: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Machine, commit and versions as names and values."""
    plain = dict(environment)
    packages = plain.pop("packages", None) or {}
    for name, value in {**plain, **packages}.items():
        yield name.replace("_", " "), str(value)


def shown(value: Any) -> str:
    """A field of a recipe as its YAML has it; a dash where a recipe has none."""
    return "—" if value is None else str(value)
