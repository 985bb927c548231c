"""Any task with short answers, each question in four formats: choose of four, of ten, fill in, or answer it openly."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from random import Random
from string import ascii_uppercase
from typing import Any, Final

from stratagem.errors import InputError
from stratagem.tasks.answers import final_answer, last_number, normalised
from stratagem.tasks.commands import wrong
from stratagem.tasks.splits import seeded
from stratagem.tasks.task import Environment, Observation, Split, Step, Task, state_key

FORMATS: Final = ("four_choice", "ten_choice", "fill_in", "open")
"""From easy to hard; of question ``q`` they are the training episodes ``4 q`` to ``4 q + 3``."""

OPTIONS: Final = {0: 4, 1: 10}
"""How many answers are offered in the formats that offer some."""

FILL_IN, OPEN = 2, 3

_BOX = re.compile(r"\\boxed\{[^{}]*\}")
_MARK = re.compile(r"answer\s*:[^\n]*", re.IGNORECASE)
_BEHIND = 10
_NEARBY = 20


@dataclass(frozen=True)
class Variant:
    """A question in a format.

    format: place in ``FORMATS``.  gold: the right answer in this format: a letter where answers are offered.
    options: the answers offered, in their order.  mask: the hint to fill in, where there is one.
    """

    format: int
    gold: str
    options: tuple[str, ...] = ()
    mask: str | None = None


def same_answer(first: str, second: str) -> bool:
    """Whether two answers are equivalent: the same number where both are one (12, 12.0, 24/2), else the same text."""
    numbers = last_number(first), last_number(second)
    if None not in numbers and _is_number(first) and _is_number(second):
        return numbers[0] == numbers[1]
    return normalised(first) == normalised(second)


def valid_options(options: Sequence[str], gold: str, count: int) -> bool:
    """Whether so many options are offered, one of them equivalent to the gold answer, and no two to each other."""
    right = sum(same_answer(option, gold) for option in options)
    distinct = all(not same_answer(a, b) for n, a in enumerate(options) for b in options[:n])
    return len(options) == count and right == 1 and distinct


def valid_mask(mask: str, gold: str) -> bool:
    """Whether a mask has the gold answer's shape: as many characters, the same but for underscores, and one of these.

    Underscores stand for digits; in an answer without digits, for letters.
    """
    hideable = _hideable(gold)
    fits = len(mask) == len(gold) and all(
        shown == right or (shown == "_" and place in hideable)
        for place, (shown, right) in enumerate(zip(mask, gold, strict=True))
    )
    return fits and "_" in mask and mask != gold


class FormatsEnvironment(Environment):
    """A question in its format; an open one and one to fill in are judged by the question's own environment."""

    def __init__(self, question: Environment, variant: Variant) -> None:
        self._question, self.variant = question, variant
        self._text = ""

    def reset(self) -> Observation:
        asked, variant = self._question.reset(), self.variant
        self._text = asked.text + _shown(variant)
        if variant.format == OPEN:
            return asked
        return self._observe(self._text, asked)

    def step(self, action: str) -> Step:
        formed = float(well_formed(action))
        if not self.variant.options:
            step = self._question.step(action)
            return _with_format(step, formed)
        right = _letter(action) == self.variant.gold
        end = Observation("right" if right else "wrong", state_key(self._text, right))
        return _with_format(Step(end, float(right), done=True, success=right), formed)

    def close(self) -> None:
        self._question.close()

    def _observe(self, text: str, asked: Observation) -> Observation:
        return Observation(text, state_key("formats", asked.state_key, text))


