"""Agents of which some see what others are about to do: a joint policy that factorises along a graph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.multiagent.dags import Edges, LearnedDag, fixed_dag
from stratagem.multiagent.episodes import Acted
from stratagem.multiagent.game import Frame
from stratagem.multiagent.inputs import AgentInputs
from stratagem.multiagent.policy import Acting, ActorCritics, Critic, Weights, allowed
from stratagem.multiagent.recurrence import Sequences
from stratagem.multiagent.values import joint_turns
from stratagem.parts import Sampler
from stratagem.sampling import DependentRollouts
from stratagem.seeding import generator
from stratagem.training.world import Policy


class DependentAgents(ActorCritics):
    """``pi(a | o) = prod_j pi_j(a_j | o_j, parents)`` along a graph (arXiv 2306.01920).

    Agents act in an order of the graph. What agent ``j`` reads of its parents is ``z_j``, for every agent ``k`` what it
    sees and does, one-hot, times ``G_kj``; a linear map of it without a bias is added before the first tanh of the
    actor. So an agent without parents reads zeros, and without edges this is :class:`ActorCritics`, number for number.

    In training each edge is kept with the probability the sampler says; evaluated, agents act without any edge, each by
    what it sees itself. The noise a graph was drawn with is noted, and the graph is made anew of it whenever the policy
    is asked again, so a likelihood is always that of the graph its noise leads to, with a gradient to what drew it.

    edges: ``learned``, or fixed: ``full`` (every agent sees all before it), ``line``, ``none``.

    Raises :class:`InputError` for continuous actions.
    """

    kind: ClassVar[str] = "dependent_agents"

    def __init__(
        self,
        agents: int,
        features: int,
        state_features: int,
        actions: int,
        continuous: bool = False,
        weights: Weights = "shared",
        critic: Critic = "observation",
        hidden: int = 64,
        seed: int = 0,
        edges: Edges = "learned",
    ) -> None:
        super().__init__(agents, features, state_features, actions, continuous, weights, critic, hidden, seed)
        if continuous:
            raise InputError("agents that see each other's actions need discrete ones; here they are continuous")
        self.edges = edges
        self.heard = nn.ModuleList(
            _heard_map(agents * (features + actions), hidden, generator(seed, "heard", number))
            for number in range(len(self.actors))
        )
        self.dag = LearnedDag(agents, features, hidden, seed) if edges == "learned" else None

    # ---- the graph -------------------------------------------------------------------------------------------------

    def graph(
        self, seen: Float[Tensor, "turns agents features"], noted: Float[Tensor, "turns noted"]
    ) -> tuple[Float[Tensor, "turns agents agents"], Int[Tensor, "turns agents"]]:
        """``G_kj``, and agents in an order in which all parents come before.

        noted: which edges may be, then the noise of a learned graph.
        """
        keep, noise = noted.split([self.agents**2, noted.shape[1] - self.agents**2], 1)
        if self.dag is None:
            fixed = fixed_dag(self.edges, self.agents).to(seen.device)  # type: ignore[arg-type]
            edges, order = fixed.expand(len(seen), -1, -1), torch.arange(self.agents).expand(len(seen), -1)
        else:
            edges, order = self.dag(seen.flatten(1), noise)
        return edges * keep.view(-1, self.agents, self.agents), order

    def _heard(self, x: Experience, read: AgentInputs) -> Float[Tensor, "rows heard"]:
        if read.noted is None or x.action is None:
            raise ValueError("agents that saw each other need what was noted as they acted")
        joint = joint_turns(read, self.agents)
        seen, done = read.observation[joint], nn.functional.one_hot(x.action[joint], self.actions).float()
        edges, _ = self.graph(seen, read.noted[joint[:, 0]])
        told = torch.cat([seen, done], 2)
        heard = (edges.transpose(1, 2).unsqueeze(3) * told.unsqueeze(1)).flatten(2)
        return torch.zeros(len(read.agent), heard.shape[2]).index_put((joint.reshape(-1),), heard.flatten(0, 1))

    def _outputs(
        self,
        number: int,
        seen: Float[Tensor, "rows told"],
        heard: Float[Tensor, "rows heard"],
        turns: Sequences | None = None,
    ) -> Tensor:
        actor = self.actors[number].actor
        outputs: Tensor = actor[1:](actor[0](seen) + self.heard[number](heard))
        return outputs

    # ---- acting ----------------------------------------------------------------------------------------------------

    def acting(self, sampler: Sampler | None = None) -> Acting:
        kept = sampler.dependence if isinstance(sampler, DependentRollouts) else 0.0
        if kept == 0.0 or self.edges == "none":
            alone = super().acting(sampler)
            return lambda frame, noise, memory=None: self._noted(alone(frame, noise, memory), None)
        temperature = 1.0 if sampler is None else sampler.policy_temperature

        def act(frame: Frame, noise: np.random.Generator | None, memory: np.ndarray | None = None, /) -> Acted:
            if noise is None:
                raise ValueError("agents that see each other's actions are only asked to act so in training")
            return self._in_order(frame, temperature, kept, noise)

        return act

    @torch.no_grad()
    def _in_order(self, frame: Frame, temperature: float, kept: float, noise: np.random.Generator) -> Acted:
        """Agents act one after another along the graph, all copies at once."""
        copies, agents = frame.alive.shape
        seen, legal = torch.from_numpy(frame.observation), torch.from_numpy(frame.legal)
        keep = noise.random((copies, agents**2)) < kept
        drawn = noise.gumbel(size=(copies, self._noise))
        noted = np.concatenate([keep, drawn], 1, dtype=np.float32)
        edges, order = self.graph(seen, torch.from_numpy(noted))
        chance = torch.from_numpy(noise.gumbel(size=(copies, agents, self.actions)).astype(np.float32))
        done = torch.zeros(copies, agents, self.actions)
        rows = torch.arange(copies)
        for agent in order.unbind(1):
            heard = (edges[rows, :, agent].unsqueeze(2) * torch.cat([seen, done], 2)).flatten(1)
            told = self._with_agent(seen[rows, agent], agent)
            logits = self._by_member(agent, partial(self._answers, told, heard))["logits"]
            scores = allowed(logits, legal[rows, agent]) / temperature + chance[rows, agent]
            done[rows, agent] = nn.functional.one_hot(scores.argmax(1), self.actions).float()
        return self._noted(Acted(done.argmax(2).numpy()), noted)

    def _answers(self, told: Tensor, heard: Tensor, number: int, rows: Tensor | slice) -> dict[str, Tensor]:
        """The outputs of an actor for these rows."""
        return {"logits": self._outputs(number, told[rows], heard[rows])}

    @property
    def _noise(self) -> int:
        return 0 if self.dag is None else LearnedDag.noise_size(self.agents)

    def _noted(self, acted: Acted, noted: np.ndarray | None) -> Acted:
        """With what there was to note, the same for all agents; without any edge, that none may be."""
        copies, agents = acted.action.shape
        if noted is None:
            noted = np.zeros((copies, agents**2 + self._noise), dtype=np.float32)
        return acted._replace(noted=np.broadcast_to(noted[:, None], (copies, agents, noted.shape[1])))

    # ---- the trainer's contract ------------------------------------------------------------------------------------

    @property
    def members(self) -> Sequence[Policy]:
        """Itself: what draws the graph is everybody's."""
        return (self,)

    def policy_parameters(self) -> Iterator[Tensor]:
        drawing = () if self.dag is None else self.dag.parameters()
        return chain(super().policy_parameters(), self.heard.parameters(), drawing)

    def arguments(self) -> dict[str, Any]:
        """As of all actors and critics, and the edges."""
        return {**super().arguments(), "edges": self.edges}


def _heard_map(inputs: int, outputs: int, source: torch.Generator) -> nn.Linear:
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs, bias=False)
    nn.init.orthogonal_(layer.weight, 1.0, source)
    return layer
