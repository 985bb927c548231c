"""``evolve``: generations of populations, as a table and as data."""

from __future__ import annotations

import json

SIZES = (
    "--members",
    1,
    "--rounds",
    1,
    "--interval",
    1,
    "--tests",
    20,
    "--generations",
    1,
    "--out",
    "here",
    "--set",
    "sampler.prompts_per_step=4",
)


def test_evolve_prints_percentiles_and_where_the_policy_is(stratagem, tmp_path):
    said = stratagem("evolve", "ppo", "--task", "openended:grid,horizon=4", *SIZES)
    assert (said.code, said.err) == (0, "")
    assert [line.split()[0] for line in said.out.splitlines()[:3]] == ["agent", "generation-1", "random"]
    assert "policy, results and report: here" in said.out and (tmp_path / "here/policy/policy.json").is_file()


def test_evolve_as_json(stratagem):
    said = stratagem("evolve", "ppo", "--task", "openended:grid,horizon=4", *SIZES, "--json")
    assert {row["agent"] for row in json.loads(said.out)["results"]} == {"generation-1", "random"}


def test_a_task_that_is_no_universe_is_one_line(stratagem):
    said = stratagem("evolve", "ppo", "--task", "key_door")
    assert said.code == 2 and "is no universe" in said.err
