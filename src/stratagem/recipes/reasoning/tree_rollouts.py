"""Recipes that roll out trees, and what comes with one of them."""

from __future__ import annotations

from stratagem.advantages import GroupStandardized, InformationGain, NodeStandardized, UncertaintyShaped
from stratagem.catalogue import paper
from stratagem.objectives import KL, Clip, PolicyGradient, SequenceMean, TailConfidenceClip, TokenMean
from stratagem.parts import Advantage
from stratagem.recipe import Recipe
from stratagem.rewards import Majority
from stratagem.sampling import (
    Branching,
    BranchWhere,
    FirstRollouts,
    InformativeNodes,
    OnlineTree,
    PruneWhere,
    Rollouts,
)
from stratagem.step_tree import Steps

__all__ = ["echo_ttrl", "ib_tpo"]

BRANCH, PRUNE = BranchWhere(), PruneWhere()
"""Thresholds that a distribution can meet, whatever its vocabulary."""


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
    steps: Steps = "blank_lines",
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
    number. That, like the parts' own choices, is a reconstruction; the paper was available in summaries only. Reported:
    ``local = 0.5`` collapses.

    steps: what a step is (:class:`~stratagem.step_tree.OfSteps`). As reported, what blank lines separate; a turn
    without any is one step, and so is a turn of a game that marks none. Or ``turns``, or so many tokens.
    """
    advantage: Advantage = NodeStandardized(steps=steps)
    if local:
        advantage = advantage + local * InformationGain(beta, steps=steps)
    return Recipe(
        name="ib_tpo",
        base="grpo",
        sampler=Branching(
            group_size=roots,
            at=InformativeNodes(nodes, beta=beta, steps=steps),
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


@paper(
    "2602.02150",
    title="ECHO: Entropy-Confidence Hybrid Optimization for Test-Time Reinforcement Learning",
    family="reasoning",
    roles=("sampler", "gate", "advantage"),
    year=2026,
    base="grpo",
)
def echo_ttrl(
    votes: int = 32,
    trained: int = 16,
    roots: int | None = None,
    branch: BranchWhere | None = BRANCH,
    prune: PruneWhere | None = PRUNE,
    shaping: float = 0.1,
    addend: float = 0.0,
    least: float = 0.05,
    most: float = 0.2,
    slope: float = 4.0,
    center: float = 0.0,
) -> Recipe:
    """GRPO on the majority's answer in trees that branch in doubt, ``A' = A (1 + shaping * S)``, a clip by confidence.

    Groups of at most ``votes`` grow from ``roots`` rollouts while they are written (:class:`OnlineTree`). The most
    frequent answer earns 1 (:class:`Majority`, TTRL) and the first ``trained`` train. ``S`` adds up how far a token's
    entropy and its lack of confidence lie above the batch's mean (:class:`UncertaintyShaped`); the clip is ``least +
    (most - least) sigmoid(slope (1 - C - center))`` with the confidence ``C`` of the last tokens
    (:class:`TailConfidenceClip`). With ``branch = prune = None`` there is no tree, all ``votes`` are rollouts; with
    ``shaping = 0`` and ``least = most`` besides, this is TTRL with GRPO.

    The rules of the tree are those of the released code, whose default script switches them off; their published
    thresholds cannot be met (:class:`BranchWhere`), so that the defaults here are ours, and so are ``roots``, that a
    path may branch again, and that the last path is never cut. The
    aggregation, and that there is no KL, are assumptions. Of equally frequent answers the one whose trajectories' mean
    log-probabilities add up to most wins, then that of the smallest key.

    roots: None: half of ``trained``, at least 2, so that branches train, too; they come after the roots.
    """
    sampler: Rollouts = Rollouts(group_size=votes)
    if branch is not None or prune is not None:
        begun = min(max(trained // 2, 2), votes) if roots is None else roots
        sampler = OnlineTree(group_size=votes, roots=begun, branch=branch, prune=prune)
    return Recipe(
        name="echo_ttrl",
        base="grpo",
        sampler=sampler,
        rewards=(Majority("likeliest"),),
        selections=(FirstRollouts(trained),),
        advantage=UncertaintyShaped(GroupStandardized(), strength=shaping, addend=addend),
        objective=PolicyGradient(
            gate=TailConfidenceClip(least, most, slope, center),
            aggregation=SequenceMean(),
        ),
    )
