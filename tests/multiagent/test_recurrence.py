from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from stratagem.architectures import Agents, MixedValues
from stratagem.catalogue import recipe
from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.multiagent import (
    AgentInputs,
    DiscsGame,
    MeetingGame,
    MultiAgentWorld,
    RecallGame,
)
from stratagem.multiagent.recurrence import Recurrence, Sequences, answers, with_memory
from stratagem.sampling import EpsilonGreedy, Rollouts, Segments
from stratagem.seeding import generator
from stratagem.training.batch_storage import pack, unpack
from stratagem.training.loop import Settings, Trainer
from stratagem.training.run_directory import RunDirectory

from .conftest import Walk
from .recurrent import ACTORS, GRU, acted_with, collected, ids, inputs, walked, world
from .test_policy import scaled

# ---- sequences ------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.integers(0, 100))
def test_trajectories_read_side_by_side_are_each_read_turn_by_turn(lengths: list[int], seed: int) -> None:
    source = generator(seed, "test")
    plain = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    network = scaled(with_memory(plain, 4, source))
    rows, begin = torch.randn(sum(lengths), 3, generator=source), torch.randn(len(lengths), 9, generator=source)
    said, last = answers(network, rows, Sequences(torch.tensor(lengths), begin), slice(2, 6))
    assert last is not None
    for mine, alone, kept, end in zip(rows.split(lengths), said.split(lengths), begin, last, strict=True):
        expected = walked(network, mine, kept[2:6])
        torch.testing.assert_close(alone, expected[0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(end, expected[1], atol=1e-5, rtol=1e-5)


def test_every_gate_begins_with_an_orthogonal_matrix_and_the_same_seed_with_the_same() -> None:
    one, same, other = (Recurrence(5, generator(seed, "memory")) for seed in (0, 0, 1))
    for gate in (*one.cell.weight_ih_l0.chunk(3), *one.cell.weight_hh_l0.chunk(3)):
        torch.testing.assert_close(gate @ gate.T, torch.eye(5), atol=1e-5, rtol=0)
    assert not one.cell.bias_ih_l0.any() and not one.cell.bias_hh_l0.any()
    assert torch.equal(one.cell.weight_hh_l0, same.cell.weight_hh_l0)
    assert not torch.equal(one.cell.weight_hh_l0, other.cell.weight_hh_l0)


# ---- acting and learning agree --------------------------------------------------------------------------------------


def test_agents_of_continuous_actions_remember_too() -> None:
    of = world(Agents(told=False, front="messages", width=4, **GRU), DiscsGame(agents=3, max_turns=9))
    for step in range(2):
        x = collected(of, Segments(prompts_per_step=3, turns=5), step)
    member, read = of.policy.members[0], inputs(x)  # type: ignore[attr-defined]
    assert x.action is not None and x.behavior_logp is not None and read.memory is not None and read.memory.any()
    for number in range(x.trajectories):
        rows = x.trajectory_of_turn.labels == number
        with torch.no_grad():
            mean = walked(member.actor, read.observation[rows], read.memory[number, :8])[0]
        expected = torch.distributions.Normal(mean, member.log_std.exp()).log_prob(x.action[rows]).sum(1)
        torch.testing.assert_close(x.behavior_logp[rows], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("architecture", ACTORS, ids=ids)
@pytest.mark.parametrize("sampler", [Rollouts(70, 1, temperature=1.5), Segments(prompts_per_step=3, turns=4)])
def test_a_batch_says_of_every_action_what_acting_said(architecture: Any, sampler: Any) -> None:
    of = world(architecture)
    noted = acted_with(of)
    before = torch.zeros(0)
    for step in range(3):
        x = collected(of, sampler, step)
        found = np.sort(np.concatenate(noted))
        noted.clear()
        assert x.behavior_logp is not None and x.action is not None
        np.testing.assert_allclose(found, np.sort(x.behavior_logp.numpy()), atol=2e-6)
        memory = inputs(x).memory
        assert memory is not None
        begun = inputs(x).observation[x.trajectory_of_turn.first(), 1] == 0
        assert not memory[begun].any() and bool(memory[~begun].any(1).all())
        assert isinstance(sampler, Rollouts) == bool(begun.all()) or step == 0
        before = before if before.numel() else x.behavior_logp
    assert not torch.equal(x.behavior_logp, before)


@pytest.mark.parametrize("architecture", ACTORS, ids=ids)
def test_an_episode_cut_into_segments_is_read_as_the_whole(architecture: Any) -> None:
    game, of_trajectory = RecallGame(agents=3, delay=7), {}
    for turns in (8, 3):
        of = world(architecture, game, seed=4)
        acted_with(of, greedy=True)
        pieces = [collected(of, Segments(prompts_per_step=2, turns=turns), step) for step in range(-(-8 // turns))]
        for x in pieces:
            assert x.episode is not None and x.value is not None and x.final_value is not None
            for number in range(x.trajectories):
                rows = x.trajectory_of_turn.labels == number
                place = (turns, int(x.episode[number]), int(inputs(x).agent[rows][0]))
                told = of_trajectory.setdefault(place, {"logp": [], "value": [], "final": []})
                told["logp"] += x.behavior_logp[rows].tolist()  # type: ignore[index]
                told["value"] += x.value[rows].tolist()
                told["final"].append(float(x.final_value[number]))
    for episode in range(2):
        for agent in range(3):
            whole, cut = (of_trajectory[turns, episode, agent] for turns in (8, 3))
            assert cut["logp"] == pytest.approx(whole["logp"], abs=1e-5)
            assert cut["value"] == pytest.approx(whole["value"], abs=1e-5)
            assert cut["final"][:2] == pytest.approx([whole["value"][3], whole["value"][6]], abs=1e-5)
            assert cut["final"][2] == whole["final"][0] == 0


def test_the_value_at_a_limit_is_of_what_the_critic_remembers_then() -> None:
    of = world(Agents(critic="both", **GRU), MeetingGame(size=4, max_turns=5))
    x = collected(of, Rollouts(6, 1))
    read, member = inputs(x), of.policy.members[0]  # type: ignore[attr-defined]
    assert x.value is not None and x.final_value is not None and x.truncated is not None and bool(x.truncated.any())
    for number in range(x.trajectories):
        rows = x.trajectory_of_turn.labels == number
        seen = torch.cat([read.observation[rows], read.final_observation[number : number + 1]])  # type: ignore[index]
        state = torch.cat([read.state[rows], read.final_state[number : number + 1]])  # type: ignore[index]
        told = torch.eye(2)[read.agent[rows][0]].expand(len(seen), -1)
        with torch.no_grad():
            values = walked(member.critic, torch.cat([seen, state, told], 1), torch.zeros(8))[0].squeeze(1)
        torch.testing.assert_close(x.value[rows], values[:-1], atol=1e-5, rtol=1e-5)
        if bool(x.truncated[number]):
            assert float(x.final_value[number]) == pytest.approx(float(values[-1]), abs=1e-5)


def test_a_critic_on_the_state_alone_remembers_nothing() -> None:
    policy = Agents(critic="state", **GRU).build(Walk(), 0)
    assert (policy.memory_width, policy.acting_width) == (8, 8)
    assert (Agents(**GRU).build(Walk(), 0).memory_width, Agents().build(Walk(), 0).memory_width) == (24, 0)


# ---- batches --------------------------------------------------------------------------------------------------------

SAID = ("logp", "entropy", "value", "median")


@pytest.mark.parametrize("architecture", ACTORS, ids=ids)
def test_the_order_of_trajectories_changes_nothing(architecture: Any) -> None:
    of = world(architecture)
    collected(of, Segments(prompts_per_step=4, turns=4))
    x = collected(of, Segments(prompts_per_step=4, turns=4), 1)
    order = torch.randperm(x.trajectories, generator=generator(0, "order"))
    rows = x.trajectory_of_turn.pick(order)[0]
    out, other = (of.policy(one, also=set(SAID[1:])) for one in (x, x.select(order)))
    for name in SAID:
        torch.testing.assert_close(getattr(other, name), getattr(out, name)[rows], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("architecture", ACTORS, ids=ids)
def test_pieces_of_a_batch_have_the_gradient_of_the_whole(architecture: Any) -> None:
    of = world(architecture)
    x = collected(of, Segments(prompts_per_step=4, turns=7))

    def gradient(pieces: list[Experience]) -> list[Tensor]:
        of.policy.zero_grad()
        for piece in pieces:
            out = of.policy(piece, also={"value"})
            assert out.value is not None
            (out.logp.square().sum() + out.value.square().sum()).backward()
        return [weight.grad for weight in of.policy.parameters() if weight.grad is not None]

    pieces = [x.microbatch(rows) for rows in torch.arange(x.trajectories).split([1, 3, x.trajectories - 4])]
    whole, added = gradient([x]), gradient(pieces)
    assert len(whole) == len(added) > 8
    for pair in zip(whole, added, strict=True):
        torch.testing.assert_close(*pair, atol=1e-4, rtol=1e-4)


def test_turns_of_agents_with_a_memory_are_not_taken_apart(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shuffle trajectories or groups instead"):
        collected(world(ACTORS[0]), Rollouts(2, 1)).by_turn()
    of = MultiAgentWorld(Walk(), 0)
    chosen = recipe("mappo").with_values({"architecture.recurrence": "gru"})
    with pytest.raises(InputError, match=r"recipe mappo: optimization.shuffle = turns: must be trajectories or groups"):
        Trainer(chosen, of, RunDirectory.create(tmp_path / "a"), Settings())
    with pytest.raises(ValueError, match="from what they remembered before"):
        x = collected(MultiAgentWorld(Walk(), 0), Rollouts(2, 1))
        Agents(**GRU).build(Walk(), 0)(x)


def test_a_batch_that_is_stored_half_learned_keeps_what_agents_remembered() -> None:
    of = world(ACTORS[0])
    collected(of, Segments(prompts_per_step=3, turns=4))
    x = collected(of, Segments(prompts_per_step=3, turns=4), 1)
    back, doubled = unpack(*pack(x)), Experience.concatenate([x, x])
    assert torch.equal(inputs(back).memory, inputs(x).memory)  # type: ignore[arg-type]
    assert torch.equal(of.policy(back).logp, of.policy(x).logp)
    torch.testing.assert_close(of.policy(doubled).logp, of.policy(x).logp.repeat(2), atol=1e-6, rtol=1e-5)


def test_a_given_policy_with_a_memory_learns_by_ordinary_recipes(tmp_path: Path) -> None:
    of = world(Agents(**GRU), MeetingGame(size=3, max_turns=6))
    adapted = of.adapt(recipe("ppo"))
    assert adapted.optimization.shuffle == "trajectories"
    assert world(Agents(hidden=8)).adapt(recipe("ppo")).optimization.shuffle == "turns"
    before = [weight.clone() for weight in of.policy.parameters()]
    few = adapted.with_values({"optimization.epochs": 1, "sampler.turns": 16})
    settings = Settings(steps=2, evaluation_episodes=0)
    Trainer(few, of, RunDirectory.create(tmp_path / "r"), settings).run()
    moved = [not torch.equal(*pair) for pair in zip(before, of.policy.parameters(), strict=True)]
    cells = ["cell" in name for name, _ in of.policy.named_parameters()]
    median = ["median" in name for name, _ in of.policy.named_parameters()]
    assert all(m for m, cell, unread in zip(moved, cells, median, strict=True) if cell and not unread)


def test_what_critics_learn_by_is_theirs_and_what_actors_learn_by_their_own() -> None:
    for architecture in ACTORS:
        policy = architecture.build(Walk(), 0)
        names = {id(weight): name for name, weight in policy.named_parameters()}
        acting = {names[id(weight)] for weight in policy.policy_parameters()}
        judging = {names[id(weight)] for weight in policy.critic_parameters()}
        assert acting | judging == set(names.values()) and not acting & judging
        assert sum(".actor." in name and "cell" in name for name in acting) == 4 * len(policy.members)
        assert any("cell" in name for name in judging) == (architecture.critic == "both")


# ---- values ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mixer", ["sum", "monotone", None])
@pytest.mark.parametrize(("double", "whole"), [(True, True), (False, True), (True, False)])
def test_online_and_target_utilities_unroll_over_the_same_turns(mixer: Any, double: bool, whole: bool) -> None:
    of = world(MixedValues(mixer, double, hidden=8, width=4, recurrence="gru"))
    policy: Any = of.policy
    with torch.no_grad():
        for weight in policy.target.parameters():
            weight.mul_(-0.7)
    x = collected(of, EpsilonGreedy(5, 1, epsilon=0.5) if whole else Segments(prompts_per_step=5, turns=4))
    if not whole:
        x = collected(of, Segments(prompts_per_step=5, turns=4), 1)
        assert bool(inputs(x).memory.any())  # type: ignore[union-attr]
    out, read = policy(x, also={"value_after", "next_value"}), inputs(x)
    assert x.finished is not None and x.action is not None and not out.next_value.requires_grad
    first, size = x.trajectory_of_turn.first(), x.trajectory_of_turn.size()
    for pair in range(0, x.trajectories, 2):
        turns, ends = int(size[pair]), [pair, pair + 1]
        own = [slice(int(first[end]), int(first[end]) + turns) for end in ends]
        online, target = (
            [utilities(network, read, agent, own[agent], end) for agent, end in enumerate(ends)]
            for network in (policy.utilities, policy.target["utilities"])
        )
        states = torch.cat([read.state[own[0]], read.final_state[pair][None]])  # type: ignore[index]
        for turn in range(turns):
            chosen = torch.stack([online[a][turn, x.action[own[a]][turn]] for a in range(2)])
            choosing = online if double else target
            best = torch.stack([target[a][turn + 1, choosing[a][turn + 1].argmax()] for a in range(2)])
            if mixer is not None:
                chosen = policy.mixer(chosen[None], states[turn][None]).expand(2)
                best = policy.target["mixer"](best[None], states[turn + 1][None]).expand(2)
            if turn == turns - 1 and bool(x.finished[pair]):
                best = torch.zeros(2)
            rows = [own[0].start + turn, own[1].start + turn]
            torch.testing.assert_close(out.value_after[rows], chosen, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(out.next_value[rows], best, atol=1e-5, rtol=1e-5)


def utilities(network: Any, read: AgentInputs, agent: int, rows: slice, end: int) -> Tensor:
    """Of one trajectory and what it was left with."""
    assert read.final_observation is not None and read.final_legal is not None and read.memory is not None
    seen = torch.cat([read.observation[rows], read.final_observation[end][None]])
    legal = torch.cat([read.legal[rows], read.final_legal[end][None]])
    told = torch.cat([seen, torch.eye(2)[agent].expand(len(seen), -1)], 1)
    return walked(network, told, read.memory[end])[0].masked_fill(~legal, -1e9)


def test_value_agents_act_greedily_by_what_they_remember() -> None:
    of = world(MixedValues(hidden=8, width=4, recurrence="gru"))
    x = collected(of, EpsilonGreedy(6, 1, epsilon=0.0))
    read, policy = inputs(x), of.policy
    assert x.action is not None and not read.memory.any()  # type: ignore[union-attr]
    for number in range(x.trajectories):
        rows = x.trajectory_of_turn.labels == number
        told = torch.cat([read.observation[rows], torch.eye(2)[read.agent[rows]]], 1)
        said = walked(policy.utilities, told, torch.zeros(8))[0].masked_fill(~read.legal[rows], -1e9)  # type: ignore[arg-type]
        assert torch.equal(said.argmax(1), x.action[rows])
