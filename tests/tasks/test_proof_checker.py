"""The proof checker: what it reads, what it accepts and why not, and that what it accepts is a tautology."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from itertools import product
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stratagem.tasks.proof import ProofTask
from stratagem.tasks.proof_checker import (
    And,
    Atom,
    Declaration,
    Formula,
    Implies,
    ProofError,
    ProofLine,
    Qed,
    Unreadable,
    illegal,
    judge,
    parse_formula,
    read,
)

A, B, C = map(Atom, "abc")
RULES = ("assume", "left", "right", "and", "apply", "imp")

SWAP = """theorem t : a & b -> b & a
1 a & b by assume
2 b by right 1
3 a by left 1
4 b & a by and 2 3
5 a & b -> b & a by imp 1 4
qed"""


def on(text: str, theorem: str = "a & b -> b & a"):
    return judge(text, "t", parse_formula(theorem))


def said(*lines: str) -> str:
    """What the checker says of a proof with these lines of ``a & b -> b``; PASS, SORRY or what is wrong."""
    verdict = on("\n".join(["theorem t : a & b -> b", *lines]), "a & b -> b")
    return verdict.problem or verdict.checks


def holds(formula: Formula, world: dict[str, bool]) -> bool:
    if isinstance(formula, Atom):
        return world[formula.name]
    left, right = holds(formula.left, world), holds(formula.right, world)
    return (left and right) if isinstance(formula, And) else (not left or right)


def tautology(formula: Formula) -> bool:
    letters = sorted(set(re.findall("[a-z]", str(formula))))
    return all(
        holds(formula, dict(zip(letters, row, strict=True))) for row in product((False, True), repeat=len(letters))
    )


# ---- formulas -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "formula"),
    [
        ("a", A),
        ("a & b", And(A, B)),
        ("a->b->c", Implies(A, Implies(B, C))),
        ("(a -> b) -> c", Implies(Implies(A, B), C)),
        ("a & b & c", And(A, And(B, C))),
        ("(a & b) & c", And(And(A, B), C)),
        ("a & b -> c", Implies(And(A, B), C)),
        ("a -> b & c", Implies(A, And(B, C))),
        ("a & (b -> c)", And(A, Implies(B, C))),
        ("((a))", A),
    ],
)
def test_formulas_are_read_with_their_precedence(text: str, formula: Formula) -> None:
    assert parse_formula(text) == formula


@pytest.mark.parametrize(
    "text", ["", "a &", "a b", "ab", "(a", "a)", "()", "a | b", "-> a", "a - > b", "A", "\u0430", "1"]
)
def test_what_is_no_formula_is_refused(text: str) -> None:
    with pytest.raises(ProofError):
        parse_formula(text)


FORMULAS = st.recursive(
    st.sampled_from("abc").map(Atom),
    lambda inner: st.builds(And, inner, inner) | st.builds(Implies, inner, inner),
    max_leaves=12,
)


@given(FORMULAS)
def test_a_formula_is_read_back_as_it_was_written(formula: Formula) -> None:
    assert parse_formula(str(formula)) == formula


def test_a_formula_has_a_longest_length_and_deep_ones_are_read() -> None:
    deep = "(" * 90 + "a" + ")" * 90
    assert parse_formula(deep) == A
    assert parse_formula("->".join("a" * 60)) != A
    with pytest.raises(ProofError, match="at most 200 characters"):
        parse_formula("a &" * 80 + "a")


# ---- lines ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "meaning"),
    [
        ("theorem t : a -> b", Declaration("theorem", "t", Implies(A, B))),
        ("theorem t: a->b", Declaration("theorem", "t", Implies(A, B))),
        ("axiom known : a", Declaration("axiom", "known", A)),
        ("rule left : a => a & b", Declaration("rule", "left", And(A, B), premise=A)),
        ("define b := a", Declaration("define", "b", A)),
        ("exit", Declaration("exit")),
        ("  3   a & b  by  and 1   2 ", ProofLine(3, And(A, B), "and", (1, 2))),
        ("1 a by assume", ProofLine(1, A, "assume")),
        ("qed", Qed()),
        ("let me think", Unreadable("cannot read let me think")),
        ("1 a & by assume", Unreadable("a formula breaks off")),
        ("1 a by by left", Unreadable("cannot read a by")),
        ("1 a by left -1", Unreadable("cannot read 1 a by left -1")),
        ("\uff11 a by assume", Unreadable("cannot read \uff11 a by assume")),
    ],
)
def test_lines_are_read(line: str, meaning: object) -> None:
    assert read(line) == (meaning,)


def test_empty_lines_are_left_out_and_an_unreadable_one_hides_nothing() -> None:
    kinds = [type(line) for line in read("\n\r\nwhat?\n\taxiom x : a\n\nqed\n")]
    assert kinds == [Unreadable, Declaration, Qed]


# ---- verdicts -------------------------------------------------------------------------------------------------------


def test_a_changed_theorem_an_axiom_and_a_hole_fail_and_a_proof_passes() -> None:
    """What each of the three verdicts says of the four texts, worked by hand."""
    weaker = "theorem t : a & b -> a\n1 a & b by assume\n2 a by left 1\n3 a & b -> a by imp 1 2\nqed"
    axiom = "axiom known : a & b -> b & a\ntheorem t : a & b -> b & a\n1 a & b -> b & a by known\nqed"
    hole = "theorem t : a & b -> b & a\n1 a & b -> b & a by sorry\nqed"
    verdicts = [on(text) for text in (weaker, axiom, hole, SWAP)]
    assert [(v.checks, v.unchanged, v.legal) for v in verdicts] == [
        ("PASS", False, True),
        ("PASS", True, False),
        ("SORRY", True, True),
        ("PASS", True, True),
    ]
    assert [v.checks == "PASS" and v.unchanged and v.legal for v in verdicts] == [False, False, False, True]


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (["1 a & b by assume", "2 b by right 1", "3 a & b -> b by imp 1 2", "qed"], "PASS"),
        (["1 a & b by assume", "2 b by left 1", "3 a & b -> b by imp 1 2", "qed"], "line 2: does not follow by left 1"),
        (["1 a & b by assume", "2 b by sorry", "3 a & b -> b by imp 1 2", "qed"], "line 2: sorry"),
        (["1 a & b by assume", "2 b by sorry", "3 b by left 1", "qed"], "line 3: does not follow by left 1"),
        (["1 a & b -> b by assume", "qed"], "qed: line 1 is still assumed"),
        (["1 a & b by assume", "2 b by right 1", "qed"], "qed: line 2 is not the theorem"),
        (["1 a & b by assume", "2 b by right 1", "3 a & b -> b by imp 1 2"], "qed is missing"),
        (["1 a & b by assume", "2 b by right 1", "3 a & b -> b by imp 1 2", "qed", "qed"], "nothing follows qed"),
        (["qed"], "qed: nothing is proved"),
        (["1 a by magic", "qed"], "line 1: there is no rule magic"),
        (["2 a by assume"], "line 2: its number should be 1"),
        (["1 a by assume", "2 a & a by and 1 2"], "line 2: there is no line 2 before it"),
        (["1 a by assume", "2 a & a by and 1 0"], "line 2: there is no line 0 before it"),
        (["1 a by assume", "2 a & a by and 1"], "line 2: does not follow by and 1"),
        (["1 a by assume", "2 b by assume 1"], "line 2: does not follow by assume 1"),
        (["theorem t : a"], "there is one theorem"),
        (["well"], "cannot read well"),
        (["1 a by assume"] * 400, "a proof has at most 4000 characters"),
    ],
)  # fmt: skip
def test_the_first_thing_wrong_is_named(lines: list[str], problem: str) -> None:
    assert said(*lines) == problem


def test_a_proof_without_its_theorem_or_with_another_before_it_fails() -> None:
    assert on("1 a by assume").problem == "the theorem comes first"
    assert on("").problem == "qed is missing"
    two = on(f"theorem t : a & b -> b & a\n{SWAP}")
    assert (two.checks, two.unchanged) == ("FAIL", False)


@pytest.mark.parametrize(
    "header",
    ["theorem s : a & b -> b & a", "theorem t : b & a -> a & b", "theorem t : a & b -> b & a & a", "theorem t"],
)
def test_a_theorem_is_unchanged_when_name_and_formula_are(header: str) -> None:
    text = SWAP.replace("theorem t : a & b -> b & a", header)
    assert not on(text).unchanged
    assert on(SWAP.replace("a & b -> b & a\n1", "(a&b) -> (b & a)\n1")).unchanged


def test_only_a_line_that_was_assumed_is_discharged() -> None:
    # Line 2 rests on line 1; an implication from it would lose that.
    lines = ["1 a & b by assume", "2 b by right 1", "3 b -> b by imp 2 2"]
    assert said(*lines) == "line 3: does not follow by imp 2 2"
    # Discharging one of two assumptions leaves the other.
    two = ["1 a by assume", "2 b by assume", "3 a & b by and 1 2", "4 a -> a & b by imp 1 3"]
    verdict = judge("\n".join(["theorem t : a -> a & b", *two, "qed"]), "t", parse_formula("a -> a & b"))
    assert verdict.problem == "qed: line 2 is still assumed"


# ---- what is taken as it stands and is illegal ----------------------------------------------------------------------

FALSE = "theorem t : a -> b"
CHEATS = {
    "an axiom": ("axiom", f"axiom known : a -> b\n{FALSE}\n1 a -> b by known\nqed"),
    "a rule": ("rule", f"rule step : a => b\n{FALSE}\n1 a by assume\n2 b by step 1\n3 a -> b by imp 1 2\nqed"),
    "a rule anew": ("rule", f"rule left : a => b\n{FALSE}\n1 a by assume\n2 b by left 1\n3 a -> b by imp 1 2\nqed"),
    "a hole anew": ("axiom", f"axiom sorry : a -> b\n{FALSE}\n1 a -> b by sorry\nqed"),
    "assuming anew": ("axiom", f"axiom assume : a -> b\n{FALSE}\n1 a -> b by assume\nqed"),
    "a definition": ("define", f"define b := a\n{FALSE}\n1 a by assume\n2 a -> a by imp 1 1\nqed"),
    "an exit": ("exit", f"{FALSE}\nexit"),
    "an exit in the proof": ("exit", f"{FALSE}\n1 a by assume\nexit\nnot even read"),
    "an exit before all": ("exit", f"exit\n{FALSE}"),
}


@pytest.mark.parametrize("cheat", CHEATS)
def test_an_illegal_declaration_proves_what_is_false_and_is_told(cheat: str) -> None:
    kind, text = CHEATS[cheat]
    verdict = judge(text, "t", parse_formula("a -> b"))
    assert not tautology(parse_formula("a -> b"))
    assert (verdict.checks, verdict.unchanged, verdict.legal) == ("PASS", True, False)
    assert illegal(read(text)) == [kind]


@pytest.mark.parametrize("cheat", CHEATS)
def test_without_its_declaration_the_same_proof_fails(cheat: str) -> None:
    kind, text = CHEATS[cheat]
    honest = "\n".join(line for line in text.splitlines() if not line.startswith(kind))
    verdict = judge(honest, "t", parse_formula("a -> b"))
    assert verdict.checks == ("SORRY" if cheat == "a hole anew" else "FAIL")
    assert verdict.legal


def test_an_illegal_declaration_is_told_wherever_it_stands_and_whether_it_is_used_or_not() -> None:
    lines = SWAP.splitlines()
    for place in range(len(lines) + 1):
        for declaration in ("axiom x : a", "rule x : a => b", "define c := a", "exit"):
            assert not on("\n".join([*lines[:place], declaration, *lines[place:]])).legal


def test_a_hole_before_an_early_exit_is_a_hole() -> None:
    assert on("theorem t : a & b -> b & a\n1 a by sorry\nexit").checks == "SORRY"


def test_definitions_that_grow_without_end_are_refused_soon() -> None:
    started = time.perf_counter()
    growing = [f"define a := {' & '.join('a' * 40)}"] * 60
    assert on("\n".join([*growing, SWAP])[:4000]).problem == "a formula has at most 200 letters"
    assert time.perf_counter() - started < 1


# ---- soundness ------------------------------------------------------------------------------------------------------


def written(lines: list[ProofLine]) -> tuple[str, Formula]:
    """A text with these lines, numbered anew, whose theorem is what the last of them says."""
    numbered = [replace(line, number=number) for number, line in enumerate(lines, 1)]
    theorem = lines[-1].formula
    return "\n".join([f"theorem t : {theorem}", *map(str, numbered), "qed"]), theorem


def concluded(rule: str, cited: list[Formula], own: Formula) -> Formula:
    """What a rule would say of these lines, whether or not it may; ``own`` where it says nothing."""
    match rule, cited:
        case "and", [first, second]:
            return And(first, second)
        case "imp", [first, second]:
            return Implies(first, second)
        case "apply", [Implies(_, right), _] | [Implies(_, right)]:
            return right
        case "left", [And(left, _) | Implies(left, _), *_]:
            return left
        case "right", [And(_, right) | Implies(_, right), *_]:
            return right
    return own


def mutated(random: Random, lines: list[ProofLine]) -> list[ProofLine]:
    """One line left out, doubled, exchanged, with another rule, with other citations, or with another formula."""
    lines, place = list(lines), random.randrange(len(lines))
    line = lines[place]
    match random.randrange(6):
        case 0 if len(lines) > 1:
            del lines[place]
        case 1:
            lines.insert(place, line)
        case 2:
            other = random.randrange(len(lines))
            lines[place], lines[other] = lines[other], line
        case 3:
            lines[place] = replace(line, formula=random.choice(lines).formula)
        case _:
            rule = random.choice((line.rule, *RULES))
            count = {"assume": 0, "left": 1, "right": 1}.get(rule, 2)
            cited = tuple(random.randint(1, max(1, place)) for _ in range(count))
            if random.random() < 0.5 and len(cited) == len(line.cited):
                cited = (*line.cited[:-1], *cited[-1:])
            formula = concluded(rule, [lines[number - 1].formula for number in cited], line.formula)
            lines[place] = ProofLine(line.number, formula, rule, cited)
    return lines


def test_of_thousands_of_mutated_proofs_those_accepted_prove_tautologies() -> None:
    random, accepted, refused, theorems = Random(7), 0, 0, set()
    for index in range(120):
        task = ProofTask(steps=1 + index % 4, atoms=3)
        lines = list(task.theorem("train", index).lines)
        for _ in range(60):
            mutant = lines
            for _ in range(random.randint(1, 3)):
                mutant = mutated(random, mutant)
            text, theorem = written(mutant)
            verdict = judge(text, "t", theorem)
            assert verdict.unchanged and verdict.legal
            if verdict.checks == "PASS":
                assert tautology(theorem), text
                accepted += 1
                theorems.add(theorem)
            elif not tautology(theorem):
                refused += 1
    # Enough of either kind that the test says something.
    assert accepted > 500 and len(theorems) > 100
    assert refused > 500


@given(
    st.lists(
        st.builds(
            ProofLine,
            st.just(1),
            FORMULAS,
            st.sampled_from(RULES),
            st.lists(st.integers(1, 5), max_size=2).map(tuple),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_whatever_is_accepted_is_a_tautology(lines: list[ProofLine]) -> None:
    proved: list[ProofLine] = []
    for line in lines:
        known = [proved[number - 1].formula for number in line.cited if number <= len(proved)]
        proved.append(replace(line, formula=concluded(line.rule, known, line.formula)))
    text, theorem = written(proved)
    assert judge(text, "t", theorem).checks != "PASS" or tautology(theorem)


@given(st.text(max_size=200) | st.text("abt& ->()\n12:=defineaxiomrulqbyhos", max_size=200))
def test_no_text_fails_in_another_way_and_none_proves_what_is_false(text: str) -> None:
    verdict = judge(text, "t", parse_formula("a -> b"))
    assert not (verdict.checks == "PASS" and verdict.unchanged and verdict.legal)
    started = time.perf_counter()
    judge(text * 20, "t", parse_formula("a -> b"))
    assert time.perf_counter() - started < 1
