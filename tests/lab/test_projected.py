"""Tables projected on allowed tokens, and thoughts that reach the world only through actions."""

from __future__ import annotations

import pytest
import torch

from stratagem.blueprint import Blueprint
from stratagem.errors import InputError
from stratagem.lab import Exact, ProjectedPolicy, Tree, allowed_tokens, find_game
from stratagem.lab.game import TokenGame, over
from stratagem.lab.policy import TabularPolicy
from stratagem.lab.world import LabTask
from stratagem.study.experiments import learn

GAME = find_game("four_by_four")


def no_token_zero(state: object, token: int) -> bool:
    return token != 0


def projected(spread: float = 1.0) -> tuple[Tree, ProjectedPolicy]:
    tree = Tree.enumerate(GAME)
    return tree, ProjectedPolicy(tree.normal_logits(1000, spread), allowed_tokens(tree, no_token_zero))


def touches_zero(policy: Exact) -> float:
    x = policy.tree.leaves
    assert x.action is not None
    return policy.expected(x.trajectory_of_token.sum((x.action == 0).long()) > 0)


@pytest.mark.parametrize("level", [2, 3])
def test_an_agent_learns_by_the_recipe_it_declares_and_what_is_forbidden_stays_impossible(level: int):
    declared = {"identity": {"name": "a", "version": "1"}, "goal": "b", "evolution": {"level": level}}
    recipe = Blueprint.parse(declared).evolution.build()
    policy = projected()[1]
    before = policy.logits.detach().clone()
    run = learn(recipe, LabTask(GAME), 1000, 12, policy)
    assert max(map(touches_zero, run.policies)) == 0.0
    assert run.last.expected_return > run.policies[0].expected_return
    assert torch.equal(policy.logits.detach()[:, 0], before[:, 0])


@pytest.mark.parametrize("temperature", [0.25, 1.0, 50.0])
def test_it_says_the_probabilities_that_it_samples_with(temperature: float):
    tree, policy = projected()
    acting = Exact(tree, policy.table() / temperature)
    possible = tree.leaves.select(torch.nonzero(acting.leaf_probability > 0)[:, 0])
    out = policy(possible, temperature=temperature, also={"entropy", "score_square"})
    chosen = acting.logp[possible.inputs.node, possible.action]
    assert torch.allclose(out.logp.double(), chosen, atol=1e-5)
    assert torch.allclose(out.entropy.double(), acting.node_entropy[possible.inputs.node], atol=1e-5)
    assert float(acting.leaf_probability.sum()) == pytest.approx(1.0)


def test_its_gradient_is_that_of_the_projected_return_and_an_unprojected_one_is_another():
    tree, policy = projected()
    x = tree.leaves.select(torch.nonzero(Exact(tree, policy.table()).leaf_probability > 0)[:, 0])

    def expected(asked: torch.nn.Module, log: torch.Tensor) -> torch.Tensor:
        weight = x.trajectory_of_token.sum(log.detach()).exp() * x.returns
        out = asked(x)
        return torch.autograd.grad((out.logp * x.to_tokens(trajectory=weight)).sum(), asked.logits)[0]

    acting = policy(x).logp
    ours = expected(policy, acting)
    assert torch.allclose(ours.double(), Exact(tree, policy.table()).gradient, atol=1e-6)
    plain = expected(TabularPolicy(policy.logits), acting)
    assert float(torch.nn.functional.cosine_similarity(ours.flatten(), plain.flatten(), dim=0)) < 0.99


def test_its_entropy_has_a_finite_gradient():
    tree, policy = projected()
    x = tree.leaves.select(torch.nonzero(Exact(tree, policy.table()).leaf_probability > 0)[:, 0])
    policy(x, also={"entropy"}).entropy.sum().backward()
    assert bool(policy.logits.grad.isfinite().all()) and float(policy.logits.grad[:, 0].abs().max()) == 0.0


def test_where_nothing_is_allowed_the_null_token_is_taken_and_a_predicate_that_raises_forbids():
    tree = Tree.enumerate(GAME)

    def raises(state: object, token: int) -> bool:
        raise RuntimeError

    allowed = allowed_tokens(tree, raises)
    assert not allowed.any()
    policy = ProjectedPolicy(tree.normal_logits(1000), allowed, null=2)
    assert torch.equal(policy.table().argmax(-1), torch.full((tree.nodes,), 2))
    assert Exact(tree, policy.table()).entropy == 0.0
    for null, mask in ((9, allowed), (0, allowed[:-1])):
        with pytest.raises(InputError, match="do not fit"):
            ProjectedPolicy(tree.normal_logits(1000), mask, null)


def test_it_cannot_be_asked_for_a_mean_over_tokens_that_are_impossible():
    tree, policy = projected()
    with pytest.raises(InputError, match="does not say mean_logp"):
        policy(tree.leaves, also={"mean_logp"})


# ---- thoughts -------------------------------------------------------------------------------------------------------


def think_then_act(state: str, tokens: tuple[int, ...]):
    """A thought, then an action; the reward is the action's alone."""
    return None if len(tokens) < 2 else over((0.2, 1.0, 0.5)[tokens[1]])


THOUGHT = TokenGame("thought", "one thought, one action", 3, ((1.0, "start"),), think_then_act)


def test_when_actions_ignore_thoughts_the_return_does_not_depend_on_how_one_thinks():
    tree = Tree.enumerate(THOUGHT)
    source = torch.Generator().manual_seed(1000)
    acting = torch.randn(3, generator=source, dtype=torch.float64)
    first = int(tree.node[0])
    returns = []
    for _ in range(5):
        logits = acting.expand(tree.nodes, 3).clone()
        logits[first] = 3 * torch.randn(3, generator=source, dtype=torch.float64)
        policy = Exact(tree, logits)
        returns.append(policy.expected_return)
        assert float(policy.gradient[first].abs().max()) < 1e-12
    assert returns == pytest.approx([returns[0]] * 5)
    wanted = (torch.softmax(acting, 0) * torch.tensor([0.2, 1.0, 0.5], dtype=torch.float64)).sum()
    assert returns[0] == pytest.approx(float(wanted))


def test_when_actions_follow_thoughts_it_does():
    tree = Tree.enumerate(THOUGHT)
    logits = tree.normal_logits(1000)
    assert float(Exact(tree, logits).gradient[int(tree.node[0])].abs().max()) > 1e-3
