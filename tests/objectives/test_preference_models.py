"""The loss of reward and preference models, held against numbers by hand and gradients by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.objectives import AnswerComparison, AnswerHead
from stratagem.parts import Preference
from stratagem.preferences import AnswerTable, BradleyTerry, Noisy
from stratagem.preferences.models import lead
from stratagem.training.microbatches import microbatches


def labelled(*rewards: float, sizes: list[int] | None = None, tokens: int = 1, **fields: Any) -> Experience:
    """Answers of so many tokens each, with what labels pay."""
    reward = torch.tensor(rewards, dtype=torch.float64)
    return Experience.from_lengths(
        [tokens] * len(rewards), [1] * len(rewards), sizes or [len(rewards)], **{"reward": reward, **fields}
    )


def said(values: list[float] | Tensor, tokens: int = 1, other: float = math.nan) -> PolicyOutput:
    """The output whose embedding is this at each answer's last token, and ``other`` before."""
    last = torch.as_tensor(values, dtype=torch.float64)
    last = last.unsqueeze(1) if last.ndim == 1 else last
    every = torch.full((len(last), tokens, last.shape[1]), other, dtype=torch.float64)
    every = torch.cat([every[:, 1:], last.unsqueeze(1)], 1)
    return PolicyOutput(torch.full((len(last) * tokens,), torch.nan), embedding=every.flatten(0, 1))


def loss(part: AnswerComparison, x: Experience, values: list[float] | Tensor) -> float:
    return float(part(said(values), x).loss)


def minus_log_sigmoid(value: float) -> float:
    return math.log(1 + math.exp(-value))


# ---- the loss -------------------------------------------------------------------------------------------------------


def test_the_loss_of_one_pair_by_hand():
    """``-log sigmoid(1.5 - 0.5) = 0.313262``, whichever of the two comes first."""
    assert loss(AnswerComparison(), labelled(1, 0), [1.5, 0.5]) == pytest.approx(0.313262, abs=1e-6)
    assert loss(AnswerComparison(), labelled(0, 1), [0.5, 1.5]) == pytest.approx(0.313262, abs=1e-6)
    assert loss(AnswerComparison(), labelled(0, 1), [1.5, 0.5]) == pytest.approx(1.313262, abs=1e-6)


def test_a_tie_is_half_of_both():
    expected = (minus_log_sigmoid(1) + minus_log_sigmoid(-1)) / 2
    assert loss(AnswerComparison(), labelled(0.5, 0.5), [1.5, 0.5]) == pytest.approx(expected)


def test_smoothed_labels_are_those_of_a_noisy_oracle():
    x, values = labelled(1, 0), [1.5, 0.5]
    expected = 0.9 * minus_log_sigmoid(1) + 0.1 * minus_log_sigmoid(-1)
    assert loss(AnswerComparison(label_smoothing=0.1), x, values) == pytest.approx(expected)
    assert loss(AnswerComparison(Noisy(BradleyTerry(0), 0.1)), x, values) == pytest.approx(expected)


@pytest.mark.parametrize("chosen_first", [True, False])
def test_a_margin_asks_for_a_larger_lead(chosen_first: bool):
    """The margin of the label is 3, so that a lead of 1 at weight 0.5 is 0.5 short."""
    columns = torch.tensor([[1.0, 1.5], [0.0, -1.5]], dtype=torch.float64)
    values = torch.tensor([1.5, 0.5])
    order = torch.tensor([0, 1] if chosen_first else [1, 0])
    x = labelled(1, 0, reward=columns[order], reward_names=("reward", "margin"), reward_weights=(1.0, 0.0))
    assert loss(AnswerComparison(margin=0.5), x, values[order]) == pytest.approx(minus_log_sigmoid(1 - 1.5))
    with pytest.raises(
        InputError, match=r"answer_comparison\.margin = 0\.5: needs a task that notes margins.*has reward"
    ):
        loss(AnswerComparison(margin=0.5), labelled(1, 0), values)


def test_centering_holds_sums_of_scores_at_nothing():
    expected = minus_log_sigmoid(1) + 0.25 * 2.0**2
    assert loss(AnswerComparison(centering=0.25), labelled(1, 0), [1.5, 0.5]) == pytest.approx(expected)
    with pytest.raises(ValueError, match="centering is of scores"):
        loss(AnswerComparison(centering=0.25), labelled(1, 0), torch.ones(2, 2))


