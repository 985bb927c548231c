"""Rollouts: tokens in are tokens out, every turn has its reward and state, and every limit its outcome."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from stratagem.language.chat import ChatFormat
from stratagem.language.engine import Completion, Request
from stratagem.language.episodes import Episode, to_experience
from stratagem.language.hf_engine import HFEngine
from stratagem.language.rollout import play
from stratagem.language.sampling import SamplingParams
from stratagem.tasks.mixture import Mixture
from stratagem.tasks.task import Task
from stratagem.watched import Watch


class Recorder:
    """An engine that notes the tokens of every session, as they went in and came out."""

    def __init__(self, engine: HFEngine) -> None:
        self.engine = engine
        self.seen: dict[int, list[int]] = {}
        self.closed: list[int] = []

    def open(self, count: int) -> list[int]:
        return self.engine.open(count)

    def close(self, sessions: Sequence[int]) -> None:
        self.closed += sessions
        self.engine.close(sessions)

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        completions = self.engine.generate(requests)
        for request, completion in zip(requests, completions, strict=True):
            if completion.tokens:
                self.seen.setdefault(request.session, []).extend([*request.tokens, *completion.tokens])
        return completions


Played = tuple[list[Episode], Recorder]


@pytest.fixture
def played(make_policy: Callable[..., Any]) -> Callable[..., Played]:
    """``played(task, count=6, context=512, greedy=False)``: that many episodes of a task by a random policy."""

    def run(task: Task, count: int = 6, context: int = 512, greedy: bool = False) -> Played:
        policy = make_policy(context=context)
        chat, recorder, watch = ChatFormat(policy.tokenizer), Recorder(HFEngine(policy)), Watch(0.3)
        episodes = [Episode(index, 0, seed=index) for index in range(count)]
        params = SamplingParams(task.max_new_tokens, stop_token_ids=chat.end_token_ids, greedy=greedy)
        play(task, "train", episodes, recorder, chat, params, watch)
        watch.close()
        return episodes, recorder

    return run


def test_the_learner_reads_exactly_the_tokens_the_engine_saw(played, chatter):
    episodes, recorder = played(chatter(turns=4))
    x = to_experience([[episode] for episode in episodes], ("reward",), 1)
    read = [tokens.tolist() for tokens in x.inputs.token_ids.split(x.inputs.lengths.tolist())]
    assert read == [recorder.seen[session] for session in sorted(recorder.seen)]
    sampled = [token for episode in episodes for turn in episode.turns for token in turn.action]
    assert x.action.tolist() == sampled == x.inputs.actions.tolist()


def test_only_actions_are_rows_and_observations_lie_between_them(played, chatter):
    episodes, _ = played(chatter(turns=3))
    x = to_experience([[episode] for episode in episodes], ("reward",), 1)
    assert x.tokens == sum(episode.length for episode in episodes)
    between = int(x.inputs.lengths.sum()) - x.tokens
    assert between == int(x.turn_observation_length.sum()) > 0


def test_a_conversation_opens_with_the_system_and_goes_on_with_what_was_heard(played, chatter, tiny_tokenizer):
    episodes, _ = played(chatter(turns=3))
    opening = tiny_tokenizer.decode(episodes[2].turns[0].read)
    assert opening == "<|system|>Say something.<|user|>topic 2<|assistant|>"
    long = next(episode for episode in episodes if len(episode.turns) > 1)
    said, following = long.turns[0], long.turns[1]
    end = "" if said.action[-1] == tiny_tokenizer.eos_token_id else "<|end|>"
    assert tiny_tokenizer.decode(following.read) == f"{end}<|user|>{following.observation.text}<|assistant|>"


def test_the_environment_hears_what_was_sampled_without_its_end_token(played, chatter, tiny_tokenizer):
    heard: dict[int, list[str]] = {}

    class Listening(chatter):
        def environment(self, split: Any, index: int) -> Any:
            environment = super().environment(split, index)
            step = environment.step
            environment.step = lambda action: (heard.setdefault(index, []).append(action), step(action))[1]
            return environment

    episodes, _ = played(Listening())
    for episode in episodes:
        assert heard[episode.index] == [turn.text for turn in episode.turns]
        for turn in episode.turns:
            assert turn.text == tiny_tokenizer.decode(turn.action, skip_special_tokens=True)


def test_every_turn_has_its_own_reward_and_state(played, chatter):
    episodes, _ = played(chatter(turns=3), count=8)
    for episode in episodes:
        states = [turn.observation.state_key for turn in episode.turns]
        assert len(set(states)) == len(states)
        assert episode.reward == sum(turn.reward for turn in episode.turns)
        assert [turn.done for turn in episode.turns] == [False] * (len(episode.turns) - 1) + [True]
    assert len({turn.reward for episode in episodes for turn in episode.turns}) > 2


def test_an_episode_ends_at_the_turn_limit_as_truncated(played, chatter):
    episodes, _ = played(chatter(turns=99, patience=2))
    long = [episode for episode in episodes if not episode.turns[-1].done]
    assert len(long) > 2
    assert all(len(episode.turns) == 2 and episode.truncated and episode.failure is None for episode in long)
    assert not any(episode.success for episode in long)


def test_an_environment_may_truncate_by_itself(played, chatter):
    from stratagem.tasks.task import Observation, Step

    def fault(call: str, index: int, turn: int) -> Any:
        return Step(Observation("", 0), 0.5, done=True, truncated=True) if call == "step" else None

    episodes, _ = played(chatter(fault=fault))
    assert all(episode.truncated and len(episode.turns) == 1 and episode.reward == 0.5 for episode in episodes)


def test_a_full_context_ends_the_episode_with_the_turns_it_has(played, chatter):
    # Opening 30 tokens or so, each turn some 15 more: 60 positions are full after two or three of them.
    episodes, _ = played(chatter(turns=99, patience=20), context=60)
    for episode in episodes:
        assert episode.failure is None
        assert sum(len(turn.read) + len(turn.action) for turn in episode.turns) <= 60
    cut = [episode for episode in episodes if not episode.turns[-1].done]
    assert cut and all(episode.truncated and 1 <= len(episode.turns) < 20 for episode in cut)
    x = to_experience([[episode] for episode in episodes], ("reward",), 1)
    assert bool(torch.isfinite(x.behavior_logp).all())


def test_an_opening_that_fills_the_context_fails_the_episode(played, chatter):
    episodes, recorder = played(chatter(), count=2, context=16)
    assert [episode.failure for episode in episodes] == ["the first observation fills the model's context"] * 2
    assert recorder.engine._sessions == {}


def test_sessions_and_environments_are_closed_once(played, chatter):
    task = chatter()
    episodes, recorder = played(task)
    assert sorted(recorder.closed) == list(range(len(episodes)))
    assert recorder.engine._sessions == {}
    closed = [index for call, index, _ in task.calls if call == "close"]
    assert sorted(closed) == list(range(len(episodes)))


def test_an_environment_that_cannot_be_reset_is_closed_all_the_same(played, chatter):
    def fault(call: str, index: int, turn: int) -> Any:
        if call == "reset":
            raise OSError("gone")

    task = chatter(fault=fault)
    episodes, _ = played(task, count=2)
    assert [episode.failure for episode in episodes] == ["reset: OSError: gone"] * 2
    assert sorted(index for call, index, _ in task.calls if call == "close") == [0, 1]


def test_greedy_play_does_not_depend_on_the_seed(make_policy, chatter):
    policy = make_policy()
    chat, engine, watch = ChatFormat(policy.tokenizer), HFEngine(policy), Watch(1.0)

    def said(seed: int, greedy: bool) -> list[list[int]]:
        episodes = [Episode(index, 0, seed + index) for index in range(3)]
        params = SamplingParams(4, stop_token_ids=chat.end_token_ids, greedy=greedy)
        play(chatter(), "train", episodes, engine, chat, params, watch)
        return [turn.action for episode in episodes for turn in episode.turns]

    assert said(0, True) == said(9, True)
    assert said(0, False) == said(0, False) != said(9, False)
    watch.close()


def test_in_a_mixture_each_episode_has_the_system_and_the_turn_limit_of_its_task(played, chatter, tiny_tokenizer):
    brief = chatter(turns=99, patience=1, system="Be brief.")
    silent = chatter(turns=99, patience=3, system=None)
    episodes, _ = played(Mixture([brief, silent]))
    openings = [tiny_tokenizer.decode(episode.turns[0].read) for episode in episodes]
    assert openings[0] == "<|system|>Be brief.<|user|>topic 0<|assistant|>"
    assert openings[3] == "<|user|>topic 1<|assistant|>"
    assert all(len(episode.turns) == 1 for episode in episodes[::2])
    assert max(len(episode.turns) for episode in episodes[1::2]) == 3
