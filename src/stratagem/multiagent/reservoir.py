"""Echo state networks that act: grown, taught to read themselves, and worn in by living with one who cooperates."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt, Lt
from jaxtyping import Float64

from stratagem.errors import InputError
from stratagem.seeding import numpy_generator
from stratagem.validation import validate_fields

State = Float64[np.ndarray, "*batch bodies size"]

STILL = 1e-15
"""A spectral radius below this cannot be rescaled."""


@dataclass(frozen=True, eq=False)
class Bodies:
    """Echo state networks side by side: ``x' = tanh(W x + V [mine, theirs] + c) + noise``, ``a = sigmoid(w x + w0)``.

    recurrent W, inputs V, bias c, readout w, offset w0.  noise: standard deviation.
    """

    recurrent: Float64[np.ndarray, "bodies size size"]
    inputs: Float64[np.ndarray, "bodies size 2"]
    bias: Float64[np.ndarray, "bodies size"]
    readout: Float64[np.ndarray, "bodies size"]
    offset: Float64[np.ndarray, " bodies"]
    noise: float

    @property
    def size(self) -> int:
        """Units of each."""
        return int(self.bias.shape[1])

    def driven(self, mine: Float64[np.ndarray, "*batch bodies"], theirs: Float64[np.ndarray, "*batch bodies"]) -> State:
        """What comes from outside: ``V [mine, theirs] + c``."""
        heard = self.inputs[..., 0] * mine[..., None] + self.inputs[..., 1] * theirs[..., None]
        return np.asarray(heard + self.bias)

    def step(self, state: State, drive: State, noise: Float64[np.ndarray, "*batch bodies size"] | float = 0.0) -> State:
        """The next state. noise: standard normal numbers, none by default."""
        return np.asarray(np.tanh((self.recurrent @ state[..., None])[..., 0] + drive) + self.noise * noise)

    def wander(
        self, state: State, drive: State, steps: int, rng: np.random.Generator
    ) -> Float64[np.ndarray, "steps ..."]:
        """States visited under a constant drive."""
        visited = np.empty((steps, *state.shape))
        noise = np.asarray(rng.standard_normal(visited.shape))
        for number in range(steps):
            state = visited[number] = self.step(state, drive, noise[number])
        return visited

    def act(self, state: State) -> Float64[np.ndarray, "*batch bodies"]:
        """What a state says to do: between 0, defect, and 1, cooperate."""
        return np.asarray(1 / (1 + np.exp(-((self.readout * state).sum(-1) + self.offset))))

    def settled(self, theirs: float, state: State | None = None, steps: int = 1000) -> State:
        """Where bodies come to that act alone, without noise, against one who always does the same.

        It is a fixed point ``x = tanh(W x + V [a(x), theirs] + c)`` where that is stable; there always is one.
        """
        x = np.zeros(self.bias.shape) if state is None else state
        for _ in range(steps):
            mine = self.act(x)
            x = self.step(x, self.driven(mine, np.full_like(mine, theirs)))
        return x

    def jacobian(self, state: State) -> Float64[np.ndarray, "*batch bodies size size"]:
        """Of a body that acts alone: ``diag(1 - x^2) (W + V_mine a (1 - a) w^T)``; x a fixed point.

        The fixed point is stable where its spectral radius is below 1.
        """
        acts = self.act(state)
        slope = (acts * (1 - acts))[..., None, None]
        closed = self.recurrent + slope * self.inputs[..., 0, None] * self.readout[..., None, :]
        return np.asarray((1 - state**2)[..., None] * closed)


def spectral_radius(matrices: Float64[np.ndarray, "*batch size size"]) -> Float64[np.ndarray, "*batch"]:
    """The largest modulus of an eigenvalue, which power iteration does not find where a complex pair leads."""
    return np.asarray(np.abs(np.linalg.eigvals(matrices)).max(-1))


def bounded_radius(matrices: Float64[np.ndarray, "*batch size size"], low: float, high: float) -> np.ndarray:
    """Matrices scaled so that their spectral radius lies within bounds; those of radius below ``STILL`` as they are."""
    radius = spectral_radius(matrices)
    scale = np.where(radius < STILL, 1.0, np.clip(radius, low, high) / np.maximum(radius, STILL))
    return matrices * scale[..., None, None]


@dataclass(frozen=True)
class Reservoir:
    """How bodies come about (arXiv 2602.20846): grown at random, taught once, then worn in.

    Growth: ``W ~ N(0, 1 / size)`` scaled to ``radius``, ``V ~ N(0, input_scale^2)``, ``c ~ N(0, bias_scale^2)``.
    Teaching: two copies are driven by ``[1, 1]`` and ``[0, 0]``, ``burn_in`` steps and ``samples`` more; the readout is
    a ridge regression of ``logit(cooperative)`` and ``logit(1 - cooperative)`` with penalty ``ridge`` times the number
    of samples on the weights alone.
    Habituation: ``rounds`` of ``drive`` steps under ``[1, 1]``, after each
    ``W_ij += rate (mean(x_i x_j) - decay mean(x_i^2) W_ij)``, with the spectral radius kept within .05 and .99. The
    readout stays as it was taught.

    Raises :class:`InputError` for values out of range.
    """

    size: Annotated[int, Ge(1)] = 30
    radius: Annotated[float, Gt(0)] = 0.9
    noise: Annotated[float, Ge(0)] = 0.15
    input_scale: Annotated[float, Ge(0)] = 0.5
    bias_scale: Annotated[float, Ge(0)] = 0.3
    burn_in: Annotated[int, Ge(0)] = 500
    samples: Annotated[int, Ge(1)] = 2000
    ridge: Annotated[float, Gt(0)] = 0.001
    cooperative: Annotated[float, Gt(0.5), Lt(1)] = 0.95
    rounds: Annotated[int, Ge(0)] = 200
    drive: Annotated[int, Ge(1)] = 500
    rate: Annotated[float, Ge(0)] = 0.01
    decay: Annotated[float, Ge(0)] = 1.0

    def __post_init__(self) -> None:
        validate_fields(self, "reservoir")

    def grow(self, bodies: int, seed: int) -> Bodies:
        """Bodies, each of its own weights. Grown once for each number and seed, then kept for a while."""
        if bodies < 1:
            raise InputError(f"reservoir: bodies = {bodies}: must be at least 1")
        return _grown(self, bodies, seed)

    def newborn(self, bodies: int, seed: int) -> Bodies:
        """Before habituation: grown and taught."""
        rng, size = numpy_generator(seed, "reservoir", "growth"), self.size
        drawn = rng.standard_normal((bodies, size, size)) / np.sqrt(size)
        born = Bodies(
            recurrent=bounded_radius(drawn, self.radius, self.radius),
            inputs=rng.normal(0, self.input_scale, (bodies, size, 2)),
            bias=rng.normal(0, self.bias_scale, (bodies, size)),
            readout=np.zeros((bodies, size)),
            offset=np.zeros(bodies),
            noise=self.noise,
        )
        return self._taught(born, numpy_generator(seed, "reservoir", "teaching"))

    def _taught(self, bodies: Bodies, rng: np.random.Generator) -> Bodies:
        inputs = np.broadcast_to(np.array([1.0, 0.0])[:, None], (2, len(bodies.bias)))
        start = np.zeros((2, *bodies.bias.shape))
        states = bodies.wander(start, bodies.driven(inputs, inputs), self.burn_in + self.samples, rng)[self.burn_in :]
        states = states.transpose(2, 1, 0, 3).reshape(len(bodies.bias), 2 * self.samples, -1)
        confidence = np.log(self.cooperative / (1 - self.cooperative))
        targets = np.repeat([confidence, -confidence], self.samples)
        mean = states.mean(1)
        centred = states - mean[:, None]
        penalty = self.ridge * len(targets) * np.eye(self.size)
        moments = centred.transpose(0, 2, 1) @ centred + penalty
        readout = np.linalg.solve(moments, (centred * targets[:, None]).sum(1)[..., None])[..., 0]
        return replace(bodies, readout=readout, offset=targets.mean() - (readout * mean).sum(-1))

    def _habituated(self, bodies: Bodies, rng: np.random.Generator) -> Bodies:
        ones = np.ones(len(bodies.bias))
        drive, state = bodies.driven(ones, ones), np.zeros(bodies.bias.shape)
        for _ in range(self.rounds):
            visited = bodies.wander(state, drive, self.drive, rng)
            state, visited = visited[-1], visited.transpose(1, 0, 2)
            together = visited.transpose(0, 2, 1) @ visited / self.drive
            squares = np.diagonal(together, axis1=-2, axis2=-1)[..., None]
            moved = bodies.recurrent + self.rate * (together - self.decay * squares * bodies.recurrent)
            bodies = replace(bodies, recurrent=bounded_radius(moved, 0.05, 0.99))
        return bodies


@lru_cache(maxsize=16)
def _grown(how: Reservoir, bodies: int, seed: int) -> Bodies:
    return how._habituated(how.newborn(bodies, seed), numpy_generator(seed, "reservoir", "habituation"))
