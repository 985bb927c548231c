"""The SQL task: a question about a small generated database, which the policy may query before it answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from stratagem.sandbox.database import QueryError, QueryLimits, Rows, read_query, run_query
from stratagem.tasks.commands import answered, command, is_right, wrong
from stratagem.tasks.options import configure, validate
from stratagem.tasks.splits import draw
from stratagem.tasks.task import Environment, Observation, Split, Step, Task, state_key

_NAMES = ("Ann", "Bob", "Cid", "Dan", "Eve", "Fay", "Gus", "Hal", "Ida", "Jon", "Kim", "Leo")
_CITIES = ("Bonn", "Lima", "Oslo", "Rome")
_PRODUCTS = ("apple", "book", "chair", "drum", "egg", "flute", "glove", "hat")
_SHOWN_ROWS = 10
SHOWN_CHARACTERS = 300


class Person(NamedTuple):
    id: int
    name: str
    city: str


class Product(NamedTuple):
    id: int
    name: str
    price: int


class Order(NamedTuple):
    id: int
    person: int
    product: int
    amount: int


class Database(NamedTuple):
    """Rows of the tables; where there are two tables, the product of an order has neither name nor price."""

    people: tuple[Person, ...]
    products: tuple[Product, ...]
    orders: tuple[Order, ...]

    @property
    def schema(self) -> str:
        """What the policy is shown: one line for each table."""
        return "\n".join(f"{name}({', '.join(columns)})" for name, columns, _ in self._tables())

    @property
    def script(self) -> str:
        """SQL that makes the database."""
        lines = []
        for name, columns, rows in self._tables():
            lines.append(f"create table {name}({', '.join(columns)});")
            lines += [f"insert into {name} values ({', '.join(map(_literal, row))});" for row in rows]
        return "\n".join(lines)

    def _tables(self) -> Iterator[tuple[str, tuple[str, ...], tuple[tuple[int | str, ...], ...]]]:
        yield "people", Person._fields, self.people
        if self.products:
            yield "products", Product._fields, self.products
        yield "orders", Order._fields, self.orders


class Puzzle(NamedTuple):
    """A database, a question about it, a query that answers the question, and the answer."""

    database: Database
    question: str
    query: str
    answer: str


@dataclass(frozen=True)
class SqlTask(Task):
    """Answer a question about a database. Reward 1 for the right answer and 0 otherwise; an answer ends the episode.

    The policy is shown the tables with their columns, and no rows. ``query: SELECT ...`` is answered with the rows it
    finds, ten at most, one a line; ``answer: Ann`` answers. Everything else, a query that fails or takes too long
    included, takes a turn and is told what is wrong. Queries are run by
    :func:`~stratagem.sandbox.database.run_query`: they read and do nothing else.

    ``tables``: 2 (people and their orders) or 3 (products with prices too). ``rows``: people, 3 to 12; there are twice
    as many orders. ``max_turns``: queries and answer together, 1 to 100. ``seconds``: a query may take, above 0 and up
    to 60.
    """

    tables: Literal[2, 3] = 3
    rows: Annotated[int, Field(ge=3, le=12)] = 6
    max_turns: Annotated[int, Field(ge=1, le=100)] = 4
    seconds: Annotated[float, Field(gt=0, le=60)] = 1.0

    name = "sql"
    description = "answer a question about a small database, with SQL queries as a tool"
    max_new_tokens = 128
    system = "Write `query: SELECT ...` to see rows of the SQLite database and `answer: ...` to answer."

    def __post_init__(self) -> None:
        object.__setattr__(self, "tables", _whole(self.tables))
        validate(self)

    def environment(self, split: Split, index: int) -> Environment:
        return SqlEnvironment(self.puzzle(split, index), self.max_turns, QueryLimits(seconds=self.seconds))

    def solution(self, split: Split, index: int) -> Iterator[str]:
        """Query, then answer; the answer at once where there is only one turn."""
        puzzle = self.puzzle(split, index)
        if self.max_turns > 1:
            yield f"query: {puzzle.query}"
        yield f"answer: {puzzle.answer}"

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        """The solution with an answer that is one too high, or a letter too long."""
        *queries, _ = self.solution(split, index)
        yield from queries
        yield f"answer: {wrong(self.puzzle(split, index).answer)}"

    def answer(self, text: str) -> str | None:
        """The number or text after ``answer:``."""
        return answered(text)

    def puzzle(self, split: Split, index: int) -> Puzzle:
        """Database, question and answer of this episode."""
        return draw(
            split,
            index,
            (self.name, self.tables, self.rows),
            self._generate,
            lambda puzzle: state_key(self.name, puzzle.database.script, puzzle.question),
        )

    def _generate(self, random: Random) -> Puzzle | None:
        database = self.database(random, _CITIES)
        question = random.choice(_QUESTIONS if self.tables == 3 else _QUESTIONS_OF_TWO)
        return question(random, database)

    def database(self, random: Random, cities: Sequence[str]) -> Database:
        """A random database, whose people live in these cities."""
        names, products = random.sample(_NAMES, self.rows), random.sample(_PRODUCTS, 5)
        prices = random.sample(range(2, 60), len(products))
        return Database(
            tuple(Person(number, name, random.choice(cities)) for number, name in enumerate(names, 1)),
            tuple(Product(n, name, price) for n, (name, price) in enumerate(zip(products, prices, strict=True), 1))
            if self.tables == 3
            else (),
            tuple(
                Order(number, random.randint(1, self.rows), random.randint(1, len(products)), random.randint(1, 9))
                for number in range(1, 2 * self.rows + 1)
            ),
        )


class SqlEnvironment(Environment):
    """One question about one database. A state is both, and what the policy was told last."""

    def __init__(self, puzzle: Puzzle, max_turns: int, limits: QueryLimits) -> None:
        self.puzzle = puzzle
        self.max_turns = max_turns
        self.limits = limits
        self._script = puzzle.database.script
        self._turn = 0

    def reset(self) -> Observation:
        self._turn = 0
        return self._observe(f"{self.puzzle.database.schema}\n{self.puzzle.question}")

    def step(self, action: str) -> Step:
        self._turn += 1
        word, content = command(action)
        if word == "answer":
            right = is_right(content, self.puzzle.answer)
            return Step(self._observe("right" if right else "wrong"), float(right), done=True, success=right)
        out_of_turns = self._turn >= self.max_turns
        told, ran = self._found(content) if word == "query" else ("error: write query: or answer:", None)
        return Step(self._observe(told), done=out_of_turns, truncated=out_of_turns, ran=ran)

    def _found(self, text: str) -> tuple[str, bool]:
        try:
            return shown(run_query(self._script, read_query(text), self.limits)), True
        except QueryError as error:
            return f"error: {error}"[:SHOWN_CHARACTERS], False

    def _observe(self, text: str) -> Observation:
        return Observation(text, state_key("sql", self._script, self.puzzle.question, text))


def shown(rows: Rows, most: int = _SHOWN_ROWS) -> str:
    """Rows as the policy reads them: one a line, so many lines and 300 characters at most, ``...`` for what is left
    out."""
    if not rows.rows:
        return "no rows"
    lines = [" | ".join("null" if value is None else str(value) for value in row) for row in rows.rows[:most]]
    text = "\n".join(lines)
    if len(text) > SHOWN_CHARACTERS:
        return f"{text[:SHOWN_CHARACTERS]}..."
    return f"{text}\n..." if rows.more or len(rows.rows) > most else text


def from_spec(argument: str | None, options: Mapping[str, str]) -> SqlTask:
    """``sql[:tables=3,rows=6,max_turns=4,seconds=1]``."""
    return configure(SqlTask, argument, options)


def _whole(tables: object) -> object:
    """A ``Literal`` does not read the text of a command line."""
    return int(tables) if isinstance(tables, str) and tables.isdigit() else tables


def _literal(value: int | str) -> str:
    return f"'{value}'" if isinstance(value, str) else str(value)


# ---- questions: each has its answer from the rows, and a query that finds it ---------------------------------------


def _orders_of_one(random: Random, database: Database) -> Puzzle:
    person = random.choice(database.people)
    count = sum(order.person == person.id for order in database.orders)
    query = f"SELECT COUNT(*) FROM orders JOIN people ON people.id = person WHERE name = '{person.name}'"
    return Puzzle(database, f"How many orders did {person.name} place?", query, str(count))


def _amount_of_a_city(random: Random, database: Database) -> Puzzle:
    city = random.choice(database.people).city
    inside = {person.id for person in database.people if person.city == city}
    amount = sum(order.amount for order in database.orders if order.person in inside)
    query = f"SELECT COALESCE(SUM(amount), 0) FROM orders JOIN people ON people.id = person WHERE city = '{city}'"
    return Puzzle(database, f"What is the total amount that people in {city} ordered?", query, str(amount))


def _without_orders(random: Random, database: Database) -> Puzzle:
    buyers = {order.person for order in database.orders}
    count = sum(person.id not in buyers for person in database.people)
    query = "SELECT COUNT(*) FROM people WHERE id NOT IN (SELECT person FROM orders)"
    return Puzzle(database, "How many people placed no order?", query, str(count))


def _largest_buyer(random: Random, database: Database) -> Puzzle | None:
    amounts: Counter[int] = Counter()
    for order in database.orders:
        amounts[order.person] += order.amount
    (first, most), *others = amounts.most_common()
    if others and others[0][1] == most:
        return None
    query = (
        "SELECT name FROM people JOIN orders ON people.id = person GROUP BY people.id ORDER BY SUM(amount) DESC LIMIT 1"
    )
    return Puzzle(database, "Who ordered the largest total amount?", query, database.people[first - 1].name)


def _dearest_product(random: Random, database: Database) -> Puzzle:
    dearest = max(database.products, key=lambda product: product.price)
    query = "SELECT name FROM products ORDER BY price DESC LIMIT 1"
    return Puzzle(database, "Which product has the highest price?", query, dearest.name)


def _spent_by_one(random: Random, database: Database) -> Puzzle:
    person = random.choice(database.people)
    spent = sum(o.amount * database.products[o.product - 1].price for o in database.orders if o.person == person.id)
    query = (
        "SELECT COALESCE(SUM(amount * price), 0) FROM orders JOIN people ON people.id = person "
        f"JOIN products ON products.id = product WHERE people.name = '{person.name}'"
    )
    return Puzzle(database, f"How much did {person.name} spend (amount times price)?", query, str(spent))


def _cities_of_a_product(random: Random, database: Database) -> Puzzle:
    product = random.choice(database.products)
    cities = {database.people[order.person - 1].city for order in database.orders if order.product == product.id}
    query = (
        "SELECT COUNT(DISTINCT city) FROM orders JOIN people ON people.id = person "
        f"JOIN products ON products.id = product WHERE products.name = '{product.name}'"
    )
    return Puzzle(database, f"From how many cities was the {product.name} ordered?", query, str(len(cities)))


_Question = Callable[[Random, Database], Puzzle | None]
_QUESTIONS_OF_TWO: tuple[_Question, ...] = (_orders_of_one, _amount_of_a_city, _without_orders, _largest_buyer)
_QUESTIONS: tuple[_Question, ...] = (*_QUESTIONS_OF_TWO, _dearest_product, _spent_by_one, _cities_of_a_product)
