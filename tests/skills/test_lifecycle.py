"""The life of skills: what audits measure, who stays, who goes, who comes."""

from __future__ import annotations

import math

import pytest

from stratagem.errors import InputError
from stratagem.skills import Case, Retriever, Skill, SkillBank, SkillLifecycle, TfidfMatch, TypeMatch

CASES = [Case(number, "doors", "open the door") for number in range(10)]
ABC = ("a", "b", "c")


def bank(names=ABC, types=(), exposure=1000):
    made = SkillBank([Skill(name, f"text of {name}", types) for name in names])
    for entry in made.active:
        entry.exposure = exposure
    return made


def playing(perform):
    """Success of a trial from the names it shows."""
    return lambda trials: [perform({skill.name for skill in trial.shown}) for trial in trials]


def in_use(made):
    return [entry.skill.name for entry in made.active]


def additive(shown):
    return 0.4 + 0.3 * ("a" in shown) + 0.1 * ("b" in shown) - 0.05 * ("c" in shown)


def test_marginals_are_differences_to_the_rest_and_the_harmful_one_goes():
    made, life = bank(), SkillLifecycle()
    audit = life.audit(made, CASES, playing(additive))
    assert {name: found.difference for name, found in audit.marginals.items()} == pytest.approx(
        {"a": 0.3, "b": 0.1, "c": -0.05}
    )
    assert audit.success == pytest.approx(0.75) and audit.trials == 40
    life.audit(made, CASES, playing(additive))
    assert in_use(made) == ["a", "b"] and made.audits == 2
    assert life.fates(made) == {"a": "external", "b": "external", "c": "harmful"}
    assert [entry.skill.name for entry in made.archived] == ["c"]


def test_a_worthless_skill_with_too_little_exposure_stays_on_probation():
    made, life = bank(), SkillLifecycle(exposure=200)
    made.entry("c").exposure = 10
    for _ in range(4):
        life.audit(made, CASES, playing(lambda shown: 0.4 + 0.3 * ("a" in shown) + 0.1 * ("b" in shown)))
    assert made.entry("c").state == "probation" and life.fate(made.entry("c")) == "on trial"
    made.entry("c").exposure = 200
    life.audit(made, CASES, playing(lambda shown: 0.4 + 0.3 * ("a" in shown) + 0.1 * ("b" in shown)))
    assert in_use(made) == ["a", "b"] and life.fate(made.entry("c")) == "idle"


def test_a_skill_that_the_policy_took_in_is_retired_at_the_second_audit_that_finds_nothing():
    made, life, values = bank("a"), SkillLifecycle(), []
    for step in range(20):
        without = min(0.7, 0.4 + 0.05 * step)
        life.audit(made, CASES, playing(lambda shown, bare=without: 0.7 if shown else bare))
        values.append(made.entry("a").value)
        if not in_use(made):
            break
    # Differences 0.3, 0.25, ..., 0.05, 0, 0, ..., each mixed half and half with what was known.
    expected, known = [], 0.3
    for step in range(len(values)):
        known = 0.5 * known + 0.5 * max(0.0, 0.3 - 0.05 * step)
        expected.append(known)
    assert values == pytest.approx(expected)
    assert [value <= life.retire for value in values[-3:]] == [False, True, True]
    assert life.fate(made.entry("a")) == "internalised"


def test_of_two_that_say_the_same_exactly_one_goes_and_the_other_stays():
    made, life = bank("ab", ("doors",)), SkillLifecycle(patience=1)
    either = playing(lambda shown: 0.4 + 0.3 * bool(shown & {"a", "b"}))
    first = life.audit(made, CASES, either)
    assert [found.difference for found in first.marginals.values()] == [0, 0]
    assert first.retired == ["a"] and in_use(made) == ["b"]
    second = life.audit(made, CASES, either)
    assert second.marginals["b"].difference == pytest.approx(0.3)
    assert life.audit(made, CASES, either).retired == [] and made.entry("b").state == "retained"


