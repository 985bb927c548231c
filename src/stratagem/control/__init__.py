"""Control: policies for Gymnasium environments and the world they act in."""

from stratagem.control.inputs import ControlInputs
from stratagem.control.policy import CategoricalPolicy, ControlPolicy, GaussianPolicy
from stratagem.control.task import GymTask
from stratagem.control.world import ControlWorld

__all__ = ["CategoricalPolicy", "ControlInputs", "ControlPolicy", "ControlWorld", "GaussianPolicy", "GymTask"]
