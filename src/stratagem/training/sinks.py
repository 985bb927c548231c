"""Where metrics go besides JSON-lines: TensorBoard, and whatever tracker is installed and asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from stratagem.errors import InputError


class Sink(Protocol):
    """Receives the metrics of every step."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None: ...
    def close(self) -> None: ...


class TensorBoardSink:
    """Event files in ``directory``; on resume, events after ``resumed_step`` are purged."""

    def __init__(self, directory: Path, resumed_step: int | None = None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        purge = None if resumed_step is None else resumed_step + 1
        self._writer = SummaryWriter(str(directory), purge_step=purge)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class WandbSink:
    """Weights & Biases (extra ``wandb``). Raises :class:`InputError` when it is not installed."""

    def __init__(self, project: str, config: Mapping[str, Any], directory: Path) -> None:
        try:
            import wandb
        except ImportError:
            raise InputError("Weights & Biases is not installed: pip install 'stratagem[wandb]'") from None
        self._run = wandb.init(project=project, config=dict(config), dir=str(directory), resume="allow")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        self._run.finish()
