"""What ``solve``, ``pull``, ``play``, ``allocate`` and ``evolve`` have in common."""

from __future__ import annotations

import json

import pytest

VERBS = {
    "solve": ("cfr", "--task", "spiel:kuhn_poker", "--iterations", 4),
    "pull": ("ucb1", "--task", "bandit:bernoulli,arms=3", "--rounds", 20, "--runs", 2),
    "play": ("tit_for_tat", "--task", "repeated:noisy", "--rounds", 20, "--runs", 2),
    "allocate": ("greedy", "--task", "allocation:static,entities=4,slots=2", "--episodes", 2),
    "evolve": (
        *("ppo", "--task", "openended:grid,horizon=4", "--members", 1, "--generations", 1, "--rounds", 1),
        *("--interval", 1, "--tests", 10, "--set", "sampler.prompts_per_step=2"),
    ),
}
DEFAULTS = {
    "solve": "cfr-spiel-kuhn_poker",
    "pull": "ucb1-bandit-bernoulli-arms-3-seed0",
    "play": "tit_for_tat-repeated-noisy-seed0",
    "allocate": "greedy-allocation-static-entities-4-slots-2-seed0",
    "evolve": "evolve-ppo-openended-grid-horizon-4-seed0",
}


@pytest.fixture(autouse=True)
def _games(request):
    if request.node.callspec.params["verb"] == "solve":
        pytest.importorskip("pyspiel")


@pytest.mark.parametrize("verb", VERBS)
def test_the_last_line_says_where_run_and_report_are_and_a_second_run_is_refused(verb, stratagem, tmp_path):
    said = stratagem(verb, *VERBS[verb])
    assert (said.code, said.err) == (0, "")
    directory = f"runs/{DEFAULTS[verb]}"
    assert said.out.splitlines()[-1].endswith(f"report: {directory}")
    for name in ("run.json", "environment.json", "metrics.jsonl", "report.html"):
        assert (tmp_path / directory / name).is_file(), name
    assert json.loads((tmp_path / directory / "run.json").read_text())["command"] == verb
    again = stratagem(verb, *VERBS[verb])
    assert (
        again.code == 2
        and again.err == f"error: run directory {directory}: holds a run already; name another with --out\n"
    )


@pytest.mark.parametrize("verb", VERBS)
def test_json_is_all_that_is_printed_and_names_the_directory(verb, stratagem):
    said = stratagem(verb, *VERBS[verb], "--out", "here", "--json")
    assert said.code == 0 and json.loads(said.out)["directory"] == "here"


@pytest.mark.parametrize("verb", VERBS)
def test_a_count_of_none_is_one_line(verb, stratagem):
    option = next(one for one in VERBS[verb] if one in ("--iterations", "--rounds", "--episodes"))
    place = VERBS[verb].index(option) + 1
    said = stratagem(verb, *VERBS[verb][:place], 0, *VERBS[verb][place + 1 :])
    assert said.code == 2 and said.err.startswith(f"error: Invalid value for '{option}'") and said.err.count("\n") == 1
