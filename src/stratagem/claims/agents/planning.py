"""The claims of two roles, decided in enumerated games whose tables share what looks alike, judged exactly."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from stratagem.advantages import StandardizedTurnReturn
from stratagem.lab import Exact, Outcome, SharedPolicy, TokenGame
from stratagem.lab.world import LabTask, LabWorld
from stratagem.recipe import Recipe
from stratagem.recipes import baselines
from stratagem.recipes.agents import planning
from stratagem.seeding import derive
from stratagem.study.claims import Expect, claim
from stratagem.training.loop import Settings, Trainer
from stratagem.training.run_directory import RunDirectory

LEARNING_RATE = 0.05
"""What tables of the lab are trained with."""


class Play(NamedTuple):
    """A game, and what of a state its policy sees."""

    game: TokenGame
    seen: Callable[[Any], Hashable]


def mean_success(recipe: Recipe, play: Play, seed: int, tokens: int) -> float:
    """Exact probability of success, averaged over a training run of so many sampled tokens."""
    task = LabTask(play.game)
    world = LabWorld(task, seed)
    policy = SharedPolicy.uniform(world.tree.states, play.game.vocabulary, play.seen)
    world = LabWorld(task, seed, policy)
    recipe = recipe.with_values({"optimization.learning_rate": LEARNING_RATE})
    spent, success = [0.0], [Exact(world.tree, policy.table()).success]
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(10**6, seed, evaluation_episodes=0, sample_episodes=0)
        trainer = Trainer(recipe, world, RunDirectory.create(folder), settings)
        while spent[-1] < tokens:
            spent.append(spent[-1] + trainer.step()["tokens/sampled"])
            success.append(Exact(world.tree, policy.table()).success)
    return float(np.interp(np.linspace(0, tokens, 201), spent, success).mean())


# ---- blueprints -----------------------------------------------------------------------------------------------------

KEY, DOOR = 0, 1
"""Sub-goals. The key lies at the left end of a line of four places, the door is at its right end."""

PLANS = ((KEY, DOOR), (DOOR, KEY), (KEY, KEY), (DOOR, DOOR))
"""Blueprints that can be written."""

TURNS, ERRAND_TOKENS = 6, 24_000


class Errand(NamedTuple):
    """Where an episode is. plan: None before it is written; ``goal`` is the place in it."""

    turn: int
    place: int
    key: bool = False
    plan: tuple[int, ...] | None = None
    goal: int = 0


def _moved(state: Errand, tokens: tuple[int, ...]) -> list[Outcome]:
    """Tokens 0 and 2 go left, 1 and 3 right; 2 and 3 say that the sub-goal is done."""
    place = min(max(state.place + (1 if tokens[0] % 2 else -1), 0), 3)
    key = state.key or place == 0
    if place == 3 and key:
        return [Outcome(reward=1.0, success=True)]
    if state.turn == TURNS - 1:
        return [Outcome(truncated=True)]
    goal = min(state.goal + (tokens[0] >= 2), 1)
    return [Outcome(Errand(state.turn + 1, place, key, state.plan, goal))]


def _planned(state: Errand, tokens: tuple[int, ...]) -> list[Outcome]:
    return [Outcome(state._replace(plan=PLANS[tokens[0]]))] if state.plan is None else _moved(state, tokens)


def _shown(state: Errand) -> Hashable:
    """What an executor sees: its sub-goal, where it is, whether it has the key; a planner, where it begins."""
    return (None, state.place) if state.plan is None else (state.plan[state.goal], state.place, state.key)


STARTS = tuple((0.5, Errand(0, place)) for place in (1, 2))
WITH_PLAN = Play(
    TokenGame(
        "planned_errand",
        "A plan of two sub-goals, then fetch the key and reach the door.",
        4,
        STARTS,
        _planned,
        seat=lambda state: (int(state.plan is not None), 0),
    ),
    _shown,
)
WITHOUT_PLAN = Play(
    TokenGame("errand", "Fetch the key and reach the door.", 4, STARTS, _moved),
    lambda state: (state.place, state.key),
)


@claim(
    "himac",
    statement="Planning sub-goals and carrying them out, trained level by level in alternating phases, succeeds more "
    "often than flat group-relative training, and than both levels trained together (ALFWorld: 92.1 %, without the "
    "hierarchy 77.6 %, without alternation 85.3 %).",
    source="arXiv 2603.00977, abstract and ablations, the latter as summaries report them",
    baseline="grpo without a plan; both levels in every batch",
    rule=(Expect("gain_over_flat", above=0), Expect("gain_over_joint", above=0)),
    scale="A line of four places, six turns, a key and a door, and plans of two sub-goals; every turn is one token, an "
    "executor shares what it learned between turns that look alike, and rollouts, updates and blueprints are chosen as "
    "in a full run. Success is exact and averaged over runs of 24,000 sampled tokens at one learning rate, without KL. "
    "Nothing here needs a plan: an executor sees whether it has the key, which is in favour of flat training, and a "
    "reward at the goal is found by chance, which no long task grants. On development seeds it lost clearly to flat "
    "training, also at twice the learning rate, and a little to both levels at once, which trains each of them in "
    "every batch. gain_over_flat_with_plan is over GRPO on the same planned game, gain_over_random_blueprint over "
    "executions under a blueprint at random.",
)
def himac(seed: int) -> dict[str, float]:
    """Mean success over runs of as many sampled tokens."""
    ours = planning.himac(kl_coefficient=0)
    joint = ours.replace(schedules=(), sampler=ours.sampler.replace(branches=8, train_roots=True))
    flat = baselines.grpo(kl_coefficient=0)
    run = partial(mean_success, seed=seed, tokens=ERRAND_TOKENS)
    success = run(ours, WITH_PLAN)
    return {
        "gain_over_flat": success - run(flat, WITHOUT_PLAN),
        "gain_over_joint": success - run(joint, WITH_PLAN),
        "gain_over_flat_with_plan": success - run(flat, WITH_PLAN),
        "gain_over_random_blueprint": success - run(planning.himac(stray=1.0, kl_coefficient=0), WITH_PLAN),
        "mean_success": success,
    }


# ---- foresight ------------------------------------------------------------------------------------------------------

SCREENS, LABELS, STEPS, APP_TOKENS = 5, 3, 4, 24_000


class Screens(NamedTuple):
    """An app: where each label leads, and which label stands on each button, by screen. The last is the target."""

    leads: tuple[tuple[int, ...], ...]
    layout: tuple[tuple[int, ...], ...]
    steps: tuple[int | None, ...]


class Tap(NamedTuple):
    """Where an episode is. label: that is to be gone for, None before it is chosen."""

    step: int
    screen: int
    label: int | None = None


def screens(seed: int) -> Screens:
    """A random app whose target is three steps from screen 0."""
    draw = random.Random(derive(seed, "app"))
    while True:
        leads = tuple(tuple(draw.randrange(SCREENS) for _ in range(LABELS)) for _ in range(SCREENS))
        steps: list[int | None] = [None] * (SCREENS - 1) + [0]
        for far in range(1, SCREENS):
            near = [step == far - 1 for step in steps]
            for screen, ways in enumerate(leads):
                if steps[screen] is None and any(near[way] for way in ways):
                    steps[screen] = far
        if steps[0] == 3:
            layout = tuple(tuple(draw.sample(range(LABELS), LABELS)) for _ in range(SCREENS))
            return Screens(leads, layout, tuple(steps))


def app_game(app: Screens, pay: str) -> Play:
    """The app, paid for every step with ``foresight``, with the ``form`` of sub-goals alone, or at its ``goal``."""

    def act(state: Tap, tokens: tuple[int, ...]) -> list[Outcome]:
        if state.label is None:
            return [Outcome(state._replace(label=tokens[0]))]
        tapped = app.layout[state.screen][tokens[0]]
        screen = app.leads[state.screen][tapped]
        won, steps = screen == SCREENS - 1, app.steps[screen]
        low = 0.5 + 0.5 * (tapped == state.label)
        high = 0.1 + (0.5 * low + 0.4 * (0.0 if steps is None else 0.8**steps) if pay == "foresight" else 0.0)
        reward, earlier = (float(won), 0.0) if pay == "goal" else (low, high)
        over = won or state.step == STEPS - 1
        following = None if over else Tap(state.step + 1, screen)
        return [Outcome(following, 1.0, reward, won, over and not won, earlier=earlier)]

    def seen(state: Tap) -> Hashable:
        return state.screen if state.label is None else (state.label, app.layout[state.screen])

    game = TokenGame(
        f"app_{pay}",
        "Four steps to the last screen; in each a label to go for, and a button.",
        LABELS,
        ((1.0, Tap(0, 0)),),
        act,
        seat=lambda state: (int(state.label is not None), 0),
    )
    return Play(game, seen)


@claim(
    "hi_agent",
    statement="A high level paid by foresight of what the low level then achieves makes hierarchical agents succeed "
    "more often than training without it (87.9 % on Android-in-the-Wild, where the best method before had 71.9 %), at "
    "a cost that grows with the number of steps, not exponentially.",
    source="arXiv 2510.14388, abstract",
    baseline="grpo over whole episodes, paid at the goal; the same recipe with sub-goals paid for their form alone",
    rule=(Expect("gain_over_flat", above=0), Expect("gain_over_form", above=0)),
    scale="A random app of five screens and three buttons for every seed, its target three taps away and four allowed; "
    "tables over the screen, and over the label that is wanted and the layout. Success is exact and averaged over runs "
    "of 24,000 sampled tokens at one learning rate, without KL. The form of a sub-goal is always right here. With so "
    "few buttons the goal is found by chance, so flat training is not short of reward as it is in a real app, and it "
    "trains both roles in every batch. On five development seeds flat training was ahead; on three of them it was also "
    "held against foresight at twice the learning rate, which was ahead of it on one. Foresight "
    "was ahead of form alone. gain_over_turns_without_branches is over plain rollouts whose turns are paid the same "
    "and compared by turn index, with no branches. New layouts, and tables too large to list, are not tried.",
)
def hi_agent(seed: int) -> dict[str, float]:
    """Mean success over runs of as many sampled tokens."""
    app = screens(seed)
    foresight, form, goal = (app_game(app, pay) for pay in ("foresight", "form", "goal"))
    ours, flat = planning.hi_agent(kl_coefficient=0), baselines.grpo(kl_coefficient=0)
    run = partial(mean_success, seed=seed, tokens=APP_TOKENS)
    success = run(ours, foresight)
    by_turn = flat.replace(advantage=StandardizedTurnReturn(discount=0.0))
    return {
        "gain_over_flat": success - run(flat, goal),
        "gain_over_form": success - run(ours, form),
        "gain_over_turns_without_branches": success - run(by_turn, foresight),
        "mean_success": success,
    }
