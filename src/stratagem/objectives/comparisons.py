"""Losses of log-ratios between whole answers: squared (SPPO, INPO, IPO), logistic (DPO), and answer by answer (KTO).

The first two are linear in the labels of pairs, so that the win rate of an answer among its group is all they have to
know of who preferred what. That is ``x.advantage``, from :class:`stratagem.advantages.WinRate`; the oracle is its part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
from annotated_types import Ge, Gt
from jaxtyping import Bool, Float, Int
from torch import Tensor

from stratagem.experience import Experience, Loss, PolicyOutput
from stratagem.objectives.pairwise import check_whole_groups
from stratagem.parts import Mixture, Objective
from stratagem.preferences.mixtures import GeometricMixture


class _Answers(NamedTuple):
    """Answers of a batch or micro-batch. counts: whether it is one to learn from.

    log_ratio: ``h``, the sum over its tokens of ``log pi - log q``.  credit: its win rate less 1/2.
    size: of these, how many its group has; 1 where there are none.  total: how many the whole batch has.
    """

    counts: Bool[Tensor, " trajectories"]
    log_ratio: Float[Tensor, " trajectories"]
    credit: Float[Tensor, " trajectories"]
    size: Float[Tensor, " trajectories"]
    total: Float[Tensor, ""]


@dataclass(frozen=True)
class _OfLogRatios(Objective):
    """What the losses share: log-ratios of answers, their win rates, and what to log."""

    tags: ClassVar[frozenset[str]] = frozenset({"learning.family.preference", "learning.data.all_solutions"})

    anchor: Mixture = GeometricMixture()

    def _read(self, out: PolicyOutput, x: Experience) -> _Answers:
        out, x = self.blanked(out, x, "output.logp", "old_logp", "ref_logp", "previous_logp", "past_logp", "advantage")
        if x.advantage is None:
            raise ValueError("a loss of log-ratios needs x.advantage; recipe.prepare(x) sets it")
        old = out.logp.detach() if x.old_logp is None else x.old_logp
        log_ratio = x.trajectory_of_token.sum(x.of_learnable(out.logp - self.anchor.logp(old, x)))
        whole = x.whole
        chosen = whole.remembered((self, "chosen"), lambda: self._chosen(whole))
        total = whole.remembered((self, "total"), lambda: chosen.sum().clamp(min=1))
        token, answer = first_tokens(x)
        counts = x.group_of_trajectory.labels.new_zeros(x.trajectories, dtype=torch.bool)
        counts[answer] = x.piece_of(whole.trajectory_of_token.spread(chosen))[token]
        credit = torch.zeros_like(log_ratio).index_copy(0, answer, x.advantage[token].to(log_ratio.dtype))
        size = x.group_of_trajectory.spread(x.group_of_trajectory.sum(counts)).clamp(min=1).to(log_ratio.dtype)
        return _Answers(counts, torch.where(counts, log_ratio, 0.0), torch.where(counts, credit, 0.0), size, total)

    def _chosen(self, whole: Experience) -> Bool[Tensor, " trajectories"]:
        """Answers of the whole batch to learn from, of those with a token that may train."""
        return whole.trajectory_of_token.sum(whole.learnable()) > 0

    def has_signal(self, x: Experience) -> bool:
        return bool(x.learnable().any())

    @staticmethod
    @torch.no_grad()
    def _figures(read: _Answers, target: Tensor) -> dict[str, Tensor]:
        def mean(values: Tensor) -> Tensor:
            return torch.where(read.counts, values, 0.0).sum() / read.total

        return {
            "log_ratio": mean(read.log_ratio),
            "log_ratio_size": mean(read.log_ratio.abs()),
            "target_size": mean(target.abs()),
            "agreement": mean((read.log_ratio * target > 0).float()),
        }


def first_tokens(x: Experience) -> tuple[Int[Tensor, " answers"], Int[Tensor, " answers"]]:
    """The first token that may train of every answer that has one, and the answer's number."""
    rows = torch.nonzero(x.learnable()).squeeze(1)
    token = rows[x.trajectory_of_token.select(rows).first()]
    return token, x.trajectory_of_token.labels[token]


def _extreme(whole: Experience) -> Bool[Tensor, " trajectories"]:
    """Of each group the first answer that won most and the first that won least; none where all have won the same."""
    assert whole.advantage is not None
    token, answer = first_tokens(whole)
    credit, by_group = whole.advantage[token], whole.group_of_trajectory.select(answer)
    most, least = (by_group.spread(values) for values in (by_group.max(credit), by_group.min(credit)))
    chosen = torch.zeros(whole.trajectories, dtype=torch.bool, device=whole.device)
    for extreme in (most, least):
        rows = torch.nonzero((credit == extreme) & (most > least)).squeeze(1)
        chosen[answer[rows[by_group.select(rows).first()]]] = True
    return chosen


