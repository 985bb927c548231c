"""Rewards of steps learned from comparisons or scores of segments, by ordinary networks; ensembles of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from stratagem.errors import BrokenRunError, InputError
from stratagem.seeding import generator

# ---- data -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Comparisons:
    """Pairs of segments and who was preferred; the pairs may lie in sets, such as those one person answered.

    first, second: features of every step of both segments.
    label: probability, or share of votes, with which the first is preferred: 1, 0, or 1/2 for a tie.

    Raises :class:`InputError` for shapes that do not fit, features that are not finite, labels outside [0, 1].
    """

    first: Float[Tensor, "*sets pairs steps features"]
    second: Float[Tensor, "*sets pairs steps features"]
    label: Float[Tensor, "*sets pairs"]

    def __post_init__(self) -> None:
        if self.first.ndim < 3 or self.first.shape != self.second.shape or self.first.shape[:-2] != self.label.shape:
            shapes = ", ".join(str(tuple(each.shape)) for each in (self.first, self.second, self.label))
            raise InputError(
                f"comparisons: shapes are {shapes}; they must be (..., pairs, steps, features) twice and (..., pairs)"
            )
        if not bool(self.first.isfinite().all() and self.second.isfinite().all()):
            raise InputError("comparisons: features must be finite")
        if not bool(((self.label >= 0) & (self.label <= 1)).all()):
            raise InputError("comparisons: labels must be in [0, 1], the probability that the first is preferred")

    def select(self, sets: Int[Tensor, " chosen"]) -> Self:
        """These sets, or these pairs where there are no sets."""
        return type(self)(self.first[sets], self.second[sets], self.label[sets])

    def pooled(self) -> Self:
        """All pairs as one set: whoever answered them."""
        return type(self)(self.first.flatten(0, -3), self.second.flatten(0, -3), self.label.flatten())

    def swapped(self) -> Self:
        """The same comparisons told the other way round."""
        return type(self)(self.second, self.first, 1 - self.label)

    def contradictions(self) -> int:
        """Pairs asked again within a set, in this order or the other, and answered with another label than before."""
        pairs = self.label.shape[-1]
        count, segments = 0, (self.first.reshape(-1, pairs, self._width), self.second.reshape(-1, pairs, self._width))
        for first, second, label in zip(*segments, self.label.reshape(-1, pairs), strict=True):
            known: dict[tuple[bytes, bytes], float] = {}
            for one, other, said in zip(first, second, label.tolist(), strict=True):
                left, right = one.cpu().numpy().tobytes(), other.cpu().numpy().tobytes()
                said = said if left <= right else 1 - said
                count += known.setdefault((min(left, right), max(left, right)), said) != said
        return count

    @property
    def _width(self) -> int:
        return self.first.shape[-2] * self.first.shape[-1]


@dataclass(frozen=True, eq=False)
class Scores:
    """Segments and what each was found to be worth.

    weight: of every segment in the loss, at least 0; None: all alike.

    Raises :class:`InputError` for shapes that do not fit and numbers that are not finite.
    """

    segments: Float[Tensor, "segments steps features"]
    score: Float[Tensor, " segments"]
    weight: Float[Tensor, " segments"] | None = None

    def __post_init__(self) -> None:
        weight = torch.ones_like(self.score) if self.weight is None else self.weight
        if self.segments.ndim != 3 or not self.segments.shape[:1] == self.score.shape == weight.shape:
            raise InputError(
                f"scores: segments have shape {tuple(self.segments.shape)} and scores {tuple(self.score.shape)}; they "
                "must be (segments, steps, features) and (segments), and so must weights"
            )
        finite = self.segments.isfinite().all() & self.score.isfinite().all() & weight.isfinite().all()
        if not bool(finite & (weight >= 0).all()):
            raise InputError("scores: features, scores and weights must be finite, and weights at least 0")

    def compared(self) -> Comparisons:
        """Every two segments of different scores, the one of the higher score first."""
        first, second = torch.nonzero(self.score.unsqueeze(1) > self.score, as_tuple=True)
        return Comparisons(self.segments[first], self.segments[second], torch.ones_like(self.score)[first])


# ---- networks -------------------------------------------------------------------------------------------------------


def perceptron(
    widths: Sequence[int], source: torch.Generator, activation: Callable[[], nn.Module] = nn.ReLU, last: float = 1.0
) -> nn.Sequential:
    """Linear maps between these widths with an activation between them; weights uniform as torch's, from ``source``.

    last: factor on the last layer's initial weights; at 0 a fresh network says 0 to everything.
    """
    layers = nn.Sequential()
    for inputs, outputs in pairwise(widths):
        layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs)
        bound = max(inputs, 1) ** -0.5
        with torch.no_grad():
            layer.weight.copy_((2 * torch.rand(outputs, inputs, generator=source) - 1) * bound)
            layer.bias.copy_((2 * torch.rand(outputs, generator=source) - 1) * bound)
        layers.extend([layer, activation()])
    del layers[-1]
    with torch.no_grad():
        for parameter in layers[-1].parameters():
            parameter.mul_(last)
    return layers


class RewardModel(nn.Module):
    """``r(features)`` of every step: a mean over ``members`` perceptrons that began differently.

    features: width of a step.  hidden: width of two hidden layers.  members: at least 1.  seed: of the weights.
    """

    def __init__(self, features: int, hidden: int = 256, members: int = 1, seed: int = 0) -> None:
        super().__init__()
        if min(features, hidden, members) < 1:
            raise InputError("reward model: features, hidden and members must be at least 1")
        self.members = nn.ModuleList(
            perceptron((features, hidden, hidden, 1), generator(seed, "reward", member)) for member in range(members)
        )

    def each(self, steps: Float[Tensor, "*batch features"]) -> Float[Tensor, "models ..."]:
        """What every member says."""
        return torch.stack([member(steps).squeeze(-1) for member in self.members])

    def forward(self, steps: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch"]:
        """The mean over members."""
        return self.each(steps).mean(0)

    @torch.no_grad()
    def spread(self, steps: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch"]:
        """Standard deviation over members: large where no data told them apart; 0 of a single one."""
        return self.each(steps).std(0, correction=0)

    @torch.no_grad()
    def probability(
        self, first: Float[Tensor, "*pairs steps features"], second: Float[Tensor, "*pairs steps features"]
    ) -> Float[Tensor, "*pairs"]:
        """``P(first > second) = sigmoid(sum_t r - sum_t r')``."""
        return torch.sigmoid(self(first).sum(-1) - self(second).sum(-1))


# ---- fitting --------------------------------------------------------------------------------------------------------


def comparison_loss(difference: Float[Tensor, "*pairs"], label: Float[Tensor, "*pairs"]) -> Float[Tensor, "*pairs"]:
    """``-y log sigmoid(d) - (1 - y) log sigmoid(-d)`` of every pair, ``d`` the difference of their returns."""
    return functional.binary_cross_entropy_with_logits(difference, label.to(difference.dtype), reduction="none")


def fit_comparisons(
    model: RewardModel,
    data: Comparisons,
    steps: int = 500,
    learning_rate: float = 1e-3,
    batch: int = 256,
    seed: int = 0,
) -> float:
    """Fit ``sigmoid(sum_t r - sum_t r')`` to the labels; the mean loss of the last step.

    Each member draws batches of its own. Raises :class:`InputError` without pairs.
    """
    data = data if data.label.ndim == 1 else data.pooled()
    batches = _batches(len(data.label), batch, len(model.members), seed)

    def loss(step: int) -> Tensor:
        terms = []
        for member, rows in zip(model.members, batches(step), strict=True):
            first, second = (member(side[rows]).squeeze(-1).sum(-1) for side in (data.first, data.second))
            terms.append(comparison_loss(first - second, data.label[rows]).mean())
        return torch.stack(terms).mean()

    return minimise(loss, model.parameters(), steps, learning_rate)


def fit_scores(
    model: RewardModel, data: Scores, steps: int = 500, learning_rate: float = 1e-3, batch: int = 256, seed: int = 0
) -> float:
    """Fit ``mean_t r`` of every segment to its score by weighted squares; the mean loss of the last step."""
    batches = _batches(len(data.score), batch, len(model.members), seed)
    weight = torch.ones_like(data.score) if data.weight is None else data.weight
    if not bool(weight.any()):
        raise InputError("scores: at least one weight must be above 0")
    weight = weight / weight.mean()

    def loss(step: int) -> Tensor:
        terms = []
        for member, rows in zip(model.members, batches(step), strict=True):
            error = member(data.segments[rows]).squeeze(-1).mean(-1) - data.score[rows]
            terms.append((weight[rows] * error.square()).mean())
        return torch.stack(terms).mean()

    return minimise(loss, model.parameters(), steps, learning_rate)


def minimise(
    loss: Callable[[int], Tensor], parameters: Iterable[nn.Parameter], steps: int, learning_rate: float
) -> float:
    """Adam on the loss of every step; returns the last. Raises :class:`BrokenRunError` where it is not finite."""
    optimizer = torch.optim.Adam(list(parameters), lr=learning_rate)
    value = 0.0
    for step in range(steps):
        optimizer.zero_grad(set_to_none=True)
        found = loss(step)
        value = float(found.detach())
        if not value - value == 0:
            raise BrokenRunError(f"the loss of step {step} is {value}")
        found.backward()
        optimizer.step()
    return value


def _batches(rows: int, batch: int, members: int, seed: int) -> Callable[[int], list[Int[Tensor, " batch"]]]:
    """Rows for every member at a step: all of them where they fit, else drawn anew."""
    if rows < 1:
        raise InputError("reward model: there is nothing to learn from")
    everything = torch.arange(rows)

    def drawn(step: int) -> list[Tensor]:
        if rows <= batch:
            return [everything] * members
        return [
            torch.randint(rows, (batch,), generator=generator(seed, "batch", member, step)) for member in range(members)
        ]

    return drawn
