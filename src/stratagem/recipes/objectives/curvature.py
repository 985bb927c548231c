"""Objectives that look ahead: what the next step would do, by a model of curvature, decides what it is made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal

from stratagem.catalogue import paper
from stratagem.errors import unknown
from stratagem.objectives import AdamStep, CurvatureMask, GradientStep, PolicyGradient, StepModel
from stratagem.parts import Correction
from stratagem.recipe import Recipe
from stratagem.recipes import baselines

__all__ = ["capo"]

_BASES: dict[str, tuple[Callable[[], Recipe], float, float]] = {
    "grpo": (baselines.grpo, 1e-2, 1e-4),
    "dr_grpo": (baselines.dr_grpo, 5e-4, 1e-3),
    "reinforce": (baselines.reinforce, 1e-1, 1e-5),
}
"""By name: the recipe, and the published bounds on ``m_H`` and ``m_F``."""


@paper(
    "2510.00819",
    title="Stabilizing Policy Gradients for Sample-Efficient Reinforcement Learning in LLM Reasoning",
    family="objectives",
    roles=("correction",),
    year=2025,
    base="grpo",
)
def capo(
    policy_gradient: Literal["grpo", "dr_grpo", "reinforce"] = "grpo",
    step: Literal["adam", "gradient"] = "adam",
    gain: float | None = None,
    shift: float | None = None,
) -> Recipe:
    """Drop the tokens that, by a second-order model of the last layer, would move objective or policy too far.

    A token stays when ``|m_H| < gain`` and ``m_F < shift``, what the optimizer's step on it alone would do to its
    objective and to the policy (:class:`CurvatureMask`). ``policy_gradient`` is the loss that is masked: CAPO on GRPO,
    Dr. CAPO, or ReinCAPO. ``gain`` and ``shift`` are the released values of each when None: (1e-2, 1e-4), (5e-4, 1e-3)
    and (1e-1, 1e-5). They belong to 7 billion parameters, a learning rate of 1.5e-5 and the ``step`` model of Adam:
    both shifts grow with the learning rate and the size of the hidden state, so other models need other values; the
    logged rejection rate, which the paper reports at 2 to 8 %, says which. The learning rate is the recipe's, as a
    schedule has it; ``step = "gradient"`` models plain gradient descent, in closed form. The released runs on GRPO do
    not divide advantages by the group's deviation; the recipe takes its base as it is.
    """
    if policy_gradient not in _BASES:
        raise unknown("policy_gradient of capo", policy_gradient, _BASES)
    models: dict[str, type[StepModel]] = {"adam": AdamStep, "gradient": GradientStep}
    if step not in models:
        raise unknown("step of capo", step, models)
    build, usual_gain, usual_shift = _BASES[policy_gradient]
    base = build()
    mask: Correction = CurvatureMask(
        models[step](), usual_gain if gain is None else gain, usual_shift if shift is None else shift
    )
    assert isinstance(base.objective, PolicyGradient)
    objective = dataclasses.replace(base.objective, correction=mask)
    return dataclasses.replace(base, name="capo", base=policy_gradient, objective=objective)
