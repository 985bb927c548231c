"""Which processes a run consists of, whether their memory is enough, and which settings would make them need less."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from stratagem.training.memory_plan import (
    MemoryPlan,
    ModelShape,
    Workload,
    memory_plan,
    offloaded_bytes,
    rollout_plan,
)

LEAST_HELP = 0.01
"""A setting helps when the total falls by at least this share."""


@dataclass(frozen=True)
class ProcessPlan:
    """What each of ``count`` processes of one role needs: on its device, and of it in main memory beside."""

    role: str
    count: int
    plan: MemoryPlan
    offloaded: int = 0


def process_plans(shape: ModelShape, work: Workload, base: int = 0) -> tuple[ProcessPlan, ...]:
    """The processes of a run: one that does all, or learners and rollout workers."""
    learners = ProcessPlan("learner", work.learners, memory_plan(shape, work, base), offloaded_bytes(shape, work))
    if work.rollout_workers == 0:
        return (replace(learners, role="process"),)
    return learners, ProcessPlan("rollout worker", work.rollout_workers, rollout_plan(shape, work, base))


def needed_bytes(shape: ModelShape, work: Workload, base: int = 0) -> int:
    """Bytes a device must have: of the process that needs most, and on a processor of all together, on one machine."""
    plans = process_plans(shape, work, base)
    if work.cuda:
        return max(process.plan.total for process in plans)
    return sum(process.count * process.plan.total for process in plans)


@dataclass(frozen=True)
class Setting:
    """One way to need less, as it is written on the command line.

    options: by name; a ``--set PATH`` has its value as any other, and a flag has an empty one.
    alone: bytes in all with it and nothing else changed.  together: on top of the settings before it that have this
    figure; None where the run fitted already, or where it does not help.  helps: whether it does, alone or on top.
    """

    options: Mapping[str, str]
    note: str
    alone: int
    together: int | None
    helps: bool

    @property
    def option(self) -> str:
        """The words of the command line."""
        return written(self.options)


def written(options: Mapping[str, str]) -> str:
    """Options as words of a command line."""
    words = []
    for name, value in options.items():
        if name.startswith("--set "):
            words.append("--set " + shlex.quote(f"{name.removeprefix('--set ')}={value}"))
        else:
            words.append(f"{name} {shlex.quote(value)}" if value else name)
    return " ".join(words)


def settings_that_help(
    shape: ModelShape, work: Workload, available: int, base: int = 0, *, native_bfloat16: bool = True
) -> list[Setting]:
    """What could be set otherwise, first what changes no number of the training, and what each would bring.

    Values are the mildest with which the run fits, on top of the settings before, and the strongest where none is
    enough. What is set already is left out. What takes more devices comes last, and only on CUDA: on one machine's
    processor more processes take more memory.
    """

    def total(with_it: Workload) -> int:
        return needed_bytes(shape, with_it, base)

    slow = "" if native_bfloat16 else "; not native on this machine, so slow"
    ways: list[tuple[str, str, Callable[[Workload], list[Any]]]] = [
        ("microbatch_tokens", "same numbers, more passes", _smaller_pieces),
        ("checkpointing", "same numbers, each layer computed twice", _checkpointing),
        ("concurrency", "same numbers, slower rollouts", _fewer_sessions),
        ("bfloat16", f"rounds more{slow}", _bfloat16),
        ("lora", "trains adapters only", _adapters),
        ("rollout_workers", "same numbers, a device for each", _more_workers),
        ("learners", "same numbers but for rounding, a device for each process", _more_learners),
        ("offload", "same numbers but for rounding, slower; weights in main memory", _offload),
    ]
    before = best = total(work)
    with_best, found = work, list[Setting]()
    for field, note, values_of in ways:
        onto = with_best if best > available else work
        values = values_of(onto)
        if not values:
            continue
        tried = [(value, _with(onto, field, value)) for value in values]
        value, with_it = next((one for one in tried if total(one[1]) <= available), tried[-1])
        # Offloading is written with the learners that it comes on top of.
        alone = total(replace(_with(work, field, value), learners=with_it.learners))
        stacked = total(with_it)
        on_top = stacked <= (1 - LEAST_HELP) * best
        needed = best > available and on_top
        helps = on_top or alone <= (1 - LEAST_HELP) * before
        found.append(Setting(_options(field, with_it), note, alone, stacked if needed else None, helps))
        if needed:
            best, with_best = stacked, with_it
    return found


def _smaller_pieces(work: Workload) -> list[int]:
    """Half the micro-batch, a quarter and so on, down to what must not be cut."""
    least, size, sizes = work.together * work.sequence, work.piece_tokens // 2, list[int]()
    while size > least:
        sizes.append(size)
        size //= 2
    return [*sizes, least] if work.piece_tokens > least else []


def _checkpointing(work: Workload) -> list[bool]:
    return [] if work.checkpointing else [True]


def _fewer_sessions(work: Workload) -> list[int]:
    """Half the sessions, a quarter and so on, down to 16 in an engine, below which its cache does not get smaller."""
    engines = max(work.rollout_workers, 1)
    sizes, size = list[int](), work.sessions * engines // 2
    while size >= 16 * engines:
        sizes.append(size)
        size //= 2
    return sizes


def _bfloat16(work: Workload) -> list[bool]:
    return [] if work.bfloat16 else [True]


def _adapters(work: Workload) -> list[int]:
    return [8] if work.lora is None else []


def _options(field: str, work: Workload) -> dict[str, str]:
    """Of the command line, for the value that this field has."""
    cluster = {"--cluster": "local", "--learners": str(work.learners), "--rollout-workers": str(work.rollout_workers)}
    return {
        "microbatch_tokens": {"--set optimization.microbatch_tokens": str(work.microbatch_tokens)},
        "checkpointing": {"--gradient-checkpointing": ""},
        "concurrency": {"--concurrency": str(work.concurrency)},
        "bfloat16": {"--precision": "bfloat16"},
        "lora": {"--lora": str(work.lora)},
        "rollout_workers": {"--rollout-workers": str(work.rollout_workers)},
        "learners": cluster,
        "offload": {**cluster, "--offload": ""},
    }[field]


def _with(work: Workload, field: str, value: Any) -> Workload:
    """The run with this setting; on a cluster, where there is only a cluster's."""
    workers = work.rollout_workers or int(field in ("learners", "offload"))
    return replace(work, **{"rollout_workers": workers, field: value})


def _more_workers(work: Workload) -> list[int]:
    """Twice as many, four times and so on, while each has more sessions than its cache has room for at least."""
    if not work.cuda or work.rollout_workers == 0:
        return []
    counts, count = list[int](), 2 * work.rollout_workers
    while replace(work, rollout_workers=count // 2).sessions > 16:
        counts.append(count)
        count *= 2
    return counts


def _more_learners(work: Workload) -> list[int]:
    """One where the engine is with it, then two, four and so on."""
    if not work.cuda:
        return []
    first = 1 if work.rollout_workers == 0 else 2 * work.learners
    return [first * 2**power for power in range(7)]


def _offload(work: Workload) -> list[bool]:
    return [True] if work.cuda and not work.offload else []
