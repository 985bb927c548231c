"""A small policy of two kinds of actions: directions it thinks in, and the token it answers with."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from stratagem.experience import Experience, PolicyOutput
from stratagem.hybrid.inputs import HybridInputs
from stratagem.hybrid.task import COLOURS, GRID, PIXELS, HybridTask, every_object
from stratagem.objectives.directions import direction_logp, sample_directions, unit
from stratagem.parts import View
from stratagem.seeding import generator
from stratagem.training.module_policy import ModulePolicy, read_policy
from stratagem.training.world import check_asked


@dataclass(frozen=True)
class Shape:
    """What a policy is made for: latents, their dimensions and concentration, answers, and its width."""

    steps: int
    dims: int
    concentration: float
    answers: int
    width: int = 32

    @staticmethod
    def of(task: HybridTask) -> Shape:
        """What this task needs."""
        return Shape(task.steps, task.dims, task.concentration, len(task.answers))


class Thought(NamedTuple):
    """A chain, position by position: mean directions, the latents themselves, logits of the answer, and values."""

    direction: Float[Tensor, "chains steps dims"]
    latent: Float[Tensor, "chains steps dims"]
    logits: Float[Tensor, "chains answers"]
    value: Float[Tensor, "chains positions"]


class HybridPolicy(ModulePolicy):
    """Looks at a picture, takes ``steps`` latents in a row, and says one token.

    A frozen encoder gives every cell its features. A memory, which at first holds the question, asks for a cell by
    attention; from what it reads and the memory comes ``mu``, a unit vector, and the latent ``z ~ vMF(mu, kappa)`` is
    all that the memory learns of the picture. The answer is drawn from ``softmax(f(memory) / temperature)``. The
    temperature is that of tokens alone; ``kappa`` does not depend on it.

    shape: sizes and concentration.  seed: of the initial weights.
    """

    usual: Tensor
    kind: ClassVar[str] = "hybrid"
    says: ClassVar[frozenset[str]] = frozenset({"direction", "value"})

    def __init__(self, shape: Shape, seed: int = 0) -> None:
        super().__init__()
        self.shape = shape
        width, source = shape.width, generator(seed, "hybrid")
        self.encoder = nn.Conv2d(3, width, PIXELS, PIXELS).requires_grad_(False)
        self.places = nn.Parameter(torch.empty(GRID * GRID, width), requires_grad=False)
        self.seen = nn.Linear(width, shape.dims, bias=False).requires_grad_(False)
        self.ask = nn.Linear(2 * len(COLOURS), width)
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.think = nn.Linear(2 * width, width)
        self.direction = nn.Linear(width, shape.dims)
        self.memory = nn.GRUCell(shape.dims, width)
        self.answer = nn.Linear(width, shape.answers)
        self.critic = nn.Linear(width, 1)
        for name, parameter in self.named_parameters():
            with torch.no_grad():
                if name.endswith("bias") or "bias_" in name or name.startswith("critic"):
                    parameter.zero_()
                else:
                    fan = parameter[0].numel()
                    parameter.normal_(0, fan**-0.5, generator=source)
        with torch.no_grad():
            self.register_buffer("usual", self.features(every_object()).mean((0, 1)), persistent=False)

    # ---- seeing ----------------------------------------------------------------------------------------------------

    def features(self, picture: Float[Tensor, "pictures 3 height width"]) -> Float[Tensor, "pictures cells features"]:
        """What the frozen encoder says of every cell, wherever it is."""
        return torch.tanh(2 * self.encoder(picture)).flatten(2).transpose(1, 2)

    def targets(
        self, picture: Float[Tensor, "pictures 3 height width"], cell: Int[Tensor, "pictures asked"]
    ) -> Float[Tensor, "pictures asked dims"]:
        """Unit vectors that tell what is in these cells: projected features, less what all objects have in common."""
        features = self.features(picture)
        there = features.gather(1, cell.unsqueeze(-1).expand(-1, -1, features.shape[-1]))
        return unit(self.seen(there - self.usual))

    # ---- thinking --------------------------------------------------------------------------------------------------

    def chain(
        self,
        picture: Float[Tensor, "pictures 3 height width"],
        question: Int[Tensor, "pictures 2"],
        choose: Callable[[int, Float[Tensor, "pictures dims"]], Float[Tensor, "pictures dims"]],
    ) -> Thought:
        """Think as often as there are steps; ``choose`` gives the latent of a step from its mean direction."""
        cells = self.features(picture) + self.places
        keys = self.key(cells)
        memory = torch.tanh(self.ask(nn.functional.one_hot(question, len(COLOURS)).flatten(1).to(cells.dtype)))
        directions, latents, values = [], [], [self.critic(memory)]
        for step in range(self.shape.steps):
            scores = (keys @ self.query(memory).unsqueeze(-1)).squeeze(-1) / self.shape.width**0.5
            read = (scores.softmax(-1).unsqueeze(1) @ cells).squeeze(1)
            direction = unit(self.direction(torch.tanh(self.think(torch.cat([memory, read], -1)))))
            directions.append(direction)
            latents.append(choose(step, direction))
            memory = self.memory(latents[-1], memory)
            values.append(self.critic(memory))
        return Thought(torch.stack(directions, 1), torch.stack(latents, 1), self.answer(memory), torch.cat(values, 1))

    @torch.no_grad()
    def act(
        self,
        picture: Float[Tensor, "pictures 3 height width"],
        question: Int[Tensor, "pictures 2"],
        source: torch.Generator | None,
        sampled: bool = True,
        temperature: float = 1.0,
    ) -> tuple[Float[Tensor, "pictures positions dims"], Float[Tensor, " actions"]]:
        """Actions as an :class:`Experience` holds them, and their log-probabilities, chain after chain.

        source: None takes mean directions and the most likely answer.  sampled: False takes mean directions anyway.
        """

        def choose(step: int, direction: Tensor) -> Tensor:
            if source is None or not sampled:
                return direction
            return sample_directions(direction, self.shape.concentration, source)

        thought = self.chain(picture, question, choose)
        logits = thought.logits / temperature
        if source is None:
            chosen = logits.argmax(-1)
        else:
            chosen = torch.multinomial(logits.softmax(-1).to(source.device), 1, generator=source).squeeze(1)
        action = in_rows(thought.latent, chosen.to(logits.device))
        return action, self._logp(thought, action, temperature)

    def _logp(self, thought: Thought, action: Tensor, temperature: float) -> Float[Tensor, " actions"]:
        latents = direction_logp(thought.direction, action[:, :-1], self.shape.concentration)
        answers = torch.log_softmax(thought.logits / temperature, -1)
        said = answers.gather(1, action[:, -1, :1].long())
        return torch.cat([latents, said], 1).flatten()

    # ---- learning --------------------------------------------------------------------------------------------------

    def forward(
        self, x: Experience, *, temperature: float = 1.0, also: Collection[str] = (), view: View | None = None
    ) -> PolicyOutput:
        """Log-probability of every action of ``x``, and ``also`` what ``says`` lists. All with gradients.

        That of a latent is ``kappa <mu, z>``: without the normaliser, which cancels in every ratio. Its direction is
        ``mu``, and 0 at answers. Raises ``ValueError`` when the inputs are not :class:`HybridInputs` or their chains of
        another length, :class:`InputError` for what it cannot say.
        """
        check_asked(self, also, view)
        if not isinstance(x.inputs, HybridInputs) or x.action is None:
            raise ValueError(f"a hybrid policy reads HybridInputs and actions, not {type(x.inputs).__name__}")
        positions = self.shape.steps + 1
        if bool((x.inputs.lengths != positions).any()) or x.action.shape != (x.tokens, self.shape.dims):
            raise ValueError(f"this policy takes {self.shape.steps} latents of {self.shape.dims} numbers, then a token")
        action = x.action.reshape(-1, positions, self.shape.dims)
        thought = self.chain(x.inputs.picture, x.inputs.question, lambda step, _: action[:, step])
        direction = None
        if "direction" in also:
            at_answer = torch.zeros_like(thought.direction[:, :1])
            direction = torch.cat([thought.direction, at_answer], 1).flatten(0, 1)
        return PolicyOutput(
            self._logp(thought, action, temperature),
            value=thought.value.flatten() if "value" in also else None,
            direction=direction,
        )

    # ---- the trainer's contract ------------------------------------------------------------------------------------

    def policy_parameters(self) -> Iterator[Tensor]:
        """Everything but the encoder, which is frozen, and the critic."""
        return (p for name, p in self.named_parameters() if p.requires_grad and not name.startswith("critic."))

    def critic_parameters(self) -> Iterator[Tensor]:
        """The critic's."""
        return self.critic.parameters()

    def hidden_matrices(self) -> list[Tensor]:
        """The weights between hidden features: of the attention, of the thought and of the memory itself."""
        return [self.query.weight, self.key.weight, self.think.weight, self.memory.weight_hh]

    def with_concentration(self, concentration: float) -> HybridPolicy:
        """The same weights, to be trained on, with latents of another concentration."""
        policy = HybridPolicy(dataclasses.replace(self.shape, concentration=concentration))
        policy.load_state_dict(self.state_dict())
        return policy

    def arguments(self) -> dict[str, Any]:
        """Its shape."""
        return dataclasses.asdict(self.shape)

    @staticmethod
    def from_directory(directory: str | Path) -> HybridPolicy:
        """Read what :meth:`save` wrote. Raises :class:`InputError` when the directory is missing or damaged."""
        return read_policy(
            directory, "hybrid policy", {HybridPolicy.kind: lambda **shape: HybridPolicy(Shape(**shape))}
        )


def in_rows(
    latent: Float[Tensor, "chains steps dims"], answer: Int[Tensor, " chains"]
) -> Float[Tensor, "chains positions dims"]:
    """Latents and answers as rows of one width: an answer is the first number of a row of zeros."""
    last = torch.zeros_like(latent[:, :1])
    last[:, 0, 0] = answer.to(latent.dtype)
    return torch.cat([latent, last], 1)
