from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stratagem import run
from stratagem.architectures import Agents
from stratagem.errors import BrokenRunError, InputError
from stratagem.multiagent import Follower, PathfindingGame
from stratagem.multiagent.controllers import learned, moves_to, pibt, planned, throughput
from stratagem.multiagent.grids import moved
from stratagem.tasks import registry

from .test_grids import walls

STAY, UP, DOWN, LEFT, RIGHT = range(5)


def begun(rows: tuple[str, ...], cell: list[int], goal: list[int], **options: object) -> tuple[Follower, dict]:
    """Agents on this map, and their state."""
    values = {"sight": 5, "view": 2, "static": True, "dynamic": True, **options}
    follower = Follower(len(cell), **values)  # type: ignore[arg-type]
    return follower, follower.begin(walls(*rows), np.array([cell]), np.array([goal]))


def test_a_crowded_corridor_is_left_when_the_count_exceeds_the_difference_and_a_new_goal_forgets() -> None:
    # Two ways of equal length; the upper one is taken, since up comes before down.
    rows = (".....", ".###.", ".....")
    goal, waypoint = [5 + 4, 2], []
    follower, state = begun(rows, [5, 2], goal)
    crowds = []
    for _ in range(3):
        waypoint.append(int(state["waypoint"][0, 0]))
        crowds.append(int(state["crowd"][0, 0, 0, 2]))
        state = follower.planned(state, state["cell"], state["goal"], state["goal"])
    assert waypoint == [10, 10, 10] and crowds == [1, 2, 3]
    forgotten = follower.planned(state, state["cell"], np.array([[14, 2]]), state["goal"])
    assert forgotten["crowd"][0, 0].sum() == 1


def test_the_plan_switches_as_soon_as_the_count_exceeds_the_difference_in_length() -> None:
    rows = (".....", ".###.", ".###.", ".....")  # From the second row: 6 moves above, 8 below, at equal costs 1.
    follower, state = begun(rows, [5, 2], [9, 2], static=False)
    seen = []
    for _ in range(4):
        seen.append((int(state["crowd"][0, 0, 0, 2]), int(state["waypoint"][0, 0])))
        state = follower.planned(state, state["cell"], state["goal"], state["goal"])
    assert seen == [(1, 0), (2, 0), (3, 10), (4, 10)]  # A tie at 2 stays above.
    blind, state = begun(rows, [5, 2], [9, 2], static=False, dynamic=False)
    for _ in range(4):
        state = blind.planned(state, state["cell"], state["goal"], state["goal"])
    assert state["waypoint"][0, 0] == 0


def test_an_agent_counts_others_it_sees_but_not_itself_and_nothing_on_its_goal() -> None:
    follower, state = begun(("......",), [0, 2, 5], [4, 2, 0], sight=2)
    crowd = state["crowd"][0, :, 0]
    assert crowd[0].tolist() == [0, 0, 1, 0, 0, 0]
    assert crowd[1].sum() == 0  # On its goal.
    assert crowd[2].sum() == 0  # The nearest is three cells away.
    assert follower.planned(state, np.array([[1, 3, 5]]), state["goal"], state["goal"])["crowd"][0, 2, 0, 3] == 1


def test_following_the_plan_pays_and_staying_does_not() -> None:
    follower, state = begun(("....", "....", "...."), [0], [11])
    for _ in range(5):
        cell = state["waypoint"]
        assert follower.paid(state, cell).tolist() == [[0.01]]
        assert follower.paid(state, state["cell"]).tolist() == [[0.0]]
        state = follower.planned(state, cell, state["goal"], state["goal"])
    assert state["cell"].tolist() == [[11]]
    assert follower.paid(state, state["cell"]).tolist() == [[0.01]]  # On its goal the waypoint is where it stands.


