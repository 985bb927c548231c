"""What a language model knows at which depth."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

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
