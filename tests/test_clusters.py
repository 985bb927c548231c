"""Clusters of texts by the words they share."""

from __future__ import annotations

import pytest

from stratagem.clusters import text_clusters
from stratagem.errors import InputError

MOVES = ["let us try another way", "Let us try another path!", "the area is six", "the area is six", "seven"]


@pytest.mark.parametrize("linkage", ["nearest", "average", "farthest"])
def test_texts_that_share_most_words_are_one_cluster(linkage):
    assert text_clusters(MOVES, 0.5, linkage) == [0, 0, 1, 1, 2]
    assert text_clusters(MOVES[::-1], 0.5, linkage) == [0, 1, 1, 2, 2]


def test_a_chain_is_one_cluster_of_the_nearest_and_several_of_the_farthest():
    chain = ["a b c d", "b c d e", "c d e f", "d e f g", "e f g h"]
    assert set(text_clusters(chain, 0.4, "nearest")) == {0}
    assert len(set(text_clusters(chain, 0.4, "farthest"))) > 1


def test_texts_without_a_word_are_in_no_other_cluster():
    assert text_clusters(["?!", "...", "?!"]) == [0, 1, 0]
    assert text_clusters(["?!", "yes it is", "", "yes it is so"], 0.4) == [0, 1, 2, 1]
    assert text_clusters([]) == [] and text_clusters(["one"]) == [0]


def test_other_vectors_may_say_what_is_alike():
    directions = {"warm": (1.0, 0.0), "hot": (5.0, 0.5), "cold": (-1.0, 0.0), "": (0.0, 0.0)}
    assert text_clusters(list(directions), embed=lambda texts: [directions[text] for text in texts]) == [0, 0, 1, 2]


def test_what_cannot_be_compared_is_refused():
    for distance in (0.0, 1.0):
        with pytest.raises(InputError, match="distance"):
            text_clusters(MOVES, distance)
    for vectors in ([[1.0]], [1.0, 2.0], [[1.0], [float("nan")]]):
        with pytest.raises(InputError, match="embed: must give 2 finite vectors"):
            text_clusters(["a", "b"], embed=lambda texts, vectors=vectors: vectors)


def test_without_scikit_learn_one_line_says_what_to_install(monkeypatch):
    import sys

    for module in [name for name in sys.modules if name.startswith("sklearn")] + ["sklearn", "sklearn.cluster"]:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=r"pip install 'stratagem\[agents\]'"):
        text_clusters(MOVES)
