"""What a policy has learned, taken and put back as named tensors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from stratagem.training.world import Policy


def learned(policy: Policy) -> dict[str, Tensor]:
    """The policy's own trainable tensors by a name in its state, sharing its memory; its critic is not among them.

    What is frozen (the model below adapters) is left out, since no two versions of a policy differ in it; a tensor of
    several names (tied embeddings) comes once.
    """
    missing = {parameter.data_ptr() for parameter in policy.policy_parameters()}
    found = {}
    for name, tensor in policy.state_dict().items():
        if tensor.data_ptr() in missing:
            missing.remove(tensor.data_ptr())
            found[name] = tensor
    return found


def taken(policy: Policy) -> dict[str, Tensor]:
    """A copy of :func:`learned` in main memory, which stays as it is."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in learned(policy).items()}


@torch.no_grad()
def put(policy: Policy, weights: Mapping[str, Tensor]) -> None:
    """Overwrite the named tensors of a policy. Raises ``KeyError`` for a name it does not have."""
    state = policy.state_dict()
    for name, tensor in weights.items():
        state[name].copy_(tensor)
