"""How much memory a run has taken at most."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")


def peak_memory(device: torch.device) -> float:
    """Largest memory of this process so far in MiB: resident, plus what torch has allocated on an accelerator."""
    accelerator = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    return (_resident() + accelerator) / 2**20


def _resident() -> int:
    """Most bytes held, by what Linux tells of the program: ``getrusage`` counts what began as a copy of its parent."""
    own = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text("ascii")) if _STATUS.is_file() else None
    if own is not None:
        return int(own.group(1)) * 1024
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
