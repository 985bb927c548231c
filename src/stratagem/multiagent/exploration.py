"""Acting at random now and then, whatever the policy."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from stratagem.multiagent.episodes import Act, Acted
from stratagem.multiagent.game import Frame


class _Acting(Protocol):
    def __call__(
        self, frame: Frame, noise: np.random.Generator | None, memory: np.ndarray | None = None, /
    ) -> Acted: ...


def exploring(act: _Acting, epsilon: float, noise: np.random.Generator) -> Act:
    """With probability ``epsilon`` each agent takes any legal action, each as likely; else its most likely one.

    What it notes as likelihood is that of this mixture.
    """

    def explore(frame: Frame, memory: np.ndarray) -> Acted:
        best = act(frame, None, memory)
        anyhow = (noise.random(frame.legal.shape) * frame.legal).argmax(-1)
        action = np.where(noise.random(anyhow.shape) < epsilon, anyhow, best.action)
        likelihood = epsilon / frame.legal.sum(-1) + (1 - epsilon) * (action == best.action)
        return best._replace(action=action, logp=np.log(likelihood))

    return explore
