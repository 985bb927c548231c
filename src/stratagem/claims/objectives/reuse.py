"""Claims of reuse: what old batches add at equal rollouts, and what windows add at equal decode steps."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from statistics import fmean

import numpy as np
from jaxtyping import Float
from torch import Tensor

from stratagem.advantages import GAE, BatchWhitened
from stratagem.experience import Experience
from stratagem.lab.game import Outcome, TokenGame, over
from stratagem.lab.world import TABULAR, LabTask
from stratagem.parts import Advantage
from stratagem.recipe import Recipe
from stratagem.recipes import baselines
from stratagem.recipes.objectives import reuse
from stratagem.seeding import derive
from stratagem.study.claims import Expect, claim
from stratagem.study.experiments import Run, expected_return, learn, learn_all
from stratagem.study.statistics import first_reach

IN_THE_LAB = "Tabular policies in enumerated token games of at most ten tokens, judged exactly. "

# ---- old batches -----------------------------------------------------------------------------------------------------

ANSWERED = ("four_by_four", "prompts", "length")
"""One prompt, unequal prompts, lengths of choice."""

SIXTEEN_ROLLOUTS = {"sampler.prompts_per_step": 4, "sampler.group_size": 4, "optimization.minibatches": 1}
"""Of a batch: few, since it is rollouts that are to be saved."""


@claim(
    "remix",
    statement="At equal rollouts, old batches mixed in with a clip around where the update starts, several passes, a "
    "KL that moves and a late return to fresh data learn more than PPO (five math benchmarks, 1.5B: 52.1 % after "
    "0.079M rollouts; PPO 50.6 % after 0.230M); and that clip learns more from old data than one around 1.",
    source="arXiv 2507.06892, abstract and the main results; that the clip has to move is the premise of Mix-PPG",
    baseline="ppo with one pass; for the clip, the same old batches under a clip around 1",
    rule=(Expect("mean_return_gain", above=0), Expect("centered_clip_gain", above=0)),
    scale=IN_THE_LAB + "Batches of 16 rollouts; fresh data alone from batch 10 of 40, as from 50 of 350 in the paper. "
    "A second pass of PPO over fresh batches (two_passes_gain) explains the gain, and in development so did twice its "
    "learning rate. Old batches add little to that (mixed_over_two_passes), and full ReMix is behind its first part "
    "alone (full_over_mixed), since it goes back to one pass. PPO's own clip with the behaviour policy as a weight "
    "(decoupled_ppo) learned the same from old batches to four digits. The KL's stairs begin after these runs end.",
)
def remix(seed: int) -> dict[str, float]:
    """Exact return, mean over 40 batches of 16 rollouts and three games."""
    mixed = reuse.remix(kl_coefficient=0, reincarnate=None)
    around_1 = mixed.with_values({"objective.gate": "clip"})
    arms = [baselines.ppo(epochs=1), baselines.ppo(epochs=2), mixed, around_1, reuse.remix(reincarnate=10)]
    runs = [learn_all(arm.with_values(SIXTEEN_ROLLOUTS), ANSWERED, seed, 40) for arm in arms]
    plain, twice, ours, naive, full = (found.mean(expected_return) for found in runs)
    long = runs[2].runs[ANSWERED.index("length")]
    return {
        "mean_return_gain": full - plain,
        "centered_clip_gain": ours - naive,
        "two_passes_gain": twice - plain,
        "mixed_over_two_passes": ours - twice,
        "full_over_mixed": full - ours,
        "final_return_gain": runs[4].final_return - runs[0].final_return,
        "mean_return": full,
        "drift_long_over_short": long.mean_metric("replay/drift_long") / long.mean_metric("replay/drift_short"),
    }


# ---- windows ---------------------------------------------------------------------------------------------------------


def _tally(marks: int, tokens: tuple[int, ...]) -> list[Outcome] | None:
    if tokens[-1] == 1:
        missed = abs(len(tokens) - 1 - marks)
        return over(max(0.0, 1 - missed / marks), success=missed == 0)
    return over(0.0, truncated=True) if len(tokens) == 10 else None


TALLY = TokenGame(
    "tally",
    "Prompts ask for 1, 2, 4 or 8 marks before the end; partly right when near. Most are short, few are long.",
    2,
    ((0.4, 1), (0.3, 2), (0.2, 4), (0.1, 8)),
    _tally,
)


@dataclass(frozen=True)
class _CutIsTheEnd(Advantage):
    """``of``, blind to what runs on: a response that is cut has ended, with nothing earned."""

    of: Advantage

    def __call__(self, x: Experience) -> Float[Tensor, " tokens"]:
        return self.of(x.replace(running=None, final_value=None))

    def value_target(self, x: Experience) -> Float[Tensor, " tokens"] | None:
        return self.of.value_target(x)


@claim(
    "tppo",
    statement="Learning from responses that are not complete keeps the places of a batch in use and reaches PPO's "
    "result in far fewer decode steps (2.5 times as efficient, 60 % less wall-clock time, AIME 2024 on par or better); "
    "the value of the last state stands in for what a cut response would still earn.",
    source="arXiv 2506.15050, abstract and figure 1 (Qwen2.5-32B); the bootstrap is its extended GAE",
    baseline="ppo on whole responses; for the bootstrap, the same windows with a cut taken for the end",
    rule=(
        Expect("utilization_gain", above=0),
        Expect("decode_ratio", below=0.7),
        Expect("final_return_gain", above=-0.02),
        Expect("bootstrap_gain", above=0),
    ),
    scale=IN_THE_LAB + "Decode steps are counted, not timed: one token of every place in a step. decode_ratio, the "
    "steps until PPO's final return over PPO's own, counts as shown when nearer to the paper's 0.4 than to no "
    "difference. Windows mean three times as many updates for as many steps, and PPO with three times the learning "
    "rate is quicker still (decode_ratio_of_faster_ppo). In development the critic's value of the next state did no "
    "better than that of the last one. One pass over each batch in two mini-batches.",
)
def tppo(seed: int) -> dict[str, float]:
    """Two tables of the tally: 30 batches of 64 whole responses, and windows of 3 for as many decode steps."""
    plain = baselines.ppo(epochs=1).with_values({"sampler.prompts_per_step": 64, "sampler.group_size": 1})
    ours = reuse.tppo(window=3, epochs=1)
    blind = ours.replace(advantage=BatchWhitened(_CutIsTheEnd(GAE(critic_trace=1.0))))
    found = [_compared(plain, ours, blind, derive(seed, "table", table)) for table in range(2)]
    return {name: fmean(figures[name] for figures in found) for name in found[0]}


def _compared(plain: Recipe, ours: Recipe, blind: Recipe, seed: int) -> dict[str, float]:
    whole = learn(plain, LabTask(TALLY), seed, 30)
    budget = _decoded(whole)[-1]
    windows = int(budget // 3)
    cut, ended = (learn(arm, LabTask(TALLY), seed, windows) for arm in (ours, blind))
    faster = learn(plain, LabTask(TALLY), seed, 30, learning_rate=3 * TABULAR["optimization.learning_rate"])
    level = whole.last.expected_return
    return {
        "utilization_gain": cut.mean_metric("decode/utilization") - whole.mean_metric("decode/utilization"),
        "decode_ratio": _steps_until(cut, level) / _steps_until(whole, level),
        "final_return_gain": cut.last.expected_return - level,
        "bootstrap_gain": cut.mean(expected_return) - ended.mean(expected_return),
        "decode_ratio_of_faster_ppo": _steps_until(faster, level) / _steps_until(whole, level),
        "final_return_gain_over_faster_ppo": cut.last.expected_return - faster.last.expected_return,
        "utilization": cut.mean_metric("decode/utilization"),
        "final_return": cut.last.expected_return,
        "blind_final_return": ended.last.expected_return,
    }


def _decoded(run: Run) -> list[float]:
    """Decode steps before learning and after every batch."""
    return list(accumulate((row["decode/steps"] for row in run.metrics), initial=0.0))


def _steps_until(run: Run, level: float) -> float:
    """Decode steps until the return is first at ``level``; all of them when it never is."""
    steps = np.array(_decoded(run))
    returns = np.array([policy.expected_return for policy in run.policies])
    return min(first_reach(steps, returns, level), float(steps[-1]))
