"""Policies projected on what is allowed, and actions on convex sets."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from stratagem.blueprint import Ball, Box, Polytope, project
from stratagem.blueprint.projection import drawn, entropy
from stratagem.errors import InputError

PI = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)


def kl(p: torch.Tensor, q: torch.Tensor) -> float:
    return float(sum(a * math.log(a / b) for a, b in zip(p.tolist(), q.tolist(), strict=True) if a > 0))


# ---- categorical ----------------------------------------------------------------------------------------------------


def test_the_projection_keeps_the_odds_of_what_is_allowed():
    found = project(PI.log(), torch.tensor([False, True, True]))
    assert found.logp.exp().tolist() == pytest.approx([0.0, 0.6, 0.4])
    assert float(found.divergence) == pytest.approx(0.693147, abs=1e-6)
    assert kl(found.logp.exp(), PI) == pytest.approx(float(found.divergence))
    assert float(found.logp[0]) == -math.inf


def test_another_distribution_on_what_is_allowed_is_further_away():
    assert kl(torch.tensor([0.0, 0.5, 0.5]), PI) == pytest.approx(0.713558, abs=1e-6)


@given(st.floats(0.01, 0.99))
def test_no_distribution_on_what_is_allowed_is_nearer(share: float):
    found = project(PI.log(), torch.tensor([False, True, True]))
    assert kl(torch.tensor([0.0, share, 1 - share], dtype=torch.float64), PI) >= float(found.divergence) - 1e-12


def test_where_all_is_allowed_nothing_changes():
    found = project(PI.log(), torch.ones(3, dtype=torch.bool))
    assert found.logp.exp().tolist() == pytest.approx(PI.tolist())
    assert float(found.divergence) == pytest.approx(0.0, abs=1e-12)


def test_the_only_allowed_action_is_certain():
    found = project(torch.tensor([50.0, 0.0, -50.0]), torch.tensor([False, False, True]))
    assert found.logp.exp().tolist() == [0.0, 0.0, 1.0]


def test_nothing_allowed_is_empty_and_nothing_can_be_drawn_of_it():
    found = project(torch.stack([PI.log(), PI.log()]), torch.tensor([[False] * 3, [True, False, False]]))
    assert found.empty.tolist() == [True, False]
    assert found.logp[0].tolist() == [-math.inf] * 3 and float(found.mass[0]) == 0.0
    with pytest.raises(ValueError, match="nothing to draw"):
        drawn(found.logp[0].tolist(), 0.5)


def test_an_allowed_action_that_the_policy_never_takes_leaves_the_set_empty():
    found = project(torch.tensor([0.0, -math.inf]), torch.tensor([False, True]))
    assert bool(found.empty)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_that_are_no_policy_are_refused(bad: float):
    with pytest.raises(InputError, match=r"NaN or \+inf"):
        project(torch.tensor([bad, 0.0]), torch.tensor([True, True]))


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(InputError, match="differ in shape"):
        project(PI.log(), torch.tensor([True]))


def test_rejection_gives_the_same_distribution_but_one_try_fails_as_often_as_mass_is_missing():
    found = project(PI.log(), torch.tensor([False, True, True]))
    draws = [drawn(PI.log().tolist(), (n + 0.5) / 1000) for n in range(1000)]
    kept = [place for place in draws if place != 0]
    assert 1 - len(kept) / len(draws) == pytest.approx(1 - float(found.mass)) == 0.5
    assert kept.count(1) / len(kept) == pytest.approx(float(found.logp[1].exp()))


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=6), st.floats(0, 1, exclude_max=True), st.data())
def test_what_is_drawn_is_always_allowed(logits: list[float], uniform: float, data: st.DataObject):
    allowed = data.draw(st.lists(st.booleans(), min_size=len(logits), max_size=len(logits)).filter(any))
    found = project(torch.tensor(logits, dtype=torch.float64), torch.tensor(allowed))
    assert allowed[drawn(found.logp.tolist(), uniform)]


def test_gradients_of_a_projected_policy_are_finite_and_zero_where_nothing_is_allowed():
    logits = torch.tensor([0.3, -0.2, 0.9], dtype=torch.float64, requires_grad=True)
    logp = project(logits, torch.tensor([True, False, True])).logp
    (logp[0] + entropy(logp)).backward()
    assert logits.grad is not None and bool(logits.grad.isfinite().all())
    assert float(logits.grad[1]) == 0.0 and abs(float(logits.grad[0])) > 0.01


# ---- continuous -----------------------------------------------------------------------------------------------------


def test_a_box_clips():
    assert Box(low=(-1, 0), high=(1, 2)).project([3, -4]).tolist() == [1, 0]


def test_a_ball_moves_along_the_ray_from_its_center():
    assert Ball(center=(1, 1), radius=5).project([7, 9]).tolist() == pytest.approx([4, 5])


def test_a_half_space_moves_along_its_normal():
    assert Polytope(normals=((1, 1),), offsets=(1,)).project([1, 2]).tolist() == pytest.approx([0, 1])


def test_a_polytope_finds_edges_and_corners():
    triangle = Polytope(normals=((-1, 0), (0, -1), (1, 1)), offsets=(0, 0, 1))
    assert triangle.project([1, 1]).tolist() == pytest.approx([0.5, 0.5])
    assert triangle.project([3, -1]).tolist() == pytest.approx([1, 0])
    assert triangle.project([-1, -1]).tolist() == pytest.approx([0, 0], abs=1e-12)
    assert triangle.project([0.2, 0.3]).tolist() == [0.2, 0.3]


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=2))
def test_a_projection_is_in_the_set_and_nearer_than_other_points_of_it(point: list[float]):
    triangle = Polytope(normals=((-1, 0), (0, -1), (1, 1)), offsets=(0, 0, 1))
    nearest = triangle.project(point)
    inside = np.asarray(triangle.normals) @ nearest - np.asarray(triangle.offsets)
    assert inside.max() <= 1e-8
    for other in ([0, 0], [1, 0], [0, 1], [0.3, 0.3]):
        # the obtuse-angle property, which only the projection has
        assert (np.asarray(point) - nearest) @ (np.asarray(other) - nearest) <= 1e-5


@pytest.mark.parametrize("point", [[1.0], [1.0, math.nan], [1.0, math.inf]])
def test_a_point_that_is_none_is_refused(point: list[float]):
    with pytest.raises(InputError, match="must be 2 finite numbers"):
        Ball(center=(0, 0), radius=1).project(point)


@pytest.mark.parametrize(
    ("build", "why"),
    [
        (lambda: Box(low=(1,), high=(0,)), "none of low above"),
        (lambda: Box(low=(1, 2), high=(3,)), "as many numbers"),
        (lambda: Ball(center=(0,), radius=0), "greater than 0"),
        (lambda: Ball(center=(math.nan,), radius=1), "finite"),
        (lambda: Polytope(normals=((1, 0), (1,)), offsets=(1, 1)), "all of one length"),
        (lambda: Polytope(normals=((0, 0),), offsets=(1,)), "zero"),
        (lambda: Polytope(normals=((1,), (-1,)), offsets=(0, -1)), "no point"),
    ],
)
def test_a_set_that_is_none_is_refused(build, why: str):
    with pytest.raises(ValidationError, match=why):
        build()
