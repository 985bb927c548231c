"""Episodes become rows: only what was sampled is a row, and everything lies where the model read it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from stratagem.language.episodes import Episode, Turn, observation_fault, step_fault, to_experience
from stratagem.tasks.task import Observation, Step


def turn(read: list[int], action: list[int], key: int = 0, **fields: object) -> Turn:
    logp = [-0.5 * (place + 1) for place in range(len(action))]
    return Turn(Observation("text", key), read, action, logp, "said", **fields)


def two_groups() -> list[list[Episode]]:
    """Two episodes of start state 7 and one of start state 8."""
    first = Episode(7, 0, 0, [turn([1, 2, 3], [10, 11], 5, reward=0.5), turn([4], [12], 6, reward=0.25, done=True)])
    second = Episode(7, 3, 0, [turn([1, 2, 3], [13], 5, reward=-1.0)], {"style": 2.0}, truncated=True)
    third = Episode(8, 1, 0, [turn([9, 9], [], -4), turn([8], [14, 15], 2**63 - 1, done=True)], success=True)
    third.turns[1].version = 3
    return [[first, second], [third]]


def test_rows_are_the_sampled_tokens_and_inputs_the_whole_conversation():
    x = to_experience(two_groups(), ("reward", "style"), 4)
    assert x.action.tolist() == [10, 11, 12, 13, 14, 15]
    assert x.inputs.token_ids.tolist() == [1, 2, 3, 10, 11, 4, 12, 1, 2, 3, 13, 9, 9, 8, 14, 15]
    assert x.inputs.lengths.tolist() == [7, 4, 5]
    assert x.inputs.action_positions.tolist() == [3, 4, 6, 10, 14, 15]
    assert torch.equal(x.inputs.actions, x.action)


def test_levels_and_their_fields():
    x = to_experience(two_groups(), ("reward", "style"), 4)
    assert x.turn_of_token.size().tolist() == [2, 1, 1, 0, 2]
    assert x.trajectory_of_turn.size().tolist() == [2, 1, 2]
    assert x.group_of_trajectory.size().tolist() == [2, 1]
    assert x.behavior_logp.tolist() == [-0.5, -1.0, -0.5, -0.5, -0.5, -1.0]
    assert x.turn_reward.tolist() == [0.5, 0.25, -1.0, 0.0, 0.0]
    assert x.turn_state.tolist() == [5, 6, 5, -4, 2**63 - 1]
    assert x.turn_done.tolist() == [False, True, False, False, True]
    assert x.turn_observation_length.tolist() == [3, 1, 3, 2, 1]
    assert x.version.tolist() == [0, 0, 0, 0, 3, 3]
    assert x.success.tolist() == [False, False, True]
    assert (x.truncated.tolist(), x.finished.tolist()) == ([False, True, False], [True, False, True])
    assert x.task_id.tolist() == [7, 8]


def test_the_reward_is_the_sum_over_turns_beside_named_components():
    x = to_experience(two_groups(), ("reward", "style"), 4)
    assert x.reward.tolist() == [[0.75, 0.0], [-1.0, 2.0], [0.0, 0.0]]
    assert x.returns.tolist() == [0.75, 1.0, 0.0]
    assert x.reward_names == ("reward", "style")


def test_a_component_that_counts_nothing_is_there_and_pays_nothing():
    x = to_experience(two_groups(), ("reward", "style"), 4, (1.0, 0.0))
    assert x.reward.tolist() == [[0.75, 0.0], [-1.0, 2.0], [0.0, 0.0]]
    assert x.returns.tolist() == [0.75, -1.0, 0.0]


def test_turns_of_a_group_with_similar_texts_share_the_first_ones_key_when_asked():
    def reads(text: str, key: int) -> Turn:
        return Turn(Observation(text, key), [1], [2], [-0.5], "said")

    first = Episode(7, 0, 0, [reads("a room with 1 lamp, lit", 5), reads("a hall", 6)])
    second = Episode(7, 1, 0, [reads("a room with 2 lamp, lit", 8), reads("a hall", 9)])
    other = Episode(8, 0, 0, [reads("a room with 1 lamp, lit", 11)])
    groups = [[first, second], [other]]
    assert to_experience(groups, ("reward",), 4).turn_state.tolist() == [5, 6, 8, 9, 11]
    assert to_experience(groups, ("reward",), 4, similar_states=0.95).turn_state.tolist() == [5, 6, 5, 6, 11]
    assert to_experience(groups, ("reward",), 4, similar_states=1.0).turn_state.tolist() == [5, 6, 8, 6, 11]


def test_every_episode_has_a_number_of_its_own():
    assert to_experience(two_groups(), ("reward",), 4).episode.tolist() == [28, 31, 33]


def test_a_demonstration_has_no_behaviour_logp():
    groups = two_groups()
    groups[0][0].turns[0].logp = None
    assert to_experience(groups, ("reward",), 4).behavior_logp is None


def test_entering_a_step():
    episode = Episode(0, 0, 0, [turn([1], [2])])
    episode.record(Step(Observation("", 0), 0.5, components={"style": 1.0}))
    assert (episode.reward, episode.turns[0].done, episode.truncated) == (0.5, False, False)
    episode.turns.append(turn([3], [4]))
    episode.record(Step(Observation("", 0), 0.25, done=True, truncated=True, success=True, components={"style": 2.0}))
    assert (episode.reward, episode.components) == (0.75, {"style": 3.0})
    assert (episode.turns[1].done, episode.truncated, episode.success, episode.length) == (True, True, True, 2)


def test_what_could_not_be_carried_out_is_noted_by_turn():
    groups = two_groups()
    groups[0][0].record(Step(Observation("", 0), executed=False))
    assert groups[0][0].turns[-1].executed is False
    x = to_experience(groups, ("reward", "style"), 4)
    assert x.turn_executed.tolist() == [True, False, True, True, True]


def test_a_step_can_say_anew_what_earlier_turns_were_worth():
    episode = Episode(0, 0, 0, [turn([1], [2])])
    episode.record(Step(Observation("", 0), 0.5))
    episode.turns.append(turn([3], [4]))
    episode.record(Step(Observation("", 0), 9.0, done=True, turn_rewards=(0.25, 1)))
    assert [t.reward for t in episode.turns] == [0.25, 1.0] and episode.reward == 1.25


def test_a_turn_is_well_formed_unless_its_step_says_otherwise():
    groups = two_groups()
    assert bool(to_experience(groups, ("reward",), 4).turn_well_formed.all())
    groups[0][0].record(Step(Observation("", 0), well_formed=False))
    assert to_experience(groups, ("reward",), 4).turn_well_formed.tolist().count(False) == 1
    fault = step_fault(Step(Observation("", 0), well_formed="no"), ("reward",), 1)
    assert fault == "the step's well_formed is str instead of a bool"


def test_a_turn_says_whether_its_call_was_carried_out():
    groups = two_groups()
    assert set(to_experience(groups, ("reward",), 4).turn_call.tolist()) == {-1}
    groups[0][0].record(Step(Observation("", 0), ran=False))
    assert to_experience(groups, ("reward",), 4).turn_call.tolist().count(0) == 1
    groups[0][0].record(Step(Observation("", 0), ran=True))
    assert to_experience(groups, ("reward",), 4).turn_call.tolist().count(1) == 1
    fault = step_fault(Step(Observation("", 0), ran=2), ("reward",), 1)  # type: ignore[arg-type]
    assert fault == "the step's ran is 2, neither a bool nor None"


def test_a_step_that_says_nothing_of_earlier_turns_leaves_them_as_they_are():
    episode = Episode(0, 0, 0, [turn([1], [2])])
    episode.record(Step(Observation("", 0), turn_rewards=(0.75,)))
    episode.turns.append(turn([3], [4]))
    episode.record(Step(Observation("", 0), 0.5, done=True))
    assert [t.reward for t in episode.turns] == [0.75, 0.5]


def test_a_transcript_is_what_was_read_and_said():
    said = two_groups()[0][0].transcript()
    assert [message["role"] for message in said["messages"]] == ["user", "assistant"] * 2
    assert said["messages"][1] == {"role": "assistant", "content": "said", "reward": 0.5}
    assert (said["reward"], said["episode"], said["failure"]) == (0.75, 7, None)


# ---- what an environment may return ---------------------------------------------------------------------------------

SEEN = Observation("seen", 0)


@pytest.mark.parametrize(
    "step",
    [
        Step(SEEN, 1),
        Step(SEEN, True),
        Step(SEEN, np.float32(0.5)),
        Step(SEEN, np.int64(2), components={"style": -3}),
        Step(Observation("", np.int64(-5), 1)),
        Step(SEEN, turn_rewards=(1.0, np.float32(0.5))),
    ],
)
def test_a_good_step_has_no_fault(step):
    assert step_fault(step, ("reward", "style"), turns=2) is None


@pytest.mark.parametrize(
    ("step", "fault"),
    [
        (None, "returned NoneType instead of a Step"),
        (("text", 0.0, True), "returned tuple instead of a Step"),
        (Step(SEEN, math.nan), "reward nan is not a finite number"),
        (Step(SEEN, -math.inf), "reward -inf is not a finite number"),
        (Step(SEEN, "1"), "reward '1' is not a finite number"),
        (Step(SEEN, None), "reward None is not a finite number"),
        (Step(SEEN, components={"style": math.nan}), "reward nan is not a finite number"),
        (Step(SEEN, components={"stile": 1.0}), "reward component 'stile' is not among the task's reward_names"),
        (Step(SEEN, components=None), "the step's components are NoneType instead of a mapping"),
        (Step(SEEN, turn_rewards=[1.0]), "the step's turn_rewards are 1, one for each of 2 turns is needed"),
        (Step(SEEN, turn_rewards=[1.0, math.nan]), "reward nan is not a finite number"),
        (Step(SEEN, turn_rewards=0.5), "the step's turn_rewards are float instead of a sequence"),
        (Step("text"), "returned str instead of an Observation"),
        (Step(Observation(None, 0)), "the observation's text is NoneType"),
        (
            Step(Observation("", 2**63)),
            "the observation's state_key 9223372036854775808 is not a signed 64-bit integer",
        ),
        (Step(Observation("", "key")), "the observation's state_key 'key' is not a signed 64-bit integer"),
        (Step(Observation("", 0, None)), "the observation's role None is not a signed 64-bit integer"),
    ],
)
def test_a_fault_of_a_step_is_named(step, fault):
    assert step_fault(step, ("reward", "style"), turns=2) == fault


def test_a_fault_of_an_observation_is_named():
    assert observation_fault(SEEN) is None
    assert observation_fault("text") == "returned str instead of an Observation"
