"""The game of a planner who sets tax rates and workers who choose their hours, on two time scales."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal, Protocol

import numpy as np
from jaxtyping import Bool, Float64
from numpy.typing import ArrayLike

from stratagem.catalogue import paper
from stratagem.economy.population import FULL_TIME
from stratagem.economy.taxes import THREE, Brackets, Rates
from stratagem.errors import InputError

Weighting = Literal["income", "skill", "equal"]

OfWorkers = Float64[np.ndarray, "*#batch workers"]
"""A number for every worker, after any number of dimensions (seeds, schedules) that broadcast."""

MOST_SCHEDULES = 200_000
"""Of so many schedules a grid may consist."""

_AT_ONCE = 2_000_000
"""Numbers in the largest array that many schedules are worked out with at once."""


@dataclass(frozen=True)
class Outcome:
    """What one step came to. Dollars are per year, hours per week.

    rates: marginal rates in percent.  hours, income, tax, rebate, consumption, utility: of the workers, ``consumption``
    being income less tax and with the rebate, and ``utility`` their own, whatever they strive for.
    welfare: of all of them.
    """

    rates: Float64[np.ndarray, "*batch brackets"]
    hours: Float64[np.ndarray, "*batch workers"]
    income: Float64[np.ndarray, "*batch workers"]
    tax: Float64[np.ndarray, "*batch workers"]
    rebate: Float64[np.ndarray, "*batch"]
    consumption: Float64[np.ndarray, "*batch workers"]
    utility: Float64[np.ndarray, "*batch workers"]
    welfare: Float64[np.ndarray, "*batch"]


class Workers(Protocol):
    """Choose hours each step, and may learn from what came of them."""

    def hours(self, economy: TaxEconomy, skills: OfWorkers, rates: Rates, past: Sequence[Outcome]) -> OfWorkers:
        """Weekly hours under these rates; ``past`` holds the latest outcomes, the last one last."""
        ...

    def learn(self, outcome: Outcome) -> None:
        """Take note of what came of them."""
        ...


Planner = Callable[["TaxEconomy", OfWorkers, Sequence[Outcome]], Rates]
"""Proposes rates from skills and the latest outcomes. It is asked every so many steps, never before the first."""

Satisfied = Callable[[Outcome], Bool[np.ndarray, "*batch workers"]]
"""Whether each worker, given what a step came to, is content with it."""


@paper(
    "2507.15815",
    title="LLM Economist: Large Population Models and Mechanism Design in Multi-Agent Generative Simulacra",
    family="agents",
    roles=("environment", "solver", "metric"),
    year=2025,
    name="llm_economist",
    tags=("reward.source.simulator", "learning"),
)
@dataclass(frozen=True)
class TaxEconomy:
    """Workers choose hours under a piecewise linear tax, ``u = z - T(z) + rebate - c l^delta``; a planner sets it.

    A worker of skill ``v`` who works ``l`` hours earns ``z = v l``. All tax is paid back, the same to everybody. The
    planner is to raise the welfare ``sum_i w_i u_i``. Workers act at every step, the planner at every ``every``-th.

    Units: a skill is in dollars per year for one weekly hour (yearly income / 40), everything else in dollars per year.

    brackets: of the tax.
    cost, exponent: ``c`` and ``delta``, what work costs: at least 0, and above 1. With the published cost of 0.0005 and
    skills from yearly incomes, four of five gain by working all 100 hours even at a tax of 50 %, so that taxes hardly
    change what they do. 52 times as much reads the cost as dollars per week; then a median worker who is not taxed
    works about 41 hours.
    most_hours: that a week can have, positive.
    weighting: ``w_i``. ``"income"``, the published ``1 / max(z_i, 1)``, of the income just earned: who stops working
    counts thousands of times as much, so a planner gains most by making the poor idle on a rebate. ``"skill"`` weighs
    by ``1 / (40 v_i)``, which the planner cannot change; ``"equal"`` by 1, which leaves nothing to redistribute for.
    every: steps between two decisions of the planner.
    largest_move: percentage points by which a rate may change at once; None for any.
    start: all rates before the first decision.
    history: latest outcomes that workers and planner are shown.

    Rates are clipped to [0, 100] after each decision and rounded to whole percent.

    Definitions are read from the released code; the paper's own text was not available. ``"skill"`` is ours.
    Raises :class:`InputError` for a value out of range.
    """

    brackets: Brackets = THREE
    cost: float = 0.0005
    exponent: float = 3.5
    most_hours: float = 100.0
    weighting: Weighting = "income"
    every: int = 25
    largest_move: float | None = 20.0
    start: float = 50.0
    history: int = 50

    def __post_init__(self) -> None:
        for name, fits, allowed in (
            ("cost", 0 <= self.cost < np.inf, "at least 0 and finite"),
            ("exponent", 1 < self.exponent < np.inf, "above 1 and finite"),
            ("most_hours", 0 < self.most_hours < np.inf, "positive and finite"),
            ("weighting", self.weighting in ("income", "skill", "equal"), "income, skill or equal"),
            ("every", self.every >= 1, "at least 1"),
            ("largest_move", self.largest_move is None or self.largest_move > 0, "positive or None"),
            ("history", self.history >= 1, "at least 1"),
        ):
            if not fits:
                raise InputError(f"llm_economist.{name} = {getattr(self, name)!r}: must be {allowed}")
        self.brackets.rates(np.full(len(self.brackets), self.start))

    # ---- one step --------------------------------------------------------------------------------------------------

    def settle(
        self, skills: OfWorkers, hours: OfWorkers, rates: ArrayLike, satisfied: Satisfied | None = None
    ) -> Outcome:
        """Earn, tax, pay back and enjoy. ``satisfied`` says whose utility counts in full; that of others is halved.

        Raises :class:`InputError` for skills that are negative, hours outside [0, ``most_hours``], and wrong rates.
        """
        skills = _checked(skills)
        if not np.all((hours >= 0) & (hours <= self.most_hours)):
            raise InputError(f"hours: must be from 0 to {self.most_hours:g}")
        income = skills * hours
        tax = self.brackets.tax(income, rates)
        batch = tax.shape[:-1]
        hours, income = (np.broadcast_to(values, tax.shape) for values in (hours, income))
        rebate = np.asarray(tax.mean(-1))
        consumption = income - tax + rebate[..., None]
        utility = consumption - self.cost * hours**self.exponent
        applied = np.broadcast_to(self.brackets.rates(rates), (*batch, len(self.brackets)))
        weight = self._weight(np.broadcast_to(skills, tax.shape), income)

        def outcome(utility: OfWorkers) -> Outcome:
            welfare = np.asarray((weight * utility).sum(-1))
            return Outcome(applied, hours, income, tax, rebate, consumption, utility, welfare)

        felt = outcome(utility)
        return felt if satisfied is None else outcome(np.where(satisfied(felt), 1.0, 0.5) * utility)

    def _weight(self, skills: OfWorkers, income: OfWorkers) -> OfWorkers:
        if self.weighting == "equal":
            return np.ones_like(income)
        return np.asarray(1 / np.maximum(income if self.weighting == "income" else skills * FULL_TIME, 1))

    @property
    def elasticity(self) -> float:
        """Of hours by what is left of a dollar, where hours are not at a bound: ``1 / (exponent - 1)``."""
        return 1 / (self.exponent - 1)

    def best_response(self, skills: OfWorkers, rates: ArrayLike) -> OfWorkers:
        """Hours that maximise the utility of each, the rebate given; the fewest of them where several do.

        Within a bracket utility is concave, so the best of it is ``((1 - t) v / (c delta))^(1 / (delta - 1))`` clipped
        to the hours that lead there; the best of these over brackets is exact also where rates fall with income.
        """
        skills = _checked(skills)
        rates = self.brackets.rates(rates)
        v = skills[..., None]
        kept = 1 - rates[..., None, :] / 100
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            wanted = (kept * v / (self.cost * self.exponent)) ** self.elasticity
            first, last = self.brackets.starts / v, self.brackets.ends / v
        # With nothing to gain, for lack of skill or at a rate of 100 %, there is no reason to work longer.
        wanted = np.where(kept * v > 0, wanted, 0.0)
        first, last = np.where(v > 0, first, 0.0), np.where(v > 0, last, np.inf)
        hours = np.minimum(np.clip(wanted, first, last), self.most_hours)
        shape = np.broadcast_shapes(hours.shape, rates[..., None, :].shape)
        hours = np.broadcast_to(hours, shape)
        income = v * hours
        inside = np.clip(income[..., None], self.brackets.starts, self.brackets.ends) - self.brackets.starts
        tax = (inside * (rates / 100)[..., None, None, :]).sum(-1)
        gain = income - tax - self.cost * hours**self.exponent
        return np.take_along_axis(hours, gain.argmax(-1)[..., None], -1)[..., 0]

    def respond(self, skills: OfWorkers, rates: ArrayLike) -> Outcome:
        """The outcome under these rates when every worker responds best."""
        return self.settle(skills, self.best_response(skills, rates), rates)

    # ---- the planner's reference -----------------------------------------------------------------------------------

    def grid(self, step: float = 10.0) -> Float64[np.ndarray, "schedules brackets"]:
        """All schedules of rates that are multiples of ``step``.

        Raises :class:`InputError` for a step that does not divide 100, or lies below 1, and for a grid too large.
        """
        if not 1 <= step <= 100 or abs(100 / step - round(100 / step)) > 1e-9:
            raise InputError(f"step = {step}: must be from 1 to 100 and divide 100")
        levels = np.linspace(0, 100, round(100 / step) + 1)
        if len(levels) ** len(self.brackets) > MOST_SCHEDULES:
            raise InputError(
                f"{len(levels)} rates in {len(self.brackets)} brackets: more than {MOST_SCHEDULES:,} schedules; "
                "take a larger step or fewer brackets"
            )
        return np.array(list(product(levels, repeat=len(self.brackets))))

    def responses(
        self, skills: Float64[np.ndarray, " workers"], schedules: Float64[np.ndarray, "schedules brackets"]
    ) -> Iterator[Outcome]:
        """The outcomes of many schedules when workers respond best, in pieces that fit into memory."""
        size = len(skills) * len(self.brackets) ** 2
        for piece in np.array_split(schedules, -(-len(schedules) * size // _AT_ONCE)):
            yield self.respond(skills, piece)

    def welfares(
        self, skills: Float64[np.ndarray, " workers"], schedules: Float64[np.ndarray, "schedules brackets"]
    ) -> Float64[np.ndarray, " schedules"]:
        """Welfare of every schedule when the workers respond best."""
        return np.concatenate([outcome.welfare for outcome in self.responses(skills, schedules)])

    def stackelberg(self, skills: Float64[np.ndarray, " workers"], step: float = 10.0) -> Outcome:
        """The best schedule of the grid when workers respond best: what a planner on this grid cannot surpass.

        Raises :class:`InputError` as :meth:`grid` does.
        """
        schedules = self.grid(step)
        return self.respond(skills, schedules[self.welfares(skills, schedules).argmax()])

    # ---- many steps ------------------------------------------------------------------------------------------------

    def decide(self, rates: Rates, proposed: ArrayLike) -> Rates:
        """The rates after a proposal: within ``largest_move`` of the present ones, in [0, 100], in whole percent."""
        move = np.asarray(proposed, dtype=np.float64) - rates
        if not np.all(np.isfinite(move)):
            raise InputError("proposed tax rates: must be finite")
        if self.largest_move is not None:
            move = np.clip(move, -self.largest_move, self.largest_move)
        return self.brackets.rates(np.round(np.clip(rates + move, 0, 100)))

    def run(
        self,
        skills: Float64[np.ndarray, "*batch workers"],
        workers: Workers,
        planner: Planner,
        steps: int,
        satisfied: Satisfied | None = None,
    ) -> list[Outcome]:
        """Play ``steps`` steps and return what they came to.

        skills: of the workers; leading dimensions (seeds) are economies of their own, each with its own rates.
        workers, planner: choose and learn. :mod:`stratagem.economy` has some of either; instances that learn are good
        for one run.  satisfied: as in :meth:`settle`.

        Raises :class:`InputError` for no steps at all and as :meth:`settle` does.
        """
        if steps < 1:
            raise InputError(f"steps = {steps}: must be at least 1")
        skills = _checked(skills)
        rates = np.full((*skills.shape[:-1], len(self.brackets)), float(self.start))
        outcomes: list[Outcome] = []
        for step in range(steps):
            past = outcomes[-self.history :]
            if step and step % self.every == 0:
                rates = self.decide(rates, planner(self, skills, past))
            outcome = self.settle(skills, workers.hours(self, skills, rates, past), rates, satisfied)
            workers.learn(outcome)
            outcomes.append(outcome)
        return outcomes


def _checked(skills: ArrayLike) -> OfWorkers:
    checked = np.asarray(skills, dtype=np.float64)
    if not checked.ndim or not checked.shape[-1] or not np.all((checked >= 0) & (checked < np.inf)):
        raise InputError("skills: must be those of at least one worker, none negative, all finite")
    return checked
