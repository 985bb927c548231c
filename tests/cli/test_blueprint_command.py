"""``stratagem blueprint``: faults line by line, and a run with its log and memory."""

from __future__ import annotations

from pathlib import Path

from stratagem.blueprint import read_audit

CODE = """
from stratagem.blueprint import Action

def add(a, b):
    return a + b

def policy():
    def choose(situation):
        if situation.history:
            return Action("finish", {"answer": situation.history[-1].result.value})
        return Action("add", {"a": "2", "b": 3})
    return choose

def broken():
    return lambda situation: 1 / 0
"""

GOOD = """
identity: {name: adder, version: "1"}
goal: add two and three
tools:
  - name: add
    side_effect: none
    input: {type: object, properties: {a: {type: number}, b: {type: number}}, required: [a, b]}
    source: {kind: python, function: "code.py:add"}
constraints:
  - {kind: at_most, name: once, tool: add, calls: 1}
policy: {function: "code.py:policy"}
workflow:
  - {id: sum, tool: add, arguments: {a: 1, b: 1}}
"""


def written(text: str) -> Path:
    folder = Path("agent")
    folder.mkdir()
    (folder / "code.py").write_text(CODE)
    (folder / "agent.yaml").write_text(text)
    return folder / "agent.yaml"


def test_a_sound_blueprint_is_said_to_be_by_its_hash(stratagem):
    said = stratagem("blueprint", "check", written(GOOD.replace("code.py", "not_there.py")))
    assert said.code == 0 and said.out.startswith("adder 1, 1 tools, 1 constraints, 1 nodes")
    assert len(said.out.split("hash: ")[1].strip()) == 64


def test_every_fault_is_a_line(stratagem):
    said = stratagem("blueprint", "check", written(GOOD.replace("tool: add, calls", "tool: ad, calls") + "gaol: x\n"))
    assert said.code == 2 and "gaol: is no field here" in said.err
    fixed = stratagem("blueprint", "check", "agent/missing.yaml")
    assert fixed.code == 2 and fixed.err.count("\n") == 1 and "cannot be read" in fixed.err


def test_a_run_prints_its_answer_and_keeps_log_and_memory(stratagem):
    file = written(GOOD)
    for episodes in (1, 2):
        said = stratagem("blueprint", "run", file, "now", "--audit", "log.jsonl", "--memory", "memory")
        assert said.code == 0 and said.out == "5\n" and "finished: 2 turns, 1 calls" in said.err
        ends = [entry for entry in read_audit("log.jsonl") if entry["entry"] == "end"]
        assert len(ends) == episodes
    assert stratagem("blueprint", "run", file, "--workflow").out == '{"sum": 2}\n'


def test_a_run_that_fails_says_so(stratagem):
    said = stratagem("blueprint", "run", written(GOOD.replace("code.py:policy", "code.py:broken")))
    assert said.code == 3 and "ZeroDivisionError" in said.err
    said = stratagem("blueprint", "run", "nowhere.yaml")
    assert said.code == 2


def test_a_budget_that_is_used_up_is_named(stratagem):
    said = stratagem("blueprint", "run", written(GOOD + "budgets: {turns: 1}\n"))
    assert said.code == 0 and said.out == "null\n" and "budget (turns): 1 turns" in said.err
