"""Answers found in a tree: where a tool has answered an episode goes on in several ways, and their ends vote."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from stratagem.errors import InputError
from stratagem.language.chat import ChatFormat
from stratagem.language.engine import Engine
from stratagem.language.episodes import Episode
from stratagem.language.forks import Fork, branches
from stratagem.language.rollout import Live, act, advance, finish, start
from stratagem.language.sampling import SamplingParams
from stratagem.seeding import derive
from stratagem.tasks.task import Observation, Split, Task
from stratagem.watched import Watch


@dataclass(frozen=True)
class Leaf:
    """An episode that came to an answer, and what its environment showed last."""

    episode: Episode
    shown: Observation

    @property
    def mean_logp(self) -> float:
        """Mean log-probability of all its tokens, those it shares with others included."""
        logps = [value for turn in self.episode.turns for value in turn.logp or ()]
        return sum(logps) / len(logps)


def by_answer(leaf: Leaf) -> Hashable:
    """Leaves with the same answer (:meth:`Task.answer`) vote together."""
    return leaf.episode.answer


def by_result(leaf: Leaf) -> Hashable:
    """Leaves whose answers came to the same state vote together: queries with the same rows.

    For environments that end with what an answer led to; one that ends by telling right from wrong must not be asked.
    """
    return leaf.shown.state_key


@dataclass(frozen=True)
class Grown:
    """A tree.

    leaves: in the order in which they ended.  sampled: tokens in all, shared ones once.  read: tokens that the engine
    was given to read; a branch reads again what it shares, unless the engine keeps it.  pruned: branches cut off.
    lost: those that ended without an answer.
    """

    leaves: tuple[Leaf, ...]
    sampled: int
    read: int
    pruned: int
    lost: int

    def chosen(self, vote: Callable[[Leaf], Hashable] = by_answer) -> Leaf | None:
        """Of the most leaves that vote together, the one with the highest ``mean_logp``; None without a leaf.

        Where several are the most, the highest ``mean_logp`` of any of theirs decides.
        """
        if not self.leaves:
            return None
        place = majority([vote(leaf) for leaf in self.leaves], [leaf.mean_logp for leaf in self.leaves])
        return self.leaves[place]


@dataclass(frozen=True)
class Growth:
    """How a tree grows.

    branches: ways on from a place where a tool has answered, at least 1; there is one from the start.  leaves: paths
    at most, at least 1.  call: what of a turn two siblings must have in common, beside what they were shown, to be the
    same, such as its query without the thoughts before it.

    Raises :class:`InputError` for a number below 1.
    """

    branches: int = 3
    leaves: int = 8
    call: Callable[[str], Hashable] = str.strip

    def __post_init__(self) -> None:
        for name in ("branches", "leaves"):
            if getattr(self, name) < 1:
                raise InputError(f"growth.{name} = {getattr(self, name)}: must be at least 1")


def majority(votes: Sequence[Hashable], scores: Sequence[float]) -> int:
    """Place of the vote that is most frequent and, of those, has the highest score; the first of equals.

    Raises ``ValueError`` without votes.
    """
    count = {vote: votes.count(vote) for vote in votes}
    return max(range(len(votes)), key=lambda place: (count[votes[place]], scores[place], -place))


def grow(
    task: Task,
    split: Split,
    root: Episode,
    engine: Engine,
    chat: ChatFormat,
    params: SamplingParams,
    watch: Watch,
    growth: Growth = Growth(),
) -> Grown:
    """Play a fresh episode as a tree (tree decoding, arXiv 2505.12768; its details are reconstructions).

    Turn after turn all paths go on side by side, each in ``growth.branches`` ways once a tool has answered it, as long
    as there are not more than ``growth.leaves`` paths, those that ended included; places are given out one to each path
    in turn. A path is cut off when its last two calls failed and were told the same, and when a sibling before it made
    the same call and was shown the same; never the last one. With ``branches=1`` it is the episode as
    :func:`~stratagem.language.rollout.play` plays it, token for token.

    A branch is a further episode with a seed of its own, led to its place by the same actions, and so with the same
    results wherever an episode follows from its number and the actions.
    """
    frontier = start(task, split, [root], chat, watch)
    leaves: list[Leaf] = []
    sampled = read = pruned = lost = 0
    try:
        while frontier:
            families = [[one] for one in frontier]
            for one, parent in _copies(task, split, frontier, growth, len(leaves), chat, watch):
                families[parent].append(one)
            frontier = [one for family in families for one in family]
            read += sum(len(one.unread) + (0 if one.sessions else len(one.said)) for one in frontier)
            before = sum(one.written for one in frontier)
            acting = frontier
            act(acting, engine, params)
            sampled += sum(one.written for one in acting) - before
            frontier = advance(acting, chat, watch, engine)
            going = {id(one) for one in frontier}
            ended = [one for one in acting if id(one) not in going]
            answered = [one for one in ended if one.episode.failure is None and one.episode.answer >= 0]
            leaves += [Leaf(one.episode, one.observation) for one in answered]
            lost += len(ended) - len(answered)
            cut = _cut(families, going, growth, spared=not leaves)
            finish(cut, engine, watch)
            pruned += len(cut)
            gone = {id(one) for one in cut}
            frontier = [one for one in frontier if id(one) not in gone]
    finally:
        finish(frontier, engine, watch)
    return Grown(tuple(leaves), sampled, read, pruned, lost)


def _copies(
    task: Task, split: Split, frontier: list[Live], growth: Growth, ended: int, chat: ChatFormat, watch: Watch
) -> list[tuple[Live, int]]:
    """Further ways on from where each of these is, and from which; none from where nothing was said yet."""
    free = growth.leaves - ended - len(frontier)
    begun = [place for place, one in enumerate(frontier) if one.episode.turns]
    wanted = [(place, number) for number in range(1, growth.branches) for place in begun][: max(free, 0)]
    episodes, forks = [], []
    for place, number in wanted:
        origin = frontier[place].episode
        seed = derive(origin.seed, "tree", len(origin.turns), number)
        episodes.append(Episode(origin.index, origin.sample, seed, group=origin.group))
        forks.append(Fork(origin, origin.length))
    parents = {id(episode): place for episode, (place, _) in zip(episodes, wanted, strict=True)}
    led = branches(task, split, forks, episodes, chat, watch, None)
    return [(one, parents[id(one.episode)]) for one in led]


def _cut(families: list[list[Live]], going: set[int], growth: Growth, spared: bool) -> list[Live]:
    """Paths that only repeat a failure or a sibling. spared: whether one must be left."""
    cut: list[Live] = []
    for family in families:
        seen: set[Hashable] = set()
        for one in family:
            if id(one) not in going:
                continue
            made = (growth.call(one.episode.turns[-1].text), one.observation.state_key, one.observation.text)
            if made in seen or _fails_again(one):
                cut.append(one)
            seen.add(made)
    return cut[1:] if spared and len(cut) == len(going) else cut


def _fails_again(one: Live) -> bool:
    """Whether the last two calls failed and were told the same."""
    last = one.episode.turns[-2:]
    return (
        len(last) == 2 and all(turn.ran is False for turn in last) and last[1].observation.text == one.observation.text
    )
