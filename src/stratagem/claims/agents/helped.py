"""Claims of helped agents: sub-questions for a noisy solver, and whom to believe or to ask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import torch
from jaxtyping import Float64
from torch import Tensor

from stratagem.lab import Exact
from stratagem.lab.game import Outcome, TokenGame
from stratagem.lab.tree import Tree
from stratagem.lab.world import LabTask
from stratagem.recipes.agents.helped import daslam
from stratagem.seeding import generator
from stratagem.study.claims import Expect, claim
from stratagem.study.experiments import best_return, learn

CHAINS, STEPS, MOST, LARGEST = 12, 6, 3, 4
"""Questions, steps of each, sub-questions that may be asked, and steps of the largest."""

NOISE, STRONGER, WEAKER = 0.01, 0.005, 0.02
"""Error rate over the square of the effort: of the solver in training, and of two others."""


@dataclass(frozen=True)
class Splits:
    """Where to split chains of steps for a solver that errs with ``min(1, noise effort^2)``, never in a single step.

    efforts: of the steps of every chain. Each turn takes so many of the next steps as a sub-question, or asks nothing
    more; the solver then works out the rest. What it got right at once stays right, whatever is asked; what it got
    wrong it gets wrong again when nothing is asked.
    """

    efforts: tuple[tuple[int, ...], ...]
    noise: float

    def error(self, chain: int, first: int, last: int) -> float:
        """Of the solver, for these steps at once."""
        return 0.0 if last - first < 2 else min(1.0, self.noise * sum(self.efforts[chain][first:last]) ** 2)

    def direct(self) -> float:
        """Accuracy of the solver alone."""
        return fmean(1 - self.error(chain, 0, STEPS) for chain in range(len(self.efforts)))

    def game(self) -> TokenGame:
        """A token ``k < LARGEST`` asks for ``k + 1`` steps, the last token for nothing more."""
        share = 1 / len(self.efforts)
        starts = []
        for chain in range(len(self.efforts)):
            wrong = self.error(chain, 0, STEPS)
            starts += [(share * (1 - wrong), (chain, ())), (share * wrong, (chain, (0,)))]
        return TokenGame(
            "splits",
            "Where to split a question for a noisy solver.",
            LARGEST + 1,
            tuple(starts),
            self._act,
            ("correct", "solved_at_once"),
            (1.0, 0.0),
        )

    def _act(self, state: tuple[int, tuple[int, ...]], tokens: tuple[int, ...]) -> Sequence[Outcome]:
        chain, cuts = state
        if not cuts:
            return [Outcome(success=True, components={"solved_at_once": 1.0})]
        if tokens[0] < LARGEST:
            cuts = (*cuts, min(cuts[-1] + tokens[0] + 1, STEPS))
            if cuts[-1] < STEPS and len(cuts) <= MOST:
                return [Outcome((chain, cuts))]
        right = self.accuracy(chain, cuts)
        # What cannot happen has its leaf all the same: nodes are then the same for every solver.
        return [Outcome(None, right, 1.0, True), Outcome(None, 1 - right)]

    def accuracy(self, chain: int, cuts: Sequence[int]) -> float:
        """Of the last answer, after sub-questions that end at these places."""
        if len(cuts) == 1:
            return 0.0
        odds = 1.0
        for first, last in zip(cuts, [*cuts[1:], STEPS], strict=True):
            odds *= 1 - self.error(chain, first, last)
        return odds

    def always(self, size: int) -> Float64[Tensor, "nodes vocabulary"]:
        """Logits of whoever asks for so many steps each time, whatever the question."""
        nodes = Tree.enumerate(self.game()).nodes
        return torch.nn.functional.one_hot(torch.full((nodes,), size - 1), LARGEST + 1).double() * 100

    def asked(self, logits: Float64[Tensor, "nodes vocabulary"]) -> float:
        """Accuracy when a policy asks after a first attempt that went wrong."""
        return Exact(Tree.enumerate(self.game()), logits).success


def _splits(seed: int, noise: float) -> Splits:
    hard = torch.randint(1, 3, (CHAINS, STEPS), generator=generator(seed, "efforts"))
    return Splits(tuple(tuple(int(effort) for effort in chain) for chain in hard.tolist()), noise)


@claim(
    "daslam",
    statement="A small model trained to ask sub-questions of a frozen, larger one makes it much better at multi-step "
    "reasoning (a solver of 175 billion parameters comes near its much larger successor), better than prompted "
    "decomposition does, and does so for solvers of several sizes that it was not trained with.",
    source="arXiv 2310.18338, abstract (its tables were not available)",
    baseline="the solver alone; sub-questions of two steps each, whatever the question; splits at random",
    rule=(
        Expect("gain_over_direct", above=0),
        Expect("gain_over_fixed", above=0),
        Expect("gain_over_random", above=0),
        Expect("gain_with_stronger_solver", above=0),
        Expect("gain_with_weaker_solver", above=0),
    ),
    scale="A simulated solver that errs in a share of 0.01 times the square of what it does at once (each step counts "
    "1 or 2), and solvers of half and twice that at test. 12 chains of six steps, at most three sub-questions; the "
    "policy is a table over chains and splits so far, so nothing is read, written or carried over to questions not "
    "seen. Of the five rewards only the right answer is paid, for there are no texts to compare. That splitting helps "
    "such a solver is so by construction; what is shown is that PPO on its failures finds where to split. Figures are "
    "exact after 150 batches; optimum is by dynamic programming.",
)
def daslam_finds_where_to_split(seed: int) -> dict[str, float]:
    """Accuracy of the solver alone, with fixed, random and learned splits, and with two other solvers."""
    mine = _splits(seed, NOISE)
    game = mine.game()
    run = learn(daslam(), LabTask(game, spread=0.0), seed, 150)
    logits, alone = run.last.logits, mine.direct()

    fixed, learned = mine.asked(mine.always(2)), mine.asked(logits)
    random = mine.asked(run.policies[0].logits)
    stronger, weaker = (replace(mine, noise=noise) for noise in (STRONGER, WEAKER))
    return {
        "gain_over_direct": learned - alone,
        "gain_over_fixed": learned - fixed,
        "gain_over_random": learned - random,
        "gain_with_stronger_solver": stronger.asked(logits) - stronger.direct(),
        "gain_with_weaker_solver": weaker.asked(logits) - weaker.direct(),
        "direct": alone,
        "fixed": fixed,
        "random": random,
        "learned": learned,
        "optimum": alone + best_return(run.last),
    }
