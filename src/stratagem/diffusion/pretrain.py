"""The warm start: a policy that has learned to denoise a task's own solutions."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from stratagem.diffusion.inputs import DiffusionInputs
from stratagem.diffusion.policy import DiffusionPolicy, Shape
from stratagem.diffusion.tasks import DiffusionTask
from stratagem.errors import InputError
from stratagem.sampling import MaskedElbo
from stratagem.seeding import derive, generator
from stratagem.tasks.task import Split

LOSS = MaskedElbo("random", points=1, masks="count")
"""One random time for each example: the loss of masked diffusion models (LLaDA, arXiv 2502.09992)."""


def pretrain(
    task: DiffusionTask,
    seed: int,
    steps: int | None = None,
    batch: int = 32,
    learning_rate: float = 6e-3,
    demonstrations: int = 4096,
) -> DiffusionPolicy:
    """A fresh policy after ``steps`` batches of denoising, ``-mean ELBO``, on so many training demonstrations.

    What stands after the end of an answer is part of what is learned, so that the policy can fill a whole canvas. The
    learning rate falls linearly to a tenth. Deterministic in ``seed`` on one machine.

    steps: by default the task's own, so few that something is left to learn; 0 for a policy that knows nothing.

    Raises :class:`InputError` for a number out of range.
    """
    steps = task.warm_start if steps is None else steps
    for name, value, least in (("steps", steps, 0), ("batch", batch, 1), ("demonstrations", demonstrations, 1)):
        if value < least:
            raise InputError(f"pretrain: {name} = {value}: must be at least {least}")
    shape = Shape(len(task.symbols), task.prompt_length + task.answer_length)
    policy = DiffusionPolicy(shape, derive(seed, "policy"))
    if steps == 0:
        return policy
    shown = canvases(task, "train", range(demonstrations))
    response = torch.arange(shape.positions) >= task.prompt_length
    optimizer = torch.optim.AdamW(policy.policy_parameters(), learning_rate, weight_decay=0.0, fused=True)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, steps)
    source = generator(seed, "pretrain")
    for _ in range(steps):
        tokens = shown[torch.randint(demonstrations, (batch,), generator=source)]
        rows = response.expand_as(tokens)
        chance, clock = torch.rand(batch, 1, shape.positions, generator=source), torch.rand(batch, 1, generator=source)
        views = LOSS.views(rows, chance, clock)
        logp = policy.token_logp(DiffusionInputs(tokens, rows, views.hidden, views.weight))
        loss = -(views.weight.unsqueeze(-1) * logp).sum() / batch
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        decay.step()
    return policy


def canvases(task: DiffusionTask, split: Split, indices: range) -> Int[Tensor, "prompts positions"]:
    """Prompts and solutions of these numbers, each solution filled up with its end."""
    rows = []
    for index in indices:
        prompt, answer = task.solved(split, index)
        filling = () if task.end is None else (task.end,) * (task.answer_length - len(answer))
        rows.append((*prompt, *answer, *filling))
    return torch.tensor(rows)
