"""Old log-probabilities of the right weights: kept by version, averaged, and the same after a resume."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.lab import GAMES, TabularPolicy
from stratagem.lab.world import LabTask, LabWorld
from stratagem.objectives import IterationStart, MovingAverage, SamplingVersion
from stratagem.parts import Proximal
from stratagem.recipe import Recipe
from stratagem.recipes import grpo, missing_old_logits
from stratagem.training.anchors import anchor
from stratagem.training.companions import Companions
from stratagem.training.loop import Settings, Trainer
from stratagem.training.run_directory import RunDirectory
from stratagem.training.weights import learned, put, taken

CORRIDOR = GAMES["corridor"]


def number(value: float) -> TabularPolicy:
    """A policy of a single weight that matters."""
    return TabularPolicy(torch.tensor([[value, 0.0]]))


def move(policy: Any, value: float) -> None:
    with torch.no_grad():
        policy.logits[0, 0] = value


def averaged(proximal: MovingAverage, values: list[float], active: list[float] | None = None) -> tuple[float, float]:
    """Mean of the weight and sum of its weights, after it went through these values."""
    policy = number(values[0])
    kept = anchor(proximal, policy)
    for place, value in enumerate(values[1:]):
        move(policy, value)
        kept.moved(proximal, 1.0 if active is None else active[place])
    state = kept.state_dict()
    return float(state["mean.logits"][0, 0]), float(state["weight"])


# ---- averages -------------------------------------------------------------------------------------------------------


def test_the_average_worked_by_hand():
    mean, weight = averaged(MovingAverage(window=2), [0, 1, 2])
    assert weight == 1.75 and mean == pytest.approx(2.5 / 1.75)


def test_the_average_is_the_weighted_sum_over_all_weights():
    values = torch.randn(12, generator=torch.Generator().manual_seed(0)).tolist()
    beta = 6 / 8
    shares = [beta ** (11 - place) for place in range(12)]
    expected = sum(share * value for share, value in zip(shares, values, strict=True)) / sum(shares)
    assert averaged(MovingAverage(window=6), values)[0] == pytest.approx(expected, abs=1e-6)


def test_a_steadily_moving_policy_is_half_a_window_ahead():
    steps = list(range(60))
    assert 59 - averaged(MovingAverage(window=8), steps)[0] == pytest.approx(4, abs=1e-3)


def test_a_window_of_nothing_is_the_policy_and_an_endless_one_the_plain_mean():
    assert averaged(MovingAverage(window=0), [3, 1, 2])[0] == 2
    assert averaged(MovingAverage(window=float("inf")), [3, 1, 2])[0] == pytest.approx(2)


@pytest.mark.parametrize(("active", "starts_over"), [(0.89, True), (0.91, False)])
def test_the_average_starts_over_when_too_few_tokens_are_active(active, starts_over):
    """From 4 on, with half the weight for every step: the sum of weights starts over, too."""
    mean, weight = averaged(MovingAverage(window=2), [0, 4, 1], [active, 1.0])
    if starts_over:
        assert (mean, weight) == (pytest.approx((0.5 * 4 + 1) / 1.5), 1.5)
    else:
        assert (mean, weight) == (pytest.approx((0.25 * 0 + 0.5 * 4 + 1) / 1.75), 1.75)


def test_the_average_starts_over_exactly_at_the_present_weights():
    policy = TabularPolicy(torch.randn(5, 3, generator=torch.Generator().manual_seed(0)))
    kept = anchor(MovingAverage(), policy)
    with torch.no_grad():
        policy.logits.mul_(1 / 3)
    kept.moved(MovingAverage(), 0.5)
    assert torch.equal(kept.state_dict()["mean.logits"], policy.logits)


def test_tied_weights_are_averaged_once(make_policy):
    policy = make_policy(seed=1, value_head=True)
    kept = anchor(MovingAverage(window=2), policy)
    first = taken(policy)
    with torch.no_grad():
        for parameter in policy.policy_parameters():
            parameter.add_(3.0)
    kept.moved(MovingAverage(window=2), 1.0)
    state = kept.state_dict()
    for name, tensor in first.items():
        torch.testing.assert_close(state[f"mean.{name}"], tensor + 2.0)


# ---- what is kept ---------------------------------------------------------------------------------------------------


def test_what_a_policy_has_learned_is_not_its_critic_and_can_be_put_back(make_policy):
    policy = make_policy(seed=1, value_head=True)
    names = learned(policy)
    assert names and not any("value_head" in name or "median_head" in name for name in names)
    assert sum(t.numel() for t in names.values()) == sum(p.numel() for p in policy.policy_parameters())
    before = taken(policy)
    with torch.no_grad():
        for parameter in policy.policy_parameters():
            parameter.add_(1.0)
    assert not any(torch.equal(tensor, before[name]) for name, tensor in learned(policy).items())
    put(policy, before)
    assert all(torch.equal(tensor, before[name]) for name, tensor in learned(policy).items())


def test_no_more_versions_are_kept_than_asked_for():
    policy, proximal = number(0.0), SamplingVersion(keep=2)
    kept = anchor(proximal, policy)
    for version in (0, 0, 4, 8):
        move(policy, version)
        kept.served(proximal, version)
    assert {name: float(t[0, 0]) for name, t in kept.state_dict().items()} == {"4.logits": 4, "8.logits": 8}


# ---- the log-probabilities of the weights that sampled --------------------------------------------------------------


@dataclass
class Loop:
    """A world whose policy drifts at random, beside companions that complete its batches, and what an oracle noted.

    The oracle keeps every version whole and asks it at once about the tokens it wrote.
    """

    world: LabWorld
    recipe: Recipe

    def __post_init__(self) -> None:
        self.companions = Companions(self.world.policy, self.recipe)

    def batches(self, count: int, steps: int = 3, drift: float = 0.3) -> Iterator[tuple[Experience, Tensor]]:
        """Completed batches, and the oracle's log-probabilities."""
        source, version, ages = torch.Generator().manual_seed(0), 0, {}
        for step in range(count):
            self.world.serve(version)
            self.companions.served(self.recipe, version)
            ages[version] = self.world.policy.copy()
            x = self.world.collect(self.recipe.sampler, step).x
            said = torch.stack([policy(x).logp for policy in ages.values()])
            place = torch.tensor([list(ages).index(age) for age in x.version.tolist()])
            yield self.companions.complete(self.recipe, x), said[place, torch.arange(x.tokens)]
            for _ in range(steps):
                with torch.no_grad():
                    for parameter in self.world.policy.policy_parameters():
                        parameter.add_(drift * torch.randn(parameter.shape, generator=source))
                self.companions.moved(self.recipe, {})
                version += 1


