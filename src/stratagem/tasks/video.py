"""The video task: agents with different tools plan, look, tell each other what they saw, and vote."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Annotated, NamedTuple

from pydantic import Field

from stratagem.errors import InputError, unknown
from stratagem.tasks.options import configure, validate
from stratagem.tasks.splits import draw, seeded
from stratagem.tasks.task import Environment, Observation, Split, Step, Task, state_key

SYMBOLS = "ABCDEFGH"
"""What a frame may show."""

FRAMES, WINDOW = 64, 16
"""Frames of a video, and how many of them one look shows."""

ANSWERS = ("even", "odd")

NOTE = 200
"""Most characters of a note that others read."""

SHARES = (0.5, 0.3, 0.1, 0.1)
"""What an agent is paid for the team's answer, its own, its format and its collaboration."""

_CALL = re.compile(r"\s*([a-z]+)((?:\s+\w+)*)\s*")
_PLAN = re.compile(r"\s*plan:(.*)", re.DOTALL)
_GUESS = re.compile(r"\bguess:\s*(even|odd)\b")
_ANSWER = re.compile(r"\s*answer:\s*(even|odd)\s+([01](?:\.\d+)?|\.\d+)\s*")


class Reply(NamedTuple):
    """An agent's answer and how sure it is, from 0 to 1; None: it gave none that can be read."""

    answer: str | None
    confidence: float = 0.0


def vote(replies: Sequence[Reply]) -> str | None:
    """The answer of most; of equals the one of higher mean confidence, then that of the first agent. None: nobody's."""
    given = [reply for reply in replies if reply.answer is not None]
    if not given:
        return None
    by_answer = {reply.answer: [r.confidence for r in given if r.answer == reply.answer] for reply in given}
    return max(by_answer, key=lambda answer: (len(by_answer[answer]), sum(by_answer[answer]) / len(by_answer[answer])))


def collaboration(before: str | None, after: str | None, truth: str) -> float:
    """1 for who was wrong before the others spoke and is right now, 0 for the reverse, 0.5 for all else."""
    return 0.5 + 0.5 * ((after == truth) - (before == truth))


def pay(team: bool, own: bool, form: bool, together: float) -> float:
    """``0.5 team + 0.3 own + 0.1 format + 0.1 collaboration``: the reward of one agent."""
    return sum(share * float(part) for share, part in zip(SHARES, (team, own, form, together), strict=True))


# ---- what is seen and asked -----------------------------------------------------------------------------------------


class Scene(NamedTuple):
    """A video and a question about two of its symbols; ``kind`` is one of ``KINDS``, ``window`` the one it may name."""

    video: str
    kind: str
    first: str
    second: str
    window: int


class _Kind(NamedTuple):
    """A kind of question: its text, the tools it takes, the bits it is made of, and the answer that they make."""

    text: str
    tools: tuple[str, ...]
    calls: Callable[[Scene], tuple[str, ...]]
    bits: Callable[[Scene], tuple[int, ...]]
    answer: Callable[[tuple[int, ...]], int]


def _before(scene: Scene) -> int:
    return int(scene.video.index(scene.first) > scene.video.index(scene.second))


def _counts(scene: Scene) -> tuple[int, int]:
    return scene.video.count(scene.first) % 2, scene.video.count(scene.second) % 2


def _shown(scene: Scene) -> str:
    return scene.video[scene.window * WINDOW : (scene.window + 1) * WINDOW]


KINDS = {
    "sum": _Kind(
        "Is the number of {first} plus the place of the first {second} even or odd?",
        ("count", "first"),
        lambda s: (f"count {s.first}", f"first {s.second}"),
        lambda s: (s.video.count(s.first) % 2, s.video.index(s.second) % 2),
        lambda bits: sum(bits) % 2,
    ),
    "earlier": _Kind(
        "Of {first} and {second}, take the one that is seen first. Is its number even or odd?",
        ("count", "order"),
        lambda s: (f"count {s.first}", f"count {s.second}", f"order {s.first} {s.second}"),
        lambda s: (*_counts(s), _before(s)),
        lambda bits: bits[bits[2]],
    ),
    "window": _Kind(
        "Is the number of {first} in window {window} plus the place of the first {second} even or odd?",
        ("look", "first"),
        lambda s: (f"look {s.window}", f"first {s.second}"),
        lambda s: (_shown(s).count(s.first) % 2, s.video.index(s.second) % 2),
        lambda bits: sum(bits) % 2,
    ),
}
"""Kinds of questions. Each needs what two tools tell; the bits it is made of are even or odd alike, and independent."""


