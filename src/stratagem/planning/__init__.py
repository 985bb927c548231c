"""Search over steps: trees, beams and samples, the rules they are made of, and what is learned from them."""

from stratagem.planning.alphamath import AlphaMath, Round
from stratagem.planning.beam import Samples, StepBeam
from stratagem.planning.labels import HardLabels, SoftLabels, StepLabels
from stratagem.planning.meds3 import Answered, MedS3, StepScorer
from stratagem.planning.paths import Fitting, Path, StepLearner, chosen_paths, labelled, learn_from
from stratagem.planning.search import TreeSearch
from stratagem.planning.steps import (
    Ask,
    Found,
    Judged,
    Place,
    Rollouts,
    Search,
    Solution,
    Step,
    StepJudge,
    StepPolicy,
)
from stratagem.planning.tree import (
    PUCT,
    UCB,
    Backup,
    ChildrenBackup,
    ChildRule,
    Expansion,
    Fixed,
    Limits,
    MeanBackup,
    Node,
    Staged,
    Tree,
)
from stratagem.planning.votes import chosen_answer, pooled

__all__ = [
    "PUCT",
    "UCB",
    "AlphaMath",
    "Answered",
    "Ask",
    "Backup",
    "ChildRule",
    "ChildrenBackup",
    "Expansion",
    "Fitting",
    "Fixed",
    "Found",
    "HardLabels",
    "Judged",
    "Limits",
    "MeanBackup",
    "MedS3",
    "Node",
    "Path",
    "Place",
    "Rollouts",
    "Round",
    "Samples",
    "Search",
    "SoftLabels",
    "Solution",
    "Staged",
    "Step",
    "StepBeam",
    "StepJudge",
    "StepLabels",
    "StepLearner",
    "StepPolicy",
    "StepScorer",
    "Tree",
    "TreeSearch",
    "chosen_answer",
    "chosen_paths",
    "labelled",
    "learn_from",
    "pooled",
]
