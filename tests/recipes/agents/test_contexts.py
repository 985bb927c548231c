"""MemAct through its recipe: one advantage for all contexts of a trajectory, and tokens that train where they were."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from stratagem import recipes
from stratagem.claims.agents.contexts import NOTES, NOTHING, QUESTION, ROOM, VALUES, Arm, Reader, played, uncut
from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.language.chat import ChatFormat
from stratagem.language.episodes import Episode, to_experience
from stratagem.language.hf_engine import HFEngine
from stratagem.language.rollout import play
from stratagem.language.sampling import SamplingParams
from stratagem.language.world import LanguageWorld
from stratagem.parts import Reward
from stratagem.sampling import Demonstrations
from stratagem.seeding import generator
from stratagem.tasks.memory import MemoryEnvironment, MemoryTask
from stratagem.tasks.task import Split, Step
from stratagem.watched import Watch

# ---- the recipe -----------------------------------------------------------------------------------------------------


def trajectories(contexts: list[list[int]], rewards: list[float], **fields: Any) -> Experience:
    """One group, trajectories by the context of every turn; turns of two tokens."""
    numbers = [number for trajectory in contexts for number in trajectory]
    fields = {"ref_logp": torch.full((2 * len(numbers),), -1.0), **fields}
    return Experience.from_lengths(
        [2] * len(numbers),
        [len(trajectory) for trajectory in contexts],
        [len(contexts)],
        turn_context=torch.tensor(numbers),
        reward=rewards,
        seed=torch.arange(len(contexts)) * 7919 + 5,
        **fields,
    )


def loss_and_gradient(recipe: Any, x: Experience, logp: Tensor) -> tuple[Tensor, Tensor]:
    logp = logp.detach().clone().requires_grad_()
    loss = recipe.objective(PolicyOutput(logp), recipe.prepare(x)).loss
    return loss.detach(), torch.autograd.grad(loss, logp)[0]


def test_all_contexts_share_the_advantage_of_their_trajectory_whose_statistics_count_it_once():
    x = trajectories([[0, 1, 2], [0], [0]], [1.0, 0.0, 0.0])
    advantage = recipes.memact().prepare(x).advantage.view(5, 2)
    assert torch.equal(advantage[:, 0], advantage[:, 1])
    torch.testing.assert_close(advantage[:, 0], torch.tensor([1.154699] * 3 + [-0.577349] * 2), atol=2e-6, rtol=0)
    # Counted once for every context, the one that succeeded would earn less for it.
    pooled = torch.tensor([1.0, 1, 1, 0, 0])
    pooled = (pooled - pooled.mean()) / (pooled.std() + 1e-6)
    torch.testing.assert_close(pooled, torch.tensor([0.730295] * 3 + [-1.095443] * 2), atol=2e-6, rtol=0)


def test_statistics_are_over_trajectories_of_which_nothing_is_drawn_as_well():
    x = trajectories([[0, 1, 2], [0], [0]], [1.0, 0.0, 0.0])
    whole = recipes.memact(segments=None).prepare(x)
    for segments in (1, 2, 3, 4, 5):
        some = recipes.memact(segments=segments).prepare(x)
        assert torch.equal(some.advantage, whole.advantage)
        assert int(some.learnable_tokens) == 2 * segments


@pytest.mark.parametrize("segments", [None, 4, 12])
@pytest.mark.parametrize("kl", [0.0, 0.001])
def test_without_an_edit_it_is_grpo_to_the_last_bit(segments, kl):
    source = torch.Generator().manual_seed(1)
    logp = -torch.rand(14, generator=source)
    noise = [logp + 0.3 * torch.randn(14, generator=source) for _ in range(2)]
    x = trajectories([[0, 0], [0], [0, 0, 0], [0]], [1.0, 0.0, 0.25, 0.5], old_logp=noise[0], ref_logp=noise[1])
    ours = loss_and_gradient(recipes.memact(segments, kl_coefficient=kl), x, logp)
    theirs = loss_and_gradient(recipes.grpo(kl_coefficient=kl), x, logp)
    assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])
    assert bool((ours[1] != 0).any())


def test_cutting_trajectories_changes_nothing_when_all_contexts_train():
    logp = torch.linspace(-2.0, -0.1, 14)
    rewards = [1.0, 0.0, 0.25, 0.5]
    cut = trajectories([[0, 1], [0], [0, 1, 2], [0]], rewards, ref_logp=logp)
    plain = trajectories([[0, 0], [0], [0, 0, 0], [0]], rewards, ref_logp=logp)
    for recipe in (recipes.memact(segments=None), recipes.memact()):
        assert torch.equal(loss_and_gradient(recipe, cut, logp)[1], loss_and_gradient(recipe, plain, logp)[1])


def test_tokens_of_contexts_that_were_not_drawn_have_no_gradient_whatever_they_hold():
    x = trajectories([[0, 1, 2], [0, 1], [0]], [1.0, 0.0, 0.5])
    recipe = recipes.memact(segments=4, kl_coefficient=0)
    mask = recipe.prepare(x).learnable()
    logp = torch.full((x.tokens,), -1.0).where(mask, torch.nan)
    loss, gradient = loss_and_gradient(recipe, x, logp)
    assert bool(loss.isfinite()) and int(mask.sum()) == 8
    assert bool((gradient[~mask] == 0).all()) and bool(gradient.isfinite().all())
    assert bool((gradient[mask & (recipe.prepare(x).advantage != 0)] != 0).all())


def test_numbers_out_of_range_and_groups_of_one_are_refused():
    with pytest.raises(InputError, match=r"drawn_contexts\.count = 0"):
        recipes.memact(segments=0)
    with pytest.raises(InputError, match="needs at least 2"):
        recipes.memact(group_size=1)
    assert recipes.memact(segments=None).selections == ()


# ---- with a language policy -----------------------------------------------------------------------------------------

SCRIPT = ("next", "next", "drop 9", "drop 1", "next", "prune 2 4: fox = 7", "sing", "next", "keep 6", "next")
"""Three edits that come to something, and one that does not."""

EDITED = (0, 0, 0, 0, 1, 1, 2, 2, 2, 3)
"""The context of every turn of the script."""


class _Scripted(MemoryEnvironment):
    """Takes the script's commands, whatever the policy says, and notes what the context then holds."""

    script: tuple[str, ...] = ()

    def step(self, action: str) -> Step:
        return super().step(self.script[self._turns])


