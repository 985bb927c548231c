"""``merge``: one model of three."""

from __future__ import annotations

import torch
from safetensors.torch import load_file


def test_three_folders_become_a_model_that_trains(stratagem, tmp_path, make_policy):
    for seed, name in enumerate(("distilled", "instructed", "pretrained")):
        make_policy(seed, context=2048).save(tmp_path / name)
    said = stratagem("merge", "distilled", "instructed", "pretrained", "--out", "merged", "--a", "0.6", "--b", "0.5")
    assert (said.code, said.err) == (0, "")
    assert said.out == "0.3 distilled, 0.2 instructed, 0.5 pretrained\nmodel: merged\n"
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("distilled", "instructed", "pretrained")]
    for name, merged in load_file(tmp_path / "merged" / "model.safetensors").items():
        torch.testing.assert_close(merged, 0.3 * weights[0][name] + 0.2 * weights[1][name] + 0.5 * weights[2][name])
    train = ("train", "grpo", "--task", "key_door:size=4", "--model", "./merged", "--steps", "1", "--episodes", "0")
    assert stratagem(*train, "--set", "sampler.prompts_per_step=1", "--set", "sampler.group_size=2").code == 0


def test_what_is_wrong_is_said_in_one_line(stratagem, tmp_path, make_policy):
    make_policy().save(tmp_path / "one")
    for arguments, message in (
        (("one", "one", "none", "--out", "merged"), "error: model none: no such folder"),
        (("one", "one", "one", "--out", "one"), "error: --out one: exists and is not an empty folder"),
        (("one", "one", "one", "--out", "merged", "--a", "2"), "error: bai.a = 2.0: must lie in [0, 1]"),
    ):
        said = stratagem("merge", *arguments)
        assert (said.code, said.out, said.err.strip()) == (2, "", message)
    assert not (tmp_path / "merged").exists()
