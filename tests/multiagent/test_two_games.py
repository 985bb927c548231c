"""Two games in which others come to the same whatever one weighing of them is: only a code tells them apart."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from stratagem.multiagent import MarkovGame, MultiAgentWorld, RelationalAgents
from stratagem.multiagent.adaptation import code_returns
from stratagem.multiagent.pathfinding import own_chance
from stratagem.recipes.games import mra
from stratagem.training.loop import Settings, Trainer
from stratagem.training.run_directory import RunDirectory

SMALL: dict[str, Any] = {"architecture.hidden": 16, "architecture.width": 16, "architecture.heads": 4}


@dataclass(frozen=True)
class TwoGames(MarkovGame):
    """One turn: with three agents action 0 pays 1, with five it is action 1.

    Others are of two kinds, half of each in both games, so whatever one weighing of them comes to is the same in both.
    """

    populations: tuple[int, ...] = (3, 5)
    shared_reward: ClassVar[bool] = False
    mortal: ClassVar[bool] = True
    actions: ClassVar[int] = 2  # type: ignore[misc]
    others: ClassVar[tuple[int, int, int]] = (1, 4, 3)
    features: ClassVar[int] = 13  # type: ignore[misc]

    name = "two_games"  # type: ignore[assignment]
    description = "an action that is right in one of two games"  # type: ignore[assignment]

    @property
    def agents(self) -> int:
        return max(self.populations)

    def begin(self, seeds: np.ndarray) -> dict[str, np.ndarray]:
        drawn = own_chance(seeds, 0, 1)[:, 0] * len(self.populations)
        return {"population": np.array(self.populations)[drawn.astype(int)]}

    def alive(self, state: Any) -> np.ndarray:
        return np.arange(self.agents) < state["population"][:, None]

    def transition(self, state: Any, action: np.ndarray) -> Any:
        right = (state["population"] == 5).astype(int)[:, None]
        return {}, (action == right) * self.alive(state) * 1.0, np.full(len(action), True)

    def observe(self, state: Any) -> np.ndarray:
        place = np.arange(4)
        rows = (
            np.stack([np.ones(4), place % 2, 1 - place % 2], -1) * (place < state["population"][:, None] - 1)[..., None]
        )
        seen = np.concatenate([np.ones((len(rows), 1)), rows.reshape(len(rows), -1)], 1)
        return seen[:, None] * self.alive(state)[..., None]


def learned(codes: int, batches: int, tmp_path: Path) -> RelationalAgents:
    options = {"episodes": 16, "replayed": 16, "updates": 40, "capacity": 160, "learning_rate": 1e-2}
    plan = mra(codes=codes, scale=3.0, information=0.3, prediction=1.0, **options)
    world = MultiAgentWorld(TwoGames(), 1000)
    settings = Settings(steps=batches, seed=1000, evaluation_episodes=0, checkpoint_every=batches + 1)
    trainer = Trainer(plan.with_values(SMALL), world, RunDirectory.create(tmp_path / str(codes)), settings)
    for _ in range(batches):
        trainer.step()
    assert isinstance(world.policy, RelationalAgents)
    return world.policy


@pytest.mark.slow
def test_codes_tell_games_apart_that_one_policy_cannot(tmp_path: Path) -> None:
    games = [TwoGames((3,)), TwoGames((5,))]
    policy = learned(4, 30, tmp_path)
    found = torch.stack([code_returns(policy, game, 40, 0) for game in games])
    best = found.argmax(1)
    assert best[0] != best[1] and float(found.max(1).values.min()) > 0.9
    assert min(MultiAgentWorld(game, 0, policy).evaluate(40, "greedy").mean_return for game in games) > 0.95
    # With one code it sees the same in both, so what is right in one is as much wrong in the other.
    plain = learned(1, 5, tmp_path)
    assert sum(float(code_returns(plain, game, 40, 0)[0]) for game in games) < 1.2
