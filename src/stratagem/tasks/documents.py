"""The documents task: find the page, select it, look closely at a region of it, and answer with what stands there."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise, permutations, product
from random import Random
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from stratagem.errors import InputError
from stratagem.tasks.answers import normalised
from stratagem.tasks.evidence import Box, Matching, merged, ndcg, region_f1
from stratagem.tasks.options import configure, validate
from stratagem.tasks.splits import draw, seeded
from stratagem.tasks.task import Environment, Observation, Split, Step, Task, state_key

SIDE = 8
"""Cells of a page in a row and in a column."""

LISTED = 3
"""Pages that a search lists."""

_TAG = re.compile(r"<(?P<tag>search|select|bbox|answer)>(?P<content>.*?)</(?P=tag)>", re.DOTALL)
_NUMBER = re.compile(r"\d+")
_BOX = re.compile(r"\s*\[?\s*(-?\d{1,6}(?:\s*,\s*-?\d{1,6})*)\s*\]?\s*")
_USAGE = "error: write one of <search>, <select>, <bbox> and <answer>"
_WORDINGS = 100


class Entry(NamedTuple):
    """A key and its value, of two numbers each, in a block of 2 x 2 cells: the key above, the value below."""

    key: tuple[int, int]
    value: tuple[int, int]
    x: int
    y: int

    @property
    def box(self) -> Box:
        """The block's cells."""
        return self.x, self.y, self.x + 2, self.y + 2


class Page(NamedTuple):
    """A grid of numbers from 0 to 99 with entries in it. fine: it is only shown in part until it is cropped."""

    name: str
    grid: tuple[tuple[int, ...], ...]
    entries: tuple[Entry, ...]
    fine: bool

    def overview(self) -> str:
        """All of it, or the upper left number of every block where it is fine."""
        return _rows(self.crop((0, 0, SIDE, SIDE), 2 if self.fine else 1))

    def crop(self, box: Box, step: int = 1) -> tuple[tuple[int, ...], ...]:
        """The numbers inside a box, as far as it lies on the page."""
        left, top, right, bottom = (min(max(int(edge), 0), SIDE) for edge in box)
        return tuple(row[left:right:step] for row in self.grid[top:bottom:step])


class Request(NamedTuple):
    """Pages, what is asked for, each with the page that holds it, and the seed of the retriever's noise."""

    pages: tuple[Page, ...]
    wanted: tuple[tuple[str, Entry], ...]
    noise_seed: int

    @property
    def question(self) -> str:
        """What the policy is asked."""
        keys = " and ".join(f"{a} {b}" for _, (((a, b), *_)) in self.wanted)
        return f"What stands below {keys}?"

    @property
    def answer(self) -> str:
        """The values in the order of the question."""
        return " ".join(f"{a} {b}" for _, entry in self.wanted for a, b in [entry.value])

    @property
    def gold(self) -> frozenset[str]:
        """The pages that hold what is wanted."""
        return frozenset(name for name, _ in self.wanted)

    def page(self, name: str) -> Page | None:
        """The page of this name."""
        return next((page for page in self.pages if page.name == name), None)

    def boxes(self, page: Page) -> list[Box]:
        """The blocks of a page that have to be looked at closely; none where it can be read as it is shown."""
        return [entry.box for name, entry in self.wanted if name == page.name and page.fine]

    def listed(self, query: str, noise: float) -> list[str]:
        """What a search finds: pages by the share of the query's numbers among their keys, plus normal noise.

        The noise follows from page and query, so the same search finds the same.
        """
        asked = {int(number) for number in _NUMBER.findall(query) if len(number) <= 2}

        def score(page: Page) -> float:
            keys = {number for entry in page.entries for number in entry.key}
            share = len(asked & keys) / len(asked) if asked else 0.0
            return share + noise * seeded(self.noise_seed, page.name, normalised(query)).gauss(0, 1)

        return [page.name for page in sorted(self.pages, key=score, reverse=True)[:LISTED]]


