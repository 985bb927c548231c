"""Which trajectories reach the learner."""

from __future__ import annotations

import pytest
import torch

from stratagem import recipes
from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.sampling import (
    AboveReturn,
    ByPassRate,
    ComparedRole,
    DivisibleTurns,
    DrawnContexts,
    Masked,
    ShortestSuccess,
    ShownAtRandom,
    Untruncated,
)


def test_trajectories_at_or_above_the_threshold_are_selected():
    x = Experience.from_lengths([1] * 3, [1] * 3, [3], reward=[0.5, 1.0, 2.0])
    assert AboveReturn(1.0)(x).tolist() == [False, True, True]


def cut() -> Experience:
    """A group of one, two and three tokens, the last cut by a limit, and of returns 1, 0 and 0."""
    return Experience.from_lengths([1, 2, 3], [1] * 3, [3], reward=[1.0, 0, 0], truncated=[False, False, True])


def test_what_a_limit_cut_is_left_out():
    assert Untruncated()(cut()).tolist() == [True, True, False]
    assert Untruncated().apply(cut()).returns.tolist() == [1, 0]
    with pytest.raises(ValueError, match=r"needs x\.truncated"):
        Untruncated()(cut().replace(truncated=None))


def test_what_is_masked_keeps_its_place_and_its_tokens_train_nothing():
    x = cut()
    masked = Masked(Untruncated()).apply(x)
    assert Masked(Untruncated())(x).tolist() == [True, True, False]
    assert masked.returns.tolist() == [1, 0, 0]
    assert masked.mask.tolist() == [True] * 3 + [False] * 3
    assert x.mask is None
    already = Masked(Untruncated()).apply(x.replace(mask=torch.tensor([False, True, True, True, True, True])))
    assert already.mask.tolist() == [False, True, True, False, False, False]
    assert Masked(Untruncated()).needs() == {"truncated"}


def test_a_masked_reward_counts_in_the_baseline_and_a_dropped_one_does_not():
    recipe = recipes.dr_grpo().with_values({"objective.aggregation": "token_mean"})
    masked = recipe.replace(selections=(Masked(Untruncated()),)).credit(cut())
    dropped = recipe.replace(selections=(Untruncated(),)).credit(cut())
    third = 1 / 3
    assert masked.advantage.tolist() == pytest.approx([2 * third] + [-third] * 5)
    assert dropped.advantage.tolist() == pytest.approx([0.5, -0.5, -0.5])
    # Neither counts the cut tokens: three are left for the mean.
    assert recipe.objective.aggregation.weights(masked).tolist() == pytest.approx([third] * 3 + [0.0] * 3)
    assert recipe.objective.aggregation.weights(dropped).tolist() == pytest.approx([third] * 3)


def test_a_recipe_with_a_masked_selection_is_read_back_equal_and_set_by_path():
    selections = [{"part": "masked", "of": "untruncated"}]
    recipe = recipes.grpo().with_values({"selections": selections})
    assert recipe.selections == (Masked(Untruncated()),)
    assert type(recipe).from_yaml(recipe.to_yaml()) == recipe


# ---- demonstrations or rollouts -------------------------------------------------------------------------------------


def counts(size: int = 8) -> Experience:
    """Groups in which 0, 1, ... ``size`` rollouts succeed; the last of each group is a demonstration."""
    groups = size + 1
    rows = groups * (size + 1)
    return Experience.from_lengths(
        [1] * rows,
        [1] * rows,
        [size + 1] * groups,
        pass_rate=torch.arange(groups) / size,
        demonstrated=([False] * size + [True]) * groups,
        seed=torch.arange(rows),
    )


def shown(x: Experience, kept: torch.Tensor) -> list[bool]:
    """By group, whether its demonstrations are kept; each group keeps either kind whole."""
    by_group = [(k.tolist(), d.tolist()) for k, d in zip(kept.view(-1, 9), x.demonstrated.view(-1, 9), strict=True)]
    for keeps, demonstrated in by_group:
        assert keeps in (demonstrated, [not flag for flag in demonstrated])
    return [keeps == demonstrated for keeps, demonstrated in by_group]


@pytest.mark.parametrize(("gate", "groups"), [(-1, 0), (0, 1), (2 / 8, 3), (7 / 8, 8), (1, 9)])
def test_groups_with_at_most_so_many_successes_are_shown_the_solution(gate, groups):
    x = counts()
    assert shown(x, ByPassRate(gate)(x)) == [count < groups for count in range(9)]


@pytest.mark.parametrize("size", [3, 7, 10, 49])
def test_a_share_is_met_whatever_it_rounds_to(size):
    x = counts(size)
    for count in range(size + 1):
        kept = ByPassRate(count / size)(x)
        assert int(kept[x.demonstrated].sum()) == count + 1


