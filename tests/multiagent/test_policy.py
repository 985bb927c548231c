from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stratagem.architectures import Agents, MixedValues
from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.multiagent import (
    ActorCritics,
    AgentInputs,
    AgentsPolicy,
    Frame,
    MeetingGame,
    MultiAgentWorld,
    ValueAgents,
)
from stratagem.multiagent.values import joint_turns
from stratagem.sampling import Rollouts

from .conftest import Walk

SIZES = {"agents": 3, "features": 4, "state_features": 5, "actions": 3}


def scaled(policy: Any) -> Any:
    """With weights large enough for every output to matter."""
    with torch.no_grad():
        for weight in policy.parameters():
            weight.mul_(3).add_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)))
    return policy


def frame(copies: int = 6, seed: int = 0) -> Frame:
    source = np.random.default_rng(seed)
    legal = source.random((copies, 3, 3)) < 0.7
    legal[..., 0] = True
    seen = source.standard_normal((copies, 3, 4)).astype(np.float32)
    return Frame(seen, source.standard_normal((copies, 5)).astype(np.float32), legal, np.ones((copies, 3), dtype=bool))


def asked(seen: Frame, action: np.ndarray) -> Experience:
    """One turn of every agent of every copy, each a trajectory."""
    copies, agents = seen.alive.shape
    rows = copies * agents
    inputs = AgentInputs(
        torch.from_numpy(seen.observation).flatten(0, 1),
        torch.ones(rows, dtype=torch.int64),
        torch.from_numpy(seen.state).repeat_interleave(agents, 0),
        torch.arange(agents).repeat(copies),
        torch.from_numpy(seen.legal).flatten(0, 1),
    )
    acted = torch.from_numpy(action).flatten(0, 1)
    return Experience.from_lengths([1] * rows, [1] * rows, [agents] * copies, action=acted, inputs=inputs)


@pytest.mark.parametrize("weights", ["shared", "separate"])
@pytest.mark.parametrize("continuous", [False, True])
def test_agents_act_by_the_distribution_they_say_they_have(weights: Any, continuous: bool) -> None:
    policy = scaled(ActorCritics(**SIZES, continuous=continuous, weights=weights))
    seen = frame()
    if continuous:
        seen = seen._replace(legal=seen.legal[..., :0])
    best = policy.acting()(seen, None).action
    likeliest = policy(asked(seen, best)).logp
    for other in range(8):
        drawn = policy.acting()(seen, np.random.default_rng(other)).action
        assert bool((policy(asked(seen, drawn)).logp <= likeliest + 1e-5).all())
    if not continuous:
        assert all(seen.legal[c, a, drawn[c, a]] for c in range(6) for a in range(3))
        one = seen.at(np.zeros(20_000, dtype=int))
        drawn = policy.acting()(one, np.random.default_rng(0)).action
        shares = np.stack([(drawn == action).mean(0) for action in range(3)], -1)
        said = [
            policy(asked(seen.at(np.array([0])), np.full((1, 3), action))).logp.exp().detach().numpy()
            for action in range(3)
        ]
        assert np.abs(shares - np.stack(said, -1)).max() < 0.02


def test_an_action_that_is_not_legal_has_no_probability_and_moves_nothing() -> None:
    policy = scaled(ActorCritics(**SIZES))
    seen = frame(1)
    seen.legal[0, 0] = [True, False, True]
    x = asked(seen, np.array([[0, 0, 0]]))
    out = policy(x, also={"entropy"})
    open_ = seen._replace(legal=np.ones_like(seen.legal))
    free = (
        policy(asked(open_, np.array([[0, 0, 0]]))).logp[0].exp(),
        policy(asked(open_, np.array([[2, 0, 0]]))).logp[0].exp(),
    )
    assert float(out.logp[0].exp()) == pytest.approx(float(free[0] / (free[0] + free[1])), abs=1e-6)
    assert out.entropy is not None and bool(out.entropy.isfinite().all())
    assert float(policy(asked(seen, np.array([[1, 0, 0]]))).logp[0].exp()) == 0
    bias = policy.members[0].actor[-1].bias
    gradient = torch.autograd.grad(out.logp[0] + out.entropy[0], bias)[0]
    assert float(gradient[1]) == 0 and bool((gradient[[0, 2]] != 0).all())


