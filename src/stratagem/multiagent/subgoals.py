"""Games with a tree of subgoals, and the lower of two levels of learning in them: agents that follow subgoals."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from annotated_types import Ge, Gt, Le
from jaxtyping import Bool, Float, Int64

from stratagem.errors import InputError, unknown
from stratagem.multiagent.game import MarkovGame, State, chance
from stratagem.multiagent.games import named

NONE = -1
"""Of subgoals: none; of agents: nobody."""

_ASIDE = 0x5851F42D4C957F2D
"""Turns an episode's seed into that of what a level draws beside its game."""


@dataclass(frozen=True)
class Subgoal:
    """A step of a mission.  after: names of those that must be achieved before it may be chosen, its parents."""

    name: str
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class SubgoalTree:
    """The subgoals of a mission, numbered as they stand; every parent stands before its children.

    Raises :class:`InputError` for an empty tree, a name that is given twice, and a parent that does not stand before.
    """

    subgoals: tuple[Subgoal, ...]

    def __post_init__(self) -> None:
        if not self.subgoals:
            raise InputError("subgoal tree: needs at least one subgoal")
        before: list[str] = []
        for subgoal in self.subgoals:
            if subgoal.name in before:
                raise InputError(f"subgoal tree: {subgoal.name!r} is given twice")
            for parent in subgoal.after:
                if parent not in before:
                    raise unknown(f"parent of subgoal {subgoal.name!r}, to stand before it:", parent, before)
            before.append(subgoal.name)

    def __len__(self) -> int:
        return len(self.subgoals)

    @property
    def names(self) -> tuple[str, ...]:
        """Of all subgoals."""
        return tuple(subgoal.name for subgoal in self.subgoals)

    @property
    def parents(self) -> Bool[np.ndarray, "subgoals parents"]:
        """Whether the second is a parent of the first."""
        return np.array([[name in subgoal.after for name in self.names] for subgoal in self.subgoals])

    def open(self, achieved: Bool[np.ndarray, "*rows subgoals"]) -> Bool[np.ndarray, "*rows subgoals"]:
        """Which are still to be achieved and have all their parents achieved."""
        lacking = (~achieved).astype(np.int64) @ self.parents.T.astype(np.int64)
        opened: np.ndarray = ~achieved & (lacking == 0)
        return opened


class SubgoalGame(MarkovGame):
    """A game whose mission is divided into subgoals; its rewards know nothing of them.

    ``idle`` is the action that changes nothing.
    """

    idle: ClassVar[int] = 0

    @property
    @abstractmethod
    def tree(self) -> SubgoalTree:
        """The subgoals, in the order in which all arrays have them."""

    @abstractmethod
    def achiever(self, state: State) -> Int64[np.ndarray, "copies subgoals"]:
        """Which agent has achieved each subgoal; :data:`NONE` while it is to be achieved."""

    def possible(self, state: State) -> Bool[np.ndarray, "copies agents subgoals"]:
        """Which subgoals each agent can pursue at all, whatever the tree says."""
        return np.ones((len(state["seed"]), self.agents, len(self.tree)), dtype=bool)

    def practice(self, seeds: Int64[np.ndarray, " copies"]) -> State:
        """States to practise subgoals in; as episodes begin, unless the game can begin further on."""
        return self.begin(seeds)

    def open(self, state: State) -> Bool[np.ndarray, "copies agents subgoals"]:
        """Which subgoals each agent may choose: open ones of the tree that it can pursue."""
        opened: np.ndarray = self.tree.open(self.achiever(state) != NONE)[:, None] & self.possible(state)
        return opened


def intrinsic_reward(
    achieved: Bool[np.ndarray, "*rows"], steps: Int64[np.ndarray, "*rows"], limit: int, cost: float = 0.5
) -> Float[np.ndarray, "*rows"]:
    """``1 - cost * steps / limit`` where a subgoal is achieved after so many steps, else 0."""
    paid: np.ndarray = np.where(achieved, 1 - cost * steps / limit, 0.0)
    return paid


# ---- a game within a game ------------------------------------------------------------------------------------------

