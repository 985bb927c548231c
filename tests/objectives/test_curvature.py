"""The mask by curvature: numbers worked by hand, the steps it predicts, whom it drops and what it remembers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from stratagem.distribution import OF_ACTIONS, most_likely
from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.objectives import (
    AdamStep,
    CurvatureMask,
    GradientStep,
    LogLikelihood,
    PolicyGradient,
    SequenceSum,
    StepModel,
    TokenMean,
)

OPEN = {"gain": math.inf, "shift": math.inf}


def says(weights: Tensor, hidden: Tensor, action: Tensor) -> PolicyOutput:
    """What a policy with logits ``W h`` says, all of its vocabulary among the likeliest."""
    logp = torch.log_softmax(hidden @ weights.mT, 1)
    figures = {name: figure(logp.detach(), action) for name, figure in OF_ACTIONS.items()}
    chosen = logp.gather(1, action.unsqueeze(1)).squeeze(1)
    square = hidden.square().sum(1).detach()
    return PolicyOutput(chosen, hidden=hidden.detach(), hidden_square=square, **figures)


def batch(advantage: Tensor | list[float], rate: float = 0.1, lengths: list[int] | None = None, **fields) -> Experience:
    advantage = torch.as_tensor(advantage)
    lengths = lengths or [1] * len(advantage)
    return Experience.from_lengths(
        lengths, [1] * len(lengths), [len(lengths)], advantage=advantage, learning_rate=rate, **fields
    )


def two_tokens(action: int = 0) -> PolicyOutput:
    """``pi = (0.6, 0.4)`` from ``h = 2``."""
    weights = torch.tensor([[0.6], [0.4]], dtype=torch.float64).log() / 2
    return says(weights, torch.tensor([[2.0]], dtype=torch.float64), torch.tensor([action]))


def random_policy(
    tokens: int = 12, vocabulary: int = 5, width: int = 3, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    source = torch.Generator().manual_seed(seed)
    weights = torch.randn(vocabulary, width, generator=source, dtype=torch.float64)
    hidden = torch.randn(tokens, width, generator=source, dtype=torch.float64)
    action = torch.randint(vocabulary, (tokens,), generator=source)
    return weights, hidden, action, torch.randn(tokens, generator=source, dtype=torch.float64)


MODELS = [GradientStep(), GradientStep("top"), AdamStep()]


# ---- by hand --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("advantage", "predicted", "exact"), [(1.0, 0.123904, 0.1230156), (-1.0, 0.132096, 0.1310779)])
def test_both_shifts_are_those_worked_by_hand(model, advantage, predicted, exact):
    objective, policy = CurvatureMask(model, **OPEN).shifts(two_tokens(), batch([advantage]))
    assert objective.item() == pytest.approx(predicted, rel=1e-5)
    assert policy.item() == pytest.approx(0.008192, rel=1e-5)
    moved = torch.tensor([0.6, 0.4], dtype=torch.float64).log() + 0.1 * advantage * 4 * torch.tensor([0.4, -0.4])
    assert advantage * (moved.softmax(0)[0].item() / 0.6 - 1) == pytest.approx(exact, abs=5e-8)


def test_the_policy_shift_is_on_average_over_actions_the_divergence_to_second_order():
    # A move fixed beforehand: u = (1.6, -1.6), u^T F u = 2.4576.
    p, u = torch.tensor([0.6, 0.4], dtype=torch.float64), torch.tensor([1.6, -1.6], dtype=torch.float64)
    scores = torch.eye(2, dtype=torch.float64) - p
    assert float((p * (scores @ u).square()).sum()) == pytest.approx(2.4576)
    moved = (p.log() + 0.1 * u).softmax(0)
    assert float((p * (p / moved).log()).sum()) == pytest.approx(0.0119825, abs=5e-8)
    assert GradientStep()(two_tokens(), batch([1.0])).variance.item() == pytest.approx(2.4576)


# ---- the steps it predicts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sign", [1, -1])
def test_halving_the_learning_rate_divides_the_error_of_the_objective_shift_by_eight(sign):
    weights, hidden, action, advantage = random_policy(1, seed=3)
    advantage = sign * advantage.abs()

    def error(rate: float) -> float:
        w = weights.clone().requires_grad_()
        out = says(w, hidden, action)
        (gradient,) = torch.autograd.grad((advantage * out.logp).sum(), w)
        after = says(weights + rate * gradient, hidden, action)
        exact = float(advantage * (after.logp - out.logp.detach()).expm1())
        return abs(float(CurvatureMask(GradientStep()).shifts(out, batch(advantage, rate))[0]) - exact)

    assert error(1e-3) > 1e-13
    assert error(1e-3) / error(5e-4) == pytest.approx(8, rel=0.05)


def test_the_adam_model_predicts_the_logits_of_a_real_adam_with_the_same_history():
    """Two steps on means of several tokens, then the move that a third, on one token alone, makes at that token."""
    weights, hidden, action, advantage = (t.float() if t.is_floating_point() else t for t in random_policy())
    real = weights.clone().requires_grad_()
    adam = torch.optim.Adam([real], lr=0.1, maximize=True)
    model = AdamStep()
    for rows in (torch.arange(0, 5), torch.arange(5, 12)):
        out = says(real, hidden[rows], action[rows])
        adam.zero_grad()
        (advantage[rows] * out.logp).mean().backward()
        model.accept(out, batch(advantage[rows]), torch.ones(len(rows), dtype=torch.bool))
        adam.step()
        model.after_step(taken=True)
    out = says(real, hidden[:1], action[:1])
    before = real.detach().clone()
    adam.zero_grad()
    (advantage[0] * out.logp).sum().backward()
    adam.step()
    u = (hidden[0] @ (real.detach() - before).mT) / 0.1
    p = torch.log_softmax(hidden[0] @ before.mT, 0).exp()
    v = torch.nn.functional.one_hot(action[0], len(p)) - p
    found = model(out, batch(advantage[:1]))
    assert found.along.item() == pytest.approx(float(v @ u), rel=1e-4)
    assert found.variance.item() == pytest.approx(float((p * u.square()).sum() - (p @ u) ** 2), rel=1e-3)


def test_all_of_the_vocabulary_among_the_likeliest_is_the_dense_computation():
    out, x = says(*random_policy()[:3]), batch(random_policy()[3])
    dense = GradientStep()(out, x)
    for model in (GradientStep("top"), AdamStep()):  # Before its first step Adam's model is the gradient.
        for found, expected in zip(model(out, x), dense, strict=True):
            torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)


def test_the_action_counts_even_when_it_is_not_among_the_likeliest():
    logp = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    ids, probability = most_likely(logp, torch.tensor([3]), others=2)
    assert ids.tolist() == [[3, 0, 1]]
    assert probability[0].tolist() == pytest.approx([0.05 / 0.85, 0.5 / 0.85, 0.3 / 0.85])
    assert most_likely(logp, torch.tensor([0]), others=9)[0].tolist() == [[0, 1, 2, 3]]


def test_an_action_that_is_nearly_certain_keeps_its_small_score():
    logp = torch.tensor([[-1e-10, math.log(1e-10)]])
    assert OF_ACTIONS["score_square"](logp, torch.tensor([0])).item() == pytest.approx(2e-20, rel=1e-3)
    assert OF_ACTIONS["score_variance"](logp, torch.tensor([0])).item() >= 0


# ---- who is dropped -------------------------------------------------------------------------------------------------


def weights_of(mask: CurvatureMask, out: PolicyOutput, x: Experience) -> list[float]:
    return mask(out, x).tolist()


@pytest.mark.parametrize("model", MODELS)
def test_open_bounds_leave_the_gradient_as_it_is_and_bounds_of_zero_leave_none(model):
    weights, hidden, action, advantage = random_policy()
    x = batch(advantage)

    def gradient(correction: CurvatureMask | None) -> Tensor:
        w = weights.clone().requires_grad_()
        objective = PolicyGradient(gate=LogLikelihood(), aggregation=SequenceSum(), correction=correction)
        return torch.autograd.grad(objective(says(w, hidden, action), x).loss, w)[0]

    assert torch.equal(gradient(CurvatureMask(model, **OPEN)), gradient(None))
    for none in ({"gain": 0.0, "shift": math.inf}, {"gain": math.inf, "shift": 0.0}):
        assert not gradient(CurvatureMask(model, **none)).any()


@pytest.mark.parametrize("model", MODELS)
def test_at_learning_rate_zero_every_token_stays(model):
    weights, hidden, action, advantage = random_policy()
    out = says(weights, hidden, action)
    assert weights_of(CurvatureMask(model, 1e-6, 1e-6), out, batch(advantage, 0.0)) == [1.0] * 12
    assert weights_of(CurvatureMask(model, 1e-6, 1e-6), out, batch(advantage, 10.0)) != [1.0] * 12


def test_each_bound_drops_by_its_own_shift():
    out, x = two_tokens(), batch([1.0])
    for gain, shift, kept in ((0.12391, 0.0082, 1.0), (0.12390, 0.0082, 0.0), (0.12391, 0.00819, 0.0)):
        assert weights_of(CurvatureMask(GradientStep(), gain, shift), out, x) == [kept]


def test_a_token_without_advantage_stays_under_gradient_descent_and_has_no_effect_on_the_moments():
    assert weights_of(CurvatureMask(GradientStep(), 1e-9, 1e-9), two_tokens(), batch([0.0])) == [1.0]


def test_momentum_against_the_advantage_is_dropped_only_by_a_lower_bound():
    model = AdamStep()
    model.accept(two_tokens(), batch([-5.0]), torch.tensor([True]))
    model.after_step(taken=True)
    out, x = two_tokens(), batch([0.1], rate=1e-3)
    objective, _ = CurvatureMask(model).shifts(out, x)
    assert objective.item() < 0
    assert weights_of(CurvatureMask(model, 1.0, 1.0), out, x) == [1.0]
    assert weights_of(CurvatureMask(model, 1.0, 1.0, low=0.0), out, x) == [0.0]
    assert weights_of(CurvatureMask(model, 1.0, 1.0, low=2 * objective.item()), out, x) == [1.0]


def test_units_are_dropped_whole_by_the_means_over_what_may_train():
    weights, hidden, action, _ = random_policy(6)
    advantage = torch.tensor([3.0, 0.0, 0.0, 0.1, 0.1, math.nan], dtype=torch.float64)
    x = batch(advantage, lengths=[3, 3], mask=[True, True, True, True, True, False])
    out = says(weights, hidden, action)
    objective, _ = CurvatureMask(GradientStep()).shifts(out, x)
    first, second = objective[0] / 3, objective[3:5].mean()
    assert first > second
    mask = CurvatureMask(GradientStep(), float(first + second) / 2, math.inf, unit="trajectory")
    assert weights_of(mask, out, x) == [0.0] * 3 + [1.0] * 3
    assert weights_of(mask.replace(unit="batch"), out, x) in ([0.0] * 6, [1.0] * 6)


def test_masks_multiply_and_each_says_its_figures():
    weights, hidden, action, advantage = random_policy(6)
    out, x = says(weights, hidden, action), batch(advantage, lengths=[3, 3])
    one = CurvatureMask(GradientStep(), 0.1, math.inf)
    other = CurvatureMask(GradientStep(), 0.2, math.inf, unit="trajectory")
    both, figures = (one * other).judge(out, x)
    assert torch.equal(both, one(out, x) * other(out, x))
    assert {"curvature/rejected", "curvature_mask_1/curvature/rejected"} <= figures.keys()
    assert [name for name, _ in (one * other * one).children()] == [f"factors.{i}" for i in range(3)]


def test_a_prediction_that_is_not_finite_drops_its_token_and_is_counted():
    out = two_tokens()
    out = PolicyOutput(**{**vars(out), "hidden_square": torch.tensor([math.inf])})
    metrics = PolicyGradient(aggregation=TokenMean(), correction=CurvatureMask(GradientStep(), **OPEN))(
        out, batch([1.0])
    ).metrics
    assert metrics["curvature/rejected"].item() == metrics["curvature/not_finite"].item() == 1.0
    assert metrics["curvature/policy_shift"].item() == 0.0


def test_the_metrics_are_shares_of_the_tokens_that_may_train():
    weights, hidden, action, advantage = random_policy()
    mask = CurvatureMask(GradientStep(), 0.02, math.inf)
    out, x = says(weights, hidden, action), batch(advantage, mask=torch.arange(12) < 6)
    metrics = PolicyGradient(aggregation=TokenMean(), correction=mask)(out, x).metrics
    objective, policy = mask.shifts(out, x)
    assert 0 < metrics["curvature/rejected"].item() < 1
    assert metrics["curvature/rejected"].item() == pytest.approx((objective[:6].abs() >= 0.02).double().mean().item())
    assert metrics["curvature/policy_shift"].item() == pytest.approx(policy[:6].mean().item())


# ---- what it remembers ----------------------------------------------------------------------------------------------


def test_looking_ahead_changes_no_moment():
    model = AdamStep()
    weights, hidden, action, advantage = random_policy()
    out, x = says(weights, hidden, action), batch(advantage)
    model.accept(out, x, torch.ones(12, dtype=torch.bool))
    model.after_step(taken=True)
    before = {name: tensor.clone() for name, tensor in model.memory().items()}
    first, second = model(out, x), model(out, x)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.memory().items())


def test_moments_take_in_the_mean_of_the_kept_tokens_however_the_batch_is_cut():
    weights, hidden, action, advantage = random_policy()
    kept = torch.arange(12) % 3 != 0
    whole, cut = AdamStep(), AdamStep()
    whole.accept(says(weights, hidden, action), batch(advantage), kept)
    for rows in torch.arange(12).split(5):
        cut.accept(says(weights, hidden[rows], action[rows]), batch(advantage[rows]), kept[rows])
    p = torch.log_softmax(hidden @ weights.mT, 1).exp()
    v = torch.nn.functional.one_hot(action, 5) - p
    mean = torch.einsum("t,tv,th->vh", advantage * kept, v, hidden) / kept.sum()
    for model in (whole, cut):
        model.after_step(taken=True)
        torch.testing.assert_close(model.memory()["first"].double(), 0.1 * mean, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(model.memory()["second"].double(), 0.001 * mean**2, rtol=1e-3, atol=1e-8)


def test_a_step_that_was_not_taken_is_forgotten():
    model = AdamStep()
    model.accept(two_tokens(), batch([1.0]), torch.tensor([True]))
    model.after_step(taken=False)
    model.after_step(taken=True)
    assert model.memory()["steps"].item() == 0
    model.accept(two_tokens(), batch([1.0]), torch.tensor([False]))
    model.after_step(taken=True)
    assert model.memory()["steps"].item() == 0


def test_rows_are_added_when_their_tokens_are_first_seen():
    model = AdamStep()
    for ids in ([[1, 0]], [[4, 1]]):
        out = PolicyOutput(
            torch.zeros(1),
            hidden=torch.ones(1, 2),
            top_id=torch.tensor(ids),
            top_probability=torch.tensor([[0.5, 0.5]]),
        )
        assert model(out, batch([1.0])).along.isfinite().all()
        model.accept(out, batch([1.0]), torch.tensor([True]))
        model.after_step(taken=True)
    # Row 1 got +0.05 (0.1 * 0.5), decayed by 0.9, and then -0.05.
    rows = model.memory()["first"][:, 0].tolist()
    assert rows == pytest.approx([-0.045, 0.045 - 0.05, 0.0, 0.0, 0.05])


def test_moments_outlive_a_change_of_fields_and_a_checkpoint():
    mask = CurvatureMask()
    mask.step.accept(two_tokens(), batch([1.0]), torch.tensor([True]))
    mask.after_step(taken=True)
    restored = CurvatureMask()
    restored.load_state_dict(mask.state_dict())
    for other in (mask.replace(gain=0.5), mask.replace(step=mask.step.replace(beta1=0.8)), restored):
        assert other.state_dict().keys() == {"step.first", "step.second", "step.steps"}
        assert all(torch.equal(tensor, mask.state_dict()[name]) for name, tensor in other.state_dict().items())
    assert CurvatureMask().state_dict()["step.first"].numel() == 0


# ---- bad input ------------------------------------------------------------------------------------------------------


def test_what_makes_no_sense_is_refused_in_one_line():
    with pytest.raises(InputError, match=r"curvature_mask.low = 0.5: must be at most curvature_mask.gain = 0.01"):
        CurvatureMask(low=0.5)
    with pytest.raises(InputError, match=r"curvature_mask.gain = -1.0"):
        CurvatureMask(gain=-1.0)
    with pytest.raises(InputError, match=r"adam_step.beta1 = 1.0"):
        AdamStep(beta1=1.0)
    with pytest.raises(ValueError, match=r"needs x.learning_rate"):
        CurvatureMask()(two_tokens(), batch([1.0]).replace(learning_rate=None))
    with pytest.raises(ValueError, match=r"adam_step reads output.hidden"):
        CurvatureMask()(PolicyOutput(torch.zeros(1)), batch([1.0]))
    with pytest.raises(ValueError, match=r"gradient_step reads output.hidden_square"):
        CurvatureMask(GradientStep())(PolicyOutput(torch.zeros(1)), batch([1.0]))
    piece = batch([1.0, 1.0]).microbatch(torch.tensor([0]))
    with pytest.raises(InputError, match="curvature_mask: a micro-batch holds part of a batch, and the correction"):
        CurvatureMask(GradientStep(), unit="batch")(two_tokens(), piece)


def test_a_model_of_ones_own_can_be_put_in():
    assert issubclass(GradientStep, StepModel)
    assert CurvatureMask(step=GradientStep()).needs() == {
        "learning_rate",
        "output.hidden_square",
        "output.score_square",
        "output.score_variance",
    }
