"""What tool calls and queries are worth: a branch that was made to repeat one, and what was asked on a wrong way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge

from stratagem.experience import Experience
from stratagem.parts import Reward
from stratagem.rewards.shaping import paid
from stratagem.sampling.calls import on_branch, own_last_call


@dataclass(frozen=True)
class BranchesPaidByCall(Reward):
    """``R = 1`` for a branch whose last call was carried out, 0 for others; rollouts keep what the task pays.

    So a step is learned by what is known at once, and a solution by its answer (arXiv 2509.13761). The call is that of
    the branch's own last turn; a branch whose last turn made none earns 0. The first reward column then is the return,
    and the others keep what they note, at weight 0. A batch without branches, or one that says nothing of calls
    (``turn_call``), stays as it is.
    """

    def __call__(self, x: Experience) -> Experience:
        made = own_last_call(x)
        if x.branch is None or made is None:
            return x
        return paid(x, torch.where(on_branch(x), (made == 1).to(x.returns.dtype), x.returns))


@dataclass(frozen=True)
class CappedWhereWrong(Reward):
    """``min(noted, most)`` for the reward named ``name`` in trajectories without success; the others keep it.

    So that a wrong way cannot be made up for by walking it with care. A task without this reward has none to cap.

    name: of the reward.  most: at least 0; at 0 it counts with success alone.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"success"})

    name: str
    most: Annotated[float, Ge(0)] = 0.5

    def __call__(self, x: Experience) -> Experience:
        if x.reward is None or self.name not in x.reward_names:
            return x
        if x.success is None:
            raise ValueError("a reward can only be capped where it went wrong when x.success says so")
        reward, column = x.reward.clone(), x.reward_names.index(self.name)
        reward[:, column] = reward[:, column].clamp(max=self.most).where(~x.success, reward[:, column])
        return x.replace(reward=reward)
