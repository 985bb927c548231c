"""Credit per token: group comparison, returns, critics, segments, target ratios, signs, normalisation of another."""

from stratagem.advantages.components import PerReward
from stratagem.advantages.critic import GAE
from stratagem.advantages.demonstrations import WithDemonstrations
from stratagem.advantages.group import GroupCentered, GroupStandardized, LeaveOneOut
from stratagem.advantages.normalization import BatchWhitened, ClippedAdvantage, NormalizedReturn
from stratagem.advantages.returns import Constant, MovingAverageBaseline, RewardToGo, TotalReturn
from stratagem.advantages.segments import HierarchicalGAE
from stratagem.advantages.signs import Signed
from stratagem.advantages.targets import GroupQuantileTarget

__all__ = [
    "GAE",
    "BatchWhitened",
    "ClippedAdvantage",
    "Constant",
    "GroupCentered",
    "GroupQuantileTarget",
    "GroupStandardized",
    "HierarchicalGAE",
    "LeaveOneOut",
    "MovingAverageBaseline",
    "NormalizedReturn",
    "PerReward",
    "RewardToGo",
    "Signed",
    "TotalReturn",
    "WithDemonstrations",
]
