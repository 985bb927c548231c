"""Runs with skills: what the policy reads, that audits disturb nothing, and that the bank comes back with the run."""

from __future__ import annotations

import json

import pytest
import torch

from stratagem import run
from stratagem.errors import InputError
from stratagem.language.episodes import Episode
from stratagem.language.hf_engine import HFEngine
from stratagem.language.solved import HELD_OUT
from stratagem.sampling import Windows
from stratagem.skills import Case, Skill, SkillBank, Skilled, SkillLifecycle, Trial
from stratagem.skills.task import HEADING, Trials
from stratagem.skills.world import SkilledWorld
from stratagem.tasks import CheckReport, KeyDoorTask, StructuredTask, make
from stratagem.tasks.mixture import Mixture, owner
from stratagem.tasks.task import Observation, Step

TOLD = f"{HEADING}\n- kind: Be kind.\n- even: Say two."
ALWAYS = SkillLifecycle(every=1, validation=3, keep=-float("inf"))
"""Audits before every step but the first, and changes nothing."""


def skills():
    return SkillBank([Skill("kind", "Be kind."), Skill("even", "Say two.", ("even",)), Skill("none", "x", ("nobody",))])


def kind(text):
    """``topic 2`` is even."""
    return "even" if int(text.split()[-1]) % 2 == 0 else "odd"


@pytest.fixture
def skilled(chatter):
    return lambda lifecycle=None, of=None, **more: Skilled(of or chatter(), skills(), lifecycle, kind=kind, **more)


@pytest.fixture
def world(make_policy):
    worlds = []

    def make_world(task, seed=0):
        policy = make_policy()
        worlds.append(SkilledWorld(task, policy, HFEngine(policy), seed))
        worlds[-1].serve(0)
        return worlds[-1]

    yield make_world
    for made in worlds:
        made.close()


# ---- what the policy reads ------------------------------------------------------------------------------------------


def test_skills_stand_at_the_end_of_the_system_message(skilled, world, tiny_tokenizer):
    task = skilled()
    made = world(task)
    episodes = [Episode(index, 0, 0) for index in (1, 2)]
    made._stage.play("test", episodes, made._stage.params(1.0))
    odd, even = (tiny_tokenizer.decode(episode.turns[0].read) for episode in episodes)
    # Test episode 1 is chat -2, topic 3; episode 2 is chat -3, topic 2.
    assert odd == f"<|system|>Say something.\n\n{HEADING}\n- kind: Be kind.<|user|>topic 3<|assistant|>"
    even_told = f"{HEADING}\n- even: Say two.\n- kind: Be kind."
    assert even == f"<|system|>Say something.\n\n{even_told}<|user|>topic 2<|assistant|>"


def test_where_nothing_is_shown_an_episode_is_the_tasks_own(chatter):
    bare, of = Skilled(chatter(), SkillBank([Skill("x", "y", ("nobody",))])), chatter()
    assert bare.environment("train", 3).reset() == of.environment("train", 3).reset()
    assert bare.environment("train", 3).step("hi") == of.environment("train", 3).step("hi")


def test_a_conversation_that_opens_later_is_told_too_and_only_once(skilled, chatter):
    def elsewhere(call, index, turn):
        return Step(Observation("go on", 0, context=1)) if call == "step" else None

    environment = skilled(of=chatter(fault=elsewhere)).environment("train", 1)
    opened = environment.reset().opening
    later, again = environment.step("a").observation, environment.step("b").observation
    told = [{"role": "system", "content": f"Say something.\n\n{HEADING}\n- kind: Be kind."}]
    assert list(opened) == [*told, {"role": "user", "content": "topic 1"}]
    assert list(later.opening) == [*told, {"role": "user", "content": "go on"}] and again.opening == ()


