"""Penalties for entropies out of a band: around what they usually were, or between fixed edges."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt
from jaxtyping import Float, Int
from torch import Tensor

from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.partition import Partition
from stratagem.parts import Regularizer


@dataclass(frozen=True)
class EntropyBand(Regularizer):
    """0 where ``low U < H < high U``, a penalty elsewhere; ``H`` is the entropy now, ``U`` what it usually was.

    ``U_k`` is a mean over batches: of the mean entropy, over tokens as they were sampled, of all turns number ``k`` of
    a batch. It is remembered, and noted once per batch (``x.usual_entropy``) before any step on it, since an objective
    sees the pieces of a batch, and every one of them in each epoch. That is where the number of a turn is known and
    where it is seen whether the batch is long enough: with no turn number ``turns // 2`` (from 0) in it there is no
    penalty. Nor is there one where ``U`` is not above 0: in turns no batch had before, or for densities, of which the
    entropy may be negative and a ratio says nothing.

    ``constant``: the penalty is ``penalty`` (EPO, arXiv 2509.22576, as its released code has it). It is a step, so it
    shows in the loss and has no gradient: beside it, a policy learns as without it.
    ``hinge``: ``max(low U - H, 0) + max(H - high U, 0)``, in nats, which pulls ``H`` back into the band. A
    reconstruction of what the paper describes; its authors use no such form.

    low, high: edges of the band, as multiples of ``U``; an entropy on an edge is outside.
    penalty: of the constant form; the hinge does not use it.
    unit: whose entropy ``H`` is, a token's or the mean of a turn's tokens, which is then penalised at each of them.
    turns: most turns an episode may have.
    include_current: whether ``U`` counts the batch at hand, as in the released code; if not, the first batch is not
    penalised.

    The defaults are those published for ScienceWorld; those of the released code's configuration are ``low`` 0.8,
    ``high`` 1.2, ``penalty`` 0.1.

    Raises :class:`InputError` for a band without an inside; ``ValueError`` when entropies are missing, or one of a
    token that may train was not finite when it was sampled.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"entropy", "output.entropy"})

    form: Literal["constant", "hinge"] = "constant"
    low: Annotated[float, Ge(0)] = 0.0
    high: Annotated[float, Gt(0)] = 2.0
    penalty: Annotated[float, Ge(0)] = 0.05
    unit: Literal["token", "turn"] = "token"
    turns: Annotated[int, Ge(1)] = 30
    include_current: bool = True
    _memory: dict[str, Tensor] = field(
        default_factory=lambda: {name: torch.zeros(0, dtype=torch.float64) for name in ("total", "batches")},
        init=False,
        repr=False,
        compare=False,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low >= self.high:
            raise InputError(f"entropy_band.low = {self.low}: must be below high = {self.high}")

    def memory(self) -> dict[str, Tensor]:
        return self._memory

    def before_steps(self, x: Experience) -> Experience:
        if x.turns == 0:
            return x.replace(usual_entropy=torch.zeros(0, device=x.device))
        number = x.trajectory_of_turn.position()
        longest = int(number.max()) + 1
        now = _mean_entropy(x, Partition(number, longest)).cpu()
        before = self._usual(longest)
        self._remember(now)
        usual = self._usual(longest) if self.include_current else before
        if longest <= self.turns // 2:
            usual = torch.zeros_like(usual)
        return x.replace(usual_entropy=usual.to(x.device, torch.float32)[number])

    def __call__(self, out: PolicyOutput, x: Experience) -> Float[Tensor, " tokens"]:
        if out.entropy is None or x.usual_entropy is None:
            raise ValueError(
                "the entropy band needs the policy's entropy and x.usual_entropy; recipe.credit(x) sets it"
            )
        usual = x.usual_entropy.to(out.entropy.dtype)
        if self.unit == "token":
            return self._penalty(out.entropy, x.turn_of_token.spread(usual))
        sizes = x.turn_of_token.sum(x.learnable().to(usual.dtype))
        mean = x.turn_of_token.sum(x.of_learnable(out.entropy)) / sizes.clamp(min=1)
        return x.turn_of_token.spread(self._penalty(mean, usual))

    def _penalty(self, entropy: Tensor, usual: Tensor) -> Tensor:
        low, high = self.low * usual, self.high * usual
        if self.form == "hinge":
            penalty = (low - entropy).relu() + (entropy - high).relu()
        else:
            penalty = self.penalty * ((entropy <= low) | (entropy >= high)).to(entropy.dtype)
        return torch.where(usual > 0, penalty, 0.0)

    def _remember(self, entropy: Float[Tensor, " numbers"]) -> None:
        """Enter the entropies of one batch by turn number; NaN for one of which it has no token."""
        seen, sums = entropy.isfinite(), {"total": entropy.nan_to_num(), "batches": entropy.isfinite().double()}
        for name, remembered in self._memory.items():
            if len(remembered) < len(seen):
                earlier = remembered.clone()
                remembered.resize_(len(seen)).zero_()[: len(earlier)] = earlier
            remembered[: len(seen)] += sums[name]

    def _usual(self, numbers: int) -> Float[Tensor, " numbers"]:
        """Mean over batches of the entropy by turn number, 0 where there was none."""
        usual = torch.zeros(numbers, dtype=torch.float64)
        total, batches = (self._memory[name][:numbers] for name in ("total", "batches"))
        usual[: len(total)] = total / batches.clamp(min=1)
        return usual


@dataclass(frozen=True)
class EntropyRange(Regularizer):
    """``max(low - H, 0) + max(H - high, 0)`` for ``H`` the mean token entropy of a task, in nats.

    Which side of the range a task is on, if either, is decided once for a batch, by the mean over its tokens that may
    train as they were sampled. Every token is then charged ``low - H_t`` below the range, ``H_t - high`` above it, and
    nothing inside. So pieces of a batch add up, and summed by :class:`~stratagem.objectives.TokenMean` it is the
    formula where the update starts; later in the update it may be negative, by as much as a step went past the edge.
    Each task counts by its share of the aggregation. (arXiv 2604.08539, whose own formula was not available: the hinge
    is from a summary, and everything else of it a reconstruction.)

    A task is a domain of the batch. Unlike :class:`EntropyBand` it remembers nothing, and its edges are fixed.

    low, high: edges, in nats, at least 0; an entropy on an edge is inside.  domain: the only one that is charged; None:
    all are, each for its own mean. Ranges of several domains add up.

    Raises :class:`InputError` for ``low`` above ``high``; ``ValueError`` when entropies are missing.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"entropy", "output.entropy"})

    low: Annotated[float, Ge(0)]
    high: Annotated[float, Ge(0)]
    domain: Annotated[int, Ge(0)] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low > self.high:
            raise InputError(f"{self.part_name()}.low = {self.low}: must be at most high = {self.high}")

    def __call__(self, out: PolicyOutput, x: Experience) -> Float[Tensor, " tokens"]:
        whole = x.whole
        if out.entropy is None or whole.entropy is None:
            raise ValueError("the entropy range needs the policy's entropy and x.entropy")
        side = x.piece_of(whole.remembered(self, lambda: self._side(whole)))
        edge = torch.full_like(out.entropy, self.high, requires_grad=False).masked_fill(side > 0, self.low)
        return side * (edge - out.entropy)

    def _side(self, x: Experience) -> Int[Tensor, " tokens"]:
        """Of every token: 1 where its task is below the range, -1 above, 0 inside or not charged."""
        assert x.entropy is not None
        domain = x.domain_of_token
        tokens = domain.sum(x.learnable().double())
        mean = domain.sum(x.of_learnable(x.entropy).double()) / tokens.clamp(min=1)
        side = (mean < self.low).long() - (mean > self.high).long()
        if self.domain is not None:
            side = side * (torch.arange(domain.count, device=x.device) == self.domain)
        return domain.spread(side)


def entropy_of_turns(x: Experience) -> tuple[Float[Tensor, " turns"], Float[Tensor, " turns"]]:
    """Sum of the entropies of each turn's tokens that may train, as they were sampled, and how many there are; float64.

    Raises ``ValueError`` when the batch has no entropies, or one of them is not finite.
    """
    if x.entropy is None:
        raise ValueError("the entropy of turns needs x.entropy")
    # In float64, or turns of one entropy and unequal length would differ by what is rounded.
    total = x.turn_of_token.sum(x.of_learnable(x.entropy).double())
    if not bool(total.isfinite().all()):
        turn = int(torch.nonzero(~total.isfinite())[0])
        raise ValueError(f"x.entropy: turn {turn} has one that is not finite")
    # Added up as floats, which is several times as fast as counting, and exact.
    sizes = x.turn_of_token.size() if x.mask is None else x.turn_of_token.sum(x.mask.float())
    return total, sizes.double()


def _mean_entropy(x: Experience, number_of_turn: Partition) -> Float[Tensor, " numbers"]:
    """Mean over the tokens that may train of turns with one number, NaN where there are none."""
    total, sizes = entropy_of_turns(x)
    return number_of_turn.sum(total) / number_of_turn.sum(sizes)
