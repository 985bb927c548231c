from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from stratagem import run
from stratagem.architectures import Agents, MixedValues
from stratagem.catalogue import card, recipe
from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.multiagent import (
    AgentInputs,
    AgentsPolicy,
    DiscsGame,
    Followers,
    Frame,
    MeetingGame,
    MultiAgentWorld,
    PathfindingGame,
    RecallGame,
    TrainedFollowers,
)
from stratagem.multiagent.controllers import learned, throughput
from stratagem.multiagent.recurrence import Recurrence, Sequences, answers, with_memory
from stratagem.sampling import EpsilonGreedy, Rollouts, Segments
from stratagem.seeding import generator
from stratagem.training.batch_storage import pack, unpack
from stratagem.training.loop import Settings, Trainer
from stratagem.training.run_directory import RunDirectory

from .conftest import Walk
from .corridor import Corridor
from .test_policy import scaled

GRU = {"recurrence": "gru", "hidden": 8}
ACTORS = [Agents(weights, critic, **GRU) for weights in ("shared", "separate") for critic in ("both", "state")]


def ids(architecture: Any) -> str:
    return f"{architecture.weights}-{architecture.critic}"


def world(architecture: Any, game: Any = None, seed: int = 0) -> MultiAgentWorld:
    game = Walk() if game is None else game
    return MultiAgentWorld(game, seed, scaled(architecture.build(game, 0)))


def collected(of: MultiAgentWorld, sampler: Any, step: int = 0) -> Experience:
    x = of.collect(sampler, step).x
    assert x is not None
    return x


def inputs(x: Experience) -> AgentInputs:
    assert isinstance(x.inputs, AgentInputs)
    return x.inputs


def stepped(cell: nn.GRU, features: Tensor, kept: Tensor) -> Tensor:
    """One step of a GRU as it is defined."""
    new = features @ cell.weight_ih_l0.T + cell.bias_ih_l0
    old = kept @ cell.weight_hh_l0.T + cell.bias_hh_l0
    (r, z, n), (r_, z_, n_) = new.chunk(3, -1), old.chunk(3, -1)
    update = torch.sigmoid(z + z_)
    return (1 - update) * torch.tanh(n + torch.sigmoid(r + r_) * n_) + update * kept


