"""The policies a batch is judged by beside the one that learns: what that one was when it sampled, and long before."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from stratagem.experience import Experience
from stratagem.recipe import Recipe
from stratagem.training.microbatches import microbatches
from stratagem.training.world import FrozenPolicy, Policy

SAID = {"old_logp": "logp", "old_mean_logp": "mean_logp", "value": "value", "entropy": "entropy"}
"""Fields of a batch that the policy itself says before it learns from it, by what it calls them."""


class Companions:
    """Fills in what a recipe reads of a batch and only a policy can say.

    ``old_logp``, ``value`` and ``entropy`` are of the policy as it is when the batch arrives; ``ref_logp`` of the one
    the run began with. Only what the recipe reads is kept and computed.
    """

    def __init__(self, policy: Policy, recipe: Recipe) -> None:
        self._policy = policy
        self._reference: FrozenPolicy | None = policy.frozen() if "ref_logp" in recipe.needs() else None

    def complete(self, recipe: Recipe, x: Experience) -> Experience:
        """The batch with the fields the recipe reads. Raises :class:`InputError` for one the policy does not say."""
        lacking = set(x.missing(recipe.experience_needs()))
        optimization = recipe.optimization
        if optimization.epochs * optimization.minibatches > 1:
            read = recipe.needs() & {"old_mean_logp"} | {"old_logp"}
            lacking.update(x.missing(read))
        own, reference = lacking & SAID.keys(), self._reference if "ref_logp" in lacking else None
        if not own and reference is None:
            return x
        also, temperature = {SAID[name] for name in own} - {"logp"}, recipe.sampler.policy_temperature
        pieces: dict[str, list[Tensor]] = {name: [] for name in own}
        if reference is not None:
            pieces["ref_logp"] = []
        with torch.no_grad():
            for piece in microbatches(x, optimization.microbatch_tokens):
                if own:
                    out = self._policy(piece, temperature=temperature, also=also, view=recipe.view)
                    for name in own:
                        pieces[name].append(getattr(out, SAID[name]))
                if reference is not None:
                    pieces["ref_logp"].append(reference(piece, temperature=temperature, view=recipe.view).logp)
        return x.replace(**{name: torch.cat(values) for name, values in pieces.items()})

    def batch_done(self) -> None:
        """The policy has learned from a batch."""

    # ---- state -----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Tensor]:
        """All that is not as the run began."""
        return {}

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what :meth:`state_dict` returned."""
