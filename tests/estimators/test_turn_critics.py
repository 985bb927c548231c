"""Critics of whole turns: their targets, where they rest, and what they are isolated from."""

from __future__ import annotations

import math

import pytest
import torch

from stratagem.advantages import TurnCriticAdvantage
from stratagem.errors import InputError
from stratagem.estimators import TurnCritics
from stratagem.experience import Experience

Twins = list[list[float]]


def chain(rewards: list[float], finished: bool = True, **fields: object) -> Experience:
    """One trajectory with a turn of one token for each reward."""
    return Experience.from_lengths(
        [1] * len(rewards), [len(rewards)], [1], turn_reward=torch.tensor(rewards), finished=[finished], **fields
    )


def heads(value: Twins, action_value: Twins) -> dict[str, torch.Tensor]:
    spoken = {"value": torch.tensor(value), "action_value": torch.tensor(action_value)}
    return {name: values.double().requires_grad_() for name, values in spoken.items()}


def gradients(critics: TurnCritics, said: dict, slow: dict, x: Experience) -> dict[str, torch.Tensor]:
    critics.loss(said, slow, x).backward()
    return {name: values.grad for name, values in said.items()}


def test_the_closed_form_of_a_chain_is_where_the_critics_rest():
    """A reward of 1 at the third turn: V = (0.81, 0.9, 1), and Q = V for the actions of the policy."""
    exact = [[0.81] * 2, [0.9] * 2, [1.0] * 2]
    critics, x = TurnCritics(discount=0.9), chain([0.0, 0.0, 1.0])
    found = gradients(critics, heads(exact, exact), heads(exact, exact), x)
    assert all(float(slope.abs().max()) < 1e-7 for slope in found.values())


def test_targets_are_those_of_each_twin_and_of_its_slow_copy_alone():
    critics, x = TurnCritics(discount=0.5), chain([1.0, 2.0])
    said = heads([[0.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]])
    slow = heads([[9.0, 9.0], [4.0, 8.0]], [[3.0, 5.0], [6.0, 7.0]])
    found = gradients(critics, said, slow, x)
    # Q_1 -> (1 + 4/2, 2), Q_2 -> (1 + 8/2, 2), V_1 -> (3, 6), V_2 -> (5, 7); means over two turns.
    torch.testing.assert_close(found["action_value"], -torch.tensor([[3.0, 5.0], [2.0, 2.0]]).double())
    torch.testing.assert_close(found["value"], -torch.tensor([[3.0, 5.0], [6.0, 7.0]]).double())
    assert slow["value"].grad is None and slow["action_value"].grad is None


def test_no_gradient_reaches_a_target_or_the_credit():
    critics, x = TurnCritics(), chain([1.0, 2.0])
    said = heads([[0.1, 0.2]] * 2, [[0.3, 0.4]] * 2)
    value = torch.autograd.grad(critics.loss(said, said, x), said["value"])[0]
    # Were V(o') of the target differentiated, the second turn's V would have the gradient of Q's loss, too.
    torch.testing.assert_close(value, -(said["action_value"] - said["value"]).detach())


def test_without_a_discount_every_turn_is_a_bandit_with_a_baseline():
    x, said = chain([1.0, 2.0]), heads([[0.0] * 2] * 2, [[0.0] * 2] * 2)
    slow = heads([[7.0] * 2] * 2, [[1.0, 1.0], [2.0, 2.0]])
    found = gradients(TurnCritics(discount=0.0), said, slow, x)
    torch.testing.assert_close(found["action_value"], -torch.tensor([[1.0, 1.0], [2.0, 2.0]]).double())


def test_an_action_the_present_policy_no_longer_takes_does_not_move_v():
    """Two one-turn episodes from one state; the buffer's action has another Q, and probability 0 by now."""
    x = Experience.from_lengths([1, 1], [1, 1], [2], turn_reward=[0.0, 0.0], finished=[True, True])
    x = x.replace(old_logp=torch.tensor([-0.1, -200.0]), behavior_logp=torch.tensor([-0.1, -0.1]))
    slow = heads([[0.0] * 2] * 2, [[1.0] * 2, [100.0] * 2])

    def slope(critics: TurnCritics) -> float:
        v = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
        said = {"value": v.expand(2, 2), "action_value": torch.zeros(2, 2).double()}
        return float(torch.autograd.grad(critics.loss(said, slow, x), v)[0])

    assert slope(TurnCritics()) == pytest.approx(0.0, abs=1e-9)
    assert slope(TurnCritics(actions="as_sampled")) == pytest.approx(-2 * 99.0)


def test_old_actions_count_by_the_ratio_of_the_whole_turn_up_to_a_bound():
    x = Experience.from_lengths([2, 1], [2], [1], turn_reward=[0.0, 0.0], finished=[True])
    x = x.replace(behavior_logp=torch.zeros(3), old_logp=torch.tensor([0.2, 0.3, 9.0]))
    torch.testing.assert_close(TurnCritics().weights(x), torch.tensor([math.exp(0.5), 10.0]))
    assert bool((TurnCritics().weights(x.replace(old_logp=None)) == 1).all())
    masked = x.replace(mask=torch.tensor([True, False, True]), old_logp=torch.tensor([0.2, math.nan, 9.0]))
    torch.testing.assert_close(TurnCritics().weights(masked), torch.tensor([math.exp(0.2), 10.0]))


