"""A contest of final policies in words and cells, for the terminal and for pages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from stratagem.estimate import Estimate
from stratagem.study.comparison import BEFORE, Contest
from stratagem.study.outcome import Direction


@dataclass(frozen=True)
class Cell:
    """How often the player of a row is preferred to that of a column.

    text: ``62 % [55, 69]``; empty on the diagonal.  direction: whether the interval shows a winner.  strength: of the
    colour, 0 for a tie to 100 for a win or a loss for sure.  side: ``won`` or ``lost``, by the mean alone.
    """

    text: str
    direction: Direction
    strength: int
    side: str


@dataclass(frozen=True)
class ContestTable:
    """A contest as a page shows it. gaps: exploitability of every player; empty where it is not known."""

    task: str
    judged: str
    seeds: int
    players: tuple[str, ...]
    sentences: list[str]
    cells: list[list[Cell]]
    gaps: list[str]


def contest_table(contest: Contest) -> ContestTable:
    """All of it."""
    players = range(len(contest.players))
    return ContestTable(
        task=contest.task,
        judged=judged(contest),
        seeds=len(contest.seeds),
        players=contest.players,
        sentences=list(sentences(contest)),
        cells=[[cell(contest, row, column) for column in players] for row in players],
        gaps=[gap(estimate) for estimate in contest.exploitability or ()],
    )


def judged(contest: Contest) -> str:
    """By whom, and on what: ``exactly by answer_table``."""
    return f"{'exactly' if contest.exact else f'on {contest.prompts} held-out prompts'} by {contest.oracle}"


def cell(contest: Contest, row: int, column: int) -> Cell:
    """One cell of the table."""
    wins = contest.wins[row][column]
    if row == column:
        return Cell("", "unchanged", 0, "won")
    side = "won" if wins.value >= 0.5 else "lost"
    return Cell(share(wins), direction(wins), round(200 * abs(wins.value - 0.5)), side)


def share(estimate: Estimate) -> str:
    """``62 % [55, 69]``."""
    return f"{100 * estimate.value:.0f} % [{100 * estimate.low:.0f}, {100 * estimate.high:.0f}]"


def gap(estimate: Estimate) -> str:
    """``0.031 [0.012, 0.050]``."""
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def direction(wins: Estimate) -> Direction:
    """``rose`` for a player who is shown to be preferred, ``fell`` for one to whom the other is."""
    return "rose" if wins.low > 0.5 else "fell" if wins.high < 0.5 else "unchanged"


def sentences(contest: Contest) -> Iterator[str]:
    """What the table shows, claiming no more than its intervals do."""
    arms = range(len(contest.players) - 1)
    shown = [[direction(wins) for wins in row] for row in contest.wins]
    winners = [contest.players[i] for i in arms if all(shown[i][j] == "rose" for j in arms if j != i)]
    unbeaten = [contest.players[i] for i in arms if all(shown[i][j] != "fell" for j in arms)]
    if winners:
        yield f"{winners[0]} is preferred to the final policy of every other arm."
    elif unbeaten:
        yield f"No arm's final policy is shown to be preferred to that of {_listed(unbeaten)}."
    else:
        yield "To every arm's final policy that of another one is preferred: they beat each other in a circle."
    behind = [contest.players[i] for i in arms if shown[i][-1] == "fell"]
    ahead = [contest.players[i] for i in arms if shown[i][-1] == "rose"]
    if ahead:
        yield f"Preferred to the policy {BEFORE}: {_listed(ahead)}."
    if behind:
        yield f"The policy {BEFORE} is preferred to {_listed(behind)}."
    if contest.exploitability is not None:
        least = min(arms, key=lambda player: contest.exploitability[player].value)  # type: ignore[index]
        yield (
            f"Least exploitable: {contest.players[least]}, {gap(contest.exploitability[least])}, where the policy "
            f"{BEFORE} has {gap(contest.exploitability[-1])}."
        )


def _listed(names: list[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
