"""Any two shapings of advantages go around each other: it runs, reads what both read, and is written and read back."""

from __future__ import annotations

from dataclasses import fields
from itertools import product
from typing import Any

import pytest
import torch

import stratagem.recipes  # noqa: F401  (enters every part)
from stratagem import recipes
from stratagem.advantages import GroupStandardized, RoleCredit
from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.part import REGISTRY
from stratagem.parts import Advantage
from stratagem.recipe import Recipe


def shapings() -> list[type[Any]]:
    """Our advantages that go around another one."""
    own = (part for _, part in sorted(REGISTRY["advantage"].items()) if part.__module__.startswith("stratagem."))
    return [part for part in own if any(field.name == "of" for field in fields(part))]


def around(part: type[Any], inner: Advantage) -> Any:
    """A shaping of this one; one by role is of as many as there are roles."""
    return part(of=(inner,) if part is RoleCredit else inner)


def batch() -> Experience:
    """Three groups of four trajectories of two turns, with all that any advantage reads."""
    source = torch.Generator().manual_seed(0)
    trajectories, turns = 12, 24
    lengths = [1 + number % 3 for number in range(turns)]
    tokens = sum(lengths)
    logp = -0.5 - torch.rand(tokens, generator=source)
    success = torch.arange(trajectories) % 4 < 2
    return Experience.from_lengths(
        lengths,
        [2] * trajectories,
        [4] * 3,
        action=torch.randint(0, 5, (tokens,), generator=source),
        behavior_logp=logp,
        old_logp=logp + 0.05 * torch.randn(tokens, generator=source),
        ref_logp=logp - 0.1,
        entropy=0.2 + torch.rand(tokens, generator=source),
        confidence=torch.rand(tokens, generator=source),
        value=torch.rand(tokens, generator=source),
        planning=torch.rand(tokens, generator=source) < 0.4,
        span=torch.randint(0, 4, (tokens,), generator=source),
        reward=success.float(),
        success=success,
        pass_rate=torch.full((3,), 0.5),
        answer=torch.arange(trajectories) % 3,
        demonstrated=torch.zeros(trajectories, dtype=torch.bool),
        truncated=torch.zeros(trajectories, dtype=torch.bool),
        finished=torch.ones(trajectories, dtype=torch.bool),
        turn_state=torch.arange(turns) % 5,
        turn_reward=torch.rand(turns, generator=source),
        turn_role=torch.zeros(turns, dtype=torch.int64),
        turn_context=torch.zeros(turns, dtype=torch.int64),
        turn_done=torch.arange(turns) % 2 == 1,
        turn_call=torch.ones(turns, dtype=torch.int64),
        turn_progress=torch.rand(turns, generator=source),
        segment_start=torch.arange(turns) % 2 == 0,
        task_id=torch.arange(3),
        seed=torch.arange(trajectories),
        episode=torch.arange(trajectories),
        version=torch.zeros(tokens, dtype=torch.int64),
    )


BY_COLUMN = ("per_reward", "spread_weighted")
"""Shapings that ask what they go around once for every reward, which one that remembers batches cannot tell apart."""


@pytest.mark.parametrize("outer", shapings(), ids=lambda part: part.part_name())
@pytest.mark.parametrize("inner", shapings(), ids=lambda part: part.part_name())
def test_any_two_shapings_compose(outer, inner):
    x = batch()
    within = around(inner, GroupStandardized())
    if within.state_dict() and outer.part_name() in BY_COLUMN:
        with pytest.raises(InputError, match="remembers what columns would have to share"):
            around(outer, within)
        return
    composed: Advantage = around(outer, within)
    assert composed.needs() >= within.needs()
    missing = x.missing(composed.needs())
    assert missing == [], "say in batch() what these are"
    credit = composed(x)
    assert credit.shape == (x.tokens,) and bool(credit.isfinite().all())
    assert bool((credit != 0).any())
    recipe: Recipe = recipes.grpo().replace(advantage=composed)
    assert Recipe.from_yaml(recipe.to_yaml()).advantage == composed


def test_there_are_many_of_them():
    assert len(list(product(shapings(), shapings()))) >= 200