def test_where_no_path_leads_nothing_is_paid_and_rewards_of_others_stay_theirs() -> None:
    follower, state = begun(("..#.", "..#."), [0, 1, 4], [3, 0, 5])
    cell = moved(state["wall"], state["cell"], np.array([[DOWN, STAY, RIGHT]]))
    assert follower.paid(state, cell).tolist() == [[0.0, 0.0, 0.01]]
    assert state["path"][0, 0].sum() == 0


def test_an_observation_shows_the_path_walls_and_others() -> None:
    follower, state = begun(("...", ".#.", "..."), [0, 6], [8, 0])
    seen = follower.observe(state).reshape(1, 2, 2, 5, 5)
    path = (
        [(0, 0), (1, 0), (2, 0), (2, 1), (2, 2)]
        if state["waypoint"][0, 0] == 3
        else [(0, 0), (0, 1), (0, 2), (1, 2), (2, 2)]
    )
    expected = np.full((5, 5), -1.0)
    expected[2:, 2:] = 0.0
    expected[3, 3] = -1.0
    for row, column in path:
        expected[2 + row, 2 + column] = 1.0
    assert np.array_equal(seen[0, 0, 0], expected)
    assert seen[0, 0, 1].sum() == 1 and seen[0, 0, 1, 4, 2] == 1
    assert seen[0, 1, 1].sum() == 1 and seen[0, 1, 1, 0, 2] == 1


def test_as_many_cells_are_marked_as_the_path_has_in_the_window() -> None:
    game = PathfindingGame(size=10, agents=6, view=3)
    state = {"seed": np.arange(4), "turn": np.zeros(4, dtype=np.int64), **game.begin(np.arange(4))}
    noise = np.random.default_rng(0)
    for _ in range(20):
        seen = game.observe(state).reshape(4, 6, 2, 7, 7)
        assert np.array_equal((seen[:, :, 0] == 1).sum((2, 3)), state["path"].sum(2))
        assert (seen[:, :, 0, 3, 3] == 1).all() and (seen[:, :, 1, 3, 3] == 0).all()
        state = {**state, **game.transition(state, planned(0.2)(state, noise))[0], "turn": state["turn"] + 1}


def test_a_reached_goal_is_counted_paid_if_asked_and_replaced_by_another_free_cell() -> None:
    game = PathfindingGame(size=5, density=0.1, agents=2, pay="goal")
    seeds = np.arange(20)
    state = {"seed": seeds, "turn": np.zeros_like(seeds), **game.begin(seeds)}
    total = 0.0
    for _ in range(40):
        before = state
        changed, reward, over = game.transition(state, planned(0.1)(state, np.random.default_rng(len(seeds))))
        state = {**state, **changed, "turn": state["turn"] + 1}
        there = state["cell"] == before["goal"]
        assert np.array_equal(reward, there.astype(float)) and not over.any()
        assert np.array_equal(state["goal"] != before["goal"], there)
        assert not state["wall"].reshape(20, -1)[np.arange(20)[:, None], state["goal"]].any()
        assert (state["waited"][there] == 0).all()
        total += reward.sum()
    assert total == state["reached"].sum() > 20


def test_episodes_follow_from_their_seeds_alone() -> None:
    game = PathfindingGame(size=8, agents=4)
    together = game.copies(3)
    together.reset(np.arange(3), np.array([5, 6, 7]))
    alone = game.copies(1)
    alone.reset(np.array([0]), np.array([6]))
    for turn in range(15):
        action = np.full((3, 4), turn % 5)
        many, one = together.step(np.arange(3), action), alone.step(np.array([0]), action[:1])
        assert np.array_equal(many.frame.observation[1], one.frame.observation[0])
    first, second = game.maps(np.array([5, 6]))
    assert not np.array_equal(first, second)


def test_throughput_is_goals_of_all_agents_over_turns() -> None:
    game = PathfindingGame(size=6, density=0.0, agents=1, max_turns=60)
    seeds = np.arange(8)
    measured = throughput(game, planned(), seeds, np.random.default_rng(0))
    # Alone on an open board a goal is 4 moves away on average, of 36 cells without the own one.
    assert measured.mean() == pytest.approx(1 / 4, abs=0.05)


