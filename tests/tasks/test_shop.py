"""The shop task: the reward by hand, pages and links, what cannot be done, and how shops are made."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stratagem.errors import InputError
from stratagem.tasks import ShopTask, Step, make
from stratagem.tasks.goods import Product, Shop
from stratagem.tasks.shop import ShopEnvironment

SIZES = (("colour", ("blue", "red")), ("size", ("large", "small")))
PRODUCTS = (
    Product("p1", "norva", "jacket", ("wool", "striped"), SIZES, 36),
    Product("p2", "lindo", "jacket", ("wool", "plain"), (("colour", ("red",)), ("size", ("small",))), 50),
    Product("p3", "belsu", "lamp", ("felt", "striped"), SIZES, 20),
)
SHOP = Shop(PRODUCTS, "jacket", ("wool", "striped"), ("red", "small"), 40)
PAGE = "[p1] norva wool jacket, 36 dollars: wool, striped. colour: [blue], [red]{} size: [large], [small] [back] [buy]"


def play(*actions: str, shop: Shop = SHOP, page: int = 2, max_turns: int = 12) -> list[Step]:
    environment = ShopEnvironment(shop, page, max_turns)
    assert environment.reset().text == (
        "Buy a jacket that is wool and striped, in red and small, for at most 40 dollars. You can search."
    )
    return [environment.step(action) for action in actions]


def told(step: Step) -> str:
    return step.observation.text


def keys(*actions: str) -> list[int]:
    return [step.observation.state_key for step in play(*actions)]


# ---- the reward -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("actions", "met", "category"),
    [
        (("click[p1]", "click[red]", "click[small]"), 5, 1),
        (("click[p1]", "click[blue]", "click[small]"), 4, 1),
        (("click[p1]", "click[red]", "click[blue]"), 3, 1),
        (("click[p1]",), 3, 1),
        (("click[p2]", "click[red]", "click[small]"), 3, 1),
        (("click[p2]",), 1, 1),
        (("click[p3]", "click[red]", "click[small]"), 4, 0),
    ],
)
def test_the_reward_is_the_share_of_what_is_met_times_the_category(actions, met, category):
    last = play("search[wool striped]", *actions, "click[buy]", page=5)[-1]
    assert last.reward == pytest.approx(category * met / 5)
    assert last.done and not last.truncated and last.success is (met == 5 and category == 1)


def test_what_was_bought_is_noted_in_parts():
    last = play("search[lindo]", "click[p2]", "click[red]", "click[buy]")[-1]
    assert last.components == {"category": 1, "attributes": 0.5, "options": 0.5, "price": 0}
    assert set(last.components) <= set(ShopTask.reward_names) and ShopTask.reward_weights == (1, 0, 0, 0, 0, 0)


def test_the_last_choice_of_a_kind_counts_and_choices_are_forgotten_on_the_way_back():
    changed = play("search[norva]", "click[p1]", "click[blue]", "click[red]", "click[small]", "click[buy]")
    assert changed[-1].success and told(changed[3]) == PAGE.format(" (red)")
    left = ("search[norva]", "click[p1]", "click[red]", "click[small]", "click[back]", "click[p1]", "click[buy]")
    assert play(*left)[-1].reward == pytest.approx(3 / 5)


# ---- pages ----------------------------------------------------------------------------------------------------------


def test_products_are_ranked_by_the_words_they_have_rare_ones_first():
    assert [product.name for product in SHOP.found("striped wool jacket")] == ["p1", "p2", "p3"]
    assert [product.name for product in SHOP.found("Lamp wool")] == ["p3", "p1", "p2"]
    assert [product.name for product in SHOP.found("blue")] == ["p1", "p3"]
    assert SHOP.found("piano") == SHOP.found("") == []


def test_pages_are_turned_and_lead_back():
    steps = play("search[wool striped]", "click[Next]", "click[previous]", "click[p1]", "click[back]", "click[back]")
    assert [told(step) for step in steps] == [
        "Page 1 of 2: [p1] norva wool jacket, 36 dollars; [p2] lindo wool jacket, 50 dollars. [back] [next]",
        "Page 2 of 2: [p3] belsu felt lamp, 20 dollars. [back] [previous]",
        told(steps[0]),
        PAGE.format(""),
        told(steps[0]),
        "You can search.",
    ]
    assert not any(step.components or step.reward or step.done for step in steps)
    assert told(play("search[piano]")[0]) == "Nothing found. [back]"


def test_the_first_action_of_a_turn_is_what_it_does():
    assert told(play("I look. Search [norva] click[p1]")[0]).startswith("Page 1 of 1: [p1]")


def test_states_are_equal_where_page_and_choices_are():
    *_, one = keys("search[wool]", "click[p1]", "click[red]", "click[small]")
    *_, other = keys("search[wool]", "click[p2]", "click[back]", "click[p1]", "click[small]", "click[red]")
    assert one == other
    start, searched, product, back = keys("click[x]", "search[wool]", "click[p1]", "click[back]")
    assert start == ShopEnvironment(SHOP, 2).reset().state_key and searched == back
    assert len({start, searched, product}) == 3
    assert keys("search[wool]") != keys("search[striped]")


# ---- what cannot be done --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "error"),
    [
        ("", "write search"),
        ("buy", "write search"),
        ("search[]", "write search"),
        ("search[wool", "write search"),
        ("click[]", "no such thing"),
        ("click[buy]", "no such thing"),
        ("click[next]", "no such thing"),
        ("click[p3]", "no such thing"),
        ("click[red]", "no such thing"),
    ],
)
def test_what_cannot_be_done_is_told_counted_and_changes_nothing(action, error):
    first, wasted, *rest = play("search[norva]", action, "click[p1]", "click[red]", "click[small]", "click[buy]")
    assert error in told(wasted) and told(wasted).endswith(told(first))
    assert wasted.components == {"invalid": 1} and wasted.reward == 0 and not wasted.done
    assert wasted.observation.state_key == first.observation.state_key
    assert not wasted.executed and wasted.well_formed is (action in ("search[]",) or action.startswith("click"))
    assert rest[-1].success and all(step.executed and step.well_formed for step in (first, *rest))


def test_there_is_no_way_back_from_the_empty_search_and_no_option_of_another_product():
    assert play("click[back]")[0].components == {"invalid": 1}
    assert play("search[lindo]", "click[p2]", "click[large]")[-1].components == {"invalid": 1}


def test_who_buys_nothing_in_time_is_cut_and_earns_nothing():
    *before, cut = play("search[norva]", "click[p1]", "click[red]", max_turns=3)
    assert not any(step.done for step in before)
    assert cut.done and cut.truncated and not cut.success and cut.reward == 0
    assert play("search[norva]", "click[p1]", "click[buy]", max_turns=3)[-1].reward == pytest.approx(3 / 5)


# ---- shops ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "task", [ShopTask(), ShopTask(items=4, attributes=5, page=1), ShopTask(items=200, attributes=1)], ids=repr
)
@pytest.mark.parametrize("split", ["train", "test"])
def test_check_passes(task, split):
    assert task.check(9, split).corruptions_rejected == 9


def test_shops_are_of_the_size_asked_for_and_hold_products_that_almost_fit():
    for index in range(10):
        shop = ShopTask(items=12, attributes=2).shop("train", index)
        verdicts = [shop.judge(product, shop.options) for product in shop.products]
        assert len(shop.products) == 12 and len(shop.attributes) == 2 and shop.budget % 10 == 0
        assert any(verdict.full for verdict in verdicts)
        misses = [verdict for verdict in verdicts if verdict.category and verdict.met == verdict.conditions - 1]
        assert any(verdict.attributes == 1 for verdict in misses)
        assert any(verdict.options == 1 for verdict in misses)
        assert any(not verdict.price for verdict in misses)


def test_equal_numbers_are_equal_shops_and_the_splits_share_none():
    assert ShopTask().shop("train", 3) == ShopTask(max_new_tokens=9).shop("train", 3) != ShopTask().shop("train", 4)
    train, test = ({ShopTask().shop(split, index) for index in range(30)} for split in ("train", "test"))
    assert len(train) == 30 and not train & test


def test_shops_take_no_more_turns_than_there_are():
    task = ShopTask(items=60, attributes=1, page=1, max_turns=6)
    assert all(len(list(task.solution("train", index))) <= 6 for index in range(10))


def test_a_demonstrator_says_what_it_is_after():
    task = ShopTask()
    actions = ["search[x]", "click[next]", *list(task.solution("train", 0))[-4:]]
    assert task.subgoals("train", 0, actions) == [
        *("find it", "find it", "look at it", "choose its options", "choose its options", "buy it")
    ]
    make("structured:shop").check(3)


def test_a_budget_is_part_of_what_makes_a_purchase_right():
    dear = replace(SHOP, budget=30)
    assert dear.judge(PRODUCTS[0], ("red", "small")).reward == pytest.approx(4 / 5)
    assert SHOP.judge(PRODUCTS[0]._replace(price=40), ("red", "small")).full


def test_it_is_made_from_its_specification():
    assert make("shop:items=50,attributes=2,page=10,max_turns=20") == ShopTask(50, 2, 10, 20)


@pytest.mark.parametrize("option", ["items=3", "attributes=6", "attributes=0", "page=0", "max_turns=5", "coupons=1"])
def test_an_option_out_of_range_is_refused(option):
    with pytest.raises(InputError, match=option.split("=")[0]):
        make(f"shop:{option}")
