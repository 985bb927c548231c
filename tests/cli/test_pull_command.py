"""``pull``: policies compared in a bandit, as a table, as data and as a page."""

from __future__ import annotations

import json


def test_pull_prints_a_table_and_writes_a_report(stratagem, tmp_path):
    said = stratagem("pull", "ucb1", "uniform", "--task", "bandit:bernoulli,arms=3", "--rounds", 100, "--runs", 4)
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert lines[0].split() == ["policy", "regret", "at", "most,", "by", "theory", "a", "round", "seconds"]
    assert [line.split()[0] for line in lines[1:3]] == ["ucb1", "uniform"] and "[" in lines[1]
    assert "regret after 100 rounds against the best arm of each round" in said.out
    assert (tmp_path / "runs/ucb1-uniform-bandit-bernoulli-arms-3-seed0/report.html").is_file()


def test_pull_as_json(stratagem):
    options = (
        "--rounds",
        50,
        "--runs",
        3,
        "--seed",
        4,
        "--set",
        "epsilon=0.3",
        "--batch",
        5,
        "--out",
        "here",
        "--json",
    )
    said = stratagem("pull", "epsilon_greedy", "--task", "bandit:gapped", *options)
    assert said.code == 0
    found = json.loads(said.out)
    (policy,) = found["policies"]
    assert found["directory"] == "here" and policy["final"]["step"] == 50 and len(policy["rows"]) == 50
    assert policy["final"]["low"] <= policy["final"]["regret"] <= policy["final"]["high"]


def test_pull_for_arms_with_states(stratagem):
    task = "bandit:recovering,arms=3,slots=1,longest=3"
    said = stratagem("pull", "recovering_rewards", "best_now", "--task", task, "--rounds", 60, "--runs", 2)
    assert said.code == 0 and "against a bound on any policy" in said.out


def test_wrong_input_is_one_line(stratagem):
    for arguments, expected in (
        (("ucb", "--task", "bandit:bernoulli"), "unknown policy 'ucb'; did you mean 'ucb1'?"),
        (("ucb1", "--task", "key_door"), "write bandit:NAME"),
        (("ucb1", "--task", "bandit:bernoulli", "--delay", "-1"), "Invalid value for '--delay'"),
    ):
        said = stratagem("pull", *arguments)
        assert said.code == 2 and expected in said.err and said.err.count("\n") == 1
