"""Any ratio with any gate, aggregation and correction: it runs, or is refused when built with the reason."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from torch import Tensor

import stratagem.recipes  # noqa: F401  (enters every part)
from stratagem.distribution import OF_ACTIONS
from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.objectives import GeometricMeanRatio, PolicyGradient, SureNegatives, TokenRatio, TruncatedImportance
from stratagem.part import REGISTRY, Part


def kinds(kind: str) -> list[type[Part]]:
    """All our parts of a kind."""
    return [part for name, part in sorted(REGISTRY[kind].items()) if part.__module__.startswith("stratagem.")]


NEEDED: dict[type[Part], dict[str, float]] = {SureNegatives: {"threshold": 0.5}}
"""What parts cannot be built without."""


def batch() -> Experience:
    """Three groups of four trajectories of one to four tokens, the policies all apart."""
    source = torch.Generator().manual_seed(0)
    lengths = [1 + number % 4 for number in range(12)]
    logp = -1 - torch.rand(sum(lengths), generator=source)
    x = Experience.from_lengths(
        lengths,
        [1] * 12,
        [4] * 3,
        behavior_logp=logp,
        old_logp=logp + 0.1 * torch.randn(len(logp), generator=source),
        reward=torch.rand(12, generator=source),
        success=torch.rand(12, generator=source) < 0.5,
        pass_rate=torch.full((3,), 0.5),
        seed=torch.arange(12),
        entropy=torch.rand(len(logp), generator=source),
        confidence=0.2 * torch.rand(len(logp), generator=source),
        target=torch.full((len(logp),), 1.3),
        learning_rate=1e-3,
    )
    return x.replace(advantage=x.to_tokens(trajectory=torch.randn(12, generator=source)))


def said(logp: Tensor) -> PolicyOutput:
    """These log-probabilities of policies over ten tokens, by a last layer of two columns."""
    others = torch.log1p(-logp.detach().exp()) - math.log(9)
    logps = torch.cat([logp.detach().unsqueeze(1), others.unsqueeze(1).expand(-1, 9)], 1)
    of_scores = {name: figure(logps, torch.zeros(len(logp), dtype=torch.int64)) for name, figure in OF_ACTIONS.items()}
    return PolicyOutput(logp, hidden=torch.ones(len(logp), 2), **of_scores)


@pytest.mark.parametrize("gate", kinds("gate"), ids=lambda part: part.part_name())
@pytest.mark.parametrize("ratio", kinds("ratio"), ids=lambda part: part.part_name())
def test_every_composition_learns_or_is_refused_with_the_reason(ratio, gate):
    x = batch()
    corrections = [None, *(part(**NEEDED.get(part, {})) for part in kinds("correction"))]
    for denominator, aggregation, correction in product(("old", "behavior"), kinds("aggregation"), corrections):
        logp = (x.old_logp + 0.02).requires_grad_()
        try:
            parts = {"ratio": ratio(denominator=denominator), "gate": gate(), "correction": correction}
            objective = PolicyGradient(aggregation=aggregation(), **parts)
        except InputError as error:
            assert " with ratio " in str(error)
            continue
        missing = x.missing(name for name in objective.needs() if not name.startswith("output."))
        assert missing == [], "say in batch() what these are"
        objective(said(logp), x).loss.backward()
        assert bool(logp.grad.isfinite().all())
        assert bool((logp.grad != 0).any())


@pytest.mark.parametrize("gate", kinds("gate"), ids=lambda part: part.part_name())
def test_every_gate_goes_with_some_ratio(gate):
    assert any(gate().objection(ratio()) is None for ratio in kinds("ratio"))


def test_what_holds_the_mismatch_already_is_not_corrected_for_it_again():
    with pytest.raises(InputError, match="correction truncated_importance with ratio token_ratio: a ratio to the beh"):
        PolicyGradient(ratio=TokenRatio("behavior"), correction=TruncatedImportance())
    PolicyGradient(ratio=GeometricMeanRatio(), correction=TruncatedImportance())
