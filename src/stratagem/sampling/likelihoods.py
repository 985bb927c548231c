"""How a likelihood without a closed form is estimated: which tokens are hidden, and what each counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt, Lt
from jaxtyping import Bool, Float
from torch import Tensor

from stratagem.errors import InputError
from stratagem.part import Part

SIMPSON = ((0.1, 0.5, 1.0), (1 / 6, 4 / 6, 1 / 6))
"""Times and weights of a rule like Simpson's, its first time moved away from 0, where ``1 / t`` has no value."""


@dataclass(frozen=True, eq=False)
class Views:
    """Copies of every answer with some of its tokens hidden; each is one evaluation of the network.

    The estimate of ``log pi(y | q)`` is ``sum_v weight_v sum_{i in y, hidden in v} log pi(y_i | view v)``.

    hidden: positions the network does not see.  weight: of each view.
    """

    hidden: Bool[Tensor, "trajectories views positions"]
    weight: Float[Tensor, "trajectories views"]


@dataclass(frozen=True)
class Likelihood(Part):
    """Estimates the log-likelihood of an answer under a policy that denoises masked tokens."""

    kind: ClassVar[str] = "likelihood"

    @property
    def evaluations(self) -> int:
        """Evaluations of the network per answer: its views."""
        raise NotImplementedError

    def views(
        self,
        response: Bool[Tensor, "trajectories positions"],
        chance: Float[Tensor, "trajectories views positions"],
        clock: Float[Tensor, "trajectories views"],
    ) -> Views:
        """The views of answers whose tokens stand at ``response``.

        ``chance`` and ``clock`` are uniform in [0, 1) and all the randomness there is: equal ones give equal views.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class MaskedElbo(Likelihood):
    """``ELBO(y | q) = int_0^1 E[(1/t) sum_{i hidden} log pi(y_i | y_t, q)] dt <= log pi(y | q)``, by a rule in ``t``.

    At time ``t`` every token of the answer is hidden with probability ``t``. The estimate is
    ``sum_n w_n (1/K) sum_k (1/t_n) sum_{i hidden} log pi(y_i | y_{t_n, k}, q)``. Fixed times with random masks are the
    semi-deterministic Monte Carlo of GDPO (arXiv 2510.08554); random times are its baseline, double Monte Carlo.

    rule: ``gauss``, Gauss-Legendre nodes, exact for polynomials in ``t`` up to degree ``2 points - 1``; ``simpson``,
    times 0.1, 0.5 and 1 with weights 1/6, 4/6 and 1/6; ``random``, uniform times.
    points: times, ``N``.  samples: masks per time, ``K``; the network is evaluated ``N K`` times.
    masks: ``independent``, the definition: each token by itself, weighted ``1/t`` (a view that hides nothing counts 0).
    ``count``: as many tokens as ``t L`` says, at least one, weighted ``L / count``. ``count_by_time``: the same tokens
    weighted ``1/t``, as the implementation in NeMo RL does; where ``t L`` is no integer, the estimate is off by the
    factor ``sum_n w_n count_n / (t_n L)`` even for a model without context.
    rounding: of ``t L`` to a count. Since ``ELBO = mean over c = 1..L of E[(L/c) sum of log pi at c hidden tokens]``,
    rounding ``up`` is what makes counts of random times exactly unbiased. ``down`` is that implementation's.
    least_time: random times whose views are weighted ``1/t`` are not below it; with 0 the variance would be infinite.

    Raises :class:`InputError` for ``simpson`` with other than 3 points.
    """

    rule: Literal["gauss", "simpson", "random"] = "gauss"
    points: Annotated[int, Ge(1)] = 3
    samples: Annotated[int, Ge(1)] = 1
    masks: Literal["independent", "count", "count_by_time"] = "independent"
    rounding: Literal["up", "nearest", "down"] = "up"
    least_time: Annotated[float, Gt(0), Lt(1)] = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rule == "simpson" and self.points != 3:
            raise InputError(f"{self.part_name()}.points = {self.points}: the rule simpson has 3")

    @property
    def evaluations(self) -> int:
        return self.points * self.samples

    def quadrature(self) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]] | None:
        """Times and weights of a fixed rule, the weights adding up to 1; None for random times."""
        if self.rule == "random":
            return None
        if self.rule == "simpson":
            return np.array(SIMPSON[0]), np.array(SIMPSON[1])
        nodes, weights = np.polynomial.legendre.leggauss(self.points)
        return (nodes + 1) / 2, weights / 2

    def views(self, response: Tensor, chance: Tensor, clock: Tensor) -> Views:
        time, weight = self._schedule(clock.double())
        length = response.sum(-1, keepdim=True).double()
        if self.masks == "independent":
            hidden = response.unsqueeze(1) & (chance < time.unsqueeze(-1))
            return Views(hidden, (weight / time).to(chance.dtype))
        count = torch.minimum(self._rounded(time * length).clamp(min=1), length)
        order = chance.masked_fill(~response.unsqueeze(1), torch.inf).argsort(-1)
        hidden = (order.argsort(-1) < count.unsqueeze(-1)) & response.unsqueeze(1)
        scale = length / count.clamp(min=1) if self.masks == "count" else 1 / time
        return Views(hidden, (weight * scale).to(chance.dtype))

    def _schedule(self, clock: Tensor) -> tuple[Tensor, Tensor]:
        """Time and weight of every view; the views of one time are neighbours."""
        fixed = self.quadrature()
        if fixed is None:
            drawn = clock[:, :: self.samples].repeat_interleave(self.samples, 1)
            least = 0.0 if self.masks == "count" else self.least_time
            time = least + (1 - least) * drawn
            return time, torch.full_like(time, 1 / self.evaluations)
        times, weights = (torch.from_numpy(each).to(clock).repeat_interleave(self.samples) for each in fixed)
        return times.expand_as(clock), (weights / self.samples).expand_as(clock)

    def _rounded(self, expected: Tensor) -> Tensor:
        """What ought to be an integer may lie beside it by an error of rounding."""
        if self.rounding == "nearest":
            return (expected + 0.5 + 1e-9).floor()
        return (expected - 1e-9).ceil() if self.rounding == "up" else (expected + 1e-9).floor()


@dataclass(frozen=True)
class OneStep(Likelihood):
    """``sum_i log pi(y_i | the whole answer hidden, q')``: the mean-field likelihood of diffu-GRPO (arXiv 2504.12216).

    It is the integrand of the ELBO at ``t = 1``, and biased wherever tokens of an answer depend on one another.

    prompt: probability with which a token of the prompt is hidden, too (that paper's regularizer); at 0 the estimate is
    not random.  samples: views to average over, which differ in the prompt only.
    """

    prompt: Annotated[float, Ge(0), Lt(1)] = 0.15
    samples: Annotated[int, Ge(1)] = 1

    @property
    def evaluations(self) -> int:
        return self.samples

    def views(self, response: Tensor, chance: Tensor, clock: Tensor) -> Views:
        return Views(response.unsqueeze(1) | (chance < self.prompt), torch.full_like(clock, 1 / self.samples))
