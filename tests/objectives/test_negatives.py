"""Negatives that are left out: by the entropy of a token, of a trajectory, and of the batches so far."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.lab.games import find_game
from stratagem.lab.world import LabTask, LabWorld
from stratagem.objectives import EntropyHysteresis, PolicyGradient, SureNegatives, TokenMean, Unclipped
from stratagem.objectives.negatives import mean_entropies
from stratagem.parts import Correction
from stratagem.recipes import qwenlong_l1_5
from stratagem.training.loop import Settings, Trainer
from stratagem.training.run_directory import RunDirectory


def batch(*trajectories: tuple[float, ...], advantage: list[float] | None = None, **fields) -> Experience:
    """One group of trajectories of one turn, with these entropies before the update."""
    entropy = [h for trajectory in trajectories for h in trajectory]
    return Experience.from_lengths(
        [len(trajectory) for trajectory in trajectories],
        [1] * len(trajectories),
        [len(trajectories)],
        entropy=torch.tensor(entropy, dtype=torch.float64),
        advantage=None if advantage is None else torch.tensor(advantage, dtype=torch.float64),
        **fields,
    )


def weights(part: Correction, x: Experience) -> list[float]:
    return part(PolicyOutput(torch.zeros(x.tokens, dtype=torch.float64)), x).tolist()


def gradient(part: Correction, x: Experience) -> torch.Tensor:
    logp = torch.zeros(x.tokens, dtype=torch.float64, requires_grad=True)
    objective = PolicyGradient(gate=Unclipped(), aggregation=TokenMean(), correction=part)
    return torch.autograd.grad(objective(PolicyOutput(logp), x).loss, logp)[0] * x.tokens


# ---- by the entropy of what is bad ----------------------------------------------------------------------------------


def test_a_bad_token_of_which_the_policy_is_unsure_has_no_gradient_and_a_good_one_keeps_its_own():
    x = batch((1.0, 3.0), (1.0, 3.0), advantage=[1.0, 1.0, -1.0, -1.0])
    assert gradient(SureNegatives(2.0), x).tolist() == [-1, -1, 1, 0]
    assert weights(SureNegatives(3.0), x) == [1, 1, 1, 1]


def test_a_trajectory_goes_by_the_mean_of_its_tokens_that_may_train():
    x = batch((1.0, 4.0), (1.0, 2.0), (9.0, math.nan), advantage=[-1.0] * 6)
    x = x.replace(mask=torch.tensor([True, True, True, True, True, False]))
    assert weights(SureNegatives(2.0, "trajectory"), x)[:5] == [0, 0, 1, 1, 0]
    assert weights(SureNegatives(math.inf, "trajectory"), x)[:5] == [1] * 5
    for rows in ([0, 2], [1]):
        piece = x.microbatch(torch.tensor(rows))
        expected = piece.piece_of(torch.tensor([0.0, 0, 1, 1, 0, 0]))
        found = torch.tensor(weights(SureNegatives(2.0, "trajectory"), piece))
        assert torch.equal(found[piece.learnable()], expected[piece.learnable()])


# ---- by the entropy of batches --------------------------------------------------------------------------------------


def test_between_the_bounds_it_stays_as_it_was():
    part, modes = EntropyHysteresis(0.15, 0.25), []
    for entropy in (0.2, 0.26, 0.2, 0.14, 0.2):
        x = part.before_steps(batch((entropy,), (entropy,), advantage=[1.0, -1.0]))
        modes.append(weights(part, x))
    assert modes == [[1, 1], [1, 0], [1, 0], [1, 1], [1, 1]]


def test_the_entropy_of_a_batch_is_the_mean_over_trajectories_of_their_means():
    x = batch((1.0, 1.0, 1.0, 1.0), (3.0,), advantage=[-1.0] * 5)
    assert mean_entropies(x)[0].mean().item() == 2.0
    for high, expected in ((1.99, 0.0), (2.01, 1.0)):
        part = EntropyHysteresis(1.0, high)
        assert weights(part, part.before_steps(x))[0] == expected


def test_trajectories_without_a_token_that_may_train_do_not_count():
    x = batch((0.3,), (math.nan,), advantage=[1.0, -1.0], mask=torch.tensor([True, False]))
    part = EntropyHysteresis()
    part.before_steps(x)
    assert float(part.memory()["without"]) == 1
    part.before_steps(x.replace(mask=torch.zeros(2, dtype=torch.bool)))
    assert float(part.memory()["without"]) == 1
    with pytest.raises(ValueError, match="trajectory 1 has one that is not finite"):
        part.before_steps(x.replace(mask=None))


def test_what_is_left_out_still_counts_unless_the_rest_is_to_count_for_it():
    x = batch((1.0,), (1.0, 1.0), (1.0,), advantage=[1.0, -1.0, -1.0, 0.5])
    plain, kept = EntropyHysteresis(), EntropyHysteresis(kept_only=True)
    for part in (plain, kept):
        part.before_steps(x)
    assert weights(plain, x) == [1, 0, 0, 1]
    assert weights(kept, x) == [2, 0, 0, 2]
    assert [weights(kept, x.microbatch(torch.tensor([n]))) for n in range(3)] == [[2], [0, 0], [2]]
    nothing = x.replace(advantage=-torch.ones(4, dtype=torch.float64))
    assert weights(kept, nothing) == [0, 0, 0, 0]


def test_it_is_logged_while_negatives_are_left_out():
    part = EntropyHysteresis()
    x = part.before_steps(batch((1.0,), (1.0,), advantage=[1.0, -1.0]))
    objective = PolicyGradient(gate=Unclipped(), aggregation=TokenMean(), correction=part)
    assert float(objective(PolicyOutput(torch.zeros(2, requires_grad=True)), x).metrics["without_negatives"]) == 1


def test_bounds_out_of_order_and_missing_fields_are_refused():
    with pytest.raises(InputError, match=r"entropy_hysteresis\.low = 0\.3: must be below high = 0\.3"):
        EntropyHysteresis(0.3, 0.3)
    bare = Experience.from_lengths([1], [1], [1])
    with pytest.raises(ValueError, match=r"x\.entropy"):
        EntropyHysteresis().before_steps(bare)
    with pytest.raises(ValueError, match=r"x\.entropy and x\.advantage"):
        weights(SureNegatives(1.0), bare)


# ---- in a run -------------------------------------------------------------------------------------------------------


def trainer(path: Path, steps: int, bounds: tuple[float, float]) -> Trainer:
    world = LabWorld(LabTask(find_game("prompts")), seed=7)
    recipe = world.adapt(qwenlong_l1_5(bounds=bounds)).with_values({"optimization.learning_rate": 0.3})
    settings = Settings(steps, 7, evaluation_episodes=0, checkpoint_every=3)
    return Trainer(recipe, world, RunDirectory.create(path), settings)


def test_the_mode_survives_a_resume(tmp_path):
    bounds = (0.3, 0.8)  # The entropy begins above, and comes between them before the third batch.
    unbroken, broken = trainer(tmp_path / "unbroken", 6, bounds), trainer(tmp_path / "broken", 3, bounds)
    unbroken.run()
    broken.run()
    resumed = trainer(tmp_path / "broken", 6, bounds)
    resumed.resume(resumed.run_directory.load())
    resumed.run()
    assert torch.equal(resumed.policy.table(), unbroken.policy.table())
    rows = unbroken.run_directory.rows("metrics.jsonl")
    assert rows[3]["without_negatives"] == 1 and rows[3]["entropy"] < bounds[1]
