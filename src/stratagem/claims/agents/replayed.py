"""What is claimed of agents that replay their successes, in sequences of clicks of which one is right."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from statistics import fmean

import torch
from jaxtyping import Float64
from torch import Tensor

from stratagem.lab import Exact, Outcome, TokenGame, Tree, over
from stratagem.lab.draw import draw
from stratagem.lab.world import LabTask
from stratagem.recipe import Recipe
from stratagem.recipes.agents.replayed import arpo
from stratagem.seeding import derive, generator
from stratagem.study.alignment import Alignment
from stratagem.study.claims import Expect, claim
from stratagem.study.experiments import Run, learn

TASKS, WIDGETS, SHORTEST, LENGTHS = 128, 4, 2, 3
"""So many sequences of clicks on one of so many widgets, two, three or four long."""

ATTEMPTS = 16
"""Of each task by the policy a run begins with; a task it never solves is not trained on."""

BATCHES, GROUPS, GROUP_SIZE = 80, 16, 8


def desktop(seed: int) -> TokenGame:
    """Tasks of clicks, each on one widget; a wrong one ends the episode with nothing, the last right one pays 1."""
    tasks = tuple((1 / TASKS, (task, 0)) for task in range(TASKS))
    return TokenGame("desktop", "Click the widgets of a task in their order.", WIDGETS, tasks, partial(_clicked, seed))


def _clicked(seed: int, state: tuple[int, int], tokens: tuple[int, ...]) -> Sequence[Outcome]:
    task, done = state
    if tokens[0] != derive(seed, "widget", task, done) % WIDGETS:
        return over(0.0)
    return over(1.0) if done + 1 == SHORTEST + task % LENGTHS else [Outcome((task, done + 1))]


def by_task(policy: Exact) -> Float64[Tensor, " tasks"]:
    """Probability of success, for each task."""
    x = policy.tree.leaves
    assert x.success is not None
    reached = x.group_of_trajectory.sum(policy.leaf_probability)
    return x.group_of_trajectory.sum(policy.leaf_probability * x.success) / reached


def solved(policy: Exact, seed: int) -> tuple[int, ...]:
    """The tasks that the policy solves at least once in so many attempts."""
    attempts = draw(
        policy.tree.leaves, policy.leaf_probability, TASKS, ATTEMPTS, generator(seed, "attempts"), torch.arange(TASKS)
    )
    assert attempts.success is not None
    correct = attempts.group_of_trajectory.sum(attempts.success.long())
    return Alignment((ATTEMPTS,) * TASKS, tuple(correct.tolist())).solved()


def flat_groups(run: Run, tasks: Sequence[int]) -> float:
    """Expected share of groups without variance, over the run: all failed or all succeeded, less those replayed into.

    A group has one replayed trajectory at most, so ``replay/share`` tells how many have one.
    """
    alike = []
    for policy, row in zip(run.policies, run.metrics, strict=False):
        rate = by_task(policy)[list(tasks)]
        flat = float((rate**GROUP_SIZE + (1 - rate) ** GROUP_SIZE).mean())
        alike.append(flat - GROUP_SIZE * row.get("replay/share", 0.0))
    return fmean(alike)


@claim(
    "arpo",
    statement="On tasks that the model solves at least now and then, an earlier success put into groups that failed as "
    "a whole raises success on the tasks trained on over GRPO without it (68.7 % before training, 72.9 % with GRPO, "
    "83.9 % with replay, on 128 tasks of OSWorld), for fewer groups have no variance.",
    source="arXiv 2505.16282, abstract and main results (UI-TARS-1.5 of 7 billion parameters; OSWorld overall 23.5, "
    "26.0 and 29.9 %)",
    baseline="the same recipe without replay",
    rule=(Expect("gain_over_grpo", above=0), Expect("flat_groups_saved", above=0)),
    scale="A table of logits in an enumerated game: 128 tasks of two to four clicks on one of four widgets; a wrong "
    "one ends the episode. Figures are exact probabilities on the tasks that the policy a run begins with solves at "
    "least once in 16 attempts, after 80 batches of 16 groups of 8. No screens, no model, and a task's clicks say "
    "nothing of another's. A first version had 40 tasks on six widgets, of which 4 were solved beforehand and soon "
    "always: neither arm had anything left to gain, so tasks became easier and more, under the same rule. The cheap "
    "control explains more than the replay does: at twice the learning rate GRPO gained two to three times as much on "
    "the seeds of development (grpos_gain_of_twice_the_rate), and beside it replay then gained next to nothing "
    "(gain_over_grpo_both_at_twice_the_rate). flat_groups_saved counts groups that replay turned and those that a "
    "better policy no longer fails.",
)
def arpo_replays(seed: int) -> dict[str, float]:
    """Success after 80 batches of 16 groups of 8, on tasks that were solved before training, and on all."""
    game = desktop(derive(seed, "game"))
    task, tree = LabTask(game), Tree.enumerate(game)
    start = Exact(tree, tree.normal_logits(derive(seed, "table")))
    kept = solved(start, seed)
    sizes = {"sampler.prompts_per_step": GROUPS, "sampler.group_size": GROUP_SIZE}
    ours = arpo().with_values(sizes)

    def run(recipe: Recipe, tasks: Sequence[int] = kept, learning_rate: float | None = None) -> Run:
        chosen = recipe.with_values({"sampler.start_states": tuple(tasks)})
        return learn(chosen, task, seed, BATCHES, start, learning_rate)

    plain = ours.replace(replay=None)
    replayed, grpo, stored = run(ours), run(plain), run(arpo(replay_logprobs="stored").with_values(sizes))
    unfiltered = run(ours, range(TASKS))
    faster = [run(recipe, learning_rate=0.1) for recipe in (ours, plain)]

    def success(done: Run, tasks: Sequence[int] = kept) -> float:
        return float(by_task(done.last)[list(tasks)].mean())

    return {
        "gain_over_grpo": success(replayed) - success(grpo),
        "flat_groups_saved": flat_groups(grpo, kept) - flat_groups(replayed, kept),
        "success": success(replayed),
        "success_of_grpo": success(grpo),
        "success_before": float(by_task(start)[list(kept)].mean()),
        "gain_with_stored_logprobs": success(stored) - success(grpo),
        "gain_of_filter_on_all_tasks": success(replayed, range(TASKS)) - success(unfiltered, range(TASKS)),
        "grpos_gain_of_twice_the_rate": success(faster[1]) - success(grpo),
        "gain_over_grpo_both_at_twice_the_rate": success(faster[0]) - success(faster[1]),
        "flat_groups_of_grpo": flat_groups(grpo, kept),
        "tasks_kept": float(len(kept)),
    }
