"""Key-door tasks whose environments misbehave for a while, and the driver of a run on one of them.

python -m benchmarks.chaos.faulty hangs|down FOLDER SEED [SECONDS]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.chaos.runs import GROUP, GROUPS, STEPS

from stratagem import run
from stratagem.cli.app import BROKEN, DONE
from stratagem.cluster.plan import Cluster
from stratagem.errors import BrokenRunError
from stratagem.tasks import registry
from stratagem.tasks.task import Environment, Observation, Split, Step, Task


class Faulty(Task):
    """Key-door whose training environments, once a file ``due`` is in ``folder``, hang once in all or are down.

    kind: ``hangs``: one step never ends.  ``down``: for ``seconds`` from then on some steps raise ``ConnectionError``,
    as in a task whose reward is a service elsewhere.  folder: where a file ``happened`` tells all processes of it.
    """

    def __init__(self, kind: str, folder: Path, seconds: float) -> None:
        self.kind, self.marker, self.seconds = kind, folder / "happened", seconds
        made = registry.make("key_door")
        assert isinstance(made, Task)
        self.of = made
        self.name, self.description = f"faulty:{made.name}", made.description
        self.max_turns, self.max_new_tokens, self.stop, self.system = (
            made.max_turns,
            made.max_new_tokens,
            made.stop,
            made.system,
        )
        self.reward_names, self.reward_weights = made.reward_names, made.reward_weights

    def environment(self, split: Split, index: int) -> Environment:
        inner = self.of.environment(split, index)
        return FaultyEnvironment(inner, self) if split == "train" else inner

    def solution(self, split: Split, index: int) -> Iterator[str]:
        return self.of.solution(split, index)

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        return self.of.corrupted(split, index)

    def trouble(self) -> None:
        """What happens to whoever calls it first, or while the service is down."""
        try:
            self.marker.touch(exist_ok=False)
            begun = time.time()
        except FileExistsError:
            begun = self.marker.stat().st_mtime
            if self.kind == "hangs":
                return
        if self.kind == "hangs":
            time.sleep(3600)
        if time.time() - begun < self.seconds:
            raise ConnectionError("the reward service does not answer")


class FaultyEnvironment(Environment):
    """An environment of :class:`Faulty`, which misbehaves at its third step, once the run is under way."""

    def __init__(self, inner: Environment, task: Faulty) -> None:
        self.inner, self.task, self.steps = inner, task, 0

    def reset(self) -> Observation:
        return self.inner.reset()

    def step(self, action: str) -> Step:
        self.steps += 1
        if self.steps == 3 and (self.task.marker.parent / "due").exists():
            self.task.trouble()
        return self.inner.step(action)

    def close(self) -> None:
        self.inner.close()


def main() -> int:
    """Train in such a task on a local cluster, or go on with that."""
    kind, folder, seed, *seconds = sys.argv[1:]
    task = Faulty(kind, Path(folder), float(seconds[0]) if seconds else 0.0)
    directory = Path(folder) / "run"
    try:
        if (directory / "run.json").exists():
            run.resume(directory, task=task)
            return DONE
        run.train(
            "grpo",
            task,
            out=directory,
            steps=STEPS,
            seed=int(seed),
            precision="float32",
            device="cpu",
            evaluate_every=3,
            evaluation_episodes=10,
            checkpoint_every=2,
            timeout=4.0,
            values={"sampler.prompts_per_step": GROUPS, "sampler.group_size": GROUP},
            cluster=Cluster(environment_workers=1),
        )
    except BrokenRunError as error:
        print(f"error: {error}", file=sys.stderr)
        return BROKEN
    return DONE


if __name__ == "__main__":
    sys.exit(main())
