"""Networks of several agents in numpy, as they are asked turn by turn while agents act."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float32
from torch import nn

from stratagem.control.policy import linear_layers
from stratagem.multiagent.recurrence import recurrence

ILLEGAL = -1e9
"""What stands for the logit of an action that may not be taken: its probability is 0, and so is its gradient."""


class StackedNetworks:
    """Tanh networks alike but for their weights, one for all agents or one for each, with or without a GRU.

    It works on their present weights (float32, CPU), and agrees with torch to float32 accuracy.
    """

    def __init__(self, networks: Sequence[nn.Sequential]) -> None:
        self._layers = [
            (
                np.stack([layer.weight.detach().numpy().T for layer in same]),
                np.stack([layer.bias.detach().numpy() for layer in same])[:, None],
            )
            for same in zip(*map(linear_layers, networks), strict=True)
        ]
        cells = [memory.cell for network in networks if (memory := recurrence(network)) is not None]
        self._gates = [
            (
                np.stack([getattr(cell, f"weight_{of}_l0").detach().numpy().T for cell in cells]),
                np.stack([getattr(cell, f"bias_{of}_l0").detach().numpy() for cell in cells])[:, None],
            )
            for of in ("ih", "hh")
            if cells
        ]

    def __call__(
        self,
        seen: Float32[np.ndarray, "copies agents inputs"],
        kept: Float32[np.ndarray, "copies agents width"] | None = None,
    ) -> tuple[Float32[np.ndarray, "copies agents outputs"], Float32[np.ndarray, "copies agents width"] | None]:
        """What they say, and what they remember from then on, None without a GRU. kept: before; None: nothing."""
        # By agent first, so that one matrix product a layer does for all copies and all agents.
        hidden = seen.swapaxes(0, 1)
        for weight, bias in self._layers[:-1]:
            hidden = np.tanh(hidden @ weight + bias)
        if self._gates:
            old = np.zeros_like(hidden) if kept is None else kept.swapaxes(0, 1)
            hidden = self._remembered(hidden, old)
        weight, bias = self._layers[-1]
        outputs: np.ndarray = hidden @ weight + bias
        return outputs.swapaxes(0, 1), hidden.swapaxes(0, 1) if self._gates else None

    def _remembered(self, seen: np.ndarray, kept: np.ndarray) -> np.ndarray:
        """One step of the GRU."""
        width = kept.shape[-1]
        (of_seen, seen_bias), (of_kept, kept_bias) = self._gates
        new, old = seen @ of_seen + seen_bias, kept @ of_kept + kept_bias
        # sigmoid(x) = (1 + tanh(x / 2)) / 2, which overflows nowhere.
        gates = 0.5 + 0.5 * np.tanh(0.5 * (new[..., : 2 * width] + old[..., : 2 * width]))
        reset, update = gates[..., :width], gates[..., width:]
        proposed = np.tanh(new[..., 2 * width :] + reset * old[..., 2 * width :])
        remembered: np.ndarray = proposed + update * (kept - proposed)
        return remembered


def masked(
    logits: Float32[np.ndarray, "copies agents actions"], legal: Bool[np.ndarray, "copies agents actions"]
) -> Float32[np.ndarray, "copies agents actions"]:
    """Logits with those of actions that may not be taken replaced. Raises ``ValueError`` where nothing may be done."""
    if not legal.any(-1).all():
        raise ValueError("an agent has no legal action; one that is not alive has at least one, whatever it does")
    return np.where(legal, logits, np.float32(ILLEGAL))


def told_apart(observation: np.ndarray, tell: bool) -> np.ndarray:
    """Observations [copies, agents, features], with a one-hot number of the agent beside each if that is asked for."""
    if not tell:
        return observation
    copies, agents, _ = observation.shape
    numbers = np.broadcast_to(np.eye(agents, dtype=np.float32), (copies, agents, agents))
    return np.concatenate([observation, numbers], -1)


def carried(
    memory: Float32[np.ndarray, "copies agents memory"] | None,
    kept: Float32[np.ndarray, "copies agents width"],
    alive: Bool[np.ndarray, "copies agents"],
    memory_width: int,
) -> Float32[np.ndarray, "copies agents memory"]:
    """What agents carry on with: in the first columns what they remember now, those that are not alive nothing."""
    rest = np.zeros((*alive.shape, memory_width), dtype=np.float32) if memory is None else memory.copy()
    rest[..., : kept.shape[-1]] = kept * alive[..., None]
    return rest
