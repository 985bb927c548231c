"""Skills in the prompt as something to optimise beside the weights: which to show, to keep and to lay aside."""

from stratagem.skills.bank import Entry, Skill, SkillBank
from stratagem.skills.lifecycle import Audit, Case, Marginal, SkillLifecycle, Trial
from stratagem.skills.retrieval import Retriever, TfidfMatch, TypeMatch
from stratagem.skills.task import Skilled

__all__ = [
    "Audit",
    "Case",
    "Entry",
    "Marginal",
    "Retriever",
    "Skill",
    "SkillBank",
    "SkillLifecycle",
    "Skilled",
    "TfidfMatch",
    "Trial",
    "TypeMatch",
]
