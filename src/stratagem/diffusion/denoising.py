"""The sampler: an answer starts all masked and is revealed step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stratagem.diffusion.policy import DiffusionPolicy
from stratagem.seeding import generator


@dataclass(frozen=True, eq=False)
class Noise:
    """All the randomness of sampled answers, uniform in [0, 1), a row per answer: none depends on its neighbours.

    token: chooses the token proposed for every position in every step.  order: of revealing positions at random.
    """

    token: Float[Tensor, "rows steps answer vocabulary"]
    order: Float[Tensor, "rows answer"]

    @classmethod
    def draw(cls, seed: int, path: str, episodes: Sequence[int], steps: int, answer: int, vocabulary: int) -> Noise:
        """The noise of these episodes of the run of ``seed``."""
        token, order = [], []
        for episode in episodes:
            source = generator(seed, path, episode)
            token.append(torch.rand(steps, answer, vocabulary, generator=source))
            order.append(torch.rand(answer, generator=source))
        return cls(torch.stack(token), torch.stack(order))

    def to(self, device: torch.device | str) -> Noise:
        """The same noise on another device."""
        return Noise(self.token.to(device), self.order.to(device))


@torch.no_grad()
def denoise(
    policy: DiffusionPolicy,
    prompt: Int[Tensor, "rows prompt"],
    answer: int,
    steps: int | None = None,
    order: Literal["random", "confident"] = "random",
    temperature: float = 1.0,
    noise: Noise | None = None,
) -> Int[Tensor, "rows answer"]:
    """Answers of ``answer`` tokens, revealed in ``steps`` steps of equal size (None: one token in each).

    Each step proposes a token for every masked position, drawn from ``softmax(logits / temperature)``, and keeps those
    at the next positions of a random ``order``, or those that are most ``confident``: of the largest probability.
    Without noise the most likely tokens are proposed, and the most confident are kept.

    One by one in random order, an answer has probability ``mean_order prod_i pi(y_i | tokens before it in the order)``.
    """
    rows, steps = len(prompt), answer if steps is None else min(steps, answer)
    tokens = torch.cat([prompt, prompt.new_full((rows, answer), policy.mask)], 1)
    canvas = tokens[:, prompt.shape[1] :]
    for step in range(steps):
        logits = policy.logits(tokens)[:, prompt.shape[1] :]
        if noise is None:
            proposed = logits.argmax(-1)
        else:
            # The largest of log-probabilities plus Gumbel noise is a draw; -log(-log u) of a uniform u is such noise.
            uniform = noise.token[:, step].clamp(min=torch.finfo(torch.float32).tiny)
            proposed = (logits / temperature - (-uniform.log()).log()).argmax(-1)
        if noise is None or order == "confident":
            place = -logits.log_softmax(-1).gather(-1, proposed.unsqueeze(-1)).squeeze(-1)
        else:
            place = noise.order
        place = place.masked_fill(canvas != policy.mask, torch.inf)
        count = answer * (step + 1) // steps - answer * step // steps
        revealed = place.topk(count, largest=False).indices
        canvas.scatter_(1, revealed, proposed.gather(1, revealed))
    return canvas
