"""The loss of reward and preference models: how likely labels are, given what a head makes of the answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, NamedTuple

import torch
from annotated_types import Ge, Lt
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from stratagem.errors import InputError
from stratagem.experience import Experience, Loss, PolicyOutput
from stratagem.objectives.pairwise import check_whole_groups
from stratagem.parts import Objective, Preference
from stratagem.preferences.models import lead
from stratagem.preferences.oracles import BradleyTerry


class _Pairs(NamedTuple):
    """Two answers each, and the label: how likely the first is preferred."""

    first: Int[Tensor, " pairs"]
    second: Int[Tensor, " pairs"]
    label: Float[Tensor, " pairs"]


@dataclass(frozen=True)
class AnswerComparison(Objective):
    """``mean_{i < j} -y log sigmoid(d - m) - (1 - y) log sigmoid(m - d)``: the likelihood of labels, over all pairs.

    ``d`` is the lead of answer ``i`` over ``j`` of its group (:func:`~stratagem.preferences.models.lead`), by what the
    view :class:`~stratagem.objectives.AnswerHead` says at their last tokens: the difference of two scores
    (Bradley-Terry, arXiv 2203.02155), or of a preference embedding (arXiv 2410.02197).
    ``y = (1 - 2 e) P(i > j) + e``.

    preference: the oracle that labels, ``P``. It is the target here, and not turned into credit. Comparisons that it
    has lost do not count.
    label_smoothing: ``e``, in [0, 1/2): the share of labels taken to be wrong (arXiv 2403.00409, on its effect on DPO).
    margin: ``m = margin (c_i - c_j)``, with ``c`` the reward column ``margin``; the lead of an answer that is preferred
    by far must be larger (arXiv 2307.09288). 0: none.
    centering: adds ``centering (v_i + v_j)^2``, so that scores, which labels leave free up to a constant of the prompt,
    are near 0 (arXiv 2312.09244). Of scores alone.

    Answers without a token that may train do not count. Metrics, means over pairs: ``accuracy`` (share of leads on the
    label's side; a half where either is even), ``lead`` (towards the label, ``(2 P - 1) d``) and ``score`` (of scores).

    Raises ``ValueError`` for ``centering`` without scores, :class:`InputError` for ``margin`` without the column.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"output.embedding"})
    tags: ClassVar[frozenset[str]] = frozenset({"learning.family.preference", "learning.data.all_solutions"})
    whole_groups: ClassVar[bool] = True

    preference: Preference = BradleyTerry(0.0)
    label_smoothing: Annotated[float, Ge(0), Lt(0.5)] = 0.0
    margin: Annotated[float, Ge(0)] = 0.0
    centering: Annotated[float, Ge(0)] = 0.0

    def __call__(self, out: PolicyOutput, x: Experience) -> Loss:
        check_whole_groups(x, "a loss of comparisons")
        if out.embedding is None:
            raise ValueError("a loss of comparisons needs output.embedding, which the view answer_head asks for")
        pairs = self._pairs(x)
        rows = torch.nonzero(x.learnable()).squeeze(1)
        token = rows[x.trajectory_of_token.select(rows).last()]
        place = torch.zeros(x.trajectories, dtype=torch.int64, device=x.device)
        place[x.trajectory_of_token.labels[token]] = torch.arange(len(token), device=x.device)
        embedding = out.embedding[token]
        first, second = embedding[place[pairs.first]], embedding[place[pairs.second]]
        d, label = lead(first, second), pairs.label.to(embedding.dtype)
        total = x.whole.remembered((self, "pairs"), lambda: torch.tensor(float(len(self._pairs(x.whole).label))))
        total = total.to(embedding).clamp(min=1)
        target = (1 - 2 * self.label_smoothing) * label + self.label_smoothing
        losses = functional.binary_cross_entropy_with_logits(d - self._margins(x, pairs), target, reduction="none")
        scores = first.shape[-1] == 1
        if self.centering:
            if not scores:
                raise ValueError("centering is of scores: the view answer_head must have dims = 1")
            losses = losses + self.centering * (first + second).squeeze(-1).square()
        sides = (d.detach().sign() * (label - 0.5).sign() + 1) / 2
        figures = {"accuracy": sides.sum() / total, "lead": ((2 * label - 1) * d.detach()).sum() / total}
        if scores:
            figures["score"] = (first + second).detach().sum() / (2 * total)
        return Loss(losses.sum() / total, figures)

    def _pairs(self, x: Experience) -> _Pairs:
        """All pairs of a batch of which there is a label."""
        first, second = x.group_of_trajectory.pairs()
        there = x.trajectory_of_token.sum(x.learnable()) > 0
        chosen = there[first] & there[second] & (first < second)
        first, second = first[chosen], second[chosen]
        label = self.preference(x, first, second)
        known = ~label.isnan()
        return _Pairs(first[known], second[known], label[known])

    def _margins(self, x: Experience, pairs: _Pairs) -> Tensor | float:
        if not self.margin:
            return 0.0
        column = x.named_reward("margin")
        if column is None:
            raise InputError(
                f"{self.part_name()}.margin = {self.margin}: needs a task that notes margins, such as pairs:FILE; this "
                f"one has {', '.join(x.reward_names)}"
            )
        return self.margin * (column[pairs.first] - column[pairs.second])

    def has_signal(self, x: Experience) -> bool:
        return len(self._pairs(x).label) > 0