def test_one_skill_of_each_type_may_go_at_the_same_audit():
    made = SkillBank([Skill("a", "x", ("doors",)), Skill("b", "x", ("doors",)), Skill("c", "x", ("keys",))])
    cases = [*CASES, *(Case(number, "keys", "take the key") for number in range(10, 20))]
    audit = SkillLifecycle(patience=1, exposure=0).audit(made, cases, playing(lambda shown: 0.5))
    assert audit.retired == ["a", "c"] and audit.trials == 20 + 30


def failing(life, made, kind="doors", failures=40, attempts=50):
    for number in range(attempts):
        life.note(made, kind, success=number >= failures, trace=f"trace {number}")


def test_a_type_that_fails_and_has_no_skill_gets_one_new_one():
    made, life, asked = SkillBank([Skill("general", "think")]), SkillLifecycle(), []

    def create(kind, failed, succeeded):
        asked.append((kind, failed, succeeded))
        return Skill(f"{kind}-{len(asked)}", "open it", (kind,))

    failing(life, made)
    audit = life.audit(made, CASES, playing(lambda shown: 0.2), create)
    assert audit.created == ["doors-1"] and made.entry("doors-1").state == "probation"
    kept = tuple(f"trace {n}" for n in (36, 37, 38, 39)), tuple(f"trace {n}" for n in (46, 47, 48, 49))
    assert asked == [("doors", *kept)]
    failing(life, made)
    assert life.audit(made, CASES, playing(lambda shown: 0.2), create).created == []


@pytest.mark.parametrize("failures, attempts", [(29, 50), (49, 49)])
def test_a_type_that_mostly_succeeds_or_is_little_known_gets_none(failures, attempts):
    made, life = SkillBank(), SkillLifecycle()
    failing(life, made, failures=failures, attempts=attempts)
    audit = life.audit(made, CASES, playing(lambda shown: 0.2), lambda *_: Skill("new", "x", ("doors",)))
    assert audit.created == [] and audit.uncovered == []


def test_a_type_that_fails_gets_back_what_was_laid_aside_before_something_new():
    made, life = bank("ab", ("doors",)), SkillLifecycle()
    for name, value, harmful in (("a", -0.5, True), ("b", 0.0, False)):
        entry = made.entry(name)
        entry.state, entry.value, entry.harmful, entry.low = "archived", value, harmful, 2
    failing(life, made)
    audit = life.audit(made, CASES, playing(lambda shown: 0.2), lambda *_: Skill("new", "x", ("doors",)))
    assert audit.brought_back == ["b"] and audit.created == []
    again = made.entry("b")
    assert (again.state, again.exposure, again.value, again.low, again.number) == ("probation", 0, None, 0, 1)


def test_a_full_bank_takes_nothing_and_says_which_types_are_uncovered():
    made, life = SkillBank([Skill("general", "think")]), SkillLifecycle(cap=1)
    failing(life, made)
    audit = life.audit(made, CASES, playing(lambda shown: 0.2), lambda *_: Skill("new", "x", ("doors",)))
    assert audit.uncovered == ["doors"] and len(made.active) == 1
    with pytest.raises(InputError, match=r"^skill_lifecycle\.cap = 1: 2 skills are in use$"):
        life.audit(bank("ab"), CASES, playing(lambda shown: 0.2))


def test_thresholds_of_minus_infinity_keep_everything():
    made, life = bank(), SkillLifecycle(keep=-math.inf)
    for _ in range(5):
        life.audit(made, CASES, playing(lambda shown: 0.9 - 0.3 * len(shown)))
    assert in_use(made) == list(ABC)


def test_without_a_case_that_would_show_it_a_skill_stays_and_the_audit_says_nothing():
    made, life = bank("a", ("keys",)), SkillLifecycle(patience=1)
    for _ in range(3):
        audit = life.audit(made, CASES, playing(lambda shown: 0.5))
    entry = made.entry("a")
    assert audit.marginals == {} and (entry.silent, entry.audits, entry.value, entry.state) == (3, 0, None, "probation")


def test_an_empty_bank_and_no_cases_are_audited_all_the_same():
    life = SkillLifecycle()
    assert life.audit(SkillBank(), CASES, playing(lambda shown: 0.5)).success == 0.5
    nothing = life.audit(bank(), [], playing(lambda shown: 0.5))
    assert math.isnan(nothing.success) and nothing.trials == 0


