"""A policy that attends to options: consistency of values, symmetry of options, and what the trainer asks."""

from __future__ import annotations

import pytest
import torch

from stratagem.errors import InputError
from stratagem.openended import Distillation, GoalPolicy, Grid, OpenEndedTask, Shape, kl
from stratagem.seeding import generator

UNIVERSE = OpenEndedTask(horizon=6)


def _policy(attention: bool = True, seed: int = 0) -> GoalPolicy:
    shape = Shape.of(UNIVERSE)
    policy = GoalPolicy(Shape(shape.state, shape.option, shape.options, attention=attention), seed)
    with torch.no_grad():  # decided enough to differ from option to option
        policy.act.weight.mul_(100)
        policy.critic.weight.mul_(3)
    return policy


def _seen(count: int = 200) -> torch.Tensor:
    return Grid(UNIVERSE, UNIVERSE.tasks("train", range(count))).observation()


def _split(seen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    state = Grid.state_features(UNIVERSE)
    return seen[:, :state], seen[:, state:].view(len(seen), 2, -1)


def _joined(state: torch.Tensor, options: torch.Tensor) -> torch.Tensor:
    return torch.cat([state, options.flatten(1)], 1)


def test_a_goal_is_valued_at_least_as_much_as_each_of_its_options_alone():
    policy, (state, options) = _policy(), _split(_seen())
    two = options[..., -2].all(1)
    whole = policy.values(_joined(state, options))
    for one in range(2):
        alone = torch.zeros_like(options)
        alone[:, 0] = options[:, one]
        assert (whole >= policy.values(_joined(state, alone)) - 1e-5)[two].all()
    assert two.any() and not two.all()


def test_without_attention_that_need_not_be():
    policy, (state, options) = _policy(attention=False), _split(_seen())
    two = options[..., -2].all(1)
    alone = options.clone()
    alone[:, 1] = 0
    assert (policy.values(_joined(state, options)) < policy.values(_joined(state, alone)))[two].any()


def test_the_order_of_options_does_not_matter():
    policy, (state, options) = _policy(), _split(_seen())
    turned = _joined(state, options.flip(1))
    torch.testing.assert_close(policy.distribution(turned), policy.distribution(_joined(state, options)))
    torch.testing.assert_close(policy.values(turned), policy.values(_joined(state, options)))


def test_absent_options_get_no_attention():
    policy, (state, options) = _policy(), _split(_seen())
    looked = policy.look(_joined(state, options))
    absent = options[..., -2] == 0
    assert torch.isinf(looked.value[:, 1:][absent]).all() and torch.isfinite(looked.value[:, 0]).all()
    one = absent.any(1)
    expected = looked.logits[one, 0].log_softmax(-1)
    torch.testing.assert_close(policy.distribution(_joined(state, options))[one], expected)


def test_draws_follow_the_distribution():
    policy, seen = _policy(), _seen(1).repeat(4000, 1)
    drawn = torch.bincount(policy.draw(seen, generator(0)), minlength=6) / 4000
    torch.testing.assert_close(drawn, policy.distribution(seen[:1])[0].exp(), atol=0.03, rtol=0)
    assert (policy.draw(seen, None) == policy.distribution(seen[:1]).argmax()).all()


def test_policy_and_critic_share_nothing_and_are_everything():
    policy = _policy()
    own, critic = set(map(id, policy.policy_parameters())), set(map(id, policy.critic_parameters()))
    assert not own & critic and own | critic == set(map(id, policy.parameters()))
    policy.distribution(_seen(5)).sum().backward()
    assert all(p.grad is None for p in policy.critic_parameters())


def test_a_saved_policy_is_the_same_again(tmp_path):
    policy = _policy(attention=False)
    policy.save(tmp_path / "policy", "# card\n")
    again = GoalPolicy.from_directory(tmp_path / "policy")
    assert again.shape == policy.shape and torch.equal(again.distribution(_seen(3)), policy.distribution(_seen(3)))


def test_a_student_comes_near_its_teacher_on_states_that_were_visited():
    teacher, student, said = _policy(seed=1), GoalPolicy(Shape.of(UNIVERSE), 2), []
    with torch.no_grad():
        teacher.act.weight.mul_(3)
    before = (student.values(_seen()) - teacher.values(_seen())).square().mean()
    divergence, steps = Distillation(steps=300, tasks=32)(
        student, teacher, UNIVERSE, 0, lambda _, one: said.append(one)
    )
    assert said[0] > 0.2 and divergence == said[-1] < 0.05
    assert steps == len(said) * 32 * UNIVERSE.horizon
    assert (student.values(_seen()) - teacher.values(_seen())).square().mean() < 0.5 * before


def test_divergence_is_zero_between_equals_and_as_the_formula_says():
    one, other = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()
    assert kl(one, one) == 0
    assert kl(one, other).item() == pytest.approx(0.5 * torch.tensor([2.0, 2 / 3]).log().sum().item())
    with pytest.raises(InputError, match="distillation: own=2"):
        Distillation(own=2)
