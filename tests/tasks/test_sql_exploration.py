"""SQL in tags: what a final query and those before it are worth, and values that only a look tells."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stratagem.errors import InputError
from stratagem.sandbox import QueryError, QueryLimits, Rows, run_query
from stratagem.tasks import SqlExplorationTask, SqlTask, make
from stratagem.tasks.query_judge import accuracy, exploration, overlap, read, same_rows
from stratagem.tasks.sql import Database, Order, Person, Puzzle
from stratagem.tasks.sql_exploration import SqlExplorationEnvironment
from stratagem.tasks.tags import well_nested

pytest.importorskip("sqlglot")

TOY = "create table t(a, b); insert into t values (1, 2); insert into t values (3, 4);"
DATABASE = Database(
    (Person(1, "Ann", "NYC"), Person(2, "Bob", "LA"), Person(3, "Cid", "NYC"), Person(4, "Dan", "SF")),
    (),
    (Order(1, 1, 1, 3), Order(2, 3, 2, 4)),
)
PUZZLE = Puzzle(DATABASE, "How many people live in New York?", "SELECT COUNT(*) FROM people WHERE city = 'NYC'", "2")
LOOK = "<think>spelled?</think><intermediate_sql>SELECT DISTINCT city FROM people</intermediate_sql>"
BROKEN = "<think>well</think><intermediate_sql>SELECT town FROM people</intermediate_sql>"
RIGHT = "<think>so</think><final_sql>SELECT COUNT(*) FROM people WHERE city = 'NYC'</final_sql>"


@pytest.fixture
def episode() -> SqlExplorationEnvironment:
    environment = SqlExplorationEnvironment(PUZZLE, 6, QueryLimits(seconds=0.5))
    environment.reset()
    return environment


# ---- the judge ------------------------------------------------------------------------------------------------------


def test_rows_count_as_a_multiset_unless_the_right_query_orders_them():
    found, wanted = run_query(TOY, "SELECT a FROM t ORDER BY a DESC"), run_query(TOY, "SELECT a FROM t")
    assert same_rows(found, wanted, read("SELECT a FROM t").ordered)
    ordered = run_query(TOY, "SELECT a FROM t ORDER BY a")
    assert not same_rows(found, ordered, read("SELECT a FROM t ORDER BY a").ordered)
    assert not same_rows(Rows(("a",), ((1,), (1,), (3,))), Rows(("a",), ((1,), (3,), (3,))))
    assert not read("SELECT a FROM (SELECT a FROM t ORDER BY a)").ordered


@pytest.mark.parametrize(
    ("found", "wanted", "equal"),
    [
        (((1.0,),), ((1.0000005,),), True),
        (((1.0,),), ((1.001,),), False),
        (((None,),), ((None,),), True),
        (((None,),), ((0,),), False),
        ((("1",),), ((1,),), False),
        ((), (), True),
        ((), ((None,),), False),
        (((1, 2),), ((1,),), False),
    ],
)
def test_values_are_equal_within_a_millionth_and_null_is_null(found, wanted, equal):
    assert same_rows(Rows(("x",), found), Rows(("y",), wanted)) is equal


def test_columns_go_by_name_where_the_names_are_the_same_and_by_place_elsewhere():
    wanted = Rows(("a", "b"), ((1, 2),))
    assert same_rows(Rows(("B", "a"), ((2, 1),)), wanted)
    assert not same_rows(Rows(("c", "a"), ((2, 1),)), wanted)
    assert same_rows(Rows(("c", "d"), ((1, 2),)), wanted)
    assert not same_rows(Rows(("a", "b"), ((1, 2),), more=True), wanted)


def test_a_wrong_query_is_worth_half_the_schema_it_shares():
    wanted = read("SELECT name FROM people WHERE city = 'NYC'")
    other = read("SELECT p.NAME FROM people AS p JOIN orders ON p.id = person")
    # people, name of people, name, city, orders, id, person.
    assert overlap(other, wanted) == pytest.approx(2 / 6)
    assert accuracy(False, other, wanted) == pytest.approx(1 / 6)
    assert accuracy(True, other, wanted) == 1.0 and accuracy(False, None, wanted) == 0.0
    assert accuracy(False, read("SELEC nothing ((("), wanted) == 0.0
    assert read("WITH c AS (SELECT id FROM people) SELECT id FROM c").tables == {"people"}


def test_only_queries_that_ran_are_new_and_touch_the_right_tables_explore():
    wanted = read("SELECT COUNT(*) FROM people")
    look, same, other = read("SELECT city FROM people"), read("select  city FROM People;"), read("SELECT * FROM orders")
    assert look.text == same.text
    assert exploration([], wanted) == 0.0
    assert exploration([(look, True), (read("SELECT x FROM people"), False)], wanted) == 0.5
    assert exploration([(look, True), (same, True)], wanted) == 0.5
    assert exploration([(look, True), (other, True), (same, True)], wanted) == pytest.approx(1 / 3)


# ---- the task -------------------------------------------------------------------------------------------------------


def test_an_episode_looks_first_and_then_asks(episode):
    step = episode.step(LOOK)
    assert step.observation.text == "<result>city\nNYC\nLA\nSF</result>"
    assert (step.done, step.ran, step.reward) == (False, True, 0.0)
    told = episode.step(BROKEN)
    assert told.observation.text == "<result>error: no such column: town</result>" and told.ran is False
    last = episode.step(RIGHT)
    assert (last.done, last.success, last.reward, last.observation.text) == (
        True,
        True,
        1.0,
        "<result>COUNT(*)\n2</result>",
    )
    assert last.components == {"format": 1.0, "execution": 1.0, "exploration": 0.5, "queries": 2.0}


def test_three_rows_are_shown_at_most(episode):
    told = episode.step("<intermediate_sql>SELECT name, city FROM people</intermediate_sql>").observation.text
    assert told == "<result>name | city\nAnn | NYC\nBob | LA\nCid | NYC\n...</result>"


@pytest.mark.parametrize(
    ("said", "form"),
    [
        ([RIGHT], 1.0),
        (["<final_sql>SELECT 1</final_sql>"], 0.0),  # no thought
        (["<think>a<final_sql>SELECT 1</final_sql></think>"], 0.0),  # one within the other
        ([LOOK, "<result>2</result><think>a</think><final_sql>SELECT 1</final_sql>"], 0.0),
        (["<think>a</think><final_sql>SELECT 1</final_sql><final_sql>SELECT 2</final_sql>"], 0.0),
        (["<think>a", "b</think><final_sql>SELECT 1</final_sql>"], 1.0),  # a thought over two turns
        (["</think><think>a<final_sql>SELECT 1</final_sql>"], 0.0),
    ],
)
def test_format_is_tags_one_after_the_other_with_one_final_query(episode, said, form):
    for text in said:
        step = episode.step(text)
    assert step.done and step.components["format"] == form


def test_what_goes_wrong_is_told_and_earns_no_more_than_its_schema(episode):
    assert episode.step("SELECT 1").observation.text.startswith("<result>error: write <intermediate_sql>")
    assert episode.step("SELECT 1").ran is None
    dropped = episode.step("<intermediate_sql>DROP TABLE people</intermediate_sql>")
    assert dropped.observation.text == "<result>error: only SELECT</result>"
    last = episode.step("<think>a</think><final_sql>SELECT town FROM people WHERE city = 'NYC'</final_sql>")
    assert (last.done, last.success, last.reward) == (True, False, pytest.approx(0.5 * 2 / 3))
    assert last.components == {"format": 1.0, "execution": 0.0, "exploration": 0.0, "queries": 1.0}


def test_turns_run_out_without_a_final_query():
    environment = SqlExplorationEnvironment(PUZZLE, 2, QueryLimits())
    environment.reset()
    environment.step(LOOK)
    last = environment.step(LOOK)
    assert (last.done, last.truncated, last.reward) == (True, True, 0.0)
    assert last.components == {"format": 0.0, "execution": 0.0, "exploration": 0.5, "queries": 2.0}


def test_an_episode_whose_own_query_fails_is_lost():
    environment = SqlExplorationEnvironment(PUZZLE._replace(query="SELECT nothing FROM nowhere"), 6, QueryLimits())
    with pytest.raises(QueryError):
        environment.reset()


def test_equal_rows_end_in_one_state_and_others_do_not():
    def ended(query: str) -> int:
        environment = SqlExplorationEnvironment(PUZZLE, 6, QueryLimits())
        environment.reset()
        return environment.step(f"<final_sql>{query}</final_sql>").observation.state_key

    assert ended("SELECT name FROM people") == ended("SELECT name FROM people ORDER BY name DESC")
    assert ended("SELECT name FROM people") != ended("SELECT name FROM people LIMIT 3")


@pytest.mark.parametrize(
    "options", [{}, {"tables": 2}, {"spellings": True}, {"max_turns": 1, "spellings": True}], ids=str
)
def test_check_passes(options):
    task = SqlExplorationTask(**options)
    assert task.check(10).solutions_accepted == task.check(10, "test").corruptions_rejected == 10


def test_a_spelling_cannot_be_known_from_the_question():
    task, spelled = make("sql_exploration:spellings=true"), set()
    assert isinstance(task, SqlExplorationTask) and task.max_turns == 6
    for index in range(60):
        puzzle = task.puzzle("train", index)
        if "New York" in puzzle.question:
            spelled |= {way for way in ("New York'", "NYC'", "N.Y.'", "New York City'") if way in puzzle.query}
    assert len(spelled) == 4


def test_without_spellings_it_asks_what_sql_asks():
    questions = {SqlExplorationTask().puzzle("train", index).question.split(" ")[0] for index in range(40)}
    assert questions >= {SqlTask().puzzle("train", index).question.split(" ")[0] for index in range(5)}


def test_an_answer_is_the_final_query():
    task = SqlExplorationTask()
    assert task.answer(RIGHT) == "SELECT COUNT(*) FROM people WHERE city = 'NYC'"
    assert task.answer(LOOK) is task.answer("<final_sql></final_sql>") is None


def test_options_and_a_missing_extra_are_named(monkeypatch):
    with pytest.raises(InputError, match="task 'sql_exploration': max_turns="):
        SqlExplorationTask(max_turns=0)
    monkeypatch.setitem(__import__("sys").modules, "sqlglot", None)
    with pytest.raises(InputError, match=r"stratagem\[agents\]"):
        SqlExplorationEnvironment(PUZZLE, 6, QueryLimits()).reset()


def test_tags_nest_well_only_one_after_the_other():
    assert well_nested(["<a>x</a><b></b>"], "ab") and well_nested(["<a>", "</a>"], "ab") and well_nested([], "ab")
    for text in ("<a><b></b></a>", "<a>", "</a>", "<a></b>", "<a><a></a></a>"):
        assert not well_nested([text], "ab")


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.text(max_size=20) | st.text(max_size=20).map("<final_sql>{}</final_sql>".format), min_size=6, max_size=6
    )
)
def test_any_text_is_a_legal_action(actions):
    environment = SqlExplorationEnvironment(PUZZLE, 6, QueryLimits(seconds=0.5))
    environment.reset()
    assert any([environment.step(action).done for action in actions])
