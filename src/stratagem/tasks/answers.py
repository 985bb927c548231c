"""How a written answer is compared with the reference: as normalised text, by containment, as an exact number."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any, Protocol

Record = Mapping[str, Any]
"""One prompt of a file: ``prompt``, ``answer`` (a string) and whatever else its line holds."""

_NUMBER = re.compile(
    r"(?:(?<![0-9A-Za-z)])-)?[0-9][0-9,]*(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3}(?![0-9])|/[0-9]+(?:\.[0-9]+)?)?"
)
_ANSWER_MARK = re.compile(r"answer\s*:", re.IGNORECASE)
_BOXED = re.compile(r"\\boxed\{([^{}]*)\}")
_PUNCTUATION = re.compile(r"[^\w\s]|_")
_ARTICLE = re.compile(r"\b(a|an|the)\b")
_LONGEST_NUMBER = 1_000
_TOLERANCE = Fraction(1, 1000)


class Verifier(Protocol):
    """Scores a response and knows one that must pass and one that must not, so that it can itself be checked."""

    def score(self, response: str, record: Record) -> float:
        """The reward of a response; 1 or more counts as success."""

    def solution(self, record: Record) -> str:
        """A response that must succeed."""

    def corrupted(self, record: Record) -> str:
        """A response that looks like a solution and must not succeed."""

    def answer(self, response: str) -> str | None:
        """The final answer of a response in the form in which it is compared; None when it has none."""


class ExactText:
    """1 when the final answers of response and reference are equal after :func:`normalised`, else 0."""

    def score(self, response: str, record: Record) -> float:
        return float(normalised(final_answer(response)) == normalised(final_answer(record["answer"])))

    def solution(self, record: Record) -> str:
        return str(record["answer"])

    def corrupted(self, record: Record) -> str:
        """The reference without its last character, or another character when it has only one."""
        answer = normalised(record["answer"])
        return answer[:-1].rstrip() or ("a" if answer != "a" else "b")

    def answer(self, response: str) -> str | None:
        return normalised(final_answer(response)) or None


class ContainsText(ExactText):
    """1 when the reference occurs in the response as whole words (both :func:`normalised`), else 0."""

    def score(self, response: str, record: Record) -> float:
        answer = re.escape(normalised(record["answer"]))
        return float(re.search(rf"(?<!\w){answer}(?!\w)", normalised(response)) is not None)


class ExactNumber(ExactText):
    """1 when the last number of the response's final answer equals the reference exactly, else 0.

    ``1,000``, ``1000.0``, ``1e3`` and ``2000/2`` are the same number; ``0.333`` and ``1/3`` are not.
    """

    def score(self, response: str, record: Record) -> float:
        return float(last_number(final_answer(response)) == last_number(record["answer"]))

    def corrupted(self, record: Record) -> str:
        """The reference plus one."""
        number = last_number(record["answer"])
        return str((number or 0) + 1)

    def answer(self, response: str) -> str | None:
        number = last_number(final_answer(response))
        return None if number is None else str(number)


class SimilarText(ExactText):
    """1 when the final answer contains the reference, else ``1 - d`` where ``d < 0.5``, else 0 (arXiv 2510.07038).

    ``d`` is the edit distance over the longer one's length, both :func:`normalised`. An empty reference is contained in
    nothing. Of several right answers (``aliases`` of the record, a list) the one that fits best counts.
    """

    def score(self, response: str, record: Record) -> float:
        said = normalised(final_answer(response))
        return max(_likeness(said, normalised(right)) for right in _right_answers(record))


class CloseNumber(ExactNumber):
    """1 when the last number of the final answer is less than 0.001 from the reference's, else 0 (arXiv 2510.07038).

    Text without a number is 0, for the response and for the reference. Of several right answers (``aliases``) any.
    """

    def score(self, response: str, record: Record) -> float:
        said = last_number(final_answer(response))
        right = [last_number(text) for text in _right_answers(record)]
        return float(said is not None and any(n is not None and abs(said - n) < self._width(n) for n in right))

    def _width(self, reference: Fraction) -> Fraction:
        """How far from the reference is too far."""
        return _TOLERANCE


class NearNumber(CloseNumber):
    """1 when the last number of the final answer is off by less than 5 % of the reference's, else 0 (arXiv 2510.07038).

    Around 0, where no share of the reference helps, it must be less than 0.001 off.
    """

    def corrupted(self, record: Record) -> str:
        """Twice the reference and one more."""
        return str(2 * (last_number(record["answer"]) or 0) + 1)

    def _width(self, reference: Fraction) -> Fraction:
        return abs(reference) / 20 if reference else _TOLERANCE


def normalised(text: str) -> str:
    """``text`` in lower case, with single spaces, without quotes around it and full stops behind it.

    Text that holds nothing else keeps its quotes and full stops.
    """
    plain = " ".join(text.casefold().split())
    return plain.lstrip(" \"'`").rstrip(" \"'`.") or plain


def token_f1(response: str, reference: str) -> float:
    """F1 of the two sets of words, in lower case and without punctuation; 0 when they share none.

    With ``c`` shared words, ``p = c / |response|`` and ``r = c / |reference|``: ``2 p r / (p + r)``.
    """
    said, wanted = (set(_PUNCTUATION.sub("", text.lower()).split()) for text in (response, reference))
    return 2 * len(said & wanted) / (len(said) + len(wanted)) if said & wanted else 0.0


def plain_words(text: str) -> list[str]:
    """The words of an answer to a question, as question answering compares them: lower case, no articles or signs."""
    return _ARTICLE.sub(" ", _PUNCTUATION.sub("", text.lower())).split()


def answer_f1(response: str, references: Iterable[str]) -> float:
    """F1 of :func:`plain_words` with the reference it fits best, every word counted as often as it stands; 0 .. 1.

    With ``c`` words in common, ``p = c / |response|`` and ``r = c / |reference|``: ``2 p r / (p + r)``. Where one of
    the two is ``yes`` or ``no`` they must be equal. Without a word in common, as of an empty response, it is 0.
    """
    said = plain_words(response)
    return max((_f1(said, plain_words(reference)) for reference in references), default=0.0)


def equals_any(response: str, references: Iterable[str]) -> bool:
    """Whether the :func:`plain_words` of the response are those of a reference."""
    said = plain_words(response)
    return any(said == plain_words(reference) for reference in references)


def holds_any(text: str, references: Iterable[str]) -> bool:
    """Whether the :func:`plain_words` of a reference, which has some, stand in the text one after the other."""
    said = f" {' '.join(plain_words(text))} "
    wanted = (" ".join(plain_words(reference)) for reference in references)
    return any(reference and f" {reference} " in said for reference in wanted)


def edit_distance(first: str, second: str) -> int:
    """Least number of letters to insert, delete or replace to make one of the other (Levenshtein)."""
    costs = list(range(len(second) + 1))
    for row, letter in enumerate(first, 1):
        diagonal, costs[0] = costs[0], row
        for column, other in enumerate(second, 1):
            kept = diagonal + (letter != other)
            diagonal, costs[column] = costs[column], min(kept, costs[column] + 1, costs[column - 1] + 1)
    return costs[-1]


def final_answer(response: str) -> str:
    """What follows the last ``answer:``, else what the last ``\\boxed{...}`` holds, else the whole response."""
    *_, after = _ANSWER_MARK.split(response)
    if after != response:
        return after.strip()
    boxed = _BOXED.findall(response)
    return str(boxed[-1]) if boxed else response.strip()


def last_number(text: str) -> Fraction | None:
    """The last number written in ``text``, exactly; ``None`` when there is none or it is a division by zero."""
    numbers = _NUMBER.findall(text)
    if not numbers or len(numbers[-1]) > _LONGEST_NUMBER:
        return None
    numerator, _, denominator = numbers[-1].replace(",", "").partition("/")
    divisor = Fraction(denominator or 1)
    return Fraction(numerator) / divisor if divisor else None


def _right_answers(record: Record) -> list[str]:
    return [record["answer"], *record.get("aliases", ())]


def _f1(said: list[str], wanted: list[str]) -> float:
    if {tuple(said), tuple(wanted)} & {("yes",), ("no",)}:
        return float(said == wanted)
    shared = (Counter(said) & Counter(wanted)).total()
    return 2 * shared / (len(said) + len(wanted)) if shared else 0.0


def _likeness(said: str, right: str) -> float:
    if right and right in said:
        return 1.0
    longer = max(len(said), len(right))
    if not said or not right or longer >= 2 * min(len(said), len(right)):
        return 0.0  # The lengths alone differ by half: no need to count.
    distance = edit_distance(said, right) / longer
    return 1 - distance if distance < 0.5 else 0.0
