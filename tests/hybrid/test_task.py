from __future__ import annotations

import pytest
import torch

from stratagem.errors import InputError
from stratagem.hybrid import HybridTask
from stratagem.hybrid.task import COLOURS, GRID, PIXELS, SHAPES
from stratagem.tasks import registry


def cells(picture: torch.Tensor) -> torch.Tensor:
    """Pixels of every cell, row after row: [pictures, cells, 3, pixels]."""
    grid = picture.unflatten(-1, (GRID, PIXELS)).unflatten(-3, (GRID, PIXELS))
    return grid.permute(0, 2, 4, 1, 3, 5).flatten(-2).flatten(1, 2)


def shape_at(cell: torch.Tensor) -> int:
    drawn = "".join("1" if lit else "0" for lit in (cell.amax(0) > 0).tolist())
    return list(SHAPES.values()).index(drawn)


@pytest.mark.parametrize("question", ["find", "compare"])
def test_the_answer_is_what_the_picture_shows(question):
    pictures = HybridTask(question).pictures("train", range(60))
    seen = cells(pictures.picture)
    for row in range(60):
        asked = pictures.question[row].tolist()
        shapes = []
        for colour, cell in zip(asked, pictures.cell[row].tolist(), strict=True):
            pixels = seen[row, cell]
            torch.testing.assert_close(pixels.amax(-1), torch.tensor(list(COLOURS.values())[colour]))
            shapes.append(shape_at(pixels))
        right = shapes[0] if question == "find" else int(shapes[0] == shapes[1])
        assert pictures.answer[row] == right


def test_a_picture_has_one_object_of_every_colour():
    seen = cells(HybridTask().pictures("train", range(40)).picture)
    lit = (seen.flatten(2).amax(-1) > 0).sum(1)
    assert lit.tolist() == [len(COLOURS)] * 40


def test_answers_are_about_equally_frequent():
    for question, count in (("find", 4), ("compare", 2)):
        answers = HybridTask(question).pictures("train", range(4000)).answer
        shares = torch.bincount(answers, minlength=count) / 4000
        assert (shares - 1 / count).abs().max() < 0.03


def test_no_picture_can_be_of_both_splits():
    for split, odd in (("train", 0), ("test", 1)):
        seen = cells(HybridTask().pictures(split, range(200)).picture)
        where = (seen.flatten(2).amax(-1) > 0).long() @ torch.arange(GRID * GRID)
        assert (where % 2 == odd).all()


def test_equal_numbers_are_equal_pictures_in_any_company():
    task = HybridTask("find")
    whole, alone = task.pictures("test", range(5)), task.pictures("test", [3])
    assert torch.equal(whole.picture[3:4], alone.picture) and torch.equal(whole.answer[3:4], alone.answer)


def test_it_is_made_by_name_and_named_as_it_was_made():
    task = registry.make("hybrid:find,concentration=0.01,latents=mean")
    assert task == HybridTask("find", concentration=0.01, latents="mean")
    assert task.name == "hybrid:find,concentration=0.01,latents=mean"
    assert registry.make(task.name) == task
    assert registry.make("hybrid:compare").name == "hybrid:compare"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("hybrid", "task hybrid needs a question, such as hybrid:compare"),
        ("hybrid:fnd", "unknown question 'fnd'; did you mean 'find'"),
        ("hybrid:find,kappa=1", "unknown option of task 'hybrid' 'kappa'"),
        ("hybrid:find,concentration=0", "concentration='0' is not allowed"),
        ("hybrid:find,steps=x", "steps='x' is not allowed"),
        ("hybrid:find,latents=both", "latents='both' is not allowed"),
    ],
)
def test_a_wrong_specification_is_refused_in_one_line(spec, message):
    with pytest.raises(InputError, match=message):
        registry.make(spec)
