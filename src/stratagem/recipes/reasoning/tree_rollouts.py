"""Recipes that roll out trees."""

from __future__ import annotations

from stratagem.advantages import InformationGain, NodeStandardized
from stratagem.catalogue import paper
from stratagem.objectives import KL, Clip, PolicyGradient, TokenMean
from stratagem.parts import Advantage
from stratagem.recipe import Recipe
from stratagem.sampling import Branching, InformativeNodes

__all__ = ["ib_tpo"]


@paper(
    "2605.28109",
    title="IB-Score and IB-TPO: Information Bottleneck Driven Tree-based Policy Optimization",
    family="reasoning",
    roles=("sampler", "advantage"),
    year=2026,
    base="grpo",
)
def ib_tpo(
    roots: int = 4,
    depth: int = 9,
    nodes: int = 1,
    branches: int = 1,
    local: float = 0.1,
    beta: float = 5.0,
    step_tokens: int | None = None,
    clip: float = 0.2,
    kl_coefficient: float = 0.001,
) -> Recipe:
    """GRPO on trees that grow where confidence lies on informative steps, with ``A(s) = A_global + local * A_local``.

    ``roots`` rollouts grow in ``depth - 1`` rounds by ``branches`` each from the ``nodes`` best nodes of every group
    (:class:`InformativeNodes`), so that a group has ``roots + (depth - 1) nodes branches`` trajectories, 12 by default.
    ``A_global(s)`` standardizes the mean return behind a step (:class:`NodeStandardized`), ``A_local(s) = (p(s) /
    p(s_p) - (1 + 1 / beta)) pi_ref(s)`` says whether it helped (:class:`InformationGain`). Without branches and with
    ``local = 0`` this is GRPO with a token mean, as long as no two rollouts begin alike.

    What a branch shares is trained once, where it was sampled: as much as in every trajectory with one over their
    number. That, like the parts' own choices, is a reconstruction; the paper was available in summaries only. These
    split steps at blank lines. Here a step is a turn, or ``step_tokens`` tokens of one. Reported: ``local = 0.5``
    collapses.
    """
    advantage: Advantage = NodeStandardized(step_tokens=step_tokens)
    if local:
        advantage = advantage + local * InformationGain(beta, step_tokens)
    return Recipe(
        name="ib_tpo",
        base="grpo",
        sampler=Branching(
            group_size=roots,
            at=InformativeNodes(nodes, step_tokens=step_tokens, beta=beta),
            branches=branches if depth > 1 else 0,
            depth=max(depth - 1, 1),
            together=True,
        ),
        advantage=advantage,
        objective=PolicyGradient(
            gate=Clip(clip, clip),
            aggregation=TokenMean(),
            regularizer=kl_coefficient * KL("k3") if kl_coefficient else None,
        ),
    )
