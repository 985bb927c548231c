"""The lab as a place to train in: batches from a tree, exact evaluations, and a sampler as far off as is asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.lab.draw import Drawn, candidates, collect, draw
from stratagem.lab.exact import Exact, demonstrator, led_policy
from stratagem.lab.experts import ExpertsPolicy
from stratagem.lab.game import TokenGame
from stratagem.lab.games import find_game, known_games
from stratagem.lab.policy import NodeInputs, NodePolicy, TabularPolicy
from stratagem.lab.tree import Tree
from stratagem.lab.windows import Slots
from stratagem.parts import Preference, Sampler
from stratagem.preferences.contests import Answers, win_rate
from stratagem.recipe import Recipe
from stratagem.sampling import Branching, Candidates, Demonstrations, Windows
from stratagem.sampling.guided import guided_metrics
from stratagem.seeding import generator
from stratagem.tasks.options import check_names
from stratagem.training.weights import put, taken
from stratagem.training.world import Collected, Evaluation

TABULAR = {"optimization.learning_rate": 0.05}
"""What any recipe is set to for a table: logits of their own move far, and disturb no other node."""

ESTIMATOR = {"estimator.learning_rate": 0.05}
"""And for an estimator's tables."""

EXPERTS = {"optimization.learning_rate": 0.01}
"""And for a mixture of experts, whose weights are shared by all nodes."""

NUMBERS = {"spread": float, "staleness": int, "mismatch": float, "partial": int, "experts": int}
"""Options of a lab task, each a number."""


def from_spec(argument: str | None, options: Mapping[str, str]) -> LabTask:
    """The task ``lab:GAME[,spread=1,staleness=0,mismatch=0,partial=0,experts=0]``.

    Raises :class:`InputError` for a name or value that is wrong.
    """
    check_names("lab", options, list(NUMBERS))
    if argument is None:
        known = ", ".join(known_games())
        raise InputError(f"task lab needs a game, such as lab:four_by_four; known: {known}")
    game, numbers = find_game(argument), {}
    for name, text in options.items():
        try:
            numbers[name] = NUMBERS[name](text)
        except ValueError:
            kind = "an integer" if NUMBERS[name] is int else "a number"
            raise InputError(f"task lab: {name}={text}: must be {kind}") from None
    return LabTask(game, **numbers)


@dataclass(frozen=True)
class LabTask:
    """A game of the lab, and how far who samples is from the policy that learns.

    spread: standard deviation of the initial logits, which follow from the run's seed; 0 starts uniform.
    staleness: batches are sampled with the weights of so many batches ago.
    mismatch: the sampler's weights are rounded to multiples of this, as a cheaper engine would; 0: they are not.
    Evaluation is of the policy itself.
    partial: a trajectory goes on under the next younger weights after every so many tokens, until the newest have been
    reached, as when weights are exchanged during a rollout; 0: one set of weights writes it all.
    experts: 0 for a table of logits, else a mixture of so many experts, two of them active (:class:`ExpertsPolicy`).

    Raises :class:`InputError` for a number out of range.
    """

    family: ClassVar[str] = "lab"

    game: TokenGame
    spread: float = 1.0
    staleness: int = 0
    mismatch: float = 0.0
    partial: int = 0
    experts: int = 0

    def __post_init__(self) -> None:
        if not all(0 <= getattr(self, name) < math.inf for name in NUMBERS) or self.experts == 1:
            names = ", ".join(NUMBERS)
            raise InputError(f"task {self.name}: {names} must be finite and at least 0, experts 0 or at least 2")

    @property
    def name(self) -> str:
        """How the command line calls it."""
        changed = {name: getattr(self, name) for name in NUMBERS if getattr(self, name) != getattr(LabTask, name)}
        return f"lab:{self.game.name}" + "".join(f",{name}={value:g}" for name, value in changed.items())

    @property
    def description(self) -> str:
        """One line."""
        return self.game.description

    @property
    def oracle(self) -> Preference | None:
        """Who compares answers, in a game where they are compared."""
        return self.game.oracle

    def new_policy(self, tree: Tree, seed: int) -> NodePolicy:
        """The policy a run of this seed begins with."""
        if not self.experts:
            return TabularPolicy(tree.normal_logits(seed, self.spread))
        return ExpertsPolicy(tree.nodes, self.game.vocabulary, self.experts, seed=seed, spread=self.spread)


