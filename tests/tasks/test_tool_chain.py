"""The tool-chain task: what turns earn, what tools return, and that earlier turns can be worth less in hindsight."""

from __future__ import annotations

import pytest

from stratagem.errors import InputError
from stratagem.language.episodes import Episode, Turn
from stratagem.tasks import ToolChainTask, make
from stratagem.tasks.tool_calls import ToolCall
from stratagem.tasks.tool_chain import TOOLS, Chain, ToolChainEnvironment, result

CHAIN = Chain((ToolCall("home", {"person": "ana"}), ToolCall("price", {"item": "lamp", "city": "#1"})), world=7)
(HOME, CITY), (PRICE, GOLD) = CHAIN.carried_out()
CALLS = ('call: home {"person": "ana"}', f'call: price {{"item": "lamp", "city": "{CITY}"}}')


def environment(reward: str = "hard", max_turns: int = 4) -> ToolChainEnvironment:
    found = ToolChainEnvironment(CHAIN, max_turns, reward)
    assert found.reset().text == "1 home person=ana; 2 price item=lamp city=#1"
    return found


def rewards(reward: str, *actions: str) -> list[float]:
    """Of the turns of an episode, as they are entered while it is played."""
    playing = environment(reward)
    observation, episode = playing.reset(), Episode(0, 0, 0)
    for action in actions:
        episode.turns.append(Turn(observation, [], [], None, action))
        step = playing.step(action)
        episode.record(step)
        observation = step.observation
    return [turn.reward for turn in episode.turns]


def test_the_solution_is_told_results_and_earns_one_a_turn():
    playing = environment()
    steps = [playing.step(action) for action in (*CALLS, f"answer: {GOLD}")]
    assert [step.observation.text for step in steps] == [CITY, GOLD, "right"]
    assert [list(step.turn_rewards) for step in steps] == [[1], [1, 1], [1, 1, 1]]
    assert (steps[-1].done, steps[-1].success, steps[-1].truncated) == (True, True, False)
    assert steps[-1].components == {"trace": 1, "answer": 1}


def test_what_turns_earn_by_kind_of_reward():
    episode = (*CALLS, f"answer: {GOLD}")
    assert rewards("hard", *episode) == rewards("greedy", *episode) == [1, 1, 1]
    assert rewards("soft", *episode) == pytest.approx([0.5, 0.5, 1], abs=1e-4)
    assert rewards("outcome", *episode) == [0, 0, 1]


def test_a_turn_is_worth_less_once_a_later_one_fits_better():
    guess = 'call: home {"person": "ben"}'
    assert rewards("hard", guess) == [pytest.approx(2 / 3)]
    assert rewards("hard", guess, CALLS[0]) == [0, 1]


def test_calls_of_one_turn_share_its_reward_and_calls_beside_an_answer_are_not_made():
    assert rewards("hard", f'{CALLS[0]}\ncall: nonsense {{"a": 1}}') == [0.5]
    assert rewards("hard", f"{CALLS[0]}\nanswer: {GOLD}") == [1]
    assert rewards("hard", f"{CALLS[0]}\nanswer: no") == [0]


def test_order_does_not_count_in_the_reward_but_in_the_trace():
    playing = environment()
    for action in (CALLS[1], CALLS[0], f"answer: {GOLD}"):
        step = playing.step(action)
    assert list(step.turn_rewards) == [1, 1, 1]
    assert step.components == {"trace": 0, "answer": 1} and not step.success


def test_every_mistake_is_answered_and_none_fails():
    playing = environment(max_turns=16)
    told = {
        "hello": "error: write call: or answer:",
        "call: fly {}": "error: no tool fly; there are home, wish, mayor, weather, price, carrier",
        "call: home {": "error: home takes person",
        'call: home {"person": "zed"}': "error: person is no person",
        'call: home {"person": [1]}': "error: person is no person",
        'CALL : home {"person": "ana"}': CITY,
    }
    assert {action: playing.step(action).observation.text for action in told} == told


def test_the_last_turn_ends_an_episode_that_was_not_answered():
    playing = environment(max_turns=2)
    assert not playing.step(CALLS[0]).done
    last = playing.step(CALLS[1])
    assert (last.done, last.truncated, last.success) == (True, True, False)
    assert last.components == {"trace": 1, "answer": 0} and list(last.turn_rewards) == [1, 1]


def test_an_answer_of_several_words_earns_its_f1():
    assert rewards("outcome", f"answer: It is {GOLD}!") == [pytest.approx(0.5)]


def test_results_follow_from_the_world_and_are_of_the_tools_kind():
    task = ToolChainTask()
    for index in range(20):
        chain = task.chain("train", index)
        assert 3 <= len(chain.calls) <= 6 and chain == ToolChainTask().chain("train", index)
        assert not any(answer.startswith("error") for _, answer in chain.carried_out())
        # What is to be copied is never a word of the request alone: a reference is to an earlier call.
        for place, call in enumerate(chain.calls):
            for value in call.arguments.values():
                assert not value.startswith("#") or 1 <= int(value[1:]) <= place
    call = ToolCall("weather", {"city": "oslo"})
    assert len({result(call, world) for world in range(20)}) > 5 and result(call, 3) == result(call, 3)


def test_all_six_tools_are_asked_for_and_every_call_but_the_first_copies_a_result():
    chains = [ToolChainTask().chain("train", index) for index in range(60)]
    assert {call.name for chain in chains for call in chain.calls} == set(TOOLS)
    for chain in chains:
        copied = [any(value.startswith("#") for value in call.arguments.values()) for call in chain.calls]
        assert copied == [False] + [True] * (len(chain.calls) - 1)


def test_states_are_equal_where_request_world_and_calls_are():
    def state(world: int, *actions: str) -> int:
        playing = ToolChainEnvironment(Chain(CHAIN.calls, world), 9, "hard")
        return [playing.reset(), *(playing.step(action).observation for action in actions)][-1].state_key

    assert state(7, CALLS[0]) == state(7, CALLS[0] + " ") and state(7) != state(8) != state(7, CALLS[0])


def test_the_task_proves_its_verifier_for_every_reward():
    for reward in ("hard", "greedy", "soft", "outcome"):
        assert make(f"tool_chain:reward={reward},fewest=2,most=3,max_turns=5").check(6).corruptions_rejected == 6
    assert ToolChainTask().check(6, "test").solutions_accepted == 6


def test_no_test_request_is_a_train_request():
    requests = [{str(ToolChainTask().chain(split, index)) for index in range(40)} for split in ("train", "test")]
    assert not requests[0] & requests[1]


def test_an_answer_is_read_and_calls_answer_nothing():
    assert ToolChainTask().answer("Answer: Oslo.") == "oslo"
    assert ToolChainTask().answer(CALLS[0]) is ToolChainTask().answer("answer: ") is None


@pytest.mark.parametrize("options", ["fewest=0", "most=13", "reward=fair", "fewest=4,most=3", "max_turns=6", "calls=3"])
def test_options_out_of_range_are_refused_in_one_line(options):
    with pytest.raises(InputError, match="tool_chain") as caught:
        make(f"tool_chain:{options}")
    assert "\n" not in str(caught.value)
