"""The trunk of a Llama-like model with stacked projections and no module calls, for fast decoding of small models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import embedding, linear, rms_norm
from transformers import PreTrainedModel

from stratagem.language.attention import Layout, PackedSequences, run_trunk

_SUPPORTED = frozenset({"LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"})


@dataclass(frozen=True)
class _Norm:
    weight: Tensor
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight.shape, self.weight, self.eps)


@dataclass(frozen=True)
class _Layer:
    """One decoder layer; ``qkv`` and ``gate_up`` are (weight, bias) of several projections stacked."""

    before_attention: _Norm
    qkv: tuple[Tensor, Tensor | None]
    query_norm: _Norm | None
    key_norm: _Norm | None
    output: tuple[Tensor, Tensor | None]
    before_mlp: _Norm
    gate_up: tuple[Tensor, Tensor | None]
    down: tuple[Tensor, Tensor | None]
    activation: nn.Module
    heads: int
    kv_heads: int
    dim: int
    scaling: float
    window: int | None


class FusedTrunk:
    """Computes what the model's own decoder computes, from the same memory.

    The model's projections become views into the stacked ones, so whatever is copied into the model's parameters is
    served here at once. Use :func:`fuse` to get one.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        decoder: Any = model.get_decoder()
        self._embedding: nn.Embedding = decoder.embed_tokens
        self._rotary: nn.Module = decoder.rotary_emb
        self._norm = _norm(decoder.norm)
        self._layers = [_fused_layer(layer) for layer in decoder.layers]

    def __call__(
        self, token_ids: Int[Tensor, " positions"], positions: Int[Tensor, " positions"], layout: Layout
    ) -> Float[Tensor, "positions hidden"]:
        """Last hidden states of one packed row."""
        hidden = embedding(token_ids, self._embedding.weight)
        rotation = _rotation(self._rotary, hidden, positions)
        for number, layer in enumerate(self._layers):
            hidden = _run_layer(number, layer, hidden, rotation, layout)
        return self._norm(hidden)


@torch.no_grad()
def fuse(model: PreTrainedModel) -> FusedTrunk | None:
    """The fused trunk of ``model``, proved on a short input; None where the architecture is another one."""
    if type(model).__name__ not in _SUPPORTED:
        return None
    layout = PackedSequences([5, 4], model.device)
    vocabulary = cast(nn.Embedding, model.get_input_embeddings()).num_embeddings
    token_ids = (torch.arange(9, device=model.device) * 7 + 1) % vocabulary
    expected = run_trunk(model, token_ids, layout.positions, layout).float()
    fused = FusedTrunk(model)
    difference = (fused(token_ids, layout.positions, layout).float() - expected).abs().max()
    tolerance = 1e-4 if model.dtype == torch.float32 else 0.1
    return fused if float(difference) <= tolerance * (1.0 + float(expected.abs().max())) else None


def _run_layer(
    number: int, layer: _Layer, hidden: Tensor, rotation: tuple[Tensor, Tensor], layout: Layout
) -> Float[Tensor, "positions hidden"]:
    rows, heads, kv = hidden.shape[0], layer.heads, layer.kv_heads
    projected = linear(layer.before_attention(hidden), *layer.qkv).view(rows, heads + 2 * kv, layer.dim)
    query_key, value = projected.split((heads + kv, kv), dim=1)
    if layer.query_norm is not None and layer.key_norm is not None:
        scale = torch.cat((layer.query_norm.weight.expand(heads, -1), layer.key_norm.weight.expand(kv, -1)))
        query_key = rms_norm(query_key, (layer.dim,), eps=layer.query_norm.eps) * scale
    query, key = _rotate(query_key, *rotation).split((heads, kv), dim=1)
    attended = layout.attend(number, query, key, value, layer.scaling, layer.window)
    hidden = hidden + linear(attended.reshape(rows, heads * layer.dim), *layer.output)
    gate, up = linear(layer.before_mlp(hidden), *layer.gate_up).chunk(2, dim=-1)
    return hidden + linear(layer.activation(gate) * up, *layer.down)


def _rotation(rotary: nn.Module, hidden: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines [positions, 1, dim], and sines with the sign of the half they turn."""
    cos, sin = rotary(hidden, positions[None])
    half = sin.shape[-1] // 2
    return cos[0].unsqueeze(1), torch.cat((-sin[0, :, :half], sin[0, :, half:]), dim=-1).unsqueeze(1)


def _rotate(x: Tensor, cos: Tensor, signed_sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    return torch.addcmul(x * cos, torch.cat((x[..., half:], x[..., :half]), dim=-1), signed_sin)


def _fused_layer(layer: Any) -> _Layer:
    attention, mlp = layer.self_attn, layer.mlp
    dim = int(attention.head_dim)
    return _Layer(
        before_attention=_norm(layer.input_layernorm),
        qkv=_stack([attention.q_proj, attention.k_proj, attention.v_proj]),
        query_norm=_norm(attention.q_norm) if hasattr(attention, "q_norm") else None,
        key_norm=_norm(attention.k_norm) if hasattr(attention, "k_norm") else None,
        output=_stack([attention.o_proj]),
        before_mlp=_norm(layer.post_attention_layernorm),
        gate_up=_stack([mlp.gate_proj, mlp.up_proj]),
        down=_stack([mlp.down_proj]),
        activation=mlp.act_fn,
        heads=attention.q_proj.out_features // dim,
        kv_heads=attention.k_proj.out_features // dim,
        dim=dim,
        scaling=float(attention.scaling),
        window=getattr(attention, "sliding_window", None),
    )


def _norm(module: Any) -> _Norm:
    return _Norm(module.weight, float(module.variance_epsilon))


def _stack(projections: list[nn.Linear]) -> tuple[Tensor, Tensor | None]:
    """Weights and biases of the projections one below the other; the projections become views of them."""
    return _stack_parameters([projection.weight for projection in projections]), (
        None if projections[0].bias is None else _stack_parameters([projection.bias for projection in projections])
    )


def _stack_parameters(parameters: list[Tensor]) -> Tensor:
    if len(parameters) == 1:
        return parameters[0]
    stacked = torch.cat([parameter.data for parameter in parameters])
    for parameter, view in zip(parameters, stacked.split([len(p) for p in parameters]), strict=True):
        parameter.data = view
    return stacked
