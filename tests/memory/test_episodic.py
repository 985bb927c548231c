"""Episodic memory: retrieval in two phases, utilities worked by hand, what is written, and what never changes."""

from __future__ import annotations

import doctest
import math
from collections.abc import Mapping, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stratagem import catalogue
from stratagem.errors import InputError
from stratagem.memory import Attempt, Embedding, EpisodicMemory, Store, episodic

AT = {"query": 1.0, "A": 0.9, "B": 0.8, "C": 0.3}
"""Texts, and the cosine of each with the query."""


def plane(cosines: Mapping[str, float]) -> Embedding:
    """An embedding in which these texts have these cosines with (1, 0), the first axis."""

    def embed(texts: Sequence[str], /) -> Tensor:
        return torch.tensor([[cosines[text], math.sqrt(1 - cosines[text] ** 2)] for text in texts])

    return embed


def store_of(utilities: Mapping[str, float], cosines: Mapping[str, float] = AT) -> Store:
    """An experience of the intent's name under each intent."""
    store = Store(plane(cosines))
    for intent, utility in utilities.items():
        store.add(intent, intent.lower(), utility)
    return store


def everything(store: Store) -> tuple[object, ...]:
    return ({n: vars(item).copy() for n, item in store.items.items()}, store.intents, store.embeddings.tolist())


# ---- utilities ------------------------------------------------------------------------------------------------------


def utility_after(memory: EpisodicMemory, rewards: Sequence[float]) -> float:
    store = store_of({"A": memory.initial_utility})
    for reward in rewards:
        memory.reinforce(store, [0], reward)
    return store.items[0].utility


def test_the_utility_moves_a_share_of_the_way_to_each_reward():
    memory = EpisodicMemory(alpha=0.3)
    assert utility_after(memory, [1]) == pytest.approx(0.3)
    assert utility_after(memory, [1, 1]) == pytest.approx(0.51)
    assert utility_after(memory, [1, 1, -1]) == pytest.approx(0.057)
    assert utility_after(memory, [1] * 5) == pytest.approx(1 - 0.7**5) == pytest.approx(0.83193)


@given(st.integers(0, 30), st.floats(-1, 1), st.floats(0, 1), st.floats(-1, 1))
@settings(max_examples=50, deadline=None)
def test_under_a_constant_reward_the_utility_is_what_is_expected_of_it(moves, reward, alpha, start):
    memory = EpisodicMemory(alpha=alpha, initial_utility=start)
    assert utility_after(memory, [reward] * moves) == pytest.approx(memory.expected_utility(moves, reward), abs=1e-9)


def test_in_the_long_run_mean_and_variance_are_those_of_the_formulas():
    memory = EpisodicMemory(alpha=0.3)
    assert memory.limit_variance(0.64) == pytest.approx(0.112941, abs=1e-6)
    store = store_of({"A": 0.0})
    rewards = torch.where(torch.rand(50_000, generator=torch.Generator().manual_seed(3)) < 0.8, 1.0, -1.0).tolist()
    seen = []
    for reward in rewards:
        memory.reinforce(store, [0], reward)
        seen.append(store.items[0].utility)
    late = torch.tensor(seen[100:], dtype=torch.float64)
    assert float(late.mean()) == pytest.approx(0.6, abs=0.02)
    assert float(late.var()) == pytest.approx(0.112941, abs=0.006)


def test_visits_reward_average_and_clock_are_kept_beside_the_utility():
    memory, store = EpisodicMemory(alpha=0.3, threshold=0.85), store_of({"A": 0.5, "B": 0.5})
    list(memory.play(store, ["query", "query"], lambda task, shown: 1.0))
    item = store.items[0]
    assert (item.visits, item.written, item.used, store.clock) == (2, 0, 1, 2)
    assert item.reward_average == pytest.approx(0.51) and item.utility == pytest.approx(0.49 * 0.5 + 0.51)


def test_a_following_task_counts_its_best_utility_times_the_discount():
    memory, store = EpisodicMemory(alpha=0.5, discount=0.5), store_of({"A": 0.0, "B": 0.8})
    following = memory.retrieve(store, "query")
    assert following.best_utility == 0.8
    memory.reinforce(store, [0], 1.0, following.best_utility)
    assert store.items[0].utility == pytest.approx(0.5 * (1 + 0.5 * 0.8))
    assert store.items[0].reward_average == pytest.approx(0.5)


def test_a_floor_holds_for_what_is_learned_and_for_what_is_ranked():
    memory, store = EpisodicMemory(floor=0.0, selected=1, ranking="utility"), store_of({"A": -1.0, "B": -0.5})
    # Both count 0, and the more similar goes first.
    assert memory.retrieve(store, "query").experiences == ("a",)
    memory.reinforce(store, [1], -1.0)
    assert [item.utility for item in store.items.values()] == [-1.0, 0.0]


