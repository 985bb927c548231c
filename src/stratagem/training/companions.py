"""The policies a batch is judged by beside the one that learns: what that one was when it sampled, and long before."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from stratagem.advantages.confidence import mean_of_lowest
from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.part import Part
from stratagem.parts import Advantage, past_policies
from stratagem.recipe import Recipe
from stratagem.training.anchors import anchor
from stratagem.training.estimation import Estimation
from stratagem.training.microbatches import microbatches
from stratagem.training.world import FrozenPolicy, Policy, PromptReader

SAID = {
    "old_logp": "logp",
    "old_mean_logp": "mean_logp",
    "value": "value",
    "entropy": "entropy",
    "confidence": "confidence",
}
"""Fields of a batch that the policy itself says before it learns from it, by what it calls them."""

REFERENCE = {"ref_logp": "logp", "ref_direction": "direction", "ref_log_probs": "log_probs"}
"""Fields of a batch that the reference says, by what it calls them."""


class Companions:
    """Fills in what a recipe reads of a batch and only a policy can say.

    ``old_logp``, ``value``, ``entropy`` and ``confidence`` are of the policy as it is when the batch arrives, unless
    the recipe names another proximal policy for ``old_logp``; ``previous_logp`` of the policy as it was when the batch
    before arrived (at first, the one the run began with), and ``past_logp`` of as many of those as are read;
    ``ref_logp``, ``ref_direction`` and ``ref_log_probs`` of the one the run began with, or of the one that got batch
    number ``recipe.reference_from``. ``prompt_confidence`` is filled in where an advantage reads it and the policy
    reads prompts. What a view records is said by the policy first, and what an estimator says comes last. Only what the
    recipe reads is kept and computed.

    seed: of an estimator's first weights.
    """

    def __init__(self, policy: Policy, recipe: Recipe, seed: int = 0) -> None:
        self._policy = policy
        self._estimation = None if recipe.estimator is None else Estimation(recipe.estimator, policy, seed)
        self._reference: FrozenPolicy | None = policy.frozen() if REFERENCE.keys() & recipe.needs() else None
        self._anchor = None if recipe.proximal is None else anchor(recipe.proximal, policy)
        self._previous: Policy | None = policy.copy() if "previous_logp" in recipe.needs() else None
        self._past = [policy.copy() for _ in range(past_policies(recipe))]
        self._later: Policy | None = None
        self._reference_from = 0

    def complete(self, recipe: Recipe, x: Experience, step: int = 0, *, learn: bool = True) -> Experience:
        """Batch number ``step`` with the fields the recipe reads.

        learn: whether an estimator learns from it, too.

        Raises :class:`InputError` for one the policy does not say.
        """
        if step >= recipe.reference_from > self._reference_from and self._reference is not None:
            self._reference = self._later = self._policy.copy()
            self._reference_from = recipe.reference_from
        x = self._recorded(recipe, x)
        if self._anchor is not None:
            x = self._anchor.fill(recipe.proximal, x, partial(_logp, recipe))
        x = self._prompted(recipe, self._with_past(recipe, self._said(recipe, x)))
        if self._previous is not None:
            self._previous.load_state_dict(self._policy.state_dict())
        if self._past:
            oldest = self._past.pop()
            oldest.load_state_dict(self._policy.state_dict())
            self._past.insert(0, oldest)
        if self._estimation is not None and recipe.estimator is not None:
            microbatch = recipe.optimization.microbatch_tokens
            x = self._estimation.complete(recipe.estimator, x, microbatch, learn=learn)
        return x

    def figures(self) -> dict[str, float]:
        """What an estimator has to say of the last batch it learned from."""
        return {} if self._estimation is None else dict(self._estimation.figures)

    def _said(self, recipe: Recipe, x: Experience) -> Experience:
        lacking = set(x.missing(recipe.experience_needs()))
        optimization = recipe.optimization
        if optimization.epochs * optimization.minibatches > 1 or recipe.replay is not None:
            read = recipe.needs() & {"old_mean_logp"} | {"old_logp"}
            lacking.update(x.missing(read))
        known: list[tuple[FrozenPolicy | None, dict[str, str]]] = [
            (self._policy, SAID),
            (self._reference, REFERENCE),
            (self._previous, {"previous_logp": "logp"}),
        ]
        wanted = [(policy, {name: said[name] for name in said.keys() & lacking}) for policy, said in known]
        asked = [(policy, said) for policy, said in wanted if policy is not None and said]
        if not asked:
            return x
        temperature = recipe.sampler.policy_temperature
        pieces: dict[str, list[Tensor]] = {name: [] for _, said in asked for name in said}
        with torch.no_grad():
            for piece in microbatches(x, optimization.microbatch_tokens):
                for policy, said in asked:
                    also = set(said.values()) - {"logp"}
                    out = policy(piece, temperature=temperature, also=also, view=recipe.view)
                    for name, figure in said.items():
                        pieces[name].append(getattr(out, figure))
        return x.replace(**{name: torch.cat(values) for name, values in pieces.items()})

    def _with_past(self, recipe: Recipe, x: Experience) -> Experience:
        """The batch with what past policies say of it, the latest first."""
        if not self._past or x.past_logp is not None:
            return x
        return x.replace(past_logp=torch.stack([_logp(recipe, policy, x) for policy in self._past], 1))

    def _prompted(self, recipe: Recipe, x: Experience) -> Experience:
        """The batch with the policy's confidence in each prompt, if an advantage reads it."""
        shares = _prompt_shares(recipe)
        if not shares or x.prompt_confidence is not None:
            return x
        policy = self._policy
        if not isinstance(policy, PromptReader):
            if "prompt_confidence" in recipe.needs():
                kind = type(policy).__name__
                raise InputError(
                    f"recipe {recipe.name} reads prompt_confidence: {kind} does not say how likely prompts are"
                )
            return x
        if len(shares) > 1:
            raise InputError(
                f"recipe {recipe.name}: prompt_confidence is of one share of tokens, not of {sorted(shares)}"
            )
        [share] = shares
        pieces = []
        with torch.no_grad():
            for piece in microbatches(x, recipe.optimization.microbatch_tokens):
                said = policy.prompt_logp(piece, temperature=recipe.sampler.policy_temperature)
                by_prompt = said.prompt_of_token
                lowest, count = mean_of_lowest(said.logp, by_prompt.labels, by_prompt.count, share)
                confidence = torch.where(count > 0, lowest.exp(), torch.nan).float()
                pieces.append(confidence[said.prompt_of_trajectory])
        return x.replace(prompt_confidence=torch.cat(pieces))

    def _recorded(self, recipe: Recipe, x: Experience) -> Experience:
        """The batch with what the recipe's view wants noted before the update, as far as the policy says it."""
        records = frozenset() if recipe.view is None else recipe.view.records & self._policy.says
        if not records:
            return x
        with torch.no_grad():
            pieces = microbatches(x, recipe.optimization.microbatch_tokens)
            said = [self._policy(piece, also=records) for piece in pieces]
        return x.replace(**{name: torch.cat([getattr(out, name) for out in said]) for name in records})

    # ---- what happens to the policy --------------------------------------------------------------------------------

    def served(self, recipe: Recipe, version: int) -> None:
        """From now on rollouts are sampled with the policy's present weights, as ``version``."""
        if self._anchor is not None:
            self._anchor.served(recipe.proximal, version)

    def refused(self, recipe: Recipe, figures: Mapping[str, Tensor]) -> None:
        """No step was taken, since the gradient was 0."""
        if self._anchor is not None and _active(figures) == 0:
            self._anchor.refused(recipe.proximal)

    def moved(self, recipe: Recipe, figures: Mapping[str, Tensor]) -> None:
        """The policy has taken an optimizer step from a loss with these figures."""
        if self._anchor is not None:
            self._anchor.moved(recipe.proximal, _active(figures))

    # ---- state -----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Tensor]:
        """All that is not as the run began."""
        kept = {} if self._anchor is None else self._anchor.state_dict()
        tensors = {f"anchor.{name}": tensor for name, tensor in kept.items()}
        tensors |= _named("previous", self._previous) | _named("reference", self._later)
        for age, policy in enumerate(self._past, start=1):
            tensors |= _named(f"past.{age}", policy)
        if self._estimation is not None:
            tensors |= {f"estimator.{name}": tensor for name, tensor in self._estimation.state_dict().items()}
        if self._later is not None:
            tensors["reference_from"] = torch.tensor(self._reference_from)
        return tensors

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what :meth:`state_dict` returned. Raises ``KeyError`` when a past policy is missing."""
        if self._anchor is not None:
            self._anchor.load_state_dict(_under("anchor", tensors))
        if self._previous is not None:
            self._previous.load_state_dict(_of("previous", tensors))
        for age, policy in enumerate(self._past, start=1):
            policy.load_state_dict(_of(f"past.{age}", tensors))
        if self._estimation is not None:
            self._estimation.load_state_dict(_of("estimator", tensors))
        if "reference_from" in tensors:
            self._reference = self._later = self._policy.copy()
            self._later.load_state_dict(_of("reference", tensors))
            self._reference_from = int(tensors["reference_from"])


def _logp(recipe: Recipe, policy: FrozenPolicy, x: Experience) -> Tensor:
    """Log-probabilities of a batch, as the recipe asks for them."""
    temperature = recipe.sampler.policy_temperature
    with torch.no_grad():
        pieces = microbatches(x, recipe.optimization.microbatch_tokens)
        return torch.cat([policy(piece, temperature=temperature, view=recipe.view).logp for piece in pieces])


def _prompt_shares(part: Part) -> set[float]:
    """The shares of prompts' tokens of which this part, or one it is made of, reads ``prompt_confidence``."""
    own = {part.prompt_share} if isinstance(part, Advantage) and part.prompt_share is not None else set[float]()
    return own.union(*(_prompt_shares(child) for _, child in part.children()))


def _active(figures: Mapping[str, Tensor]) -> float:
    """Share of active tokens; all of them where the objective does not say."""
    return float(figures.get("active_fraction", 1.0))


def _named(role: str, policy: Policy | None) -> dict[str, Tensor]:
    return {} if policy is None else {f"{role}.{name}": tensor for name, tensor in policy.state_dict().items()}


def _under(role: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(f"{role}."): tensor for name, tensor in tensors.items() if name.startswith(f"{role}.")}


def _of(role: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = _under(role, tensors)
    if not found:
        raise KeyError(role)
    return found
