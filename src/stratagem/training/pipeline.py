"""Batches collected ahead of the learner, in a thread: a world around a world, at most so many batches old."""

from __future__ import annotations

import copy
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from stratagem.errors import BrokenRunError, InputError
from stratagem.experience import Experience
from stratagem.parts import Sampler
from stratagem.readings import ReadsText
from stratagem.recipe import Recipe
from stratagem.training.batch_storage import pack, unpack
from stratagem.training.journal import Journal
from stratagem.training.ledger import numbers_in, ranges
from stratagem.training.world import PROBED, Collected, Evaluation, Interruptible, Journaling, Policy, TextWorld, World

CLOSING = 30.0
"""Seconds that closing waits for a turn to end; a collecting thread that hangs for longer is left behind."""

_State = tuple[dict[str, Tensor], dict[str, Any]]


@dataclass(frozen=True, eq=False)
class _Ready:
    """A batch that waits to be learned from, and what its sampler remembers once it has come."""

    collected: Collected
    memory: dict[str, Tensor]


@dataclass
class _Clock:
    """How long the collecting thread had nothing to do, up to ``now``."""

    now: float = field(default_factory=time.perf_counter)
    idle: float = 0.0

    def tick(self, busy: bool) -> None:
        """Time has passed, in which it was busy or not."""
        before, self.now = self.now, time.perf_counter()
        self.idle += 0.0 if busy else self.now - before


def warn_of_age(recipe: Recipe, staleness: int) -> None:
    """Warn when a recipe would take tokens of weights that are so many batches old for the policy's own."""
    if staleness and "behavior_logp" not in recipe.needs() and recipe.proximal is None:
        warnings.warn(
            f"recipe {recipe.name} does not look at behavior_logp: with staleness = {staleness} it takes tokens of "
            "older weights for the policy's own; decoupled_ppo corrects for that",
            stacklevel=3,
        )


