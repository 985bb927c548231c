"""Learning from comparisons: preference oracles, the games they make, exact figures of policies, tabular solvers.

``oracles`` are parts: :class:`stratagem.parts.Preference` is their contract, and the advantage
:class:`stratagem.advantages.WinRate` lets them into a recipe. ``games``, ``measures`` and ``solvers`` are about tables:
what the recipes should come to where everything can be enumerated. ``judges``, ``labels`` and ``models`` read text: the
language world asks them about every batch (:mod:`stratagem.readings`).
"""

from stratagem.preferences.judges import Judge, JudgeFunction, ask
from stratagem.preferences.labels import HumanLabels
from stratagem.preferences.mixtures import GeometricMixture, PopulationMixture
from stratagem.preferences.models import PreferenceModel
from stratagem.preferences.oracles import AnswerTable, BradleyTerry, Noisy, Population, SingleVote, win_matrix

__all__ = [
    "AnswerTable",
    "BradleyTerry",
    "GeometricMixture",
    "HumanLabels",
    "Judge",
    "JudgeFunction",
    "Noisy",
    "Population",
    "PopulationMixture",
    "PreferenceModel",
    "SingleVote",
    "ask",
    "win_matrix",
]
