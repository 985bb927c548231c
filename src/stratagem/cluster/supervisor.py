"""The driver's side of a run on a cluster: it starts the learners, listens to them, and starts them again."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stratagem.cluster.plan import Cluster
from stratagem.cluster.process_group import ShardsLost
from stratagem.cluster.site import Site, connected, reserved
from stratagem.cluster.versions import check_versions
from stratagem.errors import BrokenRunError
from stratagem.saved import SavedRun
from stratagem.tasks.task import AnyTask
from stratagem.training.pipeline import warn_of_age
from stratagem.training.run_directory import RunDirectory, file_name

LISTENING = 0.5
"""Seconds between two looks at the learners."""

STARTING = 600.0
"""Seconds that a learner has to get a place on the cluster and to start there."""

GRACE = 10.0
"""Seconds in which the others of a group may show who died, once one of them has failed."""


class Lost(Exception):
    """A learner died or no longer answers."""


class Supervisor:
    """Runs a saved run on its cluster.

    The learners are a group: when one dies all are started again and go on from the newest checkpoint, with the numbers
    of an unbroken run. What else dies (rollout and environment workers) is the first learner's to replace.
    ``cluster.json`` in the run directory says which process runs where, and how often the learners were started again.

    task: played in text.  progress: told of every step.
    """

    def __init__(
        self,
        saved: SavedRun,
        task: AnyTask,
        progress: Callable[[int, Mapping[str, float]], None] | None = None,
    ) -> None:
        self._saved = dataclasses.replace(saved, directory=RunDirectory(saved.directory.path.resolve()))
        self._task: AnyTask | None = None if saved.task_is_specified else task
        self._progress = progress
        self._told = -1
        self._restarts = 0
        self._stopping = False

    @property
    def cluster(self) -> Cluster:
        """What the run consists of."""
        cluster = self._saved.request.cluster
        assert cluster is not None
        return cluster

    def stop(self) -> None:
        """Let the learners save and end after the present optimizer step."""
        self._stopping = True

    def run(self) -> dict[str, float]:
        """To the last step; its metrics."""
        warn_of_age(self._saved.recipe, self.cluster.staleness)
        name = f"stratagem-{file_name(self._saved.directory.path.name)}"
        with connected(self.cluster), reserved(self.cluster, self._saved.request.device, name) as site:
            while True:
                try:
                    return self._learned(site)
                except Lost as lost:
                    self._restarts += 1
                    if self._restarts > self.cluster.restarts:
                        raise BrokenRunError(
                            f"{lost}; the learners were started again {self.cluster.restarts} times before; "
                            f"continue with: stratagem train --resume {self._saved.directory.path}"
                        ) from None
                    warnings.warn(
                        f"{lost}: the learners start again from the newest checkpoint "
                        f"({self._restarts} of {self.cluster.restarts} restarts)",
                        stacklevel=2,
                    )

    def _learned(self, site: Site) -> dict[str, float]:
        """One group of learners, from the newest checkpoint to the end. Raises :class:`Lost` when one died."""
        group: list[Any] = []
        try:
            try:
                meeting_point = self._started(site, group)
            except Lost:
                # They were put on a node that had left, which Ray notices only by then: they never lived.
                self._end(group)
                meeting_point = self._started(site, group)
            self._note(site)
            running = [
                one.run.remote(self._saved, self._saved.recipe, self._task, site, meeting_point) for one in group
            ]
            return self._followed(group, running)
        finally:
            self._end(group)

    def _started(self, site: Site, group: list[Any]) -> tuple[str, int]:
        """Fill a group with learners; where they meet, once all have started: only then silence means something."""
        import ray

        from stratagem.cluster.learner import Learner

        remote: Any = ray.remote(Learner)
        for rank in range(site.cluster.learners):
            options = site.options("learner", rank)
            group.append(remote.options(max_concurrency=4, **options).remote(rank, site.cluster.learners))
        greetings = self._asked([one.hello.remote() for one in group], STARTING)
        for rank, greeting in enumerate(greetings):
            check_versions(f"learner {rank} on {greeting['node']} (pid {greeting['pid']})", greeting)
        meeting_point, *_ = self._asked([one.meeting_point.remote() for one in group], STARTING)
        address, port = meeting_point
        return address, port

    def _end(self, group: list[Any]) -> None:
        """Kill a group, of which nothing is then left."""
        import ray

        while group:
            ray.kill(group.pop())

    def _followed(self, group: Sequence[Any], running: Sequence[Any]) -> dict[str, float]:
        """Listen to the group until it is done; the metrics of the first."""
        import ray

        stopped, waiting = False, list(running)
        while waiting:
            done, waiting = ray.wait(waiting, num_returns=1, timeout=LISTENING)
            if done and self._failed(done[0]):
                self._give_up(running, done[0])
            self._report(group)
            if self._stopping and not stopped:
                for learner in group:
                    learner.stop.remote()
                stopped = True
        metrics: dict[str, float] = ray.get(running[0])
        return metrics

    def _report(self, group: Sequence[Any]) -> None:
        """Pass on what the first has to tell; the others are asked as well, to see whether they are there."""
        told, *_ = self._asked([learner.reports.remote(self._told) for learner in group], self.cluster.silence)
        for step, metrics in told:
            self._told = step
            if self._progress is not None:
                self._progress(step, metrics)

    def _asked(self, references: Sequence[Any], patience: float) -> list[Any]:
        """The answers of the learners. Raises :class:`Lost` when one does not come within so many seconds."""
        import ray

        try:
            return list(ray.get(list(references), timeout=patience))
        except ray.exceptions.GetTimeoutError:
            raise Lost(f"a learner did not answer for {patience:g} s") from None
        except ray.exceptions.RayError as error:
            raise Lost(_death(error)) from None

    def _failed(self, reference: Any) -> bool:
        import ray

        try:
            ray.get(reference)
        except Exception:
            return True
        return False

    def _give_up(self, running: Sequence[Any], first: Any) -> None:
        """Raise what ended the group: a death, if there was one, and otherwise what the first to fail raised."""
        import ray

        end = time.monotonic() + GRACE
        waiting = [first, *(reference for reference in running if reference is not first)]
        failure: BaseException | None = None
        for reference in waiting:
            try:
                ray.get(reference, timeout=max(end - time.monotonic(), 0.01))
            except ray.exceptions.GetTimeoutError:
                continue
            except ray.exceptions.RayTaskError as error:
                failure = failure or error.cause or error
            except ray.exceptions.RayError as error:
                raise Lost(_death(error)) from None
            except Exception as error:
                failure = failure or error
        if isinstance(failure, ShardsLost):
            raise Lost(f"the learners lost each other ({failure})")
        assert failure is not None
        raise failure

    def _note(self, site: Site) -> None:
        """Write ``cluster.json``."""
        import ray

        self._saved.directory.write_json(
            "cluster.json",
            {
                **dataclasses.asdict(self.cluster),
                "ray": ray.__version__,
                "processes": site.described(),
                "learners_restarted": self._restarts,
            },
        )


def _death(error: Exception) -> str:
    """What Ray says of a dead actor, in a few words."""
    told = " ".join(str(error).split())
    reason = "its node left" if "node has died" in told or "NodeDied" in type(error).__name__ else "its process died"
    if "creation task" in told:
        reason = f"it could not start: {told[-200:]}"
    return f"a learner was lost ({reason})"
