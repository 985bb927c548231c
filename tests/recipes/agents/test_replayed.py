"""ARPO through its recipe: groups that fail get a success again, in the lab and on text; runs that go on exactly."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from stratagem import recipes
from stratagem.claims.agents.replayed import TASKS, by_task, desktop, solved
from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.lab import Exact, Tree
from stratagem.lab.world import LabTask, LabWorld
from stratagem.objectives import Clip
from stratagem.sampling import Rollouts
from stratagem.study.alignment import Alignment
from stratagem.training.loop import Settings, Trainer
from stratagem.training.run_directory import RunDirectory

GAME = desktop(1000)
SMALL = {"sampler.prompts_per_step": 12, "sampler.group_size": 4, "sampler.start_states": tuple(range(6))}


def trainer(recipe: Any, folder: Any, steps: int = 6, **settings: Any) -> Trainer:
    world = LabWorld(LabTask(GAME), 0)
    settings = {"evaluation_episodes": 0, **settings}
    return Trainer(world.adapt(recipe), world, RunDirectory.create(folder), Settings(steps, **settings))


def rows(run: Trainer) -> list[dict[str, float]]:
    logged = run.run_directory.rows("metrics.jsonl")
    return [{n: v for n, v in row.items() if not n.startswith(("timing/", "memory/"))} for row in logged]


# ---- the recipe -----------------------------------------------------------------------------------------------------


def group(worth: list[float], form: list[float]) -> Experience:
    """One group; a reward for the format that counts nothing."""
    count = len(worth)
    return Experience.from_lengths(
        [1] * count, [1] * count, [count], behavior_logp=-torch.ones(count), task_id=torch.zeros(1, dtype=torch.int64),
        reward=torch.tensor([worth, form]).T, reward_names=("reward", "format"), reward_weights=(1.0, 0.0),
    )  # fmt: skip


def test_a_format_that_was_broken_costs_a_half():
    x = recipes.arpo().shape(group([1.0, 0.0, 0.0], [1.0, 1.0, 0.5]))
    assert x.returns.tolist() == [1.0, 0.0, -0.5]
    other = recipes.arpo(format_penalty=0.25).shape(group([1.0, 0.0], [0.0, 1.0]))
    assert other.returns.tolist() == [0.75, 0.0]


def test_its_loss_is_over_tokens_with_a_wider_bound_above_and_no_kl():
    recipe = recipes.arpo()
    assert recipe.objective.gate == Clip(0.2, 0.3) and recipe.objective.regularizer is None
    x = Experience.from_lengths(
        [3, 1], [1, 1], [2], behavior_logp=-torch.ones(4), old_logp=-torch.ones(4), reward=[1.0, 0.0],
        task_id=torch.zeros(1, dtype=torch.int64),
    )  # fmt: skip
    x = recipe.prepare(x)
    # Ratios 1.35 (clipped), 1.25 and 1 of the success; 0.7 of the failure, clipped at 0.8.
    logp = (torch.tensor([1.35, 1.25, 1.0, 0.7]).log() - 1).requires_grad_()
    loss = recipe.objective(PolicyOutput(logp), x).loss
    advantage = 0.5**0.5
    assert loss.item() == pytest.approx(-advantage * (1.3 + 1.25 + 1.0 - 0.8) / 4, rel=1e-5)
    assert (torch.autograd.grad(loss, logp)[0] != 0).tolist() == [False, True, True, False]


def test_numbers_out_of_range_are_refused():
    with pytest.raises(InputError, match="arpo: replay_logprobs = 'kept': must be 'recompute' or 'stored'"):
        recipes.arpo(replay_logprobs="kept")
    with pytest.raises(InputError, match=r"success_replay\.per_task = 0"):
        recipes.arpo(per_task=0)
    with pytest.raises(InputError, match="needs at least 2"):
        recipes.arpo(group_size=1)


# ---- in the lab -----------------------------------------------------------------------------------------------------


class Watching:
    """What the trainer learns from, batch by batch, before it is credited, and what is then held."""

    def __init__(self, run: Trainer) -> None:
        self.batches: list[Experience] = []
        self.held: list[list[Experience]] = []
        complete = run._companions.complete

        def watched(recipe: Any, x: Experience, step: int = 0) -> Experience:
            self.batches.append(complete(recipe, x, step))
            self.held.append(list(run._replay._held))
            return self.batches[-1]

        run._companions.complete = watched  # type: ignore[method-assign]


def fresh(x: Experience) -> torch.Tensor:
    """Trajectories sampled with the newest weights."""
    version = x.trajectory_of_token.max(x.version)
    return version == version.max()


def test_what_is_replayed_was_a_success_of_the_same_start_state_and_of_an_earlier_batch(tmp_path):
    run = trainer(recipes.arpo().with_values(SMALL), tmp_path / "run", 8)
    seen = Watching(run)
    run.run()
    again = 0
    for step, x in enumerate(seen.batches):
        old = ~fresh(x)
        again += int(old.sum())
        assert x.group_of_trajectory.size().tolist() == [4] * 12
        assert bool(x.success[old].all())
        assert bool((x.group_of_trajectory.sum(x.success.long())[x.group_of_trajectory.labels[old]] == 1).all())
        earlier = {
            (int(task), *tokens.tolist())
            for before in seen.batches[:step]
            for task, tokens, good in zip(
                before.group_of_trajectory.spread(before.task_id),
                before.action.split(before.trajectory_of_token.size().tolist()),
                before.success,
                strict=True,
            )
            if good
        }
        tasks = x.group_of_trajectory.spread(x.task_id)
        for row, tokens in enumerate(x.action.split(x.trajectory_of_token.size().tolist())):
            if old[row]:
                assert (int(tasks[row]), *tokens.tolist()) in earlier
    assert not bool((~fresh(seen.batches[0])).any()) and again >= 3


def test_a_first_success_is_not_replayed_in_its_own_batch_though_other_groups_of_its_start_state_fail(tmp_path):
    run = trainer(recipes.arpo().with_values({**SMALL, "sampler.start_states": (3,)}), tmp_path / "run", 8)
    seen = Watching(run)
    run.run()
    first = next(step for step, x in enumerate(seen.batches) if bool(x.success.any()))
    x = seen.batches[first]
    failed = x.group_of_trajectory.sum(x.success.long()) == 0
    assert bool(failed.any()) and all(bool(fresh(x).all()) for x in seen.batches[: first + 1])
    assert seen.held[first][0].trajectories == int(x.success.sum())
    # In the next batch there is one for every group that fails.
    after = seen.batches[first + 1]
    assert bool((after.group_of_trajectory.sum(after.success.long()) > 0).all()) and not bool(fresh(after).all())


def test_recomputed_ratios_begin_at_one_and_stored_ones_at_how_much_likelier_a_token_has_become(tmp_path):
    ratios = {}
    for mode in ("recompute", "stored"):
        run = trainer(recipes.arpo(replay_logprobs=mode).with_values(SMALL), tmp_path / mode, 8)
        seen, ratios[mode] = Watching(run), []
        for _ in range(8):
            before = run.policy.copy()
            run.step()
            x = seen.batches[-1]
            with torch.no_grad():
                out = before(x)
            old = x.trajectory_of_token.spread(~fresh(x))
            ratio = run.recipe.objective.ratio(out, x)
            expected = (out.logp - x.behavior_logp).exp() if mode == "stored" else torch.ones_like(ratio)
            torch.testing.assert_close(ratio, expected.to(ratio.dtype), atol=1e-5, rtol=1e-5)
            ratios[mode].append(ratio[old])
    assert float((torch.cat(ratios["stored"]) - 1).abs().max()) > 0.05


def test_where_nothing_is_held_it_is_grpo_to_the_last_bit(tmp_path):
    never = recipes.arpo(success_above=2.0).with_values(SMALL)
    plain = recipes.grpo().replace(
        objective=never.objective, sampler=never.sampler, advantage=never.advantage, rewards=never.rewards
    )
    runs = [trainer(recipe, tmp_path / name) for name, recipe in (("never", never), ("plain", plain))]
    for run in runs:
        run.run()
    assert torch.equal(runs[0].policy.logits, runs[1].policy.logits)
    assert [row["loss"] for row in rows(runs[0]) if "loss" in row] == [
        row["loss"] for row in rows(runs[1]) if "loss" in row
    ]


@pytest.mark.parametrize("stopped_after", [0, 1])
@pytest.mark.parametrize("mode", ["recompute", "stored"])
def test_a_resumed_run_repeats_an_unbroken_one(tmp_path, stopped_and_resumed, mode, stopped_after):
    """Stopped between batches, or after the first of the three optimizer steps of a batch."""
    recipe = recipes.arpo(replay_logprobs=mode, max_age=9).with_values({**SMALL, "optimization.minibatches": 3})
    unbroken = trainer(recipe, tmp_path / "unbroken")
    unbroken.run()
    broken = trainer(recipe, tmp_path / "broken")
    resumed = stopped_and_resumed(broken, LabWorld(LabTask(GAME), 0), 3, bool(stopped_after))
    assert rows(resumed) == rows(unbroken) and any("replay/share" in row for row in rows(unbroken)[3:])
    assert torch.equal(resumed.policy.logits, unbroken.policy.logits)
    states = [run._replay.state_dict() for run in (resumed, unbroken)]
    assert states[0][1] == states[1][1] and states[0][0].keys() == states[1][0].keys()
    assert all(torch.equal(tensor, states[1][0][name]) for name, tensor in states[0][0].items())


# ---- with a language policy -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["recompute", "stored"])
def test_a_replayed_text_is_read_again_by_the_present_policy(make_world, make_trainer, chatter, small, mode):
    task = chatter(turns=2)
    recipe = small("arpo", sampler__start_states=(1, 2, 3))
    # Whatever is said earns 0, 0.25, ... or 1 by a hash, so that groups of four hardly ever fail by themselves.
    recipe = recipe.with_values({"replay.mean_below": 9.0, "replay.spread_below": 9.0, "replay.success_above": 0.4})
    if mode == "stored":
        recipe = recipe.with_values({"objective.ratio.denominator": "behavior"})
    run = make_trainer(recipe.with_values({"optimization.learning_rate": 0.01}), world=make_world(task), steps=3)
    seen = Watching(run)
    for step in range(3):
        before = run.policy.copy()
        row = run.step()
        x = seen.batches[-1]
        old = ~fresh(x)
        assert int(old.sum()) == (3 if step else 0) and ("replay/share" in row) == (step > 0)
        assert x.task_id.tolist() == [1, 2, 3] and x.group_of_trajectory.size().tolist() == [4, 4, 4]
        with torch.no_grad():
            torch.testing.assert_close(before(x).logp, x.old_logp, atol=1e-5, rtol=1e-4)
        if step:
            tokens = x.trajectory_of_token.spread(old)
            assert float((x.old_logp - x.behavior_logp)[tokens].abs().max()) > 1e-3
            torch.testing.assert_close(x.old_logp[~tokens], x.behavior_logp[~tokens], atol=1e-5, rtol=1e-4)


def test_a_resumed_run_on_text_repeats_an_unbroken_one(make_world, make_trainer, chatter, small, stopped_and_resumed):
    recipe = small("arpo", sampler__start_states=(1, 2, 3)).with_values(
        {"replay.mean_below": 9.0, "replay.spread_below": 9.0, "replay.success_above": 0.4}
    )
    unbroken = make_trainer(recipe, "unbroken", world=make_world(chatter(turns=2)), steps=4)
    unbroken.run()
    broken = make_trainer(recipe, "broken", world=make_world(chatter(turns=2)), steps=4)
    resumed = stopped_and_resumed(broken, make_world(chatter(turns=2)), 2, False)
    volatile = ("timing/", "memory/")
    ours, theirs = ([{n: v for n, v in r.items() if not n.startswith(volatile)} for r in rows(run)]
                    for run in (resumed, unbroken))  # fmt: skip
    assert ours == theirs and all("replay/share" in row for row in ours[1:])


# ---- the tasks to train on ------------------------------------------------------------------------------------------


def test_tasks_are_kept_that_were_solved_at_least_once_and_not_too_often():
    found = Alignment((16,) * 4, (0, 1, 16, 5), (10, 11, 12, 13))
    assert found.solved() == (11, 12, 13)
    assert found.solved(at_most=15) == (11, 13)
    assert found.solved(2, 5) == (13,) and found.solved(17) == () and found.solved(0) == found.prompts
    assert Rollouts(start_states=found.solved()).start_states == (11, 12, 13)
    for wrong in ((-1, None), (3, 2)):
        with pytest.raises(InputError, match="right samples: must be at least 0, and the second no less"):
            found.solved(*wrong)


def test_the_claims_tasks_are_those_its_policy_solves_by_chance():
    tree = Tree.enumerate(desktop(1001))
    start = Exact(tree, tree.normal_logits(1001))
    kept = solved(start, 1001)
    rate = by_task(start)
    assert tree.starts == TASKS == len(rate) and 0 < len(kept) < TASKS
    left = [task for task in range(TASKS) if task not in kept]
    assert float(rate[list(kept)].mean()) > 4 * float(rate[left].mean())
    # All that is right is right: a chain of its own for each task.
    assert float(Exact.greedy(tree, _always_right(tree)).success) == pytest.approx(1.0)


def _always_right(tree: Tree) -> torch.Tensor:
    x = tree.leaves
    right = x.to_tokens(trajectory=x.success.double())
    return tree.total(right)