def test_all_pairs_of_a_group_count_and_groups_by_their_pairs():
    x = labelled(2, 1, 0, 1, 0, sizes=[3, 2])
    scores = [0.3, -0.2, 1.0, 0.4, 0.1]
    leads = [0.3 + 0.2, 0.3 - 1.0, -0.2 - 1.0, 0.4 - 0.1]
    assert loss(AnswerComparison(), x, scores) == pytest.approx(sum(map(minus_log_sigmoid, leads)) / 4)


def test_metrics_worked_by_hand():
    x = labelled(1, 0, 0, 1, 0.5, 0.5, sizes=[2, 2, 2])
    figures = AnswerComparison()(said([1.0, 0.0, 3.0, 1.0, 2.0, -1.0]), x).metrics
    assert float(figures["accuracy"]) == pytest.approx((1 + 0 + 0.5) / 3)
    assert float(figures["lead"]) == pytest.approx((1 - 2 + 0) / 3)
    assert float(figures["score"]) == pytest.approx((0.5 + 2 + 0.5) / 3)


def test_the_gradient_by_hand():
    """By ``v_w``: ``sigmoid(d) - 1``, and what centering adds, ``2 c (v_w + v_l)``."""
    values = torch.tensor([[1.5], [0.5]], dtype=torch.float64, requires_grad=True)
    out = PolicyOutput(torch.zeros(2), embedding=values)
    AnswerComparison(centering=0.25)(out, labelled(1, 0)).loss.backward()
    pull, center = 1 / (1 + math.exp(-1)) - 1, 2 * 0.25 * 2
    assert values.grad is not None
    assert values.grad.flatten().tolist() == pytest.approx([pull + center, -pull + center])


def test_the_gradient_of_an_embedding_by_hand():
    """``d = a_1 b_2 - a_2 b_1`` of ``a`` over ``b``."""
    a, b = [1.0, 2.0], [3.0, -1.0]
    values = torch.tensor([a, b], dtype=torch.float64, requires_grad=True)
    AnswerComparison()(PolicyOutput(torch.zeros(2), embedding=values), labelled(1, 0)).loss.backward()
    pull = 1 / (1 + math.exp(-(a[0] * b[1] - a[1] * b[0]))) - 1
    assert values.grad is not None
    expected = [[pull * b[1], -pull * b[0]], [-pull * a[1], pull * a[0]]]
    torch.testing.assert_close(values.grad, torch.tensor(expected, dtype=torch.float64))


@given(st.lists(st.floats(-5, 5), min_size=4, max_size=4), st.floats(0, 0.4), st.floats(0, 1))
def test_gradients_are_those_of_finite_differences(values: list[float], smoothing: float, centering: float):
    part = AnswerComparison(label_smoothing=smoothing, centering=centering)
    x = labelled(1, 0, 0.5, 0.5, sizes=[2, 2])
    assert torch.autograd.gradcheck(
        lambda v: part(PolicyOutput(torch.zeros(4), embedding=v), x).loss,
        torch.tensor(values, dtype=torch.float64).unsqueeze(1).requires_grad_(),
    )


# ---- which token, which answers -------------------------------------------------------------------------------------


def test_the_last_token_speaks_for_an_answer_and_masked_ones_reach_nothing():
    x = labelled(1, 0, tokens=3)
    assert float(AnswerComparison()(said([1.5, 0.5], tokens=3), x).loss) == pytest.approx(minus_log_sigmoid(1))
    cut = x.replace(mask=torch.tensor([True, True, False] * 2))
    values = said([math.nan, math.nan], tokens=3, other=0.7).embedding
    assert values is not None
    values.requires_grad_()
    out = AnswerComparison()(PolicyOutput(torch.zeros(6), embedding=values), cut)
    out.loss.backward()
    assert float(out.loss.detach()) == pytest.approx(math.log(2)) and bool(values.grad.isfinite().all())  # type: ignore[union-attr]


