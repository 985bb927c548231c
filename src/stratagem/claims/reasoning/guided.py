"""The claims of techniques for problems that are never solved: led part of the way, or sampled again in another way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean

import numpy as np
import torch

from stratagem.lab import Exact, TabularPolicy, Tree
from stratagem.lab.exact import led_policy
from stratagem.lab.game import Outcome, TokenGame, over
from stratagem.lab.policy import SharedPolicy
from stratagem.lab.world import LabTask
from stratagem.objectives import Unclipped
from stratagem.recipe import Recipe
from stratagem.recipes.baselines import grpo
from stratagem.recipes.objectives.mixing import hpt
from stratagem.recipes.reasoning.guided import lope, pope
from stratagem.sampling import minimal_prefixes, prefix_lengths
from stratagem.seeding import derive, numpy_generator
from stratagem.study.claims import Expect, claim
from stratagem.study.experiments import Run, expected_return, learn

# ---- pope -----------------------------------------------------------------------------------------------------------

HARD, EASY = 6, 6
LONG, SHORT = 12, 3
"""Locks, and binary choices of each: the uniform policy opens a hard lock once in 4096 tries, an easy one in 8."""

SYMBOLS, TRIES, LEAST, POPE_BATCHES, POPE_RATE, POPE_GROUPS = 2, 16, 1 / 12, 60, 0.1, 12

State = tuple[int, int]


@dataclass(frozen=True)
class Locks:
    """Locks that open to one sequence of choices. Each shows a symbol at every position, which means a choice there.

    symbol: of every lock and position.  meaning: of every position and symbol.
    """

    symbol: tuple[tuple[int, ...], ...]
    meaning: tuple[tuple[int, ...], ...]

    @classmethod
    def drawn(cls, seed: int) -> Locks:
        """At random."""
        source = numpy_generator(seed, "locks")
        symbol = source.integers(SYMBOLS, size=(HARD + EASY, LONG)).tolist()
        meaning = source.integers(2, size=(LONG, SYMBOLS)).tolist()
        return cls(tuple(map(tuple, symbol)), tuple(map(tuple, meaning)))

    def game(self) -> TokenGame:
        """A choice in every turn; a wrong one ends the episode."""

        def act(state: State, tokens: tuple[int, ...]) -> list[Outcome]:
            lock, place = state
            if tokens[0] != self.meaning[place][self.symbol[lock][place]]:
                return over(0.0)
            return [Outcome((lock, place + 1))] if place + 1 < (LONG if lock < HARD else SHORT) else over(1.0)

        starts = tuple((1 / (HARD + EASY), (lock, 0)) for lock in range(HARD + EASY))
        return TokenGame("locks", "Choose right all along.", 2, starts, act)

    def policy(self, shared: bool) -> SharedPolicy:
        """The uniform policy, which knows position and symbol (``shared``), or position and lock."""
        states = Tree.enumerate(self.game()).states

        def seen(state: State) -> tuple[int, int]:
            lock, place = state
            return place, self.symbol[lock][place] if shared else lock

        return SharedPolicy.uniform(states, 2, seen)


@claim(
    "pope",
    statement="Beginnings of solutions in the prompt make a model learn problems it never solves, and it then solves "
    "them without: Qwen3-4B-Instruct, HMMT25 pass@1 37.8 for 31.0 with GRPO and pass@16 67.5 for 63.8, AIME25 53.1 for "
    "49.6 and 82.6 for 81.4. Adding easy problems instead lowers what hard ones gain.",
    source="arXiv 2601.18779, abstract; numbers as summaries of the paper report them",
    baseline="grpo on the hard problems alone, and on easy and hard ones; groups of four times the size; twice the "
    "learning rate; guided copies alone; demonstrations where all fail (hpt)",
    rule=(Expect("hard_gain", above=0), Expect("pass16_gain", above=0)),
    scale="Six locks of twelve binary choices, which a uniform policy opens once in 4096 tries, and six of three. A "
    "wrong choice ends the episode. Locks show symbols, two at each position, that mean the same choice in "
    "every lock, so parameters are shared; independent_gain is the same where they are not. 60 batches of 12 "
    "groups of 8, success exact and without guidance, as a mean over the run. A table follows a prefix by "
    "construction: states behind it are those a solution comes by anyway, so what is learned there serves the "
    "unguided copy at once; whether a language model transfers it is not tested. A quarter of the choices "
    "suffices for no lock, so prefixes may be as long as all but one here. A table has no capacity to lose, "
    "so interference of easy problems can only show as groups they take (mixed_gain). In first runs locks had "
    "eight choices and GRPO opened them, too, so they were no problems that are never solved; the rule held "
    "there as well. Of four first runs, groups of "
    "four times the size, at four times the episodes, gained more than guidance in three; a demonstration where all "
    "fail (shown_hard_gain), which a table can copy, in one; GRPO at twice the learning rate in one, and hardly "
    "anything in the others, since it waits for a first success.",
)
def pope_locks(seed: int) -> dict[str, float]:
    """Exact unguided success on hard locks while learning with and without guidance, with and without easy locks."""
    locks = Locks.drawn(seed)
    game, hard = locks.game(), tuple(range(HARD))
    choices = _led_by(Exact(Tree.enumerate(game), locks.policy(True).table()), seed)
    alone = {"sampler.prompts_per_step": POPE_GROUPS, "sampler.start_states": hard}
    ours = pope(choices=choices).with_values(alone)
    plain = grpo().with_values(alone)
    arms = {
        "ours": ours,
        "grpo": plain,
        "guided_only": ours.with_values({"sampler.unguided_every": 0}),
        "mixed": plain.with_values({"sampler.start_states": ()}),
        "ours_mixed": ours.with_values({"sampler.start_states": ()}),
        "wide": plain.with_values({"sampler.group_size": 32}),
        "fast": plain,
        "shown": hpt().with_values(alone),
    }
    runs = {name: _opened(arm, locks, seed, 2 if name == "fast" else 1) for name, arm in arms.items()}
    success, pass16 = ({name: run.mean(partial(_hard_pass, k=k)) for name, run in runs.items()} for k in (1, 16))
    apart = {name: _opened(arms[name], locks, seed, shared=False) for name in ("ours", "grpo")}
    others = [name for name in arms if name not in ("ours", "grpo")]
    return {
        "hard_gain": success["ours"] - success["grpo"],
        "pass16_gain": pass16["ours"] - pass16["grpo"],
        "independent_gain": apart["ours"].mean(_hard_pass) - apart["grpo"].mean(_hard_pass),
        "mixed_gain": success["ours_mixed"] - success["ours"],
        "last_gain": _hard_pass(runs["ours"].last) - _hard_pass(runs["grpo"].last),
        "mean_prefix": fmean(choices[:HARD]),
        "hard_success": success["ours"],
        **{f"{name}_hard_gain": success[name] - success["grpo"] for name in others},
    }


def _led_by(policy: Exact, seed: int) -> tuple[int, ...]:
    """As few choices of each hard lock as let one of ``TRIES`` episodes succeed; none of the easy ones."""
    source = numpy_generator(seed, "tries")

    def solves(asked: Sequence[tuple[int, int]]) -> list[bool]:
        choices = dict(asked)
        led = led_policy(policy, [choices.get(lock, 0) for lock in range(HARD + EASY)])
        return [bool(source.random(TRIES).min() < _success(led, lock)) for lock, _ in asked]

    lengths = {lock: prefix_lengths(LONG, 1 - LEAST, LEAST) for lock in range(HARD)}
    found = minimal_prefixes(solves, lengths)
    return (*(found[lock].length for lock in range(HARD)), *[0] * EASY)


def _opened(recipe: Recipe, locks: Locks, seed: int, factor: float = 1, shared: bool = True) -> Run:
    return learn(recipe, LabTask(locks.game()), seed, POPE_BATCHES, locks.policy(shared), factor * POPE_RATE)


def _success(policy: Exact, start: int) -> float:
    """Probability of success at a start."""
    x = policy.tree.leaves
    assert x.success is not None
    return float((x.group_of_trajectory.sum(policy.leaf_probability * x.success) / policy.start_probability)[start])


def _hard_pass(policy: Exact, k: int = 1) -> float:
    """Probability that one of ``k`` unguided episodes opens a hard lock, mean over locks."""
    return fmean(1 - (1 - _success(policy, lock)) ** k for lock in range(HARD))


# ---- lope -----------------------------------------------------------------------------------------------------------

PROMPTS, LENGTH, TOKENS = 6, 3, 4
"""Questions, tokens of an answer, and tokens to choose from: one answer of 64 is right."""

FAIR, SURE = 1.5, 5.0
"""Logit of the right token, and of a wrong one in the one place of each answer about which the policy is wrong."""

BATCHES, TABLES, RATE, MIXTURE = 40, 2, 0.2, 0.1


@dataclass(frozen=True)
class Questions:
    """Questions with one right answer each: its tokens, the place at which the policy is sure, and of what."""

    right: tuple[tuple[int, ...], ...]
    place: tuple[int, ...]
    wrong: tuple[int, ...]

    @classmethod
    def drawn(cls, seed: int) -> Questions:
        """At random."""
        source = numpy_generator(seed, "questions")
        right = source.integers(TOKENS, size=(PROMPTS, LENGTH))
        place = source.integers(LENGTH, size=PROMPTS)
        wrong = (right[np.arange(PROMPTS), place] + source.integers(1, TOKENS, size=PROMPTS)) % TOKENS
        return cls(tuple(map(tuple, right.tolist())), tuple(place.tolist()), tuple(wrong.tolist()))

    def game(self) -> TokenGame:
        """Success for the right answer."""

        def act(question: int, tokens: tuple[int, ...]) -> list[Outcome] | None:
            return None if len(tokens) < LENGTH else over(float(tokens == self.right[question]))

        starts = tuple((1 / PROMPTS, question) for question in range(PROMPTS))
        return TokenGame("questions", "Find the one right answer.", TOKENS, starts, act)

    def policy(self) -> TabularPolicy:
        """Whatever was said before, rather right, but for one place of each answer."""
        tree = Tree.enumerate(self.game())
        logits = torch.zeros(tree.nodes, TOKENS)
        position = tree.leaves.trajectory_of_token.position()
        question = tree.leaves.group_of_token.labels
        right, place = torch.tensor(self.right)[question, position], torch.tensor(self.place)[question]
        logits[tree.node, right] = FAIR
        lost = tree.node[position == place]
        logits[lost] = 0.0
        logits[lost, torch.tensor(self.wrong)[question][position == place]] = SURE
        return TabularPolicy(logits)


@claim(
    "lope",
    statement="Where a whole group fails, sampling again after nonsense solves more questions than sampling again, and "
    "what is found teaches: five math sets, Qwen3-1.7B 39.82 for 38.16 (GRPO 37.03), 4B 53.99 for 48.95 (49.37), "
    "Qwen2.5-Math-7B 53.88 for 47.52 (47.68).",
    source="arXiv 2605.05566, numbers as its released description has them",
    baseline="the same recipe sampling again without perturbation; grpo without resampling, with as many trajectories "
    "as a failed group then has, and at twice the learning rate",
    rule=(Expect("rescued_gain", above=0), Expect("return_gain", above=0)),
    scale="A table has no reason to heed nonsense, so the perturbed policy is the policy mixed with a tenth of a "
    "uniform one, token by token; that it finds more where the policy is sure of something wrong is by "
    "construction (rescued_gain). What is tested is whether that teaches the clean policy, through the "
    "regrouping, the ratio and its shaping (return_gain). Six questions with one right answer of 64 each, in "
    "which the policy is wrong about one token; 40 batches of 8 groups, two tables a seed, success exact. "
    "Whether words move a language model like this needs one of a billion parameters. A first experiment, "
    "with random tables that solved one question of 256 and learned next to nothing in any arm, decided "
    "nothing and was given up for this one; the rule is the same. In first runs the plain ratio taught a "
    "little more than the shaped one (shaping_gain), whose slope is small where the policies nearly agree.",
)
def lope_resampling(seed: int) -> dict[str, float]:
    """Exact success while learning questions that are hardly ever solved, and how many failed groups are rescued."""
    ours = lope().with_values({"sampler.mixture": MIXTURE})
    clean = ours.with_values({"sampler.mixture": 0.0})
    arms = {
        "ours": ours,
        "clean": clean,
        "unshaped": ours.with_values({"objective.gate.resampled": Unclipped()}),
        "grpo": grpo(),
        "wide": grpo().with_values({"sampler.group_size": 32}),
        "fast": grpo(),
    }
    runs = {name: _learned(arm, seed, 2 * RATE if name == "fast" else RATE) for name, arm in arms.items()}
    earned = {name: fmean(run.mean(expected_return) for run in some) for name, some in runs.items()}
    last = {name: fmean(run.last.success for run in some) for name, some in runs.items()}
    return {
        "rescued_gain": _rescued(runs["ours"]) - _rescued(runs["clean"]),
        "return_gain": earned["ours"] - earned["clean"],
        "final_gain": last["ours"] - last["clean"],
        "shaping_gain": earned["ours"] - earned["unshaped"],
        "rescued": _rescued(runs["ours"]),
        "clean_rescued": _rescued(runs["clean"]),
        **{f"{name}_return": value for name, value in earned.items()},
    }


def _learned(recipe: Recipe, seed: int, rate: float) -> list[Run]:
    runs = []
    for number in range(TABLES):
        own = derive(seed, "table", number)
        questions = Questions.drawn(own)
        runs.append(learn(recipe, LabTask(questions.game()), own, BATCHES, questions.policy(), rate))
    return runs


def _rescued(runs: list[Run]) -> float:
    """Share of failed groups in which sampling again found a success, over the first quarter of the batches."""
    rows = [row for run in runs for row in run.metrics[: BATCHES // 4]]
    return sum(row["groups/rescued"] for row in rows) / max(sum(row["groups/failed"] for row in rows), 1.0)
