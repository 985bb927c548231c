"""Environments that evolve with the policy: one role writes them, the other is trained on what passes the gates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Protocol

from annotated_types import Ge, Le

from stratagem.catalogue import paper
from stratagem.errors import InputError
from stratagem.part import Part
from stratagem.synthesis.environments_task import EnvironmentsTask
from stratagem.synthesis.gates import Gates, Measure, Review, Verdict, stage_counts, writer_reward
from stratagem.synthesis.pool import EnvironmentPool, Member
from stratagem.synthesis.programs import Program
from stratagem.tasks.python import program as code_of
from stratagem.tasks.splits import seeded
from stratagem.tasks.task import state_key

INSTRUCTION = (
    "Write one new environment in Python: a class Environment with generate(self, seed, level), "
    "prompt(self, instance), reference(self, instance) and score(self, instance, response). What generate returns is "
    "plain data that follows from seed and level alone, and harder the higher the level. A question should be hard to "
    "reason out and easy to compute, or hard to solve and easy to check. It must differ from these examples, must not "
    "say the answer, and may import bisect, collections, fractions, functools, heapq, itertools, math and random only. "
    "Write the program between ``` marks."
)
"""What the role that writes is asked; the paper's wording was not available."""


def writing_prompt(examples: Sequence[Program]) -> str:
    """The question to the role that writes: the instruction and some members of the pool."""
    shown = (f"Example:\n```python\n{one.source.strip()}\n```" for one in examples)
    return "\n\n".join((INSTRUCTION, *shown))


class Solver(Protocol):
    """The role that is trained on the pool."""

    def learn(self, task: EnvironmentsTask, steps: int, step: int) -> None:
        """Train for so many steps, of which the first has the number ``step``."""

    def measure(self, instances: int, rollouts: int, seed: int) -> Measure:
        """Success of the solver as it is now, over so many instances with so many answers each.

        :func:`measured` makes one of a function that answers instances.
        """


class Writer(Protocol):
    """The role that writes environments."""

    def write(self, examples: Sequence[Sequence[Program]], count: int, step: int) -> Sequence[Sequence[str]]:
        """``count`` texts for each list of examples (:func:`writing_prompt`)."""

    def learn(self, rewards: Sequence[Sequence[float]], step: int) -> None:
        """What the texts written last were worth, a group for each list of examples."""


@dataclass(frozen=True)
class Round:
    """What came of one round.

    step: solver steps so far.  verdicts: of what was written, group by group.  rewards: of the writer, likewise.
    admitted, retired: members that came and went.  size: of the pool.
    """

    step: int
    verdicts: tuple[tuple[Verdict, ...], ...]
    rewards: tuple[tuple[float, ...], ...]
    admitted: tuple[Member, ...]
    retired: tuple[Member, ...]
    size: int

    @property
    def stages(self) -> Mapping[str, int]:
        """How many failed at each gate, and how many at none."""
        return stage_counts(verdict for group in self.verdicts for verdict in group)


@paper(
    "2605.14392",
    title="Learning to Build the Environment: Verifiable Environment Synthesis",
    family="reasoning",
    roles=("curriculum", "reward", "sampler", "schedule"),
    year=2026,
    name="evoenv",
)
@dataclass(frozen=True)
class EnvironmentSynthesis(Part):
    """EvoEnv: the policy writes environments as programs, and is trained to solve those that pass the gates.

    The two roles take turns. A round:

    1. **Solve.** ``solver_steps`` steps on fresh instances of the pool, all members alike.
    2. **Rotate**, every ``rotate_every`` rounds: members are measured again, moved to a level that suits the solver,
       and retired where it is right more than ``easy`` or less than ``hard`` of the time even so.
    3. **Write.** ``prompts`` times the writer is shown 1 to ``examples`` members and writes ``group_size`` programs.
       They pass the gates (:class:`Gates`), in which the solver's rate ``p`` is over ``instances`` instances with
       ``rollouts`` answers each, and are admitted. The writer is paid ``1 - |2 p - 1|``, or ``partial`` for each gate
       of the first three that a program passed before it failed one of these (:func:`writer_reward`).

    Each role has groups of its own, so its baselines are its own: rewards of the writer are those of texts for the same
    examples. When nothing is admitted the solver goes on with the pool as it is.

    >>> from stratagem.synthesis import EnvironmentPool, EnvironmentsTask
    >>> task = EnvironmentsTask(EnvironmentPool.of_seeds())
    >>> task.check(10).corruptions_rejected
    10

    capacity: of the pool.  Everything is the same again under the same seed, as far as solver and writer are.

    The contracts, ten environments to begin with, the order of the gates and the rotation are as reported by others
    of the paper, which could not be read; there is no released code. The figures, the reward and the turns are
    reconstructions. To write environments that pass takes a capable code model; the small models that ship with this
    package cannot.
    """

    kind: ClassVar[str] = "environment_synthesis"

    gates: Gates = Gates()
    capacity: Annotated[int, Ge(1)] = 200
    solver_steps: Annotated[int, Ge(1)] = 10
    rotate_every: Annotated[int, Ge(0)] = 1
    easy: Annotated[float, Ge(0), Le(1)] = 0.95
    hard: Annotated[float, Ge(0), Le(1)] = 0.02
    prompts: Annotated[int, Ge(0)] = 2
    group_size: Annotated[int, Ge(2)] = 8
    examples: Annotated[int, Ge(1)] = 3
    instances: Annotated[int, Ge(1)] = 8
    rollouts: Annotated[int, Ge(1)] = 8
    partial: Annotated[float, Ge(0), Le(1 / 3)] = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hard > self.easy:
            raise InputError(f"environment_synthesis.hard = {self.hard}: must not be above easy = {self.easy}")

    def pool(self) -> EnvironmentPool:
        """The ten environments to begin with."""
        return EnvironmentPool.of_seeds(capacity=self.capacity)

    def round(
        self,
        pool: EnvironmentPool,
        solver: Solver,
        writer: Writer,
        number: int,
        seed: int = 0,
        review: Review | None = None,
    ) -> Round:
        """Round ``number``, counted from 0, which changes the pool. Of a run, that is all there is to keep but roles.

        review: gate L4, left out without one.
        """
        step = number * self.solver_steps
        solver.learn(EnvironmentsTask(pool), self.solver_steps, step)
        step += self.solver_steps

        # Other instances every round, so that no member stays for those it happens to be measured with.
        measure = solver.measure(self.instances, self.rollouts, state_key("measure", seed, number) % 2**31)
        retired: list[Member] = []
        if self.rotate_every and number % self.rotate_every == self.rotate_every - 1:
            band = self.gates.difficulty
            retired = pool.rotate(measure, band.low, band.high, self.hard, self.easy)
        source = seeded("environment examples", seed, number)
        shown = [pool.examples(source.randint(1, self.examples), source) for _ in range(self.prompts)]
        texts = writer.write(shown, self.group_size, step) if shown else []
        programs = [Program(code_of(text)) for group in texts for text in group]
        judged = iter(self.gates.judge(programs, pool.likenesses(), measure, review) if programs else [])
        verdicts = tuple(tuple(next(judged) for _ in group) for group in texts)
        rewards = tuple(tuple(writer_reward(one, self.partial) for one in group) for group in verdicts)
        if shown:
            writer.learn(rewards, step)
        admitted = pool.admit([one for group in verdicts for one in group], step)
        return Round(step, verdicts, rewards, tuple(admitted), tuple(retired), len(pool))