def test_few_pairs_need_twice_the_patience_and_prove_no_harm():
    made, life, few = bank("ab", ("doors",)), SkillLifecycle(), CASES[:3]
    harm = playing(lambda shown: 0.5 - 0.4 * ("a" in shown))
    gone = [life.audit(made, few, harm) for _ in range(4)]
    assert [audit.harmful + audit.retired for audit in gone] == [[], [], [], ["a"]]
    assert not made.entry("a").harmful


def test_differences_that_noise_explains_do_no_harm_but_their_standard_error_is_known():
    made, life = bank("a"), SkillLifecycle(exposure=10_000)
    luck = [1, 0, 0, 0, 0, 0, 0, 0, 0, 0]

    def play(trials):
        return [float(luck[trial.case.number]) if not trial.shown else 0.0 for trial in trials]

    found = life.audit(made, CASES, play).marginals["a"]
    assert found.difference == pytest.approx(-0.1) and found.error == pytest.approx(0.1) and found.without == 0.1
    assert made.entry("a").state == "probation"
    life.audit(made, CASES, play)
    assert made.entry("a").spread == pytest.approx(math.hypot(0.05, 0.05))


def test_a_pair_of_which_one_trial_says_nothing_is_left_out():
    made, life = bank("a"), SkillLifecycle()

    def play(trials):
        return [None if trial.case.number < 4 and trial.shown else float(bool(trial.shown)) for trial in trials]

    assert life.audit(made, CASES, play).marginals["a"].pairs == 6


def test_wrong_results_are_refused():
    for play, problem in (
        (lambda trials: [0.0], r"1 results for 20 trials"),
        (lambda trials: [math.nan] * len(trials), r"result nan is not finite"),
    ):
        with pytest.raises(InputError, match=problem):
            SkillLifecycle().audit(bank("a"), CASES, play)
    for values in ({"smoothing": 0.0}, {"keep": math.nan}, {"every": 0}, {"failure_rate": 0}):
        with pytest.raises(InputError, match=rf"^skill_lifecycle\.{next(iter(values))} = "):
            SkillLifecycle(**values)


# ---- what is shown --------------------------------------------------------------------------------------------------


def test_skills_of_the_type_come_before_general_ones_and_older_ones_first():
    made = SkillBank(
        [Skill("g1", "x"), Skill("g2", "x"), Skill("d", "x", ("doors",)), Skill("k", "x", ("keys", "boxes"))]
    )
    life = SkillLifecycle(shown=2)

    def names(kind, **changes):
        return [skill.name for skill in life.retrieve(made, Case(0, kind, ""), **changes)]

    assert names("doors") == ["d", "g1"] and names("boxes") == ["k", "g1"] and names("other") == ["g1", "g2"]
    assert names("doors", without="d") == ["g1", "g2"]
    made.entry("g1").state = "archived"
    assert names("doors") == ["d", "g2"]


def test_tfidf_finds_skills_by_their_words_among_those_of_the_type():
    made = SkillBank(
        [
            Skill("boil", "boil water in the kettle"),
            Skill("lock", "a key opens the door"),
            Skill("lift", "the door of the lift opens itself", ("lifts",)),
        ]
    )
    life = SkillLifecycle(shown=3, retriever=TfidfMatch())

    def names(text, kind="rooms"):
        return [skill.name for skill in life.retrieve(made, Case(0, kind, text))]

    assert names("open the locked door with a key") == ["lock", "boil"]  # "the" is in both
    assert names("kettle") == ["boil"] and names("zebra") == []
    assert names("lift door", "lifts") == ["lift", "lock"] and names("lift door") == ["lock"]
    signs = SkillBank([Skill("!", "?")])
    assert life.retrieve(signs, Case(0, "rooms", "door")) == ()


def test_a_retriever_of_ones_own_is_a_part():
    class Longest(Retriever):
        def __call__(self, text, kind, skills, /):
            return [float(len(skill.text)) for skill in skills]

    made = SkillBank([Skill("short", "x"), Skill("long", "xxx")])
    found = SkillLifecycle(shown=1, retriever=Longest()).retrieve(made, CASES[0])
    assert [skill.name for skill in found] == ["long"]
    assert SkillLifecycle().retriever == TypeMatch()
