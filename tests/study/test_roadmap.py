"""Which slots a recipe and a run fill."""

from __future__ import annotations

import json

import pytest

from stratagem import catalogue, train
from stratagem.errors import InputError
from stratagem.recipes import grpo, sft
from stratagem.study.roadmap import Roadmap
from stratagem.taxonomy import SLOTS


def test_a_recipe_says_which_slots_it_leaves_empty():
    assert Roadmap.of(grpo()).empty == ("initialisation",)
    assert Roadmap.of(sft()).empty == ("reward", "search")
    assert Roadmap().empty == SLOTS


def test_the_survey_itself_is_in_the_catalogue_in_all_four_slots():
    assert catalogue.card("o1_roadmap_survey").build is Roadmap
    assert catalogue.card("o1_roadmap_survey").tags == SLOTS


def test_a_tag_there_is_not_is_refused():
    with pytest.raises(InputError, match=r"^unknown tag 'reward\.granularity\.prozess'"):
        Roadmap(("reward.granularity.prozess",))


def test_a_run_counts_every_token_its_engine_sampled(tmp_path):
    run = train("grpo", "lab:four_by_four", steps=3, out=tmp_path / "run", evaluation_episodes=8)
    roadmap = Roadmap.of_run(run.directory)
    rows = [json.loads(line) for line in (run.directory / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 3
    # Four tokens for each of the 64 trajectories of a batch.
    assert roadmap.tokens == sum(row["tokens/sampled"] for row in rows) == 3 * 64 * 4
    assert roadmap.tags == Roadmap.of(grpo()).tags
    # The transcripts of a game of tokens are numbers: rollouts with text, without behaviours.
    assert roadmap.behaviours.rollouts > 0 and not any(roadmap.behaviours.counts.values())


def test_behaviours_of_a_run_are_those_of_its_samples(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "recipe.yaml").write_text(grpo().to_yaml())
    samples = [{"step": 1, "messages": [{"role": "assistant", "content": "Wait, let me check."}]}] * 2
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    shown = Roadmap.of_run(tmp_path).to_json()
    assert shown["tokens"] is None and shown["rollouts"] == 2
    assert shown["behaviours"]["self_correction"] == {"count": 2, "per_rollout": 1.0, "rollouts": 2}
    assert shown["slots"]["search"] and shown["empty"] == ["initialisation"]


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(InputError, match="holds no run"):
        Roadmap.of_run(tmp_path)