def test_in_a_mixture_types_and_rules_are_those_of_the_episodes_own_task(chatter):
    first, second = chatter(name="first", system="One."), chatter(name="second", system="Two.", patience=5)
    task = Skilled(Mixture([first, second]), SkillBank([Skill("s", "Hm.", ("second",))]))
    assert [owner(task, index) for index in range(4)] == [first, second] * 2
    assert task.case(1, "topic 0").kind == "second"
    openings = [task.environment("train", index).reset().opening for index in (0, 1)]
    assert openings[0] == () and openings[1][0]["content"] == f"Two.\n\n{HEADING}\n- s: Hm."
    trials = Trials(task, [Trial(Case(1, "second", ""), ()), Trial(Case(0, "first", ""), (Skill("s", "Hm."),))])
    assert owner(trials, 0) is second and trials.environment("test", 0).reset().opening == ()
    assert trials.environment("test", 1).reset().opening[0]["content"] == f"One.\n\n{HEADING}\n- s: Hm."


def test_the_verifier_is_the_tasks_own_and_so_are_its_plans():
    task = Skilled(StructuredTask(KeyDoorTask()), skills())
    assert task.check(5) == CheckReport(5, 5, 5)
    assert task.plan("<action>take</action>").action == "take" and task.answer("<action>take</action>") == "take"
    assert Skilled(Mixture([KeyDoorTask(), StructuredTask(KeyDoorTask())]), skills()).plan("") is not None


# ---- training -------------------------------------------------------------------------------------------------------


def metrics(trainer):
    rows = trainer.run_directory.rows("metrics.jsonl")
    return [
        {key: value for key, value in row.items() if not key.startswith(("timing/", "memory/", "skills/"))}
        for row in rows
    ]


def test_audits_that_change_nothing_leave_training_as_it_is_without_them(make_trainer, small, skilled, world):
    never = make_trainer(small("grpo"), "never", world(skilled(SkillLifecycle(every=1000))), steps=3)
    always = make_trainer(small("grpo"), "always", world(skilled(ALWAYS)), steps=3)
    never.run()
    always.run()
    assert metrics(never) == metrics(always)
    for (name, weight), (_, other) in zip(
        never.policy.state_dict().items(), always.policy.state_dict().items(), strict=True
    ):
        assert torch.equal(weight, other), name
    bank = always.world.task.bank
    assert bank.audits == 2 and never.world.task.bank.audits == 0 and len(bank.active) == 3
    rows = always.run_directory.rows("metrics.jsonl")
    assert ["skills/audit_tokens" in row for row in rows] == [False, True, True]
    assert "skills/value/kind" in rows[1] and rows[1]["skills/audit_tokens"] > 0


def test_an_audit_moves_neither_weights_nor_the_start_states_nor_torchs_random_numbers(skilled, world):
    made = world(skilled(ALWAYS))
    weights = {name: tensor.clone() for name, tensor in made.policy.state_dict().items()}
    state, numbers = torch.get_rng_state(), made.state_dict()[1]["next_index"]
    first, tokens = made.audit()
    assert tokens > 0 and first.trials == 3 + 3 + sum(kind(f"topic {(-1 - n) % 5}") == "even" for n in _validated())
    assert torch.equal(state, torch.get_rng_state()) and made.state_dict()[1]["next_index"] == numbers
    assert all(torch.equal(tensor, weights[name]) for name, tensor in made.policy.state_dict().items())
    again, _ = made.audit()
    assert again.marginals == first.marginals and again.success == first.success


def _validated():
    return range(HELD_OUT, HELD_OUT + ALWAYS.validation)


def test_exposure_counts_the_training_rollouts_a_skill_was_shown_in(make_trainer, small, skilled, world):
    task = skilled()
    trainer = make_trainer(small("grpo"), world=world(task), steps=1, evaluation_episodes=2)
    row = trainer.run()
    # Three start states, topics 0, 1 and 2, four episodes each; evaluation does not count.
    exposures = {name: entry.exposure for name, entry in task.bank.entries.items()}
    assert exposures == {"kind": 12, "even": 8, "none": 0}
    assert {name: len(found.outcomes) for name, found in task.bank.attempts.items()} == {"even": 8, "odd": 4}
    assert row["skills/active"] == 3 and row["skills/shown"] == pytest.approx(20 / 12)
    assert task.bank.attempts["even"].failed == []


