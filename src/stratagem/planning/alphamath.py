"""AlphaMath: a policy and its step values, learned in rounds from searches that know the final answers alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from stratagem.catalogue import paper
from stratagem.errors import InputError
from stratagem.objectives import Credited, LogLikelihood, PolicyGradient, StepValueLoss, TokenMean
from stratagem.parts import Objective
from stratagem.planning.beam import StepBeam
from stratagem.planning.paths import Fitting, Path, StepLearner, chosen_paths, learn_from
from stratagem.planning.search import TreeSearch
from stratagem.planning.steps import Found, Reward
from stratagem.planning.tree import PUCT, Fixed, Limits
from stratagem.seeding import derive

S = TypeVar("S")


@dataclass(frozen=True)
class Round:
    """What came of one round.

    loss: mean over the last pass.  paths, right: learned from, and those of them with a right answer.
    solved: share of questions for which the search found a right answer.  tokens: sampled in the search.
    """

    loss: float
    paths: int
    right: int
    solved: float
    tokens: int


@paper(
    "2405.03553",
    name="alphamath",
    title="AlphaMath Almost Zero: Process Supervision without Process",
    family="reasoning",
    roles=("planner", "policy", "objective", "schedule"),
    year=2024,
)
@dataclass(frozen=True)
class AlphaMath:
    """Rounds of tree search with final answers alone, then ``L = -mean_right log pi + w mean_steps (tanh v - Q)^2``.

    In a round each question is searched: PUCT with constant 1.5, 40 simulations, 5 steps from a leaf, at most 8 steps.
    A right answer is worth 1, a wrong one and a dead end -1; a leaf is worth what the policy's own critic says, read
    where its last step ends, through ``tanh``. Right and wrong solutions of every question, a few of each, are then
    learned from: the likelihood of the tokens of right ones, and for all of them the critic at the end of every step,
    whose target is the search's ``Q``, or the reward at the last step. A question that was never solved teaches the
    critic alone. The next round starts from the weights so learned.

    At inference :meth:`solve` keeps the ``beams`` best of the steps by the critic, which is much cheaper than a tree.

    search: of a round.  paths: right and wrong solutions of a question learned from, at most, of each.
    value_weight: ``w``; the published value could not be checked, 0.1 is a reconstruction.  rounds: 3 in the paper.
    fitting: how a round's paths are learned from; its numbers are ours.

    The paper mixes a rollout into a leaf's value with a weight; the released code makes none, and neither does this.
    Released code and paper differ in nothing else that was found.

    Raises :class:`InputError` for numbers out of range.
    """

    search: TreeSearch = TreeSearch(rule=PUCT(1.5), expansion=Fixed(5), limits=Limits(40), depth=8, lost=-1.0)
    paths: int = 4
    value_weight: float = 0.1
    rounds: int = 3
    fitting: Fitting = field(default_factory=Fitting)

    def __post_init__(self) -> None:
        for name in ("paths", "rounds"):
            if getattr(self, name) < 1:
                raise InputError(f"alphamath.{name} = {getattr(self, name)}: must be at least 1")
        if not self.value_weight >= 0:
            raise InputError(f"alphamath.value_weight = {self.value_weight}: must be at least 0")

    @property
    def objective(self) -> Objective:
        """The joint loss. Tokens of wrong paths have an advantage of 0 and are not counted."""
        likelihood = PolicyGradient(gate=LogLikelihood(), aggregation=Credited(TokenMean()))
        return likelihood + StepValueLoss(self.value_weight)

    def data(self, roots: Sequence[S], found: Sequence[Found[S]], seed: int) -> list[Path[S]]:
        """What is learned from searches of these questions, made with a reward."""
        pairs = enumerate(zip(roots, found, strict=True))
        return [p for n, (root, one) in pairs for p in chosen_paths(root, one, self.paths, derive(seed, "paths", n))]

    def round(self, learner: StepLearner[S], roots: Sequence[S], reward: Reward[S], seed: int) -> Round:
        """Search every question, and learn from what was found. reward: 1 for a right answer, -1 for a wrong one."""
        found = self.search(roots, learner, learner, reward, seed)
        paths = self.data(roots, found, seed)
        loss = learn_from(learner, self.objective, paths, self.fitting, seed)
        solved = sum(one.statistics["right"] > 0 for one in found) / max(len(found), 1)
        return Round(loss, len(paths), sum(path.right for path in paths), solved, sum(one.tokens for one in found))

    def train(
        self,
        learner: StepLearner[S],
        roots: Sequence[S],
        reward: Reward[S],
        seed: int = 0,
        watch: Callable[[int, Round], Any] | None = None,
    ) -> list[Round]:
        """All rounds, on the same questions. watch: is told of each. Raises :class:`InputError` without questions."""
        if not roots:
            raise InputError("alphamath: needs at least one question")
        done = []
        for number in range(self.rounds):
            done.append(self.round(learner, roots, reward, derive(seed, "round", number)))
            if watch is not None:
                watch(number, done[-1])
        return done

    def solve(
        self, learner: StepLearner[S], roots: Sequence[S], beams: int = 3, samples: int = 5, seed: int = 0
    ) -> list[Found[S]]:
        """Answers by step-level beam search ``SBS(beams, samples)``, guided by the critic."""
        return StepBeam(depth=self.search.depth, beams=beams, samples=samples)(roots, learner, learner, seed=seed)
