"""Tensors of which every process of a group holds a part (``DTensor``), taken whole and divided again."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def is_divided(tensor: Tensor) -> bool:
    """Whether this process holds only its part of the tensor."""
    # Importing DTensor takes as long as half of the package; nobody has one who has not done so.
    return hasattr(tensor, "full_tensor")


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor; of a divided one a copy, brought together by all processes of its group at once."""
    divided: Any = tensor
    full: Tensor = divided.detach().full_tensor() if is_divided(tensor) else tensor
    return full


def own_part(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor, sharing its memory."""
    kept: Any = tensor.detach()
    part: Tensor = kept.to_local() if is_divided(tensor) else kept
    return part


def divided_like(tensor: Tensor, other: Tensor) -> Tensor:
    """``tensor``, whole and alike in every process, divided as ``other`` is; as it is when ``other`` is not divided."""
    if not is_divided(other) or is_divided(tensor):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    like: Any = other
    # Without a source every process cuts its part out of its own tensor, and nothing is sent.
    return distribute_tensor(tensor.to(own_part(other).device), like.device_mesh, like.placements, src_data_rank=None)
