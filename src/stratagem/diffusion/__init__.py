"""Masked diffusion: a small policy that denoises its answers, its tasks, and exact likelihoods to judge by."""

from stratagem.diffusion.denoising import Noise, denoise
from stratagem.diffusion.exact import MaskTable, mask_table
from stratagem.diffusion.inputs import DiffusionInputs
from stratagem.diffusion.policy import DiffusionPolicy, Shape
from stratagem.diffusion.pretrain import pretrain
from stratagem.diffusion.tasks import Countdown, DiffusionTask, Sudoku

__all__ = [
    "Countdown",
    "DiffusionInputs",
    "DiffusionPolicy",
    "DiffusionTask",
    "MaskTable",
    "Noise",
    "Shape",
    "Sudoku",
    "denoise",
    "mask_table",
    "pretrain",
]
