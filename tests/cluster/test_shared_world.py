"""A world that is there once: what comes of it reaches all shards, and weights are served tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from stratagem.cluster.local import LocalWorkers
from stratagem.cluster.process_group import Place, joined
from stratagem.cluster.sharded_policy import shard
from stratagem.cluster.shared_world import SharedWorld
from stratagem.cluster.weights import Parcel, Sender, whole_fingerprint
from stratagem.errors import InputError
from stratagem.language import Team
from stratagem.language.engine import fingerprint
from stratagem.language.policy import LanguagePolicy, LoRA
from stratagem.sampling import Rollouts


def served(in_shards: Any, make: Callable[[], Any], serve: Callable[[Any], Any]) -> list[Any]:
    """What a world's ``serve`` finds on shard 0, or the error of every shard; they go on together afterwards."""

    def check(place: Place) -> Any:
        found: list[Any] = []
        with joined(place) as group:
            policy = make()
            shard(policy, group)
            own: Any = SimpleNamespace(policy=policy, task_name="none")
            own.serve = lambda version: found.append(serve(policy))
            world = SharedWorld(own if group.leads else None, policy, group)
            try:
                world.serve(3)
            except ValueError as error:
                found.append(str(error))
            assert group.lead(lambda: "on") == "on"
            assert world.task_name == "none"
        return found

    return in_shards(check)


def test_an_engine_may_read_the_weights_of_a_team_as_often_as_it_likes(in_shards, make_policy):
    def make() -> Team:
        return Team({0: make_policy(0), None: make_policy(1)})

    expected = dict(make().weights())

    def serve(policy: Any) -> bool:
        # First only some, as one does that looks for the shapes.
        next(policy.members[1].weights())
        for _ in range(2):
            found = dict(policy.weights())
            assert found.keys() == expected.keys()
            assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
        return True

    assert served(in_shards, make, serve) == [[True], []]


@pytest.mark.skipif(find_spec("peft") is None, reason="needs peft")
def test_a_divided_policy_sends_its_adapters_alone_once_the_rest_was_sent(in_shards, make_policy):
    def make() -> LanguagePolicy:
        policy = make_policy(lora=LoRA(4))
        source = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in policy.policy_parameters():
                parameter += 0.1 * torch.randn(parameter.shape, generator=source)
        return policy

    alone = make()
    expected, below = dict(alone.weights()), Parcel.of(alone.unmerged(adapters=False)).nbytes
    small = sum(tensor.nbytes for _, tensor in alone.unmerged(adapters=True))

    def serve(policy: Any) -> list[int]:
        sender, sent = Sender(LocalWorkers().put), []
        for version in range(2):
            update = sender.packed(policy, version)
            sent.append(sender.sent_bytes)
            merged = dict(update.parcel.merged(update.base, torch.device("cpu")))
            assert list(merged) == list(expected)
            assert all(torch.equal(merged[name], tensor) for name, tensor in expected.items())
            prints = {name: fingerprint(tensor) for name, tensor in expected.items()}
            assert update.expected == whole_fingerprint(prints)
        sender.merging = False
        update = sender.packed(policy, 2)
        assert all(torch.equal(expected[name], tensor) for name, tensor in update.parcel.tensors(torch.device("cpu")))
        return sent

    assert served(in_shards, make, serve) == [[[below + small, small]], []]


def test_an_engine_that_refuses_weights_is_an_error_of_all_shards(in_shards, make_policy):
    def serve(policy: Any) -> None:
        for number, _ in enumerate(policy.weights()):
            if number == 2:
                raise InputError("the third tensor has another shape")

    assert served(in_shards, make_policy, serve) == [["the third tensor has another shape"]] * 2


def test_what_is_collected_evaluated_and_remembered_is_the_same_on_all_shards(in_shards, make_policy, make_world):
    def check(place: Place) -> Any:
        with joined(place) as group:
            policy = make_policy()
            own = make_world(policy=policy) if group.leads else None
            shard(policy, group)
            world = SharedWorld(own, policy, group)
            world.serve(0)
            collected = world.collect(Rollouts(prompts_per_step=2, group_size=3), 0)
            evaluation = world.evaluate(4, "greedy")
            tensors, plain = world.state_dict()
            world.load_state_dict(tensors, plain)
            assert collected.x is not None and collected.x.inputs is not None
            said = collected.x.behavior_logp, collected.x.inputs.token_ids, collected.metrics["reward"]
            assert (plain.get("next_index") == 2) == group.leads
            return [torch.as_tensor(value).tolist() for value in said], evaluation.mean_return

    first, second = in_shards(check)
    assert first == second and len(first[0][0]) > 6


def test_a_world_that_cannot_be_shared_is_refused(in_shards, make_policy):
    def check(place: Place) -> bool:
        with joined(place) as group:
            plain, policy = make_policy(), make_policy()
            shard(policy, group)
            own: Any = SimpleNamespace(policy=plain, task_name="none")
            for world, given, message in (
                (None if group.leads else own, policy, "acted in by shard 0 and by no other"),
                (own if group.leads else None, plain, "needs a divided policy, not LanguagePolicy"),
            ):
                with pytest.raises(InputError, match=message):
                    SharedWorld(world, given, group)
            if group.leads:
                with pytest.raises(InputError, match="must act with the policy that is divided"):
                    SharedWorld(own, policy, group)
        return True

    assert in_shards(check) == [True, True]
