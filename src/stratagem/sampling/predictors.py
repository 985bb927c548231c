"""What success rate a policy will have on a prompt, from its scores on others: nothing is trained on the policy."""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt
from jaxtyping import Float64, Int
from torch import Tensor

from stratagem.errors import InputError
from stratagem.part import Part
from stratagem.prompts import Reader

Encoder = Callable[[Sequence[str]], Sequence[Sequence[float]]]


@dataclass(frozen=True)
class Features(Part):
    """Vectors of start states, by what they show."""

    kind: ClassVar[str] = "features"

    def __call__(self, number: Int[Tensor, " prompts"], read: Reader) -> Float64[Tensor, "prompts width"]:
        """Of start states, given who reads their texts."""
        raise NotImplementedError


@dataclass(frozen=True)
class TextFeatures(Features):
    """Vectors of prompts, of length 1; a text is encoded once.

    encoder: ``ngrams`` counts runs of three characters, each at a place its checksum says; or
    ``python:module:function``, which maps texts to vectors, such as those of an embedding model.
    width: of the vectors by ``ngrams``.

    Raises :class:`InputError` for an encoder that cannot be loaded or returns what is no finite vector.
    """

    encoder: str = "ngrams"
    width: Annotated[int, Ge(1)] = 256
    _known: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.encoder != "ngrams" and not self.encoder.startswith("python:"):
            raise InputError(f"{self.part_name()}.encoder = {self.encoder!r}: must be ngrams or python:module:function")

    def __call__(self, number: Int[Tensor, " prompts"], read: Reader) -> Float64[Tensor, "prompts width"]:
        if not len(number):
            return torch.zeros(0, self.width, dtype=torch.float64)
        texts = read(number.tolist())
        fresh = [text for text in dict.fromkeys(texts) if text not in self._known]
        if fresh:
            self._known.update(zip(fresh, self.encoded(fresh), strict=True))
        return torch.stack([self._known[text] for text in texts])

    def encoded(self, texts: Sequence[str]) -> Float64[Tensor, "texts width"]:
        """Of texts."""
        if self.encoder == "ngrams":
            rows = torch.stack([_ngrams(text, self.width) for text in texts])
        else:
            rows = torch.as_tensor(_function(self.encoder)(texts), dtype=torch.float64)
        if rows.ndim != 2 or len(rows) != len(texts) or not bool(rows.isfinite().all()):
            raise InputError(f"features by {self.encoder}: must be one finite vector for each of {len(texts)} prompts")
        return torch.nn.functional.normalize(rows, dim=-1)


@dataclass(frozen=True)
class Predictor(Part):
    """A predictor of success rates that learns in its context alone.

    A context without any score says 0.5; one of a single class (all scores at least a half, or none) says the smoothed
    mean ``(n_1 + 1) / (n + 2)``, whatever the prompt.
    """

    kind: ClassVar[str] = "predictor"

    def __call__(
        self,
        known: Float64[Tensor, "context width"],
        score: Float64[Tensor, " context"],
        asked: Float64[Tensor, "asked width"],
    ) -> Float64[Tensor, " asked"]:
        """Of the prompts asked for, given others and their scores in [0, 1]. Raises ``ValueError`` for NaN."""
        for name, values in (("features", known), ("scores", score), ("features", asked)):
            if not bool(values.isfinite().all()):
                raise ValueError(f"predictor {self.part_name()}: {name} must be finite")
        solved = int((score >= 0.5).sum())
        if solved in (0, len(score)):
            return torch.full((len(asked),), (solved + 1) / (len(score) + 2), dtype=torch.float64)
        return self.predict(known, score, asked)

    def predict(
        self,
        known: Float64[Tensor, "context width"],
        score: Float64[Tensor, " context"],
        asked: Float64[Tensor, "asked width"],
    ) -> Float64[Tensor, " asked"]:
        """The same, for a context of both classes."""
        raise NotImplementedError


@dataclass(frozen=True)
class ContextMean(Predictor):
    """The mean score of the context, ``(s + 1) / (n + 2)``, whatever the prompt: how good the policy is at all."""

    def predict(self, known: Tensor, score: Tensor, asked: Tensor) -> Tensor:
        return ((score.sum() + 1) / (len(score) + 2)).expand(len(asked)).clone()


