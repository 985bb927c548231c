"""Workers and a planner that speak: they are told the state of the economy in words and answer with JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from stratagem.economy.economy import OfWorkers, Outcome, TaxEconomy
from stratagem.economy.planners import MOVES
from stratagem.economy.taxes import Rates
from stratagem.errors import InputError

Ask = Callable[[Sequence[str]], Sequence[str]]
"""A language model: prompts in, as many answers out."""

_Parsed = TypeVar("_Parsed")


def read_hours(answer: str, most_hours: float = 100.0) -> float:
    """Weekly hours from an answer that holds ``{"LABOR": 40}``, the last such object when there are several.

    Raises :class:`InputError` when there is none, or it is not a number from 0 to ``most_hours``.
    """
    hours = _number(_entry(answer, "LABOR"), "LABOR")
    if not 0 <= hours <= most_hours:
        raise InputError(f"LABOR = {hours:g}: must be from 0 to {most_hours:g}")
    return hours


def read_moves(answer: str, brackets: int) -> tuple[float, ...]:
    """Changes of the tax rates from an answer that holds ``{"DELTA": [10, 0, -20]}``, one for every bracket.

    Raises :class:`InputError` when there are none, another number of them, or one that is not in ``MOVES``; a fraction
    such as 0.1 is refused, too.
    """
    said = _entry(answer, "DELTA")
    if not isinstance(said, list) or len(said) != brackets:
        raise InputError(f"DELTA = {said!r}: must be a list of {brackets}, one for every bracket")
    moves = tuple(_number(move, "DELTA") for move in said)
    for move in moves:
        if move not in MOVES:
            raise InputError(f"DELTA: {move:g} must be one of {', '.join(f'{allowed:g}' for allowed in MOVES)}")
    return moves


def _entry(answer: str, key: str) -> Any:
    for found in reversed(re.findall(r"\{[^{}]*\}", answer)):
        try:
            said = json.loads(found)
        except ValueError:
            continue
        if key in said:
            return said[key]
    raise InputError(f'no JSON object with the key "{key}" in the answer')


def _number(said: object, key: str) -> float:
    # The released prompts show the number in quotes.
    if isinstance(said, str) and re.fullmatch(r"[+-]?\d+(\.\d+)?", said.strip()):
        return float(said)
    if isinstance(said, bool) or not isinstance(said, int | float) or not np.isfinite(said):
        raise InputError(f"{key}: {said!r} is not a number")
    return float(said)


class LanguageWorkers:
    """Every worker is a prompt to ``ask``, which tells their skill, the tax, and what their latest weeks brought.

    personas: a text for each, put before the prompt.  shown: latest outcomes that are told.  attempts: an answer that
    cannot be read is asked for again, told why, so many times in all. For a single economy.

    Raises :class:`InputError` when an answer still cannot be read, another number of answers comes back than prompts,
    personas are not one for every worker, or skills have dimensions before the workers'.
    """

    def __init__(self, ask: Ask, personas: Sequence[str] | None = None, shown: int = 5, attempts: int = 3) -> None:
        self.ask, self.personas, self.shown = ask, personas, shown
        self.attempts = _attempts(attempts)

    def hours(self, economy: TaxEconomy, skills: OfWorkers, rates: Rates, past: Sequence[Outcome]) -> OfWorkers:
        """Ask every worker once, all in one call."""
        _single(skills)
        if self.personas is not None and len(self.personas) != len(skills):
            raise InputError(f"{len(self.personas)} personas for {len(skills)} workers")
        prompts = [self.prompt(economy, skills, rates, past, worker) for worker in range(len(skills))]
        return np.array(_asked(self.ask, prompts, lambda said: read_hours(said, economy.most_hours), self.attempts))

    def prompt(self, economy: TaxEconomy, skills: OfWorkers, rates: Rates, past: Sequence[Outcome], worker: int) -> str:
        """What a worker is told."""
        weeks = [
            f"- {o.hours[worker]:.0f} hours: income ${o.income[worker]:,.0f}, tax ${o.tax[worker]:,.0f}, "
            f"rebate ${float(o.rebate):,.0f}, utility {o.utility[worker]:,.0f}"
            for o in past[-self.shown :]
        ]
        lines = [
            *([] if self.personas is None else [self.personas[worker]]),
            f"You earn ${skills[worker]:,.2f} a year for every weekly hour you work, from 0 to "
            f"{economy.most_hours:g} hours.",
            f"Tax: {_schedule(economy, rates)}. All tax is paid back, the same amount to everybody.",
            f"Your utility is what is left of your income, and the rebate, less {economy.cost:g} * "
            f"hours^{economy.exponent:g}.",
            *(["What came of your latest choices:", *weeks] if weeks else []),
            'How many hours a week do you work? Answer in JSON: {"LABOR": hours}',
        ]
        return "\n".join(lines)

    def learn(self, outcome: Outcome) -> None:
        """They are told the past in the next prompt."""


class LanguagePlanner:
    """The planner is a prompt to ``ask``, which tells incomes, utilities, past rates and the best welfare so far.

    shown: past decisions that are told, of those in the history.  attempts: as for :class:`LanguageWorkers`.
    For a single economy, and one run. Raises :class:`InputError` as :class:`LanguageWorkers` does.
    """

    def __init__(self, ask: Ask, shown: int = 10, attempts: int = 3) -> None:
        self.ask, self.shown = ask, shown
        self.attempts = _attempts(attempts)
        self._past: list[Outcome] = []

    def __call__(self, economy: TaxEconomy, skills: OfWorkers, past: Sequence[Outcome]) -> Rates:
        """Ask once, and move the rates by what it says."""
        _single(skills)
        self._past.append(past[-1])
        brackets = len(economy.brackets)
        moves = _asked(self.ask, [self.prompt(economy)], lambda said: read_moves(said, brackets), self.attempts)[0]
        return np.asarray(np.clip(past[-1].rates + np.array(moves), 0, 100))

    def prompt(self, economy: TaxEconomy) -> str:
        """What the planner is told of its decisions so far."""
        last = self._past[-1]
        best = max(self._past, key=lambda outcome: float(outcome.welfare))
        starts = economy.brackets.starts
        counts = np.bincount(np.maximum(np.searchsorted(starts, last.income) - 1, 0), minlength=len(starts))
        edges = np.quantile(last.utility, (0, 0.25, 0.5, 0.75, 1))
        lines = [
            "You set marginal tax rates to raise social welfare, the weighted sum of what people enjoy. "
            "All tax is paid back, the same amount to everybody.",
            f"Tax now: {_schedule(economy, last.rates)}",
            "Workers by bracket: " + ", ".join(str(count) for count in counts),
            f"Income: mean ${last.income.mean():,.0f}, median ${np.median(last.income):,.0f}, "
            f"standard deviation ${last.income.std():,.0f}",
            "Utility, quartiles from lowest to highest: " + ", ".join(f"{edge:,.0f}" for edge in edges),
            "Rates and the welfare they came to:",
            *(f"- {_percent(o.rates)}: {float(o.welfare):.4g}" for o in self._past[-self.shown :]),
            f"Best so far: {_percent(best.rates)}: {float(best.welfare):.4g}",
            f"By how many percentage points does each rate change? Each of {', '.join(f'{m:g}' for m in MOVES)}. "
            'Answer in JSON: {"DELTA": [' + ", ".join(["change"] * len(economy.brackets)) + "]}",
        ]
        return "\n".join(lines)


def _asked(ask: Ask, prompts: Sequence[str], read: Callable[[str], _Parsed], attempts: int) -> list[_Parsed]:
    """The answers to all prompts, read; those that cannot be are asked for again, told why."""
    parsed: dict[int, _Parsed] = {}
    waiting = dict(enumerate(prompts))
    for attempt in range(1, attempts + 1):
        answers = ask(list(waiting.values()))
        if len(answers) != len(waiting):
            raise InputError(f"{len(answers)} answers to {len(waiting)} prompts: must be one for each")
        again: dict[int, str] = {}
        for number, answer in zip(waiting, answers, strict=True):
            try:
                parsed[number] = read(answer)
            except InputError as error:
                if attempt == attempts:
                    raise InputError(f"prompt {number}, asked {attempts} times: {error}") from None
                again[number] = f"{prompts[number]}\nYour last answer could not be read: {error}."
        if not again:
            break
        waiting = again
    return [parsed[number] for number in range(len(prompts))]


def _attempts(attempts: int) -> int:
    if attempts < 1:
        raise InputError(f"attempts = {attempts}: must be at least 1")
    return attempts


def _single(skills: OfWorkers) -> None:
    if skills.ndim != 1:
        raise InputError(f"skills of shape {skills.shape}: language models play a single economy, [workers]")


def _schedule(economy: TaxEconomy, rates: Rates) -> str:
    told = (f"{rate:g} % above ${start:,.0f}" for rate, start in zip(rates, economy.brackets.thresholds, strict=True))
    return ", ".join(told)


def _percent(rates: Rates) -> str:
    return ", ".join(f"{rate:g} %" for rate in rates)
