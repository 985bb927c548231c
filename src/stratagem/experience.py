"""The one data structure: a packed batch of tokens, turns, trajectories, groups, domains, and what is known of each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from stratagem.masking import only
from stratagem.partition import Partition

LEVELS = ("token", "turn", "trajectory", "group")


class Inputs(Protocol):
    """What a policy reads to act again on the same batch. Opaque to parts; the policy that wrote it reads it.

    A frozen dataclass of tensors. ``lengths``: positions a forward pass reads for each trajectory.
    """

    @property
    def lengths(self) -> Int[Tensor, " trajectories"]: ...
    def select(self, trajectories: Int[Tensor, " kept"]) -> Self: ...
    def concatenate(self, others: Sequence[Self]) -> Self: ...
    def to(self, device: torch.device | str) -> Self: ...


@dataclass(frozen=True)
class PolicyOutput:
    """What the policy being trained says about the actions of an :class:`Experience`, with gradients.

    logp: log-probability of every action.  entropy: of the distribution each action was drawn from.
    value: the critic's estimate of the return from before each action.  value_after: the same critic's, once the
    action has been read. next_value: what the next turn is worth by a target network, 0 after an end; it has no
    gradient.  median: its estimate of that return's median
    over the actions the policy may take there.
    mean_logp: mean of the log-probabilities of all actions there were, chosen or not.
    log_probs: the log-probabilities of all actions there were; a row of the vocabulary for every token.
    direction: mean direction, a unit vector, of the distribution a latent was drawn from; 0 at other tokens.
    experts: those that a mixture of experts was routed to for each action; it has no gradient.

    Without gradients, of the last layer, whose logits are ``W h``: hidden, what it read (``h``, over the temperature),
    and hidden_square, ``|h|^2``. score_square: ``|v|^2`` with ``v = onehot(action) - pi``. score_variance: variance of
    ``v`` under ``pi``. confidence: mean probability of the five likeliest tokens. top_id: the action and the tokens
    that were likeliest beside it; top_probability: theirs, adding up to 1.

    action_values: what every action there was is worth, chosen or not; it has no gradient.

    Of agents with a latent code: code_logp, of an action that was drawn anew, its log-probability with the agent's own
    code and, in further columns, with codes drawn anew; task_logp, how likely what the agent saw and a code make the
    game it was in.

    embedding: what a head of its own makes of all that was read once the action has been (a view asks for it).

    Without gradients, what a small head may read: before, of the state an action was taken in; after, of that state and
    the action. Either features, or the row of a table for a policy to which no two states are alike.
    """

    logp: Float[Tensor, " tokens"]
    entropy: Float[Tensor, " tokens"] | None = None
    value: Float[Tensor, " tokens"] | None = None
    median: Float[Tensor, " tokens"] | None = None
    mean_logp: Float[Tensor, " tokens"] | None = None
    direction: Float[Tensor, "tokens dims"] | None = None
    experts: Int[Tensor, "tokens ..."] | None = None
    hidden: Float[Tensor, "tokens width"] | None = None
    hidden_square: Float[Tensor, " tokens"] | None = None
    score_square: Float[Tensor, " tokens"] | None = None
    score_variance: Float[Tensor, " tokens"] | None = None
    confidence: Float[Tensor, " tokens"] | None = None
    top_id: Int[Tensor, "tokens few"] | None = None
    top_probability: Float[Tensor, "tokens few"] | None = None
    before: Shaped[Tensor, "tokens ..."] | None = None
    after: Shaped[Tensor, "tokens ..."] | None = None
    log_probs: Float[Tensor, "tokens vocabulary"] | None = None
    value_after: Float[Tensor, " tokens"] | None = None
    embedding: Float[Tensor, "tokens dims"] | None = None
    next_value: Float[Tensor, " tokens"] | None = None
    action_values: Float[Tensor, "tokens vocabulary"] | None = None
    code_logp: Float[Tensor, "tokens drawn"] | None = None
    task_logp: Float[Tensor, " tokens"] | None = None

    def where(self, mask: Bool[Tensor, " tokens"], names: Collection[str] | None = None) -> PolicyOutput:
        """The same output with 0 outside ``mask``, where whatever it holds (-inf, NaN) then reaches no gradient.

        names: of the figures changed; None: all but the experts.
        """
        chosen = vars(self).keys() - {"experts"} if names is None else vars(self).keys() & names
        outputs = {name: value for name in chosen if (value := getattr(self, name)) is not None}
        return dataclasses.replace(self, **{name: only(mask, value) for name, value in outputs.items()})


@dataclass(frozen=True)
class Loss:
    """A scalar to minimise and named figures that, like it, add up over micro-batches of one batch."""

    loss: Float[Tensor, ""]
    metrics: Mapping[str, Tensor] = field(default_factory=dict)


def _at(level: str) -> Any:
    return field(default=None, metadata={"level": level})


@dataclass(frozen=True, eq=False)
class Experience:
    """A batch of episodes, packed: one row per action token in flat tensors, no padding.

    Tokens belong to turns, turns to trajectories, trajectories to groups (same prompt or start state), groups to
    domains. Only what the policy did has rows; what it read is in ``inputs``. A control action is one token in one
    turn, a bandit pull a trajectory of one turn. Fields are None until somebody asks for them.

    Per token: ``action`` (index [tokens] or vector [tokens, dims]; where both kinds mix, an index is the first number
    of a row of zeros); ``behavior_logp``, ``old_logp``, ``previous_logp``, ``ref_logp`` (log-probability under the
    policy that sampled it, the policy the update starts from, the one the update before started from, the frozen
    reference); ``past_logp`` (under the policies that the updates 1, 2, ... before started from, [tokens, past]);
    ``ref_direction`` (mean direction of a latent under the frozen reference, [tokens, dims]);
    ``ref_log_probs`` (log-probabilities of all actions under the frozen reference, [tokens, vocabulary]);
    ``old_mean_logp`` (mean log-probability of all actions under the policy the update starts from); ``entropy`` and
    ``value`` at sampling time; ``confidence`` (mean probability of the five likeliest tokens, at sampling time);
    ``token_reward``; ``mask`` (False: excluded from learning); ``critic_mask`` (where the critic learns, when not where
    ``mask`` says); ``version`` (of the weights that sampled it); ``version_logp`` (log-probability under the training
    engine with those weights, where whoever sampled has noted it); ``experts`` (that a mixture of experts was routed
    to, -1: no record); ``advantage``; ``value_target``; ``target`` (the ratio an objective pulls towards, when it has
    one); ``latent`` (True: the action is a vector and no token); ``span`` (which part of a structured turn a token
    belongs to, by the numbers of :class:`stratagem.spans.Span`; -1: to none);
    ``planning`` (True: the token is of a phrase that plans, and carries nothing out);
    ``step_start`` (True: a step of the response begins with this token; one always begins with a turn).
    Per turn: ``turn_reward``; ``turn_state`` (key of the state acted in); ``turn_role``; ``turn_context`` (number
    of the conversation it was acted in: those of a trajectory know nothing of each other); ``turn_done``;
    ``turn_duration`` (steps of time that what was decided in it took, at least 1; None: one each); ``turn_call``
    (1: the tool call it made was carried out, 0: it failed, -1: it made none);
    ``turn_well_formed`` (False: what was said in it broke the task's format);
    ``turn_observation_length`` (tokens read before acting); ``segment_start`` (True: a new segment of the trajectory
    begins with this turn; one always begins with the first turn); ``usual_entropy`` (mean token entropy in turns of
    this number over batches, 0 where there is none to be held against); ``turn_executed`` (False: the environment could
    not carry the action out); and what estimators say (:mod:`stratagem.estimators`): ``turn_progress`` (what the turn
    contributed to the return), ``turn_value`` and ``turn_action_value`` [turns, critics] (what is to come before it
    acted, and once it had).
    Per trajectory: ``reward`` [trajectories, names] with ``reward_names`` and ``reward_weights``; ``success``;
    ``finished`` (ended in a terminal state); ``truncated`` (cut by a limit); ``running`` (True: of the truncated ones,
    those whose episode goes on in a later batch; None: of no trajectory); ``final_value`` (critic's value of the state
    in which a truncated trajectory was left); ``episode`` (its number in the run); ``demonstrated`` (True: by the
    task's solver, not by a policy); ``resampled`` (True: sampled under a perturbed prompt, and learned from as if under
    the group's own); ``seed`` (from which a part draws what it leaves to chance; it follows from the run's seed and
    from nothing the policy did); ``answer`` (key of the final answer: equal answers have equal keys, -1 where none can
    be read); ``taken_over`` (tokens at its beginning that another trajectory wrote, from which it branched off, or a
    reference solution, which it goes on with); ``prompt_confidence`` (geometric mean probability of the prompt's least
    likely tokens under the policy the update starts from, in [0, 1]; NaN where a prompt has no token to say it of);
    ``reading`` (what parts that read text say of it, [trajectories, readers, places], with their names in ``readers``;
    NaN: nothing); ``reading_place`` (its place in the group as they read it: :mod:`stratagem.readings`).
    Per group: ``task_id`` (which prompt or start state); ``domain``; ``branch`` (round of forking it came about in: 0
    for episodes from a start); ``pass_rate`` (share of its rollouts that succeeded, demonstrations aside, whatever part
    of the group is looked at later).

    Of the batch as a whole: ``learning_rate``, at which the optimizer will step on it.

    ``old_logp`` and ``old_mean_logp`` may stay None while the policy has not moved since sampling; parts then use the
    current ones, detached.

    A micro-batch is a piece of a ``whole``: normalisers look at the whole, so that a loss does not depend on how the
    batch was cut.
    """

    turn_of_token: Partition
    trajectory_of_turn: Partition
    group_of_trajectory: Partition
    domain_of_group: Partition

    action: Shaped[Tensor, "tokens ..."] | None = _at("token")
    behavior_logp: Float[Tensor, " tokens"] | None = _at("token")
    old_logp: Float[Tensor, " tokens"] | None = _at("token")
    previous_logp: Float[Tensor, " tokens"] | None = _at("token")
    past_logp: Float[Tensor, "tokens past"] | None = _at("token")
    ref_logp: Float[Tensor, " tokens"] | None = _at("token")
    ref_direction: Float[Tensor, "tokens dims"] | None = _at("token")
    ref_log_probs: Float[Tensor, "tokens vocabulary"] | None = _at("token")
    old_mean_logp: Float[Tensor, " tokens"] | None = _at("token")
    entropy: Float[Tensor, " tokens"] | None = _at("token")
    value: Float[Tensor, " tokens"] | None = _at("token")
    confidence: Float[Tensor, " tokens"] | None = _at("token")
    token_reward: Float[Tensor, " tokens"] | None = _at("token")
    mask: Bool[Tensor, " tokens"] | None = _at("token")
    critic_mask: Bool[Tensor, " tokens"] | None = _at("token")
    version: Int[Tensor, " tokens"] | None = _at("token")
    version_logp: Float[Tensor, " tokens"] | None = _at("token")
    experts: Int[Tensor, "tokens ..."] | None = _at("token")
    advantage: Float[Tensor, " tokens"] | None = _at("token")
    value_target: Float[Tensor, " tokens"] | None = _at("token")
    latent: Bool[Tensor, " tokens"] | None = _at("token")
    span: Int[Tensor, " tokens"] | None = _at("token")
    planning: Bool[Tensor, " tokens"] | None = _at("token")
    step_start: Bool[Tensor, " tokens"] | None = _at("token")
    target: Float[Tensor, " tokens"] | None = _at("token")

    turn_reward: Float[Tensor, " turns"] | None = _at("turn")
    turn_state: Int[Tensor, " turns"] | None = _at("turn")
    turn_role: Int[Tensor, " turns"] | None = _at("turn")
    turn_context: Int[Tensor, " turns"] | None = _at("turn")
    turn_done: Bool[Tensor, " turns"] | None = _at("turn")
    turn_duration: Int[Tensor, " turns"] | None = _at("turn")
    turn_call: Int[Tensor, " turns"] | None = _at("turn")
    turn_well_formed: Bool[Tensor, " turns"] | None = _at("turn")
    turn_observation_length: Int[Tensor, " turns"] | None = _at("turn")
    segment_start: Bool[Tensor, " turns"] | None = _at("turn")
    usual_entropy: Float[Tensor, " turns"] | None = _at("turn")
    turn_executed: Bool[Tensor, " turns"] | None = _at("turn")
    turn_progress: Float[Tensor, " turns"] | None = _at("turn")
    turn_value: Float[Tensor, "turns critics"] | None = _at("turn")
    turn_action_value: Float[Tensor, "turns critics"] | None = _at("turn")

    reward: Float[Tensor, "trajectories names"] | None = _at("trajectory")
    success: Bool[Tensor, " trajectories"] | None = _at("trajectory")
    finished: Bool[Tensor, " trajectories"] | None = _at("trajectory")
    truncated: Bool[Tensor, " trajectories"] | None = _at("trajectory")
    running: Bool[Tensor, " trajectories"] | None = _at("trajectory")
    final_value: Float[Tensor, " trajectories"] | None = _at("trajectory")
    episode: Int[Tensor, " trajectories"] | None = _at("trajectory")
    demonstrated: Bool[Tensor, " trajectories"] | None = _at("trajectory")
    resampled: Bool[Tensor, " trajectories"] | None = _at("trajectory")
    seed: Int[Tensor, " trajectories"] | None = _at("trajectory")
    answer: Int[Tensor, " trajectories"] | None = _at("trajectory")
    taken_over: Int[Tensor, " trajectories"] | None = _at("trajectory")
    prompt_confidence: Float[Tensor, " trajectories"] | None = _at("trajectory")
    reading: Float[Tensor, "trajectories readers places"] | None = _at("trajectory")
    reading_place: Int[Tensor, " trajectories"] | None = _at("trajectory")

    task_id: Int[Tensor, " groups"] | None = _at("group")
    pass_rate: Float[Tensor, " groups"] | None = _at("group")
    domain: Int[Tensor, " groups"] | None = _at("group")
    branch: Int[Tensor, " groups"] | None = _at("group")

    reward_names: tuple[str, ...] = ("reward",)
    reward_weights: tuple[float, ...] = (1.0,)
    readers: tuple[str, ...] = ()
    learning_rate: float | None = None
    inputs: Inputs | None = None
    parent: tuple[Experience, Int[Tensor, " tokens"]] | None = None

    def __post_init__(self) -> None:
        if len(self.trajectory_of_turn) != self.turn_of_token.count:
            raise ValueError(
                f"{self.turn_of_token.count} turns of tokens, {len(self.trajectory_of_turn)} in trajectories"
            )
        if len(self.group_of_trajectory) != self.trajectory_of_turn.count:
            raise ValueError(
                f"{self.trajectory_of_turn.count} trajectories of turns, {len(self.group_of_trajectory)} in groups"
            )
        if len(self.domain_of_group) != self.group_of_trajectory.count:
            raise ValueError(
                f"{self.group_of_trajectory.count} groups of trajectories, {len(self.domain_of_group)} in domains"
            )
        for name, partition in (("turn_of_token", self.turn_of_token), ("trajectory_of_turn", self.trajectory_of_turn)):
            if not partition.is_sorted():
                raise ValueError(f"{name} must be in order: a batch is packed, turn after turn")
        if self.reward is not None and self.reward.ndim == 1:
            object.__setattr__(self, "reward", self.reward.unsqueeze(1))
        for name, level in _FIELD_LEVELS.items():
            value = getattr(self, name)
            if value is not None and len(value) != self._rows(level):
                raise ValueError(f"{name} needs one row per {level}: {self._rows(level)}, got {len(value)}")
            if value is not None and name in _FLAGS and value.dtype != torch.bool:
                raise ValueError(f"{name} must be of bool, got {value.dtype}")
            if value is not None and name in _REWARDS and not value.is_floating_point():
                object.__setattr__(self, name, value.float())
        if self.reward is not None:
            columns = self.reward.shape[1]
            if len(self.reward_names) != columns or len(self.reward_weights) != columns:
                raise ValueError(
                    f"reward has {columns} columns, but names {self.reward_names} and weights {self.reward_weights}"
                )

    # ---- building -------------------------------------------------------------------------------------------------

    @classmethod
    def from_lengths(
        cls,
        tokens_per_turn: Int[Tensor, " turns"] | Sequence[int],
        turns_per_trajectory: Int[Tensor, " trajectories"] | Sequence[int],
        trajectories_per_group: Int[Tensor, " groups"] | Sequence[int],
        groups_per_domain: Int[Tensor, " domains"] | Sequence[int] | None = None,
        **fields: Any,
    ) -> Experience:
        """A batch from the sizes of its levels; ``fields`` are tensors or lists (rewards become floats, flags bool).

        ``groups_per_domain`` defaults to one domain. ``reward`` may be [trajectories]; several reward columns get the
        names ``reward_0, reward_1, ...`` and weight 1 unless ``reward_names`` and ``reward_weights`` are given.
        """
        groups = Partition.from_sizes(trajectories_per_group)
        for name, value in fields.items():
            if name in _FIELD_LEVELS and not isinstance(value, Tensor) and value is not None:
                fields[name] = torch.as_tensor(value, dtype=torch.bool if name in _FLAGS else None)
        reward = fields.get("reward")
        if reward is not None and reward.ndim == 2 and reward.shape[1] != 1:
            columns = reward.shape[1]
            fields.setdefault("reward_names", tuple(f"reward_{column}" for column in range(columns)))
            fields.setdefault("reward_weights", (1.0,) * columns)
        return cls(
            turn_of_token=Partition.from_sizes(tokens_per_turn),
            trajectory_of_turn=Partition.from_sizes(turns_per_trajectory),
            group_of_trajectory=groups,
            domain_of_group=Partition.from_sizes([groups.count] if groups_per_domain is None else groups_per_domain),
            **fields,
        )

    def replace(self, **changes: Any) -> Experience:
        """The same batch with some fields changed."""
        changed = dataclasses.replace(self, **changes)
        if not changes.keys() & _PARTITIONS:
            changed.__dict__.update({name: self.__dict__[name] for name in _COMPOSED if name in self.__dict__})
        return changed

    # ---- levels ---------------------------------------------------------------------------------------------------

    @property
    def tokens(self) -> int:
        """Number of action tokens."""
        return len(self.turn_of_token)

    @property
    def turns(self) -> int:
        """Number of turns."""
        return self.turn_of_token.count

    @property
    def trajectories(self) -> int:
        """Number of trajectories."""
        return self.trajectory_of_turn.count

    @property
    def groups(self) -> int:
        """Number of groups."""
        return self.group_of_trajectory.count

    @property
    def trajectory_of_token(self) -> Partition:
        """Tokens by trajectory."""
        return self._composed("trajectory_of_token", self.turn_of_token, self.trajectory_of_turn)

    @property
    def group_of_turn(self) -> Partition:
        """Turns by group."""
        return self._composed("group_of_turn", self.trajectory_of_turn, self.group_of_trajectory)

    @property
    def group_of_token(self) -> Partition:
        """Tokens by group."""
        return self._composed("group_of_token", self.trajectory_of_token, self.group_of_trajectory)

    @property
    def domain_of_token(self) -> Partition:
        """Tokens by domain."""
        return self._composed("domain_of_token", self.group_of_token, self.domain_of_group)

    @property
    def domain_of_trajectory(self) -> Partition:
        """Trajectories by domain."""
        return self._composed("domain_of_trajectory", self.group_of_trajectory, self.domain_of_group)

    @property
    def role_of_turn(self) -> Int[Tensor, " turns"]:
        """``turn_role``; 0 where none is noted."""
        return self._nought_per_turn if self.turn_role is None else self.turn_role

    @property
    def context_of_turn(self) -> Int[Tensor, " turns"]:
        """``turn_context``; 0 where none is noted, since a trajectory is then one conversation."""
        return self._nought_per_turn if self.turn_context is None else self.turn_context

    @property
    def _nought_per_turn(self) -> Int[Tensor, " turns"]:
        return torch.zeros(self.turns, dtype=torch.int64, device=self.device)

    @property
    def segment_of_turn(self) -> Partition:
        """Turns by segment: runs of turns of one trajectory, each from a ``segment_start`` to the next."""
        starts = torch.zeros(self.turns, dtype=torch.bool, device=self.device)
        starts[self.trajectory_of_turn.first()] = True
        if self.segment_start is not None:
            starts = starts | self.segment_start
        begin = torch.nonzero(starts).squeeze(1)
        return Partition.from_sizes(torch.diff(begin, append=begin.new_tensor([self.turns])))

    def level_of_token(self, level: str) -> Partition:
        """Tokens by ``token`` (each for itself), ``turn``, ``trajectory``, ``group``, ``domain`` or ``batch``."""
        if level == "token":
            return Partition.from_sizes(torch.ones(self.tokens, dtype=torch.int64, device=self.device))
        if level == "batch":
            return Partition.whole(self.tokens, self.device)
        partition: Partition = getattr(self, f"{level}_of_token")
        return partition

    @property
    def device(self) -> torch.device:
        """Where the batch lives."""
        return self.turn_of_token.labels.device

    # ---- rewards --------------------------------------------------------------------------------------------------

    @property
    def returns(self) -> Float[Tensor, " trajectories"]:
        """Weighted sum of the reward columns; without ``reward``, the sum of the turn rewards."""
        if self.reward is not None:
            # A matrix product may round equal rows differently, and a group of equal returns must have no spread.
            weights = torch.tensor(self.reward_weights, dtype=self.reward.dtype, device=self.device)
            return (self.reward * weights).sum(1)
        if self.turn_reward is not None:
            return self.trajectory_of_turn.sum(self.turn_reward)
        raise ValueError("this experience has neither reward nor turn_reward")

    def turn_rewards(self) -> Float[Tensor, " turns"]:
        """Rewards by turn that add up to ``returns``: ``turn_reward``, and what it lacks on each last turn."""
        earned = torch.zeros(self.turns, device=self.device) if self.turn_reward is None else self.turn_reward
        if self.reward is None:
            return earned
        lacking = self.returns - self.trajectory_of_turn.sum(earned)
        topped = earned.clone()
        topped[self.trajectory_of_turn.last()] += lacking[self.trajectory_of_turn.size() > 0].to(topped.dtype)
        return topped

    def token_rewards(self) -> Float[Tensor, " tokens"]:
        """Rewards by token: each turn's on its last token, plus ``token_reward``.

        Without ``token_reward`` they add up to ``returns``: what a turn without tokens earned goes to the last token
        of its trajectory.
        """
        turn_rewards = self.turn_rewards()
        rewards = turn_rewards.new_zeros(self.tokens)
        filled = self.turn_of_token.size() > 0
        rewards[self.turn_of_token.last()] = turn_rewards[filled]
        unplaced = self.trajectory_of_turn.sum(torch.where(filled, 0.0, turn_rewards)).to(rewards.dtype)
        by_trajectory = self.trajectory_of_token
        rewards[by_trajectory.last()] += unplaced[by_trajectory.size() > 0]
        return rewards if self.token_reward is None else rewards + self.token_reward

    def named_reward(self, name: str) -> Float[Tensor, " trajectories"] | None:
        """The reward column of this name, unweighted; None where the task has none."""
        if self.reward is None or name not in self.reward_names:
            return None
        return self.reward[:, self.reward_names.index(name)]

    def discounted_returns(self, discount: float = 1.0) -> Float[Tensor, " turns"]:
        """Discounted reward from each turn to the end of its trajectory, ``G_u = r_u + discount^{tau_u} G_{u+1}``.

        ``tau`` is ``turn_duration``, 1 where none is noted.
        """
        return self.trajectory_of_turn.discounted_scan(self.turn_rewards(), self.turn_discounts(discount))

    def turn_discounts(self, discount: float) -> float | Float[Tensor, " turns"]:
        """``discount ** turn_duration``: how much what follows each turn counts; one number without durations."""
        if self.turn_duration is None:
            return discount
        return discount ** self.turn_duration.to(torch.get_default_dtype())

    def token_discounts(self, discount: float) -> float | Float[Tensor, " tokens"]:
        """``discount`` at every token, at the last one of a turn that of the whole turn (:meth:`turn_discounts`)."""
        of_turns = self.turn_discounts(discount)
        if isinstance(of_turns, float | int):
            return of_turns
        filled = self.turn_of_token.size() > 0
        return of_turns.new_full((self.tokens,), discount).index_copy_(0, self.turn_of_token.last(), of_turns[filled])

    # ---- between levels -------------------------------------------------------------------------------------------

    def to_tokens(
        self,
        token: Float[Tensor, " tokens"] | None = None,
        turn: Float[Tensor, " turns"] | None = None,
        trajectory: Float[Tensor, " trajectories"] | None = None,
        group: Float[Tensor, " groups"] | None = None,
    ) -> Float[Tensor, " tokens"]:
        """Sum of the given values, each handed down to the tokens of its level."""
        parts = []
        if token is not None:
            parts.append(token)
        if turn is not None:
            parts.append(self.turn_of_token.spread(turn))
        if trajectory is not None:
            parts.append(self.trajectory_of_token.spread(trajectory))
        if group is not None:
            parts.append(self.group_of_token.spread(group))
        if not parts:
            raise ValueError("to_tokens needs at least one of token=, turn=, trajectory=, group=")
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total

    def learnable(self) -> Bool[Tensor, " tokens"]:
        """Tokens that may train: ``mask``, or all of them."""
        return torch.ones(self.tokens, dtype=torch.bool, device=self.device) if self.mask is None else self.mask

    def blanked(self, names: Collection[str] | None = None) -> Experience:
        """The same batch with 0 for the figures of tokens that may not train: -inf or NaN there poisons nothing.

        A factor of 0 is not enough: in a derivative, 0 times NaN is NaN again.

        names: of the figures changed; None: all of them.
        """
        mask = self.mask
        if mask is None:
            return self
        figures = {name: getattr(self, name) for name in _FIGURES if names is None or name in names}
        return self.replace(**{name: only(mask, v) for name, v in figures.items() if v is not None})

    def of_learnable(self, values: Float[Tensor, " tokens"]) -> Float[Tensor, " tokens"]:
        """Values of the tokens that may train, and 0 for the others whatever they hold."""
        return values if self.mask is None else only(self.mask, values)

    @property
    def learnable_tokens(self) -> Int[Tensor, ""]:
        """Number of tokens that may train."""
        return self.remembered("learnable_tokens", lambda: torch.count_nonzero(self.learnable()))

    # ---- demonstrations -------------------------------------------------------------------------------------------

    def played(self) -> Bool[Tensor, " trajectories"]:
        """Trajectories that a policy played: all but demonstrations."""
        if self.demonstrated is None:
            return torch.ones(self.trajectories, dtype=torch.bool, device=self.device)
        return ~self.demonstrated

    def with_demonstrations(self, shown: Experience, group: Int[Tensor, " shown"]) -> Experience:
        """This batch with further trajectories, each last in the group of that number, marked ``demonstrated``.

        ``shown`` has the fields that this batch has; those of groups stay as they are.
        """
        marked = [
            piece.replace(demonstrated=torch.full((piece.trajectories,), flag, device=piece.device))
            for piece, flag in ((self, False), (shown, True))
        ]
        return marked[0].with_others(marked[1], group)

    def with_others(self, others: Experience, group: Int[Tensor, " others"]) -> Experience:
        """This batch with further trajectories, each last in the group of that number.

        ``others`` has the fields that this batch has; those of groups stay as they are.
        """
        together = self._followed_by(others, group)
        return together.select(together.group_of_trajectory.labels.argsort(stable=True))

    def with_instead(self, rows: Int[Tensor, " others"], others: Experience) -> Experience:
        """This batch with the trajectories of ``others`` in the places of those of these numbers, in their groups.

        ``others`` has the fields that this batch has; those of groups stay as they are.
        """
        together = self._followed_by(others, self.group_of_trajectory.labels[rows])
        order = torch.arange(self.trajectories, device=self.device)
        order[rows] = self.trajectories + torch.arange(len(rows), device=self.device)
        return together.select(order)

    def _followed_by(self, others: Experience, group: Int[Tensor, " others"]) -> Experience:
        """This batch with further trajectories behind it, each in the group of that number; groups stay as they are."""
        labels = torch.cat([self.group_of_trajectory.labels, group])
        of_groups = {name: getattr(self, name) for name, level in _FIELD_LEVELS.items() if level == "group"}
        return Experience.concatenate([self, others]).replace(
            group_of_trajectory=Partition(labels, self.groups), domain_of_group=self.domain_of_group, **of_groups
        )

    # ---- pieces ---------------------------------------------------------------------------------------------------

    def select(self, trajectories: Int[Tensor, " kept"] | Bool[Tensor, " trajectories"]) -> Experience:
        """The batch of these trajectories, in this order; groups that lose all of theirs are gone."""
        kept = _numbers(trajectories)
        turns, trajectory_of_turn = self.trajectory_of_turn.pick(kept)
        tokens, turn_of_token = self.turn_of_token.pick(turns)
        groups, kept_groups = self.group_of_trajectory.select(kept).compact()
        rows = {"token": tokens, "turn": turns, "trajectory": kept, "group": kept_groups}
        fields = {
            name: getattr(self, name)[rows[level]]
            for name, level in _FIELD_LEVELS.items()
            if getattr(self, name) is not None
        }
        return dataclasses.replace(
            self,
            turn_of_token=turn_of_token,
            trajectory_of_turn=trajectory_of_turn,
            group_of_trajectory=groups,
            domain_of_group=self.domain_of_group.select(kept_groups),
            inputs=None if self.inputs is None else self.inputs.select(kept),
            parent=None,
            **fields,
        )

    def by_turn(self) -> Experience:
        """Every turn as a trajectory of its own, in its old group and with what was known of its old trajectory.

        So that mini-batches mix turns once credit is given: ``reward`` is still that of the whole trajectory. Raises
        ``ValueError`` when the inputs cannot be taken apart, since the policy remembers earlier turns.
        """
        inputs = self.inputs
        if inputs is not None:
            if not hasattr(inputs, "by_turn"):
                raise ValueError(f"{type(inputs).__name__} cannot be taken apart by turn; shuffle trajectories instead")
            inputs = inputs.by_turn()
        known = {name: getattr(self, name) for name, level in _FIELD_LEVELS.items() if level == "trajectory"}
        return self.replace(
            trajectory_of_turn=Partition.singletons(self.turns, self.device),
            group_of_trajectory=self.group_of_turn,
            inputs=inputs,
            parent=None,
            **{name: self.trajectory_of_turn.spread(value) for name, value in known.items() if value is not None},
        )

    def of_role(self, role: int, roles: int) -> tuple[Experience, Int[Tensor, " tokens"]]:
        """The turns of one of several roles as a batch of their own, with what they earned, and which tokens they have.

        Trajectories and groups stay as they are, if with fewer turns or none; their reward is what these turns earned.
        Roles from ``roles`` on count as the last one; so do all turns of a batch without ``turn_role``. There are no
        inputs, since a policy may have read what others said.
        """
        acting = torch.full((self.turns,), roles - 1, device=self.device) if self.turn_role is None else self.turn_role
        turns = torch.nonzero(acting.clamp(max=roles - 1) == role).squeeze(1)
        tokens, turn_of_token = self.turn_of_token.pick(turns)
        rows = {"token": tokens, "turn": turns}
        known = {
            name: value[rows[level]]
            for name, level in _FIELD_LEVELS.items()
            if level in rows and (value := getattr(self, name)) is not None
        }
        earned = self.turn_rewards()[turns]
        trajectory = Partition(self.trajectory_of_turn.labels[turns], self.trajectories)
        own = self.replace(
            turn_of_token=turn_of_token,
            trajectory_of_turn=trajectory,
            inputs=None,
            parent=None,
            reward=trajectory.sum(earned),
            reward_names=("reward",),
            reward_weights=(1.0,),
            **{**known, "turn_reward": earned},
        )
        return own, tokens

    def microbatch(self, trajectories: Int[Tensor, " kept"] | Bool[Tensor, " trajectories"]) -> Experience:
        """Like :meth:`select`, remembering the ``whole`` it is a piece of."""
        whole, rows = self.parent if self.parent is not None else (self, None)
        tokens = self.turn_of_token.pick(self.trajectory_of_turn.pick(_numbers(trajectories))[0])[0]
        return self.select(trajectories).replace(parent=(whole, tokens if rows is None else rows[tokens]))

    @property
    def whole(self) -> Experience:
        """The batch this is a micro-batch of; itself otherwise."""
        return self if self.parent is None else self.parent[0]

    def remembered(self, key: Hashable, compute: Callable[[], Tensor]) -> Tensor:
        """What ``compute`` returned when first asked for under this key: every micro-batch asks its whole the same."""
        memory: dict[Hashable, Tensor] = self.__dict__.setdefault("_memory", {})
        if key not in memory:
            memory[key] = compute()
        return memory[key]

    def masked(self, mask: Bool[Tensor, " tokens"], name: Hashable) -> Experience:
        """The same batch in which only tokens of ``mask`` may still train; for a micro-batch, of a whole masked alike.

        ``mask`` is over the tokens of the whole; ``name`` tells it from other masks of the same batch.
        """

        def narrowed(whole: Experience) -> Experience:
            critic = None if whole.critic_mask is None else whole.critic_mask & mask
            return whole.replace(mask=whole.learnable() & mask, critic_mask=critic)

        return self._seen(("masked", name), narrowed)

    def for_critic(self) -> Experience:
        """The same batch as a critic learns from it: with ``critic_mask``, where it has one, as its ``mask``."""
        if self.critic_mask is None:
            return self
        return self._seen("for_critic", lambda whole: whole.replace(mask=whole.critic_mask, critic_mask=None))

    def _seen(self, name: Hashable, change: Callable[[Experience], Experience]) -> Experience:
        """The same batch with its whole's masks changed, so that all pieces of a whole share one changed whole."""
        whole = self.whole
        views: dict[Hashable, Experience] = whole.__dict__.setdefault("_views", {})
        if name not in views:
            views[name] = change(whole)
        seen = views[name]
        if self.parent is None:
            return seen
        masks = {key: getattr(seen, key) for key in ("mask", "critic_mask")}
        pieces = {key: None if mask is None else self.piece_of(mask) for key, mask in masks.items()}
        return self.replace(**pieces, parent=(seen, self.parent[1]))

    def piece_of(self, values: Tensor) -> Tensor:
        """The rows of this micro-batch out of a tensor over the tokens of the whole."""
        return values if self.parent is None else values[self.parent[1]]

    @classmethod
    def concatenate(cls, pieces: Sequence[Experience]) -> Experience:
        """Several batches as one. Fields must be set in all pieces or in none; domains are matched by number."""
        first = pieces[0]
        names = {piece.reward_names for piece in pieces} | {piece.reward_weights for piece in pieces}
        if len(names) != 2:
            raise ValueError(f"cannot concatenate batches with different rewards: {sorted(map(str, names))}")
        if any(piece.readers != first.readers for piece in pieces):
            raise ValueError("cannot concatenate batches that different parts have read")
        fields: dict[str, Tensor | None] = {}
        for name in _FIELD_LEVELS:
            values = [getattr(piece, name) for piece in pieces]
            present = [value for value in values if value is not None]
            if present and len(present) != len(values):
                raise ValueError(f"cannot concatenate: {name} is set in {len(present)} of {len(values)} batches")
            fields[name] = torch.cat(_padded(present) if name == "reading" else present) if present else None
        inputs = [piece.inputs for piece in pieces if piece.inputs is not None]
        if inputs and len(inputs) != len(pieces):
            raise ValueError(f"cannot concatenate: inputs is set in {len(inputs)} of {len(pieces)} batches")
        domains = Partition(
            torch.cat([piece.domain_of_group.labels for piece in pieces]),
            max(piece.domain_of_group.count for piece in pieces),
        )
        return cls(
            turn_of_token=Partition.concatenate([piece.turn_of_token for piece in pieces]),
            trajectory_of_turn=Partition.concatenate([piece.trajectory_of_turn for piece in pieces]),
            group_of_trajectory=Partition.concatenate([piece.group_of_trajectory for piece in pieces]),
            domain_of_group=domains,
            reward_names=first.reward_names,
            reward_weights=first.reward_weights,
            readers=first.readers,
            inputs=inputs[0].concatenate(inputs[1:]) if inputs else None,
            **fields,  # type: ignore[arg-type]
        )

    def to(self, device: torch.device | str) -> Experience:
        """The same batch on another device."""
        moved: dict[str, Any] = {
            name: getattr(self, name).to(device) for name in _FIELD_LEVELS if getattr(self, name) is not None
        }
        for name in ("turn_of_token", "trajectory_of_turn", "group_of_trajectory", "domain_of_group"):
            moved[name] = getattr(self, name).to(device)
        if self.inputs is not None:
            moved["inputs"] = self.inputs.to(device)
        if self.parent is not None:
            moved["parent"] = (self.parent[0].to(device), self.parent[1].to(device))
        return dataclasses.replace(self, **moved)

    def missing(self, names: Iterable[str]) -> list[str]:
        """Which of these fields are not set."""
        return sorted(name for name in names if getattr(self, name) is None)

    # ---- helpers --------------------------------------------------------------------------------------------------

    def _rows(self, level: str) -> int:
        return {"token": self.tokens, "turn": self.turns, "trajectory": self.trajectories, "group": self.groups}[level]

    def _composed(self, name: str, fine: Partition, coarse: Partition) -> Partition:
        cache = self.__dict__
        if name not in cache:
            cache[name] = fine.then(coarse)
        composed: Partition = cache[name]
        return composed


def _numbers(rows: Tensor) -> Int[Tensor, " kept"]:
    """Row numbers from row numbers or from a mask."""
    return torch.nonzero(rows).squeeze(1) if rows.dtype == torch.bool else rows


def _padded(readings: Sequence[Tensor]) -> list[Tensor]:
    """With NaN for places that groups of other batches have."""
    places = max(reading.shape[2] for reading in readings)
    return [torch.nn.functional.pad(one, (0, places - one.shape[2]), value=torch.nan) for one in readings]


_FIELD_LEVELS: dict[str, str] = {
    entry.name: entry.metadata["level"] for entry in dataclasses.fields(Experience) if "level" in entry.metadata
}
_FIGURES = (
    "behavior_logp",
    "version_logp",
    "old_logp",
    "previous_logp",
    "past_logp",
    "ref_logp",
    "ref_direction",
    "ref_log_probs",
    "old_mean_logp",
    "entropy",
    "value",
    "confidence",
    "advantage",
    "value_target",
    "target",
)
_FLAGS = frozenset(
    {
        "mask",
        "critic_mask",
        "latent",
        "planning",
        "step_start",
        "turn_done",
        "turn_executed",
        "turn_well_formed",
        "segment_start",
        "success",
        "finished",
        "truncated",
        "running",
        "demonstrated",
        "resampled",
    }
)
_REWARDS = frozenset({"token_reward", "turn_reward", "reward"})
_PARTITIONS = frozenset({"turn_of_token", "trajectory_of_turn", "group_of_trajectory", "domain_of_group"})
_COMPOSED = ("trajectory_of_token", "group_of_turn", "group_of_token", "domain_of_token", "domain_of_trajectory")
