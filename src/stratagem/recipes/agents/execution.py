"""Agents whose programs and queries are run while they think: explored before the answer, or repaired step by step."""

from __future__ import annotations

from typing import Literal

from stratagem.advantages import GroupStandardized
from stratagem.catalogue import paper
from stratagem.objectives import Clip, Credited, Penalty, PolicyGradient, Surprisal, TokenMean
from stratagem.parts import Objective
from stratagem.recipe import Recipe
from stratagem.recipes.baselines import grpo
from stratagem.rewards import BranchesPaidByCall, CappedWhereWrong, FormatGate, NotedRewards
from stratagem.sampling import BeforeFailedCall, Branching, CallsCarriedOut, Disagreeing

__all__ = ["reex_sql", "thor"]


@paper(
    "2505.12768",
    title="ReEx-SQL: Reasoning with Execution-Aware Reinforcement Learning for Text-to-SQL",
    family="agents",
    roles=("reward",),
    year=2025,
    base="grpo",
)
def reex_sql(
    exploration_weight: float = 1.0,
    wrong_exploration: float = 0.5,
    kl_coefficient: float = 0.001,
    group_size: int = 8,
) -> Recipe:
    """GRPO for queries that are run while the policy thinks, with ``R = (0.5 format + 0.5 execution + 3 accuracy +
    exploration) / 5``, and 0 for a wrong format.

    ``accuracy`` is what the task pays; ``format``, ``execution`` (the final query ran) and ``exploration`` (the share
    of queries on the way that ran, were new, and touched a table of the right one) are rewards that it notes, and count
    nothing where it does not. ``sql_exploration`` is a task of this kind; its results have no rows in a batch, so
    nothing is to be masked. The policy may be decoded in a tree (:func:`stratagem.language.trees.grow`).

    exploration_weight: of ``exploration``, before the division.  wrong_exploration: what it counts at most where the
    final query is wrong; 0: it counts with the right one alone.

    That these four are rewarded is the paper's. Their definitions, weights and cap, the group size and the KL are
    reconstructions: the paper's own were not available, and it has no released code.
    """
    names = ("format", "execution", "exploration")
    return grpo(kl_coefficient=kl_coefficient, group_size=group_size).replace(
        name="reex_sql",
        base="grpo",
        rewards=(
            CappedWhereWrong("exploration", wrong_exploration),
            NotedRewards(names, (0.5 / 5, 0.5 / 5, exploration_weight / 5), scale=3 / 5),
            FormatGate(otherwise=0.0),
        ),
    )


@paper(
    "2509.13761",
    title="THOR: Tool-Integrated Hierarchical Optimization via RL for Mathematical Reasoning",
    family="agents",
    roles=("sampler", "reward", "objective"),
    year=2025,
    base="dapo",
)
def thor(
    branches: int = 16,
    back: int = 100,
    call: Literal["last_failed", "last"] = "last_failed",
    imitation: float = 0.01,
    low: float = 0.2,
    high: float = 0.28,
    dual: float = 3.0,
    longer_than: int = 0,
    share: float = 0.5,
    group_size: int = 16,
) -> Recipe:
    """Rollouts learned from by their answers and, in the same batch, failed calls tried again and learned from by
    whether they run: DAPO's clip on both, plus ``imitation * -mean log pi`` over tokens of positive advantage.

    Before a failed call, ``back`` tokens earlier, ``branches`` continuations of one turn are sampled
    (:class:`~stratagem.sampling.BeforeFailedCall`); one whose call is carried out earns 1, another 0, and the answer is
    not looked at. They are a group, and what came before them trains nothing in it. Rollouts train when all their calls
    were carried out, they are longer than ``longer_than`` tokens and end with an answer, and their group when at least
    ``share`` of it does (:class:`~stratagem.sampling.CallsCarriedOut`); groups whose trajectories all earned the same
    are gone. Tool output has no rows in a batch. ``python`` and ``sql`` are tasks that say what became of their calls;
    for a task that does not this is GRPO with the clip of DAPO and this imitation.

    ``branches = 0``: rollouts alone.  ``imitation = 0``: the clipped loss alone.  call: see the part.

    The numbers are those of the released code, which sets ``longer_than = 150`` for solutions of thousands of tokens
    and samples as many branches as rollouts; ``dual`` bounds the loss of bad tokens. It learns from 128 problems in 40
    updates with a learning rate of 1e-6, without KL and entropy bonus. Self-correction at inference is
    :func:`stratagem.language.correction.play_corrected`.
    """
    loss: Objective = PolicyGradient(gate=Clip(low, high, dual=dual), aggregation=TokenMean())
    if imitation:
        loss = loss + imitation * Penalty(Surprisal(), Credited(TokenMean(), above=1e-7))
    return Recipe(
        name="thor",
        base="dapo",
        sampler=Branching(
            group_size=group_size,
            at=BeforeFailedCall(back, call),
            branches=branches,
            branch_turns=1,
        ),
        rewards=(BranchesPaidByCall(),),
        selections=(CallsCarriedOut(longer_than, share), Disagreeing()),
        advantage=GroupStandardized(),
        objective=loss,
    )
