"""Groups of episodes as a sampler asks for them: from the start, from the middle, as trees, once more."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, compress

import torch

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.language.engine import TreeEngine
from stratagem.language.episodes import Episode
from stratagem.language.forks import Fork, branches, grown
from stratagem.language.journaled import Diary
from stratagem.language.measured import decode_metrics, decode_steps, episode_metrics
from stratagem.language.online import play_trees
from stratagem.language.perturbed import play_perturbed
from stratagem.language.rollout import play_on
from stratagem.language.sampling import SamplingParams
from stratagem.language.solved import with_demonstrations
from stratagem.language.stage import Stage, lost, most_samples, numbers
from stratagem.language.wording import planning_metrics, strategy_entropy
from stratagem.sampling import (
    Branching,
    Guided,
    Improving,
    OnlineTree,
    Planned,
    Regrouped,
    Resampled,
    Rollouts,
    kept_groups,
    regrouped,
)
from stratagem.sampling.branching import as_branches
from stratagem.sampling.growth import Growth, figures
from stratagem.sampling.resampling import failed_groups
from stratagem.seeding import derive
from stratagem.training.world import Collected

_CAN = (
    *("cuts", "similar_states", "similar_answers", "phrases"),
    *("curricula", "tempering", "middles", "guidance", "perturbation", "attempts"),
)
"""What a sampler may ask of a language policy (:meth:`stratagem.sampling.Rollouts.check_asked`)."""


def check(stage: Stage, sampler: Rollouts) -> None:
    """Raise :class:`InputError` when the sampler asks for what no language policy, or this engine or task, can do."""
    can = (*_CAN, "online") if isinstance(stage.engine, TreeEngine) else _CAN
    sampler.check_asked("a language policy", *can)
    if isinstance(sampler, Guided) and "guided" not in stage.task.reward_names:
        raise InputError(
            f"sampler {sampler.part_name()}: task {stage.task.name} has no guided problems; train on "
            f"guided:{stage.task.name}"
        )
    if isinstance(sampler, Improving) and sampler.share:
        _check_attempts(stage, sampler)


def rolled_out(stage: Stage, sampler: Rollouts, step: int) -> Collected:
    """A batch of groups; what :meth:`LanguageWorld.collect` says holds of it."""
    check(stage, sampler)
    with stage.engine.keeping(stage.concurrency if isinstance(sampler, Branching) else 0):
        return _rolled_out(stage, sampler, step)


def _rolled_out(stage: Stage, sampler: Rollouts, step: int) -> Collected:
    clock, prefilled, taken_over = time.perf_counter(), stage.engine.prefilled, stage.engine.taken_over
    watched = stage.watch.seconds
    params = stage.params(sampler.temperature, sampler.top_p, sampler.top_k, tempering=sampler.tempering)
    diary = stage.diary(step)
    played: list[Episode] = []
    leading: list[Episode] = []
    usable: list[list[list[Episode]]] = []

    trees: list[Growth] = []

    def roll(groups: int, attempt: int) -> Experience | None:
        planned, taken_over = stage.planned(groups, sampler, step, attempt), dict[int, int]()
        if isinstance(sampler, OnlineTree):
            fresh, taken_over, growths = _grow_groups(stage, planned, sampler, params)
            trees.extend(growths)
        else:
            fresh = _play_groups(stage, planned, sampler, params, diary)
        leading.extend(group[0] for group in fresh)
        played.extend(episode for group in fresh for episode in group)
        good = [[e for e in group if e.failure is None] for group in fresh]
        good = [group for group in good if group]
        if not good:
            return None
        usable.append(good)
        x = stage.packed(good, sampler)
        if not isinstance(sampler, OnlineTree):
            return x
        return as_branches(x, torch.tensor([taken_over[id(e)] for group in good for e in group]), 0)

    kept = kept_groups(sampler, roll, step)
    batch = kept.x
    metrics = episode_metrics(played, stage.task.reward_names) | kept.metrics
    if batch is not None and batch.behavior_logp is not None and batch.tokens:
        metrics["entropy"] = -float(batch.behavior_logp.mean())
        metrics |= planning_metrics(batch)
    good = [
        *chain.from_iterable(
            compress(groups, keep.tolist()) for groups, (_, keep) in zip(usable, kept.rounds, strict=True)
        )
    ]
    if sampler.phrases is not None:
        metrics["strategies/entropy"] = strategy_entropy(good, sampler.phrases, stage.chat.said)
    tokens = sum(growth.tokens for growth in trees) if trees else sum(episode.length for episode in played)
    metrics |= figures(trees)
    begun, failed = numbers(played), numbers(lost(played))
    if batch is not None and isinstance(sampler, Branching):
        branched = _branched(stage, batch, good, sampler, params)
        batch, tokens = branched.x, tokens + branched.tokens
        metrics |= branched.metrics
        begun, failed = [*begun, *(branched.begun or ())], [*failed, *branched.failed]
    if batch is not None and isinstance(sampler, Resampled):
        again = _resampled(stage, batch, [group[0] for group in good], sampler, params)
        batch, tokens = again.x, tokens + again.tokens
        metrics |= again.metrics
        begun, failed = [*begun, *(again.begun or ())], [*failed, *again.failed]
    if batch is not None and sampler.demonstrations:
        batch = with_demonstrations(stage, batch, [group[0] for group in good], sampler)
        demonstrated = torch.zeros(batch.trajectories).bool() if batch.demonstrated is None else batch.demonstrated
        shown = int(demonstrated.sum()) // sampler.demonstrations
        metrics["groups/without_demonstration"] = metrics["groups/kept"] - shown
        assert batch.episode is not None
        begun += batch.episode[demonstrated].tolist()
    metrics |= decode_metrics(sum(e.length for e in played), decode_steps(played), len(played))
    metrics["prefill/tokens"] = float(stage.engine.prefilled - prefilled)
    metrics["prefill/taken_over"] = float(stage.engine.taken_over - taken_over)
    metrics["timing/environments"] = stage.watch.seconds - watched
    metrics["timing/tokens_per_second"] = tokens / max(time.perf_counter() - clock, 1e-9)
    return Collected(batch, tokens, metrics, [episode.transcript() for episode in leading], begun, failed)


def _branched(
    stage: Stage, roots: Experience, episodes: Sequence[Sequence[Episode]], sampler: Branching, params: SamplingParams
) -> Collected:
    """Groups and the branches off them, as the sampler asks; tokens are those of the branches alone."""

    played: list[Episode] = []

    def go_on(forks: Sequence[Fork], fresh: Sequence[Episode]) -> None:
        played.extend(fresh)
        for some in stage.side_by_side([*zip(forks, fresh, strict=True)]):
            places, episodes = zip(*some, strict=True)
            live = branches(stage.task, "train", places, episodes, stage.chat, stage.watch, sampler.branch_turns)
            play_on(live, stage.engine, stage.chat, params, stage.watch)

    def pack(groups: Sequence[Sequence[Episode]]) -> Experience:
        return stage.packed(groups, sampler)

    tree = grown(roots, [*chain.from_iterable(episodes)], sampler, go_on, pack, stage.forks)
    stage.forks += tree.forks
    metrics = tree.metrics | sampler.at.figures(tree.x)
    return Collected(tree.x, tree.tokens, metrics, begun=numbers(played), failed=numbers(lost(played)))


def _resampled(
    stage: Stage, x: Experience, groups: Sequence[Episode], sampler: Resampled, params: SamplingParams
) -> Collected:
    """``x``, and its failed groups sampled once more, of each of which one episode is given."""
    failed, clean = torch.nonzero(failed_groups(x)).squeeze(1).tolist(), most_samples(sampler) - sampler.resamples
    fresh: dict[int, list[Episode]] = {}
    nonsense: list[str] = []
    for number in failed:
        index, group = groups[number].index, groups[number].group
        assert group is not None
        seeds = [derive(stage.seed, "resampled", group, extra) for extra in range(sampler.resamples)]
        fresh[number] = [Episode(index, clean + n, seed, group=group) for n, seed in enumerate(seeds)]
        alike = seeds[:1] * len(seeds) if sampler.each == "group" else seeds
        nonsense += [sampler.nonsense(derive(seed, "nonsense")) for seed in alike]
    played = [*chain.from_iterable(fresh.values())]
    for some in stage.side_by_side([*zip(played, nonsense, strict=True)]):
        episodes, texts = zip(*some, strict=True)
        play_perturbed(
            stage.task,
            "train",
            episodes,
            texts,
            sampler.before,
            sampler.longest,
            stage.engine,
            stage.chat,
            params,
            stage.watch,
        )
    good = {n: kept for n, group in fresh.items() if (kept := [e for e in group if e.failure is None])}
    again = Regrouped(x, len(failed))
    if good:
        packed = stage.packed([*good.values()], sampler)
        again = regrouped(x, packed, torch.tensor([*good]))
    unusable = {"resampled/failed": float(len(played) - sum(map(len, good.values())))}
    tokens = sum(episode.length for episode in played)
    return Collected(again.x, tokens, again.metrics | unusable, begun=numbers(played), failed=numbers(lost(played)))


def _play_groups(
    stage: Stage, planned: Mapping[int, Planned], sampler: Rollouts, params: SamplingParams, diary: Diary | None
) -> list[list[Episode]]:
    """Fresh groups, failed episodes replaced while rounds last; a replaced failure stays counted in its group."""
    fresh = _from_histories(stage, sampler) if isinstance(sampler, Improving) else stage.episode
    groups = {
        number: [fresh(start, number, sample) for sample in range(size)] for number, (start, size) in planned.items()
    }
    stage.play("train", [episode for group in groups.values() for episode in group], params, diary)
    for _ in range(sampler.refill_rounds):
        again = [
            (number, fresh(planned[number].start, number, len(group) + extra))
            for number, group in groups.items()
            for extra in range(planned[number].size - sum(e.failure is None for e in group))
        ]
        if not again:
            break
        stage.play("train", [episode for _, episode in again], params, diary)
        for number, episode in again:
            groups[number].append(episode)
    return list(groups.values())


def _check_attempts(stage: Stage, sampler: Improving) -> None:
    """Raise :class:`InputError` for a task whose attempts cannot be gone on from."""
    try:
        stage.task.after("train", 0, ()).close()
    except NotImplementedError as error:
        raise InputError(f"sampler {sampler.part_name()}: {error}; train on improve:{stage.task.name}") from None


def _from_histories(stage: Stage, sampler: Improving) -> Callable[[int, int, int], Episode]:
    """Makes episodes of what the sampler planned, some of which begin behind earlier attempts."""
    begun = {start: (one.problem, tuple(map(stage.chat.said, one.attempts))) for start, one in sampler.begun().items()}

    def fresh(start: int, group: int, sample: int) -> Episode:
        problem, earlier = begun.get(start, (start, ()))
        return dataclasses.replace(stage.episode(problem, group, sample), start=start, earlier=earlier)

    return fresh


def _grow_groups(
    stage: Stage, planned: Mapping[int, Planned], sampler: OnlineTree, params: SamplingParams
) -> tuple[list[list[Episode]], dict[int, int], list[Growth]]:
    """Groups of what is left of trees, tokens that each episode (by ``id``) took over, and how the trees grew.

    As many trees side by side as fit in ``concurrency``, and at least one. Episodes that failed are among them.
    """
    assert isinstance(stage.engine, TreeEngine)
    groups: list[list[Episode]] = []
    taken_over: dict[int, int] = {}
    growths = []
    waiting = list(planned.items())
    while waiting:
        fits = [sum(plan.size for _, plan in waiting[: end + 1]) <= stage.concurrency for end in range(len(waiting))]
        now, waiting = waiting[: max(sum(fits), 1)], waiting[max(sum(fits), 1) :]
        growth = Growth(sampler, [plan.size for _, plan in now], stage.engine.vocabulary)
        growths.append(growth)
        roots = [
            stage.episode(plan.start, number, sample)
            for number, plan in now
            for sample in range(min(plan.size, sampler.roots))
        ]
        left = play_trees(stage.task, "train", roots, growth, stage.engine, stage.chat, params, stage.watch)
        taken_over |= {id(episode): held for episode, held in left}
        for number, _ in now:
            groups.append([episode for episode, _ in left if episode.group == number])
            for sample, episode in enumerate(groups[-1]):
                episode.sample = sample
    return groups, taken_over, growths
