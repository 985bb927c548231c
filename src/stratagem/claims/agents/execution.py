"""What is claimed of running queries and programs while one thinks, decided in enumerated games."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

from stratagem.lab import Exact
from stratagem.lab.game import Outcome, TokenGame, over
from stratagem.lab.world import LabTask
from stratagem.recipe import Recipe
from stratagem.recipes.agents.execution import reex_sql, thor
from stratagem.sampling import Disagreeing
from stratagem.study.claims import Expect, claim
from stratagem.study.experiments import Run, learn

# ---- queries on the way ---------------------------------------------------------------------------------------------

COLUMNS, SPELLINGS, TURNS = 3, 4, 3
"""Columns that can be looked at, each also the one that a question is about; ways to spell its value; most turns."""

BROKEN = COLUMNS
"""The token after those of the columns: a query that fails. The final queries, one for each spelling, follow."""


class Asked(NamedTuple):
    """A question, how its value is spelled where that was seen, and what was looked at."""

    question: int
    spelling: int | None = None
    looked: tuple[int, ...] = ()


def _explore(state: Asked, tokens: tuple[int, ...]) -> list[Outcome]:
    """A look at a column, a broken query, or a final query, which is right when it spells the value as it is."""
    token = tokens[0]
    if token > BROKEN:
        return _final(state, token - BROKEN - 1)
    looked = (*state.looked, token)
    if len(looked) == TURNS:
        return over(0.0, truncated=True, exploration=_useful(state.question, looked))
    if token != state.question or state.spelling is not None:
        return [Outcome(state._replace(looked=looked), ran=token != BROKEN)]
    return [Outcome(Asked(state.question, way, looked), 1 / SPELLINGS, ran=True) for way in range(SPELLINGS)]


def _final(state: Asked, way: int) -> list[Outcome]:
    """A wrong final query uses the right tables and columns, so its accuracy is 1/2."""
    odds = 1 / SPELLINGS if state.spelling is None else float(way == state.spelling)
    noted = {"format": 1.0, "execution": 1.0, "exploration": _useful(state.question, state.looked)}
    right = Outcome(probability=odds, reward=1.0, success=True, components=noted)
    return [right, Outcome(probability=1 - odds, reward=0.5, components=noted)]


def _useful(question: int, looked: tuple[int, ...]) -> float:
    """Share of looks that were the first at the question's own column."""
    return float(question in looked) / len(looked) if looked else 0.0


def _repaired(state: tuple[int, int | None], tokens: tuple[int, ...]) -> list[Outcome]:
    """A final query, and a second one when the first found nothing."""
    question, tried = state
    way, first = tokens[0], tried is None
    odds = 1 / SPELLINGS if first else (0.0 if way == tried else 1 / (SPELLINGS - 1))
    noted = {"format": 1.0, "execution": 1.0}
    right = Outcome(probability=odds, reward=1.0, success=True, components=noted)
    if first:
        return [right, Outcome((question, way), 1 - odds)]
    return [right, Outcome(probability=1 - odds, reward=0.5, components=noted)]


REWARDS = ("reward", "format", "execution", "exploration")
WEIGHTS = (1.0, 0.0, 0.0, 0.0)

EXPLORED = TokenGame(
    "explored_query",
    "Three questions about values that are spelled in one of four ways, which a look at the right column tells.",
    BROKEN + 1 + SPELLINGS,
    tuple((1 / COLUMNS, Asked(question)) for question in range(COLUMNS)),
    _explore,
    reward_names=REWARDS,
    reward_weights=WEIGHTS,
)

REPAIRED = TokenGame(
    "repaired_query",
    "The same questions, answered blindly, with a second query when the first one found nothing.",
    SPELLINGS,
    tuple((1 / COLUMNS, (question, None)) for question in range(COLUMNS)),
    _repaired,
    reward_names=REWARDS,
    reward_weights=WEIGHTS,
)


