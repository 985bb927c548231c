from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stratagem.architectures import Agents, DependentActors
from stratagem.catalogue import recipe
from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.multiagent import AgentInputs, CoordinationGame, DependentAgents, MatrixGame, MultiAgentWorld
from stratagem.multiagent.values import joint_turns
from stratagem.sampling import DependentRollouts, Rollouts
from stratagem.training.loop import Settings, Trainer
from stratagem.training.run_directory import RunDirectory

from .conftest import Walk


def played(edges: Any, dependence: float = 1.0, weights: Any = "shared", copies: int = 4) -> tuple[Any, Experience]:
    game = CoordinationGame(agents=3, max_turns=5)
    policy = DependentActors(weights, "state", 16, edges).build(game, 0)
    with torch.no_grad():
        for weight in policy.parameters():
            weight.add_(0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    x = MultiAgentWorld(game, 0, policy).collect(DependentRollouts(copies, 1, dependence=dependence), 0).x
    assert x is not None
    return policy, x


@pytest.mark.parametrize("weights", ["shared", "separate"])
@pytest.mark.parametrize("edges", ["learned", "full", "line"])
def test_what_agents_are_said_to_do_is_how_likely_they_did_it(edges: Any, weights: Any) -> None:
    policy, x = played(edges, weights=weights)
    read = x.inputs
    assert isinstance(read, AgentInputs) and read.noted is not None and x.action is not None
    joint = joint_turns(read, 3)
    seen = read.observation[joint]
    graph, order = policy.graph(seen, read.noted[joint[:, 0]])
    said = policy(x).logp.detach()
    for turn, rows in enumerate(joint.tolist()):
        for agent, row in enumerate(rows):
            heard = torch.cat(
                [
                    float(graph[turn, other, agent].detach())
                    * torch.cat([seen[turn, other], torch.eye(2)[x.action[rows[other]]]])
                    for other in range(3)
                ]
            )
            number = agent if weights == "separate" else 0
            actor = policy.actors[number].actor
            told = seen[turn, agent] if weights == "separate" else torch.cat([seen[turn, agent], torch.eye(3)[agent]])
            outputs = actor[1:](actor[0](told) + policy.heard[number].weight @ heard)
            expected = torch.log_softmax(outputs, -1)[x.action[row]]
            assert float(said[row]) == pytest.approx(float(expected.detach()), abs=1e-5)
        place = order[turn].argsort()
        assert all(place[k] < place[j] for k, j in torch.nonzero(graph[turn]).tolist())


def test_later_agents_answer_what_earlier_ones_do() -> None:
    game = MatrixGame("climbing")
    policy = DependentActors("separate", "state", 16, "full").build(game, 0)
    with torch.no_grad():
        # The second agent copies the first: it reads what that one sees (1), then which of three actions it takes.
        weight = torch.zeros(16, 8)
        weight[:3, 1:4] = 9 * torch.eye(3)
        policy.heard[1].weight.copy_(weight)
        actor = policy.actors[1].actor
        for layer, values in ((actor[0], None), (actor[2], 9 * torch.eye(16)), (actor[4], 40 * torch.eye(3, 16))):
            layer.bias.zero_()
            layer.weight.copy_(torch.zeros_like(layer.weight) if values is None else values)
    x = MultiAgentWorld(game, 0, policy).collect(DependentRollouts(60, 1), 0).x
    assert x is not None and x.action is not None
    first, second = x.action.view(60, 2).T
    assert torch.equal(first, second) and len(first.unique()) == 3
    alone = MultiAgentWorld(game, 0, policy).collect(DependentRollouts(60, 1, dependence=0.0), 0).x
    assert alone is not None and not torch.equal(*alone.action.view(60, 2).T)


def test_a_ratio_is_one_before_the_policy_has_moved_and_gradients_reach_the_graph() -> None:
    policy, x = played("learned")
    out = policy(x)
    assert torch.allclose(out.logp, x.behavior_logp, atol=1e-6)
    (out.logp * torch.linspace(-1, 1, x.tokens)).sum().backward()
    for part in (policy.dag.order_logits, policy.dag.edge_logits, policy.heard[0], policy.actors[0].actor):
        assert any(w.grad is not None and float(w.grad.abs().sum()) > 0 for w in part.parameters())
    learned = {id(weight) for weight in policy.policy_parameters()}
    critics = {id(weight) for weight in policy.critic_parameters()}
    assert learned | critics == {id(weight) for weight in policy.parameters()} and not learned & critics


def test_edges_are_kept_as_often_as_the_sampler_says_and_none_in_evaluation() -> None:
    policy, x = played("full", dependence=0.3, copies=40)
    joint = joint_turns(x.inputs, 3)
    graph, _ = policy.graph(x.inputs.observation[joint], x.inputs.noted[joint[:, 0]])
    assert abs(float(graph.sum((1, 2)).mean()) / 3 - 0.3) < 0.06
    frame = CoordinationGame(agents=3).copies(5)
    frame.reset(np.arange(5), np.arange(5))
    acted = policy.acting()(frame.observe(np.arange(5)), None)
    assert acted.noted is not None and not acted.noted.any()


@pytest.mark.parametrize(("edges", "dependence"), [("none", 1.0), ("full", 0.0), ("learned", 0.0)])
@pytest.mark.parametrize("weights", ["shared", "separate"])
def test_without_edges_it_is_mappo_number_for_number(
    edges: Any, dependence: float, weights: Any, tmp_path: Path
) -> None:
    game = CoordinationGame(agents=3, max_turns=4)
    values = {"sampler.prompts_per_step": 5, "optimization.epochs": 2}
    plain = recipe("mappo").with_values({**values, "architecture.weights": weights, "optimization.shuffle": "groups"})
    graphs = (
        recipe("bn_policy")
        .replace(schedules=())
        .with_values(
            {**values, "architecture.weights": weights, "architecture.edges": edges, "sampler.dependence": dependence}
        )
    )
    worlds = [MultiAgentWorld(game, 3) for _ in range(2)]
    for number, (world, made) in enumerate(zip(worlds, (plain, graphs), strict=True)):
        settings = Settings(steps=2, evaluation_episodes=0, checkpoint_every=9)
        Trainer(made, world, RunDirectory.create(tmp_path / str(number)), settings).run()
    theirs = worlds[1].policy.state_dict()
    assert all(torch.equal(weight, theirs[name]) for name, weight in worlds[0].policy.state_dict().items())


def test_one_agent_has_no_parents() -> None:
    game = Walk(agents=1)
    one, alone = (a.build(game, 0) for a in (DependentActors(), Agents()))
    x = MultiAgentWorld(game, 0, one).collect(DependentRollouts(3, 1), 0).x
    assert x is not None and torch.allclose(one(x).logp, alone(x).logp)


def test_agents_without_a_graph_act_alone_under_dependent_rollouts() -> None:
    one, same = (
        MultiAgentWorld(Walk(), 0).collect(sampler, 0).x for sampler in (DependentRollouts(3, 1), Rollouts(3, 1))
    )
    assert one is not None and same is not None and torch.equal(one.action, same.action)


def test_single_turns_and_continuous_actions_are_refused() -> None:
    policy, x = played("learned")
    with pytest.raises(ValueError, match="all agents of an episode side by side"):
        policy(x.select(torch.arange(1, x.trajectories)))
    with pytest.raises(InputError, match="need discrete ones"):
        DependentAgents(2, 3, 4, 2, continuous=True)


def test_edges_fall_away_over_a_run(tmp_path: Path) -> None:
    world = MultiAgentWorld(CoordinationGame(max_turns=2), 0)
    made = recipe("bn_policy").with_values({"optimization.epochs": 1, "schedules.linear_ramp.steps": 2})
    trainer = Trainer(made, world, RunDirectory.create(tmp_path / "r"), Settings(steps=3, evaluation_episodes=0))
    assert [trainer.step()["knob/sampler.dependence"] for _ in range(3)] == [1.0, 0.5, 0.0]
