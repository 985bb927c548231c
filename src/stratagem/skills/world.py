"""A language policy that learns a task with skills: what it was shown is counted, and audits change what it is."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import Any

from torch import Tensor

from stratagem.errors import InputError
from stratagem.language.engine import Engine
from stratagem.language.episodes import Episode
from stratagem.language.policy import LanguagePolicy
from stratagem.language.rollout import first_observation, play
from stratagem.language.solved import HELD_OUT
from stratagem.language.team import Team
from stratagem.language.world import LanguageWorld
from stratagem.memory.playing import transcript
from stratagem.parts import Sampler
from stratagem.sampling import Windows
from stratagem.seeding import derive
from stratagem.skills.lifecycle import Audit, Case, Trial
from stratagem.skills.task import Skilled, Trials
from stratagem.tasks.task import Split
from stratagem.training.world import PROBED, Collected


class SkilledWorld(LanguageWorld):
    """As :class:`LanguageWorld`, for a :class:`Skilled` task.

    Before the batch of every ``every``-th step, audits play held-out episodes numbered from ``HELD_OUT`` on with the
    weights just served. They have seeds of their own and take no start state from training: while they change nothing
    in the bank, a run with them is the run without. What they sample is not counted among a batch's tokens, as
    evaluation is not; ``skills/audit_tokens`` says how much it was. The bank is part of the world's state.

    Metrics, beside those of an audit in the step that follows it: ``skills/active``, ``skills/shown`` (mean per
    training episode). Of an audit: ``skills/success``, ``skills/audit_tokens``, ``skills/retired`` (harmful ones
    included), ``skills/added``, ``skills/value/NAME``.

    Raises :class:`InputError` for a sampler of windows, whose episodes would outlive the skills they were shown.
    """

    task: Skilled

    def __init__(
        self,
        task: Skilled,
        policy: LanguagePolicy | Team,
        engine: Engine,
        seed: int,
        concurrency: int = 256,
        timeout: float = 30.0,
        threads: int = 1,
    ) -> None:
        super().__init__(task, policy, engine, seed, concurrency, timeout, threads)
        self._shown: list[int] = []

    def collect(self, sampler: Sampler, step: int) -> Collected:
        """Audit if it is time, then roll out."""
        if isinstance(sampler, Windows):
            raise InputError("sampler windows: a task with skills takes rollouts or demonstrations")
        metrics: dict[str, float] = {}
        if 0 < step < PROBED and step % self.task.lifecycle.every == 0:
            metrics |= self._figures(*self.audit())
        self._shown = []
        collected = super().collect(sampler, step)
        metrics["skills/active"] = float(len(self.task.bank.active))
        if self._shown:
            metrics["skills/shown"] = fmean(self._shown)
        return dataclasses.replace(collected, metrics=collected.metrics | metrics)

    def _played(self, split: Split, episodes: Sequence[Episode]) -> None:
        if split == "train":
            for episode in episodes:
                if episode.failure is None:
                    self._note(episode)

    def _note(self, episode: Episode) -> None:
        task = self.task
        case = task.case(episode.index, episode.turns[0].observation.text)
        shown = task.lifecycle.retrieve(task.bank, case)
        self._shown.append(len(shown))
        trace = None if task.create is None else transcript(episode)
        task.lifecycle.note(task.bank, case.kind, episode.success, shown, trace)

    # ---- audits ----------------------------------------------------------------------------------------------------

    def audit(self) -> tuple[Audit, int]:
        """Audit the bank with the weights last served, and change it accordingly; also the tokens that it took."""
        task = self.task
        episodes: list[Episode] = []

        def tried(trials: Sequence[Trial]) -> list[float | None]:
            episodes.extend(self._attempted(trials))
            return [None if episode.failure is not None else float(episode.success) for episode in episodes]

        audit = task.lifecycle.audit(task.bank, self._cases(), tried, task.create)
        return audit, sum(episode.length for episode in episodes)

    def _figures(self, audit: Audit, tokens: int) -> dict[str, float]:
        metrics = {
            "skills/audit_tokens": float(tokens),
            "skills/retired": float(len(audit.retired) + len(audit.harmful)),
            "skills/added": float(len(audit.created) + len(audit.brought_back)),
        }
        if not math.isnan(audit.success):
            metrics["skills/success"] = audit.success
        values = {name: self.task.bank.entry(name).value for name in audit.marginals}
        return metrics | {f"skills/value/{name}": value for name, value in values.items() if value is not None}

    def _cases(self) -> list[Case]:
        """The same held-out episodes at every audit; those that cannot start are left out."""
        numbers = range(HELD_OUT, HELD_OUT + self.task.lifecycle.validation)
        openings = self._stage.watch.run([partial(first_observation, self.task.of, "test", index) for index in numbers])
        return [
            self.task.case(index, opening.value.text)
            for index, opening in zip(numbers, openings, strict=True)
            if opening.value is not None
        ]

    def _attempted(self, trials: Sequence[Trial]) -> list[Episode]:
        """Trials of one case sample with one seed."""
        task, temperature = Trials(self.task, trials), self.task.lifecycle.temperature
        stage = self._stage
        params = stage.params(1.0 if temperature is None else temperature, greedy=temperature is None)
        episodes = [
            Episode(number, 0, derive(stage.seed, "audit", trial.case.number)) for number, trial in enumerate(trials)
        ]
        for some in stage.side_by_side(episodes):
            play(task, "test", some, stage.engine, stage.chat, params, stage.watch)
        return episodes

    # ---- state -----------------------------------------------------------------------------------------------------

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """As of every language world, and the bank."""
        tensors, plain = super().state_dict()
        return tensors, {**plain, "skills": self.task.bank.state_dict()}

    def load_state_dict(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Continue with the bank as it was."""
        super().load_state_dict(tensors, plain)
        self.task.bank.load_state_dict(plain["skills"])