@dataclass(frozen=True)
class DocumentsTask(Task):
    """Answer a question from pages of numbers, found, selected and looked at closely one after the other:

        > What stands below 41 7?
        <search>41 7</search>            <information>page 3, page 1, page 6</information>
        <select>page 3</select>          <information>page 3, every second row and column: ...</information>
        <bbox>[2,4,4,6]</bbox>           <information>41 7 / 88 13</information>
        <answer>88 13</answer>

    A page has 8 x 8 numbers. A key and its value fill a block of 2 x 2: the key above, the value below. Of a page in
    fine print, selecting shows the upper left number of every block; ``bbox`` shows the numbers inside
    ``[x1, y1, x2, y2]``, counted from 0, ``x2`` and ``y2`` not included. Other pages are shown whole. The retriever
    lists three pages, with ``noise``. The first tag of a turn is what it does, and an answer ends the episode; what
    cannot be read or done is told so and takes its turn. Keys of other entries share numbers with what is asked for.

    Rewards, those of arXiv 2604.14967 (its released code), each in [0, 1]:

    - ``answer``: what :meth:`judge` says of the answer; by default 1 for the values in their order.
    - ``format``: 1 after a search, a selection and an answer; 0.5 where only the answer is missing; else 0.
    - ``retrieval``: NDCG of what all searches found (:func:`~stratagem.tasks.evidence.merged`).
    - ``selection``: share of selections that took the first page with something wanted of the list shown last, or,
      where none of them has, the first page. A page that is not in it is a wrong selection.
    - ``region``: mean over selections of the F1 of boxes drawn before the next one
      (:func:`~stratagem.tasks.evidence.region_f1`); where nothing needs to be looked at, 1 without a box and 0 with.

    Without a search and a selection all are 0, and the answer counts only beside a format of 1, as success does: it is
    a right answer there. The return is ``0.6 answer`` and 0.1 of each other; ``reward=answer`` pays the answer alone,
    at 1. ``unjudged`` notes a judge that failed, whose answer then earns 0.

    ``pages``: 3 to 12.  ``wanted``: keys asked for, each on another page, 1 or 2.  ``entries``: of a page, 1 to 8.
    ``fine``: share of pages in fine print.  ``noise``: of the retriever, 0 to 2.  ``matching``: how boxes count.
    ``max_turns``: at least ``3 wanted + 1``, up to 64.  ``max_new_tokens``: of a turn, 1 to 100,000.

    Raises :class:`InputError` for an option out of range. For another judge, override :meth:`judge`.
    """

    pages: Annotated[int, Field(ge=3, le=12)] = 6
    wanted: Annotated[int, Field(ge=1, le=2)] = 1
    entries: Annotated[int, Field(ge=1, le=8)] = 3
    fine: Annotated[float, Field(ge=0, le=1)] = 0.75
    noise: Annotated[float, Field(ge=0, le=2)] = 0.3
    reward: Literal["dense", "answer"] = "dense"
    matching: Matching = "clipped"
    max_turns: Annotated[int, Field(ge=4, le=64)] = 10
    max_new_tokens: Annotated[int, Field(ge=1, le=100_000)] = 32

    name = "documents"
    description = "find the page, look closely at a region of it, and answer with what stands there"
    stop = ("</search>", "</select>", "</bbox>", "</answer>")
    system = (
        "Find pages with `<search>41 7</search>`, open one with `<select>page 3</select>`, look closely at cells of it "
        "with `<bbox>[x1,y1,x2,y2]</bbox>`, and answer with `<answer>88 13</answer>`."
    )
    reward_names = ("answer", "format", "retrieval", "selection", "region", "unjudged")

    def __post_init__(self) -> None:
        validate(self)
        if self.max_turns < 3 * self.wanted + 1:
            raise InputError(
                f"task {self.name!r}: max_turns={self.max_turns} is not allowed; "
                f"it must be at least {3 * self.wanted + 1}"
            )

    @property
    def reward_weights(self) -> tuple[float, ...]:  # type: ignore[override]  # They depend on the options.
        """What each reward counts."""
        return (0.6, 0.1, 0.1, 0.1, 0.1, 0.0) if self.reward == "dense" else (1.0, *[0.0] * 5)

    def judge(self, answer: str, request: Request) -> float:
        """How right an answer is, in [0, 1]. What it raises, or says beyond that, counts as 0 and is noted."""
        return float(normalised(answer) == normalised(request.answer))

    def environment(self, split: Split, index: int) -> DocumentsEnvironment:
        return DocumentsEnvironment(self.request(split, index), self)

    def solution(self, split: Split, index: int) -> Iterator[str]:
        """For every key a search that lists its page, the page, and the block if it is in fine print; the answer."""
        request = self.request(split, index)
        for name, entry in request.wanted:
            yield f"<search>{_found_by(request, name, entry, self.noise)}</search>"
            yield f"<select>{name}</select>"
            page = request.page(name)
            if page is not None and page.fine:
                yield f"<bbox>{list(entry.box)}</bbox>"
        yield f"<answer>{request.answer}</answer>"

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        """By number, in turn: another number, the answer without looking, and everything but the answer."""
        *before, answer = self.solution(split, index)
        right = self.request(split, index).answer
        last = (int(right.split()[-1]) + 1) % 100
        match index % 3:
            case 0:
                yield from before
                yield f"<answer>{' '.join([*right.split()[:-1], str(last)])}</answer>"
            case 1:
                yield answer
            case _:
                yield from before

    def answer(self, text: str) -> str | None:
        """What the ``answer`` tag holds."""
        used = _used(text)
        return normalised(used[1]) or None if used is not None and used[0] == "answer" else None

    def request(self, split: Split, index: int) -> Request:
        """The pages and the question of this episode."""
        return draw(
            split,
            index,
            (self.name, self.pages, self.wanted, self.entries, self.fine),
            lambda random: _request(random, self.pages, self.wanted, self.entries, self.fine),
            lambda request: state_key(self.name, request.pages, request.wanted),
        )


