"""What a query is worth beside the one that was wanted: its rows, the schema it uses, and what was asked on the way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from stratagem.sandbox.database import Rows
from stratagem.tasks.adapter import require

TOLERANCE = 1e-6
"""By so much, absolute or relative, may two numbers differ and be equal."""


class Query(NamedTuple):
    """What is read of a query without running it.

    text: in a form in which case, space and comments do not count.  tables, columns: of the schema, in lower case.
    ordered: whether the query as a whole has an ORDER BY.
    """

    text: str
    tables: frozenset[str]
    columns: frozenset[str]
    ordered: bool = False


def read(query: str) -> Query:
    """What a query says, as sqlglot reads it in SQLite's dialect; one that cannot be parsed uses nothing.

    Columns are told apart by their names alone. Raises :class:`InputError` where sqlglot is missing.
    """
    sqlglot = require("sqlglot", "agents")
    try:
        parsed = sqlglot.parse_one(query, read="sqlite")
        text = parsed.sql(dialect="sqlite", normalize=True, comments=False)
    except (sqlglot.errors.SqlglotError, RecursionError):
        return Query(" ".join(query.split()).lower(), frozenset(), frozenset())
    own = {_lower(part.alias) for part in parsed.find_all(sqlglot.exp.CTE)}
    tables = {_lower(table.name) for table in parsed.find_all(sqlglot.exp.Table)} - own
    columns = {_lower(column.name) for column in parsed.find_all(sqlglot.exp.Column)}
    return Query(text, frozenset(tables), frozenset(columns), parsed.args.get("order") is not None)


def same_rows(found: Rows, wanted: Rows, ordered: bool = False) -> bool:
    """Whether two results are equal: as lists of rows where the order counts, else as multisets.

    Numbers are equal within :data:`TOLERANCE`, None is None, and text is no number. Columns are compared by their
    places, or by name where both results have the same names, all different. A result that was cut (``more``) equals
    none.
    """
    if found.more or wanted.more or len(found.rows) != len(wanted.rows):
        return False
    left = [*_arranged(found, wanted.columns)]
    if ordered:
        return all(map(_equal, left, wanted.rows))
    for row in wanted.rows:
        place = next((place for place, other in enumerate(left) if _equal(other, row)), None)
        if place is None:
            return False
        del left[place]
    return True


def overlap(query: Query, wanted: Query) -> float:
    """``|used by both| / |used by either|`` over tables and columns of the schema; 0 where neither uses any."""
    used, right = _used(query), _used(wanted)
    return len(used & right) / len(used | right) if used | right else 0.0


def accuracy(right: bool, query: Query | None, wanted: Query) -> float:
    """1 for the right rows, else half the :func:`overlap`; 0 without a query."""
    if right:
        return 1.0
    return 0.0 if query is None else overlap(query, wanted) / 2


def exploration(asked: Sequence[tuple[Query, bool]], wanted: Query) -> float:
    """Share of the queries asked on the way that ran, were new, and touched a table of the wanted one; 0 for none.

    asked: each query, and whether it ran. New is what was not asked before in the same text, run or not.
    """
    useful, seen = 0, set[str]()
    for query, ran in asked:
        useful += ran and query.text not in seen and not query.tables.isdisjoint(wanted.tables)
        seen.add(query.text)
    return useful / len(asked) if asked else 0.0


def _used(query: Query) -> set[tuple[str, str]]:
    return {("table", name) for name in query.tables} | {("column", name) for name in query.columns}


def _arranged(found: Rows, columns: Sequence[str]) -> Sequence[tuple[Any, ...]]:
    """The rows of ``found`` with columns of the same names in the same order."""
    names = [_lower(name) for name in found.columns]
    wanted = [_lower(name) for name in columns]
    if sorted(names) != sorted(wanted) or len(set(names)) < len(names):
        return found.rows
    places = [names.index(name) for name in wanted]
    return [tuple(row[place] for place in places) for row in found.rows]


def _equal(found: tuple[Any, ...], wanted: tuple[Any, ...]) -> bool:
    return len(found) == len(wanted) and all(map(_same, found, wanted))


def _same(found: Any, wanted: Any) -> bool:
    if isinstance(found, int | float) and isinstance(wanted, int | float):
        return math.isclose(found, wanted, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return bool(found == wanted)


def _lower(name: str) -> str:
    return name.lower()
