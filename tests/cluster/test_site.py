"""What a cluster is asked for on behalf of a run, as far as that can be said without one."""

import signal
import socket
import sys
import time
import types

import pytest

from stratagem.cluster.plan import Cluster
from stratagem.cluster.site import Site, connected, wanted
from stratagem.errors import InputError


def test_every_process_gets_a_processor_and_those_that_compute_a_gpu_where_there_are_any():
    cluster = Cluster(learners=2, rollout_workers=1, environment_workers=1)
    assert wanted(cluster, "auto", {"CPU": 4.0}) == ({"CPU": 1.0},) * 4
    computing = {"CPU": 1.0, "GPU": 1.0}
    assert wanted(cluster, "auto", {"CPU": 8.0, "GPU": 3.0}) == (computing, computing, computing, {"CPU": 1.0})
    assert wanted(cluster, "cpu", {"CPU": 8.0, "GPU": 3.0}) == ({"CPU": 1.0},) * 4


@pytest.mark.parametrize(
    ("device", "has", "complaint"),
    [
        ("auto", {"CPU": 3.0}, r"has 3 processors, the run needs 4 \(2 learners, 1 rollout worker, 1 environment"),
        ("auto", {"CPU": 9.0, "GPU": 2.0}, "has 2 GPUs, the run needs 3"),
        ("cuda", {"CPU": 9.0}, "has no GPU; use --device cpu"),
    ],
)
def test_a_cluster_that_is_too_small_is_refused_with_what_it_lacks(device, has, complaint):
    with pytest.raises(InputError, match=complaint):
        wanted(Cluster(learners=2, rollout_workers=1, environment_workers=1), device, has)


def test_places_are_counted_learners_first():
    cluster = Cluster(learners=2, rollout_workers=3, environment_workers=1)
    site = Site(cluster, None, wanted(cluster, "cpu", {"CPU": 9.0}))
    numbers = [site.place("learner", 1), site.place("rollout worker", 0), site.place("environment worker", 0)]
    assert numbers == [1, 2, 5]


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://127.0.0.1:{}"])
def test_a_wrong_address_is_said_at_once(form):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = form.format(free.getsockname()[1])
        clock = time.monotonic()
        with pytest.raises(InputError, match=f"cluster {address}: nobody answers there"), connected(Cluster(address)):
            pass
    assert time.monotonic() - clock < 5


def test_a_missing_ray_is_named_with_what_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'stratagem\[cluster\]'"), connected(Cluster()):
        pass


def test_signals_go_to_whoever_asked_for_them_and_not_to_ray(monkeypatch):
    heard = []

    def takes_the_signals(**_):
        signal.signal(signal.SIGTERM, lambda *_: heard.append("ray"))

    ray = types.SimpleNamespace(is_initialized=lambda: False, init=takes_the_signals, shutdown=lambda: None)
    monkeypatch.setitem(sys.modules, "ray", ray)
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append("run"))
    try:
        with connected(Cluster()):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == ["run"]
