"""Self-play that fits the log-ratios of answers to their win rates."""

from __future__ import annotations

from typing import Literal

from stratagem.advantages import WinRate
from stratagem.catalogue import paper
from stratagem.errors import InputError
from stratagem.objectives import LogRatioRegression
from stratagem.optimizers import AdamW
from stratagem.parts import Preference
from stratagem.preferences import BradleyTerry, GeometricMixture
from stratagem.recipe import Recipe
from stratagem.sampling import Rollouts

__all__ = ["inpo", "sppo"]


@paper(
    "2405.00675",
    title="Self-Play Preference Optimization for Language Model Alignment",
    family="preferences",
    roles=("advantage", "objective"),
    year=2024,
    base="reinforce",
)
def sppo(
    step_size: float = 1000.0,
    preference: Preference = BradleyTerry(),  # noqa: B008
    group_size: int = 5,
    answers: Literal["all", "extremes"] = "all",
    epochs: int = 2,
    minibatches: int = 4,
) -> Recipe:
    """``mean_i (log pi(y_i) / pi_t(y_i) - eta (P(y_i > pi_t) - 1/2))^2``: multiplicative weights by regression.

    Every batch is an iteration: it is sampled from ``pi_t``, each answer's win rate is over its group, itself included,
    and the loss is minimised from ``pi_t``. Of exact win rates it is least at ``pi_t exp(eta P(y > pi_t))``, with 1/2
    for ``log Z / eta``; so the *average* policy nears the minimax winner, and the last one may cycle. There is no
    reference beside the last policy.

    step_size: ``eta``, nats of log-ratio for a whole win rate. The published 1000 asks for more than any update can
    give; then the loss is a policy gradient, and the optimizer decides how far it goes.
    answers: ``extremes``: as the released code, of each group only the answers that won most and least.
    preference: the oracle.  epochs, minibatches: of each iteration; published iterations are one pass over about
    20,000 prompts.
    """
    return Recipe(
        name="sppo",
        base="reinforce",
        sampler=Rollouts(group_size=group_size),
        advantage=WinRate(preference),
        objective=LogRatioRegression(gain=step_size, answers=answers),
        optimization=AdamW(epochs=epochs, minibatches=minibatches, shuffle="groups"),
    )


@paper(
    "2407.00617",
    title="Iterative Nash Policy Optimization: Aligning LLMs with General Preferences via No-Regret Learning",
    family="preferences",
    roles=("objective",),
    year=2024,
    base="sppo",
)
def inpo(
    inverse_step: float = 7.5e-3,
    strength: float = 2.5e-3,
    preference: Preference = BradleyTerry(),  # noqa: B008
    group_size: int = 8,
    epochs: int = 2,
    minibatches: int = 4,
) -> Recipe:
    """``mean_ij (h_i - h_j - (P(y_i > y_j) - 1/2) / eta)^2``, ``h`` a log-ratio to a mixture of two anchors.

    ``h = log pi - (tau / eta) log mu - (1 - tau / eta) log pi_t``.

    Every batch is an iteration: it is sampled from ``pi_t``, and the loss, over all pairs of a group, minimised from
    there. It is least at ``pi prop mu^(tau / eta) pi_t^(1 - tau / eta) exp(P(y > pi_t) / eta)``, a step of mirror
    descent on the game regularised towards the frozen reference ``mu``, and no win rate has to be known for that: a
    vote on each pair will do (``SingleVote``), since both answers are from ``pi_t``.

    inverse_step: ``eta``, the inverse of a step size.  strength: ``tau``, at least 0 and at most ``eta``; where they
    are equal ``pi_t`` is out of it, and this is online IPO.  preference: the oracle.

    The defaults are those of a released implementation. Published runs pair the best of several answers with the worst,
    for which the above does not hold.
    """
    if not 0 <= strength <= inverse_step or inverse_step == 0:
        raise InputError(
            f"inpo: strength = {strength}: must be at least 0 and at most inverse_step = {inverse_step}, "
            "which is above 0"
        )
    return Recipe(
        name="inpo",
        base="sppo",
        sampler=Rollouts(group_size=group_size),
        advantage=WinRate(preference),
        objective=LogRatioRegression(
            anchor=GeometricMixture(reference=strength / inverse_step), gain=1 / inverse_step, compared=True
        ),
        optimization=AdamW(epochs=epochs, minibatches=minibatches, shuffle="groups"),
    )
