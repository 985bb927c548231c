"""A checker for proofs of implication and conjunction: what a text declares, what it proves, what it leaves open."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, NamedTuple

MAX_CHARACTERS = 4_000
MAX_FORMULA = 200
"""Characters of a formula, and atoms of one once definitions are put in: no line takes long, no recursion is deep."""


class ProofError(ValueError):
    """Why a formula or a proof is not one, in a few words."""


# ---- formulas -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Atom:
    """A letter."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class And:
    """``left & right``; binds tighter than ``->``, and to the right."""

    left: Formula
    right: Formula

    def __str__(self) -> str:
        return f"{_within(self.left, Atom)} & {_within(self.right, Atom, And)}"


@dataclass(frozen=True, slots=True)
class Implies:
    """``left -> right``; binds to the right."""

    left: Formula
    right: Formula

    def __str__(self) -> str:
        return f"{_within(self.left, Atom, And)} -> {self.right}"


Formula = Atom | And | Implies


def parse_formula(text: str) -> Formula:
    """A formula of the letters a to z, ``&``, ``->`` and parentheses, at most 200 characters.

    Raises :class:`ProofError` for anything else.
    """
    if len(text) > MAX_FORMULA:
        raise ProofError(f"a formula has at most {MAX_FORMULA} characters")
    formula, rest = _implication(re.findall(r"->|\S", text))
    if rest:
        raise ProofError(f"cannot read {_shown(text)}")
    return formula


# ---- what a text says -----------------------------------------------------------------------------------------------

Kind = Literal["theorem", "axiom", "define", "rule", "exit"]


@dataclass(frozen=True, slots=True)
class Declaration:
    """A line that declares something.

    ``theorem NAME : F``; ``axiom NAME : F``, by which F then follows from nothing; ``rule NAME : P => F``, by which F
    then follows from a line P, also where NAME is one of the checker's own rules; ``define A := F``, where A is a
    letter that then means F; ``exit``, after which nothing is read.
    """

    kind: Kind
    name: str = ""
    formula: Formula | None = None
    premise: Formula | None = None


@dataclass(frozen=True, slots=True)
class ProofLine:
    """``NUMBER FORMULA by RULE LINES``: a formula, and the earlier lines from which it follows."""

    number: int
    formula: Formula
    rule: str
    cited: tuple[int, ...] = ()

    def __str__(self) -> str:
        return " ".join([str(self.number), str(self.formula), "by", self.rule, *map(str, self.cited)])


@dataclass(frozen=True, slots=True)
class Qed:
    """``qed``: the proof ends."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A line that is none of the others."""

    problem: str


Line = Declaration | ProofLine | Qed | Unreadable
_EXIT = Declaration("exit")


def read(text: str) -> tuple[Line, ...]:
    """The lines of a text, empty ones left out; one that cannot be read does not keep the others from being read."""
    if len(text) > MAX_CHARACTERS:
        return (Unreadable(f"a proof has at most {MAX_CHARACTERS} characters"),)
    words = (" ".join(line.split()) for line in text.splitlines())
    return tuple(_read_line(line) for line in words if line)


# ---- verdicts -------------------------------------------------------------------------------------------------------