def looks(policy: Exact) -> float:
    """Expected queries on the way."""
    x = policy.tree.leaves
    assert x.action is not None
    return policy.expected(x.trajectory_of_token.sum((x.action <= BROKEN).long()))


@claim(
    "reex_sql",
    statement="Queries that are run while a policy thinks, with a reward that counts useful ones, give more right "
    "final queries than thinking without execution does, and than feedback after the final query, to correct it alone.",
    source="arXiv 2505.12768, abstract (88.8 on Spider and 64.9 on BIRD with a model of 7 billion parameters, 2.7 and "
    "2.6 above the same training without execution)",
    baseline="the best policy without execution; one correction of a final query that found nothing; the same recipe "
    "without the reward for exploration",
    rule=(
        Expect("gain_over_none", above=0),
        Expect("gain_over_repair", above=0),
        Expect("gain_over_unrewarded", above=0),
    ),
    scale="A table of logits in an enumerated game, no language model and no database: three questions about a value "
    "spelled in one of four ways, which a look at the right column tells for sure; two looks at most, 100 batches. "
    "Figures are exact and averaged over the run; a wrong final query counts 1/2. Without a look nobody can be right "
    "more than once in four times, so gain_over_none and the end of the run (last_gain_over_repair) are arithmetic "
    "once looks are learned. With one seed before, looks were learned so late that over the run one correction was "
    "ahead, by 0.05, and in the end behind, by 0.25. Decoding in a tree, and its time, are not measured here.",
)
def reex_sql_explores(seed: int) -> dict[str, float]:
    """Exact success over a run, of the recipe and of others; gain_over_none is over the best blind final query."""
    arms: dict[str, tuple[Recipe, TokenGame]] = {
        "explored": (reex_sql(), EXPLORED),
        "unrewarded": (reex_sql(exploration_weight=0), EXPLORED),
        "zeroed": (reex_sql(wrong_exploration=0), EXPLORED),
        "repaired": (reex_sql(), REPAIRED),
    }
    runs = {name: learn(recipe, LabTask(game), seed, 100) for name, (recipe, game) in arms.items()}
    mean = {name: run.mean(lambda policy: policy.success) for name, run in runs.items()}
    last = {name: run.last.success for name, run in runs.items()}
    return {
        "gain_over_none": mean["explored"] - 1 / SPELLINGS,
        "gain_over_repair": mean["explored"] - mean["repaired"],
        "gain_over_unrewarded": mean["explored"] - mean["unrewarded"],
        "gain_over_zeroed": mean["explored"] - mean["zeroed"],
        "last_gain_over_repair": last["explored"] - last["repaired"],
        "last_gain_over_unrewarded": last["explored"] - last["unrewarded"],
        "success": mean["explored"],
        "last_success": last["explored"],
        "looks": looks(runs["explored"].last),
        "looks_unrewarded": looks(runs["unrewarded"].last),
    }


# ---- failed steps tried again ---------------------------------------------------------------------------------------

PROBLEMS, WORDS, CALLS = 3, 4, 2
"""Problems, words of plan and code, and calls before the answer."""


@dataclass(frozen=True)
class Solving:
    """A problem, and what each call so far returned: 0 or 1 for the right plan, -1 for another, None for a failure."""

    problem: int
    told: tuple[int | None, ...] = ()


def _solve(state: Solving, tokens: tuple[int, ...]) -> list[Outcome] | None:
    """Two turns of plan and code, of which two words of four run, then the two bits they tell as one number."""
    step = len(state.told)
    if step == CALLS:
        return _answered(state, tokens[0])
    if len(tokens) < 2:
        return None
    plan, code = tokens
    if (code - plan - state.problem) % WORDS > 1:
        return [Outcome(Solving(state.problem, (*state.told, None)), ran=False)]
    if plan != (state.problem + step) % WORDS:
        return [Outcome(Solving(state.problem, (*state.told, -1)), ran=True)]
    return [Outcome(Solving(state.problem, (*state.told, bit)), 1 / 2, ran=True) for bit in (0, 1)]


