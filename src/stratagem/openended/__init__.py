"""Open-ended learning: a universe of tasks with goals of predicates, percentiles of progress, populations."""

from stratagem.openended.distillation import Distillation, kl
from stratagem.openended.evolving import Evolved, evolve
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
from stratagem.openended.population import KNOBS, THRESHOLDS, Member, Population, PopulationTraining
from stratagem.openended.task import OpenEndedTask, Tasks
from stratagem.openended.world import OpenEndedWorld

__all__ = [
    "ABSENT",
    "KNOBS",
    "THRESHOLDS",
    "Distillation",
    "Evolved",
    "GoalPolicy",
    "Goals",
    "Grid",
    "Member",
    "OpenEndedTask",
    "OpenEndedWorld",
    "Population",
    "PopulationTraining",
    "ScoreBook",
    "Shape",
    "Tasks",
    "dominates",
    "evolve",
    "kl",
    "normalized",
    "participation",
    "percentiles",
    "undominated",
]
