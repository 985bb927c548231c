"""What runs showed: comparisons, claims, their statistics, and pages for people."""

from stratagem.study.curve import write_curve_svg
from stratagem.study.report import write_report

__all__ = ["write_curve_svg", "write_report"]
