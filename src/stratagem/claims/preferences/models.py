"""The claims of models of preferences, on tables: what scores learn of votes, and what no scores can say."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from stratagem.claims.preferences.games import Games, intransitive
from stratagem.experience import Experience, PolicyOutput
from stratagem.objectives import AnswerComparison, AnswerHead
from stratagem.parts import Preference
from stratagem.preferences.games import bradley_terry, cyclic
from stratagem.preferences.learned.calibration import calibration
from stratagem.preferences.models import lead
from stratagem.recipe import Recipe
from stratagem.recipes import preferences
from stratagem.seeding import generator
from stratagem.study.claims import Expect, claim

PROMPTS, ANSWERS, VOTES = 20, 7, 20

STEPS, RATE = 300, 0.05


def _voted(wins: Games, votes: int, source: torch.Generator) -> Games:
    """Of so many votes on every pair the share for the first."""
    drawn = torch.rand(votes, *wins.shape, generator=source, dtype=torch.float64) < wins
    above = drawn.double().mean(0).triu(1)
    answers = wins.shape[-1]
    return above + (1 - above).mT.tril(-1) + 0.5 * torch.eye(answers, dtype=torch.float64)


def _said(recipe: Recipe, shares: Games, seed: int) -> Games:
    """How likely each answer is preferred to each, by the embeddings of answers that a recipe's loss is least at."""
    view, objective = recipe.view, recipe.objective
    assert isinstance(view, AnswerHead) and isinstance(objective, AnswerComparison)
    games, answers, _ = shares.shape
    count = games * answers
    objective = objective.replace(preference=_oracle(shares))
    ones = torch.ones(count, dtype=torch.int64)
    zeros = torch.zeros(count, dtype=torch.float64)
    x = Experience.from_lengths(ones, ones, [answers] * games, reward=zeros)
    weight = torch.randn(count, view.dims, generator=generator(seed, "start"), dtype=torch.float64).requires_grad_()
    optimizer = torch.optim.Adam([weight], RATE)
    for _ in range(STEPS):
        optimizer.zero_grad()
        objective(PolicyOutput(zeros, embedding=_embedded(weight, view)), x).loss.backward()
        optimizer.step()
    v = _embedded(weight, view).detach().view(games, answers, -1)
    return torch.sigmoid(lead(v.unsqueeze(2), v.unsqueeze(1)))


