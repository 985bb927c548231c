"""Goals drawn at random, which of several players may agree, conflict, or have nothing to do with each other."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from stratagem.openended.goals import ABSENT, Goals


@dataclass(frozen=True)
class Proposals:
    """How goals are drawn. predicates: how many there are.  options, atoms: most; each number is as likely.

    negations: chance of an atom to be negated.
    perspectives: as :func:`~stratagem.openended.predicates.perspectives` has them.
    same, opposite: chance of every player after the first of a task to have the same goal as an earlier one, or exactly
    the opposite; otherwise the goal is drawn afresh.
    """

    predicates: int
    options: int
    atoms: int
    negations: float
    perspectives: Int64[Tensor, "players predicates"]
    same: float
    opposite: float

    @property
    def players(self) -> int:
        """How many."""
        return len(self.perspectives)

    @property
    def _sizes(self) -> list[int]:
        """Numbers a goal takes: of its options, of the atoms of each, and which they are and with which sign."""
        atoms = self.options * self.atoms
        return [1, self.options, atoms, atoms]

    @property
    def numbers(self) -> int:
        """How many numbers are drawn for the goals of a task."""
        others = self.players - 1
        return self.players * sum(self._sizes) + 2 * others + (others > 0)

    def __call__(self, chance: Float64[Tensor, "n numbers"]) -> Goals:
        """The goals of all players, those of a task side by side, each in the eyes of its player."""
        count, players = len(chance), self.players
        goals, kinship = chance.split([players * sum(self._sizes), self.numbers - players * sum(self._sizes)], 1)
        fresh = self._fresh(goals.reshape(count * players, -1))
        if players == 1:
            return fresh
        kind, other, first = kinship.split([players - 1, players - 1, 1], 1)
        root, against = self._kinship(kind, other)
        related = self._related(fresh, root, against)
        # Any player may be the first.
        seat = torch.arange(players) - (first * players).long()
        return related.at((torch.arange(count).unsqueeze(1) * players + seat % players).flatten())

    def _fresh(self, chance: Float64[Tensor, "goals numbers"]) -> Goals:
        options, lengths, atom, signs = chance.split(self._sizes, 1)
        shape = (len(chance), self.options, self.atoms)
        there = torch.arange(self.options) <= (options * self.options).long()
        within = torch.arange(self.atoms) <= (lengths * self.atoms).long().unsqueeze(-1)
        number = (atom * self.predicates).long().view(shape)
        number = torch.where(there.unsqueeze(-1) & within, number, ABSENT)
        return Goals(number, (signs < self.negations).view(shape))

    def _kinship(
        self, kind: Float64[Tensor, "n others"], other: Float64[Tensor, "n others"]
    ) -> tuple[Int64[Tensor, "n players"], Bool[Tensor, "n players"]]:
        """Of every player whose goal its own is made of, and whether it is the opposite of that."""
        root = torch.arange(self.players).repeat(len(kind), 1)
        against = torch.zeros(root.shape, dtype=torch.bool)
        for player in range(1, self.players):
            earlier = (other[:, player - 1 : player] * player).long()
            drawn = kind[:, player - 1]
            kin, opposed = drawn < self.same + self.opposite, drawn >= self.same
            root[:, player] = torch.where(kin, root.gather(1, earlier).squeeze(1), player)
            against[:, player] = kin & (against.gather(1, earlier).squeeze(1) ^ opposed)
        return root, against

    def _related(self, fresh: Goals, root: Int64[Tensor, "n players"], against: Bool[Tensor, "n players"]) -> Goals:
        """Goals made of those of their roots; one that somebody opposes is cut to what has an opposite of its size."""
        opposed = torch.zeros_like(root).scatter_add(1, root, against.long()).flatten() > 0
        cut = fresh.with_small_opposites()
        straight = _either(opposed, cut, fresh)
        opposite = cut.opposite().resized(self.options, self.atoms)
        source = (torch.arange(len(root)).unsqueeze(1) * self.players + root).flatten()
        made = _either(against.flatten(), opposite.at(source), straight.at(source))
        # From the eyes of the root to those of the player.
        back = self.perspectives.argsort(1).repeat(len(root), 1)
        return made.renamed(back.gather(1, self.perspectives[root.flatten()]))


def _either(choice: Bool[Tensor, " n"], one: Goals, other: Goals) -> Goals:
    """The first where chosen, else the second."""
    mask = choice.view(-1, 1, 1)
    return Goals(torch.where(mask, one.atom, other.atom), torch.where(mask, one.negated, other.negated))
