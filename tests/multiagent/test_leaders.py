"""Decisions that last: when a subgoal is chosen again, what one earns, and how learners discount what follows."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stratagem.advantages import GAE
from stratagem.architectures import MixedValues
from stratagem.catalogue import recipe
from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.multiagent import Followers, Leaders, Monotone, MultiAgentWorld, Situations, TrainedFollowers, TrashGrid
from stratagem.multiagent.subgoals import NONE
from stratagem.objectives import TemporalDifference
from stratagem.sampling import EpsilonGreedy
from stratagem.seeding import numpy_generator
from stratagem.tasks import make
from stratagem.training.loop import Settings, Trainer
from stratagem.training.run_directory import RunDirectory

from .corridor import Corridor, Endless, still, straight

LEFT, RIGHT, WAIT = 0, 1, 2
ONE = np.array([0])


def begun(game: Leaders, seeds: Any = ONE) -> Any:
    return {"seed": seeds, "turn": 0 * seeds, **game.begin(seeds)}


def decided(game: Leaders, state: Any, action: Any) -> tuple[Any, np.ndarray, np.ndarray]:
    changed, reward, over = game.transition(state, np.atleast_2d(action))
    return {**state, **changed, "turn": state["turn"] + 1}, reward, over


# ---- what a decision is ---------------------------------------------------------------------------------------------


def test_a_decision_of_three_steps_earns_the_discounted_sum_and_counts_what_follows_by_the_cubed_discount() -> None:
    game = Leaders(Corridor(starts=(1,)), straight, discount=0.9)
    state, reward, over = decided(game, begun(game), [LEFT])
    assert reward.tolist() == [[0.0]] and state["took"].tolist() == [1] and not over.any()
    # From cell 0 to the right end: four steps, paid in the last one.
    state, reward, over = decided(game, state, [RIGHT])
    assert reward[0, 0] == pytest.approx(0.9**3) and state["took"].tolist() == [4] and over.all()
    two = Leaders(Corridor(starts=(2,)), straight, discount=0.9)
    at_left = {**begun(two), "game.place": np.array([[1]]), "game.by": np.array([[0, NONE]])}
    _, reward, _ = decided(two, at_left, [RIGHT])
    assert reward[0, 0] == pytest.approx(0.81)
    x = Experience.from_lengths([1, 1], [2], [1], turn_reward=torch.tensor([0.81, 0.0]), turn_duration=[3, 1])
    assert x.turn_discounts(0.9).tolist() == pytest.approx([0.729, 0.9])


def test_the_temporal_difference_and_gae_discount_by_how_long_a_turn_took() -> None:
    fields = {"turn_reward": torch.tensor([0.81, 0.5]), "turn_duration": [3, 2], "value": torch.tensor([1.0, 2.0])}
    x = Experience.from_lengths([1, 1], [2], [1], **fields)
    out = PolicyOutput(torch.zeros(2), value_after=torch.tensor([1.0, 2.0]), next_value=torch.tensor([2.0, 3.0]))
    errors = [0.81 + 0.729 * 2 - 1, 0.5 + 0.81 * 3 - 2]
    loss = TemporalDifference(discount=0.9)(out, x).loss
    assert float(loss) == pytest.approx(sum(error**2 for error in errors) / 2)
    last = 0.5 - 2.0
    first = 0.81 + 0.729 * 2 - 1 + 0.729 * 0.5 * last
    assert GAE(0.9, 0.5)(x).tolist() == pytest.approx([first, last])
    assert GAE(0.9, 0.5, step="turn")(x).tolist() == pytest.approx([first, last])
    assert x.discounted_returns(0.9).tolist() == pytest.approx([0.81 + 0.729 * 0.5, 0.5])
    plain = replace(x, turn_duration=None)
    ones = replace(x, turn_duration=torch.ones(2, dtype=torch.int64))
    assert torch.allclose(GAE(0.9, 0.5)(plain), GAE(0.9, 0.5)(ones))


def test_tokens_within_a_turn_are_discounted_as_ever() -> None:
    x = Experience.from_lengths([2, 1], [2], [1], turn_reward=torch.zeros(2), turn_duration=[3, 1])
    assert x.token_discounts(0.9).tolist() == pytest.approx([0.9, 0.729, 0.9])


# ---- when it is over ------------------------------------------------------------------------------------------------


def test_a_subgoal_stays_in_force_until_its_own_agent_is_to_choose() -> None:
    game = Leaders(Corridor(starts=(2, 4)), straight)
    state = begun(game)
    assert game.legal(state)[0].tolist() == [[True, False, False]] * 2
    state, _, _ = decided(game, state, [LEFT, LEFT])
    # The first one has touched the left end: it chooses, and the other's subgoal has lapsed, for it is achieved.
    assert state["goal"].tolist() == [[NONE, NONE]] and state["took"].tolist() == [2]
    state = {**state, "goal": np.array([[NONE, RIGHT]])}
    assert game.legal(state)[0].tolist() == [[False, True, False]] * 2
    state["game.place"] = np.array([[0, 1]])
    state, reward, over = decided(game, state, [RIGHT, RIGHT])
    assert over.all() and reward.shape == (1, 2) and state["took"].tolist() == [3]


def test_the_choice_of_one_agent_never_ends_that_of_another() -> None:
    game = Leaders(TrashGrid(), lambda seen, legal, luck: luck.argmax(-1), timeout=7)
    state = begun(game, np.arange(200))
    noise = numpy_generator(0, "choices")
    seen_persisting = 0
    for _ in range(12):
        legal = game.legal(state)
        assert legal.any(-1).all()
        held = state["goal"] != NONE
        assert (legal.sum(-1)[held] == 1).all()
        action = (noise.random(legal.shape) * legal).argmax(-1)
        before_age = np.where(held, state["age"], 0)
        state, _, over = decided(game, state, action)
        rows = ~over & ~game.at_limit(state)
        kept = (state["goal"] != NONE) & rows[:, None]
        assert (state["goal"][kept] == action[kept]).all()
        assert (state["age"] == before_age + state["took"][:, None])[rows].all()
        assert ((state["goal"] == NONE).any(1) | ~rows).all()
        seen_persisting += int(kept.sum())
        state = {name: values[rows] for name, values in state.items()}
    assert seen_persisting > 100


def test_a_subgoal_that_nobody_reaches_times_out_and_earns_nothing() -> None:
    game = Leaders(Corridor(), still, timeout=4)
    state, reward, over = decided(game, begun(game), [LEFT, LEFT])
    assert state["took"].tolist() == [4] and state["goal"].tolist() == [[NONE, NONE]]
    assert not reward.any() and not over.any()
    copies = Leaders(Corridor(), still).copies(1)
    copies.reset(ONE, ONE)
    out = copies.step(ONE, np.array([[LEFT, LEFT]]))
    assert (
        out.truncated.all() and not out.terminated.any() and out.duration is not None and out.duration.tolist() == [20]
    )


def test_whoever_has_nothing_to_choose_waits_until_it_has() -> None:
    game = Leaders(
        TrashGrid(size=3, small=1, large=0), lambda seen, legal, luck: np.zeros(seen.shape[:2], int), timeout=5
    )
    state = begun(game)
    state["game.taker"] = np.array([[0]])
    assert game.legal(state)[0].tolist() == [[False, True, False], [False, False, True]]
    state, _, _ = decided(game, state, [1, WAIT])
    assert state["took"].tolist() == [5]
    freed = {**state, "goal": np.array([[1, WAIT]]), "age": 0 * state["age"], "game.taker": np.array([[NONE]])}
    freed, _, _ = decided(game, freed, [1, WAIT])
    assert freed["goal"][0, 1] == NONE and freed["took"].tolist() == [1]


def test_an_adaptive_choice_is_due_when_the_situation_has_changed() -> None:
    plain = Leaders(Corridor(starts=(4,)), straight)
    assert decided(plain, begun(plain), [LEFT])[0]["took"].tolist() == [4]
    eager = Leaders(Corridor(starts=(4,)), straight, adaptive=True, kappa=1e-6)
    state, _, _ = decided(eager, begun(eager), [LEFT])
    assert state["took"].tolist() == [1] and state["goal"].tolist() == [[NONE]]
    assert eager.legal(state)[0].tolist() == [[True, False, False]]
    patient = Leaders(Corridor(starts=(4,)), straight, adaptive=True, kappa=1e6)
    assert decided(patient, begun(patient), [LEFT])[0]["took"].tolist() == [4]


# ---- situations -----------------------------------------------------------------------------------------------------


def test_successor_features_are_the_discounted_sum_of_codes_to_come() -> None:
    # A chain that halves what it sees: psi(o) = code(o) / (1 - discount / 2), with the code affine in o.
    before = numpy_generator(0, "chain").standard_normal((4000, 2))
    fitted = Situations.fit(before, before / 2, codes=2, discount=0.8)
    point = np.array([[0.7, -0.3]])
    total = sum(0.8**k * ((point / 2**k - fitted.center) @ fitted.basis) for k in range(200))
    assert np.allclose(fitted.successors(point), total, rtol=0.01, atol=0.01)


def test_what_cannot_be_reconstructed_is_novel_and_few_of_the_familiar_are() -> None:
    line = numpy_generator(1, "line").standard_normal((1000, 1)) * np.array([[3.0, 4.0, 0.0]])
    seen = line + 0.01 * numpy_generator(2, "line").standard_normal((1000, 3))
    fitted = Situations.fit(seen, seen, codes=1)
    assert fitted.changed(seen, fitted.successors(seen), kappa=1.0).mean() == pytest.approx(0.05, abs=0.002)
    strange = np.array([[0.0, 0.0, 5.0]])
    assert fitted.changed(strange, fitted.successors(strange), kappa=1.0).all()


# ---- mixing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("agents", [1, 3])
def test_the_best_subgoal_of_each_agent_is_the_best_of_all_together(agents: int) -> None:
    game = Leaders(TrashGrid(agents=agents, small=1, large=0), straight)
    for seed in range(20):
        torch.manual_seed(seed)
        mixer = Monotone(agents, game.state_features, 32, seed)
        utility = torch.randn(agents, 3)
        joint = list(product(range(3), repeat=agents))
        chosen = torch.tensor([[float(utility[agent, one]) for agent, one in enumerate(row)] for row in joint])
        state = torch.randn(1, game.state_features).expand(len(joint), -1)
        total = mixer(chosen, state).detach()
        greedy = joint.index(tuple(utility.argmax(1).tolist()))
        assert float(total[greedy]) >= float(total.max()) - 1e-6
        for agent in range(agents):
            raised = chosen.clone()
            raised[:, agent] += 1
            assert bool((mixer(raised, state) >= total - 1e-6).all())


def test_the_value_of_what_follows_is_that_of_the_subgoal_in_force_where_nothing_may_be_chosen() -> None:
    game = Leaders(TrashGrid(), lambda seen, legal, luck: luck.argmax(-1), timeout=7)
    world = MultiAgentWorld(game, 0, MixedValues(mixer=None).build(game, 0))
    x = world.collect(EpsilonGreedy(8, 1), 0).x
    assert x is not None and x.turn_duration is not None and x.turn_duration.float().mean() > 1
    said = world.policy(x, also={"value_after", "next_value"})
    held = x.inputs.legal.sum(1) == 1  # type: ignore[union-attr]
    follows = held.roll(-1) & ~x.trajectory_of_turn.is_last()
    assert int(follows.sum()) > 20
    rows = torch.nonzero(follows).squeeze(1)
    assert torch.allclose(said.next_value[rows], said.value_after[rows + 1].detach(), atol=1e-6)


# ---- both levels ----------------------------------------------------------------------------------------------------


def test_both_levels_are_trained_one_after_the_other_and_episodes_follow_from_their_seeds(tmp_path: Path) -> None:
    practice = make("followers:trash_grid,size=3")
    world = MultiAgentWorld(practice, 0)  # type: ignore[arg-type]
    made = recipe("ippo").with_values({"sampler.prompts_per_step": 4, "optimization.epochs": 1})
    Trainer(made, world, RunDirectory.create(tmp_path / "low"), Settings(1, 0, evaluation_episodes=0)).run()
    task: Any = make(f"leaders:trash_grid,size=3,followers={tmp_path / 'low'},timeout=6,adaptive=true")
    assert task.adaptive and task.timeout == 6 and task.game.size == 3
    upper = MultiAgentWorld(task, 0)
    made = recipe("gmah").with_values({"sampler.prompts_per_step": 2, "optimization.minibatches": 2})
    metrics = Trainer(made, upper, RunDirectory.create(tmp_path / "up"), Settings(2, 0, evaluation_episodes=4)).run()
    assert metrics["updates/not_finite"] == 0 and np.isfinite(metrics["td_error"])
    alone, together = begun(task, np.array([5])), begun(task, np.array([3, 5]))
    for _ in range(3):
        action = task.legal(together).argmax(-1)
        together, _, _ = decided(task, together, action)
        alone, _, _ = decided(task, alone, action[1:])
        assert all(np.array_equal(alone[name][0], together[name][1]) for name in alone)


def test_followers_are_refused_when_they_are_missing_or_of_another_game(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs followers=FOLDER"):
        make("leaders:trash_grid")
    with pytest.raises(InputError, match="no readable policy"):
        make(f"leaders:trash_grid,followers={tmp_path}")
    other = MultiAgentWorld(Followers(Corridor()), 0).policy
    with pytest.raises(InputError, match="needs agents of"):
        TrainedFollowers(other, TrashGrid())
    with pytest.raises(InputError, match="no limit of its own"):
        Leaders(Endless(), straight)
    with pytest.raises(InputError, match="no limit of its own"):
        Followers(Endless())


def test_a_follower_without_probabilities_acts_by_its_values() -> None:
    game = Corridor(starts=(1, 2, 3))
    policy = MixedValues().build(Followers(game), 0)
    seen = np.random.default_rng(0).random((4, 3, 4))
    legal = np.ones((4, 3, 3), dtype=bool)
    act = TrainedFollowers(policy, game)
    assert np.array_equal(act(seen, legal, np.zeros((4, 3, 3))), act(seen, legal, np.full((4, 3, 3), 0.9)))


def test_followers_with_probabilities_draw_from_them() -> None:
    game = Corridor(starts=(1,))
    policy = MultiAgentWorld(Followers(game), 0).policy
    seen = np.zeros((20_000, 1, 4))
    luck = np.random.default_rng(1).random((20_000, 1, 3))
    legal = np.broadcast_to(np.array([True, True, False]), luck.shape)
    drawn = TrainedFollowers(policy, game)(seen, legal, luck)
    logits = policy.outputs()(np.zeros((1, 1, 4), dtype=np.float32))[0, 0, :2]  # type: ignore[operator]
    assert (drawn == 0).mean() == pytest.approx(np.exp(logits[0]) / np.exp(logits).sum(), abs=0.015)
