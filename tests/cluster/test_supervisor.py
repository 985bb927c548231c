"""What the driver makes of learners that die, hang or break; Ray's part is played by plain functions."""

import json
import types

import pytest

from stratagem.cluster.plan import Cluster
from stratagem.cluster.process_group import ShardsLost
from stratagem.cluster.supervisor import Lost, Supervisor
from stratagem.errors import BrokenRunError
from stratagem.saved import SavedRun
from stratagem.tasks import registry
from stratagem.training.loop import Interrupted, Settings
from stratagem.training.run_directory import RunDirectory
from stratagem.worlds import Request

ray = pytest.importorskip("ray")


def died():
    return ray.exceptions.RayActorError()


def task_error(cause):
    return ray.exceptions.RayTaskError("run", "", cause)


class Answer:
    """A reference to what a learner answers; an error that it ends with; ``None``: nothing comes yet."""

    def __init__(self, *outcomes):
        self.outcomes = list(outcomes)

    def look(self):
        return self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]


class Learner:
    """One of a group, of whom it is known beforehand how it answers."""

    def __init__(self, *, reports=(), run=None):
        self.stopped = 0
        self.reports = types.SimpleNamespace(remote=lambda after: reports or Answer([]))
        self.stop = types.SimpleNamespace(remote=self._stop)
        self.running = run

    def _stop(self):
        self.stopped += 1


@pytest.fixture
def supervisor(tmp_path, monkeypatch):
    def get(asked, timeout=None):
        if isinstance(asked, list):
            return [get(one, timeout) for one in asked]
        outcome = asked.look()
        if outcome is None:
            raise ray.exceptions.GetTimeoutError
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def wait(references, num_returns, timeout):
        done = [one for one in references if one.outcomes[0] is not None or len(one.outcomes) == 1]
        for one in references:
            if one.outcomes[0] is None and len(one.outcomes) > 1:
                one.outcomes.pop(0)
        return done[:1], [one for one in references if one not in done[:1]]

    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setattr(ray, "wait", wait)
    cluster = Cluster(learners=2, silence=7.0)
    saved = SavedRun(RunDirectory.create(tmp_path / "run"), Request("grpo", "key_door", cluster=cluster), Settings())
    told = []
    made = Supervisor(saved, registry.make("key_door"), lambda step, metrics: told.append((step, metrics)))
    made.told = told
    return made


def followed(supervisor, *group):
    return supervisor._followed(group, [one.running for one in group])


def test_metrics_are_those_of_the_first_once_all_are_done(supervisor):
    first = Learner(reports=Answer([(1, {"reward": 0.5})], []), run=Answer({"reward": 1.0}))
    assert followed(supervisor, first, Learner(run=Answer(None, None, {"reward": 2.0}))) == {"reward": 1.0}
    assert supervisor.told == [(1, {"reward": 0.5})]


def test_a_learner_that_died_is_lost_whatever_the_others_say_of_it(supervisor):
    broken = task_error(ShardsLost("shard 0 of 2 lost the others"))
    with pytest.raises(Lost, match="a learner was lost"):
        followed(supervisor, Learner(run=Answer(broken)), Learner(run=Answer(died())))


def test_learners_that_lost_each_other_are_lost_though_none_died(supervisor):
    broken = task_error(ShardsLost("shard 0 of 2 lost the others"))
    with pytest.raises(Lost, match="lost each other"):
        followed(supervisor, Learner(run=Answer(broken)), Learner(run=Answer(broken)))


def test_what_the_run_raises_is_raised(supervisor):
    broken = task_error(BrokenRunError("no episode of 3 batches"))
    with pytest.raises(BrokenRunError, match="no episode of 3 batches"):
        followed(supervisor, Learner(run=Answer(broken)), Learner(run=Answer(broken)))


def test_one_of_the_others_that_says_nothing_is_lost_as_well(supervisor):
    silent = Learner(reports=Answer(None), run=Answer(None, None, None, {}))
    with pytest.raises(Lost, match="a learner did not answer for 7 s"):
        followed(supervisor, Learner(run=Answer(None, None, None, {})), silent)


def test_a_learner_that_dies_after_the_first_was_done_is_lost(supervisor):
    with pytest.raises(Lost, match="a learner was lost"):
        followed(supervisor, Learner(run=Answer({})), Learner(run=Answer(None, died())))


def test_all_are_asked_once_to_stop(supervisor):
    supervisor.stop()
    stopped = task_error(Interrupted())
    group = [Learner(run=Answer(None, None, stopped)), Learner(run=Answer(None, None, None, stopped))]
    with pytest.raises(Interrupted):
        followed(supervisor, *group)
    assert [learner.stopped for learner in group] == [1, 1]


def test_cluster_json_says_how_often_the_learners_were_started_again(supervisor, monkeypatch):
    supervisor._restarts = 2
    supervisor._note(types.SimpleNamespace(described=lambda: [{"role": "learner"}]))
    noted = json.loads((supervisor._saved.directory.path / "cluster.json").read_text())
    assert noted["learners_restarted"] == 2 and noted["silence"] == 7.0
