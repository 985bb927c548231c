"""Recipes that treat every token by how sure the policy is of it: when it is sampled, credited and clipped."""

from __future__ import annotations

from stratagem.advantages import GroupStandardized, TokenStandardized
from stratagem.catalogue import paper
from stratagem.entropy_scale import BelowPivot
from stratagem.objectives import EntropyClip, PolicyGradient, Redistributed, TokenMean
from stratagem.recipe import Recipe
from stratagem.recipes.baselines import dapo
from stratagem.sampling import DynamicSampling, EntropyTempering

__all__ = ["hapo"]


@paper(
    "2509.16591",
    title="From Uniform to Heterogeneous: Tailoring Policy Optimization to Every Token's Nature",
    family="reasoning",
    roles=("sampler", "advantage", "gate"),
    year=2025,
    base="dapo",
)
def hapo(
    tempering: float = 0.05,
    token_average: bool = True,
    redistribution: float = 1.0,
    widening: float = 1.0,
    below: BelowPivot = "negative",
    clip: float = 0.2,
    dual: float | None = 10.0,
) -> Recipe:
    """DAPO with temperature, advantage and clip of each token by its scaled entropy ``h`` in [-1, 1]: sampled at
    ``1 + tempering h``, standardised over the tokens of its group, counted more where the policy is unsure and moves
    and less where it is sure and does not, and clipped at ``eps (1 + widening |h|)`` on one side.

    The four are apart: :class:`~stratagem.sampling.EntropyTempering` (0: one temperature),
    :class:`~stratagem.advantages.TokenStandardized` (``token_average``),
    :class:`~stratagem.objectives.Redistributed` (0: off) and :class:`~stratagem.objectives.EntropyClip` (0: PPO's).
    With all of them off and ``dual`` None it is ``dapo(clip, clip)``.

    Formulas and numbers are the released code's. Four fifths of the tokens have ``h <= 0``. In that code ``h`` is never
    negative, against the figure of the paper, so that nothing is cooled or damped and no lower bound widened: that is
    ``below = "positive"``. Ratios are to the policy that began the update, at temperature 1. The authors take 512
    prompts in groups of 16 and mini-batches of 32.

    clip: ``eps``, both ways.  dual: bound on the ratio of bad tokens (:class:`~stratagem.objectives.Clip`).
    """
    gate = EntropyClip(clip, clip, dual, widening=widening, below=below)
    return dapo(clip, clip).replace(
        name="hapo",
        base="dapo",
        sampler=DynamicSampling(tempering=EntropyTempering(tempering, below=below)),
        advantage=TokenStandardized() if token_average else GroupStandardized(),
        objective=PolicyGradient(gate=Redistributed(gate, redistribution, below=below), aggregation=TokenMean()),
    )
