"""A curriculum of tasks that were tried first: neither too easy for the agent nor in reach of a control policy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from jaxtyping import Bool, Float64, Int
from torch import Tensor

from stratagem.errors import InputError
from stratagem.parts import Curriculum
from stratagem.prompts import Pool, Probed

Share = Annotated[float, Ge(0), Le(1)]


@dataclass(frozen=True)
class ProbedTasks(Curriculum):
    """Start states drawn from a buffer of those that passed three tests when they were proposed.

    Before every batch ``proposals`` start states are drawn at random and tried ``episodes`` times by the agent, with
    scores ``V``, and by a control policy, with scores ``V_c``. One is accepted where

    (a) ``share(V > easy) < easy_share``: it is not too easy;
    (b) ``share(V > V_c + margin) > margin_share``: the agent is better than the control policy;
    (c) ``share(V_c > trivial) < trivial_share``: the control policy does badly.

    Trials are compared one by one in (b), and a tie is no excess. The groups of the batch are drawn evenly from the
    last ``buffer`` accepted start states; while there are fewer than ``least``, at random, and ``curriculum/filtered``
    is 0 instead of 1. Thresholds are in units of the score, which is in [0, 1] where the world knows bounds.

    Trials are paid for: the world counts their steps. Source: arXiv 2107.12808, section on dynamic task generation,
    where all thresholds are evolved; these defaults are ours. Raises :class:`InputError` in a world that tries nothing.
    """

    prompts: Annotated[int, Ge(1)] | None = 20_000
    proposals: Annotated[int, Ge(1)] = 8
    episodes: Annotated[int, Ge(1)] = 10
    easy: float = 0.5
    easy_share: Share = 0.5
    margin: Annotated[float, Ge(0)] = 0.0
    margin_share: Share = 0.1
    trivial: float = 0.5
    trivial_share: Annotated[float, Gt(0), Le(1)] = 0.1
    buffer: Annotated[int, Ge(1)] = 256
    least: Annotated[int, Ge(1)] = 8
    _memory: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.least > self.buffer:
            raise InputError(f"{self.part_name()}.least = {self.least}: must be at most buffer = {self.buffer}")
        # Accepted numbers, how many were ever accepted, and of the last proposals the shares that passed.
        self._memory.update(
            accepted=torch.full((self.buffer,), -1),
            count=torch.zeros(1, dtype=torch.int64),
            passed=torch.zeros(4, dtype=torch.float64),
        )

    def memory(self) -> dict[str, Tensor]:
        return self._memory

    @property
    def accepted(self) -> Int[Tensor, " held"]:
        """Start states in the buffer."""
        return self._memory["accepted"][self._memory["accepted"] >= 0]

    def tests(self, probed: Probed) -> Bool[Tensor, "3 tasks"]:
        """Whether each start state passes (a), (b) and (c)."""
        easy = _share(probed.agent > self.easy) < self.easy_share
        better = _share(probed.agent > probed.control + self.margin) > self.margin_share
        poor = _share(probed.control > self.trivial) < self.trivial_share
        return torch.stack([easy, better, poor])

    def choose(self, pool: Pool, groups: int, source: torch.Generator) -> Int[Tensor, " groups"]:
        if pool.probe is None:
            raise InputError(f"curriculum {self.part_name()}: this world tries no start states; one of openended does")
        proposed = pool.number[torch.randperm(len(pool), generator=source)[: self.proposals]]
        passed = self.tests(pool.probe(proposed, self.episodes))
        self._accept(proposed[passed.all(0)])
        self._memory["passed"].copy_(torch.cat([passed, passed.all(0, keepdim=True)]).double().mean(1))
        held = self.accepted
        # The pool may have changed: what is no longer in it is not rolled out.
        held = held[torch.isin(held, pool.number)]
        if len(held) < self.least:
            return torch.randint(len(pool), (groups,), generator=source)
        drawn = held[torch.randint(len(held), (groups,), generator=source)]
        return torch.searchsorted(pool.number, drawn)

    def figures(self, pool: Pool) -> dict[str, float]:
        easy, better, poor, accepted = self._memory["passed"].tolist()
        return {
            "accepted": accepted,
            "passed/not_easy": easy,
            "passed/beats_control": better,
            "passed/not_trivial": poor,
            "held": float(len(self.accepted)),
            "filtered": float(len(self.accepted) >= self.least),
        }

    def _accept(self, number: Int[Tensor, " tasks"]) -> None:
        number = number[: self.buffer]
        first = int(self._memory["count"])
        place = torch.arange(first, first + len(number)) % self.buffer
        self._memory["accepted"][place] = number
        self._memory["count"] += len(number)


def _share(exceeds: Bool[Tensor, "tasks episodes"]) -> Float64[Tensor, " tasks"]:
    return exceeds.double().mean(1)
