"""Searches without a tree to go back to: a beam of the best steps, and whole solutions sampled apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Generic, TypeVar

from annotated_types import Ge

from stratagem.planning.steps import Found, Reward, Search, StepJudge, StepPolicy
from stratagem.planning.tree import Node
from stratagem.planning.votes import Choice, chosen_answer
from stratagem.seeding import derive

S = TypeVar("S")


class _Line(Generic[S]):
    """One question: its paths that go on, those with an answer, and what they cost."""

    def __init__(self, roots: Sequence[Node[S]]) -> None:
        self.going = list(roots)
        self.finished: list[Node[S]] = []
        self.policy_tokens = self.judge_tokens = 0

    @property
    def tokens(self) -> int:
        return self.policy_tokens + self.judge_tokens

    def found(self, chosen: Node[S] | None, reward: Reward[S] | None) -> Found[S]:
        solutions = [node.solution(reward) for node in self.finished]
        statistics = {
            "answers": float(len(solutions)),
            "policy_tokens": float(self.policy_tokens),
            "judge_tokens": float(self.judge_tokens),
        }
        place = None if chosen is None else self.finished.index(chosen)
        return Found(tuple(solutions), None if place is None else solutions[place], self.tokens, statistics)


@dataclass(frozen=True)
class StepBeam(Search):
    """Step-level beam search ``SBS(beams, samples)`` (arXiv 2405.03553, section 3.4): keep the steps of highest value.

    Of every path ``samples`` next steps are asked for, ``beams * samples`` of the question itself; the judge values
    them all, and the best ``beams`` are kept, the first of equals. A path with an answer leaves and takes its place
    with it, so that the beam narrows. It stops when all have left or died out; the answer is the one of highest value,
    and there is none where no path came to one. A path cut short by ``tokens`` has no answer.

    beams, samples: at least 1; ``StepBeam(1, 1)`` follows the policy's own steps.

    Statistics: ``answers``, ``policy_tokens``, ``judge_tokens``.
    """

    beams: Annotated[int, Ge(1)] = 3
    samples: Annotated[int, Ge(1)] = 5

    def __call__(
        self,
        roots: Sequence[S],
        policy: StepPolicy[S],
        judge: StepJudge[S] | None = None,
        reward: Reward[S] | None = None,
        seed: int = 0,
        tokens: int | None = None,
    ) -> list[Found[S]]:
        self._check(judge, True, tokens)
        assert judge is not None
        lines = [_Line([Node.root(root, derive(seed, "question", n))]) for n, root in enumerate(roots)]
        while growing := [line for line in lines if line.going and (tokens is None or line.tokens < tokens)]:
            fresh = _proposed(growing, policy, self.samples, self.beams, self.depth, self.distinct)
            asked = [(line, node) for line, nodes in zip(growing, fresh, strict=True) for node in nodes]
            said = judge.judge([node.place for _, node in asked]) if asked else []
            for (line, node), judged in zip(asked, said, strict=True):
                node.value = float(judged.value)
                line.judge_tokens += judged.tokens
            for line, nodes in zip(growing, fresh, strict=True):
                kept = sorted(nodes, key=lambda node: -node.value)[: self.beams - len(line.finished)]
                line.finished += [node for node in kept if node.ended]
                line.going = [node for node in kept if not node.ended]
        return [line.found(max(line.finished, key=lambda n: n.value, default=None), reward) for line in lines]


@dataclass(frozen=True)
class Samples(Search):
    """Whole solutions, each sampled by itself; the answer is chosen by a vote. One sample with a greedy policy: greedy.

    With a judge every solution is valued once it has its answer. ``tokens`` ends the sampling of all that are on their
    way.

    count: solutions, at least 1.  by: how the answer is chosen (:func:`~stratagem.planning.votes.chosen_answer`):
    ``majority`` counts solutions, the others need a judge.

    Statistics: ``answers``, ``policy_tokens``, ``judge_tokens``.
    """

    count: Annotated[int, Ge(1)] = 1
    by: Choice = "majority"

    def __call__(
        self,
        roots: Sequence[S],
        policy: StepPolicy[S],
        judge: StepJudge[S] | None = None,
        reward: Reward[S] | None = None,
        seed: int = 0,
        tokens: int | None = None,
    ) -> list[Found[S]]:
        self._check(judge, self.by != "majority", tokens)
        lines = []
        for number, root in enumerate(roots):
            seeds = [derive(seed, "question", number)]
            seeds += [derive(seeds[0], "sample", one) for one in range(1, self.count)]
            lines.append(_Line([Node.root(root, own) for own in seeds]))
        while growing := [line for line in lines if line.going and (tokens is None or line.tokens < tokens)]:
            for line, nodes in zip(growing, _proposed(growing, policy, 1, 1, self.depth, False), strict=True):
                line.finished += [node for node in nodes if node.ended]
                line.going = [node for node in nodes if not node.ended]
        if judge is not None:
            _value(lines, judge)
        return [line.found(self._chosen(line), reward) for line in lines]

    def _chosen(self, line: _Line[S]) -> Node[S] | None:
        """The first solution with the chosen answer, of those the one of highest value."""
        nodes = line.finished
        answer = chosen_answer([node.step.answer for node in nodes], [node.value for node in nodes], self.by)
        mine = [node for node in nodes if answer is not None and node.step.answer == answer]
        return max(mine, key=lambda node: node.value, default=None)


def _value(lines: Sequence[_Line[S]], judge: StepJudge[S]) -> None:
    """Let the judge value all solutions."""
    asked = [(line, node) for line in lines for node in line.finished]
    said = judge.judge([node.place for _, node in asked]) if asked else []
    for (line, node), judged in zip(asked, said, strict=True):
        node.value = float(judged.value)
        line.judge_tokens += judged.tokens


def _proposed(
    lines: Sequence[_Line[S]], policy: StepPolicy[S], samples: int, beams: int, depth: int, distinct: bool
) -> list[list[Node[S]]]:
    """Fresh nodes of every line, without the lost ones; the question itself is asked for ``beams`` times as many."""
    asked = [(number, node) for number, line in enumerate(lines) for node in line.going]
    said = policy.propose([node.ask(samples if node.depth else samples * beams) for _, node in asked])
    fresh: list[list[Node[S]]] = [[] for _ in lines]
    for (number, node), steps in zip(asked, said, strict=True):
        lines[number].policy_tokens += sum(step.tokens for step in steps)
        fresh[number] += [child for child in node.add(steps, "reason", depth, distinct) if not child.lost]
    return fresh
