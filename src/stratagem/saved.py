"""A run as its directory holds it: what was asked for, and the trainer that goes on from where it stands."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from stratagem.cluster.plan import Cluster
from stratagem.errors import InputError
from stratagem.recipe import Recipe
from stratagem.tasks import registry
from stratagem.tasks.task import AnyTask
from stratagem.training.loop import Settings
from stratagem.training.run_directory import Checkpoint, RunDirectory
from stratagem.training.sinks import Sink, TensorBoardSink, WandbSink
from stratagem.worlds import Request

_Saved = TypeVar("_Saved")

LATER = {"gradient_checkpointing": False, "cluster": None, "journal": False}
"""What requests were not asked when runs began to be saved, as they were answered then."""


@dataclass(frozen=True)
class SavedRun:
    """A run's directory and what it was asked for. wandb: project of Weights & Biases, if it is logged there.

    task_is_specified: whether its task can be made from the specification alone.
    """

    directory: RunDirectory
    request: Request
    settings: Settings
    wandb: str | None = None
    task_is_specified: bool = True

    def write(self) -> None:
        """Note in ``run.json`` what was asked for."""
        asked = {**dataclasses.asdict(self.request), "wandb": self.wandb, **dataclasses.asdict(self.settings)}
        self.directory.write_json("run.json", {**asked, "task_is_specified": self.task_is_specified})

    @classmethod
    def read(cls, directory: RunDirectory) -> Self:
        """What ``run.json`` says. Raises :class:`InputError` when something is missing there."""
        saved = {**LATER, **directory.read_json("run.json")}
        if saved["cluster"] is not None:
            saved["cluster"] = Cluster.from_json(saved["cluster"])
        request, settings = _from_json(Request, saved, directory), _from_json(Settings, saved, directory)
        return cls(directory, request, settings, saved.get("wandb"), saved.get("task_is_specified", True))

    def task(self, given: AnyTask | None = None) -> AnyTask:
        """The task: the one that is given, or else as specified. Raises :class:`InputError` when there is neither."""
        if given is not None:
            return given
        if not self.task_is_specified:
            raise InputError(
                f"run {self.directory.path}: was started with a task of its own; resume it with task= from Python"
            )
        return registry.make(self.request.task)

    @property
    def recipe(self) -> Recipe:
        """The recipe it began with."""
        return Recipe.load(self.directory.path / "recipe.yaml")

    def checkpoint(self) -> Checkpoint | None:
        """The newest complete checkpoint; None when the run died before its first was due, so that nothing is lost."""
        logged = max((row["step"] for row in self.directory.rows("metrics.jsonl")), default=0)
        if not self.directory.checkpoints() and logged <= self.settings.checkpoint_every:
            return None
        return self.directory.load()

    @property
    def reached(self) -> int:
        """Steps done at the newest complete checkpoint; -1 without one."""
        found = self.directory.checkpoints()
        return int(found[-1].name.split("-")[1]) if found else -1

    def sinks(self, resumed: int | None) -> tuple[Sink, ...]:
        """Where metrics go; the ones that may not be installed first. resumed: the step that is gone on from."""
        config: Mapping[str, Any] = {**dataclasses.asdict(self.request), **dataclasses.asdict(self.settings)}
        path = self.directory.path
        optional = () if self.wandb is None else (WandbSink(self.wandb, config, path),)
        return (*optional, TensorBoardSink(path / "tensorboard", resumed))


def _from_json(kind: type[_Saved], saved: Mapping[str, Any], run: RunDirectory) -> _Saved:
    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    missing = [name for name in names if name not in saved]
    if missing:
        raise InputError(f"{run.path / 'run.json'}: lacks {missing[0]}")
    return kind(**{name: saved[name] for name in names})