def test_who_writes_skills_is_given_traces_of_the_run(make_trainer, small, skilled, world):
    asked = []

    def create(kind, failed, succeeded):
        asked.append((kind, failed, succeeded))
        return Skill(f"for {kind}", "Try.", (kind,))

    lifecycle = SkillLifecycle(every=1, validation=2, window=4, failure_rate=0.01, keep=-float("inf"))
    task = skilled(lifecycle, create=create)
    make_trainer(small("grpo"), world=world(task), steps=2).run()
    assert [name for name, _, _ in asked] == ["odd"] and "for odd" in task.bank.entries
    assert asked[0][1][0].startswith("This failed:\n> topic 1\n")
    assert task.bank.entry("for odd").exposure > 0


@pytest.mark.parametrize("within", [False, True])
def test_a_resumed_run_has_the_bank_and_the_numbers_of_an_unbroken_one(
    make_trainer, small, skilled, world, stopped_and_resumed, within
):
    lifecycle = SkillLifecycle(every=1, validation=4, exposure=0, patience=1, few=2)
    unbroken = make_trainer(small("grpo"), "unbroken", world(skilled(lifecycle)), steps=3)
    unbroken.run()
    broken = make_trainer(small("grpo"), "broken", world(skilled(lifecycle)), steps=3)
    resumed = stopped_and_resumed(broken, world(skilled(lifecycle)), 2, within)
    assert metrics(resumed) == metrics(unbroken)
    assert resumed.world.task.bank.state_dict() == unbroken.world.task.bank.state_dict()
    assert unbroken.world.task.bank.audits == 2


def test_windows_of_episodes_are_refused(skilled, world):
    with pytest.raises(InputError, match=r"^sampler windows: a task with skills takes rollouts"):
        world(skilled()).collect(Windows(), 0)


# ---- from the command line ------------------------------------------------------------------------------------------


def test_a_run_by_specification_keeps_its_bank_and_goes_on(tmp_path, model_folder):
    file = tmp_path / "mine.json"
    file.write_text(json.dumps([{"name": "order", "text": "Take the key first."}]))
    spec = f"skilled:key_door,skills={file},audit_every=1,validation=2,max_turns=8"
    values = {"sampler.prompts_per_step": 2, "sampler.group_size": 2}
    options = {"model": str(model_folder), "precision": "float32", "evaluation_episodes": 1, "values": values}
    done = run.train("grpo", spec, out=tmp_path / "run", steps=2, **options)
    assert "skills/value/order" in done.metrics
    run.resume(done.directory, steps=3)
    bank = SkillBank.load(done.directory)
    assert bank.audits == 2 and bank.entry("order").exposure == 12
    assert make(f"skilled:key_door,skills={done.directory}").bank.entry("order").exposure == 12


@pytest.mark.parametrize(
    "spec, problem",
    [
        ("skilled:key_door", r"needs a task and a bank"),
        ("skilled:key_door,skills=nowhere.json", r"skills nowhere\.json: cannot be read"),
        ("skilled:gym:CartPole-v1,skills=S", r"is not played in text"),
        ("skilled:key_door,skills=S,validation=many", r"validation='many' is not allowed; it is a whole number"),
        ("skilled:key_door,skills=S,validation=0", r"skill_lifecycle\.validation = 0"),
        ("skilled:key_door,skills=S,boxes=2", r"unknown option of task 'key_door' 'boxes'"),
    ],
)
def test_a_wrong_specification_is_refused_in_one_line(tmp_path, spec, problem):
    path = skills().save(tmp_path / "s.json")
    with pytest.raises(InputError, match=problem):
        make(spec.replace("skills=S", f"skills={path}"))
