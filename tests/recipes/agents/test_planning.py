"""HiMAC and Hi-Agent through their recipes: who is compared with whom, who learns, and what an episode costs."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from stratagem import recipes
from stratagem.claims.agents.planning import WITH_PLAN, Tap, app_game, screens
from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.lab import Exact, Outcome, TabularPolicy, TokenGame, Tree
from stratagem.lab.world import LabTask, LabWorld
from stratagem.language.hf_engine import HFEngine
from stratagem.language.world import LanguageWorld
from stratagem.recipe import Recipe
from stratagem.sampling.branching import as_branches, as_roots
from stratagem.tasks import AppTask, BlueprintTask, KeyDoorTask
from stratagem.tasks.app import AppEnvironment
from stratagem.tasks.blueprint import BlueprintEnvironment
from stratagem.tasks.task import Split, Step
from stratagem.training.loop import Settings, Trainer
from stratagem.training.run_directory import RunDirectory

PLAIN = {"kl_coefficient": 0.0}
THIRD = 0.5 / 0.57735


def in_phase(recipe: Recipe, step: int) -> Recipe:
    """The recipe as its schedules set it for a batch."""
    for schedule in recipe.schedules:
        recipe = recipe.with_values(schedule(step, {}))
    return recipe


def planned(returns: list[float], taken_over: int | None = None, **fields: Any) -> Experience:
    """A group of episodes with a plan of two tokens and two actions of one; branches, if something was taken over."""
    count = len(returns)
    x = Experience.from_lengths(
        [2, 1, 1] * count,
        [3] * count,
        [count],
        turn_role=torch.tensor([0, 1, 1] * count),
        turn_context=torch.tensor([0, 1, 2] * count),
        reward=torch.tensor(returns),
        **fields,
    )
    return as_roots(x) if taken_over is None else as_branches(x, torch.full((count,), taken_over), 1)


def gradient(recipe: Recipe, x: Experience) -> Tensor:
    logp = torch.full((x.tokens,), -1.0, requires_grad=True)
    return torch.autograd.grad(recipe.objective(PolicyOutput(logp), recipe.prepare(x)).loss, logp)[0]


# ---- himac: advantages and phases -----------------------------------------------------------------------------------


def test_the_macro_advantage_worked_by_hand():
    x = recipes.himac(**PLAIN).prepare(planned([1.0, 0.0, 0.0, 1.0]))
    expected = torch.tensor([THIRD, -THIRD, -THIRD, THIRD]).repeat_interleave(4)
    torch.testing.assert_close(x.advantage, expected, atol=1e-4, rtol=0)


def test_in_a_macro_batch_no_gradient_reaches_an_action_and_in_a_micro_batch_none_reaches_a_plan():
    recipe = recipes.himac()
    logps = {name: torch.full((16,), -1.3) for name in ("ref_logp",)}
    macro = gradient(recipe, planned([1.0, 0.0, 0.0, 1.0], **logps)).view(4, 4)
    assert bool((macro[:, :2] != 0).all()) and not bool(macro[:, 2:].any())
    micro = gradient(recipe, planned([1.0, 0.0, 0.0, 1.0], taken_over=2, **logps)).view(4, 4)
    assert not bool(micro[:, :2].any()) and bool((micro[:, 2:] != 0).all())


def test_two_models_of_two_roles_only_that_of_the_phase_moves():
    recipe = recipes.himac(**PLAIN)
    for taken_over, moves in ((None, [True, False]), (2, [False, True])):
        x = recipe.prepare(planned([1.0, 0.0, 0.0, 1.0], taken_over))
        weights = [torch.zeros(3, requires_grad=True) for _ in range(2)]
        role = x.to_tokens(turn=x.turn_role)
        logits = torch.where((role == 0)[:, None], weights[0], weights[1])
        logp = torch.log_softmax(logits, 1)[torch.arange(16), torch.arange(16) // 4 % 3]
        recipe.objective(PolicyOutput(logp), x).loss.backward()
        before = [weight.detach().clone() for weight in weights]
        torch.optim.SGD(weights, 0.1).step()
        assert [not torch.equal(w, b) for w, b in zip(weights, before, strict=True)] == moves


def test_executions_are_compared_under_their_own_blueprint():
    good, bad = [1.0, 1.0, 0.8, 0.8], [0.2, 0.0, 0.0, 0.2]
    both = Experience.concatenate([planned(good, taken_over=2), planned(bad, taken_over=2)])
    credit = recipes.himac(**PLAIN).prepare(both).advantage.view(8, 4)[:, 2]
    torch.testing.assert_close(credit.view(2, 4).mean(1), torch.zeros(2), atol=1e-6, rtol=0)
    assert (credit > 0).tolist() == [True, True, False, False, True, False, False, True]
    pooled = torch.tensor(good + bad)
    assert ((pooled - pooled.mean()) > 0).tolist() == [True] * 4 + [False] * 4


def test_equal_returns_and_lone_trajectories_have_no_advantage():
    recipe = recipes.himac(**PLAIN)
    assert not bool(recipe.prepare(planned([0.5, 0.5, 0.5])).advantage.any())
    alone = recipes.himac(blueprints=1, executions=1, **PLAIN).prepare(planned([1.0]))
    assert alone.trajectories == 1 and not bool(alone.advantage.any())


@pytest.mark.parametrize(("macro", "micro"), [(1, 1), (2, 3), (4, 1)])
def test_macro_and_micro_batches_follow_one_another_as_often_as_is_asked(macro, micro):
    recipe = recipes.himac(executions=5, macro_batches=macro, micro_batches=micro, **PLAIN)
    branches = [in_phase(recipe, step).sampler.branches for step in range(3 * (macro + micro))]
    assert branches == ([0] * macro + [5] * micro) * 3


def test_refinement_adds_what_a_sub_goal_earned_among_those_who_came_to_it():
    x = planned([1.0, 0.0, 0.0], taken_over=2)
    x = x.replace(turn_reward=torch.tensor([0.0, 0.5, 0.5, 0.0, 0.5, -0.5, 0.0, 0.0, 0.0]))
    plain = recipes.himac(**PLAIN).prepare(x).advantage.view(3, 4)
    refined = recipes.himac(refine=2.0, **PLAIN).prepare(x).advantage.view(3, 4)
    first, second = torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.5, -0.5, 0.0])
    expected = torch.stack([(v - v.mean()) / (v.std() + 1e-6) for v in (first, second)], 1)
    torch.testing.assert_close((refined - plain)[:, 2:], 2 * expected)
    assert not bool((refined - plain)[:, :2].any())


# ---- himac: in the lab ----------------------------------------------------------------------------------------------


def world(game: TokenGame, seed: int = 1000) -> LabWorld:
    return LabWorld(LabTask(game), seed)


def test_executions_follow_the_best_blueprint_of_their_group_and_share_it():
    recipe = in_phase(recipes.himac(blueprints=4, executions=3, **PLAIN), 1)
    place = world(WITH_PLAN.game)
    roots = place.collect(in_phase(recipes.himac(blueprints=4, **PLAIN), 0).sampler, 0).x
    x = place.collect(recipe.sampler, 0).x
    assert x.groups == 8 and set(x.group_of_trajectory.size().tolist()) == {3}
    assert x.turn_role[x.trajectory_of_turn.position() == 0].tolist() == [0] * 24
    plans = roots.action[roots.trajectory_of_token.position() == 0].view(8, 4)
    best = plans[torch.arange(8), roots.returns.view(8, 4).argmax(1)]
    assert x.action[x.trajectory_of_token.position() == 0].view(8, 3).tolist() == [[b] * 3 for b in best.tolist()]
    mask = recipe.prepare(x).mask
    assert torch.equal(mask, x.trajectory_of_token.position() > 0)


def test_with_one_constant_blueprint_a_micro_batch_is_grpo():
    x = planned([1.0, 0.0, 0.25], taken_over=2, old_logp=torch.full((12,), -1.1))
    ours = gradient(recipes.himac(**PLAIN), x).view(3, 4)[:, 2:]
    bare = Experience.from_lengths([1, 1] * 3, [2] * 3, [3], reward=x.reward, old_logp=torch.full((6,), -1.1))
    theirs = gradient(recipes.grpo(**PLAIN), bare).view(3, 2)
    torch.testing.assert_close(ours, theirs)


def test_with_a_sure_executor_a_macro_batch_is_grpo_over_blueprints():
    x = planned([1.0, 0.0, 0.25], old_logp=torch.full((12,), -1.1))
    ours = gradient(recipes.himac(**PLAIN), x).view(3, 4)[:, :2]
    bandit = Experience.from_lengths([2] * 3, [1] * 3, [3], reward=x.reward, old_logp=torch.full((6,), -1.1))
    torch.testing.assert_close(ours, gradient(recipes.grpo(**PLAIN), bandit).view(3, 2))


def matrix(state: tuple[int, ...], tokens: tuple[int, ...]) -> list[Outcome]:
    """Two blueprints and two ways to execute, with a return of 1 on one corner and 0.6 on the other."""
    if not state:
        return [Outcome((tokens[0],))]
    return [Outcome(reward=((1.0, 0.0), (0.0, 0.6))[state[0]][tokens[0]])]


MATRIX = TokenGame("matrix", "", 2, ((1.0, ()),), matrix, seat=lambda state: (len(state), 0))


def best_responses(plan: int, way: int, stray: bool) -> float:
    """What alternating exact best responses end at, when executions of every plan, or of the best alone, are learned.

    The executor has one way for both plans, which is what makes the game hard.
    """
    payoff = torch.tensor([[1.0, 0.0], [0.0, 0.6]])
    for _ in range(4):
        plan = int(payoff[:, way].argmax())
        weights = torch.tensor([0.5, 0.5]) if stray else torch.nn.functional.one_hot(torch.tensor(plan), 2).float()
        way = int((weights @ payoff).argmax())
    return float(payoff[plan, way])


def test_alternating_best_responses_stay_where_they_are_and_strays_lead_out():
    assert best_responses(0, 0, stray=False) == 1.0
    assert best_responses(1, 1, stray=False) == pytest.approx(0.6)
    assert best_responses(1, 1, stray=True) == 1.0


def test_strays_reach_blueprints_that_are_not_the_best():
    """From a planner who knows both plans, only strays show executions of the one that fails under this executor."""
    tree = Tree.enumerate(MATRIX)
    logits = torch.zeros(tree.nodes, 2)
    logits[1:] = torch.tensor([-20.0, 20.0])  # way 1 under either plan
    place = LabWorld(LabTask(MATRIX), 1000, TabularPolicy(logits))
    seen = {}
    for stray in (0.0, 1.0):
        sampler = in_phase(recipes.himac(stray=stray, **PLAIN), 1).sampler
        x = place.collect(sampler.replace(prompts_per_step=64), 0).x
        seen[stray] = x.action[x.trajectory_of_token.position() == 0].unique().tolist()
    assert seen == {0.0: [1], 1.0: [0, 1]}


# ---- hi_agent -------------------------------------------------------------------------------------------------------


def steps(high: list[float], low: list[float], role: int) -> Experience:
    """Branches of one state: a sub-goal and an action each, or an action behind a common sub-goal."""
    count = len(high)
    x = Experience.from_lengths(
        [2, 2] * count,
        [2] * count,
        [count],
        turn_role=torch.tensor([0, 1] * count),
        turn_reward=torch.tensor([value for pair in zip(high, low, strict=True) for value in pair]),
    )
    return as_branches(x, torch.full((count,), 2 * role), 1)


def test_the_foresight_advantage_worked_by_hand():
    x = recipes.hi_agent(**PLAIN).prepare(steps([1.0, 0.5, 0.5, 0.0], [1.0, 1.0, 0.0, 0.0], role=0))
    expected = torch.tensor([1.224745, 0.0, 0.0, -1.224745])
    torch.testing.assert_close(x.advantage.view(4, 4)[:, 0], expected, atol=1e-5, rtol=0)
    assert x.mask.view(4, 4).tolist() == [[True, True, False, False]] * 4


def test_the_masks_of_roles_keep_each_from_the_others_gradient():
    recipe = recipes.hi_agent(**PLAIN)
    high = gradient(recipe, steps([1.0, 0.5, 0.5, 0.0], [1.0, 0.0, 0.0, 1.0], role=0)).view(4, 4)
    low = gradient(recipe, steps([0.3] * 4, [1.0, 0.5, 0.5, 0.0], role=1)).view(4, 4)
    assert not bool(high[:, 2:].any()) and bool((high[[0, 3], :2] != 0).all())
    assert not bool(low[:, :2].any()) and bool((low[[0, 3], 2:] != 0).all())


def test_a_group_of_one_earns_nothing_and_equal_scores_neither():
    recipe = recipes.hi_agent(group_size=1, **PLAIN)
    assert not bool(recipe.prepare(steps([1.0], [1.0], role=0)).advantage.any())
    assert not bool(recipes.hi_agent(**PLAIN).prepare(steps([0.1] * 3, [0.0] * 3, role=0)).advantage.any())


def test_with_a_perfect_low_level_it_is_grpo_of_a_contextual_bandit():
    scores = [0.9, 0.2, 0.6]
    x = steps(scores, [1.0] * 3, role=0)
    ours = gradient(recipes.hi_agent(**PLAIN), x).view(3, 4)[:, :2]
    bandit = Experience.from_lengths([2] * 3, [1] * 3, [3], reward=torch.tensor(scores))
    torch.testing.assert_close(ours, gradient(recipes.grpo(**PLAIN), bandit).view(3, 2))


def test_the_roles_alternate_and_say_where_branches_begin_and_end():
    recipe = recipes.hi_agent(high_batches=2, low_batches=1, **PLAIN)
    phases = [in_phase(recipe, step).sampler for step in range(6)]
    assert [(s.at.role, s.branch_turns) for s in phases] == [(0, 2), (0, 2), (1, 1)] * 2


def test_an_episode_of_n_steps_costs_n_times_g_samples_of_the_role_that_learns():
    play = app_game(screens(1000), "foresight")
    place, size = world(play.game), 5
    for phase in (0, 1):
        recipe = in_phase(recipes.hi_agent(group_size=size, **PLAIN), phase)
        roots = place.collect(recipe.sampler.replace(branches=0), 0).x
        x = place.collect(recipe.sampler, 0).x
        taken = int((roots.turn_role == phase).sum())
        learns = recipe.prepare(x).mask
        # Turns have one token: one sample each.
        assert int(learns.sum()) == taken * size and x.groups == taken
        sampled = x.to_tokens(turn=x.turn_role)[x.mask]
        assert int((sampled == phase).sum()) == taken * size
        assert int((sampled != phase).sum()) == (taken * size if phase == 0 else 0)
        assert size ** roots.trajectory_of_turn.size().max().item() > taken * size


def test_the_credit_of_a_sub_goal_depends_on_what_the_low_level_made_of_it():
    play = app_game(screens(1000), "foresight")
    recipe = in_phase(recipes.hi_agent(group_size=16, **PLAIN), 0)
    x = recipe.prepare(world(play.game).collect(recipe.sampler, 0).x)
    turn = x.turn_of_token.labels[x.mask]
    group, low = x.group_of_turn.labels[turn], x.turn_reward[turn + 1]
    label, credit = x.action[x.mask], x.advantage[x.mask]
    differ = 0
    for one in range(x.groups):
        for choice in range(3):
            mine = (group == one) & (label == choice)
            differ += int(len(low[mine].unique()) == 2 and len(credit[mine].unique()) > 1)
    assert differ > 0


def test_swapping_what_the_low_level_did_swaps_the_scores_of_two_sub_goals():
    def high(outcomes: list[str]) -> list[float]:
        task = AppTask()
        scores = []
        for outcome in outcomes:
            environment = task.environment("train", 0)
            environment.reset()
            goal, action = list(task.solution("train", 0))[:2]
            environment.step(goal)
            scores.append(environment.step(action if outcome == "done" else "click 50 0").turn_rewards[0])
        return scores

    first, second = high(["done", "missed"]), high(["missed", "done"])
    assert first == second[::-1] and first[0] > first[1]
    ours = [recipes.hi_agent(**PLAIN).prepare(steps(s, [0.0, 0.0], role=0)).advantage[0] for s in (first, second)]
    assert ours[0] == -ours[1] > 0


def test_with_an_oracle_the_ranking_of_credits_is_that_of_exact_values():
    """Each label is carried out perfectly, and the judge knows the steps to the target."""
    app = screens(1000)
    play = app_game(app, "foresight")
    tree = Tree.enumerate(play.game)
    logits = torch.zeros(tree.nodes, 3)
    for node, state in enumerate(tree.states):
        if isinstance(state, Tap) and state.label is not None:
            logits[node, app.layout[state.screen].index(state.label)] = 50.0
    place = LabWorld(LabTask(play.game), 1000, TabularPolicy(logits))
    recipe = in_phase(recipes.hi_agent(group_size=12, **PLAIN), 0)
    x = recipe.prepare(place.collect(recipe.sampler, 0).x)
    node, label = x.inputs.node[x.mask], x.action[x.mask]
    values = torch.tensor(
        [
            0.0 if (far := app.steps[app.leads[tree.states[n].screen][a]]) is None else 0.8**far
            for n, a in zip(node.tolist(), label.tolist(), strict=True)
        ]
    )
    credit, group = x.advantage[x.mask], x.group_of_token.labels[x.mask]
    same = group[:, None] == group[None]
    higher = values[:, None] > values[None]
    assert bool((same & higher).any())
    assert bool((credit[:, None] > credit[None])[same & higher].all())
    equal = same & (values[:, None] == values[None])
    torch.testing.assert_close((credit[:, None] - credit[None])[equal], torch.zeros(int(equal.sum())))


@pytest.mark.parametrize("name", ["himac", "hi_agent"])
def test_in_the_lab_a_run_learns_and_skips_nothing(name, tmp_path):
    play = WITH_PLAN if name == "himac" else app_game(screens(1000), "foresight")
    place = world(play.game)
    before = Exact(place.tree, place.policy.table()).success
    recipe = place.adapt(getattr(recipes, name)(**PLAIN)).with_values({"sampler.prompts_per_step": 16})
    settings = Settings(24, 1000, evaluation_episodes=0, sample_episodes=0)
    trainer = Trainer(recipe, place, RunDirectory.create(tmp_path), settings)
    metrics = [trainer.step() for _ in range(24)]
    assert not any(row["batch/skipped"] for row in metrics)
    assert Exact(place.tree, place.policy.table()).success > before


def test_faults_are_named():
    with pytest.raises(InputError, match=r"branching\.group_size = 0"):
        recipes.himac(blueprints=0)
    with pytest.raises(InputError, match=r"branching\.branches = -1"):
        recipes.hi_agent(group_size=-1)
    with pytest.raises(InputError, match=r"of_best\.any_of = 2"):
        recipes.himac(stray=2)
    with pytest.raises(InputError, match=r"cycle\.batches"):
        recipes.hi_agent(low_batches=0)


# ---- with a language policy -----------------------------------------------------------------------------------------


class _Plans(BlueprintEnvironment):
    """Writes the solution's plan whatever the planner says; an action is lost when its text is of odd length."""

    plan = ""

    def step(self, action: str) -> Step:
        return super().step(self.plan if not self._goals else ("east <sub_done>" if len(action) % 2 else "west"))


