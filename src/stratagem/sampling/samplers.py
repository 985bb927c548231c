"""What to roll out: groups of episodes, groups that must disagree, segments of a fixed length, demonstrations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt, Le
from jaxtyping import Bool
from torch import Tensor

from stratagem.experience import Experience
from stratagem.parts import Reward, Sampler


@dataclass(frozen=True)
class Rollouts(Sampler):
    """Whole episodes by the current policy: ``prompts_per_step`` start states, ``group_size`` episodes from each.

    temperature, top_p, top_k: of token sampling (top_k 0: no limit). ``behavior_logp`` is of the distribution sampled
    from; the learner's log-probabilities are at the same temperature, without the cut of top_p and top_k, so with these
    a recipe should have a correction.
    refill_rounds: how often groups that were lost or rejected are replaced by fresh ones in one step.
    start_states: numbers of the start states to roll out, over and over in this order; none: the task's own order. One
    number is training on a single example.
    demonstrations: so many by the task's solver from every group's start state, as further trajectories of the group
    that are marked ``demonstrated``. They are not sampled, so no budget counts them; where the solver knows one way
    alone, they are that one again. Their ``behavior_logp`` is 0: how likely they were is not known, and a denominator
    of 1 is what arXiv 2504.14945 takes for it.
    """

    temperature: Annotated[float, Gt(0)] = 1.0
    top_p: Annotated[float, Gt(0), Le(1)] = 1.0
    top_k: Annotated[int, Ge(0)] = 0
    refill_rounds: Annotated[int, Ge(0)] = 1
    start_states: tuple[Annotated[int, Ge(0)], ...] = ()
    demonstrations: Annotated[int, Ge(0)] = 0

    @property
    def policy_temperature(self) -> float:
        return self.temperature

    def start_state(self, group: int) -> int:
        """The start state of this group, counted over the whole run: the group's own number when none are given."""
        return self.start_states[group % len(self.start_states)] if self.start_states else group


@dataclass(frozen=True)
class DynamicSampling(Rollouts):
    """Rollouts that drop groups whose trajectories all earned the same, and sample on (DAPO, arXiv 2503.14476).

    After ``refill_rounds`` further rounds the step learns from the groups it has.

    judged_by: the reward by which a group's trajectories are compared; None: the task's own. A recipe that replaces the
    task's reward needs it here, too, or groups are chosen by a reward it must not know.
    """

    refill_rounds: Annotated[int, Ge(0)] = 3
    judged_by: Reward | None = None

    def keep(self, x: Experience) -> Bool[Tensor, " groups"]:
        returns = x.returns if self.judged_by is None else self.judged_by(x).returns
        return x.group_of_trajectory.max(returns) > x.group_of_trajectory.min(returns)


@dataclass(frozen=True)
class Segments(Sampler):
    """A fixed number of turns from environments that run on across steps; what a control policy usually learns from.

    prompts_per_step: environments side by side, each one a group.  turns: per environment and step. An episode cut by
    the end of the segment is marked truncated and carries the critic's ``final_value``.
    """

    prompts_per_step: Annotated[int, Ge(1)] = 8
    group_size: Annotated[int, Ge(1), Le(1)] = 1
    turns: Annotated[int, Ge(1)] = 128


@dataclass(frozen=True)
class Demonstrations(Sampler):
    """Episodes played by the task's own solver: ``prompts_per_step`` of them.

    held_out: from start states that no training batch begins with, to validate on. The lab's games have none to spare:
    there they are demonstrations of their own.
    """

    prompts_per_step: Annotated[int, Ge(1)] = 64
    group_size: Annotated[int, Ge(1), Le(1)] = 1
    held_out: bool = False
