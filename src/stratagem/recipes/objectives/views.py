"""Objectives on something else than the policy that acted: responses alone, single layers, perturbed layers."""

from __future__ import annotations

from typing import Literal

from stratagem.advantages import GroupCentered, Signed
from stratagem.catalogue import paper
from stratagem.errors import unknown
from stratagem.objectives import (
    Clip,
    Credited,
    InternalLayer,
    Perturbed,
    PolicyGradient,
    ProductRatio,
    ResponseOnly,
    SequenceMean,
    TokenMean,
    TokenRatio,
)
from stratagem.parts import Advantage
from stratagem.recipe import Recipe
from stratagem.recipes.baselines import grpo
from stratagem.schedules import Switch

__all__ = ["alp", "bupo", "prerl"]

DUAL_CLIP = 10.0
"""Of the trainer that the released code of these papers builds on."""


@paper(
    "2604.14142",
    title="From P(y|x) to P(y): Investigating Reinforcement Learning in Pre-train Space",
    family="objectives",
    roles=("view", "advantage", "aggregation", "schedule"),
    year=2026,
    base="grpo",
)
def prerl(
    steps: int = 20,
    signs: Literal["negative", "positive", "both"] = "negative",
    coefficient: float = 0.01,
    space: Literal["response", "conditional"] = "response",
) -> Recipe:
    """Policy gradient on ``log P(y)`` without the prompt, on wrong answers alone, then GRPO: dual space RL (DSRL).

    For the first ``steps`` batches the loss is ``coefficient / N sum_{i: A_i < 0} sum_t -gate(rho0_t, A_i)`` with
    ``A_i = R_i - mean_g R``, N the tokens of the samples it counts, and ``rho0_t`` the ratio of ``P(y_t | y_<t)`` to
    what the policy gave it before the update: negative sample reinforcement in the pre-train space (NSR-PreRL). After
    that it is group-standardised GRPO as the released code runs it: token mean, clip 0.2, dual clip 10, no KL. The
    optimizer keeps its state. Paper: 20 steps (10 to 25 do), 128 prompts of 8 samples; prompts are left at 8 here.

    A batch without a wrong answer among right ones takes no optimizer step in the first phase. Adam divides the
    coefficient out again unless ``max_grad_norm`` binds; it matters to other optimizers.

    steps: batches of the first phase; a number no run reaches is PreRL alone.
    signs: ``positive`` (PSR), ``negative`` (NSR), or ``both``, which counts every token.
    coefficient: of the first phase's loss.
    space: ``conditional`` is the ablation with the prompt left in.

    Raises :class:`InputError` for an unknown sign or space.
    """
    if signs not in ("negative", "positive", "both"):
        raise unknown("signs", signs, ("negative", "positive", "both"))
    if space not in ("response", "conditional"):
        raise unknown("space", space, ("response", "conditional"))
    centered: Advantage = GroupCentered() if signs == "both" else Signed(GroupCentered(), signs)
    return grpo().replace(
        name="prerl",
        base="grpo",
        view=ResponseOnly() if space == "response" else None,
        # The gate is homogeneous in the advantage, so a factor there is one of the loss.
        advantage=coefficient * centered,
        objective=PolicyGradient(
            gate=Clip(dual=DUAL_CLIP), aggregation=TokenMean() if signs == "both" else Credited(TokenMean())
        ),
        schedules=(
            Switch("view", None, steps),
            Switch("advantage", "group_standardized", steps),
            Switch("objective.aggregation", "token_mean", steps),
        ),
    )


@paper(
    "2512.19673",
    title="Bottom-up Policy Optimization: Your Language Model Policy Secretly Contains Internal Policies",
    family="objectives",
    roles=("view", "schedule"),
    year=2025,
    base="grpo",
)
def bupo(layer: int = 6, steps: int = 30) -> Recipe:
    """GRPO on the policy of an inner layer for the first ``steps`` batches, then on the whole model's.

    In the first phase the ratio is ``pi^l(a_t) / pi^l_old(a_t)`` with ``pi^l = softmax(E_u H^l)``
    (:class:`InternalLayer`), although the whole model samples: it is a ratio within the layer and no importance weight.
    Layers above ``l`` do not move. Both phases as the released code runs them: token mean, clip 0.2, dual clip 10, no
    KL. Paper: 30 steps of 300, and too many damage the model; layer 6 for Qwen3-4B (its configuration counts from 0 and
    says 5), 26 or 27 for a Llama, at the end of what explores there: :func:`stratagem.language.entropy_by_layer` shows
    where that is. Another model needs another layer, and one it does not have is an error.

    layer: counted from 1.  steps: batches of the first phase.
    """
    return grpo().replace(
        name="bupo",
        base="grpo",
        view=InternalLayer(layer),
        objective=PolicyGradient(gate=Clip(dual=DUAL_CLIP), aggregation=TokenMean()),
        schedules=(Switch("view", None, steps),),
    )


@paper(
    "2603.19470",
    title="Adaptive Layerwise Perturbation: Unifying Off-Policy Corrections for LLM RL",
    family="objectives",
    roles=("view", "ratio", "gate"),
    year=2026,
    base="grpo",
)
def alp(
    unit: Literal["token", "trajectory"] = "token",
    initial: float | None = None,
    noise_learning_rate: float | None = None,
    layers: tuple[int, ...] | None = None,
) -> Recipe:
    """Learned Gaussian noise on every layer's input in the update alone, under one ratio to the policy that sampled.

    ``rho_t = pi_{theta, sigma}(a_t) / mu(a_t)``: the perturbed policy (:class:`Perturbed`) over ``behavior_logp``, so
    that one gate stands for staleness and for the mismatch of engines, and no further correction is made. GRPO's
    advantage; dual clip 10, no KL. As in the scripts that were released:

    unit: ``token``: clip 0.2 around 1, token mean, ``sigma`` from 1e-5 with a learning rate of 1e-6; ``trajectory``:
    the ratio of the whole response, within 0.5 and 3, ``sigma`` from 1e-6 with 5e-4. That the mean is then one over
    responses, and that 3 is the bound itself, are reconstructions.
    initial, noise_learning_rate: other values of ``sigma`` and of its learning rate. The library of the authors has an
    ``initial`` of 1e-2 where a script does not set it.
    layers: whose input is perturbed, counted from 1; None: all, which the paper found best.

    Raises :class:`InputError` for an unknown unit.
    """
    if unit not in ("token", "trajectory"):
        raise unknown("unit", unit, ("token", "trajectory"))
    sigma, rate = (1e-5, 1e-6) if unit == "token" else (1e-6, 5e-4)
    if unit == "token":
        objective = PolicyGradient(ratio=TokenRatio("behavior"), gate=Clip(dual=DUAL_CLIP), aggregation=TokenMean())
    else:
        objective = PolicyGradient(
            ratio=ProductRatio("trajectory", "behavior"),
            gate=Clip(low=0.5, high=2.0, dual=DUAL_CLIP),
            aggregation=SequenceMean(),
        )
    view = Perturbed(
        initial=sigma if initial is None else initial,
        learning_rate=rate if noise_learning_rate is None else noise_learning_rate,
        layers=layers,
    )
    return grpo().replace(name="alp", base="grpo", view=view, objective=objective)
