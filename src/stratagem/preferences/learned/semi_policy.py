"""Preferences from winning samples alone: what an earlier checkpoint makes stands in for the losing ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import torch
from annotated_types import Ge, Gt
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from stratagem.catalogue import paper
from stratagem.errors import BrokenRunError, InputError
from stratagem.seeding import derive, generator
from stratagem.validation import validate_fields

if TYPE_CHECKING:
    from stratagem.diffusion.gaussian import Denoiser

Side = Literal["sign", "indicator", "losing"]


class Errors(NamedTuple):
    """Squared errors of the noise predicted for winning samples and for the checkpoint's, by model and checkpoint."""

    winner: Float[Tensor, " rows"]
    winner_reference: Float[Tensor, " rows"]
    sample: Float[Tensor, " rows"]
    sample_reference: Float[Tensor, " rows"]


def semi_policy_loss(errors: Errors, strength: float, side: Side = "sign") -> Float[Tensor, " rows"]:
    """``-log sigmoid(-strength (D_w - s D_r))``, ``D`` the model's error less the checkpoint's.

    ``s = sign(-D_w)``, without gradient: where the model predicts the winning sample better than the checkpoint does,
    the checkpoint's sample counts as losing (1, also where they are equal), else it is learned from as well (-1).

    strength: ``beta T w``, above 0.  side: ``sign``, as above; ``indicator``: 0 in place of -1, so that such samples
    are left out; ``losing``: always 1, which is the loss of Diffusion-DPO (arXiv 2311.12908).
    """
    ahead = errors.winner - errors.winner_reference
    behind = errors.sample - errors.sample_reference
    kept = _side(ahead, side)
    return -functional.logsigmoid(-strength * (ahead - kept * behind))


def _side(ahead: Tensor, side: Side) -> Float[Tensor, " rows"]:
    """Of every row ``s``."""
    if side == "losing":
        return torch.ones_like(ahead)
    other = -1.0 if side == "sign" else 0.0
    return torch.where(ahead.detach() <= 0, 1.0, other)


@paper(
    "2410.05255",
    title="SePPO: Semi-Policy Preference Optimization for Diffusion Alignment",
    family="preferences",
    roles=("objective", "sampler", "regularizer"),
    year=2024,
    name="seppo",
    tags=("learning.family.preference", "reward.source.preferences"),
)
@dataclass(frozen=True)
class SemiPolicy:
    """SePPO: Diffusion-DPO on winning samples and samples of an earlier checkpoint, which are losing where it is worse.

    The loss is :func:`semi_policy_loss`. Each batch draws a checkpoint, samples from it, and takes it for the reference
    of both; a checkpoint is saved every so many updates, and the initial model is one. It needs neither losing samples
    nor a reward.

    strength: ``beta T w`` in the loss, for errors that are means over numbers.
    side: what the checkpoint's sample is taken for, see :func:`semi_policy_loss`.
    reference: ``random`` among all checkpoints, the paper's; or always the ``initial`` or the ``latest`` one.
    every: updates between checkpoints.  updates, batch, learning_rate: of Adam.
    draws: of time and noise for each sample, over which its errors are means before the side is decided.

    The loss is put together from what others quote of it. ``strength`` is ours, for small vectors; the paper's ``beta``
    is not known, and Diffusion-DPO's ``beta T`` is 2000 to 5000 on images. Raises :class:`InputError` for values out of
    range.
    """

    strength: Annotated[float, Gt(0)] = 10.0
    side: Side = "sign"
    reference: Literal["random", "initial", "latest"] = "random"
    every: Annotated[int, Ge(1)] = 30
    updates: Annotated[int, Ge(1)] = 210
    batch: Annotated[int, Ge(1)] = 128
    learning_rate: Annotated[float, Gt(0)] = 1e-3
    draws: Annotated[int, Ge(1)] = 1

    def __post_init__(self) -> None:
        validate_fields(self, "seppo")

    def fit(self, model: Denoiser, winners: Float[Tensor, "samples numbers"], seed: int = 0) -> dict[str, float]:
        """Train the model in place; figures of the last update.

        ``losing``: share of samples that counted as losing; ``left_out``: of all samples drawn, those with numbers that
        are not finite, whose pairs are passed over; ``checkpoints``: in the end.

        Raises :class:`InputError` for winners that are none or not finite, :class:`BrokenRunError` when no sample of a
        batch is finite.
        """
        if winners.ndim != 2 or not len(winners) or not bool(winners.isfinite().all()):
            raise InputError(
                f"seppo: winners have shape {tuple(winners.shape)}; they must be (samples, numbers), at least one, "
                "and finite"
            )
        optimizer = torch.optim.Adam(model.parameters(), lr=self.learning_rate)
        pool, left_out, losing = [model.frozen()], 0, 0.0
        for update in range(self.updates):
            source = generator(seed, "pairs", update)
            checkpoint = self.chosen(pool, seed, update)
            rows = torch.randint(len(winners), (self.batch,), generator=source)
            samples = checkpoint.sample(self.batch, source)
            kept = samples.isfinite().all(-1)
            if not bool(kept.any()):
                raise BrokenRunError(f"seppo: no sample of update {update} is finite")
            left_out += int((~kept).sum())
            errors = self.errors(model, checkpoint, winners[rows][kept], samples[kept], source)
            optimizer.zero_grad(set_to_none=True)
            semi_policy_loss(errors, self.strength, self.side).mean().backward()
            optimizer.step()
            losing = float(self._losing(errors).float().mean())
            if (update + 1) % self.every == 0:
                pool.append(model.frozen())
        share = left_out / (self.updates * self.batch)
        return {"losing": losing, "left_out": share, "checkpoints": float(len(pool))}

    def chosen(self, pool: Sequence[Denoiser], seed: int, update: int) -> Denoiser:
        """The checkpoint of an update."""
        if self.reference != "random":
            return pool[0 if self.reference == "initial" else -1]
        return pool[derive(seed, "checkpoint", update) % len(pool)]

    def errors(
        self, model: Denoiser, checkpoint: Denoiser, winners: Tensor, samples: Tensor, source: torch.Generator
    ) -> Errors:
        """Errors on winners and samples; model and checkpoint see the same times and the same noise."""
        found = []
        for data in (winners, samples):
            time = torch.randint(model.schedule.steps, (self.draws * len(data),), generator=source)
            noise = torch.randn(self.draws * len(data), data.shape[1], generator=source)
            drawn = data.repeat(self.draws, 1)
            for judge in (model, checkpoint):
                found.append(judge.errors(drawn, time, noise).view(self.draws, -1).mean(0))
        return Errors(*found)

    def _losing(self, errors: Errors) -> Bool[Tensor, " rows"]:
        return _side(errors.winner - errors.winner_reference, self.side) > 0
