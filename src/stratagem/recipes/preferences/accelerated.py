"""Iterated preference optimisation with momentum in the space of policies."""

from __future__ import annotations

from typing import Literal

from stratagem.advantages import WinRate
from stratagem.catalogue import paper
from stratagem.errors import InputError
from stratagem.objectives import LogisticComparison, LogRatioRegression
from stratagem.optimizers import AdamW
from stratagem.parts import Preference
from stratagem.preferences import BradleyTerry, GeometricMixture, SingleVote
from stratagem.recipe import Recipe
from stratagem.sampling import Rollouts

__all__ = ["apo"]


@paper(
    "2410.06293",
    title="Accelerated Preference Optimization for Large Language Model Alignment",
    family="preferences",
    roles=("objective",),
    year=2024,
    base="online_dpo",
)
def apo(
    strength: float = 0.1,
    momentum: float = 0.3,
    loss: Literal["logistic", "squared"] = "logistic",
    preference: Preference = SingleVote(BradleyTerry()),  # noqa: B008
    group_size: int = 2,
    epochs: int = 2,
    minibatches: int = 4,
) -> Recipe:
    """DPO, batch after batch, with log-ratios to ``pi_t prop pi^_t (pi^_t / pi^_(t-1))^alpha``: Nesterov's momentum.

    Every batch is an iteration: ``pi^_t`` is the policy as it arrives and ``pi^_(t-1)`` as the one before did (at first
    they are the same). Iterated preference optimisation is a proximal-point method on the policy, each update anchored
    at the last, and here the anchor is extrapolated. Of whole answers that needs no normaliser, since a constant of the
    prompt cancels in pairs.

    strength: ``beta``.  momentum: ``alpha``, in [0, 1); at 0 it is iterated DPO. The values are reconstructed.
    loss: ``logistic`` (DPO's) or ``squared``, with win rates over ``beta`` for targets, for preferences that no scores
    stand for.  preference: the oracle.  epochs, minibatches: of each iteration.

    The paper draws pairs from ``pi_t``, for which a language model would have to be made of two; here ``pi^_t``
    samples. Where there are Bradley-Terry scores the least loss is the same.
    """
    if not 0 <= momentum < 1:
        raise InputError(f"apo: momentum = {momentum}: must be at least 0 and below 1, where steps grow without end")
    if not strength > 0:
        raise InputError(f"apo: strength = {strength}: must be above 0")
    anchor = GeometricMixture(previous=-momentum)
    return Recipe(
        name="apo",
        base="online_dpo",
        sampler=Rollouts(group_size=group_size),
        advantage=WinRate(preference),
        objective=LogisticComparison(anchor=anchor, strength=strength)
        if loss == "logistic"
        else LogRatioRegression(anchor=anchor, gain=1 / strength, compared=True),
        optimization=AdamW(epochs=epochs, minibatches=minibatches, shuffle="groups"),
    )