@dataclass(frozen=True)
class _ScriptedMemory(MemoryTask):
    """The memory task for a policy that knows nothing of its commands."""

    script: tuple[str, ...] = SCRIPT

    def environment(self, split: Split, index: int) -> MemoryEnvironment:
        environment = _Scripted(self.stream(split, index), self)
        environment.script = (*self.script, "answer: 1 2")
        return environment

    def solution(self, split: Split, index: int) -> Iterator[str]:
        yield from self.script


@pytest.fixture
def rolled(make_policy: Any) -> Any:
    """``rolled(task, count)``: a group of episodes of a random policy, the experience they are, and the policy."""

    def run(task: MemoryTask, count: int = 3) -> tuple[list[Episode], Experience, Any]:
        policy = make_policy(context=2048)
        engine, chat, watch = HFEngine(policy), ChatFormat(policy.tokenizer), Watch(5.0)
        episodes = [Episode(index, 0, seed=index) for index in range(count)]
        params = SamplingParams(4, stop_token_ids=chat.end_token_ids)
        play(task, "train", episodes, engine, chat, params, watch)
        watch.close()
        assert [episode.failure for episode in episodes] == [None] * count
        return episodes, to_experience([episodes], ("reward",), 1), policy

    return run


def test_a_token_is_as_likely_to_the_learner_as_it_was_where_it_was_sampled(rolled):
    _, x, policy = rolled(_ScriptedMemory(notes=6, room=6))
    assert x.turn_context.view(3, -1)[:, : len(EDITED)].tolist() == [list(EDITED)] * 3
    with torch.no_grad():
        torch.testing.assert_close(policy(x).logp, x.behavior_logp, atol=1e-5, rtol=1e-4)


def test_every_token_that_was_sampled_is_in_one_context_and_trains_once(rolled):
    episodes, x, _ = rolled(_ScriptedMemory(notes=6, room=6))
    x = x.replace(reward=torch.tensor([[1.0], [0.0], [0.0]]), ref_logp=x.behavior_logp)
    trained = recipes.memact().prepare(x)
    assert bool(trained.learnable().all())  # 3 trajectories of 4 contexts are the 12 that are drawn.
    assert x.action.tolist() == [token for e in episodes for turn in e.turns for token in turn.action]
    assert len(x.inputs.action_positions.unique()) == x.tokens
    by_context = Counter(zip(x.trajectory_of_turn.labels.tolist(), x.turn_context.tolist(), strict=True))
    assert len(by_context) == 12 == len(x.inputs.context_lengths)


