"""Steps drawn through latent states, which are learned while the language model stays as it is."""

from __future__ import annotations

from stratagem.advantages import GroupCentered
from stratagem.catalogue import paper
from stratagem.objectives import EntropyBonus, LogLikelihood, PolicyGradient, SequenceSum, TruncatedImportance
from stratagem.optimizers import AdamW
from stratagem.recipe import Recipe
from stratagem.sampling import Exploring
from stratagem.schedules import LinearRamp

__all__ = ["ctrls"]


@paper(
    "2507.08182",
    title="CTRLS: Chain-of-Thought Reasoning via Latent State-Transition",
    family="reasoning",
    roles=("policy", "objective", "sampler"),
    year=2025,
    base="reinforce",
    tags=("search.action.step",),
)
def ctrls(
    epsilon: float = 0.1,
    final_epsilon: float = 0.02,
    exploration_steps: int = 100,
    entropy_weight: float = 0.01,
    cap: float = 5.0,
    group_size: int = 8,
    learning_rate: float = 1e-3,
) -> Recipe:
    """On-policy learning of transitions between latent states: ``E[sum_t w_t (R - b) log P(s_t+1 | s_t)] + lambda H``.

    ``b`` is the mean of the group. With probability ``epsilon``, which falls linearly, the next state is drawn
    uniformly; ``w = min(P / mu, cap)`` with ``mu = (1 - epsilon) P + epsilon / K`` weighs what was drawn so. The policy
    is one over latent states (:class:`~stratagem.latent.DirichletPolicy`): the language model that writes a step in a
    state is part of the world, and no weight of it moves. Before that, stage 1 fits the transitions to solved traces by
    a variational bound (:func:`~stratagem.latent.elbo`).

    Of the paper only the abstract was readable: the objective, the weights and all numbers are a reconstruction of
    what it describes. Every action that the policy takes is weighed, uniform draws and others, since which of both it
    was does not matter to ``P / mu``. Only the first such weight of a step counts, not the product over the steps
    before it, so beyond one step exploration leaves a bias.

    epsilon, final_epsilon: in [0, 1].  exploration_steps: batches until ``final_epsilon``.  entropy_weight:
    ``lambda``, of the entropy in every state that was visited.  cap: of the weight.
    """
    return Recipe(
        name="ctrls",
        base="reinforce",
        sampler=Exploring(group_size=group_size, epsilon=epsilon),
        advantage=GroupCentered(),
        objective=PolicyGradient(
            gate=LogLikelihood(),
            correction=TruncatedImportance(high=cap),
            aggregation=SequenceSum(),
            regularizer=entropy_weight * EntropyBonus() if entropy_weight else None,
        ),
        optimization=AdamW(learning_rate=learning_rate),
        schedules=()
        if final_epsilon == epsilon
        else (LinearRamp("sampler.epsilon", epsilon, final_epsilon, exploration_steps),),
    )
