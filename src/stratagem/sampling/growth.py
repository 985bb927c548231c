"""The paths of trees that are being written: what is known of each, which are cut, and which go on in several ways."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from stratagem.sampling.online import RULES, OnlineTree, Uncertainty

SHORT, LONG = 4, 8
"""Tokens of the two windows."""

LOST = -1
"""In the place of a rule: of a path whose episode was lost."""


@dataclass(frozen=True, eq=False)
class History:
    """What rules have to remember of every path; windows end with the newest and begin with zeros.

    seen: distributions so far.  last: ``C^T`` of the newest.
    """

    entropy: Float64[Tensor, "paths short"]
    confidence: Float64[Tensor, "paths long"]
    seen: Int[Tensor, " paths"]
    lowest: Float64[Tensor, " paths"]
    last: Float64[Tensor, " paths"]
    falls: Int[Tensor, " paths"]
    rises: Int[Tensor, " paths"]
    written: Int[Tensor, " paths"]

    @classmethod
    def blank(cls, paths: int) -> History:
        """Of paths that have not begun."""
        none, nothing = torch.zeros(paths, dtype=torch.int64), torch.zeros(paths, dtype=torch.float64)
        short, long = nothing.unsqueeze(1).repeat(1, SHORT), nothing.unsqueeze(1).repeat(1, LONG)
        return cls(short, long, none, nothing + torch.inf, nothing - torch.inf, none, none, none)

    def shown(
        self, entropy: Float64[Tensor, " paths"], confidence: Float64[Tensor, " paths"]
    ) -> tuple[History, Uncertainty]:
        """After one more distribution, and what is then known of the paths."""
        before = self.entropy.sum(1) / self.seen.clamp(1, SHORT)
        change = torch.where(self.seen > 0, entropy - before, 0.0)
        confidences = torch.cat([self.confidence[:, 1:], confidence.unsqueeze(1)], 1)
        seen = self.seen + 1
        group = confidences[:, -SHORT:].sum(1) / seen.clamp(max=SHORT)
        tail = confidences.sum(1) / seen.clamp(max=LONG)
        lowest = torch.minimum(self.lowest, group)
        falls = torch.where(tail < self.last, self.falls + 1, 0)
        rises = torch.where(change > 0, self.rises + 1, 0)
        entropies = torch.cat([self.entropy[:, 1:], entropy.unsqueeze(1)], 1)
        after = History(entropies, confidences, seen, lowest, tail, falls, rises, self.written)
        return after, Uncertainty(entropy, group, tail, change, lowest, falls, rises, self.written)

    def __getitem__(self, rows: Tensor) -> History:
        return History(*(values[rows] for values in vars(self).values()))

    def put(self, rows: Int[Tensor, " some"], others: History) -> History:
        """With these rows replaced."""
        pairs = zip(vars(self).values(), vars(others).values(), strict=True)
        return History(*(values.index_copy(0, rows, fresh) for values, fresh in pairs))

    def followed_by(self, others: History) -> History:
        """These rows and then the others."""
        pairs = zip(vars(self).values(), vars(others).values(), strict=True)
        return History(*(torch.cat(pair) for pair in pairs))


@dataclass(frozen=True, eq=False)
class Step:
    """What becomes of paths at a token, in the order in which they were shown.

    cut: which end here, without it.  token: with which a path goes on that goes on in several ways; -1: as it is drawn.
    place: of the path that each new one comes off.  first: token that each new one goes on with.  path: its number.
    """

    cut: Bool[Tensor, " paths"]
    token: Int[Tensor, " paths"]
    place: Int[Tensor, " fresh"]
    first: Int[Tensor, " fresh"]
    path: Int[Tensor, " fresh"]


@dataclass(frozen=True, eq=False)
class Paths:
    """All paths there have been, a row each.

    parent: which it came off, -1 for a root.  taken_over: its tokens until then.  length: tokens now.
    rule: by which it was cut, 0 while it was not (:data:`stratagem.sampling.online.RULES`).  penalty: of what was cut.
    """

    group: Int[Tensor, " paths"]
    parent: Int[Tensor, " paths"]
    taken_over: Int[Tensor, " paths"]
    length: Int[Tensor, " paths"]
    rule: Int[Tensor, " paths"]
    penalty: Float64[Tensor, " paths"]


@dataclass(eq=False)
class Growth:
    """Trees of some groups while they are written, one decision for all paths at every token.

    sampler: by whose rules.  leaves: how many paths each group may have at once.  vocabulary: tokens to choose among.

    Whoever writes shows the distributions of the next token (:meth:`shown`), of all paths that go on or of some, and
    writes as it is told. The order in which paths are shown does not matter.  spared: groups whose last path would have
    been cut.
    """

    sampler: OnlineTree
    leaves: Sequence[int]
    vocabulary: int
    paths: Paths = field(init=False)
    spared: Bool[Tensor, " groups"] = field(init=False)

    def __post_init__(self) -> None:
        self._branch, self._prune = self.sampler.within(self.vocabulary)
        most = torch.tensor(self.leaves, dtype=torch.int64)
        group = torch.arange(len(most)).repeat_interleave(most.clamp(max=self.sampler.roots))
        none = torch.zeros_like(group)
        self.paths = Paths(group, none - 1, none, none.clone(), none.clone(), none.double())
        self._most, self.spared = most, torch.zeros(len(most), dtype=torch.bool)
        self._history = History.blank(len(group))

    # ---- growing ---------------------------------------------------------------------------------------------------

    # What is remembered must outlive the inference mode of whoever shows.
    @torch.inference_mode(False)
    def shown(self, path: Int[Tensor, " paths"], logp: Float[Tensor, "paths vocabulary"]) -> Step:
        """What becomes of these paths, whose next token has these log-probabilities."""
        order = path.argsort()
        number, ordered = path[order], logp[order.to(logp.device)]
        entropy = torch.special.entr(ordered.double().exp()).sum(1).cpu()
        history, known = self._history[number].shown(entropy, self.sampler.sure(ordered).cpu())
        cut = self._cut(number, known, ordered)
        extra = self._places(number, cut, known)
        several = extra > 0
        written = torch.where(several, 0, history.written) + 1
        history = replace(history, written=written)
        self._history = self._history.put(number, history)
        self.paths = replace(self.paths, length=self.paths.length.index_add(0, number, (~cut).long()))

        best = ordered.topk(int(extra.max()) + 1 if len(extra) else 1, dim=1).indices.cpu()
        parent = torch.arange(len(number)).repeat_interleave(extra)
        rank = torch.arange(len(parent)) - (extra.cumsum(0) - extra)[parent] + 1
        fresh = self._come_off(number[parent], history[parent])
        token, gone = torch.full_like(path, -1), torch.zeros_like(cut)
        token[order], gone[order] = torch.where(several, best[:, 0], -1), cut
        return Step(gone, token, order[parent], best[parent, rank], fresh)

    def lose(self, path: Sequence[int]) -> None:
        """Give up paths whose episodes were lost."""
        self.paths.rule[list(path)] = LOST

    def adopt(self, other: Growth) -> None:
        """Be where another one is that began as a copy of this one and has grown since, in another process."""
        self.paths, self.spared, self._history = other.paths, other.spared, other._history

    def _cut(self, path: Tensor, known: Uncertainty, logp: Tensor) -> Bool[Tensor, " paths"]:
        if self._prune is None:
            return torch.zeros(len(path), dtype=torch.bool)
        rule, group = self._prune(known), self.paths.group[path]
        cut = rule > 0
        over = self._open() - torch.bincount(group[cut], minlength=len(self._most)) == 0
        last = torch.full_like(self._most, -1).scatter_reduce(0, group[cut], path[cut], "amax")
        spared = cut & over[group] & (path == last[group])
        self.spared[group[spared]] = True
        cut = cut & ~spared
        self.paths.rule[path[cut]] = rule[cut]
        if bool(cut.any()):
            self.paths.penalty[path] = torch.where(cut, self._prune.penalty(known, logp).cpu(), 0.0)
        return cut

    def _places(self, path: Tensor, cut: Tensor, known: Uncertainty) -> Int[Tensor, " paths"]:
        """How many further paths come off each of these, which stand in their order."""
        if self._branch is None:
            return torch.zeros(len(path), dtype=torch.int64)
        wanted = torch.where(cut, 0, self._branch(known).clamp(max=self.vocabulary) - 1)
        group = self.paths.group[path]
        order = group.argsort(stable=True)
        total = torch.zeros_like(self._most).index_add(0, group, wanted)
        before = (wanted[order].cumsum(0) - wanted[order])[order.argsort()] - (total.cumsum(0) - total)[group]
        free = (self._most - self._open())[group] - before
        return torch.minimum(wanted, free.clamp(min=0))

    def _open(self) -> Int[Tensor, " groups"]:
        """Paths of every group that were not cut."""
        return torch.bincount(self.paths.group[self.paths.rule == 0], minlength=len(self._most))

    def _come_off(self, parent: Tensor, history: History) -> Int[Tensor, " fresh"]:
        """New paths off these, one token longer than what they take over, as their parents are now."""
        old, count = self.paths, len(self.paths.group)
        length = old.length[parent]
        none = torch.zeros_like(parent)
        self.paths = Paths(
            group=torch.cat([old.group, old.group[parent]]),
            parent=torch.cat([old.parent, parent]),
            taken_over=torch.cat([old.taken_over, length - 1]),
            length=torch.cat([old.length, length]),
            rule=torch.cat([old.rule, none]),
            penalty=torch.cat([old.penalty, none.double()]),
        )
        self._history = self._history.followed_by(history)
        return torch.arange(count, count + len(parent))

    # ---- what has grown --------------------------------------------------------------------------------------------

    def left(self) -> tuple[Int[Tensor, " left"], Int[Tensor, " left"]]:
        """Paths that were not cut, group by group, and how many first tokens of each belong to one before it.

        What a path had to itself that was cut belongs to the first that came off it, as if it had gone on there.
        """
        taken_over, rank = heirs(self.paths.parent, self.paths.taken_over, self.paths.rule != 0)
        path = torch.nonzero(self.paths.rule == 0).squeeze(1)
        path = path[rank[path].argsort(stable=True)]
        path = path[self.paths.group[path].argsort(stable=True)]
        return path, taken_over[path]

    @property
    def tokens(self) -> int:
        """All that were written, shared ones once."""
        return int((self.paths.length - self.paths.taken_over).sum())


def heirs(
    parent: Int[Tensor, " paths"], taken_over: Int[Tensor, " paths"], gone: Bool[Tensor, " paths"]
) -> tuple[Int[Tensor, " paths"], Int[Tensor, " paths"]]:
    """Tokens that each path shares with one before it, and its rank, once those that are ``gone`` have left.

    The first that came off a path takes its place and its rank; each of the others then comes off the one before it.
    A path has a higher rank than the one it shares tokens with. A loop over what is gone: that is little.
    """
    above, shared, rank = parent.tolist(), taken_over.tolist(), list(range(len(parent)))
    below: dict[int, list[int]] = {}
    for path, origin in enumerate(above):
        below.setdefault(origin, []).append(path)
    for path in reversed(torch.nonzero(gone).squeeze(1).tolist()):
        below[above[path]].remove(path)
        children = sorted(below.pop(path, ()), key=lambda child: (shared[child], rank[child]))
        origin, held, place = above[path], shared[path], rank[path]
        for child in children:
            above[child], shared[child], held = origin, held, shared[child]
            below.setdefault(origin, []).append(child)
            origin = child
        if children:
            rank[children[0]] = place
    return torch.tensor(shared, dtype=torch.int64), torch.tensor(rank, dtype=torch.int64)


def figures(growths: Sequence[Growth]) -> dict[str, float]:
    """What :class:`~stratagem.sampling.OnlineTree` logs of trees that have grown; empty without any."""
    groups = sum(len(growth.leaves) for growth in growths)
    if not groups:
        return {}
    rule = torch.cat([growth.paths.rule for growth in growths])
    parent = torch.cat([growth.paths.parent for growth in growths])
    spared = sum(int(growth.spared.sum()) for growth in growths)
    counts = {
        "branches": int((parent >= 0).sum()),
        "pruned": int((rule > 0).sum()),
        **{f"pruned/{name}": int((rule == number).sum()) for number, name in enumerate(RULES, 1)},
        "leaves": int((rule == 0).sum()),
        "tokens": sum(growth.tokens for growth in growths),
        "spared": spared,
    }
    named = {f"tree/{name}": count / groups for name, count in counts.items()}
    if counts["pruned"]:
        penalty = torch.cat([growth.paths.penalty for growth in growths])
        named["tree/penalty"] = float(penalty[rule > 0].mean())
    return named
