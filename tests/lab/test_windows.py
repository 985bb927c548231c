"""Responses that run on across batches: of the right law, with every token once, and resumable."""

from __future__ import annotations

import json
from collections import defaultdict

import pytest
import torch

from stratagem.experience import Experience
from stratagem.lab import GAMES, Exact
from stratagem.lab.game import Outcome, TokenGame, over
from stratagem.lab.world import LabTask, LabWorld
from stratagem.sampling import Rollouts, Windows

VARIED = ["length", "corridor", "windy", "stopping", "prompts"]


def batches(world: LabWorld, sampler: Windows, steps: int, move: float = 0.0, first: int = 0) -> list[Experience]:
    """Windows with the policy served anew and moved by ``move`` after each."""
    found = []
    for step in range(first, first + steps):
        world.serve(step)
        found.append(world.collect(sampler, step).x)
        with torch.no_grad():
            noise = torch.randn(world.policy.logits.shape, generator=torch.Generator().manual_seed(step))
            world.policy.logits.add_(move * noise)
    return found


def _lottery(state: tuple[int, int], tokens: tuple[int, ...]) -> list[Outcome] | None:
    start, turn = state
    if len(tokens) < 1 + start:
        return None
    lucky = Outcome(None, 0.05, reward=1.0 + tokens[0], success=True)
    return [lucky, Outcome((start, turn + 1), 0.95)] if turn < 2 else over(0.0)


LOTTERY = TokenGame("lottery", "Up to three turns, won by chance.", 2, ((0.9, (0, 0)), (0.1, (1, 0))), _lottery)


