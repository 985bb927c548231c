"""Groups of trajectories drawn from the leaves of a tree, as many and as often as a sampler asks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.partition import Partition
from stratagem.parts import Sampler
from stratagem.sampling import Rollouts, kept_groups


@dataclass(frozen=True, eq=False)
class Drawn:
    """What a sampler got: ``kept`` groups to learn from (perhaps none), and all rollouts drawn, round by round."""

    kept: Experience
    rounds: list[Experience]

    @property
    def groups(self) -> int:
        """Groups drawn, rejected ones included."""
        return sum(x.groups for x in self.rounds)


def collect(
    leaves: Experience,
    probability: Float64[Tensor, " leaves"],
    sampler: Sampler,
    source: Callable[[int], torch.Generator],
    first: int = 0,
    solver: Callable[[], Float64[Tensor, " leaves"]] | None = None,
) -> Drawn:
    """``prompts_per_step`` groups; those the sampler rejects are replaced, up to ``refill_rounds`` times.

    leaves: all trajectories, one group per start, with the fields the batch is to have.  probability: of each.
    source: the generator of a round.  first: number of the first group, for samplers that name the start states.
    solver: probability of each trajectory when it is demonstrated, for samplers that want demonstrations.

    Raises :class:`InputError` for a sampler that does not roll out the policy itself, or names a start state that is
    not there.
    """
    if not isinstance(sampler, Rollouts):
        raise InputError(f"sampler {sampler.part_name()}: the lab draws rollouts of the policy itself")
    sampler.check_no_text("the lab")
    if max(sampler.start_states, default=0) >= leaves.groups:
        raise InputError(
            f"sampler {sampler.part_name()}: start_states = {sampler.start_states}: the game has only the start states "
            f"0 to {leaves.groups - 1}"
        )

    def roll(groups: int, attempt: int) -> Experience:
        nonlocal first
        starts = None
        if sampler.start_states:
            starts = torch.tensor([sampler.start_state(group) for group in range(first, first + groups)])
        first += groups
        return draw(leaves, probability, groups, sampler.group_size, source(attempt), starts)

    kept = kept_groups(sampler, roll)
    rounds, x = [x for x, _ in kept.rounds], kept.x
    assert x is not None, "no episode is ever lost here"
    if sampler.demonstrations and x.groups:
        assert solver is not None, "whoever collects says how the solver plays"
        x = _with_demonstrations(x, leaves, solver(), sampler.demonstrations, source(len(rounds)))
    return Drawn(x, rounds)


def _with_demonstrations(
    x: Experience,
    leaves: Experience,
    probability: Float64[Tensor, " leaves"],
    count: int,
    source: torch.Generator,
) -> Experience:
    """``x`` with so many trajectories by the solver from the start of each group."""
    assert leaves.behavior_logp is not None
    unknown = leaves.replace(behavior_logp=torch.zeros_like(leaves.behavior_logp))
    shown = draw(unknown, probability, x.groups, count, source, x.task_id)
    return x.with_demonstrations(shown, shown.group_of_trajectory.labels)


def draw(
    leaves: Experience,
    probability: Float64[Tensor, " leaves"],
    groups: int,
    size: int,
    source: torch.Generator,
    starts: Int[Tensor, " groups"] | None = None,
) -> Experience:
    """``groups`` groups of ``size`` trajectories, those of a group from one start, with the fields of ``leaves``.

    starts: of the groups; None draws them, too.
    """
    upper = probability.cumsum(0)
    last = leaves.group_of_trajectory.size().cumsum(0) - 1
    high = upper[last]
    low = torch.cat([high.new_zeros(1), high[:-1]])
    start = starts
    if start is None:
        start = _place(high, torch.rand(groups, dtype=torch.float64, generator=source) * high[-1])
    uniform = torch.rand((groups, size), dtype=torch.float64, generator=source)
    chosen = _place(upper, torch.lerp(low[start, None], high[start, None], uniform))
    # What rounding may do at the edge of a start's interval must not lead into another start.
    first = torch.cat([last.new_zeros(1), last[:-1] + 1])
    chosen = chosen.clamp(first[start, None], last[start, None]).view(-1)
    x = leaves.select(chosen)
    return x.replace(
        group_of_trajectory=Partition.from_sizes(torch.full((groups,), size)),
        domain_of_group=Partition.whole(groups),
        task_id=start,
        seed=torch.randint(2**63 - 1, (len(chosen),), generator=source),
    )


def _place(upper: Float64[Tensor, " cells"], point: Float64[Tensor, "..."]) -> Int[Tensor, "..."]:
    """The cell in which each point lies; cells end at ``upper``, and empty ones hold nothing."""
    return torch.searchsorted(upper, point, right=True).clamp_(max=len(upper) - 1)
