"""Small runs in processes of their own: started, watched, disturbed by others, and compared with undisturbed ones."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.chaos import processes

from stratagem.errors import InputError
from stratagem.training.ledger import Audit, audit_run
from stratagem.training.run_directory import RunDirectory

ROOT = Path(__file__).parents[2]

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
    # Ray's workers are otherwise nicer than all else on a machine, and starve beside other work.
    "RAY_worker_niceness": "0",
}
"""Of all processes of a run."""

STEPS = 6
"""Of every run; a checkpoint is written every second one, and every third is followed by an evaluation."""

LONGEST = 420.0
"""Seconds that a run may take, disturbed or not."""

TOLERANCE = 1e-5
"""By how much two numbers may differ that are the same: learners that share a batch add it up in another order."""

GROUPS, GROUP = 2, 4
"""Prompts of a batch, and episodes of each."""

RUN = [
    *("grpo", "--task", "key_door", "--steps", str(STEPS), "--precision", "float32", "--device", "cpu"),
    *("--episodes", "10", "--evaluate-every", "3", "--checkpoint-every", "2"),
    *("--set", f"sampler.prompts_per_step={GROUPS}", "--set", f"sampler.group_size={GROUP}"),
]

NOT_COMPARED = ("timing/", "memory/", "workers/", "weights/", "environments/", "pipeline/", "prefill/", "decode/")
"""Metrics of what it took to get the numbers; all others are the numbers."""


class Wrong(Exception):
    """Something came out otherwise than it must."""


@dataclass
class Run:
    """A run in the directory ``path``, whose processes say what they say into the file beside it.

    driver: the process that was started last.  orphans: processes below drivers that were killed.
    """

    path: Path
    driver: subprocess.Popen[bytes] | None = None
    orphans: list[int] = field(default_factory=list)

    @property
    def log(self) -> Path:
        """What the processes of the run said to the user."""
        return self.path.with_name(f"{self.path.name}.log")

    @property
    def pid(self) -> int:
        """Of the driver."""
        assert self.driver is not None
        return self.driver.pid

    def train(self, seed: int, *options: str) -> None:
        """Begin it."""
        self.start("-m", "stratagem", "train", *RUN, "--seed", str(seed), *options, "--out", str(self.path))

    def resume(self, *options: str) -> None:
        """Go on with it."""
        self.start("-m", "stratagem", "train", "--resume", str(self.path), *options)

    def start(self, *arguments: str) -> None:
        """Let Python do this, as the driver."""
        with open(self.log, "ab") as log:
            self.driver = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=ROOT,
                env={**os.environ, **ENVIRONMENT},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def reached(self) -> int:
        """Steps that stand in ``metrics.jsonl``."""
        return max((row["step"] for row in RunDirectory(self.path).rows("metrics.jsonl")), default=0)

    def await_step(self, step: int, seconds: float = 0.0) -> None:
        """Wait until this step is done, and so much longer."""
        end = time.monotonic() + LONGEST
        while self.reached() < step:
            self._check_alive(end)
            time.sleep(0.02)
        time.sleep(seconds)

    def actors(self, kind: str) -> list[int]:
        """Processes of the actors of this class, once there is one."""
        end = time.monotonic() + LONGEST
        while not (found := processes.actors(self.pid, kind)):
            self._check_alive(end)
            time.sleep(0.05)
        return found

    def _check_alive(self, end: float) -> None:
        assert self.driver is not None
        if self.driver.poll() is not None:
            raise Wrong(f"the run ended by itself with exit code {self.driver.returncode}: {self.last_line()}")
        if time.monotonic() > end:
            raise Wrong(f"the run takes longer than {LONGEST:g} s")

    def code(self) -> int:
        """The driver's exit code; afterwards none of its processes is left."""
        assert self.driver is not None
        below = processes.children(self.pid)
        try:
            code = self.driver.wait(LONGEST)
        except subprocess.TimeoutExpired:
            raise Wrong(f"the run takes longer than {LONGEST:g} s") from None
        processes.check_gone([*below, *self.orphans])
        return code

    def finish(self) -> None:
        """Wait for it to end well."""
        code = self.code()
        if code:
            raise Wrong(f"exit code {code}: {self.last_line()}")

    def stopped(self, message: str) -> None:
        """Wait for it to end with exit code 3 and one line with this message."""
        code = self.code()
        if code != 3:
            raise Wrong(f"exit code {code} and not 3: {self.last_line()}")
        line = self.last_line()
        if not line.startswith("error: ") or message not in line:
            raise Wrong(f"the last line is {line!r}, without {message!r}")

    def kill_driver(self) -> None:
        """Kill it as nobody can prevent; what it started is to go by itself."""
        assert self.driver is not None
        self.orphans += processes.children(self.pid)
        os.kill(self.pid, signal.SIGKILL)
        self.driver.wait()

    def last_line(self) -> str:
        """Of what was said to the user."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def end(self) -> None:
        """Leave no process of it behind."""
        if self.driver is not None:
            below = processes.children(self.pid)
            processes.send([self.pid, *below], signal.SIGKILL)
            self.driver.wait()
            processes.await_exit([*below, *self.orphans], 0.0)

    # ---- what came of it --------------------------------------------------------------------------------------------

    def audit(self) -> Audit:
        """The proof of its ledger."""
        return audit_run(RunDirectory(self.path))

    def count(self, name: str) -> int:
        """The last value of a counter in its metrics; 0 where there is none."""
        rows = RunDirectory(self.path).rows("metrics.jsonl")
        return int(next((row[name] for row in reversed(rows) if name in row), 0))

    def learners_restarted(self) -> int:
        """As ``cluster.json`` says; 0 of a run that was on no cluster."""
        path = self.path / "cluster.json"
        return int(json.loads(path.read_text())["learners_restarted"]) if path.is_file() else 0


def numbers(run: Run) -> dict[str, float]:
    """All that a run measured and that must not depend on what happened to it, by step and name."""
    directory, found = RunDirectory(run.path), dict[str, float]()
    for row in directory.rows("metrics.jsonl"):
        kept = {name: value for name, value in row.items() if not name.startswith(NOT_COMPARED)}
        found |= {f"step {row['step']}, {name}": value for name, value in _flat(kept)}
    for row in directory.rows("evaluations.jsonl"):
        kept = {name: value for name, value in row.items() if name not in ("samples", "mode")}
        found |= {f"{row['mode']} evaluation at {row['step']}, {name}": value for name, value in _flat(kept)}
    return found


def _flat(row: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in row.items():
        if isinstance(value, list):
            yield from ((f"{name}.{place}", float(one)) for place, one in enumerate(value))
        elif value is not None:
            yield name, float(value)


def difference(one: dict[str, float], other: dict[str, float]) -> str | None:
    """The first number in which two runs differ; None when there is none."""
    for name in sorted(one.keys() | other.keys()):
        if name not in one or name not in other:
            return f"{name}: is in one of the runs only"
        a, b = one[name], other[name]
        if not (math.isnan(a) and math.isnan(b)) and not math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
            return f"{name}: {a!r} and {b!r}"
    return None


class Bench:
    """Where the runs of one scenario and seed happen.

    chance: when and to whom things happen.  held: what is given back in the end.
    references: numbers of undisturbed runs by seed, shared by all scenarios.
    """

    def __init__(self, folder: Path, scenario: str, seed: int, references: dict[int, dict[str, float]]) -> None:
        self.folder, self.seed = folder, seed
        self.chance = random.Random(f"{scenario} {seed}")
        self.run, self.held = Run(folder / "run"), ExitStack()
        self._references = references

    def close(self) -> None:
        """End what is left of the run, and give back what was held for it."""
        with self.held:
            self.run.end()

    def moment(self, last: int = STEPS // 2) -> tuple[int, float]:
        """A step, and a time after it that is about as long as a step; steps are left in which it can be seen."""
        return self.chance.randint(1, last), self.chance.uniform(0.0, 0.6)

    def reference(self) -> dict[str, float]:
        """Of the run in one process with this seed, to which nothing happens."""
        if self.seed not in self._references:
            with ended(Run(self.folder / "undisturbed")) as run:
                run.train(self.seed)
                run.finish()
                self._references[self.seed] = numbers(run)
        return self._references[self.seed]

    def traces(self) -> dict[str, int]:
        """What is left of the run: processes started again, episodes, and what is wrong in its ledger."""
        try:
            audit = self.run.audit()
            restarts = [self.run.count("workers/restarts"), self.run.count("environments/restarts")]
            return {
                "restarts": self.run.learners_restarted() + sum(restarts),
                "episodes": audit.begun,
                "failed_episodes": audit.left_out.get("failed", 0),
                "violations": int(not audit.proved),
            }
        except (InputError, OSError):
            return {"restarts": 0, "episodes": 0, "failed_episodes": 0, "violations": 1}

    def same_numbers(self) -> str:
        """The outcome of a run that came to what it comes to undisturbed."""
        self.exactly_once()
        found = difference(numbers(self.run), self.reference())
        if found is not None:
            raise Wrong(f"other numbers than undisturbed: {found}")
        return "same numbers"

    def exactly_once(self) -> str:
        """The outcome of a run that ended, learned from no episode twice, and lost none."""
        if self.run.reached() != STEPS:
            raise Wrong(f"it ended after step {self.run.reached()} of {STEPS}")
        audit = self.run.audit()
        if not audit.proved:
            raise Wrong(f"ledger: {audit.violation or f'{audit.missing} groups without a fate'}")
        if audit.steps != STEPS:
            raise Wrong(f"ledger: {audit.steps} rows of {STEPS} steps")
        if "Traceback" in self.run.log.read_text(errors="replace"):
            raise Wrong("the user saw a traceback")
        return "exactly once"


@contextmanager
def ended(run: Run) -> Iterator[Run]:
    """A run of which nothing is left at the end of the block."""
    try:
        yield run
    finally:
        run.end()


def happened(count: int, what: str) -> None:
    """Raise :class:`Wrong` when what a scenario does left no trace, so that it proved nothing."""
    if count < 1:
        raise Wrong(f"nothing happened: no {what}")


def chosen(bench: Bench, pids: Sequence[int]) -> int:
    """One of these processes."""
    return bench.chance.choice(list(pids))
