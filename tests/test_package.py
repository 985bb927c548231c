"""What ``import stratagem`` offers, and what it does not wait for."""

from __future__ import annotations

import subprocess
import sys

import pytest

import stratagem


@pytest.mark.parametrize("name", stratagem.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(stratagem, name) is not None


def test_the_lab_is_there_without_importing_it() -> None:
    assert stratagem.lab.diagnose(stratagem.recipes.rloo(), "rare", groups=128).recipe == "rloo"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        _ = stratagem.trian


def test_importing_the_package_brings_in_neither_transformers_nor_scipy() -> None:
    code = "import sys, stratagem; print([name for name in ('transformers', 'scipy') if name in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
