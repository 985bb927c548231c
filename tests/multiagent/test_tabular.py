from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stratagem.errors import InputError
from stratagem.multiagent.dags import fixed_dag
from stratagem.multiagent.tabular import GraphPolicies, TeamModel

DOUBLE: Any = torch.float64


def matching() -> TeamModel:
    """One state, two agents, 1 for acting alike, and that is all (discount 0)."""
    return TeamModel(
        torch.ones(1, 4, 1, dtype=DOUBLE),
        torch.tensor([[1.0, 0, 0, 1]], dtype=DOUBLE),
        torch.ones(1, dtype=DOUBLE),
        2,
        2,
        0.0,
    )


def random_model(seed: int, agents: int = 3, states: int = 2, discount: float = 0.9) -> TeamModel:
    source = torch.Generator().manual_seed(seed)
    joint = 2**agents
    leads = torch.rand(states, joint, states, generator=source, dtype=DOUBLE)
    start = torch.rand(states, generator=source, dtype=DOUBLE)
    paid = torch.randn(states, joint, generator=source, dtype=DOUBLE)
    return TeamModel(leads / leads.sum(-1, keepdim=True), paid, start / start.sum(), agents, 2, discount)


def tables(policies: GraphPolicies, seed: int, batch: int = 3) -> list[torch.Tensor]:
    source = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, *shape, generator=source, dtype=DOUBLE) for shape in policies.shapes()]


def dag(seed: int, agents: int = 3) -> torch.Tensor:
    return (torch.rand(agents, agents, generator=torch.Generator().manual_seed(seed)) < 0.5).float().triu(1)


def test_an_edge_turns_a_stationary_point_into_a_slope() -> None:
    policies = GraphPolicies(matching(), fixed_dag("full", 2))
    uniform = [torch.zeros(1, *shape, dtype=DOUBLE) for shape in policies.shapes()]
    first, second = policies.gradient(uniform)
    assert first.abs().max() == 0
    assert second[0, 0, :2].tolist() == [[0.125, -0.125], [-0.125, 0.125]]
    alone = GraphPolicies(matching(), fixed_dag("none", 2))
    assert all(bool((g == 0).all()) for g in alone.gradient([torch.zeros(1, *s, dtype=DOUBLE) for s in alone.shapes()]))
    model, moved = matching(), [t + 0.1 * g for t, g in zip(uniform, (first, second), strict=True)]
    assert float(model.worth(policies.log_joint(moved).exp())) > 0.5


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 9999))
def test_the_gradient_is_that_of_finite_differences(seed: int) -> None:
    model = random_model(seed)
    policies = GraphPolicies(model, dag(seed))
    where = tables(policies, seed, batch=1)
    found = policies.gradient(where)
    source = torch.Generator().manual_seed(seed)
    for agent, table in enumerate(where):
        place = tuple(int(torch.randint(size, (), generator=source)) for size in table.shape)
        worths = []
        for step in (1e-5, -1e-5):
            moved = [t.clone() for t in where]
            moved[agent][place] += step
            worths.append(float(model.worth(policies.log_joint(moved).exp())))
        assert (worths[0] - worths[1]) / 2e-5 == pytest.approx(float(found[agent][place]), abs=1e-6)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 9999), st.floats(0, 1))
def test_joint_policies_are_distributions_whatever_the_graph(seed: int, dependence: float) -> None:
    policies = GraphPolicies(random_model(seed), dag(seed))
    where = tables(policies, seed)
    for policy in (policies.log_joint(where).exp(), policies.thinned(where, dependence)):
        assert torch.allclose(policy.sum(-1), torch.ones(3, 2, dtype=DOUBLE)) and bool((policy > 0).all())