@given(st.lists(st.sampled_from([-1.0, 1.0]), max_size=8))
@settings(max_examples=25, deadline=None)
def test_an_experience_that_was_not_shown_never_changes(rewards):
    store = store_of({"A": 0.2, "B": -0.2, "C": 0.9})
    before = everything(store)[0]
    list(EpisodicMemory(selected=1).play(store, ["query"] * len(rewards), lambda task, shown: rewards.pop()))
    assert vars(store.items[2]) == before[2]


def test_an_experience_shown_for_several_tasks_of_a_batch_moves_in_their_order():
    memory, store, outcomes = EpisodicMemory(), store_of({"A": 0.0}), [1.0, 1.0, -1.0]
    found = list(memory.play(store, ["query"] * 3, lambda task, shown: outcomes.pop(0), batch_size=3))
    assert store.items[0].utility == pytest.approx(0.057)
    # All were retrieved before the first was solved.
    assert [solved.retrieval.selected[0].utility for solved in found] == [0.0] * 3


# ---- retrieval ------------------------------------------------------------------------------------------------------

DISTANT = {"A": -1.0, "B": 1.0, "C": 5.0}


def test_relevance_comes_first_however_large_a_utility_is():
    memory = EpisodicMemory(threshold=0.5, selected=1, ranking="utility")
    found = memory.retrieve(store_of(DISTANT), "query")
    assert found.experiences == ("b",) and {one.experience for one in found.candidates} == {"a", "b"}
    by_similarity = EpisodicMemory(threshold=0.5, selected=1, utility_weight=0.0)
    assert by_similarity.retrieve(store_of(DISTANT), "query").experiences == ("a",)
    shown = EpisodicMemory(threshold=0.5, selected=3).retrieve(store_of(DISTANT), "query").experiences
    assert sorted(shown) == ["a", "b"]


def test_the_mixture_worked_by_hand():
    memory = EpisodicMemory(similarity_mean=0.3, similarity_std=0.1, threshold=-1)
    # Similarities of 0.3 and 0.4 are 0 and 1 deviations off; utilities of 1 and -1 are 1 and -1.
    scores = memory.scores(
        torch.tensor([0.3, 0.4], dtype=torch.float64), torch.tensor([1.0, -1.0], dtype=torch.float64)
    )
    assert scores.tolist() == pytest.approx([0.5, 0.0])
    store = store_of({"first": 1.0, "second": -1.0}, {"query": 1.0, "first": 0.3, "second": 0.4})
    assert memory.retrieve(store, "query").experiences == ("first", "second")


def test_standardised_utilities_are_clipped_and_equal_ones_count_nothing():
    memory = EpisodicMemory(similarity_weight=0.0, utility_weight=1.0)
    many = torch.tensor([100.0] + [0.0] * 99).double()
    assert float(memory.scores(many * 0, many)[0]) == 3.0
    assert memory.scores(torch.zeros(3).double(), torch.full((3,), 0.7).double()).tolist() == [0.0] * 3
    assert memory.scores(torch.zeros(1).double(), torch.full((1,), 0.7).double()).tolist() == [0.0]


def test_ties_go_to_the_more_similar_and_then_to_the_older():
    same = {"query": 1.0, "far": 0.5, "near": 0.6, "later": 0.6}
    memory = EpisodicMemory(ranking="utility", nearest=3)
    assert memory.retrieve(store_of(dict.fromkeys(["far", "near", "later"], 0.0), same), "query").experiences == (
        "near",
        "later",
        "far",
    )


def test_the_first_phase_takes_the_nearest_intents_with_all_their_experiences():
    store = store_of({"B": 0.0, "A": 0.0})
    store.add("A", "more of a", 0.4)
    memory = EpisodicMemory(nearest=1)
    assert memory.retrieve(store, "query").experiences == ("more of a", "a")


def test_of_experiences_that_say_the_same_the_most_visited_stands_for_all():
    store = Store(plane(AT))
    first, second = store.add("A", "same", 0.0), store.add("B", "same", 0.0)
    memory = EpisodicMemory()
    assert memory.retrieve(store, "query").numbers == (first.number,)
    memory.reinforce(store, [second.number], 1.0)
    assert memory.retrieve(store, "query").numbers == (second.number,)


def test_an_empty_memory_and_one_without_anything_near_show_nothing_and_learn_nothing():
    memory = EpisodicMemory(threshold=0.95)
    assert memory.retrieve(Store(), "anything").experiences == ()
    store = store_of({"A": 0.1, "B": 0.2})
    before = everything(store)
    (solved,) = memory.play(store, ["query"], lambda task, shown: float(len(shown)))
    assert solved.retrieval.candidates == () and solved.attempt.reward == 0.0 and everything(store) == before


