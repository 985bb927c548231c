"""Memory in layers, and what of it fits into a prompt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stratagem.blueprint import ContextItem, Event, Insight, LayeredMemory, count_pieces, prune
from stratagem.blueprint.schema import MemorySpec
from stratagem.errors import InputError

ANGLES = {"east": 0.0, "nearly east": 0.3, "north east": math.pi / 4, "north": math.pi / 2, "west": math.pi}


def compass(texts: Sequence[str]) -> torch.Tensor:
    """Texts as directions: cosines of their angles are known."""
    angles = torch.tensor([ANGLES[text] for text in texts])
    return torch.stack([angles.cos(), angles.sin()], 1)


def memory(**fields: object) -> LayeredMemory:
    return LayeredMemory(MemorySpec.model_validate(fields), embedding=compass)


# ---- insights -------------------------------------------------------------------------------------------------------


def test_an_insight_as_alike_as_nine_tenths_is_merged_and_others_are_inserted():
    layers = memory()
    first = layers.insert(Insight("east", 0.4, (1,)))
    assert layers.insert(Insight("nearly east", 0.7, (2, 1))) is first  # cos 0.3 = 0.955
    assert (first.utility, layers.sources[first.number]) == (0.7, (1, 2))
    layers.insert(Insight("north east", 0.5))  # cos 45 degrees = 0.707
    assert layers.insights.intents == ("east", "north east")


def test_weights_decay_with_the_events_that_pass():
    layers = memory(decay=10.0)
    item = layers.insert(Insight("east", 0.8))
    for _ in range(5):
        layers.note("north")
    assert layers.retrieve("east")[0].weight == pytest.approx(0.8 * math.exp(-0.5))
    layers.consolidate()
    assert item.utility == pytest.approx(0.8 * math.exp(-0.5))
    layers.consolidate()
    assert item.utility == pytest.approx(0.8 * math.exp(-0.5))


def test_the_insight_of_smallest_weight_is_evicted_the_oldest_of_equals():
    layers = memory(insights=2)
    for text, weight in (("east", 0.5), ("north", 0.5), ("west", 0.9)):
        layers.insert(Insight(text, weight))
    assert layers.insights.intents == ("north", "west")
    assert layers.sources.keys() == layers.insights.items.keys()


def test_retrieval_scores_weight_times_similarity_times_recency():
    layers = memory(decay=1e9, recency=4.0)
    layers.insert(Insight("north east", 1.0))
    layers.note("west")
    layers.insert(Insight("east", 0.5))
    found = layers.retrieve("east")
    assert [one.text for one in found] == ["north east", "east"]
    assert found[0].score == pytest.approx(math.cos(math.pi / 4) * math.exp(-0.25), rel=1e-5)
    assert found[1].score == pytest.approx(0.5)
    assert [one.text for one in layers.retrieve("west")] == []
    assert len(layers.retrieve("east", 1)) == 1


@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan, math.inf])
def test_an_insight_without_a_weight_is_refused(weight: float):
    with pytest.raises(InputError, match="finite and above 0"):
        memory().insert(Insight("east", weight))


# ---- events ---------------------------------------------------------------------------------------------------------


def test_every_event_is_reflected_on_once_before_it_leaves_the_ring():
    seen: list[int] = []

    def reflector(events: Sequence[Event]) -> list[Insight]:
        seen.extend(event.number for event in events)
        return []

    layers = LayeredMemory(MemorySpec(events=3), reflector)
    for number in range(8):
        layers.note(f"event {number}")
        assert {event.number for event in layers.events} >= set(range(number + 1)) - set(seen)
    episode = layers.end_episode("goal", "finished")
    assert seen == list(range(8))
    assert [event.number for event in layers.events] == [5, 6, 7]
    assert [event.number for event in episode.events] == list(range(8))
    assert layers.end_episode("next", "finished").events == ()


def test_the_default_reflector_keeps_what_was_important():
    layers = memory()
    layers.note("east", 1.0)
    layers.note("north", 0.2)
    layers.end_episode("goal", "finished")
    assert layers.insights.intents == ("east",)
    assert layers.retrieve("east")[0].sources == (0,)


def test_a_reflector_that_fails_is_counted_and_no_event_is_lost():
    def broken(events: Sequence[Event]) -> list[Insight]:
        raise RuntimeError

    layers = LayeredMemory(MemorySpec(events=2), broken)
    for number in range(3):
        layers.note(str(number))
    assert len(layers.end_episode("goal", "end").events) == 3 and layers.faults == 2


def test_importance_is_a_share():
    with pytest.raises(InputError, match=r"must be in \[0, 1\]"):
        memory().note("east", 2.0)


def test_a_memory_comes_back_from_its_folder(tmp_path: Path):
    layers = memory(decay=5.0)
    layers.insert(Insight("east", 0.9, (7,)))
    layers.note("north", 1.0)
    layers.end_episode("goal", "finished")
    layers.note("west")
    layers.save(tmp_path / "memory")
    again = memory(decay=5.0)
    again.load(tmp_path / "memory")
    assert again.retrieve("north east") == layers.retrieve("north east") != []
    assert (list(again.events), list(again.episodes)) == (list(layers.events), list(layers.episodes))
    layers.save(tmp_path / "memory")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(InputError, match="holds no memory"):
        layers.save(tmp_path / "other")
    with pytest.raises(InputError):
        again.load(tmp_path / "other")


# ---- what fits into a prompt ----------------------------------------------------------------------------------------

ITEMS = st.lists(
    st.builds(
        ContextItem,
        st.just("text"),
        st.integers(0, 20),
        st.floats(-1, 10),
        st.booleans(),
    ),
    max_size=8,
)


@given(ITEMS, st.integers(0, 60), st.sampled_from(["greedy", "knapsack"]))
def test_pruning_never_exceeds_the_budget_and_pinned_items_stay(items: list[ContextItem], budget: int, method):
    pinned = [item for item in items if item.pinned]
    if sum(item.tokens for item in pinned) > budget:
        with pytest.raises(InputError, match="pinned items take"):
            prune(items, budget, method)
        return
    kept = prune(items, budget, method)
    assert sum(item.tokens for item in kept) <= budget
    assert [item for item in kept if item.pinned] == pinned
    places = [next(n for n, item in enumerate(items) if item is one) for one in kept]
    assert places == sorted(places)


@given(ITEMS, st.integers(0, 60))
def test_the_knapsack_is_the_best_selection_there_is(items: list[ContextItem], budget: int):
    free = [ContextItem(item.text, item.tokens, item.score) for item in items]
    best = 0.0
    for chosen in range(2 ** len(free)):
        some = [item for place, item in enumerate(free) if chosen >> place & 1]
        if sum(item.tokens for item in some) <= budget:
            best = max(best, sum(item.score for item in some))
    assert sum(item.score for item in prune(free, budget, "knapsack")) == pytest.approx(best)


def test_greedy_goes_by_score_per_token_and_knapsack_by_the_total():
    items = [ContextItem("small", 1, 2.0), ContextItem("large", 10, 10.0)]
    assert [item.text for item in prune(items, 10)] == ["small"]
    assert [item.text for item in prune(items, 10, "knapsack")] == ["large"]


@pytest.mark.parametrize("item", [ContextItem("", -1), ContextItem("", 1, math.nan)])
def test_an_item_that_is_none_is_refused(item: ContextItem):
    with pytest.raises(InputError):
        prune([item], 10)


def test_pieces_are_parts_of_words_and_signs():
    assert count_pieces("") == 0
    assert count_pieces("a, extraordinary!") == 1 + 1 + 3 + 1
