"""Trees that grow while they are written: where the policy is unsure it goes on in several ways, weak paths are cut."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Self

import torch
from annotated_types import Ge, Gt, Le
from jaxtyping import Float, Float64, Int
from pydantic import FiniteFloat
from torch import Tensor

from stratagem.distribution import LIKELY, sureness
from stratagem.errors import InputError
from stratagem.part import Part
from stratagem.sampling.samplers import Rollouts

Measure = Literal["mean_probability", "mean_negative_log"]
"""How sure a policy is, by the likeliest tokens: their mean probability, or minus their mean log-probability."""

Threshold = Annotated[float, Gt(0)]

RULES = ("unsure", "falling", "rising")
"""Why a path is cut, by number from 1 on (:class:`PruneWhere`)."""


@dataclass(frozen=True)
class Range:
    """What the figures of a distribution can be.

    entropy: the most it can be, in nats.  low, high: the least and the most confidence.  what: the two in words.
    """

    entropy: float
    low: float
    high: float
    what: tuple[str, str]

    @staticmethod
    def of(vocabulary: int, measure: Measure = "mean_probability", likely: int = LIKELY) -> Range:
        """Over so many tokens: ``log V``; ``[1/V, 1/n]`` or ``[log n, inf)`` with ``n = min(likely, V)``."""
        some, most = min(likely, vocabulary), math.log(vocabulary)
        entropy = f"an entropy over {vocabulary} tokens is at most log {vocabulary} = {most:.3f}"
        if measure == "mean_probability":
            told = f"the mean of the {some} largest of {vocabulary} probabilities is at least 1 / {vocabulary}"
            return Range(most, 1 / vocabulary, 1 / some, (entropy, f"{told} = {1 / vocabulary:.3g}"))
        told = f"minus the mean log of {some} probabilities is at least log {some} = {math.log(some):.3f}"
        return Range(most, math.log(some), math.inf, (entropy, told))

    def between(self, share: float) -> float | None:
        """So far from the least to the most confidence; None where there is but one value."""
        return self.low + share * (self.high - self.low) if self.high > self.low else None


@dataclass(frozen=True, eq=False)
class Uncertainty:
    """What is known of paths when their next token is due, a row each; all means are of what exists.

    entropy: ``H_t``, in nats.  group: ``C^G_t``, mean confidence of the last 4 distributions, this one included.
    tail: ``C^T_t``, of the last 8.  change: ``H_t`` minus the mean of the 4 before; 0 for a first token.
    lowest: least ``C^G`` so far.  falls: times in a row that ``C^T`` has dropped.  rises: that ``change`` was above 0.
    written: tokens since the start, or since the path came off another or went on in several ways.
    """

    entropy: Float64[Tensor, " paths"]
    group: Float64[Tensor, " paths"]
    tail: Float64[Tensor, " paths"]
    change: Float64[Tensor, " paths"]
    lowest: Float64[Tensor, " paths"]
    falls: Int[Tensor, " paths"]
    rises: Int[Tensor, " paths"]
    written: Int[Tensor, " paths"]


@dataclass(frozen=True)
class OnlineRule(Part):
    """What is decided of paths before each of their tokens (:class:`OnlineTree`)."""

    kind: ClassVar[str] = "online_rule"

    def within(self, possible: Range) -> Self:
        """With a number for every "auto". Raises :class:`InputError` for what can never act."""
        raise NotImplementedError

    def __call__(self, u: Uncertainty) -> Int[Tensor, " paths"]:
        """What becomes of each path. For what :meth:`within` returned."""
        raise NotImplementedError


@dataclass(frozen=True)
class BranchWhere(OnlineRule):
    """Go on in several ways where entropy is high, has risen, and confidence is low (ECHO, arXiv 2602.02150).

    Once ``H_t >= entropy``, ``C^G_t <= confidence`` and ``dH_t >= rise`` (:class:`Uncertainty`), at least ``after``
    tokens from the start or the last such place, the path goes on with the ``width`` likeliest next tokens, where

    ``width = round(1 + slope (H_t - low) / (entropy - low) - doubt (C^G_t - confidence) / confidence)``

    is at least 1, which is no branch, and at most ``widest``; halves are rounded to the even number. By the released
    code, whose thresholds are ``entropy=3.5, confidence=1.2, low=1.0`` and which branches once; that a path may branch
    again is ours. Those cannot be met: a vocabulary of 33 tokens has no entropy of 3.5, the ten candidates of the code
    none above ``log 10 = 2.30``, and minus the mean log of five probabilities is never below ``log 5 = 1.61``, nor
    their mean above 0.2.

    entropy: in nats. "auto" (ours): 1.5, or half of ``log V`` where that is less.
    confidence: "auto" (ours): two thirds of the way from the least to the most that it can be, 0.13 for a large
    vocabulary; no condition where it can be one thing only. None: no condition.
    low: entropy at which the first term is 1, below ``entropy``. "auto": 2/7 of ``entropy``, as in the code.

    Raises :class:`InputError` for a ``low`` that is not below ``entropy``.
    """

    entropy: Threshold | Literal["auto"] = "auto"
    confidence: Threshold | Literal["auto"] | None = "auto"
    rise: FiniteFloat = 0.2
    after: Annotated[int, Ge(1)] = 4
    low: Annotated[FiniteFloat, Ge(0)] | Literal["auto"] = "auto"
    slope: Annotated[FiniteFloat, Ge(0)] = 2.0
    doubt: Annotated[FiniteFloat, Ge(0)] = 1.0
    widest: Annotated[int, Ge(2)] = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.entropy != "auto" and self.low != "auto" and self.low >= self.entropy:
            raise InputError(f"{self.part_name()}.low = {self.low}: must be below entropy = {self.entropy}")

    def within(self, possible: Range) -> Self:
        """With a number for every "auto". Raises :class:`InputError` when it can never branch."""
        entropy = min(1.5, possible.entropy / 2) if self.entropy == "auto" else self.entropy
        confidence = _told(self, "confidence", self.confidence, possible, 2 / 3)
        name = self.part_name()
        if entropy > possible.entropy:
            raise InputError(f"{name}.entropy = {entropy}: never branches, {possible.what[0]}")
        if self.rise >= possible.entropy:
            raise InputError(f"{name}.rise = {self.rise}: never branches, {possible.what[0]}")
        if confidence is not None and confidence < possible.low:
            raise InputError(f"{name}.confidence = {confidence}: never branches, {possible.what[1]}")
        low = 2 / 7 * entropy if self.low == "auto" else self.low
        return self.replace(entropy=entropy, confidence=confidence, low=low)

    def __call__(self, u: Uncertainty) -> Int[Tensor, " paths"]:
        """In how many ways each path goes on. For rules that :meth:`within` returned."""
        assert self.entropy != "auto" and self.low != "auto" and self.confidence != "auto"
        width = 1 + self.slope * (u.entropy - self.low) / (self.entropy - self.low)
        fires = (u.entropy >= self.entropy) & (u.change >= self.rise) & (u.written >= self.after)
        if self.confidence is not None:
            width = width - self.doubt * (u.group - self.confidence) / self.confidence
            fires = fires & (u.group <= self.confidence)
        return torch.where(fires, width.round().clamp(1, self.widest).long(), 1)


@dataclass(frozen=True)
class PruneWhere(OnlineRule):
    """Cut a path at the first token before which one of three holds (ECHO, arXiv 2602.02150, by the released code).

    1. the least ``C^G`` so far is below ``floor`` ("unsure");
    2. ``C^T`` has dropped ``steps`` times in a row and is at most ``tail`` ("falling");
    3. ``dH`` was above 0 ``steps`` times in a row and is above ``rise`` ("rising");

    with the means of :class:`Uncertainty`. The code has ``floor=0.4, tail=1.0``, on the scale of minus the mean log of
    five probabilities, where these cannot be met: that is never below 1.61. What is cut notes ``penalty``, ``C^T - (1 -
    b) - 0.05`` with ``b`` the mean of the lowest tenth of the probabilities of the ``candidates`` likeliest tokens; the
    sampler logs its mean.

    floor, tail: "auto" (ours): 2/9 and 5/9 of the way from the least to the most that a confidence can be, where the
    code's proportions lead from the threshold of :class:`BranchWhere`; no rule where it can be one thing only.
    floor, tail, rise: None: no such rule.
    """

    floor: Threshold | Literal["auto"] | None = "auto"
    tail: Threshold | Literal["auto"] | None = "auto"
    rise: Annotated[FiniteFloat, Ge(0)] | None = 0.5
    steps: Annotated[int, Ge(1)] = 3
    candidates: Annotated[int, Ge(1)] = 10

    def within(self, possible: Range) -> Self:
        """With a number for every "auto". Raises :class:`InputError` for a rule that never cuts."""
        floor = _told(self, "floor", self.floor, possible, 2 / 9)
        tail = _told(self, "tail", self.tail, possible, 5 / 9)
        name = self.part_name()
        if floor is not None and floor <= possible.low:
            raise InputError(f"{name}.floor = {floor}: never cuts, {possible.what[1]}")
        if floor is not None and floor > possible.high:
            raise InputError(f"{name}.floor = {floor}: cuts everything, no confidence is above {possible.high:.3g}")
        if tail is not None and tail < possible.low:
            raise InputError(f"{name}.tail = {tail}: never cuts, {possible.what[1]}")
        if self.rise is not None and self.rise >= possible.entropy:
            raise InputError(f"{name}.rise = {self.rise}: never cuts, {possible.what[0]}")
        return self.replace(floor=floor, tail=tail)

    def __call__(self, u: Uncertainty) -> Int[Tensor, " paths"]:
        """Number of the rule that cuts each path, the first that holds; 0: none. For what :meth:`within` returned."""
        assert self.floor != "auto" and self.tail != "auto"
        rule = torch.zeros_like(u.falls)
        if self.rise is not None:
            rule = torch.where((u.rises >= self.steps) & (u.change > self.rise), 3, rule)
        if self.tail is not None:
            rule = torch.where((u.falls >= self.steps) & (u.tail <= self.tail), 2, rule)
        if self.floor is not None:
            rule = torch.where(u.lowest < self.floor, 1, rule)
        return rule

    def penalty(
        self,
        u: Uncertainty,
        logp: Float[Tensor, "paths vocabulary"],
        weights: tuple[float, float, float] = (1, 1, 0.05),
    ) -> Float64[Tensor, " paths"]:
        """``w_0 C^T - w_1 (1 - b) - w_2`` of every path."""
        likely = logp.topk(min(self.candidates, logp.shape[1]), dim=1).values.double().exp()
        lowest = likely[:, -math.ceil(likely.shape[1] / 10) :].mean(1)
        return weights[0] * u.tail - weights[1] * (1 - lowest) - weights[2]


@dataclass(frozen=True)
class OnlineTree(Rollouts):
    """Groups that grow from a few rollouts, branched and pruned token by token while they are written.

    Before every token ``prune`` may cut a path and ``branch`` may have it go on in several ways, by the entropy of the
    policy's distribution over the whole vocabulary (at ``temperature``) and by its confidence. Paths of a group that
    have not been cut are never more than ``group_size``; earlier ones get the free places. The last path of a group is
    never cut, so that no group is empty: it is written to its end, without a mark.

    What paths share was sampled once and trains once: in the first of them that is left (``taken_over``, ``mask``), as
    in ``Branching(together=True)``. What was cut is not learned from, but counts in a budget. The tokens with which
    branches begin are not sampled; ``behavior_logp`` says how likely they were, so that branches are more likely paths
    than rollouts would be.

    Logged: ``tree/branches``, paths that came off others; ``tree/pruned`` and, by rule, ``tree/pruned/unsure``,
    ``falling``, ``rising``; ``tree/leaves``, what was left; ``tree/tokens``, shared ones once and cut ones included;
    these are means over groups. ``tree/spared``: share of groups whose last path would have been cut.
    ``tree/penalty``: mean over what was cut; absent where nothing was.

    roots: rollouts that a group begins with, at most ``group_size``.
    branch, prune: None: never.
    confidence: "mean_probability" of the ``likely`` likeliest tokens, at most ``1 / likely`` (the paper, and
    :func:`stratagem.distribution.sureness`); or "mean_negative_log", minus their mean log-probability, at least ``log
    likely`` (the code of the rollouts). Both are of the whole distribution. With the latter, no threshold may be
    "auto".

    Raises :class:`InputError` for more roots than leaves, for ``top_p``, ``top_k`` and demonstrations, and, once the
    vocabulary is known, for thresholds that no distribution can meet.
    """

    tags: ClassVar[frozenset[str]] = frozenset(
        {"search.structure.tree", "search.action.token", "search.phase.training", "search.guidance.internal"}
    )

    roots: Annotated[int, Ge(1)] = 4
    branch: BranchWhere | None = BranchWhere()
    prune: PruneWhere | None = PruneWhere()
    confidence: Measure = "mean_probability"
    likely: Annotated[int, Ge(1), Le(100)] = LIKELY

    def __post_init__(self) -> None:
        super().__post_init__()
        name = self.part_name()
        if self.roots > self.group_size:
            raise InputError(f"{name}.roots = {self.roots}: must be at most group_size = {self.group_size}")
        if self.top_p < 1 or self.top_k:
            raise InputError(
                f"{name}: top_p = {self.top_p}, top_k = {self.top_k}: must be 1 and 0, branches are not cut"
            )
        if self.demonstrations:
            raise InputError(f"{name}.demonstrations = {self.demonstrations}: must be 0, they grow no branches")

    @property
    def smallest_group(self) -> tuple[str, int]:
        # What is cut is lost, as failed episodes are, and does not count here.
        return ("roots", self.roots) if self.roots < super().smallest_group[1] else super().smallest_group

    @property
    def asks(self) -> dict[str, str]:
        return super().asks | {"online": "{who} shows no distribution while it writes"}

    def within(self, vocabulary: int) -> tuple[BranchWhere | None, PruneWhere | None]:
        """The two rules with a number for every "auto". Raises :class:`InputError` for one that can never act."""
        possible = Range.of(vocabulary, self.confidence, self.likely)
        return (
            None if self.branch is None else self.branch.within(possible),
            None if self.prune is None else self.prune.within(possible),
        )

    def sure(self, logp: Float[Tensor, "paths vocabulary"]) -> Float64[Tensor, " paths"]:
        """``c_t``, by the measure of ``confidence``."""
        return (
            sureness(logp.double(), self.likely) if self.confidence == "mean_probability" else peaked(logp, self.likely)
        )


def peaked(logp: Float[Tensor, "paths vocabulary"], likely: int = LIKELY) -> Float64[Tensor, " paths"]:
    """Minus the mean log-probability of the ``likely`` likeliest tokens: at least ``log likely``, without end."""
    return -logp.topk(min(likely, logp.shape[1]), dim=1).values.double().mean(1)


def _told(part: Part, field: str, value: float | Literal["auto"] | None, possible: Range, share: float) -> float | None:
    if value != "auto":
        return value
    if math.isinf(possible.high):
        raise InputError(f'{part.part_name()}.{field} = "auto": must be a number where confidence is mean_negative_log')
    return possible.between(share)
