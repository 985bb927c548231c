"""CoDA through its recipe: one reward and one advantage for a planner and all its executors, in any number of calls."""

from __future__ import annotations

import math
from itertools import chain
from typing import Any

import pytest
import torch
from torch import Tensor

from stratagem import recipes
from stratagem.claims.agents.delegation import HOPS, START, Arm, asked, batch, facts_seen, play
from stratagem.experience import Experience, PolicyOutput
from stratagem.language.chat import ChatFormat
from stratagem.language.episodes import Episode, to_experience
from stratagem.language.hf_engine import HFEngine
from stratagem.language.rollout import play as play_episodes
from stratagem.language.sampling import SamplingParams
from stratagem.language.world import LanguageWorld
from stratagem.objectives import CallShare, SequenceMean, TokenMean
from stratagem.sampling import Demonstrations
from stratagem.seeding import generator
from stratagem.tasks import DelegatedTask, SearchTask
from stratagem.tasks.delegation import DelegatedEnvironment
from stratagem.tasks.task import Split, Step
from stratagem.watched import Watch

NAMES = ("reward", "planner_format", "executor_format", "refine")


def rollouts(calls: list[int], noted: list[list[float]], **fields: Any) -> Experience:
    """One group: rollouts with so many calls each of two turns; a planner speaks before, between and after them."""
    role = [[0, *[1, 1, 0] * count] for count in calls]
    context = [[0, *(n for call in range(count) for n in (call + 1, call + 1, 0))] for count in calls]
    turns = [len(roles) for roles in role]
    fields = {"ref_logp": torch.full((2 * sum(turns),), -1.0), **fields}
    return Experience.from_lengths(
        [2] * sum(turns),
        turns,
        [len(calls)],
        turn_role=torch.tensor([*chain.from_iterable(role)]),
        turn_context=torch.tensor([*chain.from_iterable(context)]),
        reward=torch.tensor(noted),
        reward_names=NAMES,
        reward_weights=(1.0, 0.0, 0.0, 0.0),
        **fields,
    )


PERFECT, WRONG = [1.0, 1.0, 1.0, 1.0], [0.0, 1.0, 0.5, 0.0]


# ---- reward and advantage -------------------------------------------------------------------------------------------


