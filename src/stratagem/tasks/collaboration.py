"""The collaborate task: one agent of several decides whether to believe a peer, to solve anew, or to ask an expert."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import Field

from stratagem.errors import InputError
from stratagem.helpers.helper import Counted, Message, Question
from stratagem.helpers.lines import append_lines, line_lock
from stratagem.helpers.named import helper
from stratagem.helpers.scripted import Scripted
from stratagem.tasks.noisy_solver import Chain, NoisySolver, bracketed, chain_of_episode
from stratagem.tasks.options import configure, validate
from stratagem.tasks.task import Environment, Observation, Split, Step, Task, state_key

_META = re.compile(r"^\s*(?:(EVAL)\s+(\d{1,3})|(CREATE)|(DEFER))\s*$", re.IGNORECASE)
_PEER_ERROR = 0.02
"""Of the noisy solver as a peer and as the agent itself."""


@dataclass(frozen=True)
class CollaborateTask(Task):
    """One turn of one agent in one round of a collaboration: ``EVAL j``, ``CREATE`` or ``DEFER``.

    Each of ``agents`` answers a question on its own (round 0). Agent 1 then reads the question, its own answer and the
    latest answers of its peers, and takes over the answer of peer ``j`` (``EVAL j``, from 2 on), solves the question
    anew (``CREATE``), or takes the expert's answer (``DEFER``). Anything else, a peer there is not, or an expert who is
    away counts as ``CREATE``.

    The reward is 1 for a right answer, and so is success. ``cost`` notes what the choice costs, for recipes that charge
    it (:class:`~stratagem.rewards.CostPenalty`); ``deferred``, ``malformed`` and ``vote`` (the majority of the agents'
    latest answers is right, the first of equally frequent ones counting) are noted, too. None of these pays by itself.
    The meta-actions and their order of costs are those of arXiv 2603.07972, whose numbers were not available: 0, 0.1
    and 0.3 are a reconstruction. Questions are chains of arithmetic in words, and one round is played.

    agents: 1 to 8; alone there is nobody to believe.  eval_cost, create_cost, defer_cost: ``eval_cost <= create_cost <
    defer_cost``, or all 0.  solver: who answers for agents: ``noisy``, or a helper by name.  expert: ``exact``,
    ``none`` (away: not among the candidates), or a helper by name. A helper that does not answer fails the episode, so
    an expert who is down is missing from a group of candidates, and never right or wrong.
    taught: file to which right answers of the expert to training questions are appended, one JSON object
    (``prompt``, ``answer``) a line, each once a process, for supervised learning with ``jsonl:PATH``; wrong answers and
    test questions never are.
    """

    agents: Annotated[int, Field(ge=1, le=8)] = 3
    eval_cost: Annotated[float, Field(ge=0)] = 0.0
    create_cost: Annotated[float, Field(ge=0)] = 0.1
    defer_cost: Annotated[float, Field(ge=0)] = 0.3
    solver: str = "noisy"
    expert: str = "exact"
    taught: str = ""
    fewest_steps: Annotated[int, Field(ge=2, le=12)] = 2
    most_steps: Annotated[int, Field(ge=2, le=12)] = 6
    seed: int = 0
    max_new_tokens: Annotated[int, Field(ge=1, le=1000)] = 8

    name = "collaborate"
    description = "believe a peer, solve anew, or ask an expert"
    system = "Decide whose answer to take: write `EVAL j` for that of agent j, `CREATE` to solve anew, `DEFER` to ask."
    reward_names = ("correct", "cost", "deferred", "malformed", "vote")
    reward_weights = (1.0, 0.0, 0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        validate(self)
        costs = (self.eval_cost, self.create_cost, self.defer_cost)
        if any(costs) and not costs[0] <= costs[1] < costs[2]:
            raise InputError(
                f"task 'collaborate': costs {costs} are not allowed; write eval <= create < defer, or all 0"
            )
        if self.fewest_steps > self.most_steps:
            raise InputError(
                f"task 'collaborate': fewest_steps={self.fewest_steps} is not allowed; it should be at most "
                f"most_steps={self.most_steps}"
            )
        if self.taught and not Path(self.taught).expanduser().parent.is_dir():
            raise InputError(f"task 'collaborate': taught={self.taught!r}: no such folder")
        self.solving()
        self.asking()

    def solving(self) -> Counted:
        """Who answers for the agents."""
        return _noisy() if self.solver == "noisy" else helper(self.solver)

    def asking(self) -> Counted | None:
        """The expert; None where there is none."""
        if self.expert == "none":
            return None
        return _exact() if self.expert == "exact" else helper(self.expert)

    def environment(self, split: Split, index: int) -> CollaborateEnvironment:
        return CollaborateEnvironment(self, split, index)

    def question(self, split: Split, index: int) -> Chain:
        """The question of this episode."""
        return chain_of_episode(self.name, split, index, self.fewest_steps, self.most_steps)

    def candidates(self, split: Split, index: int) -> Sequence[Sequence[str]]:
        """Every peer, solving anew, and the expert where there is one: ``agents + 1`` of them, or one less."""
        defer = [] if self.expert == "none" else [["DEFER"]]
        return [*([f"EVAL {peer}"] for peer in range(2, self.agents + 1)), ["CREATE"], *defer]

    def solution(self, split: Split, index: int) -> Iterator[str]:
        """Ask the expert. Raises ``NotImplementedError`` without the exact one."""
        if self.expert != "exact":
            raise NotImplementedError("collaborate: what is right is known with expert=exact alone")
        yield "DEFER"

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        """A choice that is wrong: of a peer or of solving anew."""
        wrong = self._wrong(split, index)
        assert wrong is not None, "checkable says where there is one"
        yield wrong

    def checkable(self, split: Split, index: int) -> bool:
        """Not where every peer is right, and who solves anew."""
        return self._wrong(split, index) is not None

    def _wrong(self, split: Split, index: int) -> str | None:
        for [action] in self.candidates(split, index):
            environment = self.environment(split, index)
            environment.reset()
            if action != "DEFER" and not environment.step(action).success:
                return action
        return None

    def answer(self, text: str) -> str | None:
        """The choice, in capitals; None where it cannot be read."""
        return " ".join(text.upper().split()) if _META.match(text) else None


class CollaborateEnvironment(Environment):
    """One question. A state is the question and the answers there are."""

    def __init__(self, task: CollaborateTask, split: Split, index: int) -> None:
        self.task, self.split, self.index = task, split, index
        self.chain = task.question(split, index)
        self._said: list[str] = []

    def reset(self) -> Observation:
        """Let all agents answer. Raises :class:`HelperError` when one does not."""
        asked = [Question((_user(self.chain.text),), self._seed(agent, 0)) for agent in range(1, self.task.agents + 1)]
        self._said = [reply.required() for reply in self.task.solving().ask(asked)]
        own, *peers = map(bracketed, self._said)
        told = [f"Agent {agent}: {answer}" for agent, answer in enumerate(peers, 2)]
        return self._observe("\n".join([self.chain.text, f"You: {own}", *told]))

    def step(self, action: str) -> Step:
        """Raises :class:`HelperError` when who is asked does not answer."""
        task = self.task
        kind, peer = self._read(action)
        components = {"malformed": float(kind == "malformed"), "deferred": float(kind == "defer")}
        expert = task.asking()
        if kind == "eval":
            said, cost = self._said[peer - 1], task.eval_cost
        elif kind == "defer" and expert is not None:
            said, cost = (
                expert.ask_one(Question((_user(self.chain.text),), self._seed(0, 1))).required(),
                task.defer_cost,
            )
            self._teach(said)
        else:
            said, cost = task.solving().ask_one(Question(self._shared(), self._seed(1, 1))).required(), task.create_cost
        right = self._right(said)
        votes = Counter(map(bracketed, [said, *self._said[1:]]))
        vote = votes.most_common(1)[0][0] == str(self.chain.answer)
        return Step(
            self._observe("right" if right else "wrong"),
            float(right),
            done=True,
            success=right,
            components={**components, "cost": cost, "vote": float(vote)},
        )

    def _read(self, action: str) -> tuple[str, int]:
        """``eval`` and whom, ``create``, ``defer``, or ``malformed``."""
        found = _META.match(action)
        if found is None:
            return "malformed", 0
        if found[1]:
            peer = int(found[2])
            return ("eval", peer) if 2 <= peer <= self.task.agents else ("malformed", 0)
        if found[4] and self.task.expert == "none":
            return "malformed", 0
        return ("defer" if found[4] else "create"), 0

    def _shared(self) -> tuple[Message, ...]:
        """What an agent that solves anew is asked: the question, with what everybody said as context."""
        told = [f"Agent {agent} said: {bracketed(said)}" for agent, said in enumerate(self._said, 1)]
        return ({"role": "system", "content": "\n".join(told)}, _user(self.chain.text))

    def _teach(self, said: str) -> None:
        if self.task.taught and self.split == "train" and self._right(said):
            _teach(Path(self.task.taught).expanduser(), self.chain.text, said)

    def _right(self, said: str) -> bool:
        return bracketed(said) == str(self.chain.answer)

    def _seed(self, agent: int, round_number: int) -> int:
        key = state_key("collaborate", self.task.seed, self.split, self.index, agent, round_number)
        return key & (2**31 - 1)

    def _observe(self, text: str) -> Observation:
        return Observation(text, state_key("collaborate", self.chain.text, self._said, text))


def from_spec(argument: str | None, options: Mapping[str, str]) -> CollaborateTask:
    """``collaborate[:agents=3,solver=noisy,expert=exact,...]``."""
    return configure(CollaborateTask, argument, options)


def exact_expert(messages: Sequence[Message], seed: int) -> str:
    """Works out the last question, however long, without an error."""
    return NoisySolver(0.0)(messages[-1:], seed)


@cache
def _teach(path: Path, question: str, said: str) -> None:
    with line_lock(path):
        path.touch()
        append_lines(path, [json.dumps({"prompt": question, "answer": said}) + "\n"])


@cache
def _noisy() -> Counted:
    return Counted(Scripted(NoisySolver(_PEER_ERROR), f"noisy {_PEER_ERROR:g}"), "noisy")


@cache
def _exact() -> Counted:
    return Counted(Scripted(exact_expert, "exact"), "exact")


def _user(content: str) -> Message:
    return {"role": "user", "content": content}
