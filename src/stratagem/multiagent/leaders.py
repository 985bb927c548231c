"""The upper of two levels: agents that choose subgoals, and followers that pursue them until it is time to choose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Protocol

import numpy as np
from annotated_types import Ge, Gt, Le
from jaxtyping import Bool, Float, Int64

from stratagem.errors import InputError
from stratagem.multiagent.game import Frame, MarkovGame, State, chance, check_actions
from stratagem.multiagent.games import named
from stratagem.multiagent.policy import ActorCritics, AgentsPolicy
from stratagem.multiagent.situations import Situations
from stratagem.multiagent.stacked import masked
from stratagem.multiagent.subgoals import (
    NONE,
    Followers,
    SubgoalGame,
    advanced,
    aside,
    begun,
    check_subgoals,
    game_and_options,
    inner,
    one_hot,
    outer,
    progress,
    told,
)

WATCHED = 512
"""Practice episodes that situations are fitted to."""


class SubgoalFollower(Protocol):
    """What acts for all agents given what they see with their subgoals beside it (as in :class:`Followers`)."""

    def __call__(
        self,
        observation: Float[np.ndarray, "copies agents features"],
        legal: Bool[np.ndarray, "copies agents actions"],
        luck: Float[np.ndarray, "copies agents actions"],
    ) -> Int64[np.ndarray, "copies agents"]:
        """Actions; ``luck`` is in [0, 1) and all it may draw from, so that an episode follows from its seed."""
        ...


class TrainedFollowers:
    """A policy that was trained on :class:`Followers`, frozen; one with probabilities samples from them.

    Raises :class:`InputError` when it does not fit the game, or remembers earlier turns: followers are part of a game
    that follows from its state.
    """

    def __init__(self, policy: AgentsPolicy, game: SubgoalGame) -> None:
        check_actions(Followers(game, timeout=1), policy)
        if policy.memory_width:
            raise InputError(
                f"task {game.name}: followers remember nothing, and these have a memory; train them with "
                "architecture.recurrence = none"
            )
        self._act = policy.acting()
        self._outputs = policy.outputs() if isinstance(policy, ActorCritics) else None

    def __call__(
        self,
        observation: Float[np.ndarray, "copies agents features"],
        legal: Bool[np.ndarray, "copies agents actions"],
        luck: Float[np.ndarray, "copies agents actions"],
    ) -> Int64[np.ndarray, "copies agents"]:
        seen = observation.astype(np.float32)
        if self._outputs is None:
            nothing = np.zeros((len(seen), 0), dtype=np.float32)
            return np.asarray(self._act(Frame(seen, nothing, legal, np.asarray(legal.any(-1))), None).action)
        # The largest of logits plus Gumbel noise is a draw from their softmax.
        gumbel = -np.log(-np.log(np.clip(luck, 1e-15, 1 - 1e-15)))
        return np.asarray((masked(self._outputs(seen), legal) + gumbel).argmax(-1))


@dataclass(frozen=True)
class Leaders(MarkovGame):
    """A game as those see it who choose subgoals in it: an action is a subgoal, and a turn lasts until a choice is due.

    In a turn all followers act, step by step, until some agent is to choose again: it has achieved its subgoal itself;
    the subgoal is no longer open to it; ``timeout`` steps have gone by since it chose; or, with ``adaptive``, its
    situation has changed. The turn pays ``sum_k discount^k r_k`` over its ``tau`` steps, which :class:`Outcome` reports
    as its duration, so that learners discount what follows by ``discount^tau`` (semi-Markov decisions).
    Agents whose subgoal stays in force may only choose that one again: no choice of one agent ends that of another,
    and the largest value among an agent's legal choices is that of the subgoal in force. The last action is to wait,
    legal where nothing else is open, and lasts until something is. Rewards are the game's own.

    An agent sees what it sees in the game and its subgoal in force, one-hot, or zeros while it is to choose; the state
    is the game's with those of all agents, so that a mixer of values weighs agents by state and joint subgoals. (With
    weights that knew the subgoals being chosen, what is best for each would not be best for all.)

    adaptive: a choice is due where ``|psi(o) - psi(o_g)| > kappa spread`` for successor features ``psi``, now and when
    the subgoal was chosen, and where the observation is novel (:class:`Situations`, fitted once to the followers'
    practice). kappa: above 0.

    game: with subgoals.  followers: reach them.  source: where these came from, for the name.  discount: in [0, 1], to
    be that of the learner.  timeout: steps, at least 1; None: the game's limit. Raises :class:`InputError` without
    either.
    """

    game: Any
    followers: Any
    source: str = "given"
    discount: Annotated[float, Ge(0), Le(1)] = 0.99
    timeout: Annotated[int, Gt(0)] | None = None
    adaptive: bool = False
    kappa: Annotated[float, Gt(0)] = 2.0

    def __post_init__(self) -> None:
        check_subgoals("leaders", self.game)
        super().__post_init__()
        if self.timeout is None and self.game.max_turns is None:
            raise InputError(f"task {self.name}: timeout = None: {self.game.name} has no limit of its own; name one")

    @property
    def name(self) -> str:
        options = ("discount", "timeout", "adaptive", "kappa")
        return named(f"leaders:{self.game.name},followers={self.source}", self, options)

    @property
    def description(self) -> str:
        return f"agents choose the subgoals of {self.game.name}, which followers reach"

    @property
    def agents(self) -> int:
        agents: int = self.game.agents
        return agents

    @property
    def subgoals(self) -> int:
        """How many there are; the action of this number is to wait."""
        return len(self.game.tree)

    @property
    def features(self) -> int:
        features: int = self.game.features
        return features + self.subgoals

    @property
    def state_features(self) -> int:
        features: int = self.game.state_features
        return features + self.agents * self.subgoals

    @property
    def actions(self) -> int:
        return self.subgoals + 1

    @cached_property
    def situations(self) -> Situations:
        """Fitted to what followers see in practice, and what they see next."""
        practice = Followers(self.game, timeout=self.timeout)
        seeds = np.arange(WATCHED, dtype=np.int64)
        state: State = {"seed": seeds, "turn": np.zeros_like(seeds), **practice.begin(seeds)}
        pairs: list[tuple[np.ndarray, np.ndarray]] = []
        while bool(state["alive"].any()) and not bool(practice.at_limit(state).any()):
            alive, seen = state["alive"], self.game.observe(inner(state))
            changed, _, _ = practice.transition(state, self._act(inner(state), state["goal"]))
            state = {**state, **changed, "turn": state["turn"] + 1}
            pairs.append((seen[alive], self.game.observe(inner(state))[alive]))
        before, after = (np.concatenate(seen) for seen in zip(*pairs, strict=True))
        return Situations.fit(before, after)

    # ---- the game --------------------------------------------------------------------------------------------------

    def begin(self, seeds: Int64[np.ndarray, " copies"]) -> State:
        state = begun(seeds, self.game.begin(seeds))
        nought = np.zeros((len(seeds), self.agents), dtype=np.int64)
        marks = {"mark": np.zeros((*nought.shape, self.situations.codes))} if self.adaptive else {}
        return {**outer(state), "goal": nought + NONE, "age": nought, "took": np.ones_like(seeds), **marks}

    def transition(
        self, state: State, action: Int64[np.ndarray, "copies agents"]
    ) -> tuple[State, Float[np.ndarray, "copies agents"], Bool[np.ndarray, " copies"]]:
        now = {name: rows.copy() for name, rows in inner(state).items()}
        goal, age = np.array(action), np.where(state["goal"] == NONE, 0, state["age"])
        mark = self._marked(state, now)
        earned, took = np.zeros(goal.shape), np.zeros(len(goal), dtype=np.int64)
        over, running = np.full(len(goal), False), np.arange(len(goal))
        while len(running):
            before = {name: rows[running] for name, rows in now.items()}
            after, reward, ended = advanced(self.game, before, self._act(before, goal[running]))
            for name, rows in now.items():
                rows[running] = after[name]
            earned[running] += self.discount ** took[running][:, None] * reward
            took[running] += 1
            age[running] += 1
            over[running] = ended
            goal[running] = self._in_force(after, goal[running], age[running], None if mark is None else mark[running])
            stops = ended | (goal[running] == NONE).any(1) | self.game.at_limit(after)
            running = running[~stops]
        changed = {**outer(now), "goal": goal, "age": age, "took": took}
        return changed | ({} if mark is None else {"mark": mark}), earned, over

    def _act(self, state: State, goal: Int64[np.ndarray, "copies agents"]) -> Int64[np.ndarray, "copies agents"]:
        """What followers do in a state of the game; those who wait stand idle."""
        luck = chance(aside(state["seed"]), (self.agents, self.game.actions), state["turn"])
        seen = told(self.game.observe(state), goal, self.subgoals)
        action = self.followers(seen, self.game.legal(state), luck)
        return np.asarray(np.where((goal == NONE) | (goal == self.subgoals), self.game.idle, action))

    def _in_force(
        self,
        state: State,
        goal: Int64[np.ndarray, "copies agents"],
        age: Int64[np.ndarray, "copies agents"],
        mark: Float[np.ndarray, "copies agents codes"] | None,
    ) -> Int64[np.ndarray, "copies agents"]:
        """The subgoals; :data:`NONE` for agents that are to choose."""
        waits = goal == self.subgoals
        mine, opened = progress(self.game, state, np.where(waits, NONE, goal))
        due = np.where(waits, self.game.open(state).any(-1), mine | ~opened)
        if self.timeout is not None:
            due |= age >= self.timeout
        if mark is not None:
            due |= self.situations.changed(self.game.observe(state), mark, self.kappa)
        return np.where(due, NONE, goal)

    def _marked(self, state: State, now: State) -> Float[np.ndarray, "copies agents codes"] | None:
        """``psi`` of when each agent chose; those who choose now are marked now."""
        if not self.adaptive:
            return None
        successors = self.situations.successors(self.game.observe(now))
        return np.where((state["goal"] == NONE)[..., None], successors, state["mark"])

    def at_limit(self, state: State) -> Bool[np.ndarray, " copies"]:
        limit: np.ndarray = self.game.at_limit(inner(state))
        return limit

    def duration(self, state: State) -> Int64[np.ndarray, " copies"]:
        return np.asarray(state["took"])

    def observe(self, state: State) -> Float[np.ndarray, "copies agents features"]:
        return np.concatenate([self.game.observe(inner(state)), one_hot(state["goal"], self.subgoals)], -1)

    def whole(self, state: State) -> Float[np.ndarray, "copies state_features"]:
        whole, goals = self.game.whole(inner(state)), one_hot(state["goal"], self.subgoals)
        return np.concatenate([whole, goals.reshape(len(whole), -1)], -1)

    def legal(self, state: State) -> Bool[np.ndarray, "copies agents actions"]:
        opened = self.game.open(inner(state))
        free = np.concatenate([opened, ~opened.any(-1, keepdims=True)], -1)
        held = one_hot(state["goal"], self.actions).astype(bool)
        return np.where((state["goal"] == NONE)[..., None], free, held)


# ---- by specification ----------------------------------------------------------------------------------------------

OWN = ("followers", "discount", "timeout", "adaptive", "kappa")


def leaders(argument: str | None, options: Mapping[str, Any]) -> Leaders:
    """The task ``leaders:TASK,followers=FOLDER[,discount=0.99,timeout=N,adaptive=false,kappa=2,...]``.

    FOLDER: of a run on ``followers:TASK`` or of the policy it saved; further options are those of the game. Raises
    :class:`InputError` without followers, and for those that do not fit the game.
    """
    game, own = game_and_options("leaders", argument, options, OWN)
    folder = own.pop("followers", None)
    if folder is None:
        raise InputError(
            f"task leaders:{argument} needs followers=FOLDER, a run of "
            f"stratagem train ippo --task followers:{argument} --out FOLDER"
        )
    saved = Path(folder) / "model"
    policy = AgentsPolicy.from_directory(saved if saved.is_dir() else folder)
    return Leaders(game, TrainedFollowers(policy, game), str(folder), **own)
