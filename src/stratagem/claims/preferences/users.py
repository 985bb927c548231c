"""The claim of VPL: rewards for users who want opposite things, and questions that tell who is asking."""

from __future__ import annotations

import dataclasses

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stratagem.lab.mdp import TabularMDP, choice
from stratagem.preferences.learned import Comparisons, LatentUsers, UserModel, choose
from stratagem.seeding import generator
from stratagem.study.claims import Expect, claim

WIDE, HIGH, HORIZON = 5, 7, 12

GOALS = torch.tensor([[0, HIGH - 1], [WIDE - 1, HIGH - 1]])

CELLS = torch.cartesian_prod(torch.arange(WIDE), torch.arange(HIGH))

PLACES = CELLS / torch.tensor([WIDE - 1, HIGH - 1])
"""Features of the cells."""

WORTH = -(CELLS - GOALS.unsqueeze(1)).abs().sum(-1).float()
"""What a cell is worth to each kind of user: closeness to the goal."""

PERSONAL = LatentUsers(latent=4, hidden=64, encoder="set", kl_weight=0.1, steps=800, batch=64, learning_rate=2e-3)

USERS, PAIRS, TESTED, CANDIDATES = 2000, 8, 64, 20

ASKED = (1, 2, 4)


@claim(
    "vpl",
    statement="Where users want different things, a reward learned from all of them together averages what they want; "
    "conditioned on a latent type that a few of the user's answers tell, it predicts each of them and the policy that "
    "is trained on it serves each of them. Questions chosen for what they tell find the type with fewer answers than "
    "questions at random.",
    source="arXiv 2408.10075, sections 4 and 6; the figures, on plots, were not within reach",
    baseline="the same network without a type, fitted to the same labels (Bradley-Terry); questions at random",
    rule=(
        Expect("accuracy_over_pooled", above=0.05),
        Expect("accuracy_over_another_type", above=0.05),
        Expect("return_over_pooled", above=0.05),
        Expect("active_over_random_after_1", above=0),
        Expect("active_over_random_after_2", above=0),
    ),
    scale="A grid of 5 x 7 cells with a goal in each upper corner, and two kinds of users, equally many, who like "
    "cells close to theirs: of two random cells they agree on most, for both want to go up. 2,000 sets of eight "
    "answers without error, segments of one cell; a set encoder, type of 4 numbers. Return is of 12 steps planned "
    "exactly for the learned reward (expected win rates), as a share of what the best plan for the true one earns "
    "beyond one that does not move from the start, below the middle; published policies are learned offline by IQL on "
    "larger mazes and arms. Active questions are the best of 20 by what their answer tells, one after the other; "
    "after is in accuracy on 64 new users. The set encoder is ours (a sum).",
)
def vpl(seed: int) -> dict[str, float]:
    """Accuracy and return after eight answers; accuracy after few, by how they were asked for."""
    known = _answered(_cells(seed, "train", USERS, PAIRS), _kinds(seed, "train", USERS))
    models = {
        "personal": PERSONAL.fit(known, seed),
        "pooled": dataclasses.replace(PERSONAL, latent=0).fit(known, seed),
    }
    kinds = _kinds(seed, "test", TESTED)
    told = _answered(_cells(seed, "told", TESTED, PAIRS), kinds)
    further = _answered(_cells(seed, "further", TESTED, 200), kinds)
    found = {name: model.figures(told, further) for name, model in models.items()}
    returns = {name: float(_returns(model, told, kinds).mean()) for name, model in models.items()}
    measured = {
        "accuracy_over_pooled": found["personal"]["accuracy"] - found["pooled"]["accuracy"],
        "accuracy_over_another_type": found["personal"]["accuracy"] - found["personal"]["accuracy_as_another"],
        "return_over_pooled": returns["personal"] - returns["pooled"],
        "accuracy": found["personal"]["accuracy"],
        "return": returns["personal"],
        "kl": found["personal"]["kl"],
    }
    for active in (True, False):
        accuracy = _interviewed(models["personal"], kinds, further, active, seed)
        for count in ASKED:
            measured[f"{'active' if active else 'random'}_after_{count}"] = accuracy[count]
    for count in ASKED:
        gap = measured[f"active_after_{count}"] - measured[f"random_after_{count}"]
        measured[f"active_over_random_after_{count}"] = gap
    return measured


