"""The documents task: what every action shows, what each is worth by hand, judges that fail, and how pages are made."""

from __future__ import annotations

from itertools import pairwise

import pytest

from stratagem.errors import InputError
from stratagem.tasks import DocumentsTask, Step, make
from stratagem.tasks.documents import DocumentsEnvironment, Entry, Page, Request

ENTRY = Entry((41, 7), (88, 13), 2, 4)


def page(name: str, *entries: Entry, fine: bool = True) -> Page:
    """Zeros, and these entries."""
    grid = [[0] * 8 for _ in range(8)]
    for entry in entries:
        grid[entry.y][entry.x : entry.x + 2], grid[entry.y + 1][entry.x : entry.x + 2] = entry.key, entry.value
    return Page(name, tuple(map(tuple, grid)), entries, fine)


def request(fine: bool = True) -> Request:
    """What is asked for is on page 2; page 1 shares a number with it."""
    pages = (
        page("page 1", Entry((41, 9), (1, 2), 0, 0)),
        page("page 2", ENTRY, fine=fine),
        page("page 3", Entry((5, 6), (3, 4), 0, 0), fine=False),
        page("page 4", Entry((5, 8), (3, 4), 0, 0)),
    )
    return Request(pages, (("page 2", ENTRY),), 0)


QUIET = DocumentsTask(noise=0.0)

SEARCH, SELECT = "<search>41 7</search>", "<select>page 2</select>"
BOX, ANSWER = "<bbox>[2, 4, 4, 6]</bbox>", "<answer>88 13</answer>"


def play(*actions: str, asked: Request | None = None, task: DocumentsTask = QUIET) -> list[Step]:
    environment = DocumentsEnvironment(asked or request(), task)
    assert environment.reset().text == "What stands below 41 7?"
    return [environment.step(action) for action in actions]


def rewards(*actions: str, asked: Request | None = None, task: DocumentsTask = QUIET) -> dict[str, float]:
    """Of a whole episode, the answer's among them."""
    step = play(*actions, asked=asked, task=task)[-1]
    assert step.done
    return {"answer": step.reward, **step.components}


def total(noted: dict[str, float], task: DocumentsTask = QUIET) -> float:
    weights = dict(zip(task.reward_names, task.reward_weights, strict=True))
    return sum(weights[name] * value for name, value in noted.items())


# ---- what is shown --------------------------------------------------------------------------------------------------


def test_each_action_shows_more_of_less():
    told = [step.observation.text for step in play(SEARCH, SELECT, BOX, ANSWER)]
    assert told == [
        "<information>page 2, page 1, page 3</information>",
        "<information>page 2, every second row and column: 0 0 0 0 / 0 0 0 0 / 0 41 0 0 / 0 0 0 0</information>",
        "<information>41 7 / 88 13</information>",
        "the end",
    ]


def test_a_page_in_large_print_is_shown_whole():
    told = play(SEARCH, SELECT, asked=request(fine=False))[-1].observation.text
    assert told.startswith("<information>page 2: 0 0") and "0 0 88 13 0 0 0 0" in told


def test_a_box_beyond_the_page_shows_what_is_on_it():
    told = play(SEARCH, SELECT, "<bbox>[2,5,99,99]</bbox>")[-1].observation.text
    assert told == "<information>88 13 0 0 0 0 / 0 0 0 0 0 0 / 0 0 0 0 0 0</information>"


@pytest.mark.parametrize(
    ("action", "error"),
    [
        ("41 7", "write one of"),
        ("<search>41 7", "write one of"),
        (SELECT, "search first"),
        (BOX, "select a page first"),
    ],
)
def test_what_cannot_be_done_says_so_and_takes_its_turn(action, error):
    step = play(action)[0]
    assert error in step.observation.text and not step.done and not step.components


@pytest.mark.parametrize("box", ["[4,4,2,6]", "[2,4,4]", "[2,4,4,6,8]", "here", "[9,9,12,12]", "[1e3,0,2,2]", ""])
def test_a_box_that_holds_nothing_is_an_error_and_a_miss(box):
    steps = play(SEARCH, SELECT, f"<bbox>{box}</bbox>", ANSWER)
    assert "error: write [x1,y1,x2,y2]" in steps[2].observation.text
    assert steps[-1].components["region"] == 0


def test_only_what_was_listed_last_can_be_selected():
    told = play(SEARCH, "<select>page 4</select>")[-1].observation.text
    assert told == "<information>error: select one of page 2, page 1, page 3</information>"