def test_an_answer_that_may_not_train_is_compared_with_no_one():
    x = labelled(2, 1, 0, mask=torch.tensor([True, False, True]))
    assert loss(AnswerComparison(), x, [1.5, math.nan, 0.5]) == pytest.approx(minus_log_sigmoid(1))
    alone = labelled(2, 1, mask=torch.tensor([True, False]))
    assert not AnswerComparison().has_signal(alone) and AnswerComparison().has_signal(x)
    assert loss(AnswerComparison(), alone, [1.0, 2.0]) == 0


def test_lost_comparisons_do_not_count():
    class _Silent(Preference):
        def __call__(self, x: Experience, first: Tensor, second: Tensor) -> Tensor:
            return torch.where(first == 0, torch.nan, torch.ones(len(first)))

    part = AnswerComparison(_Silent())
    assert loss(part, labelled(0, 0, 0), [9.0, 1.5, 0.5]) == pytest.approx(minus_log_sigmoid(1))
    assert not part.has_signal(labelled(0, 0))


def test_pieces_add_up_to_the_whole():
    from stratagem.language.inputs import TokenInputs

    rewards, sizes = [2.0, 1, 0, 1, 0, 0, 1], [3, 2, 2]
    inputs = TokenInputs(torch.zeros(14, dtype=torch.int64), torch.full((7,), 2), torch.arange(1, 14, 2))
    x = labelled(*rewards, sizes=sizes, inputs=inputs)
    values = torch.randn(7, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    part = AnswerComparison(centering=0.1, label_smoothing=0.1)
    whole = part(PolicyOutput(torch.zeros(7), embedding=values), x)
    pieces = microbatches(x, 4, "groups")
    assert len(pieces) == 3
    parts = [part(PolicyOutput(torch.zeros(p.tokens), embedding=p.piece_of(values)), p) for p in pieces]
    assert float(sum(p.loss for p in parts)) == pytest.approx(float(whole.loss))
    for name, value in whole.metrics.items():
        assert float(sum(p.metrics[name] for p in parts)) == pytest.approx(float(value))
    with pytest.raises(ValueError, match="a loss of comparisons compares the answers of a group"):
        piece = microbatches(x, 4, "trajectories")[0]
        part(PolicyOutput(torch.zeros(piece.tokens), embedding=piece.piece_of(values)), piece)


# ---- leads ----------------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32), st.sampled_from([1, 2, 6]))
def test_a_lead_the_other_way_round_is_its_opposite(seed: int, dims: int):
    first, second = torch.randn(2, 5, dims, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    torch.testing.assert_close(lead(first, second), -lead(second, first))
    assert bool((lead(first, first) == 0).all())


def test_embeddings_represent_any_preferences_and_scores_do_not():
    """A cycle of three: ``v`` at angles of 0, 120 and 240 degrees, each ``sin(120)`` ahead of the next."""
    angle = torch.arange(3) * 2 * math.pi / 3
    v = torch.stack([angle.cos(), angle.sin()], 1)
    ahead = lead(v.unsqueeze(1), v.unsqueeze(0))
    wide = math.sin(2 * math.pi / 3)
    torch.testing.assert_close(ahead, torch.tensor([[0, wide, -wide], [-wide, 0, wide], [wide, -wide, 0]]))
    x = labelled(0, 0, 0, answer=torch.arange(3))
    cycle = AnswerTable((0, 1, 2), ((0.5, 1.0, 0.0), (0.0, 0.5, 1.0), (1.0, 0.0, 0.5)))
    part = AnswerComparison(cycle)
    assert float(part(said(v * 10), x).metrics["accuracy"]) == 1
    # Of scores three pairs of a cycle cannot be likelier than by chance: the loss is convex, and least where all are 0.
    values = torch.zeros(3, 1, dtype=torch.float64, requires_grad=True)
    part(PolicyOutput(torch.zeros(3), embedding=values), x).loss.backward()
    assert values.grad is not None and bool((values.grad.abs() < 1e-12).all())


def test_a_head_is_of_one_number_or_of_an_even_one():
    for wrong, message in (({"dims": 3}, "must be 1, a score, or even"), ({"radius": 2.0}, "a score has none")):
        with pytest.raises(InputError, match=message):
            AnswerHead(**wrong)
    assert AnswerHead(4, 2.0).forbids >= {"old_logp", "output.entropy", "output.value"}
