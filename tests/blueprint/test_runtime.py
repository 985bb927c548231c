"""Runs of agents: constraints before actions, budgets, speculation, workflows, the audit log, two engines."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stratagem.blueprint import (
    Action,
    Blueprint,
    BlueprintAgent,
    Choices,
    Event,
    LayeredMemory,
    Report,
    Situation,
    TextPolicy,
    judge,
    read_audit,
    run_in_process,
    run_in_subprocess,
    simulated,
    untimed,
)
from stratagem.errors import BrokenRunError, InputError

NUMBER = {"type": "object", "properties": {"n": {"type": "number"}}, "required": ["n"]}


def blueprint(**fields: Any) -> Blueprint:
    tools = [
        {"name": "look", "side_effect": "read", "input": NUMBER},
        {"name": "write", "side_effect": "write", "input": NUMBER},
        {"name": "rest", "side_effect": "none"},
    ]
    plain = {"identity": {"name": "agent", "version": "1"}, "goal": "do it", "tools": tools, **fields}
    return Blueprint.parse(plain)


class Tools(dict[str, Callable[..., Any]]):
    """Functions that note what they were called with."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.made: list[tuple[str, Any]] = []
        self.seconds = seconds
        super().__init__({name: self.noting(name) for name in ("look", "write", "rest")})

    def noting(self, name: str) -> Callable[..., Any]:
        async def call(n: float | None = None) -> Any:
            self.made.append((name, n))
            await asyncio.sleep(self.seconds)
            return n

        return call


def look(n: Any = 1) -> Action:
    return Action("look", {"n": n})


def write(n: Any = 1) -> Action:
    return Action("write", {"n": n})


def finish(answer: Any = None) -> Action:
    return Action("finish", {"answer": answer})


class Script:
    """A policy that says one thing after the other."""

    def __init__(self, *said: Choices | Action | Exception, seconds: float = 0.0, guesses: Any = None) -> None:
        self.said, self.seconds, self.seen = said, seconds, list[Situation]()
        if guesses is not None:
            self.predict = lambda situation: guesses[situation.turn]

    async def __call__(self, situation: Situation) -> Choices | Action:
        self.seen.append(situation)
        await asyncio.sleep(self.seconds)
        said = self.said[min(situation.turn, len(self.said) - 1)]
        if isinstance(said, Exception):
            raise said
        return said


def ran(
    chooser: Any, tools: Tools | None = None, *, predicates: Any = None, options: Any = None, **fields: Any
) -> Report:
    agent = BlueprintAgent(blueprint(**fields), chooser, tools or Tools(), predicates or {})
    return simulated(lambda: agent.start("begin", **(options or {}))).value


FORBIDDEN = {"constraints": [{"kind": "forbid", "name": "no_writing", "tool": "write"}]}
CUSTOM = {"constraints": [{"kind": "predicate", "name": "mine"}]}

# ---- constraints ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(1000, 1020))
def test_what_is_forbidden_is_never_done_however_likely_it_was(seed: int):
    tools = Tools()
    report = ran(
        Script(Choices((write(), look(), look(2)), (9.0, 0.0, 0.0)), finish()),
        tools,
        options={"seed": seed},
        **FORBIDDEN,
    )
    assert report.status == "finished" and [name for name, _ in tools.made] == ["look"]


def test_the_log_has_the_projected_policy_and_the_mass_that_was_allowed():
    choices = Choices((write(), look(2), look(3)), (math.log(0.5), math.log(0.3), math.log(0.2)), "a thought")
    entry = ran(Script(choices, finish()), **FORBIDDEN).entries[1]
    assert [row["logp"] and math.exp(row["logp"]) for row in entry["candidates"]] == [
        None,
        pytest.approx(0.6),
        pytest.approx(0.4),
    ]
    assert entry["allowed_mass"] == pytest.approx(0.5) and entry["thought"] == "a thought"
    assert entry["candidates"][0]["violated"] == ["no_writing"]


def test_greedy_takes_the_likeliest_of_what_is_allowed():
    tools = Tools()
    ran(
        Script(Choices((write(), look(2), look(3)), (9.0, 0.0, 0.1)), finish()),
        tools,
        policy={"greedy": True},
        **FORBIDDEN,
    )
    assert tools.made == [("look", 3)]


def test_where_nothing_is_allowed_a_person_is_asked_or_the_null_action_is_done():
    report = ran(Script(write()), **FORBIDDEN)
    assert report.status == "asked" and "no_writing" in report.answer and report.calls == 0
    tools = Tools()
    report = ran(Script(write(), finish(1)), tools, fallback={"tool": "rest"}, **FORBIDDEN)
    assert report.status == "finished" and tools.made == [("rest", None)]
    assert report.entries[1]["chosen"] is None and report.entries[1]["action"]["tool"] == "rest"


