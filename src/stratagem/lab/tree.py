"""A game enumerated: its decision nodes, and all its complete trajectories as one batch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float64, Int, Shaped
from torch import Tensor

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.lab.game import Marks, TokenGame
from stratagem.lab.policy import NodeInputs
from stratagem.partition import Partition
from stratagem.seeding import generator
from stratagem.tasks.task import answer_key, state_key

MOST_LEAVES = 200_000
"""A game with more complete trajectories than this is not enumerated."""


@dataclass(frozen=True, eq=False)
class Tree:
    """Every history of a game is a decision node, every complete trajectory a leaf.

    A policy is a softmax for each node, ``logits [nodes, vocabulary]``; a leaf has the probability ``chance`` times
    those of its tokens.

    leaves: one trajectory per leaf, one group per start, in the game's order. ``inputs`` hold the node of every token;
    ``action``, ``turn_reward``, ``turn_state``, ``turn_role``, ``turn_context``, ``turn_done``, ``turn_executed``,
    ``reward``, ``success``, ``finished``, ``truncated``, ``answer`` (what the last turn said; -1 when the episode was
    cut), ``task_id`` (the number of the start) and ``step_start`` (at least where turns begin) are set; ``span`` and
    ``segment_start`` where turns have a structure, ``planning`` where the game says which tokens plan.
    chance: probability of all that the game chose on the way to a leaf, its start included.
    states: the state in which the turn of each decision node began.
    """

    game: TokenGame
    leaves: Experience
    chance: Float64[Tensor, " leaves"]
    states: tuple[object, ...]

    @staticmethod
    @cache
    def enumerate(game: TokenGame) -> Tree:
        """The tree of a game. Raises :class:`InputError` when probabilities do not add up or the game is too large."""
        if game.vocabulary < 2:
            raise InputError(f"game {game.name}: vocabulary = {game.vocabulary}: must be at least 2")
        _check_sum(game, "its starts", [probability for probability, _ in game.starts])
        states: list[object] = []
        walks = [_walk(game, states, start) for start in range(len(game.starts))]
        leaves = list(itertools.islice(itertools.chain(*walks), MOST_LEAVES + 1))
        if len(leaves) > MOST_LEAVES:
            raise InputError(f"game {game.name}: has more than {MOST_LEAVES} trajectories, too many to enumerate")
        chance = torch.tensor([leaf.chance for leaf in leaves], dtype=torch.float64)
        return Tree(game, _experience(leaves, game), chance, tuple(states))

    def normal_logits(self, seed: int, spread: float = 1.0) -> Float64[Tensor, "nodes vocabulary"]:
        """Random logits of standard deviation ``spread``."""
        return spread * torch.randn(self.nodes, self.game.vocabulary, generator=generator(seed, "logits")).double()

    @property
    def nodes(self) -> int:
        """Number of decision nodes."""
        return len(self.states)

    @property
    def node(self) -> Int[Tensor, " tokens"]:
        """The node in which each token of the leaves was chosen."""
        assert isinstance(self.leaves.inputs, NodeInputs)
        return self.leaves.inputs.node

    @property
    def action(self) -> Int[Tensor, " tokens"]:
        """The tokens of the leaves."""
        assert self.leaves.action is not None
        return self.leaves.action

    @property
    def starts(self) -> int:
        """Number of start states."""
        return self.leaves.groups

    def chosen(self, table: Shaped[Tensor, "nodes vocabulary"]) -> Shaped[Tensor, " tokens"]:
        """What a table over nodes and tokens says at every token of the leaves."""
        return table[self.node, self.action]

    def total(self, values: Shaped[Tensor, " tokens"]) -> Float64[Tensor, "nodes vocabulary"]:
        """Values at the tokens of the leaves added up by node and token: the way back from :meth:`chosen`."""
        places = self.node * self.game.vocabulary + self.action
        return added(places, values, self.nodes * self.game.vocabulary).view(self.nodes, -1)


def added(places: Int[Tensor, " rows"], values: Shaped[Tensor, " rows"], count: int) -> Float64[Tensor, " count"]:
    """Values added up by place, in float64."""
    return torch.bincount(places, weights=values.double(), minlength=count)


class _Turn(NamedTuple):
    state: object
    nodes: tuple[int, ...] = ()
    tokens: tuple[int, ...] = ()
    reward: float = 0.0
    executed: bool = True
    components: Mapping[str, float] = {}
    ran: bool | None = None


class _Leaf(NamedTuple):
    start: int
    chance: float
    turns: tuple[_Turn, ...]
    success: bool
    truncated: bool


def _walk(game: TokenGame, states: list[object], start: int) -> Iterator[_Leaf]:
    """The leaves below a start, depth first; nodes are numbered as they are met, and their states noted."""

    def grow(past: tuple[_Turn, ...], chance: float, turn: _Turn) -> Iterator[_Leaf]:
        outcomes = game.act(turn.state, turn.tokens) if turn.tokens else None
        if outcomes is None:
            node = len(states)
            states.append(turn.state)
            for token in range(game.vocabulary):
                longer = turn._replace(nodes=(*turn.nodes, node), tokens=(*turn.tokens, token))
                yield from grow(past, chance, longer)
            return
        _check_sum(game, f"the outcomes of {turn.tokens} in {turn.state!r}", [o.probability for o in outcomes])
        for outcome in outcomes:
            _check_components(game, outcome.components)
            ended = turn._replace(
                reward=outcome.reward, executed=outcome.executed, components=outcome.components, ran=outcome.ran
            )
            before = past
            if outcome.earlier:
                if not past:
                    raise InputError(f"game {game.name}: the first turn has none before it that could earn")
                before = (*past[:-1], past[-1]._replace(reward=past[-1].reward + outcome.earlier))
            turns, reached = (*before, ended), chance * outcome.probability
            if outcome.state is None:
                yield _Leaf(start, reached, turns, outcome.success, outcome.truncated)
            else:
                yield from grow(turns, reached, _Turn(outcome.state))

    probability, state = game.starts[start]
    try:
        yield from grow((), probability, _Turn(state))
    except RecursionError:
        raise InputError(f"game {game.name}: an episode does not end") from None


def _experience(leaves: Sequence[_Leaf], game: TokenGame) -> Experience:
    starts = len(game.starts)
    turns = [turn for leaf in leaves for turn in leaf.turns]
    tokens_per_turn = torch.tensor([len(turn.tokens) for turn in turns])
    sizes = torch.bincount(torch.tensor([leaf.start for leaf in leaves]), minlength=starts)
    lengths = torch.tensor([sum(len(turn.tokens) for turn in leaf.turns) for leaf in leaves])
    x = Experience.from_lengths(
        tokens_per_turn,
        [len(leaf.turns) for leaf in leaves],
        sizes,
        action=torch.tensor([token for turn in turns for token in turn.tokens]),
        turn_reward=torch.tensor([turn.reward for turn in turns]),
        turn_state=torch.tensor([state_key(game.looks(turn.state)) for turn in turns]),
        turn_call=torch.tensor([-1 if turn.ran is None else int(turn.ran) for turn in turns]),
        turn_executed=[turn.executed for turn in turns],
        success=[leaf.success for leaf in leaves],
        finished=[not leaf.truncated for leaf in leaves],
        truncated=[leaf.truncated for leaf in leaves],
        answer=torch.tensor([answer_key(None if leaf.truncated else leaf.turns[-1].tokens) for leaf in leaves]),
        task_id=torch.arange(starts),
        inputs=NodeInputs(torch.tensor([node for turn in turns for node in turn.nodes]), lengths),
    )
    further = game.reward_names[1:]
    components = [[sum(turn.components.get(name, 0.0) for turn in leaf.turns) for name in further] for leaf in leaves]
    if game.domains:
        domains = torch.tensor(game.domains)
        x = x.replace(domain_of_group=Partition(domains, int(domains.max()) + 1))
    return x.replace(
        reward=torch.cat([x.returns.unsqueeze(1), torch.tensor(components).view(len(leaves), len(further))], 1),
        reward_names=game.reward_names,
        reward_weights=_weights(game),
        turn_done=x.trajectory_of_turn.is_last(),
        **_structure(turns, game),
        **_marks(turns, game),
        **_seats(turns, game),
    )


def _structure(turns: Sequence[_Turn], game: TokenGame) -> dict[str, Tensor]:
    if game.structure is None:
        return {}
    said = [(turn.tokens, *game.structure(turn.state, turn.tokens)) for turn in turns]
    for tokens, spans, _ in said:
        if len(spans) != len(tokens):
            raise InputError(f"game {game.name}: structure names {len(spans)} spans of {tokens}; must be one for each")
    return {
        "span": torch.tensor([int(span) for _, spans, _ in said for span in spans]),
        "segment_start": torch.tensor([begins for *_, begins in said]),
    }


def _marks(turns: Sequence[_Turn], game: TokenGame) -> dict[str, Tensor]:
    """Which tokens plan, where the game says so, and which begin a step; the first of a turn does."""
    first = torch.tensor([place == 0 for turn in turns for place in range(len(turn.tokens))])
    steps = first if game.steps is None else first | _marked(turns, game, "steps", game.steps)
    if game.planning is None:
        return {"step_start": steps}
    return {"step_start": steps, "planning": _marked(turns, game, "planning", game.planning)}


def _marked(turns: Sequence[_Turn], game: TokenGame, name: str, marks: Marks) -> Bool[Tensor, " tokens"]:
    """What one of the game's functions says of every token."""
    said = [(turn.tokens, marks(turn.state, turn.tokens)) for turn in turns]
    for tokens, flags in said:
        if len(flags) != len(tokens):
            raise InputError(f"game {game.name}: {name} says {len(flags)} of {tokens}; must be one for each")
    return torch.tensor([bool(flag) for _, flags in said for flag in flags])


def _seats(turns: Sequence[_Turn], game: TokenGame) -> dict[str, Tensor]:
    role, context = zip(*((0, 0) if game.seat is None else game.seat(turn.state) for turn in turns), strict=True)
    return {"turn_role": torch.tensor(role), "turn_context": torch.tensor(context)}


def _weights(game: TokenGame) -> tuple[float, ...]:
    weights = (1.0,) * len(game.reward_names) if game.reward_weights is None else game.reward_weights
    if len(weights) != len(game.reward_names):
        raise InputError(f"game {game.name}: reward_weights = {weights}: must be one for each of {game.reward_names}")
    return weights


def _check_components(game: TokenGame, components: Mapping[str, float]) -> None:
    for name in components:
        if name not in game.reward_names[1:]:
            raise InputError(f"game {game.name}: reward component {name!r} is not among its reward_names")


def _check_sum(game: TokenGame, what: str, probabilities: Sequence[float]) -> None:
    if min(probabilities, default=0.0) < 0 or not math.isclose(sum(probabilities), 1.0, abs_tol=1e-9):
        raise InputError(f"game {game.name}: the probabilities of {what} are {probabilities}; they must add up to 1")
