"""The world of a sharded learner: shard 0 acts in it, and the others get what came of that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import Tensor

from stratagem.cluster.process_group import ShardGroup
from stratagem.cluster.sharded_policy import WORDS, ShardedPolicy
from stratagem.errors import InputError
from stratagem.parts import Sampler
from stratagem.readings import ReadsText
from stratagem.recipe import Recipe
from stratagem.training.journal import Journal
from stratagem.training.members import members_of
from stratagem.training.world import Collected, Evaluation, Journaling, Policy, TextWorld, World


class SharedWorld:
    """A world that is there once, in shard 0, for a policy that all shards have a part of.

    Whatever shard 0 collects, measures or breaks on reaches all shards, so that they learn from the same batches and
    end with the same error.

    world: what shard 0 acts in; None on the others.  policy: divided by :func:`shard`; on shard 0 the world's own.

    Raises :class:`InputError` for a policy that is not divided, or not the world's.
    """

    def __init__(self, world: World | None, policy: Policy, group: ShardGroup) -> None:
        if group.leads != (world is not None):
            raise InputError("a shared world is acted in by shard 0 and by no other")
        if world is not None and world.policy is not policy:
            raise InputError("a shared world must act with the policy that is divided")
        self._members: list[ShardedPolicy] = []
        for member in members_of(policy):
            if not isinstance(member, ShardedPolicy):
                raise InputError(f"a shared world needs a divided policy, not {type(member).__name__}")
            self._members.append(member)
        self._world, self._group, self._policy = world, group, policy
        self._task_name = group.lead(lambda: self._own.task_name)

    @property
    def _own(self) -> World:
        assert self._world is not None
        return self._world

    @property
    def policy(self) -> Policy:
        """What acts and learns."""
        return self._policy

    @property
    def task_name(self) -> str:
        """How the task is called."""
        return self._task_name

    def adapt(self, recipe: Recipe) -> Recipe:
        """The recipe as the world wants it."""
        return self._group.lead(lambda: self._own.adapt(recipe))

    def serve(self, version: int) -> None:
        """Shard 0 acts with the present weights from now on; all shards bring them together, tensor by tensor."""
        self._group.lead(lambda: self._own.serve(version), self._follow)

    def _follow(self, word: int) -> None:
        number, told = divmod(word, WORDS)
        self._members[number].follow(told)

    def collect(self, sampler: Sampler, step: int) -> Collected:
        """What shard 0 collects. What the sampler remembers of it is then the same on all shards."""
        collected, memory = self._group.lead(lambda: (self._own.collect(sampler, step), sampler.state_dict()))
        if not self._group.leads:
            for name, tensor in sampler.state_dict().items():
                tensor.resize_(memory[name].shape).copy_(memory[name])
        return collected

    def evaluate(self, episodes: int, mode: Literal["sampled", "greedy"], first: int = 0) -> Evaluation:
        """What shard 0 finds."""
        return self._group.lead(lambda: self._own.evaluate(episodes, mode, first))

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Of the world, on shard 0, which writes it; the others have none."""
        kept: list[tuple[dict[str, Tensor], dict[str, Any]]] = [({}, {})]

        def take() -> None:
            kept[0] = self._own.state_dict()

        self._group.lead(take)
        return kept[0]

    def load_state_dict(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Restore the world of shard 0."""
        self._group.lead(lambda: self._own.load_state_dict(tensors, plain))

    def keep(self, journal: Journal) -> None:
        """Let the world of shard 0 keep a journal."""

        def begin() -> None:
            if not isinstance(self._own, Journaling):
                raise InputError(f"journal: {self._own.task_name} keeps none; a language task does")
            self._own.keep(journal)

        self._group.lead(begin)

    def read_by(self, readers: Sequence[ReadsText]) -> None:
        """Let shard 0 ask them: once, for all shards."""

        def begin() -> None:
            if not isinstance(self._own, TextWorld):
                raise InputError(f"{self._own.task_name}: has no text to read; a language task does")
            self._own.read_by(readers)

        self._group.lead(begin)

    def close(self) -> None:
        """Release what shard 0 acts in. It waits for nobody, so that it can be called after an error."""
        if self._world is not None:
            self._world.close()
