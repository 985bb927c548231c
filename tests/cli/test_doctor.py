"""``doctor``: what is here, as text and as data."""

from __future__ import annotations

import json
import platform

import pytest
import torch


def test_doctor_says_what_is_here_and_how_to_get_the_rest(stratagem):
    said = stratagem("doctor", "--json")
    found = json.loads(said.out)
    assert said.code == 0
    assert found["python"] == platform.python_version() and found["torch"] == torch.__version__
    assert {"processor", "memory", "accelerator", "bfloat16", "base model"} <= set(found)
    for name, value in found.items():
        if name.startswith("extra "):
            assert value == "installed" or value == f"pip install 'stratagem[{name.removeprefix('extra ')}]'"
    assert found["sandbox"].startswith(("bubblewrap: no network", "limited process, no security boundary ("))
    assert "bfloat16" in stratagem("doctor").out


CONFIG = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "hidden_size": 3584, "vocab_size": 152064}
CONFIG |= {"intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4}


def test_a_run_of_the_tiny_model_fits_and_one_of_seven_billion_weights_does_not(stratagem, tmp_path):
    small = stratagem("doctor", "--model", "tiny", "--task", "key_door", "--device", "cpu", "--device-memory", 64)
    *_, verdict, command = small.out.splitlines()
    assert small.code == 0 and verdict == "fits"
    assert command == "stratagem train grpo --task key_door --model tiny --device cpu"
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    asked = ("doctor", "--model", tmp_path, "--task", "key_door", "--device", "cuda", "--device-memory", 80)
    large = stratagem(*asked, "--json")
    found = json.loads(large.out)
    assert large.code == 1 and not found["fits"]
    # 16 bytes for each weight, its gradient and its moments, and 2 of the engine's copy.
    sizes = {part["name"]: part["gib"] * 2**30 for part in found["processes"][0]["parts"]}
    assert round(sizes["gradients"] / 4e9, 2) == 7.62 and round(sizes["engine's copy of the weights"] / 2e9, 2) == 7.62
    options = [setting["option"] for setting in found["settings"]]
    assert options[1:] == [
        "--gradient-checkpointing",
        "--concurrency 25",
        "--lora 8",
        "--cluster local --learners 16 --rollout-workers 1",
        "--cluster local --learners 1 --rollout-workers 1 --offload",
    ]
    assert [setting["fits_together"] for setting in found["settings"]] == [False, False, False, True, False, False]
    assert "does not help here" in stratagem(*asked).out

    # The command holds what it advises, and a plan with the cluster's setting fits as well.
    assert found["command"] == (
        f"stratagem train grpo --task key_door --model {tmp_path} --device cuda "
        f"{options[0]} --gradient-checkpointing --lora 8"
    )
    cluster = stratagem(*asked, "--json", "--learners", 16, "--rollout-workers", 1)
    assert cluster.code == 0
    assert abs(json.loads(cluster.out)["total_gib"] - found["settings"][4]["alone_gib"]) < 0.01

    # What it advises is what a second plan with these settings says.
    size = options[0].partition("=")[2]
    again = stratagem(
        *asked, "--json", "--set", f"optimization.microbatch_tokens={size}", "--gradient-checkpointing", "--lora", 8
    )
    assert again.code == 0
    assert abs(json.loads(again.out)["total_gib"] - found["settings"][3]["together_gib"]) < 0.01


def test_what_cannot_be_planned_is_said_in_one_line(stratagem, tmp_path):
    tiny = ("doctor", "--model", "tiny", "--task", "key_door")
    for arguments, said in [
        (("doctor", "--model", "tiny"), "needs --task"),
        (("doctor", "--lora", 8), "add --model"),
        (("doctor", "--model", tmp_path / "none", "--task", "key_door"), "no such folder"),
        (("doctor", "--model", "tiny", "--task", "gym:CartPole-v1"), "is not played in text"),
        ((*tiny, "--device-memory", 0), "above 0"),
        ((*tiny, "--episode-tokens", 0), "from 1 to 1024"),
        ((*tiny, "--recipe", "grpoo"), "grpo"),
        ((*tiny, "--set", "optimization.microbatch=1"), "microbatch_tokens"),
        ((*tiny, "--device", "tpu"), "cpu, cuda or auto"),
        ((*tiny, "--device", "cpu", "--offload"), "is from GPUs to main memory"),
        (("doctor", "--learners", 2), "--learners is for a plan: add --model"),
    ]:
        refused = stratagem(*arguments)
        assert refused.code == 2 and said in refused.err and len(refused.err.splitlines()) == 1, refused


def test_the_plan_of_a_cluster_has_its_processes_and_says_what_to_change(stratagem, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    asked = ("doctor", "--model", tmp_path, "--task", "key_door", "--device", "cuda", "--device-memory", 80)
    found = json.loads(stratagem(*asked, "--learners", 4, "--rollout-workers", 2, "--json").out)
    learner, worker = found["processes"]
    assert (learner["role"], learner["count"], learner["fits"]) == ("learner", 4, False)
    assert (worker["role"], worker["count"], worker["fits"]) == ("rollout worker", 2, True)
    weights = {part["name"]: part["gib"] for part in learner["parts"]}["weights, float32"]
    assert round(weights * 2**30 / 1e9, 2) == 7.62  # four bytes of a quarter
    assert found["total_gib"] == learner["total_gib"] and found["sessions"] == 50
    assert found["command"].startswith(
        f"stratagem train grpo --task key_door --model {tmp_path} --device cuda "
        "--cluster local --learners 4 --rollout-workers 2 --set optimization.microbatch_tokens="
    )
    tokens = found["command"].rpartition("=")[2]
    again = (*asked, "--learners", 4, "--rollout-workers", 2, "--set", f"optimization.microbatch_tokens={tokens}")
    fits = stratagem(*again)
    assert fits.code == 0 and fits.out.count("fits") == 3 and "does not" not in fits.out
    # Weights leave the device, not the run.
    moved = json.loads(stratagem(*again, "--offload", "--json").out)
    assert moved["processes"][0]["offloaded_gib"] * 2**30 == pytest.approx(4 * 7.6156e9, rel=1e-3)
    assert moved["command"].count("--offload") == 1


def test_on_a_processor_all_processes_of_a_cluster_share_one_memory(stratagem):
    asked = ("doctor", "--model", "tiny", "--task", "key_door", "--device", "cpu", "--device-memory", 64)
    found = json.loads(stratagem(*asked, "--learners", 2, "--json").out)
    assert found["total_gib"] == pytest.approx(
        sum(process["count"] * process["total_gib"] for process in found["processes"])
    )
    assert "all processes together" in stratagem(*asked, "--rollout-workers", 3).out
