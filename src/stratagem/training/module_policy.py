"""What small policies have in common: copies, no parameters for views, and a folder they are written to."""

from __future__ import annotations

import copy
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from stratagem.errors import InputError
from stratagem.parts import View
from stratagem.training.run_directory import whole_directory

_P = TypeVar("_P", bound="ModulePolicy")


class ModulePolicy(nn.Module, ABC):
    """A policy that is one torch module of our own, built from a few numbers; the rest of :class:`Policy` is its own.

    kind: by which its files are recognised.  says, views: as of every policy.
    """

    kind: ClassVar[str]
    says: ClassVar[frozenset[str]] = frozenset()
    views: ClassVar[tuple[type[View], ...]] = ()

    @abstractmethod
    def arguments(self) -> dict[str, Any]:
        """What it was built from, as plain data."""

    @property
    def device(self) -> torch.device:
        """Where the weights live."""
        return next(self.parameters()).device

    def view_parameters(self, view: View | None) -> Iterable[Tensor]:
        """None, for it has no view with parameters of its own."""
        return ()

    def frozen(self) -> Self:
        """A copy that no longer moves."""
        return self.copy()

    def copy(self) -> Self:
        """A copy that no longer moves."""
        return copy.deepcopy(self).requires_grad_(False)

    def weights(self) -> dict[str, Tensor]:
        """What is written of it."""
        return self.state_dict()

    def save(self, directory: Path, card: str) -> None:
        """Write ``policy.safetensors``, ``policy.json`` and the card as ``README.md``, all or nothing."""
        with whole_directory(directory) as temporary:
            save_file(self.weights(), temporary / "policy.safetensors")
            built = json.dumps({"kind": self.kind, **self.arguments()})
            (temporary / "policy.json").write_text(built + "\n", encoding="utf-8")
            (temporary / "README.md").write_text(card, encoding="utf-8")


def read_policy(directory: str | Path, what: str, builders: Mapping[str, Callable[..., _P]]) -> _P:
    """Read what :meth:`ModulePolicy.save` wrote.

    what: the policies there may be, in words.  builders: by kind, called with what :meth:`ModulePolicy.arguments` said.
    Raises :class:`InputError` when the folder is missing or damaged, or holds a policy of another kind.
    """
    directory = Path(directory)
    try:
        arguments = json.loads((directory / "policy.json").read_text(encoding="utf-8"))
        kind = arguments.pop("kind")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"policy {directory}: no readable {what} (policy.json)") from None
    if kind not in builders:
        raise InputError(f"policy {directory}: of kind {kind!r}, where {' or '.join(builders)} is needed")
    try:
        policy = builders[kind](**arguments)
        policy.load_state_dict(load_file(directory / "policy.safetensors"))
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        raise InputError(f"policy {directory}: no readable {what} ({type(error).__name__})") from None
    return policy
