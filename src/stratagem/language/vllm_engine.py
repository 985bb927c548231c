"""vLLM as an engine in the learner's process: continuous batching, paged attention, weights exchanged in place."""

from __future__ import annotations

import gc
import os
import random
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from torch import Tensor, nn

from stratagem.errors import InputError, unknown
from stratagem.language.engine import (
    Completion,
    FinishReason,
    Request,
    WeightMismatchError,
    WeightSource,
    exclusive,
)
from stratagem.language.policy import ComputeType, LanguagePolicy, native_bfloat16
from stratagem.language.stops import Endings, check_open, check_requests

LEAST_TEMPERATURE = 0.01
"""Below it vLLM would sample at this temperature, or greedily, without the log-probabilities saying so."""

_SETTINGS = {
    # The engine must live in this process, where it can be given tensors.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    # The learner computes here as well: vLLM must not bind its threads to cores.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
}


_RUNNING: set[str] = set()
"""Engines of this process. They share vLLM's process groups, which the last to go takes with it."""


@dataclass(eq=False)
class _Session:
    """A conversation, and how many of its first tokens were computed for it under the present weights."""

    tokens: list[int] = field(default_factory=list)
    computed: int = 0


@dataclass(eq=False)
class _Turn:
    """A request being served."""

    request: Request
    session: _Session
    budget: int
    ends: frozenset[int]
    tokens: list[int] = field(default_factory=list)
    logp: list[float] = field(default_factory=list)
    finish_reason: FinishReason = "length"


