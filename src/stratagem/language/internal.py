"""What a language model knows at which depth, and how much noise its layers bear."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.language.layers import decoder_layers
from stratagem.language.policy import LanguagePolicy
from stratagem.objectives.views import InternalLayer, Stream


@torch.no_grad()
def entropy_by_layer(
    policy: LanguagePolicy, x: Experience, stream: Stream = "residual", temperature: float = 1.0
) -> Float[Tensor, " layers"]:
    """Mean entropy, in nats, of the internal policy of every layer over the tokens of ``x`` that may train.

    For the residual stream from layer 0, the embeddings, to the last, which is the policy itself; for the others (see
    :class:`InternalLayer`) from layer 1. What a module does to it, the paper's measure of exploring (above 0) or
    converging (below 0), is ``entropy_by_layer(policy, x, "feed_forward") - entropy_by_layer(policy, x,
    "feed_forward_input")``. Costs one forward pass through all layers up to each.

    Raises :class:`InputError` for a model without such policies.
    """
    first = 0 if stream == "residual" else 1
    kept = x.learnable()
    found = []
    for layer in range(first, len(decoder_layers(policy.model)) + 1):
        entropy = policy(x, temperature, ("entropy",), InternalLayer(layer, stream)).entropy
        found.append(entropy[kept.to(entropy.device)].mean())
    return torch.stack(found)


class NoiseLevels(NamedTuple):
    """Noise before every layer.

    sigma: its standard deviation.  relative: that, over the root mean square of what enters the layer.
    """

    sigma: Float[Tensor, " layers"]
    relative: Float[Tensor, " layers"]


@torch.no_grad()
def noise_levels(policy: LanguagePolicy, x: Experience) -> NoiseLevels:
    """What the policy's perturbation (:class:`Perturbed`) has come to, before its bound, with the signal of ``x``.

    Raises :class:`InputError` for a policy that never was perturbed.
    """
    if policy.log_noise is None:
        raise InputError("this policy was never asked in the view perturbed, and has no noise")
    signals: list[Tensor] = []

    def read(module: torch.nn.Module, arguments: tuple[Any, ...]) -> None:
        signals.append(arguments[0].float().square().mean().sqrt())

    hooks = [layer.register_forward_pre_hook(read) for layer in decoder_layers(policy.model)]
    try:
        policy(x)
    finally:
        for hook in hooks:
            hook.remove()
    sigma = policy.log_noise.exp()
    return NoiseLevels(sigma, sigma / torch.stack(signals))
