"""MedS3: searches judged by rollouts teach a policy by their right paths, and a judge of steps by all of them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from statistics import pvariance
from typing import Any, Generic, TypeVar

from stratagem.catalogue import paper
from stratagem.errors import InputError
from stratagem.estimators import StepCorrectness
from stratagem.objectives import Credited, LogLikelihood, PolicyGradient, TokenMean
from stratagem.parts import Objective
from stratagem.planning.beam import Samples
from stratagem.planning.labels import SoftLabels, StepLabels
from stratagem.planning.paths import Fitting, Path, StepLearner, chosen_paths, labelled, learn_from, relabelled
from stratagem.planning.search import TreeSearch
from stratagem.planning.steps import Found, Reward, Rollouts, Solution, StepPolicy
from stratagem.planning.tree import UCB, ChildrenBackup, Limits, Staged
from stratagem.planning.votes import Choice, Pooling, chosen_answer, pooled
from stratagem.seeding import derive
from stratagem.training.estimation import Estimation

S = TypeVar("S")


class StepScorer(Generic[S]):
    """A trained judge of steps: heads on a policy's features, and how likely they find every step to be right.

    learner: whose features the heads read.  heads: that were trained on them. The heads stay right only as long as the
    policy's features do: train them once the policy no longer learns.
    """

    def __init__(self, learner: StepLearner[S], estimator: StepCorrectness, heads: Estimation) -> None:
        self._learner, self._estimator, self._heads = learner, estimator, heads

    def __call__(self, root: S, solutions: Sequence[Solution[S]]) -> list[list[float]]:
        """A score in (0, 1) for every step of every solution of one question."""
        if not solutions:
            return []
        x = self._learner.record([(root, solution.steps) for solution in solutions])
        said = self._heads.complete(self._estimator, x, learn=False).turn_action_value
        assert said is not None
        return [scores.tolist() for scores in said.squeeze(1).split([len(one.steps) for one in solutions])]


@dataclass(frozen=True, slots=True)
class Answered(Generic[S]):
    """An answer and what it was chosen from. scores: pooled, of every solution.  tokens: sampled."""

    answer: Hashable | None
    solutions: tuple[Solution[S], ...]
    scores: tuple[float, ...]
    tokens: int


@paper(
    "2501.12051",
    name="meds3",
    title="MedS3: Towards Medical Slow Thinking with Self-Evolved Soft Dual-sided Process Supervision",
    family="reasoning",
    roles=("planner", "policy", "reward", "schedule"),
    year=2025,
)
@dataclass(frozen=True)
class MedS3:
    """Searches with verified rollouts: right paths train the policy, soft step labels a judge that chooses answers.

    The tree goes down by ``Q + 2 sqrt(ln N_parent / N)`` (5 for a child without visits) and asks for three steps from a
    leaf, for the answer alone where nine tenths of the rollouts were right, and once more to reflect on a wrong answer.
    A node is worth the share of right answers among ``max(floor(20 / (depth + 1)), 5)`` rollouts, and a value is backed
    up by halves: ``Q <- (Q + mean of the children's Q by visits) / 2``. It stops at 4 right answers or 60 nodes.

    The policy learns the likelihood of right paths. The judge learns from right and wrong ones, those whose step values
    vary most, with labels that push drops further down and hold a dip that recovers against the step after it
    (:class:`SoftLabels`). At inference ``count`` solutions are sampled, each gets one score out of those of its steps,
    and the answer with the highest sum of scores is chosen.

    search, rollouts: see above; ``rollouts`` are those of the question and the least.  labels: of steps.
    judge: the estimator; its learning rate, steps and width are ours.  paths: right and wrong ones that the policy
    learns from, of each question, at most.  judged: right and wrong ones that the judge learns from.
    both: the judge learns only from questions with right and wrong paths.
    pooling, choice: how scores become an answer.  fitting: how the policy learns; ours.

    The question itself is never finished at once: it always gets first steps, so one that every rollout solves has one
    answer for each of them, and teaches the judge nothing. Reconstructions: the numbers of paths per question, what a
    step after a refused answer sees, and that a leaf is valued before it is expanded, which the finite score of
    unvisited children asks for.

    Raises :class:`InputError` for numbers out of range.
    """

    search: TreeSearch = TreeSearch(
        rule=UCB(2.0, 5.0),
        backup=ChildrenBackup(0.5),
        expansion=Staged(3, 0.9, 0.5, 1),
        limits=Limits(None, nodes=60, right=4),
        expand="when_visited",
        depth=8,
        lost=0.0,
    )
    rollouts: tuple[int, int] = (20, 5)
    labels: StepLabels = SoftLabels(0.5)
    judge: StepCorrectness = StepCorrectness(learning_rate=1e-2, steps=200)
    paths: int = 4
    judged: int = 2
    both: bool = True
    pooling: Pooling = "min"
    choice: Choice = "vote_sum"
    fitting: Fitting = field(default_factory=Fitting)

    def __post_init__(self) -> None:
        for name in ("paths", "judged"):
            if getattr(self, name) < 1:
                raise InputError(f"meds3.{name} = {getattr(self, name)}: must be at least 1")

    @property
    def objective(self) -> Objective:
        """The likelihood of right paths."""
        return PolicyGradient(gate=LogLikelihood(), aggregation=Credited(TokenMean()))

    def explore(self, policy: StepPolicy[S], roots: Sequence[S], reward: Reward[S], seed: int = 0) -> list[Found[S]]:
        """Search every question. reward: 1 for a right answer, 0 for a wrong one."""
        most, least = self.rollouts
        judge = Rollouts(policy, reward, most, least, self.search.depth)
        return self.search(roots, policy, judge, reward, seed)

    def train_policy(
        self, learner: StepLearner[S], roots: Sequence[S], found: Sequence[Found[S]], seed: int = 0
    ) -> float:
        """Learn from the right paths that were found; the mean loss over the last pass."""
        pairs = enumerate(zip(roots, found, strict=True))
        paths = [p for n, (root, one) in pairs for p in chosen_paths(root, one, self.paths, derive(seed, n)) if p.right]
        return learn_from(learner, self.objective, paths, self.fitting, seed)

    def judge_data(self, roots: Sequence[S], found: Sequence[Found[S]]) -> list[Path[S]]:
        """Paths with labels for their steps: of every question the ``judged`` of each side whose values vary most."""
        data: list[Path[S]] = []
        for root, one in zip(roots, found, strict=True):
            every = chosen_paths(root, one, len(one.solutions), 0)
            sides = [sorted((p for p in every if p.right is r), key=_spread, reverse=True) for r in (True, False)]
            if self.both and not all(sides):
                continue
            data += [relabelled(p, self.labels(p.targets)) for side in sides for p in side[: self.judged]]
        return data

    def train_judge(
        self, learner: StepLearner[S], roots: Sequence[S], found: Sequence[Found[S]], seed: int = 0
    ) -> StepScorer[S]:
        """A judge of steps on the learner's features. Raises :class:`InputError` where there is nothing to learn from.

        found: searches made with a reward, by this policy or by the one it started from.
        """
        data = self.judge_data(roots, found)
        if not data:
            raise InputError("meds3: no question has right and wrong paths, so there is nothing to train a judge on")
        x = labelled(learner.record([(path.root, path.steps) for path in data]), data)
        heads = Estimation(self.judge, learner.policy, derive(seed, "judge"))
        heads.complete(self.judge, x)
        return StepScorer(learner, self.judge, heads)

    def answer(
        self,
        policy: StepPolicy[S],
        scorer: StepScorer[S],
        roots: Sequence[S],
        count: int = 16,
        seed: int = 0,
    ) -> list[Answered[S]]:
        """An answer to every question, from ``count`` sampled solutions."""
        found = Samples(depth=self.search.depth, count=count)(roots, policy, seed=seed)
        return [self.choose(root, one, scorer) for root, one in zip(roots, found, strict=True)]

    def choose(self, root: S, found: Found[S], scorer: StepScorer[S]) -> Answered[S]:
        """An answer out of sampled solutions of one question."""
        steps = scorer(root, found.solutions)
        scores = [pooled(one, self.pooling) for one in steps]
        answer = chosen_answer([one.answer for one in found.solutions], scores, self.choice)
        return Answered(answer, found.solutions, tuple(scores), found.tokens)


def _spread(path: Path[Any]) -> float:
    """How much the values of the steps vary."""
    return pvariance(path.targets)
