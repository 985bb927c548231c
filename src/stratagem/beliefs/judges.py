"""Who judges a belief: a rule, where the world can be asked, or a helper that reads it."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from stratagem.beliefs.text import Claim, folded
from stratagem.helpers.helper import Counted, Question
from stratagem.tasks.task import Environment, Split, Task


class Evidence(NamedTuple):
    """What an observation says of a claim: for it or against it, and whether that settles it."""

    claim: str
    supports: bool
    settles: bool = False


class Judgement(NamedTuple):
    """Counts of a belief (:func:`~stratagem.beliefs.tracking`, :func:`~stratagem.beliefs.correctness`); None: unknown.

    tracked: facts of the last observation held and missing, and stale claims.  checked: claims that are correct,
    partly so, and verifiable.
    """

    tracked: tuple[int, int, int] | None = None
    checked: tuple[int, int, int] | None = None


class ObservedEnvironment(Environment):
    """An environment that can be asked about claims, while training."""

    @abstractmethod
    def truth(self, claim: str) -> bool | None:
        """Whether a claim is true now; None where it cannot be verified."""

    @abstractmethod
    def evidence(self) -> list[Evidence]:
        """What the last observation says."""

    @abstractmethod
    def contradicted(self, claim: str) -> bool:
        """Whether the last observation settles that the claim is false."""

    @abstractmethod
    def state(self) -> str:
        """The true state in words."""

    @abstractmethod
    def belief(self) -> str:
        """The belief of a perfect observer who knows the rules of the world and has read all observations."""


class ObservedTask(Task):
    """A task whose environments can be asked about claims."""

    @abstractmethod
    def environment(self, split: Split, index: int) -> ObservedEnvironment: ...


def by_rule(before: Sequence[Claim], after: Sequence[Claim], world: ObservedEnvironment) -> Judgement:
    """What the rules say of the belief ``after`` an observation, which was ``before``.

    Evidence is held when its claim is made with a label that is not further from what the evidence says than before;
    evidence that settles needs a probability of at least 0.95 (at most 0.1 when it is against). A claim is stale that
    was made before, is contradicted, and is still at least possible. Of claims that can be verified, a true one is
    correct with a probability of 0.5 or more and partly so below; a false one is correct below 0.5. A claim without a
    label is not counted.
    """
    earlier, now = _stated(before), _stated(after)
    told = world.evidence()
    new = sum(_held(evidence, earlier, now) for evidence in told)
    stale = sum(p >= 0.5 and text in earlier and world.contradicted(text) for text, p in now.items())
    correct = partial = verifiable = 0
    for claim in after:
        true, probability = world.truth(claim.text), claim.probability
        if true is None or probability is None:
            continue
        verifiable += 1
        correct += (probability >= 0.5) == true
        partial += true and probability < 0.5
    return Judgement((new, len(told) - new, stale), (correct, partial, verifiable))


def ask_judge(judge: Counted, before: str, observation: str, after: str, truth: str | None, seed: int) -> Judgement:
    """What a helper counts; nothing where it is down or does not answer in numbers.

    truth: the true state in words; None: what needs it is not asked.
    """
    text = f"Last belief:\n{before}\n\nNew observation:\n{observation}\n\nNew belief:\n{after}\n\n{_TRACKING}"
    if truth is not None:
        text += f"\n\nTrue state:\n{truth}\n\n{_CHECKING}"
    reply = judge.ask_one(Question.of(text, seed)).text or ""
    tracked = _counts(reply, "new", "missing", "stale")
    checked = None if truth is None else _counts(reply, "correct", "partial", "verifiable")
    if checked is not None and checked[0] + checked[1] > checked[2]:
        checked = None
    return Judgement(tracked, checked)


_TRACKING = (
    "Count and answer in lines `new: N`, `missing: N`, `stale: N`. new: facts of the new observation that the new "
    "belief holds. missing: those it lacks. stale: claims of the last belief that it keeps although the observation "
    "contradicts them."
)
_CHECKING = (
    "Count also `correct: N`, `partial: N`, `verifiable: N`. verifiable: claims of the new belief that the true state "
    "decides. correct: of these, those whose label fits. partial: true facts with a badly wrong label."
)


def _stated(bullets: Sequence[Claim]) -> dict[str, float]:
    """Claims with their probabilities; of a claim made twice the later one."""
    return {bullet.text: p for bullet in bullets if (p := bullet.probability) is not None}


def _held(evidence: Evidence, earlier: dict[str, float], now: dict[str, float]) -> bool:
    text = folded(evidence.claim)
    if text not in now:
        return False
    if evidence.settles:
        return now[text] >= 0.95 if evidence.supports else now[text] <= 0.1
    least = earlier.get(text, now[text])
    return now[text] >= least if evidence.supports else now[text] <= least


def _counts(reply: str, *names: str) -> tuple[int, int, int] | None:
    """The number after each name; None where one is lacking."""
    found = [re.search(rf"\b{name}\s*[:=]\s*(\d{{1,6}})\b", reply, re.IGNORECASE) for name in names]
    first, second, third = (None if one is None else int(one[1]) for one in found)
    return None if first is None or second is None or third is None else (first, second, third)
