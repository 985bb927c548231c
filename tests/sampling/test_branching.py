"""Trajectories gone on with from the middle: where, and what is shared, sampled, trained and paid."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stratagem import recipes
from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.lab.world import LabWorld, from_spec
from stratagem.sampling import AtTurns, Branching, OfBest, Rollouts
from stratagem.sampling.branching import as_branches, as_roots, cut


def batch(**fields: object) -> Experience:
    """Two groups of two trajectories with 2, 3, 1 and 2 turns, whose tokens are 1 to 3 each."""
    lengths = [2, 1, 3, 1, 2, 2, 1, 3]
    given = {"turn_role": [0, 1, 0, 1, 0, 0, 0, 1], "turn_reward": [1.0, 0, 0, 0, 2, 1, 0, 3]}
    return Experience.from_lengths(lengths, [2, 3, 1, 2], [2, 2], **(given | fields))


def places(x: Experience, at: AtTurns | OfBest) -> list[int]:
    return torch.nonzero(at(x)).squeeze(1).tolist()


def test_forks_lie_before_the_first_token_of_turns():
    x = batch()
    # First tokens of turns: 0 2 | 3 6 7 | 9 | 11 12.
    assert places(x, AtTurns()) == [2, 6, 7, 12]
    assert places(x, AtTurns(from_start=True)) == [0, 2, 3, 6, 7, 9, 11, 12]
    assert places(x, AtTurns(role=1)) == [2, 6, 12]
    assert places(x, AtTurns(role=0, from_start=True, first=True)) == [0, 3, 9, 11]
    assert places(x, AtTurns(first=True)) == [2, 6, 12]


def test_forks_of_the_best_lie_in_the_trajectory_that_returned_most_the_first_of_equals():
    x = batch()  # returns 1, 2 | 1, 3
    assert places(x, OfBest(AtTurns())) == [6, 7, 12]
    tied = batch(turn_reward=[0.0, 1, 0, 0, 1, 1, 0, 1])
    assert places(tied, OfBest(AtTurns(from_start=True, first=True))) == [0, 9]


def test_some_groups_are_forked_in_a_trajectory_at_random():
    groups, size = 2000, 4
    x = Experience.from_lengths(
        [1] * (groups * size * 2),
        [2] * (groups * size),
        [size] * groups,
        turn_role=torch.tensor([0, 1] * (groups * size)),
        reward=(torch.arange(groups * size) % size == 2).float(),
        seed=torch.arange(groups * size) * 7919,
    )

    def chosen(share: float) -> torch.Tensor:
        forks = OfBest(AtTurns(role=1, first=True), any_of=share)(x)
        places = torch.nonzero(forks).squeeze(1)
        assert len(places) == groups
        return x.trajectory_of_token.labels[places] % size

    assert (chosen(0.0) == 2).all()
    drawn = torch.bincount(chosen(1.0), minlength=size) / groups
    torch.testing.assert_close(drawn, torch.full((size,), 0.25), atol=0.05, rtol=0)
    strays = float((chosen(0.2) != 2).float().mean())
    assert strays == pytest.approx(0.2 * 0.75, abs=0.03)
    assert torch.equal(chosen(0.2), chosen(0.2))
    assert "seed" in OfBest(any_of=0.2).needs() and "seed" not in OfBest().needs()
    with pytest.raises(ValueError, match=r"need x\.seed"):
        OfBest(any_of=0.2)(x.replace(seed=None))


def test_what_is_taken_over_trains_nothing():
    x = as_branches(batch(), torch.tensor([2, 0, 1, 2]), 1)
    assert x.mask.tolist() == [0, 0, 1, 1, 1, 1, 1, 1, 1, 0, 1, 0, 0, 1, 1]
    assert x.branch.tolist() == [1, 1]
    masked = as_branches(batch(mask=torch.zeros(15, dtype=torch.bool)), torch.tensor([2, 0, 1, 2]), 1)
    assert not masked.mask.any()
    roots = as_roots(batch())
    assert roots.mask.all() and roots.branch.tolist() == [0, 0] and roots.taken_over.tolist() == [0] * 4


def test_a_branch_that_is_cut_earns_nothing_behind_the_cut():
    # The second trajectory took over its first turn (3 tokens), the fourth 0 tokens, so that turn is its own.
    flags = {"success": [True] * 4, "truncated": [False] * 4, "finished": [True] * 4}
    x = cut(as_branches(batch(**flags), torch.tensor([1, 3, 0, 0]), 1), 1)
    assert x.turn_reward.tolist() == [1, 0, 0, 0, 0, 1, 0, 0]
    assert x.returns.tolist() == [1, 0, 1, 0]
    assert x.truncated.tolist() == [True, True, False, True]
    assert x.success.tolist() == x.finished.tolist() == [False, False, True, False]
    # Of the first a token of its first turn is its own; of the second the turn after what it took over.
    assert x.mask.tolist() == [0, 1, 0, 0, 0, 0, 1, 0, 0, 1, 1, 1, 0, 0, 0]


def collected(sampler: Rollouts, spec: str = "lab:errands", seed: int = 1000) -> tuple[LabWorld, Experience, int]:
    world = LabWorld(from_spec(*_split(spec)), seed)
    batch = world.collect(sampler, 0)
    assert batch.x is not None
    return world, batch.x, batch.tokens


def _split(spec: str) -> tuple[str, dict[str, str]]:
    return spec.removeprefix("lab:").split(",")[0], {}


@pytest.mark.parametrize("at", [AtTurns(), AtTurns(first=True), OfBest(AtTurns(from_start=True))])
def test_a_branch_shares_the_tokens_before_its_fork(at):
    sampler = Branching(prompts_per_step=3, group_size=2, at=at, branches=4)
    _, x, tokens = collected(sampler)
    roots = x.select(x.group_of_trajectory.spread(x.branch == 0))
    leaves = x.select(x.group_of_trajectory.spread(x.branch == 1))
    forks = torch.nonzero(at(roots)).squeeze(1)
    assert leaves.groups == len(forks) > 0 and set(leaves.group_of_trajectory.size().tolist()) == {4}
    begins = roots.trajectory_of_token.size().cumsum(0) - roots.trajectory_of_token.size()
    ends = leaves.trajectory_of_token.size().cumsum(0)
    for branch in range(leaves.trajectories):
        fork = forks[branch // 4]
        start = begins[roots.trajectory_of_token.labels[fork]]
        kept = int(leaves.taken_over[branch])
        mine = leaves.action[ends[branch] - leaves.trajectory_of_token.size()[branch] : ends[branch]]
        assert kept == int(fork - start) < len(mine)
        assert mine[:kept].tolist() == roots.action[start:fork].tolist()
    assert (
        leaves.trajectory_of_token.sum(leaves.mask.long()) == leaves.trajectory_of_token.size() - leaves.taken_over
    ).all()
    assert tokens == roots.tokens + int(leaves.mask.sum())
    assert len(x.seed.unique()) == x.trajectories
    assert (
        leaves.task_id.tolist()
        == roots.task_id[roots.group_of_trajectory.labels[roots.trajectory_of_token.labels[forks]]].tolist()
    )


def test_what_follows_a_fork_is_distributed_as_the_policy_acts():
    sampler = Branching(prompts_per_step=1, group_size=1, at=AtTurns(first=True), branches=20_000)
    world, x, _ = collected(sampler)
    branch = x.select(x.group_of_trajectory.spread(x.branch == 1))
    first = branch.taken_over[0]
    at_fork = branch.trajectory_of_token.position() == first
    node = branch.inputs.node[at_fork]
    assert len(node.unique()) == 1
    seen = torch.bincount(branch.action[at_fork], minlength=world.task.game.vocabulary) / 20_000
    wanted = world.policy.table()[node[0]].softmax(-1).detach()
    torch.testing.assert_close(seen.double(), wanted.double(), atol=0.015, rtol=0)


def test_rollouts_are_the_same_with_and_without_branches():
    plain = collected(Rollouts(prompts_per_step=4, group_size=3))[1]
    _, x, _ = collected(Branching(prompts_per_step=4, group_size=3, branches=2))
    roots = x.select(x.group_of_trajectory.spread(x.branch == 0))
    assert roots.action.tolist() == plain.action.tolist() and roots.returns.tolist() == plain.returns.tolist()
    _, none, _ = collected(Branching(prompts_per_step=4, group_size=3, branches=0))
    assert none.action.tolist() == plain.action.tolist() and none.branch.tolist() == [0] * 4


def test_only_branches_are_learned_from_when_roots_do_not_train():
    sampler = Branching(prompts_per_step=4, group_size=1, branches=3, train_roots=False)
    world, x, tokens = collected(sampler)
    assert (x.branch == 1).all() and set(x.group_of_trajectory.size().tolist()) == {3}
    collected_metrics = world.collect(sampler, 1).metrics
    assert collected_metrics["groups/kept"] == 4 and collected_metrics["branches/groups"] > 0
    assert tokens > int(x.mask.sum())


@given(depth=st.integers(1, 3), branches=st.integers(1, 3))
def test_branches_branch_again_as_deep_as_is_asked(depth, branches):
    sampler = Branching(prompts_per_step=2, group_size=1, at=AtTurns(first=True), branches=branches, depth=depth)
    _, x, _ = collected(sampler)
    sizes = [int((x.branch == generation).sum()) for generation in range(depth + 1)]
    # Every episode of this game has further turns, so each trajectory is forked once, at the same place.
    assert sizes == [2] + [2 * branches**generation for generation in range(depth)]


def test_a_branch_may_be_played_for_some_turns_alone():
    whole = collected(Branching(prompts_per_step=2, group_size=2, branches=3))[1]
    _, x, _ = collected(Branching(prompts_per_step=2, group_size=2, branches=3, branch_turns=1))
    assert x.action.tolist() == whole.action.tolist()
    own = x.trajectory_of_turn.sum(x.turn_of_token.sum(x.mask.long()).clamp(max=1))
    on_branch = x.group_of_trajectory.spread(x.branch == 1)
    assert set(own[on_branch].tolist()) == {1}
    assert x.truncated[on_branch].any()


def test_a_recipe_may_compare_branches_where_starts_have_one_episode_each():
    grpo = recipes.grpo()
    with pytest.raises(InputError, match=r"sampler\.group_size = 1"):
        grpo.replace(sampler=Branching(group_size=1, branches=4))
    with pytest.raises(InputError, match=r"sampler\.branches = 1"):
        grpo.replace(sampler=Branching(group_size=1, branches=1, train_roots=False))
    recipe = grpo.replace(sampler=Branching(group_size=1, branches=4, train_roots=False))
    assert recipe.sampler.smallest_group == ("branches", 4)


def test_faults_are_named():
    with pytest.raises(InputError, match=r"branching\.demonstrations = 1: must be 0"):
        Branching(demonstrations=1)
    with pytest.raises(InputError, match="cannot go on with an episode from the middle"):
        Branching().check_asked("a control policy")
    Rollouts().check_asked("a control policy")
    with pytest.raises(InputError, match="branch_turns = 1: the lab can only cut off games with a single reward"):
        collected(Branching(branch_turns=1), "lab:tools")
    with pytest.raises(ValueError, match=r"need x\.turn_role"):
        AtTurns(role=0)(batch(turn_role=None))
