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
