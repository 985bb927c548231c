"""Goals made of what was done: kept apart, done again, reworded, and trained on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stratagem import run
from stratagem.errors import InputError
from stratagem.synthesis import (
    Curiosity,
    Goal,
    RandomWalk,
    SynthesizedTask,
    TaskSynthesis,
    Triplet,
    jaccard,
    read_goals,
    write_goals,
)
from stratagem.synthesis.goals import ends_alike, faithful, fewer_hints, first_effects, follow, reached, replay
from stratagem.tasks import CraftTask, make
from stratagem.tasks.task import Observation, Step

PLACE = CraftTask(free=True)
CURIOUS = Curiosity(PLACE.actions)


def goal(query="made plank", environment=0, confidence=0.9, actions=("gather wood", "make plank"), **changes):
    opening = PLACE.environment("train", environment).reset().text
    values = dict(description="", guideline="", outcome="made plank", opening=opening, observation="")
    return Goal(environment=environment, query=query, actions=actions, confidence=confidence, **{**values, **changes})


@pytest.fixture(scope="module")
def found():
    return TaskSynthesis(distinct_in=True).run(PLACE, range(6), CURIOUS)


# ---- the whole of it ------------------------------------------------------------------------------------------------


def test_every_accepted_goal_is_reached_by_its_actions_from_the_same_reset(found):
    assert len(found.proof.accepted) > 20 and not found.exploration.broken
    for accepted in found.proof.accepted:
        environment = PLACE.environment("train", accepted.environment)
        assert environment.reset().text == accepted.opening
        seen = [environment.step(action).observation.text for action in accepted.actions]
        assert seen[-1] == accepted.observation and accepted.reached(seen[-1])
        assert not any(accepted.reached(text) for text in seen[:-1])


def test_the_same_seeds_give_the_same_tasks_and_others_give_others(found):
    again = TaskSynthesis(distinct_in=True).run(PLACE, range(6), CURIOUS)
    assert (again.goals, again.proof, again.exploration.triplets) == (
        found.goals, found.proof, found.exploration.triplets,
    )  # fmt: skip
    other = TaskSynthesis(distinct_in=True).run(PLACE, range(6), CURIOUS.replace(seed=1))
    assert other.exploration.triplets != found.exploration.triplets


def test_concepts_follow_from_the_seed_of_the_synthesis():
    pool = (
        "wood",
        "stone",
        "clay",
        "sand",
        "coal",
        "fiber",
        "water",
        "plank",
        "rope",
        "brick",
        "pot",
        "axe",
        "bow",
        "bed",
    )
    first, again, other = (
        TaskSynthesis(seed=seed, concepts=2).explore(PLACE, [0], CURIOUS, pool=pool).triplets for seed in (0, 0, 1)
    )
    assert first == again != other


# ---- finding --------------------------------------------------------------------------------------------------------


def triplet(action, observation, before, state, next_state, path, rollout=0, done=False, effective=None):
    return Triplet(
        environment=0,
        rollout=rollout,
        opening="room",
        before=before,
        action=action,
        observation=observation,
        reward=0.0,
        done=done,
        state=state,
        next_state=next_state,
        path=path,
        effective=path if effective is None else effective,
    )


def test_goals_are_the_lines_that_actions_brought_with_a_confidence_by_rules():
    window = [
        triplet("open", "it opens\ndark", "room", 1, 2, ("open",)),
        triplet("wait", "nothing", "it opens\ndark", 2, 2, ("open", "wait"), effective=("open",)),
        triplet("enter", "cellar\ndark", "nothing", 2, 3, ("open", "wait", "enter"), effective=("open", "enter")),
        triplet("open", "it opens\ndark", "room", 1, 2, ("open",), rollout=1),
    ]
    found = first_effects(window)
    assert [(one.query, one.confidence, one.actions) for one in found] == [
        ("it opens", 0.85, ("open",)),
        ("nothing", 0.65, ("open",)),
        ("cellar", 0.9, ("open", "enter")),
        ("it opens", 0.85, ("open",)),
    ]
    assert found[2].guideline == "open, then enter" and found[2].opening == "room"
    assert [one.query for one in TaskSynthesis().abstract(window)] == ["cellar", "it opens"]


def test_an_episode_that_ends_at_its_first_action_gives_no_goal():
    assert first_effects([triplet("open", "it opens", "room", 1, 2, ("open",), done=True)]) == []


def test_windows_hold_triplets_of_one_environment_only():
    sizes = []

    def find(window):
        sizes.append((len(window), {one.environment for one in window}))
        return []

    explored = TaskSynthesis(rollouts=1).explore(PLACE, [5, 2], RandomWalk(PLACE.actions))
    TaskSynthesis().abstract(explored.triplets, find)
    assert sizes == [(12, {2}), (6, {2}), (12, {5}), (6, {5})]


def test_confidence_keeps_seven_tenths_and_drops_less_and_goals_without_actions_or_words_go():
    given = [
        goal("first thing", confidence=0.7),
        goal("second one", confidence=0.69),
        goal("third matter", actions=()),
        goal(" ?! "),
    ]
    some = TaskSynthesis(rollouts=1, steps=1).explore(PLACE, [0], CURIOUS).triplets
    assert [one.query for one in TaskSynthesis().abstract(some, lambda window: given)] == ["first thing"]


def test_likeness_is_the_share_of_common_words():
    assert jaccard("move a to b", "move a to c") == 3 / 5
    assert jaccard("Move A to B!", "move a to b") == 1 and jaccard("", "?") == 0


def test_like_queries_are_asked_once_the_surest_one_stays_also_across_windows():
    given = iter(
        [
            [goal("move a to b", confidence=0.8), goal("move a to c"), goal("Move a to B", confidence=0.9)],
            [goal("b to a MOVE", environment=1, confidence=0.95), goal("go", environment=1)],
        ]
    )
    explored = TaskSynthesis(rollouts=1, steps=1).explore(PLACE, [0, 1], CURIOUS)
    kept = TaskSynthesis().abstract(explored.triplets, lambda window: next(given))
    assert [one.query for one in kept] == ["b to a MOVE", "move a to c", "go"]


def test_within_environments_the_same_may_be_asked_in_several():
    given = iter([[goal("move a to b"), goal("move a to b")], [goal("move a to b", environment=1)]])
    explored = TaskSynthesis(rollouts=1, steps=1).explore(PLACE, [0, 1], CURIOUS)
    kept = TaskSynthesis(distinct_in=True).abstract(explored.triplets, lambda window: next(given))
    assert [one.environment for one in kept] == [0, 1]


# ---- proving --------------------------------------------------------------------------------------------------------


def test_a_goal_whose_reset_shows_something_else_is_rejected():
    proof = TaskSynthesis().prove(PLACE, [goal(), goal(opening="another room")])
    assert [len(part) for part in (proof.accepted, proof.failed, proof.untried)] == [1, 1, 0]


def test_two_of_three_judges_decide():
    yes, no = (lambda replay: True), (lambda replay: False)
    for judges, accepted in (((yes, yes, no), 1), ((yes, no, no), 0), ((yes, yes, yes), 1)):
        assert len(TaskSynthesis().prove(PLACE, [goal()], judges=judges).accepted) == accepted
    assert not TaskSynthesis(votes=3).prove(PLACE, [goal()], judges=(yes, yes, no)).accepted
    with pytest.raises(InputError, match=r"2 judges; there must be three"):
        TaskSynthesis().prove(PLACE, [goal()], judges=(yes, yes))


def test_more_than_five_failures_without_a_success_end_it():
    bad = [goal(query=f"goal {n}", opening="elsewhere") for n in range(8)]
    proof = TaskSynthesis().prove(PLACE, bad)
    assert (len(proof.failed), len(proof.untried)) == (6, 2) and proof.untried[0].query == "goal 6"
    proof = TaskSynthesis().prove(PLACE, [goal(), *bad])
    assert (len(proof.accepted), len(proof.failed), len(proof.untried)) == (1, 8, 0)


def test_an_agent_gets_a_second_attempt_and_no_third():
    tries = []

    def agent(asked, seen, taken):
        if not taken:
            tries.append(seen)
        return follow(asked, seen, taken) if len(tries) % 3 == 0 else None

    assert not TaskSynthesis(attempts=2).prove(PLACE, [goal()], agent=agent).accepted and len(tries) == 2
    assert TaskSynthesis(attempts=1).prove(PLACE, [goal()], agent=agent).accepted


def test_judges_look_at_outcome_path_and_end():
    end = replay(PLACE, "train", goal(), follow, 40).observations[-1]
    done = replay(PLACE, "train", goal(observation=end), follow, 40)
    assert reached(done) and faithful(done) and ends_alike(done)
    roundabout = replay(PLACE, "train", goal(observation=end), lambda *asked: ("sing", *goal().actions)[asked[2]], 40)
    assert reached(roundabout) and not faithful(roundabout) and ends_alike(roundabout)
    cut = replay(PLACE, "train", goal(observation=end), follow, 1)
    assert cut.actions == ("gather wood",) and not (reached(cut) or faithful(cut) or ends_alike(cut))


def test_what_is_there_from_the_start_is_no_goal():
    opening = PLACE.environment("train", 0).reset().text
    assert not TaskSynthesis().prove(PLACE, [goal(outcome=opening.splitlines()[0])]).accepted


def test_an_environment_that_raises_fails_the_goal_and_an_agent_that_raises_is_heard():
    class Broken(CraftTask):
        def environment(self, split, index):
            raise RuntimeError("no")

    assert len(TaskSynthesis().prove(Broken(), [goal()]).failed) == 1
    with pytest.raises(ZeroDivisionError):
        TaskSynthesis().prove(PLACE, [goal()], agent=lambda *_: 1 / 0)


# ---- rewording ------------------------------------------------------------------------------------------------------


def test_rewording_changes_the_query_and_nothing_else(found):
    accepted = found.proof.accepted
    assert len(found.goals) == 3 * len(accepted)
    originals = {replace(one, query="") for one in accepted}
    assert {replace(one, query="") for one in found.goals} == originals


def test_variants_show_fewer_and_fewer_hints():
    queries = [fewer_hints([goal(actions=("a", "b", "c", "d"))], variant, 3)[0] for variant in (1, 2, 3)]
    assert queries == ["made plank (begin with: a, b, c, d)", "made plank (begin with: a, b)", "made plank"]
    assert fewer_hints([goal()], 1, 1) == ["made plank"]


def test_a_model_rewords_ten_at_a_time_and_empty_queries_go():
    asked = []

    def rewrite(goals, variant, variants):
        asked.append((len(goals), variant, variants))
        return ["?" if variant == 3 else f" {one.query} again " for one in goals]

    explored = TaskSynthesis(distinct_in=True, variants=3).run(PLACE, range(2), CURIOUS, rewrite=rewrite)
    count = len(explored.proof.accepted)
    assert asked[:4] == [(10, 1, 3), (10, 2, 3), (10, 3, 3), (min(10, count - 10), 1, 3)]
    assert len(explored.goals) == 2 * count and explored.goals[0].query.endswith("again")
    with pytest.raises(InputError, match=r"1 queries came back for 10 goals"):
        TaskSynthesis(distinct_in=True).run(PLACE, range(2), CURIOUS, rewrite=lambda *_: ["one"])


# ---- training -------------------------------------------------------------------------------------------------------


def test_the_task_asks_pays_and_ends(found):
    task = SynthesizedTask(PLACE, [goal(), goal("other", environment=1)], test_share=0)
    environment = task.environment("train", 0)
    assert environment.reset().text.startswith("goal: made plank\nnothing happened yet\nhave: ")
    first = environment.step("gather wood")
    assert (first.reward, first.done, first.observation.text.splitlines()[0]) == (0, False, "gathered wood")
    last = environment.step("make plank")
    assert (last.reward, last.done, last.success, last.truncated) == (1, True, True, False)
    with pytest.raises(InputError, match=r"too few environments for a test split"):
        task.environment("test", 0)
    all_of_it = SynthesizedTask(PLACE, found.goals)
    assert all_of_it.check(60).solutions_accepted == all_of_it.check(30, "test").corruptions_rejected * 2 == 60


def test_splits_share_no_environment_and_both_have_one(found):
    for share in (0.01, 0.3, 0.99):
        task = SynthesizedTask(PLACE, found.goals, share)
        train, test = ({one.environment for one in task.goals[split]} for split in ("train", "test"))
        assert train and test and not train & test and train | test == set(range(6))


def test_states_of_different_goals_differ():
    task = SynthesizedTask(PLACE, [goal(), goal("made stick", outcome="made stick")], test_share=0)
    keys = {task.environment("train", index).reset().state_key for index in range(2)}
    assert len(keys) == 2


def test_a_limit_of_the_environment_cuts_the_episode():
    task = SynthesizedTask(CraftTask(free=True, max_turns=4), [goal()], test_share=0)
    environment = task.environment("train", 0)
    environment.reset()
    step = [environment.step("sing") for _ in range(4)][-1]
    assert (step.done, step.truncated, step.success) == (True, True, False)


def test_a_file_of_goals_is_trained_on_by_specification(found, tmp_path, model_folder):
    file = found.save(tmp_path / "goals.jsonl")
    assert read_goals(file) == list(found.goals)
    spec = f"synthesized:craft,goals={file},free=true,test_share=0.5"
    assert len(make(spec).goals["train"]) < len(found.goals)
    values = {"sampler.prompts_per_step": 2, "sampler.group_size": 2}
    options = {"model": str(model_folder), "precision": "float32", "evaluation_episodes": 1, "values": values}
    done = run.train("grpo", spec, out=tmp_path / "run", steps=1, **options)
    assert done.metrics["episodes"] == 4 and done.metrics["episodes/failed"] == 0


def test_a_wrong_file_or_specification_is_refused_in_one_line(tmp_path):
    file = write_goals(tmp_path / "goals.jsonl", [goal()])
    (tmp_path / "bad.jsonl").write_text(file.read_text() + '{"query": "x"}\n')
    (tmp_path / "none.jsonl").write_text("\n")
    for spec, problem in (
        ("synthesized:craft", r"needs a task and goals"),
        (f"synthesized:craft,goals={tmp_path / 'bad.jsonl'}", r"bad\.jsonl, line 2: is no goal"),
        (f"synthesized:craft,goals={tmp_path / 'none.jsonl'}", r"there are no goals"),
        ("synthesized:craft,goals=nowhere", r"goals nowhere: cannot be read"),
        (f"synthesized:gym:CartPole-v1,goals={file}", r"is not played in text"),
        (f"synthesized:craft,goals={file},test_share=some", r"test_share='some' is not a number"),
        (f"synthesized:craft,goals={file},test_share=1", r"test_share=1\.0: must be at least 0 and below 1"),
    ):
        with pytest.raises(InputError, match=problem):
            make(spec)


def test_a_task_that_ends_by_itself_is_done_without_success():
    class Short(CraftTask):
        def environment(self, split, index):
            inner = super().environment(split, index)
            inner.step = lambda action: Step(Observation("over", 0), done=True, success=True)
            return inner

    environment = SynthesizedTask(Short(free=True), [goal()], test_share=0).environment("train", 0)
    environment.reset()
    step = environment.step("sing")
    assert (step.done, step.success, step.reward) == (True, False, 0)
