"""Trees in text whose branches and cuts are decided while they are written, with a real model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from stratagem import recipes
from stratagem.errors import InputError
from stratagem.language.hf_engine import HFEngine
from stratagem.language.world import LanguageWorld
from stratagem.sampling import BranchWhere, OnlineTree, PruneWhere, Rollouts
from stratagem.tasks.task import Environment, Observation, Split, Step, Task, state_key

OFTEN = BranchWhere(entropy=0.5, confidence=None, rise=-10.0, after=3, widest=3)
"""Wherever there is a place."""
STRICT = PruneWhere(floor=None, tail=None, rise=0.0, steps=2)


class Echo(Environment):
    """Repeats what was said, for some turns in two contexts; a reward for the first letters."""

    def __init__(self, index: int, turns: int, fickle: bool) -> None:
        self.index, self.turns, self.fickle, self.turn, self.said = index, turns, fickle, 0, ""

    def reset(self) -> Observation:
        self.turn = 0
        return self._observation()

    def step(self, action: str) -> Step:
        self.turn, self.said = self.turn + 1, action
        done = self.turn == self.turns
        return Step(self._observation(), float(len(action) % 2), done=done, success=done)

    def _observation(self) -> Observation:
        shown = f"{self.index} {self.said} {_RESETS.pop() if self.fickle else ''}"
        return Observation(shown, state_key(self.index, self.turn), context=self.turn % 2)


_RESETS = list(range(10_000))


@dataclass
class Echoes(Task):
    """Turns of at most nine tokens."""

    turns: int = 1
    fickle: bool = False

    name, description, max_new_tokens, max_turns = "echoes", "hear what you said", 9, 6

    def environment(self, split: Split, index: int) -> Environment:
        return Echo(index, self.turns, self.fickle)

    def solution(self, split: Split, index: int) -> Iterator[str]:
        return iter(["word"] * self.turns)

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        return iter([])


@pytest.fixture
def world(make_policy: Any) -> Any:
    made = []

    def make(task: Task, **options: Any) -> LanguageWorld:
        policy = make_policy(context=512)
        made.append(LanguageWorld(task, policy, HFEngine(policy), 1000, **options))
        made[-1].serve(1)
        return made[-1]

    yield make
    for one in made:
        one.close()


def texts(x: Any) -> list[tuple[int, ...]]:
    return [tuple(piece.tolist()) for piece in x.action.split(x.trajectory_of_token.size().tolist())]


@pytest.mark.parametrize("prune", [None, STRICT])
@pytest.mark.parametrize("turns", [1, 3])
def test_what_the_engine_wrote_is_what_the_learner_reads(world, turns, prune):
    place = world(Echoes(turns))
    sampler = OnlineTree(prompts_per_step=3, group_size=6, roots=2, branch=OFTEN, prune=prune)
    got = place.collect(sampler, 0)
    x, said = got.x, texts(got.x)
    sizes = x.group_of_trajectory.size()
    assert x.groups == 3 and int(sizes.min()) >= 1 and int(sizes.max()) <= 6
    assert got.metrics["tree/branches"] > 0 and got.metrics["tree/leaves"] == x.trajectories / 3
    assert (got.metrics["tree/pruned"] > 0) == (prune is not None)
    for number, held in enumerate(x.taken_over.tolist()):
        same = [n for n in range(number) if x.group_of_trajectory.labels[n] == x.group_of_trajectory.labels[number]]
        assert held == 0 or any(said[other][:held] == said[number][:held] for other in same)
    if prune is None:
        assert got.tokens == int(x.mask.sum()) == got.metrics["tree/tokens"] * 3
        assert int((x.taken_over > 0).sum()) == got.metrics["tree/branches"] * 3
    else:
        assert got.tokens > int(x.mask.sum())
    assert len(x.seed.unique()) == len(x.episode.unique()) == x.trajectories
    with torch.no_grad():
        torch.testing.assert_close(place.policy(x).logp, x.behavior_logp, atol=1e-5, rtol=1e-4)


def test_the_first_branch_goes_on_with_the_likeliest_tokens_of_the_whole_vocabulary(world):
    place = world(Echoes())
    got = place.collect(OnlineTree(prompts_per_step=1, group_size=3, roots=1, branch=OFTEN, prune=None), 0)
    said = texts(got.x)
    assert len(said) == 3 and got.x.taken_over.tolist() == [0, 3, 3]
    with torch.no_grad():
        logp = place.policy(got.x, also=("log_probs",)).log_probs
    assert [piece[3] for piece in said] == logp[3].topk(3).indices.tolist()
    entropy = torch.special.entr(logp.exp()).sum(1)
    assert entropy[3] >= 0.5


def test_what_a_tree_is_does_not_depend_on_who_is_written_beside_it(world):
    sampler = OnlineTree(prompts_per_step=3, group_size=5, roots=2, branch=OFTEN, prune=STRICT)
    together = world(Echoes(2)).collect(sampler, 0)
    alone = world(Echoes(2), concurrency=1).collect(sampler, 0)
    assert texts(together.x) == texts(alone.x) and together.tokens == alone.tokens
    assert together.x.taken_over.tolist() == alone.x.taken_over.tolist()


def test_a_tree_that_never_branches_nor_cuts_is_rollouts(world):
    plain = world(Echoes(2)).collect(Rollouts(prompts_per_step=3, group_size=4), 0).x
    tree = world(Echoes(2)).collect(OnlineTree(prompts_per_step=3, group_size=4, roots=4, branch=None, prune=None), 0).x
    assert texts(tree) == texts(plain) and tree.mask.all()
    torch.testing.assert_close(tree.behavior_logp, plain.behavior_logp)


def test_the_last_path_is_never_cut(world):
    merciless = PruneWhere(floor=0.2, tail=None, rise=None)
    got = world(Echoes(2)).collect(
        OnlineTree(prompts_per_step=3, group_size=4, roots=4, branch=None, prune=merciless), 0
    )
    assert got.x.group_of_trajectory.size().tolist() == [1, 1, 1]
    assert got.metrics["tree/spared"] == 1 and got.metrics["tree/pruned/unsure"] == 3
    assert got.x.success.all() and got.metrics["tree/penalty"] < 0


def test_environments_that_cannot_be_led_again_lose_their_branches_alone(world):
    sampler = OnlineTree(prompts_per_step=2, group_size=6, roots=2, branch=OFTEN, prune=None)
    got = world(Echoes(1, fickle=True)).collect(sampler, 0)
    assert got.x.trajectories == 12  # before the first turn there is nothing to repeat
    got = world(Echoes(2, fickle=True)).collect(sampler, 0)
    assert got.metrics["episodes/failed"] == 0 or got.x.trajectories < 12
    assert int(got.x.group_of_trajectory.size().min()) >= 1


def test_thresholds_that_nothing_can_meet_are_refused_with_the_arithmetic(world):
    place = world(Echoes())
    with pytest.raises(
        InputError, match=r"entropy = 9\.0: never branches, .* over 320 tokens is at most log 320 = 5\.7"
    ):
        place.collect(OnlineTree(branch=BranchWhere(entropy=9.0)), 0)


def test_shared_tokens_reach_the_gradient_once(world):
    place = world(Echoes())
    sampler = OnlineTree(prompts_per_step=2, group_size=4, roots=2, branch=OFTEN, prune=None)
    recipe = recipes.grpo().replace(sampler=sampler)
    x = recipe.credit(recipe.prepare(place.collect(sampler, 0).x.replace(reward=torch.arange(8.0).unsqueeze(1))))
    out = place.policy(x)
    logp = out.logp.detach().requires_grad_()
    recipe.objective(type(out)(logp=logp), x).loss.backward()
    assert (logp.grad[~x.mask] == 0).all() and (logp.grad[x.mask] != 0).any()


def test_a_recipe_with_trees_trains_a_model(make_trainer, make_world):
    recipe = recipes.echo_ttrl(votes=4, trained=4, branch=OFTEN, prune=STRICT)
    trainer = make_trainer(recipe.with_values({"sampler.prompts_per_step": 2}), world=make_world(Echoes(2)))
    before = [weight.detach().clone() for weight in trainer.world.policy.policy_parameters()]
    trainer.run()
    after = list(trainer.world.policy.policy_parameters())
    assert all(bool(weight.isfinite().all()) for weight in after)
    assert any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))
