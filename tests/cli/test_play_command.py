"""``play``: players of a repeated game and learners on a lattice, as a table, as data and as a page."""

from __future__ import annotations

import json


def test_play_prints_a_table_and_writes_a_report(stratagem, tmp_path):
    players = ("tit_for_tat", "smoothed_tit_for_tat,memory=0.99", "always_defect")
    said = stratagem("play", *players, "--task", "repeated:interrupted", "--runs", 3)
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert lines[0].split()[:3] == ["player", "payoff", "cooperation"]
    assert [line.split()[0] for line in lines[1:4]] == list(players) and "[" in lines[1]
    assert "against an opponent who does not react; 1,750 rounds" in said.out
    assert len(list(tmp_path.glob("runs/*/report.html"))) == 1


def test_play_as_json(stratagem):
    task = "lattice,side=4,temptation=0.3,start=0.5,evaluation=10"
    options = ("--rounds", 20, "--runs", 2, "--seed", 4, "--out", "here", "--json")
    said = stratagem("play", "own_tables,rate=0.2", "--task", task, *options)
    assert said.code == 0
    found = json.loads(said.out)
    (player,) = found["players"]
    assert found["directory"] == "here" and len(player["rows"]) == 20 and player["rows"][-1]["step"] == 20
    mean, low, high = player["totals"]["cooperation after learning"]
    assert low <= mean <= high
    assert "temptation 0.3, exploration index 0.410" in found["about"]


def test_wrong_input_is_one_line(stratagem):
    for arguments, expected in (
        (("brgg", "--task", "repeated:noisy"), "unknown player 'brgg'; did you mean 'brg'?"),
        (("brg", "--task", "bandit:gapped"), "write lattice[,option=value...] or repeated:OPPONENT"),
        (("shared_network", "--task", "lattice,side=2"), "side=2"),
    ):
        said = stratagem("play", *arguments)
        assert said.code == 2 and expected in said.err and said.err.count("\n") == 1
