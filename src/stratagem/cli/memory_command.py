"""``doctor --model``: whether a training run fits into memory, and which setting would make it fit."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shlex
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Column, Table

from stratagem.errors import InputError

if TYPE_CHECKING:
    from stratagem.training.memory_settings import ProcessPlan

GIB = 2**30
FITS, TOO_LARGE = 0, 1
CUDA_CONTEXT = GIB // 2
"""What CUDA itself takes on an accelerator before the first tensor."""


@dataclasses.dataclass(frozen=True)
class Asked:
    """The options of ``stratagem train`` that memory depends on, and what else can be said beforehand.

    device_memory: GiB there are; None: as many as this machine has.  episode_tokens: of the longest episode; None: as
    long as the task lets it become.  learners, rollout_workers: None: as many as there are at least, and where neither
    is given, nor ``offload``, one process that does all.
    """

    model: str
    task: str
    recipe: str
    values: dict[str, Any]
    precision: str
    lora: int | None
    gradient_checkpointing: bool
    concurrency: int
    episodes: int
    device: str
    device_memory: float | None
    episode_tokens: int | None
    learners: int | None = None
    rollout_workers: int | None = None
    offload: bool = False

    @property
    def on_cluster(self) -> bool:
        """Whether the run has learners and rollout workers."""
        return self.learners is not None or self.rollout_workers is not None or self.offload


def plan(asked: Asked, as_json: bool) -> int:
    """Print the plan and return the exit code: 0 when the run fits, 1 when it does not."""
    found = planned(asked)
    if as_json:
        Console().print_json(data=found)
    else:
        _show(found)
    return FITS if found["fits"] else TOO_LARGE


def planned(asked: Asked) -> dict[str, Any]:
    """The plan as plain data, sizes in GiB. Raises :class:`InputError` for wrong input."""
    import torch

    from stratagem import run
    from stratagem.language import footprint
    from stratagem.language.engines import TINY
    from stratagem.language.pretrain import tiny_model_path
    from stratagem.tasks import registry
    from stratagem.tasks.task import Task
    from stratagem.training.memory import peak_memory
    from stratagem.training.memory_settings import needed_bytes, process_plans, settings_that_help

    cuda, native = _device(asked)
    if asked.offload and not cuda:
        raise InputError("--offload: is from GPUs to main memory, and this plan is of a processor; add --device cuda")
    task = registry.make(asked.task)
    if not isinstance(task, Task):
        raise InputError(f"task {asked.task}: is not played in text; only runs of language models are planned")
    path = str(tiny_model_path()) if asked.model == TINY else asked.model
    shape = footprint.model_shape(path)
    length = footprint.episode_length(task, shape.context, footprint.tokenizer_of(path))
    if asked.episode_tokens is not None:
        if not 1 <= asked.episode_tokens <= shape.context:
            raise InputError(
                f"--episode-tokens {asked.episode_tokens}: must be from 1 to {shape.context}, the model's context"
            )
        length = dataclasses.replace(length, context=asked.episode_tokens)
    recipe = run.find_recipe(asked.recipe).with_values(asked.values)
    work = footprint.workload(
        recipe,
        shape,
        length,
        evaluation=asked.episodes,
        concurrency=asked.concurrency,
        bfloat16=asked.precision == "bfloat16" or (asked.precision == "auto" and native),
        lora=asked.lora,
        checkpointing=asked.gradient_checkpointing,
        cuda=cuda,
        learners=asked.learners or 1,
        rollout_workers=(asked.rollout_workers or 1) if asked.on_cluster else 0,
        offload=asked.offload,
    )
    if asked.lora is not None:
        _import_peft()
    base = CUDA_CONTEXT if cuda else int(peak_memory(torch.device("cpu")) * 2**20)
    available = _available(asked, cuda)
    needed = needed_bytes(shape, work, base)
    fits = needed <= available
    settings = [] if fits else settings_that_help(shape, work, available, base, native_bfloat16=native)
    taken = [setting for setting in settings if setting.together is not None]
    enough = fits or any(setting.together <= available for setting in taken if setting.together is not None)
    return {
        "model": asked.model,
        "parameters": shape.parameters,
        "recipe": recipe.name,
        "task": asked.task,
        "episode": {
            "tokens": work.sequence,
            "prompt": work.prompt,
            "counted_by": "the model's tokenizer" if length.counted else "letters: the folder has no tokenizer",
        },
        "batch": {"episodes": work.episodes, "tokens": work.batch_tokens, "microbatch_tokens": work.piece_tokens},
        "learner_tokens": work.share_tokens,
        "sessions": work.sessions,
        "precision": "bfloat16" if work.bfloat16 else "float32",
        "device": "cuda" if cuda else "cpu",
        "processes": [_described(process, available) for process in process_plans(shape, work, base)],
        "total_gib": needed / GIB,
        "available_gib": available / GIB,
        "fits": fits,
        "command": _command(asked, [setting.options for setting in taken]) if enough else None,
        "settings": [
            {
                "option": setting.option,
                "note": setting.note,
                "alone_gib": setting.alone / GIB,
                "together_gib": None if setting.together is None else setting.together / GIB,
                "fits_together": setting.together is not None and setting.together <= available,
                "helps": setting.helps,
            }
            for setting in settings
        ],
    }


def _described(process: ProcessPlan, available: int) -> dict[str, Any]:
    plan = process.plan
    return {
        "role": process.role,
        "count": process.count,
        "peak_phase": plan.peak_phase,
        "parts": [{"name": part.name, "gib": part.size / GIB, "phases": list(part.phases)} for part in plan.parts],
        "total_gib": plan.total / GIB,
        "offloaded_gib": process.offloaded / GIB,
        "fits": plan.total <= available,
    }


def _command(asked: Asked, further: Iterable[Mapping[str, str]]) -> str:
    """The run that was asked about, with these options in addition or instead, to be pasted."""
    from stratagem.training.memory_settings import written

    usual = {"--device": "auto", "--precision": "auto", "--concurrency": 256, "--episodes": 100}
    given: dict[str, Any] = {"--device": asked.device, "--precision": asked.precision, "--lora": asked.lora}
    given |= {"--concurrency": asked.concurrency, "--episodes": asked.episodes}
    options = {"--task": asked.task, "--model": asked.model}
    options |= {f"--set {path}": json.dumps(value) for path, value in asked.values.items()}
    options |= {name: str(value) for name, value in given.items() if value not in (None, usual.get(name))}
    options |= {"--gradient-checkpointing": ""} if asked.gradient_checkpointing else {}
    if asked.on_cluster:
        counts = {"--learners": asked.learners or 1, "--rollout-workers": asked.rollout_workers or 1}
        options |= {"--cluster": "local", **{name: str(count) for name, count in counts.items()}}
        options |= {"--offload": ""} if asked.offload else {}
    for more in further:
        options |= more
    return f"stratagem train {shlex.quote(asked.recipe)} {written(options)}"


def _import_peft() -> None:
    """Its modules are part of what such a run takes."""
    try:
        import_module("peft")
    except ImportError as error:
        raise InputError("lora needs peft; install stratagem[lora]") from error


def _device(asked: Asked) -> tuple[bool, bool]:
    """Whether the run is on CUDA, and whether bfloat16 is native there. A CUDA device need not be here."""
    import torch

    from stratagem.language.policy import native_bfloat16

    kind = asked.device.split(":")[0]
    if kind not in ("auto", "cpu", "cuda"):
        raise InputError(f"--device {asked.device}: must be cpu, cuda or auto")
    here = torch.cuda.is_available()
    cuda = kind == "cuda" or (kind == "auto" and here)
    if cuda and not here:
        if asked.device_memory is None:
            raise InputError(f"--device {asked.device}: there is none here; say what it has with --device-memory GIB")
        return True, True
    return cuda, native_bfloat16("cuda" if cuda else "cpu")


def _available(asked: Asked, cuda: bool) -> int:
    import torch

    if asked.device_memory is not None:
        if not (asked.device_memory > 0 and math.isfinite(asked.device_memory)):
            raise InputError(f"--device-memory {asked.device_memory}: must be above 0 GiB")
        return int(asked.device_memory * GIB)
    if cuda:
        return int(torch.cuda.get_device_properties(None if asked.device == "auto" else asked.device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _show(found: dict[str, Any]) -> None:
    console = Console(highlight=False, markup=False)
    batch, episode, processes = found["batch"], found["episode"], found["processes"]
    console.print(
        f"{found['model']}: {found['parameters'] / 1e6:,.1f} M weights, {found['recipe']} on {found['task']}, "
        f"{found['precision']} on {found['device']}"
    )
    console.print(
        f"at most {episode['tokens']:,} tokens in an episode ({episode['counted_by']}), {batch['episodes']} episodes "
        f"in a batch, {batch['microbatch_tokens']:,} tokens in a micro-batch, {found['sessions']} sessions"
    )
    for process in processes:
        console.print(_table(process))
        if len(processes) > 1 and found["device"] == "cuda":
            console.print("fits" if process["fits"] else "does not fit")
    together = ", all processes together" if len(processes) > 1 and found["device"] == "cpu" else ""
    console.print(f"needed{together}: {_size(found['total_gib'])} GiB, there is: {_size(found['available_gib'])} GiB")
    console.print("fits" if found["fits"] else "does not fit")
    if not found["fits"]:
        _show_settings(console, found["settings"])
    if found["command"] is not None:
        console.print(found["command"], soft_wrap=True)
    else:
        console.print("no setting makes it fit: a smaller model, shorter episodes (--episode-tokens), or more memory")


def _table(process: dict[str, Any]) -> Table:
    from stratagem.training.memory_plan import PHASES

    title = "part" if process["role"] == "process" else f"each of {process['count']}: {process['role']}"
    parts = Table(title, "GiB", "held in", box=None, pad_edge=False)
    for part in process["parts"]:
        held = "always" if len(part["phases"]) == len(PHASES) else ", ".join(part["phases"])
        parts.add_row(part["name"], _size(part["gib"]), held)
    parts.add_row(f"most at once ({process['peak_phase']})", _size(process["total_gib"]), "")
    if process["offloaded_gib"]:
        parts.add_row("in main memory beside it", _size(process["offloaded_gib"]), "")
    return parts


def _show_settings(console: Console, settings: list[dict[str, Any]]) -> None:
    table = Table(
        Column("setting", overflow="fold"), "alone", "with those above", "what it means", box=None, pad_edge=False
    )
    for setting in settings:
        together = "" if setting["together_gib"] is None else _size(setting["together_gib"])
        if setting["fits_together"]:
            together += " fits"
        note = setting["note"] if setting["helps"] else "does not help here"
        table.add_row(setting["option"], _size(setting["alone_gib"]), together, note)
    console.print(table)


def _size(gib: float) -> str:
    return f"{gib:,.3f}" if gib < 10 else f"{gib:,.1f}"
