"""Playing on a lattice: absorbing regimes, what is counted, and that seeds decide."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from stratagem import catalogue
from stratagem.errors import InputError
from stratagem.multiagent.boltzmann import Annealing
from stratagem.multiagent.collapse import SharedPolicyCollapse, play_lattice
from stratagem.multiagent.lattice import COOPERATING, Lattice
from stratagem.multiagent.shared_learners import NetworkLearner, TableLearner

LATTICE = Lattice(5)


class Cautious(NetworkLearner):
    """A network set by hand: cooperate iff oneself did and at least three neighbours did. It does not learn."""

    def start(self, lattice, worlds, seed):
        learning = super().start(lattice, worlds, seed)
        first, first_bias, second, second_bias = learning.weights
        with torch.no_grad():
            for weight in learning.weights:
                weight.zero_()
            first[:, :, 0] = torch.tensor([-1.0, -1.0, -1.0, -1.0, -4.0])
            first_bias[:, 0, 0] = 1.5
            second[:, 0, 0] = 1.0
            second_bias[:, 0, 1] = 0.25
        learning._changed()
        learning.learn = lambda *step: None
        return learning


def greedy(initial):
    learning = Cautious().start(LATTICE, 1, 0)
    return play_lattice(LATTICE, learning, np.zeros((40, 1)), 0.2, 0, initial=initial)


def test_two_regimes_are_absorbing_under_one_greedy_network():
    assert greedy(torch.zeros(1, 25, dtype=torch.int64)).cooperation.tolist() == [[1.0]]
    assert greedy(torch.ones(1, 25, dtype=torch.int64)).cooperation.tolist() == [[0.0]]


def test_the_network_set_by_hand_says_what_it_should():
    gap = Cautious().start(LATTICE, 1, 0).table()[0].diff(dim=-1)[:, 0]
    cooperates = (COOPERATING >= 3) & (torch.arange(32) < 16)
    assert torch.equal(gap < 0, cooperates)


def test_a_lone_defector_takes_over_slowly_or_not_at_all_but_never_shrinks():
    start = torch.zeros(1, 25, dtype=torch.int64)
    start[0, 12] = 1
    found = greedy(start)
    assert found.actions[0, 12] == 1 and found.actions.sum() == 1
    assert found.clusters[0].tolist() == [24]


def test_counts_say_who_saw_what_and_did_what():
    learning = TableLearner().start(LATTICE, 3, 0)
    found = play_lattice(LATTICE, learning, np.full((40, 3), 0.5), [0.1, 0.2, 0.3], 7, windows=4, evaluation=10)
    assert found.steps.tolist() == [10, 20, 30, 40]
    np.testing.assert_array_equal(found.counts.sum((-2, -1)), np.full((4, 3), 250))
    np.testing.assert_array_equal(found.evaluated.sum((-2, -1)), np.full(3, 250))
    np.testing.assert_allclose(found.seen.sum(-1), 1)
    np.testing.assert_allclose(found.cooperation, found.counts[..., 0].sum(-1) / 250)
    around = found.counts.sum(-1) @ np.eye(5)[COOPERATING.numpy()]
    shares = np.nan_to_num(found.by_neighbours)
    np.testing.assert_allclose((around * shares).sum(-1) / 250, found.cooperation)
    np.testing.assert_allclose(found.gaps, found.values[..., 0] - found.values[..., 1])
    assert np.isnan(found.interference).all()


def test_what_is_seen_next_is_what_was_played():
    seen = []

    class Watched(TableLearner):
        def start(self, lattice, worlds, seed):
            learning = super().start(lattice, worlds, seed)
            learning.learn = lambda *step: seen.append(step)
            return learning

    play_lattice(LATTICE, Watched().start(LATTICE, 2, 0), np.full((6, 2), 1.0), 0.3, 5, evaluation=4)
    assert len(seen) == 6
    for (_, actions, rewards, following), (later, *_) in pairwise(seen):
        assert torch.equal(following, later)
        assert torch.equal(following, LATTICE.observations(actions))
        assert torch.equal(rewards, LATTICE.rewards(actions, 0.3))


def test_without_differences_of_value_half_cooperate():
    learning = NetworkLearner().start(LATTICE, 2, 0)
    found = play_lattice(LATTICE, learning, np.full((200, 2), 1e6), 0.2, 3)
    assert np.abs(found.cooperation - 0.5).max() < 0.03


def test_a_shared_network_learns_to_defect_where_the_future_does_not_count():
    study = SharedPolicyCollapse(
        NetworkLearner(discount=0.0, steps=1, learning_rate=1e-2), 5, 0.4, Annealing(0.5, 0.02, 600), 100
    )
    assert study.play(1000).evaluation[0] < 0.05


def test_the_same_seed_is_the_same_play():
    study = SharedPolicyCollapse(NetworkLearner(batch=16), 4, 0.2, Annealing(0.4, 0.1, 60), 20)
    first, again, other = study.play(3, runs=2), study.play(3, runs=2), study.play(4, runs=2)
    np.testing.assert_array_equal(first.counts, again.counts)
    np.testing.assert_array_equal(first.values, again.values)
    assert not np.array_equal(first.counts, other.counts)


def test_published_constants_are_the_defaults():
    study = catalogue.card("shared_policy_collapse").build()
    assert (study.side, study.evaluation, study.annealing) == (30, 5000, Annealing(0.727, 0.1, 95_000))
    how = study.learner
    assert (how.hidden, how.steps, how.learning_rate, how.weight_decay) == (96, 5, 1e-4, 1e-4)
    assert (how.clip, how.replay, how.batch, how.every, how.copied) == (0.5, 100, 256, 4, 2000)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: SharedPolicyCollapse(side=2), "shared_policy_collapse: side=2"),
        (lambda: SharedPolicyCollapse(temptation=-1.0), "temptation=-1.0"),
        (lambda: SharedPolicyCollapse(learner=3), "learner=3"),
        (lambda: SharedPolicyCollapse(annealing=Annealing(steps=5), side=3).play(0, windows=6), "5 steps in 6 windows"),
    ],
)
def test_wrong_values_are_refused(make, expected):
    with pytest.raises(InputError, match=expected):
        make()
