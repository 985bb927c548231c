"""Learning transitions between latent states."""

from __future__ import annotations

import pytest
import torch

from stratagem.advantages import GroupCentered
from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.hybrid import HybridTask, HybridWorld
from stratagem.lab.game import TokenGame, over
from stratagem.lab.world import LabTask, LabWorld
from stratagem.latent import DirichletPolicy
from stratagem.objectives import LogLikelihood, PolicyGradient, SequenceSum
from stratagem.recipe import Recipe
from stratagem.recipes.reasoning.latent import ctrls
from stratagem.sampling import Exploring, Rollouts
from stratagem.study.experiments import learn

LOGITS = torch.tensor([0.6, 0.4], dtype=torch.float64).log()
RETURNS = torch.tensor([1.0, 0.0], dtype=torch.float64)


def one_state(odds=(0.6, 0.4), pays=(1.0, 0.0)) -> tuple[LabWorld, DirichletPolicy]:
    """One step from one state; the state named decides the reward."""
    game = TokenGame("one", "Name a state.", len(odds), ((1.0, 0),), lambda state, tokens: over(pays[tokens[0]]))
    policy = DirichletPolicy(torch.arange(1), torch.log(torch.expm1(torch.tensor([odds]))))
    return LabWorld(LabTask(game), 1000, policy), policy


def drawn(epsilon: float, count: int) -> tuple[Experience, torch.Tensor]:
    """Explored states, and the log-odds of the policy itself."""
    sampler = Exploring(epsilon=epsilon)
    mu = sampler.tempered(LOGITS).exp()
    action = torch.multinomial(mu, count, replacement=True, generator=torch.Generator().manual_seed(7))
    x = Experience.from_lengths(
        [1] * count, [1] * count, [count], action=action, behavior_logp=mu.log()[action], reward=RETURNS[action]
    )
    return x, action


def slope(x: Experience, action: torch.Tensor, recipe: Recipe) -> float:
    """Gradient of the objective to maximise by the first logit, without a baseline."""
    logits = LOGITS.clone().requires_grad_()
    x = x.replace(advantage=x.to_tokens(trajectory=x.returns))
    recipe.objective(PolicyOutput(torch.log_softmax(logits, -1)[action]), x).loss.backward()
    return -float(logits.grad[0])


# ---- exploration ----------------------------------------------------------------------------------------------------


def test_exploring_mixes_in_the_uniform_distribution():
    torch.testing.assert_close(
        Exploring(epsilon=0.3).tempered(LOGITS).exp(), torch.tensor([0.57, 0.43], dtype=torch.float64)
    )
    torch.testing.assert_close(Exploring(epsilon=1.0).tempered(LOGITS).exp(), torch.full((2,), 0.5).double())
    torch.testing.assert_close(Exploring(epsilon=0.0).tempered(LOGITS), LOGITS)


def test_the_weighted_gradient_is_the_exact_one_and_without_weights_it_is_not():
    x, action = drawn(0.3, 50_000)
    recipe = ctrls(entropy_weight=0.0)
    assert slope(x, action, recipe) == pytest.approx(0.6 * 0.4, abs=0.01)
    plain = recipe.replace(objective=recipe.objective.replace(correction=None))
    assert slope(x, action, plain) == pytest.approx(0.57 * 0.4, abs=0.005)


def test_pure_exploration_has_finite_weights_up_to_the_cap():
    x, action = drawn(1.0, 1000)
    weights = ctrls().objective.correction(PolicyOutput(LOGITS[action]), x)
    assert weights.unique().tolist() == pytest.approx([0.8, 1.2])
    sure = PolicyOutput(torch.zeros(1000, dtype=torch.float64))
    rare = x.replace(behavior_logp=torch.full((1000,), 0.1, dtype=torch.float64).log())
    assert ctrls().objective.correction(sure, rare).max() == 5.0


def test_the_lab_samples_by_the_mixture_and_notes_its_odds():
    world, _ = one_state()
    world.serve(0)
    x = world.collect(Exploring(prompts_per_step=500, group_size=8, epsilon=0.3), 0).x
    assert x.behavior_logp.exp()[x.action == 0].unique().tolist() == [pytest.approx(0.57)]
    assert float((x.action == 0).float().mean()) == pytest.approx(0.57, abs=0.03)


def test_who_cannot_explore_says_so():
    world = HybridWorld(HybridTask("find"), 1000)
    world.serve(0)
    with pytest.raises(InputError, match=r"^sampler exploring: epsilon = 0\.1: a hybrid policy does not draw"):
        world.collect(Exploring(), 0)
    with pytest.raises(InputError, match="a language policy does not draw actions uniformly"):
        Exploring().check_asked("a language policy")
    Exploring(epsilon=0.0).check_asked("a language policy")


def test_exploration_falls_over_the_run():
    schedule = ctrls().schedules[0]
    assert [schedule(step, {})["sampler.epsilon"] for step in (0, 50, 100, 500)] == pytest.approx(
        [0.1, 0.06, 0.02, 0.02]
    )
    assert ctrls(epsilon=0.1, final_epsilon=0.1).schedules == ()


# ---- learning -------------------------------------------------------------------------------------------------------


def test_without_exploration_and_entropy_it_is_reinforce_with_the_mean_of_the_group():
    ours = ctrls(epsilon=0.0, final_epsilon=0.0, entropy_weight=0.0, learning_rate=0.05)
    plain = Recipe(
        name="plain",
        sampler=Rollouts(),
        advantage=GroupCentered(),
        objective=PolicyGradient(gate=LogLikelihood(), aggregation=SequenceSum()),
        optimization=ours.optimization,
    )
    (first, _), (second, _) = one_state(), one_state()
    found = [learn(arm, world.task, 1000, 5, world.policy, 0.05) for arm, world in ((ours, first), (plain, second))]
    torch.testing.assert_close(found[0].last.logp, found[1].last.logp)
    assert found[0].last.expected_return > 0.6


def test_entropy_draws_states_that_earn_the_same_together():
    for pays in ((1.0, 1.0, 1.0), (0.0, 0.0, 0.0)):
        world, policy = one_state((3.0, 0.3, 0.3), pays)
        before = float(policy.mean().detach().min())
        learn(ctrls(entropy_weight=0.1), world.task, 1000, 60, policy, 0.1)
        assert float(policy.mean().detach().min()) > 3 * before
        torch.testing.assert_close(policy.mean().detach(), torch.full((1, 3), 1 / 3), atol=0.02, rtol=0)


def test_a_group_that_agrees_teaches_nothing_but_entropy():
    x = Experience.from_lengths([1] * 4, [1] * 4, [4], action=[0, 1, 0, 1], reward=[1.0] * 4)
    assert not ctrls().advantage(x).any()