@dataclass(frozen=True)
class LogRatioRegression(_OfLogRatios):
    """``mean_i (h_i - gain A_i)^2``, ``h_i = log pi(y_i) - log q(y_i)``: log-ratios are fitted to win rates.

    ``A_i`` is a win rate less 1/2, ``q`` the anchor, both sums over the tokens of an answer. With exact win rates the
    least loss is at ``pi prop q exp(gain P(y > pi'))``: a step of mirror descent from ``q`` (up to the constant below).

    compared: False fits each answer by itself and stands 1/2 for ``log Z / gain``, the constant that makes ``pi`` a
    distribution (SPPO, arXiv 2405.00675). True fits differences within a group, in which the constant cancels (IPO,
    arXiv 2310.12036; INPO, arXiv 2407.00617):
    ``mean_{i != j} (h_i - h_j - gain (A_i - A_j))^2``. For two answers and a vote ``z`` that is the papers'
    ``(h_w - h_l - gain / 2)^2``; for more, and votes that contradict each other, it has its gradient and differs by a
    constant. Groups count by their answers; one of a single answer has nothing to compare.
    gain: nats of log-ratio for a whole win rate; ``1 / eta`` where a paper writes the inverse of a step size.
    anchor: ``q``.  answers: ``extremes`` are of each group only the answers that won most and least, as fitted by
    code released with SPPO; a group in which all won the same then teaches nothing.

    Answers without a token that may train do not count. Groups may not be cut when answers are compared. Metrics, means
    over answers: ``log_ratio``, ``log_ratio_size`` and ``target_size`` (absolute values, in nats) and ``agreement``
    (share of answers whose log-ratio has the sign of its target).
    """

    gain: Annotated[float, Gt(0)] = 1.0
    compared: bool = False
    answers: Literal["all", "extremes"] = "all"

    def _chosen(self, whole: Experience) -> Bool[Tensor, " trajectories"]:
        return super()._chosen(whole) if self.answers == "all" else _extreme(whole)

    def needs_whole_groups(self) -> bool:
        return self.compared

    def __call__(self, out: PolicyOutput, x: Experience) -> Loss:
        if self.compared:
            check_whole_groups(x, "a loss of differences within a group")
        read = self._read(out, x)
        target = self.gain * read.credit
        error = read.log_ratio - target
        if not self.compared:
            loss = torch.where(read.counts, error.square(), 0.0).sum() / read.total
            return Loss(loss, self._figures(read, target))
        # The mean over pairs of (e_i - e_j)^2 is twice the sample variance of e.
        mean = x.group_of_trajectory.spread(x.group_of_trajectory.sum(torch.where(read.counts, error, 0.0))) / read.size
        paired = read.counts & (read.size > 1)
        square = torch.where(paired, (error - mean).square() * 2 * read.size / (read.size - 1).clamp(min=1), 0.0)
        return Loss(square.sum() / read.total, self._figures(read, target))


@dataclass(frozen=True)
class LogisticComparison(_OfLogRatios):
    """``-mean_{i < j} P_ij log sigmoid(s d_ij) + (1 - P_ij) log sigmoid(-s d_ij)``, ``d_ij = h_i - h_j``: DPO's loss.

    ``h_i = log pi(y_i) - log q(y_i)``, sums over tokens; ``s`` is the strength (DPO's ``beta``, arXiv 2305.18290). With
    votes for ``P`` this is the paper's loss on each pair of the group. Labels enter through win rates alone, since
    ``-P log sigmoid(u) - (1 - P) log sigmoid(-u) = log(2 cosh(u / 2)) - (P - 1/2) u``.
    It takes scores for granted: where preferences have cycles it fits the nearest ones.

    ``x.advantage`` must be the win rate, less 1/2, over the whole group, itself included (``WinRate()``). Which answers
    count, cut groups and metrics are those of :class:`LogRatioRegression`. Groups count by their answers.
    """

    whole_groups: ClassVar[bool] = True

    strength: Annotated[float, Gt(0)] = 0.1

    def __call__(self, out: PolicyOutput, x: Experience) -> Loss:
        check_whole_groups(x, "a loss of differences within a group")
        read = self._read(out, x)
        first, second = x.group_of_trajectory.pairs()
        paired = read.counts[first] & read.counts[second] & (first != second)
        first, second = first[paired], second[paired]
        u = self.strength * (read.log_ratio[first] - read.log_ratio[second])
        # Ordered pairs: each answer's share is the mean over its pairs.
        others = (read.size - 1).clamp(min=1)
        bend = (torch.nn.functional.softplus(u) - u / 2) / others[first]
        lean = 2 * self.strength * read.size / others * read.log_ratio * read.credit
        loss = (bend.sum() - torch.where(read.size > 1, lean, 0.0).sum()) / read.total
        return Loss(loss, self._figures(read, read.credit))


