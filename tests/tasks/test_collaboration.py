"""The collaborate task: meta-actions, what they cost, what is taught, and an expert who is away or down."""

from __future__ import annotations

import json

import pytest

from stratagem import recipes
from stratagem.errors import InputError
from stratagem.helpers import Counted, HelperError, Scripted
from stratagem.language.hf_engine import HFEngine
from stratagem.language.policy import LanguagePolicy
from stratagem.language.pretrain import tiny_model_path
from stratagem.language.world import LanguageWorld
from stratagem.sampling import Candidates
from stratagem.tasks import CollaborateTask, make
from stratagem.tasks.noisy_solver import bracketed
from stratagem.training.loop import Settings, Trainer
from stratagem.training.run_directory import RunDirectory


def played(action: str, index: int = 0, split: str = "train", **options):
    environment = CollaborateTask(**options).environment(split, index)
    environment.reset()
    return environment.step(action), environment


def test_the_task_proves_its_verifier_where_somebody_is_wrong():
    assert make("collaborate").check(8).solutions_accepted == 8
    assert make("collaborate:agents=1").check(4, "test").corruptions_rejected == 4


def test_the_agent_reads_its_own_answer_and_those_of_its_peers():
    task = CollaborateTask()
    environment = task.environment("train", 3)
    observation = environment.reset()
    own, *peers = [bracketed(said) for said in environment._said]
    assert observation.text.splitlines() == [
        environment.chain.text,
        f"You: {own}",
        f"Agent 2: {peers[0]}",
        f"Agent 3: {peers[1]}",
    ]
    assert observation == task.environment("train", 3).reset()


def test_who_is_believed_decides_and_every_choice_has_its_cost():
    for index in range(12):
        for peer in (2, 3):
            step, environment = played(f"EVAL {peer}", index)
            assert step.success == (bracketed(environment._said[peer - 1]) == str(environment.chain.answer))
            assert step.reward == float(step.success) and step.components["cost"] == 0
        step, _ = played("defer", index)
        assert step.success and step.components["cost"] == 0.3 and step.components["deferred"] == 1
        assert played("CREATE", index)[0].components["cost"] == 0.1


@pytest.mark.parametrize(
    "text", ["", "EVAL", "EVAL 1", "EVAL 4", "EVAL two", "DEFER please", "create defer", "EVAL -2"]
)
def test_what_is_no_choice_is_create_and_counted(text):
    step, created = played(text, 5)[0], played("CREATE", 5)[0]
    assert step.components.pop("malformed") == 1 and created.components.pop("malformed") == 0
    assert (step.reward, dict(step.components)) == (created.reward, dict(created.components))


def test_the_vote_is_of_the_latest_answers():
    for index in range(20):
        step, environment = played("DEFER", index)
        right = [bracketed(said) == str(environment.chain.answer) for said in environment._said[1:]]
        # The expert's answer stands first, so that one peer, or two who disagree, are enough.
        same = bracketed(environment._said[1]) == bracketed(environment._said[2])
        assert step.components["vote"] == float(any(right) or not same)


def test_candidates_are_all_there_is_to_do():
    assert CollaborateTask().candidates("train", 0) == [["EVAL 2"], ["EVAL 3"], ["CREATE"], ["DEFER"]]
    assert CollaborateTask(agents=1).candidates("train", 0) == [["CREATE"], ["DEFER"]]
    assert CollaborateTask(expert="none").candidates("train", 0) == [["EVAL 2"], ["EVAL 3"], ["CREATE"]]


def test_an_expert_who_is_away_cannot_be_asked():
    step, _ = played("DEFER", 0, expert="none")
    assert step.components["malformed"] == 1 and step.components["cost"] == 0.1
    with pytest.raises(NotImplementedError):
        next(CollaborateTask(expert="none").solution("train", 0))


