"""Trees that grow at the nodes that promise most, and what the steps of a tree are worth."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stratagem.advantages import GroupStandardized, InformationGain, NodeStandardized
from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.lab.game import Outcome, TokenGame
from stratagem.lab.tree import Tree
from stratagem.lab.world import LabTask, LabWorld
from stratagem.recipes.reasoning import ib_tpo
from stratagem.sampling import Branching, InformativeNodes, RandomNodes
from stratagem.sampling.nodes import _left, gains
from stratagem.step_tree import step_tree


def paths(*said: list[int], success: list[bool], logp: list[float] | None = None, **fields: Any) -> Experience:
    """One group of trajectories of one-token turns."""
    tokens = [token for path in said for token in path]
    return Experience.from_lengths(
        [1] * len(tokens),
        [len(path) for path in said],
        [len(said)],
        action=tokens,
        behavior_logp=torch.tensor([math.log(0.5)] * len(tokens) if logp is None else logp, dtype=torch.float64),
        reward=torch.tensor(success).double(),
        success=success,
        seed=torch.arange(len(said)) * 7919,
        **fields,
    )


def test_steps_with_the_same_beginning_are_one_node():
    x = paths([1, 2, 3], [1, 2, 4], [1, 5], [2, 2, 3], success=[True, False, False, True])
    tree = step_tree(x)
    labels = tree.node_of_step.labels.tolist()
    assert labels[0] == labels[3] == labels[6] != labels[8] and labels[1] == labels[4]
    assert len(set(labels)) == 8
    for step in range(len(labels)):
        parent = int(tree.parent[labels[step]])
        assert parent == (-1 if int(tree.trajectory_of_step.position()[step]) == 0 else labels[step - 1])
    here, before = tree.mean(x.success.double(), x)
    assert here[labels[:3]].tolist() == pytest.approx([1 / 3, 0.5, 1.0])
    assert before[labels[:3]].tolist() == pytest.approx([0.5, 1 / 3, 0.5])
    # Turns of several tokens, or pieces of them: the same tokens in other steps are other nodes.
    y = Experience.from_lengths([4, 2, 2], [1, 2], [2], action=[1, 2, 3, 4, 1, 2, 3, 4])
    assert step_tree(y).node_of_step.count == 3 and step_tree(y, 2).node_of_step.count == 3
    assert step_tree(y, 3).trajectory_of_step.size().tolist() == [2, 2]
    with pytest.raises(ValueError, match="indices"):
        step_tree(y.replace(action=torch.zeros(8, 2)))


def test_blank_lines_cut_turns_where_the_batch_has_marked_them():
    # Two turns of one trajectory and one turn of another; the first token of a turn begins a step, marked or not.
    y = Experience.from_lengths([3, 2, 3], [2, 1], [2], action=[1, 2, 3, 1, 2, 1, 2, 3])
    marked = y.replace(step_start=torch.tensor([True, False, True, False, False, True, False, True]))
    tree = step_tree(marked, "blank_lines")
    assert tree.step_of_token.labels.tolist() == [0, 0, 1, 2, 2, 3, 3, 4]
    labels = tree.node_of_step.labels.tolist()
    assert labels[:2] == labels[3:] and len(set(labels)) == 3
    # The same tokens in other steps are other nodes.
    other = marked.replace(step_start=marked.step_start & (torch.arange(8) != 7))
    assert step_tree(other, "blank_lines").node_of_step.count == 4
    # Without any blank line a turn is one step.
    plain = step_tree(y.replace(step_start=torch.zeros(8, dtype=torch.bool)), "blank_lines")
    assert torch.equal(plain.step_of_token.labels, y.turn_of_token.labels)
    assert torch.equal(plain.node_of_step.labels, step_tree(y, "turns").node_of_step.labels)
    with pytest.raises(ValueError, match=r"blank lines need x\.step_start"):
        step_tree(y, "blank_lines")


@pytest.mark.parametrize("part", [NodeStandardized, InformationGain, RandomNodes, InformativeNodes])
def test_every_part_that_looks_at_steps_is_told_in_the_same_way_what_they_are(part):
    assert part() == part(steps="turns") and "step_start" not in part().needs()
    assert part(steps="blank_lines").needs() == part(steps=3).needs() | {"step_start"}
    with pytest.raises(InputError, match=rf"{part.part_name()}\.steps.* 'blank_line'; did you mean 'blank_lines'"):
        part(steps="blank_line")
    with pytest.raises(InputError, match="greater than or equal to 1"):
        part(steps=0)


def test_steps_between_blank_lines_are_credited_and_chosen_apart():
    # Two responses of one turn, with the same first step of two tokens and another second one.
    x = Experience.from_lengths(
        [3, 4, 2],
        [1, 1, 1],
        [3],
        action=[1, 2, 3, 1, 2, 4, 4, 5, 6],
        behavior_logp=torch.full((9,), math.log(0.5), dtype=torch.float64),
        ref_logp=torch.full((9,), math.log(0.5), dtype=torch.float64),
        reward=torch.tensor([1.0, 0.0, 0.0]).double(),
        success=[True, False, False],
        seed=torch.arange(3),
        step_start=[True, False, True, True, False, True, False, True, False],
    )
    deviation = float(x.returns.std())
    whole = [2 / 3] * 3 + [-1 / 3] * 6
    assert NodeStandardized(eps=0.0)(x).tolist() == pytest.approx([v / deviation for v in whole])
    cut = [1 / 6, 1 / 6, 2 / 3, 1 / 6, 1 / 6, -1 / 3, -1 / 3, -1 / 3, -1 / 3]
    steps = NodeStandardized(eps=0.0, steps="blank_lines")(x)
    assert steps.tolist() == pytest.approx([v / deviation for v in cut])
    # p is 1/3, then 1/2, then 1 or 0.
    gain = [0.3, 0.3, 0.8, 0.3, 0.3, -1.2, -1.2, -1.2, -1.2]
    assert InformationGain(steps="blank_lines")(x).tolist() == pytest.approx([0.5 * v for v in gain])
    turns, blank = (InformativeNodes(nodes=9, most=None, steps=steps)(x) for steps in ("turns", "blank_lines"))
    assert torch.nonzero(turns).squeeze(1).tolist() == [0]
    assert torch.nonzero(blank).squeeze(1).tolist() == [0, 2]


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=4), min_size=1, max_size=8))
def test_nodes_are_prefixes_and_children_average_to_their_parent(said):
    x = paths(*said, success=[sum(path) % 2 == 0 for path in said])
    tree = step_tree(x)
    prefixes = [tuple(path[: end + 1]) for path in said for end in range(len(path))]
    labels = tree.node_of_step.labels.tolist()
    assert len(set(zip(labels, prefixes, strict=True))) == len(set(labels)) == len(set(prefixes))
    here, before = tree.mean(x.success.double(), x)
    starts = tree.parent < 0
    size = tree.node_of_step.size()
    # Every trajectory takes a first step, so that these average to the share of successes.
    assert float((size * here)[starts].sum() / size[starts].sum()) == pytest.approx(float(before[starts][0]))


@pytest.mark.parametrize(
    ("confidence", "score", "covariance"), [((0.5, 0.5), -0.6, 0.0), ((0.8, 0.2), 1.2, 0.3), ((0.2, 0.8), -2.4, -0.3)]
)
def test_a_node_scores_where_confidence_lies_on_informative_steps(confidence, score, covariance):
    x = paths([1], [2], success=[True, False], logp=[math.log(p) for p in confidence])
    at = InformativeNodes()
    gain, sure, known = gains(x, step_tree(x), 5.0)
    assert gain.tolist() == pytest.approx([0.8, -1.2]) and sure.tolist() == pytest.approx(confidence) and known.all()
    assert float(at.score(x, step_tree(x), _left(step_tree(x)))) == pytest.approx(score)
    assert at.figures(x)["tree/informed"] == pytest.approx(covariance)


def test_without_a_price_of_information_steps_that_change_nothing_gain_nothing():
    x = paths([1, 1], [2, 1], success=[True, True])
    assert gains(x, step_tree(x), 1e12)[0].tolist() == pytest.approx([0.0] * 4, abs=1e-9)
    assert gains(x, step_tree(x), 4.0)[0].tolist() == pytest.approx([-0.25] * 4)


def test_the_best_node_is_chosen_and_one_that_was_tried_enough_is_not():
    # After 1 the policy is sure of what succeeds; at the start of what fails.
    said = ([1, 1, 0], [1, 2, 0], [2, 1, 0])
    logp = [math.log(p) for p in (0.1, 0.9, 0.5, 0.1, 0.1, 0.5, 0.9, 0.5, 0.5)]
    x = paths(*said, success=[True, False, False], logp=logp, taken_over=torch.tensor([0, 1, 0]))
    assert torch.nonzero(InformativeNodes()(x)).squeeze(1).tolist() == [1]
    assert torch.nonzero(InformativeNodes(most=2)(x)).squeeze(1).tolist() != [1]
    assert int(InformativeNodes(nodes=2)(x).sum()) == 2 and int(InformativeNodes(nodes=99)(x).sum()) == 6
    with pytest.raises(InputError, match="beta"):
        InformativeNodes(beta=0.0)
    with pytest.raises(ValueError, match=r"x\.seed"):
        RandomNodes()(x.replace(seed=None))


def test_where_nothing_succeeds_chance_decides_and_elsewhere_the_shallower_of_equals():
    x = paths([1, 1], [2, 1], success=[True, True])
    assert torch.nonzero(InformativeNodes()(x)).squeeze(1).tolist() == [0]
    chosen = set()
    for seed in range(40):
        failed = paths([1, 1], [2, 1], success=[False, False]).replace(seed=torch.tensor([seed, seed + 99]))
        chosen |= set(torch.nonzero(InformativeNodes()(failed)).squeeze(1).tolist())
    assert chosen == {0, 1, 3}


def test_the_credit_of_a_step_is_the_standardized_mean_of_what_came_of_it():
    x = paths([1, 1], [1, 2], [2, 1], [3, 1], success=[True, False, False, False])
    deviation = torch.tensor([1.0, 0, 0, 0]).std()
    expected = torch.tensor([0.25, 0.75, 0.25, -0.25, -0.25, -0.25, -0.25, -0.25]) / deviation
    torch.testing.assert_close(NodeStandardized(eps=0.0)(x).float(), expected)
    apart = paths([1, 1], [2, 2], [3, 1], [4, 1], success=[True, False, False, False])
    torch.testing.assert_close(NodeStandardized()(apart), GroupStandardized()(apart))
    alike = paths([1, 1], [1, 2], success=[True, True])
    assert (NodeStandardized()(alike) == 0).all()


def test_the_local_credit_is_how_much_likelier_a_step_made_success():
    ref = torch.tensor([0.5, 0.25, 0.5, 0.5, 0.125, 0.5]).double().log()
    x = paths([1, 1], [1, 2], [2, 1], success=[True, False, False], ref_logp=ref)
    # p of the start is 1/3, of step 1 it is 1/2; behind step 2 there is no success.
    expected = [0.3 * 0.5, 0.8 * 0.25, 0.3 * 0.5, -1.2 * 0.5, -1.2 * 0.125, 0.0]
    assert InformationGain()(x).tolist() == pytest.approx(expected)
    hidden = x.replace(mask=torch.tensor([True, True, False, True, True, True]), ref_logp=ref.clone())
    hidden.ref_logp[2] = float("nan")
    credit = InformationGain()(hidden)
    assert credit[[0, 1, 3, 4, 5]].tolist() == pytest.approx([expected[n] for n in (0, 1, 3, 4, 5)])
    alike = paths([1, 1], [1, 2], success=[True, True], ref_logp=ref[:4])
    assert (InformationGain()(alike) == 0).all()


def two_steps() -> TokenGame:
    """Two steps of two ways; succeeds with odds of its own behind each."""
    odds = {(0, 0): 0.9, (0, 1): 0.1, (1, 0): 0.3, (1, 1): 0.2}

    def act(state: tuple[int, ...], tokens: tuple[int, ...]) -> list[Outcome]:
        state = (*state, tokens[0])
        if len(state) == 1:
            return [Outcome(state)]
        return [Outcome(None, odds[state], 1.0, success=True), Outcome(None, 1 - odds[state])]

    return TokenGame("two_steps", "Two steps.", 2, ((1.0, ()),), act)


@pytest.mark.parametrize(("given", "leaves"), [((4, 9, 1, 1), 12), ((2, 3, 2, 2), 10), ((3, 1, 1, 1), 3)])
def test_a_tree_has_the_leaves_it_is_asked_for_and_counts_what_is_shared_once(given, leaves):
    recipe = ib_tpo(*given)
    got = LabWorld(LabTask(_long()), 1000).collect(recipe.sampler, 0)
    x = got.x
    assert x.group_of_trajectory.size().tolist() == [leaves] * 8
    assert got.tokens == int(x.mask.sum()) == int(got.metrics["tree/tokens"] * 8)
    assert x.tokens == got.tokens + int(x.taken_over.sum())
    for group in range(8):
        tree = x.select(x.group_of_trajectory.labels == group)
        said = [tuple(piece.tolist()) for piece in tree.action.split(tree.trajectory_of_token.size().tolist())]
        for number, kept in enumerate(tree.taken_over.tolist()):
            assert kept == 0 or any(path[:kept] == said[number][:kept] for path in said[:number])


def _long() -> TokenGame:
    def act(state: tuple[int, ...], tokens: tuple[int, ...]) -> list[Outcome]:
        state = (*state, tokens[0])
        if len(state) < 5:
            return [Outcome(state)]
        return [Outcome(reward=float(sum(state) % 3 == 0), success=sum(state) % 3 == 0)]

    return TokenGame("long", "Five steps.", 3, ((1.0, ()),), act)


def test_with_many_samples_the_score_is_the_exact_one():
    # A uniform table: p(0) = 0.5, p(1) = 0.25, p = 0.375; scores 6 * mean(eta1 / 2).
    exact = {
        "start": 3 * (0.5 / 0.375 + 0.25 / 0.375 - 2.4) / 2,
        0: 3 * (0.9 / 0.5 + 0.1 / 0.5 - 2.4) / 2,
        1: 3 * (0.3 / 0.25 + 0.2 / 0.25 - 2.4) / 2,
    }
    errors = []
    for size in (50, 5000):
        sampler = Branching(prompts_per_step=1, group_size=size, at=InformativeNodes(), branches=0)
        x = LabWorld(LabTask(two_steps(), spread=0.0), 1000).collect(sampler, 0).x
        tree = step_tree(x)
        home = _left(tree)
        score = InformativeNodes().score(x, tree, home)
        first = home.first()
        names = ["start" if int(tree.trajectory_of_step.position()[n]) == 0 else int(x.action[n - 1]) for n in first]
        errors.append(max(abs(float(value) - exact[name]) for value, name in zip(score, names, strict=True)))
    assert errors[1] < 0.1 and errors[1] < errors[0] + 0.02


def test_a_tree_keeps_its_roots():
    with pytest.raises(InputError, match="train_roots"):
        Branching(together=True, train_roots=False)


@pytest.mark.parametrize("step_tokens", [None, 1, 2, 64])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_nodes_are_those_told_apart_token_by_token(step_tokens, dtype):
    random = torch.Generator().manual_seed(1000)
    sizes = torch.randint(4, (60,), generator=random)  # Some turns have no tokens.
    turns = [3, 2, 0, 4, 1, 2] * 5
    action = torch.randint(2, (int(sizes.sum()),), generator=random)
    x = Experience.from_lengths(sizes, turns, [6] * 5, action=action.to(dtype), reward=torch.zeros(30))
    tree = step_tree(x, step_tokens or "turns")
    said: list[tuple[Any, ...]] = []
    before: dict[tuple[Any, ...], tuple[Any, ...] | None] = {}
    token = 0
    for trajectory, of_turns in enumerate(x.trajectory_of_turn.labels.bincount(minlength=30).tolist()):
        so_far: tuple[Any, ...] = (trajectory // 6,)
        previous = None
        for turn in range(sum(turns[:trajectory]), sum(turns[:trajectory]) + of_turns):
            for place in range(int(sizes[turn])):
                if place == 0:
                    so_far += ("turn",)
                if place % (step_tokens or 64) == 0:
                    so_far += ("step",)
                so_far += (int(action[token]),)
                token += 1
                last = place + 1 == int(sizes[turn])
                if last or (place + 1) % (step_tokens or 64) == 0:
                    said.append(so_far)
                    before[so_far] = previous
                    previous = so_far
    names = {prefix: number for number, prefix in enumerate(before)}
    expected = torch.tensor([names[prefix] for prefix in said])
    node, lead = tree.node_of_step.labels, tree.node_of_step.first()
    assert torch.equal(node.unsqueeze(0) == node.unsqueeze(1), expected.unsqueeze(0) == expected.unsqueeze(1))
    parents = torch.where(tree.parent < 0, -1, expected[lead[tree.parent.clamp(min=0)]])
    known = {names[prefix]: -1 if parent is None else names[parent] for prefix, parent in before.items()}
    assert dict(zip(expected[lead].tolist(), parents.tolist(), strict=True)) == known


def test_games_mark_their_steps_and_trees_fork_at_them():
    def act(start: int, said: tuple[int, ...]) -> list[Outcome] | None:
        return None if len(said) < 4 else [Outcome(reward=float(sum(said) % 2), success=sum(said) % 2 == 1)]

    def second(start: int, said: tuple[int, ...]) -> list[bool]:
        return [place == 2 for place in range(len(said))]

    game = TokenGame("halves", "Four bits in two steps.", 2, ((1.0, 0),), act)
    marked = dataclasses.replace(game, steps=second)
    forks = {}
    for one in (game, marked):
        x = LabWorld(LabTask(one), 1000).collect(ib_tpo().sampler, 0).x
        forks[one.steps is None] = set(x.taken_over.tolist())
        assert x.step_start.sum() == (1 if one is game else 2) * x.trajectories
    assert forks == {True: {0}, False: {0, 2}}
    with pytest.raises(InputError, match="game halves: steps says 1 of"):
        Tree.enumerate(dataclasses.replace(game, steps=lambda start, said: [True]))


def test_between_blank_lines_a_game_without_marks_has_its_turns_for_steps():
    grown = [LabWorld(LabTask(_long()), 1000).collect(ib_tpo(steps=s).sampler, 0).x for s in ("turns", "blank_lines")]
    assert torch.equal(grown[0].action, grown[1].action) and torch.equal(grown[0].taken_over, grown[1].taken_over)
    prepared = [ib_tpo(steps=s, kl_coefficient=0.0, local=0.0).prepare(grown[0]) for s in ("turns", "blank_lines")]
    assert torch.equal(prepared[0].advantage, prepared[1].advantage)
