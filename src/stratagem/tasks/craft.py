"""The crafting task: materials to gather, thirty recipes, and an item to make."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Annotated, NamedTuple

from pydantic import Field

from stratagem.tasks.options import configure, validate
from stratagem.tasks.splits import draw
from stratagem.tasks.task import Environment, Observation, Split, Step, Task, state_key

TOOL_OF_MATERIAL = {
    "wood": None, "stone": None, "clay": None, "sand": None, "coal": None, "fiber": None, "water": None,
    "iron": "pickaxe",
}  # fmt: skip
"""What can be gathered, and what one must have for it."""


class Recipe(NamedTuple):
    """What an item is made of, which is used up, and what one must have besides, which is not."""

    parts: tuple[str, ...]
    tool: str | None = None

    def __str__(self) -> str:
        return " + ".join(self.parts) + (f" with {self.tool}" if self.tool else "")


RECIPES = {
    "plank": Recipe(("wood",)),
    "stick": Recipe(("plank",)),
    "rope": Recipe(("fiber", "fiber")),
    "cloth": Recipe(("rope", "fiber")),
    "hammer": Recipe(("stick", "stone")),
    "axe": Recipe(("stick", "stone", "rope")),
    "pickaxe": Recipe(("stick", "stone", "stone")),
    "torch": Recipe(("stick", "coal")),
    "brick": Recipe(("clay", "coal")),
    "furnace": Recipe(("brick", "brick", "stone")),
    "glass": Recipe(("sand", "coal"), "furnace"),
    "bottle": Recipe(("glass",), "furnace"),
    "pot": Recipe(("clay", "water")),
    "lantern": Recipe(("torch", "glass")),
    "ingot": Recipe(("iron", "coal"), "furnace"),
    "nail": Recipe(("ingot",), "hammer"),
    "knife": Recipe(("ingot", "stick")),
    "bucket": Recipe(("ingot", "rope")),
    "box": Recipe(("plank", "nail")),
    "table": Recipe(("plank", "plank", "stick"), "axe"),
    "chair": Recipe(("plank", "stick"), "axe"),
    "door": Recipe(("plank", "plank"), "axe"),
    "bed": Recipe(("plank", "cloth")),
    "bag": Recipe(("cloth", "rope")),
    "sail": Recipe(("cloth", "stick")),
    "boat": Recipe(("plank", "plank", "rope")),
    "ship": Recipe(("boat", "sail")),
    "bow": Recipe(("stick", "rope")),
    "arrow": Recipe(("stick", "stone"), "axe"),
    "ladder": Recipe(("stick", "stick", "rope")),
}
"""The thirty items that can be made."""

ACTIONS = (*(f"gather {material}" for material in TOOL_OF_MATERIAL), *(f"make {item}" for item in RECIPES))
"""Every action there is."""

HELP = "; ".join(f"{item} = {recipe}" for item, recipe in RECIPES.items())


class Start(NamedTuple):
    """What one has at the beginning, as sorted (item, number), and what is to be made: None for nothing."""

    have: tuple[tuple[str, int], ...]
    goal: str | None


def carried_out(action: str, have: Counter[str]) -> tuple[str, bool]:
    """Carry an action out in ``have``; what is told, and whether anything changed."""
    verb, _, item = " ".join(action.lower().split()).partition(" ")
    if verb == "gather" and item in TOOL_OF_MATERIAL:
        tool = TOOL_OF_MATERIAL[item]
        if tool is not None and not have[tool]:
            return f"{item} needs a {tool}", False
        have[item] += 1
        return f"gathered {item}", True
    if verb == "make" and item in RECIPES:
        recipe = RECIPES[item]
        if not Counter(recipe.parts) <= have or (recipe.tool is not None and not have[recipe.tool]):
            return f"{item} needs {recipe}", False
        have.subtract(recipe.parts)
        have[item] += 1
        return f"made {item}", True
    return "nothing happened", False


def steps_to(item: str, have: Counter[str]) -> list[str]:
    """Actions that bring one more ``item``, no one of them in vain; ``have`` is then what is left beside it."""
    recipe = RECIPES.get(item)
    tool = TOOL_OF_MATERIAL[item] if recipe is None else recipe.tool
    steps = []
    if tool is not None and not have[tool]:
        steps += steps_to(tool, have)
        have[tool] += 1
    for part in () if recipe is None else recipe.parts:
        if not have[part]:
            steps += steps_to(part, have)
        else:
            have[part] -= 1
    return [*steps, f"gather {item}" if recipe is None else f"make {item}"]


@dataclass(frozen=True)
class CraftTask(Task):
    """Gather materials and make the item that is asked for. Reward 1 for it and 0 otherwise.

        goal: torch
        have: 1 plank, 2 stone        make stick
        made stick
        have: 1 stick, 2 stone        gather coal
        gathered coal
        have: 1 coal, 1 stick, 2 stone        make torch

    There are 8 materials and 30 recipes, all of them in the system message; ``iron`` needs a pickaxe, and some items a
    tool, which is not used up. What cannot be done is told why and changes nothing, and so does any other text.

    ``free``: no goal, no reward and no end but ``max_turns``: a place to explore, which has no solution. ``most``:
    items one has at the beginning, 0 to 8. ``max_turns``: 4 to 1000; goals that take longer are not drawn.
    ``max_new_tokens``: of a turn, 1 to 100,000. Raises :class:`InputError` for a number out of range.
    """

    free: bool = False
    most: Annotated[int, Field(ge=0, le=8)] = 4
    max_turns: Annotated[int, Field(ge=4, le=1000)] = 24
    max_new_tokens: Annotated[int, Field(ge=1, le=100_000)] = 16

    name = "craft"
    description = "gather materials and make an item by recipes"
    system = (
        f"Say `gather` and a material, one of {', '.join(TOOL_OF_MATERIAL)} (iron needs a pickaxe), or `make` and an "
        f"item. Recipes: {HELP}."
    )
    actions = ACTIONS

    def __post_init__(self) -> None:
        validate(self)

    def start(self, split: Split, index: int) -> Start:
        """How this episode begins. Equal beginnings with equal goals are in one split."""
        return draw(
            split,
            index,
            (self.name, self.free, self.most, self.max_turns),
            self._generate,
            lambda start: state_key(self.name, *start),
        )

    def environment(self, split: Split, index: int) -> CraftEnvironment:
        return CraftEnvironment(self.start(split, index), self.max_turns)

    def solution(self, split: Split, index: int) -> Iterator[str]:
        start = self.start(split, index)
        if start.goal is None:
            raise NotImplementedError("craft with free=true has no goal")
        return iter(steps_to(start.goal, Counter(dict(start.have))))

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        """The solution without its first action."""
        actions = self.solution(split, index)
        next(actions)
        return actions

    def _generate(self, random: Random) -> Start | None:
        things = [*TOOL_OF_MATERIAL, *RECIPES]
        have = Counter(random.choices(things, k=random.randint(0, self.most)))
        goal = None if self.free else random.choice([item for item in RECIPES if not have[item]])
        start = Start(tuple(sorted(have.items())), goal)
        return start if goal is None or len(steps_to(goal, have.copy())) <= self.max_turns else None


class CraftEnvironment(Environment):
    """One beginning. A state is what one has, and the goal."""

    def __init__(self, start: Start, max_turns: int) -> None:
        self.start, self.max_turns = start, max_turns
        self._have: Counter[str] = Counter()
        self._turns = 0

    def reset(self) -> Observation:
        self._have, self._turns = Counter(dict(self.start.have)), 0
        return self._observe("nothing happened yet" if self.start.goal is None else f"goal: {self.start.goal}")

    def step(self, action: str) -> Step:
        told, _ = carried_out(action, self._have)
        self._turns += 1
        made = self.start.goal is not None and self._have[self.start.goal] > 0
        over = self._turns >= self.max_turns
        return Step(self._observe(told), float(made), made or over, truncated=over and not made, success=made)

    def _observe(self, told: str) -> Observation:
        things = sorted((item, number) for item, number in self._have.items() if number)
        have = ", ".join(f"{number} {item}" for item, number in things) or "nothing"
        return Observation(f"{told}\nhave: {have}", state_key("craft", self.start.goal, things))


def from_spec(argument: str | None, options: Mapping[str, str]) -> CraftTask:
    """``craft[:free=false,most=4,max_turns=24,max_new_tokens=16]``."""
    return configure(CraftTask, argument, options)
