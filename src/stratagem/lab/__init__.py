"""Token games small enough to enumerate: the exact gradient, and what a recipe makes of it."""

from stratagem.lab.diagnosis import Diagnosis, diagnose
from stratagem.lab.exact import Exact
from stratagem.lab.experts import ExpertsPolicy
from stratagem.lab.game import Outcome, TokenGame, over
from stratagem.lab.games import GAMES, find_game
from stratagem.lab.policy import TabularPolicy
from stratagem.lab.tree import Tree

__all__ = [
    "GAMES",
    "Diagnosis",
    "Exact",
    "ExpertsPolicy",
    "Outcome",
    "TabularPolicy",
    "TokenGame",
    "Tree",
    "diagnose",
    "find_game",
    "over",
]
