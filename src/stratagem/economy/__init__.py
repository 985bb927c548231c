"""An economy of workers and a planner of taxes: a game on two time scales, its references, and those who play it."""

from stratagem.economy.economy import Outcome, Planner, TaxEconomy, Workers
from stratagem.economy.elections import ElectedPlanner, plurality
from stratagem.economy.language import LanguagePlanner, LanguageWorkers, read_hours, read_moves
from stratagem.economy.planners import MOVES, BanditPlanner, CrossEntropyPlanner, FixedRates
from stratagem.economy.population import FULL_TIME, GB2, WEEKS, uniform_skills, us_income_skills
from stratagem.economy.taxes import FLAT, SAEZ_THREE, THREE, US_FEDERAL, US_FEDERAL_RATES, Brackets, saez_rates
from stratagem.economy.workers import AnyWorkers, BanditWorkers, BestResponse

__all__ = [
    "FLAT",
    "FULL_TIME",
    "GB2",
    "MOVES",
    "SAEZ_THREE",
    "THREE",
    "US_FEDERAL",
    "US_FEDERAL_RATES",
    "WEEKS",
    "AnyWorkers",
    "BanditPlanner",
    "BanditWorkers",
    "BestResponse",
    "Brackets",
    "CrossEntropyPlanner",
    "ElectedPlanner",
    "FixedRates",
    "LanguagePlanner",
    "LanguageWorkers",
    "Outcome",
    "Planner",
    "TaxEconomy",
    "Workers",
    "plurality",
    "read_hours",
    "read_moves",
    "saez_rates",
    "uniform_skills",
    "us_income_skills",
]
