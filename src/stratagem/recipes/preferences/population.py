"""Self-play with more than two players: past policies are the others."""

from __future__ import annotations

from stratagem.advantages import WinRate
from stratagem.catalogue import paper
from stratagem.errors import InputError
from stratagem.objectives import LogRatioRegression
from stratagem.optimizers import AdamW
from stratagem.parts import Preference
from stratagem.preferences import BradleyTerry, PopulationMixture
from stratagem.recipe import Recipe
from stratagem.sampling import Rollouts

__all__ = ["mnpo"]


@paper(
    "2509.23102",
    title="Multiplayer Nash Preference Optimization",
    family="preferences",
    roles=("objective",),
    year=2025,
    base="inpo",
)
def mnpo(
    inverse_step: float = 7.5e-3,
    reference: float = 1 / 3,
    players: int = 3,
    shares: tuple[float, ...] = (),
    preference: Preference = BradleyTerry(),  # noqa: B008
    group_size: int = 5,
    epochs: int = 2,
    minibatches: int = 4,
) -> Recipe:
    """INPO's loss with ``h = log pi - r log mu - (1 - r) sum_j w_j log pi_(t-j)``: the other players are past policies.

    ``mean_ij (h_i - h_j - (P(y_i > y_j) - 1/2) / eta)^2`` over the pairs of a group, sampled by ``pi_t``; for a vote on
    two answers ``(h_w - h_l - 1 / (2 eta))^2``. This is the time-dependent variant. Labels tell who wins against
    ``pi_t`` alone, so that past policies enter through what the update is held to. Two players are INPO of strength
    ``r eta``, and ``r = 1`` is online IPO.

    inverse_step: ``eta``, as the loss has it (the paper's theory writes its step size so).  reference: ``r``, of the
    frozen reference ``mu``.
    players: ``n``, at least 2: against ``pi_t, ..., pi_(t-n+2)``, which are kept, a copy of the weights each.
    shares: ``w``, in proportion, ``n - 1`` of them; (): all the same, as the released runs have it, whose ``[1, 0]`` is
    not read.  preference: the oracle.

    Defaults are the released code's. Of its other variant, in which players have rewards of their own and are trained
    side by side, there is the table alone (:func:`stratagem.preferences.populations.solve_players`).
    """
    if players < 2 or (shares and len(shares) != players - 1):
        raise InputError(
            f"mnpo: players = {players}, shares = {shares}: must be at least 2 players, and a share for all but one"
        )
    if not inverse_step > 0:
        raise InputError(f"mnpo: inverse_step = {inverse_step}: must be above 0")
    return Recipe(
        name="mnpo",
        base="inpo",
        sampler=Rollouts(group_size=group_size),
        advantage=WinRate(preference),
        objective=LogRatioRegression(
            anchor=PopulationMixture(shares or (1.0,) * (players - 1), reference), gain=1 / inverse_step, compared=True
        ),
        optimization=AdamW(epochs=epochs, minibatches=minibatches, shuffle="groups"),
    )
