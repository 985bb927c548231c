"""Play a policy in a bandit: exact regret in every run, rewards that may come late, and a log with propensities."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from stratagem.bandits.policies import Policy
from stratagem.bandits.problems import Bandit, View, chosen_of
from stratagem.errors import InputError
from stratagem.seeding import numpy_generator


@dataclass(frozen=True, eq=False)
class Log:
    """What was pulled, with the probabilities it was drawn with.

    means: exact, of all arms: for judging estimators, not for learning.
    """

    features: Float64[np.ndarray, "runs rounds arms features"]
    feasible: Bool[np.ndarray, "runs rounds arms"]
    arms: Int64[np.ndarray, "runs rounds"]
    propensity: Float64[np.ndarray, "runs rounds"]
    rewards: Float64[np.ndarray, "runs rounds"]
    means: Float64[np.ndarray, "runs rounds arms"]


@dataclass(frozen=True, eq=False)
class Played:
    """What came of a play. regret: cumulative, ``sum_t max mean - mean of the arm pulled``; pseudo-regret, exact.

    rewards: as they fell.  log: None unless it was asked for.
    """

    regret: Float64[np.ndarray, "runs rounds"]
    rewards: Float64[np.ndarray, "runs rounds"]
    log: Log | None = None


@dataclass(frozen=True)
class Delivery:
    """When a policy hears of its rewards: ``delay`` rounds late, and only at the end of every ``batch`` rounds.

    Raises :class:`InputError` for a negative delay or a batch below 1.
    """

    delay: int = 0
    batch: int = 1

    def __post_init__(self) -> None:
        if self.delay < 0 or self.batch < 1:
            raise InputError(f"delivery: delay = {self.delay}, batch = {self.batch}: must be at least 0 and at least 1")


AT_ONCE = Delivery()
"""Every reward is known before the next round."""


def play(
    bandit: Bandit,
    policy: Policy,
    rounds: int,
    seed: int,
    *,
    delivery: Delivery = AT_ONCE,
    keep_log: bool = False,
    progress: Callable[[int], None] = lambda number: None,
) -> Played:
    """Play ``rounds`` rounds in all runs of a bandit. Policies with one seed see the same contexts.

    delivery: of rewards; those that have not come when it ends are not learned from.  keep_log: whether a log is
    returned.  progress: called with the number of rounds played.

    Raises :class:`InputError` for no rounds, and what the policy raises.
    """
    if rounds < 1:
        raise InputError(f"rounds = {rounds}: must be at least 1")
    contexts, pulls, noise = (numpy_generator(seed, "bandit", what) for what in ("contexts", "pulls", "noise"))
    policy.start(bandit)
    waiting: deque[tuple[View, np.ndarray, np.ndarray]] = deque()
    lost, earned, log = [], [], []
    for number in range(rounds):
        view = bandit.view(number, contexts)
        arms, propensity = policy.choose(view, pulls)
        means = bandit.means(view)
        expected = chosen_of(means, arms)
        rewards = bandit.rewards(expected, noise)
        waiting.append((view, arms, rewards))
        if (number + 1) % delivery.batch == 0:
            while waiting and waiting[0][0].number + delivery.delay <= number:
                policy.update(*waiting.popleft())
        lost.append(np.where(view.feasible, means, -np.inf).max(-1) - expected)
        earned.append(rewards)
        if keep_log:
            log.append((view.features, view.feasible, arms, propensity, rewards, means))
        progress(number + 1)
    kept = Log(*(_by_run(column) for column in zip(*log, strict=True))) if keep_log else None
    return Played(np.cumsum(_by_run(lost), -1), _by_run(earned), kept)


def _by_run(rows: Sequence[np.ndarray]) -> np.ndarray:
    return np.stack(rows, 1)
