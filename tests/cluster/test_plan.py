"""What a run on a cluster is asked for."""

import dataclasses

import pytest

from stratagem.cluster.plan import Cluster
from stratagem.errors import InputError


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"address": ""}, "address ''"),
        ({"learners": 0}, "learners = 0: must be at least 1"),
        ({"rollout_workers": 0}, "rollout_workers = 0: must be at least 1"),
        ({"environment_workers": -1}, "environment_workers = -1: must be at least 0"),
        ({"staleness": -1}, "staleness = -1: must be at least 0"),
        ({"restarts": -1}, "restarts = -1: must be at least 0"),
        ({"silence": 0.0}, "silence = 0.0: must be above 0 seconds"),
        ({"silence": float("inf")}, "silence = inf: must be above 0 seconds and finite"),
        ({"slice_tokens": 0}, "slice_tokens = 0: must be at least 1 token"),
    ],
)
def test_a_number_out_of_range_is_named(values, complaint):
    with pytest.raises(InputError, match=complaint):
        Cluster(**values)


def test_what_json_holds_of_it_makes_it_again():
    cluster = Cluster("127.0.0.1:6379", learners=2, rollout_workers=3, environment_workers=1, staleness=2)
    assert Cluster.from_json(dataclasses.asdict(cluster)) == cluster
    assert cluster.processes == 6


def test_a_run_that_was_saved_before_there_was_a_field_has_its_default():
    saved = dataclasses.asdict(Cluster(learners=2))
    del saved["silence"]
    assert Cluster.from_json(saved) == Cluster(learners=2)


def test_a_field_that_there_is_not_is_named():
    with pytest.raises(InputError, match="field of a cluster"):
        Cluster.from_json({"addres": "local"})
