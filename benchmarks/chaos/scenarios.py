"""What happens to runs: each scenario disturbs one and says what came of it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from benchmarks.chaos import processes
from benchmarks.chaos.nodes import nodes
from benchmarks.chaos.runs import GROUP, GROUPS, STEPS, Bench, Wrong, chosen, happened
from benchmarks.chaos.volumes import volume

Scenario = Callable[[Bench], str]

SILENCE = ("--silence", "12")
LOCAL = ("--cluster", "local")
WORKERS = (*LOCAL, "--rollout-workers", "2")
LEARNERS = (*LOCAL, "--learners", "2")
AHEAD = (*WORKERS, "--staleness", "2")

EPISODES = STEPS * GROUPS * GROUP
"""That a run learns from when none is left out."""

SCENARIOS: dict[str, Scenario] = {}
"""By name, in the order in which they are run; the first line of the docstring is the description."""


def scenario(function: Scenario) -> Scenario:
    """Enter it into :data:`SCENARIOS`."""
    SCENARIOS[function.__name__] = function
    return function


def signalled(bench: Bench, kind: str, number: signal.Signals, all_of_them: bool = False) -> None:
    """At some moment send a signal to an actor of this class, or to all of them."""
    bench.run.await_step(*bench.moment())
    found = bench.run.actors(kind)
    processes.send(found if all_of_them else [chosen(bench, found)], number)


# ---- workers --------------------------------------------------------------------------------------------------------


@scenario
def rollout_worker_killed(bench: Bench) -> str:
    """one of two rollout workers is killed"""
    bench.run.train(bench.seed, *WORKERS)
    signalled(bench, "RolloutWorker", signal.SIGKILL)
    bench.run.finish()
    happened(bench.run.count("workers/restarts"), "rollout worker was started again")
    return bench.same_numbers()


@scenario
def rollout_worker_hangs(bench: Bench) -> str:
    """one of two rollout workers is stopped, and answers no more"""
    bench.run.train(bench.seed, *WORKERS, *SILENCE)
    signalled(bench, "RolloutWorker", signal.SIGSTOP)
    bench.run.finish()
    happened(bench.run.count("workers/restarts"), "rollout worker was started again")
    return bench.same_numbers()


@scenario
def all_rollout_workers_killed(bench: Bench) -> str:
    """both rollout workers are killed at once"""
    bench.run.train(bench.seed, *WORKERS)
    signalled(bench, "RolloutWorker", signal.SIGKILL, all_of_them=True)
    bench.run.finish()
    happened(bench.run.count("workers/restarts") - 1, "two rollout workers were started again")
    return bench.same_numbers()


@scenario
def environment_worker_killed(bench: Bench) -> str:
    """the environment worker is killed"""
    bench.run.train(bench.seed, *LOCAL, "--environment-workers", "1")
    signalled(bench, "EnvironmentActor", signal.SIGKILL)
    bench.run.finish()
    happened(bench.run.count("environments/restarts"), "environment worker was started again")
    return bench.same_numbers()


@scenario
def environment_hangs(bench: Bench) -> str:
    """a call of an environment never returns"""
    _train_in_trouble(bench, "hangs")
    bench.run.finish()
    happened(bench.run.count("environments/hung"), "call of an environment hung")
    audit = bench.run.audit()
    good = audit.learned + audit.left_out.get("skipped", 0)  # A batch that was solved throughout teaches nothing.
    if good != EPISODES:
        raise Wrong(f"{good} episodes were of use: one that failed was not made up for")
    return _with_failures(bench)


@scenario
def reward_service_down(bench: Bench) -> str:
    """the service that gives rewards is down for a while; a run that three batches are lost of by that is resumed"""
    seconds = f"{bench.chance.uniform(0.5, 16):.2f}"  # a run waits for eleven
    _train_in_trouble(bench, "down", seconds)
    if bench.run.code():
        bench.run.stopped("no episode of 3 batches in a row was of use")
        bench.run.start("-m", "benchmarks.chaos.faulty", "down", str(bench.folder), str(bench.seed), seconds)
        bench.run.finish()
    return _with_failures(bench)


def _train_in_trouble(bench: Bench, kind: str, *seconds: str) -> None:
    bench.run.start("-m", "benchmarks.chaos.faulty", kind, str(bench.folder), str(bench.seed), *seconds)
    bench.run.await_step(*bench.moment())
    (bench.folder / "due").touch()


def _with_failures(bench: Bench) -> str:
    """Exactly once, with episodes that failed and are counted."""
    happened(bench.run.audit().left_out.get("failed", 0), "episode failed")
    return bench.exactly_once()


# ---- learners -------------------------------------------------------------------------------------------------------


@scenario
def learner_killed(bench: Bench) -> str:
    """the only learner is killed"""
    bench.run.train(bench.seed, *LOCAL)
    signalled(bench, "Learner", signal.SIGKILL)
    bench.run.finish()
    happened(bench.run.learners_restarted(), "learner was started again")
    return bench.same_numbers()


@scenario
def one_of_two_learners_killed(bench: Bench) -> str:
    """one of two learners is killed"""
    bench.run.train(bench.seed, *LEARNERS)
    signalled(bench, "Learner", signal.SIGKILL)
    bench.run.finish()
    happened(bench.run.learners_restarted(), "learner was started again")
    return bench.same_numbers()


@scenario
def learner_hangs(bench: Bench) -> str:
    """a learner is stopped, and answers no more; with odd seeds it is one of two"""
    bench.run.train(bench.seed, *(LEARNERS if bench.seed % 2 else LOCAL), *SILENCE)
    signalled(bench, "Learner", signal.SIGSTOP)
    bench.run.finish()
    happened(bench.run.learners_restarted(), "learner was started again")
    return bench.same_numbers()


@scenario
def restarts_used_up(bench: Bench) -> str:
    """the learner is killed more often than it is started again; then the run is resumed"""
    bench.run.train(bench.seed, *LOCAL, "--restarts", "1")
    signalled(bench, "Learner", signal.SIGKILL)
    while not bench.run.learners_restarted():  # It is noted once the next one answers.
        time.sleep(0.05)
    time.sleep(bench.chance.uniform(0.0, 10.0))
    processes.send(bench.run.actors("Learner"), signal.SIGKILL)
    bench.run.stopped("stratagem train --resume")
    bench.run.resume(*LOCAL)
    bench.run.finish()
    return bench.same_numbers()


# ---- the driver -----------------------------------------------------------------------------------------------------


@scenario
def driver_killed(bench: Bench) -> str:
    """the driver is killed, and the run resumed on the cluster"""
    bench.run.train(bench.seed, *LOCAL)
    _driver_killed(bench)
    bench.run.resume()
    bench.run.finish()
    return bench.same_numbers()


@scenario
def resumed_in_one_process(bench: Bench) -> str:
    """the driver is killed, and the run resumed without a cluster"""
    bench.run.train(bench.seed, *LOCAL)
    _driver_killed(bench)
    bench.run.resume("--cluster", "none")
    bench.run.finish()
    return bench.same_numbers()


@scenario
def resumed_on_a_cluster(bench: Bench) -> str:
    """a run in one process is killed, and resumed on a cluster with two learners"""
    bench.run.train(bench.seed)
    step, seconds = bench.moment()
    bench.run.await_step(step, seconds / 5)
    bench.run.kill_driver()
    bench.run.resume(*LEARNERS)
    bench.run.finish()
    return bench.same_numbers()


@scenario
def terminated(bench: Bench) -> str:
    """the driver is asked to end (SIGTERM; with odd seeds an interrupt from the keyboard), and the run resumed"""
    bench.run.train(bench.seed, *WORKERS)
    bench.run.await_step(*bench.moment())
    if bench.seed % 2:
        os.killpg(bench.run.pid, signal.SIGINT)
    else:
        os.kill(bench.run.pid, signal.SIGTERM)
    bench.run.stopped("stopped and saved; continue with: stratagem train --resume")
    bench.run.resume()
    bench.run.finish()
    return bench.same_numbers()


def _driver_killed(bench: Bench) -> None:
    bench.run.await_step(*bench.moment())
    bench.run.kill_driver()


# ---- rollouts ahead of the learner ----------------------------------------------------------------------------------


@scenario
def rollout_worker_killed_ahead(bench: Bench) -> str:
    """rollouts two batches ahead, and a rollout worker is killed"""
    bench.run.train(bench.seed, *AHEAD)
    bench.run.await_step(*bench.moment(last=1))  # Later there may be nothing left to sample.
    processes.send([chosen(bench, bench.run.actors("RolloutWorker"))], signal.SIGKILL)
    bench.run.finish()
    happened(bench.run.count("workers/restarts"), "rollout worker was started again")
    return bench.exactly_once()


@scenario
def learner_killed_ahead(bench: Bench) -> str:
    """rollouts two batches ahead, and the learner is killed"""
    bench.run.train(bench.seed, *AHEAD)
    signalled(bench, "Learner", signal.SIGKILL)
    bench.run.finish()
    happened(bench.run.learners_restarted(), "learner was started again")
    return bench.exactly_once()


@scenario
def driver_killed_ahead(bench: Bench) -> str:
    """rollouts two batches ahead, the driver is killed, and the run resumed"""
    bench.run.train(bench.seed, *AHEAD)
    _driver_killed(bench)
    bench.run.resume()
    bench.run.finish()
    return bench.exactly_once()


# ---- machines -------------------------------------------------------------------------------------------------------


@scenario
def node_of_a_rollout_worker_leaves(bench: Bench) -> str:
    """a node leaves the cluster, with a rollout worker on it"""
    cluster = bench.held.enter_context(nodes(4))
    bench.run.train(bench.seed, "--cluster", cluster.address, "--rollout-workers", "2")
    bench.run.await_step(*bench.moment())
    cluster.remove(chosen(bench, cluster.having("RolloutWorker")))
    bench.run.finish()
    happened(bench.run.count("workers/restarts"), "rollout worker was started again")
    return bench.same_numbers()


@scenario
def node_of_the_learner_leaves(bench: Bench) -> str:
    """a node leaves the cluster, with the learner on it"""
    cluster = bench.held.enter_context(nodes(3))
    bench.run.train(bench.seed, "--cluster", cluster.address)
    bench.run.await_step(*bench.moment())
    cluster.remove(chosen(bench, cluster.having("Learner")))
    bench.run.finish()
    happened(bench.run.learners_restarted(), "learner was started again")
    return bench.same_numbers()


@scenario
def disk_full(bench: Bench) -> str:
    """the disk of the run directory fills up, and has space again when the run is resumed"""
    disk = bench.held.enter_context(volume(bench.run.path, megabytes=128))
    bench.run.train(bench.seed, *LOCAL)
    bench.run.await_step(*bench.moment())
    disk.fill(leave=bench.chance.randint(0, 2**22))
    bench.run.stopped(str(bench.run.path))
    disk.empty()
    bench.run.resume()
    bench.run.finish()
    return bench.same_numbers()
