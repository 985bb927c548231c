"""Policies in bandits: first pulls, exact posteriors, bounds on regret, and reductions to one another."""

from __future__ import annotations

import numpy as np
import pytest

from stratagem.bandits import (
    UCB1,
    Aggregated,
    Delivery,
    EpsilonGreedy,
    FastCB,
    FiniteClassBandit,
    Greedy,
    GreedyOracle,
    LinearBandit,
    LinUCB,
    OraclePolicy,
    PlainBandit,
    SquareCB,
    ThompsonSampling,
    Uniform,
    View,
    play,
    squarecb_gamma,
)
from stratagem.catalogue import card
from stratagem.errors import InputError


@pytest.mark.parametrize(
    ("name", "build", "arxiv"),
    [
        ("ucb1", UCB1, None),
        ("thompson_sampling", ThompsonSampling, "1111.1797"),
        ("linucb", LinUCB, "1003.0146"),
        ("squarecb", SquareCB, "2002.04926"),
        ("fastcb", FastCB, "2107.02237"),
    ],
)
def test_baselines_are_in_the_catalogue(name, build, arxiv):
    assert card(name).build is build and card(name).arxiv == arxiv and card(name).family == "bandits"


# ---- playing --------------------------------------------------------------------------------------------------------


def test_regret_is_what_the_pulled_arms_lack():
    bandit = PlainBandit(np.array([[0.2, 0.9], [0.5, 0.5]]))
    played = play(bandit, Uniform(), 50, seed=7, keep_log=True)
    lost = bandit.table.max(-1, keepdims=True) - np.take_along_axis(bandit.table, played.log.arms, -1)
    np.testing.assert_allclose(played.regret, np.cumsum(lost, -1))
    assert np.all(played.regret[1] == 0) and set(np.unique(played.rewards)) <= {0.0, 1.0}
    np.testing.assert_array_equal(played.log.propensity, 0.5)


def test_the_regret_of_uniform_play_is_its_mean_gap():
    bandit = PlainBandit(np.tile([0.1, 0.4, 1.0], (400, 1)))
    regret = play(bandit, Uniform(), 50, seed=3).regret[:, -1] / 50
    assert abs(regret.mean() - 0.5) < 4 * regret.std() / 20


def test_a_seed_decides_everything_and_policies_share_contexts():
    def log(policy, seed):
        return play(LinearBandit(3, 5, arms=4), policy, 20, seed, keep_log=True).log

    one, same, other = log(LinUCB(), 1), log(LinUCB(), 1), log(GreedyOracle(0.5), 1)
    np.testing.assert_array_equal(one.arms, same.arms)
    np.testing.assert_array_equal(one.features, other.features)
    assert np.any(log(LinUCB(), 2).features != one.features)


def test_a_policy_starts_anew_with_each_play():
    bandit, policy = PlainBandit.gapped(4), UCB1()
    np.testing.assert_array_equal(play(bandit, policy, 60, 1).regret, play(bandit, policy, 60, 1).regret)


def test_infeasible_arms_are_never_pulled_and_do_not_count_as_best():
    bandit = LinearBandit(20, 5, arms=4, open_share=0.4)
    for policy in (LinUCB(), SquareCB(30), GreedyOracle(0.3), Uniform()):
        played = play(bandit, policy, 40, seed=1, keep_log=True)
        assert np.take_along_axis(played.log.feasible, played.log.arms[..., None], -1).all()
        assert np.all(np.diff(played.regret, axis=-1) >= -1e-12)
        assert not played.log.feasible.all() and played.log.feasible.any(-1).all()


def test_late_rewards_reach_the_policy_late_in_order_and_in_batches():
    class Heard(Uniform):
        def start(self, bandit):
            self.heard, self.number = [], 0

        def probabilities(self, view):
            self.number = view.number
            return super().probabilities(view)

        def update(self, view, arms, rewards):
            self.heard.append((view.number, self.number))

    policy = Heard()
    play(PlainBandit.gapped(2), policy, 10, 0, delivery=Delivery(delay=2, batch=3))
    # Heard at the ends of rounds 2, 5 and 8, of what is at least two rounds old by then.
    assert policy.heard == [(0, 2), (1, 5), (2, 5), (3, 5), (4, 8), (5, 8), (6, 8)]


def test_a_delay_costs_regret():
    bandit = PlainBandit.gapped(64, arms=5, best=0.9, gap=0.4)
    at_once = play(bandit, UCB1(), 400, 2).regret[:, -1].mean()
    assert play(bandit, UCB1(), 400, 2, delivery=Delivery(delay=100)).regret[:, -1].mean() > at_once + 5