def test_moves_lead_to_cells_beside_and_nowhere_else() -> None:
    assert moves_to(np.array([[1, 7, 9, 4, 5, 3]]), np.full((1, 6), 4), 3).tolist() == [
        [UP, DOWN, STAY, STAY, RIGHT, LEFT]
    ]


def test_pibt_gives_way_where_plans_are_stuck() -> None:
    # A corridor: whoever has waited longer goes on, and the other must step back.
    wall = walls("########", "........")
    state = {
        "wall": wall,
        "cell": np.array([[11, 12]]),
        "goal": np.array([[15, 9]]),
        "waited": np.array([[0, 5]]),
    }
    noise = np.random.default_rng(0)
    seen = []
    for _ in range(3):
        state = {**state, "cell": moved(wall, state["cell"], pibt(state, noise))}
        seen.append(state["cell"][0].tolist())
    assert seen == [[10, 11], [9, 10], [8, 9]]


def test_pibt_never_asks_for_moves_that_are_cancelled_and_beats_stuck_plans() -> None:
    game = PathfindingGame(size=8, agents=14, max_turns=60)
    seeds = np.arange(4)
    state = {"seed": seeds, "turn": np.zeros_like(seeds), **game.begin(seeds)}
    noise = np.random.default_rng(0)
    for _ in range(30):
        action = pibt(state, noise)
        changed = game.transition(state, action)[0]
        assert np.array_equal(moves_to(changed["cell"], state["cell"], 8), action)
        state = {**state, **changed, "turn": state["turn"] + 1}
    rate = {name: throughput(game, one, seeds, noise).mean() for name, one in (("pibt", pibt), ("plan", planned()))}
    assert rate["pibt"] > 1.5 * rate["plan"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("pathfinding:size=4,agents=9", "agents = 9: at most 6"),
        ("pathfinding:view=4,sight=3", "view = 4: must be at most sight = 3"),
        ("pathfinding:agent=3", "agent"),
        ("pathfinding:maze", "takes no argument"),
        ("pathfinding:pay=money", "pay"),
    ],
)
def test_wrong_options_are_refused_in_one_line(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        registry.make(spec)
    assert "\n" not in str(raised.value)


def test_a_detour_that_is_no_probability_is_refused() -> None:
    with pytest.raises(InputError, match=r"detour = 2: must be in \[0, 1\]"):
        planned(2)


def test_a_map_without_room_is_said_to_be_one() -> None:
    with pytest.raises(BrokenRunError, match="maps in a row had no connected room of 28 cells"):
        PathfindingGame(size=8, density=0.55, agents=14).begin(np.array([0]))


def test_a_trained_follower_acts_for_another_number_of_agents(tmp_path: Path) -> None:
    values = {"sampler.prompts_per_step": 4, "sampler.turns": 4, "architecture.width": 4, "architecture.hidden": 8}
    small = "pathfinding:size=6,agents=3,max_turns=10"
    run.train("follower", small, steps=2, out=tmp_path / "r", evaluation_episodes=2, values=values)
    sampled, _ = run.evaluate(tmp_path / "r", "pathfinding:size=6,agents=5,max_turns=10,pay=goal", episodes=4)
    assert sampled.episodes == 4 and sampled.mean_return >= 0
    with pytest.raises(InputError, match="needs agents of features = 242"):
        run.evaluate(tmp_path / "r", "pathfinding:size=6,agents=3,view=5", episodes=1)


def test_a_policy_acts_as_a_controller_of_the_game_it_was_made_for() -> None:
    game = PathfindingGame(size=6, agents=3, max_turns=20)
    policy = Agents(told=False, front="convolution", hidden=8, width=4).build(game, 0)
    rate, again = (
        throughput(game, learned(game, policy), np.arange(4), np.random.default_rng(0)).tolist() for _ in range(2)
    )
    assert rate == again and len(rate) == 4
