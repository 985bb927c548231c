"""Agent-BRACE through its recipe: whose reward credits whom, and what each loss is a mean of."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from stratagem.advantages import GAE, BatchWhitened, GroupCentered, RoleCredit, StandardizedTurnReturn
from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.language.hf_engine import HFEngine
from stratagem.language.world import LanguageWorld
from stratagem.objectives import Clip, PolicyGradient, RoleLosses, TokenMean, ValueLoss
from stratagem.recipe import Recipe
from stratagem.recipes.agents import agent_brace
from stratagem.sampling import Rollouts
from stratagem.tasks.registry import make

PLAIN = agent_brace(kl_coefficient=0.0)


def batch(**fields: Any) -> Experience:
    """Two episodes: belief (2 tokens), action (1), belief (2), action (1); and belief (2), action (1)."""
    known: dict[str, Any] = {
        "turn_role": torch.tensor([0, 1, 0, 1, 0, 1]),
        "turn_reward": torch.tensor([0.2, 0.0, 0.6, 1.0, 0.4, 0.0]),
        "value": torch.tensor([9.0, 9.0, 0.5, 9.0, 9.0, 0.25, 9.0, 9.0, 0.5]),
        "behavior_logp": torch.full((9,), -1.0),
        "old_logp": torch.full((9,), -1.0),
    }
    return Experience.from_lengths([2, 1, 2, 1, 2, 1], [4, 2], [1, 1], **{**known, **fields})


def test_a_belief_is_credited_by_its_own_reward_against_those_of_the_batch():
    advantage = PLAIN.prepare(batch()).advantage
    rewards = torch.tensor([0.2, 0.6, 0.4])
    expected = (rewards - rewards.mean()) / (rewards.std() + 1e-6)
    torch.testing.assert_close(advantage[[0, 1, 3, 4, 6, 7]], expected.repeat_interleave(2))


def test_the_policy_has_gae_over_its_own_turns_whatever_beliefs_earned_and_were_worth():
    x = PLAIN.prepare(batch())
    raw = torch.tensor([1 - 0.5, 1 - 0.25, 0 - 0.5])
    torch.testing.assert_close(x.advantage[[2, 5, 8]], (raw - raw.mean()) / raw.std(correction=0))
    torch.testing.assert_close(x.value_target[[2, 5, 8]], torch.tensor([1.0, 1.0, 0.0]))
    assert x.critic_mask.nonzero().squeeze(1).tolist() == [2, 5, 8]
    paid = batch(turn_reward=torch.tensor([5.0, 0.0, -3.0, 1.0, 2.0, 0.0]))
    torch.testing.assert_close(PLAIN.prepare(paid).advantage[[2, 5, 8]], x.advantage[[2, 5, 8]])


def test_a_trace_leads_from_action_to_action():
    x = agent_brace(kl_coefficient=0.0, trace=0.5).prepare(batch())
    torch.testing.assert_close(x.value_target[[2, 5, 8]], torch.tensor([0.5 - 0.25 + 0.5 * 0.75 + 0.0, 1.0, 0.0]))


def test_a_penalty_on_kl_reaches_the_policy_and_not_the_belief():
    known = batch(ref_logp=torch.full((9,), -2.0))
    charged, free = agent_brace(kl_coefficient=0.1).prepare(known), PLAIN.prepare(known)
    beliefs, actions = [0, 1, 3, 4, 6, 7], [2, 5, 8]
    torch.testing.assert_close(charged.advantage[beliefs], free.advantage[beliefs])
    torch.testing.assert_close(charged.value_target[actions], torch.tensor([0.8, 0.9, -0.1]))


def test_each_loss_is_a_mean_over_its_own_tokens_and_the_critic_reads_the_policys_alone():
    x = PLAIN.prepare(batch())
    logp = (x.behavior_logp + 0.1).requires_grad_()
    value = x.value.clone().requires_grad_()
    loss = PLAIN.objective(PolicyOutput(logp, value=value), x)
    loss.loss.backward()
    ratio = torch.tensor(0.1).exp()
    count = torch.tensor([6.0, 6, 3, 6, 6, 3, 6, 6, 3])
    torch.testing.assert_close(logp.grad, -ratio * x.advantage / count)
    assert value.grad.nonzero().squeeze(1).tolist() == [2, 5, 8]
    assert {"role_0/policy_loss", "role_1/policy_loss", "role_1/value_loss"} <= set(loss.metrics)
    assert "role_0/value_loss" not in loss.metrics


def test_the_dual_clip_is_the_beliefs_alone():
    x = PLAIN.prepare(batch())
    logp = (x.behavior_logp + 2.0).requires_grad_()
    PLAIN.objective(PolicyOutput(logp, value=x.value), x).loss.backward()
    bad_belief, bad_action = x.advantage[0] < 0, x.advantage[8] < 0
    assert bool(bad_belief) and bool(bad_action)
    assert float(logp.grad[0]) == 0.0 and float(logp.grad[8]) > 0


def test_without_roles_it_is_ppo():
    x = batch(turn_role=None)
    plain = Recipe(
        name="plain",
        sampler=Rollouts(),
        advantage=BatchWhitened(GAE(1.0, 1.0)),
        objective=PolicyGradient(gate=Clip(0.2, 0.2), aggregation=TokenMean(), critic=ValueLoss(0.5)),
    )
    mine, theirs = PLAIN.prepare(x), plain.prepare(x)
    torch.testing.assert_close(mine.advantage, theirs.advantage)
    out = PolicyOutput(x.behavior_logp + 0.3 * torch.arange(9) / 9, value=x.value + 0.1)
    torch.testing.assert_close(PLAIN.objective(out, mine).loss, plain.objective(out, theirs).loss)


def test_losses_of_pieces_add_up():
    x = PLAIN.prepare(batch())
    out = PolicyOutput(x.behavior_logp + 0.01, value=x.value + 0.1)
    first, second = x.microbatch(torch.tensor([0])), x.microbatch(torch.tensor([1]))
    parts = [
        PLAIN.objective(PolicyOutput(out.logp[rows], value=out.value[rows]), piece).loss
        for piece, rows in ((first, slice(0, 6)), (second, slice(6, 9)))
    ]
    torch.testing.assert_close(sum(parts), PLAIN.objective(out, x).loss)


def test_roles_beyond_the_last_have_the_last_ones_credit():
    x = batch(turn_role=torch.tensor([0, 1, 0, 4, 0, 1]))
    torch.testing.assert_close(PLAIN.prepare(x).advantage, PLAIN.prepare(batch()).advantage)


def test_a_trajectory_without_turns_of_a_role_earned_nothing_in_it():
    x = batch(turn_role=torch.tensor([0, 1, 0, 1, 0, 0]))
    own, tokens = x.of_role(1, 2)
    assert tokens.tolist() == [2, 5] and own.trajectories == 2
    assert own.returns.tolist() == [1.0, 0.0]
    credit = RoleCredit((StandardizedTurnReturn("batch", 0.0), GroupCentered()))(x)
    assert credit.isfinite().all()


def test_a_batch_of_beliefs_alone_teaches_the_policy_nothing():
    x = PLAIN.prepare(batch(turn_role=torch.zeros(6, dtype=torch.int64)))
    assert not x.critic_mask.any() and x.advantage.isfinite().all()
    loss = PLAIN.objective(PolicyOutput(x.old_logp, value=x.value), x)
    assert float(loss.metrics["role_1/value_loss"]) == 0.0


def test_a_role_needs_a_credit_and_a_loss():
    with pytest.raises(InputError, match=r"role_credit\.of"):
        RoleCredit(())
    with pytest.raises(InputError, match=r"role_losses\.of"):
        RoleLosses(())
    with pytest.raises(InputError, match="dual"):
        agent_brace(dual_clip=0.5)


def test_a_language_model_plays_both_roles_in_conversations_that_do_not_grow(make_policy):
    """What was sampled from is what the learner sees, and the recipe has a gradient in the turns of both roles."""
    task = make("belief:rooms,rooms=3,max_turns=3,belief_tokens=12")
    policy = make_policy(context=1024)
    world = LanguageWorld(task, policy, HFEngine(policy), 1000)
    world.serve(0)
    x = world.collect(Rollouts(prompts_per_step=2, group_size=2), 0).x
    world.close()
    assert x.trajectory_of_turn.size().tolist() == [6] * 4
    assert x.turn_role.tolist() == [0, 1] * 12
    assert x.turn_context.tolist() == [0, 1, 2, 3, 4, 5] * 4
    with torch.no_grad():
        torch.testing.assert_close(policy(x).logp, x.behavior_logp, atol=1e-5, rtol=1e-4)
    # Rewards of their own, so that there is something to learn whatever a random model wrote.
    x = x.replace(turn_reward=torch.arange(x.turns) / x.turns, reward=None)
    x = x.replace(value=torch.zeros(x.tokens))
    logp = x.behavior_logp.clone().requires_grad_()
    prepared = PLAIN.prepare(x)
    PLAIN.objective(PolicyOutput(logp, value=x.value), prepared).loss.backward()
    role = x.turn_of_token.spread(x.turn_role)
    assert all(bool((logp.grad[role == r] != 0).any()) for r in (0, 1))