class _PlannedTask(BlueprintTask):
    def environment(self, split: Split, index: int) -> _Plans:
        environment = _Plans(self, self.of.environment(split, index))
        environment.plan = next(iter(self.solution(split, index)))
        return environment


class _Taps(AppEnvironment):
    """Goes for the first or the last label, by the length of what is said, and taps it, or nothing."""

    def step(self, action: str) -> Step:
        on = self.app.elements[self._screen]
        if self._goal is None:
            return super().step(f"<subgoal>{on[-(len(action) % 2)].label}</subgoal>")
        wanted = self.app.named(self._screen, self._goal)
        return super().step(wanted.action if wanted and len(action) % 2 else "click 50 0")


class _TapTask(AppTask):
    def environment(self, split: Split, index: int) -> _Taps:
        return _Taps(self, self.app(split, index))


@pytest.mark.parametrize("name", ["himac", "hi_agent"])
def test_with_a_language_model_branches_are_read_as_they_were_sampled_and_train_their_role(name, make_policy):
    policy = make_policy(context=2048)
    if name == "himac":
        task = _PlannedTask(KeyDoorTask(max_turns=8), most=3)
        object.__setattr__(task, "max_new_tokens", 4)
        recipe = recipes.himac(blueprints=2, executions=3, **PLAIN)
    else:
        task = _TapTask(screens=5, buttons=3, max_turns=6)
        object.__setattr__(task, "max_new_tokens", 4)
        recipe = recipes.hi_agent(group_size=3, **PLAIN)
    place = LanguageWorld(task, policy, HFEngine(policy), 1000)
    place.serve(0)
    roles = []
    for step in (0, 1):
        phase = in_phase(recipe, step)
        x = place.collect(phase.sampler.replace(prompts_per_step=2), step).x
        with torch.no_grad():
            torch.testing.assert_close(policy(x).logp, x.behavior_logp, atol=1e-5, rtol=1e-4)
        ready = phase.prepare(x)
        assert bool(ready.mask.any()) and math.isfinite(float(ready.advantage.abs().sum()))
        roles.append(ready.to_tokens(turn=ready.turn_role)[ready.mask].unique().tolist())
    place.close()
    assert roles == [[0], [1]]
