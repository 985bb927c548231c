"""What an environment written as a program must pass before anybody trains on it: gates from text to difficulty."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Annotated, ClassVar, NamedTuple

from annotated_types import Ge, Gt, Le

from stratagem.errors import InputError
from stratagem.helpers import Helper, Question
from stratagem.part import Part
from stratagem.synthesis.programs import Instance, Program, ProgramError, Samples, Trace, in_range
from stratagem.tasks.splits import seeded

STAGES = ("text", "execution", "contract", "review", "novelty", "difficulty")
"""The gates in order: L1, L2, L3, L4, novelty, L5. Difficulty comes last as it costs most."""

_COPIED_LENGTH = 8
_GRAM = 4
_ENDS = "\"').,:;!?"
_SIGNS = _ENDS + "([]{}"


class Rate(NamedTuple):
    """How often a solver was right."""

    right: float
    tried: int

    @property
    def mean(self) -> float:
        return self.right / self.tried if self.tried else math.nan

    def interval(self, z: float = 1.96) -> tuple[float, float]:
        """Wilson's interval; (0, 1) of no trials."""
        if not self.tried:
            return 0.0, 1.0
        n, p = self.tried, self.mean
        center = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return max(center - half, 0.0), min(center + half, 1.0)


Measure = Callable[[Program, int], Rate]
"""Success of the solver, as it is now, in an environment at a level."""


@dataclass(frozen=True)
class Verdict:
    """What the gates say of a program.

    passed: gates that it passed, in order.  failed: the one it did not, None for none.  reason: of that, in a line.
    levels: those that can be used, lowest first.  level: the one chosen by difficulty, None before that gate.
    rate: of the solver there.  trace: what came of running it.
    """

    program: Program
    trace: Trace
    passed: tuple[str, ...]
    failed: str | None = None
    reason: str = ""
    levels: tuple[int, ...] = ()
    level: int | None = None
    rate: Rate | None = None

    @property
    def admitted(self) -> bool:
        """Whether nothing failed."""
        return self.failed is None

    def then(self, stage: str, reason: str | None, **changes: object) -> Verdict:
        """With one gate more: passed where there is no reason against it."""
        if reason is not None:
            return replace(self, failed=stage, reason=reason, **changes)  # type: ignore[arg-type]
        return replace(self, passed=(*self.passed, stage), **changes)  # type: ignore[arg-type]


