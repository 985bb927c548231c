"""Policies compared in a bandit by name: regret by round with its interval over runs, and a run directory."""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from stratagem.bandits import periodic, policies, scheduling, switching
from stratagem.bandits.oracles import Aggregated, Oracle, Ridge
from stratagem.bandits.play import AT_ONCE, Delivery, play
from stratagem.bandits.policies import Policy
from stratagem.bandits.problems import Bandit, FiniteClassBandit, LinearBandit, PlainBandit
from stratagem.bandits.scheduling import LastSwitchBandit, RecoveringBandit, RestingBandit, Scheduler, follow
from stratagem.errors import BrokenRunError, InputError, unknown
from stratagem.tasks.registry import parse
from stratagem.training.run_directory import RunDirectory, environment, file_name

POINTS = 200
"""Rounds of a curve that are kept, at most."""

COLUMNS = ("step", "regret", "low", "high", "bound")
"""Of ``metrics.jsonl``, beside the policy."""

Progress = Callable[[str, int], None]


def _plain(runs: int, seed: int, arms: int = 10) -> PlainBandit:
    return PlainBandit.drawn(runs, seed, arms)


def _gaussian(runs: int, seed: int, arms: int = 10) -> PlainBandit:
    return PlainBandit.drawn(runs, seed, arms, "gaussian")


def _gapped(runs: int, seed: int, arms: int = 10, best: float = 0.6, gap: float = 0.1) -> PlainBandit:
    return PlainBandit.gapped(runs, arms, best, gap)


def _linear(runs: int, seed: int, arms: int = 10, dimension: int = 5, open_share: float = 1.0) -> LinearBandit:
    return LinearBandit(runs, seed, arms, dimension, None, open_share)


def _logistic(
    runs: int, seed: int, arms: int = 10, dimension: int = 5, scale: float = 5.0, open_share: float = 1.0
) -> LinearBandit:
    return LinearBandit(runs, seed, arms, dimension, scale, open_share)


BANDITS: Mapping[str, Callable[..., Bandit | RestingBandit]] = {
    "bernoulli": _plain,
    "gaussian": _gaussian,
    "gapped": _gapped,
    "linear": _linear,
    "logistic": _logistic,
    "finite": FiniteClassBandit,
    "recovering": RecoveringBandit.drawn,
    "last_switch": LastSwitchBandit.drawn,
}
"""By name, made from runs, seed and options of their own."""

PULLERS: Mapping[str, Callable[..., Policy]] = {
    "uniform": policies.Uniform,
    "epsilon_greedy": policies.EpsilonGreedy,
    "ucb1": policies.UCB1,
    "thompson_sampling": policies.ThompsonSampling,
    "linucb": policies.LinUCB,
    "greedy_oracle": policies.GreedyOracle,
    "squarecb": policies.SquareCB,
    "fastcb": policies.FastCB,
}
"""Policies that pull one arm a round."""

SCHEDULERS: Mapping[str, Callable[..., Scheduler]] = {
    "best_now": scheduling.BestNow,
    "round_robin": scheduling.RoundRobin,
    "rest_blind": scheduling.RestBlind,
    "recovering_rewards": periodic.KnownPeriods,
    "learned_periods": periodic.LearnedPeriods,
    "explore_then_plan": periodic.ExploreThenPlan,
    "lsd_bandits": switching.KnownCycles,
    "learned_cycles": switching.LearnedCycles,
}
"""Policies for arms with states. The first two, ``recovering_rewards`` and ``lsd_bandits`` know the payoffs."""


@dataclass(frozen=True, eq=False)
class Curve:
    """Regret of one policy: cumulative, mean over the runs with its 95 % interval (nan for a single run), by round.

    bound: what theory says of its expectation in these bandits, mean over the runs; None where it says nothing.
    """

    policy: str
    rounds: Int64[np.ndarray, " points"]
    regret: Float64[np.ndarray, " points"]
    low: Float64[np.ndarray, " points"]
    high: Float64[np.ndarray, " points"]
    bound: Float64[np.ndarray, " points"] | None
    seconds: float

    def rows(self) -> list[dict[str, Any]]:
        """As ``metrics.jsonl`` has it."""
        bound = np.full(len(self.rounds), np.nan) if self.bound is None else self.bound
        columns = zip(self.rounds.tolist(), *map(_numbers, (self.regret, self.low, self.high, bound)), strict=True)
        return [{"policy": self.policy, **dict(zip(COLUMNS, row, strict=True))} for row in columns]


