"""Multi-turn rollouts: a batch of environments and a batched engine, turn by turn, into episodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from stratagem.language.chat import ChatFormat
from stratagem.language.engine import Engine, Request
from stratagem.language.episodes import Episode, Turn, observation_fault, step_fault
from stratagem.language.sampling import SamplingParams
from stratagem.language.watched import Outcome, Watch
from stratagem.seeding import derive
from stratagem.tasks.mixture import owner
from stratagem.tasks.task import Environment, Observation, Split, Step, Task, answer_key


@dataclass
class _Live:
    """An episode being played: its task, its environment, its session, and what the policy reads next."""

    task: Task
    episode: Episode
    environment: Environment
    session: int
    observation: Observation
    unread: list[int]
    hung: bool = False


def play(
    task: Task,
    split: Split,
    episodes: Sequence[Episode],
    engine: Engine,
    chat: ChatFormat,
    params: SamplingParams,
    watch: Watch,
) -> None:
    """Play ``episodes`` (fresh ones) to their end, all side by side, and enter in each what happened.

    An environment that raises, does not answer in time or returns something else than a step or a finite reward fails
    its own episode. The policy's own tokens go to the environment as text and to the learner as they were sampled.
    """
    live = _start(task, split, episodes, engine, chat, watch)
    try:
        while live:
            _act(live, engine, params)
            live = _advance(live, chat, watch, engine)
    finally:
        _finish(live, engine, watch)


def reset(environment: Environment) -> Observation:
    """The first observation. Raises ``TypeError`` when it is none that a policy can read."""
    observation = environment.reset()
    fault = observation_fault(observation)
    if fault is not None:
        raise TypeError(fault)
    return observation


def first_observation(task: Task, split: Split, index: int) -> Observation:
    """What an episode shows before the first turn. Raises whatever its environment does."""
    environment = task.environment(split, index)
    try:
        return reset(environment)
    finally:
        with suppress(Exception):
            environment.close()


def opening(task: Task, observation: Observation, chat: ChatFormat) -> list[int]:
    """Tokens a policy reads before its first turn."""
    system = [] if task.system is None else [{"role": "system", "content": task.system}]
    return chat.opening([*system, {"role": "user", "content": observation.text}])


def _start(
    task: Task, split: Split, episodes: Sequence[Episode], engine: Engine, chat: ChatFormat, watch: Watch
) -> list[_Live]:
    def begin(index: int) -> tuple[Environment, Observation]:
        environment = task.environment(split, index)
        try:
            return environment, reset(environment)
        except BaseException:
            with suppress(Exception):
                environment.close()
            raise

    outcomes = watch.run([partial(begin, episode.index) for episode in episodes])
    started: list[tuple[Episode, Environment, Observation]] = []
    for episode, outcome in zip(episodes, outcomes, strict=True):
        if outcome.value is None:
            episode.failure = f"reset: {outcome.failure}"
        else:
            started.append((episode, *outcome.value))
    sessions = engine.open(len(started))
    live = []
    for (episode, environment, observation), session in zip(started, sessions, strict=True):
        owned = owner(task, episode.index)
        live.append(_Live(owned, episode, environment, session, observation, opening(owned, observation, chat)))
    return live


def _act(live: Sequence[_Live], engine: Engine, params: SamplingParams) -> None:
    """Sample the next turn of every live episode."""
    requests = [
        Request(one.session, one.unread, derive(one.episode.seed, len(one.episode.turns)), params) for one in live
    ]
    for one, completion in zip(live, engine.generate(requests), strict=True):
        if not completion.tokens:
            # The context is full: the policy could not act. The episode ends with the turns it has.
            one.episode.truncated = True
            if not one.episode.turns:
                one.episode.failure = "the first observation fills the model's context"
            continue
        one.episode.turns.append(
            Turn(one.observation, one.unread, completion.tokens, completion.logp, completion.text, completion.version)
        )


def _advance(live: list[_Live], chat: ChatFormat, watch: Watch, engine: Engine) -> list[_Live]:
    """Step the environments of those who acted; returns the episodes that go on."""
    acted = [one for one in live if not (one.episode.truncated or one.episode.failure)]
    calls: list[Callable[[], Step]] = [partial(one.environment.step, one.episode.turns[-1].text) for one in acted]
    for one, outcome in zip(acted, watch.run(calls), strict=True):
        _enter(one, outcome, chat)
    going = [one for one in acted if not _over(one.episode)]
    ongoing = {id(one) for one in going}
    _finish([one for one in live if id(one) not in ongoing], engine, watch)
    return going


def _enter(one: _Live, outcome: Outcome[Step], chat: ChatFormat) -> None:
    step, episode = outcome.value, one.episode
    one.hung = outcome.hung
    fault = outcome.failure or step_fault(step, one.task.reward_names)
    if fault is not None or step is None:
        episode.failure = f"step: {fault}"
        return
    episode.record(step)
    if step.done:
        enter_answer(episode, one.task)
        return
    if len(episode.turns) >= one.task.max_turns:
        episode.truncated = True
        return
    one.observation = step.observation
    one.unread = chat.followup(step.observation.text, episode.turns[-1].action[-1] in chat.end_token_ids)


def enter_answer(episode: Episode, task: Task) -> None:
    """Note what the last action answers, unless the episode was cut; a task that cannot say fails the episode."""
    if episode.truncated:
        return
    try:
        episode.answer = answer_key(task.answer(episode.turns[-1].text))
    except Exception as error:
        episode.failure = f"answer: {type(error).__name__}: {error}"


def _over(episode: Episode) -> bool:
    return episode.failure is not None or episode.truncated or episode.turns[-1].done


def _finish(live: Sequence[_Live], engine: Engine, watch: Watch) -> None:
    if live:
        engine.close([one.session for one in live])
        watch.run([one.environment.close for one in live if not one.hung])
