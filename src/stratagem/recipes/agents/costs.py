"""Agents whose actions cost something: success is paid, and what it took is charged."""

from __future__ import annotations

from typing import Literal

from stratagem.advantages import GroupStandardized
from stratagem.catalogue import paper
from stratagem.errors import unknown
from stratagem.objectives import KL, Clip, PolicyGradient, SequenceMean, TokenMean
from stratagem.parts import Aggregation, Reward
from stratagem.recipe import Recipe
from stratagem.rewards import CostPenalty, FormatPenalty
from stratagem.sampling import Rollouts

__all__ = ["esearch_r1"]


@paper(
    "2512.18571",
    title="ESearch-R1: Learning Cost-Aware MLLM Agents for Interactive Embodied Search via Reinforcement Learning",
    family="agents",
    roles=("reward",),
    year=2025,
    base="grpo",
)
def esearch_r1(
    cost_weight: float = 1.0,
    cost_on_failure: bool = True,
    format_penalty: float = 0.2,
    average: Literal["tokens", "trajectories"] = "tokens",
    kl_coefficient: float = 0.01,
    group_size: int = 8,
) -> Recipe:
    """HC-GRPO: group-relative credit of ``R = 1[success] - cost_weight * sum_t C(a_t) + R_format``, where walking,
    asking and remembering each have a cost of their own.

    What actions cost is the task's affair, which notes it as the reward ``cost``: ``house`` charges ``c_nav`` a metre,
    ``c_ask * (1 + alpha * N)`` for the question after ``N`` others and ``c_mem`` for a look into memory. ``R_format``
    is ``-format_penalty`` where the reward named ``format`` is below 1, once for a trajectory. A task that notes
    neither has none. At ``cost_weight = 0``, ``format_penalty = 0`` and without KL this is GRPO on success alone, with
    the mean over tokens that ``average`` says.

    ``cost_on_failure``: whether failures are charged, too. If not, giving up early and trying long are worth the same,
    0. A reward of -1 for a failure is no option of its own: ``2 * 1[success] - 1 - cost_weight * C`` differs from half
    the ``cost_weight`` by a factor and a constant, which group standardisation removes.

    ``average``: over all ``tokens`` of a batch, or over ``trajectories`` of their own tokens' means, which is GRPO's.
    By the latter a decision counts more in a short trajectory than in a long one, so a policy takes to what may succeed
    at once, though it is dearer on average. How the paper averages was not available; the default is our choice.

    The kinds of costs and their formula are the paper's. Its constants, ``R_format`` and the settings of GRPO were not
    available; the defaults here are a reconstruction. The paper's policies start from expert traces; that is not part
    of the recipe. To weigh kinds of costs apart, charge each by a
    :class:`~stratagem.rewards.CostPenalty` of its own (``of="asking"``).

    Raises :class:`InputError` for a weight or penalty below 0 and an unknown average, and in training for a negative
    cost.
    """
    averages: dict[str, Aggregation] = {"tokens": TokenMean(), "trajectories": SequenceMean()}
    if average not in averages:
        raise unknown("average of esearch_r1", average, averages)
    rewards: list[Reward] = [CostPenalty(cost_weight, on_failure=cost_on_failure, absent="free")] if cost_weight else []
    if format_penalty:
        rewards.append(FormatPenalty(format_penalty))
    return Recipe(
        name="esearch_r1",
        base="grpo",
        sampler=Rollouts(group_size=group_size),
        rewards=tuple(rewards),
        advantage=GroupStandardized(),
        objective=PolicyGradient(
            gate=Clip(),
            aggregation=averages[average],
            regularizer=kl_coefficient * KL("k3") if kl_coefficient else None,
        ),
    )
