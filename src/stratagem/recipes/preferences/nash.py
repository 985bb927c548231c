"""Towards the Nash policy of a preference game by policy gradients against a mixture, or by mirror prox."""

from __future__ import annotations

from typing import Literal

from stratagem.advantages import ReferenceLogRatio, WinRate
from stratagem.catalogue import paper
from stratagem.errors import InputError
from stratagem.objectives import (
    IterationStart,
    LogLikelihood,
    LogRatioRegression,
    MovingAverage,
    PolicyGradient,
    SequenceSum,
)
from stratagem.optimizers import AdamW
from stratagem.parts import Preference
from stratagem.preferences import BradleyTerry, GeometricMixture
from stratagem.recipe import Recipe
from stratagem.sampling import Rollouts

__all__ = ["nash_md", "nash_mp"]


@paper(
    "2312.00886",
    title="Nash Learning from Human Feedback",
    family="preferences",
    roles=("advantage",),
    year=2023,
    base="reinforce",
)
def nash_md(
    strength: float = 0.1,
    mixing: float = 0.125,
    average: float | None = None,
    preference: Preference = BradleyTerry(),  # noqa: B008
    group_size: int = 8,
    unit: Literal["trajectory", "token"] = "trajectory",
) -> Recipe:
    """Nash-MD-PG: ``grad log pi(y) (P(y > y') - 1/2 - tau log(pi(y) / mu(y)))``, ``y'`` from ``pi^(1 - b) mu^b``.

    ``mu`` is the frozen reference. The opponent is the geometric mixture of whole answers, and its win rate is that of
    the group's answers weighed by ``(mu / pi)^b`` (:class:`~stratagem.advantages.WinRate`): sampling from it would
    take another model per token, of which the product over tokens is a different mixture. With ``average`` it is
    Nash-EMA-PG: the opponent's weights are an average of the policy's.

    strength: ``tau``; the value is a released trainer's, the paper's was not available.
    mixing: ``b``, in [0, 1]: 0 is self-play, 1 is to do well against the reference alone. The paper found values
    between 0.125 and 0.5 best.
    average: None, or Nash-EMA with this window (:class:`~stratagem.objectives.MovingAverage`: the average lags half of
    it behind, in optimizer steps); ``mixing`` is then not used and must stay as it is.
    preference: the oracle.  unit: of the KL's gradient, see :class:`~stratagem.advantages.ReferenceLogRatio`; the
    released trainer's is ``token``.
    """
    if not 0 <= mixing <= 1:
        raise InputError(f"nash_md: mixing = {mixing}: must be in [0, 1]")
    opponent = GeometricMixture(reference=mixing) if average is None else GeometricMixture()
    won = WinRate(preference, None if average is None and mixing == 0 else opponent, against="others")
    return Recipe(
        name="nash_md",
        base="reinforce",
        sampler=Rollouts(group_size=group_size),
        advantage=won + (-strength) * ReferenceLogRatio(unit) if strength else won,
        objective=PolicyGradient(gate=LogLikelihood(), aggregation=SequenceSum()),
        proximal=None if average is None else MovingAverage(average, reset_below=0.0),
    )


@paper(
    "2505.19731",
    title="Accelerating Nash Learning from Human Feedback via Mirror Prox",
    family="preferences",
    roles=("objective",),
    year=2025,
    base="inpo",
)
def nash_mp(
    strength: float = 0.1,
    step_size: float | None = None,
    preference: Preference = BradleyTerry(),  # noqa: B008
    group_size: int = 8,
    epochs: int = 4,
    minibatches: int = 2,
    learning_rate: float = 1e-4,
) -> Recipe:
    """Mirror prox: from one anchor, a step against the policy, and then the same step against what that step led to.

    Both steps are ``argmax_pi P(pi > q) - beta KL(pi || mu) - (beta / eta) KL(pi || pi_k)``: with ``q = pi_k`` in even
    batches and ``q = pi_(k + 1/2)``, the policy by then, in odd ones. The opponent is who sampled the group, and
    ``pi_k`` stays for two batches (:class:`~stratagem.objectives.IterationStart`). Each batch fits log-ratios to win
    rates, as INPO does, which has this step for its least loss.

    strength: ``beta``, above 0.  step_size: ``eta``; None: ``2 beta``. Beyond that nothing is proved.
    epochs, minibatches: of each step.  preference: the oracle.
    learning_rate: ours, below other recipes', since targets are a few tenths of a nat away and Adam steps past them.

    The two steps are reconstructed from the abstract, whose rate is theirs, and so is the way to learn them.
    """
    if not strength > 0:
        raise InputError(f"nash_mp: strength = {strength}: must be above 0, or there is no reference to go by")
    eta = 2 * strength if step_size is None else step_size
    if not eta > 0:
        raise InputError(f"nash_mp: step_size = {eta}: must be above 0")
    return Recipe(
        name="nash_mp",
        base="inpo",
        sampler=Rollouts(group_size=group_size),
        advantage=WinRate(preference),
        objective=LogRatioRegression(
            anchor=GeometricMixture(reference=eta / (1 + eta)), gain=eta / (strength * (1 + eta)), compared=True
        ),
        proximal=IterationStart(2),
        optimization=AdamW(learning_rate=learning_rate, epochs=epochs, minibatches=minibatches, shuffle="groups"),
    )
