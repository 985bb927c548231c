"""Sandboxes of both kinds, as far as this machine has them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest

from stratagem.sandbox import Sandbox, sandbox


@pytest.fixture(params=["bubblewrap", "process"])
def box(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """Each kind in turn."""
    if request.param == "bubblewrap" and sandbox().isolation != "bubblewrap":
        pytest.skip(f"no bubblewrap: {sandbox().reason}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield Sandbox(request.param, "asked for" if request.param == "process" else "")


@pytest.fixture
def confined() -> Sandbox:
    """Bubblewrap; what only it prevents is tested with it alone."""
    if sandbox().isolation != "bubblewrap":
        pytest.skip(f"a limited process does not prevent this; no bubblewrap: {sandbox().reason}")
    return sandbox()
