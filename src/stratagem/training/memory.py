"""How much memory a run has taken at most."""

from __future__ import annotations

import resource
import sys

import torch


def peak_memory(device: torch.device) -> float:
    """Largest memory of this process so far in MiB: resident, plus what torch has allocated on an accelerator."""
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    accelerator = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    return (resident + accelerator) / 2**20
