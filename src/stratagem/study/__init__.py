"""What runs showed: comparisons, claims, their statistics, and pages for people."""

from stratagem.study.curve import write_curve_svg
from stratagem.study.report import write_report
from stratagem.study.stability import Dip, Stability, length_collapse, reward_dip, stability

__all__ = ["Dip", "Stability", "length_collapse", "reward_dip", "stability", "write_curve_svg", "write_report"]
