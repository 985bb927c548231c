"""Agents that act by what their actions are worth: utilities of each, mixed to the value of what the team does."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator
from itertools import chain
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from stratagem.control.policy import linear_layers, perceptron
from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.multiagent.episodes import Acted
from stratagem.multiagent.game import Frame, MultiAgentTask
from stratagem.multiagent.inputs import AgentInputs
from stratagem.multiagent.mixers import Mixer, make_mixer
from stratagem.multiagent.policy import Acting, AgentsPolicy, Chances, allowed
from stratagem.multiagent.recurrence import RecurrenceName, Sequences, answers, with_memory
from stratagem.multiagent.stacked import StackedNetworks, carried, masked, told_apart
from stratagem.partition import Partition
from stratagem.parts import Sampler, View
from stratagem.seeding import generator
from stratagem.training.world import check_asked

MixerName = Literal["sum", "monotone"]

SINGLE = "what comes next of single turns is not known; shuffle groups instead"


class ValueAgents(AgentsPolicy):
    """Utilities ``Q_i(o_i, .)`` from one network that is told which agent it is, and a mixer of those that were chosen.

    Agents act greedily by their own utilities; who wants them to explore says so by the sampler
    (:class:`~stratagem.sampling.EpsilonGreedy`). ``logp`` is that of a Boltzmann policy on the utilities, which nobody
    acts by. A target network, a copy that ``begin_batch`` refreshes every ``target_every`` optimizer steps, says what
    later actions are worth.

    mixer: ``sum``, ``monotone``, or None: every agent's value is its own utility.  double: the online utilities choose
    the next actions and the target network judges them; otherwise it does both.  hidden: width of the utilities' two
    hidden layers.  width: of the mixer's.
    recurrence: ``gru`` puts a GRU of ``hidden`` units in the place of the second hidden layer (arXiv 1803.11485). It is
    unrolled over whole trajectories from what was remembered when each began; so is the target's, from the same.

    Raises :class:`InputError` for continuous actions.
    """

    refreshed: Tensor

    kind: ClassVar[str] = "value_agents"
    says: ClassVar[frozenset[str]] = frozenset({"entropy", "value_after", "next_value"})

    def __init__(
        self,
        agents: int,
        features: int,
        state_features: int,
        actions: int,
        continuous: bool = False,
        mixer: MixerName | None = "monotone",
        double: bool = True,
        hidden: int = 64,
        width: int = 32,
        target_every: int = 200,
        seed: int = 0,
        recurrence: RecurrenceName = "none",
    ) -> None:
        super().__init__()
        if continuous:
            raise InputError("agents that act by values need discrete actions; here they are continuous")
        self.agents, self.features, self.state_features = agents, features, state_features
        self.actions, self.continuous = actions, continuous
        self.mixer_name, self.double_q, self.hidden, self.width = mixer, double, hidden, width
        self.target_every = target_every
        self._told = agents if agents > 1 else 0
        self.recurrence_name = recurrence
        self.memory_width = self.acting_width = hidden if recurrence == "gru" else 0
        self.utilities = perceptron(features + self._told, hidden, actions, 0.01, generator(seed, "utilities"))
        if recurrence == "gru":
            one_layer = nn.Sequential(self.utilities[0], self.utilities[1], self.utilities[-1])
            self.utilities = with_memory(one_layer, hidden, generator(seed, "memory"))
        self.mixer: Mixer | None = make_mixer(mixer, agents, state_features, width, seed)
        self.target = nn.ModuleDict({"utilities": copy.deepcopy(self.utilities)})
        if self.mixer is not None:
            self.target["mixer"] = copy.deepcopy(self.mixer)
        self.target.requires_grad_(False)
        self.register_buffer("refreshed", torch.zeros((), dtype=torch.int64))

    @staticmethod
    def for_task(task: MultiAgentTask, **options: Any) -> ValueAgents:
        """Fresh agents for a task. Raises :class:`InputError` for one with continuous actions."""
        sizes = (task.agents, task.features, task.state_features, task.actions, task.continuous)
        return ValueAgents(*sizes, **options)

    # ---- learning --------------------------------------------------------------------------------------------------

    def forward(
        self, x: Experience, *, temperature: float = 1.0, also: Collection[str] = (), view: View | None = None
    ) -> PolicyOutput:
        """``value_after``: the team's value of what it did in the turn, the same for all agents, or each agent's own
        without a mixer; ``next_value``: that of the next turn by the target network, 0 after an end, without gradient.

        Raises ``ValueError`` when a mixer is asked about a batch that lacks agents of an episode.
        """
        check_asked(self, also, view)
        read, action = x.inputs, x.action
        if not isinstance(read, AgentInputs) or action is None:
            raise ValueError(f"agents read AgentInputs and actions, not {type(read).__name__}")
        later = None
        if self.memory_width and "next_value" in also:
            worth, later = self._unrolled(self.utilities, read)
        else:
            worth = self._now(self.utilities, read)
        worth = allowed(worth, read.legal)
        logp = torch.log_softmax(worth / temperature, -1)
        chosen = worth.gather(1, action.unsqueeze(1)).squeeze(1)
        joint = None if self.mixer is None else joint_turns(read, self.agents)
        return PolicyOutput(
            logp.gather(1, action.unsqueeze(1)).squeeze(1),
            entropy=-(logp.exp() * logp).sum(-1) if "entropy" in also else None,
            value_after=_mixed(self.mixer, chosen, read.state, joint) if "value_after" in also else None,
            next_value=self._next_value(x, read, later, joint) if "next_value" in also else None,
        )

    @torch.no_grad()
    def _next_value(
        self, x: Experience, read: AgentInputs, later: Tensor | None, joint: Int[Tensor, "turns agents"] | None
    ) -> Float[Tensor, " tokens"]:
        """What the greedy actions of the next turn are worth. later: its online utilities, where they are known."""
        last = read.lengths.cumsum(0) - 1
        state, legal = (
            following(rows, last, end) for rows, end in ((read.state, read.final_state), (read.legal, read.final_legal))
        )
        judged = choosing = allowed(self._later(self.target["utilities"], read), legal)
        if self.double_q:
            choosing = allowed(self._later(self.utilities, read) if later is None else later, legal)
        best = judged.gather(1, choosing.argmax(1, keepdim=True)).squeeze(1)
        mixer = self.target["mixer"] if self.mixer is not None else None
        value = _mixed(mixer, best, state, joint)
        if x.finished is not None:
            value[last[x.finished]] = 0.0
        return value

    def _now(self, network: Any, read: AgentInputs) -> Float[Tensor, "rows actions"]:
        """The utilities in every turn."""
        turns = None if read.memory is None else Sequences(read.lengths, read.memory)
        return answers(network, self._with_agent(read.observation, read.agent), turns)[0]

    def _later(self, network: Any, read: AgentInputs) -> Float[Tensor, "rows actions"]:
        """The utilities in what every turn is followed by."""
        if self.memory_width:
            return self._unrolled(network, read)[1]
        after = following(read.observation, read.lengths.cumsum(0) - 1, read.final_observation)
        later: Tensor = network(self._with_agent(after, read.agent))
        return later

    def _unrolled(
        self, network: Any, read: AgentInputs
    ) -> tuple[Float[Tensor, "rows actions"], Float[Tensor, "rows actions"]]:
        """Both, of a network with a memory, which reads one turn more: what each trajectory was left with."""
        if read.final_observation is None or read.memory is None:
            raise ValueError(SINGLE)
        trajectory = Partition.from_sizes(read.lengths)
        now = torch.arange(len(read.agent), device=read.agent.device) + trajectory.labels
        end = (read.lengths + 1).cumsum(0) - 1
        seen = self._with_agent(read.observation, read.agent)
        rows = seen.new_empty(len(now) + len(end), seen.shape[1])
        rows[now], rows[end] = seen, self._with_agent(read.final_observation, read.agent[trajectory.first()])
        said = answers(network, rows, Sequences(read.lengths + 1, read.memory))[0]
        return said[now], said[now + 1].detach()

    def _with_agent(self, seen: Float[Tensor, "rows read"], agent: Int[Tensor, " rows"]) -> Float[Tensor, "rows told"]:
        if not self._told:
            return seen
        return torch.cat([seen, nn.functional.one_hot(agent, self.agents).to(seen.dtype)], 1)

    def begin_batch(self, version: int) -> None:
        if version >= int(self.refreshed) + self.target_every:
            for name, network in self.target.items():
                network.load_state_dict(getattr(self, name).state_dict())
            self.refreshed.fill_(version)

    # ---- acting ----------------------------------------------------------------------------------------------------

    def acting(self, sampler: Sampler | None = None) -> Acting:
        best = self._greedy()

        def act(frame: Frame, noise: np.random.Generator | None, memory: np.ndarray | None = None, /) -> Acted:
            action, kept = best(frame.observation, frame.legal, memory)
            remembered = None if kept is None else carried(memory, kept, frame.alive, self.memory_width)
            return Acted(action, memory=remembered)

        return act

    def chances(self) -> Chances:
        self._check_no_memory()
        best = self._greedy()
        return lambda frame: np.eye(self.actions)[best(frame.observation, frame.legal, None)[0]]

    def _greedy(
        self,
    ) -> Callable[[np.ndarray, np.ndarray, np.ndarray | None], tuple[np.ndarray, np.ndarray | None]]:
        """From what agents see, may do and remember to what each thinks best and remembers from then on."""
        network = StackedNetworks([self.utilities])

        def best(
            observation: np.ndarray, legal: np.ndarray, memory: np.ndarray | None
        ) -> tuple[np.ndarray, np.ndarray | None]:
            outputs, kept = network(told_apart(observation, bool(self._told)), memory)
            return masked(outputs, legal).argmax(-1), kept

        return best

    # ---- the trainer's contract ------------------------------------------------------------------------------------

    def policy_parameters(self) -> Iterator[Tensor]:
        mixing = () if self.mixer is None else self.mixer.parameters()
        return chain(self.utilities.parameters(), mixing)

    def critic_parameters(self) -> Iterator[Tensor]:
        return iter(())

    def hidden_matrices(self) -> list[Tensor]:
        return [layer.weight for layer in linear_layers(self.utilities)[1:-1]]

    def arguments(self) -> dict[str, Any]:
        """Sizes, and how values are mixed and judged."""
        own = {"mixer": self.mixer_name, "double": self.double_q, "hidden": self.hidden, "width": self.width}
        remembering = {} if self.recurrence_name == "none" else {"recurrence": self.recurrence_name}
        return {**self.sizes(), **own, "target_every": self.target_every, **remembering}


def joint_turns(read: AgentInputs, agents: int) -> Int[Tensor, "turns agents"]:
    """For every turn of every episode the rows of its agents.

    Raises ``ValueError`` when trajectories are not those of all agents, episode after episode.
    """
    first = read.lengths.cumsum(0) - read.lengths
    whole = len(first) % agents == 0
    numbers = torch.arange(agents, device=first.device)
    if not whole or not bool((read.agent[first].view(-1, agents) == numbers).all()):
        raise ValueError("a mixer needs all agents of an episode side by side; shuffle groups instead")
    lengths = read.lengths.view(-1, agents)
    if not bool((lengths == lengths[:, :1]).all()):
        raise ValueError("a mixer needs as many turns of every agent of an episode")
    turns = lengths[:, 0]
    start = (turns.cumsum(0) - turns).repeat_interleave(turns)
    time = torch.arange(len(start), device=start.device) - start
    return first.view(-1, agents).repeat_interleave(turns, 0) + time[:, None]


def _mixed(
    mixer: Any, utility: Float[Tensor, " rows"], state: Float[Tensor, "rows features"], joint: Tensor | None
) -> Float[Tensor, " rows"]:
    """The value of each row's joint turn, or its own utility without a mixer."""
    if mixer is None or joint is None:
        return utility
    total = mixer(utility[joint], state[joint[:, 0]])
    spread = total.unsqueeze(1).expand(joint.shape).reshape(-1)
    return torch.zeros_like(utility).index_put((joint.reshape(-1),), spread)


def following(
    rows: Shaped[Tensor, "rows ..."], last: Int[Tensor, " trajectories"], end: Shaped[Tensor, "trajectories ..."] | None
) -> Shaped[Tensor, "rows ..."]:
    """What every row is followed by: the next one, and behind the last of a trajectory what it was left with.

    Raises ``ValueError`` where that is gone.
    """
    if end is None:
        raise ValueError(SINGLE)
    after = torch.roll(rows, -1, 0)
    after[last] = end
    return after
