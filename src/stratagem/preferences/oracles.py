"""Preference oracles over the answers of a batch: by a reward, by a table, noisy ones, populations, single votes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt, Le
from jaxtyping import Float, Float64
from torch import Tensor

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.parts import Preference
from stratagem.seeding import scrambled, uniform


@dataclass(frozen=True)
class BradleyTerry(Preference):
    """``P(i > j) = sigmoid((R_i - R_j) / temperature)``: a preference that is the difference of scores.

    temperature: 0 prefers the better of two for sure, and neither of two equal ones.
    reward: name of the column that scores; None: the return. Raises :class:`InputError` for a column there is not.
    """

    temperature: Annotated[float, Ge(0)] = 1.0
    reward: str | None = None

    def __call__(self, x: Experience, first: Tensor, second: Tensor) -> Float[Tensor, " pairs"]:
        score = x.returns if self.reward is None else x.named_reward(self.reward)
        if score is None:
            raise InputError(
                f"{self.part_name()}.reward = {self.reward!r}: must be a reward of the task: "
                f"{', '.join(x.reward_names)}"
            )
        return preferred(score[first] - score[second], self.temperature)


def preferred(difference: Float[Tensor, "*batch"], temperature: float = 1.0) -> Float[Tensor, "*batch"]:
    """``sigmoid(difference / temperature)``; its limit, a step with 1/2 at 0, for a temperature of 0."""
    return torch.sigmoid(difference / temperature) if temperature else 0.5 + 0.5 * difference.sign()


@dataclass(frozen=True)
class AnswerTable(Preference):
    """``P(i > j)`` from a table over answers: any preference there is, cycles included.

    keys: of the answers, as ``x.answer`` has them (:func:`stratagem.tasks.task.answer_key`).
    wins: ``wins[i][j]`` is how likely answer ``i`` is preferred to ``j``. Raises :class:`InputError` unless it is
    square, in [0, 1], and ``wins[i][j] + wins[j][i] = 1``, and, when asked, for an answer that is not among ``keys``.
    unknown: how likely an answer that is not in the table is preferred to one that is; None: it raises. Two such
    answers tie.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"answer"})
    tags: ClassVar[frozenset[str]] = frozenset({"reward.source.preferences"})

    keys: tuple[int, ...]
    wins: tuple[tuple[float, ...], ...]
    unknown: Annotated[float, Ge(0), Le(1)] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.keys)) != len(self.keys) or len(self.keys) != len(self.wins):
            raise InputError(
                f"{self.part_name()}.keys: must be {len(self.wins)} different answers, one for each row of wins"
            )
        if any(len(row) != len(self.wins) for row in self.wins):
            raise InputError(f"{self.part_name()}.wins: must be square, a row and a column for every answer")
        check_wins(torch.tensor(self.wins, dtype=torch.float64), f"{self.part_name()}.wins")

    def __call__(self, x: Experience, first: Tensor, second: Tensor) -> Float[Tensor, " pairs"]:
        if x.answer is None:
            raise ValueError("a table of answers needs x.answer")
        ordered, order = torch.tensor(self.keys, device=x.device).sort()
        place = torch.searchsorted(ordered, x.answer).clamp(max=len(ordered) - 1)
        known = ordered[place] == x.answer
        if self.unknown is None and not bool(known.all()):
            number = int(torch.nonzero(~known)[0])
            raise InputError(f"{self.part_name()}: the answer of trajectory {number} is not in the table")
        wins = torch.tensor(self.wins, dtype=torch.float64, device=x.device)
        row = order[place]
        table = wins[row[first], row[second]]
        against = 0.5 if self.unknown is None else self.unknown
        table = torch.where(known[first], torch.where(known[second], table, 1 - against), against)
        return torch.where(known[first] | known[second], table, 0.5).to(x.returns.dtype)


