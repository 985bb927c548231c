"""What the critics learn, what the actors descend on, and that a policy learns."""

from __future__ import annotations

import math

import pytest
import torch

from stratagem.allocation import (
    AllocationTask,
    Instances,
    Learner,
    TransitionBuffer,
    TwoStageAllocation,
    find_task,
    optimum,
)
from stratagem.errors import InputError
from stratagem.seeding import generator

STATIC = find_task("allocation:static,entities=6,slots=3")


def _learner(count: int = 40, **changed) -> Learner:
    technique = TwoStageAllocation(**{"least": 1, "batch": 8, **changed})
    learner = Learner(technique, technique.policy(STATIC, 0), 0)
    drawn = STATIC.draw(count, 1)
    learner.remember(drawn, learner.policy.decide(drawn, generator(2), record=True))
    return learner


def test_the_choice_losses_are_the_formulas():
    learner = _learner()
    x, policy, slow = learner.choices.sample(5, generator(0)), learner.policy, learner.slow
    critic, actor = learner.choice_losses(x)
    values, losses, chosen = [], [], x["chosen"]
    for row in range(5):
        entities, tasks = policy.entities(x["entities"][row]), policy.tasks(x["tasks"][row])
        q = policy.choice_value.entity(entities) @ policy.choice_value.task(tasks).T
        free = x["free"][row : row + 1]
        own = q[torch.arange(6), chosen[row]].unsqueeze(0)
        values.append((policy.mixer(own, entities.unsqueeze(0), free)[0] - x["returned"][row]) ** 2)
        p = torch.softmax(policy.choose.entity(entities) @ policy.choose.task(tasks).T / 64, -1)
        slow_q = slow.choice_value.entity(entities) @ slow.choice_value.task(tasks).T
        mixed = slow.mixer((p * slow_q).sum(-1).unsqueeze(0), entities.unsqueeze(0), free)[0]
        losses.append(-mixed - 0.01 * -(p * p.log()).sum())
    torch.testing.assert_close(critic, torch.stack(values).mean().float(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(actor, torch.stack(losses).mean(), rtol=1e-4, atol=1e-4)


def test_the_released_actor_weighs_the_chosen_task_alone():
    learner = _learner(weighing="chosen", entropy_weight=0.0)
    x, policy, slow = learner.choices.sample(5, generator(0)), learner.policy, learner.slow
    entities, tasks = policy.entities(x["entities"]), policy.tasks(x["tasks"])
    weighed = policy.choice_logp(entities, tasks, x["open"]).exp() * slow.choice_value(entities, tasks)
    own = torch.stack([weighed[row, torch.arange(6), x["chosen"][row]] for row in range(5)])
    torch.testing.assert_close(learner.choice_losses(x)[1], -slow.mixer(own, entities, x["free"]).mean())


def test_the_entropy_is_that_of_all_choices_together():
    with_it, without = (_learner(entropy_weight=weight) for weight in (1.0, 0.0))
    x = with_it.choices.sample(5, generator(0))
    x["free"] = torch.arange(6) < torch.tensor([[6], [3], [2], [1], [0]])
    entities, tasks = with_it.policy.entities(x["entities"]), with_it.policy.tasks(x["tasks"])
    chance = with_it.policy.choice_logp(entities, tasks, x["open"]).exp()
    entropy = torch.distributions.Categorical(chance).entropy()
    together = torch.stack([entropy[row, : int(x["free"][row].sum())].sum() for row in range(5)])
    torch.testing.assert_close(without.choice_losses(x)[1] - with_it.choice_losses(x)[1], together.mean())


def test_the_pick_losses_are_the_formulas():
    learner = _learner(entropy_weight=0.1, discount=0.5)
    x, policy, slow = learner.picks.sample(12, generator(0)), learner.policy, learner.slow
    critic, actor = learner.pick_losses(x)

    def soft(row: int, state: str, candidates: str) -> torch.Tensor:
        able = x[candidates][row]
        entities, task = policy.entities(x["entities"][row][able]), policy.tasks(x[state][row])
        p = torch.softmax(policy.pick.entity(entities) @ policy.pick.task(task) / 64, -1)
        q = slow.pick_value.entity(entities) @ slow.pick_value.task(task)
        return (p * q).sum() - 0.1 * (p * p.log()).sum()

    errors, values = [], []
    for row in range(12):
        later = 0.0 if x["done"][row] else 0.5 * soft(row, "next_state", "next_candidates")
        entity, task = policy.entities(x["entities"][row][x["picked"][row]]), policy.tasks(x["state"][row])
        q = policy.pick_value.entity(entity) @ policy.pick_value.task(task)
        errors.append((q - x["reward"][row] - later) ** 2)
        values.append(-soft(row, "state", "candidates"))
    torch.testing.assert_close(critic, torch.stack(errors).mean().float(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(actor, torch.stack(values).mean(), rtol=1e-4, atol=1e-4)
    assert x["done"].any() and not x["done"].all()


def test_a_critic_does_not_move_an_actor_nor_the_other_way_round():
    learner = _learner()
    actors, critics = ("choose", "pick"), ("choice_value", "mixer", "pick_value")
    for place, (moved, still) in enumerate([(critics, actors), (actors, critics)]):
        learner.policy.zero_grad()
        (
            learner.choice_losses(learner.choices.sample(8, generator(0)))[place]
            + learner.pick_losses(learner.picks.sample(8, generator(0)))[place]
        ).backward()
        for name in moved:
            parameters = list(getattr(learner.policy, name).parameters())
            assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in parameters), name
        for name in still:
            assert all(p.grad is None for p in getattr(learner.policy, name).parameters()), name


def test_the_released_entropy_is_the_product_of_sums_and_grows_without_bound():
    standard, released = _learner(), _learner(entropy="released")
    for probabilities in ([0.5, 0.25, 0.25], [1 - 2e-6, 1e-6, 1e-6]):
        p = torch.tensor([[probabilities]], dtype=torch.float64)
        opened = torch.tensor([[True, True, True]])
        expected = -sum(value * math.log(value) for value in probabilities)
        assert standard._choice_entropy(p.log(), opened).item() == pytest.approx(expected)
        product = -p.sum() * p.log().sum()
        torch.testing.assert_close(released._choice_entropy(p.log(), opened)[0, 0], product)
    assert product > 20


def test_slow_copies_move_by_their_share():
    learner = _learner(slowness=0.25, updates=1, learning_rate=0.1)
    before = learner.slow.pick.entity[0].weight.clone()
    learner.learn(0)
    moved = 0.75 * before + 0.25 * learner.policy.pick.entity[0].weight
    torch.testing.assert_close(learner.slow.pick.entity[0].weight, moved.detach())
    assert not torch.equal(learner.slow.pick.entity[0].weight, before)


def test_nothing_is_learned_before_there_is_enough():
    learner = _learner(count=5, least=1000)
    assert learner.learn(0) == {}


def _trained(instance: Instances, rounds: int) -> Learner:
    technique = TwoStageAllocation(learning_rate=3e-3, buffer=5000, batch=64, slowness=0.02)
    task = AllocationTask("one", entities=instance.entities, slots=instance.tasks)
    many, learner = instance.repeat(32), Learner(technique, technique.policy(task, 1000), 1000)
    for number in range(rounds):
        learner.remember(many, learner.policy.decide(many, generator(1000, "act", number), record=True))
        learner.learn(number)
    return learner


def test_entities_learn_the_task_they_are_made_for_and_the_critic_knows_what_choices_bring():
    one = Instances.single(
        [(10, [8, 0, 0]), (9, [0, 8, 0]), (8, [0, 0, 8])],
        [(0.5, [8, 1, 1]), (0.5, [1, 9, 1]), (0.5, [1, 1, 4]), (0.4, [0, 1, 4]), (1, [2, 2, 2])],
    )
    learner = _trained(one, 120)
    best = optimum(one).value
    assert one.total(learner.policy.allocate(one, generator(0))) >= 0.95 * best
    fresh = TwoStageAllocation().policy(AllocationTask("one", entities=5, slots=3), 1000)
    assert one.total(fresh.allocate(one, generator(0))) < 0.8 * best


def test_training_is_the_same_for_the_same_seed_and_counts_decisions():
    technique, seen = TwoStageAllocation(learning_rate=1e-3, updates=1), []
    one = technique.train(STATIC, 200, 3, at_once=16, progress=lambda decided, figures: seen.append(decided))
    other = technique.train(STATIC, 200, 3, at_once=16)
    assert seen == list(range(16, 209, 16))
    drawn = STATIC.draw(20, 5)
    assert torch.equal(one.decide(drawn).allocation, other.decide(drawn).allocation)
    for mine, yours in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, yours)


@pytest.mark.parametrize(
    "changed",
    [{"pre_assign": False}, {"pre_assign": False, "order": "random"}, {"mixing": "sum"}, {"scores": "perceptron"}],
)
def test_every_ablation_learns_over_time(changed):
    technique = TwoStageAllocation(learning_rate=1e-3, updates=1, least=10, **changed)
    figures = []
    technique.train(find_task("allocation:dynamic,steps=6"), 150, 0, progress=lambda _, said: figures.append(said))
    assert figures[-1]["pick/critic_loss"] >= 0
    assert ("choice/critic_loss" in figures[-1]) == technique.pre_assign


def test_a_buffer_keeps_the_newest_rows():
    buffer = TransitionBuffer(4)
    buffer.add({})
    for number in range(3):
        buffer.add({"n": torch.tensor([2 * number, 2 * number + 1])})
    assert len(buffer) == 4
    assert set(buffer.sample(200, generator(0))["n"].tolist()) == {2, 3, 4, 5}
    buffer.add({"n": torch.arange(10, 20)})
    assert set(buffer.sample(200, generator(0))["n"].tolist()) == {16, 17, 18, 19}


@pytest.mark.parametrize("name", ["hidden", "learning_rate", "buffer", "slowness"])
def test_settings_out_of_range_are_refused(name):
    with pytest.raises(InputError, match=f"two_stage_allocation: {name}=0"):
        TwoStageAllocation(**{name: 0})
