"""The SQL task in tags: queries on the way to a final one, judged by its rows, and values that must be looked up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Annotated

from pydantic import Field

from stratagem.sandbox.database import QueryError, QueryLimits, Rows, read_query, run_query
from stratagem.tasks.options import configure
from stratagem.tasks.query_judge import Query, accuracy, exploration, read, same_rows
from stratagem.tasks.splits import draw
from stratagem.tasks.sql import SHOWN_CHARACTERS, Database, Puzzle, SqlTask, shown
from stratagem.tasks.tags import contents, first_tag, in_form, well_nested
from stratagem.tasks.task import Environment, Observation, Split, Step, state_key

TAGS = ("think", "intermediate_sql", "final_sql")
"""What a policy writes; it is told a ``result``."""

SPELLINGS = {
    "New York": ("New York", "NYC", "N.Y.", "New York City"),
    "Los Angeles": ("Los Angeles", "LA", "L.A.", "City of Los Angeles"),
    "San Francisco": ("San Francisco", "SF", "S.F.", "San Fran"),
    "Washington": ("Washington", "DC", "D.C.", "Washington DC"),
}
"""Cities as questions call them, and how databases may spell them."""

_SHOWN_ROWS = 3
_USAGE = "error: write <intermediate_sql>...</intermediate_sql> or <final_sql>...</final_sql>"


@dataclass(frozen=True)
class SqlExplorationTask(SqlTask):
    """Answer a question about a database with a query, after others that find out what it must say.

        <think>How is it spelled?</think><intermediate_sql>SELECT DISTINCT city FROM people</intermediate_sql>
        <result>city
        NYC
        LA</result>
        <think>It is NYC.</think><final_sql>SELECT COUNT(*) FROM people WHERE city = 'NYC'</final_sql>

    The policy is shown the tables with their columns, and no rows. An intermediate query is answered by ``<result>``
    with the names of its columns and three rows at most, or with what went wrong. The first ``intermediate_sql`` or
    ``final_sql`` of a turn is what it does; a turn with neither takes its turn and is told what to write. A final
    query, which ends the episode, is right when its rows are those of a query known to be right
    (:func:`~stratagem.tasks.query_judge.same_rows`; their order counts where that one has an ORDER BY).

    Rewards: ``reward``, paid, is the accuracy: 1 for the right rows, else half the share of tables and columns in
    common. Noted without pay: ``format``, whether tags are closed one before the next, with at least one ``think``,
    exactly one ``final_sql`` and no ``result``; ``execution``, whether the final query ran; ``exploration``, the share
    of intermediate queries that ran, were new, and touched a table of the right one; ``queries``, how many there were.
    The tags are those of arXiv 2505.12768. Its exact rewards were not available: these are reconstructions.

    ``spellings``: whether each database spells its cities in one of four ways, which only a query shows, while the
    question uses the common name; then all questions are about cities. ``max_turns``: intermediate queries and final
    one together. The others are those of ``sql``.

    Raises :class:`InputError` for an option out of range, and in an episode where sqlglot is missing.
    """

    spellings: bool = False
    max_turns: Annotated[int, Field(ge=1, le=100)] = 6

    name = "sql_exploration"
    description = "answer a question about a small database with a query, after others in tags"
    stop = ("</intermediate_sql>", "</final_sql>")
    system = (
        "Think in <think>...</think>. Write <intermediate_sql>SELECT ...</intermediate_sql> to see rows of the SQLite "
        "database and <final_sql>SELECT ...</final_sql> to answer."
    )
    reward_names = ("reward", "format", "execution", "exploration", "queries")
    reward_weights = (1.0, 0.0, 0.0, 0.0, 0.0)

    def environment(self, split: Split, index: int) -> Environment:
        return SqlExplorationEnvironment(self.puzzle(split, index), self.max_turns, QueryLimits(seconds=self.seconds))

    def solution(self, split: Split, index: int) -> Iterator[str]:
        """Look at the cities, then ask; the final query at once where there is only one turn."""
        if self.max_turns > 1:
            yield _written("How are cities spelled?", "intermediate_sql", "SELECT DISTINCT city FROM people")
        yield _written("Now the question.", "final_sql", self.puzzle(split, index).query)

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        """The solution with a final query that finds every row twice."""
        *queries, _ = self.solution(split, index)
        yield from queries
        right = f"SELECT * FROM ({self.puzzle(split, index).query})"
        yield _written("Now the question.", "final_sql", f"{right} UNION ALL {right}")

    def answer(self, text: str) -> str | None:
        """The final query."""
        said = first_tag(text, "final_sql")
        return None if said is None else said[1] or None

    def puzzle(self, split: Split, index: int) -> Puzzle:
        """Database, question and right query of this episode."""
        if not self.spellings:
            return super().puzzle(split, index)
        return draw(
            split,
            index,
            (self.name, self.tables, self.rows),
            self._spelled,
            lambda puzzle: state_key(self.name, puzzle.database.script, puzzle.question),
        )

    def _spelled(self, random: Random) -> Puzzle:
        spelled = {random.choice(ways): city for city, ways in SPELLINGS.items()}
        database = self.database(random, [*spelled])
        person = random.choice(database.people)
        return random.choice(_QUESTIONS)(database, spelled[person.city], person.city)


class SqlExplorationEnvironment(Environment):
    """One question about one database. A state is both and what was told last; the last one, what was found.

    Raises :class:`QueryError` when it starts and the query known to be right does not run, so that the episode is lost.
    """

    def __init__(self, puzzle: Puzzle, max_turns: int, limits: QueryLimits) -> None:
        self.puzzle = puzzle
        self.max_turns = max_turns
        self.limits = limits
        self._script = puzzle.database.script

    def reset(self) -> Observation:
        self._said: list[str] = []
        self._asked: list[tuple[Query, bool]] = []
        self._wanted, self._rows = read(self.puzzle.query), self._run(self.puzzle.query)
        return self._observe(f"{self.puzzle.database.schema}\n{self.puzzle.question}")

    def step(self, action: str) -> Step:
        self._said.append(action)
        tag, text = first_tag(action, "intermediate_sql", "final_sql") or ("", "")
        if tag == "final_sql":
            return self._ended(text)
        told, ran = self._told(text) if tag else (_USAGE, None)
        if tag:
            self._asked.append((read(text), bool(ran)))
        out_of_turns = len(self._said) >= self.max_turns
        noted = self._noted(False) if out_of_turns else {}
        observation = self._observe(f"<result>{told}</result>")
        return Step(observation, done=out_of_turns, truncated=out_of_turns, components=noted, ran=ran)

    def _ended(self, text: str) -> Step:
        try:
            rows = self._run(text)
        except QueryError as error:
            paid = accuracy(False, read(text), self._wanted)
            observation = self._observe(f"<result>error: {error}</result>"[:SHOWN_CHARACTERS])
            return Step(observation, paid, done=True, components=self._noted(False), ran=False)
        right = same_rows(rows, self._rows, self._wanted.ordered)
        paid = accuracy(right, read(text), self._wanted)
        found = sorted(map(repr, rows.rows))
        observation = Observation(
            f"<result>{headed(rows)}</result>", state_key("found", self._script, self.puzzle.question, found)
        )
        return Step(observation, paid, done=True, success=right, components=self._noted(True), ran=True)

    def _noted(self, executed: bool) -> dict[str, float]:
        said = self._said
        finals = sum(len(contents(text, "final_sql")) for text in said)
        formed = finals == 1 and in_form(said, ("think", "final_sql"), ("result",)) and well_nested(said, TAGS)
        return {
            "format": float(formed),
            "execution": float(executed),
            "exploration": exploration(self._asked, self._wanted),
            "queries": float(len(self._asked)),
        }

    def _told(self, text: str) -> tuple[str, bool]:
        try:
            return headed(self._run(text)), True
        except QueryError as error:
            return f"error: {error}"[:SHOWN_CHARACTERS], False

    def _run(self, text: str) -> Rows:
        return run_query(self._script, read_query(text), self.limits)

    def _observe(self, text: str) -> Observation:
        return Observation(text, state_key("sql_exploration", self._script, self.puzzle.question, text))


def headed(rows: Rows) -> str:
    """Names of the columns, and below them the rows as the policy reads them, three at most."""
    return f"{' | '.join(rows.columns)}\n{shown(rows, _SHOWN_ROWS)}"


def from_spec(argument: str | None, options: Mapping[str, str]) -> SqlExplorationTask:
    """``sql_exploration[:tables=3,rows=6,spellings=false,max_turns=6,seconds=1]``."""
    return configure(SqlExplorationTask, argument, options)


def _written(thought: str, tag: str, query: str) -> str:
    return f"<think>{thought}</think><{tag}>{query}</{tag}>"


# ---- questions about a city by its common name, whose query needs the database's own spelling -----------------------


def _people(database: Database, city: str, spelled: str) -> Puzzle:
    count = sum(person.city == spelled for person in database.people)
    query = f"SELECT COUNT(*) FROM people WHERE city = '{spelled}'"
    return Puzzle(database, f"How many people live in {city}?", query, str(count))


def _names(database: Database, city: str, spelled: str) -> Puzzle:
    names = sorted(person.name for person in database.people if person.city == spelled)
    query = f"SELECT name FROM people WHERE city = '{spelled}' ORDER BY name"
    return Puzzle(database, f"Who lives in {city}? Names in the order of the alphabet.", query, ", ".join(names))


def _ordered(database: Database, city: str, spelled: str) -> Puzzle:
    amounts: Counter[str] = Counter()
    for order in database.orders:
        amounts[database.people[order.person - 1].city] += order.amount
    query = f"SELECT COALESCE(SUM(amount), 0) FROM orders JOIN people ON people.id = person WHERE city = '{spelled}'"
    return Puzzle(database, f"What is the total amount that people in {city} ordered?", query, str(amounts[spelled]))


_QUESTIONS: tuple[Callable[[Database, str, str], Puzzle], ...] = (_people, _names, _ordered)