def raises(history: Any, action: Action) -> bool:
    raise RuntimeError("no idea")


@pytest.mark.parametrize("predicate", [raises, lambda history, action: 1, lambda history, action: None])
def test_a_predicate_that_fails_or_says_no_clear_yes_forbids(predicate: Any):
    report = ran(Script(look()), predicates={"mine": predicate}, **CUSTOM)
    assert report.status == "asked" and report.calls == 0
    verdict = judge({"mine": raises}, (), look())
    assert verdict.violated == ("mine",) and verdict.raised == {"mine": "RuntimeError: no idea"}


def test_a_predicate_reads_the_history_and_one_that_is_missing_is_one_clear_error():
    tools = Tools()
    once = {"mine": lambda history, action: all(turn.action != action for turn in history)}
    report = ran(Script(look(1)), tools, predicates=once, **CUSTOM)
    assert report.status == "asked" and tools.made == [("look", 1)]
    with pytest.raises(InputError, match="'mine': the program must pass a predicate"):
        ran(Script(look()), **CUSTOM)


def test_declared_constraints_hold_over_the_history():
    rules = [
        {"kind": "after", "name": "look_first", "tool": "write", "first": "look"},
        {"kind": "at_most", "name": "twice", "tool": "write", "calls": 2},
        {"kind": "only_with", "name": "small", "tool": "write", "arguments": {"properties": {"n": {"maximum": 5}}}},
        {"kind": "forbid", "name": "not_three", "tool": "write", "arguments": {"properties": {"n": {"const": 3}}}},
        {"kind": "after", "name": "finish_last", "tool": "finish", "first": "write"},
    ]
    tools = Tools()
    policy = Script(
        *[
            Choices((action, Action("rest")), (99.0, 0.0))
            for action in (write(1), finish(), look(), write(9), write(3), write(1), write(2), write(1), finish("done"))
        ]
    )
    report = ran(policy, tools, constraints=rules, policy={"greedy": True})
    assert [name for name, _ in tools.made] == ["rest", "rest", "look", "rest", "rest", "write", "write", "rest"]
    assert report.answer == "done"


def test_numbers_are_moved_into_their_region_and_what_is_judged_is_what_is_done():
    region = {"kind": "ball", "center": [0], "radius": 2}
    rules = [{"kind": "within", "name": "near", "tool": "look", "arguments": ["n"], "region": region}]
    tools = Tools()
    report = ran(Script(look("7"), look(1), finish()), tools, constraints=rules)
    assert tools.made == [("look", 2.0), ("look", 1)]
    assert report.entries[1]["candidates"][0]["repaired"] and report.counts["repaired"] == 1
    assert ran(Script(Action("look")), constraints=rules).status == "asked"


# ---- what goes wrong ------------------------------------------------------------------------------------------------


def test_wrong_arguments_are_a_result_the_policy_reads_in_the_next_turn():
    policy = Script(look("seven"), Action("lok"), finish())
    report = ran(policy)
    assert [turn.result.status for turn in report.history] == ["invalid", "invalid"]
    assert "invalid" in policy.seen[1].context[-1] and report.counts["invalid"] == 2


@pytest.mark.parametrize("said", [RuntimeError("two\nlines"), Choices((look(),), (math.nan,)), 3])
def test_a_policy_that_fails_ends_the_run_with_a_line_and_a_log(said: Any):
    report = ran(Script(said))
    assert report.status == "failed" and "the policy" in report.message and "\n" not in report.message
    assert report.entries[-1]["entry"] == "end"


def test_choices_need_as_many_logits_as_actions():
    with pytest.raises(ValueError, match="one logit for each"):
        Choices((look(),), (1.0, 2.0))


# ---- budgets --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("budgets", "which", "calls"),
    [
        ({"turns": 3}, "turns", 3),
        ({"calls": 2}, "calls", 2),
        ({"seconds": 2.5}, "seconds", 3),
        ({"tokens": 1}, "tokens", 0),
    ],
)
def test_a_budget_ends_the_run(budgets: dict[str, Any], which: str, calls: int):
    tools = Tools(seconds=1.0)
    report = ran(Script(look()), tools, budgets=budgets)
    assert (report.status, report.message, len(tools.made)) == ("budget", which, calls)


