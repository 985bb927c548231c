"""The tasks of rooms and of beliefs: what is read, what is earned, and what nobody remembers."""

from __future__ import annotations

from itertools import pairwise

import pytest

from stratagem.beliefs import diversity, format_gate
from stratagem.beliefs.text import claims
from stratagem.errors import InputError
from stratagem.helpers.named import helper
from stratagem.tasks.belief import BELIEF, NOTED, POLICY, BeliefTask
from stratagem.tasks.key_door import KeyDoorTask
from stratagem.tasks.registry import make
from stratagem.tasks.rooms import RoomsTask
from stratagem.tasks.task import Task

STATIC = "\n".join(f"- fact {k}: certain" for k in range(8))


def text_of(observation):
    return "\n".join(message["content"] for message in observation.opening)


def played(task: Task, actions: list[str], index: int = 0):
    environment = task.environment("train", index)
    observations = [environment.reset()]
    for action in actions:
        step = environment.step(action)
        observations.append(step.observation)
    return environment, observations, step


def counting(messages, seed):
    return "new: 3 missing: 1 stale: 0 correct: 1 partial: 0 verifiable: 2"


def broken(messages, seed):
    raise OSError("down")


@pytest.mark.parametrize("spec", ["rooms", "rooms:rooms=3,max_turns=3", "belief:rooms", "belief:key_door,size=5"])
def test_solutions_are_accepted_and_corrupted_ones_are_not(spec):
    make(spec).check(12)


def test_a_look_is_the_same_whenever_an_episode_is_played_and_deceives_as_often_as_it_says():
    task = RoomsTask(max_turns=50)
    glints = {True: [0, 0], False: [0, 0]}
    for index in range(60):
        actions = ["look"] * 10 + [next(task.solution("train", index))] + ["look"] * 20
        environment, seen, _ = played(task, actions, index)
        assert seen == played(task, actions, index)[1]
        here = environment.truth(f"the key is in {environment.house.rooms[environment._room]}")
        for observation in seen[11:]:
            glints[here][0] += "a glint" in observation.text
            glints[here][1] += 1
    assert glints[True][0] / glints[True][1] == pytest.approx(0.8, abs=0.08)
    assert glints[False][0] / glints[False][1] == pytest.approx(0.1, abs=0.05)


def test_the_posterior_is_bayes_rule():
    environment, _, _ = played(RoomsTask(rooms=3), ["look"])
    start = environment.house.start
    assert environment.posterior[start] == 0.0
    others = [p for room, p in enumerate(environment.posterior) if room != start]
    assert others == pytest.approx([0.5, 0.5])
    step = environment.step(f"go {environment.house.rooms[(start + 1) % 3]}")
    like = (0.8, 0.1) if "glint" in step.observation.text else (0.2, 0.9)
    assert environment.posterior[(start + 1) % 3] == pytest.approx(like[0] / sum(like))


def test_what_cannot_be_done_is_not_executed_and_a_wrong_take_ends_with_nothing():
    environment = RoomsTask().environment("train", 0)
    environment.reset()
    here = environment.house.rooms[environment.house.start]
    step = environment.step(f"go {here}")
    assert (step.executed, step.well_formed, step.done) == (False, True, False)
    step = environment.step("dance")
    assert (step.executed, step.well_formed) == (False, False)
    step = environment.step("TAKE")
    assert (step.reward, step.done, step.success, step.truncated) == (0.0, True, False, False)


def test_the_policy_reads_goal_belief_and_last_observation_and_never_the_history():
    task = make("belief:rooms")
    _, observations, _ = played(task, [STATIC, "look", "- now: certain", "look", STATIC])
    assert [o.role for o in observations] == [BELIEF, POLICY] * 3
    assert [o.context for o in observations] == list(range(6))
    belief_of = [text_of(o) for o in observations]
    assert "fact 3" in belief_of[1] and "fact 3" in belief_of[2] and "fact 3" not in belief_of[3]
    assert "- now: certain" in belief_of[4] and "- now: certain" not in belief_of[5]
    assert all("The key is in one of" in text and "Find the key" in text for text in belief_of)


def test_the_length_of_a_prompt_does_not_depend_on_the_turn():
    """The same belief and a look that says the same: what is read is the same however late."""
    task = make("belief:rooms,max_turns=40")
    _, observations, _ = played(task, [STATIC, "look"] * 39)
    for role in (BELIEF, POLICY):
        late = [text_of(o) for o in observations if o.role == role][2:]
        read = [text.replace("a glint", "nothing") for text in late]
        assert len(late) >= 36 and len(set(read)) == 1


