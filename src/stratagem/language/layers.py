"""The layers of a decoder: running only the first ones, and reading what is inside one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from stratagem.errors import InputError
from stratagem.objectives.views import InternalLayer, Perturbed
from stratagem.seeding import derive
from stratagem.training.noise import with_noise

Hidden = Float[Tensor, "positions hidden"]

_NOT_ADDITIVE = 0.02
"""Relative error of ``H^{l-1} + A^l + F^l`` above what bfloat16 rounds away."""


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The layers of the model. Raises :class:`InputError` for one that is not layers with a norm at their end."""
    decoder = model.get_decoder()
    layers = getattr(decoder, "layers", None)
    if not (isinstance(layers, nn.ModuleList) and isinstance(getattr(decoder, "norm", None), nn.Module)):
        raise InputError(f"{type(model).__name__} cannot be taken apart: its decoder is not .layers and a final .norm")
    return layers


@contextmanager
def decoding_with(model: PreTrainedModel, layers: nn.ModuleList, norm: nn.Module | None = None) -> Iterator[None]:
    """Inside this block the decoder is made of other layers, and of another final norm."""
    decoder: Any = model.get_decoder()
    own = decoder.layers, decoder.norm
    decoder.layers, decoder.norm = layers, decoder.norm if norm is None else norm
    try:
        yield
    finally:
        decoder.layers, decoder.norm = own


def internal_hidden(model: PreTrainedModel, view: InternalLayer, run: Callable[[], Hidden]) -> Hidden:
    """What the output embedding is applied to in this view; ``run`` runs the decoder.

    Raises :class:`InputError` for a layer the model does not have, and for a module of a layer that is not the sum of
    its input, its attention and its feed-forward network.
    """
    layers = decoder_layers(model)
    if view.layer > len(layers):
        raise InputError(f"internal_layer.layer = {view.layer}: this model has {len(layers)} layers")
    if view.stream == "residual" and view.layer == len(layers):
        return run()
    with decoding_with(model, layers[: view.layer], nn.Identity()):
        if view.stream == "residual":
            return run()
        with _read(model, layers[view.layer - 1]) as found:
            output = run()
    _check_additive(model, output.detach(), {name: value.detach() for name, value in found.items()})
    return found[view.stream]


@contextmanager
def perturbed(
    model: PreTrainedModel, view: Perturbed, log_scales: Float[Tensor, " layers"], seed: int
) -> Iterator[None]:
    """Inside this block noise is added to what enters the layers of the view."""
    layers = decoder_layers(model)
    chosen = range(1, len(layers) + 1) if view.layers is None else view.layers
    if max(chosen) > len(layers):
        raise InputError(f"perturbed.layers = {view.layers}: this model has {len(layers)} layers")
    made = nn.ModuleList(
        _Perturbing(layer, log_scales[place], view.largest, derive(seed, place)) if place + 1 in chosen else layer
        for place, layer in enumerate(layers)
    )
    with decoding_with(model, made):
        yield


class _Perturbing(nn.Module):
    """A layer and the noise before it. The noise stays outside, or checkpointing would repeat it with the layer."""

    def __init__(self, layer: nn.Module, log_scale: Tensor, largest: float, seed: int) -> None:
        super().__init__()
        self.layer = layer
        self._noise = log_scale, largest, seed

    def forward(self, hidden: Tensor, *others: Any, **named: Any) -> Any:
        return self.layer(with_noise(hidden, *self._noise), *others, **named)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("layer"), name)


@contextmanager
def _read(model: PreTrainedModel, layer: nn.Module) -> Iterator[dict[str, Hidden]]:
    """What enters this layer, and what enters and leaves its two modules, in the forward pass inside this block."""
    modules = {"attention": getattr(layer, "self_attn", None), "feed_forward": getattr(layer, "mlp", None)}
    if not all(isinstance(module, nn.Module) for module in modules.values()):
        raise InputError(f"{type(model).__name__} has no modular policies: its layers are not .self_attn and .mlp")
    found: dict[str, Hidden] = {}

    def reader(name: str) -> Callable[..., None]:
        def read(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
            entered = arguments[0] if arguments else named["hidden_states"]
            found[f"{name}_input"] = entered[0]
            found[name] = (output[0] if isinstance(output, tuple) else output)[0]

        return read

    hooks = [
        cast(nn.Module, module).register_forward_hook(reader(name), with_kwargs=True)
        for name, module in {"layer": layer, **modules}.items()
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _check_additive(model: PreTrainedModel, output: Hidden, found: dict[str, Hidden]) -> None:
    total = found["layer_input"] + found["attention"] + found["feed_forward"]
    error, scale = torch.linalg.vector_norm((total - output).float()), torch.linalg.vector_norm(output.float())
    if not bool(error <= _NOT_ADDITIVE * scale):
        raise InputError(
            f"{type(model).__name__} has no modular policies: a layer is not the sum of its input, its attention and "
            f"its feed-forward network (relative error {float(error / scale):.2g})"
        )
