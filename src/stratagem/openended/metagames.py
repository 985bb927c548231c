"""Scores in tasks of several players: what every profile of agents earned, and the value of their metagame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import torch
from jaxtyping import Bool, Float64
from numpy import ndarray

from stratagem.errors import InputError
from stratagem.games.metagame import Metagame, Mixture
from stratagem.games.metasolvers import FictitiousPlay, Nash
from stratagem.openended.coplayers import Player, played
from stratagem.openended.percentiles import normalized, percentiles
from stratagem.openended.task import OpenEndedTask
from stratagem.seeding import generator
from stratagem.tasks.task import Split

PROFILES = 4096
"""Most profiles of agents for which a metagame is made."""

WORLDS = 2048
"""Played side by side."""

Profile = tuple[str, ...]
"""Who has which seat."""


class MetagameBook:
    """What every profile of agents earned on the same tasks, where each agent may have any seat.

    ``V*`` of a task is what the first seat earns in an equilibrium of the metagame between the agents, and the score of
    an agent ``V / V*`` clipped to [0, 1], with ``V`` what it earns in that seat against the equilibrium's mixtures in
    the others. Raw payoffs are kept: an agent that is new changes the equilibria and so all scores.

    Source: arXiv 2107.12808 normalises by the Nash value of its trained players; how it finds one among several
    equilibria, or of players who are not opposed, was not available, and :func:`equilibrium` is a choice of ours.

    Raises :class:`InputError` for payoffs of other tasks or seats, below 0 or not finite.
    """

    def __init__(self, tasks: int, players: int) -> None:
        self.tasks, self.players = tasks, players
        self.raw: dict[Profile, Float64[ndarray, "tasks seats"]] = {}
        self._solved: list[tuple[Mixture, ...]] | None = None

    def copy(self) -> MetagameBook:
        """Another book with what is known by now."""
        book = MetagameBook(self.tasks, self.players)
        book.raw.update(self.raw)
        return book

    @property
    def agents(self) -> list[str]:
        """Who has played, in the order of entry."""
        return list(dict.fromkeys(agent for profile in self.raw for agent in profile))

    def enter(self, profile: Profile, payoffs: Float64[ndarray, "tasks seats"]) -> None:
        """Note what each seat of a profile earned, or note it anew."""
        payoffs = np.asarray(payoffs, np.float64)
        shape = (self.tasks, self.players)
        if len(profile) != self.players or payoffs.shape != shape or not (np.isfinite(payoffs) & (payoffs >= 0)).all():
            raise InputError(
                f"payoffs of {', '.join(profile)}: needs {self.players} agents and, for {self.tasks} tasks, finite "
                "values of at least 0 for each"
            )
        self.raw[profile], self._solved = payoffs, None

    def missing(self, agents: Sequence[str]) -> list[Profile]:
        """Profiles of these agents, and of those known, that have not played.

        Raises :class:`InputError` for too many.
        """
        known = list(dict.fromkeys([*self.agents, *agents]))
        check_profiles(len(known), self.players)
        return [profile for profile in product(known, repeat=self.players) if profile not in self.raw]

    def play(
        self,
        task: OpenEndedTask,
        split: Split,
        numbers: Sequence[int],
        agents: Mapping[str, Player],
        seed: int,
        episodes: int = 1,
    ) -> None:
        """Let all profiles of these agents play, so many episodes of each task, unless they have.

        agents: also those that are known by now, since they meet the new ones.
        """
        missing, players = self.missing([*agents]), [*agents.values()]
        place = {agent: number for number, agent in enumerate(agents)}
        tasks, source = task.tasks(split, numbers), generator(seed, "metagame", len(self.raw))
        together, count = max(1, WORLDS // (len(numbers) * episodes)), len(numbers)
        for start in range(0, len(missing), together):
            profiles = missing[start : start + together]
            seated = torch.tensor([[place[agent] for agent in profile] for profile in profiles])
            rows = torch.arange(count).repeat_interleave(episodes).repeat(len(profiles))
            payoffs = played(task, tasks.at(rows), players, seated.repeat_interleave(count * episodes, 0), source)
            means = payoffs.view(len(profiles), count, episodes, -1).mean(2)
            for profile, earned in zip(profiles, means, strict=True):
                self.enter(profile, earned.numpy())

    def metagame(self, task: int) -> Metagame:
        """Between the agents, on one task. Raises :class:`InputError` while a profile has not played."""
        return Metagame(self._payoffs[task][None])

    @property
    def _payoffs(self) -> Float64[ndarray, "tasks seats *agents"]:
        agents, missing = self.agents, self.missing([])
        if missing:
            raise InputError(f"metagame: nobody played {', '.join(missing[0])}")
        table = np.stack([self.raw[profile] for profile in product(agents, repeat=self.players)], -1)
        return table.reshape(self.tasks, self.players, *[len(agents)] * self.players)

    @property
    def equilibria(self) -> list[tuple[Mixture, ...]]:
        """Of every task the mixtures of all seats (:func:`equilibrium`)."""
        if self._solved is None:
            self._solved = [equilibrium(Metagame(payoffs[None])) for payoffs in self._payoffs]
        return self._solved

    def earned(self, agent: str) -> Float64[ndarray, " tasks"]:
        """What an agent earns in the first seat against the equilibria."""
        if agent not in self.agents:
            raise InputError(f"scores: nothing is known of {agent!r}; known: {', '.join(self.agents)}")
        return np.asarray(self._first[:, self.agents.index(agent)])

    @property
    def _first(self) -> Float64[ndarray, "tasks agents"]:
        games = (Metagame(payoffs[None]) for payoffs in self._payoffs)
        return np.stack([game.deviations(0, found) for game, found in zip(games, self.equilibria, strict=True)])

    @property
    def best(self) -> Float64[ndarray, " tasks"]:
        """``V*``: what the first seat earns in equilibrium."""
        return np.array([found[0] @ earned for found, earned in zip(self.equilibria, self._first, strict=True)])

    @property
    def kept(self) -> Bool[ndarray, " tasks"]:
        """Tasks on which the first seat earns something in equilibrium; the others say nothing."""
        return np.asarray(self.best > 0)

    def normalized(self, agent: str) -> Float64[ndarray, " kept"]:
        """``V / V*`` on the tasks that are kept, in [0, 1]."""
        return normalized(self.earned(agent), self.best)

    def curve(self, agent: str) -> Float64[ndarray, " percentiles"]:
        """Its percentiles."""
        return percentiles(self.normalized(agent))


def check_profiles(agents: int, players: int) -> None:
    """Raise :class:`InputError` where so many agents make too many profiles."""
    if players > 1 and agents**players > PROFILES:
        made = agents**players
        raise InputError(f"metagame: {agents} agents in {players} seats make {made} profiles; at most {PROFILES} play")


def equilibrium(game: Metagame) -> tuple[Mixture, ...]:
    """Mixtures of all players from which nobody gains by leaving.

    Of two players whose payoffs add up to the same number in every profile: by linear programming, where the value is
    unique. Of any others: the pure equilibrium with the largest sum of payoffs, the first of several; where there is
    none, the averages of fictitious play, which need not be an equilibrium (``game.nash_conv`` says how far they are).
    """
    total = game.expected.sum(0)
    if game.players == 2 and float(np.ptp(total)) < 1e-9:
        return Nash()(Metagame(game.payoffs - total.flat[0] / 2))
    stable = np.ones(game.sizes, dtype=bool)
    for player, payoffs in enumerate(game.expected):
        stable &= payoffs >= payoffs.max(player, keepdims=True) - 1e-12
    if not stable.any():
        return FictitiousPlay()(game)
    chosen = np.unravel_index(int(np.where(stable, total, -np.inf).argmax()), game.sizes)
    return tuple(np.eye(size)[choice] for size, choice in zip(game.sizes, chosen, strict=True))
