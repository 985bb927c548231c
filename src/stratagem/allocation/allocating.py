"""Allocators compared by name: what they earn on the same episodes, how long they take, and a run directory."""

from __future__ import annotations

import inspect
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from stratagem.allocation.allocators import ExactAllocation, GeneticAllocation, GreedyAllocation, RandomAllocation
from stratagem.allocation.field import Field
from stratagem.allocation.instances import Allocation, Instances
from stratagem.allocation.policy import TwoStagePolicy
from stratagem.allocation.tasks import AllocationTask, find_task
from stratagem.allocation.two_stage import TwoStageAllocation
from stratagem.errors import BrokenRunError, InputError, unknown
from stratagem.seeding import derive, generator
from stratagem.training.run_directory import RunDirectory, environment, file_name

Allocate = Callable[[Instances, torch.Generator], Allocation]
Progress = Callable[[str, int], None]

FIXED: Mapping[str, Callable[..., Allocate]] = {
    "random": RandomAllocation,
    "greedy": GreedyAllocation,
    "genetic": GeneticAllocation,
    "exact": ExactAllocation,
}
"""Allocators that learn nothing."""

LEARNED: Mapping[str, Callable[..., TwoStageAllocation]] = {"two_stage_allocation": TwoStageAllocation}
"""Techniques that learn a policy first."""

SMALL: Mapping[str, Any] = {"learning_rate": 1e-3, "buffer": 20_000, "updates": 8}
"""What a learned technique is set to here unless it is told otherwise: published defaults take far more decisions.

A round is 32 decisions, after each of which the released code makes an update; here there are 8.
"""


class Sample(NamedTuple):
    """An allocator's answer to one instance: tasks of entities without those that would lose, and for which task each
    volunteered, where entities volunteer first."""

    allocation: Int64[Tensor, " entities"]
    volunteered: Int64[Tensor, " entities"] | None


@dataclass(frozen=True, eq=False)
class Allocated:
    """What one allocator earned.

    returns: by episode.  seconds: of learning.  decision: seconds that allocating one instance took, mean.
    policy: that it learned or read, if any.  sample: of the first held-out instance.
    """

    name: str
    returns: Float64[Tensor, " episodes"]
    seconds: float
    decision: float
    policy: TwoStagePolicy | None
    sample: Sample

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(self.returns.mean())

    @property
    def half(self) -> float:
        """Half of the 95 % interval of the mean over episodes; nan for a single one."""
        return 1.96 * float(self.returns.std()) / math.sqrt(len(self.returns)) if len(self.returns) > 1 else math.nan

    def row(self, task: str) -> dict[str, Any]:
        """As ``results.json`` has it."""
        half = None if math.isnan(self.half) else self.half
        figures = {"return": self.mean, "interval": half, "seconds": self.seconds, "decision": self.decision}
        return {"allocator": self.name, "task": task, "episodes": len(self.returns), **figures}


@dataclass(frozen=True, eq=False)
class Comparison:
    """What a comparison found.

    instance: the first of the held-out episodes, of which the results hold samples.  directory: of the run, if any; it
    holds learned policies under ``policies/``.
    """

    task: str
    results: tuple[Allocated, ...]
    instance: Instances
    directory: Path | None


def allocate(
    names: Sequence[str],
    task: str,
    *,
    decisions: int = 20_000,
    episodes: int = 64,
    seed: int = 0,
    arguments: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    progress: Progress = lambda name, number: None,
) -> Comparison:
    """Compare allocators on the same held-out episodes.

    names: of ``FIXED`` or ``LEARNED``, or folders of saved policies, which need not have met instances of this size.
    task: ``allocation:NAME[,option=value...]``.  decisions: that a technique learns from.  arguments: of every
    allocator that has them; learned ones start from ``SMALL``.
    out: a directory for ``run.json``, ``environment.json``, ``metrics.jsonl``, ``results.json``, ``policies/`` and
    ``report.html``.  progress: called with a technique's name and the decisions it has made.

    Raises :class:`InputError` for wrong input, before anything is learned, :class:`BrokenRunError` when it is
    interrupted between two allocators, naming the directory, which then holds those that are done.
    """
    if not names:
        raise InputError("allocators: name at least one")
    if decisions < 1 or episodes < 1:
        raise InputError(f"decisions={decisions}, episodes={episodes}: must be at least 1")
    found = find_task(task)
    made = {name: _made(name, arguments or {}) for name in dict.fromkeys(names)}
    _check_used(arguments or {}, made)
    if out is not None and (Path(out) / "run.json").exists():
        raise InputError(f"run directory {out}: holds a run already; name another with --out")
    rows: list[dict[str, Any]] = []
    results: list[Allocated] = []
    asked: dict[str, Any] = {"command": "allocate", "allocators": list(made), "task": task}
    asked |= {"arguments": dict(arguments or {}), "decisions": decisions, "episodes": episodes, "seed": seed}
    try:
        for name, one in made.items():
            results.append(_measured(name, one, found, decisions, episodes, seed, rows, progress))
    except KeyboardInterrupt:
        if out is None or not results:
            raise
        _written(asked, found, results, rows, out)
        raise BrokenRunError(f"stopped after {len(results)} of {len(made)} allocators, which are in {out}") from None
    return _written(asked, found, results, rows, out)