# ---- arms without context -------------------------------------------------------------------------------------------


def test_every_arm_is_tried_once_first():
    for policy in (UCB1(), EpsilonGreedy(0)):
        arms = play(PlainBandit.gapped(3, arms=6), policy, 6, 0, keep_log=True).log.arms
        np.testing.assert_array_equal(np.sort(arms, -1), np.tile(np.arange(6), (3, 1)))


def test_the_index_of_ucb1_worked_by_hand():
    policy, bandit = UCB1(), PlainBandit(np.full((1, 2), 0.5))
    policy.start(bandit)
    view = bandit.view(0, np.random.default_rng(0))
    for arm, reward in ((0, 1.0), (0, 0.0), (0, 1.0), (1, 0.0)):
        policy.update(view, np.array([arm]), np.array([reward]))
    # 2/3 + sqrt(2 ln 4 / 3) = 1.628 against 0 + sqrt(2 ln 4) = 1.665.
    np.testing.assert_array_equal(policy.probabilities(view), [[0, 1]])
    policy.update(view, np.array([1]), np.array([0.0]))
    np.testing.assert_array_equal(policy.probabilities(view), [[1, 0]])


def test_ucb1_keeps_its_bound():
    bandit = PlainBandit(np.tile([0.5, 0.6, 0.9], (64, 1)))
    regret = play(bandit, UCB1(), 3000, 4).regret[:, -1]
    bound = UCB1().guarantee(bandit, np.array([1, 3000]))
    constant = (1 + np.pi**2 / 3) * 0.7
    np.testing.assert_allclose(bound[0], [constant, 8 * np.log(3000) * (1 / 0.4 + 1 / 0.3) + constant])
    assert regret.mean() < bound[0, 1]
    assert UCB1().guarantee(PlainBandit(np.array([[0.3, 0.3]])), np.array([100]))[0, 0] == 0


def test_nothing_is_promised_where_no_theorem_says_so():
    rounds, plain, finite = np.array([10]), PlainBandit.gapped(2), FiniteClassBandit(2, 0)
    gaussian = PlainBandit.gapped(2, noise="gaussian")
    for policy, bandit in (
        (UCB1(scale=0.5), plain),
        (UCB1(), gaussian),
        (ThompsonSampling(), plain),
        (SquareCB(50), finite),
        (SquareCB(50, Aggregated("log")), finite),
        (SquareCB(50, Aggregated(), floor=0.1), finite),
        (SquareCB(np.inf, Aggregated()), finite),
        (SquareCB(50, Aggregated()), LinearBandit(2, 0)),
    ):
        assert policy.guarantee(bandit, rounds) is None


def test_the_exact_probabilities_of_thompson_sampling_are_those_it_draws_with():
    policy, bandit = ThompsonSampling(), PlainBandit(np.full((20_000, 3), 0.5))
    policy.start(bandit)
    view = bandit.view(0, np.random.default_rng(0))
    for arm, reward in ((0, 1.0), (0, 1.0), (1, 1.0), (1, 0.0), (2, 0.0)):
        policy.update(view, np.full(20_000, arm), np.full(20_000, reward))
    arms, _ = policy.choose(view, np.random.default_rng(1))
    policy.pulls, policy.total = policy.pulls[:1], policy.total[:1]
    exact = policy.probabilities(View(0, view.features[:1], view.feasible[:1]))
    share = np.bincount(arms, minlength=3) / 20_000
    assert np.all(np.abs(share - exact[0]) < 4 * np.sqrt(exact[0] * (1 - exact[0]) / 20_000))


def test_thompson_sampling_between_two_arms_worked_by_hand():
    policy, bandit = ThompsonSampling(), PlainBandit(np.full((1, 2), 0.5))
    policy.start(bandit)
    view = bandit.view(0, np.random.default_rng(0))
    np.testing.assert_allclose(policy.probabilities(view), [[0.5, 0.5]])
    policy.update(view, np.array([0]), np.array([1.0]))
    # Beta(2, 1) against a uniform: E[x] = 2/3.
    np.testing.assert_allclose(policy.probabilities(view), [[2 / 3, 1 / 3]], atol=1e-6)


# ---- arms with context ----------------------------------------------------------------------------------------------


def test_the_right_function_gives_the_means_of_a_finite_class():
    bandit = FiniteClassBandit(3, 5, arms=4, functions=6)
    view = bandit.view(0, np.random.default_rng(0))
    for run in range(3):
        np.testing.assert_array_equal(bandit.means(view)[run], view.features[run, :, bandit.right[run]])