# ---- L1 to L3 --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contract(Part):
    """Gates L1 to L3: the text, running it, and whether it does at every level what an environment has to.

    L1: it parses, imports and uses only what is allowed, and has the four methods. L2: ``seeds`` instances at every
    level run within ``seconds`` without an exception. A level that takes too long lowers the highest level, and rejects
    the program if it is the first. L3, at every level:

    - the same again, in another order, from a fresh environment, whatever ``random`` was left in;
    - at least ``distinct`` of the prompts differ, and no answer is that of more than ``common`` of the instances;
    - every score is in [0, 1]; the reference scores 1, with space around it, in other forms that the program says are
      as good, and once more when asked again; no answer and nonsense score 0;
    - an answer that is not the reference scores 0. Where there may be others (``kind = "planted"``) at most ``lucky``
      of these wrong answers may score above 0, as one may be right by accident;
    - the answer is not given away: what stands at one place of the prompt, or behind the same word, is the answer in at
      most ``copied`` of the instances, and no answer of two words or of eight letters stands in the prompt in more than
      a tenth of them. To look for any answer anywhere would refuse all questions about numbers.

    A wrong reference with a score that goes by it is not found here, and cannot be: that is for the review.

    Values are reconstructions but for 32 seeds, 2 s, 90 %, 30 %; ``copied`` and ``lucky`` are ours.
    """

    kind: ClassVar[str] = "environment_contract"

    levels: Annotated[int, Ge(1), Le(20)] = 5
    seeds: Annotated[int, Ge(4), Le(256)] = 32
    seconds: Annotated[float, Gt(0), Le(60)] = 2.0
    distinct: Annotated[float, Ge(0), Le(1)] = 0.9
    common: Annotated[float, Gt(0), Le(1)] = 0.3
    copied: Annotated[float, Ge(0), Le(1)] = 0.5
    lucky: Annotated[float, Ge(0), Le(1)] = 0.5

    def __call__(self, program: Program) -> Verdict:
        """Run a program in the sandbox, once, and judge what came of it."""
        return self.judge(program, program.trace(range(1, self.levels + 1), range(self.seeds), self.seconds))

    def judge(self, program: Program, trace: Trace) -> Verdict:
        """The same of a program that has been run."""
        verdict = Verdict(program, trace, ()).then("text", trace.problems[0] if trace.problems else None)
        if not verdict.admitted:
            return verdict
        error = trace.error or (None if trace.samples else trace.stopped or "did nothing")
        verdict = verdict.then("execution", error)
        if not verdict.admitted:
            return verdict
        against = next((f"level {one.level}: {text}" for one in trace.samples for text in self.against(one)), None)
        return verdict.then("contract", against, levels=tuple(one.level for one in trace.samples))

    def against(self, samples: Samples) -> Iterable[str]:
        """What is wrong with a level."""
        prompts = [one.prompt for one in samples.instances]
        answers = [one.reference for one in samples.instances]
        if not samples.repeats:
            yield "not the same again from the same seeds"
        if len(set(prompts)) < self.distinct * len(prompts):
            yield f"only {len(set(prompts))} of {len(prompts)} prompts differ"
        answer, count = Counter(answers).most_common(1)[0]
        if count > self.common * len(answers):
            yield f"the answer is {answer!r} in {count} of {len(answers)} instances"
        yield from self._against_scores(samples)
        if given_away(prompts, answers) > self.copied:
            yield "the answer stands in the prompt, always at the same place"
        shown = sum(_long(answer) and answer in prompt for prompt, answer in zip(prompts, answers, strict=True))
        if 10 * shown > len(prompts):
            yield f"the answer stands in the prompt in {shown} of {len(prompts)} instances"

    def _against_scores(self, samples: Samples) -> Iterable[str]:
        rows = (*samples.same, *samples.nothing, *samples.wrong, samples.again)
        if not all(in_range(score) for row in rows for score in row):
            yield "a score is not in [0, 1]"
        if any(score != 1 for row in samples.same for score in row):
            yield "a right answer does not score 1"
        if any(again != row[0] for again, row in zip(samples.again, samples.same, strict=True)):
            yield "the same answer does not score the same again"
        if any(score != 0 for row in samples.nothing for score in row):
            yield "no answer scores more than 0"
        wrong = [score for row in samples.wrong for score in row]
        if sum(score != 0 for score in wrong) > (self.lucky * len(wrong) if samples.planted else 0):
            yield "a wrong answer scores more than 0"


def given_away(prompts: Sequence[str], answers: Sequence[str]) -> float:
    """Share of the prompts in which a rule as simple as "the third word from the end" finds the answer.

    The rules: the word at a place counted from the beginning or from the end, and the first behind a certain word.
    """
    found: Counter[tuple[str, int | str]] = Counter()
    for prompt, answer in zip(prompts, answers, strict=True):
        words = prompt.split()
        rules: set[tuple[str, int | str]] = set()
        before: set[str] = set()
        for place, word in enumerate(words):
            if answer in (word, word.rstrip(_ENDS), word.strip(_SIGNS)):
                rules |= {("from the beginning", place), ("from the end", len(words) - place)}
                if place and words[place - 1] not in before:
                    rules.add(("behind", words[place - 1]))
            if place:
                before.add(words[place - 1])
        found.update(rules)
    return max(found.values(), default=0) / max(len(prompts), 1)


def _long(answer: str) -> bool:
    return len(answer) >= _COPIED_LENGTH or len(answer.split()) > 1


