"""The puzzles: what their verifiers accept, how their prompts are kept apart, and how they are called."""

from __future__ import annotations

import pytest

from stratagem.diffusion import Countdown, Sudoku, pretrain
from stratagem.diffusion.pretrain import canvases
from stratagem.diffusion.tasks import _grids
from stratagem.errors import InputError
from stratagem.tasks import registry

TASKS = [Sudoku(), Sudoku(clues=0), Sudoku(clues=7), Countdown(), Countdown(numbers=2), Countdown(numbers=4)]
UPPER = (0, 1, 2, 3, 2, 3, 0, 1)
LOWER = (1, 0, 3, 2, 3, 2, 1, 0)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
@pytest.mark.parametrize("split", ["train", "test"])
def test_every_task_proves_its_verifier(task, split):
    assert task.check(30, split).solutions_accepted == 30


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_a_prompt_in_one_split_is_not_in_the_other(task):
    train, test = ({task.solved(split, index)[0] for index in range(300)} for split in ("train", "test"))
    assert train and test and not train & test


def test_there_are_288_sudokus():
    assert len(_grids()) == len(set(_grids())) == 288


@pytest.mark.parametrize(
    ("lower", "right"),
    [
        (LOWER, True),
        ((3, 2, 1, 0, 1, 0, 3, 2), True),
        ((1, 0, 3, 2, 3, 2, 0, 1), False),  # A column twice.
        ((1, 0, 3, 2, 1, 0, 3, 2), False),
        (LOWER[:7], False),
        ((4, *LOWER[1:]), False),  # A blank.
    ],
)
def test_which_lower_halves_a_sudoku_accepts(lower, right):
    assert Sudoku().accepts((*UPPER, *(4,) * 8), lower) is right


def test_a_sudoku_must_repeat_its_clues():
    other = (3, 2, 1, 0, 1, 0, 3, 2)
    clue = (*UPPER, 4, 0, *(4,) * 6)
    assert Sudoku().accepts(clue, LOWER) and not Sudoku().accepts(clue, other)


@pytest.mark.parametrize("clues", [0, 3])
def test_a_sudoku_shows_its_upper_half_and_so_many_clues(clues):
    prompt, answer = Sudoku(clues).solved("train", 5)
    assert 4 not in prompt[:8] and prompt[8:].count(4) == 8 - clues and len(answer) == 8


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("2 + 3 * 4", True),
        ("4 * 3 + 2", True),
        ("3 * 4 + 2", True),
        ("2 * 3 + 4", False),  # 10
        ("4 * 4 - 2", False),  # One 4 only.
        ("2 + 3 *", False),
        ("2 3 4", False),
        ("+ 2 3", False),
        ("", False),
    ],
)
def test_what_reaches_fourteen_from_two_three_and_four(answer, right):
    task = Countdown()
    tokens = tuple(task.symbols.index(symbol) for symbol in answer.split())
    assert task.accepts((2, 3, 4, 1, 4), tokens) is right


def test_an_expression_may_leave_numbers_out_and_go_below_zero():
    task = Countdown()
    assert task.accepts((2, 3, 9, 0, 7), (9, 11, 2)) and not task.accepts((2, 3, 9, 0, 7), (2, 11, 9))


def test_solutions_of_countdown_end_and_canvases_are_filled_with_ends():
    task = Countdown()
    rows = canvases(task, "train", range(50)).tolist()
    for index, row in enumerate(rows):
        prompt, answer = task.solved("train", index)
        assert answer[-1] == 13 and 13 not in answer[:-1]
        assert row == [*prompt, *answer, *[13] * (6 - len(answer))]
    assert len({len(task.solved("train", index)[1]) for index in range(50)}) == 2


def test_tasks_by_name():
    assert registry.make("diffusion:sudoku") == Sudoku() and Sudoku().name == "diffusion:sudoku"
    named = registry.make("diffusion:countdown,numbers=2")
    assert named == Countdown(2) and named.name == "diffusion:countdown,numbers=2"
    assert Sudoku().read((0, 4)) == "1 ."


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("diffusion", "needs a puzzle, such as diffusion:sudoku; known: sudoku, countdown"),
        ("diffusion:sudoko", "unknown puzzle 'sudoko'; did you mean 'sudoku'"),
        ("diffusion:sudoku,clues=8", "clues='8' is not allowed"),
        ("diffusion:sudoku,size=9", "unknown option of task 'diffusion:sudoku' 'size'"),
        ("diffusion:countdown,numbers=many", "numbers='many' is not allowed"),
    ],
)
def test_a_wrong_specification_is_refused(spec, message):
    with pytest.raises(InputError, match=message):
        registry.make(spec)


# ---- the warm start -------------------------------------------------------------------------------------------------


def test_pretraining_lowers_the_loss_and_follows_from_the_seed():
    task = Countdown(numbers=2)
    fresh, one, same = (pretrain(task, 7, steps=steps, demonstrations=64) for steps in (0, 30, 30))
    assert all(bool((a == b).all()) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    tokens = canvases(task, "train", range(64))
    masked = tokens.clone()
    masked[:, task.prompt_length :] = fresh.mask
    target = tokens[:, task.prompt_length :].unsqueeze(-1)

    def likelihood(policy):
        return policy.logits(masked)[:, task.prompt_length :].log_softmax(-1).gather(-1, target).mean().item()

    assert likelihood(one) > likelihood(fresh) + 0.5


def test_pretraining_refuses_numbers_out_of_range():
    with pytest.raises(InputError, match="pretrain: steps = -1: must be at least 0"):
        pretrain(Sudoku(), 0, steps=-1)
    with pytest.raises(InputError, match="pretrain: batch = 0: must be at least 1"):
        pretrain(Sudoku(), 0, batch=0)
