"""The parts of a structured turn, by the numbers with which an experience labels its tokens."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from stratagem.experience import Experience


class Span(IntEnum):
    """What a token of a turn belongs to: the action, the sub-goal, the switch to a new one, a thought, or nothing."""

    NONE = -1
    ACTION = 0
    SUBGOAL = 1
    SWITCH = 2
    THINK = 3


class SpanRuns(NamedTuple):
    """Neighbouring tokens of one span of one turn, in order.

    first: token with which the run begins.  size: how many tokens it has.  span, turn: which it is of.
    """

    first: Int[Tensor, " runs"]
    size: Int[Tensor, " runs"]
    span: Int[Tensor, " runs"]
    turn: Int[Tensor, " runs"]


def span_runs(x: Experience) -> SpanRuns:
    """The runs that all tokens of a batch form. Raises ``ValueError`` when the batch has no ``span``."""
    span, turn = x.span, x.turn_of_token
    if span is None:
        raise ValueError("spans of turns need x.span")

    def runs() -> Tensor:
        begins = torch.ones(x.tokens, dtype=torch.bool, device=x.device)
        torch.ne(span[1:], span[:-1], out=begins[1:])
        begins[turn.first()] = True
        first = torch.nonzero(begins).squeeze(1)
        return torch.stack([first, first.diff(append=first.new_tensor([x.tokens])), span[first], turn.labels[first]])

    return SpanRuns(*x.remembered("span_runs", runs))


def span_starts(x: Experience) -> dict[Span, Int[Tensor, " turns"]]:
    """The first token of every turn's action, sub-goal and switch; -1 where a turn has none."""
    runs, starts = span_runs(x), {}
    for span in (Span.ACTION, Span.SUBGOAL, Span.SWITCH):
        own = runs.span == span
        first = torch.full((x.turns,), x.tokens, device=x.device)
        first.scatter_reduce_(0, runs.turn[own], runs.first[own], "amin")
        starts[span] = torch.where(first < x.tokens, first, -1)
    return starts
