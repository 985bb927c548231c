"""A text task played by a policy that does not learn: what it is shown, and what comes of it."""

from __future__ import annotations

import pytest
import torch

from stratagem.memory import EpisodicMemory, Store
from stratagem.memory.playing import HEADING, PlayedTask
from stratagem.tasks.mixture import Mixture
from stratagem.tasks.task import Observation


@pytest.fixture
def played(make_policy, chatter):
    made = PlayedTask(chatter(), make_policy(), seed=3)
    yield made
    made.close()


def read(played, tokenizer, index, experiences) -> str:
    return tokenizer.decode(played.played(index, experiences).turns[0].read)


def test_experiences_stand_at_the_end_of_the_system_message(played, tiny_tokenizer):
    assert read(played, tiny_tokenizer, 2, ()) == "<|system|>Say something.<|user|>topic 2<|assistant|>"
    told = read(played, tiny_tokenizer, 2, ("be kind", "be brief"))
    assert told == f"<|system|>Say something.\n\n{HEADING}\n\n1. be kind\n\n2. be brief<|user|>topic 2<|assistant|>"


def test_a_task_without_system_message_gets_one(make_policy, chatter, tiny_tokenizer):
    played = PlayedTask(chatter(system=None), make_policy())
    told = read(played, tiny_tokenizer, 1, ("be kind",))
    assert told == f"<|system|>{HEADING}\n\n1. be kind<|user|>topic 1<|assistant|>"
    played.close()


def test_in_a_mixture_the_system_message_is_that_of_the_episodes_own_task(make_policy, chatter, tiny_tokenizer):
    mixed = Mixture([chatter(system="First."), chatter(system="Second.")])
    played = PlayedTask(mixed, make_policy())
    openings = [read(played, tiny_tokenizer, index, ("be kind",)) for index in (2, 3)]
    played.close()
    # Episode 1 of either task.
    assert openings == [
        f"<|system|>{system}\n\n{HEADING}\n\n1. be kind<|user|>topic 1<|assistant|>" for system in ("First.", "Second.")
    ]


def test_without_experiences_an_episode_is_the_one_without_memory(make_policy, chatter):
    texts = []
    for _ in range(2):
        played = PlayedTask(chatter(), make_policy(), seed=5)
        texts.append([turn.text for turn in played.played(0, ()).turns])
        again = [turn.text for turn in played.played(0, ()).turns]
        played.close()
    assert texts[0] == texts[1] != again


def test_a_stream_learns_from_success_and_moves_no_weight(make_policy, chatter):
    policy = make_policy()
    before = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    played = PlayedTask(chatter(), policy)
    memory, store = EpisodicMemory(near_from=0.99), Store()
    solved = list(memory.play(store, range(12), played, intent=played.intent))
    played.close()
    # Topics repeat after five episodes, so every later one finds what was written.
    assert all(not one.retrieval.experiences for one in solved[:1]) and all(one.retrieval.numbers for one in solved[5:])
    assert {one.attempt.reward for one in solved} == {1.0, -1.0}
    for one in solved:
        said = "This succeeded:" if one.attempt.reward == 1.0 else "This failed:"
        assert one.attempt.experience.startswith(f"{said}\n> topic {one.task % 5}\n")
    assert store.intents[0] == "topic 0" and sum(item.visits for item in store.items.values()) > 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in policy.state_dict().items())


def test_an_episode_that_its_environment_spoils_says_nothing(make_policy, chatter):
    def broken(call: str, index: int, turn: int) -> None:
        if call == "step":
            raise RuntimeError("no")

    played = PlayedTask(chatter(fault=broken), make_policy())
    attempt = played(0, ("be kind",))
    played.close()
    assert attempt.reward is None and attempt.experience is None


def test_an_episode_that_cannot_start_is_passed_over(make_policy, chatter):
    def broken(call: str, index: int, turn: int) -> None:
        if call == "reset" and index == 1:
            raise RuntimeError("no")

    played, store = PlayedTask(chatter(fault=broken), make_policy()), Store()
    solved = list(EpisodicMemory().play(store, range(3), played, intent=played.intent))
    played.close()
    assert [one.attempt.reward is None for one in solved] == [False, True, False] and store.clock == 2
    assert "" not in store.intents


def test_an_observation_that_opens_with_messages_of_its_own_keeps_them(make_policy, chatter, tiny_tokenizer):
    def opened(call: str, index: int, turn: int) -> Observation | None:
        messages = ({"role": "system", "content": "Mine."}, {"role": "user", "content": "go"})
        return Observation("go", 0, opening=messages) if call == "reset" else None

    played = PlayedTask(chatter(fault=opened), make_policy())
    told = read(played, tiny_tokenizer, 0, ("be kind",))
    played.close()
    assert told == f"<|system|>Mine.\n\n{HEADING}\n\n1. be kind<|user|>go<|assistant|>"