def check_wins(wins: Float64[Tensor, "*games responses responses"], who: str = "preferences") -> None:
    """Raise :class:`InputError` unless the entries are probabilities and ``P(i > j) + P(j > i) = 1``."""
    if wins.ndim < 2 or wins.shape[-1] != wins.shape[-2] or wins.shape[-1] == 0:
        raise InputError(f"{who}: must be square, a row and a column for every response, not {list(wins.shape)}")
    if not bool(((wins >= 0) & (wins <= 1)).all()):
        raise InputError(f"{who}: must be probabilities in [0, 1]")
    broken = (wins + wins.mT - 1).abs() > 1e-6
    if bool(broken.any()):
        *_, row, column = torch.nonzero(broken)[0].tolist()
        raise InputError(
            f"{who}: P({row} > {column}) + P({column} > {row}) must be 1, also of a response with itself (1/2)"
        )


# ---- made of others -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Noisy(Preference):
    """``(1 - 2 flip) P + flip``: of every ``1 / flip`` votes one says the opposite of what was meant."""

    of: Preference
    flip: Annotated[float, Ge(0), Le(0.5)] = 0.1

    def __call__(self, x: Experience, first: Tensor, second: Tensor) -> Float[Tensor, " pairs"]:
        return (1 - 2 * self.flip) * self.of(x, first, second) + self.flip


@dataclass(frozen=True)
class Population(Preference):
    """``sum_k w_k P_k``: somebody at random is asked. Members who agree with themselves may form a cycle together.

    members: who may be asked.  shares: ``w``, in proportion; (): all the same.
    """

    members: tuple[Preference, ...]
    shares: tuple[Annotated[float, Gt(0)], ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.members or (self.shares and len(self.shares) != len(self.members)):
            raise InputError(
                f"{self.part_name()}.shares = {self.shares}: must be one for each of {len(self.members)} members, "
                "of which there is at least one"
            )
        if not all(map(math.isfinite, self.shares)):
            raise InputError(f"{self.part_name()}.shares = {self.shares}: must be finite")

    def __call__(self, x: Experience, first: Tensor, second: Tensor) -> Float[Tensor, " pairs"]:
        said = torch.stack([member(x, first, second) for member in self.members], 1)
        weights = said.new_tensor(self.shares or [1.0] * len(self.members))
        return (said * weights).sum(1) / weights.sum()


@dataclass(frozen=True)
class SingleVote(Preference):
    """1 or 0, drawn with probability ``P``, once for every pair of trajectories: what one labeller says.

    Draws follow from the trajectories' ``seed``, so that a pair is labelled the same when the batch is cut, asked again
    or resumed, and ``(j, i)`` is the opposite of ``(i, j)``. An answer against itself stays 1/2.

    stream: votes of different streams are independent of each other.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"seed"})

    of: Preference
    stream: Annotated[int, Ge(0)] = 0

    def __call__(self, x: Experience, first: Tensor, second: Tensor) -> Float[Tensor, " pairs"]:
        if x.seed is None:
            raise ValueError("single votes are drawn at random and need x.seed")
        seeds = x.seed
        swapped = (seeds[first] > seeds[second]) | ((seeds[first] == seeds[second]) & (first > second))
        low, high = torch.where(swapped, second, first), torch.where(swapped, first, second)
        drawn = uniform(scrambled(seeds[low], seeds[high]), torch.full_like(low, self.stream))
        likely = self.of(x, low, high)
        # Nobody votes where nobody was heard.
        vote = torch.where(likely.isnan(), torch.nan, (drawn < likely).to(x.returns.dtype))
        return torch.where(first == second, 0.5, torch.where(swapped, 1 - vote, vote))


def win_matrix(preference: Preference, x: Experience) -> Float64[Tensor, "groups answers answers"]:
    """What an oracle says of all pairs of answers of each group: the exact game of an enumerable batch.

    Raises :class:`InputError` when groups differ in size, or the oracle contradicts itself.
    """
    sizes = x.group_of_trajectory.size()
    if not x.groups or bool((sizes != sizes[0]).any()):
        raise InputError(f"a game for every group needs groups of one size, not of {sorted(set(sizes.tolist()))}")
    first, second = x.group_of_trajectory.pairs()
    wins = preference(x, first, second).double().view(x.groups, int(sizes[0]), int(sizes[0]))
    check_wins(wins, preference.part_name())
    return wins


def table(answers: Sequence[int], wins: Float64[Tensor, "responses responses"], **options: float) -> AnswerTable:
    """The oracle of a game over answers with these keys."""
    return AnswerTable(tuple(answers), tuple(map(tuple, wins.tolist())), **options)
