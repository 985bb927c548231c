"""What a set of candidate answers is worth when nobody knows yet which of several rewards will count."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from jaxtyping import Float, Float64, Int
from pydantic import FiniteFloat
from torch import Tensor

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.parts import Reward
from stratagem.rewards.shaping import paid
from stratagem.seeding import uniform

MARK = "@"
"""``NAME@k`` is the reward ``NAME`` of the ``k``-th candidate that a trajectory wrote, from 1."""

_STREAM, _TRIES = -(2**60), 64
"""Numbers of choices that nobody else draws by the seed of a trajectory, and how many a weight may take."""


@dataclass(frozen=True)
class BestCandidate(Reward):
    """``R = (1 / M) sum_m max_k <w_m, r_k>``: what the best of a set of candidates is worth, over random weights.

    A trajectory is a set of ``K`` candidates with ``d`` rewards each, in columns named ``NAME@k`` (as ``sets:TASK`` and
    games of the lab have them). Without such columns it is a set of one: every column that counts in the return.
    ``w_m ~ Dirichlet(c, ..., c)`` is drawn anew for every group and is the same for all of its trajectories, so that
    luck with the weights cancels in the group. A candidate then pays by what no other one of its set is good at; a
    second one that is as good, or worse in everything, adds nothing. The first reward column becomes ``R``, and the
    others keep what they note, at weight 0.

    draws: ``M``.  concentration: ``c``, above 0; 1 is uniform over all weights, a large one close to equal weights.
    weights: fixed ones in place of random ones, one for each of the ``d`` rewards, at least 0; ``R = max_k <w, r_k>``,
    and ``<w, r>`` for a set of one. None: random ones.

    With one reward all weights are 1 and ``R`` is the best candidate's. With one candidate and random weights ``R`` is
    near the mean of its rewards: random weights alone ask for no diversity. Rewards are meant to lie in [0, 1], each;
    what a candidate that was not written has is 0 in all of them.

    Raises :class:`InputError` for a candidate whose rewards are not finite, or below 0 beside other candidates (one
    that was not written would be better), for columns that are no rectangle of candidates and rewards, for a reward of
    negative weight, and for a number of ``weights`` other than ``d``; ``ValueError`` for random weights without
    ``x.seed``.
    """

    draws: Annotated[int, Ge(1)] = 8
    concentration: Annotated[FiniteFloat, Gt(0)] = 1.0
    weights: tuple[Annotated[FiniteFloat, Ge(0)], ...] | None = None

    def needs(self) -> frozenset[str]:
        return frozenset({"seed"} if self.weights is None else ())

    def __call__(self, x: Experience) -> Experience:
        names, rewards = candidate_rewards(self.part_name(), x)
        if self.weights is None:
            best = best_of_sets(rewards, self._drawn(x, len(names))).mean(1)
        elif len(self.weights) == len(names):
            weights = torch.tensor(self.weights, dtype=torch.float64, device=x.device)
            best = (rewards * weights).sum(2).amax(1)
        else:
            raise InputError(
                f"{self.part_name()}.weights = {self.weights}: must be one for each of the rewards {', '.join(names)}"
            )
        return paid(x, best.to(x.returns.dtype))

    def _drawn(self, x: Experience, dims: int) -> Float64[Tensor, "trajectories draws dims"]:
        """The weights of every trajectory, by the least seed of its group."""
        if x.seed is None:
            raise ValueError(f"{self.part_name()} draws its weights at random and needs x.seed")
        seeds = x.group_of_trajectory.min(x.seed)
        return x.group_of_trajectory.spread(dirichlet(seeds, self.draws, dims, self.concentration))


def candidate_rewards(
    part: str, x: Experience
) -> tuple[tuple[str, ...], Float64[Tensor, "trajectories candidates names"]]:
    """Names of the rewards of candidates, and what each candidate of every trajectory has of them.

    part: who asks, for the error.
    """
    if x.reward is None:
        x = x.replace(reward=x.returns)
    assert x.reward is not None
    names, numbers = _columns(part, x)
    rewards = torch.stack([x.reward[:, row] for row in numbers], 1).double()
    _refuse_unusable(part, rewards, names)
    return names, rewards


def _columns(part: str, x: Experience) -> tuple[tuple[str, ...], list[list[int]]]:
    """Names of the rewards, and for each candidate the columns in which it has them."""
    places = {name: column for column, name in enumerate(x.reward_names)}
    marked = [name.rpartition(MARK) for name in x.reward_names if name.rpartition(MARK)[2].isdecimal() and MARK in name]
    if marked:
        names = tuple(dict.fromkeys(name for name, _, _ in marked))
        numbers = range(1, max(int(number) for _, _, number in marked) + 1)
        wanted = [[f"{name}{MARK}{number}" for name in names] for number in numbers]
        lacking = [name for row in wanted for name in row if name not in places]
        if lacking:
            raise InputError(f"{part}: there is no reward {lacking[0]!r}; every candidate needs the same rewards")
        return names, [[places[name] for name in row] for row in wanted]
    for name, weight in zip(x.reward_names, x.reward_weights, strict=True):
        if weight < 0:
            raise InputError(f"{part}: weight of reward {name!r} = {weight}: must be at least 0")
    counted = [name for name, weight in zip(x.reward_names, x.reward_weights, strict=True) if weight]
    if not counted:
        raise InputError(f"{part}: none of the rewards {', '.join(x.reward_names)} counts")
    return tuple(counted), [[places[name] for name in counted]]


def _refuse_unusable(part: str, rewards: Tensor, names: tuple[str, ...]) -> None:
    """Refuse what is not finite; and below 0 where candidates may be missing."""
    wrong = ~rewards.isfinite()
    if rewards.shape[1] > 1:
        wrong |= rewards < 0
    if bool(wrong.any()):
        row, candidate, name = (int(place) for place in wrong.nonzero()[0])
        raise InputError(
            f"{part}: candidate {candidate + 1} of trajectory {row} has {names[name]} "
            f"{float(rewards[row, candidate, name])}: must be finite and at least 0"
        )


def best_of_sets(
    rewards: Float[Tensor, "sets candidates names"], weights: Float[Tensor, "sets draws names"]
) -> Float[Tensor, "sets draws"]:
    """``max_k <w, r_k>`` of every set under each of its weights."""
    # A matrix product may round equal sets differently, and a group of equal ones must have no spread.
    return (weights.unsqueeze(2) * rewards.unsqueeze(1)).sum(3).amax(2)


def dirichlet(
    seeds: Int[Tensor, " rows"], draws: int, dims: int, concentration: float = 1.0
) -> Float64[Tensor, "rows draws dims"]:
    """Weights on the simplex, ``w ~ Dirichlet(c, ..., c)``: those of a row follow from its seed alone.

    Independent Gamma variables over their sum, in logarithms, since those of a small ``c`` are too small for numbers.
    """
    cells = torch.arange(draws * dims, device=seeds.device) * _TRIES + _STREAM
    drawn = _log_gamma(seeds.unsqueeze(1), cells.unsqueeze(0), concentration)
    return torch.softmax(drawn.reshape(len(seeds), draws, dims), 2)


def _log_gamma(seeds: Tensor, counters: Tensor, shape: float) -> Float64[Tensor, "rows cells"]:
    """``log g`` with ``g ~ Gamma(shape)``, by rejection (Marsaglia and Tsang, 2000); below 1 from ``shape + 1``.

    Each cell tries again by numbers of its own until it is accepted; about one try in twenty is not.
    """
    seeds, counters = torch.broadcast_tensors(seeds, counters)
    raised = shape if shape >= 1 else shape + 1
    d = raised - 1 / 3
    c = 1 / math.sqrt(9 * d)
    found = torch.full(seeds.shape, math.log(d), dtype=torch.float64, device=seeds.device)
    rows = seeds.new_ones(seeds.shape, dtype=torch.bool).nonzero(as_tuple=True)
    for attempt in range((_TRIES - 1) // 3):
        numbers = counters[rows] + 3 * attempt
        first, second, chance = (1 - uniform(seeds[rows], numbers + place) for place in range(3))
        normal = (-2 * first.log()).sqrt() * (2 * math.pi * second).cos()
        volume = (1 + c * normal).clamp(min=0) ** 3
        accepted = (volume > 0) & (chance.log() < normal.square() / 2 + d * (1 - volume + volume.log()))
        found[tuple(place[accepted] for place in rows)] = math.log(d) + volume[accepted].log()
        rows = tuple(place[~accepted] for place in rows)
        if not len(rows[0]):
            break
    if shape < 1:
        found = found + (1 - uniform(seeds, counters + _TRIES - 1)).log() / shape
    return found