class VLLMEngine:
    """Serves a policy's weights with vLLM (see :class:`~stratagem.language.engine.Engine`).

    A turn sends its whole conversation as tokens; what vLLM's prefix cache still holds of it is not computed again,
    whichever session computed it. New weights are loaded without a restart and empty that cache. They are proved by
    reading every tensor back through the operation that serves it, since vLLM may keep a matrix in a packed form only:
    ``f(I) = W^T`` for a layer ``f(x) = x W^T``, bit for bit.

    The generator is vLLM's: a seed samples the same text again in this engine, but not the text of another engine.
    Sampled from and told are the same distribution, after temperature, top-k and top-p; of equal logits at the edge of
    top-k vLLM keeps all. It shows no distributions while it samples, so it is no :class:`~.engine.TreeEngine`, and
    takes no ``tempering``.

    policy: whose weights and tokenizer to serve, adapters merged: a dense model whose tensors have the same names in
        vLLM, but for matrices that it stacks.
    max_sessions: most sessions open at once.  max_running: most turns decoded side by side; others wait.
    dtype: as of :class:`~.hf_engine.HFEngine`.  version: of the policy's present weights.
    device: that vLLM was built for; None: the policy's, which may be in main memory meanwhile. It says what "auto" and
        None mean above and below, and moves nothing.
    cache_bytes: memory for keys and values; None leaves it to vLLM on an accelerator, and is 1 GiB elsewhere.
    block_size: tokens of a cache block, the unit that sessions share; None: 32 on the processor, else vLLM's choice.
    options: further arguments of ``vllm.LLM``.

    Raises :class:`InputError` where vLLM is not installed.
    """

    def __init__(
        self,
        policy: LanguagePolicy,
        *,
        max_sessions: int = 4096,
        max_running: int = 256,
        dtype: ComputeType = "float32",
        version: int = 0,
        device: torch.device | None = None,
        cache_bytes: int | None = None,
        block_size: int | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        for name, value in (("max_sessions", max_sessions), ("max_running", max_running)):
            if value < 1:
                raise InputError(f"{name} must be at least 1, got {value}")
        if dtype not in ("auto", "float32", "bfloat16"):
            raise unknown("dtype", dtype, ("auto", "float32", "bfloat16"))
        device = policy.device if device is None else device
        low = dtype == "bfloat16" or (dtype == "auto" and native_bfloat16(device))
        self._vllm = _import()
        self._dtype = torch.bfloat16 if low else torch.float32
        self._limit = int(policy.model.config.max_position_embeddings)
        self._vocabulary = int(policy.model.config.vocab_size)
        on_processor = device.type == "cpu"
        if on_processor:
            cache_bytes, block_size = cache_bytes or 2**30, block_size or 32
        chosen = {
            "dtype": "bfloat16" if low else "float32",
            "max_model_len": self._limit,
            "max_num_seqs": max_running,
            "enforce_eager": on_processor,
            "kv_cache_memory_bytes": cache_bytes,
            "block_size": block_size,
        }
        with _process_as_it_was():
            self._llm = _start(
                self._vllm, policy, {k: v for k, v in chosen.items() if v is not None} | dict(options or {})
            )
        self._release = _released_with(self, self._llm.llm_engine.engine_core)
        self._model = _model_of(self._llm)
        self._endings = Endings(policy.tokenizer)
        self._max_sessions = max_sessions
        self._lock = threading.RLock()
        self._sessions: dict[int, _Session] = {}
        self._opened = self._asked = 0
        self._prefilled = self._taken_over = 0
        self.load_weights(policy, version)

    @property
    def version(self) -> int:
        """Of the weights being served."""
        return self._version

    @property
    def prefilled(self) -> int:
        """Tokens computed so far that were read; of a conversation that goes on also what its last block held."""
        return self._prefilled

    @property
    def taken_over(self) -> int:
        """Tokens so far that a session read and another one had computed."""
        return self._taken_over

    def keeping(self, most: int) -> AbstractContextManager[None]:
        """Nothing to do: what closed sessions computed stays until its place is needed."""
        return nullcontext()

    @exclusive
    def open(self, count: int) -> list[int]:
        """Start ``count`` empty sessions. Raises :class:`InputError` beyond ``max_sessions``."""
        if len(self._sessions) + count > self._max_sessions:
            raise InputError(
                f"{count} sessions beside the {len(self._sessions)} open ones exceed max_sessions={self._max_sessions}"
            )
        numbers = list(range(self._opened, self._opened + count))
        self._opened += count
        self._sessions |= {number: _Session() for number in numbers}
        return numbers

    @exclusive
    def close(self, sessions: Sequence[int]) -> None:
        """Forget these sessions. Their blocks of the cache may be used again at once."""
        for number in sessions:
            check_open(number, self._sessions)
        for number in sessions:
            self._sessions.pop(number, None)

    def shut_down(self) -> None:
        """Give back what vLLM holds; the engine must not be used afterwards."""
        self._sessions.clear()
        self._release()
        self._model = self._llm = None
        gc.collect()

    # ---- turns ----------------------------------------------------------------------------------------------------

    @exclusive
    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """One turn of each of these sessions, in the order of the requests.

        Raises :class:`InputError` for a session that is not open, occurs twice or has nothing to continue from, and for
        sampling parameters that vLLM does not have.
        """
        check_requests(requests, {number: len(session.tokens) for number, session in self._sessions.items()})
        params = [self._params(request) for request in requests]
        turns = [self._begin(request) for request in requests]
        # vLLM draws from torch's own generator even where every request has a seed.
        with torch.random.fork_rng(devices=[]):
            self._decode([(turn, chosen) for turn, chosen in zip(turns, params, strict=True) if turn.budget > 0])
        return [
            Completion(
                turn.tokens, turn.logp, turn.finish_reason, self._version, self._endings.text(turn.request, turn.tokens)
            )
            for turn in turns
        ]

    def _begin(self, request: Request) -> _Turn:
        session = self._sessions[request.session]
        room = self._limit - len(session.tokens) - len(request.tokens)
        if room > 0:
            session.tokens.extend(int(token) for token in request.tokens)
        ends = self._endings.tokens(request.params)
        return _Turn(request, session, min(request.params.max_new_tokens, max(room, 0)), ends)

    def _decode(self, turns: Sequence[tuple[_Turn, Any]]) -> None:
        """Sample these turns, each with vLLM's parameters, to their end."""
        engine = self._llm.llm_engine
        running: dict[str, _Turn] = {}
        try:
            for turn, params in turns:
                name = str(self._asked)
                self._asked += 1
                params.max_tokens = turn.budget
                engine.add_request(name, {"prompt_token_ids": list(turn.session.tokens)}, params)
                running[name] = turn
            unread = set(running)
            while running:
                for output in engine.step():
                    if output.request_id not in running:
                        continue
                    turn = running[output.request_id]
                    if output.request_id in unread:
                        unread.remove(output.request_id)
                        self._count(turn.session, output.num_cached_tokens or 0)
                    if self._record(turn, output.outputs[0], output.finished):
                        del running[output.request_id]
                        if not output.finished:
                            engine.abort_request([output.request_id])
        except BaseException:
            engine.abort_request(list(running))
            raise
        for turn, _ in turns:
            turn.session.tokens.extend(turn.tokens)
            turn.session.computed = len(turn.session.tokens) - 1

    def _record(self, turn: _Turn, output: Any, finished: bool) -> bool:
        """Append what was sampled, up to what ends the turn; whether something did."""
        params = turn.request.params
        for token, told in zip(output.token_ids, output.logprobs or (), strict=True):
            turn.tokens.append(int(token))
            turn.logp.append(0.0 if params.greedy else float(told[token].logprob))
            said = [*turn.request.said, *turn.tokens]
            if token in turn.ends or (params.stop and self._endings.spelled(said, params.stop)):
                turn.finish_reason = "stop"
                return True
        return finished

    def _count(self, session: _Session, cached: int) -> None:
        """Note what was read for the turn that begins, of which so many tokens were in the cache."""
        self._prefilled += len(session.tokens) - cached
        self._taken_over += max(cached - session.computed, 0)

    def _params(self, request: Request) -> Any:
        """The request's parameters as vLLM has them. Raises :class:`InputError` where it does not."""
        params = request.params
        if params.tempering is not None:
            raise InputError("tempering: vLLM shows no distributions while it samples; use the engine hf")
        if not params.greedy and params.temperature < LEAST_TEMPERATURE:
            raise InputError(f"temperature must be at least {LEAST_TEMPERATURE} for vLLM, got {params.temperature}")
        cut = {} if params.greedy else {"top_k": params.top_k, "top_p": params.top_p}
        try:
            return self._vllm.SamplingParams(
                temperature=0.0 if params.greedy else params.temperature,
                **cut,
                seed=request.seed % 2**63,
                stop_token_ids=sorted(self._endings.tokens(params)),
                ignore_eos=True,
                logprobs=0,
                detokenize=False,
                output_kind=self._vllm.sampling_params.RequestOutputKind.DELTA,
            )
        except (ValueError, self._vllm.exceptions.VLLMClientError) as error:
            raise InputError(f"vLLM refuses {params}: {error}") from None

    # ---- weights --------------------------------------------------------------------------------------------------

    @exclusive
    @torch.no_grad()
    def load_weights(self, policy: WeightSource, version: int) -> None:
        """Serve the policy's weights from now on; what was computed with others is forgotten.

        Raises :class:`WeightMismatchError` unless every tensor, read back, equals the policy's in every element.
        """
        readers = dict(_readers(self._model, self._vocabulary))
        given = {name: tensor.shape for name, tensor in policy.weights()}
        if missing := [name for name in given if name not in readers]:
            raise WeightMismatchError(f"the engine has no tensor {missing[0]} of shape {tuple(given[missing[0]])}")
        if extra := [name for name in readers if name not in given]:
            raise WeightMismatchError(f"the policy gave no weights for {extra[0]}")
        self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": policy.weights()})
        if not self._llm.reset_prefix_cache():
            raise WeightMismatchError("the engine could not forget what it computed with other weights")
        for session in self._sessions.values():
            session.computed = 0
        readers = dict(_readers(self._model, self._vocabulary))
        for name, tensor in policy.weights():
            served = readers[name]()
            if served.shape != tensor.shape or not torch.equal(served.float(), _rounded(tensor, served, self._dtype)):
                raise WeightMismatchError(f"{name} differs from the policy's after loading")
        self._version = version


def _rounded(tensor: Tensor, like: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(device=like.device, dtype=dtype).float()


# ---- vLLM's insides ------------------------------------------------------------------------------------------------


def _import() -> Any:
    """The package. Raises :class:`InputError` where it is not installed."""
    os.environ.update(_SETTINGS)
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    try:
        import vllm
    except ImportError as error:
        raise InputError(f"engine vllm needs vLLM ({error}): pip install 'stratagem[vllm]'") from None
    return vllm


def _start(vllm: Any, policy: LanguagePolicy, options: Mapping[str, Any]) -> Any:
    """vLLM with a model of the policy's shape and no weights yet."""
    config = policy.model.config
    before = config.architectures
    with TemporaryDirectory(prefix="stratagem-vllm-") as folder:
        try:
            config.architectures = [type(policy.model).__name__]
            config.save_pretrained(folder)
        finally:
            config.architectures = before
        fixed = {
            "load_format": "dummy",
            "skip_tokenizer_init": True,
            "generation_config": "vllm",
            "logprobs_mode": "processed_logprobs",
            "enable_prefix_caching": True,
        }
        return vllm.LLM(folder, **({"seed": 0, "disable_log_stats": True} | dict(options) | fixed))


def _released_with(engine: VLLMEngine, client: Any) -> Callable[[], Any]:
    """What gives back vLLM's memory, once: when called, or when nobody holds the engine any more.

    It takes the place of vLLM's own finalizer, which would end the process groups of every other engine, too.
    """
    client._finalizer.detach()
    name = uuid4().hex
    _RUNNING.add(name)
    return weakref.finalize(engine, _release, name, client.engine_core)


def _release(name: str, core: Any) -> None:
    _RUNNING.discard(name)
    if not _RUNNING:
        core.shutdown()
        return
    core.model_executor.shutdown()
    core.scheduler.shutdown()


def _model_of(llm: Any) -> Any:
    found: list[nn.Module] = []
    llm.apply_model(found.append)
    return found[0]


@contextmanager
def _process_as_it_was() -> Iterator[None]:
    """Undo what vLLM does to the process as it starts: seeds, and threads that can no longer be set."""
    set_threads, threads = torch.set_num_threads, torch.get_num_threads()
    drawn, numpy_drawn = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(drawn)
        np.random.set_state(numpy_drawn)
        torch.set_num_threads = set_threads
        torch.set_num_threads(threads)


def _readers(model: nn.Module, vocabulary: int) -> Iterator[tuple[str, Callable[[], Tensor]]]:
    """For every tensor served, by the name it has in Hugging Face's model, what reads it back."""
    from vllm.model_executor.layers.linear import LinearBase
    from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding

    stacked: Mapping[str, Sequence[str]] = getattr(model, "packed_modules_mapping", None) or {}
    for path, module in model.named_modules(remove_duplicate=False):
        for kind, parameter in module.named_parameters(recurse=False):
            name = f"{path}.{kind}"
            leaf = path.rpartition(".")[2]
            if kind == "weight" and isinstance(module, LinearBase):
                read = partial(_through, module, module.input_size, module.output_size)
            elif kind == "weight" and leaf == "lm_head":
                read = partial(_through, module, module.embedding_dim, vocabulary)
            elif isinstance(module, VocabParallelEmbedding):
                read = partial(_first, parameter, vocabulary)
            else:
                read = partial(_first, parameter, len(parameter))
            if leaf in stacked:
                sizes = list(getattr(module, "output_sizes", ()))
                above = path.rpartition(".")[0]
                for place, part in enumerate(stacked[leaf]):
                    piece = f"{above}.{part}.{kind}" if above else f"{part}.{kind}"
                    yield piece, partial(_piece, read, sizes, place)
            else:
                yield name, read


def _through(module: Any, inputs: int, outputs: int) -> Tensor:
    """``W`` [outputs, inputs] of a layer ``x W^T``, by putting every unit vector through it."""
    unit = torch.eye(inputs, dtype=module.weight.dtype, device=module.weight.device)
    read: Tensor = module.quant_method.apply(module, unit, bias=None).T
    return read[:outputs]


def _first(parameter: Tensor, rows: int) -> Tensor:
    """The rows that are served: vLLM pads a vocabulary."""
    return parameter.narrow(0, 0, rows)


def _piece(read: Callable[[], Tensor], sizes: Sequence[int], place: int) -> Tensor:
    return read().narrow(0, sum(sizes[:place]), sizes[place])
