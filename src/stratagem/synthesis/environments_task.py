"""Environments written as programs, as a task to train on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any

from pydantic import Field

from stratagem.errors import InputError
from stratagem.synthesis.pool import EnvironmentPool, Member
from stratagem.synthesis.programs import Instance, Program
from stratagem.tasks.answers import final_answer
from stratagem.tasks.options import check_names, validate
from stratagem.tasks.splits import seeded, split_of
from stratagem.tasks.task import Environment, Observation, Split, Step, Task, state_key

_BLOCK, _DRAWS, _ROUNDS = 16, 8, 40
"""Episodes made at a time, instances drawn for each at a time, and how often."""


@dataclass(frozen=True)
class EnvironmentsTask(Task):
    """A fresh instance of an environment of a pool in every episode; the reward is the program's score, in [0, 1].

    Episode ``i`` is number ``i // n`` of member ``i mod n`` of ``n``: as many of each, and in a batch each member is a
    domain (:class:`stratagem.sampling.Domains`). A pool that changes while a run trains on it changes the episodes to
    come. What follows ``answer:``, or all that was written, is scored. Success is a score of 1. Training and test
    instances are kept apart by their prompts.

    Programs run in the :func:`~stratagem.sandbox.isolation.sandbox` of this machine: once for sixteen instances, and
    once for every answer.

    pool: of at least one environment.  level: of all of them, 1 to 100; 0 for each its own.
    max_new_tokens: of an answer, 1 to 100,000.
    """

    pool: Any
    level: Annotated[int, Field(ge=0, le=100)] = 0
    max_new_tokens: Annotated[int, Field(ge=1, le=100_000)] = 256

    name = "environments"
    description = "fresh instances of environments that are written as programs"
    system = "Work out the question and end with `answer:` and the answer alone."

    def __post_init__(self) -> None:
        validate(self)
        if not len(self.pool):
            raise InputError("task 'environments': the pool is empty")

    def member_of(self, index: int) -> tuple[Member, int]:
        """The environment that an episode is of, and its number there."""
        number, place = divmod(index, len(self.pool))
        return self.pool.members[place], number

    def environment(self, split: Split, index: int) -> ProgramEnvironment:
        return ProgramEnvironment(self.member_of(index)[0].program, *self.instance(split, index))

    def instance(self, split: Split, index: int) -> tuple[Instance, int]:
        """What an episode asks, and at which level."""
        member, number = self.member_of(index)
        level = min(self.level or member.level, member.highest)
        return _block(member.program, level, split, number // _BLOCK)[number % _BLOCK], level

    def solution(self, split: Split, index: int) -> Iterator[str]:
        yield f"answer: {self.instance(split, index)[0].reference}"

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        """The reference with a letter too much."""
        yield f"answer: {self.instance(split, index)[0].reference}x"

    def answer(self, text: str) -> str | None:
        """What follows ``answer:``."""
        return final_answer(text) or None


class ProgramEnvironment(Environment):
    """One instance."""

    def __init__(self, program: Program, instance: Instance, level: int) -> None:
        self.program, self.instance, self.level = program, instance, level

    def reset(self) -> Observation:
        return self._observe(self.instance.prompt)

    def step(self, action: str) -> Step:
        [score] = self.program.scores([(self.instance, final_answer(action))])
        right = score == 1
        return Step(self._observe("right" if right else "wrong"), score, done=True, success=right)

    def _observe(self, text: str) -> Observation:
        return Observation(text, state_key("environments", self.instance.prompt, text))


@lru_cache(maxsize=1024)
def _block(program: Program, level: int, split: Split, block: int) -> tuple[Instance, ...]:
    """Episodes ``16 b`` to ``16 b + 15`` of an environment: each the first of its own draws that is of the split."""
    chosen: dict[int, Instance] = {}
    for attempt in range(_ROUNDS):
        left = [place for place in range(_BLOCK) if place not in chosen]
        draws = [(place, draw) for place in left for draw in range(_DRAWS)]
        seeds = [seeded("environments", program.key, level, split, block, attempt, *of).getrandbits(31) for of in draws]
        for (place, _), one in zip(draws, program.instances([(seed, level) for seed in seeds]), strict=True):
            if split_of(state_key("environments", one.prompt)) == split:
                chosen.setdefault(place, one)
        if len(chosen) == _BLOCK:
            return tuple(chosen[place] for place in range(_BLOCK))
    raise InputError(f"task 'environments': environment {program.key} has too few instances for a {split} split")


def from_spec(argument: str | None, options: Mapping[str, Any]) -> EnvironmentsTask:
    """``environments[:PATH][,level=0,max_new_tokens=256]``; without a path, the ten that ship with the package."""
    check_names("environments", options, ["level", "max_new_tokens"])
    pool = EnvironmentPool.of_seeds() if argument is None else EnvironmentPool.load(argument)
    return EnvironmentsTask(pool, **options)
