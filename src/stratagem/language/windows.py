"""Episodes that run on across batches: each goes on from its prefix with new weights, within a turn if need be."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from stratagem.experience import Experience
from stratagem.language.chat import ChatFormat
from stratagem.language.engine import Engine
from stratagem.language.episodes import Episode, to_experience
from stratagem.language.plans import PlanReader, plan_reader
from stratagem.language.replayed import replayed, saved_turn
from stratagem.language.rollout import Live, act, advance, start
from stratagem.language.sampling import SamplingParams
from stratagem.tasks.mixture import domain_of
from stratagem.tasks.task import Task
from stratagem.watched import Watch


@dataclass(frozen=True)
class Window:
    """One window of all episodes.

    x: those that have not failed, as far as they are; None when there is none.  ended: failed ones included.
    running: those that go on, as far as they are.  tokens: sampled in this window.
    steps: tokens sampled one after the other while all episodes sample side by side.
    """

    x: Experience | None
    ended: list[Episode]
    running: list[Episode]
    tokens: int
    steps: int


class Slots:
    """The episodes that are under way.

    Sessions are opened anew for every window, since new weights have to read all that was said anyway. A checkpoint
    holds what was said, and a resumed run says it to the environments once more: exact where an episode follows from
    its number and the actions, as the contract of a task demands.
    """

    def __init__(self, task: Task, chat: ChatFormat, watch: Watch) -> None:
        self._task, self._chat, self._watch = task, chat, watch
        self._plans = plan_reader(task, chat.said)
        self._running: list[Live] = []

    def make_room(self, slots: int) -> int:
        """How many fresh episodes the next window takes. Episodes for which there is no slot any more are given up."""
        self._watch.run([one.environment.close for one in self._running[slots:]])
        del self._running[slots:]
        return slots - len(self._running)

    def advance(self, fresh: Sequence[Episode], engine: Engine, params: SamplingParams, tokens: int) -> Window:
        """Up to ``tokens`` more of every episode under way and of the ``fresh`` ones."""
        live = self._running + start(self._task, "train", fresh, self._chat, self._watch)
        before = [one.written for one in live]
        bounds = {id(one): was + tokens for one, was in zip(live, before, strict=True)}
        going, steps = live, 0
        while acting := [one for one in going if one.written < bounds[id(one)]]:
            so_far = [one.written for one in acting]
            act(acting, engine, params, [bounds[id(one)] - one.written for one in acting])
            steps += max(one.written - was for one, was in zip(acting, so_far, strict=True))
            acted = [one for one in acting if one.begun is None]
            kept = {id(one) for one in advance(acted, self._chat, self._watch, engine)}
            over = {id(one) for one in acted} - kept
            going = [one for one in going if id(one) not in over]
        engine.close([session for one in going for session in one.sessions.values()])
        for one in going:
            one.sessions = {}
        self._running = going
        running = [any(one is other for other in going) for one in live]
        episodes = [_so_far(one) if on else one.episode for one, on in zip(live, running, strict=True)]
        unstarted = [episode for episode in fresh if all(episode is not one.episode for one in live)]
        return Window(
            x=_experience(episodes, before, running, self._task, self._plans),
            ended=[e for e, on in zip(episodes, running, strict=True) if not on] + unstarted,
            running=[e for e, on in zip(episodes, running, strict=True) if on],
            tokens=sum(one.written - was for one, was in zip(live, before, strict=True)),
            steps=steps,
        )

    def close(self) -> None:
        """Give up all episodes."""
        self.make_room(0)

    # ---- state -----------------------------------------------------------------------------------------------------

    def state_dict(self) -> list[dict[str, Any]]:
        """What was said in every episode under way, as JSON data."""
        return [
            {
                "index": one.episode.index,
                "seed": one.episode.seed,
                "turns": [saved_turn(turn) for turn in one.episode.turns],
                "begun": None if one.begun is None else saved_turn(one.begun),
            }
            for one in self._running
        ]

    def load_state_dict(self, plain: Sequence[Mapping[str, Any]]) -> None:
        """Restore the episodes; one whose environment does not answer as before is given up with a warning."""
        self.close()
        for outcome in self._watch.run([partial(self._restored, saved) for saved in plain]):
            if outcome.value is not None:
                self._running.append(outcome.value)
                continue
            warnings.warn(
                f"{self._task.name}: an episode under way did not replay ({outcome.failure}) and is given up; "
                "this run will differ from an unbroken one",
                stacklevel=2,
            )

    def _restored(self, saved: Mapping[str, Any]) -> Live:
        episode = Episode(saved["index"], 0, saved["seed"])
        return replayed(self._task, "train", episode, saved["turns"], saved["begun"], self._chat)


def _so_far(one: Live) -> Episode:
    """A running episode as if it were cut here, its unfinished turn included."""
    turns = one.episode.turns + ([] if one.begun is None else [one.begun])
    return dataclasses.replace(one.episode, turns=turns, truncated=True)


def _experience(
    episodes: Sequence[Episode],
    before: Sequence[int],
    running: Sequence[bool],
    task: Task,
    plans: PlanReader | None,
) -> Experience | None:
    """Episodes that have not failed, whose tokens up to ``before`` the policy has learned from already."""
    good = [number for number, episode in enumerate(episodes) if episode.failure is None]
    if not good:
        return None
    x = to_experience(
        [[episodes[number]] for number in good],
        task.reward_names,
        1,
        task.reward_weights,
        plans=plans,
        domain=partial(domain_of, task),
    )
    on, by = torch.tensor([running[number] for number in good]), x.trajectory_of_token
    fresh = by.position() >= by.spread(torch.tensor([before[number] for number in good]))
    return x.replace(running=on, mask=fresh, critic_mask=by.spread(~on))
