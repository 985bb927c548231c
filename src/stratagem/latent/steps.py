"""A frozen language model led by latent states: of several steps it proposes, the one that is most of a named state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stratagem.errors import InputError
from stratagem.language.engine import Engine, Request
from stratagem.language.sampling import SamplingParams
from stratagem.latent.encoder import LatentStates
from stratagem.memory.embedding import Embedding
from stratagem.seeding import derive


@dataclass(frozen=True)
class Led:
    """A solution written step by step.

    text, tokens: of the steps kept.  states: that were named.  match: ``q(s | x)`` of each step kept at the state named
    for it.  sampled: tokens in all, of the steps thrown away, too.  ended: whether the model came to an end itself.
    """

    text: str
    tokens: tuple[int, ...]
    states: tuple[int, ...]
    match: tuple[float, ...]
    sampled: int
    ended: bool


def write_steps(
    engine: Engine,
    prompt: Sequence[int],
    name_state: Callable[[int | None], int],
    states: LatentStates,
    embed: Embedding,
    params: SamplingParams,
    candidates: int = 4,
    steps: int = 16,
    seed: int = 0,
) -> Led:
    """Write a solution: name the next state, sample steps, keep the one with the largest ``q(s | x)`` at that state.

    The weights are only read; the model needs no way to be told a state. Every candidate is sampled from the whole text
    so far in a session of its own, which is read anew for each step: what it costs in reading grows with the length.
    With one candidate it is plain sampling.

    prompt: token ids.  name_state: the next state, given the one named last, None before the first step; a sample of
    the transitions.  params: of one step; ``stop`` says how a step ends, and a step without it ends the solution.
    candidates, steps: at least 1; steps beyond the last are not written.

    Raises :class:`InputError` for counts below 1 and params without a stop string.
    """
    for what, count in (("candidates", candidates), ("steps", steps)):
        if count < 1:
            raise InputError(f"write_steps: {what} = {count}: must be at least 1")
    if not params.stop:
        raise InputError("write_steps: params.stop is empty: it must say how a step ends, such as a line break")
    kept: list[int] = []
    text, sampled, ended = "", 0, False
    named: list[int] = []
    match: list[float] = []
    while len(named) < steps and not ended:
        state = name_state(named[-1] if named else None)
        sessions = engine.open(candidates)
        try:
            written = engine.generate(
                [
                    Request(session, [*prompt, *kept], derive(seed, "step", len(named), number), params)
                    for number, session in enumerate(sessions)
                ]
            )
        finally:
            engine.close(sessions)
        sampled += sum(len(completion.tokens) for completion in written)
        fits = states.posterior(embed([completion.text for completion in written]))[:, state]
        best = written[int(fits.argmax())]
        kept += best.tokens
        text += best.text
        named.append(state)
        match.append(float(fits.max()))
        ended = best.finish_reason != "stop" or not best.text.endswith(params.stop)
    return Led(text, tuple(kept), tuple(named), tuple(match), sampled, ended)