def test_only_right_answers_to_training_questions_are_taught(tmp_path, monkeypatch):
    path = tmp_path / "taught.jsonl"
    options = {"taught": str(path)}
    for index in (0, 1, 0):
        played("DEFER", index, **options)
    played("DEFER", 7, split="test", **options)
    played("CREATE", 8, **options)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["prompt"] for row in rows] == [CollaborateTask().question("train", index).text for index in (0, 1)]
    assert all(bracketed(row["answer"]).lstrip("-").isdigit() for row in rows)
    wrong = tmp_path / "wrong.jsonl"
    guessing = Counted(Scripted(lambda messages, seed: "[-1]", "guessing"), "guessing")
    monkeypatch.setattr("stratagem.tasks.collaboration.helper", lambda spec: guessing)
    step, _ = played("DEFER", 0, taught=str(wrong), expert="python:x:guessing")
    assert not step.success and not wrong.exists()
    task = make(f"jsonl:{path},test_share=0")
    assert task.size("train") == 2 and task.check(2).solutions_accepted == 2


def test_an_expert_who_is_down_is_missing_from_the_group_and_a_wrong_one_is_not(monkeypatch):
    def asleep(messages, seed):
        raise TimeoutError("asleep")

    made = Counted(Scripted(asleep, "asleep"), "asleep")
    monkeypatch.setattr("stratagem.tasks.collaboration.helper", lambda spec: made)
    with pytest.raises(HelperError, match="asleep"):
        played("DEFER", 0, expert="python:x:asleep")
    world = language_world(CollaborateTask(expert="python:x:asleep"))
    collected = world.collect(Candidates(prompts_per_step=3), 0)
    assert collected.x.group_of_trajectory.size().tolist() == [3, 3, 3]
    assert collected.metrics["episodes/failed"] == 3 and made.failed == 4
    few = language_world(CollaborateTask(expert="python:x:asleep", agents=1)).collect(Candidates(prompts_per_step=2), 0)
    assert few.x.groups == 0 and few.metrics["groups/rejected"] == 2


def language_world(task: CollaborateTask) -> LanguageWorld:
    policy = LanguagePolicy.from_path(tiny_model_path())
    return LanguageWorld(task, policy, HFEngine(policy), seed=1000)


def test_every_candidate_is_played_once_in_the_policys_own_format():
    world = language_world(CollaborateTask())
    collected = world.collect(Candidates(prompts_per_step=2, without=(0,)), 0)
    said = [m["content"] for sample in collected.samples for m in sample["messages"] if m["role"] == "assistant"]
    assert said == ["EVAL 3", "EVAL 3"]
    assert collected.x.group_of_trajectory.size().tolist() == [3, 3]
    assert collected.x.behavior_logp is None
    assert collected.x.named_reward("cost").tolist() == pytest.approx([0, 0.1, 0.3] * 2)


def test_a_step_of_the_recipe_moves_a_language_policy_to_the_better_candidates(tmp_path):
    world = language_world(CollaborateTask())
    recipe = recipes.hila().with_values({"sampler.prompts_per_step": 3})
    before = [parameter.detach().clone() for parameter in world.policy.parameters()]
    settings = Settings(1, 1000, evaluation_episodes=0, sample_episodes=0)
    metrics = Trainer(recipe, world, RunDirectory.create(tmp_path / "run"), settings).step()
    assert metrics["grad_norm"] > 0 and metrics["group_entropy"] > 0
    assert any(not (old == new).all() for old, new in zip(before, world.policy.parameters(), strict=True))


def test_a_task_without_candidates_is_refused_in_one_line():
    world = language_world(make("key_door"))
    with pytest.raises(InputError, match="sampler candidates: task 'key_door' does not list what there is to do"):
        world.collect(Candidates(), 0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("agents=0", "agents='0' is not allowed"),
        ("create_cost=0.4", r"costs \(0.0, 0.4, 0.3\) are not allowed; write eval <= create < defer"),
        ("fewest_steps=9", "it should be at most most_steps=6"),
        ("expert=nobody", "helper 'nobody' is malformed"),
        ("taught=/no/such/folder/a.jsonl", "no such folder"),
    ],
)
def test_a_wrong_option_is_refused_in_one_line(options, said):
    with pytest.raises(InputError, match=said):
        make(f"collaborate:{options}")
