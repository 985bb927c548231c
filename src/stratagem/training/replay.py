"""What past policies did: kept as it was before credit, mixed into the next batches, its drift measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxtyping import Bool
from torch import Tensor

from stratagem.experience import Experience
from stratagem.parts import Mixed, Replay
from stratagem.seeding import generator
from stratagem.training.batch_storage import pack, unpack

SAID_AGAIN = ("old_logp", "previous_logp", "past_logp", "ref_logp", "value", "entropy")
"""Fields that the present policies say anew of an old batch."""


class ReplayBuffer:
    """What of a run's past batches a recipe's replay holds, to learn from it again.

    seed: of the run; what is taken follows from it and the step.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._held: list[Experience] = []

    def mix(self, replay: Replay | None, x: Experience, step: int) -> Mixed:
        """``x`` with what ``replay`` takes again; ``x`` itself where there is nothing.

        ``x`` is remembered for the batches to come. Without a replay all is forgotten. In a mixed batch, what policies
        say is left for the present ones to say; ``final_value`` stays that of the critic at the time.
        """
        if replay is None:
            self._held = []
            return Mixed.nothing(x)
        fresh = x.replace(**dict.fromkeys(SAID_AGAIN))
        mixed = replay(self._held, fresh, generator(self._seed, "replay", step))
        self._held = replay.remember(self._held, fresh)
        return mixed if bool(mixed.old.any()) else Mixed.nothing(x)

    # ---- state -----------------------------------------------------------------------------------------------------

    def state_dict(self) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
        """What is held as tensors and plain data."""
        packed = [pack(x) for x in self._held]
        tensors = {
            f"{number}.{name}": tensor for number, (held, _) in enumerate(packed) for name, tensor in held.items()
        }
        return tensors, [plain for _, plain in packed]

    def load_state_dict(self, tensors: Mapping[str, Tensor], plain: list[dict[str, Any]]) -> None:
        """Restore what :meth:`state_dict` returned."""
        held: list[dict[str, Tensor]] = [{} for _ in plain]
        for path, tensor in tensors.items():
            number, name = path.split(".", 1)
            held[int(number)][name] = tensor
        self._held = [unpack(*batch) for batch in zip(held, plain, strict=True)]


def replay_metrics(x: Experience, old: Bool[Tensor, " trajectories"]) -> dict[str, float]:
    """Figures of a mixed batch in which some trajectories are ``old``, at least one.

    ``replay/share``: of trajectories that are old.  ``replay/mean_length``: of those, in tokens.
    ``replay/center``, with ``_min`` and ``_max``: ``c = pi_old / mu`` of their tokens.
    ``replay/drift_short``, ``replay/drift_long``: mean of ``|log c|`` over the tokens of old trajectories up to their
    median length, and above it (absent when all are as long). Where drift grows with length, clipped ratios favour
    short responses.
    """
    assert x.old_logp is not None and x.behavior_logp is not None
    length = x.trajectory_of_token.size()
    metrics = {"replay/share": float(old.float().mean()), "replay/mean_length": float(length[old].float().mean())}
    log_center = x.old_logp - x.behavior_logp
    used = x.learnable() & x.trajectory_of_token.spread(old)
    if not bool(used.any()):
        return metrics
    center = log_center[used].exp()
    metrics["replay/center"] = float(center.mean())
    metrics["replay/center_min"], metrics["replay/center_max"] = float(center.min()), float(center.max())
    above = x.trajectory_of_token.spread(length > length[old].median())
    if bool((used & above).any()):
        metrics["replay/drift_short"] = float(log_center[used & ~above].abs().mean())
        metrics["replay/drift_long"] = float(log_center[used & above].abs().mean())
    return metrics
