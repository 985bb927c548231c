"""Tree decoding and self-correction: against plain episodes, with a scripted policy, and by counting tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from stratagem.errors import InputError
from stratagem.language.chat import ChatFormat
from stratagem.language.correction import play_corrected
from stratagem.language.engine import Completion, Request
from stratagem.language.episodes import Episode
from stratagem.language.hf_engine import HFEngine
from stratagem.language.rollout import play
from stratagem.language.sampling import SamplingParams
from stratagem.language.trees import Growth, by_result, grow, majority
from stratagem.tasks.task import Environment, Observation, Split, Step, Task, state_key
from stratagem.watched import Watch


class Lookups(Environment):
    """So many turns; a word with ``!`` is a call that fails, any other one that does not; the last word is the end."""

    def __init__(self, index: int, turns: int) -> None:
        self.index, self.turns, self.turn = index, turns, 0

    def reset(self) -> Observation:
        self.turn = 0
        return Observation(f"go {self.index}", state_key(self.index))

    def step(self, action: str) -> Step:
        self.turn += 1
        failed, done = "!" in action, self.turn == self.turns
        text = "error" if failed else f"told {action}"
        return Step(Observation(text, state_key(text)), float(done), done, success=done, ran=not failed)


@dataclass
class Lookup(Task):
    turns: int = 3

    name, description, max_new_tokens, max_turns = "lookup", "look things up", 6, 8

    def environment(self, split: Split, index: int) -> Environment:
        return Lookups(index, self.turns)

    def solution(self, split: Split, index: int) -> Iterator[str]:
        return iter(["word"] * self.turns)

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        return iter([])


class Scripted:
    """An engine that says what ``say(seed)`` gives; every text is four tokens long, of log-probability ``logp``."""

    def __init__(self, say: Callable[[int], str], logp: Callable[[str], float] = lambda text: -1.0) -> None:
        self.say, self.logp, self.version, self.count, self.generated = say, logp, 0, 0, 0
        self.open_sessions: set[int] = set()

    def open(self, count: int) -> list[int]:
        fresh = list(range(self.count, self.count + count))
        self.count += count
        self.open_sessions |= set(fresh)
        return fresh

    def close(self, sessions: Sequence[int]) -> None:
        self.open_sessions -= set(sessions)

    def load_weights(self, policy: Any, version: int) -> None:
        raise NotImplementedError

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        said = []
        for request in requests:
            text, tokens = self.say(request.seed), 4 - len(request.said)
            self.generated += tokens
            said.append(Completion([7] * tokens, [self.logp(text)] * tokens, "stop", 0, text))
        return said


@pytest.fixture
def watch() -> Iterator[Watch]:
    watch = Watch(10.0)
    yield watch
    watch.close()


@pytest.fixture
def chat(tokenizer: Any) -> ChatFormat:
    return ChatFormat(tokenizer)


def said(episode: Episode) -> list[str]:
    return [turn.text for turn in episode.turns]


def sought(task: Lookup, engine: Scripted, chat: ChatFormat, watch: Watch, growth: Growth) -> Any:
    """The tree of the first test episode, in turns of six tokens."""
    return grow(task, "test", Episode(0, 0, 1000), engine, chat, SamplingParams(6), watch, growth)


# ---- trees ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", range(3))
def test_a_tree_with_one_branch_is_the_episode_token_for_token(make_policy, watch, index):
    policy = make_policy(context=512)
    engine, chat = HFEngine(policy), ChatFormat(policy.tokenizer)
    params = SamplingParams(6, stop_token_ids=chat.end_token_ids)
    linear, root = Episode(index, 0, 1000 + index), Episode(index, 0, 1000 + index)
    play(Lookup(), "test", [linear], engine, chat, params, watch)
    grown = grow(Lookup(), "test", root, engine, chat, params, watch, Growth(branches=1))
    [leaf] = grown.leaves
    assert [turn.action for turn in leaf.episode.turns] == [turn.action for turn in linear.turns]
    assert [turn.logp for turn in leaf.episode.turns] == [turn.logp for turn in linear.turns]
    assert (grown.sampled, grown.pruned, grown.lost) == (linear.length, 0, 0)
    assert not engine._sessions


def test_branches_of_a_model_share_what_came_before_and_then_go_their_ways(make_policy, watch):
    policy = make_policy(context=512)
    engine, chat = HFEngine(policy), ChatFormat(policy.tokenizer)
    params = SamplingParams(6, stop_token_ids=chat.end_token_ids)
    grown = grow(Lookup(), "test", Episode(0, 0, 1000), engine, chat, params, watch, Growth(2, 4))
    paths = [[turn.action for turn in leaf.episode.turns] for leaf in grown.leaves]
    assert len(paths) == 4 and len({str(path[0]) for path in paths}) == 1
    assert len({str(path) for path in paths}) == 4
    assert grown.sampled == sum({str(path[: n + 1]): len(path[n]) for path in paths for n in range(3)}.values())


def test_a_full_binary_tree_of_depth_three_samples_seven_segments_and_not_twelve(watch, chat):
    engine = Scripted(lambda seed: f"word {seed}")
    grown = sought(Lookup(), engine, chat, watch, Growth(2, 4))
    assert len(grown.leaves) == 4 and grown.sampled == engine.generated == 7 * 4
    assert not engine.open_sessions
    assert sum(leaf.episode.length for leaf in grown.leaves) == 12 * 4


@pytest.mark.parametrize(("branches", "leaves"), [(3, 1), (3, 5), (8, 8), (1, 9), (2, 3)])
def test_there_are_never_more_paths_than_leaves_are_wanted(watch, chat, branches, leaves):
    engine = Scripted(lambda seed: f"word {seed}")
    growth = Growth(branches, leaves)
    grown = sought(Lookup(4), engine, chat, watch, growth)
    assert len(grown.leaves) == min(leaves, branches**3)
    assert grown.sampled <= sum(leaf.episode.length for leaf in grown.leaves)


def test_a_path_that_says_what_a_sibling_said_is_cut_and_one_is_left(watch, chat):
    grown = sought(Lookup(), Scripted(lambda _: "same"), chat, watch, Growth(3, 9))
    # Two of three siblings after the second turn are cut; at the last turn nothing is.
    assert (grown.pruned, len(grown.leaves), grown.lost) == (2, 3, 0)
    growth = Growth(3, 9, call=lambda text: text.split()[0])
    by_first = sought(Lookup(), Scripted(lambda seed: f"a {seed}"), chat, watch, growth)
    assert by_first.pruned == 0  # they were told different things


def test_a_path_that_fails_twice_alike_is_cut_but_not_the_last_one(watch, chat):
    seeds = iter(range(10**6))

    def some_fail(_: int) -> str:
        number = next(seeds)
        return "no!" if number in (0, 1) else f"word {number}"

    grown = sought(Lookup(4), Scripted(some_fail), chat, watch, Growth(2, 2))
    assert grown.pruned == 1 and all(said(leaf.episode)[1] != "no!" for leaf in grown.leaves)
    alone = sought(Lookup(4), Scripted(lambda _: "no!"), chat, watch, Growth(2, 4))
    assert len(alone.leaves) >= 1


def test_the_most_frequent_result_wins_and_the_likelier_one_of_equals():
    assert majority(["x", "x", "y"], [0.0, 0.0, 9.0]) == 0
    assert majority(["x", "y", "x"], [-2.0, 9.0, -1.0]) == 2
    assert majority(["x", "y"], [-2.0, -1.0]) == 1
    assert majority(["y", "x"], [-1.0, -1.0]) == 0
    with pytest.raises(ValueError, match="empty"):
        majority([], [])


def test_leaves_vote_by_their_answers_or_by_what_these_led_to(watch, chat):
    seeds = iter(["start", "a", "b", "c", "one !", "two !", "three"])
    engine = Scripted(lambda _: next(seeds), lambda text: -3.0 if "!" in text else -1.0)
    grown = sought(Lookup(), engine, chat, watch, Growth(3, 3))
    assert [said(leaf.episode)[-1] for leaf in grown.leaves] == ["one !", "two !", "three"]
    assert said(grown.chosen().episode)[-1] == "three"  # three answers, of which it is the likeliest
    assert said(grown.chosen(by_result).episode)[-1] == "one !"  # two of three came to an error
    assert grown.leaves[0].mean_logp == pytest.approx((-1 - 1 - 3) / 3)


def test_an_episode_that_ends_without_an_answer_is_lost(watch, chat):
    grown = grow(
        Lookup(99),
        "test",
        Episode(0, 0, 1000),
        Scripted(lambda s: f"w {s}"),
        chat,
        SamplingParams(6),
        watch,
        Growth(2, 2),
    )
    assert (grown.leaves, grown.lost, grown.chosen()) == ((), 2, None)


def test_growth_out_of_range_is_named():
    for name in ("branches", "leaves"):
        with pytest.raises(InputError, match=f"growth.{name} = 0"):
            Growth(**{name: 0})


# ---- self-correction ------------------------------------------------------------------------------------------------


def texts(*words: str) -> Callable[[int], str]:
    left = list(words)
    return lambda _: left.pop(0)


def test_a_failed_call_is_taken_back_and_its_error_never_read(watch, chat):
    engine = Scripted(texts("one", "no!", "two", "three"))
    got = play_corrected(Lookup(), "test", [Episode(0, 0, 1000)], engine, chat, SamplingParams(6), watch, back=0)
    [episode] = got.episodes
    assert said(episode) == ["one", "two", "three"] and episode.success
    assert [turn.observation.text for turn in episode.turns] == ["go 0", "told one", "told two"]
    assert (got.tries, got.sampled, engine.generated) == ((1,), 16, 16)
    assert not engine.open_sessions


def test_tokens_before_the_call_are_taken_back_too_and_never_more_than_there_are(watch, chat):
    engine = Scripted(texts("one", "no!", "uno", "dos", "tres"))
    got = play_corrected(Lookup(), "test", [Episode(0, 0, 1000)], engine, chat, SamplingParams(6), watch, back=1)
    # One token of the first turn is written again: 4 + 4, then 1 + 4 + 4.
    assert said(got.episodes[0]) == ["uno", "dos", "tres"] and got.sampled == 17
    whole = Scripted(texts("one", "no!", "uno", "dos", "tres"))
    got = play_corrected(Lookup(), "test", [Episode(0, 0, 1000)], whole, chat, SamplingParams(6), watch, back=100)
    assert said(got.episodes[0]) == ["uno", "dos", "tres"] and got.sampled == 20


def test_after_its_tries_an_episode_goes_on_with_the_error(watch, chat):
    engine = Scripted(texts("no!", "no!", "no!", "two", "three"))
    got = play_corrected(Lookup(), "test", [Episode(0, 0, 1000)], engine, chat, SamplingParams(6), watch, 0, tries=2)
    assert said(got.episodes[0]) == ["no!", "two", "three"] and got.tries == (2,)
    assert got.episodes[0].turns[1].observation.text == "error"


def test_a_failure_that_ended_the_episode_is_taken_back_and_others_go_on(watch, chat):
    engine = Scripted(texts("a", "b", "no!", "c", "d"))
    got = play_corrected(
        Lookup(2), "test", [Episode(0, 0, 1000), Episode(1, 0, 1001)], engine, chat, SamplingParams(6), watch, back=0
    )
    assert [said(episode) for episode in got.episodes] == [["a", "d"], ["b", "c"]]
    assert got.tries == (1, 0) and [episode.index for episode in got.episodes] == [0, 1]


def test_without_tries_it_is_the_plain_episode(make_policy, watch):
    policy = make_policy(context=512)
    engine, chat = HFEngine(policy), ChatFormat(policy.tokenizer)
    params = SamplingParams(6, stop_token_ids=chat.end_token_ids)
    plain = [Episode(n, 0, 1000 + n) for n in range(3)]
    play(Lookup(), "test", plain, engine, chat, params, watch)
    got = play_corrected(
        Lookup(), "test", [Episode(n, 0, 1000 + n) for n in range(3)], engine, chat, params, watch, tries=0
    )
    actions = [[turn.action for turn in episode.turns] for episode in got.episodes]
    assert actions == [[turn.action for turn in episode.turns] for episode in plain]
    assert got.sampled == sum(episode.length for episode in plain)


def test_numbers_below_zero_are_named(watch, chat):
    for name in ("back", "tries"):
        with pytest.raises(InputError, match=f"self-correction: {name} = -1"):
            play_corrected(Lookup(), "test", [], Scripted(str), chat, SamplingParams(6), watch, **{name: -1})
