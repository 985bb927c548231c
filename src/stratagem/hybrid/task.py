"""Questions about pictures: coloured shapes on a grid of eight by eight cells, drawn as pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, get_args

import torch
from annotated_types import Ge, Gt, Le
from jaxtyping import Float, Int
from torch import Tensor

from stratagem.errors import InputError, unknown
from stratagem.seeding import derive, uniform
from stratagem.tasks.options import check_names, validate
from stratagem.tasks.task import Split

Question = Literal["find", "compare"]

GRID = 8
"""Cells on a side."""

PIXELS = 3
"""Pixels on a side of a cell."""

COLOURS = {
    "red": (0.9, 0.1, 0.1),
    "green": (0.1, 0.8, 0.2),
    "blue": (0.2, 0.3, 0.9),
    "yellow": (0.9, 0.9, 0.1),
    "purple": (0.6, 0.1, 0.7),
    "white": (0.9, 0.9, 0.9),
}
SHAPES = {"square": "111111111", "ring": "111101111", "cross": "010111010", "saltire": "101010101"}

_OPTIONS = ("steps", "dims", "concentration", "latents")
_NUMBERS = GRID * GRID + 2 * len(COLOURS) + 2


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures with a question each, and what a solver needs.

    picture: colours in [0, 1], black where nothing is.  question: numbers of the two colours asked about; ``find`` asks
    for the first.  cell: where the objects of these colours are, row after row.  answer: number of the right one.
    """

    picture: Float[Tensor, "pictures 3 height width"]
    question: Int[Tensor, "pictures 2"]
    cell: Int[Tensor, "pictures 2"]
    answer: Int[Tensor, " pictures"]


def from_spec(argument: str | None, options: Mapping[str, str]) -> HybridTask:
    """The task ``hybrid:QUESTION[,steps=4][,dims=8][,concentration=8][,latents=sampled]``.

    Raises :class:`InputError` for a name or value that is wrong.
    """
    check_names("hybrid", options, list(_OPTIONS))
    known = get_args(Question)
    if argument is None:
        raise InputError(f"task hybrid needs a question, such as hybrid:compare; known: {', '.join(known)}")
    if argument not in known:
        raise unknown("question", argument, known)
    return HybridTask(argument, **options)  # type: ignore[arg-type]  # strings are converted by validate


@dataclass(frozen=True)
class HybridTask:
    """Six shapes of different colours on a grid, and a question about one or two of them.

    ``find``: which shape (of four) has the colour; a guess is right one time in four.  ``compare``: whether the shapes
    of two colours are the same; a guess is right one time in two. Pictures whose occupied cells have an even sum are
    for training, the others are held out.

    steps: latents before the answer.  dims: of each.  concentration: ``kappa`` of the distribution they are drawn from.
    latents: ``sampled``; or ``mean``, which takes the mean direction itself. That is how the code released with arXiv
    2604.20328 rolls out; then the gradient of every log-probability is zero while the policy has not moved, since no
    other direction was tried.

    Raises :class:`InputError` for a value out of range.
    """

    family: ClassVar[str] = "hybrid"

    question: Question = "compare"
    steps: Annotated[int, Ge(1), Le(64)] = 4
    dims: Annotated[int, Ge(1), Le(1024)] = 8
    concentration: Annotated[float, Gt(0), Le(1e6)] = 8.0
    latents: Literal["sampled", "mean"] = "sampled"

    def __post_init__(self) -> None:
        validate(self)

    @property
    def name(self) -> str:
        """How the command line calls it."""
        changed = [name for name in _OPTIONS if getattr(self, name) != getattr(HybridTask, name)]
        values = (getattr(self, name) for name in changed)
        told = (f"{value:g}" if isinstance(value, float) else str(value) for value in values)
        return ",".join([f"hybrid:{self.question}", *(f"{n}={v}" for n, v in zip(changed, told, strict=True))])

    @property
    def description(self) -> str:
        """One line."""
        asked = "which shape has this colour" if self.question == "find" else "do these two colours have the same shape"
        return f"coloured shapes on a grid: {asked}?"

    @property
    def answers(self) -> tuple[str, ...]:
        """What may be said, by number."""
        return tuple(SHAPES) if self.question == "find" else ("different", "same")

    def pictures(self, split: Split, numbers: Sequence[int]) -> Pictures:
        """The pictures of these numbers: the same ones in every process, and none in both splits."""
        seeds = torch.tensor([derive(number, "hybrid", split) for number in numbers], dtype=torch.int64)
        chance = uniform(seeds.unsqueeze(1), torch.arange(_NUMBERS).unsqueeze(0))
        places, colours, shapes, kinds = chance.split([GRID * GRID, len(COLOURS), len(COLOURS), 2], 1)
        cell = _held_apart(places.argsort(1), split)
        colour = colours.argsort(1)
        shape = (shapes * len(SHAPES)).long()
        if self.question == "compare":
            # One time in two the same; else one of the others, each as likely.
            other = (shape[:, 0] + 1 + (kinds[:, 0] * (len(SHAPES) - 1)).long()) % len(SHAPES)
            shape[:, 1] = torch.where(kinds[:, 1] < 0.5, shape[:, 0], other)
        same = (shape[:, 0] == shape[:, 1]).long()
        answer = shape[:, 0] if self.question == "find" else same
        asked = [0, 0] if self.question == "find" else [0, 1]
        return Pictures(_drawn(cell, colour, shape), colour[:, asked], cell[:, asked], answer)


def every_object() -> Float[Tensor, "objects 3 pixels pixels"]:
    """A picture of one cell for every colour and shape there is."""
    colours, shapes = torch.arange(len(COLOURS)), torch.arange(len(SHAPES))
    pairs = torch.cartesian_prod(colours, shapes)
    return _objects(pairs[:, 0], pairs[:, 1]).reshape(-1, 3, PIXELS, PIXELS)


def _objects(colour: Int[Tensor, "*many"], shape: Int[Tensor, "*many"]) -> Float[Tensor, "*many 3 pixels"]:
    palette = torch.tensor(list(COLOURS.values()))
    stamps = torch.tensor([[float(pixel) for pixel in pixels] for pixels in SHAPES.values()])
    coloured: Tensor = palette[colour].unsqueeze(-1) * stamps[shape].unsqueeze(-2)
    return coloured


def _held_apart(order: Int[Tensor, "pictures cells"], split: Split) -> Int[Tensor, "pictures objects"]:
    """The first cells of a random order, the last object moved on until the sum of all is even, or odd for a test."""
    objects = len(COLOURS)
    fixed, free = order[:, : objects - 1], order[:, objects - 1 :]
    wanted = (fixed.sum(1, keepdim=True) + (split == "test")) % 2
    first = (free % 2 == wanted).long().argmax(1, keepdim=True)
    return torch.cat([fixed, free.gather(1, first)], 1)


def _drawn(
    cell: Int[Tensor, "pictures objects"],
    colour: Int[Tensor, "pictures objects"],
    shape: Int[Tensor, "pictures objects"],
) -> Float[Tensor, "pictures 3 height width"]:
    cells = torch.zeros(len(cell), GRID * GRID, 3, PIXELS * PIXELS)
    cells[torch.arange(len(cell)).unsqueeze(1), cell] = _objects(colour, shape)
    grid = cells.reshape(-1, GRID, GRID, 3, PIXELS, PIXELS).permute(0, 3, 1, 4, 2, 5)
    return grid.reshape(-1, 3, GRID * PIXELS, GRID * PIXELS)
