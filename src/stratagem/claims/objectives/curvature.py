"""The claim of the objective that looks ahead by a model of curvature, on a network that shares its last layer."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import product
from statistics import fmean
from typing import ClassVar

import torch
from torch import Tensor, nn

from stratagem.experience import Experience, PolicyOutput
from stratagem.lab import Exact, find_game
from stratagem.lab.policy import NodeInputs, NodePolicy
from stratagem.lab.tree import Tree
from stratagem.lab.world import LabTask, LabWorld
from stratagem.objectives import PolicyGradient
from stratagem.parts import Correction, View
from stratagem.recipe import Recipe
from stratagem.recipes import baselines
from stratagem.recipes.objectives import curvature
from stratagem.seeding import generator
from stratagem.study.claims import Expect, claim
from stratagem.training.loop import Settings, Trainer
from stratagem.training.run_directory import RunDirectory
from stratagem.training.world import check_asked

GAMES = ("prompts", "windy")
BATCHES = 60
USUAL = 3e-3
"""Learning rate at which GRPO learns both games steadily, with Adam."""

RATES = (10, 30)
"""Multiples of the usual rate."""

SMALL = {"sampler.prompts_per_step": 1, "sampler.group_size": 8}

GAIN, SHIFT = 1.0, 0.1
"""Bounds of the mask: with these about 3 tokens of a hundred are dropped at ten times the usual rate."""


@dataclass(frozen=True)
class _RandomMask(Correction):
    """Drops this share of the tokens, whichever."""

    share: float = 0.0

    def __call__(self, out: PolicyOutput, x: Experience) -> Tensor:
        return (torch.rand(x.tokens) >= self.share).to(out.logp.dtype)


@dataclass(frozen=True)
class _Learned:
    """Exact return after every batch, and the share of tokens dropped on the way."""

    returns: list[float]
    rejected: float

    @property
    def final(self) -> float:
        return self.returns[-1]

    @property
    def gap(self) -> float:
        """By how much the run fell from its best."""
        return max(self.returns) - self.final


@claim(
    "capo",
    statement="In a regime of few samples and a learning rate five times the usual, GRPO collapses; dropping the few "
    "tokens (8 %, later under 2 %) that a model of the last layer's curvature warns of keeps it learning.",
    source="arXiv 2510.00819, the comparison on MATH with 7 billion parameters",
    baseline="grpo; dropping as many tokens at random; a tighter bound on the gradient's norm",
    rule=(
        Expect("collapse_gap_reduction", above=0.02),
        Expect("final_return_gain", above=0),
        Expect("final_return_gain_over_random", above=0),
    ),
    scale="A network of 350 weights in two games of the lab, one prompt with eight answers a batch, 60 batches, Adam, "
    "each at 10 and 30 times the rate at which GRPO learns steadily; bounds set on other seeds to drop about 3 % at "
    "10 times. The gap is between the best exact return of a run and its last. Seen on other seeds before the rule was "
    "fixed: GRPO itself hardly ever falls back here, neither a table at 30 times its rate nor this network at 100; "
    "too high a rate ends in a policy that is certain too early. So the collapse of the paper is not there to be "
    "prevented, and 480 short answers cannot say what happens in long training. On three such seeds the mask did "
    "worse than GRPO, and on two worse than dropping at random: the largest steps are those of unlikely tokens, which "
    "could still have corrected the policy, so a likely cause is that it keeps what GRPO would have unlearned. At the "
    "usual rate and at three times it nothing was dropped and both arms were the same, so these rates were left out, "
    "and 80 batches became 60, to save time; the rule was not changed. "
    "final_return_gain_over_clipping is over GRPO with a tenth of the usual bound on the gradient's norm; "
    "the figures named _10 and _30 are at that multiple of the rate.",
)
def capo(seed: int) -> dict[str, float]:
    """Gap and final return at aggressive rates, mean over rates and games, against GRPO and its cheap controls."""
    found: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    for game, times in product(GAMES, RATES):
        ours, theirs = (
            _learn(recipe, game, times, seed) for recipe in (curvature.capo(gain=GAIN, shift=SHIFT), baselines.grpo())
        )
        note(f"final_return_{times}", ours.final)
        note(f"grpo_final_return_{times}", theirs.final)
        note(f"rejected_{times}", ours.rejected)
        random = _learn(_dropping(ours.rejected), game, times, seed)
        clipped = _learn(baselines.grpo().with_values({"optimization.max_grad_norm": 0.1}), game, times, seed)
        note("collapse_gap", ours.gap)
        note("grpo_collapse_gap", theirs.gap)
        note("collapse_gap_reduction", theirs.gap - ours.gap)
        note("final_return_gain", ours.final - theirs.final)
        note("final_return_gain_over_random", ours.final - random.final)
        note("final_return_gain_over_clipping", ours.final - clipped.final)
    return {name: fmean(values) for name, values in found.items()}


def _dropping(share: float) -> Recipe:
    """GRPO on a random part of its tokens."""
    recipe = baselines.grpo()
    assert isinstance(recipe.objective, PolicyGradient)
    return recipe.replace(objective=recipe.objective.replace(correction=_RandomMask(share)))


def _learn(recipe: Recipe, game: str, times: int, seed: int) -> _Learned:
    task = LabTask(find_game(game))
    tree = Tree.enumerate(task.game)
    world = LabWorld(task, seed, _Network(tree.nodes, task.game.vocabulary, seed))
    recipe = recipe.with_values({**SMALL, "optimization.learning_rate": times * USUAL})
    returns, rejected = [], []
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(BATCHES, seed, evaluation_episodes=0, sample_episodes=0)
        trainer = Trainer(recipe, world, RunDirectory.create(folder), settings)
        for _ in range(BATCHES):
            metrics = trainer.step()
            returns.append(Exact(world.tree, world.policy.table()).expected_return)
            if "curvature/rejected" in metrics:
                rejected.append(metrics["curvature/rejected"])
    return _Learned(returns, fmean(rejected) if rejected else 0.0)


class _Network(NodePolicy):
    """``logits = W tanh(V f)``: 24 hidden units over 12 fixed random features of each node, so nodes share weights."""

    kind: ClassVar[str] = "network"
    says: ClassVar[frozenset[str]] = NodePolicy.says - {"hidden_square"}
    views: ClassVar[tuple[type[View], ...]] = ()

    def __init__(self, nodes: int, vocabulary: int, seed: int) -> None:
        super().__init__(nodes)
        source = generator(seed, "network")
        self.features = torch.randn(nodes, 12, generator=source)
        self.first = nn.Parameter(torch.randn(24, 12, generator=source) / 12**0.5)
        self.last = nn.Parameter(torch.randn(vocabulary, 24, generator=source) / 24**0.5)

    @property
    def read(self) -> Tensor:
        """What the last layer reads at each node."""
        return torch.tanh(self.features @ self.first.mT)

    def table(self) -> Tensor:
        return (self.read @ self.last.mT).detach()

    def forward(
        self, x: Experience, *, temperature: float = 1.0, also: Collection[str] = (), view: View | None = None
    ) -> PolicyOutput:
        check_asked(self, also, view)
        assert isinstance(x.inputs, NodeInputs) and x.action is not None
        node, read = x.inputs.node, self.read
        hidden = read.detach()[node] / temperature if "hidden" in also else None
        return self.say(x, read @ self.last.mT / temperature, node, also, hidden=hidden)

    def policy_parameters(self) -> Iterator[Tensor]:
        yield from (self.first, self.last)

    def arguments(self) -> dict[str, int]:
        return {"nodes": len(self.features), "vocabulary": len(self.last)}
