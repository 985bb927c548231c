"""Phrases that plan: how they are found in a text, kept in a file, mined from solutions and counted."""

from __future__ import annotations

import math
from random import Random

import pytest

from stratagem.errors import InputError
from stratagem.grams import Grams, grams_of, mine, semantic_entropy

TRY = Grams((("let us try",), ("but the problem says that", "the problem says that")))


def found(text: str, grams: Grams = TRY) -> list[str]:
    return [text[begin:end] for begin, end, _ in grams.occurrences(text)]


# ---- in a text ------------------------------------------------------------------------------------------------------


def test_a_phrase_is_found_whatever_its_case_and_the_space_between_its_words():
    assert found("Wait, LET us try  another approach") == ["LET us try"]
    assert found("let\nus\ttry") == ["let\nus\ttry"]


def test_a_phrase_is_not_found_in_the_middle_of_words_or_across_punctuation():
    for text in ("outlet us try another", "let us trying", "let us, try", "let us. Try again", "let us", ""):
        assert found(text) == []


def test_phrases_may_overlap_and_say_which_strategy_they_are_of():
    occurrences = TRY.occurrences("let us try but the problem says that")
    assert [strategy for *_, strategy in occurrences] == [0, 1, 1]
    assert found("but the problem says that") == ["but the problem says that", "the problem says that"]


def test_apostrophes_of_both_kinds_are_the_same():
    assert found("We don\u2019t know yet", Grams((("don't know",),))) == ["don\u2019t know"]


def test_overlapping_phrases_of_a_strategy_are_one_use_of_it():
    assert TRY.counts(["But the problem says that. But the problem says that!", "let us try, let us try"]) == [2, 2]
    assert Grams().counts(["let us try"]) == []


@pytest.mark.parametrize("phrase", ["", "wait, let me", "let us!", "so: then"])
def test_a_phrase_that_could_never_be_found_is_refused(phrase):
    with pytest.raises(InputError, match="must be words with spaces between them"):
        Grams(((phrase,),))


def test_a_phrase_belongs_to_one_strategy():
    with pytest.raises(InputError, match="'Let  us try': is there twice"):
        Grams((("let us try",), ("Let  us try",)))


# ---- in a file ------------------------------------------------------------------------------------------------------


def test_phrases_are_written_and_read_back(tmp_path):
    for grams in (TRY, Grams()):
        grams.save(tmp_path / "grams.json")
        assert Grams.load(tmp_path / "grams.json") == grams


def test_a_text_file_has_a_strategy_on_each_line(tmp_path):
    (tmp_path / "grams.txt").write_text("let us try\n\n  but the problem says\n")
    assert Grams.load(tmp_path / "grams.txt").strategies == (("let us try",), ("but the problem says",))


def test_a_changed_file_is_read_again(tmp_path):
    path = tmp_path / "grams.txt"
    path.write_text("let us try")
    assert grams_of(str(path)) is grams_of(str(path))
    path.write_text("let us see now")
    import os

    os.utime(path, ns=(1, 1))
    assert grams_of(str(path)).strategies == (("let us see now",),)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "file of phrases"),
        ('{"grams": []}', "must hold a list 'strategies'"),
        ('{"strategies": ["let us try"]}', "must hold a list 'strategies'"),
        ("let us, try", "phrase 'let us, try'"),
    ],
)
def test_a_file_that_holds_no_phrases_is_refused(tmp_path, content, message):
    path = tmp_path / "grams.json"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        Grams.load(path)
    with pytest.raises(InputError, match=r"gone\.json: cannot be read"):
        grams_of(str(tmp_path / "gone.json"))


# ---- mining ---------------------------------------------------------------------------------------------------------

PLANTED = [
    "let us try another",
    "but the problem says",
    "we can use what",
    "going back to where",
    "first consider simpler cases",
]
VOCABULARY = [f"{a}{b}{c}" for a in "bdfglm" for b in "aeiou" for c in "nrstk"] + ["lemma", "angle", "vertex"]


def corpus(seed: int, recurring: int = 0) -> list[str]:
    """200 solutions of random words; each scaffold is in about 60 % of them, what recurs in about 10 %."""
    random = Random(seed)
    domain = [" ".join(random.sample(VOCABULARY, 4)) for _ in range(recurring)]
    solutions = []
    for _ in range(200):
        pieces = [random.choice(VOCABULARY) for _ in range(60)]
        sayings = [phrase for phrase in PLANTED if random.random() < 0.6]
        sayings += [phrase for phrase in domain if random.random() < 0.1]
        for phrase in sayings:
            pieces.insert(random.randrange(len(pieces)), phrase)
        solutions.append(" ".join(pieces))
    return solutions


def within_planted(phrase: str) -> bool:
    return any(f" {phrase} " in f" {planted} " for planted in PLANTED)


@pytest.mark.parametrize(("recurring", "share"), [(0, 1.0), (20, 0.2)])
def test_planted_phrases_are_mined_and_little_else(recurring, share):
    grams = mine(corpus(3, recurring), share=share, least=12)
    mined = [phrase for strategy in grams.strategies for phrase in strategy]
    assert set(PLANTED) <= set(mined)
    assert sum(map(within_planted, mined)) >= 0.8 * len(mined)
    assert len(grams.strategies) == len(PLANTED), "each with its parts of three words is one strategy"


def test_a_cluster_counts_for_the_solutions_that_hold_one_of_its_phrases():
    # Two wordings of one move, each in fewer solutions than the rival; together in more.
    one, other, rival = "let us try another way", "let us try another path", "all good things end here"
    solutions = [one] * 6 + [other] * 6 + [rival] * 8
    top = mine(solutions, sizes=(5,), share=0.5, distance=0.5)
    assert top.strategies == ((one, other),)
    assert mine(solutions, sizes=(5,), share=0.5, distance=0.05).strategies == ((rival,), (one,))


def test_a_solution_counts_once_however_often_it_says_a_phrase():
    assert mine(["let us try, let us try, let us try"] * 4, least=5).strategies == ()
    assert mine(["let us try, let us try, let us try"] * 5, least=5).strategies == (("let us try",),)


def test_words_of_the_domain_and_symbols_are_in_no_phrase():
    solutions = ["so x is equal to 5 and the triangle is not a square"] * 6
    mined = [p for s in mine(solutions, share=1.0, without={"Triangle"}).strategies for p in s]
    assert "is equal to" in mined and "is not a" in mined
    assert not any({"x", "5", "triangle"} & set(phrase.split()) for phrase in mined)


def test_no_solutions_hold_no_phrases():
    assert mine([]) == Grams() == mine(["too short"])


@pytest.mark.parametrize("bad", [{"sizes": ()}, {"sizes": (0,)}, {"share": 0.0}, {"share": 1.5}, {"least": 0}])
def test_numbers_out_of_range_are_refused(bad):
    with pytest.raises(InputError, match=rf"mine: {next(iter(bad))} = .*: must be"):
        mine(["a b c"], **bad)


# ---- entropy of strategies ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "expected"), [((5, 5), math.log(2)), ((10, 0), 0.0), ((1,) * 8, math.log(8)), ((), 0.0), ((0, 0), 0.0)]
)
def test_entropy_of_strategies_by_hand(counts, expected):
    assert semantic_entropy(counts) == pytest.approx(expected)
