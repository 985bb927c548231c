"""Claims of reasoning through latent states, with a frozen writer of steps and tables over states."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean

import torch
from jaxtyping import Float64
from torch import Tensor

from stratagem.lab.game import Outcome, TokenGame
from stratagem.lab.world import LabTask, LabWorld
from stratagem.latent import DirichletPolicy, Trace, fit
from stratagem.recipes.reasoning.latent import ctrls
from stratagem.seeding import derive, generator
from stratagem.study.claims import Expect, claim
from stratagem.study.experiments import Run, learn

STATES, STEPS, QUESTIONS = 6, 3, 4
OBEYS = 0.85
"""Odds that the writer, told a state, writes a step of that kind; else it writes the next kind."""

TEMPERATURES = (0.5, 1.0, 2.0)
TRACES, ROLLOUTS = 64, 64
"""Samples of the frozen writer for each question that stage 1 looks for solved ones in; rollouts of the test."""

BATCHES, RATE, CERTAIN = 40, 0.05, 0.9

Before = tuple[int, int | None]
"""What the policy sees: the question, and the state of the last step."""


@dataclass(frozen=True, eq=False)
class Puzzle:
    """Questions, each solved by chains of step kinds alone, and a frozen writer that knows little of them.

    A chain solves question ``c`` when it begins with one of ``begins[c]`` and goes on by one of ``strides[c]`` each
    time, modulo 6.  habit: what the writer writes when nobody names a state; logits by question and kind before, the
    last row before the first step.
    """

    begins: list[tuple[int, int]]
    strides: list[tuple[int, int]]
    habit: Float64[Tensor, "questions before kinds"]
    emits: Float64[Tensor, "states kinds"] = field(
        default_factory=lambda: (
            OBEYS * torch.eye(STATES, dtype=torch.float64)
            + (1 - OBEYS) * torch.eye(STATES, dtype=torch.float64).roll(1, 1)
        )
    )

    @classmethod
    def drawn(cls, seed: int) -> Puzzle:
        """The questions of a seed."""
        source = generator(seed, "puzzle")
        pairs = [tuple(torch.randperm(STATES, generator=source)[:2].tolist()) for _ in range(2 * QUESTIONS)]
        habit = torch.randn(QUESTIONS, STATES + 1, STATES, generator=source, dtype=torch.float64)
        return cls(pairs[:QUESTIONS], pairs[QUESTIONS:], habit)

    def right(self, question: int, before: int | None, kind: int) -> bool:
        """Whether a step of this kind may follow."""
        if before is None:
            return kind in self.begins[question]
        return (kind - before) % STATES in self.strides[question]

    def solutions(self, question: int) -> list[tuple[int, ...]]:
        """Chains that solve it."""
        chains: list[tuple[int, ...]] = [()]
        for _ in range(STEPS):
            chains = [
                (*chain, kind)
                for chain in chains
                for kind in range(STATES)
                if self.right(question, chain[-1] if chain else None, kind)
            ]
        return chains

    def game(self) -> TokenGame:
        """A token names the state of the next step, which the writer then writes."""

        def act(state: tuple[int, int, int | None, int | None], tokens: tuple[int, ...]) -> list[Outcome]:
            question, step, _, last = state
            named, outcomes = tokens[0], []
            for kind in (named, (named + 1) % STATES):
                odds = float(self.emits[named, kind])
                # A kind of -1 is a chain that went wrong, which is written to its end all the same.
                goes = last != -1 and self.right(question, last, kind)
                if step == STEPS - 1:
                    outcomes.append(Outcome(None, odds, float(goes), goes))
                else:
                    outcomes.append(Outcome((question, step + 1, named, kind if goes else -1), odds))
            return outcomes

        starts = tuple((1 / QUESTIONS, (question, 0, None, None)) for question in range(QUESTIONS))
        return TokenGame("latent", "Name a state; a frozen writer writes the step.", STATES, starts, act)

    def writer(self, temperature: float) -> list[Float64[Tensor, " chains"]]:
        """By question, the odds of each chain that solves it, from the frozen writer alone."""
        odds = torch.softmax(self.habit / temperature, -1)
        return [
            torch.tensor([_product(odds[question], chain) for chain in self.solutions(question)])
            for question in range(QUESTIONS)
        ]

    def led(self, policy: DirichletPolicy, kinds: Mapping[Before, int]) -> list[Float64[Tensor, " chains"]]:
        """By question, the odds of each chain that solves it when the policy names the states."""
        mean = policy.mean().detach().double()
        found = []
        for question in range(QUESTIONS):
            first = mean[kinds[question, None]]
            after = mean[torch.tensor([kinds[question, state] for state in range(STATES)])]
            odds = []
            for chain in self.solutions(question):
                forward = first * self.emits[:, chain[0]]
                for kind in chain[1:]:
                    forward = (forward @ after) * self.emits[:, kind]
                odds.append(float(forward.sum()))
            found.append(torch.tensor(odds, dtype=torch.float64))
        return found

    def traces(self, kinds: Mapping[Before, int], seed: int) -> list[Trace]:
        """Solved ones among samples of the frozen writer; a step tells its state with odds of nine in ten."""
        found = []
        for question in range(QUESTIONS):
            source, odds = generator(seed, "traces", question), torch.softmax(self.habit[question], -1)
            solved = set(self.solutions(question))
            after = torch.tensor([kinds[question, state] for state in range(STATES)])
            for _ in range(TRACES):
                chain: tuple[int, ...] = ()
                for _ in range(STEPS):
                    chain += (int(torch.multinomial(odds[chain[-1] if chain else -1], 1, generator=source)),)
                if chain in solved:
                    told = torch.full((STEPS, STATES), (1 - CERTAIN) / (STATES - 1), dtype=torch.float64)
                    told[torch.arange(STEPS), torch.tensor(chain)] = CERTAIN
                    found.append(Trace(kinds[question, None], after, told))
        return found


def _product(odds: Tensor, chain: tuple[int, ...]) -> float:
    value, before = 1.0, -1
    for kind in chain:
        value *= float(odds[before, kind])
        before = kind
    return value


def _success(chains: list[Float64[Tensor, " chains"]]) -> float:
    return fmean(float(odds.sum()) for odds in chains)


def _paths(chains: list[Float64[Tensor, " chains"]]) -> float:
    """Expected number of different solutions in so many rollouts of each question."""
    return fmean(float((1 - (1 - odds) ** ROLLOUTS).sum()) for odds in chains)


@claim(
    "ctrls",
    statement="Learning transitions between latent states, with a frozen language model, gives better accuracy, more "
    "different chains and more efficient exploration than sampling chains of thought from that model.",
    source="arXiv 2507.08182, abstract; no numbers were available",
    baseline="the frozen writer at the best of three temperatures; stage 1 alone; no exploration; no entropy",
    rule=(
        Expect("success_gain", above=0),
        Expect("paths_gain", above=0),
        Expect("success_gain_of_stage_2", above=0),
        Expect("paths_gain_of_exploration", above=0),
        Expect("paths_gain_of_entropy", above=0),
    ),
    scale="Four questions, each solved by 8 of 216 chains of three steps of six kinds; the frozen writer is a table "
    "that writes the kind it is told with odds of 0.85 and has random habits otherwise; states are kinds of steps, "
    "known up to one in ten, and no text is read. Success and the expected number of different solutions in 64 "
    "rollouts are exact. Stage 1 has 64 samples of the writer for each question, stage 2 another 640 rollouts of each, "
    "which sampling at a temperature has no use for. The policy is a table that is told the question, so nothing is "
    "shown of questions it has not seen, nor that a writer trained on the same rollouts would do worse. In first runs "
    "exploration and the bonus on entropy made no difference that five seeds could tell, and without stage 1 there "
    "were more different solutions and a third of the success.",
)
def latent_transitions(seed: int) -> dict[str, float]:
    """Success and different solutions of the frozen writer and of policies that name its states."""
    puzzle = Puzzle.drawn(seed)
    task = LabTask(puzzle.game())
    kinds, blank = _blank(task)
    fitted = copy.deepcopy(blank)
    traces = puzzle.traces(kinds, seed)
    if traces:
        fit(fitted, traces)
    sampled = {f"writer_{t:g}": puzzle.writer(t) for t in TEMPERATURES}
    arms = {
        "ours": (fitted, ctrls(exploration_steps=BATCHES)),
        "no_exploration": (fitted, ctrls(epsilon=0.0, final_epsilon=0.0)),
        "no_entropy": (fitted, ctrls(exploration_steps=BATCHES, entropy_weight=0.0)),
        "no_stage_1": (blank, ctrls(exploration_steps=BATCHES)),
    }
    runs: dict[str, tuple[Run, DirichletPolicy]] = {}
    for name, (start, recipe) in arms.items():
        policy = copy.deepcopy(start)
        runs[name] = (learn(recipe, task, derive(seed, "stage 2"), BATCHES, policy, RATE), policy)
    chains = {**sampled, "stage_1": puzzle.led(fitted, kinds), "blank": puzzle.led(blank, kinds)}
    chains |= {name: puzzle.led(policy, kinds) for name, (_, policy) in runs.items()}
    success = {name: _success(odds) for name, odds in chains.items()}
    paths = {name: _paths(odds) for name, odds in chains.items()}
    return {
        "success_gain": success["ours"] - max(success[name] for name in sampled),
        "paths_gain": paths["ours"] - max(paths[name] for name in sampled),
        "success_gain_of_stage_2": success["ours"] - success["stage_1"],
        "paths_gain_of_exploration": paths["ours"] - paths["no_exploration"],
        "paths_gain_of_entropy": paths["ours"] - paths["no_entropy"],
        "success_gain_of_stage_1": success["ours"] - success["no_stage_1"],
        "solved_traces": float(len(traces)),
        **{f"{name}_success": value for name, value in success.items()},
        **{f"{name}_paths": value for name, value in paths.items()},
        **{f"{name}_efficiency": run.mean(lambda policy: policy.success) for name, (run, _) in runs.items()},
        **{f"{name}_entropy": run.last.entropy for name, (run, _) in runs.items()},
    }


def _blank(task: LabTask) -> tuple[dict[Before, int], DirichletPolicy]:
    """A policy that names every state as often, and the kind of node by what is seen in it."""
    states = LabWorld(task, 0).tree.states

    def seen(state: tuple[int, int, int | None, int | None]) -> Before:
        return state[0], state[2]

    kinds: dict[Before, int] = {}
    for state in states:
        kinds.setdefault(seen(state), len(kinds))  # type: ignore[arg-type]
    return kinds, DirichletPolicy.uniform(states, STATES, seen)
