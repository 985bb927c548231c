"""Losses of a policy with a latent code: its actions tell the code, and the code tells the task."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from stratagem.experience import Experience, Loss, PolicyOutput
from stratagem.objectives.aggregations import TokenMean
from stratagem.parts import Aggregation, Objective


def information_estimate(own: Float[Tensor, "*rows"], drawn: Float[Tensor, "*rows draws"]) -> Float[Tensor, "*rows"]:
    """``log(m pi(a | o, z)) - log sum_j pi(a | o, z^j)`` in nats, from log-probabilities.

    own: ``log pi(a | o, z)`` of an action drawn with the code ``z``.  drawn: the same action's with ``m`` codes drawn
    from the codes' distribution. Its mean estimates ``I(a; z | o)``. It is 0 where codes change nothing, at most
    ``log m`` where one of the ``m`` is ``z``, and it has no bound where none is (arXiv 2108.12988).
    """
    return math.log(drawn.shape[-1]) + own - torch.logsumexp(drawn, -1)


@dataclass(frozen=True)
class CodeInformation(Objective):
    """``-mean [log(m pi(a | o, z)) - log sum_j pi(a | o, z^j)]``: what an action says of its agent's latent code.

    The log-probabilities are the policy's ``code_logp``, which leads the gradient to what the code decides and to
    nothing else; how many codes are drawn is the policy's, too.

    Metrics: ``information``, the estimate (:func:`information_estimate`), in nats.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"output.code_logp"})
    tags: ClassVar[frozenset[str]] = frozenset()

    aggregation: Aggregation = TokenMean()

    def __call__(self, out: PolicyOutput, x: Experience) -> Loss:
        out, x = self.blanked(out, x)
        if out.code_logp is None:
            raise ValueError("the information of codes needs the policy's code_logp")
        loss = -self.aggregation(information_estimate(out.code_logp[:, 0], out.code_logp[:, 1:]), x)
        return Loss(loss, {"information": -loss.detach()})


@dataclass(frozen=True)
class TaskPrediction(Objective):
    """``-mean log p(task | o, z)``: the cross-entropy of guessing the game from what was seen and a latent code.

    The log-probabilities are the policy's ``task_logp``, 0 for a game it does not know.

    Metrics: ``task_loss``.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"output.task_logp"})
    tags: ClassVar[frozenset[str]] = frozenset()

    aggregation: Aggregation = TokenMean()

    def __call__(self, out: PolicyOutput, x: Experience) -> Loss:
        out, x = self.blanked(out, x)
        if out.task_logp is None:
            raise ValueError("predicting the task needs the policy's task_logp")
        loss = -self.aggregation(out.task_logp, x)
        return Loss(loss, {"task_loss": loss.detach()})
