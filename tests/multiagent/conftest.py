"""Games whose episodes can be worked out by hand, in arrays, as a Gymnasium environment and as PettingZoo ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from stratagem.multiagent import MarkovGame, chance


@dataclass(frozen=True)
class Walk(MarkovGame):
    """Each agent walks on a line by its action minus 1, pushed by chance; agent ``a`` earns ``a + 1`` times its place.

    The last agent may never choose the last action. An episode ends when somebody is 3 away from where it began.
    """

    agents: int = 2
    max_turns: int = 6
    shared_reward: ClassVar[bool] = False
    actions: ClassVar[int] = 3  # type: ignore[misc]
    features: ClassVar[int] = 2  # type: ignore[misc]

    name = "walk"  # type: ignore[assignment]
    description = "agents on a line"  # type: ignore[assignment]

    def begin(self, seeds: np.ndarray) -> dict[str, np.ndarray]:
        return {"place": np.floor(chance(seeds, (self.agents,)) * 2)}

    def transition(self, state: Any, action: np.ndarray) -> Any:
        push = np.floor(chance(state["seed"], (self.agents,), state["turn"]) * 1.25)
        place = state["place"] + action - 1 + push
        return {"place": place}, place * np.arange(1, self.agents + 1), (np.abs(place) >= 3).any(1)

    def observe(self, state: Any) -> np.ndarray:
        turn = np.broadcast_to(state["turn"][:, None], state["place"].shape)
        return np.stack([state["place"], turn / 10], -1)

    def legal(self, state: Any) -> np.ndarray:
        allowed = super().legal(state).copy()
        if self.agents > 1:
            allowed[:, -1, -1] = False
        return allowed


class Alone(gymnasium.Env[np.ndarray, Any]):
    """The walk of one agent, as Gymnasium has it."""

    def __init__(self, **_: Any) -> None:
        self.game = Walk(agents=1)
        self.copies = self.game.copies(1)
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.copies.reset(np.array([0]), np.array([seed]))
        return self.copies.observe(np.array([0])).observation[0, 0], {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        out = self.copies.step(np.array([0]), np.array([[int(action)]]))
        flags = bool(out.terminated[0, 0]), bool(out.truncated[0, 0])
        return out.frame.observation[0, 0], float(out.reward[0, 0]), *flags, {}


@pytest.fixture(scope="session", autouse=True)
def registered() -> None:
    gymnasium.register("Alone-v0", entry_point=Alone, max_episode_steps=100)
