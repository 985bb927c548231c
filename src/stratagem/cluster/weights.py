"""Weights on their way to workers: tensors as plain arrays, adapters without what lies below them, and fingerprints."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stratagem.language.engine import WeightMismatchError, WeightSource, fingerprint
from stratagem.language.policy import LanguagePolicy

_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True, eq=False)
class Parcel:
    """Named tensors as numpy arrays of their bits, which an object store shares between processes without a copy.

    The bits are integers, since numpy has no bfloat16. Equal tensors (tied weights) are there once.

    arrays: the bits.  entries: of every name, the number of its array and its type.
    """

    arrays: tuple[np.ndarray[Any, Any], ...]
    entries: Mapping[str, tuple[int, torch.dtype]]

    @classmethod
    def of(cls, tensors: Iterable[tuple[str, Tensor]]) -> Parcel:
        """These tensors. Those in main memory are not copied: what changes them changes the parcel."""
        return cls.proved(tensors)[0]

    @classmethod
    def proved(cls, tensors: Iterable[tuple[str, Tensor]]) -> tuple[Parcel, dict[str, int]]:
        """These tensors and their fingerprints; beyond main memory one at a time is held."""
        arrays: list[np.ndarray[Any, Any]] = []
        entries: dict[str, tuple[int, torch.dtype]] = {}
        prints: dict[str, int] = {}
        places: dict[tuple[Any, ...], int] = {}
        for name, tensor in tensors:
            prints[name] = fingerprint(tensor)
            bits = tensor.detach().cpu().contiguous().view(_BITS[tensor.element_size()]).numpy()
            like = (prints[name], tensor.dtype, tensor.shape)
            # Where a tensor lay says nothing: the place of one that was brought together may be another's by now.
            if like not in places or not np.array_equal(arrays[places[like]], bits):
                places[like] = len(arrays)
                arrays.append(bits)
            entries[name] = places[like], tensor.dtype
        return cls(tuple(arrays), entries), prints

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(array.nbytes for array in self.arrays)

    def tensors(self, device: torch.device) -> Iterator[tuple[str, Tensor]]:
        """The tensors, on this device; not to be written to."""
        for name, (number, dtype) in self.entries.items():
            with warnings.catch_warnings():
                # What an object store shares may only be read, and nobody writes here.
                warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
                bits = torch.from_numpy(self.arrays[number])
            yield name, bits.view(dtype).to(device)


@dataclass(frozen=True, eq=False)
class Adapters:
    """What low-rank adapters add to matrices: ``sum_i scale_i B_i A_i``.

    parcel: the matrices, ``A`` and ``B`` of adapter ``i`` of a weight as ``weight/i/A`` and ``weight/i/B``.
    layers: of every weight that has adapters, of each its scale and whether the product is transposed.
    """

    parcel: Parcel
    layers: Mapping[str, tuple[tuple[float, bool], ...]]

    @classmethod
    def of(cls, policy: WeightSource) -> Adapters | None:
        """Those of a language policy; None where it has none, or some that are no products of two matrices."""
        if not isinstance(policy, LanguagePolicy) or not policy.has_adapters:
            return None
        return cls.among(policy.model, dict(policy.unmerged(adapters=True)))

    @classmethod
    def among(cls, model: nn.Module, given: Mapping[str, Tensor]) -> Adapters | None:
        """Those of a model, of whose adapters these are the tensors; None as of :meth:`of`."""
        matrices: list[tuple[str, Tensor]] = []
        layers: dict[str, tuple[tuple[float, bool], ...]] = {}
        for name, module in model.named_modules():
            layer: Any = module
            if not (hasattr(layer, "base_layer") and hasattr(layer, "get_delta_weight")):
                continue
            weight, found = f"{name}.weight", []
            for number, adapter in enumerate(layer.active_adapters):
                if adapter not in layer.lora_A or adapter not in layer.lora_B:
                    return None
                matrices += [
                    (f"{weight}/{number}/{half}", given[f"{name}.lora_{half}.{adapter}.weight"]) for half in "AB"
                ]
                found.append((float(layer.scaling[adapter]), bool(getattr(layer, "fan_in_fan_out", False))))
            layers[weight] = tuple(found)
        return cls(Parcel.of(matrices), layers)

    @property
    def nbytes(self) -> int:
        """Bytes of all matrices."""
        return self.parcel.nbytes

    def merged(self, base: Parcel, device: torch.device) -> Iterator[tuple[str, Tensor]]:
        """The tensors of ``base`` with what the adapters add, in the order of operations of peft."""
        return self.into(base.tensors(device))

    def into(self, tensors: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        """These tensors with what the adapters add, as :meth:`merged`; each is merged where it is."""
        matrices = dict(self.parcel.tensors(torch.device("cpu")))
        for name, tensor in tensors:
            if name not in self.layers:
                yield name, tensor
                continue
            delta: Any = 0
            for number, (scale, transposed) in enumerate(self.layers[name]):
                a, b = (matrices[f"{name}/{number}/{half}"].to(tensor.device) for half in "AB")
                product = b @ a
                delta = delta + (product.T if transposed else product) * scale
            yield name, tensor + delta


def whole_fingerprint(fingerprints: Mapping[str, int]) -> int:
    """A 64-bit number of the names and fingerprints of all tensors, whatever their order."""
    lines = "\n".join(f"{name} {number}" for name, number in sorted(fingerprints.items()))
    return int.from_bytes(hashlib.blake2b(lines.encode(), digest_size=8).digest(), "big")


@dataclass(eq=False)
class Received:
    """Tensors that arrived at a worker, as a source of weights that remembers what it gave.

    tensors: begins to give them, in order.
    """

    tensors: Callable[[], Iterable[tuple[str, Tensor]]]
    given: dict[str, int] = field(default_factory=dict)

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """The tensors, each fingerprinted as it passes."""
        for name, tensor in self.tensors():
            self.given[name] = fingerprint(tensor)
            yield name, tensor


@dataclass(eq=False)
class Update:
    """Weights that every worker is to serve.

    parcel: where the object store has the tensors, or the adapters where ``base`` has the rest.
    expected: fingerprint of the whole as the learner has it.  error: what a worker found wrong with it.
    settled: whether every worker has served it once.
    """

    version: int
    expected: int
    parcel: Any
    base: Any = None
    error: Exception | None = None
    settled: bool = False


class DifferentMergeError(WeightMismatchError):
    """A worker that merged adapters has other bits than the learner: its hardware multiplies matrices differently."""


class Sender:
    """Puts a policy's weights into an object store, once for all workers.

    Of a policy with adapters the tensors below them are put once, and again when they have changed; every update then
    has the adapters alone.

    put: puts a value into the store, as it is now, and returns what leads workers to it.
    sent_bytes: of the last update.  merging: whether workers merge adapters; else they are given merged weights.
    """

    def __init__(self, put: Callable[[Any], Any]) -> None:
        self._put = put
        self._base: Any = None
        self._base_fingerprints: dict[str, int] = {}
        self.sent_bytes = 0
        self.merging = True

    @torch.no_grad()
    def packed(self, policy: WeightSource, version: int) -> Update:
        """The update to these weights."""
        adapters = Adapters.of(policy) if self.merging else None
        if adapters is None:
            parcel, fingerprints = Parcel.proved(policy.weights())
            self.sent_bytes = parcel.nbytes
            return Update(version, whole_fingerprint(fingerprints), self._put(parcel))
        assert isinstance(policy, LanguagePolicy)
        fingerprints = {name: fingerprint(tensor) for name, tensor in policy.unmerged(adapters=False)}
        self.sent_bytes = adapters.nbytes
        if fingerprints != self._base_fingerprints:
            parcel = Parcel.of(policy.unmerged(adapters=False))
            self._base, self._base_fingerprints = self._put(parcel), fingerprints
            self.sent_bytes += parcel.nbytes
        merged = {name: fingerprint(tensor) for name, tensor in policy.weights() if name in adapters.layers}
        return Update(version, whole_fingerprint(fingerprints | merged), self._put(adapters), self._base)
