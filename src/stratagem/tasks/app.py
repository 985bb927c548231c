"""Screens of a made-up app: one role says which label to go for, another taps or types, and both are judged exactly."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from stratagem.tasks.answers import token_f1
from stratagem.tasks.options import configure, validate
from stratagem.tasks.splits import draw
from stratagem.tasks.tags import first_tag
from stratagem.tasks.task import Environment, Observation, Split, Step, Task, state_key

CHOOSER, ACTOR = 0, 1
"""Roles (``Observation.role``): who writes a sub-goal, and who carries it out with one action."""

SIZE, REACH = 100.0, 14.0
"""Of the screen, both ways; and how far from its centre a tap still hits an element."""

HALF = (12.0, 6.0)
"""Half the width and height of an element."""

CLOSENESS = 0.8
"""What each further step to the target makes of a screen's worth."""

HINT = "Reach the screen that is asked for. Say which label to go for next: <subgoal>label</subgoal>."
ACTOR_HINT = "Carry out the sub-goal: `click X Y` on a button, from 0 to 100 each, or `type LABEL` into a field."

_NOUNS = (
    "mail music maps photos notes news games books sports travel health money weather friends shops films radio "
    "clock files camera contacts calls alarms themes sounds privacy storage battery network language accounts help "
    "about updates backups keys inbox drafts trash archive albums lists offers tickets orders recipes lessons scores"
)
WORDS = _NOUNS.split()
"""Names of screens and labels."""


class Element(NamedTuple):
    """What can be used on a screen: a button to tap, or a field to type its own label into.

    x, y: of its centre.  leads: the screen it leads to.
    """

    label: str
    field: bool
    x: float
    y: float
    leads: int

    def hit_by(self, x: float, y: float) -> bool:
        """Whether a tap there is on it, or near enough."""
        across, down = abs(x - self.x), abs(y - self.y)
        return (across <= HALF[0] and down <= HALF[1]) or across**2 + down**2 <= REACH**2

    @property
    def action(self) -> str:
        """What uses it."""
        return f"type {self.label}" if self.field else f"click {self.x:g} {self.y:g}"


class App(NamedTuple):
    """Names of screens, what is on each, and the episode's way."""

    names: tuple[str, ...]
    elements: tuple[tuple[Element, ...], ...]
    start: int
    target: int

    def distances(self) -> dict[int, int]:
        """Steps to the target of the screens that it can be reached from."""
        steps, newest = {self.target: 0}, {self.target}
        while newest:
            newest = {
                screen
                for screen, on in enumerate(self.elements)
                if screen not in steps and any(element.leads in newest for element in on)
            }
            steps |= dict.fromkeys(newest, max(steps.values()) + 1)
        return steps

    def named(self, screen: int, label: str) -> Element | None:
        """The element of a screen with this label, in any case."""
        wanted = " ".join(label.lower().split())
        return next((element for element in self.elements[screen] if element.label == wanted), None)

    def after(self, screen: int, action: Action) -> int:
        """The screen that an action on this one leads to: this one where it uses nothing."""
        for element in self.elements[screen]:
            typed = element.field and action.kind == "type" and action.text == element.label
            if typed or (not element.field and action.kind == "click" and element.hit_by(action.x, action.y)):
                return element.leads
        return screen


class Action(NamedTuple):
    """What an actor's text does. ``kind`` is empty for a text that cannot be read; ``outside``: beyond the screen."""

    kind: Literal["click", "type", ""] = ""
    x: float = 0.0
    y: float = 0.0
    text: str = ""
    outside: bool = False


_NUMBER = r"[-+]?\d+(?:\.\d+)?"
_ACTION = re.compile(rf"\s*(?:click\s+(?P<x>{_NUMBER})[\s,]+(?P<y>{_NUMBER})\s*|type\s+(?P<text>\S.*))", re.DOTALL)


def read_action(text: str) -> Action:
    """``click X Y``, moved onto the screen where it is outside, or ``type TEXT``; anything else is no action."""
    found = _ACTION.fullmatch(text)
    if found is None:
        return Action()
    if found["text"] is not None:
        return Action("type", text=" ".join(found["text"].lower().split()))
    given = float(found["x"]), float(found["y"])
    x, y = (min(max(number, 0.0), SIZE) for number in given)
    return Action("click", x, y, outside=(x, y) != given)