@dataclass(frozen=True, eq=False)
class Pulled:
    """What a comparison found. against: what regret is measured by, in words.  directory: of the run, if any."""

    task: str
    against: str
    curves: tuple[Curve, ...]
    directory: Path | None


def pull(
    names: Sequence[str],
    task: str,
    *,
    rounds: int = 5000,
    runs: int = 20,
    seed: int = 0,
    arguments: Mapping[str, Any] | None = None,
    delivery: Delivery = AT_ONCE,
    out: str | Path | None = None,
    progress: Progress = lambda name, number: None,
) -> Pulled:
    """Play policies in a bandit, all runs side by side, and measure their exact regret.

    names: of ``PULLERS`` or ``SCHEDULERS``.  task: ``bandit:NAME[,option=value...]``, one of ``BANDITS``.
    runs: of each policy; all policies meet the same ones.  arguments: of the policies; each must take them all.
    delivery: of rewards, late or in batches, for policies that pull one arm a round.
    out: a directory for ``run.json``, ``environment.json``, ``metrics.jsonl`` and ``report.html``.
    progress: called with a policy and the number of rounds it has played.

    Regret is that against the best arm of each round. For arms with states it is that against a bound on the average
    payoff of any policy, so that it may grow linearly for the best policy, too.

    Raises :class:`InputError` for wrong input, :class:`BrokenRunError` when it is interrupted between two policies,
    naming the directory, which then holds those that are done.
    """
    if not names:
        raise InputError("policies: name at least one")
    bandit = make_bandit(task, runs, seed)
    made = {name: make_policy(name, bandit, arguments or {}) for name in dict.fromkeys(names)}
    if isinstance(bandit, RestingBandit) and delivery != AT_ONCE:
        raise InputError(f"delivery: {task} pays at once; arms with states take no delay")
    if out is not None and (Path(out) / "run.json").exists():
        raise InputError(f"run directory {out}: holds a run already; name another with --out")
    asked: dict[str, Any] = {
        "command": "pull",
        "policies": list(made),
        "arguments": dict(arguments or {}),
        "task": task,
    }
    asked |= {"rounds": rounds, "runs": runs, "seed": seed, "delay": delivery.delay, "batch": delivery.batch}
    curves: list[Curve] = []
    try:
        for name, policy in made.items():
            began = time.perf_counter()
            regret = _regret(bandit, policy, rounds, seed, delivery, partial(progress, name))
            seconds = time.perf_counter() - began
            curves.append(_curve(name, regret, seconds, partial(_guarantee, bandit, policy, delivery)))
    except KeyboardInterrupt:
        if out is None or not curves:
            raise
        _written(task, bandit, curves, asked, out)
        raise BrokenRunError(f"stopped after {len(curves)} of {len(made)} policies, which are in {out}") from None
    return _written(task, bandit, curves, asked, out)


def _written(
    task: str,
    bandit: Bandit | RestingBandit,
    curves: Sequence[Curve],
    asked: Mapping[str, Any],
    out: str | Path | None,
) -> Pulled:
    """What was found, written down where there is a directory."""
    against = "a bound on any policy" if isinstance(bandit, RestingBandit) else "the best arm of each round"
    if out is None:
        return Pulled(task, against, tuple(curves), None)
    from stratagem.study.regret_report import write_regret_report

    run = RunDirectory.create(out)
    pulled = Pulled(task, against, tuple(curves), run.path)
    run.write_json("run.json", asked)
    run.write_json("environment.json", environment(asked["seed"]))
    run.write_text("metrics.jsonl", "".join(json.dumps(row) + "\n" for curve in curves for row in curve.rows()))
    write_regret_report(pulled, run.path / "report.html", runs=asked["runs"], seed=asked["seed"])
    return pulled


def make_bandit(task: str, runs: int, seed: int) -> Bandit | RestingBandit:
    """The bandit of a specification. Raises :class:`InputError` for one there is not, and for wrong options."""
    kind, name, options = parse(task)
    if kind != "bandit" or name is None:
        raise InputError(f"task {task!r}: write bandit:NAME[,option=value...], NAME one of {', '.join(BANDITS)}")
    if name not in BANDITS:
        raise unknown("bandit", name, BANDITS)
    make = BANDITS[name]
    known = {
        option: parameter.default
        for option, parameter in inspect.signature(make).parameters.items()
        if option not in ("runs", "seed")
    }
    given = {}
    for option, text in options.items():
        if option not in known:
            raise unknown(f"option of {kind}:{name}", option, known)
        try:
            given[option] = type(known[option])(text)
        except ValueError:
            what = "a whole number" if isinstance(known[option], int) else "a number"
            raise InputError(f"task {task!r}: {option}={text} must be {what}") from None
    return make(runs=runs, seed=seed, **given)


