from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stratagem.errors import InputError
from stratagem.multiagent import ResourcesGame
from stratagem.multiagent.resources import deviation_gain
from stratagem.tasks.registry import make

GAME = ResourcesGame((2, 4), cells=6, landmarks=2, places=5)


def state(cell: list[int], population: int, site: tuple[int, int] = (1, 4)) -> dict[str, np.ndarray]:
    rows = {"seed": 0, "turn": 0, "population": population, "cell": cell, "site": site}
    return {name: np.array([value]) for name, value in rows.items()}


def test_those_at_a_landmark_share_its_size() -> None:
    # Sizes 0.5 at cell 1 and 1 at cell 4. After the move two agents are at 4, one at 1, and one nowhere.
    before = state([4, 3, 2, 0], 4)
    changed, paid, ended = GAME.transition(before, np.array([[0, 1, 2, 2]]))
    assert changed["cell"].tolist() == [[4, 4, 1, 5]] and not ended.any()
    assert paid.tolist() == [[0.5, 0.5, 0.5, 0.0]]


def test_places_without_an_agent_share_nothing_and_see_nothing() -> None:
    _, paid, _ = GAME.transition(state([4, 4, 4, 4], 2), np.zeros((1, 4), dtype=int))
    assert paid.tolist() == [[0.5, 0.5, 0, 0]]
    seen = GAME.observe(state([4, 4, 4, 4], 2))
    assert seen[0, :2].any(1).all() and not seen[0, 2:].any()
    assert GAME.alive(state([0, 0, 0, 0], 2)).tolist() == [[True, True, False, False]]


def test_what_is_seen_is_relative_and_goes_around_the_ring() -> None:
    seen = GAME.observe(state([5, 1, 0, 3], 4))[0]
    # Agent 0 at cell 5: landmark 0.5 is two cells on, landmark 1 five cells on; others 2, 1 and 4 cells on.
    assert seen[0, :6].tolist() == [0, 0, 0.5, 0, 0, 1]
    rows = seen[0, 6:].reshape(4, 7)
    assert rows[:, 0].tolist() == [1, 1, 1, 0] and rows[:3, 1:].argmax(1).tolist() == [2, 1, 4] and not rows[3].any()
    # Agent 1 sees agents 0, 2, 3 in this order.
    assert seen[1, 6:].reshape(4, 7)[:3, 1:].argmax(1).tolist() == [4, 5, 2]


@settings(deadline=None)
@given(seed=st.integers(0, 2**40), turn=st.integers(0, 5))
def test_turning_the_ring_changes_what_nobody_sees(seed: int, turn: int) -> None:
    begun = {"seed": np.array([seed]), "turn": np.array([0]), **GAME.begin(np.array([seed]))}
    turned = {**begun, "cell": (begun["cell"] + turn) % 6, "site": (begun["site"] + turn) % 6}
    assert np.array_equal(GAME.observe(begun), GAME.observe(turned))
    assert np.allclose(GAME.paid(begun), GAME.paid(turned))
    there = len(set(begun["site"][0].tolist()) & set(begun["cell"][0][: begun["population"][0]].tolist()))
    assert GAME.paid(begun).sum() <= GAME.sizes.sum() and (there > 0) == (GAME.paid(begun).sum() > 0)


def test_how_many_there_are_follows_from_the_seed() -> None:
    seeds = np.arange(2000, dtype=np.int64)
    number = GAME.begin(seeds)["population"]
    assert set(number.tolist()) == {2, 4} and abs((number == 2).mean() - 0.5) < 0.05
    assert np.array_equal(number[[7, 3]], GAME.begin(seeds[[7, 3]])["population"])


def test_tasks_of_other_populations_have_the_same_observations() -> None:
    tasks = [make(f"resources:agents={agents}") for agents in ("2+4", "3", "6", "1")]
    assert len({(task.features, task.actions, task.others) for task in tasks}) == 1
    assert [task.agents for task in tasks] == [4, 3, 6, 1]
    assert [task.name for task in tasks[:2]] == ["resources", "resources:agents=3"]
    again: Any = make(ResourcesGame((1, 5), cells=9).name)
    assert again == ResourcesGame((1, 5), cells=9)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("resources:agents=9", "agents = 9: must be at most places = 8"),
        ("resources:agents=2+2", "agents = 2\\+2: each number only once"),
        ("resources:agents=two", "agents = two: must be whole numbers"),
        ("resources:agents=0", "populations=\\(0,\\) is not allowed"),
        ("resources:landmarks=13", "landmarks = 13: must be at most cells = 12"),
        ("resources:populations=3", "write the numbers of agents as agents = 2\\+4"),
        ("resources:size=3", "size"),
    ],
)
def test_wrong_options_are_refused(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(spec)


# ---- best responses -------------------------------------------------------------------------------------------------


def test_one_agent_alone_gains_what_the_best_path_pays_more() -> None:
    game = ResourcesGame((1,), cells=4, landmarks=1, places=2, max_turns=2)

    def staying(state: dict[str, np.ndarray]) -> np.ndarray:
        return np.broadcast_to([1.0, 0.0, 0.0], (len(state["cell"]), 1, 3))

    # At the landmark both earn 2; beside it one turn is lost on the way (gain 1); opposite it both, then 1 (gain 1).
    assert deviation_gain(game, staying, 1, np.array([0])) == pytest.approx((0 + 2 + 1 + 2) / 4)


def test_the_gain_is_that_of_trying_all_plans_against_the_others() -> None:
    game = ResourcesGame((2,), cells=3, landmarks=1, places=2, max_turns=2)
    table = np.random.default_rng(0).dirichlet(np.ones(3), (9, 2))

    def likely(state: dict[str, np.ndarray]) -> np.ndarray:
        return table[state["cell"][:, 0] * 3 + state["cell"][:, 1]]

    def worth(agent: int, cells: tuple[int, int], turns: int, best: bool) -> float:
        if turns == 0:
            return 0.0
        values = np.zeros((3, 3))
        for actions in product(range(3), repeat=2):
            after = tuple((c + (0, 1, -1)[a]) % 3 for c, a in zip(cells, actions, strict=True))
            paid = 0.0 if after[agent] != 1 else 0.5 if after[0] == after[1] else 1.0
            values[actions[agent], actions[1 - agent]] = paid + worth(agent, after, turns - 1, best)
        chance = table[cells[0] * 3 + cells[1]]
        by_own = values @ chance[1 - agent]
        return float(by_own.max() if best else by_own @ chance[agent])

    starts = list(product(range(3), repeat=2))
    expected = np.mean([worth(a, s, 2, True) - worth(a, s, 2, False) for a in range(2) for s in starts])
    assert deviation_gain(game, likely, 2, np.array([1])) == pytest.approx(expected)


def test_too_many_joint_cells_are_refused() -> None:
    with pytest.raises(InputError, match="too many states"):
        deviation_gain(ResourcesGame((6,)), lambda state: np.zeros(0), 6, np.array([0, 1, 2]))