def test_prompts_stay_within_their_budget_and_keep_goal_tools_and_observation():
    policy = Script(look())
    report = ran(policy, budgets={"turns": 30, "context_tokens": 160, "tokens": 100_000})
    last = policy.seen[-1].context
    assert last[0] == "Goal: do it" and last[4] == "begin" and 5 < len(last) < 5 + 29
    assert report.tokens <= 30 * (160 + 20)
    assert ran(policy, budgets={"context_tokens": 5}).message.startswith("context: pinned items take")


# ---- speculation ----------------------------------------------------------------------------------------------------


def test_a_foreseen_call_is_under_way_before_it_is_decided():
    timed = [
        simulated(
            lambda guess=guess: BlueprintAgent(
                blueprint(), Script(look(), finish(), seconds=3.0, guesses=[guess, None]), Tools(2.0)
            ).start()
        )
        for guess in (look(), look(5), None)
    ]
    assert [one.seconds for one in timed] == [6.0, 8.0, 8.0]
    hits = [[e["speculation"] for e in one.value.entries if e["entry"] == "result"] for one in timed]
    assert hits == [[True], [False], [None]]
    assert [one.value.calls for one in timed] == [1, 2, 1]


@pytest.mark.parametrize(
    ("guess", "fields"),
    [
        (write(), {}),
        (look(), {"constraints": [{"kind": "forbid", "name": "a", "tool": "look"}]}),
        (Action("look"), {}),
        (Action("nothing"), {}),
        (finish(), {}),
        (look(), {"budgets": {"calls": 1}}),
    ],
)
def test_what_has_side_effects_or_is_not_allowed_is_never_begun_early(guess: Action, fields: dict[str, Any]):
    tools = Tools()
    ran(Script(Action("rest"), finish(), seconds=1.0, guesses=[guess, None]), tools, **fields)
    assert tools.made == [("rest", None)]


def test_a_prediction_that_fails_is_on_record_and_harmless():
    policy = Script(look(), finish(1))
    policy.predict = lambda situation: 1 / 0  # type: ignore[attr-defined]
    report = ran(policy)
    assert report.answer == 1 and any(entry["entry"] == "prediction_failed" for entry in report.entries)


# ---- workflows ------------------------------------------------------------------------------------------------------

NODES = [
    {"id": "a", "tool": "look", "arguments": {"n": 2}},
    {"id": "b", "tool": "look", "arguments": {"n": 3}},
    {"id": "c", "tool": "write", "arguments": {"n": {"$node": "a"}}, "after": ["b"]},
]


def flow(tools: Any, **fields: Any) -> tuple[Report, float]:
    agent = BlueprintAgent(blueprint(**{"workflow": NODES, **fields}), functions=tools)
    timed = simulated(lambda: agent.start(workflow=True))
    return timed.value, timed.seconds


@pytest.mark.parametrize(("workers", "seconds"), [(None, 7.0), (2, 7.0), (1, 9.0)])
def test_nodes_that_do_not_wait_run_at_the_same_time(workers: int | None, seconds: float):
    async def take(n: float) -> float:
        await asyncio.sleep(n)
        return n

    async def four(n: float) -> float:
        await asyncio.sleep(4)
        return n

    tools = {"look": take, "write": four, "rest": take}
    report, took = flow(tools, budgets={"workers": workers})
    assert took == seconds and report.answer == {"a": 2, "b": 3, "c": 2}


def test_what_comes_after_a_failed_node_is_skipped():
    async def fail(n: float) -> float:
        raise ValueError("no")

    tools = Tools()
    report, _ = flow({**tools, "look": fail})
    assert report.status == "failed" and report.message == "nodes that are not ok: a, b, c" and not tools.made
    assert report.entries[-2]["status"] == "skipped"


def test_calls_under_way_count_for_constraints():
    tools = Tools(seconds=1.0)
    rules = [{"kind": "at_most", "name": "once", "tool": "look", "calls": 1}]
    report, _ = flow(tools, constraints=rules)
    assert tools.made == [("look", 2)] and report.answer == {"a": 2}


# ---- memory and learning --------------------------------------------------------------------------------------------


def test_the_next_run_reads_what_the_last_one_learned_and_at_level_0_it_does_not():
    def lessons(events: Any) -> list[Any]:
        from stratagem.blueprint import Insight

        return [Insight(f"do it slowly after {event.text}", 1.0) for event in events if event.importance == 1]

    for level, learned in ((1, True), (0, False)):
        memory = LayeredMemory(reflector=lessons)
        ran(Script(look("x"), finish()), options={"memory": memory})
        assert len(memory.episodes) == 1 and isinstance(memory.events[0], Event)
        policy = Script(finish())
        ran(policy, options={"memory": memory}, evolution={"level": level})
        assert any("do it slowly" in text for text in policy.seen[0].context) is learned