_INNER = "game."


def inner(state: State) -> State:
    """The state of the game that is played within another one."""
    return {"seed": state["seed"]} | {
        name.removeprefix(_INNER): rows for name, rows in state.items() if name.startswith(_INNER)
    }


def outer(state: State) -> State:
    """The same as a part of the other one's state."""
    return {f"{_INNER}{name}": rows for name, rows in state.items() if name != "seed"}


def begun(seeds: Int64[np.ndarray, " copies"], state: State) -> State:
    """A state in which an episode of the inner game begins."""
    return {"seed": seeds, "turn": np.zeros(len(seeds), dtype=np.int64), **state}


def advanced(
    game: MarkovGame, state: State, action: Int64[np.ndarray, "copies agents"]
) -> tuple[State, np.ndarray, np.ndarray]:
    """The inner game one turn on: its state, what every agent was paid, and where it has ended."""
    changed, reward, ended = game.transition(state, action)
    return {**state, **changed, "turn": state["turn"] + 1}, reward, ended


def told(
    seen: Float[np.ndarray, "copies agents features"], goal: Int64[np.ndarray, "copies agents"], subgoals: int
) -> Float[np.ndarray, "copies agents told"]:
    """Observations with the subgoal in force one-hot beside them; one alone, the mission itself, needs no telling."""
    return seen if subgoals == 1 else np.concatenate([seen, one_hot(goal, subgoals)], -1)


def one_hot(goal: Int64[np.ndarray, "*rows"], subgoals: int) -> Float[np.ndarray, "*rows subgoals"]:
    """1 at the subgoal, nowhere for :data:`NONE`."""
    hot: np.ndarray = (goal[..., None] == np.arange(subgoals)).astype(float)
    return hot


def aside(seeds: Int64[np.ndarray, " copies"]) -> Int64[np.ndarray, " copies"]:
    """Seeds of what a level draws beside the game itself."""
    return seeds ^ _ASIDE


# ---- the lower level -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Followers(MarkovGame):
    """Practice in reaching subgoals: each agent is given one that is open to it; its episode ends when it is reached.

    An agent sees what it sees in the game, with its subgoal one-hot beside it, and is paid
    ``1 - cost * steps / timeout`` when it has achieved the subgoal itself, else nothing (:func:`intrinsic_reward`). Its
    episode ends without pay when the subgoal is no longer open to it, as when another agent was faster, and is cut at
    the limit. Subgoals are drawn alike among those that are open where practice begins (:meth:`SubgoalGame.practice`);
    an agent to whom none is open is not alive. Whoever is done stands idle. With a tree of one subgoal this is the game
    itself, paid for the mission alone.

    game: whose subgoals they are.  cost: in [0, 1], of a subgoal that takes all the time there is.
    timeout: steps for a subgoal, at least 1; None: the game's own limit. Raises :class:`InputError` without either.
    """

    game: Any
    cost: Annotated[float, Ge(0), Le(1)] = 0.5
    timeout: Annotated[int, Gt(0)] | None = None

    shared_reward: ClassVar[bool] = False
    mortal: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_subgoals("followers", self.game)
        super().__post_init__()
        if self.limit is None:
            raise InputError(f"task {self.name}: timeout = None: {self.game.name} has no limit of its own; name one")

    @property
    def limit(self) -> int | None:
        """Steps for a subgoal."""
        limits = [limit for limit in (self.timeout, self.game.max_turns) if limit is not None]
        return min(limits) if limits else None

    @property
    def name(self) -> str:
        return named(f"followers:{self.game.name}", self, ("cost", "timeout"))

    @property
    def description(self) -> str:
        return f"practice in reaching the subgoals of {self.game.name}"

    @property
    def agents(self) -> int:
        agents: int = self.game.agents
        return agents

    @property
    def features(self) -> int:
        features: int = self.game.features
        return features + self._told

    @property
    def state_features(self) -> int:
        features: int = self.game.state_features
        return features + self.agents * self._told

    @property
    def actions(self) -> int:
        actions: int = self.game.actions
        return actions

    @property
    def max_turns(self) -> int | None:
        return self.limit

    @property
    def _told(self) -> int:
        subgoals = len(self.game.tree)
        return subgoals if subgoals > 1 else 0

    def begin(self, seeds: Int64[np.ndarray, " copies"]) -> State:
        state = begun(seeds, self.game.practice(seeds))
        opened = self.game.open(state)
        luck = chance(aside(seeds), opened.shape[1:])
        goal = np.where(opened.any(-1), np.where(opened, luck, -1.0).argmax(-1), NONE)
        return {**outer(state), "goal": goal, "alive": goal != NONE}

    def transition(
        self, state: State, action: Int64[np.ndarray, "copies agents"]
    ) -> tuple[State, Float[np.ndarray, "copies agents"], Bool[np.ndarray, "copies agents"]]:
        acted = np.where(state["alive"], action, self.game.idle)
        after, _, over = advanced(self.game, inner(state), acted)
        mine, opened = progress(self.game, after, state["goal"])
        achieved = state["alive"] & mine
        alive = state["alive"] & ~mine & opened & ~over[:, None]
        steps = (state["turn"] + 1)[:, None]
        assert self.limit is not None
        return {**outer(after), "alive": alive}, intrinsic_reward(achieved, steps, self.limit, self.cost), ~alive

    def observe(self, state: State) -> Float[np.ndarray, "copies agents features"]:
        seen = told(self.game.observe(inner(state)), state["goal"], len(self.game.tree))
        return seen * state["alive"][:, :, None]

    def whole(self, state: State) -> Float[np.ndarray, "copies state_features"]:
        whole = self.game.whole(inner(state))
        if not self._told:
            return np.asarray(whole)
        return np.concatenate([whole, one_hot(state["goal"], self._told).reshape(len(whole), -1)], -1)

    def legal(self, state: State) -> Bool[np.ndarray, "copies agents actions"]:
        legal: np.ndarray = self.game.legal(inner(state))
        return legal

    def alive(self, state: State) -> Bool[np.ndarray, "copies agents"]:
        return np.asarray(state["alive"])