def test_a_graph_without_edges_is_a_product_and_thinning_leads_from_one_to_the_other() -> None:
    model = random_model(0)
    policies = GraphPolicies(model, fixed_dag("full", 3))
    where = tables(policies, 1)
    alone = [torch.softmax(table[:, :, -1], -1) for table in where]
    product = torch.einsum("bsi,bsj,bsk->bsijk", *alone).reshape(3, 2, 8)
    assert torch.allclose(policies.thinned(where, 0.0), product)
    assert torch.allclose(policies.thinned(where, 1.0), policies.log_joint(where).exp())
    independent = GraphPolicies(model, fixed_dag("none", 3))
    assert torch.allclose(independent.log_joint([table[:, :, -1:] for table in where]).exp(), product)


def test_a_full_graph_represents_any_joint_distribution() -> None:
    model = random_model(0, states=1)
    policies = GraphPolicies(model, fixed_dag("full", 3))
    wanted = torch.rand(8, generator=torch.Generator().manual_seed(3), dtype=DOUBLE) + 0.01
    wanted = (wanted / wanted.sum()).view(2, 2, 2)
    where = [torch.zeros(1, *shape, dtype=DOUBLE) for shape in policies.shapes()]
    where[0][0, 0, 0] = wanted.sum((1, 2)).log()
    for first, second in itertools.product(range(2), repeat=2):
        where[1][0, 0, first] = wanted[first].sum(1).log()
        where[2][0, 0, first * 3 + second] = wanted[first, second].log()
    logp = policies.log_joint(where).view(2, 2, 2)
    assert float((wanted * (wanted.log() - logp)).sum()) < 1e-12


def test_the_best_deviation_is_that_of_trying_every_one() -> None:
    model = random_model(4, agents=2, states=2)
    for edges in ("none", "full"):
        policies = GraphPolicies(model, fixed_dag(edges, 2))  # type: ignore[arg-type]
        where = tables(policies, 2, batch=1)
        worth, best = float(model.worth(policies.log_joint(where).exp())), -1e9
        for agent, table in enumerate(where):
            rows = table.shape[1] * table.shape[2]
            for choice in itertools.product(range(2), repeat=rows):
                moved = list(where)
                moved[agent] = 1e4 * (torch.nn.functional.one_hot(torch.tensor(choice), 2).to(DOUBLE) - 1).view(
                    table.shape
                )
                best = max(best, float(model.worth(policies.log_joint(moved).exp())))
        assert float(policies.gap(where)) == pytest.approx(best - worth, abs=1e-8)


def test_nobody_gains_by_leaving_the_best_joint_policy() -> None:
    model = TeamModel.coordination(3)
    policies = GraphPolicies(model, fixed_dag("none", 3))
    zeros = [torch.tensor([0.0, -60.0], dtype=DOUBLE).expand(1, *shape) for shape in policies.shapes()]
    ones = [torch.tensor([-60.0, 0.0], dtype=DOUBLE).expand(1, *shape) for shape in policies.shapes()]
    assert float(model.worth(policies.log_joint(zeros).exp())) == pytest.approx(model.optimum(), rel=1e-9)
    assert float(policies.gap(zeros)) < 1e-6 and float(policies.gap(ones)) < 1e-6
    # All ones is an equilibrium, and worth less.
    assert float(model.worth(policies.log_joint(ones).exp())) < 0.9 * model.optimum()


def test_coordination_leads_where_actions_and_chance_do() -> None:
    model = TeamModel.coordination(2)
    assert torch.allclose(model.transition[0, 0], torch.tensor([0.81, 0.09, 0.09, 0.01], dtype=DOUBLE))
    assert torch.allclose(model.transition.sum(-1), torch.ones(4, 4, dtype=DOUBLE))
    assert model.reward[:, 0].tolist() == [3, 0, 0, 2]


def test_wrong_models_and_graphs_are_refused() -> None:
    with pytest.raises(InputError, match="from earlier to later"):
        GraphPolicies(matching(), torch.ones(2, 2))
    with pytest.raises(InputError, match="discount = 1"):
        TeamModel.coordination(2, discount=1.0)
