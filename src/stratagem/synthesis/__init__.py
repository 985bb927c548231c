"""Tasks for environments that set none: exploration, goals made of what was done, and a task to train on them."""

from stratagem.synthesis.exploration import (
    Curiosity,
    EnvironmentMemory,
    Explorer,
    Look,
    RandomWalk,
    Triplet,
    concept_pool,
)
from stratagem.synthesis.goals import Goal, Replay, jaccard, read_goals, write_goals
from stratagem.synthesis.synthesis import Exploration, Proof, Synthesis, TaskSynthesis
from stratagem.synthesis.task import SynthesizedTask

__all__ = [
    "Curiosity",
    "EnvironmentMemory",
    "Exploration",
    "Explorer",
    "Goal",
    "Look",
    "Proof",
    "RandomWalk",
    "Replay",
    "Synthesis",
    "SynthesizedTask",
    "TaskSynthesis",
    "Triplet",
    "concept_pool",
    "jaccard",
    "read_goals",
    "write_goals",
]
