"""Exploring without a task: what is remembered, and what curiosity tries next."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
from scipy import stats

from stratagem.errors import InputError
from stratagem.synthesis import Curiosity, EnvironmentMemory, Look, RandomWalk, TaskSynthesis, Triplet, concept_pool
from stratagem.synthesis.exploration import SUMMARIZED, WORDS, chosen_concepts
from stratagem.tasks.task import Environment, Observation, Step, Task, state_key

MOVES = {"north": (0, -1), "south": (0, 1), "east": (1, 0), "west": (-1, 0)}
BUTTONS = {(0, 0): 0, (5, 0): 1, (0, 5): 2, (5, 5): 3}


class Grid(Environment):
    """Six by six cells with a button in each corner, which ``press`` turns on and off."""

    def __init__(self, start=(2, 2), last=math.inf):
        self.start, self.last = start, last

    def reset(self):
        self.at, self.on, self.turns = self.start, (False,) * 4, 0
        return self.observe()

    def step(self, action):
        self.turns += 1
        if action == "press" and self.at in BUTTONS:
            self.on = tuple(on != (n == BUTTONS[self.at]) for n, on in enumerate(self.on))
        if action in MOVES:
            x, y = (max(0, min(5, a + b)) for a, b in zip(self.at, MOVES[action], strict=True))
            self.at = x, y
        return Step(self.observe(), done=self.turns >= self.last)

    def observe(self):
        lit = " ".join(str(n) for n, on in enumerate(self.on) if on)
        return Observation(f"at {self.at[0]} {self.at[1]}\nlit {lit or 'none'}", state_key(self.at, self.on))


@dataclass
class GridTask(Task):
    last: float = math.inf
    name: str = "grid"
    description: str = "walk"
    max_turns: int = 20

    def environment(self, split, index):
        return Grid((index % 6, index // 6 % 6), self.last)

    def solution(self, split, index):
        raise NotImplementedError

    def corrupted(self, split, index):
        raise NotImplementedError


ACTIONS = (*MOVES, "press")


def pairs(explorer):
    explored = TaskSynthesis().explore(GridTask(), [14], explorer)
    assert len(explored.triplets) == 4 * 18
    return len({(one.state, one.action) for one in explored.triplets})


def test_curiosity_tries_more_different_things_than_a_random_walk_does():
    seeds = range(1000, 1010)
    wins = [pairs(Curiosity(ACTIONS, seed=seed)) > pairs(RandomWalk(ACTIONS, seed)) for seed in seeds]
    assert stats.binomtest(sum(wins), len(wins), alternative="greater").pvalue < 0.02


def triplet(action="east", observation="at 1 0", state=1, next_state=2, path=None, **changes):
    path = (action,) if path is None else path
    values = dict(environment=0, rollout=0, opening="at 0 0", before="at 0 0", reward=0.0, done=False, effective=path)
    return Triplet(
        action=action, observation=observation, state=state, next_state=next_state, path=path, **{**values, **changes}
    )


def look(memory, **changes):
    return Look("at 0 0", 1, (), (), memory, **changes)


def test_the_score_adds_counts_novelty_and_concepts():
    memory = EnvironmentMemory()
    curiosity = Curiosity(("east", "press the button"), novelty=0.5, concept=0.25)
    assert curiosity.score(look(memory), "east") == 1.5
    memory.note(triplet())
    assert curiosity.score(look(memory), "east") == pytest.approx(1 / math.sqrt(2) + 0.5)  # "at 1 0" was seen once
    memory.note(triplet())
    assert curiosity.score(look(memory), "east") == pytest.approx(1 / math.sqrt(3))
    named = look(memory, concepts=("button",))
    assert curiosity.score(named, "press the button") == 1.75
    after = Look("at 1 0", 2, ("press the button",), (), memory, ("button",))
    assert curiosity.score(after, "press the button") == 1.5  # A starting point counts until it was named.
    assert curiosity(look(memory)) == "press the button"


def test_by_path_an_action_is_new_wherever_the_path_is():
    memory = EnvironmentMemory()
    memory.note(triplet())
    by_path = Curiosity(("east",), here="path")
    assert by_path.score(look(memory), "east") == pytest.approx(1 / math.sqrt(2) + 0.5)
    elsewhere = Look("at 0 0", 1, ("west", "east"), (), memory)
    assert by_path.score(elsewhere, "east") == 1.5 and Curiosity(("east",)).score(elsewhere, "east") < 1.5


def test_the_memory_tree_counts_every_sequence_of_actions():
    explored = TaskSynthesis(rollouts=3, steps=2).explore(
        GridTask(), [0], lambda look: "east" if not look.path else "press"
    )
    tree = explored.memories[0].tree
    assert tree == {(): 3, ("east",): 3, ("east", "press"): 3}


def test_a_summary_is_of_the_latest_fifty_and_cut_in_both_ways():
    memory = EnvironmentMemory()
    for number in range(60):
        memory.note(triplet(action=f"act{number}", observation="x" * 300))
    lines = memory.summary.splitlines()
    assert len(lines) == SUMMARIZED and lines[0].startswith("act10 -> ") and lines[-1] == f"act59 -> {'x' * 200}"
    for number in range(60):
        memory.note(triplet(action=f"go{number}", observation="a b c d e f g h i j k l"))
    assert len(memory.summary.split()) == WORDS and memory.summary.endswith("k l")


def test_a_summary_may_be_written_from_the_one_before_and_what_is_new():
    asked = []

    def summarize(before, new):
        asked.append((before, len(new)))
        return "word " * 600

    explored = TaskSynthesis(rollouts=2, steps=3).explore(GridTask(), [0], RandomWalk(ACTIONS), summarize=summarize)
    assert [number for _, number in asked] == [3, 3] and asked[0][0] == ""
    assert len(asked[1][0].split()) == WORDS == len(explored.memories[0].summary.split())


def test_an_explorer_is_told_history_concepts_and_what_was_tried():
    seen = []

    def explorer(look):
        seen.append(look)
        return "east"

    TaskSynthesis(rollouts=2, steps=5, concepts=2).explore(
        GridTask(), [0], explorer, pool=("door", "key", "wall"), principles="Find tasks about buttons."
    )
    assert [len(look.history) for look in seen[:5]] == [0, 1, 2, 3, 3] and len(seen[0].concepts) == 2
    assert seen[1].history == ("east -> at 1 0 / lit none",)
    prompt = seen[5].prompt()
    assert prompt.startswith("Find tasks about buttons.\n\nPossible starting points: ")
    assert "Already tried here: east" in prompt and "Now you see:\nat 0 0\nlit none" in prompt
    assert "What you did last" not in prompt


def test_an_episode_that_ends_at_once_keeps_its_action_and_what_breaks_is_noted():
    explored = TaskSynthesis().explore(GridTask(last=1), [0], RandomWalk(ACTIONS))
    assert [one.done for one in explored.triplets] == [True] * 4

    class Broken(GridTask):
        def environment(self, split, index):
            if index == 1:
                raise RuntimeError("no")
            return super().environment(split, index)

    explored = TaskSynthesis().explore(Broken(), [0, 1], RandomWalk(ACTIONS))
    assert explored.broken == (1,) and {one.environment for one in explored.triplets} == {0}


def test_an_explorer_that_raises_is_not_silenced():
    def wrong(look):
        raise KeyError("bug")

    with pytest.raises(KeyError):
        TaskSynthesis().explore(GridTask(), [0], wrong)


def test_concepts_are_words_that_may_name_something_and_are_shuffled_by_the_rollout():
    assert concept_pool("Open the door with a key.", "KEY and door, 3 walls") == ("open", "door", "key", "walls")
    pool = tuple("abcdefghijklmnop")
    first, second = (chosen_concepts(pool, 12, 0, 3, rollout) for rollout in (0, 1))
    assert len(first) == 12 and first != second and {*first} < {*pool}
    assert chosen_concepts(pool, 12, 0, 3, 0) == first and chosen_concepts((), 12, 0) == ()


def test_wrong_numbers_are_refused():
    for build, problem in (
        (lambda: Curiosity(()), r"curiosity\.actions: needs at least one action"),
        (lambda: Curiosity(("a",), novelty=-1), r"curiosity\.novelty = -1"),
        (lambda: Curiosity(("a",), concept=math.inf), r"curiosity\.concept = inf: must be finite"),
        (lambda: TaskSynthesis(steps=21), r"task_synthesis\.steps = 21"),
        (lambda: TaskSynthesis(votes=4), r"task_synthesis\.votes = 4"),
    ):
        with pytest.raises(InputError, match=problem):
            build()
