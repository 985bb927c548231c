from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from stratagem.multiagent.dags import LearnedDag, assigned, fixed_dag, sinkhorn


def gumbel(rows: int, agents: int, seed: int = 0) -> torch.Tensor:
    drawn = np.random.default_rng(seed).gumbel(size=(rows, LearnedDag.noise_size(agents)))
    return torch.from_numpy(drawn.astype(np.float32))


@pytest.mark.parametrize("agents", [1, 2, 3, 5, 7])
def test_no_graph_has_a_cycle_and_parents_come_before(agents: int) -> None:
    dag = LearnedDag(agents, 2, hidden=8)
    rows = 1000 if agents < 7 else 50
    edges, order = dag(torch.randn(rows, 2 * agents, generator=torch.Generator().manual_seed(0)), gumbel(rows, agents))
    edges = edges.detach()
    power = torch.eye(agents).expand(rows, -1, -1)
    for _ in range(agents):
        power = power @ edges
        assert float(power.diagonal(dim1=1, dim2=2).abs().sum()) == 0
    place = order.argsort(1)
    parent, child = place.unsqueeze(2), place.unsqueeze(1)
    assert not bool((edges.bool() & (parent >= child)).any())
    assert sorted(set(edges.detach().flatten().tolist())) in ([0.0], [0.0, 1.0])
    if agents == 3:
        # Before it has learned anything every edge is open half of the time.
        assert abs(float(edges.sum(dim=(1, 2)).mean()) - 1.5) < 0.15


def test_graphs_follow_from_what_is_seen_and_the_noise() -> None:
    dag, seen = LearnedDag(3, 2), torch.randn(20, 6, generator=torch.Generator().manual_seed(1))
    one, same, other = (dag(seen, gumbel(20, 3, seed))[0] for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_gradients_reach_order_and_edges_through_the_hard_draws() -> None:
    dag = LearnedDag(3, 2, hidden=8)
    edges, _ = dag(torch.ones(10, 6), gumbel(10, 3))
    (edges * torch.arange(9.0).view(3, 3)).sum().backward()
    for network in (dag.order_logits, dag.edge_logits):
        assert float(network[-1].bias.grad.abs().sum()) > 0


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 9999), st.integers(1, 6))
def test_the_assignment_is_the_best_one(seed: int, n: int) -> None:
    scores = torch.randn(4, n, n, generator=torch.Generator().manual_seed(seed))
    for mine, one in zip(assigned(scores), scores, strict=True):
        rows, columns = linear_sum_assignment(one.numpy(), maximize=True)
        assert sorted(mine.tolist()) == list(range(n))
        assert float(one[range(n), mine].sum()) == pytest.approx(float(one[rows, columns].sum()), abs=1e-5)


def test_ties_are_broken_by_order() -> None:
    assert assigned(torch.zeros(2, 4, 4)).tolist() == [[0, 1, 2, 3]] * 2


def test_sinkhorn_makes_rows_and_columns_add_up_to_one() -> None:
    soft = sinkhorn(torch.randn(5, 4, 4, generator=torch.Generator().manual_seed(0)))
    assert torch.allclose(soft.sum(1), torch.ones(5, 4), atol=1e-5) and torch.allclose(
        soft.sum(2), torch.ones(5, 4), atol=1e-2
    )


def test_fixed_graphs_are_what_they_are_called() -> None:
    assert fixed_dag("full", 3).tolist() == [[0, 1, 1], [0, 0, 1], [0, 0, 0]]
    assert fixed_dag("line", 3).tolist() == [[0, 1, 0], [0, 0, 1], [0, 0, 0]]
    assert fixed_dag("none", 3).tolist() == [[0] * 3] * 3
    assert fixed_dag("full", 1).tolist() == [[0]] and math.prod(fixed_dag("line", 2).shape) == 4
