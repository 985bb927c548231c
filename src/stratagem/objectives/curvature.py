"""Which tokens to learn from, by how far a model of the last layer says the next step would carry them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
from annotated_types import Ge, Gt, Lt
from jaxtyping import Bool, Float
from torch import Tensor

from stratagem.distribution import variance
from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.objectives.budgets import needs_whole_units
from stratagem.part import Part
from stratagem.parts import Correction

CHUNK = 2**24
"""Numbers in the largest table made at once while looking ahead: tokens times vocabulary rows times width."""


class Move(NamedTuple):
    """How the logits at a token move by a step on it alone, for every unit of learning rate.

    along: ``v . u``, the move ``u`` along the score ``v = onehot(a) - pi``.  variance: ``u^T F u``, of ``u`` under
    ``pi``.
    """

    along: Float[Tensor, " tokens"]
    variance: Float[Tensor, " tokens"]


@dataclass(frozen=True)
class StepModel(Part):
    """What an optimizer would do to the output layer ``W`` (logits ``W h``) if a token were all it learned from."""

    kind: ClassVar[str] = "step_model"

    def __call__(self, out: PolicyOutput, x: Experience) -> Move:
        """The move of every token's logits; remembers nothing."""
        raise NotImplementedError

    def accept(self, out: PolicyOutput, x: Experience, kept: Bool[Tensor, " tokens"]) -> None:
        """The coming step is on these tokens."""


@dataclass(frozen=True)
class GradientStep(StepModel):
    """Gradient descent: ``u = A |h|^2 v``, so ``v . u = A |h|^2 |v|^2`` and ``u^T F u = A^2 |h|^4 v^T F v``.

    vocabulary: ``all`` tokens count, or ``top``, the action and the 50 likeliest others, as in the code released with
    arXiv 2510.00819. The restriction saves memory there; nothing is saved here.
    """

    vocabulary: Literal["all", "top"] = "all"

    def needs(self) -> frozenset[str]:
        of_score = {"output.score_square", "output.score_variance"} if self.vocabulary == "all" else _TOP
        return frozenset({"output.hidden_square", *of_score})

    def __call__(self, out: PolicyOutput, x: Experience) -> Move:
        square, spread = out.score_square, out.score_variance
        if self.vocabulary == "top" and out.top_probability is not None:
            v = _top_score(out.top_probability)
            square, spread = v.square().sum(1), variance(out.top_probability, v)
        if out.hidden_square is None or square is None or spread is None or x.advantage is None:
            raise ValueError(f"gradient_step reads {', '.join(sorted(self.needs()))} and x.advantage")
        scale = x.advantage * out.hidden_square
        return Move(scale * square, scale.square() * spread)