def test_a_similarity_that_is_no_number_excludes():
    store = store_of({"A": 0.1})
    store.embedding = lambda texts: torch.full((len(texts), 2), math.nan)
    assert EpisodicMemory(threshold=-1).retrieve(store, "query").candidates == ()
    store.embedding = lambda texts: torch.full((len(texts), 2), math.inf)
    assert EpisodicMemory(threshold=-1).retrieve(store, "query").candidates == ()


def test_candidates_below_the_least_utility_are_not_shown():
    found = EpisodicMemory(least_utility=0.0).retrieve(store_of({"A": -0.1, "B": 0.0}), "query")
    assert found.experiences == ("b",)


def test_exploration_draws_as_often_as_it_says_and_the_same_again():
    def runs() -> list[tuple[str, ...]]:
        memory, store = EpisodicMemory(epsilon=0.5, selected=1, ranking="utility", seed=4), store_of({"A": 1.0, "B": 0})
        return [memory.retrieve(store, "query").experiences for _ in range(400)]

    shown = runs()
    assert shown == runs()
    # Half of the random half.
    assert shown.count(("b",)) / 400 == pytest.approx(0.25, abs=0.06)
    always = EpisodicMemory(epsilon=1.0, selected=1, ranking="utility")
    store = store_of({"A": 1.0, "B": 0})
    assert {always.retrieve(store, "query", explore=False).experiences for _ in range(20)} == {("a",)}
    assert store.draws == 0 and always.retrieve(store, "query").explored and store.draws == 1


def test_without_weight_on_utility_and_without_steps_it_is_plain_retrieval():
    memory, store = EpisodicMemory(utility_weight=0.0, alpha=0.0), store_of({"B": 0.3, "A": -0.3})
    solved = list(memory.play(store, ["query"] * 5, lambda task, shown: -1.0))
    assert {one.retrieval.experiences for one in solved} == {("a", "b")}
    assert [item.utility for item in store.items.values()] == [0.3, -0.3]


def test_calibration_takes_the_spread_of_similarities_between_intents():
    vectors = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [1.0, 1.0, 0.0]])
    store = Store(lambda texts: vectors[[int(text) for text in texts]])
    for number in range(3):
        store.add(str(number), "", 0.0)
    cosines = torch.tensor([0.0, 0.5**0.5, 0.5**0.5])
    memory = EpisodicMemory().calibrated(store)
    assert memory.similarity_mean == pytest.approx(float(cosines.mean()))
    assert memory.similarity_std == pytest.approx(float(cosines.std(correction=0)))
    store.remove(0)
    with pytest.raises(InputError, match="at least three intents, the store has 2"):
        memory.calibrated(store)


# ---- writing --------------------------------------------------------------------------------------------------------

NEAR = {"old": 1.0, "near": 0.95, "far": 0.6}


def test_a_near_task_joins_the_intent_and_a_far_one_founds_its_own():
    memory, store = EpisodicMemory(initial_utility=0.25), Store(plane(NEAR))
    for intent, experience in (("old", "x"), ("near", "y"), ("far", "z"), ("near", "y")):
        memory.write(store, intent, experience)
    assert [(item.intent, item.experience, item.utility) for item in store.items.values()] == [
        ("old", "x", 0.25),
        ("old", "y", 0.25),
        ("far", "z", 0.25),
    ]


def test_what_is_known_word_for_word_keeps_its_visits_and_its_utility():
    memory, store = EpisodicMemory(), Store(plane(NEAR))
    item = memory.write(store, "old", "x")
    memory.reinforce(store, [0], 1.0)
    assert memory.write(store, "near", "x") is item and len(store) == 1 and item.visits == 1


def test_merging_writes_nothing_and_may_pass_on_some_of_the_reward():
    store = Store(plane(NEAR))
    merge = EpisodicMemory(near="merge")
    merge.write(store, "old", "x")
    before = everything(store)
    assert merge.write(store, "near", "y", reward=1.0) is None and everything(store) == before
    assert merge.replace(merge_gain=0.1).write(store, "near", "y", reward=1.0) is None
    assert store.items[0].utility == pytest.approx(0.3 * 0.1) and store.items[0].visits == 1 and len(store) == 1


def test_beyond_capacity_the_worst_of_those_tried_is_forgotten():
    memory = EpisodicMemory(capacity=3, evict_after=2)
    store = store_of({"A": 0.0, "B": -5.0, "C": 0.1})
    for number, times in ((0, 2), (1, 1), (2, 2)):
        for _ in range(times):
            memory.reinforce(store, [number], 0.0)
    store.embedding = plane({**AT, "D": -0.5, "E": -0.9})
    memory.write(store, "D", "d")
    assert sorted(item.experience for item in store.items.values()) == ["b", "c", "d"]
    assert store.intents == ("B", "C", "D")
    torch.testing.assert_close(store.embeddings, plane({"B": 0.8, "C": 0.3, "D": -0.5})(["B", "C", "D"]))
    # One evicted in the meantime is passed over.
    memory.reinforce(store, [0, 2], 1.0)
    assert store.items[2].visits == 3


