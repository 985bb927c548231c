from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from stratagem import run
from stratagem.architectures import Agents
from stratagem.errors import BrokenRunError, InputError
from stratagem.multiagent import DiscsGame, Frame
from stratagem.multiagent.discs import ETA, ZETA, action_of, fixed, parameters, play
from stratagem.tasks import registry


def begun(game: DiscsGame, seeds: list[int]) -> dict[str, np.ndarray]:
    numbers = np.array(seeds)
    return {"seed": numbers, "turn": np.zeros_like(numbers), **game.begin(numbers)}


def thetas(game: DiscsGame, state: dict[str, np.ndarray], policy: object) -> np.ndarray:
    """What a policy most likely does."""
    shape = state["place"].shape[:2]
    nothing = np.zeros((*shape, 0), dtype=bool)
    frame = Frame(game.observe(state).astype(np.float32), nothing[:, 0], nothing, np.ones(shape, dtype=bool))
    return np.asarray(policy.acting()(frame, None).action)  # type: ignore[attr-defined]


def shared(game: DiscsGame) -> object:
    policy = Agents(told=False, front="messages", hidden=16, width=8).build(game, 3)
    with torch.no_grad():
        for weight in policy.policy_parameters():
            weight.mul_(1.5)  # A fresh actor hardly depends on what it sees.
    return policy


def test_actions_are_squashed_between_the_bounds_and_back() -> None:
    for zeta in (0.2, 1.0, 9.0):
        for eta in (1.1, 2.0):
            assert np.allclose(parameters(action_of(zeta, eta)), (zeta, eta))
    assert np.allclose(parameters(np.zeros(2)), (1.0, np.sqrt(3.0)))
    assert np.allclose(parameters(np.array([-1e9, 1e9])), (ZETA[0], ETA[1]))
    with pytest.raises(BrokenRunError, match="not a number"):
        parameters(np.array([np.nan, 0.0]))
    with pytest.raises(InputError, match=r"zeta = 20: must be in \[0.1, 10\]"):
        action_of(20, 1.0)


def test_agents_that_never_collide_keep_their_safety_margin() -> None:
    game = DiscsGame(max_turns=120)
    noise = np.random.default_rng(0)
    results = play(game, lambda state: noise.normal(0, 3, (*state["place"].shape[:2], 2)), np.arange(12))
    assert results["least"] > 0 and results["infeasible"] < 5


def test_alone_on_the_way_an_agent_reaches_its_goal_at_full_speed() -> None:
    game = DiscsGame(agents=2, gap=2.0, jitter=0.0, obstacle=0.1)
    state = begun(game, [0, 1])
    state["place"][:, 1] = state["goal"][:, 1]  # The other one is where it wants to be, and out of reach.
    straight = np.linalg.norm(state["goal"] - state["place"], axis=-1)[:, 0]
    over = np.zeros(2, dtype=bool)
    while not over.all() and state["turn"][0] < 100:
        changed, _, over = game.transition(state, np.zeros((2, 2, 2)))
        state = {**state, **changed, "turn": state["turn"] + 1}
    assert state["turn"][0] == pytest.approx((straight.max() - game.arrival) / (game.speed * game.time), abs=1.5)
    assert np.allclose(state["travelled"][:, 0], straight - game.arrival, atol=0.06)
    assert state["infeasible"].sum() == 0


def test_agents_that_all_want_through_the_middle_are_stuck_with_equal_parameters() -> None:
    results = play(DiscsGame(), fixed(action_of(1.0, 1.0)[None]), np.arange(6))
    assert results["success"] == 0 and results["turns"] == 200 and results["least"] > 0


def test_progress_arrival_and_time_make_the_reward() -> None:
    game = DiscsGame(agents=2, gap=2.0, jitter=0.0, obstacle=0.1)
    state = begun(game, [0])
    changed, reward, over = game.transition(state, np.zeros((1, 2, 2)))
    assert reward[0, 0] == pytest.approx(0.05 - 0.01, abs=1e-6) and not over[0]
    near = {**state, "place": state["goal"] + np.array([0.12, 0.0])}
    changed, reward, over = game.transition(near, np.zeros((1, 2, 2)))
    assert reward[0, 0] == pytest.approx(0.05 + 1.0, abs=1e-6) and over[0] and changed["arrived"].all()
    again = game.transition({**near, "arrived": np.ones((1, 2), dtype=bool)}, np.zeros((1, 2, 2)))[1]
    assert again[0, 0] == pytest.approx(0.05, abs=1e-6)


def test_overlap_ends_the_episode_costs_ten_and_is_not_feasible() -> None:
    game = DiscsGame(agents=2, gap=2.0, jitter=0.0, obstacle=0.1)
    state = begun(game, [0])
    state = {**state, "place": np.repeat(state["place"][:, :1], 2, 1)}
    changed, reward, over = game.transition(state, np.zeros((1, 2, 2)))
    assert over[0] and changed["collided"].all() and changed["infeasible"].tolist() == [[1, 1]]
    assert reward[0, 0] == pytest.approx(-0.01 - 1 - 10) and np.array_equal(changed["place"], state["place"])


