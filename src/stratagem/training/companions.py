"""The policies a batch is judged by beside the one that learns: what that one was when it sampled, and long before."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from stratagem.experience import Experience
from stratagem.recipe import Recipe
from stratagem.training.microbatches import microbatches
from stratagem.training.world import FrozenPolicy, Policy

SAID = {"old_logp": "logp", "value": "value", "entropy": "entropy"}
"""Fields of a batch that the policy itself says before it learns from it, by what it calls them."""


class Companions:
    """Fills in what a recipe reads of a batch and only a policy can say.

    ``old_logp``, ``value`` and ``entropy`` are of the policy as it is when the batch arrives; ``previous_logp`` of the
    policy as it was when the batch before arrived (at first, the one the run began with); ``ref_logp`` of the one the
    run began with, or of the one that got batch number ``recipe.reference_from``. Only what the recipe reads is kept
    and computed.
    """

    def __init__(self, policy: Policy, recipe: Recipe) -> None:
        self._policy = policy
        self._reference: FrozenPolicy | None = policy.frozen() if "ref_logp" in recipe.needs() else None
        self._previous: Policy | None = policy.copy() if "previous_logp" in recipe.needs() else None
        self._later: Policy | None = None
        self._reference_from = 0

    def complete(self, recipe: Recipe, x: Experience, step: int) -> Experience:
        """Batch number ``step`` with the fields the recipe reads.

        Raises :class:`InputError` for one the policy does not say.
        """
        if step >= recipe.reference_from > self._reference_from and self._reference is not None:
            self._reference = self._later = self._policy.copy()
            self._reference_from = recipe.reference_from
        x = self._said(recipe, x)
        if self._previous is not None:
            self._previous.load_state_dict(self._policy.state_dict())
        return x

    def _said(self, recipe: Recipe, x: Experience) -> Experience:
        lacking = set(x.missing(recipe.experience_needs()))
        optimization = recipe.optimization
        moving = optimization.epochs * optimization.minibatches > 1 or recipe.replay is not None
        if x.old_logp is None and moving:
            lacking.add("old_logp")
        own = lacking & SAID.keys()
        others = {"ref_logp": self._reference, "previous_logp": self._previous}
        asked = {name: other for name, other in others.items() if name in lacking and other is not None}
        if not own and not asked:
            return x
        also, temperature = {SAID[name] for name in own} - {"logp"}, recipe.sampler.policy_temperature
        pieces: dict[str, list[Tensor]] = {name: [] for name in (*own, *asked)}
        with torch.no_grad():
            for piece in microbatches(x, optimization.microbatch_tokens):
                if own:
                    out = self._policy(piece, temperature=temperature, also=also, view=recipe.view)
                    for name in own:
                        pieces[name].append(getattr(out, SAID[name]))
                for name, other in asked.items():
                    pieces[name].append(other(piece, temperature=temperature, view=recipe.view).logp)
        return x.replace(**{name: torch.cat(values) for name, values in pieces.items()})

    def batch_done(self) -> None:
        """The policy has learned from a batch."""

    # ---- state -----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Tensor]:
        """All that is not as the run began."""
        tensors = _named("previous", self._previous) | _named("reference", self._later)
        if self._later is not None:
            tensors["reference_from"] = torch.tensor(self._reference_from)
        return tensors

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what :meth:`state_dict` returned. Raises ``KeyError`` when the previous policy is missing."""
        if self._previous is not None:
            self._previous.load_state_dict(_of("previous", tensors))
        if "reference_from" in tensors:
            self._reference = self._later = self._policy.copy()
            self._later.load_state_dict(_of("reference", tensors))
            self._reference_from = int(tensors["reference_from"])


def _named(role: str, policy: Policy | None) -> dict[str, Tensor]:
    return {} if policy is None else {f"{role}.{name}": tensor for name, tensor in policy.state_dict().items()}


def _of(role: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = {name.removeprefix(f"{role}."): tensor for name, tensor in tensors.items() if name.startswith(f"{role}.")}
    if not found:
        raise KeyError(role)
    return found
