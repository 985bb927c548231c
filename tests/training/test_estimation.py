"""Heads beside the policy: what they read, how they learn, and that a stopped run goes on bit by bit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch

from stratagem import recipes
from stratagem.control.inputs import ControlInputs
from stratagem.control.policy import CategoricalPolicy, GaussianPolicy
from stratagem.errors import BrokenRunError, InputError
from stratagem.estimators import ReturnDecomposition, TurnCritics
from stratagem.experience import Experience
from stratagem.lab import Outcome, TabularPolicy, TokenGame, Tree, find_game, over
from stratagem.lab.world import LabTask, LabWorld
from stratagem.language.inputs import TokenInputs
from stratagem.parts import Estimator, Head
from stratagem.sampling import Rollouts
from stratagem.training.companions import Companions
from stratagem.training.estimation import Estimation
from stratagem.training.heads import Perceptron


def onwards(turn: int, tokens: tuple[int, ...]) -> list[Outcome]:
    return [Outcome(turn + 1)] if turn < 2 else over(1.0)


CHAIN = TokenGame("onwards", "Three turns, whatever is said; the last one earns 1.", 2, ((1.0, 0),), onwards)


def lab_policy(tree: Tree) -> TabularPolicy:
    return TabularPolicy(tree.normal_logits(0))


def test_tables_learn_the_closed_form_of_a_chain():
    """V = (0.81, 0.9, 1.0) and Q = V at a discount of 0.9, learned from slow copies alone."""
    tree = Tree.enumerate(CHAIN)
    critics = TurnCritics(discount=0.9, steps=400, learning_rate=0.02, rate=0.2)
    estimation = Estimation(critics, lab_policy(tree), 0)
    for rate in (0.02, 0.002):
        x = estimation.complete(critics.replace(learning_rate=rate), tree.leaves)
    expected = torch.tensor([0.81, 0.9, 1.0]).repeat(8).unsqueeze(1).expand(-1, 2)
    torch.testing.assert_close(x.turn_value, expected, atol=2e-3, rtol=0)
    torch.testing.assert_close(x.turn_action_value, expected, atol=2e-3, rtol=0)
    assert estimation.figures["estimator/weight"] == 1.0


def test_on_average_over_the_policy_learned_turns_have_no_advantage():
    tree = Tree.enumerate(find_game("stopping"))
    policy = TabularPolicy(torch.zeros(tree.nodes, 3))
    critics = TurnCritics(discount=1.0, steps=600, learning_rate=0.05, rate=0.3)
    # Every leaf as often as a uniform policy gets there: those that stop early stand for all they cut off.
    counts = 3 ** (4 - tree.leaves.trajectory_of_turn.size())
    x = tree.leaves.select(torch.repeat_interleave(torch.arange(tree.leaves.trajectories), counts))
    estimation = Estimation(critics, policy, 0)
    for rate in (0.05, 0.01, 0.001):
        x = estimation.complete(critics.replace(learning_rate=rate), x)
    gap = (x.turn_action_value - x.turn_value)[:, 0]
    first = x.trajectory_of_turn.position() == 0
    assert float(gap[first].mean()) == pytest.approx(0.0, abs=2e-3)
    assert float(gap[first].abs().mean()) > 0.1


@pytest.mark.parametrize(("rate", "moved"), [(1.0, True), (0.0, False)])
def test_slow_copies_are_copies_at_a_rate_of_one_and_stay_at_a_rate_of_zero(rate, moved):
    tree = Tree.enumerate(CHAIN)
    estimation = Estimation(TurnCritics(rate=rate, steps=3), lab_policy(tree), 0)
    estimation.complete(TurnCritics(rate=rate, steps=3), tree.leaves)
    state = estimation.state_dict()
    heads = {name.removeprefix("heads."): t for name, t in state.items() if name.startswith("heads.")}
    for name, tensor in heads.items():
        slow = state[f"slow.{name}"]
        assert torch.equal(slow, tensor) if moved else not bool(slow.any())
    assert any(bool(tensor.any()) for tensor in heads.values())


def test_a_trajectory_learned_by_heart_has_contributions_that_add_up():
    tree = Tree.enumerate(find_game("windy"))
    x = tree.leaves.select(torch.tensor([5]))
    x = x.replace(reward=torch.ones(1, 1))
    part = ReturnDecomposition(steps=500, learning_rate=0.02)
    done = Estimation(part, lab_policy(tree), 0).complete(part, x)
    assert len(done.turn_progress) == 4
    assert abs(float(done.turn_progress.sum()) - 1) < 1e-3


def test_nothing_is_learned_without_steps_or_where_it_is_only_asked():
    tree = Tree.enumerate(CHAIN)
    part = ReturnDecomposition(learning_rate=0.1)
    estimation = Estimation(part, lab_policy(tree), 0)
    assert not bool(estimation.complete(part.replace(steps=0), tree.leaves).turn_progress.any())
    assert "estimator/loss" not in estimation.figures and estimation.figures["estimator/mse"] == 1.0
    assert not bool(estimation.complete(part, tree.leaves, learn=False).turn_progress.any())
    assert bool(estimation.complete(part, tree.leaves).turn_progress.all())


def test_a_turn_without_tokens_contributes_nothing():
    tree = Tree.enumerate(CHAIN)
    x = tree.leaves.select(torch.tensor([0]))
    empty = Experience.from_lengths([1, 1, 1, 0], [4], [1], reward=[1.0], inputs=x.inputs, action=x.action)
    part = ReturnDecomposition(learning_rate=0.1)
    assert float(Estimation(part, lab_policy(tree), 0).complete(part, empty).turn_progress[3]) == 0.0


@dataclass(frozen=True)
class _Diverging(Estimator):
    """A loss that is no number."""

    says: ClassVar[frozenset[str]] = frozenset({"turn_progress"})
    heads: ClassVar[dict[str, Head]] = {"progress": Head("after")}

    def loss(self, said: Any, slow: Any, x: Experience) -> torch.Tensor:
        return said["progress"].sum() * torch.nan


def test_what_is_not_finite_ends_the_run_and_is_named():
    tree = Tree.enumerate(CHAIN)
    with pytest.raises(BrokenRunError, match=r"estimator _diverging: its loss in step 1 is nan"):
        Estimation(_Diverging(), lab_policy(tree), 0).complete(_Diverging(), tree.leaves)
    part = ReturnDecomposition(steps=0)
    estimation = Estimation(part, lab_policy(tree), 0)
    state = estimation.state_dict()
    estimation.load_state_dict({name: torch.full_like(tensor, torch.inf) for name, tensor in state.items()})
    with pytest.raises(BrokenRunError, match=r"estimator return_decomposition: its progress is not finite"):
        estimation.complete(part, tree.leaves)


def test_a_policy_that_heads_cannot_read_is_refused():
    class Silent:
        says = frozenset({"entropy"})
        views = ()

    with pytest.raises(InputError, match=r"Silent does not say after; it says entropy"):
        Estimation(ReturnDecomposition(), Silent(), 0)


# ---- a run ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["spa_rl", "archer"])
@pytest.mark.parametrize("within", [False, True])
def test_a_run_in_the_lab_that_was_stopped_goes_on_bit_by_bit(name, within, make_trainer, small, stopped_and_resumed):
    def world() -> LabWorld:
        return LabWorld(LabTask(find_game("corridor")), 0)

    recipe = small(name).with_values({"sampler.prompts_per_step": 8})
    recipe = recipe.replace(schedules=tuple(s.replace(at=min(s.at, 2)) for s in recipe.schedules))
    unbroken = make_trainer(recipe, "unbroken", world(), steps=5)
    unbroken.run()
    resumed = stopped_and_resumed(make_trainer(recipe, "broken", world(), steps=5), world(), 3, within)
    for trainer in (unbroken, resumed):
        trainer.checkpoint()
    one, other = (trainer.run_directory.load().tensors for trainer in (unbroken, resumed))
    assert one.keys() == other.keys() and any(key.startswith("estimator.heads") for key in one["companions"])
    for group, tensors in one.items():
        assert tensors.keys() == other[group].keys()
        assert all(torch.equal(tensor, other[group][key]) for key, tensor in tensors.items())


def test_during_the_warm_up_the_critics_learn_and_the_policy_stays(make_trainer):
    world = LabWorld(LabTask(find_game("corridor")), 0)
    before = world.policy.table()
    trainer = make_trainer(recipes.archer(warmup=2), world=world, steps=3)
    for _ in range(2):
        metrics = trainer.step()
        assert metrics["batch/skipped"] == 1.0 and metrics["estimator/loss"] >= 0.0
    assert torch.equal(world.policy.table(), before)
    trainer.step()
    assert not torch.equal(world.policy.table(), before)


def test_probes_do_not_teach(make_policy, make_world):
    world, recipe = make_world(), recipes.spa_rl()
    companions = Companions(world.policy, recipe)
    x = world.collect(Rollouts(prompts_per_step=2, group_size=2), 0).x
    before = {name: tensor.clone() for name, tensor in companions.state_dict().items()}
    companions.complete(recipe, x, learn=False)
    assert before.keys() == companions.state_dict().keys() and companions.figures() == {}
    companions.complete(recipe, x)
    assert "estimator/mse" in companions.figures()


@pytest.mark.parametrize("name", ["spa_rl", "archer"])
def test_a_language_policy_learns_with_heads_beside_it(name, make_trainer, small, stopped_and_resumed, make_world):
    recipe = small(name).with_values({"estimator.steps": 3, "optimization.microbatch_tokens": 64})
    recipe = recipe.replace(schedules=tuple(s.replace(at=min(s.at, 1)) for s in recipe.schedules))
    unbroken = make_trainer(recipe, "unbroken", make_world(), steps=3)
    metrics = unbroken.run()
    assert metrics["estimator/loss"] >= 0 and metrics["batch/skipped"] == 0.0
    resumed = stopped_and_resumed(make_trainer(recipe, "broken", make_world(), steps=3), make_world(), 2, True)
    one, other = (trainer.policy.state_dict() for trainer in (unbroken, resumed))
    assert all(torch.equal(tensor, other[key]) for key, tensor in one.items())


# ---- what is read ---------------------------------------------------------------------------------------------------


def test_a_language_policy_says_what_stands_before_and_at_every_action(make_policy):
    policy = make_policy()
    ids = torch.randint(320, (15,), generator=torch.Generator().manual_seed(3))
    inputs = TokenInputs(ids, torch.tensor([9, 6]), torch.tensor([3, 4, 7, 8, 11, 12, 13, 14]))
    x = Experience.from_lengths([2, 2, 4], [2, 1], [2], inputs=inputs)
    out = policy(x, also=("before", "after", "hidden"))
    assert torch.equal(out.before, out.hidden)
    # With every position but the first an action, what stands at one is what stands before the next.
    longer = torch.cat([ids[:9], ids[:1], ids[9:], ids[:1]])
    places = torch.tensor([*range(1, 10), *range(11, 17)])
    every = Experience.from_lengths([9, 6], [1, 1], [2], inputs=TokenInputs(longer, torch.tensor([10, 7]), places))
    states = policy(every, also=("before",)).before.detach()
    torch.testing.assert_close(out.after, states[inputs.action_positions], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(out.logp, policy(x).logp, atol=1e-5, rtol=1e-5)
    assert not out.before.requires_grad and not out.after.requires_grad
    nothing = Experience.from_lengths([0], [1], [1], inputs=TokenInputs(ids[:3], torch.tensor([3]), ids[:0]))
    assert policy(nothing, also=("after",)).after.shape == (0, 32)


def test_a_control_policy_says_what_it_saw_and_what_it_did():
    seen = torch.tensor([[0.5, 1.0], [2.0, -1.0]])
    x = Experience.from_lengths([1, 1], [2], [1], inputs=ControlInputs(seen, torch.tensor([2])))
    chosen = CategoricalPolicy(2, 3)(x.replace(action=torch.tensor([2, 0])), also=("before", "after"))
    assert torch.equal(chosen.before, seen)
    assert chosen.after.tolist() == [[0.5, 1.0, 0.0, 0.0, 1.0], [2.0, -1.0, 1.0, 0.0, 0.0]]
    moved = GaussianPolicy(2, 1)(x.replace(action=torch.tensor([[0.25], [3.0]])), also=("after",))
    assert moved.after.tolist() == [[0.5, 1.0, 0.25], [2.0, -1.0, 3.0]]


def test_a_control_policy_has_heads_that_learn(make_trainer, small):
    policy = CategoricalPolicy(2, 3)
    seen = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
    x = Experience.from_lengths(
        [1] * 40,
        [1] * 40,
        [40],
        inputs=ControlInputs(seen, torch.ones(40, dtype=torch.int64)),
        action=torch.zeros(40, dtype=torch.int64),
        reward=(0.5 * seen[:, 0] + 0.25).tolist(),
    )
    part = ReturnDecomposition(steps=400, learning_rate=0.02)
    done = Estimation(part, policy, 0).complete(part, x)
    torch.testing.assert_close(done.turn_progress, x.returns, atol=5e-3, rtol=0)


def test_twins_begin_apart_and_a_head_says_nothing_at_first():
    heads = [Perceptron(4, 8, torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    features = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    assert all(not bool(head(features).any()) for head in heads)
    assert not torch.equal(heads[0].layers[0].weight, heads[1].layers[0].weight)
    assert len(Perceptron(4, 0, torch.Generator()).layers) == 1
    scaled = Perceptron(4, 8, torch.Generator().manual_seed(0), normalize=True)
    torch.testing.assert_close(scaled.layers[0](features), scaled.layers[0](9 * features), atol=1e-3, rtol=1e-3)
