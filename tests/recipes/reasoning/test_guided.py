"""LoPE and POPE through their recipes: what they change, that they reduce to their base, train and are judged."""

from __future__ import annotations

import pytest
import torch

from stratagem import catalogue
from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.lab import Exact, Tree, diagnose, find_game
from stratagem.lab.exact import led_policy, optimal_values
from stratagem.lab.game import Outcome, TokenGame, over
from stratagem.lab.world import LabTask, LabWorld
from stratagem.recipe import Recipe
from stratagem.recipes import grpo, lope, pope
from stratagem.sampling import Guided, Resampled
from stratagem.study.experiments import learn
from stratagem.training.probes import interference
from stratagem.training.world import Collected


def sections(recipe: Recipe, base: Recipe) -> set[str]:
    return {change.path.split(".")[0] for change in recipe.diff(base)} - {"name", "base"}


HARD = LabTask(find_game("prompts"))


# ---- lope -----------------------------------------------------------------------------------------------------------


def resampled_batch(mixture: float, seed: int = 1000) -> tuple[Experience, LabWorld]:
    world = LabWorld(HARD, seed)
    world.serve(0)
    got = world.collect(Resampled(prompts_per_step=64, group_size=2, resamples=4, mixture=mixture), 0)
    assert got.metrics["groups/failed"] >= got.metrics["groups/rescued"] > 0
    assert got.x is not None
    return got.x, world


def test_lope_samples_failed_groups_again_and_shapes_what_it_finds():
    assert sections(lope(), grpo()) == {"sampler", "advantage", "objective"}
    assert catalogue.card("lope").family == "reasoning"
    assert lope().to_yaml() == Recipe.from_yaml(lope().to_yaml()).to_yaml()


def test_in_the_lab_the_perturbed_policy_is_a_mixture_with_the_uniform_one():
    x, world = resampled_batch(0.3)
    policy = Exact(world.tree, world.policy.table())
    clean = policy.logp[x.inputs.node, x.action]
    mixed = (0.7 * clean.exp() + 0.3 / world.task.game.vocabulary).log()
    again = x.trajectory_of_token.spread(x.resampled)
    torch.testing.assert_close(x.behavior_logp[again].double(), mixed[again], atol=1e-5, rtol=0)
    torch.testing.assert_close(x.behavior_logp[~again].double(), clean[~again], atol=1e-5, rtol=0)


def test_without_mixture_and_shaping_it_is_sampling_again_at_a_ratio_of_one():
    x, world = resampled_batch(0.0)
    logp = Exact(world.tree, world.policy.table()).logp[x.inputs.node, x.action]
    torch.testing.assert_close(x.behavior_logp.double(), logp, atol=1e-5, rtol=0)


def test_the_ratio_of_what_was_resampled_is_to_the_perturbed_policy_even_where_the_old_one_is_known():
    x, world = resampled_batch(0.3)
    recipe = lope()
    logp = Exact(world.tree, world.policy.table()).logp[x.inputs.node, x.action]
    x = recipe.prepare(x.replace(old_logp=logp.float()))
    ratio = recipe.objective.ratio(PolicyOutput(logp.float()), x)
    again = x.trajectory_of_token.spread(x.resampled)
    torch.testing.assert_close(ratio[~again], torch.ones_like(ratio[~again]), atol=1e-4, rtol=0)
    assert float((ratio[again] - 1).abs().max()) > 0.1


def test_where_no_group_fails_lope_is_grpo_with_another_deviation():
    never = LabTask(find_game("prompts"))
    tree = Tree.enumerate(never.game)
    sure = Exact(tree, 8 * torch.nn.functional.one_hot(_best(tree), never.game.vocabulary).double())
    ours = learn(lope(), never, 1000, 2, start=sure)
    theirs = learn(grpo().with_values({"advantage.correction": 0}), never, 1000, 2, start=sure)
    assert all(row["groups/failed"] == 0 for row in ours.metrics)
    torch.testing.assert_close(ours.last.logits, theirs.last.logits, atol=1e-4, rtol=1e-4)


def _best(tree: Tree) -> torch.Tensor:
    return optimal_values(tree).argmax(-1)


def test_what_is_sampled_again_counts_in_the_budget():
    world = LabWorld(HARD, 1000)
    world.serve(0)
    got = world.collect(Resampled(prompts_per_step=64, group_size=2, resamples=4), 0)
    again = int(got.metrics["resampled/trajectories"])
    assert again == 4 * got.metrics["groups/failed"] > 0
    plain = world.collect(Resampled(prompts_per_step=64, group_size=2, resamples=1), 0)
    assert got.tokens - plain.tokens > 0


def test_lope_trains_and_is_diagnosed():
    run = learn(lope(), HARD, 1000, 3)
    assert run.last.expected_return != run.policies[0].expected_return
    assert diagnose(lope(), "prompts", groups=512, seed=1000).direction is not None


def test_worlds_without_prompts_refuse_to_perturb_them():
    with pytest.raises(InputError, match="reads no prompt that could be perturbed"):
        lope().sampler.check_asked("a control policy")


# ---- pope -----------------------------------------------------------------------------------------------------------


def chain(length: int) -> TokenGame:
    """Opens to token 1 again and again; anything else ends it."""

    def act(place: int, tokens: tuple[int, ...]) -> list[Outcome]:
        if tokens[0] == 0:
            return over(0.0)
        return [Outcome(place + 1)] if place + 1 < length else over(1.0)

    return TokenGame(f"chain_{length}", "Say 1 so often.", 2, ((1.0, 0),), act)


