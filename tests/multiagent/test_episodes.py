from __future__ import annotations

import numpy as np

from stratagem.control.episodes import Start
from stratagem.multiagent import Acted, Frame, Lanes, play
from stratagem.multiagent.episodes import rows_of

from .conftest import Walk


def test_an_agent_has_one_lot_for_an_episode_whatever_else_is_played() -> None:
    game = Walk(max_turns=4)

    def act(frame: Frame) -> Acted:
        assert frame.lot is not None
        return Acted(np.ones(frame.alive.shape, dtype=int), noted=frame.lot[..., None].astype(np.float32))

    lanes = Lanes(game, 3)
    starts = [Start(episode, 11 * episode, episode, episode) for episode in range(7)]
    queue = iter(starts)
    together = rows_of(play(lanes, lambda lane: next(queue, None), act))
    assert together is not None and together.noted is not None
    turns = together.turns.repeat(2)
    by_agent = np.split(together.noted[:, 0], turns.cumsum()[:-1])
    assert all(len(set(lots.tolist())) == 1 for lots in by_agent)
    firsts = np.array([lots[0] for lots in by_agent])
    assert len(set(firsts.tolist())) == 14 and firsts.min() >= 0 and firsts.max() < 1
    alone = iter(starts[4:5])
    one = rows_of(play(Lanes(game, 1), lambda lane: next(alone, None), act))
    assert one is not None and one.noted is not None and set(one.noted[:, 0].tolist()) == set(firsts[8:10].tolist())
