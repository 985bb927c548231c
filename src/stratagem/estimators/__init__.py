"""What is learned beside the policy: what turns contribute to a return, what is to come, and whether they are right."""

from stratagem.estimators.progress import ReturnDecomposition
from stratagem.estimators.step_correctness import StepCorrectness
from stratagem.estimators.turn_critics import TurnCritics

__all__ = ["ReturnDecomposition", "StepCorrectness", "TurnCritics"]