def recipe_with(proximal: Proximal | None, **values: Any) -> Recipe:
    return grpo().replace(proximal=proximal, **values)


@pytest.mark.parametrize("mismatch", [0.0, 0.3])
@pytest.mark.parametrize("route", ["snapshots", "recorded"])
def test_every_exact_route_says_what_a_synchronous_oracle_noted(route, mismatch):
    """In float64 to the last bit, with trajectories that four versions wrote."""
    task = LabTask(CORRIDOR, staleness=3, partial=2, mismatch=mismatch)
    world = LabWorld(task, 0, LabWorld(task, 0).policy.double())
    spanned = 0
    for x, oracle in Loop(world, recipe_with(SamplingVersion(route))).batches(7):
        assert x.old_logp.dtype == oracle.dtype == torch.float64
        assert float((x.old_logp - oracle).abs().max()) == 0
        whole = x.trajectory_of_token
        spanned = max(spanned, int((whole.max(x.version) - whole.min(x.version)).max()))
    assert spanned == 9


def test_in_float32_and_with_experts_the_routes_agree_up_to_rounding():
    task = LabTask(CORRIDOR, staleness=2, partial=3, mismatch=0.05, experts=4)
    for x, oracle in Loop(LabWorld(task, 0), recipe_with(SamplingVersion())).batches(4, drift=0.05):
        torch.testing.assert_close(x.old_logp, oracle, rtol=0, atol=1e-6)
        torch.testing.assert_close(x.version_logp, oracle, rtol=0, atol=1e-6)


@pytest.mark.parametrize("bound", [None, 9])
def test_a_language_policy_is_asked_in_pieces_as_it_was_when_it_sampled(make_world, bound):
    """Two batches of two versions in one, as a slow rollout brings them."""
    world = make_world()
    recipe = recipe_with(SamplingVersion()).with_values({"optimization.microbatch_tokens": bound})
    companions, batches, oracle = Companions(world.policy, recipe), [], []
    for version in (0, 1):
        world.serve(version)
        companions.served(recipe, version)
        batches.append(world.collect(recipe.with_values({"sampler.prompts_per_step": 2}).sampler, version).x)
        oracle.append(world.policy(batches[-1]).logp.detach())
        with torch.no_grad():
            for parameter in world.policy.policy_parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(version)))
        companions.moved(recipe, {})
    x = companions.complete(recipe, Experience.concatenate(batches))
    torch.testing.assert_close(x.old_logp, torch.cat(oracle), rtol=0, atol=1e-5)
    assert float((x.old_logp - world.policy(x).logp.detach()).abs().max()) > 1e-3