def make_policy(name: str, bandit: Bandit | RestingBandit, arguments: Mapping[str, Any]) -> Policy | Scheduler:
    """A policy by name with arguments of its own, for a bandit of the kind it is for.

    Policies with a regression oracle get one: over the class where the bandit has one, else ridge regression.
    Raises :class:`InputError` for an unknown name or argument, and for a policy that cannot play in such a bandit.
    """
    here, there = (SCHEDULERS, PULLERS) if isinstance(bandit, RestingBandit) else (PULLERS, SCHEDULERS)
    if name not in here:
        if name in there:
            raise InputError(f"policy {name!r}: cannot play in this bandit; there are {', '.join(here)}")
        raise unknown("policy", name, here)
    make = here[name]
    known = [one for one in inspect.signature(make).parameters if one not in ("oracle", "planner")]
    for argument in arguments:
        if argument not in known:
            raise unknown(f"argument of {name}", argument, known)
    if "oracle" in inspect.signature(make).parameters:
        finite = isinstance(bandit, FiniteClassBandit)
        oracle: Oracle = Aggregated("log" if name == "fastcb" else "squared") if finite else Ridge()
        return make(oracle=oracle, **arguments)
    return make(**arguments)


def run_name(names: Sequence[str], task: str, seed: int) -> str:
    """Of the directory a comparison is written to unless another is named."""
    return file_name(f"{'-'.join(dict.fromkeys(names))}-{task}-seed{seed}")


def _regret(
    bandit: Bandit | RestingBandit,
    policy: Policy | Scheduler,
    rounds: int,
    seed: int,
    delivery: Delivery,
    progress: Callable[[int], None],
) -> Float64[np.ndarray, "runs rounds"]:
    if isinstance(bandit, Bandit):
        assert isinstance(policy, Policy), "make_policy() sees to it"
        return play(bandit, policy, rounds, seed, delivery=delivery, progress=progress).regret
    assert isinstance(policy, Scheduler), "make_policy() sees to it"
    collected = follow(bandit, policy, rounds, seed, progress=progress)
    return np.cumsum(benchmark(bandit)[:, None] - collected, -1)


def _guarantee(
    bandit: Bandit | RestingBandit, policy: Policy | Scheduler, delivery: Delivery, rounds: Int64[np.ndarray, " points"]
) -> Float64[np.ndarray, "runs points"] | None:
    """What theory says of a policy that learns at once."""
    if delivery != AT_ONCE:
        return None
    if isinstance(policy, Policy):
        assert isinstance(bandit, Bandit), "make_policy() sees to it"
        return policy.guarantee(bandit, rounds)
    assert isinstance(bandit, RestingBandit), "make_policy() sees to it"
    return policy.guarantee(bandit, rounds)


def benchmark(bandit: RestingBandit) -> Float64[np.ndarray, " runs"]:
    """More than the average payoff of any policy, by run."""
    if isinstance(bandit, LastSwitchBandit):
        planner = switching.RestAndPlay()
        return np.array([planner.plan(payoffs, bandit.tired).value for payoffs in bandit.payoffs])
    return np.array([periodic.upper_bound(payoffs, bandit.slots) for payoffs in bandit.payoffs])


def _curve(
    name: str,
    regret: Float64[np.ndarray, "runs rounds"],
    seconds: float,
    guarantee: Callable[[Int64[np.ndarray, " points"]], Float64[np.ndarray, "runs points"] | None],
) -> Curve:
    from scipy.special import stdtrit

    runs, rounds = regret.shape
    kept = np.unique(np.linspace(1, rounds, min(POINTS, rounds)).round().astype(np.int64))
    points = regret[:, kept - 1]
    mean = points.mean(0)
    half = np.full(len(kept), np.nan)
    if runs > 1:
        half = stdtrit(runs - 1, 0.975) * points.std(0, ddof=1) / np.sqrt(runs)
    bound = guarantee(kept)
    return Curve(name, kept, mean, mean - half, mean + half, None if bound is None else bound.mean(0), seconds)


def _numbers(values: Float64[np.ndarray, " points"]) -> list[float | None]:
    """JSON has no nan."""
    return [value if np.isfinite(value) else None for value in values.tolist()]
