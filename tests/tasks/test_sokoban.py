"""The rules of Sokoban, its two views, and rooms that can be solved."""

from __future__ import annotations

import pytest

from stratagem.errors import InputError
from stratagem.tasks import SokobanTask
from stratagem.tasks.grid import GridEnvironment, shortest_path
from stratagem.tasks.sokoban import SokobanWorld


def test_the_shortest_solution_of_a_straight_corridor() -> None:
    world = SokobanWorld.parse("####### #@-$-.# #######")
    assert shortest_path(world) == ["east"] * 3


def test_the_shortest_solution_around_a_corner_worked_by_hand() -> None:
    # push the box east twice, walk around it, push it south once
    world = SokobanWorld.parse("####### #-----# #@$---# #---.-# #######")
    assert shortest_path(world) == ["east", "east", "north", "east", "south"]


def test_a_box_is_not_pushed_into_a_wall_or_another_box() -> None:
    for drawing in ("##### #@$## #.-## #####", "###### #@$$-# #..--# ######"):
        world = SokobanWorld.parse(drawing)
        assert world.after(world.start, "east") == world.start


def test_the_drawing_shows_every_mark() -> None:
    drawing = "#######\n#+-$--#\n#--*--#\n#-----#\n#######"
    world = SokobanWorld.parse(drawing)
    assert world.describe(world.start) == drawing
    moved = world.after(world.start, "south")
    assert world.describe(moved) == "#######\n#.-$--#\n#@-*--#\n#-----#\n#######"


def test_the_relative_view_tells_boxes_goals_and_walls() -> None:
    world = SokobanWorld.parse("##### #@--# #-$-# #--.# #####", view="relative")
    assert world.describe(world.start) == "box east 1 south 1 goal east 2 south 2 wall north west"


@pytest.mark.parametrize("drawing", ["", "#@$-#", "#@@$.#", "#$.#"])
def test_an_unusable_drawing_is_refused(drawing: str) -> None:
    with pytest.raises(InputError, match="one agent and a goal for every box"):
        SokobanWorld.parse(drawing)


@pytest.mark.parametrize("options", [{}, {"boxes": 2}, {"size": 4, "max_turns": 10}, {"size": 7, "boxes": 3}], ids=str)
def test_check_passes(options: dict[str, int]) -> None:
    task = SokobanTask(**options)
    assert task.check(10, "train").solutions_accepted == 10
    assert task.check(10, "test").corruptions_rejected == 10


def test_every_room_starts_with_no_box_on_a_goal_and_is_solved_in_time() -> None:
    task = SokobanTask(boxes=2, max_turns=20)
    for index in range(30):
        world = task.world("train", index)
        assert set(world.start.boxes).isdisjoint(world.room.goals)
        assert 1 <= len(shortest_path(world)) <= 20


def test_equal_positions_have_equal_keys_whichever_way_they_were_reached() -> None:
    world = SokobanWorld.parse("##### #@--# #--$# #--.# #####")
    environment = GridEnvironment(world, 32)
    environment.reset()
    environment.step("east")
    one_way = environment.step("south").observation.state_key
    environment.reset()
    environment.step("south")
    assert environment.step("east").observation.state_key == one_way
