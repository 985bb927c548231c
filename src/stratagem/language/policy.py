"""A language model as a policy: log-probabilities, entropies and values of the actions in a batch, with gradients."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from stratagem.distribution import OF_ACTIONS, TOP
from stratagem.errors import InputError, unknown
from stratagem.experience import Experience, PolicyOutput
from stratagem.language.answer_head import AnswerEmbedding
from stratagem.language.attention import PackedSequences, enable_packing, run_trunk
from stratagem.language.inputs import TokenInputs
from stratagem.language.layers import decoder_layers, internal_hidden, perturbed
from stratagem.objectives.routing import RoutingReplay
from stratagem.objectives.views import AnswerHead, InternalLayer, Perturbed, ResponseOnly
from stratagem.partition import Partition
from stratagem.parts import View
from stratagem.training.heads import Perceptron
from stratagem.training.noise import fresh_seed
from stratagem.training.world import Prompts, check_asked

ComputeType = Literal["auto", "float32", "bfloat16"]

OF_LOGITS: dict[str, Callable[[Tensor], Tensor]] = {
    "entropy": lambda logp: -(logp.exp() * logp).sum(-1),
    "mean_logp": lambda logp: logp.mean(-1),
    "log_probs": lambda logp: logp,
}
"""What can be said of the whole distribution an action was drawn from, given its log-probabilities."""
EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts")
"""How configs of mixtures of experts call the number of experts in a layer."""


@dataclass(frozen=True)
class LoRA:
    """Low-rank adapters: W + (alpha / rank) * B A on the target modules, with W frozen (arXiv:2106.09685).

    rank: rows of A, at least 1.  alpha: scale, above 0.  target_modules: names of linear layers, or "all-linear".
    """

    rank: int = 8
    alpha: float = 16.0
    target_modules: str | tuple[str, ...] = "all-linear"

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise InputError(f"lora.rank must be at least 1, got {self.rank}")
        if not self.alpha > 0:
            raise InputError(f"lora.alpha must be above 0, got {self.alpha}")


class LanguagePolicy(nn.Module):
    """A Hugging Face causal language model that says how likely the actions of an :class:`Experience` are.

    model: any causal model that packed attention works for; it is switched to packed attention, its weights become
        float32 and its dropout is turned off, since a policy must be the distribution its actions were sampled from.
    tokenizer: kept for engines, chat formats and saving.
    value_head: add a linear critic on the hidden state before each action, for mean and median of the return, both
        starting at 0.
    value_gradient: whether the critic's loss also trains the trunk; otherwise it reads a detached hidden state.
    dtype: compute type. "bfloat16" computes under autocast with float32 master weights; "auto" does so where the
        processor has native bfloat16 (:func:`native_bfloat16`). The log-softmax is float32 always.
    lora: train low-rank adapters instead of all weights (needs peft).
    gradient_checkpointing: recompute each layer's activations in the backward pass instead of keeping them.
    logits_budget: most logits (tokens * vocabulary) held at once; with more, chunks are recomputed in the backward
        pass.
    """

    says: ClassVar[frozenset[str]] = frozenset(
        {"value", "value_after", "median", "hidden", "hidden_square", "before", "after", "embedding"}.union(
            OF_LOGITS, OF_ACTIONS
        )
    )
    views: ClassVar[tuple[type[View], ...]] = (RoutingReplay, ResponseOnly, InternalLayer, Perturbed, AnswerHead)

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        value_head: bool = False,
        value_gradient: bool = True,
        dtype: ComputeType = "auto",
        lora: LoRA | Mapping[str, Any] | None = None,
        gradient_checkpointing: bool = False,
        logits_budget: int = 2**25,
    ) -> None:
        super().__init__()
        if dtype not in ("auto", "float32", "bfloat16"):
            raise unknown("dtype", dtype, ("auto", "float32", "bfloat16"))
        if logits_budget < 1:
            raise InputError(f"logits_budget must be at least 1, got {logits_budget}")
        model.float()
        _disable_dropout(model)
        enable_packing(model)
        if lora is not None:
            _add_adapters(model, lora if isinstance(lora, LoRA) else _lora_from(lora))
        if gradient_checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            model.train()  # Only then do layers recompute; without dropout nothing else comes of it.
        self.model = model
        self.tokenizer = tokenizer
        self.value_gradient = value_gradient
        self.logits_budget = logits_budget
        self.dtype: ComputeType = dtype
        hidden = cast(nn.Linear, model.get_output_embeddings()).in_features
        self.value_head = _value_head(hidden) if value_head else None
        self.median_head = _value_head(hidden) if value_head else None
        self.log_noise: nn.Parameter | None = None
        self.answer_head: AnswerEmbedding | None = None
        self.has_adapters = lora is not None

    @classmethod
    def from_path(cls, path: str | Path, **options: Any) -> Self:
        """The model and tokenizer in a local folder or of a hub name; ``options`` are those of the constructor.

        The head of a reward or preference model comes with it, if it has one.

        Raises :class:`InputError` if there is no such model, no tokenizer, or the weights are damaged or incomplete.
        """
        where = str(path)
        if where.startswith((".", "/", "~")) and not Path(where).expanduser().is_dir():
            raise InputError(f"model {where}: no such folder")
        where = str(Path(where).expanduser()) if where.startswith("~") else where
        model = _load_model(where)
        try:
            tokenizer = AutoTokenizer.from_pretrained(where)
        except Exception as error:
            raise InputError(f"model {where}: no readable tokenizer ({_first_line(error)})") from error
        # Without its files transformers builds an empty one from the model's config.
        if not tokenizer("a b", add_special_tokens=False)["input_ids"]:
            raise InputError(f"model {where}: no readable tokenizer (it has no vocabulary)")
        policy = cls(model, tokenizer, **options)
        policy.answer_head = AnswerEmbedding.read(Path(where))
        return policy

    @property
    def device(self) -> torch.device:
        """Where the weights live."""
        return self.model.device

    @property
    def compute_dtype(self) -> torch.dtype:
        """The type matrix products run in."""
        low = self.dtype == "bfloat16" or (self.dtype == "auto" and native_bfloat16(self.device))
        return torch.bfloat16 if low else torch.float32

    def forward(
        self, x: Experience, temperature: float = 1.0, also: Collection[str] = (), view: View | None = None
    ) -> PolicyOutput:
        """What the policy says about the action tokens of ``x``, in their order.

        logp [tokens] and entropy [tokens] in nats, of softmax(logits / temperature); value and median [tokens], the
        critic's estimates from before each action, and value_after [tokens], once it has been read; what the output
        layer reads and the actions' scores as :class:`PolicyOutput` defines them, without gradient; before and after
        [tokens, hidden], the last hidden state at the token before each action and at the action's own. All but
        ``logp`` only when ``also`` names it. Raises :class:`InputError` for a temperature not above 0, a batch without
        token inputs, a value without value head.
        """
        return self.about(token_inputs(x), temperature, also, view)

    def prompt_logp(self, x: Experience, *, temperature: float = 1.0) -> Prompts:
        """How likely it finds what it reads in each trajectory before it first acts, as the chat format wrote it."""
        read, prompt = token_inputs(x).openings()
        said = self.about(read, temperature).logp
        return Prompts(said, Partition.from_sizes(read.actions_per_trajectory), prompt)

    def about(
        self, inputs: TokenInputs, temperature: float = 1.0, also: Collection[str] = (), view: View | None = None
    ) -> PolicyOutput:
        """What the policy says about the actions of ``inputs``, as :meth:`forward` does."""
        check_asked(self, also, view)
        if isinstance(view, RoutingReplay):
            self._check_dense()
        if not temperature > 0:
            raise InputError(f"temperature must be above 0, got {temperature}")
        if self.value_head is None and not {"value", "value_after", "median"}.isdisjoint(also):
            raise InputError("this policy has no critic; build it with value_head=True")
        if isinstance(view, AnswerHead):
            return self._embedded(inputs, also)
        if "embedding" in also:
            raise InputError("this policy embeds answers in the view answer_head alone")
        if isinstance(view, ResponseOnly):
            inputs = inputs.without_opening(self.beginning())
        if len(inputs.action_positions) == 0:
            return PolicyOutput(**{name: self._nothing(name) for name in ("logp", *also)})
        with self._precision():
            wanted = not {"after", "value_after"}.isdisjoint(also)
            hidden, after = self._hidden_at_actions(inputs, view, after=wanted)
            figures = self._in_chunks(
                hidden, inputs.actions, temperature, [name for name in (*OF_LOGITS, *OF_ACTIONS) if name in also]
            )
            if "value" in also:
                figures["value"] = self._values(self.value_head, hidden)
            if "median" in also:
                figures["median"] = self._values(self.median_head, hidden)
            if "hidden" in also:
                figures["hidden"] = hidden.detach().float() / temperature
            if "hidden_square" in also:
                figures["hidden_square"] = hidden.detach().float().square().sum(1) / temperature**2
            if "before" in also:
                figures["before"] = hidden.detach().float()
            if after is not None and "after" in also:
                figures["after"] = after.detach().float()
            if after is not None and "value_after" in also:
                figures["value_after"] = self._values(self.value_head, after)
        return PolicyOutput(**figures)

    def _embedded(self, inputs: TokenInputs, also: Collection[str]) -> PolicyOutput:
        """What the head of answers makes of all that was read up to each action, itself included."""
        if self.answer_head is None:
            raise InputError(
                "this policy has no head of answers; a run that begins with the view answer_head makes one"
            )
        logp = torch.full((len(inputs.action_positions),), torch.nan, device=self.device)
        if "embedding" not in also:
            return PolicyOutput(logp)
        if len(logp) == 0:
            return PolicyOutput(logp, embedding=torch.zeros(0, self.answer_head.view.dims, device=self.device))
        with self._precision():
            _, after = self._hidden_at_actions(inputs, None, after=True)
            assert after is not None
            return PolicyOutput(logp, embedding=self.answer_head(after))

    def _check_dense(self) -> None:
        """Raise :class:`InputError` for a mixture of experts, whose routing is not recorded here."""
        found = [name for name in EXPERT_COUNTS if getattr(self.model.config, name, None)]
        if found:
            raise InputError(
                f"view routing_replay: the model is a mixture of experts ({found[0]} = "
                f"{getattr(self.model.config, found[0])}), and this policy does not record its routing"
            )

    def policy_parameters(self) -> list[nn.Parameter]:
        """Trainable weights of the model: all of them, or the adapters."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def critic_parameters(self) -> list[nn.Parameter]:
        """Weights of the critic's heads, if there are any."""
        return [p for head in (self.value_head, self.median_head) if head is not None for p in head.parameters()]

    def head(self, place: Literal["before", "after"], hidden: int, source: torch.Generator) -> Perceptron:
        """A map from the last hidden state, which it brings to one scale first."""
        width = cast(nn.Linear, self.model.get_output_embeddings()).in_features
        return Perceptron(width, hidden, source, normalize=True)

    def hidden_matrices(self) -> list[Tensor]:
        """Trainable weights of the model's linear layers and convolutions, but for the head and what is tied to it.

        A fused projection (queries, keys and values in one) counts as one matrix, an adapter as two. Layers that keep
        their weight in another form, such as [inputs, outputs] or the stacked experts of some mixtures, are left out.
        """
        head = {id(parameter) for parameter in cast(nn.Module, self.model.get_output_embeddings()).parameters()}
        layers = [m for m in self.model.modules() if isinstance(m, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)]
        found = {id(layer.weight): layer.weight for layer in layers if layer.weight.requires_grad}
        return [weight for key, weight in found.items() if key not in head]

    def view_parameters(self, view: View | None) -> list[nn.Parameter]:
        """Parameters for this view alone, made when first asked for: ``log sigma`` [layers] of a perturbation, or the
        head of answers. A head that came with the model and that this view does not read is dropped.
        """
        if isinstance(view, AnswerHead):
            return list(self._head_for(view).parameters())
        self.answer_head = None
        if not isinstance(view, Perturbed):
            return []
        if self.log_noise is None:
            scales = torch.full((len(decoder_layers(self.model)),), view.initial, device=self.device)
            self.log_noise = nn.Parameter(scales.log())
        return [self.log_noise]

    def _head_for(self, view: AnswerHead) -> AnswerEmbedding:
        """The head of answers there is, or a new one where it says something else."""
        head = self.answer_head
        if head is None or (head.view.dims, head.view.radius) != (view.dims, view.radius):
            hidden = cast(nn.Linear, self.model.get_output_embeddings()).in_features
            self.answer_head = head = AnswerEmbedding(hidden, view).to(self.device)
        return head

    def frozen(self) -> ReferencePolicy:
        """The policy as it is now, frozen. With adapters no copy is made: it is the model without them."""
        if self.has_adapters:
            return ReferencePolicy(self, without_adapters=True)
        frozen = LanguagePolicy.__new__(LanguagePolicy)
        nn.Module.__init__(frozen)
        frozen.model = copy.deepcopy(self.model).requires_grad_(False).eval()
        frozen.tokenizer, frozen.dtype, frozen.logits_budget = self.tokenizer, self.dtype, self.logits_budget
        frozen.value_head, frozen.median_head, frozen.log_noise, frozen.answer_head = None, None, None, None
        frozen.value_gradient, frozen.has_adapters = False, False
        return ReferencePolicy(frozen, without_adapters=False)

    def copy(self) -> Self:
        """A copy that no longer moves, with everything learned: adapters and critic, too."""
        tokenizer, self.tokenizer = self.tokenizer, None  # type: ignore[assignment]  # shared, not copied
        try:
            copied = copy.deepcopy(self).requires_grad_(False)
        finally:
            self.tokenizer = tokenizer
        copied.tokenizer = tokenizer
        return copied

    @torch.no_grad()
    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """The model's tensors under their plain Hugging Face names, adapters merged; the critic is not among them."""
        merged = {f"{name}.weight": module for name, module in self.model.named_modules() if _is_adapted(module)}
        for name, tensor in self.model.state_dict().items():
            plain = name.replace(".base_layer.", ".")
            if ".lora_" in name:
                continue
            if plain in merged:
                module: Any = merged[plain]
                delta = sum(module.get_delta_weight(adapter) for adapter in module.active_adapters)
                yield plain, tensor + delta
            else:
                yield plain, tensor

    @torch.no_grad()
    def unmerged(self, *, adapters: bool) -> Iterator[tuple[str, Tensor]]:
        """The model's tensors below adapters, named as in :meth:`weights`; or the adapters', by their own names."""
        for name, tensor in self.model.state_dict().items():
            if (".lora_" in name) == adapters:
                yield name.replace(".base_layer.", "."), tensor

    def save(self, path: str | Path, card: str | None = None) -> None:
        """Write the model (safetensors, adapters merged) and its tokenizer in Hugging Face format; no critic.

        A head of answers has a file of its own beside them.

        ``card``: text of the model card, ``README.md``.
        """
        self.write(path, dict(self.weights()), card)

    def write(self, path: str | Path, weights: Mapping[str, Tensor], card: str | None) -> None:
        """Write what :meth:`save` does with these ``weights``."""
        self.model.save_pretrained(path, state_dict=dict(weights))
        self.tokenizer.save_pretrained(path)
        if self.answer_head is not None:
            self.answer_head.write(Path(path))
        if card is not None:
            (Path(path) / "README.md").write_text(card, encoding="utf-8")

    @contextlib.contextmanager
    def adapters_disabled(self) -> Iterator[None]:
        """Compute without the adapters inside this block."""
        layers = [module for module in self.model.modules() if _is_adapted(module)]
        for layer in layers:
            cast(Any, layer).enable_adapters(False)
        try:
            yield
        finally:
            for layer in layers:
                cast(Any, layer).enable_adapters(True)

    def _perturbation(self, view: View | None) -> contextlib.AbstractContextManager[None]:
        if not (isinstance(view, Perturbed) and torch.is_grad_enabled()):
            return contextlib.nullcontext()
        [log_scales] = self.view_parameters(view)
        return perturbed(self.model, view, log_scales, fresh_seed())

    def beginning(self) -> int:
        """The token that stands before a text without a prompt."""
        tokenizer = self.tokenizer
        for token in (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id):
            if token is not None:
                return int(token)
        raise InputError("a response can only be read alone after a bos, eos or pad token, and the tokenizer has none")

    def _precision(self) -> torch.autocast:
        enabled = self.compute_dtype == torch.bfloat16
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=enabled)

    def _hidden_at_actions(
        self, inputs: TokenInputs, view: View | None, *, after: bool
    ) -> tuple[Float[Tensor, "tokens hidden"], Float[Tensor, "tokens hidden"] | None]:
        """The last hidden state before every action, and where ``after`` is asked for, at the action as well."""
        read = inputs.before_actions(through=after)
        layout = PackedSequences(read.lengths.tolist(), self.device, read.token_ids)

        def run() -> Float[Tensor, "computed hidden"]:
            return run_trunk(self.model, read.token_ids[layout.computed], layout.positions, layout)

        if isinstance(view, InternalLayer):
            hidden = internal_hidden(self.model, view, run)
        else:
            with self._perturbation(view):
                hidden = run()
        before = hidden.index_select(0, layout.source[read.predecessors])
        return before, hidden.index_select(0, layout.source[read.predecessors + 1]) if after else None

    def _nothing(self, name: str) -> Tensor:
        """A figure of no tokens."""
        vocabulary, width = cast(nn.Linear, self.model.get_output_embeddings()).weight.shape
        few = min(TOP + 1, vocabulary)
        columns = {"top_id": few, "top_probability": few, "log_probs": vocabulary}
        columns |= dict.fromkeys(("hidden", "before", "after"), width)
        kind = torch.int64 if name == "top_id" else torch.float32
        return torch.zeros((0, columns[name]) if name in columns else 0, dtype=kind, device=self.device)

    def _values(self, head: nn.Module | None, hidden: Float[Tensor, "tokens hidden"]) -> Float[Tensor, " tokens"]:
        assert head is not None
        with torch.autocast(self.device.type, enabled=False):
            read = (hidden if self.value_gradient else hidden.detach()).float()
            values: Tensor = head(read).squeeze(-1)
        return values

    def _in_chunks(
        self,
        hidden: Float[Tensor, "tokens hidden"],
        actions: Int[Tensor, " tokens"],
        temperature: float,
        also: Sequence[str],
    ) -> dict[str, Float[Tensor, " tokens"]]:
        """``logp`` and the figures of the logits that are asked for, by name."""
        head = cast(nn.Module, self.model.get_output_embeddings())
        vocabulary = int(cast(Tensor, head.weight).shape[0])
        rows = max(1, self.logits_budget // vocabulary)
        score: Callable[..., tuple[Tensor, ...]] = _score_actions
        if len(actions) > rows and torch.is_grad_enabled():
            score = _recomputed_score_actions
        pieces = [
            score(head, states, chosen, temperature, also)
            for states, chosen in zip(hidden.split(rows), actions.split(rows), strict=True)
        ]
        return {
            name: torch.cat(column) for name, column in zip(("logp", *also), zip(*pieces, strict=True), strict=True)
        }


class ReferencePolicy:
    """A frozen policy for reference log-probabilities; its outputs carry no gradient."""

    def __init__(self, policy: LanguagePolicy, *, without_adapters: bool) -> None:
        self._policy = policy
        self._without_adapters = without_adapters

    @torch.no_grad()
    def __call__(
        self, x: Experience, temperature: float = 1.0, also: Collection[str] = (), view: View | None = None
    ) -> PolicyOutput:
        """As :meth:`LanguagePolicy.forward`, without gradient and without values."""
        return self.about(token_inputs(x), temperature, also, view)

    @torch.no_grad()
    def about(
        self, inputs: TokenInputs, temperature: float = 1.0, also: Collection[str] = (), view: View | None = None
    ) -> PolicyOutput:
        """As :meth:`LanguagePolicy.about`, without gradient and without values."""
        scope = self._policy.adapters_disabled() if self._without_adapters else contextlib.nullcontext()
        with scope:
            return self._policy.about(inputs, temperature, also, view)

    def to(self, device: torch.device | str) -> Self:
        """Move the frozen copy; with adapters it lives where the policy does."""
        if not self._without_adapters:
            self._policy.to(device)
        return self


def token_inputs(x: Experience) -> TokenInputs:
    """What a language policy reads of a batch. Raises :class:`InputError` for one of another kind."""
    if not isinstance(x.inputs, TokenInputs):
        raise InputError(f"a language policy reads TokenInputs, this experience has {type(x.inputs).__name__}")
    return x.inputs


def native_bfloat16(device: torch.device | str) -> bool:
    """Whether this device multiplies bfloat16 matrices in hardware (AVX512-BF16 or AMX on CPU, Ampere or later)."""
    kind = torch.device(device).type
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if kind == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False


def _score_actions(
    head: nn.Module,
    hidden: Float[Tensor, "chunk hidden"],
    actions: Int[Tensor, " chunk"],
    temperature: float,
    also: Sequence[str],
) -> tuple[Float[Tensor, " chunk"], ...]:
    logits = head(hidden).float()
    logp = torch.log_softmax(logits if temperature == 1.0 else logits / temperature, dim=-1)
    chosen = logp.gather(1, actions.unsqueeze(1)).squeeze(1)
    still = logp.detach()
    return chosen, *(OF_LOGITS[name](logp) if name in OF_LOGITS else OF_ACTIONS[name](still, actions) for name in also)


def _recomputed_score_actions(*arguments: Any) -> tuple[Tensor, ...]:
    scores: tuple[Tensor, ...] = checkpoint(_score_actions, *arguments, use_reentrant=False)
    return scores


def _load_model(where: str) -> PreTrainedModel:
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(where, dtype=torch.float32, output_loading_info=True)
    except Exception as error:
        raise InputError(f"model {where}: cannot be loaded ({_first_line(error)})") from error
    model, report = loaded
    lacking = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if lacking:
        raise InputError(
            f"model {where}: weights lack {len(lacking)} tensors that the config asks for, first {lacking[0]}"
        )
    return cast(PreTrainedModel, model)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _disable_dropout(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0


def _value_head(hidden: int) -> nn.Linear:
    head = nn.Linear(hidden, 1)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def _lora_from(options: Mapping[str, Any]) -> LoRA:
    known = [entry.name for entry in dataclasses.fields(LoRA)]
    for name in options:
        if name not in known:
            raise unknown("lora option", name, known)
    return LoRA(**options)


def _add_adapters(model: PreTrainedModel, lora: LoRA) -> None:
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise InputError("lora needs peft; install stratagem[lora]") from error
    targets = lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules)
    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=targets, task_type="CAUSAL_LM")  # type: ignore[arg-type]
    try:
        inject_adapter_in_model(config, model)
    except ValueError as error:
        raise InputError(f"lora.target_modules {lora.target_modules!r}: {_first_line(error)}") from error


def _is_adapted(module: nn.Module) -> bool:
    return hasattr(module, "base_layer") and hasattr(module, "get_delta_weight")
