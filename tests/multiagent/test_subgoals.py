"""Trees of subgoals, and practice in reaching them: who is paid what, whose episode ends, and when."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stratagem.catalogue import recipe
from stratagem.errors import InputError
from stratagem.multiagent import Followers, MultiAgentWorld, Subgoal, SubgoalTree, TwoStepGame, intrinsic_reward
from stratagem.multiagent.subgoal_grids import DoorKeyGrid
from stratagem.multiagent.subgoals import NONE
from stratagem.sampling import Rollouts
from stratagem.tasks import make
from stratagem.training.loop import Settings, Trainer
from stratagem.training.run_directory import RunDirectory

from .corridor import Corridor

ONE = np.array([0])


def played(game: Any, *actions: Any) -> Any:
    """The outcomes of these joint actions in one copy."""
    copies = game.copies(1)
    copies.reset(ONE, ONE)
    return [copies.step(ONE, np.array([action])) for action in actions]


# ---- trees ----------------------------------------------------------------------------------------------------------


def test_the_door_may_not_be_chosen_before_the_key() -> None:
    tree = DoorKeyGrid().tree
    achieved = np.array([[False] * 3, [True, False, False], [True, True, False], [True] * 3])
    assert tree.open(achieved).tolist() == [
        [True, False, False],
        [False, True, False],
        [False, False, True],
        [False] * 3,
    ]


@settings(deadline=None)
@given(st.data())
def test_what_is_open_is_what_is_not_achieved_and_has_all_its_parents_achieved(data: Any) -> None:
    names = [str(number) for number in range(data.draw(st.integers(1, 6)))]
    drawn = [data.draw(st.sets(st.sampled_from(names[:n]))) if n else set() for n in range(len(names))]
    tree = SubgoalTree(tuple(Subgoal(name, tuple(sorted(after))) for name, after in zip(names, drawn, strict=True)))
    for achieved in product([False, True], repeat=len(names)):
        done = {name for name, one in zip(names, achieved, strict=True) if one}
        wanted = [name not in done and after <= done for name, after in zip(names, drawn, strict=True)]
        assert tree.open(np.array(achieved)).tolist() == wanted


@pytest.mark.parametrize(
    ("subgoals", "complaint"),
    [
        ((), "at least one subgoal"),
        ((Subgoal("a"), Subgoal("a")), "'a' is given twice"),
        ((Subgoal("a", ("b",)), Subgoal("b")), "parent of subgoal 'a'"),
        ((Subgoal("a", ("a",)),), "parent of subgoal 'a'"),
    ],
)
def test_a_tree_that_is_none_is_refused(subgoals: Any, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        SubgoalTree(subgoals)


# ---- practice -------------------------------------------------------------------------------------------------------


def test_a_subgoal_pays_less_the_later_it_is_achieved_and_a_failure_nothing() -> None:
    paid = intrinsic_reward(np.array([True, False, True]), np.array([64, 64, 256]), 256)
    assert paid.tolist() == [0.875, 0.0, 0.5]


def test_whoever_achieves_a_subgoal_is_paid_and_done_and_another_is_done_without_pay() -> None:
    first, second, *_ = played(Followers(Corridor(starts=(2, 3))), (1, 0), (1, 0))
    assert first.reward.tolist() == [[0, 0]] and not first.terminated.any()
    assert second.reward.tolist() == [[np.float32(1 - 0.5 * 2 / 20), 0]]
    assert second.terminated.tolist() == [[True, True]] and not second.frame.alive.any()
    assert not second.frame.observation.any()


def test_an_agent_that_is_done_stands_idle_whatever_it_is_made_to_do() -> None:
    game = Followers(Corridor(starts=(1, 1)))
    state = {"seed": ONE, "turn": ONE, **game.begin(ONE), "alive": np.array([[False, True]])}
    state, _, over = game.transition(state, np.array([[1, 0]]))
    assert state["game.place"].tolist() == [[1, 1]] and over.tolist() == [[True, False]]


def test_practice_is_cut_at_the_limit_without_pay() -> None:
    outcomes = played(Followers(Corridor(), timeout=3), *[(0, 0)] * 3)
    assert [out.truncated.tolist() for out in outcomes] == [[[False] * 2]] * 2 + [[[True] * 2]]
    assert not any(out.reward.any() or out.terminated.any() for out in outcomes)


def test_agents_practise_only_what_is_open_to_them_and_each_of_that_alike() -> None:
    game = Followers(make("trash_grid"))
    seeds = np.arange(4000)
    state = {"seed": seeds, "turn": 0 * seeds, **game.begin(seeds)}
    inner = {"seed": seeds} | {name.removeprefix("game."): rows for name, rows in state.items()}
    opened, goal = game.game.open(inner), state["goal"]
    assert ((goal == NONE) == ~opened.any(-1)).all()
    chosen = np.take_along_axis(opened, np.maximum(goal, 0)[..., None], -1)[..., 0]
    assert chosen[goal != NONE].all()
    two = (opened.sum(-1) == 2) & (goal != NONE)
    first = opened.argmax(-1)[two] == goal[two]
    assert abs(first.mean() - 0.5) < 4 * 0.5 / np.sqrt(two.sum())


def test_an_agent_sees_its_subgoal_beside_what_it_sees() -> None:
    game = Followers(Corridor())
    frame = played(game, (0, 0))[0].frame
    assert frame.observation[0].tolist() == [[np.float32(0.2), 0, 1, 0], [np.float32(0.6), 0, 1, 0]]
    assert frame.state.shape == (1, game.state_features) == (1, 8)


def test_one_subgoal_which_is_the_mission_is_learned_as_the_game_itself_to_the_last_digit(tmp_path: Path) -> None:
    game = Corridor(starts=(2,), mission=True)
    policies, batches = [], []
    for name, task in (("a", game), ("b", Followers(game))):
        world = MultiAgentWorld(task, seed=3)
        batches.append(MultiAgentWorld(task, seed=3).collect(Rollouts(4, 2), 0).x)
        made = recipe("ippo").with_values({"sampler.prompts_per_step": 6, "optimization.epochs": 2})
        Trainer(made, world, RunDirectory.create(tmp_path / name), Settings(3, 3, evaluation_episodes=0)).run()
        policies.append(world.policy.state_dict())
    mine, theirs = batches
    assert mine is not None and theirs is not None and bool((mine.reward > 0).any())
    for name in ("action", "turn_reward", "behavior_logp", "value", "finished"):
        assert torch.equal(getattr(mine, name), getattr(theirs, name)), name
    assert all(torch.equal(policies[0][name], policies[1][name]) for name in policies[0])


def test_a_game_without_subgoals_and_options_out_of_range_are_refused() -> None:
    for spec, complaint in (
        ("followers", "needs a game with subgoals"),
        ("followers:two_step", "two_step: has no subgoals"),
        ("followers:trash_grid,cost=2", "cost='2' is not allowed"),
        ("followers:trash_grid,bins=2", "unknown option"),
    ):
        with pytest.raises(InputError, match=complaint):
            make(spec)
    with pytest.raises(InputError, match="two_step: has no subgoals"):
        Followers(TwoStepGame())


def test_options_of_practice_and_of_its_game_are_told_apart() -> None:
    game: Any = make("followers:trash_grid,size=3,cost=0.25,timeout=9")
    assert (game.game.size, game.cost, game.limit) == (3, 0.25, 9)
    assert make(game.name) == game
