"""Reward and preference models: trained as any recipe is, evaluated on pairs, saved, and asked by other runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from stratagem.catalogue import card
from stratagem.errors import InputError
from stratagem.language.answer_models import AnswerModel, answer_model, embeddings
from stratagem.language.policy import LanguagePolicy
from stratagem.objectives import AnswerHead
from stratagem.preferences import PreferenceModel
from stratagem.preferences.models import lead
from stratagem.readings import Pair, Scored
from stratagem.rewards import ModelReward
from stratagem.sampling import Candidates, Rollouts
from stratagem.tasks import PairsTask

QUICK = {"sampler.prompts_per_step": 16, "optimization.learning_rate": 1e-3, "view.learning_rate": 3e-3}


def pairs_file(path: Path, better: Sequence[tuple[str, str]], prompts: int = 24, **fields: Any) -> str:
    """Labels of as many prompts, that go through these pairs: the first is better than the second."""
    lines = [
        {"prompt": f"say {number}", "chosen": chosen, "rejected": rejected, **fields}
        for number in range(prompts)
        for chosen, rejected in better
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    return str(path)


@pytest.fixture
def yes(tmp_path: Path) -> str:
    return pairs_file(tmp_path / "yes.jsonl", [("yes", "no"), ("sure", "no")])


CYCLE = [("rock", "scissors"), ("scissors", "paper"), ("paper", "rock")]


@pytest.fixture
def trained(yes: str, make_trainer: Any, make_world: Any) -> Callable[..., Any]:
    """``trained(name, path=yes, steps=12, policy=None, **values)``: a trainer that has run."""

    def run(name: str, path: str = yes, steps: int = 12, policy: Any = None, **values: Any) -> Any:
        world = make_world(PairsTask(path, test_share=0.3), policy=policy)
        recipe = card(name).recipe().with_values(QUICK | {key.replace("__", "."): v for key, v in values.items()})
        trainer = make_trainer(recipe, f"run-{name}", world=world, steps=steps, evaluation_episodes=12)
        trainer.run()
        return trainer

    return run


# ---- the head -------------------------------------------------------------------------------------------------------


def test_the_head_reads_the_last_hidden_state_at_the_answers_last_token(make_world: Any, yes: str) -> None:
    world = make_world(PairsTask(yes, test_share=0))
    x, policy = world.collect(Candidates(prompts_per_step=2), 0).x, world.policy
    view = AnswerHead(4, 2.0)
    [weight] = policy.view_parameters(view)
    last = x.trajectory_of_token.last()
    hidden = policy(x, also={"after"}).after[last]
    expected = torch.nn.functional.normalize(hidden @ weight.T, dim=-1) * 2
    torch.testing.assert_close(policy(x, also={"embedding"}, view=view).embedding[last], expected)
    torch.testing.assert_close(embeddings(policy, x), expected.detach())
    assert bool(policy(x, view=view).logp.isnan().all()), "nothing is said of tokens in this view"


def test_the_view_says_nothing_else(make_policy: Any, make_world: Any) -> None:
    x, policy = make_world().collect(Rollouts(1, 2), 0).x, make_policy()
    with pytest.raises(InputError, match="this policy has no head of answers"):
        policy(x, also={"embedding"}, view=AnswerHead())
    policy.view_parameters(AnswerHead())
    with pytest.raises(InputError, match="does not say entropy in the view answer_head"):
        policy(x, also={"entropy"}, view=AnswerHead())
    with pytest.raises(InputError, match="embeds answers in the view answer_head alone"):
        policy(x, also={"embedding"})


def test_a_recipe_of_credit_cannot_take_the_view() -> None:
    with pytest.raises(InputError, match="view = answer_head: advantage or objective reads ref_logp"):
        card("dpo").recipe().replace(view=AnswerHead())


def test_the_same_head_is_given_again_and_another_view_gets_another_one(make_policy: Any) -> None:
    policy = make_policy()
    [first] = policy.view_parameters(AnswerHead(4, 2.0))
    assert policy.view_parameters(AnswerHead(4, 2.0, learning_rate=1.0))[0] is first
    assert policy.view_parameters(AnswerHead(2))[0].shape == (2, 32)
    assert policy.view_parameters(None) == [] and policy.answer_head is None


# ---- training -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bradley_terry_model", "pairwise_model"])
def test_a_model_learns_what_is_preferred_and_says_so_of_pairs_it_has_not_seen(name: str, trained: Any) -> None:
    trainer = trained(name)
    rows = trainer.run_directory.rows("evaluations.jsonl")
    first, last = ({row["mode"]: row for row in rows if row["step"] == step} for step in (0, 12))
    assert last["greedy"]["success"] == 1.0 and last["sampled"]["success"] > 0.8 > first["sampled"]["success"]
    assert last["greedy"]["interval"][0] > 0.7 and last["sampled"]["interval"][0] <= last["sampled"]["success"]
    for row in rows:
        assert row["episodes"] == 10 and row["calibration"]["error_interval"][0] <= row["calibration"]["error"] + 1e-9
    metrics = trainer.run_directory.rows("metrics.jsonl")
    assert metrics[-1]["accuracy"] == 1.0 and metrics[-1]["loss"] < metrics[0]["loss"]


def test_only_embeddings_learn_preferences_that_go_in_circles(trained: Any, tmp_path: Path) -> None:
    path = pairs_file(tmp_path / "cycle.jsonl", CYCLE, prompts=8)
    seen = {}
    for name in ("bradley_terry_model", "pairwise_model"):
        rows = trained(name, path, steps=20).run_directory.rows("evaluations.jsonl")
        seen[name] = [row["success"] for row in rows if row["mode"] == "greedy"]
    assert seen["pairwise_model"][-1] == 1.0
    assert seen["bradley_terry_model"][-1] < 0.8, "two of three are the most that scores can be right about"


def test_adapters_learn_a_head_as_well(trained: Any, make_policy: Any) -> None:
    pytest.importorskip("peft")
    policy = make_policy(lora={"rank": 4})
    before = {name: tensor.clone() for name, tensor in policy.unmerged(adapters=False)}
    trainer = trained("bradley_terry_model", policy=policy)
    assert trainer.run_directory.rows("metrics.jsonl")[-1]["accuracy"] == 1.0
    assert all(torch.equal(tensor, before[name]) for name, tensor in policy.unmerged(adapters=False))
    loaded = answer_model(str(trainer.run_directory.path / "model"))
    assert loaded.dims == 1


@pytest.mark.parametrize("within", [False, True])
def test_a_run_goes_on_as_if_it_had_not_stopped(
    within: bool, yes: str, make_trainer: Any, make_world: Any, stopped_and_resumed: Any
) -> None:
    def world() -> Any:
        torch.manual_seed(0)
        return make_world(PairsTask(yes, test_share=0))

    changes = QUICK | {"optimization.minibatches": 2, "optimization.microbatch_tokens": 128}
    recipe = card("pairwise_model").recipe().with_values(changes)
    whole = make_trainer(recipe, "whole", world=world(), steps=3)
    whole.run()
    broken = make_trainer(recipe, "broken", world=world(), steps=3)
    resumed = stopped_and_resumed(broken, world(), 1, within)
    one, other = (trainer.run_directory.rows("metrics.jsonl") for trainer in (whole, resumed))
    assert [row["loss"] for row in one] == [row["loss"] for row in other]
    assert torch.equal(whole.policy.answer_head.weight, resumed.policy.answer_head.weight)


def test_what_candidates_are_to_be_evaluated_on_is_said(make_world: Any, make_trainer: Any) -> None:
    recipe = card("bradley_terry_model").recipe().with_values({"sampler": "rollouts", "view.learning_rate": 1e-3})
    with pytest.raises(InputError, match="does not list what there is to do; the task pairs does, and --episodes 0"):
        make_trainer(recipe, evaluation_episodes=2).run()
    metrics = make_trainer(recipe, "other", steps=1, evaluation_episodes=0).run()
    assert metrics["batch/trajectories"] == 64, "a model may learn from any oracle of any batch"


def test_few_held_out_pairs_are_not_counted_twice(trained: Any, yes: str) -> None:
    trainer = trained("bradley_terry_model", steps=1)
    held_out = PairsTask(yes, test_share=0.3).size("test")
    assert trainer.world.evaluate(10_000, "greedy").episodes == held_out


# ---- at work --------------------------------------------------------------------------------------------------------


def test_a_saved_model_says_what_it_said_when_it_was_trained(trained: Any, make_world: Any, yes: str) -> None:
    trainer = trained("pairwise_model")
    saved = trainer.run_directory.path / "model"
    trainer.policy.save(saved)
    x = make_world(PairsTask(yes, test_share=0), policy=trainer.policy).collect(Candidates(prompts_per_step=1), 0).x
    one, other = answer_model(str(saved)).embedded([Scored("say 0", " yes\n"), Scored("say 0", "no")])
    expected = embeddings(trainer.policy, x)
    torch.testing.assert_close(torch.stack([one, other]), expected, atol=2e-2, rtol=2e-2)
    again = LanguagePolicy.from_path(saved, dtype="float32")
    assert again.answer_head.view.radius == trainer.policy.answer_head.view.radius
    torch.testing.assert_close(embeddings(again, x), expected)
    likely = PreferenceModel(str(saved)).compare([Pair("say 0", "no", "yes")])
    assert likely[0] == pytest.approx(float(torch.sigmoid(lead(other, one))), abs=1e-6) and likely[0] < 0.5


def test_an_answer_that_does_not_fit_into_the_context_is_lost(make_policy: Any) -> None:
    policy = make_policy(context=64)
    policy.view_parameters(AnswerHead())
    short, long = AnswerModel(policy).embedded([Scored("p", "yes"), Scored("p", "yes " * 100)])
    assert bool(short.isfinite().all()) and bool(long.isnan().all())


def test_a_folder_without_a_model_of_answers_is_named(model_folder: Path, trained: Any) -> None:
    for part in (PreferenceModel(str(model_folder)), ModelReward(str(model_folder))):
        with pytest.raises(InputError, match=r"has no answer_head\.safetensors; bradley_terry_model and"):
            part.check_ready()
    with pytest.raises(InputError, match=r"preference_model\.path: names no model"):
        PreferenceModel().check_ready()
    pairwise = trained("pairwise_model", steps=1).run_directory.path / "model"
    PreferenceModel(str(pairwise)).check_ready()
    with pytest.raises(InputError, match="embeds answers in 8 numbers for comparisons, and has no score of one alone"):
        ModelReward(str(pairwise)).check_ready()
    (pairwise / "answer_head.safetensors").write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"answer_head\.safetensors: is no head of answers"):
        PreferenceModel(str(pairwise)).check_ready()


def test_a_reward_model_pays_in_place_of_the_task_or_beside_it(trained: Any, make_world: Any, yes: str) -> None:
    path = str(trained("bradley_terry_model").run_directory.path / "model")
    world = make_world(PairsTask(yes, test_share=0))
    alone, beside = ModelReward(path, weight=2.0, offset=1.0), ModelReward(path, alone=False)
    world.read_by([alone, beside])
    x = world.collect(Candidates(prompts_per_step=4), 0).x
    score = beside.scored(x)
    assert bool((score.view(-1, 2)[:, 0] > score.view(-1, 2)[:, 1]).all())
    paid = alone(x)
    assert paid.reward_names == ("model", "reward", "margin") and paid.reward_weights == (2.0, 0.0, 0.0)
    torch.testing.assert_close(paid.returns, 2 * (score - 1))
    both = beside(x)
    assert both.reward_names == ("reward", "margin", "model")
    torch.testing.assert_close(both.returns, x.returns + score)


def test_the_command_line_trains_a_model_evaluates_it_and_lets_others_learn_from_it(
    yes: str, tmp_path: Path, model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from stratagem.cli.app import run

    def train(name: str, *given: str) -> Path:
        out = tmp_path / f"run-{name}"
        options = ["--model", str(model_folder), "--out", str(out), "--steps", "2", "--episodes", "6", *given]
        assert run(["train", name, "--task", f"pairs:{yes},test_share=0.3,max_new_tokens=4", *options]) == 0
        return out

    made = train("bradley_terry_model", "--set", "sampler.prompts_per_step=8")
    report = (made / "report.html").read_text()
    assert "Calibration" in report and "probability said" in report
    capsys.readouterr()
    assert run(["eval", str(made), "--episodes", "8", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["episodes"] for row in found] == [8, 8] and found[0]["calibration"]["brier"] > 0
    small = ["--set", "sampler.prompts_per_step=2", "--set", "sampler.group_size=3"]
    oracle = f"advantage.preference={{part: preference_model, path: {made / 'model'}}}"
    played = train("sppo", "--set", oracle, *small)
    reward = f"rewards=[{{part: model_reward, path: {made / 'model'}}}]"
    paid = train("grpo", "--set", reward, *small)
    for directory in (played, paid):
        rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
        assert all(row["readings/asked"] == 6 and row["readings/failed"] == 0 for row in rows)
        assert "Calibration" not in (directory / "report.html").read_text()
    assert not (paid / "model" / "answer_head.safetensors").exists()
