"""Credit per token: group comparison, plain returns, critics, and normalisation of another advantage."""

from stratagem.advantages.critic import GAE
from stratagem.advantages.group import GroupCentered, GroupStandardized, LeaveOneOut
from stratagem.advantages.normalization import BatchWhitened, ClippedAdvantage, NormalizedReturn
from stratagem.advantages.returns import Constant, MovingAverageBaseline, RewardToGo, TotalReturn

__all__ = [
    "GAE",
    "BatchWhitened",
    "ClippedAdvantage",
    "Constant",
    "GroupCentered",
    "GroupStandardized",
    "LeaveOneOut",
    "MovingAverageBaseline",
    "NormalizedReturn",
    "RewardToGo",
    "TotalReturn",
]
