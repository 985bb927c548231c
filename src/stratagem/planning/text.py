"""Steps of text: a language model proposes them through an engine, and its critic judges what was written so far."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.language.chat import ChatFormat
from stratagem.language.engine import Completion, Engine, Request
from stratagem.language.inputs import TokenInputs
from stratagem.language.policy import LanguagePolicy
from stratagem.language.sampling import SamplingParams
from stratagem.planning.steps import Ask, Judged, Kind, Place, Step
from stratagem.seeding import derive


class Written(NamedTuple):
    """A question and what was written to it.

    question: whatever it is known by.  tokens: all the model reads, the prompt included.  steps: for every step where
    its sampled tokens begin and end in ``tokens``.  text: all that was sampled.  answer: None while there is none.
    """

    question: Hashable
    tokens: tuple[int, ...]
    steps: tuple[tuple[int, int], ...] = ()
    text: str = ""
    answer: Hashable | None = None


@dataclass(eq=False)
class TextSteps:
    """A language model that proposes steps, judges states by its critic, and reads paths again to learn from them.

    A step is what the engine samples up to one of ``params.stop`` (a newline, a closing tag), which is part of it. It
    ends the path where ``answer`` finds an answer in all that was sampled, or where the model ended its text. A step
    cut by the limit on tokens, and an empty one, leads nowhere. The prior is the geometric mean of the probabilities of
    its tokens, as they were sampled.

    Every step has a session of its own. Beginnings that steps sampled side by side have in common are computed once;
    those of earlier steps too, in a search within ``with engine.keeping(256):``, where the engine holds so many.

    policy: with a value head where states are judged.  engine: that serves its weights.
    params: how a step is sampled.  answer: of a text, None where there is none.
    cues: text put before a step of this kind, such as ``"Finish: "``; it is read and not learned.
    at_once: most steps sampled side by side.

    Raises :class:`InputError` without a stop string, and for ``at_once`` below 1.
    """

    policy: LanguagePolicy
    engine: Engine
    params: SamplingParams
    answer: Callable[[str], Hashable | None]
    cues: Mapping[Kind, str] = field(default_factory=dict)
    at_once: int = 1024

    def __post_init__(self) -> None:
        if not self.params.stop:
            raise InputError("text_steps.params.stop = (): must hold a string that ends a step")
        if self.at_once < 1:
            raise InputError(f"text_steps.at_once = {self.at_once}: must be at least 1")
        self._chat = ChatFormat(self.policy.tokenizer)
        tokenizer: Any = self.policy.tokenizer
        self._cues = {
            kind: tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) for kind, text in self.cues.items()
        }

    def start(self, question: Hashable, prompt: str) -> Written:
        """A question before the first step."""
        return Written(question, tuple(self._chat.opening([{"role": "user", "content": prompt}])))

    def propose(self, asks: Sequence[Ask[Written]]) -> list[list[Step[Written]]]:
        """Steps for every ask, each sampled by itself in a session of its own."""
        wanted = [(place, derive(ask.seed, "step", one)) for place, ask in enumerate(asks) for one in range(ask.number)]
        said: list[list[Step[Written]]] = [[] for _ in asks]
        for first in range(0, len(wanted), self.at_once):
            some = wanted[first : first + self.at_once]
            for (place, _), completion in zip(some, self._sampled(asks, some), strict=True):
                said[place].append(self._step(asks[place], completion))
        return said

    @torch.no_grad()
    def judge(self, places: Sequence[Place[Written]]) -> list[Judged]:
        """``tanh`` of the critic's value of every state, read at its last token."""
        tokens = [place.state.tokens for place in places]
        if not tokens:
            return []
        # The critic reads what comes before an action; which one stands there does not matter.
        lengths = torch.tensor([len(one) + 1 for one in tokens])
        packed = torch.tensor([number for one in tokens for number in (*one, 0)])
        inputs = TokenInputs(packed, lengths, lengths.cumsum(0) - 1).to(self.policy.device)
        value = self.policy.about(inputs, also={"value"}).value
        assert value is not None
        return [Judged(one) for one in value.tanh().tolist()]

    def record(self, paths: Sequence[tuple[Written, Sequence[Step[Written]]]]) -> Experience:
        """A batch with one trajectory for each path, one turn for each step, every trajectory a group."""
        ends = [steps[-1].state for _, steps in paths]
        states = [end for end in ends if end is not None]
        if len(states) < len(ends):
            raise InputError("a path that leads nowhere cannot be recorded")
        spans = [state.steps[len(root.steps) :] for (root, _), state in zip(paths, states, strict=True)]
        starts = torch.tensor([0, *(len(state.tokens) for state in states)]).cumsum(0).tolist()
        positions = [
            start + place
            for start, own in zip(starts, spans, strict=False)
            for first, last in own
            for place in range(first, last)
        ]
        inputs = TokenInputs(
            torch.tensor([token for state in states for token in state.tokens]),
            torch.tensor([len(state.tokens) for state in states]),
            torch.tensor(positions),
        )
        x = Experience.from_lengths(
            [last - first for own in spans for first, last in own],
            [len(own) for own in spans],
            [1] * len(paths),
            inputs=inputs,
            action=inputs.actions,
        )
        return x.to(self.policy.device)

    def refresh(self) -> None:
        """The weights have moved: the engine is to serve them."""
        self.engine.load_weights(self.policy, self.engine.version + 1)

    def _sampled(self, asks: Sequence[Ask[Written]], wanted: Sequence[tuple[int, int]]) -> list[Completion]:
        sessions = self.engine.open(len(wanted))
        try:
            return self.engine.generate(
                [
                    Request(session, [*asks[place].state.tokens, *self._cue(asks[place])], seed, self.params)
                    for session, (place, seed) in zip(sessions, wanted, strict=True)
                ]
            )
        finally:
            self.engine.close(sessions)

    def _cue(self, ask: Ask[Written]) -> tuple[int, ...]:
        return self._cues.get(ask.kind, ())

    def _step(self, ask: Ask[Written], said: Completion) -> Step[Written]:
        before, sampled = ask.state, len(said.tokens)
        if not sampled or not said.text.strip() or said.finish_reason == "length":
            return Step((ask.kind, said.text), None, 0.0, sampled)
        begin = len(before.tokens) + len(self._cue(ask))
        text = before.text + said.text
        # An answer that was looked at again must be given anew.
        answer = self.answer(said.text if before.answer is not None else text)
        state = Written(
            before.question,
            (*before.tokens, *self._cue(ask), *said.tokens),
            (*before.steps, (begin, begin + sampled)),
            text,
            answer,
        )
        ended = answer is not None or not said.text.endswith(self.params.stop)
        return Step((ask.kind, said.text), state, math.exp(sum(said.logp) / sampled), sampled, ended, answer)
