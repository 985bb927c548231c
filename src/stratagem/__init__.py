"""Stratagem: policy optimization in which papers are recipes and parts are concepts."""

__version__ = "0.1.0"
