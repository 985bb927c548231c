"""Branches of episodes in text: led to their place again, sampled from there on, and lost when they cannot be led."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
import torch
from annotated_types import Ge
from jaxtyping import Bool
from torch import Tensor

from stratagem import recipes
from stratagem.experience import Experience
from stratagem.language.hf_engine import HFEngine
from stratagem.language.world import LanguageWorld
from stratagem.parts import Forking
from stratagem.sampling import AtTurns, Branching, RandomNodes, Rollouts
from stratagem.tasks.task import Environment, Observation, Split, Step, Task, state_key


class Echo(Environment):
    """Repeats what was said, for four turns in two contexts; a reward of 1/4 for each."""

    def __init__(self, index: int, fickle: bool) -> None:
        self.index, self.fickle, self.turn, self.said = index, fickle, 0, ""

    def reset(self) -> Observation:
        self.turn = 0
        return self._observation()

    def step(self, action: str) -> Step:
        self.turn, self.said = self.turn + 1, action
        done = self.turn == 4
        return Step(self._observation(), 0.25, done=done, success=done)

    def _observation(self) -> Observation:
        shown = f"{self.index} {self.said} {_RESETS.pop() if self.fickle else ''}"
        return Observation(shown, state_key(self.index, self.turn), role=self.turn % 2, context=self.turn % 2)


_RESETS = list(range(10_000))


@dataclass
class Echoes(Task):
    """Turns of at most five tokens."""

    fickle: bool = False

    name, description, max_new_tokens, max_turns = "echoes", "hear what you said", 5, 6

    def environment(self, split: Split, index: int) -> Environment:
        return Echo(index, self.fickle)

    def solution(self, split: Split, index: int) -> Iterator[str]:
        return iter(["word"] * 4)

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        return iter([])


@dataclass(frozen=True)
class InTheMiddle(Forking):
    """Before the token of this number of every trajectory."""

    token: Annotated[int, Ge(0)] = 3

    def __call__(self, x: Experience) -> Bool[Tensor, " tokens"]:
        return x.trajectory_of_token.position() == self.token


@pytest.fixture
def world(make_policy: Any) -> Any:
    made = []

    def make(task: Task) -> LanguageWorld:
        policy = make_policy(context=512)
        made.append(LanguageWorld(task, policy, HFEngine(policy), 1000))
        made[-1].serve(1)
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize("at", [AtTurns(), AtTurns(role=1, first=True), InTheMiddle(3), InTheMiddle(0)])
def test_a_branch_repeats_the_episode_up_to_its_fork_and_is_read_as_it_was_sampled(world, at):
    place = world(Echoes())
    got = place.collect(Branching(prompts_per_step=2, group_size=2, at=at, branches=3), 0)
    x = got.x
    roots, leaves = (x.select(x.group_of_trajectory.spread(x.branch == number)) for number in (0, 1))
    forks = torch.nonzero(at(roots)).squeeze(1)
    assert got.metrics["branches/groups"] == leaves.groups == len(forks) > 0
    assert got.metrics["branches/failed"] == 0
    begin = roots.trajectory_of_token.size().cumsum(0) - roots.trajectory_of_token.size()
    pieces = leaves.action.split(leaves.trajectory_of_token.size().tolist())
    for number, piece in enumerate(pieces):
        fork = forks[number // 3]
        start, kept = begin[roots.trajectory_of_token.labels[fork]], int(leaves.taken_over[number])
        assert kept == fork - start
        assert piece[:kept].tolist() == roots.action[start:fork].tolist()
    assert len({tuple(piece.tolist()) for piece in pieces}) > leaves.groups  # they go different ways
    assert got.tokens == roots.tokens + int(leaves.mask.sum())
    assert (leaves.returns == 1).all() and leaves.success.all()
    assert len(x.episode.unique()) == x.trajectories and len(x.seed.unique()) == x.trajectories
    with torch.no_grad():
        torch.testing.assert_close(place.policy(x).logp, x.behavior_logp, atol=1e-5, rtol=1e-4)


def test_rollouts_are_the_same_with_and_without_branches(world):
    plain = world(Echoes()).collect(Rollouts(prompts_per_step=2, group_size=2), 0).x
    x = world(Echoes()).collect(Branching(prompts_per_step=2, group_size=2, branches=2), 0).x
    roots = x.select(x.group_of_trajectory.spread(x.branch == 0))
    assert roots.action.tolist() == plain.action.tolist()


def test_a_branch_may_be_cut_after_some_turns_of_its_own(world):
    sampler = Branching(prompts_per_step=2, group_size=1, at=InTheMiddle(7), branches=2, branch_turns=1, depth=2)
    x = world(Echoes()).collect(sampler, 0).x
    branch = x.select(x.group_of_trajectory.spread(x.branch > 0))
    assert branch.truncated.all() and not branch.success.any()
    # Token 7 lies in the second turn, which a branch begins in the middle of.
    assert set(branch.trajectory_of_turn.size().tolist()) == {2}
    assert set(x.branch.tolist()) == {0, 1, 2}


def test_what_is_taken_over_reaches_no_gradient(world):
    place = world(Echoes())
    sampler = Branching(prompts_per_step=2, group_size=1, at=InTheMiddle(3), branches=2, train_roots=False)
    recipe = recipes.grpo().replace(sampler=sampler)
    collected = place.collect(sampler, 0).x
    x = recipe.credit(recipe.prepare(collected.replace(reward=torch.arange(4.0), reward_names=("reward",))))
    logp = place.policy(x).logp.detach().requires_grad_()
    out = place.policy(x)
    loss = recipe.objective(type(out)(logp=logp), x)
    loss.loss.backward()
    assert (logp.grad[~x.mask] == 0).all() and (logp.grad[x.mask] != 0).any()


def test_an_environment_that_does_not_repeat_itself_loses_its_branches_and_nothing_else(world):
    got = world(Echoes(fickle=True)).collect(Branching(prompts_per_step=2, group_size=2, branches=3), 0)
    assert got.metrics["branches/failed"] == 2 * 2 * 3 * 3 and got.metrics["branches/groups"] == 0
    assert (got.x.branch == 0).all() and got.x.trajectories == 4
    only = Branching(prompts_per_step=2, group_size=2, branches=3, train_roots=False)
    lost = world(Echoes(fickle=True)).collect(only, 0)
    assert lost.x is not None and lost.x.trajectories == 0


def test_a_tree_grows_within_its_group_and_the_engine_reads_what_it_shares_once(world):
    place = world(Echoes())
    sampler = Branching(prompts_per_step=2, group_size=2, at=RandomNodes(), branches=2, depth=3, together=True)
    got = place.collect(sampler, 0)
    x = got.x
    assert x.group_of_trajectory.size().tolist() == [2 + 3 * 2] * 2 and (x.branch == 0).all()
    assert got.metrics["branches/taken_over"] == int((x.taken_over > 0).sum()) > 0
    assert got.tokens == int(x.mask.sum()) and got.metrics["tree/tokens"] == got.tokens / 2
    said = [tuple(piece.tolist()) for piece in x.action.split(x.trajectory_of_token.size().tolist())]
    for number, kept in enumerate(x.taken_over.tolist()):
        before = [other for other in range(number) if x.group_of_trajectory.labels[other] == number // 8]
        assert kept == 0 or any(said[other][:kept] == said[number][:kept] for other in before)
    # A place that is chosen again is gone on with otherwise.
    assert len(x.seed.unique()) == len(x.episode.unique()) == x.trajectories
    with torch.no_grad():
        torch.testing.assert_close(place.policy(x).logp, x.behavior_logp, atol=1e-5, rtol=1e-4)
    assert got.metrics["prefill/taken_over"] > 0
