"""The catalogue: which technique is which paper, what it changes, and where its recipe is."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import import_module
from typing import Any, TypeVar

from stratagem.errors import InputError, unknown
from stratagem.part import import_entry_points
from stratagem.recipe import Recipe
from stratagem.slots import recipe_tags, role_tags
from stratagem.taxonomy import TAGS, check_tags, covers, in_order

FAMILIES = (
    "baselines",
    "objectives",
    "reasoning",
    "rewards",
    "agents",
    "preferences",
    "games",
    "bandits",
    "planning",
    "benchmarks",
    "control",
    "robust",
)

_Built = TypeVar("_Built", bound=Callable[..., Any])


@dataclass(frozen=True)
class Card:
    """What a technique is. ``build`` makes its recipe (or solver) from keyword arguments with published defaults.

    name: catalogue name.  title: the paper's full title.  family: one of ``FAMILIES``.  roles: the parts it changes.
    arxiv: identifier or None.  year: of publication.  base: recipe it is shown as a difference from.
    declared: tags that do not follow from its recipe.
    """

    name: str
    title: str
    family: str
    roles: tuple[str, ...]
    arxiv: str | None
    year: int
    base: str | None
    build: Callable[..., Any]
    declared: tuple[str, ...] = ()

    @cached_property
    def tags(self) -> tuple[str, ...]:
        """What it is in the taxonomy (:mod:`stratagem.taxonomy`): what was declared and what follows from its recipe.

        Of a technique that is no recipe and declares nothing, the slots of what it changes.
        """
        if inspect.isclass(self.build):
            return in_order(self.declared or role_tags(self.roles))
        built = self.build()
        derived = recipe_tags(built) if isinstance(built, Recipe) else role_tags(self.roles)
        return in_order((*self.declared, *derived))

    @property
    def summary(self) -> str:
        """First paragraph of the technique's docstring."""
        return (inspect.getdoc(self.build) or "").split("\n\n")[0].replace("\n", " ")

    def recipe(self, **arguments: Any) -> Recipe:
        """Its recipe. Raises :class:`InputError` for a wrong argument, or when the technique is not a recipe."""
        if inspect.isclass(self.build):
            raise InputError(f"{self.name} is not a recipe but of type {self.build.__name__}")
        known = inspect.signature(self.build).parameters
        for name in arguments:
            if name not in known:
                raise unknown(f"argument of {self.name}", name, known)
        built = self.build(**arguments)
        if not isinstance(built, Recipe):
            raise InputError(f"{self.name} is not a recipe but of type {type(built).__name__}")
        return built


_CARDS: dict[str, Card] = {}

_TECHNIQUES = (
    "stratagem.recipes",
    "stratagem.merging",
    "stratagem.memory",
    "stratagem.economy",
    "stratagem.blueprint",
    "stratagem.skills",
    "stratagem.synthesis",
    "stratagem.planning",
    "stratagem.games",
    "stratagem.bandits",
    "stratagem.multiagent.collapse",
    "stratagem.multiagent.governance",
    "stratagem.allocation",
    "stratagem.preferences.learned",
    "stratagem.study.alignment",
    "stratagem.study.roadmap",
    "stratagem.lab.cliff",
)
"""Modules that enter techniques into the catalogue."""


def paper(
    arxiv: str | None,
    *,
    title: str,
    family: str,
    roles: tuple[str, ...],
    year: int,
    base: str | None = None,
    name: str | None = None,
    tags: tuple[str, ...] = (),
) -> Callable[[_Built], _Built]:
    """Enter a recipe function, or the class of a technique that is no recipe, into the catalogue.

    name: by which it is called; by default the function's or class's own.  tags: what it is in the taxonomy
    (:mod:`stratagem.taxonomy`), where that does not follow from the composition of its recipe.

    Raises :class:`InputError` for a family or a tag there is not, and for a name that is taken.
    """
    if family not in FAMILIES:
        raise unknown("family", family, FAMILIES)
    check_tags(tags)

    def enter(build: _Built) -> _Built:
        called = build.__name__ if name is None else name
        earlier = _CARDS.get(called)
        if earlier is not None and earlier.build.__module__ != build.__module__:
            raise InputError(f"technique {called!r} is already in the catalogue, from {earlier.build.__module__}")
        _CARDS[called] = Card(called, title, family, roles, arxiv, year, base, build, tags)
        return build

    return enter


def cards(
    family: str | Collection[str] = (), role: str | Collection[str] = (), slot: str | Collection[str] = ()
) -> list[Card]:
    """All techniques, baselines first, then by family and name. Raises :class:`InputError` for an unknown filter.

    Each filter is one name or several, of which one has to fit; of two filters both have to.

    slot: a tag of the taxonomy or the beginning of one: ``search``, ``search.structure``, ``search.structure.beam``.
    """
    _load()
    families = _filter("family", family, FAMILIES)
    roles = _filter("role", role, {r for card in _CARDS.values() for r in card.roles})
    slots = _filter("slot", slot, TAGS)
    found = [
        card
        for card in _CARDS.values()
        if (not families or card.family in families)
        and (not roles or any(one in card.roles for one in roles))
        and (not slots or any(covers(one, card.tags) for one in slots))
    ]
    return sorted(found, key=lambda card: (FAMILIES.index(card.family), card.name))


def _filter(what: str, asked: str | Collection[str], known: Collection[str]) -> tuple[str, ...]:
    """The names that were asked for, all of which there are."""
    names = (asked,) if isinstance(asked, str) else tuple(asked)
    for name in names:
        if name not in known:
            raise unknown(what, name, known)
    return names


def card(name: str) -> Card:
    """The card of a technique. Raises :class:`InputError` naming the nearest one."""
    _load()
    if name not in _CARDS:
        raise unknown("recipe", name, _CARDS)
    return _CARDS[name]


def recipe(name: str) -> Recipe:
    """The recipe of a technique with its defaults, or of a YAML file. Raises :class:`InputError` for neither."""
    return Recipe.load(name) if name.endswith((".yaml", ".yml")) else card(name).recipe()


@cache
def _load() -> None:
    """Import our techniques and everything installed under the entry-point group ``stratagem.recipes``."""
    for module in _TECHNIQUES:
        import_module(module)
    import_entry_points("stratagem.recipes")
