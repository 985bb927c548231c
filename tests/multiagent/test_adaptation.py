from __future__ import annotations

from typing import Any

import pytest
import torch

from stratagem.architectures import RelationalActors
from stratagem.errors import InputError
from stratagem.multiagent import MultiAgentWorld, RelationalAgents, ResourcesGame
from stratagem.multiagent.adaptation import adapted, code_returns
from stratagem.recipes.games import mra
from stratagem.sampling import Rollouts

SEEN = ResourcesGame((2, 4), cells=5, landmarks=2, places=5, max_turns=4)
UNSEEN = ResourcesGame((3,), cells=5, landmarks=2, places=5, max_turns=4)
SMALL: dict[str, Any] = {"architecture.hidden": 16, "architecture.width": 16, "architecture.codes": 3}
PLAN = mra(3, episodes=4, replayed=2, updates=2).with_values(SMALL)


def made() -> RelationalAgents:
    policy: RelationalAgents = RelationalActors(codes=3, hidden=16, width=16).build(SEEN, 0)
    with torch.no_grad():
        for weight in policy.parameters():
            weight.add_(0.5 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(3)))
    return policy


def test_codes_are_compared_on_the_same_episodes() -> None:
    policy = made()
    found = code_returns(policy, UNSEEN, 10, 0)
    for code in range(3):
        alone = made()
        alone.choose(code)
        x = MultiAgentWorld(UNSEEN, 0, alone).collect(Rollouts(10, 1), 0).x
        assert x is not None and float(x.returns.mean()) == pytest.approx(float(found[code]))
    assert len(set(found.tolist())) > 1 and int(policy.chosen) == -1


def test_without_steps_the_best_code_is_all_that_changes() -> None:
    policy = made()
    ours = adapted(policy, UNSEEN, PLAN, 0, 0, episodes=10)
    assert int(ours.chosen) == int(code_returns(policy, UNSEEN, 10, 0).argmax())
    weights = policy.state_dict()
    assert all(torch.equal(w, weights[name]) for name, w in ours.state_dict().items() if name != "chosen")


def test_steps_move_a_copy_as_often_as_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    plain = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self, *args: taken.append(1) or plain(self, *args))
    policy = made()
    before = {name: weight.clone() for name, weight in policy.state_dict().items()}
    ours = adapted(policy, UNSEEN, PLAN, 3, 0, episodes=4)
    assert len(taken) == 3
    assert all(torch.equal(weight, before[name]) for name, weight in policy.state_dict().items())
    assert not torch.equal(ours.actor[0].weight, policy.actor[0].weight)
    # No game of three agents is known to the predictor, so what guesses it stays as it is but for its decay.
    assert torch.allclose(ours.predictor[0].weight, policy.predictor[0].weight, rtol=1e-5)
    again = adapted(made(), UNSEEN, PLAN, 3, 0, episodes=4)
    assert torch.equal(ours.actor[0].weight, again.actor[0].weight)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="steps = -1"):
        adapted(made(), UNSEEN, PLAN, -1, 0)
    with pytest.raises(InputError, match="needs agents of features"):
        adapted(made(), ResourcesGame((3,)), PLAN, 1, 0)
    with pytest.raises(InputError, match="recipe mra asks for relational_agents"):
        adapted(made(), UNSEEN, PLAN.with_values({"architecture.codes": 2}), 1, 0, episodes=2)
