"""Multi-turn rollouts: a batch of environments and a batched engine, turn by turn, into episodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain

from stratagem.language.chat import ChatFormat
from stratagem.language.engine import Completion, Engine, Request
from stratagem.language.episodes import Episode, Turn, observation_fault, step_fault
from stratagem.language.sampling import SamplingParams
from stratagem.seeding import derive
from stratagem.tasks.mixture import owner
from stratagem.tasks.task import Environment, Observation, Split, Step, Task, answer_key
from stratagem.watched import Outcome, Watch

Ended = Callable[[Sequence[Episode]], None]

SESSIONS = 2
"""Conversations of one episode that an engine keeps: who calls another, and who was called. Others are read again."""


@dataclass
class Live:
    """An episode being played: its task, its environment, its sessions, and what the policy reads next.

    begun: the turn that it is in the middle of.  behind: what came before, as far as the session has not read it.
    sessions: of its conversations, by their number, the one used last at the end.
    most_turns: after so many it is cut; None: as many as the task allows.
    """

    task: Task
    episode: Episode
    environment: Environment
    observation: Observation
    unread: list[int]
    hung: bool = False
    begun: Turn | None = None
    behind: list[int] = field(default_factory=list)
    sessions: dict[int, int] = field(default_factory=dict)
    most_turns: int | None = None

    @property
    def session(self) -> int:
        """Of the conversation that it is in."""
        return self.sessions[self.observation.context]

    @property
    def said(self) -> list[int]:
        """All there is in the conversation that it is in before what is unread."""
        turns = self.episode.turns + ([] if self.begun is None else [self.begun])
        here = (turn for turn in turns if turn.observation.context == self.observation.context)
        return list(chain.from_iterable((*turn.read, *turn.action) for turn in here))

    @property
    def written(self) -> int:
        """Tokens that the policy sampled so far."""
        return self.episode.length + (0 if self.begun is None else len(self.begun.action))


def play(
    task: Task,
    split: Split,
    episodes: Sequence[Episode],
    engine: Engine,
    chat: ChatFormat,
    params: SamplingParams,
    watch: Watch,
    ended: Ended | None = None,
) -> None:
    """Play ``episodes`` (fresh ones) to their end, all side by side, and enter in each what happened.

    An environment that raises, does not answer in time or returns something else than a step or a finite reward fails
    its own episode. The policy's own tokens go to the environment as text and to the learner as they were sampled.

    ended: told after every turn which episodes were played to their end in it, perhaps none; what it raises ends all.
    """
    play_on(start(task, split, episodes, chat, watch), engine, chat, params, watch, ended)


def play_on(
    live: list[Live],
    engine: Engine,
    chat: ChatFormat,
    params: SamplingParams,
    watch: Watch,
    ended: Ended | None = None,
) -> None:
    """Play episodes from where they are to their end, as :func:`play` does."""
    try:
        while live:
            act(live, engine, params)
            acted, live = live, advance(live, chat, watch, engine)
            if ended is not None:
                going = {id(one) for one in live}
                ended([one.episode for one in acted if id(one) not in going])
    finally:
        finish(live, engine, watch)


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


def reading(task: Task, observation: Observation, turns: Sequence[Turn], chat: ChatFormat) -> list[int]:
    """Tokens that an observation adds to its conversation, after these turns: an opening, or what follows an answer."""
    last = next((turn for turn in reversed(turns) if turn.observation.context == observation.context), None)
    if last is not None:
        return chat.followup(observation.text, last.action[-1:] in ([end] for end in chat.end_token_ids))
    if observation.opening:
        return chat.opening([dict(message) for message in observation.opening])
    system = [] if task.system is None else [{"role": "system", "content": task.system}]
    return chat.opening([*system, {"role": "user", "content": observation.text}])


def start(task: Task, split: Split, episodes: Sequence[Episode], chat: ChatFormat, watch: Watch) -> list[Live]:
    """Reset the environments of fresh episodes; one that cannot start has failed."""

    def begin(episode: Episode) -> tuple[Environment, Observation]:
        index, earlier = episode.index, episode.earlier
        environment = task.after(split, index, earlier) if earlier else task.environment(split, index)
        try:
            return environment, reset(environment)
        except BaseException:
            with suppress(Exception):
                environment.close()
            raise

    outcomes = watch.run([partial(begin, episode) for episode in episodes])
    live = []
    for episode, outcome in zip(episodes, outcomes, strict=True):
        if outcome.value is None:
            episode.failure = f"reset: {outcome.failure}"
            continue
        (environment, observation), owned = outcome.value, owner(task, episode.index)
        live.append(Live(owned, episode, environment, observation, reading(owned, observation, [], chat)))
    return live


def seat(live: Sequence[Live], engine: Engine) -> None:
    """A session for the conversation that each is in; what was said in it before is read again when it had none."""
    lacking = [one for one in live if one.observation.context not in one.sessions]
    engine.close([one.sessions.pop(next(iter(one.sessions))) for one in lacking if len(one.sessions) == SESSIONS])
    for one, session in zip(lacking, engine.open(len(lacking)), strict=True):
        one.sessions[one.observation.context], one.behind = session, one.said
    for one in live:
        one.sessions[one.observation.context] = one.sessions.pop(one.observation.context)


def act(live: Sequence[Live], engine: Engine, params: SamplingParams, most: Sequence[int] | None = None) -> None:
    """Sample the next turn of every live episode, no more tokens of each than ``most``; one cut there is ``begun``."""
    seat(live, engine)
    bounds = [params.max_new_tokens] * len(live) if most is None else most
    requests = [requested(one, params, bound) for one, bound in zip(live, bounds, strict=True)]
    for one, request, completion in zip(live, requests, engine.generate(requests), strict=True):
        enter_said(one, request, completion, params)


def enter_said(one: Live, request: Request, completion: Completion, params: SamplingParams) -> None:
    """Enter what was sampled for an episode."""
    one.behind = []
    if not completion.tokens and one.begun is None:
        # The context is full: the policy could not act. The episode ends with the turns it has.
        one.episode.truncated = True
        if not one.episode.turns:
            one.episode.failure = "the first observation fills the model's context"
        return
    turn, asked = _turn(one, completion), request.params.max_new_tokens
    cut = completion.finish_reason == "length" and len(completion.tokens) == asked
    if cut and len(turn.action) < params.max_new_tokens:
        one.begun, one.unread = turn, []
    else:
        one.begun = None
        one.episode.turns.append(turn)


def requested(one: Live, params: SamplingParams, most: int) -> Request:
    """What to ask of the engine for an episode that has a seat, no more tokens than ``most``."""
    turn = len(one.episode.turns)
    if one.begun is None:
        tokens, said, seed = [*one.behind, *one.unread], [], derive(one.episode.seed, turn)
    else:
        said = one.begun.action
        tokens, seed = one.behind, derive(one.episode.seed, turn, len(said))
    asked = min(most, params.max_new_tokens - len(said))
    bounded = replace(params, max_new_tokens=asked)
    return Request(one.session, tokens, seed, bounded, said, one.observation.role)


def _turn(one: Live, completion: Completion) -> Turn:
    """The turn that a completion is, or goes on with."""
    begun, sampled = one.begun, completion
    if begun is None:
        said = sampled.tokens, sampled.logp, sampled.text, sampled.version
        return Turn(one.observation, one.unread, *said, versions=sampled.versions)
    return replace(
        begun,
        action=[*begun.action, *sampled.tokens],
        logp=[*(begun.logp or []), *sampled.logp],
        text=sampled.text,
        versions=[
            *(begun.versions or [begun.version] * len(begun.action)),
            *(sampled.versions or [sampled.version] * len(sampled.tokens)),
        ],
    )


def advance(live: list[Live], chat: ChatFormat, watch: Watch, engine: Engine) -> list[Live]:
    """Step the environments of those who acted; returns the episodes that go on."""
    acted = [one for one in live if not (one.episode.truncated or one.episode.failure)]
    calls: list[Callable[[], Step]] = [partial(one.environment.step, one.episode.turns[-1].text) for one in acted]
    for one, outcome in zip(acted, watch.run(calls), strict=True):
        _enter(one, outcome, chat)
    going = [one for one in acted if not _over(one.episode)]
    ongoing = {id(one) for one in going}
    finish([one for one in live if id(one) not in ongoing], engine, watch)
    return going


def _enter(one: Live, outcome: Outcome[Step], chat: ChatFormat) -> None:
    step, episode = outcome.value, one.episode
    one.hung = outcome.hung
    fault = outcome.failure or step_fault(step, one.task.reward_names, len(episode.turns))
    if fault is not None or step is None:
        episode.failure = f"step: {fault}"
        return
    episode.record(step)
    one.observation = step.observation
    if step.done:
        enter_answer(episode, one.task)
        return
    if len(episode.turns) >= min(one.task.max_turns, one.most_turns or one.task.max_turns):
        episode.truncated = True
        return
    one.unread = reading(one.task, step.observation, episode.turns, chat)


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


def finish(live: Sequence[Live], engine: Engine, watch: Watch) -> None:
    """Close the sessions and environments of these episodes."""
    if live:
        engine.close([session for one in live for session in one.sessions.values()])
        watch.run([one.environment.close for one in live if not one.hung])
