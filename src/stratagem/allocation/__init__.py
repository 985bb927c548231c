"""Allocation of entities to tasks: instances, the exact optimum, heuristics, and a policy that learns in two stages."""

from stratagem.allocation.allocating import FIXED, LEARNED, SMALL, Allocate, Allocated, Comparison, allocate, play
from stratagem.allocation.allocators import (
    Allocator,
    ExactAllocation,
    GeneticAllocation,
    GreedyAllocation,
    RandomAllocation,
)
from stratagem.allocation.field import Field
from stratagem.allocation.instances import NOBODY, Instances
from stratagem.allocation.networks import AttentionMixer, PairScores, SumMixer
from stratagem.allocation.optimum import Optimum, optimum
from stratagem.allocation.policy import Decided, Shape, TwoStagePolicy
from stratagem.allocation.tasks import PRESETS, AllocationTask, find_task
from stratagem.allocation.transitions import TransitionBuffer
from stratagem.allocation.two_stage import Learner, TwoStageAllocation

__all__ = [
    "FIXED",
    "LEARNED",
    "NOBODY",
    "PRESETS",
    "SMALL",
    "Allocate",
    "Allocated",
    "AllocationTask",
    "Allocator",
    "AttentionMixer",
    "Comparison",
    "Decided",
    "ExactAllocation",
    "Field",
    "GeneticAllocation",
    "GreedyAllocation",
    "Instances",
    "Learner",
    "Optimum",
    "PairScores",
    "RandomAllocation",
    "Shape",
    "SumMixer",
    "TransitionBuffer",
    "TwoStageAllocation",
    "TwoStagePolicy",
    "allocate",
    "find_task",
    "optimum",
    "play",
]
