"""What holds for the loss of every recipe, whoever wrote its parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

from stratagem import catalogue
from stratagem.experience import Experience, Loss, PolicyOutput
from stratagem.objectives import PolicyGradient
from stratagem.recipe import Recipe

from .conftest import Said, detached_values_held, gradients

RECIPES = [
    card.name
    for family in ("baselines", "objectives", "agents", "reasoning", "preferences", "games")
    for card in catalogue.cards(family)
    if not isinstance(card.build, type) and isinstance(card.build(), Recipe)
]

Fabricate = Callable[..., tuple[Experience, Said]]

NOT_THE_POLICY_GRADIENT = {
    "vdn": "that of temporal differences, which no advantage is in",
    "qmix": "that of temporal differences, which no advantage is in",
    "mra": "that of temporal differences and of a policy's own expected value, beside what actions say of codes",
    "gmah": "that of temporal differences, which no advantage is in",
    "hylar": "the sum of two, with weights of their own, beside the gradient of a KL",
    "bpo": "the size of the advantage, in the direction of the side of the median",
    "amft": "that of rollouts and, beside it, the likelihood of demonstrations",
    "hapo": "that of advantages that count less where the policy is sure",
    "hpt": "that of rollouts and, beside it, the likelihood of demonstrations",
    "hila": "that of ratios to the reference and, beside it, the entropy over the candidates of a group",
    "agent_brace": "the sum of two, each over the turns of one role",
    "qwenlong_l1_5": "that of good tokens alone while the entropy is high",
    "thor": "that of the clipped loss and, beside it, the likelihood of what had a positive advantage",
    "lope": "that of rollouts, and a twelfth of it for what was sampled again, whose ratio is shaped",
    "sppo": "a multiple of it, and further on of what log-ratios lack of their targets",
    "inpo": "a multiple of what log-ratios lack of their targets, in comparison with the group",
    "nash_mp": "a multiple of what log-ratios lack of their targets, in comparison with the group",
    "online_dpo": "half a multiple of it, and further on that of a logistic regression",
    "mnpo": "a multiple of what log-ratios lack of their targets, in comparison with the group",
    "apo": "half a multiple of it, and further on that of a logistic regression",
    "dpo": "half a multiple of it, and further on that of a logistic regression",
    "ipo": "a multiple of what log-ratios lack of their targets, in comparison with the group",
    "kto": "that of a sigmoid of each answer's log-ratio, by the sign of the advantage alone",
    "bradley_terry_model": "nothing of what tokens are like: answers are scored",
    "pairwise_model": "nothing of what tokens are like: answers are embedded",
    "rover": "a multiple of it, and further on what the next state is worth at random",
}
"""Recipes whose gradient at ratio 1 is not that of ``sum w A log pi``, and what it is instead."""


def pieces(recipe: Recipe, x: Experience, count: int) -> list[torch.Tensor]:
    """Trajectories of at most ``count`` pieces, cut between groups where the objective compares within them."""
    if recipe.objective.needs_whole_groups():
        groups = torch.arange(x.groups).tensor_split(min(count, x.groups))
        return [torch.nonzero(torch.isin(x.group_of_trajectory.labels, chosen)).squeeze(1) for chosen in groups]
    return list(torch.arange(x.trajectories).tensor_split(count))


def recipe(name: str) -> Recipe:
    return catalogue.card(name).recipe()


@pytest.mark.parametrize("name", [name for name in RECIPES if name not in NOT_THE_POLICY_GRADIENT])
def test_where_policies_agree_the_gradient_is_the_policy_gradient(name, fabricate: Fabricate):
    chosen = recipe(name)
    x, said = fabricate(chosen, spread=0.0)
    objective = chosen.objective
    assert isinstance(objective, PolicyGradient), "state in NOT_THE_POLICY_GRADIENT what its gradient is instead"
    # For a ratio per token this is ``-w A``; one of a whole trajectory reaches each of its tokens.
    leaves = said.leaves()
    log_ratio = objective.ratio(leaves.output(), x).log()
    expected = torch.autograd.grad(
        -(objective.aggregation.at(x) * x.advantage * log_ratio).sum(), leaves.figures["logp"]
    )
    found = gradients(chosen.replace(objective=objective.replace(regularizer=None, critic=None)), x, said)["logp"]
    torch.testing.assert_close(found, expected[0], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("spread", [0.05, 0.5])
@pytest.mark.parametrize("name", RECIPES)
def test_the_gradient_agrees_with_differences_of_the_loss(name, spread, fabricate: Fabricate):
    chosen = recipe(name)
    x, said = fabricate(chosen, spread=spread)
    source = torch.Generator().manual_seed(1)
    found = gradients(chosen, x, said)
    with detached_values_held() as restart:

        def loss(at: Said) -> float:
            restart()
            return float(chosen.objective(at.output(), x).loss)

        loss(said)
        for _ in range(5):
            along = said.like(source)
            expected = sum(float((found[n] * along.figures[n]).sum()) for n in said.figures)
            # Kinks (the edge of a clip, an absolute value) may lie between the two points of a difference, not of all.
            errors = [
                abs((loss(said.moved(h, along)) - loss(said.moved(-h, along))) / (2 * h) - expected)
                for h in (1e-5, 1e-6)
            ]
            assert min(errors) <= 1e-6 + 1e-5 * abs(expected)


@pytest.mark.parametrize("name", RECIPES)
def test_the_order_of_trajectories_changes_nothing(name, fabricate: Fabricate):
    chosen = recipe(name)
    x, said = fabricate(chosen)
    whole = gradients(chosen, x, said)
    order = torch.randperm(x.trajectories, generator=torch.Generator().manual_seed(2))
    rows = x.turn_of_token.pick(x.trajectory_of_turn.pick(order)[0])[0]
    found = gradients(chosen, x.select(order), said.at(rows))
    for figure, values in whole.items():
        torch.testing.assert_close(found[figure], values[rows], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", RECIPES)
def test_pieces_of_a_batch_have_the_gradient_of_the_whole(name, fabricate: Fabricate):
    chosen = recipe(name)
    x, said = fabricate(chosen)
    whole = gradients(chosen, x, said)
    for count in (2, 5, x.trajectories):
        found = []
        for rows in pieces(chosen, x, count):
            tokens = x.turn_of_token.pick(x.trajectory_of_turn.pick(rows)[0])[0]
            found.append(gradients(chosen, x.microbatch(rows), said.at(tokens)))
        for figure, values in whole.items():
            together = torch.cat([piece[figure] for piece in found])
            torch.testing.assert_close(together, values, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", RECIPES)
def test_padding_changes_nothing_whatever_it_holds(name, fabricate: Fabricate):
    """Every turn gets a token more that may not train and holds no numbers; the batch is then as a padded one."""
    chosen = recipe(name)
    x, said = fabricate(chosen)
    plain = gradients(chosen, x, said)
    real = torch.cat([torch.tensor([True] * size + [False]) for size in x.turn_of_token.size().tolist()])

    def padded(values: torch.Tensor | None, fill: float) -> torch.Tensor | None:
        if values is None:
            return None
        wide = torch.full((len(real), *values.shape[1:]), fill, dtype=values.dtype)
        wide[real] = values
        return wide

    figures = (
        "behavior_logp",
        "old_logp",
        "ref_logp",
        "ref_direction",
        "ref_log_probs",
        "old_mean_logp",
        "value",
        "entropy",
        "confidence",
        "advantage",
        "value_target",
    )
    known = (
        "reward",
        "success",
        "truncated",
        "finished",
        "episode",
        "demonstrated",
        "resampled",
        "task_id",
        "pass_rate",
        "usual_entropy",
        "turn_role",
        "turn_context",
        "answer",
        "seed",
    )
    wide = Experience.from_lengths(
        (x.turn_of_token.size() + 1).tolist(),
        x.trajectory_of_turn.size().tolist(),
        x.group_of_trajectory.size().tolist(),
        mask=real if x.mask is None else padded(x.mask, 0),
        learning_rate=x.learning_rate,
        **{
            name: padded(getattr(x, name), float("nan"))
            for name in (*figures, "previous_logp", "past_logp", "value_target")
        },
        **{name: padded(getattr(x, name), 0) for name in ("version", "action", "latent", "planning", "critic_mask")},
        **{n: getattr(x, n) for n in known},
    )
    beyond = {n: padded(v, float("nan") if v.is_floating_point() else -1) for n, v in said.wide.items()}
    found = gradients(chosen, wide, Said({n: padded(v, float("-inf")) for n, v in said.figures.items()}, beyond))
    for figure, values in plain.items():
        torch.testing.assert_close(found[figure][real], values, rtol=1e-6, atol=1e-9)
        assert not found[figure][~real].any()


@pytest.mark.parametrize("name", RECIPES)
def test_a_batch_without_a_token_that_may_train_moves_nothing(name, fabricate: Fabricate):
    chosen = recipe(name)
    x, said = fabricate(chosen)
    nothing = torch.zeros(x.tokens, dtype=torch.bool)
    for values in gradients(chosen, x.replace(mask=nothing, critic_mask=None), said).values():
        assert not values.any()


# ---- the battery itself ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _MeanOverThePiece(PolicyGradient):
    """The usual mistake: a normaliser of the micro-batch."""

    def __call__(self, out: PolicyOutput, x: Experience) -> Loss:
        return Loss(-(out.logp * x.advantage).sum() / x.tokens)


def test_the_battery_convicts_a_normaliser_of_the_piece(fabricate: Fabricate):
    bad = recipe("rloo").replace(objective=_MeanOverThePiece())
    x, said = fabricate(bad)
    rows = torch.arange(3)
    tokens = x.turn_of_token.pick(x.trajectory_of_turn.pick(rows)[0])[0]
    piece = gradients(bad, x.microbatch(rows), said.at(tokens))["logp"]
    assert not torch.allclose(piece, gradients(bad, x, said)["logp"][tokens])
