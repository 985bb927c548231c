"""Hybrid chains: a small policy that thinks in directions and answers in tokens, and the pictures it looks at."""

from stratagem.hybrid.inputs import HybridInputs
from stratagem.hybrid.policy import HybridPolicy, Shape
from stratagem.hybrid.task import HybridTask, Pictures
from stratagem.hybrid.warm_start import demonstrations, warm_start
from stratagem.hybrid.world import HybridWorld

__all__ = [
    "HybridInputs",
    "HybridPolicy",
    "HybridTask",
    "HybridWorld",
    "Pictures",
    "Shape",
    "demonstrations",
    "warm_start",
]
