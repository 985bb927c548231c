"""A call begun before it is decided on: kept when the decision was foreseen, thrown away when it was not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

D = TypeVar("D")
R = TypeVar("R")


@dataclass(frozen=True)
class Speculated(Generic[D, R]):
    """The decision and what came of it.  hit: whether it had been foreseen; None: nothing was begun early."""

    decision: D
    result: R
    hit: bool | None


async def speculate(decide: Awaitable[D], predicted: D | None, call: Callable[[D], Awaitable[R]]) -> Speculated[D, R]:
    """Await ``decide``, and ``call`` with what it decides, which with a right prediction is under way by then.

    With a prediction right with probability ``p``, the expected time is ``p max(t_decide, t_call) + (1 - p) (t_decide +
    t_call)``: ``t_decide + (1 - p) t_call`` where the call is not the longer of the two. Whoever predicts vouches that
    the call has no side effects: it is cancelled when it was wrong, or when the decision fails, and nobody waits for
    that.
    """
    if predicted is None:
        decision = await decide
        return Speculated(decision, await call(decision), None)
    early: asyncio.Future[R] = asyncio.ensure_future(call(predicted))
    kept = False
    try:
        decision = await decide
        kept = decision == predicted
        if kept:
            return Speculated(decision, await early, True)
    finally:
        if not kept:
            early.cancel()
            early.add_done_callback(lambda future: future.cancelled() or future.exception())
    return Speculated(decision, await call(decision), False)
