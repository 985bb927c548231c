"""Open-ended learning: tasks with goals of predicates, for one or several players; percentiles, populations."""

from stratagem.openended.coplayers import CoPlayers, Player, RandomPlayer, played
from stratagem.openended.distillation import Distillation, kl
from stratagem.openended.evolving import Evolved, evolve
from stratagem.openended.goals import ABSENT, Goals
from stratagem.openended.grid import Grid
from stratagem.openended.metagames import MetagameBook, equilibrium
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
from stratagem.openended.probes import PROBES
from stratagem.openended.task import OpenEndedTask, Tasks
from stratagem.openended.world import OpenEndedWorld

__all__ = [
    "ABSENT",
    "KNOBS",
    "PROBES",
    "THRESHOLDS",
    "CoPlayers",
    "Distillation",
    "Evolved",
    "GoalPolicy",
    "Goals",
    "Grid",
    "Member",
    "MetagameBook",
    "OpenEndedTask",
    "OpenEndedWorld",
    "Player",
    "Population",
    "PopulationTraining",
    "RandomPlayer",
    "ScoreBook",
    "Shape",
    "Tasks",
    "dominates",
    "equilibrium",
    "evolve",
    "kl",
    "normalized",
    "participation",
    "percentiles",
    "played",
    "undominated",
]
