from __future__ import annotations

import builtins
import importlib
import importlib.util
import sys
from typing import Any

import numpy as np
import pytest

from stratagem.errors import InputError
from stratagem.multiagent.controllers import moves_to
from stratagem.multiagent.grids import moved
from stratagem.tasks import registry

needs_pogema = pytest.mark.skipif(importlib.util.find_spec("pogema") is None, reason="pogema is not installed")


def test_without_the_library_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pogema", None)
    real = importlib.import_module

    def missing(name: str, *rest: Any) -> Any:
        if name == "pogema":
            raise ModuleNotFoundError("No module named 'pogema'", name="pogema")
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(InputError, match="pip install --no-deps pogema"):
        registry.make("pogema:agents=2")


def test_a_package_for_the_first_pydantic_gets_it_and_others_keep_theirs(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stratagem.multiagent.pogema import _import_with_first_pydantic

    (tmp_path / "old_package.py").write_text("from pydantic import VERSION, root_validator\n")
    monkeypatch.syspath_prepend(tmp_path)
    pydantic = sys.modules["pydantic"]
    _import_with_first_pydantic("old_package")
    assert sys.modules.pop("old_package").VERSION.startswith("1.")
    assert sys.modules["pydantic"] is pydantic and builtins.__import__("pydantic") is pydantic


@needs_pogema
def test_its_moves_are_those_of_the_built_in_game() -> None:
    task = registry.make("pogema:size=6,agents=10,density=0.1,sight=3,max_turns=200")
    copies: Any = task.copies(2)
    both = np.arange(2)
    copies.reset(both, np.array([3, 4]))
    noise = np.random.default_rng(0)
    for _ in range(100):
        before = copies._read(both)
        action = noise.integers(0, 5, (2, 10))
        expected = moved(before["wall"], before["cell"], action)
        copies.step(both, action)
        assert np.array_equal(copies._read(both)["cell"], expected)


@needs_pogema
def test_following_the_plan_is_paid_and_goals_are_counted() -> None:
    for pay, expected in (("waypoint", 0.01), ("goal", 1.0)):
        task = registry.make(f"pogema:size=6,agents=1,density=0,pay={pay},max_turns=30")
        copies: Any = task.copies(1)
        one = np.array([0])
        copies.reset(one, np.array([1]))
        for turn in range(30):
            state = copies._read(one)
            out = copies.step(one, moves_to(state["waypoint"], state["cell"], 6))
            there = bool((state["waypoint"] == state["goal"]).all())
            assert out.reward[0, 0] == pytest.approx(expected if pay == "waypoint" or there else 0)
            assert out.truncated.all() == (turn == 29)
        assert copies.sketch(0).place.shape == (1, 2)


@needs_pogema
def test_episodes_are_restored_by_making_their_moves_again() -> None:
    task = registry.make("pogema:size=8,agents=4")
    first, second = (task.copies(2) for _ in range(2))
    both = np.arange(2)
    first.reset(both, np.array([1, 2]))
    noise = np.random.default_rng(0)
    for _ in range(12):
        first.step(both, noise.integers(0, 5, (2, 4)))
    second.load_state_dict(first.state_dict())
    assert np.array_equal(first.observe(both).observation, second.observe(both).observation)
    action = noise.integers(0, 5, (2, 4))
    assert np.array_equal(first.step(both, action).frame.state, second.step(both, action).frame.state)
