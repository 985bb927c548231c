"""A seat as a task: who plays it, what is paid, episodes that go on exactly where they were left, and training."""

from __future__ import annotations

import numpy as np
import pytest

import stratagem
from stratagem.errors import InputError
from stratagem.games import PlayedGame, TableActor, UniformActor, compile_game, solve
from stratagem.games.task import SeatTask
from stratagem.multiagent import ActorCritics, MultiAgentWorld, ValueAgents
from stratagem.tasks.registry import make

pytestmark = pytest.mark.usefixtures("pyspiel")


def rollout(copies, frame, rows, draw, turns):
    """Legal moves by chance, and all that came of them."""
    found = []
    for _ in range(turns):
        action = (draw.random(frame.legal.shape) * frame.legal).argmax(-1)
        out = copies.step(rows, action)
        found.append((out.reward, out.terminated, out.frame.observation, out.frame.legal))
        frame = out.frame
    return found, frame


def paid_uniformly(task, episodes):
    """Mean of what a learner that moves by chance is paid in training episodes, and its error."""
    copies, rows = task.copies(episodes), np.arange(episodes)
    copies.reset(rows, np.array([task.start_seed("train", 97 * n) for n in range(episodes)]))
    draw, total, frame = np.random.default_rng(0), np.zeros(episodes), copies.observe(rows)
    while len(rows):
        action = (draw.random(frame.legal.shape) * frame.legal).argmax(-1)
        out = copies.step(rows, action)
        total[rows] += out.reward[:, 0]
        going = ~out.terminated[:, 0]
        rows, frame = rows[going], out.frame.at(going)
    return total.mean(), total.std() / np.sqrt(episodes)


@pytest.mark.parametrize("seat", [0, 1])
def test_a_learner_is_paid_what_its_seat_earns(seat):
    game = compile_game("kuhn_poker")
    draw = np.random.default_rng(1)
    rows = [player.normalized(draw.random((2, player.sequences))) for player in game.players]
    actors = tuple(tuple(TableActor(tree, one) for one in mine) for tree, mine in zip(game.players, rows, strict=True))
    mixture = np.array([0.3, 0.7])
    task = SeatTask(PlayedGame("kuhn_poker"), seat, actors, (mixture, mixture))
    mean, error = paid_uniformly(task, 4000)
    mixed = [player.normalized(mixture @ plan) for player, plan in zip(game.players, game.plans(rows), strict=True)]
    mixed[seat] = game.uniform()[seat]
    assert abs(mean - game.values(mixed)[seat]) <= 3.5 * error


def test_without_a_seat_the_learner_is_at_every_one_of_them():
    task = make("spiel:kuhn_poker")
    copies, rows = task.copies(100), np.arange(100)
    copies.reset(rows, np.array([task.start_seed("test", n) for n in range(100)]))
    seats = copies.observe(rows).observation[:, 0, -2:]
    assert seats.sum(0).tolist() == [50.0, 50.0] and task.features == 13
    assert (seats[::2] == [1.0, 0.0]).all()


def test_copies_go_on_exactly_from_where_they_were_left():
    task = make("spiel:leduc_poker")
    copies, rows = task.copies(12), np.arange(10)
    copies.reset(rows, np.array([task.start_seed("train", n) for n in range(10)]))
    _, frame = rollout(copies, copies.observe(rows), rows, np.random.default_rng(0), 1)
    rows = rows[~copies._episodes.over(rows)]
    saved = copies.state_dict()
    frame = copies.observe(rows)
    there, _ = rollout(copies, frame, rows, np.random.default_rng(1), 1)
    again = task.copies(12)
    again.load_state_dict(saved)
    assert np.array_equal(again.observe(rows).observation, frame.observation)
    here, _ = rollout(again, again.observe(rows), rows, np.random.default_rng(1), 1)
    for one, other in zip(there[0], here[0], strict=True):
        assert np.array_equal(one, other)
    assert all(np.array_equal(one, again.state_dict()[name]) for name, one in copies.state_dict().items())


def test_an_episode_without_a_move_of_the_learner_takes_one_turn_that_changes_nothing():
    """Who scores first in this game of dice wins it, often before the second player has rolled."""
    task = SeatTask(PlayedGame("pig(players=2,winscore=1,horizon=10)"), 1)
    copies, rows = task.copies(40), np.arange(40)
    copies.reset(rows, np.arange(40) * 2)
    over = copies._episodes.over(rows)
    frame = copies.observe(rows)
    assert over.any() and frame.legal[over].all() and (frame.observation[over] == 0).all()
    out = copies.step(rows, frame.legal.argmax(-1))
    assert out.terminated[over].all() and (out.reward[over] == -1.0).all()


def test_the_task_is_trained_by_the_recipes_of_agents(tmp_path):
    values = {"sampler.prompts_per_step": 64, "optimization.epochs": 4, "optimization.learning_rate": 5e-3}
    run = tmp_path / "run"
    result = stratagem.train("ippo", "spiel:kuhn_poker", steps=5, values=values, out=run, evaluation_episodes=200)
    first, last = result.first_and_last("sampled")
    assert last["mean_return"] > first["mean_return"] + 0.1


