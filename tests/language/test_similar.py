"""Clusters of similar texts: exactly those of comparing each text with every first member."""

from __future__ import annotations

import random
from difflib import SequenceMatcher
from functools import cache
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stratagem.language import similar
from stratagem.language.similar import first_similar, similarity


def slow_similarity(text: str, other: str) -> float:
    @cache
    def common(i: int, j: int) -> int:
        if i == 0 or j == 0:
            return 0
        if text[i - 1] == other[j - 1]:
            return common(i - 1, j - 1) + 1
        return max(common(i - 1, j), common(i, j - 1))

    total = len(text) + len(other)
    return 2 * common(len(text), len(other)) / total if total else 1.0


def by_brute_force(texts: list[str], ratio: float) -> list[int]:
    members: list[int] = []
    found = []
    for place, text in enumerate(texts):
        like = (m for m in members if similarity(text, texts[m]) >= ratio)
        found.append(next(like, place))
        if found[-1] == place:
            members.append(place)
    return found


@given(st.text("abcd ", max_size=14), st.text("abcd ", max_size=14))
def test_similarity_is_by_the_longest_common_subsequence(text, other):
    assert similarity(text, other) == similarity(other, text) == slow_similarity(text, other)
    assert similarity(text, other) >= SequenceMatcher(None, text, other).ratio()


def test_a_long_text_is_similar_to_itself_with_one_character_more():
    """``difflib`` passes over characters that are frequent in 200 or more, here all of them."""
    text = 10 * "abcdefghijklmnopqrstuvwxyz"
    assert similarity("#" + text, text) == 520 / 521
    assert SequenceMatcher(None, "#" + text, text).ratio() == 0


def test_a_text_joins_the_first_cluster_whose_first_member_it_resembles():
    # Each is one letter off the one before: ratio 0.9 to the neighbour, 0.8 two further.
    chain = ["aaaaaaaaaa", "aaaaaaaaab", "aaaaaaaabb", "aaaaaaaaab"]
    assert first_similar(chain, 0.9) == [0, 0, 2, 0]
    assert first_similar(chain, 0.8) == [0, 0, 0, 0]
    assert first_similar(chain, 1.0) == [0, 1, 2, 1]
    # The third is as near to the second, which came earlier, as to none before; clusters do not chain.
    assert first_similar(["aaaaaaaaaa", "aaaaaaaabb", "aaaaaaaaab"], 0.9) == [0, 1, 0]


def test_texts_without_letters():
    assert first_similar([], 0.9) == []
    assert first_similar(["", "a", "", "\ud800"], 0.9) == [0, 1, 0, 3]


@given(st.lists(st.text("ab \n", max_size=12), max_size=12), st.sampled_from([0.3, 0.5, 0.66, 0.8, 0.9, 0.95, 1.0]))
def test_it_is_what_brute_force_finds(texts, ratio):
    assert first_similar(texts, ratio) == by_brute_force(texts, ratio)


def rooms(count: int, seed: int = 0) -> list[str]:
    """Longer texts of one kind: things in a room, some named differently, some missing, in 250 characters or so."""
    source = random.Random(seed)
    things = [f"a {word} {number}" for word in ("desk", "drawer", "shelf", "bed", "safe") for number in range(6)]
    texts = []
    for _ in range(count):
        seen = things[: source.randint(15, 30)]
        for _ in range(source.randint(0, 4)):
            seen[source.randrange(len(seen))] = source.choice(things)
        texts.append("You are in a room. Looking around you, you see " + ", ".join(seen) + ".")
    return texts


@pytest.mark.parametrize("ratio", [0.8, 0.95])
def test_it_is_what_brute_force_finds_in_longer_texts(ratio):
    texts = rooms(60)
    found = first_similar(texts, ratio)
    assert found == by_brute_force(texts, ratio)
    assert 1 < len(set(found)) < 60


def test_few_of_all_pairs_are_compared():
    source = random.Random(1)
    words = ["".join(source.choices("abcdefghijklmnopqrstuvwxyz", k=6)) for _ in range(400)]
    texts = [" ".join(source.choices(words, k=30)) for _ in range(200)]
    texts += [text.replace(" ", "  ", 1) for text in texts]
    with mock.patch.object(similar, "_common", wraps=similar._common) as compared:
        assert first_similar(texts, 0.95) == [*range(200), *range(200)]
    assert compared.call_count < 400, "of 60,000 pairs"
