"""Episodes as they are played and as they are learned from: lists while they grow, one packed Experience at the end."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from numbers import Integral, Real
from typing import Any

import torch

from stratagem.experience import Experience
from stratagem.language.inputs import TokenInputs
from stratagem.language.plans import PlanReader
from stratagem.language.similar import first_similar
from stratagem.partition import Partition
from stratagem.tasks.task import Observation, Step


@dataclass
class Turn:
    """One action of an episode. ``logp`` is None when the policy did not sample it (a demonstration).

    version: of the weights that sampled it.  versions: of each token, when that was not one and the same request.
    ran: whether its tool call was carried out; None: it made none.
    """

    observation: Observation
    read: list[int]
    action: list[int]
    logp: list[float] | None
    text: str
    version: int = 0
    reward: float = 0.0
    done: bool = False
    executed: bool = True
    versions: list[int] | None = None
    ran: bool | None = None
    well_formed: bool = True


@dataclass
class Episode:
    """One conversation with an environment.

    index: which start state of the task.  sample: which of its group.  seed: of everything sampled in it.
    failure: why it is of no use (the environment raised or did not answer in time); None for a good one.
    truncated: cut by a limit (turns, tokens, or the environment's own).
    answer: key of the final answer, -1 while there is none.
    group: number of its group in the run, None where that is the start state's.
    start: by which the batch knows where it began; None: the number of the start state.
    earlier: attempts of other episodes behind which it begins, as text.
    """

    index: int
    sample: int
    seed: int
    turns: list[Turn] = field(default_factory=list)
    components: dict[str, float] = field(default_factory=dict)
    success: bool = False
    truncated: bool = False
    failure: str | None = None
    answer: int = -1
    group: int | None = None
    start: int | None = None
    earlier: tuple[str, ...] = ()

    @property
    def reward(self) -> float:
        """Sum of the turn rewards."""
        return sum(turn.reward for turn in self.turns)

    @property
    def length(self) -> int:
        """Tokens the policy sampled."""
        return sum(len(turn.action) for turn in self.turns)

    def record(self, step: Step) -> None:
        """Enter what the last action led to."""
        turn = self.turns[-1]
        turn.reward, turn.done = float(step.reward), step.done
        turn.executed, turn.well_formed = bool(step.executed), bool(step.well_formed)
        turn.ran = step.ran
        if step.turn_rewards is not None:
            for turn, reward in zip(self.turns, step.turn_rewards, strict=True):
                turn.reward = float(reward)
        for name, value in step.components.items():
            self.components[name] = self.components.get(name, 0.0) + float(value)
        if step.done:
            self.success, self.truncated = step.success, step.truncated

    def transcript(self) -> dict[str, Any]:
        """The episode as a person reads it."""
        messages: list[dict[str, Any]] = []
        several = len({turn.observation.context for turn in self.turns}) > 1
        for turn in self.turns:
            where = {"context": turn.observation.context} if several else {}
            messages.append({"role": "user", "content": turn.observation.text, **where})
            messages.append({"role": "assistant", "content": turn.text, "reward": turn.reward, **where})
        outcome = {"reward": self.reward, "success": self.success, "truncated": self.truncated}
        return {"episode": self.index, "sample": self.sample, **outcome, "failure": self.failure, "messages": messages}


def observation_fault(observation: Any) -> str | None:
    """What is wrong with what an environment shows; None when a policy can read it."""
    if not isinstance(observation, Observation):
        return f"returned {type(observation).__name__} instead of an Observation"
    text: Any = observation.text
    if not isinstance(text, str):
        return f"the observation's text is {type(text).__name__}"
    for name in ("state_key", "role", "context"):
        number: Any = getattr(observation, name)
        if not isinstance(number, Integral) or not -(2**63) <= int(number) < 2**63:
            return f"the observation's {name} {number!r} is not a signed 64-bit integer"
    messages: Any = observation.opening
    if not isinstance(messages, tuple) or not all(map(_is_message, messages)):
        return "the observation's opening is not a tuple of messages with role and content"
    return None


def _is_message(message: Any) -> bool:
    return (
        isinstance(message, Mapping)
        and message.keys() == {"role", "content"}
        and all(isinstance(text, str) for text in message.values())
    )


def step_fault(step: Any, reward_names: Sequence[str], turns: int) -> str | None:
    """What is wrong with what an environment answered to an episode's last action; None for a good step.

    turns: of the episode so far.
    """
    if not isinstance(step, Step):
        return f"returned {type(step).__name__} instead of a Step"
    components: Any = step.components
    if not isinstance(components, Mapping):
        return f"the step's components are {type(components).__name__} instead of a mapping"
    unknown = [name for name in components if name not in reward_names[1:]]
    if unknown:
        return f"reward component {unknown[0]!r} is not among the task's reward_names"
    restated: Any = () if step.turn_rewards is None else step.turn_rewards
    if not isinstance(restated, Sequence) or isinstance(restated, str):
        return f"the step's turn_rewards are {type(restated).__name__} instead of a sequence"
    if step.turn_rewards is not None and len(restated) != turns:
        return f"the step's turn_rewards are {len(restated)}, one for each of {turns} turns is needed"
    ran: Any = step.ran
    if ran is not None and not isinstance(ran, bool):
        return f"the step's ran is {ran!r}, neither a bool nor None"
    well_formed: Any = step.well_formed
    if not isinstance(well_formed, bool):
        return f"the step's well_formed is {type(well_formed).__name__} instead of a bool"
    for value in (step.reward, *components.values(), *restated):
        if not isinstance(value, Real) or not math.isfinite(value):
            return f"reward {value!r} is not a finite number"
    return observation_fault(step.observation)


def to_experience(
    groups: Sequence[Sequence[Episode]],
    reward_names: tuple[str, ...],
    most_samples: int,
    reward_weights: tuple[float, ...] | None = None,
    *,
    similar_states: float | None = None,
    plans: PlanReader | None = None,
    domain: Callable[[int], int] | None = None,
) -> Experience:
    """Pack groups of finished episodes; rows are the tokens the policy sampled (or a demonstrator wrote).

    Every group needs at least one episode and every episode at least one turn. ``behavior_logp`` is set when all
    actions were sampled, and so is ``seed``. ``episode`` numbers are ``group * most_samples + sample``. ``span`` and
    ``segment_start`` are set when there is someone who reads ``plans``.

    similar_states: see :class:`stratagem.sampling.Rollouts`.  domain: number of the domain of a start state; None: all
    are of one.
    """
    episodes = list(chain.from_iterable(groups))
    turns = [turn for episode in episodes for turn in episode.turns]
    sampled = all(turn.logp is not None for turn in turns)
    components = [[e.reward, *(e.components.get(name, 0.0) for name in reward_names[1:])] for e in episodes]
    action_lengths = [len(turn.action) for turn in turns]
    read_lengths = [len(turn.read) for turn in turns]
    x = Experience.from_lengths(
        tokens_per_turn=action_lengths,
        turns_per_trajectory=[len(episode.turns) for episode in episodes],
        trajectories_per_group=[len(group) for group in groups],
        action=_flat((turn.action for turn in turns), torch.int64),
        behavior_logp=_flat((turn.logp or [] for turn in turns), torch.float32) if sampled else None,
        version=_flat((turn.versions or [turn.version] * len(turn.action) for turn in turns), torch.int64),
        turn_reward=torch.tensor([turn.reward for turn in turns]),
        turn_state=torch.tensor([*chain.from_iterable(_states(g, similar_states) for g in groups)], dtype=torch.int64),
        turn_role=torch.tensor([turn.observation.role for turn in turns], dtype=torch.int64),
        turn_context=torch.tensor([turn.observation.context for turn in turns], dtype=torch.int64),
        turn_done=torch.tensor([turn.done for turn in turns]),
        turn_call=torch.tensor([-1 if turn.ran is None else int(turn.ran) for turn in turns], dtype=torch.int64),
        turn_executed=torch.tensor([turn.executed for turn in turns]),
        turn_well_formed=torch.tensor([turn.well_formed for turn in turns]),
        turn_observation_length=torch.tensor(read_lengths, dtype=torch.int64),
        reward=torch.tensor(components),
        reward_names=reward_names,
        reward_weights=(1.0,) * len(reward_names) if reward_weights is None else reward_weights,
        success=torch.tensor([episode.success for episode in episodes]),
        finished=torch.tensor([not episode.truncated for episode in episodes]),
        truncated=torch.tensor([episode.truncated for episode in episodes]),
        episode=torch.tensor([_group(e) * most_samples + e.sample for e in episodes], dtype=torch.int64),
        seed=torch.tensor([e.seed for e in episodes], dtype=torch.int64) if sampled else None,
        answer=torch.tensor([e.answer for e in episodes], dtype=torch.int64),
        task_id=torch.tensor([_start(group[0]) for group in groups], dtype=torch.int64),
        inputs=_inputs(episodes),
        **({} if plans is None else _planned(episodes, plans)),
    )
    if domain is None:
        return x
    domains = torch.tensor([domain(group[0].index) for group in groups], dtype=torch.int64)
    return x.replace(domain_of_group=Partition(domains, int(domains.max()) + 1))


def _states(group: Sequence[Episode], similar: float | None) -> list[int]:
    """Key of the state of every turn of a group: its own, or that of the first turn with a similar text."""
    seen = [turn.observation for episode in group for turn in episode.turns]
    keys = [observation.state_key for observation in seen]
    if similar is None:
        return keys
    return [keys[place] for place in first_similar((observation.text for observation in seen), similar)]


def _planned(episodes: Sequence[Episode], plans: PlanReader) -> dict[str, torch.Tensor]:
    read = [plans(episode.index, turn.action) for episode in episodes for turn in episode.turns]
    return {
        "span": _flat((spans for spans, _ in read), torch.int64),
        "segment_start": torch.tensor([switches for _, switches in read], dtype=torch.bool),
    }


def _start(episode: Episode) -> int:
    return episode.index if episode.start is None else episode.start


def _group(episode: Episode) -> int:
    return episode.index if episode.group is None else episode.group


def _inputs(episodes: Sequence[Episode]) -> TokenInputs:
    """Conversation after conversation, those of an episode in the order in which they were opened."""
    tokens, lengths, contexts, positions = list[int](), list[int](), list[int](), list[int]()
    for episode in episodes:
        conversations: dict[int, list[Turn]] = {}
        for turn in episode.turns:
            conversations.setdefault(turn.observation.context, []).append(turn)
        begun, places = len(tokens), dict[int, int]()
        for turns in conversations.values():
            opened = len(tokens)
            for turn in turns:
                tokens += turn.read
                places[id(turn)] = len(tokens)
                tokens += turn.action
            contexts.append(len(tokens) - opened)
        lengths.append(len(tokens) - begun)
        for turn in episode.turns:
            positions += range(places[id(turn)], places[id(turn)] + len(turn.action))
    return TokenInputs(
        token_ids=torch.tensor(tokens, dtype=torch.int64),
        lengths=torch.tensor(lengths, dtype=torch.int64),
        action_positions=torch.tensor(positions, dtype=torch.int64),
        context_lengths=torch.tensor(contexts, dtype=torch.int64) if len(contexts) > len(lengths) else None,
    )


def _flat(pieces: Iterable[Sequence[float]], dtype: torch.dtype) -> torch.Tensor:
    return torch.tensor(list(chain.from_iterable(pieces)), dtype=dtype)