def truth(scene: Scene) -> str:
    """The right answer."""
    kind = KINDS[scene.kind]
    return ANSWERS[kind.answer(kind.bits(scene))]


def question(scene: Scene) -> str:
    """The question as agents read it."""
    return KINDS[scene.kind].text.format(first=scene.first, second=scene.second, window=scene.window)


def _scene(random: Random, kinds: Sequence[str]) -> Scene:
    """A video whose bits are drawn first, so that what one tool tells says nothing about another's."""
    kind = random.choice(kinds)
    first, second = random.sample(SYMBOLS, 2)
    window = random.randrange(FRAMES // WINDOW)
    wanted: tuple[int, ...] | None = None
    while True:
        scene = Scene("".join(random.choices(SYMBOLS, k=FRAMES)), kind, first, second, window)
        if first in scene.video and second in scene.video:
            found = KINDS[kind].bits(scene)
            wanted = wanted or tuple(random.randrange(2) for _ in found)
            if found == wanted:
                return scene


# ---- tools ----------------------------------------------------------------------------------------------------------


def _symbols(words: Sequence[str], count: int) -> bool:
    return len(words) == count and all(len(word) == 1 and word in SYMBOLS for word in words)


def _count(video: str, words: Sequence[str]) -> str | None:
    return f"{words[0]} is seen {video.count(words[0])} times" if _symbols(words, 1) else None


def _first(video: str, words: Sequence[str]) -> str | None:
    return f"the first {words[0]} is at place {video.find(words[0])}" if _symbols(words, 1) else None


def _look(video: str, words: Sequence[str]) -> str | None:
    windows = [str(number) for number in range(FRAMES // WINDOW)]
    if len(words) != 1 or words[0] not in windows:
        return None
    start = int(words[0]) * WINDOW
    return f"window {words[0]} shows {video[start : start + WINDOW]}"


def _order(video: str, words: Sequence[str]) -> str | None:
    if not _symbols(words, 2):
        return None
    found = sorted((word for word in words if word in video), key=video.index)
    return f"{found[0]} is seen first" if found else "neither is seen"


TOOLS: dict[str, tuple[Callable[[str, Sequence[str]], str | None], str]] = {
    "count": (_count, "`count A` tells how often A is seen"),
    "first": (_first, "`first A` tells at which place A is seen first, from 0"),
    "look": (_look, f"`look 0` shows the first {WINDOW} places, up to `look {FRAMES // WINDOW - 1}`"),
    "order": (_order, "`order A B` tells which of the two is seen first"),
}
"""Tools: what they do with the words after their name (None: they make no sense), and how agents are told."""


def use(video: str, call: str, allowed: Sequence[str]) -> str:
    """What a call tells, or what is wrong with it."""
    read = _CALL.fullmatch(call)
    if read is None or read[1] not in allowed:
        return f"error: no tool for {call.strip()!r}; there is {', '.join(allowed)}"
    told = TOOLS[read[1]][0](video, read[2].split())
    return told if told is not None else f"error: {TOOLS[read[1]][1]}"


def read_plan(text: str, most: int) -> list[str] | None:
    """The calls of ``plan: CALL; CALL``, the first ``most`` of them; None where there is no plan."""
    read = _PLAN.match(text)
    calls = [] if read is None else [call.strip() for call in read[1].split(";")]
    return [call for call in calls if call][:most] or None


# ---- an episode -----------------------------------------------------------------------------------------------------


@dataclass
class _Agent:
    """What an agent has done and knows."""

    tools: tuple[str, ...]
    plan: list[str] = field(default_factory=list)
    planned: bool = False
    evidence: str = ""
    note: str = ""
    guess: str | None = None
    reply: Reply = Reply(None)
    turn: int = 0


class VideoEnvironment(Environment):
    """One question, and the agents that are there. In each phase they act one after the other, and none hears of what
    another says before the phase is over."""

    def __init__(self, task: VideoTask, scene: Scene, present: Sequence[int]) -> None:
        self.task, self.scene, self.present = task, scene, tuple(present)

    def reset(self) -> Observation:
        self._agents = {number: _Agent(self.task.teams[number]) for number in self.present}
        talks = self.task.communication and len(self.present) > 1
        self._phases = ["plan", *(["note", "talk"] if talks else ["note"]) * self.task.steps, "answer"]
        self._phase, self._place, self._turns, self._calls = 0, 0, 0, 0
        return self._observe()

    def step(self, action: str) -> Step:
        agent = self._agents[self.present[self._place]]
        agent.turn = self._turns
        self._turns += 1
        self._take(agent, self._phases[self._phase], action)
        self._place = (self._place + 1) % len(self.present)
        if self._place == 0:
            self._phase += 1
            if self._phase == len(self._phases):
                return self._end()
            if self._phases[self._phase] == "note":
                self._execute()
        return Step(self._observe())

    def _take(self, agent: _Agent, phase: str, text: str) -> None:
        if phase == "plan":
            plan = read_plan(text, self.task.steps)
            agent.plan = plan or []
            agent.planned = bool(plan) and all(call.split()[0] in agent.tools for call in plan or [])
        elif phase == "note":
            found = _GUESS.search(text)
            agent.note, agent.guess = " ".join(text.split())[:NOTE], found[1] if found else None
        elif phase == "talk":
            revised = read_plan(text, self.task.steps)
            # Others read a plan as it was when the phase began: it takes effect with the next step.
            agent.plan = agent.plan if revised is None else revised
        else:
            read = _ANSWER.fullmatch(text)
            agent.reply = Reply(None) if read is None else Reply(read[1], min(float(read[2]), 1.0))

    def _execute(self) -> None:
        """The next call of every agent's plan."""
        for agent in self._agents.values():
            agent.evidence = "nothing left to do"
            if agent.plan:
                self._calls += 1
                agent.evidence = use(self.scene.video, agent.plan.pop(0), agent.tools)
        self._plans = {number: "; ".join(agent.plan) or "none" for number, agent in self._agents.items()}

    def _observe(self) -> Observation:
        number = self.present[self._place]
        agent, phase = self._agents[number], self._phases[self._phase]
        if phase == "plan":
            tools = "; ".join(TOOLS[tool][1] for tool in agent.tools)
            text = (
                f"You are agent {number}. {question(self.scene)}\nYour tools: {tools}.\n"
                f"Write `plan: CALL; CALL`, at most {self.task.steps}."
            )
        elif phase == "note":
            text = f"{agent.evidence}.\nWrite a note, with `guess: even` or `guess: odd`."
        elif phase == "talk":
            heard = [
                f"Agent {other}: plan {self._plans[other]}; note {self._agents[other].note or 'none'}"
                for other in self.present
                if other != number
            ]
            text = "\n".join([*heard, "Write `keep`, or another `plan: CALL; CALL` for what is left."])
        else:
            text = "Write `answer: even 0.8` or `answer: odd 0.8`, with how sure you are."
        return Observation(text, state_key("video", self.scene, number, self._phase, text), number, number)

    def _end(self) -> Step:
        agents, right = self._agents.values(), truth(self.scene)
        team = vote([agent.reply for agent in agents]) == right
        forms = [agent.planned and agent.reply.answer is not None for agent in agents]
        talked = "talk" in self._phases
        together = [collaboration(a.guess, a.reply.answer, right) if talked else 0.5 for a in agents]
        rewards = [0.0] * self._turns
        for agent, form, merit in zip(agents, forms, together, strict=True):
            rewards[agent.turn] = pay(team, agent.reply.answer == right, form, merit)
        noted = {
            "team": float(team),
            "format": float(all(forms)),
            "collaboration": sum(together) / len(together),
            "calls": float(self._calls),
        }
        return Step(
            Observation("", state_key("video", "over")),
            rewards[-1],
            done=True,
            success=team,
            components=noted,
            turn_rewards=rewards,
        )


# ---- the task -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class VideoTask(Task):
    """Agents with different tools answer a question about a video, which takes what two of their tools tell.

    A video is 64 symbols. Every agent has a role, and a conversation, of its own number::

        You are agent 0. Is the number of C plus the place of the first F even or odd?
        > plan: count C                 C is seen 7 times.
        > 7 times C, guess: odd         Agent 1: plan none; note the first F is at place 4, guess: even
        > keep                          > answer: odd 0.9

    All agents plan; then, ``steps`` times, each reads what its next call told, writes a note, reads plans and notes of
    the others, and keeps its plan or writes another for what is left. In the end each answers, and most votes win, of
    equals those of higher mean confidence, then that of the agent of the lowest number. What others say is of the same
    step: nobody acts on what was said in the phase under way. A plan that cannot be read is empty; a call that makes no
    sense tells what is wrong.

    An agent's reward is ``0.5 team + 0.3 own + 0.1 format + 0.1 collaboration``, on its last turn: whether the team is
    right, whether it is, whether plan (calls of its own tools) and answer can be read, and whether hearing the others
    changed its last guess for the better (1), for the worse (0), or not (0.5). The return is the sum over agents,
    success the team's. ``team``, ``format`` (everybody's), ``collaboration`` (its mean) and ``calls`` are noted. Stages
    and dropout are those of arXiv 2511.19524, of which the formulas were not available: rewards, their weights, tools
    and questions are ours.

    ``tools``: of each agent, by its letters: agents are divided by ``-``, tools of one by ``+``. Questions are those
    that the tools there are can answer.  ``steps``: calls of a plan, 1 to 8.  ``communication``: whether agents hear
    each other.  ``dropout``: probability that an agent is left out of a training episode, below 1; one at least stays,
    and its tools may not suffice. All rollouts of a question have the same agents. Test episodes have all.
    ``max_new_tokens``: of a turn.

    Raises :class:`InputError` for a tool that there is not and tools that can answer no question.
    """

    tools: str = "count-first"
    steps: Annotated[int, Field(ge=1, le=8)] = 1
    communication: bool = True
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    max_new_tokens: Annotated[int, Field(ge=1, le=100_000)] = 48

    name = "video"
    description = "agents with different tools look at a sequence, tell each other what they saw, and vote"
    reward_names = ("reward", "team", "format", "collaboration", "calls")
    reward_weights = (1.0, 0.0, 0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        validate(self)
        for tool in (tool for tools in self.teams for tool in tools):
            if tool not in TOOLS:
                raise unknown("tool of task 'video'", tool, TOOLS)
        if not self.kinds:
            pairs = ", ".join("+".join(kind.tools) for kind in KINDS.values())
            raise InputError(f"task 'video': tools={self.tools!r} can answer no question; one takes {pairs}")
        object.__setattr__(self, "max_turns", len(self.teams) * (2 + 2 * self.steps))

    @property
    def teams(self) -> tuple[tuple[str, ...], ...]:
        """The tools of every agent."""
        return tuple(tuple(tools.split("+")) for tools in self.tools.split("-"))

    @property
    def kinds(self) -> list[str]:
        """Kinds of questions that all agents together can answer."""
        there = {tool for tools in self.teams for tool in tools}
        return [name for name, kind in KINDS.items() if there.issuperset(kind.tools)]

    def environment(self, split: Split, index: int) -> VideoEnvironment:
        scene, present = self._drawn(split, index)
        return VideoEnvironment(self, scene, present)

    def solution(self, split: Split, index: int) -> Iterator[str]:
        return self._played(*self._drawn(split, index), wrong=False)

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        return self._played(*self._drawn(split, index), wrong=True)

    def answer(self, text: str) -> str | None:
        read = _ANSWER.fullmatch(text)
        return None if read is None else read[1]

    def _drawn(self, split: Split, index: int) -> tuple[Scene, tuple[int, ...]]:
        stream = ("video", self.tools)
        scene = draw(split, index, stream, lambda r: _scene(r, self.kinds), lambda s: state_key("video", s))
        random = seeded("video", "present", self.dropout, split, index)
        agents = range(len(self.teams))
        present: tuple[int, ...] = ()
        while not present:
            present = tuple(n for n in agents if split == "test" or random.random() >= self.dropout)
        return scene, present

    def _played(self, scene: Scene, present: Sequence[int], wrong: bool) -> Iterator[str]:
        """Agents that call what their tools can do for the question, say what they were told, and know the answer."""
        right = truth(scene)
        said = ANSWERS[1 - ANSWERS.index(right)] if wrong else right
        plans = {number: self._useful(scene, self.teams[number]) for number in present}
        yield from (f"plan: {'; '.join(plans[number])}" for number in present)
        for step in range(self.steps):
            for number in present:
                call = plans[number][step : step + 1]
                yield f"{use(scene.video, call[0], self.teams[number]) if call else 'nothing'}, guess: {said}"
            if self.communication and len(present) > 1:
                yield from ("keep" for _ in present)
        yield from (f"answer: {said} 1" for _ in present)

    def _useful(self, scene: Scene, tools: Sequence[str]) -> list[str]:
        """Calls for the question that these tools can make; any call where they can make none."""
        calls = [call for call in KINDS[scene.kind].calls(scene) if call.split()[0] in tools]
        word = {"look": "0", "order": f"{scene.first} {scene.second}"}.get(tools[0], scene.first)
        return (calls or [f"{tools[0]} {word}"])[: self.steps]


def from_spec(argument: str | None, options: Mapping[str, str]) -> VideoTask:
    """``video[:tools=count-first,steps=1,communication=true,dropout=0.2,max_new_tokens=48]``."""
    return configure(VideoTask, argument, options)
