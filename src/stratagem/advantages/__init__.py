"""Credit per token: group comparison, plain returns, critics, target ratios, signs, turns, normalisation of another."""

from stratagem.advantages.components import PerReward
from stratagem.advantages.critic import GAE
from stratagem.advantages.demonstrations import WithDemonstrations
from stratagem.advantages.group import GroupCentered, GroupStandardized, LeaveOneOut
from stratagem.advantages.normalization import BatchWhitened, ClippedAdvantage, NormalizedReturn
from stratagem.advantages.returns import Constant, MovingAverageBaseline, RewardToGo, TotalReturn
from stratagem.advantages.signs import Signed
from stratagem.advantages.targets import GroupQuantileTarget
from stratagem.advantages.turns import StandardizedTurnReturn

__all__ = [
    "GAE",
    "BatchWhitened",
    "ClippedAdvantage",
    "Constant",
    "GroupCentered",
    "GroupQuantileTarget",
    "GroupStandardized",
    "LeaveOneOut",
    "MovingAverageBaseline",
    "NormalizedReturn",
    "PerReward",
    "RewardToGo",
    "Signed",
    "StandardizedTurnReturn",
    "TotalReturn",
    "WithDemonstrations",
]