def walked(network: nn.Sequential, rows: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """What a network says turn by turn of one trajectory, and what it remembers in the end."""
    said = []
    for row in rows:
        kept = stepped(network[-2].cell, network[:-2](row[None])[0], kept)
        said.append(network[-1](kept))
    return torch.stack(said), kept


def acted_with(of: MultiAgentWorld, greedy: bool = False) -> list[np.ndarray]:
    """Let a world note how likely everything was that its agents do, as they do it."""
    noted: list[np.ndarray] = []
    plain = of._served._chooser  # type: ignore[operator]

    def chooser(temperature: float) -> Any:
        choose = plain(temperature)

        def chosen(logits: np.ndarray, noise: Any) -> np.ndarray:
            action: np.ndarray = choose(logits, None if greedy else noise)
            logp = torch.log_softmax(torch.from_numpy(logits) / temperature, -1)
            noted.append(logp.gather(-1, torch.from_numpy(action)[..., None]).numpy().ravel())
            return action

        return chosen

    of._served._chooser = chooser
    return noted


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


# ---- who acts -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Dying(Walk):
    """The walk of agents of which the last is dead from turn 2 on."""

    mortal: ClassVar[bool] = True

    def alive(self, state: Any) -> np.ndarray:
        alive = np.ones(state["place"].shape, dtype=bool)
        alive[:, -1] = state["turn"] < 2
        return alive

    def transition(self, state: Any, action: np.ndarray) -> Any:
        changed, reward, _ = super().transition(state, action)
        over = np.zeros(action.shape, dtype=bool)
        over[:, -1] = state["turn"] >= 1
        return changed, reward, over


def test_an_agent_that_dies_forgets_and_the_next_episode_begins_without_memory() -> None:
    of = world(Agents(**GRU), Dying())
    sampler = Segments(prompts_per_step=3, turns=4)
    first, second = collected(of, sampler), collected(of, sampler, 1)
    after = [inputs(x).memory.view(-1, 2, 24)[..., :8] for x in (first, second)]  # type: ignore[union-attr]
    assert not after[0].any()
    going = torch.isin(second.episode[::2], first.episode)  # type: ignore[index]
    assert bool(going.any()) and not bool(going.all())
    assert bool(after[1][going][:, 0].any(1).all()) and not after[1][going][:, 1].any()
    assert not after[1][~going].any()


def test_a_team_evaluates_and_watches_from_nothing() -> None:
    game = MeetingGame(size=3)
    of = world(Agents(**GRU), game)
    before = of.evaluate(10, "sampled")
    collected(of, Segments(prompts_per_step=3, turns=5))
    assert of.evaluate(10, "sampled") == before
    greedy = of.evaluate(1, "greedy", first=3)
    assert float(of.watch(3, "greedy").reward.mean(1).sum()) == pytest.approx(greedy.mean_return, abs=1e-5)


def test_a_world_that_has_played_before_it_gets_a_recipe_carries_what_its_agents_remember(tmp_path: Path) -> None:
    of = MultiAgentWorld(RecallGame(), 0)
    of.evaluate(5, "greedy")
    chosen = recipe("vdn").with_values({"sampler.prompts_per_step": 2})
    Trainer(chosen, of, RunDirectory.create(tmp_path / "r"), Settings(steps=1, evaluation_episodes=5)).run()
    assert of.policy.memory_width == 64


def test_a_controller_carries_what_agents_remember_and_begins_anew_with_each_episode() -> None:
    game = PathfindingGame(size=8, agents=3)
    policy = scaled(Agents(told=False, front="convolution", width=4, **GRU).build(game, 0))
    controller = learned(game, policy)
    seeds = np.arange(4)
    twice = [throughput(game, controller, seeds, np.random.default_rng(0)) for _ in range(2)]
    assert np.array_equal(*twice)
    fewer = throughput(game, controller, seeds[:2], np.random.default_rng(0))
    assert fewer.shape == (2,)
    act, memory, seen = policy.acting(), None, []
    frame = game.copies(1)
    frame.reset(np.array([0]), np.array([0]))
    for _ in range(3):
        acted = act(frame.observe(np.array([0])), None, memory)
        memory = acted.memory
        seen.append(memory)
    assert not np.array_equal(seen[0], seen[1]) and seen[0].shape == (1, 3, 24)


def test_followers_of_a_game_have_no_memory() -> None:
    policy = Agents(**GRU).build(Followers(Corridor()), 0)
    with pytest.raises(InputError, match="followers remember nothing"):
        TrainedFollowers(policy, Corridor())


def test_any_number_of_agents_act_by_one_policy_with_a_memory() -> None:
    policy = Agents(told=False, **GRU).build(Walk(), 0)
    assert policy.any_number
    seen = np.zeros((2, 5, 2), dtype=np.float32)
    frame = Frame(seen, np.zeros((2, 0), np.float32), np.ones((2, 5, 3), bool), np.ones((2, 5), bool))
    assert policy.acting()(frame, None).memory.shape == (2, 5, 24)


@pytest.mark.parametrize(
    "architecture",
    [ACTORS[0], ACTORS[3], Agents(told=False, **GRU), MixedValues(hidden=8, recurrence="gru")],
    ids=["shared", "separate", "any", "values"],
)
def test_a_saved_policy_remembers_as_before(tmp_path: Path, architecture: Any) -> None:
    of = world(architecture)
    of.policy.save(tmp_path / "p", "card")
    read = AgentsPolicy.from_directory(tmp_path / "p")
    assert read.arguments() == of.policy.arguments() and read.arguments()["recurrence"] == "gru"
    sampler = EpsilonGreedy(4, 1) if isinstance(architecture, MixedValues) else Rollouts(4, 1)
    x, same = collected(of, sampler), collected(MultiAgentWorld(Walk(), 0, read), sampler)
    assert torch.equal(x.action, same.action) and torch.equal(x.behavior_logp, same.behavior_logp)  # type: ignore[arg-type]


# ---- what was there before ------------------------------------------------------------------------------------------

RECORDED = {
    "ippo": (-482.7982, -123.4521, 0.1354149, 1948.6928),
    "mappo": (-482.7982, 104.2015, 0.4720571, 2018.3187),
    "vdn": (-135.1928, 0.0, 0.1276361, 1289.4768),
    "qmix": (-135.1928, 0.0, 0.1050594, 1695.2319),
    "bn_policy": (-495.6610, 107.1960, 0.5011262, 3493.6964),
}
"""Figures of the commit before there was a memory."""


def figures(name: str, folder: Path, **arguments: Any) -> tuple[float, float, float, float]:
    """Of a first batch: likelihood and values; after it was learned from: loss, and all weights."""
    of = MultiAgentWorld(MeetingGame(size=3, max_turns=6), 3)
    chosen = card(name).recipe(**arguments)
    settings = Settings(steps=1, seed=5, evaluation_episodes=0)
    trainer = Trainer(chosen, of, RunDirectory.create(folder), settings)
    x = collected(of, chosen.sampler, 7)
    trainer.step()
    weights = sum(float(weight.detach().double().abs().sum()) for weight in of.policy.parameters())
    assert x.behavior_logp is not None
    value = 0.0 if x.value is None else float(x.value.double().sum())
    return float(x.behavior_logp.double().sum()), value, trainer._last_metrics["loss"], weights


@pytest.mark.parametrize("name", RECORDED)
def test_agents_without_a_memory_learn_as_they_did_before_there_was_one(name: str, tmp_path: Path) -> None:
    arguments = {"recurrence": "none"} if name in ("vdn", "qmix") else {}
    assert figures(name, tmp_path / "r", **arguments) == pytest.approx(RECORDED[name], rel=1e-3)


# ---- a task that asks for it ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "arguments"), [("ippo", {"entropy_weight": 0.03}), ("vdn", {"anneal": 5})])
def test_a_team_with_a_memory_learns_to_recall(tmp_path: Path, name: str, arguments: dict[str, Any]) -> None:
    of = MultiAgentWorld(RecallGame(delay=2), 1000)
    chosen = card(name).recipe(**arguments, recurrence="gru").with_values({"optimization.learning_rate": 2e-3})
    settings = Settings(steps=20, seed=1000, evaluation_episodes=0, checkpoint_every=100)
    trainer = Trainer(chosen, of, RunDirectory.create(tmp_path / "r"), settings)
    for _ in range(20):
        trainer.step()
        of.serve(1)
        if of.evaluate(100, "greedy").mean_return > 0.95:
            return
    pytest.fail("not learned in 20 batches")


def test_a_run_of_agents_with_a_memory_is_evaluated_from_its_folder(tmp_path: Path) -> None:
    run.train("qmix", "recall", steps=1, out=tmp_path / "r", evaluation_episodes=4)
    sampled, greedy = run.evaluate(tmp_path / "r", episodes=8)
    assert (sampled.episodes, greedy.episodes, greedy.mean_length) == (8, 8, 5)
