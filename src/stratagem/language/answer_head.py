"""The head of a reward or preference model: from the last hidden state of an answer to a few numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from stratagem.errors import InputError
from stratagem.objectives.views import AnswerHead

FILE = "answer_head.safetensors"
"""Where a saved model keeps its head, beside the weights in Hugging Face format."""


class AnswerEmbedding(nn.Module):
    """``v = W h``, and with a radius ``radius W h / |W h|``: one number of an answer, its score, or several.

    hidden: width of ``h``. Weights are drawn by torch's generator, of variance ``1 / (hidden + 1)`` (arXiv 2009.01325).
    """

    def __init__(self, hidden: int, view: AnswerHead) -> None:
        super().__init__()
        self.view = view
        self.weight = nn.Parameter(torch.randn(view.dims, hidden) * (hidden + 1) ** -0.5)

    def forward(self, hidden: Float[Tensor, "tokens hidden"]) -> Float[Tensor, "tokens dims"]:
        """In float32, whatever the model computes in."""
        with torch.autocast(hidden.device.type, enabled=False):
            numbers = nn.functional.linear(hidden.float(), self.weight)
            if self.view.radius is None:
                return numbers
            return self.view.radius * nn.functional.normalize(numbers, dim=-1)

    def write(self, folder: Path) -> None:
        """Save it beside the model."""
        radius = "" if self.view.radius is None else repr(self.view.radius)
        save_file({"weight": self.weight.detach().cpu().contiguous()}, folder / FILE, {"radius": radius})

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """The head of a saved model; None for one without. Raises :class:`InputError` for a file that is broken."""
        if not (folder / FILE).is_file():
            return None
        try:
            with safe_open(folder / FILE, "pt") as file:
                weight, radius = file.get_tensor("weight"), (file.metadata() or {}).get("radius", "")
            head = cls(weight.shape[1], AnswerHead(len(weight), float(radius) if radius else None))
            head.weight.data.copy_(weight)
        except (SafetensorError, OSError, ValueError, IndexError, RuntimeError) as error:
            raise InputError(f"{folder / FILE}: is no head of answers ({str(error).splitlines()[0]})") from None
        return head
