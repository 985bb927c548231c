"""What a policy has learned, taken and put back as named tensors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from stratagem.shards import divided_like, own_part
from stratagem.training.world import Policy


def learned(policy: Policy) -> dict[str, Tensor]:
    """The policy's own trainable tensors by a name in its state, sharing its memory; its critic is not among them.

    What is frozen (the model below adapters) is left out, since no two versions of a policy differ in it; a tensor of
    several names (tied embeddings) comes once.
    """
    missing = {_place(parameter) for parameter in policy.policy_parameters()}
    found = {}
    for name, tensor in policy.state_dict().items():
        if _place(tensor) in missing:
            missing.remove(_place(tensor))
            found[name] = tensor
    return found


def _place(tensor: Tensor) -> tuple[int, int]:
    """Where a tensor, or what this process has of it, lies in memory; a part without elements has a place, too."""
    part = own_part(tensor)
    return part.untyped_storage().data_ptr(), int(part.storage_offset())


def taken(policy: Policy) -> dict[str, Tensor]:
    """A copy of :func:`learned` in main memory, which stays as it is."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in learned(policy).items()}


@torch.no_grad()
def put(policy: Policy, weights: Mapping[str, Tensor]) -> None:
    """Overwrite the named tensors of a policy. Raises ``KeyError`` for a name it does not have."""
    state = policy.state_dict()
    for name, tensor in weights.items():
        state[name].copy_(divided_like(tensor, state[name]))
