"""Agents for games of different sizes: one set of policies, of which a latent code picks one."""

from __future__ import annotations

from typing import Literal

from stratagem.advantages import Constant
from stratagem.architectures import RelationalActors
from stratagem.catalogue import paper
from stratagem.objectives import CodeInformation, SoftImprovement, TaskPrediction, TemporalDifference
from stratagem.optimizers import AdamW
from stratagem.parts import Objective
from stratagem.recipe import Recipe
from stratagem.rewards import TeamReward
from stratagem.sampling import Rollouts, UniformReplay

__all__ = ["mra"]


@paper(
    "2108.12988",
    title="Learning Meta Representations for Agents in Multi-Agent Reinforcement Learning",
    family="games",
    roles=("policy", "objective"),
    year=2021,
)
def mra(
    codes: int = 6,
    information: float = 0.1,
    prediction: float = 0.1,
    resamples: int = 5,
    credit: Literal["team", "own"] = "own",
    discount: float = 0.95,
    scale: float = 30.0,
    episodes: int = 12,
    replayed: int = 51,
    updates: int = 10,
    capacity: int = 50_000,
    learning_rate: float = 3e-4,
) -> Recipe:
    """Soft actor-critic whose relations to others go by a latent code, kept informative about actions and the game.

    For games with different numbers of agents, such as ``resources:agents=2+4``. The loss is that of a soft critic,
    the actor's, ``- information I(a; z)``, whose gradient reaches relations alone, and ``prediction`` times the
    cross-entropy of guessing the game, which reaches the task encoder alone. Of ``codes = 1`` both are left out: that
    is one policy for all games.

    Where it departs from the released code: its critic learns the sum over agents alone, ``credit = "team"`` here;
    ``own``, each agent's value from its own reward, learns in far fewer steps where agents are paid each for itself.
    It alternates ten steps of critic and actor with one of the information and one of the prediction; here all four are
    one loss, with a tenth of the weight. There the information alone moves the relations, here the actor's loss does,
    too. Expectations over an agent's own actions and over the codes of the prediction are sums, where it draws one, and
    the information is that of the present policy instead of its target. The critic adds up messages of others instead
    of attending to them; the actor reads what an agent sees of itself beside the features, so that one that is alone is
    not blind; episodes of all sizes are padded and in one replay.

    ``resamples``, ``discount``, ``scale`` (of rewards against the entropy), ``updates`` and ``learning_rate`` are the
    code's, and ``replayed`` episodes of 20 steps its 1,024 transitions. Adapting to a game of another size is training
    on from what was learned, ``--model RUN``, with the best code first
    (:func:`stratagem.multiagent.adaptation.adapted`).
    """
    loss: Objective = TemporalDifference(discount) + SoftImprovement(1 / scale)
    if codes > 1:
        loss = loss + information * CodeInformation() + prediction * TaskPrediction()
    return Recipe(
        name="mra",
        sampler=Rollouts(episodes, 1),
        rewards=(TeamReward(),) if credit == "team" else (),
        replay=UniformReplay(capacity, replayed * updates),
        advantage=Constant(),
        objective=loss,
        architecture=RelationalActors(codes, credit, resamples, 1 / scale),
        optimization=AdamW(
            learning_rate=learning_rate, weight_decay=3e-4, max_grad_norm=10.0, minibatches=updates, shuffle="groups"
        ),
    )
