"""A ring of transitions to learn from: columns of tensors, the oldest rows overwritten by the newest."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class TransitionBuffer:
    """Holds the last ``capacity`` rows of every column; the first rows added say which columns there are."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.added = 0
        self._columns: dict[str, Tensor] = {}

    def __len__(self) -> int:
        return min(self.added, self.capacity)

    def add(self, rows: Mapping[str, Tensor]) -> None:
        """Add rows, the last of them being the newest."""
        count = len(next(iter(rows.values()))) if rows else 0
        if not count:
            return
        if not self._columns:
            self._columns = {name: column.new_empty(self.capacity, *column.shape[1:]) for name, column in rows.items()}
        kept = min(count, self.capacity)
        place = torch.arange(self.added + count - kept, self.added + count) % self.capacity
        for name, column in self._columns.items():
            column[place] = rows[name][count - kept :]
        self.added += count

    def sample(self, count: int, source: torch.Generator) -> dict[str, Tensor]:
        """So many rows, each as likely, with replacement."""
        place = torch.randint(len(self), (count,), generator=source)
        return {name: column[place] for name, column in self._columns.items()}
