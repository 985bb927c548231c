from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stratagem.errors import InputError
from stratagem.multiagent import CoordinationGame, MatrixGame, MeetingGame, RecallGame, TwoStepGame, chance
from stratagem.tasks import registry

from .conftest import Walk

GAMES = [Walk(), MatrixGame("penalty"), TwoStepGame(), MeetingGame(agents=3), CoordinationGame(), RecallGame()]


@pytest.mark.parametrize("game", GAMES, ids=lambda game: game.name)
def test_frames_and_outcomes_have_the_sizes_the_game_says(game: Walk) -> None:
    copies, who = game.copies(4), np.arange(4)
    assert copies.reset(who, np.arange(4)) == {}
    out = copies.step(who, np.zeros((4, game.agents), dtype=np.int64))
    for frame in (copies.observe(who), out.frame):
        assert frame.observation.shape == (4, game.agents, game.features) and frame.observation.dtype == np.float32
        assert frame.state.shape == (4, game.state_features)
        assert frame.legal.shape == (4, game.agents, game.actions) and frame.alive.all()
    assert out.reward.shape == out.terminated.shape == out.truncated.shape == (4, game.agents)
    if game.shared_reward:
        assert (out.reward == out.reward[:, :1]).all()


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 2**62), min_size=1, max_size=6), st.data())
def test_what_happens_in_a_copy_does_not_depend_on_the_others(seeds: list[int], data: st.DataObject) -> None:
    together, who = Walk().copies(len(seeds)), np.arange(len(seeds))
    together.reset(who, np.array(seeds))
    actions = np.array(data.draw(st.lists(st.integers(0, 1), min_size=4, max_size=4)))
    chosen = data.draw(st.integers(0, len(seeds) - 1))
    alone = Walk().copies(1)
    alone.reset(np.array([0]), np.array([seeds[chosen]]))
    for action in actions:
        same = np.full((len(seeds), 2), action)
        one, all_of_them = alone.step(np.array([0]), same[:1]), together.step(who, same)
        assert np.array_equal(one.frame.observation[0], all_of_them.frame.observation[chosen])
        assert np.array_equal(one.reward[0], all_of_them.reward[chosen])


def test_a_call_leaves_copies_it_does_not_name_as_they_are() -> None:
    copies = Walk().copies(3)
    copies.reset(np.arange(3), np.arange(3))
    before = copies.observe(np.array([0, 2]))
    copies.step(np.array([1]), np.array([[0, 0]]))
    copies.reset(np.array([1]), np.array([99]))
    after = copies.observe(np.array([0, 2]))
    assert all(np.array_equal(*pair) for pair in zip(before, after, strict=True))


def test_the_state_of_copies_restores_them_exactly() -> None:
    copies, other = Walk().copies(2), Walk().copies(2)
    copies.reset(np.arange(2), np.arange(2))
    copies.step(np.arange(2), np.array([[1, 1], [2, 0]]))
    other.load_state_dict(copies.state_dict())
    one, same = (c.step(np.arange(2), np.array([[2, 1], [0, 0]])) for c in (copies, other))
    assert np.array_equal(one.frame.observation, same.frame.observation) and np.array_equal(one.reward, same.reward)


def test_chance_differs_by_seed_turn_and_place_and_is_uniform() -> None:
    seeds = np.arange(2000)
    first, turn0 = chance(seeds, (2,)), chance(seeds, (2,), np.zeros_like(seeds))
    drawn = np.concatenate([first.ravel(), turn0.ravel()])
    assert len(np.unique(drawn)) == len(drawn)
    assert abs(drawn.mean() - 0.5) < 0.02 and abs(np.corrcoef(first[:, 0], turn0[:, 0])[0, 1]) < 0.1
    assert chance(seeds).shape == (2000,) and np.array_equal(chance(seeds[7:8], (2,)), first[7:8])


def test_an_episode_is_truncated_at_its_limit_and_not_when_it_ends_there() -> None:
    game = MeetingGame(size=2, agents=2, max_turns=1)
    copies = game.copies(200)
    copies.reset(np.arange(200), np.arange(200))
    out = copies.step(np.arange(200), np.zeros((200, 2), dtype=np.int64))
    met = out.reward[:, 0] > 0
    assert 20 < met.sum() < 80
    assert np.array_equal(out.terminated[:, 0], met) and np.array_equal(out.truncated[:, 0], ~met)


# ---- built-in games -------------------------------------------------------------------------------------------------


PAID = [
    *(("climbing", (0, 0), 11), ("climbing", (0, 1), -30), ("climbing", (1, 2), 6), ("climbing", (2, 1), 0)),
    *(("penalty", (0, 2), -100), ("penalty", (1, 1), 2), ("nonmonotonic", (0, 0), 8), ("nonmonotonic", (1, 0), -12)),
]


@pytest.mark.parametrize(("name", "actions", "paid"), PAID)
def test_a_matrix_game_pays_its_payoff_once(name: str, actions: tuple[int, int], paid: float) -> None:
    copies = MatrixGame(name, scale=2.0).copies(1)  # type: ignore[arg-type]
    copies.reset(np.array([0]), np.array([0]))
    out = copies.step(np.array([0]), np.array([actions]))
    assert out.reward.tolist() == [[2 * paid, 2 * paid]] and out.terminated.all()


