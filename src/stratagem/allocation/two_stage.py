"""Learning to allocate in two stages: actors and critics of both, from replayed transitions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Le
from jaxtyping import Float
from torch import Tensor

from stratagem.allocation.field import Field
from stratagem.allocation.instances import Instances
from stratagem.allocation.networks import Mixing, Scores
from stratagem.allocation.policy import Columns, Decided, Order, Shape, TwoStagePolicy
from stratagem.allocation.tasks import AllocationTask
from stratagem.allocation.transitions import TransitionBuffer
from stratagem.catalogue import paper
from stratagem.seeding import derive, generator
from stratagem.validation import validate_fields

Entropy = Literal["standard", "released"]
Weighing = Literal["expected", "chosen"]


@paper(
    "2407.00496",
    title="A Two-stage Reinforcement Learning-based Approach for Multi-entity Task Allocation",
    family="games",
    roles=("policy", "objective", "solver", "environment"),
    year=2024,
    name="two_stage_allocation",
)
@dataclass(frozen=True)
class TwoStageAllocation:
    """Entities choose a task in parallel by similarity of attributes, then each task picks among its volunteers.

    First stage, a bandit of one step: with ``p_i(k)`` the chance that entity ``i`` chooses task ``k``, and ``q_ik`` a
    critic, ``Q`` mixes one value of each entity (:class:`AttentionMixer`). The critic learns
    ``(Q(q_i,chosen) - R)^2``, ``R`` what all picks brought; the actor descends on
    ``-Q'(sum_k p_i(k) q'_ik) - entropy_weight H``, ``'`` meaning slow copies and ``H`` the entropy of all choices
    together, which is the sum over free entities. Second stage, a task picks one
    volunteer ``i`` at a time: reward ``-c_i``, and the task's value with the pick that meets its demands. The critic
    learns ``r + discount (sum_j p_j q'_j + entropy_weight H)``, the actor descends on
    ``-sum_j p_j q'_j - entropy_weight H``.

    learning_rate: of Adam, for all networks.  buffer: transitions of each stage.  least: of them before learning.
    batch: transitions of an update.  updates: of each stage after every round of decisions.  slowness: share by which
    slow copies move.
    scores, mixing, pre_assign, order: of the policy (:class:`Shape`); others than the first are ablations. Without the
    first stage there is nothing to mix.
    sampled: whether the policy acts at random when it is used, as the released code does there too; otherwise it takes
    the likeliest choices and picks.
    entropy: ``standard`` is ``-sum_k p log p`` of an entity. ``released``: the code multiplies the sums instead,
    ``-(sum_k p) (sum_k log p)``, which is least where the standard one is most and grows without bound; open tasks
    alone are summed.
    weighing: what the actor weighs by its chances: ``expected``, the values of all tasks, or ``chosen``, as in the
    released code, that of the task alone that was chosen when the transition was made.
    standardize: whether attributes get mean 0 and deviation 1, which the released code leaves out.

    Defaults are those of the code released with arXiv 2407.00496, which learns after every decision (32 transitions)
    and every pick (that one alone), here a batch for both. With a learning rate of 1e-5 small tasks need hundreds of
    thousands of updates. Raises :class:`InputError` for a value out of range.
    """

    hidden: Annotated[int, Ge(1)] = 64
    learning_rate: Annotated[float, Gt(0)] = 1e-5
    buffer: Annotated[int, Ge(1)] = 1000
    least: Annotated[int, Ge(1)] = 100
    batch: Annotated[int, Ge(1)] = 32
    updates: Annotated[int, Ge(0)] = 1
    discount: Annotated[float, Ge(0), Le(1)] = 0.98
    entropy_weight: Annotated[float, Ge(0)] = 0.01
    slowness: Annotated[float, Gt(0), Le(1)] = 0.005
    scores: Scores = "similarity"
    mixing: Mixing = "attention"
    pre_assign: bool = True
    order: Order = "listed"
    sampled: bool = False
    entropy: Entropy = "standard"
    weighing: Weighing = "expected"
    standardize: bool = True

    def __post_init__(self) -> None:
        validate_fields(self, "two_stage_allocation")

    def policy(self, task: AllocationTask, seed: int) -> TwoStagePolicy:
        """A fresh policy for instances of this task, of any size."""
        places = 2 if task.placed else 0
        width = 1 + task.kinds + places
        made = (self.scores, self.mixing, self.pre_assign, self.order, self.sampled)
        shape = Shape(width, width, self.hidden, *made)
        policy = TwoStagePolicy(shape, derive(seed, "policy"))
        if self.standardize:
            policy.standardize(task, derive(seed, "scale"))
        return policy

    def train(
        self,
        task: AllocationTask,
        decisions: int,
        seed: int,
        at_once: int = 32,
        progress: Callable[[int, Mapping[str, float]], None] = lambda decided, figures: None,
    ) -> TwoStagePolicy:
        """A policy that has made at least so many decisions on the task, ``at_once`` side by side.

        A decision is an instance in which somebody is free and something open. progress: called after every round with
        their number and what the updates said.
        """
        learner = Learner(self, self.policy(task, seed), seed)
        field = Field(task, at_once, derive(seed, "field"))
        decided = rounds = 0
        while decided < decisions:
            if field.done:
                field.restart()
            can = field.instances.free.any(1) & field.instances.open.any(1)
            said = learner.policy.decide(field.instances, generator(seed, "act", rounds), record=True)
            learner.remember(field.instances, said)
            field.step(said.allocation)
            figures = learner.learn(rounds)
            decided, rounds = decided + int(can.sum()), rounds + 1
            progress(decided, figures)
        return learner.policy


class Learner:
    """A policy that learns, its slow copy, and the transitions of both stages."""

    def __init__(self, technique: TwoStageAllocation, policy: TwoStagePolicy, seed: int) -> None:
        self.technique, self.policy, self.seed = technique, policy, seed
        self.slow = policy.copy()
        self.optimizer = torch.optim.Adam(policy.parameters(), technique.learning_rate, fused=True)
        self.choices = TransitionBuffer(technique.buffer)
        self.picks = TransitionBuffer(technique.buffer)

    def remember(self, instances: Instances, decided: Decided) -> None:
        """Keep what both stages did, of the instances in which there was something to decide."""
        can = instances.free.any(1) & instances.open.any(1)
        if self.policy.shape.pre_assign:
            choices = {
                "entities": instances.entity_vectors,
                "tasks": instances.task_vectors,
                "free": instances.free,
                "open": instances.open,
                "chosen": decided.chosen,
                "returned": decided.returned.sum(-1),
            }
            self.choices.add({name: column[can] for name, column in choices.items()})
        if decided.picks:
            row = decided.picks["instance"]
            self.picks.add({**decided.picks, "entities": instances.entity_vectors[row]})

    def learn(self, number: int) -> dict[str, float]:
        """The updates of a round; what the last one of each stage said. Nothing before there are enough transitions."""
        technique, figures = self.technique, dict[str, float]()
        source = generator(self.seed, "replay", number)
        for _ in range(technique.updates):
            losses: list[Tensor] = []
            for stage, held, losses_of in (
                ("choice", self.choices, self.choice_losses),
                ("pick", self.picks, self.pick_losses),
            ):
                if len(held) >= technique.least:
                    critic, actor = losses_of(held.sample(technique.batch, source))
                    losses += [critic, actor]
                    figures |= {f"{stage}/critic_loss": critic.item(), f"{stage}/actor_loss": actor.item()}
            if losses:
                self.optimizer.zero_grad()
                torch.stack(losses).sum().backward()
                self.optimizer.step()
                self._follow()
        return figures

    def choice_losses(self, x: Columns) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Of critic and actor of the first stage. Neither's gradient reaches the other's weights."""
        policy, slow = self.policy, self.slow
        entities, tasks, free = policy.entities(x["entities"]), policy.tasks(x["tasks"]), x["free"]
        chosen = x["chosen"].clamp(min=0).unsqueeze(-1)
        own = policy.choice_value(entities, tasks).gather(-1, chosen).squeeze(-1)
        critic = (policy.mixer(own, entities, free) - x["returned"].float()).square().mean()
        logp = policy.choice_logp(entities, tasks, x["open"])
        weighed = logp.exp() * slow.choice_value(entities, tasks)
        every = self.technique.weighing == "expected"
        weighed = weighed.sum(-1) if every else weighed.gather(-1, chosen).squeeze(-1)
        entropy = self._choice_entropy(logp, x["open"]).masked_fill(~free, 0.0).sum(-1)
        actor = -(slow.mixer(weighed, entities, free) + self.technique.entropy_weight * entropy).mean()
        return critic, actor

    def pick_losses(self, x: Columns) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Of critic and actor of the second stage."""
        policy, rows = self.policy, ("state", "next_state")
        entities, states = policy.entities(x["entities"]), torch.stack([policy.tasks(x[name]) for name in rows], 1)
        candidates = torch.stack([x["candidates"], x["next_candidates"]], 1)
        now, later = self._soft_values(entities, states, candidates).unbind(-1)
        target = x["reward"].float() + self.technique.discount * later.detach().masked_fill(x["done"], 0.0)
        value = policy.pick_value(entities, states[:, :1]).squeeze(-1)
        critic = (value.gather(-1, x["picked"].unsqueeze(-1)).squeeze(-1) - target).square().mean()
        return critic, -now.mean()

    def _soft_values(self, entities: Tensor, states: Tensor, candidates: Tensor) -> Float[Tensor, "rows states"]:
        """``sum_j p_j q'_j + entropy_weight H`` over the candidates in each state."""
        logp = self.policy.pick_logp(entities, states, candidates)
        slow: Tensor = self.slow.pick_value(entities, states).transpose(-1, -2)
        entropy = -(logp.exp() * logp).sum(-1)
        values: Tensor = (logp.exp() * slow).sum(-1) + self.technique.entropy_weight * entropy
        return values

    def _choice_entropy(self, logp: Tensor, open: Tensor) -> Float[Tensor, "n entities"]:
        if self.technique.entropy == "standard":
            return -(logp.exp() * logp).sum(-1)
        return -logp.exp().sum(-1) * logp.masked_fill(~open.unsqueeze(1), 0.0).sum(-1)

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the slow copies towards the policy."""
        for slow, fast in zip(self.slow.parameters(), self.policy.parameters(), strict=True):
            slow.lerp_(fast, self.technique.slowness)