class FormatsTask(Task):
    """``of``, a task with short verifiable answers in a single turn, with every question in the formats ``FORMATS``.

    Training episode ``4 q + f`` is question ``q`` in format ``f``; taken in their order that is a static mixture, and
    :class:`~stratagem.sampling.Promoting` goes from easy to hard. Test episodes are the open questions.

    - ``four_choice``, ``ten_choice``: lettered answers, one of them right; the answer is the letter. The others are
      numbers near the right one, or right answers of other questions where it is no number. In which order they stand
      follows from ``seed`` and the question, so that no letter is right more often.
    - ``fill_in``: about half the digits of the answer are shown (letters, where it has none), and the answer is all of
      it.
    - ``open``: the question as it is.

    A variant whose options or mask are not valid (:func:`valid_options`, :func:`valid_mask`) does not exist; its
    episode is the next harder one that does, and :meth:`available` leaves its number out.

    A further reward ``format`` is 1 for exactly one ``answer: ...`` or ``\\boxed{...}`` with at most ten characters
    behind it, which may be the line's end, and counts ``format_reward``. Success is the right answer alone.

    Variants are made by rule here. arXiv 2604.04767 has a language model write and check them; the rules of validation
    are those of its released code, and so is the format term.

    Raises :class:`InputError` for a task of several turns, or with a reward named ``format``.
    """

    description = "another task with short answers, each question as a choice, to fill in, and open"

    def __init__(self, of: Task, format_reward: float = 0.2, seed: int = 0) -> None:
        if of.max_turns != 1:
            raise InputError(f"task formats:{of.name}: max_turns = {of.max_turns}: must be 1, an answer in one turn")
        if "format" in of.reward_names:
            raise InputError(f"task {of.name!r}: already has a reward 'format' and cannot have formats")
        if format_reward < 0:
            raise InputError(f"task formats:{of.name}: format_reward = {format_reward}: must be at least 0")
        self.of, self.seed = of, seed
        self.name = f"formats:{of.name}"
        self.max_turns, self.max_new_tokens, self.stop, self.system = 1, of.max_new_tokens, of.stop, of.system
        weights = (1.0,) * len(of.reward_names) if of.reward_weights is None else of.reward_weights
        self.reward_names, self.reward_weights = (*of.reward_names, "format"), (*weights, format_reward)
        self._variants = lru_cache(maxsize=100_000)(self._made)

    def variant(self, split: Split, index: int) -> tuple[int, Variant]:
        """The question that an episode asks, and its format."""
        question, asked = (index, OPEN) if split == "test" else divmod(index, len(FORMATS))
        return question, self._variants(split, question, asked)

    def available(self, questions: int) -> tuple[int, ...]:
        """Training episodes of the first questions whose variants exist: what to name as a sampler's start states."""
        numbers = range(questions * len(FORMATS))
        return tuple(n for n in numbers if self.variant("train", n)[1].format == n % len(FORMATS))

    def environment(self, split: Split, index: int) -> FormatsEnvironment:
        question, variant = self.variant(split, index)
        return FormatsEnvironment(self.of.environment(split, question), variant)

    def solution(self, split: Split, index: int) -> Iterator[str]:
        question, variant = self.variant(split, index)
        return iter([f"answer: {variant.gold}"]) if variant.options else self.of.solution(split, question)

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        question, variant = self.variant(split, index)
        if not variant.options:
            return self.of.corrupted(split, question)
        letters = ascii_uppercase[: len(variant.options)]
        return iter([f"answer: {letters[letters.index(variant.gold) - 1]}"])

    def answer(self, text: str) -> str | None:
        return self.of.answer(text) or _letter(text)

    def start_states(self, split: Split) -> int | None:
        questions = self.of.start_states(split)
        return None if questions is None else questions * (1 if split == "test" else len(FORMATS))

    def _made(self, split: Split, question: int, asked: int) -> Variant:
        """The easiest variant from this format on that is valid."""
        gold = self._gold(split, question)
        if gold is None or asked == OPEN:
            return Variant(OPEN, gold or "")
        random = seeded(self.name, self.seed, split, question, asked)
        if asked == FILL_IN:
            mask = _masked(gold, random)
            return Variant(asked, gold, mask=mask) if valid_mask(mask, gold) else self._made(split, question, OPEN)
        options = [*self._distractors(split, question, gold, OPTIONS[asked] - 1, random), gold]
        if not valid_options(options, gold, OPTIONS[asked]):
            return self._made(split, question, asked + 1)
        random.shuffle(options)
        return Variant(asked, ascii_uppercase[options.index(gold)], tuple(options))

    def _gold(self, split: Split, question: int) -> str | None:
        *_, last = self.of.solution(split, question)
        return self.of.answer(last)

    def _distractors(self, split: Split, question: int, gold: str, count: int, random: Random) -> list[str]:
        """So many answers that differ from the right one and each other; fewer when there are none left."""
        found: list[str] = []
        for option in self._wrong(split, question, gold, random):
            if len(found) == count:
                break
            if not any(same_answer(option, other) for other in (gold, *found)):
                found.append(option)
        return found

    def _wrong(self, split: Split, question: int, gold: str, random: Random) -> Iterator[str]:
        if _is_number(gold):
            number = last_number(gold) or Fraction()
            steps = [*range(1, _NEARBY + 1), *range(-_NEARBY, 0)]
            random.shuffle(steps)
            # As far off as the number is large, so that an option is not given away by its size.
            unit = Fraction(max(1, abs(number.numerator) // 50), number.denominator)
            yield from (str(number + step * unit) for step in steps)
            return
        others = [question + step for step in range(1, 5 * _NEARBY + 1)]
        random.shuffle(others)
        for other in others:
            answer = self._gold(split, other)
            if answer is not None:
                yield answer
        yield wrong(gold)


def well_formed(response: str) -> bool:
    """Whether there is exactly one final answer, ``answer: ...`` or boxed, and at most ten characters behind it."""
    marks = [*_BOX.finditer(response), *_MARK.finditer(response)]
    return len(marks) == 1 and len(response[marks[0].end() :]) <= _BEHIND


def from_spec(argument: str | None, options: Mapping[str, Any]) -> FormatsTask:
    """``formats:TASK[,format_reward=0.2,format_seed=0,option=value]``; other options are those of the task."""
    from stratagem.tasks.registry import make  # which knows this module by name

    if argument is None:
        raise InputError("task formats needs another task, such as formats:calculator,max_turns=1")
    further = dict(options)
    try:
        paid, seed = float(further.pop("format_reward", 0.2)), int(further.pop("format_seed", 0))
    except ValueError:
        raise InputError(f"task formats:{argument}: format_reward and format_seed must be numbers") from None
    task = make(",".join([argument, *(f"{name}={value}" for name, value in further.items())]))
    if not isinstance(task, Task):
        raise InputError(f"task formats:{argument}: is not played in text")
    return FormatsTask(task, paid, seed)


def _shown(variant: Variant) -> str:
    if variant.options:
        listed = "\n".join(f"{letter}. {text}" for letter, text in zip(ascii_uppercase, variant.options, strict=False))
        return f"\nOne of these is right:\n{listed}\nAnswer with its letter, as `answer: A`."
    return "" if variant.mask is None else f"\nThe answer looks like this, with a _ for what is hidden: {variant.mask}"


def _with_format(step: Step, formed: float) -> Step:
    components = {**step.components, "format": formed}
    return replace(step, components=components, well_formed=step.well_formed and bool(formed))


def _letter(response: str) -> str | None:
    """The letter that a response chooses; None when its final answer is something else."""
    said = normalised(final_answer(response)).strip("()[]").upper()
    return said if len(said) == 1 and said in ascii_uppercase else None


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[-+0-9.,/eE ]*[0-9][-+0-9.,/eE ]*", text) is not None and last_number(text) is not None


def _hideable(gold: str) -> set[int]:
    digits = {place for place, character in enumerate(gold) if character.isdigit()}
    return digits or {place for place, character in enumerate(gold) if character.isalpha()}


def _masked(gold: str, random: Random) -> str:
    """Half of what can be hidden, rounded up, is."""
    places = sorted(_hideable(gold))
    hidden = set(random.sample(places, -(-len(places) // 2)))
    return "".join("_" if place in hidden else character for place, character in enumerate(gold))
