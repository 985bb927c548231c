"""Conversations of one episode that know nothing of each other: what is read, what is learned, what it costs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from stratagem.language.chat import ChatFormat
from stratagem.language.episodes import Episode, to_experience
from stratagem.language.hf_engine import HFEngine
from stratagem.language.rollout import SESSIONS, play
from stratagem.language.sampling import SamplingParams
from stratagem.language.world import LanguageWorld
from stratagem.sampling import Demonstrations, Rollouts, Windows
from stratagem.tasks.task import Environment, Observation, Split, Step, Task, state_key
from stratagem.watched import Watch

SECRET = "topic 7"


class Script(Environment):
    """Says what it is told to, one context after the other; the last answer ends the episode."""

    def __init__(self, contexts: tuple[int, ...], opening: tuple[dict[str, str], ...]) -> None:
        self.contexts, self.opening, self.turn = contexts, opening, 0

    def reset(self) -> Observation:
        self.turn = 0
        return self._observation()

    def step(self, action: str) -> Step:
        self.turn += 1
        if self.turn == len(self.contexts):
            return Step(Observation("", 0), 1.0, done=True, success=True)
        return Step(self._observation(), 0.25)

    def _observation(self) -> Observation:
        context = self.contexts[self.turn]
        fresh = context not in self.contexts[: self.turn]
        opening = self.opening if fresh and context else ()
        return Observation(f"topic {self.turn}", state_key(self.turn), context, context, opening)


@dataclass
class Calls(Task):
    """Turns in these contexts, one after the other."""

    contexts: tuple[int, ...] = (0, 1, 1, 0, 2, 0)
    opening: tuple[dict[str, str], ...] = ()

    name, description, max_new_tokens, max_turns = "calls", "call others", 5, 9
    system = "Say something."

    def environment(self, split: Split, index: int) -> Environment:
        return Script(self.contexts, self.opening)

    def solution(self, split: Split, index: int) -> Iterator[str]:
        return iter(["topic"] * len(self.contexts))

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        return iter([])


@pytest.fixture
def rolled(make_policy: Any) -> Any:
    """``rolled(task)``: three episodes of a random policy, the experience they are, and the policy."""

    def run(task: Task, count: int = 3) -> tuple[list[Episode], Any, Any]:
        policy = make_policy(context=512)
        engine, chat, watch = HFEngine(policy), ChatFormat(policy.tokenizer), Watch(1.0)
        episodes = [Episode(index, 0, seed=index) for index in range(count)]
        params = SamplingParams(task.max_new_tokens, stop_token_ids=chat.end_token_ids)
        play(task, "train", episodes, engine, chat, params, watch)
        watch.close()
        assert [episode.failure for episode in episodes] == [None] * count
        return episodes, to_experience([[episode] for episode in episodes], ("reward",), 1), policy

    return run


def test_a_conversation_goes_on_where_it_was_left_and_hears_nothing_of_the_others(rolled, tiny_tokenizer):
    episodes, x, _ = rolled(Calls())
    assert x.turn_context.view(3, 6).tolist() == [[0, 1, 1, 0, 2, 0]] * 3
    first = [turn.read for turn in episodes[0].turns]
    begins = [tiny_tokenizer.decode(read).startswith("<|system|>") for read in first]
    assert begins == [True, True, False, False, True, False]
    lengths = x.inputs.context_lengths.tolist()
    texts = [tiny_tokenizer.decode(ids) for ids in x.inputs.token_ids.split(lengths)]
    assert len(texts) == 9
    heard = [[topic for topic in range(6) if f"<|user|>topic {topic}<" in text] for text in texts]
    assert heard == [[0, 3, 5], [1, 2], [4]] * 3


def test_rows_are_in_the_order_of_time_and_say_what_was_sampled(rolled):
    episodes, x, _ = rolled(Calls())
    sampled = [token for episode in episodes for turn in episode.turns for token in turn.action]
    assert x.action.tolist() == sampled == x.inputs.actions.tolist()


@pytest.mark.parametrize("contexts", [(0, 1, 1, 0, 2, 0), (0, 1, 2, 3, 0, 1, 2), (3, 2, 1)])
def test_every_action_is_learned_in_the_context_it_was_sampled_in(rolled, contexts):
    """The engine keeps few sessions and reads the others again; what it sampled from is what the learner sees."""
    assert len(set(contexts)) > SESSIONS
    _, x, policy = rolled(Calls(contexts))
    with torch.no_grad():
        torch.testing.assert_close(policy(x).logp, x.behavior_logp, atol=1e-5, rtol=1e-4)
        swapped = x.select(torch.tensor([2, 0]))
        torch.testing.assert_close(policy(swapped).logp, swapped.behavior_logp, atol=1e-5, rtol=1e-4)


def test_a_new_conversation_may_open_with_messages_of_its_own(rolled, tiny_tokenizer):
    opening = ({"role": "system", "content": "Remember."}, {"role": "user", "content": SECRET})
    episodes, x, policy = rolled(Calls((0, 1), opening))
    assert tiny_tokenizer.decode(episodes[0].turns[1].read) == f"<|system|>Remember.<|user|>{SECRET}<|assistant|>"
    with torch.no_grad():
        torch.testing.assert_close(policy(x).logp, x.behavior_logp, atol=1e-5, rtol=1e-4)


def test_an_engine_keeps_few_sessions_of_an_episode_and_none_after_it(make_policy):
    policy = make_policy(context=512)
    engine, chat, watch = HFEngine(policy), ChatFormat(policy.tokenizer), Watch(1.0)
    held: list[int] = []
    generate = engine.generate

    def counted(requests: Any) -> Any:
        held.append(len(engine._sessions))
        return generate(requests)

    engine.generate = counted  # type: ignore[method-assign]
    play(Calls(tuple(range(8))), "train", [Episode(0, 0, 0)], engine, chat, SamplingParams(5), watch)
    watch.close()
    assert max(held) == SESSIONS and len(engine._sessions) == 0


def test_the_world_collects_rolls_on_in_windows_and_demonstrates_in_contexts(make_policy):
    policy = make_policy(context=512)
    with_engine = LanguageWorld(Calls(), policy, HFEngine(policy), 0)
    with_engine.serve(0)
    demonstrated = with_engine.collect(Demonstrations(prompts_per_step=2), 0).x
    assert demonstrated.turn_context.tolist() == [0, 1, 1, 0, 2, 0] * 2
    rolled = with_engine.collect(Rollouts(prompts_per_step=2, group_size=2), 0).x
    windows = [with_engine.collect(Windows(prompts_per_step=2, tokens=7), step).x for step in range(4)]
    with torch.no_grad():
        for x in (rolled, *windows):
            logp = policy(x).logp
            torch.testing.assert_close(logp[x.learnable()], x.behavior_logp[x.learnable()], atol=1e-5, rtol=1e-4)
    with_engine.close()


@pytest.mark.parametrize("opening", [[{"role": "user", "content": "a"}], ({"role": "user"},), ("text",)])
def test_an_opening_that_is_no_messages_fails_the_episode(make_policy, opening):
    policy = make_policy(context=512)
    engine, chat, watch = HFEngine(policy), ChatFormat(policy.tokenizer), Watch(1.0)
    episode = Episode(0, 0, 0)
    play(Calls((0, 1), opening), "train", [episode], engine, chat, SamplingParams(5), watch)
    watch.close()
    assert episode.failure == "step: the observation's opening is not a tuple of messages with role and content"
