"""How good found evidence is: ranked pages by NDCG, regions by the overlap of boxes."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from itertools import zip_longest
from typing import Literal

import numpy as np
from jaxtyping import Float64

Matching = Literal["clipped", "one_to_one", "released"]
"""How a region's precision counts; see :func:`region_f1`."""

Box = Sequence[float]
"""``(x1, y1, x2, y2)``, from the upper left corner to the lower right one, which is not part of it."""

_EPS = 1e-8


def merged(lists: Sequence[Sequence[Hashable]], depth: int = 3) -> list[Hashable]:
    """One ranking of several searches: all their first results, then all second ones, up to ``depth``, each once."""
    missing = object()
    ranks = zip_longest(*(found[:depth] for found in lists), fillvalue=missing)
    return list(dict.fromkeys(page for rank in ranks for page in rank if page is not missing))


def ndcg(ranked: Iterable[Hashable], gold: Iterable[Hashable]) -> float:
    """``sum_{i: ranked_i in gold} 1 / log2(i + 1) / sum_{i=1}^{|gold|} 1 / log2(i + 1)``, ``i`` from 1; in [0, 1].

    Pages are opaque names and count once, where they stand first. The best order has all of ``gold`` in front, also
    where fewer pages are ranked. 0 without gold pages.
    """
    wanted = set(gold)
    found = np.array([page in wanted for page in dict.fromkeys(ranked)], dtype=np.float64)
    best = _gain(np.ones(len(wanted)))
    return _gain(found) / best if wanted else 0.0


def iou(one: Box, other: Box) -> float:
    """Intersection over union of two boxes; 0 for one of the wrong length or without area."""
    return float(overlaps([one], [other])[0, 0])


def overlaps(ones: Sequence[Box], others: Sequence[Box]) -> Float64[np.ndarray, "ones others"]:
    """:func:`iou` of every pair."""
    first, second = _corners(ones)[:, None], _corners(others)[None]
    low = np.maximum(first[..., :2], second[..., :2])
    high = np.minimum(first[..., 2:], second[..., 2:])
    shared = (high - low).clip(min=0).prod(-1)
    union = _area(first) + _area(second) - shared
    result: Float64[np.ndarray, "ones others"] = np.divide(shared, union, out=np.zeros_like(union), where=union > 0)
    return result


def region_f1(
    predicted: Sequence[Box], gold: Sequence[Box], matching: Matching = "clipped", threshold: float = 0.5
) -> float:
    """``F1 = 2 p r / (p + r + 1e-8)`` with recall ``r = hits / |gold|`` and precision ``p = hits / |predicted|``.

    A hit is a gold box that overlaps some prediction by an IoU of ``threshold`` or more (arXiv 2604.14967, released
    code). Hits count gold boxes, so one prediction may hit two of them, and ``p`` is then above 1.

    matching: ``clipped`` takes 1 for such a ``p``; ``one_to_one`` lets every prediction hit one gold box, as many as
    can be paired; ``released`` leaves ``p``, and with it F1, above 1.

    Without gold boxes it is 1 when nothing was predicted and 0 else; with gold boxes and no prediction it is 0.
    """
    if not gold or not predicted:
        return float(not gold and not predicted)
    hit = overlaps(gold, predicted) >= threshold
    hits = _pairs(hit) if matching == "one_to_one" else int(hit.any(1).sum())
    recall, precision = hits / len(gold), hits / len(predicted)
    if matching == "clipped":
        precision = min(precision, 1.0)
    return 2 * precision * recall / (precision + recall + _EPS)


def _gain(relevance: Float64[np.ndarray, " pages"]) -> float:
    return float((relevance / np.log2(np.arange(2, len(relevance) + 2))).sum())


def _corners(boxes: Sequence[Box]) -> Float64[np.ndarray, "boxes 4"]:
    """The boxes as an array; what is no box has no area."""
    kept = [box if len(box) == 4 and box[2] > box[0] and box[3] > box[1] else (0, 0, 0, 0) for box in boxes]
    return np.array(kept, dtype=np.float64).reshape(len(boxes), 4)


def _area(corners: Float64[np.ndarray, "*shape 4"]) -> Float64[np.ndarray, "*shape"]:
    return np.asarray((corners[..., 2:] - corners[..., :2]).prod(-1))


def _pairs(hit: np.ndarray) -> int:
    """Most pairs of a row and a column that hit, each row and column once."""
    from scipy.optimize import linear_sum_assignment  # It takes a while to import, and most tasks do without it.

    rows, columns = linear_sum_assignment(hit, maximize=True)
    return int(hit[rows, columns].sum())
