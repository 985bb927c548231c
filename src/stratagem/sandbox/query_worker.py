"""The process behind :func:`~stratagem.sandbox.database.run_query`: reads queries, writes their rows.

A script that imports nothing of this package, since nothing of it can be seen from inside the sandbox. One JSON line
in, ``{"script", "query", "seconds", "rows", "characters"}``, gives one JSON line out: ``{"columns", "rows", "more"}``,
``{"error": str}``, or ``{"fault": str}`` when the script is wrong.
"""

from __future__ import annotations

import json
import resource
import signal
import sqlite3
import sys
import time
from typing import Any

INSTRUCTIONS = 1_000
"""Of SQLite's machine between two looks at the clock."""

_NAMES = """
    abs avg char coalesce count cume_dist dense_rank first_value format glob group_concat hex iif ifnull instr lag
    last_value lead length like lower ltrim max min nth_value ntile nullif percent_rank printf quote rank replace round
    row_number rtrim substr substring sum total trim typeof unicode upper
"""
FUNCTIONS = frozenset(_NAMES.split())
"""What a query may call: functions of their arguments alone, which neither see nor change anything else."""

_BOUNDS = {
    sqlite3.SQLITE_LIMIT_LENGTH: 100_000,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 10_000,
    sqlite3.SQLITE_LIMIT_COLUMN: 100,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 100,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 50,
    sqlite3.SQLITE_LIMIT_VDBE_OP: 25_000,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 100,
}
_IN_OUR_WORDS = {
    "interrupted": "took too long",
    "You can only execute one statement at a time.": "one statement at a time",
}
_READING = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE)


def main(memory_bytes: int) -> None:
    """Serve until standard input ends.

    The caller keeps the time too; an alarm ends this process in case there is no caller left.
    """
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    for line in sys.stdin:
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, request["seconds"] + 2)
        reply = answer(**request)
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(json.dumps(reply), flush=True)


def answer(script: str, query: str, seconds: float, rows: int, characters: int) -> dict[str, Any]:
    """The rows of ``query`` over the database that ``script`` makes, or what is wrong with the query."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        try:
            connection.executescript(script)
        except sqlite3.Error as error:
            return {"fault": str(error)}
        _restrict(connection, time.monotonic() + seconds)
        return _read(connection.execute(query), rows, characters)
    except MemoryError:
        return {"error": "out of memory"}
    except (sqlite3.Error, sqlite3.Warning) as error:
        return {"error": _IN_OUR_WORDS.get(str(error), str(error))}
    except ValueError as error:  # characters that SQLite cannot take
        return {"error": str(error)}
    finally:
        connection.close()


def _restrict(connection: sqlite3.Connection, deadline: float) -> None:
    connection.execute("pragma temp_store = memory")
    for bound, value in _BOUNDS.items():
        connection.setlimit(bound, value)
    connection.set_authorizer(_allowed)
    connection.set_progress_handler(lambda: time.monotonic() > deadline, INSTRUCTIONS)


def _allowed(action: int, first: str | None, second: str | None, database: str | None, inner: str | None) -> int:
    if action in _READING or (action == sqlite3.SQLITE_FUNCTION and str(second).lower() in FUNCTIONS):
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY


def _read(cursor: sqlite3.Cursor, most: int, characters: int) -> dict[str, Any]:
    columns = [str(column[0]) for column in cursor.description or ()]
    rows: list[list[Any]] = []
    for row in cursor:
        values = [f"x'{value.hex()}'" if isinstance(value, bytes) else value for value in row]
        characters -= sum(len(str(value)) for value in values)
        if len(rows) == most or characters < 0:
            return {"columns": columns, "rows": rows, "more": True}
        rows.append(values)
    return {"columns": columns, "rows": rows, "more": False}


if __name__ == "__main__":
    main(int(sys.argv[1]))
