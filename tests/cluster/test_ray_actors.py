"""What an actor's owner makes of its death, before it said a word and after; plain functions play Ray."""

import types

import pytest

from stratagem.cluster.ray_actors import RayWorker

ray = pytest.importorskip("ray")


@pytest.fixture
def created(monkeypatch):
    """``created(lives, ...)``: a worker of actors that give so many answers each, and the list of those asked for."""
    monkeypatch.setattr(ray, "get", lambda answer, timeout: answer())

    def make(*lives):
        asked_for = []

        def create():
            left = [lives[len(asked_for)]]
            asked_for.append(left)

            def answer():
                if not left[0]:
                    raise ray.exceptions.RayActorError
                left[0] -= 1
                return "here"

            return types.SimpleNamespace(hello=types.SimpleNamespace(remote=lambda: answer))

        return RayWorker(create), asked_for

    return make


def test_an_actor_whose_node_had_left_is_asked_for_again(created):
    worker, asked_for = created(0, 1)
    assert worker.call("hello", timeout=1.0) == "here"
    assert len(asked_for) == 2


def test_it_is_asked_for_again_only_once(created):
    worker, asked_for = created(0, 0, 1)
    for _ in range(2):
        with pytest.raises(ray.exceptions.RayActorError):
            worker.call("hello", timeout=1.0)
    assert len(asked_for) == 2


def test_the_death_of_one_that_lived_is_told(created):
    worker, asked_for = created(1, 1)
    worker.call("hello", timeout=1.0)
    with pytest.raises(ray.exceptions.RayActorError):
        worker.call("hello", timeout=1.0)
    assert len(asked_for) == 1
