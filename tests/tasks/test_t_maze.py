"""The T-maze: what is told and keyed with and without aliasing, the junction, and what cannot be done."""

from __future__ import annotations

import pytest

from stratagem.errors import InputError
from stratagem.tasks import Step, TMazeTask, make
from stratagem.tasks.t_maze import Maze, TMazeEnvironment

MAZE = Maze("red fox", ("blue owl", "red fox"), 2)


def play(*actions: str, aliased: bool = True, max_turns: int = 12, step_cost: float = 0.0) -> list[Step]:
    environment = TMazeEnvironment(MAZE, aliased, max_turns, step_cost)
    where = "" if aliased else ", cell 0 of 2"
    assert environment.reset().text == f"The sign shows a red fox. You are in a corridor{where}."
    return [environment.step(action) for action in actions]


def told(steps: list[Step]) -> list[str]:
    return [step.observation.text for step in steps]


def keys(steps: list[Step]) -> list[int]:
    return [step.observation.state_key for step in steps]


def test_the_arm_of_the_sign_is_paid_and_the_other_is_not():
    steps = play("forward", " Forward\n", "RIGHT")
    assert told(steps) == [
        "You are in a corridor.",
        "You are at the junction. left: blue owl, right: red fox.",
        "the end",
    ]
    assert [step.reward for step in steps] == [0, 0, 1] and steps[-1].done and steps[-1].success
    wrong = play("forward", "forward", "left")[-1]
    assert wrong.done and not wrong.success and wrong.reward == 0 and not wrong.truncated


def test_the_sign_is_read_once():
    assert told(play("forward", "back"))[-1] == "You are in a corridor."


def test_aliased_cells_are_told_and_keyed_alike_and_others_by_where_they_are():
    there_and_back = ("forward", "back", "forward", "forward", "back")
    one, start, again, junction, last = keys(play(*there_and_back))
    assert one == start == again == last != junction
    one, start, again, junction, last = keys(play(*there_and_back, aliased=False))
    assert one == again == last and len({one, start, junction}) == 3
    assert start == TMazeEnvironment(MAZE, aliased=False).reset().state_key
    assert told(play("forward", aliased=False)) == ["You are in a corridor, cell 1 of 2."]


def test_true_states_of_two_mazes_differ_where_aliased_ones_are_the_same():
    other = MAZE._replace(cue="blue owl")
    for aliased in (True, False):
        one, two = (TMazeEnvironment(maze, aliased).reset() for maze in (MAZE, other))
        assert one.state_key != two.state_key
        inside = [TMazeEnvironment(maze, aliased).step("forward").observation.state_key for maze in (MAZE, other)]
        assert (inside[0] == inside[1]) is aliased


@pytest.mark.parametrize("action", ["", "back", "left", "right", "go forward", "jump"])
def test_what_cannot_be_done_is_counted_and_changes_nothing(action):
    wasted, *steps = play(action, "forward", "forward", "forward", "right", aliased=False)
    assert wasted.components == {"invalid": 1} and wasted.reward == 0 and not wasted.done
    assert not wasted.executed and wasted.well_formed is (action in ("back", "left", "right"))
    assert all(step.executed is not ("invalid" in step.components) for step in steps)
    assert told([wasted]) == ["You are in a corridor, cell 0 of 2."]
    assert [step.components for step in steps] == [{}, {}, {"invalid": 1}, {}] and steps[-1].success


def test_who_runs_out_of_turns_is_cut_and_every_action_costs():
    steps = play("forward", "forward", "back", max_turns=3, step_cost=0.25)
    assert [step.done for step in steps] == [False, False, True]
    assert steps[-1].truncated and not steps[-1].success
    assert [step.reward for step in steps] == [-0.25] * 3
    assert play("forward", "forward", "right", max_turns=3, step_cost=0.25)[-1].reward == 0.75


@pytest.mark.parametrize("task", [TMazeTask(), TMazeTask(length=1, max_turns=2), TMazeTask(aliased=False)], ids=repr)
@pytest.mark.parametrize("split", ["train", "test"])
def test_check_passes(task, split):
    assert task.check(30, split).solutions_accepted == 30


def test_no_sign_is_in_both_splits_and_the_sides_are_balanced():
    mazes = {split: [TMazeTask().maze(split, index) for index in range(300)] for split in ("train", "test")}
    assert not {maze.cue for maze in mazes["train"]} & {maze.cue for maze in mazes["test"]}
    assert all(maze.cue in maze.arms and maze.arms[0] != maze.arms[1] for maze in mazes["train"])
    # the standard error of a share of one half in 300 mazes is 0.03
    assert sum(maze.side == "left" for maze in mazes["train"]) / 300 == pytest.approx(0.5, abs=0.12)


def test_a_demonstrator_is_after_the_junction_and_there_after_what_the_sign_showed():
    task = TMazeTask(length=2)
    cue = task.maze("train", 0).cue
    goals = task.subgoals("train", 0, ["jump", *task.solution("train", 0)])
    assert goals == ["reach the junction"] * 3 + [f"go to the {cue}"]
    make("structured:t_maze").check(4)


def test_it_is_made_from_its_specification():
    assert make("t_maze:length=3,aliased=false,max_turns=4,step_cost=0.1") == TMazeTask(3, False, 4, 0.1)


@pytest.mark.parametrize("option", ["length=0", "aliased=perhaps", "max_turns=6", "step_cost=2", "colour=red"])
def test_an_option_out_of_range_is_refused(option):
    with pytest.raises(InputError, match=option.split("=")[0]):
        make(f"t_maze:{option}")