def _kinds(seed: int, what: str, users: int) -> Int[Tensor, " users"]:
    return torch.randint(2, (users,), generator=generator(seed, "kinds", what))


def _cells(seed: int, what: str, users: int, pairs: int) -> Int[Tensor, "users pairs 2"]:
    """Two cells to compare in every pair."""
    return torch.randint(len(CELLS), (users, pairs, 2), generator=generator(seed, "cells", what))


def _answered(cells: Int[Tensor, "users pairs 2"], kinds: Int[Tensor, " users"]) -> Comparisons:
    worth = WORTH[kinds].unsqueeze(1).expand(-1, cells.shape[1], -1).gather(2, cells)
    label = 0.5 + 0.5 * (worth[..., 0] - worth[..., 1]).sign()
    return Comparisons(PLACES[cells[..., :1]], PLACES[cells[..., 1:]], label)


def _interviewed(
    model: UserModel, kinds: Int[Tensor, " users"], further: Comparisons, active: bool, seed: int
) -> dict[int, float]:
    """Accuracy after so many questions, each the most telling of some, or the first of them."""
    asked = torch.empty(len(kinds), 0, 2, dtype=torch.int64)
    found = {}
    for turn in range(max(ASKED)):
        offered = _cells(seed, f"offered {turn}", len(kinds), CANDIDATES)
        taken = torch.zeros(len(kinds), dtype=torch.int64)
        if active:
            so_far, offers = _answered(asked, kinds), _answered(offered, kinds)
            for user in range(len(kinds)):
                candidates = Comparisons(*(side[user].unsqueeze(1) for side in _sides(offers)))
                answered = Comparisons(*(side[user] for side in _sides(so_far)))
                taken[user] = choose(model, candidates, answered, draws=64, seed=seed)
        asked = torch.cat([asked, offered[torch.arange(len(kinds)), taken].unsqueeze(1)], 1)
        if turn + 1 in ASKED:
            found[turn + 1] = model.figures(_answered(asked, kinds), further)["accuracy"]
    return found


def _sides(answers: Comparisons) -> tuple[Tensor, Tensor, Tensor]:
    return answers.first, answers.second, answers.label


# ---- planning -------------------------------------------------------------------------------------------------------


def _walk() -> TabularMDP:
    """Stay, or go in one of four directions, for 12 steps; the true rewards are not in it."""
    steps = torch.tensor([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]])
    there = (CELLS.unsqueeze(1) + steps).clamp(min=0).minimum(torch.tensor([WIDE - 1, HIGH - 1]))
    odds = torch.nn.functional.one_hot(there[..., 0] * HIGH + there[..., 1], len(CELLS)).double()
    return TabularMDP.finite(odds, torch.zeros(len(CELLS), len(steps)), HORIZON)


def _returns(model: UserModel, told: Comparisons, kinds: Int[Tensor, " users"]) -> Float[Tensor, " users"]:
    """What every user gets of the plan that is best for the learned reward: 1 is the best there is, 0 is to stay."""
    walk, start = _walk(), (WIDE // 2) * HIGH
    with torch.no_grad():
        latent = model.belief(told).mean.unsqueeze(1)
    learned = model.reward(PLACES, latent, among=PLACES)
    planned, best = (
        walk.policy_values(choice(walk.optimal_values(_each_step(worth)), 0.0), _each_step(WORTH[kinds]))[:, start]
        for worth in (learned, WORTH[kinds])
    )
    staying = HORIZON * WORTH[kinds, start]
    return ((planned - staying) / (best - staying)).float()


def _each_step(worth: Float[Tensor, "users cells"]) -> Float[Tensor, "users states actions"]:
    """A reward of cells at every step and for every action."""
    return worth.double().repeat(1, HORIZON).unsqueeze(-1).expand(-1, -1, 5)