# ---- L4 --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Review:
    """Gate L4: a helper reads the program with an episode of it and says whether prompt, answer and score agree.

    It is asked ``votes`` times and more than half must say yes; an answer that does not come, or is neither yes nor no,
    is none. The paper asks the policy itself, which may agree with its own mistakes: this cannot be the only gate for
    what is meant. Its wording was not available; this is ours.

    helper: who reads.  votes: at least 1.  Raises :class:`InputError` for less.
    """

    helper: Helper
    votes: int = 3

    def __post_init__(self) -> None:
        if self.votes < 1:
            raise InputError(f"review.votes = {self.votes}: must be at least 1")

    def __call__(self, program: Program, instance: Instance) -> bool:
        """Whether the majority found nothing wrong."""
        text = (
            "This program makes questions, answers and scores. Does the reference answer the prompt, is it the only "
            "right answer or does the score accept all others, and does the score reject what is wrong? End with "
            f"`verdict: yes` or `verdict: no`.\n\n```python\n{program.source}\n```\n\nPrompt:\n{instance.prompt}\n\n"
            f"Reference:\n{instance.reference}"
        )
        replies = self.helper.ask([Question.of(text, seed) for seed in range(self.votes)])
        found = [re.findall(r"verdict:\s*(yes|no)\b", (reply.text or "").lower()) for reply in replies]
        agreed = sum(one[-1:] == ["yes"] for one in found)
        return 2 * agreed > self.votes


# ---- novelty ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Likeness:
    """What a program is compared by: runs of four tokens of its text, and words of its prompts without numbers."""

    code: frozenset[tuple[str, ...]]
    words: frozenset[str]

    @classmethod
    def of(cls, trace: Trace) -> Likeness:
        """Of a program that was run."""
        runs = zip(*(trace.tokens[first:] for first in range(_GRAM)), strict=False)
        prompts = [one.prompt for samples in trace.samples[:1] for one in samples.instances]
        often = Counter(word for prompt in prompts for word in set(re.findall(r"[a-z]+", prompt.lower())))
        return cls(frozenset(runs), frozenset(word for word, count in often.items() if 2 * count > len(prompts)))

    @classmethod
    def of_program(cls, program: Program) -> Likeness:
        """The same of a program that has to be run for it; remembered."""
        return _likeness(program)

    def to(self, other: Likeness) -> float:
        """The larger of the Jaccard indices of code and of prompts, in [0, 1]."""
        return max(_jaccard(self.code, other.code), _jaccard(self.words, other.words))


@lru_cache(maxsize=1024)
def _likeness(program: Program) -> Likeness:
    return Likeness.of(program.trace((1,), range(32)))


def _jaccard(one: frozenset[object], other: frozenset[object]) -> float:
    return len(one & other) / len(one | other) if one | other else 0.0


# ---- L5 --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Difficulty(Part):
    """Gate L5: at the level where the solver is right nearest to half the time, Wilson's interval meets the band.

    Levels are searched from the lowest up, and no further once the solver is right less than half the time: success is
    taken to fall with the level.

    low, high: of the band.  z: width of the interval, 1.96 for 95 %; trials of one instance count as independent, which
    makes it too narrow.
    """

    kind: ClassVar[str] = "environment_difficulty"

    low: Annotated[float, Ge(0), Le(1)] = 0.1
    high: Annotated[float, Ge(0), Le(1)] = 0.9
    z: Annotated[float, Ge(0)] = 1.96

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low > self.high:
            raise InputError(f"difficulty.low = {self.low}: must not be above high = {self.high}")

    def meets(self, rate: Rate) -> bool:
        """Whether a rate may lie in the band."""
        least, most = rate.interval(self.z)
        return least <= self.high and most >= self.low

    def search(self, program: Program, levels: Sequence[int], measure: Measure) -> tuple[int, Rate]:
        """The level nearest to half, and the rate there; of equals the lower. Needs a level."""
        found: list[tuple[int, Rate]] = []
        for level in sorted(levels):
            found.append((level, measure(program, level)))
            if found[-1][1].mean < 0.5:
                break
        return min(found, key=lambda one: abs(one[1].mean - 0.5))


