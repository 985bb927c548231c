"""Workers, planners and elections: what they learn, what they find, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest

from stratagem.economy import (
    FLAT,
    MOVES,
    WEEKS,
    BanditPlanner,
    BanditWorkers,
    BestResponse,
    Brackets,
    CrossEntropyPlanner,
    ElectedPlanner,
    FixedRates,
    TaxEconomy,
    plurality,
    us_income_skills,
)
from stratagem.errors import InputError

ECONOMY = TaxEconomy(cost=WEEKS * 0.0005, weighting="skill")
SKILLS = us_income_skills(20, seed=1)


# ---- workers --------------------------------------------------------------------------------------------------------


def test_bandits_try_all_hours_once_and_then_find_the_best_ones():
    economy = TaxEconomy(FLAT, start=0)
    skills = np.array([[5.0, 20.0], [60.0, 20.0]])
    played = economy.run(skills, BanditWorkers(3, epsilon=0.0), FixedRates((0,)), 20)
    hours = np.stack([outcome.hours for outcome in played])
    np.testing.assert_array_equal(np.sort(hours[:11], axis=0)[:, 0, 0], np.arange(0, 101, 10))
    grid = np.arange(0, 101, 10.0)
    best = grid[(skills[..., None] * grid - 0.0005 * grid**3.5).argmax(-1)]
    np.testing.assert_array_equal(hours[11:], np.broadcast_to(best, (9, 2, 2)))


def test_bandits_forget_old_taxes():
    economy = TaxEconomy(FLAT, start=100, largest_move=None, every=60)
    played = economy.run(np.full(5, 20.0), BanditWorkers(3, epsilon=0.3, rate=0.5), FixedRates((0,)), 500)
    hours = np.stack([outcome.hours for outcome in played])
    # Alone with its tax of 100 %, work only costs; the rebate of five is worth a little.
    assert np.median(hours[30:60]) < 30 and np.median(hours[-100:]) == 40


def test_bandits_can_strive_for_welfare_or_harm():
    economy = TaxEconomy(FLAT, weighting="skill", cost=WEEKS * 0.0005)
    skills = np.array([50.0, 2000.0])

    def mean_welfare(aims):
        return economy.run(skills, BanditWorkers(3, epsilon=0.0, aims=aims), FixedRates((50,)), 200)[-1].welfare

    good, own, bad = (mean_welfare(aims) for aims in (("own", "welfare"), ("own", "own"), ("own", "harm")))
    # The rich worker's tax is worth more to the poor one than it costs.
    assert good > own > bad


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda: BanditWorkers(0, epsilon=1.5), r"epsilon = 1\.5.*must be in \[0, 1\]"),
        (lambda: BanditWorkers(0, rate=0), r"rate = 0"),
        (lambda: BanditWorkers(0, spacing=0), r"spacing = 0"),
        (lambda: BanditWorkers(0, aims=("selfish",)), r"aims \['selfish'\]: must be own, welfare or harm"),
        (lambda: ECONOMY.run(SKILLS, BanditWorkers(0, aims=("own",)), FixedRates((0, 0, 0)), 1), "1 aims for 20"),
        (lambda: ECONOMY.run(SKILLS, BanditWorkers(0, spacing=30), FixedRates((0, 0, 0)), 1), "must divide 100 hours"),
    ],
)
def test_wrong_workers_are_refused(ask, said):
    with pytest.raises(InputError, match=said):
        ask()


# ---- planners -------------------------------------------------------------------------------------------------------


def test_the_bandit_stays_on_the_grid_below_its_optimum_and_comes_near_it():
    skills = np.stack([us_income_skills(20, seed) for seed in (1, 2, 3)])
    planner = BanditPlanner(7)
    played = ECONOMY.run(skills, BestResponse(), planner, 2000)
    planner.note(played[-1])
    rates = np.stack([outcome.rates for outcome in played])
    assert not (rates % 10).any() and rates.min() >= 0 and rates.max() <= 100
    assert (np.abs(np.diff(rates, axis=0)) <= 20).all()
    best = np.array([ECONOMY.stackelberg(row).welfare for row in skills])
    assert (np.stack([outcome.welfare for outcome in played]) <= best * (1 + 1e-12)).all()
    found = ECONOMY.respond(skills, planner.best((3, 3))).welfare
    assert (found > 0.95 * best).all()


def test_the_bandit_goes_by_mean_welfare():
    planner = BanditPlanner(7, explore=0.0)
    economy = TaxEconomy(FLAT)
    for rate, hours in ((50, 40.0), (60, 41.0), (60, 10.0)):
        planner.note(economy.settle(np.array([20.0]), np.array([hours]), [rate]))
    first = economy.settle(np.array([20.0]), np.array([40.0]), [50])
    means = {
        50: first.welfare,
        60: np.mean([economy.settle(np.array([20.0]), np.array([h]), [60]).welfare for h in (41.0, 10.0)]),
    }
    assert planner.best((1,))[0] == max(means, key=means.__getitem__)


def test_the_cross_entropy_method_finds_a_schedule_as_good_as_the_grids():
    economy = TaxEconomy(cost=WEEKS * 0.0005, weighting="skill", every=1, largest_move=None)
    planner = CrossEntropyPlanner(7)
    economy.run(SKILLS, BestResponse(), planner, 300)
    found = economy.respond(SKILLS, np.round(planner.mean)).welfare
    assert found > 0.99 * economy.stackelberg(SKILLS).welfare


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda: BanditPlanner(0, explore=-0.1), r"explore = -0\.1: must be in \[0, 1\]"),
        (lambda: CrossEntropyPlanner(0, elite=21), "elite = 21"),
        (lambda: CrossEntropyPlanner(0, batch=1, elite=1), "batch = 1"),
        (lambda: CrossEntropyPlanner(0, least=0), "least = 0"),
        (lambda: ECONOMY.run(SKILLS, BestResponse(), FixedRates((0.2, 0, 0)), 26), r"tax rate 0\.2: must be in per"),
    ],
)
def test_wrong_planners_are_refused(ask, said):
    with pytest.raises(InputError, match=said):
        ask()


# ---- elections ------------------------------------------------------------------------------------------------------


def test_the_candidate_with_the_most_votes_wins():
    assert plurality((1, 1, 2), np.random.default_rng(0)) == 1


def test_a_tie_is_drawn_and_the_seed_decides():
    won = [plurality((4, 1, 1, 4, 2), np.random.default_rng(seed)) for seed in range(200)]
    assert won == [plurality((4, 1, 1, 4, 2), np.random.default_rng(seed)) for seed in range(200)]
    assert set(won) == {1, 4} and 60 < won.count(1) < 140


def test_an_election_without_votes_is_refused():
    with pytest.raises(InputError, match="nobody votes"):
        plurality((), np.random.default_rng(0))


@pytest.mark.parametrize(("skills", "expected"), [((100.0, 110, 9000), 70), ((100.0, 9000, 9100), 30)])
def test_a_majority_of_the_poor_votes_for_a_tax_and_one_of_the_rich_against_it(skills, expected):
    economy = TaxEconomy(FLAT, every=1)
    played = economy.run(np.array(skills), BestResponse(), ElectedPlanner(1, candidates=None), 2)
    assert played[-1].rates.tolist() == [expected]


def test_a_single_candidate_wins_with_what_is_best_for_them():
    economy = TaxEconomy(FLAT, every=1)
    skills = np.array([100.0, 110, 9000])
    won = {ElectedPlanner(seed, candidates=1)(economy, skills, [economy.respond(skills, [50])])[0] for seed in range(9)}
    utility = economy.respond(skills, 50 + np.array(MOVES)[:, None]).utility
    assert won == set((50 + np.array(MOVES))[utility.argmax(0)])
    assert len(won) > 1


def test_elections_in_several_economies_keep_them_apart():
    economy = TaxEconomy(FLAT, every=1)
    skills = np.array([[100.0, 110, 9000], [100.0, 9000, 9100]])
    played = economy.run(skills, BestResponse(), ElectedPlanner(1, candidates=None), 2)
    assert played[-1].rates.tolist() == [[70], [30]]


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda: ElectedPlanner(0, candidates=0), "candidates = 0: must be at least 1"),
        (lambda: ECONOMY.run(SKILLS, BestResponse(), ElectedPlanner(0, 21), 26), "21 candidates among 20 workers"),
        (
            lambda: TaxEconomy(Brackets(tuple(range(8)))).run(SKILLS, BestResponse(), ElectedPlanner(0), 26),
            "too many platforms for 8 brackets",
        ),
    ],
)
def test_elections_that_cannot_be_held_are_refused(ask, said):
    with pytest.raises(InputError, match=said):
        ask()
