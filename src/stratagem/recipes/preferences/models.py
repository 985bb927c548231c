"""Models of what people prefer, trained on labelled pairs: scores, or preferences that may go in circles."""

from __future__ import annotations

from stratagem.advantages import TotalReturn
from stratagem.catalogue import paper
from stratagem.objectives import AnswerComparison, AnswerHead
from stratagem.optimizers import AdamW
from stratagem.parts import Preference
from stratagem.preferences import BradleyTerry
from stratagem.recipe import Recipe
from stratagem.sampling import Candidates

__all__ = ["bradley_terry_model", "pairwise_model"]


@paper(
    "2203.02155",
    title="Training language models to follow instructions with human feedback",
    family="preferences",
    roles=("objective", "view"),
    year=2022,
)
def bradley_terry_model(
    label_smoothing: float = 0.0,
    margin: float = 0.0,
    centering: float = 0.0,
    preference: Preference = BradleyTerry(0.0),  # noqa: B008
    pairs_per_step: int = 64,
) -> Recipe:
    """``-mean log sigmoid(r(x, y_w) - r(x, y_l))``: a reward model, which scores answers so that labels are likely.

    ``r`` is a linear map of the last hidden state at the answer's last token. Instead of a policy the run makes a model
    for others to learn from: ``PreferenceModel(path)`` is it as an oracle and ``ModelReward(path)`` as a reward.
    Evaluation is on held-out pairs: greedy, the share of labels on the side of the higher score; sampled, that of votes
    drawn with the model's probabilities, which labels agree with; and calibration.

    label_smoothing: share of labels taken to be wrong (arXiv 2403.00409).  margin: lead that a label's own margin asks
    for (arXiv 2307.09288).  centering: of squared sums of scores, 0.01 in the paper that has it (arXiv 2312.09244).
    preference: how labels are read from what candidates earn, or who labels.  pairs_per_step: labels in a batch, in the
    order of the task. Of more than two answers all pairs count.
    """
    return Recipe(
        name="bradley_terry_model",
        sampler=Candidates(prompts_per_step=pairs_per_step),
        advantage=TotalReturn(),
        objective=AnswerComparison(preference, label_smoothing, margin, centering),
        view=AnswerHead(),
        optimization=AdamW(shuffle="groups"),
    )


@paper(
    "2410.02197",
    title="Beyond Bradley-Terry Models: A General Preference Model for Language Model Alignment",
    family="preferences",
    roles=("view",),
    year=2024,
    base="bradley_terry_model",
)
def pairwise_model(
    dims: int = 8,
    temperature: float = 0.1,
    label_smoothing: float = 0.0,
    margin: float = 0.0,
    preference: Preference = BradleyTerry(0.0),  # noqa: B008
    pairs_per_step: int = 64,
) -> Recipe:
    """``P(y > y') = sigmoid(<R v(y), v(y')> / temperature)``, ``R`` skew-symmetric: preferences that need no scores.

    ``v`` is a unit vector of an even number of ``dims``, a linear map of the last hidden state at the answer's last
    token, so that each answer is read once. Preferences may go in circles, which those of scores cannot. A lead is at
    most ``1 / temperature`` nats. The paper's scale of every plane, which a gate sets by the prompt, is left out: all
    planes count alike.

    At too large a learning rate all ``v`` of a prompt may become one, where leads are 0 and gradients small.

    dims, temperature: the released code's.  The others: as :func:`bradley_terry_model` has them.
    """
    return Recipe(
        name="pairwise_model",
        base="bradley_terry_model",
        sampler=Candidates(prompts_per_step=pairs_per_step),
        advantage=TotalReturn(),
        objective=AnswerComparison(preference, label_smoothing, margin),
        view=AnswerHead(dims, temperature**-0.5),
        optimization=AdamW(shuffle="groups"),
    )
