"""Environments whose episodes can be worked out by hand."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces


class Countdown(gymnasium.Env[np.ndarray, Any]):
    """Observes (turn, start number); turn ``t`` earns ``t``; ends after ``length`` turns.

    ``fail_share`` of the episodes raise in their second turn, ``nan_share`` earn NaN there; ``broken``: none can start.
    """

    def __init__(
        self,
        length: int = 3,
        fail_share: float = 0.0,
        nan_share: float = 0.0,
        broken: bool = False,
        actions: str = "discrete",
    ) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        choices: dict[str, spaces.Space[Any]] = {
            "discrete": spaces.Discrete(2, start=5),
            "box": spaces.Box(-0.5, 0.5, (2, 1), np.float32),
            "multi": spaces.MultiDiscrete([2, 2]),
        }
        self.action_space = choices[actions]
        self.length, self.fail_share, self.nan_share, self.broken = length, fail_share, nan_share, broken

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        if self.broken:
            raise OSError("no such simulator")
        self.turn, self.number = 0, self.np_random.random()
        return self._observed(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), action
        self.turn += 1
        if self.turn == 2 and self.number < self.fail_share:
            raise RuntimeError("the simulator fell over")
        reward = float("nan") if self.turn == 2 and self.number < self.nan_share else float(self.turn)
        return self._observed(), reward, self.turn == self.length, False, {}

    def _observed(self) -> np.ndarray:
        return np.array([self.turn, self.number], dtype=np.float32)


@pytest.fixture(scope="session", autouse=True)
def _registered() -> None:
    gymnasium.register("Countdown-v0", entry_point=Countdown)
    gymnasium.register("LimitedCountdown-v0", entry_point=Countdown, max_episode_steps=4)