def test_beliefs_are_paid_in_their_own_turns_once_the_end_is_known():
    task = make("belief:rooms")
    for index in range(5):
        environment, _, step = played(task, list(task.solution("train", index)), index)
        beliefs, actions = step.turn_rewards[0::2], step.turn_rewards[1::2]
        assert actions == [0.0] * (len(actions) - 1) + [1.0] and step.success
        for k, (paid, belief) in enumerate(zip(beliefs, environment.beliefs, strict=True)):
            terms = (belief.track, belief.right, belief.diverse, 0.9 ** (len(beliefs) - 1 - k))
            assert paid == pytest.approx(belief.gate * sum(terms) / 4)
        assert set(step.components) == set(NOTED)
        assert step.components["belief_reward"] == pytest.approx(sum(beliefs) / len(beliefs))
        assert step.components["tracking"] == 1.0
        assert 0 < step.components["brier"] < 1


def test_an_empty_belief_earns_nothing_and_the_episode_goes_on():
    _, observations, step = played(make("belief:rooms"), ["", "take"])
    assert step.turn_rewards[0] == 0.0 and step.done
    assert "(none)" in text_of(observations[1])
    environment = make("belief:rooms").environment("train", 0)
    environment.reset()
    assert not environment.step("no bullets").well_formed


def test_an_episode_that_is_cut_pays_its_beliefs_without_success_and_asks_a_critic_as_the_policy():
    _, _, step = played(make("belief:rooms,rooms=3,max_turns=3"), [STATIC, "look"] * 3)
    assert step.truncated and step.observation.role == POLICY
    assert step.turn_rewards[1::2] == [0.0] * 3
    # No claim can be verified, and none of the facts is in the belief.
    assert step.turn_rewards[0::2] == [0.0] * 3


def test_only_the_outcome_is_paid_if_wanted():
    task = make("belief:rooms,pay=outcome")
    _, _, step = played(task, list(task.solution("train", 0)))
    assert sum(step.turn_rewards) == step.turn_rewards[-1] == 1.0


def test_without_a_judge_the_mean_is_over_what_is_known():
    task = BeliefTask(KeyDoorTask())
    assert task.judge == "none"
    belief = "\n".join(f"- fact {k}: {'certain' if k % 2 else 'doubtful'}" for k in range(8))
    actions = list(task.solution("train", 0))
    actions[0::2] = [belief] * len(actions[0::2])
    _, _, step = played(task, actions)
    last = step.turn_rewards[-2]
    assert last == pytest.approx((diversity(claims(belief)) + 1.0) / 2) and format_gate(claims(belief)) == 1.0


@pytest.mark.parametrize(("function", "known"), [("counting", True), ("broken", False)])
def test_a_helper_judges_and_one_that_is_down_leaves_terms_out(function, known):
    spec = f"python:{__name__}:{function}"
    task = BeliefTask(KeyDoorTask(), judge=spec)
    environment, _, _ = played(task, [STATIC])
    written = environment.beliefs[0]
    assert written.track == (pytest.approx(0.75) if known else None)
    assert written.right is None
    assert helper(spec).failed == (0 if known else helper(spec).asked)
    told, _, _ = played(BeliefTask(RoomsTask(), judge=spec), [STATIC])
    assert told.beliefs[0].right == (pytest.approx(0.5) if known else None)


def test_state_keys_tell_beliefs_and_roles_apart():
    _, first, _ = played(make("belief:rooms"), [STATIC, "look"])
    _, second, _ = played(make("belief:rooms"), ["- a: certain", "look"])
    assert first[0].state_key == second[0].state_key and first[1].state_key != second[1].state_key
    assert all(a.state_key != b.state_key for a, b in pairwise(first))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("belief", "needs another task"),
        ("belief:belief:rooms", "beliefs"),
        ("belief:key_door,judge=rule", "judge=rule"),
        ("belief:rooms,judge=nobody", "helper"),
        ("belief:rooms,pay=all", "pay"),
        ("belief:rooms,discount=2", "discount"),
        ("belief:rooms,discount=much", "much"),
        ("belief:rooms,belief_tokens=0", "belief_tokens"),
        ("belief:rooms,rooms=99", "rooms"),
        ("rooms:alarm=0.9", "alarm"),
        ("rooms:max_turns=4", "max_turns"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(spec, message):
    with pytest.raises(InputError, match=message) as raised:
        make(spec)
    assert "\n" not in str(raised.value)
