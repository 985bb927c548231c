"""The world of a language policy: a task, an engine that acts, and the batches and evaluations that come of it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain, compress
from typing import Any, Literal

import torch
from torch import Tensor

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.language.chat import ChatFormat
from stratagem.language.engine import Engine, Request, TreeEngine
from stratagem.language.episodes import Episode, Turn, step_fault, to_experience
from stratagem.language.forks import Fork, branches, grown
from stratagem.language.online import play_trees
from stratagem.language.perturbed import play_perturbed
from stratagem.language.plans import plan_reader
from stratagem.language.policy import LanguagePolicy
from stratagem.language.rollout import enter_answer, first_observation, play, play_on, reading, reset
from stratagem.language.sampling import SamplingParams
from stratagem.language.team import Team
from stratagem.language.watched import Watch
from stratagem.language.windows import Slots
from stratagem.language.wording import planning_metrics, strategy_entropy, worded
from stratagem.parts import Sampler, Tempering
from stratagem.recipe import Recipe
from stratagem.sampling import (
    Branching,
    Candidates,
    Demonstrations,
    Guided,
    Improving,
    OnlineTree,
    Planned,
    Regrouped,
    Resampled,
    Rollouts,
    Windows,
    kept_groups,
    regrouped,
)
from stratagem.sampling.branching import as_branches
from stratagem.sampling.growth import Growth, figures
from stratagem.sampling.guided import guided_metrics
from stratagem.sampling.resampling import failed_groups
from stratagem.seeding import derive, generator
from stratagem.tasks.mixture import domain_of, owner
from stratagem.tasks.task import Split, Task
from stratagem.training.statistics import evaluation
from stratagem.training.world import Collected, Evaluation

HELD_OUT = 2**20
"""Held-out start states from this number on are validated on; evaluation counts from 0."""

_CAN = (
    *("cuts", "similar_states", "similar_answers", "phrases"),
    *("curricula", "tempering", "middles", "guidance", "perturbation", "attempts"),
)
"""What a sampler may ask of a language policy (:meth:`stratagem.sampling.Rollouts.check_asked`)."""


class LanguageWorld:
    """A language policy, or a team of them, acting in a text task.

    Start states are numbered; each is rolled out once per group, in order, so that no batch repeats another's unless
    the task itself is finite or the sampler names the start states. ``concurrency``: episodes played side by side.
    ``timeout``: seconds an environment may take for one step.

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
    ) -> None:
        self.task, self.task_name = task, task.name
        self.policy: LanguagePolicy | Team = policy
        self._engine, self._seed, self._concurrency = engine, seed, concurrency
        self._chat = ChatFormat(policy.tokenizer)
        self._plans = plan_reader(task, self._chat.said)
        self._watch = Watch(timeout)
        self._next_index = 0
        self._openings: dict[int, str] = {}
        self._forks = 0
        self._slots = Slots(task, self._chat, self._watch)

    def adapt(self, recipe: Recipe) -> Recipe:
        """Recipes are written for language: nothing to change."""
        return recipe

    def serve(self, version: int) -> None:
        """Copy the policy's weights into the engine."""
        self._engine.load_weights(self.policy, version)

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
        share of places in those steps in which a token was sampled.
        """
        if isinstance(sampler, Demonstrations):
            return self._demonstrate(sampler, step)
        if isinstance(sampler, Windows):
            return self._windowed(sampler)
        if isinstance(sampler, Candidates):
            return self._tried(sampler)
        if not isinstance(sampler, Rollouts):
            raise InputError(
                f"sampler {sampler.part_name()}: a language task takes rollouts, windows, candidates or demonstrations"
            )
        can = (*_CAN, "online") if isinstance(self._engine, TreeEngine) else _CAN
        sampler.check_asked("a language policy", *can)
        if isinstance(sampler, Guided) and "guided" not in self.task.reward_names:
            raise InputError(
                f"sampler {sampler.part_name()}: task {self.task.name} has no guided problems; train on "
                f"guided:{self.task.name}"
            )
        if isinstance(sampler, Improving) and sampler.share:
            self._check_attempts(sampler)
        with self._engine.keeping(self._concurrency if isinstance(sampler, Branching) else 0):
            return self._rolled_out(sampler, step)

    def _rolled_out(self, sampler: Rollouts, step: int) -> Collected:
        clock, prefilled, taken_over = time.perf_counter(), self._engine.prefilled, self._engine.taken_over
        params = self._params(sampler.temperature, sampler.top_p, sampler.top_k, tempering=sampler.tempering)
        played: list[Episode] = []
        leading: list[Episode] = []
        usable: list[list[list[Episode]]] = []

        trees: list[Growth] = []

        def roll(groups: int, attempt: int) -> Experience | None:
            planned, taken_over = self._planned(groups, sampler, step, attempt), dict[int, int]()
            if isinstance(sampler, OnlineTree):
                fresh, taken_over, growths = self._grow_groups(planned, sampler, params)
                trees.extend(growths)
            else:
                fresh = self._play_groups(planned, sampler, params)
            leading.extend(group[0] for group in fresh)
            played.extend(episode for group in fresh for episode in group)
            good = [[e for e in group if e.failure is None] for group in fresh]
            good = [group for group in good if group]
            if not good:
                return None
            usable.append(good)
            x = self._packed(good, _most_samples(sampler), sampler)
            if not isinstance(sampler, OnlineTree):
                return x
            return as_branches(x, torch.tensor([taken_over[id(e)] for group in good for e in group]), 0)

        kept = kept_groups(sampler, roll, step)
        batch = kept.x
        metrics = _episode_metrics(played, self.task.reward_names) | kept.metrics
        if batch is not None and batch.behavior_logp is not None and batch.tokens:
            metrics["entropy"] = -float(batch.behavior_logp.mean())
            metrics |= planning_metrics(batch)
        good = [
            *chain.from_iterable(
                compress(groups, keep.tolist()) for groups, (_, keep) in zip(usable, kept.rounds, strict=True)
            )
        ]
        if sampler.phrases is not None:
            metrics["strategies/entropy"] = strategy_entropy(good, sampler.phrases, self._chat.said)
        tokens = sum(growth.tokens for growth in trees) if trees else sum(episode.length for episode in played)
        metrics |= figures(trees)
        if batch is not None and isinstance(sampler, Branching):
            branched = self._branched(batch, good, sampler, params)
            batch, tokens = branched.x, tokens + branched.tokens
            metrics |= branched.metrics
        if batch is not None and isinstance(sampler, Resampled):
            again = self._resampled(batch, [group[0] for group in good], sampler, params)
            batch, tokens = again.x, tokens + again.tokens
            metrics |= again.metrics
        if batch is not None and sampler.demonstrations:
            batch = self._with_demonstrations(batch, [group[0] for group in good], sampler)
            shown = 0 if batch.demonstrated is None else int(batch.demonstrated.sum()) // sampler.demonstrations
            metrics["groups/without_demonstration"] = metrics["groups/kept"] - shown
        metrics |= _decode_metrics(sum(e.length for e in played), _decode_steps(played), len(played))
        metrics["prefill/tokens"] = float(self._engine.prefilled - prefilled)
        metrics["prefill/taken_over"] = float(self._engine.taken_over - taken_over)
        metrics["timing/tokens_per_second"] = tokens / max(time.perf_counter() - clock, 1e-9)
        return Collected(batch, tokens, metrics, [episode.transcript() for episode in leading])

    def _branched(
        self, roots: Experience, episodes: Sequence[Sequence[Episode]], sampler: Branching, params: SamplingParams
    ) -> Collected:
        """Groups and the branches off them, as the sampler asks; tokens are those of the branches alone."""

        def go_on(forks: Sequence[Fork], fresh: Sequence[Episode]) -> None:
            for start in range(0, len(fresh), self._concurrency):
                some = slice(start, start + self._concurrency)
                turns = sampler.branch_turns
                live = branches(self.task, "train", forks[some], fresh[some], self._chat, self._watch, turns)
                play_on(live, self._engine, self._chat, params, self._watch)

        def pack(groups: Sequence[Sequence[Episode]]) -> Experience:
            return self._packed(groups, _most_samples(sampler), sampler)

        tree = grown(roots, [*chain.from_iterable(episodes)], sampler, go_on, pack, self._forks)
        self._forks += tree.forks
        return Collected(tree.x, tree.tokens, tree.metrics | sampler.at.figures(tree.x))

    def _resampled(
        self, x: Experience, groups: Sequence[Episode], sampler: Resampled, params: SamplingParams
    ) -> Collected:
        """``x``, and its failed groups sampled once more, of each of which one episode is given."""
        failed, clean = torch.nonzero(failed_groups(x)).squeeze(1).tolist(), _most_samples(sampler) - sampler.resamples
        fresh: dict[int, list[Episode]] = {}
        nonsense: list[str] = []
        for number in failed:
            index, group = groups[number].index, groups[number].group
            assert group is not None
            seeds = [derive(self._seed, "resampled", group, extra) for extra in range(sampler.resamples)]
            fresh[number] = [Episode(index, clean + n, seed, group=group) for n, seed in enumerate(seeds)]
            alike = seeds[:1] * len(seeds) if sampler.each == "group" else seeds
            nonsense += [sampler.nonsense(derive(seed, "nonsense")) for seed in alike]
        played = [*chain.from_iterable(fresh.values())]
        for begin in range(0, len(played), self._concurrency):
            some = slice(begin, begin + self._concurrency)
            play_perturbed(
                self.task,
                "train",
                played[some],
                nonsense[some],
                sampler.before,
                sampler.longest,
                self._engine,
                self._chat,
                params,
                self._watch,
            )
        good = {n: kept for n, group in fresh.items() if (kept := [e for e in group if e.failure is None])}
        again = Regrouped(x, len(failed))
        if good:
            packed = self._packed([*good.values()], _most_samples(sampler), sampler)
            again = regrouped(x, packed, torch.tensor([*good]))
        lost = {"resampled/failed": float(len(played) - sum(map(len, good.values())))}
        return Collected(again.x, sum(episode.length for episode in played), again.metrics | lost)

    def _tried(self, sampler: Candidates) -> Collected:
        """Every candidate of each start state, as the task writes it; those that fail are counted and left out."""
        indices = range(self._next_index, self._next_index + sampler.prompts_per_step)
        self._next_index += sampler.prompts_per_step
        groups = [self._try_all(index, sampler) for index in indices]
        episodes = [episode for group in groups for episode in group]
        good = [[episode for episode in group if episode.failure is None] for group in groups]
        good = [group for group in good if group]
        metrics = _episode_metrics(episodes, self.task.reward_names)
        batch = None
        if good:
            batch = self._packed(good, max(map(len, groups)))
            keep = sampler.keep(batch)
            batch = batch.select(batch.group_of_trajectory.spread(keep))
        kept = 0 if batch is None else batch.groups
        metrics |= {"groups/kept": float(kept), "groups/rejected": float(len(groups) - kept)}
        tokens = sum(episode.length for episode in episodes)
        return Collected(batch, tokens, metrics, [group[0].transcript() for group in groups if group])

    def _try_all(self, index: int, sampler: Candidates) -> list[Episode]:
        try:
            candidates = self.task.candidates("train", index)
        except NotImplementedError as error:
            raise InputError(f"sampler {sampler.part_name()}: {error}") from None
        played = []
        for number, actions in enumerate(candidates):
            if number not in sampler.without:
                episode = demonstrate(self.task, "train", index, self._chat, self._encode, actions)
                played.append(dataclasses.replace(episode, sample=number, group=index))
        return played

    def _windowed(self, sampler: Windows) -> Collected:
        clock = time.perf_counter()
        count = self._slots.make_room(sampler.prompts_per_step)
        fresh = [self._episode(index, index, 0) for index in range(self._next_index, self._next_index + count)]
        self._next_index += count
        window = self._slots.advance(fresh, self._engine, self._params(sampler.temperature), sampler.tokens)
        metrics = _episode_metrics(window.ended, self.task.reward_names)
        metrics |= _decode_metrics(window.tokens, window.steps, sampler.prompts_per_step)
        metrics["episodes/running"] = float(len(window.running))
        if window.x is not None and window.tokens:
            assert window.x.behavior_logp is not None and window.x.mask is not None
            metrics["entropy"] = -float(window.x.behavior_logp[window.x.mask].mean())
        metrics["timing/tokens_per_second"] = window.tokens / max(time.perf_counter() - clock, 1e-9)
        samples = [episode.transcript() for episode in [*window.ended, *window.running]]
        return Collected(window.x, window.tokens, metrics, samples)

    def _planned(self, count: int, sampler: Rollouts, step: int, attempt: int) -> dict[int, Planned]:
        """The next groups, by their running numbers."""
        numbers = range(self._next_index, self._next_index + count)
        self._next_index += count
        source = partial(generator, self._seed, "curriculum", step, attempt)
        planned = sampler.planned(numbers, source, step, self.task.start_states("train"), self._read)
        return dict(zip(numbers, planned, strict=True))

    def _read(self, indices: Sequence[int]) -> list[str]:
        """What start states show first, as text."""
        for index in indices:
            if index not in self._openings:
                self._openings[index] = first_observation(self.task, "train", index).text
        return [self._openings[index] for index in indices]

    def _play_groups(
        self, planned: Mapping[int, Planned], sampler: Rollouts, params: SamplingParams
    ) -> list[list[Episode]]:
        """Fresh groups, failed episodes replaced while rounds last; a replaced failure stays counted in its group."""
        fresh = self._from_histories(sampler) if isinstance(sampler, Improving) else self._episode
        groups = {
            number: [fresh(start, number, sample) for sample in range(size)]
            for number, (start, size) in planned.items()
        }
        self._play("train", [episode for group in groups.values() for episode in group], params)
        for _ in range(sampler.refill_rounds):
            again = [
                (number, fresh(planned[number].start, number, len(group) + extra))
                for number, group in groups.items()
                for extra in range(planned[number].size - sum(e.failure is None for e in group))
            ]
            if not again:
                break
            self._play("train", [episode for _, episode in again], params)
            for number, episode in again:
                groups[number].append(episode)
        return list(groups.values())

    def _check_attempts(self, sampler: Improving) -> None:
        """Raise :class:`InputError` for a task whose attempts cannot be gone on from."""
        try:
            self.task.after("train", 0, ()).close()
        except NotImplementedError as error:
            raise InputError(f"sampler {sampler.part_name()}: {error}; train on improve:{self.task.name}") from None

    def _from_histories(self, sampler: Improving) -> Callable[[int, int, int], Episode]:
        """Makes episodes of what the sampler planned, some of which begin behind earlier attempts."""
        begun = {
            start: (one.problem, tuple(map(self._chat.said, one.attempts))) for start, one in sampler.begun().items()
        }

        def fresh(start: int, group: int, sample: int) -> Episode:
            problem, earlier = begun.get(start, (start, ()))
            return dataclasses.replace(self._episode(problem, group, sample), start=start, earlier=earlier)

        return fresh

    def _grow_groups(
        self, planned: Mapping[int, Planned], sampler: OnlineTree, params: SamplingParams
    ) -> tuple[list[list[Episode]], dict[int, int], list[Growth]]:
        """Groups of what is left of trees, tokens that each episode (by ``id``) took over, and how the trees grew.

        As many trees side by side as fit in ``concurrency``, and at least one. Episodes that failed are among them.
        """
        assert isinstance(self._engine, TreeEngine)
        groups: list[list[Episode]] = []
        taken_over: dict[int, int] = {}
        growths = []
        waiting = list(planned.items())
        while waiting:
            fits = [
                sum(plan.size for _, plan in waiting[: end + 1]) <= self._concurrency for end in range(len(waiting))
            ]
            now, waiting = waiting[: max(sum(fits), 1)], waiting[max(sum(fits), 1) :]
            growth = Growth(sampler, [plan.size for _, plan in now], self._engine.vocabulary)
            growths.append(growth)
            roots = [
                self._episode(plan.start, number, sample)
                for number, plan in now
                for sample in range(min(plan.size, sampler.roots))
            ]
            left = play_trees(self.task, "train", roots, growth, self._engine, self._chat, params, self._watch)
            taken_over |= {id(episode): held for episode, held in left}
            for number, _ in now:
                groups.append([episode for episode, _ in left if episode.group == number])
                for sample, episode in enumerate(groups[-1]):
                    episode.sample = sample
        return groups, taken_over, growths

    def _episode(self, start: int, group: int, sample: int) -> Episode:
        return Episode(start, sample, derive(self._seed, "episode", group, sample), group=group)

    def _play(self, split: Split, episodes: Sequence[Episode], params: SamplingParams) -> None:
        for start in range(0, len(episodes), self._concurrency):
            chunk = episodes[start : start + self._concurrency]
            play(self.task, split, chunk, self._engine, self._chat, params, self._watch)

    def _params(
        self,
        temperature: float,
        top_p: float = 1.0,
        top_k: int = 0,
        greedy: bool = False,
        tempering: Tempering | None = None,
    ) -> SamplingParams:
        return SamplingParams(
            max_new_tokens=self.task.max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            stop=self.task.stop,
            stop_token_ids=self._chat.end_token_ids,
            greedy=greedy,
            tempering=tempering,
        )

    def _packed(
        self, groups: Sequence[Sequence[Episode]], most_samples: int, sampler: Rollouts | None = None
    ) -> Experience:
        x = to_experience(
            groups,
            self.task.reward_names,
            most_samples,
            self.task.reward_weights,
            similar_states=None if sampler is None else sampler.similar_states,
            plans=self._plans,
            domain=partial(domain_of, self.task),
        )
        return x if sampler is None else worded(x, groups, sampler, self.task, self._chat.said)

    # ---- demonstrations --------------------------------------------------------------------------------------------

    def _demonstrate(self, sampler: Demonstrations, step: int) -> Collected:
        split: Split = "train"
        first = self._next_index
        if sampler.held_out:
            split, first = "test", HELD_OUT + step * sampler.prompts_per_step
        else:
            self._next_index += sampler.prompts_per_step
        indices = range(first, first + sampler.prompts_per_step)
        episodes = [demonstrate(self.task, split, index, self._chat, self._encode) for index in indices]
        good = [[episode] for episode in episodes if episode.failure is None]
        batch = self._packed(good, 1) if good else None
        metrics = _episode_metrics(episodes, self.task.reward_names)
        tokens = sum(episode.length for episode in episodes)
        return Collected(batch, tokens, metrics, [episode.transcript() for episode in episodes])

    def _with_demonstrations(self, x: Experience, groups: Sequence[Episode], sampler: Rollouts) -> Experience:
        """``x`` with the solver's episodes from the start of each group, of which one episode is given.

        A group whose solver fails gets none.
        """
        most = _most_samples(sampler)
        shown: list[Episode] = []
        numbers: list[int] = []
        for number, episode in enumerate(groups):
            solved = demonstrate(self.task, "train", episode.index, self._chat, self._encode)
            for copy in range(sampler.demonstrations if solved.failure is None else 0):
                sample = most - sampler.demonstrations + copy
                seed = derive(self._seed, "demonstration", episode.group or 0, copy)
                shown.append(dataclasses.replace(solved, sample=sample, seed=seed, group=episode.group))
                numbers.append(number)
        if not shown:
            return x
        demonstrations = self._packed([[episode] for episode in shown], most, sampler)
        demonstrations = demonstrations.replace(
            behavior_logp=torch.zeros(demonstrations.tokens),
            seed=torch.tensor([episode.seed for episode in shown], dtype=torch.int64),
        )
        return x.with_demonstrations(demonstrations, torch.tensor(numbers))

    def _encode(self, text: str) -> list[int]:
        tokens: list[int] = self.policy.tokenizer(text, add_special_tokens=False)["input_ids"]
        return tokens

    # ---- evaluating ------------------------------------------------------------------------------------------------

    def evaluate(self, episodes: int, mode: Literal["sampled", "greedy"], first: int = 0) -> Evaluation:
        """``episodes`` held-out start states from number ``first`` on, once each, at temperature 1 or greedily."""
        numbers = range(first, first + episodes)
        played = [Episode(index, 0, derive(self._seed, "evaluate", index)) for index in numbers]
        self._play("test", played, self._params(1.0, greedy=mode == "greedy"))
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
            Episode(index, number, derive(self._seed, "tries", index, number))
            for index in range(first, first + prompts)
            for number in range(samples)
        ]
        self._play("test", played, self._params(1.0))
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
        openings = self._watch.run([partial(first_observation, self.task, "train", index) for index in indices])
        prompts = [self._encode(opening.value.text) for opening in openings if opening.value is not None]
        prompts = [prompt for prompt in prompts if len(prompt) > 1]
        matches = 0
        for start in range(0, len(prompts), self._concurrency):
            matches += self._continued(prompts[start : start + self._concurrency], share)
        return matches / len(prompts) if prompts else None

    def _continued(self, prompts: Sequence[list[int]], share: float) -> int:
        """How many of these prompts the model continues as they go on."""
        begin = self.policy.tokenizer.bos_token_id
        shown = [max(1, int(share * len(prompt))) for prompt in prompts]
        sessions = self._engine.open(len(prompts))
        try:
            completions = self._engine.generate(
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
            self._engine.close(sessions)
        rests = [
            self.policy.tokenizer.decode(prompt[cut:], skip_special_tokens=True)
            for prompt, cut in zip(prompts, shown, strict=True)
        ]
        return sum(completion.text == rest for completion, rest in zip(completions, rests, strict=True))

    # ---- state -----------------------------------------------------------------------------------------------------

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The number of the next start state, how often an episode was forked, and the episodes under way."""
        return {}, {"next_index": self._next_index, "forks": self._forks, "windows": self._slots.state_dict()}

    def load_state_dict(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Continue with the next start state, and with the episodes under way."""
        self._next_index, self._forks = int(plain["next_index"]), int(plain["forks"])
        self._slots.load_state_dict(plain["windows"])

    def close(self) -> None:
        """Give up the episodes under way and let the environments' worker end."""
        self._slots.close()
        self._watch.close()


def demonstrate(
    task: Task,
    split: Split,
    index: int,
    chat: ChatFormat,
    encode: Callable[[str], list[int]],
    actions: Iterable[str] | None = None,
) -> Episode:
    """The episode as the task's solver (or whoever gives the texts of ``actions``) plays it, in the policy's format.

    Each action is encoded and ended as the policy would end it. Whatever goes wrong fails the episode.
    """
    episode, owned = Episode(index, 0, 0), owner(task, index)
    try:
        environment = task.environment(split, index)
    except Exception as error:
        episode.failure = f"{type(error).__name__}: {error}"
        return episode
    try:
        observation = reset(environment)
        read = reading(owned, observation, [], chat)
        for text in task.solution(split, index) if actions is None else actions:
            episode.turns.append(Turn(observation, read, [*encode(text), *chat.end_tokens], None, text))
            step = environment.step(text)
            episode.failure = step_fault(step, owned.reward_names, len(episode.turns))
            if episode.failure is not None:
                return episode
            episode.record(step)
            if step.done:
                enter_answer(episode, owned)
                return episode
            if len(episode.turns) >= owned.max_turns:
                break
            observation = step.observation
            read = reading(owned, observation, episode.turns, chat)
        episode.truncated = True
        if not episode.turns:
            episode.failure = "the demonstrator did nothing"
    except Exception as error:
        episode.failure = f"{type(error).__name__}: {error}"
    finally:
        with suppress(Exception):
            environment.close()
    return episode


def _most_samples(sampler: Rollouts) -> int:
    """Episodes a group may have in all, failed ones and demonstrations included."""
    most = sampler.largest_group * (sampler.refill_rounds + 1) + sampler.demonstrations
    if isinstance(sampler, Resampled):
        most += sampler.resamples
    if isinstance(sampler, Branching):
        return max(most, sampler.branches * (sampler.depth if sampler.together else 1))
    return most


def _episode_metrics(episodes: Sequence[Episode], reward_names: Sequence[str]) -> dict[str, float]:
    good = [episode for episode in episodes if episode.failure is None]
    metrics = {"episodes/failed": float(len(episodes) - len(good)), "episodes": float(len(episodes))}
    if good:
        reward = torch.tensor([episode.reward for episode in good])
        lengths = torch.tensor([float(episode.length) for episode in good])
        metrics |= {
            "reward": float(reward.mean()),
            "reward_std": float(reward.std(correction=0)),
            "success": sum(episode.success for episode in good) / len(good),
            "completions/mean_length": float(lengths.mean()),
            "completions/max_length": float(lengths.max()),
            "episodes/mean_turns": sum(len(episode.turns) for episode in good) / len(good),
            "episodes/truncated": sum(episode.truncated for episode in good) / len(good),
        }
        for name in reward_names[1:]:
            metrics[f"reward/{name}"] = sum(episode.components.get(name, 0.0) for episode in good) / len(good)
        if "guided" in reward_names:
            led = torch.tensor([episode.components.get("guided", 0.0) > 0 for episode in good])
            metrics |= guided_metrics(torch.tensor([episode.success for episode in good]), led)
    return metrics


def _decode_steps(episodes: Sequence[Episode]) -> int:
    """Tokens one after the other when all play side by side: of each turn, as many as the longest."""
    most = max((len(episode.turns) for episode in episodes), default=0)
    lengths = [[len(turn.action) for turn in episode.turns] for episode in episodes]
    return sum(max(turns[number] for turns in lengths if len(turns) > number) for number in range(most))


def _decode_metrics(tokens: int, steps: int, episodes: int) -> dict[str, float]:
    return {"decode/steps": float(steps), "decode/utilization": tokens / max(steps * episodes, 1)}
