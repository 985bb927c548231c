"""What runs in a rollout worker: an engine, its sessions under the pool's numbers, and proof of the weights."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import torch

from stratagem.cluster.versions import hello
from stratagem.cluster.weights import Adapters, Parcel, Received, whole_fingerprint
from stratagem.errors import InputError
from stratagem.language.engine import Completion, Engine, Request, TreeEngine, Written
from stratagem.language.engines import ENGINES, Precision, find_device, load_policy
from stratagem.language.policy import LanguagePolicy
from stratagem.sampling.growth import Growth


@dataclass(frozen=True)
class EngineSpec:
    """An engine by the names a run is asked for; called, it builds it.

    model: folder or hub name of the model whose shape and tokenizer to serve; ``tiny``, the model that ships.
    engine: of :data:`~stratagem.language.engines.ENGINES`.  device: "auto" is a GPU where there is one.

    Raises :class:`InputError` for an engine that is unknown; when called, for a model that cannot be loaded.
    """

    model: str
    engine: str = "hf"
    precision: Precision = "auto"
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise InputError(f"engine {self.engine!r}: must be one of {', '.join(ENGINES)}")

    def __call__(self) -> Engine:
        """The engine, on the device; the policy it is built from stays in main memory, and is not kept."""
        device, policy = find_device(self.device), load_policy(self.model, self.precision)
        if not isinstance(policy, LanguagePolicy):
            raise InputError(f"model {self.model}: is a team; start a pool for each of its members")
        engine = ENGINES[self.engine](policy, self.precision, device)
        del policy
        gc.collect()
        return engine


@dataclass(frozen=True)
class Greeting:
    """What a worker says of its engine. vocabulary: of one that is a :class:`TreeEngine`, else None."""

    version: int
    vocabulary: int | None


@dataclass(frozen=True)
class Answer:
    """What a worker sampled.

    prefilled, taken_over: tokens since its last answer, as engines count them.  seconds: spent generating.
    written: of a tree, ``said`` with the paths and sessions it belongs to.  growth: the tree afterwards.
    """

    said: list[Completion]
    prefilled: int
    taken_over: int
    seconds: float
    written: list[Written] | None = None
    growth: Growth | None = None


class RolloutWorker:
    """Serves an engine in a process of its own; every method is called from outside, one at a time.

    Sessions go by keys that the pool chooses, and are opened when first used. Sessions that come off others in a tree
    get negative keys here.
    """

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._sessions: dict[int, int] = {}
        self._keeping: list[tuple[int, ExitStack]] = []
        self._base: Parcel | None = None
        self._told = (0, 0)
        self._grown = 0

    def hello(self) -> dict[str, str | int]:
        """Where it runs, and versions."""
        return hello()

    def start(self, build: Callable[[], Engine]) -> Greeting:
        """Build the engine."""
        self._engine = build()
        tree = isinstance(self._engine, TreeEngine)
        return Greeting(self._engine.version, self._engine.vocabulary if tree else None)  # type: ignore[attr-defined]

    # ---- sampling ---------------------------------------------------------------------------------------------------

    def generate(self, requests: Sequence[Request]) -> Answer:
        """One turn of each of these sessions, in the order of the requests."""
        clock = time.perf_counter()
        said = self._running.generate(self._here(requests))
        return Answer(said, *self._read_since(), time.perf_counter() - clock)

    def grow(self, requests: Sequence[Request], paths: Sequence[int], growth: Growth) -> Answer:
        """One turn of each of these paths and of all that come off them; ``growth`` must be a copy of the driver's."""
        engine, clock = self._running, time.perf_counter()
        assert isinstance(engine, TreeEngine)
        written = engine.grow(self._here(requests), paths, growth)
        seconds = time.perf_counter() - clock
        keys = {number: key for key, number in self._sessions.items()}
        for turn in written:
            if turn.session not in keys:
                self._grown += 1
                keys[turn.session] = -self._grown
                self._sessions[-self._grown] = turn.session
        named = [replace(turn, session=keys[turn.session]) for turn in written]
        return Answer([turn.completion for turn in written], *self._read_since(), seconds, named, growth)

    def close(self, keys: Sequence[int]) -> None:
        """Forget these sessions, as far as they are here."""
        numbers = [self._sessions.pop(key) for key in keys if key in self._sessions]
        if numbers:
            self._running.close(numbers)

    def keep(self, most: int) -> None:
        """Keep what up to ``most`` closed sessions computed from now on; 0: nothing."""
        while self._keeping and self._keeping[-1][0] > most:
            self._keeping.pop()[1].close()
        if most > (self._keeping[-1][0] if self._keeping else 0):
            stack = ExitStack()
            stack.enter_context(self._running.keeping(most))
            self._keeping.append((most, stack))

    # ---- weights ----------------------------------------------------------------------------------------------------

    def hold(self, base: Parcel) -> None:
        """Keep the tensors below adapters that are to come."""
        self._base = base

    def load(self, arrived: Parcel | Adapters, version: int) -> int:
        """Serve these weights; the fingerprint of all, merged ones where adapters came.

        Raises :class:`~stratagem.language.engine.WeightMismatchError` when the engine does not serve what arrived.
        """
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if isinstance(arrived, Parcel):
            self._base = None
            source = Received(lambda: arrived.tensors(device))
        else:
            base = self._base
            assert base is not None
            source = Received(lambda: arrived.merged(base, device))
        self._running.load_weights(source, version)
        return whole_fingerprint(source.given)

    # ---- help -------------------------------------------------------------------------------------------------------

    @property
    def _running(self) -> Engine:
        assert self._engine is not None
        return self._engine

    def _here(self, requests: Sequence[Request]) -> list[Request]:
        """The requests under the engine's own session numbers; sessions that are new here are opened together."""
        fresh = [request.session for request in requests if request.session not in self._sessions]
        self._sessions |= zip(fresh, self._running.open(len(fresh)), strict=True) if fresh else ()
        return [replace(request, session=self._sessions[request.session]) for request in requests]

    def _read_since(self) -> tuple[int, int]:
        told, self._told = self._told, (self._running.prefilled, self._running.taken_over)
        return self._told[0] - told[0], self._told[1] - told[1]
