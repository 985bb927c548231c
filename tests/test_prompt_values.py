"""Values of policies at prompts: predictors in context, the pair loss, the adapter, routing and diagnostics."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from stratagem.errors import InputError
from stratagem.prompt_values import (
    ContextValue,
    QueryAdapter,
    made_up,
    rank_loss,
    residual_correlations,
    route,
    routed_score,
    train,
    value_loss,
    within_auc,
)
from stratagem.sampling import ContextMean, InContext, Logistic, Neighbours, Predictor

PREDICTORS = [ContextMean(), Neighbours(), Logistic(), InContext(steps=0)]


def line(count: int = 40) -> tuple[Tensor, Tensor]:
    """Prompts on a line; those on the right side are solved."""
    x = torch.linspace(-1, 1, count, dtype=torch.float64)
    return torch.stack([x, torch.ones_like(x)], 1), (x > 0).double()


# ---- predictors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("predictor", PREDICTORS)
def test_a_context_of_one_class_says_its_smoothed_mean_and_an_empty_one_a_half(predictor: Predictor):
    known, asked = torch.eye(3, dtype=torch.float64), torch.eye(3, dtype=torch.float64)[:2]
    assert predictor(known, torch.ones(3).double(), asked).tolist() == pytest.approx([4 / 5] * 2)
    assert predictor(known, torch.zeros(3).double(), asked).tolist() == pytest.approx([1 / 5] * 2)
    assert predictor(known[:0], torch.zeros(0).double(), asked).tolist() == [0.5] * 2


@pytest.mark.parametrize("predictor", PREDICTORS)
def test_predictions_are_rates_and_no_numbers_are_refused(predictor: Predictor):
    known, score = line()
    said = predictor(known, score, known[::7])
    assert said.dtype == torch.float64 and bool(((said >= 0) & (said <= 1)).all())
    with pytest.raises(ValueError, match="features must be finite"):
        predictor(known * torch.nan, score, known[:1])


@pytest.mark.parametrize("predictor", [Neighbours(), Logistic()])
def test_prompts_like_those_that_were_solved_are_likelier(predictor: Predictor):
    known, score = line()
    said = predictor(known, score, known)
    assert within_auc(said, score, torch.zeros(40)) > 0.95
    assert ContextMean()(known, score, known).tolist() == pytest.approx([21 / 42] * 40)


def test_logistic_regression_is_at_its_minimum():
    source = torch.Generator().manual_seed(1000)
    known, score = torch.randn(30, 5, generator=source).double(), torch.rand(30, generator=source).double()
    said = Logistic(penalty=0.3, steps=40)(known, score, known)
    # At the minimum the residuals add up to 0, and X^T (p - y) = -penalty w: logits are -K (p - y) / penalty, shifted.
    residual = said - score
    assert float(residual.sum()) == pytest.approx(0, abs=1e-4)
    centred = known - known.mean(0)
    logit = -centred @ (centred.T @ residual) / 0.3
    apart = torch.logit(said) - logit
    torch.testing.assert_close(apart, apart.mean().expand(30), atol=1e-3, rtol=0)


# ---- the loss -------------------------------------------------------------------------------------------------------


def test_the_pair_loss_does_not_see_what_is_added_to_a_context_and_cross_entropy_does():
    source = torch.Generator().manual_seed(1000)
    said = torch.randn(3, 6, generator=source, dtype=torch.float64).requires_grad_()
    truth = torch.bernoulli(torch.full((3, 6), 0.5, dtype=torch.float64), generator=source)
    level = torch.tensor([[3.0], [-1.0], [0.5]], dtype=torch.float64)
    plain, moved = rank_loss(said, truth), rank_loss(said + level, truth)
    assert float(plain.detach()) == pytest.approx(float(moved.detach()), rel=1e-12)
    torch.testing.assert_close(*(torch.autograd.grad(loss, said)[0] for loss in (plain, moved)))
    losses = [float(value_loss(logits, truth).detach()) for logits in (said, said + level)]
    assert losses[0] != pytest.approx(losses[1])
    assert float(value_loss(said, truth, 1.0).detach()) == pytest.approx(float(plain.detach()))


def test_the_pair_loss_by_hand_and_without_pairs():
    said, truth = torch.tensor([[1.0, 0.0, -1.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    expected = (torch.log1p(torch.exp(torch.tensor(-1.0))) + torch.log1p(torch.exp(torch.tensor(-2.0)))) / 2
    assert float(rank_loss(said, truth)) == pytest.approx(float(expected))
    # Solved and unsolved prompts of different contexts are no pair.
    assert float(rank_loss(said.T, truth.T)) == 0


def test_a_trained_model_orders_prompts_within_a_policy_where_the_mean_cannot():
    difficulty = torch.tensor([1.0, 0, 0, 0])

    def draw(step: int) -> object:
        drawn = made_up(4, 1000, contexts=16, prompts=24, asked=12)(step)
        source = torch.Generator().manual_seed(step)
        ability = torch.randn(16, 1, generator=source)
        scores = [torch.bernoulli(torch.sigmoid(ability - 4 * x @ difficulty), generator=source) for x in drawn[::2]]
        return drawn._replace(score=scores[0], truth=scores[1])

    model = ContextValue(4, seed=1000)
    losses = train(model, draw, 60, learning_rate=1e-2)
    assert losses[-1] < losses[0]
    held = draw(10**6)
    said = model(held.known, held.score, held.asked).detach()
    context = torch.arange(16)[:, None].expand(16, 12)
    mean = held.score.mean(1, keepdim=True).expand(16, 12)
    flat = [rows.reshape(-1) for rows in (said, mean, held.truth, context)]
    assert within_auc(flat[0], flat[2], flat[3]) > 0.8
    assert within_auc(flat[1], flat[2], flat[3]) == 0.5


def test_prompts_that_are_asked_for_together_do_not_see_each_other():
    drawn = made_up(4, 1000, contexts=2)(0)
    model = ContextValue(4)
    alone = model(drawn.known, drawn.score, drawn.asked[:, 3:4])
    torch.testing.assert_close(model(drawn.known, drawn.score, drawn.asked)[:, 3:4], alone)
    order = torch.randperm(drawn.known.shape[1], generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(drawn.known[:, order], drawn.score[:, order], drawn.asked[:, 3:4]), alone)


# ---- the adapter ----------------------------------------------------------------------------------------------------


def test_at_first_the_adapter_asks_every_prompt_the_same():
    adapter = QueryAdapter(width=16, queries=8).eval()
    states = torch.randn(3, 5, 16, generator=torch.Generator().manual_seed(0))
    said = adapter(states)
    assert said.shape == (3, 48)
    with torch.no_grad():
        adapter.change[0].weight.mul_(7)
    assert torch.equal(adapter(states), said)
    with torch.no_grad():
        adapter.change[4].bias.fill_(1.0)
        adapter.change[4].weight.normal_()
    assert not torch.allclose(adapter(states), said)


def test_the_adapter_has_the_reported_size_and_reads_no_padding():
    assert QueryAdapter().static.numel() == 1008
    adapter = QueryAdapter(width=16, queries=8).eval()
    states = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    spoilt = states.masked_fill(~mask[..., None], torch.nan)
    torch.testing.assert_close(adapter(spoilt, mask)[1:], adapter(states[1:, :3]))
    with pytest.raises(ValueError, match="token states must be finite"):
        adapter(spoilt)
    with pytest.raises(InputError, match="size = 7: must be a multiple of heads = 3"):
        QueryAdapter(size=7)


# ---- routing and diagnostics ----------------------------------------------------------------------------------------


def test_routing_weighs_score_and_cost():
    score, cost = torch.tensor([1.0, 0.0]), torch.tensor([0.8, 0.1])
    assert routed_score(score, cost).tolist() == [1, 0]
    assert routed_score(score, cost, 0.5).tolist() == pytest.approx([0.6, 0.45])
    assert routed_score(score, cost, 0.0).tolist() == pytest.approx([0.2, 0.9])
    assert route(torch.tensor([[0.2, 0.9, 0.5], [0.7, 0.1, 0.5]])).tolist() == [1, 0, 0]
    with pytest.raises(InputError, match=r"weight = 2: must lie in \[0, 1\]"):
        routed_score(score, cost, 2)
    with pytest.raises(InputError, match=r"costs must lie in \[0, 1\]"):
        routed_score(score, torch.tensor([1.5]))


def test_auc_is_within_contexts():
    truth, context = torch.tensor([1.0, 0, 1, 0, 1]), torch.tensor([0, 0, 1, 1, 2])
    assert within_auc(torch.tensor([0.2, 0.1, 0.9, 0.8, 0.0]), truth, context) == 1
    assert within_auc(torch.tensor([0.2, 0.2, 0.7, 0.8, 0.0]), truth, context) == 0.25
    assert within_auc(truth[:1], truth[:1], context[:1]) != within_auc(truth[:1], truth[:1], context[:1])


def test_errors_are_held_against_the_means_of_contexts_and_prompts():
    context, prompt = torch.arange(4).repeat_interleave(5), torch.arange(5).repeat(4)
    truth = (context + prompt).double() / 8
    assert residual_correlations(truth, truth, context, prompt) == (0.0, 0.0)
    of_context, of_prompt = residual_correlations(truth + 0.25 * context, truth, context, prompt)
    assert of_context == pytest.approx(1) and of_prompt == pytest.approx(0, abs=1e-9)
    of_context, of_prompt = residual_correlations(truth - 0.25 * prompt, truth, context, prompt)
    assert of_prompt == pytest.approx(-1) and of_context == pytest.approx(0, abs=1e-9)
