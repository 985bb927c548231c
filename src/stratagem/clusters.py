"""Texts that say much the same, by the words they have in common: clusters of vectors of TF-IDF, or of others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from stratagem.errors import InputError

Embed = Callable[[Sequence[str]], Any]
"""Texts to vectors, [texts, width]: a sentence encoder, say. Directions are compared, so lengths say nothing."""


def text_clusters(
    texts: Sequence[str],
    distance: float = 0.3,
    linkage: Literal["nearest", "average", "farthest"] = "nearest",
    embed: Embed | None = None,
) -> list[int]:
    """The cluster of every text, from 0 in the order in which clusters first appear.

    Texts lie ``1 - cos`` apart. ``nearest``: what can be reached in steps of at most ``distance`` is one cluster
    (DBSCAN whose every point is a core), so clusters are of any shape, and long chains become one. ``average`` and
    ``farthest`` merge clusters as long as their members lie at most ``distance`` apart on average, or all of them
    (agglomerative); they take the square of the texts in memory. Equal texts are in one cluster, and one without a word
    is in no other.

    By default a text's vector is TF-IDF of its words (letters, digits and underscores, without regard to case), with
    the frequencies of the distinct texts given: texts without a common word lie 1 apart, whatever they mean.

    distance: in (0, 1).  embed: vectors to use instead.

    Raises :class:`InputError` for a distance out of range, vectors that do not fit, or without scikit-learn.
    """
    if not 0 < distance < 1:
        raise InputError(f"text_clusters: distance = {distance}: must be in (0, 1)")
    distinct = list(dict.fromkeys(texts))
    numbers = _clustered(distinct, distance, linkage, embed) if len(distinct) > 1 else [0] * len(distinct)
    order = {number: place for place, number in enumerate(dict.fromkeys(numbers))}
    of_text = {text: order[number] for text, number in zip(distinct, numbers, strict=True)}
    return [of_text[text] for text in texts]


def _clustered(texts: list[str], distance: float, linkage: str, embed: Embed | None) -> list[int]:
    import numpy as np

    try:
        from sklearn.cluster import DBSCAN, AgglomerativeClustering
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError:
        raise InputError("clusters of texts need scikit-learn: pip install 'stratagem[agents]'") from None
    if embed is None:
        try:
            vectors = TfidfVectorizer(token_pattern=r"\w+").fit_transform(texts)
        except ValueError:  # No text has a word.
            return list(range(len(texts)))
        length = np.sqrt(np.asarray(vectors.multiply(vectors).sum(1)).ravel())
    else:
        vectors = np.asarray(embed(texts), dtype=np.float64)
        if vectors.ndim != 2 or len(vectors) != len(texts) or not np.isfinite(vectors).all():
            raise InputError(f"text_clusters: embed: must give {len(texts)} finite vectors, not {vectors.shape}")
        length = np.linalg.norm(vectors, axis=1)
    said = np.flatnonzero(length > 0)
    numbers = np.arange(len(texts)) + len(texts)
    if len(said) > 1:
        vectors = vectors[said]
        if linkage == "nearest":
            found = DBSCAN(eps=distance, min_samples=1, metric="cosine").fit_predict(vectors)
        else:
            unit = (vectors if embed is not None else vectors.toarray()) / length[said, None]
            rule = "average" if linkage == "average" else "complete"
            model = AgglomerativeClustering(None, metric="precomputed", linkage=rule, distance_threshold=distance)
            found = model.fit_predict(np.clip(1 - unit @ unit.T, 0, 2))
        numbers[said] = found
    return [int(number) for number in numbers]
