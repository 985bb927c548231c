"""Ranked pages and drawn boxes: NDCG, intersection over union, and F1, worked by hand and against another library."""

from __future__ import annotations

import math
from random import Random

import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from stratagem.tasks.evidence import iou, merged, ndcg, overlaps, region_f1

# ---- pages ----------------------------------------------------------------------------------------------------------


def test_a_page_at_the_second_rank_is_worth_one_over_log2_of_three():
    assert ndcg(["A", "B", "C"], {"B"}) == pytest.approx(0.630930, abs=1e-6)


def test_lists_are_merged_rank_by_rank_without_repetition():
    lists = [["A", "B", "C"], ["B", "D", "E"]]
    assert merged(lists) == ["A", "B", "D", "C", "E"]
    assert ndcg(merged(lists), {"B"}) == pytest.approx(0.630930, abs=1e-6)
    assert merged([["A"], [], ["B", "C", "D", "E"]]) == ["A", "B", "C", "D"]
    assert merged(lists, depth=1) == ["A", "B"]
    assert merged([]) == []


def test_without_a_search_or_gold_pages_it_is_nothing():
    assert ndcg([], {"A"}) == ndcg(["A"], []) == ndcg([], []) == 0


def test_gold_pages_beyond_what_is_ranked_keep_it_below_one():
    ideal = 1 + 1 / math.log2(3)
    assert ndcg(["A"], {"A", "B"}) == pytest.approx(1 / ideal)
    assert ndcg(["B", "A", "C"], {"A", "B"}) == 1
    # A page that is listed twice counts once, where it stands first.
    assert ndcg(["A", "A"], {"A", "B"}) == pytest.approx(1 / ideal)


def test_names_of_pages_are_opaque():
    """As sets of letters these would be the same page."""
    assert ndcg(["ab"], {"ba"}) == 0 and ndcg([("doc", 1)], [("doc", 1)]) == 1


@pytest.mark.parametrize("seed", range(20))
def test_it_is_scikit_learns_where_all_gold_pages_are_ranked(seed):
    random = Random(seed)
    count = random.randint(2, 12)
    pages = list(range(count))
    gold = random.sample(pages, random.randint(1, count))
    random.shuffle(pages)
    relevance = np.array([[float(page in gold) for page in pages]])
    scores = -np.arange(count, dtype=float)[None]
    assert ndcg(pages, gold) == pytest.approx(ndcg_score(relevance, scores))


# ---- regions --------------------------------------------------------------------------------------------------------


def test_intersection_over_union_by_hand():
    assert iou((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert iou((0, 0, 2, 2), (0, 0, 2, 2)) == 1
    assert iou((0, 0, 2, 2), (2, 2, 4, 4)) == 0


@pytest.mark.parametrize("bad", [(3, 0, 1, 2), (0, 2, 2, 2), (1, 1, 1, 1), (0, 0, 2), (0, 0, 2, 2, 2), ()])
def test_what_is_no_box_overlaps_nothing_itself_included(bad):
    assert iou(bad, (0, 0, 2, 2)) == iou((0, 0, 2, 2), bad) == iou(bad, bad) == 0


def test_all_pairs_at_once_are_the_pairs_one_by_one():
    random = Random(0)
    boxes = [tuple(random.randint(0, 6) for _ in range(4)) for _ in range(60)]
    table = overlaps(boxes[:7], boxes[7:])
    assert table.shape == (7, 53) and (table > 0).any()
    assert table.tolist() == [[iou(one, other) for other in boxes[7:]] for one in boxes[:7]]
    assert overlaps([], boxes).shape == (0, 60)


def test_one_of_two_regions_found_is_an_f1_of_two_thirds():
    gold = [(0, 0, 2, 2), (4, 4, 6, 6)]
    assert region_f1([(0, 0, 2, 2)], gold) == pytest.approx(2 / 3)
    assert region_f1([(0, 0, 2, 2), (0, 0, 2, 2)], gold[:1]) == pytest.approx(2 / 3)
    assert region_f1(gold, gold) == pytest.approx(1)
    assert region_f1([(6, 0, 8, 2)], gold) == 0


def test_a_hit_takes_an_overlap_of_one_half():
    gold = [(0, 0, 2, 2)]
    assert region_f1([(0, 0, 4, 2)], gold) == pytest.approx(1)
    assert region_f1([(0, 0, 3, 3)], gold) == 0
    assert region_f1([(0, 0, 3, 3)], gold, threshold=0.4) == pytest.approx(1)


def test_nothing_to_find_and_nothing_drawn():
    assert region_f1([], []) == 1
    assert region_f1([(0, 0, 2, 2)], []) == region_f1([], [(0, 0, 2, 2)]) == 0


def test_one_box_over_two_regions_by_each_way_of_matching():
    """Both halves overlap it by one half: two hits of one prediction."""
    gold, drawn = [(0, 0, 2, 2), (2, 0, 4, 2)], [(0, 0, 4, 2)]
    assert region_f1(drawn, gold, "clipped") == pytest.approx(1)
    assert region_f1(drawn, gold, "one_to_one") == pytest.approx(2 / 3)
    assert region_f1(drawn, gold, "released") == pytest.approx(4 / 3)


@pytest.mark.parametrize("seed", range(20))
def test_matching_one_to_one_never_says_more_than_clipping_and_clipping_never_more_than_the_released_code(seed):
    random = Random(seed)

    def box() -> tuple[int, int, int, int]:
        x, y = random.randint(0, 5), random.randint(0, 5)
        return x, y, x + random.randint(1, 3), y + random.randint(1, 3)

    drawn, gold = ([box() for _ in range(random.randint(1, 6))] for _ in range(2))
    strict, clipped, released = (region_f1(drawn, gold, kind) for kind in ("one_to_one", "clipped", "released"))
    assert 0 <= strict <= clipped <= min(released, 1) + 1e-12
