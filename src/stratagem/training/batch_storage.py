"""A batch as named tensors and plain data, so that a checkpoint can hold one that is half learned."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from stratagem.experience import Experience
from stratagem.partition import Partition

PARTITIONS = ("turn_of_token", "trajectory_of_turn", "group_of_trajectory", "domain_of_group")


def pack(x: Experience) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by name, and what is no tensor as JSON data. The inputs' class is named by its import path."""
    tensors: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    for name in PARTITIONS:
        partition: Partition = getattr(x, name)
        tensors[f"partition.{name}"], counts[name] = partition.labels, partition.count
    for entry in dataclasses.fields(x):
        if isinstance(getattr(x, entry.name), Tensor):
            tensors[f"field.{entry.name}"] = getattr(x, entry.name)
    plain: dict[str, Any] = {
        "counts": counts,
        "reward_names": x.reward_names,
        "reward_weights": x.reward_weights,
        "readers": x.readers,
        "learning_rate": x.learning_rate,
        "inputs": None,
    }
    if x.inputs is not None:
        cls = type(x.inputs)
        plain["inputs"] = [cls.__module__, cls.__qualname__]
        for entry in dataclasses.fields(x.inputs):  # type: ignore[arg-type]
            value = getattr(x.inputs, entry.name)
            if value is not None:
                tensors[f"inputs.{entry.name}"] = value
    return tensors, plain


def unpack(tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> Experience:
    """The batch that :func:`pack` took apart.

    Its inputs' module is never imported by name (the world has done so), and nothing but a dataclass of inputs is built
    from what a file says. Raises ``ValueError`` for anything else.
    """
    partitions: dict[str, Any] = {
        name: Partition(tensors[f"partition.{name}"], plain["counts"][name]) for name in PARTITIONS
    }
    fields = _prefixed(tensors, "field.")
    inputs: Any = None
    if plain["inputs"] is not None:
        module, name = plain["inputs"]
        found: Any = getattr(sys.modules[module], name, None)
        if not (isinstance(found, type) and dataclasses.is_dataclass(found) and hasattr(found, "concatenate")):
            raise ValueError(f"{module}.{name} is no class of inputs")
        inputs = found(**_prefixed(tensors, "inputs."))
    return Experience(
        **partitions,
        **fields,  # type: ignore[arg-type]
        reward_names=tuple(plain["reward_names"]),
        reward_weights=tuple(plain["reward_weights"]),
        # Batches that were stored before anybody read them have none.
        readers=tuple(plain.get("readers", ())),
        learning_rate=plain["learning_rate"],
        inputs=inputs,
    )


def _prefixed(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
