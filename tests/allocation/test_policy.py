"""The two stages: accounting, masks, symmetries, any size."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stratagem.allocation import NOBODY, AttentionMixer, Field, Instances, Shape, TwoStagePolicy, find_task
from stratagem.errors import InputError
from stratagem.seeding import generator

STATIC = find_task("allocation:static")


def _policy(**shape) -> TwoStagePolicy:
    return TwoStagePolicy(Shape(4, 4, **shape), 1)


def _masked(count: int, seed: int, entities: int = 16, slots: int = 4) -> Instances:
    drawn = replace(STATIC, entities=entities, slots=slots).draw(count, seed)
    source = generator(seed, "masks")
    masks = {"open": torch.rand(drawn.value.shape, generator=source) < 0.6}
    masks["free"] = torch.rand(drawn.cost.shape, generator=source) < 0.6
    masks["open"][0], masks["free"][-1] = False, False
    return Instances(**{**vars(drawn), **masks})


def test_picks_in_any_order_pay_less_the_first_cost_and_then_the_value_less_the_second():
    one = Instances.single([(5, [10])], [(1, [6]), (2, [6])]).repeat(64)
    decided = TwoStagePolicy(Shape(2, 2), 0).decide(one, generator(0), record=True)
    assert decided.returned.unique().tolist() == [2.0]
    cost = torch.tensor([1.0, 2.0])
    first, second = decided.picks["picked"].view(2, -1)
    assert set(first.tolist()) == {0, 1} and torch.equal(first, 1 - second)
    reward = decided.picks["reward"].view(2, -1)
    torch.testing.assert_close(reward[0], -cost[first].double())
    torch.testing.assert_close(reward[1], 5 - cost[second].double())
    assert decided.picks["done"].view(2, -1).tolist() == [[False] * 64, [True] * 64]
    assert decided.picks["next_state"].view(2, 64, 2)[:, :, 1].tolist() == [[4.0] * 64, [0.0] * 64]


def test_a_task_whose_picks_lose_is_cancelled():
    one = Instances.single([(5, [10])], [(3, [6]), (3, [6])])
    decided = TwoStagePolicy(Shape(2, 2), 0).decide(one, record=True)
    assert decided.returned.item() == 0 and decided.allocation.tolist() == [[NOBODY, NOBODY]]
    assert decided.picks["reward"].tolist() == [-3.0, 2.0]


def test_a_task_that_its_volunteers_cannot_cover_is_cancelled_when_none_is_left():
    one = Instances.single([(5, [10])], [(1, [2]), (1, [3])])
    decided = TwoStagePolicy(Shape(2, 2), 0).decide(one, record=True)
    assert decided.returned.item() == 0 and (decided.allocation == NOBODY).all()
    assert decided.picks["reward"].tolist() == [-1.0, -1.0] and decided.picks["done"].tolist() == [False, True]


def test_a_task_without_demands_is_done_before_any_pick():
    one = Instances.single([(5, [0])], [(1, [2])])
    decided = TwoStagePolicy(Shape(2, 2), 0).decide(one, record=True)
    assert decided.returned.item() == 5 and decided.picks == {} and decided.allocation.item() == NOBODY


@pytest.mark.parametrize("shape", [{}, {"pre_assign": False}, {"pre_assign": False, "order": "random"}])
def test_nobody_is_used_twice_and_nobody_who_is_not_free_in_a_thousand_draws(shape):
    drawn = _masked(1000, 5)
    decided = _policy(**shape).decide(drawn, generator(3), record=True)
    drawn.members(decided.allocation)  # raises for what is closed or busy
    torch.testing.assert_close(decided.returned.sum(-1), drawn.total(decided.allocation))
    picks = decided.picks
    assert drawn.free[picks["instance"], picks["picked"]].all()
    pairs = picks["instance"] * 16 + picks["picked"]
    if not shape:
        assert len(pairs.unique()) == len(pairs), "an entity volunteers once and is picked once at most"
    assert (decided.allocation[0] == NOBODY).all() and (decided.allocation[-1] == NOBODY).all()
    assert (decided.allocation >= 0).any()


def test_with_no_open_task_no_network_is_asked():
    policy = _policy()
    policy.choose = policy.pick = None  # type: ignore[assignment]
    drawn = STATIC.draw(3, 0)
    closed = Instances(**{**vars(drawn), "open": torch.zeros_like(drawn.open)})
    decided = policy.decide(closed)
    assert (decided.allocation == NOBODY).all() and (decided.returned == 0).all()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_permuting_entities_and_tasks_permutes_choices_and_leaves_the_mixed_value(seed):
    drawn, policy = _masked(4, seed), _policy()
    entity, task = torch.randperm(16, generator=generator(seed)), torch.randperm(4, generator=generator(seed, "tasks"))
    entities, tasks = policy.entities(drawn.entity_vectors), policy.tasks(drawn.task_vectors)
    logp = policy.choice_logp(entities, tasks, drawn.open)
    moved = policy.choice_logp(entities[:, entity], tasks[:, task], drawn.open[:, task])
    torch.testing.assert_close(moved, logp[:, entity][:, :, task])
    own = torch.randn(4, 16, generator=generator(seed, "own"))
    mixed = policy.mixer(own, entities, drawn.free)
    torch.testing.assert_close(policy.mixer(own[:, entity], entities[:, entity], drawn.free[:, entity]), mixed)


def test_who_is_not_free_does_not_speak_in_the_mixer():
    mixer, free = AttentionMixer(3, 8, generator(0)), torch.tensor([[True, True, False]])
    own, entities = torch.randn(1, 3), torch.randn(1, 3, 3)
    changed_own, changed = own.clone(), entities.clone()
    changed_own[0, 2], changed[0, 2] = 7.0, 5.0
    torch.testing.assert_close(mixer(changed_own, changed, free), mixer(own, entities, free))
    torch.testing.assert_close(mixer(own[:, :2], entities[:, :2], free[:, :2]), mixer(own, entities, free))
    assert mixer(own, entities, torch.zeros_like(free)).isfinite().all()


def test_the_same_weights_allocate_instances_of_any_size():
    policy = _policy()
    for entities, slots in ((60, 5), (100, 8), (1, 1)):
        drawn = _masked(3, 0, entities, slots)
        assert policy.decide(drawn, generator(0)).allocation.shape == (3, entities)


def test_greedy_decisions_are_the_same_again_and_leave_a_source_alone():
    drawn, policy, source = STATIC.draw(5, 1), _policy(), generator(0)
    before = source.get_state()
    assert torch.equal(policy.allocate(drawn, source), policy.decide(drawn).allocation)
    assert torch.equal(source.get_state(), before)


def test_other_attributes_than_it_is_made_for_are_refused():
    with pytest.raises(InputError, match="an entity has 6 attributes; it is made for 4"):
        _policy().decide(Field(find_task("allocation:material"), 1, 0).instances)


@pytest.mark.parametrize("name", ["static", "material"])
def test_standardized_attributes_have_about_mean_zero_and_deviation_one(name):
    task = find_task(f"allocation:{name}")
    drawn = Field(task, 40, 3).instances
    width = drawn.entity_vectors.shape[-1]
    policy = TwoStagePolicy(Shape(width, width))
    policy.standardize(task, 0)
    seen = policy.entities(drawn.entity_vectors).flatten(0, 1)
    assert (seen.mean(0).abs() < 0.15).all() and ((seen.std(0) - 1).abs() < 0.15).all()


def test_a_saved_policy_is_the_same_again(tmp_path):
    policy, drawn = _policy(scores="perceptron", mixing="sum"), STATIC.draw(6, 2)
    policy.standardize(STATIC, 4)
    policy.save(tmp_path / "policy", "# card\n")
    again = TwoStagePolicy.from_directory(tmp_path / "policy")
    assert again.shape == policy.shape
    assert torch.equal(again.decide(drawn).allocation, policy.decide(drawn).allocation)
    with pytest.raises(InputError, match="no readable allocation policy"):
        TwoStagePolicy.from_directory(tmp_path / "nothing")
