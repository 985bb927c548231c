"""A frozen language model led by latent states."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

import pytest
import torch

from stratagem.errors import InputError
from stratagem.language.engine import Completion, Request, fingerprint
from stratagem.language.hf_engine import HFEngine
from stratagem.language.policy import LanguagePolicy
from stratagem.language.pretrain import tiny_model_path
from stratagem.language.sampling import SamplingParams
from stratagem.latent import LatentStates
from stratagem.latent.steps import write_steps
from stratagem.memory import HashedNgrams

LINES = SamplingParams(max_new_tokens=8, stop=("\n",))
STEPS = ["add\n", "multiply\n", "subtract\n"]
EMBED = HashedNgrams(width=64)
STATES = LatentStates(EMBED(STEPS), temperature=0.5)


class Scripted:
    """Proposes the same steps at every turn, one to each session; after some turns it ends."""

    version = 0

    def __init__(self, turns: int = 100) -> None:
        self.turns, self.read, self.opened = turns, [], 0

    def open(self, count: int) -> list[int]:
        self.opened += count
        return list(range(count))

    def close(self, sessions: Sequence[int]) -> None:
        self.opened -= len(sessions)

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        self.read.append([list(request.tokens) for request in requests])
        last = len(self.read) >= self.turns
        steps = [step.strip() if last else step for step, _ in zip(cycle(STEPS), requests, strict=False)]
        return [Completion([number, 9], [0.0, 0.0], "stop", 0, step) for number, step in enumerate(steps)]


def test_the_step_kept_is_the_one_most_of_the_state_that_was_named():
    plan = {None: 2, 2: 0, 0: 1}
    engine = Scripted()
    led = write_steps(engine, [5], plan.__getitem__, STATES, EMBED, LINES, candidates=3, steps=3)
    assert led.text == "subtract\nadd\nmultiply\n" and led.states == (2, 0, 1)
    assert led.tokens == (2, 9, 0, 9, 1, 9) and min(led.match) > 0.9
    # All candidates count, those thrown away included; each reads the prompt and the steps that were kept.
    assert led.sampled == 3 * 3 * 2 and not led.ended
    assert engine.read[2] == [[5, 2, 9, 0, 9]] * 3 and engine.opened == 0


def test_a_step_without_its_end_is_the_last():
    led = write_steps(Scripted(2), [5], lambda _: 0, STATES, EMBED, LINES, candidates=3, steps=9)
    assert led.ended and led.text == "add\nadd" and len(led.states) == 2


def test_one_candidate_is_kept_whatever_was_named():
    led = write_steps(Scripted(), [5], lambda _: 2, STATES, EMBED, LINES, candidates=1, steps=2)
    assert led.text == "add\nadd\n" and max(led.match) < 0.5


def test_sessions_are_closed_when_the_engine_breaks():
    class Broken(Scripted):
        def generate(self, requests: Sequence[Request]) -> list[Completion]:
            raise RuntimeError("broken")

    engine = Broken()
    with pytest.raises(RuntimeError):
        write_steps(engine, [5], lambda _: 0, STATES, EMBED, LINES)
    assert engine.opened == 0


def test_the_model_that_writes_is_not_touched():
    policy = LanguagePolicy.from_path(tiny_model_path(), dtype="float32")
    engine = HFEngine(policy)
    before = {name: fingerprint(tensor) for name, tensor in policy.weights()}
    prompt = policy.tokenizer("go north\n")["input_ids"]
    led = write_steps(engine, prompt, lambda _: 1, STATES, EMBED, LINES, candidates=2, steps=2, seed=1)
    again = write_steps(engine, prompt, lambda _: 1, STATES, EMBED, LINES, candidates=2, steps=2, seed=1)
    assert led == again and led.sampled >= len(led.tokens) > 0
    assert {name: fingerprint(tensor) for name, tensor in policy.weights()} == before
    assert all(tensor.grad is None for tensor in policy.parameters())


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"candidates": 0}, "candidates = 0"),
        ({"steps": 0}, "steps = 0"),
        ({"params": SamplingParams(4)}, "stop is empty"),
    ],
)
def test_what_cannot_be_is_refused(changes, error):
    arguments = {"params": LINES, **changes}
    with pytest.raises(InputError, match=error):
        write_steps(Scripted(), [5], lambda _: 0, STATES, EMBED, **arguments)


def test_the_posterior_of_text_is_that_of_its_vector():
    torch.testing.assert_close(STATES.posterior(EMBED(["add"])).argmax(-1), torch.tensor([0]))
