"""The shop task: search a catalogue, choose options, and buy what an instruction asks for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Annotated

from pydantic import Field

from stratagem.tasks.answers import normalised
from stratagem.tasks.goods import DIMENSIONS, Product, Shop, random_shop
from stratagem.tasks.options import configure, validate
from stratagem.tasks.splits import draw
from stratagem.tasks.task import Environment, Observation, Split, Step, Task, state_key

_ACTION = re.compile(r"(?P<verb>search|click)\s*\[(?P<content>[^\[\]]*)\]", re.IGNORECASE)


@dataclass(frozen=True)
class ShopTask(Task):
    """Buy what the instruction asks for:

        > Buy a jacket that is wool, striped and washable, in red and small, for at most 40 dollars.
        search[wool striped washable jacket]  Page 1 of 3: [p7] Norva wool jacket, 36 dollars; ...
        click[p7]                             [p7] Norva wool jacket, 36 dollars: wool, striped, ... colour: ...
        click[red]                            (the page again, with red chosen)
        click[buy]                            the end

    ``search[words]`` lists products with the best first: each word of the query that stands in a product's text counts
    the more, the fewer products have it; products without any are not listed. ``click[next]`` and ``click[previous]``
    turn the pages of the list, a product's name (``p7``) opens its page, an option value on it is chosen (the last one
    of a kind counts), ``click[back]`` leads back to the list or the empty search, and ``click[buy]`` on a product's
    page ends the episode. The first action of a turn is what it does. A turn without one, and an action that the page
    does not have, are told so, change nothing, take their turn and are counted in ``invalid``.

    The reward is that of WebShop (arXiv 2207.01206, Section 3):

        r = type * (|A & a| + |O & o| + [price <= budget]) / (|A| + |O| + 1)

    with the attributes ``A`` and options ``O`` of the instruction, the attributes ``a`` of what was bought and the
    options ``o`` that were chosen. ``type`` is 1 for a product of the category and 0 for others; the paper's has grades
    between, by how the words of the titles agree, which say little of products whose names are made up. Success is a
    reward of 1, and at least one product earns it. Nothing bought earns nothing. ``category``, ``attributes``,
    ``options`` (shares that are met) and ``price`` are noted for what was bought and count nothing in the return.

    ``items``: products, 4 to 1,000.  ``attributes``: of the instruction, 1 to 5.  ``page``: products on a page of a
    list, 1 to 50.  ``max_turns``: 6 to 100.  ``max_new_tokens``: of a turn, 1 to 100,000.

    Raises :class:`InputError` for an option out of range.
    """

    items: Annotated[int, Field(ge=4, le=1_000)] = 30
    attributes: Annotated[int, Field(ge=1, le=len(DIMENSIONS))] = 3
    page: Annotated[int, Field(ge=1, le=50)] = 5
    max_turns: Annotated[int, Field(ge=6, le=100)] = 12
    max_new_tokens: Annotated[int, Field(ge=1, le=100_000)] = 32

    name = "shop"
    description = "search a catalogue, choose options, and buy what is asked for within a budget"
    system = (
        "Buy what is asked for. Write one action: `search[words]`, or `click[...]` with a product, an option, next, "
        "previous, back or buy."
    )
    reward_names = ("reward", "category", "attributes", "options", "price", "invalid")
    reward_weights = (1.0, *[0.0] * 5)

    def __post_init__(self) -> None:
        validate(self)

    def environment(self, split: Split, index: int) -> ShopEnvironment:
        return ShopEnvironment(self.shop(split, index), self.page, self.max_turns)

    def solution(self, split: Split, index: int) -> Iterator[str]:
        """A search for all that is wanted, the pages up to the product, its options, and buying."""
        yield from _purchase(self.shop(split, index), self.page)

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        """By number, in turn: without the options, without buying, and a product that almost fits."""
        shop = self.shop(split, index)
        bought = _purchase(shop, self.page)
        match index % 3:
            case 0:
                yield from [*bought[: -len(shop.options) - 1], bought[-1]]
            case 1:
                yield from bought[:-1]
            case _:
                wrong = next(product for product in shop.products if not shop.judge(product, shop.options).full)
                yield f"search[{wrong.category} {wrong.brand}]"
                yield f"click[{wrong.name}]"
                yield from bought[-len(shop.options) - 1 :]

    def subgoals(self, split: Split, index: int, actions: Sequence[str]) -> list[str]:
        """Find it, look at it, choose its options, buy it."""
        names = {product.name for product in self.shop(split, index).products}
        return [_purpose(action, names) for action in actions]

    def answer(self, text: str) -> str | None:
        """Nothing: what is bought depends on the page, so that groups cannot vote by the last action."""
        return None

    def shop(self, split: Split, index: int) -> Shop:
        """The catalogue and the instruction of this episode."""
        return _drawn(self, split, index)


class ShopEnvironment(Environment):
    """One purchase. A state is the shop, the query, the page of the list or product, and the options chosen."""

    def __init__(self, shop: Shop, page: int = 5, max_turns: int = 12) -> None:
        self.shop = shop
        self.page = page
        self.max_turns = max_turns
        self._shop_key = state_key(shop)
        self.reset()

    def reset(self) -> Observation:
        self._turn = 0
        self._query: str | None = None
        self._list: list[Product] = []
        self._leaf = 0
        self._product: Product | None = None
        self._chosen: dict[str, str] = {}
        return self._observe(f"{self.shop.instruction} {self._around()}")

    def step(self, action: str) -> Step:
        self._turn += 1
        used = _ACTION.search(action)
        verb, content = ("", "") if used is None else (used["verb"].lower(), normalised(used["content"]))
        if verb == "click" and content == "buy" and self._product is not None:
            return self._bought(self._product)
        if verb == "search" and content:
            self._query, self._list, self._leaf, self._product = content, self.shop.found(content), 0, None
            fault = ""
        elif verb == "click":
            fault = "" if self._click(content) else "error: there is no such thing to click here. "
        else:
            fault = "error: write search[words] or click[what]. "
        cut = self._turn >= self.max_turns
        noted = {"invalid": 1.0} if fault else {}
        return Step(
            self._observe(f"{fault}{self._around()}"),
            done=cut,
            truncated=cut,
            components=noted,
            executed=not fault,
            well_formed=used is not None,
        )

    def _click(self, content: str) -> bool:
        """Follow a link; whether the page has it."""
        if self._product is not None:
            return self._click_on_product(self._product, content)
        shown = {product.name: product for product in self._shown()}
        if content in shown:
            self._product, self._chosen = shown[content], {}
        elif content == "next" and (self._leaf + 1) * self.page < len(self._list):
            self._leaf += 1
        elif content == "previous" and self._leaf:
            self._leaf -= 1
        elif content == "back" and self._query is not None:
            self._query, self._list, self._leaf = None, [], 0
        else:
            return False
        return True

    def _click_on_product(self, product: Product, content: str) -> bool:
        if content == "back":
            self._product = None
            return True
        for kind, values in product.options:
            if content in values:
                self._chosen[kind] = content
                return True
        return False

    def _bought(self, product: Product) -> Step:
        verdict = self.shop.judge(product, tuple(self._chosen.values()))
        noted = {
            "category": float(verdict.category),
            "attributes": verdict.attributes / len(self.shop.attributes),
            "options": verdict.options / len(self.shop.options),
            "price": float(verdict.price),
        }
        return Step(self._observe("the end"), verdict.reward, done=True, success=verdict.full, components=noted)

    def _shown(self) -> list[Product]:
        return self._list[self._leaf * self.page : (self._leaf + 1) * self.page]

    def _around(self) -> str:
        if self._product is not None:
            return f"{self._product.described(self._chosen)} [back] [buy]"
        if self._query is None:
            return "You can search."
        if not self._list:
            return "Nothing found. [back]"
        pages = -(-len(self._list) // self.page)
        lines = "; ".join(product.title for product in self._shown())
        turns = " [previous]" * (self._leaf > 0) + " [next]" * (self._leaf + 1 < pages)
        return f"Page {self._leaf + 1} of {pages}: {lines}. [back]{turns}"

    def _observe(self, text: str) -> Observation:
        name = self._product and self._product.name
        state = (self._query, self._leaf, name, sorted(self._chosen.items()) if name else [], text == "the end")
        return Observation(text, state_key(self._shop_key, *state))


def from_spec(argument: str | None, options: Mapping[str, str]) -> ShopTask:
    """``shop[:items=30,attributes=3,page=5,max_turns=12,max_new_tokens=32]``."""
    return configure(ShopTask, argument, options)


@lru_cache(maxsize=256)
def _drawn(task: ShopTask, split: Split, index: int) -> Shop:
    def solvable(random: Random) -> Shop | None:
        shop = random_shop(random, task.items, task.attributes)
        return shop if len(_purchase(shop, task.page)) <= task.max_turns else None

    stream = (task.name, task.items, task.attributes, task.page, task.max_turns)
    return draw(split, index, stream, solvable, lambda shop: state_key(task.name, shop))


def _purchase(shop: Shop, page: int) -> list[str]:
    """How the first product that is found and fits is bought."""
    query = f"{' '.join(shop.attributes)} {shop.category}"
    found = shop.found(query)
    place = next(at for at, product in enumerate(found) if shop.judge(product, shop.options).full)
    choices = [f"click[{value}]" for value in shop.options]
    return [
        f"search[{query}]",
        *["click[next]"] * (place // page),
        f"click[{found[place].name}]",
        *choices,
        "click[buy]",
    ]


def _purpose(action: str, products: set[str]) -> str:
    used = _ACTION.search(action)
    content = normalised(used["content"]) if used else ""
    if used is None or used["verb"].lower() == "search" or content in ("next", "previous", "back"):
        return "find it"
    if content in products:
        return "look at it"
    return "buy it" if content == "buy" else "choose its options"