@pytest.mark.parametrize("game", [*map(GAMES.get, VARIED), LOTTERY], ids=lambda game: game.name)
@pytest.mark.parametrize("tokens", [1, 2, 3])
def test_responses_written_in_windows_are_distributed_as_if_written_at_once(game, tokens):
    world = LabWorld(LabTask(game), seed=0)
    exact, steps = Exact(world.tree, world.policy.logits.detach()), 20
    last: dict[int, tuple[float, int, int]] = {}
    begun = []
    for x in batches(world, Windows(prompts_per_step=200, tokens=tokens), steps):
        facts = zip(x.returns.tolist(), x.trajectory_of_token.size().tolist(), x.task_id.tolist(), strict=True)
        last |= dict(zip(x.episode.tolist(), facts, strict=True))
        begun.append(int(x.episode.max()))
    # Those that began early enough have all ended, long or short.
    longest = int(world.tree.leaves.trajectory_of_token.size().max())
    early = [last[episode] for episode in range(begun[steps - 1 - longest // tokens] + 1)]
    returns, lengths, starts = (torch.tensor(facts).double() for facts in zip(*early, strict=True))
    error = 4 / len(early) ** 0.5
    assert float(returns.mean()) == pytest.approx(exact.expected_return, abs=error * exact.return_std)
    assert float(lengths.mean()) == pytest.approx(exact.length, abs=error * float(lengths.std()) + 1e-9)
    share = torch.bincount(starts.long(), minlength=world.tree.starts) / len(starts)
    spread = (exact.start_probability * (1 - exact.start_probability)).clamp(min=0).sqrt()
    assert bool(((share - exact.start_probability).abs() <= error * spread + 1e-9).all())


@pytest.mark.parametrize("game", VARIED)
def test_every_token_is_fresh_once_and_for_the_critic_once_when_its_response_has_ended(game):
    world = LabWorld(LabTask(GAMES[game]), seed=1)
    fresh: dict[tuple[int, int], int] = defaultdict(int)
    judged: dict[tuple[int, int], int] = defaultdict(int)
    length: dict[int, int] = {}
    ended: set[int] = set()
    sampled = 0
    for x in batches(world, Windows(prompts_per_step=16, tokens=2), 11, move=0.5):
        places = list(
            zip(
                x.trajectory_of_token.spread(x.episode).tolist(), x.trajectory_of_token.position().tolist(), strict=True
            )
        )
        for place, new, for_critic in zip(places, x.mask.tolist(), x.critic_mask.tolist(), strict=True):
            fresh[place] += new
            judged[place] += for_critic
        length |= dict(zip(x.episode.tolist(), x.trajectory_of_token.size().tolist(), strict=True))
        assert not ended & set(x.episode.tolist())
        ended |= set(x.episode[~x.running].tolist())
        assert int(x.trajectory_of_token.sum(x.mask).max()) <= 2
        sampled += int(x.mask.sum())
    assert set(fresh.values()) == {1} and len(fresh) == sampled == sum(length.values())
    assert all(count == (episode in ended) for (episode, _), count in judged.items())
    assert ended and set(length) - ended


def test_tokens_carry_the_log_probability_and_version_of_the_weights_that_wrote_them():
    world = LabWorld(LabTask(GAMES["four_by_four"]), seed=0)
    sampler = Windows(prompts_per_step=32, tokens=1)
    known: dict[tuple[int, int], tuple[float, int]] = {}
    for step in range(6):
        world.serve(step)
        x = world.collect(sampler, step).x
        said = world.policy(x).logp.detach()
        torch.testing.assert_close(x.behavior_logp[x.mask], said[x.mask])
        assert x.version[x.mask].unique().tolist() == [step]
        rows = zip(
            x.trajectory_of_token.spread(x.episode).tolist(), x.trajectory_of_token.position().tolist(),
            x.behavior_logp.tolist(), x.version.tolist(), strict=True,
        )  # fmt: skip
        for episode, position, logp, version in rows:
            assert known.setdefault((episode, position), (logp, version)) == (logp, version)
        with torch.no_grad():
            world.policy.logits.add_(torch.randn(world.policy.logits.shape, generator=torch.manual_seed(step)))
    assert len({version for _, version in known.values()}) == 6


def test_a_response_that_ends_at_the_edge_of_a_window_has_ended():
    world = LabWorld(LabTask(GAMES["four_by_four"]), seed=0)
    first, second = batches(world, Windows(prompts_per_step=8, tokens=2), 2)
    assert bool(first.running.all()) and not bool(second.running.any())
    assert (
        second.trajectory_of_token.size().tolist() == [4] * 8 and second.mask.tolist() == [False, False, True, True] * 8
    )
    assert not bool(first.finished.any()) and bool(first.truncated.all()) and not bool(second.truncated.any())
    assert first.returns.tolist() == [0.0] * 8 and bool(second.finished.all())


def test_a_response_cut_by_the_games_own_limit_has_ended_too():
    world = LabWorld(LabTask(GAMES["length"]), seed=0)
    x = Experience.concatenate(batches(world, Windows(prompts_per_step=64, tokens=5), 3))
    limit = x.truncated
    assert bool(limit.any()) and not bool(x.running.any())
    assert x.trajectory_of_token.size()[limit].tolist() == [5] * int(limit.sum())
    assert not bool((limit & x.finished).any()) and bool((limit ^ x.finished).all())


def test_only_turns_that_are_complete_have_earned():
    world = LabWorld(LabTask(GAMES["stopping"]), seed=2)
    leaves, earned = world.tree.leaves, {}
    possible = {tuple(r.tolist()) for r in leaves.turn_reward.split(leaves.trajectory_of_turn.size().tolist())}
    for x in batches(world, Windows(prompts_per_step=32, tokens=1), 5):
        torch.testing.assert_close(x.returns, x.trajectory_of_turn.sum(x.turn_reward))
        last = x.trajectory_of_turn.is_last() & x.trajectory_of_turn.spread(~x.running)
        assert x.turn_done.tolist() == last.tolist()
        rewards = x.turn_reward.split(x.trajectory_of_turn.size().tolist())
        for episode, running, turns in zip(x.episode.tolist(), x.running.tolist(), rewards, strict=True):
            before = earned.setdefault(episode, [])
            assert turns.tolist()[: len(before)] == before
            earned[episode] = turns.tolist()
            assert running or tuple(turns.tolist()) in possible
    world = LabWorld(LabTask(GAMES["corridor"]), seed=2)
    [x] = batches(world, Windows(prompts_per_step=16, tokens=3), 1)
    # Two tokens make a turn: after three, the second one is under way.
    cut = x.running
    assert x.turn_of_token.size()[x.trajectory_of_turn.last()][cut].tolist() == [1] * int(cut.sum())


def test_a_running_response_is_left_with_the_critics_value_of_where_it_goes_on():
    world = LabWorld(LabTask(GAMES["length"]), seed=0)
    with torch.no_grad():
        world.policy.values.copy_(torch.arange(float(world.tree.nodes)))
    first, second = batches(world, Windows(prompts_per_step=16, tokens=1), 2)
    assert first.final_value[~first.running].tolist() == [0.0] * int((~first.running).sum())
    left = dict(zip(first.episode.tolist(), first.final_value.tolist(), strict=True))
    starts = second.trajectory_of_token.first()
    for episode, row, size in zip(
        second.episode.tolist(), starts.tolist(), second.inputs.lengths.tolist(), strict=True
    ):
        if episode in left:
            assert size == 2 and int(second.inputs.node[row + 1]) == left[episode]


def test_metrics_are_of_the_responses_that_ended_and_of_the_places_that_were_used():
    world = LabWorld(LabTask(GAMES["length"]), seed=0)
    outcome = world.collect(Windows(prompts_per_step=10, tokens=3), 0)
    x, metrics = outcome.x, outcome.metrics
    ended = x.select(~x.running)
    assert metrics["reward"] == pytest.approx(float(ended.returns.mean()))
    assert metrics["episodes"] + metrics["episodes/running"] == 10
    assert metrics["decode/steps"] == 3
    assert metrics["decode/utilization"] == pytest.approx(x.tokens / 30) and outcome.tokens == x.tokens
    nobody = LabWorld(LabTask(GAMES["rare"]), seed=0).collect(Windows(prompts_per_step=4, tokens=1), 0).metrics
    assert nobody["episodes"] == 0 and "reward" not in nobody and nobody["decode/utilization"] == 1


def test_whole_responses_take_as_many_steps_as_the_longest_of_them():
    found = LabWorld(LabTask(GAMES["length"]), seed=0).collect(Rollouts(prompts_per_step=8, group_size=2), 0)
    lengths = found.x.trajectory_of_token.size()
    assert found.metrics["decode/steps"] == int(lengths.max())
    assert found.metrics["decode/utilization"] == pytest.approx(float(lengths.sum()) / (16 * int(lengths.max())))


def test_a_resumed_world_goes_on_with_every_response():
    sampler = Windows(prompts_per_step=8, tokens=1)
    world = LabWorld(LabTask(GAMES["corridor"], staleness=1), seed=0)
    batches(world, sampler, 3, move=0.3)
    tensors, plain = world.state_dict()
    resumed = LabWorld(LabTask(GAMES["corridor"], staleness=1), 0, world.policy)
    resumed.load_state_dict({name: tensor.clone() for name, tensor in tensors.items()}, json.loads(json.dumps(plain)))
    logits = world.policy.logits.detach().clone()
    expected = batches(world, sampler, 3, move=0.3, first=3)
    with torch.no_grad():
        world.policy.logits.copy_(logits)
    for x, other in zip(batches(resumed, sampler, 3, move=0.3, first=3), expected, strict=True):
        for name in ("action", "behavior_logp", "version", "mask", "episode", "reward"):
            assert torch.equal(getattr(x, name), getattr(other, name)), name


def test_fewer_slots_give_up_the_last_ones_and_more_take_fresh_ones():
    world = LabWorld(LabTask(GAMES["four_by_four"]), seed=0)
    [few] = batches(world, Windows(prompts_per_step=4, tokens=1), 1)
    [more] = batches(world, Windows(prompts_per_step=6, tokens=1), 1)
    [fewer] = batches(world, Windows(prompts_per_step=2, tokens=1), 1)
    assert (few.episode.tolist(), more.episode.tolist()) == ([0, 1, 2, 3], [0, 1, 2, 3, 4, 5])
    assert fewer.episode.tolist() == [0, 1] and fewer.trajectory_of_token.size().tolist() == [3, 3]
