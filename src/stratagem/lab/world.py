"""The lab as a place to train in: real batches from a tree, exact evaluations, and a policy as stale as one likes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float64
from torch import Tensor

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.lab.draw import Drawn, collect, draw
from stratagem.lab.exact import Exact, demonstrator
from stratagem.lab.game import TokenGame
from stratagem.lab.games import GAMES, find_game
from stratagem.lab.policy import NodeInputs, TabularPolicy
from stratagem.lab.tree import Tree
from stratagem.parts import Sampler
from stratagem.recipe import Recipe
from stratagem.sampling import Demonstrations
from stratagem.seeding import generator
from stratagem.tasks.options import check_names
from stratagem.training.world import Collected, Evaluation

TABULAR = {"optimization.learning_rate": 0.05}
"""What any recipe is set to for the lab: logits of their own move far, and disturb no other node."""


def from_spec(argument: str | None, options: Mapping[str, str]) -> LabTask:
    """The task ``lab:GAME[,spread=1][,staleness=0]``. Raises :class:`InputError` for a name or value that is wrong."""
    check_names("lab", options, ["spread", "staleness"])
    if argument is None:
        raise InputError(f"task lab needs a game, such as lab:four_by_four; known: {', '.join(GAMES)}")
    spread, staleness = options.get("spread", "1"), options.get("staleness", "0")
    try:
        return LabTask(find_game(argument), float(spread), int(staleness))
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"task lab: spread={spread}, staleness={staleness}: must be a number and an integer") from None


@dataclass(frozen=True)
class LabTask:
    """A game of the lab.

    spread: standard deviation of the initial logits, which follow from the run's seed; 0 starts uniform.
    staleness: batches are sampled with the weights of so many batches ago.

    Raises :class:`InputError` for a number out of range.
    """

    family: ClassVar[str] = "lab"

    game: TokenGame
    spread: float = 1.0
    staleness: int = 0

    def __post_init__(self) -> None:
        if not (0 <= self.spread < math.inf and self.staleness >= 0):
            raise InputError(f"task {self.name}: spread and staleness must be finite and at least 0")

    @property
    def name(self) -> str:
        """How the command line calls it."""
        spread = "" if self.spread == 1 else f",spread={self.spread:g}"
        return f"lab:{self.game.name}{spread}" + (f",staleness={self.staleness}" if self.staleness else "")

    @property
    def description(self) -> str:
        """One line."""
        return self.game.description


class LabWorld:
    """A tabular policy in an enumerated game.

    Every batch follows from seed and step alone, so runs of one seed start from the same policy and, while their
    policies agree, sample the same trajectories. Evaluation is exact.

    policy: None for a fresh one. Raises :class:`InputError` when it does not fit the game.
    """

    def __init__(self, task: LabTask, seed: int, policy: TabularPolicy | None = None) -> None:
        self.task, self.task_name, self._seed = task, task.name, seed
        self.tree = Tree.enumerate(task.game)
        fresh = self.tree.normal_logits(seed, task.spread)
        self.policy = TabularPolicy(fresh) if policy is None else policy
        if self.policy.logits.shape != fresh.shape:
            raise InputError(
                f"task {task.name} needs logits of shape {tuple(fresh.shape)}, not {tuple(self.policy.logits.shape)}"
            )
        self._served = self.policy.logits.detach().clone()
        self._version = 0
        self._past: list[tuple[int, Tensor]] = []

    def adapt(self, recipe: Recipe) -> Recipe:
        """The recipe with the learning rate of a table, 0.05."""
        return recipe.with_values(TABULAR)

    def serve(self, version: int) -> None:
        """Act with the policy's present weights from now on, or ``staleness`` batches later."""
        self._served, self._version = self.policy.logits.detach().clone(), version

    # ---- collecting ------------------------------------------------------------------------------------------------

    def collect(self, sampler: Sampler, step: int) -> Collected:
        """Groups of trajectories by the policy, by a demonstrator that errs in one token of ten, or by both.

        Groups the sampler rejects are replaced, up to ``refill_rounds`` times; metrics count them. A batch whose groups
        are all rejected is empty, which is no fault: nothing is ever lost here.
        """
        if isinstance(sampler, Demonstrations):
            x = draw(
                self.tree.leaves,
                self._demonstrator(),
                sampler.prompts_per_step,
                1,
                generator(self._seed, "held_out" if sampler.held_out else "collect", step),
            )
            return self._collected(Drawn(x, [x]))
        # Noted here and not when served, so that it does not matter how often weights are served between two batches.
        self._past = [*self._past, (self._version, self._served)][-1 - self.task.staleness :]
        version, logits = self._past[0]
        acting = Exact(self.tree, logits / sampler.policy_temperature)
        leaves = self.tree.leaves.replace(
            behavior_logp=self.tree.chosen(acting.logp).float(),
            version=torch.full_like(self.tree.action, version),
        )
        drawn = collect(
            leaves,
            acting.leaf_probability,
            sampler,
            partial(generator, self._seed, "collect", step),
            step * sampler.prompts_per_step,
            self._demonstrator,
        )
        return self._collected(drawn)

    def _demonstrator(self) -> Float64[Tensor, " leaves"]:
        """Probability of every leaf when it is demonstrated."""
        return demonstrator(self.tree).leaf_probability

    def _collected(self, drawn: Drawn) -> Collected:
        returns = torch.cat([x.returns for x in drawn.rounds])
        lengths = torch.cat([x.trajectory_of_token.size() for x in drawn.rounds]).float()
        metrics = {
            "episodes": float(len(returns)),
            "reward": float(returns.mean()),
            "reward_std": float(returns.std(correction=0)),
            "success": float(torch.cat([_flags(x.success) for x in drawn.rounds]).mean()),
            "completions/mean_length": float(lengths.mean()),
            "groups/kept": float(drawn.kept.groups),
            "groups/rejected": float(drawn.groups - drawn.kept.groups),
        }
        sampled = drawn.kept.select(drawn.kept.played())
        if sampled.behavior_logp is not None and sampled.tokens:
            metrics["entropy"] = -float(sampled.behavior_logp.mean())
        return Collected(drawn.kept, int(lengths.sum()), metrics, _transcripts(self.tree, drawn.rounds[0]))

    # ---- evaluating ------------------------------------------------------------------------------------------------

    def evaluate(self, episodes: int, mode: Literal["sampled", "greedy"], first: int = 0) -> Evaluation:
        """The exact expectation over all episodes there are; the interval is the success itself.

        ``mean_length`` is in turns. ``episodes`` is only repeated.
        """
        policy = (Exact if mode == "sampled" else Exact.greedy)(self.tree, self._served)
        return Evaluation(
            mode=mode,
            episodes=episodes,
            success=policy.success,
            interval=(policy.success, policy.success),
            mean_return=policy.expected_return,
            std_return=policy.return_std,
            mean_length=policy.turns,
        )

    # ---- state -----------------------------------------------------------------------------------------------------

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The weights of past batches that are still to act."""
        return (
            {f"past.{number}": logits for number, (_, logits) in enumerate(self._past)},
            {"versions": [version for version, _ in self._past]},
        )

    def load_state_dict(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Restore them."""
        self._past = [(version, tensors[f"past.{number}"]) for number, version in enumerate(plain["versions"])]

    def close(self) -> None:
        """Nothing to release."""