class Pipelined:
    """A world whose batches are collected in a thread while the learner learns (:class:`~.world.World`).

    Batch ``j`` is begun once the learner asks for batch ``j - staleness``, with the weights served for that, so that no
    token is of weights more than ``staleness`` batches older than those that learn from it. A batch holds the groups
    that were planned for it, however long their episodes are, and batches come in their order. New weights go to the
    engine at once: episodes go on with them from their next turn, and ``version`` says so token by token. With
    ``staleness = 0`` every call goes straight through, and all numbers are those of the plain world.

    The sampler given for batch ``j`` is that of all batches begun from then on, so that what a schedule changes in it
    takes effect ``staleness`` batches later. What it remembers of rollouts is handed on from batch to batch, and is up
    to date with the batch that was taken last.

    Evaluation, and batches that are only measured, wait for the batch that is being collected and none is begun
    meanwhile. What breaks in the thread is raised where its batch is asked for.

    The state holds the batches that wait, and the world as it was when the one being collected was begun: that one is
    collected again. It may be restored with another staleness.

    Metrics, where ``staleness > 0``: ``pipeline/staleness``, mean over the tokens that may train of the batches learned
    from between the weights that sampled them and the present ones, and ``pipeline/staleness_max``;
    ``pipeline/mixed_versions``, share of trajectories with tokens of several versions; ``pipeline/waiting``, batches
    ready when this one was taken; ``timing/idle_learner`` and ``timing/idle_rollouts``, seconds since the last batch
    was taken in which the learner waited for this one, and in which the thread was not allowed to begin another;
    ``pipeline/utilization_learner`` and ``pipeline/utilization_rollouts``, the rest of that time as a share.

    staleness: at least 0.  batches: of the run; none beyond is begun. None: nobody knows.

    Raises :class:`InputError` for numbers out of range.
    """

    def __init__(self, world: World, staleness: int, batches: int | None = None) -> None:
        if staleness < 0:
            raise InputError(f"staleness = {staleness}: must be at least 0 batches")
        if batches is not None and batches < 0:
            raise InputError(f"batches = {batches}: must be at least 0, or None")
        self.world, self.staleness = world, staleness
        self.task_name = world.task_name
        self._batches = batches
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._waiting: dict[int, _Ready] = {}
        self._sampler: Sampler | None = None
        self._memory: dict[str, Tensor] | None = None
        self._state: _State | None = None
        self._next, self._allowed = 0, -1
        self._running = self._closed = False
        self._paused = 0
        self._error: BaseException | None = None
        self._version = 0
        self._served: list[tuple[int, int]] = []
        self._clock, self._taken = _Clock(), time.perf_counter()

    @property
    def policy(self) -> Policy:
        """What acts and learns."""
        return self.world.policy

    def adapt(self, recipe: Recipe) -> Recipe:
        """As the world does. Warns of a recipe that would take tokens of older weights for the policy's own."""
        adapted = self.world.adapt(recipe)
        warn_of_age(adapted, self.staleness)
        return adapted

    def serve(self, version: int) -> None:
        """Act with the policy's present weights, from the next turn of every episode on."""
        self.world.serve(version)
        self._version = version

    # ---- the learner's side ----------------------------------------------------------------------------------------

    def collect(self, sampler: Sampler, step: int) -> Collected:
        """The batch of this step, once it is there."""
        if step >= PROBED:
            with self._alone():
                return self.world.collect(sampler, step)
        before = [one for one in self._served if one[1] < step]
        self._served = [*before[-self.staleness - 1 :], (self._version, step)]
        if not self.staleness and step not in self._waiting:
            return self.world.collect(sampler, step)
        asked = time.perf_counter()
        with self._changed:
            self._go_on(sampler, step)
            while step not in self._waiting and self._error is None and not self._closed:
                self._changed.wait()
            if self._closed:
                raise BrokenRunError(f"batch {step} of {self.task_name}: the pipeline is closed")
            if step not in self._waiting and self._error is not None:
                raise self._error
            ready, waiting = self._waiting.pop(step), len(self._waiting)
            self._clock.tick(self._running)
            idle, self._clock.idle = self._clock.idle, 0.0
            _remember(sampler, ready.memory)
        since, self._taken = self._taken, time.perf_counter()
        if not self.staleness:
            return ready.collected
        lasted = max(self._taken - since, 1e-9)
        metrics = {
            "pipeline/waiting": float(waiting + 1),
            "timing/idle_learner": self._taken - asked,
            "timing/idle_rollouts": idle,
            "pipeline/utilization_learner": 1 - min((self._taken - asked) / lasted, 1.0),
            "pipeline/utilization_rollouts": 1 - min(idle / lasted, 1.0),
            **self._ages(ready.collected.x, step),
        }
        return replace(ready.collected, metrics=ready.collected.metrics | metrics)

    def _go_on(self, sampler: Sampler, step: int) -> None:
        """Collect up to ``staleness`` batches beyond this one, with this sampler."""
        self._sampler = copy.deepcopy(sampler)
        if self._memory is None:
            self._memory = copy.deepcopy(sampler.memory())
        self._allowed = step + self.staleness
        if self._thread is None and self.staleness:
            self._next = max(self._waiting, default=step - 1) + 1
            self._state = self.world.state_dict()
            self._clock, self._taken = _Clock(), time.perf_counter()
            self._thread = threading.Thread(target=self._work, daemon=True, name="stratagem-rollouts")
            self._thread.start()
        self._changed.notify_all()

    def _ages(self, x: Experience | None, step: int) -> dict[str, float]:
        """How old the weights are that sampled a batch, and how many trajectories are of several."""
        if x is None or x.version is None or not x.tokens:
            return {}
        # Weights that no batch has moved are as new as the last batch they were served for.
        versions, steps = (torch.tensor(column) for column in zip(*self._served, strict=True))
        place = (torch.searchsorted(versions, x.version.cpu(), right=True) - 1).clamp(min=0)
        ages = (step - steps[place])[x.learnable().cpu()].double()
        of = x.trajectory_of_token
        mixed = of.max(x.version) != of.min(x.version)
        metrics = {"pipeline/mixed_versions": float(mixed[of.size() > 0].double().mean())}
        if len(ages):
            metrics |= {"pipeline/staleness": float(ages.mean()), "pipeline/staleness_max": float(ages.max())}
        return metrics

    def evaluate(self, episodes: int, mode: Literal["sampled", "greedy"], first: int = 0) -> Evaluation:
        """Play held-out episodes with the weights last served, once the batch that is being collected has come."""
        with self._alone():
            return self.world.evaluate(episodes, mode, first)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """While it lasts nothing is collected; what the world has become by then is what later batches begin with."""
        with self._changed:
            self._paused += 1
            while self._running:
                self._changed.wait()
        try:
            yield
        finally:
            with self._changed:
                if self._thread is not None and self._error is None:
                    self._state = self.world.state_dict()
                self._paused -= 1
                self._changed.notify_all()

    # ---- the thread's side -----------------------------------------------------------------------------------------

    def _may_begin(self) -> bool:
        # The batch that is asked for is begun in any case.
        last = self._allowed if self._batches is None else max(self._batches - 1, self._allowed - self.staleness)
        return self._next <= min(last, self._allowed) and not self._paused

    def _work(self) -> None:
        """Collect one batch after another until closed, or until one breaks."""
        while True:
            with self._changed:
                while not (self._closed or self._may_begin()):
                    self._changed.wait()
                if self._closed:
                    return
                self._clock.tick(busy=False)
                self._running = True
                step, sampler = self._next, self._sampler
                assert sampler is not None and self._memory is not None
                _remember(sampler, self._memory)
            error: BaseException | None = None
            try:
                collected = self.world.collect(sampler, step)
                state = copy.deepcopy(self.world.state_dict())
            except BaseException as raised:
                error = raised
            with self._changed:
                self._clock.tick(busy=True)
                self._running = False
                self._error = error
                if error is None:
                    self._memory = copy.deepcopy(sampler.memory())
                    self._waiting[step] = _Ready(collected, self._memory)
                    self._state, self._next = state, step + 1
                self._changed.notify_all()
            if error is not None:
                return

    # ---- state -----------------------------------------------------------------------------------------------------

    def state_dict(self) -> _State:
        """The batches that wait, and the world as the batch after them begins; of the plain world where none can wait.

        What the world's own state is called is not used beside it: a world without a pipeline refuses the batches of
        one instead of losing them.
        """
        with self._changed:
            waiting = [self._waiting[step] for step in sorted(self._waiting)]
            state = self.world.state_dict() if self._state is None else self._state
            memory = self._memory or {}
        if not self.staleness and not waiting:
            return self.world.state_dict()
        tensors = {f"world.{name}": tensor for name, tensor in state[0].items()}
        tensors |= {f"memory.{name}": tensor for name, tensor in memory.items()}
        batches = []
        for place, ready in enumerate(waiting):
            found, plain = _packed(ready.collected)
            found |= {f"memory.{name}": tensor for name, tensor in ready.memory.items()}
            tensors |= {f"waiting.{place}.{name}": tensor for name, tensor in found.items()}
            batches.append(plain)
        plain = {"world": state[1], "waiting": batches, "first": min(self._waiting, default=0), "served": self._served}
        return tensors, {"pipeline": plain}

    def load_state_dict(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned, of a pipeline of any staleness or of the plain world.

        Raises ``ValueError`` once batches are being collected.
        """
        if self._thread is not None:
            raise ValueError("a pipeline that has begun cannot be restored")
        if "pipeline" not in plain:
            self.world.load_state_dict(tensors, plain)
            return
        saved = plain["pipeline"]
        self.world.load_state_dict(_under("world", tensors), saved["world"])
        self._memory = _under("memory", tensors) or None
        for place, batch in enumerate(saved["waiting"]):
            mine = _under(f"waiting.{place}", tensors)
            self._waiting[saved["first"] + place] = _Ready(_unpacked(mine, batch), _under("memory", mine))
        self._served = [(version, step) for version, step in saved["served"]]

    def keep(self, journal: Journal) -> None:
        """As the world does. Raises :class:`InputError` for one that keeps no journal."""
        if not isinstance(self.world, Journaling):
            raise InputError(f"journal: {self.task_name} keeps none; a language task does")
        self.world.keep(journal)

    def read_by(self, readers: Sequence[ReadsText]) -> None:
        """As the world does, for batches begun from then on. Raises :class:`InputError` for a world without text."""
        if not isinstance(self.world, TextWorld):
            raise InputError(f"{self.task_name}: has no text to read; a language task does")
        self.world.read_by(readers)

    def interrupt(self) -> None:
        """Collect nothing any more, and give up what is being collected as far as the world can be interrupted."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if isinstance(self.world, Interruptible):
            self.world.interrupt()

    def close(self) -> None:
        """Stop collecting after the present turn, and close the world. Batches that wait are given up."""
        self.interrupt()
        if self._thread is not None:
            self._thread.join(CLOSING)
        self.world.close()


def _remember(sampler: Sampler, memory: Mapping[str, Tensor]) -> None:
    """Let a sampler remember this, as far as it remembers such things; tensors that have grown are replaced."""
    mine = sampler.memory()
    for name in mine.keys() & memory.keys():
        if mine[name].shape == memory[name].shape:
            mine[name].copy_(memory[name])
        else:
            mine[name] = memory[name].clone()


_PLAIN = ("tokens", "metrics", "samples")


def _packed(collected: Collected) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A batch as tensors and JSON data."""
    plain: dict[str, Any] = {name: getattr(collected, name) for name in _PLAIN}
    plain["begun"] = None if collected.begun is None else ranges(collected.begun)
    plain["failed"] = ranges(collected.failed)
    plain["x"], tensors = None, dict[str, Tensor]()
    if collected.x is not None:
        found, plain["x"] = pack(collected.x)
        tensors = {f"x.{name}": tensor for name, tensor in found.items()}
    return tensors, plain


def _unpacked(tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> Collected:
    """The batch that :func:`_packed` took apart."""
    return Collected(
        x=None if plain["x"] is None else unpack(_under("x", tensors), plain["x"]),
        **{name: plain[name] for name in _PLAIN},
        begun=None if plain["begun"] is None else numbers_in(plain["begun"]),
        failed=numbers_in(plain["failed"]),
    )


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}