def test_weighted_old_actions_lead_v_to_the_mean_over_the_present_policy():
    """Sampled by (1/2, 1/2), judged for (0.9, 0.1): V rests at 0.9 Q(0) + 0.1 Q(1)."""
    x = Experience.from_lengths([1, 1], [1, 1], [2], turn_reward=[0.0, 0.0], finished=[True, True])
    x = x.replace(old_logp=torch.tensor([0.9, 0.1]).log(), behavior_logp=torch.tensor([0.5, 0.5]).log())
    slow = heads([[0.0] * 2] * 2, [[1.0] * 2, [-4.0] * 2])
    v = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    said = {"value": v.expand(2, 2), "action_value": torch.zeros(2, 2).double()}
    assert float(torch.autograd.grad(TurnCritics().loss(said, slow, x), v)[0]) == pytest.approx(0.0, abs=1e-6)


def test_an_expectile_near_one_rests_near_the_best_action():
    x = Experience.from_lengths([1, 1], [1, 1], [2], turn_reward=[0.0, 0.0], finished=[True, True])
    slow = heads([[0.0] * 2] * 2, [[0.0] * 2, [1.0] * 2])

    def slope(expectile: float, at: float) -> float:
        v = torch.tensor(at, dtype=torch.float64, requires_grad=True)
        said = {"value": v.expand(2, 2), "action_value": torch.zeros(2, 2).double()}
        return float(torch.autograd.grad(TurnCritics(expectile=expectile).loss(said, slow, x), v)[0])

    # The expectile e of two equally likely values 0 and 1 is e itself.
    for expectile in (0.5, 0.9):
        assert slope(expectile, expectile) == pytest.approx(0.0, abs=1e-9)
    assert slope(0.5, 0.4) == pytest.approx(2 * (0.4 - 0.5) * 2)


@pytest.mark.parametrize(("truncation", "expected"), [("left_out", 0.0), ("terminal", -2 * 3.0 / 2)])
def test_what_follows_a_cut_is_unknown_or_by_request_nothing(truncation, expected):
    said = heads([[0.0] * 2] * 2, [[0.0] * 2] * 2)
    found = gradients(TurnCritics(truncation=truncation), said, said, chain([0.0, 3.0], finished=False))
    assert found["action_value"][1].tolist() == [expected] * 2


def test_an_end_is_followed_by_nothing_even_where_another_trajectory_stands_behind_it():
    x = Experience.from_lengths([1, 1], [1, 1], [2], turn_reward=[1.0, 0.0], finished=[True, True])
    slow = heads([[50.0] * 2] * 2, [[0.0] * 2] * 2)
    found = gradients(TurnCritics(discount=1.0), heads([[0.0] * 2] * 2, [[0.0] * 2] * 2), slow, x)
    assert found["action_value"].tolist() == [[-1.0, -1.0], [0.0, 0.0]]


def test_the_credit_is_the_difference_of_the_lower_twins():
    x = Experience.from_lengths([2, 1], [2], [1], turn_value=torch.tensor([[1.0, 2.0], [0.5, 0.25]]))
    x = x.replace(turn_action_value=torch.tensor([[3.0, 2.5], [0.0, 4.0]]), value=torch.tensor([0.5, 0.25, 0.0]))
    assert TurnCriticAdvantage()(x).tolist() == [1.5, 1.5, -0.25]
    assert TurnCriticAdvantage().value_target(x) is None
    assert TurnCriticAdvantage(token_baseline=True)(x).tolist() == [1.0, 1.25, -0.25]
    assert TurnCriticAdvantage(token_baseline=True).value_target(x).tolist() == [1.5, 1.5, -0.25]
    with pytest.raises(ValueError, match=r"turn_critic_advantage needs x.turn_value"):
        TurnCriticAdvantage()(x.replace(turn_value=None))


def test_a_turn_without_tokens_is_passed_over_and_its_reward_goes_to_the_last_action():
    x = Experience.from_lengths([1, 0, 1], [3], [1], turn_reward=[1.0, 4.0, 2.0], finished=[True])
    zero, slow = [[0.0] * 2] * 3, heads([[9.0] * 2, [70.0] * 2, [6.0] * 2], [[0.0] * 2] * 3)
    found = gradients(TurnCritics(discount=0.5), heads(zero, zero), slow, x)
    # The targets are 1 + 6/2 and 2 + 4.
    assert found["action_value"].tolist() == [[-4.0] * 2, [0.0] * 2, [-6.0] * 2]
    assert found["value"].tolist() == zero


def test_bad_batches_and_numbers_are_named():
    with pytest.raises(ValueError, match=r"turn_critics needs x.finished"):
        said = heads([[0.0] * 2], [[0.0] * 2])
        TurnCritics().loss(said, said, chain([1.0]).replace(finished=None))
    for name, bad in (("discount", 1.1), ("rate", -0.1), ("expectile", 1.0), ("largest_weight", 0.0)):
        with pytest.raises(InputError, match=f"turn_critics.{name} = {bad}"):
            TurnCritics(**{name: bad})