@pytest.mark.parametrize(
    ("choice", "then", "paid"), [(0, (0, 0), 7), (0, (1, 0), 7), (1, (0, 0), 0), (1, (0, 1), 1), (1, (1, 1), 8)]
)
def test_the_first_agent_chooses_the_second_game(choice: int, then: tuple[int, int], paid: float) -> None:
    copies = TwoStepGame().copies(1)
    copies.reset(np.array([0]), np.array([0]))
    first = copies.step(np.array([0]), np.array([[choice, 1 - choice]]))
    assert first.reward.sum() == 0 and not first.terminated.any()
    assert first.frame.state.argmax() == 1 + choice
    second = copies.step(np.array([0]), np.array([then]))
    assert second.reward[0, 0] == paid and second.terminated.all()


def test_agents_see_others_only_within_sight() -> None:
    game = MeetingGame(size=5, sight=1)
    seen = game.observe({"cell": np.array([[[0, 0], [1, 1]], [[0, 0], [2, 0]]])})
    assert np.allclose(seen[0, 0], [0, 0, 1, 0.2, 0.2]) and np.allclose(seen[0, 1], [0.2, 0.2, 1, -0.2, -0.2])
    assert np.allclose(seen[1, 0], 0) and np.allclose(seen[1, 1], [0.4, 0, 0, 0, 0])


def test_agents_meet_through_walls_of_the_grid_stopping_them() -> None:
    game = MeetingGame(size=2)
    state = {"cell": np.array([[[0, 0], [1, 0]]])}
    changed, reward, over = game.transition(state, np.array([[1, 1]]))
    assert changed["cell"].tolist() == [[[0, 0], [0, 0]]] and over.all() and reward[0, 0] == pytest.approx(0.98)


def test_coordination_pays_the_eight_entries_of_the_published_table() -> None:
    game = CoordinationGame(agents=3)
    table = {bits: float(game.pay(np.array(bits))) for bits in np.ndindex(2, 2, 2)}
    by_ones = {0: 3.0, 1: 0.0, 2: 1.0, 3: 2.0}
    assert table == {bits: by_ones[sum(bits)] for bits in table}
    assert [float(CoordinationGame(agents=2).pay(np.array(b))) for b in ((0, 0), (0, 1), (1, 1))] == [3, 0, 2]
    five = CoordinationGame(agents=5)
    assert [float(five.pay(np.arange(5) < ones)) for ones in range(6)] == [3, 3, 0, 1, 2, 2]


def test_bits_flip_as_often_as_the_game_says() -> None:
    game = CoordinationGame(agents=3, flip=0.1)
    state = {"seed": np.arange(4000), "turn": np.zeros(4000, dtype=np.int64), "bits": np.zeros((4000, 3), dtype=int)}
    changed, _, over = game.transition(state, np.ones((4000, 3), dtype=np.int64))
    assert abs(changed["bits"].mean() - 0.9) < 0.01 and not over.any()


def test_recall_pays_all_who_answer_the_cue_in_the_last_turn_and_nothing_else() -> None:
    game, who = RecallGame(agents=2, cues=3, delay=2), np.arange(60)
    copies = game.copies(60)
    copies.reset(who, who)
    cue = copies.observe(who).observation[:, 0, :3].argmax(1)
    assert set(cue.tolist()) == {0, 1, 2}
    for turn in range(3):
        frame = copies.observe(who)
        assert frame.observation[..., :3].any() == (turn == 0) and bool(
            (frame.observation[..., 3] == (turn == 2)).all()
        )
        assert np.array_equal(frame.state[:, :3].argmax(1), cue)
        out = copies.step(who, np.stack([cue, np.where(who % 2, cue, (cue + 1) % 3)], 1))
        assert out.terminated.all() == (turn == 2) and not out.truncated.any()
        assert np.array_equal(out.reward[:, 0], (who % 2) * (turn == 2))


@pytest.mark.parametrize(("agents", "cues"), [(1, 2), (2, 2), (2, 3), (3, 2)])
def test_agents_that_do_not_remember_recall_no_more_than_chance(agents: int, cues: int) -> None:
    # Whoever draws its answer alike whatever the cue was is a mixture of those who always give the same one.
    game, best = RecallGame(agents=agents, cues=cues, delay=1), 0.0
    cue = np.arange(cues)
    at_end = {"seed": cue, "turn": np.ones(cues, dtype=np.int64), "cue": cue}
    assert len(np.unique(game.observe(at_end), axis=0)) == 1
    for answer in np.ndindex(*(cues,) * agents):
        _, paid, over = game.transition(at_end, np.tile(answer, (cues, 1)))
        assert over.all()
        best = max(best, float(paid.mean()))
    assert best == 1 / cues
    assert game.transition(at_end, np.repeat(cue[:, None], agents, 1))[1].mean() == 1


# ---- specifications -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec", ["matrix:penalty,scale=2.0", "two_step", "meeting:size=4,agents=3", "coordination", "recall:delay=2"]
)
def test_a_specification_makes_the_task_that_is_named_so(spec: str) -> None:
    assert registry.make(spec).name == spec


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("matrix:clmbing", "did you mean 'climbing'"),
        ("meeting:size=1", "size"),
        ("meeting:siz=4", "did you mean 'size'"),
        ("two_step:x", "takes no argument"),
        ("coordination:flip=2", "flip"),
    ],
)
def test_a_wrong_specification_is_one_line(spec: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as error:
        registry.make(spec)
    assert "\n" not in str(error.value)
