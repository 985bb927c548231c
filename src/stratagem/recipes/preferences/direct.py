"""Direct preference optimisation: a policy that stands for a reward of its own, fitted to votes."""

from __future__ import annotations

from stratagem.advantages import WinRate
from stratagem.catalogue import paper
from stratagem.objectives import LogisticComparison
from stratagem.optimizers import AdamW
from stratagem.parts import Preference
from stratagem.preferences import BradleyTerry, GeometricMixture, SingleVote
from stratagem.recipe import Recipe
from stratagem.sampling import Rollouts

__all__ = ["online_dpo"]


@paper(
    "2402.04792",
    title="Direct Language Model Alignment from Online AI Feedback",
    family="preferences",
    roles=("advantage", "objective"),
    year=2024,
    base="reinforce",
)
def online_dpo(
    strength: float = 0.1,
    preference: Preference = SingleVote(BradleyTerry()),  # noqa: B008
    group_size: int = 2,
) -> Recipe:
    """``-mean log sigmoid(beta (h_w - h_l))``, ``h = log pi(y) / mu(y)``, on pairs the policy itself has just sampled.

    DPO's loss (arXiv 2305.18290) with fresh answers and a vote on each pair in place of a data set. ``mu`` is the
    frozen reference. The policy stands for the reward ``beta h``, so that preferences are taken for differences of
    scores: where they have cycles, so may the policies.

    strength: ``beta``.  preference: the oracle; one that says probabilities instead of votes has the expected loss.
    group_size: more than two answers are compared in all pairs.
    """
    return Recipe(
        name="online_dpo",
        base="reinforce",
        sampler=Rollouts(group_size=group_size),
        advantage=WinRate(preference),
        objective=LogisticComparison(anchor=GeometricMixture(reference=1.0), strength=strength),
        optimization=AdamW(shuffle="groups"),
    )
