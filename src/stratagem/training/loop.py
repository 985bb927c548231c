"""The loop: roll out, credit, step, log; the same for every recipe and every kind of policy."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from stratagem.errors import BrokenRunError, InputError
from stratagem.experience import Experience
from stratagem.parts import Sampler
from stratagem.recipe import Recipe
from stratagem.seeding import generator, seed_torch
from stratagem.shards import divided_like
from stratagem.training.batch_storage import pack, unpack
from stratagem.training.companions import Companions
from stratagem.training.demonstrated import demonstrated_shares
from stratagem.training.journal import Journal
from stratagem.training.ledger import LEDGER, entry
from stratagem.training.members import Learners, together
from stratagem.training.memory import peak_memory
from stratagem.training.microbatches import microbatches, units
from stratagem.training.probes import RunGauge
from stratagem.training.replay import ReplayBuffer, replay_metrics
from stratagem.training.run_directory import Checkpoint, RunDirectory, whole_directory
from stratagem.training.sinks import Sink
from stratagem.training.world import PROBED, BuildsPolicy, Collected, Journaling, World


@dataclass(frozen=True)
class Settings:
    """How long and how carefully to run; nothing here changes what a step computes.

    steps: batches to learn from.  seed: of every random choice.
    evaluate_every: batches between evaluations (0: only before and after); each plays ``evaluation_episodes``
    held-out episodes sampled and as many greedily (0: no evaluation, and the last policy is saved instead of the best).
    budget: tokens the run may sample; it ends with the batch that uses them up, even before ``steps``.
    evaluate_tokens: sampled tokens between evaluations, beside those every ``evaluate_every`` batches.
    checkpoint_every: batches between checkpoints; ``keep_checkpoints`` of them stay.
    sample_episodes: episodes of each batch written to ``samples.jsonl``.
    journal: whether finished episodes that no checkpoint covers yet are kept in ``journal/``, so that a run that is
    killed and resumed plays none of them again; worlds that keep a journal only.

    Raises :class:`InputError` for a number out of range.
    """

    steps: int = 100
    seed: int = 0
    evaluate_every: int = 0
    evaluation_episodes: int = 100
    budget: int | None = None
    evaluate_tokens: int | None = None
    checkpoint_every: int = 10
    keep_checkpoints: int = 2
    sample_episodes: int = 2
    journal: bool = False

    def __post_init__(self) -> None:
        least = {"steps": 1, "checkpoint_every": 1, "keep_checkpoints": 1}
        for name in ("steps", "evaluate_every", "evaluation_episodes", "checkpoint_every", "keep_checkpoints"):
            if getattr(self, name) < least.get(name, 0):
                raise InputError(f"{name} = {getattr(self, name)}: must be at least {least.get(name, 0)}")
        for name in ("budget", "evaluate_tokens"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise InputError(f"{name} = {getattr(self, name)}: must be at least 1 token, or None")


WAITS = (1.0, 10.0)
"""Seconds before another batch is tried, after one and after two in a row that were lost: a service may come back."""

LOST_BATCHES = len(WAITS) + 1
"""So many batches in a row without one good episode end the run."""


@dataclass
class Batch:
    """A batch on its way through the optimizer; ``x`` is None when there is nothing to learn from it.

    report: what collecting it measured.  update: optimizer steps tried.  not_finite: those not taken, since loss or
    gradient was not finite.  no_gradient: those not taken, since the gradient was 0, so that only the momentum of
    earlier batches would have moved the policy.  totals: sums of the metrics of all but those that were not finite.
    episodes: its row of the ledger, None where the world does not account for them.
    """

    x: Experience | None
    report: dict[str, float]
    update: int = 0
    not_finite: int = 0
    no_gradient: int = 0
    totals: dict[str, float] = field(default_factory=dict)
    episodes: dict[str, Any] | None = None

    def metrics(self) -> dict[str, float]:
        """What collecting it measured, and means over the optimizer steps whose figures are finite."""
        if self.x is None:
            return dict(self.report)
        taken = max(self.update - self.not_finite, 1)
        means = {name: total / taken for name, total in self.totals.items()}
        untaken = {"updates/not_finite": float(self.not_finite), "updates/no_gradient": float(self.no_gradient)}
        return {**self.report, **means, **untaken}


_COUNTED = ("report", "update", "not_finite", "no_gradient", "totals", "episodes")


class Interrupted(Exception):
    """The run was asked to stop and has saved everything."""


class Trainer:
    """Runs a recipe in a world.

    One step collects a batch, asks the recipe for credit and takes ``epochs * minibatches`` optimizer steps. Metrics of
    a step depend only on seed, recipe, world and the checkpoint it started from, so a resumed run repeats an unbroken
    one exactly. What the recipe's parts remember stays within the run: the trainer works on a copy of the recipe.
    ``stop()`` may be called from a signal handler: the run saves after the present optimizer step, in the middle of a
    batch if need be, and raises :class:`Interrupted`.
    """

    def __init__(
        self,
        recipe: Recipe,
        world: World,
        run: RunDirectory,
        settings: Settings,
        sinks: tuple[Sink, ...] = (),
        progress: Callable[[int, Mapping[str, float]], None] | None = None,
    ) -> None:
        self.recipe = copy.deepcopy(recipe)
        self.world, self.run_directory, self.settings = world, run, settings
        if isinstance(world, BuildsPolicy):
            world.build_policy(recipe)
        elif recipe.architecture is not None:
            raise InputError(
                f"recipe {recipe.name}: asks for a policy made of {recipe.architecture.part_name()}; {world.task_name} "
                "brings its own (stratagem tasks lists those for several agents)"
            )
        self.policy = world.policy
        self._sinks = sinks
        self._progress = progress
        self._companions = Companions(self.policy, recipe, settings.seed)
        self._replay = ReplayBuffer(settings.seed)
        self._learners = Learners.of(self.policy, recipe.optimization, recipe.view)
        self._optimizer = self._learners.optimizer
        self._step = 0
        self._updates = 0
        self._tokens = 0
        self._batch: Batch | None = None
        self._best: float | None = None
        self._last_metrics: dict[str, float] = {}
        self._stopping = False
        self._lost_batches = 0
        self._measured: list[int] = []
        self._sampled_aside = 0
        self._journal = Journal(run.path / "journal") if settings.journal else None
        if self._journal is not None:
            if not isinstance(world, Journaling):
                raise InputError(f"journal: {world.task_name} keeps none; a language task does")
            world.keep(self._journal)

    # ---- the run ---------------------------------------------------------------------------------------------------

    def run(self) -> dict[str, float]:
        """Train to the last step and return its metrics. The best policy by evaluation is saved in ``model/``."""
        if self._step == 0 and self._batch is None:
            self._evaluate(0)
        while not self._finished:
            self.step()
            self._wait()
            if self._stops():
                self.checkpoint()
                raise Interrupted
            lost = self._lost_batches >= LOST_BATCHES
            if lost or self._step % self.settings.checkpoint_every == 0 or self._finished:
                self.checkpoint()
            if lost:
                raise BrokenRunError(
                    f"no episode of {LOST_BATCHES} batches in a row was of use; {self.run_directory.path} holds what "
                    "was saved, and its samples.jsonl shows what happened to some"
                )
        if self._best is None:
            self._save_model({})
        return self._last_metrics

    def step(self) -> dict[str, float]:
        """One batch: collect (unless a checkpoint left one unfinished), learn, log, and evaluate when it is time."""
        if self._batch is None:
            self._batch = self._collect()
        batch = self._batch
        clock = time.perf_counter()
        for _ in self._remaining_updates(batch):
            if self._stops():
                self.checkpoint()
                raise Interrupted
        metrics = batch.metrics()
        metrics["optimizer_steps"] = float(self._updates)
        metrics["timing/learn"] = time.perf_counter() - clock
        self._batch = None
        self._step += 1
        before, self._tokens = self._tokens, self._tokens + int(metrics["tokens/sampled"])
        metrics["tokens/total"] = float(self._tokens)
        metrics["memory/peak"] = peak_memory(self.policy.device)
        self._log(metrics)
        if batch.episodes is not None:
            self.run_directory.append(LEDGER, {"step": self._step, **batch.episodes})
        every, tokens = self.settings.evaluate_every, self.settings.evaluate_tokens
        due = bool(every) and self._step % every == 0
        due = due or (tokens is not None and self._tokens // tokens > before // tokens)
        if due or self._finished:
            self._evaluate(self._step)
        return metrics

    def _wait(self) -> None:
        """Give what lost the last batches time to return, unless the run ends anyway or is asked to stop."""
        if not 0 < self._lost_batches < LOST_BATCHES or self._finished:
            return
        end = time.monotonic() + WAITS[self._lost_batches - 1]
        while not self._stopping and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))

    @property
    def _finished(self) -> bool:
        budget = self.settings.budget
        return self._step >= self.settings.steps or (budget is not None and self._tokens >= budget)

    def stop(self) -> None:
        """Save and raise :class:`Interrupted` after the present optimizer step."""
        self._stopping = True

    def _stops(self) -> bool:
        """Whether the run was asked to stop, asked once after every optimizer step and every batch."""
        return self._stopping

    def close(self) -> None:
        """Flush and close the sinks."""
        for sink in self._sinks:
            sink.close()

    # ---- one batch -------------------------------------------------------------------------------------------------

    def _collect(self) -> Batch:
        clock = time.perf_counter()
        self.world.serve(self._updates)
        report, served = dict[str, float](), time.perf_counter() - clock
        self._sampled_aside, changes = 0, dict[str, Any]()
        clock = time.perf_counter()
        for schedule in self.recipe.schedules:
            report |= schedule.before_batch(self._step, self._gauge)
            changes |= schedule(self._step, self._last_metrics)
        report["timing/measuring"] = time.perf_counter() - clock
        if changes:
            self.recipe = self.recipe.with_values(changes)
        self._set_learning_rates()
        clock = time.perf_counter()
        self._companions.served(self.recipe, self._updates)
        collected = self.world.collect(self.recipe.sampler, self._step)
        report |= {**collected.metrics, "tokens/sampled": float(collected.tokens + self._sampled_aside)}
        report |= {f"knob/{path}": float(value) for path, value in changes.items() if isinstance(value, int | float)}
        report |= {"timing/rollout": served + time.perf_counter() - clock, "timing/weights": served}
        self._within_budget(collected.tokens)
        self._write_samples(collected)
        if collected.x is None:
            warnings.warn(f"step {self._step + 1}: no episode was of use; samples.jsonl shows some", stacklevel=2)
            self._lost_batches += 1
            return Batch(None, report | {"batch/skipped": 1.0}, episodes=self._entry(collected, None, False))
        self._lost_batches = 0
        if collected.x.tokens == 0:
            return Batch(None, report | {"batch/skipped": 1.0}, episodes=self._entry(collected, collected.x, False))
        clock = time.perf_counter()
        mixed = self._replay.mix(self.recipe.replay, collected.x, self._step)
        said = self._companions.complete(self.recipe, mixed.x.to(self.policy.device), self._step)
        report |= self._companions.figures()
        if bool(mixed.old.any()):
            report |= replay_metrics(said, mixed.old.to(self.policy.device))
        x = self._shape(said)
        for schedule in self.recipe.schedules:
            x, figures = schedule.before_credit(self._step, x, self._gauge)
            report |= figures
        x = self.recipe.credit(x)
        report["timing/credit"] = time.perf_counter() - clock
        if self.recipe.view is not None:
            report |= self.recipe.view.figures(x)
        report["batch/trajectories"] = float(x.trajectories)
        report["batch/dropped_trajectories"] = float(mixed.x.trajectories - x.trajectories)
        report["batch/tokens"] = float(x.tokens)
        report |= demonstrated_shares(x)
        skipped = x.tokens == 0 or not self.recipe.objective.has_signal(x)
        report["batch/skipped"] = float(skipped)
        if skipped:
            return Batch(None, report, episodes=self._entry(collected, x, False))
        self._sampled_aside = 0
        clock = time.perf_counter()
        for schedule in self.recipe.schedules:
            report |= schedule.before_update(self._step, x, self._gauge)
        report["timing/measuring"] += time.perf_counter() - clock
        report["tokens/sampled"] += self._sampled_aside
        episodes = self._entry(collected, x, True)
        if self.recipe.optimization.shuffle == "turns":
            x = x.by_turn()
        return Batch(x, report, episodes=episodes)

    def _entry(self, collected: Collected, x: Experience | None, learned: bool) -> dict[str, Any] | None:
        """The batch's row of the ledger, with what was measured beside it."""
        measured, self._measured = self._measured, []
        return entry(collected, x, learned, measured)

    def _set_learning_rates(self) -> None:
        """Of the optimizer's groups; the last one is of the view the run began with, if that has parameters."""
        view = self.recipe.view
        if not self._learners.has_view_group and view is not None and list(self.policy.view_parameters(view)):
            raise InputError(f"view = {view.part_name()}: has parameters of its own; a run must begin with it")
        of_view = 0.0 if view is None else view.own_learning_rate
        self._learners.set_learning_rates(self.recipe.optimization, of_view)

    @property
    def _gauge(self) -> RunGauge:
        """What schedules may measure now."""
        return RunGauge(
            self.recipe,
            self.policy,
            self._aside,
            lambda x: self._companions.complete(self.recipe, x.to(self.policy.device), learn=False),
        )

    def _aside(self, sampler: Sampler) -> Experience | None:
        """A batch that is not learned from; the budget counts what was sampled for it."""
        collected = self.world.collect(sampler, PROBED + self._step)
        self._measured += collected.begun or ()
        x = collected.x
        if x is None or x.behavior_logp is not None:
            self._sampled_aside += collected.tokens
        return None if x is None or not x.tokens else x

    def _within_budget(self, sampled: int) -> None:
        """Refuse a budget that not even the first batch fits into: there would be nothing to judge it by."""
        budget = self.settings.budget
        if self._step == 0 and budget is not None and sampled > budget:
            raise InputError(
                f"budget = {budget} tokens: too small for one step; a batch of {self.recipe.name} on "
                f"{self.world.task_name} samples about {sampled}"
            )

    def _shape(self, x: Experience) -> Experience:
        """Rewards shaped, without the groups a reward part raises on and trajectories whose return is no number."""
        try:
            x = self.recipe.shape(x)
        except Exception as error:
            warnings.warn(f"step {self._step + 1}: a reward part raised {type(error).__name__}: {error}", stacklevel=2)
            x = self._shape_groups(x, error)
        finite = x.returns.isfinite()
        return x if bool(finite.all()) else x.select(finite)

    def _shape_groups(self, x: Experience, error: Exception) -> Experience:
        """The groups of ``x`` that can be shaped alone. Raises ``error`` when there is none: the part is at fault."""
        shaped = []
        for group in range(x.groups):
            with contextlib.suppress(Exception):
                shaped.append(self.recipe.shape(x.select(x.group_of_trajectory.labels == group)))
        if not shaped:
            raise error
        return Experience.concatenate(shaped)

    def _remaining_updates(self, batch: Batch) -> Iterator[None]:
        """Take the optimizer steps the batch still owes, one for each item."""
        if batch.x is None:
            return
        optimization, done = self.recipe.optimization, 0
        for epoch in range(optimization.epochs):
            for chosen in self._minibatches(batch.x, epoch):
                done += 1
                if done <= batch.update:
                    continue
                self._update(batch, batch.x if chosen is None else batch.x.select(chosen))
                yield

    def _minibatches(self, x: Experience, epoch: int) -> Iterator[Tensor | None]:
        """Trajectories of each mini-batch; None for the whole batch as it is."""
        unit = units(x, self.recipe.optimization.shuffle)
        count = min(self.recipe.optimization.minibatches, unit.count)
        if count == 1:
            yield None
            return
        shuffled = torch.randperm(unit.count, generator=generator(self.settings.seed, "shuffle", self._step, epoch))
        for chosen in torch.tensor_split(shuffled.to(x.device), count):
            # In their old order the trajectories of a group stay neighbours, and neighbours share their prompt.
            yield torch.nonzero(torch.isin(unit.labels, chosen)).squeeze(1)

    def _update(self, batch: Batch, x: Experience) -> None:
        """One optimizer step; when loss or gradient is not finite, or the gradient 0, it is not taken, but counted."""
        seed_torch(self.settings.seed, "update", self._step, batch.update)
        optimization, needs = self.recipe.optimization, self.recipe.output_needs()
        self._optimizer.zero_grad(set_to_none=True)
        totals: dict[str, Tensor] = {}
        for piece in microbatches(x, optimization.microbatch_tokens, optimization.shuffle):
            out = self.policy(
                piece,
                temperature=self.recipe.sampler.policy_temperature,
                also=needs,
                view=self.recipe.view,
            )
            loss = self.recipe.objective(out, piece)
            if loss.loss.requires_grad:  # A piece without a token has nothing to say.
                loss.loss.backward()
            for name, value in {"loss": loss.loss.detach(), **loss.metrics}.items():
                totals[name] = totals[name] + value if name in totals else value
        norms = self._learners.clip(optimization)
        norm = totals["grad_norm"] = together(norms)
        if len(norms) > 1:
            totals |= {f"grad_norm/member_{number}": mine for number, mine in enumerate(norms)}
        batch.update += 1
        finite, moves = bool(norm.isfinite() & totals["loss"].isfinite()), bool(norm != 0)
        if finite and moves:
            self._optimizer.step()
            self._updates += 1
            self._companions.moved(self.recipe, totals)
        elif finite:
            self._companions.refused(self.recipe, totals)
        # While the next batch is collected nobody needs the gradient, which is as large as the trained weights.
        self._optimizer.zero_grad(set_to_none=True)
        self.recipe.after_step(taken=finite and moves)
        if not finite:
            batch.not_finite += 1
            return
        batch.no_gradient += not moves
        for name, value in totals.items():
            batch.totals[name] = batch.totals.get(name, 0.0) + float(value)

    # ---- what is written -------------------------------------------------------------------------------------------

    def _log(self, metrics: dict[str, float]) -> None:
        self._last_metrics = metrics
        self.run_directory.append("metrics.jsonl", {"step": self._step, **metrics})
        for sink in self._sinks:
            sink.log(self._step, metrics)
        if self._progress is not None:
            self._progress(self._step, metrics)

    def _write_samples(self, collected: Collected) -> None:
        for sample in collected.samples[: self.settings.sample_episodes]:
            self.run_directory.append("samples.jsonl", {"step": self._step + 1, **sample})

    def _evaluate(self, step: int) -> None:
        """Play held-out episodes sampled and greedily; keep the policy when it did better than ever before."""
        if not self.settings.evaluation_episodes:
            return
        self.world.serve(self._updates)
        score = 0.0
        metrics: dict[str, float] = {}
        for mode in ("sampled", "greedy"):
            evaluation = self.world.evaluate(self.settings.evaluation_episodes, mode)
            self.run_directory.append("evaluations.jsonl", {"step": step, **dataclasses.asdict(evaluation)})
            for name in ("success", "mean_return", "mean_length"):
                value = getattr(evaluation, name)
                if value is not None:
                    metrics[f"evaluation/{mode}/{name}"] = float(value)
            score += evaluation.mean_return if evaluation.success is None else evaluation.success
        for sink in self._sinks:
            sink.log(step, metrics)
        # Without a single good episode the score is not a number: that says nothing about the policy.
        if not math.isnan(score) and (self._best is None or score > self._best):
            self._best = score
            self._save_model(metrics)

    def _save_model(self, metrics: Mapping[str, float]) -> None:
        with self._writing("the model"), whole_directory(self.run_directory.path / "model") as directory:
            self.policy.save(directory, self._card(metrics))

    def _card(self, metrics: Mapping[str, float]) -> str:
        figures = "\n".join(f"- {name}: {value:.3f}" for name, value in metrics.items())
        return (
            f"# A policy trained by Stratagem\n\n- task: `{self.world.task_name}`\n- recipe: `{self.recipe.name}`\n"
            f"- step: {self._step}\n- seed: {self.settings.seed}\n\n## Held-out evaluation\n\n{figures}\n\n"
            f"## Recipe\n\n```yaml\n{self.recipe.to_yaml()}```\n"
        )

    # ---- checkpoints -----------------------------------------------------------------------------------------------

    def checkpoint(self) -> None:
        """Save everything the rest of the run depends on. A failed write leaves the last checkpoint as it was."""
        optimizer_tensors, optimizer_plain = _split_optimizer(self._optimizer)
        world_tensors, world_plain = self.world.state_dict()
        replay_tensors, replay_plain = self._replay.state_dict()
        tensors = {
            "policy": dict(self.policy.state_dict()),
            "optimizer": optimizer_tensors,
            "parts": self.recipe.state_dict(),
            "world": world_tensors,
            "companions": self._companions.state_dict(),
            "replay": replay_tensors,
        }
        state: dict[str, Any] = {
            "step": self._step,
            "updates": self._updates,
            "tokens": self._tokens,
            "best": self._best,
            "last_metrics": self._last_metrics,
            "optimizer": optimizer_plain,
            "world": world_plain,
            "replay": replay_plain,
            "recipe": self.recipe.to_yaml(),
            "batch": None,
        }
        name = f"step-{self._step}"
        if self._batch is not None and self._batch.x is not None:
            tensors["batch"], plain = pack(self._batch.x)
            state["batch"] = {
                **{name: getattr(self._batch, name) for name in _COUNTED},
                "experience": plain,
            }
            name += f"-{self._batch.update}"
        with self._writing(f"checkpoint {name}"):
            self.run_directory.save(name, Checkpoint(state, tensors), self.settings.keep_checkpoints)
        if self._journal is not None:
            self._journal.covered(self._step + (state["batch"] is not None))

    @contextlib.contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        """A full disk breaks the run and says which checkpoint is there to go on from."""
        try:
            yield
        except (OSError, SafetensorError) as error:
            complete = self.run_directory.checkpoints()
            kept = f"the last complete checkpoint is {complete[-1]}" if complete else "there is no checkpoint yet"
            reason = getattr(error, "strerror", None) or error
            raise BrokenRunError(f"{what} could not be written ({reason}); {kept}") from error

    def resume(self, checkpoint: Checkpoint | None) -> None:
        """Continue from a checkpoint (None: from the beginning); rows logged after it are dropped, to be written again.

        Raises :class:`InputError` when the checkpoint is of another model, task or version.
        """
        if checkpoint is not None:
            try:
                self._restore(checkpoint)
            except KeyError as error:
                raise InputError(f"the checkpoint lacks {error}: it is of another recipe, task or version") from None
            except (RuntimeError, ValueError) as error:
                reason = str(error).splitlines()[-1].strip()
                raise InputError(f"the checkpoint is of another model or recipe: {reason}") from None
        self.run_directory.sweep()
        # Evaluated at step 0, but nothing saved: what happened is to happen again.
        known = -1 if checkpoint is None else self._step
        for name in ("metrics.jsonl", "evaluations.jsonl", LEDGER):
            self.run_directory.forget_after(name, known)
        # Samples are written when their batch is collected, so those of an unfinished batch are already there.
        self.run_directory.forget_after("samples.jsonl", known + (self._batch is not None))
        self.world.serve(self._updates)

    def _restore(self, checkpoint: Checkpoint) -> None:
        state = checkpoint.state
        self.policy.load_state_dict(checkpoint.tensors["policy"])
        _join_optimizer(self._optimizer, checkpoint.tensors["optimizer"], state["optimizer"])
        self.recipe = Recipe.from_yaml(state["recipe"], "checkpoint")
        self.recipe.load_state_dict(checkpoint.tensors["parts"])
        self.world.load_state_dict(checkpoint.tensors["world"], state["world"])
        self._companions.load_state_dict(checkpoint.tensors["companions"])
        self._replay.load_state_dict(checkpoint.tensors["replay"], state["replay"])
        self._step, self._updates, self._tokens = state["step"], state["updates"], state["tokens"]
        self._best = state["best"]
        self._last_metrics = state["last_metrics"]
        if state["batch"] is not None:
            saved = state["batch"]
            x = unpack(checkpoint.tensors["batch"], saved["experience"]).to(self.policy.device)
            self._batch = Batch(x, **{name: saved[name] for name in _COUNTED})


def _split_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Optimizer state as named tensors and plain data."""
    state = optimizer.state_dict()
    tensors = {f"{index}.{name}": value for index, values in state["state"].items() for name, value in values.items()}
    return tensors, state["param_groups"]


def _join_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], groups: list[dict[str, Any]]
) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for path, value in tensors.items():
        index, name = path.split(".", 1)
        parameter = parameters[int(index)]
        # What has the shape of the parameter goes with it, element by element.
        like = divided_like(value, parameter) if value.shape == parameter.shape else value
        state.setdefault(int(index), {})[name] = like
    optimizer.load_state_dict({"state": state, "param_groups": groups})
