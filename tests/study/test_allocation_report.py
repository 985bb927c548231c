"""The page of a comparison of allocators."""

from __future__ import annotations

import json
import math

import pytest
import torch

from stratagem.allocation import Allocated, Comparison, Instances, TwoStageAllocation, allocate, find_task
from stratagem.allocation.allocating import Sample
from stratagem.study.allocation_report import reference, share, write_allocation_report

TASK = "allocation:static,entities=6,slots=3"


def _charts(page: str) -> dict:
    return json.loads(page.partition('id="curves">')[2].partition("</script>")[0])


def _allocated(name: str, returns: list[float], sample: Sample | None = None) -> Allocated:
    nobody = Sample(torch.tensor([-1, -1, -1]), None)
    return Allocated(name, torch.tensor(returns, dtype=torch.float64), 0.0, 0.001, None, sample or nobody)


def test_a_share_is_of_paired_episodes_and_its_interval_of_their_difference():
    best = _allocated("exact", [10.0, 20.0, 30.0])
    assert share(_allocated("half", [5.0, 10.0, 15.0]), best) == pytest.approx((0.5, 0.0))
    ratio, half = share(_allocated("other", [5.0, 12.0, 13.0]), best)
    spread = torch.tensor([0.0, 2.0, -2.0], dtype=torch.float64).std() / 3**0.5
    assert (ratio, half) == pytest.approx((0.5, 1.96 * float(spread) / 20))
    assert math.isnan(share(best, _allocated("nothing", [0.0, 0.0, 0.0]))[0])
    assert reference([_allocated("a", [9.0]), best]).name == "exact"
    assert reference([_allocated("a", [9.0]), _allocated("b", [8.0])]).name == "a"


def test_the_page_holds_what_was_earned_and_where_every_entity_stands(tmp_path):
    found = allocate(["two_stage_allocation", "exact", "random"], TASK, decisions=64, episodes=4, out=tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    charts = _charts(page)
    assert [bar["name"] for bar in charts["bars"]] == ["two_stage_allocation", "exact", "random"]
    assert charts["bars"][1]["share"] == 1 and charts["bars"][0]["return"] == found.results[0].mean
    assert "share of exact" in page and "the optimum up to its gap" in page and "default-src 'none'" in page
    learned, exact, _ = charts["pictures"]
    decided = found.results[0].policy.decide(found.instance)
    assert learned["task"] == decided.chosen[0].tolist() and learned["serves"] == (decided.allocation[0] >= 0).tolist()
    kept = found.results[1].sample.allocation
    assert [task for task, serves in zip(exact["task"], exact["serves"], strict=True) if serves] == kept[
        kept >= 0
    ].tolist()
    total = float(found.instance.total(kept.unsqueeze(0)))
    assert f"exact, {total:.2f} in all" in page and f"The best there is brings {total:.2f}." in page


def test_a_task_says_whether_it_is_paid_and_by_how_many(tmp_path):
    instance = Instances.single([(5, [10]), (4, [6])], [(1, [6]), (2, [6]), (0.5, [3])])
    sample = Sample(torch.tensor([0, 0, -1]), torch.tensor([0, 0, 1]))
    found = Comparison("<task>", (_allocated("mine", [2.0], sample),), instance, None)
    page = write_allocation_report(found, tmp_path / "page.html", single=True, seed=3).read_text()
    (picture,) = _charts(page)["pictures"]
    assert picture["ticks"] == ["task 1, 5.0, paid", "task 2, 4.0, not paid"]
    assert picture["task"] == [0, 0, 1] and picture["serves"] == [True, True, False]
    assert "<td>2.00 by 2 entities</td>" in page and "mine, 2.00 in all" in page
    # Here 4 - 1 for the second task by the first entity alone is the best.
    assert "The best there is brings 3.00." in page
    assert "<h1>Allocators in &lt;task&gt;</h1>" in page and _charts(page)["bars"][0]["return/half"] is None


def test_a_policy_without_a_first_stage_has_no_volunteers():
    task = find_task(TASK)
    policy = TwoStageAllocation(pre_assign=False).policy(task, 0)
    assert policy.shape.pre_assign is False
    found = allocate(["two_stage_allocation"], TASK, decisions=32, episodes=2, arguments={"pre_assign": False})
    assert found.results[0].sample.volunteered is None
