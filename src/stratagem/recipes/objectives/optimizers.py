"""Techniques that change how the weights move."""

from __future__ import annotations

from stratagem.advantages import GroupStandardized
from stratagem.catalogue import paper
from stratagem.objectives import Clip, PolicyGradient, SequenceMean
from stratagem.optimizers import Muon
from stratagem.recipe import Recipe
from stratagem.sampling import Rollouts

__all__ = ["muonpp"]


@paper(
    "2601.01306",
    title="Towards a Principled Muon under μP: Ensuring Spectral Conditions throughout Training",
    family="objectives",
    roles=("optimization",),
    year=2026,
    base="grpo",
)
def muonpp(
    matrix_learning_rate: float = 0.005,
    weight_decay: float = 0.0,
    power_iterations: int = 10,
    clip: float = 0.2,
    group_size: int = 8,
) -> Recipe:
    """GRPO whose hidden matrices step by ``rate * sqrt(outputs / inputs)`` in spectral norm, measured at every step.

    Holding the updates to the size that muP asks for keeps the weights at it, too, without normalising them, so that a
    learning rate found for a narrow network serves a wide one.

    Reconstructed from the paper's abstract, since its own update rule was not available: that the size of a step is
    measured by power iteration is our reading, how often to iterate our choice, and so is the learning rate, for the
    paper trains language models from scratch. Whoever does that brings the initial weights to size, too, with
    :func:`~stratagem.optimizers.rescale_to_spectral_size`. The paper's spectral condition that adapts to the data is
    not here: it needs the activations, which an optimizer does not see.
    """
    return Recipe(
        name="muonpp",
        base="grpo",
        sampler=Rollouts(group_size=group_size),
        advantage=GroupStandardized(),
        objective=PolicyGradient(gate=Clip(clip, clip), aggregation=SequenceMean()),
        optimization=Muon(
            matrix_learning_rate=matrix_learning_rate,
            weight_decay=weight_decay,
            scale="spectral",
            power_iterations=power_iterations,
        ),
    )