def test_the_first_tag_of_a_turn_is_what_it_does():
    step = play(f"<think>where?</think>{SEARCH}{ANSWER}")[0]
    assert not step.done and "page 2" in step.observation.text


# ---- rewards --------------------------------------------------------------------------------------------------------


def test_all_perfect_is_one():
    noted = rewards(SEARCH, SELECT, BOX, ANSWER)
    assert noted == pytest.approx(
        {"answer": 1, "format": 1, "retrieval": 1, "selection": 1, "region": 1, "unjudged": 0}
    )
    assert total(noted) == pytest.approx(1)
    assert total(noted, DocumentsTask(reward="answer")) == 1


def test_perfect_evidence_without_an_answer_is_thirty_five_hundredths():
    task = DocumentsTask(noise=0.0, max_turns=4)
    steps = play(SEARCH, SELECT, BOX, "hm", task=task)
    assert steps[-1].done and steps[-1].truncated and not steps[-1].success
    assert total(rewards(SEARCH, SELECT, BOX, "hm", task=task)) == pytest.approx(0.35)


@pytest.mark.parametrize("before", [[], [SEARCH], [SELECT], [BOX]])
def test_an_answer_without_a_search_and_a_selection_is_worth_nothing_however_right(before):
    steps = play(*before, ANSWER)
    assert not steps[-1].success and total(rewards(*before, ANSWER)) == 0


def test_the_wrong_page_is_no_hit_where_a_right_one_is_listed():
    assert rewards(SEARCH, "<select>page 1</select>", ANSWER)["selection"] == 0
    assert rewards(SEARCH, "<select>page 1</select>", SELECT, ANSWER)["selection"] == 0.5


def test_where_no_right_page_is_listed_the_first_one_is():
    """With one page more the gold page is not among three."""
    elsewhere = "<search>5 6</search>"
    listed = play(elsewhere)[0].observation.text
    assert listed == "<information>page 3, page 4, page 1</information>"
    noted = rewards(elsewhere, "<select>page 3</select>", ANSWER)
    assert (noted["selection"], noted["retrieval"]) == (1, 0)
    assert rewards(elsewhere, "<select>page 4</select>", ANSWER)["selection"] == 0
    assert rewards(elsewhere, SELECT, ANSWER)["selection"] == 0


def test_lists_of_several_searches_are_merged_rank_by_rank():
    # First results: page 3, page 2.
    noted = rewards("<search>5 6</search>", SEARCH, SELECT, BOX, ANSWER)
    assert noted["retrieval"] == pytest.approx(0.630930, abs=1e-6)


def test_where_nothing_needs_a_closer_look_a_box_is_wrong():
    plain = request(fine=False)
    assert rewards(SEARCH, SELECT, ANSWER, asked=plain)["region"] == 1
    assert rewards(SEARCH, SELECT, BOX, ANSWER, asked=plain)["region"] == 0
    # So it is on a page with nothing that was asked for.
    assert rewards(SEARCH, "<select>page 1</select>", ANSWER)["region"] == 1


def test_boxes_belong_to_the_selection_before_them():
    both = rewards(SEARCH, "<select>page 1</select>", SELECT, BOX, ANSWER)
    assert both["region"] == pytest.approx(1)
    assert rewards(SEARCH, SELECT, "<select>page 1</select>", BOX, ANSWER)["region"] == 0
    assert rewards(SEARCH, SELECT, ANSWER)["region"] == 0
    assert rewards(SEARCH, SELECT, BOX, "<bbox>[0,0,2,2]</bbox>", ANSWER)["region"] == pytest.approx(2 / 3)


def test_matching_is_the_tasks_choice():
    twice = Entry((5, 5), (6, 6), 4, 4)
    asked = Request((page("page 1", ENTRY, twice), *request().pages[2:]), (("page 1", ENTRY), ("page 1", twice)), 0)
    found = {}
    for matching in ("clipped", "one_to_one", "released"):
        environment = DocumentsEnvironment(asked, DocumentsTask(noise=0.0, matching=matching))
        assert environment.reset().text == "What stands below 41 7 and 5 5?"
        actions = (SEARCH, "<select>page 1</select>", "<bbox>[2,4,6,6]</bbox>", "<answer>88 13 6 6</answer>")
        *_, last = [environment.step(action) for action in actions]
        assert last.success
        found[matching] = last.components["region"]
    assert found == pytest.approx({"clipped": 1, "one_to_one": 2 / 3, "released": 4 / 3})


