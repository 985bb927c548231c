"""The claims of DPO, IPO and KTO, on tables of labelled answers."""

from __future__ import annotations

import torch
from jaxtyping import Float64
from torch import Tensor

from stratagem.claims.preferences.games import Games, fitted, labelled
from stratagem.experience import Experience
from stratagem.preferences.games import bradley_terry
from stratagem.preferences.measures import kl, win_rates
from stratagem.preferences.solvers import fitted_scores
from stratagem.recipes import preferences
from stratagem.seeding import generator
from stratagem.study.claims import Expect, claim

PROMPTS, ANSWERS = 20, 6


def _references(seed: int) -> Float64[Tensor, "prompts answers"]:
    normal = torch.randn(PROMPTS, ANSWERS, generator=generator(seed, "references"), dtype=torch.float64)
    return torch.softmax(normal, -1)


def _scores(seed: int) -> Float64[Tensor, "prompts answers"]:
    return torch.randn(PROMPTS, ANSWERS, generator=generator(seed, "scores"), dtype=torch.float64)


def _shares(wins: Games, votes: int, seed: int) -> Games:
    """Of so many votes on every pair the share for the first."""
    drawn = torch.rand(votes, *wins.shape, generator=generator(seed, "votes"), dtype=torch.float64)
    above = (drawn < wins).double().mean(0).triu(1)
    below = (1 - above).mT.tril(-1)
    return above + below + 0.5 * torch.eye(wins.shape[-1], dtype=torch.float64)


# ---- DPO ------------------------------------------------------------------------------------------------------------

STRENGTH = 0.5

STEPS = 1000


@claim(
    "dpo",
    statement="A loss of classification on labelled pairs leads to the policy that reinforcement learning from a "
    "fitted reward is after, with no reward model and no sampling: its reward at a given KL is the best of all "
    "methods, above PPO's, even where PPO is told the true reward.",
    source="arXiv 2305.18290, abstract, sections 4 and 6.1 (figure on the frontier of reward and KL)",
    baseline="the best policy for the likeliest scores; a policy gradient on these scores with a KL, by samples",
    rule=(Expect("distance_to_best", below=1e-3), Expect("objective_above_sampled", above=0)),
    scale="Tables of 20 prompts with six answers, scores from a normal distribution, 20 votes on every pair and one "
    "more each way, so that scores stay finite; strength 0.5. Both arms take 1,000 steps of Adam at the same rate; "
    "the one that samples draws 16 answers to each prompt in every step, with the group's mean for a baseline. The "
    "objective is the true expected score less 0.5 KL. What tables share nothing of, generalisation, is not seen, "
    "and PPO's clip has nothing to do here.",
)
def dpo(seed: int) -> dict[str, float]:
    """Distance to the closed form, and true objectives."""
    scores, reference = _scores(seed), _references(seed)
    votes = 20
    shares = _shares(bradley_terry(scores), votes, seed)
    labels = (shares * votes + 1) / (votes + 2)
    likeliest = fitted_scores(labels, torch.full_like(reference, 1 / ANSWERS))
    best = torch.softmax(reference.log() + likeliest / STRENGTH, -1)
    ours = fitted(preferences.dpo(STRENGTH).objective, labelled(labels, reference), reference, STEPS)
    sampled = _sampled(likeliest, reference, seed)
    value = {
        name: float(((policy * scores).sum(-1) - STRENGTH * kl(policy, reference)).mean())
        for name, policy in (("ours", ours), ("sampled", sampled), ("reference", reference))
    }
    return {
        "distance_to_best": float(kl(ours, best).max()),
        "objective_above_sampled": value["ours"] - value["sampled"],
        "objective": value["ours"],
        "objective_of_reference": value["reference"],
    }


def _sampled(scores: Tensor, reference: Tensor, seed: int) -> Float64[Tensor, "prompts answers"]:
    """Policy gradients of the expected score less the KL, 16 answers to each prompt a step."""
    source = generator(seed, "samples")
    logits = reference.log().clone().requires_grad_()
    optimizer = torch.optim.Adam([logits], 0.05)
    for _ in range(STEPS):
        logp = torch.log_softmax(logits, -1)
        drawn = torch.multinomial(logp.detach().exp(), 16, replacement=True, generator=source)
        worth = (scores - STRENGTH * (logp.detach() - reference.log())).gather(1, drawn)
        loss = -((worth - worth.mean(1, keepdim=True)) * logp.gather(1, drawn)).mean(1).sum() / PROMPTS
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return torch.softmax(logits.detach(), -1)


# ---- IPO ------------------------------------------------------------------------------------------------------------


