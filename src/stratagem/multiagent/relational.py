"""Agents of which each attends to others as a latent code says: one set of policies for games of any number of them."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Sequence
from itertools import chain
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from stratagem.control.policy import linear_layers, perceptron
from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.multiagent.episodes import Acted
from stratagem.multiagent.fronts import Messages
from stratagem.multiagent.game import Frame, MultiAgentTask
from stratagem.multiagent.inputs import AgentInputs
from stratagem.multiagent.policy import Acting, AgentsPolicy, Chances, allowed
from stratagem.multiagent.relations import Relation, TaskEncoder, attended
from stratagem.multiagent.values import following, joint_turns
from stratagem.parts import Sampler, View
from stratagem.seeding import generator
from stratagem.training.world import check_asked

Credit = Literal["team", "own"]


class RelationalAgents(AgentsPolicy):
    """``pi(a | o_i, z_i)``: an actor that all agents share reads what relations make of others (arXiv 2108.12988).

    ``z_i`` is one of ``codes`` latent codes. An agent draws it as an episode begins, with the probabilities the task
    encoder gives for the number of agents, and keeps it; evaluated greedily it takes the likeliest. The code picks the
    head of :class:`~stratagem.multiagent.relations.Relation` by which the agent attends, and the actor reads what it
    sees of itself beside the features ``f_i``. Nothing depends on how many agents there are, so this is the same policy
    for any number whose observations fit. Where agents die, the number is that of those who live.

    A critic says ``Q_i(o, a_-i, .)``: it reads what the agent sees, and of every other agent what that one sees of
    itself and does, as a sum of messages. Actor, relations and critic have targets, which ``begin_batch`` refreshes
    every ``target_every`` optimizer steps. It learns by a temporal difference to ``Q' - temperature log pi'``, and the
    actor by :class:`~stratagem.objectives.SoftImprovement` at the same temperature.

    others: form of an observation: numbers an agent sees of itself, others there may be, numbers of each in the order
    of agents, of which the first is 1 where one is seen.  populations: numbers of agents in the games the predictor is
    to tell apart.  credit: ``team``: values are those of the team, the mean over all places of agents, 0 for one that
    is not alive; ``own``: of each agent.  resamples: codes drawn to estimate the information of an action.
    temperature: of the entropy in later values.  hidden: width of the hidden layers of actor and critic.  heads: width
    of a head.  width: of features and messages.

    Raises :class:`InputError` for continuous actions and observations that are not of this form.
    """

    refreshed: Tensor
    chosen: Tensor

    kind: ClassVar[str] = "relational_agents"
    says: ClassVar[frozenset[str]] = frozenset(
        {"entropy", "log_probs", "action_values", "value_after", "next_value", "code_logp", "task_logp"}
    )
    any_number = True
    memory_width = acting_width = 1

    def __init__(
        self,
        agents: int,
        features: int,
        state_features: int,
        actions: int,
        continuous: bool = False,
        others: Sequence[int] = (),
        populations: Sequence[int] = (),
        codes: int = 6,
        credit: Credit = "own",
        resamples: int = 5,
        temperature: float = 1 / 30,
        hidden: int = 64,
        heads: int = 16,
        width: int = 64,
        target_every: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if continuous:
            raise InputError("agents that attend by latent codes need discrete actions; here they are continuous")
        self.agents, self.features, self.state_features = agents, features, state_features
        self.actions, self.continuous = actions, continuous
        self.others, self.populations = tuple(others), tuple(populations)
        own, most, numbers = self.others
        if own + most * numbers != features:
            raise InputError(f"observations of {features} numbers are not {own} and {most} times {numbers}")
        self.codes, self.credit, self.resamples, self.temperature = codes, credit, resamples, temperature
        self.hidden, self.heads, self.width, self.target_every = hidden, heads, width, target_every
        self.relation = Relation(own, numbers, codes, heads, width, seed)
        self.actor = perceptron(own + width, hidden, actions, 0.01, generator(seed, "actor"))
        messages = Messages((own, most, numbers + own + actions), width, generator(seed, "critic", "messages"))
        judging = perceptron(messages.outputs, hidden, actions, 1.0, generator(seed, "critic"))
        self.critic = nn.Sequential(messages, *judging)
        self.encoder = TaskEncoder(codes, seed)
        self.predictor = perceptron(width + codes, hidden, len(self.populations), 1.0, generator(seed, "predictor"))
        learned = {"relation": self.relation, "actor": self.actor, "critic": self.critic}
        self.target = nn.ModuleDict(copy.deepcopy(learned)).requires_grad_(False)
        self.register_buffer("refreshed", torch.zeros((), dtype=torch.int64))
        self.register_buffer("chosen", torch.full((), -1, dtype=torch.int64))

    @staticmethod
    def for_task(task: MultiAgentTask, **options: Any) -> RelationalAgents:
        """Fresh agents for a task. Raises :class:`InputError` for one in which agents do not see others row by row."""
        form = getattr(task, "others", None)
        if form is None:
            raise InputError(f"task {task.name}: its observations have no row for every other agent, as relations need")
        sizes = (task.agents, task.features, task.state_features, task.actions, task.continuous)
        populations = getattr(task, "populations", (task.agents,))
        return RelationalAgents(*sizes, others=form, populations=populations, **options)

    # ---- codes -----------------------------------------------------------------------------------------------------

    def code_logp(self, agents: Float[Tensor, " rows"]) -> Float[Tensor, "rows codes"]:
        """How likely codes are with so many agents."""
        logp: Tensor = self.encoder(agents)
        return logp

    def choose(self, code: int | None) -> None:
        """From now on let all agents of all games act with this code, or with what the encoder says.

        Raises :class:`InputError` for a code there is not.
        """
        if code is not None and not 0 <= code < self.codes:
            raise InputError(f"code {code}: must be 0 to {self.codes - 1}")
        self.chosen.fill_(-1 if code is None else code)

    @torch.no_grad()
    def drawn_codes(
        self, alive: Bool[np.ndarray, "copies agents"], noise: np.random.Generator | None
    ) -> Int[Tensor, "copies agents"]:
        """Codes for agents whose episode begins: drawn, or without noise the likeliest; or the one chosen for all."""
        if int(self.chosen) >= 0:
            return self.chosen.expand(alive.shape)
        likely = self.code_logp(torch.from_numpy(alive.sum(1)).float()).exp()
        if noise is None:
            return likely.argmax(1, keepdim=True).expand(alive.shape)
        beyond = torch.from_numpy(noise.random(alive.shape)).unsqueeze(2) >= likely.cumsum(1).unsqueeze(1)
        return beyond.sum(2).clamp(max=self.codes - 1)

    # ---- acting ----------------------------------------------------------------------------------------------------

    def acting(self, sampler: Sampler | None = None) -> Acting:
        temperature = 1.0 if sampler is None else sampler.policy_temperature

        def act(frame: Frame, noise: np.random.Generator | None, memory: np.ndarray | None = None, /) -> Acted:
            code = self._codes(frame.alive, noise, memory)
            logp = self._log_likely(frame, code, temperature).numpy()
            action = (logp if noise is None else logp + noise.gumbel(size=logp.shape)).argmax(-1)
            number = np.broadcast_to(frame.alive.sum(1, keepdims=True), code.shape)
            noted = np.stack([code.numpy(), number], -1).astype(np.float32)
            return Acted(action, noted=noted, memory=noted[..., :1] + 1)

        return act

    def _codes(
        self, alive: Bool[np.ndarray, "copies agents"], noise: np.random.Generator | None, memory: np.ndarray | None
    ) -> Int[Tensor, "copies agents"]:
        """The codes that agents remember, as numbers from 1 on, and drawn ones where an episode begins."""
        held = torch.zeros(alive.shape, dtype=torch.int64)
        if memory is not None:
            held = torch.from_numpy(memory[..., 0]).long()
        if bool((held > 0).all()):
            return held - 1
        return torch.where(held > 0, held - 1, self.drawn_codes(alive, noise))

    def chances(self) -> Chances:
        """Of agents that have the likeliest codes."""

        def said(frame: Frame) -> np.ndarray:
            likely: np.ndarray = self._log_likely(frame, self.drawn_codes(frame.alive, None), 1.0).exp().numpy()
            return likely

        return said

    @torch.no_grad()
    def _log_likely(
        self, frame: Frame, code: Int[Tensor, "copies agents"], temperature: float
    ) -> Float[Tensor, "copies agents actions"]:
        seen, legal = torch.from_numpy(frame.observation).flatten(0, 1), torch.from_numpy(frame.legal).flatten(0, 1)
        likely = _likely(self.actor, self._seen(self.relation, seen), code.flatten(), legal, temperature)
        return likely.view(*code.shape, -1)

    # ---- learning --------------------------------------------------------------------------------------------------

    def forward(
        self, x: Experience, *, temperature: float = 1.0, also: Collection[str] = (), view: View | None = None
    ) -> PolicyOutput:
        """Log-probability of every action given the code its agent had, and ``also`` what ``says`` lists.

        ``value_after`` and ``next_value`` are the team's, or each agent's (``credit``); ``action_values`` are each
        agent's own, the others' actions drawn from the policy. ``code_logp`` has a gradient to key and query of the
        relations alone, ``task_logp`` to encoder and predictor alone. What is drawn is drawn from torch's generator.

        Raises ``ValueError`` when a value is asked for of a batch that lacks agents of an episode.
        """
        check_asked(self, also, view)
        read, action = x.inputs, x.action
        if not isinstance(read, AgentInputs) or action is None:
            raise ValueError(f"agents read AgentInputs and actions, not {type(read).__name__}")
        if read.noted is None:
            raise ValueError("agents with latent codes need what was noted as they acted")
        code, number = read.noted[:, 0].long(), read.noted[:, 1]
        seen = self._seen(self.relation, read.observation)
        likely = _likely(self.actor, seen, code, read.legal, temperature)
        says: dict[str, Tensor] = {}
        if "entropy" in also:
            says["entropy"] = -(likely.exp() * likely).sum(-1)
        if "log_probs" in also:
            says["log_probs"] = likely
        if {"action_values", "value_after", "next_value"} & set(also):
            says |= self._values(x, read, likely.detach(), also)
        if "code_logp" in also:
            says["code_logp"] = self._by_code(seen, likely.detach(), code, number, read.legal, temperature)
        if "task_logp" in also:
            says["task_logp"] = self._task(seen, number)
        return PolicyOutput(_at(likely, action), **says)

    def _seen(self, relation: Any, observation: Float[Tensor, "rows features"]) -> _Seen:
        own, others = self._parts(observation)
        return _Seen(own, others[..., 0], relation.weights(own, others), relation.value(others))

    def _parts(self, observation: Float[Tensor, "rows features"]) -> tuple[Tensor, Tensor]:
        own, most, numbers = self.others
        return observation[:, :own], observation[:, own:].unflatten(1, (most, numbers))

    # ---- what actions are worth ------------------------------------------------------------------------------------

    def _values(self, x: Experience, read: AgentInputs, likely: Tensor, also: Collection[str]) -> dict[str, Tensor]:
        assert x.action is not None
        joint = joint_turns(read, int(read.agent.max()) + 1 if len(read.agent) else 1)
        alive = torch.ones_like(read.agent, dtype=torch.bool) if x.mask is None else x.mask
        says: dict[str, Tensor] = {}
        if "value_after" in also:
            worth = self._judged(self.critic, read.observation, x.action, joint)
            says["value_after"] = self._credited(_at(worth, x.action), alive, joint)
        with torch.no_grad():
            if "action_values" in also:
                drawn = torch.multinomial(likely.exp(), 1).squeeze(1)
                says["action_values"] = self._judged(self.critic, read.observation, drawn, joint)
            if "next_value" in also:
                says["next_value"] = self._next_value(x, read, alive, joint)
        return says

    def _next_value(
        self, x: Experience, read: AgentInputs, alive: Tensor, joint: Int[Tensor, "turns agents"]
    ) -> Float[Tensor, " rows"]:
        """``sum_a pi'(a) (Q'(a) - temperature log pi'(a))`` in the next turn, others' actions drawn from ``pi'``."""
        assert read.noted is not None, "forward() sees to it"
        last = read.lengths.cumsum(0) - 1
        seen = following(read.observation, last, read.final_observation)
        legal = following(read.legal, last, read.final_legal)
        still = following(alive, last, alive[last] if x.finished is None else alive[last] & ~x.finished)
        target = self.target
        likely = _likely(target["actor"], self._seen(target["relation"], seen), read.noted[:, 0].long(), legal, 1.0)
        chance = likely.exp()
        worth = self._judged(target["critic"], seen, torch.multinomial(chance, 1).squeeze(1), joint)
        return self._credited((chance * (worth - self.temperature * likely)).sum(1), still, joint)

    def _judged(
        self, critic: Any, observation: Tensor, action: Tensor, joint: Int[Tensor, "turns agents"]
    ) -> Float[Tensor, "rows actions"]:
        """``Q_i(o, a_-i, .)``."""
        own, others = self._parts(observation)
        told = torch.cat([own, nn.functional.one_hot(action, self.actions).to(own.dtype)], 1)
        most, agents = others.shape[1], joint.shape[1]
        if agents - 1 > most:
            raise ValueError(f"{agents} agents, of whom each sees at most {most} others")
        # Row k of agent i is of agent k, or k + 1 from i on.
        number = torch.arange(agents - 1)
        whom = number + (number >= torch.arange(agents)[:, None]).long()
        told_of = told.new_zeros(len(told), most, told.shape[1])
        told_of[joint.flatten(), : agents - 1] = told[joint][:, whom].flatten(0, 1)
        rows = torch.cat([others, told_of], 2).flatten(1)
        worth: Tensor = critic(torch.cat([own, rows], 1))
        return worth

    def _credited(
        self, value: Float[Tensor, " rows"], alive: Bool[Tensor, " rows"], joint: Int[Tensor, "turns agents"]
    ) -> Float[Tensor, " rows"]:
        """Of each agent, or the mean over the places of its team."""
        value = value * alive
        if self.credit == "own":
            return value
        team = value[joint].mean(1, keepdim=True).expand(joint.shape)
        return torch.zeros_like(value).index_put((joint.flatten(),), team.flatten())

    # ---- what codes say --------------------------------------------------------------------------------------------

    def _by_code(
        self, seen: _Seen, likely: Tensor, code: Tensor, number: Tensor, legal: Tensor, temperature: float
    ) -> Float[Tensor, "rows drawn"]:
        """``log pi(a | o, z)`` of an action drawn with the agent's code, and with codes drawn from the encoder's."""
        action = torch.multinomial(likely.exp(), 1).squeeze(1)
        prior = self.code_logp(number).detach().exp()
        drawn = torch.multinomial(prior, self.resamples, replacement=True)
        features = attended(seen.weights, seen.values.detach())
        read = torch.cat([seen.own.unsqueeze(1).expand(-1, self.codes, -1), features], 2)
        held = {name: weight.detach() for name, weight in self.actor.named_parameters()}
        logits = torch.func.functional_call(self.actor, held, (read,))
        by_code = torch.log_softmax(allowed(logits, legal.unsqueeze(1).expand_as(logits)) / temperature, -1)
        of_action = by_code.gather(2, action.view(-1, 1, 1).expand(-1, self.codes, 1)).squeeze(2)
        return of_action.gather(1, torch.cat([code.unsqueeze(1), drawn], 1))

    def _task(self, seen: _Seen, number: Tensor) -> Float[Tensor, " rows"]:
        """``sum_z e(z | n) log p(n | mean_j v(o_ij), z)``; 0 for a number that is not among ``populations``."""
        alike = seen.there / seen.there.sum(1, keepdim=True).clamp(min=1)
        features = attended(alike.unsqueeze(1), seen.values).detach().expand(-1, self.codes, -1)
        codes = torch.eye(self.codes).expand(len(number), -1, -1)
        said = torch.log_softmax(self.predictor(torch.cat([features, codes], 2)), -1)
        same = number.unsqueeze(1) == torch.tensor(self.populations)
        return (self.code_logp(number).exp() * (said * same.unsqueeze(1)).sum(2)).sum(1)

    def begin_batch(self, version: int) -> None:
        if version >= int(self.refreshed) + self.target_every:
            for name, network in self.target.items():
                network.load_state_dict(getattr(self, name).state_dict())
            self.refreshed.fill_(version)

    # ---- the trainer's contract ------------------------------------------------------------------------------------

    def relation_parameters(self) -> Iterator[Tensor]:
        """What the code decides: whom agents attend to."""
        return chain(self.relation.key.parameters(), self.relation.query.parameters())

    def policy_parameters(self) -> Iterator[Tensor]:
        own = (self.relation, self.actor, self.encoder, self.predictor)
        return chain.from_iterable(network.parameters() for network in own)

    def critic_parameters(self) -> Iterator[Tensor]:
        return self.critic.parameters()

    def hidden_matrices(self) -> list[Tensor]:
        return [layer.weight for layer in linear_layers(self.actor)[1:-1]]

    def arguments(self) -> dict[str, Any]:
        """Sizes, the form of observations, the games it is for, codes, and how values are learned."""
        names = ("codes", "credit", "resamples", "temperature", "hidden", "heads", "width", "target_every")
        own = {name: getattr(self, name) for name in names}
        return {**self.sizes(), "others": list(self.others), "populations": list(self.populations), **own}

    def design(self) -> dict[str, Any]:
        return {name: value for name, value in super().design().items() if name != "populations"}


class _Seen(NamedTuple):
    """What relations make of observations: ``rel`` of every head, and ``v`` of the others.

    own: what agents see of themselves.  there: 1 for others that they see.
    """

    own: Float[Tensor, "rows own"]
    there: Float[Tensor, "rows others"]
    weights: Float[Tensor, "rows codes others"]
    values: Float[Tensor, "rows others outputs"]


def _likely(
    actor: Any, seen: _Seen, code: Int[Tensor, " rows"], legal: Bool[Tensor, "rows actions"], temperature: float
) -> Float[Tensor, "rows actions"]:
    """Log-probabilities of all actions of agents with these codes."""
    weights = seen.weights[torch.arange(len(code)), code]
    features = attended(weights.unsqueeze(1), seen.values).squeeze(1)
    return torch.log_softmax(allowed(actor(torch.cat([seen.own, features], 1)), legal) / temperature, -1)


def _at(rows: Float[Tensor, "rows actions"], action: Int[Tensor, " rows"]) -> Float[Tensor, " rows"]:
    return rows.gather(1, action.unsqueeze(1)).squeeze(1)