@dataclass(frozen=True, eq=False)
class _Sampler:
    """Who acts in a batch, node by node: logits as the engine has them, and as the policy of that version had them.

    version: of the weights that act.  experts: that the engine chooses; None for a dense policy.
    """

    engine: Float[Tensor, "nodes vocabulary"]
    policy: Float[Tensor, "nodes vocabulary"]
    version: Int[Tensor, " nodes"]
    experts: Int[Tensor, "nodes active"] | None


class LabWorld:
    """A policy on the nodes of an enumerated game.

    Every batch follows from seed and step alone, so runs of one seed start from the same policy and, while their
    policies agree, sample the same trajectories. Evaluation is exact. Batches say who sampled them: ``behavior_logp``
    is the engine's, ``version`` tells the weights, ``version_logp`` is what the policy of that version says, and
    ``experts`` are those that the engine chose.

    policy: None for a fresh one.  last_batch: what was last collected, as it was sampled.

    Raises :class:`InputError` when the policy does not fit the game.
    """

    def __init__(self, task: LabTask, seed: int, policy: NodePolicy | None = None) -> None:
        self.task, self.task_name, self._seed = task, task.name, seed
        self.tree = Tree.enumerate(task.game)
        self.policy = task.new_policy(self.tree, seed) if policy is None else policy
        shape, needed = tuple(self.policy.table().shape), (self.tree.nodes, task.game.vocabulary)
        if shape != needed:
            raise InputError(f"task {task.name} needs logits of shape {needed}, not {shape}")
        self._copy = self.policy.copy()
        self._served = taken(self.policy)
        self._begun = self.answers(1) if task.oracle is not None else None
        self._version = 0
        self._past: list[tuple[int, dict[str, Tensor]]] = []
        self._slots = Slots(self.tree, seed)
        self.last_batch: Experience | None = None

    def adapt(self, recipe: Recipe) -> Recipe:
        """The recipe with a learning rate for the lab: 0.05 for a table, 0.01 for a mixture of experts.

        Where the game compares answers, a recipe that learns from comparisons asks its oracle.
        """
        values = TABULAR if isinstance(self.policy, TabularPolicy) else EXPERTS
        if self.task.oracle is not None:
            recipe = recipe.asking(self.task.oracle)
        return recipe.with_values(values if recipe.estimator is None else values | ESTIMATOR)

    def serve(self, version: int) -> None:
        """Act with the policy's present weights from now on, or ``staleness`` batches later."""
        self._served, self._version = taken(self.policy), version

    # ---- collecting ------------------------------------------------------------------------------------------------

    def collect(self, sampler: Sampler, step: int) -> Collected:
        """Groups of trajectories by the policy, by a demonstrator that errs in one token of ten, or by both.

        Groups the sampler rejects are replaced, up to ``refill_rounds`` times; metrics count them. A batch whose groups
        are all rejected is empty, which is no fault: nothing is ever lost here. ``Windows`` are of responses that run
        on across batches; metrics of episodes are then of those that ended.

        ``decode/steps``: tokens one after the other, if all responses of a batch are written side by side, each token
        in one step.  ``decode/utilization``: share of places in those steps in which a token was written.
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
        who, tree = self._sampler(), self.tree
        tempered, plain = sampler.tempered(who.engine), who.policy / sampler.policy_temperature
        acting = Exact(tree, tempered)
        if isinstance(sampler, Windows):
            return self._windowed(sampler, acting, self._past[0][0])
        said = tree.chosen(acting.logp)
        by_policy = said if torch.equal(tempered, plain) else tree.chosen(Exact(tree, plain).logp)
        leaves = tree.leaves.replace(
            behavior_logp=said.to(who.engine.dtype),
            version=who.version[tree.node],
            version_logp=by_policy.to(who.engine.dtype),
            experts=None if who.experts is None else who.experts[tree.node],
        )
        if isinstance(sampler, Candidates):
            first = tree.leaves.trajectory_of_token.position() == 0
            given = tree.leaves.trajectory_of_token.sum(said.masked_fill(first, 0.0)).exp() * tree.chance
            source = generator(self._seed, "collect", step)
            x = candidates(leaves, acting.leaf_probability, given, sampler, self.task.game.vocabulary, source)
            return self._collected(Drawn(x, [x]))
        drawn = collect(
            leaves,
            acting.leaf_probability,
            sampler,
            partial(generator, self._seed, "collect", step),
            step * sampler.prompts_per_step,
            self._demonstrator,
            step,
            partial(generator, self._seed, "curriculum", step),
            self._read,
            lambda choices: led_policy(acting, choices).leaf_probability,
        )
        figures = sampler.at.figures(drawn.kept) if isinstance(sampler, Branching) else {}
        return self._collected(drawn, figures)

    def _read(self, starts: Sequence[int]) -> list[str]:
        """The states in which these starts begin, as text."""
        return [f"{self.task.game.starts[number][1]}" for number in starts]

    def _sampler(self) -> _Sampler:
        """Who acts in every node, given the weights of past batches, oldest first."""
        turn = torch.zeros_like(self._depth)
        if self.task.partial:
            turn = (self._depth // self.task.partial).clamp(max=len(self._past) - 1)
        acting = [self._of_version(*self._past[number]) for number in range(int(turn.max()) + 1)]
        if len(acting) == 1:
            return acting[0]

        def composed(tables: Sequence[Tensor]) -> Tensor:
            return torch.stack(list(tables))[turn, torch.arange(self.tree.nodes)]

        routes = [who.experts for who in acting if who.experts is not None]
        engine = composed([who.engine for who in acting])
        return _Sampler(
            engine,
            composed([who.policy for who in acting]) if self.task.mismatch else engine,
            composed([who.version for who in acting]),
            composed(routes) if routes else None,
        )

    def _of_version(self, version: int, weights: Mapping[str, Tensor]) -> _Sampler:
        """One version in every node. The engine's weights are rounded, the policy's are not."""
        step, versions = self.task.mismatch, torch.full((self.tree.nodes,), version)
        put(self._copy, weights)
        policy = self._copy.table()
        if not step:
            return _Sampler(policy, policy, versions, self._copy.routes())
        put(self._copy, {name: (tensor / step).round() * step for name, tensor in weights.items()})
        return _Sampler(self._copy.table(), policy, versions, self._copy.routes())

    @cached_property
    def _depth(self) -> Int[Tensor, " nodes"]:
        """Tokens of an episode before each node."""
        depth = torch.zeros(self.tree.nodes, dtype=torch.int64)
        depth[self.tree.node] = self.tree.leaves.trajectory_of_token.position()
        return depth

    def _windowed(self, sampler: Windows, acting: Exact, version: int) -> Collected:
        x, written = self._slots.advance(acting, self.policy.values.detach(), version, sampler)
        self.last_batch = x
        assert x.running is not None and x.mask is not None and x.behavior_logp is not None
        ended = x.select(~x.running)
        metrics = _episode_metrics([ended]) if ended.trajectories else {"episodes": 0.0}
        metrics |= _decode_metrics([written])
        metrics |= {"episodes/running": float(x.running.sum()), "entropy": -float(x.behavior_logp[x.mask].mean())}
        return Collected(x, int(written.sum()), metrics, _transcripts(self.tree, x))

    def _demonstrator(self) -> Float64[Tensor, " leaves"]:
        """Probability of every leaf when it is demonstrated."""
        return demonstrator(self.tree).leaf_probability

    def _collected(self, drawn: Drawn, figures: Mapping[str, float] = MappingProxyType({})) -> Collected:
        self.last_batch = drawn.kept
        # What a trajectory was led by, nobody sampled.
        lengths = [x.trajectory_of_token.size() - (0 if x.taken_over is None else x.taken_over) for x in drawn.rounds]
        metrics = _episode_metrics(drawn.rounds) | _decode_metrics(lengths)
        metrics |= {
            **figures,
            "groups/kept": float(drawn.groups - drawn.rejected),
            "groups/rejected": float(drawn.rejected),
            **drawn.figures,
        }
        branches, branched = drawn.branches
        if branches:
            metrics["branches/groups"] = float(branches)
        if drawn.again is not None:
            metrics |= drawn.again.metrics
        metrics |= _guided_metrics(drawn.rounds)
        names = self.task.game.reward_names
        if len(names) > 1:
            rewards = torch.cat([_rewards(x) for x in drawn.rounds]).mean(0).tolist()
            metrics |= {f"reward/{name}": reward for name, reward in zip(names, rewards, strict=True)}
        sampled = drawn.kept.select(drawn.kept.played())
        if sampled.behavior_logp is not None and sampled.tokens:
            own = sampled.behavior_logp
            if sampled.taken_over is not None and sampled.branch is None:
                begun = sampled.trajectory_of_token.spread(sampled.taken_over)
                own = own[sampled.trajectory_of_token.position() >= begun]
            metrics["entropy"] = -float(own.mean())
        tokens = sum(int(length.sum()) for length in lengths) + branched
        if drawn.online:
            tokens = sum(growth.tokens for growth in drawn.online)
        tokens += 0 if drawn.again is None else drawn.again.tokens
        return Collected(drawn.kept, tokens, metrics, _transcripts(self.tree, drawn.rounds[0]))

    # ---- evaluating ------------------------------------------------------------------------------------------------

    def evaluate(self, episodes: int, mode: Literal["sampled", "greedy"], first: int = 0) -> Evaluation:
        """The exact expectation over all episodes there are; the interval is the success (or win rate) itself.

        ``mean_length`` is in turns. ``episodes`` is only repeated. Where the game compares answers, ``win_rate`` is
        against the policy that this world was built with, sampled.
        """
        policy = self._serving(mode)
        won = None
        if self._begun is not None and self.task.oracle is not None:
            won = win_rate(self.task.oracle, self._answers_of(policy), self._begun)
        exact = policy.success if won is None else won
        return Evaluation(
            mode=mode,
            episodes=episodes,
            success=policy.success if won is None else None,
            win_rate=won,
            interval=(exact, exact),
            mean_return=policy.expected_return,
            std_return=policy.return_std,
            mean_length=policy.turns,
        )

    def answers(self, prompts: int) -> Answers:
        """All answers to all prompts there are, as likely as the policy last served gives them."""
        return self._answers_of(self._serving("sampled"))

    def _serving(self, mode: Literal["sampled", "greedy"]) -> Exact:
        put(self._copy, self._served)
        return (Exact if mode == "sampled" else Exact.greedy)(self.tree, self._copy.table())

    def _answers_of(self, policy: Exact) -> Answers:
        leaves, prompt = self.tree.leaves, policy.start_probability
        share = policy.leaf_probability / leaves.group_of_trajectory.spread(prompt)
        return Answers(leaves, share, prompt, complete=True)

    # ---- state -----------------------------------------------------------------------------------------------------

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The weights of past batches that are still to act, and the responses under way."""
        return (
            {f"past.{number}.{name}": t for number, (_, kept) in enumerate(self._past) for name, t in kept.items()},
            {"versions": [version for version, _ in self._past], "windows": self._slots.state_dict()},
        )

    def load_state_dict(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Restore them."""
        names = list(self._served)
        self._past = [
            (version, {name: tensors[f"past.{number}.{name}"] for name in names})
            for number, version in enumerate(plain["versions"])
        ]
        self._slots.load_state_dict(plain["windows"])

    def close(self) -> None:
        """Nothing to release."""


def _episode_metrics(rounds: Sequence[Experience]) -> dict[str, float]:
    returns = torch.cat([x.returns for x in rounds])
    return {
        "episodes": float(len(returns)),
        "reward": float(returns.mean()),
        "reward_std": float(returns.std(correction=0)),
        "success": float(torch.cat([_flags(x.success) for x in rounds]).mean()),
        "completions/mean_length": float(torch.cat([x.trajectory_of_token.size() for x in rounds]).float().mean()),
    }


def _decode_metrics(written: Sequence[Tensor]) -> dict[str, float]:
    """Of tokens written by response, round by round; a round takes as long as its longest response."""
    steps = [int(tokens.max()) for tokens in written]
    places = sum(len(tokens) * count for tokens, count in zip(written, steps, strict=True))
    used = sum(int(tokens.sum()) for tokens in written)
    return {"decode/steps": float(sum(steps)), "decode/utilization": used / places}


def _rewards(x: Experience) -> Tensor:
    assert x.reward is not None
    return x.reward


def _guided_metrics(rounds: Sequence[Experience]) -> dict[str, float]:
    """How trajectories did that were led part of the way, and the others; nothing where nobody was to be led."""
    if any(x.taken_over is None or x.branch is not None for x in rounds):
        return {}
    success, taken = (
        torch.cat([value for x in rounds if (value := getattr(x, name)) is not None])
        for name in ("success", "taken_over")
    )
    return guided_metrics(success, taken > 0)


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
