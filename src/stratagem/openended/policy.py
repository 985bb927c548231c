"""A policy that attends to the options of its goal, and values the goal at least as much as each of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from stratagem.control.inputs import ControlInputs
from stratagem.experience import Experience, PolicyOutput
from stratagem.openended.grid import Grid
from stratagem.openended.task import ACTIONS, OpenEndedTask
from stratagem.parts import View
from stratagem.seeding import generator
from stratagem.training.module_policy import ModulePolicy, read_policy
from stratagem.training.world import check_asked

SHARPNESS = 1.0
"""How much the promise of an option counts for the attention it gets, in 1 / return."""


@dataclass(frozen=True)
class Shape:
    """What a policy is made for. state, option: numbers of each in an observation.  options: of a goal.

    width: of hidden layers.  attention: whether options are looked at one by one beside the whole goal.
    """

    state: int
    option: int
    options: int
    actions: int = len(ACTIONS)
    width: int = 64
    attention: bool = True

    @staticmethod
    def of(task: OpenEndedTask) -> Shape:
        """What this universe needs."""
        return Shape(Grid.state_features(task), Grid.option_features(task), task.options)


class Looked(NamedTuple):
    """Of the whole goal, then of every option: logits of actions and values (absent options: -inf)."""

    logits: Float[Tensor, "n looks actions"]
    value: Float[Tensor, "n looks"]


class GoalPolicy(ModulePolicy):
    """``pi = sum_g a_g softmax(l_g)``, ``g`` the whole goal or one of its options, ``a = softmax(SHARPNESS V_g)``.

    ``l_g`` and ``V_g`` come from one network of state and goal, where a goal is encoded as the sum of what its options
    are encoded as. The value is ``max_g V_g``, so that a goal is never valued less than one of its options alone
    (value consistency), and options are weighed by what they promise. The state is observed and tells the time, so that
    the network has no memory, where that of arXiv 2107.12808 has; what co-players want, it could only learn from what
    they do. Goal attention and value consistency are a reconstruction from descriptions.

    shape: sizes.  seed: of the initial weights.
    """

    kind: ClassVar[str] = "goal"
    says: ClassVar[frozenset[str]] = frozenset({"entropy", "value"})

    def __init__(self, shape: Shape, seed: int = 0) -> None:
        super().__init__()
        self.shape = shape
        width, source = shape.width, generator(seed, "goal policy")
        self.see = _linear(shape.state, width, 1.0, source)
        self.read = _linear(shape.option, width, 1.0, source)
        self.meet = _linear(2 * width, width, 2**0.5, source)
        self.act = _linear(width, shape.actions, 0.01, source)
        self.critic_see = _linear(shape.state, width, 1.0, source)
        self.critic_read = _linear(shape.option, width, 1.0, source)
        self.critic_meet = _linear(2 * width, width, 2**0.5, source)
        self.critic = _linear(width, 1, 1.0, source)

    def look(self, observation: Float[Tensor, "n features"]) -> Looked:
        """The goal and its options, each by itself."""
        state, options = observation.split([self.shape.state, self.shape.option * self.shape.options], -1)
        options = options.reshape(len(observation), self.shape.options, self.shape.option)
        absent = options[..., -2] == 0

        def met(see: nn.Linear, read: nn.Linear, meet: nn.Linear) -> Tensor:
            seen = torch.tanh(see(state)).unsqueeze(1)
            each = torch.tanh(read(options)).masked_fill(absent.unsqueeze(-1), 0.0)
            goal = each.sum(1, keepdim=True)
            looked = torch.cat([goal, each], 1) if self.shape.attention else goal
            hidden: Tensor = torch.tanh(meet(torch.cat([seen.expand(-1, looked.shape[1], -1), looked], -1)))
            return hidden

        logits: Tensor = self.act(met(self.see, self.read, self.meet))
        value: Tensor = self.critic(met(self.critic_see, self.critic_read, self.critic_meet)).squeeze(-1)
        if self.shape.attention:
            missing = torch.cat([torch.zeros_like(absent[:, :1]), absent], 1)
            value = value.masked_fill(missing, -torch.inf)
        return Looked(logits, value)

    def logp(self, looked: Looked, temperature: float = 1.0) -> Float[Tensor, "n actions"]:
        """Log-probability of every action. The temperature is that of each look's actions."""
        # What weighs the looks learns as a critic does, not by the policy's gradient.
        weight = (SHARPNESS * looked.value.detach()).log_softmax(-1).unsqueeze(-1)
        logp: Tensor = (weight + (looked.logits / temperature).log_softmax(-1)).logsumexp(1)
        return logp

    def distribution(self, observation: Float[Tensor, "n features"]) -> Float[Tensor, "n actions"]:
        """Log-probability of every action."""
        return self.logp(self.look(observation))

    def values(self, observation: Float[Tensor, "n features"]) -> Float[Tensor, " n"]:
        """The critic's estimate of the return."""
        return self.look(observation).value.amax(-1)

    @torch.no_grad()
    def draw(
        self, observation: Float[Tensor, "n features"], source: torch.Generator | None, temperature: float = 1.0
    ) -> Int64[Tensor, " n"]:
        """Actions; without a source the likeliest."""
        logp = self.logp(self.look(observation.to(self.device)), temperature).cpu()
        if source is None:
            return logp.argmax(-1)
        noise = torch.empty_like(logp).exponential_(generator=source).clamp(min=1e-30)
        return (logp - noise.log()).argmax(-1)

    def forward(
        self, x: Experience, *, temperature: float = 1.0, also: Collection[str] = (), view: View | None = None
    ) -> PolicyOutput:
        """Log-probability of every action of ``x``, and ``also`` what ``says`` lists. All with gradients.

        Raises ``ValueError`` when the inputs are not :class:`ControlInputs`, and :class:`InputError` for what it cannot
        say.
        """
        check_asked(self, also, view)
        if not isinstance(x.inputs, ControlInputs) or x.action is None:
            raise ValueError(f"a goal policy reads ControlInputs and actions, not {type(x.inputs).__name__}")
        looked = self.look(x.inputs.observation)
        logp = self.logp(looked, temperature)
        return PolicyOutput(
            logp.gather(1, x.action.unsqueeze(1)).squeeze(1),
            -(logp.exp() * logp).sum(-1) if "entropy" in also else None,
            looked.value.amax(-1) if "value" in also else None,
        )

    # ---- the trainer's contract ------------------------------------------------------------------------------------

    def policy_parameters(self) -> Iterator[Tensor]:
        """Everything but the critic."""
        return (p for name, p in self.named_parameters() if not name.startswith("critic"))

    def critic_parameters(self) -> Iterator[Tensor]:
        """The critic's."""
        return (p for name, p in self.named_parameters() if name.startswith("critic"))

    def hidden_matrices(self) -> list[Tensor]:
        """The weights between hidden features."""
        return [self.meet.weight]

    def arguments(self) -> dict[str, Any]:
        """Its shape."""
        return asdict(self.shape)

    @staticmethod
    def from_directory(directory: str | Path) -> GoalPolicy:
        """Read what :meth:`save` wrote. Raises :class:`InputError` when the directory is missing or damaged."""
        return read_policy(directory, "goal policy", {GoalPolicy.kind: lambda **shape: GoalPolicy(Shape(**shape))})


def _linear(inputs: int, outputs: int, gain: float, source: torch.Generator) -> nn.Linear:
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs)
    nn.init.orthogonal_(layer.weight, gain, source)
    nn.init.zeros_(layer.bias)
    return layer