def test_with_one_engine_the_discrepancy_is_one_for_exact_routes_and_holds_the_staleness_otherwise():
    task = LabTask(CORRIDOR, staleness=2)
    exact, naive, mean = (
        [float((x.old_logp - x.behavior_logp).abs().max()) for x, _ in Loop(LabWorld(task, 0), recipe).batches(4)]
        for recipe in (
            recipe_with(SamplingVersion()),
            recipe_with(None).with_values({"optimization.minibatches": 2}),
            recipe_with(MovingAverage()),
        )
    )
    assert max(exact) < 1e-6
    assert naive[0] < 1e-6 and min(naive[1:]) > 0.1
    assert mean[0] < 1e-6 and min(mean[1:]) > 0.1


def test_the_average_is_asked_as_it_is_when_the_batch_arrives():
    world = LabWorld(LabTask(CORRIDOR), 0)
    recipe = recipe_with(MovingAverage(window=2, reset_below=0))
    loop, weights = Loop(world, recipe), []
    for place, (x, _) in enumerate(loop.batches(4, steps=1)):
        weights.append(world.policy.table())
        shares = torch.tensor([0.5 ** (place - k) for k in range(place + 1)]).view(-1, 1, 1)
        mean = TabularPolicy((shares * torch.stack(weights)).sum(0) / shares.sum())
        torch.testing.assert_close(x.old_logp, mean(x).logp.detach())


# ---- tokens of weights that are gone --------------------------------------------------------------------------------


def test_a_version_that_is_no_longer_kept_is_named():
    loop = Loop(LabWorld(LabTask(CORRIDOR, staleness=3), 0), recipe_with(SamplingVersion(keep=2)))
    with pytest.raises(
        InputError, match=r"version 0 is not kept \(kept: 2, from 3 to 6; raise proximal.keep = 2\)"
    ) as caught:
        list(loop.batches(4))
    assert "\n" not in str(caught.value)


def test_or_its_tokens_are_masked_and_only_those():
    task = LabTask(CORRIDOR, staleness=3, partial=1)
    loop = Loop(LabWorld(task, 0), recipe_with(SamplingVersion(keep=2, missing="mask")))
    *_, (x, oracle) = loop.batches(6)
    known = x.version >= 12
    assert 0 < int(known.sum()) < x.tokens and torch.equal(x.mask, known)
    torch.testing.assert_close(x.old_logp[known], oracle[known])


@pytest.mark.parametrize(
    ("proximal", "lacking", "problem"),
    [
        (SamplingVersion(), {"version": None}, "no version tags"),
        (SamplingVersion("recorded"), {"version_logp": None}, "no version_logp was recorded"),
    ],
)
def test_tokens_without_a_tag_or_a_note_are_never_taken_for_the_newest(proximal, lacking, problem):
    world, recipe = LabWorld(LabTask(CORRIDOR), 0), recipe_with(proximal)
    companions = Companions(world.policy, recipe)
    companions.served(recipe, 0)
    x = world.collect(recipe.sampler, 0).x
    with pytest.raises(InputError, match=problem):
        companions.complete(recipe, x.replace(**lacking))
    masking = recipe.with_values({"proximal.missing": "mask"})
    assert not companions.complete(masking, x.replace(**lacking)).mask.any()
    unread = x.replace(**lacking, mask=torch.zeros(x.tokens, dtype=torch.bool))
    assert companions.complete(recipe, unread).old_logp is not None


def test_a_proximal_that_nobody_keeps_weights_for_is_refused():
    class Guessed(Proximal):
        """Of an unknown kind."""

    with pytest.raises(InputError, match="proximal guessed: the trainer does not know"):
        Companions(number(0.0), recipe_with(Guessed()))


# ---- whole runs -----------------------------------------------------------------------------------------------------


def trained(recipe: Recipe, task: LabTask, folder: Path, steps: int = 6) -> Trainer:
    world = LabWorld(task, 0)
    settings = Settings(steps, 0, evaluation_episodes=0, checkpoint_every=100)
    return Trainer(world.adapt(recipe), world, RunDirectory.create(folder), settings)


