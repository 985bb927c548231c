"""Values of policies at prompts, read off a context of scores: the model, its loss, routing, and how good it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from stratagem.errors import InputError
from stratagem.seeding import generator


class QueryAdapter(nn.Module):
    """Features of a prompt by ``queries`` learned questions to its token states, each changed a little by the prompt.

    ``Q = Q_static + G(h)``, ``G = Linear - LayerNorm - GELU - Dropout - Linear`` with a last layer of zeros, so that at
    first all prompts are asked the same; ``K = V = Linear(token states)``; LayerNorm on Q and K; attention in
    ``heads`` parts; the answers laid side by side are ``queries * size`` features. Sizes are those reported of arXiv
    2602.03584's code.

    width: of the token states, which come from a frozen text encoder.
    """

    def __init__(
        self, width: int = 1024, queries: int = 168, size: int = 6, heads: int = 3, hidden: int = 128, seed: int = 0
    ) -> None:
        super().__init__()
        if size % heads:
            raise InputError(f"query adapter: size = {size}: must be a multiple of heads = {heads}")
        self.queries, self.size, self.heads = queries, size, heads
        source = generator(seed, "query adapter")
        self.static = nn.Parameter(torch.randn(queries, size, generator=source) / size**0.5)
        first, last = nn.Linear(width, hidden), nn.Linear(hidden, queries * size)
        self.change = nn.Sequential(first, nn.LayerNorm(hidden), nn.GELU(), nn.Dropout(0.2), last)
        self.read = nn.Linear(width, size)
        self.norm_query, self.norm_key = nn.LayerNorm(size), nn.LayerNorm(size)
        with torch.no_grad():
            for layer in (first, self.read):
                layer.weight.copy_(torch.randn(layer.weight.shape, generator=source) / width**0.5)
                layer.bias.zero_()
            last.weight.zero_()
            last.bias.zero_()

    def forward(
        self, states: Float[Tensor, "prompts tokens width"], mask: Bool[Tensor, "prompts tokens"] | None = None
    ) -> Float[Tensor, "prompts features"]:
        """Features of prompts; ``mask``: True for the tokens there are. Raises ``ValueError`` for NaN."""
        there = torch.ones(states.shape[:2], dtype=torch.bool, device=states.device) if mask is None else mask
        states = states.where(there[..., None], 0.0)
        if not bool(states.isfinite().all()):
            raise ValueError("query adapter: token states must be finite")
        pooled = states.sum(1) / there.sum(1, keepdim=True).clamp(min=1)
        asked = self.static + self.change(pooled).view(-1, self.queries, self.size)
        held = self.read(states)
        query, key, value = (self._split(rows) for rows in (self.norm_query(asked), self.norm_key(held), held))
        said = functional.scaled_dot_product_attention(query, key, value, attn_mask=there[:, None, None, :])
        return said.transpose(1, 2).reshape(len(states), -1)

    def _split(self, rows: Tensor) -> Tensor:
        return rows.view(*rows.shape[:2], self.heads, -1).transpose(1, 2)


class ContextValue(nn.Module):
    """``s(x, C)``, the logit of success on a prompt, from features and scores; prompts do not see each other.

    A prompt attends to the context twice: by softmax, to scores of prompts like it, and linearly, by
    ``<W x, W' sum_i (r_i - r) x_i / sqrt(n)>`` in each head, which is a step of a linear regression. What it finds, its
    own features and the mean score ``r`` are read by two layers. It is of our own design, in the place of the paper's
    tabular classifier.

    width: of the features.  size, heads: of both kinds of attention.
    """

    def __init__(self, width: int, size: int = 32, heads: int = 4, seed: int = 0) -> None:
        super().__init__()
        self.heads = heads
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.ask, self.key, self.lift, self.fall = (nn.Linear(width, size, bias=False) for _ in range(4))
            self.out = nn.Sequential(nn.Linear(width + 2 * heads + 1, size), nn.GELU(), nn.Linear(size, 1))

    def forward(
        self,
        known: Float[Tensor, "contexts prompts width"],
        score: Float[Tensor, "contexts prompts"],
        asked: Float[Tensor, "contexts asked width"],
    ) -> Float[Tensor, "contexts asked"]:
        mean = score.mean(1, keepdim=True)
        apart = score - mean
        weight = torch.einsum("cqhe,cphe->chqp", self._split(self.ask(asked)), self._split(self.key(known)))
        alike = torch.einsum("chqp,cp->cqh", weight.softmax(-1), apart)
        moment = torch.einsum("cp,cpw->cw", apart, known) / apart.shape[1] ** 0.5
        linear = torch.einsum(
            "cqhe,che->cqh", self._split(self.lift(asked)), self._split(self.fall(moment)[:, None])[:, 0]
        )
        level = mean[..., None].expand(-1, asked.shape[1], -1)
        value: Tensor = self.out(torch.cat([asked, alike, linear, level], -1)).squeeze(-1)
        return value + linear.sum(-1)

    def _split(self, rows: Tensor) -> Tensor:
        return rows.view(*rows.shape[:2], self.heads, -1)


# ---- learning --------------------------------------------------------------------------------------------------------


class Contexts(NamedTuple):
    """Contexts side by side: features and scores in [0, 1] of prompts, and of those that are asked for."""

    known: Float[Tensor, "contexts prompts width"]
    score: Float[Tensor, "contexts prompts"]
    asked: Float[Tensor, "contexts asked width"]
    truth: Float[Tensor, "contexts asked"]


def rank_loss(said: Float[Tensor, "contexts asked"], truth: Float[Tensor, "contexts asked"]) -> Float[Tensor, ""]:
    """``-mean log sigmoid(s(x+) - s(x-))`` over pairs of a solved and an unsolved prompt of one context; 0 without any.

    What is added to all logits of a context does not change it, so it cannot be met by the context's mean.
    """
    solved = truth >= 0.5
    pairs = solved[:, :, None] & ~solved[:, None, :]
    apart = functional.logsigmoid(said[:, :, None] - said[:, None, :])
    return -(apart * pairs).sum() / pairs.sum().clamp(min=1)


def value_loss(
    said: Float[Tensor, "contexts asked"], truth: Float[Tensor, "contexts asked"], rank_share: float = 0.25
) -> Float[Tensor, ""]:
    """``a L_rank + (1 - a) L_CE`` with soft targets."""
    cross = functional.binary_cross_entropy_with_logits(said, truth)
    return rank_share * rank_loss(said, truth) + (1 - rank_share) * cross


def train(
    model: nn.Module,
    draw: Callable[[int], Contexts],
    steps: int,
    learning_rate: float = 3e-3,
    rank_share: float = 0.25,
) -> list[float]:
    """Adam on :func:`value_loss`, each step on contexts ``draw(step)``, with a cosine to 0; losses of the steps."""
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
    losses = []
    with torch.enable_grad():
        for step in range(steps):
            drawn = draw(step)
            loss = value_loss(model(drawn.known, drawn.score, drawn.asked), drawn.truth, rank_share)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
    return losses


def made_up(width: int, seed: int, contexts: int = 32, prompts: int = 48, asked: int = 16) -> Callable[[int], Contexts]:
    """Contexts of policies and prompts that do not exist: ``P(success) = sigmoid(2 <ability, x> + level)``.

    Features are normal, and so are the abilities of each policy, of length 1, and its level, of deviation 1.
    """

    def draw(step: int) -> Contexts:
        source = generator(seed, "made up", step)
        x = torch.randn(contexts, prompts + asked, width, generator=source)
        ability = functional.normalize(torch.randn(contexts, width, 1, generator=source), dim=1)
        level = torch.randn(contexts, 1, generator=source)
        rate = torch.sigmoid(2 * (x @ ability).squeeze(-1) + level)
        score = torch.bernoulli(rate, generator=source)
        return Contexts(x[:, :prompts], score[:, :prompts], x[:, prompts:], score[:, prompts:])

    return draw


# ---- using it --------------------------------------------------------------------------------------------------------


def routed_score(
    score: Float[Tensor, "*rows"], cost: Float[Tensor, "*rows"], weight: float = 1.0
) -> Float[Tensor, "*rows"]:
    """``beta r + (1 - beta) (1 - c)``: what an answer is worth at its cost, both in [0, 1].

    Contexts hold it in the place of the score; whoever has the highest value at a prompt answers it (:func:`route`).
    """
    if not 0 <= weight <= 1:
        raise InputError(f"routed_score: weight = {weight}: must lie in [0, 1]")
    if not bool(((cost >= 0) & (cost <= 1)).all()):
        raise InputError("routed_score: costs must lie in [0, 1]")
    return weight * score + (1 - weight) * (1 - cost)


def route(value: Float[Tensor, "models prompts"]) -> Int[Tensor, " prompts"]:
    """The model of the highest value at each prompt, the first of equals."""
    return value.argmax(0)


def within_auc(said: Float[Tensor, " rows"], truth: Float[Tensor, " rows"], context: Int[Tensor, " rows"]) -> float:
    """Chance that of a solved and an unsolved prompt of one context the solved one is said to be likelier.

    Ties count half; mean over the contexts that have both. NaN when there is none. A predictor that knows only how good
    the policy is has 0.5.
    """
    found = []
    for one in context.unique():
        here = context == one
        right, wrong = said[here & (truth >= 0.5)], said[here & (truth < 0.5)]
        if len(right) and len(wrong):
            apart = right[:, None] - wrong[None, :]
            found.append(float(((apart > 0).double() + 0.5 * (apart == 0).double()).mean()))
    return sum(found) / len(found) if found else float("nan")


def residual_correlations(
    said: Float[Tensor, " rows"],
    truth: Float[Tensor, " rows"],
    context: Int[Tensor, " rows"],
    prompt: Int[Tensor, " rows"],
) -> tuple[float, float]:
    """Spearman correlation of ``said - truth`` with the context's mean score, and with the prompt's over the contexts.

    Both are 0 when nothing that these two tell is left in the error.
    """
    error = said.double() - truth.double()
    return tuple(_spearman(error, _means(truth.double(), by)) for by in (context, prompt))  # type: ignore[return-value]


def _means(values: Tensor, by: Tensor) -> Tensor:
    _, label = by.unique(return_inverse=True)
    means: Tensor = torch.bincount(label, values) / torch.bincount(label)
    return means[label]


def _spearman(first: Tensor, second: Tensor) -> float:
    ranks = torch.stack([_ranked(first), _ranked(second)])
    ranks = ranks - ranks.mean(1, keepdim=True)
    size = ranks.norm(dim=1)
    return float((ranks[0] @ ranks[1]) / (size[0] * size[1])) if bool((size > 0).all()) else 0.0


def _ranked(values: Tensor) -> Tensor:
    """Ranks, equal values at the mean of theirs."""
    _, label, count = values.unique(return_inverse=True, return_counts=True)
    middle: Tensor = count.cumsum(0) - (count - 1) / 2
    return middle[label].double()