def test_an_edit_that_fails_cuts_nothing_and_one_in_the_last_turn_leaves_no_context_behind(rolled):
    _, failed, _ = rolled(_ScriptedMemory(notes=6, room=6, script=("next", "drop 7", "prune 1", "keep", "next")))
    assert failed.turn_context.unique().tolist() == [0] and failed.inputs.context_lengths is None
    # Turn after turn removes the last result; the turns are over with the last edit.
    last = ("next", *(f"drop {number}" for number in range(1, 15)))
    episodes, x, _ = rolled(_ScriptedMemory(notes=6, room=6, max_turns=15, script=last), 2)
    assert [episode.truncated for episode in episodes] == [True, True] and bool((x.returns == 0).all())
    assert x.turn_context.view(2, 15)[0].tolist() == [0, *range(14)]
    assert len(x.inputs.context_lengths) == 2 * 14


def test_a_context_reads_the_instruction_and_what_is_left_and_no_more(rolled, tiny_tokenizer):
    task = _ScriptedMemory(notes=6, room=6)
    episodes, _, _ = rolled(task, 1)
    key, value = task.stream("train", 0).notes[1]
    # The first edit removed result 1: the opening holds results 2, 3 and 4 with what asked for them.
    read = tiny_tokenizer.decode(episodes[0].turns[4].read)
    asked = " and ".join(sorted(task.stream("train", 0).asked))
    assert read == (
        f"<|system|>{task.system}<|user|>Remember {asked}.<|assistant|>next<|end|><|user|>[2] {key} = {value}"
        "<|assistant|>drop 9<|end|><|user|>[3] error: there is no result 9"
        "<|assistant|>drop 1<|end|><|user|>[4] removed 1<|assistant|>"
    )


def test_demonstrations_are_read_in_the_contexts_their_edits_open(make_policy):
    policy = make_policy(context=2048)
    world = LanguageWorld(MemoryTask(), policy, HFEngine(policy), 0)
    x = world.collect(Demonstrations(prompts_per_step=3), 0).x
    world.close()
    assert bool(x.success.all()) and int(x.turn_context.max()) >= 2
    lengths = x.inputs.context_lengths.tolist()
    texts = [policy.tokenizer.decode(ids) for ids in x.inputs.token_ids.split(lengths)]
    # No context says more than fits: the request and four results before the last word.
    assert all(text.count("<|user|>") <= 1 + MemoryTask().room for text in texts)


@dataclass(frozen=True)
class _LikelyWords(Reward):
    """Pays for saying what is likely, since the script earns nothing whatever is said."""

    def __call__(self, x: Experience) -> Experience:
        return x.replace(reward=x.trajectory_of_token.mean(x.behavior_logp))


def test_a_run_learns_from_contexts_that_were_drawn(make_policy, make_world, make_trainer, small):
    task = _ScriptedMemory(notes=6, room=6, max_new_tokens=4)
    world = make_world(task, policy=make_policy(context=2048))
    before = {name: weight.clone() for name, weight in world.policy.state_dict().items()}
    recipe = small("memact", **{"selections.drawn_contexts.count": 5, "sampler__prompts_per_step": 2})
    trainer = make_trainer(recipe.replace(rewards=(_LikelyWords(),)), world=world)
    metrics = [trainer.step() for _ in range(2)]
    assert all(math.isfinite(value) for row in metrics for value in row.values())
    assert any(not torch.equal(weight, before[name]) for name, weight in world.policy.state_dict().items())


# ---- the claim's memory ---------------------------------------------------------------------------------------------


def test_the_claims_memory_reads_what_was_kept_and_a_context_is_a_prefix_of_the_next_turn():
    episodes = played(Reader(1000), Arm(recipes.memact()), 8, 2, generator(1000, "test"))
    assert episodes.read.shape == (16, NOTES + 1, ROOM + 1)
    whole = uncut(episodes.stream)
    for read, seen, context in zip(episodes.read.tolist(), whole.tolist(), episodes.context.tolist(), strict=True):
        for turn, items in enumerate(read):
            assert [item for item in seen[turn] if item != NOTHING] == seen[-1][: turn + 1]
            assert items[-1] == seen[-1][turn]
            known = [item for item in items if item != NOTHING]
            if turn:
                before = [item for item in read[turn - 1] if item != NOTHING]
                assert (context[turn] == context[turn - 1]) == (known[:-1] == before)
    assert episodes.stream[:, -1].unique().tolist() == [QUESTION]
    assert ((episodes.stream >= VALUES) & (episodes.stream < QUESTION)).sum(1).tolist() == [1] * 16


def test_the_claims_window_keeps_the_newest_notes():
    arm = Arm(recipes.memact(), editing=False)
    episodes = played(Reader(1000), arm, 8, 1, generator(1001, "test"))
    assert torch.equal(episodes.read[:, -1], episodes.stream[:, -ROOM - 1 :])
