"""What the sampler reveals, and that it samples what the exact likelihood says it does."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from stratagem.diffusion import Noise, denoise, mask_table

PROMPT = torch.tensor([[0, 1]])


def noise(rows: int, steps: int = 3, path: str = "test") -> Noise:
    return Noise.draw(0, path, range(rows), steps, 3, 3)


def test_answers_are_drawn_from_the_mean_over_orders(policy):
    """Frequencies of all 27 answers in 8,000 draws, by a chi-square whose 0.9999 quantile at 26 degrees is 62."""
    rows = 8_000
    source = torch.Generator().manual_seed(0)
    drawn = Noise(torch.rand(rows, 3, 3, 3, generator=source), torch.rand(rows, 3, generator=source))
    said = denoise(policy, PROMPT.expand(rows, -1), 3, noise=drawn)
    counts = torch.bincount((said * torch.tensor([9, 3, 1])).sum(1), minlength=27).double()
    tokens = torch.tensor([(0, 1, *answer) for answer in product(range(3), repeat=3)])
    table = mask_table(policy, tokens, (torch.arange(5) >= 2).expand_as(tokens))
    expected = rows * table.log_likelihood().exp()
    assert ((counts - expected).square() / expected).sum().item() < 62
    # A likelihood that ignores what was revealed before is told apart by these draws.
    one_step = rows * table.integrand(1.0).exp()
    assert ((counts - one_step).square() / one_step).sum().item() > 100


@pytest.mark.parametrize("order", ["random", "confident"])
@pytest.mark.parametrize("steps", [1, 2, 3, 9])
def test_every_position_is_revealed_in_any_number_of_steps(policy, order, steps):
    said = denoise(policy, PROMPT.expand(5, -1), 3, steps, order, noise=noise(5, min(steps, 3)))
    assert said.shape == (5, 3) and bool((said < policy.mask).all())


def test_in_one_step_all_tokens_are_drawn_without_seeing_each_other(policy):
    rows = 5_000
    said = denoise(policy, PROMPT.expand(rows, -1), 3, 1, noise=noise(rows, 1))
    alone = policy.logits(torch.tensor([[0, 1, 3, 3, 3]]))[0, 2:].softmax(-1)
    for position in range(3):
        share = torch.bincount(said[:, position], minlength=3) / rows
        assert share.tolist() == pytest.approx(alone[position].tolist(), abs=0.03)


def test_without_noise_the_surest_token_comes_first_and_nothing_is_random(policy):
    said = denoise(policy, PROMPT, 3)
    assert torch.equal(said, denoise(policy, PROMPT, 3))
    tokens = torch.tensor([[0, 1, 3, 3, 3]])
    for _ in range(3):
        probability = policy.logits(tokens)[0].softmax(-1).amax(-1).masked_fill(tokens[0] != 3, -1.0)
        position = int(probability.argmax())
        tokens[0, position] = policy.logits(tokens)[0, position].argmax()
    assert torch.equal(said, tokens[:, 2:])


def test_an_answer_does_not_depend_on_its_neighbours(policy):
    many = denoise(policy, PROMPT.expand(6, -1), 3, noise=noise(6))
    for row in range(6):
        alone = Noise.draw(0, "test", [row], 3, 3, 3)
        assert torch.equal(denoise(policy, PROMPT, 3, noise=alone)[0], many[row])


def test_a_low_temperature_proposes_the_likeliest_token(policy):
    cold = denoise(policy, PROMPT.expand(20, -1), 3, 1, temperature=1e-4, noise=noise(20, 1))
    likeliest = policy.logits(torch.tensor([[0, 1, 3, 3, 3]]))[0, 2:].argmax(-1)
    assert torch.equal(cold, likeliest.expand(20, -1))
