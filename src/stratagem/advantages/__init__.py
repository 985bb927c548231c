"""Credit per token: group comparison, returns, critics, demonstrations, and another advantage normalised or halved."""

from stratagem.advantages.critic import GAE
from stratagem.advantages.demonstrations import WithDemonstrations
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
    "WithDemonstrations",
]
