"""Advantages that are raised where the policy plans."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stratagem.advantages import GroupStandardized, PlanningRaised, RewardToGo, TotalReturn
from stratagem.errors import InputError
from stratagem.experience import Experience

PLAIN = TotalReturn()


def tokens(credit: list[float], planning: list[bool] | None = None, **fields) -> Experience:
    """A trajectory of one token for each number, which is what it earns."""
    count = len(credit)
    return Experience.from_lengths(
        [1] * count,
        [1] * count,
        [count],
        reward=torch.tensor(credit, dtype=torch.float64),
        planning=planning,
        **fields,
    )


def raised(alpha: float = 0.2, **fields) -> PlanningRaised:
    return PlanningRaised(PLAIN, alpha, **{"by": "phrases", **fields})


def test_plans_that_went_well_count_more_and_those_that_did_not_count_less():
    x = tokens([1, 1, -1, -1], [True, False, True, False])
    assert raised()(x).tolist() == pytest.approx([1.2, 1.0, -0.8, -1.0])


@pytest.mark.parametrize("change", [{"alpha": 0.0}, {"planning": [False] * 4}])
def test_without_strength_or_plans_it_is_the_advantage_exactly(change):
    x = tokens([1.3, 0.7, -1.1, 0.0], change.get("planning", [True, False, True, True]))
    assert torch.equal(raised(change.get("alpha", 0.2))(x), PLAIN(x))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(-3, 3), min_size=1, max_size=8), st.floats(0, 1), st.integers(0, 255))
def test_signs_stay_and_the_batch_drifts_up_by_what_was_added(credit, alpha, bits):
    planning = [bool(bits >> place & 1) for place in range(len(credit))]
    x = tokens(credit, planning)
    found = raised(alpha)(x)
    assert bool((found * PLAIN(x) >= 0).all())
    drift = alpha * sum(abs(a) for a, plans in zip(credit, planning, strict=True) if plans)
    assert float((found - PLAIN(x)).sum()) == pytest.approx(drift, abs=1e-9)


def test_a_group_of_equal_rewards_gets_nothing():
    assert not PlanningRaised(by="phrases")(tokens([1, 1, 1], [True, False, True])).any()


def test_it_raises_what_it_wraps_token_by_token():
    x = Experience.from_lengths(
        [3], [1], [1], token_reward=[1.0, -3.0, 1.0], reward=[-1.0], planning=[True, True, False]
    )
    inner = RewardToGo()
    expected = inner(x) + 0.2 * inner(x).abs() * torch.tensor([1.0, 1.0, 0.0])
    torch.testing.assert_close(PlanningRaised(inner, by="phrases")(x), expected)


def test_the_most_unsure_tokens_plan_where_no_phrase_says_so():
    entropy = torch.tensor([0.1, 0.9, 0.4, 0.8, 0.2, 0.3, 0.0, 0.5, 0.6, 0.7])
    x = tokens([1.0] * 10, entropy=entropy)
    assert raised(by="entropy", top=0.3).planning(x).nonzero().squeeze(1).tolist() == [1, 3, 9]
    assert raised(by="entropy", top=1.0).planning(x).all()
    assert raised(by="entropy", top=0.01).planning(x).nonzero().squeeze(1).tolist() == [1], "at least one does"
    tied = x.replace(entropy=torch.full((10,), 0.5))
    assert raised(by="entropy", top=0.3).planning(tied).all(), "those as unsure as the last of them do, too"


def test_tokens_that_may_not_train_are_neither_counted_nor_raised():
    entropy = torch.tensor([0.1, math.nan, 0.2, math.inf])
    x = tokens([1.0] * 4, entropy=entropy, mask=[True, False, True, False])
    assert raised(by="entropy", top=0.5)(x).tolist() == pytest.approx([1.0, 0.0, 1.2, 0.0])
    nothing = x.replace(mask=torch.zeros(4, dtype=torch.bool))
    assert raised(by="entropy")(nothing).tolist() == [0, 0, 0, 0]


def test_what_it_reads_follows_from_how_plans_are_told():
    assert PlanningRaised().needs() == {"entropy"}
    assert PlanningRaised(by="phrases").needs() == {"planning"}
    assert PlanningRaised(GroupStandardized()).least_group() == 2
    with pytest.raises(ValueError, match=r"needs x\.planning"):
        raised()(tokens([1.0]))
    with pytest.raises(ValueError, match=r"needs x\.entropy"):
        raised(by="entropy")(tokens([1.0]))
    with pytest.raises(ValueError, match="not finite"):
        raised(by="entropy")(tokens([1.0, 1.0], entropy=torch.tensor([0.1, math.nan])))


@pytest.mark.parametrize(("field", "value"), [("alpha", 1.1), ("alpha", -0.1), ("top", 0.0), ("top", 1.1)])
def test_numbers_out_of_range_are_refused(field, value):
    with pytest.raises(InputError, match=rf"planning_raised\.{field} = {value}"):
        PlanningRaised(**{field: value})
