"""Learners that meet on a lattice under an exploration schedule, and what may show how cooperation comes and goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge
from jaxtyping import Float, Float64, Int64
from pydantic import InstanceOf
from torch import Tensor

from stratagem.catalogue import paper
from stratagem.errors import InputError
from stratagem.multiagent.boltzmann import Annealing, boltzmann
from stratagem.multiagent.lattice import COOPERATE, COOPERATING, OBSERVATIONS, Lattice, payoffs
from stratagem.multiagent.shared_learners import ACTIONS, Learner, Learning, NetworkLearner
from stratagem.seeding import generator
from stratagem.validation import validate_fields


@dataclass(frozen=True, eq=False)
class LatticePlay:
    """What happened on a lattice, in windows of learning, and after it.

    steps: the last of each window.  counts: how often an action was taken by an agent that saw an observation, in each
    window.  values: of every observation at its end, mean over agents.  interference: at its end
    (:meth:`stratagem.multiagent.shared_learners.Learning.interference`).
    evaluated: counts of evaluation.  actions: the last ones.
    """

    lattice: Lattice
    steps: Int64[np.ndarray, " windows"]
    counts: Float64[np.ndarray, "windows worlds observations actions"]
    values: Float64[np.ndarray, "windows worlds observations actions"]
    interference: Float64[np.ndarray, "windows worlds"]
    evaluated: Float64[np.ndarray, "worlds observations actions"]
    actions: Int64[np.ndarray, "worlds agents"]

    @property
    def cooperation(self) -> Float64[np.ndarray, "windows worlds"]:
        """Share of action 0 in each window of learning."""
        return _cooperation(self.counts)

    @property
    def evaluation(self) -> Float64[np.ndarray, " worlds"]:
        """Share of action 0 after learning: the cooperation rate."""
        return _cooperation(self.evaluated)

    @property
    def gaps(self) -> Float64[np.ndarray, "windows worlds observations"]:
        """``Q(s, cooperate) - Q(s, defect)``."""
        return np.asarray(self.values[..., 0] - self.values[..., 1])

    @property
    def seen(self) -> Float64[np.ndarray, "windows worlds observations"]:
        """Share of each observation among those acted on."""
        return np.asarray(self.counts.sum(-1) / self.counts.sum((-2, -1))[..., None])

    @property
    def by_neighbours(self) -> Float64[np.ndarray, "windows worlds 5"]:
        """Cooperation of agents of whose neighbours none, one, ... four had cooperated; nan where there were none."""
        kinds = (COOPERATING[:, None] == torch.arange(5)).numpy().astype(np.float64)
        together = np.einsum("wvsa,sk->wvka", self.counts, kinds)
        with np.errstate(invalid="ignore"):
            return np.asarray(together[..., COOPERATE] / together.sum(-1))

    @property
    def clusters(self) -> list[Int64[np.ndarray, " clusters"]]:
        """Sizes of connected groups of cooperators at the end, by world."""
        return [self.lattice.clusters(actions) for actions in self.actions]


def _cooperation(counts: Float64[np.ndarray, "... observations actions"]) -> Float64[np.ndarray, "..."]:
    return np.asarray(counts[..., COOPERATE].sum(-1) / counts.sum((-2, -1)))


def play_lattice(
    lattice: Lattice,
    learning: Learning,
    temperatures: Float64[np.ndarray, "steps worlds"],
    temptation: float | Sequence[float],
    seed: int,
    *,
    evaluation: int = 0,
    windows: int = 1,
    initial: Int64[Tensor, "worlds agents"] | None = None,
    progress: Callable[[int], None] = lambda step: None,
) -> LatticePlay:
    """All agents act by Boltzmann exploration and learn, in worlds side by side; then they act without learning.

    temperatures: of every step of learning; evaluation is at the last ones.  temptation: of all worlds or of each.
    windows: into which learning is cut for what is measured.  initial: what was played before the first step; uniform
    at random by default.  progress: called with the number of steps played.

    Raises :class:`InputError` for no step, and for more windows than steps.
    """
    steps, worlds = temperatures.shape
    if not 1 <= windows <= steps or evaluation < 0:
        raise InputError(
            f"lattice: {steps} steps in {windows} windows and {evaluation} of evaluation; needs a step for each window"
        )
    draw, paid = generator(seed, "lattice", "actions"), payoffs(temptation, worlds)
    shape = (worlds, lattice.agents)
    actions = torch.randint(ACTIONS, shape, generator=draw) if initial is None else initial
    seen = lattice.observations(actions)
    degrees = torch.from_numpy(temperatures.astype(np.float32))[:, :, None]
    ends = np.linspace(0, steps, windows + 1).round().astype(np.int64)[1:]
    counts, kept, closing = torch.zeros(worlds, OBSERVATIONS * ACTIONS), [], set(ends.tolist())
    for step in range(steps + evaluation):
        cooperates = boltzmann(learning.values(seen), degrees[min(step, steps - 1)])[..., COOPERATE]
        actions = (torch.rand(shape, generator=draw) >= cooperates).long()
        counts.scatter_add_(1, seen * ACTIONS + actions, _ones(shape))
        following = lattice.observations(actions)
        if step < steps:
            learning.learn(seen, actions, paid.gather(1, following), following)
        seen = following
        if step + 1 in closing:
            kept.append((_counted(counts), learning.table().double().numpy(), learning.interference().double().numpy()))
            counts.zero_()
        progress(step + 1)
    windowed, values, interference = (np.stack(each) for each in zip(*kept, strict=True))
    evaluated = _counted(counts) if evaluation else windowed[-1]
    return LatticePlay(lattice, ends, windowed, values, interference, evaluated, actions.numpy())


def _ones(shape: tuple[int, int]) -> Float[Tensor, "worlds agents"]:
    return torch.ones(1).expand(shape)


def _counted(counts: Float[Tensor, "worlds cells"]) -> Float64[np.ndarray, "worlds observations actions"]:
    return counts.double().view(len(counts), OBSERVATIONS, ACTIONS).numpy()


@paper(
    "2601.05509",
    title="How Exploration Breaks Cooperation in Shared-Policy Multi-Agent Reinforcement Learning",
    family="games",
    roles=("environment", "policy", "metric"),
    year=2026,
    name="shared_policy_collapse",
    tags=("learning",),
)
@dataclass(frozen=True)
class SharedPolicyCollapse:
    """Agents of a lattice prisoner's dilemma that share one Q-network, under more and more exploration: a benchmark.

    Cooperation after learning is compared by the exploration index ``B``, the mean Boltzmann temperature over the first
    half of annealing, and by what agents share. Sharing is the learner's: one network for all, one for each group or
    agent, one that is told who acts, and tables with and without sharing.

    Published: a side of 30, temptation .10 to .40, 95,000 steps of learning and 5,000 of evaluation at a temperature
    of .1; starts of .127 to .727, which make ``B`` .12 to .57. The paper's code has further starts (1.0 and 1.5) as
    defaults; ours is the largest of its sweep.

    learner: what all agents are.  temptation: what is gained by defecting alone, and lost by cooperating alone.

    Raises :class:`InputError` for values out of range.
    """

    learner: InstanceOf[Learner] = field(default_factory=NetworkLearner)
    side: Annotated[int, Ge(3)] = 30
    temptation: Annotated[float, Ge(0)] = 0.2
    annealing: Annealing = field(default_factory=Annealing)
    evaluation: Annotated[int, Ge(0)] = 5000

    def __post_init__(self) -> None:
        validate_fields(self, "shared_policy_collapse")

    @property
    def lattice(self) -> Lattice:
        """On which they live."""
        return Lattice(self.side)

    def play(
        self, seed: int, *, runs: int = 1, windows: int = 1, progress: Callable[[int], None] = lambda step: None
    ) -> LatticePlay:
        """Learn and evaluate in worlds side by side. Raises :class:`InputError` as :func:`play_lattice` does."""
        return play_lattice(
            self.lattice,
            self.learner.start(self.lattice, runs, seed),
            np.repeat(self.annealing.temperatures()[:, None], runs, 1),
            self.temptation,
            seed,
            evaluation=self.evaluation,
            windows=windows,
            progress=progress,
        )
