"""Games that the claims of this family are made on, and figures of policies in them."""

from __future__ import annotations

import torch
from jaxtyping import Float64
from torch import Tensor

from stratagem.experience import Experience, PolicyOutput
from stratagem.lab.game import TokenGame, over
from stratagem.parts import Objective, Preference
from stratagem.preferences.games import bradley_terry, games_with_winner, population
from stratagem.preferences.measures import exploitability
from stratagem.preferences.oracles import table
from stratagem.study.experiments import Run
from stratagem.tasks.task import answer_key

Games = Float64[Tensor, "games responses responses"]


def intransitive(games: int, responses: int, source: torch.Generator) -> Games:
    """Half of the people asked have scores (normal, of standard deviation 2), half prefer in circles, with a mixed
    winner of their own who is drawn at random."""
    winner = torch.rand(games, responses, generator=source, dtype=torch.float64) + 0.1
    circles = games_with_winner(winner / winner.sum(1, keepdim=True), source)
    scores = 2 * torch.randn(games, responses, generator=source, dtype=torch.float64)
    return population([bradley_terry(scores), circles])


def one_token(responses: int) -> TokenGame:
    """One prompt, and one token of so many for an answer: what it is worth only an oracle can say."""
    return TokenGame("answers", "One prompt, one token.", responses, ((1.0, 0),), lambda state, tokens: over(0.0))


def oracle(wins: Float64[Tensor, "responses responses"]) -> Preference:
    """Who prefers token ``i`` to ``j`` with probability ``wins[i, j]``."""
    return table([answer_key((token,)) for token in range(len(wins))], wins)


def played(run: Run) -> Float64[Tensor, "batches responses"]:
    """The policy of :func:`one_token` before every batch, and in the end."""
    return torch.stack([policy.logp[0].double().exp() for policy in run.policies])


def average_exploitability(run: Run, wins: Float64[Tensor, "responses responses"]) -> float:
    """Of the mean policy over the run."""
    return float(exploitability(wins, played(run).mean(0)))


# ---- losses on labels -----------------------------------------------------------------------------------------------


def labelled(labels: Games, reference: Float64[Tensor, "games responses"]) -> Experience:
    """A group for every game with each response once, credited with its win rate, less 1/2, by these labels."""
    games, responses = reference.shape
    ones = torch.ones(games * responses, dtype=torch.int64)
    return Experience.from_lengths(
        ones,
        ones,
        torch.full((games,), responses),
        action=torch.arange(games * responses),
        ref_logp=reference.log().flatten(),
        advantage=(labels.mean(-1) - 0.5).flatten(),
    )


def fitted(
    objective: Objective, x: Experience, start: Float64[Tensor, "games responses"], steps: int, rate: float = 0.05
) -> Float64[Tensor, "games responses"]:
    """Tables of logits after so many steps of Adam on the whole batch; an action is a row of all tables in turn."""
    assert x.action is not None
    logits = start.log().clone().requires_grad_()
    optimizer = torch.optim.Adam([logits], rate)
    for _ in range(steps):
        optimizer.zero_grad()
        logp = torch.log_softmax(logits, -1).flatten()[x.action]
        objective(PolicyOutput(logp), x).loss.backward()
        optimizer.step()
    return torch.softmax(logits.detach(), -1)