def test_the_recipe_of_an_agent_is_one_of_the_catalogue():
    assert BlueprintAgent(blueprint(evolution={"level": 2})).recipe().name == "rejection_sft"


# ---- policies of text -----------------------------------------------------------------------------------------------


def test_replies_are_thoughts_and_actions_and_several_are_a_distribution():
    replies = ['first\nlook {"n": 1}', 'look {"n": 1}', 'write {"n": 2}']
    asked = []

    def complete(messages: Any) -> list[str]:
        asked.append(messages)
        return replies if len(asked) == 1 else ['finish {"answer": 5}']

    report = ran(TextPolicy(complete))
    row = report.entries[1]
    assert [math.exp(one["logp"]) for one in row["candidates"]] == pytest.approx([2 / 3, 1 / 3])
    assert row["thought"] == "first" and report.answer == 5
    assert "Goal: do it" in asked[0][1]["content"]


def test_text_that_is_no_action_is_counted_and_not_fatal():
    replies = iter(["I do not know", "", "look {", 'finish {"answer": 0}'])
    report = ran(TextPolicy(lambda messages: next(replies)))
    assert report.status == "finished" and report.counts["invalid"] == 3


# ---- the record -----------------------------------------------------------------------------------------------------


def test_every_line_of_the_log_has_the_hash_and_files_are_added_to(tmp_path: Path):
    path = tmp_path / "audit.jsonl"
    for _ in range(2):
        report = ran(Script(look(), finish("é")), options={"audit": path})
    entries = read_audit(path)
    assert len(entries) == 2 * len(report.entries)
    assert {entry["blueprint"] for entry in entries} == {blueprint().hash}
    assert [entry["entry"] for entry in report.entries] == ["start", "decision", "result", "decision", "end"]
    assert report.entries[2]["input"] == {"tool": "look", "arguments": {"n": 1}} and report.entries[2]["output"] == 1
    assert untimed(entries[:5]) == untimed(entries[5:]) and "at" in entries[0]
    path.write_text('{"entry": "start"}\nnothing\n')
    with pytest.raises(InputError, match="line 2: no entry"):
        read_audit(path)
    with pytest.raises(InputError, match="cannot be written"):
        ran(Script(finish()), options={"audit": tmp_path / "no" / "file"})


AGENT = """
from stratagem.blueprint import Action, Choices

def add(a, b):
    print("noise on standard output")
    return a + b

def policy(limit):
    def choose(situation):
        if situation.turn == limit:
            return Action("finish", {"answer": [turn.result.value for turn in situation.history]})
        return Choices(tuple(Action("add", {"a": n, "b": situation.turn}) for n in range(20)), thought="any")
    return choose

def broken():
    raise RuntimeError("cannot be built")
"""


def on_file(**fields: Any) -> dict[str, Any]:
    return {
        "identity": {"name": "adder", "version": "1"},
        "goal": "add",
        "tools": [{"name": "add", "side_effect": "none", "source": {"kind": "python", "function": "code.py:add"}}],
        "constraints": [
            {"kind": "only_with", "name": "even", "tool": "add", "arguments": {"properties": {"a": {"multipleOf": 2}}}}
        ],
        "policy": {"function": "code.py:policy", "arguments": {"limit": 3}},
        **fields,
    }


def test_one_blueprint_leaves_one_trace_on_both_engines(tmp_path: Path):
    (tmp_path / "code.py").write_text(AGENT)
    declared = Blueprint.parse(on_file())
    here = run_in_process(declared, "go", seed=1000, folder=tmp_path)
    assert here == run_in_subprocess(declared, "go", seed=1000, folder=tmp_path, seconds=60)
    assert here != run_in_process(declared, "go", seed=1001, folder=tmp_path)
    assert all(entry["input"]["arguments"]["a"] % 2 == 0 for entry in here if entry["entry"] == "result")


def test_an_engine_that_fails_says_why(tmp_path: Path):
    (tmp_path / "code.py").write_text(AGENT)
    declared = Blueprint.parse(on_file(policy={"function": "code.py:broken"}))
    with pytest.raises(BrokenRunError, match="cannot be built"):
        run_in_subprocess(declared, folder=tmp_path, seconds=60)


def test_a_blueprint_without_a_policy_needs_one():
    with pytest.raises(InputError, match="the program must pass a policy"):
        BlueprintAgent(blueprint(), functions=Tools()).run()
    assert json.loads(blueprint().to_json())["policy"]["function"] is None