class DocumentsEnvironment(Environment):
    """One question. A state is its pages and all that was found, selected and looked at."""

    def __init__(self, request: Request, task: DocumentsTask) -> None:
        self.request = request
        self.task = task
        self.reset()

    def reset(self) -> Observation:
        self._turn = 0
        self._searches: list[list[str]] = []
        self._selected: list[tuple[Page | None, list[Box]]] = []
        self._hits: list[bool] = []
        return self._observe(self.request.question)

    def step(self, action: str) -> Step:
        self._turn += 1
        tag, content = _used(action) or ("", "")
        if tag == "answer":
            return self._end("the end", content)
        match tag:
            case "search":
                told = self._search(content)
            case "select":
                told = self._select(normalised(content))
            case "bbox":
                told = self._look(content)
            case _:
                told = _USAGE
        told = f"<information>{told}</information>"
        return self._end(told, None) if self._turn >= self.task.max_turns else Step(self._observe(told))

    def _search(self, query: str) -> str:
        self._searches.append(self.request.listed(query, self.task.noise))
        return ", ".join(self._searches[-1])

    def _select(self, name: str) -> str:
        shown = self._searches[-1] if self._searches else []
        first = next((page for page in shown if page in self.request.gold), shown[0] if shown else None)
        page = self.request.page(name) if name in shown else None
        self._hits.append(page is not None and name == first)
        self._selected.append((page, []))
        if page is None:
            return f"error: select one of {', '.join(shown)}" if shown else "error: search first"
        return f"{name}{', every second row and column' if page.fine else ''}: {page.overview()}"

    def _look(self, content: str) -> str:
        if not self._selected or self._selected[-1][0] is None:
            return "error: select a page first"
        page, boxes = self._selected[-1]
        box = _box(content)
        boxes.append(box)
        seen = page.crop(box) if page is not None and len(box) == 4 else ()
        return _rows(seen) if seen and seen[0] else "error: write [x1,y1,x2,y2] with x1 < x2 and y1 < y2"

    def _end(self, told: str, answer: str | None) -> Step:
        rewards = dict.fromkeys(self.task.reward_names, 0.0)
        if self._searches and self._selected:
            rewards |= {
                "format": 0.5 if answer is None else 1.0,
                "retrieval": ndcg(merged(self._searches, LISTED), self.request.gold),
                "selection": sum(self._hits) / len(self._hits),
                "region": sum(self._region(*one) for one in self._selected) / len(self._selected),
            }
            if answer is not None:
                rewards["answer"], rewards["unjudged"] = self._judged(answer)
        right = rewards.pop("answer")
        cut = answer is None
        return Step(self._observe(told), right, True, truncated=cut, success=right == 1, components=rewards)

    def _region(self, page: Page | None, boxes: list[Box]) -> float:
        return 0.0 if page is None else region_f1(boxes, self.request.boxes(page), self.task.matching)

    def _judged(self, answer: str) -> tuple[float, float]:
        """How right the answer is, and whether nobody could say."""
        try:
            score = float(self.task.judge(answer, self.request))
        except Exception:  # Whatever a judge may raise: one that fails must not end the run.
            score = math.nan
        return (score, 0.0) if 0 <= score <= 1 else (0.0, 1.0)

    def _observe(self, text: str) -> Observation:
        selected = [(page and page.name, boxes) for page, boxes in self._selected]
        return Observation(text, state_key("documents", self.request, self._searches, selected, text))


