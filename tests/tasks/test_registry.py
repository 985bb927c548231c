"""Tasks are found by name, with their options, and what cannot be found or loaded is said in one line."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import EntryPoint

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stratagem.errors import InputError
from stratagem.tasks import CalculatorTask, KeyDoorTask, PythonTask, SokobanTask, SqlTask, Task, known, make, registry
from stratagem.tasks.registry import TaskCard, parse


@pytest.mark.parametrize(
    ("spec", "parsed"),
    [
        ("key_door", ("key_door", None, {})),
        ("key_door:size=8", ("key_door", None, {"size": "8"})),
        ("key_door,size=8", ("key_door", None, {"size": "8"})),
        ("sokoban:size=6,boxes=1", ("sokoban", None, {"size": "6", "boxes": "1"})),
        ("rg:chain_sum", ("rg", "chain_sum", {})),
        ("rg:chain_sum,min_terms=2", ("rg", "chain_sum", {"min_terms": "2"})),
        ("jsonl:/a/b=c/d.jsonl,verifier=python:m:f", ("jsonl", "/a/b=c/d.jsonl", {"verifier": "python:m:f"})),
        ("openenv:http://127.0.0.1:80/x?y=z", ("openenv", "http://127.0.0.1:80/x?y=z", {})),
        ("gym:ALE/Pong-v5, seed=1", ("gym", "ALE/Pong-v5", {"seed": "1"})),
        ("key_door:", ("key_door", None, {})),
        ("spiel:go(a=1,b=c(d=2,e=3)),seat=1", ("spiel", "go(a=1,b=c(d=2,e=3))", {"seat": "1"})),
        ("jsonl:/a(b.jsonl,verifier=number", ("jsonl", "/a(b.jsonl", {"verifier": "number"})),
    ],
)
def test_specifications_are_read(spec: str, parsed: tuple[str, str | None, dict[str, str]]) -> None:
    assert parse(spec) == parsed


@pytest.mark.parametrize("spec", ["", ":", ",size=6", "key door", "rg:a,b", "key_door:size=6,size=7"])
def test_malformed_specifications_are_refused(spec: str) -> None:
    with pytest.raises(InputError) as caught:
        make(spec)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=30))
def test_no_specification_fails_in_another_way(spec: str) -> None:
    with suppress(InputError):
        parse(spec)


def test_built_in_tasks_are_made_with_their_options() -> None:
    assert make("key_door:size=8") == KeyDoorTask(size=8)
    assert make("sokoban:size=5,boxes=2,view=relative") == SokobanTask(size=5, boxes=2, view="relative")
    assert make("calculator:terms=2") == CalculatorTask(terms=2)
    assert make("sql:tables=2,rows=4,seconds=0.5") == SqlTask(tables=2, rows=4, seconds=0.5)
    assert make("python:seconds=3") == PythonTask(seconds=3)


def test_an_unknown_task_is_answered_with_the_nearest() -> None:
    with pytest.raises(InputError, match="unknown task 'keydoor'; did you mean 'key_door'"):
        make("keydoor")


def test_cards_tell_the_name_and_the_extra() -> None:
    cards = {card.name: card for card in known()}
    names = {
        "key_door",
        "sokoban",
        "calculator",
        "sql",
        "python",
        "proof",
        "jsonl",
        "rg",
        "textworld",
        "verifiers",
        "openenv",
        "gym",
    }
    assert names <= set(cards)
    assert cards["textworld"].extra == "text"
    assert cards["key_door"].extra is None
    assert all(card.pattern.startswith(card.name) and card.description for card in cards.values())


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    card = TaskCard("away", "away", "needs what is not there", "no_such_package_here:from_spec", extra="text")
    monkeypatch.setattr(registry, "_BUILT_IN", (card,))
    with pytest.raises(InputError, match=r"pip install 'stratagem\[text\]'"):
        make("away")


def from_spec(argument: str | None, options: Mapping[str, str]) -> Task:
    """A third party's task."""
    return KeyDoorTask(size=int(argument or 6), **options)  # type: ignore[arg-type]


def test_tasks_of_installed_packages_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "entry_points", _registered(EntryPoint("mine", "mine:from_spec", registry.GROUP)))
    monkeypatch.setattr(EntryPoint, "load", lambda self: from_spec)
    assert make("mine:7,max_turns=20") == KeyDoorTask(size=7, max_turns=20)
    assert known()[-1].name == "mine"


def test_what_is_no_task_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "entry_points", _registered(EntryPoint("mine", "mine:f", registry.GROUP)))
    monkeypatch.setattr(EntryPoint, "load", lambda self: lambda argument, options: 3)
    with pytest.raises(InputError, match="task 'mine': mine:f returned int, not a task"):
        make("mine")


def test_a_name_registered_twice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "entry_points", _registered(EntryPoint("sokoban", "mine:f", registry.GROUP)))
    with pytest.raises(InputError, match=r"task 'sokoban' is registered by stratagem.*and by mine:f"):
        make("key_door")


def _registered(*entries: EntryPoint) -> object:
    return lambda group: entries
