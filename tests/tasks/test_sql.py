"""The SQL task: queries read, answers are checked, and what goes wrong takes a turn and is told."""

from __future__ import annotations

import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stratagem.errors import InputError
from stratagem.sandbox import QueryLimits, Rows
from stratagem.tasks import SqlTask
from stratagem.tasks.sql import Database, Order, Person, Product, Puzzle, SqlEnvironment, shown

DATABASE = Database(
    (Person(1, "Ann", "Rome"), Person(2, "Bob", "Oslo"), Person(3, "Cid", "Rome")),
    (Product(1, "hat", 5), Product(2, "egg", 2)),
    (Order(1, 1, 1, 3), Order(2, 1, 2, 4), Order(3, 3, 2, 9)),
)
PUZZLE = Puzzle(DATABASE, "Who ordered the largest total amount?", "SELECT 1", "Cid")


@pytest.fixture
def episode() -> SqlEnvironment:
    return SqlEnvironment(PUZZLE, max_turns=4, limits=QueryLimits(seconds=0.5))


def test_tables_and_question_are_shown_and_rows_are_not(episode: SqlEnvironment) -> None:
    assert episode.reset().text == (
        "people(id, name, city)\nproducts(id, name, price)\norders(id, person, product, amount)\n"
        "Who ordered the largest total amount?"
    )


def test_an_episode_with_queries_and_an_answer(episode: SqlEnvironment) -> None:
    first = episode.reset()
    asked = episode.step("query: SELECT name, SUM(amount) FROM people JOIN orders ON people.id = person GROUP BY 1;")
    assert asked.observation.text == "Ann | 7\nCid | 9"
    assert (asked.reward, asked.done) == (0.0, False) and asked.observation.state_key != first.state_key
    last = episode.step("Answer: cid.")
    assert (last.reward, last.done, last.success, last.truncated) == (1.0, True, True, False)


@pytest.mark.parametrize(
    ("action", "told"),
    [
        ("query: SELECT nme FROM people", "error: no such column: nme"),
        ("query: SELECT name FROM people WHERE city = 'Lima'", "no rows"),
        ("query: SELECT NULL", "null"),
        ("query:", "error: no query"),
        ("query: DROP TABLE people", "error: only SELECT"),
        ("query: WITH a AS (SELECT 1) DELETE FROM people", "error: not authorized"),
        ("query: SELECT 1; SELECT 2", "error: one statement at a time"),
        (
            "query: with recursive n(x) as (values(1) union all select x from n) select max(x) from n",
            "error: took too long",
        ),
        ("SELECT 1", "error: write query: or answer:"),
        ("", "error: write query: or answer:"),
    ],
)
def test_what_goes_wrong_takes_a_turn_is_told_and_earns_nothing(
    episode: SqlEnvironment, action: str, told: str
) -> None:
    step = episode.step(action)
    assert (step.observation.text, step.reward, step.done, step.success) == (told, 0.0, False, False)


@pytest.mark.parametrize("text", ["answer: Ann", "answer:", "answer: Cid or Ann", "answer: 9"])
def test_a_wrong_answer_ends_the_episode_without_reward(episode: SqlEnvironment, text: str) -> None:
    last = episode.step(text)
    assert (last.reward, last.done, last.success) == (0.0, True, False)


def test_turns_run_out_and_a_query_right_at_the_end_earns_nothing() -> None:
    environment = SqlEnvironment(PUZZLE, 2, QueryLimits())
    assert not environment.step("query: SELECT 1").done
    last = environment.step("query: SELECT 'Cid'")
    assert (last.done, last.truncated, last.success, last.reward) == (True, True, False, 0.0)


def test_rows_that_are_many_or_long_are_cut() -> None:
    assert shown(Rows(("x",), tuple((n,) for n in range(10)))) == "\n".join(map(str, range(10)))
    assert shown(Rows(("x",), tuple((n,) for n in range(11)))).endswith("9\n...")
    assert shown(Rows(("x",), ((1, "a"),), more=True)) == "1 | a\n..."
    assert shown(Rows(("x",), (("y" * 999,),))) == "y" * 300 + "..."


@pytest.mark.parametrize("options", [{}, {"tables": 2, "rows": 3}, {"rows": 12}, {"max_turns": 1}], ids=str)
def test_check_passes(options: dict[str, int]) -> None:
    task = SqlTask(**options)
    assert task.check(20, "train").solutions_accepted == 20
    assert task.check(20, "test").corruptions_rejected == 20


@pytest.mark.parametrize("tables", [2, 3])
def test_answers_worked_out_from_the_rows_are_what_sqlite_finds(tables: int) -> None:
    questions = set()
    for index in range(150):
        puzzle = SqlTask(tables=tables).puzzle("train", index)
        connection = sqlite3.connect(":memory:")
        connection.executescript(puzzle.database.script)
        ((found,),) = connection.execute(puzzle.query).fetchall()
        connection.close()
        assert str(found) == puzzle.answer
        questions.add(puzzle.query.split(" WHERE ")[0])
    assert len(questions) == (4 if tables == 2 else 7)


def test_two_tables_are_two() -> None:
    text = SqlTask(tables=2).environment("train", 0).reset().text
    assert "products" not in text and text.startswith("people(id, name, city)\norders(")


@pytest.mark.parametrize(
    "options", [{"tables": 4}, {"tables": "many"}, {"rows": 2}, {"seconds": 0}, {"seconds": 61}], ids=str
)
def test_options_out_of_range_are_the_users_mistake(options: dict[str, object]) -> None:
    with pytest.raises(InputError, match=f"task 'sql': {next(iter(options))}="):
        SqlTask(**options)  # type: ignore[arg-type]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(max_size=20) | st.text(max_size=20).map("query: select {}".format), min_size=4, max_size=4))
def test_any_text_is_a_legal_action(actions: list[str]) -> None:
    environment = SqlEnvironment(PUZZLE, 4, QueryLimits(seconds=0.5))
    environment.reset()
    assert any([environment.step(action).done for action in actions])