def test_permuting_agents_permutes_parameters_and_shifting_everything_changes_nothing() -> None:
    game = DiscsGame()
    state = begun(game, [3])
    noise = np.random.default_rng(0)
    state["place"] = 2 + noise.uniform(-0.9, 0.9, (1, 4, 2))
    state["velocity"] = noise.normal(size=(1, 4, 2))
    policy = shared(game)
    theta, order = thetas(game, state, policy), [2, 0, 3, 1]
    swapped = {**state, **{name: state[name][:, order] for name in ("place", "goal", "velocity", "start")}}
    assert np.ptp(theta[0, :, 0]) > 1e-4
    assert np.allclose(thetas(game, swapped, policy), theta[:, order], atol=1e-5)
    away = np.array([7.0, -3.0])
    shifted = {**state, **{name: state[name] + away for name in ("place", "goal", "centre")}}
    assert np.allclose(thetas(game, shifted, policy), theta, atol=1e-5)


def test_who_is_out_of_reach_does_not_matter() -> None:
    game = DiscsGame(reach=1.0)
    state, policy = begun(game, [3]), shared(game)
    state["place"] = np.array([[[0.5, 0.5], [1.2, 0.5], [3.5, 3.5], [0.5, 3.5]]])
    theta = thetas(game, state, policy)
    far = {**state, "place": state["place"].copy(), "velocity": state["velocity"].copy()}
    far["place"][0, 2] += 0.4
    far["velocity"][0, 2] = 0.7
    assert np.array_equal(thetas(game, far, policy)[0, :2], theta[0, :2])
    near = {**state, "place": state["place"].copy()}
    near["place"][0, 1] += 0.1
    assert not np.allclose(thetas(game, near, policy)[0, 0], theta[0, 0])


def test_without_neighbours_messages_are_nothing() -> None:
    game = DiscsGame(agents=2, reach=0.01)
    state = begun(game, [0])
    seen = game.observe(state)
    assert (seen[..., 4:] == 0).all() and (seen[..., :2] != 0).any()
    front = shared(game).members[0].actor[0]  # type: ignore[attr-defined]
    said = front(torch.from_numpy(seen[0].astype(np.float32)))
    assert (said[:, 4:] == 0).all()


def test_every_episode_has_a_gap_of_its_own() -> None:
    game = DiscsGame()
    gap = [np.ptp(begun(game, [seed])["centre"][0, :, 1]) - 2 * game.obstacle for seed in range(50)]
    assert 0.6 <= min(gap) < 0.65 and 0.95 < max(gap) <= 1.0


@pytest.mark.parametrize(("spec", "message"), [("discs:agents=1", "agents"), ("discs:gaps=1", "gaps")])
def test_wrong_options_are_refused(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        registry.make(spec)


@pytest.mark.parametrize("task", ["discs:agents=2,max_turns=6", "pathfinding:size=5,agents=2,max_turns=6", "meeting"])
def test_an_episode_is_written_as_a_page_that_needs_no_network(tmp_path: Path, task: str) -> None:
    recipe = {"discs": "online_cbf", "pathfinding": "follower"}.get(task.partition(":")[0], "ippo")
    values = {"sampler": "segments", "sampler.prompts_per_step": 2, "sampler.turns": 4}
    run.train(recipe, task, steps=1, out=tmp_path / "r", evaluation_episodes=0, values=values)
    page = run.animate(tmp_path / "r", tmp_path / "page.html").read_text()
    assert page.startswith("<!doctype html>") and "default-src 'none'" in page
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "") and "https://" not in page
    assert run.animate(tmp_path / "r", tmp_path / "again.html").read_text() == page
    data = page.partition('id="data">')[2].partition("</script>")[0]
    moments = json.loads(data)
    agents = registry.make(task).agents  # type: ignore[union-attr]
    assert len(moments["place"]) == len(moments["earned"]) == len(moments["goal"])
    assert 2 <= len(moments["place"]) <= 26 and {len(one) for one in moments["place"]} == {agents}
    assert moments["earned"][0] == [0.0] * agents


def test_a_game_without_places_cannot_be_drawn(tmp_path: Path) -> None:
    run.train("ippo", "two_step", steps=1, out=tmp_path / "r", evaluation_episodes=0)
    with pytest.raises(InputError, match="task two_step cannot be drawn"):
        run.animate(tmp_path / "r", tmp_path / "page.html")


def test_a_front_needs_a_policy_for_any_number_of_agents_and_a_form() -> None:
    with pytest.raises(InputError, match="front = messages: needs weights = shared, told = false"):
        Agents(front="messages")
    with pytest.raises(InputError, match="its observations are no window, which front = convolution reads"):
        Agents(told=False, front="convolution").build(DiscsGame(), 0)