def test_the_reward_worked_by_hand():
    x = rollouts([1, 2, 1, 0], [PERFECT, WRONG, [0.5, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    assert recipes.coda().shape(x).returns.tolist() == [5.5, -1.5, 2.5, -3.0]
    assert recipes.coda(refine_weight=0).shape(x).returns.tolist() == [5.0, -1.5, 2.0, -3.0]


def test_rewards_that_a_task_does_not_note_count_nothing():
    plain = Experience.from_lengths([1, 1], [1, 1], [2], reward=[1.0, 0.25])
    assert recipes.coda(kl_coefficient=0).shape(plain).returns.tolist() == [3.0, -1.5]


def test_statistics_are_over_rollouts_however_many_calls_each_has():
    x = rollouts([1, 3], [PERFECT, WRONG])
    prepared = recipes.coda().prepare(x)
    by_turn = prepared.advantage.view(-1, 2)
    torch.testing.assert_close(by_turn[:, 0], by_turn[:, 1])
    expected = torch.tensor([0.707107] * 4 + [-0.707107] * 10)
    torch.testing.assert_close(by_turn[:, 0], expected, atol=1e-6, rtol=0)
    # With every conversation for a sample there would be six, of another mean and deviation.
    conversations = torch.tensor([5.5] * 2 + [-1.5] * 4)
    assert float(conversations.mean()) == pytest.approx(0.833333, abs=1e-6)
    assert float(conversations.std()) == pytest.approx(3.614784, abs=1e-6)


def test_rollouts_that_earn_the_same_have_no_advantage():
    assert not bool(recipes.coda().prepare(rollouts([0, 2], [WRONG, WRONG])).advantage.any())


def test_a_rollout_that_is_alone_earns_its_return_or_nothing():
    lone = rollouts([2], [PERFECT])
    assert recipes.coda(group_size=1).prepare(lone).advantage.unique().tolist() == [5.5]
    nothing = recipes.coda(group_size=1, alone="nothing").prepare(lone)
    assert nothing.trajectories == 1 and not bool(nothing.advantage.any())


# ---- loss -----------------------------------------------------------------------------------------------------------


def gradient(recipe: Any, x: Experience, logp: Tensor) -> Tensor:
    logp = logp.detach().clone().requires_grad_()
    return torch.autograd.grad(recipe.objective(PolicyOutput(logp), recipe.prepare(x)).loss, logp)[0]


def test_the_gradient_of_the_shared_model_is_the_sum_of_those_of_its_roles():
    """A model of two weights says both roles; each role alone has a copy of them."""
    x = rollouts([1, 3], [PERFECT, WRONG], old_logp=torch.full((28,), -1.2))
    source = torch.Generator().manual_seed(3)
    features, planner = torch.rand(28, 2, generator=source), x.to_tokens(turn=(x.turn_role == 0).float()) == 1
    recipe = recipes.coda()
    weights = torch.tensor([-0.7, -0.9])

    def loss(planners: Tensor, executors: Tensor) -> Tensor:
        logp = torch.where(planner, features @ planners, features @ executors)
        return recipe.objective(PolicyOutput(logp), recipe.prepare(x)).loss

    shared = weights.clone().requires_grad_()
    roles = [weights.clone().requires_grad_() for _ in range(2)]
    together = torch.autograd.grad(loss(shared, shared), shared)[0]
    apart = torch.autograd.grad(loss(*roles), roles)
    assert all(bool((one != 0).all()) for one in apart)
    torch.testing.assert_close(together, apart[0] + apart[1])


def test_it_is_grpo_over_tokens_with_a_dual_clip_where_nobody_delegates():
    x = rollouts([0, 0, 0], [[1.0, 0, 0, 0], [0.0, 0, 0, 0], [0.5, 0, 0, 0]])
    x = x.replace(old_logp=torch.tensor([-1.0, -1.0, -9.0, -1.0, -1.0, -1.0]))
    logp = torch.full((6,), -1.0)
    grpo = recipes.grpo(kl_coefficient=0.001)
    theirs = grpo.replace(objective=grpo.objective.replace(aggregation=TokenMean()))
    ours = gradient(recipes.coda(), x, logp)
    torch.testing.assert_close(gradient(recipes.coda(dual=1e9), x, logp), gradient(theirs, x, logp), rtol=1e-5, atol=0)
    # The third token is of the rollout that failed and e^8 times as likely as before: the dual clip lets go of it.
    assert ours[2] == 0 and bool((ours[[0, 1, 3]] != 0).all())


def test_calls_share_the_weight_of_one_when_they_are_normalized():
    x = rollouts([1, 3, 0], [PERFECT, WRONG, WRONG])
    plain, shared = TokenMean().weights(x), CallShare().weights(x)
    calls = torch.tensor([1.0] * 4 + [3.0] * 10 + [1.0])
    planner = x.turn_role == 0
    expected = torch.where(planner, 1.0, 1.0 / calls)
    torch.testing.assert_close(shared.view(-1, 2), plain.view(-1, 2) * expected[:, None])
    logp = torch.full((x.tokens,), -1.0)
    ours = gradient(recipes.coda(kl_coefficient=0, normalize_calls=True), x, logp)
    every = gradient(recipes.coda(kl_coefficient=0), x, logp)
    torch.testing.assert_close(ours.view(-1, 2), every.view(-1, 2) * expected[:, None])


def test_a_call_that_may_not_train_is_none_and_without_roles_there_is_none():
    x = rollouts([1, 3], [PERFECT, WRONG])
    second = (x.turn_context == 2) & (x.trajectory_of_turn.labels == 1)
    masked = x.replace(mask=x.to_tokens(turn=(~second).float()) == 1)
    relative = CallShare().weights(masked) / TokenMean().weights(masked).clamp(min=1e-9)
    counts = {round(v, 6) for v in relative[masked.mask & (x.to_tokens(turn=x.turn_role.float()) == 1)].tolist()}
    assert counts == {1.0, 0.5} and not bool(relative[~masked.mask].any())
    for field in ("turn_role", "turn_context"):
        bare = x.replace(**{field: None})
        assert torch.equal(CallShare(SequenceMean()).weights(bare), SequenceMean().weights(bare))


def test_pieces_of_a_batch_share_calls_as_the_whole_does():
    x = rollouts([1, 3, 2], [PERFECT, WRONG, WRONG])
    part = CallShare(SequenceMean())
    whole = part.at(x)
    pieces = torch.cat([part.at(x.microbatch(torch.tensor([number]))) for number in range(3)])
    torch.testing.assert_close(pieces, whole)


# ---- with a language policy -----------------------------------------------------------------------------------------


class _Scripted(DelegatedEnvironment):
    """Takes the script's actions, whatever the policy says; with ``chance`` the answer depends on what it says last."""

    script: tuple[str, ...] = ()
    chance: bool = False

    def reset(self) -> Any:
        self.turn = 0
        return super().reset()

    def step(self, action: str) -> Step:
        self.turn += 1
        wrong = self.chance and self.turn == len(self.script) and len(action) % 2
        return super().step("<answer>wrong</answer>" if wrong else self.script[self.turn - 1])


class _ScriptedTask(DelegatedTask):
    """The delegated task for a policy that knows nothing of its tags."""

    chance = False

    def environment(self, split: Split, index: int) -> DelegatedEnvironment:
        environment = _Scripted(self, split, index)
        environment.script, environment.chance = tuple(self.solution(split, index)), self.chance
        return environment


@pytest.fixture
def rolled(make_policy: Any) -> Any:
    """``rolled(task, count)``: a group of episodes of a random policy, the experience they are, and the policy."""

    def run(task: DelegatedTask, count: int) -> tuple[list[Episode], Experience, Any]:
        policy = make_policy(context=4096)
        engine, chat, watch = HFEngine(policy), ChatFormat(policy.tokenizer), Watch(5.0)
        episodes = [Episode(index, 0, seed=index) for index in range(count)]
        params = SamplingParams(4, stop_token_ids=chat.end_token_ids)
        play_episodes(task, "train", episodes, engine, chat, params, watch)
        watch.close()
        assert [episode.failure for episode in episodes] == [None] * count
        return episodes, to_experience([episodes], task.reward_names, 1, task.reward_weights), policy

    return run


def test_solved_episodes_earn_what_the_perfect_rollout_does(rolled):
    _, x, _ = rolled(_ScriptedTask(SearchTask()), 3)
    assert x.turn_role.tolist() == [0, 1, 1, 0] + [0, 1, 1] * 2 + [0] + [0, 1, 1] * 3 + [0]
    assert recipes.coda().shape(x.replace(ref_logp=x.behavior_logp)).returns.tolist() == [5.5] * 3


def test_every_token_trains_in_the_context_it_was_sampled_in(rolled):
    _, x, policy = rolled(_ScriptedTask(SearchTask()), 3)
    with torch.no_grad():
        torch.testing.assert_close(policy(x).logp, x.behavior_logp, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("length", [8, 64])
def test_a_planners_context_holds_no_document_and_grows_by_tasks_and_results_alone(rolled, length, tiny_tokenizer):
    task = _ScriptedTask(SearchTask(kind="three", length=length))
    episodes, x, _ = rolled(task, 1)
    said = tiny_tokenizer.decode(x.inputs.token_ids[: int(x.inputs.context_lengths[0])])
    question = SearchTask(kind="three", length=length).question("train", 0)
    assert question.text in said and all(f"<result>{step.answer}</result>" in said for step in question.steps)
    assert not any(sentence in said for p in question.passages for sentence in p.text.split(". "))
    planned = [turn for turn in episodes[0].turns if turn.observation.role == 0]
    # What a planner reads of a call is its result in the frame of a message, whatever was read for it.
    empty = len(tiny_tokenizer.encode("<result></result>"))
    for turn, step in zip(planned[1:], question.steps, strict=True):
        assert len(turn.read) <= empty + len(step.answer) + 8
    assert len(x.inputs.context_lengths) == 4


def test_demonstrations_are_solved_in_contexts_of_their_own(make_policy):
    policy = make_policy(context=4096)
    world = LanguageWorld(DelegatedTask(SearchTask()), policy, HFEngine(policy), 0)
    x = world.collect(Demonstrations(prompts_per_step=4), 0).x
    world.close()
    assert bool(x.success.all())
    assert x.trajectory_of_turn.sum(x.turn_role == 1).tolist() == [2, 4, 6, 4]
    assert bool(((x.turn_context > 0) == (x.turn_role == 1)).all())


def test_a_run_on_the_task_moves_the_policy(make_policy, make_world, make_trainer, small):
    task = _ScriptedTask(SearchTask(kind="one", max_new_tokens=4))
    task.chance = True
    world = make_world(task, policy=make_policy(context=4096))
    before = {name: weight.clone() for name, weight in world.policy.state_dict().items()}
    recipe = small("coda", **{"sampler__prompts_per_step": 2, "sampler__group_size": 4})
    trainer = make_trainer(recipe, world=world)
    metrics = [trainer.step() for _ in range(2)]
    assert all(math.isfinite(value) for row in metrics for value in row.values())
    assert any(not torch.equal(weight, before[name]) for name, weight in world.policy.state_dict().items())


# ---- the claim's game -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "window", "documents", "facts"),
    [
        (16, 272, 3, 48),
        (64, 272, 3, 192),
        (256, 272, 1, 256),
        (256, 272, 2, 271),
        (256, 257, 3, 256),
        (256, 100, 1, 100),
    ],
)
def test_the_claims_window_counts_facts_and_the_lookups_between_them(length, window, documents, facts):
    assert facts_seen(Arm(False, length, window), documents) == facts


@pytest.mark.parametrize("decoupled", [True, False])
def test_a_policy_that_points_well_is_right_unless_the_window_lost_the_question(decoupled):
    sharp = torch.full((len(START),), 40.0)
    for length, kept in ((16, True), (256, decoupled)):
        source = generator(1000, "test")
        arm = Arm(decoupled, length)
        played = play(sharp, asked(32, 4, source), arm, source)
        assert bool(played.right.all()) == kept
        x = batch(played._replace(right=played.right[:128]), arm)
        assert x.tokens == played.logp.numel() and int(x.turn_role.sum()) == (128 * HOPS if decoupled else 0)