def test_a_resumed_run_in_the_middle_of_episodes_repeats_an_unbroken_one(tmp_path):
    values = {"sampler.prompts_per_step": 4, "sampler.turns": 3, "optimization.epochs": 1}
    keywords = {"values": values, "evaluation_episodes": 0, "checkpoint_every": 2}
    whole = stratagem.train("ppo", "spiel:leduc_poker", steps=4, out=tmp_path / "whole", **keywords)
    stratagem.train("ppo", "spiel:leduc_poker", steps=2, out=tmp_path / "part", **keywords)
    resumed = stratagem.resume(tmp_path / "part", steps=4)
    timed = ("timing/", "memory/")
    there, here = (
        {name: value for name, value in result.metrics.items() if not name.startswith(timed)}
        for result in (whole, resumed)
    )
    assert there == here


def test_probabilities_are_those_by_which_agents_act():
    task = make("spiel:leduc_poker,seat=1")
    copies, rows = task.copies(64), np.arange(64)
    copies.reset(rows, np.arange(64) * 2)
    frame = copies.observe(rows)
    policy = MultiAgentWorld(task, 0).policy
    chances = policy.chances()(frame)
    assert chances.sum(-1) == pytest.approx(1.0) and (chances[~frame.legal] == 0).all()
    noise = np.random.default_rng(0)
    taken = np.mean([np.eye(3)[policy.acting()(frame, noise).action] for _ in range(4000)], axis=0)
    assert taken == pytest.approx(chances, abs=0.05)
    greedy = ValueAgents.for_task(task, mixer=None)
    best = greedy.acting()(frame, None).action
    assert np.array_equal(greedy.chances()(frame), np.eye(3)[best])
    for remembering in (ValueAgents, ActorCritics):
        with pytest.raises(InputError, match=r"depends on what they remember; .* architecture\.recurrence=none$"):
            remembering.for_task(task, recurrence="gru").chances()


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        ("spiel", r"^task spiel needs a game of OpenSpiel, such as spiel:leduc_poker$"),
        ("spiel:kuhn_poker,seat=2", r"^task spiel:kuhn_poker,seat=2: seat = 2: game kuhn_poker has players 0 to 1$"),
        ("spiel:kuhn_poker,seat=first", r"^task spiel:kuhn_poker: seat='first': must be the number of a player"),
        ("spiel:kuhn_poker,seet=0", r"^unknown option of task 'spiel' 'seet'; did you mean 'seat'\?$"),
        ("spiel:leduc", r"^unknown game of OpenSpiel 'leduc'; did you mean 'leduc_poker'\?$"),
    ],
)
def test_a_wrong_specification_is_one_line(spec, error):
    with pytest.raises(InputError, match=error):
        make(spec)


def test_wrong_populations_are_refused():
    game, uniform = PlayedGame("kuhn_poker"), UniformActor()
    with pytest.raises(InputError, match=r"^task spiel:kuhn_poker: numbers of actors by player are \[1, 0\]; 2"):
        SeatTask(game, None, ((uniform,), ()))
    with pytest.raises(InputError, match=r"^task spiel:kuhn_poker: mixtures must have a probability for each"):
        SeatTask(game, None, ((uniform,), (uniform,)), (np.ones(1), np.ones(2) / 2))


# ---- opponents of a run ---------------------------------------------------------------------------------------------


def test_opponents_may_be_what_a_solver_found(tmp_path):
    """Against the equilibrium nobody earns more than the value, at either seat."""
    solve("psro", "spiel:kuhn_poker", iterations=40, arguments={"meta": "nash"}, out=tmp_path / "run")
    task = make(f"spiel:kuhn_poker,seat=1,opponents={tmp_path / 'run'}")
    assert task.name == f"spiel:kuhn_poker,seat=1,opponents={tmp_path / 'run'}"
    game = compile_game("kuhn_poker")
    strategies = [game.uniform()[0], game.uniform()[1]]
    strategies[0] = task.actors[0][0].strategy
    assert game.best_response(1, strategies)[0] == pytest.approx(1 / 18, abs=1e-6)
    mean, error = paid_uniformly(task, 3000)
    assert abs(mean - game.values(strategies)[1]) <= 3.5 * error


def test_opponents_may_be_a_population_of_networks_or_one_policy(tmp_path):
    quick = {"oracle": "learned", "meta": "uniform", "steps": 1, "episodes": 8, "trials": 20}
    solve("psro", "spiel:kuhn_poker", iterations=1, arguments=quick, out=tmp_path / "played", histories=10)
    task = make(f"spiel:kuhn_poker,opponents={tmp_path / 'played'}")
    assert [len(actors) for actors in task.actors] == [2, 2] and task.mixtures[0].tolist() == [0.5, 0.5]
    folder = tmp_path / "played" / "population" / "player0" / "1"
    alone = make(f"spiel:kuhn_poker,seat=0,opponents={folder}")
    assert [len(actors) for actors in alone.actors] == [1, 1]
    assert np.isfinite(paid_uniformly(alone, 20)[0])


def test_opponents_of_another_game_or_kind_are_refused(tmp_path):
    solve("cfr", "spiel:kuhn_poker", iterations=1, out=tmp_path / "run")
    with pytest.raises(InputError, match=r"^run .*run: solved kuhn_poker, not leduc_poker$"):
        make(f"spiel:leduc_poker,opponents={tmp_path / 'run'}")
    with pytest.raises(InputError, match=r"^policy .*nothing: no readable policy of several agents"):
        make(f"spiel:leduc_poker,opponents={tmp_path / 'nothing'}")
    MultiAgentWorld(make("spiel:kuhn_poker"), 0).policy.save(tmp_path / "policy", "")
    with pytest.raises(InputError, match=r"^task spiel:leduc_poker needs agents of agents = 1, features = 32"):
        make(f"spiel:leduc_poker,opponents={tmp_path / 'policy'}")
