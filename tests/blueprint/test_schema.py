"""Blueprints as files: what is accepted, one line for every fault, and a hash that is an identity."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from stratagem.blueprint import Blueprint, BlueprintError, TaskGraph
from stratagem.errors import InputError

PLAIN: dict[str, Any] = {
    "identity": {"name": "clerk", "version": "1.2"},
    "goal": "answer letters",
    "tools": [
        {
            "name": "read",
            "side_effect": "read",
            "input": {"type": "object", "properties": {"number": {"type": "integer"}}, "required": ["number"]},
        },
        {"name": "send", "side_effect": "irreversible"},
    ],
    "constraints": [
        {"kind": "after", "name": "read_first", "tool": "send", "first": "read"},
        {"kind": "at_most", "name": "one_letter", "tool": "send", "calls": 1},
    ],
    "fallback": {"tool": "read", "arguments": {"number": 0}},
}


def changed(**fields: Any) -> dict[str, Any]:
    return {**copy.deepcopy(PLAIN), **fields}


def faults(plain: Any) -> tuple[str, ...]:
    with pytest.raises(BlueprintError) as caught:
        Blueprint.parse(plain)
    return caught.value.faults


def reversed_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: reversed_keys(value[key]) for key in reversed(value)}
    return [reversed_keys(item) for item in value] if isinstance(value, list) else value


def test_a_blueprint_comes_back_equal_from_yaml_and_json():
    blueprint = Blueprint.parse(PLAIN)
    assert Blueprint.from_yaml(blueprint.to_yaml()) == blueprint
    assert Blueprint.from_json(blueprint.to_json()) == blueprint


def test_files_are_read_by_their_ending(tmp_path: Path):
    (tmp_path / "a.json").write_text(json.dumps(PLAIN))
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(PLAIN))
    assert Blueprint.load(tmp_path / "a.json") == Blueprint.load(tmp_path / "a.yaml") == Blueprint.parse(PLAIN)
    with pytest.raises(BlueprintError, match="cannot be read"):
        Blueprint.load(tmp_path / "b.yaml")


def test_the_hash_does_not_depend_on_the_order_of_keys_or_on_defaults_that_are_written_out():
    blueprint = Blueprint.parse(PLAIN)
    assert Blueprint.parse(reversed_keys(PLAIN)).hash == blueprint.hash
    assert Blueprint.from_yaml(blueprint.to_yaml()).hash == blueprint.hash


def test_the_hash_is_the_same_in_every_release_until_the_format_changes():
    plain = {"identity": {"name": "a", "version": "1"}, "goal": "b"}
    again = Blueprint.parse(Blueprint.parse(plain).model_dump(mode="json"))
    assert again.hash == Blueprint.parse(plain).hash and len(again.hash) == 64


@pytest.mark.parametrize(
    "fields",
    [
        {"constraints": [PLAIN["constraints"][0], {**PLAIN["constraints"][1], "calls": 2}]},
        {"constraints": PLAIN["constraints"][:1]},
        {"constraints": PLAIN["constraints"][::-1]},
        {"goal": "answer letters."},
        {"budgets": {"calls": 3}},
    ],
)
def test_the_hash_changes_with_every_value(fields: dict[str, Any]):
    assert Blueprint.parse(changed(**fields)).hash != Blueprint.parse(PLAIN).hash


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"gaol": "x"}, "gaol: is no field here"),
        ({"goal": ""}, "goal: "),
        ({"goal": 3}, "goal: "),
        ({"identity": {"name": "a", "version": "1", "x": 1}}, "identity.x: is no field here"),
        ({"identity": {"name": "a b", "version": "1"}}, "identity.name: "),
        ({"format": 2}, "format: "),
        ({"budgets": {"turns": 0}}, "budgets.turns: "),
        ({"budgets": {"turns": "3"}}, "budgets.turns: "),
        ({"budgets": {"turns": True}}, "budgets.turns: "),
        ({"tools": [{"name": "read"}]}, "tools.0.side_effect: Field required"),
        ({"constraints": [{"kind": "maybe"}]}, "constraints.0: "),
        ({"evolution": {"level": 4}}, "evolution.level: "),
    ],
)
def test_a_wrong_field_is_one_line_with_its_place(fields: dict[str, Any], fault: str):
    found = faults(changed(**fields))
    assert any(line.startswith(fault) for line in found), found
    assert all("\n" not in line for line in found)


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"tools": [*PLAIN["tools"], PLAIN["tools"][0]]}, "tools: 'read' stands 2 times"),
        ({"tools": [*PLAIN["tools"], {"name": "ask", "side_effect": "none"}]}, "tools.2.name: 'ask' is an action"),
        (
            {"tools": [*PLAIN["tools"], {"name": "x", "side_effect": "none", "input": {"type": "list"}}]},
            "tools.2.input: no valid",
        ),
        (
            {"tools": [*PLAIN["tools"], {"name": "x", "side_effect": "none", "input": {}}]},
            "tools.2.input: must be of type object",
        ),
        (
            {"constraints": [{"kind": "forbid", "name": "a", "tool": "sned"}]},
            "constraints.0.tool: no tool 'sned'",
        ),
        (
            {"constraints": [{"kind": "after", "name": "a", "tool": "send", "first": "send"}]},
            "constraints.0.first: a tool cannot come after itself",
        ),
        ({"constraints": [PLAIN["constraints"][0]] * 2}, "constraints: 'read_first' stands 2 times"),
        (
            {
                "constraints": [
                    {
                        "kind": "within",
                        "name": "a",
                        "tool": "read",
                        "arguments": ["number"],
                        "region": {"kind": "box", "low": [0, 0], "high": [1, 1]},
                    }
                ]
            },
            "constraints.0.region: has 2 dimensions, arguments are 1",
        ),
        ({"fallback": {"tool": "send"}}, "fallback.tool: 'send' has side effect irreversible"),
        ({"fallback": {"tool": "read"}}, "fallback.arguments: "),
        ({"fallback": {"tool": "rest"}}, "fallback.tool: no tool 'rest'"),
        ({"workflow": [{"id": "a", "tool": "read", "after": ["b"]}]}, "workflow: 'a' comes after 'b', which is not"),
        ({"workflow": [{"id": "a", "tool": "reed"}]}, "workflow.0.tool: no tool 'reed'"),
        ({"evolution": {"level": 1, "recipe": "grpo"}}, "evolution.recipe: level 1 changes no weights"),
        ({"evolution": {"level": 3, "recipe": "grppo"}}, "evolution.recipe: unknown recipe 'grppo'"),
        ({"evolution": {"level": 3, "values": {"sampler.size": 4}}}, "evolution.recipe: "),
    ],
)
def test_what_does_not_fit_together_is_one_line_with_its_place(fields: dict[str, Any], fault: str):
    found = faults(changed(**fields))
    assert any(line.startswith(fault) for line in found), found


def test_all_faults_are_said_at_once():
    found = faults(changed(fallback={"tool": "rest"}, workflow=[{"id": "a", "tool": "x"}, {"id": "b", "tool": "y"}]))
    assert len(found) == 3


def test_a_cycle_of_the_workflow_is_rejected_also_when_it_goes_through_arguments():
    nodes = [
        {"id": "a", "tool": "read", "after": ["b"]},
        {"id": "b", "tool": "read", "arguments": {"number": [{"$node": "a"}]}},
    ]
    assert any("tasks wait for each other" in line for line in faults(changed(workflow=nodes)))
    with pytest.raises(InputError, match="a -> a"):
        TaskGraph({"a": ("a",)})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("goal: a\ngoal: b\n", "key 'goal' stands twice"),
        ("goal: [", "not valid YAML"),
        ("- 1", "is a mapping"),
        ("1: 2", "must be a text"),
        ("goal: 2020-01-01", "no plain data"),
        ("goal: .nan", "no plain data"),
    ],
)
def test_text_that_is_no_mapping_of_plain_data_is_refused(text: str, why: str):
    with pytest.raises(BlueprintError, match=why):
        Blueprint.from_yaml(text)


def test_a_key_that_stands_twice_in_json_is_refused():
    with pytest.raises(BlueprintError, match="stands twice"):
        Blueprint.from_json('{"goal": "a", "goal": "b"}')


def test_a_blueprint_does_not_change():
    with pytest.raises(ValueError, match="frozen"):
        Blueprint.parse(PLAIN).goal = "another"  # type: ignore[misc]


def test_the_levels_of_evolution_are_recipes_that_exist():
    def recipe(**evolution: Any) -> str:
        return Blueprint.parse(changed(evolution=evolution)).evolution.build().name

    assert recipe(level=2) == "rejection_sft"
    assert recipe(level=3) == "grpo"
    assert recipe(level=3, recipe="rloo") == "rloo"
    blueprint = Blueprint.parse(changed(evolution={"level": 3, "values": {"sampler.group_size": 4}}))
    assert blueprint.evolution.build().sampler.group_size == 4
    with pytest.raises(InputError, match="changes no weights"):
        Blueprint.parse(PLAIN).evolution.build()
