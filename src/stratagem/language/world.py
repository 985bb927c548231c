"""The world of a language policy: a task, an engine that acts, and the batches and evaluations that come of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

from torch import Tensor

from stratagem.errors import InputError
from stratagem.language.chat import ChatFormat
from stratagem.language.compared import compared
from stratagem.language.engine import Engine, Request
from stratagem.language.episodes import Episode
from stratagem.language.groups import rolled_out
from stratagem.language.measured import decode_metrics, episode_metrics
from stratagem.language.policy import LanguagePolicy
from stratagem.language.readers import Readers
from stratagem.language.rollout import first_observation
from stratagem.language.sampling import SamplingParams
from stratagem.language.solved import demonstrated, tried
from stratagem.language.stage import Stage
from stratagem.language.team import Team
from stratagem.language.windows import Slots
from stratagem.parts import Sampler
from stratagem.readings import ReadsText
from stratagem.recipe import Recipe
from stratagem.sampling import Candidates, Demonstrations, Rollouts, Windows
from stratagem.seeding import derive
from stratagem.tasks.task import Split, Task
from stratagem.training.journal import Journal
from stratagem.training.statistics import evaluation
from stratagem.training.world import Collected, Evaluation
from stratagem.watched import Watch


class LanguageWorld:
    """A language policy, or a team of them, acting in a text task.

    Start states are numbered; each is rolled out once per group, in order, so that no batch repeats another's unless
    the task itself is finite or the sampler names the start states. ``concurrency``: episodes played side by side.
    ``timeout``: seconds an environment may take for one step. ``threads``: calls of environments that are made at once,
    more than 1 only for environments that stand it, as those in workers do.

    Raises :class:`InputError` when a sampler asks for what no language task can do.
    """

    def __init__(
        self,
        task: Task,
        policy: LanguagePolicy | Team,
        engine: Engine,
        seed: int,
        concurrency: int = 256,
        timeout: float = 30.0,
        threads: int = 1,
    ) -> None:
        self.task, self.task_name = task, task.name
        self.policy: LanguagePolicy | Team = policy
        chat, watch = ChatFormat(policy.tokenizer), Watch(timeout, threads)
        self._readers = Readers()
        told = self._played, self._readers.note
        self._stage = Stage(task, engine, chat, watch, seed, concurrency, self._encode, *told)
        self._slots = Slots(task, chat, watch)

    def adapt(self, recipe: Recipe) -> Recipe:
        """Recipes are written for language: nothing to change."""
        return recipe

    def serve(self, version: int) -> None:
        """Copy the policy's weights into the engine."""
        self._stage.engine.load_weights(self.policy, version)

    # ---- collecting ------------------------------------------------------------------------------------------------

    def collect(self, sampler: Sampler, step: int) -> Collected:
        """Groups of episodes by the policy, of the task's own solutions, or of both, as the sampler asks.

        Failed episodes are played again with another seed, up to ``refill_rounds`` times; what then still fails is
        left out and counted. Groups the sampler rejects are replaced by fresh ones in as many rounds. ``Windows`` are
        of episodes that run on across batches; one that fails makes room for another, and metrics of episodes are of
        those that ended.

        ``prefill/tokens``: of what episodes read, computed by the engine.  ``prefill/taken_over``: of it, computed once
        before, for an episode that began alike.  ``decode/steps``: tokens one after the other, if all episodes of a
        batch are played side by side, turn by turn, and each of their tokens takes one step.  ``decode/utilization``:
        share of places in those steps in which a token was sampled.  ``timing/environments``: seconds in which episodes
        waited for their environments, where groups are rolled out.  ``readings/...``: see :class:`Readers`, where parts
        of the recipe read the batch.
        """
        self._readers.begin(sampler)
        return self._readers.read(self._collected(sampler, step))

    def _collected(self, sampler: Sampler, step: int) -> Collected:
        if isinstance(sampler, Demonstrations):
            return demonstrated(self._stage, sampler, step)
        if isinstance(sampler, Windows):
            return self._windowed(sampler)
        if isinstance(sampler, Candidates):
            return tried(self._stage, sampler)
        if isinstance(sampler, Rollouts):
            return rolled_out(self._stage, sampler, step)
        raise InputError(
            f"sampler {sampler.part_name()}: a language task takes rollouts, windows, candidates or demonstrations"
        )

    def _windowed(self, sampler: Windows) -> Collected:
        clock = time.perf_counter()
        stage = self._stage
        numbers = stage.take(self._slots.make_room(sampler.prompts_per_step))
        fresh = [stage.episode(index, index, 0) for index in numbers]
        window = self._slots.advance(fresh, stage.engine, stage.params(sampler.temperature), sampler.tokens)
        metrics = episode_metrics(window.ended, self.task.reward_names)
        metrics |= decode_metrics(window.tokens, window.steps, sampler.prompts_per_step)
        metrics["episodes/running"] = float(len(window.running))
        if window.x is not None and window.tokens:
            assert window.x.behavior_logp is not None and window.x.mask is not None
            metrics["entropy"] = -float(window.x.behavior_logp[window.x.mask].mean())
        metrics["timing/tokens_per_second"] = window.tokens / max(time.perf_counter() - clock, 1e-9)
        samples = [episode.transcript() for episode in [*window.ended, *window.running]]
        return Collected(window.x, window.tokens, metrics, samples)

    def _encode(self, text: str) -> list[int]:
        tokens: list[int] = self.policy.tokenizer(text, add_special_tokens=False)["input_ids"]
        return tokens

    def _played(self, split: Split, episodes: Sequence[Episode]) -> None:
        """Told of all episodes that were played from a start."""

    # ---- evaluating ------------------------------------------------------------------------------------------------

    def evaluate(self, episodes: int, mode: Literal["sampled", "greedy"], first: int = 0) -> Evaluation:
        """``episodes`` held-out start states from number ``first`` on, once each, at temperature 1 or greedily.

        A reward or preference model is not played: it judges what candidates there are
        (:func:`stratagem.language.compared.compared`).
        """
        if isinstance(self.policy, LanguagePolicy) and self.policy.answer_head is not None:
            return compared(self._stage, self.policy, episodes, mode, first)
        numbers = range(first, first + episodes)
        played = [Episode(index, 0, derive(self._stage.seed, "evaluate", index)) for index in numbers]
        self._stage.play("test", played, self._stage.params(1.0, greedy=mode == "greedy"))
        good = [episode for episode in played if episode.failure is None]
        return evaluation(
            mode,
            [episode.reward for episode in good],
            [len(episode.turns) for episode in good],
            [episode.success for episode in good],
            failed=len(played) - len(good),
            samples=[episode.transcript() for episode in good[:3]],
        )

    def tries(self, prompts: int, samples: int, first: int = 0) -> list[tuple[int, int]]:
        """``samples`` episodes from each of ``prompts`` held-out start states, from number ``first`` on, sampled.

        Of each: how many did not fail, and how many of those succeeded. At temperature 1, the same ones each time.
        """
        played = [
            Episode(index, number, derive(self._stage.seed, "tries", index, number))
            for index in range(first, first + prompts)
            for number in range(samples)
        ]
        self._stage.play("test", played, self._stage.params(1.0))
        of_prompt = (played[place : place + samples] for place in range(0, len(played), samples))
        good = [[episode for episode in group if episode.failure is None] for group in of_prompt]
        return [(len(group), sum(episode.success for episode in group)) for group in good]

    def recalled(self, indices: Sequence[int], share: float = 0.6) -> float | None:
        """Share of training prompts whose rest the served model writes word for word from their first tokens, greedily.

        The prompt stands alone, without chat format, as a text seen in pretraining would. Prompts that cannot be
        opened or have a single token are left out; None when all are.

        indices: of the start states.  share: of its tokens that is shown, in (0, 1). Papers show 0.4 to 0.8 (arXiv
        2507.10532).
        """
        openings = self._stage.watch.run([partial(first_observation, self.task, "train", index) for index in indices])
        prompts = [self._encode(opening.value.text) for opening in openings if opening.value is not None]
        prompts = [prompt for prompt in prompts if len(prompt) > 1]
        matches = 0
        for some in self._stage.side_by_side(prompts):
            matches += self._continued(some, share)
        return matches / len(prompts) if prompts else None

    def _continued(self, prompts: Sequence[list[int]], share: float) -> int:
        """How many of these prompts the model continues as they go on."""
        begin = self.policy.tokenizer.bos_token_id
        shown = [max(1, int(share * len(prompt))) for prompt in prompts]
        sessions = self._stage.engine.open(len(prompts))
        try:
            completions = self._stage.engine.generate(
                [
                    Request(
                        session,
                        [*([] if begin is None else [begin]), *prompt[:cut]],
                        0,
                        SamplingParams(len(prompt) - cut, greedy=True),
                    )
                    for session, prompt, cut in zip(sessions, prompts, shown, strict=True)
                ]
            )
        finally:
            self._stage.engine.close(sessions)
        rests = [
            self.policy.tokenizer.decode(prompt[cut:], skip_special_tokens=True)
            for prompt, cut in zip(prompts, shown, strict=True)
        ]
        return sum(completion.text == rest for completion, rest in zip(completions, rests, strict=True))

    # ---- state -----------------------------------------------------------------------------------------------------

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The number of the next start state, how often an episode was forked, and the episodes under way."""
        stage = self._stage
        return {}, {"next_index": stage.next_index, "forks": stage.forks, "windows": self._slots.state_dict()}

    def load_state_dict(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Continue with the next start state, and with the episodes under way."""
        self._stage.next_index, self._stage.forks = int(plain["next_index"]), int(plain["forks"])
        self._slots.load_state_dict(plain["windows"])

    def keep(self, journal: Journal) -> None:
        """Enter training episodes that end, as far as they were played from their start, and take those that are there.

        Branches, trees and windows are played again.
        """
        self._stage.journal = journal

    def read_by(self, readers: Sequence[ReadsText]) -> None:
        """From now on let these parts of the recipe read what is collected."""
        self._readers.name(readers)

    def interrupt(self) -> None:
        """Give up what is being played after the present turn."""
        self._stage.interrupted = True

    def close(self) -> None:
        """Give up the episodes under way and let the environments' worker end."""
        self._slots.close()
        self._stage.watch.close()
