"""Responses that run on across batches: each goes on from its prefix in the tree, with whatever policy acts by then."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from stratagem.experience import Experience
from stratagem.lab.exact import Exact
from stratagem.lab.policy import NodeInputs
from stratagem.lab.tree import Tree
from stratagem.partition import Partition
from stratagem.sampling import Windows
from stratagem.seeding import generator


@dataclass
class Slot:
    """A response under way.

    episode: its number in the run.  leaf: a leaf that begins with it.  logp, version: of its tokens so far.
    """

    episode: int
    leaf: int = 0
    logp: list[float] = field(default_factory=list)
    version: list[int] = field(default_factory=list)

    @property
    def written(self) -> int:
        """Tokens so far."""
        return len(self.logp)


class Slots:
    """The responses of a run, as many side by side as the sampler asks for. What is sampled follows from the seed."""

    def __init__(self, tree: Tree, seed: int) -> None:
        self._tree, self._seed = tree, seed
        by_leaf = tree.leaves.trajectory_of_token
        self._first, self._lengths = by_leaf.first().tolist(), by_leaf.size().tolist()
        self._running: list[Slot] = []
        self._episodes = 0

    def advance(
        self, policy: Exact, values: Float[Tensor, " nodes"], version: int, sampler: Windows
    ) -> tuple[Experience, Int[Tensor, " slots"]]:
        """All responses with up to ``sampler.tokens`` more of each by ``policy``, and how many those are.

        values: the critic's, by node.  Responses that have ended make room for others in the next call.
        """
        slots = self._running[: sampler.prompts_per_step]  # If they are fewer now, the others are given up.
        fresh = range(self._episodes, self._episodes + sampler.prompts_per_step - len(slots))
        slots += [Slot(episode) for episode in fresh]
        self._episodes = fresh.stop
        before = torch.tensor([slot.written for slot in slots])
        logp = self._tree.chosen(policy.logp)
        to_go = self._tree.leaves.trajectory_of_token.discounted_scan(logp)
        for slot in slots:
            slot.leaf = self._leaf(slot, to_go)
            first = self._first[slot.leaf] + slot.written
            rows = slice(first, first + min(sampler.tokens, self._lengths[slot.leaf] - slot.written))
            slot.logp += logp[rows].float().tolist()
            slot.version += [version] * (rows.stop - rows.start)
        x = self._experience(slots, before)
        assert x.running is not None
        self._running = [slot for slot, running in zip(slots, x.running.tolist(), strict=True) if running]
        left = [self._node(slot) if running else 0 for slot, running in zip(slots, x.running.tolist(), strict=True)]
        x = x.replace(final_value=torch.where(x.running, values[left], 0.0))
        return x, x.trajectory_of_token.size() - before

    def _node(self, slot: Slot) -> int:
        """Where a response that has not ended goes on."""
        return int(self._tree.node[self._first[slot.leaf] + slot.written])

    def _leaf(self, slot: Slot, to_go: Float64[Tensor, " tokens"]) -> int:
        """A leaf that goes on from the slot's prefix, drawn as the policy and the game would write it.

        Only the next window of it is used, which has the same law as if it were written token by token.
        """
        tree = self._tree
        if slot.written:
            rows = torch.nonzero(tree.node == self._node(slot)).squeeze(1)
        else:
            rows = tree.leaves.trajectory_of_token.first()
        leaves = tree.leaves.trajectory_of_token.labels[rows]
        weight = tree.chance[leaves] * to_go[rows].exp()
        source = generator(self._seed, "window", slot.episode, slot.written)
        return int(leaves[torch.multinomial(weight, 1, generator=source)])

    def _experience(self, slots: Sequence[Slot], before: Int[Tensor, " slots"]) -> Experience:
        """What is written so far; of it, what was not there ``before`` may train the policy."""
        leaves, leaf = self._tree.leaves, torch.tensor([slot.leaf for slot in slots])
        assert leaves.action is not None and leaves.turn_reward is not None and leaves.turn_state is not None
        assert leaves.success is not None and leaves.truncated is not None
        written = torch.tensor([slot.written for slot in slots])
        by_slot = Partition.from_sizes(written)
        rows = by_slot.spread(leaves.trajectory_of_token.first()[leaf]) + by_slot.position()
        turn_of_token = Partition.by(leaves.turn_of_token.labels[rows], within=by_slot)
        turns = leaves.turn_of_token.labels[rows][turn_of_token.first()]
        trajectory_of_turn = Partition(by_slot.labels[turn_of_token.first()], len(slots))
        ended = written == leaves.trajectory_of_token.size()[leaf]
        complete = turn_of_token.size() == leaves.turn_of_token.size()[turns]
        turn_reward = torch.where(complete, leaves.turn_reward[turns], 0.0)
        return Experience(
            turn_of_token=turn_of_token,
            trajectory_of_turn=trajectory_of_turn,
            group_of_trajectory=Partition.singletons(len(slots)),
            domain_of_group=Partition.whole(len(slots)),
            action=leaves.action[rows],
            behavior_logp=torch.tensor([logp for slot in slots for logp in slot.logp]),
            version=torch.tensor([version for slot in slots for version in slot.version]),
            mask=by_slot.position() >= by_slot.spread(before),
            critic_mask=by_slot.spread(ended),
            turn_reward=turn_reward,
            turn_state=leaves.turn_state[turns],
            turn_role=None if leaves.turn_role is None else leaves.turn_role[turns],
            turn_context=None if leaves.turn_context is None else leaves.turn_context[turns],
            turn_done=trajectory_of_turn.is_last() & trajectory_of_turn.spread(ended),
            reward=trajectory_of_turn.sum(turn_reward),
            success=ended & leaves.success[leaf],
            finished=ended & ~leaves.truncated[leaf],
            truncated=~ended | leaves.truncated[leaf],
            running=~ended,
            episode=torch.tensor([slot.episode for slot in slots]),
            task_id=leaves.group_of_trajectory.labels[leaf],
            inputs=NodeInputs(self._tree.node[rows], written),
        )

    # ---- state -----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The responses under way and the number of the next one, as JSON data."""
        return {"episodes": self._episodes, "running": [dataclasses.asdict(slot) for slot in self._running]}

    def load_state_dict(self, plain: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self._episodes = int(plain["episodes"])
        self._running = [Slot(**slot) for slot in plain["running"]]
