"""Recipes for problems that the policy never solves: it is led part of the way, or asked in another way."""

from __future__ import annotations

from stratagem.advantages import GroupStandardized
from stratagem.catalogue import paper
from stratagem.objectives import ByOrigin, Clip, PolicyGradient, Saturating, SequenceMean, TokenRatio
from stratagem.recipe import Recipe
from stratagem.sampling import Guided, Resampled
from stratagem.sampling.nonsense import Family

__all__ = ["lope", "pope"]


@paper(
    "2605.05566",
    title="Nonsense Helps: Prompt Space Perturbation Broadens Reasoning Exploration",
    family="reasoning",
    roles=("sampler", "objective"),
    year=2026,
    base="grpo",
)
def lope(
    words: Family | None = "lorem",
    resamples: int = 24,
    scale: float = 0.1,
    clip: float = 0.2,
    group_size: int = 8,
) -> Recipe:
    """GRPO whose failed groups are sampled once more after nonsense; successes are learned as answers without it.

    A success ``o'`` found after the nonsense ``d`` takes the place of a failure, as an answer to the prompt ``q`` as it
    is, with ``rho_t = pi(o'_t | q, o'_<t) / pi_old(o'_t | d, q, o'_<t)`` and the surrogate ``A rho / (rho + scale)``
    without clip; what was sampled plainly has the clipped one. ``A = (R - mean) / std`` over all ``group_size +
    resamples`` rewards of a failed group, with the population's deviation: 3 successes of 32 have 3.109. There is no KL
    term.

    words: of the nonsense, see :class:`~stratagem.sampling.Resampled`; None samples again without any.

    From the released configuration as its description has it: groups of 8 and 24, lengths of 100 to 300 words, the
    boundary instruction, the shaping and its scale, and which rewards the advantage is over. Reconstructed: a fresh
    text for every rollout, that resampled tokens are not clipped, and that the deviation is the population's. Ratios
    are to the policy that sampled (``denominator="behavior"``), which for plain rollouts is the old one but for the
    rounding of the engine.
    """
    return Recipe(
        name="lope",
        base="grpo",
        sampler=Resampled(group_size=group_size, resamples=resamples, words=words),
        advantage=GroupStandardized(correction=0),
        objective=PolicyGradient(
            ratio=TokenRatio("behavior"),
            gate=ByOrigin(Clip(clip, clip), Saturating(scale)),
            aggregation=SequenceMean(),
        ),
    )


@paper(
    "2601.18779",
    title="POPE: Learning to Reason on Hard Problems via Privileged On-Policy Exploration",
    family="reasoning",
    roles=("sampler",),
    year=2026,
    base="grpo",
)
def pope(unguided_every: int = 1, choices: tuple[int, ...] = (1,), group_size: int = 8) -> Recipe:
    """GRPO on problems that are never solved, each with a copy whose prompt holds the beginning of a solution.

    Both copies are groups of their own, as many of one kind as of the other; the loss is GRPO's over what the policy
    wrote, ``A_i = (R_i - mean_g R) / std_g R``, and the beginning of the solution is prompt, without a loss or a ratio.
    Evaluation shows none of it.

    In text it takes a task ``guided:TASK``; what it shows of each problem, as little as suffices, is found by
    :func:`stratagem.run.guide` or ``stratagem guide``.
    unguided_every, choices: see :class:`~stratagem.sampling.Guided`; ``choices`` is for the lab alone.

    Only summaries of the paper were available. They say that prefixes are in the prompt, that copies are one to one,
    that the shortest sufficient prefix of up to about a quarter of the solution is taken, and that the loss is
    unchanged. Reconstructed: steps of 5 %, 16 tries, and 128 samples without a success as what makes a problem hard.
    """
    return Recipe(
        name="pope",
        base="grpo",
        sampler=Guided(group_size=group_size, unguided_every=unguided_every, choices=choices),
        advantage=GroupStandardized(),
        objective=PolicyGradient(aggregation=SequenceMean()),
    )
