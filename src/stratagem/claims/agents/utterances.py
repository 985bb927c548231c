"""The claim of critics of whole utterances, in an enumerated game of questions."""

from __future__ import annotations

from collections.abc import Sequence

from stratagem.lab import Outcome, TokenGame
from stratagem.lab.world import LabTask
from stratagem.recipes import baselines
from stratagem.recipes.agents.utterances import archer
from stratagem.study.claims import Expect, claim
from stratagem.study.experiments import batches_until, best_return, learn, score

EPISODES, BATCHES, WARMUP = 32, 100, 5
QUESTIONS = 4
OBJECTS = frozenset(range(8))

ASKED = tuple(
    frozenset(chosen)
    for chosen in ([o for o in OBJECTS if o & 1], [o for o in OBJECTS if o & 2], [o for o in OBJECTS if o & 4], [0])
)
"""The objects for which the answer to each of the four questions is yes."""


def _ask(state: tuple[int, frozenset[int]], tokens: tuple[int, ...]) -> Sequence[Outcome] | None:
    """A question is said in two tokens; the episode ends once a single object is left, or with the fourth question."""
    if len(tokens) < 2:
        return None
    turn, left = state
    outcomes = []
    yes = ASKED[2 * tokens[0] + tokens[1]]
    for rest in (left & yes, left - yes):
        if not rest:
            continue
        odds = len(rest) / len(left)
        if len(rest) == 1:
            outcomes.append(Outcome(None, odds, 0.0, True))
        elif turn == QUESTIONS - 1:
            outcomes.append(Outcome(None, odds, -1.0))
        else:
            outcomes.append(Outcome((turn + 1, rest), odds, -1.0))
    return outcomes


GUESS = TokenGame(
    "guess",
    "One of eight objects: up to four yes-or-no questions of two tokens, each of which costs 1 but the one that tells.",
    2,
    ((1.0, (0, OBJECTS)),),
    _ask,
)


@claim(
    "archer",
    statement="Critics of whole utterances, learned off policy, make a policy gradient inside utterances about 100 "
    "times as sample-efficient as PPO on tokens in tasks of many turns (Twenty Questions, Guess My City, WebShop).",
    source="arXiv 2402.19446, abstract",
    baseline="PPO and REINFORCE on whole conversations, batches of the same size",
    rule=(Expect("speedup_over_ppo", above=1), Expect("speedup_over_reinforce", above=1)),
    scale="A table of logits over histories in an enumerated game of questions: eight objects, at most four questions"
    " of two tokens. A speedup is of the episodes until nine tenths of the way from the first table's return to"
    " the best one, in batches of 32 and at one learning rate, at most 100 batches, with the episodes of a "
    "warm-up of five batches counted (the published one is of 20 batches of 128); the rule asks for any speedup"
    " at all. A table needs no representation, which is what most of the published critic learns, and its "
    "episodes have four turns at most. speedup_over_fast_reinforce is over REINFORCE at four times the learning"
    " rate, a cheap control. In the two seeds tried it and PPO needed half of the episodes of ArCHer or fewer. "
    "A first version had 150 batches, cut for time, and an arm without replay, which took a third more batches "
    "than ArCHer.",
)
def archer_until_nine_tenths(seed: int) -> dict[str, float]:
    """Batches of the baselines until the level over those of ArCHer."""
    sizes = {"sampler.prompts_per_step": EPISODES, "sampler.group_size": 1}
    arms = {
        "archer": (archer(warmup=WARMUP), None),
        "ppo": (baselines.ppo(), None),
        "reinforce": (baselines.reinforce(), None),
        "fast_reinforce": (baselines.reinforce(), 0.2),
    }
    runs = {
        name: learn(arm.with_values(sizes), LabTask(GUESS), seed, BATCHES, learning_rate=rate)
        for name, (arm, rate) in arms.items()
    }
    first = runs["archer"].policies[0].expected_return
    level = first + 0.9 * (best_return(runs["archer"].last) - first)
    needed = {name: max(batches_until(run, level), 1.0) for name, run in runs.items()}
    return {
        **{f"speedup_over_{name}": needed[name] / needed["archer"] for name in needed if name != "archer"},
        **{f"batches_{name}": value for name, value in needed.items()},
        **{f"score_{name}": score(run) for name, run in runs.items()},
    }
