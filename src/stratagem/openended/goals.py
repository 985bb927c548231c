"""Goals: disjunctions of conjunctions of predicates and their negations, many at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from stratagem.errors import InputError

ABSENT = -1
"""Where a goal has fewer atoms."""

Literal = tuple[str, bool]
"""A predicate, and whether it is to be true."""


@dataclass(frozen=True, eq=False)
class Goals:
    """``n`` goals: true where all atoms of one option are.

    atom: number of the predicate, or ``ABSENT``.  negated: whether the predicate is to be false.
    An option without atoms is none; every goal needs one that has some.

    Raises :class:`InputError` for a goal without an option.
    """

    atom: Int64[Tensor, "n options atoms"]
    negated: Bool[Tensor, "n options atoms"]

    def __post_init__(self) -> None:
        if not bool(self.present.any(-1).all()):
            raise InputError("goals: every goal needs an option with at least one atom")

    @classmethod
    def single(cls, options: Sequence[Sequence[Literal]], predicates: Sequence[str]) -> Goals:
        """One goal, written by hand. Raises :class:`InputError` for a predicate there is not."""
        width = max((len(option) for option in options), default=0)
        atom = torch.full((1, max(len(options), 1), max(width, 1)), ABSENT)
        negated = torch.zeros(atom.shape, dtype=torch.bool)
        for row, option in enumerate(options):
            for column, (name, wanted) in enumerate(option):
                if name not in predicates:
                    raise InputError(f"goals: there is no predicate {name!r}; known: {', '.join(predicates)}")
                atom[0, row, column], negated[0, row, column] = list(predicates).index(name), not wanted
        return cls(atom, negated)

    def __len__(self) -> int:
        return len(self.atom)

    @property
    def present(self) -> Bool[Tensor, "n options"]:
        """Options that have atoms."""
        return (self.atom != ABSENT).any(-1)

    def at(self, rows: Tensor) -> Goals:
        """These goals alone, by number or mask."""
        return Goals(self.atom[rows], self.negated[rows])

    def option_truth(self, truth: Bool[Tensor, "n predicates"]) -> Bool[Tensor, "n options"]:
        """Whether all atoms of an option hold, given the truth of every predicate."""
        rows = torch.arange(len(self)).view(-1, 1, 1)
        holds: Tensor = truth[rows, self.atom.clamp(min=0)] != self.negated
        return (holds | (self.atom == ABSENT)).all(-1) & self.present

    def truth(self, truth: Bool[Tensor, "n predicates"]) -> Bool[Tensor, " n"]:
        """Whether some option holds."""
        return self.option_truth(truth).any(-1)

    def encoded(self, predicates: int) -> Bool[Tensor, "n options literals"]:
        """Every option as a set of literals: those to be true, then those to be false."""
        kinds = 2 * predicates
        literal = torch.where(self.atom == ABSENT, kinds, self.atom + predicates * self.negated.long())
        marks = torch.zeros(*self.atom.shape[:2], kinds + 1, dtype=torch.bool)
        encoded: Tensor = marks.scatter(-1, literal, True)[..., :kinds]
        return encoded

    def contradictory(self) -> Bool[Tensor, " n"]:
        """Goals no state satisfies, since each of their options asks for a predicate and for its opposite."""
        size = int(self.atom.max()) + 1
        wanted, unwanted = self.encoded(size).split(size, -1)
        possible: Tensor = self.present & ~(wanted & unwanted).any(-1)
        return ~possible.any(-1)

    def renamed(self, to: Int64[Tensor, "#n predicates"]) -> Goals:
        """These goals with other predicates: number ``to[k]`` in place of ``k``."""
        rows = torch.arange(len(self)).view(-1, 1, 1)
        named = to.expand(len(self), -1)[rows, self.atom.clamp(min=0)]
        return Goals(torch.where(self.atom == ABSENT, ABSENT, named), self.negated)

    def resized(self, options: int, atoms: int) -> Goals:
        """The same goals with so much room. Raises ``ValueError`` where a goal does not fit."""
        row = (options, atoms)
        cut = (slice(None), *(slice(room) for room in row))
        if int((self.atom[cut] != ABSENT).sum()) != int((self.atom != ABSENT).sum()):
            raise ValueError(f"goals: some do not fit into {options} options of {atoms} atoms")
        atom = torch.full((len(self), *row), ABSENT)
        negated = torch.zeros(atom.shape, dtype=torch.bool)
        inner = (slice(None), *(slice(size) for size in self.atom[cut].shape[1:]))
        atom[inner], negated[inner] = self.atom[cut], self.negated[cut]
        return Goals(atom, negated)

    def opposite(self) -> Goals:
        """Goals that are true where these are not, in the same form: every option misses one of its atoms.

        ``not (a and b or c) = (not a and not c) or (not b and not c)``.
        """
        count, options, atoms = self.atom.shape
        choice = torch.cartesian_prod(*[torch.arange(atoms)] * options).view(-1, options)
        rows, columns = torch.arange(count).view(-1, 1, 1), torch.arange(options)
        atom, negated = self.atom[rows, columns, choice], ~self.negated[rows, columns, choice]
        # Of an option that is not there the first atom stands for all, so that no choice is made twice.
        fits = (atom != ABSENT) | (~self.present.unsqueeze(1) & (choice == 0))
        possible = fits.all(-1)
        atom = torch.where(possible.unsqueeze(-1), atom, ABSENT)
        for axis, last in ((1, ~possible), (2, ~(atom != ABSENT).any(1))):
            order = last.long().argsort(dim=1, stable=True).unsqueeze(3 - axis).expand_as(atom)
            atom, negated = atom.gather(axis, order), negated.gather(axis, order)
        room = [int((atom != ABSENT).any(3 - axis).sum(1).max()) for axis in (1, 2)]
        return Goals(atom, negated).resized(*room)

    def with_small_opposites(self) -> Goals:
        """These goals, cut to what has an opposite of as many options and atoms as these have room for.

        Kept are the first options, at most as many as there is room for atoms, and of each the first atoms, as long as
        the product of their numbers is at most the room for options.
        """
        _, options, atoms = self.atom.shape
        there = self.present & (self.present.long().cumsum(-1) <= atoms)
        sizes, room = (self.atom != ABSENT).sum(-1), torch.full((len(self),), options)
        kept = torch.zeros_like(sizes)
        for option in range(options):
            kept[:, option] = torch.where(there[:, option], sizes[:, option].minimum(room), 0)
            room = room // kept[:, option].clamp(min=1)
        number = (self.atom != ABSENT).long().cumsum(-1)
        return Goals(torch.where(number <= kept.unsqueeze(-1), self.atom, ABSENT), self.negated)

    def text(self, row: int, predicates: Sequence[str]) -> str:
        """A goal as a person writes it: ``(hold ball and not near agent box) or see box``."""
        options = []
        for atoms, signs in zip(self.atom[row].tolist(), self.negated[row].tolist(), strict=True):
            words = [
                f"{'not ' if sign else ''}{predicates[atom]}"
                for atom, sign in zip(atoms, signs, strict=True)
                if atom != ABSENT
            ]
            if words:
                options.append(" and ".join(words))
        return " or ".join(f"({option})" if " and " in option and len(options) > 1 else option for option in options)
