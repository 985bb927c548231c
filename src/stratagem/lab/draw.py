"""Groups of trajectories drawn from the leaves of a tree, as many and as often as a sampler asks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.lab.online import Nodes
from stratagem.lab.online import grown as grown_online
from stratagem.lab.policy import NodeInputs
from stratagem.lab.ranges import place, within
from stratagem.partition import Partition
from stratagem.parts import Sampler
from stratagem.prompts import Reader
from stratagem.sampling import (
    Branching,
    Candidates,
    Guided,
    Improving,
    OnlineTree,
    Regrouped,
    Resampled,
    Rollouts,
    kept_groups,
    regrouped,
)
from stratagem.sampling.branching import as_branches, as_roots, cut
from stratagem.sampling.growth import Growth, figures
from stratagem.sampling.guided import led
from stratagem.sampling.resampling import failed_groups


@dataclass(frozen=True, eq=False)
class Drawn:
    """What a sampler got.

    kept: groups to learn from, perhaps none.  rounds: all rollouts from a start, round by round.
    rejected: how many groups of theirs the sampler did not want.  figures: of the sampler's curriculum.
    again: what sampling once more came to, where it was.
    grown: forks whose branches joined a group of theirs, and the tokens sampled in them.
    online: what grew while it was written, round by round.
    """

    kept: Experience
    rounds: list[Experience]
    rejected: int = 0
    figures: dict[str, float] = field(default_factory=dict)
    again: Regrouped | None = None
    grown: tuple[int, int] = (0, 0)
    online: list[Growth] = field(default_factory=list)

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
    step: int = 0,
    choice: Callable[[int], torch.Generator] | None = None,
    read: Reader | None = None,
    guide: Callable[[Sequence[int]], Float64[Tensor, " leaves"]] | None = None,
) -> Drawn:
    """``prompts_per_step`` groups; those the sampler rejects are replaced, up to ``refill_rounds`` times.

    leaves: all trajectories, one group per start, with the fields the batch is to have.  probability: of each.
    source: the generator of a round.  first: number of the first group, for samplers that name the start states.
    solver: probability of each trajectory when it is demonstrated, for samplers that want demonstrations.
    step: of the batch.  choice: the generator of a round by which a curriculum chooses; None: there is none, and
    ``sampler`` must not have one.  read: texts of start states, for a curriculum.
    guide: probability of each when every start is led by so many of the best tokens, for samplers that want that.

    Raises :class:`InputError` for a sampler that does not roll out the policy itself, or names a start state that is
    not there.
    """
    if not isinstance(sampler, Rollouts):
        raise InputError(f"sampler {sampler.part_name()}: the lab draws rollouts of the policy itself")
    if isinstance(sampler, Improving):
        # An episode of a game is one attempt, and no later one is shown it.
        sampler = sampler.from_problems()
    sampler.check_asked("the lab", *_CAN)
    if max(sampler.start_states, default=0) >= leaves.groups:
        raise InputError(
            f"sampler {sampler.part_name()}: start_states = {sampler.start_states}: the game has only the start states "
            f"0 to {leaves.groups - 1}"
        )

    online: list[Growth] = []

    def roll(groups: int, attempt: int) -> Experience:
        nonlocal first
        numbers = range(first, first + groups)
        first += groups
        if isinstance(sampler, Guided):
            assert guide is not None, "whoever collects says how starts are led"
            return _guided(leaves, probability, guide, numbers, sampler, source(attempt))
        starts, sizes = None, torch.full((groups,), sampler.group_size)
        if sampler.curriculum is not None or sampler.start_states:
            planned = sampler.planned(numbers, partial(choice or source, attempt), step, leaves.groups, read)
            starts, sizes = (torch.tensor(column) for column in zip(*planned, strict=True))
        if isinstance(sampler, OnlineTree):
            x, growth = _written(Nodes(leaves, probability), sampler, sizes, source(attempt), starts)
            online.append(growth)
            return x
        return draw(leaves, probability, groups, sizes, source(attempt), starts)

    kept = kept_groups(sampler, roll, step)
    rounds, x = [x for x, _ in kept.rounds], kept.x
    assert x is not None, "no episode is ever lost here"
    rejected = sum(len(keep) - int(keep.sum()) for _, keep in kept.rounds)
    if sampler.demonstrations and x.groups:
        assert solver is not None, "whoever collects says how the solver plays"
        x = _with_demonstrations(x, leaves, solver(), sampler.demonstrations, source(len(rounds)))
    grown = 0, 0
    if isinstance(sampler, Branching):
        x, grown = _branched(x, leaves, probability, sampler, source)
    if isinstance(sampler, Resampled):
        again = _resampled(x, leaves, probability, sampler, source(len(rounds)))
        return Drawn(again.x, rounds, rejected, kept.figures, again, grown)
    return Drawn(x, rounds, rejected, kept.figures | figures(online), grown=grown, online=online)


_CAN = ("curricula", "tempering", "exploration", "middles", "guidance", "perturbation", "online")
"""What a sampler may ask of the lab (:meth:`stratagem.sampling.Rollouts.check_asked`)."""


def _written(
    nodes: Nodes,
    sampler: OnlineTree,
    sizes: Int[Tensor, " groups"],
    source: torch.Generator,
    starts: Int[Tensor, " groups"] | None,
) -> tuple[Experience, Growth]:
    """Groups that grow while they are written, and how they did. starts: of the groups; None draws them, too."""
    leaves = nodes.leaves
    start = _drawn_starts(leaves, nodes.probability, len(sizes), source) if starts is None else starts
    first, last = (ends[start.repeat_interleave(sizes.clamp(max=sampler.roots))] for ends in _ranges(leaves))
    uniform = torch.rand((len(first), 1), dtype=torch.float64, generator=source)
    roots = within(nodes.probability, first, last, uniform).squeeze(1)
    growth, leaf, taken_over = grown_online(nodes, roots, sampler, sizes, source)
    left = torch.bincount(growth.paths.group[growth.paths.rule == 0], minlength=len(sizes))
    return as_branches(_packed(leaves, leaf.unsqueeze(1), source, left), taken_over, 0), growth


def _guided(
    leaves: Experience,
    probability: Float64[Tensor, " leaves"],
    guide: Callable[[Sequence[int]], Float64[Tensor, " leaves"]],
    groups: range,
    sampler: Guided,
    source: torch.Generator,
) -> Experience:
    """These groups, guided ones and unguided copies; a problem that no start is named for has one drawn."""
    copies = [sampler.copy(group) for group in groups]
    problems = sorted({problem for problem, _ in copies})
    if sampler.start_states:
        starts = [sampler.start_states[problem % len(sampler.start_states)] for problem in problems]
    else:
        starts = _drawn_starts(leaves, probability, len(problems), source).tolist()
    start = dict(zip(problems, starts, strict=True))
    choices = tuple(sampler.choices[min(number, len(sampler.choices) - 1)] for number in range(leaves.groups))
    pieces = []
    for guided, likely in ((True, guide(choices)), (False, probability)):
        begin = torch.tensor([start[problem] for problem, kind in copies if kind == guided], dtype=torch.int64)
        if len(begin):
            x = draw(leaves, likely, len(begin), sampler.group_size, source, begin)
            taken = torch.tensor(choices)[begin] if guided else torch.zeros_like(begin)
            pieces.append(led(x, x.group_of_trajectory.spread(taken)))
    return Experience.concatenate(pieces)


def _drawn_starts(
    leaves: Experience, probability: Float64[Tensor, " leaves"], count: int, source: torch.Generator
) -> Int[Tensor, " count"]:
    """Starts as the game draws them."""
    high = probability.cumsum(0)[_ranges(leaves)[1]]
    return place(high, torch.rand(count, dtype=torch.float64, generator=source) * high[-1])


def _resampled(
    x: Experience,
    leaves: Experience,
    probability: Float64[Tensor, " leaves"],
    sampler: Resampled,
    source: torch.Generator,
) -> Regrouped:
    """``x`` with what its failed groups bring when they are sampled once more, by a mixture with the uniform policy."""
    assert leaves.behavior_logp is not None and leaves.action is not None and x.task_id is not None
    failed = torch.nonzero(failed_groups(x)).squeeze(1)
    if not len(failed):
        return Regrouped(x)
    tokens = int(leaves.action.max()) + 1
    mixed = ((1 - sampler.mixture) * leaves.behavior_logp.double().exp() + sampler.mixture / tokens).log()
    change = leaves.trajectory_of_token.sum(mixed - leaves.behavior_logp.double()).exp()
    # What was never taken has no finite change; no softmax has such a leaf, unless it overflows.
    likely = torch.where(probability > 0, probability * change, 0.0)
    perturbed = leaves.replace(behavior_logp=mixed.to(leaves.behavior_logp.dtype))
    starts = x.task_id[failed]
    return regrouped(x, draw(perturbed, likely, len(failed), sampler.resamples, source, starts), failed)


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
        drawn = _packed(leaves, within(probability, first[node], last[node], uniform), drawing)
        kept = newest.trajectory_of_token.position()[token].repeat_interleave(sampler.branches)
        branches = as_branches(drawn, kept, generation)
        branches = branches if sampler.branch_turns is None else cut(branches, sampler.branch_turns)
        if sampler.together:
            forks, tokens = forks + len(token), tokens + int(branches.learnable_tokens)
            newest = newest.with_others(
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
    size: int | Int[Tensor, " groups"],
    source: torch.Generator,
    starts: Int[Tensor, " groups"] | None = None,
) -> Experience:
    """``groups`` groups of ``size`` trajectories, those of a group from one start, with the fields of ``leaves``.

    size: of all groups, or of each.  starts: of the groups; None draws them, too.
    """
    first, last = _ranges(leaves)
    start = _drawn_starts(leaves, probability, groups, source) if starts is None else starts
    sizes = torch.as_tensor(size).expand(groups)
    start = start.repeat_interleave(sizes)
    uniform = torch.rand((len(start), 1), dtype=torch.float64, generator=source)
    return _packed(leaves, within(probability, first[start], last[start], uniform), source, sizes)


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
    start = place(upper, drawn * upper[-1])
    first, last = _ranges(leaves)
    chosen = []
    for token in tokens:
        uniform = torch.rand((len(start), 1), dtype=torch.float64, generator=source)
        chosen.append(within(given_first.where(said_first == token, 0.0), first[start], last[start], uniform))
    return _packed(leaves, torch.cat(chosen, 1), source)


def _ranges(leaves: Experience) -> tuple[Int[Tensor, " starts"], Int[Tensor, " starts"]]:
    """The first and the last leaf of every start."""
    last = leaves.group_of_trajectory.size().cumsum(0) - 1
    return torch.cat([last.new_zeros(1), last[:-1] + 1]), last


def _packed(
    leaves: Experience,
    chosen: Int[Tensor, "groups size"],
    source: torch.Generator,
    sizes: Int[Tensor, " groups"] | None = None,
) -> Experience:
    """Groups of these leaves, each with a start of its own: the rows of ``chosen``, or so many of them one by one."""
    sizes = torch.full((chosen.shape[0],), chosen.shape[1]) if sizes is None else sizes
    chosen = chosen.reshape(-1)
    start = leaves.group_of_trajectory.labels[chosen[sizes.cumsum(0) - sizes]]
    return leaves.select(chosen).replace(
        group_of_trajectory=Partition.from_sizes(sizes),
        domain_of_group=leaves.domain_of_group.select(start),
        task_id=start,
        seed=torch.randint(2**63 - 1, (len(chosen),), generator=source),
    )
