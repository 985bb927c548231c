"""The Python in the guides runs as it stands there, and prints what it says it does."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from stratagem import catalogue, part
from stratagem.study import claims

ROOT = Path(__file__).parent.parent
PAGES = {"README.md": 2, "docs/concepts.md": 4, "docs/guides/extending.md": 5}
"""Pages, and how many blocks of each run at the least."""


def blocks(page: str) -> list[str]:
    """Its Python blocks, but for those that start a run or are wrong on purpose."""
    found = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [block for block in found if "stratagem.train(" not in block and "# InputError" not in block]


@pytest.fixture
def _nothing_stays_registered(monkeypatch):
    catalogue.cards(), claims.claims()
    monkeypatch.setattr(catalogue, "_CARDS", dict(catalogue._CARDS))
    monkeypatch.setattr(claims, "_CLAIMS", dict(claims._CLAIMS))
    monkeypatch.setattr(part, "REGISTRY", {kind: dict(named) for kind, named in part.REGISTRY.items()})


@pytest.mark.usefixtures("_nothing_stays_registered")
@pytest.mark.parametrize("page", PAGES)
def test_the_python_of_a_guide_runs(page, monkeypatch):
    guide = ModuleType("guide")
    monkeypatch.setitem(sys.modules, "guide", guide)
    code = blocks(page)
    assert len(code) >= PAGES[page]
    for block in code:
        exec(compile(f"from __future__ import annotations\n{block}", page, "exec"), vars(guide))
    for name, value in list(vars(guide).items()):
        if name.startswith("test_") and callable(value):
            value()
