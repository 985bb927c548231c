"""Learning from answers that were labelled beforehand: pairs (DPO, IPO), or one answer at a time (KTO)."""

from __future__ import annotations

from typing import Literal

from stratagem.advantages import Constant, TotalReturn, WinRate
from stratagem.catalogue import paper
from stratagem.errors import InputError
from stratagem.objectives import IterationStart, LogisticComparison, LogRatioRegression, ProspectUtility
from stratagem.optimizers import AdamW
from stratagem.parts import Preference
from stratagem.preferences import BradleyTerry, GeometricMixture
from stratagem.recipe import Recipe
from stratagem.sampling import Candidates

__all__ = ["dpo", "ipo", "kto"]


@paper(
    "2305.18290",
    title="Direct Preference Optimization: Your Language Model is Secretly a Reward Model",
    family="preferences",
    roles=("sampler", "objective"),
    year=2023,
)
def dpo(
    strength: float = 0.1,
    preference: Preference = BradleyTerry(0.0),  # noqa: B008
    pairs_per_step: int = 64,
) -> Recipe:
    """``-mean log sigmoid(beta (h_w - h_l))``, ``h = log pi(y) / mu(y)``, on pairs that were labelled beforehand.

    ``mu`` is the frozen reference. The policy stands for the reward ``beta h``, and the loss is that of the
    Bradley-Terry model with this reward: it is least at ``mu exp(r / beta)`` for the likeliest ``r``, which is what
    maximising ``r`` under a KL of strength ``beta`` leads to. Preferences are taken for differences of scores; a pair
    that all labels agree on has no least loss, and its log-ratios grow for as long as it is trained.

    strength: ``beta``.  pairs_per_step: labels in a batch, in the order of the task.
    preference: how labels are read from what candidates earn; by default the better one is preferred for sure, and
    equal ones tie. ``Noisy(BradleyTerry(0), 0.1)`` is the loss for labels of which one in ten is wrong, and
    ``BradleyTerry(1, reward="margin")`` reads the margins of labels. Task ``pairs:FILE`` has them.
    """
    return Recipe(
        name="dpo",
        sampler=Candidates(prompts_per_step=pairs_per_step),
        advantage=WinRate(preference),
        objective=LogisticComparison(anchor=GeometricMixture(reference=1.0), strength=strength),
        optimization=AdamW(shuffle="groups"),
    )


@paper(
    "2310.12036",
    title="A General Theoretical Paradigm to Understand Learning from Human Preferences",
    family="preferences",
    roles=("objective",),
    year=2023,
    base="dpo",
)
def ipo(
    strength: float = 0.1,
    preference: Preference = BradleyTerry(0.0),  # noqa: B008
    pairs_per_step: int = 64,
) -> Recipe:
    """``mean (h_w - h_l - 1 / (2 tau))^2``, ``h = log pi(y) / mu(y)``: DPO with a target that log-ratios stop at.

    On all pairs of answers drawn by ``b`` it is least at ``mu exp(P(y > b) / tau)``, the policy that is preferred to
    ``b`` most often under a KL of strength ``tau``, however certain labels are, and whether or not scores stand for
    them.

    strength: ``tau``, above 0; the value is a released trainer's.  preference, pairs_per_step: as :func:`dpo` has them.
    """
    if not strength > 0:
        raise InputError(f"ipo: strength = {strength}: must be above 0")
    return Recipe(
        name="ipo",
        base="dpo",
        sampler=Candidates(prompts_per_step=pairs_per_step),
        advantage=WinRate(preference),
        objective=LogRatioRegression(anchor=GeometricMixture(reference=1.0), gain=1 / strength, compared=True),
        optimization=AdamW(shuffle="groups"),
    )


@paper(
    "2402.01306",
    title="KTO: Model Alignment as Prospect Theoretic Optimization",
    family="preferences",
    roles=("advantage", "objective"),
    year=2024,
    base="dpo",
)
def kto(
    strength: float = 0.1,
    desirable: float = 1.0,
    undesirable: float = 1.0,
    point: Literal["opposite", "zero"] = "opposite",
    pairs_per_step: int = 64,
) -> Recipe:
    """``mean w (1 - sigmoid(+-beta (h - z)))``: answers are good or bad by themselves, and need no counterpart.

    ``h = log pi(y) / mu(y)``, and ``z`` is the reference point, near ``KL(pi || mu)``, beyond which an answer is worth
    something (:class:`~stratagem.objectives.ProspectUtility`). An answer is good if it earns more than 1/2 and bad if
    it earns less, so the answers of a labelled pair are one of each, and those of a tie do not count; with
    ``pairs:FILE,one_sided=keep`` a line may have one answer alone.

    strength: ``beta``.  desirable, undesirable: weights; the paper wants ``desirable`` times the number of good answers
    to be 1 to 4/3 times ``undesirable`` times that of bad ones.
    point: how ``z`` is estimated; ``opposite`` is the first report's way for pairs, ``zero`` goes without. The paper's
    own estimate, by answers to other prompts, is not there, since no batch holds them.
    """
    return Recipe(
        name="kto",
        base="dpo",
        sampler=Candidates(prompts_per_step=pairs_per_step, group_size=1),
        advantage=TotalReturn() + Constant(-0.5),
        objective=ProspectUtility(
            anchor=GeometricMixture(reference=1.0),
            strength=strength,
            desirable=desirable,
            undesirable=undesirable,
            point=point,
        ),
        proximal=IterationStart(1),
        optimization=AdamW(shuffle="groups"),
    )
