"""The final policies of a comparison against each other, where the task says which of two answers is preferred."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from stratagem.errors import BrokenRunError, InputError
from stratagem.estimate import Estimate
from stratagem.parts import Preference
from stratagem.preferences.contests import Answers, JudgedTask, JudgedWorld, exploitability, win_rate
from stratagem.saved import SavedRun
from stratagem.study.comparison import BEFORE, Contest, Plan
from stratagem.study.trials import Place
from stratagem.tasks import registry
from stratagem.training.run_directory import RunDirectory
from stratagem.training.statistics import mean_interval
from stratagem.worlds import build_world


def contests(folder: Path, plan: Plan, seeds: Sequence[int]) -> tuple[Contest, ...]:
    """A contest for every task of the plan that has an oracle of its own.

    Every seed is a tournament: its runs began as one policy, and their last policies (not the best ones, which were
    chosen by how they do against the first) answer the same held-out prompts, and so does that first one.

    folder: of the comparison.  seeds: those with which every arm finished every task.
    """
    found = []
    for task in plan.tasks:
        made = registry.make(task)
        if isinstance(made, JudgedTask) and made.oracle is not None:
            played = [_answers(folder, plan, task, seed) for seed in seeds]
            found.append(contest(task, made.oracle, (*plan.arms, BEFORE), seeds, played))
    return tuple(found)


def contest(
    task: str, oracle: Preference, players: Sequence[str], seeds: Sequence[int], played: Sequence[Sequence[Answers]]
) -> Contest:
    """Everybody against everybody. played: by seed and player.

    Raises :class:`InputError` when the oracle contradicts itself, so that both of two players would win.
    """
    rates = np.stack([_tournament(oracle, answers, players) for answers in played])
    complete = all(answers.complete for row in played for answers in row)
    gaps = None
    if complete:
        by_seed = np.array([[exploitability(oracle, answers) for answers in row] for row in played])
        gaps = tuple(_mean(by_seed[:, player], 0.0, 0.5) for player in range(len(players)))
    return Contest(
        task=task,
        oracle=oracle.part_name(),
        players=tuple(players),
        seeds=tuple(seeds),
        prompts=played[0][0].x.groups,
        exact=complete,
        wins=_means(rates),
        exploitability=gaps,
        by_seed=tuple(tuple(map(tuple, one.tolist())) for one in rates),
    )


def _tournament(
    oracle: Preference, answers: Sequence[Answers], players: Sequence[str]
) -> Float[np.ndarray, "players players"]:
    """Win rates of one seed. A policy against itself ties, and one half of the table follows from the other."""
    rates = np.full((len(players), len(players)), 0.5)
    for i in range(len(players)):
        for j in range(i):
            rates[i, j] = win_rate(oracle, answers[i], answers[j])
            rates[j, i] = 1 - rates[i, j]
            back = win_rate(oracle, answers[j], answers[i])
            if abs(rates[j, i] - back) > 1e-4:
                raise InputError(
                    f"oracle {oracle.part_name()}: contradicts itself: {players[i]} is preferred to {players[j]} in "
                    f"{rates[i, j]:.4f} of comparisons and {players[j]} to {players[i]} in {back:.4f}, not in the rest"
                )
    return rates


def _means(rates: Float[np.ndarray, "seeds players players"]) -> tuple[tuple[Estimate, ...], ...]:
    """Over seeds; what is above the diagonal follows from what is below it, so that both say the same."""
    players = rates.shape[1]
    table = [[Estimate(0.5, 0.5, 0.5)] * players for _ in range(players)]
    for i in range(players):
        for j in range(i):
            below = _mean(rates[:, i, j], 0.0, 1.0)
            table[i][j] = below
            table[j][i] = Estimate(1 - below.value, 1 - below.high, 1 - below.low)
    return tuple(map(tuple, table))


def _mean(values: Float[np.ndarray, " seeds"], least: float, most: float) -> Estimate:
    """Mean and Student interval over seeds, within what is possible."""
    low, high = mean_interval(values.tolist())
    return Estimate(float(values.mean()), max(low, least), min(high, most))


def _answers(folder: Path, plan: Plan, task: str, seed: int) -> list[Answers]:
    """Of the last policy of every arm, and of the one that they all began as."""
    runs = [Place(arm, task, seed).directory(folder) for arm in plan.arms]
    return [
        *(_of_run(run, plan.episodes, trained=True) for run in runs),
        _of_run(runs[0], plan.episodes, trained=False),
    ]


def _of_run(directory: Path, prompts: int, trained: bool) -> Answers:
    saved = SavedRun.read(RunDirectory.existing(directory))
    world = build_world(saved.request, saved.task(), saved.settings.seed)
    try:
        if not isinstance(world, JudgedWorld):
            raise InputError(
                f"task {saved.request.task}: has an oracle, and its world gives no answers for it to judge"
            )
        if trained:
            checkpoint = saved.checkpoint()
            if checkpoint is None:
                raise BrokenRunError(f"run {directory}: has no checkpoint, so its last policy is not known")
            world.policy.load_state_dict(checkpoint.tensors["policy"])
        world.serve(int(trained))
        return world.answers(prompts)
    finally:
        world.close()
