"""Groups of trajectories drawn from the leaves of a tree, as many and as often as a sampler asks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.lab.policy import NodeInputs
from stratagem.partition import Partition
from stratagem.parts import Sampler
from stratagem.sampling import Branching, Candidates, Rollouts, kept_groups
from stratagem.sampling.branching import as_branches, as_roots, cut


@dataclass(frozen=True, eq=False)
class Drawn:
    """What a sampler got.

    kept: groups to learn from, perhaps none.  rounds: all rollouts from a start, round by round.
    rejected: how many groups of theirs the sampler did not want.  grown: forks whose branches joined a group of theirs,
    and the tokens sampled in them.
    """

    kept: Experience
    rounds: list[Experience]
    rejected: int = 0
    grown: tuple[int, int] = (0, 0)

    @property
    def groups(self) -> int:
        """Groups drawn from a start, rejected ones included."""
        return sum(x.groups for x in self.rounds)

    @property
    def branches(self) -> tuple[int, int]:
        """Groups that branch off in the middle, or forks in those of roots, and the tokens sampled in them."""
        if self.grown[0]:
            return self.grown
        if self.kept.branch is None or self.kept.mask is None:
            return 0, 0
        on_branch = self.kept.branch > 0
        return int(on_branch.sum()), int((self.kept.mask & self.kept.to_tokens(group=on_branch)).sum())


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
    rejected = sum(len(keep) - int(keep.sum()) for _, keep in kept.rounds)
    if sampler.demonstrations and x.groups:
        assert solver is not None, "whoever collects says how the solver plays"
        x = _with_demonstrations(x, leaves, solver(), sampler.demonstrations, source(len(rounds)))
    grown = 0, 0
    if isinstance(sampler, Branching):
        x, grown = _branched(x, leaves, probability, sampler, source)
    return Drawn(x, rounds, rejected, grown)


def _branched(
    x: Experience,
    leaves: Experience,
    probability: Float64[Tensor, " leaves"],
    sampler: Branching,
    source: Callable[[int], torch.Generator],
) -> tuple[Experience, tuple[int, int]]:
    """``x`` and the branches off it; of branches within its groups, how many forks and tokens there were. Leaves
    of a node follow one another: a branch is drawn among those of its node.
    """
    newest = as_roots(x)
    pieces = [newest] if sampler.train_roots or not sampler.branches else []
    forks = tokens = 0
    for generation in range(1, sampler.depth + 1 if sampler.branches else 1):
        token = torch.nonzero(sampler.at(newest)).squeeze(1)
        if not len(token):
            break
        if sampler.branch_turns is not None and len(leaves.reward_names) > 1:
            raise InputError(
                f"sampler {sampler.part_name()}: branch_turns = {sampler.branch_turns}: the lab can only cut off games "
                f"with a single reward, not {', '.join(leaves.reward_names)}"
            )
        assert isinstance(leaves.inputs, NodeInputs) and isinstance(newest.inputs, NodeInputs)
        first, last = _leaves_of_nodes(leaves.inputs.node, leaves.trajectory_of_token.labels)
        node = newest.inputs.node[token]
        # A number that no round of rolling out has: what is drawn must not repeat theirs.
        drawing = source(-generation)
        uniform = torch.rand((len(node), sampler.branches), dtype=torch.float64, generator=drawing)
        drawn = _packed(leaves, _within(probability, first[node], last[node], uniform), drawing)
        kept = newest.trajectory_of_token.position()[token].repeat_interleave(sampler.branches)
        branches = as_branches(drawn, kept, generation)
        branches = branches if sampler.branch_turns is None else cut(branches, sampler.branch_turns)
        if sampler.together:
            forks, tokens = forks + len(token), tokens + int(branches.learnable_tokens)
            newest = newest.with_further(
                branches, newest.group_of_token.labels[token].repeat_interleave(sampler.branches)
            )
            pieces = [newest]
            continue
        newest = branches
        pieces.append(newest)
    nothing = torch.zeros(x.trajectories, dtype=torch.bool)
    return (Experience.concatenate(pieces) if pieces else as_roots(x).select(nothing)), (forks, tokens)


def _leaves_of_nodes(node: Int[Tensor, " tokens"], leaf: Int[Tensor, " tokens"]) -> tuple[Tensor, Tensor]:
    """The first and the last leaf that comes through each node."""
    first = torch.full((int(node.max()) + 1,), len(leaf)).scatter_reduce(0, node, leaf, "amin")
    return first, torch.zeros_like(first).scatter_reduce(0, node, leaf, "amax")


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
    first, last = _ranges(leaves)
    start = starts
    if start is None:
        high = probability.cumsum(0)[last]
        start = _place(high, torch.rand(groups, dtype=torch.float64, generator=source) * high[-1])
    uniform = torch.rand((groups, size), dtype=torch.float64, generator=source)
    return _packed(leaves, _within(probability, first[start], last[start], uniform), source)


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
    said_first = leaves.action[leaves.trajectory_of_token.first()]
    upper = leaves.group_of_trajectory.sum(probability).cumsum(0)
    drawn = torch.rand(sampler.prompts_per_step, dtype=torch.float64, generator=source)
    start = _place(upper, drawn * upper[-1])
    first, last = _ranges(leaves)
    chosen = []
    for token in tokens:
        uniform = torch.rand((len(start), 1), dtype=torch.float64, generator=source)
        chosen.append(_within(given_first.where(said_first == token, 0.0), first[start], last[start], uniform))
    return _packed(leaves, torch.cat(chosen, 1), source)


def _ranges(leaves: Experience) -> tuple[Int[Tensor, " starts"], Int[Tensor, " starts"]]:
    """The first and the last leaf of every start."""
    last = leaves.group_of_trajectory.size().cumsum(0) - 1
    return torch.cat([last.new_zeros(1), last[:-1] + 1]), last


def _within(
    probability: Float64[Tensor, " leaves"],
    first: Int[Tensor, " groups"],
    last: Int[Tensor, " groups"],
    uniform: Float64[Tensor, "groups size"],
) -> Int[Tensor, "groups size"]:
    """The leaves of these ranges at which uniform numbers point."""
    upper = probability.cumsum(0)
    low, high = torch.cat([upper.new_zeros(1), upper])[first], upper[last]
    chosen = _place(upper, torch.lerp(low[:, None], high[:, None], uniform))
    # What rounding may do at the edge of a range must not lead into another one.
    return chosen.clamp(first[:, None], last[:, None])


def _packed(leaves: Experience, chosen: Int[Tensor, "groups size"], source: torch.Generator) -> Experience:
    """Groups of these leaves, each with a start of its own."""
    groups, size = chosen.shape
    x = leaves.select(chosen.reshape(-1))
    return x.replace(
        group_of_trajectory=Partition.from_sizes(torch.full((groups,), size)),
        domain_of_group=Partition.whole(groups),
        task_id=leaves.group_of_trajectory.labels[chosen[:, 0]],
        seed=torch.randint(2**63 - 1, (groups * size,), generator=source),
    )


def _place(upper: Float64[Tensor, " cells"], point: Float64[Tensor, "..."]) -> Int[Tensor, "..."]:
    """The cell in which each point lies; cells end at ``upper``, and empty ones hold nothing."""
    return torch.searchsorted(upper, point, right=True).clamp_(max=len(upper) - 1)