def progress(
    game: SubgoalGame, state: State, goal: Int64[np.ndarray, "copies agents"]
) -> tuple[Bool[np.ndarray, "copies agents"], Bool[np.ndarray, "copies agents"]]:
    """Whether each agent has achieved its subgoal itself, and whether it is open to it; False for :data:`NONE`."""
    chosen, by = np.maximum(goal, 0), game.achiever(state)
    mine = np.take_along_axis(by, chosen, 1) == np.arange(game.agents)
    opened = np.take_along_axis(game.open(state), chosen[..., None], -1)[..., 0]
    return mine & (goal != NONE), opened & (goal != NONE)


# ---- by specification ----------------------------------------------------------------------------------------------


def followers(argument: str | None, options: Mapping[str, Any]) -> Followers:
    """The task ``followers:TASK[,cost=0.5,timeout=N,...]``; further options are those of the game."""
    game, own = game_and_options("followers", argument, options, ("cost", "timeout"))
    return Followers(game, **own)


def game_and_options(
    name: str, argument: str | None, options: Mapping[str, Any], names: tuple[str, ...]
) -> tuple[SubgoalGame, dict[str, Any]]:
    """The game a level is of, and the level's own options. Raises :class:`InputError` for one without subgoals."""
    from stratagem.tasks.registry import make  # which knows this module by name

    if argument is None:
        raise InputError(f"task {name} needs a game with subgoals, such as {name}:trash_grid")
    further = [f"{option}={value}" for option, value in options.items() if option not in names]
    game: Any = make(",".join([argument, *further]))
    check_subgoals(name, game)
    return game, {option: value for option, value in options.items() if option in names}


def check_subgoals(name: str, game: Any) -> None:
    """Raise :class:`InputError` for a game that has no subgoals; ``name``: of the level that needs them."""
    if not isinstance(game, SubgoalGame):
        named = getattr(game, "name", type(game).__name__)
        raise InputError(f"task {name}:{named}: has no subgoals; door_key_grid and trash_grid have")