# ---- all of them -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gates(Part):
    """All gates in order: text, execution, contract, review, novelty, difficulty.

    contract: L1 to L3.  difficulty: L5.  novelty: a program whose likeness to another is at least this is no news.
    """

    kind: ClassVar[str] = "environment_gates"

    contract: Contract = Contract()
    difficulty: Difficulty = Difficulty()
    novelty: Annotated[float, Gt(0), Le(1)] = 0.8

    def judge(
        self,
        programs: Sequence[Program],
        known: Iterable[Likeness] = (),
        measure: Measure | None = None,
        review: Review | None = None,
    ) -> list[Verdict]:
        """A verdict for every program. What is like one before it in the batch, or like one known, is no news.

        known: of the pool.  measure, review: the gates L5 and L4, left out where there is none.
        """
        likenesses = list(known)
        verdicts = []
        ran = {program: self.contract(program) for program in dict.fromkeys(programs)}
        for verdict in (ran[program] for program in programs):
            if verdict.admitted and review is not None:
                first = verdict.trace.samples[0].instances[0]
                verdict = verdict.then(
                    "review", None if review(verdict.program, first) else "the review finds it inconsistent"
                )
            if verdict.admitted:
                like = Likeness.of(verdict.trace)
                nearest = max((like.to(other) for other in likenesses), default=0.0)
                likenesses += [like] if nearest < self.novelty else []
                reason = f"likeness {nearest:.2f} to another" if nearest >= self.novelty else None
                verdict = verdict.then("novelty", reason)
            if verdict.admitted and measure is not None:
                verdict = self._measured(verdict, measure)
            verdicts.append(verdict)
        return verdicts

    def _measured(self, verdict: Verdict, measure: Measure) -> Verdict:
        try:
            level, rate = self.difficulty.search(verdict.program, verdict.levels, measure)
        except ProgramError as error:
            return verdict.then("difficulty", str(error))
        reason = None if self.difficulty.meets(rate) else f"solved {rate.mean:.2f} of the time at level {level}"
        return verdict.then("difficulty", reason, level=level, rate=rate)


def writer_reward(verdict: Verdict, partial: float = 0.0) -> float:
    """``1 - |2 p - 1|`` with the solver's rate ``p``; 0 where there is none, as for what is no news.

    The rate counts even where it is outside the band: there it is small anyhow. A program that fails L1, L2 or L3 earns
    ``partial`` for every gate before that. A reconstruction: the paper's formula was not available.
    """
    if verdict.failed in STAGES[:3]:
        return partial * len(verdict.passed)
    return 0.0 if verdict.rate is None else 1 - abs(2 * verdict.rate.mean - 1)


Solve = Callable[[Program, int, Sequence[Instance]], Sequence[Sequence[str]]]
"""The solver's answers, several to each instance of a program at a level."""


def measured(solve: Solve, instances: int = 8, seed: int = 0) -> Measure:
    """A measure that draws instances, has them answered, and scores the answers in the sandbox.

    instances: of a measurement, always the same ones of a program at a level.  seed: of which.
    Raises ``ProgramError``, when it is called, for a program that fails.
    """

    def measure(program: Program, level: int) -> Rate:
        source = seeded("measure", seed, program.key, level)
        drawn = program.instances([(source.getrandbits(31), level) for _ in range(instances)])
        answers = solve(program, level, drawn)
        pairs = [(one, text) for one, texts in zip(drawn, answers, strict=True) for text in texts]
        return Rate(sum(program.scores(pairs)), len(pairs))

    return measure


def stage_counts(verdicts: Iterable[Verdict]) -> Mapping[str, int]:
    """How many programs failed at each gate, and how many at none (``admitted``)."""
    counts = Counter(verdict.failed or "admitted" for verdict in verdicts)
    return {stage: counts[stage] for stage in (*STAGES, "admitted")}