def test_where_none_was_tried_the_newest_stays():
    memory, store = EpisodicMemory(capacity=1), Store(plane(AT))
    memory.write(store, "A", "a")
    memory.write(store, "C", "c")
    assert [item.experience for item in store.items.values()] == ["c"] and store.intents == ("C",)


def test_a_write_that_fails_loses_no_utility():
    memory, store = EpisodicMemory(), store_of({"A": 0.0})
    store.embedding = spoiled_after(store.embedding, 1)
    with pytest.raises(InputError, match="'query' has a number that is not finite"):
        list(memory.play(store, ["query"], lambda task, shown: Attempt(1.0, "new")))
    assert store.items[0].utility == pytest.approx(0.3) and len(store) == 1 and store.intents == ("A",)


def spoiled_after(embed: Embedding, calls: int) -> Embedding:
    """The embedding for so many calls, and NaN after them."""
    made: list[Sequence[str]] = []

    def spoiled(texts: Sequence[str], /) -> Tensor:
        made.append(texts)
        return embed(texts) if len(made) <= calls else torch.full((len(texts), 2), math.nan)

    return spoiled


# ---- a stream -------------------------------------------------------------------------------------------------------


def test_a_stream_learns_which_of_two_like_experiences_helps():
    like = {"query": 1.0, "bad": 0.9, "good": 0.88}
    store = store_of({"bad": 0.0, "good": 0.0}, like)
    memory = EpisodicMemory(selected=1)
    solve = lambda task, shown: 1.0 if shown == ("good",) else -1.0  # noqa: E731
    rewards = [solved.attempt.reward for solved in memory.play(store, ["query"] * 10, solve)]
    assert rewards == [-1.0] + [1.0] * 9
    plain = list(memory.replace(utility_weight=0.0).play(store_of({"bad": 0, "good": 0}, like), ["query"] * 10, solve))
    assert [solved.attempt.reward for solved in plain] == [-1.0] * 10


def test_measuring_changes_nothing():
    store = store_of({"A": 0.1, "B": 0.2})
    before = everything(store), store.clock, store.draws
    list(EpisodicMemory(epsilon=1.0).play(store, ["query"] * 3, lambda task, shown: Attempt(1.0, "new"), learn=False))
    assert (everything(store), store.clock, store.draws) == before


def test_an_attempt_that_says_nothing_teaches_nothing():
    store = store_of({"A": 0.1})
    before = everything(store)
    list(EpisodicMemory().play(store, ["query"], lambda task, shown: Attempt(None, "new")))
    assert everything(store) == before and store.clock == 0


def test_the_example_in_the_docstring_runs():
    assert doctest.testmod(episodic) == (0, 6)


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"alpha": 1.1}, "episodic_memory.alpha = 1.1"),
        ({"alpha": math.nan}, "episodic_memory.alpha = nan"),
        ({"threshold": -1.5}, "episodic_memory.threshold"),
        ({"nearest": 0}, "episodic_memory.nearest = 0"),
        ({"selected": 0}, "episodic_memory.selected = 0"),
        ({"epsilon": 2}, "episodic_memory.epsilon"),
        ({"similarity_std": 0}, "episodic_memory.similarity_std"),
        ({"ranking": "random"}, "episodic_memory.ranking"),
        ({"floor": math.inf}, "episodic_memory.floor = inf: must be finite"),
        ({"utility_weight": -1}, "episodic_memory.utility_weight"),
        ({"merge_gain": 0.1}, "is for near = 'merge'"),
        ({"capacity": 0}, "episodic_memory.capacity"),
    ],
)
def test_settings_out_of_range_are_named(values, message):
    with pytest.raises(InputError, match=message):
        EpisodicMemory(**values)


def test_a_reward_that_is_not_finite_and_a_number_that_never_was_change_nothing():
    memory, store = EpisodicMemory(), store_of({"A": 0.1})
    before = everything(store)
    with pytest.raises(InputError, match="reward = nan"):
        memory.reinforce(store, [0], math.nan)
    with pytest.raises(InputError, match="no experience was ever numbered 7; there were 1"):
        memory.reinforce(store, [0, 7], 1.0)
    with pytest.raises(InputError, match="reward = inf"):
        memory.write(store, "B", "b", math.inf)
    with pytest.raises(InputError, match="batch_size = 0"):
        memory.play(store, [], lambda task, shown: 0.0, batch_size=0)
    assert everything(store) == before


def test_it_is_in_the_catalogue():
    card = catalogue.card("memrl")
    assert card.build is EpisodicMemory and card.family == "agents" and card.arxiv == "2601.03192"
