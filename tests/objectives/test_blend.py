"""Two losses in changing shares."""

from __future__ import annotations

import pytest
import torch

from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.objectives import Blend, LogLikelihood, PolicyGradient, Restricted, TokenMean
from stratagem.parts import Objective

LIKELIHOOD = PolicyGradient(gate=LogLikelihood(), aggregation=TokenMean())
IMITATION, EXPLORATION = Restricted(LIKELIHOOD, "demonstrations"), Restricted(LIKELIHOOD, "rollouts")


def batch(demonstrated: list[bool] | None = None) -> Experience:
    advantage = torch.tensor([1.0, -2.0, 3.0])
    flags = [False, False, True] if demonstrated is None else demonstrated
    return Experience.from_lengths([1] * 3, [1] * 3, [3], demonstrated=flags, advantage=advantage)


def gradient(objective: Objective, x: Experience) -> list[float]:
    logp = torch.full((3,), -1.0, requires_grad=True)
    objective(PolicyOutput(logp), x).loss.backward()
    return logp.grad.tolist()


@pytest.mark.parametrize(("weight", "alone"), [(0.0, EXPLORATION), (1.0, IMITATION)])
def test_at_its_ends_it_is_one_loss_alone(weight, alone):
    blend = Blend(IMITATION, EXPLORATION, weight)
    assert gradient(blend, batch()) == gradient(alone, batch())
    assert (
        blend(PolicyOutput(torch.full((3,), -1.0)), batch()).loss
        == alone(PolicyOutput(torch.full((3,), -1.0)), batch()).loss
    )


def test_in_between_it_is_their_mean():
    assert gradient(Blend(IMITATION, EXPLORATION, 0.25), batch()) == pytest.approx([-0.375, 0.75, -0.75])


def test_a_loss_without_weight_gives_no_signal():
    shown = batch([True] * 3)
    assert not Blend(IMITATION, EXPLORATION, 0.0).has_signal(shown)
    assert Blend(IMITATION, EXPLORATION, 0.1).has_signal(shown)
    assert not Blend(IMITATION, EXPLORATION, 1.0).has_signal(batch([False] * 3))


def test_a_weight_is_a_share():
    with pytest.raises(InputError, match=r"blend\.weight = 1\.5"):
        Blend(IMITATION, EXPLORATION, 1.5)
