"""``grams``: phrases that plan, from what was said in a run."""

from __future__ import annotations

import json

from stratagem.grams import Grams


def sample(said: list[str], success: bool = True) -> str:
    messages = [{"role": "user", "content": "let us see what comes of it"}]
    messages += [{"role": "assistant", "content": text} for text in said]
    return json.dumps({"step": 1, "success": success, "messages": messages})


def test_phrases_of_successful_episodes_are_written(stratagem, tmp_path):
    good = [sample(["let us try", "another word for it"])] * 5
    lines = [*good, *[sample(["I give up now"], success=False)] * 9]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "samples.jsonl").write_text("\n".join(lines))
    said = stratagem("grams", "run", "--out", "grams.json", "--share", "1", "--without", "word, key")
    assert (said.code, said.err) == (0, "")
    assert said.out == "1 phrases of 1 strategies, from 5 solutions\nphrases: grams.json\n"
    # Neither what the user said nor what failed, and nothing that runs on from one turn into the next.
    assert Grams.load(tmp_path / "grams.json").strategies == (("let us try",),)
    assert stratagem("grams", "run/samples.jsonl", "--out", "again.json", "--share", "1").code == 0


def test_what_is_wrong_is_said_in_one_line(stratagem, tmp_path):
    (tmp_path / "failed.jsonl").write_text(sample(["no"], success=False))
    (tmp_path / "other.jsonl").write_text('{"success": true}\n')
    (tmp_path / "good.jsonl").write_text(sample(["let us try"]))
    for arguments, message in (
        (("none",), "none: cannot be read (FileNotFoundError)"),
        (("failed.jsonl",), "failed.jsonl: holds no successful episode, and phrases are mined from those"),
        (("other.jsonl",), "other.jsonl, line 1: is no episode with 'success' and 'messages'"),
        (("good.jsonl", "--share", "2"), "mine: share = 2.0: must be in (0, 1]"),
    ):
        said = stratagem("grams", *arguments, "--out", "grams.json")
        assert (said.code, said.out, said.err.strip()) == (2, "", f"error: {message}")
    assert not (tmp_path / "grams.json").exists()
