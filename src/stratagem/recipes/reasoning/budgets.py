"""Rollouts given to the prompts that teach most, as far as that can be foreseen."""

from __future__ import annotations

from typing import Literal

from stratagem.catalogue import paper
from stratagem.recipe import Recipe
from stratagem.recipes.baselines import grpo
from stratagem.sampling import Budgeted, InContext, Logistic, Neighbours, Predictor, Rollouts

__all__ = ["v0_value_model"]

_PREDICTORS: dict[str, type[Predictor]] = {"logistic": Logistic, "neighbours": Neighbours, "in_context": InContext}


@paper(
    "2602.03584",
    title="V_0: A Generalist Value Model for Any Policy at State Zero",
    family="reasoning",
    roles=("sampler", "curriculum"),
    year=2026,
    base="grpo",
)
def v0_value_model(
    prompts: int | None = 1024,
    predictor: Literal["logistic", "neighbours", "in_context"] = "logistic",
    method: Literal["greedy", "exact", "uniform"] = "greedy",
    context: int = 256,
    least: int = 2,
    most: int = 128,
) -> Recipe:
    """GRPO with group sizes ``B`` of the largest sum of ``B (1 - p) [1 - (1 - p)^(B - 1)]`` for predicted rates ``p``.

    The success rate of a prompt is predicted in context, from the policy's scores on the last ``context`` prompts, and
    nothing is trained when the policy changes (:class:`~stratagem.sampling.Budgeted`). A batch has as many rollouts as
    without; advantages are within each group, whatever its size.

    prompts: start states to train on.  predictor: ``logistic`` regression on the prompts' features, the mean of
    ``neighbours``, or a small transformer trained ``in_context`` on made-up policies.
    method: ``greedy`` is reported of the paper; the gain is not concave, so that need not be the best there is, which
    is ``exact``; ``uniform`` is GRPO with prompts in an order at random.  least, most: rollouts of a group.

    The paper's model, a frozen tabular classifier (TabPFN) behind an adapter that is trained, is not installed here:
    the predictors are stand-ins of our own, on character n-grams unless ``sampler.curriculum.features.encoder`` names
    an embedding. Adapter, loss, routing and diagnostics are in :mod:`stratagem.prompt_values`. The allocation formula
    is as reported by others.
    """
    rule = Budgeted(
        prompts=prompts, predictor=_PREDICTORS[predictor](), method=method, context=context, least=least, most=most
    )
    return grpo().replace(name="v0_value_model", base="grpo", sampler=Rollouts(curriculum=rule))
