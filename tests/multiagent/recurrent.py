"""Worlds of agents with a memory, and what their networks say when they are walked through turn by turn."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stratagem.architectures import Agents
from stratagem.experience import Experience
from stratagem.multiagent import (
    AgentInputs,
    MultiAgentWorld,
)

from .conftest import Walk
from .test_policy import scaled

GRU = {"recurrence": "gru", "hidden": 8}
ACTORS = [Agents(weights, critic, **GRU) for weights in ("shared", "separate") for critic in ("both", "state")]


def ids(architecture: Any) -> str:
    return f"{architecture.weights}-{architecture.critic}"


def world(architecture: Any, game: Any = None, seed: int = 0) -> MultiAgentWorld:
    game = Walk() if game is None else game
    return MultiAgentWorld(game, seed, scaled(architecture.build(game, 0)))


def collected(of: MultiAgentWorld, sampler: Any, step: int = 0) -> Experience:
    x = of.collect(sampler, step).x
    assert x is not None
    return x


def inputs(x: Experience) -> AgentInputs:
    assert isinstance(x.inputs, AgentInputs)
    return x.inputs


def stepped(cell: nn.GRU, features: Tensor, kept: Tensor) -> Tensor:
    """One step of a GRU as it is defined."""
    new = features @ cell.weight_ih_l0.T + cell.bias_ih_l0
    old = kept @ cell.weight_hh_l0.T + cell.bias_hh_l0
    (r, z, n), (r_, z_, n_) = new.chunk(3, -1), old.chunk(3, -1)
    update = torch.sigmoid(z + z_)
    return (1 - update) * torch.tanh(n + torch.sigmoid(r + r_) * n_) + update * kept


def walked(network: nn.Sequential, rows: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """What a network says turn by turn of one trajectory, and what it remembers in the end."""
    said = []
    for row in rows:
        kept = stepped(network[-2].cell, network[:-2](row[None])[0], kept)
        said.append(network[-1](kept))
    return torch.stack(said), kept


def acted_with(of: MultiAgentWorld, greedy: bool = False) -> list[np.ndarray]:
    """Let a world note how likely everything was that its agents do, as they do it."""
    noted: list[np.ndarray] = []
    plain = of._served._chooser  # type: ignore[operator]

    def chooser(temperature: float) -> Any:
        choose = plain(temperature)

        def chosen(logits: np.ndarray, noise: Any) -> np.ndarray:
            action: np.ndarray = choose(logits, None if greedy else noise)
            logp = torch.log_softmax(torch.from_numpy(logits) / temperature, -1)
            noted.append(logp.gather(-1, torch.from_numpy(action)[..., None]).numpy().ravel())
            return action

        return chosen

    of._served._chooser = chooser
    return noted
