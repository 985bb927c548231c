"""The world a run is asked for: a task, its policy, and what lets that act."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from stratagem.cluster.plan import Cluster
from stratagem.control.policy import ControlPolicy
from stratagem.control.task import GymTask
from stratagem.control.world import ControlWorld
from stratagem.diffusion.policy import DiffusionPolicy
from stratagem.diffusion.tasks import DiffusionTask
from stratagem.diffusion.world import DiffusionWorld
from stratagem.errors import InputError, unknown
from stratagem.hybrid.policy import HybridPolicy
from stratagem.hybrid.task import HybridTask
from stratagem.hybrid.world import HybridWorld
from stratagem.lab.experts import read_node_policy
from stratagem.lab.world import LabTask, LabWorld
from stratagem.language.engine import Engine
from stratagem.language.engines import ENGINES, Precision, find_device, load_policy, make_engine
from stratagem.language.policy import LanguagePolicy
from stratagem.language.team import Team
from stratagem.language.world import LanguageWorld
from stratagem.multiagent.game import MultiAgentTask
from stratagem.multiagent.policy import AgentsPolicy
from stratagem.multiagent.world import MultiAgentWorld
from stratagem.skills import Skilled
from stratagem.skills.world import SkilledWorld
from stratagem.tasks.task import AnyTask, Task
from stratagem.training.world import World


@dataclass(frozen=True)
class Request:
    """What a run was asked for; ``run.json`` holds it, and a resumed run builds the same world from it.

    recipe: catalogue name, or path of a YAML file.  task: specification.  model: folder or hub name; ``tiny``, the
    model that ships; for the other kinds the folder of a saved policy, or None for a fresh one. Of a team on a text
    task, models by role: ``role0``, ``role1``, ... and ``others``.
    engine: what samples text (``hf``, or ``vllm``).
    precision: of policy and engine; ``auto`` is bfloat16 where it is native.
    lora: rank of low-rank adapters, None to train all weights.
    concurrency: episodes played side by side.  timeout: seconds an environment may take for one step.
    device: of a language model, as torch names it; ``auto`` is CUDA where there is one. Control runs on the processor.
    gradient_checkpointing: whether a language model computes each layer twice instead of keeping its activations.
    cluster: of whose processes the run consists; None: of this one.

    Raises :class:`InputError` for an engine that does not exist.
    """

    recipe: str
    task: str
    model: str | dict[str, str] | None = None
    engine: str = "hf"
    precision: Precision = "auto"
    lora: int | None = None
    concurrency: int = 256
    timeout: float = 30.0
    device: str = "auto"
    gradient_checkpointing: bool = False
    cluster: Cluster | None = None

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise unknown("engine", self.engine, ENGINES)


def build_world(request: Request, task: AnyTask, seed: int) -> World:
    """The world of a task: its policy from ``request.model``, and what lets it act."""
    builders: dict[str, Callable[[Request, Any, int], World]] = {
        "text": _language,
        "control": _control,
        "lab": _lab,
        "diffusion": _diffusion,
        "hybrid": _hybrid,
        "multiagent": _multiagent,
    }
    if task.family not in builders:
        raise unknown(f"kind of task for training, that of {task.name}:", task.family, builders)
    return builders[task.family](request, task, seed)


def _language(request: Request, task: Task, seed: int) -> World:
    torch.manual_seed(seed)
    policy = load_policy(request.model, request.precision, request.lora, request.gradient_checkpointing)
    policy.to(find_device(request.device))
    return language_world(task, policy, make_engine(request.engine, policy, request.precision), seed, request)


def language_world(
    task: Task, policy: LanguagePolicy | Team, engine: Engine, seed: int, request: Request, threads: int = 1
) -> LanguageWorld:
    """The world of a language policy that acts by this engine. threads: calls of environments made at once."""
    how = (policy, engine, seed, request.concurrency, request.timeout, threads)
    return SkilledWorld(task, *how) if isinstance(task, Skilled) else LanguageWorld(task, *how)


def _one_policy(request: Request) -> str | None:
    """The folder of the policy. Raises :class:`InputError` for a team."""
    if isinstance(request.model, dict):
        raise InputError(f"task {request.task}: takes one policy; only text tasks are for teams of models")
    return request.model


def _control(request: Request, task: GymTask, seed: int) -> World:
    folder = _one_policy(request)
    policy = None if folder is None else ControlPolicy.from_directory(folder)
    return ControlWorld(task, seed, policy)


def _lab(request: Request, task: LabTask, seed: int) -> World:
    folder = _one_policy(request)
    policy = None if folder is None else read_node_policy(folder)
    return LabWorld(task, seed, policy)


def _diffusion(request: Request, task: DiffusionTask, seed: int) -> World:
    folder = _one_policy(request)
    policy = None if folder is None else DiffusionPolicy.from_directory(folder)
    return DiffusionWorld(task, seed, policy)


def _hybrid(request: Request, task: HybridTask, seed: int) -> World:
    folder = _one_policy(request)
    policy = None if folder is None else HybridPolicy.from_directory(folder)
    return HybridWorld(task, seed, policy)


def _multiagent(request: Request, task: MultiAgentTask, seed: int) -> World:
    folder = _one_policy(request)
    policy = None if folder is None else AgentsPolicy.from_directory(folder)
    return MultiAgentWorld(task, seed, policy)