def _answered(state: Solving, answer: int) -> list[Outcome]:
    bits = divmod(answer, 2)
    odds = 1.0
    for bit, told in zip(bits, state.told, strict=True):
        odds *= float(bit == told) if told in (0, 1) else 1 / 2
    return [Outcome(probability=odds, reward=1.0, success=True), Outcome(probability=1 - odds)]


PROGRAMMED = TokenGame(
    "programmed",
    "Three problems of two calls, each a plan and code that may not run, and an answer made of what they tell.",
    WORDS,
    tuple((1 / PROBLEMS, Solving(problem)) for problem in range(PROBLEMS)),
    _solve,
)


def execution(policy: Exact) -> float:
    """Probability that every call is carried out."""
    x = policy.tree.leaves
    assert x.turn_call is not None
    return policy.expected(x.trajectory_of_turn.sum((x.turn_call == 0).long()) == 0)


def foretold(policy: Exact) -> float:
    """By how much likelier the right answer is when every call was carried out than when one failed."""
    x = policy.tree.leaves
    assert x.turn_call is not None and x.success is not None
    ran = x.trajectory_of_turn.sum((x.turn_call == 0).long()) == 0
    odds = policy.expected(ran)
    return policy.expected(ran & x.success) / odds - policy.expected(~ran & x.success) / (1 - odds)


@claim(
    "thor",
    statement="Whether the tool calls on the way succeed foretells whether the answer is right, and learning failed "
    "calls by whether they run, beside solutions by their answers, gives more right answers than solutions alone.",
    source="arXiv 2509.13761, abstract (the best of its size on several mathematical benchmarks, and better on "
    "benchmarks of code)",
    baseline="the same recipe on whole rollouts alone, all of them",
    rule=(Expect("foretold", above=0), Expect("gain_over_rollouts", above=0)),
    scale="A table of logits in an enumerated game, no language model: three problems, two calls of a plan and code of "
    "which half runs, and an answer made of what they tell; 100 batches of 8 groups of 8. Figures are exact and "
    "averaged over the run. Only calls that ran tell anything, so that foretold, of the policy that rollouts alone "
    "taught, is partly arithmetic; it was first measured before learning (foretold_first), where it was 0.004 and "
    "decided nothing. Branches cost samples: rollouts in groups of 12, with as many tokens (gain_over_larger), were as "
    "good with the one seed tried before, and so was the recipe without imitation and without its filter, by 0.02 and "
    "0.03 better. Nothing here is corrected at inference.",
)
def thor_repairs(seed: int) -> dict[str, float]:
    """Exact success over a run, of the recipe and of others; foretold is of the one that rollouts taught."""
    alone = thor(branches=0, group_size=8)
    arms = {
        "thor": thor(branches=8, back=0, group_size=8),
        "rollouts": alone.replace(selections=(Disagreeing(),)),
        "filtered": alone,
        "larger": thor(branches=0, group_size=12).replace(selections=(Disagreeing(),)),
        "plain": thor(branches=8, back=0, imitation=0, group_size=8),
        "unfiltered": thor(branches=8, back=0, group_size=8).replace(selections=(Disagreeing(),)),
    }
    runs = {name: learn(arm, LabTask(PROGRAMMED), seed, 100) for name, arm in arms.items()}
    mean = {name: run.mean(lambda policy: policy.success) for name, run in runs.items()}
    others = [name for name in arms if name != "thor"]
    return {
        "foretold": foretold(runs["rollouts"].last),
        "foretold_first": foretold(runs["rollouts"].policies[0]),
        **{f"gain_over_{name}": mean["thor"] - mean[name] for name in others},
        "last_gain_over_rollouts": runs["thor"].last.success - runs["rollouts"].last.success,
        "execution_gain": _executed(runs["thor"]) - _executed(runs["rollouts"]),
        "success": mean["thor"],
        "last_success": runs["thor"].last.success,
        "execution": execution(runs["thor"].last),
    }


def _executed(run: Run) -> float:
    return fmean(map(execution, run.policies))
