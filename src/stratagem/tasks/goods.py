"""What a shop sells, how it is found, and what a purchase is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import log
from random import Random
from typing import NamedTuple

CATEGORIES = ("jacket", "bag", "chair", "lamp", "blanket", "tent", "bottle", "desk")
DIMENSIONS = (
    ("wool", "cotton", "leather", "linen", "felt"),
    ("plain", "striped", "dotted", "checked", "floral"),
    ("foldable", "washable", "waterproof", "padded", "insulated"),
    ("modern", "classic", "rustic", "vintage", "minimal"),
    ("light", "sturdy", "soft", "slim", "wide"),
)
"""Attributes: every product has one of each line."""

OPTIONS: Mapping[str, tuple[str, ...]] = {
    "colour": ("red", "blue", "green", "black", "white"),
    "size": ("small", "medium", "large", "huge"),
}
"""What is chosen on a product's page, where it has some of these values."""

_SYLLABLES = ("nor", "va", "lin", "do", "ket", "ra", "mis", "to", "bel", "su")
_STEP = 10


class Product(NamedTuple):
    """Something for sale. ``name`` is what is clicked; ``options`` are kinds and the values there are of it."""

    name: str
    brand: str
    category: str
    attributes: tuple[str, ...]
    options: tuple[tuple[str, tuple[str, ...]], ...]
    price: int

    @property
    def title(self) -> str:
        """How it stands in a list."""
        return f"[{self.name}] {self.brand} {self.attributes[0]} {self.category}, {self.price} dollars"

    def described(self, chosen: Mapping[str, str]) -> str:
        """What its page says."""
        choices = " ".join(
            f"{kind}: {', '.join(f'[{value}]' for value in values)}" + (f" ({chosen[kind]})" if kind in chosen else "")
            for kind, values in self.options
        )
        return f"{self.title}: {', '.join(self.attributes)}. {choices}"


class Verdict(NamedTuple):
    """What a purchase meets: the category, how many attributes and options, the price; and how many conditions."""

    category: bool
    attributes: int
    options: int
    price: bool
    conditions: int

    @property
    def met(self) -> int:
        """Conditions that are met, beside the category."""
        return self.attributes + self.options + self.price

    @property
    def reward(self) -> float:
        """``type * met / conditions``."""
        return self.met / self.conditions if self.category else 0.0

    @property
    def full(self) -> bool:
        """Whether everything is as it was asked for."""
        return self.category and self.met == self.conditions


@dataclass(frozen=True)
class Shop:
    """Products, and what is asked for: a category, attributes, option values and a budget."""

    products: tuple[Product, ...]
    category: str
    attributes: tuple[str, ...]
    options: tuple[str, ...]
    budget: int

    @property
    def instruction(self) -> str:
        """What the policy is told."""
        attributes = _listed(self.attributes)
        return (
            f"Buy a {self.category} that is {attributes}, in {_listed(self.options)}, "
            f"for at most {self.budget} dollars."
        )

    def judge(self, product: Product, chosen: Sequence[str]) -> Verdict:
        """What buying this with these option values meets."""
        offered = {value for _, values in product.options for value in values}
        return Verdict(
            product.category == self.category,
            len(set(self.attributes) & set(product.attributes)),
            len(set(self.options) & set(chosen) & offered),
            product.price <= self.budget,
            len(self.attributes) + len(self.options) + 1,
        )

    def found(self, query: str) -> list[Product]:
        """Products with a word of the query, best first: ``sum log(1 + N / n)`` over words that ``n`` of ``N`` have."""
        scores = [0.0] * len(self.products)
        for word in sorted(set(query.lower().split())):
            holders = self._holders.get(word, ())
            for holder in holders:
                scores[holder] += log(1 + len(self.products) / len(holders))
        order = sorted(range(len(scores)), key=lambda at: (-scores[at], at))
        return [self.products[at] for at in order if scores[at]]

    @cached_property
    def _holders(self) -> dict[str, list[int]]:
        """Which products have a word."""
        holders: dict[str, list[int]] = {}
        for at, product in enumerate(self.products):
            values = [value for _, offered in product.options for value in offered]
            for word in {product.name, product.brand, product.category, *product.attributes, *values}:
                holders.setdefault(word, []).append(at)
        return holders


def random_shop(random: Random, items: int, attributes: int) -> Shop:
    """A shop with a product that is asked for, three that miss one condition each, and others, in a random order.

    The near misses have another attribute, lack the colour, and cost more than the budget. The budget is the wanted
    product's price, rounded up to tens.
    """
    wanted = _product(random)
    asked = tuple(random.sample(wanted.attributes, attributes))
    options = tuple(random.choice(values) for _, values in wanted.options)
    budget = -(-wanted.price // _STEP) * _STEP
    products = [wanted, *_near_misses(random, wanted, asked, options[0], budget)]
    products += [_product(random) for _ in range(items - len(products))]
    random.shuffle(products)
    named = tuple(product._replace(name=f"p{number}") for number, product in enumerate(products, start=1))
    return Shop(named, wanted.category, asked, options, budget)


def _near_misses(random: Random, wanted: Product, asked: Sequence[str], colour: str, budget: int) -> list[Product]:
    changed = random.choice(asked)
    others = [_other(random, value) if value == changed else value for value in wanted.attributes]
    kinds = dict(wanted.options)
    without = tuple(value for value in OPTIONS["colour"] if value != colour)
    kinds["colour"] = tuple(sorted(random.sample(without, len(kinds["colour"]))))
    return [
        wanted._replace(brand=_brand(random), attributes=tuple(others)),
        wanted._replace(brand=_brand(random), options=tuple(kinds.items())),
        wanted._replace(brand=_brand(random), price=budget + random.randint(1, 2 * _STEP)),
    ]


def _other(random: Random, value: str) -> str:
    (line,) = [line for line in DIMENSIONS if value in line]
    return random.choice([other for other in line if other != value])


def _product(random: Random) -> Product:
    return Product(
        "",
        _brand(random),
        random.choice(CATEGORIES),
        tuple(random.choice(line) for line in DIMENSIONS),
        tuple((kind, tuple(sorted(random.sample(values, 3)))) for kind, values in OPTIONS.items()),
        random.randint(10, 99),
    )


def _brand(random: Random) -> str:
    return "".join(random.choice(_SYLLABLES) for _ in range(3))


def _listed(words: Sequence[str]) -> str:
    """``a, b and c``."""
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last
