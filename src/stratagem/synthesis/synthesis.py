"""Tasks for an environment that has none: explore, abstract, prove, reword."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt, Le

from stratagem.catalogue import paper
from stratagem.errors import InputError
from stratagem.part import Part
from stratagem.synthesis.exploration import (
    HISTORY,
    EnvironmentMemory,
    Explorer,
    Look,
    Summarize,
    Triplet,
    chosen_concepts,
    words,
)
from stratagem.synthesis.goals import (
    Abstract,
    Agent,
    BrokenEnvironment,
    Goal,
    Judge,
    Rewrite,
    attempted,
    distinct,
    ends_alike,
    faithful,
    fewer_hints,
    first_effects,
    follow,
    opened,
    reached,
    replay,
    reworded,
    windows,
    write_goals,
)
from stratagem.tasks.task import Split, Task


@dataclass(frozen=True)
class Exploration:
    """What was done, in order, and what is remembered of each environment.  broken: numbers of those that raised."""

    triplets: tuple[Triplet, ...]
    memories: dict[int, EnvironmentMemory]
    broken: tuple[int, ...] = ()


@dataclass(frozen=True)
class Proof:
    """Goals that could be done again, those that could not, and those not tried since none of the first could."""

    accepted: tuple[Goal, ...]
    failed: tuple[Goal, ...]
    untried: tuple[Goal, ...]


@dataclass(frozen=True)
class Synthesis:
    """All that came of it.  goals: reworded ones.  candidates: goals before they were proved."""

    goals: tuple[Goal, ...]
    candidates: tuple[Goal, ...]
    proof: Proof
    exploration: Exploration

    def save(self, path: str | Path) -> Path:
        """Write the goals as JSON lines, to train on with ``synthesized:TASK,goals=PATH``."""
        return write_goals(path, self.goals)


@paper(
    "2512.01311",
    title="CuES: A Curiosity-driven and Environment-grounded Synthesis Framework for Agentic RL",
    family="agents",
    roles=("curriculum", "memory", "sampler"),
    year=2025,
    name="cues",
)
@dataclass(frozen=True)
class TaskSynthesis(Part):
    """CuES: tasks ``(query, guideline, actions)`` for a place that sets none, made of what an explorer did there.

    1. **Explore.** ``rollouts`` of ``steps`` actions in every environment, with at most ``concepts`` starting points
       each. The explorer sees the last entries and a memory of the environment, and is to try what was not tried.
    2. **Abstract.** Windows of ``window`` actions of one environment become goals with a confidence; those below
       ``confidence``, without actions or without a word in their query go, and so do those whose query is like that of
       a surer one, by the Jaccard index of their words, first in the window and then among all.
    3. **Prove.** Each goal is done again from the same reset, in at most ``most_steps`` actions, ``attempts`` times; it
       is accepted by ``votes`` of three judges. Where the reset shows something else it is rejected. More than
       ``give_up`` failures without a success end it.
    4. **Reword.** ``variants`` queries for each, with fewer and fewer hints; nothing else changes.

    >>> from stratagem.synthesis import Curiosity, SynthesizedTask, TaskSynthesis
    >>> from stratagem.tasks import CraftTask
    >>> place = CraftTask(free=True)
    >>> found = TaskSynthesis().run(place, range(4), Curiosity(place.actions))
    >>> task = SynthesizedTask(place, found.goals)
    >>> task.check().solutions_accepted
    20

    distinct_in: ``True`` compares queries only within an environment, so that one query may be asked in several.
    seed: of the order of concepts; explorers have their own.  Everything is the same again under the same seeds.

    Source: abstract and released code (three of the paper's five stages; rollouts, steps, windows, 0.7, 0.8, six
    failures, three variants in tens are its values, ``most_steps`` its largest). There, a language model explores,
    abstracts, acts, judges and rewords; each may be given to :meth:`run` as a callable, and what stands for them
    by default are rules of ours. The code removes like queries within a window only.
    """

    kind: ClassVar[str] = "task_synthesis"

    rollouts: Annotated[int, Ge(1)] = 4
    steps: Annotated[int, Ge(1), Le(20)] = 18
    concepts: Annotated[int, Ge(0)] = 12
    window: Annotated[int, Ge(1)] = 12
    confidence: Annotated[float, Ge(0), Le(1)] = 0.7
    likeness: Annotated[float, Gt(0), Le(1)] = 0.8
    distinct_in: bool = False
    most_steps: Annotated[int, Ge(1)] = 40
    attempts: Annotated[int, Ge(1)] = 2
    votes: Annotated[int, Ge(1), Le(3)] = 2
    give_up: Annotated[int, Ge(0)] = 5
    variants: Annotated[int, Ge(1)] = 3
    seed: Annotated[int, Ge(0)] = 0

    def run(
        self,
        task: Task,
        environments: Iterable[int],
        explorer: Explorer,
        *,
        split: Split = "train",
        pool: Sequence[str] = (),
        principles: str = "",
        summarize: Summarize | None = None,
        abstract: Abstract = first_effects,
        agent: Agent = follow,
        judges: Sequence[Judge] = (reached, faithful, ends_alike),
        rewrite: Rewrite = fewer_hints,
    ) -> Synthesis:
        """All four stages in these episodes of a task, whose rewards are not looked at.

        pool: concepts to start from (:func:`concept_pool`).  principles: what the tasks are wanted for, for a language
        model that explores.  Raises :class:`InputError` for judges that are not three.
        """
        exploration = self.explore(
            task, environments, explorer, split=split, pool=pool, principles=principles, summarize=summarize
        )
        candidates = self.abstract(exploration.triplets, abstract)
        proof = self.prove(task, candidates, split=split, agent=agent, judges=judges)
        goals = reworded(proof.accepted, self.variants, rewrite)
        return Synthesis(tuple(goals), tuple(candidates), proof, exploration)

    # ---- exploring -------------------------------------------------------------------------------------------------

    def explore(
        self,
        task: Task,
        environments: Iterable[int],
        explorer: Explorer,
        *,
        split: Split = "train",
        pool: Sequence[str] = (),
        principles: str = "",
        summarize: Summarize | None = None,
    ) -> Exploration:
        """Act in these environments, all rollouts of one after the other. What raises loses the rest of its rollout."""
        triplets: list[Triplet] = []
        broken: list[int] = []
        memories: dict[int, EnvironmentMemory] = {}
        for number in environments:
            memory = memories.setdefault(number, EnvironmentMemory(summarize))
            for rollout in range(self.rollouts):
                concepts = chosen_concepts(pool, self.concepts, self.seed, number, rollout)
                try:
                    for triplet in self._rollout(task, split, number, rollout, explorer, memory, concepts, principles):
                        triplets.append(triplet)
                        memory.note(triplet)
                except BrokenEnvironment:
                    broken.append(number)
                memory.end()
        return Exploration(tuple(triplets), memories, tuple(dict.fromkeys(broken)))

    def _rollout(
        self,
        task: Task,
        split: Split,
        number: int,
        rollout: int,
        explorer: Explorer,
        memory: EnvironmentMemory,
        concepts: tuple[str, ...],
        principles: str,
    ) -> Iterator[Triplet]:
        with opened(task, split, number) as environment:
            now = first = attempted(environment.reset)
            memory.begin(first.text)
            path: tuple[str, ...] = ()
            effective: tuple[str, ...] = ()
            entries: tuple[str, ...] = ()
            for turn in range(self.steps):
                choice = (number, rollout, turn)
                action = explorer(Look(now.text, now.state_key, path, entries, memory, concepts, principles, choice))
                step = attempted(environment.step, action)
                seen = step.observation
                path = (*path, action)
                effective = (*effective, action) if seen.state_key != now.state_key else effective
                triplet = Triplet(
                    environment=number,
                    rollout=rollout,
                    opening=first.text,
                    before=now.text,
                    action=action,
                    observation=seen.text,
                    reward=step.reward,
                    done=step.done,
                    state=now.state_key,
                    next_state=seen.state_key,
                    path=path,
                    effective=effective,
                    history=entries,
                )
                yield triplet
                if step.done:
                    return
                entries = (*entries, str(triplet))[-HISTORY:]
                now = seen

    # ---- abstracting and proving -----------------------------------------------------------------------------------

    def abstract(self, triplets: Iterable[Triplet], find: Abstract = first_effects) -> list[Goal]:
        """Goals in what was done, surest first, no two of them alike."""
        found: list[Goal] = []
        for window in windows(triplets, self.window):
            sure = (goal for goal in find(window) if self._usable(goal))
            found += distinct(sure, self.likeness, self.distinct_in)
        return distinct(found, self.likeness, self.distinct_in)

    def _usable(self, goal: Goal) -> bool:
        return goal.confidence >= self.confidence and bool(goal.actions) and bool(words(goal.query))

    def prove(
        self,
        task: Task,
        goals: Sequence[Goal],
        *,
        split: Split = "train",
        agent: Agent = follow,
        judges: Sequence[Judge] = (reached, faithful, ends_alike),
    ) -> Proof:
        """Do goals again, one after the other. Raises :class:`InputError` for judges that are not three."""
        if len(judges) != 3:
            raise InputError(f"task_synthesis: {len(judges)} judges; there must be three, of whom {self.votes} agree")
        accepted: list[Goal] = []
        failed: list[Goal] = []
        for place, goal in enumerate(goals):
            if not accepted and len(failed) > self.give_up:
                return Proof((), tuple(failed), tuple(goals[place:]))
            good = any(self._accepted(task, split, goal, agent, judges) for _ in range(self.attempts))
            (accepted if good else failed).append(goal)
        return Proof(tuple(accepted), tuple(failed), ())

    def _accepted(self, task: Task, split: Split, goal: Goal, agent: Agent, judges: Sequence[Judge]) -> bool:
        done = replay(task, split, goal, agent, self.most_steps)
        return done.opens_alike and sum(bool(judge(done)) for judge in judges) >= self.votes
