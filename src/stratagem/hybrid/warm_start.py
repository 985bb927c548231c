"""A hybrid policy before reinforcement: latents matched to what the encoder sees, answers by cross-entropy."""

from __future__ import annotations

import torch

from stratagem.experience import Experience
from stratagem.hybrid.inputs import HybridInputs
from stratagem.hybrid.policy import HybridPolicy, Shape, in_rows
from stratagem.hybrid.task import HybridTask, Pictures
from stratagem.objectives.directions import sample_directions
from stratagem.seeding import derive, generator

FIRST = 10**9
"""Number of the first picture of the warm start: no run comes so far, so it sees other pictures."""


def demonstrations(policy: HybridPolicy, task: HybridTask, pictures: Pictures, source: torch.Generator) -> Experience:
    """How the solver answers: the first half of its latents tells the first cell asked about, the rest the second.

    With sampled latents these are drawn around the unit vectors of :meth:`HybridPolicy.targets`, as the policy draws
    its own; else they are these vectors. Then the right answer. One group per picture.
    """
    of_step = torch.arange(task.steps) * 2 // task.steps
    with torch.no_grad():
        latent = policy.targets(pictures.picture, pictures.cell)[:, of_step]
        if task.latents == "sampled":
            latent = sample_directions(latent.flatten(0, 1), task.concentration, source).reshape(latent.shape)
    return chains(pictures, in_rows(latent, pictures.answer), group_size=1)


def chains(pictures: Pictures, action: torch.Tensor, group_size: int) -> Experience:
    """Chains as a batch: one turn each, ``group_size`` of every picture; latents are marked."""
    count, positions, dims = action.shape
    latent = torch.arange(positions) < positions - 1
    lengths = torch.full((count,), positions)
    return Experience.from_lengths(
        lengths,
        [1] * count,
        [group_size] * (count // group_size),
        action=action.reshape(-1, dims),
        latent=latent.repeat(count),
        inputs=HybridInputs(pictures.picture, pictures.question, lengths),
    )


def warm_start(task: HybridTask, seed: int, batches: int = 200, size: int = 128) -> HybridPolicy:
    """A policy after ``batches`` supervised batches of ``size`` pictures: ``-log pi(answer) + mean(1 - <mu, z>)``.

    A second or two, and it follows from the seed; the fewer batches, the more is left to reinforcement.
    """
    policy = HybridPolicy(Shape.of(task), derive(seed, "weights"))
    optimizer = torch.optim.AdamW(policy.policy_parameters(), lr=5e-3, weight_decay=0.0)
    for batch in range(batches):
        source = generator(seed, "demonstrations", batch)
        pictures = task.pictures("train", range(FIRST + batch * size, FIRST + (batch + 1) * size))
        x = demonstrations(policy, task, pictures, source)
        out = policy(x, also=("direction",))
        assert x.latent is not None and x.action is not None and out.direction is not None
        match = 1 - (out.direction * x.action).sum(-1)[x.latent]
        optimizer.zero_grad(set_to_none=True)
        (match.mean() - out.logp[~x.latent].mean()).backward()
        torch.nn.utils.clip_grad_norm_(policy.policy_parameters(), 1.0)
        optimizer.step()
    return policy
