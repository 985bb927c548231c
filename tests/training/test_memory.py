"""The largest memory of a run is its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from stratagem.training.memory import peak_memory

ASK = "import torch; from stratagem.training.memory import peak_memory; print(peak_memory(torch.device('cpu')))"


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="only Linux tells of the program itself")
def test_what_the_parent_held_does_not_count():
    held = torch.ones(300 * 2**18)  # 300 MiB
    own = peak_memory(torch.device("cpu"))
    child = float(subprocess.run([sys.executable, "-c", ASK], check=True, capture_output=True, text=True).stdout)
    assert own > 300 + 50 and held.sum() > 0
    assert 50 < child < own - 150


def test_what_was_held_once_counts_for_good():
    before = peak_memory(torch.device("cpu"))
    big = torch.ones(int((before + 200) * 2**18))
    assert float(big[-1]) == 1
    del big
    assert peak_memory(torch.device("cpu")) > before + 100
