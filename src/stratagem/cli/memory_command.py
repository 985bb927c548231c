"""``doctor --model``: whether a training run fits into memory, and which setting would make it fit."""

from __future__ import annotations

import dataclasses
import math
import os
from importlib import import_module
from typing import Any

from rich.console import Console
from rich.table import Table

from stratagem.errors import InputError

GIB = 2**30
FITS, TOO_LARGE = 0, 1
CUDA_CONTEXT = GIB // 2
"""What CUDA itself takes on an accelerator before the first tensor."""


@dataclasses.dataclass(frozen=True)
class Asked:
    """The options of ``stratagem train`` that memory depends on, and what else can be said beforehand.

    device_memory: GiB there are; None: as many as this machine has.  episode_tokens: of the longest episode; None: as
    long as the task lets it become.
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
    from stratagem.training.memory_plan import memory_plan, settings_that_help

    cuda, native = _device(asked)
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
    )
    if asked.lora is not None:
        _import_peft()
    base = CUDA_CONTEXT if cuda else int(peak_memory(torch.device("cpu")) * 2**20)
    available = _available(asked, cuda)
    made = memory_plan(shape, work, base)
    fits = made.total <= available
    settings = [] if fits else settings_that_help(shape, work, available, base, native_bfloat16=native)
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
        "sessions": work.sessions,
        "precision": "bfloat16" if work.bfloat16 else "float32",
        "device": "cuda" if cuda else "cpu",
        "peak_phase": made.peak_phase,
        "parts": [{"name": part.name, "gib": part.size / GIB, "phases": list(part.phases)} for part in made.parts],
        "total_gib": made.total / GIB,
        "available_gib": available / GIB,
        "fits": fits,
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
    batch, episode, peak = found["batch"], found["episode"], found["peak_phase"]
    console.print(
        f"{found['model']}: {found['parameters'] / 1e6:,.1f} M weights, {found['recipe']} on {found['task']}, "
        f"{found['precision']} on {found['device']}"
    )
    console.print(
        f"at most {episode['tokens']:,} tokens in an episode ({episode['counted_by']}), {batch['episodes']} episodes "
        f"in a batch, {batch['microbatch_tokens']:,} tokens in a micro-batch, {found['sessions']} sessions"
    )
    parts = Table("part", "GiB", "held in", box=None, pad_edge=False)
    for part in found["parts"]:
        held = "always" if len(part["phases"]) > 2 else ", ".join(part["phases"])
        parts.add_row(part["name"], _size(part["gib"]), held)
    parts.add_row(f"most at once ({peak})", _size(found["total_gib"]), "")
    parts.add_row("there is", _size(found["available_gib"]), "")
    console.print(parts)
    console.print("fits" if found["fits"] else "does not fit")
    if found["fits"]:
        return
    table = Table("setting", "alone", "with those above", "what it means", box=None, pad_edge=False)
    for setting in found["settings"]:
        together = "" if setting["together_gib"] is None else _size(setting["together_gib"])
        if setting["fits_together"]:
            together += " fits"
        note = setting["note"] if setting["helps"] else "does not help here"
        table.add_row(setting["option"], _size(setting["alone_gib"]), together, note)
    console.print(table)
    if not any(setting["fits_together"] for setting in found["settings"]):
        console.print("no setting makes it fit: a smaller model, shorter episodes (--episode-tokens), or more memory")


def _size(gib: float) -> str:
    return f"{gib:,.3f}" if gib < 10 else f"{gib:,.1f}"
