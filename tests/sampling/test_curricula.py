"""What a run remembers of start states, and curricula that choose by it: in any world, and again after a resume."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch

from stratagem.advantages import GroupStandardized
from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.lab import find_game
from stratagem.lab.world import LabTask, LabWorld
from stratagem.parts import Curriculum
from stratagem.prompts import Pool, PromptHistory
from stratagem.recipe import Recipe
from stratagem.recipes import grpo
from stratagem.sampling import (
    Budgeted,
    Domains,
    DynamicSampling,
    Learnability,
    Rollouts,
    Shuffled,
    SuccessBand,
    kept_groups,
)
from stratagem.seeding import generator
from stratagem.training.loop import Settings, Trainer
from stratagem.training.run_directory import RunDirectory


def round_of(returns: list[list[float]], **fields: Any) -> Experience:
    """Groups of trajectories of one token."""
    count = sum(map(len, returns))
    flat = [value for group in returns for value in group]
    return Experience.from_lengths([1] * count, [1] * count, list(map(len, returns)), reward=flat, **fields)


def numbers(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64)


def history(rates: dict[int, list[float]]) -> PromptHistory:
    """Visits of two trajectories each, the oldest first; each score is 0, 0.5 or 1."""
    kept = PromptHistory.blank(numbers())
    for step in range(max(map(len, rates.values()), default=0)):
        seen = {start: scores[step] for start, scores in rates.items() if step < len(scores)}
        x = round_of([[float(score > 0), float(score > 0.5)] for score in seen.values()])
        kept = kept.drawn(numbers(*seen)).noted(numbers(*seen), x, step)
    return kept


def pool(kept: PromptHistory, size: int) -> Pool:
    everything = torch.arange(size)
    return Pool(everything, kept.at(everything), kept)


@dataclass(frozen=True)
class _Uneven(Curriculum):
    """The first start states; the last of them gets what the others leave of theirs."""

    def choose(self, pool: Pool, groups: int, source: torch.Generator) -> torch.Tensor:
        return torch.arange(groups)

    def sizes(self, pool: Pool, chosen: torch.Tensor, group_size: int, source: torch.Generator) -> torch.Tensor:
        least = torch.full_like(chosen, 2)
        least[-1] = len(chosen) * group_size - 2 * (len(chosen) - 1)
        return least

    def size_bounds(self, groups: int, group_size: int) -> tuple[int, int]:
        return 2, groups * group_size - 2 * (groups - 1)


# ---- the history ----------------------------------------------------------------------------------------------------


def test_a_visit_is_all_that_came_of_a_start_state_in_a_round():
    x = round_of([[1, 0], [3, 1, 2], [1, 1]], success=[True, False, True, False, False, True, True])
    kept = PromptHistory.blank(numbers(), window=2).drawn(numbers(7, 2, 7)).noted(numbers(7, 2, 7), x, step=4)
    assert kept.number.tolist() == [2, 7] and kept.draws.tolist() == [1, 2] and kept.visits.tolist() == [1, 1]
    assert kept.trajectories.tolist() == [3, 4] and kept.step.tolist() == [4, 4]
    assert kept.scores.tolist() == [1, 3] and kept.returns.tolist() == [6, 3]
    assert kept.variance.tolist() == pytest.approx([2 / 3, 3 / 16])
    assert kept.recent_score().tolist() == pytest.approx([1 / 3, 3 / 4])
    assert kept.recent_return().tolist() == pytest.approx([2, 3 / 4])
    assert kept.difficulty.tolist() == pytest.approx([2 / 3, 1 / 4])


def test_recent_visits_come_first_and_old_ones_are_forgotten():
    kept = history({3: [0, 0.5, 1]})
    assert kept.recent_scores[0, :4].tolist()[:3] == [1, 0.5, 0] and bool(kept.recent_scores[0, 3].isnan())
    assert kept.recent_score(1).tolist() == [1] and kept.recent_score(2).tolist() == [0.75]
    assert kept.recent_score().tolist() == [0.5]
    short = kept.windowed(2)
    assert short.recent_scores.tolist() == [[1, 0.5]] and short.windowed(3).recent_scores[0, 2].isnan()


def test_without_successes_the_score_is_the_return():
    kept = PromptHistory.blank(numbers()).noted(numbers(0), round_of([[2.0, 4.0]]), 0)
    assert kept.recent_score().tolist() == [3] and kept.difficulty.tolist() == [0]


def test_returns_that_are_no_numbers_and_demonstrations_are_not_counted():
    x = round_of([[1, float("nan"), 0], [float("inf"), float("inf")]])
    kept = PromptHistory.blank(numbers()).noted(numbers(5, 6), x, 0)
    assert kept.number.tolist() == [5] and kept.trajectories.tolist() == [2] and kept.recent_score().tolist() == [0.5]
    shown = round_of([[1, 0, 1]], demonstrated=[False, False, True])
    assert PromptHistory.blank(numbers()).noted(numbers(5), shown, 0).trajectories.tolist() == [2]


def test_of_start_states_never_seen_nothing_is_known():
    rows = history({4: [1]}).at(numbers(9, 4, 0))
    assert rows.number.tolist() == [9, 4, 0] and rows.visits.tolist() == [0, 1, 0] and rows.step.tolist() == [-1, 0, -1]
    assert rows.recent_score().isnan().tolist() == [True, False, True]
    assert rows.success_rate().tolist() == [0.5, 0.75, 0.5]
    assert rows.success_rate(prior=0).tolist() == [0.5, 1, 0.5]


def test_the_order_in_which_groups_came_back_does_not_matter():
    returns = [[1.0, 0.0], [0.25, 0.5], [1.0, 1.0]]
    one = PromptHistory.blank(numbers()).noted(numbers(3, 1, 2), round_of(returns), 0)
    other = PromptHistory.blank(numbers()).noted(numbers(2, 3, 1), round_of([returns[2], *returns[:2]]), 0)
    for name, column in one.state_dict().items():
        assert torch.equal(column.nan_to_num(-1), other.state_dict()[name].nan_to_num(-1)), name


# ---- the curricula --------------------------------------------------------------------------------------------------


def test_shuffled_takes_every_start_state_once_before_one_comes_again():
    sampler = Rollouts(prompts_per_step=5, group_size=2, curriculum=Shuffled(prompts=12))
    drawn = [
        group.start
        for step in range(12)
        for group in sampler.planned(range(5), lambda step=step: generator(1000, "choice", step))
    ]
    for first in range(0, 60, 12):
        assert sorted(drawn[first : first + 10]) == sorted(set(drawn[first : first + 10]))
    assert sampler.history.draws.tolist() == [5] * 12
    assert drawn[:12] != sorted(drawn[:12])
    more = Rollouts(prompts_per_step=7, curriculum=Shuffled(prompts=3))
    assert sorted(g.start for g in more.planned(range(7), lambda: generator(0)))[::2] in (
        [0, 0, 1, 2],
        [0, 1, 1, 2],
        [0, 1, 2, 2],
    )


def test_domains_get_the_same_number_of_groups_whatever_their_pools():
    # Domain 0 has 40 start states, domain 4 one.
    starts = (*range(0, 200, 5), 1, 6, 11, 2, 7, 3, 8, 4)
    sampler = Rollouts(prompts_per_step=20, start_states=starts, curriculum=Domains(domains=5))
    seen = []
    for step in range(100):
        chosen = numbers(*(g.start for g in sampler.planned(range(20), lambda step=step: generator(step), step)))
        assert torch.bincount(chosen % 5).tolist() == [4] * 5
        seen += [number for number in chosen.tolist() if number % 5 == 0]
    for first in range(0, 400, 40):
        assert len(set(seen[first : first + 40])) == 40


def test_the_remainder_goes_round_the_domains():
    sampler = Rollouts(prompts_per_step=4, curriculum=Domains(prompts=6, domains=3))
    counts = torch.zeros(3)
    for step in range(6):
        chosen = numbers(*(g.start for g in sampler.planned(range(4), lambda step=step: generator(step), step)))
        counts += torch.bincount(chosen % 3, minlength=3)
        assert counts.max() - counts.min() <= 1
    assert counts.tolist() == [8, 8, 8]


def test_a_domain_without_start_states_is_an_error():
    sampler = Rollouts(prompts_per_step=4, curriculum=Domains(prompts=2, domains=3))
    with pytest.raises(InputError, match=r"domains.domains = 3: none of the 2 start states is of domain 2"):
        sampler.planned(range(4), lambda: generator(0))


def test_a_success_band_takes_what_lies_in_it_and_what_is_new_then_the_nearest():
    kept = history({0: [1, 1], 1: [0.5, 0.5], 2: [0, 0], 3: [0.5]})
    band = SuccessBand(low=0.3, high=0.6, explore=0)
    assert band.choose(pool(kept, 5), 3, generator(0)).tolist() == [4, 3, 1]
    assert band.choose(pool(kept, 5), 5, generator(0)).tolist() == [4, 3, 1, 2, 0]
    with pytest.raises(InputError, match=r"success_band.low = 0.9: must be at most high = 0.8"):
        SuccessBand(low=0.9)


def test_exploring_goes_to_what_was_not_visited_for_longest():
    kept = history({0: [0], 1: [0, 0], 2: [0.5, 0.5, 0.5], 3: [0.5, 0.5, 0.5]})
    band = SuccessBand(explore=0.5)
    assert sorted(band.choose(pool(kept, 4), 4, generator(0)).tolist()) == [0, 1, 2, 3]
    assert 0 in band.choose(pool(kept, 4), 2, generator(0)).tolist()
    rarely = SuccessBand(explore=0.25)
    found = [0 in rarely.choose(pool(kept, 4), 2, generator(n)).tolist() for n in range(200)]
    assert 0.35 < sum(found) / 200 < 0.65


def test_learnability_draws_in_proportion_to_the_variance_of_a_trial():
    kept = history({0: [1] * 3, 1: [0.5] * 3, 2: [0] * 3})
    rates = (7 / 8, 1 / 2, 1 / 8)
    weights = torch.tensor([p * (1 - p) + 1e-3 for p in rates])
    drawn = torch.tensor([int(Learnability(explore=0).choose(pool(kept, 3), 1, generator(n))) for n in range(2000)])
    torch.testing.assert_close(torch.bincount(drawn, minlength=3) / 2000, weights / weights.sum(), atol=0.04, rtol=0)


# ---- in a sampler ---------------------------------------------------------------------------------------------------


def test_without_a_curriculum_start_states_come_as_they_always_did_and_nothing_is_remembered():
    def never() -> torch.Generator:
        raise AssertionError

    sampler = Rollouts(group_size=3, start_states=(5, 2))
    assert sampler.planned(range(3, 6), never) == [(2, 3), (5, 3), (2, 3)]
    assert Rollouts(group_size=3).planned(range(3, 6), never) == [(3, 3), (4, 3), (5, 3)]
    assert sampler.memory() == {} and len(sampler.history) == 0
    x = round_of([[1, 0]])
    assert sampler.note(x, 0) is x and sampler.figures(numbers(0)) == {}


def test_rejected_groups_count_and_are_replaced_by_others():
    sampler = DynamicSampling(prompts_per_step=2, group_size=2, curriculum=Shuffled(prompts=6), refill_rounds=2)
    asked = []

    def roll(count: int, attempt: int) -> Experience:
        planned = sampler.planned(range(count), lambda: generator(attempt), step=3)
        asked.append([group.start for group in planned])
        same = [[1.0, 1.0]] * count
        return round_of(same, task_id=numbers(*asked[-1]))

    kept = kept_groups(sampler, roll, 3)
    assert sorted(chain.from_iterable(asked)) == list(range(6))
    assert sampler.history.visits.tolist() == [1] * 6 and sampler.history.step.tolist() == [3] * 6
    assert kept.metrics["curriculum/difficulty"] == 0 and kept.metrics["curriculum/seen"] == 6


def test_a_sampler_keeps_its_history_when_something_of_it_changes():
    sampler = Rollouts(prompts_per_step=2, group_size=2, curriculum=Shuffled(prompts=6))
    sampler.planned(range(2), lambda: generator(0))
    sampler.note(round_of([[1, 0]], task_id=numbers(4)), 0)
    warmer = sampler.replace(temperature=2.0)
    assert torch.equal(warmer.history.draws, sampler.history.draws) and warmer.history.visits.sum() == 1
    other = sampler.replace(curriculum=Learnability(prompts=6, window=2))
    assert other.history.visits.sum() == 1
    other.note(round_of([[1, 1]], task_id=numbers(4)), 1)
    assert other.history.window == 2
    assert other.history.at(numbers(4)).recent_scores.tolist() == [[1, 0.5]]
    assert sampler.history.visits.sum() == 1


def test_what_to_choose_from_must_be_known():
    with pytest.raises(InputError, match=r"curriculum shuffled: prompts = None: must be a number"):
        Rollouts(curriculum=Shuffled()).planned(range(1), lambda: generator(0))
    with pytest.raises(
        InputError, match=r"curriculum shuffled: start state 8: the task has only the start states 0 to 3"
    ):
        Rollouts(start_states=(8, 1), curriculum=Shuffled()).planned(range(1), lambda: generator(0), known=4)
    with pytest.raises(InputError, match=r"shuffled.prompts = 0: input should be greater than or equal to 1"):
        Shuffled(prompts=0)


def test_a_recipe_refuses_groups_too_small_for_its_advantage():
    @dataclass(frozen=True)
    class _Single(_Uneven):
        def size_bounds(self, groups: int, group_size: int) -> tuple[int, int]:
            return 1, groups * group_size

    recipe = grpo()
    assert recipe.advantage.least_group() == 2
    with pytest.raises(InputError, match=r"sampler.curriculum = 1: advantage .* needs at least 2"):
        recipe.replace(sampler=Rollouts(curriculum=_Single()))


def test_a_curriculum_is_written_to_yaml_and_read_back():
    recipe = grpo().with_values({"sampler.curriculum": Domains(domains=3, of=Learnability(floor=0.5))})
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe


# ---- in worlds ------------------------------------------------------------------------------------------------------


def test_the_lab_rolls_out_what_the_curriculum_says_in_groups_of_its_sizes():
    world = LabWorld(LabTask(find_game("prompts")), 1000)
    sampler = Rollouts(prompts_per_step=3, group_size=4, curriculum=_Uneven())
    x = world.collect(sampler, 0).x
    assert x is not None and x.task_id is not None and x.task_id.tolist() == [0, 1, 2]
    assert x.group_of_trajectory.size().tolist() == [2, 2, 8]
    roots = x.inputs.node[x.trajectory_of_token.first()]
    assert len(roots.unique()) == 3 and torch.equal(
        roots, x.group_of_trajectory.spread(roots[x.group_of_trajectory.first()])
    )
    assert sampler.history.trajectories.tolist() == [2, 2, 8]


def test_groups_of_the_same_size_are_drawn_as_without_a_curriculum():
    @dataclass(frozen=True)
    class _InOrder(_Uneven):
        def sizes(self, pool: Pool, chosen: torch.Tensor, group_size: int, source: torch.Generator) -> torch.Tensor:
            return torch.full_like(chosen, group_size)

    task = LabTask(find_game("prompts"))
    ours = LabWorld(task, 1000).collect(Rollouts(3, 4, curriculum=_InOrder()), 0).x
    theirs = LabWorld(task, 1000).collect(Rollouts(3, 4, start_states=(0, 1, 2)), 0).x
    assert ours is not None and theirs is not None
    assert torch.equal(ours.action, theirs.action) and torch.equal(ours.seed, theirs.seed)


def test_advantages_are_of_each_group_by_itself_whatever_its_size():
    world = LabWorld(LabTask(find_game("prompts")), 1001)
    x = world.collect(Rollouts(prompts_per_step=3, group_size=6, curriculum=_Uneven()), 0).x
    assert x is not None
    advantage = GroupStandardized()(x)
    for group in range(3):
        alone = x.select(x.group_of_trajectory.labels == group)
        torch.testing.assert_close(advantage[x.group_of_token.labels == group], GroupStandardized()(alone))


def test_domains_are_noted_in_the_batch():
    world = LabWorld(LabTask(find_game("prompts")), 1000)
    x = world.collect(Rollouts(prompts_per_step=4, group_size=2, curriculum=Domains(domains=2)), 0).x
    assert x is not None and x.domain is not None and x.task_id is not None
    assert torch.equal(x.domain, x.task_id % 2) and torch.equal(x.domain_of_group.labels, x.domain)
    assert sorted(x.domain.tolist()) == [0, 0, 1, 1]


@pytest.mark.parametrize("curriculum", [Learnability(window=3), Domains(domains=2, of=SuccessBand()), Budgeted()])
def test_a_resumed_run_chooses_as_an_unbroken_one(tmp_path: Path, curriculum: Curriculum):
    sampler = DynamicSampling(prompts_per_step=3, group_size=4, refill_rounds=2, curriculum=curriculum)
    recipe = grpo().replace(sampler=sampler)

    def trainer(folder: str, steps: int, fresh: bool = True) -> Trainer:
        world = LabWorld(LabTask(find_game("prompts")), 1000)
        path = tmp_path / folder
        run = RunDirectory.create(path) if fresh else RunDirectory(path)
        settings = Settings(steps, 1000, evaluation_episodes=0, sample_episodes=0, checkpoint_every=3)
        return Trainer(recipe, world, run, settings)

    whole, half = trainer("whole", 6), trainer("half", 3)
    whole.run(), half.run()
    again = trainer("half", 6, fresh=False)
    again.resume(again.run_directory.load())
    again.run()
    assert len(recipe.sampler.history) == 0
    for name, column in whole.recipe.state_dict().items():
        assert torch.equal(column.nan_to_num(-9), again.recipe.state_dict()[name].nan_to_num(-9)), name
    assert "sampler.number" in whole.recipe.state_dict()
    assert torch.equal(whole.policy.state_dict()["logits"], again.policy.state_dict()["logits"])
    rows = [[r["curriculum/visits"] for r in t.run_directory.rows("metrics.jsonl")] for t in (whole, again)]
    assert rows[0] == rows[1] and len(rows[0]) == 6
