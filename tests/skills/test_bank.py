"""The bank of skills and the file it is kept in."""

from __future__ import annotations

import json

import pytest

from stratagem.errors import InputError
from stratagem.skills import Case, Skill, SkillBank, SkillLifecycle


@pytest.fixture
def lived():
    """A bank with something in every field."""
    bank = SkillBank([Skill("a", "look"), Skill("b", "run", ("doors", "keys"))])
    life = SkillLifecycle(patience=1, exposure=1)
    life.note(bank, "doors", False, [bank.entry("b").skill], "it failed")
    life.note(bank, "doors", True)
    cases = [Case(number, "doors", "") for number in range(9)]
    life.audit(bank, cases, lambda trials: [0.5 + 0.2 * (t.shown[0].name == "b") * (t.case.number % 2) for t in trials])
    return bank


def test_a_bank_comes_back_from_its_file_as_it_was(lived, tmp_path):
    back = SkillBank.load(lived.save(tmp_path / "skills.json"))
    assert back.entries == lived.entries and back.attempts == lived.attempts and back.audits == 1
    assert back.entry("b").exposure == 1 and back.entry("b").spread > 0
    assert back.attempts["doors"].failed == ["it failed"] and back.attempts["doors"].outcomes == [False, True]


def test_a_list_of_skills_is_a_bank(tmp_path):
    file = tmp_path / "mine.json"
    file.write_text(json.dumps([{"name": "a", "text": "look"}, {"name": "b", "text": "run", "types": ["doors"]}]))
    assert [entry.skill for entry in SkillBank.load(file).active] == [Skill("a", "look"), Skill("b", "run", ("doors",))]


@pytest.mark.parametrize(
    "text, problem",
    [
        ("{", r"cannot be read \(JSONDecodeError\)"),
        ('[{"name": "a"}]', r"a skill has a name, a text, and types"),
        ('{"version": 7}', r"not of version 1"),
        ('{"version": 1, "audits": 0, "attempts": {}}', r"damaged \(KeyError"),
        ('{"version": 1, "audits": 0, "attempts": {}, "entries": [{"skill": {"name": "a", "text": "x"}, "state": 1}]}',
         r"damaged \(ValueError"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_bank_is_refused(tmp_path, text, problem):
    file = tmp_path / "skills.json"
    file.write_text(text)
    with pytest.raises(InputError, match=problem):
        SkillBank.load(file)


def test_names_are_given_once_and_unknown_ones_get_the_nearest():
    bank = SkillBank([Skill("look", "x")])
    with pytest.raises(InputError, match=r"^skill 'look': is in the bank already"):
        bank.add(Skill("look", "y"))
    with pytest.raises(InputError, match=r"did you mean 'look'\?"):
        bank.entry("lok")
    for name, text in (("", "x"), ("a", " ")):
        with pytest.raises(InputError, match=r"must be text and not empty"):
            Skill(name, text)
    with pytest.raises(InputError, match=r"must be a tuple of names"):
        Skill("a", "x", "doors")