@dataclass(frozen=True)
class AdamStep(StepModel):
    """Adam: ``u = G h`` with ``G = m' / (sqrt(s') + eps)``, its moments after one step more on ``g = A v h^T`` alone.

    ``m' = (b1 m + (1 - b1) g) / (1 - b1^(t+1))`` and ``s' = (b2 s + (1 - b2) g^2) / (1 - b2^(t+1))``, on the rows of
    ``W`` of the action and the 50 likeliest other tokens, float32. Before the first step there are no moments and
    ``G = g``. Looking ahead changes nothing; when the optimizer has taken its step, the moments take in the mean
    gradient of the tokens it was on. They are the part's memory: two tables as large as the output layer (its rows up
    to the largest id seen), and a third while a batch is gathered. A token costs time in proportion to 51 times the
    width. With ``A = 0`` the momentum still moves the logits.

    The code released with arXiv 2510.00819 lets the moments of a row that a batch does not touch stand; here they
    decay, as Adam's do.

    beta1, beta2, eps: as of the optimizer.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"output.hidden", "output.top_id", "output.top_probability"})

    beta1: Annotated[float, Ge(0), Lt(1)] = 0.9
    beta2: Annotated[float, Ge(0), Lt(1)] = 0.999
    eps: Annotated[float, Gt(0)] = 1e-8
    _first: Tensor = field(default_factory=lambda: torch.zeros(0, 0), init=False, repr=False, compare=False)
    _second: Tensor = field(default_factory=lambda: torch.zeros(0, 0), init=False, repr=False, compare=False)
    _steps: Tensor = field(default_factory=lambda: torch.zeros(()), init=False, repr=False, compare=False)
    _gathered: Tensor = field(default_factory=lambda: torch.zeros(0, 0), init=False, repr=False, compare=False)
    _tokens: Tensor = field(default_factory=lambda: torch.zeros(()), init=False, repr=False, compare=False)

    def memory(self) -> dict[str, Tensor]:
        return {"first": self._first, "second": self._second, "steps": self._steps}

    @torch.no_grad()
    def __call__(self, out: PolicyOutput, x: Experience) -> Move:
        ids, probability, hidden, advantage = self._read(out, x)
        v = _top_score(probability)
        if float(self._steps) == 0:
            u = (advantage * hidden.square().sum(1)).unsqueeze(1) * v
        else:
            rows = max(1, CHUNK // max(1, ids.shape[1] * hidden.shape[1]))
            pieces = zip(ids.split(rows), (advantage.unsqueeze(1) * v).split(rows), hidden.split(rows), strict=True)
            u = torch.cat([self._ahead(*piece) for piece in pieces])
        return Move((v * u).sum(1), variance(probability, u))

    @torch.no_grad()
    def accept(self, out: PolicyOutput, x: Experience, kept: Bool[Tensor, " tokens"]) -> None:
        ids, probability, hidden, advantage = self._read(out, x)
        if not bool(kept.any()):
            return
        ids, hidden = ids[kept], hidden[kept]
        by_logit = advantage[kept].unsqueeze(1) * _top_score(probability[kept])
        token = torch.arange(len(ids), device=ids.device).unsqueeze(1).expand_as(ids)
        rows = max(int(ids.max()) + 1, len(self._gathered))
        places = torch.stack([ids.flatten(), token.flatten()])
        sparse = torch.sparse_coo_tensor(places, by_logit.flatten(), (rows, len(ids)), check_invariants=False)
        self._gathered.data = _grown(self._gathered, rows, hidden) + torch.sparse.mm(sparse, hidden)
        self._tokens.add_(len(ids))

    @torch.no_grad()
    def after_step(self, taken: bool) -> None:
        if taken and float(self._tokens):
            rows = max(len(self._gathered), len(self._first))
            mean = _grown(self._gathered, rows, self._gathered) / float(self._tokens)
            for memory, new, decay in ((self._first, mean, self.beta1), (self._second, mean.square(), self.beta2)):
                memory.data = _grown(memory, rows, mean).lerp(new, 1 - decay)
            self._steps.add_(1)
        self._gathered.data = torch.zeros(0, 0)
        self._tokens.zero_()

    def _read(self, out: PolicyOutput, x: Experience) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        if out.top_id is None or out.top_probability is None or out.hidden is None or x.advantage is None:
            raise ValueError(f"adam_step reads {', '.join(sorted(self.needs()))} and x.advantage")
        return out.top_id, out.top_probability.float(), out.hidden.float(), x.advantage.float()

    def _ahead(self, ids: Tensor, by_logit: Tensor, hidden: Tensor) -> Float[Tensor, "tokens few"]:
        """``G h`` of each token for its rows."""
        after = float(self._steps) + 1
        gradient = by_logit.unsqueeze(2) * hidden.unsqueeze(1)
        first = _rows(self._first, ids).lerp_(gradient, 1 - self.beta1).div_(1 - self.beta1**after)
        second = _rows(self._second, ids).lerp_(gradient.square_(), 1 - self.beta2).div_(1 - self.beta2**after)
        moved: Tensor = first.div_(second.sqrt_().add_(self.eps)) @ hidden.unsqueeze(2)
        return moved.squeeze(2)


@dataclass(frozen=True)
class CurvatureMask(Correction):
    """``1[low <= m_H < gain] 1[m_F < shift]``: drops the tokens whose own step would carry the policy too far.

    With ``Move`` of the ``step`` model at the learning rate ``a`` of the step to come (arXiv 2510.00819; as in
    the released code):

    - ``m_H = a A (v . u) + a^2 / 2 A [(v . u)^2 - u^T F u]``, the rise of ``A pi(a) / pi_old(a)`` to second order;
    - ``m_F = a^2 / 2 (v . u)^2``, whose mean over actions drawn from ``pi`` is ``a^2 / 2 u^T F u``, the divergence of
      the policies before and after to second order.

    The advantage is that of the batch, and a token's gradient is its own, not divided by the size of the batch. Only
    the output layer is modelled; clipping of the gradient's norm and weight decay are not. Dropped tokens are counted
    by normalisers, so a batch of which half is dropped makes half the step; the paper's loss is over the tokens that
    are left, which under Adam hardly differs. Where no token is left, the trainer takes no step and counts it;
    Adam's moments then stay, so bounds that are too tight can drop every batch to come. A token whose figures are not
    finite is dropped; one whose log-probability is not makes the whole update not finite.

    step: the model.  gain, shift: bounds, at least 0; with 0 every token is dropped, ``inf`` is none.  low: None is
    ``-gain``, as released; 0 drops tokens whose step would go against the advantage.  unit: dropped as a whole, by the
    means over its tokens that may train. The paper's masks of sentences and batches are by the gradient of the whole;
    means are a reconstruction that needs no such gradient. Masks multiply: ``CurvatureMask() *
    CurvatureMask(unit="trajectory")``.

    Metrics: ``curvature/rejected``, ``curvature/not_finite`` (shares of tokens), ``curvature/objective_shift`` and
    ``curvature/policy_shift`` (means of ``m_H`` and ``m_F``, 0 where they are not finite).

    Raises :class:`InputError` for ``low`` above ``gain``, and for a micro-batch with ``unit = "batch"``.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"learning_rate"})

    step: StepModel = field(default_factory=AdamStep)
    gain: Annotated[float, Ge(0)] = 1e-2
    shift: Annotated[float, Ge(0)] = 1e-4
    low: float | None = None
    unit: Literal["token", "turn", "trajectory", "batch"] = "token"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low is not None and not self.low <= self.gain:
            raise InputError(f"curvature_mask.low = {self.low}: must be at most curvature_mask.gain = {self.gain}")

    def __call__(self, out: PolicyOutput, x: Experience) -> Float[Tensor, " tokens"]:
        return self.judge(out, x)[0]

    @torch.no_grad()
    def judge(
        self, out: PolicyOutput, x: Experience
    ) -> tuple[Float[Tensor, " tokens"], dict[str, Float[Tensor, " tokens"]]]:
        objective, policy = self.shifts(out, x)
        finite = objective.isfinite() & policy.isfinite()
        kept = self._kept(objective, policy, x)
        self.step.accept(out, x, kept & x.learnable())
        figures = {
            "rejected": ~kept,
            "not_finite": ~finite,
            "objective_shift": objective.where(finite, 0.0),
            "policy_shift": policy.where(finite, 0.0),
        }
        weight = kept.to(out.logp.dtype)
        return weight, {f"curvature/{name}": value.to(out.logp.dtype) for name, value in figures.items()}

    @torch.no_grad()
    def shifts(self, out: PolicyOutput, x: Experience) -> tuple[Float[Tensor, " tokens"], Float[Tensor, " tokens"]]:
        """``m_H`` and ``m_F`` of every token. Raises ``ValueError`` when the batch knows no learning rate."""
        if x.learning_rate is None or x.advantage is None:
            raise ValueError("curvature_mask needs x.learning_rate and x.advantage; recipe.prepare(x) sets them")
        rate, (along, spread) = x.learning_rate, self.step(out, x)
        policy = 0.5 * rate**2 * along.square()
        return x.advantage * (rate * along + policy - 0.5 * rate**2 * spread), policy

    def _kept(self, objective: Tensor, policy: Tensor, x: Experience) -> Bool[Tensor, " tokens"]:
        if self.unit != "token":
            needs_whole_units(self, x, self.unit)
            unit = x.level_of_token(self.unit)
            count = unit.sum(x.learnable()).clamp(min=1)
            objective, policy = (
                unit.spread((unit.sum(x.of_learnable(shift)) / count).to(shift.dtype)) for shift in (objective, policy)
            )
        low = -self.gain if self.low is None else self.low
        # A comparison with NaN is False, and one with a bound of infinity keeps what is -inf.
        return (objective >= low) & (objective < self.gain) & (policy < self.shift) & objective.isfinite()


_TOP = frozenset({"output.top_probability"})


def _top_score(probability: Float[Tensor, "tokens few"]) -> Float[Tensor, "tokens few"]:
    """``onehot(a) - pi``, the action in the first column."""
    v = -probability
    v[:, 0] = probability[:, 1:].sum(1)
    return v


def _rows(table: Float[Tensor, "rows width"], ids: Tensor) -> Float[Tensor, "tokens few width"]:
    """Rows of a table, 0 where it has none yet."""
    table = table.to(ids.device)
    return table[ids.clamp(max=len(table) - 1)] * (ids < len(table)).unsqueeze(2)


def _grown(table: Tensor, rows: int, like: Tensor) -> Float[Tensor, "rows width"]:
    """A copy of the table with zeros below, up to so many rows of the width of ``like``, where that is."""
    grown = like.new_zeros(rows, like.shape[1])
    if table.numel():
        grown[: len(table)] = table
    return grown
