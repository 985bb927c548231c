"""The run directory: what a run writes, always whole, so that a kill at any instant loses nothing finished."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from stratagem.errors import InputError

PATIENCE = 30.0
"""Seconds in which a process that worked on a run should be gone, once what started it was killed."""

PACKAGES = ("stratagem", "torch", "transformers", "numpy", "gymnasium", "textworld", "reasoning-gym")


@dataclass(frozen=True)
class Checkpoint:
    """One moment of a run: plain JSON ``state`` and named groups of tensors."""

    state: dict[str, Any]
    tensors: dict[str, dict[str, Tensor]]


@dataclass(frozen=True)
class RunDirectory:
    """Paths and atomic writes of one run.

    ``recipe.yaml``, ``run.json`` (what was asked for), ``environment.json``, ``metrics.jsonl``, ``evaluations.jsonl``,
    ``samples.jsonl``, ``episodes.jsonl`` (the ledger), ``journal/``, ``tensorboard/``, ``checkpoints/step-N/``,
    ``model/`` (best by evaluation), ``report.html``.
    """

    path: Path

    @classmethod
    def create(cls, path: str | Path) -> RunDirectory:
        """A new run directory. Raises :class:`InputError` when it holds a run already or cannot be made."""
        path = Path(path)
        if (path / "run.json").exists():
            raise InputError(f"run directory {path}: holds a run already; continue it with --resume {path}")
        try:
            (path / "checkpoints").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"run directory {path}: cannot be made ({error.strerror})") from None
        return cls(path)

    @classmethod
    def existing(cls, path: str | Path) -> RunDirectory:
        """A run directory written before. Raises :class:`InputError` when it is none."""
        path = Path(path)
        if not (path / "run.json").is_file():
            raise InputError(f"run directory {path}: holds no run (run.json is missing)")
        return cls(path)

    def withdraw(self) -> None:
        """Hold no run any more if nothing was done in it, so that one that was refused can be started here again."""
        if (self.path / "metrics.jsonl").exists() or (self.path / "evaluations.jsonl").exists():
            return
        for name in ("run.json", "recipe.yaml", "environment.json", "cluster.json", ".lock"):
            (self.path / name).unlink(missing_ok=True)
        for folder in (self.path / "journal", self.path / "checkpoints", self.path):
            with suppress(OSError):  # What others put here stays.
                folder.rmdir()

    @contextmanager
    def held(self, patience: float | None = None) -> Iterator[None]:
        """While it lasts no other process holds this run; one that was killed holds nothing.

        patience: seconds to wait for another process to let go; None: :data:`PATIENCE`. Where the file system knows no
        locks nothing is held. Raises :class:`InputError` when the other one does not let go.
        """
        end = time.monotonic() + (PATIENCE if patience is None else patience)
        with ExitStack() as stack:
            # What cannot be locked, or not even written to, says so elsewhere.
            with suppress(OSError):
                lock = stack.enter_context(open(self.path / ".lock", "a", encoding="utf-8"))
                while not _locked(lock.fileno()):
                    if time.monotonic() > end:
                        raise InputError(f"run {self.path}: another process is at work on it; end that one first")
                    time.sleep(0.1)
            yield

    # ---- small files -----------------------------------------------------------------------------------------------

    def write_text(self, name: str, text: str) -> None:
        """Write a file whole or not at all."""
        target = self.path / name
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            with open(temporary, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)

    def write_json(self, name: str, data: Mapping[str, Any]) -> None:
        """Write a JSON file whole or not at all."""
        self.write_text(name, json.dumps(data, indent=2) + "\n")

    def read_json(self, name: str) -> dict[str, Any]:
        """Read a JSON file. Raises :class:`InputError` when it is missing or broken."""
        try:
            data = json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise InputError(f"{self.path / name}: missing or not valid JSON") from None
        if not isinstance(data, dict):
            raise InputError(f"{self.path / name}: must hold a JSON object")
        return data

    def append(self, name: str, row: Mapping[str, Any]) -> None:
        """Add one line to a JSON-lines file."""
        with open(self.path / name, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Complete lines of a JSON-lines file; a line cut by a kill is not one.

        Raises :class:`InputError` naming the line that is no JSON object.
        """
        try:
            lines = (self.path / name).read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
        except FileNotFoundError:
            return []
        return [_row(f"{self.path / name}, line {number}", line) for number, line in enumerate(lines, 1)]

    def forget_after(self, name: str, step: int) -> None:
        """Drop the rows of steps after ``step``, which a resumed run is about to write again."""
        kept = [row for row in self.rows(name) if row.get("step", 0) <= step]
        if kept or (self.path / name).exists():
            self.write_text(name, "".join(json.dumps(row) + "\n" for row in kept))

    # ---- checkpoints -----------------------------------------------------------------------------------------------

    def save(self, name: str, checkpoint: Checkpoint, keep: int = 2) -> Path:
        """Write ``checkpoints/name`` whole or not at all, then drop all but the ``keep`` newest."""
        target = self.path / "checkpoints" / name
        with whole_directory(target) as directory:
            for group, tensors in checkpoint.tensors.items():
                save_file(dict(_storable(tensors)), directory / f"{group}.safetensors")
            state = {**checkpoint.state, "groups": sorted(checkpoint.tensors)}
            (directory / "state.json").write_text(json.dumps(state), encoding="utf-8")
            for file in directory.iterdir():
                with open(file, "rb") as handle:
                    os.fsync(handle.fileno())
        for old in self.checkpoints()[:-keep]:
            shutil.rmtree(old, ignore_errors=True)
        return target

    def checkpoints(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        found = [path for path in (self.path / "checkpoints").glob("step-*") if (path / "state.json").is_file()]
        return sorted(found, key=lambda path: [int(number) for number in path.name.split("-")[1:]])

    def load(self) -> Checkpoint:
        """The newest complete checkpoint. Raises :class:`InputError` when there is none or it is corrupt."""
        found = self.checkpoints()
        if not found:
            raise InputError(f"run directory {self.path}: has no complete checkpoint to resume from")
        return read_checkpoint(found[-1])

    def sweep(self) -> None:
        """Remove what a kill left half-written."""
        for leftover in (self.path / "checkpoints").glob(".*.tmp"):
            shutil.rmtree(leftover, ignore_errors=True)
        for leftover in self.path.glob(".*.tmp"):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)