def action_score(element: Element | None, action: Action) -> float:
    """``0.1 form + 0.4 [right kind] + 0.5 hit`` of an action for using ``element``, in [0, 1].

    ``hit`` is 1 for a tap on it, 0 for one beyond the screen, and for typing the F1 of the words. Without an element
    nothing but the form can be right.
    """
    if not action.kind:
        return 0.0
    if element is None or action.kind != ("type" if element.field else "click"):
        return 0.1
    if element.field:
        return 0.5 + 0.5 * token_f1(action.text, element.label)
    return 0.5 + 0.5 * (element.hit_by(action.x, action.y) and not action.outside)


@dataclass(frozen=True)
class AppTask(Task):
    """Reach a screen of an app, step by step: a sub-goal by one role, an action for it by another.

        role 0  screen mail. go to: photos. labels: inbox; archive; keys (field)
                <subgoal>archive</subgoal>
        role 1  sub-goal: archive. inbox at 25 50; archive at 75 16.7; type keys
                click 75 16.7

    Every turn is a conversation of its own. A tap within an element or 14 of its centre uses it; one beyond the screen
    counts at the edge, and as a miss. A sub-goal that cannot be read costs its turn, and nobody acts.

    Rewards (``steps``), of an action ``a`` for sub-goal ``g`` that leads to screen ``s'``: the action's turn earns
    ``low = 0.1 form(a) + 0.4 [right kind] + 0.5 hit``, and the sub-goal's turn ``formed form(g) + executed low + judged
    0.8^d(s')``, with ``d`` the steps from there to the target (0 where there is no way). So a sub-goal is paid by what
    its action achieved, once that is known. A sub-goal that cannot be read earns 0. With ``goal`` the action that
    reaches the target earns 1 and nothing else does.

    The scores are reconstructions after arXiv 2510.14388, whose formulas were not available. ``hits`` (the sum of
    ``low``), ``steps`` (actions) and ``malformed`` (sub-goals and actions that cannot be read) are noted without pay.

    screens: 4 to 40.  buttons: elements of a screen, 2 to 6; about one in six is a field.  max_turns: of both roles
    together, 4 to 200.  formed, executed, judged: in [0, 1].
    """

    screens: Annotated[int, Field(ge=4, le=40)] = 15
    buttons: Annotated[int, Field(ge=2, le=6)] = 6
    max_turns: Annotated[int, Field(ge=4, le=200)] = 16
    reward: Literal["steps", "goal"] = "steps"
    formed: Annotated[float, Field(ge=0, le=1)] = 0.1
    executed: Annotated[float, Field(ge=0, le=1)] = 0.5
    judged: Annotated[float, Field(ge=0, le=1)] = 0.4

    name = "app"
    description = "tap through the screens of a made-up app, a sub-goal and an action at a time"
    max_new_tokens = 24
    stop = ("</subgoal>",)
    system = HINT
    reward_names = ("reward", "hits", "steps", "malformed")
    reward_weights = (1.0, 0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        validate(self)

    def app(self, split: Split, index: int) -> App:
        """The app of an episode."""
        return draw(
            split,
            index,
            (self.name, self.screens, self.buttons, self.max_turns),
            self._generate,
            lambda a: state_key(*a),
        )

    def environment(self, split: Split, index: int) -> AppEnvironment:
        return AppEnvironment(self, self.app(split, index))

    def solution(self, split: Split, index: int) -> Iterator[str]:
        for element in self._way(split, index):
            yield f"<subgoal>{element.label}</subgoal>"
            yield element.action

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        """The solution, whose last action is a tap between the elements."""
        *most, _ = self.solution(split, index)
        yield from most
        yield "click 50 0"

    def answer(self, text: str) -> str | None:
        action = read_action(text)
        return " ".join(text.lower().split()) if action.kind else None

    def subgoals(self, split: Split, index: int, actions: Sequence[str]) -> list[str]:
        """The label that each turn is after, of turns that follow the solution."""
        ways = [element.label for element in self._way(split, index) for _ in range(2)]
        return [*ways, *(ways[-1:] * len(actions))][: len(actions)]

    def _way(self, split: Split, index: int) -> list[Element]:
        """What a shortest way uses."""
        app = self.app(split, index)
        steps, screen, way = app.distances(), app.start, []
        while screen != app.target:
            way.append(min(app.elements[screen], key=lambda element: steps.get(element.leads, len(app.names))))
            screen = way[-1].leads
        return way

    def _generate(self, random: Random) -> App | None:
        rows = (self.buttons + 1) // 2
        places = [(x, round((row + 0.5) * SIZE / rows, 1)) for row in range(rows) for x in (25.0, 75.0)]
        names = tuple(random.sample(WORDS, self.screens))
        elements = []
        for _ in range(self.screens):
            labels, spots = random.sample(WORDS, self.buttons), random.sample(places, self.buttons)
            on = (
                Element(label, random.random() < 1 / 6, x, y, random.randrange(self.screens))
                for label, (x, y) in zip(labels, spots, strict=True)
            )
            elements.append(tuple(on))
        app = App(names, tuple(elements), *random.sample(range(self.screens), 2))
        steps = app.distances().get(app.start)
        return app if steps is not None and 2 <= steps <= self.max_turns // 2 else None


class AppEnvironment(Environment):
    """One episode. The state is the screen, and for who acts the sub-goal, too."""

    def __init__(self, task: AppTask, app: App) -> None:
        self.task, self.app = task, app
        self._distances = app.distances()

    def reset(self) -> Observation:
        self._screen = self.app.start
        self._goal: str | None = None
        self._earned: list[float] = []
        return self._observe()

    def step(self, action: str) -> Step:
        return self._chosen(action) if self._goal is None else self._acted(self._goal, action)

    def _chosen(self, text: str) -> Step:
        _, label = first_tag(text, "subgoal") or ("", "")
        self._goal = label or None
        self._earned.append(0.0)
        return self._step({} if label else {"malformed": 1.0})

    def _acted(self, goal: str, text: str) -> Step:
        action, task = read_action(text), self.task
        score = action_score(self.app.named(self._screen, goal), action)
        self._screen, self._goal = self.app.after(self._screen, action), None
        reached = self._screen == self.app.target
        if task.reward == "steps":
            steps = self._distances.get(self._screen)
            worth = 0.0 if steps is None else CLOSENESS**steps
            self._earned[-1] = task.formed + task.executed * score + task.judged * worth
            self._earned.append(score)
        else:
            self._earned.append(float(reached))
        return self._step({"hits": score, "steps": 1.0, "malformed": float(not action.kind)}, reached)

    def _step(self, noted: Mapping[str, float], reached: bool = False) -> Step:
        out = not reached and len(self._earned) >= self.task.max_turns
        return Step(
            self._observe(),
            self._earned[-1],
            done=reached or out,
            truncated=out,
            success=reached,
            components=noted,
            turn_rewards=tuple(self._earned),
        )

    def _observe(self) -> Observation:
        """What is read next, in a conversation that it opens."""
        app, goal = self.app, self._goal
        on, turn = app.elements[self._screen], len(self._earned)
        if goal is None:
            labels = "; ".join(f"{e.label} (field)" if e.field else e.label for e in on)
            text = f"screen {app.names[self._screen]}. go to: {app.names[app.target]}. labels: {labels}"
        else:
            places = "; ".join(f"type {e.label}" if e.field else f"{e.label} at {e.x:g} {e.y:g}" for e in on)
            text = f"sub-goal: {goal}. {places}"
        role, system = (CHOOSER, HINT) if goal is None else (ACTOR, ACTOR_HINT)
        opening = ({"role": "system", "content": system}, {"role": "user", "content": text}) if turn else ()
        return Observation(text, state_key("app", *app, self._screen, goal), role, turn, opening)


def from_spec(argument: str | None, options: Mapping[str, str]) -> AppTask:
    """``app[:screens=15,buttons=6,max_turns=16,reward=steps,formed=0.1,executed=0.5,judged=0.4]``."""
    return configure(AppTask, argument, options)
