"""Exploratory iteration through its recipe: single steps in the loss, GRPO without a share, one run after a resume."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from stratagem import catalogue
from stratagem.advantages import DiversityBonus, GroupStandardized
from stratagem.claims.reasoning import iteration
from stratagem.claims.reasoning.iteration import BITS, STEPS, iterated, score, seen
from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.lab import find_game
from stratagem.lab.world import LabTask, LabWorld
from stratagem.recipe import Recipe
from stratagem.recipes import exit_exploratory_iteration, grpo
from stratagem.sampling import Improving, Rollouts
from stratagem.seeding import generator
from stratagem.tasks import ImproveTask
from stratagem.training.loop import Trainer


@pytest.fixture
def attempts(chatter):
    """Whatever is said earns something by a hash, and may be said again."""
    return ImproveTask(chatter(turns=1, patience=1), attempts=4, divergence=0.5)


def always(small, **values) -> Recipe:
    return small("exit_exploratory_iteration", sampler__share=1.0, **values)


def rows(run: Trainer) -> list[dict[str, Any]]:
    logged = run.run_directory.rows("metrics.jsonl")
    return [{n: v for n, v in row.items() if not n.startswith(("timing/", "memory/"))} for row in logged]


def same(x: Experience, y: Experience) -> None:
    for name in ("action", "behavior_logp", "reward", "seed", "episode", "success", "finished"):
        assert torch.equal(getattr(x, name), getattr(y, name)), name
    assert torch.equal(x.inputs.token_ids, y.inputs.token_ids)


def test_it_is_grpo_with_other_rollouts_and_a_bonus():
    ours = exit_exploratory_iteration()
    assert ours.sampler == Improving(share=0.5) and ours.advantage == DiversityBonus(GroupStandardized(), 0.1)
    assert ours.objective == grpo().objective
    card = catalogue.card("exit_exploratory_iteration")
    assert (card.arxiv, card.family, card.base) == ("2509.04575", "reasoning", "grpo")
    assert Recipe.from_yaml(ours.to_yaml()) == ours


def test_without_share_and_bonus_batches_and_losses_are_those_of_grpo_on_the_task_itself(
    make_world, chatter, attempts, small
):
    ours = exit_exploratory_iteration(0.0, 0.0).with_values({"sampler.prompts_per_step": 3, "sampler.group_size": 4})
    plain, worlds = small("grpo"), (make_world(attempts), make_world(chatter(turns=1, patience=1)))
    for step in range(3):
        batches = []
        for recipe, world in zip((ours, plain), worlds, strict=True):
            world.serve(step)
            batches.append(world.collect(recipe.sampler, step).x)
        same(*batches)
        assert torch.equal(batches[0].task_id, batches[1].task_id)
        credits = [recipe.prepare(x) for recipe, x in zip((ours, plain), batches, strict=True)]
        assert torch.equal(credits[0].advantage, credits[1].advantage)
        out = PolicyOutput(batches[0].behavior_logp - 0.1)
        assert float(ours.objective(out, credits[0]).loss) == float(plain.objective(out, credits[1]).loss)


def test_what_was_attempted_before_is_prompt_and_only_the_last_attempt_trains(make_world, attempts, small):
    recipe, world = always(small), make_world(attempts)
    world.serve(0)
    first = world.collect(recipe.sampler, 0).x
    assert bool((first.task_id >= 0).all()) and recipe.sampler.histories
    held = recipe.sampler.begun()
    second = world.collect(recipe.sampler, 1).x
    assert bool((second.task_id < 0).all())
    # One turn a trajectory: its own tokens are all the rows there are, and earlier attempts stand in the prompt.
    assert second.turns == second.trajectories and second.mask is None
    prompts = second.inputs.token_ids.split(second.inputs.lengths.tolist())
    written = second.action.split(second.trajectory_of_token.size().tolist())
    for row, group in enumerate(second.group_of_trajectory.labels.tolist()):
        text = world._stage.chat.said(prompts[row][: -len(written[row])])
        history = held[int(second.task_id[group])]
        assert world._stage.chat.said(history.attempts[-1]).strip() in text and "Score: " in text
        assert len(prompts[row]) > len(written[row]) + len(history.attempts[-1])
    deeper = recipe.sampler.histories
    assert max(one.depth for one in deeper) == 2


def test_histories_get_longer_than_any_episode_and_are_logged(make_trainer, make_world, attempts, small):
    run = make_trainer(always(small, sampler__priority="none"), world=make_world(attempts))
    rows = [run.step() for _ in range(6)]
    assert rows[0]["improving/share"] == 0 and rows[-1]["improving/share"] == 1
    assert rows[-1]["improving/max_depth"] >= 3 and rows[-1]["episodes/mean_turns"] == 1
    assert all(row["grad_norm"] > 0 for row in rows)


@pytest.mark.parametrize("within", [False, True])
def test_a_resumed_run_repeats_an_unbroken_one(make_trainer, make_world, attempts, small, stopped_and_resumed, within):
    recipe = small("exit_exploratory_iteration", optimization__minibatches=2)

    def trainer(name: str):
        return make_trainer(recipe, name, make_world(attempts), steps=5, checkpoint_every=100)

    unbroken = trainer("unbroken")
    unbroken.run()
    resumed = stopped_and_resumed(trainer("broken"), make_world(attempts), 3, within)
    assert rows(resumed) == rows(unbroken) and rows(unbroken)[-1]["improving/max_depth"] > 1
    assert resumed.recipe.sampler.histories == unbroken.recipe.sampler.histories != []
    expected = unbroken.policy.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in resumed.policy.state_dict().items())


def test_evaluation_is_many_attempts_from_none(make_world, chatter):
    best, last = (
        make_world(ImproveTask(chatter(turns=1, patience=1), attempts=6, judged=judged)) for judged in ("best", "last")
    )
    for world in (best, last):
        world.serve(0)
    one = make_world(chatter(turns=1, patience=1))
    one.serve(0)
    results = {name: world.evaluate(24, "sampled") for name, world in (("best", best), ("last", last), ("one", one))}
    assert results["last"].mean_length == 6 > results["best"].mean_length > 1
    assert results["best"].mean_return > results["one"].mean_return
    assert results["best"].success > max(results["last"].success, results["one"].success)


def test_a_task_without_attempts_is_refused_with_the_task_to_take(make_world, chatter, small):
    world = make_world(chatter())
    world.serve(0)
    with pytest.raises(InputError, match=r"improving: task 'chatter' has no attempts.*train on improve:chatter"):
        world.collect(small("exit_exploratory_iteration").sampler, 0)


def test_games_of_the_lab_are_rolled_out_as_ever():
    ours, plain = Improving(share=1.0, prompts_per_step=4), Rollouts(prompts_per_step=4)
    world = LabWorld(LabTask(find_game("prompts")), 1000)
    world.serve(0)
    for step in range(2):
        x, y = (world.collect(sampler, step).x for sampler in (ours, plain))
        assert x.groups == y.groups == 4 and bool((x.task_id >= 0).all())
    assert ours.histories == []


# ---- the chain, and the strings of the claim ------------------------------------------------------------------------


def test_iteration_climbs_a_chain_that_single_tries_cannot():
    """A try goes up by one with probability a and never down: from 0, a k after k tries; the best of k tries alone
    is at most 1."""
    level = torch.zeros(4000, dtype=torch.int64)
    source, alone = generator(1000, "chain"), torch.zeros(4000, dtype=torch.int64)
    for _ in range(16):
        level += torch.rand(4000, generator=source) < 0.5
        alone = alone.maximum((torch.rand(4000, generator=source) < 0.5).long())
    assert float(level.double().mean()) == pytest.approx(8, abs=5 * (4 / 4000) ** 0.5)
    assert float(alone.double().mean()) == pytest.approx(1 - 0.5**16, abs=1e-3)


def test_strings_score_by_their_leading_blocks():
    hidden = torch.ones(BITS, dtype=torch.bool)
    cases = torch.ones(4, BITS, dtype=torch.bool)
    cases[1, 0] = cases[2, 5] = cases[3, -1] = False
    assert score(cases, hidden).tolist() == pytest.approx([1, 0, 2 / 6, 5 / 6])


def test_a_table_that_keeps_what_is_right_and_searches_behind_it_climbs():
    """Solved bits are copied and others drawn at random: the best score grows with every step beyond single tries."""
    table = torch.zeros(BITS, 4, 2, 3)
    table[:, iteration.SOLVED, 1], table[:, iteration.SOLVED, 0] = 20.0, -20.0
    hidden = torch.rand(256, BITS, generator=generator(1000, "hidden")) < 0.5
    best = iterated(table.flatten(), hidden, generator(1000, "run")).cummax(0).values.mean(1)
    single = iterated(torch.zeros(BITS * 24), hidden, generator(1000, "run")).cummax(0).values.mean(1)
    assert len(best) == STEPS and bool((best.diff() > 0).all())
    assert float(best[-1]) > 1.5 * float(single[-1])


def test_the_better_of_the_attempts_shown_is_what_is_built_on():
    hidden = torch.ones(1, BITS, dtype=torch.bool)
    shown = torch.ones(1, 2, BITS, dtype=torch.bool)
    shown[0, 0, 4] = shown[0, 1, 0] = False
    cells = seen(shown, torch.tensor([2]), hidden)[0] - torch.arange(BITS) * 24
    relation = cells // 6
    assert relation.tolist() == [iteration.SOLVED] * 4 + [iteration.FRONTIER] * 2 + [iteration.BEYOND] * 6
    assert cells[4] == (iteration.FRONTIER * 2 + 0) * 3 + 1 and cells[5] == (iteration.FRONTIER * 2 + 1) * 3
    assert seen(shown, torch.tensor([0]), hidden)[0].tolist() == (torch.arange(BITS) * 24).tolist()
