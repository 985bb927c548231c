"""Recipes that choose among sampled answers, or weigh them by how sure of them the policy was."""

from __future__ import annotations

import pytest
import torch

from stratagem import catalogue, recipes
from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.lab import find_game
from stratagem.lab.world import LabTask
from stratagem.recipe import Recipe
from stratagem.recipes.reasoning.sampled import d3s, progrpo_arm
from stratagem.study.experiments import learn

RETURNS = [1.0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 0, 1]


def batch() -> Experience:
    """Three groups of four answers of one to three tokens, the second of them all right."""
    lengths = [1 + n % 3 for n in range(12)]
    source = torch.Generator().manual_seed(0)
    tokens = sum(lengths)
    logp = -torch.rand(tokens, generator=source, dtype=torch.float64)
    return Experience.from_lengths(
        lengths,
        [1] * 12,
        [4] * 3,
        reward=torch.tensor(RETURNS, dtype=torch.float64),
        entropy=torch.rand(tokens, generator=source, dtype=torch.float64),
        old_logp=logp,
    )


def gradient(recipe: Recipe, x: Experience) -> tuple[float, torch.Tensor]:
    """Loss, and its gradient by the log-probabilities of all tokens."""
    prepared = recipe.prepare(x)
    logp = x.old_logp.clone().requires_grad_()
    loss = recipe.objective(PolicyOutput(logp), prepared).loss
    loss.backward()
    return float(loss.detach()), logp.grad


# ---- d3s ------------------------------------------------------------------------------------------------------------


def test_d3s_without_down_sampling_is_grpo_on_the_token_mean():
    host = recipes.grpo().with_values({"objective.aggregation": "token_mean"})
    whole = d3s(1, 1, 1, 1)
    assert whole.replace(name="grpo", base="ppo") == host
    # Parts that keep everything are no different from none.
    loose = d3s().with_values({"selections.most_varied_credit.share": 1, "selections.decisive_tokens.share": 1})
    (loss, grad), (expected_loss, expected) = gradient(loose, batch()), gradient(host, batch())
    assert loss == expected_loss
    assert torch.equal(grad, expected)


def test_d3s_is_a_mean_over_the_kept_tokens_with_the_advantages_of_the_whole_batch():
    x = batch()
    prepared = d3s(0.5, 0.5, 0.4, 0.4).prepare(x)
    answers = x.trajectory_of_token.sum(prepared.mask.long()) > 0
    # Six answers that vary most, none of the group that was all right; 40 % of their tokens, rounded up.
    assert not answers[4:8].any()
    kept = d3s(0.5, 0.5, 1, 1).prepare(x).mask
    assert int((x.trajectory_of_token.sum(kept.long()) > 0).sum()) == 6
    assert int(prepared.mask.sum()) == -(-2 * int(kept.sum()) // 5)
    whole = recipes.grpo().prepare(x).advantage
    assert torch.equal(prepared.advantage[prepared.mask], whole[prepared.mask])
    _, found = gradient(d3s(0.5, 0.5, 0.4, 0.4), x)
    torch.testing.assert_close(found, torch.where(prepared.mask, -whole, 0.0) / prepared.mask.sum())


def test_d3s_within_groups_keeps_answers_of_each():
    kept = d3s(0.5, 0.5, 1, 1, level="group").prepare(batch()).mask
    answers = batch().trajectory_of_token.sum(kept.long()) > 0
    assert batch().group_of_trajectory.sum(answers.long()).tolist() == [2, 2, 2]


def test_the_shares_of_d3s_grow_linearly_and_stay_at_their_ends():
    recipe = d3s(batches=40)
    for step, answers, tokens in ((-1, 0.25, 0.2), (0, 0.25, 0.2), (20, 0.5, 0.4), (40, 0.75, 0.6), (99, 0.75, 0.6)):
        found: dict[str, float] = {}
        for schedule in recipe.schedules:
            found |= schedule(step, {})
        assert list(found.values()) == pytest.approx([answers, tokens])
        changed = recipe.with_values(found)
        assert [part.share for part in changed.selections] == list(found.values())
    assert len(d3s(0.25, 0.25, 0.2, 0.2).schedules) == 0
    assert [part.part_name() for part in d3s(tokens=1, last_tokens=1).selections] == ["most_varied_credit"]


@pytest.mark.parametrize("host", ["gspo", "cispo", "rloo"])
def test_the_selections_of_d3s_compose_with_other_losses(host):
    chosen = catalogue.card(host).recipe().replace(selections=d3s(0.5, 0.5).selections)
    kept = chosen.prepare(batch()).mask
    _, found = gradient(chosen, batch())
    assert 0 < int(kept.sum()) < batch().tokens
    assert not found[~kept].any()
    assert found[kept].any()


def test_d3s_has_nothing_to_learn_from_equal_rewards():
    recipe = d3s()
    x = recipe.prepare(batch().replace(reward=torch.ones(12, 1, dtype=torch.float64)))
    assert not recipe.objective.has_signal(x)


def test_d3s_learns_in_the_lab_and_its_shares_move():
    run = learn(d3s(batches=2), LabTask(find_game("prompts")), 1000, 3)
    assert run.last.expected_return > run.policies[0].expected_return
    knobs = [
        [row[f"knob/selections.{name}.share"] for row in run.metrics]
        for name in ("most_varied_credit", "decisive_tokens")
    ]
    assert knobs == [pytest.approx([0.25, 0.5, 0.75]), pytest.approx([0.2, 0.4, 0.6])]


# ---- progrpo_arm ----------------------------------------------------------------------------------------------------


def test_progrpo_arm_at_strength_zero_is_grpo():
    x = batch().replace(behavior_logp=batch().old_logp)
    (loss, grad), (expected_loss, expected) = gradient(progrpo_arm(0.0), x), gradient(recipes.grpo(), x)
    assert loss == expected_loss
    assert torch.equal(grad, expected)


def test_progrpo_arm_trains_groups_that_were_all_right():
    x = batch().replace(behavior_logp=batch().old_logp)
    right = x.select(torch.arange(4, 8))
    assert not recipes.grpo().objective.has_signal(recipes.grpo().prepare(right))
    recipe = progrpo_arm()
    prepared = recipe.prepare(right)
    assert recipe.objective.has_signal(prepared)
    # Each answer's credit is the same at all of its tokens, and they add up to 0 over the answers.
    first = prepared.advantage[right.trajectory_of_token.first()]
    assert torch.equal(prepared.advantage, right.to_tokens(trajectory=first))
    assert float(first.sum()) == pytest.approx(0)


def test_progrpo_arm_in_the_lab_is_that_with_the_group_s_mean():
    games = [learn(progrpo_arm(prompt=choice), LabTask(find_game("prompts")), 1000, 3) for choice in ("auto", None)]
    assert torch.equal(*(run.policies[-1].logits for run in games))
    with pytest.raises(InputError, match="reads prompt_confidence: TabularPolicy does not say how likely prompts are"):
        learn(progrpo_arm(prompt="policy"), LabTask(find_game("prompts")), 1000, 1)
    for choice in ("auto", "policy", None, 0.4):
        recipe = progrpo_arm(prompt=choice)
        assert recipe.advantage.prompt == choice and Recipe.from_yaml(recipe.to_yaml()) == recipe


def test_progrpo_arm_runs_in_the_lab():
    run = learn(progrpo_arm(), LabTask(find_game("prompts")), 1000, 3)
    assert run.last.expected_return > run.policies[0].expected_return