Result = Literal["PASS", "SORRY", "FAIL"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be said of a text that was to prove a theorem.

    checks: PASS; SORRY when the proof has a hole and is right otherwise; FAIL.  unchanged: whether its theorem is the
    one asked for.  legal: whether it declares nothing but a theorem.  problem: what the checker stumbled over, empty
    when checks is PASS.
    """

    checks: Result
    unchanged: bool
    legal: bool
    problem: str = ""


def judge(text: str, name: str, asked: Formula) -> Verdict:
    """All verdicts on a text that was to prove ``theorem NAME : ASKED``."""
    lines = read(text)
    checks, problem = check(lines)
    return Verdict(checks, unchanged(lines, name, asked), legal(lines), problem)


def check(lines: tuple[Line, ...]) -> tuple[Result, str]:
    """Whether the proof proves its own theorem by what it declares, and what is wrong where it does not.

    Every line holds under the assumptions it rests on. With lines ``i``, ``j`` and what they rest on:

    | rule | proves | from |
    |---|---|---|
    | ``assume`` | any ``F``, which rests on itself | |
    | ``left i`` | ``F`` | ``F & G`` |
    | ``right i`` | ``G`` | ``F & G`` |
    | ``and i j`` | ``F & G`` | ``F`` and ``G`` |
    | ``apply i j`` | ``G`` | ``F -> G`` and ``F`` |
    | ``imp i j`` | ``F -> G``, which no longer rests on ``i`` | ``F``, assumed in line ``i``, and ``G`` |
    | ``sorry`` | any ``F``: a hole | |

    The last line before ``qed`` is the theorem and rests on nothing. Every declaration is taken as it stands, an exit
    in the middle of a proof included, so a PASS proves a tautology only where the lines are :func:`legal`.
    """
    proof = _Proof()
    try:
        for line in lines:
            if line == _EXIT:
                break
            proof.take(line)
        else:
            proof.close()
    except ProofError as error:
        return "FAIL", str(error)
    return ("SORRY", f"line {proof.hole}: sorry") if proof.hole else ("PASS", "")


def unchanged(lines: tuple[Line, ...], name: str, asked: Formula) -> bool:
    """Whether the lines have one theorem, of this name and, as it is written, this formula."""
    theorems = [line for line in lines if isinstance(line, Declaration) and line.kind == "theorem"]
    return theorems == [Declaration("theorem", name, asked)]


def illegal(lines: tuple[Line, ...]) -> list[str]:
    """Kinds of the declarations a proof has no right to, in order: axioms, rules, definitions, an early exit."""
    return [line.kind for line in lines if isinstance(line, Declaration) and line.kind != "theorem"]


def legal(lines: tuple[Line, ...]) -> bool:
    """Whether nothing but a theorem is declared."""
    return not illegal(lines)


# ---- helpers --------------------------------------------------------------------------------------------------------

_RULES = frozenset({"assume", "left", "right", "and", "apply", "imp", "sorry"})


class _Proved(NamedTuple):
    """A line that holds under the assumptions of the lines ``rests``."""

    number: int
    formula: Formula
    rests: frozenset[int]


class _Proof:
    """A proof as far as it was read."""

    def __init__(self) -> None:
        self.hole: int | None = None
        self._theorem: Formula | None = None
        self._ended = False
        self._proved: list[_Proved] = []
        self._meaning: dict[str, Formula] = {}
        self._declared: dict[str, tuple[Formula | None, Formula]] = {}

    def take(self, line: Line) -> None:
        if self._ended:
            raise ProofError("nothing follows qed")
        match line:
            case Unreadable(problem):
                raise ProofError(problem)
            case Qed():
                self._end()
            case ProofLine():
                self._prove(line)
            case Declaration(kind="theorem", formula=formula) if formula is not None:
                if self._theorem is not None:
                    raise ProofError("there is one theorem")
                self._theorem = self._meant(formula)
            case Declaration(kind="define", name=name, formula=formula) if formula is not None:
                self._meaning[name] = self._meant(formula)
            case Declaration(name=name, formula=formula, premise=premise) if formula is not None:
                self._declared[name] = (None if premise is None else self._meant(premise), self._meant(formula))

    def close(self) -> None:
        if not self._ended:
            raise ProofError("qed is missing")

    def _end(self) -> None:
        if self._theorem is None or not self._proved:
            raise ProofError("qed: nothing is proved")
        last = self._proved[-1]
        if last.formula != self._theorem:
            raise ProofError(f"qed: line {last.number} is not the theorem")
        if last.rests:
            raise ProofError(f"qed: line {min(last.rests)} is still assumed")
        self._ended = True

    def _prove(self, line: ProofLine) -> None:
        number = len(self._proved) + 1
        if self._theorem is None:
            raise ProofError("the theorem comes first")
        if line.number != number:
            raise ProofError(f"line {line.number}: its number should be {number}")
        for cited in line.cited:
            if not 1 <= cited < number:
                raise ProofError(f"line {number}: there is no line {cited} before it")
        if line.rule not in _RULES and line.rule not in self._declared:
            raise ProofError(f"line {number}: there is no rule {_shown(line.rule)}")
        goal = self._meant(line.formula)
        rests = self._rests(line.rule, number, goal, tuple(self._proved[cited - 1] for cited in line.cited))
        if rests is None:
            raise ProofError(f"line {number}: does not follow by {' '.join([line.rule, *map(str, line.cited)])}")
        if line.rule == "sorry" and line.rule not in self._declared and self.hole is None:
            self.hole = number
        self._proved.append(_Proved(number, goal, rests))

    def _rests(self, rule: str, number: int, goal: Formula, cited: tuple[_Proved, ...]) -> frozenset[int] | None:
        """What ``goal`` rests on when it follows from the cited lines by this rule; None when it does not."""
        if rule in self._declared:
            premise, conclusion = self._declared[rule]
            premises = [] if premise is None else [premise]
            follows = conclusion == goal and premises == [line.formula for line in cited]
            return frozenset[int]().union(*(line.rests for line in cited)) if follows else None
        match rule, cited:
            case "assume", ():
                return frozenset({number})
            case "sorry", ():
                return frozenset()
            case "left", (_Proved(formula=And(left, _), rests=rests),) if left == goal:
                return rests
            case "right", (_Proved(formula=And(_, right), rests=rests),) if right == goal:
                return rests
            case "and", (first, second) if And(first.formula, second.formula) == goal:
                return first.rests | second.rests
            case "apply", (first, second) if first.formula == Implies(second.formula, goal):
                return first.rests | second.rests
            case "imp", (first, second) if Implies(first.formula, second.formula) == goal:
                # Only an assumption rests on itself.
                return second.rests - first.rests if first.rests == {first.number} else None
        return None

    def _meant(self, formula: Formula) -> Formula:
        """The formula with every definition so far put in."""
        meant = _put(formula, self._meaning) if self._meaning else formula
        if _atoms(meant) > MAX_FORMULA:
            raise ProofError(f"a formula has at most {MAX_FORMULA} letters")
        return meant


def _put(formula: Formula, meaning: dict[str, Formula]) -> Formula:
    match formula:
        case Atom(name):
            return meaning.get(name, formula)
        case And(left, right):
            return And(_put(left, meaning), _put(right, meaning))
        case Implies(left, right):
            return Implies(_put(left, meaning), _put(right, meaning))


def _atoms(formula: Formula) -> int:
    return 1 if isinstance(formula, Atom) else _atoms(formula.left) + _atoms(formula.right)


_NAMED = re.compile(r"(theorem|axiom) ?([a-z_]+) ?: ?(.+)")
_RULE = re.compile(r"rule ([a-z_]+) ?: ?(.+?) ?=> ?(.+)")
_DEFINE = re.compile(r"define ([a-z]) ?:= ?(.+)")
_PROOF_LINE = re.compile(r"([0-9]{1,4}) (.+) by ([a-z_]+)((?: [0-9]{1,4})*)")


def _read_line(line: str) -> Line:
    try:
        if line in ("qed", "exit"):
            return Qed() if line == "qed" else _EXIT
        if found := _PROOF_LINE.fullmatch(line):
            number, formula, rule, cited = found.groups()
            return ProofLine(int(number), parse_formula(formula), rule, tuple(map(int, cited.split())))
        if found := _NAMED.fullmatch(line):
            kind: Kind = "theorem" if found[1] == "theorem" else "axiom"
            return Declaration(kind, found[2], parse_formula(found[3]))
        if found := _RULE.fullmatch(line):
            return Declaration("rule", found[1], parse_formula(found[3]), premise=parse_formula(found[2]))
        if found := _DEFINE.fullmatch(line):
            return Declaration("define", found[1], parse_formula(found[2]))
    except ProofError as error:
        return Unreadable(str(error))
    return Unreadable(f"cannot read {_shown(line)}")


def _implication(tokens: list[str]) -> tuple[Formula, list[str]]:
    left, rest = _conjunction(tokens)
    if rest[:1] != ["->"]:
        return left, rest
    right, rest = _implication(rest[1:])
    return Implies(left, right), rest


def _conjunction(tokens: list[str]) -> tuple[Formula, list[str]]:
    left, rest = _operand(tokens)
    if rest[:1] != ["&"]:
        return left, rest
    right, rest = _conjunction(rest[1:])
    return And(left, right), rest


def _operand(tokens: list[str]) -> tuple[Formula, list[str]]:
    if not tokens:
        raise ProofError("a formula breaks off")
    first, rest = tokens[0], tokens[1:]
    if first == "(":
        formula, rest = _implication(rest)
        if rest[:1] != [")"]:
            raise ProofError("a parenthesis is not closed")
        return formula, rest[1:]
    if not re.fullmatch("[a-z]", first):
        raise ProofError(f"cannot read {_shown(first)}")
    return Atom(first), rest


def _within(formula: Formula, *bare: type[Formula]) -> str:
    return str(formula) if isinstance(formula, bare) else f"({formula})"


def _shown(text: str) -> str:
    """At most the first 20 characters."""
    return text if len(text) <= 20 else f"{text[:20]}..."
