"""A text task played by a language policy that does not learn, shown experiences in the system message."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from stratagem.language.chat import ChatFormat
from stratagem.language.engine import Engine
from stratagem.language.episodes import Episode
from stratagem.language.hf_engine import HFEngine
from stratagem.language.policy import LanguagePolicy
from stratagem.language.rollout import first_observation, play
from stratagem.language.sampling import SamplingParams
from stratagem.memory.episodic import Attempt
from stratagem.seeding import derive
from stratagem.tasks.mixture import owner
from stratagem.tasks.reminders import reminded
from stratagem.tasks.task import Environment, Observation, Split, Step, Task
from stratagem.watched import Watch

HEADING = "Experiences from similar tasks, which may or may not apply:"


def transcript(episode: Episode) -> str:
    """The episode as an experience: whether it succeeded, what was seen and what was done."""
    lines = ["This succeeded:" if episode.success else "This failed:"]
    for turn in episode.turns:
        lines += [f"> {turn.observation.text}", turn.text.strip()]
    return "\n".join(lines)


class PlayedTask:
    """The frozen solver of :meth:`EpisodicMemory.play` whose tasks are the numbers of a text task's episodes.

    The experiences go, numbered and under ``heading``, to the end of the system message of the episode's first
    conversation; without any the episode is played as it would be without memory. A success earns 1 and anything else
    -1, whatever the task's own reward; an episode that its environment spoiled says nothing.

    >>> played = PlayedTask(task, policy)  # doctest: +SKIP
    >>> for solved in memory.play(store, range(100), played, intent=played.intent):  # doctest: +SKIP
    ...     print(solved.attempt.reward)

    task, policy: the policy's weights are copied into an engine when this is built.  engine: one that serves already.
    split: of the episodes.  temperature: above 0; None plays greedily.  seed: of what is sampled; an episode that is
    played again is sampled anew.
    experience: what to remember of an episode, None for nothing. By default its :func:`transcript`; the paper has a
    language model distil a procedure from a success and a reflection from a failure, which a callable may do.
    timeout: seconds an environment may take for one step.
    """

    def __init__(
        self,
        task: Task,
        policy: LanguagePolicy,
        *,
        engine: Engine | None = None,
        split: Split = "train",
        temperature: float | None = 1.0,
        seed: int = 0,
        heading: str = HEADING,
        experience: Callable[[Episode], str | None] = transcript,
        timeout: float = 30.0,
    ) -> None:
        self.task, self.split, self.seed, self.heading, self.experience = task, split, seed, heading, experience
        self._engine = HFEngine(policy) if engine is None else engine
        self._chat, self._watch = ChatFormat(policy.tokenizer), Watch(timeout)
        self._params = SamplingParams(
            max_new_tokens=task.max_new_tokens,
            temperature=1.0 if temperature is None else temperature,
            stop=task.stop,
            stop_token_ids=self._chat.end_token_ids,
            greedy=temperature is None,
        )
        self._times: Counter[int] = Counter()

    def intent(self, index: int) -> str:
        """Text of an episode's task: its first observation; empty, hence like nothing, where that cannot be had."""
        (outcome,) = self._watch.run([partial(first_observation, self.task, self.split, index)])
        return "" if outcome.value is None else outcome.value.text

    def __call__(self, index: int, experiences: Sequence[str]) -> Attempt:
        """Play the episode of this number once."""
        episode = self.played(index, experiences)
        if episode.failure is not None:
            return Attempt(reward=None)
        return Attempt(1.0 if episode.success else -1.0, self.experience(episode))

    def played(self, index: int, experiences: Sequence[str]) -> Episode:
        """The same, with all that happened."""
        told = "\n\n".join([self.heading, *(f"{place}. {text}" for place, text in enumerate(experiences, 1))])
        task = _Reminded(self.task, index, told) if experiences else self.task
        episode = Episode(index, self._times[index], derive(self.seed, "played", index, self._times[index]))
        self._times[index] += 1
        play(task, self.split, [episode], self._engine, self._chat, self._params, self._watch)
        return episode

    def close(self) -> None:
        """Let the thread end that environments run in."""
        self._watch.close()


class _Reminded(Task):
    """One episode of ``of``, its first conversation opened with ``told`` in the system message."""

    def __init__(self, of: Task, index: int, told: str) -> None:
        owned = owner(of, index)
        self.of, self.owned, self.told = of, owned, told
        self.name, self.description, self.system = of.name, of.description, owned.system
        self.max_turns, self.max_new_tokens, self.stop = owned.max_turns, of.max_new_tokens, of.stop
        self.reward_names, self.reward_weights = of.reward_names, of.reward_weights

    def environment(self, split: Split, index: int) -> Environment:
        return _RemindedEnvironment(self.of.environment(split, index), self.system, self.told)

    def solution(self, split: Split, index: int) -> Iterator[str]:
        return self.of.solution(split, index)

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        return self.of.corrupted(split, index)

    def answer(self, text: str) -> str | None:
        return self.owned.answer(text)


class _RemindedEnvironment(Environment):
    def __init__(self, of: Environment, system: str | None, told: str) -> None:
        self._of, self._system, self._told = of, system, told

    def reset(self) -> Observation:
        return reminded(self._of.reset(), self._system, self._told)

    def step(self, action: str) -> Step:
        return self._of.step(action)

    def close(self) -> None:
        self._of.close()
