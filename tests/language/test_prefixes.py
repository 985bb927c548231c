"""What several sequences begin with is computed once, and nothing that is sampled changes by it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stratagem.language.engine import Completion, Request
from stratagem.language.hf_engine import HFEngine
from stratagem.language.policy import LanguagePolicy
from stratagem.language.prefixes import LEAST, Known, common, rounds
from stratagem.language.sampling import SamplingParams


@given(st.lists(st.integers(0, 1), max_size=40), st.lists(st.integers(0, 1), max_size=40))
def test_common_tokens_are_counted_up_to_the_first_that_differs(first, second):
    differs = [a != b for a, b in zip(first, second, strict=False)]
    assert common(first, second) == (differs.index(True) if any(differs) else len(differs))


def computed(sequences: list[list[int]], known: Known | None = None) -> tuple[int, int]:
    """Tokens left to compute, and in how many rounds."""
    plan = list(rounds([(tuple(sequence), owner) for owner, sequence in enumerate(sequences)], known or Known()))
    steps = [*chain.from_iterable(plan)]
    assert sorted(step.owner for step in steps) == list(range(len(sequences)))
    done: dict[int, int] = {}
    for number, some in enumerate(plan):
        for step in some:
            if step.source is not None and step.source >= 0:
                assert done[step.source] < number
                assert sequences[step.source][: step.shared] == sequences[step.owner][: step.shared]
            assert 0 <= step.shared < len(sequences[step.owner])
        done |= {step.owner: number for step in some}
    return sum(len(sequences[step.owner]) - step.shared for step in steps), len(plan)


def test_forks_of_one_sequence_and_of_one_another_are_read_once():
    trunk = list(range(100, 200))
    # The longest is read first, then what the others add: places 40 and 80 of the trunk, the latter with a fork in it.
    side = [*trunk[:80], *range(30)]
    assert computed([trunk, [*trunk[:40], 1, 2], side, [*side[:100], 7]]) == (110 + 20 + 2 + 1, 2)
    assert computed([[*side, 5], [*side, 6], trunk]) == (111 + 1 + 20, 2)
    # Different from the first token on, or in common less than is worth it.
    assert computed([trunk, trunk[1:]]) == (199, 1)
    assert computed([trunk, [*trunk[: LEAST - 1], *range(50)]]) == (100 + LEAST + 49, 1)


@given(st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=4), min_size=1, max_size=7))
def test_every_token_of_a_tree_is_computed_once(paths):
    # Every step of a path is a run of tokens, so that all that is in common is worth sharing.
    sequences = [
        list(run) for run in {tuple(chain.from_iterable([step] * (LEAST + 1) for step in path)) for path in paths}
    ]
    nodes = {tuple(sequence[:end]) for sequence in sequences for end in range(1, len(sequence) + 1)}
    again = sum(
        any(other[: len(sequence)] == sequence and other != sequence for other in sequences) for sequence in sequences
    )
    total, depth = computed(sequences)
    # The last token of a sequence that another one goes on from is read twice, for what comes next.
    assert total == len(nodes) + again and depth <= len(sequences)


def test_what_is_known_is_taken_over_but_for_the_last_token():
    known = Known()
    known.add(tuple(range(50)), -1)
    assert computed([list(range(50)), list(range(60))], known)[0] == 1 + 10


@pytest.fixture
def build(make_model: Any, tokenizer: Any) -> Callable[..., tuple[LanguagePolicy, HFEngine]]:
    def build(**options: Any) -> tuple[LanguagePolicy, HFEngine]:
        policy = LanguagePolicy(make_model("qwen3"), tokenizer, dtype="float32")
        return policy, HFEngine(policy, **options)

    return build


def said(engine: HFEngine, sessions: list[int], new: list[list[int]], most: int = 6) -> list[Completion]:
    params = SamplingParams(max_new_tokens=most)
    return engine.generate(
        [Request(s, tokens, 7 + n, params) for n, (s, tokens) in enumerate(zip(sessions, new, strict=True))]
    )


def text(length: int, seed: int) -> list[int]:
    return torch.randint(2, 320, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def same(first: list[Completion], second: list[Completion]) -> bool:
    close = all(a.logp == pytest.approx(b.logp, abs=1e-4) for a, b in zip(first, second, strict=True))
    return close and [one.tokens for one in first] == [one.tokens for one in second]


def test_branches_read_what_is_new_in_them_and_sample_what_they_would_alone(build):
    _, engine = build()
    root = engine.open(1)
    begin = text(40, 0)
    first = said(engine, root, [begin])[0]
    assert engine.prefilled == 40
    # Two branches at one place, one in the middle of what the root said, one of a branch, and a stranger.
    whole = [*begin, *first.tokens]
    new = [whole[:44], whole[:44], [*begin[:30], *text(20, 1)], [*begin[:30], *text(20, 1)[:18], 5, 6], text(12, 2)]
    got = said(engine, engine.open(5), new)
    assert engine.prefilled - 40 == 1 + 20 + 2 + 12
    assert engine.taken_over == 43 + 44 + 30 + 48
    assert same(got, [*chain.from_iterable(_alone(build, n, tokens) for n, tokens in enumerate(new))])


def _alone(build: Any, number: int, tokens: list[int]) -> list[Completion]:
    _, engine = build()
    return engine.generate([Request(engine.open(1)[0], tokens, 7 + number, SamplingParams(6))])


def test_new_sessions_share_beside_one_that_goes_on(build):
    _, engine = build()
    old = engine.open(1)
    first = said(engine, old, [text(10, 3)])[0]
    begin = text(50, 4)
    new = engine.open(2)
    got = said(engine, [*old, *new], [[8, 9], [*begin, 1], [*begin, 2]])
    # The token sampled last has not been read before.
    assert engine.prefilled == 10 + 3 + 51 + 1
    _, other = build()
    session = other.open(1)
    again = other.generate([Request(session[0], [*text(10, 3), *first.tokens, 8, 9], 7, SamplingParams(6))])
    assert same(got, [*again, *_alone(build, 1, [*begin, 1]), *_alone(build, 2, [*begin, 2])])


def test_closed_sessions_are_taken_over_only_while_they_are_kept(build):
    policy, engine = build(max_sessions=4)
    begin = text(40, 5)

    def reads() -> int:
        before = engine.prefilled
        session = engine.open(1)
        said(engine, session, [[*begin, 1]])
        engine.close(session)
        return engine.prefilled - before

    assert reads() == 41 and reads() == 41
    with engine.keeping(1):
        assert reads() == 41 and reads() == 1
        engine.load_weights(policy, 2)
        assert reads() == 41 and reads() == 1
        # Whoever is open comes first.
        engine.close(engine.open(4))
        assert reads() == 41
    assert reads() == 41
    assert engine._cache.rows == 0
