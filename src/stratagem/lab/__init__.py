"""Problems small enough to be solved: token games with their exact gradient, and how their best policy can jump."""

from stratagem.lab.answers import AnswerCliffs, answer_cliffs
from stratagem.lab.bounds import PACBayesBound, gaussian_kl, pac_bayes_bound
from stratagem.lab.cliff import CliffReport, PolicyCliff
from stratagem.lab.composite import Conflict, conflict, effective_weights
from stratagem.lab.diagnosis import Diagnosis, diagnose, objection
from stratagem.lab.exact import Exact
from stratagem.lab.experts import ExpertsPolicy
from stratagem.lab.game import Outcome, TokenGame, over
from stratagem.lab.games import GAMES, SPECIAL_GAMES, find_game
from stratagem.lab.mdp import TabularMDP
from stratagem.lab.pages import PageRules, page_game
from stratagem.lab.policy import SharedPolicy, TabularPolicy
from stratagem.lab.projected import ProjectedPolicy, allowed_tokens
from stratagem.lab.routing import CardPolicy, RouterRules, router_game
from stratagem.lab.search import SearchRules, search_game
from stratagem.lab.shaping import best_actions, keeps_best_actions, potential_shaped
from stratagem.lab.tools import ToolRules, tool_game
from stratagem.lab.tree import Tree

__all__ = [
    "GAMES",
    "SPECIAL_GAMES",
    "AnswerCliffs",
    "CardPolicy",
    "CliffReport",
    "Conflict",
    "Diagnosis",
    "Exact",
    "ExpertsPolicy",
    "Outcome",
    "PACBayesBound",
    "PageRules",
    "PolicyCliff",
    "ProjectedPolicy",
    "RouterRules",
    "SearchRules",
    "SharedPolicy",
    "TabularMDP",
    "TabularPolicy",
    "TokenGame",
    "ToolRules",
    "Tree",
    "allowed_tokens",
    "answer_cliffs",
    "best_actions",
    "conflict",
    "diagnose",
    "effective_weights",
    "find_game",
    "gaussian_kl",
    "keeps_best_actions",
    "objection",
    "over",
    "pac_bayes_bound",
    "page_game",
    "potential_shaped",
    "router_game",
    "search_game",
    "tool_game",
]
