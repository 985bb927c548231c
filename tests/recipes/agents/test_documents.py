"""UniDoc-RL through its recipe: totals, the sum of weighted components, and what it is made of."""

from __future__ import annotations

import pytest
import torch

from stratagem import recipes
from stratagem.advantages import GroupCentered, PerReward
from stratagem.experience import Experience, PolicyOutput
from stratagem.language.episodes import Episode, Turn, to_experience
from stratagem.rewards import RewardWeights
from stratagem.tasks.documents import DocumentsTask


def talks(task: DocumentsTask) -> list[list[str]]:
    """All right, a wrong answer, no answer, and an answer to nothing that was found."""
    *before, answer = task.solution("train", 1)
    return [[*before, answer], [*before, "<answer>no</answer>"], [*before, "", "", ""], [answer]]


def batch(task: DocumentsTask, seen=(1, 2, 3)) -> Experience:
    """These episodes as a group, two tokens for each turn, at a log-probability of -1."""
    group = []
    for number, actions in enumerate(talks(task)):
        environment, episode = task.environment("train", 1), Episode(0, number, 0)
        observation = environment.reset()
        for action in actions:
            episode.turns.append(Turn(observation, list(seen), [4, 5], [-1.0, -1.0], action))
            step = environment.step(action)
            episode.record(step)
            observation = step.observation
            if step.done:
                break
        group.append(episode)
    x = to_experience([group], task.reward_names, len(group), task.reward_weights)
    return x.replace(ref_logp=torch.full((x.tokens,), -1.0))


TASK = DocumentsTask(noise=0.0, fine=1.0, max_turns=6)


def test_totals_are_weighted_by_what_was_found_and_gated_by_the_format():
    x = recipes.unidoc_rl().shape(batch(TASK))
    found = x.named_reward("retrieval")[0].item()
    assert x.returns.tolist() == pytest.approx([0.9 + 0.1 * found, 0.3 + 0.1 * found, 0.25 + 0.1 * found, 0])
    assert x.reward[3].abs().sum() == 0
    assert x.success.tolist() == [True, False, False, False]


def test_the_total_trains_as_the_weighted_sum_of_its_columns_does():
    x = batch(TASK)
    total = x.replace(reward=x.returns.unsqueeze(1), reward_names=("reward",), reward_weights=(1.0,))
    recipe = recipes.unidoc_rl()
    ours, theirs = (recipe.prepare(one.replace(turn_reward=None)) for one in (x, total))
    assert ours.advantage.equal(theirs.advantage) and ours.advantage.abs().max() > 0.5
    # Before anything is divided by a deviation, the advantage of the sum is the sum of the columns' advantages.
    apart = PerReward(GroupCentered())(x)
    assert torch.allclose(apart, GroupCentered()(total), atol=1e-6)
    # Divided by each column's own deviation it is not.
    assert not torch.allclose(PerReward()(x), ours.advantage, atol=1e-2)


def test_the_answer_alone_is_another_weight_of_the_same_columns():
    dense, alone = batch(TASK), batch(DocumentsTask(noise=0.0, fine=1.0, max_turns=6, reward="answer"))
    assert dense.reward.equal(alone.reward)
    assert alone.returns.tolist() == [1, 0, 0, 0]
    assert RewardWeights((1.0, *[0.0] * 5))(dense).returns.equal(alone.returns)


def test_a_group_of_equal_totals_teaches_nothing():
    x = batch(TASK)
    x = x.select(torch.tensor([0, 0, 0]))
    assert recipes.unidoc_rl().prepare(x).advantage.abs().max() == 0


def test_without_kl_it_is_grpo():
    x = batch(TASK)
    ours, theirs = recipes.unidoc_rl(kl_coefficient=0.0), recipes.grpo()
    assert ours.objective == theirs.objective and ours.advantage == theirs.advantage
    assert ours.prepare(x).advantage.equal(theirs.prepare(x).advantage)
    assert (recipes.unidoc_rl().sampler.group_size, recipes.unidoc_rl(group_size=3).sampler.group_size) == (5, 3)


def test_the_kl_is_k3_at_one_hundredth():
    x = Experience.from_lengths([1, 1], [1, 1], [2], reward=[1.0, 1.0], behavior_logp=torch.full((2,), -1.0))
    x = x.replace(ref_logp=torch.tensor([-1.5, -1.0]), old_logp=torch.full((2,), -1.0))
    recipe = recipes.unidoc_rl()
    loss = recipe.objective(PolicyOutput(torch.full((2,), -1.0)), recipe.credit(x)).loss
    k3 = torch.tensor(-0.5).exp() - 1 + 0.5
    assert float(loss) == pytest.approx(0.01 * float(k3) / 2, rel=1e-4)


def test_what_the_environment_says_has_no_rows():
    x = batch(TASK, seen=[7, 8, 9] * 100)
    assert x.tokens == 2 * int(x.trajectory_of_turn.size().sum()) and bool(x.learnable().all())
    assert recipes.unidoc_rl().prepare(x).advantage.equal(recipes.unidoc_rl().prepare(batch(TASK)).advantage)
