"""Credit per token: group comparison, plain returns, critics, and normalisation or one sign of another advantage."""

from stratagem.advantages.critic import GAE
from stratagem.advantages.group import GroupCentered, GroupStandardized, LeaveOneOut
from stratagem.advantages.normalization import BatchWhitened
from stratagem.advantages.returns import Constant, MovingAverageBaseline, RewardToGo, TotalReturn
from stratagem.advantages.signs import Signed

__all__ = [
    "GAE",
    "BatchWhitened",
    "Constant",
    "GroupCentered",
    "GroupStandardized",
    "LeaveOneOut",
    "MovingAverageBaseline",
    "RewardToGo",
    "Signed",
    "TotalReturn",
]