@claim(
    "ipo",
    statement="Where labels of a pair all say the same, DPO forgets its KL and ends with all mass on one answer "
    "whatever the strength; IPO stays as near to the reference as its strength says.",
    source="arXiv 2310.12036, sections 4.2 and 5.4 (the figure with three answers and several strengths)",
    baseline="DPO at the same strength",
    rule=(
        Expect("distance_of_ipo", below=1e-3),
        Expect("ipo_on_winner", below=0.9),
        Expect("dpo_on_winner", above=0.95),
    ),
    scale="Tables of 20 prompts with six answers and random references; one vote on every pair, so all labels are "
    "certain. Strength 1, 4,000 steps of Adam at a rate of 0.05. The distance is the largest KL to the closed form "
    "over prompts; figures on the winner are mean probabilities of an answer that won all of its pairs, of the "
    "prompts that have one. A stop in time would help DPO, and is what people do; the figure after 100 steps is "
    "measured.",
)
def ipo(seed: int) -> dict[str, float]:
    """Probabilities of answers that won all of their pairs."""
    reference = _references(seed)
    labels = _shares(bradley_terry(_scores(seed)), 1, seed)
    x = labelled(labels, reference)
    expected = torch.softmax(reference.log() + win_rates(labels, torch.full_like(reference, 1 / ANSWERS)), -1)
    ours = fitted(preferences.ipo(1.0).objective, x, reference, 4000)
    theirs = {steps: fitted(preferences.dpo(1.0).objective, x, reference, steps) for steps in (100, 4000)}
    winner = labels.sum(-1) == ANSWERS - 0.5

    def on_winner(policy: Tensor) -> float:
        return float(policy[winner].mean())

    return {
        "distance_of_ipo": float(kl(ours, expected).max()),
        "ipo_on_winner": on_winner(ours),
        "dpo_on_winner": on_winner(theirs[4000]),
        "dpo_on_winner_after_100": on_winner(theirs[100]),
        "reference_on_winner": on_winner(reference),
        "prompts_with_winner": float(winner.any(-1).sum()),
    }


# ---- KTO ------------------------------------------------------------------------------------------------------------

LABELS = 20
"""Of each prompt's two answers."""


@claim(
    "kto",
    statement="Where labels contradict each other and the reference favours what the minority prefers, the best "
    "policy for DPO gives the minority's answer more often, and that for KTO the majority's; learning from answers "
    "that are good or bad by themselves is as good as learning from pairs at scales from 1 to 30 B.",
    source="arXiv 2402.01306, abstract and the theorem on contradictory preferences",
    baseline="DPO at the same strength",
    rule=(Expect("kto_for_majority", above=0.99), Expect("dpo_for_majority", below=0.01)),
    scale="Tables of 20 prompts with two answers, 20 labels each of which 11 to 14 agree, and a reference that gives "
    "the majority's answer 2 to 20 % (so that the theorem's condition holds at strength 1). 400 steps of Adam at a "
    "rate of 0.05 on the recipes' losses; figures are the share of prompts in which the majority's answer is the "
    "likelier one. KTO's reference point is the batch's mean, not the paper's. A DPO with a weaker KL (strength 0.1) "
    "is beside the rule: a cheap control. The second half of the statement is not tried.",
)
def kto(seed: int) -> dict[str, float]:
    """Shares of prompts in which the majority has its way."""
    prompts, source = 20, generator(seed, "contradictions")
    agree = torch.randint(11, 15, (prompts,), generator=source)
    likely = 0.02 + 0.18 * torch.rand(prompts, generator=source, dtype=torch.float64)
    reference = torch.stack([likely, 1 - likely], 1)
    x = _contradicting(agree, reference)
    dpo, weak = (fitted(preferences.dpo(strength).objective, x, reference, 400) for strength in (1.0, 0.1))
    ours = {
        point: fitted(preferences.kto(1.0, point=point).objective, x, reference, 400) for point in ("opposite", "zero")
    }

    def won(policy: Tensor) -> float:
        return float((policy[:, 0] > policy[:, 1]).double().mean())

    return {
        "kto_for_majority": won(ours["opposite"]),
        "dpo_for_majority": won(dpo),
        "kto_without_point_for_majority": won(ours["zero"]),
        "weak_dpo_for_majority": won(weak),
    }


def _contradicting(agree: Tensor, reference: Float64[Tensor, "prompts two"]) -> Experience:
    """A group for every label: both answers of its prompt, the first preferred in so many of the labels."""
    prompts = len(agree)
    first = torch.where(torch.arange(LABELS) < agree.unsqueeze(1), 0.5, -0.5).double().flatten()
    action = torch.arange(2 * prompts).view(prompts, 1, 2).expand(-1, LABELS, -1).reshape(-1)
    ones = torch.ones(len(action), dtype=torch.int64)
    credit = torch.stack([first, -first], 1).flatten()
    return Experience.from_lengths(
        ones,
        ones,
        torch.full((prompts * LABELS,), 2),
        action=action,
        ref_logp=reference.log().flatten()[action],
        # A vote's win rate over two answers, itself included, is 1/4 off one half.
        advantage=credit / 2,
    )