def test_a_group_without_a_demonstration_keeps_its_rollouts():
    x = Experience.from_lengths(
        [1] * 5, [1] * 5, [2, 3], pass_rate=torch.zeros(2), demonstrated=[False, False, True, False, False]
    )
    assert ByPassRate(0.0)(x).tolist() == [True, True, True, False, False]
    assert ByPassRate(0.0)(x.replace(demonstrated=None)).all()


def test_a_group_of_demonstrations_alone_that_is_not_shown_is_gone():
    x = Experience.from_lengths([1], [1], [1], pass_rate=torch.ones(1), demonstrated=[True])
    assert ByPassRate(0.0)(x).tolist() == [False]


def test_at_random_as_many_groups_are_shown_as_the_probability_says_and_always_the_same():
    x = counts()
    many = Experience.concatenate([x] * 400).replace(seed=torch.arange(400 * x.trajectories))
    first = ShownAtRandom(0.3)(many)
    share = sum(shown(many, first)) / many.groups
    # Of 3600 groups: a standard deviation of 0.0076.
    assert share == pytest.approx(0.3, abs=0.03)
    assert torch.equal(first, ShownAtRandom(0.3)(many))
    assert not any(shown(x, ShownAtRandom(0.0)(x)))
    assert all(shown(x, ShownAtRandom(1.0)(x)))


def test_what_they_read_must_be_there():
    x = counts().replace(pass_rate=None, seed=None)
    with pytest.raises(ValueError, match="pass_rate"):
        ByPassRate()(x)
    with pytest.raises(ValueError, match="seed"):
        ShownAtRandom()(x)


@pytest.mark.parametrize("gate", [-1.5, 1.1, float("nan")])
def test_a_gate_is_a_share(gate):
    with pytest.raises(InputError, match=r"by_pass_rate\.gate"):
        ByPassRate(gate)


# ---- one success of every group -------------------------------------------------------------------------------------


def chosen(turns: list[list[list[int]]], success: list[bool]) -> list[bool]:
    """What of these groups of trajectories, each a list of the tokens of its turns, is selected."""
    trajectories = [trajectory for group in turns for trajectory in group]
    x = Experience.from_lengths(
        [tokens for trajectory in trajectories for tokens in trajectory],
        [len(trajectory) for trajectory in trajectories],
        [len(group) for group in turns],
        success=success,
    )
    return ShortestSuccess()(x).tolist()


def test_of_successes_the_fewest_turns_come_before_the_fewest_tokens_and_failures_do_not_count():
    group = [[[1], [2, 2], [9], [7], [8]]]
    assert chosen(group, [False, True, True, True, True]) == [False, False, False, True, False]
    assert chosen(group, [False, True, False, False, False]) == [False, True, False, False, False]


def test_of_equals_the_first_is_selected_and_a_group_without_success_is_gone():
    groups = [[[3], [3]], [[1], [1]], [[5], [4], [4]]]
    assert chosen(groups, [True, True, False, False, True, True, True]) == [True, False] + [False] * 3 + [True, False]


def test_a_turn_without_tokens_is_a_turn():
    assert chosen([[[0, 1], [5]]], [True, True]) == [False, True]


def test_the_shortest_success_is_what_a_loop_over_the_trajectories_finds():
    source = torch.Generator().manual_seed(5)
    turns = torch.randint(1, 4, (300,), generator=source)
    tokens = torch.randint(0, 4, (int(turns.sum()),), generator=source)
    success = torch.rand(300, generator=source) < 0.4
    x = Experience.from_lengths(tokens, turns, [0, *[5] * 60], success=success)
    order = torch.randperm(300, generator=source)
    for y in (x, x.select(order)):
        lengths = list(
            zip(y.trajectory_of_turn.size().tolist(), y.trajectory_of_token.size().tolist(), range(300), strict=True)
        )
        groups = y.group_of_trajectory.labels.tolist()
        best: dict[int, tuple[int, int, int]] = {}
        for row in range(300):
            if y.success[row]:
                best[groups[row]] = min(lengths[row], best.get(groups[row], lengths[row]))
        assert set(torch.nonzero(ShortestSuccess()(y)).squeeze(1).tolist()) == {row for _, _, row in best.values()}


def test_the_shortest_success_needs_to_know_of_success():
    with pytest.raises(ValueError, match=r"needs x\.success"):
        ShortestSuccess()(cut())
    assert recipes.grpo().with_values({"selections": ["shortest_success"]}).selections == (ShortestSuccess(),)
    assert ShortestSuccess().needs() == {"success"}


# ---- conversations --------------------------------------------------------------------------------------------------


