"""Recipes: one short function per paper, one file per family."""

from stratagem.recipes.baselines import (
    cispo,
    dapo,
    decoupled_ppo,
    dr_grpo,
    grpo,
    gspo,
    ppo,
    reinforce,
    reinforce_pp,
    reinforce_pp_baseline,
    rejection_sft,
    rloo,
    sft,
)

__all__ = [
    "cispo",
    "dapo",
    "decoupled_ppo",
    "dr_grpo",
    "grpo",
    "gspo",
    "ppo",
    "reinforce",
    "reinforce_pp",
    "reinforce_pp_baseline",
    "rejection_sft",
    "rloo",
    "sft",
]
