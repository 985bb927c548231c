"""The catalogue of techniques."""

from __future__ import annotations

import pytest

from stratagem import catalogue, part
from stratagem.catalogue import FAMILIES, card, cards, paper
from stratagem.errors import InputError
from stratagem.recipe import Recipe

BASELINES = {
    "cispo", "dapo", "decoupled_ppo", "dr_grpo", "grpo", "gspo", "ppo", "reinforce", "reinforce_pp",
    "reinforce_pp_baseline", "rejection_sft", "rloo", "sft",
}  # fmt: skip


@pytest.fixture
def empty_catalogue(monkeypatch):
    monkeypatch.setattr(catalogue, "_CARDS", {})
    monkeypatch.setattr(part, "entry_points", lambda group: [])
    catalogue._load.cache_clear()
    yield
    catalogue._load.cache_clear()


def test_every_baseline_has_a_card():
    assert {entry.name for entry in cards("baselines")} >= BASELINES
    assert card("grpo").arxiv == "2402.03300"
    assert card("grpo").base == "ppo"


def test_cards_are_ordered_by_family_and_name():
    places = [(FAMILIES.index(entry.family), entry.name) for entry in cards()]
    assert places == sorted(places)


def test_cards_can_be_filtered_by_family_and_role():
    assert {"grpo", "rloo"} <= {entry.name for entry in cards(role="advantage")}
    assert all("gate" in entry.roles for entry in cards("baselines", "gate"))
    two = {entry.name for entry in cards(role=["gate", "advantage"])}
    assert two == {entry.name for role in ("gate", "advantage") for entry in cards(role=role)}


def test_unknown_names_give_the_nearest_in_one_line():
    for ask, expected in (
        (lambda: card("gropo"), r"unknown recipe 'gropo'; did you mean 'grpo'\?"),
        (lambda: cards(family="baseline"), r"unknown family 'baseline'; did you mean 'baselines'\?"),
        (lambda: cards(role="advantages"), r"unknown role 'advantages'; did you mean 'advantage'\?"),
    ):
        with pytest.raises(InputError, match=f"^{expected}$"):
            ask()


def test_a_wrong_argument_of_a_technique_gives_the_nearest():
    with pytest.raises(InputError, match=r"^unknown argument of grpo 'clipp'; did you mean 'clip'\?$"):
        card("grpo").recipe(clipp=0.1)
    with pytest.raises(InputError, match=r"clip\.low = -1"):
        card("grpo").recipe(clip=-1)
    assert card("grpo").recipe(group_size=4).sampler.group_size == 4


def test_the_base_of_every_recipe_is_in_the_catalogue():
    for entry in cards():
        assert entry.base is None or card(entry.base)


def test_the_summary_is_the_first_paragraph_in_one_line():
    assert card("grpo").summary == (
        "Group-standardised rewards instead of a critic; mean over trajectories of token means."
    )


@pytest.mark.usefixtures("empty_catalogue")
def test_a_technique_that_is_no_recipe_says_so():
    @paper("1234.56789", title="A solver", family="games", roles=("solver",), year=2026)
    class Solver:
        """Solves."""

    with pytest.raises(InputError, match=r"^Solver is not a recipe but of type Solver$"):
        card("Solver").recipe()


@pytest.mark.usefixtures("empty_catalogue")
def test_a_recipe_of_another_package_enters_the_catalogue(monkeypatch):
    class Entry:
        def load(self) -> None:
            @paper("1234.56789", title="Elsewhere", family="agents", roles=("advantage",), year=2026, base="grpo")
            def elsewhere() -> Recipe:
                """GRPO from elsewhere."""
                from stratagem.recipes import grpo

                return grpo().replace(name="elsewhere", base="grpo")

    monkeypatch.setattr(part, "entry_points", lambda group: [Entry()] if group == "stratagem.recipes" else [])
    assert card("elsewhere").recipe().name == "elsewhere"
    assert [entry.name for entry in cards("agents")] == ["elsewhere"]


@pytest.mark.usefixtures("empty_catalogue")
def test_a_name_is_given_once_and_a_family_must_exist():
    def grpo() -> None: ...

    enter = paper(None, title="", family="agents", roles=(), year=2026)
    enter(grpo)
    enter(grpo)
    grpo.__module__ = "somewhere.else"
    grpo_elsewhere = type("grpo", (), {"__module__": "a.third.place"})
    with pytest.raises(InputError, match="technique 'grpo' is already in the catalogue"):
        enter(grpo_elsewhere)
    with pytest.raises(InputError, match=r"unknown family 'agent'; did you mean 'agents'"):
        paper(None, title="", family="agent", roles=(), year=2026)
