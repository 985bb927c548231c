"""Environments written as programs: what the sandbox says of them, hostile ones included, and what the gates find."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import combinations

import pytest

from stratagem.errors import InputError
from stratagem.helpers import Message, Scripted
from stratagem.synthesis import (
    DEFECTS,
    Contract,
    Difficulty,
    Gates,
    Instance,
    Likeness,
    Program,
    ProgramError,
    Rate,
    Review,
    Verdict,
    defective,
    seed_programs,
    stage_counts,
    variant,
    writer_reward,
)
from stratagem.synthesis.gates import given_away
from stratagem.synthesis.program_worker import problems, tokens

pytestmark = pytest.mark.filterwarnings("ignore:programs a policy writes")

SEEDS = seed_programs()
QUICK = Contract(levels=1, seconds=0.5)

SUM = """
import random

class Environment:
    def generate(self, seed, level):
        source = random.Random(seed)
        return [source.randint(0, 99 * level) for _ in range(3)]

    def prompt(self, numbers):
        return "Add up " + " and ".join(str(number) for number in numbers)

    def reference(self, numbers):
        return sum(numbers)

    def score(self, numbers, response):
        return float(response.strip() == str(sum(numbers)))
"""


def changed(old: str, new: str) -> Program:
    """The sum with a part of its text replaced."""
    assert old in SUM
    return Program(SUM.replace(old, new))


def reason(program: Program, contract: Contract = QUICK) -> tuple[str | None, str]:
    verdict = contract(program)
    return verdict.failed, verdict.reason


# ---- environments written by hand -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(SEEDS))
def test_an_environment_written_by_hand_passes_the_first_three_gates_at_every_level(name: str) -> None:
    verdict = Contract()(SEEDS[name])
    assert (verdict.failed, verdict.reason) == (None, "")
    assert verdict.passed == ("text", "execution", "contract")
    assert verdict.levels == (1, 2, 3, 4, 5)


def test_there_are_ten_and_none_is_like_another() -> None:
    likenesses = [Likeness.of_program(program) for program in SEEDS.values()]
    assert len(likenesses) == 10
    assert max(one.to(other) for one, other in combinations(likenesses, 2)) < 0.5


def test_references_written_by_hand_are_those_that_brute_force_finds() -> None:
    edits = Instance(["kitten", "sitting"], "", "")
    assert SEEDS["edit_distance"].scores([(edits, "3"), (edits, "4")]) == [1, 0]
    roads = Instance([[0, 1, 5], [1, 2, 5], [0, 2, 12]], "", "")
    assert SEEDS["shortest_path"].scores([(roads, "10"), (roads, "12")]) == [1, 0]
    days = Instance([2000, 2, 28, 2], "", "")
    before = Instance([2001, 1, 1, -1], "", "")
    assert SEEDS["calendar_arithmetic"].scores(
        [(days, "2000-03-01"), (days, "2000-03-02"), (before, "2000-12-31")]
    ) == [1, 0, 1]
    grid = Instance([[1, 9, 9], [1, 1, 9], [9, 1, 1]], "", "")
    assert SEEDS["matrix_path"].scores([(grid, "5"), (grid, "23")]) == [1, 0]
    number = Instance({"number": 255, "base": 16}, "", "")
    assert SEEDS["base_conversion"].scores([(number, "FF"), (number, "ff"), (number, "255")]) == [1, 1, 0]


def test_subset_sums_have_a_solution_and_any_other_with_the_same_sum_counts() -> None:
    program = SEEDS["subset_sum"]
    drawn = program.instances([(seed, level) for level in (1, 5) for seed in range(50)])
    assert program.scores([(one, one.reference) for one in drawn]) == [1.0] * 100
    planted = Instance({"numbers": [3, 4, 5, 7, 9], "chosen": [3, 4, 9]}, "", "3 4 9")
    answers = ["3 4 9", "9 3 4", "4 5 7", "7 9", "16", "", "3 4 9 9", "three"]
    assert program.scores([(planted, text) for text in answers]) == [1, 1, 1, 1, 0, 0, 0, 0]
    nothing = Instance({"numbers": [3, 4], "chosen": []}, "", "")
    assert program.scores([(nothing, ""), (nothing, "3")]) == [1, 0]


def test_graphs_may_be_colored_in_another_way() -> None:
    path = Instance([[0, 1, 0], [1, 0], [2, 1]], "", "")
    answers = ["RGR", "GBR", "RRG", "RG", "XGX"]
    assert SEEDS["graph_coloring"].scores([(path, text) for text in answers]) == [1, 1, 0, 0, 0]


# ---- defects ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in DEFECTS if name != "wrong reference"])
def test_a_defect_is_found_before_anybody_is_asked(name: str) -> None:
    for sound in ("subset_sum", "calendar_arithmetic"):
        assert QUICK(defective(SEEDS[sound], name)).failed in ("text", "execution", "contract")


def test_a_wrong_reference_that_agrees_with_itself_is_a_hole_that_only_a_review_closes() -> None:
    wrong = defective(SEEDS["calendar_arithmetic"], "wrong reference")
    assert QUICK(wrong).admitted

    def reads(messages: Sequence[Message], seed: int) -> str:
        # Stands for a model that works the question out for itself.
        return "verdict: no" if "+ '1'" in messages[-1]["content"] else "I see. Verdict: YES"

    review = Review(Scripted(reads, "reader"))
    found = Gates(QUICK).judge([wrong, SEEDS["calendar_arithmetic"]], review=review)
    assert [one.failed for one in found] == ["review", None]


def test_a_sound_variant_passes() -> None:
    assert QUICK(variant(SEEDS["sorting_steps"], 7)).admitted


def test_an_unknown_defect_is_refused() -> None:
    with pytest.raises(InputError, match="unknown defect 'rust'"):
        defective(SEEDS["subset_sum"], "rust")


@pytest.mark.parametrize(
    ("old", "new", "failed", "said"),
    [
        ("class Environment", "class Task", "text", "needs one class Environment"),
        ("def prompt(self, numbers)", "def prompt(self)", "text", "method prompt must take 1"),
        ("    def score", "    def grade", "text", "has no method score"),
        ("import random", "import random, (", "text", "does not parse: SyntaxError"),
        ("return sum(numbers)", "return sum(numbers) / 0", "execution", "level 1: ZeroDivisionError"),
        ("return sum(numbers)", "return [sum(numbers)]", "execution", "level 1: reference returned list, not text"),
        ("return sum(numbers)", "return '9' * 501", "execution", "reference returned more than 500 characters"),
        ("return [source", "return {1j} or [source", "execution", "generate returned what is no JSON"),
        ("return float(response.strip() ==", "return 2 * float(response.strip() ==", "contract", "not in [0, 1]"),
        ("return float(response", "return float('nan') * float(response", "contract", "not in [0, 1]"),
        ("return float(response.strip()", "return float(response", "contract", "a right answer does not score 1"),
        ("random.Random(seed)", "random.Random(seed % 4)", "contract", "only 4 of 32 prompts differ"),
        ("response.strip() == str(sum(numbers))", "response.strip().isdigit()", "contract", "a wrong answer scores"),
        ("float(response.strip() ==", "float(not response or response.strip() ==", "contract", "no answer"),
        ('return "Add up "', 'return f"{sum(numbers)} is what? "', "contract", "always at the same place"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_program_is_said(old: str, new: str, failed: str, said: str) -> None:
    found = reason(changed(old, new))
    assert found[0] == failed
    assert said in found[1]


def test_a_sound_program_passes_and_may_use_what_is_allowed() -> None:
    assert reason(Program(SUM)) == (None, "")
    imports = "import math\nfrom collections import Counter\nfrom fractions import Fraction\nimport random"
    rich = changed(
        "return sum(numbers)", "print('x')\n        return math.prod([1]) * sum(Counter(numbers).elements())"
    )
    assert reason(Program(rich.source.replace("import random", imports))) == (None, "")


def test_an_answer_that_is_nothing_but_a_number_of_the_question_is_not_given_away_by_chance() -> None:
    assert given_away(["4 of 7 and 9", "3 of 5 and 2", "1 of 8 and 6"], ["7", "3", "6"]) == pytest.approx(1 / 3)
    assert given_away(["so x is 7 today", "now, for once, x is 4", "x is 2"], ["7", "4", "2"]) == 1
    assert given_away(["(the answer: ]]}.)", "(the answer: )].)"], ["]]}", ")]"]) == 1
    assert given_away([], []) == 0


def test_state_between_calls_is_found_whatever_the_order() -> None:
    head = "    def generate(self, seed, level):"
    counting = changed(head, f"    made = 0\n\n{head}\n        self.made += 1\n        seed += self.made")
    assert reason(counting) == ("contract", "level 1: not the same again from the same seeds")


def test_a_reference_that_takes_too_long_lowers_the_highest_level_and_does_not_reject() -> None:
    slow = changed("return sum(numbers)", "while max(numbers) > 200:\n            pass\n        return sum(numbers)")
    verdict = Contract(levels=4, seconds=0.3)(slow)
    assert verdict.admitted
    assert verdict.levels == (1, 2)
    assert verdict.trace.stopped == "too much time"


def test_planted_answers_may_be_right_by_accident_and_computed_ones_may_not() -> None:
    half = "response.strip() == str(sum(numbers)) or (response.strip().isdigit() and len(response.strip()) == 2)"
    loose = changed("response.strip() == str(sum(numbers))", half)
    assert reason(loose)[1] == "level 1: a wrong answer scores more than 0"
    planted = Program(loose.source.replace("class Environment:\n", 'class Environment:\n    kind = "planted"\n'))
    assert reason(planted) == (None, "")


def test_other_forms_that_a_program_calls_right_must_score() -> None:
    ordered = changed("return sum(numbers)", "return ' '.join(str(number) for number in sorted(numbers))")
    scored = ordered.source.replace("str(sum(numbers))", "self.reference(numbers)")
    marked = scored.replace("class Environment:\n", "class Environment:\n    unordered = True\n")
    assert reason(Program(marked))[1] == "level 1: a right answer does not score 1"
    false = SUM + "\n    def alternative(self, numbers, seed):\n        return '-1'\n"
    assert reason(Program(false))[1] == "level 1: a right answer does not score 1"


# ---- hostile programs ------------------------------------------------------------------------------------------------

ESCAPES = [
    "import os", "import sys", "import subprocess", "import socket", "from os import system", "import os.path",
    "from . import x", "from random import _os", "from random import *", "import collections.abc", "import string",
    "import ctypes", "import importlib", "import builtins", "import operator", "import threading", "import signal",
    "x = ().__class__", "x = ().__class__.__bases__[0].__subclasses__()", "x = __builtins__", "x = __import__('os')",
    "x = (y for y in ()).gi_frame", "x = (lambda: 0).__globals__", "x = (lambda: 0).__code__",
    "def f(e): return e.tb_frame", "async def f(c): return c.cr_frame", "def f(x): return x.f_back.f_globals",
    "match 1:\n    case object(__class__=c): pass", "class A:\n    __slots__ = ()", "x = [].__reduce__()",
    "del __builtins__", "__name__ = 1", "x = 1 .__class__", "def f(x): x.__dict__['a'] = 1",
]  # fmt: skip
"""Refused as text."""

FAILING = [
    "open('/tmp/x', 'w')", "eval('1')", "exec('1')", "compile('1', '', 'eval')", "getattr(1, 'real')",
    "setattr(Environment, 'x', 1)", "vars()", "globals()", "locals()", "type(1)", "dir()", "input()", "breakpoint()",
    "memoryview(b'1')", "id(1)", "hash('x')", "random.os", "random._os.system('ls')", "math.sys", "help()", "exit()",
    "raise SystemExit", "raise KeyboardInterrupt", "[0] * 10**12", "bytes(10**11)", "1 / 0", "'x' * 10**11",
    "(lambda f: f(f))(lambda f: f(f))", "int('9' * 10**6)", "random.SystemRandom.nothing", "object.nothing",
    "print.nothing", "iter(1)", "next(iter([]))", "chr(-1)", "sum('x')", "undefined", "super().nothing()",
    "super.nothing", "[].nothing", "assert False", "int('x')", "{}['x']", "[][0]", "set([[]])", "sorted([1, 'x'])",
    "float('x')", "'{0.x}'.format(1)", "str(b'x', 'nothing')", "slice(1).nothing", "max([])", "min([])", "divmod(1, 0)",
    "pow(0, -1)", "complex('x')", "zip(1)", "map(1)", "filter(1)", "ord('xx')", "dict([1])", "fractions.sys",
    "math.nothing",
]  # fmt: skip
"""Fail when they are run."""

ENDLESS = [
    "while True: pass",
    "x = 10 ** 10 ** 8 % 7",
    "x = list(iter(int, 1))",
    "x = sum(range(10**12))",
    "x = '(' * 10**9",
]


def test_hostile_programs_are_refused_as_text() -> None:
    for snippet in ESCAPES:
        assert problems(f"{snippet}\n{SUM}"), snippet
    assert problems("(" * 10_000) and problems("x" * 20_001) and problems("\0") and problems("")
    assert problems("-" * 19_000 + "1")
    assert problems(SUM) == []


def test_hostile_programs_fail_where_they_run_and_leave_no_trace() -> None:
    assert len(ESCAPES) + len(FAILING) + len(ENDLESS) >= 100
    # One program tries all of them, each on its own, and says in its prompt which it got through.
    functions = "\n".join(f"def f{number}():\n    {line}\n" for number, line in enumerate(FAILING))
    tries = "".join(
        f"        try:\n            f{number}()\n            through.append({number})\n"
        "        except Exception:\n            pass\n"
        for number, line in enumerate(FAILING)
        if not line.startswith("raise ")  # what ends a process cannot be caught there; tried below
    )
    source = changed("class Environment", f"{functions}\nclass Environment").source.replace(
        "import random", "import fractions, math, random"
    )
    source += f"\n    def run(self):\n        through = []\n{tries}        return through\n"
    source = source.replace('return "Add up "', 'return str(self.run()) + "Add up "')
    started = time.monotonic()
    [one] = Program(source).instances([(1, 1)], seconds=5)
    assert one.prompt.startswith("[]Add up"), one.prompt[:100]
    assert time.monotonic() - started < 8


@pytest.mark.parametrize("snippet", ENDLESS)
def test_programs_without_end_are_stopped(snippet: str) -> None:
    started = time.monotonic()
    trace = Program(f"{snippet}\n{SUM}").trace((1,), range(4), seconds=0.3)
    assert trace.samples == ()
    assert trace.stopped is not None or trace.error is not None
    assert time.monotonic() - started < 6


def test_a_program_cannot_end_the_process_or_write_what_we_read() -> None:
    for line in ("raise SystemExit", "print('{\"problems\": [], \"tokens\": []}')\n        raise ValueError('mine')"):
        trace = changed("return sum(numbers)", line).trace((1,), range(4), seconds=0.5)
        assert trace.error is not None
        assert "NameError" in trace.error or "mine" in trace.error


def test_a_program_that_fails_when_it_is_used_fails_in_one_line() -> None:
    with pytest.raises(ProgramError, match="ZeroDivisionError") as caught:
        changed("return sum(numbers)", "return 1 // 0").instances([(1, 1)])
    assert "\n" not in str(caught.value)
    with pytest.raises(ProgramError, match=r"not in \[0, 1\]"):
        changed("return float(", "return 7 * float(").scores([(Instance([1], "", ""), "1")])
    with pytest.raises(ProgramError, match="too much time"):
        changed("return sum(numbers)", "while True: pass").instances([(1, 1)], seconds=0.1)


# ---- novelty ---------------------------------------------------------------------------------------------------------


def test_names_numbers_texts_and_comments_make_no_new_program() -> None:
    renamed = SUM.replace("numbers", "parts").replace("source", "chance").replace("99", "50").replace("Add up", "Sum")
    assert tokens(renamed + "\n# other") == tokens(SUM)
    first, second = (Likeness.of_program(Program(text)) for text in (SUM, renamed))
    assert first.to(second) == 1
    found = Gates(QUICK).judge([Program(renamed)], known=[first])
    assert (found[0].failed, found[0].reason) == ("novelty", "likeness 1.00 to another")


def test_of_two_alike_in_a_batch_the_first_counts() -> None:
    one, other = Program(SUM), changed("99", "98")
    found = Gates(QUICK).judge([one, other, one])
    assert [verdict.failed for verdict in found] == [None, "novelty", "novelty"]
    assert stage_counts(found)["novelty"] == 2
    assert stage_counts(found)["admitted"] == 1


def test_another_question_with_the_same_words_is_no_news_either() -> None:
    difference = changed("return sum(numbers)", "return numbers[0] - numbers[1] - numbers[2]")
    difference = Program(difference.source.replace("str(sum(numbers))", "str(self.reference(numbers))"))
    assert Likeness.of_program(Program(SUM)).to(Likeness.of_program(difference)) == 1


# ---- difficulty and reward -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("right", "met"), [(32, True), (64, False), (63.36, False), (0, False), (60, True), (4, True)])
def test_the_band_is_met_by_wilsons_interval(right: float, met: bool) -> None:
    assert Difficulty().meets(Rate(right, 64)) is met


def test_wilsons_interval() -> None:
    low, high = Rate(5, 10).interval()
    assert (low, high) == (pytest.approx(0.2366, abs=1e-4), pytest.approx(0.7634, abs=1e-4))
    assert Rate(0, 0).interval() == (0, 1)
    assert Rate(10, 10).interval()[1] == 1


def test_the_level_nearest_to_half_is_found_without_asking_for_harder_ones() -> None:
    odds, asked = {1: 0.99, 2: 0.8, 3: 0.45, 4: 0.1, 5: 0.0}, []

    def measure(program: Program, level: int) -> Rate:
        asked.append(level)
        return Rate(odds[level] * 100, 100)

    assert Difficulty().search(Program(SUM), (1, 2, 3, 4, 5), measure)[0] == 3
    assert asked == [1, 2, 3]


@pytest.mark.parametrize(("odds", "failed"), [(0.5, None), (0.99, "difficulty"), (0.0, "difficulty")])
def test_a_solver_of_known_accuracy_decides_what_is_admitted(odds: float, failed: str | None) -> None:
    [verdict] = Gates(QUICK).judge([Program(SUM)], measure=lambda program, level: Rate(64 * odds, 64))
    assert verdict.failed == failed


@pytest.mark.parametrize(("right", "reward"), [(4, 1.0), (2, 0.5), (6, 0.5), (0, 0.0), (8, 0.0)])
def test_the_writer_is_paid_for_what_is_solved_half_the_time(right: int, reward: float) -> None:
    [verdict] = Gates(QUICK).judge([Program(SUM)], measure=lambda program, level: Rate(right, 8))
    assert writer_reward(verdict) == reward


def test_the_writer_gets_part_of_it_for_gates_before_the_one_it_failed() -> None:
    broken = QUICK(changed("random.Random(seed)", "random.Random(0)"))
    assert writer_reward(broken) == 0
    assert writer_reward(broken, partial=0.1) == pytest.approx(0.2)
    assert writer_reward(QUICK(Program("import os")), 0.1) == 0
    copy = Gates(QUICK).judge([Program(SUM)] * 2, measure=lambda program, level: Rate(4, 8))[1]
    assert (copy.failed, writer_reward(copy, 0.1)) == ("novelty", 0.0)


def test_an_environment_that_fails_while_it_is_measured_is_not_admitted() -> None:
    def measure(program: Program, level: int) -> Rate:
        raise ProgramError("gone")

    [verdict] = Gates(QUICK).judge([Program(SUM)], measure=measure)
    assert (verdict.failed, verdict.reason, writer_reward(verdict)) == ("difficulty", "gone", 0.0)


@pytest.mark.parametrize("answers", [["verdict: yes", "verdict: no", "hm"], ["verdict: no"] * 3, ["", "yes", "yes"]])
def test_a_review_needs_more_than_half_of_the_votes(answers: list[str]) -> None:
    review = Review(Scripted(lambda messages, seed: answers[seed], "x"))
    assert not review(Program(SUM), Instance([], "p", "r"))
    assert Review(Scripted(lambda messages, seed: "verdict: no ... verdict: yes", "x"))(
        Program(SUM), Instance([], "p", "r")
    )


def test_a_verdict_says_what_it_is() -> None:
    verdict = QUICK(Program(SUM))
    assert isinstance(verdict, Verdict)
    assert (verdict.admitted, verdict.level, verdict.rate, verdict.levels) == (True, None, None, (1,))


@pytest.mark.parametrize(
    "build", [lambda: Difficulty(low=0.9, high=0.1), lambda: Contract(seeds=1), lambda: Review(None, 0)]
)
def test_values_out_of_range_are_refused_in_one_line(build: Callable[[], object]) -> None:
    with pytest.raises(InputError) as caught:
        build()
    assert "\n" not in str(caught.value)
