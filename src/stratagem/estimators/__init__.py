"""What is learned beside the policy: what turns contribute to a return, and what is still to come."""

from stratagem.estimators.progress import ReturnDecomposition
from stratagem.estimators.turn_critics import TurnCritics

__all__ = ["ReturnDecomposition", "TurnCritics"]