def conversations(groups: list[list[list[int]]], seed: int = 0, **fields) -> Experience:
    """Groups of trajectories, each by the conversation of every turn; turns of two tokens."""
    trajectories = [trajectory for group in groups for trajectory in group]
    numbers = [number for trajectory in trajectories for number in trajectory]
    source = torch.Generator().manual_seed(seed)
    return Experience.from_lengths(
        [2] * len(numbers),
        [len(trajectory) for trajectory in trajectories],
        [len(group) for group in groups],
        turn_context=torch.tensor(numbers),
        seed=torch.randint(2**62, (len(trajectories),), generator=source),
        **fields,
    )


def drawn(x: Experience, count: int) -> list[set[int]]:
    """The conversations of every trajectory that may still train; one is drawn whole or not at all."""
    mask = DrawnContexts(count).apply(x).learnable().view(x.turns, 2)
    assert torch.equal(mask.any(1), mask.all(1))
    kept = mask.all(1).tolist()
    owner = x.trajectory_of_turn.labels.tolist()
    taken: list[set[int]] = [set() for _ in range(x.trajectories)]
    for turn, number in enumerate(x.turn_context.tolist()):
        if kept[turn]:
            taken[owner[turn]].add(number)
    for turn, number in enumerate(x.turn_context.tolist()):
        assert kept[turn] == (number in taken[owner[turn]])
    return taken


def test_one_and_four_conversations_are_all_five_and_of_fewer_each_trajectory_gives_one_first():
    x = conversations([[[0, 0], [0, 1, 1, 2, 3]]])
    assert drawn(x, 5) == [{0}, {0, 1, 2, 3}]
    for count in (2, 3, 4):
        assert [len(taken) for taken in drawn(x, count)] == [1, count - 1]


def test_every_group_has_as_many_as_are_asked_for_or_all_there_are_round_by_round():
    sizes = [[3, 1, 2], [1, 1], [5, 5, 5, 5], [7]]
    x = conversations([[list(range(size)) for size in group] for group in sizes], seed=3)
    for count in (1, 2, 3, 4, 6, 9, 40):
        taken = iter(map(len, drawn(x, count)))
        for group in sizes:
            numbers = [next(taken) for _ in group]
            assert sum(numbers) == min(count, sum(group))
            # Nobody gives another one before all who have one gave as many.
            rounds = max(numbers)
            assert all(number >= min(size, rounds - 1) for number, size in zip(numbers, group, strict=True))


def test_a_conversation_that_goes_on_later_is_one_and_without_numbers_a_trajectory_is_one():
    x = conversations([[[0, 1, 0], [0, 1, 1]]])
    assert [len(taken) for taken in drawn(x, 2)] == [1, 1]
    plain = x.replace(turn_context=None)
    kept = DrawnContexts(1)(plain)
    assert int(kept.sum()) == 1
    assert torch.equal(DrawnContexts(1).apply(plain).mask, plain.to_tokens(trajectory=kept))
    assert bool(DrawnContexts(2).apply(plain).mask.all())


def test_trajectories_that_give_nothing_stay_in_their_group_with_their_reward():
    x = conversations([[[0, 1], [0], [0, 1, 2]]], reward=[1.0, 0.0, 0.5])
    kept = DrawnContexts(2).apply(x)
    assert int(DrawnContexts(2)(x).sum()) == 2
    assert kept.returns.tolist() == [1.0, 0.0, 0.5] and kept.trajectories == 3


def test_a_conversation_without_a_token_that_may_train_is_none_and_masked_tokens_stay_masked():
    x = conversations([[[0, 1], [0, 1]]])
    mask = torch.tensor([False, False, True, False, False, True, True, True])
    kept = DrawnContexts(3).apply(x.replace(mask=mask))
    assert torch.equal(kept.mask, mask)
    fewer = DrawnContexts(2).apply(x.replace(mask=mask)).mask
    assert bool((fewer <= mask).all()) and bool(fewer[2])


def test_what_is_drawn_follows_from_the_seeds_whatever_the_order_and_is_random():
    x = conversations([[list(range(4)) for _ in range(6)]])
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    taken = drawn(x, 8)
    assert drawn(x.select(order), 8) == [taken[number] for number in order.tolist()]
    counts = torch.zeros(6, 4)
    for seed in range(400):
        for trajectory, numbers in enumerate(drawn(conversations([[list(range(4))] * 6], seed), 3)):
            counts[trajectory, list(numbers)] += 1
    # 1,200 draws, of 24 conversations equally often: 50 each, of deviation about 7.
    assert counts.sum() == 1200 and counts.min() > 25 and counts.max() < 75


def test_conversations_cannot_be_drawn_without_seeds_and_at_least_one_is_drawn():
    with pytest.raises(ValueError, match=r"needs x\.seed"):
        DrawnContexts().apply(cut())
    with pytest.raises(InputError, match=r"drawn_contexts\.count = 0"):
        DrawnContexts(0)
    assert DrawnContexts().needs() == {"seed"}