def test_the_regret_of_squarecb_keeps_its_bound():
    bandit = FiniteClassBandit(64, 3, arms=4, functions=8)
    gamma = squarecb_gamma(4, 1000, np.log(8) / 2)
    regret = play(bandit, SquareCB(gamma, Aggregated()), 1000, 3).regret[:, -1]
    bound = SquareCB(gamma, Aggregated()).guarantee(bandit, np.array([1000]))
    np.testing.assert_allclose(bound, np.sqrt(2 * 4 * 1000 * np.log(8) / 2))
    assert regret.mean() < bound[0, 0]
    assert regret.mean() < play(bandit, Uniform(), 1000, 3).regret[:, -1].mean() / 3


def test_squarecb_with_an_endless_gamma_is_the_greedy_oracle():
    bandit = FiniteClassBandit(5, 3)
    one = play(bandit, SquareCB(np.inf, Aggregated()), 60, 1).regret
    np.testing.assert_array_equal(one, play(bandit, OraclePolicy(Greedy(), Aggregated()), 60, 1).regret)


def test_fastcb_learns_a_class_with_small_costs():
    bandit = FiniteClassBandit(32, 3, lowest=0.9)
    fast = play(bandit, FastCB(50), 1500, 3).regret[:, -1].mean()
    assert fast < play(bandit, Uniform(), 1500, 3).regret[:, -1].mean() / 3


def test_linucb_without_a_width_is_greedy_and_with_one_it_widens_what_is_unknown():
    bandit = LinearBandit(1, 3, arms=2, dimension=1)
    policy = LinUCB(width=0)
    played = play(bandit, policy, 30, 1, keep_log=True).log
    linear = policy.oracle.weights
    view = bandit.view(0, np.random.default_rng(9))
    assert policy.probabilities(view)[0].argmax() == (view.features @ linear[0])[0].argmax()
    assert played.arms.shape == (1, 30)
    policy.width = 1e6
    assert policy.probabilities(view)[0].argmax() == policy.oracle.widths(view.features)[0].argmax()


def test_logistic_means_are_logistic():
    bandit = LinearBandit(2, 3, scale=4.0)
    view = bandit.view(0, np.random.default_rng(0))
    logit = np.log(bandit.means(view) / (1 - bandit.means(view)))
    np.testing.assert_allclose(logit, 4 * np.einsum("raf,rf->ra", view.features[..., :-1], bandit.weights))


def test_gaussian_rewards_have_the_mean_and_deviation_asked_for():
    bandit = PlainBandit(np.full((1, 1), 2.0), "gaussian", 3.0)
    drawn = bandit.rewards(np.full(40_000, 2.0), np.random.default_rng(0))
    assert abs(drawn.mean() - 2) < 0.06 and abs(drawn.std() - 3) < 0.05


@pytest.mark.parametrize(
    ("ask", "expected"),
    [
        (lambda: PlainBandit(np.array([[0.1, 1.2]])), "Bernoulli"),
        (lambda: PlainBandit(np.zeros((0, 2))), "at least one run"),
        (lambda: PlainBandit(np.zeros((1, 2)), "cauchy"), "bernoulli or gaussian"),
        (lambda: PlainBandit(np.zeros((1, 2)), deviation=-1), "deviation = -1"),
        (lambda: PlainBandit.gapped(0), "runs = 0"),
        (lambda: LinearBandit(1, 0, arms=0), "arms = 0"),
        (lambda: LinearBandit(1, 0, scale=0), "scale = 0"),
        (lambda: LinearBandit(1, 0, open_share=0), "open_share = 0"),
        (lambda: FiniteClassBandit(1, 0, lowest=1), "lowest = 1"),
        (lambda: UCB1(-1), "scale=-1"),
        (lambda: EpsilonGreedy(2), "epsilon=2"),
        (lambda: ThompsonSampling(0), "prior=0"),
        (lambda: LinUCB(-1), "width=-1"),
        (lambda: SquareCB(1, floor=2), "floor = 2"),
        (lambda: Delivery(-1), "delay = -1"),
        (lambda: play(PlainBandit.gapped(1), UCB1(), 0, 0), "rounds = 0"),
        (lambda: play(PlainBandit.gapped(1), LinUCB(), 1, 0), "linucb: needs features"),
        (lambda: play(PlainBandit(np.full((1, 2), 3.0), "gaussian"), ThompsonSampling(), 5, 0), r"in \[0, 1\]"),
    ],
)
def test_wrong_input_is_refused_in_one_line(ask, expected):
    with pytest.raises(InputError, match=expected):
        ask()
