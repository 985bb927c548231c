"""A policy that allocates in two stages: entities choose a task by similarity, tasks pick among their volunteers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from stratagem.allocation.instances import NOBODY, TOLERANCE, Allocation, Instances
from stratagem.allocation.networks import Mixing, PairScores, Scores, make_mixer
from stratagem.allocation.tasks import AllocationTask
from stratagem.errors import InputError
from stratagem.seeding import derive, generator
from stratagem.training.module_policy import ModulePolicy, read_policy

Columns = dict[str, Tensor]
"""Transitions: one row of every tensor for each."""

Order = Literal["listed", "random"]
Chosen = Int64[Tensor, "n entities"]
Which = Int64[Tensor, "n tasks"]


@dataclass(frozen=True)
class Shape:
    """What a policy is made of. entity, task: numbers of an attribute vector.  hidden: of an embedding.

    scores: how pairs are scored.  mixing: how entities' values become one.  pre_assign: whether entities choose first;
    otherwise each task picks, in this order, among all entities that are left.
    sampled: whether :meth:`TwoStagePolicy.allocate` draws choices and picks; otherwise it takes the likeliest.
    """

    entity: int
    task: int
    hidden: int = 64
    scores: Scores = "similarity"
    mixing: Mixing = "attention"
    pre_assign: bool = True
    order: Order = "listed"
    sampled: bool = False


class Decided(NamedTuple):
    """An allocation and how it came about.

    chosen: the task that every entity volunteered for.  returned: what each task brought, 0 where it was cancelled.
    picks: of the second stage, one row each, in the order of steps.
    """

    allocation: Allocation
    chosen: Chosen
    returned: Float64[Tensor, "n tasks"]
    picks: Columns


class TwoStagePolicy(ModulePolicy):
    """``p_i(k) = softmax_k <phi(e_i), psi(T_k)> / hidden``, then picks by ``softmax_i <f(e_i), g(s)> / hidden``.

    ``s`` is the task with what is left of its demands. Numbers of tasks and entities do not matter. Attributes are
    brought to mean 0 and deviation 1 by constants of the task it is made for (``standardize``).
    """

    kind: ClassVar[str] = "two_stage_allocation"
    entity_mean: Tensor
    entity_scale: Tensor
    task_mean: Tensor
    task_scale: Tensor

    def __init__(self, shape: Shape, seed: int = 0) -> None:
        super().__init__()
        self.shape = shape
        sizes = (shape.entity, shape.task, shape.hidden, shape.scores)
        self.choose = PairScores(*sizes, generator(seed, "choose"))
        self.choice_value = PairScores(*sizes, generator(seed, "choice value"))
        self.mixer = make_mixer(shape.mixing, shape.entity, shape.hidden, generator(seed, "mixer"))
        self.pick = PairScores(*sizes, generator(seed, "pick"))
        self.pick_value = PairScores(*sizes, generator(seed, "pick value"))
        for name, width in (("entity", shape.entity), ("task", shape.task)):
            self.register_buffer(f"{name}_mean", torch.zeros(width))
            self.register_buffer(f"{name}_scale", torch.ones(width))

    def standardize(self, task: AllocationTask, seed: int) -> None:
        """Take mean and deviation of attributes from instances of this task. A constant attribute keeps its scale."""
        drawn = task.draw(512, derive(seed, "standardize"))
        place = torch.full((2 if task.placed else 0,), (task.side - 1) / 2, dtype=torch.float64)
        spread = torch.full_like(place, max(1.0, task.side / 12**0.5))
        for name, vectors in (("entity", drawn.entity_vectors), ("task", drawn.task_vectors)):
            deviation = vectors.flatten(0, 1).std(0)
            deviation = torch.where(deviation > TOLERANCE, deviation, 1.0)
            getattr(self, f"{name}_mean").copy_(torch.cat([vectors.flatten(0, 1).mean(0), place]))
            getattr(self, f"{name}_scale").copy_(torch.cat([deviation, spread]))

    # ---- what it sees ----------------------------------------------------------------------------------------------

    def entities(self, vectors: Tensor) -> Float[Tensor, "*n a"]:
        """Attributes of entities as the networks take them."""
        return (vectors.float() - self.entity_mean) / self.entity_scale

    def tasks(self, vectors: Tensor) -> Float[Tensor, "*n b"]:
        """Attributes of tasks, or of what is left of them, as the networks take them."""
        return (vectors.float() - self.task_mean) / self.task_scale

    def choice_logp(
        self, entities: Float[Tensor, "n entities a"], tasks: Float[Tensor, "n tasks b"], open: Bool[Tensor, "n tasks"]
    ) -> Float[Tensor, "n entities tasks"]:
        """``log p_i(k)``; closed tasks have about no chance. Where none is open the numbers mean nothing."""
        scores = self.choose(entities, tasks) / self.shape.hidden
        logp: Tensor = scores.masked_fill(~open.unsqueeze(1), -1e6).log_softmax(-1)
        return logp

    def pick_logp(
        self,
        entities: Float[Tensor, "*n entities a"],
        states: Float[Tensor, "*n states b"],
        candidates: Bool[Tensor, "*n states entities"],
    ) -> Float[Tensor, "*n states entities"]:
        """Log-probability of picking each candidate in these states of a task."""
        scores = self.pick(entities, states).transpose(-1, -2) / self.shape.hidden
        logp: Tensor = scores.masked_fill(~candidates, -1e6).log_softmax(-1)
        return logp

    # ---- acting ----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def decide(self, instances: Instances, source: torch.Generator | None = None, record: bool = False) -> Decided:
        """Allocate. source: of what is sampled; None takes the likeliest.  record: whether to keep the picks.

        A task whose picks bring nothing or lose is cancelled. Raises :class:`InputError` for attributes of another
        number than the policy is made for.
        """
        for what, vectors, width in (
            ("an entity", instances.entity_vectors, self.shape.entity),
            ("a task", instances.task_vectors, self.shape.task),
        ):
            if vectors.shape[-1] != width:
                raise InputError(f"policy: {what} has {vectors.shape[-1]} attributes; it is made for {width}")
        listed = torch.arange(instances.tasks).expand(len(instances), -1)
        if self.shape.pre_assign:
            chosen = self._choose(instances, source)
            candidates = chosen.unsqueeze(1) == listed.unsqueeze(-1)
            members, returned, picks = self._select(instances, listed, candidates, source, record)
            return Decided(_allocation(members, listed), chosen, returned, picks)
        return self._one_by_one(instances, source, record)

    def allocate(self, instances: Instances, source: torch.Generator) -> Allocation:
        """The likeliest allocation, choice by choice and pick by pick, or one that is drawn, as the shape says."""
        return self.decide(instances, source if self.shape.sampled else None).allocation

    def _choose(self, instances: Instances, source: torch.Generator | None) -> Chosen:
        nothing = ~instances.free | ~instances.open.any(1, keepdim=True)
        if bool(nothing.all()):
            return torch.full_like(instances.cost, NOBODY, dtype=torch.int64)
        logp = self.choice_logp(
            self.entities(instances.entity_vectors), self.tasks(instances.task_vectors), instances.open
        )
        return _drawn(logp, source).masked_fill(nothing, NOBODY)

    def _one_by_one(self, instances: Instances, source: torch.Generator | None, record: bool) -> Decided:
        """Every task picks among all entities that those before it left."""
        order = torch.arange(instances.tasks).expand(len(instances), -1)
        if self.shape.order == "random":
            shuffle = generator(0, "order") if source is None else source
            order = torch.rand(order.shape, generator=shuffle).argsort(-1)
        free = instances.free
        allocation = torch.full_like(instances.cost, NOBODY, dtype=torch.int64)
        returned = torch.zeros_like(instances.value)
        kept: list[Columns] = []
        for place in range(instances.tasks):
            which = order[:, place : place + 1]
            members, brought, picks = self._select(instances, which, free.unsqueeze(1), source, record)
            kept.append(picks)
            returned = returned.scatter(1, which, brought)
            allocation = torch.maximum(allocation, _allocation(members, which))
            free = free & (allocation == NOBODY)
        return Decided(allocation, allocation, returned, _stacked(kept))

    def _select(
        self,
        instances: Instances,
        which: Which,
        candidates: Bool[Tensor, "n tasks entities"],
        source: torch.Generator | None,
        record: bool,
    ) -> tuple[Bool[Tensor, "n tasks entities"], Float64[Tensor, "n tasks"], Columns]:
        """These tasks pick side by side, one entity each at a time: whom, what it brought, and every single pick."""
        vectors = instances.task_vectors.gather(1, which.unsqueeze(-1).expand(-1, -1, self.shape.task))
        opened, kinds = instances.open.gather(1, which), slice(1, 1 + instances.demand.shape[-1])
        candidates = candidates & instances.free.unsqueeze(1) & opened.unsqueeze(-1)
        members, spent = torch.zeros_like(candidates), torch.zeros_like(vectors[..., 0])
        seen = self.entities(instances.entity_vectors)
        kept: list[Columns] = []
        while True:
            wanting = (vectors[..., kinds] > TOLERANCE).any(-1) & candidates.any(-1)
            row, task = wanting.nonzero(as_tuple=True)
            if not len(row):
                break
            state, able, rows = vectors[row, task], candidates[row, task], torch.arange(len(row))
            logp = self.pick_logp(seen[row], self.tasks(state).unsqueeze(1), able.unsqueeze(1))
            picked = _drawn(logp.squeeze(1), source)
            after, still = state.clone(), able.clone()
            after[:, kinds] = (state[:, kinds] - instances.capacity[row, picked]).clamp(min=0)
            still[rows, picked] = False
            met = (after[:, kinds] <= TOLERANCE).all(-1)
            cost = instances.cost[row, picked]
            members[row, task, picked] = True
            spent[row, task] += cost
            vectors[row, task], candidates[row, task] = after, still
            if record:
                kept.append(
                    {
                        "instance": row,
                        "state": state,
                        "candidates": able,
                        "picked": picked,
                        "reward": torch.where(met, state[:, 0], 0.0) - cost,
                        "next_state": after,
                        "next_candidates": still,
                        "done": met | ~still.any(-1),
                    }
                )
        covered = opened & (vectors[..., kinds] <= TOLERANCE).all(-1)
        brought = torch.where(covered, vectors[..., 0], 0.0) - spent
        gains = brought > 0
        return members & gains.unsqueeze(-1), torch.where(gains, brought, 0.0), _stacked(kept)

    # ---- files -----------------------------------------------------------------------------------------------------

    def arguments(self) -> dict[str, Any]:
        """Its shape."""
        return dict(vars(self.shape))

    @staticmethod
    def from_directory(directory: str | Path) -> TwoStagePolicy:
        """Read what :meth:`save` wrote. Raises :class:`InputError` when the directory is missing or damaged."""
        builders = {TwoStagePolicy.kind: lambda **shape: TwoStagePolicy(Shape(**shape))}
        return read_policy(directory, "allocation policy", builders)


def _drawn(logp: Float[Tensor, "*n choices"], source: torch.Generator | None) -> Int64[Tensor, "*n"]:
    """The likeliest, or a draw: the largest of log-probabilities plus Gumbel noise."""
    if source is None:
        return logp.argmax(-1)
    noise = torch.empty_like(logp).exponential_(generator=source).clamp(min=1e-30)
    return (logp - noise.log()).argmax(-1)


def _allocation(members: Bool[Tensor, "n tasks entities"], which: Which) -> Allocation:
    return torch.where(members, which.unsqueeze(-1), NOBODY).amax(1)


def _stacked(pieces: list[Columns]) -> Columns:
    pieces = [piece for piece in pieces if piece]
    if not pieces:
        return {}
    return {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}
