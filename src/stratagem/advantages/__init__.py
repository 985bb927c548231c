"""Credit per token: comparison of groups, states, turns, roles, segments; critics, returns, targets, scales."""

from stratagem.advantages.agreement import SemanticEntropyScaled
from stratagem.advantages.anchors import LoneTrajectories, OverTurns, SharedStates
from stratagem.advantages.comparisons import ReferenceLogRatio, WinRate
from stratagem.advantages.components import PerReward, SpreadWeighted
from stratagem.advantages.confidence import ConfidenceDiscounted
from stratagem.advantages.critic import GAE
from stratagem.advantages.demonstrations import WithDemonstrations
from stratagem.advantages.diversity import DiversityBonus
from stratagem.advantages.entropy import EntropyModulated, UncertaintyShaped
from stratagem.advantages.graph import SharedSteps
from stratagem.advantages.group import GroupCentered, GroupStandardized, LeaveOneOut, TokenStandardized
from stratagem.advantages.halves import GroupHalves
from stratagem.advantages.normalization import BatchWhitened, ClippedAdvantage, Exponential, NormalizedReturn
from stratagem.advantages.planning import PlanningRaised
from stratagem.advantages.ranks import GaussianRanks
from stratagem.advantages.rates import BetaNormalized
from stratagem.advantages.returns import Constant, MovingAverageBaseline, RewardToGo, TotalReturn
from stratagem.advantages.roles import AlignedCalls, RoleCredit, RoleStandardized
from stratagem.advantages.segments import HierarchicalGAE
from stratagem.advantages.signs import Signed
from stratagem.advantages.steps import InformationGain, NodeStandardized
from stratagem.advantages.targets import GroupQuantileTarget
from stratagem.advantages.thoughts import EntropyRaised
from stratagem.advantages.turn_critics import TurnCriticAdvantage
from stratagem.advantages.turns import StandardizedContext, StandardizedTurnReturn
from stratagem.advantages.value_scale import NormalizedValues
from stratagem.advantages.weighed import GroupRule, LongerSuccess, PassRateBand, WeighedGroups

__all__ = [
    "GAE",
    "AlignedCalls",
    "BatchWhitened",
    "BetaNormalized",
    "ClippedAdvantage",
    "ConfidenceDiscounted",
    "Constant",
    "DiversityBonus",
    "EntropyModulated",
    "EntropyRaised",
    "Exponential",
    "GaussianRanks",
    "GroupCentered",
    "GroupHalves",
    "GroupQuantileTarget",
    "GroupRule",
    "GroupStandardized",
    "HierarchicalGAE",
    "InformationGain",
    "LeaveOneOut",
    "LoneTrajectories",
    "LongerSuccess",
    "MovingAverageBaseline",
    "NodeStandardized",
    "NormalizedReturn",
    "NormalizedValues",
    "OverTurns",
    "PassRateBand",
    "PerReward",
    "PlanningRaised",
    "ReferenceLogRatio",
    "RewardToGo",
    "RoleCredit",
    "RoleStandardized",
    "SemanticEntropyScaled",
    "SharedStates",
    "SharedSteps",
    "Signed",
    "SpreadWeighted",
    "StandardizedContext",
    "StandardizedTurnReturn",
    "TokenStandardized",
    "TotalReturn",
    "TurnCriticAdvantage",
    "UncertaintyShaped",
    "WeighedGroups",
    "WinRate",
    "WithDemonstrations",
]
