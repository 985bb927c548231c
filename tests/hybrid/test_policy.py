from __future__ import annotations

import math

import pytest
import torch

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.hybrid import HybridPolicy, HybridTask, Shape, demonstrations
from stratagem.hybrid.policy import in_rows
from stratagem.hybrid.warm_start import chains
from stratagem.objectives import mean_cosine
from stratagem.seeding import generator

TASK = HybridTask("find", steps=3, dims=4, concentration=2.0)


@pytest.fixture
def policy() -> HybridPolicy:
    return HybridPolicy(Shape.of(TASK), seed=1)


def batch(policy: HybridPolicy, count: int = 6, temperature: float = 1.0) -> tuple[Experience, torch.Tensor]:
    pictures = TASK.pictures("train", range(count))
    action, logp = policy.act(pictures.picture, pictures.question, generator(0, "act"), True, temperature)
    return chains(pictures, action, 1), logp


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_what_it_did_is_what_it_says_it_did(policy, temperature):
    x, logp = batch(policy, temperature=temperature)
    torch.testing.assert_close(policy(x, temperature=temperature).logp.detach(), logp)


def test_a_latent_is_a_unit_vector_and_its_logp_the_scaled_cosine(policy):
    x, logp = batch(policy)
    direction = policy(x, also=["direction"]).direction.detach()
    at = x.latent
    torch.testing.assert_close(x.action[at].norm(dim=-1), torch.ones(int(at.sum())))
    torch.testing.assert_close(direction[at].norm(dim=-1), torch.ones(int(at.sum())))
    torch.testing.assert_close(logp[at], 2.0 * (direction * x.action).sum(-1)[at])
    assert not direction[~at].any()


def test_the_answers_are_a_distribution(policy):
    x, _ = batch(policy, 1)
    answers = []
    for number in range(4):
        action = x.action.clone()
        action[-1, 0] = number
        answers.append(policy(x.replace(action=action)).logp[-1].exp())
    assert torch.stack(answers).sum().item() == pytest.approx(1, abs=1e-5)


def test_latents_are_drawn_around_their_direction():
    task = HybridTask("find", steps=1, dims=4, concentration=3.0)
    policy = HybridPolicy(Shape.of(task))
    picture = task.pictures("train", [0])
    many = picture.picture.expand(4000, -1, -1, -1), picture.question.expand(4000, -1)
    _, logp = policy.act(*many, generator(0, "act"))
    cosine = logp.reshape(4000, 2)[:, 0] / 3.0
    assert float(cosine.mean()) == pytest.approx(mean_cosine(4, 3.0), abs=4 * float(cosine.std()) / math.sqrt(4000))


def test_without_chance_it_takes_means_and_the_likeliest_answer(policy):
    pictures = TASK.pictures("train", range(4))
    action, _ = policy.act(pictures.picture, pictures.question, None)
    x = chains(pictures, action, 1)
    direction = policy(x, also=["direction"]).direction
    torch.testing.assert_close(x.action[x.latent], direction[x.latent].detach())


def test_the_answer_sees_the_picture_through_the_latents_alone(policy):
    x, _ = batch(policy, 2)
    other = x.replace(inputs=type(x.inputs)(x.inputs.picture.flip(0), x.inputs.question, x.inputs.lengths))
    ours, theirs = policy(x).logp, policy(other).logp
    torch.testing.assert_close(ours[~x.latent], theirs[~x.latent])
    assert not torch.allclose(ours[x.latent], theirs[x.latent])


def test_answers_alone_move_no_direction(policy):
    x, _ = batch(policy)
    policy(x).logp[~x.latent].sum().backward()
    assert policy.direction.weight.grad is None or not policy.direction.weight.grad.any()
    assert policy.memory.weight_ih.grad.any()


def test_the_encoder_never_trains_and_matrices_are_square_maps_of_features(policy):
    trained = {id(parameter) for parameter in policy.policy_parameters()}
    assert not trained & {id(parameter) for parameter in policy.encoder.parameters()}
    assert not trained & {id(parameter) for parameter in policy.critic_parameters()}
    for matrix in policy.hidden_matrices():
        assert id(matrix) in trained and matrix.ndim == 2 and min(matrix.shape) >= policy.shape.width


def test_the_solver_tells_the_cells_and_answers_right(policy):
    task = HybridTask("compare", steps=4, dims=4, latents="mean")
    policy = HybridPolicy(Shape.of(task))
    pictures = task.pictures("train", range(5))
    x = demonstrations(policy, task, pictures, generator(0, "none"))
    action = x.action.reshape(5, 5, 4)
    targets = policy.targets(pictures.picture, pictures.cell)
    torch.testing.assert_close(action[:, :4], targets[:, [0, 0, 1, 1]])
    assert torch.equal(action[:, 4, 0].long(), pictures.answer)


def test_equal_objects_have_equal_targets_wherever_they_are(policy):
    pictures = TASK.pictures("train", range(300))
    targets = policy.targets(pictures.picture, pictures.cell)[:, 0]
    same = (pictures.question[:, 0] == pictures.question[0, 0]) & (pictures.answer == pictures.answer[0])
    assert same.sum() > 3
    torch.testing.assert_close(targets[same], targets[:1].expand(int(same.sum()), -1))


def test_saving_and_reading_back(policy, tmp_path):
    policy.save(tmp_path / "model", "card")
    read = HybridPolicy.from_directory(tmp_path / "model")
    x, logp = batch(policy)
    torch.testing.assert_close(read(x).logp.detach(), logp)
    (tmp_path / "model" / "policy.json").write_text('{"kind": "gaussian"}')
    with pytest.raises(InputError, match="of kind 'gaussian', where hybrid is needed"):
        HybridPolicy.from_directory(tmp_path / "model")


def test_another_concentration_keeps_the_weights_and_can_be_trained(policy):
    other = policy.copy().with_concentration(1.0)
    x, logp = batch(policy)
    found = other(x).logp
    torch.testing.assert_close(found[x.latent].detach(), logp[x.latent] / 2)
    found.sum().backward()
    assert other.direction.weight.grad.any()


def test_what_does_not_fit_is_refused(policy):
    x, _ = batch(policy)
    with pytest.raises(ValueError, match="3 latents of 4 numbers, then a token"):
        policy(x.replace(action=torch.zeros(x.tokens, 5)))
    with pytest.raises(ValueError, match="reads HybridInputs"):
        policy(x.replace(inputs=None))
    with pytest.raises(InputError, match="does not say entropy"):
        policy(x, also=["entropy"])


def test_an_answer_is_the_first_number_of_its_row():
    rows = in_rows(torch.ones(2, 3, 2), torch.tensor([5, 7]))
    assert rows[:, 3].tolist() == [[5, 0], [7, 0]]