def test_an_agent_without_a_legal_action_is_an_error() -> None:
    policy, seen = ActorCritics(**SIZES), frame(1)
    seen.legal[0, 1] = False
    with pytest.raises(ValueError, match="no legal action"):
        policy.acting()(seen, None)
    with pytest.raises(ValueError, match="no legal action"):
        policy(asked(seen, np.zeros((1, 3), dtype=np.int64)))


def test_a_critic_on_the_state_sees_the_state_and_one_on_the_observation_does_not() -> None:
    seen = frame()
    action = np.zeros((6, 3), dtype=np.int64)
    moved = asked(seen._replace(state=seen.state + 1), action)
    unlike = asked(seen._replace(observation=seen.observation + 1), action)
    for critic, state_matters, observation_matters in (
        ("observation", False, True),
        ("state", True, False),
        ("both", True, True),
    ):
        policy = scaled(ActorCritics(**SIZES, critic=critic))  # type: ignore[arg-type]
        said, after, other = (policy(x, also={"value"}) for x in (asked(seen, action), moved, unlike))
        assert torch.equal(said.logp, after.logp)
        assert torch.equal(said.value, after.value) != state_matters
        assert torch.equal(said.value, other.value) != observation_matters
        inputs = asked(seen, action).inputs
        assert torch.equal(said.value, policy.values(inputs.observation, inputs.state, inputs.agent))


def test_shared_weights_treat_agents_alike_but_for_their_number() -> None:
    policy = scaled(ActorCritics(**SIZES, critic="both"))
    told = policy.members[0]
    with torch.no_grad():
        for network in (told.actor, told.critic, told.median_critic):
            network[0].weight[:, -3:] = 0.3
    seen, order = frame(), [2, 0, 1]
    action = policy.acting()(seen, None).action
    turned = Frame(seen.observation[:, order], seen.state, seen.legal[:, order], seen.alive)
    assert np.array_equal(policy.acting()(turned, None).action, action[:, order])
    one, other = (policy(asked(s, a), also={"value"}) for s, a in ((seen, action), (turned, action[:, order])))
    assert torch.allclose(one.logp.view(6, 3)[:, order], other.logp.view(6, 3), atol=1e-6)
    assert torch.allclose(one.value.view(6, 3)[:, order], other.value.view(6, 3), atol=1e-6)


def test_separate_weights_share_nothing() -> None:
    policy = ActorCritics(**SIZES, weights="separate")
    seen = frame()
    action = np.zeros((6, 3), dtype=np.int64)
    policy(asked(seen, action)).logp.view(6, 3)[:, 1].sum().backward()
    grads = [any(w.grad is not None and bool((w.grad != 0).any()) for w in m.parameters()) for m in policy.members]
    assert grads == [False, True, False]


@pytest.mark.parametrize("architecture", [Agents("separate", "both", 8), MixedValues("monotone", hidden=8, width=4)])
def test_a_saved_policy_is_read_back_equal(tmp_path: Path, architecture: Any) -> None:
    policy = scaled(architecture.build(MeetingGame(), 3))
    policy.save(tmp_path / "p", "card")
    read = AgentsPolicy.from_directory(tmp_path / "p")
    assert read.arguments() == policy.arguments() and type(read) is type(policy)
    assert all(torch.equal(*pair) for pair in zip(policy.parameters(), read.parameters(), strict=True))


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no readable policy of several agents"):
        AgentsPolicy.from_directory(tmp_path)


# ---- values ---------------------------------------------------------------------------------------------------------


def played(mixer: Any, double: bool = True) -> tuple[ValueAgents, Experience]:
    game = Walk()
    policy = scaled(ValueAgents.for_task(game, mixer=mixer, double=double, hidden=8, width=4))
    with torch.no_grad():
        for weight in policy.target.parameters():
            weight.mul_(-0.7)
    x = MultiAgentWorld(game, 0, policy).collect(Rollouts(5, 1), 0).x
    assert x is not None
    return policy, x


