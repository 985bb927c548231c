"""The heads of an estimator: how they read a batch, learn from it, speak of it, and are checkpointed."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Literal, Protocol, cast

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from stratagem.errors import BrokenRunError
from stratagem.experience import Experience
from stratagem.parts import Estimator
from stratagem.seeding import generator
from stratagem.training.microbatches import microbatches
from stratagem.training.world import Policy, check_asked

Place = Literal["before", "after"]
Features = dict[str, Shaped[Tensor, "turns ..."]]
"""What the heads of each place read of the turns that have tokens."""


class Readable(Protocol):
    """A policy that says ``before`` and ``after``."""

    def head(self, place: Place, hidden: int, source: torch.Generator) -> nn.Module:
        """A fresh map from what it says of that place to a number for each row [rows]; at first they are 0.

        hidden: width of two hidden layers, 0 for none.  source: of random weights.
        """
        ...


class Estimation:
    """Heads that learn from batches; each call is given the estimator as it is in the recipe at that time.

    figures: of the last batch learned from, by the name under which they are logged.

    Raises :class:`InputError` for a policy that does not say what heads read.
    """

    def __init__(self, estimator: Estimator, policy: Policy, seed: int) -> None:
        self._places = sorted({head.place for head in estimator.heads.values()})
        check_asked(policy, self._places, None)
        self._policy, self.figures = policy, dict[str, float]()
        build = cast(Readable, policy).head
        self._heads = nn.ModuleDict(
            {
                f"{name}_{number}": build(head.place, estimator.hidden, generator(seed, "head", name, number))
                for name, head in estimator.heads.items()
                for number in range(head.copies)
            }
        ).to(policy.device)
        self._slow = None if estimator.slow_rate is None else copy.deepcopy(self._heads).requires_grad_(False)
        self._optimizer = torch.optim.Adam(self._heads.parameters(), fused=True)

    def complete(
        self, estimator: Estimator, x: Experience, microbatch_tokens: int | None = None, *, learn: bool = True
    ) -> Experience:
        """The batch with what the estimator says of it, which has learned from it first.

        Raises :class:`BrokenRunError` when its loss or what it says is not finite.
        """
        features = self._read(x, microbatch_tokens)
        if learn:
            loss = self._learn(estimator, x, features)
        with torch.no_grad():
            said = _say(self._heads, estimator, features, x)
        for name, values in said.items():
            if not bool(values.isfinite().all()):
                raise BrokenRunError(f"estimator {estimator.part_name()}: its {name} is not finite")
        if learn:
            figures = {"loss": loss} if estimator.steps else {}
            self.figures = {f"estimator/{k}": v for k, v in (figures | estimator.figures(said, x)).items()}
        return estimator.fill(said, x)

    def _learn(self, estimator: Estimator, x: Experience, features: Features) -> float:
        """The loss before the last of the steps."""
        parameters = list(self._heads.parameters())
        self._optimizer.param_groups[0]["lr"] = estimator.learning_rate
        loss = torch.zeros(())
        for step in range(estimator.steps):
            slow = {} if self._slow is None else _say(self._slow, estimator, features, x)
            with torch.enable_grad():
                loss = estimator.loss(_say(self._heads, estimator, features, x), slow, x)
            if not bool(loss.isfinite()):
                raise BrokenRunError(
                    f"estimator {estimator.part_name()}: its loss in step {step + 1} is {float(loss.detach())}"
                )
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, estimator.max_grad_norm)
            self._optimizer.step()
            self._follow(estimator.slow_rate)
        return float(loss.detach())

    @torch.no_grad()
    def _follow(self, rate: float | None) -> None:
        """``slow <- slow + rate (head - slow)``."""
        if self._slow is None or rate is None:
            return
        for slow, parameter in zip(self._slow.parameters(), self._heads.parameters(), strict=True):
            slow.lerp_(parameter, rate)

    @torch.no_grad()
    def _read(self, x: Experience, microbatch_tokens: int | None) -> Features:
        read: dict[str, list[Tensor]] = {place: [] for place in self._places}
        for piece in microbatches(x, microbatch_tokens):
            out, turns = self._policy(piece, also=self._places), piece.turn_of_token
            for place, found in read.items():
                found.append(getattr(out, place)[turns.first() if place == "before" else turns.last()])
        return {place: torch.cat(found) for place, found in read.items()}

    # ---- state -----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Tensor]:
        """Heads, slow copies, and what the optimizer keeps."""
        tensors = {f"heads.{name}": tensor for name, tensor in self._heads.state_dict().items()}
        if self._slow is not None:
            tensors |= {f"slow.{name}": tensor for name, tensor in self._slow.state_dict().items()}
        kept = self._optimizer.state_dict()["state"]
        return tensors | {
            f"optimizer.{n}.{name}": value for n, values in kept.items() for name, value in values.items()
        }

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what :meth:`state_dict` returned. Raises ``RuntimeError`` when it does not fit."""
        self._heads.load_state_dict(_under("heads", tensors))
        if self._slow is not None:
            self._slow.load_state_dict(_under("slow", tensors))
        state: dict[int, dict[str, Tensor]] = {}
        for path, tensor in _under("optimizer", tensors).items():
            number, name = path.split(".", 1)
            state.setdefault(int(number), {})[name] = tensor
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": state, "param_groups": groups})


def _say(
    heads: nn.ModuleDict, estimator: Estimator, features: Features, x: Experience
) -> dict[str, Float[Tensor, "turns copies"]]:
    """What every head says of every turn, 0 where there is nothing to read."""
    filled = torch.nonzero(x.turn_of_token.size() > 0).squeeze(1)
    said = {}
    for name, (place, copies) in estimator.heads.items():
        values = torch.stack([heads[f"{name}_{number}"](features[place]) for number in range(copies)], 1)
        said[name] = values.new_zeros(x.turns, copies).index_copy(0, filled, values)
    return said


def _under(role: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(f"{role}."): tensor for name, tensor in tensors.items() if name.startswith(f"{role}.")}
