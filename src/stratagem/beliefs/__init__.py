"""Beliefs in words: claims with certainty labels, what they are worth, and how well they are calibrated."""

from stratagem.beliefs.calibration import Calibration, calibration_by_step
from stratagem.beliefs.judges import Evidence, Judgement, ObservedEnvironment, ObservedTask, ask_judge, by_rule
from stratagem.beliefs.scores import combined, correctness, task_credit, tracking
from stratagem.beliefs.text import PROBABILITY, Claim, claims, diversity, format_gate, nearest_label, written

__all__ = [
    "PROBABILITY",
    "Calibration",
    "Claim",
    "Evidence",
    "Judgement",
    "ObservedEnvironment",
    "ObservedTask",
    "ask_judge",
    "by_rule",
    "calibration_by_step",
    "claims",
    "combined",
    "correctness",
    "diversity",
    "format_gate",
    "nearest_label",
    "task_credit",
    "tracking",
    "written",
]