@pytest.mark.parametrize("mixer", ["sum", "monotone", None])
@pytest.mark.parametrize("double", [True, False])
def test_values_are_those_of_joint_turns_worked_out_one_by_one(mixer: Any, double: bool) -> None:
    policy, x = played(mixer, double)
    out = policy(x, also={"value_after", "next_value"})
    read = x.inputs
    assert isinstance(read, AgentInputs) and x.action is not None and x.finished is not None
    first, size = x.trajectory_of_turn.first(), x.trajectory_of_turn.size()

    def utilities(network: Any, seen: Any, agent: int, legal: Any) -> Any:
        told = torch.cat([seen, torch.eye(2)[agent]])
        return network(told).masked_fill(~legal, -1e9)

    def mixed(network: Any, chosen: list[Any], state: Any) -> list[float]:
        if mixer is None:
            return [float(one) for one in chosen]
        return [float(network(torch.stack(chosen)[None], state[None]))] * 2

    for pair in range(0, x.trajectories, 2):
        for turn in range(int(size[pair])):
            rows = [int(first[pair + agent]) + turn for agent in range(2)]
            chosen = [
                utilities(policy.utilities, read.observation[r], a, read.legal[r])[x.action[r]]
                for a, r in enumerate(rows)
            ]
            assert out.value_after[rows].tolist() == pytest.approx(
                mixed(policy.mixer, chosen, read.state[rows[0]]), abs=1e-5
            )
            last = turn == int(size[pair]) - 1
            if last and bool(x.finished[pair]):
                assert out.next_value[rows].tolist() == [0.0, 0.0]
                continue
            best = []
            for agent, row in enumerate(rows):
                seen = read.final_observation[pair + agent] if last else read.observation[row + 1]
                legal = read.final_legal[pair + agent] if last else read.legal[row + 1]
                judged = utilities(policy.target["utilities"], seen, agent, legal)
                choosing = utilities(policy.utilities, seen, agent, legal) if double else judged
                best.append(judged[choosing.argmax()])
            state = read.final_state[pair] if last else read.state[rows[0] + 1]
            expected = mixed(policy.target["mixer"] if mixer else None, best, state)
            assert out.next_value[rows].tolist() == pytest.approx(expected, abs=1e-5)


def test_a_mixer_needs_all_agents_of_an_episode() -> None:
    policy, x = played("sum")
    keep = torch.arange(x.trajectories) != 1
    with pytest.raises(ValueError, match="all agents of an episode side by side"):
        policy(x.select(keep), also={"value_after"})
    assert joint_turns(x.inputs, 2).shape == (x.turns // 2, 2)


def test_single_turns_know_no_next_value() -> None:
    policy, x = played(None)
    with pytest.raises(ValueError, match="shuffle groups instead"):
        policy(x.by_turn(), also={"next_value"})


def test_the_target_network_is_renewed_when_its_steps_are_over() -> None:
    policy = scaled(ValueAgents.for_task(Walk(), target_every=10))
    old = policy.target["utilities"][0].weight.clone()
    policy.begin_batch(9)
    assert torch.equal(policy.target["utilities"][0].weight, old)
    policy.begin_batch(12)
    assert torch.equal(policy.target["utilities"][0].weight, policy.utilities[0].weight)
    assert torch.equal(policy.target["mixer"].first_weight.weight, policy.mixer.first_weight.weight)
    with torch.no_grad():
        policy.utilities[0].weight.add_(1)
    policy.begin_batch(21)
    assert not torch.equal(policy.target["utilities"][0].weight, policy.utilities[0].weight)


def test_the_target_network_learns_nothing_itself() -> None:
    policy, x = played("monotone")
    out = policy(x, also={"value_after", "next_value"})
    assert not out.next_value.requires_grad and out.value_after.requires_grad
    assert not any(weight.requires_grad for weight in policy.target.parameters())
    learned = {id(weight) for weight in policy.policy_parameters()}
    assert learned == {id(weight) for name, weight in policy.named_parameters() if not name.startswith("target.")}


def test_values_are_of_discrete_actions() -> None:
    with pytest.raises(InputError, match="need discrete actions"):
        ValueAgents(2, 3, 4, 2, continuous=True)
