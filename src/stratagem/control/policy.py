"""Small policies for control: a categorical or a diagonal Gaussian on a perceptron, with a critic of its own."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Float32, Shaped
from torch import Tensor, nn

from stratagem.control.inputs import ControlInputs
from stratagem.control.task import GymTask
from stratagem.experience import Experience, PolicyOutput
from stratagem.objectives.routing import RoutingReplay
from stratagem.parts import View
from stratagem.seeding import generator
from stratagem.training.heads import Perceptron
from stratagem.training.module_policy import ModulePolicy, read_policy
from stratagem.training.world import check_asked


class ControlPolicy(ModulePolicy):
    """A distribution over actions given an observation, and mean and median of the return: three separate perceptrons.

    Each has two hidden layers with tanh, orthogonal weights and zero biases. The gain of the weights is sqrt(2); 1 in
    the critics' last layers; 0.01 in the actor's, so that a fresh policy hardly depends on what it sees.

    features: numbers in an observation.  actions: choices, or dimensions of a continuous action.
    hidden: width of each hidden layer.  seed: of the initial weights.
    critic_features: numbers the critics read, where that is something else than the observation.
    """

    says: ClassVar[frozenset[str]] = frozenset({"entropy", "value", "median", "before", "after"})
    views: ClassVar[tuple[type[View], ...]] = (RoutingReplay,)

    def __init__(
        self, features: int, actions: int, hidden: int = 64, seed: int = 0, critic_features: int | None = None
    ) -> None:
        super().__init__()
        self.features, self.actions, self.hidden = features, actions, hidden
        self.critic_features = critic_features
        judged = features if critic_features is None else critic_features
        self.actor = perceptron(features, hidden, actions, 0.01, generator(seed, "actor"))
        self.critic = perceptron(judged, hidden, 1, 1.0, generator(seed, "critic"))
        self.median_critic = perceptron(judged, hidden, 1, 1.0, generator(seed, "median critic"))

    @staticmethod
    def for_task(task: GymTask, seed: int = 0, hidden: int = 64) -> ControlPolicy:
        """A fresh policy whose actions the task takes: Gaussian for a ``Box``, else categorical."""
        kind = GaussianPolicy if task.continuous else CategoricalPolicy
        return kind(task.features, task.actions, hidden, seed)

    # ---- learning --------------------------------------------------------------------------------------------------

    def forward(
        self, x: Experience, *, temperature: float = 1.0, also: Collection[str] = (), view: View | None = None
    ) -> PolicyOutput:
        """Log-probability of every action of ``x``, and ``also`` what ``says`` lists. All with gradients.

        ``temperature`` > 0 takes the density to the power ``1 / temperature``, as it does for tokens. Raises
        ``ValueError`` when the inputs are not :class:`ControlInputs`, :class:`InputError` for what it cannot say.
        """
        check_asked(self, also, view)
        if not isinstance(x.inputs, ControlInputs) or x.action is None:
            raise ValueError(f"a control policy reads ControlInputs and actions, not {type(x.inputs).__name__}")
        observation = x.inputs.observation
        logp, entropies = self.score(self.actor(observation), x.action, temperature, "entropy" in also)
        return PolicyOutput(
            logp,
            entropies,
            self.values(observation) if "value" in also else None,
            self.median_critic(observation).squeeze(-1) if "median" in also else None,
            before=observation if "before" in also else None,
            after=torch.cat([observation, self.told(x.action)], 1) if "after" in also else None,
        )

    def told(self, action: Shaped[Tensor, "turns ..."]) -> Float[Tensor, "turns actions"]:
        """An action as numbers: its own, or 1 at the one that was chosen."""
        if action.ndim == 2:
            return action.float()
        return nn.functional.one_hot(action, self.actions).float()

    def head(self, place: Literal["before", "after"], hidden: int, source: torch.Generator) -> Perceptron:
        """A map from the observation, or from observation and action."""
        return Perceptron(self.features + (self.actions if place == "after" else 0), hidden, source)

    def values(self, observation: Float[Tensor, "turns features"]) -> Float[Tensor, " turns"]:
        """The critic's estimate of the return from each observation."""
        estimate: Tensor = self.critic(observation)
        return estimate.squeeze(-1)

    @abstractmethod
    def score(
        self,
        outputs: Float[Tensor, "turns actions"],
        action: Shaped[Tensor, "turns ..."],
        temperature: float,
        entropy: bool,
    ) -> tuple[Float[Tensor, " turns"], Float[Tensor, " turns"] | None]:
        """Log-probability of the actions given the actor's outputs, and the entropy when asked for."""

    # ---- acting ----------------------------------------------------------------------------------------------------

    def acting(self, temperature: float = 1.0) -> Callable[[np.ndarray, np.random.Generator | None], np.ndarray]:
        """A function from observations [rows, features] to actions; without a generator, the most likely ones.

        It runs in numpy on the policy's own weights (float32, CPU), which for a few rows takes a fifth of the time that
        torch takes, and agrees with :meth:`forward` to float32 accuracy.
        """
        layers = [(layer.weight.detach().numpy().T, layer.bias.detach().numpy()) for layer in linear_layers(self.actor)]
        choose = self.chooser(temperature)

        def act(observation: np.ndarray, noise: np.random.Generator | None) -> np.ndarray:
            hidden = observation
            for weight, bias in layers[:-1]:
                hidden = np.tanh(hidden @ weight + bias)
            weight, bias = layers[-1]
            return choose(hidden @ weight + bias, noise)

        return act

    @abstractmethod
    def chooser(
        self, temperature: float
    ) -> Callable[[Float32[np.ndarray, "rows actions"], np.random.Generator | None], np.ndarray]:
        """A function that draws actions given the actor's outputs; without a generator, the most likely ones."""

    # ---- the trainer's contract ------------------------------------------------------------------------------------

    def policy_parameters(self) -> Iterator[Tensor]:
        """Everything but the critics."""
        critics = ("critic.", "median_critic.")
        return (parameter for name, parameter in self.named_parameters() if not name.startswith(critics))

    def critic_parameters(self) -> Iterator[Tensor]:
        """The critics'."""
        return chain(self.critic.parameters(), self.median_critic.parameters())

    def hidden_matrices(self) -> list[Tensor]:
        """The actor's weights between its hidden layers."""
        return [layer.weight for layer in linear_layers(self.actor)[1:-1]]

    def arguments(self) -> dict[str, int]:
        """Sizes."""
        sizes = {"features": self.features, "actions": self.actions, "hidden": self.hidden}
        return sizes if self.critic_features is None else {**sizes, "critic_features": self.critic_features}

    @staticmethod
    def from_directory(directory: str | Path) -> ControlPolicy:
        """Read what :meth:`save` wrote. Raises :class:`InputError` when the directory is missing or damaged."""
        return read_policy(directory, "control policy", _KINDS)