def rows(trainer: Trainer) -> list[dict[str, Any]]:
    logged = trainer.run_directory.rows("metrics.jsonl")
    return [{n: v for n, v in row.items() if not n.startswith(("timing/", "memory/"))} for row in logged]


@pytest.mark.parametrize("stopped_after", [0, 1])
@pytest.mark.parametrize("proximal", ["average", "snapshots"])
def test_a_resumed_run_repeats_an_unbroken_one(tmp_path, stopped_and_resumed, proximal, stopped_after):
    """Stopped between batches, or after the first of the four optimizer steps of a batch."""
    recipe = missing_old_logits(proximal, reset_below=0.97).with_values({"optimization.minibatches": 4})
    task = LabTask(CORRIDOR, staleness=2, partial=2, mismatch=0.1)
    unbroken = trained(recipe, task, tmp_path / "unbroken")
    unbroken.run()
    broken = trained(recipe, task, tmp_path / "broken")
    resumed = stopped_and_resumed(broken, LabWorld(task, 0), 3, bool(stopped_after))
    assert rows(resumed) == rows(unbroken)
    assert torch.equal(resumed.policy.table(), unbroken.policy.table())
    states = [run._companions.state_dict() for run in (resumed, unbroken)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


@pytest.mark.parametrize("proximal", ["snapshots", "recorded", "average"])
def test_on_fresh_batches_of_one_engine_it_is_decoupled_ppo(tmp_path, proximal):
    """The average is of the present weights alone when its window is empty."""
    four = {"optimization.minibatches": 4}
    runs = []
    for name in ("update_start", proximal):
        recipe = missing_old_logits(name, window=0.0).with_values(four)
        run = trained(recipe, LabTask(CORRIDOR), tmp_path / name)
        run.run()
        runs.append(run)
    assert runs[1]._updates == 24
    torch.testing.assert_close(runs[0].policy.table(), runs[1].policy.table(), rtol=0, atol=1e-5)


def test_a_step_without_an_active_token_is_not_taken_and_the_average_starts_over(tmp_path):
    """A band that no discrepancy is in removes every token; momentum alone does not move the policy."""
    recipe = missing_old_logits("average", low=5.0, high=6.0, window=4.0)
    run = trained(recipe, LabTask(CORRIDOR, mismatch=0.1), tmp_path / "run", steps=2)
    before = run.policy.table()
    run.run()
    assert [row["active_fraction"] for row in rows(run)] == [0.0, 0.0]
    assert [row["optimizer_steps"] for row in rows(run)] == [0.0, 0.0]
    assert torch.equal(run.policy.table(), before)
    state = run._companions.state_dict()
    assert float(state["anchor.weight"]) == 1 and torch.equal(state["anchor.mean.logits"], before)


def test_the_proximal_of_a_recipe_is_written_read_and_changed_by_path():
    recipe = missing_old_logits("snapshots", keep=3)
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe
    assert recipe.with_values({"proximal.keep": 5}).proximal == SamplingVersion(keep=5)
    assert recipe.with_values({"proximal": "moving_average"}).proximal == MovingAverage()


# ---- iterations -----------------------------------------------------------------------------------------------------


def weights_at_batches(proximal: IterationStart, values: list[float], resume_at: int | None = None) -> list[float]:
    """The weight that ``old_logp`` is under in each batch, when the policy has these values as they begin."""
    policy = number(values[0])
    kept, seen = anchor(proximal, policy), []
    for place, value in enumerate(values):
        if place == resume_at:
            state = {name: tensor.clone() for name, tensor in kept.state_dict().items()}
            kept = anchor(proximal, policy)
            kept.load_state_dict(state)
        move(policy, value)
        kept.served(proximal, place)
        move(policy, value + 100)
        kept.fill(
            proximal, Experience.from_lengths([1], [1], [1]), lambda asked, x: seen.append(asked) or torch.ones(1)
        )
        seen[-1] = float(seen[-1].state_dict()["logits"][0, 0])
    return seen


def test_batches_of_an_iteration_share_the_policy_it_began_with():
    assert weights_at_batches(IterationStart(2), [1, 2, 3, 4, 5]) == [1, 1, 3, 3, 5]
    assert weights_at_batches(IterationStart(1), [1, 2, 3]) == [1, 2, 3]


@pytest.mark.parametrize("resume_at", [1, 2, 3, 4])
def test_an_iteration_goes_on_after_a_resume(resume_at):
    assert weights_at_batches(IterationStart(3), [1, 2, 3, 4, 5], resume_at) == [1, 1, 1, 4, 4]
