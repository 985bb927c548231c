"""Windows on a language task: actions resumed in the middle, every token once, faults and resumes."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
import torch

from stratagem.experience import Experience
from stratagem.language.chat import ChatFormat
from stratagem.language.engine import Request
from stratagem.language.episodes import Episode
from stratagem.language.hf_engine import HFEngine
from stratagem.language.inputs import TokenInputs
from stratagem.language.rollout import act, finish, start
from stratagem.language.sampling import SamplingParams
from stratagem.sampling import Rollouts, Windows
from stratagem.training.world import Collected
from stratagem.watched import Watch

FOUR = Windows(prompts_per_step=4, tokens=3)


def collected(world: Any, steps: int, sampler: Windows = FOUR, move: float = 0.02, first: int = 0) -> list[Collected]:
    """Windows with the weights moved and served anew before each; how they move depends on the step alone."""
    found = []
    for step in range(first, first + steps):
        with torch.no_grad():
            noise = torch.Generator().manual_seed(step)
            for parameter in world.policy.policy_parameters():
                parameter += move * torch.randn(parameter.shape, generator=noise)
        world.serve(step)
        found.append(world.collect(sampler, step))
    return found


def places(x: Any) -> list[tuple[int, int]]:
    """Episode and place in it of every token."""
    by = x.trajectory_of_token
    return list(zip(by.spread(x.episode).tolist(), by.position().tolist(), strict=True))


@pytest.mark.parametrize("turns", [1, 3])
def test_every_token_is_fresh_once_and_for_the_critic_once_when_its_episode_has_ended(make_world, chatter, turns):
    fresh: dict[tuple[int, int], int] = defaultdict(int)
    judged: dict[tuple[int, int], int] = defaultdict(int)
    ended: set[int] = set()
    tokens = 0
    for found in collected(make_world(chatter(turns=turns, max_new_tokens=7)), 8):
        x = found.x
        for place, new, for_critic in zip(places(x), x.mask.tolist(), x.critic_mask.tolist(), strict=True):
            fresh[place] += new
            judged[place] += for_critic
        assert not ended & set(x.episode.tolist())
        ended |= set(x.episode[~x.running].tolist())
        tokens += found.tokens
        most = int(x.trajectory_of_token.sum(x.mask).max())
        assert most <= 3 and found.metrics["decode/steps"] >= most
    assert set(fresh.values()) == {1} and len(fresh) == tokens
    assert all(count == (episode in ended) for (episode, _), count in judged.items())
    assert ended and {episode for episode, _ in fresh} - ended


def test_engine_and_learner_agree_on_each_window_and_what_was_written_stays(make_world, chatter):
    world = make_world(chatter(turns=2, max_new_tokens=8))
    known: dict[tuple[int, int], tuple[int, float, int]] = {}
    for step in range(6):
        [found] = collected(world, 1, first=step)
        x = found.x
        said = world.policy(x).logp.detach()
        torch.testing.assert_close(x.behavior_logp[x.mask], said[x.mask], rtol=0, atol=1e-4)
        assert x.version[x.mask].unique().tolist() == [step]
        facts = zip(x.action.tolist(), x.behavior_logp.tolist(), x.version.tolist(), strict=True)
        for place, fact in zip(places(x), facts, strict=True):
            assert known.setdefault(place, fact) == fact
    assert len({version for _, _, version in known.values()}) == 6


def test_an_action_written_in_windows_is_what_the_environment_hears_and_no_longer_than_it_may_be(
    make_world, chatter, tiny_tokenizer
):
    heard: dict[int, list[str]] = defaultdict(list)

    class Listening(chatter):
        def environment(self, split: Any, index: int) -> Any:
            environment = super().environment(split, index)
            step = environment.step
            environment.step = lambda action: (heard[index].append(action), step(action))[1]
            return environment

    said: dict[int, list[str]] = {}
    lengths = set()
    for found in collected(make_world(Listening(turns=2, max_new_tokens=7)), 10):
        x = found.x.select(~found.x.running)
        turns = x.action.split(x.turn_of_token.size().tolist())
        for tokens, turn in zip(turns, x.trajectory_of_turn.labels.tolist(), strict=True):
            said.setdefault(int(x.episode[turn]), []).append(tiny_tokenizer.decode(tokens, skip_special_tokens=True))
            lengths.add(len(tokens))
    assert max(lengths) == 7 and len(said) > 4
    assert all(heard[episode] == texts for episode, texts in said.items())


def test_a_window_wider_than_every_episode_plays_whole_ones(make_world, chatter):
    windowed = make_world(chatter()).collect(Windows(prompts_per_step=5, tokens=1000), 0)
    whole = make_world(chatter()).collect(Rollouts(prompts_per_step=5, group_size=1), 0)
    assert torch.equal(windowed.x.action, whole.x.action) and torch.equal(windowed.x.reward, whole.x.reward)
    torch.testing.assert_close(windowed.x.behavior_logp, whole.x.behavior_logp, rtol=0, atol=1e-5)
    assert bool(windowed.x.mask.all()) and bool(windowed.x.critic_mask.all()) and not bool(windowed.x.running.any())
    for name in ("reward", "success", "completions/mean_length", "decode/steps", "decode/utilization"):
        assert windowed.metrics[name] == pytest.approx(whole.metrics[name]), name


def test_a_running_episode_has_the_rewards_of_its_complete_turns(make_world, chatter):
    for found in collected(make_world(chatter(turns=3, max_new_tokens=4)), 6):
        x = found.x
        torch.testing.assert_close(x.reward[:, 0], x.trajectory_of_turn.sum(x.turn_reward))
        assert not bool((x.running & (x.finished | x.success)).any()) and bool((x.truncated | ~x.running).all())
        unfinished = x.trajectory_of_turn.is_last() & x.trajectory_of_turn.spread(x.running)
        assert not bool(x.turn_done[unfinished].any())


def test_metrics_are_of_the_episodes_that_ended(make_world, chatter):
    world = make_world(chatter(turns=1, max_new_tokens=6))
    for found in collected(world, 4):
        ended = found.x.select(~found.x.running)
        assert found.metrics["episodes"] == ended.trajectories
        assert found.metrics["episodes/running"] == 4 - ended.trajectories
        if ended.trajectories:
            assert found.metrics["reward"] == pytest.approx(float(ended.reward.mean()))
        assert found.metrics["decode/steps"] == int(found.x.trajectory_of_token.sum(found.x.mask).max())
        assert found.metrics["decode/utilization"] == pytest.approx(found.tokens / (4 * found.metrics["decode/steps"]))


# ---- faults ----------------------------------------------------------------------------------------------------------


def test_an_episode_that_fails_is_left_out_counted_and_replaced(make_world, chatter):
    def fault(call: str, index: int, turn: int) -> Any:
        if call == "step" and index % 3 == 1:
            raise OSError("gone")

    task = chatter(turns=1, max_new_tokens=4, fault=fault)
    found = collected(make_world(task), 6)
    assert sum(row.metrics["episodes/failed"] for row in found) >= 2
    for row in found:
        assert not any(int(x) % 3 == 1 for x in row.x.episode[~row.x.running])
        assert row.x.trajectories + row.metrics["episodes/failed"] == 4
    assert sum(row.tokens for row in found) > sum(int(row.x.mask.sum()) for row in found)


def test_an_episode_that_cannot_start_leaves_its_slot_empty_until_the_next_window(make_world, chatter):
    def fault(call: str, index: int, turn: int) -> Any:
        if call == "reset" and index in (0, 1, 2, 3, 5):
            raise OSError("gone")

    nothing, three, four = collected(make_world(chatter(fault=fault)), 3)
    assert nothing.x is None and nothing.tokens == 0 and nothing.metrics["episodes/failed"] == 4
    assert three.x.episode.tolist() == [4, 6, 7] and three.metrics["episodes/failed"] == 1
    assert four.x.trajectories == 4


def test_a_full_context_ends_an_episode_with_what_it_has(make_world, make_policy, chatter):
    world = make_world(chatter(turns=99, patience=30, max_new_tokens=9), policy=make_policy(context=64))
    ended = []
    for found in collected(world, 14, Windows(prompts_per_step=4, tokens=4)):
        assert found.metrics["episodes/failed"] == 0
        assert int(found.x.inputs.lengths.max()) <= 64
        ended.append(found.x.select(~found.x.running))
    full = [int(length) for x in ended for length, cut in zip(x.inputs.lengths, x.truncated, strict=True) if cut]
    assert full and min(full) > 40


# ---- stop strings ----------------------------------------------------------------------------------------------------


def test_in_windows_a_turn_stops_where_it_would_have_stopped_at_once(make_policy, chatter):
    """Greedily, so that seeds do not matter; the stop string is what two neighbouring tokens spell."""
    across = 0
    for seed in range(6):
        policy = make_policy(seed=seed)
        engine, chat, watch = HFEngine(policy), ChatFormat(policy.tokenizer), Watch(1.0)

        def played(stop: tuple[str, ...], window: int, inside: Any = (engine, chat, watch)) -> tuple[Any, int]:
            engine, chat, watch = inside
            [one] = live = start(chatter(turns=1), "train", [Episode(0, 0, 0)], chat, watch)
            params, pieces = SamplingParams(12, stop=stop, greedy=True), 0
            while not one.episode.turns:
                act(live, engine, params, [window])
                pieces += 1
            finish(live, engine, watch)
            return one.episode.turns[0], pieces

        free, _ = played((), 12)
        for place in range(1, 8):
            spelled = policy.tokenizer.decode(free.action[place : place + 2])
            if "\ufffd" in spelled or len(spelled) < 2:
                continue
            whole, _ = played((spelled,), 12)
            for window in (1, 2, 3, 5):
                turn, pieces = played((spelled,), window)
                assert (turn.action, turn.text) == (whole.action, whole.text)
                assert pieces == -(-len(turn.action) // window)
                across += window == 1 and len(turn.action) < 12
        watch.close()
    assert across >= 5, "too few stop strings for a test"


def test_going_on_with_a_turn_is_sampled_from_what_the_session_holds(make_policy):
    """In pieces or at once: every token has the log-probability that the policy gives it there."""
    policy = make_policy()
    engine, prompt = HFEngine(policy), [5, 6, 7, 8]
    [session] = engine.open(1)
    said: list[int] = []
    logp: list[float] = []
    for piece in range(4):
        request = Request(session, [] if said else prompt, 100 + piece, SamplingParams(3), said)
        [completion] = engine.generate([request])
        said, logp = [*said, *completion.tokens], [*logp, *completion.logp]
        assert completion.text == policy.tokenizer.decode(said, skip_special_tokens=True)
        if completion.finish_reason == "stop":
            break
    inputs = TokenInputs(torch.tensor(prompt + said), torch.tensor([4 + len(said)]), torch.arange(4, 4 + len(said)))
    x = Experience.from_lengths([len(said)], [1], [1], inputs=inputs)
    assert logp == pytest.approx(policy(x).logp.tolist(), abs=1e-4)


# ---- resume ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("turns", [1, 3])
def test_a_resumed_world_goes_on_with_every_episode_in_the_middle_of_its_turns(make_world, chatter, turns):
    def task() -> Any:
        return chatter(turns=turns, max_new_tokens=7)

    unbroken = make_world(task())
    expected = collected(unbroken, 6)
    broken = make_world(task())
    collected(broken, 2)
    tensors, plain = broken.state_dict()
    assert any(saved["begun"] for saved in plain["windows"])
    resumed = make_world(task(), policy=broken.policy)
    resumed.load_state_dict(tensors, json.loads(json.dumps(plain)))
    for found, other in zip(collected(resumed, 4, first=2), expected[2:], strict=True):
        for name in ("action", "behavior_logp", "version", "mask", "critic_mask", "episode", "turn_state", "reward"):
            assert torch.equal(getattr(found.x, name), getattr(other.x, name)), name
        assert found.samples == other.samples


def test_evaluating_in_between_disturbs_nothing(make_world, chatter):
    quiet, disturbed = make_world(chatter(max_new_tokens=7)), make_world(chatter(max_new_tokens=7))
    expected = collected(quiet, 4)
    for step in range(4):
        [found] = collected(disturbed, 1, first=step)
        disturbed.evaluate(3, "sampled")
        assert torch.equal(found.x.action, expected[step].x.action)


def test_an_environment_that_does_not_replay_is_given_up_with_a_warning(make_world, chatter):
    world = make_world(chatter(turns=3, max_new_tokens=3))
    collected(world, 2)
    tensors, plain = world.state_dict()
    plain = json.loads(json.dumps(plain))
    under_way = len(plain["windows"])

    def fault(call: str, index: int, turn: int) -> Any:
        if call == "reset" and index == plain["windows"][0]["index"]:
            raise OSError("gone")

    resumed = make_world(chatter(turns=3, max_new_tokens=3, fault=fault))
    with pytest.warns(UserWarning, match=r"chatter: an episode under way did not replay \(OSError: gone\)"):
        resumed.load_state_dict(tensors, plain)
    assert len(resumed.state_dict()[1]["windows"]) == under_way - 1
    other = make_world(chatter(turns=3, max_new_tokens=3, system="Something else."))
    with pytest.warns(UserWarning, match="its environment shows something else"):
        other.load_state_dict(tensors, plain)
    assert other.state_dict()[1]["windows"] == []


def test_environments_of_episodes_under_way_are_closed_with_the_world(make_world: Callable[..., Any], chatter):
    task = chatter(turns=3, max_new_tokens=7)
    world = make_world(task)
    collected(world, 3)
    opened = {index for call, index, _ in task.calls if call == "reset"}
    closed = [index for call, index, _ in task.calls if call == "close"]
    assert set(closed) < opened
    world.close()
    closed = [index for call, index, _ in task.calls if call == "close"]
    assert sorted(closed) == sorted(opened)
