"""Episodes of many copies of a game played side by side, all agents of all copies in one call a turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Shaped

from stratagem.control.episodes import MOST_FAILED_STARTS, Ending, Start
from stratagem.errors import BrokenRunError
from stratagem.multiagent.game import Frame, MultiAgentTask, Outcome


class Acted(NamedTuple):
    """What agents did.

    logp: how likely it was, where that is not what the policy says of it.  noted: see :class:`AgentInputs`.
    memory: what each remembers from now on, None of agents that remember nothing.
    """

    action: Shaped[np.ndarray, "copies agents ..."]
    logp: Float[np.ndarray, "copies agents"] | None = None
    noted: Float[np.ndarray, "copies agents noted"] | None = None
    memory: Float32[np.ndarray, "copies agents memory"] | None = None


Act = Callable[[Frame, np.ndarray], Acted]
"""What agents do given what there is to see, and what each remembers [copies, agents, memory]."""

Starts = Callable[[int], Start | None]


@dataclass(frozen=True)
class TeamEnding(Ending):
    """How an episode was left. total: the mean over agents of what each earned.

    frame: what there was to see then; of one copy.  terminal: agents that had reached an end of their own.
    """

    frame: Frame = field(kw_only=True)
    terminal: Bool[np.ndarray, " agents"] = field(kw_only=True)


@dataclass
class TeamRecording:
    """What happened, turn by turn: per turn a row for each copy that played, and how every episode was left.

    memory: what agents remembered at first, by episode, of episodes that had begun before.
    """

    episode: list[np.ndarray] = field(default_factory=list)
    frame: list[Frame] = field(default_factory=list)
    acted: list[Acted] = field(default_factory=list)
    reward: list[np.ndarray] = field(default_factory=list)
    duration: list[np.ndarray] = field(default_factory=list)
    endings: dict[int, TeamEnding] = field(default_factory=dict)
    memory: dict[int, np.ndarray] = field(default_factory=dict)

    @property
    def actions(self) -> int:
        """How many were taken by agents that were alive."""
        return sum(int(frame.alive.sum()) for frame in self.frame)


class Lanes:
    """Copies of a game and the episodes they are in. A copy that breaks ends its episode as failed.

    memory: what the agents of every copy remember; zeros when an episode begins.  memory_width: of each of them.
    """

    def __init__(self, task: MultiAgentTask, count: int, memory_width: int = 0) -> None:
        self.count = count
        self.memory = np.zeros((count, task.agents, memory_width), dtype=np.float32)
        self._copies = task.copies(count)
        self.starts: list[Start | None] = [None] * count
        self._turns = np.zeros(count, dtype=np.int64)
        self._totals = np.zeros((count, task.agents))
        self._left = np.zeros((count, task.agents), dtype=bool)
        self._terminal = np.zeros((count, task.agents), dtype=bool)

    @property
    def playing(self) -> Int[np.ndarray, " some"]:
        """Those in an episode."""
        return np.array([lane for lane, start in enumerate(self.starts) if start is not None], dtype=np.int64)

    def episodes(self, lanes: Int[np.ndarray, " some"]) -> Int[np.ndarray, " some"]:
        """Numbers of their episodes."""
        starts = [self.starts[lane] for lane in lanes.tolist()]
        return np.array([start.episode for start in starts if start is not None], dtype=np.int64)

    def observe(self, lanes: Int[np.ndarray, " some"]) -> Frame:
        """What there is to see in them."""
        return self._copies.observe(lanes)

    def begin(self, lanes: Int[np.ndarray, " some"], starts: Starts, recording: TeamRecording) -> None:
        """The next episode that can be started in each; those without one are left idle.

        Raises :class:`BrokenRunError` when no episode can be started.
        """
        for lane in lanes.tolist():
            self.starts[lane] = None
        waiting, failed = lanes, 0
        while len(waiting):
            given = [(lane, start) for lane in waiting.tolist() if (start := starts(lane)) is not None]
            if not given:
                return
            begun = np.array([lane for lane, _ in given], dtype=np.int64)
            for lane, start in given:
                self.starts[lane] = start
            self._turns[begun], self._totals[begun] = 0, 0.0
            self._left[begun] = self._terminal[begun] = False
            self.memory[begun] = 0.0
            failures = self._copies.reset(begun, np.array([start.seed for _, start in given], dtype=np.int64))
            waiting = begun[sorted(failures)]
            failed = failed + len(failures) if len(failures) == len(given) else 0
            for row, why in failures.items():
                self._fail(int(begun[row]), why, recording)
            if failed >= MOST_FAILED_STARTS:
                why = next(iter(failures.values()))
                raise BrokenRunError(f"{failed} episodes in a row could not be started; the last: {why}")

    def step(self, lanes: Int[np.ndarray, " some"], acted: Acted) -> tuple[Outcome, dict[int, str]]:
        """Let all of them act; what came of it, and rows whose copy broke."""
        out = self._copies.step(lanes, acted.action)
        broken = dict(out.failures)
        for what, rows in (("reward", out.reward), ("observation", out.frame.observation)):
            for row in np.flatnonzero(~np.isfinite(rows).reshape(len(rows), -1).all(1)).tolist():
                broken.setdefault(row, f"the {what} is not finite")
        self._turns[lanes] += 1
        self._totals[lanes] += np.where(np.isfinite(out.reward), out.reward, 0.0)
        self._terminal[lanes] |= out.terminated
        self._left[lanes] |= out.terminated | out.truncated
        return out, broken

    def remember(self, memory: Mapping[int, np.ndarray], first: int) -> None:
        """Go on with these memories [agents, memory], by the number of the episode, from column ``first`` on."""
        for lane, start in enumerate(self.starts):
            if start is not None and start.episode in memory:
                self.memory[lane, :, first:] = memory[start.episode][:, first:]

    def over(self, lanes: Int[np.ndarray, " some"]) -> Bool[np.ndarray, " some"]:
        """Those in which no agent is left."""
        over: np.ndarray = self._left[lanes].all(1)
        return over

    def ending(self, lane: int, frame: Frame, how: str | None = None, failure: str | None = None) -> TeamEnding:
        """How the episode is left; ``frame`` is of this copy alone."""
        start, terminal = self.starts[lane], self._terminal[lane].copy()
        assert start is not None
        left = how or ("terminal" if terminal.all() else "limit")
        total = float(self._totals[lane].mean())
        figures = (frame.observation, int(self._turns[lane]), total, failure)
        return TeamEnding(start, left, *figures, frame=frame, terminal=terminal)  # type: ignore[arg-type]

    def _fail(self, lane: int, why: str, recording: TeamRecording) -> None:
        start = self.starts[lane]
        assert start is not None
        nothing = Frame(*(np.zeros(0, dtype=np.float32) for _ in Frame._fields))
        recording.endings[start.episode] = self.ending(lane, nothing, "failed", why)
        self.starts[lane] = None

    # ---- state -----------------------------------------------------------------------------------------------------

    def state_dict(self) -> tuple[dict[str, np.ndarray], list[list[int] | None]]:
        """All that the episodes depend on: arrays, and which episodes they are."""
        own = {"turns": self._turns, "totals": self._totals, "left": self._left, "terminal": self._terminal}
        if self.memory.size:
            own["memory"] = self.memory
        copies = {f"copies.{name}": rows for name, rows in self._copies.state_dict().items()}
        return own | copies, [None if start is None else list(start) for start in self.starts]

    def load_state_dict(self, arrays: Mapping[str, np.ndarray], starts: list[Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self._turns, self._totals = np.array(arrays["turns"]), np.array(arrays["totals"])
        self._left, self._terminal = np.array(arrays["left"]), np.array(arrays["terminal"])
        if self.memory.size:
            self.memory = np.array(arrays["memory"])
        self.starts = [None if start is None else Start(*start) for start in starts]
        prefix = "copies."
        self._copies.load_state_dict({n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)})

    def close(self) -> None:
        """Give up all episodes."""
        self._copies.close()
        self.starts = [None] * self.count


def play(lanes: Lanes, starts: Starts, act: Act, turns: int | None = None) -> TeamRecording:
    """Play episodes in lanes that take the next one when theirs is over.

    starts: the next episode for the lane of a number, None when there is none.  turns: of every lane; episodes that run
    on then are recorded as cut. None: until all episodes are over. A lane that is in an episode goes on with it. Raises
    :class:`BrokenRunError` when no episode can be started.
    """
    going = lanes.playing
    memory = dict(zip(lanes.episodes(going).tolist(), lanes.memory[going], strict=True))
    recording = TeamRecording(memory=memory)
    idle = np.array([lane for lane, start in enumerate(lanes.starts) if start is None], dtype=np.int64)
    lanes.begin(idle, starts, recording)
    playing = lanes.playing
    frame = lanes.observe(playing) if len(playing) else None
    while frame is not None and (turns is None or len(recording.reward) < turns):
        acted = act(frame, lanes.memory[playing])
        if acted.memory is not None:
            lanes.memory[playing] = acted.memory
        recording.episode.append(lanes.episodes(playing))
        recording.frame.append(frame)
        recording.acted.append(acted)
        out, broken = lanes.step(playing, acted)
        recording.reward.append(out.reward)
        if out.duration is not None:
            recording.duration.append(out.duration)
        over = lanes.over(playing)
        over[list(broken)] = True
        frame = out.frame
        if over.any():
            for row in np.flatnonzero(over).tolist():
                why = broken.get(row)
                ending = lanes.ending(int(playing[row]), frame.at(np.array(row)), "failed" if why else None, why)
                recording.endings[ending.start.episode] = ending
            lanes.begin(playing[over], starts, recording)
            playing = lanes.playing
            frame = lanes.observe(playing) if len(playing) else None
    if frame is not None:
        for row, lane in enumerate(playing.tolist()):
            ending = lanes.ending(lane, frame.at(np.array(row)), "cut")
            recording.endings[ending.start.episode] = ending
    return recording


class Rows(NamedTuple):
    """The turns of a recording, a row for each agent, by episode, agent and time.

    endings: of the episodes, in their order.  turns: of each.  memory: what agents remembered at first, by episode, of
    episodes that had begun before.
    """

    endings: list[TeamEnding]
    turns: Int[np.ndarray, " episodes"]
    agent: Int[np.ndarray, " rows"]
    observation: Float32[np.ndarray, "rows features"]
    state: Float32[np.ndarray, "rows state_features"]
    legal: Bool[np.ndarray, "rows actions"]
    alive: Bool[np.ndarray, " rows"]
    action: Shaped[np.ndarray, "rows ..."]
    reward: Float32[np.ndarray, " rows"]
    logp: Float[np.ndarray, " rows"] | None
    noted: Float[np.ndarray, "rows noted"] | None
    duration: Int[np.ndarray, " rows"] | None
    memory: Mapping[int, np.ndarray]


def rows_of(recording: TeamRecording) -> Rows | None:
    """All turns of episodes that did not fail, episodes by group and number; None when there is none."""
    if not recording.reward:
        return None
    episode = np.concatenate(recording.episode)
    kept = {number: ending for number, ending in recording.endings.items() if ending.how != "failed"}
    used = np.flatnonzero(np.isin(episode, list(kept)))
    if not len(used):
        return None
    known, place = np.unique(episode[used], return_inverse=True)
    group = np.array([kept[number].start.group for number in known.tolist()])
    ranked = np.lexsort((known, group))
    rank = np.empty_like(ranked)
    rank[ranked] = np.arange(len(ranked))
    by_episode = np.argsort(rank[place], kind="stable")
    turn, turns = used[by_episode], np.bincount(rank[place])
    agents = recording.reward[0].shape[1]
    # Every episode once for each agent: row r of agent a stands behind all rows of the agents before.
    start = np.repeat(np.cumsum(turns) - turns, turns * agents)
    within = np.arange(len(turn) * agents) - agents * start
    length = np.repeat(turns, turns * agents)
    agent, row = within // length, turn[start + within % length]

    def laid(pieces: Sequence[np.ndarray]) -> np.ndarray:
        rows: np.ndarray = np.concatenate(pieces)[row, agent]
        return rows

    frames, acted = recording.frame, recording.acted
    logp, noted = ([getattr(one, name) for one in acted] for name in ("logp", "noted"))
    return Rows(
        [kept[int(known[number])] for number in ranked],
        turns,
        agent,
        laid([frame.observation for frame in frames]),
        np.concatenate([frame.state for frame in frames])[row],
        laid([frame.legal for frame in frames]),
        laid([frame.alive for frame in frames]),
        laid([one.action for one in acted]),
        laid(recording.reward).astype(np.float32),
        None if logp[0] is None else laid(logp),
        None if noted[0] is None else laid(noted),
        np.concatenate(recording.duration)[row] if recording.duration else None,
        recording.memory,
    )
