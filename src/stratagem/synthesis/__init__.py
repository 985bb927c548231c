"""Tasks that nobody set: goals found by exploring an environment, and environments that are written as programs."""

from stratagem.synthesis.defects import DEFECTS, defective, variant
from stratagem.synthesis.environments_task import EnvironmentsTask
from stratagem.synthesis.evolution import EnvironmentSynthesis, Round, Solver, Writer, writing_prompt
from stratagem.synthesis.exploration import (
    Curiosity,
    EnvironmentMemory,
    Explorer,
    Look,
    RandomWalk,
    Triplet,
    concept_pool,
)
from stratagem.synthesis.gates import (
    Contract,
    Difficulty,
    Gates,
    Likeness,
    Rate,
    Review,
    Verdict,
    measured,
    stage_counts,
    writer_reward,
)
from stratagem.synthesis.goals import Goal, Replay, jaccard, read_goals, write_goals
from stratagem.synthesis.pool import EnvironmentPool, Member
from stratagem.synthesis.programs import Instance, Program, ProgramError, Samples, Trace, seed_programs
from stratagem.synthesis.synthesis import Exploration, Proof, Synthesis, TaskSynthesis
from stratagem.synthesis.task import SynthesizedTask

__all__ = [
    "DEFECTS",
    "Contract",
    "Curiosity",
    "Difficulty",
    "EnvironmentMemory",
    "EnvironmentPool",
    "EnvironmentSynthesis",
    "EnvironmentsTask",
    "Exploration",
    "Explorer",
    "Gates",
    "Goal",
    "Instance",
    "Likeness",
    "Look",
    "Member",
    "Program",
    "ProgramError",
    "Proof",
    "RandomWalk",
    "Rate",
    "Replay",
    "Review",
    "Round",
    "Samples",
    "Solver",
    "Synthesis",
    "SynthesizedTask",
    "TaskSynthesis",
    "Trace",
    "Triplet",
    "Verdict",
    "Writer",
    "concept_pool",
    "defective",
    "jaccard",
    "measured",
    "read_goals",
    "seed_programs",
    "stage_counts",
    "variant",
    "write_goals",
    "writer_reward",
    "writing_prompt",
]
