"""A query reads what is there and nothing else, and cannot use more than it was given."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stratagem.errors import InputError
from stratagem.sandbox import QueryError, QueryLimits, database, query_worker, read_query, run_query
from stratagem.sandbox.supervisor import family, kill_family

SCRIPT = """
create table people(id integer primary key, name text, city text);
insert into people values (1, 'Ann', 'Rome'), (2, 'Bob', null), (3, 'Cid', 'Rome');
create table orders(id integer primary key, person integer, cost real);
insert into orders values (1, 1, 2.5), (2, 1, 4), (3, 3, 1);
create index by_city on people(city);
"""
ENDLESS = "with recursive n(x) as (select 1 union all select x + 1 from n) select max(x) from n"


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        ("select name from people where city = 'Rome' order by name", [("Ann",), ("Cid",)]),
        ("select count(*), min(city) from people where city is null", [(1, None)]),
        (
            "select p.name, sum(o.cost) from people p join orders o on o.person = p.id group by p.id order by 2 desc",
            [("Ann", 6.5), ("Cid", 1.0)],
        ),
        ("with rich as (select person from orders where cost > 2) select count(*) from rich", [(2,)]),
        ("select rank() over (order by cost) from orders order by 1", [(1,), (2,), (3,)]),
        ("with recursive n(x) as (values(1) union all select x + 1 from n where x < 4) select sum(x) from n", [(10,)]),
        ("values (1, 'a')", [(1, "a")]),
        (
            "select 'grün', x'ff00', 9e999, 9223372036854775807, null",
            [("grün", "x'ff00'", float("inf"), 2**63 - 1, None)],
        ),
        ("select name from sqlite_master where type = 'table' order by name", [("orders",), ("people",)]),
        ("select 1 where 0", []),
    ],
)
def test_queries_find_what_is_there(query: str, rows: list[tuple[object, ...]]) -> None:
    assert list(run_query(SCRIPT, query).rows) == rows


def test_columns_are_named() -> None:
    assert run_query(SCRIPT, "select name, cost * 2 as double from people, orders limit 1").columns == (
        "name",
        "double",
    )


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("selec 1", "syntax error"),
        ("select x from people", "no such column: x"),
        ("select * from cats", "no such table: cats"),
        ("select cats(1)", "no such function|not authorized"),
        ("select '\ud800'", "surrogates"),
        ("select cast(x'ff' as text)", "UTF-8"),
        ("select 1; select 2", "one statement at a time"),
        ("", None),
        ("-- nothing", None),
    ],
)
def test_what_is_wrong_with_a_query_is_told(query: str, reason: str | None) -> None:
    if reason is None:  # nothing to do is no error to SQLite, and finds nothing
        assert run_query(SCRIPT, query).rows == ()
        return
    with pytest.raises(QueryError, match=reason) as caught:
        run_query(SCRIPT, query)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "query",
    [
        "insert into people values (9, 'Eve', 'Oslo')",
        "update people set name = 'Eve'",
        "delete from people",
        "replace into people values (1, 'Eve', 'Oslo')",
        "insert into people values (9, 'Eve', 'Oslo') returning name",
        "create table cats(x)",
        "create temp table cats(x)",
        "create view cats as select 1",
        "create trigger t after insert on people begin select 1; end",
        "create virtual table cats using fts5(x)",
        "drop table people",
        "alter table people add column x",
        "attach '/tmp/stratagem-was-here.db' as other",
        "attach ':memory:' as other",
        "detach main",
        "vacuum into '/tmp/stratagem-was-here.db'",
        "vacuum",
        "reindex",
        "analyze",
        "begin",
        "commit",
        "savepoint s",
        "pragma writable_schema = 1",
        "pragma table_info(people)",
        "pragma hard_heap_limit = 0",
        "select * from pragma_table_info('people')",
        "select * from pragma_database_list",
        "select load_extension('/tmp/evil.so')",
        "select random()",
        "select randomblob(4)",
        "select zeroblob(1000000000)",
        "select datetime('now')",
        "select current_timestamp",
        "select last_insert_rowid()",
        "select readfile('/etc/passwd')",
        "select writefile('/tmp/stratagem-was-here.db', 'x')",
    ],
)
def test_nothing_but_reading_is_carried_out(query: str) -> None:
    with pytest.raises(QueryError, match=r"not authorized|denied|no such function|prohibited"):
        run_query(SCRIPT, query)
    assert run_query(SCRIPT, "select count(*), max(name) from people").rows == ((3, "Cid"),)
    assert not Path("/tmp/stratagem-was-here.db").exists()


def test_a_query_leaves_nothing_behind_for_the_next() -> None:
    other = "create table people(name); insert into people values ('Zoe')"
    assert run_query(SCRIPT, "select max(name) from people").rows == (("Cid",),)
    assert run_query(other, "select max(name) from people").rows == (("Zoe",),)


@pytest.mark.parametrize(
    "query", [ENDLESS, "select count(*) from " + ", ".join(f"(values(1),(2),(3),(4)) t{n}" for n in range(30))]
)
def test_an_endless_query_is_stopped_in_time(query: str) -> None:
    started = time.monotonic()
    with pytest.raises(QueryError, match="took too long"):
        run_query(SCRIPT, query, QueryLimits(seconds=0.2))
    assert time.monotonic() - started < 2


def test_a_query_deaf_to_sqlites_own_limits_is_killed_and_the_next_one_answered() -> None:
    """A worker that never looks at the clock stands for a function that runs for minutes."""
    run_query(SCRIPT, "select 1")
    (worker,) = database._idle(QueryLimits().memory_bytes)
    members = list(family(worker._process.pid))
    for folder in reversed(members):
        os.kill(int(folder.name), signal.SIGSTOP)
    started = time.monotonic()
    with pytest.raises(QueryError, match="took too long"):
        run_query(SCRIPT, "select 1", QueryLimits(seconds=0.2))
    assert time.monotonic() - started < 2
    assert worker._process.returncode is not None
    assert not [folder for folder in members if not ended(folder)]
    assert run_query(SCRIPT, "select 1").rows == ((1,),)


def ended(folder: Path) -> bool:
    """Whether a process is gone a moment later, or waits for nothing but being counted as dead."""
    for _ in range(40):
        try:
            if "State:\tZ" in (folder / "status").read_text():
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def test_a_worker_that_died_is_replaced() -> None:
    run_query(SCRIPT, "select 1")
    (worker,) = database._idle(QueryLimits().memory_bytes)
    kill_family(worker._process)
    assert run_query(SCRIPT, "select 1").rows == ((1,),)


def test_memory_is_bounded() -> None:
    hungry = (
        "with recursive n(x) as (select 1 union all select x + 1 from n) "
        "select y from (select printf('%50000d', x) y from n limit 20000) order by y"
    )
    with pytest.raises(QueryError, match="out of memory"):
        run_query(SCRIPT, hungry, QueryLimits(seconds=8, memory_bytes=64 * 2**20))
    assert run_query(SCRIPT, "select 1").rows == ((1,),)


def test_long_values_are_refused() -> None:
    with pytest.raises(QueryError, match="too big"):
        run_query(SCRIPT, "select replace(printf('%1000d', 1), ' ', printf('%1000d', 1))")


def test_rows_and_characters_are_bounded() -> None:
    some = run_query(
        SCRIPT, "with recursive n(x) as (values(1) union all select x + 1 from n) select x from n", QueryLimits(rows=3)
    )
    assert (some.rows, some.more) == (((1,), (2,), (3,)), True)
    all_of_them = run_query(SCRIPT, "select id from people", QueryLimits(rows=3))
    assert (len(all_of_them.rows), all_of_them.more) == (3, False)
    short = run_query(SCRIPT, "select name from people order by id", QueryLimits(characters=7))
    assert (short.rows, short.more) == ((("Ann",), ("Bob",)), True)


def test_threads_ask_side_by_side() -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda n: run_query(SCRIPT, f"select {n}, count(*) from people").rows, range(40)))
    assert found == [((n, 3),) for n in range(40)]
    assert len(database._idle(QueryLimits().memory_bytes)) <= 5


def test_a_script_that_is_wrong_is_not_the_policys_mistake() -> None:
    with pytest.raises(InputError, match="the script of a database: near"):
        run_query("creat table x", "select 1")


@pytest.mark.parametrize("limits", [{"seconds": 0}, {"rows": 0}, {"characters": 0}, {"memory_bytes": 1}], ids=str)
def test_limits_out_of_range_are_the_users_mistake(limits: dict[str, int]) -> None:
    with pytest.raises(InputError, match=f"query limits: {next(iter(limits))}="):
        QueryLimits(**limits)


@pytest.mark.parametrize(
    ("text", "query"),
    [
        (" SELECT 1 ;\n", "SELECT 1"),
        ("with a as (select 1) select * from a", "with a as (select 1) select * from a"),
        ("Values(1)", "Values(1)"),
        ("select 1; select 2;", "select 1; select 2"),
    ],
)
def test_a_query_is_read_without_executing_it(text: str, query: str) -> None:
    assert read_query(text) == query


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no query"),
        (" ; ", "no query"),
        ("drop table x", "only SELECT"),
        ("selected", "only SELECT"),
        ("select '\0'", "null"),
    ],
)
def test_what_is_no_query_is_refused_with_a_reason(text: str, reason: str) -> None:
    with pytest.raises(QueryError, match=reason):
        read_query(text)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60) | st.text("select *from(,)'1;-\0", max_size=60))
def test_no_text_does_more_than_be_refused(text: str) -> None:
    try:
        run_query(SCRIPT, text)
    except QueryError as error:
        assert str(error) != "the process that ran the query died"


def test_functions_that_are_allowed_say_the_same_every_time() -> None:
    assert {"random", "randomblob", "date", "datetime", "load_extension", "zeroblob"}.isdisjoint(query_worker.FUNCTIONS)
    assert {"count", "sum", "avg", "min", "max", "like", "substr"} <= query_worker.FUNCTIONS
