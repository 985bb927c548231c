"""Bandits: arms with fixed means, with contexts and with states; policies, exact regret, logs and their evaluation."""

from stratagem.bandits.exploration import Exploration, Greedy, InverseGap, ReweightedCosts, floored
from stratagem.bandits.generations import BatchedDeployment, Generations, Payments, PaymentWorld
from stratagem.bandits.off_policy import Evaluation
from stratagem.bandits.oracles import Aggregated, Oracle, Ridge
from stratagem.bandits.periodic import (
    ExploreThenPlan,
    KnownPeriods,
    LearnedPeriods,
    PeriodicPlan,
    PurelyPeriodic,
    upper_bound,
)
from stratagem.bandits.play import Delivery, Log, Played, play
from stratagem.bandits.policies import (
    UCB1,
    EpsilonGreedy,
    FastCB,
    GreedyOracle,
    LinUCB,
    OraclePolicy,
    Policy,
    SquareCB,
    ThompsonSampling,
    Uniform,
    squarecb_gamma,
)
from stratagem.bandits.problems import Bandit, FiniteClassBandit, LinearBandit, PlainBandit, View
from stratagem.bandits.pulling import Curve, Pulled, pull
from stratagem.bandits.regressors import EachRun, LogisticRegression, Regressor
from stratagem.bandits.scheduling import (
    BestNow,
    LastSwitchBandit,
    RecoveringBandit,
    RestBlind,
    RestingBandit,
    RoundRobin,
    Scheduler,
    follow,
)
from stratagem.bandits.switching import Cycles, KnownCycles, LearnedCycles, RestAndPlay

__all__ = [
    "UCB1",
    "Aggregated",
    "Bandit",
    "BatchedDeployment",
    "BestNow",
    "Curve",
    "Cycles",
    "Delivery",
    "EachRun",
    "EpsilonGreedy",
    "Evaluation",
    "Exploration",
    "ExploreThenPlan",
    "FastCB",
    "FiniteClassBandit",
    "Generations",
    "Greedy",
    "GreedyOracle",
    "InverseGap",
    "KnownCycles",
    "KnownPeriods",
    "LastSwitchBandit",
    "LearnedCycles",
    "LearnedPeriods",
    "LinUCB",
    "LinearBandit",
    "Log",
    "LogisticRegression",
    "Oracle",
    "OraclePolicy",
    "PaymentWorld",
    "Payments",
    "PeriodicPlan",
    "PlainBandit",
    "Played",
    "Policy",
    "Pulled",
    "PurelyPeriodic",
    "RecoveringBandit",
    "Regressor",
    "RestAndPlay",
    "RestBlind",
    "RestingBandit",
    "ReweightedCosts",
    "Ridge",
    "RoundRobin",
    "Scheduler",
    "SquareCB",
    "ThompsonSampling",
    "Uniform",
    "View",
    "floored",
    "follow",
    "play",
    "pull",
    "squarecb_gamma",
    "upper_bound",
]