def _locked(file: int) -> bool:
    """Lock an open file, unless another process has. Raises ``OSError`` where there are no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def read_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint. Raises :class:`InputError` naming the file that is missing or corrupt."""
    state_file = path / "state.json"
    try:
        state = json.loads(state_file.read_text(encoding="utf-8"))
        groups = state["groups"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"checkpoint {state_file}: missing or corrupt") from None
    tensors = {}
    for file in sorted(path.glob("*.safetensors")):
        try:
            tensors[file.stem] = load_file(file)
        except (SafetensorError, OSError, ValueError):
            raise InputError(f"checkpoint {file}: corrupt") from None
    missing = sorted(set(groups) - set(tensors))
    if missing:
        raise InputError(f"checkpoint {path / missing[0]}.safetensors: missing")
    return Checkpoint(state, tensors)


def environment(seed: int) -> dict[str, Any]:
    """Seed, command, versions and machine, for ``environment.json``."""
    return {"seed": seed, "command": command_line(), **machine()}


def file_name(name: str) -> str:
    """The name with a dash for every sign that has a meaning in paths."""
    return "".join(character if character.isalnum() or character in "-_" else "-" for character in name)


def command_line() -> list[str]:
    """The command that started this process, as one would type it."""
    program = Path(sys.argv[0])
    # A package that is run says by its specification what it is called, folders above it included.
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if program.name != "__main__.py":
        return [program.name, *sys.argv[1:]]
    package = program.parent.name if spec is None else spec.name.removesuffix(".__main__")
    return ["python", "-m", package, *sys.argv[1:]]


def machine() -> dict[str, Any]:
    """Versions and machine: what a figure may depend on beside its command.

    commit: of the checkout, marked ``-dirty`` when its source differs; None for an installed package.
    """
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "commit": _commit(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "packages": versions,
    }


@cache
def _commit() -> str | None:
    """The commit this package is checked out at, if it is."""
    checkout = Path(__file__).parents[3]
    if not (checkout / ".git").exists():
        return None
    git = ("git", "--no-optional-locks", "-C", str(checkout))
    try:
        head, changes = (
            subprocess.run([*git, *question], capture_output=True, text=True, check=True).stdout.strip()
            for question in (("rev-parse", "HEAD"), ("status", "--porcelain", "--", "src"))
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{head}-dirty" if changes else head


@contextmanager
def whole_directory(target: Path) -> Iterator[Path]:
    """A temporary directory that becomes ``target`` when the block succeeds and vanishes when it fails."""
    temporary, old = (target.with_name(f".{target.name}.{state}.tmp") for state in ("new", "old"))
    for leftover in (temporary, old):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        # Two renames instead of a slow removal, so that a kill hardly ever finds no target at all.
        if target.exists():
            os.replace(target, old)
        os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _row(where: str, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict):
        raise InputError(f"{where}: not a JSON object")
    return row


def _storable(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Tensors as the safetensors format takes them: on the CPU, contiguous, none sharing memory."""
    seen: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        shared = tensor.data_ptr() in seen and tensor.numel() > 0
        seen.add(tensor.data_ptr())
        yield name, tensor.clone() if shared else tensor
