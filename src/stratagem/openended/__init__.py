"""Open-ended learning: a universe of tasks with goals of predicates, percentiles of progress, populations."""

from stratagem.openended.goals import ABSENT, Goals
from stratagem.openended.grid import Grid
from stratagem.openended.percentiles import (
    ScoreBook,
    dominates,
    normalized,
    participation,
    percentiles,
    undominated,
)
from stratagem.openended.policy import GoalPolicy, Shape
from stratagem.openended.task import OpenEndedTask, Tasks
from stratagem.openended.world import OpenEndedWorld

__all__ = [
    "ABSENT",
    "GoalPolicy",
    "Goals",
    "Grid",
    "OpenEndedTask",
    "OpenEndedWorld",
    "ScoreBook",
    "Shape",
    "Tasks",
    "dominates",
    "normalized",
    "participation",
    "percentiles",
    "undominated",
]
