"""The made-up app: what is on its screens, what an action does and is worth, and how each role is judged."""

from __future__ import annotations

import networkx
import pytest

from stratagem.errors import InputError
from stratagem.tasks import AppTask, Step, make
from stratagem.tasks.app import CLOSENESS, Element, action_score, read_action

BUTTON = Element("mail", False, 25.0, 50.0, 3)
FIELD = Element("keys", True, 75.0, 50.0, 4)


def worth(task: AppTask, screen: int) -> float:
    """``V*`` of a screen, by another way than the task's."""
    app = task.app("train", 0)
    graph = networkx.DiGraph((s, e.leads) for s, on in enumerate(app.elements) for e in on)
    try:
        return CLOSENESS ** networkx.shortest_path_length(graph, screen, app.target)
    except networkx.NetworkXNoPath:
        return 0.0


def played(*actions: str, **options) -> list[Step]:
    environment = AppTask(**options).environment("train", 0)
    environment.reset()
    return [environment.step(action) for action in actions]


@pytest.mark.parametrize(
    ("text", "kind", "outside"),
    [
        ("click 25 50", "click", False),
        (" click 25.5, 50 ", "click", False),
        ("click -3 50", "click", True),
        ("click 30 1000", "click", True),
        ("type Keys  now", "type", False),
        ("click here", "", False),
        ("type", "", False),
        ("", "", False),
    ],
)
def test_actions_are_read_and_moved_onto_the_screen(text, kind, outside):
    action = read_action(text)
    assert (action.kind, action.outside) == (kind, outside)
    assert 0 <= action.x <= 100 and 0 <= action.y <= 100


@pytest.mark.parametrize(
    ("element", "text", "score"),
    [
        (BUTTON, "click 25 50", 1.0),
        (BUTTON, "click 36.9 55", 1.0),  # within the box
        (BUTTON, "click 25 63.9", 1.0),  # within 14 of the centre
        (BUTTON, "click 25 64.1", 0.5),
        (BUTTON, "type mail", 0.1),
        (BUTTON, "tap it", 0.0),
        (FIELD, "type keys", 1.0),
        (FIELD, "type keys now", 0.5 + 0.5 * 2 / 3),
        (FIELD, "type door", 0.5),
        (FIELD, "click 75 50", 0.1),
        (None, "click 25 50", 0.1),
        (Element("edge", False, 0.0, 50.0, 1), "click -1 50", 0.5),  # moved onto it, and yet a miss
    ],
)
def test_an_action_is_scored_by_form_kind_and_target(element, text, score):
    assert action_score(element, read_action(text)) == pytest.approx(score)


def test_a_sub_goal_is_paid_by_what_its_action_achieved_once_that_is_known():
    task = AppTask()
    goal, action = list(task.solution("train", 0))[:2]
    app = task.app("train", 0)
    there = app.after(app.start, read_action(action))
    first, second = played(goal, action)
    assert first.turn_rewards == (0.0,) and first.observation.role == 1
    assert second.turn_rewards == pytest.approx((0.1 + 0.5 + 0.4 * worth(task, there), 1.0))
    _, missed = played(goal, "click 50 0")
    score = missed.turn_rewards[1]
    assert score in (0.1, 0.5)  # a tap at a field is of the wrong kind, too
    assert missed.turn_rewards[0] == pytest.approx(0.1 + 0.5 * score + 0.4 * worth(task, app.start))
    _, unknown = played("<subgoal>nowhere</subgoal>", action)
    assert unknown.turn_rewards == pytest.approx((0.1 + 0.5 * 0.1 + 0.4 * worth(task, there), 0.1))


def test_a_sub_goal_that_cannot_be_read_earns_nothing_and_nobody_acts():
    for text in ("mail", "<subgoal></subgoal>", "<subgoal>mail"):
        [step] = played(text)
        assert step.turn_rewards == (0.0,) and step.observation.role == 0 and not step.done
        assert step.components == {"malformed": 1.0}


def test_every_turn_is_a_conversation_of_its_own_and_the_actor_is_told_its_sub_goal():
    task = AppTask()
    environment = task.environment("train", 0)
    seen = [environment.reset(), *(environment.step(action).observation for action in task.solution("train", 0))]
    assert [o.context for o in seen] == list(range(len(seen)))
    assert [o.role for o in seen[:-1]] == [0, 1] * (len(seen) // 2)
    goal = next(iter(task.solution("train", 0))).removeprefix("<subgoal>").removesuffix("</subgoal>")
    assert f"sub-goal: {goal}." in seen[1].text and seen[1].opening[1]["content"] == seen[1].text


def test_solutions_are_shortest_ways():
    for index in range(10):
        task = AppTask()
        app, way = task.app("test", index), list(task.solution("test", index))
        graph = networkx.DiGraph((s, e.leads) for s, on in enumerate(app.elements) for e in on)
        assert len(way) == 2 * networkx.shortest_path_length(graph, app.start, app.target) >= 4
        steps = app.distances()
        exact = networkx.single_source_shortest_path_length(graph.reverse(), app.target)
        assert steps == dict(exact)


def test_elements_lie_so_far_apart_that_a_tap_hits_one_alone():
    for buttons in range(2, 7):
        for on in AppTask(buttons=buttons).app("train", 1).elements:
            assert len({element.label for element in on}) == buttons
            for element in on:
                assert [other for other in on if other.hit_by(element.x + 14, element.y)] == [element]


def test_the_goal_alone_is_paid_where_that_is_wanted_and_turns_are_bounded():
    task = AppTask(reward="goal")
    steps = played(*task.solution("train", 0), reward="goal")
    assert steps[-1].turn_rewards == (*[0.0] * (len(steps) - 1), 1.0) and steps[-1].success
    idle = played(*["nothing"] * 16)
    assert [step.done for step in idle] == [False] * 15 + [True]
    assert idle[-1].truncated and not idle[-1].success


@pytest.mark.parametrize("spec", ["app", "app:screens=5,buttons=3,max_turns=6", "app:reward=goal"])
def test_solutions_are_accepted_and_corrupted_ones_are_not(spec):
    make(spec).check(10)
    make(spec).check(5, "test")


def test_no_app_is_in_both_splits():
    task = AppTask()
    train, test = ({task.app(split, index) for index in range(20)} for split in ("train", "test"))
    assert not train & test and len(train) == 20


@pytest.mark.parametrize(
    ("spec", "said"), [("app:buttons=7", "buttons='7'"), ("app:reward=none", "reward='none'"), ("app:x", "no argument")]
)
def test_faults_are_named(spec, said):
    with pytest.raises(InputError, match=said):
        make(spec)
