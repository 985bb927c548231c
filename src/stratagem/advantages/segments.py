"""Advantages of plan and execution: turns that keep a sub-goal form a segment, and each part of a turn has its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
from annotated_types import Ge, Le
from jaxtyping import Bool, Float, Int
from torch import Tensor

from stratagem.advantages.critic import critic_value, first_tokens, rewards_of_turns
from stratagem.experience import Experience
from stratagem.partition import Partition
from stratagem.parts import Advantage
from stratagem.spans import Span, span_runs, span_starts

Stream = Literal["switch", "subgoal", "action"]

_SPAN: dict[Stream, Span] = {"switch": Span.SWITCH, "subgoal": Span.SUBGOAL, "action": Span.ACTION}


class _Reads(NamedTuple):
    """Before which token of every turn the critic is read for each part of the turn.

    owned: turns that have the part, and where the critic learns what follows it.
    """

    place: dict[Stream, Int[Tensor, " turns"]]
    owned: dict[Stream, Bool[Tensor, " turns"]]


@dataclass(frozen=True)
class HierarchicalGAE(Advantage):
    """Hierarchical advantage estimation (HiPER, arXiv 2602.16165): turns of one sub-goal are a segment.

    Within a segment actions get ``delta_t = r_t + discount L'_t - L_t``, ``A_t = delta_t + discount turn_trace
    A_{t+1}``, with ``L'_t = L_{t+1}`` and, after the segment's end, ``H`` of the next one. Across segments of ``d``
    turns sub-goals get ``delta = sum_j discount^j r_{s+j} + discount^d H' - H``, ``A = delta + discount^d segment_trace
    A'``. Whether to switch gets ``A_t = Y_t - S_t``, with ``Y_t = r_t + discount Y_{t+1}`` to the segment's end and
    ``H'`` after it. Each goes to the tokens of its own ``span``: the action's; the sub-goal's, in turns that begin a
    segment; the switch's, in every turn. All other tokens get 0.

    ``S``, ``H`` and ``L`` are what one critic says at three places: before the first token of a turn, before the
    sub-goal of a turn that begins a segment, and before the action. The authors' code has heads of their own for them
    and reads ``H`` where it reads ``S``, trained on turns that did switch; a critic that has read the decision to
    switch needs no head to know of it. Where the action is missing ``L`` is read before the sub-goal, and what else is
    missing before the turn. The critic learns before the parts there are: ``A + L``, ``A + H``, and ``Y`` before the
    turn; where two coincide, that of the part which begins there.

    With one segment and turns that are all action this is GAE whose steps are turns.

    discount: per turn, in [0, 1].  turn_trace, segment_trace: lambda within and across segments, in [0, 1].
    whiten: each stream by its mean and population standard deviation over the turns that have its part.
    streams: parts of a turn that get credit; the critic learns for all of them.
    bootstrap_truncated: what follows the last turn of a trajectory that a limit cut is worth ``L`` of that turn, and
    the last ``H`` to the sub-goal (to ``Y``: ``L``, which is our reading); False: 0, as after a true end. Where the
    batch has ``final_value`` it is that instead.

    Raises ``ValueError`` for a turn without tokens, and for one that ended an episode and is not its last.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"value", "span", "segment_start"})

    discount: Annotated[float, Ge(0), Le(1)] = 1.0
    turn_trace: Annotated[float, Ge(0), Le(1)] = 1.0
    segment_trace: Annotated[float, Ge(0), Le(1)] = 0.95
    whiten: bool = False
    streams: tuple[Stream, ...] = ("switch", "subgoal", "action")
    bootstrap_truncated: bool = True

    def __call__(self, x: Experience) -> Float[Tensor, " tokens"]:
        reads, runs = _reads(x), span_runs(x)
        estimates = self._estimates(x, reads)
        credit = torch.zeros(len(runs.span), dtype=estimates["action"][0].dtype, device=x.device)
        for name in self.streams:
            advantage = estimates[name][0]
            if self.whiten:
                advantage = _whitened(advantage, _trained(x, reads.owned[name]))
            advantage = torch.where(reads.owned[name], advantage, 0.0)
            credit = torch.where(runs.span == _SPAN[name], advantage[runs.turn], credit)
        return torch.repeat_interleave(credit, runs.size, output_size=x.tokens)

    def value_target(self, x: Experience) -> Float[Tensor, " tokens"]:
        reads = _reads(x)
        estimates = self._estimates(x, reads)
        target = torch.zeros(x.tokens, dtype=estimates["action"][1].dtype, device=x.device)
        target[first_tokens(x, "HierarchicalGAE")] = estimates["switch"][1]
        for name in ("subgoal", "action"):
            own = reads.owned[name]
            target[reads.place[name][own]] = estimates[name][1][own]
        return target

    def critic_tokens(self, x: Experience) -> Bool[Tensor, " tokens"]:
        reads = _reads(x)
        learns = torch.zeros(x.tokens, dtype=torch.bool, device=x.device)
        learns[first_tokens(x, "HierarchicalGAE")] = True
        for name in ("subgoal", "action"):
            learns[reads.place[name][reads.owned[name]]] = True
        return learns

    def _estimates(self, x: Experience, reads: _Reads) -> dict[Stream, tuple[Tensor, Tensor]]:
        """Advantage and critic's target of each stream in every turn; the sub-goal's count where a segment begins."""
        value, rewards = critic_value(x, "HierarchicalGAE"), rewards_of_turns(x)
        switch, subgoal, action = (value[reads.place[name]] for name in ("switch", "subgoal", "action"))
        segment = x.segment_of_turn
        start = segment.first()
        of_segment = Partition(x.trajectory_of_turn.labels[start], x.trajectories)
        high, length = subgoal[start], segment.size()
        after_action, after_segment = self._left(x, action, high, of_segment)
        following = high.roll(-1)
        following[of_segment.last()] = after_action[of_segment.size() > 0].to(high.dtype)

        low = segment.gae(rewards, action, self.discount, self.turn_trace, following)
        ends = segment.last()
        to_end = rewards.to(following.dtype).index_add(0, ends, self.discount * following)
        reached = segment.discounted_scan(to_end, self.discount)
        earned = segment.discounted_scan(rewards, self.discount)[start]
        rate = torch.full_like(high, self.discount).pow(length)
        plan = of_segment.gae(earned, high, rate, self.segment_trace, after_segment)
        planned = torch.zeros_like(low).index_copy(0, start, plan.to(low.dtype))
        return {
            "switch": (reached - switch, reached),
            "subgoal": (planned, planned + subgoal),
            "action": (low, low + action),
        }

    def _left(
        self, x: Experience, action: Tensor, high: Tensor, of_segment: Partition
    ) -> tuple[Float[Tensor, " trajectories"], Float[Tensor, " trajectories"]]:
        """What each trajectory's end is worth to its last action, and to its last sub-goal."""
        if x.turn_done is not None:
            early = x.turn_done & ~x.trajectory_of_turn.is_last()
            if bool(early.any()):
                turn = int(torch.nonzero(early)[0])
                raise ValueError(f"HierarchicalGAE: turn {turn} ended its episode, which goes on after it")
        if x.final_value is not None:
            return x.final_value, x.final_value
        none = action.new_zeros(x.trajectories)
        if x.truncated is None or not self.bootstrap_truncated:
            return none, none
        ends = [(x.trajectory_of_turn, action), (of_segment, high)]
        worth = [none.masked_scatter(by.size() > 0, values[by.last()]) for by, values in ends]
        return torch.where(x.truncated, worth[0], 0.0), torch.where(x.truncated, worth[1], 0.0)


def _reads(x: Experience) -> _Reads:
    first, starts = first_tokens(x, "HierarchicalGAE"), span_starts(x)
    begins = torch.zeros(x.turns, dtype=torch.bool, device=x.device)
    begins[x.segment_of_turn.first()] = True
    there = {name: starts[span] >= 0 for name, span in _SPAN.items()}
    subgoal = torch.where(there["subgoal"], starts[Span.SUBGOAL], first)
    action = torch.where(there["action"], starts[Span.ACTION], subgoal)
    there["subgoal"] = there["subgoal"] & begins
    return _Reads({"switch": first, "subgoal": subgoal, "action": action}, there)


def _trained(x: Experience, turns: Bool[Tensor, " turns"]) -> Bool[Tensor, " turns"]:
    """Those of the turns that have a token which may train."""
    return turns if x.mask is None else turns & (x.turn_of_token.sum(x.mask) > 0)


def _whitened(values: Tensor, own: Bool[Tensor, " turns"]) -> Tensor:
    kept = values[own]
    whitened = Partition.whole(len(kept), kept.device).standardize(kept, correction=0, eps=1e-8)
    return torch.zeros_like(values).masked_scatter(own, whitened)
