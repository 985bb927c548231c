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


def test_evolve_with_several_players_says_what_counts_one(stratagem):
    said = stratagem("evolve", "ppo", "--task", "openended:grid,horizon=4,players=2", *SIZES)
    assert (said.code, said.err) == (0, "") and "the equilibrium of these agents, each in every seat" in said.out


def test_a_policy_is_evaluated_in_a_game_written_by_hand(stratagem, tmp_path):
    task = "openended:grid,horizon=4,players=2"
    small = ("--steps", 1, "--set", "sampler.prompts_per_step=4", "--out", "run")
    assert stratagem("train", "ppo", "--task", task, *small).code == 0
    said = stratagem("eval", "run", "--task", f"{task},probe=chase,coplayers=run", "--episodes", 10)
    assert (said.code, said.err) == (0, "") and "greedy" in said.out
    wrong = stratagem("eval", "run", "--task", f"{task},probe=chess")
    assert wrong.code == 2 and "unknown probe" in wrong.err and wrong.err.count("\n") == 1


def test_a_task_that_is_no_universe_is_one_line(stratagem):
    said = stratagem("evolve", "ppo", "--task", "key_door")
    assert said.code == 2 and "is no universe" in said.err
