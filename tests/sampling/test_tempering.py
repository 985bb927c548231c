"""Temperatures by entropy: the factor, what it is measured by, and that batches know what they were sampled from."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.lab import Exact
from stratagem.lab.games import find_game
from stratagem.lab.policy import NodeInputs
from stratagem.lab.world import LabTask, LabWorld
from stratagem.recipes import dapo
from stratagem.sampling import DynamicSampling, EntropyTempering, Rollouts
from stratagem.training.loop import Settings, Trainer
from stratagem.training.run_directory import RunDirectory


def batch(*entropy: float, **fields) -> Experience:
    return Experience.from_lengths([len(entropy)], [1], [1], entropy=torch.tensor(entropy), **fields)


def factor(tempering: EntropyTempering, *entropy: float) -> list[float]:
    return tempering(torch.tensor(entropy)).tolist()


def test_the_factor_stays_within_the_strength_of_one():
    tempering = EntropyTempering(quantile=0.5)
    tempering.before_steps(batch(0.1, 1.0, 10.0))
    assert factor(tempering, 0.0, 0.1, 1.0, 10.0, 99.0) == pytest.approx([0.95, 0.95, 1.0, 1.05, 1.05])
    assert factor(tempering, math.sqrt(10.0)) == pytest.approx([1.025])


def test_before_the_first_batch_and_at_strength_zero_it_is_one():
    assert factor(EntropyTempering(), 0.1, 2.0) == [1, 1]
    off = EntropyTempering(strength=0.0)
    off.before_steps(batch(0.1, 2.0))
    assert factor(off, 0.1, 2.0) == [1, 1]


def test_the_released_sign_never_cools():
    tempering = EntropyTempering(quantile=0.5, below="positive")
    tempering.before_steps(batch(0.1, 1.0, 10.0))
    assert factor(tempering, 0.1, 1.0, 10.0) == pytest.approx([1.05, 1.0, 1.05])


def test_it_goes_by_the_last_batch_alone_and_by_the_tokens_that_may_train():
    tempering = EntropyTempering(quantile=0.5)
    tempering.before_steps(batch(5.0, 6.0, 7.0))
    tempering.before_steps(batch(0.1, 1.0, 10.0, math.nan, mask=torch.tensor([True, True, True, False])))
    assert factor(tempering, 1.0, 10.0) == pytest.approx([1.0, 1.05])
    tempering.before_steps(batch(3.0, mask=torch.tensor([False])))
    assert factor(tempering, 1.0, 10.0) == pytest.approx([1.0, 1.05])
    with pytest.raises(ValueError, match="not finite"):
        tempering.before_steps(batch(math.nan))
    with pytest.raises(ValueError, match=r"needs x\.entropy"):
        tempering.before_steps(Experience.from_lengths([1], [1], [1]))


def test_logits_are_divided_by_the_factor_at_their_entropy():
    tempering = EntropyTempering(quantile=0.5)
    tempering.before_steps(batch(0.1, 0.5, 1.0))
    sampler = Rollouts(temperature=0.5, tempering=tempering)
    logits = torch.tensor([[2.0, 0.0, -math.inf], [0.1, 0.0, 0.2]])
    entropy = torch.distributions.Categorical(logits=(logits / 0.5).clamp(min=-1e9)).entropy()
    expected = logits / 0.5 / tempering(entropy).unsqueeze(1)
    torch.testing.assert_close(sampler.tempered(logits), expected)
    assert torch.equal(Rollouts(temperature=0.5).tempered(logits), logits / 0.5)


@pytest.mark.parametrize("strength", [1.0, -0.1])
def test_a_strength_that_would_freeze_is_refused(strength):
    with pytest.raises(InputError, match=r"entropy_tempering\.strength"):
        EntropyTempering(strength=strength)


# ---- in a run -------------------------------------------------------------------------------------------------------

RECIPE = dapo().replace(sampler=DynamicSampling(tempering=EntropyTempering(0.5)))


def trainer(path: Path, steps: int) -> Trainer:
    world = LabWorld(LabTask(find_game("prompts")), seed=3)
    settings = Settings(steps, 3, evaluation_episodes=0, checkpoint_every=2)
    return Trainer(world.adapt(RECIPE), world, RunDirectory.create(path), settings)


def test_batches_say_what_they_were_really_sampled_from(tmp_path):
    run = trainer(tmp_path / "run", 3)
    for step in range(2):
        logits = run.world.policy.table().detach().clone()
        tempered = run.recipe.sampler.tempered(logits)
        run.step()
        x = run.world.last_batch
        assert isinstance(x.inputs, NodeInputs)
        chosen = Exact(run.world.tree, tempered).logp[x.inputs.node, x.action]
        torch.testing.assert_close(x.behavior_logp, chosen.float())
        untempered = Exact(run.world.tree, logits).logp[x.inputs.node, x.action].float()
        torch.testing.assert_close(x.version_logp, untempered)
        assert torch.allclose(x.behavior_logp, untempered) == (step == 0)


def test_what_it_is_measured_by_survives_a_resume(tmp_path):
    unbroken, broken = trainer(tmp_path / "unbroken", 4), trainer(tmp_path / "broken", 2)
    unbroken.run()
    broken.run()
    resumed = trainer(tmp_path / "broken", 4)
    resumed.resume(resumed.run_directory.load())
    memory = [run.recipe.sampler.tempering.memory()["scale"] for run in (broken, resumed)]
    assert torch.equal(*memory) and bool(memory[0].isfinite().all())
    resumed.run()
    assert torch.equal(resumed.policy.table(), unbroken.policy.table())
    plain = dapo()
    assert "entropy" in RECIPE.experience_needs() and "entropy" not in plain.experience_needs()
