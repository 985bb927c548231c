"""``doctor``: what is here, as text and as data."""

from __future__ import annotations

import json
import platform

import torch


def test_doctor_says_what_is_here_and_how_to_get_the_rest(stratagem):
    said = stratagem("doctor", "--json")
    found = json.loads(said.out)
    assert said.code == 0
    assert found["python"] == platform.python_version() and found["torch"] == torch.__version__
    assert {"processor", "memory", "accelerator", "bfloat16", "base model"} <= set(found)
    for name, value in found.items():
        if name.startswith("extra "):
            assert value == "installed" or value == f"pip install 'stratagem[{name.removeprefix('extra ')}]'"
    assert found["sandbox"].startswith(("bubblewrap: no network", "limited process, no security boundary ("))
    assert "bfloat16" in stratagem("doctor").out