@dataclass(frozen=True)
class Neighbours(Predictor):
    """Mean score of the ``count`` most similar prompts, weighed by ``exp(cosine / temperature)``.

    One trial of the context's mean is added to them, at the weight of the most similar.
    """

    count: Annotated[int, Ge(1)] = 8
    temperature: Annotated[float, Gt(0)] = 0.1

    def predict(self, known: Tensor, score: Tensor, asked: Tensor) -> Tensor:
        unit = torch.nn.functional.normalize
        likeness, place = (unit(asked, dim=-1) @ unit(known, dim=-1).T).topk(min(self.count, len(known)), 1)
        weight = ((likeness - likeness[:, :1]) / self.temperature).exp()
        return ((weight * score[place]).sum(1) + score.mean()) / (weight.sum(1) + 1)


@dataclass(frozen=True)
class Logistic(Predictor):
    """Logistic regression on the features, with the scores as soft labels: minimises cross-entropy plus
    ``penalty / 2 |w|^2``, by Newton's method in the span of the context; the intercept is not penalised.
    """

    penalty: Annotated[float, Gt(0)] = 0.1
    steps: Annotated[int, Ge(1)] = 12

    def predict(self, known: Tensor, score: Tensor, asked: Tensor) -> Tensor:
        # In coordinates of the context's span, of which there are no more than prompts in it.
        centre = known.mean(0)
        _, size, basis = torch.linalg.svd(known - centre, full_matrices=False)
        basis = basis[size > 1e-9 * size.max().clamp(min=1e-30)]
        rows = torch.cat([(known - centre) @ basis.T, torch.ones_like(score)[:, None]], 1)
        ridge = torch.full((rows.shape[1],), self.penalty, dtype=rows.dtype)
        ridge[-1] = 1e-6
        weight = torch.zeros(rows.shape[1], dtype=rows.dtype)
        for _ in range(self.steps):
            rate = torch.sigmoid(rows @ weight)
            slope = rows.T @ (rate - score) + ridge * weight
            curvature = (rows * (rate * (1 - rate)).clamp(min=1e-6)[:, None]).T @ rows + ridge.diag()
            weight = weight - torch.linalg.solve(curvature, slope)
        return torch.sigmoid((asked - centre) @ basis.T @ weight[:-1] + weight[-1])


@dataclass(frozen=True)
class InContext(Predictor):
    """A small attention model that reads the context and a prompt (:class:`stratagem.prompt_values.ContextValue`).

    It was trained on made-up policies and prompts before (:func:`stratagem.prompt_values.made_up`), which takes seconds
    when it is first used and follows from ``seed``; it never sees the policy. Features are projected at random on
    ``width`` numbers, so that it reads prompts of any kind.

    This stands in for a frozen tabular foundation model (TabPFN 2.5) behind a trained adapter, which is not installed
    here: a reconstruction, not the paper's model.
    """

    width: Annotated[int, Ge(1)] = 16
    steps: Annotated[int, Ge(0)] = 300
    rank_share: Annotated[float, Ge(0)] = 0.25
    seed: int = 0

    def predict(self, known: Tensor, score: Tensor, asked: Tensor) -> Tensor:
        model = _trained(self.width, self.steps, self.rank_share, self.seed)
        source = torch.Generator().manual_seed(self.seed)
        project = torch.randn(known.shape[1], self.width, dtype=known.dtype, generator=source)
        both = torch.cat([known, asked]) @ project
        # In the made-up contexts features have mean 0 and variance 1.
        both = (both - both[: len(known)].mean(0)) / both[: len(known)].std(0, correction=0).clamp(min=1e-6)
        context, query = both.float().split([len(known), len(asked)])
        with torch.no_grad():
            said = model(context[None], score.float()[None], query[None])[0]
        return torch.sigmoid(said).double()


@lru_cache(maxsize=4)
def _trained(width: int, steps: int, rank_share: float, seed: int) -> torch.nn.Module:
    from stratagem.prompt_values import ContextValue, made_up, train  # which nobody else needs

    model = ContextValue(width, seed=seed)
    train(model, made_up(width, seed), steps, rank_share=rank_share)
    return model.eval()


def _ngrams(text: str, width: int) -> Tensor:
    """How often runs of three characters occur, the ends of the text included."""
    framed = f"^{text}$"
    runs = [zlib.crc32(framed[place : place + 3].encode()) % width for place in range(max(1, len(framed) - 2))]
    return torch.bincount(torch.tensor(runs), minlength=width).double()


def _function(encoder: str) -> Encoder:
    module, _, name = encoder.removeprefix("python:").partition(":")
    try:
        found: Encoder = getattr(importlib.import_module(module), name)
    except (ImportError, ValueError, AttributeError) as error:
        raise InputError(f"features by {encoder}: cannot be loaded: {error}") from None
    return found