def _oracle(shares: Games) -> Preference:
    """Who prefers answers to a prompt by these shares; trajectories are all answers to the first, to the second, ..."""

    @dataclass(frozen=True)
    class _Shares(Preference):
        def __call__(self, x: Experience, first: Tensor, second: Tensor) -> Tensor:
            answers = shares.shape[-1]
            return shares[first // answers, first % answers, second % answers]

    return _Shares()


def _embedded(weight: Tensor, view: AnswerHead) -> Tensor:
    return weight if view.radius is None else view.radius * torch.nn.functional.normalize(weight, dim=-1)


def _pairs(said: Games) -> Float64[Tensor, " pairs"]:
    """Every pair once."""
    first, second = torch.triu_indices(said.shape[-1], said.shape[-1], 1)
    return said[:, first, second].flatten()


def _log_loss(said: Games, wins: Games) -> float:
    """Of votes drawn by the true preferences, in expectation."""
    return float(torch.nn.functional.binary_cross_entropy(_pairs(said), _pairs(wins)))


def _accuracy(said: Games, wins: Games) -> float:
    """Share of votes, in expectation, for the side that is said to be the better one."""
    p, likely = _pairs(said), _pairs(wins)
    return float(torch.where(p > 0.5, likely, 1 - likely).mean())


# ---- scores ---------------------------------------------------------------------------------------------------------


@claim(
    "bradley_terry_model",
    statement="A model of scores, trained on all comparisons of the answers to a prompt, predicts a labeller's choice "
    "about as often as labellers agree with each other (72.4 % where labellers agree in 72.6 % of cases).",
    source="arXiv 2203.02155, sections 3.4, 3.5 and 4.1, and the appendix on reward models",
    baseline="whoever knows the true preferences",
    rule=(Expect("accuracy_below_best", below=0.02), Expect("calibration_error", below=0.05)),
    scale="Tables of 20 prompts with seven answers, scores from a normal distribution, 20 votes on every pair; the "
    "loss of the recipe on free scores, 300 steps of Adam. Accuracy is of fresh votes on the same answers, in "
    "expectation, so that what language models add, scores for answers nobody has compared, is not seen. Calibration "
    "is against the true preferences, that is of any number of fresh votes; in first runs it was of one fresh vote on "
    "each of 420 pairs, of which the error is about 0.05 by chance alone, so that it decided nothing. Beside the rule: "
    "what centering costs in accuracy.",
)
def bradley_terry_model(seed: int) -> dict[str, float]:
    """Accuracy on fresh votes against the best there is, and calibration."""
    scores = torch.randn(PROMPTS, ANSWERS, generator=generator(seed, "scores"), dtype=torch.float64)
    wins = bradley_terry(scores)
    shares = _voted(wins, VOTES, generator(seed, "votes"))
    said = _said(preferences.bradley_terry_model(), shares, seed)
    centred = _said(preferences.bradley_terry_model(centering=0.01), shares, seed)
    best = _accuracy(wins, wins)
    return {
        "accuracy_below_best": best - _accuracy(said, wins),
        "calibration_error": calibration(_pairs(said), _pairs(wins), resamples=1)["error"],
        "best_accuracy": best,
        "accuracy_lost_by_centering": _accuracy(said, wins) - _accuracy(centred, wins),
    }


# ---- embeddings -----------------------------------------------------------------------------------------------------


@claim(
    "pairwise_model",
    statement="Preference embeddings model preferences that go in circles, where any Bradley-Terry model is no better "
    "than a guess, and are ahead of it on ordinary ones, too (by up to 5.6 % on RewardBench).",
    source="arXiv 2410.02197, abstract and the experiments on cyclic preferences",
    baseline="bradley_terry_model, on the same labels",
    rule=(
        Expect("accuracy_on_circles", above=0.95),
        Expect("ahead_on_circles", above=0.2),
        Expect("log_loss_below_scores", above=0),
    ),
    scale="Tables of 20 prompts: circles of three answers, each sure to beat the next; and seven answers of which half "
    "of the people asked have scores and half prefer in circles, 20 votes on every pair. Losses of the recipes on free "
    "embeddings (eight dims, temperature 0.1) and free scores, 300 steps of Adam at one rate. Log-losses are of fresh "
    "votes on the same answers, in expectation. Scores can be right about two of three in a circle, by choosing whom "
    "to be wrong about; a guess would be right about half. Beside the rule, people who all have scores "
    "(log_loss_above_scores_without_circles): there embeddings have more to fit and nothing to gain.",
)
def pairwise_model(seed: int) -> dict[str, float]:
    """Accuracy and log-loss of both on circles, mixed people, and people with scores."""
    ours, theirs = preferences.pairwise_model(), preferences.bradley_terry_model()
    circles = cyclic(3).expand(PROMPTS, 3, 3)
    mixed = intransitive(PROMPTS, ANSWERS, generator(seed, "games"))
    ordered = bradley_terry(torch.randn(PROMPTS, ANSWERS, generator=generator(seed, "scores"), dtype=torch.float64))
    accuracy = [_accuracy(_said(model, circles, seed), circles) for model in (ours, theirs)]
    losses = {}
    for name, wins in (("mixed", mixed), ("ordered", ordered)):
        shares = _voted(wins, VOTES, generator(seed, "votes", name))
        losses[name] = [_log_loss(_said(model, shares, seed), wins) for model in (ours, theirs)]
    return {
        "accuracy_on_circles": accuracy[0],
        "ahead_on_circles": accuracy[0] - accuracy[1],
        "log_loss_below_scores": losses["mixed"][1] - losses["mixed"][0],
        "log_loss_above_scores_without_circles": losses["ordered"][0] - losses["ordered"][1],
    }