def play(allocator: Allocate, task: AllocationTask, episodes: int, seed: int) -> tuple[Float64[Tensor, " n"], float]:
    """One episode each: what was earned, and seconds for a decision. Episodes follow from the seed alone."""
    field, source = Field(task, episodes, seed), generator(seed, "allocator")
    earned, decided, spent = torch.zeros(episodes, dtype=torch.float64), 0, 0.0
    while not field.done:
        can = field.instances.free.any(1) & field.instances.open.any(1)
        began = time.perf_counter()
        allocation = allocator(field.instances, source)
        spent += time.perf_counter() - began
        decided += int(can.sum())
        earned += field.step(allocation)
    return earned, spent / max(decided, 1)


def run_name(names: Sequence[str], task: str, seed: int) -> str:
    """Of the directory a comparison is written to unless another is named."""
    words = "-".join(Path(name).name for name in dict.fromkeys(names))
    return file_name(f"{words}-{task}-seed{seed}")


def _made(name: str, arguments: Mapping[str, Any]) -> Allocate | TwoStageAllocation | TwoStagePolicy:
    """An allocator, a technique still to be trained, or a policy that was read."""
    if name in FIXED:
        known = inspect.signature(FIXED[name]).parameters
        return FIXED[name](**{key: value for key, value in arguments.items() if key in known})
    if name in LEARNED:
        known = inspect.signature(LEARNED[name]).parameters
        return LEARNED[name](**{**SMALL, **{key: value for key, value in arguments.items() if key in known}})
    if Path(name).is_dir():
        return TwoStagePolicy.from_directory(name)
    raise unknown("allocator", name, [*FIXED, *LEARNED])


def _check_used(arguments: Mapping[str, Any], made: Mapping[str, Any]) -> None:
    makers: Mapping[str, Callable[..., Any]] = {**FIXED, **LEARNED}
    taken = {key for name in made if name in makers for key in inspect.signature(makers[name]).parameters}
    for argument in arguments:
        if argument not in taken:
            raise unknown(f"argument of {', '.join(made)}", argument, taken)


def _measured(
    name: str,
    made: Allocate | TwoStageAllocation | TwoStagePolicy,
    task: AllocationTask,
    decisions: int,
    episodes: int,
    seed: int,
    rows: list[dict[str, Any]],
    progress: Progress,
) -> Allocated:
    policy, began = None, time.perf_counter()
    if isinstance(made, TwoStageAllocation):

        def show(decided: int, figures: Mapping[str, float]) -> None:
            progress(name, min(decided, decisions))
            if figures:
                rows.append({"allocator": name, "step": decided, **figures})

        policy = made.train(task, decisions, derive(seed, "learning"), progress=show)
    elif isinstance(made, TwoStagePolicy):
        policy = made
    seconds = time.perf_counter() - began
    allocator = policy.allocate if policy is not None else made
    assert callable(allocator), "it is an allocator where it is no policy"
    returns, decision = play(allocator, task, episodes, derive(seed, "held out"))
    seconds = seconds if isinstance(made, TwoStageAllocation) else 0.0
    sample = _sample(allocator, policy, _first(task, episodes, seed), generator(seed, "sample"))
    return Allocated(name, returns, seconds, decision, policy, sample)


def _first(task: AllocationTask, episodes: int, seed: int) -> Instances:
    """With what the first held-out episode begins."""
    return Field(task, episodes, derive(seed, "held out")).instances.at(torch.tensor([0]))


def _sample(allocator: Allocate, policy: TwoStagePolicy | None, instance: Instances, source: torch.Generator) -> Sample:
    if policy is None or not policy.shape.pre_assign:
        return Sample(instance.without_losses(allocator(instance, source))[0], None)
    decided = policy.decide(instance, source if policy.shape.sampled else None)
    return Sample(instance.without_losses(decided.allocation)[0], decided.chosen[0])


def _written(
    asked: Mapping[str, Any],
    task: AllocationTask,
    results: Sequence[Allocated],
    rows: Sequence[Mapping[str, Any]],
    out: str | Path | None,
) -> Comparison:
    """What was found, written down where there is a directory."""
    instance = _first(task, asked["episodes"], asked["seed"])
    if out is None:
        return Comparison(asked["task"], tuple(results), instance, None)
    from stratagem.study.allocation_report import write_allocation_report

    run = RunDirectory.create(out)
    found = Comparison(asked["task"], tuple(results), instance, run.path)
    run.write_json("run.json", asked)
    run.write_json("environment.json", environment(asked["seed"]))
    run.write_text("metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    run.write_json("results.json", {"results": [one.row(found.task) for one in results]})
    for one in results:
        if one.policy is not None and one.name in LEARNED:
            card = f"# {one.name}\n\nAllocates in two stages; learned on `{found.task}`.\n"
            one.policy.save(run.path / "policies" / one.name, card)
    write_allocation_report(found, run.path / "report.html", single=not task.walked, seed=asked["seed"])
    return found