@dataclass(frozen=True)
class ProspectUtility(_OfLogRatios):
    """``mean_i w_i (1 - sigmoid(s sign_i (h_i - z_i)))``: KTO's loss, of answers that are good or bad each by itself.

    ``h_i = log pi(y_i) - log q(y_i)``, a sum over tokens; ``sign_i`` is that of ``x.advantage``: an answer with a
    positive one is desirable and counts ``w_i = desirable``, with a negative one undesirable, with 0 it does not count.
    An answer is worth what it gains over the reference point ``z``, and the sigmoid makes both large gains and large
    losses count less (arXiv 2402.01306).

    point: ``z``, an estimate of ``KL(pi || q)`` with no gradient and not below 0. ``opposite``: for desirable answers
    the mean of ``h`` over the batch's undesirable ones, and the other way round, as the method's first report and
    released code for pairs have it; 0 where there are none. ``zero``: 0 always. The paper's later estimate takes
    answers to other prompts, which no batch holds. ``h`` is then of ``x.old_logp``, the policy as the update starts, so
    that the micro-batches of a batch share it: with one step to a batch that is the policy itself. A recipe has
    ``IterationStart(1)`` for its proximal to have it filled in; a whole batch without it stands in for itself.
    strength: ``s`` (KTO's ``beta``).  desirable, undesirable: weights ``w``; the paper wants
    ``desirable * n_desirable`` to be 1 to 4/3 times ``undesirable * n_undesirable``.

    Raises ``ValueError`` for a micro-batch of a whole without ``old_logp``.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"old_logp"})

    strength: Annotated[float, Gt(0)] = 0.1
    desirable: Annotated[float, Ge(0)] = 1.0
    undesirable: Annotated[float, Ge(0)] = 1.0
    point: Literal["opposite", "zero"] = "opposite"

    def _chosen(self, whole: Experience) -> Bool[Tensor, " trajectories"]:
        """Of these, desirable and undesirable ones."""
        token, answer = first_tokens(whole)
        chosen = torch.zeros(whole.trajectories, dtype=torch.bool, device=whole.device)
        assert whole.advantage is not None
        chosen[answer] = whole.advantage[token] != 0
        return chosen

    def __call__(self, out: PolicyOutput, x: Experience) -> Loss:
        read = self._read(out, x)
        sign = read.credit.sign()
        good, bad = self._points(out, x).to(read.log_ratio.dtype)
        gained = sign * (read.log_ratio - torch.where(sign > 0, good, bad))
        weight = torch.where(sign > 0, self.desirable, self.undesirable)
        lost = weight * torch.sigmoid(-self.strength * gained)
        loss = torch.where(read.counts, lost, 0.0).sum() / read.total
        share = read.counts.sum() / read.total
        return Loss(
            loss, self._figures(read, sign) | {"point_desirable": good * share, "point_undesirable": bad * share}
        )

    @torch.no_grad()
    def _points(self, out: PolicyOutput, x: Experience) -> Float[Tensor, " two"]:
        """The reference points of desirable and undesirable answers of the whole batch."""
        if self.point == "zero":
            return out.logp.new_zeros(2)
        whole = x.whole
        if whole.old_logp is None and x.parent is not None:
            raise ValueError(
                "a reference point of a batch in pieces needs old_logp: proximal = IterationStart(1) sets it"
            )
        old = out.logp.detach() if whole.old_logp is None else whole.old_logp
        return whole.remembered((self, "points"), lambda: self._estimated(old, whole))

    def _estimated(self, old: Tensor, whole: Experience) -> Float[Tensor, " two"]:
        assert whole.advantage is not None
        log_ratio = whole.trajectory_of_token.sum(whole.of_learnable(old - self.anchor.logp(old, whole)))
        token, answer = first_tokens(whole)
        credit = whole.advantage[token]
        means = [
            torch.where(side, log_ratio[answer], 0.0).sum() / side.sum().clamp(min=1)
            for side in (credit < 0, credit > 0)
        ]
        return torch.stack(means).clamp(min=0)
