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
from stratagem.sampling import Candidates, Rollouts, kept_groups


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
    start = starts
    if start is None:
        high = probability.cumsum(0)[leaves.group_of_trajectory.size().cumsum(0) - 1]
        start = _place(high, torch.rand(groups, dtype=torch.float64, generator=source) * high[-1])
    uniform = torch.rand((groups, size), dtype=torch.float64, generator=source)
    return _packed(leaves, _within(leaves, probability, start, uniform), start, source)


def candidates(
    leaves: Experience,
    probability: Float64[Tensor, " leaves"],
    given_first: Float64[Tensor, " leaves"],
    sampler: Candidates,
    vocabulary: int,
    source: torch.Generator,
) -> Experience:
    """Groups with a trajectory for every first token but those the sampler leaves out.

    probability: of each leaf, from which starts are drawn.  given_first: of each leaf, given that its first token was
    chosen.

    Raises :class:`InputError` when fewer candidates are left than make a group.
    """
    tokens = [token for token in range(vocabulary) if token not in sampler.without]
    if len(tokens) < sampler.group_size:
        raise InputError(
            f"sampler {sampler.part_name()}: without = {sampler.without}: leaves {len(tokens)} of {vocabulary} "
            f"candidates, where a group has at least {sampler.group_size}"
        )
    assert leaves.action is not None
    first = leaves.action[leaves.trajectory_of_token.first()]
    upper = leaves.group_of_trajectory.sum(probability).cumsum(0)
    drawn = torch.rand(sampler.prompts_per_step, dtype=torch.float64, generator=source)
    start = _place(upper, drawn * upper[-1])
    chosen = [_one_of_each(leaves, given_first.where(first == token, 0.0), start, source) for token in tokens]
    return _packed(leaves, torch.stack(chosen, 1), start, source)


def _one_of_each(
    leaves: Experience,
    probability: Float64[Tensor, " leaves"],
    start: Int[Tensor, " groups"],
    source: torch.Generator,
) -> Int[Tensor, " groups"]:
    """A leaf of each of these starts."""
    uniform = torch.rand(len(start), dtype=torch.float64, generator=source)
    return _within(leaves, probability, start, uniform.unsqueeze(1)).squeeze(1)


def _within(
    leaves: Experience,
    probability: Float64[Tensor, " leaves"],
    start: Int[Tensor, " groups"],
    uniform: Float64[Tensor, "groups size"],
) -> Int[Tensor, "groups size"]:
    """The leaves of these starts at which uniform numbers point."""
    upper = probability.cumsum(0)
    last = leaves.group_of_trajectory.size().cumsum(0) - 1
    high = upper[last]
    low = torch.cat([high.new_zeros(1), high[:-1]])
    chosen = _place(upper, torch.lerp(low[start, None], high[start, None], uniform))
    # What rounding may do at the edge of a start's interval must not lead into another start.
    first = torch.cat([last.new_zeros(1), last[:-1] + 1])
    return chosen.clamp(first[start, None], last[start, None])


def _packed(
    leaves: Experience, chosen: Int[Tensor, "groups size"], start: Int[Tensor, " groups"], source: torch.Generator
) -> Experience:
    """Groups of these leaves."""
    groups, size = chosen.shape
    x = leaves.select(chosen.reshape(-1))
    return x.replace(
        group_of_trajectory=Partition.from_sizes(torch.full((groups,), size)),
        domain_of_group=Partition.whole(groups),
        task_id=start,
        seed=torch.randint(2**63 - 1, (groups * size,), generator=source),
    )


def _place(upper: Float64[Tensor, " cells"], point: Float64[Tensor, "..."]) -> Int[Tensor, "..."]:
    """The cell in which each point lies; cells end at ``upper``, and empty ones hold nothing."""
    return torch.searchsorted(upper, point, right=True).clamp_(max=len(upper) - 1)
