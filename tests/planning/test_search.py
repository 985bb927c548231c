"""Searches over steps: their rules by hand, on trees that are known, and against each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from stratagem.errors import InputError
from stratagem.planning import (
    PUCT,
    UCB,
    Ask,
    ChildrenBackup,
    Fixed,
    Judged,
    Limits,
    MeanBackup,
    Node,
    Place,
    Rollouts,
    Samples,
    Staged,
    Step,
    StepBeam,
    TreeSearch,
)

Bits = tuple[int, ...]


@dataclass
class Tree:
    """Paths of ``depth`` choices out of ``width``, all of them known; one of them is right.

    priors: of the choices, the same everywhere; steps come in this order, the likeliest first or not.
    """

    right: Bits = (1, 0, 1)
    width: int = 2
    priors: tuple[float, ...] = (0.5, 0.5)
    dead: tuple[Bits, ...] = ()
    asked: list[Ask[Bits]] = field(default_factory=list)

    def propose(self, asks: Sequence[Ask[Bits]]) -> list[list[Step[Bits]]]:
        self.asked += asks
        return [self.steps(ask) for ask in asks]

    def steps(self, ask: Ask[Bits]) -> list[Step[Bits]]:
        order = sorted(range(self.width), key=lambda choice: -self.priors[choice])[: ask.number]
        return [self.step((*ask.state, choice), choice) for choice in order]

    def step(self, state: Bits, choice: int) -> Step[Bits]:
        if state in self.dead:
            return Step(choice, None, 0.0, 1)
        ended = len(state) == len(self.right)
        return Step(choice, state, self.priors[choice], 1, ended, state if ended else None)

    def reward(self, state: Bits) -> float:
        return 1.0 if state == self.right else -1.0


class Nothing:
    """Values every state at 0."""

    def judge(self, places: Sequence[Place[Bits]]) -> list[Judged]:
        return [Judged(0.0) for _ in places]


@dataclass
class Oracle:
    """Values a state at 1 where the right path begins with it."""

    right: Bits

    def judge(self, places: Sequence[Place[Bits]]) -> list[Judged]:
        return [Judged(float(place.state == self.right[: len(place.state)]), 1) for place in places]


def node(visits: int = 0, value: float = 0.0, prior: float = 1.0, parent: Node[Bits] | None = None) -> Node[Bits]:
    return Node(Step(0, (), prior), parent, 0, 0, visits=visits, value=value, total=visits * value)


# ---- rules by hand ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("visits", "value", "prior", "score"), [(0, 0.0, 0.6, 1.8), (1, 0.0, 0.6, 0.9), (2, 0.5, 0.3, 0.8)]
)
def test_puct_weighs_value_prior_and_visits(visits, value, prior, score):
    assert PUCT(1.5).score(node(visits, value, prior), node(4)) == pytest.approx(score)


def test_ucb_of_a_visited_child_and_of_one_without_visits():
    assert UCB(2.0).score(node(2, 0.5), node(4)) == pytest.approx(0.5 + 2 * math.sqrt(math.log(4) / 2))
    assert UCB(2.0).score(node(2, 0.5), node(4)) == pytest.approx(2.16511, abs=1e-5)
    assert UCB(2.0).score(node(), node(4)) == 5.0
    assert UCB(2.0).score(node(1, 0.25), node(1)) == 0.25


def test_a_mean_backup_adds_up_without_a_change_of_sign():
    root = Node.root((), 0)
    [a] = root.add([Step("a", (0,))], "reason", 9, True)
    [b] = a.add([Step("b", (0, 0))], "reason", 9, True)
    for value in (1.0, -1.0):
        MeanBackup()([root, a, b], value)
    assert [(one.total, one.visits, one.value) for one in (root, a, b)] == [(0.0, 2, 0.0)] * 3


@pytest.mark.parametrize(("keep", "value"), [(0.5, 0.45), (0.0, 0.5)])
def test_a_backup_of_children_goes_half_way_or_all_the_way(keep, value):
    parent = node(1, 0.4)
    parent.children = [node(1, 1.0, parent=parent), node(parent=parent)]
    ChildrenBackup(keep)([parent, parent.children[1]], 0.0)
    assert parent.value == pytest.approx(value) and parent.visits == 2


def test_tries_of_a_rollout_fall_with_depth_to_the_least():
    rollouts = Rollouts(Tree(), Tree().reward)
    assert [rollouts.tries(depth) for depth in (0, 1, 3, 9)] == [20, 10, 5, 5]


def test_rollouts_earn_the_mean_reward_and_count_their_tokens():
    tree = Tree(right=(1, 0), priors=(0.4, 0.6))  # one step is asked for, so it is the likeliest
    rollouts = Rollouts(tree, lambda state: float(state == (1, 1)), most=4, least=1)
    assert rollouts.judge([Place((), 0, 1), Place((0,), 1, 2)]) == [Judged(1.0, 8), Judged(0.0, 2)]
    assert Rollouts(tree, tree.reward, 3, 1, depth=1).judge([Place((), 0, 1)]) == [Judged(0.0, 3)]


# ---- trees -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("follow", ["value", "visits"])
@pytest.mark.parametrize("seed", range(20))
def test_a_small_tree_is_solved_within_forty_simulations(seed, follow):
    tree = Tree()
    search = TreeSearch(expansion=Fixed(2), follow=follow, ends="again")
    [found] = search([()], tree, Nothing(), tree.reward, seed)
    assert found.chosen is not None and found.chosen.answer == (1, 0, 1)
    assert found.chosen.reward == 1.0


def test_a_tree_whose_paths_have_all_ended_is_exhausted_and_no_end_is_expanded():
    tree = Tree()
    [found] = TreeSearch(expansion=Fixed(2))([()], tree, Nothing(), tree.reward)
    assert found.statistics["exhausted"] == 1 and found.statistics["simulations"] == 7
    assert found.statistics["nodes"] == 14 and found.statistics["answers"] == 8
    assert found.tokens == 14 and found.chosen is not None and found.chosen.answer == (1, 0, 1)
    asked = [ask.state for ask in tree.asked]
    assert len(set(asked)) == len(asked) == 7 and max(map(len, asked)) == 2


@pytest.mark.parametrize("seed", range(5))
def test_every_value_is_the_mean_of_all_that_was_backed_up_below_it(seed):
    policy = Tree(right=(1, 0, 1, 1))
    [tree] = TreeSearch(expansion=Fixed(2), limits=Limits(9)).grow([()], policy, Oracle((1, 1)), policy.reward, seed)
    for one in tree.root.walk():
        below = [value for each in one.walk() for value in each.judged]
        assert one.visits == len(below)
        assert one.value == pytest.approx(sum(below) / len(below) if below else 0.0)


def test_a_search_is_the_same_under_its_seed_and_beside_other_questions():
    tree = Tree(right=(1, 0, 1, 1))
    search = TreeSearch(expansion=Fixed(2), limits=Limits(6))
    alone = search([()], tree, Nothing(), tree.reward, 3)
    again = search([(), (0,)], tree, Nothing(), tree.reward, 3)
    assert again[0] == alone[0]


def test_dead_ends_are_worth_the_least_and_are_never_chosen():
    tree = Tree(right=(1, 1, 1), dead=((1,),), priors=(0.1, 0.9))
    [found] = TreeSearch(expansion=Fixed(2))([()], tree, Nothing(), tree.reward)
    assert found.chosen is not None and found.chosen.steps[0].said == 0
    nothing = Tree(right=(0, 0), dead=((0,), (1,)))
    [found] = TreeSearch(expansion=Fixed(2))([()], nothing, Nothing(), nothing.reward)
    assert found.chosen is None and found.solutions == () and found.statistics["exhausted"] == 1


def test_a_path_that_goes_on_after_the_last_step_is_lost():
    tree = Tree()
    [found] = TreeSearch(expansion=Fixed(2), depth=2)([()], tree, Nothing(), tree.reward)
    assert found.chosen is None and found.statistics["exhausted"] == 1
    assert StepBeam(depth=2)([()], tree, Nothing())[0].chosen is None


def test_duplicate_steps_are_dropped_and_the_first_is_kept():
    root = Node.root((), 0)
    kept = root.add([Step("a", (0,), 0.3), Step("a", (1,), 0.6), Step("b", (2,))], "reason", 9, True)
    assert [one.step.state for one in kept] == [(0,), (2,)]
    assert len(root.add([Step("a", (0,))] * 2, "reason", 9, False)) == 2


def test_a_search_stops_at_enough_right_answers_at_nodes_and_at_tokens():
    tree = Tree(right=(0, 0, 0), width=3, priors=(0.4, 0.3, 0.3))

    def always(state: Bits) -> float:
        return 1.0

    waits = TreeSearch(expansion=Fixed(3), expand="when_visited", limits=Limits(None, nodes=500, right=4))
    assert waits([()], tree, Nothing(), always)[0].statistics["right"] == 4
    few = TreeSearch(expansion=Fixed(3), limits=Limits(None, nodes=5)).grow([()], tree, Nothing(), always)
    assert few[0].nodes == 6
    cheap = TreeSearch(expansion=Fixed(3)).grow([()], tree, Nothing(), always, tokens=4)
    assert cheap[0].tokens == 6


def test_a_staged_tree_finishes_where_it_is_sure_and_reflects_once_on_a_wrong_answer():
    plan = Staged(3, 0.9, 0.5, 1)
    sure = Node(Step(0, (0,)), None, 1, 0, judged=[0.95])
    doubtful = Node(Step(0, (0,)), None, 1, 0, judged=[0.5])
    wrong = Node(Step(0, (0,), ended=True), sure, 2, 0, judged=[0.0])
    assert plan.plan(sure) == (1, "finish") and plan.plan(doubtful) == (3, "reason")
    assert plan.reopens(wrong)
    wrong.reopened = True
    again = Node(Step(0, (0,), ended=True), wrong, 3, 0, judged=[0.0])
    assert plan.plan(wrong) == (1, "reflect") and not plan.reopens(again)
    assert not plan.reopens(Node(Step(0, (0,), ended=True), sure, 2, 0, judged=[1.0]))
    assert not Fixed(3).reopens(wrong)


def test_a_refused_answer_goes_on_with_one_step_that_reflects():
    tree = Tree(right=(1,), width=1, priors=(1.0,))
    search = TreeSearch(
        rule=UCB(), expansion=Staged(3), limits=Limits(None, nodes=60, right=4), expand="when_visited", lost=0.0
    )
    [found] = search([()], tree, Nothing(), lambda state: float(state == (1,)))
    assert [ask.kind for ask in tree.asked].count("reflect") == 1
    assert found.statistics["exhausted"] == 1 and found.statistics["right"] == 0


# ---- searches against each other -------------------------------------------------------------------------------------


@pytest.mark.parametrize("priors", [(0.3, 0.7), (0.8, 0.2)])
def test_greedy_is_a_beam_of_one_is_a_tree_without_simulations(priors):
    tree = Tree(priors=priors)
    greedy, beam, none = (
        search([()], tree, Nothing())[0].chosen
        for search in (
            Samples(),
            StepBeam(beams=1, samples=1),
            TreeSearch(limits=Limits(0), expansion=Fixed(2), follow="prior"),
        )
    )
    assert greedy is not None and greedy == beam
    assert none is not None and none.steps == greedy.steps
    assert greedy.answer == ((1, 1, 1) if priors[1] > 0.5 else (0, 0, 0))


@pytest.mark.parametrize("right", [(0, 0, 0, 0), (2, 1, 0, 2), (1, 2, 2, 1)])
@pytest.mark.parametrize("beams", [1, 3])
def test_a_beam_with_a_perfect_judge_solves_what_its_samples_cover(right, beams):
    tree = Tree(right=right, width=3, priors=(0.5, 0.3, 0.2))
    [found] = StepBeam(beams=beams, samples=3)([()], tree, Oracle(right), tree.reward)
    assert found.chosen is not None and found.chosen.answer == right and found.chosen.reward == 1.0
    assert found.statistics["judge_tokens"] == found.statistics["policy_tokens"] == found.tokens / 2


def test_a_beam_narrows_with_paths_that_have_an_answer():
    @dataclass
    class Uneven(Tree):
        """The choice 0 ends a path at once."""

        def step(self, state: Bits, choice: int) -> Step[Bits]:
            ended = choice == 0 or len(state) == 3
            return Step(choice, state, 1.0, 1, ended, state if ended else None)

    tree = Uneven(width=2, priors=(0.6, 0.4))
    [found] = StepBeam(beams=2, samples=2)([()], tree, Nothing())
    assert [path.answer for path in found.solutions] == [(0,), (1, 0)]
    assert found.chosen is not None and found.chosen.answer == (0,)


def test_samples_vote_and_without_answers_there_is_none():
    answers = iter([1, 2, 2, 1, 2])

    class Votes:
        def propose(self, asks: Sequence[Ask[Bits]]) -> list[list[Step[Bits]]]:
            said = [next(answers) for _ in asks]
            return [[Step(one, (one,), 1.0, 2, True, one)] for one in said]

    [found] = Samples(count=5)([()], Votes())
    assert found.chosen is not None and found.chosen.answer == 2 and found.tokens == 10
    assert Samples(count=3)([()], Tree(dead=((0,), (1,))))[0].chosen is None


def test_wrong_settings_are_named():
    with pytest.raises(InputError, match=r"limits\.simulations = None"):
        Limits(None)
    with pytest.raises(InputError, match=r"tree_search.ends = 'again'"):
        TreeSearch(ends="again", limits=Limits(None, nodes=3))
    with pytest.raises(InputError, match="step_beam: needs a judge"):
        StepBeam()([()], Tree())
    with pytest.raises(InputError, match="tokens = 0"):
        Samples()([()], Tree(), tokens=0)
    with pytest.raises(InputError, match="needs a judge"):
        Samples(by="vote_sum")([()], Tree())
    with pytest.raises(InputError, match=r"rollouts\.least = 0"):
        Rollouts(Tree(), Tree().reward, least=0)
    with pytest.raises(InputError, match=r"puct.exploration = -1"):
        PUCT(-1)
