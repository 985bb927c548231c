"""``pretrain``: a base model from a line of text."""

from __future__ import annotations

from stratagem.language import warm_start
from stratagem.language.pretrain import TinyShape


def test_a_base_model_is_made_scored_and_trained_on(stratagem, tmp_path, monkeypatch):
    small = TinyShape(320, hidden=32, layers=1, heads=2, key_value_heads=1, intermediate=48)
    for name, value in {"shape": small, "batch": 4}.items():
        monkeypatch.setitem(warm_start.make.__kwdefaults__, name, value)
    said = stratagem("pretrain", "--task", "key_door:size=4", "--steps", "2", "--episodes", "2", "--out", "base")
    assert (said.code, said.err) == (0, "")
    assert "key_door" in said.out and "model: base" in said.out
    train = ("train", "sft", "--task", "key_door:size=4", "--model", "./base", "--steps", "1", "--episodes", "0")
    assert stratagem(*train, "--set", "sampler.prompts_per_step=2", "--out", "run").code == 0
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