def from_spec(argument: str | None, options: Mapping[str, str]) -> DocumentsTask:
    """``documents[:pages=6,wanted=1,entries=3,fine=0.75,noise=0.3,reward=dense,matching=clipped,max_turns=10]``."""
    return configure(DocumentsTask, argument, options)


def _used(action: str) -> tuple[str, str] | None:
    """Tag and content of the first tag that does something."""
    found = _TAG.search(action)
    return None if found is None else (found["tag"], found["content"])


def _box(content: str) -> Box:
    """The numbers of a box; none where it cannot be read."""
    found = _BOX.fullmatch(content)
    return tuple(int(number) for number in found[1].split(",")) if found else ()


def _rows(rows: tuple[tuple[int, ...], ...]) -> str:
    return " / ".join(" ".join(map(str, row)) for row in rows)


def _found_by(request: Request, name: str, entry: Entry, noise: float) -> str:
    """A query that lists the page: the key, again and again until the noise lets it through."""
    key = f"{entry.key[0]} {entry.key[1]}"
    queries = (" ".join([key, *["please"] * polite]) for polite in range(_WORDINGS))
    return next((query for query in queries if name in request.listed(query, noise)), key)


# ---- pages ----------------------------------------------------------------------------------------------------------


def _request(random: Random, pages: int, wanted: int, entries: int, fine: float) -> Request | None:
    """Pages with entries of which some are asked for, or None where chance has put a wanted key elsewhere, too.

    Keys are pairs of a few numbers, each pair once, so pages share numbers but no key.
    """
    count = pages * entries
    numbers = random.sample(range(100), max(8, math.isqrt(count) + 2))
    keys = random.sample(list(permutations(numbers, 2)), count)
    made = tuple(
        _page(random, f"page {number + 1}", keys[number * entries : (number + 1) * entries], random.random() < fine)
        for number in range(pages)
    )
    asked = tuple((page.name, random.choice(page.entries)) for page in random.sample(made, wanted))
    side_by_side = [pair for page in made for row in page.grid for pair in pairwise(row)]
    if any(side_by_side.count(entry.key) > 1 for _, entry in asked):
        return None
    return Request(made, asked, random.getrandbits(48))


def _page(random: Random, name: str, keys: list[tuple[int, int]], fine: bool) -> Page:
    """A page with an entry for each of these keys, in blocks that do not overlap; all other cells hold any number."""
    grid = [[random.randrange(100) for _ in range(SIDE)] for _ in range(SIDE)]
    blocks = random.sample(list(product(range(0, SIDE, 2), repeat=2)), len(keys))
    planted = []
    for key, (x, y) in zip(keys, blocks, strict=True):
        entry = Entry(key, (random.randrange(100), random.randrange(100)), x, y)
        grid[y][x : x + 2], grid[y + 1][x : x + 2] = entry.key, entry.value
        planted.append(entry)
    return Page(name, tuple(map(tuple, grid)), tuple(planted), fine)
