"""Self-play of every variant: it agrees with OpenSpiel, follows its paper's rule, and converges."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field

import numpy as np
import pytest

from stratagem.errors import InputError
from stratagem.games import (
    CFR,
    VARIANTS,
    Decision,
    FadingOptimism,
    FlatGame,
    MagnitudeAverage,
    Matching,
    PolynomialAverage,
    PowerDiscount,
    Regrets,
    SelfPlay,
    Terminal,
    VolatileDiscount,
    Volatility,
    cfr,
    cfr_plus,
    compile_game,
    dcfr,
    find_variant,
    matrix_game,
    tree_game,
    vad_cfr,
)

pytestmark = pytest.mark.usefixtures("_numba")

PAYOFFS = np.array([[2.0, -1.0, 0.3], [-1.0, 1.0, -0.4]])


def played(solver: CFR, game: FlatGame, iterations: int) -> SelfPlay:
    play = SelfPlay(solver, game)
    play.advance(iterations)
    return play


# ---- the same as OpenSpiel ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "iterations"), [("kuhn_poker", 200), ("leduc_poker", 40)])
@pytest.mark.parametrize(("variant", "theirs"), [(cfr, "CFRSolver"), (cfr_plus, "CFRPlusSolver")])
def test_every_iteration_is_openspiels(pyspiel, name, iterations, variant, theirs):
    game = compile_game(name)
    play, solver = SelfPlay(variant(), game), getattr(pyspiel, theirs)(pyspiel.load_game(name))
    for _ in range(iterations):
        play.advance()
        solver.evaluate_and_update_policy()
        for strategies, policy in (
            (play.average(), solver.average_policy()),
            (play.current(), solver.current_policy()),
        ):
            for player, strategy in zip(game.players, strategies, strict=True):
                rows = [[odds for _, odds in policy.get_state_policy(state)] for state in player.states]
                assert np.abs(strategy[1:] - np.concatenate(rows)).max() < 1e-9


# ---- the same as the rules written a second time --------------------------------------------------------------------


@dataclass
class Learner:
    """One player of a matrix game, with the rule of a paper as that paper states it."""

    rule: str
    actions: int
    t: int = 0
    strategy: np.ndarray = field(init=False)
    regret: np.ndarray = field(init=False)
    total: np.ndarray = field(init=False)
    ewma: float = 0.0

    def __post_init__(self) -> None:
        self.strategy = np.full(self.actions, 1 / self.actions)
        self.regret, self.total = np.zeros(self.actions), np.zeros(self.actions)

    def learn(self, values: np.ndarray) -> None:
        self.t += 1
        instant = values - self.strategy @ values
        self.total += getattr(self, f"_weight_{self.rule}", self._weight)(np.abs(instant).max()) * self.strategy
        strength = np.maximum(getattr(self, f"_{self.rule}")(instant), 0)
        self.strategy = strength / strength.sum() if strength.sum() > 0 else np.full(self.actions, 1 / self.actions)

    def _weight(self, magnitude: float) -> float:
        return self.t ** {"cfr": 0, "cfr_plus": 1, "dcfr": 2, "pcfr_plus": 2, "dpcfr_plus": 5}[self.rule]

    def _weight_vad_cfr(self, magnitude: float) -> float:
        gamma = min(4, 2 + 1.5 * min(1, magnitude / 2))
        return self.t**gamma / (1 + magnitude**1.5) * max(0.1, (1 + magnitude / 2) ** 0.5) if self.t > 5 else 0.0

    def _cfr(self, instant: np.ndarray) -> np.ndarray:
        self.regret += instant
        return self.regret

    def _cfr_plus(self, instant: np.ndarray) -> np.ndarray:
        self.regret = np.maximum(self.regret + instant, 0)
        return self.regret

    def _dcfr(self, instant: np.ndarray) -> np.ndarray:
        # As the paper has it: add, then multiply by what this iteration says.
        self.regret += instant
        self.regret *= np.where(self.regret >= 0, self.t**1.5 / (self.t**1.5 + 1), 0.5)
        return self.regret

    def _pcfr_plus(self, instant: np.ndarray) -> np.ndarray:
        self.regret = np.maximum(self.regret + instant, 0)
        return self.regret + instant

    def _dpcfr_plus(self, instant: np.ndarray) -> np.ndarray:
        before, now = (self.t - 1) ** 2.3, self.t**2.3
        self.regret = np.maximum(self.regret * before / (before + 1) + instant, 0)
        return self.regret * now / (now + 1) + instant

    def _vad_cfr(self, instant: np.ndarray) -> np.ndarray:
        magnitude = np.abs(instant).max()
        self.ewma = magnitude if self.t == 1 else 0.1 * magnitude + 0.9 * self.ewma
        v = min(1, self.ewma / 2)
        alpha = max(0.1, 1.5 - 0.5 * v)
        beta = min(alpha, -0.1 - 0.5 * v)

        def share() -> np.ndarray:
            up, down = self.t**alpha, self.t**beta
            return np.where(self.regret >= 0, up / (up + 1), down / (down + 1))

        boosted = np.where(instant > 0, 1.1 * instant, instant)
        self.regret = np.maximum(share() * self.regret + boosted, -20)
        hope = max(0, 1 - 0.5 * v) / (1 + (self.t - 1) / 100)
        return np.maximum(share() * self.regret + hope * boosted, 0) ** 1.5


@pytest.mark.parametrize("alternating", [True, False])
@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_follows_its_papers_rule(name, alternating):
    solver = vad_cfr(warm_up=5, shared=False) if name == "vad_cfr" else find_variant(name)
    play = SelfPlay(solver.replace(alternating=alternating), matrix_game(PAYOFFS))
    row, column = Learner(name, 2), Learner(name, 3)
    for t in range(1, 61):
        play.advance()
        answered = row.strategy
        row.learn(PAYOFFS @ column.strategy)
        column.learn(-(row.strategy if alternating else answered) @ PAYOFFS)
        for learner, current in zip((row, column), play.current(), strict=True):
            assert np.abs(current[1:] - learner.strategy).max() < 1e-9, t
        if t > 5:
            for learner, average in zip((row, column), play.average(), strict=True):
                assert np.abs(average[1:] - learner.total / learner.total.sum()).max() < 1e-9, t


# ---- numbers worked by hand -----------------------------------------------------------------------------------------


def test_the_first_iteration_of_cfr_on_two_actions():
    # Against (1/2, 1/2) rows earn (.5, 0): regrets (.25, -.25), and the first is chosen. Columns then see (-2, 1).
    play = played(cfr(), matrix_game(PAYOFFS[:, :2]), 1)
    assert play.regrets()[0].tolist() == [0.0, 0.25, -0.25]
    assert play.current()[0].tolist() == [1.0, 1.0, 0.0]
    assert play.regrets()[1].tolist() == [0.0, -1.5, 1.5]
    assert play.current()[1].tolist() == [1.0, 0.0, 1.0]
    assert play.average()[0].tolist() == [1.0, 0.5, 0.5]


def test_the_first_iteration_of_vad_cfr_boosts_what_went_well():
    # v = .5, regrets (1, -1): R = (1.1, -1), and only the first action is hoped for.
    play = played(vad_cfr(), matrix_game(np.array([[1.0], [-1.0]])), 1)
    assert play.regrets()[0] == pytest.approx([0.0, 1.1, -1.0])
    assert play.current()[0].tolist() == [1.0, 1.0, 0.0]


def test_regrets_never_fall_below_the_floor():
    play = played(vad_cfr(), matrix_game(np.array([[1000.0], [-1000.0]])), 5)
    assert play.regrets()[0][2] == -20.0


def test_without_volatility_boost_and_optimism_vad_cfr_is_discounted_cfr_an_iteration_later():
    plain = CFR(Regrets(VolatileDiscount(beta=0.0)), Matching(VolatileDiscount(beta=0.0)), PolynomialAverage(2.0))
    late = dcfr().replace(regrets=Regrets(PowerDiscount(1.5, 0.0, lag=0)))
    game = matrix_game(PAYOFFS)
    for ours, theirs in zip(played(plain, game, 50).average(), played(late, game, 50).average(), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-12)


# ---- what holds for every variant -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VARIANTS)
def test_averages_and_current_strategies_are_distributions(kuhn, name):
    play = SelfPlay(find_variant(name), kuhn)
    for _ in range(4):
        play.advance(150)
        for strategies in (play.average(), play.current()):
            for strategy in strategies:
                assert (strategy >= 0).all() and np.allclose(strategy[1:].reshape(6, 2).sum(1), 1.0)


@pytest.mark.parametrize(
    ("name", "least"),
    [("cfr", 2e-3), ("cfr_plus", 2e-4), ("dcfr", 5e-4), ("pcfr_plus", 1e-6), ("dpcfr_plus", 1e-9), ("vad_cfr", 1e-9)],
)
def test_a_variant_solves_kuhn(kuhn, name, least):
    play = played(find_variant(name), kuhn, 1000)
    assert kuhn.exploitability(play.average()) < least
    assert kuhn.values(play.average())[0] == pytest.approx(-1 / 18, abs=2 * least)


@pytest.mark.parametrize("name", VARIANTS)
def test_zero_regrets_are_matched_uniformly(name):
    play = played(find_variant(name), matrix_game(np.zeros((3, 2))), 3)
    for strategies in (play.current(), play.average()):
        assert strategies[0] == pytest.approx([1, 1 / 3, 1 / 3, 1 / 3]) and strategies[1] == pytest.approx(
            [1, 0.5, 0.5]
        )


@pytest.mark.parametrize("name", ["dpcfr_plus", "vad_cfr"])
def test_iterations_at_once_are_iterations_one_by_one(kuhn, name):
    at_once, stepwise = played(find_variant(name), kuhn, 30), SelfPlay(find_variant(name), kuhn)
    for _ in range(30):
        stepwise.advance()
    for left, right in zip(at_once.current(), stepwise.current(), strict=True):
        assert left.tolist() == right.tolist()


def test_scaled_payoffs_leave_scale_free_variants_alone(kuhn):
    scaled = kuhn.with_utility(8 * kuhn.utility)
    for name in ("cfr", "cfr_plus", "dcfr", "pcfr_plus", "dpcfr_plus"):
        left, right = (played(find_variant(name), game, 50).average()[0] for game in (kuhn, scaled))
        assert left.tolist() == right.tolist()
    # Volatility has a scale: what counts as large is measured in units of utility.
    left, right = (played(vad_cfr(0), game, 50).average()[0] for game in (kuhn, scaled))
    assert np.abs(left - right).max() > 1e-6


def test_states_that_cannot_be_reached_keep_the_uniform_average():
    never = Decision(1, "never", [("l", Terminal((0.0, 0.0))), ("r", Terminal((0.0, 0.0)))])
    game = tree_game("shut", 2, Decision(0, "s", [("a", Terminal((1.0, -1.0))), ("b", never)]))
    assert played(cfr_plus(), game, 10).average()[1].tolist() == [1.0, 0.5, 0.5]


# ---- the average that is not there yet ------------------------------------------------------------------------------


def test_before_the_warm_up_is_over_the_current_strategies_stand_in(kuhn):
    play = played(vad_cfr(), kuhn, 500)
    assert not play.averaged
    assert [one.tolist() for one in play.average()] == [one.tolist() for one in play.current()]
    play.advance()
    assert play.averaged and np.abs(play.average()[0] - play.current()[0]).max() > 0


def test_one_volatility_for_all_states_and_one_for_each_differ(kuhn):
    shared, own = (played(vad_cfr(0, shared=s), kuhn, 20).current()[0] for s in (True, False))
    assert np.abs(shared - own).max() > 1e-6


def test_parts_of_different_papers_combine(kuhn):
    mixed = CFR(
        Regrets(PowerDiscount(), floor=0.0),
        Matching(VolatileDiscount(), FadingOptimism(), volatility=Volatility(shared=False)),
        MagnitudeAverage(warm_up=100),
    )
    assert kuhn.exploitability(played(mixed, kuhn, 1000).average()) < 1e-4


# ---- bad input ------------------------------------------------------------------------------------------------------


def test_a_game_that_is_not_zero_sum_is_refused():
    game = tree_game("both win", 2, Decision(0, "s", [("a", Terminal((1.0, 1.0))), ("b", Terminal((0.0, 0.0)))]))
    with pytest.raises(InputError, match=r"^CFR: game both win is not zero-sum .* needs two players with opposite"):
        SelfPlay(cfr(), game)


def test_a_game_of_three_is_refused():
    game = tree_game("three", 3, Terminal((1.0, -1.0, 0.0)))
    with pytest.raises(InputError, match=r"^CFR: game three has 3 players; it needs two with opposite utilities$"):
        SelfPlay(cfr(), game)


def test_a_negative_number_of_iterations_is_refused(kuhn):
    with pytest.raises(InputError, match=r"^iterations = -1: must be at least 0$"):
        SelfPlay(cfr(), kuhn).advance(-1)


@pytest.mark.parametrize(
    ("name", "arguments", "error"),
    [
        ("cfr+", {}, r"^unknown variant of CFR 'cfr\+'; did you mean 'cfr'\?$"),
        ("dcfr", {"alhpa": 1.0}, r"^unknown argument of dcfr 'alhpa'; did you mean 'alpha'\?$"),
        ("dcfr", {"alpha": "a"}, r"^power_discount\.alpha = 'a': "),
    ],
)
def test_a_variant_there_is_not_and_a_wrong_argument_are_refused(name, arguments, error):
    with pytest.raises(InputError, match=error):
        find_variant(name, **arguments)


def test_the_catalogue_waits_for_neither_numba_nor_openspiel():
    code = (
        "import sys; from stratagem import catalogue; catalogue.cards('games');"
        "print([name for name in ('numba', 'pyspiel') if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