# ---- judges ---------------------------------------------------------------------------------------------------------


class Lenient(DocumentsTask):
    """Half for one right number."""

    def judge(self, answer: str, request: Request) -> float:
        return 0.5 if answer.split()[0] == request.answer.split()[0] else 0.0


class Broken(DocumentsTask):
    def judge(self, answer: str, request: Request) -> float:
        if answer == "raise":
            raise TimeoutError("no judge")
        return float(answer)


def test_a_judge_of_ones_own_scores_the_answer():
    noted = rewards(SEARCH, SELECT, BOX, "<answer>88 99</answer>", task=Lenient(noise=0.0))
    assert noted["answer"] == 0.5 and total(noted) == pytest.approx(0.7)


@pytest.mark.parametrize("answer", ["raise", "2", "-1", "nan", "words"])
def test_a_judge_that_fails_earns_nothing_and_is_noted(answer):
    noted = rewards(SEARCH, SELECT, BOX, f"<answer>{answer}</answer>", task=Broken(noise=0.0))
    assert noted["answer"] == 0 and noted["unjudged"] == 1 and noted["region"] == pytest.approx(1)
    assert rewards(SEARCH, SELECT, BOX, "<answer>0.25</answer>", task=Broken(noise=0.0))["unjudged"] == 0


# ---- pages ----------------------------------------------------------------------------------------------------------


def test_what_is_asked_for_stands_on_one_page_once_and_its_answer_below_it():
    task = DocumentsTask(wanted=2, entries=6)
    for index in range(20):
        made = task.request("train", index)
        assert len(made.gold) == 2
        for name, entry in made.wanted:
            pairs = [(one.name, x, y, pair) for one in made.pages for y, row in enumerate(one.grid)
                     for x, pair in enumerate(pairwise(row))]  # fmt: skip
            assert [(n, x, y) for n, x, y, pair in pairs if pair == entry.key] == [(name, entry.x, entry.y)]
            below = made.page(name).grid[entry.y + 1][entry.x : entry.x + 2]
            assert below == entry.value and " ".join(map(str, below)) in made.answer


def test_the_retriever_finds_the_page_without_noise_and_misses_it_with_enough():
    def found(noise: float) -> int:
        task = DocumentsTask(noise=noise)
        hits = 0
        for index in range(40):
            made = task.request("train", index)
            (name, entry), *_ = made.wanted
            hits += name in made.listed("{} {}".format(*entry.key), noise)
        return hits

    # Three of six pages would hold it by chance.
    assert found(0.0) > 36 and found(2.0) < 32
    made = DocumentsTask().request("train", 0)
    assert made.listed("7 9", 1.0) == made.listed(" 7  9 ", 1.0)
    assert len(made.listed("words", 0.0)) == 3


def test_shares_of_fine_print():
    for share, expected in ((0.0, {False}), (1.0, {True})):
        assert {page.fine for page in DocumentsTask(fine=share).request("train", 0).pages} == expected


def test_equal_numbers_are_equal_requests_and_states_tell_what_was_seen():
    assert DocumentsTask().request("test", 2) == DocumentsTask().request("test", 2)
    one, other = play(SEARCH, SELECT), play("<search>41 7 </search>", SELECT)
    assert one[-1].observation.state_key == other[-1].observation.state_key
    assert one[-1].observation.state_key != play(SEARCH, SEARCH, SELECT)[-1].observation.state_key


@pytest.mark.parametrize("options", ["", ":wanted=2,entries=8,pages=12,noise=2", ":fine=0,reward=answer"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_solutions_are_accepted_and_corruptions_rejected(options, split):
    make(f"documents{options}").check(20, split)


@pytest.mark.parametrize(
    "option", ["pages=2", "wanted=3", "fine=2", "noise=-1", "reward=some", "matching=fuzzy", "max_turns=3"]
)
def test_an_option_out_of_range_is_refused(option):
    with pytest.raises(InputError, match=option.split("=")[0]):
        make(f"documents:{option}")
    with pytest.raises(InputError, match="must be at least 7"):
        make("documents:wanted=2,max_turns=6")


def test_an_answer_is_what_its_tag_holds():
    task = DocumentsTask()
    assert task.answer("so <answer> 88 13 </answer>") == "88 13"
    assert task.answer("88 13") is None and task.answer("<answer></answer>") is None
