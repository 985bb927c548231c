"""Sets of candidate answers, and routes that cannot be good in everything."""

from __future__ import annotations

from itertools import pairwise

import pytest

from stratagem.errors import InputError
from stratagem.tasks import RoutesTask, SetTask, make
from stratagem.tasks.grid import walk

ROUTES = RoutesTask()


def written(*candidates: str) -> str:
    return "\n".join(f"<candidate>{text}</candidate>" for text in candidates)


def route(index: int, *stops: str) -> str:
    """A shortest route by way of these gems to the goal."""
    layout = ROUTES.environment("train", index).layout
    places = [layout.start, *(getattr(layout, stop) for stop in stops), layout.goal]
    return " ".join(word for pair in pairwise(places) for word in walk(*pair))


def grade(index: int, text: str) -> list[float]:
    step = ROUTES.environment("train", index).step(text)
    assert step.done and step.success == (step.reward == 1)
    return [step.reward, *(step.components[name] for name in ROUTES.reward_names[1:])]


# ---- routes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", range(20))
def test_every_reward_of_a_route_can_be_had_and_never_all_of_them(index):
    goal, brief, *_ = grade(index, route(index))
    assert (goal, brief) == (1, 1)
    for gem, column in (("amber", 2), ("jade", 3)):
        found = grade(index, route(index, gem))
        # The way to a gem may lead over the goal, where a route ends.
        assert found[column] == 1 or found[0] == 1
        assert found[1] == 0 or found[column] == 0
    both = grade(index, route(index, "amber", "jade"))
    assert sum(both) < 4 and not (both[0] and both[2] and both[3])


def test_words_that_are_no_directions_are_left_out_and_edges_hold():
    layout = ROUTES.environment("train", 0).layout
    shortest = route(0)
    assert grade(0, "  I go " + shortest.upper().replace(" ", ", then ") + ".") == grade(0, shortest)
    against_the_edge = " ".join(["west"] * (layout.start[0] + 1))
    moved = ROUTES.environment("train", 0)
    assert len(moved._passed(against_the_edge.split())) == min(layout.start[0] + 1, layout.most) + 1
    assert grade(0, "") == [0, 0, 0, 0]
    assert not ROUTES.environment("train", 0).step("nowhere").executed


def test_moves_beyond_the_number_allowed_are_not_made():
    layout = ROUTES.environment("train", 1).layout
    there_and_back = ["north", "south", "east", "west"]
    long = " ".join((there_and_back * layout.most)[: layout.most]) + " " + route(1)
    assert grade(1, long)[1] == 0
    assert len(ROUTES.environment("train", 1)._passed(long.split())) <= layout.most + 1


def test_routes_prove_their_verifier_and_splits_are_apart():
    ROUTES.check()
    seen = {split: {ROUTES.environment(split, n).layout for n in range(50)} for split in ("train", "test")}
    assert not seen["train"] & seen["test"]
    with pytest.raises(InputError, match="size"):
        make("routes:size=2")


# ---- sets -----------------------------------------------------------------------------------------------------------


def test_each_candidate_is_graded_by_itself_and_the_best_one_pays():
    task = SetTask(ROUTES, 3)
    step = task.environment("train", 2).step(written("nowhere", route(2), route(2)))
    assert step.done and step.success and step.well_formed
    assert [step.components[f"{name}@1"] for name in ROUTES.reward_names] == [0, 0, 0, 0]
    assert [step.components[f"{name}@2"] for name in ROUTES.reward_names[:2]] == [1, 1]
    assert step.reward == sum(step.components[f"{name}@3"] for name in ROUTES.reward_names)
    assert step.components["written"] == 1 and step.components["distinct"] == pytest.approx(1 / 3)
    assert set(step.components) <= set(task.reward_names) and task.reward_weights == (1.0,) + (0.0,) * 14


@pytest.mark.parametrize(
    ("text", "share"),
    [("", 0), (route(0), 0), ("<candidate>east", 0), (f"{written(route(0))}<candidate>{route(0)}", 1 / 3)],
)
def test_candidates_that_are_not_written_earn_nothing(text, share):
    step = SetTask(ROUTES, 3).environment("train", 0).step(text)
    assert step.components["written"] == pytest.approx(share) and not step.well_formed
    assert step.success == (share > 0) == (step.reward > 0) == step.executed
    assert "goal@3" not in step.components


def test_candidates_beyond_the_number_asked_for_are_not_read():
    step = SetTask(ROUTES, 2).environment("train", 0).step(written("north", "south", route(0)))
    assert not step.success and "goal@3" not in step.components and step.components["written"] == 1


def test_a_set_asks_as_the_other_task_does_and_says_how_to_answer():
    task = make("sets:routes:size=5,candidates=4")
    assert isinstance(task, SetTask) and task.of == RoutesTask(5) and task.size == 4
    assert task.environment("test", 3).reset() == RoutesTask(5).environment("test", 3).reset()
    assert task.system.startswith(RoutesTask.system) and "Give 4 answers" in task.system
    assert task.answer(written("west east", "east", "east west", "east")) == "east\neast west\nwest east"
    assert task.answer("nothing") is None


@pytest.mark.parametrize("spec", ["sets:routes", "sets:proof,candidates=2", "sets:routes,candidates=1"])
def test_a_set_proves_the_verifier_of_the_other_task(spec):
    make(spec).check(5)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("sets", "needs another task, such as sets:routes"),
        ("sets:key_door", "has 32 turns; sets are of answers in one turn"),
        ("sets:routes,candidates=0", "candidates = 0: must be at least 1"),
        ("sets:routes,candidates=few", "candidates = few: must be a whole number"),
        ("sets:sets:routes", "cannot be one of a set's: needs a weight of at least 0 and a name without @"),
        ("sets:lab:graded", "is not played in text"),
    ],
)
def test_what_cannot_be_answered_with_a_set_is_refused(spec, message):
    with pytest.raises(InputError, match=message):
        make(spec)