def uniform(game: TokenGame) -> Exact:
    tree = Tree.enumerate(game)
    return Exact(tree, torch.zeros(tree.nodes, game.vocabulary))


def collect(sampler: Guided, game: TokenGame, step: int = 0) -> Collected:
    world = LabWorld(LabTask(game, spread=0.0), 1000)
    world.serve(0)
    return world.collect(sampler, step)


def test_pope_changes_nothing_but_what_is_rolled_out():
    assert sections(pope(), grpo()) == {"sampler"}
    assert catalogue.card("pope").family == "reasoning"
    assert pope(choices=(2, 3)).to_yaml() == Recipe.from_yaml(pope(choices=(2, 3)).to_yaml()).to_yaml()


def test_six_choices_of_ten_given_make_a_chain_sixty_four_times_as_likely():
    policy = uniform(chain(10))
    for choices, success, any_of_16 in ((0, 2.0**-10, 0.0155), (6, 2.0**-4, 0.6439)):
        led = led_policy(policy, [choices])
        assert led.success == pytest.approx(success, rel=1e-9)
        assert 1 - (1 - led.success) ** 16 == pytest.approx(any_of_16, abs=5e-5)
    assert led_policy(policy, [10]).success == 1


def test_what_a_group_is_led_by_trains_nothing_and_is_as_it_should_be():
    got = collect(Guided(prompts_per_step=8, group_size=4, choices=(6,)), chain(10))
    x = got.x
    guided = x.taken_over == 6
    assert x.groups == 8 and int(guided.sum()) == int((~guided).sum()) == 16
    begun = x.trajectory_of_token.position() < x.to_tokens(trajectory=x.taken_over)
    assert torch.equal(x.mask, ~begun) and (x.action[begun] == 1).all()
    assert got.tokens == int(x.mask.sum())
    assert set(got.metrics) >= {"success/guided", "success/unguided"}


def test_the_gradient_of_what_a_group_is_led_by_is_exactly_nothing():
    x = collect(Guided(prompts_per_step=16, group_size=8, choices=(6,)), chain(8)).x
    recipe = pope()
    x = recipe.prepare(x)
    logp = x.behavior_logp.double().requires_grad_()
    recipe.objective(PolicyOutput(logp), x).loss.backward()
    assert (logp.grad[~x.mask] == 0).all() and float(logp.grad.abs().sum()) > 0
    # Whatever is said of it, the loss stays the same.
    moved = torch.where(x.mask, logp.detach(), torch.nan)
    torch.testing.assert_close(
        recipe.objective(PolicyOutput(moved), x).loss, recipe.objective(PolicyOutput(logp.detach()), x).loss
    )


def test_guided_and_unguided_copies_share_no_baseline():
    x = collect(Guided(prompts_per_step=16, group_size=8, choices=(7,)), chain(8)).x
    guided = x.group_of_trajectory.mean((x.taken_over > 0).float())
    assert set(guided.tolist()) == {0.0, 1.0}
    advantage = pope().advantage(x)[x.trajectory_of_token.first()]
    torch.testing.assert_close(x.group_of_trajectory.sum(advantage), torch.zeros(16), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("every", "groups", "unguided"), [(1, 12, 6), (2, 12, 4), (0, 12, 0)])
def test_over_an_epoch_every_problem_has_its_copies(every, groups, unguided):
    sampler = Guided(prompts_per_step=groups, start_states=(0, 1, 2), unguided_every=every)
    x = collect(sampler, find_game("prompts")).x
    led = x.group_of_trajectory.max(x.taken_over) > 0
    assert int((~led).sum()) == unguided
    if every == 1:
        pairs = [sorted(x.task_id[which].tolist()) for which in (led, ~led)]
        assert pairs == [[0, 0, 1, 1, 2, 2]] * 2


def test_a_drawn_problem_and_its_copy_begin_alike():
    x = collect(Guided(prompts_per_step=24, group_size=2), find_game("prompts")).x
    led = x.group_of_trajectory.max(x.taken_over) > 0
    assert x.task_id[led].tolist() == x.task_id[~led].tolist()


def test_without_choices_it_is_grpo_with_every_problem_twice():
    task = LabTask(find_game("prompts"))
    world = LabWorld(task, 1000)
    world.serve(0)
    recipe = pope(choices=(0,))
    x = recipe.prepare(world.collect(recipe.sampler, 0).x)
    plain = grpo().prepare(x.replace(taken_over=None, mask=None, advantage=None))
    assert torch.equal(x.advantage, plain.advantage) and bool(x.mask.all())
    out = PolicyOutput(x.behavior_logp)
    torch.testing.assert_close(recipe.objective(out, x).loss, grpo().objective(out, plain).loss)


def test_pope_trains_and_is_diagnosed():
    run = learn(pope(), HARD, 1000, 3)
    assert run.last.expected_return != run.policies[0].expected_return
    assert diagnose(pope(), "prompts", groups=512, seed=1000).direction is not None


def test_gradients_of_two_sets_are_held_against_each_other():
    world = LabWorld(LabTask(chain(4), spread=0.0), 1000)
    world.serve(0)
    x, y = (world.collect(Guided(prompts_per_step=64, choices=(1,)), step).x for step in (0, 1))
    same = interference(pope(), world.policy, x, x)
    assert same["cosine"] == pytest.approx(1) and same["share"] == pytest.approx(0.5)
    alike = interference(pope(), world.policy, x, y)
    assert 0.5 < alike["cosine"] < 1
    failures = y.select(~y.success)
    nothing = interference(pope(), world.policy, x, failures)
    assert (nothing["cosine"], nothing["share"], nothing["norm/other"]) == (0, 1, 0)
