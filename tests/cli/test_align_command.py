"""``align``: counts from real episodes, as a table and as data."""

from __future__ import annotations

import json

import pytest

from stratagem import run
from stratagem.errors import BrokenRunError, InputError
from stratagem.lab import Exact, Tree, find_game
from stratagem.study.alignment import Alignment


def test_a_lab_policy_is_aligned_as_far_as_its_exact_odds_say(stratagem):
    said = stratagem("align", "--task", "lab:prompts,spread=0", "--prompts", "64", "--samples", "64", "--json")
    assert (said.code, said.err) == (0, "")
    found = json.loads(said.out)
    tree = Tree.enumerate(find_game("prompts"))
    exact = Exact(tree, tree.normal_logits(0, 0.0)).success
    assert found["pass_at"]["1"]["low"] < exact < found["pass_at"]["1"]["high"]
    assert list(found["pass_at"]) == ["1", "8", "64"]
    assert found["none_correct"] + found["mixed"] + found["all_correct"] == pytest.approx(1)
    assert len(found["prompts"]) == 64 and {row["prompt"] for row in found["prompts"]} == {0, 1, 2}
    assert (found["contamination"], found["zone"], found["failed"]) == (None, "aligned", 0)
    correct = tuple(row["correct"] for row in found["prompts"])
    assert found["pass_at"]["8"]["value"] == pytest.approx(Alignment((64,) * 64, correct).pass_at(8))


def test_a_policy_that_never_succeeds_is_in_the_gray_zone(stratagem):
    said = stratagem("align", "--task", "lab:rare,spread=0", "--prompts", "4", "--samples", "8")
    assert said.code == 0
    assert "gray" in said.out and "weak at this task" in said.out and "pass@64" not in said.out


def test_the_seed_decides_and_the_next_gives_other_counts(stratagem):
    def counts(seed: int) -> list[int]:
        command = ("align", "--task", "lab:four_by_four", "--prompts", "8", "--samples", "16", "--json")
        return [row["correct"] for row in json.loads(stratagem(*command, "--seed", seed).out)["prompts"]]

    assert counts(0) == counts(0) != counts(1)


def test_a_language_model_is_measured_with_its_contamination(stratagem, model_folder):
    command = ("align", "--task", "key_door:max_turns=8", "--model", model_folder, "--precision", "float32")
    said = stratagem(*command, "--prompts", "3", "--samples", "2", "--k", "1,2", "--concurrency", "4", "--json")
    assert (said.code, said.err) == (0, "")
    found = json.loads(said.out)
    assert [row["prompt"] for row in found["prompts"]] == [0, 1, 2]
    assert found["contamination"] == 0.0 and list(found["pass_at"]) == ["1", "2"]
    assert found["zone_k"] == 2


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("--task", "lab:rare", "--k", "1,99"), "pass@k with k = 99: must be from 1 to the number of samples, 64"),
        (("--task", "lab:rare", "--k", "0"), "pass@k with k = 0"),
        (("--task", "lab:rare", "--k", "one"), "--k one: must be whole numbers"),
        (("--task", "lab:rar"), "unknown game 'rar'; did you mean 'rare'?"),
        (("--task", "gym:CartPole-v1", "--prompts", "1", "--samples", "2"), "knows no success"),
        (("--task", "lab:rare", "--precision", "float8"), "--precision float8"),
    ],
)
def test_wrong_input_is_one_line(stratagem, arguments, error):
    said = stratagem("align", *arguments)
    assert (said.code, said.out) == (2, "") and error in said.err and said.err.count("\n") == 1


def test_failed_episodes_are_counted_and_their_prompts_replaced_or_left_out(monkeypatch, chatter, model_folder):
    steps = []

    def fault(call: str, index: int, turn: int) -> None:
        """Prompt 1 never works, prompt 2 once."""
        steps.append((call, index))
        if call == "step" and (index == 1 or (index == 2 and steps.count(("step", 2)) > 1)):
            raise RuntimeError("no")

    monkeypatch.setattr(run.registry, "make", lambda name: chatter(fault=fault, turns=1))
    found = run.align("chatter", str(model_folder), prompts=3, samples=2, precision="float32")
    assert found.prompts == (0, 3) and found.samples == (2, 2)
    # Of prompt 1 the two episodes and their two repetitions; of prompt 2 one and its repetition.
    assert found.failed == 6
    monkeypatch.setattr(run.registry, "make", lambda name: chatter(fault=lambda call, *_: 1 / 0))
    with pytest.raises(BrokenRunError, match="every prompt of chatter lost episodes"):
        run.align("chatter", str(model_folder), prompts=2, samples=2, precision="float32")


def test_the_technique_shows_as_what_it_is(stratagem):
    said = stratagem("show", "model_task_alignment")
    assert said.code == 0 and "Model-Task Alignment Drives Distinct RL Outcomes" in said.out
    assert json.loads(stratagem("show", "model_task_alignment", "--json").out)["parts"] == {}
    refused = stratagem("train", "model_task_alignment", "--task", "lab:rare")
    assert refused.code == 2 and "model_task_alignment is not a recipe but of type Alignment" in refused.err


def test_from_python_wrong_numbers_are_refused_before_anything_is_played():
    with pytest.raises(InputError, match="k = 8"):
        run.align("lab:rare", samples=4, ks=(1, 8))


def test_it_names_the_prompts_to_train_on(stratagem):
    command = ("align", "--task", "lab:prompts,spread=3", "--prompts", "24", "--samples", "8")
    found = json.loads(stratagem(*command, "--json").out)
    right: dict[int, list[int]] = {}
    for row in found["prompts"]:
        right.setdefault(row["prompt"], []).append(row["correct"])
    assert found["start_states"] == sorted(prompt for prompt, counts in right.items() if max(counts) >= 1)
    some = json.loads(stratagem(*command, "--at-least", "2", "--at-most", "3", "--json").out)
    assert some["start_states"] == sorted(p for p, counts in right.items() if any(2 <= c <= 3 for c in counts))
    said = stratagem(*command).out
    chosen = f"sampler.start_states={found['start_states']}"
    assert f"at least 1 right samples: --set '{chosen}'" in said
    trained = stratagem("train", "arpo", "--task", "lab:prompts,spread=3", "--set", chosen, "--steps", "1")
    assert trained.code == 0, trained.err
    refused = stratagem(*command, "--at-least", "3", "--at-most", "2")
    assert refused.code != 0 and "--at-most 2: must be no less than --at-least 3" in refused.err