# ---- as many turns as workers can share -----------------------------------------------------------------------------


def turns(count: int, seed: int = 0, **fields) -> Experience:
    """So many turns of two tokens, three to a trajectory."""
    sizes = [3] * (count // 3) + ([count % 3] if count % 3 else [])
    seeds = torch.arange(len(sizes)) + 1000 * seed
    return Experience.from_lengths([2] * count, sizes, [len(sizes)], seed=seeds, reward=[0.0] * len(sizes), **fields)


def left(x: Experience, divisor: int) -> torch.Tensor:
    """Turns that train, both of whose tokens do."""
    mask = DivisibleTurns(divisor).apply(x).mask.view(-1, 2)
    assert torch.equal(mask[:, 0], mask[:, 1])
    return mask[:, 0]


@pytest.mark.parametrize(("count", "divisor", "kept"), [(37, 8, 32), (40, 8, 40), (8, 8, 8), (15, 8, 8), (5, 1, 5)])
def test_as_many_turns_train_as_the_divisor_divides(count, divisor, kept):
    assert int(left(turns(count), divisor).sum()) == kept


@pytest.mark.parametrize("count", [1, 7])
def test_a_batch_of_fewer_turns_trains_them_all(count):
    assert bool(left(turns(count), 8).all())


def test_every_turn_is_as_likely_to_be_left_out():
    lost = torch.stack([~left(turns(11, seed), 4) for seed in range(2000)])
    assert lost.sum(1).unique().tolist() == [3]
    expected = 2000 * 3 / 11
    chi_square = float(((lost.sum(0) - expected) ** 2 / expected).sum() / (1 - 3 / 11))
    assert chi_square < 29.6  # The 0.999 quantile with ten degrees of freedom.


def test_what_is_left_follows_from_seeds_and_not_from_the_order_of_trajectories():
    x = turns(11)
    assert torch.equal(left(x, 4), left(x, 4)) and not torch.equal(left(x, 4), left(turns(11, 1), 4))
    order = torch.tensor([2, 0, 3, 1])
    moved = DivisibleTurns(4).apply(x.select(order)).mask
    assert torch.equal(moved, DivisibleTurns(4).apply(x).select(order).mask)


def test_turns_without_a_token_that_may_train_are_none_and_stay_so():
    x = turns(11)
    mask = torch.ones(22, dtype=torch.bool)
    mask[:6] = False
    found = left(x.replace(mask=mask), 4)
    assert int(found.sum()) == 8 and not bool(found[:3].any())


def test_trajectories_of_which_a_turn_is_left_are_told_and_a_seed_is_needed():
    x = turns(5)
    chosen = DivisibleTurns(4)
    assert torch.equal(chosen(x), x.trajectory_of_turn.sum(left(x, 4).long()) > 0)
    with pytest.raises(ValueError, match=r"needs x\.seed"):
        chosen(x.replace(seed=None))
    with pytest.raises(InputError, match=r"divisible_turns\.divisor = 0"):
        DivisibleTurns(0)


def dialogue(**fields) -> Experience:
    """Two trajectories of turns 0 1 0 and 1 0, of two tokens each."""
    return Experience.from_lengths([2] * 5, [3, 2], [2], turn_role=torch.tensor([0, 1, 0, 1, 0]), **fields)


def by_turn(x: Experience) -> list[list[int]]:
    return x.mask.view(-1, 2).int().tolist()


def test_the_role_that_acts_first_is_compared_and_the_others_are_masked():
    x = dialogue(reward=[1.0, 0.0])
    assert by_turn(ComparedRole().apply(x)) == [[1, 1], [0, 0], [1, 1], [1, 1], [0, 0]]
    assert by_turn(ComparedRole(once=True).apply(x)) == [[1, 1], [0, 0], [0, 0], [1, 1], [0, 0]]
    assert ComparedRole().apply(x).returns.tolist() == [1, 0]


def test_the_role_that_is_compared_is_found_behind_what_may_not_train():
    behind = torch.tensor([0, 0, 0, 1, 1, 1, 0, 0, 1, 1], dtype=torch.bool)  # from within turn 1 on; from turn 4 on
    x = dialogue(mask=behind)
    assert by_turn(ComparedRole().apply(x)) == [[0, 0], [0, 1], [0, 0], [0, 0], [1, 1]]
    nothing = dialogue(mask=torch.zeros(10, dtype=torch.bool))
    assert not ComparedRole().apply(nothing).mask.any() and not ComparedRole()(nothing).any()
    with pytest.raises(ValueError, match=r"needs x\.turn_role"):
        ComparedRole().apply(x.replace(turn_role=None))
