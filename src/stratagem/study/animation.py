"""An episode of several agents as a page that shows it move: one file with a picture, a slider and a few lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from stratagem.study.curve import write_whole
from stratagem.training.run_directory import command_line

if TYPE_CHECKING:
    from stratagem.multiagent.sketch import Sketch, Trajectory

DIGITS = 3
"""Decimals that positions and sums of rewards are written with."""


def write_animation(trajectory: Trajectory, path: Path, title: str) -> Path:
    """Write the page to ``path`` and return it. Raises :class:`InputError` when it cannot be written."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    first = trajectory.sketches[0]
    page = environment.get_template("animation.html.jinja").render(
        title=title,
        data=frames(trajectory),
        first=first,
        walls=first.walls.tolist(),
        discs=first.discs.tolist(),
        agents=len(first.place),
        turns=len(trajectory.reward),
        command=" ".join(command_line()),
    )
    return write_whole(path, page)


def frames(trajectory: Trajectory) -> dict[str, Any]:
    """What moves, as plain data: by moment the agents' places, their goals, and what they have earned so far."""
    earned = np.vstack([np.zeros((1, trajectory.reward.shape[1])), trajectory.reward.cumsum(0)])
    data = {
        "place": [_rounded(sketch.place) for sketch in trajectory.sketches],
        "goal": [_goals(sketch) for sketch in trajectory.sketches],
        "earned": _rounded(earned),
    }
    json.dumps(data, allow_nan=False)
    return data


def _goals(sketch: Sketch) -> list[Any] | None:
    return None if sketch.goal is None else _rounded(sketch.goal)


def _rounded(values: np.ndarray) -> list[Any]:
    rounded: list[Any] = np.round(np.asarray(values, dtype=float), DIGITS).tolist()
    return rounded
