"""Value learning for teams: utilities of agents, mixed to what the team's joint action is worth."""

from __future__ import annotations

from typing import Literal

from stratagem.advantages import Constant
from stratagem.architectures import MixedValues
from stratagem.catalogue import paper
from stratagem.objectives import TemporalDifference
from stratagem.optimizers import RMSprop
from stratagem.recipe import Recipe
from stratagem.rewards import TeamReward
from stratagem.sampling import EpsilonGreedy, UniformReplay
from stratagem.schedules import LinearRamp

__all__ = ["qmix", "vdn"]


@paper(
    "1706.05296",
    title="Value-Decomposition Networks For Cooperative Multi-Agent Learning",
    family="games",
    roles=("policy", "objective"),
    year=2017,
)
def vdn(
    discount: float = 0.99,
    episodes: int = 8,
    replayed: int = 32,
    capacity: int = 5000,
    target_every: int = 200,
    epsilon: float = 0.05,
    anneal: int = 100,
    double: bool = True,
    recurrence: Literal["none", "gru"] = "gru",
) -> Recipe:
    """Q-learning of a team whose action value is the sum of its agents' utilities, ``Q_tot = sum_i Q_i(o_i, a_i)``.

    Settings as of :func:`qmix`, so that the mixer is all in which the two differ. The paper's agents remember by an
    LSTM, these by QMIX's GRU.
    """
    mixed = MixedValues("sum", double, target_every, recurrence=recurrence)
    return _learner("vdn", mixed, discount, episodes, replayed, capacity, epsilon, anneal)


@paper(
    "1803.11485",
    title="QMIX: Monotonic Value Function Factorisation for Deep Multi-Agent Reinforcement Learning",
    family="games",
    roles=("policy", "objective"),
    year=2018,
    base="vdn",
)
def qmix(
    discount: float = 0.99,
    episodes: int = 8,
    replayed: int = 32,
    capacity: int = 5000,
    target_every: int = 200,
    epsilon: float = 0.05,
    anneal: int = 100,
    double: bool = True,
    recurrence: Literal["none", "gru"] = "gru",
) -> Recipe:
    """Q-learning of a team whose action value is monotone in each agent's utility, with weights the state decides.

    After each batch of ``episodes`` it takes one optimizer step for every episode, each on ``replayed`` episodes of the
    newest ``capacity``, against a target network that is renewed every ``target_every`` steps. Agents explore with a
    probability that falls from 1 to ``epsilon`` over ``anneal`` batches. RMSprop at 5e-4 and gradients of at most 10
    are the paper's.

    ``recurrence``: ``gru`` as there, utilities that remember the episode by a GRU of 64 between two layers, read over
    whole episodes; ``none``, utilities of the present observation alone, twice as fast where that shows all there is.
    """
    mixed = MixedValues("monotone", double, target_every, recurrence=recurrence)
    return _learner("qmix", mixed, discount, episodes, replayed, capacity, epsilon, anneal)


def _learner(
    name: str,
    architecture: MixedValues,
    discount: float,
    episodes: int,
    replayed: int,
    capacity: int,
    epsilon: float,
    anneal: int,
) -> Recipe:
    return Recipe(
        name=name,
        base="vdn" if name == "qmix" else None,
        sampler=EpsilonGreedy(episodes, 1),
        rewards=(TeamReward(),),
        replay=UniformReplay(capacity, replayed * episodes),
        advantage=Constant(),
        objective=TemporalDifference(discount),
        architecture=architecture,
        optimization=RMSprop(learning_rate=5e-4, max_grad_norm=10.0, minibatches=episodes, shuffle="groups"),
        schedules=(LinearRamp("sampler.epsilon", 1.0, epsilon, anneal),),
    )
