"""The best allocation there is, by mixed-integer programming."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from stratagem.allocation.instances import NOBODY, Allocation, Instances
from stratagem.errors import BrokenRunError


class Optimum(NamedTuple):
    """value: of the allocation.  bound: which no allocation exceeds; equal to ``value`` up to the gap asked for."""

    allocation: Allocation
    value: Float64[Tensor, " n"]
    bound: Float64[Tensor, " n"]


def optimum(instances: Instances, gap: float = 0.0, seconds: float = 60.0) -> Optimum:
    """Maximise ``sum_k b_k y_k - sum_ik c_i x_ik`` over binary ``x`` and ``y``, instance by instance.

    Subject to ``sum_i C_i x_ik >= D_k y_k`` in every kind and ``sum_k x_ik <= 1``. Solved by HiGHS.

    gap: relative difference to the bound that is good enough.  seconds: for each instance; then the best so far.
    Raises :class:`BrokenRunError` when the solver found nothing in that time.
    """
    solved = [_solved(instances, row, gap, seconds) for row in range(len(instances))]
    allocation = torch.tensor(np.stack([columns for columns, _ in solved]))
    value = instances.total(allocation)
    bound = torch.tensor([limit for _, limit in solved], dtype=torch.float64)
    return Optimum(allocation, value, torch.maximum(value, bound))


def _solved(instances: Instances, row: int, gap: float, seconds: float) -> tuple[np.ndarray, float]:
    """The task of every entity, and the bound."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import block_diag, coo_array, hstack, kron

    tasks, entities = (mask[row].nonzero().flatten().numpy() for mask in (instances.open, instances.free))
    chosen = np.full(instances.entities, NOBODY)
    value, demand = instances.value[row].numpy()[tasks], instances.demand[row].numpy()[tasks]
    if not len(tasks) or not len(entities):
        return chosen, float(value[(demand <= 0).all(-1)].sum())
    cost, capacity = instances.cost[row].numpy()[entities], instances.capacity[row].numpy()[entities]
    # Unknowns: x of the first task by entity, of the second, ..., then y by task.
    given = block_diag([capacity.T] * len(tasks))
    needed = block_diag([-column[:, None] for column in demand])
    once = hstack([kron(np.ones((1, len(tasks))), np.eye(len(entities))), coo_array((len(entities), len(tasks)))])
    said = milp(
        np.concatenate([np.tile(cost, len(tasks)), -value]),
        integrality=np.ones(len(tasks) * (len(entities) + 1)),
        bounds=Bounds(0, 1),
        constraints=[LinearConstraint(hstack([given, needed]), 0, np.inf), LinearConstraint(once, -np.inf, 1)],
        options={"mip_rel_gap": gap, "time_limit": seconds},
    )
    if said.x is None:
        raise BrokenRunError(f"allocation: no solution of an instance within {seconds:g} s ({said.message})")
    works = said.x[: -len(tasks)].reshape(len(tasks), len(entities)) > 0.5
    chosen[entities] = np.where(works.any(0), tasks[works.argmax(0)], NOBODY)
    return chosen, float(-said.mip_dual_bound)
