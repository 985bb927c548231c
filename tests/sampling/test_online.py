"""Branching and pruning by what is known of a path while it is written."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from stratagem.distribution import sureness
from stratagem.errors import InputError
from stratagem.lab import GAMES
from stratagem.lab.game import Outcome, TokenGame, over
from stratagem.lab.world import LabTask, LabWorld
from stratagem.sampling import BranchWhere, OnlineTree, PruneWhere, Range, Rollouts, Uncertainty
from stratagem.sampling.growth import Growth, History, figures, heirs
from stratagem.sampling.online import peaked

PUBLISHED = BranchWhere(entropy=3.5, confidence=1.2, low=1.0)
OFTEN = BranchWhere(entropy=0.1, confidence=None, rise=-10.0, after=2)
NEVER = PruneWhere(floor=None, tail=None, rise=None)


def known(**given: float) -> Uncertainty:
    figures = dict(entropy=2.0, group=0.15, tail=0.15, change=1.0, lowest=0.15, falls=0, rises=0, written=9) | given
    whole = ("falls", "rises", "written")
    return Uncertainty(
        **{
            name: torch.tensor([value], dtype=torch.int64 if name in whole else torch.float64)
            for name, value in figures.items()
        }
    )


def followed(entropies: list[float], confidences: list[float]) -> list[Uncertainty]:
    """What is known of one path at each of its tokens."""
    history, seen = History.blank(1), []
    for entropy, confidence in zip(entropies, confidences, strict=True):
        history, now = history.shown(torch.tensor([entropy]).double(), torch.tensor([confidence]).double())
        seen.append(now)
    return seen


def series(means: list[float]) -> list[float]:
    """Values whose running means these are."""
    return [(n + 1) * mean - n * before for n, (mean, before) in enumerate(zip(means, [0.0, *means], strict=False))]


# ---- the rules ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entropy", "group", "width"), [(3.5, 1.2, 3), (3.5, 0.6, 4), (1.0, 1.2, 1), (9.0, 0.6, 4), (3.4, 0.6, 1)]
)
def test_a_path_goes_on_in_as_many_ways_as_worked_out_by_hand(entropy, group, width):
    assert PUBLISHED(known(entropy=entropy, group=group)).tolist() == [width]


def test_halves_are_rounded_to_the_even_number():
    rule = BranchWhere(entropy=2.0, confidence=None, low=1.0, slope=1.5, widest=9)
    assert [int(rule(known(entropy=value))) for value in (2.0, 4.0)] == [2, 6]  # of 2.5 and 5.5


@pytest.mark.parametrize("too", [{"written": 3}, {"change": 0.1}, {"group": 1.3}])
def test_a_path_branches_only_where_all_conditions_hold(too):
    assert int(PUBLISHED(known(entropy=3.5, group=1.2))) == 3
    assert int(PUBLISHED(known(**{"entropy": 3.5, "group": 1.2} | too))) == 1


def test_windows_are_of_four_and_eight_tokens_and_of_what_exists():
    values = [float(number) for number in range(1, 12)]
    seen = followed([value**2 for value in values], values)
    for place, now in enumerate(seen):
        four, eight = values[max(place - 3, 0) : place + 1], values[max(place - 7, 0) : place + 1]
        assert float(now.group) == pytest.approx(sum(four) / len(four))
        assert float(now.tail) == pytest.approx(sum(eight) / len(eight))
        before = [value**2 for value in values[max(place - 4, 0) : place]]
        change = values[place] ** 2 - sum(before) / len(before) if before else 0.0
        assert float(now.change) == pytest.approx(change)
    assert [int(now.rises) for now in seen] == list(range(11))
    assert {float(now.lowest) for now in seen} == {1.0}


@pytest.mark.parametrize(("tails", "rules"), [([1.4, 1.2, 1.1, 0.95], [0, 0, 0, 2]), ([1.4, 1.2, 1.25, 0.95], [0] * 4)])
def test_three_drops_of_the_tail_in_a_row_cut_a_path(tails, rules):
    rule = PruneWhere(floor=None, tail=1.0, rise=None)
    seen = followed([1.0] * 4, series(tails))
    assert [float(now.tail) for now in seen] == pytest.approx(tails)
    assert [int(rule(now)) for now in seen] == rules


def test_a_floor_below_and_an_entropy_that_keeps_rising_cut_a_path():
    assert [int(PruneWhere(floor=0.4, tail=None, rise=None)(known(lowest=value))) for value in (0.4, 0.39)] == [0, 1]
    rising = PruneWhere(floor=None, tail=None, rise=0.5)
    seen = followed([1.0, 1.1, 1.3, 1.5, 2.5], [1.0] * 5)
    assert [int(rising(now)) for now in seen] == [0, 0, 0, 0, 3]
    assert [int(rising(now)) for now in followed([1.0, 1.1, 1.0, 1.5, 2.5], [1.0] * 5)] == [0] * 5


def test_a_cut_is_noted_with_its_penalty():
    probability = torch.tensor([[0.3, 0.2, 0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.03, 0.015, 0.005]])
    penalty = PruneWhere().penalty(known(tail=0.9), probability.log())
    assert float(penalty) == pytest.approx(0.9 - (1 - 0.015) - 0.05)  # the tenth of ten candidates


def test_two_confidences_have_two_names_and_only_the_whole_distribution_tells():
    peak = torch.tensor([[0.96, 0.01, 0.01, 0.01, 0.01]]).log()
    flat = torch.full((1, 5), 0.2).log()
    assert [float(sureness(logp)) for logp in (peak, flat)] == pytest.approx([0.2, 0.2])
    assert [float(peaked(logp)) for logp in (peak, flat)] == pytest.approx([3.692, 1.609], abs=1e-3)
    wide = torch.full((1, 100), 0.01).log()
    assert float(sureness(wide)) == pytest.approx(0.01)
    assert float(OnlineTree(confidence="mean_negative_log", branch=None, prune=None).sure(wide)) == pytest.approx(
        4.605, abs=1e-3
    )


# ---- what can be met ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("branch", "measure", "vocabulary", "told"),
    [
        (PUBLISHED, "mean_probability", 33, r"entropy = 3\.5: never .* log 33 = 3\.497"),
        (PUBLISHED, "mean_probability", 10, r"entropy = 3\.5: never .* log 10 = 2\.303"),
        (PUBLISHED, "mean_negative_log", 34, r"confidence = 1\.2: never .* log 5 = 1\.609"),
        (BranchWhere(confidence=0.01), "mean_probability", 50, r"confidence = 0\.01: never .* 1 / 50 = 0\.02"),
        (BranchWhere(rise=2.0), "mean_probability", 4, r"rise = 2\.0: never .* log 4"),
        (BranchWhere(entropy=2.0), "mean_negative_log", 50, r'confidence = "auto": must be a number'),
    ],
)
def test_branching_that_can_never_be_is_refused_with_the_arithmetic(branch, measure, vocabulary, told):
    with pytest.raises(InputError, match=told):
        OnlineTree(branch=branch, prune=None, confidence=measure).within(vocabulary)


@pytest.mark.parametrize(
    ("prune", "measure", "told"),
    [
        (PruneWhere(0.4, None, None), "mean_negative_log", r"floor = 0\.4: never .* log 5"),
        (PruneWhere(None, 1.0, None), "mean_negative_log", r"tail = 1\.0: never"),
        (PruneWhere(0.4, None, None), "mean_probability", r"floor = 0\.4: cuts everything, .* above 0\.2"),
        (PruneWhere(None, None, 9.0), "mean_probability", r"rise = 9\.0: never"),
    ],
)
def test_pruning_that_can_never_be_or_always_is_is_refused(prune, measure, told):
    with pytest.raises(InputError, match=told):
        OnlineTree(branch=None, prune=prune, confidence=measure).within(100)


@pytest.mark.parametrize("vocabulary", [2, 3, 5, 6, 8, 34, 320, 150_000])
def test_the_defaults_can_be_met_in_every_vocabulary(vocabulary):
    branch, prune = OnlineTree().within(vocabulary)
    possible = Range.of(vocabulary)
    assert 0 < branch.low < branch.entropy < possible.entropy == pytest.approx(math.log(vocabulary))
    for value in (branch.confidence, prune.floor, prune.tail):
        assert (value is None) == (vocabulary <= 5) and (value is None or possible.low < value < possible.high)


@pytest.mark.parametrize(
    "given",
    [{"roots": 9}, {"top_p": 0.9}, {"top_k": 3}, {"demonstrations": 1}, {"roots": 0}, {"likely": 0}],
)
def test_samplers_that_make_no_sense_are_refused(given):
    with pytest.raises(InputError, match=next(iter(given))):
        OnlineTree(group_size=8, **given)
    with pytest.raises(InputError, match=r"low = 2\.0: must be below entropy"):
        BranchWhere(entropy=2.0, low=2.0)


# ---- growth ---------------------------------------------------------------------------------------------------------


def flat(paths: int, vocabulary: int = 8) -> Tensor:
    return torch.log_softmax(torch.arange(vocabulary).double().neg().expand(paths, -1) / 10, -1)


def test_free_places_go_to_earlier_paths_and_are_never_more_than_there_are():
    growth = Growth(OnlineTree(group_size=8, roots=2, branch=OFTEN.replace(widest=3), prune=None), [4, 8], 8)
    going = torch.tensor([3, 1, 0, 2])  # the order in which paths are shown does not matter
    for _ in range(2):
        step = growth.shown(going, flat(4))
        assert not len(step.path) and (step.token == -1).all()
    step = growth.shown(going, flat(4))
    assert step.token.tolist() == [0, -1, 0, 0]  # the first of group 0 took both its places
    assert going[step.place].tolist() == [0, 0, 2, 2, 3, 3] and step.first.tolist() == [1, 2] * 3
    assert growth.paths.group.bincount().tolist() == [4, 6] and growth.paths.taken_over[4:].tolist() == [2] * 6
    assert growth.tokens == 4 * 3 + 6


def test_a_cut_frees_a_place_and_the_last_path_stays():
    all_cut = PruneWhere(floor=0.2, tail=None, rise=None)
    growth = Growth(OnlineTree(group_size=3, roots=3, branch=None, prune=all_cut), [3, 1], 8)
    step = growth.shown(torch.arange(4), flat(4))
    assert step.cut.tolist() == [True, True, False, False]
    told = figures([growth])
    assert told["tree/pruned/unsure"] == told["tree/pruned"] == 1 and told["tree/leaves"] == 1
    assert told["tree/spared"] == 1 and told["tree/penalty"] < 0
    growth.lose([2])
    assert growth.left()[0].tolist() == [3]


def test_what_a_cut_path_had_to_itself_belongs_to_its_first_branch():
    # Of path 0 come 1 at token 4, 2 at 6 and 3 at 9; of 1 comes 4 at 8.
    parent, shared = torch.tensor([-1, 0, 0, 0, 1]), torch.tensor([0, 4, 6, 9, 8])
    gone = torch.tensor([True, False, False, False, False])
    held, rank = heirs(parent, shared, gone)
    assert held[1:].tolist() == [0, 4, 6, 8] and rank[1:].tolist() == [0, 2, 3, 4]
    held, rank = heirs(parent, shared, torch.tensor([True, True, False, False, False]))
    assert held[2:].tolist() == [4, 6, 0] and rank[2:].tolist() == [2, 3, 0]
    held, _ = heirs(parent, shared, torch.zeros(5, dtype=torch.bool))
    assert held.tolist() == shared.tolist()


# ---- the lab --------------------------------------------------------------------------------------------------------


def sums(state: int, tokens: tuple[int, ...]) -> list[Outcome] | None:
    return None if len(tokens) < 6 else over(float(sum(tokens) % 3 == state))


def turns(state: tuple[int, int], tokens: tuple[int, ...]) -> list[Outcome] | None:
    """Three turns of two tokens, with a coin after each."""
    if len(tokens) < 2:
        return None
    number, coin = state
    if number == 2:
        return [Outcome(reward=float(tokens[0] == coin), success=True)]
    return [Outcome((number + 1, coin), probability=0.25), Outcome((number + 1, 1 - coin), probability=0.75)]


SUMS = TokenGame("sums", "Add up.", 4, ((0.5, 0), (0.5, 1)), sums)
TURNS = TokenGame("turns", "Guess the coin.", 3, ((1.0, (0, 0)),), turns)


@pytest.mark.parametrize("game", [SUMS, TURNS])
@pytest.mark.parametrize("prune", [NEVER, PruneWhere(floor=None, tail=None, rise=0.0, steps=2)])
def test_groups_of_the_lab_share_what_their_branches_took_over(game, prune):
    world = LabWorld(LabTask(game), 1000)
    sampler = OnlineTree(prompts_per_step=20, group_size=6, roots=2, branch=OFTEN, prune=prune)
    got = world.collect(sampler, 0)
    x = got.x
    sizes = x.group_of_trajectory.size()
    assert x.groups == 20 and int(sizes.min()) >= 1 and int(sizes.max()) <= 6
    nodes = x.inputs.node.split(x.trajectory_of_token.size().tolist())
    for number, held in enumerate(x.taken_over.tolist()):
        group = x.group_of_trajectory.labels[number]
        before = [n for n in range(number) if x.group_of_trajectory.labels[n] == group]
        # What is shared leads to the same node: coins included.
        assert held == 0 or any(torch.equal(nodes[n][: held + 1], nodes[number][: held + 1]) for n in before)
    assert got.metrics["tree/branches"] > 0 and got.metrics["tree/tokens"] * 20 == got.tokens
    own = int(x.mask.sum())
    assert own == got.tokens if prune is NEVER else own < got.tokens
    assert torch.equal(x.mask, x.trajectory_of_token.position() >= x.to_tokens(trajectory=x.taken_over))


def test_a_tree_without_rules_is_as_likely_as_rollouts():
    world = LabWorld(LabTask(TURNS), 1000)
    x = world.collect(OnlineTree(prompts_per_step=4000, group_size=2, roots=2, branch=None, prune=None), 0).x
    seen = torch.bincount(x.inputs.node, minlength=world.tree.nodes).double() / x.trajectories
    y = world.collect(Rollouts(prompts_per_step=4000, group_size=2), 1).x
    again = torch.bincount(y.inputs.node, minlength=world.tree.nodes).double() / y.trajectories
    torch.testing.assert_close(seen, again, atol=0.04, rtol=0)


def test_what_follows_a_branch_is_as_likely_as_it_should_be():
    """One branch before the second token, to the likeliest two; then the policy and the coin decide."""
    world = LabWorld(LabTask(TURNS), 1000)
    sampler = OnlineTree(
        prompts_per_step=6000, group_size=2, roots=1, branch=OFTEN.replace(after=1, slope=0.6, widest=2), prune=None
    )
    x = world.collect(sampler, 0).x
    assert x.taken_over.tolist() == [0, 1] * 6000
    starts = x.trajectory_of_token.first()
    table = world.policy.table().softmax(-1)
    node, said = x.inputs.node[starts + 1], x.action[starts + 1]
    best = table[node].topk(2, dim=1).indices
    assert torch.equal(said, best[torch.arange(len(said)), torch.arange(len(said)) % 2])
    third, spoken = x.inputs.node[starts + 2], x.action[starts + 2]
    expected = table[third].mean(0)
    torch.testing.assert_close(torch.bincount(spoken, minlength=3) / len(spoken), expected.float(), atol=0.025, rtol=0)
    # The coin after the first turn: of what follows one and the same first turn, a quarter keeps it.
    for pair in {(int(a), int(b)) for a, b in zip(node[:200], said[:200], strict=True)}:
        here = (node == pair[0]) & (said == pair[1])
        if int(here.sum()) > 1500:
            share = torch.bincount(third[here]).double() / int(here.sum())
            assert sorted(share[share > 0].tolist()) == pytest.approx([0.25, 0.75], abs=0.05)


def test_start_states_and_rounds_of_refill_are_those_of_rollouts():
    world = LabWorld(LabTask(SUMS), 1000)
    got = world.collect(OnlineTree(prompts_per_step=4, group_size=4, roots=2, branch=OFTEN, start_states=(1,)), 0)
    assert got.x.task_id.tolist() == [1] * 4


@pytest.mark.parametrize("name", sorted(GAMES))
def test_defaults_grow_in_every_game(name):
    got = LabWorld(LabTask(GAMES[name]), 1000).collect(OnlineTree(prompts_per_step=2), 0)
    assert got.x.groups == 2 and got.tokens == got.metrics["tree/tokens"] * 2