def _flags(values: Tensor | None) -> Tensor:
    assert values is not None
    return values.float()


def _transcripts(tree: Tree, x: Experience, count: int = 3) -> list[dict[str, Any]]:
    """The first trajectory of a few groups as a person reads it: states and tokens."""
    chosen = x.group_of_trajectory.first()[:count]
    return [
        _transcript(tree, x.select(chosen[number : number + 1]), int(chosen[number])) for number in range(len(chosen))
    ]


def _transcript(tree: Tree, x: Experience, number: int) -> dict[str, Any]:
    assert isinstance(x.inputs, NodeInputs) and x.action is not None and x.turn_reward is not None
    assert x.success is not None and x.truncated is not None
    sizes = x.turn_of_token.size().tolist()
    nodes, actions = x.inputs.node.split(sizes), x.action.split(sizes)
    messages: list[dict[str, Any]] = []
    for node, action, reward in zip(nodes, actions, x.turn_reward.tolist(), strict=True):
        messages.append({"role": "user", "content": f"state {tree.states[int(node[0])]}"})
        messages.append({"role": "assistant", "content": _spelled(action.tolist()), "reward": reward})
    return {
        "episode": number,
        "reward": float(x.returns[0]),
        "success": bool(x.success[0]),
        "truncated": bool(x.truncated[0]),
        "failure": None,
        "messages": messages,
    }


def _spelled(tokens: Sequence[int]) -> str:
    return " ".join(map(str, tokens))
