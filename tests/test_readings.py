"""Parts that read text: who is asked how often, and what of it stays in a batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from stratagem.advantages import WinRate
from stratagem.experience import Experience
from stratagem.parts import Preference, Reward
from stratagem.preferences import BradleyTerry, Population, SingleVote
from stratagem.readings import (
    Known,
    Pair,
    ReadsAnswers,
    ReadsPairs,
    Scored,
    Texts,
    reading_of,
    text_readers,
    with_readings,
)
from stratagem.training.batch_storage import pack, unpack

ASKED: list[Pair] = []


@dataclass(frozen=True)
class _Longer(ReadsPairs, Preference):
    """Prefers the longer answer, and knows nothing of those with a question mark."""

    surely: float = 1.0

    def compare(self, pairs: Sequence[Pair]) -> list[float]:
        ASKED.extend(pairs)
        return [math.nan if "?" in p.first + p.second else self._likely(p) for p in pairs]

    def _likely(self, pair: Pair) -> float:
        longer = (len(pair.first) > len(pair.second)) - (len(pair.first) < len(pair.second))
        return 0.5 + 0.5 * self.surely * longer

    def __call__(self, x: Experience, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return self.compared(x, first, second)


@dataclass(frozen=True)
class _Length(ReadsAnswers, Reward):
    def score(self, answers: Sequence[Scored]) -> list[float]:
        return [math.nan if "?" in one.answer else float(len(one.answer)) for one in answers]

    def __call__(self, x: Experience) -> Experience:
        return x.replace(reward=self.scored(x))


def batch(sizes: Sequence[int]) -> Experience:
    ones = [1] * sum(sizes)
    return Experience.from_lengths(
        ones,
        ones,
        sizes,
        reward=torch.zeros(sum(sizes)),
        seed=torch.arange(sum(sizes)),
        old_logp=torch.zeros(sum(sizes)),
    )


def read(sizes: Sequence[int], answers: Sequence[str], *parts: ReadsPairs | ReadsAnswers) -> Experience:
    """A batch in which these answers were given, all to one prompt, as these parts have read it."""
    x = batch(sizes)
    texts = Texts(["what?"] * len(answers), answers, x.group_of_trajectory)
    return with_readings(x, [(part, part.read(texts, {})) for part in parts])


def test_every_pair_of_a_group_is_said_in_both_orders_and_groups_may_differ_in_size():
    part = _Longer(0.6)
    x = read([3, 2], ["aa", "b", "aa", "cccc", "d"], part)
    assert reading_of(part, x).tolist() == [
        pytest.approx([0.5, 0.8, 0.5]),
        pytest.approx([0.2, 0.5, 0.2]),
        pytest.approx([0.5, 0.8, 0.5]),
        pytest.approx([0.5, 0.8, math.nan], nan_ok=True),
        pytest.approx([0.2, 0.5, math.nan], nan_ok=True),
    ]
    first, second = x.group_of_trajectory.pairs()
    said = part(x, first, second)
    assert not bool(said.isnan().any())
    assert torch.equal(said + part(x, second, first), torch.ones(len(first)))


def test_the_same_pair_is_asked_about_once_and_what_is_known_is_not_asked_again():
    ASKED.clear()
    x = batch([3, 2])
    texts, known = (
        Texts(["what?"] * 5, ["a", "bb", "a", "bb", "a"], x.group_of_trajectory),
        dict[tuple[str, ...], float](),
    )
    _Longer().read(texts, known)
    assert [Pair("what?", "a", "bb")] == ASKED and known == {("what?", "a", "bb"): 0.0}
    _Longer().read(texts, known)
    assert len(ASKED) == 1


def test_what_was_lost_is_asked_again():
    ASKED.clear()
    x, known = batch([2]), dict[tuple[str, ...], float]()
    for _ in range(2):
        _Longer().read(Texts(["p", "p"], ["a?", "b"], x.group_of_trajectory), known)
    assert len(ASKED) == 2 and not known


def test_an_answer_with_no_comparison_left_is_unheard_and_one_alone_is_not():
    part = _Longer()
    x = batch([3, 1])
    said = part.read(Texts(["p"] * 4, ["a", "bb", "c?", "d?"], x.group_of_trajectory), {})
    assert part.unheard(said, x.group_of_trajectory).tolist() == [False, False, True, False]


def test_a_reading_follows_its_trajectories():
    part = _Longer()
    x = read([3, 2], ["a", "bb", "ccc", "dddd", "e"], part)
    kept = x.select(torch.tensor([2, 0, 4, 3]))
    said = part(kept, torch.tensor([0, 1, 2]), torch.tensor([1, 0, 3]))
    assert said.tolist() == [1.0, 0.0, 0.0]


def test_batches_with_groups_of_other_sizes_are_put_together():
    part = _Longer()
    x = Experience.concatenate([read([2], ["a", "bb"], part), read([3], ["a", "bb", "ccc"], part)])
    first, second = x.group_of_trajectory.pairs()
    assert part(x, first, second).tolist() == [0.5, 0, 1, 0.5, 0.5, 0, 0, 1, 0.5, 0, 1, 1, 0.5]
    with pytest.raises(ValueError, match="that different parts have read"):
        Experience.concatenate([x, read([2], ["a", "bb"], _Longer(0.5))])


def test_a_checkpoint_holds_what_was_read():
    part = _Longer()
    x = read([2], ["a", "bb"], part)
    again = unpack(*pack(x))
    assert again.readers == x.readers and torch.equal(again.reading, x.reading)
    _, plain = pack(x)
    del plain["readers"]
    assert unpack(pack(batch([2]))[0], plain).readers == ()


def test_a_batch_that_nobody_has_read_says_so():
    with pytest.raises(ValueError, match=r"_longer-\w+ reads text, and has not read this batch"):
        _Longer()(batch([2]), torch.tensor([0]), torch.tensor([1]))
    with pytest.raises(ValueError, match="has not read this batch"):
        _Longer(0.2)(read([2], ["a", "bb"], _Longer()), torch.tensor([0]), torch.tensor([1]))


def test_the_readers_of_a_recipe_are_found_wherever_they_are_and_once():
    from stratagem.recipes import nash_md

    part = _Longer()
    recipe = nash_md(preference=SingleVote(Population((part, BradleyTerry(), _Longer(0.5), part))))
    assert text_readers(recipe) == (part, _Longer(0.5))
    assert "reading" in recipe.experience_needs()
    assert text_readers(nash_md()) == ()


# ---- comparisons that were lost -------------------------------------------------------------------------------------


def test_a_lost_comparison_counts_as_the_mean_of_the_others():
    x = read([4], ["a", "bb", "ccc", "d?"], _Longer(0.6))
    won = WinRate(_Longer(0.6), against="others").of_answers(x)
    # Of "a": 0.2 and 0.2, so that the third is 0.2 as well; nobody has heard of "d?".
    assert won.tolist() == pytest.approx([0.2 - 0.5, 0.5 - 0.5, 0.8 - 0.5, 0.0])
    with_itself = WinRate(_Longer(0.6)).of_answers(x)
    assert with_itself.tolist() == pytest.approx([(3 * 0.2 + 0.5) / 4 - 0.5, 0.0, (3 * 0.8 + 0.5) / 4 - 0.5, 0.0])


def test_a_vote_that_was_not_given_is_no_vote_for_the_second():
    vote = SingleVote(_Longer())
    x = read([2], ["a", "b?"], _Longer())
    assert vote(x, torch.tensor([0, 1]), torch.tensor([1, 0])).isnan().all()


def test_an_oracle_must_lose_a_pair_in_both_orders():
    from stratagem.errors import InputError

    @dataclass(frozen=True)
    class _OneSided(Preference):
        requires: ClassVar[frozenset[str]] = frozenset({"reading"})

        def __call__(self, x: Experience, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
            return torch.where(first < second, torch.nan, torch.full(first.shape, 0.5))

    with pytest.raises(InputError, match="contradicts itself"):
        WinRate(_OneSided())(batch([2]))


# ---- answers by themselves ------------------------------------------------------------------------------------------


def test_answers_are_scored_one_by_one():
    part = _Length()
    known: Known = {}
    x = batch([2, 1])
    texts = Texts(["p", "p", "q"], ["a", "bb", "?"], x.group_of_trajectory)
    said = part.read(texts, known)
    assert said.flatten().tolist() == pytest.approx([1, 2, math.nan], nan_ok=True)
    assert part.unheard(said, x.group_of_trajectory).tolist() == [False, False, True]
    assert part(with_readings(x, [(part, said)])).returns[:2].tolist() == [1, 2]


def test_parts_of_both_kinds_read_one_batch():
    pairs, answers = _Longer(), _Length()
    x = read([2], ["a", "bb"], pairs, answers)
    assert pairs(x, torch.tensor([0]), torch.tensor([1])).tolist() == [0.0]
    assert answers.scored(x).tolist() == [1.0, 2.0]
