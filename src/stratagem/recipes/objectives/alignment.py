"""The recipes by which model-task alignment is studied: one trainer, and the reward, signs and examples it is given."""

from __future__ import annotations

from typing import Literal

from stratagem.advantages import Signed
from stratagem.errors import unknown
from stratagem.parts import Reward
from stratagem.recipe import Recipe
from stratagem.recipes.baselines import dapo
from stratagem.rewards import Confidence, Correct, FormatOnly, Inverted, Majority, RandomSignal
from stratagem.sampling import DynamicSampling

__all__ = ["alignment_protocol"]

Signal = Literal["correct", "random", "incorrect", "format", "majority", "entropy"]

SIGNALS: dict[Signal, Reward] = {
    "correct": Correct(),
    "random": RandomSignal(),
    "incorrect": Inverted(),
    "format": FormatOnly(),
    "majority": Majority(),
    "entropy": Confidence(),
}
"""What the trainer may be rewarded with, by name."""


def alignment_protocol(
    signal: Signal = "correct",
    signs: Literal["both", "positive", "negative"] = "both",
    example: int | None = None,
    group_size: int = 16,
) -> Recipe:
    """DAPO on a reward, a sign and examples of choice: the arms of a study of model-task alignment (arXiv 2508.21188).

    The trainer is the same for all: clip 0.2 and 0.28, group-standardised advantages, token mean, no KL, no overlong
    penalty, dynamic sampling judged by the signal itself (as in the released code), two optimizer steps on a batch.
    The paper's batch is 128 prompts of 16 samples; the number of prompts is left at 8 here.

    signal: ``correct`` (success in the right format), ``random`` (a fair coin in the right format), ``incorrect``
    (failure in the right format), ``format`` alone, ``majority`` of the group's answers, ``entropy`` (the mean
    log-probability of what was sampled).
    signs: ``positive`` and ``negative`` keep one sign of the advantages after they are normalised. The released code
    keeps the samples of reward 1 and those below 1, which for rewards of 0 and 1 is the same.
    example: the number of the only start state to train on, over and over (``Alignment.most_varied`` suggests one);
    None trains on all.

    Raises :class:`InputError` for an unknown signal or sign, and as :class:`DynamicSampling` does.
    """
    if signal not in SIGNALS:
        raise unknown("signal", signal, SIGNALS)
    if signs not in ("both", "positive", "negative"):
        raise unknown("signs", signs, ("both", "positive", "negative"))
    base, reward = dapo(), SIGNALS[signal]
    sampler = DynamicSampling(
        group_size=group_size, judged_by=reward, start_states=() if example is None else (example,)
    )
    advantage = base.advantage if signs == "both" else Signed(base.advantage, signs)
    return base.replace(
        name="model_task_alignment",
        base="dapo",
        sampler=sampler,
        rewards=(reward,),
        advantage=advantage,
        optimization=base.optimization.replace(minibatches=2),
    )