class CategoricalPolicy(ControlPolicy):
    """``pi(a | o) = softmax(f(o) / temperature)_a``; actions are int64 [turns]."""

    kind: ClassVar[str] = "categorical"

    def score(
        self,
        outputs: Float[Tensor, "turns actions"],
        action: Shaped[Tensor, "turns ..."],
        temperature: float,
        entropy: bool,
    ) -> tuple[Float[Tensor, " turns"], Float[Tensor, " turns"] | None]:
        logp = torch.log_softmax(outputs if temperature == 1.0 else outputs / temperature, dim=-1)
        chosen = logp.gather(1, action.unsqueeze(1)).squeeze(1)
        return chosen, -(logp.exp() * logp).sum(-1) if entropy else None

    def chooser(
        self, temperature: float
    ) -> Callable[[Float32[np.ndarray, "rows actions"], np.random.Generator | None], np.ndarray]:
        def choose(logits: np.ndarray, noise: np.random.Generator | None) -> np.ndarray:
            # The largest of logits plus Gumbel noise is a draw from their softmax.
            scores = logits if noise is None else logits / temperature + noise.gumbel(size=logits.shape)
            chosen: np.ndarray = scores.argmax(-1)
            return chosen

        return choose


class GaussianPolicy(ControlPolicy):
    """``pi(a | o) = N(f(o), temperature * diag(exp(2 log_std)))``; actions are float32 [turns, dims], not squashed.

    ``log_std`` does not depend on the observation and starts at 0.
    """

    kind: ClassVar[str] = "gaussian"

    def __init__(
        self, features: int, actions: int, hidden: int = 64, seed: int = 0, critic_features: int | None = None
    ) -> None:
        super().__init__(features, actions, hidden, seed, critic_features)
        self.log_std = nn.Parameter(torch.zeros(actions))

    def score(
        self,
        outputs: Float[Tensor, "turns actions"],
        action: Shaped[Tensor, "turns ..."],
        temperature: float,
        entropy: bool,
    ) -> tuple[Float[Tensor, " turns"], Float[Tensor, " turns"] | None]:
        log_std = self.log_std + 0.5 * math.log(temperature)
        distance = ((action - outputs) * (-log_std).exp()).square().sum(-1)
        log_volume = log_std.sum() + 0.5 * self.actions * math.log(2 * math.pi)
        logp = -0.5 * distance - log_volume
        return logp, (log_volume + 0.5 * self.actions).expand(len(logp)) if entropy else None

    def chooser(
        self, temperature: float
    ) -> Callable[[Float32[np.ndarray, "rows actions"], np.random.Generator | None], np.ndarray]:
        std = np.exp(self.log_std.detach().numpy()) * np.float32(math.sqrt(temperature))

        return lambda mean, noise: gaussian(mean, std, noise)


_KINDS: dict[str, type[ControlPolicy]] = {kind.kind: kind for kind in (CategoricalPolicy, GaussianPolicy)}


def gaussian(mean: np.ndarray, std: np.ndarray, noise: np.random.Generator | None) -> np.ndarray:
    """Draws with these means and deviations; without a generator, the means."""
    return mean if noise is None else mean + std * noise.standard_normal(mean.shape, dtype=np.float32)


def perceptron(inputs: int, hidden: int, outputs: int, gain: float, source: torch.Generator) -> nn.Sequential:
    """Two hidden layers with tanh, orthogonal weights of gain sqrt(2), in the last layer ``gain``, and zero biases."""
    return nn.Sequential(
        _layer(inputs, hidden, math.sqrt(2), source),
        nn.Tanh(),
        _layer(hidden, hidden, math.sqrt(2), source),
        nn.Tanh(),
        _layer(hidden, outputs, gain, source),
    )


def _layer(inputs: int, outputs: int, gain: float, source: torch.Generator) -> nn.Linear:
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs)
    nn.init.orthogonal_(layer.weight, gain, source)
    nn.init.zeros_(layer.bias)
    return layer


def linear_layers(network: nn.Sequential) -> list[Any]:
    """The linear maps of a network, in their order."""
    return [layer for layer in network if isinstance(layer, nn.Linear)]
